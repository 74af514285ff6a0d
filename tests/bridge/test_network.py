"""The network and the server fail, and come back: what was asked is done once, or answered with an error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ..server import wait_for
from .browser import PATIENCE, Browser, Site, stays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)

SOCKET = "/_dash-ws-callback"
CLICK = "document.getElementById('go').click()"


@pytest.fixture
def live(site: Site, browser: Browser, alice: str) -> Browser:
    """Alice's page, with its stream."""
    browser.log_in(alice)
    browser.arrive(alice)
    return browser


def is_whole(site: Site, browser: Browser, alice: str) -> None:
    """One socket, one stream for the tab, nothing that waits."""
    browser.settle(alice)
    browser.wait_for(lambda: browser.is_settled, "the page to wait for nothing")
    assert (site.proxy.live, site.proxy.most) == ([SOCKET], 1)
    assert site.running(alice) == [browser.text("tab")]
    browser.wait_for(lambda: browser.status() == "", "nothing to be said of the connection")


def test_after_a_restart_of_the_server_the_page_goes_on(site: Site, live: Browser, alice: str) -> None:
    tab = live.text("tab")
    site.stop()
    live.wait_for(lambda: live.details("close"), "the news")
    site.start()
    live.wait_for(lambda: len(live.details("open")) == 2, "the socket to be back", 60)
    is_whole(site, live, alice)
    assert [one["tab"] for one in site.streams(alice)] == [tab]  # one run in the new server
    live.click_until("go", lambda: live.text("who") == f"{alice} 1", "a click that works")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert len(live.noted("load")) == 2


def test_a_cut_and_a_click_at_once_leave_one_socket_and_one_stream(site: Site, live: Browser, alice: str) -> None:
    for number in range(1, 4):
        site.proxy.cut("websocket")
        live.js(CLICK)
        live.wait_for(lambda n=number: len(live.details("open")) == n + 1, "the socket to be back")
        is_whole(site, live, alice)
    clicks = [clicks for _, clicks, _ in site.ran("go", alice)]
    assert clicks == sorted(set(clicks)), "each click runs once at most"
    assert len(site.proxy.handshakes) == 4
    assert len(live.noted("load")) == 2


def test_coming_back_online_while_a_retry_is_due_opens_no_second_socket(site: Site, live: Browser, alice: str) -> None:
    site.proxy.refuse()
    site.proxy.cut()
    live.wait_for(lambda: live.details("close"), "the news")
    site.proxy.accept()
    live.js("for (let i = 0; i < 5; i++) dispatchEvent(new Event('online'))")
    live.wait_for(lambda: len(live.details("open")) == 2, "the socket to be back")
    is_whole(site, live, alice)
    assert len(site.proxy.handshakes) == 2


def test_clicks_made_offline_run_once_when_the_socket_is_back_in_the_same_session(
    site: Site, live: Browser, alice: str
) -> None:
    site.proxy.refuse()
    site.proxy.cut()
    live.wait_for(lambda: live.details("close"), "the news")
    live.click("work")
    live.js(CLICK)
    assert live.js("return document.getElementById('work').disabled")
    site.proxy.accept()
    wait_for(lambda: site.ran("work", alice), PATIENCE, "the callback to run")
    site.release(alice, 1)
    live.wait_for_text("worked", f"{alice} worked 1")
    live.wait_for_text("who", f"{alice} 1")
    is_whole(site, live, alice)
    assert len(site.ran("work", alice)) == len(site.ran("go", alice)) == 1
    assert not live.js("return document.getElementById('work').disabled")


def test_what_was_in_flight_when_the_socket_broke_is_answered_with_an_error_and_nothing_hangs(
    site: Site, live: Browser, alice: str
) -> None:
    live.click("work")
    wait_for(lambda: site.ran("work", alice), PATIENCE, "the callback to run")
    assert live.js("return document.title") == "Updating..."
    site.proxy.cut("websocket")
    live.wait_for(lambda: live.is_settled, "the page to wait for nothing")
    assert not live.js("return document.getElementById('work').disabled")
    assert [text for text in live.errors() if "connection was lost" in text] != []
    site.release(alice, 1)
    is_whole(site, live, alice)
    assert live.text("worked") == ""
    assert len(site.ran("work", alice)) == 1
    live.click("work")  # it can be asked again
    site.release(alice, 2)
    live.wait_for_text("worked", f"{alice} worked 2")


def test_with_the_socket_refused_a_click_goes_over_http_and_later_over_the_socket_again(
    site: Site, live: Browser, alice: str
) -> None:
    site.proxy.refuse(only="websocket")
    live.click_until("go", lambda: live.text("who") == f"{alice} 1", "an answer over HTTP")
    assert site.ran("go", alice) == [(alice, 1, "http")]
    site.proxy.accept()
    live.js("dispatchEvent(new Event('online'))")
    live.wait_for(lambda: len(live.details("open")) == 2, "the socket to be back", 60)
    live.click_until("go", lambda: live.text("who") == f"{alice} 2", "an answer")
    assert site.ran("go", alice)[1:] == [(alice, 2, "websocket")]
    is_whole(site, live, alice)


