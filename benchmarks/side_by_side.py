"""This backend beside Dash's own, in one run: `python benchmarks/side_by_side.py [--quick] [--rounds 5]`.

It starts one worker of each on the first core, with the same app (`app.py`), and loads one after another from the second
core, round by round: what disturbs the machine disturbs all of them. A ratio is the median of the rounds' ratios. CPU time
is the server process's own, of user and kernel, from `/proc/<pid>/stat`. The table goes to the standard output and to
`benchmarks/RESULTS.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import platform
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load import Client, Http, Traffic, Visitor, connect, connect_many, hang_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CLIENTS = 50
AT_ONCE = 100
"""Logouts at the same moment: more are refused by the backlog of hypercorn's listening socket, and come again after 1 s."""
BURST = 10_000
FLOOD_KB = 100_000
HEARTBEAT = 30.0
"""Seconds between two heartbeats of a connection."""


@dataclasses.dataclass
class Target:
    """One server process."""

    name: str
    server: str
    app: str
    backend: str = ""
    attaches: bool = False
    """Whether its clients offer our subprotocol and attach a tab."""
    logins: bool = False
    """Whether its clients have logged in, each handshake checks their session, and a broker on the disk keeps it."""
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    page: str | None = None
    cookie: str | None = None

    def start(self, core: int, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-W", "ignore", "-m", self.server, self.app]
        if self.server == "hypercorn":  # no workers: the app runs in the process that we see
            command += ["-b", f"127.0.0.1:{self.port}", "-w", "0"]
        else:
            command += ["--port", str(self.port), "--log-level", "warning", "--loop", "asyncio", "--http", "h11"]
        environment = {**os.environ, "BENCH_BACKEND": self.backend, "PYTHONPATH": str(ROOT)}
        if self.logins:
            environment.update({"BENCH_LOGINS": "1", "BENCH_BROKER": f"sqlite:///{log}.sqlite3", **environment})
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # inherited, by each of its threads
        try:
            with log.open("ab") as file:
                self.process = subprocess.Popen(
                    command,
                    cwd=ROOT / "benchmarks",
                    env=environment,
                    stdout=file,
                    stderr=file,
                )
        finally:
            os.sched_setaffinity(0, mine)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def prepare(self) -> None:
        """First contact over HTTP: stock Dash learns of its callbacks then."""
        if not self.backend:
            return
        http = Http(self.port)
        if self.logins:
            (self.cookie,) = json.loads(await http.request("GET", "/cookies/1"))
        page = (await http.request("GET", "/", cookie=self.cookie or "")).decode()
        http.close()
        if self.attaches:
            found = re.search(r'"end_id": ?"([^"]+)"', page)
            if found is None:
                raise RuntimeError("no page token in the page")
            self.page = found[1]

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Resident bytes."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    async def connect(self, count: int = 1) -> list[Client]:
        return await connect_many(self.port, count, self.page, self.cookie and [self.cookie] * count)


OURS = Target("ours", "hypercorn", "app:server", "ours", attaches=True)
PLAIN = dataclasses.replace(OURS, name="ours, without the subprotocol", attaches=False)
LOGINS = dataclasses.replace(OURS, name="ours, with logins", logins=True)
STOCK = Target("Dash's Quart", "hypercorn", "app:server", "quart")
OURS_UVICORN = Target("ours on uvicorn", "uvicorn", "app:server", "ours", attaches=True)
FASTAPI = Target("Dash's FastAPI on uvicorn", "uvicorn", "app:server", "fastapi")
QUART_ECHO = Target("raw Quart echo", "hypercorn", "floors:in_quart")
ASGI_ECHO = Target("raw ASGI echo", "hypercorn", "floors:in_asgi")
TARGETS = (OURS, LOGINS, STOCK, OURS_UVICORN, FASTAPI, QUART_ECHO, ASGI_ECHO)
"""The processes; PLAIN is another way to use the first one."""

Measured = dict[str, float]


@contextlib.asynccontextmanager
async def clients_of(target: Target, count: int) -> AsyncIterator[list[Client]]:
    clients = await target.connect(count)
    try:
        yield clients
    finally:
        await hang_up(clients)


class Watch:
    """What an interval took: seconds, the server's CPU, the share of its core that the load generator used."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._began, self._own, self._cpu = time.perf_counter(), time.process_time(), target.cpu()

    def stop(self) -> None:
        self.cpu = self._target.cpu() - self._cpu
        self.seconds = time.perf_counter() - self._began
        self.client = (time.process_time() - self._own) / self.seconds


async def traffic(target: Target, output: str, clients: int, in_flight: int, seconds: float) -> Measured:
    """So many clients, each with so many requests in flight."""
    async with clients_of(target, clients) as connections:
        running = Traffic(connections, output, in_flight)
        await asyncio.sleep(seconds * 0.2)
        watch, before = Watch(target), running.done
        running.times.clear()
        await asyncio.sleep(seconds)
        watch.stop()
        done, times = running.done - before, list(running.times)
        await running.stop()
    found = {
        "cpu": watch.cpu / done * 1e6,
        "rate": done / watch.seconds,
        "client": watch.client * 100,
        "server": watch.cpu / watch.seconds * 100,
    }
    if times:
        found["median"] = statistics.median(times) * 1e3
        found["p99"] = p99(times) * 1e3
    return found


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[98]


def sent_at(frame: bytes) -> list[float]:
    """The server's clock in each `title` of a frame. It is this process's clock, too: CLOCK_MONOTONIC."""
    return [float(found) for found in re.findall(rb'"title": ?([0-9.e+]+)', frame)]


async def burst(target: Target, output: str) -> Measured:
    async with clients_of(target, 1) as (client,):
        await client.call("echo")
        arrived: list[float] = []
        first: list[float] = []
        done = asyncio.get_running_loop().create_future()
        updates = 0

        def received(frame: bytes) -> None:
            nonlocal updates
            arrived.append(time.perf_counter())
            if not first:
                first.extend(arrived[-1] - sent for sent in sent_at(frame))
            updates += frame.count(b'"set_props"')
            if b"callback_response" in frame:
                done.set_result(None)

        client.listen(received)
        watch = Watch(target)
        client.ask(output)
        await asyncio.wait_for(done, 60)
        watch.stop()
        if updates > BURST or (updates < BURST and target.backend != "ours"):
            raise RuntimeError(f"{updates} updates of {BURST}")
        return {"each": watch.seconds / BURST * 1e6, "cpu": watch.cpu / BURST * 1e6, "first": first[0] * 1e3,
                "frames": len(arrived)}  # fmt: skip


async def stream(target: Target) -> Measured:
    async with clients_of(target, 1) as (client,):
        late: list[float] = []
        done = asyncio.get_running_loop().create_future()

        def received(frame: bytes) -> None:
            now = time.perf_counter()
            late.extend(now - sent for sent in sent_at(frame))
            if b"callback_response" in frame:
                done.set_result(None)

        client.listen(received)
        client.ask("stream")
        await asyncio.wait_for(done, 60)
        return {"median": statistics.median(late) * 1e3, "p99": p99(late) * 1e3}


async def push(target: Target, count: int, pushes: int) -> Measured:
    """From the call of `set_props(all=True)` to the first and the last client: medians of a few pushes."""
    async with clients_of(target, count) as clients:
        arrived: list[float] = []
        done = asyncio.Event()

        def received(frame: bytes) -> None:
            now = time.perf_counter()
            arrived.extend(now - sent for sent in sent_at(frame))
            if len(arrived) == count:
                done.set()

        for client in clients:
            client.listen(received)
        http = Http(target.port)
        firsts, lasts = [], []
        watch = Watch(target)
        for _ in range(pushes):
            await http.request("POST", "/push")
            async with asyncio.timeout(30):
                await done.wait()
            firsts.append(min(arrived) * 1e3)
            lasts.append(max(arrived) * 1e3)
            arrived.clear()
            done.clear()
        watch.stop()
        http.close()
    return {
        "first": statistics.median(firsts),
        "last": statistics.median(lasts),
        "cpu": watch.cpu / pushes / count * 1e6,
        "client": watch.client * 100,
    }


async def idle(target: Target, count: int, seconds: float) -> Measured:
    """Connections with a heartbeat each in 30 s, for so long; of a server that has served nothing else."""
    await (await target.connect())[0].call("echo")
    before = target.memory()
    async with clients_of(target, count) as clients:
        memory = target.memory() - before
        for client in clients:
            client.listen(lambda _: None)
        await asyncio.sleep(0.5)
        watch = Watch(target)
        began = time.perf_counter()
        for number, client in enumerate(clients[: int(count * seconds / HEARTBEAT)]):
            await asyncio.sleep(began + number * HEARTBEAT / count - time.perf_counter())
            client.send(b'{"type":"heartbeat"}')
        await asyncio.sleep(began + seconds - time.perf_counter())
        watch.stop()
        if any(client.closed.done() for client in clients):
            raise RuntimeError("a connection was closed")
    return {"cpu": watch.cpu / watch.seconds * 100, "memory": memory / count / 1024}


async def connecting(target: Target, count: int) -> Measured:
    """Connect, attach where that is the way, one callback, and close; one client after another."""
    watch = Watch(target)
    for _ in range(count):
        client = await connect(target.port, target.page, target.cookie, settled=False)
        await client.call("echo")
        await hang_up([client])
    watch.stop()
    return {"cpu": watch.cpu / count * 1e6}


async def logout(target: Target, count: int, logouts: int) -> Measured:
    """Each connection of a session of its own. From the logout's request to the close frame of that session's connection,
    with all the others open: one after another, then as many at once.

    The time of the load generator is in it: it stops when that reads the frame.
    """
    http = Http(target.port)
    cookies = json.loads(await http.request("GET", f"/cookies/{count}"))
    http.close()  # before the server does: it is not needed for a while
    before = target.memory()
    clients = await connect_many(target.port, count, cookies=cookies)
    memory = target.memory() - before
    for client in clients:
        client.listen(lambda _: None)

    async def leave(number: int, http: Http) -> float:
        began = time.perf_counter()
        await http.request("POST", "/logout", cookie=cookies[number])
        await asyncio.wait_for(asyncio.shield(clients[number].closed), 30)
        return (clients[number].closed_at - began) * 1e3

    try:
        one_by_one = [await leave(number, http) for number in range(logouts)]
        browsers = [Http(target.port) for _ in range(min(logouts, AT_ONCE))]
        at_once = await asyncio.gather(*(leave(logouts + number, one) for number, one in enumerate(browsers)))
        if any(client.closed.done() for client in clients[2 * logouts :]):
            raise RuntimeError("a logout has closed a connection of another session")
    finally:
        await hang_up(clients)
    for one in (http, *browsers):
        one.close()
    return {"median": statistics.median(one_by_one), "p99": p99(one_by_one), "last": max(at_once),
            "memory": memory / count / 1024}  # fmt: skip


async def blocking(target: Target, seconds: float) -> Measured:
    """Small callbacks of others, over the socket and over HTTP, undisturbed and beside a blocking one."""
    blocker, other = Http(target.port), Http(target.port)
    found: Measured = {}
    async with clients_of(target, 1) as (client,):

        async def sample(ask: Callable[[], Awaitable[Any]], until: float) -> float:
            times = []
            while time.perf_counter() < until or not times:
                began = time.perf_counter()
                await ask()
                times.append(time.perf_counter() - began)
                await asyncio.sleep(0.003)
            return statistics.median(times) * 1e3

        async def both(name: str) -> None:
            until = time.perf_counter() + seconds
            found[f"socket {name}"], found[f"http {name}"] = await asyncio.gather(
                sample(functools.partial(client.call, "echo"), until),
                sample(functools.partial(other.callback, "echo"), until),
            )

        async def block() -> None:
            while True:
                await blocker.callback("block")

        await both("undisturbed")
        blocks = asyncio.create_task(block())
        await asyncio.sleep(0.05)
        await both("disturbed")
        blocks.cancel()
        await asyncio.wait({blocks})
    for http in (blocker, other):
        http.close()
    return {
        **found,
        "socket": found["socket disturbed"] / found["socket undisturbed"],
        "http": found["http disturbed"] / found["http undisturbed"],
    }


async def slow_reader(target: Target, kilobytes: int) -> Measured:
    """A client that stops reading; of a server that has served nothing else."""
    (client,) = await target.connect()
    await client.call("echo")
    before = target.memory()
    client.transport.underlying_transport.pause_reading()
    client.ask("flood", kilobytes)
    worst = 0.0
    was = target.cpu()
    while True:  # until the server has been quiet for half a second
        for _ in range(10):
            await asyncio.sleep(0.05)
            worst = max(worst, target.memory() - before)
        if target.cpu() - was < 0.02:
            break
        was = target.cpu()
    client.transport.disconnect()
    return {"memory": worst / 1e6}


async def page_load(target: Target, visitors: int) -> Measured:
    """What new visitors transfer on their first visit, on the next, and on a reload that asks about everything."""
    async with contextlib.AsyncExitStack() as stack:
        browsers = [Visitor(target.port) for _ in range(visitors)]
        for browser in browsers:
            stack.callback(browser.close)
        watch = Watch(target)
        first = [await browser.load() for browser in browsers]
        watch.stop()
        second = [await browser.load() for browser in browsers]
        reload = [await browser.load(reload=True) for browser in browsers]
    return {
        "first": statistics.median(first) / 1e3,
        "second": statistics.median(second) / 1e3,
        "reload": statistics.median(reload) / 1e3,
        "cpu": watch.cpu / visitors * 1e3,
    }


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    run: Callable[[Target], Awaitable[Measured]]
    targets: tuple[Target, ...]
    rounds: float = 1.0
    """As a share of all rounds."""
    fresh: bool = False
    """Whether each measurement gets a server process of its own."""


def still(*, quick: bool) -> int:
    """How many connections are open where many are."""
    return 500 if quick else 5_000


def scenarios(*, quick: bool) -> list[Scenario]:
    seconds = 0.4 if quick else 1.5
    both, uvicorn, ours = (OURS, STOCK), (OURS_UVICORN, FASTAPI), (OURS,)

    def load(output: str, clients: int = 1, in_flight: int = 1) -> Callable[[Target], Awaitable[Measured]]:
        return functools.partial(traffic, output=output, clients=clients, in_flight=in_flight, seconds=seconds)

    floors = (QUART_ECHO, ASGI_ECHO)
    many = 200 if quick else 1_000
    return [
        Scenario("async", load("echo", CLIENTS), (*both, PLAIN, *floors)),
        Scenario("in flight", load("echo", 1, 64), (*both, PLAIN, *floors)),
        Scenario("one", load("echo"), (*both, PLAIN, *floors)),
        Scenario("uvicorn", load("echo", CLIENTS), uvicorn),
        Scenario("sync", load("sync", CLIENTS), both),
        Scenario("dict", load("dict"), both),
        Scenario("numpy", load("numpy"), both),
        Scenario("lists", load("lists"), both),
        Scenario("burst", functools.partial(burst, output="burst"), both),
        Scenario("burst in a thread", functools.partial(burst, output="threads"), both),
        Scenario("stream", stream, both),
        Scenario("connect", functools.partial(connecting, count=50 if quick else 300),
                 (*both, PLAIN, LOGINS, *floors)),
        Scenario("blocking", functools.partial(blocking, seconds=seconds), both, 0.6),
        Scenario("page load", functools.partial(page_load, visitors=10 if quick else 40), both, 0.6),
        Scenario("push", functools.partial(push, count=many, pushes=3 if quick else 7), ours, 0.6),
        Scenario("idle", functools.partial(idle, count=still(quick=quick), seconds=2 if quick else 8),
                 (*both, *floors), 0.2, fresh=True),
        Scenario("logout", functools.partial(logout, count=still(quick=quick), logouts=50 if quick else 200), (LOGINS,), 0.2,
                 fresh=True),
        Scenario("slow reader", functools.partial(slow_reader, kilobytes=FLOOD_KB // (5 if quick else 1)), both, 0.2,
                 fresh=True),
    ]  # fmt: skip


Results = dict[tuple[str, str, str], list[float]]
"""(scenario, quantity, target) -> a value for each round."""


async def run(options: argparse.Namespace, folder: Path) -> Results:
    results: Results = defaultdict(list)
    numbers = itertools.count()
    server_core, client_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {client_core})

    async def measure(scenario: Scenario, target: Target) -> None:
        if scenario.fresh:
            target = dataclasses.replace(target, process=None)
            try:
                target.start(server_core, folder / f"{next(numbers)}.log")
                await target.prepare()
                found = await scenario.run(target)
            finally:
                target.stop()
        else:
            found = await scenario.run(target)
        for quantity, value in found.items():
            results[scenario.name, quantity, target.name].append(value)

    try:
        for target in TARGETS:
            target.start(server_core, folder / f"{next(numbers)}.log")
            await target.prepare()
        PLAIN.process, PLAIN.port = OURS.process, OURS.port
        for scenario in scenarios(quick=options.quick):
            if options.only and scenario.name not in options.only:
                continue
            began = time.perf_counter()
            for number in range(max(1, round(options.rounds * scenario.rounds))):
                # Who comes first changes from round to round.
                for target in scenario.targets if number % 2 == 0 else scenario.targets[::-1]:
                    await measure(scenario, target)
            print(f"{scenario.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        for target in TARGETS:
            target.stop()
    return results


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: a quantity of a scenario, and what it is compared with."""

    label: str
    scenario: str
    quantity: str
    unit: str
    goal: str = ""
    floors: tuple[Target, ...] = ()
    pair: tuple[Target, Target | None] = (OURS, STOCK)


UVICORN = (OURS_UVICORN, FASTAPI)
ROWS = (
    Row("Small async callback, 50 connections, 1 in flight: CPU", "async", "cpu", "µs", "≤ 0.45",
        (QUART_ECHO, ASGI_ECHO)),
    Row("the same: throughput", "async", "rate", "/s", "≥ 75 % of the Quart echo", (QUART_ECHO, ASGI_ECHO)),
    Row("1 connection, 64 in flight: CPU", "in flight", "cpu", "µs", "≤ 0.42", (QUART_ECHO, ASGI_ECHO)),
    Row("Round trip of one small callback: median", "one", "median", "ms", "≤ 0.55", (QUART_ECHO, ASGI_ECHO)),
    Row("the same: p99", "one", "p99", "ms"),
    Row("On uvicorn, beside Dash's FastAPI backend, 50 connections: CPU", "uvicorn", "cpu", "µs", "≤ 0.6", (), UVICORN),
    Row("Small sync callback, 50 connections: CPU", "sync", "cpu", "µs", "≤ 0.5"),
    Row("Figure of 250 kB, a dict of numpy arrays: CPU", "dict", "cpu", "µs", "≤ 0.2"),
    Row("`go.Figure` of numpy arrays, 250 kB: CPU", "numpy", "cpu", "µs", "≤ 0.6"),
    Row("`go.Figure` of lists, 250 kB: CPU", "lists", "cpu", "µs", "≤ 0.85"),
    Row("10,000 `set_props` in one async callback: each", "burst", "each", "µs", "≤ 6 µs"),
    Row("the same: the first one arrives after", "burst", "first", "ms", "≤ 5 ms"),
    Row("10,000 `set_props` in one sync callback: each", "burst in a thread", "each", "µs", "≤ 6 µs"),
    Row("the same: the first one arrives after", "burst in a thread", "first", "ms", "≤ 5 ms"),
    Row("A `set_props` every 2 ms arrives after: median", "stream", "median", "ms", "≤ 2 ms"),
    Row("the same: p99", "stream", "p99", "ms", "≤ 10 ms"),
    Row("Push to {many} connections: first client", "push", "first", "ms", "≤ 5 ms", (), (OURS, None)),
    Row("the same: last client", "push", "last", "ms", "≤ 45 ms", (), (OURS, None)),
    Row("{idle} idle connections, a heartbeat every 30 s: CPU", "idle", "cpu", "%", "≤ 3 %", (QUART_ECHO, ASGI_ECHO)),
    Row("the same: memory of each", "idle", "memory", "kB", "≤ 32 kB", (QUART_ECHO, ASGI_ECHO)),
    Row("Connect and a first callback: CPU", "connect", "cpu", "µs", "≤ 0.7", (QUART_ECHO, ASGI_ECHO)),
    Row("the same, without the subprotocol, as Dash's own worker connects", "connect", "cpu", "µs", "", (), (PLAIN, STOCK)),
    Row("the same, with a login: the session is checked", "connect", "cpu", "µs", "≤ 0.7", (), (LOGINS, STOCK)),
    Row("Logout with {idle} connections open: close frame of the session's own, median", "logout", "median", "ms", "", (),
        (LOGINS, None)),
    Row("the same: p99", "logout", "p99", "ms", "≤ 20 ms", (), (LOGINS, None)),
    Row("the same, {logouts} logouts at once: the last", "logout", "last", "ms", "", (), (LOGINS, None)),
    Row("{idle} idle connections, each with a login of its own: memory of each", "logout", "memory", "kB", "", (),
        (LOGINS, None)),
    Row("Callbacks of others beside a blocking one over HTTP, over the socket: times longer", "blocking", "socket", "x",
        "≤ 2"),
    Row("the same, over HTTP: times longer", "blocking", "http", "x", "≤ 2"),
    Row("Page load, first visit: transferred", "page load", "first", "kB", "≤ 300 kB"),
    Row("the same, the next visit", "page load", "second", "kB", "only what is made for the visitor"),
    Row("the same, a reload that asks about each file", "page load", "reload", "kB", "the same, and 304s"),
    Row("the same, first visit: CPU", "page load", "cpu", "ms"),
    Row("A reader that stops, {flood} messages of 1 kB: memory", "slow reader", "memory", "MB", "≤ 16 MB"),
)  # fmt: skip


def number(value: float, unit: str = "") -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:,.{digits}f}"
    return f"{text} {unit}".strip()


