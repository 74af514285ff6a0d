"""The broker of many workers, on many hosts: Redis or Valkey.

It lives in a thread with an event loop of its own, so that its plain methods may be called from any thread, that what is
asked of it is done while the app is busy, and that it can be loaded before there is a loop to serve on. Three connections:

- commands, which go out in the order in which they were given (`redis_outbox`)
- the stream of revocations, in a blocking read. Each answer, also an empty one, proves that nothing was missed up to the
  moment when the read was sent: this is what the lease is made of.
- pub/sub, for pushes, questions and answers, and other workers' records of sessions

When one of them fails, all three are made anew: join, catch up, and go on. What a worker does to join, and after which of
these steps it knows what, is `_join`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import json
import logging
import math
import os
import platform
import random
import re
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoPermissionError, ResponseError

from ..exceptions import BrokerError, ConfigurationError
from . import redis_scripts as scripts
from .base import (
    Answers,
    Appended,
    Broker,
    Listener,
    Presence,
    Revocation,
    SessionRecord,
    Target,
    Worker,
)
from .calls import Calls, settle
from .redis_link import Address, Link, pairs, valid, words
from .redis_outbox import (
    KEPT_PURPOSE,
    PURPOSE,
    RECORD_PURPOSE,
    Append,
    Call,
    Keys,
    Outbox,
    Stale,
    entry_of,
    revocation_of,
    script,
)
from .signature import Signer, claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from .base import Json
    from .redis_link import Command

logger = logging.getLogger("dash_quart_ws.broker")

T = TypeVar("T")

LEASE = 10.0
TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
"""Seconds: what is known may be so old; one step of talking to Redis may take so long; other workers may take so long."""

PROBES_PER_LEASE = 4
"""How often within a lease the store is asked whether anything is new, and is told that the worker lives."""

DEAD_AFTER = 1.5
"""Leases without a sign of life after which a worker is declared dead: it has stopped serving by then."""

BACKOFF_FIRST, BACKOFF_LONGEST = 0.05, 2.0
"""Seconds, on average twice as long as what is waited (full jitter)."""

STREAM_LENGTH = 10_000
"""Announcements that a worker may be behind before it loads everything anew."""

AT_ONCE = 1000
"""Announcements, or commands, that are read or sent in one go."""

SCANNED_AT_ONCE = 10_000
"""Stored entries that are read in one go: a few milliseconds of Redis' time."""

SORTED_AT_ONCE = 10_000
"""Positions, one after the other, whose revocations are put in order in one go: a few milliseconds."""

RECENT = 3600.0
"""Seconds for which a revocation is kept, to be written back when the store turns out not to have it."""

RECENT_AT_MOST = 100_000

PUSHES_WAITING = 10_000
"""Pushes for an event loop that is busy; what comes on top is dropped."""

REMEMBER_CLAIM = 24 * 3600
"""Seconds for which it is known who was the first to claim something."""

UNANSWERED_AT_MOST = 100_000
"""Claims without an answer that this worker knows as its own when it asks again; the oldest are forgotten beyond that."""

LIVING = ("requests", "sessions")
"""Channels that every worker hears, beside its own."""


@dataclass(slots=True)
class _Question:
    """Something that the other workers are to answer."""

    answers: concurrent.futures.Future[Answers]
    expected: set[str] | None = None
    """Who has to answer; None while that is not known."""
    given: dict[str, Json] = field(default_factory=dict)

    def so_far(self) -> Answers:
        return Answers(self.given, tuple(sorted((self.expected or set()) - self.given.keys())))

    def settle_if_complete(self) -> bool:
        if self.expected is not None and self.expected <= self.given.keys():
            settle(self.answers, Answers(self.given))
        return self.answers.done()


