"""One tab: how it attaches, what it gets, and what ends with it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import websockets

from dash_quart_ws import Config
from tests.server import (
    BRIDGE,
    attach,
    await_for,
    detach,
    messages,
    next_message,
    request_message,
    result,
    serving,
)
from tests.sessions.site import ECHO, Site, ending, is_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server import Server


@pytest.fixture(scope="module")
def tabs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tabs"), app="tests.apps.tabs:server") as server:
        yield server


async def happens(server: Server, event: str) -> None:
    await await_for(lambda: event in server.get("/state").json["events"], what=event)


async def ask(socket: Any, output: str, value: str, renderer_id: str = "tab", request_id: str = "1") -> None:
    await socket.send(request_message(output, value, request_id, renderer_id))


async def answers(socket: Any, renderer_id: str = "tab", request_id: str = "again") -> bool:
    """Whether a tab's callback runs, and its result is the next thing that arrives."""
    await ask(socket, "e.children", "here", renderer_id, request_id)
    message = await next_message(socket)
    assert (message["type"], message["rendererId"], message["requestId"]) == (
        "callback_response",
        renderer_id,
        request_id,
    )
    return message["payload"]["status"] == "ok" and result(message["payload"]) == "here"


# ----------------------------------------------------------------------------------------- a tab says who it is


async def test_the_first_message_is_a_welcome_with_the_session_and_what_the_client_should_keep_to(tabs: Server) -> None:
    cookie = tabs.login("alice")
    async with tabs.connect(cookie, **BRIDGE) as socket:
        welcome = await next_message(socket)
        assert socket.subprotocol == "dash-quart-ws.v1"
        (connection,) = tabs.get("/state").json["renderers"]
        meta = tabs.get("/", cookie).body
        assert welcome["payload"]["connection"] == connection
        assert welcome["payload"]["session"].encode() in meta, "the page names the same session"
        assert welcome["payload"]["maxBytes"] == Config().message_bytes
        assert welcome["payload"]["heartbeat"] == 30_000


async def test_dashs_own_worker_gets_no_message_that_it_does_not_know(tabs: Server) -> None:
    async with tabs.connect(tabs.login("alice")) as socket:
        assert await answers(socket)
        assert (await attach(socket, "any token"))["type"] == "error"
        assert await answers(socket, request_id="2"), "and goes on"


async def test_a_tab_attaches_with_the_token_of_its_page_and_learns_whose_that_was(tabs: Server) -> None:
    cookie = tabs.login("alice")
    token = tabs.page_token(cookie)
    async with tabs.connect(cookie, **BRIDGE) as socket:
        session = (await next_message(socket))["payload"]["session"]
        expected = {"type": "session", "rendererId": "left", "payload": {"session": session}}
        assert await attach(socket, token, "left") == expected
        assert await attach(socket, token, "left") == expected, "twice is once"
        assert await attach(socket, tabs.page_token(cookie), "right") == {**expected, "rendererId": "right"}
        assert list(tabs.get("/state").json["renderers"].values()) == [["left", "right"]]
        assert await answers(socket, "left")
        assert await answers(socket, "right")


async def test_a_request_of_a_tab_that_is_not_attached_is_answered_and_never_runs(tabs: Server) -> None:
    async with tabs.bridge(tabs.login("alice")) as socket:
        await ask(socket, "a.children", "stranger", "stranger")
        refused = await next_message(socket)
        assert (refused["rendererId"], refused["payload"]["status"]) == ("stranger", "error")
        assert refused["payload"]["message"] == "this tab is not attached"
        assert await answers(socket)
    assert "stranger began" not in tabs.get("/state").json["events"]


