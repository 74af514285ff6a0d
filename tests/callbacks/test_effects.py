"""What a callback over the websocket does to its browser: to whom it is given, once, and what comes of it there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import quart_auth
from dash import Input, Output, ctx, no_update
from dash.exceptions import PreventUpdate
from quart import session
from quart_auth import AuthUser

from dash_quart_ws import current_session
from dash_quart_ws._dash import sign_page
from dash_quart_ws.callbacks import effects
from tests.asgi import Closed
from tests.server import BRIDGE, Reply, attach, call, closed, request_message, result
from tests.server import serving as real_server
from tests.sessions.site import ORIGIN, Site, ending, is_open, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dash_quart_ws.brokers.base import Broker

GO = Input("go", "n_clicks")


def add_callbacks(site: Site) -> None:  # noqa: C901 - a list of callbacks
    app = site.app

    @app.callback(Output("cookie", "children"), GO)
    async def cookie(value: str) -> str:
        ctx.response.set_cookie("colour", value, httponly=True)
        return "set"

    @app.callback(Output("thread", "children"), GO)
    def thread(value: str) -> str:
        ctx.response.set_cookie("thread", value)
        session["thread"] = value
        return f"{session['thread']} in a thread"

    @app.callback(Output("forget", "children"), GO)
    async def forget(_value: Any) -> str:
        ctx.response.delete_cookie("colour")
        ctx.response.headers["X-Forgotten"] = "yes"
        ctx.response.append_header("X-Also", "one")
        ctx.response.append_header("X-Also", "two")
        return "forgotten"

    @app.callback(Output("seen", "children"), GO)
    async def seen(_value: Any) -> str:
        return json.dumps([ctx.cookies, dict(session), quart_auth.current_user.auth_id])

    @app.callback(Output("write", "children"), GO)
    async def write(value: Any) -> str:
        session["basket"] = [*session.get("basket", []), value]
        return str(session["basket"])

    @app.callback(Output("drop", "children"), GO)
    async def drop(_value: Any) -> Any:
        session.pop("basket")
        return no_update

    @app.callback(Output("odd", "children"), GO)
    async def odd(_value: Any) -> str:
        session["odd"] = object()
        return "never shown"

    @app.callback(Output("large", "children"), GO)
    async def large(_value: Any) -> str:
        ctx.response.set_header("X-Large", "x" * effects.CHARACTERS)
        return "never shown"

    @app.callback(Output("login", "children"), GO)
    async def login(name: str) -> str:
        quart_auth.login_user(AuthUser(name), remember=True)
        now = current_session()
        return f"{quart_auth.current_user.auth_id} {now}"

    @app.callback(Output("anew", "children"), GO)
    async def anew(name: str) -> str:
        await site.backend.revoke(user=name, reason="signed out everywhere")
        quart_auth.login_user(AuthUser(name))
        return "and here again"

    @app.callback(Output("slow", "children"), GO)
    async def slow(name: str) -> str:
        site.entered.set()
        await site.go_on.wait()
        quart_auth.login_user(AuthUser(name))
        return "logged in"

    @app.callback(Output("out", "children"), GO)
    async def out(_value: Any) -> str:
        ctx.response.set_cookie("left", "yes")
        quart_auth.logout_user()
        await ctx.websocket.set_prop("out", "title", "too late")
        return f"{quart_auth.current_user.auth_id} {current_session()}"

    @app.callback(Output("outsync", "children"), GO)
    def out_in_a_thread(_value: Any) -> str:
        quart_auth.logout_user()
        return f"{quart_auth.current_user.auth_id} {current_session()}"

    @app.callback(Output("outlong", "children"), GO)
    async def out_for_long(_value: Any) -> str:
        quart_auth.logout_user()
        site.entered.set()
        await site.go_on.wait()
        return "still in time"

    @app.callback(Output("switch", "children"), GO)
    async def switch(name: str) -> str:
        quart_auth.logout_user()
        quart_auth.login_user(AuthUser(name))
        return str(quart_auth.current_user.auth_id)

    @app.callback(Output("renew", "children"), GO)
    async def renew(_value: Any) -> str:
        quart_auth.renew_login()
        return "renewed"

    @app.callback(Output("prevents", "children"), GO)
    async def prevents(value: str) -> str:
        quart_auth.login_user(AuthUser(value))
        raise PreventUpdate

    @app.callback(Output("fails", "children"), GO)
    async def fails(value: str) -> str:
        ctx.response.set_cookie("colour", "red")
        quart_auth.login_user(AuthUser(value))
        raise ZeroDivisionError

    @app.callback(Output("waits", "children"), GO)
    async def waits(_value: Any) -> str:
        site.entered.set()
        await site.go_on.wait()
        return str(quart_auth.current_user.auth_id)

    @app.callback(persistent=True)
    async def stream() -> None:
        ctx.response.set_cookie("never", "set")

    @app.callback(Output("later", "children"), GO)
    async def later(_value: Any) -> str:
        async def on_its_own() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await until(lambda: site.go_on.is_set())
            try:
                quart_auth.login_user(AuthUser("mallory"))
            except RuntimeError as error:
                site.late = str(error)  # type: ignore[attr-defined]

        site.task = asyncio.create_task(on_its_own())  # type: ignore[attr-defined]
        return "done"


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Site]:
    site = Site(**options)
    add_callbacks(site)
    async with site:
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as running:
        yield running


async def answer(socket: Any, request_id: str = "1") -> dict[str, Any]:
    """The payload of a request's answer."""
    async with asyncio.timeout(10):
        while True:
            found = json.loads(await socket.receive())
            for message in found if isinstance(found, list) else [found]:
                if message["type"] == "callback_response" and message["requestId"] == request_id:
                    payload: dict[str, Any] = message["payload"]
                    return payload


