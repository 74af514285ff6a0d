"""A whole multi-page app on a real server, walked and crawled as nobody and as the wrong user: nothing protected is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from quart_auth.extension import _AuthSerializer

from .raw import TEXT, RawSocket
from .server import Reply, Server, call, closed, messages, next_message, request_message, result, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "tests.apps.guarded:server"
SECRETS = ("the text of the home page", "the text of the report", "the text of the board", "the text of nowhere")
SERVED_TO_ALICE = ("for alice", "alice ")
"""What the app renders for alice only."""

PAGES_OUTPUT = ".._pages_content.children..._pages_store.data.."
CALLBACK = "/_dash-update-component"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")

OWN_ENDPOINTS = {
    "static", "login", "logout", "me", "set_groups", "fail", "subscribe", "revoke", "state", "rules", "account", "sessions",
}  # fmt: skip
"""Views of the test app's own: nobody's business but its own."""

OPEN = {
    "/_dash-component-suites/<string:package_name>/<path:fingerprinted_path>": "code from packages",
    "/_dash-layout": "there are public pages to show in it",
    "/_dash-dependencies": "there are public pages; it is cut down to what they need",
    "/_dash-quart-ws/<file>": "this package's own browser code",
    "/_dash-quart-ws/effects": "what a callback did to its browser, for who knows its name",
    "/_dash-quart-ws/session": "whether a page is still current",
    "/_favicon.ico": "an icon",
    "/_reload-hash": "changes with the code",
    "/assets/<path:filename>": "protect_assets is off",
    "/healthz": "the health endpoint",
    "/old-status": "redirects to a public page",
    "/api/time": "a public callback",
}
"""Every rule that nobody may have, and why. A rule that is not here has to be behind the login."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("guarded"), app=APP) as server:
        yield server


def rules_of(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/rules").json
    return [rule for rule in found if rule["endpoint"] not in OWN_ENDPOINTS]


def filled(rule: str, value: str = "x") -> str:
    return re.sub("<.*?>", value, rule)


def routing(pathname: Any, search: Any = "", **changes: Any) -> dict[str, Any]:
    """What the renderer sends when the path changes."""
    return {
        "output": PAGES_OUTPUT,
        "outputs": [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}],
        "inputs": [asked("pathname", pathname), asked("search", search)],
        "changedPropIds": ["_pages_location.pathname"],
        "state": [],
        **changes,
    }


def asked(property: str, value: Any, id: str = "_pages_location") -> dict[str, Any]:
    return {"id": id, "property": property, "value": value}


def callback(output: str, value: Any = 1) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(request_message(output, value))["payload"]
    return payload


def holds_nothing_protected(text: str | bytes) -> bool:
    text = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return not any(secret in text for secret in (*SECRETS, *SERVED_TO_ALICE))


def serve_alice(server: Server) -> str:
    """Have everything rendered for alice that can be: whatever keeps it would have it now. Her cookie."""
    cookie = server.login("alice")
    token = server.page_token(cookie)
    for path in ("/", "/report/7", "/team/alpha/board", "/_dash-layout", "/_dash-dependencies"):
        assert server.get(path, cookie).status == 200
    shown = ""
    for path in ("/", "/report/7", "/team/alpha/board"):
        reply = server.request("POST", f"{CALLBACK}?endId={token}", cookie=cookie, body=routing(path))
        assert reply.status == 200
        shown += reply.body.decode()
    assert all(secret in shown for secret in SECRETS[:3]), shown
    assert "for alice" in shown
    return cookie


# ---------------------------------------------------------------------------------------------------- URL map


def test_as_nobody_every_route_is_closed_but_those_that_somebody_has_decided_about(site: Server) -> None:
    rules = rules_of(site)
    assert {rule["rule"] for rule in rules if rule["websocket"]} == {"/_dash-ws-callback"}
    assert set(OPEN) <= {rule["rule"] for rule in rules}
    assert {"/hooked", "/_mcp", "/api/trade", "/old-report", "/", "/<path:path>"} <= {rule["rule"] for rule in rules}
    for rule in rules:
        if rule["websocket"] or rule["rule"] in OPEN:
            continue
        for method in METHODS:
            reply = site.request(method, filled(rule["rule"]))
            if method == "OPTIONS":
                assert (reply.status, reply.body) == (200, b""), rule
            elif reply.status == 302:
                assert urlsplit(reply.headers["Location"]).path == "/login", (method, rule)
            else:
                assert reply.status in (401, 405), (method, rule, reply)
                assert (reply.status == 405) <= (method not in rule["methods"]), (method, rule)


