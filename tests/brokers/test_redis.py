"""The Redis broker on a real server, which is stopped, killed, frozen, emptied and restarted, and cut off."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dash_quart_ws.brokers import redis as redis_broker
from dash_quart_ws.brokers import redis_outbox, redis_scripts
from dash_quart_ws.brokers.base import Answers, Scope, SessionRecord, Target, TargetKind
from dash_quart_ws.brokers.redis import RedisBroker, Stored
from dash_quart_ws.brokers.redis_outbox import entry_of
from dash_quart_ws.brokers.signature import Signer
from dash_quart_ws.exceptions import BrokerError, ConfigurationError

from ..server import ROOT, await_for
from .contract import NEVER, by_id, record, revocation
from .crew import Crew, Member, outcome
from .partition import Partition
from .redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SHORT = 0.8
"""Seconds of a lease, where a test waits for its end."""

ALICE = Target(TargetKind.USER, "alice")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("shared"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """An empty server that runs, and goes on running."""
    shared.flush()
    return shared


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server to do anything with."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def crew(redis: RedisServer) -> AsyncIterator[Crew]:
    crew = Crew(redis.url)
    yield crew
    await crew.end()


@pytest.fixture
async def own_crew(own_redis: RedisServer) -> AsyncIterator[Crew]:
    crew = Crew(own_redis.url)
    yield crew
    await crew.end()


@pytest.fixture
def partition(redis: RedisServer) -> Iterator[Partition]:
    with Partition(redis.port) as partition:
        yield partition


# ------------------------------------------------------------------------------------------------- revocations


async def test_what_one_worker_revokes_every_other_one_is_told_with_its_true_position(crew: Crew) -> None:
    a, b, c = crew.join(), crew.join(), crew.join()
    first = await a.stored("alice", Scope.USER, keep=("one",))
    second = await b.stored("s")
    for member in (a, b, c):
        await member.knows("alice", "s")
        await await_for(lambda member=member: member.ears.revocations == {"alice": first, "s": second})
    assert (a.ears.own, b.ears.own, c.ears.own) == (["alice"], ["s"], [])
    assert second.position > first.position


async def test_a_ban_comes_after_every_login_before_it_and_before_every_one_after_it_whoever_made_them(
    crew: Crew,
) -> None:
    members = [crew.join() for _ in range(4)]
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    for number in range(25):
        login, ban, next_login = (members[(number + shift) % 4] for shift in range(3))
        before[number] = await login.broker.position()
        stored = await ban.stored(f"u{number}", Scope.USER)
        after[number] = await next_login.broker.position()
        assert before[number] < stored.position <= after[number]


async def test_a_worker_that_lags_behind_bans_the_logins_that_it_does_not_know_of(
    crew: Crew, partition: Partition
) -> None:
    a, b = crew.join(), crew.join(partition.url)
    partition.hold()
    for number in range(5):
        await a.stored(f"other {number}")
    seen = await a.broker.position()  # a login elsewhere, with a later position than the lagging worker knows
    ban = b.revoke("mallory", Scope.USER)
    partition.heal()
    await a.knows("mallory")
    assert a.ears.revocations["mallory"].position > seen
    with contextlib.suppress(BrokerError):
        await outcome(ban.stored)
    await await_for(lambda: b.ears.revocations["mallory"] == a.ears.revocations["mallory"])


async def test_a_login_gets_its_position_when_all_up_to_there_has_been_heard(crew: Crew, partition: Partition) -> None:
    a, b = crew.join(), crew.join(partition.url, timeout=20.0)
    partition.hold_announcements()
    stored = await a.stored("mallory", Scope.USER)
    login = asyncio.create_task(b.broker.position())
    assert (await asyncio.wait({login}, timeout=0.3))[0] == set()
    assert b.ears.revocations == {}
    partition.heal()
    assert await login >= stored.position
    assert b.ears.revocations == {"mallory": stored}


async def test_a_login_waits_no_longer_than_the_timeout_for_what_is_not_heard(crew: Crew, partition: Partition) -> None:
    a, b = crew.join(), crew.join(partition.url, timeout=1.0)
    before = b.broker.last_position
    partition.hold_announcements()
    await a.stored("mallory", Scope.USER)
    with pytest.raises(BrokerError, match="not been heard of in time"):
        await asyncio.wait_for(b.broker.position(), 10)
    assert b.broker.last_position == before


async def test_the_others_answers_come_back_under_their_names_and_those_of_none_are_missing(crew: Crew) -> None:
    a, quick, slow, silent = (crew.join(answer_timeout=0.5) for _ in range(4))
    quick.ears.answer = {"closed": 2}
    slow.ears.answer = concurrent.futures.Future()
    silent.ears.answer = concurrent.futures.Future()
    appended = a.revoke("s")
    await slow.knows("s")
    slow.ears.answer.set_result({"closed": 0})
    answers = await outcome(appended.answers)
    assert answers == Answers(
        {quick.broker.worker.id: {"closed": 2}, slow.broker.worker.id: {"closed": 0}}, (silent.broker.worker.id,)
    )


async def test_a_question_reaches_all_others_and_who_does_not_answer_is_missing(crew: Crew) -> None:
    a, b, silent = (crew.join(answer_timeout=0.5) for _ in range(3))
    silent.ears.answer = concurrent.futures.Future()
    answers = await outcome(a.broker.request({"connection": "c1", "user": "\ud800"}))
    assert answers.given == {b.broker.worker.id: {"connection": "c1", "user": "\ud800"}}
    assert answers.missing == (silent.broker.worker.id,)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_who_cannot_do_what_another_asks_says_so_at_once_and_has_a_line_in_the_log(
    crew: Crew, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    a, b = crew.join(answer_timeout=60.0), crew.join()
    b.ears.answer = concurrent.futures.Future()
    if how == "fails":
        b.ears.answer.set_exception(RuntimeError("cannot"))
    else:
        b.ears.answer.cancel()
    answers = await asyncio.wait_for(asyncio.wrap_future(a.broker.request("do it")), 10)
    assert answers == Answers({b.broker.worker.id: None})
    assert [one.getMessage() for one in caplog.records] == ["no answer to another worker's question"]


async def test_a_worker_that_begins_later_knows_all_that_has_been_revoked(crew: Crew) -> None:
    a = crew.join()
    stored = [await a.stored(f"s{number}") for number in range(3)]
    assert list(crew.join().ears.revocations.values()) == stored


async def test_a_worker_that_begins_where_there_is_much_reads_it_in_pages_and_gets_each_once_and_in_order(
    crew: Crew, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = crew.join()
    appended = [a.revoke(f"s{number}", Scope.USER if number % 3 else Scope.SESSION) for number in range(500)]
    stored = [await outcome(one.stored) for one in appended]
    signer, at = Signer(None), stored[250].position
    others = [revocation(f"of another life {number}", at) for number in range(2)]
    with redis.look() as client:
        client.zadd("dash-quart-ws:revocations", {entry_of(one, signer): NEVER for one in others})
    monkeypatch.setattr(redis_broker, "SCANNED_AT_ONCE", 10)
    monkeypatch.setattr(redis_broker, "SORTED_AT_ONCE", 7)
    loaded = list(crew.join().ears.revocations.values())
    assert [one for one in loaded if one not in others] == stored
    assert {one.subject for one in loaded if one.position == at} == {"s250", *(one.subject for one in others)}
    assert len(loaded) == 502


def test_what_a_scan_gives_twice_is_loaded_once() -> None:
    first, same, second = revocation("s", 1), revocation("at the same position", 1), revocation("s", 2)
    stored = Stored()
    for one in (second, first, same, first, second, same):
        stored.add(one)
    assert stored.in_order() == [first, same, second]
    assert stored.last_position == 2


async def test_a_revocation_made_while_cut_off_says_so_and_holds_everywhere_once_the_network_is_back(
    crew: Crew, partition: Partition
) -> None:
    a, b = crew.join(partition.url, timeout=0.3), crew.join()
    assert (await outcome(a.broker.request("who?"))).given
    partition.cut()
    appended = a.revoke("s")
    with pytest.raises(BrokerError):
        await outcome(appended.stored)
    assert (await outcome(appended.answers)).missing == (b.broker.worker.id,)
    assert "s" not in b.ears.revocations
    partition.heal()
    await b.knows("s")
    await await_for(lambda: "s" in a.ears.own, what="its true position")
    assert a.ears.revocations == b.ears.revocations


async def test_a_revocation_whose_confirmation_is_lost_is_stored_once(
    crew: Crew, redis: RedisServer, partition: Partition
) -> None:
    a, b = crew.join(partition.url, timeout=0.3), crew.join()
    partition.hold_answers()
    appended = a.revoke("s")
    await b.knows("s")  # it has arrived
    partition.cut()
    partition.heal()
    await await_for(lambda: "s" in a.ears.own)
    await a.stored("next")
    await b.knows("next")
    with contextlib.suppress(BrokerError):
        await outcome(appended.stored)
    assert b.ears.events == ["revoked s", "revoked next"]
    with redis.look() as client:
        assert client.zcard("dash-quart-ws:revocations") == 2


async def test_what_was_revoked_while_a_worker_was_cut_off_it_is_told_in_order_when_it_is_back(
    crew: Crew, partition: Partition
) -> None:
    a, b = crew.join(), crew.join(partition.url, timeout=0.3)
    partition.cut()
    subjects = [f"s{number}" for number in range(20)]
    for subject in subjects:
        await a.stored(subject)
    partition.heal()
    await b.knows(*subjects)
    assert b.ears.events == [f"revoked {subject}" for subject in subjects]


@pytest.mark.parametrize("length", [0, 3])
async def test_a_worker_that_finds_the_stream_trimmed_past_it_loads_everything_anew(
    crew: Crew, redis: RedisServer, partition: Partition, length: int
) -> None:
    a, b = crew.join(), crew.join(partition.url, timeout=0.3)
    await a.stored("before")
    await b.knows("before")
    partition.cut()
    subjects = [f"s{number}" for number in range(20)]
    for subject in subjects:
        await a.stored(subject)
    with redis.look() as client:
        client.xtrim("dash-quart-ws:stream", maxlen=length, approximate=False)
    partition.heal()
    await b.knows(*subjects)
    await a.stored("after")
    await b.knows("after")


@pytest.mark.parametrize("how", ["flushed", "killed"])
async def test_workers_give_back_what_the_store_has_lost(own_redis: RedisServer, own_crew: Crew, how: str) -> None:
    a, b = own_crew.join(lease=2), own_crew.join(lease=2)
    stored = [await a.stored(f"s{number}", Scope.USER) for number in range(5)]
    await b.knows(*(one.subject for one in stored))
    await asyncio.to_thread(b.broker.close)
    seen = await a.broker.position()
    if how == "flushed":
        own_redis.flush()
    else:
        own_redis.kill()
        own_redis.start()
    with own_redis.look() as client:
        await await_for(lambda: client.zcard("dash-quart-ws:revocations") == 5, what="all to be back")
    assert await a.broker.position() > seen
    assert a.broker.last_position > seen
    c = own_crew.join()
    assert c.ears.revocations == {one.subject: one for one in stored}
    assert (await c.stored("new", Scope.USER)).position > seen
    await a.knows("new")


async def test_a_worker_that_begins_right_after_the_store_was_lost_waits_for_those_who_know(
    own_redis: RedisServer, own_crew: Crew
) -> None:
    members = [own_crew.join(lease=100) for _ in range(3)]  # nobody would look for half a minute
    stored = [await members[0].stored(f"s{number}", Scope.USER) for number in range(3)]
    for member in members:
        await member.knows("s2")
    own_redis.flush()
    assert (await own_crew.join_later()).ears.revocations == {one.subject: one for one in stored}
    await await_for(lambda: members[0].broker.request("who?").result(10).given.keys() >= {
        member.broker.worker.id for member in members[1:]
    })  # fmt: skip


async def test_what_a_worker_knows_from_before_its_start_is_given_back_too(
    own_redis: RedisServer, own_crew: Crew
) -> None:
    a = own_crew.join(lease=2)
    stored = await a.stored("s")
    b = own_crew.join(lease=2)  # has loaded it, and was told nothing
    await asyncio.to_thread(a.broker.close)
    own_redis.flush()
    with own_redis.look() as client:
        await await_for(lambda: client.zcard("dash-quart-ws:revocations") == 1)
    assert own_crew.join().ears.revocations == {"s": stored}
    assert b.ears.revocations == {"s": stored}


async def test_after_a_failover_to_an_older_copy_nothing_that_was_confirmed_is_missing_and_positions_go_on(
    own_redis: RedisServer, own_crew: Crew
) -> None:
    with Partition(own_redis.port) as to_a, Partition(own_redis.port) as to_b:
        a, b = own_crew.join(to_a.url, timeout=0.3), own_crew.join(to_b.url, timeout=0.3)
        await a.stored("copied", Scope.USER)
        await b.knows("copied")
        with own_redis.look() as client:
            client.save()  # what the replica has
        to_b.cut()
        for number in range(5):
            await a.stored(f"lost {number}", Scope.USER)
        seen = await a.broker.position()  # a login that neither the replica nor the other worker know of
        to_a.cut()
        own_redis.kill()
        own_redis.start()
        to_b.heal()
        b.revoke("mallory", Scope.USER)  # whose login that was
        await await_for(lambda: "mallory" in b.ears.own)
        assert b.ears.revocations["mallory"].position > seen
        to_a.heal()
        await a.knows("mallory")
        await b.knows("lost 4")
        c = own_crew.join()
        await await_for(lambda: c.ears.revocations == a.ears.revocations == b.ears.revocations)
        assert len(c.ears.revocations) == 7


async def test_what_somebody_has_taken_out_of_the_store_comes_back_with_the_next_connection(
    crew: Crew, redis: RedisServer, partition: Partition
) -> None:
    a = crew.join(partition.url, timeout=0.3)
    stored = await a.stored("s")
    await await_for(lambda: a.ears.own)
    with redis.look() as client:
        client.delete("dash-quart-ws:revocations")
    partition.cut()
    partition.heal()
    await a.stored("next")
    assert crew.join().ears.revocations.get("s") == stored


async def test_more_revocations_than_can_wait_are_stored_as_well_once_there_is_a_connection(
    crew: Crew, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_outbox, "APPENDS_WAITING", 3)
    a, b = crew.join(partition.url, timeout=0.3), crew.join()
    partition.cut()
    await await_for(lambda: a.broker.publish(ALICE, "").exception(10), what="the cut to be noticed")
    futures = [a.revoke(f"s{number}").stored for number in range(20)]
    assert all([isinstance(await asyncio.to_thread(one.exception, 10), BrokerError) for one in futures])
    partition.heal()
    await b.knows(*(f"s{number}" for number in range(20)))


async def test_what_was_revoked_while_the_server_was_away_is_stored_by_the_one_that_comes(
    own_redis: RedisServer, own_crew: Crew
) -> None:
    a, b = own_crew.join(timeout=0.3), own_crew.join(timeout=0.3)
    own_redis.stop()
    appended = a.revoke("s")
    with pytest.raises(BrokerError):
        await outcome(appended.stored)
    own_redis.start()
    await b.knows("s")
    await await_for(lambda: a.ears.revocations["s"] == b.ears.revocations["s"])
    assert b.ears.events == ["revoked s"]
    with own_redis.look() as client:
        assert client.zcard("dash-quart-ws:revocations") == 1


async def test_a_revocation_that_is_refused_for_want_of_memory_is_an_error_and_is_tried_again(
    own_redis: RedisServer, own_crew: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = own_crew.join(), own_crew.join()
    await a.stored("before")  # and so has heard of the other one
    with own_redis.look() as client:
        client.config_set("maxmemory", 1)
        appended = a.revoke("s")
        with pytest.raises(BrokerError, match="memory"):
            await outcome(appended.stored)
        assert (await outcome(appended.answers)).missing == (b.broker.worker.id,)
        assert client.zcard("dash-quart-ws:revocations") == 1
        assert [one.levelname for one in caplog.records] == ["ERROR"]
        assert a.broker.worker.id in {worker.decode() for worker in client.zrange("dash-quart-ws:alive", 0, -1)}
        client.config_set("maxmemory", 0)
    await b.knows("s")
    assert (await a.stored("next")).position > b.ears.revocations["s"].position


async def test_a_server_that_may_forget_is_warned_of_at_start(
    own_redis: RedisServer, own_crew: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    with own_redis.look() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        own_crew.join()  # there is no limit
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 100_000_000)
        own_crew.join()
        assert not caplog.records
        client.config_set("maxmemory-policy", "allkeys-lru")
        own_crew.join()
    assert ["allkeys-lru" in one.message and "noeviction" in one.message for one in caplog.records] == [True]


async def test_what_has_long_expired_leaves_the_store(crew: Crew, redis: RedisServer) -> None:
    a = crew.join()
    now = time.time()
    await a.stored("long ago", expires=now - 2 * 24 * 3600)
    await a.stored("a moment ago", expires=now - 1)  # another worker's clock may differ
    await a.stored("valid", expires=now + 60)
    with redis.look() as client:
        names = b"".join(client.zrange("dash-quart-ws:revocations", 0, -1))
    assert b"long ago" not in names
    assert b"a moment ago" in names
    assert list(crew.join().ears.revocations) == ["valid"]


async def test_a_position_that_one_worker_has_proof_of_is_behind_the_next_revocation_of_every_other(
    crew: Crew, redis: RedisServer
) -> None:
    a, b = crew.join(), crew.join()
    proven = a.broker.last_position + 10**6
    a.broker.observe(proven)  # a token from before Redis came
    with redis.look() as client:
        await await_for(lambda: int(client.hget("dash-quart-ws:state", "position")) == proven)
    assert (await b.stored("s", Scope.USER)).position > proven
    assert await b.broker.position() > proven


# --------------------------------------------------------------------------------------------------- the lease


async def test_the_lease_goes_on_while_the_server_answers_and_nothing_happens(crew: Crew) -> None:
    a = crew.join(lease=SHORT)
    until = a.broker.lease_until
    await await_for(lambda: a.broker.clock() > until + SHORT)
    assert a.is_fresh
    assert a.ears.events == []


async def test_a_worker_whose_server_is_frozen_loses_its_lease_and_regains_it_when_it_has_caught_up(
    own_redis: RedisServer, own_crew: Crew
) -> None:
    a = own_crew.join(lease=SHORT, timeout=0.3)
    with Partition(own_redis.port) as partition:
        b = own_crew.join(partition.url, timeout=0.3)
        partition.cut()
        own_redis.freeze()
        await await_for(lambda: "lost" in a.ears.events)
        assert not a.is_fresh
        own_redis.thaw()
        await await_for(lambda: a.is_fresh)
        await await_for(lambda: a.ears.events == ["lost", "regained"])
        assert not b.ears.events


async def test_what_was_missed_is_told_before_the_lease_is_regained(
    crew: Crew, partition: Partition, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = crew.join(partition.url, lease=SHORT, timeout=0.3), crew.join()
    partition.hold()
    await await_for(lambda: "lost" in a.ears.events)
    await b.stored("s")
    assert not a.is_fresh
    partition.heal()
    await await_for(lambda: "regained" in a.ears.events)
    assert a.ears.events == ["lost", "revoked s", "regained"]
    assert a.is_fresh
    about_the_loss = [one.message for one in caplog.records if "lost" in one.message or "back" in one.message]
    assert ["is lost" in one for one in about_the_loss] == [True, False]


async def test_an_answer_that_was_long_under_way_proves_nothing_about_now(crew: Crew, partition: Partition) -> None:
    a, b = crew.join(partition.url, lease=SHORT, timeout=30), crew.join()
    partition.hold_answers()
    until = a.broker.clock() + 2 * SHORT  # the last question is older than a lease
    await await_for(lambda: a.broker.clock() > until)
    await b.stored("s")  # after the server has said that there was nothing
    partition.heal()
    await await_for(lambda: "regained" in a.ears.events)
    assert a.ears.events == ["lost", "revoked s", "regained"]


async def test_an_outage_within_the_lease_is_noticed_by_nobody(own_redis: RedisServer, own_crew: Crew) -> None:
    a = own_crew.join(lease=30)
    own_redis.stop()
    own_redis.start("--save", "")
    await a.stored("s")
    assert a.is_fresh
    await await_for(lambda: a.ears.events)
    assert a.ears.events == ["revoked s"]


async def test_a_busy_event_loop_does_not_take_what_it_has_not_been_told_for_known(crew: Crew) -> None:
    a, b = crew.join(lease=SHORT), crew.join()
    b.revoke("s").stored.result(10)
    until = a.broker.lease_until
    time.sleep(2 * SHORT)
    assert a.broker.lease_until == until
    assert not a.is_fresh
    await a.knows("s")
    await await_for(lambda: a.is_fresh)


# ------------------------------------------------------------------------------------------------- the workers


WORKER = """
import asyncio, sys
from tests.brokers.crew import Member

