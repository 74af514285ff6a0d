"""What the Redis broker costs, and how quick it is: two workers in two processes, and a redis-server that this starts.

`python benchmarks/redis_broker.py [--entries 1000000]` prints a small table. Times are from one process to the other, on the
same host, by the clock that both share: from the call in worker A to the listener's call in worker B.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from dash_quart_ws.brokers import redis_scripts as scripts
from dash_quart_ws.brokers.base import Listener, Revocation, Scope, Target, TargetKind
from dash_quart_ws.brokers.redis import RedisBroker
from dash_quart_ws.brokers.redis_outbox import entry_of
from dash_quart_ws.brokers.signature import Signer

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Target(TargetKind.USER, "here")
SECONDS = 4.0
RATE = 10_000
"""Pushes a second to users who are not here."""


class Clock(Listener):
    """Notes when it was told what."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def revoked(self, revocation: Revocation, *, own: bool) -> Any:
        if not own and revocation.subject != "ready":
            self.times.append(time.monotonic())
        return {"closed": 0}

    def pushed(self, target: Target, message: str) -> None:
        del target, message
        self.times.append(time.monotonic())

    def requested(self, question: Any) -> Any:
        if question == "times":
            times, self.times = self.times, []
            return times
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
    times: list[float] = []
    patience = time.monotonic() + 30
    while len(times) < count and time.monotonic() < patience:
        times += await asked(broker, "times")
        await asyncio.sleep(0.05)
    return times


def line(what: str, *times: Sequence[float], unit: str = "ms") -> None:
    cells = [f"{statistics.median(one):8.2f} {sorted(one)[int(len(one) * 0.99)]:8.2f}" for one in times]
    print(f"{what:<58} {'   '.join(cells)} {unit}  (median, p99)")


async def latencies(a: RedisBroker) -> None:
    begun, stored, answered = [], [], []
    for number in range(500):
        begun.append(time.monotonic())
        appended = a.append(Revocation(Scope.SESSION, f"s{number}", a.next_position(), time.time() + 60))
        await asyncio.wrap_future(appended.stored)
        stored.append((time.monotonic() - begun[-1]) * 1000)
        await asyncio.wrap_future(appended.answers)
        answered.append((time.monotonic() - begun[-1]) * 1000)
        await asyncio.sleep(random.uniform(0, 0.004))
    ends = await asked(a, "times")
    line("revoke on A: told to B's listener", [(b - a) * 1000 for a, b in zip(begun, ends, strict=True)])
    line("revoke on A: stored", stored)
    line("revoke on A: answered by B", answered)
    positions = []
    for _ in range(500):
        at = time.monotonic()
        await a.position()
        positions.append((time.monotonic() - at) * 1000)
    line("position, for a login", positions)
    begun = []
    for _ in range(500):
        begun.append(time.monotonic())
        a.publish(HERE, '{"type": "set_props"}')
        await asyncio.sleep(random.uniform(0, 0.004))
    ends = await told(a, len(begun))
    line("push from A: told to B's listener", [(b - a) * 1000 for a, b in zip(begun, ends, strict=True)])


async def throughput(a: RedisBroker) -> None:
    count, window, at = 40_000, 2000, time.monotonic()
    for _ in range(0, count, window):
        sent = [a.publish(HERE, '{"type": "set_props"}') for _ in range(window)]
        await asyncio.wrap_future(sent[-1])
    ends = await told(a, count)
    print(
        f"{'pushes A to B, one after another':<58} {len(ends) / (ends[-1] - at):8,.0f} a second, {count - len(ends)} lost"
    )


async def idle(a: RedisBroker, url: str) -> None:
    async def used(seconds: float, publishing: bool) -> tuple[float, float]:
        client = subprocess.Popen([sys.executable, __file__, "--flood", url]) if publishing else None  # noqa: ASYNC220
        if publishing:
            await asyncio.sleep(1.0)
        before, own = await asked(a, "cpu"), cpu()
        await asyncio.sleep(seconds)
        share = (await asked(a, "cpu") - before) / seconds * 100, (cpu() - own) / seconds * 100
        if client is not None:
            client.terminate()
            client.wait()
        return share

    quiet = await used(SECONDS, publishing=False)
    flooded = await used(SECONDS, publishing=True)
    print(f"{'CPU of worker B, idle':<58} {quiet[0]:8.2f} % of a core")
    print(f"{f'CPU of worker B, {RATE:,} pushes/s to users not here':<58} {flooded[0]:8.2f} % of a core")


def flood(url: str) -> None:
    """Worker C: publishes to users who are nowhere."""
    broker = RedisBroker(url)
    broker.load()
    at, number = time.monotonic(), 0
    while True:
        for _ in range(RATE // 100):
            number += 1
            broker.publish(Target(TargetKind.USER, f"u{number % 5000}"), '{"type": "set_props"}')
        time.sleep(max(0.0, at + number / RATE - time.monotonic()))


def replica(url: str, port: int, entries: int) -> None:
    signer, expires = Signer(None), time.time() + 10**6
    with redis.Redis(port=port) as client:
        epoch, position = client.hmget("dash-quart-ws:state", "epoch", "position")
        for start in range(0, entries, 10_000):
            many = {
                entry_of(
                    Revocation(
                        Scope.SESSION, f"{number:043d}", int(position) + number, expires, user=f"u{number % 9999}"
                    ),
                    signer,
                ): expires
                for number in range(start, min(start + 10_000, entries))
            }
            client.zadd("dash-quart-ws:revocations", many)
        script = client.register_script(scripts.ADVANCE)
        script(keys=["dash-quart-ws:state"], args=[epoch, int(position) + entries])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    broker, at = RedisBroker(url), time.monotonic()
    loaded = broker.load()
    seconds = time.monotonic() - at
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{f'loading {len(loaded):,} revocations':<58} {seconds:8.2f} s, at most {grown:,.0f} MiB more")
    broker.close()


async def measure(url: str, port: int, entries: int) -> None:
    worker = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
        [sys.executable, __file__, "--worker", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        await asyncio.to_thread(worker.stdout.readline)
        broker = RedisBroker(url)
        broker.load()
        broker.listen(Listener(), asyncio.get_running_loop())
        await latencies(broker)
        await throughput(broker)
        await idle(broker, url)
        broker.close()
    finally:
        worker.communicate(timeout=30)
    await asyncio.to_thread(replica, url, port, entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--worker")
    parser.add_argument("--flood")
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker))
        return
    if given.flood:
        flood(given.flood)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.which("redis-server") or "redis-server"
        server = subprocess.Popen(
            [
                program,
                "--port",
                str(port),
                "--dir",
                folder,
                "--save",
                "",
                "--appendfsync",
                "everysec",
                "--appendonly",
                "yes",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            patient = Retry(ConstantBackoff(0.05), 200)  # it has yet to listen
            client = redis.Redis(port=port, retry=patient, retry_on_error=[redis.ConnectionError])
            print(json.dumps({"redis": client.info("server")["redis_version"], "client": redis.__version__}))
            asyncio.run(measure(f"redis://127.0.0.1:{port}/0", port, given.entries))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
