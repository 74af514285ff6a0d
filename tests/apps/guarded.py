"""A multi-page app with everything that the guard decides about: protected and public pages, a login page of Dash's own,
public callbacks that stream, roles, an API endpoint, a hook's route, background jobs.

`hypercorn tests.apps.guarded:server`. Passwords are the names spelt backwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import dash
import quart_auth
from dash import Dash, DiskcacheManager, Input, Output, State, callback, ctx, dcc, hooks, html, no_update
from diskcache import Cache
from quart import redirect, request
from quart_auth import AuthUser, QuartAuth, current_user

from dash_quart_ws import (
    QuartBackend,
    add_public_routes,
    current_session,
    list_groups,
    protected_callback,
    public_callback,
    safe_next,
)

logging.basicConfig(stream=sys.stderr, level=os.environ.get("LOG_LEVEL", "INFO"))

SECRETS = ("the text of the home page", "the text of the report", "the text of the board", "the text of nowhere")
"""What only somebody who is logged in may read."""

GROUPS: dict[str, list[str]] = {"alice": ["traders", "staff"], "bob": ["staff"], "carol": []}
fails: list[str] = []
"""Users whose groups cannot be asked for."""


async def groups_of(user: str) -> list[str]:
    await asyncio.sleep(0)
    if user in fails:
        raise RuntimeError("the directory is away")
    return GROUPS.get(user, [])


async def hook_route() -> dict[str, Any]:
    return {"user": current_user.auth_id}


hooks.route(name="hooked", methods=("GET",))(hook_route)

options: dict[str, Any] = {"broker": "memory:", "list_groups": groups_of, "anonymous_connections": 4}
if "ALLOWED_HOSTS" in os.environ:
    options["allowed_hosts"] = os.environ["ALLOWED_HOSTS"].split(",")
manager = DiskcacheManager(Cache(os.environ["JOBS"])) if "JOBS" in os.environ else None

app = Dash(
    __name__,
    backend=QuartBackend(**options),
    websocket_callbacks=True,
    use_pages=True,
    pages_folder="",
    assets_folder=str(Path(__file__).parent / "guarded_assets"),
    background_callback_manager=manager,
    enable_mcp=True,
    health_endpoint="healthz",
)
server = app.server
server.secret_key = os.environ.get("SECRET_KEY", "only for tests, and long enough to be one")
if "SECRET_KEY_FALLBACKS" in os.environ:
    server.config["SECRET_KEY_FALLBACKS"] = [os.environ["SECRET_KEY_FALLBACKS"]]
server.config["QUART_AUTH_COOKIE_SECURE"] = False
if "DURATION" in os.environ:
    server.config["QUART_AUTH_DURATION"] = int(os.environ["DURATION"])
QuartAuth(server)
backend = QuartBackend.of(app)
hooks._ns["routes"].clear()  # a hook is for every app of the process: this one has it now

# ------------------------------------------------------------------------------------------------------- pages


def home() -> html.Div:
    return html.Div([f"{SECRETS[0]} for {current_user.auth_id}", dcc.Link("report", href="/report/7", id="to-report")])


def report(number: str | None = None, **query: str) -> html.Div:
    return html.Div(f"{SECRETS[1]} {number} {query.get('q', '')} for {current_user.auth_id}", id="report")


dash.register_page("home", path="/", layout=home)
dash.register_page("report", path_template="/report/<number>", layout=report, redirect_from=["/old-report"])
dash.register_page("board", path="/team/alpha/board", layout=html.Div(SECRETS[2], id="board"))
dash.register_page("not_found_404", layout=html.Div("there is no such page", id="missing"))
dash.register_page(
    "status",
    path="/status",
    redirect_from=["/old-status"],
    layout=html.Div(
        [
            html.Div("the public status", id="status"),
            html.Div(id="ticker"),
            html.Button("ask", id="ask"),
            html.Div(id="answer"),
            dcc.Link("home", href="/", id="to-home"),
        ]
    ),
)
dash.register_page(
    "profile", path_template="/user/<name>/public", layout=lambda name=None: html.Div(f"all about {name}")
)
dash.register_page(
    "sign_in",
    path="/login",
    layout=html.Div(
        [
            dcc.Input(id="name"),
            dcc.Input(id="password", type="password"),
            html.Button("Sign in", id="sign-in"),
            html.Div(id="sign-in-error"),
            dcc.Location(id="go-on", refresh=True),
        ]
    ),
)
add_public_routes(app, ["/login", "/status", "/user/<user_name>/public"])

app.layout = html.Div(
    [
        dcc.Location(id="url"),
        html.Nav([dcc.Link("home", href="/", id="nav-home"), dcc.Link("status", href="/status", id="nav-status")]),
        dash.page_container,
        *(html.Button(id, id=id) for id in ("go", "start", "stop")),
        *(html.Div(id=id) for id in ("who", "traders", "managers", "feed", "groups", "job", "plain", "api")),
    ]
)

# --------------------------------------------------------------------------------------------------- callbacks

GO = Input("go", "n_clicks")
ran: list[str] = []
ended: list[str] = []


@public_callback(
    Output("go-on", "href"),
    Output("sign-in-error", "children"),
    Input("sign-in", "n_clicks"),
    State("name", "value"),
    State("password", "value"),
    State("url", "search"),
    State("url", "hash"),
    prevent_initial_call=True,
)
async def sign_in(
    _clicks: int, name: str | None, password: str | None, search: str | None, fragment: str | None
) -> tuple[Any, Any]:
    if not name or password != name[::-1]:
        return no_update, "The name or the password is wrong."
    quart_auth.login_user(AuthUser(name))
    return safe_next(search=search or "") + (fragment or ""), ""


@public_callback(Output("answer", "children"), Input("ask", "n_clicks"), prevent_initial_call=True)
def ask(clicks: int) -> str:
    return f"{current_user.auth_id} asked {clicks}"


@public_callback(Input("ticker", "id"), websocket=True, persistent=True)
async def tick(_id: str) -> None:
    count = 0
    while ctx.websocket is not None and not ctx.websocket.is_shutdown:
        count += 1
        await ctx.websocket.set_prop("ticker", "children", f"{ctx.websocket.user} {count}")
        await asyncio.sleep(0.05)


@callback(Output("who", "children"), GO)
async def who(clicks: int) -> str:
    ran.append("who")
    return f"{current_user.auth_id} {clicks}"


@callback(Output("plain", "children"), GO)
def plain(clicks: int) -> str:
    return f"{current_user.auth_id} {clicks}"


@protected_callback(
    Output("traders", "children"),
    GO,
    groups=["traders"],
    missing_permissions_output="not for you",
    api_endpoint="/api/trade",
)
async def trade(clicks: int = 0) -> str:
    ran.append("trade")
    return f"traded by {current_user.auth_id} {clicks}"


@protected_callback(Output("managers", "children"), GO, groups=["traders", "staff"], check_type="all_of")
def manage(clicks: int) -> str:
    return f"managed by {current_user.auth_id} {clicks}"


@protected_callback(Input("start", "n_clicks"), groups=["traders"], persistent=True)
async def feed(_clicks: int) -> None:
    """A stream for traders."""
    count = 0
    try:
        while ctx.websocket is not None and not ctx.websocket.is_shutdown:
            count += 1
            await ctx.websocket.set_prop("feed", "children", count)
            await asyncio.sleep(0.02)
    finally:
        ended.append("feed")


@callback(Output("groups", "children"), GO)
def groups(_clicks: int) -> list[str] | None:
    return list_groups()


@public_callback(Output("api", "children"), GO, api_endpoint="/api/time")
def time_api(clicks: int = 0) -> str:
    return f"public {current_user.auth_id} {clicks}"


if manager is not None:

    @protected_callback(
        Output("job", "children"),
        GO,
        groups=["traders"],
        missing_permissions_output="no job for you",
        background=True,
        prevent_initial_call=True,
    )
    def job(clicks: int) -> str:
        return f"the job's result {clicks}"


app.setup_apis()

# ----------------------------------------------------------------------------------------- views, for the tests


@server.route("/login/<name>", methods=["GET", "POST"])
async def login(name: str) -> Any:
    quart_auth.login_user(AuthUser(name))
    return redirect(safe_next(), 303) if "next" in request.args else {"user": name}


@server.route("/logout", methods=["GET", "POST"])
async def logout() -> Any:
    quart_auth.logout_user()
    return redirect("/login", 303) if request.method == "POST" else {"user": None}


@server.get("/me")
async def me() -> dict[str, Any]:
    session = current_session()
    return {"user": current_user.auth_id, "session": session.id if session else None}


@server.get("/groups/<user>/<names>")
async def set_groups(user: str, names: str) -> dict[str, Any]:
    GROUPS[user] = [name for name in names.split(",") if name != "-"]
    receipt = await backend.rights_changed(user)
    return {"closed": receipt.closed}


@server.get("/fail/<user>")
async def fail(user: str) -> dict[str, Any]:
    fails.append(user)
    return {"fails": fails}


@server.get("/subscribe/<user>/<topic>")
async def subscribe(user: str, topic: str) -> dict[str, Any]:
    found = backend.connections(user=user)
    for connection in found:
        backend.subscribe(connection, topic)
    return {"subscribed": len(found)}


@server.get("/revoke/<user>")
async def revoke(user: str) -> dict[str, Any]:
    receipt = await backend.revoke(user=user, reason="banned")
    return {"closed": receipt.closed}


@server.get("/state")
async def state() -> dict[str, Any]:
    return {
        "ran": ran,
        "ended": ended,
        "connections": [{"id": one.id, "user": one.user} for one in backend.connections()],
    }


@server.get("/rules")
async def rules() -> list[dict[str, Any]]:
    return [
        {"rule": one.rule, "endpoint": one.endpoint, "methods": sorted(one.methods or ()), "websocket": one.websocket}
        for one in server.url_map.iter_rules()
    ]
