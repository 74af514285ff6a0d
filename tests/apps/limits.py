"""An app with limits that a test reaches: callbacks that wait until they are let go, and a view into what is held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
import weakref

import quart_auth
from dash import Dash, Input, Output, html
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import Connection, QuartBackend, public_callback

logging.basicConfig(stream=sys.stderr, level="INFO")

app = Dash(
    __name__,
    backend=QuartBackend(**{"broker": "memory:", **json.loads(os.environ.get("OPTIONS", "{}"))}),
    websocket_callbacks=True,
    websocket_heartbeat_interval=int(os.environ.get("HEARTBEAT", "30000")),
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
if "BODY_TIMEOUT" in os.environ:
    server.config["BODY_TIMEOUT"] = float(os.environ["BODY_TIMEOUT"])
QuartAuth(server)
backend = QuartBackend.of(app)
NAMES = ("echo", "sync", "wait", "hold", "stays", "size", "open")
app.layout = html.Div([html.Button("go", id="go"), *(html.Div(id=name) for name in NAMES)])

gate = threading.Event()
seen: weakref.WeakSet[Connection] = weakref.WeakSet()
"""All connections of which anything is left, also those that have ended."""


@backend.on_connect
async def connected(connection: Connection):
    seen.add(connection)


@app.callback(Output("echo", "children"), Input("go", "n_clicks"))
async def echo(value):
    return f"{quart_auth.current_user.auth_id} {value}"


@app.callback(Output("sync", "children"), Input("go", "n_clicks"))
def sync(value):
    return f"{quart_auth.current_user.auth_id} {value}"


@app.callback(Output("wait", "children"), Input("go", "n_clicks"))
async def wait(value):
    """Runs until it is cancelled."""
    await asyncio.Event().wait()


@app.callback(Output("stays", "children"), Input("go", "n_clicks"))
async def stays(value):
    """Does not let itself be cancelled, until the gate is open."""
    while not gate.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@app.callback(Output("hold", "children"), Input("go", "n_clicks"), api_endpoint="/hold")
def hold(value=None):
    """Holds a thread until the gate is open."""
    assert gate.wait(60)
    return "held"


@app.callback(Output("size", "children"), Input("go", "n_clicks"))
async def size(value):
    return len(value)


@public_callback(Output("open", "children"), Input("go", "n_clicks"), app=app)
async def open_to_all(value):
    return len(value)


app.setup_apis()


@server.get("/login/<name>")
async def login(name: str):
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout():
    quart_auth.logout_user()
    return {}


@server.get("/gate/<state>")
async def set_gate(state: str):
    (gate.set if state == "open" else gate.clear)()
    return {}


@server.get("/state")
async def state():
    extension = server.extensions["dash_quart_ws"]
    held = extension.shares.everybody
    return {
        "pid": os.getpid(),
        "callbacks": held.count,
        "bytes": held.bytes,
        "queued": backend.pool().queued,
        "uploads": extension.uploads.reading,
        "waiting": extension.uploads.waiting,
        "paused": [one.user for one in seen if one._socket.is_paused],
        "connections": sorted(str(one.user) for one in backend.connections()),
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }
