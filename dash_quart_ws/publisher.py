"""Push, revoke and ask from outside the web processes: in a Celery task, in cron, in a REPL.

A publisher is no worker: it serves nobody, holds no revocations, and is nobody's `missing`. It speaks to the workers
through their broker, so that what it does is what `QuartBackend`'s methods of the same names do on every worker at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .brokers.base import Revocation, Scope, SessionRecord, Target, TargetKind
from .brokers.calls import settle
from .brokers.messages import Close, Closed, Push
from .callbacks.websocket import props_message
from .config import BROKER_VARIABLE
from .connections.presence import KnownConnection
from .connections.receipt import Pending, PendingReceipt, Receipt
from .connections.session import KnownSession, Session
from .exceptions import ConfigurationError
from .wire.close import CloseCode, cut_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from .brokers.base import Answers, Presence
    from .brokers.redis import RedisBroker
    from .connections.connection import Connection

logger = logging.getLogger("dash_quart_ws.publisher")
security = logging.getLogger("dash_quart_ws.security")

S = TypeVar("S")
T = TypeVar("T")

KEY_VARIABLE = "DASH_QUART_WS_BROKER_KEY"
"""Environment variable with the `broker_key`, for when none is given."""

TIMEOUT = 2.0
"""Seconds that each step of talking to the broker may take."""

DURATION = 365 * 24 * 3600.0
"""Seconds that a login lasts: quart-auth's own default, which only the app itself knows to be another."""


