"""The network between a worker and its broker, to be cut and held."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType


class Partition:
    """A TCP proxy on a free port, in a thread of its own."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._is_cut = False
        self._links: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Every connection is reset, and new ones are too."""
        self._do(self._cut)

    def hold(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told."""
        self._do(lambda: (self._asking.clear(), self._answering.clear()))

    def hold_answers(self) -> None:
        """What the worker says arrives; what it is answered does not."""
        self._do(self._answering.clear)

    def hold_announcements(self) -> None:
        """The worker does not hear what others have revoked; all else passes."""
        self._do(self._announcing.clear)

    def heal(self) -> None:
        self._do(self._heal)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._links:
            writer.transport.abort()

    def _heal(self) -> None:
        self._is_cut = False
        self._asking.set()
        self._answering.set()
        self._announcing.set()

    def _do(self, what: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(), done.set()))
        assert done.wait(10)

    def __enter__(self) -> Partition:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._asking, self._answering, self._announcing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._heal()
        tasks: set[asyncio.Task[Any]] = set()

        async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._link(reader, writer)
            writer.transport.abort()

        server = await asyncio.start_server(link, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            return
        there, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._links |= {writer, upstream}
        answering = [self._answering]
        pumps: list[Coroutine[Any, Any, None]] = [
            self._ask(reader, upstream, answering), self._pump(there, writer, answering)
        ]  # fmt: skip
        tasks = [asyncio.ensure_future(pump) for pump in pumps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in (writer, upstream):
                one.transport.abort()
                self._links.discard(one)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answering: list[asyncio.Event]
    ) -> None:
        while data := await reader.read(65_536):
            await self._asking.wait()
            if b"XREAD" in data:  # this is the connection on which announcements come
                answering[1:] = [self._announcing]
            writer.write(data)
            await writer.drain()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: list[asyncio.Event]
    ) -> None:
        while data := await reader.read(65_536):
            for one in passes:
                await one.wait()
            writer.write(data)
            await writer.drain()
