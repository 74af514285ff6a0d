"""Callbacks over the websocket that do something to the browser: cookies, quart's session, login and logout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.keys import Keys

from ..server import wait_for
from .browser import PATIENCE, Browser, Site, stays

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(180)

OPTIONS = {"EFFECTS": "yes"}
OPEN = {**OPTIONS, "LOGIN_REQUIRED": "0"}

AT_THE_SIGHT = """
const shown = document.getElementById(arguments[0]);
window.atTheSight = [];
new MutationObserver(() => window.atTheSight.push([shown.textContent, document.cookie])).observe(
    shown, {subtree: true, childList: true, characterData: true});
"""
"""Notes what the page's cookies are whenever something new is shown there."""


@pytest.fixture
def site(sites: Callable[..., Site]) -> Site:
    return sites(**OPTIONS)


@pytest.fixture
def browser(site: Site, browser_at: Callable[..., Browser]) -> Browser:
    return browser_at(**OPTIONS)


@pytest.fixture
def open_site(sites: Callable[..., Site]) -> Site:
    return sites(**OPEN)


def me(browser: Browser) -> dict[str, Any]:
    """Whom a request of the page's makes."""
    found: dict[str, Any] = browser.ajs("return await (await fetch('/me')).json()")
    return found


def sign_in(browser: Browser, form: str) -> None:
    """With the page's own form: a name, and where to go afterwards if anywhere."""
    (field,) = browser.driver.find_elements("id", "name")
    field.send_keys(Keys.CONTROL, "a")  # Dash's component takes no notice of `clear`
    field.send_keys(form)
    browser.click("sign-in")


# ------------------------------------------------------------------------------------------------ cookies and session


