"""What a worker has to tell Redis, in order, over one connection: revocations first, and what was not sent yet.

Everything here belongs to the broker's own event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from redis.exceptions import ResponseError

from ..exceptions import BrokerError
from . import redis_scripts as scripts
from .base import Answers, Ending, Revocation, Scope, SessionRecord
from .calls import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .base import Json
    from .redis_link import Command, Link
    from .signature import Signer

logger = logging.getLogger("dash_quart_ws.broker")

BATCH = 200
"""Revocations, records or commands that are sent in one go."""

APPENDS_WAITING = 100_000
"""Revocations that wait for the connection; what comes on top is kept by the listener only, and restored from there."""

COMMANDS_WAITING = 10_000
"""Pushes and questions that wait to be sent; what comes on top is refused."""

PAGES_WAITING = 500
"""Batches of sessions' records that wait for the connection; what comes on top is refused."""

REFUSED_PAUSE = 1.0
"""Seconds until what was refused, for want of memory above all, is tried again."""

SCOPES = {one.value: one for one in Scope}
ENDINGS = {one.value: one for one in Ending}
"""Quicker than calling the enumerations: there may be a million entries."""

PURPOSE, RECORD_PURPOSE, KEPT_PURPOSE = b"revocation", b"record", b"kept"


@dataclass(slots=True, eq=False)
class Append:
    """A revocation on its way."""

    revocation: Revocation
    stored: concurrent.futures.Future[Revocation]
    answers: concurrent.futures.Future[Answers]
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Call:
    """A command on its way, made when it is sent: it may name what was not known before."""

    make: Callable[[], Command]
    answer: concurrent.futures.Future[Any]
    again: bool
    """Whether it may be sent twice, when nobody knows whether it has arrived."""


@dataclass(slots=True)
class Page:
    """Records that are written together, the last one of each session, and who waits for that."""

    records: dict[str, SessionRecord] = field(default_factory=dict)
    written: list[concurrent.futures.Future[None]] = field(default_factory=list)
    is_sent: bool = False

    def settle(self, error: BrokerError | None = None) -> None:
        for one in self.written:
            settle(one, error=error)


