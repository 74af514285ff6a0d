"""The demo in real browsers: what its users can rely on."""

from __future__ import annotations

import asyncio
import json
import re
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


def test_a_deep_link_leads_through_the_login_and_back_with_its_query_and_fragment(browser: Browser) -> None:
    browser.open("/sites/Harbour?from=mail#history")
    assert browser.place == "/login?next=/sites/Harbour%3Ffrom%3Dmail#history"
    browser.fill_in("alice", "a guess")
    browser.wait_for(lambda: browser.driver.find_elements(By.CLASS_NAME, "error"), "the error")
    browser.fill_in("alice", browser.demo.password("alice"))
    browser.wait_for_place("/sites/Harbour?from=mail#history")
    browser.wait_for_badge("Live")
    browser.wait_for(lambda: len(browser.rows("history")) == 8, "the site's history")
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "Harbour"
    browser.wait_for_change(lambda: browser.text("site-now"), "the output")


def test_every_page_is_reached_by_its_link_and_is_live(browser: Browser) -> None:
    browser.sign_in("alice")
    for link, place, title in (
        ("Account", "/account", "Account"),
        ("Status", "/status", "Status"),
        ("Dashboard", "/", "Dashboard"),
    ):
        browser.follow(link)
        browser.wait_for(lambda title=title: browser.text("_pages_content").startswith(title), title)
        browser.wait_for(lambda link=link: browser.js(HERE) == link, "the link to be marked")
        assert browser.place == place
    browser.wait_for_news()
    browser.driver.find_element(By.LINK_TEXT, "Northwind").click()
    browser.wait_for_place("/sites/Northwind")
    browser.wait_for_change(lambda: browser.text("site-now"), "the output")
    browser.wait_for_change(browser.last_point, "the chart")
    assert browser.js("return document.querySelector('#chart .js-plotly-plot').data.map(l => l.name)") == ["Northwind"]
    assert browser.text("badge") == "Live"


def test_a_login_never_leads_to_another_site(browser: Browser) -> None:
    browser.sign_in("alice", "/login?next=//example.org/")
    assert browser.place == "/"
    assert browser.driver.current_url.startswith(browser.demo.url)


def test_a_sign_out_in_one_tab_takes_the_other_one_to_the_login(browser: Browser, demo: Demo) -> None:
    browser.sign_in("alice")
    first = browser.tab
    second = browser.new_tab("/sites/Harbour?tab=2")
    browser.wait_for_badge("Live")
    connected = demo.count("connect", "alice")
    browser.go_to(first)
    browser.click("sign-out")
    browser.wait_for_place("/login")
    wait_for(lambda: demo.count("close", "alice") == connected, what="every socket to be closed")

    there = "/login?next=%2Fsites%2FHarbour%3Ftab%3D2"
    browser.wait_for(lambda: there in browser.tabs, "the tab in the background to be at the login")
    browser.go_to(second)
    power = {
        "output": "power.children",
        "outputs": {"id": "power", "property": "children"},
        "inputs": [{"id": "wind", "property": "value", "value": "9"}],
        "changedPropIds": ["wind.value"],
        "state": [],
    }
    assert over_websocket(browser, power)["payload"] == {"status": "error", "message": "login required"}
    assert demo.count("connect", "alice") == connected
    browser.fill_in("alice", demo.password("alice"))
    browser.wait_for_badge("Live")
    assert browser.place == "/sites/Harbour?tab=2"


def test_another_login_in_the_same_browser_makes_an_open_tab_its_own_with_one_reload(browser: Browser) -> None:
    browser.count_loads()
    browser.sign_in("alice", "/login")
    loads = browser.loads
    alices = browser.tab
    browser.new_tab("/login")
    browser.fill_in("bob", browser.demo.password("bob"))
    browser.wait_for_badge("Live")
    browser.go_to(alices)
    browser.wait_for(lambda: "bob" in browser.text("me"), "the page to be bob's")
    browser.wait_for_badge("Live")
    browser.wait_for_news()
    assert browser.loads == loads + 1


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
    browser.js(WATCH_BAR)
    browser.click("run")
    browser.wait_for(lambda: "MWh a day" in browser.text("report"), "the report")
    seen = browser.js("return window.bar")
    values = [value for value, _ in seen]
    assert values == sorted(values)
    assert 0 <= values[0] < 20 < 80 < values[-2] < values[-1] == 100
    assert len(values) > 20
    assert all(is_disabled for value, is_disabled in seen if 10 < value < 90)
    browser.wait_for(browser.driver.find_element(By.ID, "run").is_enabled, "the button to be free again")


