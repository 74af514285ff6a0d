"""Two workers of one app in this process, on a real Redis: what is hard to see from outside."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
import quart_auth
from dash import Input, Output
from quart_auth import AuthUser

from dash_quart_ws import QuartBackend, Receipt, cluster, current_session
from dash_quart_ws.brokers.base import Target, TargetKind
from dash_quart_ws.brokers.messages import Close, Push
from dash_quart_ws.brokers.redis import RedisBroker
from dash_quart_ws.sessions import revocations

from ..brokers.partition import Partition
from ..server import request_message
from ..sessions.site import ECHO, Site, ending, is_open, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..brokers.redis_server import RedisServer

ALICE = Target(TargetKind.USER, "alice")


@pytest.fixture
def url(redis: RedisServer) -> str:
    redis.flush()
    return redis.url


@contextlib.asynccontextmanager
async def two(url: str, **options: Any) -> AsyncIterator[tuple[Site, Site]]:
    async with Site(broker=url, **options) as a, Site(broker=url, **options) as b:
        yield a, b


async def soon(condition: Any) -> None:
    """Let the event loop run until something is so, also where that takes an await to see."""
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def outsider(url: str, **options: Any) -> AsyncIterator[RedisBroker]:
    """Somebody who may write to the store."""
    broker = RedisBroker(url, serves=False, **options)
    await asyncio.to_thread(broker.load)
    try:
        yield broker
    finally:
        await asyncio.to_thread(broker.close)


# ------------------------------------------------------------------------------------------------------ revocations


async def test_a_view_may_sign_a_user_out_everywhere_and_in_again_while_other_workers_revoke_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(url) as (a, b):
        broker = a.server.extensions["dash_quart_ws"].broker
        known = broker.next_position

        @a.server.get("/new-password")
        async def new_password() -> dict[str, Any]:
            # What others have revoked is not known here yet: it gets a later position than the one that is given.
            monkeypatch.setattr(broker, "next_position", lambda: known() - 50)
            receipt = await a.backend.revoke(user="alice")
            quart_auth.login_user(AuthUser("alice"))
            return {"closed": receipt.closed}

        await b.backend.revoke(session="somebody else's")
        before, elsewhere = await a.login("alice"), await b.login("alice")
        after = (await a.get("/new-password", before)).cookie
        assert after
        for site in (a, b):
            assert (await site.me(after))[0] == "alice"
            assert await site.is_nobody(before)
            assert await site.is_nobody(elsewhere)


async def test_until_a_ban_has_its_position_nobody_whom_it_names_gets_in_here(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Site(broker=url) as site:
        broker = site.server.extensions["dash_quart_ws"].broker
        known = broker.next_position
        cookie = await site.login("alice")
        await site.backend.revoke(session="somebody else's")
        late = await site.login("alice")  # it has seen more than the position that the ban is given first
        monkeypatch.setattr(broker, "next_position", lambda: known() - 50)
        site.backend.revoke(user="alice")
        assert (await site.me(late))[0] is None  # at once, whether or not the store has answered
        assert await site.is_nobody(cookie)
        assert await site.is_nobody(late)


async def test_a_login_that_a_ban_on_another_worker_overtakes_does_not_outlive_it(url: str, redis: RedisServer) -> None:
    with Partition(redis.port) as network:
        async with Site(broker=network.url, broker_timeout=20.0) as a, Site(broker=url) as b:
            login = asyncio.create_task(a.get("/slow-login/alice"))
            await a.entered.wait()  # who it is has been looked at
            network.hold_announcements()
            banned = b.backend.revoke(user="alice")
            await asyncio.wrap_future(banned.stored)
            a.go_on.set()
            await asyncio.wait({login}, timeout=0.5)  # it waits to hear of the ban, or it does not
            network.heal()
            late = (await login).cookie
            assert (await banned).missing == ()
            assert await a.is_nobody(late)
            assert await b.is_nobody(late)
            after = await a.login("alice")
            assert not await b.is_nobody(after)


async def test_a_login_that_cannot_hear_what_has_overtaken_it_counts_from_when_it_arrived(
    url: str, redis: RedisServer
) -> None:
    with Partition(redis.port) as network:
        async with Site(broker=network.url, broker_timeout=2.0) as a, Site(broker=url) as b:
            login = asyncio.create_task(a.get("/slow-login/alice"))
            await a.entered.wait()
            network.hold_announcements()
            await asyncio.wrap_future(b.backend.revoke(user="alice").stored)
            await asyncio.wrap_future(a.backend.revoke(user="bob").stored)  # a later position is known here from now on
            a.go_on.set()
            late = (await login).cookie
            network.heal()
            assert await b.is_nobody(late)

            async def is_heard() -> bool:
                return (await a.me(late))[0] is None

            await soon(is_heard)
            assert await a.is_nobody(late)


async def test_a_reason_is_told_to_the_clients_of_every_worker_and_to_one_hook(url: str) -> None:
    async with two(url) as (a, b):
        cookie = await a.login("alice")
        async with b.websocket(cookie) as socket:
            assert await is_open(socket)
            (connection,) = b.backend.connections()
            receipt = await a.backend.revoke(user="alice", reason="banned: ü")
            assert isinstance(receipt, Receipt)
            assert (receipt.closed, receipt.confirmed, receipt.missing) == (1, 2, ())
            assert await ending(socket) == 4503
            assert connection.close_reason == "banned: ü"
        await until(lambda: a.ended or b.ended)
        assert [reason for _, reason in (*a.ended, *b.ended)] == ["banned: ü"]


async def test_a_revocation_in_a_hook_or_a_thread_is_one_everywhere(url: str) -> None:
    async with two(url) as (a, b):
        cookie = await b.login("alice")
        receipt = await asyncio.to_thread(lambda: a.backend.revoke(user="alice").result(10))
        assert (receipt.confirmed, receipt.missing) == (2, ())
        assert await b.is_nobody(cookie)


async def test_a_user_with_a_great_many_ended_sessions_loses_none_that_began_after_them(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 20)
    async with two(url) as (a, b):
        ended = [await a.login("alice") for _ in range(25)]
        kept = await b.login("alice")
        for cookie in ended:
            await a.get("/logout", cookie)
        for site in (a, b):
            for cookie in ended:
                assert await site.is_nobody(cookie)
            assert (await site.me(kept))[0] in (
                "alice",
                None,
            )  # one that was begun before many of them may go with them
            assert (await site.me(await site.login("alice")))[0] == "alice"
        assert max(len(site.server.extensions["dash_quart_ws"].sessions.known_revocations()) for site in (a, b)) < 25


async def test_the_store_forgets_a_session_that_the_worker_which_revokes_it_has_not_heard_of(
    url: str, redis: RedisServer
) -> None:
    async with two(url) as (a, b):
        session = await b.session_id(await b.login("alice"))
        assert session is not None

        def stored() -> bool:
            with redis.look() as client:
                return any(client.hexists(key, session) for key in client.keys("*:sessions"))

        async with asyncio.timeout(10):
            while not (stored() and a.backend.sessions(user="alice")):
                await asyncio.sleep(0.01)
        a.backend._extension.sessions._registry.forget(session)  # as if its record had been lost on the way
        await a.backend.revoke(session=session)
        async with asyncio.timeout(10):
            while stored():
                await asyncio.sleep(0.01)


async def test_a_worker_that_goes_down_while_it_reads_the_rights_again_is_missing_at_once(url: str) -> None:
    asked = asyncio.Event()

    async def groups_of(_user: str) -> list[str]:
        if asked.is_set():
            await asyncio.Event().wait()
        return ["staff"]

    patient: dict[str, Any] = {"broker_timeout": 60.0, "groups_timeout": 60.0, "list_groups": groups_of}
    async with Site(broker=url, **patient) as a:
        async with Site(broker=url, **patient) as b, b.websocket(await b.login("alice")) as socket:
            assert await is_open(socket)
            asked.set()
            missing = b.server.extensions["dash_quart_ws"].broker.worker.id
            changed = a.backend.rights_changed("alice")
            await until(
                lambda: "rights changed" in [task.get_name() for task in b.server.extensions["dash_quart_ws"]._tasks]
            )
        async with asyncio.timeout(10):  # not when the time for an answer is up
            receipt = await changed
        assert (receipt.closed, receipt.missing) == (0, (missing,))


async def test_of_more_ends_than_may_wait_for_the_broker_the_latest_are_told_and_the_log_says_how_many_are_not(
    redis: RedisServer, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "WAITING_AT_MOST", 5)
    monkeypatch.setattr(cluster, "CLAIMED_AT_ONCE", 3)
    with Partition(redis.port) as partition:
        async with Site(broker=partition.url, broker_timeout=1.0, lease=600.0) as site:
            sessions: list[Any] = []

            @site.server.get("/here")
            async def here() -> str:
                sessions.append(current_session())
                return "here"

            for number in range(12):
                await site.get("/here", await site.login(f"user{number}"))
            waiting = site.server.extensions["dash_quart_ws"].cluster._ends
            partition.hold()
            for session in sessions[:4]:
                site.backend.revoke(session=session)
            await until(lambda: len(waiting) == 1)  # the broker is asked about the other three, in vain
            for session in sessions[4:]:
                site.backend.revoke(session=session)
            await until(lambda: waiting._left_out == 7)
            assert site.ended == []
            partition.heal()
            await until(lambda: len(site.ended) == 5)
            assert [id for id, _ in site.ended] == [session.id for session in sessions[-5:]]
            said = [one.getMessage() for one in caplog.records if one.name == "dash_quart_ws.cluster"]
            assert said == ["too many ends of sessions have waited for the broker: no hooks are called for 7"]


async def test_a_close_counts_what_it_has_closed_on_every_worker_and_leaves_the_sessions(url: str) -> None:
    async with two(url) as (a, b):
        cookie = await a.login("alice")
        async with a.websocket(cookie) as here, b.websocket(cookie) as there:
            assert await is_open(here)
            assert await is_open(there)
            receipt = await b.backend.close(user="alice", reconnect=True)
            assert (receipt.closed, receipt.confirmed, receipt.missing) == (2, 2, ())
            assert await ending(here) == await ending(there) == 4100
        assert not await b.is_nobody(cookie)


async def test_known_connections_are_targets_on_any_worker(url: str) -> None:
    async with two(url) as (a, b):
        cookie = await a.login("alice")
        async with b.websocket(cookie) as socket:
            assert await is_open(socket)
            found: list[Any] = []

            async def listed() -> bool:
                found[:] = await a.backend.all_connections(user="alice")
                return bool(found)

            await soon(listed)
            (known,) = found
            (own,) = b.backend.connections()
            assert (known.id, known.user, known.session) == (own.id, "alice", own.session)
            assert await a.backend.all_connections(session=known.session) == (known,)
            assert await a.backend.all_connections(user="bob") == ()
            await a.backend.close(connection=known)
            assert await ending(socket) == 4500


# ----------------------------------------------------------------------------------- what others write to the store


BAD_PUSHES = [
    "no JSON",
    "[]",
    json.dumps({"payload": "no JSON", "sets": None, "path": None}),
    json.dumps({"payload": '{"componentId": "a", "props": {}}, {"type": "session"', "sets": None, "path": None}),
    json.dumps({"payload": '["a"]', "sets": None, "path": None}),
    json.dumps({"payload": '{"componentId": 1, "props": {}}', "sets": None, "path": None}),
    json.dumps({"payload": '{"componentId": "a"}', "sets": None, "path": None}),
]


async def test_words_that_are_no_push_spoil_no_frame_and_the_next_push_arrives(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Site(broker=url) as site,
        outsider(url) as stranger,
        site.websocket(await site.login("alice")) as socket,
    ):
        assert await is_open(socket)
        await soon(_hears(site, ALICE))
        for bad in BAD_PUSHES:
            stranger.publish(ALICE, bad)
        stranger.publish(Target(TargetKind.SESSION, site.backend.connections()[0].session.id), '{"topic": 1')  # type: ignore[union-attr]
        good = Push('{"componentId": "a", "props": {"title": "good"}}', ("a", "title"))
        stranger.publish(ALICE, good.text())
        async with asyncio.timeout(10):
            message = json.loads(await socket.receive())
        assert message["payload"] == {"componentId": "a", "props": {"title": "good"}}
    said = [record for record in caplog.records if record.name == "dash_quart_ws.cluster"]
    assert len(said) == 1  # one line a minute, whoever floods


def _hears(site: Site, target: Target) -> Any:
    """Whether what is pushed to a target arrives at a site."""
    broker = site.server.extensions["dash_quart_ws"].broker

    async def hears() -> bool:
        again = broker.subscribe(target)
        try:
            await asyncio.wrap_future(again)
        finally:
            broker.unsubscribe(target)
        return True

    return hears


@pytest.mark.parametrize(
    "question",
    [
        None,
        7,
        [],
        {"close": ["all", ""], "code": 4500},
        Close(Target(TargetKind.ALL), 1006, "no code to send").json(),
        {"rights": "alice"},
    ],
)
async def test_a_question_that_nobody_here_asks_is_answered_with_nothing_and_closes_nothing(
    url: str, question: Any
) -> None:
    async with Site(broker=url) as site, outsider(url) as stranger, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        answers = await asyncio.wrap_future(stranger.request(question))
        assert list(answers.given.values()) == [None]
        assert await is_open(socket)


async def test_a_path_spares_the_connections_of_other_apps(url: str) -> None:
    async with Site(broker=url) as site, outsider(url) as stranger, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        elsewhere = Close(ALICE, 4500, "another app's", path="/other/_dash-ws-callback")
        answers = await asyncio.wrap_future(stranger.request(elsewhere.json()))
        assert [answer["connections"] for answer in answers.given.values()] == [0]
        assert await is_open(socket)
        everywhere = dataclasses.replace(elsewhere, path=None)
        answers = await asyncio.wrap_future(stranger.request(everywhere.json()))
        assert [answer["connections"] for answer in answers.given.values()] == [1]
        assert await ending(socket) == 4500


async def test_with_a_key_nobody_without_it_pushes_or_closes_anything(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "dash_quart_ws.broker")
    async with two(url, broker_key="only the workers know it") as (a, b):
        cookie = await a.login("alice")
        async with b.websocket(cookie) as socket:
            assert await is_open(socket)
            await soon(_hears(b, ALICE))
            forged = RedisBroker(url, serves=True, lease=1.0)  # as somebody who has found the way to the store
            with contextlib.suppress(Exception):
                await asyncio.to_thread(forged.load)
            forged.publish(ALICE, Push('{"componentId": "a", "props": {"title": "forged"}}').text())
            forged.request(Close(ALICE, 4500, "forged").json())
            await asyncio.to_thread(forged.close)
            await a.backend.set_props("a", {"title": "good"}, user="alice")
            async with asyncio.timeout(10):
                assert json.loads(await socket.receive())["payload"]["props"] == {"title": "good"}
            assert await is_open(socket)


def test_two_dash_apps_on_one_server_agree_on_the_broker(url: str) -> None:
    from dash import Dash

    from dash_quart_ws import ConfigurationError

    first = Dash("first", backend=QuartBackend(broker=url, lease=2.0), assets_folder="no-assets")
    second = QuartBackend(server=first.server, broker=url, lease=3.0)
    with pytest.raises(ConfigurationError, match="lease="):
        Dash("second", backend=second, routes_pathname_prefix="/second/", assets_folder="no-assets")


# ------------------------------------------------------------------------ a lease that has passed before a timer notices


def lapse(site: Site) -> None:
    """As in a process that has been suspended, and wakes up right here."""
    site.server.extensions["dash_quart_ws"].broker._lease_until = 0.0


LONG = {"lease": 600.0}
"""So that no proof comes in between."""


async def test_past_its_lease_a_worker_sends_nothing_more(url: str) -> None:
    async with Site(broker=url, **LONG) as site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        lapse(site)
        await site.backend.set_props("a", {"title": "too late"}, user="alice")
        assert site.backend.connections() == ()
        assert await ending(socket, unless="set_props") == 1012


async def test_past_its_lease_a_worker_starts_no_callback(url: str) -> None:
    site = Site(broker=url, **LONG)
    ran: list[int] = []

    @site.app.callback(Output("text", "value"), Input("go", "n_clicks"))
    async def run(value: int) -> int:
        ran.append(value)
        return value

    async with site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        lapse(site)
        await socket.send(request_message("text.value"))
        assert await ending(socket) == 1012
        assert ran == []


async def test_a_callback_that_has_waited_for_its_thread_does_not_start_past_the_lease(url: str) -> None:
    site = Site(broker=url, callback_threads=1, **LONG)
    go_on, ran = threading.Event(), []

    @site.app.callback(Output("text", "value"), Input("go", "n_clicks"), api_endpoint="/api/run")
    def run(value: int) -> int:
        ran.append(value)
        assert go_on.wait(10)
        return value

    site.app.setup_apis()
    async with site:
        alice, bob = await site.login("alice"), await site.login("bob")
        async with site.websocket(alice) as first, site.websocket(bob) as second:
            await first.send(request_message("text.value", 1))
            await until(lambda: ran)
            await second.send(request_message("text.value", 2))
            assert await is_open(second)  # the request before it has been taken
            over_http = {**ECHO, "output": "text.value", "outputs": {"id": "text", "property": "value"}}
            posted = asyncio.create_task(site.request("POST", "/_dash-update-component", bob, json=over_http))
            asked = asyncio.create_task(site.request("POST", "/api/run", bob, json={"value": 3}))
            await asyncio.sleep(0.1)  # until they wait for the thread, too: nothing tells
            lapse(site)
            go_on.set()
            assert (await posted).status == (await asked).status == 503
            assert (await site.get("/", bob)).status == 503
        assert ran == [1]


async def test_a_response_over_http_that_comes_past_the_lease_is_not_sent(url: str) -> None:
    site = Site(broker=url, **LONG)

    @site.app.callback(Output("text", "value"), Input("go", "n_clicks"))
    async def slow(value: int) -> str:
        site.entered.set()
        await site.go_on.wait()
        return "for alice only"

    async with site:
        alice = await site.login("alice")
        body = {**ECHO, "output": "text.value", "outputs": {"id": "text", "property": "value"}}
        posted = asyncio.create_task(site.request("POST", "/_dash-update-component", alice, json=body))
        await site.entered.wait()
        lapse(site)
        site.go_on.set()
        reply = await posted
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        assert "alice" not in str(reply.body)


async def test_of_more_connections_than_may_wait_for_the_lease_the_latest_are_told_and_the_log_says_how_many_are_not(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "WAITING_AT_MOST", 2)
    site, gone = Site(broker=url, **LONG), []

    @site.backend.on_disconnect
    async def disconnected(connection: Any, _reason: str) -> None:
        gone.append(connection.user)

    async with site:
        async with contextlib.AsyncExitStack() as stack:
            for user in ("alice", "bob", "carol"):
                socket = await stack.enter_async_context(site.websocket(await site.login(user)))
                assert await is_open(socket)
            lapse(site)  # and then they leave, carol first
        await until(lambda: len(site.backend._extension.hub) == 0)
        assert gone == []
        site.server.extensions["dash_quart_ws"].broker._lease_until = math.inf  # as by the proof that comes at last
        await until(lambda: len(gone) == 2)
        assert sorted(gone) == ["alice", "bob"]
    said = [one.getMessage() for one in caplog.records if one.name == "dash_quart_ws.cluster"]
    assert said == ["too many ends of connections have waited for the broker: no hooks are called for 1"]
