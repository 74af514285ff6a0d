"""Clients that do what no browser would: raw websockets over a socket of their own, on HTTP/1.1 and on HTTP/2.

Nothing here answers, reads or closes by itself. Every wait is bounded.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import termios
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .server import SOCKET_PATH, request_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .server import Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
COMPRESSED = 0x40
"""The first reserved bit of a frame: permessage-deflate (RFC 7692, section 6)."""

TCP_FIN_WAIT_1, TCP_FIN_WAIT_2, TCP_TIME_WAIT, TCP_CLOSE = 4, 5, 6, 7
"""Linux's names for a connection's states, in `TCP_INFO` and in /proc/net/tcp."""


class Frame(NamedTuple):
    """One websocket frame."""

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def close_code(self) -> int | None:
        return struct.unpack("!H", self.payload[:2])[0] if self.opcode == CLOSE and len(self.payload) >= 2 else None

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


def encode(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0) -> bytes:
    """A client's frame. Its mask is zero, which leaves the payload as it is."""
    first, size = opcode | reserved | (0x80 if final else 0), len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def decode(buffer: bytearray) -> Frame | None:
    """Take the first whole frame of a server off the buffer."""
    if len(buffer) < 2:
        return None
    size, start = buffer[1] & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(buffer[2:4], "big"), 4
    elif size == 127:
        size, start = int.from_bytes(buffer[2:10], "big"), 10
    if len(buffer) < start + size:
        return None
    frame = Frame(buffer[0] & 0x0F, bytes(buffer[start : start + size]), bool(buffer[0] & 0x80))
    del buffer[: start + size]
    return frame


def _connect(server: Server, receive_buffer: int | None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:  # before connect: it bounds the window that is offered
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", server.port))
    return connection if server.tls is None else server.tls.wrap_socket(connection)


class RawSocket:
    """A websocket on HTTP/1.1 that does only what it is told to."""

    def __init__(
        self,
        server: Server,
        cookie: str | None = None,
        *,
        receive_buffer: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        early: bytes = b"",
    ) -> None:
        self.socket = _connect(server, receive_buffer)
        self.buffer = bytearray()
        lines = [
            f"GET {SOCKET_PATH} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            f"Origin: {server.origin}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *([f"Cookie: {cookie}"] if cookie else []),
            *(f"{name}: {value}" for name, value in headers),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + early)
        while b"\r\n\r\n" not in self.buffer:
            self._read()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer[:] = rest
        status, *fields = head.decode("latin1").split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}

    def __enter__(self) -> RawSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def tcp_state(self) -> int:
        """The state of this end, learned without reading."""
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    @property
    def unread(self) -> int:
        """Bytes that have arrived, and that nobody has read."""
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, b"\0\0\0\0"))[0]

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0) -> None:
        self.socket.sendall(encode(opcode, payload, final=final, reserved=reserved))

    def request(self, output: str, value: Any = 1, request_id: str = "1") -> None:
        """Ask for a callback, and do not wait."""
        self.send(TEXT, request_message(output, value, request_id).encode())

    def call(self, output: str, value: Any = 1, request_id: str = "1", timeout: float = 10) -> Any:
        """Run a callback; the payload of its response."""
        self.request(output, value, request_id)
        for frame in self.frames(timeout):
            value = frame.json if frame.opcode == TEXT else []
            for message in value if isinstance(value, list) else [value]:
                if message["type"] == "callback_response" and message["requestId"] == request_id:
                    return message["payload"]
        raise AssertionError("the connection ended before the response")

    def frame(self, timeout: float = 10) -> Frame:
        """The next frame.

        Raises:
            EOFError: the server has closed the connection.
            ConnectionResetError: it has reset it.
            TimeoutError: nothing has come.
        """
        deadline = time.monotonic() + timeout
        while (frame := decode(self.buffer)) is None:
            self._read(deadline - time.monotonic())
        return frame

    def frames(self, timeout: float = 10) -> Iterator[Frame]:
        """All frames until the connection is gone, however it goes."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                yield self.frame(deadline - time.monotonic())

    def read_all(self) -> int:
        """Read on until the connection has been reset; how many bytes there were."""
        before = len(self.buffer)
        with contextlib.suppress(ConnectionResetError):
            while True:
                self._read()
        return len(self.buffer) - before

    def close_frame(self, timeout: float = 10) -> Frame:
        """The server's close frame, after whatever it sent before."""
        while True:
            frame = self.frame(timeout)
            if frame.opcode == CLOSE:
                return frame

    def flood(self, data: bytes, *, at_most: int, patience: float = 1.0, seconds: float = 5.0) -> tuple[int, bool]:
        """Send again and again. How much the kernel took, and whether TCP pushed back for `patience` seconds."""
        sent, deadline = 0, time.monotonic() + seconds
        self.socket.settimeout(patience)
        view = memoryview(data)
        while sent < at_most and time.monotonic() < deadline:
            try:
                sent += self.socket.send(view[sent % len(data) :])
            except TimeoutError:
                return sent, True
        return sent, False

    def drain(self) -> None:
        """Take whatever comes, in a thread beside the one that sends, until the connection is gone."""
        with contextlib.suppress(ConnectionError):
            while True:
                select.select([self.socket], [], [])
                with contextlib.suppress(BlockingIOError):
                    if not self.socket.recv(1 << 16, socket.MSG_DONTWAIT):
                        return

    def _read(self, timeout: float = 10) -> None:
        if timeout <= 0:
            raise TimeoutError
        self.socket.settimeout(timeout)
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        self.buffer += data


