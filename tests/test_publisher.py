"""From outside the web processes: what a script, a task or a REPL does to the workers, through a real redis-server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import json
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from dash import Dash, Patch, html

from dash_quart_ws import BrokerError, ConfigurationError, KnownConnection, Publisher, QuartBackend, Receipt, Session
from dash_quart_ws.brokers.base import Ending, Scope, SessionRecord, Target, TargetKind
from dash_quart_ws.brokers.messages import Close, Closed, Push
from dash_quart_ws.wire.close import CloseCode

from .brokers.crew import Crew, Member, outcome
from .brokers.redis_server import RedisServer
from .server import ROOT, await_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

ALICE = Target(TargetKind.USER, "alice")
DAY = 24 * 3600.0
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(shared: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    shared.flush()
    monkeypatch.setenv("DASH_QUART_WS_BROKER", shared.url)
    return shared


@pytest.fixture
async def crew(redis: RedisServer) -> AsyncIterator[Crew]:
    crew = Crew(redis.url)
    yield crew
    await crew.end()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def in_script(script: Callable[[Publisher], Any], **options: Any) -> Any:
    """What a function gives that is written as for a script: where it runs there is no event loop."""

    def run() -> Any:
        with Publisher(**options) as publisher:
            return script(publisher)

    return await asyncio.to_thread(run)


async def hearing(member: Member, target: Target) -> Member:
    await outcome(member.broker.subscribe(target))
    return member


def closing(member: Member, connections: int, slowest_ms: float = 1.0) -> Member:
    """The worker answers that it has closed so many."""
    member.ears.answer = Closed(connections, slowest_ms).json()
    return member


def record(id: str, user: str, last_seen: float, **fields: Any) -> SessionRecord:
    of_user: dict[str, Any] = {"users": (user,), "remote": "192.0.2.1", "user_agent": "Firefox", **fields}
    return SessionRecord(id, user, 1000.0, time.time() + DAY, last_seen, **of_user)


def facts(user: str | None, session: str | None, since: float) -> dict[str, Any]:
    told: dict[str, Any] = {"user": user, "session": session, "remote": "192.0.2.1", "since": since, "path": "/ws"}
    if session is not None:
        told |= {"login": since, "expires": since + DAY, "users": [user], "seen": 1}
    return told


# ----------------------------------------------------------------------------------------------------------- push


async def test_a_push_of_a_script_reaches_the_workers_that_have_such_connections(crew: Crew) -> None:
    a, b = await hearing(crew.join(), ALICE), await hearing(crew.join(), Target(TargetKind.USER, "bob"))
    await hearing(b, Target(TargetKind.ALL))

    def script(publisher: Publisher) -> None:
        publisher.set_props("alerts", {"children": html.B("Market closed"), "hidden": False}, user="alice")
        publisher.set_props({"type": "price", "index": 1}, {"children": "12.5"}, user="alice")
        publisher.set_props("log", {"children": Patch()}, all=True)

    await in_script(script)
    await await_for(lambda: len(a.ears.pushes) == 2 and b.ears.pushes)
    first, second = (Push.of_text(text) for _, text in a.ears.pushes)
    payload = json.loads(first.payload)
    assert payload["componentId"] == "alerts"
    assert payload["props"]["children"]["type"] == "B"
    assert payload["props"]["hidden"] is False
    assert (first.sets, first.path) == (("alerts", "children", "hidden"), None)
    assert json.loads(second.payload)["componentId"] == '{"index":1,"type":"price"}'
    ((target, text),) = b.ears.pushes
    assert target == Target(TargetKind.ALL)
    assert Push.of_text(text).sets is None  # a slow reader gets every Patch


@pytest.mark.parametrize(
    ("where", "target"),
    [
        ({"user": "alice"}, ALICE),
        ({"session": "s1"}, Target(TargetKind.SESSION, "s1")),
        ({"connection": "c1"}, Target(TargetKind.CONNECTION, "c1")),
        ({"topic": "prices"}, Target(TargetKind.TOPIC, "prices")),
        ({"all": True}, Target(TargetKind.ALL)),
    ],
)
async def test_each_target_of_the_backend_is_one_of_a_publisher(
    crew: Crew, where: dict[str, Any], target: Target
) -> None:
    a = await hearing(crew.join(), target)
    await in_script(lambda publisher: publisher.set_props("a", {"b": 1}, **where))
    await await_for(lambda: a.ears.pushes)
    closing(a, 3)
    receipt = await in_script(lambda publisher: publisher.close_connections(**where).result())
    assert (a.ears.pushes[0][0], receipt.closed) == (target, 3)


async def test_a_push_that_nobody_took_raises_in_the_very_call_and_the_next_one_after_the_outage_does_not(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew(own_redis.url)
    publisher = Publisher(own_redis.url, timeout=0.5)
    try:
        await asyncio.to_thread(publisher.set_props, "a", {"b": 1}, user="alice")
        own_redis.stop()
        begun = time.monotonic()
        with pytest.raises(BrokerError):
            await asyncio.to_thread(publisher.set_props, "a", {"b": 2}, user="alice")
        assert time.monotonic() - begun < 10
        assert "a push failed" in caplog.text
        own_redis.start()
        a = await hearing(crew.join(), ALICE)

        def push() -> bool:
            try:
                publisher.set_props("a", {"b": 3}, user="alice")
            except BrokerError:
                return False
            return True

        async with asyncio.timeout(30):
            while not await asyncio.to_thread(push):
                pass
        await await_for(lambda: a.ears.pushes)
    finally:
        await asyncio.to_thread(publisher.close)
        await crew.end()


async def test_a_broker_that_is_frozen_is_an_error_in_bounded_time_for_each_thing_that_is_asked(
    own_redis: RedisServer,
) -> None:
    publisher = Publisher(own_redis.url, timeout=0.3)
    await asyncio.to_thread(publisher.set_props, "a", {"b": 1}, all=True)
    own_redis.freeze()
    for ask in (
        lambda: publisher.set_props("a", {"b": 1}, all=True),
        lambda: publisher.revoke(all=True),
        lambda: publisher.close_connections(all=True),
        lambda: publisher.connections(),
        lambda: publisher.sessions(all=True),
    ):
        with pytest.raises(BrokerError):
            await asyncio.wait_for(asyncio.to_thread(ask), 30)
    await asyncio.wait_for(asyncio.to_thread(publisher.close), 30)


# --------------------------------------------------------------------------------------------------------- revoke


async def test_a_revocation_is_stored_when_the_call_returns_and_its_receipt_says_what_the_workers_did(
    crew: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = closing(crew.join(), 2, 3.5), closing(crew.join(), 1, 7.25)

    def script(publisher: Publisher) -> Receipt:
        pending = publisher.revoke(user="mallory", keep=["s1"], reason="banned")
        assert pending.stored.done()
        return pending.result(30)

    assert await in_script(script) == Receipt(3, 2, (), 7.25)
    (revocation,) = a.ears.revocations.values()
    assert b.ears.revocations == a.ears.revocations
    assert (revocation.scope, revocation.subject, revocation.keep) == (Scope.USER, "mallory", ("s1",))
    assert (revocation.ending, revocation.reason) == (Ending.REVOKED, "banned")
    assert 364 * DAY < revocation.expires - time.time() <= 365 * DAY
    assert crew.join().ears.revocations == a.ears.revocations
    assert [one.name for one in caplog.records if "reason='banned'" in one.message] == ["dash_quart_ws.security"]


async def test_one_session_or_all_can_be_revoked_for_as_long_as_the_apps_logins_last(crew: Crew) -> None:
    a = crew.join()
    of_alice = Session("s1", "alice", NOW, NOW + dt.timedelta(days=1), users=frozenset({"alice"}))

    def script(publisher: Publisher) -> None:
        publisher.revoke(session=of_alice)
        publisher.revoke(session="s2")
        publisher.revoke(all=True, keep=of_alice)

    await in_script(script, duration=2 * DAY)
    await a.knows("s1", "s2", "")
    one, two, everybody = (a.ears.revocations[subject] for subject in ("s1", "s2", ""))
    assert (one.scope, one.user, two.user) == (Scope.SESSION, "alice", None)
    assert (everybody.scope, everybody.keep) == (Scope.ALL, ("s1",))
    assert one.position < two.position < everybody.position
    assert all(DAY < revocation.expires - time.time() <= 2 * DAY for revocation in (one, two, everybody))


async def test_workers_that_do_not_answer_or_answer_nonsense_are_missing_in_the_receipt(crew: Crew) -> None:
    closing(crew.join(), 1)
    silent, other = crew.join(), crew.join()
    silent.ears.answer = concurrent.futures.Future()
    other.ears.answer = "another version's"
    workers = {silent.broker.worker.id, other.broker.worker.id}

    def script(publisher: Publisher) -> list[Receipt]:
        return [publisher.revoke(session="s").result(30), publisher.close_connections(user="alice").result(30)]

    for receipt in await in_script(script):
        assert (receipt.closed, receipt.confirmed, set(receipt.missing)) == (1, 1, workers)


async def test_closing_asks_every_worker_with_the_code_that_the_backend_would_give(crew: Crew) -> None:
    a = crew.join()
    asked: list[Any] = []
    a.ears.requested = lambda question: asked.append(question) or Closed(0, 0.0).json()  # type: ignore[method-assign]

    def script(publisher: Publisher) -> None:
        publisher.close_connections(topic="prices", reason="maintenance")
        publisher.close_connections(user="alice", reconnect=True)

    await in_script(script)
    assert [Close.of_json(one) for one in asked] == [
        Close(Target(TargetKind.TOPIC, "prices"), CloseCode.CLOSED_BY_APP, "maintenance"),
        Close(ALICE, CloseCode.CLOSED_BY_APP_RETRY, "closed"),
    ]


# ---------------------------------------------------------------------------------------------------- who is here


async def test_connections_of_all_workers_are_listed_with_the_worker_and_host_of_each(crew: Crew) -> None:
    a, b = crew.join(), crew.join()
    a.broker.enter("c2", facts("alice", "s1", 2000.0))
    a.broker.enter("strange", {"of": "another version"})
    b.broker.enter("c1", facts("alice", "s2", 1000.0))
    b.broker.enter("c3", facts(None, None, 3000.0))
    await a.broker.position()
    await b.broker.position()

    def script(publisher: Publisher) -> list[tuple[KnownConnection, ...]]:
        lists = publisher.connections(), publisher.connections(user="alice"), publisher.connections(session="s1")
        return [one.result() for one in lists]

    everybody, of_alice, of_session = await in_script(script)
    assert [one.id for one in everybody] == ["c1", "c2", "c3"]
    assert [one.id for one in of_alice] == ["c1", "c2"]
    (c2,) = of_session
    assert (c2.user, c2.session.id, c2.remote, c2.since.timestamp()) == ("alice", "s1", "192.0.2.1", 2000.0)
    assert (c2.worker, c2.host, c2.pid) == (a.broker.worker.id, a.broker.worker.host, os.getpid())


async def test_the_sessions_of_a_user_are_listed_the_one_that_was_seen_last_first(crew: Crew) -> None:
    a = crew.join()
    for one in (record("s1", "alice", 1.0), record("s2", "bob", 2.0), record("s3", "id", 3.0, users=("alice", "id"))):
        await outcome(a.broker.record(one))
    found = await in_script(lambda publisher: publisher.sessions(user="alice").result())
    assert [one.id for one in found] == ["s3", "s1"]
    (_, s1) = found
    assert (s1.user, s1.remote, s1.user_agent, s1.last_seen.timestamp()) == ("alice", "192.0.2.1", "Firefox", 1.0)
    everybody = await in_script(lambda publisher: publisher.sessions(all=True).result())
    assert [one.id for one in everybody] == ["s3", "s2", "s1"]


async def test_what_a_revocation_has_ended_is_no_longer_listed_and_what_it_spares_is(crew: Crew) -> None:
    a = crew.join()
    for id, user in (("s1", "alice"), ("s2", "alice"), ("s3", "bob"), ("s4", "bob"), ("s5", "carol")):
        await outcome(a.broker.record(record(id, user, 1.0)))
    await outcome(a.broker.record(record("later", "alice", 1.0, seen=10**15)))  # a login that comes after the ban

    def script(publisher: Publisher) -> list[set[str]]:
        def listed() -> set[str]:
            return {one.id for one in publisher.sessions(all=True).result()}

        publisher.revoke(user="alice", keep="s2")
        of_alice = listed()
        publisher.revoke(session="s3")
        of_bob = listed()
        publisher.revoke(all=True, keep=["s2", "s5"])
        return [of_alice, of_bob, listed()]

    assert await in_script(script) == [
        {"s2", "s3", "s4", "s5", "later"}, {"s2", "s4", "s5", "later"}, {"s2", "s5", "later"},
    ]  # fmt: skip
    async with Publisher() as publisher:
        publisher.revoke(user="alice", keep="later")  # nobody waits for what comes of it
    assert {one.id for one in a.broker.records()} == {"s5", "later"}


# --------------------------------------------------------------------------------------------- on an event loop


async def test_on_an_event_loop_everything_is_awaited_and_nothing_blocks(crew: Crew) -> None:
    a = closing(await hearing(crew.join(), ALICE), 1)
    a.broker.enter("c1", facts("alice", "s1", 1.0))
    async with Publisher() as publisher:
        pushed = publisher.set_props("a", {"b": 1}, user="alice")
        assert not pushed.done()  # the worker's loop is this one: it would wait for ever
        await pushed
        assert (await publisher.revoke(user="alice")).closed == 1
        assert (await publisher.close_connections(user="alice")).closed == 1
        assert [one.id for one in await publisher.connections()] == ["c1"]
        assert await publisher.sessions(user="alice") == ()
    assert len(a.ears.pushes) == 1


async def test_what_failed_is_raised_where_it_is_awaited_and_logged_where_it_is_not(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Publisher(own_redis.url, timeout=0.3) as publisher:
        await publisher.set_props("a", {"b": 1}, all=True)
        own_redis.kill()
        forgotten = publisher.revoke(all=True)
        with pytest.raises(BrokerError):
            await publisher.set_props("a", {"b": 1}, all=True)
        await await_for(forgotten.done)
    assert "a revocation failed" in caplog.text


async def test_what_nobody_has_waited_for_is_done_before_the_publisher_is_closed(crew: Crew) -> None:
    a = crew.join()
    async with Publisher() as publisher:
        publisher.revoke(session="s1")
    await a.knows("s1")


async def test_on_an_event_loop_a_publisher_that_was_not_opened_says_how_that_is_done(redis: RedisServer) -> None:
    with pytest.raises(RuntimeError, match="async with Publisher"):
        Publisher().set_props("a", {"b": 1}, all=True)


# ------------------------------------------------------------------------------------------------- open and closed


async def test_a_publisher_of_a_module_opens_at_its_first_use_in_any_thread_and_again_after_it_was_closed(
    crew: Crew,
) -> None:
    a = await hearing(crew.join(), ALICE)
    publisher = Publisher()
    await asyncio.gather(
        *(asyncio.to_thread(publisher.set_props, "a", {"b": number}, user="alice") for number in range(8))
    )
    await asyncio.to_thread(publisher.close)
    await asyncio.to_thread(publisher.close)
    await asyncio.to_thread(publisher.set_props, "a", {"b": 8}, user="alice")
    await asyncio.to_thread(publisher.close)
    await await_for(lambda: len(a.ears.pushes) == 9)


FORKS = """
import os, sys
from dash_quart_ws import Publisher

