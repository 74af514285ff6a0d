"""What clients that misbehave can do to each documented server, and to everybody else on it: nothing."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from .raw import (
    BINARY,
    CLOSE,
    COMPRESSED,
    CONTINUATION,
    TCP_CLOSE,
    TCP_FIN_WAIT_1,
    TCP_FIN_WAIT_2,
    TCP_TIME_WAIT,
    TEXT,
    Http2,
    RawSocket,
    compression_bomb,
    encode,
    resident_megabytes,
    server_side,
    watching_memory,
)
from .server import SOCKET_PATH, closed, next_message, request_message, result, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import Server

APP = "tests.apps.servers:server"
SERVERS = ("hypercorn", "uvicorn", "uvicorn:wsproto", "uvicorn:websockets", "granian")
CLOSE_TIMEOUT = 2.0
"""Seconds: the default of the option `close_timeout`."""
OVERSIZED = 65
"""MB of a message that no server takes: 16 is the limit of hypercorn and uvicorn, 64 that of granian."""
RATE = {"messages_per_second": 200, "messages_burst": 300}
"""Less than any server takes by itself."""
MARGIN = 1.5
"""Seconds that a busy machine may add to a deadline."""
OFF = (None, TCP_TIME_WAIT)
HUNG_UP = (*OFF, TCP_FIN_WAIT_1, TCP_FIN_WAIT_2)
OURS = ("callback", "writer", "closing", "close frame", "dismissed")
TROUBLE = ("Traceback", "never retrieved", "never awaited", "Exception in ASGI", "Error in ASGI", "Unhandled exception")


class Log:
    """What a server said during one test."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._start = len(server.log)
        self.expected: list[str] = []

    def trouble(self) -> str:
        text = self._server.log[self._start :]
        for expected in self.expected:
            text = text.replace(expected, "")
        return text if any(word in text for word in TROUBLE) else ""


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"OPTIONS": json.dumps(RATE)}
    with serving(tmp_path_factory.mktemp("server"), server=request.param, app=APP, env=env) as running:
        running.kind = request.param  # type: ignore[attr-defined]
        running.get("/_dash-layout")  # the first contact is over
        yield running


@pytest.fixture(scope="module")
def http2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """hypercorn, for clients that speak HTTP/2 with it."""
    with serving(tmp_path_factory.mktemp("http2"), server="hypercorn", app=APP) as running:
        running.get("/_dash-layout")
        yield running


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """hypercorn, with a middleware that has a `send` of its own."""
    with serving(tmp_path_factory.mktemp("wrapped"), server="hypercorn", app="tests.apps.wrapped:server") as running:
        running.get("/_dash-layout")
        yield running


@pytest.fixture(autouse=True)
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """Whatever a client does, no server prints a traceback, and nothing is left of the client."""
    name = next(name for name in ("server", "http2", "wrapped", "compressing") if name in request.fixturenames)
    running: Server = request.getfixturevalue(name)
    log = Log(running)
    yield log
    wait_for(lambda: not left(running), 10, "the package's tasks and connections to end")
    assert not log.trouble(), log.trouble()


def state(server: Server) -> dict:
    return server.get("/state").json


def left(server: Server) -> list:
    """What is there of connections."""
    now = state(server)
    return [*now["connections"], *(task for task in now["tasks"] if task.startswith(OURS))]


def has_means(server: Server) -> bool:
    """Whether the package can reset this server's connections: granian's are out of Python's reach."""
    return getattr(server, "kind", "hypercorn") != "granian"


def off_the_machine(server: Server, port: int) -> bool:
    """Whether the server's end of a client's connection is gone. granian, which cannot be made to reset it, has hung up
    at least: what is left is the kernel's, and holds nothing of the application.
    """
    return server_side(server, port) in (OFF if has_means(server) else HUNG_UP)


def blocked(server: Server, client: RawSocket) -> RawSocket:
    """A client that does not read, after it has asked for more than all the buffers hold."""
    client.request("b.children", 6)
    wait_for(lambda: client.unread and "writer" in state(server)["tasks"], 10, "the buffers to be full")
    return client


def logout(server: Server, cookie: str) -> float:
    """Log out; how long the response took."""
    before = time.monotonic()
    assert server.get("/logout", cookie).status == 200
    return time.monotonic() - before


# ------------------------------------------------------------------------------------------- ended means ended


