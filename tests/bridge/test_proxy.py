"""The network that the other tests of this folder rely on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
import websockets

from ..server import Server, await_for, free_port
from .proxy import Frames, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A port with a websocket server that says what it was told; plain requests get 426."""

    async def answer(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(answer, "127.0.0.1", free_port(), ping_interval=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    running = Proxy(echo)
    yield running
    running.stop()


def connect(proxy: Proxy, path: str = "/one") -> websockets.connect:
    url = f"ws://127.0.0.1:{proxy.port}{path}"
    return websockets.connect(url, ping_interval=None, close_timeout=0.1, compression=None)


async def status(proxy: Proxy) -> int:
    """What a plain request is answered with; 0 when it is not."""
    reader = writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /plain HTTP/1.1\r\nHost: here\r\n\r\n")
        line = await reader.readline()
        return int(line.split()[1]) if line else 0
    except OSError:
        return 0
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_messages_of_any_size_pass_both_ways(proxy: Proxy) -> None:
    async with connect(proxy) as connection:
        for text in ("a", "b" * 200, "c" * 70_000, ""):
            await connection.send(text)
            assert await connection.recv() == text
        assert proxy.live == ["/one"]
    assert await status(proxy) == 426
    await await_for(lambda: proxy.live == [])
    assert (proxy.handshakes, proxy.most) == (["/one"], 1)


async def test_it_counts_the_largest_number_of_open_websockets_of_one_path(proxy: Proxy) -> None:
    async with connect(proxy), connect(proxy, "/two"):
        assert proxy.most == 1
        async with connect(proxy):
            assert (proxy.most, sorted(proxy.live)) == (2, ["/one", "/one", "/two"])
        async with connect(proxy):
            assert (proxy.most, len(proxy.handshakes)) == (2, 4)


async def test_a_cut_resets_what_is_open_and_leaves_the_way_free(proxy: Proxy) -> None:
    async with connect(proxy) as connection:
        assert proxy.cut("http") == 0
        assert proxy.cut() == 1
        assert proxy.live == []
        with pytest.raises(websockets.ConnectionClosedError):
            await connection.recv()
    async with connect(proxy) as connection:
        await connection.send("again")
        assert await connection.recv() == "again"


async def test_a_frozen_connection_stays_and_says_nothing_until_it_is_thawed(proxy: Proxy) -> None:
    async with connect(proxy) as connection, connect(proxy, "/two") as leaving:
        proxy.freeze()
        await connection.send("late")
        async with connect(proxy, "/new") as new:
            await new.send("in time")
            assert await new.recv() == "in time"
        await leaving.send("one word more")
        await leaving.send("and another")
        leaving.transport.abort()
        await await_for(lambda: proxy.live == ["/one"], what="the browser's own end to be seen")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.recv(), 0.2)
        proxy.thaw()
        assert await connection.recv() == "late"


async def test_new_connections_can_be_frozen_as_well(proxy: Proxy) -> None:
    proxy.freeze(new=True)
    asking = asyncio.create_task(status(proxy))
    assert await asyncio.wait({asking}, timeout=0.2) == (set(), {asking})
    proxy.thaw()
    assert await asking == 426


async def test_it_refuses_connections_and_takes_them_again_on_the_same_port(proxy: Proxy) -> None:
    port = proxy.port
    async with connect(proxy) as connection:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy)
        await connection.send("still here")
        assert await connection.recv() == "still here"
    proxy.accept()
    assert proxy.port == port
    assert await status(proxy) == 426


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_it_refuses_one_kind_of_connections(proxy: Proxy, kind: str) -> None:
    proxy.refuse(only=kind)
    assert await status(proxy) == (426 if kind == "websocket" else 0)
    with pytest.raises((websockets.InvalidMessage, OSError)) if kind == "websocket" else contextlib.nullcontext():
        async with connect(proxy) as connection:
            await connection.send("through")
            assert await connection.recv() == "through"
    proxy.accept()
    assert await status(proxy) == 426


async def test_slow_is_slow(proxy: Proxy) -> None:
    async with connect(proxy) as connection:
        proxy.slow(20_000)
        began = time.monotonic()
        await connection.send("x" * 10_000)
        await connection.recv()
        assert time.monotonic() - began > 0.5


async def test_a_server_that_is_away_is_a_reset(proxy: Proxy) -> None:
    proxy.upstream = free_port()
    assert await status(proxy) == 0


async def test_a_page_of_a_real_server_comes_through(hypercorn: Server) -> None:
    proxy = Proxy(hypercorn.port)
    try:
        assert await status(proxy) == hypercorn.get("/plain").status
    finally:
        proxy.stop()


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("masked", [True, False])
def test_a_close_frame_is_found_behind_frames_of_any_size_and_only_there(size: int, masked: bool) -> None:
    mark = 0x80 if masked else 0
    mask = b"\x08\x88\x08\x88" if masked else b""
    short, wide = (size, b"") if size < 126 else (126, size.to_bytes(2)) if size < 65_536 else (127, size.to_bytes(8))
    text = bytes([0x81, mark | short]) + wide + mask + b"\x88" * size
    frames = Frames()
    for byte in range(len(text)):
        frames.feed(text[byte : byte + 1])
    assert not frames.closing
    frames.feed(text + bytes([0x88, mark | 2]) + mask + b"\x03\xe8")
    assert frames.closing