def test_the_text_box_is_answered_as_one_types(browser: Browser) -> None:
    browser.sign_in("alice")
    browser.wait_for(lambda: browser.text("power") == "A turbine makes 1.60 MW at 8.5 m/s", "the first answer")
    box = browser.driver.find_element(By.ID, "wind")
    box.send_keys("1")
    browser.wait_for(lambda: browser.text("power").endswith("at 8.51 m/s"), "an answer")
    box.send_keys(" and more")
    browser.wait_for(lambda: browser.text("power").startswith("Type a wind speed"), "help")


# ------------------------------------------------------------------------------------------------- the account page


def test_people_see_where_they_are_signed_in_and_end_what_they_do_not_want(profile: Profile) -> None:
    here, there = profile("first"), profile("second")
    there.sign_in("alice")
    other = there.tab
    there.new_tab("/login")  # the first one is in the background from here on
    here.sign_in("alice", "/account")
    here.wait_for(lambda: sorted(row[-1] for row in here.rows("mine")) == ["Sign out", "this browser"], "the list")
    for row in here.rows("mine"):
        assert row[2:4] == ["127.0.0.1", "Chrome on Linux"]
        assert all(re.fullmatch(r"\d\d \w{3} \d\d:\d\d", moment) for moment in row[:2]), row

    here.press("Chrome on Linux", "Sign out")
    here.wait_for(lambda: "Signed out there. Connections closed: 1, in" in here.text("notice"), "the receipt")
    here.wait_for(lambda: [row[-1] for row in here.rows("mine")] == ["this browser"], "the other one to be gone")
    there.wait_for(lambda: "/login?next=%2F" in there.tabs, "the other browser's tab to be at the login")
    there.go_to(other)
    there.open("/account")
    assert there.place == "/login?next=/account"
    here.follow("Dashboard")
    here.wait_for_news()
    assert here.text("notice") == ""


def test_signing_out_everywhere_else_keeps_this_browser_and_ends_the_other(profile: Profile) -> None:
    here, there = profile("first"), profile("second")
    here.sign_in("alice", "/account")
    there.sign_in("alice", "/sites/Harbour#history")
    here.click("elsewhere")
    there.wait_for_place("/login?next=%2Fsites%2FHarbour%23history")
    here.wait_for(lambda: "Signed out everywhere else. Connections closed: 1, in" in here.text("notice"), "the receipt")
    here.wait_for(lambda: [row[-1] for row in here.rows("mine")] == ["this browser"], "the list")
    here.driver.refresh()
    here.wait_for_badge("Live")
    there.fill_in("alice", there.demo.password("alice"))
    there.wait_for_place("/sites/Harbour#history")


def test_somebody_elses_session_cannot_be_ended_from_an_account_page(profile: Profile, demo: Demo) -> None:
    alice, bob, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    bob.sign_in("bob", "/account")
    admin.sign_in("admin", "/admin")
    for id in (session_of(admin, "alice"), "no such session", None, ["list"]):
        forged = pressed({"sign-out": id}, admin)
        assert bob.call(forged)[0] == 403, id
        assert over_websocket(bob, forged)["payload"] == {"status": "error", "message": "403 Forbidden"}, id
    alice.wait_for_news()

    # The same request about a session of his own is carried out; it is the one that asks, and gets no receipt.
    own = pressed({"sign-out": session_of(admin, "bob")}, admin)
    cookie = f"windward={bob.driver.get_cookie('windward')['value']}"
    path = f"/_dash-update-component?endId={bob.page_token}"
    assert demo.server.request("POST", path, cookie=cookie, body=own).status == 401
    bob.wait_for_place("/login?next=%2Faccount")
    alice.wait_for_news()