async def rest_of(socket: Any) -> tuple[list[dict[str, Any]], int]:
    """All messages that still come, and the close code."""
    received: list[dict[str, Any]] = []
    while True:
        try:
            async with asyncio.timeout(10):
                found = json.loads(await socket.receive())
        except Closed as closed:
            return received, closed.code
        received += found if isinstance(found, list) else [found]


async def ask(socket: Any, name: str, value: Any = 1, request_id: str = "1") -> dict[str, Any]:
    await socket.send(request_message(f"{name}.children", value, request_id))
    return await answer(socket, request_id)


async def fetch(
    site: Site, id: Any, cookie: str = "", *, page: str | None = None, origin: str | None = ORIGIN, **options: Any
) -> Reply:
    """What the bridge posts. `page`: the token of the page; None for that of the cookie's session, as it was at first."""
    headers = {} if origin is None else {"Origin": origin}
    query = {"endId": page if page is not None else site.page_token(None)}
    data = options.get("data") or json.dumps(options.get("json", {"id": id}))
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(data)), **options.get("headers", {})}
    return await site.request("POST", "/_dash-quart-ws/effects", cookie, headers=headers, query_string=query, data=data)


def cookies_of(reply: Reply) -> dict[str, str]:
    """Name -> value of what a response sets; an empty value for what it deletes."""
    found = [one.partition(";")[0].partition("=") for one in reply.headers.getlist("Set-Cookie")]
    return {name: value for name, _, value in found}


@contextlib.asynccontextmanager
async def signed_in(site: Site, name: str = "alice") -> AsyncIterator[tuple[Any, str, str]]:
    """A websocket of a new login, its cookie, and the token of its page."""
    cookie = await site.login(name)
    page = site.page_token(await site.session_id(cookie))
    async with site.websocket(cookie) as socket:
        yield socket, cookie, page


# -------------------------------------------------------------------------------------------- cookies and headers


async def test_a_cookie_is_set_by_the_response_that_the_outcome_waits_for(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "cookie", "blue")
        assert result(payload) == "set"
        reply = await fetch(site, payload["effects"], cookie, page=page)
    assert reply.status == 204
    assert cookies_of(reply) == {"colour": "blue"}
    assert "HttpOnly" in reply.headers["Set-Cookie"]
    assert reply.headers["Cache-Control"] == "no-store"


async def test_headers_and_the_end_of_a_cookie_go_the_same_way(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "forget")
        reply = await fetch(site, payload["effects"], cookie, page=page)
    assert cookies_of(reply) == {"colour": ""}
    assert "Max-Age=0" in reply.headers["Set-Cookie"]
    assert reply.headers["X-Forgotten"] == "yes"
    assert reply.headers.getlist("X-Also") == ["one", "two"]
    assert "application/json" not in reply.headers.get("Content-Type", "")