def test_a_client_that_ignores_the_close_runs_nothing_and_gets_nothing_more(server: Server) -> None:
    cookie = server.login("alice")
    with RawSocket(server, cookie) as client:
        assert result(client.call("a.children", 1)) == "alice 1"
        client.request("d.children", 1, "flow")
        client.frame()
        logout(server, cookie)
        ended = time.monotonic()
        executed = state(server)["started"]
        frames = []
        with pytest.raises((EOFError, ConnectionError)):  # noqa: PT012 - the loop is what ends
            while time.monotonic() < ended + CLOSE_TIMEOUT + MARGIN:
                client.request("a.children", 2)
                with pytest.raises(TimeoutError):  # noqa: PT012
                    while True:
                        frames.append(client.frame(0.02))
        opcodes = [frame.opcode for frame in frames]
        assert CLOSE in opcodes
        assert opcodes.index(CLOSE) == len(opcodes) - 1, "nothing comes after the close frame"
        assert frames[-1].close_code == 4001
        wait_for(lambda: off_the_machine(server, client.port), MARGIN, "the server's end to be gone")
        assert time.monotonic() - ended < CLOSE_TIMEOUT + MARGIN
    assert state(server)["started"] == executed


def test_a_client_that_ignores_the_close_and_is_silent_is_disconnected_within_the_deadline(server: Server) -> None:
    cookie = server.login("alice")
    with RawSocket(server, cookie) as client:
        client.call("a.children")
        logout(server, cookie)
        ended = time.monotonic()
        assert client.close_frame(1).close_code == 4001
        wait_for(lambda: off_the_machine(server, client.port), CLOSE_TIMEOUT + MARGIN, "the server's end to be gone")
        assert time.monotonic() - ended < CLOSE_TIMEOUT + MARGIN


def test_a_client_that_does_not_read_is_off_the_machine_within_the_deadline(server: Server) -> None:
    cookie = server.login("alice")
    with RawSocket(server, cookie, receive_buffer=4096) as client:
        finished = state(server)["finished"].count("fill")
        blocked(server, client)
        assert logout(server, cookie) < CLOSE_TIMEOUT / 2, "the response does not wait for such a client"
        ended = time.monotonic()
        assert state(server)["connections"] == []
        wait_for(lambda: state(server)["finished"].count("fill") > finished, 1, "the callback to be cancelled")
        if not has_means(server):
            # granian owns its sockets: the package can only end its own part, which is gone. What granian had already
            # taken stays on its way until the client hangs up.
            wait_for(lambda: not left(server), CLOSE_TIMEOUT + 5, "the package's part to be gone")
            return
        wait_for(lambda: client.tcp_state == TCP_CLOSE, CLOSE_TIMEOUT + MARGIN, "the reset")
        assert time.monotonic() - ended < CLOSE_TIMEOUT + MARGIN
        assert server_side(server, client.port) is None
        unread = client.unread
        assert client.read_all() <= unread, "all that can still be read is what had reached the client's own machine"
    wait_for(lambda: not left(server), 2, "nothing to be left")


async def test_who_reads_is_told_why_it_ends_behind_a_message_that_fills_the_buffers(server: Server) -> None:
    async with server.connect(server.login("alice")) as client:
        await client.send(request_message("f.children", 16))
        assert (await next_message(client))["type"] == "set_props"
        assert await closed(client) == (4001, "enough")


async def test_a_middleware_finds_each_send_in_one_task_and_context(wrapped: Server) -> None:
    async with wrapped.connect(wrapped.login("alice")) as client:
        await client.send(request_message("b.children", 4))  # many messages in one turn of the event loop
        for number in range(64):
            assert f"data-{number}" in (await next_message(client))["payload"]["props"]


async def test_a_message_that_a_middleware_does_not_take_ends_the_connection(wrapped: Server, log: Log) -> None:
    cookie = wrapped.login("unsendable")
    async with wrapped.connect(cookie) as client:
        await client.send(request_message("a.children", 1))
        assert (await closed(client))[0] == 1011
    wait_for(lambda: "a middleware's own fault" in wrapped.log)
    log.expected.append(wrapped.log[wrapped.log.index("ERROR:dash_quart_ws.asgi") :])


STALLED = 5.0
"""Seconds after which the kernel asks a client the next time, within the deadline, whether it takes anything."""