def test_what_is_open_to_nobody_tells_nobody_anything(site: Server) -> None:
    serve_alice(site)
    for rule in OPEN:
        for method in METHODS:
            reply = site.request(method, filled(rule), body={} if method == "POST" else None)
            assert holds_nothing_protected(reply.body), (method, rule)


def test_with_anothers_page_token_bob_gets_nothing_of_alices(site: Server) -> None:
    alice = serve_alice(site)
    token, bob = site.page_token(alice), site.login("bob")
    for rule in rules_of(site):
        if rule["websocket"]:
            continue
        for method in METHODS:
            body = callback("who.children") if method == "POST" else None
            reply = site.request(method, f"{filled(rule['rule'])}?endId={token}", cookie=bob, body=body)
            assert b"alice" not in reply.body, (method, rule, reply)
            if (method, rule["rule"]) == ("POST", CALLBACK):
                assert reply.status == 409
    assert site.get(f"/_dash-quart-ws/session?endId={token}", bob).status == 409
    assert site.get(f"/_dash-quart-ws/session?endId={token}", alice).status == 204
    assert site.get(f"/_dash-quart-ws/session?endId={token}").status == 401


def test_a_token_of_anothers_page_makes_no_callback_of_any_kind_run(site: Server) -> None:
    token, bob = site.page_token(site.login("alice")), site.login("bob")
    before = len(site.get("/state").json["ran"])
    for output in ("who.children", "plain.children", "answer.children", "api.children", PAGES_OUTPUT, "nothing.at-all"):
        reply = site.request("POST", f"{CALLBACK}?endId={token}", cookie=bob, body=callback(output))
        assert reply.status == 409, output
        reply = site.request("POST", f"{CALLBACK}?endId={token}", body=callback(output))
        assert reply.status == 401, output
    assert len(site.get("/state").json["ran"]) == before


# ------------------------------------------------------------------------------------------------------ crawl

PROTECTED_PATHS = (
    "/", "/report/7", "/report/none", "/report/", "/team/alpha/board", "/nowhere", "/index", "/home",
)  # fmt: skip
SPELLINGS = (
    "{}", "{}/", "//{}", "/.{}", "/status/..{}", "/status/../{}", "/status/.{}", "/status//..{}", "/login/..{}",
    "{}?endId=x", "{}#/status", "{}%00", "{}%0a", "{}%20", "{};/status", "/status%2f..{}", "/%2e{}", "/status\\..{}",
    "/user/x/public/../../..{}", "/user/..%2f..{}/public", "/user/x%0a{}/public", "/user{}/public", "/status%3f{}",
    "/old-status/..{}",
)  # fmt: skip


def test_nobody_finds_nothing_protected_at_any_spelling_of_any_path_of_any_route(site: Server) -> None:
    serve_alice(site)
    bob = site.login("bob")
    paths = {spelling.format(path) for spelling in SPELLINGS for path in PROTECTED_PATHS}
    paths |= {path.upper() for path in paths} | {path.replace("t", "%74", 1) for path in paths}
    for rule in rules_of(site):
        if not rule["websocket"] and "GET" in rule["methods"]:
            paths |= {filled(rule["rule"], path.lstrip("/")) for path in PROTECTED_PATHS}
            paths |= {f"{filled(rule['rule'])}{path}" for path in PROTECTED_PATHS}
    for path in sorted(paths):
        for cookie in (None, bob):
            reply = site.get(path, cookie)
            text = reply.body.decode("utf-8", "replace")
            if not path.startswith("/_dash-component-suites/"):  # Dash has no better answer for a package that it lacks
                assert reply.status < 500, path
            if cookie is None:
                assert holds_nothing_protected(text), path
                assert "validation_layout" not in text, path
            assert not any(secret in text for secret in SERVED_TO_ALICE), path


