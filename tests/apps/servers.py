"""A small app for the tests of what misbehaving clients can do: callbacks that fill buffers, and a view into the server."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time

import quart_auth
from dash import Dash, Input, Output, ctx, dcc, html
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

logging.basicConfig(stream=sys.stderr, level=os.environ.get("LOG_LEVEL", "INFO"))

PIECE = "x" * 64 * 1024

app = Dash(
    __name__,
    backend=QuartBackend(**{"broker": "memory:", **json.loads(os.environ.get("OPTIONS", "{}"))}),
    websocket_callbacks=True,
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
backend = QuartBackend.of(app)
app.layout = html.Div([html.Button("go", id="go"), dcc.Input(id="text"), *(html.Div(id=id) for id in "abcdef")])

started: list[str] = []
finished: list[str] = []


@app.callback(Output("a", "children"), Input("go", "n_clicks"))
async def echo(value):
    started.append("echo")
    return f"{quart_auth.current_user.auth_id} {value if not isinstance(value, str) else len(value)}"


@app.callback(Output("b", "children"), Input("go", "n_clicks"))
async def fill(megabytes):
    """Sends so much, no more, and then goes on for ever."""
    started.append("fill")
    try:
        for number in range(megabytes * 16):  # properties that no other one overtakes
            await ctx.websocket.set_prop("b", f"data-{number}", PIECE)
        await asyncio.Event().wait()
    finally:
        finished.append("fill")


@app.callback(Output("c", "children"), Input("go", "n_clicks"))
def block(seconds):
    """Blocks a thread for so many seconds."""
    started.append("block")
    time.sleep(seconds)
    finished.append("block")
    return "blocked"


@app.callback(Output("d", "children"), Input("go", "n_clicks"))
async def flow(kilobytes):
    """Sends a little, all the time, for ever."""
    started.append("flow")
    try:
        while True:
            await ctx.websocket.set_prop("d", "title", "x" * 1024 * kilobytes)
            await asyncio.sleep(0.005)
    finally:
        finished.append("flow")


@app.callback(Output("e", "children"), Input("go", "n_clicks"))
async def where(value):
    """The worker process that serves this connection."""
    return os.getpid()


@app.callback(Output("f", "children"), Input("go", "n_clicks"))
async def leave(megabytes):
    """Sends one large message, and closes the connection right behind it."""
    await ctx.websocket.set_prop("f", "title", "x" * 1024 * 1024 * megabytes)
    ctx.websocket.close("enough")


@server.get("/login/<name>")
async def login(name: str):
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout():
    quart_auth.logout_user()
    return {"user": None}


@server.get("/me")
async def me():
    return {"user": quart_auth.current_user.auth_id}


@server.get("/state")
async def state():
    gc.collect()  # a task that failed unseen says so in the log when it is collected
    return {
        "pid": os.getpid(),
        "started": started,
        "finished": finished,
        "connections": [{"id": one.id, "user": one.user} for one in backend.connections()],
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }
