"""The demo on four worker processes, with the Redis that it starts for them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import websockets

from dash_quart_ws import Publisher

from ..server import next_message, wait_for
from .demo import Demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOCKETS_AT_MOST = 64
"""Websockets until two workers have one: which worker takes a connection is the kernel's choice."""

REQUESTS = 24
"""HTTP requests, each on a connection of its own: by then every worker will have had one."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path, "--workers", "4")
    running.start()
    yield running
    running.stop()


def post(demo: Demo, path: str, cookie: str | None = None, **form: str) -> Any:
    headers = {"Origin": demo.url, "Content-Type": "application/x-www-form-urlencoded"}
    return demo.server.request("POST", path, cookie=cookie, body=urlencode(form), headers=headers)


def log_in(demo: Demo, name: str) -> str:
    reply = post(demo, "/login", name=name, password=demo.password(name))
    assert reply.status == 303, reply
    return str(reply.cookie)


async def close_code(socket: websockets.ClientConnection) -> int | None:
    async with asyncio.timeout(30):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


async def pushed(socket: websockets.ClientConnection) -> Any:
    async with asyncio.timeout(30):
        while (message := await next_message(socket))["type"] != "set_props":
            pass
    return message["payload"]


async def test_with_four_workers_a_push_reaches_all_of_a_users_sockets_and_a_logout_ends_them(demo: Demo) -> None:
    broker = await asyncio.to_thread(wait_for, lambda: re.search(r"a Redis for them: (\S+)", demo.log), 30, "its Redis")
    alice, bob = [await asyncio.to_thread(log_in, demo, name) for name in ("alice", "bob")]
    async with contextlib.AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(Publisher(broker[1]))
        of_bob = await stack.enter_async_context(demo.server.bridge(bob))
        of_alice: list[websockets.ClientConnection] = []
        workers: set[str] = set()
        while len(workers) < 2:
            assert len(of_alice) < SOCKETS_AT_MOST
            of_alice.append(await stack.enter_async_context(demo.server.bridge(alice)))
            workers = {one.worker for one in await publisher.connections(user="alice")}
        assert {one.user for one in await publisher.sessions(all=True)} == {"alice", "bob"}

        await publisher.set_props("notice", {"children": "Storm ahead"}, user="alice")
        for socket in of_alice:
            assert await pushed(socket) == {"componentId": "notice", "props": {"children": "Storm ahead"}}

        reply = await asyncio.to_thread(post, demo, "/logout", alice)
        assert reply.location == "/login"
        assert {await close_code(socket) for socket in of_alice} == {4501}
        for _ in range(REQUESTS):
            assert (await demo.server.aget("/account", alice)).status in (302, 401)
            assert (await demo.server.aget("/account", bob)).status == 200
        receipt = await publisher.revoke(all=True)
        assert (receipt.closed, receipt.confirmed, receipt.missing) == (1, 4, ())
        assert await close_code(of_bob) == 4503


def test_its_redis_is_gone_with_it(demo: Demo, tmp_path: Path) -> None:
    found = wait_for(lambda: re.search(r"unix://((/\S+)/redis\.sock)", demo.log), 30, "its Redis")
    socket, folder = (tmp_path.joinpath(found[number]) for number in (1, 2))
    wait_for(socket.exists, 30, "its socket")
    assert folder.stat().st_mode & 0o077 == 0
    assert demo.stop() == 0
    assert not folder.exists()
