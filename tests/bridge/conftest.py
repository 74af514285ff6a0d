"""Sites by their options, one browser, and users whom nobody else has been."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .browser import Browser, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"browser", "browser_at"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """A site for each set of options that is asked for, started once."""
    running: dict[tuple[tuple[str, str], ...], Site] = {}

    def site(**options: str) -> Site:
        key = tuple(sorted(options.items()))
        if key not in running:
            running[key] = Site(tmp_path_factory.mktemp("site"), **options)
        return running[key]

    yield site
    for one in running.values():
        one.close()


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.quit()


@pytest.fixture
def browser_at(chromium: Browser, sites: Callable[..., Site]) -> Iterator[Callable[..., Browser]]:
    """The browser, with nothing stored and one tab, at the site with these options."""

    def at(*, host: str | None = None, **options: str) -> Browser:
        chromium.use(sites(**options), host)
        return chromium

    yield at
    if chromium.site is not None:
        chromium.site.proxy.reset()
    chromium.forget()


@pytest.fixture
def site(sites: Callable[..., Site]) -> Site:
    """The site without options."""
    return sites()


@pytest.fixture
def browser(site: Site, browser_at: Callable[..., Browser]) -> Browser:
    return browser_at()


@pytest.fixture
def alice() -> str:
    return f"alice{next(numbers)}"


@pytest.fixture
def bob() -> str:
    return f"bob{next(numbers)}"