async def test_over_http_the_same_callback_does_the_same(site: Site) -> None:
    cookie = await site.login("alice")
    asked = json.loads(request_message("forget.children"))["payload"]
    reply = await site.request("POST", "/_dash-update-component", cookie, json=asked)
    assert reply.json["response"] == {"forget": {"children": "forgotten"}}
    assert cookies_of(reply) == {"colour": ""}
    assert reply.headers.getlist("X-Also") == ["one", "two"]


async def test_later_callbacks_of_the_connection_see_the_cookies_and_the_session_that_were_set(site: Site) -> None:
    async with signed_in(site) as (socket, _cookie, _page):
        for name, value in (("cookie", "blue"), ("cookie", "a b;c"), ("write", 1), ("write", 2)):
            await ask(socket, name, value)
        cookies, in_session, _ = json.loads(result(await ask(socket, "seen")))
        assert cookies["colour"] == "a b;c"
        assert in_session == {"basket": [1, 2]}
        await ask(socket, "forget")
        await ask(socket, "drop")
        cookies, in_session, _ = json.loads(result(await ask(socket, "seen")))
    assert "colour" not in cookies
    assert in_session == {}


async def test_a_callback_that_only_looks_is_answered_plainly(site: Site) -> None:
    async with signed_in(site) as (socket, _cookie, _page):
        assert "effects" not in await ask(socket, "seen")
        assert "effects" not in await ask(socket, "echo")


@pytest.mark.parametrize("name", ["large", "odd"])
async def test_what_does_not_fit_into_a_response_is_an_error_that_says_so(
    site: Site, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with signed_in(site) as (socket, _cookie, _page):
        payload = await ask(socket, name)
    assert payload["status"] == "error"
    assert "effects" not in payload
    assert {"large": "no more than 32768", "odd": "is no JSON"}[name] in caplog.text


async def test_a_user_who_lets_effects_pile_up_gets_errors_and_nobody_else_does(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "PENDING", 2)
    async with signed_in(site) as (socket, _cookie, _page):
        statuses = [(await ask(socket, "cookie", "blue"))["status"] for _ in range(3)]
        assert result(await ask(socket, "echo")) == "alice 1"
        assert statuses == ["ok", "ok", "error"]
    async with signed_in(site) as (elsewhere, _cookie, _page):
        assert (await ask(elsewhere, "cookie", "blue"))["status"] == "error", "another connection of the same user"
    async with signed_in(site, "bob") as (socket, _cookie, _page):
        assert (await ask(socket, "cookie", "blue"))["status"] == "ok"
    monkeypatch.setattr(effects, "PENDING", 1000)
    monkeypatch.setattr(effects, "PENDING_CHARACTERS", 1000)
    async with signed_in(site, "carol") as (socket, _cookie, _page):
        assert (await ask(socket, "cookie", "x" * 500))["status"] == "ok"
        assert (await ask(socket, "cookie", "x" * 500))["status"] == "error"


async def test_those_who_are_nobody_leave_room_for_the_effects_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "NOBODYS_PENDING", 2)
    async with serving(login_required=False) as site:
        async with site.websocket((await site.get("/")).cookie) as socket:
            statuses = [(await ask(socket, "cookie", "blue"))["status"] for _ in range(3)]
            assert statuses == ["ok", "ok", "error"]
        async with signed_in(site) as (socket, _cookie, _page):
            assert (await ask(socket, "cookie", "blue"))["status"] == "ok"


async def test_what_was_kept_long_enough_ago_leaves_room_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "PENDING", 1)
    async with signed_in(site) as (socket, _cookie, _page):
        assert (await ask(socket, "cookie", "blue"))["status"] == "ok"
        assert (await ask(socket, "cookie", "blue"))["status"] == "error"
        monkeypatch.setattr(effects, "SECONDS", 0.0)
        assert (await ask(socket, "cookie", "blue"))["status"] == "ok"
    async with signed_in(site, "bob") as (socket, _cookie, _page):
        assert (await ask(socket, "cookie", "blue"))["status"] == "ok"
    assert list(site.backend._effects._recent.by_payer) == ["user bob"], "nothing is left of who asks no more"


