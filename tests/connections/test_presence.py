"""What other workers are told of a connection, and what the app is shown of it there."""

from __future__ import annotations

import datetime as dt
import json
from types import SimpleNamespace
from typing import Any

import pytest

from dash_quart_ws.brokers.base import Presence, Worker
from dash_quart_ws.connections.presence import KnownConnection, facts_of
from dash_quart_ws.connections.session import Session

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
WORKER = Worker("elsewhere:7:ab", "elsewhere", 7)
ALICE = Session("alice's session", "alice", NOW, NOW + dt.timedelta(hours=1), frozenset({"alice", "7"}), 5)


def connection(session: Session | None = ALICE, remote: str | None = "1.2.3.4") -> Any:
    user = None if session is None else session.user
    return SimpleNamespace(id="c1", user=user, session=session, remote=remote, since=NOW, path="/ws")


def known_elsewhere(one: Any) -> KnownConnection:
    return KnownConnection.of(Presence("c1", WORKER, json.loads(json.dumps(facts_of(one)))))


def test_another_worker_knows_whose_connection_it_is_where_it_is_and_what_would_end_its_session() -> None:
    known = known_elsewhere(connection())
    assert (known.id, known.user, known.since, known.remote, known.path) == ("c1", "alice", NOW, "1.2.3.4", "/ws")
    assert (known.worker, known.host, known.pid) == ("elsewhere:7:ab", "elsewhere", 7)
    session = known.session
    assert session is not None
    assert session == ALICE
    assert (session.user, session.since, session.expires) == (ALICE.user, ALICE.since, ALICE.expires)
    assert (session.users, session.seen) == (ALICE.users, ALICE.seen)


def test_nobodys_connection_has_no_session() -> None:
    known = known_elsewhere(connection(None, None))
    assert (known.user, known.session, known.remote) == (None, None, None)


@pytest.mark.parametrize("facts", [None, [], {}, {"user": 1}, {**facts_of(connection()), "since": "now"}])
def test_what_another_version_says_is_an_error_and_not_a_wrong_connection(facts: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        KnownConnection.of(Presence("c1", WORKER, facts))
