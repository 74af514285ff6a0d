"""The load of the soak: clients that come, do what clients do, well or badly, and go.

Each has a part, a random number generator of its own, and a user of its own unless its part says otherwise; so a client's
failure can be looked at by itself, with the seed that is in its name. Whatever a client waits for has a deadline.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import re
import socket
import struct
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..raw import BINARY, CLOSE, PING, PONG, TCP_CLOSE, TEXT, Frame, decode, encode
from ..server import SOCKET_PATH, request_message, result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..server import Server

PATIENCE = 30.0
"""Seconds in which anything that a client waits for has to come: long, because hundreds of them share two cores."""

SPREAD = 12.0
"""Seconds over which the clients of a round arrive."""

ABORT = struct.pack("ii", 1, 0)


class Ended(Exception):  # noqa: N818 - an event, not an error
    """The server has ended the connection: with this code, None for none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Site:
    """The server, as its clients reach it."""

    server: Server
    codes: Counter[int | None] = field(default_factory=Counter)
    """Close codes that clients have seen."""

    async def request(self, head: str, body: bytes = b"", cookie: str | None = None) -> tuple[int, str, bytes]:
        """One HTTP request on a connection of its own: status, the cookie that was set, and the body."""
        lines = [
            f"{head} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}", "Connection: close",
            *([f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []),
            *([f"Cookie: {cookie}"] if cookie else []),
        ]  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
        fields, _, content = answer.partition(b"\r\n\r\n")
        set_cookie = re.search(r"(?im)^set-cookie: ([^;\r]*)", fields.decode("latin1"))
        return int(fields.split()[1]), set_cookie[1] if set_cookie else "", content

    async def get(self, path: str, cookie: str | None = None) -> Any:
        """What a view of the app answers."""
        status, _, content = await self.request(f"GET {path}", cookie=cookie)
        assert status == 200, (path, status, content[:200])
        return json.loads(content)

    async def login(self, name: str, cookie: str | None = None) -> str:
        status, new, _ = await self.request(f"GET /login/{name}", cookie=cookie)
        assert status == 200
        assert new
        return new

    async def page_token(self, cookie: str) -> str:
        status, _, content = await self.request("GET /", cookie=cookie)
        found = re.search(rb'"end_id": ?"([^"]+)"', content)
        assert status == 200
        assert found
        return found[1].decode()

    @contextlib.asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[str]:
        """A login, and its end: whatever became of it meanwhile, nothing of it is left."""
        cookie = await self.login(name)
        try:
            yield cookie
        finally:
            await self.get("/logout", cookie)

    @contextlib.asynccontextmanager
    async def wire(self, cookie: str | None, **options: Any) -> AsyncIterator[Wire]:
        """A websocket, which is gone at the end of the block, one way or the other."""
        wire = await Wire.open(self, cookie, **options)
        try:
            yield wire
        finally:
            wire.writer.transport.abort()

    @contextlib.asynccontextmanager
    async def worker(self, cookie: str) -> AsyncIterator[Wire]:
        """A websocket of Dash's own worker, that is taken in."""
        async with self.wire(cookie) as wire:
            assert await wire.status() == 101  # hypercorn takes no frame before that
            await wire.send({"type": "heartbeat"})
            await wire.message("heartbeat_ack")
            yield wire

    @contextlib.asynccontextmanager
    async def bridge(self, cookie: str, *tabs: str, **options: Any) -> AsyncIterator[Wire]:
        """A websocket of our own browser code, with these tabs attached."""
        token = await self.page_token(cookie)
        async with self.wire(cookie, bridge=True, **options) as wire:
            await wire.message("welcome")
            for tab in tabs or ("tab",):
                await wire.send({"type": "attach", "rendererId": tab, "payload": {"page": token}})
                await wire.message("session")
            beating = asyncio.create_task(wire.beat())
            try:
                yield wire
            finally:
                beating.cancel()


class Wire:
    """One websocket that does what it is told, and answers questions as a browser would while it waits for something."""

    def __init__(self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.site = site
        self.reader = reader
        self.writer = writer
        self.buffer = bytearray()
        self.waiting: list[dict[str, Any]] = []
        """Messages that have come in the same frame as one that was waited for."""

    @classmethod
    async def open(
        cls, site: Site, cookie: str | None, *, bridge: bool = False, receive_buffer: int = 0, origin: str = ""
    ) -> Wire:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:  # before connect: it bounds the window that is offered
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", site.server.port))
            reader, writer = await asyncio.open_connection(sock=connection, limit=receive_buffer or 1 << 16)
        wire = cls(site, reader, writer)
        lines = [
            f"GET {SOCKET_PATH} HTTP/1.1", f"Host: 127.0.0.1:{site.server.port}",
            f"Origin: {origin or site.server.origin}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {base64.b64encode(b'0123456789abcdef').decode()}",
            *(["Sec-WebSocket-Protocol: dash-quart-ws.v1"] if bridge else []), *([f"Cookie: {cookie}"] if cookie else []),
        ]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return wire

    async def status(self) -> int:
        """The handshake's."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
        self.accepted = True
        return int(head.split()[1])

    accepted = False
    silent = False

    async def write(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        """Send a frame.

        Raises:
            Ended: the server has hung up.
        """
        self.writer.write(encode(opcode, payload, final=final))
        try:
            async with asyncio.timeout(PATIENCE):
                await self.writer.drain()
        except OSError as error:
            raise Ended(None) from error

    async def send(self, message: Any) -> None:
        await self.write(TEXT, message.encode() if isinstance(message, str) else json.dumps(message).encode())

    async def ask(self, output: str, value: Any = 1, request_id: str = "1", tab: str = "tab") -> None:
        """Ask for a callback, and do not wait."""
        await self.send(request_message(f"{output}.children", value, request_id, tab))

    async def call(self, output: str, value: Any = 1, request_id: str = "call", tab: str = "tab") -> Any:
        """Run a callback: what it returns."""
        await self.ask(output, value, request_id, tab)
        return result(await self.answer(request_id))

    async def answer(self, request_id: str) -> Any:
        """The payload of a request's response."""
        message = await self.until(lambda one: one["type"] == "callback_response" and one["requestId"] == request_id)
        return message["payload"]

    async def message(self, type: str) -> dict[str, Any]:
        return await self.until(lambda one: one["type"] == type)

    async def prop(self, name: str, value: Any = None) -> None:
        """Wait until a property is set, to a value."""

        def is_it(one: dict[str, Any]) -> bool:
            props = one["payload"]["props"] if one["type"] == "set_props" else {}
            return name in props and value in (None, props[name])

        await self.until(is_it)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message for which this holds; those before it are read and dropped.

        Raises:
            Ended: the connection has ended first.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                while self.waiting:
                    message = self.waiting.pop(0)
                    if message["type"] == "get_props_request":
                        ids = {name: message[name] for name in ("requestId", "rendererId")}
                        await self.send({"type": "get_props_response", **ids, "payload": {"value": "typed"}})
                    if condition(message):
                        return message
                frame = await self.frame()
                if frame.opcode == CLOSE:
                    self.site.codes[frame.close_code] += 1
                    with contextlib.suppress(Ended):
                        await self.write(CLOSE, frame.payload)
                    raise Ended(frame.close_code)
                if frame.opcode == PING:
                    await self.write(PONG, frame.payload)
                if frame.opcode == TEXT:
                    self.waiting = frame.json if isinstance(frame.json, list) else [frame.json]

    async def frame(self) -> Frame:
        """The next frame.

        Raises:
            Ended: the server has hung up.
        """
        if not self.accepted:
            status = await self.status()
            assert status == 101, status
        while (frame := decode(self.buffer)) is None:
            try:
                data = await self.reader.read(1 << 16)
            except OSError as error:
                raise Ended(None) from error
            if not data:
                raise Ended(None)
            self.buffer += data
        return frame

    async def ended(self, *codes: int | None) -> None:
        """Wait for the server to end the connection, with one of these codes.

        None will do as well: a client that is late, because the machine is busy, finds the connection reset.
        """
        code = None
        try:
            await self.until(lambda _: False)
        except Ended as ended:
            code = ended.code
        assert code in (*codes, None), f"closed with {code}, not with {codes}"

    async def beat(self) -> None:
        """Give signs of life, until there is nobody to hear them."""
        with contextlib.suppress(Ended):
            while not self.silent:
                await self.send({"type": "heartbeat"})
                await asyncio.sleep(4)

    async def close(self) -> None:
        """Say goodbye, as a browser does, and wait until the server has heard it."""
        await self.write(CLOSE, struct.pack("!H", 1000))
        await self.ended(1000)

    def hang_up(self, rng: random.Random) -> None:
        """Go without a word: by a reset, or by the end of the stream, after which nothing is read."""
        if rng.random() < 0.5:
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self.writer.transport.abort()
        else:
            self.writer.close()

    async def cut(self) -> None:
        """Wait, without reading, until the server has reset the connection."""
        connection = self.writer.get_extra_info("socket")
        deadline = time.monotonic() + PATIENCE
        while (state := connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]) != TCP_CLOSE:
            assert time.monotonic() < deadline, f"not reset, but in TCP's state {state}"
            await asyncio.sleep(0.05)


# --------------------------------------------------------------------------------------------------- the parts

LOGGED_OUT, REVOKED = (4001, 4501), (4001, 4503)
"""What Dash's own worker gets, and what ours does."""


async def works(site: Site, rng: random.Random, name: str) -> None:
    """Our own browser code with a few tabs: callbacks of every kind, pushes of every kind, a tab that goes, a goodbye."""
    tabs = [f"tab-{number}" for number in range(rng.randint(1, 3))]
    async with site.session(name) as cookie, site.bridge(cookie, *tabs) as wire:
        tab = rng.choice(tabs)
        assert await wire.call("topic", f"topic of {name}", tab=tab)
        assert await wire.call(rng.choice(["echo", "sync"]), 1, tab=tab) == f"{name} 1"
        assert await wire.call("prop", tab=tab) == "holds typed"
        assert await wire.call(rng.choice(["stream", "thread"]), 20, tab=tab) == "streamed"
        for target in (f"user={name}", f"topic=topic%20of%20{name}"):
            assert (await site.get(f"/push/{name}?{target}"))["connections"] == 1
            await wire.prop("title", name)
        gone = rng.choice(tabs)
        await wire.ask(rng.choice(["wait", "stream", "prop"]), 500, "unanswered", gone)
        await wire.send({"type": "detach", "rendererId": gone})
        if rng.random() < 0.5:
            await wire.ask("wait", 1, "running", rng.choice(tabs))
        await wire.close()


async def is_dash_worker(site: Site, rng: random.Random, name: str) -> None:
    """Dash's own worker: many requests at a time, in arrays, some of them never answered."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        outputs = [rng.choice(["echo", "sync", "same", "no", "stream", "thread", "prop"]) for _ in range(12)]
        asked = [json.loads(request_message(f"{one}.children", 5, f"{number}")) for number, one in enumerate(outputs)]
        await wire.send(asked)
        missing = {one["requestId"] for one in asked}
        while missing:
            answer = await wire.message("callback_response")
            missing.remove(answer["requestId"])
        assert (await site.get(f"/push/x{name}?user={name}"))["connections"] == 1
        await wire.prop("title", f"x{name}")
        await wire.ask("wait")
        await wire.close()


async def hangs_up(site: Site, rng: random.Random, name: str) -> None:
    """In the middle of something, without a word."""
    async with site.session(name) as cookie:
        opened = site.bridge(cookie) if rng.random() < 0.5 else site.worker(cookie)
        async with opened as wire:
            await wire.ask(rng.choice(["wait", "block", "stream", "thread", "flood", "prop"]), rng.randint(0, 1))
            if rng.random() < 0.7:
                await wire.until(lambda _: True)  # a word of it, or its answer
            wire.hang_up(rng)


async def closes_one_side(site: Site, rng: random.Random, name: str) -> None:
    """Ends its own stream in the middle of something, and stays."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        await wire.ask("stream", 1000)
        await wire.prop("data-1")
        wire.writer.write_eof()
        await wire.ended(1000, 1006, 1011)


BAD_FRAMES: tuple[bytes, ...] = (
    b"", b"{", b"[]", b"null", b'"text"', b"[" * 100_000, b'{"a":' * 50_000, b'{"type":"unknown"}', b'{"type":1}',
    b'{"type":"callback_request"}', b'{"type":"attach","rendererId":"x"}', b'{"type":"get_props_response"}',
    b'{"type":"callback_request","rendererId":"tab","requestId":"1","payload":{"output":"none.children"}}',
    b'{"type":"get_props_response","requestId":"1","rendererId":"tab","payload":{}}', b"x" * 300_000,
)  # fmt: skip


async def talks_nonsense(site: Site, rng: random.Random, name: str) -> None:
    """Frames that are no messages, each of which hurts nothing; then too many of them, from some."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        for bad in rng.sample(BAD_FRAMES, 6):
            await wire.write(TEXT, bad)
            await wire.until(lambda one: one["type"] in ("error", "callback_response"))
        await wire.write(BINARY, rng.randbytes(1000))
        await wire.message("error")
        assert await wire.call("echo") == f"{name} 1"
        if rng.random() < 0.5:
            with contextlib.suppress(Ended):
                for _ in range(40):
                    await wire.write(TEXT, b"nonsense")
            await wire.ended(4001, 4505)


async def sends_too_much(site: Site, rng: random.Random, name: str) -> None:
    """One message that no server takes, in one frame or without an end."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        await wire.ask("wait")
        whole = rng.random() < 0.5
        with contextlib.suppress(Ended):
            for number in range(1 if whole else 17):
                size = 17 << 20 if whole else 1 << 20
                await wire.write(TEXT if number == 0 else 0, b"x" * size, final=whole)
        await wire.ended(1009)


async def breaks_the_protocol(site: Site, rng: random.Random, name: str) -> None:
    """What is no websocket frame, or none that was agreed on."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        await wire.ask("wait")
        await wire.prop("title")
        broken = (
            encode(TEXT, b"x" * 100, reserved=0x40),
            encode(TEXT, b"\xff\xfe"),
            encode(0x3, b"reserved opcode"),
            b"\x81\x05plain",
            encode(CLOSE, b"\x00"),
            rng.randbytes(200),
        )
        wire.writer.write(rng.choice(broken))
        if rng.random() < 0.5:
            wire.writer.write_eof()
        with contextlib.suppress(TimeoutError):  # random bytes may be the beginning of a frame
            async with asyncio.timeout(2):
                await wire.ended(1000, 1002, 1007, 1006, 1009)


async def reads_slowly(site: Site, rng: random.Random, name: str) -> None:
    """Reads a little at a time, while updates overtake one another."""
    async with site.session(name) as cookie, site.wire(cookie, receive_buffer=16 * 1024) as wire:
        assert await wire.status() == 101
        await wire.ask("flood", 3000)
        for _ in range(20):
            data = await wire.reader.read(4096)
            wire.buffer += data
            await asyncio.sleep(rng.uniform(0, 0.05))
        assert result(await wire.answer("1")) == "flooded"
        await wire.close()


async def stops_reading(site: Site, rng: random.Random, name: str) -> None:
    """Asks for more than it takes: closed with 4103, which it does not read either, and reset."""
    del rng
    async with site.session(name) as cookie, site.worker(cookie) as first:
        await first.close()
        async with site.wire(cookie, receive_buffer=4096) as wire:
            assert await wire.status() == 101
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await wire.ask("fill", 12)
            await wire.cut()


async def logs_out(site: Site, rng: random.Random, name: str) -> None:
    """In the middle of something, with two sockets; one of them a bridge with two tabs."""
    async with site.session(name) as cookie, site.bridge(cookie, "one", "two") as bridge, site.worker(cookie) as worker:
        await bridge.ask(rng.choice(["wait", "stream"]), 500, tab="two")
        await bridge.message("set_props")
        await worker.ask(rng.choice(["wait", "stream", "block", "prop"]), 1)
        await site.get("/logout", cookie)
        await bridge.ended(*LOGGED_OUT)
        await worker.ended(*LOGGED_OUT)


async def ignores_the_close(site: Site, rng: random.Random, name: str) -> None:
    """Goes on asking after its logout, until the connection is reset; nothing is answered."""
    async with site.session(name) as cookie, site.worker(cookie) as wire:
        assert await wire.call("echo") == f"{name} 1"
        await site.get("/logout", cookie)
        frames: list[Frame] = []
        with contextlib.suppress(Ended):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await wire.ask("echo", rng.random(), "late")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            frames.append(await wire.frame())
        closes = [frame.close_code for frame in frames if frame.opcode == CLOSE]
        site.codes.update(closes)
        assert closes in ([4001], []), frames
        assert not any(b"late" in frame.payload for frame in frames)


async def is_revoked(site: Site, rng: random.Random, name: str) -> None:
    """Two logins of one user, each with a socket; an administrator ends them."""
    async with (
        site.session(name) as one,
        site.session(name) as two,
        site.bridge(one) as first,
        site.worker(two) as second,
    ):
        await first.ask(rng.choice(["wait", "stream", "block"]), 1)
        assert (await site.get(f"/revoke?user={name}"))["closed"] == 2
        await first.ended(*REVOKED)
        await second.ended(*REVOKED)


async def switches_user(site: Site, rng: random.Random, name: str) -> None:
    """Another login in the same browser: the socket ends, and the next one is the new user's."""
    other = f"other-{name}"
    async with site.session(name) as cookie, site.bridge(cookie) as wire:
        await wire.ask(rng.choice(["wait", "stream"]), 500)
        await wire.message("set_props")
        new = await site.login(other, cookie)
        await wire.ended(4102)
        async with site.bridge(new) as again:
            assert await again.call("echo") == f"{other} 1"
            await again.close()
        await site.get("/logout", new)


async def is_closed(site: Site, rng: random.Random, name: str) -> None:
    """By its own callback; then, on the next connection, by the app."""
    async with site.session(name) as cookie:
        async with site.bridge(cookie) as wire:
            await wire.ask("own")
            await wire.ended(4100)
        async with site.bridge(cookie) as wire:
            await wire.ask(rng.choice(["wait", "stream"]), 500)
            await wire.message("set_props")
            await site.get(f"/close?user={name}")
            await wire.ended(4500)


async def loses_its_group(site: Site, rng: random.Random, name: str) -> None:
    """While a callback runs that needs it."""
    del rng
    async with site.session(name) as cookie, site.bridge(cookie) as wire:
        await wire.ask("desk")
        await wire.prop("title", "works")
        assert (await site.get(f"/leaves-the-desk/{name}"))["closed"] == 1
        await wire.ended(4101)


async def falls_silent(site: Site, rng: random.Random, name: str) -> None:
    """Our own browser code without a sign of life."""
    del rng
    async with site.session(name) as cookie, site.bridge(cookie) as wire:
        wire.silent = True
        await wire.ended(4106)


async def is_refused(site: Site, rng: random.Random, name: str) -> None:
    """A foreign origin, no login, an ended login, and who leaves in the middle of the handshake."""
    async with site.session(name) as cookie:
        async with site.wire(cookie, origin="http://elsewhere.example") as wire:
            assert await wire.status() == 403
        async with site.wire(None, bridge=rng.random() < 0.5) as wire:
            await wire.ended(*LOGGED_OUT)
        async with site.wire(cookie) as wire:
            wire.hang_up(rng)
        await site.get("/logout", cookie)
        async with site.wire(cookie, bridge=rng.random() < 0.5) as wire:
            await wire.ended(*LOGGED_OUT)


async def uses_http(site: Site, rng: random.Random, name: str) -> None:
    """Callbacks over HTTP: answered, left in the middle, and ended with their session."""
    post = "POST /_dash-update-component"

    def body(output: str, value: Any) -> bytes:
        return json.dumps(json.loads(request_message(f"{output}.children", value))["payload"]).encode()

    async with site.session(name) as cookie:
        status, _, content = await site.request(post, body(rng.choice(["echo", "sync"]), 1), cookie)
        assert status == 200
        assert f"{name} 1".encode() in content
        left = asyncio.create_task(site.request(post, body("desk", 1), cookie))
        await asyncio.sleep(rng.uniform(0, 0.1))
        left.cancel()
        ended = asyncio.create_task(site.request(post, body(rng.choice(["wait", "desk"]), 1), cookie))
        await asyncio.sleep(rng.uniform(0, 0.1))
        await site.get("/logout", cookie)
        status, _, _ = await ended
        assert status in (401, 500), status
        with contextlib.suppress(asyncio.CancelledError):
            await left


PARTS: dict[Callable[[Site, random.Random, str], Awaitable[None]], int] = {
    works: 25, is_dash_worker: 15, hangs_up: 15, closes_one_side: 4, talks_nonsense: 8, sends_too_much: 1,
    breaks_the_protocol: 5, reads_slowly: 3, stops_reading: 2, logs_out: 10, ignores_the_close: 2, is_revoked: 8,
    switches_user: 8, is_closed: 5, loses_its_group: 5, falls_silent: 1, is_refused: 8, uses_http: 10,
}  # fmt: skip
"""What a client may be, and how many of them there are in proportion."""

REACHED = {4001, 4100, 4101, 4102, 4106, 4500, 4501, 4503, 1009}
"""Close codes that clients see in each round."""


async def play(site: Site, seed: str, clients: int) -> list[str]:
    """A round: so many clients come and go. What went wrong, in words."""
    rng = random.Random(seed)
    kinds = list(PARTS)
    parts = [*kinds, *rng.choices(kinds, list(PARTS.values()), k=clients - len(kinds))]
    rng.shuffle(parts)
    failures: list[str] = []

    async def one(number: int, part: Callable[[Site, random.Random, str], Awaitable[None]]) -> None:
        own = random.Random(f"{seed}/{number}")
        await asyncio.sleep(own.uniform(0, SPREAD))
        try:
            await part(site, own, f"u{number}")
        except Exception as error:  # noqa: BLE001 - it is told at the end, with all others
            told = "".join(traceback.format_exception(error, chain=False))
            failures.append(f"client {number} of seed {seed}, which {part.__name__}:\n{told}")

    await asyncio.gather(*(one(number, part) for number, part in enumerate(parts)))
    return failures
