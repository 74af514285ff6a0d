"""The rows, by what they are about. Importing this fills the table, in the order in which the docs show it."""

from __future__ import annotations

import importlib

for name in ("outputs", "inputs", "flow", "components", "errors", "developed", "background", "paged", "hooked"):
    importlib.import_module(f"{__name__}.{name}")
