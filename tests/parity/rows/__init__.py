"""The rows, by what they are about."""

from __future__ import annotations

import importlib


def load(site: str) -> None:
    """Fill the table. Hooks are all apps': they are there for the rows that are about them only, and for who reads it all."""
    for name in ("outputs", "inputs", "flow", "components", "errors", "background", "paged"):
        importlib.import_module(f"{__name__}.{name}")
    if site in ("hooks", "all"):
        importlib.import_module(f"{__name__}.hooked")
