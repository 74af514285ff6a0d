"""A multi-page app, whose first contact may be a websocket."""

from __future__ import annotations

import dash
from dash import Dash, html
from quart_auth import AuthUser, QuartAuth, login_user

from dash_quart_ws import QuartBackend

app = Dash(
    __name__,
    backend=QuartBackend(broker="memory:"),
    websocket_callbacks=True,
    use_pages=True,
    pages_folder="",
)
server = app.server
server.secret_key = "only for tests, and long enough to be one"
QuartAuth(server, cookie_secure=False)
dash.register_page("home", path="/", layout=html.Div("the home page"))
dash.register_page("report", path_template="/report/<number>", layout=lambda number=None: html.Div(f"report {number}"))
app.layout = html.Div([dash.page_container])


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    login_user(AuthUser(name))
    return {"user": name}