# ------------------------------------------------------------------------------------------- the administrator's page


def test_the_administrator_ends_one_session_and_the_others_live_on(profile: Profile) -> None:
    alice, bob, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    bob.sign_in("bob")
    admin.sign_in("admin", "/admin")
    admin.wait_for(lambda: users(admin) == ["admin", "alice", "bob"], "everyone")
    assert admin.rows("sessions")[0][-1] == "this browser"
    admin.press("alice", "End session")
    alice.wait_for_place("/login?next=%2F")
    admin.wait_for(lambda: "Session ended. Connections closed: 1, in" in admin.text("notice"), "the receipt")
    admin.wait_for(lambda: users(admin) == ["admin", "bob"], "alice to be gone from the list")
    bob.wait_for_news()
    alice.open()
    assert alice.place == "/login?next=/"


def test_the_administrator_ends_all_of_a_user_and_everybody_elses(profile: Profile) -> None:
    alice, other, bob, admin = (profile(name) for name in ("first", "second", "third", "fourth"))
    alice.sign_in("alice")
    other.sign_in("alice", "/account")
    bob.sign_in("bob")
    admin.sign_in("admin", "/admin")
    admin.wait_for(lambda: users(admin) == ["admin", "alice", "alice", "bob"], "everyone")
    admin.press("alice", "End all of alice")
    alice.wait_for_place("/login?next=%2F")
    other.wait_for_place("/login?next=%2Faccount")
    admin.wait_for(lambda: "All sessions of alice ended. Connections closed: 2" in admin.text("notice"), "the receipt")
    admin.wait_for(lambda: users(admin) == ["admin", "bob"], "alice to be gone from the list")
    bob.wait_for_news()

    alice.fill_in("alice", alice.demo.password("alice"))  # ended is not banned
    alice.wait_for_badge("Live")
    admin.wait_for(lambda: users(admin) == ["admin", "alice", "bob"], "alice to be back in the list")
    admin.press(None, "End every session but mine")
    for ended in (alice, bob):
        ended.wait_for_place("/login?next=%2F")
    admin.wait_for(lambda: users(admin) == ["admin"], "the others to be gone from the list")
    admin.follow("Dashboard")
    admin.wait_for_news()


def test_an_announcement_reaches_everybody_who_is_signed_in_and_nobody_else(profile: Profile) -> None:
    alice, nobody, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    nobody.open("/status")
    nobody.wait_for_badge("Live")
    admin.sign_in("admin", "/admin")
    admin.wait_for(lambda: users(admin) == ["admin", "alice"], "everyone")
    admin.press(None, "Announce maintenance")
    for one in (alice, admin):
        one.wait_for(lambda one=one: one.text("notice") == "Maintenance in ten minutes", "the announcement")
    nobody.wait_for_news()
    assert nobody.text("notice") == ""


def test_nobody_else_sees_or_calls_what_is_the_administrators(profile: Profile) -> None:
    alice, bob, admin = profile("first"), profile("second"), profile("third")
    alice.sign_in("alice")
    bob.sign_in("bob")
    admin.sign_in("admin", "/admin")
    admin.wait_for(lambda: len(users(admin)) == 3, "everyone")
    assert bob.navigation == ["Dashboard", "Status", "Account"]
    bob.open("/admin")
    bob.wait_for(lambda: bob.text("people") == "Only administrators see what is here.", "the page to be empty")
    bob.wait_for_badge("Live")
    assert bob.rows("sessions") == []

    session = session_of(admin, "alice")
    for path in ("/", "/admin", "/_dash-layout"):
        assert not {"alice", session, "/admin"} & set(re.findall(r"[\w/]+", bob.fetch(path)[1])), path
    watch = {
        "output": "people.children",
        "outputs": {"id": "people", "property": "children"},
        "inputs": [{"id": "visit", "property": "data", "value": "x"}],
        "changedPropIds": ["visit.data"],
        "state": [{"id": "tab", "property": "data", "value": "x"}],
    }
    orders = [{"do": "end", "to": session}, {"do": "end-all", "to": session}, {"do": "end-others", "to": ""}]
    orders += [{"do": "switch", "to": "bob"}, {"do": "switch", "to": "admin"}, {"do": "announce", "to": ""}]
    for forged, answer in [
        (watch, "Only administrators see"),
        *((pressed(one, admin), "Only administrators may") for one in orders),
    ]:
        assert answer in bob.call(forged)[1], forged
        assert answer in json.dumps(over_websocket(bob, forged)), forged
    alice.wait_for_news()
    assert users(admin) == ["admin", "alice", "bob"]
    assert admin.js(CHECKED) == ["admin"]

    # The same request, from the administrator: it was not for its form that it was refused.
    assert "Session ended" in json.dumps(over_websocket(admin, pressed(orders[0], admin)))
    alice.wait_for_place("/login?next=%2F")


