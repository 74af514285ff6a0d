"""The ASGI side of one websocket: the one gate through which frames leave, and the way to close it for good."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from typing import TYPE_CHECKING, Any, cast

from quart.asgi import ASGIWebsocketConnection

from .. import _servers
from ..wire import close

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, MutableSet

    from quart import Quart

logger = logging.getLogger("dash_quart_ws.asgi")

WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}

SCOPE_KEY = "dash_quart_ws.socket"
"""Where a websocket's ASGI scope holds its `Socket`."""


LOOK_EVERY = 1.0
"""Seconds between two looks whether a client that is not read is still there."""

_resets: set[asyncio.Future[None]] = set()
"""Resets of HTTP/2 streams whose handler has returned: a task needs somebody who holds on to it."""


class Disconnected(Exception):  # noqa: N818 - an event, not an error
    """The client has gone, or the server has taken the connection away."""


class NotTaken(Disconnected):
    """The server has not taken a frame, and its connection cannot be reset: whoever reads will not hear of it."""


class Socket:
    """One websocket as the ASGI server offers it, below Quart's per-message layers.

    Reading it directly is what makes TCP push back on a client that floods: nothing here stores a message that nobody
    has asked for, and every documented server stops reading when its own small buffer is full.
    """

    __slots__ = ("_ahead", "_closing", "_gone", "_leaving", "_paused", "_receive", "_send", "bridge")

    def __init__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._closing = False
        self._gone = False
        self._leaving: asyncio.Event | None = None
        """Set when the client has gone: made for who waits for that, because there is a connection's worth of them."""
        self._ahead: asyncio.Future[Any] | None = None
        """What `pause` has read; `receive` takes it first."""
        self._paused: asyncio.Future[None] | None = None
        self.bridge = False

    @property
    def server_send(self) -> Callable[[Any], Awaitable[None]]:
        """The server's own `send`, for `_servers`."""
        return self._send

    @property
    def can_reset(self) -> bool:
        """Whether the transport can be reset under a client that does not hang up."""
        return _servers.can_reset(self._send)

    @property
    def is_direct(self) -> bool:
        """Whether nothing stands between us and the server's own `send`."""
        return _servers.is_direct(self._send)

    async def send(self, event: Any) -> None:
        """The ASGI `send` that Quart is given: whatever comes after our close goes nowhere."""
        if not self._closing:
            await self._send(event)

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            Disconnected: there is none, and there will be none.
        """
        while True:
            ahead, self._ahead = self._ahead, None
            event = await (self._receive() if ahead is None else ahead)
            match event["type"]:
                case "websocket.receive":
                    text = event.get("text")
                    return text if text is not None else cast("bytes", event["bytes"])
                case "websocket.disconnect":
                    self._closing = True
                    self._gone = True
                    if self._leaving is not None:
                        self._leaving.set()
                    raise Disconnected

    async def pause(self, seconds: float) -> None:
        """Take nothing more from the client for so long: TCP pushes back on it. `resume`, and the client's going, end it.

        To notice the latter one message is read ahead, and kept for `receive`. Not on granian, where nobody may be reading
        when the connection is closed. Behind much that is not read yet only the kernel knows of it, which is asked now and
        then.

        Raises:
            Disconnected: the client has hung up; what it had sent before is nobody's any more.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._paused = loop.create_future()
        try:
            if self.can_reset and self._ahead is None:
                self._ahead = loop.create_task(cast("Coroutine[Any, Any, Any]", self._receive()), name="read ahead")
                self._ahead.add_done_callback(self._look_ahead)
            has_hung_up = False
            while not (has_hung_up or self._paused.done()) and (left := until - loop.time()) > 0:
                await asyncio.wait({self._paused}, timeout=min(left, LOOK_EVERY))
                has_hung_up = _servers.has_hung_up(self._send)
        except asyncio.CancelledError:
            if self._ahead is not None:
                self._ahead.cancel()
            raise
        finally:
            self._paused = None
        if has_hung_up:
            if self._ahead is not None:
                self._ahead.cancel()
            raise Disconnected

    @property
    def is_paused(self) -> bool:
        """Whether nothing is taken from the client at the moment."""
        return self._paused is not None

    def _look_ahead(self, ahead: asyncio.Future[Any]) -> None:
        if ahead.cancelled() or ahead.exception() is not None or ahead.result()["type"] == "websocket.disconnect":
            self.resume()

    def resume(self) -> None:
        """End a pause, if there is one."""
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)

    async def send_text(self, text: str) -> None:
        """Hand one text frame to the server. After `close` has begun nothing is handed over.

        Raises:
            Disconnected: the client has gone.
            NotTaken: there was another reason.
        """
        if self._closing:
            return
        try:
            await self._send({"type": "websocket.send", "text": text, "bytes": None})
        except OSError as error:  # uvicorn's ClientDisconnected is one
            raise Disconnected from error
        except Exception as error:  # the server's own: whoever sends to this connection has nothing to do with it
            logger.exception("the server has not taken a message: its connection is reset")
            self._begin_reset()
            raise (Disconnected if self.can_reset else NotTaken) from error

    async def close(self, code: int, reason: str, *, timeout: float) -> None:
        """Say goodbye, then make sure: `timeout` seconds from now the transport is reset if it is still there.

        Returns when the close frame has been handed over, or when the reset has made that pointless. A client that does
        not read blocks the server's `send` for ever; the reset is what frees it.
        """
        self._closing = True
        _servers.limit_unread(self._send, 2 * timeout)  # for what outlives us in the kernel: ours comes first
        loop = asyncio.get_running_loop()
        gone = loop.create_task(self._close_frame(code, reason), name="close frame")
        try:
            await asyncio.wait({gone}, timeout=timeout)
        finally:
            if not gone.done():
                gone.cancel()
                await self.reset()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _close_frame(self, code: int, reason: str) -> None:
        code = close.for_client(code, bridge=self.bridge)
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": close.cut_reason(reason)})
        except Exception as error:  # noqa: BLE001 - a server raises what it likes about a client that has gone
            logger.debug("no close frame went out: %r", error)

    async def see_off(self, *, timeout: float) -> None:
        """After `close`, while somebody else keeps reading: wait for the client to hang up, then reset the transport."""
        if not self._gone:
            self._leaving = self._leaving or asyncio.Event()
            try:
                async with asyncio.timeout(timeout):
                    await self._leaving.wait()
            except TimeoutError:
                await self.reset()
                return
        # uvicorn says "disconnect" as soon as its own close frame is out, and then waits longer than we do.
        self.reset_later(timeout)

    def reset_later(self, seconds: float) -> None:
        """The connection has ended: reset what is still there of it then.

        A client that hangs up, or half hangs up, without reading keeps the TCP connection and all that is buffered for it:
        servers wait for that to be written, for ever.
        """
        _servers.limit_unread(self._send, seconds)
        loop = asyncio.get_running_loop()
        transport = _servers.transport_of(self._send)
        if transport is not None:  # mostly closed by then; nothing else of the connection is kept for so long
            loop.call_later(seconds, _servers.abort, _servers.below_tls(transport), context=contextvars.Context())
        elif self.can_reset:
            loop.call_later(seconds, self._begin_reset)

    def _begin_reset(self) -> None:
        done = _servers.reset(self._send)
        if not isinstance(done, bool):
            task = asyncio.ensure_future(done)
            _resets.add(task)
            task.add_done_callback(_resets.discard)

    async def dismiss(self, code: int, reason: str, *, timeout: float) -> None:
        """Close a connection that nobody reads, and see its client off; what the client still sends is dropped."""
        await self.close(code, reason, timeout=timeout)
        if not self.can_reset:  # granian: whoever reads after a close takes its worker process down
            return
        reader = asyncio.get_running_loop().create_task(self._drop_input(), name="dismissed")
        try:
            await self.see_off(timeout=timeout)
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _drop_input(self) -> None:
        with contextlib.suppress(Disconnected):
            while True:
                await self.receive()

    async def reset(self) -> None:
        """Drop the connection now, with all that is buffered for the client, where the server gives us the means."""
        done = _servers.reset(self._send)
        if not isinstance(done, bool):
            await done


