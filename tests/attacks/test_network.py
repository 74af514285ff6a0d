"""What an attacker tries over sockets and HTTP, one attack for each test, against a real hypercorn."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import socket
import string
import time
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
import websockets
from itsdangerous.encoding import base64_decode

from dash_quart_ws.wire.close import SUBPROTOCOL

from ..raw import CLOSE, TEXT, RawSocket, server_side
from ..server import SOCKET_PATH, await_for, call, closed, messages, next_message, request_message, result, wait_for
from .target import (
    CALLBACK,
    COOKIE,
    DASH_WORKER_STOP,
    MARK,
    Target,
    attacked,
    frame,
    payload,
    registry,
    routing,
    sid_of,
    signing_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET_TEXTS = ("the text of the home page", "the text of the report", "the text of the board", "the text of nowhere")
WHO = payload("who.children", MARK)
LONG = "A" * 1_000_000


def spellings(cookie: str) -> list[str]:
    """The same token written otherwise: base64 leaves bits over, and decoders do not look at them."""
    name, _, token = cookie.partition("=")
    head, _, signature = token.rpartition(".")
    alphabet = string.ascii_letters + string.digits + "-_"
    meant = base64_decode(signature)
    others = [signature[:-1] + last for last in alphabet if base64_decode(signature[:-1] + last) == meant]
    return [f"{name}={head}.{other}" for other in (*others, f"{signature}=", f"{signature}==")]


def speak(target: Target, text: str | bytes, *, source: str = "127.0.0.1") -> bytes:
    """Send bytes, and all that is answered until the server closes or says nothing more."""
    with socket.create_connection((source, target.port), timeout=10) as connection:
        connection.sendall(text.encode("latin1") if isinstance(text, str) else text)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionResetError):
            while data := connection.recv(1 << 16):
                answer += data
        return answer


def handshake(
    target: Target, *, cookie: str | None = None, path: str = SOCKET_PATH, headers: tuple[str, ...] = ()
) -> int:
    """The status of a handshake whose headers are given line by line."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = [
        f"GET {path} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}", *headers, *([f"Cookie: {cookie}"] if cookie else []),
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin1"))
        with suppress(ConnectionResetError):
            return int(connection.recv(1 << 16).split()[1])
    return 0


def is_nobody(target: Target, cookie: str) -> bool:
    """Over HTTP: a page leads to the login, a callback does not run, and the app sees nobody."""
    before = target.ran()
    page, ran = target.get("/report/7", cookie), target.post(WHO, cookie)
    assert page.status in (302, 200), page
    return page.status == 302 and ran.status == 401 and target.me(cookie)["user"] is None and target.ran() == before


# ------------------------------------------------------------------------------------------- a cookie that was stolen


END = {"logout": "/logout", "ban": "/revoke/alice"}


@pytest.mark.parametrize("how", END)
async def test_a_stolen_cookie_is_worth_nothing_after_the_logout_or_the_ban(site: Target, alice: str, how: str) -> None:
    stolen = spellings(alice)
    assert len(stolen) > 2
    assert [site.me(cookie)["user"] for cookie in stolen] == ["alice"] * len(stolen)
    async with site.connect(stolen[1]) as thief:
        assert result(await call(thief, "who.children")) == "alice 1"
        await site.aget(END[how], alice)
        code, _ = await closed(thief)
        assert code == DASH_WORKER_STOP
    for cookie in stolen:
        assert is_nobody(site, cookie)
        async with site.connect(cookie) as again:
            code, reason = await closed(again)
        assert (code, "logged out" in str(reason)) == (DASH_WORKER_STOP, how == "logout")


@pytest.fixture(scope="module")
def short(folder: Path) -> Iterator[Target]:
    """Logins last two seconds."""
    with attacked(folder, DURATION="2") as target:
        yield target


async def test_a_stolen_cookie_is_worth_nothing_after_it_has_expired(short: Target) -> None:
    alice = short.login("alice")
    async with short.connect(alice) as thief:
        assert result(await call(thief, "who.children")) == "alice 1"
        code, _ = await closed(thief, timeout=15)
        assert code == 4102
    assert all(is_nobody(short, cookie) for cookie in spellings(alice))
    for cookie in spellings(alice):
        async with short.connect(cookie, subprotocols=[SUBPROTOCOL]) as again:
            code, _ = await closed(again)
        assert code == 4502


def test_a_client_that_ignores_the_close_frame_has_nothing_run(site: Target, alice: str) -> None:
    with RawSocket(site, alice) as thief:
        assert thief.call("who.children")["status"] == "ok"
        site.get("/logout", alice)
        ran = site.ran()
        sent = 0
        with suppress(ConnectionError):
            for number in range(2_000):  # until the transport is reset
                thief.request("who.children", request_id=f"late-{number}")
                sent += 1
                time.sleep(0.005)  # the pace of the attack: 10 s of it, unless the reset ends it
        assert sent < 2_000
        assert [one for one in thief.frames() if one.opcode == TEXT and b"late-" in one.payload] == []
    assert site.ran() == ran


def test_a_client_that_never_reads_does_not_outlive_its_session(site: Target, alice: str) -> None:
    with RawSocket(site, alice, receive_buffer=4096) as thief:
        thief.request("torrent.children")
        wait_for(lambda: thief.unread > 0, what="the torrent")
        site.get("/logout", alice)
        wait_for(lambda: server_side(site, thief.port) is None, 15, "the server to let go of the transport")
        assert "alice" not in site.users()


async def test_a_logout_in_the_middle_of_many_handshakes_leaves_no_socket_open(site: Target, alice: str) -> None:
    async with AsyncExitStack() as opened:

        async def attempt() -> None:
            with suppress(websockets.WebSocketException, OSError):
                await opened.enter_async_context(site.connect(alice))

        attempts = [asyncio.create_task(attempt()) for _ in range(40)]
        await asyncio.sleep(0)
        await site.aget("/logout", alice)
        await asyncio.gather(*attempts)
        await await_for(lambda: "alice" not in site.users(), what="every socket of the session to be closed")


# ------------------------------------------------------------------------------------- replay, and forged page tokens


async def test_frames_of_the_last_user_do_not_run_as_the_next_one(site: Target, alice: str, bob: str) -> None:
    token = site.page_token(alice)
    recorded = [frame({**WHO, "endId": token}, f"old-{number}") for number in range(5)]
    async with site.connect(alice) as first:
        await first.send(recorded[0])
        assert (await next_message(first, "callback_response"))["payload"]["status"] == "ok"
    ran = site.ran()
    async with site.connect(bob) as second:
        await second.send(f"[{','.join(recorded)}]")  # as a worker that has kept them in its queue
        answers = [(await next_message(second, "callback_response"))["payload"] for _ in recorded]
        assert answers == [{"status": "error", "message": "stale page"}] * 5
        assert await asyncio.to_thread(site.ran) == ran
        # Without a token it is bob's own request, whoever wrote it: it runs as him, with his rights, for him.
        await second.send(frame(WHO))
        answer = await next_message(second, "callback_response")
        assert result(answer["payload"]).startswith("bob ")
        assert result(await call(second, "traders.children", request_id="2")) == "not for you"


