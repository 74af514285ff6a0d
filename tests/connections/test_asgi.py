"""The gate through which frames leave, and the way to close it for good; with a stand-in for the ASGI server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
from quart import Quart, websocket
from quart.asgi import ASGIWebsocketConnection

from dash_quart_ws.connections.asgi import SCOPE_KEY, Disconnected, Socket, socket_class
from dash_quart_ws.wire.close import REASON_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOON = 0.05
"""Seconds: the `close_timeout` of these tests."""


class AsgiServer:
    """An ASGI server's side of one websocket. What it is sent is in `sent`; what the client says is put by the test.

    It has no transport, as granian; `_WithTransport` has one, as uvicorn.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.inbound: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.received: list[str] = []
        self.fails_with: BaseException | None = None
        self.may_pass = asyncio.Event()
        self.may_pass.set()

    async def receive(self) -> dict[str, Any]:
        event = await self.inbound.get()
        self.received.append(event["type"])
        return event

    async def send(self, event: dict[str, Any]) -> None:
        await self.may_pass.wait()
        if self.fails_with is not None:
            raise self.fails_with
        self.sent.append(event)

    def says(self, text: str) -> None:
        self.inbound.put_nowait({"type": "websocket.receive", "text": text})

    def hangs_up(self) -> None:
        self.inbound.put_nowait({"type": "websocket.disconnect", "code": 1005})

    @property
    def socket(self) -> Socket:
        return Socket(self.receive, self.send)


class _WithTransport(AsgiServer):
    transport: asyncio.Transport


@pytest.fixture
async def connected() -> AsyncIterator[tuple[_WithTransport, socket.socket]]:
    """A server with a real TCP connection, and the client's end of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        client.settimeout(5)
        accepted, _ = listening.accept()
        server = _WithTransport()
        server.transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        yield server, client
        server.transport.abort()


async def reset_seen(client: socket.socket) -> bool:
    """Whether the connection has been reset, and not just closed."""
    try:
        await asyncio.to_thread(client.recv, 1)
    except ConnectionResetError:
        return True
    return False


# ----------------------------------------------------------------------------------------------------- the gate


async def test_messages_come_as_they_are_and_the_end_is_an_exception() -> None:
    server = AsgiServer()
    server.inbound.put_nowait({"type": "websocket.connect"})
    server.says("text")
    server.says("")
    server.inbound.put_nowait({"type": "websocket.receive", "bytes": b"\x00", "text": None})
    server.hangs_up()
    one = server.socket
    assert [await one.receive() for _ in range(3)] == ["text", "", b"\x00"]
    with pytest.raises(Disconnected):
        await one.receive()


async def test_nothing_is_handed_over_after_the_close_has_begun() -> None:
    server = AsgiServer()
    server.may_pass.clear()
    one = server.socket
    closing = asyncio.create_task(one.close(4501, "logged out", timeout=5))
    await asyncio.sleep(0)
    await one.send_text("too late")  # does not even wait
    await one.send({"type": "websocket.send", "text": "too late"})
    await one.send({"type": "websocket.close", "code": 1000})  # Quart's own, when the handler returns
    server.may_pass.set()
    await closing
    assert [event["type"] for event in server.sent] == ["websocket.close"]


async def test_nothing_is_handed_over_to_a_client_that_has_gone() -> None:
    server = AsgiServer()
    one = server.socket
    server.hangs_up()
    with pytest.raises(Disconnected):
        await one.receive()
    await one.send_text("too late")
    assert server.sent == []


async def test_a_server_that_finds_the_client_gone_is_understood() -> None:
    server = AsgiServer()
    server.fails_with = ConnectionResetError()
    with pytest.raises(Disconnected):
        await server.socket.send_text("x")


async def test_a_server_that_fails_in_its_own_way_loses_this_connection_and_harms_nobody_who_sends(
    connected: tuple[_WithTransport, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = connected
    server.fails_with = ValueError("no such state")
    with pytest.raises(Disconnected):
        await server.socket.send_text("x")
    assert await reset_seen(client)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(("bridge", "code"), [(True, 4501), (False, 4001)])
async def test_the_close_has_the_code_that_its_client_understands(bridge: bool, code: int) -> None:
    server = AsgiServer()
    one = server.socket
    one.bridge = bridge
    await one.close(4501, "é" * 200, timeout=5)
    (event,) = server.sent
    assert event["code"] == code
    assert len(event["reason"].encode()) <= REASON_BYTES


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("Unexpected ASGI message")])
async def test_a_close_that_the_server_refuses_is_a_close(error: Exception) -> None:
    server = AsgiServer()
    server.fails_with = error
    one = server.socket
    await one.close(4501, "logged out", timeout=5)
    server.fails_with = None
    await one.send_text("too late")
    assert server.sent == []


# --------------------------------------------------------------------------------------------------- the reset


async def test_a_close_that_is_stuck_resets_the_connection(connected: tuple[_WithTransport, socket.socket]) -> None:
    server, client = connected
    server.may_pass.clear()
    async with asyncio.timeout(5):
        await server.socket.close(4501, "logged out", timeout=SOON)
    assert await reset_seen(client)
    assert server.sent == []


async def test_a_close_that_is_stuck_ends_also_where_there_is_no_way_to_reset() -> None:
    server = AsgiServer()
    server.may_pass.clear()
    async with asyncio.timeout(5):
        await server.socket.close(4501, "logged out", timeout=SOON)


async def test_a_client_that_stays_after_the_close_is_reset(connected: tuple[_WithTransport, socket.socket]) -> None:
    server, client = connected
    server.says("something")
    async with asyncio.timeout(5):
        await server.socket.dismiss(4501, "logged out", timeout=SOON)
    assert [event["type"] for event in server.sent] == ["websocket.close"]
    assert server.received == ["websocket.receive"], "it was read, so that the server notices when its client hangs up"
    assert await reset_seen(client)


async def test_a_client_that_stays_though_its_server_has_said_goodbye_is_reset(
    connected: tuple[_WithTransport, socket.socket],
) -> None:
    """uvicorn says "disconnect" when its own close frame is out, and waits for ten seconds more."""
    server, client = connected
    server.hangs_up()
    async with asyncio.timeout(5):
        await server.socket.dismiss(4501, "logged out", timeout=SOON)
    assert await reset_seen(client)


async def test_where_there_is_no_way_to_reset_nobody_reads_after_a_close() -> None:
    """granian's worker process ends in a panic when somebody does."""
    server = AsgiServer()
    server.says("something")
    async with asyncio.timeout(5):
        await server.socket.dismiss(4501, "logged out", timeout=5)
    await asyncio.sleep(0)
    assert server.received == []


