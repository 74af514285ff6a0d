"""One Chromium, and a page that writes down what it shows."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.by import By

from ..e2e.browser import FLAGS
from ..server import wait_for
from .target import COOKIE, registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .target import Target

PATIENCE = 20.0
EVIL = "evil.test"
"""A name that leads to this machine: another site's, as far as the browser is concerned."""

WITNESS = """
(() => {
  try {
    if (window.isWitnessed) return;
    window.isWitnessed = true;
    const note = (what, text) => {
      const noted = JSON.parse(sessionStorage.getItem("noted") || "[]");
      sessionStorage.setItem("noted", JSON.stringify([...noted, [performance.timeOrigin, what, text]]));
    };
    note("load", location.pathname);
    addEventListener("pageshow", (event) => event.persisted && note("restored", location.pathname));
    const last = {};
    new MutationObserver(() => {
      for (const id of ["who", "job", "_pages_content"]) {
        const text = document.getElementById(id)?.textContent;
        if (text && text !== last[id]) note(id, (last[id] = text));
      }
    }).observe(document, {subtree: true, childList: true, characterData: true});
  } catch {}
})();
"""
"""Notes, for each document of a tab, that it was loaded and what it has shown since."""

OVER_HTTP = "delete window.SharedWorker; delete window.WebSocket;"
"""Without them every callback goes over HTTP."""


class Browser:
    """A profile, and its tabs."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(PATIENCE)
        self._scripts: list[tuple[str, str]] = []

    def quit(self) -> None:
        self.driver.quit()

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def forget(self) -> None:
        """One tab, no cookie, nothing stored."""
        for cookie in self.cdp("Network.getAllCookies")["cookies"]:
            registry.add_cookie(f"{cookie['name']}={cookie['value']}")
        self.driver.switch_to.new_window("tab")
        kept = self.driver.current_window_handle
        for handle in self.driver.window_handles:
            if handle != kept:
                self.driver.switch_to.window(handle)
                self.driver.close()
        self.driver.switch_to.window(kept)
        self.cdp("Network.clearBrowserCookies")

    def witness(self, *scripts: str) -> None:
        """From here on this tab's documents note what they show, and begin with these scripts."""
        for script in (WITNESS, *scripts):
            self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)

    def new_tab(self) -> str:
        self.driver.switch_to.new_window("tab")
        self.witness()
        return self.driver.current_window_handle

    def go_to(self, tab: str) -> None:
        self.driver.switch_to.window(tab)

    def open(self, url: str) -> None:
        self.driver.get(url)

    def sign_in(self, target: Target, name: str, path: str = "/") -> None:
        """Logged in, at a page that is live."""
        self.open(f"{target.origin}/login/{name}")
        self.open(target.origin + path)
        self.wait_until_live(name)

    def wait_until_live(self, name: str) -> None:
        self.wait_for(lambda: self.text("who").startswith(f"{name} "), f"the page to be {name}'s")
        self.wait_for(lambda: self.text("job").startswith(f"{name} "), f"the page to be {name}'s")

    @property
    def place(self) -> str:
        parts = urlsplit(self.driver.current_url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    @property
    def cookie(self) -> str:
        """The session's cookie, as the browser's owner can see it."""
        (value,) = (one["value"] for one in self.cdp("Network.getAllCookies")["cookies"] if one["name"] == COOKIE)
        return f"{COOKIE}={value}"

    def set_cookie(self, cookie: str, url: str, path: str = "/") -> None:
        name, _, value = cookie.partition("=")
        assert self.cdp("Network.setCookie", name=name, value=value, url=url, path=path, httpOnly=True)["success"]

    def click(self, id: str) -> None:
        self.driver.find_element(By.ID, id).click()

    def try_to_click(self, id: str) -> None:
        """Click in a page that may be on its way already."""
        self.js("document.getElementById(arguments[0])?.click()", id)

    def fill_in(self, id: str, text: str) -> None:
        self.driver.find_element(By.ID, id).send_keys(text)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def ajs(self, script: str, *arguments: Any) -> Any:
        """The value of an async function's body."""
        return self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1]; (async () => {{{script}}})().then(done, (e) => done(`${{e}}`));",
            *arguments,
        )

    def text(self, id: str) -> str:
        return self.js("return document.getElementById(arguments[0])?.textContent ?? ''", id) or ""

    def alert(self) -> str:
        return self.js("return document.querySelector('[role=alert]')?.textContent ?? ''") or ""

    def noted(self, what: str) -> list[tuple[float, str]]:
        """What this tab has noted of one kind: in which document, and the text."""
        found = self.js("return JSON.parse(sessionStorage.getItem('noted') || '[]')")
        return [(document, text) for document, kind, text in found if kind == what]

    def loads(self) -> int:
        return len(self.noted("load"))

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        def holds() -> Any:
            try:
                return condition()
            except Exception as error:
                # The document goes while it is asked.
                if type(error).__name__ not in (
                    "JavascriptException",
                    "StaleElementReferenceException",
                    "WebDriverException",
                ):
                    raise
                return None

        try:
            return wait_for(holds, timeout, what)
        except AssertionError as error:
            body = self.js("return document.body?.innerText ?? ''")[:400]
            raise AssertionError(f"{error}; at {self.driver.current_url}: {body!r}") from None