def test_the_index_of_a_protected_page_goes_to_the_login_and_that_of_a_public_page_holds_no_other(site: Server) -> None:
    serve_alice(site)
    for path in ("/", "/report/7", "/team/alpha/board", "/nowhere"):
        reply = site.get(path)
        assert (reply.status, reply.headers["Location"]) == (302, f"/login?next={path}")
    for path in ("/login", "/status", "/user/x/public"):
        reply = site.get(path)
        assert reply.status == 200
        assert b"_dash-config" in reply.body
        assert holds_nothing_protected(reply.body)
        assert b"validation_layout" not in reply.body


def config_of(reply: Reply) -> dict[str, Any]:
    found = re.search(rb'<script id="_dash-config"[^>]*>(.*?)</script>', reply.body, re.DOTALL)
    assert found is not None
    config: dict[str, Any] = json.loads(found[1])
    return config


def test_nobodys_page_gets_no_websocket_before_it_has_something_to_stream(site: Server) -> None:
    config = config_of(site.get("/status"))
    assert config["websocket"]["enabled"] is False
    assert config["websocket"]["url"] == "/_dash-ws-callback"
    assert config["suppress_callback_exceptions"] is True
    assert config["end_id"].startswith("nobody.")


def test_a_users_page_is_as_dash_made_it(site: Server) -> None:
    config = config_of(site.get("/", site.login("alice")))
    assert config["websocket"]["enabled"] is True
    assert config["suppress_callback_exceptions"] is False
    assert SECRETS[2] in json.dumps(config["validation_layout"])
    assert "alice" not in json.dumps(config)


def test_nobody_learns_of_public_callbacks_of_the_router_and_of_browser_code_only(site: Server) -> None:
    mine = {one["output"] for one in site.get("/_dash-dependencies", site.login("alice")).json}
    reply = site.get("/_dash-dependencies")
    assert reply.headers["Cache-Control"] == "no-store"
    shown = {one["output"]: one for one in reply.json}
    hashed = {output for output in shown if re.fullmatch("[0-9a-f]{64}", output)}
    assert len(hashed) == 1  # the stream has no output
    assert [one["property"] for output in hashed for one in shown[output]["inputs"]] == ["id"]
    named = {
        "..go-on.href...sign-in-error.children..",
        "answer.children",
        "api.children",
        PAGES_OUTPUT,
        "_pages_dummy.children",
    }
    assert set(shown) - hashed == named
    assert {"who.children", "plain.children", "traders.children"} <= mine - set(shown)


# ----------------------------------------------------------------------------------------------------- router

NOT_PUBLIC: list[Any] = [
    "/", "/report/7", "/team/alpha/board", "/nowhere", "", " ", "report/7", "//", "//report/7", "/./", "/./report/7",
    "/status/..", "/status/../", "/status/../report/7", "/status/../../report/7", "/report/7/", "/REPORT/7", "/Report/7",
    "/%72eport/7", "/report%2F7", "/status%2f..%2freport%2f7", "/status#/report/7", "/status?/report/7", "/status;",
    "/status\0", "/report/7\0", "/report/\n", "/status\n", "/status /report/7", "\\report\\7", "/status\\..\\report\\7",
    "http://127.0.0.1/status", "/user//public/x", "/user/x/public/y", "/STATUS", "/team/../status", "/\u200b",
    "/report/" + "a" * 1_000_000, None, 7, 0, True, False, 1.5, [], ["/"], ["/status"], ["/status", "/report/7"], {},
    {"pathname": "/status"}, {"value": "/status"},
]  # fmt: skip


