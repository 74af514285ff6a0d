"""Callbacks that are cut short: out of time over the websocket and over HTTP, and superseded by their tab's next request."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from dash import Input, Output, ctx
from dash.exceptions import WebsocketDisconnected

from dash_quart_ws import CallbackTimeout, callback_options
from dash_quart_ws.callbacks import cut
from dash_quart_ws.callbacks.cut import identity_of
from dash_quart_ws.wire.messages import CallbackRequest
from tests.asgi import Closed
from tests.sessions.site import ECHO, Site, until

if TYPE_CHECKING:
    from collections.abc import Callable

GO = Input("go", "n_clicks")
SHORT = 0.05
"""Seconds."""
TOO_LONG = {"status": "error", "message": "The callback took longer than 0.05 s"}


def body(id: str, value: Any = 1) -> dict[str, Any]:
    """What the renderer asks for a callback with one output and the button as its input."""
    inputs = [{**ECHO["inputs"][0], "value": value}]
    return {**ECHO, "output": f"{id}.children", "outputs": {"id": id, "property": "children"}, "inputs": inputs}


def request(id: str, number: str = "1", payload: dict[str, Any] | None = None) -> str:
    return json.dumps(
        {
            "type": "callback_request",
            "requestId": number,
            "rendererId": "tab",
            "payload": payload or body(id, int(number)),
        }
    )


async def answers(socket: Any, count: int) -> dict[str, Any]:
    """The payloads of so many answers by the number of their request, in their order."""
    found: dict[str, Any] = {}
    while len(found) < count:
        received = await socket.receive_json()
        for message in received if isinstance(received, list) else [received]:
            if message["type"] == "callback_response":
                assert message["requestId"] not in found, "a request is answered once"
                found[message["requestId"]] = message["payload"]
    return found


def value_of(payload: dict[str, Any]) -> Any:
    assert payload["status"] == "ok", payload
    ((value,),) = (props.values() for props in payload["data"]["response"].values())
    return value


async def nothing_more(socket: Any) -> None:
    """Wait until everything that was said before has arrived: nothing but the answer to this."""
    await socket.send('{"type":"heartbeat"}')
    assert (await socket.receive_json())["type"] == "heartbeat_ack"


class Slow:
    """A function that a test lets go on, and that says what became of it."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.cleaned_up: list[Any] = []
        self.returned: list[Any] = []
        self.go_on = asyncio.Event()
        self.release = threading.Event()

    async def wait(self, value: Any) -> Any:
        """In an async callback."""
        self.started.append(value)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.append(value)
            await asyncio.sleep(0)  # it may wait for something while it cleans up
            self.cleaned_up.append((value, ctx.websocket and ctx.websocket.is_shutdown))
            raise
        self.returned.append(value)
        return value

    def block(self, value: Any) -> Any:
        """In a synchronous one."""
        self.started.append(value)
        self.release.wait(30)
        self.returned.append((value, ctx.websocket and ctx.websocket.is_shutdown))
        return value


def with_callbacks(slow: Slow, **options: Any) -> Site:
    """A site with one async and one synchronous callback that take as long as the test likes."""
    site = Site(**{key: value for key, value in options.items() if key == "callback_timeout"})
    options.pop("callback_timeout", None)
    decorated: Callable[[Any], Any] = callback_options(**options) if options else lambda function: function

    @site.app.callback(Output("async", "children"), GO)
    @decorated
    async def asynchronous(value: Any) -> Any:
        return await slow.wait(value)

    @site.app.callback(Output("sync", "children"), GO)
    @decorated
    def synchronous(value: Any) -> Any:
        return slow.block(value)

    return site


# --------------------------------------------------------------------------------------------------- out of time