async def test_when_the_broker_is_away_the_outcome_is_an_error_and_a_request_is_answered_with_503(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "cookie", "blue")
        broker: Broker = site.backend._extension.broker
        gone = asyncio.Event()
        monkeypatch.setattr(broker, "take", lambda name: gone.wait())
        monkeypatch.setattr(site.backend._effects, "_timeout", 0.01)
        assert (await fetch(site, payload["effects"], cookie, page=page)).status == 503


# ------------------------------------------------------------------------------------------------ quart's session


async def test_quarts_session_is_written_into_its_cookie(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "write", "milk")
        assert result(payload) == "['milk']"
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert reply.status == 204
        both = f"{cookie}; session={cookies_of(reply)['session']}"
    async with site.websocket(both) as socket:
        assert json.loads(result(await ask(socket, "seen")))[1] == {"basket": ["milk"]}
        payload = await ask(socket, "drop")
        reply = await fetch(site, payload["effects"], both, page=page)
        assert cookies_of(reply) == {"session": ""}


async def test_what_other_requests_have_put_into_the_session_meanwhile_stays(site: Site) -> None:
    @site.server.get("/put")
    async def put() -> str:
        session["other"] = "view"
        return "put"

    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "write", "milk")
        view = await site.get("/put", cookie)
        both = f"{cookie}; session={cookies_of(view)['session']}"
        reply = await fetch(site, payload["effects"], both, page=page)
    async with site.websocket(f"{cookie}; session={cookies_of(reply)['session']}") as socket:
        assert json.loads(result(await ask(socket, "seen")))[1] == {"other": "view", "basket": ["milk"]}


async def test_a_callback_in_a_thread_does_as_much(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "thread", "wool")
        assert result(payload) == "wool in a thread"
        reply = await fetch(site, payload["effects"], cookie, page=page)
    assert set(cookies_of(reply)) == {"thread", "session"}


# ------------------------------------------------------------------------------------------------- login and logout


async def test_a_login_makes_a_new_session_and_ends_the_one_before_when_its_cookie_is_set(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "login", "bob")
        assert result(payload) == "bob None", "as in a view: it has no session before its cookie is written"
        assert json.loads(result(await ask(socket, "seen")))[2] == "alice", "another callback of the connection"
        assert await site.me(cookie) == ("alice", await site.session_id(cookie))
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert reply.status == 200
        assert await ending(socket) == 4102
    user, new = await site.me(reply.cookie)
    assert user == "bob"
    assert "Max-Age" in reply.headers["Set-Cookie"], "it was to be remembered"
    assert reply.json["session"] == new
    assert await site.is_nobody(cookie)
    current = await site.get("/_dash-quart-ws/session", reply.cookie, query_string={"endId": reply.json["page"]})
    assert current.status == 204, "the page goes on as bob's"
    assert (await site.get("/_dash-quart-ws/session", reply.cookie, query_string={"endId": page})).status == 409


