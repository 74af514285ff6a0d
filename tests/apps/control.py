"""An app that uses its control over connections and sessions, and Dash's own hooks."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from dash import Dash, Input, Output, ctx, hooks, html, set_props
from quart import abort, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user

from dash_quart_ws import Connection, QuartBackend, Session, current_session

logging.basicConfig(stream=sys.stderr, level="INFO")

events: list[tuple[str | None, str]] = []


@hooks.websocket_connect()
async def on_websocket(websocket: Any) -> Any:
    match websocket.args.get("hook"):
        case "false":
            return False
        case "tuple":
            return 4999, "not today"
        case "bad-code":
            return 12, "no such code"
        case "raises":
            raise RuntimeError("the hook is broken")
    return True


@hooks.websocket_message()
def on_message(websocket: Any, message: dict[str, Any]) -> Any:
    match message.get("hook"):
        case "false":
            return False
        case "tuple":
            return 4998, "that was too much"
        case "raises":
            raise RuntimeError("the message hook is broken")
    return None


app = Dash(__name__, backend=QuartBackend(broker="memory:", callback_threads=4), websocket_callbacks=True)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
QuartAuth(server, cookie_secure=False)
backend = QuartBackend.of(app)
app.layout = html.Div([html.Button(id="go"), *(html.Div(id=id) for id in ("a", "b", "c", "d", "e", "f", "g", "h"))])


@backend.on_connect
async def connected(connection: Connection) -> None:
    events.append((connection.user, "connect"))


@backend.on_disconnect
def disconnected(connection: Connection, reason: str) -> None:
    events.append((connection.user, f"disconnect: {reason}"))


@backend.on_session_end
async def session_ended(session: Session, reason: str) -> None:
    events.append((session.user, f"session end: {reason}"))


@app.callback(Output("a", "children"), Input("go", "n_clicks"))
async def revoke_own(_clicks: int) -> str:
    """Ends the session that it runs in, and learns what that did."""
    receipt = await backend.revoke(session=current_session(), reason="by itself")
    events.append((ctx.websocket.user, f"receipt {receipt.closed} {receipt.confirmed}"))
    try:
        await asyncio.Event().wait()
    finally:
        events.append((ctx.websocket.user, "cancelled last"))


@app.callback(Output("b", "children"), Input("go", "n_clicks"))
def revoke_own_in_a_thread(_clicks: int) -> str:
    receipt = backend.revoke(session=ctx.websocket.session, reason="from a thread").result(10)
    events.append((ctx.websocket.user, f"receipt {receipt.closed} {receipt.confirmed}"))
    return "dropped"


@app.callback(Output("c", "children"), Input("go", "n_clicks"))
def stream_in_a_thread(count: int) -> str:
    for number in range(count):
        set_props("c", {"title": number})
    return "done"


@app.callback(Output("d", "children"), Input("go", "n_clicks"))
async def subscribe(topic: str) -> str:
    backend.subscribe(ctx.websocket.connection, topic)
    return topic


@app.callback(Output("e", "children"), Input("go", "n_clicks"))
async def close_own(_clicks: int) -> None:
    ctx.websocket.close("enough", reconnect=True)
    await asyncio.Event().wait()


@app.callback(Output("f", "children"), Input("go", "n_clicks"), on_error=lambda error: f"handled {error}")
async def handled(_clicks: int) -> str:
    raise RuntimeError("an error")


@app.callback(Output("h", "children"), Input("go", "n_clicks"))
async def forbidden(_clicks: int) -> None:
    abort(403)


@app.callback(Output("g", "children"), Input("go", "n_clicks"))
def elsewhere(_clicks: int) -> str:
    """Signs this user out everywhere else, from a thread."""
    receipt = backend.revoke(user=current_user.auth_id, keep=current_session()).result(10)
    return f"closed {receipt.closed}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, Any]:
    login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, Any]:
    logout_user()
    return {"user": None}


@server.get("/logout-on-the-way-out")
async def logout_on_the_way_out() -> dict[str, Any]:
    return {}


@server.after_request
async def log_out_late(response: Any) -> Any:
    if request.path == "/logout-on-the-way-out":
        logout_user()
    return response


@server.get("/logout-and-fail")
async def logout_and_fail() -> dict[str, Any]:
    logout_user()
    raise RuntimeError("after the logout")


def target() -> dict[str, Any]:
    """What the query names, as the keyword argument of `close` and `set_props`."""
    return {name: True if name == "all" else value for name, value in request.args.items()}


@server.get("/close")
async def close() -> dict[str, Any]:
    receipt = await backend.close(**target(), reason="closed by the app")
    return {"closed": receipt.closed}


@server.get("/push")
async def push() -> dict[str, Any]:
    return {"connections": await backend.set_props("a", {"title": "pushed"}, **target())}


@server.get("/revoke-and-forget/<name>")
async def revoke_and_forget(name: str) -> dict[str, Any]:
    backend.revoke(user=name)
    return {"open": [one.user for one in backend.connections()]}


@server.get("/events")
async def all_events() -> dict[str, Any]:
    return {
        "events": events,
        "connections": [
            {
                "id": one.id,
                "user": one.user,
                "session": one.session.id if one.session else None,
                "renderers": one.renderers,
                "remote": one.remote,
                "since": one.since.isoformat(),
            }
            for one in backend.connections()
        ],
    }
