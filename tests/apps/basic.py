"""A small login-protected app for real servers: every callback that the tests need, and views to log in and out."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import time

import quart_auth
from dash import Dash, Input, Output, callback, ctx, dcc, html, no_update, set_props
from quart import request
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend, current_session

logging.basicConfig(stream=sys.stderr, level=os.environ.get("LOG_LEVEL", "INFO"))

OPTIONS = {"broker": os.environ.get("BROKER", "memory:")}

app = Dash(
    __name__,
    backend=QuartBackend(**OPTIONS),
    websocket_callbacks=True,
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
if "DURATION" in os.environ:
    server.config["QUART_AUTH_DURATION"] = int(os.environ["DURATION"])
QuartAuth(server)
backend = QuartBackend.of(app)

app.layout = html.Div(
    [
        html.Button("go", id="go"),
        dcc.Input(id="text", value="typed"),
        *(html.Div(id=id) for id in ("echo", "sync", "slow", "block", "fail", "who", "prop", "stream", "flood", "out")),
    ]
)

started: list[str] = []
finished: list[str] = []
marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="unset")


@server.before_websocket
async def mark() -> None:
    marker.set("from before_websocket")


@server.before_request
async def mark_request() -> None:
    marker.set("from before_request")


@callback(Output("echo", "children"), Input("go", "n_clicks"))
async def echo(n_clicks):
    started.append("echo")
    return f"{quart_auth.current_user.auth_id} {n_clicks}"


@callback(Output("sync", "children"), Input("go", "n_clicks"))
def sync(n_clicks):
    return f"{quart_auth.current_user.auth_id} {n_clicks} {threading.current_thread() is threading.main_thread()}"


@callback(Output("slow", "children"), Input("go", "n_clicks"))
async def slow(n_clicks):
    """Never ends by itself."""
    started.append("slow")
    try:
        await asyncio.Event().wait()
    finally:
        finished.append("slow")


@callback(Output("block", "children"), Input("go", "n_clicks"))
def block(seconds):
    """Blocks a thread for so many seconds."""
    started.append("block")
    time.sleep(seconds)
    finished.append("block")
    return f"blocked {seconds}"


@callback(Output("fail", "children"), Input("go", "n_clicks"))
async def fail(n_clicks):
    raise RuntimeError("the secret of the exception")


@callback(Output("who", "children"), Input("go", "n_clicks"))
async def who(n_clicks):
    return sees()


@callback(Output("out", "children"), Input("go", "n_clicks"))
def who_sync(n_clicks):
    return sees()


def sees() -> dict[str, object]:
    """What a callback can know about its request."""
    session = current_session()
    return {
        "cookies": sorted(ctx.cookies),
        "agent": ctx.headers.get("User-Agent"),
        "path": ctx.path,
        "remote": ctx.remote,
        "origin": ctx.origin,
        "args": dict(ctx.args),
        "user": quart_auth.current_user.auth_id,
        "session": session.id if session else None,
        "marker": marker.get(),
        "websocket": ctx.websocket is not None,
        "websocket_user": ctx.websocket.user if ctx.websocket else None,
        "websocket_session": ctx.websocket.session.id if ctx.websocket else None,
    }


@callback(Output("prop", "children"), Input("go", "n_clicks"))
async def prop(n_clicks):
    return f"browser says {await ctx.websocket.get_prop('text', 'value')}"


@callback(Output("stream", "children"), Input("go", "n_clicks"))
async def stream(kilobytes):
    """Sends without end: messages of so many kB."""
    started.append("stream")
    while not ctx.websocket.is_shutdown:
        await ctx.websocket.set_prop("stream", "title", "x" * 1024 * kilobytes)
        await asyncio.sleep(0)
    return no_update


@callback(Output("flood", "children"), Input("go", "n_clicks"))
async def flood(times):
    """Sets one property so many times, to 1 kB each."""
    for number in range(times):
        set_props("out", {"title": f"{number:01000}"})
        if number % 100 == 0:
            await asyncio.sleep(0)
    finished.append("flood")
    return "done"


@server.get("/login/<name>")
async def login(name: str):
    quart_auth.login_user(AuthUser(name), remember="remember" in request.args)
    return {"user": name}


@server.get("/logout")
async def logout():
    quart_auth.logout_user()
    return {"user": None}


@server.get("/renew")
async def renew():
    quart_auth.renew_login()
    return {"user": quart_auth.current_user.auth_id}


@server.get("/me")
async def me():
    session = current_session()
    return {"user": quart_auth.current_user.auth_id, "session": session.id if session else None}


@server.get("/revoke/<name>")
async def revoke(name: str):
    receipt = await backend.revoke(user=name, reason="banned")
    return {"closed": receipt.closed, "confirmed": receipt.confirmed, "slowest_ms": receipt.slowest_ms}


@server.get("/push/<name>/<text>")
async def push(name: str, text: str):
    return {"connections": await backend.set_props("out", {"title": text}, user=name)}


@server.get("/state")
async def state():
    return {
        "pid": os.getpid(),
        "started": started,
        "finished": finished,
        "connections": [{"id": one.id, "user": one.user, "renderers": one.renderers} for one in backend.connections()],
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }
