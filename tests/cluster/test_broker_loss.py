"""The broker restarts, freezes, loses its data or disappears: what holds meanwhile, and how workers come back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from ..brokers.partition import Partition
from ..brokers.redis_server import RedisServer
from ..server import BRIDGE, await_for, call, closed, next_message, result, wait_for
from .workers import events, is_nobody, listens, worker, workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..server import Server

LEASE = 2.0
CUT_OFF = 4104


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A broker that every test leaves as it was, but for its data."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def both(store: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with workers(tmp_path_factory.mktemp("both"), 2, store.url, lease=LEASE, broker_timeout=0.5) as servers:
        yield servers


@pytest.fixture
def hosts(both: list[Server]) -> list[Server]:
    """Two hosts that have come back from whatever the test before has done."""
    for server in both:
        comes_back(server)
    return both


def comes_back(server: Server) -> None:
    wait_for(lambda: server.get("/", server.login("probe")).status == 200, 20, "the worker to serve again")


def is_cut_off(server: Server, cookie: str) -> bool:
    return server.get("/", cookie).status == 503


async def refused_with(server: Server, cookie: str | None) -> int | None:
    async with server.connect(cookie, **BRIDGE) as socket:
        return (await closed(socket))[0]


async def test_a_restart_within_the_lease_is_noticed_by_nobody(hosts: list[Server], store: RedisServer) -> None:
    a, b = hosts
    cookie = a.login("ann")
    async with a.bridge(cookie) as socket:
        store.stop()
        store.start()
        assert result(await call(socket, "a.children")) == "ann 1"
        assert a.get("/", cookie).status == 200
        listens(store, "user:ann")
        arriving = asyncio.create_task(next_message(socket, "set_props", 20))
        while not arriving.done():  # at most once: what is pushed before its own worker is back does not arrive
            await b.aget("/push?user=ann&value=again")
            await asyncio.wait({arriving}, timeout=0.1)
        assert arriving.result()["payload"]["props"] == {"title": "again"}
    assert not any("4104" in str(event) for event in events(a))


async def test_past_the_lease_a_worker_serves_nobody_with_a_login_and_recovers_by_itself(
    hosts: list[Server], store: RedisServer
) -> None:
    a, _ = hosts
    cookie = a.login("bob")
    async with a.bridge(cookie) as socket, a.connect(None, **BRIDGE) as anonymous:
        assert (await next_message(anonymous))["type"] == "welcome"
        frozen_at = time.monotonic()
        store.freeze()
        try:
            code, reason = await closed(socket, 20)
            assert (code, reason) == (CUT_OFF, "the server cannot tell whether the session has ended")
            assert LEASE / 4 < time.monotonic() - frozen_at < LEASE + 3
            reply = a.get("/", cookie)
            assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
            assert a.get("/", None).status == 503  # nor is anybody sent to a login that leads nowhere
            body = {"output": "a.children", "outputs": {}, "inputs": [], "changedPropIds": [], "state": []}
            assert a.request("POST", "/_dash-update-component", cookie=cookie, body=body).status == 503
            assert await refused_with(a, cookie) == CUT_OFF
            assert a.get("/secret", cookie).status == 401  # a view of the app's own sees nobody
            assert a.get("/health").status == 200
            assert a.get("/public", cookie).status == 200
            await anonymous.ping()
        finally:
            store.thaw()
        await await_for(lambda: a.get("/", cookie).status == 200, 20, "the worker to serve again")
    async with a.bridge(cookie) as socket:
        assert result(await call(socket, "a.children")) == "bob 1"
    assert "broker-lost" in a.log
    assert "broker-back" in a.log
    gone = [event for event in events(a, "disconnect") if event[1] == "bob"]
    assert gone[0][3] == "the server cannot tell whether the session has ended"


async def test_a_logout_while_the_broker_is_away_holds_here_at_once_and_elsewhere_when_it_is_back(
    hosts: list[Server], store: RedisServer
) -> None:
    a, b = hosts
    cookie = a.login("cid")
    assert not is_nobody(b, cookie)
    before = a.log.count("not-stored")
    async with a.bridge(cookie) as socket:
        store.freeze()
        try:
            assert (await a.aget("/logout", cookie)).status == 200
            assert (await closed(socket))[0] == 4501
            assert is_nobody(a, cookie)
            assert a.log.count("not-stored") == before + 1
            assert not is_nobody(b, cookie)  # it cannot know yet, and the lease is not over
        finally:
            store.thaw()
    wait_for(lambda: is_nobody(b, cookie), 20, "the logout to arrive")
    comes_back(b)
    assert is_nobody(b, cookie)


async def test_whoever_logs_out_past_the_lease_is_logged_out_everywhere_when_the_broker_is_back(
    hosts: list[Server], store: RedisServer
) -> None:
    a, b = hosts
    cookie = a.login("dan")
    store.freeze()
    try:
        await await_for(lambda: is_cut_off(a, cookie), 20)
        receipt = (await a.aget("/logout", cookie)).status
        assert receipt == 200
    finally:
        store.thaw()
    for server in hosts:
        comes_back(server)
    wait_for(lambda: is_nobody(b, cookie), 20, "the logout to arrive")
    assert is_nobody(a, cookie)
    assert b.get("/", cookie).status == 401


async def test_a_receipt_does_not_say_what_is_not_known_yet(hosts: list[Server], store: RedisServer) -> None:
    a, b = hosts
    cookie = b.login("eve")
    store.freeze()
    try:
        receipt = (await a.aget("/revoke?user=eve")).json
    finally:
        store.thaw()
    assert (receipt["closed"], receipt["confirmed"], len(receipt["missing"])) == (0, 0, 2)
    wait_for(lambda: is_nobody(b, cookie), 20, "the ban to arrive")


async def test_data_that_is_lost_is_given_back_by_those_who_know_it(
    hosts: list[Server], store: RedisServer, tmp_path: Path
) -> None:
    a, b = hosts
    cookie = a.login("fay")
    a.get("/logout", cookie)
    store.flush()
    with store.look() as client:
        wait_for(lambda: client.zcard("dash-quart-ws:revocations") > 0, 20, "the revocations to be written back")
    with worker(tmp_path, store.url) as third:
        assert is_nobody(third, cookie)
        assert not is_nobody(third, third.login("fay"))
    assert is_nobody(b, cookie)
    store.kill()
    store.start()  # it keeps nothing
    for server in hosts:
        comes_back(server)
        assert is_nobody(server, cookie)


async def test_what_was_revoked_before_a_worker_begins_is_known_before_it_serves_anybody(
    store: RedisServer, hosts: list[Server], tmp_path: Path
) -> None:
    a, _ = hosts
    ended, good = a.login("gus"), a.login("gwen")
    a.get("/logout", ended)
    with Partition(store.port) as network:
        network.cut()
        with worker(tmp_path, network.url, broker_timeout=0.5) as late:
            assert late.get("/health").status == 200
            for cookie in (ended, good):
                assert late.get("/", cookie).status == 503
                assert await refused_with(late, cookie) == CUT_OFF
            network.heal()
            wait_for(lambda: late.get("/", good).status == 200, 20, "the worker to serve")
            assert late.get("/", ended).status == 401
            async with late.bridge(good) as socket:
                assert result(await call(socket, "a.children")) == "gwen 1"
                await a.aget("/revoke?user=gwen")
                assert (await closed(socket))[0] == 4503


async def test_a_logout_before_the_broker_was_ever_there_is_not_forgotten(
    store: RedisServer, hosts: list[Server], tmp_path: Path
) -> None:
    a, _ = hosts
    cookie = a.login("hugh")
    with Partition(store.port) as network:
        network.cut()
        with worker(tmp_path, network.url, broker_timeout=0.5) as late:
            assert late.get("/logout", cookie).status == 200
            assert not is_nobody(a, cookie)
            network.heal()
            wait_for(lambda: is_nobody(a, cookie), 20, "the logout to arrive")


async def test_a_worker_that_is_cut_off_alone_is_the_only_one_that_stops(
    store: RedisServer, hosts: list[Server], tmp_path: Path
) -> None:
    a, _ = hosts
    cookie = a.login("ida")
    with Partition(store.port) as network, worker(tmp_path, network.url, lease=LEASE, broker_timeout=0.5) as cut:
        async with cut.bridge(cookie) as there, a.bridge(cookie) as here:
            network.hold()
            assert (await closed(there, 20))[0] == CUT_OFF
            assert result(await call(here, "a.children")) == "ida 1"
            await a.aget("/logout", cookie)
            assert (await closed(here))[0] == 4501
            assert cut.get("/", cookie).status == 503
            network.heal()
            wait_for(lambda: cut.get("/", cookie).status == 401, 20, "the logout to arrive")


async def test_with_continue_a_worker_goes_on_and_says_so(
    store: RedisServer, hosts: list[Server], tmp_path: Path
) -> None:
    a, _ = hosts
    cookie = a.login("jon")
    with (
        Partition(store.port) as network,
        worker(tmp_path, network.url, lease=1.0, broker_timeout=0.5, on_broker_loss="continue") as bold,
    ):
        async with bold.bridge(cookie) as socket:
            network.hold()
            await await_for(lambda: "broker-lost" in bold.log, 20, "the loss to be noticed")
            assert "continue" in bold.log.partition("broker-lost")[2].partition("\n")[0]
            a.get("/logout", cookie)
            assert result(await call(socket, "a.children")) == "jon 1"  # it cannot know
            assert bold.get("/", cookie).status == 200
            network.heal()
            # Its own lease is over for the others as well: they may have taken it for dead.
            assert (await closed(socket, 20))[0] in (4501, 1012)
        wait_for(lambda: is_nobody(bold, cookie), 20, "the logout to arrive")