publisher = Publisher()
publisher.set_props("a", {"b": "parent"}, user="alice")
child = os.fork()
publisher.set_props("a", {"b": "child" if child == 0 else "parent again"}, user="alice")
if child == 0:
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


async def test_a_process_that_was_forked_has_connections_of_its_own(crew: Crew, redis: RedisServer) -> None:
    a = await hearing(crew.join(), ALICE)
    done = await asyncio.to_thread(run, FORKS)
    assert (done.returncode, done.stderr) == (0, "")
    await await_for(lambda: len(a.ears.pushes) == 3)
    values = [json.loads(Push.of_text(text).payload)["props"]["b"] for _, text in a.ears.pushes]
    assert sorted(values) == ["child", "parent", "parent again"]


def run(source: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Since 3.12 Python warns of every fork while there are threads, which is what this is about.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", source],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


async def test_a_broker_that_is_not_there_is_an_error_that_names_it_without_the_password(
    own_redis: RedisServer,
) -> None:
    own_redis.stop()
    url = own_redis.url.replace("redis://", "redis://app:secret@")
    begun = time.monotonic()
    with pytest.raises(BrokerError) as raised:
        await in_script(lambda publisher: None, url=url, timeout=0.2)
    assert time.monotonic() - begun < 10
    assert own_redis.url in str(raised.value)
    assert "secret" not in str(raised.value)


# ----------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("name", "of_backend", "given"),
    [
        ("set_props", "set_props", ("a", {"b": 1})),
        ("close_connections", "close", ()),
        ("revoke", "revoke", ()),
        ("sessions", "sessions", ()),
    ],
)
@pytest.mark.parametrize("where", [{}, {"user": "alice", "all": True}, {"all": False}], ids=["none", "two", "not all"])
def test_not_exactly_one_target_is_the_same_error_as_the_backends(
    redis: RedisServer, name: str, of_backend: str, given: tuple[Any, ...], where: dict[str, Any]
) -> None:
    backend = QuartBackend.of(Dash(__name__, backend=QuartBackend(broker="memory:")))
    with pytest.raises(TypeError) as expected:
        getattr(backend, of_backend)(*given, **where)
    with pytest.raises(TypeError) as raised:
        getattr(Publisher(), name)(*given, **where)
    assert str(raised.value) == str(expected.value)


