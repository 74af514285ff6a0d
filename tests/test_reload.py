"""`app.run(debug=True)`: code and assets are reloaded, and the log says what it should; and nothing of that in production."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from dash import Dash, Input, Output, html
from quart import Quart

from dash_quart_ws import QuartBackend
from dash_quart_ws.browser import bundles
from dash_quart_ws.reload import LOOK_EVERY, Watch

from .server import Server, call, closed, free_port, result, wait_for
from .sessions.site import ECHO, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Developed:
    """An app that is being worked on."""

    def __init__(self, folder: Path, *off: str) -> None:
        self.folder = folder
        (folder / "assets").mkdir()
        self.style = folder / "assets" / "style.css"
        self.style.write_text("body { color: red }")
        self.write("first")
        port = free_port()
        command = [sys.executable, "-W", "ignore", "-m", "tests.apps.reloaded", str(folder), str(port), *off]
        self.server = Server(command, port, folder / "log", {})
        self.server.wait_until_ready()

    def write(self, text: str, *, code: str | None = None) -> None:
        (self.folder / "changing.py").write_text(code or f"TEXT = {text!r}\n")

    @property
    def layout(self) -> str:
        """The page's text; empty while there is no server."""
        try:
            return str(self.server.get("/_dash-layout").body)
        except OSError:
            return ""

    @property
    def asked(self) -> Any:
        """What a page learns that asks whether it is of today."""
        return self.server.get("/_reload-hash").json


@pytest.fixture
def developed(tmp_path: Path) -> Iterator[Developed]:
    running = Developed(tmp_path)
    yield running
    running.server.stop()


async def test_a_change_of_the_code_starts_the_app_anew_and_its_clients_come_back(developed: Developed) -> None:
    assert "first" in developed.layout
    before = developed.asked["reloadHash"]
    async with developed.server.connect(subprotocols=["dash-quart-ws.v1"]) as socket:
        developed.write("second")
        assert (await closed(socket, 30))[0] == 1012
    wait_for(lambda: "second" in developed.layout, 30, "the new code")
    assert developed.asked["reloadHash"] != before, "which is what makes the pages load again"
    async with developed.server.connect() as socket:
        assert result(await call(socket, "out.children")) == f"second in {developed.server.process.pid}"


def test_code_that_cannot_be_compiled_is_not_started_and_what_follows_it_is(developed: Developed) -> None:
    developed.write("", code="TEXT = (")
    wait_for(lambda: "cannot be compiled" in developed.server.log, 30, "a word about the change")
    assert "first" in developed.layout
    developed.write("third")
    wait_for(lambda: "third" in developed.layout, 30, "the mended code")


def test_a_change_of_an_asset_is_told_to_the_pages(developed: Developed) -> None:
    before = developed.asked["reloadHash"]
    developed.style.write_text("body { color: blue }")
    wait_for(lambda: developed.asked["reloadHash"] != before, 30, "another hash")
    assert "first" in developed.layout


@pytest.mark.parametrize("off", ["use_reloader", "dev_tools_hot_reload"])
def test_code_is_not_reloaded_if_the_app_says_so(tmp_path: Path, off: str) -> None:
    developed = Developed(tmp_path, off)
    try:
        developed.write("", code="TEXT = (")
        if off == "use_reloader":
            before = developed.asked["reloadHash"]
            developed.style.write_text("body { color: blue }")
            wait_for(lambda: developed.asked["reloadHash"] != before, 30, "the assets' reload, which goes on")
        time.sleep(4 * LOOK_EVERY)  # nothing happens, which leaves no state to wait for
        assert "first" in developed.layout
        assert "cannot be compiled" not in developed.server.log
    finally:
        developed.server.stop()


async def test_the_packages_own_log_is_there_whether_routes_are_logged_or_not(developed: Developed) -> None:
    async with developed.server.connect() as socket:
        assert "first" in result(await call(socket, "out.children"))
    wait_for(lambda: "dash_quart_ws.security:close" in developed.server.log, 10, "a line about the connection")
    assert "GET /" not in developed.server.log, "silence_routes_logging, which debug mode implies"


