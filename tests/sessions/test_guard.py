"""Login protection of Dash's own routes: who sees what, and where they are sent instead."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from dash import Dash, html
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart
from quart_auth import QuartAuth

from dash_quart_ws import ConfigurationError, QuartBackend, safe_next

from .site import ECHO, SECRET, Site, database

OPEN = ("_dash-component-suites/", "_dash-quart-ws/", "_favicon.ico", "_reload-hash", "assets/")
"""What a visitor without a login may have of Dash's."""


async def test_as_nobody_every_route_of_dashs_but_a_few_needs_a_login() -> None:
    async with Site() as site:
        await site.get("/me")  # the first contact registers what Dash registers late
        own = {
            "login",
            "login_page",
            "slow_login",
            "logout",
            "slow_logout",
            "renew",
            "slow_renew",
            "me",
            "secret",
            "token",
        }
        rules = [
            rule
            for rule in site.server.url_map.iter_rules()
            if rule.endpoint not in own and not rule.websocket and rule.endpoint != "static"
        ]
        assert len(rules) >= 8
        for rule in rules:
            path = "/" + "".join(part if not dynamic else "x" for dynamic, part in rule._trace if part != "|").lstrip(
                "/"
            )
            for method in sorted(rule.methods & {"GET", "POST", "PUT", "DELETE"}):
                reply = await site.request(method, path)
                if any(name in path for name in OPEN):
                    assert reply.status not in (302, 401), (method, path)
                elif reply.status == 302:
                    assert urlsplit(reply.headers["Location"]).path == "/login", (method, path)
                else:
                    assert reply.status == 401, (method, path)


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("/", "/"),
        ("/reports/2026", "/reports/2026"),
        ("/reports?year=2026&q=a%20b", "/reports?year=2026&q=a%20b"),
        ("/r%C3%A9sum%C3%A9", "/résumé"),
    ],
)
async def test_a_page_leads_to_the_login_and_the_login_back_to_the_page(asked: str, leads_to: str) -> None:
    async with Site() as site:
        reply = await site.get(asked)
        assert reply.status == 302
        assert reply.headers["Cache-Control"] == "no-store"
        location = urlsplit(reply.headers["Location"])
        assert (location.netloc, location.path) == ("", "/login")
        (back,) = parse_qs(location.query)["next"]
        assert back == leads_to
        async with site.server.test_request_context(f"/login?{location.query}"):
            assert safe_next() == leads_to


async def test_a_login_url_of_the_apps_own_is_where_pages_lead() -> None:
    async with Site(login_url="/sign/in?theme=dark", login_route="/sign/in") as site:
        assert (await site.get("/page")).headers["Location"] == "/sign/in?theme=dark&next=/page"


async def test_below_a_root_path_pages_lead_to_the_login_there() -> None:
    async with Site() as site:
        reply = await site.get("/behind/page", root_path="/behind")
        location = urlsplit(reply.headers["Location"])
        assert (location.path, parse_qs(location.query)["next"]) == ("/behind/login", ["/behind/page"])


async def test_data_is_refused_with_401_and_says_where_to_log_in() -> None:
    async with Site() as site:
        for method, path in (
            ("GET", "/_dash-layout"),
            ("GET", "/_dash-dependencies"),
            ("POST", "/_dash-update-component"),
        ):
            reply = await site.request(method, path, json=ECHO if method == "POST" else None)
            assert (reply.status, reply.json) == (401, {"error": "login required", "login_url": "/login"})
            assert reply.headers["Cache-Control"] == "no-store"


async def test_without_a_login_page_a_page_is_a_plain_401_and_not_a_redirect_to_itself() -> None:
    async with Site(login_route=None) as site:
        for path in ("/", "/login", "/login?next=/", "/anything"):
            reply = await site.get(path)
            assert reply.status == 401
            assert "Location" not in reply.headers
            assert reply.headers["Cache-Control"] == "no-store"
        assert (await site.get("/_dash-layout")).json["login_url"] is None


async def test_a_login_page_that_answers_posts_only_is_no_page_to_lead_to() -> None:
    site = Site(login_route=None)

    @site.server.post("/login")
    async def login_only() -> str:
        return "posted"

    async with site:
        assert (await site.get("/")).status == 401


async def test_a_login_page_with_a_slash_at_its_end_is_one() -> None:
    async with Site(login_route="/login/") as site:
        reply = await site.get("/page")
        assert (reply.status, reply.headers["Location"]) == (302, "/login?next=/page")


async def test_the_catch_all_of_another_dash_app_is_no_login_page() -> None:
    server = Quart("two apps")
    server.secret_key = SECRET
    backend = QuartBackend(server=server, broker="memory:")
    apps = [
        Dash(f"app{prefix}", backend=backend, url_base_pathname=prefix, assets_folder="no-assets")
        for prefix in ("/one/", "/login/")
    ]
    for app in apps:
        app.layout = html.Div()
    QuartAuth(server)
    for path in ("/one/", "/login/", "/login/page"):
        response = await server.test_client().get(path)
        assert response.status_code == 401


async def test_what_a_user_sees_is_stored_by_nobody() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        for path in ("/", "/page", "/_dash-layout", "/_dash-dependencies"):
            reply = await site.get(path, cookie)
            assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        reply = await site.request("POST", "/_dash-update-component", cookie, json=ECHO)
        assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        assert reply.json["response"] == {"echo": {"children": "alice 1"}}


