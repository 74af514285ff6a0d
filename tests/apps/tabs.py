"""Callbacks that outlive their tab, each in its own way, and what they noticed of that."""

from __future__ import annotations

import asyncio
import os
import threading

import quart_auth
from dash import Dash, Input, Output, callback, ctx, dcc, html
from dash.exceptions import WebsocketDisconnected
from quart import request
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:", callback_threads=8, callback_threads_per_user=8),
    websocket_callbacks=True,
    websocket_heartbeat_interval=int(os.environ.get("HEARTBEAT", "30000")),
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
backend = QuartBackend.of(app)

app.layout = html.Div([html.Button("go", id="go"), dcc.Input(id="text"), *(html.Div(id=id) for id in "abcde")])

events: list[str] = []
released = threading.Event()


@callback(Output("a", "children"), Input("go", "n_clicks"))
async def endless(name):
    events.append(f"{name} began")
    try:
        await asyncio.Event().wait()
    finally:
        events.append(f"{name} ended, shut down: {ctx.websocket.is_shutdown}")


@callback(Output("b", "children"), Input("go", "n_clicks"))
def blocks(name):
    """Goes on in its thread until it is released."""
    events.append(f"{name} began")
    released.wait(30)
    ctx.websocket.set_prop_sync("b", "title", f"late from {name}")
    events.append(f"{name} ended, shut down: {ctx.websocket.is_shutdown}")
    return f"late from {name}"


@callback(Output("c", "children"), Input("go", "n_clicks"))
def asks(name):
    """In a thread, which nobody can cancel."""
    try:
        value = asyncio.run(ctx.websocket.get_prop("text", "value"))
    except WebsocketDisconnected:
        events.append(f"{name} learned that nobody answers")
        raise
    return f"browser says {value}"


@callback(Output("d", "children"), Input("go", "n_clicks"))
async def stubborn(name):
    """Takes no notice of being cancelled."""
    events.append(f"{name} began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await ctx.websocket.set_prop("d", "title", f"late from {name}")
    try:
        await ctx.websocket.get_prop("text", "value")
    except WebsocketDisconnected:
        events.append(f"{name} goes on, shut down: {ctx.websocket.is_shutdown}")
    return f"late from {name}"


@callback(Output("e", "children"), Input("go", "n_clicks"))
async def echo(name):
    return name


@server.get("/login/<name>")
async def login(name: str):
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout():
    quart_auth.logout_user()
    return {}


@server.get("/release")
async def release():
    released.set()
    return {}


@server.get("/hold")
async def hold():
    released.clear()
    return {}


@server.get("/push/<name>")
async def push(name: str):
    return {"connections": await backend.set_props("e", {"title": request.args["title"]}, user=name)}


@server.get("/state")
async def state():
    return {
        "events": events,
        "renderers": {one.id: one.renderers for one in backend.connections()},
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }
