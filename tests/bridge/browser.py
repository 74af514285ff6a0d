"""One Chromium, the site that it is at, and the network between them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from selenium import webdriver
from selenium.webdriver.common.by import By
from websockets.sync.client import connect

from ..attacks import browser as base
from ..e2e.browser import FLAGS
from ..server import Server, command_for, free_port
from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0
"""Seconds for a state: the machine may be busy."""
HOST = "dash.test"
"""A name that leads to this machine, and that browsers do not take for it: plain http there is no secure context."""

NOTES = """
(() => {
  try {
    if (window !== top || window.note || !location.protocol.startsWith("http")) return;
    window.note = (what, text) => {
      const noted = JSON.parse(sessionStorage.getItem("noted") || "[]");
      sessionStorage.setItem("noted", JSON.stringify([...noted, [performance.timeOrigin, what, text]]));
    };
    note("load", location.pathname);
    addEventListener("pageshow", (event) => event.persisted && note("restored", location.pathname));
    for (const type of ["open", "close", "session-ended"])
      document.addEventListener(`dash-ws:${type}`, ({detail}) => note(type, JSON.stringify(detail ?? null)));
    document.addEventListener("securitypolicyviolation", (event) =>
      note("violation", `${event.effectiveDirective} ${event.blockedURI}`));
    const {error} = console;
    console.error = (...told) => {
      note("error", told.map((one) => `${one?.message ?? one}`).join(" "));
      error.apply(console, told);
    };
    const last = {};
    new MutationObserver(() => {
      for (const id of ["who", "worked", "clock", "news"]) {
        const text = document.getElementById(id)?.textContent.split(" ").slice(0, id === "clock" ? 2 : 9).join(" ");
        if (text && text !== last[id]) note(id, (last[id] = text));
      }
    }).observe(document, {subtree: true, childList: true, characterData: true});
  } catch {}
})();
"""
"""Notes, over all documents of a tab, that they were loaded, what they have shown, and what has gone wrong."""


class Site:
    """A hypercorn that can be stopped and started again on its port, behind a network that can fail.

    Options, all of them strings: `HEARTBEAT` and `INACTIVITY` (milliseconds), `LOGIN_REQUIRED`, `BRIDGE` and `STATUS`
    ("0", "1"), `PUBLIC` ("yes", or "stream": the page is for nobody, too), `CSP` (a policy's name), `EFFECTS` (callbacks
    that set cookies, log in and out), `PREFIXES` (of several apps on the same server), `RENDERERS` (how many tabs a
    connection carries), `STILL` (nothing streams by itself).
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self._folder = folder
        self._options = options
        self._port = free_port()
        self._starts = itertools.count(1)
        self.start()
        self.proxy = Proxy(self._port)

    def start(self) -> None:
        log = self._folder / f"site-{self._port}-{next(self._starts)}.log"
        command = command_for("hypercorn", "tests.bridge.app:server", self._port)
        self.server = Server(command, self._port, log, {"LOG_LEVEL": "INFO", **self._options})
        self.server.wait_until_ready()

    def stop(self) -> None:
        self.server.stop()

    def close(self) -> None:
        self.proxy.stop()
        self.stop()

    @property
    def origin(self) -> str:
        """Where browsers find the site."""
        return self.proxy.origin

    @property
    def log(self) -> str:
        return self.server.log

    def get(self, path: str, cookie: str | None = None) -> Any:
        """Straight from the server, past the network."""
        return self.server.get(path, cookie).json

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/state")
        return found

    def ran(self, what: str, user: str | None = None) -> list[tuple[str | None, int | None, str]]:
        """Who clicked for the how manieth time, and over what it came; a page's first call, without a click, is left out."""
        found = [(who, clicks, over) for kind, who, clicks, over in self.state["ran"] if kind == what and clicks]
        return [one for one in found if user is None or one[0] == user]

    def streams(self, user: str | None, what: str = "clock") -> list[dict[str, Any]]:
        return [one for one in self.state["streams"] if one["user"] == user and one["what"] == what]

    def running(self, user: str | None, what: str = "clock") -> list[str]:
        """The tabs that a stream runs for."""
        return [one["tab"] for one in self.streams(user, what) if not one["is_over"]]

    def connections(self, user: str | None) -> list[dict[str, Any]]:
        return [one for one in self.state["connections"] if one["user"] == user]

    def release(self, user: str, clicks: int) -> None:
        """Let a slow callback come to its end."""
        self.get(f"/release/{user}/{clicks}")


