"""The servers' private names, all of them: transports, permessage-deflate, the shutdown event.

ASGI offers no way to reset a connection whose client does not read, to decline permessage-deflate, or to learn that the
server is going down. Each function here finds its way by the shape of the server's own objects, and answers False or
None when they have none of it (granian's are not Python's; a middleware may have wrapped `send`): then the caller falls
back to what ASGI offers.

Tried with hypercorn 0.18 (HTTP/1.1 and HTTP/2), uvicorn 0.54 (its three websocket implementations) and granian 2.8.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

logger = logging.getLogger("dash_quart_ws.servers")

LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST and throws away what is still buffered."""


def _stream(send: Any) -> Any:
    """The server's object for one websocket: hypercorn's `WSStream`, one of uvicorn's protocols; None if hidden."""
    return getattr(send, "__self__", None)


def transport_of(send: Any) -> asyncio.Transport | None:
    """The TCP transport below an ASGI `send`, when this connection has one to itself (not on HTTP/2)."""
    stream = _stream(send)
    if isinstance(transport := getattr(stream, "transport", None), asyncio.Transport):  # uvicorn
        return transport
    protocol = getattr(getattr(stream, "send", None), "__self__", None)  # hypercorn: WSStream -> H11Protocol
    if protocol is None or hasattr(protocol, "streams"):  # H2Protocol: the transport is shared
        return None
    writer = getattr(getattr(getattr(protocol, "send", None), "__self__", None), "writer", None)  # -> TCPServer
    transport = getattr(writer, "transport", None)
    return transport if isinstance(transport, asyncio.Transport) else None


def _h2_protocol(send: Any) -> Any:
    """hypercorn's `H2Protocol`, when this websocket is one stream of an HTTP/2 connection."""
    protocol = getattr(getattr(_stream(send), "send", None), "__self__", None)
    return protocol if hasattr(protocol, "streams") and hasattr(protocol, "stream_buffers") else None


def is_granian(send: Any) -> bool:
    """Whether this is granian: the application has to take its `websocket.connect` before anything else, or a client that
    leaves at once takes the worker process down.
    """
    return type(_stream(send)).__module__.startswith("granian.")


DIRECT = ("hypercorn", "uvicorn", "granian", "quart")
"""Packages whose `send` takes a frame in whatever task, also in none; the last one is Quart's test client."""


def is_direct(send: Any) -> bool:
    """Whether this is a server's own `send`. A middleware may have put one of its own before it, which opens a timeout or
    sets a context variable around the server's: that has to begin and end in the same task.
    """
    return type(_stream(send)).__module__.partition(".")[0] in DIRECT


def can_reset(send: Any) -> bool:
    """Whether `reset` has a means here. Where it has none (granian), nobody may read while a close is on its way: there it
    would wait for that reader, and a client's answer to it would take the worker process down.
    """
    return transport_of(send) is not None or _h2_protocol(send) is not None


def reset(send: Any) -> Awaitable[None] | bool:
    """Take a connection down now, whatever its client does. False: this server gives us no means.

    HTTP/1.1: RST, which discards all that was buffered for the client, here and in the kernel. HTTP/2: only the stream
    is reset, because other requests share the TCP connection; the awaitable that is returned sends RST_STREAM.
    """
    transport = transport_of(send)
    if transport is not None:
        abort(transport)
        return True
    protocol = _h2_protocol(send)
    return False if protocol is None else _reset_stream(protocol, _stream(send))


def abort(transport: asyncio.Transport) -> None:
    """RST: whatever is still buffered for the client is thrown away. Nothing happens to a transport that has closed."""
    if getattr(transport, "_ssl_protocol", transport) is None:  # closed twice
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    transport.abort()


def below_tls(transport: asyncio.Transport) -> asyncio.Transport:
    """The TCP transport that carries this one, for who aborts it later: asyncio's TLS transport forgets it when it is closed
    for the second time, which hypercorn does, though the client may not have hung up yet.
    """
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return below if isinstance(below, asyncio.Transport) else transport


TCP_INFO_BYTES_ACKED, TCP_INFO_SIZE = 120, 148
"""Where `struct tcp_info` (linux/tcp.h) holds `tcpi_bytes_acked`, and where `tcpi_notsent_bytes`, 24 bytes on, ends."""

TCP_INFO_UNACKED, TCP_INFO_LAST_DATA_SENT = 24, 44
"""Where it holds `tcpi_unacked` and `tcpi_last_data_sent`."""

LONGEST_STALL = 24 * 3600 * 1000
"""Milliseconds: a bound on what is added to a timeout."""

TCP_ESTABLISHED = 1
"""The state of a connection whose client has neither hung up nor been cut off, the first byte of `struct tcp_info`."""