class Keys:
    """The names below one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.state, self.revocations, self.stream = self("state"), self("revocations"), self("stream")
        self.alive, self.workers, self.dead = self("alive"), self("workers"), self("dead")
        self.sessions, self.sessions_expire, self.claims = self("sessions"), self("sessions-expire"), self("claims")

    def __call__(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def here(self, worker: str) -> str:
        """The connections of a worker."""
        return self(f"here:{worker}")

    def kept(self, name: str) -> str:
        """What is kept under a name, for a moment."""
        return self(f"kept:{name}")


class Outbox:
    """What is to be sent, and the task that sends it while there is a connection."""

    def __init__(self, keys: Keys, signer: Signer, timeout: float, stream_length: int) -> None:
        self._keys = keys
        self._signer = signer
        self._timeout = timeout
        self._stream_length = stream_length
        self._appends: deque[Append] = deque()
        self._batch: list[Append] = []
        self._batch_number = 0
        self._writer = secrets.token_hex(8)
        self._refused_until = 0.0
        self._calls: deque[Call] = deque()
        self._pages: deque[Page] = deque()
        self._connections: dict[str, bytes | None] = {}
        """What has changed about the connections that are here; None for one that has gone."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._says_failures = self._says_record_failures = True
        self.is_connected = False
        """Whether somebody sends what is given."""
        self.epoch = ""
        self.worker = ""
        self.records_channel = b""
        self.sealed: Callable[[bytes, bytes], bytes] = lambda _channel, body: body
        """How something is put into a message for a channel."""
        self.stored: Callable[[Append, str, int, list[str]], None] = lambda *_: None
        """Told of each revocation that is stored: under which question, its position, and who is to answer."""
        self.asked: Callable[[Append, str], None] = lambda *_: None
        """Told of each that is about to be sent for the first time, and under which question."""
        self.others: Callable[[], tuple[str, ...]] = tuple
        """The other workers, as far as they are known."""
        self.lost_some = False
        """Whether a revocation was too many for us: the listener has it."""

    # ---------------------------------------------------------------------------------------------- what is told

    def append(self, append: Append) -> None:
        """A revocation, which is tried again until it is stored."""
        if len(self._appends) >= APPENDS_WAITING:
            self.lost_some = True
            self._fail(append, "too many revocations wait for the broker")
            return
        append.timer = asyncio.get_running_loop().call_later(
            self._timeout, self._fail, append, "the broker has not confirmed the revocation: it is tried again"
        )
        self._appends.append(append)
        self._wanted()

    def pending(self) -> set[Revocation]:
        """What is not known to be stored."""
        return {one.revocation for one in (*self._batch, *self._appends)}

    def call(self, make: Callable[[], Command], *, again: bool = False) -> concurrent.futures.Future[Any]:
        """A command; when it may not be sent twice, it fails at once where it cannot be sent at all."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.put(Call(make, answer, again))
        return answer

    def put(self, call: Call) -> None:
        """The same, for who has the future already."""
        if not call.again and not self.is_connected:
            settle(call.answer, error=BrokerError("there is no connection to the broker"))
        elif len(self._calls) >= COMMANDS_WAITING:
            settle(call.answer, error=BrokerError("too much waits to be sent to the broker"))
        else:
            self._calls.append(call)
            self._wanted()

    def record(self, record: SessionRecord, written: concurrent.futures.Future[None]) -> None:
        """A session as it is now."""
        if not self._pages or self._pages[-1].is_sent or len(self._pages[-1].records) >= BATCH:
            if len(self._pages) >= PAGES_WAITING:
                settle(written, error=BrokerError("too many records wait for the broker"))
                return
            self._pages.append(Page())
            self._wanted()
        self._pages[-1].records[record.id] = record
        self._pages[-1].written.append(written)

    async def recorded(self) -> None:
        """Wait until the records that were given by now are written, or are known not to be."""
        if self._pages:
            written: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._pages[-1].written.append(written)
            await asyncio.wait({asyncio.wrap_future(written)})

    def enter(self, connection: str, facts: Json) -> None:
        """A connection is here."""
        self._connections[connection] = json.dumps(facts).encode()
        self._wanted()

    def forget_connections(self) -> None:
        """What is known of who is here is to be told anew."""
        self._connections.clear()

    def leave(self, connection: str) -> None:
        """A connection has gone."""
        self._connections[connection] = None
        self._wanted()

    def _wanted(self) -> None:
        self._wake.set()
        self._idle.clear()

    async def flush(self) -> None:
        """Wait until nothing is left to send."""
        self._wake.set()
        await self._idle.wait()

    def drop(self, why: str) -> None:
        """Fail whatever waits: nothing is sent any more."""
        for append in (*self._batch, *self._appends):
            self._fail(append, why)
        for call in self._calls:
            settle(call.answer, error=BrokerError(why))
        for page in self._pages:
            page.settle(BrokerError(why))
        self._batch = []
        for waiting in (self._appends, self._calls, self._pages, self._connections):
            waiting.clear()
        self._idle.set()

    # ----------------------------------------------------------------------------------------------- the sending

    async def run(self, link: Link) -> None:
        """Send what there is, until the connection fails."""
        while True:
            if not self._may_append() and not (self._connections or self._pages or self._calls):
                if not (self._batch or self._appends):
                    self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._send_connections(link)
            await self._send_page(link)
            while self._may_append():  # right before the commands: a login's question comes after all of them
                await self._send_batch(link)
            await self._send_calls(link)

    def disconnected(self) -> None:
        """Nobody sends any more: what may not be sent later has failed."""
        self.is_connected = False
        for call in [call for call in self._calls if not call.again]:
            self._calls.remove(call)
            settle(call.answer, error=BrokerError("the connection to the broker was lost"))

    def _may_append(self) -> bool:
        return bool(self._batch or self._appends) and time.monotonic() >= self._refused_until

    async def _send_batch(self, link: Link) -> None:
        if not self._batch:
            self._batch = [self._appends.popleft() for _ in range(min(BATCH, len(self._appends)))]
            self._batch_number += 1
            for index, append in enumerate(self._batch):
                self.asked(append, f"{self._writer}.{self._batch_number}.{index}")
        number = str(self._batch_number)
        arguments: list[str | bytes] = []
        for append in self._batch:
            one = append.revocation
            arguments += [str(one.position), repr(one.expires), text_of(one, self._signer)]
        keys = self._keys
        (answer,) = await link.call(
            script(
                scripts.APPEND,
                [keys.state, keys.revocations, keys.stream, keys.alive, keys(f"sent:{self._writer}")],
                self.epoch, self.worker, f"{self._writer}.{number}", str(self._stream_length), *arguments,
            )
        )  # fmt: skip
        if isinstance(answer, ResponseError):
            raise_if_stale(answer)
            self._refuse(answer)
            return
        if self.lost_some and not self._appends:
            raise Stale("it has to be told of more revocations than were kept for it")
        self._says_failures = True
        positions, alive = answer
        others = [worker.decode() for worker in alive if worker.decode() != self.worker]
        batch, self._batch = self._batch, []
        for index, (append, position) in enumerate(zip(batch, positions, strict=True)):
            if append.timer is not None:
                append.timer.cancel()
            self.stored(append, f"{self._writer}.{number}.{index}", int(position), others)

    def _refuse(self, answer: ResponseError) -> None:
        if self._says_failures:
            logger.error(
                "the broker refuses revocations, which hold on their own worker only until it does not: %s", answer
            )
        self._says_failures = False
        for append in (*self._batch, *self._appends):
            self._fail(append, f"the revocation could not be stored: {answer}")
        self._refused_until = time.monotonic() + REFUSED_PAUSE
        asyncio.get_running_loop().call_later(REFUSED_PAUSE, self._wake.set)

    def _fail(self, append: Append, why: str) -> None:
        """A revocation is not stored in time, or not at all."""
        if append.timer is not None:
            append.timer.cancel()
        settle(append.stored, error=BrokerError(why))
        settle(append.answers, Answers({}, self.others()))

    async def _send_connections(self, link: Link) -> None:
        changed = list(self._connections.items())[:BATCH]
        if not changed:
            return
        key = self._keys.here(self.worker)
        commands: list[Command] = [
            ("HDEL", key, connection) if facts is None else ("HSET", key, connection, facts)
            for connection, facts in changed
        ]
        for answer in await link.call(*commands):
            if isinstance(answer, ResponseError):
                logger.warning("the broker does not take who is here: %s", answer)
                break
        for connection, facts in changed:
            if self._connections.get(connection, b"") is facts:
                del self._connections[connection]

    async def _send_page(self, link: Link) -> None:
        if not self._pages:
            return
        page = self._pages[0]
        page.is_sent = True
        now = time.time()
        arguments: list[str | bytes] = [repr(now)]
        texts = []
        for record in page.records.values():
            text = record.text().encode()
            texts.append(text)
            id = record.id.encode("utf-8", "surrogatepass")
            expires = "0" if record.expires < now else repr(record.expires)
            arguments += [id, expires, self._signer.sign(RECORD_PURPOSE, text) + b" " + text]
        answers = await link.call(
            script(scripts.RECORD, [self._keys.sessions, self._keys.sessions_expire], *arguments),
            ("PUBLISH", self.records_channel, self.sealed(self.records_channel, b"[" + b",".join(texts) + b"]")),
        )
        self._pages.popleft()
        if isinstance(answers[0], ResponseError):
            if self._says_record_failures:
                logger.warning("cannot keep what is known of sessions: %s", answers[0])
            self._says_record_failures = False
            page.settle(BrokerError(f"the records could not be stored: {answers[0]}"))
        else:
            self._says_record_failures = True
            page.settle()

    async def _send_calls(self, link: Link) -> None:
        calls = [self._calls.popleft() for _ in range(min(BATCH, len(self._calls)))]
        calls = [call for call in calls if not call.answer.done()]
        if not calls:
            return
        answered = 0
        try:
            await link.send(*(call.make() for call in calls))
            for call in calls:
                answer = await link.read()
                if isinstance(answer, ResponseError):
                    raise_if_stale(answer)
                    settle(call.answer, error=BrokerError(str(answer)))
                else:
                    settle(call.answer, answer)
                answered += 1
        finally:
            for call in reversed(calls[answered:]):
                if call.again:
                    self._calls.appendleft(call)
                else:
                    settle(call.answer, error=BrokerError("the connection to the broker was lost"))


class Stale(BrokerError):  # noqa: N818 - a state, named as one
    """The data is not what this worker knows it as, or the worker was declared dead."""


def raise_if_stale(answer: ResponseError) -> None:
    """Tell an error that concerns all that was sent from one that concerns a single command."""
    if str(answer).startswith((scripts.EPOCH, scripts.DEAD)):
        raise Stale(str(answer)) from answer


def script(text: str, keys: Iterable[str], *arguments: str | bytes | float) -> Command:
    """The command that runs a script."""
    keys = list(keys)
    return ("EVALSHA", scripts.name_of(text), len(keys), *keys, *arguments)


def text_of(revocation: Revocation, signer: Signer) -> bytes:
    """A revocation without its position, signed: JSON, which is ASCII here, so that any user's id will do."""
    one = revocation
    fields = [one.scope, one.subject, one.expires, one.ending, list(one.keep), one.user, one.reason]
    text = json.dumps(fields).encode()
    return signer.sign(PURPOSE, text) + b" " + text


def entry_of(revocation: Revocation, signer: Signer) -> bytes:
    """A revocation as it is stored."""
    return b"%d %b" % (revocation.position, text_of(revocation, signer))


def revocation_of(entry: bytes, signer: Signer) -> Revocation:
    """What `entry_of` wrote.

    Raises:
        ValueError, TypeError, KeyError: somebody else did, with another key or none; or another version.
    """
    position, signature, text = entry.split(b" ", 2)
    if not signer.is_good(signature, PURPOSE, text):
        raise ValueError("it is not signed with this broker_key")
    try:
        fields = orjson.loads(text)
    except ValueError:  # a user's id that is no Unicode
        fields = json.loads(text)
    scope, subject, expires, ending, keep, user, reason = fields
    kept = tuple(keep)
    return Revocation(SCOPES[scope], subject, int(position), float(expires), ENDINGS[ending], kept, user, reason)
