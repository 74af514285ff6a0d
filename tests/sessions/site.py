"""A whole login-protected app in this process: a real Dash, a real QuartAuth, and Quart's own test client.

Nothing is faked: the test client speaks ASGI to the app as a server does. Cookies are passed by hand, because the tests
are about who holds which copy of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any

import quart_auth
from dash import Dash, Input, Output, dcc, html
from quart import Quart, jsonify, request
from quart_auth import Action, AuthUser, QuartAuth
from quart_auth.extension import _AuthSerializer

from dash_quart_ws import QuartBackend, current_session
from dash_quart_ws._dash import sign_page
from dash_quart_ws.sessions.pages import NOBODY
from dash_quart_ws.wire.close import SUBPROTOCOL
from tests.asgi import Closed, InProcessSocket, Refused
from tests.server import SOCKET_PATH, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path


SECRET = "only for tests, and long enough to be one"
ORIGIN = "http://localhost"
ECHO = {
    "output": "echo.children",
    "outputs": {"id": "echo", "property": "children"},
    "inputs": [{"id": "go", "property": "n_clicks", "value": 1}],
    "changedPropIds": ["go.n_clicks"],
    "state": [],
}


def broker_for_each() -> str:
    """The `broker` option of a site that gives none. `tests.cluster` replaces it."""
    return "memory:"


class Site:
    """One Quart app with one Dash app. `async with` it: that starts and stops it as a server would."""

    def __init__(
        self,
        *,
        secret: str | None = SECRET,
        auth: Callable[[Quart], Any] | None = QuartAuth,
        config: dict[str, Any] | None = None,
        debug: bool = False,
        dash: dict[str, Any] | None = None,
        login_route: str | None = "/login",
        **options: Any,
    ) -> None:
        options = {"broker": broker_for_each(), "close_timeout": 0.2, "cancel_timeout": 0.5, **options}
        self.app = Dash(
            "site",
            backend=QuartBackend(**options),
            assets_folder="no-assets",
            **{"websocket_callbacks": True, **(dash or {})},
        )
        self.server: Quart = self.app.server
        self.server.secret_key = secret
        self.server.config["QUART_AUTH_COOKIE_SECURE"] = False
        self.server.config.update(config or {})
        self.auth = auth(self.server) if auth is not None else None
        self.backend = QuartBackend.of(self.app)
        self.app.layout = html.Div([html.Button("go", id="go"), html.Div(id="echo"), dcc.Input(id="text")])
        self.entered = asyncio.Event()
        """Set when one of the slow views has been reached."""
        self.go_on = asyncio.Event()
        """Lets the slow views go on."""
        self.ended: list[tuple[str, str]] = []
        """What `on_session_end` was told: session id, reason."""
        self._views(login_route)

        @self.app.callback(Output("echo", "children"), Input("go", "n_clicks"))
        async def echo(n_clicks: int) -> str:
            return f"{quart_auth.current_user.auth_id} {n_clicks}"

        @self.backend.on_session_end
        async def session_ended(session: Any, reason: str) -> None:
            self.ended.append((session.id, reason))

        if debug:
            self.app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)

    def _views(self, login_route: str | None) -> None:  # noqa: C901 - a list of views
        server = self.server

        async def slowly() -> None:
            self.entered.set()
            await self.go_on.wait()

        if login_route is not None:

            @server.get(login_route)
            async def login_page() -> str:
                return "the login page"

        @server.get("/login/<name>")
        async def login(name: str) -> Any:
            quart_auth.login_user(AuthUser(int(name) if name.isdigit() else name))  # type: ignore[arg-type]
            return {"session": _id(current_session())}

        @server.get("/slow-login/<name>")
        async def slow_login(name: str) -> str:
            await slowly()
            quart_auth.login_user(AuthUser(name))
            return "logged in"

        @server.get("/logout")
        async def logout() -> Any:
            quart_auth.logout_user()
            return {"session": _id(current_session())}

        @server.get("/renew")
        async def renew() -> str:
            quart_auth.renew_login()
            return "renewed"

        @server.get("/slow-renew")
        async def slow_renew() -> str:
            await slowly()
            quart_auth.renew_login()
            return "renewed"

        @server.get("/slow-logout")
        async def slow_logout() -> str:
            await slowly()
            quart_auth.logout_user()
            return "logged out"

        @server.get("/me")
        async def me() -> Any:
            return {"user": quart_auth.current_user.auth_id, "session": _id(current_session())}

        @server.get("/secret")
        @quart_auth.login_required
        async def secret() -> str:
            return "secret"

        @server.errorhandler(quart_auth.Unauthorized)
        async def unauthorized(_error: Exception) -> Any:
            return jsonify({"error": "unauthorized"}), 401

        @server.get("/token/<name>")
        async def token(name: str) -> Any:
            return {"token": self.auth.dump_token(name)}

    async def __aenter__(self) -> Site:
        self._running = self.server.test_app()
        await self._running.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self._running.shutdown()

    # ------------------------------------------------------------------------------------------------ over HTTP

    async def request(self, method: str, path: str, cookie: str = "", **options: Any) -> Reply:
        client = self.server.test_client(use_cookies=False)
        headers = dict(options.pop("headers", {}))
        if cookie:
            headers["Cookie"] = cookie
        response = await client.open(path, method=method, headers=headers, **options)
        return Reply(response.status_code, response.headers, (await response.get_data()).decode("utf-8", "replace"))

    async def get(self, path: str, cookie: str = "", **options: Any) -> Reply:
        return await self.request("GET", path, cookie, **options)

    async def login(self, name: str, cookie: str = "") -> str:
        """The cookie of a new login."""
        reply = await self.get(f"/login/{name}", cookie)
        assert reply.status == 200, reply
        assert reply.cookie, reply
        return reply.cookie

    async def me(self, cookie: str = "", **options: Any) -> tuple[Any, str | None]:
        """Who a cookie makes: user and session id."""
        reply = await self.get("/me", cookie, **options)
        assert reply.status == 200, reply
        return reply.json["user"], reply.json["session"]

    async def session_id(self, cookie: str) -> str | None:
        """The public id of the session that a cookie belongs to."""
        return (await self.me(cookie))[1]

    def page_token(self, session: str | None) -> str:
        """The token of a page that was made for a session, given by its public id."""
        return sign_page(self.app, f"{session or NOBODY}.page")

    async def is_nobody(self, cookie: str) -> bool:
        """Whether a cookie is worth nothing: in every kind of view, and at the handshake."""
        user, session = await self.me(cookie)
        statuses = [
            (await self.get(path, cookie)).status for path in ("/secret", "/_dash-layout", "/_dash-dependencies")
        ]
        callback = await self.request("POST", "/_dash-update-component", cookie, json=ECHO)
        page = await self.get("/", cookie)
        closed_with = await self.refused_with(cookie)
        seen = (user, session, statuses, callback.status, page.status in (302, 401), closed_with in (4501, 4502, 4503))
        nobody = (None, None, [401, 401, 401], 401, True, True)
        somebody = (session is not None, statuses, callback.status, page.status) == (True, [200] * 3, 200, 200)
        assert seen == nobody or (somebody and closed_with is None), seen  # nothing in between
        return seen == nobody

    # ---------------------------------------------------------------------------------------- over the websocket

    @contextlib.asynccontextmanager
    async def websocket(
        self,
        cookie: str = "",
        *,
        origin: str | None = ORIGIN,
        bridge: bool = True,
        headers: dict[str, str] | None = None,
        path: str = SOCKET_PATH,
    ) -> AsyncIterator[InProcessSocket]:
        sent = dict(headers or {})
        if origin is not None:
            sent["Origin"] = origin
        if cookie:
            sent["Cookie"] = cookie
        if bridge and path.endswith(SOCKET_PATH):
            kind: Callable[..., InProcessSocket] = functools.partial(BridgeSocket, self)
        else:
            kind = functools.partial(InProcessSocket, self.server)
        async with kind(path, headers=sent) as socket:
            yield socket

    async def refused_with(self, cookie: str = "", **options: Any) -> int | None:
        """What becomes of a handshake: a close code, an HTTP status, or None when it is let in."""
        async with self.websocket(cookie, **options) as socket:
            await socket.send('{"type":"heartbeat"}')
            return await ending(socket, unless="heartbeat_ack")


class BridgeSocket(InProcessSocket):
    """A websocket as our own browser code opens it: welcomed, it attaches one tab, and only then sends what it is given.

    The page of that tab is one that was made for the very session that the welcome names.
    """

    def __init__(self, site: Site, path: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(site.server, path, headers=headers, subprotocols=[SUBPROTOCOL])
        self._site = site
        self._waiting: list[str | bytes] | None = []

    async def send(self, text: str | bytes) -> None:
        if self._waiting is None:
            await super().send(text)
        else:
            self._waiting.append(text)

    async def _send(self, event: dict[str, Any]) -> None:
        if self._waiting is not None and event["type"] == "websocket.send":
            match json.loads(event["text"]):
                case {"type": "welcome", "payload": {"session": session}}:
                    page = self._site.page_token(session)
                    await super().send(json.dumps({"type": "attach", "rendererId": "tab", "payload": {"page": page}}))
                    return
                case {"type": "session", "rendererId": "tab"}:
                    waiting, self._waiting = self._waiting, None
                    for text in waiting:
                        await super().send(text)
                    return
        await super()._send(event)


async def ending(socket: Any, *, unless: str | None = None) -> int | None:
    """Wait for the end: the close code, or the HTTP status of a refusal. None if a message of a type comes first."""
    async with asyncio.timeout(10):
        while True:
            try:
                text = await socket.receive()
            except Closed as closed:
                return closed.code
            except Refused as refused:
                return refused.status
            if unless is not None and json.loads(text)["type"] == unless:
                return None


async def is_open(socket: Any) -> bool:
    """Whether the server still answers, and so has taken the connection in."""
    await socket.send('{"type":"heartbeat"}')
    return await ending(socket, unless="heartbeat_ack") is None


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop run until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def second_auth(server: Quart) -> QuartAuth:
    """A QuartAuth beside the singleton, with views to log in and out: `/admin/login/<name>`, `/admin/logout`."""
    auth = QuartAuth(server, attribute_name="_admin", cookie_name="ADMIN", salt="the salt of admins", singleton=False)

    @server.get("/admin/login/<name>")
    async def admin_login(name: str) -> str:
        user = AuthUser(name)
        user.action = Action.WRITE
        auth.login_user(user)
        return "logged in"

    @server.get("/admin/logout")
    async def admin_logout() -> str:
        auth.logout_user()
        return "logged out"

    @server.get("/admin/me")
    async def admin_me() -> Any:
        return {"user": auth.load_user().auth_id, "remote": request.remote_addr}

    return auth


def plain_token(name: Any, secret: str = SECRET, salt: str = "quart auth salt") -> str:
    """What quart-auth itself signs, as before the package was installed."""
    token: str = _AuthSerializer(secret, salt).dumps(name)
    return token


def spellings(token: str) -> list[str]:
    """Every base64 spelling of a token's signature: the bits that its last character does not use are anybody's choice."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    signature = token.rpartition(".")[2]
    unused = {2: 16, 3: 4}[len(signature) % 4]
    first = alphabet.index(token[-1]) // unused * unused
    return [token[:-1] + alphabet[first + bits] for bits in range(unused)]


def database(path: Path) -> str:
    """The `broker` option for a SQLite file."""
    return f"sqlite:///{path}"


def _id(session: Any) -> str | None:
    return None if session is None else session.id
