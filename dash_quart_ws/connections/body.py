"""The body of a callback over HTTP: it is read when somebody wants it, and by then it is known how large it may be.

Quart reads a request's body beside the view, and has decided about its size before anybody knows whose request it is.
Here nothing is taken from the server until the body is wanted. Until then TCP pushes back, and the guard may raise the
limit for a visitor whom it has recognised.

A large one waits for its turn before that. Once it has begun it has to get on: a client may be slow, but not stall.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any, cast

from quart import current_app, request
from quart.wrappers.request import Body
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from ..exceptions import TooManyCallbacks
from .shares import NOBODY_SHARES, is_nobody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Set

logger = logging.getLogger("dash_quart_ws.callbacks")

LARGE = 1024 * 1024
"""Bytes beyond which a body waits for its turn, and is parsed in a thread."""

AT_ONCE = 2
"""Large bodies of one user, or for nobody of one address, that are read at a time."""

MOST_WAITING = 128
"""Large bodies of one payer that may wait for their turn. A client that goes meanwhile is not noticed: its body is not read,
and what is known of the request stays until the turn has come."""

MOST_WAITING_NOBODYS = 1024
"""How many of them may be those of all who are nobody."""

WARNING_EVERY = 60.0
"""Seconds between two log lines about uploads that are one too many."""

SLOWEST = 16 * 1024
"""Bytes per second below which a body is not on its way any more. A body of 40 MB takes 40 minutes at that rate."""


MOST_OBJECTS = 1_000_000
"""Objects and arrays in one body, as near as counting their brackets tells: Python's parser keeps everybody waiting while it
makes them, a third of a second for so many, and they take 64 bytes and more each. A large upload is one long string."""


class CallbackBody(Body):
    """A request's body that says when it is wanted.

    Quart's own counts what it is given in some releases, and in others (0.23) only what somebody has taken: this one keeps
    to its limit by itself, and drops what still comes once nobody is there to take it.

    `patience`: seconds in which it has to be complete, or else to have grown as much as at the rate of `SLOWEST`, over and
    over again; None: it may stall.
    """

    def __init__(
        self, expected: int | None, limit: int | None, patience: float | None, wanted: asyncio.Event | None = None
    ) -> None:
        super().__init__(expected, limit)
        self.patience = patience
        self.wanted = wanted or asyncio.Event()
        self.size = 0
        """Bytes that have come so far."""
        self.is_parsed = False
        self._limit = limit
        self._come_so_far = bytearray()
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._too_large = expected is not None and limit is not None and expected > limit
        if self._too_large:
            self._ended.set()  # it is refused: there is nothing to wait for

    async def put(self, data: bytes) -> None:
        """Quart 0.23 says so."""
        self.append(data)

    def append(self, data: bytes) -> None:
        """Quart up to 0.22 says so."""
        self.size += len(data)
        if not data or self._ended.is_set():
            return
        self._come_so_far.extend(data)
        self._news.set()
        if self._limit is not None and len(self._come_so_far) > self._limit:
            self._too_large = True
            self.set_complete()

    def set_complete(self) -> None:
        self._ended.set()
        self._news.set()

    def disconnect(self) -> None:
        """The client has gone: who waits for the body is cancelled by Quart."""

    def drop(self) -> None:
        """The request has been answered: what still comes is for nobody."""
        self.set_complete()
        self._come_so_far.clear()
        self.wanted.set()

    def set_result(self, data: bytes) -> None:
        self.append(data)
        self.set_complete()

    def clear(self) -> None:
        self._come_so_far.clear()

    async def __anext__(self) -> bytes:
        self.wanted.set()
        self._refuse()
        async with asyncio.timeout(self.patience):
            await self._news.wait()
        self._refuse()
        if not self._come_so_far:
            raise StopAsyncIteration
        data = bytes(self._come_so_far)
        self._come_so_far.clear()
        if not self._ended.is_set():
            self._news.clear()
        return data

    def __await__(self) -> Generator[Any, None, Any]:
        self.wanted.set()
        self._refuse()
        yield from self._come().__await__()
        self._refuse()
        return bytes(self._come_so_far)

    def _refuse(self) -> None:
        if self._too_large:
            raise RequestEntityTooLarge

    async def _come(self) -> None:
        while not self._ended.is_set():
            before = self.size
            try:
                async with asyncio.timeout(self.patience):
                    await self._ended.wait()
            except TimeoutError:
                if self.size - before < SLOWEST * (self.patience or 0):
                    raise RequestTimeout from None


def http_class(previous: type[Any], paths: Set[str]) -> type[Any]:
    """A class for `Quart.asgi_http_class`: the one that was there, with such a body for these paths."""

    class DashHTTPConnection(previous):  # type: ignore[misc]
        """Quart's ASGI request; the body of a callback waits until it is wanted."""

        def _create_request_from_scope(self, send: Any) -> Any:
            request = super()._create_request_from_scope(send)
            # An app's own class of bodies is left alone.
            if request.path in paths and type(request.body) is Body:
                limit = self.app.config["MAX_CONTENT_LENGTH"]
                request.body = CallbackBody(request.content_length, limit, request.body_timeout)
                request.body_timeout = None  # which counts from beginning to end
            return request

        async def handle_messages(
            self, request: Any, receive: Callable[[], Awaitable[Any]], *view: asyncio.Task[Any]
        ) -> None:
            """`view`: the task of the request, in Quart 0.23, which otherwise cancels this one at that task's end."""
            if isinstance(request.body, CallbackBody):
                for task in view:
                    task.add_done_callback(lambda _: request.body.drop())
                await request.body.wanted.wait()
            await super().handle_messages(request, receive, *view)

    return DashHTTPConnection