# ------------------------------------------------------------------------------------ `asgi_websocket_class`


class Theirs(ASGIWebsocketConnection):
    """What another extension had put there."""


def scope(path: str, root_path: str = "") -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "path": root_path + path,
        "raw_path": b"",
        "root_path": root_path,
        "query_string": b"",
        "scheme": "ws",
        "headers": [(b"host", b"localhost")],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "extensions": {},
    }


@pytest.mark.parametrize("root_path", ["", "/below"])
async def test_only_the_paths_of_dash_are_served_by_us(root_path: str) -> None:
    app = Quart(__name__)
    cls = socket_class(Theirs, {"/dash"})
    assert isinstance(cls(app, scope("/chat", root_path)), Theirs)
    assert not isinstance(cls(app, scope("/dash", root_path)), Theirs)


async def test_paths_may_be_added_later() -> None:
    paths: set[str] = set()
    cls = socket_class(Theirs, paths)
    paths.add("/dash")
    assert not isinstance(cls(Quart(__name__), scope("/dash")), Theirs)


def app_with_a_socket() -> Quart:
    app = Quart(__name__)
    app.asgi_websocket_class = socket_class(app.asgi_websocket_class, {"/dash"})

    @app.websocket("/dash")
    async def dash() -> None:
        await websocket.accept()
        one: Socket = websocket.scope[SCOPE_KEY]  # type: ignore[typeddict-item]
        with contextlib.suppress(Disconnected):
            while True:
                await one.send_text(f"heard {await one.receive()}")  # type: ignore[str-bytes-safe]

    return app


async def test_a_view_finds_its_socket_in_the_scope() -> None:
    server = AsgiServer()
    server.inbound.put_nowait({"type": "websocket.connect"})
    server.says("hello")
    server.hangs_up()
    async with asyncio.timeout(5):
        await app_with_a_socket()(scope("/dash"), server.receive, server.send)
    assert [event["type"] for event in server.sent] == ["websocket.accept", "websocket.send"]
    assert server.sent[1]["text"] == "heard hello"


# ------------------------------------------------------------------------------------------------------- a pause


async def test_in_a_pause_nothing_is_taken_but_one_message_and_none_is_lost(connected: Any) -> None:
    server, _ = connected
    gate = server.socket
    pausing = asyncio.create_task(gate.pause(60))
    for text in "abc":
        server.says(text)
    while not server.received:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.received) == 1
    gate.resume()
    await pausing
    assert [await gate.receive() for _ in range(3)] == ["a", "b", "c"]


async def test_a_pause_ends_when_its_time_is_over(connected: Any) -> None:
    server, _ = connected
    gate = server.socket
    await gate.pause(0.01)
    server.says("a")
    assert await gate.receive() == "a"
    await gate.pause(0.01)
    server.hangs_up()
    with pytest.raises(Disconnected):
        await gate.receive()


async def test_a_client_that_goes_during_a_pause_is_noticed(connected: Any) -> None:
    server, _ = connected
    gate = server.socket
    pausing = asyncio.create_task(gate.pause(60))
    server.hangs_up()
    await pausing
    with pytest.raises(Disconnected):
        await gate.receive()


async def test_a_reader_that_is_cancelled_in_a_pause_leaves_nobody_reading(connected: Any) -> None:
    server, _ = connected
    pausing = asyncio.create_task(server.socket.pause(60))
    while not any(task.get_name() == "read ahead" for task in asyncio.all_tasks()):
        await asyncio.sleep(0)
    pausing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pausing
    await asyncio.sleep(0)
    assert not any(task.get_name() == "read ahead" for task in asyncio.all_tasks())


async def test_where_a_connection_cannot_be_reset_a_pause_reads_nothing_ahead() -> None:
    """granian: whoever reads while a close is on its way takes its worker process down."""
    server = AsgiServer()
    server.says("a")
    gate = server.socket
    await gate.pause(0.01)
    assert server.received == []
    assert await gate.receive() == "a"
