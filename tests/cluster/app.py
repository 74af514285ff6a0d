"""An app of many workers: what each of them knows of the others, and its controls, over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

_skew = float(os.environ.get("CLOCK_SKEW", "0"))
if _skew:  # a host whose clock is wrong: before anything has taken the function
    _true_time = time.time
    time.time = lambda: _true_time() + _skew

import quart_auth  # noqa: E402
from dash import Dash, Input, Output, ctx, html  # noqa: E402
from quart import request  # noqa: E402
from quart_auth import AuthUser, QuartAuth, login_required  # noqa: E402

from dash_quart_ws import (  # noqa: E402
    Connection,
    QuartBackend,
    Session,
    add_public_routes,
    current_session,
    protected_callback,
    public_callback,
)
from dash_quart_ws.brokers import lock  # noqa: E402

lock.PATIENCE = float(os.environ.get("PATIENCE", lock.PATIENCE))
logging.basicConfig(stream=sys.stderr, level="INFO")

groups: dict[str, list[str]] = {}
may: dict[str, list[str]] = {}
events: list[list[Any]] = []
IDS = ("a", "b", "c", "d", "e", "open", "colour", "enter", "leave")
ran: list[str] = []


async def groups_of(user: str) -> list[str]:
    return groups.get(user, ["staff"])


def authorize(user: str | None, topic: str) -> bool:
    return topic in may.get(str(user), [topic])


options = json.loads(os.environ.get("OPTIONS", "{}"))
app = Dash(
    __name__,
    backend=QuartBackend(list_groups=groups_of, **options),
    websocket_callbacks=True,
    assets_folder="no-assets",
    use_pages=False,
    health_endpoint="health",
)
server = app.server
server.secret_key = os.environ.get("SECRET", "only for tests, and long enough to be one")
server.config["QUART_AUTH_COOKIE_SECURE"] = False
server.config["QUART_AUTH_DURATION"] = int(os.environ.get("DURATION", "86400"))
QuartAuth(server)
backend = QuartBackend.of(app)
app.layout = html.Div([html.Button(id="go"), *(html.Div(id=id) for id in IDS)])
add_public_routes(app, ["/public"])


@backend.on_connect
async def connected(connection: Connection) -> None:
    events.append(["connect", connection.user, connection.id])


@backend.on_disconnect
async def disconnected(connection: Any, reason: str) -> None:
    events.append(["disconnect", connection.user, connection.id, reason])


@backend.on_session_end
async def session_ended(session: Session, reason: str) -> None:
    events.append(["session end", session.user, session.id, reason])


@app.callback(Output("a", "children"), Input("go", "n_clicks"))
async def echo(value: Any) -> str:
    ran.append(f"{quart_auth.current_user.auth_id} {value}")
    return f"{quart_auth.current_user.auth_id} {value}"


@app.callback(Output("b", "children"), Input("go", "n_clicks"))
def in_a_thread(value: Any) -> str:
    ran.append(f"{quart_auth.current_user.auth_id} {value}")
    time.sleep(0.05)
    return f"{quart_auth.current_user.auth_id} {value}"


@app.callback(Output("e", "children"), Input("go", "n_clicks"))
async def stream(_value: Any) -> None:
    """Says what time it is, all the time."""
    while True:
        await ctx.websocket.set_prop("e", "title", time.time())
        await asyncio.sleep(0.005)


@protected_callback(Output("c", "children"), Input("go", "n_clicks"), groups=["staff"], app=app)
async def for_staff(_value: Any) -> str:
    """Goes on for as long as the user is one of the staff."""
    await asyncio.Event().wait()
    return ""


@app.callback(Output("d", "children"), Input("go", "n_clicks"))
async def subscribe(topic: str) -> Any:
    backend.subscribe(ctx.websocket.connection, topic)
    return topic


@app.callback(Output("colour", "children"), Input("go", "n_clicks"))
async def set_colour(value: str) -> str:
    ctx.response.set_cookie("colour", value)
    return value


@app.callback(Output("enter", "children"), Input("go", "n_clicks"))
async def enter(name: str) -> str:
    quart_auth.login_user(AuthUser(name))
    return name


@app.callback(Output("leave", "children"), Input("go", "n_clicks"))
async def leave(_value: Any) -> str:
    quart_auth.logout_user()
    return "logged out"


@public_callback(Output("open", "children"), Input("go", "n_clicks"), app=app)
async def for_anybody(value: Any) -> str:
    return f"open {value}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, Any]:
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, Any]:
    quart_auth.logout_user()
    return {}


@server.get("/renew")
async def renew() -> dict[str, Any]:
    quart_auth.renew_login()
    return {}


@server.get("/me")
async def me() -> dict[str, Any]:
    session = current_session()
    return {"user": quart_auth.current_user.auth_id, "session": session and session.id, "pid": os.getpid()}


@server.get("/secret")
@login_required
async def secret() -> dict[str, Any]:
    return {"secret": True}


def target() -> dict[str, Any]:
    """What the query names, as a keyword argument of the methods below."""
    return {name: True if name == "all" else value for name, value in request.args.items() if name != "value"}


@server.get("/push")
async def push() -> dict[str, Any]:
    reached = [await backend.set_props("a", {"title": value}, **target()) for value in request.args["value"].split(",")]
    return {"here": reached[-1]}


def told(receipt: Any) -> dict[str, Any]:
    return {
        "closed": receipt.closed,
        "confirmed": receipt.confirmed,
        "missing": receipt.missing,
        "slowest_ms": receipt.slowest_ms,
    }


@server.get("/revoke")
async def revoke() -> dict[str, Any]:
    return told(await backend.revoke(**target(), reason="by the test"))


@server.get("/close")
async def close() -> dict[str, Any]:
    return told(await backend.close(**target(), reason="by the test"))


@server.get("/rights/<user>/<group>")
async def rights(user: str, group: str) -> dict[str, Any]:
    groups[user] = [group]
    return told(await backend.rights_changed(user))


@server.get("/groups/<user>/<group>")
async def set_groups(user: str, group: str) -> dict[str, Any]:
    groups[user] = [group]
    return {}


@server.get("/subscribe/<topic>")
async def subscribe_session(topic: str) -> dict[str, Any]:
    session = current_session()
    assert session is not None
    backend.subscribe(session, topic)
    return {}


@server.get("/all")
async def all_connections() -> list[dict[str, Any]]:
    return [
        {"id": one.id, "user": one.user, "worker": one.worker, "host": one.host, "pid": one.pid}
        for one in await backend.all_connections()
    ]


@server.get("/state")
async def state() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "events": events,
        "ran": ran,
        "connections": [{"id": one.id, "user": one.user} for one in backend.connections()],
        "sessions": [{"id": one.id, "user": one.user} for one in backend.sessions(all=True)],
    }