FLUSH_PATIENCE = 1.0
"""Seconds in which a client must have taken something of an HTTP/2 connection whose buffers are full."""


async def _reset_stream(protocol: Any, stream: Any) -> None:
    from h2.errors import ErrorCodes
    from h2.exceptions import ProtocolError

    buffer = protocol.stream_buffers.get(stream.stream_id)
    if buffer is None and stream.stream_id not in protocol.streams:
        return  # it has come to its end
    if buffer is not None:
        await buffer.close()  # whoever waits for room in it goes on, and what it held is gone
    with contextlib.suppress(ProtocolError):  # the peer has reset it first
        protocol.connection.reset_stream(stream.stream_id, error_code=ErrorCodes.CANCEL)
    await protocol._close_stream(stream.stream_id)
    transport = protocol.send.__self__.writer.transport
    flushing = asyncio.ensure_future(protocol._flush())
    while True:
        before, was_waiting = _progress(transport)
        await asyncio.sleep(FLUSH_PATIENCE)
        taken, waiting = _progress(transport)
        if was_waiting and waiting and taken == before:
            abort(transport)  # nothing gets through, on whichever stream: the client has stopped reading altogether
            break
        if flushing.done():
            break
    await flushing


def _progress(transport: asyncio.Transport) -> tuple[int, bool]:
    """How many bytes the client's machine has taken of a TCP connection, and whether more are waiting for it (Linux)."""
    waiting = transport.get_write_buffer_size() > 0
    connection = transport.get_extra_info("socket")
    if connection is None or not sys.platform.startswith("linux"):
        return -transport.get_write_buffer_size(), waiting
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    except OSError:  # closed already
        return 0, False
    acknowledged, _, _, _, unsent = struct.unpack_from("=QQIII", info, TCP_INFO_BYTES_ACKED)
    return acknowledged, waiting or unsent > 0


def has_hung_up(send: Any) -> bool:
    """Whether the client has closed its end, as far as one can tell without reading what it sent before (Linux)."""
    transport = transport_of(send)
    if transport is None or transport.is_closing():
        return transport is not None
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6) or sys.platform != "linux":
        return False
    try:
        state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # closed already
        return True
    return state != TCP_ESTABLISHED