async def test_a_page_of_another_session_is_stale_and_nothing_of_it_runs(tabs: Server) -> None:
    alice, bob = tabs.login("alice"), tabs.login("bob")
    async with tabs.bridge(bob) as socket:
        hers = tabs.page_token(alice)
        assert await attach(socket, hers, "hers") == {"type": "stale", "rendererId": "hers"}
        await ask(socket, "a.children", "hers as bob's", "hers")
        assert (await next_message(socket))["payload"]["message"] == "this tab is not attached"
        assert await answers(socket), "his own tab goes on"
        for forged in ("", "nobody", f"{hers}x", tabs.page_token(bob)[:-1]):
            assert (await attach(socket, forged, "forged"))["type"] == "stale"
    assert "hers as bob's began" not in tabs.get("/state").json["events"]


async def test_a_page_of_an_earlier_login_of_the_same_user_is_stale_too(tabs: Server) -> None:
    before = tabs.page_token(tabs.login("alice"))
    async with tabs.bridge(tabs.login("alice")) as socket:
        assert (await attach(socket, before, "before"))["type"] == "stale"


async def test_a_tab_that_attaches_again_with_a_stale_page_is_attached_no_more(tabs: Server) -> None:
    stale = tabs.page_token(tabs.login("bob"))
    async with tabs.bridge(tabs.login("alice")) as socket:
        await ask(socket, "a.children", "no longer hers")
        await happens(tabs, "no longer hers began")
        assert (await attach(socket, stale))["type"] == "stale"
        await happens(tabs, "no longer hers ended, shut down: True")
        assert not await answers(socket)


@pytest.mark.parametrize("payload", [None, {}, {"page": 7}, {"page": None}])
async def test_a_tab_without_a_token_is_not_attached_and_told_so(tabs: Server, payload: Any) -> None:
    async with tabs.bridge(tabs.login("alice")) as socket:
        await socket.send(json.dumps({"type": "attach", "rendererId": "bare", "payload": payload}))
        assert (await next_message(socket, "error"))["rendererId"] == "bare"
        assert not await answers(socket, "bare")
        assert await answers(socket)


# ------------------------------------------------------------------------------------------------ a tab goes away


async def test_a_tab_that_goes_ends_its_own_callbacks_and_nobody_elses(tabs: Server) -> None:
    cookie = tabs.login("alice")
    async with tabs.bridge(cookie, renderer_id="stays") as socket:
        await attach(socket, tabs.page_token(cookie), "goes")
        await ask(socket, "a.children", "one that stays", "stays", "s")
        await ask(socket, "a.children", "one that goes", "goes", "g")
        await happens(tabs, "one that goes began")
        await detach(socket, "goes")
        await happens(tabs, "one that goes ended, shut down: True")
        assert list(tabs.get("/state").json["renderers"].values()) == [["stays"]]
        assert "one that stays ended" not in str(tabs.get("/state").json["events"])
        assert await answers(socket, "stays"), "nothing was sent for the tab that has gone"
    await happens(tabs, "one that stays ended, shut down: True")


@pytest.mark.parametrize("comes_back", [False, True])
async def test_what_a_thread_returns_for_a_tab_that_has_gone_is_dropped_also_when_it_has_come_back(
    tabs: Server, comes_back: bool
) -> None:
    name = f"thread {comes_back}"
    cookie = tabs.login("alice")
    await tabs.aget("/hold")
    async with tabs.bridge(cookie) as socket:
        token = tabs.page_token(cookie)
        await attach(socket, token, "other")
        await ask(socket, "b.children", name)
        await happens(tabs, f"{name} began")
        await detach(socket)
        if comes_back:
            await attach(socket, token)
        await tabs.aget("/release")
        await happens(tabs, f"{name} ended, shut down: True")
        assert await answers(socket, "tab" if comes_back else "other"), "no late set_props, no late response"


async def test_a_callback_that_takes_no_notice_of_the_end_reaches_nobody(tabs: Server) -> None:
    cookie = tabs.login("alice")
    async with tabs.bridge(cookie) as socket:
        await ask(socket, "d.children", "stubborn")
        await happens(tabs, "stubborn began")
        await detach(socket)
        await attach(socket, tabs.page_token(cookie))
        await happens(tabs, "stubborn goes on, shut down: True")
        assert await answers(socket)