def forgeries(target: Target, alice: str, bob: str) -> dict[str, str]:
    """Page tokens that are not those of a page of bob's."""
    of_alice, of_bob, of_nobody = target.page_token(alice), target.page_token(bob), target.page_token(path="/status")
    name, _, signature = of_bob.rpartition("~")
    other = hmac.new(b"another secret", f"end\0{name}".encode(), sha256).hexdigest()
    plain = hmac.new(target_key(), f"end\0{'x' * 24}".encode(), sha256).hexdigest()
    return {
        "another user's": of_alice,
        "nobody's": of_nobody,
        "signed with another key": f"{name}~{other}",
        "without its signature": name,
        "with an empty signature": f"{name}~",
        "with a name swapped": f"{of_bob.partition('.')[0]}.{of_alice.partition('.')[2]}",
        "with a signature swapped": f"{name}~{of_alice.rpartition('~')[2]}",
        "in capitals": f"{name}~{signature.upper()}",
        "cut": of_bob[:-1],
        "twice in one": f"{of_bob}~{signature}",
        "of Dash's own making": f"{'x' * 24}~{plain}",
        "a cookie": bob.partition("=")[2],
        "a public id": name.partition(".")[0],
        "empty": "",
        "a separator": "~",
        "not ASCII": f"{name}~é",
        "long": LONG[:60_000],
        "true": "true",
        "null": "null",
    }


def target_key() -> bytes:
    """As an attacker would not know it: what Dash derives from the app's key is what must be asked for."""
    return b"only for tests, and long enough to be one"


FORGERIES = (
    "another user's", "nobody's", "signed with another key", "without its signature", "with an empty signature",
    "with a name swapped", "with a signature swapped", "in capitals", "cut", "twice in one", "of Dash's own making",
    "a cookie", "a public id", "empty", "a separator", "not ASCII", "long", "true", "null",
)  # fmt: skip


@pytest.fixture(scope="module")
def two(site: Target) -> dict[str, Any]:
    """Cookies of both users, and the forgeries."""
    alice, bob = site.login("alice"), site.login("bob")
    return {"alice": alice, "bob": bob, "forged": forgeries(site, alice, bob), "own": site.page_token(bob)}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_with_a_forged_page_token_nothing_runs(site: Target, two: dict[str, Any], forgery: str) -> None:
    token, bob = two["forged"][forgery], two["bob"]
    assert token != two["own"]
    assert site.post(WHO, bob, quote(two["own"])).status == 200
    ran = site.ran()
    if len(token) < 10_000:  # a server takes no longer request line
        assert site.post(WHO, bob, quote(token)).status == 409
        assert site.get(f"/_dash-quart-ws/session?endId={quote(token)}", bob).status == 409
    async with site.connect(bob) as connection:
        await connection.send(frame({**WHO, "endId": token}))
        assert (await next_message(connection))["payload"] == {"status": "error", "message": "stale page"}
        await connection.send(frame({**WHO, "endId": two["own"]}, "2"))
        ran.append("who")
        assert result((await next_message(connection))["payload"]).startswith("bob ")
    assert site.ran() == ran


@pytest.mark.parametrize("token", [0, 1, True, 1.5, [], ["~"], {}, {"~": 1}, [["~"]], "\ud800~\ud800", "\0~\0"])
async def test_a_page_token_of_any_kind_of_json_costs_only_its_own_request(site: Target, bob: str, token: Any) -> None:
    async with site.connect(bob) as connection:
        await connection.send(frame({**WHO, "endId": token}))
        assert (await next_message(connection))["payload"] == {"status": "error", "message": "stale page"}
        assert result(await call(connection, "who.children", request_id="2")) == "bob 1"


@pytest.mark.parametrize("first", [True, False])
def test_two_page_tokens_in_one_request_are_no_way_around_the_check(
    site: Target, two: dict[str, Any], first: bool
) -> None:
    own, foreign = quote(two["own"]), quote(two["forged"]["another user's"])
    tokens = f"{own}&endId={foreign}" if first else f"{foreign}&endId={own}"
    ran = site.ran()
    reply = site.post(WHO, two["bob"], tokens)
    if first:  # the second one is nobody's business: Dash's handles of jobs look at the first as well
        assert reply.status == 200
        assert b"bob " in reply.body
    else:
        assert (reply.status, site.ran()) == (409, ran)


def test_a_page_token_is_no_cookie_and_a_cookie_no_page_token(site: Target, alice: str) -> None:
    token = site.page_token(alice)
    for stolen in (token, token.partition("~")[0], token.partition(".")[0], site.me(alice)["session"]):
        assert is_nobody(site, f"{COOKIE}={quote(stolen)}")
    assert site.post(WHO, alice, alice.partition("=")[2]).status == 409


def test_a_page_token_alone_opens_nothing(site: Target, alice: str) -> None:
    token = site.page_token(alice)
    assert site.post(WHO, None, token).status == 401
    with RawSocket(site) as nobody:
        nobody.send(TEXT, frame({**WHO, "endId": token}).encode())
        assert nobody.frame().close_code == 4102  # a browser would come back with alice's cookie


# ------------------------------------------------------------------------------------------------- renderers' ids


async def test_nobody_answers_a_question_that_another_user_was_asked(site: Target, alice: str, bob: str) -> None:
    async with site.connect(alice) as victim, site.connect(bob) as attacker:
        await victim.send(frame(payload("asking.children"), renderer_id="alice's tab"))
        question = await next_message(victim, "get_props_request")
        answer = {"type": "get_props_response", "requestId": question["requestId"], "rendererId": "alice's tab"}
        for _ in range(3):
            await attacker.send(json.dumps({**answer, "payload": {"value": "forged"}}))
            assert (await next_message(attacker))["type"] == "error"
        # Nor does another tab of her own browser.
        await victim.send(json.dumps({**answer, "rendererId": "another tab", "payload": {"value": "forged"}}))
        assert (await next_message(victim))["type"] == "error"
        await victim.send(json.dumps({**answer, "payload": {"value": "hers"}}))
        assert result((await next_message(victim, "callback_response"))["payload"]) == "the box of alice holds hers"
        assert len(question["requestId"]) >= 32
        assert ["alice", "forged"] not in (await site.aget("/answers")).json