def limit_unread(send: Any, seconds: float) -> None:
    """Let the kernel drop the connection when the client takes nothing for this long (TCP_USER_TIMEOUT, RFC 5482).

    It goes on counting when the server has closed its end while the client has left the last bytes unread.

    From now on: the kernel counts from when the client stopped, and would drop one that has for longer at once. It tells
    such a client nothing, and hypercorn has a traceback in its log.
    """
    transport = transport_of(send)
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # not TCP (a unix socket), or closed already
            milliseconds = int(seconds * 1000) + _stalled(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _stalled(connection: socket.socket) -> int:
    """Milliseconds since when a client takes nothing of what waits for it, or more; 0 when nothing does (Linux)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    (unacknowledged,) = struct.unpack_from("=I", info, TCP_INFO_UNACKED)
    (since_last,) = struct.unpack_from("=I", info, TCP_INFO_LAST_DATA_SENT)
    *_, unsent = struct.unpack_from("=QQIII", info, TCP_INFO_BYTES_ACKED)
    # What was sent last may have been sent again meanwhile: the pauses between two tries double.
    return min(2 * since_last, LONGEST_STALL) if unacknowledged or unsent else 0


class _EndedStream:
    """What hypercorn finds in place of a stream that it has forgotten."""

    async def handle(self, _event: object) -> None:
        """Nobody is there to take it."""


class _Streams(dict[int, Any]):
    """hypercorn's streams of one HTTP/2 connection."""

    def __missing__(self, _stream_id: int) -> _EndedStream:
        return _EndedStream()


def spare_other_streams(send: Any) -> None:
    """Let what a client still sends on a websocket that is over cost nothing but itself, on HTTP/2.

    hypercorn looks for the stream, and the `KeyError` ends the TCP connection with everything else on it: behind a proxy
    these are other people's.
    """
    protocol = _h2_protocol(send)
    if protocol is not None and type(protocol.streams) is dict:
        protocol.streams = _Streams(protocol.streams)


def has_refused(send: Any) -> bool:
    """Right after accept: whether the server has refused the client by itself, and will never tell.

    hypercorn answers a client with 400 that sends more than its handshake before this is accepted. It swallows the accept
    then, and has no "disconnect" for who waits for a message.
    """
    return getattr(_stream(send), "closed", None) is True


def decline_compression(send: Any) -> bool:
    """Before accept: do not negotiate permessage-deflate (RFC 7692). False where that cannot be switched off from here."""
    stream = _stream(send)
    if is_granian(send):  # it knows no extensions
        return True
    if hasattr(handshake := getattr(stream, "handshake", None), "extensions"):  # hypercorn
        handshake.extensions = None  # type: ignore[union-attr]
        return True
    if hasattr(stream, "response") and hasattr(connection := getattr(stream, "conn", None), "extensions"):
        connection.extensions = []  # type: ignore[union-attr]  # uvicorn, websockets-sansio: negotiated already
        stream.response.headers.pop("Sec-WebSocket-Extensions", None)
        return True
    if isinstance(getattr(stream, "available_extensions", None), list):  # uvicorn, websockets
        stream.available_extensions.clear()  # in place: the handshake that waits for us holds this very list
        return True
    config = getattr(stream, "config", None)
    if getattr(config, "ws_per_message_deflate", False):  # uvicorn, wsproto
        stream.config = copy.copy(config)
        stream.config.ws_per_message_deflate = False
    return hasattr(config, "ws_per_message_deflate")


def limit_inbound(send: Any, largest: int, refused: Callable[[], object]) -> None:
    """Let the server refuse (1009) a message of more than `largest` bytes before it holds it, and call `refused` then.

    A lower limit of the server's own stays. Nothing happens on granian: whoever reads has to look again.

    hypercorn says 1009, and then goes on storing what the client sends, without a bound; the application never hears of it.
    """
    stream = _stream(send)
    if isinstance(limit := getattr(stream, "max_size", None), int):  # uvicorn, websockets
        stream.max_size = min(limit, largest)
    parser = getattr(stream, "conn", None)
    if isinstance(limit := getattr(parser, "max_message_size", None), int):  # uvicorn, websockets-sansio
        parser.max_message_size = min(limit, largest)  # type: ignore[union-attr]
    buffer = getattr(stream, "buffer", None)
    if hasattr(buffer, "extend") and hasattr(buffer, "max_length"):  # hypercorn, or uvicorn with wsproto
        buffer.max_length = min(buffer.max_length, largest)  # type: ignore[union-attr]
        buffer.extend = _Bounded(buffer, refused)  # type: ignore[union-attr]


class _Bounded:
    """hypercorn's `WebsocketBuffer.extend`, which tells of what it refuses, and keeps nothing of it."""

    __slots__ = ("_buffer", "_extend", "_refused")

    def __init__(self, buffer: Any, refused: Callable[[], object]) -> None:
        self._buffer = buffer
        self._extend = buffer.extend
        self._refused = refused

    def __call__(self, event: Any) -> None:
        try:
            self._extend(event)
        except Exception:  # hypercorn's FrameTooLargeError, and it shall have it; we only see that nothing is kept
            self._buffer.clear()
            self._refused()
            raise


def shutdown_of(send: Any) -> Callable[[], Awaitable[None]] | None:
    """A function that waits until this worker process is going down; None where the server does not say (or does it all)."""
    context = getattr(_stream(send), "context", None)
    event = getattr(context, "terminated", None)
    return getattr(event, "wait", None)


def chain_sigterm(send: Any, begin_drain: Callable[[], None]) -> None:
    """In a hypercorn worker process: let SIGTERM begin a drain instead of ending the process at once.

    hypercorn's workers have no handler of their own: they learn of a shutdown from their parent, which may also send
    them SIGTERM (when the first worker has gone), as systemd does to the whole group. `begin_drain` runs on the event
    loop. Nothing is done where the server handles SIGTERM itself, or outside the main thread.
    """
    context = getattr(_stream(send), "context", None)
    terminate = getattr(context, "terminate", None)
    if terminate is None or threading.current_thread() is not threading.main_thread():
        return
    if multiprocessing.parent_process() is None or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    loop = asyncio.get_running_loop()

    def drain() -> None:
        begin_drain()
        # The same graceful way out that hypercorn takes when its parent asks for it.
        terminate._event.set()

    def on_sigterm(_signal: int, _frame: FrameType | None) -> None:
        if loop.is_closed():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        loop.call_soon_threadsafe(drain)

    signal.signal(signal.SIGTERM, on_sigterm)
    logger.debug("SIGTERM in worker process %d closes its connections first", os.getpid())


def worker_count() -> int | None:
    """How many worker processes serve this app, where the server lets us see it; None where it does not."""
    options = getattr(multiprocessing.current_process(), "_kwargs", {})
    workers = getattr(options.get("config"), "workers", None)  # a child of hypercorn, or of uvicorn
    if isinstance(workers, int):
        return workers
    concurrency = os.environ.get("WEB_CONCURRENCY", "")
    return int(concurrency) if concurrency.isdigit() else None
