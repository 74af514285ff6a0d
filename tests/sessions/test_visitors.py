"""Nobody's connections: who may have one, how many, and when they end."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import pytest
from dash import Input, Output
from quart_auth import QuartAuth

from dash_quart_ws import add_public_routes, protected_callback, public_callback
from dash_quart_ws.sessions import visitors

from .site import ECHO, ORIGIN, SOCKET_PATH, BridgeSocket, Site, ending, is_open, second_auth, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.asgi import InProcessSocket

NAME = visitors.NAME
ASKED = {**ECHO, "output": "asked.children", "outputs": {"id": "asked", "property": "children"}}


def streaming(**options: Any) -> Site:
    """A site with a public page, `/open`, and a public callback that streams."""
    site = Site(**{"anonymous_connections": 3, **options})
    add_public_routes(site.app, ["/open"])

    @public_callback(Output("asked", "children"), Input("go", "n_clicks"), app=site.app, websocket=True)
    async def ask(n_clicks: int) -> str:
        return f"asked {n_clicks}"

    return site


@contextlib.asynccontextmanager
async def from_address(
    site: Site, address: str | None, cookie: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[InProcessSocket]:
    """A websocket that comes from an address."""
    sent = {"Origin": ORIGIN, **({"Cookie": cookie} if cookie else {}), **(headers or {})}
    socket = BridgeSocket(site, SOCKET_PATH, headers=sent)
    socket._scope["client"] = None if address is None else (address, 50000)
    async with socket:
        yield socket


async def let_in(stack: contextlib.AsyncExitStack, *arguments: Any, **options: Any) -> InProcessSocket:
    """A websocket that stays until the end of the test."""
    socket = await stack.enter_async_context(from_address(*arguments, **options))
    assert await is_open(socket)
    return socket


async def asks(socket: InProcessSocket, payload: dict[str, Any], id: str = "1") -> dict[str, Any]:
    await socket.send_json({"type": "callback_request", "requestId": id, "rendererId": "tab", "payload": payload})
    while True:
        found = await socket.receive_json()
        for message in found if isinstance(found, list) else [found]:
            if message.get("requestId") == id:
                answer: dict[str, Any] = message["payload"]
                return answer


def set_cookies(reply: Any) -> dict[str, Any]:
    """The cookies that a response sets, by name."""
    found: SimpleCookie = SimpleCookie()
    for line in reply.headers.getlist("Set-Cookie"):
        found.load(line)
    return dict(found)


async def visitor_cookie(site: Site, **options: Any) -> str:
    (morsel,) = set_cookies(await site.get("/open", **options)).values()
    return f"{morsel.key}={morsel.value}"


# ------------------------------------------------------------------------------------------- what nobody may


async def test_nobodys_connection_runs_public_callbacks_only_and_lives_on() -> None:
    async with streaming() as site, site.websocket() as socket:
        refused = await asks(socket, ECHO)
        assert (refused["status"], refused["message"]) == ("error", "login required")
        answer = await asks(socket, ASKED, "2")
        assert answer["data"]["response"] == {"asked": {"children": "asked 1"}}
        (connection,) = site.backend.connections()
        assert (connection.user, connection.session) == (None, None)


async def test_a_callback_that_is_registered_twice_is_as_public_as_it_was_made_each_time() -> None:
    site = streaming()

    @site.app.callback(Output("mine", "children"), Input("go", "n_clicks"))
    @public_callback(Output("everybodys", "children"), Input("go", "n_clicks"), app=site.app)
    async def both(n_clicks: int) -> str:
        return f"both {n_clicks}"

    def request(id: str) -> dict[str, Any]:
        return {**ECHO, "output": f"{id}.children", "outputs": {"id": id, "property": "children"}}

    async with site, site.websocket() as socket:
        assert (await asks(socket, request("everybodys")))["status"] == "ok"
        assert (await asks(socket, request("mine"), "2"))["message"] == "login required"
        for id, status in (("everybodys", 200), ("mine", 401)):
            assert (await site.request("POST", "/_dash-update-component", json=request(id))).status == status


async def test_without_anything_for_nobody_nobody_gets_in() -> None:
    site = Site()
    add_public_routes(site.app, ["/login"])  # the app's own view
    async with site:
        assert await site.refused_with() == 4501


@pytest.mark.parametrize("what", ["route", "callback"])
async def test_a_public_part_of_any_kind_lets_nobody_in(what: str) -> None:
    site = Site()
    if what == "route":
        add_public_routes(site.app, ["/open"])
    else:
        public_callback(Output("asked", "children"), Input("go", "n_clicks"), app=site.app)(lambda n_clicks: n_clicks)
    async with site:
        assert await site.refused_with() is None


@pytest.mark.parametrize("streams", [{}, {"websocket": True}, {"websocket": True, "persistent": True}], ids=str)
async def test_nobodys_page_is_told_of_a_websocket_only_where_a_public_callback_streams(
    streams: dict[str, Any],
) -> None:
    site = Site()
    add_public_routes(site.app, ["/open"])

    @site.app.callback(Output("own", "children"), Input("go", "n_clicks"), websocket=True)  # not public: does not count
    async def own(n_clicks: int) -> str:
        return f"own {n_clicks}"

    @public_callback(Input("go", "n_clicks"), app=site.app, **streams)
    async def stream(n_clicks: int) -> None:
        del n_clicks

    async with site:
        config = _dash_config(await site.get("/open"))
        if streams:
            assert config["websocket"]["enabled"] is False
            assert config["websocket"]["url"] == SOCKET_PATH
        else:
            assert "websocket" not in config
        assert _dash_config(await site.get("/", await site.login("alice")))["websocket"]["enabled"] is True


def _dash_config(reply: Any) -> dict[str, Any]:
    found = re.search(r'<script id="_dash-config"[^>]*>(.*?)</script>', reply.body, re.DOTALL)
    assert found is not None, reply
    config: dict[str, Any] = json.loads(found[1])
    return config


# -------------------------------------------------------------------------------------------------- the limit


async def test_an_address_has_so_many_connections_without_a_session_and_no_more() -> None:
    async with streaming() as site, contextlib.AsyncExitStack() as stack:
        first, *_ = [await let_in(stack, site, "192.0.2.1") for _ in range(3)]
        async with from_address(site, "192.0.2.1") as one_too_many:
            assert await ending(one_too_many) == 4105
        await let_in(stack, site, "192.0.2.2")
        assert len(site.backend.connections()) == 4
        assert await is_open(first)


async def test_a_connection_that_ends_makes_room_for_the_next() -> None:
    async with streaming(anonymous_connections=1) as site:
        for _ in range(3):
            async with from_address(site, "192.0.2.1") as socket:
                assert await is_open(socket)
                async with from_address(site, "192.0.2.1") as one_too_many:
                    assert await ending(one_too_many) == 4105
        async with from_address(site, "192.0.2.1") as socket:
            assert await is_open(socket)
            await site.backend.close(all=True)
            assert await ending(socket) == 4500
        await until(lambda: not site.backend.connections())
        async with from_address(site, "192.0.2.1") as socket:
            assert await is_open(socket)


async def test_users_are_not_counted_and_not_limited() -> None:
    async with streaming(anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        cookie = await site.login("alice")
        for _ in range(4):
            await let_in(stack, site, "192.0.2.1", cookie)
        await let_in(stack, site, "192.0.2.1")
        async with from_address(site, "192.0.2.1") as one_too_many:
            assert await ending(one_too_many) == 4105
        await let_in(stack, site, "192.0.2.1", cookie)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("proxy", ["127.0.0.1", "10.0.0.2", "::1"])
async def test_behind_a_proxy_that_hides_the_addresses_nobody_is_limited_and_the_log_says_so_once(
    header: str, proxy: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with streaming(anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        for number in range(4):
            await let_in(stack, site, proxy, headers={header: f"for=192.0.2.{number}"})
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING and "ProxyFix" in one.getMessage()]
    assert len(warnings) == 1


async def test_a_client_that_only_says_that_it_is_a_proxy_is_limited() -> None:
    async with streaming(anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        lies = {"X-Forwarded-For": "198.51.100.7"}
        await let_in(stack, site, "8.8.8.8", headers=lies)
        async with from_address(site, "8.8.8.8", headers=lies) as one_too_many:
            assert await ending(one_too_many) == 4105


async def test_where_addresses_differ_a_local_one_is_limited_too() -> None:
    async with streaming(anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        lies = {"X-Forwarded-For": "198.51.100.7"}
        await let_in(stack, site, "192.0.2.1")
        await let_in(stack, site, "10.0.0.2", headers=lies)
        async with from_address(site, "10.0.0.2", headers=lies) as one_too_many:
            assert await ending(one_too_many) == 4105


async def test_without_a_proxys_header_one_address_alone_is_limited() -> None:
    async with streaming(anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        await let_in(stack, site, "127.0.0.1")
        async with from_address(site, "127.0.0.1") as one_too_many:
            assert await ending(one_too_many) == 4105


async def test_where_no_login_is_required_nobodys_connections_are_limited_as_well() -> None:
    async with Site(login_required=False, anonymous_connections=1) as site, contextlib.AsyncExitStack() as stack:
        await let_in(stack, site, "192.0.2.1")
        async with from_address(site, "192.0.2.1") as one_too_many:
            assert await ending(one_too_many) == 4105


# ----------------------------------------------------------------------------------------- a login in the browser


async def test_nobodys_connections_end_when_somebody_logs_in_in_that_browser_and_only_they() -> None:
    async with streaming() as site:
        mine, theirs = await visitor_cookie(site), await visitor_cookie(site)
        assert mine != theirs
        async with (
            from_address(site, "192.0.2.1", mine) as one,
            from_address(site, "192.0.2.1", mine) as two,
            from_address(site, "192.0.2.1", theirs) as other,
            from_address(site, "192.0.2.9") as nameless,
        ):
            for socket in (one, two, other, nameless):
                assert await is_open(socket)
            await site.login("alice", mine)
            assert [await ending(one), await ending(two)] == [4102, 4102]
            assert await is_open(other)
            assert await is_open(nameless)


async def test_a_login_that_fails_or_a_logout_of_nobody_ends_no_connection_of_nobody() -> None:
    async with streaming() as site:
        mine = await visitor_cookie(site)
        async with from_address(site, "192.0.2.1", mine) as socket:
            assert await is_open(socket)
            for path in ("/me", "/logout", "/open", "/renew", "/secret"):
                await site.get(path, mine)
            assert await is_open(socket)


async def test_a_connection_with_a_session_of_another_extension_ends_at_the_login_too() -> None:
    def both(server: Any) -> QuartAuth:
        singleton = QuartAuth(server)
        second_auth(server)
        return singleton

    async with streaming(auth=both) as site:
        mine = await visitor_cookie(site)
        admin = (await site.get("/admin/login/root", mine)).cookie
        async with from_address(site, "192.0.2.1", f"{mine}; {admin}") as socket:
            assert await is_open(socket)
            await site.login("alice", f"{mine}; {admin}")
            assert await ending(socket, unless="heartbeat_ack") == 4102


async def test_the_cookie_that_names_a_browser_is_out_of_reach_for_scripts_and_other_sites() -> None:
    async with streaming() as site:
        found = set_cookies(await site.get("/open"))
        assert set(found) == {NAME}
        morsel = found[NAME]
        assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["secure"]) == (True, "Lax", "/", "")
        assert (morsel["max-age"], morsel["expires"], morsel["domain"]) == ("", "", "")
        assert len(morsel.value) == 22


async def test_on_https_no_other_host_can_set_that_cookie() -> None:
    async with streaming() as site:
        found = set_cookies(await site.get("/open", scheme="https"))
        assert set(found) == {f"__Host-{NAME}"}
        morsel = found[f"__Host-{NAME}"]
        assert (morsel["secure"], morsel["path"], morsel["domain"]) == (True, "/", "")
        again = await site.get("/open", f"{NAME}={morsel.value}", scheme="https")
        assert set(set_cookies(again)) == {f"__Host-{NAME}"}  # what came over http is nobody's name on https


async def test_a_browser_is_named_once_and_only_where_its_page_may_open_a_websocket() -> None:
    async with streaming() as site:
        mine = await visitor_cookie(site)
        assert set_cookies(await site.get("/open", mine)) == {}
        cookie = await site.login("alice")
        assert set_cookies(await site.get("/", cookie)) == {}
        for path in ("/", "/_dash-layout", "/_dash-quart-ws/session"):
            assert set_cookies(await site.get(path)) == {}
    quiet = Site()
    add_public_routes(quiet.app, ["/open"])
    async with quiet:
        reply = await quiet.get("/open")
        assert (reply.status, set_cookies(reply)) == (200, {})


FORGED = ["", "x", "A" * 21, "A" * 23, "A" * 4000, '"', "../../etc", "%00", "ä", "AAAAAAAAAAAAAAAAAAAAA\t", "é" * 22]


@pytest.mark.parametrize("value", FORGED, ids=lambda value: repr(value)[:24])
async def test_a_forged_name_is_no_name(value: str) -> None:
    async with streaming() as site:
        forged = f"{NAME}={value}"
        assert set(set_cookies(await site.get("/open", forged))) == {NAME}
        async with from_address(site, "192.0.2.1", forged) as socket, from_address(site, "192.0.2.1") as other:
            assert await is_open(socket)
            assert await is_open(other)
            await site.login("alice", forged)
            assert await is_open(socket)
            assert await is_open(other)


async def test_a_made_up_name_ends_nothing_but_what_was_opened_under_it() -> None:
    async with streaming() as site:
        mine, made_up = await visitor_cookie(site), f"{NAME}={'A' * 22}"
        async with from_address(site, "192.0.2.1", mine) as own, from_address(site, "192.0.2.1", made_up) as other:
            assert await is_open(own)
            assert await is_open(other)
            await site.login("mallory", made_up)
            assert await ending(other) == 4102
            assert await is_open(own)


async def test_of_two_names_one_counts_at_the_handshake_and_at_the_login() -> None:
    async with streaming() as site:
        mine, tossed = await visitor_cookie(site), f"{NAME}={'B' * 22}"
        for cookies in (f"{mine}; {tossed}", f"{tossed}; {mine}"):
            async with from_address(site, "192.0.2.1", cookies) as socket:
                assert await is_open(socket)
                assert (await site.get("/open", cookies)).status == 200
                await site.login("alice", cookies)
                assert await ending(socket) == 4102


async def test_a_browsers_name_gives_access_to_nothing_and_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with streaming() as site:
        mine = await visitor_cookie(site)
        async with from_address(site, "192.0.2.1", mine) as socket:
            assert await is_open(socket)
            assert (await site.get("/", mine)).status == 302
            assert (await site.get("/_dash-layout", mine)).status == (await site.get("/_dash-layout")).status
            assert (await site.request("POST", "/_dash-update-component", mine, json=ECHO)).status == 401
            assert (await site.me(mine)) == (None, None)
            await site.login("alice", mine)
            assert await ending(socket) == 4102
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("dash_quart_ws")]
    assert lines
    assert mine.partition("=")[2] not in "\n".join(lines)


# ----------------------------------------------------------------------------------- an ended session is not nobody


@pytest.mark.parametrize(("how", "code"), [("logout", 4501), ("revoke", 4503), ("switch", 4501)])
async def test_an_ended_sessions_cookie_opens_nothing_as_nobody(how: str, code: int) -> None:
    async with streaming() as site:
        cookie = await site.login("alice")
        match how:
            case "logout":
                await site.get("/logout", cookie)
            case "revoke":
                await site.backend.revoke(user="alice")
            case "switch":
                await site.login("bob", cookie)
        assert await site.refused_with() is None
        assert await site.refused_with(cookie) == code


async def test_a_public_page_takes_an_ended_sessions_cookie_away_and_no_other() -> None:
    async with streaming() as site:
        cookie = await site.login("alice")
        name = cookie.partition("=")[0]
        assert set_cookies(await site.get("/open", cookie)) == {}
        await site.backend.revoke(user="alice")
        found = set_cookies(await site.get("/open", cookie))
        assert (found[name].value, found[name]["max-age"]) == ("", "0")
        assert name not in set_cookies(await site.get("/open"))
        assert name not in set_cookies(await site.get("/open", f"{name}=no.token.at-all"))
        protected = await site.get("/", cookie)
        assert protected.status == 302
        assert name not in set_cookies(protected)


# ------------------------------------------------------------------------------------------ no login is required


async def test_where_no_login_is_required_a_logout_closes_with_4102_and_a_login_ends_nobodys_connection() -> None:
    async with Site(login_required=False) as site:
        found = set_cookies(await site.get("/"))
        mine = f"{NAME}={found[NAME].value}"
        async with site.websocket(mine) as socket:
            answer = await asks(socket, ECHO)
            assert answer["data"]["response"] == {"echo": {"children": "None 1"}}
            cookie = await site.login("alice", mine)
            assert await ending(socket) == 4102
        async with site.websocket(f"{mine}; {cookie}") as socket:
            answer = await asks(socket, ECHO)
            assert answer["data"]["response"] == {"echo": {"children": "alice 1"}}
            await site.get("/logout", cookie)
            assert await ending(socket) == 4102
        assert await site.refused_with(cookie) is None  # as nobody, like everybody
        for path in ("/", "/_dash-layout", "/_dash-dependencies", "/anything"):
            assert (await site.get(path, cookie)).status == 200


async def test_where_no_login_is_required_a_protected_callback_demands_one_all_the_same() -> None:
    site = Site(login_required=False)
    ran: list[str] = []

    @protected_callback(
        Output("own", "children"), Input("go", "n_clicks"), app=site.app, unauthenticated_output="sign in"
    )
    async def own(n_clicks: int) -> str:
        ran.append("own")
        return f"own {n_clicks}"

    body = {**ECHO, "output": "own.children", "outputs": {"id": "own", "property": "children"}}
    async with site:
        reply = await site.request("POST", "/_dash-update-component", json=body)
        assert reply.json["response"] == {"own": {"children": "sign in"}}
        async with site.websocket() as socket:
            assert "sign in" in json.dumps(await asks(socket, body))
        assert ran == []
        cookie = await site.login("alice")
        reply = await site.request("POST", "/_dash-update-component", cookie, json=body)
        assert reply.json["response"] == {"own": {"children": "own 1"}}
        assert ran == ["own"]
