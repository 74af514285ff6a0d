"""What every broker guarantees, as tests. A broker's test class inherits `BrokerContract` and says how to make one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import os
import time
from typing import Any

import pytest

from dash_quart_ws.brokers.base import (
    Answers,
    Broker,
    Ending,
    Listener,
    Presence,
    Revocation,
    Scope,
    SessionRecord,
    Target,
    TargetKind,
)
from dash_quart_ws.exceptions import BrokerError

NEVER = time.time() + 10**6


def revocation(subject: str = "s", position: int = 1, **options: Any) -> Revocation:
    return Revocation(options.pop("scope", Scope.SESSION), subject, position, options.pop("expires", NEVER), **options)


def record(id: str = "s", **fields: Any) -> SessionRecord:
    known = {"user": "alice", "since": 1.5, "expires": NEVER, "last_seen": 2.5, "remote": "1.2.3.4", "user_agent": "a"}
    return SessionRecord(id, **{**known, **fields})


def by_id(records: list[SessionRecord]) -> dict[str, SessionRecord]:
    assert len({one.id for one in records}) == len(records)
    return {one.id: one for one in records}


class Ears(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.pushes: list[tuple[Target, str]] = []

    def pushed(self, target: Target, message: str) -> None:
        self.pushes.append((target, message))


class BrokerContract:
    """Inherit this, and give a `broker` fixture: a broker that has been loaded and is closed at the end."""

    def test_positions_grow_and_no_two_are_the_same_from_many_threads(self, broker: Broker) -> None:
        before = broker.last_position
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            positions = list(pool.map(lambda _: broker.next_position(), range(500)))
        assert len(set(positions)) == 500
        assert min(positions) > before

    def test_what_is_stored_has_its_position_or_a_later_one_and_that_is_what_logins_see_from_then_on(
        self, broker: Broker
    ) -> None:
        asked = [broker.next_position() for _ in range(5)]
        stored = [broker.append(revocation(f"s{position}", position)).stored.result(10) for position in asked]
        assert [one.subject for one in stored] == [f"s{position}" for position in asked]
        assert all(one.position >= position for one, position in zip(stored, asked, strict=True))
        assert broker.last_position >= max(one.position for one in stored)

    async def test_a_login_sees_the_last_position_that_there_was(self, broker: Broker) -> None:
        appended = broker.append(revocation("s", broker.next_position()))  # nobody waits for it
        assert await broker.position() >= appended.stored.result(10).position

    def test_a_position_that_somebody_proves_is_never_fallen_behind(self, broker: Broker) -> None:
        ahead = broker.last_position + 1000
        broker.observe(ahead)
        broker.observe(ahead - 500)
        assert broker.last_position == ahead
        assert broker.next_position() == ahead + 1

    def test_a_user_id_that_is_no_unicode_is_stored_or_refused_with_a_broker_error(self, broker: Broker) -> None:
        error = broker.append(revocation("\ud800", scope=Scope.USER)).stored.exception(10)
        assert error is None or isinstance(error, BrokerError)
        broker.append(revocation("next")).stored.result(10)

    @pytest.mark.parametrize("text", ["\ud800", "\x00", "' or 1=1 --", "\U0001f512", "", "a" * 10**6])
    def test_a_record_is_taken_whatever_a_browser_or_a_user_is_called(self, broker: Broker, text: str) -> None:
        said = record(user=text, remote=text, user_agent=text, users=(text,))
        assert broker.record(said).result(10) is None
        assert broker.records() in ([], [said])

    def test_records_from_many_threads_are_all_taken(self, broker: Broker) -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda number: broker.record(record(f"s{number}")), range(500)))
        assert [one.result(10) for one in taken] == [None] * 500

    def test_nobody_can_call_back_what_others_wait_for(self, broker: Broker) -> None:
        taken = [broker.record(record(f"s{number}")) for number in range(10)]
        taken[0].cancel()
        assert [one.result(10) for one in taken] == [None] * 10

    # ---------------------------------------------------------------------------------------- a worker, and others

    def test_who_claims_a_name_first_has_it(self, broker: Broker) -> None:
        assert [broker.claim(name).result(10) for name in ("one", "one", "\ud800", "one", "\ud800")] == [
            True, False, True, False, False,
        ]  # fmt: skip

    async def test_the_lease_is_valid_once_the_broker_has_been_loaded(self, broker: Broker) -> None:
        assert broker.lease_until > broker.clock()

    async def test_who_is_here_is_listed_with_the_worker_until_they_leave(self, broker: Broker) -> None:
        broker.enter("c1", {"user": "alice", "renderers": 1})
        broker.enter("c2", {"user": "\ud800"})
        broker.enter("c1", {"user": "alice", "renderers": 2})
        worker = broker.worker
        assert worker.host
        assert worker.pid == os.getpid()
        found = sorted(await broker.connections(), key=lambda one: one.connection)
        assert found == [
            Presence("c1", worker, {"user": "alice", "renderers": 2}),
            Presence("c2", worker, {"user": "\ud800"}),
        ]
        broker.leave("c1")
        broker.leave("never here")
        assert [one.connection for one in await broker.connections()] == ["c2"]

    def test_where_nobody_else_is_nobody_answers_and_nobody_is_missing(self, broker: Broker) -> None:
        assert broker.request({"who": "is there"}).result(10) == Answers({})
        assert broker.append(revocation("s", broker.next_position())).answers.result(10) == Answers({})

    async def test_a_worker_does_not_get_what_it_publishes_itself(self, broker: Broker) -> None:
        listener = Ears()
        broker.listen(listener, asyncio.get_running_loop())
        for kind in TargetKind:
            target = Target(kind, "name \ud800")
            await asyncio.wrap_future(broker.subscribe(target))
            await asyncio.wrap_future(broker.publish(target, "{}"))
        await broker.position()
        assert listener.pushes == []

    # ----------------------------------------------------------------------------------------- kept for a moment

    @pytest.mark.parametrize("text", ["", "\ud800", "\x00", "a b c", "\U0001f512", "a" * 100_000])
    async def test_what_is_kept_is_given_away_once(self, broker: Broker, text: str) -> None:
        await asyncio.wrap_future(broker.keep("name", text, 30))
        assert await broker.take("another name") is None
        assert await broker.take("name") == text
        assert await broker.take("name") is None

    async def test_of_many_who_ask_at_once_one_gets_what_is_kept(self, broker: Broker) -> None:
        await asyncio.wrap_future(broker.keep("name", "text", 30))
        taken = await asyncio.gather(*(broker.take("name") for _ in range(20)))
        assert sorted(taken, key=str) == [None] * 19 + ["text"]

    async def test_what_is_kept_is_forgotten_when_its_time_is_up(self, broker: Broker) -> None:
        await asyncio.wrap_future(broker.keep("soon", "text", 0.05))
        await asyncio.wrap_future(broker.keep("later", "text", 30))
        deadline = time.monotonic() + 0.05
        while time.monotonic() <= deadline:
            await asyncio.sleep(0.01)
        assert await broker.take("soon") is None
        assert await broker.take("later") == "text"

    async def test_of_two_texts_under_one_name_the_last_is_kept(self, broker: Broker) -> None:
        for text in ("first", "last"):
            await asyncio.wrap_future(broker.keep("name", text, 30))
        assert await broker.take("name") == "last"

    def test_a_closed_broker_says_so_and_keeps_nobody_waiting(self, broker: Broker) -> None:
        broker.close()
        target = Target(TargetKind.USER, "alice")
        for future in (broker.publish(target, "{}"), broker.subscribe(target)):
            assert isinstance(future.exception(10), BrokerError | None)
        broker.unsubscribe(target)
        broker.enter("c", {})
        broker.leave("c")
        assert broker.request({}).result(10).given == {}
        broker.close()


class LastingBrokerContract(BrokerContract):
    """The same, for a broker whose store outlives it: all of them but the one in memory."""

    def again(self, broker: Broker) -> Broker:
        """Another broker on the same store, as after a restart; loaded by the caller."""
        raise NotImplementedError

    def test_what_was_confirmed_is_loaded_after_a_restart_as_it_was(self, broker: Broker) -> None:
        said = [
            revocation("one", 1, ending=Ending.LOGGED_OUT, user="alice"),
            revocation("alice", 2, scope=Scope.USER, keep=("one", "two")),
            revocation("", 3, scope=Scope.ALL),
            revocation("with \x00, é, \U0001f512 and ' or 1=1 --", 4, scope=Scope.USER),
            *(revocation(f"ended {ending}", 5, ending=ending) for ending in Ending),
        ]
        stored = [broker.append(one).stored.result(10) for one in said]
        assert [dataclasses.replace(one, position=0) for one in stored] == [
            dataclasses.replace(one, position=0) for one in said
        ]
        broker.close()
        later = self.again(broker)
        try:
            assert later.load() == stored
        finally:
            later.close()

    def test_what_no_token_can_meet_any_more_is_not_loaded(self, broker: Broker) -> None:
        broker.append(revocation("over", expires=time.time() - 1)).stored.result(10)
        broker.append(revocation("not over")).stored.result(10)
        broker.close()
        later = self.again(broker)
        try:
            assert [one.subject for one in later.load()] == ["not over"]
        finally:
            later.close()

    def test_positions_do_not_go_back_over_a_restart(self, broker: Broker) -> None:
        broker.observe(broker.last_position + 10**9)
        position = broker.next_position()
        broker.append(revocation("s", position)).stored.result(10)
        broker.close()
        later = self.again(broker)
        try:
            later.load()
            assert later.next_position() > position
        finally:
            later.close()

    def test_closing_stores_what_is_on_its_way(self, broker: Broker) -> None:
        stored = [broker.append(revocation(f"s{number}", number)).stored for number in range(50)]
        broker.close()
        assert all(one.done() and one.exception() is None for one in stored)
        later = self.again(broker)
        try:
            assert len(later.load()) == 50
        finally:
            later.close()

    def test_a_closed_broker_confirms_nothing_that_it_does_not_store(self, broker: Broker) -> None:
        broker.close()
        stored = broker.append(revocation("too late")).stored
        error = stored.exception(10)
        later = self.again(broker)
        try:
            was_stored = [one.subject for one in later.load()] == ["too late"]
            assert was_stored or isinstance(error, BrokerError)
        finally:
            later.close()

    def test_a_closed_broker_can_be_loaded_again(self, broker: Broker) -> None:
        broker.append(revocation("first")).stored.result(10)
        broker.close()
        loaded = broker.load()
        assert [one.subject for one in loaded] == ["first"]
        broker.append(revocation("second")).stored.result(10)

    # -------------------------------------------------------------------------------------------- known sessions

    def test_a_session_is_known_after_a_restart_as_it_was_last_recorded(self, broker: Broker) -> None:
        said = [
            record("one", last_seen=1.0, user_agent="first"),
            record("two", user=None, remote=None, user_agent=""),
            record("three", user="\ud800", users=("\ud800", "b", "a"), seen=10**13),
            record("one", last_seen=2.0, user_agent="last", expires=NEVER + 5.25),
        ]
        for one in said:
            broker.record(one).result(10)
        assert by_id(broker.records()) == by_id(said[1:])
        broker.close()
        later = self.again(broker)
        try:
            later.load()
            assert by_id(later.records()) == by_id(said[1:])
        finally:
            later.close()

    def test_the_last_of_many_records_wins_when_nobody_waits_for_any(self, broker: Broker) -> None:
        for number in range(3000):
            broker.record(record(f"s{number % 1500}", last_seen=float(number)))
        records = by_id(broker.records())
        assert {id: one.last_seen for id, one in records.items()} == {f"s{n}": n + 1500.0 for n in range(1500)}

    def test_what_has_expired_and_what_was_told_to_be_over_is_not_known(self, broker: Broker) -> None:
        for one in (record("ended"), record("expired", expires=time.time() - 1), record("valid"), record("again")):
            broker.record(one)
        broker.record(SessionRecord.over("ended"))
        broker.record(SessionRecord.over("never known"))
        broker.record(SessionRecord.over("again"))
        broker.record(record("again")).result(10)
        assert set(by_id(broker.records())) == {"valid", "again"}
        broker.close()
        later = self.again(broker)
        try:
            later.load()
            assert set(by_id(later.records())) == {"valid", "again"}
        finally:
            later.close()

    def test_closing_stores_the_records_that_are_on_their_way(self, broker: Broker) -> None:
        taken = [broker.record(record(f"s{number}")) for number in range(5000)]
        broker.close()
        assert all(one.done() and one.exception() is None for one in taken)
        later = self.again(broker)
        try:
            later.load()
            assert len(later.records()) == 5000
        finally:
            later.close()

    def test_a_closed_broker_confirms_no_record_that_it_does_not_store(self, broker: Broker) -> None:
        broker.close()
        error = broker.record(record("too late")).exception(10)
        assert broker.records() == []
        later = self.again(broker)
        try:
            later.load()
            assert "too late" in by_id(later.records()) or isinstance(error, BrokerError)
        finally:
            later.close()

    def test_records_and_revocations_are_kept_apart(self, broker: Broker) -> None:
        broker.record(record("s")).result(10)
        broker.append(revocation("s")).stored.result(10)
        broker.close()
        assert [one.subject for one in broker.load()] == ["s"]
        assert set(by_id(broker.records())) == {"s"}  # whoever lists sessions asks the revocations
