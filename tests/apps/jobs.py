"""A login-protected app with background callbacks in processes of their own (`JOBS`: the folder that they share)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import quart_auth
from dash import Dash, DiskcacheManager, Input, Output, callback, ctx, html
from diskcache import Cache
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

folder = Path(os.environ["JOBS"])
app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:"),
    websocket_callbacks=True,
    assets_folder="no-assets",
    background_callback_manager=DiskcacheManager(Cache(str(folder / "results"))),
)
cached = DiskcacheManager(Cache(str(folder / "cached")), cache_by=[lambda: "the same for everybody"])
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
app.layout = html.Div([html.Button(id="go"), *(html.Div(id=id) for id in ("slow", "kept"))])


@callback(Output("slow", "children"), Input("go", "n_clicks"), background=True, prevent_initial_call=True)
def slow(clicks: int) -> str:
    """Says that it runs, waits to be let go, and gives what only its own user may read."""
    name = ctx.cookies["QUART_AUTH"][-16:]
    (folder / f"pid-{name}").write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while not (folder / "go-on").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return f"made for {name} {clicks}"


@callback(
    Output("kept", "children"), Input("go", "n_clicks"), background=True, manager=cached, prevent_initial_call=True
)
def kept(clicks: int) -> str:
    deadline = time.monotonic() + 60
    while (folder / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return f"made for {ctx.cookies['QUART_AUTH'][-16:]} {clicks}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, None]:
    quart_auth.logout_user()
    return {"user": None}
