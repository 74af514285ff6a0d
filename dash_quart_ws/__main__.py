"""The operator's command line: `python -m dash_quart_ws COMMAND`.

`check module:server` looks at a server's settings. `connections`, `sessions`, `revoke`, `close` and `push` speak to the
workers that run, through their broker.

Exit codes: 0 when all is well, 1 when it is not (something is unsafe, or a worker has not confirmed), 2 when the command
could not do its work.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import logging
import shutil
import sys
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash import Dash
from quart import Quart

from . import check
from .config import BROKER_VARIABLE
from .exceptions import BrokerError, ConfigurationError
from .publisher import KEY_VARIABLE, Publisher
from .sessions.known import plain_text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from .check import Finding
    from .connections.presence import KnownConnection
    from .connections.receipt import Receipt
    from .connections.session import KnownSession

PROGRAM = "python -m dash_quart_ws"
HEAD = ("check", "safe", "ASVS 5.0", "why, or what to do")
NARROWEST = 30
"""Columns for the text of a finding, however narrow the terminal is."""

CELL = 100
"""Characters of what a client or an app has said of itself."""

TARGETS = {
    "user": "a user's `auth_id`",
    "session": "a session's id",
    "connection": "a connection's id",
    "topic": "a topic",
}


class Unusable(Exception):  # noqa: N818 - a state of what was named, not an error of ours
    """What was named on the command line cannot be worked with. The message says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "check":
            return _check(given.server, as_json=given.json)
        return _operate(given)
    except (Unusable, BrokerError, ConfigurationError) as error:
        print(f"{PROGRAM} {given.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Look after a deployment of dash-quart-ws.",
        epilog=f"The broker is that of the environment variable {BROKER_VARIABLE}, its key that of {KEY_VARIABLE}.",
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help=f"the workers' broker, instead of {BROKER_VARIABLE}; others on this host see what stands in a command line",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = _command(
        commands,
        "check",
        "say what is unsafe in production",
        "Import a server, look at its settings without serving, and say what is unsafe in production. "
        "Run it with the environment variables of the deployment. Exit code 1 when anything is.",
    )
    checking.add_argument("server", metavar="MODULE:SERVER", help="as for hypercorn: the Quart app, or the Dash app")
    _command(commands, "connections", "list every open connection, and the worker that has it")
    sessions = _command(commands, "sessions", "list where a user is signed in")
    whose = sessions.add_mutually_exclusive_group(required=True)
    whose.add_argument("user", nargs="?", metavar="USER", help="whose sessions")
    whose.add_argument("--all", action="store_true", help="everybody's")
    confirmed = "Exit code 1 when a worker has not confirmed."
    revoke = _command(commands, "revoke", "end sessions, and close their connections", confirmed)
    _targets(revoke, "user", "session")
    revoke.add_argument("--keep", metavar="ID", action="append", help="a session to spare; may be given several times")
    close = _command(commands, "close", "close connections, and leave their sessions as they are", confirmed)
    _targets(close, *TARGETS)
    close.add_argument("--reconnect", action="store_true", help="let the clients come back by themselves")
    for one in (revoke, close):
        one.add_argument("--reason", metavar="TEXT", default="", help="why: clients and logs get it")
    push = _command(commands, "push", "set properties of a component in every tab of these connections")
    push.add_argument("id", metavar="ID", help="the component's id; a dict as JSON")
    push.add_argument("props", metavar="PROPS_JSON", help="""such as '{"children": "Back in five minutes"}'""")
    _targets(push, *TARGETS)
    return parser


def _command(commands: Any, name: str, help: str, description: str = "") -> argparse.ArgumentParser:
    described = description if name == "check" else f"{help[0].upper()}{help[1:]}. {description}"
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=described)
    command.add_argument("--json", action="store_true", help="print JSON instead of a table or a sentence")
    return command


def _targets(command: argparse.ArgumentParser, *names: str) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    for name in names:
        group.add_argument(f"--{name}", metavar="NAME" if name == "topic" else "ID", help=TARGETS[name])
    group.add_argument("--all", action="store_true", help="everybody")


# -------------------------------------------------------------------------------------------- the running workers


def _operate(given: argparse.Namespace) -> int:
    logging.getLogger("dash_quart_ws").addHandler(logging.NullHandler())  # what went wrong is said here, once
    operation: Callable[[Publisher, argparse.Namespace], int] = OPERATIONS[given.command]
    with Publisher(given.broker) as publisher:
        return operation(publisher, given)


