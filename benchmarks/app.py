"""The app that every backend of `side_by_side.py` serves: the same callbacks, the backend is $BENCH_BACKEND.

With $BENCH_LOGINS it has logins, which are kept in the broker $BENCH_BROKER.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import numpy as np
import plotly.graph_objects as go
import quart_auth
from dash import Dash, Input, Output, callback, ctx, dcc, html, no_update, set_props

from dash_quart_ws import QuartBackend

BACKEND = os.environ.get("BENCH_BACKEND", "ours")
LOGINS = bool(os.environ.get("BENCH_LOGINS"))
BURST = 10_000
"""Messages of one burst."""
STREAM_SECONDS = 1.5
STREAM_INTERVAL = 0.002
"""Seconds between two messages of the stream."""
BLOCKED_SECONDS = 0.1

app = Dash(
    __name__,
    backend=QuartBackend(
        broker=os.environ.get("BENCH_BROKER", "memory:"),
        login_required="auto" if LOGINS else False,
        anonymous_connections=1_000_000,
        messages_per_second=1_000_000,
        messages_burst=1_000_000,
    )
    if BACKEND == "ours"
    else BACKEND,
    websocket_callbacks=True,
    websocket_heartbeat_interval=30_000,
    assets_folder="no-assets",
)
server = app.server
NAMES = ("echo", "sync", "dict", "numpy", "lists", "burst", "threads", "stream", "block", "flood", "out")
app.layout = html.Div([html.Button("go", id="go"), dcc.Store(id="store"), *(html.Div(id=name) for name in NAMES)])

# About 250 kB of JSON each; numbers in base64 take less of it. They are made once: what is measured is how they get to
# the browser.
_numbers = np.random.default_rng(1)
_text, _binary = _numbers.random((2, 6_500)), _numbers.random((2, 9_050))
DICT = {"data": [{"type": "scatter", "x": _text[0], "y": _text[1]}], "layout": {"title": {"text": "numpy"}}}
NUMPY = go.Figure(go.Scatter(x=_binary[0], y=_binary[1]))
LISTS = go.Figure(go.Scatter(x=_text[0].tolist(), y=_text[1].tolist()))


def answers(name: str) -> Any:
    return callback(Output(name, "children"), Input("go", "n_clicks"))


@answers("echo")
async def echo(value: Any) -> Any:
    return value


@answers("sync")
def sync(value: Any) -> Any:
    return value


@answers("dict")
async def figure_of_dict(_: Any) -> Any:
    return DICT


@answers("numpy")
async def figure_of_numpy(_: Any) -> Any:
    return NUMPY


@answers("lists")
async def figure_of_lists(_: Any) -> Any:
    return LISTS


@answers("burst")
async def burst(_: Any) -> Any:
    set_props("out", {"title": time.perf_counter()})
    for number in range(BURST - 1):
        set_props("out", {"children": number})
    return "done"


@answers("threads")
def burst_in_a_thread(_: Any) -> Any:
    set_props("out", {"title": time.perf_counter()})
    for number in range(BURST - 1):
        set_props("out", {"children": number})
    return "done"


@answers("stream")
async def stream(_: Any) -> Any:
    began = time.perf_counter()
    for number in range(int(STREAM_SECONDS / STREAM_INTERVAL)):
        await asyncio.sleep(began + number * STREAM_INTERVAL - time.perf_counter())
        set_props("out", {"title": time.perf_counter()})
    return "done"


@answers("block")
def block(_: Any) -> Any:
    time.sleep(BLOCKED_SECONDS)
    return "done"


@answers("flood")
async def flood(kilobytes: int) -> Any:
    """So many messages of 1 kB, as fast as it goes."""
    websocket, text = ctx.websocket, "x" * 1024
    for _ in range(kilobytes):
        if websocket.is_shutdown:
            break
        websocket.set_prop_sync("out", "children", text)
        await asyncio.sleep(0)
    return no_update


if BACKEND == "ours":

    @server.post("/push")
    async def push() -> dict[str, int]:
        """A message to everybody, with the time at which it was sent."""
        sent = await QuartBackend.of(app).set_props("out", {"title": time.perf_counter()}, all=True)
        return {"connections": sent}

    @server.post("/push/<user>")
    async def push_to(user: str) -> dict[str, int]:
        """The same to one user, whichever worker their browsers are connected to."""
        sent = await QuartBackend.of(app).set_props("out", {"title": time.perf_counter()}, user=user)
        return {"connections": sent}


if LOGINS:
    server.secret_key = "a benchmark has no secrets"
    server.config["QUART_AUTH_COOKIE_SECURE"] = False
    auth = quart_auth.QuartAuth(server)

    @server.get("/cookies/<int:count>")
    async def cookies(count: int) -> list[str]:
        """What the browsers of so many users hold after their logins."""
        return [f"{auth.cookie_name}={auth.dump_token(f'user{number}')}" for number in range(count)]

    @server.post("/logout")
    async def logout() -> dict[str, str]:
        quart_auth.logout_user()
        return {}