class Publisher:
    """Speaks to all workers of an app, from outside of them.

    In code without an event loop a method that fails raises, and one that has returned has been done: `.result()` gives
    what came of it. It may be used in any thread, and opens at its first use, in each process anew. ::

        with Publisher("redis://…") as publisher:
            publisher.set_props("alerts", {"children": "Market closed"}, user="alice")
            receipt = publisher.revoke(user="mallory", reason="banned").result()

    On an event loop a method returns at once; `await` gives what came of it, or raises. ::

        async with Publisher() as publisher:
            await publisher.set_props("alerts", {"children": "Market closed"}, user="alice")
            receipt = await publisher.revoke(user="mallory", reason="banned")

    Args:
        url: the workers' `broker`, with the same prefix. None: the environment variable `DASH_QUART_WS_BROKER`.
        broker_key: the workers' `broker_key`. None: `DASH_QUART_WS_BROKER_KEY`, if it is set.
        timeout: seconds that each step of talking to the broker may take.
        duration: seconds that a login lasts, for how long a revocation has to be kept. A publisher cannot see what the app
            gives quart-auth (`QUART_AUTH_DURATION`): this is quart-auth's default, a year. Give the app's if that is longer.

    Raises:
        ConfigurationError: no URL is given, or it leads to nothing that several processes share; or redis-py is missing.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        broker_key: str | bytes | None = None,
        timeout: float = TIMEOUT,
        duration: float = DURATION,
    ) -> None:
        self._url = url or os.environ.get(BROKER_VARIABLE, "")
        self._key = broker_key or os.environ.get(KEY_VARIABLE) or None
        self._timeout = timeout
        self._duration = duration
        self._lock = threading.Lock()
        self._broker = self._make()
        self._unlisting: set[concurrent.futures.Future[None]] = set()
        self._open_in: int | None = None
        """The process in which the broker has been loaded: a fork takes no threads along."""

    # ------------------------------------------------------------------------------------------ what it does

    def set_props(
        self,
        id: str | Mapping[str, Any],
        props: Mapping[str, Any],
        *,
        user: str | None = None,
        session: Session | str | None = None,
        connection: Connection | KnownConnection | str | None = None,
        topic: str | None = None,
        all: bool = False,
    ) -> Pending[None]:
        """Push: set properties of a component in every tab of these connections, on whichever workers, of every Dash app.

        It is done when the broker has taken it: at most once, and in the order in which this publisher has pushed. Whom it
        reaches is not known; who is not connected gets nothing later.

        Args:
            id: the component's id, also a dict.
            props: property name -> value, as a callback would return them; also `Patch`.
            user: whose connections.
            session: the connections of one session, or of its id.
            connection: one connection, or its id.
            topic: the connections that are subscribed to a topic.
            all: every connection.

        Raises:
            TypeError: not exactly one of the targets was given, or a value cannot be made JSON.
            BrokerError: the broker did not take it.
        """
        target = _target(user=user, session=session, connection=connection, topic=topic, all=all)
        message = props_message(None, id, props)
        published = self._opened().publish(target, Push(message.payload, message.sets).text())
        return self._outcome(Pending(), published, lambda _: None, "a push")

    def revoke(
        self,
        *,
        session: Session | str | None = None,
        user: str | None = None,
        all: bool = False,
        keep: Session | str | Iterable[Session | str] | None = None,
        reason: str = "",
    ) -> PendingReceipt:
        """End sessions, on every worker: their tokens are nobody there, and their connections are closed.

        Without an event loop this returns when the revocation is stored, and what it ends is out of the list of `sessions`;
        `.result()` then waits for what the workers say. One that is `missing` in the receipt has not said so yet: it gets
        the revocation as soon as it hears the broker again, and serves nobody for longer than its lease until then.

        Args:
            session: one session, or its id.
            user: every session that this user has begun before now. A later login is not affected.
            all: everybody's.
            keep: sessions to spare.
            reason: why, in at most 123 bytes: the clients, the hooks and the log get it.

        Raises:
            TypeError: not exactly one of `session`, `user` and `all` was given.
            BrokerError: it is not stored in time. It is tried again until the publisher is closed.
        """
        if (session is not None) + (user is not None) + all != 1:
            raise TypeError("revoke() takes exactly one of session=, user=, all=True")
        broker = self._opened()
        expires = time.time() + self._duration
        kept = tuple(_id_of(one) for one in _as_iterable(keep))
        reason = cut_reason(reason)
        if session is not None:
            owner = session.user if isinstance(session, Session) and session.users else None
            subject, position = _id_of(session), broker.next_position()
            revocation = Revocation(Scope.SESSION, subject, position, expires, user=owner, reason=reason)
        else:
            scope, subject = (Scope.ALL, "") if user is None else (Scope.USER, str(user))
            revocation = Revocation(scope, subject, broker.next_position(), expires, keep=kept, reason=reason)
        security.warning(
            "end %s=%.64r ending=%s reason=%.64r by=publisher",
            revocation.scope, revocation.subject, revocation.ending, reason,
        )  # fmt: skip
        appended = broker.append(revocation)
        unlisted = _unlist(broker, appended.stored)
        self._unlisting.add(unlisted)
        unlisted.add_done_callback(self._unlisting.discard)
        answered: concurrent.futures.Future[Answers] = concurrent.futures.Future()

        def ask(_done: concurrent.futures.Future[None]) -> None:
            error = unlisted.exception()
            if error is None:
                appended.answers.add_done_callback(lambda known: settle(answered, known.result()))
            else:
                settle(answered, error=error)

        unlisted.add_done_callback(ask)
        receipt = PendingReceipt(appended.stored)
        self._outcome(receipt, answered, _receipt_of, "a revocation", waits_for=unlisted)
        return receipt

    def close_connections(
        self,
        *,
        connection: Connection | KnownConnection | str | None = None,
        session: Session | str | None = None,
        user: str | None = None,
        topic: str | None = None,
        all: bool = False,
        reason: str = "",
        reconnect: bool = False,
    ) -> PendingReceipt:
        """Close connections, on whichever workers, and leave their sessions as they are: what `QuartBackend.close` does.

        Without an event loop this returns when the workers have said what they have done, or have been given up.

        Args:
            connection: one connection, or its id.
            session: those of one session, or of its id.
            user: those of one user.
            topic: those that are subscribed to a topic.
            all: all of them.
            reason: why, in at most 123 bytes: the client and the log get it.
            reconnect: whether the clients should come back by themselves (4100), or not (4500).

        Raises:
            TypeError: not exactly one of the targets was given.
            BrokerError: the workers could not be asked.
        """
        target = _target(user=user, session=session, connection=connection, topic=topic, all=all)
        code = CloseCode.CLOSED_BY_APP_RETRY if reconnect else CloseCode.CLOSED_BY_APP
        asked = self._opened().request(Close(target, code, cut_reason(reason or "closed")).json())
        receipt = PendingReceipt(asked)
        self._outcome(receipt, asked, _receipt_of, "a close")
        return receipt

    def connections(
        self, *, user: str | None = None, session: Session | str | None = None
    ) -> Pending[tuple[KnownConnection, ...]]:
        """Every open connection, the oldest first; all, or a user's or a session's.

        Raises:
            BrokerError: the broker does not say.
        """
        id = None if session is None else _id_of(session)

        def among(presences: Sequence[Presence]) -> tuple[KnownConnection, ...]:
            return tuple(
                one
                for one in sorted(_readable(presences), key=lambda one: one.since)
                if user in (None, one.user) and id in (None, one.session and one.session.id)
            )

        return self._outcome(Pending(), self._opened().ask_connections(), among, "connections")

    def sessions(self, *, user: str | None = None, all: bool = False) -> Pending[tuple[KnownSession, ...]]:
        """The sessions of a user, or of all, as the workers have seen them; the one that was seen last comes first.

        A session that has ended is taken out by who has ended it, or by the next worker that begins.

        Args:
            user: whose.
            all: everybody's.

        Raises:
            TypeError: not exactly one of the two was given.
            BrokerError: the broker does not say.
        """
        if (user is not None) + all != 1:
            raise TypeError("sessions() takes exactly one of user=, all=True")

        def among(records: Sequence[SessionRecord]) -> tuple[KnownSession, ...]:
            own = [one for one in records if user is None or str(user) in one.users]
            return tuple(_known(one) for one in sorted(own, key=lambda one: one.last_seen, reverse=True))

        return self._outcome(Pending(), self._opened().ask_records(), among, "sessions")

    # -------------------------------------------------------------------------------------------- open and closed

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Send what is on its way, then let go of the connections. It blocks, for a bounded time.

        A publisher that is used again opens again.
        """
        with self._lock:
            if self._open_in == os.getpid():
                concurrent.futures.wait(tuple(self._unlisting), self._timeout)
                self._broker.close()
            self._open_in = None

    def _make(self) -> RedisBroker:
        if not self._url:
            raise ConfigurationError(f"a Publisher needs the broker's URL: give it, or set {BROKER_VARIABLE}")
        if self._url.startswith(("memory:", "sqlite:")):
            raise ConfigurationError(
                f"broker={self._url.partition(':')[0]!r}:… serves one process, which nobody can reach from outside: "
                "give the workers, and the Publisher, a redis:// URL"
            )
        try:
            from .brokers.redis import RedisBroker
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] != "redis":
                raise
            raise ConfigurationError("a Publisher needs redis-py: install dash-quart-ws[redis]") from error
        return RedisBroker(self._url, key=self._key, timeout=self._timeout, serves=False)

    def _open(self) -> None:
        with self._lock:
            if self._open_in == os.getpid():
                return
            if self._open_in is not None:
                self._broker, self._unlisting, self._open_in = self._make(), set(), None
            self._broker.load()
            self._open_in = os.getpid()

    def _opened(self) -> RedisBroker:
        if self._open_in != os.getpid():
            if _is_on_loop():
                raise RuntimeError("on an event loop a Publisher is opened with: async with Publisher(…) as publisher")
            self._open()
        return self._broker

    @staticmethod
    def _outcome(
        pending: Pending[T],
        future: concurrent.futures.Future[S],
        make: Callable[[S], T],
        what: str,
        *,
        waits_for: concurrent.futures.Future[Any] | None = None,
    ) -> Pending[T]:
        """What comes of a future. Where nobody can await it, it is waited for here, so that no failure goes unseen."""

        def know(done: concurrent.futures.Future[S]) -> None:
            try:
                pending.resolve(make(done.result()))
            except Exception as error:  # noqa: BLE001 - it belongs to who asks
                logger.warning("%s failed: %s", what, error)
                pending.fail(error)

        future.add_done_callback(know)
        if not _is_on_loop():
            if waits_for is not None:
                waits_for.result()
            else:
                pending.result()
        return pending


