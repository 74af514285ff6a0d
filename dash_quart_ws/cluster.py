"""What the workers of one app tell one another: pushes, closes, ends of sessions, who is here, and who has died.

Without a shared broker there is nobody to tell: then each of these does its part here, and that is all.

The lease decides what a worker may do that hears nothing of the others (`Sessions.is_cut_off`, `lost`). Until it hears of
them again nobody can tell whether it was declared dead meanwhile, and its connections with it: hooks wait for that, so
that each is called once, either here or by the worker that has declared it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import orjson

from .brokers.base import Listener, Presence, Target, TargetKind
from .brokers.messages import Close, Closed, Push, RightsChanged, Subscription
from .connections.presence import KnownConnection, facts_of
from .exceptions import BrokerError
from .sessions.sessions import closed_by
from .wire import codec
from .wire.close import CloseCode, is_sendable
from .wire.messages import SetProps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from .brokers.base import Answers, Broker, Json, Revocation, SessionRecord, Worker
    from .config import Config
    from .connections.connection import Connection
    from .connections.hub import Hub
    from .connections.receipt import Pending, Receipt
    from .connections.session import Session
    from .sessions.sessions import Sessions

logger = logging.getLogger("dash_quart_ws.cluster")
security = logging.getLogger("dash_quart_ws.security")

T = TypeVar("T")

SAID_EVERY = 60.0
"""Seconds between two log lines about pushes that do not reach other workers, or cannot be read."""

WAITING_AT_MOST = 100_000
"""Hooks that wait for the broker; beyond that the oldest are left out, which is logged when the others are called."""

CLAIMED_AT_ONCE = 100
"""Ends of sessions about which the broker is asked in one go."""

RETRY_EVERY = 1.0
"""Seconds between two looks whether the broker is back."""

DIED = "its worker has died"


class Host(Protocol):
    """What the server's extension does for it."""

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], *, name: str, context: contextvars.Context | None = None
    ) -> object:
        """A task that ends with the server."""

    def connection_gone(self, connection: KnownConnection, reason: str) -> None:
        """Call the hooks of the connection's app."""

    def session_gone(self, session: Session, reason: str) -> None:
        """Call the hooks."""

    def change_rights(self, user: str) -> Pending[Receipt]:
        """Read a user's groups again, in this process."""


class Waiting(Generic[T]):
    """What waits for the broker, the oldest first. Beyond `WAITING_AT_MOST` the oldest are left out, and counted."""

    def __init__(self) -> None:
        self._line: deque[T] = deque()
        self._left_out = 0

    def __len__(self) -> int:
        return len(self._line)

    def add(self, one: T) -> None:
        """It comes after all others."""
        self._line.append(one)
        self._leave_out()

    def take(self, count: int | None = None) -> list[T]:
        """The oldest, or all: they wait no more."""
        found = len(self._line) if count is None else min(count, len(self._line))
        return [self._line.popleft() for _ in range(found)]

    def put_back(self, taken: list[T]) -> None:
        """They are still the oldest."""
        self._line.extendleft(reversed(taken))
        self._leave_out()

    def _leave_out(self) -> None:
        while len(self._line) > WAITING_AT_MOST:
            self._line.popleft()
            self._left_out += 1

    def tell(self, what: str) -> None:
        """Log how many were left out since this was told."""
        if self._left_out:
            logger.error(
                "too many ends of %s have waited for the broker: no hooks are called for %d", what, self._left_out
            )
        self._left_out = 0


