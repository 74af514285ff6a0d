"""What is written into Dash's pages: read back as a browser would."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from dash import Dash, Input, Output, dcc, html
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dash_quart_ws import QuartBackend
from dash_quart_ws.browser import bundles, pages
from dash_quart_ws.exceptions import ConfigurationError
from tests.sessions.site import Site

SETTINGS = {
    "prefix": "/",
    "login": "/login",
    "page": "token",
    "session": "abc",
    "bridge": True,
    "status": True,
}
SOURCE = f"/_dash-quart-ws/{bundles.script_file()}"

BARE = '<html><head><title>x</title></head><body><script id="_dash-config" type="application/json">{}</script></body></html>'


class Reader(HTMLParser):
    """The scripts and metas of a page, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.texts[-1] += data

    @property
    def scripts(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "script"]

    @property
    def config(self) -> Any:
        return json.loads(self.texts[[script.get("id") for script in self.scripts].index("_dash-config")])

    @property
    def settings(self) -> Any:
        (content,) = [
            attrs["content"] for tag, attrs in self.tags if tag == "meta" and attrs.get("name") == "dash-quart-ws"
        ]
        return json.loads(content or "")


def page_of(**options: Any) -> str:
    """The page of a real Dash app."""
    app = Dash(__name__, backend=QuartBackend(broker="memory:"), assets_folder="no-assets", **options)
    app.layout = html.Div([dcc.Input(id="in"), html.Div(id="out")])
    app.callback(Output("out", "children"), Input("in", "value"))(lambda value: value)
    app.clientside_callback("function (x) { return x; }", Output("out", "title"), Input("in", "value"))
    return str(app.index())


def same(config: dict[str, Any]) -> dict[str, Any]:
    return config


@pytest.fixture(scope="module")
def dash_page() -> str:
    return page_of()


def test_a_dash_page_gets_settings_and_script_right_before_its_config(dash_page: str) -> None:
    before, after = Reader(dash_page), Reader(pages.write(dash_page, settings=SETTINGS, config=same))
    at = [(tag, attributes.get("id")) for tag, attributes in after.tags].index(("script", "_dash-config"))
    assert after.tags[at - 2 : at] == [
        ("meta", {"name": "dash-quart-ws", "content": json.dumps(SETTINGS, separators=(",", ":"))}),
        ("script", {"src": SOURCE}),
    ]
    assert after.tags[: at - 2] + after.tags[at:] == before.tags
    assert after.config == before.config
    assert after.settings == SETTINGS


def test_a_page_with_dashs_dev_tools_has_a_script_for_them_after_its_own(dash_page: str) -> None:
    after = Reader(pages.write(dash_page, settings=SETTINGS, config=same, devtools=True))
    sources = [script.get("src") for script in after.scripts if script.get("id") != "_dash-config"]
    at = sources.index(SOURCE)
    assert sources[at + 1] == f"/_dash-quart-ws/{bundles.script_file(bundles.DEVTOOLS)}"


def test_it_runs_before_the_renderer_does(dash_page: str) -> None:
    sources = [
        script.get("src") or "" for script in Reader(pages.write(dash_page, settings=SETTINGS, config=same)).scripts
    ]
    assert sources.index(SOURCE) < next(i for i, source in enumerate(sources) if "dash-renderer" in source)


def test_what_the_renderer_is_told_can_be_changed(dash_page: str) -> None:
    def told(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "websocket": None, "more": "</script>"}

    before, after = Reader(dash_page), Reader(pages.write(dash_page, settings=SETTINGS, config=told))
    assert after.config == {**before.config, "websocket": None, "more": "</script>"}
    assert len(after.scripts) == len(before.scripts) + 1


def test_the_prefix_is_where_the_browser_finds_the_app() -> None:
    page = page_of(requests_pathname_prefix="/proxy/app/", routes_pathname_prefix="/app/")
    written = Reader(pages.write(page, settings={**SETTINGS, "prefix": "/proxy/app/"}, config=same))
    assert f"/proxy/app{SOURCE}" in [script.get("src") for script in written.scripts]


@pytest.mark.parametrize(
    "quoted", ['nonce="r4nd+om/=="', "nonce='r4nd+om/=='", "nonce=r4nd+om/==", 'NONCE="r4nd+om/=="']
)
def test_the_script_carries_the_nonce_of_the_pages_scripts(dash_page: str, quoted: str) -> None:
    page = re.sub(r"<script(?! id=\"_dash-config)", f"<script {quoted}", dash_page)
    ours = [
        script
        for script in Reader(pages.write(page, settings=SETTINGS, config=same)).scripts
        if script.get("src") == SOURCE
    ]
    assert ours == [{"src": SOURCE, "nonce": "r4nd+om/=="}]


