"""What is tried on a real user's real browser."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ..server import free_port, wait_for
from .browser import EVIL, OVER_HTTP, Browser
from .target import CALLBACK, COOKIE, Target, attacked, payload, registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SECRET_TEXT = "the text of the"
BELONGS = "This page belongs to another login. Please sign in again."


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.forget()
    chromium.witness()
    yield chromium
    chromium.forget()


SEVEN_CLICKS = """if (document.body.innerText.includes('for alice'))
    for (let i = 0; i < 7; i++) document.getElementById('go')?.click()"""
"""At once, in a page of alice's. On a busy machine the tab may have become bob's before."""


def witnessed(target: Target) -> list[tuple[str | None, int | None]]:
    """Who clicked how often, as the server saw it."""
    return [(user, clicks) for user, clicks in target.get("/witnessed").json]


def clicks_of(target: Target, user: str, since: int) -> list[int]:
    """The clicks that ran as a user; a page's first call, without a click, is none."""
    return [clicks for who, clicks in witnessed(target)[since:] if who == user and clicks]


def shown_by_one_document(browser: Browser, *names: str) -> bool:
    """Whether a single document has shown what was made for more than one of these users."""
    documents: dict[float, set[str]] = {}
    for kind in ("who", "job", "_pages_content"):
        for document, text in browser.noted(kind):
            documents.setdefault(document, set()).update(name for name in names if name in text)
    return any(len(seen) > 1 for seen in documents.values())


def settled_as(browser: Browser, target: Target, name: str) -> None:
    """The tab is this user's page, and works; or it is at the login."""
    browser.wait_for(
        lambda: browser.text("job").startswith(f"{name} ") or browser.place.startswith("/login"),
        f"{name}'s page, or the login",
    )


# ------------------------------------------------------------------------------------------ two users of one browser


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_a_click_in_the_last_users_tab_never_runs_as_who_logged_in_in_another_tab(
    site: Target, browser: Browser, transport: str
) -> None:
    if transport == "http":
        browser.witness(OVER_HTTP)
    browser.sign_in(site, "alice")
    hers = browser.driver.current_window_handle
    browser.click("go")
    browser.wait_for(lambda: browser.text("job") == "alice 1", "her own click")
    before = len(witnessed(site))
    browser.new_tab()
    browser.open(f"{site.origin}/login/bob")
    browser.go_to(hers)
    browser.js(SEVEN_CLICKS)  # they would be her second and later ones
    settled_as(browser, site, "bob")
    if browser.place == "/":
        browser.wait_until_live("bob")
        browser.click("go")
        browser.wait_for(lambda: browser.text("job") == "bob 1", "his own first click")
    assert [clicks for clicks in clicks_of(site, "bob", before) if clicks > 1] == []
    assert clicks_of(site, "alice", before) == []  # her session has ended
    assert not shown_by_one_document(browser, "alice", "bob")
    assert browser.loads() <= 4


def test_the_tab_of_the_last_user_leaves_by_itself_when_another_logs_in(site: Target, browser: Browser) -> None:
    browser.sign_in(site, "alice", "/report/7")
    hers = browser.driver.current_window_handle
    browser.new_tab()
    browser.open(f"{site.origin}/login/bob")
    browser.go_to(hers)  # and nothing is done there
    browser.wait_for(lambda: "alice" not in browser.js("return document.body.innerText"), "alice's data to go")
    settled_as(browser, site, "bob")
    assert not shown_by_one_document(browser, "alice", "bob")


def test_after_a_logout_and_another_login_the_old_tab_does_nothing_for_the_new_user(
    site: Target, browser: Browser
) -> None:
    browser.sign_in(site, "alice")
    hers = browser.driver.current_window_handle
    browser.click("go")
    browser.wait_for(lambda: browser.text("job") == "alice 1", "her own click: the next one is her second")
    before = len(witnessed(site))
    browser.new_tab()
    browser.open(f"{site.origin}/me")
    browser.ajs("await fetch('/logout'); await fetch('/login/bob')")  # as fast as can be
    browser.go_to(hers)
    browser.js(SEVEN_CLICKS)
    settled_as(browser, site, "bob")
    browser.open(f"{site.origin}/")
    browser.wait_until_live("bob")
    assert [clicks for clicks in clicks_of(site, "bob", before) if clicks > 1] == []
    assert clicks_of(site, "alice", before) == []
    assert not shown_by_one_document(browser, "alice", "bob")


