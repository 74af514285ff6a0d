"""What one client may ask for: each limit, what is beyond it, and that nobody else loses anything by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from dash_quart_ws.connections.body import MOST_WAITING

from .raw import TEXT, RawSocket
from .server import (
    BRIDGE,
    Server,
    attach,
    await_for,
    call,
    closed,
    detach,
    next_message,
    request_message,
    result,
    serving,
    wait_for,
)
from .sessions.site import ORIGIN, BridgeSocket, Site, ending, until
from .sessions.site import SOCKET_PATH as SITE_SOCKET_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import websockets

APP = "tests.apps.limits:server"
CALLBACKS = "/_dash-update-component"
JSON = {"Content-Type": "application/json"}
MB = 1024 * 1024
TOO_MANY = "Too many callbacks at once: try again when some of them have been answered"

SMALL = {
    "callbacks_per_connection": 20,
    "callback_bytes_per_connection": MB,
    "callbacks": 120,
    "callback_bytes": 12 * MB,
    "callback_threads": 2,
    "callback_threads_per_user": 1,
    "queued_callbacks": 12,
    "queued_callbacks_per_user": 4,
    "connections": 12,
    "connections_per_session": 3,
    "connections_per_user": 5,
    "anonymous_connections": 32,
    "uploads": 3,
}
PER_USER = 30
"""A quarter of `callbacks`."""

SLOW = {"messages_per_second": 1, "messages_burst": 30, "connections_per_session": 3}
HEARTBEAT = 2.0
"""Seconds: the interval of the slow server."""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"OPTIONS": json.dumps(SMALL)}
    with serving(tmp_path_factory.mktemp("limited"), app=APP, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes one message a second, and few at once."""
    env = {"OPTIONS": json.dumps(SLOW), "HEARTBEAT": str(int(HEARTBEAT * 1000)), "BODY_TIMEOUT": "1"}
    with serving(tmp_path_factory.mktemp("slow"), app=APP, env=env) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    name = next((name for name in ("limited", "slow") if name in request.fixturenames), None)
    if name is None:
        yield
        return
    running: Server = request.getfixturevalue(name)
    yield
    names = ("callbacks", "bytes", "queued", "uploads", "connections")
    wait_for(lambda: not any(state(running)[name] for name in names), 10, "everything to be given back")
    assert "Traceback" not in running.log