async def test_a_renewal_keeps_the_session_and_its_connection(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        before = await site.session_id(cookie)
        payload = await ask(socket, "renew")
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert reply.status == 204
        assert await site.session_id(reply.cookie) == before
        assert await is_open(socket)


@pytest.mark.parametrize("name", ["out", "outsync"])
async def test_a_logout_ends_the_session_at_once_and_lets_its_own_answer_out_and_nothing_else(
    site: Site, name: str
) -> None:
    async with signed_in(site) as (socket, cookie, page):
        async with site.websocket(cookie) as another:
            await socket.send(request_message("waits.children", 1, "2"))
            await site.entered.wait()
            await socket.send(request_message(f"{name}.children", 1, "1"))
            received, code = await rest_of(socket)
            assert code == 4501
            assert await ending(another) == 4501
        assert [(one["type"], one.get("requestId")) for one in received] == [("callback_response", "1")]
        payload = received[0]["payload"]
        assert result(payload) == "None None"
        assert await site.is_nobody(cookie)
        reply = await fetch(site, payload["effects"], cookie, page=page)
    assert reply.status == 204, "the page has no session to go on in"
    assert cookies_of(reply)["QUART_AUTH"] == ""
    assert ("left" in cookies_of(reply)) is (name == "out")


async def test_after_its_logout_a_connection_runs_nothing_more_though_its_answer_is_not_out_yet(site: Site) -> None:
    async with signed_in(site) as (socket, _cookie, _page):
        await socket.send(request_message("outlong.children", 1, "1"))
        await site.entered.wait()
        await socket.send(request_message("cookie.children", "blue", "2"))
        assert site.backend.connections() == ()
        started = time.monotonic()
        assert await ending(socket) == 4501, "it has half a second here, then its answer is nobody's"
        assert time.monotonic() - started < 5


async def test_a_callback_has_time_to_end_after_its_logout() -> None:
    async with (
        serving(close_timeout=0.01, cancel_timeout=30) as patient,
        signed_in(patient) as (socket, _cookie, _page),
    ):
        await socket.send(request_message("outlong.children"))
        await patient.entered.wait()
        await asyncio.sleep(0.1)  # longer than any other callback has that ends its own connection
        patient.go_on.set()
        assert result(await answer(socket)) == "still in time"
        assert await ending(socket) == 4501


async def test_after_a_logout_a_page_that_needs_no_login_goes_on_as_nobodys(site: Site) -> None:
    async with serving(login_required=False) as open_site, signed_in(open_site) as (socket, cookie, page):
        payload = await ask(socket, "out")
        assert await ending(socket) == 4102
        reply = await fetch(open_site, payload["effects"], cookie, page=page)
        assert reply.json["session"] is None
        assert "dash-quart-ws-visitor" in cookies_of(reply), "so that a login in this browser finds its connection"
        query = {"endId": reply.json["page"]}
        assert (await open_site.get("/_dash-quart-ws/session", query_string=query)).status == 204


async def test_one_callback_may_log_out_and_somebody_else_in(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "switch", "bob")
        assert result(payload) == "bob"
        assert await ending(socket) == 4501
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert (await site.me(reply.cookie))[0] == "bob"
        assert reply.json["session"] == await site.session_id(reply.cookie)


async def test_nobody_logs_in_on_a_page_of_nobodys_and_it_goes_on_as_the_users() -> None:
    async with serving(login_required=False) as site:
        index = await site.get("/")
        visitor = index.cookie
        async with site.websocket(visitor) as socket:
            payload = await ask(socket, "login", "alice")
            assert (await fetch(site, payload["effects"])).status == 403, "another browser"
            payload = await ask(socket, "login", "alice")
            reply = await fetch(site, payload["effects"], visitor)
            assert reply.status == 200
            assert await ending(socket) == 4102
        assert await site.me(reply.cookie) == ("alice", reply.json["session"])


@pytest.mark.parametrize("name", ["prevents", "fails"])
async def test_a_login_counts_whatever_becomes_of_its_callback_as_over_http(site: Site, name: str) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, name, "bob")
        assert payload["status"] == {"prevents": "prevent_update", "fails": "error"}[name]
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert set(cookies_of(reply)) == {"QUART_AUTH"}
        assert (await site.me(reply.cookie))[0] == "bob"
    asked = json.loads(request_message(f"{name}.children", "bob"))["payload"]
    reply = await site.request("POST", "/_dash-update-component", await site.login("alice"), json=asked)
    assert (await site.me(reply.cookie))[0] == "bob"


async def test_a_ban_overtakes_a_login_that_had_begun_before_it(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        await socket.send(request_message("slow.children", "bob"))
        await site.entered.wait()
        await site.backend.revoke(user="bob", reason="banned")  # after bob's password was looked at
        site.go_on.set()
        payload = await answer(socket)
        banned = await fetch(site, payload["effects"], cookie, page=page)
        assert await site.is_nobody(banned.cookie)
    async with signed_in(site) as (socket, cookie, page):
        await site.backend.revoke(user="bob", reason="once more")
        payload = await ask(socket, "login", "bob")
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert (await site.me(reply.cookie))[0] == "bob", "a login that begins after it is as good as any"


async def test_one_callback_may_end_all_sessions_of_a_user_and_log_that_user_in(site: Site) -> None:
    for is_banned in (False, True):
        elsewhere = await site.login("bob")
        async with signed_in(site) as (socket, cookie, page):
            payload = await ask(socket, "anew", "bob")
            assert await site.is_nobody(elsewhere)
            if is_banned:
                await site.backend.revoke(user="bob", reason="banned meanwhile")
            reply = await fetch(site, payload["effects"], cookie, page=page)
            assert await site.is_nobody(reply.cookie) is is_banned


async def test_the_request_may_come_to_another_worker_than_the_websocket(site: Site) -> None:
    async with serving() as other, signed_in(site) as (socket, cookie, page):
        other.backend._effects._broker = site.backend._extension.broker  # as all workers share one
        payload = await ask(socket, "cookie", "blue")
        reply = await fetch(other, payload["effects"], cookie, page=page)
        assert (reply.status, cookies_of(reply)) == (204, {"colour": "blue"})
        assert (await fetch(site, payload["effects"], cookie, page=page)).status == 404


# ------------------------------------------------------------------------------------------------- the attackers


async def test_effects_are_applied_once(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "login", "bob")
        replies = await asyncio.gather(*(fetch(site, payload["effects"], cookie, page=page) for _ in range(5)))
        assert sorted(reply.status for reply in replies) == [200, 404, 404, 404, 404]
        assert sum("Set-Cookie" in reply.headers for reply in replies) == 1


async def test_effects_are_nobodys_when_their_time_is_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "SECONDS", 0.0)
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "cookie", "blue")
        assert (await fetch(site, payload["effects"], cookie, page=page)).status == 404


