"""The demo in real browsers: what its users can rely on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By

from ..server import closed, wait_for

if TYPE_CHECKING:
    from .browser import Browser, Profile
    from .demo import Demo

pytestmark = pytest.mark.browser


def test_signing_in_through_the_form_leads_to_a_dashboard_that_moves(browser: Browser) -> None:
    browser.open()
    assert browser.place == "/login?next=/"
    browser.sign_in("alice")
    assert browser.place == "/"
    browser.wait_for_change(lambda: browser.text("clock"), "the clock")
    browser.wait_for_change(browser.last_point, "the chart")
    browser.wait_for_change(lambda: browser.text("sites"), "the table")


@pytest.mark.parametrize("name", ["alice", "nobody-of-that-name"])
def test_a_wrong_password_says_so_and_signs_nobody_in(browser: Browser, name: str) -> None:
    browser.open()
    browser.fill_in(name, "a guess")
    browser.wait_for(lambda: browser.driver.find_elements(By.CLASS_NAME, "error"), "the error")
    assert browser.driver.find_element(By.CLASS_NAME, "error").text == "The name or the password is wrong."
    browser.open()
    assert browser.place == "/login?next=/"


def test_a_deep_link_leads_through_the_login_and_back_with_its_query(browser: Browser) -> None:
    browser.sign_in("alice", "/reports?site=Harbour&days=7")
    assert browser.place == "/reports?site=Harbour&days=7"


def test_a_login_never_leads_to_another_site(browser: Browser) -> None:
    browser.sign_in("alice", "/login?next=//example.org/")
    assert browser.place == "/"
    assert browser.driver.current_url.startswith(browser.demo.url)


def test_a_sign_out_in_one_tab_ends_the_other_tab_as_well(browser: Browser, demo: Demo) -> None:
    browser.sign_in("alice")
    first = browser.tab
    second = browser.new_tab("/?tab=2")
    browser.wait_for_badge("Live")
    connected = demo.count("connect", "alice")
    browser.go_to(first)
    browser.click("sign-out")
    browser.wait_for(lambda: browser.place == "/login", "the login page")
    wait_for(lambda: demo.count("close", "alice") == connected, what="every socket to be closed")

    browser.go_to(second)
    browser.wait_for_badge("You are signed out. Sign in again")
    frozen = browser.text("clock")
    browser.js("const box = document.getElementById('wind'); box.focus(); box.select()")
    browser.driver.switch_to.active_element.send_keys("12")
    browser.js(GONE)
    browser.wait_for(lambda: browser.js("return window.gone"), "a socket of its own to be closed as well")
    assert browser.js("return window.gone") in (4001, 4501)
    assert (browser.text("clock"), browser.text("power")) == (frozen, "A turbine makes 1.60 MW at 8.5 m/s")
    assert demo.count("connect", "alice") == connected

    browser.click("badge")
    browser.wait_for(lambda: browser.place == "/login?next=%2F%3Ftab%3D2", "the login page, with the way back")
    browser.fill_in("alice", demo.password("alice"))
    browser.wait_for_badge("Live")
    assert browser.place == "/?tab=2"


def test_a_new_login_in_another_tab_brings_the_ended_page_back_as_its_own(browser: Browser) -> None:
    browser.sign_in("alice")
    ended = browser.tab
    other = browser.new_tab("/")
    browser.wait_for_badge("Live")
    browser.click("sign-out")
    browser.go_to(ended)
    browser.wait_for_badge("You are signed out")
    browser.go_to(other)
    browser.sign_in("bob")
    browser.go_to(ended)
    browser.wait_for(lambda: "bob" in browser.text("me"), "the page to be bob's")
    browser.wait_for_badge("Live")


def test_after_a_sign_out_the_back_button_leads_to_the_login(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.click("sign-out")
    browser.wait_for(lambda: browser.place == "/login", "the login page")
    browser.driver.back()
    browser.wait_for(lambda: browser.place == "/login?next=/", "the login page")
    browser.driver.refresh()
    assert browser.place == "/login?next=/"
    assert browser.text("clock") == ""


def test_a_page_that_was_left_before_its_session_ended_comes_back_as_the_login(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.open("/assets/demo.css")
    assert browser.fetch("/logout", "POST")[0] == 200
    browser.driver.back()
    browser.wait_for(lambda: browser.place == "/login?next=/", "the login page")
    assert browser.text("clock") == ""


def test_the_progress_bar_of_a_long_callback_runs_to_its_end(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.click("run")
    browser.wait_for(lambda: 0 < browser.value("progress") < 50, "the bar to begin")
    assert not browser.driver.find_element(By.ID, "run").is_enabled()
    browser.wait_for(lambda: 50 < browser.value("progress") < 100, "the bar to go on")
    browser.wait_for(lambda: "MWh a day" in browser.text("report"), "the report")
    assert browser.value("progress") == 100
    browser.wait_for(browser.driver.find_element(By.ID, "run").is_enabled, "the button to be free again")


def test_the_text_box_is_answered_as_one_types(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.wait_for(lambda: browser.text("power") == "A turbine makes 1.60 MW at 8.5 m/s", "the first answer")
    box = browser.driver.find_element(By.ID, "wind")
    box.send_keys("1")
    browser.wait_for(lambda: browser.text("power").endswith("at 8.51 m/s"), "an answer")
    box.send_keys(" and more")
    browser.wait_for(lambda: browser.text("power").startswith("Type a wind speed"), "help")


def test_the_administrator_ends_one_session_and_the_others_live_on(profile: Profile) -> None:
    alice, bob, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    bob.sign_in("bob")
    admin.sign_in("admin")
    admin.wait_for(lambda: [row[0] for row in people(admin)] == ["alice", "bob", "admin"], "everyone")
    assert people(admin)[2][-1] == "this browser"
    row = admin.driver.find_element(By.XPATH, "//*[@id='people']//tr[td='alice']")
    row.find_element(By.TAG_NAME, "button").click()
    alice.wait_for_badge("You are signed out")
    admin.wait_for(lambda: "Session ended. Connections closed: 1, in" in admin.text("notice"), "the receipt")
    admin.wait_for(lambda: [row[0] for row in people(admin)] == ["bob", "admin"], "alice to be gone from the list")
    bob.wait_for_news()
    admin.wait_for_news()
    alice.driver.refresh()
    assert alice.place == "/login?next=/"


def test_nobody_else_sees_or_calls_what_is_the_administrators(profile: Profile) -> None:
    alice, bob, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    bob.sign_in("bob")
    admin.sign_in("admin")
    admin.wait_for(lambda: len(people(admin)) == 3, "everyone")
    end = end_request(admin, "alice")
    bob.wait_for_news()
    assert bob.text("admin") == ""
    assert "Who is connected" not in bob.fetch("/_dash-layout")[1]

    assert bob.fetch("/_dash-update-component", "POST", end)[0] == 403
    answer = over_websocket(bob, end)
    assert answer["payload"]["status"] == "error", answer
    alice.wait_for_news()
    assert len(people(admin)) == 3

    # The same requests, from the administrator: it was not for their form that they were refused.
    assert over_websocket(admin, end)["payload"]["status"] == "ok"
    alice.wait_for_badge("You are signed out")


def test_signing_out_everywhere_else_keeps_this_browser_and_ends_the_other(profile: Profile) -> None:
    here, there = profile("first"), profile("second")
    here.sign_in("alice")
    there.sign_in("alice")
    here.click("elsewhere")
    there.wait_for_badge("You are signed out")
    here.wait_for(lambda: "Signed out everywhere else. Connections closed: 1, in" in here.text("notice"), "the receipt")
    here.wait_for_news()
    here.driver.refresh()
    here.wait_for_badge("Live")
    there.driver.refresh()
    assert there.place == "/login?next=/"


def test_nothing_is_wider_than_the_screen(browser: Browser) -> None:
    browser.sign_in("admin")
    browser.wait_for(lambda: len(people(browser)) == 1, "the list")
    try:
        for width in (360, 390, 768, 1000, 1100, 1400):
            screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800}
            browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            browser.wait_for(lambda: browser.js(TOO_WIDE) == [], f"everything to fit into {width} pixels")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_a_form_on_another_site_signs_nobody_in_or_out(demo: Demo, path: str) -> None:
    body = f"name=alice&password={demo.password('alice')}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for foreign in ({}, {"Origin": "null"}, {"Origin": "https://example.org"}, {"Origin": f"{demo.url}.example.org"}):
        assert demo.server.request("POST", path, body=body, headers={**form, **foreign}).status == 403
    assert demo.server.request("POST", path, body=body, headers={**form, "Origin": demo.url}).status == 303


async def test_a_restart_closes_with_1012_and_the_page_comes_back_in_its_session(browser: Browser, demo: Demo) -> None:
    await asyncio.to_thread(browser.sign_in, "alice")
    (cookie,) = browser.driver.get_cookies()
    async with demo.server.connect(f"{cookie['name']}={cookie['value']}") as socket:
        before = demo.log
        stopping = asyncio.create_task(asyncio.to_thread(demo.stop))
        assert await closed(socket) == (1012, "the server restarts")
    assert await stopping == 0
    assert "Traceback" not in demo.log.removeprefix(before)
    await asyncio.to_thread(browser.wait_for_badge, "The server is away")
    await asyncio.to_thread(demo.start)
    await asyncio.to_thread(browser.wait_for_badge, "Live")
    await asyncio.to_thread(browser.wait_for_news)


# ----------------------------------------------------------------------------------------------------- how to ask

TOO_WIDE = """const right = (one) => one.getBoundingClientRect().right;
return [...document.querySelectorAll("header *, .card, .card :is(h2, strong, button, input, progress, p), #sites table")]
  .filter((one) => !one.closest("#people"))  // that list scrolls in its card
  .filter((one) => right(one) > right(one.closest("header, .card")) + 1 || right(one) > document.documentElement.clientWidth)
  .map((one) => one.outerHTML);"""
"""What sticks out of its card, or of the screen."""

GONE = """const socket = new WebSocket(`ws://${location.host}/_dash-ws-callback`);
socket.onclose = (event) => { window.gone = event.code; };"""
"""A socket that a script of the page opens, and the code that the server closes it with."""


def people(browser: Browser) -> list[list[str]]:
    """The rows of the administrator's list."""
    return browser.js(
        "return [...document.querySelectorAll('#people tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )


def end_request(admin: Browser, user: str) -> dict[str, Any]:
    """The callback request that the administrator's button for a user sends."""
    (specification,) = (
        one for one in json.loads(admin.fetch("/_dash-dependencies")[1]) if "session" in str(one["inputs"])
    )
    button = admin.driver.find_element(By.XPATH, f"//*[@id='people']//tr[td='{user}']//button")
    id = json.loads(button.get_attribute("id"))
    return {
        "output": specification["output"],
        "outputs": {"id": "notice", "property": specification["output"].partition(".")[2]},
        "inputs": [[{"id": id, "property": "n_clicks", "value": 1}]],
        "changedPropIds": [f"{button.get_attribute('id')}.n_clicks"],
        "state": [],
    }


def over_websocket(browser: Browser, payload: dict[str, Any]) -> dict[str, Any]:
    """The answer to a callback request that a script of the page sends over a websocket of its own."""
    message = {"type": "callback_request", "requestId": "r", "rendererId": "script", "payload": payload}
    return browser.driver.execute_async_script(
        """const [message, done] = arguments;
        const socket = new WebSocket(`ws://${location.host}/_dash-ws-callback`);
        socket.onopen = () => socket.send(message);
        socket.onmessage = (event) => {
          const answer = [JSON.parse(event.data)].flat().find((one) => one.type === "callback_response");
          if (answer) { socket.close(); done(answer); }
        };""",
        json.dumps(message),
    )
