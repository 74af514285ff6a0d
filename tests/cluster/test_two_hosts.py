"""Two servers with one broker, as on two hosts: what is done on one holds on the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from ..server import BRIDGE, attach, await_for, call, closed, next_message, request_message, result, wait_for
from .workers import events, is_nobody, knows, listens, workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ..brokers.redis_server import RedisServer
    from ..server import Reply, Server


@pytest.fixture(scope="module")
def hosts(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with workers(tmp_path_factory.mktemp("hosts"), 2, redis.url) as servers:
        yield servers


# ------------------------------------------------------------------------------------------------- the end of a session


async def test_a_login_on_one_counts_on_the_other_and_so_does_its_logout(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("alice")
    async with b.bridge(cookie) as socket:
        assert result(await call(socket, "a.children")) == "alice 1"
        reply = await a.aget("/logout", cookie)
        assert reply.status == 200
        assert await closed(socket) == (4501, "logged out")
    assert is_nobody(a, cookie)
    assert is_nobody(b, cookie)


async def test_a_ban_ends_what_a_user_has_open_everywhere_and_its_receipt_says_so(hosts: list[Server]) -> None:
    a, b = hosts
    one, other = a.login("mallory"), b.login("mallory")
    async with a.bridge(one) as here, b.bridge(one) as there, b.bridge(other) as third:
        receipt = (await a.aget("/revoke?user=mallory")).json
        assert (receipt["closed"], receipt["confirmed"], receipt["missing"]) == (3, 2, [])
        assert receipt["slowest_ms"] > 0
        for socket in (here, there, third):
            assert await closed(socket) == (4503, "by the test")
    for cookie in (one, other):
        assert is_nobody(a, cookie)
        assert is_nobody(b, cookie)
    assert not is_nobody(b, a.login("mallory"))
    assert not is_nobody(a, b.login("mallory"))


async def test_the_hooks_for_the_end_of_a_session_are_called_once_wherever_it_was_open(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("hal")
    async with a.bridge(cookie) as here, b.bridge(cookie) as there:
        await b.aget("/logout", cookie)
        await closed(here)
        await closed(there)
    ends = lambda: [one for server in hosts for one in events(server, "session end") if one[1] == "hal"]  # noqa: E731
    await await_for(ends)
    gone = lambda: [one for server in hosts for one in events(server, "disconnect") if one[1] == "hal"]  # noqa: E731
    await await_for(lambda: len(gone()) == 2)
    assert [one[3] for one in ends()] == ["logged out"]


async def test_everybodys_sessions_but_one_end_on_both(hosts: list[Server]) -> None:
    a, b = hosts
    kept, ended = a.login("keep"), a.login("end")
    session = a.get("/me", kept).json["session"]
    receipt = b.get(f"/revoke?all=1&keep={session}").json
    assert (receipt["confirmed"], receipt["missing"]) == (2, [])
    assert not is_nobody(a, kept)
    assert not is_nobody(b, kept)
    assert is_nobody(a, ended)


async def test_rights_that_change_on_one_end_what_relied_on_them_on_the_other(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("ruth")
    b.get("/groups/ruth/staff")
    async with b.bridge(cookie) as socket:
        await socket.send(request_message("c.children"))
        assert result(await call(socket, "a.children", request_id="2")) == "ruth 1"
        b.get("/groups/ruth/guests")
        receipt = (await a.aget("/rights/ruth/guests")).json
        assert (receipt["closed"], receipt["confirmed"]) == (1, 2)
        assert (await closed(socket))[0] == 4101


def ids_of(server: Server, user: str) -> list[str]:
    """A user's connections, as a worker lists them."""
    return [one["id"] for one in server.get("/all").json if one["user"] == user]


# ------------------------------------------------------------------------------------------------------------- pushes


async def test_a_push_reaches_a_users_session_connection_topic_and_everybody_on_the_other_host(
    hosts: list[Server], redis: RedisServer
) -> None:
    a, b = hosts
    cookie, bystander = a.login("pat"), a.login("paul")
    session = a.get("/me", cookie).json["session"]
    async with b.bridge(cookie) as socket, b.bridge(bystander) as other:
        assert result(await call(socket, "d.children", "news")) == "news"
        (connection,) = await await_for(lambda: ids_of(a, "pat"), what="the connection to be listed")
        listens(redis, "topic:news")
        listens(redis, "user:paul")
        targets = ["user=pat", f"session={session}", f"connection={connection}", "topic=news"]
        for number, target in enumerate(targets):
            reply = await a.aget(f"/push?{target}&value={number}")
            assert reply.json == {"here": 0}  # connections of its own process
            message = await next_message(socket, "set_props")
            assert message["payload"] == {"componentId": "a", "props": {"title": str(number)}}
        await a.aget("/push?all=1&value=all")
        for one in (socket, other):
            message = await next_message(one, "set_props")
            assert message["payload"]["props"] == {"title": "all"}  # the first that the bystander gets


async def test_pushes_of_one_sender_arrive_once_and_in_order(hosts: list[Server], redis: RedisServer) -> None:
    a, b = hosts
    cookie = a.login("olga")
    async with b.bridge(cookie) as socket:
        listens(redis, "user:olga")
        values = [str(number) for number in range(200)]
        await a.aget(f"/push?user=olga&value={','.join(values)}")
        got: list[str] = []
        while len(got) < 200:
            got.append((await next_message(socket, "set_props"))["payload"]["props"]["title"])
        await a.aget("/push?user=olga&value=last")
        got.append((await next_message(socket, "set_props"))["payload"]["props"]["title"])
        assert got == [*values, "last"]