class _Unread:
    """In the place of Quart's queue for incoming messages, which costs 3 kB for each connection."""

    async def get(self) -> Any:
        raise RuntimeError("the messages of Dash's websocket are read by its backend, and by nobody else")


UNREAD = cast("Any", _Unread())


def socket_class(previous: type[Any], paths: MutableSet[str]) -> type[Any]:
    """A class for `Quart.asgi_websocket_class`: ours for these paths, the one that was there for all others."""

    class DashWebsocketConnection(ASGIWebsocketConnection):
        """Quart's ASGI websocket without its queue and its two tasks per connection."""

        def __new__(cls, app: Quart, scope: Any) -> Any:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            return super().__new__(cls) if path in paths else previous(app, scope)

        def __init__(self, app: Quart, scope: Any) -> None:
            super().__init__(app, scope)
            self.queue = UNREAD

        async def __call__(self, receive: Any, send: Any) -> None:
            if _servers.is_granian(send) and (await receive())["type"] != "websocket.connect":
                return
            socket = Socket(receive, send)
            scope = cast("dict[str, Any]", self.scope)
            scope[SCOPE_KEY] = socket
            # ProxyFixMiddleware writes X-Forwarded-Proto into a websocket's scheme as it is; Quart would then look for
            # an HTTP route.
            scope["scheme"] = WEBSOCKET_SCHEMES.get(scope["scheme"], scope["scheme"])
            websocket = self._create_websocket_from_scope(socket.send)
            websocket.buffer = UNREAD  # type: ignore[attr-defined]  # the queue's place in Quart 0.23
            await self.handle_websocket(websocket, socket.send)

    return DashWebsocketConnection