class Cluster(Listener):
    """One worker among the others; belongs to the event loop that serves."""

    def __init__(self, host: Host, broker: Broker, hub: Hub, sessions: Sessions, config: Config) -> None:
        self._host = host
        self._broker = broker
        self._hub = hub
        self._sessions = sessions
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_lost = False
        self._is_ending_all = False
        self._waiting: Waiting[Callable[[], object]] = Waiting()
        """Hooks of connections that have ended while nobody could tell whether this worker was declared dead."""
        self._ends: Waiting[tuple[Session, str]] = Waiting()
        """Sessions that have ended here, and whose hooks some worker has to call."""
        self._is_claiming = self._is_looking = False
        self._said_at = -SAID_EVERY
        if broker.is_shared:
            hub.appeared, hub.vanished = broker.subscribe, broker.unsubscribe

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The broker has been loaded: hear from the others, on this loop."""
        self._loop = loop
        self._is_lost = self._is_claiming = self._is_looking = False
        self._broker.listen(self, loop)

    # --------------------------------------------------------------------------------------- what the others are told

    def push(self, target: Target, message: SetProps, path: str) -> None:
        """Set properties in the tabs of a target's connections on other workers. Never waits; a failure is logged."""
        is_here = target.kind is TargetKind.CONNECTION and bool(self._hub.of(target))
        if self._broker.is_shared and not is_here:
            self._publish(target, Push(message.payload, message.sets, path).text())

    def subscribe(self, session: str, topic: str, *, joins: bool) -> None:
        """A session joins a topic, or leaves it: so do its connections on other workers."""
        if self._broker.is_shared:
            self._publish(Target(TargetKind.SESSION, session), Subscription(topic, joins).text())

    def _publish(self, target: Target, text: str) -> None:
        self._broker.publish(target, text).add_done_callback(self._published)

    def _published(self, done: concurrent.futures.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            self._say("a push does not reach other workers: %s", done.exception())

    def _say(self, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now >= self._said_at + SAID_EVERY:
            self._said_at = now
            logger.warning(f"{text} (said once a minute)", *arguments)  # noqa: G004 - the text is a constant

    def ask(self, question: Close | RightsChanged) -> concurrent.futures.Future[Answers] | None:
        """What the other workers have done about it; None where there can be none."""
        if not self._broker.is_shared or not self._sessions.is_loaded:
            return None
        return self._broker.request(question.json())

    def entered(self, connection: Connection) -> None:
        """A connection is here."""
        if self._broker.is_shared:
            self._broker.enter(connection.id, facts_of(connection))
            connection.gone.append(self._left)

    def _left(self, connection: Connection) -> None:
        self._broker.leave(connection.id)

    async def connections(self) -> list[KnownConnection]:
        """Every connection of every living worker, the oldest first.

        Raises:
            BrokerError: the broker does not answer.
        """
        own = self._broker.worker
        found = [Presence(one.id, own, facts_of(one)) for one in self._hub.all()]
        if self._broker.is_shared:
            found += [one for one in await self._broker.connections() if one.worker.id != own.id]
        return sorted(self._readable(found), key=lambda one: one.since)

    def _readable(self, presences: Iterable[Presence]) -> list[KnownConnection]:
        known = []
        for presence in presences:
            try:
                known.append(KnownConnection.of(presence))
            except (ValueError, TypeError, KeyError):
                self._say("what a worker says of a connection cannot be read: all workers need the same version")
        return known

    # --------------------------------------------------------------------------------------- hooks, once for each end

    def when_counted(self, hook: Callable[[], object]) -> None:
        """Call this for a connection that has ended here, unless another worker does because this one was declared dead."""
        if self._is_ending_all:
            return
        if self._broker.is_shared and (self._waiting or self._is_lost or not self._sessions.is_proven):
            self._waiting.add(hook)
            self._look_later()
        else:
            hook()

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._host.spawn(self._look(), name="hooks that wait", context=contextvars.Context())

    async def _look(self) -> None:
        try:
            while self._is_lost or not self._sessions.is_proven:  # noqa: ASYNC110 - a lease is a moment
                await asyncio.sleep(RETRY_EVERY)
        finally:
            self._is_looking = False
        self._call_waiting()

    def _call_waiting(self) -> None:
        for hook in self._waiting.take():
            hook()
        self._waiting.tell("connections")

    def session_ended(self, session: Session, reason: str) -> None:
        """A session that is known here has ended: one of the workers that know it calls the hooks."""
        if not self._broker.is_shared:
            self._host.session_gone(session, reason)
            return
        if self._loop is None or not self._loop.is_running():  # nobody calls hooks, either
            return
        self._ends.add((session, reason))
        if not self._is_claiming:
            self._is_claiming = True
            self._host.spawn(self._claim_ends(), name="ends of sessions", context=contextvars.Context())

    async def _claim_ends(self) -> None:
        try:
            while self._ends:
                batch = self._ends.take(CLAIMED_AT_ONCE)
                claims = [self._broker.claim(f"end:{session.id}") for session, _ in batch]
                failed = []
                for (session, reason), claim in zip(batch, claims, strict=True):
                    try:
                        if await asyncio.wrap_future(claim):
                            self._host.session_gone(session, reason)
                    except BrokerError:
                        failed.append((session, reason))
                self._ends.put_back(failed)
                if failed:
                    await asyncio.sleep(RETRY_EVERY)
        finally:
            self._is_claiming = False
            self._ends.tell("sessions")

    # ------------------------------------------------------------------------------------------- what this one is told

    def revoked(self, revocation: Revocation, *, own: bool) -> concurrent.futures.Future[Json] | Json:
        return self._sessions.revoked(revocation, own=own)

    def known(self) -> Iterable[Revocation]:
        return self._sessions.known_revocations()

    def recorded(self, records: list[SessionRecord]) -> None:
        self._sessions.recorded(records)

    def pushed(self, target: Target, message: str) -> None:
        try:
            if target.kind is TargetKind.SESSION and '"payload"' not in message:
                self._subscribed(target.name, Subscription.of_text(message))
                return
            push = Push.of_text(message)
            if not _is_payload(push.payload):
                raise ValueError("it is no property of a component")  # noqa: TRY301 - told where the others are
        except (ValueError, TypeError, KeyError) as error:
            self._say("a push that cannot be read was left out: %r", error)
            return
        update = SetProps(None, push.payload, push.sets)
        to_all = codec.queued(update)
        for one in self._hub.of(target):
            if push.path is None or one.path == push.path:
                one.push(update, to_all)

    def _subscribed(self, session: str, subscription: Subscription) -> None:
        if subscription.joins:
            self._hub.subscribe_session(session, subscription.topic)
        else:
            self._hub.unsubscribe_session(session, subscription.topic)

    def requested(self, question: Json) -> concurrent.futures.Future[Json] | Json:
        try:
            if "close" in question:
                return self._close(Close.of_json(question))
            return self._change_rights(RightsChanged.of_json(question))
        except (ValueError, TypeError, KeyError) as error:  # another version's, or somebody else's
            self._say("a question that cannot be read was left unanswered: %r", error)
            return None

    def _close(self, question: Close) -> concurrent.futures.Future[Json]:
        if not is_sendable(question.code):
            raise ValueError("no close code")
        found = [one for one in self._hub.of(question.target) if question.path in (None, one.path) and not one.ended]
        return closed_by([one.end(question.code, question.reason) for one in found])

    def _change_rights(self, question: RightsChanged) -> concurrent.futures.Future[Json]:
        answer: concurrent.futures.Future[Json] = concurrent.futures.Future()

        def know(receipt: concurrent.futures.Future[Receipt]) -> None:
            done = receipt.result()  # it fails for nobody
            answer.set_result(Closed(done.closed, done.slowest_ms).json() if done.confirmed else None)

        self._host.change_rights(question.user).add_done_callback(know)
        return answer

    def worker_died(self, worker: Worker, connections: list[Presence]) -> None:
        security.warning("worker-died worker=%.128r connections=%d", worker.id, len(connections))
        for one in self._readable(connections):
            session = one.session
            security.info(
                "close user=%.64r session=%s connection=%s code=None reason=%.64r worker=%.128r",
                one.user, getattr(session, "id", None), one.id, DIED, worker.id,
            )  # fmt: skip
            self._host.connection_gone(one, DIED)
            if session is not None and self._sessions.is_over(session):
                self.session_ended(session, DIED)

    def declared_dead(self) -> None:
        security.error("declared-dead connections=%d", len(self._hub))
        self._waiting = Waiting()  # another worker calls these
        self._is_ending_all = True
        try:
            for connection in self._hub.all():
                connection.end(CloseCode.RESTART, "the server was away")
        finally:
            self._is_ending_all = False

    def lost(self) -> None:
        self._is_lost = True
        refuses = self._config.on_broker_loss == "refuse"
        bound = [one for one in self._hub.all() if one.bound_to] if refuses else []
        action = "refuse" if refuses else "continue: what other workers revoke from now on does not hold here"
        security.error(
            "broker-lost worker=%.128r lease=%g connections=%d action=%r",
            self._broker.worker.id, self._config.lease, len(bound), action,
        )  # fmt: skip
        verdict = self._sessions.cut_off
        for connection in bound:
            connection.end(*verdict)
        if refuses:
            self._sessions.cut_work()

    def regained(self) -> None:
        self._is_lost = False
        security.warning("broker-back worker=%.128r", self._broker.worker.id)
        self._sessions.begin_anew()
        self._call_waiting()
        self._host.spawn(self._catch_up(), name="sessions seen elsewhere", context=contextvars.Context())

    async def _catch_up(self) -> None:
        """Renewals that other workers have recorded while nothing was heard of them."""
        self._sessions.recorded(await asyncio.to_thread(self._broker.records))


def _is_payload(text: str) -> bool:
    """Whether this is what `Push.payload` has to be: anything else would spoil the frame that it goes out in."""
    try:
        value = orjson.loads(text)
    except ValueError:  # text that is no Unicode, or a number that is none
        value = json.loads(text)
    return (
        isinstance(value, dict) and isinstance(value.get("componentId"), str) and isinstance(value.get("props"), dict)
    )
