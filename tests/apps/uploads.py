"""A login-protected app that takes uploads: as a callback's input, and in a view of its own."""

from __future__ import annotations

import os

import quart_auth
from dash import Dash, Input, Output, callback, dcc, html
from quart import request
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend, public_callback

OPTIONS = {"upload_bytes": int(os.environ["UPLOAD_BYTES"])} if "UPLOAD_BYTES" in os.environ else {}

app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:", **OPTIONS),
    websocket_callbacks=True,
    assets_folder="no-assets",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
if "MAX_CONTENT_LENGTH" in os.environ:
    server.config["MAX_CONTENT_LENGTH"] = int(os.environ["MAX_CONTENT_LENGTH"]) or None
QuartAuth(server)

app.layout = html.Div([dcc.Upload(id="go"), html.Div(id="size"), html.Div(id="public")])


@callback(Output("size", "children"), Input("go", "contents"))
async def size(contents):
    return len(contents)


@public_callback(Output("public", "children"), Input("go", "contents"))
async def public_size(contents):
    return len(contents)


@server.before_request
async def reads_first():
    """As a CSRF check of the app's own may."""
    if "X-Read-First" in request.headers:
        await request.get_data()


@server.post("/own")
async def own():
    return {"size": len(await request.get_data())}


@server.get("/login/<name>")
async def login(name: str):
    quart_auth.login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout():
    quart_auth.logout_user()
    return {}
