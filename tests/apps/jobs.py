"""A login-protected app with background callbacks in processes of their own.

`JOBS` is the folder that they share with the test. With `REDIS` they are a Celery worker's: `tests.apps.jobs:celery`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quart_auth
from celery import Celery
from dash import CeleryManager, Dash, DiskcacheManager, Input, Output, callback, ctx, html
from diskcache import Cache
from quart import session
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

if TYPE_CHECKING:
    from collections.abc import Callable

folder = Path(os.environ["JOBS"])
redis = os.environ.get("REDIS")
celery = Celery("jobs", broker=redis, backend=redis)


def manager(name: str, **options: Any) -> Any:
    return CeleryManager(celery, **options) if redis else DiskcacheManager(Cache(str(folder / name)), **options)


class Overtaken(DiskcacheManager):
    """Its jobs come to their end while their results are asked for, just too late for that."""

    def get_result(self, key: str, job: Any) -> Any:
        found = super().get_result(key, job)
        if found is self.UNDEFINED and job is not None:
            (folder / "go-on").touch()
            wait_until(lambda: not self.job_running(job))
        return found


app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:"),
    websocket_callbacks=True,
    assets_folder="no-assets",
    background_callback_manager=manager("results"),
    enable_mcp=True,
)
overtaken = Overtaken(Cache(str(folder / "overtaken")))
cached = manager("cached", cache_by=[lambda: "the same for everybody"])
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
app.layout = html.Div(
    [html.Button(id="go"), html.Button(id="stop"), *(html.Div(id=id) for id in ("slow", "kept", "paints", "late"))]
)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a file, in a process that shares nothing else with the test. A job that is never let go fails."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let the job go on")
        time.sleep(0.01)


@callback(
    Output("slow", "children"),
    Input("go", "n_clicks"),
    background=True,
    cancel=Input("stop", "n_clicks"),
    prevent_initial_call=True,
    mcp_enabled=True,
)
def slow(clicks: int) -> str:
    """Says that it runs, waits to be let go, and gives what only its own user may read."""
    name = ctx.cookies["QUART_AUTH"][-16:]
    (folder / f"pid-{name}").write_text(str(os.getpid()))
    wait_until((folder / "go-on").exists)
    return f"made for {name} {clicks}"


@callback(Output("paints", "children"), Input("go", "n_clicks"), background=True, prevent_initial_call=True)
def paints(_clicks: int) -> list[str]:
    """What comes of cookies and logins in a job."""
    return [
        refusal(lambda: ctx.response.set_cookie("colour", "blue")),
        refusal(lambda: ctx.response.headers.set("X-Colour", "blue")),
        refusal(lambda: quart_auth.login_user(AuthUser("bob"))),
        refusal(quart_auth.logout_user),
        refusal(quart_auth.renew_login),
        refusal(lambda: session.update(colour="blue")),
        refusal(lambda: session.pop("colour", None)),
        refusal(lambda: setattr(session, "permanent", True)),
        f"{quart_auth.current_user.auth_id} {session.get('colour')}",
    ]


@callback(
    Output("late", "children"), Input("go", "n_clicks"), background=True, manager=overtaken, prevent_initial_call=True
)
def late(_clicks: int) -> str:
    wait_until((folder / "go-on").exists)
    return "just now"


def refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


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
