"""The socket belongs to one session: who logs out, or is somebody else, leaves nothing behind in any tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..server import wait_for
from .browser import PATIENCE, Browser, Site, stays

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(180)

SOCKET = "/_dash-ws-callback"
CLICKS = """if (document.getElementById('who')?.textContent.startsWith(arguments[0]))
    for (let i = 0; i < 7; i++) document.getElementById('go').click()"""
"""At once, in a page of this user's: it may have become another's before."""


def pages_of_two_users(browser: Browser, *users: str) -> list[set[str]]:
    """Of each document of the tab, the users for whom it has shown something; those with more than one."""
    documents: dict[float, set[str]] = {}
    for kind in ("who", "clock", "worked", "news"):
        for document, text in browser.noted(kind):
            documents.setdefault(document, set()).update(user for user in users if text.startswith(f"{user} "))
    return [seen for seen in documents.values() if len(seen) > 1]


def test_two_tabs_share_one_socket_and_each_gets_what_is_its_own(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    browser.another_tab()
    other = browser.arrive(alice)
    assert name != other
    assert (site.proxy.live, site.proxy.most) == ([SOCKET], 1)
    (connection,) = site.connections(alice)
    assert len(connection["renderers"]) == 2
    assert sorted(site.running(alice)) == sorted([name, other])
    browser.click_until("ask", lambda: browser.text("asked") == f"1: {other}", "its own name")
    browser.go_to(first)
    assert browser.text("asked") == ""
    browser.click_until("ask", lambda: browser.text("asked") == f"1: {name}", "its own name")


def test_a_push_reaches_every_tab(site: Site, browser: Browser, alice: str, bob: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    first = browser.tab
    browser.another_tab()
    browser.arrive(alice)
    assert site.get(f"/push/{alice}/hello") == {"connections": 1}
    assert site.get(f"/push/{bob}/not-for-her") == {"connections": 0}
    for tab in (browser.tab, first):
        browser.go_to(tab)
        browser.wait_for_text("news", "hello")


def test_a_logout_in_one_tab_takes_all_of_them_to_the_login_and_back_to_their_pages(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    tabs = {}
    for path in ("/", "/?q=1#there"):
        tabs[browser.tab] = path
        browser.arrive(alice, path)
        browser.another_tab()
    browser.at("/plain")
    assert browser.ajs("return (await fetch('/logout', {method: 'POST'})).status") == 200
    for tab, next in zip(tabs, ("/", "/?q=1#there"), strict=True):
        browser.go_to(tab)
        browser.wait_for_login(next)
        assert [one["code"] for one in browser.details("session-ended")] == [4501]
        assert [path for _, path in browser.noted("load")][-2:] == ["/", "/login"]
    assert site.running(alice) == []
    wait_for(lambda: not site.proxy.live, PATIENCE, "the socket to be gone")


def test_a_ban_takes_every_tab_to_the_login_and_drops_what_was_asked(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.click("work")
    wait_for(lambda: site.ran("work", alice), PATIENCE, "the callback to run")
    assert site.get(f"/revoke/{alice}") == {"closed": 1}
    browser.wait_for_login()
    site.release(alice, 1)
    assert browser.noted("worked") == []
    assert [one["code"] for one in browser.details("session-ended")] == [4503]


def test_a_tab_that_logs_out_itself_goes_where_it_wanted_to(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.js("location.href = '/logout'")
    browser.wait_for(lambda: browser.place == "/logout", "the page after the logout")
    assert stays(lambda: browser.place == "/logout", 1.5)
    assert [path for _, path in browser.noted("load")] == [f"/login/{alice}", "/", "/logout"]


# ----------------------------------------------------------------------------------------- another user of the browser


@pytest.fixture
def hers(site: Site, browser: Browser, alice: str) -> str:
    """Alice's tab, live, where she has clicked once: further clicks are her second and later ones."""
    browser.log_in(alice)
    browser.arrive(alice)
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "her own click")
    return browser.tab


def bob_is_served(site: Site, browser: Browser, bob: str) -> None:
    """The tab in hand works, as bob's."""
    browser.settle(bob)
    browser.click_until("go", lambda: browser.text("who") == f"{bob} 1", "his own first click")
    assert {who for who, clicks, _ in site.ran("go") if who == bob and clicks == 1}


def test_bob_in_a_second_tab_gets_his_own_and_nothing_of_alices_runs_as_bob(
    site: Site, browser: Browser, hers: str, alice: str, bob: str
) -> None:
    browser.another_tab()
    browser.log_in(bob)
    his = browser.tab
    browser.arrive(bob)
    browser.go_to(hers)
    browser.js(CLICKS, alice)
    browser.settle(bob)  # it has been loaded anew
    assert len(browser.noted("load")) <= 4
    assert pages_of_two_users(browser, alice, bob) == []
    bob_is_served(site, browser, bob)
    browser.go_to(his)
    bob_is_served(site, browser, bob)
    assert pages_of_two_users(browser, alice, bob) == []
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert {clicks for _, clicks, _ in site.ran("go", bob)} == {1}
    assert site.proxy.most == 1
    assert {one["user"] for one in site.state["connections"]} == {bob}


def test_clicks_at_the_very_moment_of_the_switch_run_as_nobody_else(
    site: Site, browser: Browser, hers: str, alice: str, bob: str
) -> None:
    browser.js(
        f"fetch('/login/{bob}').catch(() => 0); for (let i = 0; i < 7; i++) document.getElementById('go').click()"
    )
    browser.settle(bob)
    bob_is_served(site, browser, bob)
    assert {clicks for _, clicks, _ in site.ran("go", bob)} == {1}
    assert pages_of_two_users(browser, alice, bob) == []
    assert len(browser.noted("load")) <= 5