def test_clicks_made_while_the_server_was_away_never_run_as_the_next_user(folder: Path, browser: Browser) -> None:
    port = free_port()
    with attacked(folder, port=port) as first:
        browser.sign_in(first, "alice")
        bob = first.login("bob")
    browser.js("for (let i = 0; i < 5; i++) document.getElementById('go').click()")
    browser.set_cookie(bob, first.origin)  # the next one at this browser
    with attacked(folder, port=port) as second:
        settled_as(browser, second, "bob")
        browser.open(f"{second.origin}/")
        browser.wait_until_live("bob")
        browser.click("go")
        browser.wait_for(lambda: browser.text("job") == "bob 1", "his own first click")
        assert clicks_of(second, "bob", 0) == [1]
        assert clicks_of(second, "alice", 0) == []
    assert not shown_by_one_document(browser, "alice", "bob")


# ------------------------------------------------------------------------------------------------- cookie tossing


@pytest.mark.parametrize(("path", "script"), [(CALLBACK, OVER_HTTP), ("/_dash-ws-callback", "")])
def test_a_second_cookie_that_somebody_planted_gets_no_click_and_makes_no_loop(
    site: Target, browser: Browser, path: str, script: str
) -> None:
    mallory = site.login("mallory")
    browser.witness(script)
    browser.open(f"{site.origin}/login/alice")
    browser.set_cookie(mallory, site.origin, path)
    before = len(witnessed(site))
    browser.open(f"{site.origin}/")
    browser.wait_for(lambda: BELONGS in browser.alert(), "the message")
    loads = len([path for _, path in browser.noted("load") if path == "/"])
    assert loads <= 3
    browser.js("for (let i = 0; i < 5; i++) document.getElementById('go')?.click()")
    status = browser.ajs("return (await fetch('/me')).status")  # a whole round trip later
    assert (status, len([path for _, path in browser.noted("load") if path == "/"])) == (200, loads)
    assert clicks_of(site, "mallory", before) == []
    assert not shown_by_one_document(browser, "alice", "mallory")
    assert browser.js("return document.querySelector('[role=alert] a').getAttribute('href')").endswith(
        "/login?next=%2F"
    )


def test_a_cookie_planted_for_the_question_whether_a_page_is_current_makes_no_loop(
    site: Target, browser: Browser
) -> None:
    mallory = site.login("mallory")
    browser.open(f"{site.origin}/login/alice")
    browser.set_cookie(mallory, site.origin, "/_dash-quart-ws")
    browser.open(f"{site.origin}/")
    browser.wait_until_live("alice")
    site.get("/revoke/mallory")
    site.get("/revoke/alice")
    browser.wait_for(lambda: browser.place.startswith("/login"), "the login")
    assert browser.loads() <= 4


def test_a_cookie_planted_for_one_page_makes_no_loop_and_runs_nothing_there(site: Target, browser: Browser) -> None:
    """The page is the attacker's, so that what a user types there might become his; the socket is the user's own."""
    mallory = site.login("mallory")
    browser.open(f"{site.origin}/login/alice")
    browser.set_cookie(mallory, site.origin, "/report")
    before = len(witnessed(site))
    browser.open(f"{site.origin}/report/7")
    browser.wait_for(lambda: BELONGS in browser.alert(), "the message")
    assert len([path for _, path in browser.noted("load") if path == "/report/7"]) <= 3
    browser.js("document.getElementById('go')?.click()")
    assert browser.ajs("return (await fetch('/me')).status") == 200
    assert clicks_of(site, "mallory", before) == clicks_of(site, "alice", before) == []


def test_scripts_of_the_page_cannot_read_the_session(site: Target, browser: Browser) -> None:
    browser.sign_in(site, "alice")
    token = browser.cookie.partition("=")[2]
    registry.add_cookie(browser.cookie)
    assert COOKIE not in browser.js("return document.cookie")
    page = browser.js(
        "return document.documentElement.outerHTML + JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})"
    )
    assert token not in page
    assert token.rpartition(".")[2] not in page