class RedisBroker(Broker):
    """Everything that `base` promises, for many workers.

    Args:
        url: as `redis_link.Address.of` takes it.
        secrets: gives the app's secret, and those before it, when the broker is loaded: who shares none with the others on a
            prefix is refused there. Where it gives none, nobody is asked.
        key: signs what goes through the store (`broker_key`). Everybody must have the same.
        lease: seconds for which what is known may go unproven.
        timeout: seconds that each step of talking to Redis may take.
        answer_timeout: seconds that other workers have to answer.
        serves: whether this is a worker. False for a program that publishes, revokes and asks from outside: it knows no
            revocations, has no lease, is told nothing but answers, and is nobody's `missing`. It does not know who lives,
            either: a question of its that was not sent fails with `BrokerError`, instead of naming who is missing.

    Raises:
        ConfigurationError: the URL cannot be used.
    """

    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        secrets: Callable[[], Sequence[str | bytes]] = tuple,
        key: str | bytes | None = None,
        lease: float = LEASE,
        timeout: float = TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        stream_length: int = STREAM_LENGTH,
        serves: bool = True,
    ) -> None:
        self._address = Address.of(url)
        self._secrets = secrets
        self._claims: list[bytes] = []
        self._signer = Signer(key)
        self._lease = lease
        self._timeout = timeout
        self._answer_timeout = answer_timeout
        self._stream_length = stream_length
        self._serves = serves
        self._keys = Keys(self._address.prefix)
        self._worker = _new_worker()
        self._own = {self._worker.id}

        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._thread: threading.Thread | None = None
        self._inward, self._outward = Calls(), Calls()
        """What the app says, for our loop; and what it is told, for its own."""
        self._listener = Listener()
        self._stop: Callable[[], None] = lambda: None

        self._position = self._given = 0
        """The last position that is known here, and the last that was given to a revocation which is not stored yet."""
        self._epoch = ""
        self._last = 0
        """The number of the last announcement that was read."""
        self._heard_more = asyncio.Event()
        """Set, and replaced by another one, when announcements have been read."""
        self._recent: deque[tuple[float, Revocation]] = deque(maxlen=RECENT_AT_MOST)
        self._lease_until = self._proven_until = 0.0
        self._is_lost = False
        self._is_counted = True
        """Whether the store has counted this worker among the living since the lease has passed."""
        self._proven = asyncio.Event()

        self._outbox = Outbox(self._keys, self._signer, timeout, stream_length)
        self._here: dict[str, Json] = {}
        self._living: set[str] = set()
        self._questions: dict[str, _Question] = {}
        self._unanswered: dict[str, bytes] = {}
        """What this worker has tried to claim, and what it said."""
        self._number = 0
        self._targets: Counter[Target] = Counter()
        self._channels: dict[bytes, Target] = {}
        self._own_channels: set[bytes] = set()
        self._heard_channels: set[bytes] = set()
        self._changes: dict[bytes, None] = {}
        """Channels to subscribe to, or not to any more."""
        self._hearing: dict[bytes, list[concurrent.futures.Future[None]]] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        """Connections on their way out, each for a bounded time."""
        self._was_connected = False
        self._says_loss = True
        self._says_bad = True

    # ------------------------------------------------------------------------------------------ from any thread

    def load(self) -> list[Revocation]:
        with self._loading:
            if self._thread is not None:
                raise RuntimeError("the broker has been loaded")
            if self._worker.pid != os.getpid():  # a server that imports the app, and then forks its workers
                self._worker = _new_worker()
                self._own = {self._worker.id}
            started: concurrent.futures.Future[list[Revocation]] = concurrent.futures.Future()
            thread = threading.Thread(target=self._serve, args=(started,), name="dash-quart-ws-broker", daemon=True)
            thread.start()
            try:
                loaded = started.result()
            except BaseException:
                thread.join()
                raise
            self._thread = thread
            return loaded

    def listen(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._outward.attach(loop)

    def next_position(self) -> int:
        with self._lock:
            self._given = max(self._position, self._given) + 1
            return self._given

    @property
    def last_position(self) -> int:
        return self._position

    async def position(self) -> int:
        position = await asyncio.wrap_future(self._learn(self._read_position))
        self._advance(position)
        return position

    def observe(self, position: int) -> None:
        if position > self._position:
            self._advance(position)
            # The store has to know as well: the next revocation of another worker must come after this.
            self._ask(self._asking_position)

    def append(self, revocation: Revocation) -> Appended:
        appended = Appended(concurrent.futures.Future(), concurrent.futures.Future())
        for future in appended:
            future.set_running_or_notify_cancel()  # it is for several to wait for: none of them may cancel it
        if not self._tell(self._outbox.append, Append(revocation, *appended)):
            settle(appended.stored, error=BrokerError("the broker is closed"))
            settle(appended.answers, Answers({}, tuple(self._living)))
        return appended

    def record(self, record: SessionRecord) -> concurrent.futures.Future[None]:
        written: concurrent.futures.Future[None] = concurrent.futures.Future()
        written.set_running_or_notify_cancel()
        if not self._tell(self._outbox.record, record, written):
            settle(written, error=BrokerError("the broker is closed"))
        return written

    def records(self) -> list[SessionRecord]:
        try:
            return self.ask_records().result()
        except BrokerError as error:
            logger.warning("cannot read what was known of sessions (%s): it is known again when they are seen", error)
            return []

    def ask_records(self) -> concurrent.futures.Future[list[SessionRecord]]:
        """What `records` gives, for who may not take silence for nobody: the future fails with `BrokerError`."""
        return self._learn(self._read_records)

    @property
    def worker(self) -> Worker:
        return self._worker

    def clock(self) -> float:
        return _clock()

    @property
    def lease_until(self) -> float:
        return self._lease_until

    def publish(self, target: Target, message: str) -> concurrent.futures.Future[None]:
        body, channel = message.encode(), self._channel(target)
        return self._ask(lambda: ("PUBLISH", channel, self._sealed(channel, body)), again=False)

    def subscribe(self, target: Target) -> concurrent.futures.Future[None]:
        hearing: concurrent.futures.Future[None] = concurrent.futures.Future()
        if not self._tell(self._subscribe, target, hearing):
            settle(hearing, error=BrokerError("the broker is closed"))
        return hearing

    def unsubscribe(self, target: Target) -> None:
        self._tell(self._unsubscribe, target)

    def enter(self, connection: str, facts: Json) -> None:
        self._tell(self._enter, connection, facts)

    def leave(self, connection: str) -> None:
        self._tell(self._leave, connection)

    async def connections(self) -> list[Presence]:
        return await asyncio.wrap_future(self.ask_connections())

    def ask_connections(self) -> concurrent.futures.Future[list[Presence]]:
        """What `connections` gives, for who has no event loop."""
        return self._learn(self._read_connections)

    def request(self, question: Json) -> concurrent.futures.Future[Answers]:
        answers: concurrent.futures.Future[Answers] = concurrent.futures.Future()
        answers.set_running_or_notify_cancel()
        if not self._tell(self._request, question, answers):
            settle(answers, Answers({}, tuple(self._living)))
        return answers

    def claim(self, name: str) -> concurrent.futures.Future[bool]:
        key = self._keys(f"claim:{name}").encode("utf-8", "surrogatepass")
        with self._lock:
            own = self._unanswered.pop(name, None) or secrets.token_hex(8).encode()
        # With the value that was there: asked again after a break, the first answer may have been lost.
        answer = self._ask(lambda: ("SET", key, own, "NX", "GET", "EX", REMEMBER_CLAIM))
        is_first: concurrent.futures.Future[bool] = concurrent.futures.Future()

        def know(answered: concurrent.futures.Future[Any]) -> None:
            error = answered.exception()
            if error is not None:  # it may have arrived all the same, or arrive yet
                with self._lock:
                    self._unanswered[name] = own
                    if len(self._unanswered) > UNANSWERED_AT_MOST:
                        del self._unanswered[next(iter(self._unanswered))]
            settle(is_first, None if error is not None else answered.result() in (None, own), error=error)

        answer.add_done_callback(know)
        return is_first

    def keep(self, name: str, text: str, seconds: float) -> concurrent.futures.Future[None]:
        kept: concurrent.futures.Future[None] = concurrent.futures.Future()
        key, body = self._keys.kept(name), text.encode("utf-8", "surrogatepass")
        sealed = self._signer.sign(KEPT_PURPOSE, key.encode(), body) + b" " + body
        milliseconds = str(max(1, round(seconds * 1000)))
        asked = self._ask(lambda: ("SET", key, sealed, "PX", milliseconds), again=False)
        asked.add_done_callback(lambda done: settle(kept, error=done.exception()))
        return kept

    async def take(self, name: str) -> str | None:
        key = self._keys.kept(name)
        sealed: bytes | None = await asyncio.wrap_future(self._ask(lambda: ("GETDEL", key), again=False))
        if sealed is None:
            return None
        signature, _, body = sealed.partition(b" ")
        if not self._signer.is_good(signature, KEPT_PURPOSE, key.encode(), body):
            raise BrokerError("what was kept is not signed with this broker_key")
        return body.decode("utf-8", "surrogatepass")

    def close(self) -> None:
        with self._loading:
            if self._thread is not None:
                self._tell(self._stop)
                self._thread.join()
                self._thread = None

    def _tell(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Have something done on our loop; False when there is none (any more)."""
        with self._lock:
            if self._inward.has_loop:
                self._inward.put(function, *arguments)
                return True
        return False

    def _ask(self, make: Callable[[], Command], *, again: bool = True) -> concurrent.futures.Future[Any]:
        """What Redis answers to a command, in time."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        if not self._tell(self._call, Call(make, answer, again)):
            settle(answer, error=BrokerError("the broker is closed"))
        return answer

    def _learn(self, read: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        """What a coroutine of ours gives, which runs on our loop."""
        found: concurrent.futures.Future[T] = concurrent.futures.Future()
        if not self._tell(lambda: self._spawn(read()).add_done_callback(lambda task: _pass_on(task, found))):
            settle(found, error=BrokerError("the broker is closed"))
        return found

    def _advance(self, position: int) -> None:
        with self._lock:
            self._position = max(self._position, position)

    # ------------------------------------------------------------------------------------- the thread and its life

    def _serve(self, started: concurrent.futures.Future[list[Revocation]]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live(started))
        except BaseException as error:
            settle(started, error=error)
            if not isinstance(error, BrokerError | ConfigurationError):
                logger.exception("the broker's thread has failed")

    async def _live(self, started: concurrent.futures.Future[list[Revocation]]) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = stop.set
        self._proven, self._changed, self._heard_more = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._outbox = Outbox(self._keys, self._signer, self._timeout, self._stream_length)
        self._outbox.sealed, self._outbox.asked, self._outbox.stored = self._sealed, self._asked, self._stored
        self._outbox.others = lambda: tuple(sorted(self._living))
        self._outbox.records_channel = self._name("sessions")
        self._epoch = ""
        self._claims = [claim(secret, self._address.prefix) for secret in self._secrets()]
        self._inward.attach(loop)
        living = self._spawn(self._keep_connected(started))
        if self._serves:
            self._spawn(self._watch_lease(started))
        stopping = self._spawn(stop.wait())
        try:
            await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
            elif self._outbox.is_connected:
                with contextlib.suppress(TimeoutError, BrokerError):
                    async with asyncio.timeout(self._timeout):
                        await self._outbox.flush()
                        if self._serves:
                            await asyncio.wrap_future(self._outbox.call(self._leaving, again=True))
        finally:
            with self._lock:  # from here on nobody's words are lost: they are refused
                calls = self._inward.take()
                self._inward.detach()
            for function, arguments in calls:
                function(*arguments)
            self._outbox.drop("the broker is closed")
            for question in self._questions.values():
                settle(question.answers, question.so_far())
            for waiting in self._hearing.values():
                for one in waiting:
                    settle(one, error=BrokerError("the broker is closed"))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*self._closing, return_exceptions=True)
            self._questions.clear()
            self._hearing.clear()
            self._here.clear()
            self._targets.clear()
            self._channels.clear()
            self._changes.clear()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep_connected(self, started: concurrent.futures.Future[list[Revocation]]) -> None:
        begun, wait = self.clock(), BACKOFF_FIRST
        while True:
            self._was_connected = False
            try:
                await self._be_connected(started)
            except (BrokerError, ConfigurationError) as error:
                if not started.done() and (
                    isinstance(error, ConfigurationError) or self.clock() > begun + self._timeout
                ):
                    raise type(error)(f"broker {self._address.name}: {error}") from error
                if self._was_connected:
                    wait = BACKOFF_FIRST
                if self._says_loss:
                    logger.warning("the broker %s is lost: %s", self._address.name, error)
                self._says_loss = False
            except Exception:  # a mistake of ours, or of redis-py's: without a broker the worker serves nobody
                if not started.done():
                    raise
                logger.exception("the broker %s is lost", self._address.name)
            await asyncio.sleep(random.uniform(0, wait))  # noqa: S311 - not a secret
            wait = min(2 * wait, BACKOFF_LONGEST)

    async def _be_connected(self, started: concurrent.futures.Future[list[Revocation]]) -> None:
        """One life of the three connections. Ends with the exception of the first of them that fails."""
        links = [Link(self._address, self._timeout) for _ in range(3)]
        commands, stream, channels = links
        tasks: set[asyncio.Task[None]] = set()
        try:
            for link in links:
                await link.open()
            await self._hear(channels)  # before anybody knows of this worker, and asks it something
            loaded = await self._join(commands, is_first=not started.done())
            self._tell_heard()
            loop = asyncio.get_running_loop()
            self._outbox.is_connected = True
            work = [self._outbox.run(commands), self._read_channels(channels), self._change_channels(channels)]
            if self._serves:
                work += [self._beat(), self._read_stream(stream)]
            tasks = {loop.create_task(one) for one in work}
            self._was_connected = True
            settle(started, loaded)
            if not self._says_loss:
                logger.warning("the broker %s is back", self._address.name)
            self._says_loss = True
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            self._outbox.disconnected()
            for task in tasks:
                task.cancel()
            for link in links:  # in tasks of their own: whoever cancels this one leaves none of them open
                closing = asyncio.get_running_loop().create_task(link.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            await asyncio.gather(*tasks, return_exceptions=True)
            for waiting in self._hearing.values():
                for one in waiting:
                    settle(one, error=BrokerError("the connection to the broker was lost"))
            self._hearing.clear()

    # -------------------------------------------------------------------------------------------------- joining

    async def _join(self, link: Link, *, is_first: bool) -> list[Revocation]:
        """Become one of the workers, and know all that they know: the stream's end, then the set, then on from that end.

        Returns:
            What is stored, the first time; later the listener is told what it did not know.
        """
        for answer in await link.call(*(("SCRIPT", "LOAD", text) for text in scripts.ALL)):
            if isinstance(answer, NoPermissionError):
                raise ConfigurationError(f"the broker's user may not do what is needed: {answer}") from answer
            if isinstance(answer, ResponseError):
                raise ConfigurationError(f"Redis 7 or newer, or Valkey, is needed: {answer}") from answer
        info = dict(re.findall(r"^(\w+):(.*?)\r?$", (await link.ask("INFO")).decode("utf-8", "replace"), re.MULTILINE))
        asked_at = self.clock()
        try:
            epoch, position, last, is_new = words(
                await link.ask(
                    *script(
                        scripts.JOIN, [self._keys.state, self._keys.claims],
                        info.get("run_id", ""), str(self._position), secrets.token_hex(8), *self._claims,
                    )
                )
            )  # fmt: skip
        except BrokerError as error:
            if scripts.CLAIMED in str(error):
                raise ConfigurationError(
                    f"the prefix {self._address.prefix!r} is in use by an app with another secret_key: give this one a "
                    "prefix of its own, as in broker='redis://…?prefix=my-app'"
                ) from None
            raise
        self._advance(int(position))
        self._outbox.epoch = epoch
        self._outbox.worker = self._worker.id
        if is_new == "1":
            await self._call_others(link, epoch, wait=is_first and self._serves)
        if not self._serves:
            await self._compare_keys(link)
            self._epoch = epoch
            return []
        loaded: list[Revocation] = []
        if is_first:
            if info.get("maxmemory", "0") != "0" and info.get("maxmemory_policy") != "noeviction":
                logger.warning(
                    "Redis may forget revocations when its memory is full (maxmemory-policy is %s): set it to noeviction",
                    info.get("maxmemory_policy"),
                )
            loaded = await self._load(link)
            self._epoch, self._last = epoch, int(last)
            self._lease_until = self._proven_until = asked_at + self._lease
        elif epoch != self._epoch or self._outbox.lost_some:
            await self._reload(link, epoch)
            self._epoch, self._last = epoch, int(last)
            self._outbox.lost_some = False
        else:
            await self._restore(link, epoch, [one for _, one in self._recent])
        await self._register(link, epoch)  # from here on the others know that all which is known here is stored
        return loaded

    async def _compare_keys(self, link: Link) -> None:
        """Nobody can read what is signed with another key: a revocation that no worker can read holds nowhere, and keeps the
        workers that begin later from serving.

        Raises:
            ConfigurationError: what is stored is signed with another key.
        """
        _, entries = await link.ask("ZSCAN", self._keys.revocations, 0, "COUNT", 1)
        _, sessions = await link.ask("HSCAN", self._keys.sessions, 0, "COUNT", 1)
        signed = [(PURPOSE, entry.partition(b" ")[2]) for entry in entries[::2]]  # all but the position
        signed += [(RECORD_PURPOSE, entry) for entry in sessions[1::2]]
        if signed and not any(self._is_signed_as_here(purpose, entry) for purpose, entry in signed):
            raise ConfigurationError(
                "the workers sign with another broker_key, or do not sign: give this program theirs"
            )

    def _is_signed_as_here(self, purpose: bytes, entry: bytes) -> bool:
        signature, _, text = entry.partition(b" ")
        return hmac.compare_digest(signature, self._signer.sign(purpose, text))

    async def _call_others(self, link: Link, epoch: str, *, wait: bool) -> None:
        """The data was found lost, or is another server's: let the others know at once, and give back what they know.

        A worker that begins just now waits for them: it knows nothing itself.
        """
        channel = self._name("requests")
        _, others = await link.ask("PUBSUB", "NUMSUB", channel)
        await link.ask("PUBLISH", channel, self._sealed(channel, json.dumps({"epoch": epoch}).encode()))
        until = self.clock() + 2 * self._timeout
        while wait and self.clock() < until and await link.ask("ZCARD", self._keys.alive) < others - 1:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(BACKOFF_FIRST)  # it is Redis that has to be asked

    async def _register(self, link: Link, epoch: str) -> None:
        """Tell the others of this worker and its connections; when it was declared dead, it begins anew."""
        try:
            self._heard(await link.ask(*self._sign_of_life(epoch)))
        except BrokerError as error:
            if str(error).startswith(scripts.DEAD):
                self._begin_anew()
            raise
        self._outbox.forget_connections()
        key = self._keys.here(self._worker.id)
        here = [part for connection, facts in self._here.items() for part in (connection, json.dumps(facts))]
        await link.ask("DEL", key)
        for start in range(0, len(here), AT_ONCE):
            await link.ask("HSET", key, *here[start : start + AT_ONCE])

    def _begin_anew(self) -> None:
        logger.error("this worker (%s) was taken for dead: it has been silent for too long", self._worker.id)
        self._worker = _new_worker()
        self._own.add(self._worker.id)
        self._here.clear()
        self._outward.put(self._listener.declared_dead)

    async def _load(self, link: Link) -> list[Revocation]:
        """Every revocation that is stored and has not expired.

        Raises:
            ConfigurationError: one of them cannot be read: nobody may be served without it.
        """
        stored, now = Stored(), time.time()
        async for entries in self._scan(link):
            for entry in entries:
                try:
                    revocation = revocation_of(entry, self._signer)
                except (ValueError, TypeError, KeyError) as error:
                    raise ConfigurationError(
                        f"a stored revocation cannot be read ({error}): all workers need the same broker_key and version"
                    ) from error
                if revocation.expires >= now:
                    stored.add(revocation)
        self._advance(stored.last_position)
        return stored.in_order()

    async def _scan(self, link: Link) -> AsyncIterator[Sequence[bytes]]:
        """Every stored entry, some of them twice. Redis looks for the next ones while these are read."""
        cursor = b"0"
        await link.send(self._page_from(cursor))
        while True:
            cursor, entries = valid(await link.read())
            if cursor != b"0":
                await link.send(self._page_from(cursor))
            yield entries[::2]
            if cursor == b"0":
                return

    def _page_from(self, cursor: bytes) -> Command:
        return "ZSCAN", self._keys.revocations, cursor, "COUNT", SCANNED_AT_ONCE

    async def _reload(self, link: Link, epoch: str) -> None:
        """The store is another one, or we have missed something: compare all that it has with all that is known here."""
        stored = {entry async for entries in self._scan(link) for entry in entries}
        try:
            async with asyncio.timeout(self._timeout):
                known = set(await asyncio.wrap_future(self._outward.ask(lambda: list(self._listener.known()))))
        except TimeoutError:
            raise BrokerError("the app's event loop is busy: it cannot say what it knows") from None
        known.update(one for _, one in self._recent)
        known -= self._outbox.pending()
        entries = {entry_of(one, self._signer): one for one in known}
        for entry in stored - entries.keys():
            revocation = self._read_entry(entry)
            if revocation is not None:
                self._announce(revocation, own=False)
        now = time.time()
        lacking = [one for entry, one in entries.items() if entry not in stored and one.expires >= now]
        if lacking:
            logger.warning("the broker has lost %d revocations: it gets them back", len(lacking))
            await self._restore(link, epoch, lacking)

    async def _restore(self, link: Link, epoch: str, revocations: Sequence[Revocation]) -> None:
        keys = [self._keys.state, self._keys.revocations, self._keys.stream]
        for start in range(0, len(revocations), AT_ONCE):
            arguments: list[str | bytes] = []
            for one in revocations[start : start + AT_ONCE]:
                arguments += [repr(one.expires), entry_of(one, self._signer)]
            await link.ask(*script(scripts.RESTORE, keys, epoch, str(self._stream_length), *arguments))

    # ---------------------------------------------------------------------------------- the stream, and the lease

    async def _read_stream(self, link: Link) -> None:
        block = self._lease / PROBES_PER_LEASE
        while True:
            asked_at = self.clock()
            await link.send(
                ("HMGET", self._keys.state, "epoch", "last"),
                (
                    "XREAD",
                    "COUNT",
                    AT_ONCE,
                    "BLOCK",
                    int(block * 1000),
                    "STREAMS",
                    self._keys.stream,
                    f"{self._last}-0",
                ),
            )
            state = await link.read()
            if isinstance(state, ResponseError) or state[0] is None or state[0].decode() != self._epoch:
                raise Stale("its data is not what it was")
            answer = await link.read(block + self._timeout)
            if isinstance(answer, ResponseError):
                raise BrokerError(str(answer))
            entries = answer[0][1] if answer else ()
            for name, fields in entries:
                self._take(int(name.partition(b"-")[0]), dict(pairs(fields)))
            if entries:
                self._tell_heard()
            if len(entries) < AT_ONCE:
                if self._last < int(state[1]):
                    self._miss()
                self._prove(asked_at)

    def _tell_heard(self) -> None:
        """Whoever waits to hear more looks again."""
        heard, self._heard_more = self._heard_more, asyncio.Event()
        heard.set()

    async def _read_position(self) -> int:
        position, last = map(int, await self._result(self._asking_position))
        try:
            async with asyncio.timeout(self._timeout):
                while self._serves and self._last < last:
                    await self._heard_more.wait()
                # What has left the queue is done on the app's loop before that learns of the position.
                if self._outward.has_loop and len(self._outward):
                    await asyncio.wrap_future(self._outward.ask(lambda: None))
        except TimeoutError:
            raise BrokerError("the last revocations have not been heard of in time") from None
        return position

    def _asking_position(self) -> Command:
        return script(scripts.ADVANCE, [self._keys.state], self._epoch, str(self._position))

    def _take(self, number: int, entry: dict[bytes, bytes]) -> None:
        """One announcement."""
        if int(entry[b"after"]) != self._last:
            self._miss()
        self._last = number
        revocation = self._read_entry(entry[b"entry"])
        if revocation is None:
            return
        now = self.clock()
        self._recent.append((now, revocation))
        while self._recent and self._recent[0][0] < now - RECENT:
            self._recent.popleft()
        self._advance(revocation.position)
        by = entry.get(b"by", b"").decode()
        self._announce(revocation, own=by in self._own, by=by, ask=entry.get(b"ask", b"").decode())

    def _miss(self) -> None:
        """The stream was trimmed past where we are: only the whole set can tell what was in it."""
        self._epoch = ""
        raise Stale("announcements have been missed")

    def _read_entry(self, entry: bytes) -> Revocation | None:
        try:
            return revocation_of(entry, self._signer)
        except (ValueError, TypeError, KeyError) as error:
            self._say_bad(f"a revocation that cannot be read was left out: {error}")
            return None

    def _say_bad(self, text: str) -> None:
        if self._says_bad:
            logger.error("broker %s: %s", self._address.name, text)
        self._says_bad = False
        asyncio.get_running_loop().call_later(60.0, self._may_say_bad)

    def _may_say_bad(self) -> None:
        self._says_bad = True

    def _announce(self, revocation: Revocation, *, own: bool, by: str = "", ask: str = "") -> None:
        def tell() -> None:
            answer = self._listener.revoked(revocation, own=own)
            if ask and not own:
                self._answer(by, ask, answer)

        self._outward.put(tell)

    def _prove(self, asked_at: float) -> None:
        """Up to `asked_at` nothing was missed."""
        if asked_at >= self._proven_until:  # also where the timer has not noticed yet
            self._lose()
        if self._is_lost and not self._is_counted:  # it may have been declared dead
            return
        until = self._proven_until = asked_at + self._lease
        if not self._outward.has_loop:  # nobody is told anything yet
            self._lease_until = until
            return
        self._outward.put(self._trust, until)
        if self._is_lost and until > self.clock():
            self._is_lost = False
            self._outward.put(self._listener.regained)
        self._proven.set()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost, self._is_counted = True, False
            self._outward.put(self._listener.lost)

    def _trust(self, until: float) -> None:
        self._lease_until = until

    async def _watch_lease(self, started: concurrent.futures.Future[list[Revocation]]) -> None:
        await asyncio.wait({asyncio.wrap_future(started)})
        while True:
            left = self._proven_until - self.clock()
            if left <= 0:
                self._lose()
            self._proven.clear()
            if self._is_lost:
                await self._proven.wait()
            else:
                await asyncio.sleep(left)

    # ------------------------------------------------------------------------------------- commands and questions

    def _call(self, call: Call) -> None:
        self._outbox.put(call)
        answer = call.answer
        if call.again and not answer.done():  # one that is sent once only has its answer when the connection is lost
            late = BrokerError("the broker does not answer")
            asyncio.get_running_loop().call_later(self._timeout, lambda: settle(answer, error=late))

    def _asked(self, append: Append, ask: str) -> None:
        self._questions[ask] = _Question(append.answers)

    def _stored(self, append: Append, ask: str, position: int, others: list[str]) -> None:
        self._advance(position)
        self._living = set(others)
        settle(append.stored, dataclasses.replace(append.revocation, position=position))
        self._expect(ask, others)

    def _expect(self, ask: str, others: Iterable[str]) -> None:
        """Now it is known who has to answer."""
        question = self._questions[ask]
        question.expected = set(others)
        if question.settle_if_complete():
            del self._questions[ask]
        else:
            asyncio.get_running_loop().call_later(self._answer_timeout, self._give_up, ask)

    def _give_up(self, ask: str) -> None:
        question = self._questions.pop(ask, None)
        if question is not None:
            settle(question.answers, question.so_far())

    def _request(self, question: Json, answers: concurrent.futures.Future[Answers]) -> None:
        ask, channel = secrets.token_hex(8), self._name("requests")
        body = json.dumps({"by": self._worker.id, "ask": ask, "question": question}).encode()
        self._questions[ask] = _Question(answers)
        sent = self._outbox.call(lambda: ("PUBLISH", channel, self._sealed(channel, body)))
        living = self._outbox.call(lambda: ("ZRANGE", self._keys.alive, 0, -1))

        unknown = 2

        def know(_future: concurrent.futures.Future[Any]) -> None:
            nonlocal unknown
            unknown -= 1
            if unknown:  # to ask the other one for its outcome would stop this loop, which is to learn it
                return
            error = sent.exception() or living.exception()
            if error is None:
                self._living = set(words(living.result())) - {self._worker.id}
                self._expect(ask, self._living)
            elif self._serves:
                self._expect(ask, self._living)
                self._give_up(ask)
            else:
                del self._questions[ask]
                settle(answers, error=error)

        sent.add_done_callback(know)
        living.add_done_callback(know)

    def _answer(self, by: str, ask: str, answer: concurrent.futures.Future[Json] | Json) -> None:
        """Send another worker what the listener has said, when it is known. On the app's loop, or wherever it is known."""
        if isinstance(answer, concurrent.futures.Future):
            answer.add_done_callback(lambda known: self._answer_known(by, ask, known))
            return
        channel = self._name(f"worker:{by}")
        body = json.dumps({"by": self._worker.id, "ask": ask, "answer": answer}).encode()
        self._ask(lambda: ("PUBLISH", channel, self._sealed(channel, body)), again=False)

    def _answer_known(self, by: str, ask: str, known: concurrent.futures.Future[Json]) -> None:
        if known.cancelled() or known.exception() is not None:
            logger.error(
                "no answer to another worker's question", exc_info=None if known.cancelled() else known.exception()
            )
            self._answer(by, ask, None)  # who asks need not wait: this worker has not done it
        else:
            self._answer(by, ask, known.result())

    async def _read_records(self) -> list[SessionRecord]:
        await self._outbox.recorded()
        found: list[SessionRecord] = []
        unreadable = 0
        cursor, now = b"0", time.time()
        while True:
            cursor, entries = await self._result(_command("HSCAN", self._keys.sessions, cursor, "COUNT", AT_ONCE))
            for _, entry in pairs(entries):
                signature, _, text = entry.partition(b" ")
                try:
                    if not self._signer.is_good(signature, RECORD_PURPOSE, text):
                        raise ValueError("not signed with this broker_key")  # noqa: TRY301 - one of many bad ones
                    record = SessionRecord.of_text(text)
                except (ValueError, TypeError, KeyError):
                    unreadable += 1
                else:
                    if record.expires >= now:
                        found.append(record)
            if cursor == b"0":
                break
        if unreadable:
            logger.warning("%d known sessions cannot be read: they are known again when they are seen", unreadable)
        return list({one.id: one for one in found}.values())  # a scan may give one twice

    async def _read_connections(self) -> list[Presence]:
        workers = pairs(await self._result(lambda: ("HGETALL", self._keys.workers)))
        lists = (self._result(_command("HGETALL", self._keys.here(id.decode()))) for id, _ in workers)
        found: list[Presence] = []
        for (id, facts), here in zip(workers, await asyncio.gather(*lists), strict=True):
            found += _presences(_worker_of(id.decode(), facts), here)
        return found

    async def _result(self, make: Callable[[], Command]) -> Any:
        """What Redis answers, for code on our own loop."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._call(Call(make, answer, again=True))
        return await asyncio.wrap_future(answer)

    # ----------------------------------------------------------------------------------------------- the workers

    def _enter(self, connection: str, facts: Json) -> None:
        self._here[connection] = facts
        self._outbox.enter(connection, facts)

    def _leave(self, connection: str) -> None:
        if self._here.pop(connection, None) is not None:
            self._outbox.leave(connection)

    def _sign_of_life(self, epoch: str) -> Command:
        keys, worker = self._keys, self._worker
        return script(
            scripts.BEAT, [keys.state, keys.alive, keys.workers, keys.dead, keys.here(worker.id)],
            epoch, worker.id, json.dumps([worker.host, worker.pid]), str(self._dead_after),
        )  # fmt: skip

    @property
    def _dead_after(self) -> int:
        return math.ceil(DEAD_AFTER * self._lease)

    def _heard(self, answer: Any) -> list[str]:
        """Who lives; the ids of those that have to be declared dead."""
        living, overdue = answer
        self._is_counted = True
        self._living = set(words(living)) - {self._worker.id}
        return [one for one in words(overdue) if one != self._worker.id]

    async def _beat(self) -> None:
        while True:
            for id in self._heard(await self._result(lambda: self._sign_of_life(self._epoch))):
                await self._declare_dead(id)
            await asyncio.sleep(self._lease / PROBES_PER_LEASE)

    async def _declare_dead(self, id: str) -> None:
        keys = self._keys
        claim = script(
            scripts.CLAIM, [keys.alive, keys.workers, keys.dead, keys.here(id)], id, str(self._dead_after)
        )  # fmt: skip
        claimed = await self._result(lambda: claim)
        if claimed is not None:
            worker = _worker_of(id, claimed[0])
            logger.warning("worker %s is dead: it has not been heard of for %d s", id, self._dead_after)
            here = _presences(worker, claimed[1])
            self._outward.put(lambda: self._listener.worker_died(worker, here))

    def _leaving(self) -> Command:
        keys, id = self._keys, self._worker.id
        return script(scripts.LEAVE, [keys.alive, keys.workers, keys.here(id)], id)

    # -------------------------------------------------------------------------------------------------- channels

    def _name(self, kind: str) -> bytes:
        """A channel's name. Pub/sub knows no database number, and no prefix."""
        return f"{self._address.prefix}:{self._address.database}:{kind}".encode("utf-8", "surrogatepass")

    def _channel(self, target: Target) -> bytes:
        return self._name(f"to:{target.kind}:{target.name}")

    def _sealed(self, channel: bytes, body: bytes) -> bytes:
        """A message as it travels: who says it, as which of their messages, signed for this channel."""
        self._number += 1
        sender, number = self._worker.id.encode(), b"%d" % self._number
        return b" ".join((sender, number, self._signer.sign(channel, sender, number, body), body))

    def _subscribe(self, target: Target, hearing: concurrent.futures.Future[None]) -> None:
        channel = self._channel(target)
        self._targets[target] += 1
        self._channels[channel] = target
        if channel in self._heard_channels:
            settle(hearing)
        elif not self._outbox.is_connected:
            settle(hearing, error=BrokerError("there is no connection to the broker"))
        else:
            self._hearing.setdefault(channel, []).append(hearing)
        self._change(channel)

    def _unsubscribe(self, target: Target) -> None:
        if target not in self._targets:
            return
        self._targets[target] -= 1
        if not self._targets[target]:
            del self._targets[target]
            channel = self._channel(target)
            del self._channels[channel]
            self._change(channel)

    def _change(self, channel: bytes) -> None:
        self._changes[channel] = None
        self._changed.set()

    async def _hear(self, link: Link) -> None:
        """Hear what every worker hears. On a new connection nothing is subscribed to yet."""
        heard = LIVING if self._serves else ()
        self._own_channels = {self._name(kind) for kind in (*heard, f"worker:{self._worker.id}")}
        self._heard_channels.clear()
        await link.send(("SUBSCRIBE", *self._own_channels))
        for _ in self._own_channels:
            answer = await link.read()
            if isinstance(answer, ResponseError):
                raise ConfigurationError(f"the broker's user may not do what is needed: {answer}") from answer
        self._changes = dict.fromkeys(self._channels)
        self._changed.set()

    async def _change_channels(self, link: Link) -> None:
        """Subscribe and unsubscribe; when there is nothing to do, ask from time to time whether anybody is there."""
        subscribed: set[bytes] = set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease / PROBES_PER_LEASE):
                    await self._changed.wait()
            self._changed.clear()
            commands: list[Command] = [("PING",)]
            changes, self._changes = self._changes, {}
            joins = [one for one in changes if one in self._channels and one not in subscribed]
            parts = [one for one in changes if one not in self._channels and one in subscribed]
            for command, names in (("SUBSCRIBE", joins), ("UNSUBSCRIBE", parts)):
                commands += [(command, *names[start : start + AT_ONCE]) for start in range(0, len(names), AT_ONCE)]
            subscribed.update(joins)
            subscribed.difference_update(parts)
            self._heard_channels.difference_update(parts)
            await link.send(*commands)

    async def _read_channels(self, link: Link) -> None:
        while True:
            answer = await link.read(self._lease / PROBES_PER_LEASE + self._timeout)
            if isinstance(answer, ResponseError):
                raise BrokerError(str(answer))
            match answer[0]:
                case b"message":
                    self._receive(answer[1], answer[2])
                case b"subscribe":
                    self._heard_channels.add(answer[1])
                    for hearing in self._hearing.pop(answer[1], ()):
                        settle(hearing)
                case _:
                    pass  # the answer to a ping, or to an unsubscription

    def _receive(self, channel: bytes, message: bytes) -> None:
        try:
            sender, number, signature, body = message.split(b" ", 3)
            if sender.decode() in self._own:
                return
            if not self._signer.is_good(signature, channel, sender, number, body):
                raise ValueError("it is not signed with this broker_key")  # noqa: TRY301 - told where the others are
            if not self._signer.is_next(sender, int(number)):
                raise ValueError("it was sent before")  # noqa: TRY301
            target = self._channels.get(channel)
            if target is not None:
                self._push(target, body.decode())
            elif channel in self._own_channels:
                self._take_internal(channel, json.loads(body))
        except (ValueError, TypeError, KeyError) as error:
            self._say_bad(f"a message that cannot be read was left out: {error}")

    def _push(self, target: Target, message: str) -> None:
        if len(self._outward) < PUSHES_WAITING:
            self._outward.put(lambda: self._listener.pushed(target, message))
        else:
            self._say_bad("pushes were left out: the app's event loop is busy")

    def _take_internal(self, channel: bytes, message: Any) -> None:
        if channel == self._name("sessions"):
            records = [SessionRecord(**{**one, "users": tuple(one["users"])}) for one in message]
            self._outward.put(lambda: self._listener.recorded(records))
        elif "epoch" in message:
            if str(message["epoch"]) != self._epoch:
                raise Stale("its data is not what it was")
        elif channel == self._name("requests"):
            by, ask, what = str(message["by"]), str(message["ask"]), message["question"]
            self._outward.put(lambda: self._answer(by, ask, self._listener.requested(what)))
        else:
            ask = str(message["ask"])
            question = self._questions.get(ask)
            if question is not None:
                question.given[str(message["by"])] = message["answer"]
                if question.settle_if_complete():
                    del self._questions[ask]


class Stored:
    """What is stored, as it is read, to be put in order.

    It is never sorted as a whole: with a million of them every thread of the process would stand still for most of a second.
    """

    def __init__(self) -> None:
        self._parts: dict[int, list[Revocation]] = defaultdict(list)
        self.last_position = 0

    def add(self, revocation: Revocation) -> None:
        """It may be given twice."""
        self._parts[revocation.position // SORTED_AT_ONCE].append(revocation)
        self.last_position = max(self.last_position, revocation.position)

    def in_order(self) -> list[Revocation]:
        """Each once, in the order of positions."""
        found: list[Revocation] = []
        same: list[Revocation] = []
        for number in sorted(self._parts):
            for one in sorted(self._parts.pop(number), key=lambda one: one.position):
                if same and same[0].position != one.position:
                    same = []
                if one not in same:
                    same.append(one)
                    found.append(one)
        return found


def _pass_on(task: asyncio.Task[Any], future: concurrent.futures.Future[Any]) -> None:
    if task.cancelled():
        settle(future, error=BrokerError("the broker is closed"))
    else:
        error = task.exception()
        settle(future, None if error is not None else task.result(), error=error)


def _clock() -> float:
    # Where there is one: a clock that goes on while the host sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _new_worker() -> Worker:
    host, pid = platform.node(), os.getpid()
    name = re.sub(r"[^A-Za-z0-9._-]", "-", host)[:64]
    return Worker(f"{name}:{pid}:{secrets.token_hex(4)}", host, pid)


def _worker_of(id: str, facts: bytes | None) -> Worker:
    try:
        host, pid = json.loads(facts or b"")
        return Worker(id, str(host), int(pid))
    except (ValueError, TypeError):
        return Worker(id, "", 0)


def _presences(worker: Worker, here: Sequence[bytes]) -> list[Presence]:
    return [Presence(connection.decode(), worker, json.loads(facts)) for connection, facts in pairs(here)]


def _command(*command: str | bytes | float) -> Callable[[], Command]:
    return lambda: command
