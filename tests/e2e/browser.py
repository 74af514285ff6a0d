"""One Chromium profile at the demo: what a person does there, and sees."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from selenium import webdriver
from selenium.webdriver.common.by import By

from ..server import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .demo import Demo

Profile = "Callable[[str], Browser]"
"""The fixture that gives a browser by the name of its profile."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,900",
)
PATIENCE = 20.0
"""Seconds for a state of the page: the machine may be busy."""


PRESS = """const button = document.evaluate(arguments[0], document, null, 9).singleNodeValue;
button?.click();
return Boolean(button);"""


class Browser:
    """A browser with a profile of its own, driven as a person would."""

    def __init__(self, demo: Demo, profile: Path) -> None:
        self.demo = demo
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(PATIENCE)
        self.scripts: list[str] = []

    def quit(self) -> None:
        self.driver.quit()

    def forget(self) -> None:
        """Back to a browser that nobody has used: signed out, one tab, no cookie, nothing on the console."""
        first, *others = self.driver.window_handles
        for handle in others:
            self.driver.switch_to.window(handle)
            self.driver.close()
        self.driver.switch_to.window(first)
        if self.driver.current_url.startswith(self.demo.url):
            self.js("sessionStorage.clear(); return fetch('/logout', {method: 'POST'}).then(() => null, () => null)")
        for script in self.scripts:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
        self.scripts.clear()
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.complaints()

    def complaints(self) -> list[str]:
        """What the console has called severe since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    # ------------------------------------------------------------------------------------------------ going about

    def open(self, path: str = "/") -> None:
        self.driver.get(f"{self.demo.url}{path}")

    def new_tab(self, path: str = "/") -> str:
        self.driver.switch_to.new_window("tab")
        self.open(path)
        return self.driver.current_window_handle

    def go_to(self, tab: str) -> None:
        self.driver.switch_to.window(tab)

    @property
    def tab(self) -> str:
        return self.driver.current_window_handle

    @property
    def loads(self) -> int:
        """How many pages this tab has loaded since `count_loads`, whoever made it do so."""
        return self.js("return Number(sessionStorage.loads)")

    def count_loads(self) -> None:
        self.before_each_page("sessionStorage.loads = 1 + Number(sessionStorage.loads ?? 0)")

    def before_each_page(self, script: str) -> None:
        """Run a script in each document that this tab loads, ahead of the document's own."""
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        self.scripts.append(added["identifier"])

    @property
    def tabs(self) -> list[str]:
        """Where its tabs are, without going to any of them."""
        found = self.driver.execute_cdp_cmd("Target.getTargets", {})["targetInfos"]
        return [one["url"].removeprefix(self.demo.url) for one in found if one["type"] == "page"]

    @property
    def place(self) -> str:
        """Path, query and fragment of the page."""
        parts = urlsplit(self.driver.current_url)
        return urlunsplit(("", "", *parts[2:]))

    def fill_in(self, name: str, password: str) -> None:
        """The form of the login page."""
        for field, value in (("name", name), ("password", password)):
            self.driver.find_element(By.NAME, field).send_keys(value)
        self.driver.find_element(By.CSS_SELECTOR, "form button").click()

    def sign_in(self, name: str, path: str = "/") -> None:
        """Through the login page, until the page is live."""
        self.open(path)
        self.fill_in(name, self.demo.password(name))
        self.wait_for_badge("Live")

    def wait_for_place(self, place: str) -> None:
        self.wait_for(lambda: self.place == place, f"the page at {place}")

    def click(self, id: str) -> None:
        self.driver.find_element(By.ID, id).click()

    def follow(self, text: str) -> None:
        """Click a link of the navigation."""
        self.wait_for(lambda: self.js(PRESS, f"//nav//a[.='{text}']"), f"a link to {text}")

    def press(self, row: str | None, button: str) -> None:
        """Click a button, of the first row that holds a text if one is given. The table may be made anew at any time."""
        path = f"//tr[td[.='{row}']]" if row else ""
        path += f"//button[.='{button}' or @role='{button}']"
        self.wait_for(lambda: self.js(PRESS, path), f"the button {button!r} of {row!r}")

    # ------------------------------------------------------------------------------------------------- looking

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def fetch(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, str]:
        """What a script of this page would be answered: status and text; of a 401, on which the page leaves, no text."""
        status, text = self.driver.execute_async_script(
            """const [path, method, body, done] = arguments;
            const headers = body ? {"Content-Type": "application/json"} : {};
            fetch(path, {method, body, headers})
                .then(async (r) => done([r.status, r.status === 401 ? "" : await r.text()]));""",
            path,
            method,
            None if body is None else json.dumps(body),
        )
        return status, text

    @property
    def navigation(self) -> list[str]:
        """What the header leads to."""
        return self.js("return [...document.querySelectorAll('nav a')].map(link => link.textContent)")

    def rows(self, id: str) -> list[list[str]]:
        """The cells of a table in a component."""
        return self.js(
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
            ".map(row => [...row.cells].map(cell => cell.textContent))",
            id,
        )

    @property
    def page_token(self) -> str:
        """What Dash's renderer sends with every callback."""
        return self.js("return JSON.parse(document.getElementById('_dash-config').textContent).end_id")

    def call(self, payload: dict[str, Any]) -> tuple[int, str]:
        """What a script of this page is answered that calls a callback over HTTP."""
        return self.fetch(f"/_dash-update-component?endId={self.page_token}", "POST", payload)

    def text(self, id: str) -> str:
        """The text of a component; empty when it is not there."""
        return self.js("return document.getElementById(arguments[0])?.textContent ?? ''", id)

    def value(self, id: str) -> float:
        return self.js("return document.getElementById(arguments[0]).value", id)

    def last_point(self) -> float:
        """The newest value in the chart."""
        return self.js("return document.querySelector('#chart .js-plotly-plot')?.data?.[0]?.y?.at(-1) ?? null")

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return wait_for(condition, PATIENCE, what)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; at {self.driver.current_url}: {self.js('return document.body.innerText')[:600]!r}"
            ) from None

    def wait_for_badge(self, says: str) -> None:
        self.wait_for(lambda: says in self.text("badge"), f"the badge to say {says!r}")

    def wait_for_change(self, read: Callable[[], Any], what: str) -> None:
        """Wait until something that is shown is another than now."""
        before = read()
        self.wait_for(lambda: read() not in (before, None, ""), f"{what} to change from {before!r}")

    def wait_for_news(self) -> None:
        """Wait until new data has come in twice."""
        for _ in range(2):
            self.wait_for_change(lambda: self.text("clock"), "the clock")
