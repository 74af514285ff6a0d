"""What the apps of one server share, where it meets other people's code: user classes, factories, signals, loops, hooks."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import quart_auth
from dash import Input, Output
from quart.signals import request_started
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import ConfigurationError
from dash_quart_ws.brokers.embedded import EmbeddedBroker

from .sessions.site import ECHO, Site, database, ending, until

if TYPE_CHECKING:
    from pathlib import Path

    from quart import Quart

    from dash_quart_ws.brokers.base import Revocation


class Gone(AuthUser):
    """The account of a valid cookie does not exist any more."""

    def __init__(self, auth_id: str | None) -> None:
        super().__init__(None if auth_id == "gone" else auth_id)


class Unverified(AuthUser):
    """The second factor is missing."""

    @property
    async def is_authenticated(self) -> bool:
        return False


@pytest.mark.parametrize("user_class", [Gone, Unverified])
async def test_whoever_the_user_class_does_not_let_in_is_nobody_to_dash_as_well(user_class: type[AuthUser]) -> None:
    async with Site(auth=lambda server: QuartAuth(server, user_class=user_class)) as site:
        cookie = await site.login("gone")
        assert (await site.get("/secret", cookie)).status == 401
        assert (await site.get("/_dash-layout", cookie)).status == 401
        assert await site.refused_with(cookie) == 4501


async def test_two_singletons_are_an_error_at_start() -> None:
    def two(server: Quart) -> QuartAuth:
        QuartAuth(server, attribute_name="_api", cookie_name="API", salt="the salt of the API")
        return QuartAuth(server)

    site = Site(auth=two)
    with pytest.raises(ConfigurationError, match="singleton=False"):
        await site.server.startup()


async def test_one_quart_auth_may_serve_several_servers_and_a_ban_holds_on_its_own() -> None:
    shared = QuartAuth()

    def init(server: Quart) -> QuartAuth:
        shared.init_app(server)
        return shared

    async with Site(auth=init) as one, Site(auth=init) as two:
        cookie, other = await one.login("alice"), await two.login("alice")
        assert (await one.get("/_dash-layout", cookie)).status == (await two.get("/_dash-layout", other)).status == 200
        await one.backend.revoke(user="alice")
        assert await one.is_nobody(cookie)
        assert not await two.is_nobody(other)


async def test_a_view_may_sign_a_user_out_everywhere_and_in_again() -> None:
    async with Site() as site:

        @site.server.get("/new-password")
        async def new_password() -> str:
            await site.backend.revoke(user="alice", reason="the password was changed")
            quart_auth.login_user(AuthUser("alice"))
            return "changed"

        old, elsewhere = await site.login("alice"), await site.login("alice")
        reply = await site.get("/new-password", old)
        assert await site.is_nobody(old)
        assert await site.is_nobody(elsewhere)
        assert not await site.is_nobody(reply.cookie)


async def test_who_reads_the_user_before_us_does_not_hide_the_session() -> None:
    async with Site() as site:
        readers = []
        for _ in range(8):  # the order of a signal's receivers is anybody's guess

            async def reader(_sender: Any, **_: Any) -> None:
                assert quart_auth.current_user.auth_id in (None, "alice")

            readers.append(reader)
            request_started.connect(reader, site.server)
        cookie = await site.login("alice")
        assert (await site.get("/_dash-layout", cookie)).status == 200
        assert (await site.get("/logout", cookie)).status == 200
        assert await site.is_nobody(cookie)


async def test_what_a_view_of_dash_made_for_a_session_is_not_sent_when_that_has_ended_meanwhile() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def layout() -> str:
        entered.set()
        assert go_on.wait(10)
        return "made for alice"

    async with Site() as site:
        site.app.config.suppress_callback_exceptions = True
        cookie = await site.login("alice")
        site.app.layout = layout
        asked = asyncio.create_task(site.get("/_dash-layout", cookie))
        await until(entered.is_set)
        await site.backend.revoke(user="alice")
        go_on.set()
        reply = await asked
    assert reply.status == 401
    assert "made for alice" not in reply.body


async def test_nobody_is_served_while_a_thread_still_loads_the_revocations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Site(broker=database(tmp_path / "kept")) as site:
        cookie = await site.login("alice")
        await site.backend.revoke(user="alice")
    loading, go_on = threading.Event(), threading.Event()
    load = EmbeddedBroker.load

    def slow_load(broker: EmbeddedBroker) -> list[Revocation]:
        loading.set()
        assert go_on.wait(10)
        return load(broker)

    monkeypatch.setattr(EmbeddedBroker, "load", slow_load)
    site = Site(broker=database(tmp_path / "kept"))
    thread = threading.Thread(target=lambda: site.backend.revoke(user="bob"))
    thread.start()
    await until(loading.is_set)
    threading.Timer(0.05, go_on.set).start()
    async with site:
        assert await site.is_nobody(cookie)
    thread.join(10)


async def test_a_request_on_another_loop_leaves_the_serving_loop_its_place() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            await socket.send('{"type":"heartbeat"}')
            assert await ending(socket, unless="heartbeat_ack") is None
            status = await asyncio.to_thread(lambda: asyncio.run(_status_of(site, cookie)))
            assert status == 200
            receipt = await asyncio.to_thread(lambda: site.backend.revoke(user="alice").result(10))
            assert receipt.closed == 1
            assert await ending(socket) == 4503


async def _status_of(site: Site, cookie: str) -> int:
    return (await site.get("/_dash-layout", cookie)).status


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, StopIteration])
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_callback_raises_is_answered_and_the_server_lives(
    error: type[BaseException], is_async: bool
) -> None:
    site = Site()

    def raises(_clicks: int) -> None:
        raise error

    async def raises_async(_clicks: int) -> None:
        raise error

    site.app.callback(Output("text", "value"), Input("go", "n_clicks"))(raises_async if is_async else raises)
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            payload = {**ECHO, "output": "text.value", "outputs": {"id": "text", "property": "value"}}
            request = {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload}
            await socket.send_json(request)
            answer = await socket.receive_json()
            assert answer["payload"]["status"] == "error"
            await socket.send_json({**request, "requestId": "2", "payload": ECHO})
            assert (await socket.receive_json())["payload"]["status"] == "ok"


async def test_a_hook_may_be_an_object_with_an_async_call() -> None:
    class Hook:
        def __init__(self) -> None:
            self.users: list[str | None] = []

        async def __call__(self, connection: Any) -> None:
            await asyncio.sleep(0)
            self.users.append(connection.user)

    hook = Hook()
    async with Site() as site:
        site.backend.on_connect(hook)
        async with site.websocket(await site.login("alice")) as socket:
            await socket.send('{"type":"heartbeat"}')
            await until(lambda: hook.users == ["alice"])
