"""How long until a browser shows what has happened on the server? `python benchmarks/bridge_latency.py [--rounds 10]`

It starts the demo and a Chromium, and measures, each time anew, by the clock of this machine:

- a logout in one tab, from the request on: until the other tab, in the background, goes, and until its login page is there;
- a restart of the server: from the moment when it takes connections again until the page shows live data.

It prints a small table of medians, and ends what it has started.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.e2e.browser import Browser
from tests.e2e.demo import Demo

LOGOUT = "const began = Date.now(); fetch('/logout', {method: 'POST', redirect: 'manual'}); return began"
LOGIN_PAGE = """const [entry] = performance.getEntriesByType("navigation");
return [performance.timeOrigin, performance.timeOrigin + entry.domContentLoadedEventEnd]"""
GOOD = 11
"""Seconds after which the bridge takes a connection for a good one, and begins its waits anew."""
WATCH = """window.seen = [];
new MutationObserver(() => seen.push(Date.now())).observe(document.getElementById("clock"), {
  subtree: true, childList: true, characterData: true});"""


@contextlib.contextmanager
def started() -> Iterator[tuple[Demo, Browser]]:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        demo = Demo(Path(folder))
        demo.start()
        browser = Browser(demo, Path(profile))
        try:
            yield demo, browser
        finally:
            browser.quit()
            demo.stop()


def logout(browser: Browser) -> tuple[float, float]:
    """Milliseconds until the tab in the background goes, and until it shows the login."""
    browser.new_tab("/login")  # a tab that was not taken elsewhere a moment ago: that has a limit
    old = [tab for tab in browser.driver.window_handles if tab != browser.tab]
    background = browser.tab
    browser.sign_in("alice")
    for tab in old:
        browser.go_to(tab)
        browser.driver.close()
    browser.go_to(background)
    browser.new_tab()
    for _ in range(3):
        browser.wait_for_news()  # both pages have drawn their charts, and have nothing else to load
    began = browser.js(LOGOUT)
    browser.wait_for(lambda: sum(tab.startswith("/login") for tab in browser.tabs) == 2, "the login in both tabs")
    browser.driver.close()
    browser.go_to(background)
    browser.wait_for(lambda: browser.js("return document.readyState") == "complete", "the login page")
    gone, there = browser.js(LOGIN_PAGE)
    return gone - began, there - began


def restart(browser: Browser, demo: Demo) -> float:
    """Milliseconds until the page is live again."""
    browser.js(WATCH)
    time.sleep(GOOD)
    demo.stop()
    demo.start()
    began = time.time() * 1000
    last = browser.wait_for(
        lambda: browser.js("return seen.find((moment) => moment > arguments[0]) ?? null", began), "live data"
    )
    return last - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with started() as (demo, browser):
        logouts = [logout(browser) for _ in range(rounds)]
        browser.sign_in("alice")
        restarts = [restart(browser, demo) for _ in range(rounds)]
    print("| milliseconds | median | least | most |\n| --- | --- | --- | --- |")
    for what, times in (
        ("logout to the background tab's departure", [gone for gone, _ in logouts]),
        ("logout to the login page in the background tab", [there for _, there in logouts]),
        ("server ready again to the first live update", restarts),
    ):
        print(f"| {what} | {statistics.median(times):.0f} | {min(times):.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