def disguises(pathname: str) -> list[dict[str, Any]]:
    """Requests for a protected page that look like ones for a public page."""
    public, wanted = asked("pathname", "/status"), asked("pathname", pathname)
    search = asked("search", "")
    return [
        routing(pathname),
        routing("/status", inputs=[asked("search", pathname), public]),
        routing("/status", inputs=[search, public, wanted]),
        routing("/status", inputs=[wanted, public]),
        routing("/status", inputs=[public, wanted]),
        routing("/status", inputs=[public, search, wanted]),
        routing("/status", inputs=[wanted, search, public]),
        routing("/status", inputs=[public, wanted, search]),
        routing("/status", inputs=[[public], [search]]),
        routing("/status", inputs=[[wanted], public]),
        routing("/status", inputs=[[wanted, search], public]),
        routing("/status", inputs=[{**wanted, "id": "url"}, search]),
        routing("/status", inputs=[{**wanted, "property": "href"}, search]),
        routing("/status", inputs=[{**wanted, "id": ["_pages_location"]}, search]),
        routing("/status", inputs={"0": public, "1": search}),
        routing("/status", inputs={"pathname_": wanted, "search_": search}),
        routing("/status", inputs="/status"),
        routing("/status", inputs=None),
        routing("/status", inputs=[None, None]),
        routing("/status", inputs=[]),
        routing("/status", inputs=[], state=[public, search]),
        routing("/status", inputs=[], state=[wanted, search]),
        routing("/status", inputs=[public], state=[search]),
        routing("/status", inputs=[wanted], state=[search]),
        routing("/status", inputs=[{"id": "_pages_location", "property": "pathname"}, search]),
        routing("/status", output="_pages_content.children", inputs=[wanted, search]),
        routing("/status", output="_pages_store.data", inputs=[wanted, search]),
        routing("/status", output=PAGES_OUTPUT + " ", inputs=[wanted, search]),
        routing("/status", output=PAGES_OUTPUT + "@x", inputs=[wanted, search]),
        routing("/status", output="answer.children", inputs=[wanted, search]),
        routing("/status", output="who.children", inputs=[public, search]),
        {key: value for key, value in routing(pathname).items() if key != "outputs"},
    ]


SMUGGLED = [
    routing("/status", f"?pathname_={path}&pathname={path}&path=/&search_={path}") for path in ("/report/7", "/")
] + [
    routing("/status", state=[asked("pathname", "/report/7")]),
    routing("/status", state=[asked("pathname", "/report/7"), asked("search", "")]),
    routing("/status", outputs=[{"id": "report", "property": "children"}]),
    routing("/status", changedPropIds=["_pages_location.pathname", "/report/7"]),
    routing("/status", parsedChangedPropsIds=["/report/7"]),
    routing("/status", ["/report/7"]),
    routing("/status", {"pathname_": "/report/7"}),
    routing("/user/..%2f..%2freport%2f7/public"),
    routing("/user/report/7/public", "?name=/report/7"),
    routing("/status", inputs=[{**asked("pathname", "/status"), "pathname": "/report/7"}, asked("search", "")]),
]
"""Requests for a public page that carry a protected path somewhere else: they may be answered, but not with that."""


def test_over_http_the_router_gives_nobody_a_protected_page_however_it_is_asked(site: Server) -> None:
    serve_alice(site)
    public = site.request("POST", CALLBACK, body=routing("/status"))
    assert (public.status, b"the public status" in public.body) == (200, True)
    assert b"all about zoe" in site.request("POST", CALLBACK, body=routing("/user/zoe/public")).body
    token = site.page_token(path="/status")
    bodies = [*map(routing, NOT_PUBLIC), *(body for path in ("/", "/report/7") for body in disguises(path))]
    for url in (CALLBACK, f"{CALLBACK}?endId={token}"):
        for body in bodies:
            reply = site.request("POST", url, body=body)
            assert holds_nothing_protected(reply.body), str(body)[:300]
            assert reply.status == 401 or body["output"] == "answer.children", (str(body)[:300], reply)
    for body in SMUGGLED:
        assert holds_nothing_protected(site.request("POST", CALLBACK, body=body).body), body


async def asks(connection: Any, payload: dict[str, Any], id: str) -> dict[str, Any]:
    """The answer to a callback request: its message, as it came."""
    await connection.send(
        json.dumps({"type": "callback_request", "requestId": id, "rendererId": "tab", "payload": payload})
    )
    async with asyncio.timeout(10):
        async for message in messages(connection):
            if message["type"] == "error" or message.get("requestId") == id:
                found: dict[str, Any] = message
                return found
    raise AssertionError(f"the connection closed: {connection.close_code} {connection.close_reason}")