def test_who_becomes_an_administrator_sees_it_at_the_next_click_and_who_is_one_no_more_sees_nothing(
    profile: Profile, demo: Demo
) -> None:
    alice, admin = profile("first"), profile("second")
    alice.sign_in("alice")
    admin.sign_in("admin", "/admin")
    assert "Admin" not in alice.navigation
    admin.press("alice", "switch")
    admin.wait_for(
        lambda: "The rights of alice have changed. Connections closed: 0" in admin.text("notice"), "a receipt"
    )
    admin.wait_for(lambda: admin.js(CHECKED) == ["admin", "alice"], "the switch to be on")
    alice.wait_for_news()  # nothing of hers has ended
    alice.follow("Account")
    alice.follow("Admin")
    alice.wait_for(lambda: users(alice) == ["admin", "alice"], "the list")

    closed_before = demo.log.count("code=4101")
    admin.press("alice", "switch")
    admin.wait_for(
        lambda: "The rights of alice have changed. Connections closed: 1" in admin.text("notice"), "a receipt"
    )
    alice.wait_for(lambda: alice.text("people") == "Only administrators see what is here.", "the list to be gone")
    assert demo.log.count("code=4101") == closed_before + 1
    alice.follow("Dashboard")
    alice.wait_for_news()
    alice.wait_for(lambda: "Admin" not in alice.navigation, "the link to be gone")


def test_administrators_cannot_take_their_own_rights_away(browser: Browser) -> None:
    browser.sign_in("admin", "/admin")
    browser.wait_for(lambda: browser.js(CHECKED) == ["admin"], "the switches")
    assert browser.js("return [...document.querySelectorAll('#users button')].map(one => one.disabled)") == [
        True,
        False,
        False,
    ]
    over_websocket(browser, pressed({"do": "switch", "to": "admin"}, browser))
    browser.follow("Account")
    browser.follow("Admin")
    browser.wait_for(lambda: browser.js(CHECKED) == ["admin"], "the switches")


def test_a_session_that_is_ended_while_its_user_clicks_about_goes_to_the_login(
    profile: Profile, expected_complaints: list[tuple[str, str]]
) -> None:
    # A click between the end and the login page is told why nothing comes of it, and Dash writes that to the console.
    expected_complaints.append(("dash_renderer", "Error: You are signed out."))
    alice, admin = profile("first"), profile("second")
    alice.count_loads()
    alice.sign_in("alice")
    admin.sign_in("admin", "/admin")
    loads = alice.loads
    alice.js("""let turn = 0;
        const links = () => [...document.querySelectorAll("nav a")].filter((link) => link.text !== "Status");
        setInterval(() => links()[turn++ % 2].click(), 15);""")
    admin.press("alice", "End session")
    alice.wait_for(lambda: alice.place.startswith("/login?next=%2F"), "the login page")
    assert alice.loads == loads + 1
    assert alice.driver.find_element(By.NAME, "password").is_displayed()


# ---------------------------------------------------------------------------------------------------- the public page


