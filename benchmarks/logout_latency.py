"""How long from a logout request to the close frame of that session's websocket, with many other connections open?

`python benchmarks/logout_latency.py [--connections 1000] [--logouts 100]` starts hypercorn with the app below, opens that
many websockets, each of a session of its own, and logs sessions out: one after another, then all at once. It prints a
small table and stops the server. The clock starts when the request is written, and stops when the client's event loop has
the close frame: the time of the client counts, too. The broker is the default one, SQLite with an fsync for each logout.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import quart_auth
from dash import Dash, html
from quart_auth import AuthUser, QuartAuth

from dash_quart_ws import QuartBackend

PATIENCE = 120.0
"""Seconds that the whole benchmark may take."""
AT_ONCE = 25
"""Connections that are opened at the same time."""

app = Dash(__name__, backend=QuartBackend(), websocket_callbacks=True, assets_folder="no-assets")
server = app.server
server.secret_key = "a benchmark has no secrets"
server.config["QUART_AUTH_COOKIE_SECURE"] = False
QuartAuth(server)
app.layout = html.Div()


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    quart_auth.login_user(AuthUser(name))
    return {}


@server.get("/logout")
async def logout() -> dict[str, str]:
    quart_auth.logout_user()
    return {}


class Client:
    """One session and its websocket."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.closed = asyncio.get_running_loop().create_future()

    async def open(self, name: str) -> None:
        head = await self.request(f"/login/{name}")
        self.cookie = head.split("set-cookie: ")[1].partition(";")[0]
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(
            f"GET /_dash-ws-callback HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nOrigin: http://127.0.0.1:{self.port}\r\n"
            f"Cookie: {self.cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        answer = await self.reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer:
            raise RuntimeError(f"not accepted: {answer!r}")
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        frame = await self.reader.readexactly(2)
        self.closed.set_result(time.perf_counter() if frame[0] == 0x88 else None)
        self.writer.write(b"\x88\x80\0\0\0\0")  # the client's own close frame: it is a good one
        await self.reader.read()
        self.writer.close()

    async def request(self, path: str, cookie: str = "") -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = (await reader.read()).decode("latin1")
        writer.close()
        if not answer.startswith("HTTP/1.1 200"):
            raise RuntimeError(answer[:200])
        return answer

    async def logout(self) -> tuple[float, float]:
        """Milliseconds until the close frame, and until the response."""
        began = time.perf_counter()
        await self.request("/logout", self.cookie)
        answered = time.perf_counter()
        return (await self.closed - began) * 1000, (answered - began) * 1000


def row(name: str, times: list[float]) -> str:
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    return f"{name:<44}{statistics.median(times):>9.1f}{p99:>9.1f}{max(times):>9.1f}"


async def measure(port: int, connections: int, logouts: int) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    clients = [Client(port) for _ in range(connections)]

    async def open_one(number: int, client: Client) -> None:
        async with gate:
            await client.open(f"user{number}")

    await asyncio.gather(*(open_one(number, client) for number, client in enumerate(clients)))
    one_by_one = [await client.logout() for client in clients[:logouts]]
    at_once = await asyncio.gather(*(client.logout() for client in clients[logouts : 2 * logouts]))
    others = clients[2 * logouts :]
    if any(client.closed.done() for client in others):
        raise RuntimeError("a logout has closed a socket of another session")
    print(f"{connections} connections open, {logouts} logouts{'median':>20}{'p99':>9}{'worst':>9}  (ms)")
    print(row("one after another: close frame", [close for close, _ in one_by_one]))
    print(row("one after another: response", [response for _, response in one_by_one]))
    print(row("all at once: close frame", [close for close, _ in at_once]))
    print(row("all at once: response", [response for _, response in at_once]))
    for client in clients:
        client.reading.cancel()


def answers(port: int) -> bool:
    """Whether the server takes connections yet."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--logouts", type=int, default=100)
    options = parser.parse_args()
    if options.connections < 2 * options.logouts:
        parser.error("--connections must be at least twice --logouts")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "hypercorn",
                f"{Path(__file__).stem}:server",
                "-b",
                f"127.0.0.1:{port}",
            ],
            cwd=Path(__file__).parent,
            env={**os.environ, "DASH_QUART_WS_BROKER": f"sqlite:///{folder}/broker.sqlite3"},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 30
            while not answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server did not start:\n{Path(folder, 'log').read_text()}")
                time.sleep(0.05)
            asyncio.run(asyncio.wait_for(measure(port, options.connections, options.logouts), PATIENCE))
        finally:
            process.terminate()
            process.wait(15)


if __name__ == "__main__":
    main()