async def test_an_open_bundle_is_open_and_may_be_stored() -> None:
    async with Site() as site:
        page = await site.get("/", await site.login("alice"))
        bundle = next(part for part in page.body.split('"') if part.startswith("/_dash-component-suites"))
        reply = await site.get(bundle)
        assert reply.status == 200
        assert "no-store" not in reply.headers.get("Cache-Control", "")


async def test_a_view_of_the_apps_own_is_left_to_the_app() -> None:
    async with Site() as site:
        reply = await site.get("/me")
        assert reply.status == 200
        assert "Cache-Control" not in reply.headers


async def test_in_debug_mode_what_needs_a_login_is_still_401_and_what_is_missing_404() -> None:
    async with Site(debug=True, dash={"url_base_pathname": "/app/"}) as site:
        assert (await site.get("/secret")).status == 401
        assert (await site.get("/app/_dash-layout")).status == 401
        assert (await site.get("/nowhere")).status == 404
        assert (await site.request("POST", "/me")).status == 405
        assert (await site.get("/app/_dash-layout", await site.login("alice"))).status == 200


@pytest.mark.parametrize("protects", ["auto", True])
async def test_with_a_quartauth_a_login_is_required(protects: Any) -> None:
    async with Site(login_required=protects) as site:
        assert (await site.get("/_dash-layout")).status == 401


async def test_where_no_login_is_required_everybody_sees_everything() -> None:
    async with Site(login_required=False) as site:
        for path in ("/", "/_dash-layout"):
            assert (await site.get(path)).status == 200


async def test_without_a_quartauth_everybody_sees_everything_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Site(auth=None) as site:
        assert (await site.get("/_dash-layout")).status == 200
    assert any("no QuartAuth" in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


async def test_a_required_login_without_a_quartauth_is_an_error_at_start() -> None:
    with pytest.raises(Exception, match="login_required=True") as raised:
        await Site(auth=None, login_required=True).__aenter__()
    assert_configuration_error(raised.value)


async def test_a_missing_secret_key_is_an_error_at_start() -> None:
    with pytest.raises(Exception, match="secret_key") as raised:
        await Site(secret=None).__aenter__()
    assert_configuration_error(raised.value)


def assert_configuration_error(error: BaseException) -> None:
    """Quart's test app wraps what a start-up function raises, as a server's log does."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    assert any(isinstance(one, ConfigurationError) for one in chain) or "ConfigurationError" in repr(error), chain


async def test_a_revoked_user_is_refused_in_the_middle_of_a_page_view(tmp_path: Any) -> None:
    async with Site(broker=database(tmp_path / "store.sqlite3")) as site:
        cookie = await site.login("alice")
        assert (await site.get("/", cookie)).status == 200
        site.backend.revoke(user="alice")
        assert (await site.get("/_dash-layout", cookie)).status == 401
        assert (await site.request("POST", "/_dash-update-component", cookie, json=ECHO)).status == 401


# ----------------------------------------------------------------------------------------------- safe_next

UNSAFE = [
    "",
    "evil.test",
    "//evil.test",
    "///evil.test",
    "////evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "\\/evil.test",
    "/\\/evil.test",
    "/path\\..\\//evil.test",
    "http://evil.test",
    "https:evil.test",
    "HTTPS://evil.test",
    "http:///evil.test",
    "javascript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,x",
    " //evil.test",
    "\t//evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    "/\r/evil.test",
    "/\r\nSet-Cookie: a=b",
    "/\x00/evil.test",
    "/path\x7f",
    "/path\x85",
    "?next=//evil.test",
    "#//evil.test",
    "./evil",
    "../evil",
    "@evil.test",
    ":80",
]


@pytest.mark.parametrize("target", UNSAFE, ids=repr)
async def test_a_target_that_leads_elsewhere_is_replaced_by_the_default(target: str) -> None:
    server = Quart("next")
    async with server.test_request_context("/login", query_string={"next": target}):
        assert safe_next() == "/"
        assert safe_next("/home") == "/home"


@pytest.mark.parametrize(
    "target", ["/", "/page", "/page?a=b&c=//d", "/a//b", "/http://x", "/@x", "/résumé", "/%5C/x", "/ x", "/./x"]
)
async def test_a_path_of_this_server_is_taken_as_it_is(target: str) -> None:
    server = Quart("next")
    async with server.test_request_context("/login", query_string={"next": target}):
        assert safe_next() == target


@pytest.mark.parametrize("target", [1, 2])
async def test_only_the_first_of_several_targets_counts(target: int) -> None:
    query = "next=/good&next=//evil.test" if target == 1 else "next=//evil.test&next=/good"
    async with Quart("next").test_request_context(f"/login?{query}"):
        assert safe_next() == ("/good" if target == 1 else "/")


def in_a_browser(base: str, reference: str) -> str:
    """The host that a browser would go to (WHATWG URL): it drops tabs and newlines and reads a backslash as a slash."""
    cleaned = reference.strip("".join(map(chr, range(0x21)))).translate({9: None, 10: None, 13: None})
    return urlsplit(urljoin(base, cleaned.replace("\\", "/"))).netloc


PIECES = st.sampled_from(
    ["/", "\\", "//", "evil.test", "http:", "\t", "\n", "\r", "@", ":", ".", "..", "?", "#", "%2f", " "]
)


@given(st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20))
def test_whatever_is_asked_for_the_browser_stays_on_this_server(target: str) -> None:
    async def ask() -> str:
        async with Quart("next").test_request_context("/login", query_string={"next": target}):
            return safe_next()

    answer = asyncio.run(ask())
    assert answer.startswith("/")
    assert in_a_browser("http://here.test/login", answer) == "here.test"
