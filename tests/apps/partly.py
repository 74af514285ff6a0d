"""An app whose callbacks go over HTTP, but for one."""

from __future__ import annotations

from dash import Dash, Input, Output, html
from quart_auth import AuthUser, QuartAuth, login_user

from dash_quart_ws import QuartBackend

app = Dash(__name__, backend=QuartBackend(broker="memory:"))
server = app.server
server.secret_key = "only for tests, and long enough to be one"
QuartAuth(server, cookie_secure=False)
app.layout = html.Div([html.Button(id="go"), html.Div(id="yes"), html.Div(id="no")])


@app.callback(Output("yes", "children"), Input("go", "n_clicks"), websocket=True)
async def yes(_clicks: int) -> str:
    return "yes"


@app.callback(Output("no", "children"), Input("go", "n_clicks"))
async def no(_clicks: int) -> str:
    return "no"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    login_user(AuthUser(name))
    return {"user": name}