def test_a_client_that_has_long_stopped_reading_is_reset_as_well(http2: Server) -> None:
    """And not dropped by the kernel, before the deadline and without a word, with a traceback in the server's log."""
    cookie = http2.login("alice")
    with RawSocket(http2, cookie, receive_buffer=4096) as client:
        blocked(http2, client)
        stopped = time.monotonic()
        wait_for(lambda: time.monotonic() > stopped + STALLED, what="the client to have stopped for so long")
        logout(http2, cookie)
        wait_for(lambda: client.tcp_state == TCP_CLOSE, CLOSE_TIMEOUT + MARGIN, "the reset")
        assert server_side(http2, client.port) is None


@pytest.mark.parametrize("says", ["a close frame", "the end of its stream"])
def test_a_client_that_does_not_read_cannot_stay_by_hanging_up_halfway(server: Server, says: str, log: Log) -> None:
    """Its connection is none any more, so that no logout would find it: what is buffered for it must go nevertheless."""
    if not has_means(server):
        pytest.skip("granian's sockets are its own: it waits for such a client as long as the kernel does")
    if server.kind == "uvicorn:websockets":  # type: ignore[attr-defined]
        log.expected += [
            "data transfer failed\nTraceback"
        ]  # that server's own, when its own answer to the close is stuck
    cookie = server.login("alice")
    with RawSocket(server, cookie, receive_buffer=4096) as client:
        blocked(server, client)
        if says == "a close frame":
            client.send(CLOSE, struct.pack("!H", 1000))
        else:
            client.socket.shutdown(socket.SHUT_WR)
        logout(server, cookie)
        wait_for(
            lambda: off_the_machine(server, client.port), 2 * CLOSE_TIMEOUT + MARGIN, "the server's end to be gone"
        )


def test_a_refused_client_that_does_not_hang_up_is_disconnected(server: Server) -> None:
    with RawSocket(server) as client:
        assert client.status == 101
        assert client.close_frame(2).close_code == 4001
        client.request("a.children")
        wait_for(
            lambda: off_the_machine(server, client.port), 2 * CLOSE_TIMEOUT + MARGIN, "the server's end to be gone"
        )


def test_clients_that_vanish_during_the_handshake_leave_nothing(server: Server) -> None:
    cookie = server.login("alice")
    for i in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(
                f"GET {SOCKET_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.origin}\r\n"
                f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nCookie: {cookie}\r\n\r\n".encode()
                + (encode(TEXT, request_message("b.children", 6).encode()) if i % 2 else b"")
            )
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with RawSocket(server, cookie) as witness:
        assert result(witness.call("a.children", 3)) == "alice 3"


def test_a_client_that_does_not_wait_for_its_handshake_leaves_nothing(server: Server) -> None:
    """hypercorn refuses it by itself, and tells nobody; others take what it says."""
    cookie = server.login("alice")
    early = encode(TEXT, request_message("a.children", 3).encode())
    for _ in range(3):
        with RawSocket(server, cookie, early=early) as client:
            assert client.status == (400 if server.kind == "hypercorn" else 101)  # type: ignore[attr-defined]
    with RawSocket(server, cookie) as witness:
        assert result(witness.call("a.children", 3)) == "alice 3"


# ------------------------------------------------------------------------------------------------ compression

OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
BOMB = 395
"""MB that a frame of 0.4 MB inflates to."""
HARMLESS = 32
"""MB that a server may need for a bomb that is not inflated."""


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return compression_bomb(BOMB)


def test_compression_is_not_negotiated_though_the_client_offers_it(server: Server) -> None:
    with RawSocket(server, server.login("alice"), headers=OFFER) as client:
        assert "sec-websocket-extensions" not in client.headers
        assert result(client.call("a.children", 1)) == "alice 1"


def test_a_compressed_frame_is_not_inflated(server: Server) -> None:
    """A reserved bit without an extension ends the connection (RFC 6455, section 5.2)."""
    with RawSocket(server, server.login("alice"), headers=OFFER) as client:
        client.send(TEXT, b"\x00" * 100, reserved=COMPRESSED)
        assert all(frame.opcode == CLOSE for frame in client.frames(5))