async def test_ids_of_questions_cannot_be_guessed_from_earlier_ones(site: Target, alice: str) -> None:
    async with site.connect(alice) as connection:
        for number in range(20):
            await connection.send(frame(payload("asking.children"), f"{number}"))
        ids = [(await next_message(connection, "get_props_request"))["requestId"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)
    assert len({id[:8] for id in ids}) == len({id[-8:] for id in ids}) == 20  # neither a counter nor a clock


async def test_what_a_callback_sets_goes_to_who_asked_whatever_tab_they_name(
    site: Target, alice: str, bob: str
) -> None:
    async with site.connect(alice) as victim, site.connect(bob) as attacker:
        assert result(await call(victim, "who.children")) == "alice 1"
        await attacker.send(frame(payload("torrent.children"), renderer_id="tab"))  # the very id of alice's tab
        assert (await next_message(attacker, "set_props"))["rendererId"] == "tab"
        await site.aget("/logout", bob)
        await victim.send('{"type":"heartbeat"}')
        assert await next_message(victim) == {"type": "heartbeat_ack"}  # and nothing came before


# --------------------------------------------------------------------------------------------- fixation, and logins


def test_a_login_keeps_nothing_of_a_session_that_was_planted_before_it(site: Target) -> None:
    planted = site.login("mallory")
    known = site.me(planted)["session"]
    reply = site.request("GET", "/login/alice", cookie=planted)
    fresh = reply.cookie
    assert site.me(fresh)["user"] == "alice"
    assert site.me(fresh)["session"] != known
    assert sid_of(planted) != sid_of(fresh)
    assert is_nobody(site, planted)  # the old one has ended with that


def test_the_dash_login_page_does_not_keep_a_planted_session_either(site: Target) -> None:
    planted = site.login("mallory")
    reply = site.post(signing_in("alice", "ecila"), planted)
    assert reply.status == 200
    assert site.me(reply.cookie)["user"] == "alice"
    assert is_nobody(site, planted)


def test_two_logins_of_one_user_are_two_sessions_that_end_apart(site: Target) -> None:
    one, two = site.login("alice"), site.login("alice")
    assert site.me(one)["session"] != site.me(two)["session"]
    site.get("/logout", one)
    assert is_nobody(site, one)
    assert site.me(two)["user"] == "alice"


async def test_a_planted_visitor_cookie_is_no_way_to_be_taken_for_who_logs_in(site: Target) -> None:
    planted = "dash-quart-ws-visitor=" + "A" * 22
    async with site.connect(planted) as spy:
        assert result(await call(spy, "answer.children")) == "None asked 1"
        # The victim, whose browser has the same one, logs in: the spy's connection ends, and is nobody's for good.
        cookie = (await asyncio.to_thread(site.request, "GET", "/login/alice", cookie=planted)).cookie
        assert (await closed(spy))[0] == 4102
    async with site.connect(planted) as spy:
        assert result(await call(spy, "answer.children")) == "None asked 1"
        assert (await call(spy, "who.children", request_id="2"))["status"] == "error"
    assert site.me(cookie)["user"] == "alice"


SIMPLE = {
    "text/plain": lambda body: json.dumps(body),
    "text/plain; charset=application/json": lambda body: json.dumps(body),
    "text/plain;application/json": lambda body: json.dumps(body),
    "application/x-www-form-urlencoded": lambda body: json.dumps(body) + "=",
    "multipart/form-data; boundary=x": lambda body: (
        f'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n{json.dumps(body)}\r\n--x--\r\n'
    ),
    "": lambda body: json.dumps(body),
}
"""What another site's form, or its script, may send without asking first (Fetch, "CORS-safelisted request-header")."""


@pytest.mark.parametrize("type", SIMPLE)
def test_another_sites_form_logs_nobody_in(site: Target, type: str) -> None:
    body = SIMPLE[type](signing_in("mallory", "yrollam"))
    headers = {"Content-Type": type, "Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    reply = site.request("POST", CALLBACK, body=body, headers={k: v for k, v in headers.items() if v})
    assert reply.status in (400, 401, 415)
    assert not reply.cookie


@pytest.mark.parametrize("path", [CALLBACK, "/api/trade", "/api/time", "/_mcp"])
@pytest.mark.parametrize("type", SIMPLE)
def test_another_sites_form_runs_no_callback_though_the_cookie_comes_along(
    site: Target, alice: str, path: str, type: str
) -> None:
    calling = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "manage", "arguments": {}}}
    body = {CALLBACK: payload("who.children"), "/_mcp": calling}.get(path, {"clicks": 1})
    headers = {"Content-Type": type, "Origin": site.origin.replace("127.0.0.1", "127.0.0.9")}
    ran = site.ran()
    sent = SIMPLE[type](body)
    reply = site.request("POST", path, cookie=alice, body=sent, headers={k: v for k, v in headers.items() if v})
    assert reply.status in (400, 409, 415), reply
    assert b"alice" not in reply.body
    assert site.ran() == ran


@pytest.mark.parametrize("path", [CALLBACK, "/api/trade", "/_mcp", "/_dash-layout", "/login/alice"])
def test_no_other_site_is_told_that_it_may_read_or_send(site: Target, alice: str, path: str) -> None:
    asking = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST",
              "Access-Control-Request-Headers": "content-type"}  # fmt: skip
    for method in ("OPTIONS", "GET"):
        reply = site.request(method, path, cookie=alice, headers=asking)
        assert not [name for name in reply.headers if name.lower().startswith("access-control-")]


def test_a_page_of_another_session_that_has_no_token_does_not_run_in_a_browser(site: Target, alice: str) -> None:
    ran = site.ran()
    for headers in ({"Origin": site.origin}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "null"}):
        assert site.post(WHO, alice, None, **headers).status == 409
    assert site.ran() == ran


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_get_stays_a_get_whatever_a_header_says(site: Target, alice: str, header: str) -> None:
    ran = site.ran()
    for method in ("GET", "HEAD"):
        reply = site.request(method, f"{CALLBACK}?_method=POST", cookie=alice, body=WHO, headers={header: "POST"})
        assert reply.status in (302, 404, 405, 200), reply
        assert MARK.encode() not in reply.body
    assert site.ran() == ran


# ---------------------------------------------------------------------------------------------- redirects, injection

ELSEWHERE = (
    "//evil.test", "///evil.test", "////evil.test", "http://evil.test", "https:evil.test", "http:/evil.test", "HTTPS://evil.test",
    "\\\\evil.test", "/\\evil.test", "\\/evil.test", "/\\/evil.test", "/\t/evil.test", "/\n/evil.test", "\t//evil.test",
    " //evil.test", "/\r/evil.test", "\x00//evil.test", "javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x",
    "//evil.test/%2f..", "//google.com@evil.test", "https://127.0.0.1@evil.test", "//evil%E3%80%82test",
    "\uff0f\uff0fevil.test",    "/\x1b/evil.test", "/\x85/evil.test",
    "evil.test", ".evil.test", "?next=//evil.test", "#//evil.test", "//[::1]/",
    "/\x7f/evil.test",    "///", "//", "/\\",
)  # fmt: skip
INSIDE = (
    "/report/7",
    "/report/7?q=1&r=//evil.test",
    "/.//evil.test",
    "/%2f/evil.test",
    "/%5c/evil.test",
    "/@evil.test",
    "/;//evil.test",
)


@pytest.mark.parametrize("target", [*ELSEWHERE, *INSIDE])
def test_no_next_leads_a_login_to_another_site(site: Target, target: str) -> None:
    query = f"next={quote(target, safe='')}"
    reply = site.get(f"/login/alice?{query}")
    location = reply.headers["Location"]
    callback = site.post(signing_in("alice", "ecila", f"?{query}"))
    href = callback.json["response"]["go-on"]["href"]
    assert location == href or quote(href, safe="/?&=%@;.") == location
    for found in (location, href):
        assert re.fullmatch(r"/(?![/\\])[^\\\x00-\x1f\x7f-\x9f]*", found), found
        assert urlsplit(urljoin(site.origin, found)).netloc == urlsplit(site.origin).netloc
    assert (href == "/") == (target in ELSEWHERE)


def test_two_nexts_are_no_way_around_the_check(site: Target) -> None:
    for query in ("next=/report/7&next=//evil.test", "next=//evil.test&next=/report/7", "next[]=//evil.test"):
        href = site.post(signing_in("alice", "ecila", f"?{query}")).json["response"]["go-on"]["href"]
        assert href in ("/", "/report/7")
        assert site.get(f"/login/alice?{query}").headers.get("Location", "/") in ("/", "/report/7")


@pytest.mark.parametrize(
    "path",
    [
        "/login/alice?next=/%0d%0aSet-Cookie:%20stolen=1",
        "/login/alice?next=/x%0d%0a%0d%0a<script>alert(1)</script>",
        "/report/%0d%0aSet-Cookie:%20stolen=1",
        "/report/7?q=%0d%0aSet-Cookie:%20stolen=1",
        "/report/%E5%98%8A%E5%98%8DSet-Cookie:stolen=1",
        "/old-report%0d%0aSet-Cookie:%20stolen=1",
        "/login/al%0d%0aSet-Cookie:%20stolen=1",
        "/_dash-quart-ws/page.js%0d%0aSet-Cookie:%20stolen=1",
    ],
)
def test_no_header_is_injected(site: Target, path: str) -> None:
    answer = speak(site, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0]
    assert re.match(rb"HTTP/1.1 \d{3}", head)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not re.search(rb"^set-cookie: stolen", head, re.MULTILINE | re.IGNORECASE)
    assert b"<script>alert" not in answer


