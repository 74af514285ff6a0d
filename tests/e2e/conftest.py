"""The demo in a process and a folder of its own, and a Chromium profile for each of its users."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from .browser import Browser
from .demo import Demo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPECTED_COMPLAINTS = (
    ("dash_renderer", "The connection was lost before the answer came."),  # what ran when the socket closed
    ("/_dash-quart-ws/session", "401"),  # how a page learns that it is signed out,
    ("/_dash-quart-ws/session", "409"),  # or that somebody else has signed in
    ("/_dash-update-component", "401"),
    ("/_dash-update-component", "403"),  # somebody else's session
    ("/_dash-update-component", "409"),
    ("/login", "403"),  # a wrong password
    ("/_dash-quart-ws/session", "ERR_CONNECTION_REFUSED"),  # the server restarts
    ("/_dash-ws-callback", "ERR_CONNECTION_REFUSED"),
    ("WebSocket error", "nothing was asked of this tab"),  # an answer that comes after its connection has ended
    ("dash_renderer", "Error: stale page"),  # what Dash says of callbacks that were refused
    ("dash_renderer", "Error: login required"),
    ("dash_renderer", " Object"),
    ("dash_renderer", "body stream already read"),
    ("dash_renderer", "(reading 'title')"),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`python quart_app.py`, in a copy: its databases are the test's own."""
    running = Demo(tmp_path_factory.mktemp("demo"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def profiles(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Browser]]:
    """A browser for each name that is asked for, started once."""
    running: dict[str, Browser] = {}

    def browser(name: str) -> Browser:
        if name not in running:
            running[name] = Browser(demo, tmp_path_factory.mktemp(name))
        return running[name]

    yield browser
    for one in running.values():
        one.quit()


@pytest.fixture
def expected_complaints() -> list[tuple[str, str]]:
    """What a console may say in this test; a test that provokes more of it adds that."""
    return list(EXPECTED_COMPLAINTS)


@pytest.fixture
def profile(
    profiles: Callable[[str], Browser], expected_complaints: list[tuple[str, str]]
) -> Iterator[Callable[[str], Browser]]:
    """The same, each without cookies and with one empty tab; at the end nothing unexpected is on its console."""
    used: dict[str, Browser] = {}

    def browser(name: str) -> Browser:
        if name not in used:
            used[name] = profiles(name)
            used[name].forget()
        return used[name]

    yield browser
    complaints = [text for one in used.values() for text in one.complaints()]
    for one in used.values():
        one.forget()
    unexpected = [
        text
        for text in complaints
        if not any(where in text and status in text for where, status in expected_complaints)
    ]
    assert "\n".join(unexpected) == ""


@pytest.fixture
def browser(profile: Callable[[str], Browser]) -> Browser:
    """One browser, for tests that need no second."""
    return profile("first")


@pytest.fixture(scope="session", autouse=True)
def chromium() -> None:
    """A missing browser fails these tests; it never skips them."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    assert not missing, f"install {' and '.join(missing)}: the browser tests need them"
