"""Dash apps that tell what happened to them: `hypercorn tests.bridge.app:server`. `browser.Site` has the options."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import warnings
from typing import Any

from dash import Dash, Input, Output, Patch, State, ctx, dcc, html, no_update
from quart import Quart, Response, g, request, session
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user, renew_login

from dash_quart_ws import QuartBackend, add_public_routes, public_callback

OPTIONS = os.environ
CSP = OPTIONS.get("CSP", "")
PREFIXES = OPTIONS.get("PREFIXES", "/").split(",")
BURST = 200

server = Quart(__name__)
server.secret_key = "only for tests, and long enough to be one"
server.config.update(QUART_AUTH_COOKIE_SECURE=False)
QuartAuth(server)

ran: list[list[Any]] = []
"""What, for whom, which click, and over what."""
streams: list[dict[str, Any]] = []
"""Each run of a persistent callback: of which tab, for whom, and how it ended."""
waiting: dict[str, asyncio.Event] = {}
"""The slow callbacks that wait for `/release`."""


def note(what: str, clicks: Any) -> None:
    ran.append([what, current_user.auth_id, clicks, "http" if ctx.websocket is None else "websocket"])


def layout() -> html.Div:
    plain = [dcc.Upload(html.Button("upload"), id="upload"), dcc.Input(id="box", value="the box")]
    return html.Div(
        [
            html.Div(secrets.token_hex(4), id="tab"),
            *(html.Button(id, id=id) for id in BUTTONS),
            *(html.Div(id=id) for id in ("clock", "news", "who", "worked", "order", "ordered", "asked", "uploaded")),
            *(html.Div(id=id) for id in ("opened", "kept", "public-clock")),
            *([] if CSP else plain),
            *(form() if "EFFECTS" in OPTIONS else []),
        ]
    )


def form() -> list[Any]:
    """For callbacks that do something to the browser."""
    buttons = ("paint", "count", "look", "sign-in", "sign-out", "sign-out-and-go", "renew")
    texts = ("painted", "counted", "looked", "signed-in", "signed-out", "renewed")
    fields = [dcc.Input(id="name"), dcc.Location(id="elsewhere", refresh=True)]
    return [*fields, *(html.Button(id, id=id) for id in buttons), *(html.Div(id=id) for id in texts)]


BUTTONS = ("go", "work", "burst", "ask", "open", "keep")


def build(prefix: str) -> Dash:
    options: dict[str, Any] = {"broker": "memory:"}
    for name, value in (("LOGIN_REQUIRED", "login_required"), ("BRIDGE", "bridge"), ("STATUS", "connection_status")):
        if name in OPTIONS:
            options[value] = OPTIONS[name] == "1"
    if "RENDERERS" in OPTIONS:
        options["renderers_per_connection"] = int(OPTIONS["RENDERERS"])
    app = Dash(
        f"{__name__}{prefix}",
        backend=QuartBackend(server=server, **options),
        websocket_callbacks=True,
        websocket_heartbeat_interval=int(OPTIONS.get("HEARTBEAT", "30000")),
        websocket_inactivity_timeout=int(OPTIONS.get("INACTIVITY", "300000")),
        routes_pathname_prefix=prefix,
        requests_pathname_prefix=prefix,
        title=f"app {prefix}",
        assets_folder="no assets",
    )
    app.layout = layout
    add_callbacks(app, prefix)
    add_streams(app)
    if "EFFECTS" in OPTIONS:
        add_effects(app)
    if OPTIONS.get("PUBLIC"):
        add_public_routes(app, [prefix])
    return app


def add_callbacks(app: Dash, prefix: str) -> None:
    """What is asked and answered."""

    @app.callback(Output("who", "children"), Input("go", "n_clicks"))
    async def go(clicks: int | None) -> str:
        note("go", clicks)
        return f"{current_user.auth_id} {clicks}{'' if prefix == '/' else f' in {prefix}'}"

    @app.callback(
        Output("worked", "children"),
        Input("work", "n_clicks"),
        running=[(Output("work", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    async def work(clicks: int) -> str:
        """Takes as long as the test wants it to."""
        note("work", clicks)
        gate = waiting.setdefault(f"{current_user.auth_id} {clicks}", asyncio.Event())
        await asyncio.wait_for(gate.wait(), 60)
        return f"{current_user.auth_id} worked {clicks}"

    @app.callback(Output("order", "children"), Input("burst", "n_clicks"), prevent_initial_call=True)
    async def burst(clicks: int) -> str:
        """Uses the websocket without a look at whether there is one."""
        for number in range(BURST):
            step = Patch()
            step.append(number)
            await ctx.websocket.set_prop("ordered", "children", step)
            await ctx.websocket.set_prop("order", "children", f"step {number}")
        return f"burst {clicks}"

    @app.callback(Output("asked", "children"), Input("ask", "n_clicks"), prevent_initial_call=True)
    async def ask(clicks: int) -> str:
        assert ctx.websocket is not None, "this callback asks the page, for which it needs the websocket"
        return f"{clicks}: {await ctx.websocket.get_prop('tab', 'children')}"

    @public_callback(Output("opened", "children"), Input("open", "n_clicks"), prevent_initial_call=True, app=app)
    async def opened(clicks: int) -> str:
        note("open", clicks)
        return f"{current_user.auth_id} opened {clicks}"

    if not CSP:

        @app.callback(
            Output("uploaded", "children"),
            Input("upload", "contents"),
            State("box", "value"),
            prevent_initial_call=True,
        )
        async def uploaded(contents: str, _box: str) -> str:
            note("upload", len(contents))
            return f"{len(contents)} characters"


def add_effects(app: Dash) -> None:
    """What does something to the browser."""

    @app.callback(Output("painted", "children"), Input("paint", "n_clicks"), prevent_initial_call=True)
    async def paint(clicks: int) -> str:
        note("paint", clicks)
        ctx.response.set_cookie("colour", f"blue{clicks}")
        return f"painted {clicks}"

    @app.callback(Output("counted", "children"), Input("count", "n_clicks"), prevent_initial_call=True)
    def count(clicks: int) -> str:
        note("count", clicks)
        session["count"] = session.get("count", 0) + 1
        return f"counted {session['count']}"

    @app.callback(Output("looked", "children"), Input("look", "n_clicks"), prevent_initial_call=True)
    async def look(clicks: int) -> str:
        note("look", clicks)
        return f"{clicks}: {ctx.cookies.get('colour')} {session.get('count')} {current_user.auth_id}"

    options: dict[str, Any] = {"websocket": True} if OPTIONS.get("PUBLIC") == "stream" else {}

    @public_callback(
        Output("signed-in", "children"),
        Output("elsewhere", "href", allow_duplicate=True),
        Input("sign-in", "n_clicks"),
        State("name", "value"),
        prevent_initial_call=True,
        app=app,
        **options,
    )
    async def sign_in(clicks: int, form: str) -> tuple[Any, Any]:
        note("sign-in", clicks)
        name, _, path = form.partition(" ")
        login_user(AuthUser(name))
        return f"welcome {current_user.auth_id}", path or no_update

    @app.callback(Output("signed-out", "children"), Input("sign-out", "n_clicks"), prevent_initial_call=True)
    async def sign_out(clicks: int) -> str:
        note("sign-out", clicks)
        logout_user()
        return f"goodbye {current_user.auth_id}"

    @app.callback(Output("elsewhere", "href"), Input("sign-out-and-go", "n_clicks"), prevent_initial_call=True)
    def sign_out_and_go(clicks: int) -> str:
        note("sign-out", clicks)
        logout_user()
        return "/plain"

    @app.callback(Output("renewed", "children"), Input("renew", "n_clicks"), prevent_initial_call=True)
    async def renew(clicks: int) -> str:
        note("renew", clicks)
        renew_login()
        return f"renewed {clicks}"


def add_streams(app: Dash) -> None:
    """What runs as long as its tab is there."""
    if "STILL" not in OPTIONS:

        @app.callback(persistent=True)
        async def clock() -> None:
            await tell_the_time("clock")

    @app.callback(Output("kept", "children"), Input("keep", "n_clicks"), prevent_initial_call=True)
    def keep(clicks: int) -> str:
        """In a thread, until its tab has gone."""
        socket = ctx.websocket
        assert socket is not None
        one = {"what": "keep", "tab": clicks, "user": current_user.auth_id, "is_over": False}
        streams.append(one)
        limit = time.monotonic() + 60
        while not socket.is_shutdown and time.monotonic() < limit:
            time.sleep(0.02)
        one["is_over"] = socket.is_shutdown
        return "kept"

    if OPTIONS.get("PUBLIC") == "stream":

        @public_callback(persistent=True, app=app)
        async def public_clock() -> None:
            await tell_the_time("public-clock")


async def tell_the_time(where: str) -> None:
    socket = ctx.websocket
    assert socket is not None
    one: dict[str, Any] = {"what": where, "tab": None, "user": current_user.auth_id, "is_over": False}
    streams.append(one)
    try:
        one["tab"] = tab = await socket.get_prop("tab", "children")
        ticks = 0
        while not socket.is_shutdown:
            ticks += 1
            await socket.set_prop(where, "children", f"{current_user.auth_id} {tab} {ticks}")
            await asyncio.sleep(0.1)
    finally:
        one["is_over"] = True


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    apps = {prefix: build(prefix) for prefix in PREFIXES}
app = apps[PREFIXES[0]]
backend = QuartBackend.of(app)

# ---------------------------------------------------------------------------------------- content security policies

BASE = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "


def policy() -> str:
    hashes = " ".join(app.csp_hashes())
    return {
        "hashes": f"{BASE}script-src 'self' {hashes}",
        "strict-dynamic": f"{BASE}script-src 'nonce-{g.nonce}' 'strict-dynamic'",
        "nonce": f"{BASE}script-src 'nonce-{g.nonce}'; connect-src 'self'",
        "nonce-worker": f"{BASE}script-src 'nonce-{g.nonce}'; worker-src 'self'",
        "no-worker": f"{BASE}script-src 'self' {hashes}; worker-src 'none'",
        "everywhere": f"{BASE}script-src 'self' {hashes}",
    }[CSP]


if CSP in ("nonce", "nonce-worker", "strict-dynamic"):
    dash_index = app.interpolate_index

    def with_nonces(**parts: str) -> str:
        return dash_index(**parts).replace("<script", f'<script nonce="{g.nonce}"')

    app.interpolate_index = with_nonces


@server.before_request
async def make_nonce() -> None:
    g.nonce = secrets.token_urlsafe(16)


@server.after_request
async def add_policy(response: Response) -> Response:
    if CSP and (CSP == "everywhere" or response.mimetype == "text/html"):
        response.headers["Content-Security-Policy"] = policy()
    return response


# ------------------------------------------------------------------------------------------- views, for the tests


@server.get("/login")
async def login_page() -> Response:
    return Response("<!doctype html><title>login</title><p id=login>Who are you?</p>", content_type="text/html")


@server.route("/login/<name>", methods=["GET", "POST"])
async def login(name: str) -> dict[str, Any]:
    login_user(AuthUser(name))
    return {"user": name}


@server.route("/logout", methods=["GET", "POST"])
async def logout() -> dict[str, Any]:
    logout_user()
    return {"user": None}


@server.get("/plain")
async def plain_page() -> Response:
    """Another page of the origin, which is not Dash's."""
    return Response("<!doctype html><title>plain</title><p id=plain>plain</p>", content_type="text/html")