@pytest.mark.parametrize(
    "line",
    [
        "Host: 127.0.0.1\rSet-Cookie: stolen=1",
        "Host: 127.0.0.1\n\nGET /me HTTP/1.1",
        "Host: 127.0.0.1\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Prefix: //evil.test\r\nX-Forwarded-Proto: gopher",
        "Host: evil.test",
        "Host: evil.test/path?x#",
        "Host: 127.0.0.1@evil.test",
        'Host: "><script>alert(1)</script>',
        "Host: ",
        "Host: 127.0.0.1:99999",
        "Host: [::1",
        "Host: \xff\xfe",
        "Host: 127.0.0.1\r\nForwarded: host=evil.test",
        "Host: 127.0.0.1\r\nX-Original-URL: /login\r\nX-Rewrite-URL: /login",
    ],
)
def test_whatever_the_host_is_a_redirect_stays_a_path_of_this_server(site: Target, line: str) -> None:
    for path in ("/", "/report/7", "/old-report", "/team/alpha/board", "//report//7"):
        answer = speak(site, f"GET {path} HTTP/1.1\r\n{line}\r\nConnection: close\r\n\r\n")
        status = int(answer.split()[1])
        assert status in (302, 301, 400, 404), answer
        for location in re.findall(rb"^location: (.*)\r$", answer, re.MULTILINE):
            assert re.match(rb"/login\?next=/", location), location
        assert b"evil.test" not in answer.replace(b"next=/", b"")
        assert not any(text.encode() in answer for text in (*SECRET_TEXTS, "<script>alert", "stolen"))


