"""Tabs come and go, in many ways: what belongs to them goes with them, and nothing else does."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from selenium.common.exceptions import WebDriverException

from ..server import wait_for
from .browser import HOST, PATIENCE, Browser, Site, digest_of, stays

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(180)

SOCKET = "/_dash-ws-callback"
SECONDS = 5.0
"""Within which a tab's end is noticed."""
VISIBILITY = "document.visibilityState"


@pytest.fixture
def two(site: Site, browser: Browser, alice: str) -> tuple[str, str, str, str]:
    """Two tabs of alice's: handle and name of each. The first one hosts the worker."""
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    second = browser.another_tab()
    return first, name, second, browser.arrive(alice)


def wait_until_over(site: Site, user: str | None, tab: str, timeout: float = SECONDS) -> None:
    wait_for(lambda: tab not in site.running(user), timeout, "the tab's stream to end on the server")


def test_a_closed_tabs_stream_ends_on_the_server_and_the_others_goes_on(
    site: Site, browser: Browser, alice: str, two: tuple[str, str, str, str]
) -> None:
    first, name, second, other = two
    browser.close_tab(second, then=first)
    wait_until_over(site, alice, other)
    wait_for(lambda: len(site.connections(alice)[0]["renderers"]) == 1, SECONDS, "the tab to be forgotten")
    assert site.running(alice) == [name]
    browser.wait_for_ticks(alice)
    assert (site.proxy.live, len(site.proxy.handshakes)) == ([SOCKET], 1)


def test_the_tab_that_was_there_first_can_be_closed_like_any_other(
    site: Site, browser: Browser, alice: str, two: tuple[str, str, str, str]
) -> None:
    first, name, second, other = two
    browser.close_tab(first, then=second)
    wait_until_over(site, alice, name)
    browser.wait_for_ticks(alice)
    assert site.running(alice) == [other]
    assert (site.proxy.live, len(site.proxy.handshakes)) == ([SOCKET], 1)


@pytest.mark.parametrize("secure", [True, False])
def test_a_tab_that_was_frozen_goes_on_when_it_is_thawed(
    browser_at: Callable[..., Browser], site: Site, alice: str, secure: bool
) -> None:
    browser = browser_at(host=None if secure else HOST)
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    browser.another_tab()
    other = browser.arrive(alice)
    browser.click("work")
    wait_for(lambda: site.ran("work", alice), PATIENCE, "the callback to run")
    browser.cdp("Page.setWebLifecycleState", state="frozen")
    if secure:  # it holds its lock, and is waited for
        ticks = browser.text("clock")
        assert stays(lambda: browser.text("clock") == ticks, 1)
    else:  # who does not answer is taken for gone
        wait_until_over(site, alice, other, 15)
    browser.cdp("Page.setWebLifecycleState", state="active")
    browser.wait_for_ticks(alice)
    site.release(alice, 1)
    browser.wait_for(lambda: browser.is_settled, "the page to wait for nothing")
    assert sorted(site.running(alice)) == sorted([name, other])
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    browser.go_to(first)
    browser.wait_for_ticks(alice)


def test_a_tab_beyond_what_a_connection_carries_works_over_http(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(RENDERERS="1"), sites(RENDERERS="1")
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    browser.another_tab()
    browser.at()
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "http")]
    browser.wait_for(lambda: browser.is_settled, "the page to wait for nothing")
    browser.go_to(first)
    browser.wait_for_ticks(alice)
    assert site.running(alice) == [name]


def test_a_synchronous_callback_of_a_closed_tab_is_told_and_the_other_tabs_is_not(
    site: Site, browser: Browser, alice: str, two: tuple[str, str, str, str]
) -> None:
    first, _, second, _ = two
    browser.click("keep")
    wait_for(lambda: len(site.running(alice, "keep")) == 1, PATIENCE, "the second tab's callback to run")
    browser.go_to(first)
    browser.click("keep")
    wait_for(lambda: len(site.running(alice, "keep")) == 2, PATIENCE, "the first tab's callback to run")
    browser.close_tab(second, then=first)
    wait_for(lambda: len(site.running(alice, "keep")) == 1, SECONDS, "one of them to be told")
    assert [one["is_over"] for one in site.streams(alice, "keep")] == [True, False]
    browser.at("/plain")
    wait_for(lambda: not site.running(alice, "keep"), SECONDS, "the other to be told, too")