@server.get("/own-worker.js")
async def own_worker() -> Response:
    """A SharedWorker of the app's own."""
    script = (
        "onconnect = ({ports: [port]}) => { port.onmessage = ({data}) => port.postMessage(`${name} heard ${data}`); }"
    )
    return Response(script, content_type="text/javascript")


@server.get("/release/<user>/<int:clicks>")
async def release(user: str, clicks: int) -> dict[str, Any]:
    waiting.setdefault(f"{user} {clicks}", asyncio.Event()).set()
    return {}


@server.get("/push/<user>/<text>")
async def push(user: str, text: str) -> dict[str, Any]:
    return {"connections": await backend.set_props("news", {"children": text}, user=user)}


@server.get("/push-all/<text>")
async def push_all(text: str) -> dict[str, Any]:
    return {"connections": await backend.set_props("news", {"children": text}, all=True)}


@server.get("/revoke/<user>")
async def revoke(user: str) -> dict[str, Any]:
    return {"closed": (await backend.revoke(user=user, reason="banned")).closed}


@server.get("/close/<user>/<int:reconnect>")
async def close(user: str, reconnect: int) -> dict[str, Any]:
    return {"closed": (await backend.close(user=user, reconnect=bool(reconnect))).closed}


@server.get("/state")
async def state() -> dict[str, Any]:
    found = [one for each in apps.values() for one in QuartBackend.of(each).connections()]
    connections = [{"id": one.id, "user": one.user, "renderers": list(one.renderers)} for one in found]
    return {"ran": ran, "streams": streams, "connections": connections}


@server.get("/me")
async def me() -> dict[str, Any]:
    return {
        "user": current_user.auth_id,
        "host": request.host,
        "session": dict(session),
        "cookies": list(request.cookies),
    }


__all__ = ["app", "server"]