def _unlist(broker: RedisBroker, stored: concurrent.futures.Future[Revocation]) -> concurrent.futures.Future[None]:
    """Take the sessions that a revocation ends out of the list of sessions: it is who revokes that does it.

    Fails when nothing is stored, and only then: the list is for people to look at.
    """
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def write(ids: Sequence[str]) -> None:
        written = [broker.record(SessionRecord.over(id)) for id in ids]
        if written:
            written[-1].add_done_callback(lambda _: settle(done))
        else:
            settle(done)

    def read(records: concurrent.futures.Future[list[SessionRecord]]) -> None:
        known = [] if records.exception() is not None else records.result()
        write([one.id for one in known if _ends(stored.result(), one)])

    def begin(_stored: concurrent.futures.Future[Revocation]) -> None:
        error = stored.exception()
        if error is not None:
            settle(done, error=error)
        elif stored.result().scope is Scope.SESSION:
            write([stored.result().subject])
        else:
            broker.ask_records().add_done_callback(read)

    stored.add_done_callback(begin)
    return done


def _ends(revocation: Revocation, record: SessionRecord) -> bool:
    """Whether a revocation of a user or of all ends the session of this record."""
    is_meant = revocation.scope is Scope.ALL or revocation.subject in record.users
    return is_meant and record.seen < revocation.position and record.id not in revocation.keep