def test_the_status_page_streams_to_nobody_and_becomes_the_users_at_a_login(browser: Browser, demo: Demo) -> None:
    browser.open("/login")
    browser.driver.find_element(By.LINK_TEXT, "Status, for everybody").click()
    browser.wait_for_badge("Live")
    browser.wait_for_change(lambda: browser.text("total"), "the total output")
    browser.wait_for_news()
    assert browser.navigation == ["Dashboard", "Status"]
    assert demo.log.count("connect user=None") > 0
    assert browser.driver.get_cookie("windward") is None

    nobodys = browser.tab
    browser.new_tab("/login")
    browser.fill_in("alice", demo.password("alice"))
    browser.wait_for_badge("Live")
    browser.go_to(nobodys)
    browser.wait_for(lambda: "Account" in browser.navigation, "the page to be alice's")
    browser.wait_for_badge("Live")
    browser.wait_for_news()
    assert browser.place == "/status"
    browser.follow("Account")
    browser.wait_for(lambda: browser.rows("mine"), "her sessions")


def test_a_link_from_the_public_page_leads_nobody_to_the_login(browser: Browser) -> None:
    browser.open("/status")
    browser.wait_for_badge("Live")
    browser.follow("Dashboard")
    browser.wait_for_place("/login?next=%2F")
    browser.fill_in("alice", browser.demo.password("alice"))
    browser.wait_for_badge("Live")
    assert browser.place == "/"


def test_nobody_gets_nothing_of_what_is_behind_the_login_from_the_public_page(browser: Browser) -> None:
    browser.open("/status")
    browser.wait_for_badge("Live")
    known = json.loads(browser.fetch("/_dash-dependencies")[1])
    outputs = {one["output"].split(".")[0].strip("@") for one in known}
    assert not outputs & {"people", "mine", "report", "power"}, outputs
    for output, input in (("report.children", "run.n_clicks"), ("mine.children", "notice.children")):
        id, property = output.split(".")
        payload = {
            "output": output,
            "outputs": {"id": id, "property": property},
            "inputs": [{"id": input.split(".")[0], "property": input.split(".")[1], "value": 1}],
            "changedPropIds": [input],
            "state": [],
        }
        assert over_websocket(browser, payload)["payload"]["status"] == "error"
        assert browser.call(payload)[0] == 401
        browser.wait_for(lambda: browser.place.startswith("/login"), "the login page")
        browser.open("/status")
        browser.wait_for_badge("Live")


# ------------------------------------------------------------------------------------------------------------ for all


def test_a_second_cookie_of_the_same_name_leads_to_no_loop_of_reloads(browser: Browser, demo: Demo) -> None:
    browser.count_loads()
    browser.before_each_page(
        "delete window.SharedWorker; delete window.WebSocket"
    )  # so that all callbacks go over HTTP
    browser.open("/login")
    browser.fill_in("alice", demo.password("alice"))
    browser.wait_for(lambda: "1.60 MW" in browser.text("power"), "a callback's answer")
    loads = browser.loads

    tossed = {"name": "windward", "value": sign_in_without_a_browser(demo, "bob"), "path": "/_dash-update-component"}
    browser.driver.execute_cdp_cmd("Network.setCookie", {**tossed, "domain": "127.0.0.1"})
    browser.driver.find_element(By.ID, "wind").send_keys("1")
    browser.wait_for(lambda: "This page belongs to another login." in browser.js(ALERTS), "the page to say so")
    assert browser.loads == loads + 2
    browser.js("document.querySelector('nav [href=\"/account\"]').click()")
    assert browser.fetch("/_dash-update-component", "POST", {})[0] == 409  # after those that the click has sent
    assert browser.loads == loads + 2
    assert browser.text("_pages_content") == ""  # and nothing was answered as bob


@pytest.mark.parametrize("name", ["admin", None])
def test_nothing_is_wider_than_the_screen(browser: Browser, name: str | None) -> None:
    pages = ("/status", "/login") if name is None else ("/", "/sites/Harbour", "/account", "/admin", "/status")
    if name is not None:
        browser.sign_in(name)
    try:
        for page in pages:
            browser.open(page)
            if page != "/login":
                browser.wait_for_badge("Live")
            for width in (360, 390, 768, 870, 1000, 1100, 1400):
                screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800}
                browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
                browser.wait_for(lambda: browser.js(TOO_WIDE) == [], f"everything of {page} to fit into {width} pixels")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_a_form_on_another_site_signs_nobody_in_or_out(demo: Demo, path: str) -> None:
    body = f"name=alice&password={demo.password('alice')}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for foreign in ({}, {"Origin": "null"}, {"Origin": "https://example.org"}, {"Origin": f"{demo.url}.example.org"}):
        assert demo.server.request("POST", path, body=body, headers={**form, **foreign}).status == 403
    reply = demo.server.request("POST", path, body=body, headers={**form, "Origin": demo.url})
    assert reply.status == 303
    demo.server.request("POST", "/logout", cookie=reply.cookie, headers={"Origin": demo.url})


