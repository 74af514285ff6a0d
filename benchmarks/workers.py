"""What several workers cost, and how quick one hears of the other: `python benchmarks/workers.py [--quick]`.

It starts a redis-server and, first, two hypercorn servers of the benchmark's app with logins, as two hosts, each with
thousands of connections; then two bare brokers in two processes, for what a broker alone takes. Times are from one process to
the other on the same host, by the clock that all share. The table goes to the standard output and to `benchmarks/WORKERS.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import json
import logging
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from load import Http, connect_many, hang_up
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from side_by_side import LOGINS, number, p99, sent_at

from dash_quart_ws.brokers import redis_scripts as scripts
from dash_quart_ws.brokers.base import Listener, Revocation, Scope, Target, TargetKind
from dash_quart_ws.brokers.redis import RedisBroker
from dash_quart_ws.brokers.redis_outbox import entry_of
from dash_quart_ws.brokers.signature import Signer
from dash_quart_ws.sessions.revocations import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Target(TargetKind.USER, "here")
IDLE_SECONDS = 4.0
RATE = 10_000
"""Pushes a second to users who are not here."""
CHECKS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table."""

    what: str
    found: str
    goal: str = ""


def times(what: str, seconds: list[float], goal: str = "") -> Row:
    """Milliseconds, as median and p99."""
    found = [one * 1e3 for one in seconds]
    return Row(what, f"{number(statistics.median(found), 'ms')} / {number(p99(found), 'ms')}", goal)


# ----------------------------------------------------------------------------------------------- two servers


async def two_servers(url: str, *, connections: int, rounds: int) -> list[Row]:
    """From an HTTP request to one server to the frame that a client of the other one gets."""
    os.environ["BENCH_BROKER"] = url
    servers = [dataclasses.replace(LOGINS, name=name) for name in ("A", "B")]
    server_core, client_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {client_core})
    clients = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for server in servers:
                server.start(server_core, Path(folder, server.name))
                await server.prepare()
            http = Http(servers[0].port)
            cookies = json.loads(await http.request("GET", f"/cookies/{connections}"))
            for server in servers:  # of each session there is one connection here, and one there
                clients.append(await connect_many(server.port, connections, cookies=cookies))  # noqa: PERF401
            there = clients[1]
            for client in there[:rounds]:
                await client.call("echo")  # pushes go to tabs that have been heard of
            for client in [*clients[0], *there]:
                client.listen(lambda _: None)
            pushes = await pushed(http, there, rounds)
            ends = []
            for number_ in range(rounds):
                began = time.perf_counter()
                await http.request("POST", "/logout", cookie=cookies[number_])
                await asyncio.wait_for(asyncio.shield(there[number_].closed), 30)
                ends.append(there[number_].closed_at - began)
            if any(client.closed.done() for client in there[rounds:]):
                raise RuntimeError("a logout has closed a connection of another session")
            http.close()
        finally:
            await hang_up([client for of_server in clients for client in of_server])
            for server in servers:
                server.stop()
    many = f"{connections:,} connections on each"
    return [
        times(f"Logout on worker A to the close frame of worker B, {many}: median / p99", ends, "≤ 5 ms / 50 ms"),
        times("Push from A to a user's client of B: median / p99", pushes, "≤ 3 ms (median)"),
    ]


async def pushed(http: Http, there: list[Any], rounds: int) -> list[float]:
    """Pushes from one server to one user, who has a connection on each."""
    late = []
    for number_ in range(rounds):
        arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def received(frame: bytes, arrived: asyncio.Future[float] = arrived) -> None:
            now = time.perf_counter()
            for sent in sent_at(frame):
                arrived.set_result(now - sent)

        there[number_].listen(received)
        await http.request("POST", f"/push/user{number_}")
        late.append(await asyncio.wait_for(arrived, 30))
        await asyncio.sleep(random.uniform(0, 0.004))
    return late


# ---------------------------------------------------------------------------------------------- two brokers


