"""SIGTERM, however the app is served: clients are told to come back, the process ends soon, and nobody sees a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dash import Dash, Input, Output, html
from quart_auth import AuthUser, QuartAuth, login_user

from dash_quart_ws import QuartBackend

from .brokers.redis_server import RedisServer
from .raw import CLOSE, RawSocket
from .server import Server, free_port, result, serving, wait_for
from .test_servers import TROUBLE

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "tests.apps.servers:server"
TOLD = 2.0
"""Seconds in which every client has its close frame; 0.5 is promised, and a busy machine may be slower."""
ENDED = 8.0
"""Seconds in which the process has ended: hypercorn alone may take 3 (its `graceful_timeout`)."""


@contextlib.contextmanager
def serving_script(folder: Path) -> Iterator[Server]:
    """The app as a script that calls `app.run()`."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.apps.run", str(port)]
    running = Server(command, port, folder / "script.log", {})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """What several workers need."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


Serve = Callable[[str], contextlib.AbstractContextManager[Server]]


@pytest.fixture
def serve(tmp_path: Path, redis: RedisServer) -> Serve:
    @contextlib.contextmanager
    def serving_as(way: str) -> Iterator[Server]:
        options = {"broker": f"{redis.url}?prefix={tmp_path.name}"} if workers_of(way) else {}
        env = {"OPTIONS": json.dumps(options)}
        serving_it = serving_script(tmp_path) if way == "app.run()" else serving(tmp_path, server=way, app=APP, env=env)
        with serving_it as running:
            yield running

    return serving_as


@contextlib.contextmanager
def clients(server: Server, count: int = 1, *, workers: int = 0) -> Iterator[list[RawSocket]]:
    """Logged-in clients, each of which has had an answer; so many of them that each worker process has two at least."""
    cookie = server.login("alice")
    deadline = time.monotonic() + 30
    seen: Counter[int] = Counter()
    with contextlib.ExitStack() as stack:
        made: list[RawSocket] = []
        while len(made) < count or len(seen) < workers or min(seen.values(), default=2) < 2:
            assert time.monotonic() < deadline, f"some worker gets no connections: {seen}"
            if len(made) % 32 == 31:  # which worker gets a connection is chance, and a session may have 64 on each
                cookie = server.login("alice")
            client = stack.enter_context(RawSocket(server, cookie))
            assert result(client.call("a.children", 1)) == "alice 1"
            made.append(client)
            if workers:
                client.worker = result(client.call("e.children", 1, "w"))  # type: ignore[attr-defined]
                seen[client.worker] += 1  # type: ignore[attr-defined]
        yield made


def workers_of(way: str) -> int:
    return int(way.partition(":")[2] or 0)


def told(clients: list[RawSocket], since: float, within: float = TOLD) -> float:
    """Each client gets 1012; seconds until the last one had it."""
    for client in clients:
        frame = client.close_frame(max(0.01, since + within - time.monotonic()))
        assert frame.close_code == 1012
        client.send(CLOSE, frame.payload[:2])
    return time.monotonic() - since


def ends(server: Server, codes: tuple[int, ...] = (0, -signal.SIGTERM)) -> None:
    """The process ends in time, with a sane exit code, and without a traceback."""
    try:
        code = server.process.wait(ENDED)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still there after {ENDED} s:\n{server.log}")
    assert code in codes, server.log
    assert not any(word in server.log for word in TROUBLE), server.log


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run Python code of the app."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [
        int(child) for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text("utf-8", "replace")
    ]


WAYS = ("app.run()", "hypercorn", "hypercorn:2", "hypercorn:4", "uvicorn")


@pytest.mark.parametrize("group", [False, True], ids=["one process", "the whole group"])
@pytest.mark.parametrize("way", WAYS)
def test_sigterm_tells_every_client_to_come_back(way: str, group: bool, serve: Serve) -> None:
    with serve(way) as server, clients(server, 3, workers=workers_of(way)) as connected:
        sent = time.monotonic()
        server.signal(group=group)
        took = told(connected, sent)
        print(f"{way}, {'group' if group else 'one'}: 1012 after {took * 1000:.0f} ms to {len(connected)}")
        ends(server)
        print(f"ended after {time.monotonic() - sent:.2f} s")


@pytest.mark.parametrize("way", ["app.run()", "hypercorn", "hypercorn:2", "uvicorn"])
@pytest.mark.parametrize(("output", "value"), [("d.children", 1), ("c.children", 1.5)], ids=["endless", "blocking"])
def test_sigterm_does_not_wait_for_callbacks(way: str, output: str, value: float, serve: Serve) -> None:
    with serve(way) as server, clients(server, 2) as connected:
        connected[0].request(output, value, "long")
        connected[0].call("a.children", 2, "2")  # so the one before it has started
        sent = time.monotonic()
        server.signal()
        told(connected, sent)
        ends(server)


@pytest.mark.parametrize("way", ["app.run()", "hypercorn", "hypercorn:2", "uvicorn"])
def test_sigterm_does_not_wait_for_clients_that_do_not_read_or_do_not_hang_up(way: str, serve: Serve) -> None:
    with serve(way) as server, clients(server, 1) as connected:
        cookie = server.login("bob")
        with RawSocket(server, cookie, receive_buffer=4096) as deaf:
            deaf.request("b.children", 6)
            wait_for(lambda: deaf.unread, 5, "the buffers to fill")
            sent = time.monotonic()
            server.signal()
            assert connected[0].close_frame(TOLD).close_code == 1012  # and it does not hang up
            ends(server)
            print(f"{way}: ended after {time.monotonic() - sent:.2f} s")


def test_sigterm_to_one_worker_of_several_ends_that_one_gracefully(serve: Serve) -> None:
    with serve("hypercorn:2") as server, clients(server, 4, workers=2) as connected:
        workers = children(server.process.pid)
        assert len(workers) == 2
        own = [client for client in connected if client.worker == workers[0]]  # type: ignore[attr-defined]
        rest = [client for client in connected if client not in own]
        sent = time.monotonic()
        os.kill(workers[0], signal.SIGTERM)
        told(own, sent)
        wait_for(lambda: workers[0] not in children(server.process.pid), ENDED, "the worker to end")
        wait_for(lambda: len(children(server.process.pid)) == 2, ENDED, "another worker to take its place")
        for client in rest:
            assert result(client.call("a.children", 3, "3")) == "alice 3"
        assert server.process.poll() is None
        sent = time.monotonic()
        server.signal()
        told(rest, sent)
        ends(server)


def test_a_second_sigterm_changes_nothing(serve: Serve) -> None:
    with serve("hypercorn:2") as server, clients(server, 4, workers=2) as connected:
        sent = time.monotonic()
        server.signal(group=True)
        server.signal(group=True)
        told(connected, sent)
        ends(server)


# ------------------------------------------------------------------------------------- Dash's own test runner


def make_app() -> Dash:
    app = Dash("threaded", backend=QuartBackend(broker="memory:"), websocket_callbacks=True, assets_folder="no-assets")
    app.server.secret_key = "only for tests, and long enough to be one"
    app.server.config["QUART_AUTH_COOKIE_SECURE"] = False
    QuartAuth(app.server)
    app.layout = html.Div([html.Button("go", id="go"), html.Div(id="a")])

    @app.callback(Output("a", "children"), Input("go", "n_clicks"))
    async def endless(value):
        await asyncio.Event().wait() if value == "endless" else None
        return f"alice {value}"

    @app.server.get("/login/<name>")
    async def login(name: str):
        login_user(AuthUser(name))
        return {}

    return app


class Threaded(Server):
    """An app in a thread of this process, started and stopped exactly as `dash.testing`'s `ThreadedRunner` does it."""

    def __init__(self, app: Dash) -> None:
        self.app = app
        self.port = free_port()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        wait_for(self._answers, 10, "the server to answer")

    def _run(self) -> None:
        self.app.run(port=self.port, dev_tools_disable_version_check=True)

    def stop(self) -> int:
        assert self.app.backend.server_type == "quart"
        event = self.app.backend._ws_shutdown_event
        loop = event._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(event.set)
        self.thread.join(timeout=3)  # its `stop_timeout`
        return int(self.thread.is_alive())


def test_the_runner_of_dash_testing_stops_the_app_in_its_three_seconds(caplog: pytest.LogCaptureFixture) -> None:
    server = Threaded(make_app())
    with clients(server, 2) as connected, ThreadPoolExecutor(1) as pool:
        connected[0].request("a.children", "endless", "2")
        reading = pool.submit(told, connected, time.monotonic())
        assert server.stop() == 0, "the thread is still alive"
        reading.result()
    assert not [record for record in caplog.records if record.exc_info]


def test_the_same_app_can_be_run_again_and_is_drained_again() -> None:
    app = make_app()
    for _ in range(3):
        server = Threaded(app)
        with clients(server) as connected, ThreadPoolExecutor(1) as pool:
            reading = pool.submit(told, connected, time.monotonic())
            assert server.stop() == 0
            reading.result()