async def main():
    member = Member(sys.argv[1], lease=float(sys.argv[2])).begin()
    for connection in ("c1", "c2"):
        member.broker.enter(connection, {"user": "alice", "at": connection})
    await member.broker.position()
    print(member.broker.worker.id, flush=True)
    while True:
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            break
        print("fresh" if member.is_fresh else "stale", *member.ears.events, sep=",", flush=True)

asyncio.run(main())
"""


class Process:
    """A worker in a process of its own, with two connections."""

    def __init__(self, url: str, lease: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(lease)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.id = self.read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def write(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture
async def process(redis: RedisServer) -> AsyncIterator[Process]:
    process = await asyncio.to_thread(Process, redis.url, SHORT)
    yield process
    process.end()


async def test_exactly_one_worker_is_told_when_another_one_has_died_and_what_went_with_it(
    crew: Crew, process: Process
) -> None:
    members = [crew.join(lease=SHORT) for _ in range(3)]
    assert len(await members[0].broker.connections()) == 2
    process.end()
    await await_for(lambda: any(member.ears.dead for member in members))
    (told,) = [one for member in members for one in member.ears.dead]
    worker, connections = told
    assert (worker.id, worker.pid) == (process.id, process.pid)
    assert {one.connection: one.facts for one in connections} == {
        "c1": {"user": "alice", "at": "c1"}, "c2": {"user": "alice", "at": "c2"}
    }  # fmt: skip
    assert await members[0].broker.connections() == []
    question = await outcome(members[0].broker.request("who is there?"))
    assert (len(question.given), question.missing) == (2, ())
    await members[0].stored("s")  # each has beaten again meanwhile
    await members[1].knows("s")
    assert sum(len(member.ears.dead) for member in members) == 1


def test_a_dead_workers_connections_are_given_away_once_and_a_living_ones_never(redis: RedisServer) -> None:
    with redis.look() as client:
        now = client.time()[0]
        client.zadd("dash-quart-ws:alive", {"dead": now - 11, "alive": now - 9})
        client.hset("dash-quart-ws:workers", mapping={"dead": "facts", "alive": "facts"})
        client.hset("dash-quart-ws:here:dead", "c", "{}")
        claim = client.register_script(redis_scripts.CLAIM)
        keys = [f"dash-quart-ws:{name}" for name in ("alive", "workers", "dead", "here:dead")]
        assert claim(keys=[*keys[:3], "dash-quart-ws:here:alive"], args=["alive", 10]) is None
        assert claim(keys=keys, args=["dead", 10]) == [b"facts", [b"c", b"{}"]]
        assert claim(keys=keys, args=["dead", 10]) is None
        assert client.zscore("dash-quart-ws:dead", "dead") >= now


async def test_the_next_worker_that_begins_is_told_when_nobody_was_left(crew: Crew, process: Process) -> None:
    process.end()
    later = crew.join(lease=SHORT)
    await await_for(lambda: later.ears.dead)
    assert [(worker.id, len(here)) for worker, here in later.ears.dead] == [(process.id, 2)]


async def test_a_worker_that_does_not_answer_is_missing_until_it_is_dead(crew: Crew, process: Process) -> None:
    a = crew.join(lease=SHORT, answer_timeout=0.3)
    process.signal(signal.SIGSTOP)
    assert (await outcome(a.revoke("s").answers)).missing == (process.id,)
    await await_for(lambda: a.ears.dead)
    assert (await outcome(a.revoke("t").answers)).missing == ()
    process.signal(signal.SIGCONT)


async def test_a_worker_that_was_suspended_trusts_nothing_that_it_knows_and_learns_that_it_was_taken_for_dead(
    crew: Crew, process: Process
) -> None:
    a = crew.join(lease=SHORT)
    process.signal(signal.SIGSTOP)
    await await_for(lambda: a.ears.dead)
    await a.stored("meanwhile")
    process.write()
    process.signal(signal.SIGCONT)

    def said() -> list[str]:
        answers = [process.read()]
        while "declared dead" not in answers[-1] or not answers[-1].startswith("fresh"):
            process.write()
            answers.append(process.read())
        return answers

    answers = await asyncio.wait_for(asyncio.to_thread(said), 30)
    for answer in answers:
        if answer.startswith("fresh"):
            assert "revoked meanwhile" in answer
    assert await await_for(lambda: a.broker.request("who?").result(10).given), "it is a worker again"
    assert process.id not in (await outcome(a.broker.request("who?"))).given
    assert await a.broker.connections() == []  # what it had was taken for gone
    assert len(a.ears.dead) == 1


async def test_a_worker_that_goes_is_no_dead_one(crew: Crew) -> None:
    a, b = crew.join(lease=SHORT), crew.join(lease=SHORT)
    b.broker.enter("c", {})
    await b.broker.position()
    assert [one.connection for one in await a.broker.connections()] == ["c"]
    await asyncio.to_thread(b.broker.close)
    assert await a.broker.connections() == []
    assert await outcome(a.broker.request("who?")) == Answers({})
    assert a.ears.dead == []


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_who_is_here_is_told_again_when_the_store_has_lost_it(
    own_redis: RedisServer, own_crew: Crew, how: str
) -> None:
    a, b = own_crew.join(lease=2), own_crew.join(lease=2)
    for number in range(1500):
        b.broker.enter(f"c{number}", {"number": number})
    await b.broker.position()
    b.broker.leave("c0")
    if how == "flush":
        own_redis.flush()
    else:
        own_redis.kill()
        own_redis.start()

    async def listed() -> int:
        with contextlib.suppress(BrokerError):
            return len(await a.broker.connections())
        return 0

    async with asyncio.timeout(30):
        while await listed() != 1499:
            await asyncio.sleep(0.02)
    assert not a.ears.dead
    assert not b.ears.dead


# ---------------------------------------------------------------------------------------------------- pushes


@pytest.mark.parametrize("name", ["alice", "", "with space and é", "\ud800", "a:b*?[c]", "x\r\ny"])
async def test_a_push_reaches_the_workers_that_have_subscribed_to_its_target_and_no_other(
    crew: Crew, name: str
) -> None:
    a, b, c = crew.join(), crew.join(), crew.join()
    targets = [Target(kind, name) for kind in TargetKind]
    for target in targets:
        await outcome(b.broker.subscribe(target))
    await outcome(c.broker.subscribe(Target(TargetKind.USER, name + "2")))
    for target in targets:
        await outcome(a.broker.publish(target, f'{{"to": "{target.kind}"}}'))
    await outcome(a.broker.publish(Target(TargetKind.USER, name + "2"), "2"))
    await await_for(lambda: len(b.ears.pushes) == len(targets) and c.ears.pushes)
    assert b.ears.pushes == [(target, f'{{"to": "{target.kind}"}}') for target in targets]
    assert c.ears.pushes == [(Target(TargetKind.USER, name + "2"), "2")]
    assert a.ears.pushes == []


async def test_pushes_of_one_sender_arrive_in_order_whatever_their_targets_and_threads(crew: Crew) -> None:
    a, b = crew.join(), crew.join()
    targets = [Target(TargetKind.TOPIC, f"t{number}") for number in range(7)]
    for target in targets:
        await outcome(b.broker.subscribe(target))

    def publish() -> None:
        for number in range(3000):
            a.broker.publish(targets[number % 7], str(number))

    await asyncio.to_thread(publish)
    await await_for(lambda: len(b.ears.pushes) == 3000)
    assert [int(message) for _, message in b.ears.pushes] == list(range(3000))


async def test_a_target_is_heard_until_as_many_have_left_it_as_have_come(crew: Crew, redis: RedisServer) -> None:
    a, b = crew.join(), crew.join()
    for _ in range(2):
        await outcome(b.broker.subscribe(ALICE))
    b.broker.unsubscribe(ALICE)
    await outcome(a.broker.publish(ALICE, "1"))
    await await_for(lambda: b.ears.pushes)
    b.broker.unsubscribe(ALICE)
    b.broker.unsubscribe(ALICE)  # once too often
    channel = "dash-quart-ws:0:to:user:alice"
    with redis.look() as client:
        await await_for(lambda: client.pubsub_numsub(channel) == [(channel.encode(), 0)])
    await outcome(b.broker.subscribe(ALICE))
    await outcome(a.broker.publish(ALICE, "2"))
    await await_for(lambda: len(b.ears.pushes) == 2)


async def test_what_was_subscribed_to_is_heard_again_after_an_outage(crew: Crew, partition: Partition) -> None:
    a, b = crew.join(), crew.join(partition.url, timeout=0.3)
    await outcome(b.broker.subscribe(ALICE))
    partition.cut()
    bob = Target(TargetKind.USER, "bob")
    await await_for(lambda: b.broker.publish(bob, "").exception(10), what="the cut to be noticed")
    with pytest.raises(BrokerError):
        await outcome(b.broker.subscribe(bob))
    partition.heal()
    await await_for(lambda: b.broker.publish(bob, "").exception(10) is None, what="the connection")
    for target in (ALICE, bob):
        await await_for(
            lambda target=target: a.broker.publish(target, "") and any(to == target for to, _ in b.ears.pushes)
        )


async def test_a_push_that_cannot_be_sent_fails_at_once_and_is_not_sent_later(crew: Crew, partition: Partition) -> None:
    a, b = crew.join(partition.url, timeout=0.3), crew.join()
    await outcome(b.broker.subscribe(ALICE))
    partition.cut()
    await await_for(lambda: a.broker.publish(ALICE, "late").exception(10))
    partition.heal()
    await await_for(lambda: a.broker.publish(ALICE, "now").exception(10) is None)
    await await_for(lambda: b.ears.pushes)
    assert {message for _, message in b.ears.pushes} == {"now"}


async def test_another_database_and_another_prefix_are_other_worlds(redis: RedisServer) -> None:
    base = redis.url.removesuffix("/0")
    crew = Crew(redis.url)
    try:
        a, other_database, other_prefix = crew.join(), crew.join(f"{base}/1"), crew.join(f"{base}/0?prefix=other")
        same = crew.join(f"{base}?prefix=dash-quart-ws")
        for member in (other_database, other_prefix, same):
            await outcome(member.broker.subscribe(ALICE))
        await outcome(a.broker.publish(ALICE, "1"))
        await a.stored("s")
        await same.knows("s")
        await await_for(lambda: same.ears.pushes)
        for member in (other_database, other_prefix):
            await outcome(member.broker.subscribe(ALICE))
            await member.broker.position()
            assert (member.ears.pushes, member.ears.revocations) == ([], {})
            assert await outcome(member.broker.request("who?")) == Answers({})
    finally:
        await crew.end()


# ------------------------------------------------------------------------------------------------------- signed


async def test_with_a_key_only_what_was_signed_with_it_for_this_channel_and_once_is_taken(
    crew: Crew, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = crew.join(key="key"), crew.join(key="key")
    bob = Target(TargetKind.USER, "bob")
    for target in (ALICE, bob):
        await outcome(b.broker.subscribe(target))
    channel = "dash-quart-ws:0:to:user:alice"
    with redis.look() as client:
        spy = client.pubsub()
        spy.subscribe(channel)
        await outcome(a.broker.publish(ALICE, "true"))
        await await_for(lambda: (message := spy.get_message(timeout=1)) and message["type"] == "message" and message)
        await outcome(a.broker.publish(ALICE, "true too"))
        message = await await_for(lambda: spy.get_message(timeout=1))
        spy.close()
        told = message["data"]
        client.publish(channel, told)  # once more
        client.publish("dash-quart-ws:0:to:user:bob", told)  # to somebody else
        client.publish(channel, told.replace(b"too", b"not"))
        client.publish(channel, b"somebody 1 - false")
        client.publish(channel, b"nonsense")
        client.publish(channel, b"")
    stranger = RedisBroker(redis.url, key="another key")
    stranger.load()
    stranger.publish(ALICE, "false").result(10)
    stranger.close()
    await outcome(a.broker.publish(ALICE, "the end"))
    await await_for(lambda: b.ears.pushes and b.ears.pushes[-1][1] == "the end")
    assert b.ears.pushes == [(ALICE, "true"), (ALICE, "true too"), (ALICE, "the end")]
    assert sum("was left out" in one.message for one in caplog.records) == 1


async def test_what_is_kept_for_a_moment_is_taken_by_any_worker_if_it_was_signed_with_the_key_for_that_name(
    redis_server: RedisServer,
) -> None:
    one, other, stranger = (RedisBroker(redis_server.url, key=key) for key in ("k", "k", "another key"))
    try:
        for broker in (one, other, stranger):
            broker.load()
        await asyncio.wrap_future(one.keep("mine", "text", 30))
        assert await other.take("mine") == "text"
        assert await one.take("mine") is None
        await asyncio.wrap_future(stranger.keep("theirs", "text", 30))
        with pytest.raises(BrokerError, match="broker_key"):
            await one.take("theirs")
        await asyncio.wrap_future(one.keep("mine", "text", 30))
        with redis_server.look() as client:
            client.rename("dash-quart-ws:kept:mine", "dash-quart-ws:kept:moved")
        with pytest.raises(BrokerError, match="broker_key"):
            await one.take("moved")
    finally:
        for broker in (one, other, stranger):
            await asyncio.to_thread(broker.close)


async def test_what_is_to_be_kept_or_taken_for_a_moment_fails_while_redis_is_away(redis_server: RedisServer) -> None:
    broker = RedisBroker(redis_server.url, timeout=0.5)
    broker.load()
    try:
        redis_server.stop()
        with pytest.raises(BrokerError):
            await asyncio.wrap_future(broker.keep("name", "text", 30))
        with pytest.raises(BrokerError):
            await broker.take("name")
    finally:
        await asyncio.to_thread(broker.close)
        redis_server.start()


async def test_revocations_and_records_that_are_signed_with_another_key_are_not_believed(
    crew: Crew, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = crew.join(key="key"), crew.join(key="key")
    await outcome(a.broker.record(record("true")))
    stranger = crew.join()
    await outcome(stranger.broker.record(record("false")))
    await stranger.stored("false")
    await a.stored("true")
    await b.knows("true")
    assert list(b.ears.revocations) == ["true"]
    assert "false" not in a.ears.revocations
    assert set(by_id(a.broker.records())) == {"true"}
    assert any("was left out" in one.message for one in caplog.records)
    with pytest.raises(ConfigurationError, match="broker_key"):
        RedisBroker(redis.url, key="key").load()


# ------------------------------------------------------------------------------------------------ known sessions


async def test_the_others_are_told_of_sessions_as_they_were_last_seen(crew: Crew) -> None:
    a, b = crew.join(), crew.join()
    said = [record(f"s{number}", user="\ud800", users=("\ud800", "b"), seen=10**13) for number in range(500)]
    for one in said:
        a.broker.record(one)
    a.broker.record(SessionRecord.over("s7"))
    await await_for(lambda: len(b.ears.records) >= 501)
    assert b.ears.records == [*said, SessionRecord.over("s7")]
    assert a.ears.records == []
    found = by_id(b.broker.records())
    assert found == by_id([one for one in said if one.id != "s7"])


async def test_records_that_cannot_be_read_are_passed_over_and_said_once(
    crew: Crew, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    a = crew.join()
    await outcome(a.broker.record(record("good")))
    with redis.look() as client:
        for number, text in enumerate(("no JSON", "{}", "[]", "null", '{"id": "x", "users": 5, "since": "soon"}')):
            client.hset("dash-quart-ws:sessions", f"bad {number}", f"- {text}")
    assert a.broker.records() == [record("good")]
    assert len(caplog.records) == 1


async def test_what_has_expired_of_the_sessions_leaves_the_store(crew: Crew, redis: RedisServer) -> None:
    a = crew.join()
    await outcome(a.broker.record(record("brief", expires=time.time() + 0.3)))
    await outcome(a.broker.record(record("long", expires=NEVER)))
    with redis.look() as client:
        await await_for(
            lambda: a.broker.record(record("long")).result(10) or client.hlen("dash-quart-ws:sessions") == 1
        )
        assert client.zcard("dash-quart-ws:sessions-expire") == 1


# ------------------------------------------------------------------------------------------- beginning and end


async def test_a_prefix_belongs_to_one_secret_and_those_that_came_before_it(redis: RedisServer, crew: Crew) -> None:
    crew.join(secrets=lambda: ["old"])
    with pytest.raises(ConfigurationError, match="prefix"):
        RedisBroker(redis.url, secrets=lambda: ["another"]).load()
    crew.join(secrets=lambda: ["new", "old"])
    crew.join(secrets=lambda: ["new"])
    crew.join(redis.url + "?prefix=another", secrets=lambda: ["another"])
    with redis.look() as client:
        stored = b"".join(client.smembers("dash-quart-ws:claims"))
    assert b"new" not in stored


async def test_a_broker_that_cannot_be_reached_is_an_error_within_bounds_and_can_be_loaded_later(
    tmp_path: Path, unused_port: int
) -> None:
    broker = RedisBroker(f"redis://:secret@127.0.0.1:{unused_port}", timeout=0.2)
    with pytest.raises(BrokerError) as raised:
        await asyncio.to_thread(broker.load)
    assert "secret" not in str(raised.value)
    assert str(unused_port) in str(raised.value)
    server = RedisServer(tmp_path)
    server.port = unused_port
    server.start("--requirepass", "secret")
    try:
        assert broker.load() == []
        broker.close()
    finally:
        server.kill()


@pytest.fixture
def unused_port(tmp_path: Path) -> int:
    return RedisServer(tmp_path).port


async def test_a_user_and_a_password_are_used_and_said_nowhere(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with own_redis.look() as client:
        client.acl_setuser(
            "app", enabled=True, passwords=["+pass word/:@"], keys=["dash-quart-ws:*"], channels=["dash-quart-ws:*"],
            commands=["+@connection", "+@scripting", "+@pubsub", "+info", "+time", *(f"+{name}" for name in COMMANDS)],
        )  # fmt: skip
        client.config_set("requirepass", "other")
    crew = Crew(f"redis://app:pass%20word%2F%3A%40@127.0.0.1:{own_redis.port}/0")
    try:
        a, b = crew.join(lease=SHORT), crew.join(lease=SHORT)
        await outcome(b.broker.subscribe(ALICE))
        await outcome(a.broker.publish(ALICE, "1"))
        await a.stored("s")
        await b.knows("s")
        await outcome(a.broker.record(record("s")))
        assert a.broker.records()
        a.broker.enter("c", {})
        await a.broker.position()
        assert await b.broker.connections()
        assert (await outcome(a.broker.request("?"))).given
        own_redis.stop()
        await await_for(lambda: "is lost" in caplog.text)
    finally:
        await crew.end()
    with pytest.raises(BrokerError) as raised:
        RedisBroker(f"redis://app:wrong@127.0.0.1:{own_redis.port}/0", timeout=0.1).load()
    own_redis.start("--requirepass", "right")
    with pytest.raises(ConfigurationError, match="password") as refused:
        RedisBroker(f"redis://:wrong@127.0.0.1:{own_redis.port}/0").load()
    for text in (caplog.text, str(raised.value), str(refused.value), repr(refused.value.__cause__)):
        assert "pass word" not in text
        assert "pass%20word" not in text
        assert "wrong" not in text


COMMANDS = (
    "hget", "hgetall", "hset", "hdel", "hmget", "hscan", "zadd", "zrem", "zrange", "zrangebyscore", "zremrangebyscore",
    "zcard", "zscore", "zscan", "xadd", "xread", "sadd", "smembers", "sismember", "get", "set", "del", "expire",
)  # fmt: skip


async def test_a_user_that_may_not_do_what_is_needed_is_an_error_that_says_so(own_redis: RedisServer) -> None:
    with own_redis.look() as client:
        client.acl_setuser("app", enabled=True, passwords=["+p"], keys=["*"], commands=["+@connection"])
    with pytest.raises(ConfigurationError, match="may not do what is needed"):
        RedisBroker(f"redis://app:p@127.0.0.1:{own_redis.port}/0").load()


async def test_tls_is_spoken_with_a_server_whose_certificate_is_trusted_and_with_no_other(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    server, tls_port = RedisServer(tmp_path), RedisServer(tmp_path).port
    server.start(
        "--tls-port", str(tls_port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        "--tls-auth-clients", "no",
    )  # fmt: skip
    crew = Crew(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}")
    try:
        a, b = crew.join(), crew.join()
        await a.stored("s")
        await b.knows("s")
        with pytest.raises(BrokerError, match=r"(?i)certificate"):
            RedisBroker(f"rediss://127.0.0.1:{tls_port}/0").load()
    finally:
        await crew.end()
        server.kill()


async def test_closing_leaves_no_thread_no_connection_and_nothing_that_waits(redis: RedisServer) -> None:
    with redis.look() as client:
        connections = len(client.client_list())
        broker = RedisBroker(redis.url)
        broker.load()
        assert len(client.client_list()) == connections + 3
        futures = [broker.subscribe(ALICE), broker.record(record()), broker.publish(ALICE, "1")]
        futures += [*broker.append(revocation()), broker.request({})]
        broker.close()
        assert all(future.done() for future in futures)
        await await_for(lambda: len(client.client_list()) == connections)
        assert not client.exists(
            "dash-quart-ws:alive", "dash-quart-ws:workers", f"dash-quart-ws:here:{broker.worker.id}"
        )
    assert not [thread for thread in threading.enumerate() if "dash-quart-ws" in thread.name]


async def test_closing_is_done_in_time_also_when_the_server_is_frozen(own_redis: RedisServer) -> None:
    broker = RedisBroker(own_redis.url, timeout=0.3)
    broker.load()
    own_redis.freeze()
    appended = broker.append(revocation())
    await asyncio.wait_for(asyncio.to_thread(broker.close), 30)
    assert isinstance(appended.stored.exception(0), BrokerError)
    assert appended.answers.done()


async def test_from_outside_one_can_revoke_push_and_ask_without_being_taken_for_a_worker(
    crew: Crew, redis: RedisServer
) -> None:
    a, b = crew.join(lease=SHORT), crew.join(lease=SHORT)
    await outcome(a.broker.subscribe(ALICE))
    b.ears.answer = {"closed": 1}
    before = await a.stored("before")
    outside = crew.join(serves=False, lease=SHORT)
    assert outside.ears.revocations == {}
    with redis.look() as client:
        assert client.pubsub_numsub("dash-quart-ws:0:requests") == [(b"dash-quart-ws:0:requests", 2)]
    await outcome(outside.broker.publish(ALICE, "1"))
    await await_for(lambda: a.ears.pushes)
    appended = outside.revoke("s", Scope.USER)
    assert (await outcome(appended.stored)).position > before.position
    workers = {a.broker.worker.id, b.broker.worker.id}
    answers = await outcome(appended.answers)
    assert (set(answers.given), answers.missing) == (workers, ())
    assert {one.connection for one in await outside.broker.connections()} == set()
    answers = await outcome(outside.broker.request("who?"))
    assert (set(answers.given), answers.missing) == (workers, ())
    assert (await outcome(a.broker.request("who?"))).given.keys() == {b.broker.worker.id}
    until = a.broker.lease_until + 2 * SHORT
    await await_for(lambda: a.broker.lease_until > until)
    assert outside.ears.events == []
    assert not any(member.ears.dead for member in (a, b))
    redis.flush()
    await await_for(lambda: a.ears.revocations.keys() <= stored_subjects(redis))
    await outcome(outside.broker.append(revocation("t")).stored)
    await a.knows("t")


async def test_a_question_that_is_lost_on_its_way_names_who_is_missing_and_stops_nothing(
    own_crew: Crew, own_redis: RedisServer
) -> None:
    a, b = own_crew.join(timeout=0.3), own_crew.join()
    assert (await outcome(a.broker.request("who?"))).given
    own_redis.freeze()
    answers = await outcome(a.broker.request("who?"))
    assert answers == Answers({}, (b.broker.worker.id,))
    own_redis.thaw()
    await a.stored("s")
    await b.knows("s")


async def test_from_outside_one_is_told_what_could_not_be_asked(own_crew: Crew, own_redis: RedisServer) -> None:
    own_crew.join()
    outside = own_crew.join(serves=False, timeout=0.3)
    assert (await outcome(outside.broker.request("who?"))).given
    own_redis.freeze()
    for ask in (lambda: outside.broker.request("who?"), outside.broker.ask_records, outside.broker.ask_connections):
        with pytest.raises(BrokerError):
            await outcome(ask())
    own_redis.thaw()
    outside.broker.close()
    for ask in (outside.broker.ask_records, outside.broker.ask_connections):
        with pytest.raises(BrokerError, match="closed"):
            await outcome(ask())


@pytest.mark.parametrize("kept", ["a revocation", "a record"])
async def test_from_outside_nothing_is_written_that_the_workers_cannot_read(
    crew: Crew, redis: RedisServer, kept: str
) -> None:
    a = crew.join(key="theirs")
    if kept == "a revocation":
        await a.stored("s")
    else:
        await outcome(a.broker.record(record("s")))
    for key in (None, "another"):
        outside = RedisBroker(redis.url, key=key, serves=False)
        with pytest.raises(ConfigurationError, match="broker_key"):
            await asyncio.to_thread(outside.load)
    outside = crew.join(key="theirs", serves=False).broker
    await outcome(outside.append(revocation("t")).stored)
    await a.knows("t")


def stored_subjects(redis: RedisServer) -> set[str]:
    """The subjects of what is stored."""
    with redis.look() as client:
        entries = client.zrange("dash-quart-ws:revocations", 0, -1)
    return {json.loads(entry.split(b" ", 2)[2])[1] for entry in entries}


def test_nobody_gets_to_hear_of_a_listener_that_fails(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        crew = Crew(redis.url)
        a, b = crew.join(answer_timeout=0.3), crew.join()
        b.ears.take = _fails  # type: ignore[method-assign]
        appended = a.revoke("s")
        assert (await outcome(appended.answers)).missing == (b.broker.worker.id,)
        del b.ears.take  # type: ignore[misc]
        await a.stored("t")
        await b.knows("t")
        await crew.end()

    asyncio.run(main())
    assert any(one.exc_info for one in caplog.records)


def _fails(_revocations: Any) -> None:
    raise LookupError("the listener's own")


# ------------------------------------------------------------------------------------------------------ claims


async def test_of_many_workers_one_has_what_all_of_them_claim(crew: Crew) -> None:
    workers = [crew.join() for _ in range(3)]
    claims = [member.broker.claim(name) for name in ("a", "b") for member in workers]
    told = [await outcome(claim) for claim in claims]
    assert (sum(told[:3]), sum(told[3:])) == (1, 1)


async def test_a_claim_whose_answer_was_lost_is_still_its_makers(own_redis: RedisServer) -> None:
    with Partition(own_redis.port) as network:
        crew = Crew(network.url)
        one = crew.join()
        try:
            assert await outcome(one.broker.claim("another"))  # so that nothing waits for an answer
            network.hold_answers()
            claim = one.broker.claim("it")
            with own_redis.look() as store:
                await await_for(lambda: store.keys("*claim:it"), what="the claim to arrive")
            network.cut()
            network.heal()
            assert await outcome(claim) is True
            assert await outcome(one.broker.claim("it")) is False
        finally:
            await crew.end()


@pytest.mark.parametrize("how", ["hold", "hold_answers"])
async def test_a_claim_that_was_given_up_and_has_arrived_is_its_makers_when_it_asks_again(
    redis: RedisServer, crew: Crew, partition: Partition, how: str
) -> None:
    one, other = crew.join(partition.url, timeout=1.0), crew.join()
    getattr(partition, how)()
    with pytest.raises(BrokerError):
        await outcome(one.broker.claim("it"))
    partition.heal()
    with redis.look() as store:
        await await_for(lambda: store.keys("*claim:it"), what="the claim to arrive")
    assert await outcome(other.broker.claim("it")) is False
    await await_for(lambda: one.is_fresh)
    assert await claimed(one, "it") is True
    assert await outcome(one.broker.claim("it")) is False


async def claimed(member: Member, name: str) -> bool:
    """As a worker does: it asks until there is an answer."""
    while True:
        with contextlib.suppress(BrokerError):
            return bool(await outcome(member.broker.claim(name)))


# ------------------------------------------------------------------------------------------------------- processes

FORKING = """
import os, sys
from dash_quart_ws.brokers.redis import RedisBroker

