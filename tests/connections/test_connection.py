"""One connection: what a bad message may do (nothing), what the app may do with it, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import websockets

from tests.raw import resident_megabytes
from tests.server import BRIDGE, await_for, call, closed, messages, next_message, request_message, result, serving
from tests.sessions.site import ORIGIN, SOCKET_PATH, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server import Server


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("control"), app="tests.apps.control:server") as server:
        yield server


def events(server: Server, user: str) -> list[str]:
    """What has happened to a user, in order."""
    return [text for whose, text in server.get("/events").json["events"] if whose == user]


async def happens(server: Server, user: str, *expected: str) -> None:
    """Wait until exactly this has happened to a user, in whatever order."""
    try:
        await await_for(lambda: sorted(events(server, user)) == sorted(expected))
    except AssertionError:
        assert sorted(events(server, user)) == sorted(expected)


# ------------------------------------------------------------------------------------------------- bad messages

GOOD_REQUEST = json.loads(request_message("echo.children", 1, "good"))

BAD_MESSAGES: dict[str, tuple[str | bytes, str | None]] = {
    "not JSON": ("{", None),
    "empty": ("", None),
    "a number": ("17", None),
    "a string": ('"callback_request"', None),
    "null": ("null", None),
    "an empty list": ("[]", None),
    "no type": ('{"requestId": "7"}', "7"),
    "an unhashable type": ('{"type": {}, "requestId": "7"}', "7"),
    "an unknown type": ('{"type": "launch", "requestId": "7"}', "7"),
    "a request without an id": (json.dumps({**GOOD_REQUEST, "requestId": None}), None),
    "a request with an unhashable id": (json.dumps({**GOOD_REQUEST, "requestId": {}}), None),
    "a request with an endless id": (json.dumps({**GOOD_REQUEST, "requestId": "x" * 1000}), None),
    "a request with an unhashable renderer": (json.dumps({**GOOD_REQUEST, "rendererId": []}), "good"),
    "a request without a payload": ('{"type": "callback_request", "requestId": "7"}', "7"),
    "a payload that is a list": ('{"type": "callback_request", "requestId": "7", "payload": []}', "7"),
    "an unhashable output": ('{"type": "callback_request", "requestId": "7", "payload": {"output": {}}}', "7"),
    "inputs that are no list": (
        '{"type": "callback_request", "requestId": "7", "payload": {"output": "echo.children", "inputs": 7}}',
        "7",
    ),
    "inputs of the wrong kind": (
        '{"type": "callback_request", "requestId": "7", "payload": {"output": "echo.children", "inputs": [7]}}',
        "7",
    ),
    "changedPropIds of the wrong kind": (
        json.dumps({**GOOD_REQUEST, "payload": {**GOOD_REQUEST["payload"], "changedPropIds": [[]]}}),
        "good",
    ),
    "too few inputs": (json.dumps({**GOOD_REQUEST, "payload": {**GOOD_REQUEST["payload"], "inputs": []}}), "good"),
    "an unknown callback": (request_message("nothing.children", 1, "7"), "7"),
    "an answer to nothing": ('{"type": "get_props_response", "requestId": "7", "payload": {}}', "7"),
    "deep nesting": ("[" * 100_000, None),
    "a deep payload": ('{"type":"callback_request","requestId":"7","payload":' + '{"a":' * 50_000, None),
    "a huge integer": ("1" * 10_000, None),
    "a lone surrogate": ('{"type": "\\ud800", "requestId": "7"}', "7"),
    "a binary frame": (b"\x00\xff", None),
    "an empty binary frame": (b"", None),
}


@pytest.mark.parametrize("bad", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_a_bad_message_gets_an_error_and_hurts_nothing_else(hypercorn: Server, bad: Any) -> None:
    text, request_id = bad
    async with hypercorn.connect(hypercorn.login("alice")) as socket:
        await socket.send(request_message("slow.children", 1, "running"))
        await socket.send(text)
        answer = await next_message(socket)
        assert answer.get("requestId") == request_id
        assert answer["type"] == "error" or answer["payload"]["status"] == "error", answer
        assert result(await call(socket, "echo.children", 2, "after")) == "alice 2"
        duplicate = request_message("slow.children", 1, "running")
        await socket.send(duplicate)
        assert "still running" in (await next_message(socket, "error"))["payload"]["message"], "the other goes on"


async def test_a_list_with_bad_items_loses_none_of_its_good_ones(hypercorn: Server) -> None:
    async with hypercorn.connect(hypercorn.login("alice")) as socket:
        good = [json.loads(request_message("echo.children", number, str(number))) for number in (1, 2)]
        await socket.send(json.dumps([7, good[0], {"type": "launch"}, good[1], []]))
        answers = [await next_message(socket) for _ in range(5)]
    assert sorted(answer["type"] for answer in answers) == ["callback_response"] * 2 + ["error"] * 3
    results = {answer["requestId"]: result(answer["payload"]) for answer in answers if answer["type"] != "error"}
    assert results == {"1": "alice 1", "2": "alice 2"}


async def test_bad_messages_do_not_flood_the_log(hypercorn: Server) -> None:
    async with hypercorn.connect(hypercorn.login("eve")) as socket:
        for number in range(200):
            await socket.send(json.dumps({"type": "launch", "requestId": str(number)}))
            await socket.send(request_message("nothing.children", 1, f"r{number}"))
        for _ in range(400):
            await next_message(socket)
    lines = [line for line in hypercorn.log.splitlines() if "bad message" in line and "'eve'" in line]
    assert len(lines) == 10
    assert "further ones of this connection are not logged" in lines[-1]


async def test_one_bad_message_after_another_closes_that_connection_and_no_other(hypercorn: Server) -> None:
    cookie, other = hypercorn.login("hasty"), hypercorn.login("patient")
    async with hypercorn.bridge(cookie) as hasty, hypercorn.bridge(other) as patient:
        with contextlib.suppress(websockets.ConnectionClosed):
            for _ in range(1500):  # a minute may turn in between
                await hasty.send("{")
        assert await closed(hasty) == (4505, "too many bad messages")
        assert result(await call(patient, "echo.children", 1)) == "patient 1"
    assert len(re.findall(r"security:abuse user='hasty'", hypercorn.log)) == 1
    async with hypercorn.bridge(cookie) as again:
        assert result(await call(again, "echo.children", 2)) == "hasty 2"


async def test_the_log_repeats_nothing_that_a_bad_message_held(hypercorn: Server) -> None:
    async with hypercorn.connect(hypercorn.login("alice")) as socket:
        await socket.send('{"type": "callback_request", "requestId": "1", "payload": {"output": ["hunter2"]}}')
        answer = await next_message(socket)
    assert "hunter2" not in json.dumps(answer) + hypercorn.log


async def test_a_callback_without_websocket_true_does_not_run_over_the_websocket(tmp_path: Any) -> None:
    with serving(tmp_path, app="tests.apps.partly:server") as server:
        async with server.connect(server.login("alice")) as socket:
            assert result(await call(socket, "yes.children")) == "yes"
            refused = await call(socket, "no.children", 1, "2")
            assert refused["status"] == "error"
            assert "websocket=True" in refused["message"]
            assert result(await call(socket, "yes.children", 1, "3")) == "yes"


# ------------------------------------------------------------------------------------------------- Dash's hooks


@pytest.mark.parametrize(
    ("hook", "code", "reason"),
    [
        ("false", 4001, "Connection rejected"),
        ("tuple", 4999, "not today"),
        ("bad-code", 4001, "no such code"),
        ("raises", 4001, "Authentication error"),
    ],
)
async def test_a_connect_hook_that_refuses_closes_with_a_code_that_the_browser_can_read(
    control: Server, hook: str, code: int, reason: str
) -> None:
    cookie = control.login("alice")
    url = f"{control.socket_url}?hook={hook}"
    options: Any = {"origin": control.origin, "additional_headers": {"Cookie": cookie}, **BRIDGE}
    async with websockets.connect(url, **options) as socket:
        assert await closed(socket) == (code, reason)
    if hook == "raises":
        assert "RuntimeError: the hook is broken" in control.log


@pytest.mark.parametrize(
    ("hook", "code", "reason"),
    [
        ("false", 4001, "Message rejected"),
        ("tuple", 4998, "that was too much"),
        ("raises", 4001, "Authentication error"),
    ],
)
async def test_a_message_hook_that_refuses_ends_the_connection_before_the_message_counts(
    control: Server, hook: str, code: int, reason: str
) -> None:
    async with control.bridge(control.login("alice")) as socket:
        assert result(await call(socket, "d.children", "fine")) == "fine"
        await socket.send(json.dumps({**json.loads(request_message("d.children")), "hook": hook}))
        assert [message async for message in messages(socket)] == []
        assert (socket.close_code, socket.close_reason) == (code, reason)
    if hook == "raises":
        assert "RuntimeError: the message hook is broken" in control.log


# ---------------------------------------------------------------------------------------- what the app may do


async def test_a_connection_shows_who_it_is_and_which_tabs_it_has(control: Server) -> None:
    cookie = control.login("alice")
    async with control.connect(cookie) as socket:
        await call(socket, "d.children", "x")
        (shown,) = [one for one in control.get("/events").json["connections"] if one["user"] == "alice"]
    assert shown["renderers"] == ["tab"]
    assert shown["remote"] == "127.0.0.1"
    assert shown["since"].endswith("+00:00")
    assert cookie.partition("=")[2] not in json.dumps(shown)
    assert len(shown["session"]) == 32


async def test_hooks_are_called_once_for_a_connection_and_for_a_session(control: Server) -> None:
    cookie = control.login("hooked")
    async with control.connect(cookie) as one, control.connect(cookie) as two:
        await call(one, "d.children", "x")
        await call(two, "d.children", "x")
        await control.aget("/logout", cookie)
        await closed(one)
        await closed(two)
    await happens(control, "hooked", *["connect"] * 2, *["disconnect: logged out"] * 2, "session end: logged out")


@pytest.mark.parametrize("target", ["connection", "session", "user", "topic", "all"])
async def test_close_closes_what_it_names_and_leaves_the_sessions(control: Server, target: str) -> None:
    alice, bob = control.login("alice"), control.login("bob")
    async with control.bridge(alice) as hers, control.bridge(bob) as his:
        await call(hers, "d.children", "her topic")
        await call(his, "d.children", "his topic")
        (shown,) = [one for one in control.get("/events").json["connections"] if one["user"] == "alice"]
        value = {
            "connection": shown["id"],
            "session": shown["session"],
            "user": "alice",
            "topic": "her topic",
            "all": 1,
        }
        name = str(value[target]).replace(" ", "%20")
        for path in ("push", "close"):
            reply = (await control.aget(f"/{path}?{target}={name}")).json
            assert reply.popitem()[1] == (2 if target == "all" else 1), (path, target)
        assert (await next_message(hers))["payload"]["props"] == {"title": "pushed"}
        assert await closed(hers) == (4500, "closed by the app")
        if target == "all":
            assert await closed(his) == (4500, "closed by the app")
        else:
            assert result(await call(his, "d.children", "still here", "2")) == "still here"
    async with control.connect(alice) as again:
        assert result(await call(again, "d.children", "back")) == "back"


async def test_a_forgotten_await_revokes_all_the_same(control: Server) -> None:
    async with control.bridge(control.login("forgotten")) as socket:
        assert "forgotten" not in (await control.aget("/revoke-and-forget/forgotten")).json["open"]
        assert await closed(socket) == (4503, "revoked")


async def test_a_callback_may_end_its_own_session_and_gets_its_receipt_before_it_is_cancelled(control: Server) -> None:
    async with control.bridge(control.login("self")) as socket:
        await socket.send(request_message("a.children"))
        assert await closed(socket) == (4503, "by itself")
    await happens(
        control,
        "self",
        "connect",
        "disconnect: by itself",
        "session end: by itself",
        "receipt 1 1",
        "cancelled last",
    )
    order = events(control, "self")
    assert order.index("receipt 1 1") < order.index("cancelled last")


async def test_a_callback_in_a_thread_may_end_its_own_session(control: Server) -> None:
    async with control.bridge(control.login("thread")) as socket:
        await socket.send(request_message("b.children"))
        assert [message async for message in messages(socket)] == []
        assert (socket.close_code, socket.close_reason) == (4503, "from a thread")
    await happens(
        control, "thread", "connect", "disconnect: from a thread", "session end: from a thread", "receipt 1 1"
    )


async def test_sign_out_everywhere_else_keeps_the_session_that_asked(control: Server) -> None:
    here, there = control.login("alice"), control.login("alice")
    async with control.connect(here) as mine, control.bridge(there) as other:
        await call(other, "d.children", "x")
        assert result(await call(mine, "g.children")) == "closed 1"
        assert await closed(other) == (4503, "revoked")
        assert result(await call(mine, "d.children", "still here", "2")) == "still here"
    assert control.get("/_dash-layout", here).status == 200
    assert control.get("/_dash-layout", there).status == 401


async def test_a_callback_may_close_its_connection_and_ask_the_client_back(control: Server) -> None:
    async with control.bridge(control.login("alice")) as socket:
        await socket.send(request_message("e.children"))
        assert await closed(socket) == (4100, "enough")


async def test_props_that_a_thread_sets_arrive_in_order_and_before_its_response(control: Server) -> None:
    async with control.connect(control.login("alice")) as socket:
        await socket.send(request_message("c.children", 500))
        received = [await next_message(socket) for _ in range(501)]
    assert [message["payload"]["props"]["title"] for message in received[:-1]] == list(range(500))
    assert result(received[-1]["payload"]) == "done"


async def test_on_error_handles_what_a_callback_raises(control: Server) -> None:
    async with control.connect(control.login("alice")) as socket:
        assert result(await call(socket, "f.children")) == "handled an error"


async def test_an_abort_is_the_callbacks_answer_and_no_failure(control: Server) -> None:
    async with control.connect(control.login("aborted")) as socket:
        payload = await call(socket, "h.children")
    assert payload == {"status": "error", "message": "403 Forbidden"}
    assert "werkzeug.exceptions.Forbidden" not in control.log


@pytest.mark.parametrize(("path", "status"), [("/logout-and-fail", 500), ("/logout-on-the-way-out", 200)])
async def test_a_logout_counts_wherever_in_the_request_it_happens(control: Server, path: str, status: int) -> None:
    cookie = control.login("alice")
    async with control.bridge(cookie) as socket:
        assert (await control.aget(path, cookie)).status == status
        assert await closed(socket) == (4501, "logged out")
    assert control.get("/_dash-layout", cookie).status == 401


async def send_until_closed(socket: websockets.ClientConnection, text: str) -> None:
    try:
        while True:
            await socket.send(text)
            await asyncio.sleep(0)
    except websockets.ConnectionClosed:
        return


async def test_a_request_that_comes_right_behind_the_logout_does_not_run(hypercorn: Server) -> None:
    """The frames are on their way while the logout is: whatever is read after it starts nothing."""
    cookie = hypercorn.login("late")
    async with hypercorn.bridge(cookie) as socket:
        await call(socket, "echo.children")
        logout = asyncio.create_task(hypercorn.aget("/logout", cookie))
        number = 1
        while not logout.done():
            number += 1
            try:
                await socket.send(request_message("echo.children", number, str(number)))
            except websockets.ConnectionClosed:
                break
            await asyncio.sleep(0)
        await logout
        count = hypercorn.get("/state").json["started"].count("echo")
        await send_until_closed(socket, request_message("echo.children", 1, "after"))
    assert hypercorn.get("/state").json["started"].count("echo") == count


@pytest.mark.parametrize("bridge", [True, False], ids=["bridge", "Dash's own worker"])
async def test_a_client_that_stops_reading_gets_the_last_value_and_is_not_closed(
    hypercorn: Server, bridge: bool
) -> None:
    """100 MB for one property: what its own buffers and the kernel's do not hold is overtaken."""
    times = 100_000
    cookie = hypercorn.login("sleepy")
    pid = hypercorn.get("/state").json["pid"]
    finished = hypercorn.get("/state").json["finished"].count("flood")
    async with (hypercorn.bridge if bridge else hypercorn.connect)(cookie, max_queue=1) as socket:
        before = highest = resident_megabytes(pid)
        await socket.send(request_message("flood.children", times))
        while hypercorn.get("/state").json["finished"].count("flood") == finished:
            highest = max(highest, resident_megabytes(pid))
            await asyncio.sleep(0.05)
        titles = []
        async for message in messages(socket):
            if message["type"] == "callback_response":
                assert result(message["payload"]) == "done"
                break
            titles.append(int(message["payload"]["props"]["title"]))
        assert titles == sorted(set(titles))
        assert (titles[0], titles[-1]) == (0, times - 1)
        assert len(titles) < times / 2
        assert highest - before < 32
        assert result(await call(socket, "echo.children", 7, "after")) is not None


