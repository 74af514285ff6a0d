"""One row for each thing that Dash documents about callbacks: a small app, what its user does, and what comes of it.

A new feature of Dash's is one more function with `@feature` in one of the modules of `rows`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dash import Dash

    from .page import Page

    Step = Callable[[Page], None]


@dataclasses.dataclass(frozen=True)
class Feature:
    """A row of the table."""

    name: str
    """What the table in the docs calls it."""
    build: Callable[[Dash], None]
    """Gives the app its layout and callbacks."""
    does: tuple[Step, ...]
    """What the user does, from the page's first moment on."""
    shows: Mapping[str, Any]
    """What is to be seen in the end, as Dash documents it; `Page.see` explains the keys."""
    shows_live: Mapping[str, Any]
    """What is to be seen over the websocket besides: over HTTP nothing is, before the callback's end."""
    over_http: frozenset[str]
    """The callbacks that go over HTTP in the app with `websocket_callbacks=True`, too."""
    says: str
    """What the table in the docs adds."""
    complains: tuple[str, ...]
    """What the page calls an error on the console, over HTTP and over the websocket: regular expressions."""
    is_endless: bool
    """Whether something runs as long as the page is there."""
    site: str
    """The server process that it runs in: what it does there is seen by all apps of it."""
    dev_tools: Mapping[str, Any] | None
    """In debug mode: arguments of `enable_dev_tools`."""
    options: Mapping[str, Any]
    """Of `dash.Dash`."""

    @property
    def slug(self) -> str:
        """Names it in URLs, and in the tests' names."""
        name = self.build.__name__.replace("_", "-")
        return name if self.site == "plain" else f"{name}-{self.site}"


FEATURES: list[Feature] = []


def feature(
    name: str,
    *does: Step,
    shows: Mapping[str, Any],
    shows_live: Mapping[str, Any] | None = None,
    over_http: tuple[str, ...] = (),
    says: str = "",
    complains: tuple[str, ...] = (),
    is_endless: bool = False,
    site: str = "plain",
    dev_tools: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[[Callable[[Dash], None]], Callable[[Dash], None]]:
    """Decorator: this function builds the app of a row. The arguments are the fields of `Feature`."""

    def add(build: Callable[[Dash], None]) -> Callable[[Dash], None]:
        live, http = shows_live or {}, frozenset(over_http)
        row = Feature(name, build, does, shows, live, http, says, complains, is_endless, site, dev_tools, options)
        assert row.slug not in {one.slug for one in FEATURES}, row.slug
        FEATURES.append(row)
        return build

    return add


# ------------------------------------------------------------------------------------------- what a user does


def click(id: str) -> Step:
    return lambda page: page.click(id)


def type_in(id: str, text: str) -> Step:
    """Type, and leave the field."""
    return lambda page: page.type_in(id, text)


def wait_for(id: str, text: str) -> Step:
    """Wait until a component shows a text, or one that a pattern fits."""
    return lambda page: page.wait_for_text(id, re.compile(text))


def settle(page: Page) -> None:
    """Wait until nothing is under way."""
    page.settle()


def reload(page: Page) -> None:
    page.reload()


def go_to(place: str) -> Step:
    """Another address of the same app."""
    return lambda page: page.go_to(place)


def back(page: Page) -> None:
    page.js("history.back()")


def upload(id: str, size: int) -> Step:
    return lambda page: page.upload(id, size)


def call(path: str, body: Any = None, *within: str | int) -> Step:
    """What a script is answered that posts JSON below the app, or without a body gets it: one more of the page's `answers`.

    `within`: keys that lead to the part of the answer that is looked at.
    """
    return lambda page: page.call(path, body, within)


def unfold_errors(count: int) -> Step:
    """Of the dev tools."""
    return lambda page: page.unfold_errors(count)