async def test_who_waits_for_a_tabs_answer_learns_that_it_has_gone(tabs: Server) -> None:
    cookie = tabs.login("alice")
    async with tabs.bridge(cookie) as socket:
        await attach(socket, tabs.page_token(cookie), "other")
        await ask(socket, "c.children", "asking")
        question = await next_message(socket, "get_props_request")
        assert question["rendererId"] == "tab"
        await detach(socket)
        await happens(tabs, "asking learned that nobody answers")
        late = {"type": "get_props_response", "rendererId": "tab", "requestId": question["requestId"], "payload": {}}
        await socket.send(json.dumps(late))
        assert (await next_message(socket, "error"))["requestId"] == question["requestId"]
        assert await answers(socket, "other")


async def test_a_tab_that_answers_is_listened_to(tabs: Server) -> None:
    async with tabs.bridge(tabs.login("alice")) as socket:
        await ask(socket, "c.children", "asking well")
        question = await next_message(socket, "get_props_request")
        answer = {**question, "type": "get_props_response", "payload": {"value": "typed"}}
        await socket.send(json.dumps(answer))
        assert result((await next_message(socket, "callback_response"))["payload"]) == "browser says typed"


async def test_a_tab_that_does_not_send_a_property_says_why_and_the_log_quotes_it(tabs: Server) -> None:
    async with tabs.bridge(tabs.login("alice")) as socket:
        await ask(socket, "c.children", "asking well")
        question = await next_message(socket, "get_props_request")
        why = {"type": "get_props_response", "payload": {}, "error": "Too large\nfor the websocket."}
        await socket.send(json.dumps({**question, **why}))
        failed = (await next_message(socket, "callback_response"))["payload"]
        assert failed["status"] == "error"
        assert "Too large" not in failed["message"]
    assert r"PropertyUnavailable: the browser says 'Too large\nfor the websocket.'" in tabs.log


async def test_a_request_whose_tab_went_before_it_began_leaves_nothing_behind(tabs: Server) -> None:
    """All of it arrives in one frame: the callback is cancelled before its first step."""
    cookie = tabs.login("alice")
    page = {"page": tabs.page_token(cookie)}
    again = json.loads(request_message("e.children", "second time", "same", "brief"))
    first = json.loads(request_message("a.children", "too brief", "same", "brief"))
    come, go = {"type": "attach", "rendererId": "brief", "payload": page}, {"type": "detach", "rendererId": "brief"}
    async with tabs.bridge(cookie) as socket:
        await socket.send(json.dumps([come, first, go]))
        assert (await next_message(socket))["type"] == "session"
        assert await answers(socket)
        await socket.send(json.dumps([come, again]))
        assert result((await next_message(socket, "callback_response"))["payload"]) == "second time"
    assert "too brief began" not in tabs.get("/state").json["events"]


async def test_a_detach_of_a_tab_that_is_unknown_is_no_offence(tabs: Server) -> None:
    async with tabs.bridge(tabs.login("alice")) as socket:
        before = tabs.log.count("bad message")
        await detach(socket, "unknown")
        assert await answers(socket)
    assert tabs.log.count("bad message") == before


# -------------------------------------------------------------------------------------------------------- pushes


async def test_a_push_is_one_message_for_all_tabs_and_none_where_there_is_no_tab(tabs: Server) -> None:
    cookie = tabs.login("pushed")
    async with tabs.bridge(cookie, renderer_id="left") as socket, tabs.connect(cookie, **BRIDGE) as without:
        await attach(socket, tabs.page_token(cookie), "right")
        await next_message(without, "welcome")
        assert (await tabs.aget("/push/pushed?title=one")).json == {"connections": 2}
        payload = {"componentId": "e", "props": {"title": "one"}}
        assert await next_message(socket) == {"type": "set_props", "payload": payload}
        assert await answers(socket, "left"), "and no second message"
        await detach(socket, "left")
        await detach(socket, "right")
        assert (await tabs.aget("/push/pushed?title=two")).json == {"connections": 2}
        for quiet in (socket, without):
            await quiet.send('{"type":"heartbeat"}')
            assert await next_message(quiet) == {"type": "heartbeat_ack"}


