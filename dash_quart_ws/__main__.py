"""The operator's command line: `python -m dash_quart_ws check module:server`.

Exit codes: 0 when all is well, 1 when it is not, 2 when the command could not do its work.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import shutil
import sys
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash import Dash
from quart import Quart

from . import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .check import Finding

PROGRAM = "python -m dash_quart_ws"
HEAD = ("check", "safe", "ASVS 5.0", "why, or what to do")
NARROWEST = 30
"""Columns for the text of a finding, however narrow the terminal is."""


class Unusable(Exception):  # noqa: N818 - a state of what was named, not an error of ours
    """What was named on the command line cannot be worked with. The message says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Look after a deployment of dash-quart-ws.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = commands.add_parser(
        "check",
        help="say what is unsafe in production",
        description="Import a server, look at its settings without serving, and say what is unsafe in production. "
        "Run it with the environment variables of the deployment. Exit code 1 when anything is.",
    )
    checking.add_argument("server", metavar="MODULE:SERVER", help="as for hypercorn: the Quart app, or the Dash app")
    checking.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    given = parser.parse_args(arguments)
    try:
        return _check(given.server, as_json=given.json)
    except Unusable as error:
        print(f"{PROGRAM} {given.command}: {error}", file=sys.stderr)
        return 2


def _check(target: str, *, as_json: bool) -> int:
    server = find_server(target)
    extension: Any = server.extensions.get("dash_quart_ws")
    if extension is None:
        raise Unusable(
            f"{target} has no Dash app with backend=QuartBackend() by the time that {_module(target)} has been imported "
            "(with server=False, init_app(...) makes it one)"
        )
    found = check.findings(server, extension.config)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    else:
        print(table(found, shutil.get_terminal_size().columns))
    return 1 if any(finding.ok is False for finding in found) else 0


# --------------------------------------------------------------------------------------------- what was named


def find_server(target: str) -> Quart:
    """The Quart app behind `module:name`, as hypercorn finds it.

    The module may be a dotted name or a path, with or without `.py`; the name may be dotted, and may end with `()` to
    call it. A Dash app stands for its server, a middleware for what it wraps.

    Raises:
        Unusable: there is none; the message says which step failed.
    """
    module_name, name = _module(target), target.rpartition(":")[2]
    if not module_name or not name:
        raise Unusable(f"{target!r} names no server: give MODULE:SERVER, as in quart_app:server")
    # The output is ours: what the app prints when it is imported goes where messages go.
    with contextlib.redirect_stdout(sys.stderr):
        found = _import(module_name)
        for part in name.split("."):
            found = _step(found, part, target)
    return _server_of(found, target)


def _module(target: str) -> str:
    return target.rpartition(":")[0].removeprefix("asgi:")


def _import(module_name: str) -> Any:
    path = Path(module_name).resolve()
    sys.path.insert(0, str(path.parent))
    import_name = path.with_suffix("").name if path.is_file() else path.name
    try:
        return importlib.import_module(import_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{import_name}.".startswith(f"{error.name}."):
            traceback.print_exc()
            raise Unusable(f"{module_name} imports {error.name!r}, which is not installed here") from error
        raise Unusable(f"there is no module {import_name!r} in {path.parent} or in this Python's packages") from error
    except (Exception, SystemExit) as error:  # the module is the app's, and may raise anything
        traceback.print_exc()
        raise Unusable(f"importing {module_name} raised {type(error).__name__}, see above") from error


def _step(found: Any, part: str, target: str) -> Any:
    attribute = part.removesuffix("()")
    try:
        value = getattr(found, attribute)
    except AttributeError as error:
        owner = getattr(found, "__name__", type(found).__name__)
        raise Unusable(f"{target}: {owner} has no {attribute!r}") from error
    if attribute == part:
        return value
    try:
        return value()
    except (Exception, SystemExit) as error:  # as above
        traceback.print_exc()
        raise Unusable(f"{target}: {attribute}() raised {type(error).__name__}, see above") from error


def _server_of(found: Any, target: str) -> Quart:
    seen: list[Any] = []
    while not isinstance(found, Quart) and all(found is not one for one in seen):
        seen.append(found)
        if isinstance(found, Dash):
            found = found.server
        elif not isinstance(found, type):
            found = getattr(found, "app", found)  # ASGI middleware: hypercorn's, and most others
    if isinstance(found, Quart):
        return found
    if callable(seen[0]) and hasattr(seen[0], "__name__"):
        raise Unusable(f"{target} is a function or class: {target}() would call it")
    raise Unusable(f"{target} leads to a {type(found).__module__}.{type(found).__qualname__}, which is no Quart app")


# --------------------------------------------------------------------------------------------------- the table


def table(found: Sequence[Finding], width: int) -> str:
    """Findings as a table, its last column wrapped so that the lines fit the width."""
    words = {True: "yes", False: "NO", None: "your job"}
    rows = [(one.name, words[one.ok], ", ".join(one.asvs), one.text) for one in found]
    sizes = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(3)]
    left = sum(sizes) + 2 * len(sizes)
    wrapper = textwrap.TextWrapper(max(NARROWEST, width - left), break_long_words=False, break_on_hyphens=False)
    lines = []
    for row in [HEAD, *rows]:
        first, *more = wrapper.wrap(row[3])
        cells = [f"{cell:<{size}}" for cell, size in zip(row[:3], sizes, strict=True)]
        lines += ["  ".join([*cells, first]), *(" " * left + line for line in more)]
    lines.insert(1, "  ".join(["-" * size for size in sizes] + ["-" * wrapper.width]))
    unsafe = sum(one.ok is False for one in found)
    yours = sum(one.ok is None for one in found)
    return "\n".join([*lines, "", f"{unsafe} unsafe in production, {yours} for you to decide or to look at."])


if __name__ == "__main__":
    sys.exit(main())