broker = RedisBroker(sys.argv[1])
read, write = os.pipe()
if os.fork() == 0:
    broker.load()
    os.write(write, broker.worker.id.encode())
    broker.close()
    os._exit(0)
os.wait()
broker.load()
print(os.read(read, 1000).decode(), broker.worker.id)
broker.close()
"""


def test_workers_that_were_forked_after_the_app_was_imported_are_not_one_and_the_same(redis: RedisServer) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, redis.url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    child, parent = ran.stdout.split()
    assert child != parent


async def test_a_worker_that_has_lost_the_others_trusts_itself_when_it_is_known_to_be_counted_among_them(
    crew: Crew,
) -> None:
    """A process that was suspended may hear that nothing was revoked before it hears that it was declared dead."""
    member = crew.join(lease=600.0)  # neither of its probes comes by itself
    broker = member.broker

    def wake_up() -> None:
        broker._proven_until = broker._lease_until = 0.0
        broker._prove(broker.clock())

    assert broker._tell(wake_up)
    await await_for(lambda: member.ears.events == ["lost"])
    assert not member.is_fresh

    def be_counted() -> None:
        broker._heard(([], []))
        broker._prove(broker.clock())

    assert broker._tell(be_counted)
    await await_for(lambda: member.ears.events == ["lost", "regained"])
    assert member.is_fresh