def test_a_value_that_is_no_json_is_the_callers_mistake(redis: RedisServer) -> None:
    with pytest.raises(TypeError):
        Publisher().set_props("a", {"b": object()}, all=True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "DASH_QUART_WS_BROKER"),
        ("memory:", "serves one process"),
        ("sqlite:////var/lib/app/revocations.sqlite3", "serves one process"),
        ("http://:secret@host", "redis://"),
        ("redis://:secret@host/three", "database"),
    ],
)
def test_a_url_of_nothing_that_processes_share_is_refused_at_once(
    url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DASH_QUART_WS_BROKER", raising=False)
    with pytest.raises(ConfigurationError, match=says) as raised:
        Publisher(url)
    assert "secret" not in str(raised.value)


async def test_a_key_that_is_not_the_workers_is_an_error_and_writes_nothing(
    crew: Crew, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = crew.join(key="theirs")
    await a.stored("s1")
    for key in (None, "another"):
        with pytest.raises(ConfigurationError, match="broker_key"):
            await in_script(lambda publisher: publisher.revoke(session="s2"), broker_key=key)
    monkeypatch.setenv("DASH_QUART_WS_BROKER_KEY", "theirs")
    await in_script(lambda publisher: publisher.revoke(session="s3"))
    await a.knows("s3")
    assert "s2" not in crew.join(key="theirs").ears.revocations


WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None
import dash_quart_ws
try:
    dash_quart_ws.Publisher("redis://127.0.0.1")
except dash_quart_ws.ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_the_package_works_and_a_publisher_says_what_to_install() -> None:
    done = run(WITHOUT_REDIS)
    assert done.stdout == "a Publisher needs redis-py: install dash-quart-ws[redis]\n", done.stderr


async def test_no_secret_is_in_a_publishers_repr_or_log(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = redis.url.replace("redis://", "redis://:secret@")
    publisher = Publisher(url, broker_key="key of theirs", timeout=0.3)
    with pytest.raises((BrokerError, ConfigurationError)):
        await asyncio.to_thread(publisher.set_props, "a", {"b": 1}, all=True)
    for word in ("secret", "key of theirs"):
        assert word not in caplog.text + repr(publisher)