class Clock(Listener):
    """Notes when it was told what."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def revoked(self, revocation: Revocation, *, own: bool) -> Any:
        del revocation
        if not own:
            self.times.append(time.monotonic())
        return {}

    def pushed(self, target: Target, message: str) -> None:
        del target, message
        self.times.append(time.monotonic())

    def requested(self, question: Any) -> Any:
        if question == "times":
            told, self.times = self.times, []
            return told
        return cpu()


def cpu() -> float:
    """Seconds that this process has computed."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def work(url: str) -> None:
    """Worker B: until its standard input ends."""
    broker = RedisBroker(url)
    broker.load()
    broker.listen(Clock(), asyncio.get_running_loop())
    await asyncio.wrap_future(broker.subscribe(HERE))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    broker.close()


async def asked(broker: RedisBroker, what: str) -> Any:
    answers = await asyncio.wrap_future(broker.request(what))
    (answer,) = answers.given.values()
    return answer


async def told(broker: RedisBroker, count: int) -> list[float]:
    """When the other worker was told of each of so many pushes; fewer, if some have not come within half a minute."""
    found: list[float] = []
    patience = time.monotonic() + 30
    while len(found) < count and time.monotonic() < patience:
        found += await asked(broker, "times")
        await asyncio.sleep(0.05)
    return found


async def revocations(a: RedisBroker, rounds: int) -> list[Row]:
    begun, stored, answered = [], [], []
    for number_ in range(rounds):
        begun.append(time.monotonic())
        appended = a.append(Revocation(Scope.SESSION, f"s{number_}", a.next_position(), time.time() + 60))
        await asyncio.wrap_future(appended.stored)
        stored.append(time.monotonic() - begun[-1])
        await asyncio.wrap_future(appended.answers)
        answered.append(time.monotonic() - begun[-1])
        await asyncio.sleep(random.uniform(0, 0.004))
    ends = await asked(a, "times")
    positions = []
    for _ in range(rounds):
        at = time.monotonic()
        await a.position()
        positions.append(time.monotonic() - at)
    return [
        times("Broker alone, a revocation: until B is told", [b - a for a, b in zip(begun, ends, strict=True)]),
        times("the same: until it is stored", stored),
        times("the same: until B's answer is here", answered),
        times("Broker alone, the position that a login asks for", positions),
    ]


async def throughput(a: RedisBroker, count: int) -> Row:
    window, at = 2000, time.monotonic()
    for _ in range(0, count, window):
        sent = [a.publish(HERE, '{"type": "set_props"}') for _ in range(window)]
        await asyncio.wrap_future(sent[-1])
    ends = await told(a, count)
    if len(ends) != count:
        raise RuntimeError(f"{count - len(ends)} of {count} pushes were lost")
    return Row("Broker alone, pushes from A to B as fast as it goes", number(count / (ends[-1] - at), "/s"))


async def idle(a: RedisBroker, url: str) -> list[Row]:
    async def used() -> float:
        before = await asked(a, "cpu")
        await asyncio.sleep(IDLE_SECONDS)
        return float(await asked(a, "cpu") - before) / IDLE_SECONDS * 100

    quiet = await used()
    client = subprocess.Popen([sys.executable, __file__, "--flood", url], stdout=subprocess.PIPE)  # noqa: ASYNC220
    try:
        assert client.stdout is not None
        await asyncio.to_thread(client.stdout.readline)
        flooded = await used()
    finally:
        client.terminate()
        client.communicate()
    return [
        Row("CPU of a worker's broker when nothing happens", number(quiet, "%")),
        Row(f"CPU of the same while others push {RATE:,} times a second to users not here", number(flooded, "%")),
    ]