async def test_another_session_gets_no_effects_even_with_the_id_and_the_page_token(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dash_quart_ws.security")
    mallory = await site.login("mallory")
    other = await site.login("alice")  # the same user, elsewhere
    async with signed_in(site) as (socket, cookie, page):
        for thief in (mallory, other, "", f"{cookie}x"):
            payload = await ask(socket, "login", "bob")
            reply = await fetch(site, payload["effects"], thief, page=page)
            assert reply.status == 403
            assert "Set-Cookie" not in reply.headers
            assert (await fetch(site, payload["effects"], cookie, page=page)).status == 404, "it was taken"
        for name in ("out", "switch"):
            async with signed_in(site) as (leaving, left, of_page):
                payload = await ask(leaving, name, "bob")
                for thief in ("", mallory):
                    assert (await fetch(site, payload["effects"], thief, page=of_page)).status in (403, 404)
                assert await site.is_nobody(left)
    assert caplog.text.count("effects-refused code=403") >= 6
    assert payload["effects"] not in caplog.text


async def test_another_page_of_the_same_session_gets_no_effects(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        for wrong in (page + "x", "", site.page_token(None)):
            payload = await ask(socket, "cookie", "blue")
            assert (await fetch(site, payload["effects"], cookie, page=wrong)).status == 403


async def test_a_tab_that_attaches_with_another_page_of_its_session_gets_what_is_that_pages(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, _page):
        session_id = await site.session_id(cookie)
        other = sign_page(site.app, f"{session_id}.another")
        await ask(socket, "echo")
        await socket.send(json.dumps({"type": "attach", "rendererId": "tab", "payload": {"page": other}}))
        payload = await ask(socket, "cookie", "blue")
        assert (await fetch(site, payload["effects"], cookie, page=other)).status == 204


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://localhost", "http://localhost:81"])
async def test_another_site_gets_no_effects_and_does_not_use_them_up(site: Site, origin: str | None) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "cookie", "blue")
        assert (await fetch(site, payload["effects"], cookie, page=page, origin=origin)).status == 403
        assert (await fetch(site, payload["effects"], cookie, page=page)).status == 204


async def test_only_json_of_the_right_shape_and_size_is_read(site: Site) -> None:
    async with signed_in(site) as (socket, cookie, page):
        id = (await ask(socket, "cookie", "blue"))["effects"]

        async def status(**options: Any) -> int:
            return (await fetch(site, id, cookie, page=page, **options)).status

        text = json.dumps({"id": id})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert await status(data=text, headers={"Content-Type": kind}) == 415
        assert await status(data=f"{text}{' ' * 2000}") == 413
        assert await status(headers={"Content-Length": ""}) == 413, "of a size that nobody knows"
        for odd in ([id], {"id": [id]}, {"id": id.upper() + "x"}, {"id": id[:-1]}, {}, None, {"id": "../" + id}):
            assert await status(json=odd) == 400, odd
        assert await status(data="{") == 400
        assert (await site.get("/_dash-quart-ws/effects", cookie)).status in (404, 405)
        assert await status(json={"id": id}) == 204


async def test_what_a_session_did_counts_no_more_when_it_has_ended_meanwhile(site: Site) -> None:
    for name in ("login", "cookie", "renew", "write"):
        async with signed_in(site) as (socket, cookie, page):
            payload = await ask(socket, name, "bob")
            await site.backend.revoke(user="alice", reason="banned")
            reply = await fetch(site, payload["effects"], cookie, page=page)
            assert reply.status == 401
            assert "Set-Cookie" not in reply.headers


async def test_a_session_that_ends_while_its_effects_are_looked_up_loses_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with signed_in(site) as (socket, cookie, page):
        payload = await ask(socket, "login", "bob")
        broker: Broker = site.backend._extension.broker
        take = broker.take

        async def taking(name: str) -> str | None:
            text = await take(name)
            await site.backend.revoke(user="alice", reason="banned")
            return text

        monkeypatch.setattr(broker, "take", taking)
        reply = await fetch(site, payload["effects"], cookie, page=page)
        assert reply.status == 401
        assert "Set-Cookie" not in reply.headers


async def test_what_is_kept_does_not_have_the_id_by_which_it_is_fetched(site: Site) -> None:
    async with signed_in(site) as (socket, _cookie, page):
        payload = await ask(socket, "cookie", "blue")
        kept: dict[str, Any] = site.backend._extension.broker._kept  # type: ignore[attr-defined]
        assert kept
        assert payload["effects"] not in str(kept)
        assert page not in str(kept)


# -------------------------------------------------------------------------------------------- what cannot be done


async def test_with_dashs_own_worker_a_callback_is_told_what_to_do_and_a_logout_works(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = await site.login("alice")
    async with site.websocket(cookie, bridge=False) as socket:
        at_once, at_the_end = (
            "this callback's websocket is Dash's own worker's",
            "renew_login() and quart's session need the",
        )
        told = {"cookie": at_once, "login": at_once, "renew": at_the_end, "write": at_the_end}
        for name, text in told.items():
            payload = await ask(socket, name, "bob")
            assert payload["status"] == "error", name
            assert text in caplog.text
            assert "leave out bridge=False" in caplog.text
            caplog.clear()
        assert "effects" not in (payload := await ask(socket, "outsync"))
        assert result(payload) == "None None"
        assert await ending(socket) == 4001
    assert await site.is_nobody(cookie)


async def test_a_stream_without_an_answer_is_told_what_to_do(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (output,) = (name for name, spec in site.app.callback_map.items() if spec.get("no_output"))
    async with signed_in(site) as (socket, _cookie, _page):
        payload = {"output": output, "outputs": [], "inputs": [], "changedPropIds": [], "state": []}
        message = {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload}
        await socket.send(json.dumps(message))
        assert (await answer(socket))["status"] == "error"
    assert "streams until its tab has gone" in caplog.text


async def test_what_goes_on_after_its_callback_is_told_that_it_is_too_late(site: Site) -> None:
    async with signed_in(site) as (socket, _cookie, _page):
        assert result(await ask(socket, "later")) == "done"
        assert await is_open(socket)
        site.go_on.set()
        await site.task  # type: ignore[attr-defined]
    assert "this callback is over" in site.late  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------------- real servers


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn", "granian"])
async def test_on_every_server_a_logout_lets_its_answer_out_before_the_close_frame(server: str, tmp_path: Path) -> None:
    with real_server(tmp_path, server=server, app="tests.bridge.app:server", env={"EFFECTS": "yes"}) as running:
        cookie = running.login("alice")
        page = await asyncio.to_thread(running.page_token, cookie)
        async with running.bridge(cookie) as other, running.connect(cookie, **BRIDGE) as socket:
            assert (await attach(socket, page))["type"] == "session"
            payload = await call(socket, "signed-out.children")
            assert result(payload) == "goodbye None"
            assert (await closed(socket))[0] == 4501
            assert (await closed(other))[0] == 4501
        assert running.get("/me", cookie).json["user"] is None
        for expected in (204, 404):
            reply = running.request(
                "POST",
                f"/_dash-quart-ws/effects?endId={page}",
                cookie=cookie,
                body={"id": payload["effects"]},
                headers={"Origin": running.origin},
            )
            assert reply.status == expected
            assert ("QUART_AUTH=;" in str(reply.headers["Set-Cookie"])) is (expected == 204)
