"""A login-protected app with background callbacks in processes of their own (`JOBS`: the folder that they share)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import quart_auth
from dash import Dash, DiskcacheManager, Input, Output, callback, ctx, html
from diskcache import Cache
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

if TYPE_CHECKING:
    from collections.abc import Callable

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


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a file, in a process that shares nothing else with the test. A job that is never let go fails."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let the job go on")
        time.sleep(0.01)


@callback(Output("slow", "children"), Input("go", "n_clicks"), background=True, prevent_initial_call=True)
def slow(clicks: int) -> str:
    """Says that it runs, waits to be let go, and gives what only its own user may read."""
    name = ctx.cookies["QUART_AUTH"][-16:]
    (folder / f"pid-{name}").write_text(str(os.getpid()))
    wait_until((folder / "go-on").exists)
    return f"made for {name} {clicks}"


@callback(
    Output("kept", "children"), Input("go", "n_clicks"), background=True, manager=cached, prevent_initial_call=True
)
def kept(clicks: int) -> str:
    wait_until(lambda: not (folder / "hold").exists())
    return f"made for {ctx.cookies['QUART_AUTH'][-16:]} {clicks}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, None]:
    quart_auth.logout_user()
    return {"user": None}