def flood(url: str) -> None:
    """Worker C: publishes to users who are nowhere."""
    broker = RedisBroker(url)
    broker.load()
    at, sent = time.monotonic(), 0
    print("begun", flush=True)
    while True:
        for _ in range(RATE // 100):
            sent += 1
            broker.publish(Target(TargetKind.USER, f"u{sent % 5000}"), '{"type": "set_props"}')
        time.sleep(max(0.0, at + sent / RATE - time.monotonic()))


# --------------------------------------------------------------------------------------------- the replica


def replica(url: str, client: redis.Redis, entries: int) -> list[Row]:
    """A worker starts where so many revocations are stored, and asks its replica."""
    store(client, entries)
    gc.collect()
    before = resident()
    broker, at = RedisBroker(url), time.monotonic()
    loaded = broker.load()
    found = Replica()
    for revocation in loaded:
        found.add(revocation)
    seconds, count = time.monotonic() - at, len(loaded)
    del loaded, revocation
    gc.collect()
    memory = (resident() - before) / entries
    broker.close()
    names = [f"{random.randrange(2 * entries):043d}" for _ in range(1000)]  # half of them are revoked
    at = time.perf_counter()
    for _ in range(CHECKS // len(names)):
        for name in names:
            found.ending_of(name, ("alice",), 0)
    check = (time.perf_counter() - at) / CHECKS
    return [
        Row(f"Start with {count:,} revocations stored: until all are known", number(seconds, "s")),
        Row("the same: memory of each", number(memory, "bytes")),
        Row("One look at such a replica", number(check * 1e6, "µs"), "≤ 1 µs"),
    ]


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def store(client: redis.Redis, entries: int) -> None:
    signer, expires = Signer(None), time.time() + 10**6
    epoch, position = client.hmget("dash-quart-ws:state", "epoch", "position")
    for start in range(0, entries, 10_000):
        many = {
            entry_of(
                Revocation(Scope.SESSION, f"{each:043d}", int(position) + each, expires, user=f"u{each % 9999}"), signer
            ): expires
            for each in range(start, min(start + 10_000, entries))
        }
        client.zadd("dash-quart-ws:revocations", many)
    script = client.register_script(scripts.ADVANCE)
    script(keys=["dash-quart-ws:state"], args=[epoch, int(position) + entries])


# ---------------------------------------------------------------------------------------------- all of it


async def two_brokers(url: str, *, rounds: int, pushes: int) -> list[Row]:
    worker = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
        [sys.executable, __file__, "--worker", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        await asyncio.to_thread(worker.stdout.readline)
        broker = RedisBroker(url)
        broker.load()
        broker.listen(Listener(), asyncio.get_running_loop())
        rows = [*await revocations(broker, rounds), await throughput(broker, pushes), *await idle(broker, url)]
        broker.close()
    finally:
        await asyncio.to_thread(worker.communicate, timeout=30)
    return rows


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[str, redis.Redis, Callable[[], None]]]:
    """Its URL, a client, and what empties it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.which("redis-server") or "redis-server"
        options = {"port": port, "dir": folder, "save": "", "appendonly": "yes", "appendfsync": "everysec"}
        command = [program, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            patient = Retry(ConstantBackoff(0.05), 200)  # it has yet to listen
            client = redis.Redis(port=port, retry=patient, retry_on_error=[redis.ConnectionError])
            client.ping()
            yield f"redis://127.0.0.1:{port}/0", client, client.flushall
        finally:
            server.terminate()
            server.wait()


def measure(*, quick: bool) -> str:
    rounds, connections, entries = (50, 200, 10_000) if quick else (500, 1_000, 1_000_000)
    with redis_server() as (url, client, empty):
        versions = f"redis-server {client.info('server')['redis_version']}, redis-py {redis.__version__}"
        rows = asyncio.run(two_servers(url, connections=connections, rounds=rounds))
        empty()
        rows += asyncio.run(two_brokers(url, rounds=rounds, pushes=4_000 if quick else 40_000))
        rows += replica(url, client, entries)
    lines = ["| | found | goal |", "| --- | ---: | --- |"]
    lines += [f"| {row.what} | {row.found} | {row.goal} |" for row in rows]
    return "\n".join([*lines, "", f"Medians and p99 of {rounds}. {versions}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a first impression; writes no file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker))
        return
    if given.flood:
        flood(given.flood)
        return
    logging.getLogger("picows").setLevel(logging.ERROR)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with this process
    text = measure(quick=given.quick)
    print(text)
    if not given.quick:
        head = "# Several workers\n\nWritten by `make bench` (`benchmarks/workers.py`).\n\n"
        Path(__file__).with_name("WORKERS.md").write_text(head + text)


if __name__ == "__main__":
    main()
