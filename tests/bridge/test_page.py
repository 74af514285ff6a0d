"""What people see of the bridge, and what an app's own scripts and console do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .browser import Browser, Site, digest_of, stays

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(180)

STYLE = "return getComputedStyle(document.querySelector('.dash-ws-status'))[arguments[0]]"


def arrive(browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)


SCRIPTS = """return performance.getEntriesByType("resource")
    .filter((entry) => entry.initiatorType === "script" && /_dash-component-suites|_dash-quart-ws/.test(entry.name))
    .map((entry) => [entry.name, entry.transferSize, entry.encodedBodySize, entry.decodedBodySize])"""
NOTHING = 300
"""Bytes that a browser says it has transferred for a 304; none for what it has not asked for."""


def test_a_pages_scripts_come_compressed_and_once(browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.cdp("Network.clearBrowserCache")
    browser.arrive(alice)
    first = browser.js(SCRIPTS)
    assert len(first) > 5
    for name, transferred, encoded, decoded in first:
        assert NOTHING < transferred < decoded, name
        assert encoded < decoded, name
    browser.arrive(alice)
    assert len(browser.js(SCRIPTS)) == len(first)
    assert all(transferred <= NOTHING for _, transferred, _, _ in browser.js(SCRIPTS))


def test_the_page_says_when_it_is_reconnecting_and_stops_when_it_has(site: Site, browser: Browser, alice: str) -> None:
    arrive(browser, alice)
    assert browser.status() == ""
    site.proxy.refuse()
    site.proxy.cut()
    browser.wait_for(lambda: "econnecting" in browser.status(), "the page to say so")
    assert browser.js("return document.querySelector('.dash-ws-status').getAttribute('role')") == "status"
    site.proxy.accept()
    browser.js("dispatchEvent(new Event('online'))")
    browser.wait_for(lambda: browser.status() == "", "the page to say no more")


def test_the_apps_own_style_wins(site: Site, browser: Browser, alice: str) -> None:
    arrive(browser, alice)
    site.proxy.refuse()
    site.proxy.cut()
    browser.wait_for(browser.status, "the state")
    assert browser.js(STYLE, "position") == "fixed"
    browser.js(
        "document.head.append(Object.assign(document.createElement('style'),"
        "{textContent: '.dash-ws-status { position: static; color: rgb(1, 2, 3) }'}))"
    )
    assert (browser.js(STYLE, "position"), browser.js(STYLE, "color")) == ("static", "rgb(1, 2, 3)")


def test_the_state_can_be_turned_off_and_the_events_are_still_there(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(STATUS="0"), sites(STATUS="0")
    arrive(browser, alice)
    site.proxy.refuse()
    site.proxy.cut()
    browser.wait_for(lambda: browser.details("close"), "the news")
    assert stays(lambda: browser.status() == "", 2.5)
    assert browser.js("return document.querySelector('.dash-ws-status')") is None


def test_the_page_tells_the_apps_scripts_of_the_socket_and_of_the_session(
    site: Site, browser: Browser, alice: str
) -> None:
    arrive(browser, alice)
    assert len(browser.details("open")) == 1
    assert browser.details("close") == browser.details("session-ended") == []
    site.get(f"/close/{alice}/1")
    browser.wait_for(lambda: len(browser.details("open")) == 2, "the second opening")
    assert browser.details("close") == [{"code": 4100, "reason": "closed"}]
    site.get(f"/revoke/{alice}")
    browser.wait_for_login()
    assert browser.details("session-ended") == [{"code": 4503, "reason": "banned"}]


def test_nothing_of_ours_is_on_the_console(site: Site, browser: Browser, alice: str) -> None:
    browser.console()  # what pages before have left there is read once
    arrive(browser, alice)
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    site.proxy.cut("websocket")
    browser.wait_for(lambda: len(browser.details("open")) == 2, "the socket to be back")
    browser.settle(alice)
    site.get(f"/revoke/{alice}")
    browser.wait_for_login()
    ours = [one for one in browser.console() if "_dash-quart-ws" in one["message"] and one["source"] != "network"]
    assert ours == []


def test_the_script_runs_before_dash_and_in_the_worker_under_one_name(site: Site, browser: Browser, alice: str) -> None:
    arrive(browser, alice)
    sources = browser.js("return [...document.scripts].map(one => one.src)")
    (ours,) = (at for at, src in enumerate(sources) if "/_dash-quart-ws/" in src)
    renderer = next(at for at, src in enumerate(sources) if "dash_renderer" in src)
    assert ours < renderer
    assert browser.workers() == [sources[ours]]
    assert digest_of(sources[ours])


def test_a_callback_that_needs_the_websocket_and_comes_over_http_gets_an_error_that_says_so(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    site.proxy.refuse(only="websocket")
    browser.at()
    browser.wait_for_text("who", f"{alice} None")
    browser.click("burst")  # it uses `ctx.websocket` without a look
    browser.wait_for(lambda: "needs the websocket" in " ".join(browser.errors()), "an error that says so")
    browser.wait_for(lambda: browser.is_settled, "the page to wait for nothing")
    assert "burst" not in browser.text("order")


# --------------------------------------------------------------------------------------------------- Dash's own worker


@pytest.fixture
def stock(browser_at: Callable[..., Browser], sites: Callable[..., Site]) -> tuple[Browser, Site]:
    return browser_at(BRIDGE="0"), sites(BRIDGE="0")


def test_with_dashs_own_worker_clicks_and_streams_work_and_a_logout_leads_to_the_login(
    stock: tuple[Browser, Site], alice: str
) -> None:
    browser, site = stock
    arrive(browser, alice)
    assert not any("_dash-quart-ws" in url for url in browser.workers())
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert site.get(f"/push/{alice}/hello") == {"connections": 1}
    browser.wait_for_text("news", "hello")
    first = browser.tab
    browser.another_tab()
    browser.arrive(alice)
    browser.js("fetch('/logout', {method: 'POST'})")  # the page may be gone before the answer comes
    browser.wait_for_login()
    browser.go_to(first)
    browser.wait_for_login()


CLICKS_IN = """if (document.querySelector('meta[name=dash-quart-ws]')?.content === arguments[0])
    for (let i = 0; i < 5; i++) document.getElementById('go')?.click()"""
"""At once, and in this very page: the tab may have become bob's before."""


def test_with_dashs_own_worker_nothing_of_alices_runs_as_bob(stock: tuple[Browser, Site], alice: str, bob: str) -> None:
    browser, site = stock
    arrive(browser, alice)
    first, hers = browser.tab, browser.js("return document.querySelector('meta[name=dash-quart-ws]').content")
    browser.another_tab()
    browser.log_in(bob)
    browser.go_to(first)
    browser.js(CLICKS_IN, hers)
    browser.settle(bob)
    assert site.ran("go", bob) == []