def test_a_cookie_is_there_before_what_the_callback_returns_is_shown(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.js(AT_THE_SIGHT, "painted")
    for clicks in (1, 2):
        browser.click("paint")
        browser.wait_for_text("painted", f"painted {clicks}")
    seen = browser.js("return window.atTheSight")
    assert [(text, f"colour=blue{text[-1]}" in cookies) for text, cookies in seen] == [
        ("painted 1", True),
        ("painted 2", True),
    ]
    assert "colour" in me(browser)["cookies"]
    browser.click("look")
    browser.wait_for_text("looked", f"1: blue2 None {alice}")
    assert {over for _, _, over in site.ran("paint", alice)} == {"websocket"}
    assert browser.details("close") == [], "nothing of that costs the socket"


def test_quarts_session_is_kept_over_pages_and_transports(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    for count in (1, 2):
        browser.click("count")
        browser.wait_for_text("counted", f"counted {count}")
    assert me(browser)["session"] == {"count": 2}
    browser.arrive(alice)
    browser.click("count")
    browser.wait_for_text("counted", "counted 3")
    assert me(browser)["session"] == {"count": 3}


def test_a_renewal_is_a_new_cookie_of_the_same_session(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    name = browser.arrive(alice)
    before = {one["name"]: one for one in browser.cdp("Network.getCookies")["cookies"]}["QUART_AUTH"]
    browser.click("renew")
    browser.wait_for_text("renewed", "renewed 1")
    after = {one["name"]: one for one in browser.cdp("Network.getCookies")["cookies"]}["QUART_AUTH"]
    assert (before["session"], after["session"]) == (True, False), "it outlives the browser now"
    assert me(browser)["user"] == alice
    assert site.running(alice) == [name], "the stream goes on"


# ------------------------------------------------------------------------------------------------------------- logout


def test_a_logout_button_is_an_ordinary_callback_and_every_tab_goes_to_the_login(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    other = browser.tab
    browser.another_tab()
    browser.arrive(alice)
    browser.click("sign-out")
    browser.wait_for_login()
    assert me(browser) == {**me(browser), "user": None}
    assert "QUART_AUTH" not in me(browser)["cookies"], "the cookie is gone, too"
    assert [one["code"] for one in browser.details("session-ended")] == [4501]
    browser.go_to(other)
    browser.wait_for_login()
    assert site.running(alice) == []


def test_a_logout_that_leads_somewhere_leads_there(site: Site, browser: Browser, alice: str) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.click("sign-out-and-go")
    browser.wait_for(lambda: browser.place == "/plain", "the page that the callback leads to")
    assert "QUART_AUTH" not in me(browser)["cookies"]
    assert [path for _, path in browser.noted("load")][-2:] == ["/", "/plain"], "and nowhere else on the way"
    assert stays(lambda: browser.place == "/plain", 1.5)


def test_where_no_login_is_needed_the_page_shows_its_goodbye_and_goes_on_as_nobodys(
    open_site: Site, browser_at: Callable[..., Browser], alice: str
) -> None:
    browser = browser_at(**OPEN)
    browser.log_in(alice)
    name = browser.arrive(alice)
    browser.click("sign-out")
    browser.wait_for_text("signed-out", "goodbye None")
    browser.wait_for_ticks(None)
    assert browser.text("tab") == name, "it was not loaded anew"
    browser.click("look")
    browser.wait_for_text("looked", "1: None None None")
    assert open_site.running(alice) == []


# -------------------------------------------------------------------------------------------------------------- login


def test_a_login_form_is_an_ordinary_callback_and_its_page_goes_on_as_the_users(
    open_site: Site, browser_at: Callable[..., Browser], alice: str, bob: str
) -> None:
    browser = browser_at(**OPEN)
    name = browser.arrive(None)
    other = browser.tab
    browser.another_tab()
    in_form = browser.arrive(None)
    for user in (alice, bob):
        sign_in(browser, user)
        browser.wait_for_text("signed-in", f"welcome {user}")
        assert me(browser)["user"] == user
        browser.wait_for_ticks(user)
        browser.click_until("look", lambda user=user: browser.text("looked").endswith(f" None {user}"), "the new user")
        assert browser.text("tab") == in_form, "it was not loaded anew"
        assert open_site.ran("look", user)[-1][2] == "websocket"
        assert [one["code"] for one in browser.details("close")][-1] == 4102
    assert not open_site.running(alice)
    assert not open_site.running(None)
    browser.go_to(other)
    browser.settle(bob)
    assert browser.text("tab") != name, "the other tab was: its page was made for somebody else"


def test_a_login_form_that_leads_somewhere_leads_there(
    open_site: Site, browser_at: Callable[..., Browser], alice: str
) -> None:
    browser = browser_at(**OPEN)
    browser.arrive(None)
    sign_in(browser, f"{alice} /plain")
    browser.wait_for(lambda: browser.place == "/plain", "the page that the callback leads to")
    assert me(browser)["user"] == alice
    assert stays(lambda: browser.place == "/plain", 1.5)


@pytest.mark.parametrize(("public", "over"), [("stream", "websocket"), ("yes", "http")])
def test_a_login_form_on_a_public_page_works_with_a_socket_and_without(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str, public: str, over: str
) -> None:
    options = {**OPTIONS, "PUBLIC": public}
    browser, site = browser_at(**options), sites(**options)
    browser.at("/")
    browser.wait_for(lambda: browser.driver.find_elements("id", "sign-in"), "the form")
    if public == "stream":
        browser.wait_for(lambda: browser.text("public-clock").startswith("None "), "the public stream")
    sign_in(browser, f"{alice} /?next=1")
    browser.wait_for(lambda: browser.place == "/?next=1", "the page that the callback leads to")
    browser.settle(alice)
    assert [one[2] for one in site.ran("sign-in") if one[0] is None][-1] == over


def test_what_was_asked_before_the_login_is_not_run_and_not_shown_after_it(
    open_site: Site, browser_at: Callable[..., Browser], alice: str, bob: str
) -> None:
    browser = browser_at(**OPEN)
    browser.log_in(alice)
    browser.arrive(alice)
    browser.click("work")
    browser.wait_for(lambda: open_site.ran("work", alice), "the slow callback to have begun")
    sign_in(browser, bob)
    browser.wait_for_text("signed-in", f"welcome {bob}")
    browser.wait_for_ticks(bob)
    open_site.release(alice, 1)
    open_site.release(bob, 1)
    browser.click_until("look", lambda: browser.text("looked").endswith(bob), "the new user")
    assert open_site.ran("work", bob) == []
    assert browser.text("worked") == ""
    assert browser.is_settled
    wait_for(lambda: len(open_site.proxy.live) == 1, PATIENCE, "one socket")


def test_without_a_shared_worker_login_and_logout_work_as_well(
    open_site: Site, browser_at: Callable[..., Browser], alice: str
) -> None:
    browser = browser_at(**OPEN)
    browser.witness("delete window.SharedWorker;")
    name = browser.arrive(None)
    sign_in(browser, alice)
    browser.wait_for_text("signed-in", f"welcome {alice}")
    browser.wait_for_ticks(alice)
    browser.click("sign-out")
    browser.wait_for_text("signed-out", "goodbye None")
    browser.wait_for_ticks(None)
    assert browser.text("tab") == name
    assert me(browser)["user"] is None
    assert len(open_site.proxy.live) == 1


def test_when_the_effects_cannot_be_fetched_the_callback_is_an_error_and_nothing_is_shown(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.log_in(alice)
    browser.arrive(alice)
    browser.cdp("Network.enable")
    browser.cdp("Network.setBlockedURLs", urls=["*/_dash-quart-ws/effects*"])
    try:
        browser.click("paint")
        browser.wait_for(lambda: any("cannot be reached" in one for one in browser.errors()), "the error")
        assert browser.text("painted") == ""
        assert browser.is_settled
    finally:
        browser.cdp("Network.setBlockedURLs", urls=[])
    browser.click("paint")
    browser.wait_for_text("painted", "painted 2")