def test_a_file_that_is_changed_deleted_or_of_a_module_that_comes_later_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, module = tmp_path / "more.json", tmp_path / "come_later.py"
    more.write_text("1")
    module.write_text("x = 1")
    watch = Watch([str(more)])
    assert watch.changed() == []
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("come_later")
    assert watch.changed() == []
    for path in (more, module):
        os.utime(path, ns=(1, 1))
        assert watch.changed() == [path]
    more.unlink()
    assert watch.changed() == [more]
    del sys.modules["come_later"]


# ------------------------------------------------------------------------------------------------- in production

DEVELOPMENT = ("Traceback", ".dev.js", "hot_reload", '"ui":true', '"props_check":true', "/devtools.", "reloadHash")
"""What only somebody who develops an app may see of it."""

TOOLS = f"/_dash-quart-ws/{bundles.script_file(bundles.DEVTOOLS)}"
"""The script for Dash's dev tools."""


class Lazy(types.ModuleType):
    """As libraries have them that import their parts when they are asked for: the part may not be installed."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"no {name} here")


def test_modules_that_are_no_files_do_not_end_the_watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = types.ModuleType("odd")
    odd.__file__ = object()  # type: ignore[assignment]
    for name, module in {"lazy": Lazy("lazy"), "odd": odd, "none": None}.items():
        monkeypatch.setitem(sys.modules, name, module)
    more = tmp_path / "more"
    watch = Watch([str(more)])
    more.touch()
    assert watch.changed() == [more]


async def test_in_production_nothing_of_the_dev_tools_can_be_reached_not_even_by_who_is_signed_in() -> None:
    site = Site()

    @site.app.callback(Output("fails", "children"), Input("go", "n_clicks"))
    async def fails(_value: int) -> None:
        raise RuntimeError("the secret of the exception")

    async with site:
        cookie = await site.login("alice")
        rules = [rule.rule for rule in site.server.url_map.iter_rules() if not rule.is_leaf or "<" not in rule.rule]
        pages = [rule for rule in rules if "slow" not in rule and "log" not in rule]
        assert {"/", "/_dash-layout", "/_dash-dependencies", "/_reload-hash"} <= set(pages)
        bodies = {path: (await site.get(path, cookie)).body for path in [*pages, "/any/page", "/_dash-error"]}
        body = {**ECHO, "output": "fails.children", "outputs": {"id": "fails", "property": "children"}}
        bodies["a callback"] = (await site.request("POST", "/_dash-update-component", cookie, json=body)).body
        for path in ("/_reload-hash", TOOLS):
            assert (await site.get(path, cookie)).status == 404
        async with site.websocket(cookie) as socket:
            message = {"type": "callback_request", "rendererId": "tab", "requestId": "1", "payload": body}
            await socket.send(json.dumps(message))
            bodies["a callback over the websocket"] = await socket.receive()
    found = {
        (path, word) for path, text in bodies.items() for word in (*DEVELOPMENT, "the secret") if word in str(text)
    }
    assert found == set()


async def test_the_words_by_which_the_dev_tools_are_known_are_there_in_debug_mode() -> None:
    site = Site(debug=True)
    site.app.enable_dev_tools(debug=True, dev_tools_hot_reload=True)
    async with site:
        cookie = await site.login("alice")
        page = str((await site.get("/", cookie)).body)
        assert [word for word in DEVELOPMENT[1:6] if word not in page] == []
        assert f'<script src="{TOOLS}"></script>' in page
        assert (await site.get(TOOLS, cookie)).status == 200
        assert "reloadHash" in str((await site.get("/_reload-hash", cookie)).body)


async def test_hot_reload_is_for_those_who_develop_also_where_two_apps_share_a_server() -> None:
    server = Quart("both")
    for name in ("one", "two"):
        backend = QuartBackend(server=server, broker="memory:", login_required=False)
        app = Dash(name, backend=backend, url_base_pathname=f"/{name}/", assets_folder="none")
        app.layout = html.Div()
        if name == "one":
            app.enable_dev_tools(debug=True, dev_tools_hot_reload=True)
    client = server.test_client()
    assert [(await client.get(f"/{name}/_reload-hash")).status_code for name in ("one", "two")] == [200, 404]
