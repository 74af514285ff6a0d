"""The connections of this worker process: by id, session, user and topic."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..brokers.base import Target, TargetKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .connection import Connection


class Hub:
    """Who is here. Belongs to the event loop; nothing in it awaits, so what it says holds until the next await."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._by_session: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._by_user: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._by_topic: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._by_visitor: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._anonymous_from: dict[str, dict[Connection, None]] = defaultdict(dict)
        self.anonymous = 0
        """How many connections have no session."""
        self.appeared: Callable[[Target], object] | None = None
        """Told of each target that has its first connection here."""
        self.vanished: Callable[[Target], object] | None = None
        """Told of each that has lost its last."""
        self._topics_of: dict[Connection, set[str]] = {}
        self._topics_of_session: dict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """Take in a connection that was just accepted; it leaves by itself when it ends."""
        if not self._connections:
            self._appear(Target(TargetKind.ALL))
        self._connections[connection.id] = connection
        self._appear(Target(TargetKind.CONNECTION, connection.id))
        for session in connection.bound_to:
            self._insert(TargetKind.SESSION, session.id, connection)
        for user in _users_of(connection):
            self._insert(TargetKind.USER, user, connection)
        if not connection.bound_to:
            self._anonymous_from[str(connection.remote)][connection] = None
            self.anonymous += 1
        if connection.session is None and connection.visitor is not None:  # also with another extension's session
            self._by_visitor[connection.visitor][connection] = None
        if connection.session is not None:
            for topic in self._topics_of_session.get(connection.session.id, ()):
                self._join(connection, topic)
        connection.gone.append(self._remove)

    def _remove(self, connection: Connection) -> None:
        self._connections.pop(connection.id, None)
        self._vanish(Target(TargetKind.CONNECTION, connection.id))
        if not self._connections:
            self._vanish(Target(TargetKind.ALL))
        for session in connection.bound_to:
            self._discard(TargetKind.SESSION, session.id, connection)
        for user in _users_of(connection):
            self._discard(TargetKind.USER, user, connection)
        if not connection.bound_to:
            _discard(self._anonymous_from, str(connection.remote), connection)
            self.anonymous -= 1
        if connection.visitor is not None:
            _discard(self._by_visitor, connection.visitor, connection)
        for topic in self._topics_of.pop(connection, ()):
            self._discard(TargetKind.TOPIC, topic, connection)
        if connection.session is not None and connection.session.id not in self._by_session:
            self._topics_of_session.pop(connection.session.id, None)

    def _index(self, kind: TargetKind) -> dict[str, dict[Connection, None]]:
        match kind:
            case TargetKind.SESSION:
                return self._by_session
            case TargetKind.USER:
                return self._by_user
            case _:
                return self._by_topic

    def _insert(self, kind: TargetKind, name: str, connection: Connection) -> None:
        members = self._index(kind)[name]
        if not members:
            self._appear(Target(kind, name))
        members[connection] = None

    def _discard(self, kind: TargetKind, name: str, connection: Connection) -> None:
        index = self._index(kind)
        if name in index:
            _discard(index, name, connection)
            if name not in index:
                self._vanish(Target(kind, name))

    def _appear(self, target: Target) -> None:
        if self.appeared is not None:
            self.appeared(target)

    def _vanish(self, target: Target) -> None:
        if self.vanished is not None:
            self.vanished(target)

    def of(self, target: Target) -> tuple[Connection, ...]:
        """The connections that a target means."""
        match target.kind:
            case TargetKind.CONNECTION:
                found = self._connections.get(target.name)
                return () if found is None else (found,)
            case TargetKind.SESSION:
                return self.of_session(target.name)
            case TargetKind.USER:
                return self.of_user(target.name)
            case TargetKind.TOPIC:
                return self.of_topic(target.name)
            case TargetKind.ALL:
                return self.all()

    def all(self) -> tuple[Connection, ...]:
        """Every connection, the oldest first."""
        return tuple(self._connections.values())

    def by_id(self, id: str) -> Connection | None:
        """One connection by its public id."""
        return self._connections.get(id)

    def of_session(self, id: str) -> tuple[Connection, ...]:
        """The connections that are bound to a session, of whichever `QuartAuth` extension."""
        return tuple(self._by_session.get(id, ()))

    def of_user(self, user: str) -> tuple[Connection, ...]:
        """The connections of a user of the singleton `QuartAuth`."""
        return tuple(self._by_user.get(user, ()))

    def of_topic(self, topic: str) -> tuple[Connection, ...]:
        """The connections that are subscribed to a topic."""
        return tuple(self._by_topic.get(topic, ()))

    def of_visitor(self, visitor: str | None) -> tuple[Connection, ...]:
        """The connections without a session that one browser has opened."""
        return () if visitor is None else tuple(self._by_visitor.get(visitor, ()))

    def anonymous_from(self, remote: str | None) -> int:
        """How many connections without a session come from an address."""
        return len(self._anonymous_from.get(str(remote), ()))

    def has_one_address_only(self) -> bool:
        """Whether everybody seems to be in the same place."""
        return len({connection.remote for connection in self._connections.values()}) <= 1

    def has_topics(self, connection: Connection) -> bool:
        """Whether a connection is subscribed to anything."""
        return connection in self._topics_of

    def topics_of(self, connection: Connection) -> tuple[str, ...]:
        """What a connection is subscribed to."""
        return tuple(self._topics_of.get(connection, ()))

    def subscribe(self, connections: Iterable[Connection], topic: str) -> None:
        """Subscribe connections to a topic, until they end."""
        for connection in connections:
            if not connection.ended:
                self._join(connection, topic)

    def _join(self, connection: Connection, topic: str) -> None:
        self._insert(TargetKind.TOPIC, topic, connection)
        self._topics_of.setdefault(connection, set()).add(topic)

    def subscribe_session(self, id: str, topic: str) -> None:
        """Subscribe a session: its connections of now, and those that it opens while it still has one."""
        if id in self._by_session:
            self._topics_of_session[id].add(topic)
            self.subscribe(self._by_session[id], topic)

    def unsubscribe(self, connections: Iterable[Connection], topic: str) -> None:
        """Take connections off a topic."""
        for connection in connections:
            self._discard(TargetKind.TOPIC, topic, connection)
            topics = self._topics_of.get(connection, set())
            topics.discard(topic)
            if not topics:
                self._topics_of.pop(connection, None)

    def unsubscribe_session(self, id: str, topic: str) -> None:
        """Take a session off a topic."""
        self._topics_of_session.get(id, set()).discard(topic)
        self.unsubscribe(self.of_session(id), topic)


def _users_of(connection: Connection) -> frozenset[str]:
    """Every id under which `revoke(user=…)` may mean this connection: the token's and the user object's."""
    return connection.session.users if connection.session is not None else frozenset()


def _discard(index: dict[str, dict[Connection, None]], key: str, connection: Connection) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(connection, None)
        if not members:
            del index[key]