# ------------------------------------------------------------------------------------------------ in one process


async def test_what_a_connection_held_is_free_when_it_has_ended_and_not_when_the_garbage_collector_comes_by() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        page = site.page_token(await site.session_id(cookie))
        attach = {"type": "attach", "rendererId": "tab", "payload": {"page": page}}
        request = json.loads(request_message("echo.children", 1))
        here: list[weakref.ref[Any]] = []

        async def come_and_go() -> None:
            """As the server calls the app: what the test's own client would hold is no part of this."""
            answered = asyncio.Event()

            async def receive() -> dict[str, Any]:
                if not here:
                    here.extend(weakref.ref(connection) for connection in site.backend.connections())
                    return {"type": "websocket.receive", "text": json.dumps([attach, request])}
                await answered.wait()
                return {"type": "websocket.disconnect", "code": 1001}

            async def send(event: dict[str, Any]) -> None:
                if "callback_response" in event.get("text", ""):
                    answered.set()

            headers = [("host", "localhost"), ("origin", ORIGIN), ("cookie", cookie)]
            scope = {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "scheme": "ws",
                "path": SOCKET_PATH,
                "query_string": b"",
                "headers": [(name.encode(), value.encode()) for name, value in headers],
                "subprotocols": ["dash-quart-ws.v1"],
            }
            await asyncio.create_task(site.server(scope, receive, send))  # type: ignore[arg-type]

        # asyncio forgets a cancelled timer at once when it is the next one, and else mostly when it is due.
        next_one = asyncio.get_running_loop().call_later(5, lambda: None)
        gc.collect()
        gc.disable()
        try:
            await come_and_go()
            assert len(here) == 1
            await await_for(lambda: here[0]() is None, 4)
        finally:
            gc.enable()
            next_one.cancel()