def allow(limit: int) -> None:
    """Let the current request's body be this large, in bytes, where the server's `MAX_CONTENT_LENGTH` allows less.

    Nothing happens when it is read already: an app's own `before_request` may have wanted it.
    """
    own: int | None = current_app.config["MAX_CONTENT_LENGTH"]
    body = request.body
    if own is not None and own < limit and isinstance(body, CallbackBody) and not body.wanted.is_set():
        request.max_content_length = limit
        request.body = CallbackBody(request.content_length, limit, body.patience, body.wanted)


def size_here() -> int:
    """The size of the current request's body as far as it has come; 0 for one of an app's own class."""
    body = request.body
    return body.size if isinstance(body, CallbackBody) else 0


class Uploads:
    """Large bodies are read a few at a time, and users take turns. Belongs to the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_nobody = -(-most // NOBODY_SHARES)
        self._reading: Counter[str] = Counter()
        self._reading_nobody = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._warned_at = -math.inf

    @property
    def reading(self) -> int:
        """Large bodies that are being read, or parsed."""
        return self._reading.total()

    @property
    def waiting(self) -> int:
        """Large bodies that wait for their turn."""
        return sum(map(len, self._waiting.values()))

    async def json(self, payer: str) -> Any:
        """What the JSON of the current request says; None if it is no JSON. It is kept by the request.

        Args:
            payer: whose turn a large body takes: `Sessions.payer()`.

        Raises:
            TooManyCallbacks: too many large bodies wait already, of this payer or of all who are nobody.
        """
        length, body = request.content_length, request.body
        if not request.is_json:
            return None
        if (length is not None and length <= LARGE) or (isinstance(body, CallbackBody) and body.is_parsed):
            return await _json()
        async with self._turn(payer):
            data = cast("bytes", await request.get_data())
            if len(data) > LARGE and data.count(b"{") + data.count(b"[") > MOST_OBJECTS:
                raise RequestEntityTooLarge
            answer = await (_json() if len(data) <= LARGE else asyncio.to_thread(asyncio.run, _json()))
        if isinstance(body := request.body, CallbackBody):
            body.is_parsed = True
        return answer

    @contextlib.asynccontextmanager
    async def _turn(self, payer: str) -> AsyncIterator[None]:
        if self._is_full(payer):
            if (now := time.monotonic()) > self._warned_at + WARNING_EVERY:
                self._warned_at = now
                logger.warning("too many large uploads wait for their turn: %d, also of %.64r", self.waiting, payer)
            raise TooManyCallbacks
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(payer, deque()).append(turn)
        self._begin_what_may()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._reading[payer] -= 1
                self._reading_nobody -= is_nobody(payer)
                if not self._reading[payer]:
                    del self._reading[payer]
            else:
                with contextlib.suppress(KeyError, ValueError):  # it has been found, and left out
                    self._waiting[payer].remove(turn)
            self._begin_what_may()

    def _begin_what_may(self) -> None:
        for payer in list(self._waiting):
            queue = self._waiting[payer]
            while queue and queue[0].done():  # its client has gone
                queue.popleft()
            if queue and self._may_begin(payer):
                self._reading[payer] += 1
                self._reading_nobody += is_nobody(payer)
                queue.popleft().set_result(None)
                self._waiting.move_to_end(payer)  # the next turn is somebody else's
            if not queue:
                del self._waiting[payer]

    def _is_full(self, payer: str) -> bool:
        if len(self._waiting.get(payer, ())) >= MOST_WAITING:
            return True
        nobodys = sum(len(queue) for waiting, queue in self._waiting.items() if is_nobody(waiting))
        return is_nobody(payer) and nobodys >= MOST_WAITING_NOBODYS

    def _may_begin(self, payer: str) -> bool:
        return (
            self.reading < self._most
            and self._reading[payer] < AT_ONCE
            and (not is_nobody(payer) or self._reading_nobody < self._most_nobody)
        )


async def _json() -> Any:
    try:
        return await request.get_json(silent=True)
    except (UnicodeDecodeError, RecursionError):  # no JSON either, but Quart does not silence these
        return None