@pytest.mark.parametrize(
    "other", ["<style nonce='s'></style>", '<script data-nonce="n"></script>', '<script nonce=""></script>']
)
def test_it_carries_none_when_they_carry_none(other: str) -> None:
    page = BARE.replace("<head>", f"<head>{other}")
    ours = [
        script
        for script in Reader(pages.write(page, settings=SETTINGS, config=same)).scripts
        if script.get("src") == SOURCE
    ]
    assert ours == [{"src": SOURCE}]


@pytest.mark.parametrize(
    "tag",
    [
        '<script id="_dash-config" type="application/json">',
        '<script nonce="abc" id="_dash-config" type="application/json">',
        "<script type='application/json' id='_dash-config'>",
        "<SCRIPT\n  type=application/json\n  id=_dash-config\n>",
    ],
)
def test_the_config_is_found_however_its_tag_is_spelled(tag: str) -> None:
    page = BARE.replace('<script id="_dash-config" type="application/json">', tag)
    written = pages.write(page, settings=SETTINGS, config=lambda config: {**config, "told": True})
    assert Reader(written).config == {"told": True}
    assert tag in written


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html></html>",
        "<script>id='_dash-config'</script>",
        '<script data-id="_dash-config">{}</script>',
        '<script id="_dash-config2">{}</script>',
        "<script id=_dash-config2>{}</script>",
        '<script id="_dash-config">{}',
        '<div id="_dash-config">{}</div>',
    ],
)
def test_a_page_without_the_config_says_what_to_do(page: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\{%config%\}"):
        pages.write(page, settings=SETTINGS, config=same)


@pytest.mark.parametrize("text", ["", "{", "undefined", "{'a': 1}", "[1]", "null", '"text"'])
def test_a_config_that_has_been_changed_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not (a )?JSON"):
        pages.write(BARE.replace("{}", text), settings=SETTINGS, config=same)


def test_numbers_of_any_size_stay_what_they_are() -> None:
    text = '{"big":123456789012345678901234567890,"float":0.1,"one":1.0,"small":-5e-324}'
    assert text in pages.write(BARE.replace("{}", text), settings=SETTINGS, config=same)


HOSTILE = [
    "</script>", "<!--<script>", "<script>", "]]>", "&lt;", "\u2028\u2029", "\ud800", '"', "'", "\\", "\\1\\g<0>", "\x00",
]  # fmt: skip
STRINGS = st.text() | st.sampled_from(HOSTILE)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    value=st.dictionaries(STRINGS, VALUES, max_size=4), login=STRINGS, page_token=STRINGS, session=st.none() | STRINGS
)
def test_whatever_the_strings_are_they_are_read_back_and_add_nothing_to_the_page(
    value: dict[str, Any], login: str, page_token: str, session: str | None
) -> None:
    told = {"prefix": "/", "login": login, "page": page_token, "session": session}
    written = pages.write(BARE, settings=told, config=lambda _config: value)
    written.encode("ascii")
    read = Reader(written)
    assert read.config == value
    assert read.settings == told
    assert [tag for tag, _ in read.tags] == ["html", "head", "title", "body", "meta", "script", "script"]
    body = re.search(r'_dash-config"[^>]*>(.*)</script></body>', written, re.DOTALL)
    assert body is not None
    assert not set("<>&\u2028\u2029") & set(body[1])


@given(value=st.dictionaries(STRINGS, VALUES, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_written_can_be_written_again(value: dict[str, Any]) -> None:
    once = pages.write(BARE, settings=SETTINGS, config=lambda _config: value)
    seen: list[dict[str, Any]] = []
    pages.write(once, settings=SETTINGS, config=lambda config: seen.append(config) or config)
    assert seen == [value]


@given(prefix=st.text(alphabet="/abc<>\"'& ü", max_size=20))
def test_the_prefix_stays_within_its_attribute(prefix: str) -> None:
    written = Reader(pages.write(BARE, settings={**SETTINGS, "prefix": prefix}, config=same))
    assert [script.get("src") for script in written.scripts] == [
        f"{prefix}_dash-quart-ws/{bundles.script_file()}",
        None,
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"bridge": True, "status": True}),
        ({"bridge": False}, {"bridge": False, "status": True}),
        ({"connection_status": False}, {"bridge": True, "status": False}),
    ],
)
async def test_a_page_tells_its_script_what_the_app_was_given(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    async with Site(**options) as site:
        cookie = await site.login("alice")
        told = Reader(str((await site.get("/", cookie)).body)).settings
        assert told["session"] == await site.session_id(cookie)
    assert {name: told[name] for name in expected} == expected