# ---------------------------------------------------------------------------------- other keys, and other versions


OLD_KEY, NEW_KEY = "the first key, which is long enough", "another key, which is as long as that"


def test_when_the_key_is_rotated_with_a_fallback_an_open_page_is_loaded_anew_once(
    folder: Path, browser: Browser
) -> None:
    port = free_port()
    with attacked(folder, port=port, SECRET_KEY=OLD_KEY) as first:
        browser.sign_in(first, "alice")
        loads = browser.loads()
    with attacked(folder, port=port, SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=OLD_KEY) as second:
        browser.try_to_click("go")  # its page token is of the old key
        browser.wait_for(lambda: browser.loads() > loads, "the page to be loaded anew", 60)
        browser.wait_until_live("alice")
        browser.click("go")
        browser.wait_for(lambda: browser.text("job") == "alice 1", "a click that works")
        assert browser.loads() == loads + 1
        assert clicks_of(second, "alice", 0) == [1]


@pytest.mark.parametrize("is_used", [True, False])
def test_when_the_key_is_rotated_without_one_an_open_page_goes_to_the_login(
    folder: Path, browser: Browser, is_used: bool
) -> None:
    port = free_port()
    with attacked(folder, port=port, SECRET_KEY=OLD_KEY) as first:
        browser.sign_in(first, "alice")
        loads = browser.loads()
    with attacked(folder, port=port, SECRET_KEY=NEW_KEY) as second:
        wait_for(lambda: "connect user=None" in second.log, 60, "the worker to come back, as nobody")
        if is_used:
            browser.try_to_click("go")
        browser.wait_for(lambda: browser.place in ("/login?next=%2F", "/login?next=/"), "the login", 30)
        assert clicks_of(second, "alice", 0) == []
        assert browser.loads() <= loads + 2


@pytest.mark.parametrize("script", ["", OVER_HTTP])
def test_a_page_from_before_the_upgrade_runs_nothing_as_somebody_else(
    folder: Path, browser: Browser, script: str
) -> None:
    port = free_port()
    browser.witness(script)
    with attacked(folder, "tests.attacks.before:server", port=port) as stock:
        browser.open(f"{stock.origin}/login/alice")
        browser.open(f"{stock.origin}/")
        browser.wait_for(lambda: browser.text("who").startswith("alice "), "the page")
    with attacked(folder, port=port) as target:
        browser.set_cookie(target.login("bob"), target.origin)
        browser.click("go")
        # As the page's own scripts would be answered: it has no token of ours, and none of our code.
        token = browser.js("return JSON.parse(document.getElementById('_dash-config').textContent).end_id")
        answer = browser.ajs(
            "const body = JSON.stringify(arguments[0]), headers = {'Content-Type': 'application/json'};"
            "return (await fetch(arguments[1], {method: 'POST', body, headers})).status",
            payload("who.children"), f"{CALLBACK}?endId={token}",
        )  # fmt: skip
        assert answer == 409
        if script:
            assert [text for _, text in browser.noted("who") if "bob" in text] == []


# -------------------------------------------------------------------------------------------- what the browser keeps


def test_after_the_logout_back_does_not_show_the_page_again(site: Target, browser: Browser) -> None:
    browser.sign_in(site, "alice", "/report/7")
    browser.open(f"{site.origin}/me")
    browser.ajs("await fetch('/logout', {method: 'POST'})")
    noted = len(browser.noted("_pages_content"))
    browser.driver.back()
    browser.wait_for(lambda: browser.place.startswith("/login?next="), "the login")
    assert browser.noted("restored") == []
    assert not [text for _, text in browser.noted("_pages_content")[noted:] if SECRET_TEXT in text]
    assert SECRET_TEXT not in browser.js("return document.documentElement.innerText")


def test_nothing_protected_is_in_the_browsers_cache_after_the_logout(site: Target, browser: Browser) -> None:
    browser.sign_in(site, "alice", "/report/7")
    browser.ajs("await fetch('/_dash-layout')")
    browser.js("fetch('/logout', {method: 'POST'})")  # the page may be gone before the answer comes
    browser.wait_for(lambda: browser.place.startswith("/login?next="), "the login")
    for path in ("/", "/report/7", "/_dash-layout", "/_dash-dependencies"):
        text = browser.ajs(
            "try {return await (await fetch(arguments[0], {cache: 'only-if-cached', mode: 'same-origin'})).text()}"
            "catch {return ''}",
            path,
        )
        assert text == "", path