def test_a_reloaded_tab_leaves_nothing_running_behind_it(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    names = {browser.arrive(alice)}
    for _ in range(4):
        browser.driver.refresh()
        names.add(browser.settle(alice))
    assert len(names) == 5
    wait_for(lambda: site.running(alice) == [browser.text("tab")], SECONDS, "the one stream of the last page")
    assert len(site.connections(alice)) == 1
    assert site.proxy.most == 1


def test_when_the_last_tab_has_gone_the_socket_goes_as_well(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.at("/plain")
    wait_for(lambda: not site.proxy.live, SECONDS, "the socket to be closed")
    assert site.running(alice) == []


def test_a_crashed_tab_is_noticed_and_the_other_goes_on(
    site: Site, browser: Browser, alice: str, two: tuple[str, str, str, str]
) -> None:
    first, name, _, other = two
    browser.driver.set_page_load_timeout(5)
    try:
        with pytest.raises(WebDriverException):
            browser.open("chrome://crash")
    finally:
        browser.driver.set_page_load_timeout(300)
    wait_until_over(site, alice, other)
    browser.go_to(first)
    browser.wait_for_ticks(alice)
    assert site.running(alice) == [name]


@pytest.mark.parametrize("secure", [True, False])
def test_when_the_process_with_the_worker_is_killed_the_other_tabs_go_on_within_two_seconds(
    browser_at: Callable[..., Browser], site: Site, alice: str, secure: bool
) -> None:
    browser = browser_at(host=None if secure else HOST)
    browser.log_in(alice)
    name = browser.arrive(alice)
    browser.another_tab()
    other = browser.arrive(alice)
    host = browser.process_of_worker()
    assert host != browser.process_of_tab(), "the tabs share a process: the browser had better not"
    os.kill(host, signal.SIGKILL)
    wait_for(lambda: len(site.streams(alice)) == 3, 2 if secure else 12, "the other tab's stream to begin again")
    browser.wait_for_ticks(alice)
    wait_for(lambda: site.running(alice) == [other], PATIENCE, "the killed tab's stream to be over")
    assert name != other
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert len(site.proxy.live) == 1


# ------------------------------------------------------------------------------------------- the back-forward cache


@pytest.fixture
def cached(browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str) -> tuple[Browser, Site, str]:
    """A page that may be kept, of an app that needs no login; alice is logged in all the same."""
    browser, site = browser_at(LOGIN_REQUIRED="0"), sites(LOGIN_REQUIRED="0")
    browser.log_in(alice)
    return browser, site, browser.arrive(alice)


def test_a_page_that_goes_into_the_back_forward_cache_is_detached_and_attached_again_when_it_is_back(
    cached: tuple[Browser, Site, str], alice: str
) -> None:
    browser, site, name = cached
    browser.js(f"location.href = '{site.origin}/plain'")
    browser.wait_for(lambda: browser.place == "/plain", "the other page")
    wait_until_over(site, alice, name)
    wait_for(lambda: not site.proxy.live, SECONDS, "the socket to be closed")
    browser.driver.back()
    browser.wait_for(lambda: browser.noted("restored"), "the page as it was left")
    assert browser.settle(alice) == name
    assert site.running(alice) == [name]
    assert len(site.proxy.live) == 1
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]


def test_a_page_that_comes_back_from_the_cache_after_its_session_has_ended_is_loaded_anew(
    cached: tuple[Browser, Site, str], alice: str
) -> None:
    browser, site, name = cached
    browser.js(f"location.href = '{site.origin}/logout'")
    browser.wait_for(lambda: browser.place == "/logout", "the other page")
    wait_until_over(site, alice, name)
    browser.driver.back()
    browser.settle(None)
    assert browser.text("tab") != name
    assert len([path for _, path in browser.noted("load") if path == "/"]) <= 3


# --------------------------------------------------------------------------------------------- without a secure context


def test_without_web_locks_a_closed_tab_is_noticed_and_the_other_goes_on(
    browser_at: Callable[..., Browser], site: Site, alice: str
) -> None:
    browser = browser_at(host=HOST)
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    assert browser.js("return [isSecureContext, 'locks' in navigator]") == [False, False]
    second = browser.another_tab()
    other = browser.arrive(alice)
    assert len(site.proxy.live) == 1
    browser.close_tab(second, then=first)
    wait_until_over(site, alice, other, 10)
    browser.wait_for_ticks(alice)
    assert site.running(alice) == [name]


def test_without_web_locks_a_crashed_tab_is_noticed(browser_at: Callable[..., Browser], site: Site, alice: str) -> None:
    browser = browser_at(host=HOST)
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    browser.another_tab()
    other = browser.arrive(alice)
    crashing = browser.process_of_tab()
    assert browser.process_of_worker() != crashing
    os.kill(crashing, signal.SIGKILL)
    wait_until_over(site, alice, other, 15)
    browser.go_to(first)
    browser.wait_for_ticks(alice)
    assert site.running(alice) == [name]


# ----------------------------------------------------------------------------------------------- who else is there


def test_two_apps_on_one_origin_have_a_socket_each_and_do_not_mix(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(PREFIXES="/a/,/b/"), sites(PREFIXES="/a/,/b/")
    browser.log_in(alice)
    tabs = {browser.tab: "/a/"}
    browser.arrive(alice, "/a/")
    tabs[browser.another_tab()] = "/b/"
    browser.arrive(alice, "/b/")
    assert sorted(site.proxy.live) == ["/a/_dash-ws-callback", "/b/_dash-ws-callback"]
    assert site.proxy.most == 1
    for tab, prefix in tabs.items():
        browser.go_to(tab)
        browser.click_until("go", lambda p=prefix: browser.text("who") == f"{alice} 1 in {p}", "its own app's answer")
    assert site.get("/push-all/only-a") == {"connections": 1}
    browser.go_to(next(iter(tabs)))
    browser.wait_for_text("news", "only-a")
    browser.go_to(list(tabs)[1])
    browser.wait_for_ticks(alice)
    assert browser.text("news") == ""
    browser.at("/logout")
    browser.go_to(next(iter(tabs)))
    browser.wait_for_login("/a/")


def test_the_apps_own_shared_worker_is_as_it_would_be_without_us(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    heard = browser.ajs(
        """const worker = new SharedWorker("/own-worker.js", {name: "mine"});
        if (!(worker instanceof SharedWorker)) return "no SharedWorker";
        return new Promise((heard) => {
          worker.port.onmessage = ({data}) => heard(data);
          worker.port.postMessage("hello");
        });"""
    )
    assert heard == "mine heard hello"
    own, bridge = sorted(browser.workers(), key=lambda url: "own-worker" not in url)
    assert own == f"{site.origin}/own-worker.js"
    assert digest_of(bridge)


# ------------------------------------------------------------------------------------------------------ inactivity


@pytest.fixture
def idle(browser_at: Callable[..., Browser], sites: Callable[..., Site]) -> tuple[Browser, Site]:
    """A site where nothing goes on by itself, and hidden tabs lose their socket after two seconds."""
    options = {"INACTIVITY": "2000", "PUBLIC": "yes", "STILL": "1"}
    return browser_at(**options), sites(**options)


def test_a_hidden_tab_is_disconnected_and_comes_back_when_it_is_shown(idle: tuple[Browser, Site], alice: str) -> None:
    browser, site = idle
    browser.log_in(alice)
    browser.at()
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    tab = browser.tab
    browser.another_tab(url=f"{site.origin}/plain")
    wait_for(lambda: not site.proxy.live, PATIENCE, "the socket to be closed")
    assert browser.js_behind(tab, VISIBILITY) == "hidden"
    browser.go_to(tab)
    wait_for(lambda: len(site.proxy.live) == 1, PATIENCE, "the socket to be back")
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 2", "an answer")
    assert {over for _, _, over in site.ran("go", alice)} == {"websocket"}
    assert len(browser.noted("load")) == 2


def test_a_hidden_tab_that_asks_something_comes_back_by_itself(idle: tuple[Browser, Site], alice: str) -> None:
    browser, site = idle
    browser.log_in(alice)
    browser.at()
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    tab = browser.tab
    browser.another_tab(url=f"{site.origin}/plain")
    wait_for(lambda: not site.proxy.live, PATIENCE, "the socket to be closed")
    assert browser.js_behind(tab, VISIBILITY) == "hidden"
    browser.js_behind(tab, "document.getElementById('go').click()")
    browser.wait_for(lambda: browser.js_behind(tab, "document.getElementById('who').textContent") == f"{alice} 2", "it")
    assert browser.js_behind(tab, VISIBILITY) == "hidden"
    assert site.ran("go", alice)[1:] == [(alice, 2, "websocket")]


def test_a_visible_idle_tab_keeps_its_socket(idle: tuple[Browser, Site], alice: str) -> None:
    browser, site = idle
    browser.log_in(alice)
    browser.at()
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert browser.js(f"return {VISIBILITY}") == "visible"
    assert stays(lambda: len(site.proxy.live) == 1, 5)
    assert len(site.proxy.handshakes) == 1
