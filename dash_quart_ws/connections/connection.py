"""One accepted websocket: its reader, its writer, the callbacks that it started, and its ordered teardown.

The order in which a connection ends is a promise (SECURITY of the user guide has it in words):

1. `end` is called, on the event loop, and does not wait for anything: the protocol is ended, so nothing that the client
   sends means anything; the writer is stopped, so nothing more is handed to the server; the connection leaves the hub;
   waiting `get_prop` calls are told; async callbacks are cancelled, and what threads return is dropped.
2. The close frame is sent.
3. After `close_timeout` the transport is reset, whatever the client does.

Nothing above waits for a callback. Who ends a connection from one of its own callbacks is cancelled last.

There is one exception, of a callback that logs its own user out (`let_out`): it goes on, for `cancel_timeout` at most, and
its outcome, which nothing else precedes or follows, goes out before the close frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import logging
import secrets
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..exceptions import NotConnected, PropertyUnavailable, TooManyCallbacks
from ..wire import codec, messages
from ..wire.close import CloseCode
from ..wire.protocol import CheckPage, Drop, Resolve, Run, Send, State
from ..wire.protocol import Protocol as WireProtocol
from .asgi import Disconnected, Socket
from .handover import Handover
from .rate import TokenBucket
from .receipt import Pending
from .renderer import Renderer
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..config import Config
    from ..wire.protocol import Action
    from .session import Session
    from .shares import Share

logger = logging.getLogger("dash_quart_ws.connection")

LARGE = 8 * 1024
"""Characters of a message that a thread may not leave behind for the event loop: so little waits there, however many do."""

_making = threading.Lock()
"""Held while a thread makes a connection's `Handover`: another one may want it at the same time."""

COMPLAINTS_LOGGED = 10
"""Bad messages of one connection that get a line in the log; the last line says that there will be no more."""

SHORTEST_PAUSE = 0.05
"""Seconds: less than that is owed for a while, so that a client that is too fast does not cost a pause for each message."""

TOKEN_BYTES = 16 * 1024
"""A message costs one token more for each so many bytes: reading large ones takes as long as reading many."""


class Callbacks(Protocol):
    """Who runs what a connection is asked for."""

    def is_stale(self, connection: Connection, page: Any) -> bool:
        """Whether a page token is of another session than the connection's."""
        ...

    def refusal(self, connection: Connection, request: messages.CallbackRequest) -> str | None:
        """Why a request is not even tried, in words for the browser; None if it may be."""
        ...

    async def run(self, renderer: Renderer, request: messages.CallbackRequest) -> messages.Outbound | None:
        """The outcome of a tab's callback request; called in a task of its own. None: it has been answered already."""
        ...