def test_a_cookie_that_is_replaced_behind_the_pages_backs_makes_no_click_of_alices_bobs(
    site: Site, browser: Browser, hers: str, alice: str, bob: str
) -> None:
    browser.put_cookie(site.server.login(bob))
    site.proxy.cut()  # the next socket brings the other cookie
    browser.js(CLICKS, alice)
    browser.settle(bob)
    bob_is_served(site, browser, bob)
    assert {clicks for _, clicks, _ in site.ran("go", bob)} == {1}
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert pages_of_two_users(browser, alice, bob) == []
    assert len(browser.noted("load")) <= 4


def test_a_cookie_that_is_deleted_leads_to_the_login(site: Site, browser: Browser, hers: str, alice: str) -> None:
    browser.cdp("Network.clearBrowserCookies")
    site.proxy.cut()
    browser.js(CLICKS, alice)
    browser.wait_for_login()
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert len(browser.noted("load")) <= 4


@pytest.mark.parametrize("garbage", ["garbage", "", "a.b.c", "%00"])
def test_a_cookie_that_is_garbage_leads_to_the_login(
    site: Site, browser: Browser, hers: str, alice: str, garbage: str
) -> None:
    browser.put_cookie(f"QUART_AUTH={garbage}")
    site.proxy.cut()
    browser.wait_for_login()
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert len(browser.noted("load")) <= 4


def test_an_old_cookie_that_is_put_back_is_nobodys_and_makes_no_loop(
    site: Site, browser: Browser, alice: str, bob: str
) -> None:
    browser.log_in(alice)
    old = browser.cookie
    browser.arrive(alice)
    browser.log_in(bob)  # which ends alice's session
    browser.arrive(bob)
    browser.put_cookie(old)
    site.proxy.cut()
    browser.wait_for_login()
    assert len(browser.noted("load")) <= 6
    assert stays(lambda: browser.is_at_login, 1)


def test_a_cookie_of_another_user_for_the_socket_alone_serves_nobody_and_makes_no_loop(
    site: Site, browser: Browser, alice: str, bob: str
) -> None:
    """Whatever the tab is then, nothing runs as the other one, and it is loaded again at most twice."""
    browser.log_in(alice)
    browser.set_cookie(site.server.login(bob), site.origin, SOCKET)
    browser.at()
    browser.wait_for(lambda: "belongs to another login" in browser.alert(), "the message")
    loads = len(browser.noted("load"))
    assert loads <= 4
    browser.js("for (let i = 0; i < 5; i++) document.getElementById('go')?.click()")
    assert stays(lambda: len(browser.noted("load")) == loads, 1.5)
    assert site.ran("go", bob) == []
    assert site.streams(bob) == []


def test_a_renewed_login_of_the_same_user_serves_the_new_session_only(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    first = browser.tab
    browser.another_tab()
    browser.log_in(alice)
    browser.arrive(alice)
    browser.go_to(first)
    browser.settle(alice)
    assert len(site.connections(alice)) == 1
    assert site.proxy.most == 1
    assert len(browser.noted("load")) <= 4


def test_a_socket_that_is_closed_with_a_wish_to_come_back_comes_back(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    assert site.get(f"/close/{alice}/1") == {"closed": 1}
    wait_for(lambda: len(site.streams(alice)) == 2, PATIENCE, "the stream to begin again")
    browser.settle(alice)
    assert len(browser.noted("load")) == 2
    assert (site.proxy.most, len(site.proxy.handshakes)) == (1, 2)


def test_a_socket_that_the_app_has_closed_stays_closed_and_callbacks_go_over_http(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    assert site.get(f"/close/{alice}/0") == {"closed": 1}
    browser.wait_for(lambda: browser.details("close"), "the news")
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "http")]
    assert len(site.proxy.handshakes) == 1


# ------------------------------------------------------------------------------------------------------------ nobody


def test_a_page_for_nobody_opens_no_socket_and_its_callbacks_go_over_http(
    browser_at: Callable[..., Browser], sites: Callable[..., Site]
) -> None:
    browser, site = browser_at(PUBLIC="yes"), sites(PUBLIC="yes")
    browser.at()
    browser.click_until("open", lambda: browser.text("opened") == "None opened 1", "an answer")
    assert site.ran("open") == [(None, 1, "http")]
    assert site.proxy.handshakes == []


def test_a_page_for_nobody_has_its_public_stream(
    browser_at: Callable[..., Browser], sites: Callable[..., Site]
) -> None:
    browser, site = browser_at(PUBLIC="stream"), sites(PUBLIC="stream")
    browser.at()
    browser.wait_for(lambda: browser.text("public-clock").startswith("None "), "the public stream")
    assert site.proxy.live == [SOCKET]
    assert site.streams(None, "clock") == []


def test_a_login_in_another_tab_gives_the_page_for_nobody_a_session(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(PUBLIC="stream"), sites(PUBLIC="stream")
    browser.at()
    browser.wait_for(lambda: browser.text("public-clock").startswith("None "), "the public stream")
    public = browser.tab
    browser.another_tab()
    browser.log_in(alice)
    browser.arrive(alice)
    browser.go_to(public)
    browser.settle(alice)
    assert len(browser.noted("load")) <= 3
    assert site.proxy.most == 1
