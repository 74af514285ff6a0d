"""Real servers in processes of their own, and clients for them. The tests that use these mock nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import websockets

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

ROOT = Path(__file__).parent.parent
SOCKET_PATH = "/_dash-ws-callback"
BRIDGE: dict[str, Any] = {"subprotocols": ["dash-quart-ws.v1"]}
"""Options of a websocket as our own browser code opens it."""
START_TIMEOUT = 30.0
"""Seconds: importing Dash takes a few on a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command_for(server: str, app: str, port: int) -> list[str]:
    """The command line of one of the documented servers."""
    python = [sys.executable, "-W", "ignore", "-m"]
    match server.split(":"):
        case ["hypercorn", *workers]:
            many = ["-w", workers[0]] if workers else []
            return [*python, "hypercorn", app, "-b", f"127.0.0.1:{port}", *many]
        case ["uvicorn", *ws]:
            return [*python, "uvicorn", app, "--port", str(port), "--ws", ws[0] if ws else "auto", "--no-access-log"]
        case ["granian", *workers]:
            many = ["--workers", workers[0]] if workers else []
            return [*python, "granian", "--interface", "asgi", "--port", str(port), *many, app]
    raise ValueError(server)


class Server:
    """One server process (and its workers), stopped and reaped at the end."""

    tls: ssl.SSLContext | None = None
    """How its clients speak TLS; None where they do not."""

    def __init__(
        self, command: list[str], port: int, log: Path, env: Mapping[str, str], tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self.log_path = log
        self.tls = tls
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    @property
    def origin(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{SOCKET_PATH}"

    def wait_until_ready(self) -> None:
        wait_for(lambda: self._answers() or self.process.poll() is not None, START_TIMEOUT, "the server to answer")
        assert self.process.poll() is None, f"the server has ended:\n{self.log}"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def request(
        self,
        method: str,
        path: str,
        *,
        cookie: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = self._http()
        sent = dict(headers or {})
        if cookie:
            sent["Cookie"] = cookie
        if body is not None and not isinstance(body, str | bytes):
            body, sent["Content-Type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _http(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)

    def get(self, path: str, cookie: str | None = None) -> Reply:
        return self.request("GET", path, cookie=cookie)

    def page_token(self, cookie: str | None = None, path: str = "/") -> str:
        """The `end_id` of a page that is rendered now, as Dash's renderer sends it with every callback over HTTP."""
        reply = self.get(path, cookie)
        found = re.search(rb'"end_id": ?"([^"]+)"', reply.body)
        assert found is not None, reply
        return found[1].decode()

    async def aget(self, path: str, cookie: str | None = None) -> Reply:
        return await asyncio.to_thread(self.get, path, cookie)

    def login(self, name: str) -> str:
        """Log in, and the cookie that came of it."""
        reply = self.get(f"/login/{name}")
        assert reply.status == 200, (reply, self.log)
        return reply.cookie

    @contextlib.asynccontextmanager
    async def connect(self, cookie: str | None = None, **options: Any) -> AsyncIterator[websockets.ClientConnection]:
        """A websocket as a browser would open it."""
        headers = {"Cookie": cookie} if cookie else {}
        options = {"origin": self.origin, "additional_headers": headers, "max_size": None, **options}
        async with websockets.connect(self.socket_url, **options) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def bridge(
        self, cookie: str | None = None, *, renderer_id: str = "tab", **options: Any
    ) -> AsyncIterator[websockets.ClientConnection]:
        """A websocket as our own browser code opens it, with one tab attached, of a page that is rendered for it."""
        token = await asyncio.to_thread(self.page_token, cookie)
        async with self.connect(cookie, **BRIDGE, **options) as connection:
            assert (await next_message(connection))["type"] == "welcome"
            answer = await attach(connection, token, renderer_id)
            assert answer["type"] == "session", answer
            yield connection

    def signal(self, number: int = signal.SIGTERM, *, group: bool = False) -> None:
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def stop(self) -> int:
        """End the process and everything that it started; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return code


class Reply:
    """An HTTP response, read to its end."""

    def __init__(self, status: int, headers: Any, body: str | bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.body[:200]!r}>"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """Name and value of the cookie that was set; empty when none was."""
        return str(self.headers.get("Set-Cookie") or "").partition(";")[0]

    @property
    def token(self) -> str:
        """The value of that cookie."""
        return self.cookie.partition("=")[2]

    @property
    def location(self) -> str:
        parts = urlsplit(self.headers["Location"])
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    server: str = "hypercorn",
    app: str = "tests.apps.basic:server",
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A real server for an app, on a free port, until the end of the block."""
    port = free_port()
    running = Server(command_for(server, app, port), port, folder / f"server-{port}.log", env or {})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def wait_for(condition: Callable[[], Any], timeout: float = 10.0, what: str = "a state") -> Any:
    """Poll until the condition is true, and give what it gave."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.01)
    return value


async def await_for(condition: Callable[[], Any], timeout: float = 10.0, what: str = "a state") -> Any:
    """The same, for a test that is on an event loop."""
    return await asyncio.to_thread(wait_for, condition, timeout, what)


def request_message(output: str, value: Any = 1, request_id: str = "1", renderer_id: str = "tab") -> str:
    """A callback request as Dash's renderer sends it."""
    id, _, name = output.rpartition(".")
    payload = {
        "output": output,
        "outputs": {"id": id, "property": name},
        "inputs": [{"id": "go", "property": "n_clicks", "value": value}],
        "changedPropIds": ["go.n_clicks"],
        "state": [],
    }
    return json.dumps(
        {"type": "callback_request", "requestId": request_id, "rendererId": renderer_id, "payload": payload}
    )


_unread: weakref.WeakKeyDictionary[Any, deque[dict[str, Any]]] = weakref.WeakKeyDictionary()


async def messages(connection: websockets.ClientConnection) -> AsyncIterator[dict[str, Any]]:
    """What the server sends, message by message; what one reader leaves of a frame, the next one gets."""
    unread = _unread.setdefault(connection, deque())
    while True:
        while unread:
            yield unread.popleft()
        try:
            value = json.loads(await connection.recv())
        except websockets.ConnectionClosed:
            return
        unread.extend(value if isinstance(value, list) else [value])


async def next_message(connection: websockets.ClientConnection, type: str | None = None, timeout: float = 10.0) -> Any:
    """The next message (of a type)."""
    async with asyncio.timeout(timeout):
        async for message in messages(connection):
            if type is None or message["type"] == type:
                return message
    raise AssertionError(f"the connection closed: {connection.close_code} {connection.close_reason}")


async def attach(connection: websockets.ClientConnection, token: str, renderer_id: str = "tab") -> Any:
    """Attach a tab with the token of its page; the answer: `session`, `stale` or an `error`."""
    await connection.send(json.dumps({"type": "attach", "rendererId": renderer_id, "payload": {"page": token}}))
    while True:
        message = await next_message(connection)
        if message["type"] in ("session", "stale", "error") and message["rendererId"] == renderer_id:
            return message


async def detach(connection: websockets.ClientConnection, renderer_id: str = "tab") -> None:
    """The tab has gone."""
    await connection.send(json.dumps({"type": "detach", "rendererId": renderer_id}))


async def call(connection: websockets.ClientConnection, output: str, value: Any = 1, request_id: str = "1") -> Any:
    """Run one callback over the websocket; the payload of its response."""
    await connection.send(request_message(output, value, request_id))
    while True:
        message = await next_message(connection, "callback_response")
        if message["requestId"] == request_id:
            return message["payload"]


def result(payload: dict[str, Any]) -> Any:
    """The single property that a callback's response sets."""
    assert payload["status"] == "ok", payload
    (props,) = payload["data"]["response"].values()
    (value,) = props.values()
    return value


async def closed(connection: websockets.ClientConnection, timeout: float = 10.0) -> tuple[int | None, str | None]:
    """Wait until the connection is closed: its code and reason."""
    async with asyncio.timeout(timeout):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code, connection.close_reason
