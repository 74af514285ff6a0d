"""Page tokens: what is asked from a page that was rendered for another session is refused, and nothing else is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from dash import Input, Output
from dash._callback_signing import END_SCOPE, sign
from quart_auth import QuartAuth

from dash_quart_ws import add_public_routes, public_callback
from dash_quart_ws.sessions import pages

from ..asgi import Closed
from .site import ECHO, SECRET, Reply, Site

if TYPE_CHECKING:
    from tests.asgi import InProcessSocket

CALLBACK = "/_dash-update-component"
ASK = {**ECHO, "output": "asked.children", "outputs": {"id": "asked", "property": "children"}}
IN_BROWSER = [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


def partly_public(**options: Any) -> Site:
    """A site with a page and a callback that nobody may have, too."""
    site = Site(**options)
    add_public_routes(site.app, ["/open"])

    @public_callback(Output("asked", "children"), Input("go", "n_clicks"), app=site.app)
    async def ask(n_clicks: int) -> str:
        return f"asked {n_clicks}"

    return site


async def page(site: Site, cookie: str = "", path: str = "/") -> str:
    """The token of a page that is rendered now."""
    reply = await site.get(path, cookie)
    found = re.search(r'"end_id": ?"([^"]+)"', str(reply.body))
    assert found is not None, reply
    return found[1]


async def calls(site: Site, token: str | None, cookie: str = "", *, body: Any = ECHO, **options: Any) -> Reply:
    query = {} if token is None else {"endId": token}
    return await site.request("POST", CALLBACK, cookie, json=body, query_string=query, **options)


async def is_current(site: Site, token: str | None, cookie: str = "", **options: Any) -> int:
    query = {} if token is None else {"endId": token}
    return (await site.get("/_dash-quart-ws/session", cookie, query_string=query, **options)).status


async def test_a_page_runs_what_is_asked_in_its_own_session() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        token = await page(site, cookie)
        for headers in ({}, *IN_BROWSER):
            reply = await calls(site, token, cookie, headers=headers)
            assert (reply.status, reply.json["response"]) == (200, {"echo": {"children": "alice 1"}})
        assert await is_current(site, token, cookie) == 204


async def test_a_page_names_the_session_that_it_was_rendered_for_and_no_two_pages_are_the_same() -> None:
    async with partly_public() as site:
        cookie = await site.login("alice")
        _, session = await site.me(cookie)
        first, second = await page(site, cookie), await page(site, cookie)
        assert first != second
        assert pages.named_by(site.app, first) == pages.named_by(site.app, second) == session
        assert pages.named_by(site.app, await page(site, path="/open")) == pages.NOBODY
        assert cookie.partition("=")[2] not in first


@pytest.mark.parametrize("body", [ECHO, ASK], ids=["protected", "public"])
async def test_alices_page_runs_nothing_for_bob_and_nothing_for_nobody(body: dict[str, Any]) -> None:
    async with partly_public() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        token = await page(site, alice)
        reply = await calls(site, token, bob, body=body)
        assert (reply.status, reply.json) == (409, {"error": "stale page"})
        assert reply.headers["Cache-Control"] == "no-store"
        assert (await calls(site, token, body=body)).status == 401
        assert (await calls(site, token, alice, body=body)).status == 200
        assert [await is_current(site, token, one) for one in (alice, bob, "")] == [204, 409, 401]


async def test_nobodys_page_is_stale_once_somebody_has_logged_in() -> None:
    async with partly_public() as site:
        token = await page(site, path="/open")
        assert (await calls(site, token, body=ASK)).json["response"] == {"asked": {"children": "asked 1"}}
        assert (await calls(site, token)).status == 401
        assert await is_current(site, token) == 204
        alice = await site.login("alice")
        assert (await calls(site, token, alice, body=ASK)).status == 409
        assert await is_current(site, token, alice) == 409


async def test_a_page_outlives_a_renewal_and_no_new_login() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        token = await page(site, cookie)
        renewed = (await site.get("/renew", cookie)).cookie
        assert renewed
        assert (await calls(site, token, renewed)).status == 200
        again = await site.login("alice", renewed)
        assert (await calls(site, token, again)).status == 409
        elsewhere = await site.login("alice")
        assert (await calls(site, token, elsewhere)).status == 409
        assert (await calls(site, await page(site, again), again)).status == 200


@pytest.mark.parametrize("how", ["logout", "revoke"])
async def test_once_its_session_has_ended_a_page_is_refused_with_401(how: str) -> None:
    async with partly_public() as site:
        cookie = await site.login("alice")
        token = await page(site, cookie)
        if how == "logout":
            await site.get("/logout", cookie)
        else:
            await site.backend.revoke(user="alice")
        for body in (ECHO, ASK):
            assert (await calls(site, token, cookie, body=body)).status == 401
            assert (await calls(site, token, body=body)).status == 401
        assert await is_current(site, token, cookie) == 401


async def test_a_rotated_secret_makes_a_page_stale_and_the_next_one_works() -> None:
    async with Site(secret="the secret of last year, long enough") as old:
        cookie = await old.login("alice")
        token = await page(old, cookie)
    async with Site(config={"SECRET_KEY_FALLBACKS": ["the secret of last year, long enough"]}) as site:
        assert (await site.me(cookie))[0] == "alice"
        assert (await calls(site, token, cookie)).status == 409
        assert (await calls(site, await page(site, cookie), cookie)).status == 200


async def test_a_page_from_before_the_upgrade_is_stale() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        end_id = sign(site.app._get_signing_secret(), END_SCOPE, "aB3dE6gH9jK2mN5pQ8sT1vW4")
        assert (await calls(site, end_id, cookie)).status == 409
        assert await is_current(site, end_id, cookie) == 409
        assert (await calls(site, end_id)).status == 409  # and the next page leads nobody to the login


@pytest.mark.parametrize("headers", IN_BROWSER, ids=str)
async def test_a_browser_that_brings_no_token_has_a_page_from_before_and_a_script_has_none(
    headers: dict[str, str],
) -> None:
    async with partly_public() as site:
        cookie = await site.login("alice")
        assert (await calls(site, None, cookie, headers=headers)).status == 409
        assert await is_current(site, None, cookie, headers=headers) == 409
        assert (await calls(site, None, cookie)).status == 200
        assert (await calls(site, None, body=ASK, headers=headers)).status == 200  # nobody's own page, as nobody


async def test_a_script_with_a_bearer_token_needs_no_page() -> None:
    async with Site(auth=lambda server: QuartAuth(server, mode="bearer")) as site:
        token = (await site.get("/token/alice")).json["token"]
        reply = await calls(site, None, headers={"Authorization": f"Bearer {token}", "Origin": "http://localhost"})
        assert (reply.status, reply.json["response"]) == (200, {"echo": {"children": "alice 1"}})


GARBAGE = [
    "", "~", "~~", "nobody", "nobody.", "nobody.0~", "nobody.0~0", "é", "\xff", "\u2028~é", "\U0001f512~\U0001f512",
    "\0", "a.b~" + "0" * 64, "a" * 1_000_000, "~" * 100_000, "None", "null", "undefined", "0",
]  # fmt: skip


@pytest.mark.parametrize("token", GARBAGE, ids=lambda token: repr(token)[:20])
async def test_a_token_that_nobody_here_has_signed_is_stale(token: str) -> None:
    async with partly_public() as site:
        cookie = await site.login("alice")
        assert (await calls(site, token, cookie)).status == 409
        assert await is_current(site, token, cookie) == 409
        assert (await calls(site, token)).status == 409
        assert (await calls(site, token, body=ASK)).status == 409
        assert pages.named_by(site.app, token) is None


async def test_every_changed_character_of_a_token_makes_it_stale() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        token = await page(site, cookie)
        for i, character in enumerate(token):
            other = token[:i] + ("0" if character != "0" else "1") + token[i + 1 :]
            assert pages.named_by(site.app, other) is None
        for other in (token + "0", token[:-1], token.upper(), f" {token}", f"{token} ", token.partition("~")[0]):
            assert (await calls(site, other, cookie)).status == 409


@pytest.mark.parametrize("order", ["own first", "own last"])
async def test_of_two_tokens_the_first_counts_everywhere(order: str) -> None:
    async with Site() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        mine, theirs = await page(site, alice), await page(site, bob)
        tokens = [mine, theirs] if order == "own first" else [theirs, mine]
        reply = await site.request("POST", CALLBACK, alice, json=ECHO, query_string={"endId": tokens})
        assert reply.status == (200 if order == "own first" else 409)


async def test_a_token_in_the_body_a_header_or_a_cookie_is_none() -> None:
    async with Site() as site:
        alice = await site.login("alice")
        token = await page(site, alice)
        reply = await calls(
            site,
            None,
            f"{alice}; endId={token}",
            body={**ECHO, "endId": token},
            headers={"Origin": "http://localhost", "endId": token},
        )
        assert reply.status == 409


async def test_a_page_of_another_server_with_another_secret_is_stale() -> None:
    async with Site(secret="another secret, and long enough to be one") as other:
        token = await page(other, await other.login("alice"))
    async with Site() as site:
        assert (await calls(site, token, await site.login("alice"))).status == 409


async def test_a_second_cookie_of_the_same_name_makes_no_mix_of_two_sessions() -> None:
    async with Site() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        hers = await page(site, alice)
        for cookies in (f"{alice}; {bob}", f"{bob}; {alice}"):
            user, _ = await site.me(cookies)
            reply = await calls(site, hers, cookies)
            assert reply.status == (200 if user == "alice" else 409)
            shown = await calls(site, await page(site, cookies), cookies)
            assert shown.json["response"] == {"echo": {"children": f"{user} 1"}}


async def test_where_no_login_is_required_a_page_of_another_session_is_stale_all_the_same() -> None:
    async with Site(login_required=False) as site:
        nobodys = await page(site)
        assert (await calls(site, nobodys)).json["response"] == {"echo": {"children": "None 1"}}
        alice, bob = await site.login("alice"), await site.login("bob")
        hers = await page(site, alice)
        assert (await calls(site, hers, alice)).json["response"] == {"echo": {"children": "alice 1"}}
        for token, cookie in ((hers, bob), (hers, ""), (nobodys, alice), (await page(site, bob), alice)):
            assert (await calls(site, token, cookie)).status == 409
        assert await is_current(site, hers) == 409
        assert await is_current(site, nobodys) == 204


async def test_without_a_quartauth_every_page_is_current() -> None:
    async with partly_public(auth=None) as site:
        for token in (await page(site), None, "garbage"):
            assert (await calls(site, token, body=ASK, headers={"Origin": "http://localhost"})).status == 200
            assert await is_current(site, token) == 204


async def test_what_is_refused_as_stale_is_logged_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    async with Site() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        token = await page(site, alice)
        await calls(site, token, bob)
    (line,) = [record for record in caplog.records if record.getMessage().startswith("stale-page")]
    assert (line.name, line.levelname) == ("dash_quart_ws.security", "WARNING")
    assert "'bob'" in line.getMessage()
    for secret in (token, token.rpartition("~")[2], bob.partition("=")[2], alice.partition("=")[2], SECRET):
        assert secret not in caplog.text


async def test_an_answer_about_a_page_is_kept_by_no_cache() -> None:
    async with Site() as site:
        alice = await site.login("alice")
        for cookie in (alice, ""):
            reply = await site.get("/_dash-quart-ws/session", cookie, query_string={"endId": await page(site, alice)})
            assert reply.headers["Cache-Control"] == "no-store"


async def test_below_a_prefix_the_pages_of_an_app_are_asked_about_there() -> None:
    async with Site(dash={"url_base_pathname": "/app/"}) as site:
        cookie = await site.login("alice")
        token = await page(site, cookie, "/app/")
        for one, expected in ((cookie, 204), ("", 401)):
            query = {"endId": token}
            assert (await site.get("/app/_dash-quart-ws/session", one, query_string=query)).status == expected
        reply = await site.request("POST", f"/app{CALLBACK}", "", json=ECHO, query_string={"endId": token})
        assert (reply.status, reply.json["login_url"]) == (401, "/login")


# ---------------------------------------------------------------------------------------- over the websocket


async def answer(socket: InProcessSocket, token: Any, id: str = "1", *, body: Any = ECHO) -> dict[str, Any]:
    """The answer to a callback request that comes from a page with this token."""
    payload = body if token is None else {**body, "endId": token}
    await socket.send_json({"type": "callback_request", "requestId": id, "rendererId": "tab", "payload": payload})
    while True:
        found = await socket.receive_json()
        for message in found if isinstance(found, list) else [found]:
            if message.get("requestId") == id:
                given: dict[str, Any] = message["payload"]
                return given


async def test_over_a_websocket_a_page_runs_what_is_asked_in_its_own_session_and_no_other() -> None:
    async with partly_public() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        tokens = {
            "alice": await page(site, alice),
            "bob": await page(site, bob),
            "nobody": await page(site, path="/open"),
        }
        for owner, cookie in (("alice", alice), ("bob", bob)):
            async with site.websocket(cookie) as socket:
                for number, (name, token) in enumerate(tokens.items()):
                    given = await answer(socket, token, str(number), body=ASK)
                    if name == owner:
                        assert given["data"]["response"] == {"asked": {"children": "asked 1"}}
                    else:
                        assert (given["status"], given["message"]) == ("error", "stale page")
                assert (await answer(socket, None, "last", body=ASK))["status"] == "ok"


async def test_a_fresh_page_that_meets_nobodys_connection_of_before_its_login_is_not_the_one_that_is_old() -> None:
    async with partly_public() as site:
        cookie = await site.login("alice")
        async with site.websocket("") as socket:
            assert (await answer(socket, await page(site, path="/open"), "1", body=ASK))["status"] == "ok"
            with pytest.raises(Closed) as closed:
                await answer(socket, await page(site, cookie), "2", body=ASK)
            assert closed.value.args[0] == 4102
        async with site.websocket("") as socket:  # of a session that is over, the page is
            token = await page(site, cookie)
            await site.backend.revoke(user="alice")
            assert (await answer(socket, token, "3", body=ASK))["message"] == "stale page"
            assert (await answer(socket, None, "4", body=ASK))["status"] == "ok"


GARBAGE_VALUES: list[Any] = [
    *GARBAGE[:-5],
    0,
    7,
    True,
    False,
    1.5,
    [],
    ["~"],
    ["a~b"],
    {},
    {"~": "~"},
    {"a~": 1},
    [["~"]],
    None,
]


@pytest.mark.parametrize("token", GARBAGE_VALUES, ids=lambda token: repr(token)[:20])
async def test_over_a_websocket_a_token_that_is_none_refuses_its_own_request_and_nothing_else(token: Any) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        good = await page(site, cookie)
        async with site.websocket(cookie) as socket:
            if token is not None:
                assert (await answer(socket, token))["message"] == "stale page"
            assert (await answer(socket, good, "2"))["data"]["response"] == {"echo": {"children": "alice 1"}}


async def test_over_a_websocket_a_page_outlives_a_renewal() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        token = await page(site, cookie)
        renewed = (await site.get("/renew", cookie)).cookie
        async with site.websocket(renewed) as socket:
            assert (await answer(socket, token))["status"] == "ok"
        again = await site.login("alice")
        async with site.websocket(again) as socket:
            assert (await answer(socket, token))["message"] == "stale page"