class Browser(base.Browser):
    """A profile and its tabs, at a site."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(PATIENCE)
        self.site: Site | None = None
        self.host: str | None = None

    def use(self, site: Site, host: str | None = None) -> None:
        """Be at a site that works, with one fresh tab and nothing stored."""
        site.proxy.reset()
        self.forget()
        self.site, self.host = site, host
        self.wait_for(lambda: not site.proxy.live, "the last test's sockets to be gone")
        site.proxy.reset()
        self.witness()

    def forget(self) -> None:
        """One tab, no cookie; what other tabs there are goes, whatever has become of it."""
        with self.devtools() as command:
            kept = command("Target.createTarget", url="about:blank")["targetId"]
            for one in command("Target.getTargets")["targetInfos"]:
                if one["type"] == "page" and one["targetId"] != kept:
                    command("Target.closeTarget", targetId=one["targetId"])
        self.go_to(kept)
        self.cdp("Network.clearBrowserCookies")

    def witness(self, *scripts: str) -> None:
        for script in (NOTES, *scripts):
            self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)

    # ------------------------------------------------------------------------------------------------ going about

    @property
    def url(self) -> str:
        assert self.site is not None
        return f"http://{self.host}:{self.site.proxy.port}" if self.host else self.site.origin

    @property
    def tab(self) -> str:
        return self.driver.current_window_handle

    def at(self, path: str = "/") -> None:
        self.open(f"{self.url}{path}")

    def log_in(self, user: str) -> None:
        self.at(f"/login/{user}")

    def arrive(self, user: str | None, path: str = "/") -> str:
        """Open the app's page and wait until it is live; its tab's name on the server."""
        self.at(path)
        return self.settle(user)

    def settle(self, user: str | None) -> str:
        """Wait until the page is this user's and live; its tab's name on the server."""
        self.wait_for(lambda: self.text("who").startswith(f"{user} "), f"the page to be {user}'s")
        self.wait_for_ticks(user)
        return self.text("tab")

    def wait_for_ticks(self, user: str | None) -> None:
        """Wait until the page's own stream has ticked twice from now on."""
        tab = self.text("tab")
        assert tab
        for _ in range(2):
            before = self.text("clock")
            self.wait_for(
                lambda before=before: self.text("clock").startswith(f"{user} {tab} ") and self.text("clock") != before,
                f"a tick for {user} in {tab}",
            )

    def another_tab(self, *scripts: str, url: str | None = None) -> str:
        """A new tab, in front; its handle."""
        self.driver.switch_to.new_window("tab")
        self.witness(*scripts)
        if url is not None:
            self.open(url)
        return self.tab

    def close_tab(self, tab: str, then: str) -> None:
        self.go_to(tab)
        self.driver.close()
        self.go_to(then)

    def put_cookie(self, cookie: str) -> None:
        """Behind the pages' backs."""
        self.set_cookie(cookie, self.url)

    def click(self, id: str) -> None:
        (button,) = self.wait_for(lambda: self.driver.find_elements(By.ID, id), f"the button {id}")
        button.click()

    def click_until(self, id: str, shown: Callable[[], bool], what: str) -> None:
        self.click(id)
        self.wait_for(shown, what)

    # ---------------------------------------------------------------------------------------------------- looking

    @property
    def is_at_login(self) -> bool:
        return self.place.split("?")[0] == "/login"

    def wait_for_login(self, next: str = "/") -> None:
        """Wait for the login page that leads back there; our script and the server spell that differently."""
        self.wait_for(lambda: unquote(self.place) == f"/login?next={next}", f"the login, and back to {next}")

    def wait_for_text(self, id: str, text: str, timeout: float = PATIENCE) -> None:
        self.wait_for(lambda: self.text(id) == text, f"{id} to say {text!r}", timeout)

    def errors(self) -> list[str]:
        """What this tab's pages have called an error on the console."""
        return [text for _, text in self.noted("error")]

    def details(self, event: str) -> list[Any]:
        """The details of the page's `dash-ws:` events of one kind."""
        return [json.loads(text) for _, text in self.noted(event)]

    @property
    def is_settled(self) -> bool:
        """Nothing of the page waits for a callback."""
        return self.js(
            "return document.title !== 'Updating...' && !document.querySelector('[data-dash-is-loading=true]')"
        )

    def status(self) -> str:
        """What the page says of its connection; empty when it says nothing."""
        return self.js("return document.querySelector('.dash-ws-status')?.textContent ?? ''") or ""

    def console(self) -> list[dict[str, Any]]:
        """What has been written to this tab's console since it was asked last."""
        return self.driver.get_log("browser")

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        return super().wait_for(condition, what, timeout)

    # -------------------------------------------------------------------------------------------------- processes

    @contextlib.contextmanager
    def devtools(self) -> Iterator[Callable[..., Any]]:
        """Commands to the browser as a whole, which ChromeDriver passes to the tab only."""
        address = self.driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
        with urllib.request.urlopen(f"http://{address}/json/version", timeout=10) as answer:
            url = json.load(answer)["webSocketDebuggerUrl"]
        numbers = itertools.count(1)
        with connect(url, max_size=None) as connection:

            def command(method: str, session: str | None = None, **params: Any) -> Any:
                number = next(numbers)
                message = {"id": number, "method": method, "params": params}
                connection.send(json.dumps(message if session is None else {**message, "sessionId": session}))
                while (told := json.loads(connection.recv(PATIENCE))).get("id") != number:
                    pass
                assert "error" not in told, told
                return told["result"]

            yield command

    def js_behind(self, tab: str, expression: str) -> Any:
        """The value of an expression in a tab that stays where it is: to go there would show it."""
        with self.devtools() as command:
            session = command("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            found = command("Runtime.evaluate", session, expression=expression, returnByValue=True)
            return found["result"].get("value")

    def workers(self) -> list[str]:
        """URLs of this site's SharedWorkers. Those of a site that was left may take their time to go."""
        return [one["url"] for one in self._workers()]

    def _workers(self) -> list[Any]:
        origin = self.js("return location.origin")
        with self.devtools() as command:
            found = command("Target.getTargets")["targetInfos"]
        return [one for one in found if one["type"] == "shared_worker" and one["url"].startswith(f"{origin}/")]

    def process_of_worker(self) -> int:
        """The renderer process that hosts the SharedWorker."""
        (target,) = self._workers()
        with self.devtools() as command:
            session = command("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            return self._busiest(lambda: command("Runtime.evaluate", session, expression=f"({BUSY})()"))

    def process_of_tab(self) -> int:
        return self._busiest(lambda: self.js(f"({BUSY})()"))

    def _busiest(self, work: Callable[[], Any]) -> int:
        pids = renderers_below(self.driver.service.process.pid)
        before = {pid: cpu_seconds(pid) for pid in pids}
        work()
        used = {pid: cpu_seconds(pid) - before[pid] for pid in pids}
        (most, pid), *others = sorted(((seconds, pid) for pid, seconds in used.items()), reverse=True)
        assert most > max(0.15, *(3 * seconds for seconds, _ in others)), used  # it had to share its core with others
        return pid


BUSY = "() => { const end = performance.now() + 800; while (performance.now() < end); }"


def renderers_below(pid: int) -> list[int]:
    """The renderer processes among the descendants of a process."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        todo += (own := children.get(todo.pop(), []))
        for child in own:
            with contextlib.suppress(OSError):
                if b"--type=renderer" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def digest_of(url: str) -> str:
    """The part of our script's URL that changes with it."""
    found = re.search(r"/_dash-quart-ws/bridge\.([0-9a-f]+)\.js$", url)
    assert found, url
    return found[1]


def stays(condition: Callable[[], Any], seconds: float) -> bool:
    """Whether something holds all the while: for what must not happen, and leaves no state to wait for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not condition():
            return False
        time.sleep(0.05)
    return True


__all__ = ["HOST", "PATIENCE", "Browser", "Site", "digest_of", "stays"]
