"""Background jobs that demand something of their user, in processes of their own.

`hypercorn tests.apps.roles:server`, with the environment variable JOBS naming an empty folder. A job that waits goes on
when there is a file `go` in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import quart_auth
from dash import Dash, DiskcacheManager, Input, Output, html
from diskcache import Cache
from quart_auth import AuthUser, QuartAuth, current_user

from dash_quart_ws import QuartBackend, current_session, list_groups, protected_callback

logging.basicConfig(stream=sys.stderr, level=os.environ.get("LOG_LEVEL", "INFO"))

FOLDER = Path(os.environ["JOBS"])
GROUPS: dict[str, list[str]] = {"alice": ["traders", "staff"], "bob": ["staff"]}
fails: list[str] = []


async def groups_of(user: str) -> list[str]:
    if user in fails:
        raise RuntimeError("the directory is away")
    return GROUPS.get(user, [])


app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:", list_groups=groups_of),
    websocket_callbacks=True,
    assets_folder="no-assets",
    background_callback_manager=DiskcacheManager(Cache(str(FOLDER / "cache"))),
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
backend = QuartBackend.of(app)
NAMES = ("wait", "first", "second", "later", "outside", "seen", "step")
app.layout = html.Div([html.Button("go", id="go"), *(html.Div(id=name) for name in NAMES)])

GO = Input("go", "n_clicks")
JOB: dict[str, Any] = {"background": True, "prevent_initial_call": True, "interval": 50}


def has_gone_on() -> bool:
    return (FOLDER / "go").exists()


@protected_callback(
    Output("wait", "children"),
    GO,
    groups=["traders"],
    missing_permissions_output="not for you",
    progress=[Output("step", "children")],
    **JOB,
)
def wait(set_progress: Any, clicks: int) -> str:
    set_progress(f"step of {clicks}")
    (FOLDER / f"began-{clicks}").touch()
    deadline = time.monotonic() + 60
    while not has_gone_on():
        assert time.monotonic() < deadline, "nobody let the job go on"
        time.sleep(0.01)
    return f"the traders' own number {clicks}"


@protected_callback(Output("first", "children"), GO, groups=["traders"], missing_permissions_output="no first", **JOB)
def first(clicks: int) -> str:
    return f"first {clicks}"


@protected_callback(Output("second", "children"), GO, groups=["staff"], missing_permissions_output="no second", **JOB)
def second(clicks: int) -> str:
    return f"second {clicks}"


@protected_callback(Output("later", "children"), GO, groups=["traders"], missing_permissions_output="no later", **JOB)
async def later(clicks: int) -> str:
    await asyncio.sleep(0)
    return f"later {clicks}"


@protected_callback(
    Output("outside", "children"),
    GO,
    groups=["suspended"],
    check_type="none_of",
    unauthenticated_output="not outside",
    **JOB,
)
def outside(clicks: int) -> str:
    return f"outside {clicks}"


@app.callback(Output("seen", "children"), GO, **JOB)
def seen(clicks: int) -> str:
    return f"{list_groups()} {clicks}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, Any]:
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/me")
async def me() -> dict[str, Any]:
    session = current_session()
    return {"user": current_user.auth_id, "session": session.id if session else None}


@server.get("/groups/<user>/<names>")
async def set_groups(user: str, names: str) -> dict[str, Any]:
    GROUPS[user] = [name for name in names.split(",") if name != "-"]
    return {"closed": (await backend.rights_changed(user)).closed}


@server.get("/fail/<user>")
async def fail(user: str) -> dict[str, Any]:
    fails.append(user)
    return {"fails": fails}
