"""Two Dash apps with different prefixes on one Quart server, which share its sessions."""

from __future__ import annotations

from dash import Dash, Input, Output, get_app, html
from quart import Quart
from quart_auth import AuthUser, QuartAuth, login_user, logout_user

from dash_quart_ws import QuartBackend

server = Quart(__name__)
server.secret_key = "only for tests, and long enough to be one"
QuartAuth(server, cookie_secure=False)


def add(prefix: str) -> Dash:
    app = Dash(
        prefix,
        backend=QuartBackend(server=server, broker="memory:"),
        url_base_pathname=f"/{prefix}/",
        websocket_callbacks=True,
        title=prefix,
        enable_mcp=True,
    )
    app.layout = html.Div([html.Button(id="go"), html.Div(id="out")])

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), api_endpoint=f"/{prefix}/api")
    async def answer(clicks: int) -> str:
        return f"app {get_app().title}"

    @app.callback(Output("out", "title"), Input("go", "n_clicks"))
    def tell(clicks: int) -> str:
        """A tool, which has the same name in both apps."""
        return f"tool {get_app().title} {clicks}"

    app.setup_apis()
    return app


apps = [add("one"), add("two")]


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    login_user(AuthUser(name))
    return {"user": name}


@server.get("/logout")
async def logout() -> dict[str, None]:
    logout_user()
    return {"user": None}