def test_a_request_line_with_another_host_in_it_changes_nothing(site: Target, alice: str) -> None:
    for uri in ("http://evil.test/report/7", "https://evil.test:1/report/7", "http://user@evil.test/report/7"):
        answer = speak(site, f"GET {uri} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert re.search(rb"^location: /login\?next=/report/7\r$", answer, re.MULTILINE), answer
    with_cookie = f"GET http://evil.test/me HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {alice}\r\nConnection: close\r\n\r\n"
    assert b'"user":"alice"' in speak(site, with_cookie)


def test_two_hosts_are_refused(site: Target) -> None:
    answer = speak(site, "GET /me HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == b"400"


XSS = "\"'></script><script>alert(1)</script>"


@pytest.mark.parametrize(
    "path", ["/user/{}/public?x={}", "/status?x={}", "/login?next=/{}", "/{}", "/_dash-quart-ws/{}"]
)
def test_no_page_echoes_a_script(site: Target, path: str) -> None:
    reply = site.request("GET", path.replace("{}", quote(XSS, safe="")), headers={"Referer": XSS, "User-Agent": XSS})
    assert b"<script>alert" not in reply.body


# ------------------------------------------------------------------------------------------------ websockets, hosts


def foreign(target: Target) -> list[str]:
    here = f"127.0.0.1:{target.port}"
    return [
        "null", "", f"http://127.0.0.1:{target.port + 1}", "http://127.0.0.1", f"https://{here}", f"ws://{here}",
        f"http://{here}.evil.test", f"http://127.0.0.1.evil.test:{target.port}", f"http://evil.test/{here}",
        f"http://evil.test?{here}", f"http://evil.test#{here}", f"http://{here}@evil.test", f"http://evil.test@{here}",
        f"http://127.0.0.1.:{target.port}", f"http://xn--127:{target.port}", f"http://127。0。0。1:{target.port}",
        f"http://localhost:{target.port}", f"http://127.1:{target.port}", f"http://2130706433:{target.port}",
        f"http://[::ffff:127.0.0.1]:{target.port}", f"http://{here}/", f"http://{here} ", f"http://{here}\\", f"http:{here}",
        f"//{here}", here, f"http://{here}, http://evil.test", f"http://evil.test, http://{here}", f"http://{here}:80",
        f"http://127.0.0.1:0{target.port}0", "file://", "chrome-extension://abcdefgh", f"http://{here}%00.evil.test",
        f"http://127.0.0.1:{target.port + 65536}", f"javascript://{here}",
    ]  # fmt: skip


def test_no_other_site_opens_a_websocket_with_the_users_cookie(site: Target, alice: str) -> None:
    host = f"Host: 127.0.0.1:{site.port}"
    own = f"Origin: {site.origin}"
    assert handshake(site, cookie=alice, headers=(host, own)) == 101
    assert handshake(site, cookie=alice, headers=(host, own.replace("http://", "HTTP://"))) == 101
    opened = [
        origin
        for origin in foreign(site)
        if handshake(site, cookie=alice, headers=(host, f"Origin: {origin}".encode().decode("latin1"))) == 101
        and origin.strip() != site.origin  # a server drops the space behind a header
    ]
    assert opened == []
    for headers in (
        (host,),
        (host, own, own),
        (host, own, "Origin: http://evil.test"),
        (host, "Origin: http://evil.test", own),
        (host, "Sec-WebSocket-Origin: " + site.origin),
        ("Host: evil.test", own),
        (host, "Origin: http://evil.test", "X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: http"),
        (host, "Origin: http://evil.test", "Forwarded: host=evil.test;proto=http"),
    ):
        assert handshake(site, cookie=alice, headers=headers) in (400, 403), headers


@pytest.mark.parametrize(
    "path", ["/_dash-ws-callback/", "//_dash-ws-callback", "/_DASH-WS-CALLBACK", "/x/../_dash-ws-callback",
             "/./_dash-ws-callback",
             "/_dash-ws-callback%00", "/_dash-ws-callback;x", "/", "/_dash-update-component", "/_mcp"]
)  # fmt: skip
def test_another_spelling_of_the_sockets_path_is_no_way_past_the_handshake(site: Target, alice: str, path: str) -> None:
    headers = (f"Host: 127.0.0.1:{site.port}", "Origin: http://evil.test")
    assert handshake(site, cookie=alice, path=path, headers=headers) in (400, 403, 404, 405)
    assert handshake(site, path=path, headers=(headers[0], f"Origin: {site.origin}")) in (101, 400, 403, 404, 405)
    assert site.users().count(None) == 0


@pytest.fixture(scope="module")
def named(folder: Path) -> Iterator[Target]:
    """Goes by its address and by one name below which it has others."""
    with attacked(folder, ALLOWED_HOSTS="127.0.0.1,.dash.test") as target:
        yield target


REBOUND = (
    "evil.test", "evil.test:80", "127.0.0.1.evil.test", "evil-dash.test", "dash.test.evil.test", "127.0.0.1@evil.test",
    "evil.test@127.0.0.1", "localhost", "127.0.0.1, evil.test", "[::1]", "127.1", "", "evil.test#127.0.0.1",
    "evil.test/127.0.0.1",    "xdash.test", "127.0.0.1\tevil.test",
)  # fmt: skip


@pytest.mark.parametrize("host", REBOUND)
def test_under_a_name_that_is_not_its_own_the_server_answers_nothing(named: Target, host: str) -> None:
    alice = named.login("alice")
    for path in (
        "/",
        "/me",
        "/_dash-layout",
        "/logout",
        "/login/bob",
        "/assets/style.css",
        "/_favicon.ico",
        "//",
        "/nothing",
    ):
        answer = speak(named, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {alice}\r\nConnection: close\r\n\r\n")
        assert answer.split()[1] in (b"421", b"400"), (path, answer)
        assert b"set-cookie" not in answer.lower()
    headers = (f"Host: {host}", f"Origin: http://{host}")
    assert handshake(named, cookie=alice, headers=headers) in (421, 400)
    assert handshake(named, headers=headers) in (421, 400)
    assert named.me(alice)["user"] == "alice"
    assert speak(named, "GET /me HTTP/1.1\r\nHost: a.dash.test:123\r\nConnection: close\r\n\r\n").split()[1] == b"200"


SMUGGLED = "GET /login/mallory HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 4\r\nContent-Length: 40",
        "Content-Length: 4, 40",
        "Content-Length: +4",
        "Content-Length: -1",
        "Content-Length: 0x4",
        "Content-Length: 4\r\nTransfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: x",
        "X\r\nContent-Length: 4",
    ],
)
def test_a_request_with_two_ends_is_refused(site: Target, head: str) -> None:
    answer = speak(site, f"POST {CALLBACK} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n\r\n0\r\n\r\n{SMUGGLED}")
    assert answer == b"" or answer.split()[1] in (b"400", b"501"), answer
    assert b"mallory" not in answer


def test_with_both_lengths_the_chunks_count_and_what_follows_is_a_request_of_its_own(site: Target, alice: str) -> None:
    both = "Content-Length: 4\r\nTransfer-Encoding: chunked"
    # The cookie of the first one must not go to the second.
    first = f"POST {CALLBACK} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {alice}\r\n{both}\r\n\r\n0\r\n\r\n"
    answer = speak(site, f"{first}GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"alice" not in answer
    assert answer.count(b"HTTP/1.1 ") <= 2


# --------------------------------------------------------------------------------------------- who may call what


TRADE = payload("traders.children")


async def test_a_user_without_the_group_gets_in_by_no_way(site: Target, bob: str) -> None:
    token, ran = site.page_token(bob), site.ran()
    assert b"not for you" in site.post(TRADE, bob, token).body
    assert b"not for you" in site.post(TRADE, bob).body
    assert b"not for you" in site.request("POST", "/api/trade", cookie=bob, body={"clicks": 1}).body
    for arguments in ({"clicks": 1, "groups": ["traders"]}, {"self": 1}, [1], "x", {"": 1}, {"__class__": 1}, None, 1):
        reply = site.request(
            "POST", "/api/trade", cookie=bob, body=json.dumps(arguments), headers={"Content-Type": "application/json"}
        )
        assert b"traded" not in reply.body
        assert b"Traceback" not in reply.body
        assert b"TypeError" not in reply.body
    for name in ("trade", "manage"):
        calling = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": name, "arguments": {"clicks": 1}},
        }
        reply = site.request("POST", "/_mcp", cookie=bob, body=calling)
        assert b"traded" not in reply.body
        assert b"managed" not in reply.body
    async with site.connect(bob) as connection:
        assert result(await call(connection, "traders.children")) == "not for you"
        for changed in (
            {"outputs": {"id": "who", "property": "children"}},
            {"inputs": [], "state": [{"id": "go", "property": "n_clicks", "value": 1}]},
            {"user": "alice", "groups": ["traders"], "_dash_quart_ws_rights": ["traders"]},
            {"dash_quart_ws_rights": ["traders"], "cookies": {COOKIE: "x"}},
        ):
            await connection.send(frame({**TRADE, **changed}, "2"))
            assert "traded" not in json.dumps(await next_message(connection, "callback_response"))
    assert site.ran() == ran


def test_a_user_cannot_choose_their_groups_by_a_header_or_an_argument(site: Target, bob: str) -> None:
    query = "&groups=traders&user=alice&_dash_quart_ws_rights=traders"
    headers = {"X-Forwarded-User": "alice", "Remote-User": "alice", "X-User": "alice", "Authorization": "Bearer alice"}
    reply = site.request("POST", f"{CALLBACK}?{query}", cookie=bob, body=TRADE, headers=headers)
    assert b"not for you" in reply.body


@pytest.mark.parametrize(
    "method", ["initialize", "tools/list", "tools/call", "resources/list", "resources/read", "tasks/get", "x"]
)
def test_mcp_is_not_for_nobody(site: Target, method: str) -> None:
    for http in ("POST", "GET", "DELETE", "HEAD", "OPTIONS"):
        reply = site.request(http, "/_mcp", body={"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
        assert reply.status == (200 if http == "OPTIONS" else 401)
        assert b"jsonrpc" not in reply.body


def test_after_alice_has_been_everywhere_nobody_finds_anything_of_hers(site: Target, alice: str) -> None:
    paths = {re.sub("<.*?>", "x", rule["rule"]) for rule in site.get("/rules").json if not rule["websocket"]}
    paths = {path for path in paths if not path.startswith(("/login/", "/logout", "/revoke/", "/fail/", "/groups/"))}
    paths |= {"/", "/report/7", "/report/7/x.css", "/report/7.js", "/team/alpha/board", "/_dash-layout?x.css"}
    kept = {}
    for path in sorted(paths):
        reply = site.get(path, alice)
        kept[path] = reply.headers.get("Cache-Control", "")
        if b"alice" in reply.body or any(text.encode() in reply.body for text in SECRET_TEXTS):
            assert "no-store" in kept[path] or path in (
                "/me",
                "/state",
                "/rules",
                "/sessions/x",
                "/account",
                "/answers",
                "/witnessed",
            ), path
    site.post(routing("/report/7"), alice)
    for path in sorted(paths - {"/state", "/answers", "/witnessed", "/rules", "/sessions/x"}):
        for headers in ({}, {"If-None-Match": "*"}, {"X-Forwarded-For": "127.0.0.1"}, {"Range": "bytes=0-"}):
            body = site.request("GET", path, headers=headers).body
            assert b"alice" not in body, path
            assert not any(text.encode() in body for text in SECRET_TEXTS), path


@pytest.mark.parametrize(
    "path",
    ["/_dash-quart-ws/..%2f..%2fconfig.py", "/_dash-quart-ws/%2e%2e/backend.py", "/_dash-quart-ws/page.js",
     "/_dash-component-suites/dash/..%2f..%2f..%2fetc/passwd", "/_dash-component-suites/dash_quart_ws/config.py",
     "/_dash-component-suites/os/path", "/assets/..%2f..%2fapps/guarded.py", "/assets/%2e%2e/guarded.py",
     "/assets/....//guarded.py", "/_dash-component-suites/../../me", "/_favicon.ico/../_dash-layout"],
)  # fmt: skip
def test_no_open_path_leads_out_of_its_folder(site: Target, path: str) -> None:
    answer = speak(site, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert b"import " not in answer
    assert b"root:" not in answer
    assert not any(text.encode() in answer for text in SECRET_TEXTS)


# --------------------------------------------------------------------------------------------------- errors


async def test_what_a_callback_raises_is_told_to_nobody_but_the_log(site: Target, alice: str) -> None:
    async with site.connect(alice) as connection:
        answer = await call(connection, "broken.children", MARK[:3])
    over_http = site.post(payload("broken.children", "x"), alice)
    assert answer["status"] == "error"
    assert over_http.status == 500
    for text in (json.dumps(answer), over_http.body.decode()):
        assert "hunter2" not in text
        assert "Traceback" not in text


def test_what_a_tool_of_mcp_raises_is_told_to_nobody_but_the_log(site: Target, alice: str) -> None:
    calling = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "broken", "arguments": {"value": "x"}},
    }
    reply = site.request("POST", "/_mcp", cookie=alice, body=calling)
    assert b"hunter2" not in reply.body


PUBLIC_PATH_WITH_A_NEWLINE = "/user/a\nb/public"


async def test_a_path_with_a_line_break_costs_nobody_the_connection(site: Target) -> None:
    for pathname in (PUBLIC_PATH_WITH_A_NEWLINE, "/user/\n/public", "/user/a\r\n\u2028/public"):
        before = len(site.log)
        async with site.connect() as connection:
            await connection.send(frame(routing(pathname)))
            assert (await next_message(connection))["type"] == "callback_response"
            assert result(await call(connection, "answer.children", request_id="2")) == "None asked 1"
        assert "Traceback" not in site.log[before:]


def test_a_path_with_a_line_break_is_no_error_of_the_server(site: Target) -> None:
    before = len(site.log)
    assert site.post(routing(PUBLIC_PATH_WITH_A_NEWLINE)).status < 500
    assert "Traceback" not in site.log[before:]


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    [{}],
    {"id": {}},
    [None],
    {"a": [{}]},
    [[[{}]]],
)
FIELDS = ("output", "outputs", "inputs", "changedPropIds", "state", "parsedChangedPropsIds", "endId")


@pytest.mark.parametrize("who", ["nobody", "bob"])
async def test_no_odd_message_costs_the_connection(site: Target, bob: str, who: str) -> None:
    cookie = bob if who == "bob" else None
    good = "who.children" if cookie else "answer.children"
    bases = [payload(good), routing("/status"), payload("unknown.children")]
    odd = [{**base, field: value} for base in bases for field in FIELDS for value in ODD]
    odd += [routing(value) for value in ODD] + [routing("/status", value) for value in ODD]
    async with site.connect(cookie) as connection:
        before = len(site.log)
        for number, one in enumerate(odd):
            await connection.send(frame(one, f"odd-{number}"))
        assert (await call(connection, good, request_id="good"))["status"] == "ok"
        for value in ODD:
            await connection.send(
                json.dumps({"type": value, "requestId": value, "rendererId": value, "payload": value})
            )
            await connection.send(json.dumps(value))
        assert (await call(connection, good, request_id="again"))["status"] == "ok"
    assert "Exception on websocket" not in site.log[before:]


# ------------------------------------------------------------------------------------------------- floods, fairness


async def test_five_thousand_bad_messages_close_that_connection_and_no_other(
    site: Target, alice: str, bob: str
) -> None:
    async with site.connect(alice) as bystander, site.connect(bob) as own_other, site.connect(bob) as flooder:
        before = len(site.log)
        with suppress(websockets.ConnectionClosed):
            for _ in range(5_000):
                await flooder.send("{not json")
        code, reason = await closed(flooder)
        assert (code, reason) == (DASH_WORKER_STOP, "too many bad messages")
        assert result(await call(bystander, "who.children")) == "alice 1"
        assert result(await call(own_other, "who.children")) == "bob 1"
        log = await asyncio.to_thread(lambda: site.log[before:])
        assert log.count("\n") < 30
        assert log.count("security:abuse ") == 1


async def test_a_thousand_bad_messages_in_one_frame_are_no_way_around_the_count(site: Target, bob: str) -> None:
    async with site.connect(bob, subprotocols=[SUBPROTOCOL]) as flooder:
        await flooder.send("[" + ",".join(["1"] * 1_000) + "]")
        assert (await closed(flooder))[0] == 4505


async def test_one_address_opens_only_so_many_sockets_without_a_login(site: Target, alice: str) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(site.connect()) for _ in range(12)]
        codes = [(await closed(one))[0] for one in opened[4:]]
        assert codes == [4105] * 8
        assert result(await call(opened[0], "answer.children")) == "None asked 1"
        async with site.connect(alice) as user:  # who is logged in is not concerned
            assert result(await call(user, "who.children")) == "alice 1"
    await await_for(lambda: None not in site.users(), what="the anonymous connections to go")