def test_a_page_that_is_loaded_while_the_socket_is_refused_works_over_http(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    site.proxy.refuse(only="websocket")
    browser.at()
    browser.wait_for_text("who", f"{alice} None")
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer over HTTP")
    browser.click("ask")  # it needs the websocket
    browser.wait_for(lambda: browser.is_settled and len(browser.errors()) > 0, "an error, and no callback that hangs")
    site.proxy.accept()
    browser.js("dispatchEvent(new Event('online'))")
    is_whole(site, browser, alice)


def test_with_everything_refused_a_click_gets_an_error_in_time(site: Site, live: Browser, alice: str) -> None:
    site.proxy.refuse()
    site.proxy.cut()
    live.js("document.getElementById('work').click()")
    live.wait_for(lambda: live.is_settled and "cannot be reached" in " ".join(live.errors()), "an error", 45)
    assert not live.js("return document.getElementById('work').disabled")
    site.proxy.accept()
    live.js("dispatchEvent(new Event('online'))")
    is_whole(site, live, alice)
    assert site.ran("work", alice) == []  # it was given up, and is not done behind anybody's back


def test_a_half_open_connection_is_noticed_within_two_heartbeats_on_both_sides(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    interval = 3.0
    browser, site = browser_at(HEARTBEAT="3000"), sites(HEARTBEAT="3000")
    browser.log_in(alice)
    browser.arrive(alice)
    (before,) = site.connections(alice)
    began = time.monotonic()
    site.proxy.freeze()  # what is new gets through
    browser.wait_for(lambda: browser.details("close"), "the browser to notice", 2 * interval)
    wait_for(
        lambda: before["id"] not in [one["id"] for one in site.connections(alice)],
        2 * interval + 0.5 - (time.monotonic() - began),
        "the server to notice",
    )
    assert {one["code"] for one in browser.details("close")} == {4106}
    browser.settle(alice)
    assert site.proxy.live == [SOCKET]
    assert site.running(alice) == [browser.text("tab")]


def test_a_network_that_was_away_without_a_word_leaves_one_socket_behind(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(HEARTBEAT="3000"), sites(HEARTBEAT="3000")
    browser.log_in(alice)
    browser.arrive(alice)
    site.proxy.freeze(new=True)
    browser.wait_for(lambda: browser.details("close"), "the browser to notice")
    browser.js(CLICK)
    site.proxy.thaw()
    browser.js("dispatchEvent(new Event('online'))")
    browser.wait_for_text("who", f"{alice} 1")
    browser.settle(alice)
    wait_for(lambda: len(site.connections(alice)) == 1, PATIENCE, "the old connections to be gone")
    assert site.proxy.live == [SOCKET]
    assert site.running(alice) == [browser.text("tab")]
    assert len(site.ran("go", alice)) == 1


def test_a_connection_with_heartbeats_lasts(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str
) -> None:
    browser, site = browser_at(HEARTBEAT="1000"), sites(HEARTBEAT="1000")
    browser.log_in(alice)
    browser.arrive(alice)
    assert stays(lambda: len(site.proxy.live) == 1, 4)
    assert len(site.proxy.handshakes) == 1
    assert browser.details("close") == []


def test_on_a_slow_network_the_page_works(site: Site, live: Browser, alice: str) -> None:
    site.proxy.slow(20_000)
    live.click_until("go", lambda: live.text("who") == f"{alice} 1", "an answer")
    live.click_until("burst", lambda: live.text("order") == "burst 1", "the burst to come through")
    site.proxy.cut("websocket")
    live.wait_for(lambda: len(live.details("open")) == 2, "the socket to be back")
    is_whole(site, live, alice)
    assert len(live.noted("load")) == 2


def test_updates_and_the_response_arrive_in_the_order_in_which_they_were_sent(
    site: Site, live: Browser, alice: str
) -> None:
    live.click_until("burst", lambda: live.text("order") == "burst 1", "the response to be the last word")
    assert live.text("ordered") == "".join(str(number) for number in range(200))
    assert stays(lambda: live.text("order") == "burst 1", 0.5)


def test_an_upload_of_thirty_megabytes_goes_over_http_by_itself(
    site: Site, live: Browser, alice: str, tmp_path: Path
) -> None:
    size = 30 * 1024 * 1024
    file = tmp_path / "large.bin"
    file.write_bytes(b"\0" * size)
    live.driver.find_element("css selector", "#upload input[type=file]").send_keys(str(file))
    live.wait_for(lambda: live.text("uploaded").endswith("characters"), "the upload to be answered", 90)
    ((_, length, over),) = site.ran("upload", alice)
    assert over == "http"
    assert length > size * 4 / 3
    live.click_until("go", lambda: live.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert len(site.proxy.handshakes) == 1


def test_a_small_upload_goes_over_the_socket(site: Site, live: Browser, alice: str, tmp_path: Path) -> None:
    file = tmp_path / "small.bin"
    file.write_bytes(b"\0" * 100_000)
    live.driver.find_element("css selector", "#upload input[type=file]").send_keys(str(file))
    live.wait_for(lambda: live.text("uploaded").endswith("characters"), "the upload to be answered")
    ((_, _, over),) = site.ran("upload", alice)
    assert over == "websocket"
