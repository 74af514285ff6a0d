"""A connection as other workers know it: what is told of it, and what the app is shown of one that is elsewhere."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .session import Session

if TYPE_CHECKING:
    from ..brokers.base import Json, Presence
    from .connection import Connection


@dataclass(frozen=True, slots=True)
class KnownConnection:
    """A connection of any worker, as that has told of it when it was accepted."""

    id: str
    """Its public id, for `close(connection=…)` and `set_props(connection=…)` on any worker."""
    user: str | None
    """The user's `auth_id`; None for nobody."""
    session: Session | None
    """The `Session`, for `revoke(session=…)`; None for nobody."""
    since: dt.datetime
    """When it was accepted, in UTC, by the clock of its host."""
    remote: str | None
    """The client's address."""
    path: str
    """The websocket's path: it tells which Dash app the connection belongs to."""
    worker: str
    """The id of the worker process that holds it: another one after a restart."""
    host: str
    """The name of that worker's host."""
    pid: int
    """Its process id there."""

    @classmethod
    def of(cls, presence: Presence) -> KnownConnection:
        """What a worker has told with `facts_of`.

        Raises:
            ValueError, TypeError, KeyError: something else did, or another version.
        """
        facts: dict[str, Any] = presence.facts
        user, remote = (None if facts[name] is None else str(facts[name]) for name in ("user", "remote"))
        worker = presence.worker
        since, session = _utc(float(facts["since"])), _session_of(facts, user)
        path = str(facts["path"])
        return cls(presence.connection, user, session, since, remote, path, worker.id, worker.host, worker.pid)


def facts_of(connection: Connection) -> Json:
    """What other workers, and operators, are told of a connection. Times are Unix times."""
    session = connection.session
    facts: dict[str, Any] = {
        "user": connection.user,
        "session": None if session is None else session.id,
        "remote": connection.remote,
        "since": connection.since.timestamp(),
        "path": connection.path,
    }
    if session is not None:
        facts |= {
            "login": session.since.timestamp(),
            "expires": session.expires.timestamp(),
            "users": sorted(session.users),
            "seen": session.seen,
        }
    return facts


def _session_of(facts: dict[str, Any], user: str | None) -> Session | None:
    if facts["session"] is None:
        return None
    since, expires = _utc(float(facts["login"])), _utc(float(facts["expires"]))
    return Session(str(facts["session"]), user, since, expires, frozenset(map(str, facts["users"])), int(facts["seen"]))


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