def server_side(server: Server, port: int) -> int | None:
    """The state of the server's end of a client's connection, in the kernel's table; None when there is none."""
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - not a file
        for line in table:
            _, local, remote, state, *_ = line.split()
            if local.endswith(f":{server.port:04X}") and remote.endswith(f":{port:04X}"):
                return int(state, 16)
    return None


def resident_megabytes(pid: int) -> float:
    """Memory that a process has in RAM."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - not a file
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def watching_memory(pid: int) -> Iterator[Callable[[], float]]:
    """How many megabytes a process has needed at its highest, beyond what it had at the beginning of the block."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")  # the highest so far is forgotten (proc(5))
    before = resident_megabytes(pid)

    def rise() -> float:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - not a file
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024 - before

    yield rise


def compression_bomb(megabytes: int) -> bytes:
    """The payload of one message that permessage-deflate inflates to so much (RFC 7692, section 7.2.1)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    megabyte = b"x" * (1 << 20)
    pieces = [deflate.compress(megabyte) for _ in range(megabytes)]
    return b"".join([*pieces, deflate.flush(zlib.Z_SYNC_FLUSH)])[:-4]


class Http2:
    """One HTTP/2 connection with prior knowledge, and websockets on it by extended CONNECT (RFC 8441)."""

    def __init__(
        self,
        server: Server,
        *,
        window: int = 1 << 24,
        stream_window: int = 65_535,
        receive_buffer: int | None = None,
    ) -> None:
        import h2.config
        import h2.connection
        import h2.settings

        self.server = server
        self.socket = _connect(server, receive_buffer)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: stream_window})
        self.h2.increment_flow_control_window(window)
        self.data: dict[int, bytearray] = {}
        self.status: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def get(self, path: str, cookie: str | None = None, timeout: float = 10) -> tuple[int, bytes]:
        """A request on a stream of its own: status and body."""
        stream = self._open([(":method", "GET"), (":path", path)], cookie, end=True)
        self.read_until(lambda: stream in self.ended, timeout)
        return self.status[stream], bytes(self.data[stream])

    def connect(self, cookie: str, more: Sequence[tuple[str, str]] = ()) -> int:
        """A websocket: its stream."""
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", SOCKET_PATH)]
        stream = self._open(headers, cookie, end=False, more=more)
        self.read_until(lambda: stream in self.status, 10)
        return stream

    def _open(
        self,
        headers: list[tuple[str, str]],
        cookie: str | None,
        *,
        end: bool,
        more: Sequence[tuple[str, str]] = (),
    ) -> int:
        stream = self.h2.get_next_available_stream_id()
        headers = [*headers, (":scheme", "http"), (":authority", f"127.0.0.1:{self.server.port}")]
        headers += [("origin", self.server.origin), ("sec-websocket-version", "13"), *more]
        if cookie:
            headers.append(("cookie", cookie))
        self.data[stream] = bytearray()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, opcode: int, payload: bytes = b"", *, reserved: int = 0) -> None:
        """Send a frame, as fast as the server opens its window; less of it when it ends the stream meanwhile."""
        data = encode(opcode, payload, reserved=reserved)
        while data:
            self.read_until(lambda: self._is_over(stream) or self.h2.local_flow_control_window(stream) > 0)
            if self._is_over(stream):
                return
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, data[:size])
            self.flush()
            data = data[size:]

    def _is_over(self, stream: int) -> bool:
        return stream in self.reset or stream in self.ended

    def request(self, stream: int, output: str, value: Any = 1, request_id: str = "1") -> None:
        self.send(stream, TEXT, request_message(output, value, request_id).encode())

    def frame(self, stream: int, timeout: float = 10) -> Frame:
        """The next websocket frame of a stream; the stream's window is not opened again for it."""
        frames: list[Frame] = []

        def found() -> bool:
            frame = decode(self.data[stream])
            if frame is not None:
                frames.append(frame)
            return bool(frames) or self._is_over(stream)

        self.read_until(found, timeout)
        if not frames:
            raise ConnectionResetError if stream in self.reset else EOFError
        return frames[0]

    def read_until(self, condition: Any, timeout: float = 10) -> None:
        """Read what comes, on whatever stream, until the condition holds."""
        import h2.events

        deadline = time.monotonic() + timeout
        while not condition():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self.socket.settimeout(remaining)
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            for event in self.h2.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        self.headers[event.stream_id] = dict(event.headers)
                        self.status[event.stream_id] = int(dict(event.headers)[":status"])
                    case h2.events.DataReceived():
                        self.data[event.stream_id] += event.data
                    case h2.events.StreamEnded():
                        self.ended.add(event.stream_id)
                    case h2.events.StreamReset():
                        self.reset[event.stream_id] = int(event.error_code)
            self.flush()