def _list_connections(publisher: Publisher, given: argparse.Namespace) -> int:
    found = publisher.connections().result()
    if given.json:
        _print_json([_facts_of(one) for one in found])
        return 0
    head = ("user", "session", "connection", "from", "since, UTC", "worker", "host")
    rows = [(one.user, _session_of(one), one.id, one.remote, _time(one.since), one.worker, one.host) for one in found]
    print(listing(head, rows, "connection"))
    return 0


def _facts_of(one: KnownConnection) -> dict[str, Any]:
    return {
        "id": one.id,
        "user": one.user,
        "session": _session_of(one),
        "since": one.since.isoformat(),
        "remote": one.remote,
        "path": one.path,
        "worker": one.worker,
        "host": one.host,
        "pid": one.pid,
    }


def _session_of(one: KnownConnection) -> str | None:
    return None if one.session is None else one.session.id


def _list_sessions(publisher: Publisher, given: argparse.Namespace) -> int:
    found: tuple[KnownSession, ...] = publisher.sessions(user=given.user, all=given.all).result()
    if given.json:
        names = ("id", "user", "since", "expires", "last_seen", "remote", "user_agent")
        _print_json([{name: _plain(getattr(one, name)) for name in names} for one in found])
        return 0
    head = ("user", "session", "since, UTC", "last seen", "expires", "from", "browser")
    rows = [
        (one.user, one.id, _time(one.since), _time(one.last_seen), _time(one.expires), one.remote, one.user_agent)
        for one in found
    ]
    print(listing(head, rows, "session"))
    return 0


def _revoke(publisher: Publisher, given: argparse.Namespace) -> int:
    pending = publisher.revoke(
        user=given.user, session=given.session, all=given.all, keep=given.keep, reason=given.reason
    )
    return _report(
        pending.result(), given, "No worker is running. The revocation is stored: it holds for those that begin."
    )


def _close(publisher: Publisher, given: argparse.Namespace) -> int:
    pending = publisher.close_connections(**_target_of(given), reason=given.reason, reconnect=given.reconnect)
    return _report(pending.result(), given, "No worker is running.")


def _push(publisher: Publisher, given: argparse.Namespace) -> int:
    props = _object(given.props, "PROPS_JSON")
    id = _object(given.id, "ID") if given.id.startswith("{") else given.id
    publisher.set_props(id, props, **_target_of(given))
    if given.json:
        _print_json({"pushed": list(props)})
    else:
        print("Handed to the broker. Who is not connected gets nothing later.")
    return 0


OPERATIONS: dict[str, Callable[[Publisher, argparse.Namespace], int]] = {
    "connections": _list_connections,
    "sessions": _list_sessions,
    "revoke": _revoke,
    "close": _close,
    "push": _push,
}


def _target_of(given: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(given, name) for name in (*TARGETS, "all")}


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Unusable(f"{name} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unusable(f'{name} is no JSON object, as in {{"children": "text"}}')
    return value


def _report(receipt: Receipt, given: argparse.Namespace, if_nobody_runs: str) -> int:
    if given.json:
        _print_json(dataclasses.asdict(receipt))
    elif receipt.confirmed:
        print(
            f"Connections closed: {receipt.closed}, the slowest in {receipt.slowest_ms:.1f} ms. "
            f"Workers that have confirmed: {receipt.confirmed}."
        )
    elif not receipt.missing:
        print(if_nobody_runs)
    if receipt.missing and not given.json:
        print(f"NOT confirmed, so that it may not hold there yet: {', '.join(receipt.missing)}")
    return 1 if receipt.missing else 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


# ------------------------------------------------------------------------------------------------------ settings


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


# -------------------------------------------------------------------------------------------------- the tables


def listing(head: Sequence[str], rows: Sequence[Sequence[str | None]], what: str) -> str:
    """Rows below their head, and how many of them there are. What somebody has said of themselves is made fit for a line."""
    cells = [head, *([plain_text(cell or "-", CELL) for cell in row] for row in rows)]
    sizes = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * size for size in sizes])
    lines = ["  ".join(f"{cell:<{size}}" for cell, size in zip(row, sizes, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "", f"{len(rows)} {what}{'' if len(rows) == 1 else 's'}."])


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