async def test_over_a_websocket_the_router_gives_nobody_a_protected_page_however_it_is_asked(site: Server) -> None:
    await asyncio.to_thread(serve_alice, site)
    number = 0
    for batch in ([*map(routing, NOT_PUBLIC)], disguises("/"), disguises("/report/7"), SMUGGLED):
        for start in range(0, len(batch), 5):
            async with site.connect() as connection:
                for payload in batch[start : start + 5]:
                    number += 1
                    answer = await asks(connection, payload, str(number))
                    assert holds_nothing_protected(json.dumps(answer)), str(payload)[:300]
                    if batch is not SMUGGLED and payload["output"] != "answer.children":
                        failed = answer["type"] == "error" or answer["payload"]["status"] == "error"
                        assert failed, (str(payload)[:300], answer)
                answer = await asks(connection, routing("/status"), "good")  # the connection lives
                assert "the public status" in json.dumps(answer)


@pytest.mark.parametrize("name", ["a\nb", "\n", "\r\n", "\u2028", "a\0b", "[", "(", "\\", "*", "?", "é", "%0a"])
async def test_a_strange_name_in_a_public_path_is_answered_like_any_other(site: Server, name: str) -> None:
    reply = site.request("POST", CALLBACK, body=routing(f"/user/{name}/public"))
    assert reply.status in (200, 401), reply
    async with site.connect() as connection:
        answer = await asks(connection, routing(f"/user/{name}/public"), "1")
        assert answer["payload"]["status"] in ("ok", "error")
        assert result(await call(connection, "answer.children")) == "None asked 1"


@pytest.mark.parametrize("first", ["alice", "nobody", "websocket"])
async def test_whoever_comes_first_nobody_sees_what_is_protected(first: str, tmp_path: Any) -> None:
    with serving(tmp_path, app=APP) as server:
        match first:
            case "alice":
                await asyncio.to_thread(serve_alice, server)
            case "nobody":
                assert (await server.aget("/status")).status == 200
            case "websocket":
                async with server.connect() as connection:
                    assert "the public status" in json.dumps(await asks(connection, routing("/status"), "1"))
        for _ in range(2):
            for path in ("/status", "/login", "/_dash-layout", "/_dash-dependencies"):
                reply = await server.aget(path)
                assert reply.status == 200
                assert holds_nothing_protected(reply.body), (first, path)
                assert b"validation_layout" not in reply.body
            config = config_of(await server.aget("/", server.login("bob")))
            assert "alice" not in json.dumps(config)
            assert SECRETS[1] in json.dumps(config["validation_layout"])
            async with server.connect() as connection:
                assert "login required" in json.dumps(await asks(connection, routing("/report/7"), "1"))
                assert "login required" in json.dumps(await asks(connection, callback("who.children"), "2"))
            await asyncio.to_thread(serve_alice, server)


# ------------------------------------------------------------------------------------------------- deep links


def test_a_deep_link_leads_through_the_login_and_back_with_its_query(site: Server) -> None:
    asked_for = "/report/7?q=1&r=a%20b%26c"
    reply = site.get(asked_for)
    assert reply.status == 302
    login = urlsplit(reply.headers["Location"])
    assert (login.netloc, login.path) == ("", "/login")
    assert site.get(f"{login.path}?{login.query}").status == 200
    back = site.request("GET", f"/login/alice?{login.query}")
    assert (back.status, back.headers["Location"]) == (303, asked_for)
    shown = site.get(back.headers["Location"], back.cookie)
    assert shown.status == 200
    search = f"?{urlsplit(asked_for).query}"
    token = site.page_token(back.cookie, asked_for)
    answer = site.request("POST", f"{CALLBACK}?endId={token}", cookie=back.cookie, body=routing("/report/7", search))
    assert b"the text of the report 7 1 for alice" in answer.body


def sign_in(name: str, password: str, search: str) -> dict[str, Any]:
    return {
        "output": "..go-on.href...sign-in-error.children..",
        "outputs": [{"id": "go-on", "property": "href"}, {"id": "sign-in-error", "property": "children"}],
        "inputs": [asked("n_clicks", 1, "sign-in")],
        "changedPropIds": ["sign-in.n_clicks"],
        "state": [
            asked("value", name, "name"),
            asked("value", password, "password"),
            asked("search", search, "url"),
            asked("hash", "", "url"),
        ],
    }