async def test_a_made_up_proxy_header_does_not_lift_that_limit_for_others(site: Target, alice: str) -> None:
    """Somebody is here from another address: so there is no proxy that gives everybody the same."""
    async with AsyncExitStack() as stack:
        elsewhere = {"local_addr": ("127.0.0.2", 0)}
        await stack.enter_async_context(site.connect(alice, **elsewhere))
        headers = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.2"}
        opened = [await stack.enter_async_context(site.connect(additional_headers=headers)) for _ in range(7)]
        assert [(await closed(one))[0] for one in opened[4:]] == [4105] * 3
    await await_for(lambda: None not in site.users(), what="the anonymous connections to go")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"type":"callback_request","requestId":"1","payload":{"output":"x","inputs":' + "[" * 5_000 + "]" * 5_000 + "}}",
        '{"type":"heartbeat","x":' + "9" * 1_000_000 + "}",
        '{"type":"heartbeat","x":"' + "\\ud800" * 100_000 + '"}',
        json.dumps({"type": "heartbeat", **{f"k{number}": number for number in range(100_000)}}),
        json.dumps(frame(payload("answer.children", "x" * 5_000_000))),
    ],
    ids=["arrays", "objects", "inside", "digits", "surrogates", "keys", "a string"],
)  # fmt: skip
async def test_a_huge_or_deep_message_delays_nobody(site: Target, alice: str, text: str) -> None:
    async with site.connect(alice) as bystander, site.connect() as attacker:
        await attacker.send(text)
        began = time.monotonic()
        assert result(await call(bystander, "who.children")) == "alice 1"
        assert time.monotonic() - began < 3
        await attacker.send(request_message("answer.children", request_id="after"))
        async with asyncio.timeout(10):
            async for message in messages(attacker):
                if message.get("requestId") == "after":
                    assert message["payload"]["status"] == "ok"
                    break


async def answered_soon(target: Target, cookie: str) -> None:
    """Both kinds of callback, over both transports, within a few seconds."""
    began = time.monotonic()
    async with asyncio.timeout(8), target.connect(cookie) as connection:
        assert result(await call(connection, "who.children")) == "alice 1"
        assert result(await call(connection, "plain.children", request_id="2")) == "alice 1"
        assert (await asyncio.to_thread(target.post, payload("plain.children"), cookie)).status == 200
    assert time.monotonic() - began < 5


async def test_a_user_who_blocks_threads_delays_no_other(site: Target, alice: str) -> None:
    async with AsyncExitStack() as stack:
        for number in range(4):
            mallory = site.login("mallory")  # another session each time: it is the user who counts
            connection = await stack.enter_async_context(site.connect(mallory))
            for request in range(20):
                await connection.send(request_message("slow.children", 9, f"{number}-{request}"))
        posts = [
            asyncio.create_task(asyncio.to_thread(site.post, payload("slow.children", 9), mallory)) for _ in range(2)
        ]
        await answered_soon(site, alice)
        await site.aget("/revoke/mallory")
        assert {reply.status for reply in await asyncio.gather(*posts)} == {401}


async def test_two_hundred_sockets_of_one_user_delay_no_other(site: Target, alice: str) -> None:
    mallory = site.login("mallory")
    with ExitStack() as stack:
        for number in range(200):
            one = stack.enter_context(RawSocket(site, mallory))
            one.request("who.children", request_id=str(number))
            one.send(TEXT, b"{bad")
        await answered_soon(site, alice)
        await site.aget("/revoke/mallory")
        await await_for(lambda: "mallory" not in site.users(), what="all of them to be closed")


