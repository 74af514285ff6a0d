"""An app as it was before it had this package, with the same key: `hypercorn tests.attacks.before:server`."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, html
from quart_auth import AuthUser, QuartAuth, current_user, login_user

app = Dash(__name__, backend="quart", assets_folder="no-assets", websocket_callbacks=True)
server: Any = app.server
server.secret_key = "only for tests, and long enough to be one"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
app.layout = html.Div([html.Button("go", id="go"), html.Div(id="who"), html.Div(id="job")])


@app.callback(Output("who", "children"), Input("go", "n_clicks"))
async def who(clicks: int) -> str:
    return f"{current_user.auth_id} {clicks}"


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    login_user(AuthUser(name))
    return {"user": name}