class Connection:
    """One accepted websocket. The app sees `id`, `user`, `session`, `since`, `remote` and `renderers`.

    Everything else is for the package. All methods but `send` belong to the event loop.
    """

    # Above 30 attributes each instance without slots has a dict of its own, of 1.6 kB.
    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_bad_this_minute",
        "_bucket",
        "_closed",
        "_closing",
        "_complaints",
        "_config",
        "_cut_off",
        "_ended_at",
        "_from_threads",
        "_held_bytes",
        "_last_word",
        "_loop",
        "_minute",
        "_parting",
        "_questions",
        "_reader",
        "_renderers",
        "_renderers_at_end",
        "_share",
        "_size",
        "_socket",
        "_tasks",
        "_thread",
        "_warned_of_callbacks",
        "_wire",
        "_writer",
        "bound_to",
        "bridge",
        "gone",
        "heard_at",
        "heartbeat",
        "id",
        "path",
        "remote",
        "seen_at",
        "session",
        "since",
        "user",
        "visitor",
    )

    def __init__(
        self,
        socket: Socket,
        config: Config,
        *,
        user: str | None,
        session: Session | None,
        bound_to: tuple[Session, ...],
        remote: str | None,
        path: str,
        share: Share,
        visitor: str | None = None,
        cut_off: Callable[[], tuple[int, str] | None] | None = None,
    ) -> None:
        """`cut_off`: asked before each frame, how the connection has to end instead; None: it need not be asked."""
        self.id = secrets.token_hex(8)
        self.user = user
        """The user's `auth_id` as the singleton `QuartAuth` resolved it; None for nobody."""
        self.session = session
        """The `Session` of the singleton `QuartAuth`; None for nobody."""
        self.since = dt.datetime.now(dt.UTC)
        """When the connection was accepted, in UTC."""
        self.remote = remote
        """The client's address, as the server or its `ProxyFixMiddleware` gives it."""
        self.path = path
        """The websocket's path; it tells which Dash app of the server the connection belongs to."""
        self.bound_to = bound_to
        """The sessions of every `QuartAuth` extension of the server: the first one to end ends the connection."""
        self.visitor = visitor
        """The browser's public name, for a connection without a session."""
        self.heartbeat = 0.0
        """Seconds between two signs of life that the client was asked for; 0 for none."""
        self._socket = socket
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._bucket = TokenBucket(per_second=config.messages_per_second, burst=config.messages_burst)
        self._share = share
        self._held_bytes = 0
        """What the callbacks in flight came in."""
        self._size = 0
        """Of the message that is being read, in bytes; an array counts whole for each of its callbacks."""
        self._warned_of_callbacks = False
        self._thread = threading.get_ident()
        self._wire = WireProtocol(config.renderers_per_connection if socket.bridge else None)
        self._cut_off = cut_off
        self._writer = Writer(
            socket.send_text if cut_off is None else functools.partial(Connection._send_proven, weakref.proxy(self)),
            max_bytes=config.outbound_bytes,
            max_messages=config.outbound_messages,
            keeps_order=socket.bridge,
            on_overflow=functools.partial(Connection._overflow, weakref.proxy(self)),  # no circle: see `_finish`
            on_not_taken=functools.partial(Connection._not_taken, weakref.proxy(self)),
            by_hand=socket.is_direct,
        )
        self._from_threads: Handover[codec.Queued] | None = None
        self.bridge = socket.bridge
        """Whether the client has offered our subprotocol: then its tabs attach, and it fans pushes out to them."""
        self.heard_at = self._loop.time()
        """When the client was last heard, on the event loop's clock."""
        self.seen_at = 0.0
        """Unix time at which a callback of it was last noted as a sign of its session's life."""
        self._renderers: dict[str, Renderer] = {}
        self._renderers_at_end: tuple[str, ...] = ()
        self._tasks: dict[asyncio.Task[None], tuple[messages.CallbackRequest, int]] = {}
        self._questions: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._complaints = 0
        self._bad_this_minute = 0
        self._minute = 0.0
        self._parting: asyncio.Task[None] | None = None
        """The callback whose outcome is to go out whoever ends the connection."""
        self._last_word: messages.Outbound | None = None
        self._closing: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._abandoned = False
        self._ended_at = 0.0
        self._closed: Pending[float] | None = None
        self.gone: list[Callable[[Connection], None]] = []
        """Called when the connection has ended, whoever ended it: once, before anything waits."""

    @property
    def login_required(self) -> bool | str:
        """What the connection's own Dash app says: another app of the server may say otherwise."""
        return self._config.login_required

    def __repr__(self) -> str:
        return f"<Connection {self.id} user={self.user!r} remote={self.remote!r}{' ended' if self.ended else ''}>"

    @property
    def payer(self) -> str:
        """Whose share its callbacks count against: its user's, or for nobody an address's."""
        return f"address {self.remote}" if self.user is None else f"user {self.user}"

    @property
    def renderers(self) -> tuple[str, ...]:
        """The tabs that are attached, by Dash's `rendererId`, the most recent one last.

        Dash's own worker attaches none: of its tabs these are the ones that have been heard of.
        """
        return tuple(self._renderers) or self._renderers_at_end

    @property
    def ended(self) -> bool:
        """Whether the connection is over, or about to be: nothing starts and nothing is sent any more."""
        return self._wire.state is State.ENDED

    @property
    def closed(self) -> Pending[float]:
        """Resolved when the close frame is out, or the transport reset: milliseconds since `end`."""
        if self._closed is None:  # it takes up 2 kB, and most connections are open
            self._closed = Pending()
        return self._closed

    @property
    def close_code(self) -> int | None:
        """Why it ended; None while it has not."""
        return self._wire.close_code

    @property
    def close_reason(self) -> str:
        """Why it ended, in words."""
        return self._wire.close_reason

    # ------------------------------------------------------------------------------------------- the way down

    def welcome(self, heartbeat: float) -> None:
        """Say the first word, to a client that expects it. `heartbeat`: milliseconds between two of its own; 0 for none."""
        self.heartbeat = heartbeat / 1000
        if self.bridge:
            self.send(messages.Welcome(self.id, self._session_id, self._config.message_bytes, heartbeat))

    @property
    def _session_id(self) -> str | None:
        return None if self.session is None else self.session.id

    async def serve(
        self,
        callbacks: Callbacks,
        screen: Callable[[dict[str, Any]], Coroutine[Any, Any, tuple[int, str] | None]] | None = None,
    ) -> None:
        """Read until the client has gone or the connection has been ended; leave nothing behind.

        `screen` sees each of Dash's messages before it counts, and answers with a close code and a reason to end the
        connection, or None.
        """
        self._reader = asyncio.current_task()
        try:
            while True:
                # In a coroutine of its own: a connection that waits for its client keeps nothing of what came last.
                await self._take(await self._socket.receive(), callbacks, screen)
        except Disconnected:
            if not self.ended:
                self._socket.reset_later(self._config.close_timeout)
            self.end(CloseCode.GOING_AWAY, "the client has gone", silent=True)
        except asyncio.CancelledError:
            if self._abandoned:
                return
            # The server takes its tasks away: all that is left is to say so.
            self.end(CloseCode.RESTART, "the server is going down")
            raise
        finally:
            await self._finish()

    async def _take(
        self,
        data: str | bytes,
        callbacks: Callbacks,
        screen: Callable[[dict[str, Any]], Coroutine[Any, Any, tuple[int, str] | None]] | None,
    ) -> None:
        self.heard_at = self._loop.time()
        if self.ended or self._is_too_big(data):
            return  # it is read all the same, so that the server can tell us that the client has hung up
        decoded = codec.decode(data)
        for message, source in decoded:
            if screen is not None and source is not None and not self.ended and not self._is_ours(message):
                verdict = await screen(source)
                if verdict is not None:
                    self.end(*verdict)
            action = self._wire.receive(message)  # nothing once ended, also if that happened meanwhile
            if action is not None:
                self._do(action, callbacks)
        owed = self._bucket.take(len(decoded) + self._size // TOKEN_BYTES, self.heard_at)
        if owed > SHORTEST_PAUSE:
            await self._pause(owed)

    def _is_too_big(self, data: str | bytes) -> bool:
        """Whether a message is larger than any may be, which ends the connection. Its size is noted."""
        is_plain = isinstance(data, bytes) or data.isascii()
        self._size = len(data) if is_plain else len(cast("str", data).encode("utf-8", "surrogatepass"))
        if self._size > self._config.inbound_bytes:
            self.end(CloseCode.TOO_BIG, "message too big")
        return self._size > self._config.inbound_bytes

    async def _pause(self, seconds: float) -> None:
        if not self.ended:
            self.heard_at += seconds  # until then it is we who do not listen
            await self._socket.pause(seconds)

    def _is_ours(self, message: messages.Inbound) -> bool:
        """Whether this is a message that Dash does not know, between our browser code and us."""
        return self.bridge and isinstance(message, messages.Attach | messages.Detach)

    def _do(self, action: Action, callbacks: Callbacks) -> None:
        match action:
            case Run(request):
                self._start(request, callbacks)
            case Resolve(request_id, props, error):
                question = self._questions.get(request_id)
                if question is not None and not question.done():
                    if error is None:
                        question.set_result(props)
                    else:
                        question.set_exception(PropertyUnavailable(f"the browser says {error[:64]!r}"))
            case Send(message, complaint):
                if complaint is not None:
                    self.complain(complaint)
                self.send(message)
            case CheckPage(renderer_id, page):
                self._check_page(renderer_id, page, callbacks)
            case Drop(renderer_id):
                self._drop(renderer_id)

    def _start(self, request: messages.CallbackRequest, callbacks: Callbacks) -> None:
        refusal = callbacks.refusal(self, request)
        if refusal is not None and refusal != messages.STALE_PAGE:  # a page that is left open is no offence
            self.complain(refusal)
        if refusal is None and not self._take_share():
            refusal = str(TooManyCallbacks())
        if refusal is not None:
            self._wire.finished(request)
            self.send(messages.CallbackFailed(request.request_id, request.renderer_id, refusal))
            return
        renderer = self._renderers[request.renderer_id] if self.bridge else self._remember(request.renderer_id)
        run = self._run(renderer, request, callbacks)
        task = self._loop.create_task(run, name=f"callback {request.output[:80]}")
        self._tasks[task] = request, self._size
        renderer.tasks[task] = None
        task.add_done_callback(functools.partial(self._task_done, renderer))

    def _take_share(self) -> bool:
        """Whether one more callback may be in flight; it is counted from here until its task is done.

        A page that asks for too much is no offence: it does not count as a bad message.
        """
        config = self._config
        if (
            len(self._tasks) < config.callbacks_per_connection
            and self._held_bytes < config.callback_bytes_per_connection
            and self._share.take(self._size)
        ):
            self._held_bytes += self._size
            return True
        if not self._warned_of_callbacks:
            self._warned_of_callbacks = True
            logger.warning(
                "too many callbacks connection=%s user=%.64r: %d in flight on it with %d bytes, %d of its user (further ones "
                "are not logged)",
                self.id, self.user, len(self._tasks), self._held_bytes, self._share.count,
            )  # fmt: skip
        return False

    def _check_page(self, renderer_id: str, page: str, callbacks: Callbacks) -> None:
        if callbacks.is_stale(self, page):
            if self._wire.detached(renderer_id):
                self._drop(renderer_id)
            self.send(messages.Stale(renderer_id))
            return
        self._wire.attached(renderer_id)
        if renderer_id not in self._renderers:
            self._renderers[renderer_id] = Renderer(self, renderer_id)
            logger.debug("attached connection=%s renderer=%.64r", self.id, renderer_id)
        self._renderers[renderer_id].page = page  # it may be another one of the same session
        self.send(messages.Attached(renderer_id, self._session_id))

    def _drop(self, renderer_id: str) -> None:
        logger.debug("detached connection=%s renderer=%.64r", self.id, renderer_id)
        self._renderers.pop(renderer_id).drop()

    async def _run(self, renderer: Renderer, request: messages.CallbackRequest, callbacks: Callbacks) -> None:
        if renderer.gone:  # between the request and the task's first step
            return
        logger.debug("run connection=%s request=%s output=%.64r", self.id, request.request_id, request.output)
        outcome = await callbacks.run(renderer, request)
        logger.debug("sent connection=%s request=%s %s", self.id, request.request_id, type(outcome).__name__)
        if self._parting is not None and self._parting is asyncio.current_task() and self.ended:
            self._last_word = outcome
        elif outcome is not None:
            renderer.send(outcome)

    def is_running(self, request: messages.CallbackRequest) -> bool:
        """Whether the callback of a request is not done yet. From the event loop or from a thread."""
        return any(one is request for one, _ in list(self._tasks.values()))

    def let_out(self, request: messages.CallbackRequest) -> None:
        """The callback of this request is about to end the connection: its own outcome is sent all the same."""
        if not self.ended:
            self._parting = next((task for task, (one, _) in self._tasks.items() if one is request), None)

    def _task_done(self, renderer: Renderer, task: asyncio.Task[None]) -> None:
        renderer.tasks.pop(task, None)
        request, size = self._tasks.pop(task)
        self._wire.finished(request)  # here, because a task may be cancelled before its first step
        self._held_bytes -= size
        self._share.give_back(size)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a callback's task failed connection=%s", self.id, exc_info=error)
            renderer.send(messages.CallbackFailed(request.request_id, request.renderer_id, "Callback failed"))

    def _remember(self, renderer_id: str) -> Renderer:
        """Where tabs do not attach: the ones that were heard of last get pushes."""
        renderer = self._renderers.pop(renderer_id, None) or Renderer(self, renderer_id)
        self._renderers[renderer_id] = renderer
        if len(self._renderers) > self._config.renderers_per_connection:
            del self._renderers[next(iter(self._renderers))]
        return renderer

    def complain(self, complaint: str) -> None:
        """One line in the log about something bad that the client sent; after a few of them, no more.

        A client that goes on and on is up to no good: that closes the connection.
        """
        self._complaints += 1
        minute = self._loop.time() // 60
        self._bad_this_minute = self._bad_this_minute + 1 if minute == self._minute else 1
        self._minute = minute
        if self._complaints <= COMPLAINTS_LOGGED:
            last = " (further ones of this connection are not logged)" if self._complaints == COMPLAINTS_LOGGED else ""
            logger.warning("bad message connection=%s user=%.64r: %s%s", self.id, self.user, complaint, last)
        if self._bad_this_minute > self._config.bad_messages_per_minute and not self.ended:
            self.end(CloseCode.ABUSE, "too many bad messages")

    # --------------------------------------------------------------------------------------------- the way up

    def send(self, message: messages.Outbound) -> None:
        """Queue one message. From the event loop, where it never waits, or from a thread; nothing happens once ended."""
        self.send_queued(codec.queued(message))

    def send_queued(self, queued: codec.Queued) -> None:
        """The same for a message that is text already. The one place where a thread hands over to the event loop."""
        if self.ended:
            return
        if threading.get_ident() != self._thread:  # asking for the running loop would take ten times as long
            self._handover().put(queued, is_large=len(queued.text) > LARGE)
            return
        if self._from_threads:  # a callback's result does not overtake what its thread has sent before
            self._from_threads.take()
        self._writer.put(queued)

    def _send_proven(self, text: str) -> Coroutine[Any, Any, None]:
        """Send a frame unless nobody can tell whether the session has ended: a process that was suspended may not know."""
        verdict = None if self._cut_off is None else self._cut_off()
        if verdict is None:
            return self._socket.send_text(text)
        self.end(*verdict)
        return _nothing()

    def _handover(self) -> Handover[codec.Queued]:
        """Made when a thread first sends: most connections never need it."""
        if self._from_threads is None:
            with _making:
                if self._from_threads is None:
                    self._from_threads = Handover(self._loop, self._writer.put)
        return self._from_threads

    def push(self, message: messages.SetProps, to_all: codec.Queued) -> None:
        """Set properties in every tab. Both are encoded once, whoever they go to.

        Args:
            message: a `SetProps` of no tab in particular.
            to_all: the same, encoded, for a client that fans it out by itself.
        """
        if self.bridge:
            if self._renderers:
                self.send_queued(to_all)
        else:
            for renderer_id in self._renderers:
                self.send(messages.SetProps(renderer_id, message.payload, message.sets))

    def expect(self, question: messages.GetPropsRequest) -> asyncio.Future[dict[str, Any]]:
        """Ask the browser; whoever waits for what comes of it says `forget` afterwards."""
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._questions[question.request_id] = answer
        self._wire.ask(question)
        self.send(question)
        return answer

    def forget(self, question: messages.GetPropsRequest) -> None:
        """Nobody waits for the answer to this question any more."""
        self._questions.pop(question.request_id, None)
        self._wire.forget(question.request_id)

    def in_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """An awaitable for something that has to run on the connection's loop, for code that runs on another one."""
        if _is_running(self._loop):
            return coroutine
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    # -------------------------------------------------------------------------------------------------- the end

    def end(self, code: int, reason: str, *, silent: bool = False) -> Pending[float]:
        """End the connection, now; only the close frame and the reset are left for later. The first reason stands.

        `silent` sends no close frame: there is nobody to read it.
        """
        if not self._wire.end(code, reason):
            return self.closed
        self._ended_at = time.perf_counter()
        self._writer.stop()
        self._socket.resume()
        for callback in self.gone:
            callback(self)
        for question in self._questions.values():
            if not question.done():
                question.set_exception(NotConnected("the connection has ended"))
        calling = asyncio.current_task() if _is_running(self._loop) else None
        for task in self._tasks:
            if task is not calling and task is not self._parting:
                task.cancel()
        if calling in self._tasks and calling is not self._parting:
            # A callback that ends its own connection learns what that did before it is cancelled.
            self.closed.when_delivered(functools.partial(self._loop.call_soon, self._cancel, calling))
            self._loop.call_later(2 * self._config.close_timeout, self._cancel, calling)
        if silent or not _is_running(self._loop):  # nobody to tell, or nobody left to do it
            self.closed.resolve(0.0)
        else:
            self._closing = self._loop.create_task(self._close(code, reason), name="closing")
        return self.closed

    def end_from_anywhere(self, code: int, reason: str) -> None:
        """The same, also from a thread; there it is done as soon as the event loop gets to it."""
        if _is_running(self._loop):
            self.end(code, reason)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has closed: so has the connection
                self._loop.call_soon_threadsafe(self.end, code, reason)

    async def _close(self, code: int, reason: str) -> None:
        if self._parting is not None:
            await self._send_last_word(self._parting)
        if not self._socket.can_reset and self._reader is not None:
            # Nothing can be done about a client that stays; and granian sends no close while somebody reads.
            self._abandoned = True
            self._reader.cancel()
        deadline = self._loop.time() + self._config.close_timeout
        try:
            await self._socket.close(code, reason, timeout=self._config.close_timeout)
        finally:
            self.closed.resolve((time.perf_counter() - self._ended_at) * 1000)
        if not self._abandoned:
            await self._socket.see_off(timeout=max(0.0, deadline - self._loop.time()))

    async def _send_last_word(self, parting: asyncio.Task[None]) -> None:
        await asyncio.wait({parting}, timeout=self._config.cancel_timeout)
        parting.cancel()
        if self._last_word is not None:
            with contextlib.suppress(Disconnected, TimeoutError):
                async with asyncio.timeout(self._config.close_timeout):  # the client may not read
                    await self._socket.send_text(codec.encode(self._last_word))

    def _cancel(self, task: asyncio.Task[None] | None) -> None:
        if task in self._tasks:
            task.cancel()

    async def _finish(self) -> None:
        """After the last message: see the close frame out, the client off, and the callbacks to their end."""
        self.end(CloseCode.INTERNAL_ERROR, "internal error")  # it has ended already, but for a fault in the reader
        if self._closing is not None:
            await asyncio.wait({self._closing})
        await self._writer.stopped()
        self._renderers_at_end = self.renderers
        self._renderers.clear()  # they hold on to their connection: what is in no circle is freed at once
        if self._tasks:
            _, alive = await asyncio.wait(self._tasks, timeout=self._config.cancel_timeout)
            for task in alive:
                logger.warning(
                    "%s goes on %g s after it was cancelled connection=%s user=%.64r",
                    task.get_name(), self._config.cancel_timeout, self.id, self.user,
                )  # fmt: skip

    def _overflow(self) -> None:
        logger.warning("too slow a reader connection=%s user=%.64r", self.id, self.user)
        self.end(CloseCode.TOO_SLOW, "too slow a reader")

    def _not_taken(self) -> None:
        self.end(CloseCode.INTERNAL_ERROR, "a message was not taken")


async def _nothing() -> None:
    """In the place of a frame that is not sent."""


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