@pytest.mark.parametrize("options", [{"timeout": SHORT}, {"callback_timeout": SHORT}], ids=["of its own", "of the app"])
async def test_an_async_callback_that_is_out_of_time_is_answered_with_an_error_and_cleans_up(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    async with with_callbacks(slow, **options) as site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("async"))
        assert await answers(socket, 1) == {"1": TOO_LONG}
        await until(lambda: slow.cleaned_up)
        await nothing_more(socket)
    assert slow.cleaned_up == [(1, True)]
    assert "callback 'async.children' took longer than 0.05 s" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_synchronous_callback_that_is_out_of_time_is_told_and_what_it_returns_is_dropped() -> None:
    slow = Slow()
    async with with_callbacks(slow, timeout=SHORT) as site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("sync"))
        assert await answers(socket, 1) == {"1": TOO_LONG}
        slow.release.set()
        await until(lambda: slow.returned)
        await nothing_more(socket)
    assert slow.returned == [(1, True)], "ctx.websocket.is_shutdown was true in its thread"


async def test_a_synchronous_callback_whose_time_is_over_before_there_is_a_thread_for_it_never_starts() -> None:
    slow = Slow()
    site = with_callbacks(slow, timeout=SHORT)

    @site.app.callback(Output("first", "children"), GO)
    def first(value: Any) -> Any:
        slow.release.wait(30)
        return value

    async with site, site.websocket(await site.login("alice")) as socket:
        for number in ("1", "2", "3", "4"):  # alice's share is two threads
            await socket.send(request("first", number))
        await socket.send(request("sync", "5"))
        assert await answers(socket, 1) == {"5": TOO_LONG}
        slow.release.set()
        assert {value_of(one) for one in (await answers(socket, 4)).values()} == {1, 2, 3, 4}
    assert slow.started == []


@pytest.mark.parametrize("id", ["async", "sync"])
async def test_over_http_a_callback_that_is_out_of_time_is_answered_with_504(
    id: str, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    async with with_callbacks(slow, timeout=SHORT) as site:
        reply = await site.request("POST", "/_dash-update-component", await site.login("alice"), json=body(id))
        slow.release.set()
        assert (reply.status, reply.json) == (504, {"error": TOO_LONG["message"]})
        await until(lambda: slow.cleaned_up or slow.returned)
    assert slow.cleaned_up == ([(1, None)] if id == "async" else [])
    assert f"callback '{id}.children' took longer than 0.05 s" in caplog.text


async def test_an_api_endpoint_is_held_to_the_same_time_and_an_app_may_answer_in_its_own_way() -> None:
    cleaned_up = []
    site = Site()

    @site.app.callback(Output("async", "children"), GO, api_endpoint="/api/slow")
    @callback_options(timeout=SHORT)
    async def asynchronous(go: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(go)

    @site.server.errorhandler(CallbackTimeout)
    async def answer(error: CallbackTimeout) -> Any:
        return {"after": error.seconds, "which": error.callback}, 500

    site.app.setup_apis()
    async with site:
        reply = await site.request("POST", "/api/slow", await site.login("alice"), json={"go": 1})
    assert (reply.status, reply.json) == (500, {"after": SHORT, "which": "/api/slow"})
    assert cleaned_up == [1]


async def test_a_callback_that_is_in_time_or_may_take_as_long_as_it_likes_is_answered() -> None:
    slow = Slow()
    site = with_callbacks(slow, callback_timeout=SHORT, timeout=None)
    async with site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("async"))
        await until(lambda: slow.started)
        await asyncio.sleep(3 * SHORT)  # nothing happens, which leaves no state to wait for
        slow.go_on.set()
        assert value_of((await answers(socket, 1))["1"]) == 1
        await socket.send(request("echo"))
        assert value_of((await answers(socket, 1))["1"]) == "alice 1"


async def test_the_apps_own_time_is_not_for_persistent_callbacks() -> None:
    slow = Slow()
    site = Site(callback_timeout=SHORT)

    @site.app.callback(persistent=True)
    async def stream() -> None:
        await slow.wait("stream")

    (output,) = [name for name, spec in site.app.callback_map.items() if spec["no_output"]]
    payload = {"output": output, "inputs": [], "changedPropIds": [], "state": []}
    async with site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("", payload=payload))
        await until(lambda: slow.started)
        await asyncio.sleep(3 * SHORT)
        assert slow.cancelled == []
    assert slow.cancelled == ["stream"], "it ends with its connection"