@pytest.mark.parametrize("offer", [[], OFFER], ids=["unasked", "offered"])
def test_a_compression_bomb_costs_nothing(server: Server, bomb: bytes, offer: list[tuple[str, str]]) -> None:
    with (
        RawSocket(server, server.login("mallory"), headers=offer) as mallory,
        RawSocket(server, server.login("alice")) as alice,
        watching_memory(state(server)["pid"]) as rise,
    ):
        assert "sec-websocket-extensions" not in mallory.headers
        with contextlib.suppress(ConnectionError):  # it may be refused while it is on its way
            mallory.send(TEXT, bomb, reserved=COMPRESSED)
        assert all(frame.opcode == CLOSE for frame in mallory.frames(5))
        assert result(alice.call("a.children", 1)) == "alice 1"
        assert rise() < HARMLESS


@pytest.mark.parametrize("offer", [[], OFFER], ids=["unasked", "offered"])
def test_over_http2_a_compression_bomb_costs_nothing(http2: Server, bomb: bytes, offer: list[tuple[str, str]]) -> None:
    cookie = http2.login("alice")
    with Http2(http2) as client, watching_memory(state(http2)["pid"]) as rise:
        stream, other = client.connect(cookie, [(name.lower(), value) for name, value in offer]), client.connect(cookie)
        assert client.status[stream] == 200
        assert "sec-websocket-extensions" not in client.headers[stream]
        client.send(stream, TEXT, bomb, reserved=COMPRESSED)
        with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012 - the loop is what ends
            while True:
                assert client.frame(stream, CLOSE_TIMEOUT + MARGIN).opcode == CLOSE
        client.request(other, "a.children", 1)
        assert result(client.frame(other).json["payload"]) == "alice 1"
        assert rise() < HARMLESS


@pytest.fixture(scope="module", params=[kind for kind in SERVERS if kind != "granian"])
def compressing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Servers of an app with `compression=True`; granian has no compression at all."""
    options = {"OPTIONS": json.dumps({"compression": True})}
    with serving(tmp_path_factory.mktemp("compressing"), server=request.param, app=APP, env=options) as running:
        running.kind = request.param  # type: ignore[attr-defined]
        running.get("/_dash-layout")
        yield running


def test_compression_is_negotiated_when_the_app_asks_for_it(compressing: Server) -> None:
    with RawSocket(compressing, compressing.login("alice"), headers=OFFER) as client:
        assert client.headers["sec-websocket-extensions"].startswith("permessage-deflate")
    assert "a small websocket frame may inflate to gigabytes" in compressing.log


def test_with_compression_a_bomb_ends_its_connection_and_nothing_of_it_is_kept(
    compressing: Server, bomb: bytes
) -> None:
    """What it costs meanwhile is the server's own affair: uvicorn counts what it inflates, hypercorn and wsproto do not."""
    pid = state(compressing)["pid"]
    with RawSocket(compressing, compressing.login("alice")) as alice:
        with (
            RawSocket(compressing, compressing.login("mallory"), headers=OFFER) as mallory,
            watching_memory(pid) as rise,
        ):
            with contextlib.suppress(ConnectionError):
                mallory.send(TEXT, bomb, reserved=COMPRESSED)
            assert mallory.close_frame().close_code == 1009
            if compressing.kind in ("uvicorn", "uvicorn:websockets"):  # type: ignore[attr-defined]
                assert rise() < BOMB / 4
        wait_for(
            lambda: [one["user"] for one in state(compressing)["connections"]] == ["alice"], 5, "mallory to be gone"
        )
        assert result(alice.call("a.children", 2)) == "alice 2"


# ---------------------------------------------------------------------------------------------------- bundles


