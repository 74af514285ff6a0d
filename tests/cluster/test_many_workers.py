"""`hypercorn -w N`: the worker processes of one server are one server; without a shared broker they do not start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from ..server import BRIDGE, Server, await_for, closed, command_for, free_port, next_message, wait_for
from .workers import APP, is_nobody, listens, worker

if TYPE_CHECKING:
    from pathlib import Path

    import websockets

    from ..brokers.redis_server import RedisServer

CONNECTIONS = 40


@pytest.mark.parametrize("count", [2, 4])
async def test_a_logout_reaches_the_sockets_of_every_worker(redis: RedisServer, tmp_path: Path, count: int) -> None:
    broker = f"{redis.url}?prefix=w{count}"
    with worker(tmp_path, broker, server=f"hypercorn:{count}") as server:
        wait_for(lambda: len({server.get("/me").json["pid"] for _ in range(20)}) == count, 30, "all workers to serve")
        cookie = server.login("alice")
        async with contextlib.AsyncExitStack() as stack:
            sockets: list[websockets.ClientConnection] = []
            pids: set[int] = set()
            while len(pids) < count and len(sockets) < CONNECTIONS:  # which worker gets a connection is chance
                sockets.append(await stack.enter_async_context(server.connect(cookie, **BRIDGE)))
                await await_for(lambda: len(server.get("/all").json) == len(sockets), what="it to be listed")
                pids = {one["pid"] for one in server.get("/all").json}
            assert len(pids) == count
            assert (await server.aget("/logout", cookie)).status == 200
            for socket in sockets:
                assert (await closed(socket))[0] == 4501
        assert all(is_nobody(server, cookie) for _ in range(10))


@pytest.mark.parametrize(
    ("server", "env"), [("hypercorn:2", {}), ("uvicorn", {"WEB_CONCURRENCY": "2"})], ids=["hypercorn", "uvicorn"]
)
def test_several_workers_without_a_shared_broker_do_not_start(tmp_path: Path, server: str, env: dict[str, str]) -> None:
    port = free_port()
    env = {"OPTIONS": '{"broker": "memory:"}', **env}
    refused = Server(command_for(server, APP, port), port, tmp_path / "log", env)
    try:
        wait_for(lambda: "QuartBackend(broker='redis://" in refused.log, 30, "the error")
        assert "2 worker processes without a shared broker" in refused.log
        if server.startswith("hypercorn"):  # uvicorn, told by its environment only, serves with one process
            refused.process.wait(20)
    finally:
        refused.stop()


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_two_services_without_a_shared_broker_are_told_of_one_another(tmp_path: Path, server: str) -> None:
    store = f"sqlite://{tmp_path}/store.sqlite3"
    env = {"PATIENCE": "2"}
    with worker(tmp_path, store, server=server, env=env) as a:
        number = a.get("/me").json["pid"]
        with worker(tmp_path, store, server=server, env=env) as b:
            b.login("alice")
            wait_for(lambda: f"process {number} works with {tmp_path}/store.sqlite3 as well" in b.log, 30, "the error")
            assert b.get("/", b.login("alice")).status == 200  # a graceful reload has two of them as well
            a.stop()
            number = b.get("/me").json["pid"]
            wait_for(
                lambda: (tmp_path / "store.sqlite3.lock").read_text() == str(number),
                30,
                "it to be the one with the file",
            )
            with worker(tmp_path, store, server=server, env=env) as c:
                c.login("alice")
                wait_for(lambda: f"process {number} works with" in c.log, 30, "what has the file now to be named")
            assert b.log.count("QuartBackend(broker='redis://") == c.log.count("QuartBackend(broker='redis://") == 1
        assert "QuartBackend(broker='redis://" not in a.log


def test_workers_whose_number_cannot_be_seen_are_told_of_one_another(tmp_path: Path) -> None:
    env = {"PATIENCE": "2"}
    with worker(tmp_path, f"sqlite://{tmp_path}/store.sqlite3", server="granian:2", env=env) as server:
        wait_for(lambda: len({server.get("/me").json["pid"] for _ in range(20)}) == 2, 30, "both workers to serve")
        wait_for(lambda: "QuartBackend(broker='redis://" in server.log, 30, "the error")


def test_another_apps_workers_do_not_get_into_ours(redis: RedisServer, tmp_path: Path) -> None:
    broker = f"{redis.url}?prefix=mine"
    with worker(tmp_path, broker) as ours:
        port = free_port()
        env = {"DASH_QUART_WS_BROKER": broker, "SECRET": "of another app, and also long enough to be one"}
        theirs = Server(command_for("hypercorn", APP, port), port, tmp_path / "theirs", env)
        try:
            wait_for(lambda: "is in use by an app with another secret_key" in theirs.log, 30, "the error")
        finally:
            theirs.stop()
        assert ours.get("/", ours.login("alice")).status == 200


async def test_hosts_may_run_different_servers(redis: RedisServer, tmp_path: Path) -> None:
    broker = f"{redis.url}?prefix=mixed"
    with worker(tmp_path, broker, server="uvicorn") as a, worker(tmp_path, broker, server="granian") as b:
        cookie = a.login("alice")
        async with a.bridge(cookie) as here, b.bridge(cookie) as there:
            listens(redis, "user:alice", 2)
            await await_for(lambda: len(a.get("/all").json) == 2, what="both to be listed")
            await b.aget("/push?user=alice&value=hello")
            for socket in (here, there):
                assert (await next_message(socket, "set_props"))["payload"]["props"] == {"title": "hello"}
            assert (await b.aget("/logout", cookie)).status == 200
            for socket in (here, there):
                assert (await closed(socket))[0] == 4501
        assert is_nobody(a, cookie)
        assert is_nobody(b, cookie)
