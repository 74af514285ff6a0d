"""Dash inside an existing Quart app, which has views, blueprints, error handlers and functions of its own.

`PREFIX`: where the browser finds that app, without a slash at its end.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys

from dash import Dash, Input, Output, ctx, html
from dash.exceptions import PreventUpdate
from hypercorn.middleware import ProxyFixMiddleware
from quart import Blueprint, Quart, abort, jsonify, redirect, request, url_for, websocket
from quart_auth import AuthUser, QuartAuth, Unauthorized, current_user, login_required, login_user, logout_user
from werkzeug.exceptions import HTTPException

from dash_quart_ws import QuartBackend

logging.basicConfig(stream=sys.stderr, level=logging.INFO)

PREFIX = os.environ.get("PREFIX", "")

# ------------------------------------------------------------------------------------------------ what was there before

server = Quart("existing")
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)

seen: list[list[str]] = []
"""The functions of the app that have run, and for which path."""
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody's")


class OutOfStockError(Exception):
    """An exception of the app's own."""


@server.before_request
async def before_request():
    seen.append(["before_request", request.path])
    tenant.set(request.headers.get("X-Tenant", "none"))
    if "X-Forbidden" in request.headers:
        abort(403)


@server.before_websocket
async def before_websocket():
    seen.append(["before_websocket", websocket.path])
    tenant.set(websocket.headers.get("X-Tenant", "none"))
    if "X-Forbidden" in websocket.headers:
        abort(403)
    if "X-Empty" in websocket.headers:
        raise OutOfStockError
    if "X-Elsewhere" in websocket.headers:
        return "elsewhere", 410
    return None


@server.after_request
async def after_request(response):
    response.headers["X-Existing"] = "yes"
    return response


@server.teardown_websocket
async def teardown_websocket(_error):
    seen.append(["teardown_websocket", websocket.path])


@server.errorhandler(404)
async def not_found(_error):
    return jsonify({"existing": "not found"}), 404


@server.errorhandler(OutOfStockError)
async def out_of_stock(_error):
    return jsonify({"existing": "out of stock"}), 409


@server.errorhandler(Unauthorized)
async def to_the_login(_error):
    return redirect(url_for("login_page"))


@server.errorhandler(Exception)
async def anything_else(error):
    return error if isinstance(error, HTTPException) else (jsonify({"existing": "failed"}), 500)


shop = Blueprint("shop", __name__, url_prefix="/shop")


@shop.before_websocket
async def only_in_the_shop():
    seen.append(["shop", websocket.path])


@shop.get("/item")
@login_required
async def item():
    return {"item": current_user.auth_id}


@shop.get("/none")
async def none():
    raise OutOfStockError


@shop.websocket("/chat")
async def chat():
    while True:
        await websocket.send(f"the shop says {await websocket.receive()}")


server.register_blueprint(shop)


@server.get("/login")
async def login_page():
    return "<!doctype html><title>login</title><p id=login>Who are you?</p>"


@server.get("/login/<name>")
async def login(name):
    login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout():
    logout_user()
    return {}


@server.get("/seen")
async def what_was_seen():
    return jsonify(seen)


# ------------------------------------------------------------------------------------------------------------ with Dash

app = Dash(
    __name__,
    backend=QuartBackend(server=server, broker="memory:"),
    websocket_callbacks=True,
    routes_pathname_prefix="/dash/",
    requests_pathname_prefix=f"{PREFIX}/dash/",
    assets_folder="no-assets",
)
app.layout = html.Div(
    [html.Button("go", id="go"), html.Div(id="who"), html.Button("ask", id="ask"), html.Div(id="out")]
)


@app.callback(Output("who", "children"), Input("go", "n_clicks"))
async def who(clicks):
    if ctx.websocket is None:
        return f"{current_user.auth_id} {clicks} over HTTP/{request.http_version}"
    return f"{current_user.auth_id} {clicks} over a websocket in HTTP/{websocket.http_version}"


@app.callback(Output("out", "children"), Input("ask", "n_clicks"), prevent_initial_call=True)
def seen_by_a_callback(_clicks):
    return {"tenant": tenant.get(), "remote": ctx.remote, "path": ctx.path, "origin": ctx.origin}


@app.callback(Output("out", "title"), Input("ask", "n_clicks"), prevent_initial_call=True)
def raises(clicks):
    raise {1: OutOfStockError, 2: PreventUpdate, 3: ZeroDivisionError}[clicks]


asgi = ProxyFixMiddleware(server, mode="legacy", trusted_hops=1)