async def test_a_user_who_never_reads_delays_no_other(site: Target, alice: str) -> None:
    mallory = site.login("mallory")
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(RawSocket(site, mallory, receive_buffer=4096)).request("torrent.children")
        await answered_soon(site, alice)
        await site.aget("/revoke/mallory")


async def test_a_tool_of_mcp_that_blocks_delays_no_other(site: Target, alice: str) -> None:
    mallory = site.login("mallory")
    calling = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "slow", "arguments": {"seconds": 6}},
    }
    blocking = asyncio.create_task(asyncio.to_thread(site.request, "POST", "/_mcp", cookie=mallory, body=calling))
    try:
        async with asyncio.timeout(0.5):
            await asyncio.shield(blocking)
    except TimeoutError:
        await answered_soon(site, alice)
    finally:
        await blocking


def test_a_request_that_is_never_finished_delays_no_other(site: Target, alice: str) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            one = stack.enter_context(closing(socket.create_connection(("127.0.0.1", site.port))))
            one.sendall(
                b"POST /_dash-update-component HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 99\r\n\r\n{"
            )
        assert site.post(WHO, alice).status == 200


def test_a_cookie_of_many_kilobytes_is_nobodys(site: Target) -> None:
    for cookie in (
        f"{COOKIE}={'a' * 12_000}",
        "; ".join(f"{COOKIE}={number}" for number in range(500)),
        f"{COOKIE}=;;;=;\x7f",
    ):
        assert site.me(cookie)["user"] is None


def test_of_two_cookies_one_counts_and_it_is_the_same_one_everywhere(site: Target, alice: str, bob: str) -> None:
    """Whoever plants a second cookie gets a page and its callbacks apart: no work goes from one to the other."""
    tossed = f"{bob}; {alice}"
    assert site.me(tossed)["user"] == "bob"
    token, ran = site.page_token(alice), site.ran()
    assert site.post(WHO, tossed, token).status == 409
    with RawSocket(site, tossed) as connection:
        connection.send(TEXT, frame({**WHO, "endId": token}).encode())
        assert connection.frame().json["payload"] == {"status": "error", "message": "stale page"}
    assert site.ran() == ran


def test_closing_is_final_a_close_frame_of_the_client_in_between_changes_nothing(site: Target, alice: str) -> None:
    with RawSocket(site, alice) as thief:
        thief.send(CLOSE, b"\x03\xe8")
        with suppress(ConnectionError):
            thief.request("who.children", request_id="late")
        ran = site.ran()
        assert [one for one in thief.frames() if one.opcode == TEXT] == []
    assert site.ran() == ran


# -------------------------------------------------------------------------------------------------- background jobs


@pytest.fixture(scope="module")
def jobs(folder: Path) -> Iterator[Target]:
    """With a real diskcache behind its background jobs."""
    (folder / "jobs").mkdir()
    with attacked(folder, JOBS=str(folder / "jobs")) as target:
        yield target


def start(target: Target, cookie: str, output: str, value: Any, token: str | None) -> dict[str, str]:
    reply = target.post(payload(output, value), cookie, token)
    assert reply.status == 200, reply
    return {"cacheKey": reply.json["cacheKey"], "job": reply.json["job"]}


def poll(
    target: Target, cookie: str | None, output: str, value: Any, token: str | None, handles: dict[str, str]
) -> Any:
    query = "&".join(f"{name}={quote(text)}" for name, text in handles.items())
    query += "" if token is None else f"&endId={quote(token)}"
    return target.request("POST", f"{CALLBACK}?{query}", cookie=cookie, body=payload(output, value))


def finished(target: Target, handles: dict[str, str], folder: Path) -> None:
    """Wait until the job has left its result, without asking for it."""
    from diskcache import Cache

    key = handles["cacheKey"].partition("~")[0]
    with Cache(str(folder / "jobs")) as cache:
        wait_for(lambda: key in cache, 40, "the job to be done")


def process_of(handles: dict[str, str]) -> int:
    return int(handles["job"].partition(".")[0])


def is_running(pid: int) -> bool:
    from pathlib import Path

    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    return False


def test_nobody_polls_or_cancels_another_users_job_with_its_handles(jobs: Target, folder: Path) -> None:
    alice, bob = jobs.login("alice"), jobs.login("bob")
    hers, his = jobs.page_token(alice), jobs.page_token(bob)
    handles = start(jobs, alice, "long.children", 30, hers)
    killing = {**handles, "oldJob": handles["job"], "cancelJob": handles["job"]}
    assert poll(jobs, bob, "long.children", 30, hers, killing).status == 409
    assert poll(jobs, None, "long.children", 30, hers, killing).status == 401
    assert poll(jobs, None, "long.children", 30, None, killing).status == 401
    for token in (his, None):
        reply = poll(jobs, bob, "long.children", 30, token, killing)
        assert b"figures" not in reply.body
    assert is_running(process_of(handles))
    poll(jobs, alice, "long.children", 30, hers, {**handles, "oldJob": handles["job"]})
    wait_for(lambda: not is_running(process_of(handles)), 10, "her own word to end it")


def test_a_job_of_the_same_kind_does_not_give_away_another_users_result(jobs: Target, folder: Path) -> None:
    alice, bob = jobs.login("alice"), jobs.login("bob")
    his = jobs.page_token(bob)
    finished(jobs, start(jobs, alice, "job.children", 4711, jobs.page_token(alice)), folder)
    handles = start(jobs, bob, "job.children", 4711, his)  # the same question; he is no trader
    seen = b""

    def answered() -> bool:
        nonlocal seen
        reply = poll(jobs, bob, "job.children", 4711, his, handles)
        seen += reply.body
        return b'"response"' in reply.body

    wait_for(answered, 40, "an answer")
    assert b"the job's result" not in seen


def test_a_job_of_the_same_kind_does_not_take_another_users_result_away(jobs: Target, folder: Path) -> None:
    jobs.get("/groups/dave/traders")
    alice, dave = jobs.login("alice"), jobs.login("dave")
    hers, his = jobs.page_token(alice), jobs.page_token(dave)
    first = start(jobs, alice, "job.children", 4712, hers)
    finished(jobs, first, folder)
    second = start(jobs, dave, "job.children", 4712, his)  # the same question, and he may ask it
    wait_for(lambda: b'"response"' in poll(jobs, dave, "job.children", 4712, his, second).body, 40, "his own result")
    assert b"the job's result 4712" in poll(jobs, alice, "job.children", 4712, hers, first).body


def test_a_job_ends_with_the_session_that_asked_for_it(jobs: Target) -> None:
    alice = jobs.login("alice")
    handles = start(jobs, alice, "long.children", 31, jobs.page_token(alice))
    assert is_running(process_of(handles))
    jobs.get("/logout", alice)
    assert poll(jobs, alice, "long.children", 31, None, handles).status == 401
    wait_for(lambda: not is_running(process_of(handles)), 10, "the job to end")


def test_scripts_do_not_poll_one_anothers_jobs(jobs: Target, folder: Path) -> None:
    """They have no page, so their handles are bound to none."""
    alice, bob = jobs.login("alice"), jobs.login("bob")
    handles = start(jobs, alice, "job.children", 4713, None)
    finished(jobs, handles, folder)
    assert b"the job's result" not in poll(jobs, bob, "job.children", 4713, None, handles).body