def test_the_login_page_that_is_a_dash_page_logs_in_and_leads_back(site: Server) -> None:
    query = urlsplit(site.get("/report/7?q=1").headers["Location"]).query
    token = site.page_token(path=f"/login?{query}")
    url = f"{CALLBACK}?endId={token}"
    wrong = site.request("POST", url, body=sign_in("alice", "wrong", f"?{query}"))
    assert (wrong.status, wrong.cookie) == (200, "")
    reply = site.request("POST", url, body=sign_in("alice", "ecila", f"?{query}"), headers={"Origin": site.origin})
    assert reply.status == 200
    assert reply.json["response"]["go-on"]["href"] == "/report/7?q=1"
    assert site.get("/me", reply.cookie).json["user"] == "alice"
    stale = site.request("POST", url, cookie=reply.cookie, body=callback("who.children"))
    assert stale.status == 409  # the login page is nobody's, and alice is somebody now


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", ""])
def test_the_login_page_leads_nowhere_else(site: Server, target: str) -> None:
    reply = site.request("POST", CALLBACK, body=sign_in("alice", "ecila", f"?next={target}"))
    assert reply.json["response"]["go-on"]["href"] == "/"


def test_a_redirected_page_is_as_open_as_the_page_it_leads_to(site: Server) -> None:
    reply = site.get("/old-status")
    assert (reply.status, urlsplit(reply.headers["Location"]).path) == (301, "/status")
    reply = site.get("/old-report?q=1")
    assert reply.status == 302
    assert parse_qs(urlsplit(reply.headers["Location"]).query)["next"] == ["/old-report?q=1"]
    assert site.get("/old-report", site.login("alice")).status == 301


# ------------------------------------------------------------------------------------------- public callbacks


async def test_nobody_runs_public_callbacks_over_http_and_websocket_and_no_others(site: Server) -> None:
    before = len(site.get("/state").json["ran"])
    assert site.request("POST", CALLBACK, body=callback("answer.children")).json["response"] == {
        "answer": {"children": "None asked 1"}
    }
    assert site.request("POST", "/api/time", body={"clicks": 3}).json == "public None 3"
    assert site.request("POST", "/api/trade", body={"clicks": 3}).status == 401
    for output in ("who.children", "plain.children", "traders.children", "groups.children", "nothing.at-all"):
        assert site.request("POST", CALLBACK, body=callback(output)).status == 401
    async with site.connect() as connection:
        for number, output in enumerate(("who.children", "plain.children", "traders.children", "nothing.at-all")):
            payload = await call(connection, output, request_id=f"refused {number}")
            assert (payload["status"], payload["message"]) == ("error", "login required")
        assert result(await call(connection, "answer.children", request_id="public")) == "None asked 1"
    assert len(site.get("/state").json["ran"]) == before


async def test_a_public_stream_reaches_nobody_in_particular(site: Server) -> None:
    (stream,) = [one for one in site.get("/_dash-dependencies").json if one.get("persistent")]
    async with site.connect() as connection:
        payload = {
            "output": stream["output"],
            "outputs": [],
            "inputs": [asked("id", "ticker", "ticker")],
            "changedPropIds": [],
        }
        await connection.send(
            json.dumps({"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload})
        )
        message = await next_message(connection, "set_props")
        assert message["payload"]["componentId"] == "ticker"
        assert message["payload"]["props"]["children"].startswith("None ")


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b'{"output": null}',
        b'{"output": ["who.children"]}',
        b'{"output": {}}',
        b"\xff\xfe",
        b'{"output": "\\ud800"}',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:30],
)
def test_what_is_no_callback_request_is_401_for_nobody(site: Server, body: bytes | None) -> None:
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}):
        assert site.request("POST", CALLBACK, body=body, headers=headers).status == 401


