"""`app.run(debug=True)`: a change of the code starts the process anew, as it does with Dash on Flask.

Dash's pages notice that by themselves and load again: the new process has another `_reload-hash`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger("dash_quart_ws")

LOOK_EVERY = 0.5
"""Seconds between two looks at the files."""


class Watch:
    """The files of all modules, also of those that are imported later, and some more.

    Args:
        more: other files that the app depends on.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._more = [Path(path) for path in more]
        self._seen: dict[Path, int] = {}
        self.changed()

    def changed(self) -> list[Path]:
        """What is not as it was when this was called last: files that were changed or deleted."""
        # Not by the attribute: a module that imports its parts when they are asked for may raise anything.
        names = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
        paths = [*self._more, *(Path(name) for name in names if isinstance(name, str))]
        now = {path: _version(path) for path in paths}
        before, self._seen = self._seen, now
        return [path for path, version in now.items() if before.get(path, version) != version]

    async def wait(self) -> None:
        """Until something has changed that can be started. What cannot be compiled is left alone until it is mended."""
        waiting: set[Path] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            found = await asyncio.to_thread(self.changed)
            if not found:
                continue
            waiting = {path for path in {*waiting, *found} if _is_broken(path)}
            if not waiting:
                logger.info("%s has changed: starting anew", ", ".join(map(str, found)))
                return


def _version(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_broken(path: Path) -> bool:
    if path.suffix != ".py":
        return False
    try:
        compile(path.read_bytes(), path, "exec")
    except OSError:
        return False
    except (SyntaxError, ValueError) as error:
        logger.error("%s has changed, but cannot be compiled: %s", path, error)
        return True
    return False


def start_anew() -> None:
    """The same command line, in this process's place."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - there is no shell in it