async def test_a_sessions_subscription_on_one_holds_for_its_connection_on_the_other(
    hosts: list[Server], redis: RedisServer
) -> None:
    a, b = hosts
    cookie = a.login("tess")
    async with b.bridge(cookie) as socket:
        await a.aget("/subscribe/weather", cookie)
        listens(redis, "topic:weather")
        await a.aget("/push?topic=weather&value=rain")
        message = await next_message(socket, "set_props")
        assert message["payload"]["props"] == {"title": "rain"}


async def test_who_has_no_connection_here_is_no_business_of_this_worker(
    hosts: list[Server], redis: RedisServer
) -> None:
    a, b = hosts
    with redis.look() as store:
        before = set(store.pubsub_channels("*to:*"))
        async with b.bridge(a.login("quentin")):
            opened = await await_for(lambda: set(store.pubsub_channels("*to:user:quentin")))
            assert dict(store.pubsub_numsub(*opened)) == dict.fromkeys(opened, 1)
        await await_for(lambda: set(store.pubsub_channels("*to:*")) <= before, what="the channels to be left")


async def test_a_connection_can_be_closed_by_its_id_from_the_other_host(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("carl")
    async with b.bridge(cookie) as socket:
        (connection,) = await await_for(lambda: ids_of(a, "carl"), what="the connection to be listed")
        receipt = (await a.aget(f"/close?connection={connection}")).json
        assert (receipt["closed"], receipt["confirmed"], receipt["missing"]) == (1, 2, [])
        assert await closed(socket) == (4500, "by the test")
    assert not is_nobody(b, cookie)


# --------------------------------------------------------------------------------------------------------- who is here


async def test_everybody_is_listed_with_worker_and_host_until_they_leave(hosts: list[Server]) -> None:
    a, b = hosts
    one, other = a.login("wendy"), b.login("wilma")
    async with a.bridge(one), b.bridge(other):
        for server in hosts:
            await await_for(lambda server=server: ids_of(server, "wendy") and ids_of(server, "wilma"))
            found = {entry["user"]: entry for entry in (await server.aget("/all")).json}
            assert found["wendy"]["pid"] == a.get("/state").json["pid"]
            assert found["wilma"]["pid"] == b.get("/state").json["pid"]
            assert found["wendy"]["worker"] != found["wilma"]["worker"]
            assert found["wendy"]["host"] == found["wilma"]["host"] != ""
    await await_for(lambda: not {"wendy", "wilma"} & {entry["user"] for entry in a.get("/all").json})


def test_sessions_are_known_on_both_until_they_end(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("sam")
    a.get("/me", cookie)
    (session,) = knows(b, "sam")
    b.get(f"/revoke?session={session['id']}")
    wait_for(lambda: "sam" not in [one["user"] for one in a.get("/state").json["sessions"]])
    assert is_nobody(a, cookie)


# ------------------------------------------------------------------- cookies and logins of a callback on the other host


@contextlib.asynccontextmanager
async def page_on(host: Server, cookie: str) -> AsyncIterator[tuple[Any, str]]:
    """A websocket with one tab attached, and the token of its page."""
    token = await asyncio.to_thread(host.page_token, cookie)
    async with host.connect(cookie, **BRIDGE) as socket:
        assert (await next_message(socket))["type"] == "welcome"
        assert (await attach(socket, token))["type"] == "session"
        yield socket, token


def fetch(host: Server, id: str, cookie: str, token: str) -> Reply:
    """What the bridge posts, to whichever host its request comes."""
    path = f"/_dash-quart-ws/effects?endId={token}"
    return host.request("POST", path, cookie=cookie, body={"id": id}, headers={"Origin": host.origin})


async def test_what_a_callback_does_on_one_is_fetched_from_the_other_and_once_only(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("clara")
    async with page_on(a, cookie) as (socket, token):
        id = (await call(socket, "colour.children", "blue"))["effects"]
        reply = await asyncio.to_thread(fetch, b, id, cookie, token)
        assert (reply.status, reply.cookie) == (204, "colour=blue")
        for host in hosts:
            assert (await asyncio.to_thread(fetch, host, id, cookie, token)).status == 404


async def test_a_login_in_a_callback_on_one_ends_the_session_before_it_on_both(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("dora")
    async with page_on(a, cookie) as (socket, token), b.bridge(cookie) as elsewhere:
        id = (await call(socket, "enter.children", "emil"))["effects"]
        reply = await asyncio.to_thread(fetch, b, id, cookie, token)
        assert reply.status == 200
        assert (await closed(socket))[0] == (await closed(elsewhere))[0] == 4102
    for host in hosts:
        assert is_nobody(host, cookie)
        assert host.get("/me", reply.cookie).json["user"] == "emil"


async def test_a_logout_in_a_callback_on_one_holds_on_the_other_before_its_cookie_goes(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("fred")
    async with page_on(a, cookie) as (socket, token), b.bridge(cookie) as elsewhere:
        id = (await call(socket, "leave.children"))["effects"]
        assert (await closed(elsewhere))[0] == 4501
        assert is_nobody(b, cookie)
        reply = await asyncio.to_thread(fetch, b, id, cookie, token)
        assert (reply.status, reply.cookie) == (204, "QUART_AUTH=")


async def test_a_revocation_on_the_other_host_overtakes_what_a_callback_did(hosts: list[Server]) -> None:
    a, b = hosts
    cookie = a.login("gina")
    async with page_on(a, cookie) as (socket, token):
        colour = (await call(socket, "colour.children", "red"))["effects"]
        login = (await call(socket, "enter.children", "gina", "2"))["effects"]
        await b.aget("/revoke?user=gina")
        assert (await closed(socket))[0] == 4503
    for id, host in ((colour, b), (login, a)):
        reply = await asyncio.to_thread(fetch, host, id, cookie, token)
        assert reply.status == 401
        assert "colour" not in (reply.cookie or "")
