"""In a notebook: a thread serves, as the guide shows it, while cells run on the main thread's event loop."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import websockets
from dash import Dash, Input, Output, html
from quart_auth import AuthUser, QuartAuth, current_user, login_user

from dash_quart_ws import QuartBackend

from ..server import ROOT, call, closed, free_port, next_message, result

if TYPE_CHECKING:
    from collections.abc import Callable


def serve_in_thread() -> Callable[[Dash, int], Callable[[], None]]:
    (shown,) = re.findall(
        r"^```python\n([^`]*def serve_in_thread.*?)^```$",
        (ROOT / "docs" / "serving.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    names: dict[str, Any] = {}
    exec(shown, names)
    return names["serve_in_thread"]  # type: ignore[no-any-return]


def dashboard(word: str) -> Dash:
    """What a cell makes that is run again and again."""
    app = Dash(word, backend=QuartBackend(broker="memory:"), websocket_callbacks=True)
    app.server.secret_key = "only for tests, and long enough to be one"
    QuartAuth(app.server, cookie_secure=False)
    app.layout = html.Div([html.Button("go", id="go"), html.Div(id="out")])

    @app.callback(Output("out", "children"), Input("go", "n_clicks"))
    def answer(_clicks: int) -> str:
        return f"{word} {current_user.auth_id}"

    @app.server.get("/login")
    async def login() -> str:
        login_user(AuthUser("alice"))
        return "signed in"

    return app


def sign_in(origin: str) -> str:
    with urllib.request.urlopen(f"{origin}/login", timeout=30) as answer:
        return str(answer.headers["Set-Cookie"]).partition(";")[0]


async def listening(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_a_cell_serves_pushes_stops_and_serves_what_was_made_anew() -> None:
    serve, port = serve_in_thread(), free_port()
    origin = f"http://127.0.0.1:{port}"
    for word in ("first", "second"):
        app = dashboard(word)
        stop = serve(app, port)
        try:
            await listening(port)
            cookie = await asyncio.to_thread(sign_in, origin)
            async with websockets.connect(
                f"ws://127.0.0.1:{port}/_dash-ws-callback",
                origin=websockets.Origin(origin),
                additional_headers={"Cookie": cookie},
            ) as socket:
                assert result(await call(socket, "out.children")) == f"{word} alice"
                assert await QuartBackend.of(app).set_props("out", {"title": "from a cell"}, user="alice") == 1
                assert (await next_message(socket, "set_props"))["payload"]["props"] == {"title": "from a cell"}
                stopping = asyncio.create_task(asyncio.to_thread(stop))
                assert (await closed(socket))[0] == 1012
                await stopping
        except BaseException:
            await asyncio.to_thread(stop)
            raise