async def test_a_callback_that_does_not_end_when_it_is_cut_short_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = []
    site = Site(cancel_timeout=SHORT)

    @site.app.callback(Output("stubborn", "children"), GO)
    @callback_options(timeout=SHORT)
    async def stubborn(value: Any) -> Any:
        for _ in range(2):
            try:
                await asyncio.sleep(4 * SHORT)
            except asyncio.CancelledError:
                continue
        ended.append(value)
        return "too late"

    async with site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("stubborn"))
        assert await answers(socket, 1) == {"1": TOO_LONG}
        await until(lambda: ended)
        await nothing_more(socket)
        await socket.send(request("echo"))
        assert value_of((await answers(socket, 1))["1"]) == "alice 1"
    assert "callback 'stubborn.children' goes on 0.05 s after it was cut short" in caplog.text


async def test_what_a_callback_does_after_its_time_reaches_nobody() -> None:
    found: list[Any] = []
    site = Site()

    @site.app.callback(Output("late", "children"), GO)
    @callback_options(timeout=SHORT)
    async def late(value: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await ctx.websocket.set_prop("echo", "title", "late")
            try:
                await ctx.websocket.get_prop("text", "value")
            except WebsocketDisconnected as error:
                found.append(error)

    async with site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("late"))
        assert await answers(socket, 1) == {"1": TOO_LONG}
        await until(lambda: found)
        await nothing_more(socket)


async def test_a_callbacks_own_time_out_is_its_own_error(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()

    @site.app.callback(Output("own", "children"), GO)
    @callback_options(timeout=30)
    async def own(value: Any) -> Any:
        async with asyncio.timeout(SHORT):
            await asyncio.Event().wait()

    async with site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("own"))
        payload = (await answers(socket, 1))["1"]
        assert payload["message"].startswith("Callback failed (error ")
        reply = await site.request("POST", "/_dash-update-component", await site.login("alice"), json=body("own"))
    assert reply.status == 500
    assert "took longer" not in caplog.text


async def test_a_session_that_ends_meanwhile_ends_a_callback_that_had_time_left() -> None:
    slow = Slow()
    async with with_callbacks(slow, timeout=30) as site:
        async with site.websocket(await site.login("alice")) as socket:
            await socket.send(request("async"))
            await until(lambda: slow.started)
            await site.backend.revoke(user="alice")
            with pytest.raises(Closed):
                await answers(socket, 1)
        assert slow.cleaned_up == [(1, True)]


# ---------------------------------------------------------------------------------------------------- superseded


async def test_the_next_request_of_the_same_tab_cuts_an_async_callback_short_that_says_so() -> None:
    slow = Slow()
    async with with_callbacks(slow, superseded="cancel") as site:
        async with site.websocket(await site.login("alice")) as socket:
            for number in ("1", "2", "3"):
                await socket.send(request("async", number))
                await until(lambda number=number: slow.started == list(range(1, int(number) + 1)))
            await until(lambda: len(slow.cleaned_up) == 2)
            await nothing_more(socket)
            slow.go_on.set()
            found = await answers(socket, 3)
        assert list(found) == ["1", "2", "3"], "the older ones are settled with the newest, and ahead of it"
        assert found["1"] == found["2"] == {"status": "prevent_update"}
        assert value_of(found["3"]) == 3
    assert slow.cancelled == [1, 2]
    assert slow.returned == [3]


async def test_a_superseded_synchronous_callback_is_told_or_never_starts() -> None:
    slow = Slow()
    async with with_callbacks(slow, superseded="cancel") as site, site.websocket(await site.login("alice")) as socket:
        for number in ("1", "2", "3", "4"):
            await socket.send(request("sync", number))
        await until(lambda: len(slow.started) == 2)
        slow.release.set()
        found = await answers(socket, 4)
    assert [payload["status"] for payload in found.values()] == ["prevent_update"] * 3 + ["ok"]
    assert (value_of(found["4"]), slow.started[-1], len(slow.started)) == (4, 4, 3), "one of them waited for a thread"
    assert (4, False) in slow.returned
    assert {is_shutdown for value, is_shutdown in slow.returned if value != 4} == {True}