async def test_a_login_in_the_same_browser_ends_nobodys_connection_and_no_one_elses(site: Server) -> None:
    mine, theirs = site.get("/status").cookie, site.get("/status").cookie
    assert mine != theirs
    async with site.connect(mine) as connection, site.connect(theirs) as other:
        assert result(await call(connection, "answer.children")) == "None asked 1"
        assert result(await call(other, "answer.children")) == "None asked 1"
        reply = await site.aget("/login/alice", mine)
        assert (await closed(connection))[0] == 4102
        assert result(await call(other, "answer.children", request_id="2")) == "None asked 1"
        async with site.connect(f"{mine}; {reply.cookie}") as user:
            assert result(await call(user, "who.children")) == "alice 1"


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn", "granian"])
async def test_many_that_come_at_once_are_not_more_than_may_come_one_by_one(kind: str, tmp_path: Any) -> None:
    with serving(tmp_path, server=kind, app=APP) as server, contextlib.ExitStack() as stack:
        assert (await server.aget("/status")).status == 200

        def open_one() -> RawSocket:
            return RawSocket(server)

        sockets = await asyncio.gather(*(asyncio.to_thread(open_one) for _ in range(24)))
        for socket_ in sockets:
            stack.enter_context(socket_)
            socket_.send(TEXT, b'{"type":"heartbeat"}')
        frames = await asyncio.gather(*(asyncio.to_thread(socket_.frame) for socket_ in sockets))
        codes = [frame.close_code for frame in frames]
        assert codes.count(None) == 4
        assert codes.count(4105) == 20
        assert len(server.get("/state").json["connections"]) == 4


# ------------------------------------------------------------------------------------------------ stale pages


def test_a_rotated_secret_makes_a_page_stale_once(tmp_path: Any) -> None:
    old, new = "the old secret of this test, long enough", "the new secret of this test, long enough"
    with serving(tmp_path, app=APP, env={"SECRET_KEY": old}) as before:
        cookie = before.login("alice")
        token = before.page_token(cookie)
    with serving(tmp_path, app=APP, env={"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": old}) as server:
        assert server.get("/me", cookie).json["user"] == "alice"
        body = callback("who.children")
        assert server.request("POST", f"{CALLBACK}?endId={token}", cookie=cookie, body=body).status == 409
        token = server.page_token(cookie)
        reply = server.request("POST", f"{CALLBACK}?endId={token}", cookie=cookie, body=body)
        assert reply.json["response"] == {"who": {"children": "alice 1"}}


def test_a_background_jobs_handle_is_good_for_its_own_page_only(tmp_path: Any) -> None:
    with serving(tmp_path, app=APP, env={"JOBS": str(tmp_path / "jobs")}) as server:
        alice, bob = server.login("alice"), server.login("bob")
        mine, other, bobs = server.page_token(alice), server.page_token(alice), server.page_token(bob)
        body = callback("job.children")
        started = server.request("POST", f"{CALLBACK}?endId={mine}", cookie=alice, body=body).json
        handle = f"cacheKey={started['cacheKey']}&job={started['job']}"

        def poll(token: str | None, cookie: str | None, more: str = "") -> Reply:
            named = "" if token is None else f"&endId={token}"
            return server.request("POST", f"{CALLBACK}?{handle}{named}{more}", cookie=cookie, body=body)

        strangers = [(other, alice), (bobs, bob), (mine, bob), (mine, None), (None, bob), (None, None), (None, alice)]
        for token, cookie in strangers:
            for more in ("", "&cancelJob=1", f"&cancelJob={started['job']}", f"&oldJob={started['job']}"):
                assert b"the job's result" not in poll(token, cookie, more).body
        answer = poll(mine, alice)
        for _ in range(400):
            if b"the job's result" in answer.body:
                break
            answer = poll(mine, alice)
        assert answer.json["response"] == {"job": {"children": "the job's result 1"}}, answer


def test_a_job_that_a_script_has_started_is_nobody_elses(tmp_path: Any) -> None:
    with serving(tmp_path, app=APP, env={"JOBS": str(tmp_path / "jobs")}) as server:
        alice, bob = server.login("alice"), server.login("bob")
        body = callback("job.children")
        started = server.request("POST", CALLBACK, cookie=alice, body=body).json
        url = f"{CALLBACK}?cacheKey={started['cacheKey']}&job={started['job']}"
        again = server.login("alice")
        for _ in range(100):
            for cookie in (bob, again, None):
                assert b"the job's result" not in server.request("POST", url, cookie=cookie, body=body).body
        shown = server.request("POST", url, cookie=alice, body=body)
        assert shown.json["response"] == {"job": {"children": "the job's result 1"}}