def test_a_bundle_comes_compressed_then_as_not_modified_and_head_and_ranges_do_no_harm(server: Server) -> None:
    page = server.get("/", server.login("alice")).body.decode()
    paths = re.findall(r'<script[^>]* src="(/_[^"]+)"', page)
    assert len(paths) > 5
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    def ask(method: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Always on the same connection: a body too many would be taken for the next response."""
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    with contextlib.closing(connection):
        for path in paths:
            status, headers, body = ask("GET", path, Accept_Encoding="gzip, deflate, br")
            assert (status, headers["Content-Encoding"], headers["Content-Length"]) == (200, "gzip", str(len(body)))
            plain = gzip.decompress(body)
            known = {"Accept_Encoding": "gzip, deflate, br", "If_None_Match": headers["ETag"]}
            for method in ("GET", "HEAD"):
                status, head, nothing = ask(method, path, **known)
                assert (status, head["ETag"], nothing) == (304, headers["ETag"], b"")
                assert head["Content-Length"] in (None, str(len(body)))  # not 0 (RFC 9110, 8.6)
            status, head, nothing = ask("HEAD", path, Accept_Encoding="gzip")
            assert (status, head["ETag"], nothing) == (200, headers["ETag"], b"")
            assert ask("GET", path, Range="bytes=0-9")[::2] == (200, plain)
            assert ask("GET", path, Accept_Encoding="identity")[::2] == (200, plain)


# ------------------------------------------------------------------------------------------------- bad frames


def test_a_flood_is_pushed_back_and_others_do_not_notice(server: Server) -> None:
    pid = state(server)["pid"]
    flood = encode(TEXT, json.dumps({"type": "heartbeat", "padding": "x" * 60_000}).encode())
    with (
        RawSocket(server, server.login("mallory"), receive_buffer=4096) as mallory,
        RawSocket(server, server.login("alice")) as alice,
    ):
        alice.call("a.children")
        before = resident_megabytes(pid)
        outcome: list[tuple[int, bool]] = []
        thread = threading.Thread(target=lambda: outcome.append(mallory.flood(flood, at_most=200 << 20)))
        thread.start()
        slowest, highest = 0.0, 0.0
        while thread.is_alive():
            asked = time.monotonic()
            assert result(alice.call("a.children", 5)) == "alice 5"
            slowest = max(slowest, time.monotonic() - asked)
            highest = max(highest, resident_megabytes(pid))
        thread.join()
        assert slowest < 1.0
        assert highest - before < 64, (outcome, before, highest)


def messages_of(kind: str) -> bytes:
    """Frames to be sent over and over again."""
    numbers = [str(number) for number in range(1000)]
    good = [request_message("a.children", 1, number) for number in numbers]
    match kind:
        case "good and bad ones":  # fewer bad ones than would be abuse
            return b"".join(encode(TEXT, (b"{" if i % 50 == 0 else text.encode())) for i, text in enumerate(good))
        case "arrays":
            return encode(TEXT, f"[{','.join(good[:500])},7]".encode())
        case _:
            return encode(TEXT, f"[{'{},' * (1 << 20)}{{}}]".encode())


@pytest.mark.parametrize("kind", ["good and bad ones", "arrays", "endless arrays"])
def test_a_flood_of_messages_is_taken_no_faster_than_it_may_be_and_others_are_answered(
    server: Server, kind: str
) -> None:
    """Its client takes all answers, so that nothing but the rate holds it back."""
    pid, cookie = state(server)["pid"], server.login("mallory")
    with RawSocket(server, cookie) as mallory, RawSocket(server, server.login("alice")) as alice:
        mallory.call("a.children")
        alice.call("a.children")
        before, executed, began = resident_megabytes(pid), state(server)["started"].count("echo"), time.monotonic()
        drain = threading.Thread(target=mallory.drain)
        drain.start()
        thread = threading.Thread(target=lambda: flooded(mallory, messages_of(kind)))
        thread.start()
        highest, asked = before, 0
        while thread.is_alive():
            asked += 1
            assert result(alice.call("a.children", asked)) == f"alice {asked}"
            highest = max(highest, resident_megabytes(pid))
        thread.join()
        taken = state(server)["started"].count("echo") - executed - asked
        most = RATE["messages_burst"] + RATE["messages_per_second"] * (time.monotonic() - began)
        assert taken <= most + 500, "an array more, which is taken whole"
        assert highest - before < 192, (before, highest)
        mallory.socket.shutdown(socket.SHUT_RDWR)
        drain.join()
    if server.kind == "granian":  # type: ignore[attr-defined]  # it tells who has gone when all that it holds is read
        logout(server, cookie)


def flooded(mallory: RawSocket, frames: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        mallory.flood(frames, at_most=1 << 30, patience=2, seconds=2)


def test_a_binary_frame_hurts_only_itself(server: Server) -> None:
    with RawSocket(server, server.login("alice")) as client:
        client.request("d.children", 1, "flow")
        client.frame()
        client.send(BINARY, b"\x00\xff")
        errors = (f.json for f in client.frames(5) if f.opcode == TEXT and b'"error"' in f.payload)
        assert "binary" in json.dumps(next(errors))
        assert result(client.call("a.children", 2, "2")) == "alice 2"


def test_a_message_in_fragments_is_one_message(server: Server) -> None:
    with RawSocket(server, server.login("alice")) as client:
        text = request_message("a.children", "ä€😀" * 1000).encode()
        for start in range(0, len(text), 1001):  # fragments may end within a character (RFC 6455, section 5.6)
            client.send(
                TEXT if start == 0 else CONTINUATION, text[start : start + 1001], final=start + 1001 >= len(text)
            )
        (message,) = [frame.json for frame in [client.frame()]]
        assert result(message["payload"]) == "alice 3000"


def test_invalid_utf8_ends_only_its_own_connection(server: Server, log: Log) -> None:
    if server.kind == "uvicorn":  # type: ignore[attr-defined]
        log.expected += ["Invalid UTF-8 sequence received from client.\nTraceback"]  # uvicorn's own words
    with (
        RawSocket(server, server.login("mallory")) as mallory,
        RawSocket(server, server.login("alice")) as alice,
    ):
        mallory.call("a.children")
        mallory.send(TEXT, b"\xff")
        frames = list(mallory.frames(5))
        # hypercorn, and uvicorn with wsproto, hang up without a close frame; granian's has no code.
        assert [frame.close_code for frame in frames] in ([], [1007], [None])
        assert all(frame.opcode == CLOSE for frame in frames)
        assert result(alice.call("a.children", 2)) == "alice 2"


def test_an_oversized_message_ends_only_its_own_connection(server: Server) -> None:
    with (
        RawSocket(server, server.login("mallory")) as mallory,
        RawSocket(server, server.login("alice")) as alice,
    ):
        mallory.call("a.children")
        # uvicorn's deprecated implementation takes no more of it, and hangs up after 10 s.
        mallory.socket.settimeout(30)
        with contextlib.suppress(ConnectionError):  # it may be refused while it is on its way
            mallory.send(TEXT, b"x" * (OVERSIZED << 20))
        # A reset, while the message is on its way, overtakes the close frame. uvicorn's deprecated implementation sends
        # none as long as the rest is on its way.
        with contextlib.suppress(EOFError, ConnectionError, TimeoutError):
            assert mallory.close_frame(CLOSE_TIMEOUT + MARGIN).close_code in (1009, None)  # granian's has no code
        assert result(alice.call("a.children", 2)) == "alice 2"


def test_a_message_is_refused_as_soon_as_it_is_larger_than_any_may_be(server: Server) -> None:
    if not has_means(server):
        pytest.skip("granian's limit is its own, 64 MiB: what is larger than ours is refused when it has come")
    with RawSocket(server, server.login("mallory")) as mallory:
        mallory.call("a.children")
        mallory.send(TEXT, b"x" * (4 << 20), final=False)
        with contextlib.suppress(ConnectionError):
            mallory.send(CONTINUATION, b"x" * (5 << 20), final=False)  # 8 MiB is the default of `inbound_bytes`
        with contextlib.suppress(EOFError, ConnectionError):  # a reset may overtake the close frame
            assert mallory.close_frame(CLOSE_TIMEOUT + MARGIN).close_code == 1009
    # uvicorn's deprecated implementation tells the application half a minute later at most.
    late = 30 if server.kind == "uvicorn:websockets" else 0  # type: ignore[attr-defined]
    wait_for(lambda: not state(server)["connections"], late + CLOSE_TIMEOUT + MARGIN, "the connection to be gone")


def test_a_message_without_end_is_not_kept_and_its_client_is_disconnected(server: Server) -> None:
    """The client ignores that the server has refused its message, and goes on sending it."""
    pid = state(server)["pid"]
    with RawSocket(server, server.login("mallory")) as mallory:
        mallory.call("a.children")
        before = resident_megabytes(pid)
        began = time.monotonic()
        mallory.send(TEXT, b"x" * (1 << 20), final=False)
        piece = encode(CONTINUATION, b"x" * (1 << 20), final=False)
        with contextlib.suppress(ConnectionError):
            mallory.flood(piece, at_most=300 << 20, seconds=8)
        assert resident_megabytes(pid) - before < 128
        if server.kind == "uvicorn:websockets":  # type: ignore[attr-defined]
            return  # this one, deprecated, waits for the client for half a minute before the application hears of it
        wait_for(lambda: off_the_machine(server, mallory.port), 2 * CLOSE_TIMEOUT + MARGIN, "the connection to be gone")
        assert time.monotonic() - began < 8 + 2 * CLOSE_TIMEOUT + MARGIN


# --------------------------------------------------------------------------------------------------- HTTP/2


def test_over_http2_a_logout_closes_the_socket_and_leaves_the_other_streams_alone(http2: Server) -> None:
    cookie = http2.login("alice")
    with Http2(http2) as client:
        stream = client.connect(cookie)
        assert client.status[stream] == 200
        client.request(stream, "a.children", 7)
        assert result(client.frame(stream).json["payload"]) == "alice 7"
        assert client.get("/logout", cookie)[0] == 200
        assert client.frame(stream).close_code == 4001
        client.read_until(lambda: stream in client.reset or stream in client.ended, CLOSE_TIMEOUT + MARGIN)
        assert client.get("/me", cookie)[0] == 200


def test_over_http2_a_client_that_ignores_the_close_runs_nothing_and_its_stream_is_reset(http2: Server) -> None:
    cookie = http2.login("alice")
    with Http2(http2) as client:
        stream = client.connect(cookie)
        client.request(stream, "d.children", 1, "flow")
        client.frame(stream)
        logout(http2, cookie)
        ended = time.monotonic()
        executed = state(http2)["started"]
        frames = []
        with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() < ended + CLOSE_TIMEOUT + MARGIN:
                if stream not in client.ended:
                    client.request(stream, "a.children", 2)
                with pytest.raises(TimeoutError):  # noqa: PT012
                    while True:
                        frames.append(client.frame(stream, 0.02))
        opcodes = [frame.opcode for frame in frames]
        assert opcodes.index(CLOSE) == len(opcodes) - 1
        client.read_until(lambda: stream in client.reset, CLOSE_TIMEOUT + MARGIN)
        assert state(http2)["started"] == executed
        assert client.get("/me")[0] == 200


def test_over_http2_a_stream_that_is_not_read_is_reset_and_the_connection_goes_on(http2: Server) -> None:
    cookie = http2.login("alice")
    with Http2(http2) as client:  # the connection's window is wide, a stream's is 64 kB and is never opened again
        stream = client.connect(cookie)
        other = client.connect(http2.login("bob"))
        client.request(stream, "b.children", 6)
        client.read_until(lambda: len(client.data[stream]) >= 65_535, 10)
        wait_for(lambda: "writer" in state(http2)["tasks"], 5)
        before = time.monotonic()
        assert client.get("/logout", cookie)[0] == 200
        assert time.monotonic() - before < CLOSE_TIMEOUT / 2
        client.read_until(lambda: stream in client.reset, CLOSE_TIMEOUT + MARGIN)
        assert len(client.data[stream]) == 65_535, "nothing more than its window had let through"
        client.request(other, "a.children", 3)
        assert result(client.frame(other).json["payload"]) == "bob 3"
        assert client.get("/me")[0] == 200


def test_over_http2_a_client_that_says_goodbye_without_reading_gets_nothing_later(http2: Server) -> None:
    cookie = http2.login("alice")
    with Http2(http2) as client:
        stream = client.connect(cookie)
        client.request(stream, "b.children", 6)
        client.read_until(lambda: len(client.data[stream]) >= 65_535, 10)
        client.send(stream, CLOSE, struct.pack("!H", 1000))
        wait_for(lambda: not state(http2)["connections"], 5, "the connection to have ended")
        logout(http2, cookie)
        client.read_until(lambda: stream in client.reset, CLOSE_TIMEOUT + MARGIN)
        assert len(client.data[stream]) == 65_535
        assert client.get("/me")[0] == 200


def test_over_http2_a_client_that_reads_nothing_at_all_is_off_the_machine(http2: Server) -> None:
    cookie = http2.login("alice")
    with Http2(http2, window=1 << 30, stream_window=1 << 30, receive_buffer=4096) as client:
        stream = client.connect(cookie)
        client.request(stream, "b.children", 6)
        wait_for(lambda: "writer" in state(http2)["tasks"], 5)
        assert logout(http2, cookie) < CLOSE_TIMEOUT / 2
        wait_for(lambda: off_the_machine(http2, client.port), 3 * CLOSE_TIMEOUT + MARGIN, "the connection to be gone")
