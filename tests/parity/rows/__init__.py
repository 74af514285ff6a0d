"""The rows, by what they are about."""

from __future__ import annotations

import importlib


def load(site: str) -> None:
    """Fill the table: with the rows of one server process only where they change what is global in Dash."""
    for name in ("outputs", "inputs", "flow", "components", "errors", "background"):
        importlib.import_module(f"{__name__}.{name}")
    if site in ("hooks", "all"):
        importlib.import_module(f"{__name__}.hooked")