def state(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/state").json
    return found


async def astate(server: Server) -> dict[str, Any]:
    return await asyncio.to_thread(state, server)


async def holds(server: Server, **expected: Any) -> None:
    """Wait until the server holds exactly so much."""
    await await_for(lambda: expected.items() <= state(server).items(), what=f"{expected}: {state(server)}")


def request(output: str, number: int, value: Any = 1, padding: int = 0) -> str:
    message = json.loads(request_message(output, value, str(number)))
    if padding:
        message["payload"]["padding"] = "x" * padding
    return json.dumps(message)


async def ask(socket: websockets.ClientConnection, output: str, numbers: range, **options: Any) -> None:
    for number in numbers:
        await socket.send(request(output, number, **options))


async def refusal(socket: websockets.ClientConnection, number: int) -> str:
    """Wait for the error that a request is answered with."""
    message = await next_message(socket, "callback_response")
    assert (message["requestId"], message["payload"]["status"]) == (str(number), "error"), message
    text: str = message["payload"]["message"]
    return text


@contextlib.asynccontextmanager
async def open_connections(server: Server, cookies: list[str]) -> AsyncIterator[list[websockets.ClientConnection]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(server.connect(cookie)) for cookie in cookies]


async def is_served(socket: websockets.ClientConnection, name: str) -> bool:
    return bool(result(await call(socket, "echo.children", 7, "served?")) == f"{name} 7")


# ------------------------------------------------------------------------------------------- messages per second


async def test_what_is_sent_faster_than_it_may_be_is_read_later_and_nothing_is_lost(tmp_path: Path) -> None:
    env = {"OPTIONS": json.dumps({"messages_per_second": 20, "messages_burst": 20})}
    with serving(tmp_path, app=APP, env=env) as server:
        async with server.connect(server.login("hasty")) as hasty, server.connect(server.login("alice")) as alice:
            await ask(hasty, "echo.children", range(50))
            await holds(server, paused=["hasty"])
            assert await is_served(alice, "alice")
            answers = [await next_message(hasty, "callback_response") for _ in range(50)]
            assert [int(answer["requestId"]) for answer in answers] == list(range(50))
            assert await is_served(hasty, "hasty")
            assert state(server)["paused"] in ([], ["hasty"])


ARRAY = json.dumps([{"type": "heartbeat"}] * 500)
"""More than the slow server takes in eight minutes, in one frame."""


async def test_a_logout_does_not_wait_for_a_client_that_is_not_read(slow: Server) -> None:
    cookie = slow.login("hasty")
    async with slow.bridge(cookie) as hasty, slow.connect(slow.login("alice")) as alice:
        await hasty.send(ARRAY)
        await holds(slow, paused=["hasty"])
        await hasty.send(request("echo.children", 1))
        await slow.aget("/logout", cookie)
        assert (await closed(hasty))[0] == 4501
        assert await is_served(alice, "alice")


def test_once_its_session_has_ended_a_client_is_read_again_so_that_its_going_is_heard_of(slow: Server) -> None:
    cookie = slow.login("hasty")
    with RawSocket(slow, cookie) as hasty:  # which does not hang up by itself
        hasty.send(TEXT, ARRAY.encode())
        wait_for(lambda: state(slow)["paused"] == ["hasty"])
        slow.get("/logout", cookie)
        assert state(slow)["paused"] == []
        assert hasty.close_frame().close_code == 4001


async def test_a_client_that_goes_while_it_is_not_read_is_noticed(slow: Server) -> None:
    async with slow.connect(slow.login("hasty")) as hasty:
        await hasty.send(request("wait.children", 1))
        await holds(slow, callbacks=1)
        await hasty.send(ARRAY)
        await holds(slow, paused=["hasty"])
        await hasty.close()
        await holds(slow, connections=[], callbacks=0)


@pytest.mark.parametrize("goes", ["with a close frame", "without a word"])
async def test_a_client_that_goes_is_noticed_also_behind_much_that_is_not_read_yet(slow: Server, goes: str) -> None:
    async with slow.connect(slow.login("hasty")) as hasty:
        await hasty.send(request("wait.children", 1))
        await holds(slow, callbacks=1)
        for _ in range(4):
            await hasty.send(ARRAY)
        await holds(slow, paused=["hasty"])
        if goes == "without a word":
            hasty.transport.abort()
        else:
            hasty.close_timeout = 0.1
        await hasty.close()
        await holds(slow, connections=[], callbacks=0)


async def test_a_client_that_is_not_read_does_not_count_as_silent(slow: Server) -> None:
    async with slow.bridge(slow.login("hasty")) as hasty, slow.connect(slow.login("silent"), **BRIDGE) as silent:
        await hasty.send(ARRAY)
        await holds(slow, paused=["hasty"])
        assert (await closed(silent)) == (4106, "no heartbeat")
        # Whoever is silent for as long as the other one has been, and longer, is still here.
        async with slow.connect(slow.login("silent"), **BRIDGE) as again:
            assert (await closed(again)) == (4106, "no heartbeat")
        await holds(slow, connections=["hasty"])


async def test_a_large_message_counts_as_many(slow: Server) -> None:
    async with slow.connect(slow.login("large")) as large:
        await large.send(request("echo.children", 1, padding=MB))
        assert (await next_message(large, "callback_response"))["requestId"] == "1"
        await holds(slow, paused=["large"])


# ------------------------------------------------------------------------------------------------- size of messages


async def test_a_message_that_is_larger_than_any_may_be_closes_its_own_connection_only(tmp_path: Path) -> None:
    options = {"inbound_bytes": 4 * MB, "callback_bytes_per_connection": 64 * MB}
    with serving(tmp_path, app=APP, env={"OPTIONS": json.dumps(options)}) as server:
        cookie = server.login("alice")
        async with server.connect(cookie) as other:
            for padding, code in (("x" * 4 * MB, 1009), ("\u20ac" * (4 * MB // 3 + 1), 1009)):
                async with server.connect(cookie) as large:
                    await large.send(json.dumps({"type": "heartbeat", "padding": padding}, ensure_ascii=False))
                    assert (await closed(large))[0] == code
            async with server.connect(cookie) as large:
                await large.send(request("echo.children", 1, padding=4 * MB - 1000))
                assert (await next_message(large, "callback_response"))["payload"]["status"] == "ok"
            assert await is_served(other, "alice")


# ---------------------------------------------------------------------------------------------- callbacks in flight


async def test_beyond_its_callbacks_a_connection_gets_an_error_and_goes_on(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with (
        limited.bridge(cookie) as mallory,
        limited.bridge(cookie) as her_other,
        limited.bridge(limited.login("alice")) as alice,
    ):
        await ask(mallory, "wait.children", range(20))
        await holds(limited, callbacks=20)
        for number in range(100, 800):  # more than `bad_messages_per_minute`
            await mallory.send(request("echo.children", number))
            assert await refusal(mallory, number) == TOO_MANY
        assert await is_served(her_other, "mallory")
        assert await is_served(alice, "alice")
        await detach(mallory)  # which cancels what runs for the tab
        await holds(limited, callbacks=0)
        assert (await attach(mallory, await asyncio.to_thread(limited.page_token, cookie)))["type"] == "session"
        assert await is_served(mallory, "mallory")
    lines = [line for line in limited.log.splitlines() if "too many callbacks connection=" in line]
    assert len(lines) == 1
    assert "'mallory'" in lines[0]


async def test_beyond_what_its_callbacks_came_in_a_connection_gets_an_error(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with open_connections(limited, [cookie, cookie, limited.login("alice")]) as (mallory, her_other, alice):
        await ask(mallory, "wait.children", range(2), padding=MB * 2 // 3)
        await holds(limited, callbacks=2)
        await mallory.send(request("wait.children", 2))
        assert await refusal(mallory, 2) == TOO_MANY
        assert await is_served(her_other, "mallory")
        assert await is_served(alice, "alice")


async def test_on_however_many_connections_one_user_has_a_quarter_of_all_callbacks(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with open_connections(limited, [cookie, cookie, cookie, limited.login("alice")]) as (*hers, alice):
        for socket, numbers in zip(hers, (range(20), range(PER_USER - 20), range(0)), strict=True):
            await ask(socket, "wait.children", numbers)
        await holds(limited, callbacks=PER_USER)
        for socket in hers:
            await socket.send(request("wait.children", 99))
            assert await refusal(socket, 99) == TOO_MANY
        over_http = await asyncio.to_thread(post, limited, "echo", cookie)
        assert (over_http.status, over_http.headers["Retry-After"]) == (503, "5")
        assert over_http.json == {"error": TOO_MANY}
        assert await is_served(alice, "alice")
        await asyncio.to_thread(serves_over_http, limited, "alice")


async def test_on_however_many_connections_one_user_has_a_quarter_of_all_bytes(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with open_connections(limited, [cookie, cookie, cookie, limited.login("alice")]) as (*hers, alice):
        for socket in hers:
            await ask(socket, "wait.children", range(2), padding=MB * 2 // 3)
        await holds(limited, callbacks=5)
        assert await refusal(hers[-1], 1) == TOO_MANY
        assert await is_served(alice, "alice")


async def test_who_closes_and_comes_back_still_holds_what_runs(limited: Server) -> None:
    """A callback that does not let itself be cancelled goes on: it counts until it has ended."""
    cookie = limited.login("mallory")
    async with open_connections(limited, [limited.login("alice")]) as (alice,):
        for _ in range(2):
            async with open_connections(limited, [cookie]) as (mallory,):
                await ask(mallory, "stays.children", range(20))
                await await_for(lambda: state(limited)["callbacks"] >= 20)
        async with open_connections(limited, [cookie]) as (mallory,):
            await await_for(lambda: state(limited)["callbacks"] == PER_USER)
            await mallory.send(request("echo.children", 99))
            assert await refusal(mallory, 99) == TOO_MANY
            assert await is_served(alice, "alice")
        await limited.aget("/gate/open")
        await holds(limited, callbacks=0)
        await limited.aget("/gate/shut")


# ----------------------------------------------------------------------------------------------- queued for a thread


def post(server: Server, name: str, cookie: str | None, value: Any = 7) -> Any:
    body = json.loads(request_message(f"{name}.children", value))["payload"]
    return server.request("POST", CALLBACKS, cookie=cookie, body=body)


def serves_over_http(server: Server, name: str) -> None:
    assert post(server, "sync", server.login(name)).json["response"] == {"sync": {"children": f"{name} 7"}}


async def test_one_user_fills_their_part_of_the_queue_for_threads_and_another_still_has_one(limited: Server) -> None:
    await limited.aget("/gate/shut")
    cookie = limited.login("mallory")
    async with open_connections(limited, [cookie, limited.login("alice")]) as (mallory, alice):
        await ask(mallory, "hold.children", range(5))
        await holds(limited, queued=4)
        await mallory.send(request("hold.children", 5))
        assert await refusal(mallory, 5) == TOO_MANY
        for path, body in ((CALLBACKS, json.loads(request("hold.children", 1))["payload"]), ("/hold", {})):
            reply = await asyncio.to_thread(limited.request, "POST", path, cookie=cookie, body=body)
            assert (reply.status, reply.headers["Retry-After"]) == (503, "5"), path
        assert await is_served(mallory, "mallory"), "what needs no thread goes on"
        assert result(await call(alice, "sync.children", 3)) == "alice 3"
        await asyncio.to_thread(serves_over_http, limited, "alice")
        await limited.aget("/gate/open")
        answers = [await next_message(mallory, "callback_response") for _ in range(5)]
        assert sorted(answer["requestId"] for answer in answers) == ["0", "1", "2", "3", "4"]
    assert "one too many" not in limited.log


# ------------------------------------------------------------------------------------------------------ connections


async def outcome(server: Server, cookie: str) -> tuple[int | None, str | None]:
    """How a connection fares that is one too many."""
    async with server.connect(cookie) as socket:
        return await closed(socket)


async def test_one_session_has_so_many_connections_and_others_have_theirs(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with open_connections(limited, [cookie] * 3) as hers:
        assert await outcome(limited, cookie) == (4105, "too many connections of this session")
        async with open_connections(limited, [limited.login("alice")]) as (alice,):
            assert await is_served(alice, "alice")
        for socket in hers:
            assert await is_served(socket, "mallory")
        await hers[0].close()
        await holds(limited, connections=["mallory"] * 2)
        async with open_connections(limited, [cookie]) as (again,):
            assert await is_served(again, "mallory")


async def test_one_user_has_so_many_connections_in_all_sessions_together(limited: Server) -> None:
    one, other, third = (limited.login("mallory") for _ in range(3))
    async with open_connections(limited, [one, one, one, other, other]) as hers:
        assert await outcome(limited, third) == (4105, "too many connections of this user")
        async with open_connections(limited, [limited.login("alice")]) as (alice,):
            assert await is_served(alice, "alice")
        for socket in hers:
            assert await is_served(socket, "mallory")


async def test_connections_that_come_all_at_once_are_counted_like_any_others(limited: Server) -> None:
    cookie = limited.login("mallory")
    async with contextlib.AsyncExitStack() as stack:
        opening = [stack.enter_async_context(limited.connect(cookie)) for _ in range(10)]
        sockets = await asyncio.gather(*opening)
        endings = [asyncio.create_task(closed(socket)) for socket in sockets]
        await await_for(lambda: state(limited)["connections"] == ["mallory"] * 3)
        async with asyncio.timeout(10):
            while sum(ending.done() for ending in endings) < 7:
                await asyncio.wait(endings, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        assert {ending.result()[0] for ending in endings if ending.done()} == {4105}
        for ending in endings:
            ending.cancel()


async def test_beyond_all_connections_of_the_process_the_client_is_told_to_come_back_later(limited: Server) -> None:
    cookies = [limited.login(name) for name in "abcd" for _ in range(3)]
    async with open_connections(limited, cookies) as sockets:
        assert await outcome(limited, limited.login("alice")) == (1013, "too many connections")
        for socket, name in zip(sockets, (name for name in "abcd" for _ in range(3)), strict=True):
            assert await is_served(socket, name)
        await sockets[0].close()
        await await_for(lambda: len(state(limited)["connections"]) == 11)
        async with open_connections(limited, [limited.login("alice")]) as (alice,):
            assert await is_served(alice, "alice")


async def test_without_a_login_half_of_all_connections_is_the_most_from_however_many_addresses(limited: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            socket = await stack.enter_async_context(limited.connect())
            payload = await call(socket, "open.children", "abc")
            assert result(payload) == 3
        async with limited.connect() as one_too_many:
            assert await closed(one_too_many) == (1013, "too many connections")
        async with open_connections(limited, [limited.login("alice")] * 3) as (alice, *_):
            assert await is_served(alice, "alice")


async def test_while_nobody_is_silent_nobody_makes_room(slow: Server) -> None:
    cookie = slow.login("mobile")
    async with open_connections(slow, [cookie] * 3) as (one, *others):
        beating = [asyncio.create_task(beat(socket)) for socket in (one, *others)]
        assert await outcome(slow, cookie) == (4105, "too many connections of this session")
        assert await is_served(one, "mobile")
        for task in beating:
            task.cancel()


async def test_the_connection_that_is_silent_for_longest_makes_room_and_no_other_does(slow: Server) -> None:
    cookie = slow.login("mobile")
    async with open_connections(slow, [slow.login("alice"), cookie, cookie, cookie]) as (alice, first, second, alive):
        beating = asyncio.create_task(beat(alive))
        async with slow.connect(slow.login("clock"), **BRIDGE) as clock:
            assert (await closed(clock)) == (4106, "no heartbeat"), "by now the others are silent for long enough"
        async with open_connections(slow, [cookie]) as (newcomer,):
            assert await is_served(newcomer, "mobile")
            assert await closed(first) == (4106, "silent, and room was needed")
            assert await is_served(second, "mobile")
            assert await is_served(alive, "mobile")
            assert await is_served(alice, "alice"), "silent for longer, but of another session"
        beating.cancel()


async def beat(socket: websockets.ClientConnection) -> None:
    while True:
        await socket.send(json.dumps({"type": "heartbeat"}))
        await asyncio.sleep(HEARTBEAT / 4)


# ---------------------------------------------------------------------------------------------------------- uploads


def upload(size: int, output: str = "size") -> bytes:
    return json.dumps(json.loads(request_message(f"{output}.children", "x" * size))["payload"]).encode()


class Upload:
    """A large callback over HTTP, as far as its client sends it."""

    def __init__(self, server: Server, cookie: str, body: bytes, *, sent: int, address: str = "127.0.0.1") -> None:
        self._rest = body[sent:]
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20, source_address=(address, 0))
        self.socket.sendall(
            f"POST {CALLBACKS} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {cookie}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body[:sent]
        )

    def go_on(self, size: int | None = None) -> bool:
        """Send more of it; whether anything is left."""
        piece, self._rest = (self._rest, b"") if size is None else (self._rest[:size], self._rest[size:])
        self.socket.sendall(piece)
        return bool(self._rest)

    def status(self) -> int:
        answer = b""
        while b"\r\n" not in answer:
            received = self.socket.recv(65536)
            assert received, "closed without an answer"
            answer += received
        return int(answer.split()[1])

    def is_answered(self) -> bool:
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        self.socket.settimeout(20)
        return False

    def close(self) -> None:
        self.socket.close()


def test_one_user_has_two_large_uploads_at_a_time_and_others_do_not_wait_for_them(limited: Server) -> None:
    cookie, body = limited.login("mallory"), upload(2 * MB)
    stalled = [Upload(limited, cookie, body, sent=MB) for _ in range(2)]
    wait_for(lambda: state(limited)["uploads"] == 2)
    third = Upload(limited, cookie, body, sent=MB)
    third.go_on()
    wait_for(lambda: state(limited)["waiting"] == 1)
    reply = limited.request("POST", CALLBACKS, cookie=limited.login("alice"), body=body, headers=JSON)
    assert reply.json["response"] == {"size": {"children": 2 * MB}}
    small = post(limited, "echo", cookie)
    assert small.json["response"] == {"echo": {"children": "mallory 7"}}, "small ones do not wait either"
    assert not third.is_answered()
    assert state(limited)["uploads"] == 2
    stalled[0].close()
    assert third.status() == 200
    stalled[1].go_on()
    assert stalled[1].status() == 200
    for one in (third, stalled[1]):
        one.close()


def test_without_a_login_large_uploads_have_half_of_the_places_from_however_many_addresses(limited: Server) -> None:
    body = upload(2 * MB, "open")
    stalled = [Upload(limited, "", body, sent=MB, address=f"127.0.0.{number}") for number in (2, 3, 4)]
    wait_for(lambda: (state(limited)["uploads"], state(limited)["waiting"]) == (2, 1))
    reply = limited.request("POST", CALLBACKS, cookie=limited.login("alice"), body=upload(2 * MB), headers=JSON)
    assert reply.json["response"] == {"size": {"children": 2 * MB}}
    for one in stalled:
        one.go_on()
        assert one.status() == 200
        one.close()


def test_large_uploads_whose_clients_have_gone_do_not_pile_up_behind_slow_ones(limited: Server) -> None:
    """A body that waits for its turn is not read, so nobody hears that its client has gone."""
    body = upload(2 * MB, "open")
    stalled = [Upload(limited, "", body, sent=MB) for _ in range(2)]
    wait_for(lambda: state(limited)["uploads"] == 2)
    for _ in range(MOST_WAITING):
        Upload(limited, "", body, sent=0).close()
    wait_for(lambda: state(limited)["waiting"] == MOST_WAITING)
    one_more = Upload(limited, "", body, sent=0)
    assert one_more.status() == 503
    one_more.close()
    reply = limited.request("POST", CALLBACKS, cookie=limited.login("alice"), body=upload(2 * MB), headers=JSON)
    assert reply.status == 200, "somebody else's is read"
    for one in stalled:
        one.go_on()
        assert one.status() == 200
        one.close()
    wait_for(lambda: (state(limited)["uploads"], state(limited)["waiting"]) == (0, 0))
    assert limited.request("POST", CALLBACKS, body=body, headers=JSON).status == 200


def test_an_upload_that_is_slow_but_gets_on_is_taken_and_one_that_stalls_is_given_up(slow: Server) -> None:
    """Quart's BODY_TIMEOUT, a second on this server, is for the whole of a body: a large one takes longer."""
    cookie, body = slow.login("far-away"), upload(2 * MB)
    stalled, honest = (Upload(slow, cookie, body, sent=1000) for _ in range(2))
    while honest.go_on(len(body) // 12):
        assert not honest.is_answered()
        time.sleep(0.25)  # the client's own pace
    assert honest.status() == 200
    assert stalled.status() == 408
    for one in (honest, stalled):
        one.close()


def test_what_large_callbacks_over_http_came_in_counts_while_they_run(limited: Server) -> None:
    cookie, body = limited.login("mallory"), upload(4 * MB, "wait")
    running = Upload(limited, cookie, body, sent=len(body))
    wait_for(lambda: state(limited)["bytes"] >= 4 * MB)
    assert post(limited, "echo", cookie).status == 503
    serves_over_http(limited, "alice")
    running.close()
    wait_for(lambda: state(limited)["bytes"] == 0)
    assert post(limited, "echo", cookie).status == 200


# ------------------------------------------------------------------------------------------------ in one process


class LateAccept(BridgeSocket):
    """A websocket whose server is slow to accept: others come meanwhile."""

    def __init__(self, site: Site, cookie: str, may_accept: asyncio.Event) -> None:
        super().__init__(site, SITE_SOCKET_PATH, headers={"Origin": ORIGIN, "Cookie": cookie})
        self._may_accept = may_accept

    async def _send(self, event: dict[str, Any]) -> None:
        await super()._send(event)
        if event["type"] == "websocket.accept":
            await self._may_accept.wait()


@pytest.mark.parametrize("option", ["connections", "connections_per_session", "connections_per_user"])
async def test_connections_that_wait_for_their_accept_together_are_no_way_around_the_limit(option: str) -> None:
    may_accept = asyncio.Event()
    async with Site(**{option: 2}) as site, contextlib.AsyncExitStack() as stack:
        cookie = await site.login("mallory")
        sockets = [await stack.enter_async_context(LateAccept(site, cookie, may_accept)) for _ in range(5)]
        await until(lambda: all(socket.accepted for socket in sockets))
        may_accept.set()
        endings = [await ending(socket) for socket in sockets[2:]]
        assert endings == [1013 if option == "connections" else 4105] * 3
        assert len(site.backend.connections()) == 2
