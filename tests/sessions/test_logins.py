"""quart-auth's functions in callbacks over the websocket: whose user it is, and whose it is not. What comes of a login is in
`tests.callbacks.test_effects`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import quart_auth
from dash import Input, Output
from quart_auth import AuthUser, QuartAuth

from tests.callbacks.test_effects import answer, ask, cookies_of, fetch
from tests.server import request_message, result
from tests.sessions.site import Site, ending, second_auth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart import Quart

GO = Input("go", "n_clicks")


class Loaded(AuthUser):
    """A user as quart-auth's documentation makes one: what is loaded stays with the object."""

    loads = 0

    async def name(self) -> str:
        if not hasattr(self, "_name"):
            Loaded.loads += 1
            self._name = f"name of {self.auth_id}"
        return self._name


def loading(server: Quart) -> QuartAuth:
    return QuartAuth(server, user_class=Loaded)


def add_callbacks(site: Site) -> None:
    @site.app.callback(Output("changes", "children"), GO)
    async def changes(name: str) -> str:
        """Is somebody else while it waits."""
        quart_auth.login_user(AuthUser(name))
        site.entered.set()
        await site.go_on.wait()
        return str(quart_auth.current_user.auth_id)

    @site.app.callback(Output("who", "children"), GO)
    def who(_value: Any) -> str:
        return str(quart_auth.current_user.auth_id)

    @site.app.callback(Output("asks", "children"), GO)
    async def asks(name: str) -> str:
        """Makes a request of its own, and asks a task who that thinks it is."""
        quart_auth.login_user(AuthUser(name))
        user, _ = await site.me()
        task = asyncio.create_task(_current())
        return json.dumps([user, await task])

    @site.app.callback(Output("odd", "children"), GO)
    async def odd(_value: Any) -> str:
        quart_auth.login_user(AuthUser(object()))  # type: ignore[arg-type]
        return "never shown"


async def _current() -> str | None:
    auth_id: str | None = quart_auth.current_user.auth_id
    return auth_id


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    add_callbacks(site)
    async with site:
        yield site


async def test_a_login_in_one_callback_is_nothing_to_the_others_of_its_connection(site: Site) -> None:
    cookie = await site.login("alice")
    async with site.websocket(cookie) as socket:
        await socket.send(request_message("changes.children", "bob", "1"))
        await site.entered.wait()
        assert result(await ask(socket, "who", 1, "2")) == "alice"
        site.go_on.set()
        assert result(await answer(socket, "1")) == "bob"
        assert result(await ask(socket, "who", 1, "3")) == "alice"


async def test_a_request_that_a_callback_makes_has_a_user_of_its_own_and_a_task_has_the_callbacks(site: Site) -> None:
    async with site.websocket(await site.login("alice")) as socket:
        assert json.loads(result(await ask(socket, "asks", "bob"))) == [None, "bob"]


async def test_a_user_who_cannot_be_signed_cannot_log_in(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with site.websocket(await site.login("alice")) as socket:
        assert (await ask(socket, "odd"))["status"] == "error"
    assert "whose auth_id is JSON" in caplog.text


async def test_outside_of_a_callback_there_is_nothing_to_log_in_to_as_before(site: Site) -> None:
    errors: list[str] = []

    @site.backend.on_connect
    async def connected(_connection: Any) -> None:
        try:
            quart_auth.login_user(AuthUser("bob"))
        except RuntimeError as error:
            errors.append(str(error))

    async with site.websocket(await site.login("alice")) as socket:
        await ask(socket, "who")
        async with asyncio.timeout(10):
            while not errors:
                await asyncio.sleep(0)
    assert errors == ["Cannot login unless within a request context"]


async def test_what_a_callback_loads_into_its_user_is_its_own_and_the_user_is_of_the_apps_class() -> None:
    site = Site(auth=loading)

    @site.app.callback(Output("name", "children"), GO)
    async def name(_value: Any) -> str:
        user: Any = quart_auth.current_user
        return f"{await user.name()} {await user.name()}"

    before = Loaded.loads
    async with site, site.websocket(await site.login("alice")) as socket:
        for _ in range(2):
            assert result(await ask(socket, "name")) == "name of alice name of alice"
    assert Loaded.loads == before + 2


async def test_a_logout_of_another_extension_leaves_the_pages_own_login() -> None:
    admins: list[QuartAuth] = []

    def both(server: Quart) -> QuartAuth:
        auth = QuartAuth(server)
        admins.append(second_auth(server))
        return auth

    site = Site(auth=both)

    @site.app.callback(Output("out", "children"), GO)
    async def out(_value: Any) -> str:
        admins[0].logout_user()
        return f"{admins[0].load_user().auth_id} {quart_auth.current_user.auth_id}"

    async with site:
        cookie = await site.login("alice")
        admin = (await site.get("/admin/login/root", cookie)).cookie
        both_cookies = f"{cookie}; {admin}"
        page = site.page_token(await site.session_id(cookie))
        async with site.websocket(both_cookies) as socket:
            payload = await ask(socket, "out")
            assert result(payload) == "None alice"
            assert await ending(socket) == 4102
        assert (await site.get("/admin/me", both_cookies)).json["user"] is None
        reply = await fetch(site, payload["effects"], both_cookies, page=page)
        assert reply.status == 204, "the page's session is what it was"
        assert cookies_of(reply) == {"ADMIN": ""}
        assert (await site.me(both_cookies))[0] == "alice"


async def test_with_bearer_tokens_a_logout_ends_the_session_and_there_is_no_cookie_to_set() -> None:
    site = Site(auth=lambda server: QuartAuth(server, mode="bearer"))

    @site.app.callback(Output("out", "children"), GO)
    async def out(_value: Any) -> str:
        quart_auth.logout_user()
        return "logged out"

    async with site:
        token = (await site.get("/token/alice")).json["token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with site.websocket(headers=headers) as socket:
            payload = await ask(socket, "out")
            assert payload.get("effects") is None
            assert result(payload) == "logged out"
            assert await ending(socket) == 4501
        assert (await site.me(headers=headers))[0] is None
