"""A client of which nothing is heard any more: its connection ends, and no other does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest
import websockets

from .server import BRIDGE, Server, await_for, call, closed, next_message, result, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

INTERVAL = 0.6
"""Seconds between two heartbeats."""


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"HEARTBEAT": str(int(INTERVAL * 1000))}
    with serving(tmp_path_factory.mktemp("beating"), app="tests.apps.tabs:server", env=env) as server:
        yield server


@contextlib.asynccontextmanager
async def heartbeats(socket: websockets.ClientConnection) -> AsyncIterator[None]:
    """What a client does that is alive."""

    async def beat() -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.send('{"type":"heartbeat"}')
                await asyncio.sleep(INTERVAL / 2)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def sweeps(server: Server) -> int:
    tasks: list[str] = server.get("/state").json["tasks"]
    return tasks.count("heartbeat sweep")


async def test_who_is_silent_is_asked_back_and_nobody_else_is(beating: Server) -> None:
    cookie = beating.login("alice")
    async with (
        beating.bridge(cookie) as alive,
        heartbeats(alive),
        beating.bridge(cookie) as calling,
        beating.connect(cookie) as dashs_own_worker,
        beating.connect(cookie, **BRIDGE) as silent,
    ):
        await next_message(silent, "welcome")
        began = time.monotonic()
        ending = asyncio.create_task(closed(silent))
        number = 0
        while not ending.done():
            number += 1
            assert result(await call(calling, "e.children", "here", str(number))) == "here"
            await asyncio.sleep(INTERVAL / 4)
        assert await ending == (4106, "no heartbeat")
        assert time.monotonic() - began > 1.4 * INTERVAL
        for socket in (alive, calling, dashs_own_worker):
            assert result(await call(socket, "e.children", "still here", "last")) == "still here"
        assert sweeps(beating) == 1


async def test_it_is_noticed_within_two_intervals(beating: Server) -> None:
    async with beating.bridge(beating.login("alice")) as silent:
        began = time.monotonic()
        assert (await closed(silent))[0] == 4106
        assert time.monotonic() - began < 2 * INTERVAL + 1, "and a second for a machine that is busy"


async def test_nothing_is_left_to_do_when_everybody_has_gone(beating: Server) -> None:
    async with beating.bridge(beating.login("alice")) as socket:
        await await_for(lambda: sweeps(beating) == 1)
        await socket.close()
        await await_for(lambda: sweeps(beating) == 0)
    async with beating.bridge(beating.login("alice")) as again:
        assert sweeps(beating) == 1
        assert (await closed(again))[0] == 4106


async def test_a_server_that_was_suspended_hears_its_clients_out_first(beating: Server) -> None:
    async with beating.bridge(beating.login("alice")) as socket, heartbeats(socket):
        assert result(await call(socket, "e.children", "before")) == "before"
        beating.signal(signal.SIGSTOP, group=True)
        try:
            await asyncio.sleep(4 * INTERVAL)  # no state to wait for: nothing happens, that is the point
        finally:
            beating.signal(signal.SIGCONT, group=True)
        async with asyncio.timeout(10):
            assert result(await call(socket, "e.children", "after", "2")) == "after"
        for number in range(8):
            assert result(await call(socket, "e.children", number, f"later {number}")) == number
            await asyncio.sleep(INTERVAL / 4)


async def test_without_an_interval_silence_is_no_offence(tmp_path: Path) -> None:
    with serving(tmp_path, app="tests.apps.tabs:server", env={"HEARTBEAT": "0"}) as server:
        async with server.bridge(server.login("alice")) as socket:
            assert sweeps(server) == 0
            assert result(await call(socket, "e.children", "here")) == "here"


@pytest.mark.parametrize(("given", "said"), [("600", 600), ("0", 0)])
async def test_the_welcome_says_how_often(tmp_path: Path, given: str, said: int) -> None:
    with serving(tmp_path, app="tests.apps.tabs:server", env={"HEARTBEAT": given}) as server:
        async with server.connect(server.login("alice"), **BRIDGE) as socket:
            assert (await next_message(socket, "welcome"))["payload"]["heartbeat"] == said
