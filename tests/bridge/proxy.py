"""A network between a browser and a server that fails when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

Kind = Literal["websocket", "http"]

REQUEST = re.compile(rb"[A-Z]+ (?P<path>[^ ?]*)")
CLOSE = 0x8
"""Opcode of a close frame (RFC 6455, section 5.2)."""


class Frames:
    """One direction of a websocket, as it passes: tells when a close frame was in it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._skip = 0
        self.closing = False

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            self._head.append(data[at])
            at += 1
            if (length := self._length()) is not None:
                self.closing = self.closing or self._head[0] & 0x0F == CLOSE
                self._skip = length
                self._head.clear()

    def _length(self) -> int | None:
        """How many bytes follow this head, its mask among them; None while it is not whole."""
        if len(self._head) < 2:
            return None
        short = self._head[1] & 0x7F
        wide = {126: 2, 127: 8}.get(short, 0)
        if len(self._head) < 2 + wide:
            return None
        return (int.from_bytes(self._head[2:]) if wide else short) + (4 if self._head[1] & 0x80 else 0)


class Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._upstream: asyncio.StreamWriter | None = None
        self.kind: Kind = "http"
        self.path = ""
        self.is_open = False
        """Whether it is a websocket that both sides take for open, as far as the client can know."""
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.rate: float | None = None

    async def run(self) -> None:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower():
                self.kind = "websocket"
            found = REQUEST.match(head)
            self.path = found["path"].decode() if found else ""
            self._proxy.began(self)
            if self._proxy.refuses(self.kind):
                return
            await self.flowing.wait()
            reader, self._upstream = await asyncio.open_connection("127.0.0.1", self._proxy.upstream)
            self._upstream.write(head)
            there = asyncio.create_task(self._pump(self._reader, self._upstream))
            back = asyncio.create_task(self._pump(reader, self._writer, from_server=True))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                await self.flowing.wait()  # what has hung up is noticed on the other side when the network is back
            finally:
                for task in (there, back):
                    task.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side may hang up at any time
        finally:
            self.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool = False
    ) -> None:
        """One direction, until its end. What the client says is seen when it says it, also when it gets no further."""
        see = self._answers() if from_server else self._says()
        next(see)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        passing = asyncio.create_task(self._pass(queue, writer, see if from_server else None))
        try:
            while data := await reader.read(65_536):
                if not from_server:
                    see.send(data)
                queue.put_nowait(data)
                if self.flowing.is_set():
                    await queue.join()
            if not from_server:
                self.ended()
            queue.put_nowait(b"")
            await passing
        finally:
            passing.cancel()

    async def _pass(
        self, queue: asyncio.Queue[bytes], writer: asyncio.StreamWriter, see: Generator[None, bytes, None] | None
    ) -> None:
        while data := await queue.get():
            while data:
                step = len(data) if self.rate is None else int(self.rate / 10) + 1
                now, data = data[:step], data[step:]
                if self.rate is not None:
                    await asyncio.sleep(len(now) / self.rate)
                await self.flowing.wait()
                if see is not None:
                    see.send(now)
                writer.write(now)
                await writer.drain()
            queue.task_done()

    def _says(self) -> Generator[None, bytes, None]:
        frames = Frames()
        while True:
            data = yield
            if self.kind == "websocket":
                frames.feed(data)
                if frames.closing:
                    self.ended()

    def _answers(self) -> Generator[None, bytes, None]:
        head = b""
        while b"\r\n\r\n" not in head:
            head += yield
        if self.kind == "websocket" and head.startswith(b"HTTP/1.1 101"):
            self._proxy.opened(self)
        frames, data = Frames(), head.partition(b"\r\n\r\n")[2]
        while True:
            if self.is_open:
                frames.feed(data)
                if frames.closing:
                    self.ended()
            data = yield

    def ended(self) -> None:
        self.is_open = False

    def close(self) -> None:
        """Reset both ends: what is on its way is lost."""
        self.ended()
        for writer in (self._writer, self._upstream):
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                writer.transport.abort()


class Proxy:
    """Passes TCP connections on to a port of this machine, from a thread of its own.

    `only="websocket"` or `only="http"` limits a failure to one kind of connections.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.handshakes: list[str] = []
        """Paths of the websockets that were asked for so far."""
        self.most = 0
        """The largest number of websockets of one path that were open at the same time."""
        self._refused: set[Kind] = set()
        self._rate: float | None = None
        self._frozen = False
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self.accept()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -------------------------------------------------------------------------------------------- what it does

    def cut(self, only: Kind | None = None) -> int:
        """Reset the connections there are; how many."""
        return self._do(self._cut(only))

    def freeze(self, *, new: bool = False) -> None:
        """Let no more bytes pass on the connections there are, and keep them: each side thinks that the other is there.

        Args:
            new: also on those to come.
        """
        self._do(self._flow(flowing=False, new=new))

    def thaw(self) -> None:
        """Let all bytes pass again, also those that were held back, and the news of who has hung up meanwhile."""
        self._do(self._flow(flowing=True, new=False))

    def refuse(self, only: Kind | None = None) -> None:
        """Take no new connections; with `only`, reset those of this kind, also the ones that are kept alive."""
        self._do(self._refuse(only))

    def accept(self) -> None:
        """Take new connections, again on the same port."""
        self._do(self._accept())

    def slow(self, bytes_per_second: float | None) -> None:
        """Pass so many bytes in each direction of a connection; None: as fast as can be."""
        self._do(self._slow(bytes_per_second))

    def reset(self) -> None:
        """A network that works, and that has seen nothing yet."""
        self.slow(None)
        self.thaw()
        self.accept()
        self._do(self._forget())

    @property
    def live(self) -> list[str]:
        """Paths of the websockets that are open as far as the browser knows."""
        return self._do(self._live())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._do(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # ------------------------------------------------------------------------------------- in the proxy's thread

    def refuses(self, kind: Kind) -> bool:
        return kind in self._refused

    def began(self, link: Link) -> None:
        if link.kind == "websocket":
            self.handshakes.append(link.path)

    def opened(self, link: Link) -> None:
        link.is_open = True
        self.most = max(self.most, sum(one.is_open and one.path == link.path for one in self._links))

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self, reader, writer)
        link.rate = self._rate
        if self._frozen:
            link.flowing.clear()
        task = self._links[link] = asyncio.create_task(link.run())
        task.add_done_callback(lambda _: self._links.pop(link, None))

    async def _end(self, condition: Callable[[Link], bool]) -> int:
        ending = {link: task for link, task in self._links.items() if condition(link)}
        for link, task in ending.items():
            link.close()
            task.cancel()
        await asyncio.gather(*ending.values(), return_exceptions=True)
        return len(ending)

    async def _cut(self, only: Kind | None) -> int:
        return await self._end(lambda link: only in (None, link.kind))

    async def _flow(self, *, flowing: bool, new: bool) -> None:
        self._frozen = new
        for link in self._links:
            if flowing:
                link.flowing.set()
            else:
                link.flowing.clear()

    async def _refuse(self, only: Kind | None) -> None:
        if only is not None:
            self._refused.add(only)
            await self._cut(only)
        elif self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self) -> None:
        self._refused.clear()
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _slow(self, rate: float | None) -> None:
        self._rate = rate
        for link in self._links:
            link.rate = rate

    async def _live(self) -> list[str]:
        return [link.path for link in self._links if link.is_open]

    async def _forget(self) -> None:
        self.handshakes.clear()
        self.most = len([link for link in self._links if link.is_open])

    async def _stop(self) -> None:
        await self._refuse(None)
        await self._end(lambda _: True)