def ratio(ratios: list[float]) -> str:
    """The median, and how far the rounds were apart."""
    if not ratios:
        return ""
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    return f"**{median:.2g}**" + (f" ({least:.2g}-{most:.2g})" if len(ratios) > 1 else "")


def table(results: Results, *, quick: bool) -> str:
    many, flood = (200, FLOOD_KB // 5) if quick else (1_000, FLOOD_KB)
    idle = f"{still(quick=quick):,}"
    lines = [
        "| scenario | this backend | Dash's own | ratio (of the rounds) | goal | raw Quart echo / raw ASGI echo |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in ROWS:
        ours = results.get((row.scenario, row.quantity, row.pair[0].name))
        if not ours:
            continue
        theirs = results[row.scenario, row.quantity, row.pair[1].name] if row.pair[1] else []
        floors = [results[row.scenario, row.quantity, floor.name] for floor in row.floors]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)] if theirs and min(theirs) > 0 else []
        cells = (
            row.label.format(many=f"{many:,}", idle=idle, logouts=50 if quick else AT_ONCE, flood=f"{flood:,}"),
            number(statistics.median(ours), row.unit),
            number(statistics.median(theirs), row.unit) if theirs else "",
            ratio(ratios),
            row.goal,
            " / ".join(number(statistics.median(floor), row.unit) for floor in floors),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def notes(results: Results, rounds: int) -> str:
    """What a reader needs to believe the table: the machine, the versions, and that the client was not the bottleneck."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = ("dash", "quart", "hypercorn", "uvicorn", "fastapi", "websockets", "picows")
    lines = [
        f"Medians of {rounds} rounds. {cpu[1] if cpu else platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in versions) + ".",
        "",
        "The load generator's share of its own core, and the server's of its, by scenario (%):",
        "",
        "| scenario | target | load generator | server |",
        "| --- | --- | ---: | ---: |",
    ]  # fmt: skip
    for (scenario, quantity, target), values in results.items():
        if quantity == "client":
            server = results.get((scenario, "server", target))
            share = number(statistics.median(server)) if server else ""
            lines.append(f"| {scenario} | {target} | {number(statistics.median(values))} | {share} |")
    plain = [
        (scenario, results[scenario, "cpu", OURS.name], results[scenario, "cpu", PLAIN.name])
        for scenario in ("async", "in flight", "one", "connect")
        if results.get((scenario, "cpu", PLAIN.name))
    ]
    if plain:
        lines += ["", "Without the subprotocol, as Dash's own worker connects, CPU of a callback (with it): " + ", ".join(
            f"{scenario} {number(statistics.median(without), 'µs')} ({number(statistics.median(with_it), 'µs')})"
            for scenario, with_it, without in plain
        ) + "."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick 1")
    parser.add_argument("--quick", action="store_true", help="a first impression in less than a minute; writes no file")
    parser.add_argument("--only", action="append", help="one scenario, by its name; may be repeated; writes no file")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the server, one for the load generator")
    logging.getLogger("picows").setLevel(logging.ERROR)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with this process
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(run(options, Path(folder)))
    text = f"{table(results, quick=options.quick)}\n\n{notes(results, options.rounds)}\n"
    print(text)
    print(f"{time.perf_counter() - began:.0f} s in all", file=sys.stderr)
    if not options.quick and not options.only:
        head = "# Side by side\n\nWritten by `make bench` (`benchmarks/side_by_side.py`).\n\n"
        Path(__file__).with_name("RESULTS.md").write_text(head + text)


if __name__ == "__main__":
    main()
