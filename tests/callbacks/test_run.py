"""One callback: pages, and one that needs the websocket. What a callback sees is in
`tests.test_backend`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from dash import DiskcacheManager, Input, Output, ctx, set_props
from diskcache import Cache

from dash_quart_ws import WebsocketNeeded
from tests.server import next_message, request_message, serving
from tests.sessions.site import ECHO, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.server import Server

ROUTER = ".._pages_content.children..._pages_store.data.."


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pages"), app="tests.apps.pages:server") as server:
        yield server


def route(path: str) -> str:
    """What the renderer asks Dash's pages router."""
    inputs = [
        {"id": "_pages_location", "property": "pathname", "value": path},
        {"id": "_pages_location", "property": "search", "value": ""},
    ]
    outputs = [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}]
    payload = {"output": ROUTER, "outputs": outputs, "inputs": inputs, "changedPropIds": ["_pages_location.pathname"]}
    return json.dumps({"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload})


async def test_pages_are_there_when_a_workers_first_contact_is_a_websocket(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving(tmp_path_factory.mktemp("before"), app="tests.apps.pages:server") as server:
        cookie = server.login("alice")
    with serving(tmp_path_factory.mktemp("after"), app="tests.apps.pages:server") as server:
        async with server.connect(cookie) as socket:
            await socket.send(route("/report/7"))
            answer = await next_message(socket, "callback_response")
    assert answer["payload"]["status"] == "ok", answer
    assert answer["payload"]["data"]["response"]["_pages_content"]["children"]["props"]["children"] == "report 7"


# ------------------------------------------------------------------------------------- as a callback over HTTP is


async def frames(site: Site, output: str) -> list[Any]:
    """What the server sends for one callback of alice's, up to its response."""
    told: list[Any] = []
    async with site.websocket(await site.login("alice")) as socket:
        await socket.send(request_message(output))
        while not told or told[-1]["type"] != "callback_response":
            message = await socket.receive_json()
            told += message if isinstance(message, list) else [message]
    return told


async def test_what_set_props_is_given_at_once_arrives_at_once() -> None:
    site = Site()

    @site.app.callback(Output("sync", "children"), Input("go", "n_clicks"))
    def sync(n_clicks: int) -> int:
        set_props({"b": 1, "a": 2}, {"value": "x", "title": "y"})
        set_props("text", {"value": "z"})
        ctx.websocket.set_prop_sync("text", "title", "alone")
        return n_clicks

    @site.app.callback(Output("async", "children"), Input("go", "n_clicks"))
    async def asynchronous(n_clicks: int) -> int:
        set_props("text", {"value": "x", "title": "y"})
        await ctx.websocket.set_prop("text", "value", "alone")
        return n_clicks

    async with site:
        sync_told = [one["payload"] for one in await frames(site, "sync.children")][:-1]
        async_told = [one["payload"] for one in await frames(site, "async.children")][:-1]
    assert sync_told == [
        {"componentId": '{"a":2,"b":1}', "props": {"value": "x", "title": "y"}},
        {"componentId": "text", "props": {"value": "z"}},
        {"componentId": "text", "props": {"title": "alone"}},
    ]
    assert async_told == [
        {"componentId": "text", "props": {"value": "x", "title": "y"}},
        {"componentId": "text", "props": {"value": "alone"}},
    ]


async def test_two_callbacks_of_a_connection_may_measure_the_same_and_do_not_see_one_anothers() -> None:
    site = Site()
    seen: list[Any] = []

    @site.app.callback(Output("timed", "children"), Input("go", "n_clicks"))
    async def timed(n_clicks: int) -> int:
        ctx.record_timing("database", 0.25)
        seen.append(dict(ctx.timing_information))
        return n_clicks

    async with site, site.websocket(await site.login("alice")) as socket:
        for number in ("1", "2"):
            await socket.send(request_message("timed.children", request_id=number))
            assert (await socket.receive_json())["payload"]["status"] == "ok"
    assert seen == [{"database": {"dur": 250, "desc": None}}] * 2


async def test_what_works_over_http_only_is_listed_so_that_the_renderer_posts_it_and_refused_over_the_socket(
    tmp_path: Path,
) -> None:
    site = Site(dash={"background_callback_manager": DiskcacheManager(Cache(str(tmp_path)))})
    background = {"background": True, "cancel": Input("stop", "n_clicks")}

    @site.app.callback(Output("job", "children"), Input("go", "n_clicks"), **background)
    def job(n_clicks: int) -> int:
        return n_clicks

    @site.app.callback(Output("late", "children"), Input("go", "n_clicks"), _allow_dynamic_callbacks=True)
    def imports(n_clicks: int) -> int:
        return n_clicks

    async with site:
        cookie = await site.login("alice")
        listed = (await site.get("/_dash-dependencies", cookie)).json
        posted = {one["output"] for one in listed if one["background"] or not one["websocket"]}
        answers = [(await frames(site, output))[-1]["payload"] for output in sorted(posted)]
    assert posted == {"job.children", "stop.id", "late.children"}
    assert [one["status"] for one in answers] == ["error"] * 3
    assert {one["message"].partition(" runs ")[2] for one in answers} == {"over HTTP only"}


# ------------------------------------------------------------------------------------ whatever becomes of a callback


class Abandoned(BaseException):
    """As libraries of their own kind have them for their cancellation."""


async def ends_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def raises(error: BaseException) -> None:
    raise error


ODD_ENDS = {
    "SystemExit": lambda: raises(SystemExit()),
    "CancelledError": lambda: raises(asyncio.CancelledError()),
    "StopIteration": lambda: raises(StopIteration()),
    "a BaseException": lambda: raises(Abandoned()),
    "a group of them": lambda: raises(BaseExceptionGroup("some", [Abandoned()])),
    "its own cancellation": ends_itself,
}


@pytest.mark.parametrize("end", ODD_ENDS.values(), ids=ODD_ENDS)
@pytest.mark.parametrize("way", ["over the websocket", "over HTTP", "by its API endpoint"])
async def test_whatever_an_async_callback_raises_its_request_is_answered(way: str, end: Any) -> None:
    site = Site()

    @site.app.callback(Output("odd", "children"), Input("go", "n_clicks"), api_endpoint="/api/odd")
    async def odd(n_clicks: int) -> None:
        await end()

    site.app.setup_apis()
    async with site:
        if way == "over HTTP":
            assert (await over_http(site, "odd")).status == 500
        elif way == "by its API endpoint":
            cookie = await site.login("alice")
            assert (await site.request("POST", "/api/odd", cookie, json={"n_clicks": 1})).status == 500
        else:
            (answer,) = await frames(site, "odd.children")
            assert answer["payload"]["status"] == "error"
            assert answer["payload"]["message"].startswith("Callback failed (error ")


async def test_a_callback_whose_task_falls_over_is_answered_and_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()

    @site.app.callback(Output("odd", "children"), Input("go", "n_clicks"))
    async def odd(n_clicks: int) -> None:
        raise GeneratorExit

    async with site:
        (answer,) = await frames(site, "odd.children")
    assert answer["payload"] == {"status": "error", "message": "Callback failed"}
    assert "a callback's task failed connection=" in caplog.text


# ------------------------------------------------------------------------- a callback that needs the websocket


class Nothing:
    """What else may be None."""

    database: Any = None


def tell(websocket: Any) -> None:
    """A function of the app's own that is given `ctx.websocket`."""
    websocket.set_prop_sync("echo", "title", "told")


@pytest.fixture
async def streaming() -> AsyncIterator[Site]:
    site = Site()

    @site.app.callback(Output("async", "children"), Input("go", "n_clicks"))
    async def streams(n_clicks: int) -> str:
        await ctx.websocket.set_prop("echo", "title", "hunter2")
        return "streamed"

    @site.app.callback(Output("sync", "children"), Input("go", "n_clicks"))
    def asks(n_clicks: int) -> Any:
        websocket = ctx.websocket
        return asyncio.run(websocket.get_prop("text", "value"))

    @site.app.callback(Output("asks", "children"), Input("go", "n_clicks"))
    async def is_shut_down(n_clicks: int) -> str:
        while not ctx.websocket.is_shutdown:
            await asyncio.sleep(0)
        return "shut down"

    @site.app.callback(Output("passes", "children"), Input("go", "n_clicks"))
    def passes_it_on(n_clicks: int) -> str:
        tell(ctx.websocket)
        return "told"

    @site.app.callback(Output("looks", "children"), Input("go", "n_clicks"))
    async def looks_first(n_clicks: int) -> str:
        if ctx.websocket is None:
            return "over HTTP"
        await ctx.websocket.set_prop("echo", "title", "hunter2")
        return "over the websocket"

    @site.app.callback(Output("other", "children"), Input("go", "n_clicks"))
    async def forgot_something_else(n_clicks: int) -> None:
        Nothing.database.close()

    @site.app.callback(Output("handled", "children"), Input("go", "n_clicks"), on_error=lambda _error: "handled")
    async def handles_it(n_clicks: int) -> None:
        await ctx.websocket.set_prop("echo", "title", "hunter2")

    async with site:
        yield site


async def over_http(site: Site, id: str) -> Any:
    body = {**ECHO, "output": f"{id}.children", "outputs": {"id": id, "property": "children"}}
    return await site.request("POST", "/_dash-update-component", await site.login("alice"), json=body)


@pytest.mark.parametrize("id", ["async", "sync", "asks", "passes"])
async def test_over_http_a_callback_that_needs_the_websocket_is_answered_so(
    streaming: Site, id: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await over_http(streaming, id)
    assert reply.status == 500
    assert reply.json == {"error": "this callback needs the websocket, which cannot be reached"}
    (record,) = [record for record in caplog.records if record.name == "dash_quart_ws.callbacks"]
    assert record.getMessage() == (
        f"the callback for '{id}.children' uses ctx.websocket, and came over HTTP, where there is none"
    )
    assert record.exc_info is not None
    assert isinstance(error := record.exc_info[1], WebsocketNeeded)
    assert error.callback == f"{id}.children"
    assert isinstance(error.__cause__, AttributeError), "the traceback leads to the line"
    assert not [record for record in caplog.records if record.name == "quart.app"], "it is told once"


async def test_a_callback_that_looks_first_runs_over_http(streaming: Site) -> None:
    reply = await over_http(streaming, "looks")
    assert reply.json["response"] == {"looks": {"children": "over HTTP"}}


async def test_a_callback_that_uses_something_else_that_is_none_is_told_nothing_of_websockets(
    streaming: Site, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await over_http(streaming, "other")
    assert reply.status == 500
    assert "websocket" not in str(reply.body)
    assert "'NoneType' object has no attribute 'close'" in caplog.text
    assert "ctx.websocket" not in caplog.text


async def test_a_callback_that_handles_its_errors_handles_this_one(streaming: Site) -> None:
    assert (await over_http(streaming, "handled")).json["response"] == {"handled": {"children": "handled"}}


async def test_in_debug_mode_it_is_the_same_answer() -> None:
    site = Site(debug=True)

    @site.app.callback(Output("async", "children"), Input("go", "n_clicks"))
    async def streams(n_clicks: int) -> None:
        await ctx.websocket.set_prop("echo", "title", "hunter2")

    async with site:
        reply = await over_http(site, "async")
    assert (reply.status, list(reply.json)) == (500, ["error"])


async def test_an_app_may_answer_it_in_its_own_way() -> None:
    site = Site()

    @site.app.callback(Output("async", "children"), Input("go", "n_clicks"))
    async def streams(n_clicks: int) -> None:
        await ctx.websocket.set_prop("echo", "title", "hunter2")

    @site.server.errorhandler(WebsocketNeeded)
    async def answer(error: WebsocketNeeded) -> Any:
        return {"needs": error.callback}, 503

    async with site:
        reply = await over_http(site, "async")
    assert (reply.status, reply.json) == (503, {"needs": "async.children"})