def _target(
    *,
    user: str | None,
    session: Session | str | None,
    connection: Connection | KnownConnection | str | None,
    topic: str | None,
    all: bool,
) -> Target:
    given = [one for one in (connection, session, user, topic) if one is not None]
    if len(given) + all != 1:
        raise TypeError("give exactly one of connection=, session=, user=, topic=, all=True")
    if connection is not None:
        return Target(TargetKind.CONNECTION, _id_of(connection))
    if session is not None:
        return Target(TargetKind.SESSION, _id_of(session))
    if user is not None:
        return Target(TargetKind.USER, str(user))
    return Target(TargetKind.ALL) if topic is None else Target(TargetKind.TOPIC, topic)


def _receipt_of(answers: Answers) -> Receipt:
    closed, missing = [], list(answers.missing)
    for worker, answer in answers.given.items():
        try:
            closed.append(Closed.of_json(answer))
        except (ValueError, TypeError, KeyError):
            logger.warning("the worker %s has answered what cannot be read: it counts as missing", worker)
            missing.append(worker)
    slowest = max((one.slowest_ms for one in closed), default=0.0)
    return Receipt(sum(one.connections for one in closed), len(closed), tuple(missing), slowest)


def _readable(presences: Iterable[Presence]) -> Iterable[KnownConnection]:
    for presence in presences:
        try:
            yield KnownConnection.of(presence)
        except (ValueError, TypeError, KeyError, AttributeError):
            logger.warning("a connection of the worker %s cannot be read, and is left out", presence.worker.id)


def _known(record: SessionRecord) -> KnownSession:
    since, expires, last_seen = (_utc(moment) for moment in (record.since, record.expires, record.last_seen))
    return KnownSession(
        record.id, record.user, since, expires, frozenset(record.users), record.seen,
        last_seen=last_seen, remote=record.remote, user_agent=record.user_agent,
    )  # fmt: skip


def _id_of(one: Session | Connection | KnownConnection | str) -> str:
    return one if isinstance(one, str) else one.id


def _as_iterable(keep: Session | str | Iterable[Session | str] | None) -> Iterable[Session | str]:
    if keep is None:
        return ()
    return (keep,) if isinstance(keep, Session | str) else keep


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
