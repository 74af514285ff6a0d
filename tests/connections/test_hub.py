"""Who is here: by connection, session, user and topic, and nothing left of those who have gone."""

from __future__ import annotations

from typing import Any

from dash_quart_ws.brokers.base import Target, TargetKind
from dash_quart_ws.connections.hub import Hub

from ..fakes import FakeConnection, FakeSession

ALICE = FakeSession("alice's session", frozenset({"alice", "Alice"}))
BOB = FakeSession("bob's session", frozenset({"bob"}))
ADMIN = FakeSession("an admin's session")


def joined(hub: Hub, id: str, *sessions: FakeSession) -> Any:
    connection: Any = FakeConnection(id, *sessions)
    hub.add(connection)
    return connection


def is_empty(hub: Hub) -> bool:
    return len(hub) == 0 and not any(
        (hub._connections, hub._by_session, hub._by_user, hub._by_topic, hub._topics_of_session)
    )


def test_a_connection_is_found_by_all_that_it_belongs_to() -> None:
    hub = Hub()
    one = joined(hub, "one", ALICE, ADMIN)
    other = joined(hub, "other", BOB)
    nobody = joined(hub, "nobody")
    assert hub.all() == (one, other, nobody)
    assert hub.by_id("one") is one
    assert hub.by_id("unknown") is None
    assert hub.of_session(ALICE.id) == hub.of_session(ADMIN.id) == (one,)
    assert hub.of_user("alice") == hub.of_user("Alice") == (one,)
    assert hub.of_user("an admin") == ()
    assert hub.of_topic("news") == ()
    assert len(hub) == 3


def test_a_connection_that_has_ended_is_nowhere_and_leaves_nothing_behind() -> None:
    hub = Hub()
    connections = [joined(hub, str(number), ALICE, ADMIN) for number in range(3)] + [joined(hub, "nobody")]
    hub.subscribe(connections, "news")
    hub.subscribe_session(ALICE.id, "alice's news")
    for connection in connections:
        connection.end()
        assert connection not in hub.all()
        assert connection not in (*hub.of_session(ALICE.id), *hub.of_user("alice"), *hub.of_topic("news"))
    assert is_empty(hub)


def test_the_oldest_connection_comes_first_however_it_is_looked_for() -> None:
    hub = Hub()
    connections = tuple(joined(hub, str(number), ALICE) for number in range(200))
    hub.subscribe(connections, "news")
    assert hub.all() == connections
    assert hub.of_session(ALICE.id) == connections
    assert hub.of_user("alice") == connections
    assert hub.of_topic("news") == connections


def test_a_topic_reaches_those_who_are_subscribed_until_they_are_not() -> None:
    hub = Hub()
    one, other = joined(hub, "one", ALICE), joined(hub, "other", BOB)
    hub.subscribe([one, other], "news")
    assert set(hub.of_topic("news")) == {one, other}
    hub.unsubscribe([one], "news")
    assert hub.of_topic("news") == (other,)
    hub.unsubscribe([one, other], "news")
    hub.unsubscribe([one], "never subscribed")
    assert hub.of_topic("news") == ()


def test_a_connection_that_has_ended_is_subscribed_to_nothing() -> None:
    hub = Hub()
    one = joined(hub, "one", ALICE)
    one.end()
    hub.subscribe([one], "news")
    hub.subscribe_session(ALICE.id, "news")
    assert is_empty(hub)


def test_a_sessions_subscription_holds_for_its_next_connection_while_it_has_one() -> None:
    hub = Hub()
    first = joined(hub, "first", ALICE)
    hub.subscribe_session(ALICE.id, "news")
    second = joined(hub, "second", ALICE)
    first.end()
    assert hub.of_topic("news") == (second,)
    second.end()
    assert is_empty(hub)
    third = joined(hub, "third", ALICE)
    assert hub.of_topic("news") == ()
    hub.subscribe_session(ALICE.id, "news")
    hub.unsubscribe_session(ALICE.id, "news")
    joined(hub, "fourth", ALICE)
    assert hub.of_topic("news") == ()
    third.end()


def test_what_was_found_does_not_change_while_it_is_walked() -> None:
    hub = Hub()
    for number in range(5):
        joined(hub, str(number), ALICE)
    for found in (hub.all(), hub.of_session(ALICE.id), hub.of_user("alice")):
        assert isinstance(found, tuple)
    for connection in hub.of_user("alice"):
        connection.end()  # type: ignore[call-arg]
    assert is_empty(hub)


def test_a_target_appears_with_its_first_connection_and_vanishes_with_its_last() -> None:
    hub, told = Hub(), []
    hub.appeared = lambda target: told.append(("+", target.kind.value, target.name))
    hub.vanished = lambda target: told.append(("-", target.kind.value, target.name))
    first = joined(hub, "first", BOB)
    assert told == [
        ("+", "all", ""), ("+", "connection", "first"), ("+", "session", BOB.id), ("+", "user", "bob")
    ]  # fmt: skip
    told.clear()
    second = joined(hub, "second", BOB)
    hub.subscribe([first, second], "news")
    hub.unsubscribe([second], "news")
    assert told == [("+", "connection", "second"), ("+", "topic", "news")]
    told.clear()
    first.end()
    assert told == [("-", "connection", "first"), ("-", "topic", "news")]
    told.clear()
    second.end()
    assert told == [
        ("-", "connection", "second"), ("-", "all", ""), ("-", "session", BOB.id), ("-", "user", "bob")
    ]  # fmt: skip
    assert is_empty(hub)


def test_every_kind_of_target_means_its_connections() -> None:
    hub = Hub()
    one, other = joined(hub, "one", ALICE), joined(hub, "other", BOB)
    hub.subscribe([other], "news")
    for target, found in (
        (Target(TargetKind.CONNECTION, "one"), (one,)),
        (Target(TargetKind.CONNECTION, "gone"), ()),
        (Target(TargetKind.SESSION, BOB.id), (other,)),
        (Target(TargetKind.USER, "Alice"), (one,)),
        (Target(TargetKind.TOPIC, "news"), (other,)),
        (Target(TargetKind.ALL), (one, other)),
    ):
        assert hub.of(target) == found
