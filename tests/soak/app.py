"""The app of the soak: callbacks of every kind, ways to end what is open, and a view of all that the process holds."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import re
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, ctx, dcc, html, set_props
from dash.exceptions import PreventUpdate
from quart import abort, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user

from dash_quart_ws import Connection, QuartBackend, Session, current_session, protected_callback
from dash_quart_ws.callbacks.run import Runner
from dash_quart_ws.connections import asgi

if TYPE_CHECKING:
    from collections.abc import Iterator

logging.basicConfig(stream=sys.stderr, level="WARNING")
warnings.simplefilter("always", RuntimeWarning)  # what was never awaited
warnings.simplefilter("always", ResourceWarning)  # what was never closed

PIECE = "x" * 64 * 1024
OUTSIDERS: set[str] = set()
"""Users who have lost their group."""

PACKAGES = ("dash_quart_ws", "quart", "quart_auth", "hypercorn", "wsproto", "h11")
"""Whose objects are counted: ours, and those of the layers below, which one of ours could hold on to."""

KEPT = (".Revocation", "._dash.Plan", "._dash.Grouping", ".run.Limits")
"""Objects that are there to stay: revocations, which are counted on their own, and what is worked out once for a callback."""


async def list_groups(user: str) -> list[str]:
    await asyncio.sleep(0)
    return [] if user in OUTSIDERS else ["desk"]


app = Dash(
    __name__,
    backend=QuartBackend(
        close_timeout=1.5,
        cancel_timeout=4.0,
        handshake_timeout=5.0,
        outbound_bytes=1 << 20,
        bad_messages_per_minute=30,
        callback_threads=4,
        idle_timeout=3600,
        list_groups=list_groups,
    ),
    websocket_callbacks=True,
    websocket_heartbeat_interval=8_000,
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
server.config["QUART_AUTH_DURATION"] = 120  # revocations are kept as long as a cookie could be used
QuartAuth(server)
backend = QuartBackend.of(app)

OUTPUTS = (
    "echo",
    "sync",
    "wait",
    "block",
    "stream",
    "thread",
    "flood",
    "fill",
    "prop",
    "same",
    "no",
    "own",
    "topic",
    "desk",
)
app.layout = html.Div(
    [html.Button("go", id="go"), dcc.Input(id="text", value="typed"), *(html.Div(id=id) for id in OUTPUTS)]
)

hooks: Counter[str] = Counter()
go = Input("go", "n_clicks")


@backend.on_connect
async def on_connect(_connection: Connection) -> None:
    hooks["connect"] += 1


@backend.on_disconnect
def on_disconnect(_connection: Connection, _reason: str) -> None:
    hooks["disconnect"] += 1


@backend.on_session_end
async def on_session_end(_session: Session, _reason: str) -> None:
    hooks["session end"] += 1


@app.callback(Output("echo", "children"), go)
async def echo(value: Any) -> str:
    return f"{current_user.auth_id} {value}"


@app.callback(Output("sync", "children"), go)
def sync(value: Any) -> str:
    return f"{current_user.auth_id} {value}"


@app.callback(Output("wait", "children"), go)
async def wait(_value: Any) -> None:
    """Never ends by itself."""
    set_props("wait", {"title": "waits"})
    await asyncio.Event().wait()


@app.callback(Output("block", "children"), go)
def block(seconds: float) -> str:
    set_props("block", {"title": "blocks"})
    time.sleep(seconds)
    return "blocked"


@app.callback(Output("stream", "children"), go)
async def stream(count: int) -> str:
    for number in range(count):
        await ctx.websocket.set_prop("stream", f"data-{number}", number)
        await asyncio.sleep(0.002)
    return "streamed"


@app.callback(Output("thread", "children"), go)
def stream_from_a_thread(count: int) -> str:
    for number in range(count):
        set_props("thread", {"title": number})
    return "streamed"


@app.callback(Output("flood", "children"), go)
async def flood(count: int) -> str:
    """Updates that overtake one another, faster than a slow client reads."""
    for number in range(count):
        set_props("flood", {"title": f"{number:04096}"})
        if number % 50 == 0:
            await asyncio.sleep(0)
    return "flooded"


@app.callback(Output("fill", "children"), go)
async def fill(megabytes: int) -> None:
    """Updates that do not, and then nothing for ever."""
    for number in range(megabytes * 16):
        await ctx.websocket.set_prop("fill", f"data-{number}", PIECE)
        await asyncio.sleep(0)
    await asyncio.Event().wait()


@app.callback(Output("prop", "children"), go)
async def prop(_value: Any) -> str:
    return f"holds {await ctx.websocket.get_prop('text', 'value', timeout=5)}"


@app.callback(Output("same", "children"), go)
async def unchanged(_value: Any) -> None:
    raise PreventUpdate


@app.callback(Output("no", "children"), go)
async def forbidden(_value: Any) -> None:
    abort(403)


@app.callback(Output("own", "children"), go)
async def close_own(_value: Any) -> None:
    ctx.websocket.close("enough", reconnect=True)
    await asyncio.Event().wait()


@app.callback(Output("topic", "children"), go)
async def subscribe(topic: str) -> str:
    backend.subscribe(current_session() or ctx.websocket.connection, topic)
    return topic


@protected_callback(Output("desk", "children"), go, groups=["desk"], app=app)
async def of_the_desk(_value: Any) -> None:
    set_props("desk", {"title": "works"})
    await asyncio.Event().wait()


@server.get("/login/<name>")
async def login(name: str) -> dict[str, Any]:
    login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, Any]:
    logout_user()
    return {}


def target() -> dict[str, Any]:
    return {name: True if name == "all" else value for name, value in request.args.items()}


@server.get("/revoke")
async def revoke() -> dict[str, Any]:
    return {"closed": (await backend.revoke(**target())).closed}


@server.get("/close")
async def close() -> dict[str, Any]:
    return {"closed": (await backend.close(**target())).closed}


@server.get("/push/<text>")
async def push(text: str) -> dict[str, Any]:
    return {"connections": await backend.set_props("echo", {"title": text}, **target())}


@server.get("/leaves-the-desk/<name>")
async def leaves_the_desk(name: str) -> dict[str, Any]:
    OUTSIDERS.add(name)
    closed = (await backend.rights_changed(name)).closed
    OUTSIDERS.discard(name)
    return {"closed": closed}


# ------------------------------------------------------------------------------------ what the process holds


@server.get("/state")
async def state() -> dict[str, Any]:
    gc.collect()  # what failed or was left unseen says so in the log
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    replica = backend._sessions._replica
    objects = Counter(name for one in gc.get_objects() if (name := class_of(one)) is not None)
    return {
        "pid": os.getpid(),
        "hooks": hooks,
        "revocations": len(replica),
        "objects": {name: count for name, count in objects.items() if not name.endswith(KEPT)},
        "revocation objects": objects["dash_quart_ws.brokers.base.Revocation"],
        "tasks": Counter(map(name_of, asyncio.all_tasks())),
        "threads": Counter(re.sub(r"[_-]\d+.*$", "", thread.name) for thread in threading.enumerate()),
        "sizes": dict(sizes()),
        "open files": Counter(open_files()),
    }


def class_of(one: Any) -> str | None:
    """The name of an object's class, for those that are counted."""
    kind = type(one)
    module: Any = kind.__module__
    if not isinstance(module, str) or module.partition(".")[0] not in PACKAGES:
        return None
    return f"{module}.{kind.__qualname__}"


def name_of(task: asyncio.Task[Any]) -> str:
    """What a task does, whichever one it is."""
    return f"{re.sub(r'Task-[0-9]+', '', task.get_name())} {getattr(task.get_coro(), '__qualname__', '?')}".strip()


def sizes() -> Iterator[tuple[str, int]]:
    """How much there is in every container of the objects that live as long as the server."""
    extension = backend._extension
    lasting = (
        extension, extension.hub, extension.sessions, extension.sessions._registry, extension.groups, extension.broker,
        backend, backend.pool(), backend._jobs, backend._guard, backend._runner,
    )  # fmt: skip
    yield "resets", len(asgi._resets)
    yield "timers", sum(not handle.cancelled() for handle in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
    for one in lasting:
        for name, value in vars(one).items():
            is_kept = isinstance(one, Runner) and name == "_limits"  # for each callback, once
            if isinstance(value, dict | list | set | deque | weakref.WeakSet) and not is_kept:
                yield f"{type(one).__name__}.{name}", len(value)


def open_files() -> Iterator[str]:
    """What kinds of files are open: sockets by number, the others by name."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            yield re.sub(r":\[\d+\]", "", str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # the folder's own, while it was read