# --------------------------------------------------------------------------------------------------- other sites

ATTACKER = b"<!doctype html><title>kittens</title><p id=kittens>kittens</p>"


class Kittens(http.server.BaseHTTPRequestHandler):
    """Another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(ATTACKER)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def kittens() -> Iterator[int]:
    """The other site's port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kittens)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.05))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["127.0.0.1", EVIL])
def elsewhere(request: pytest.FixtureRequest, kittens: int) -> str:
    """A page of another origin; on another port of the same site it has the user's cookies in all that it sends."""
    return f"http://{request.param}:{kittens}/"


@pytest.fixture
def victim(site: Target, browser: Browser, elsewhere: str) -> Browser:
    """Alice, who is logged in, at another origin's page."""
    browser.open(f"{site.origin}/login/alice")
    browser.open(elsewhere)
    assert browser.text("kittens") == "kittens"
    return browser


@pytest.mark.parametrize(
    "path", ["/", "/_dash-layout", "/_dash-dependencies", "/me", "/_dash-quart-ws/session", "/report/7"]
)
def test_another_origin_reads_nothing(site: Target, victim: Browser, path: str) -> None:
    read = "return await (await fetch(arguments[0], {credentials: 'include', cache: arguments[1]})).text()"
    for cache in ("default", "force-cache"):
        assert victim.ajs(read, site.origin + path, cache) == "TypeError: Failed to fetch"


def test_another_origin_opens_no_websocket(site: Target, victim: Browser) -> None:
    url = site.socket_url
    for protocols in ([], ["dash-quart-ws.v1"]):
        outcome = victim.ajs(
            "return await new Promise((done) => {const socket = new WebSocket(...arguments[0]);"
            "socket.onopen = () => done('open'); socket.onerror = () => done('refused')})".replace(
                "...arguments[0]", f"{json.dumps(url)}, {json.dumps(protocols)}"
            )
        )
        assert outcome == "refused"
    assert "refuse code=403 reason='a foreign Origin'" in site.log


SIMPLE_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json")


@pytest.mark.parametrize("path", [CALLBACK, "/api/trade", "/_mcp"])
def test_another_origin_runs_no_callback(site: Target, victim: Browser, path: str) -> None:
    ran, before = site.ran(), len(witnessed(site))
    for type in (*SIMPLE_TYPES, None, "application/json"):
        victim.ajs(
            "const [url, body, type] = arguments; const headers = type ? {'Content-Type': type} : {};"
            "const mode = type == 'application/json' ? 'cors' : 'no-cors';"
            "try {await fetch(url, {method: 'POST', mode, credentials: 'include',"
            "body: type === null ? undefined : body, headers})} catch {}",
            site.origin + path, json.dumps(payload("who.children")), type,
        )  # fmt: skip
    victim.ajs("navigator.sendBeacon(arguments[0], 'x')", site.origin + path)
    assert site.me(victim.cookie)["user"] == "alice"
    assert (site.ran(), len(witnessed(site))) == (ran, before)


@pytest.mark.parametrize("path", [CALLBACK, "/api/trade"])
def test_another_sites_form_runs_no_callback(site: Target, victim: Browser, path: str) -> None:
    ran = site.ran()
    victim.js(
        "document.body.innerHTML = `<form method=post enctype=text/plain action='${arguments[0]}'>"
        '<input name=\'{"output":"who.children","x":"\' value=\'"}\'></form>`; document.forms[0].submit()',
        site.origin + path,
    )
    victim.wait_for(lambda: victim.driver.current_url.startswith(site.origin), "the answer to the form")
    assert site.ran() == ran
    assert "alice" not in victim.js("return document.body.innerText")