def test_mcp_does_not_give_another_users_task_away(jobs: Target, folder: Path) -> None:
    alice, bob = jobs.login("alice"), jobs.login("bob")

    def ask(cookie: str, method: str, **params: Any) -> Any:
        return jobs.request(
            "POST", "/_mcp", cookie=cookie, body={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        )

    begun = ask(alice, "tools/call", name="job", arguments={"clicks": 4714}, task={})
    found = re.search(r"job:[0-9a-f.]+~[0-9a-f]+:[^~\"]+~[0-9a-f]+:\d+", begun.body.decode())
    assert found is not None, begun.body
    _, job, rest = found[0].split(":", 2)
    finished(jobs, {"cacheKey": rest, "job": job}, folder)
    assert b"the job's result" not in ask(bob, "tasks/result", taskId=found[0]).body
    assert b"completed" not in ask(bob, "tasks/get", taskId=found[0]).body


# ------------------------------------------------------------------------------------------------- log injection

INJECTED = "x\r\nWARNING:dash_quart_ws.security:end user='alice' by='root'\x1b[2J\x00\u2028\u202e\u0085 the end"


@pytest.fixture(scope="module")
def logged(folder: Path) -> Iterator[Target]:
    """One whose log nobody else writes to, behind a proxy that is told of."""
    with attacked(folder, ALLOWED_HOSTS="127.0.0.1", ROOT_PROXY="1") as target:
        wait_for(
            lambda: "Running on" in target.log, what="the server's own line, which comes after it has begun to answer"
        )
        yield target


def lines_after(target: Target, act: Any, event: str | None) -> list[str]:
    before = len(target.log)
    act()
    if event is not None:
        wait_for(lambda: event in target.log[before:], what=f"the line {event!r}")
    target.get("/healthz")  # a whole round trip later the rest is there
    return target.log[before:].splitlines()


def over_socket(target: Target, *texts: str, cookie: str | None = None) -> None:
    with RawSocket(target, cookie) as connection:
        for text in texts:
            connection.send(TEXT, text.encode("utf-8", "surrogatepass"))
            connection.frame()


def long_host(text: str) -> str:
    """A name with labels that are no longer than they may be."""
    return ".".join(text[start : start + 60] for start in range(0, len(text), 60))


def log_attacks(target: Target, text: str) -> dict[str, tuple[Any, str]]:
    """What is done with the text, and the event that it gives."""
    header = re.sub(r"[\r\n\x00]", " ", text).encode().decode("latin1")
    unprintable = frame(payload(f"{text}.children"))

    def asks(*headers: str) -> bytes:
        return speak(target, "\r\n".join(["GET /login/a HTTP/1.1", *headers, "Connection: close", "", ""]))

    return {
        "user name": (lambda: target.get(f"/login/{quote(text, safe='')}"), "security:login "),
        "user name of the page": (lambda: target.post(signing_in(text, text[::-1])), "security:login "),
        "banned user": (lambda: target.get(f"/revoke/{quote(text, safe='')}"), "security:end "),
        "next": (lambda: target.get(f"/login/a?next={quote('//' + text, safe='')}"), "security:unsafe-next "),
        "next of the page": (
            lambda: target.post(signing_in("a", "a", "?next=" + quote("//" + text))), "security:unsafe-next "),
        "output over http": (lambda: target.post(payload(f"{text}.children")), "security:deny "),
        "output over the socket": (lambda: over_socket(target, unprintable), "security:deny "),
        "output of a user": (lambda: over_socket(target, unprintable, cookie=target.login("a")), "bad message "),
        "type": (lambda: over_socket(target, json.dumps({"type": text})), "bad message "),
        "request id": (lambda: over_socket(target, frame(payload("x.y"), text)), "bad message "),
        "renderer id": (lambda: over_socket(target, frame(payload("x.y"), "1", text)), "bad message "),
        "page token": (lambda: over_socket(target, frame({**payload("x.y"), "endId": text})), "stale-page "),
        "path": (lambda: target.get(f"/report/{quote(text, safe='')}"), None),
        "path of a bundle": (lambda: target.get(f"/_dash-component-suites/{quote(text, safe='')}/x.js"), None),
        "bundle": (lambda: target.get(f"/_dash-component-suites/dash/{quote(text, safe='')}"), None),
        "path of a public page": (lambda: target.get(f"/user/{quote(text, safe='')}/public"), None),
        "origin": (
            lambda: handshake(target, headers=(f"Host: 127.0.0.1:{target.port}", f"Origin: {header}")), "security:refuse "),
        "host": (lambda: asks(f"Host: {long_host(header)}"), "security:foreign-host "),
        "user agent": (lambda: asks("Host: 127.0.0.1", f"User-Agent: {header}"), "security:login "),
        "address": (lambda: asks("Host: 127.0.0.1", f"X-Forwarded-For: {header}"), "security:login "),
    }  # fmt: skip


LOG_ATTACKS = (
    "user name", "user name of the page", "banned user", "next", "next of the page", "output over http",
    "output over the socket", "output of a user", "type", "request id", "renderer id", "page token", "path",
    "path of a bundle", "bundle",
    "path of a public page", "origin", "host", "user agent", "address",
)  # fmt: skip
HEADERS = (
    *("origin", "host", "user agent", "address", "user name", "banned user", "next"),
    *(one for one in LOG_ATTACKS if "path" in one),
    "bundle",
)
LONGEST_LINE = 700


@pytest.mark.parametrize("where", LOG_ATTACKS)
def test_whatever_a_client_says_is_one_line_in_the_log(logged: Target, where: str) -> None:
    act, event = log_attacks(logged, INJECTED)[where]
    lines = lines_after(logged, act, event)
    assert all(re.match(r"(INFO|WARNING|ERROR):[\w.]+:", line) for line in lines), lines
    assert not [line for line in lines if line.startswith("WARNING:dash_quart_ws.security:end user='alice' by='root'")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", "".join(lines))
    if event is not None:
        assert len([line for line in lines if event in line]) == 1, lines


@pytest.mark.parametrize("where", LOG_ATTACKS)
def test_whatever_a_client_says_is_cut_in_the_log(logged: Target, where: str) -> None:
    text = "A" * (900 if where in HEADERS else 1_000_000)
    act, event = log_attacks(logged, text)[where]
    lines = lines_after(logged, act, event)
    assert max(map(len, lines), default=0) < LONGEST_LINE, lines[0][:200]
    assert sum("A" * 200 in line for line in lines) == 0


@pytest.mark.parametrize("where", ["user name", "output over http", "origin", "next", "address", "host"])
def test_no_client_writes_a_field_of_its_own_into_a_line_of_the_log(logged: Target, where: str) -> None:
    text = "x' session=forged remote=6.6.6.6 \" user=root \\"
    act, event = log_attacks(logged, text)[where]
    (line,) = (line for line in lines_after(logged, act, event) if event in line)
    fields = re.findall(r"""(\w+)=("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\S*)""", line)
    assert "forged" not in dict(fields).get("session", "")
    assert [value for name, value in fields if name == "remote"] in (
        ["127.0.0.1"],
        ["'127.0.0.1'"],
    ) or where == "address"
    assert not [value for name, value in fields if value in ("forged", "6.6.6.6", "root")], line


def test_a_mcp_method_is_one_line_in_the_log(logged: Target) -> None:
    alice = logged.login("alice")
    body = {"jsonrpc": "2.0", "id": 1, "method": INJECTED, "params": {}}
    lines = lines_after(logged, lambda: logged.request("POST", "/_mcp", cookie=alice, body=body), None)
    assert not [line for line in lines if line.startswith("WARNING:dash_quart_ws.security:end user='alice'")]


def test_the_run_has_seen_secrets_to_look_for(site: Target) -> None:
    site.login("alice")
    kinds = set(registry.secrets.values())
    assert {"a cookie", "a cookie's signature", "a sid", "the secret key"} <= kinds