def plain_cookie(name: str, server: Server) -> str:
    """A login of before this package was installed."""
    token = _AuthSerializer("only for tests, and long enough to be one", "quart auth salt").dumps(name)
    return f"{server.login(name).partition('=')[0]}={token}"


def test_a_login_from_before_the_upgrade_keeps_its_pages(site: Server) -> None:
    cookie = plain_cookie("alice", site)
    token = site.page_token(cookie)
    for expected, one in ((200, token), (409, "Ab12Cd34~" + "0" * 64)):
        reply = site.request("POST", f"{CALLBACK}?endId={one}", cookie=cookie, body=callback("who.children"))
        assert reply.status == expected


# ------------------------------------------------------------------------------------------------------ hosts


def raw(server: Server, *lines: str) -> int | None:
    """Send a request as it is written; the status of the response, None when the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = b""
        while b"\r\n" not in answer:
            data = connection.recv(4096)
            if not data:
                return None
            answer += data
    return int(answer.split()[1])


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app under names of its own."""
    with serving(tmp_path_factory.mktemp("hosted"), app=APP, env={"ALLOWED_HOSTS": "127.0.0.1,.example.org"}) as server:
        yield server


UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:1", True),
        ("dash.example.org", True),
        ("a.b.EXAMPLE.org:8050", True),
        ("example.org", True),
        ("evil.test", False),
        ("127.0.0.1.evil.test", False),
        ("evil-example.org", False),
        ("example.org.evil.test", False),
        ("127.0.0.1@evil.test", False),
        ("evil.test:127.0.0.1", False),
        ("localhost", False),
        ("[::1]", False),
        ("", False),
        ("127.0.0.1, evil.test", False),
        ("\xff", False),
    ],
)
def test_under_a_strange_name_nothing_is_served(hosted: Server, host: str, known: bool) -> None:
    for path in ("/status", "/me", "/assets/style.css", "/_dash-layout", "/nowhere", "/_favicon.ico", "/static/x"):
        status = raw(hosted, f"GET {path} HTTP/1.1", f"Host: {host}")
        assert (status not in (421, 400)) == known, (path, status)
    status = raw(hosted, "GET /_dash-ws-callback HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", *UPGRADE)
    assert status == 101 if known else status in (421, 400)


def test_the_health_endpoint_answers_under_any_name(hosted: Server) -> None:
    assert raw(hosted, "GET /healthz HTTP/1.1", "Host: 10.0.0.7:8050") == 200
    assert raw(hosted, "GET /healthz/ HTTP/1.1", "Host: 10.0.0.7:8050") == 421
    assert raw(hosted, "GET /healthz/../me HTTP/1.1", "Host: 10.0.0.7:8050") == 421


def test_without_one_host_there_is_no_service(hosted: Server) -> None:
    assert raw(hosted, "GET /me HTTP/1.1") in (400, 421, None)
    assert raw(hosted, "GET /me HTTP/1.0") in (400, 421, None)
    assert raw(hosted, "GET /me HTTP/1.1", "Host: evil.test", "Host: 127.0.0.1") in (400, 421, None)
    assert raw(hosted, "GET /me HTTP/1.1", "Host: 127.0.0.1", "Host: evil.test") in (400, 421, None)
    assert raw(hosted, "GET http://evil.test/me HTTP/1.1", "Host: evil.test") == 421


def test_what_a_client_says_of_a_proxy_makes_no_host(hosted: Server) -> None:
    for header in ("X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1", "X-Host: 127.0.0.1"):
        assert raw(hosted, "GET /me HTTP/1.1", "Host: evil.test", header) == 421
    for header in ("X-Forwarded-Host: evil.test", "Forwarded: host=evil.test"):
        assert raw(hosted, "GET /me HTTP/1.1", "Host: 127.0.0.1", header) == 200