async def test_a_restart_closes_with_1012_and_the_page_comes_back_in_its_session(browser: Browser, demo: Demo) -> None:
    await asyncio.to_thread(browser.sign_in, "alice")
    (cookie,) = browser.driver.get_cookies()
    async with demo.server.connect(f"{cookie['name']}={cookie['value']}") as socket:
        before = demo.log
        stopping = asyncio.create_task(asyncio.to_thread(demo.stop))
        assert await closed(socket) == (1012, "the server restarts")
    assert await stopping == 0
    assert "Traceback" not in demo.log.removeprefix(before)
    await asyncio.to_thread(browser.wait_for_badge, "Reconnecting")
    await asyncio.to_thread(demo.start)
    await asyncio.to_thread(browser.wait_for_badge, "Live")
    await asyncio.to_thread(browser.wait_for_news)


# ----------------------------------------------------------------------------------------------------- how to ask

TOO_WIDE = """const right = (one) => one.getBoundingClientRect().right;
return [...document.querySelectorAll("header *, .card, .card :is(h2, strong, button, input, progress, p, td, a)")]
  .filter((one) => right(one) > right(one.closest("header, .card")) + 1 || right(one) > document.documentElement.clientWidth)
  .map((one) => one.outerHTML);"""
"""What sticks out of its card, or of the screen."""

WATCH_BAR = """const [bar, run] = ["progress", "run"].map((id) => document.getElementById(id));
window.bar = [];
new MutationObserver(() => window.bar.push([bar.value, run.disabled])).observe(bar, {attributeFilter: ["value"]});"""
"""Notes each state of the progress bar, and whether the button is free."""

HERE = "return document.querySelector('nav [aria-current=page]')?.textContent"
ALERTS = "return [...document.querySelectorAll('[role=alert]')].map(alert => alert.textContent).join()"
CHECKED = """return [...document.querySelectorAll("#users tr:has([aria-checked=true])")]
  .map(row => row.cells[0].textContent)"""
"""Who is an administrator, as their page shows it."""


def users(admin: Browser) -> list[str]:
    """Whose sessions the administrator's page lists."""
    return [row[0] for row in admin.rows("sessions")]


def session_of(admin: Browser, user: str) -> str:
    """The id of a user's session, which the administrator's page knows."""
    path = f"//*[@id='sessions']//tr[td='{user}']//button[.='End session']"
    script = "return document.evaluate(arguments[0], document, null, 9).singleNodeValue?.id"
    id: str = json.loads(admin.wait_for(lambda: admin.js(script, path), f"{user} in the list"))["to"]
    return id


def sign_in_without_a_browser(demo: Demo, name: str) -> str:
    """The value of the cookie."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": demo.url}
    body = f"name={name}&password={demo.password(name)}"
    return demo.server.request("POST", "/login", body=body, headers=headers).token


def pressed(id: dict[str, Any], any_user: Browser) -> dict[str, Any]:
    """The callback request that a button with this id sends."""
    (specification,) = (
        one
        for one in json.loads(any_user.fetch("/_dash-dependencies")[1])
        if any(input["id"].startswith("{") and json.loads(input["id"]).keys() == id.keys() for input in one["inputs"])
    )
    name = json.dumps(id, sort_keys=True, separators=(",", ":"))
    return {
        "output": specification["output"],
        "outputs": {"id": "notice", "property": specification["output"].partition(".")[2]},
        "inputs": [[{"id": id, "property": "n_clicks", "value": 1}]],
        "changedPropIds": [f"{name}.n_clicks"],
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