async def test_dashs_own_worker_gets_a_push_for_each_tab_that_it_has_spoken_for(tabs: Server) -> None:
    async with tabs.connect(tabs.login("stock")) as socket:
        for tab in ("left", "right"):
            assert await answers(socket, tab, tab)
        await tabs.aget("/push/stock?title=one")
        assert [(await next_message(socket))["rendererId"] for _ in range(2)] == ["left", "right"]


# ------------------------------------------------------------------------------------------ in one process


async def test_one_tab_too_many_gets_an_error_and_takes_the_place_of_none() -> None:
    async with Site(renderers_per_connection=2) as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            page = site.page_token(await site.session_id(cookie))
            for tab, kind in (("second", "session"), ("third", "error"), ("tab", "session")):
                await socket.send_json({"type": "attach", "rendererId": tab, "payload": {"page": page}})
                answer = await socket.receive_json()
                assert (answer["type"], answer["rendererId"]) == (kind, tab)
            (connection,) = site.backend.connections()
            assert connection.renderers == ("tab", "second")
            await socket.send_json({"type": "detach", "rendererId": "second"})
            await socket.send_json({"type": "attach", "rendererId": "third", "payload": {"page": page}})
            assert (await socket.receive_json())["type"] == "session"


async def test_dashs_hooks_see_dashs_messages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def hook(_websocket: Any, message: dict[str, Any]) -> bool:
        seen.append(message["type"])
        return True

    monkeypatch.setattr("dash_quart_ws.backend.get_hooks", lambda name: [hook] if name == "websocket_message" else [])
    async with Site() as site, site.websocket(await site.login("alice")) as socket:
        await socket.send_json({"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": ECHO})
        assert (await socket.receive_json())["payload"]["status"] == "ok"
        await socket.send_json({"type": "detach", "rendererId": "tab"})
        assert await is_open(socket)
    assert seen == ["callback_request", "heartbeat"]


async def test_nobodys_tab_attaches_to_nobodys_connection() -> None:
    async with Site(login_required=False) as site, site.websocket() as socket:
        await socket.send_json({"type": "attach", "rendererId": "2", "payload": {"page": site.page_token(None)}})
        assert await socket.receive_json() == {"type": "session", "rendererId": "2", "payload": {"session": None}}


async def test_a_page_of_somebody_who_goes_on_ends_nobodys_connection_and_not_the_page() -> None:
    async with Site(login_required=False) as site:
        cookie = await site.login("alice")
        session = await site.session_id(cookie)
        async with site.websocket() as socket:
            await socket.send_json({"type": "attach", "rendererId": "2", "payload": {"page": site.page_token(session)}})
            assert await ending(socket) == 4102
        await site.get("/logout", cookie)
        async with site.websocket() as socket:
            await socket.send_json({"type": "attach", "rendererId": "2", "payload": {"page": site.page_token(session)}})
            assert await socket.receive_json() == {"type": "stale", "rendererId": "2"}
            assert await is_open(socket)


async def test_a_logout_beats_every_attach_that_comes_behind_it(tabs: Server) -> None:
    cookie = tabs.login("leaving")
    token = tabs.page_token(cookie)
    async with tabs.connect(cookie, **BRIDGE) as socket:
        await next_message(socket, "welcome")
        await tabs.aget("/logout", cookie)
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(json.dumps({"type": "attach", "rendererId": "tab", "payload": {"page": token}}))
        assert [message async for message in messages(socket)] == []
        assert socket.close_code == 4501