async def test_without_a_word_every_request_runs_to_its_end() -> None:
    slow = Slow()
    async with with_callbacks(slow) as site, site.websocket(await site.login("alice")) as socket:
        for number in ("1", "2"):
            await socket.send(request("async", number))
        await until(lambda: len(slow.started) == 2)
        slow.go_on.set()
        found = await answers(socket, 2)
    assert [value_of(found[number]) for number in ("1", "2")] == [1, 2]
    assert slow.cancelled == []


async def test_another_tab_and_another_callback_cut_nothing_short() -> None:
    slow = Slow()
    async with (
        with_callbacks(slow, superseded="cancel") as site,
        site.websocket(await site.login("alice"), bridge=False) as socket,
    ):
        for number, tab in (("1", "one"), ("2", "two")):
            await socket.send(request("async", number).replace('"tab"', f'"{tab}"'))
        await socket.send(request("echo", "3"))
        await until(lambda: len(slow.started) == 2)
        slow.go_on.set()
        found = await answers(socket, 3)
    assert {payload["status"] for payload in found.values()} == {"ok"}
    assert slow.cancelled == []


async def test_a_request_that_supersedes_one_and_is_out_of_time_settles_both() -> None:
    slow = Slow()
    async with (
        with_callbacks(slow, superseded="cancel", timeout=4 * SHORT) as site,
        site.websocket(await site.login("alice")) as socket,
    ):
        await socket.send(request("async", "1"))
        await until(lambda: slow.started)
        await socket.send(request("async", "2"))
        found = await answers(socket, 2)
    assert found["1"] == {"status": "prevent_update"}
    assert found["2"]["status"] == "error"


async def test_of_many_superseded_requests_the_oldest_are_answered_ahead_of_the_last_ones_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cut, "MOST_OWED", 2)
    slow = Slow()
    async with (
        with_callbacks(slow, superseded="cancel") as site,
        site.websocket(await site.login("alice")) as socket,
    ):
        for number in range(1, 6):
            await socket.send(request("async", str(number)))
        assert list(await answers(socket, 2)) == ["1", "2"]
        await nothing_more(socket)
        slow.go_on.set()
        rest = await answers(socket, 3)
    assert list(rest) == ["3", "4", "5"]
    assert value_of(rest["5"]) == 5


async def test_what_is_left_of_superseded_requests_is_forgotten() -> None:
    slow = Slow()
    async with with_callbacks(slow, superseded="cancel") as site:
        async with site.websocket(await site.login("alice")) as socket:
            for number in ("1", "2"):
                await socket.send(request("async", number))
            await until(lambda: len(slow.started) == 2)
            slow.go_on.set()
            await answers(socket, 2)
        assert site.backend._runner._latest == {}


def asked(output: str, outputs: Any, inputs: Any) -> CallbackRequest:
    return CallbackRequest("1", "tab", {"output": output, "outputs": outputs, "inputs": inputs})


def component(name: str, property: str = "children", value: Any = None) -> dict[str, Any]:
    return {"id": {"type": "row", "name": name}, "property": property, "value": value}


def test_requests_are_of_one_kind_when_all_but_their_values_is_the_same() -> None:
    one = identity_of(asked("out", component("a"), [component("a", "n_clicks", 1)]))
    assert one == identity_of(asked("out", component("a"), [component("a", "n_clicks", 2)]))
    assert one != identity_of(asked("other", component("a"), [component("a", "n_clicks", 1)]))
    assert one != identity_of(asked("out", component("b"), [component("a", "n_clicks", 1)]))
    assert identity_of(asked("out", None, [component("a", "n_clicks", 1)])) != identity_of(
        asked("out", None, [component("b", "n_clicks", 1)])
    ), "a callback without outputs, for another row"
    several = [[component("a"), component("b")], component("c")]
    assert identity_of(asked("out", several, [])) != identity_of(asked("out", several[:1], []))


def test_what_a_client_makes_up_is_of_a_kind_as_well() -> None:
    assert identity_of(asked("out", 3, ["x", None, {}])) == identity_of(asked("out", "y", [1, 2, {"id": None}]))