def test_another_site_logs_the_user_neither_in_nor_out_through_dash(site: Target, victim: Browser) -> None:
    cookie = victim.cookie
    for type in SIMPLE_TYPES:
        victim.ajs(
            "try {await fetch(arguments[0], {method: 'POST', mode: 'no-cors', credentials: 'include', body: arguments[1],"
            "headers: {'Content-Type': arguments[2]}})} catch {}",
            site.origin + CALLBACK, json.dumps(payload("sign-in-error.children")), type,
        )  # fmt: skip
    assert victim.cookie == cookie
    assert site.me(cookie)["user"] == "alice"


def test_a_name_that_somebody_has_rebound_to_the_server_gets_nothing_of_it(folder: Path, browser: Browser) -> None:
    with attacked(folder, ALLOWED_HOSTS="127.0.0.1") as named:
        browser.open(f"http://{EVIL}:{named.port}/login/alice")
        browser.open(f"http://{EVIL}:{named.port}/status")
        assert browser.js("return document.body.innerText") == "this server does not go by that name"
        statuses = browser.ajs(
            "return await Promise.all(arguments[0].map(async (path) => (await fetch(path)).status))",
            ["/", "/_dash-layout", "/me", "/assets/style.css", "/login/alice"],
        )
        assert statuses == [421] * 5
        opened = browser.ajs(
            "return await new Promise((done) => {const socket = new WebSocket(`ws://${location.host}/_dash-ws-callback`);"
            "socket.onopen = () => done('open'); socket.onerror = () => done('refused')})"
        )
        assert opened == "refused"
        assert browser.cdp("Network.getAllCookies")["cookies"] == []
        wait_for(lambda: "foreign-host host='evil.test" in named.log)


# ------------------------------------------------------------------------------------------- ways to the login


@pytest.mark.parametrize("script", ["", OVER_HTTP])
def test_a_session_that_ends_while_its_user_follows_a_link_leads_to_the_login(
    site: Target, browser: Browser, script: str
) -> None:
    browser.witness(script)
    browser.sign_in(site, "alice")
    noted = len(browser.noted("_pages_content"))
    site.get("/revoke/alice")
    browser.js("document.getElementById('to-report')?.click()")
    browser.wait_for(lambda: browser.place.startswith("/login?"), "the login")
    (target,) = parse_qs(urlsplit(browser.driver.current_url).query)["next"]
    assert target in ("/", "/report/7")
    assert not [text for _, text in browser.noted("_pages_content")[noted:] if "the text of the report" in text]
    assert browser.loads() <= 4


def test_a_link_to_a_protected_page_leads_nobody_to_the_login(site: Target, browser: Browser) -> None:
    browser.open(f"{site.origin}/status")
    browser.wait_for(lambda: browser.text("status"), "the public page")
    browser.click("to-home")
    browser.wait_for(lambda: browser.place.startswith("/login?next="), "the login")
    assert not [text for _, text in browser.noted("_pages_content") if SECRET_TEXT in text]


def sign_in_here(browser: Browser, name: str) -> None:
    browser.wait_for(lambda: browser.js("return !!document.getElementById('sign-in')"), "the login page")
    browser.fill_in("name", name)
    browser.fill_in("password", name[::-1])
    browser.click("sign-in")


def test_a_deep_link_leads_through_the_dash_login_page_and_back(site: Target, browser: Browser) -> None:
    browser.open(f"{site.origin}/report/7?q=mail#part")
    browser.wait_for(lambda: browser.place.startswith("/login?next="), "the login")
    assert urlsplit(browser.driver.current_url).fragment == "part"
    sign_in_here(browser, "alice")
    browser.wait_for(lambda: browser.place == "/report/7?q=mail", "the page that was asked for")
    browser.wait_for(lambda: browser.text("report") == "the text of the report 7 mail for alice", "the report")
    assert urlsplit(browser.driver.current_url).fragment == "part"


@pytest.mark.parametrize(
    "target", ["//evil.test/", "/\\evil.test/", "https://evil.test/", "javascript:alert(1)", "/%09/evil.test/"]
)
def test_a_prepared_link_to_the_login_leads_to_no_other_site(site: Target, browser: Browser, target: str) -> None:
    browser.open(f"{site.origin}/login?next={target}")
    sign_in_here(browser, "alice")
    browser.wait_until_live("alice")
    assert browser.driver.current_url in (f"{site.origin}/", f"{site.origin}/%09/evil.test/")
