"""The load generator of `side_by_side.py`: websockets with picows, which is written in C, and plain HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import time
from typing import TYPE_CHECKING, Any

import picows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SUBPROTOCOL = "dash-quart-ws.v1"
PATH = "/_dash-ws-callback"
PATIENCE = 60.0
"""Seconds that one answer may take."""
ACCEPTED = "gzip, deflate, br"
"""The `Accept-Encoding` of a browser on plain HTTP, but for zstd."""
AT_ONCE = 25
"""Connections that are opened at the same time."""


def callback_body(output: str, value: Any) -> dict[str, Any]:
    """A callback request as Dash's renderer makes it."""
    return {
        "output": f"{output}.children",
        "outputs": {"id": output, "property": "children"},
        "inputs": [{"id": "go", "property": "n_clicks", "value": value}],
        "changedPropIds": ["go.n_clicks"],
        "parsedChangedPropsIds": ["go.n_clicks"],
        "state": [],
    }


class Client(picows.WSListener):
    """One websocket with one tab."""

    renderer_id = "6f2c5a70-0f57-4f4c-9f0e-0c7c4e1d1b11"  # as long as Dash's own

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.received: Callable[[bytes], None] = self._inbox.put_nowait
        """Gets the payload of each frame."""
        self._requests = 0
        self._parts: dict[tuple[str, Any], tuple[bytes, bytes]] = {}
        self.transport: Any = None
        self.closed = asyncio.get_running_loop().create_future()
        self.closed_at = 0.0

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT and frame.fin:
            self.received(frame.get_payload_as_bytes())
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            if not self.closed.done():
                self.closed_at = time.perf_counter()
                self.closed.set_result((frame.get_close_code(), frame.get_close_message()))
            transport.disconnect()
        elif frame.msg_type not in (picows.WSMsgType.PING, picows.WSMsgType.PONG):
            raise RuntimeError(f"an unexpected frame: {frame.msg_type} fin={frame.fin}")

    def send(self, data: bytes) -> None:
        self.transport.send(picows.WSMsgType.TEXT, data)

    def ask(self, output: str, value: Any = 1) -> None:
        """Send one callback request, with an id of its own."""
        parts = self._parts.get((output, value))
        if parts is None:
            message = {
                "type": "callback_request",
                "rendererId": self.renderer_id,
                "requestId": "@",
                "payload": callback_body(output, value),
            }
            before, _, after = json.dumps(message, separators=(",", ":")).encode().partition(b"@")
            parts = self._parts[output, value] = before, after
        self._requests += 1
        self.send(b"%s%036d%s" % (parts[0], self._requests, parts[1]))

    async def next(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._inbox.get()

    async def call(self, output: str, value: Any = 1) -> bytes:
        """Run one callback; the frame with its response."""
        self.ask(output, value)
        while True:
            frame = await self.next()
            if b"callback_response" in frame:
                return checked(frame)

    def listen(self, received: Callable[[bytes], None] | None = None) -> None:
        """Give each frame to this function; None: to the inbox."""
        self.received = received or self._inbox.put_nowait


def checked(frame: bytes) -> bytes:
    """A benchmark of errors says nothing."""
    if b'"error"' in frame:
        raise RuntimeError(f"the server says {frame[:500]!r}")
    return frame


async def connect(port: int, page: str | None = None, cookie: str | None = None, *, settled: bool = True) -> Client:
    """Open a websocket. With a page token: with our subprotocol, and a tab that is attached.

    Not `settled`: as soon as it may send. Our bridge waits for the server's first word, and not for the answer to the
    attach.
    """
    headers = {"Origin": f"http://127.0.0.1:{port}"}
    if page is not None:
        headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
    if cookie is not None:
        headers["Cookie"] = cookie
    _, client = await picows.ws_connect(
        Client,
        f"ws://127.0.0.1:{port}{PATH}",
        extra_headers=headers,
        max_frame_size=1 << 28,
        websocket_handshake_timeout=30,
    )
    assert isinstance(client, Client)
    if page is not None:
        frame = await client.next()
        if b'"welcome"' not in frame:
            raise RuntimeError(f"not welcome: {frame!r}")
        message = {"type": "attach", "rendererId": client.renderer_id, "payload": {"page": page}}
        client.send(json.dumps(message).encode())
        if settled and b'"session","rendererId"' not in (frame := await client.next()):
            raise RuntimeError(f"not attached: {frame!r}")
    return client


async def connect_many(
    port: int, count: int, page: str | None = None, cookies: Sequence[str] | None = None
) -> list[Client]:
    """So many websockets; of sessions of their own, or all of one."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Client:
        async with gate:
            return await connect(port, page, None if cookies is None else cookies[number])

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def hang_up(clients: Iterable[Client]) -> None:
    """Close well, and wait until that is done."""
    clients = list(clients)
    for client in clients:
        client.listen(lambda _: None)
        if not client.transport.is_disconnected:
            client.transport.send_close(picows.WSCloseCode.OK)
    await asyncio.wait([asyncio.ensure_future(one.transport.wait_disconnected()) for one in clients], timeout=10)
    for client in clients:
        client.transport.disconnect()


class Traffic:
    """Clients that each keep so many requests in flight, until they are told to stop."""

    def __init__(self, clients: list[Client], output: str, in_flight: int) -> None:
        self.done = 0
        self.times: list[float] = []
        """Seconds from a request to its response: of a single request in flight only."""
        self._output = output
        self._outstanding = 0
        self._stopping = False
        self._drained = asyncio.get_running_loop().create_future()
        self._clients = clients
        self._timed = len(clients) == in_flight == 1
        self._asked_at = 0.0
        for client in clients:
            client.listen(self._receiver(client))
        for client in clients:
            for _ in range(in_flight):
                self._outstanding += 1
                self._ask(client)

    def _ask(self, client: Client) -> None:
        self._asked_at = time.perf_counter()
        client.ask(self._output)

    def _receiver(self, client: Client) -> Callable[[bytes], None]:
        def received(frame: bytes) -> None:
            if self._timed:
                self.times.append(time.perf_counter() - self._asked_at)
            try:
                checked(frame)
            except RuntimeError as error:
                self._drained.set_exception(error)
                raise
            # A server may send several responses in one frame; one without data, such as "no update", is none.
            count = frame.count(b'"response"')
            self.done += count
            if self._stopping:
                self._outstanding -= count
                if self._outstanding == 0:
                    self._drained.set_result(None)
            else:
                for _ in range(count):
                    self._ask(client)

        return received

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.wait_for(self._drained, PATIENCE)
        for client in self._clients:
            client.listen()


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes = dataclasses.field(repr=False)
    transferred: int
    """Bytes, with the headers."""


class Http:
    """One kept-alive HTTP connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: Any = None, cookie: str = "") -> bytes:
        """The body of a response with status 200."""
        answer = await self.exchange(method, path, body, {"Cookie": cookie} if cookie else None)
        if answer.status != 200:
            raise RuntimeError(answer)
        return answer.body

    async def exchange(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Whatever the server answers."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        data = b"" if body is None else json.dumps(body).encode()
        origin = f"http://127.0.0.1:{self._port}"
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nOrigin: {origin}\r\n{more}"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self._writer.write(head.encode() + data)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = answer.decode("latin1").splitlines()
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        content = await self._reader.readexactly(0 if status == 304 else int(found["content-length"]))
        if found.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, found, content, len(answer) + len(content))

    async def callback(self, output: str, value: Any = 1) -> bytes:
        """Run one callback over HTTP."""
        return await self.request("POST", "/_dash-update-component", callback_body(output, value))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Visitor:
    """A browser, as far as the page's files are concerned: it asks for what the page names, and keeps what it may."""

    def __init__(self, port: int) -> None:
        self._http = Http(port)
        self._kept: dict[str, Answer] = {}

    async def load(self, *, reload: bool = False) -> int:
        """Bytes transferred for a page, the files that it names, its layout and its callbacks' dependencies.

        Args:
            reload: whether it asks about what it may still use, too (as Firefox and Safari do when a person reloads).
        """
        page = await self._http.exchange("GET", "/", headers={"Accept-Encoding": ACCEPTED})
        named = re.findall(r'(?:src|href)="(/[^"]+)"', page.body.decode())
        transferred = page.transferred
        for path in (*named, "/_dash-layout", "/_dash-dependencies"):
            transferred += await self._get(path, reload=reload)
        return transferred

    async def _get(self, path: str, *, reload: bool) -> int:
        headers = {"Accept-Encoding": ACCEPTED}
        if (kept := self._kept.get(path)) is not None:
            if "max-age" in kept.headers.get("cache-control", "") and not reload:
                return 0
            if "etag" in kept.headers:
                headers["If-None-Match"] = kept.headers["etag"]
        answer = await self._http.exchange("GET", path, headers=headers)
        if answer.status not in (200, 304):
            raise RuntimeError(answer)
        if answer.status == 200 and "no-store" not in answer.headers.get("cache-control", ""):
            self._kept[path] = answer
        return answer.transferred

    def close(self) -> None:
        self._http.close()
