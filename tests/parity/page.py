"""One Chromium at the apps of the table: what a user does there, and sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ..attacks.browser import Browser
from ..server import wait_for

if TYPE_CHECKING:
    import re

    from ..server import Server
    from .table import Feature

PATIENCE = 40.0
"""Seconds for a state: the machine may be busy."""

WITNESS = r"""
(() => {
  try {
    if (window !== top || window.stories || !location.protocol.startsWith("http")) return;
    window.stories = {};
    window.complaints = [];
    const note = (id, text) => {
      const story = (stories[id] ??= []);
      if (text && story.at(-1) !== text) story.push(text);
    };
    const {error} = console;
    console.error = (...told) => {
      complaints.push(told.map((one) => [one?.message ?? one, one?.html].join(" ").slice(0, 500)).join(" "));
      error.apply(console, told);
    };
    const look = () => {
      for (const one of document.querySelectorAll(`[id^=story], [id^='{"story"']`)) note(one.id, one.textContent);
      note("title", document.title);
    };
    new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});
    addEventListener("securitypolicyviolation", (event) => complaints.push(`violates ${event.violatedDirective}`));
  } catch {}
})();
"""
"""Notes what each element has shown whose id begins with `story`, or is a dict that does, and what the page has called an
error.
"""

READ = r"""
const [prefix, keys] = arguments;
const at = (object, path) => path.reduce((one, name) => one?.[name], object);
const ours = /dash_quart_ws|[/\\]quart[/\\]/;
const shown = (card) => {
  const page = card.querySelector("iframe")?.contentDocument;
  const frames = [...(page?.querySelectorAll(".error-card-header") ?? [])].map((one) => one.textContent);
  const functions = frames.filter((one) => !ours.test(one)).map((one) => /in (\w+)\)$/.exec(one)[1]);
  const text = card.querySelector("pre, .dash-fe-error__st")?.textContent;
  const says = (page?.title ?? text ?? "").split(" // ")[0].slice(0, 60);
  return [card.querySelector(".dash-fe-error__title").textContent, says, functions];
};
const counted = ([output, {count, status, compute, network, resources}]) => [output, {
  count,
  status,
  waited: compute >= 1000 * count && network.time >= 0,
  bytes: [network.upload, network.download],
  resources: Object.fromEntries(Object.entries(resources).map(([name, took]) => [name.trim(), took])),
}];
const read = (key) => {
  if (key === "path") return (location.pathname + location.search + location.hash).replace(prefix, "/");
  if (key === "title") return document.title;
  if (key === "answers") return window.answers ?? [];
  if (key === "overlay") return [...document.querySelectorAll(".dash-error-card__content")].map(shown);
  if (key === "graph") return Object.fromEntries(Object.entries(store.getState().profile.callbacks).map(counted));
  if (key[0] === "~") return window.stories?.[key.slice(1)] ?? [];
  if (key[0] === "#") return document.querySelectorAll(key.slice(1)).length;
  const [, sign, id, name] = /^(@?)(.*?)(?:\.(\w+))?$/.exec(key);
  if (sign) {
    const {paths, layout} = store.getState();
    return at(layout, [...(paths.strs[id] ?? ["?"]), "props", name]) ?? null;
  }
  const element = document.getElementById(id);
  return name ? element?.[name] ?? null : element?.textContent ?? null;
};
return Object.fromEntries(keys.map((key) => [key, read(key)]));
"""

IS_IDLE = r"""
if (!window.store || document.readyState !== "complete") return false;
const {appLifecycle, callbacks, isLoading} = store.getState();
const {stored, completed, ...open} = callbacks;
return appLifecycle === "HYDRATED" && !isLoading && Object.values(open).every((one) => !one.length);
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Page(Browser):
    """A profile, in which alice is signed in at a site, and its one tab."""

    def __init__(self, profile: Path) -> None:
        super().__init__(profile)
        self.folder = profile
        self.downloads = profile / "downloads"
        self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)
        self.prefix = ""
        self.jobs = Path()
        self.is_endless = False

    def visit(self, site: Server, feature: Feature, transport: str) -> None:
        """Open a row's app, as nobody has seen it before."""
        self.jobs = site.log_path.parent
        self.origin, self.prefix, self.is_endless = site.origin, f"/{transport}/{feature.slug}/", feature.is_endless
        if not self.driver.get_cookies() or not self.driver.current_url.startswith(site.origin):
            self.open(f"{site.origin}/login/alice")
        self.js("sessionStorage.clear(); localStorage.clear()")
        for file in self.downloads.glob("*"):
            file.unlink()
        self.go_to("")

    # ------------------------------------------------------------------------------------------------ going about

    def go_to(self, place: str) -> None:
        self.open(f"{self.origin}{self.prefix}{place}")
        self.settle()

    def reload(self) -> None:
        self.driver.refresh()
        self.settle()

    def click(self, id: str) -> None:
        """Click, as soon as it is there and can be clicked."""

        def button() -> Any:
            return self.js("const one = document.getElementById(arguments[0]); return one?.disabled ? null : one", id)

        self.wait_for(button, f"the button {id}", PATIENCE).click()

    def type_in(self, id: str, text: str) -> None:
        field = self.js("return document.getElementById(arguments[0])", id)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.TAB)

    def upload(self, id: str, size: int) -> None:
        file = self.folder / f"{size}.bin"
        if not file.exists():
            file.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
        (field,) = self.wait_for(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, f"#{id} input[type=file]"), "the field"
        )
        field.send_keys(str(file))

    @property
    def marks(self) -> str:
        """Where the files lie that the jobs of this app look for, and what their names begin with."""
        return f"{self.jobs}/{self.prefix.strip('/').replace('/', '-')}-"

    def unfold_errors(self, count: int) -> None:
        """Unfold each of so many errors in the dev tools."""
        unfold = """
            const found = document.querySelectorAll(".test-devtools-error-toggle");
            if (found.length !== arguments[0]) return false;
            for (const one of found) one.click();
            return true;"""
        self.wait_for(lambda: self.js(unfold, count), f"{count} errors", PATIENCE)

    def let_go(self) -> None:
        """Let the app's background job go on."""
        Path(f"{self.marks}go").touch()

    def wait_for_the_jobs_end(self) -> None:
        """Wait until the process of the app's job is gone."""
        process = int(self.wait_for(lambda: Path(f"{self.marks}pid").read_text(), "the job", PATIENCE))
        self.wait_for(lambda: not is_running(process), "the end of the job", PATIENCE)

    def call(self, path: str, body: Any, within: tuple[str | int, ...]) -> None:
        self.ajs(
            """const [url, body, within] = arguments;
            const headers = {"Content-Type": "application/json", Accept: "application/json"};
            const post = body === null ? {} : {method: "POST", body: JSON.stringify(body)};
            const answer = await fetch(url, {headers, ...post});
            const json = await answer.json().catch(() => null);
            (window.answers ??= []).push([answer.status, within.reduce((one, name) => one?.[name], json)]);""",
            f"{self.prefix}{path}",
            body,
            within,
        )

    # ---------------------------------------------------------------------------------------------------- looking

    def settle(self) -> None:
        """Wait until nothing is under way; for something endless, until it has begun."""
        if self.is_endless:
            self.wait_for(lambda: self.js("return window.store?.getState().appLifecycle === 'HYDRATED'"), "the layout")
            return
        self.wait_for(lambda: self.js(IS_IDLE), "the page to be at rest", PATIENCE)

    def wait_for_text(self, id: str, pattern: re.Pattern[str]) -> None:
        self.wait_for(lambda: pattern.search(self.text(id)), f"{id} to show {pattern.pattern!r}", PATIENCE)

    def see(self, shows: dict[str, Any]) -> dict[str, Any]:
        """What is to be seen, under the same keys.

        `id`: the text of a component. `id.name`: a property of its element. `@id.name`: a property of the component, as
        the renderer has it. `~id`: all texts that it has shown, one after the other; `~title` of the document. `#selector`:
        how many elements there are. `path`, below the app, and `title`. `downloads`: the files' names and bytes.
        `answers`: status and JSON of each that a script has got. `overlay`: of each error of the dev tools its title, what
        it says, and the functions of its traceback, but for this package's and Quart's. `graph`: what the dev tools count of
        each callback; `waited`: whether each call took the server a second, and all of them the client longer. Where
        something else than text is expected, a text is read as JSON.
        """
        seen = self.js(READ, self.prefix, [key for key in shows if key != "downloads"])
        if "downloads" in shows:
            seen["downloads"] = {
                one.name: one.read_bytes() for one in self.downloads.glob("*") if one.suffix != ".crdownload"
            }
        for key, expected in shows.items():
            if isinstance(seen[key], str) and not isinstance(expected, str):
                try:
                    seen[key] = json.loads(seen[key])
                except ValueError:
                    continue
        return seen

    def ends_up_with(self, shows: dict[str, Any]) -> dict[str, Any]:
        """What is to be seen when nothing is under way any more; at once when it is what is expected."""
        self.settle()
        try:
            wait_for(lambda: self.see(shows) == shows, 8.0)
        except AssertionError:
            return self.see(shows)
        self.settle()
        return self.see(shows)

    def wait_for_complaints(self, count: int) -> None:
        """Wait until the page has said so much: the renderer reads what it complains of when all else is at rest."""
        wait_for(lambda: len(self.complaints) >= count, PATIENCE, f"{count} errors on the console")

    @property
    def complaints(self) -> list[str]:
        found: list[str] = self.js("return window.complaints ?? []")
        return found
