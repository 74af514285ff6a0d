"""What Dash documents about callbacks, over HTTP and over the websocket, as a user of a real Chromium sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from ..server import ROOT
from . import rows  # noqa: F401 - fills the table
from .table import FEATURES, Feature

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..server import Server
    from .page import Page


def test_the_table_in_the_docs_has_these_rows() -> None:
    lines = (ROOT / "docs" / "parity.md").read_text("utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")][2:]
    assert table == [f"| {one.name} | {one.says or 'the same'} |" for one in FEATURES]


def visit(page: Page, site: Server, feature: Feature, transport: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a user of the app ends up seeing, and what has run for that."""
    where = f"/ran/{transport}/{feature.slug}"
    site.get(where)
    page.visit(site, feature, transport)
    for step in feature.does:
        step(page)
    shows = {**feature.shows, **feature.shows_live} if transport == "socket" else dict(feature.shows)
    seen = page.ends_up_with(shows)
    page.wait_for_complaints(len(feature.complains))
    complaints = page.complaints
    assert len(complaints) == len(feature.complains), complaints
    for pattern, complaint in zip(feature.complains, complaints, strict=True):
        assert re.search(pattern, complaint), complaint
    return seen, site.get(where).json


OPENER = "none by "
"""What a page asks for to have its websocket at once, where something goes over HTTP and the renderer opens it late."""


def calls(ran: dict[str, dict[str, int]], feature: Feature) -> dict[str, int]:
    """How often each callback was called; how often a job is asked after is another matter."""
    others = {*feature.over_http, OPENER} if feature.over_http else set()
    return {name: sum(by.values()) for name, by in ran.items() if name not in others}


@pytest.mark.browser
@pytest.mark.parametrize("feature", FEATURES, ids=lambda one: one.slug)
def test_a_callback_is_over_the_socket_what_it_is_over_http(
    feature: Feature, page: Page, sites: Callable[[str], Server]
) -> None:
    site = sites(feature.site)
    seen, ran = visit(page, site, feature, "http")
    assert seen == feature.shows, "over HTTP"
    assert {carrier for by in ran.values() for carrier in by} <= {"http"}
    seen_over_socket, ran_over_socket = visit(page, site, feature, "socket")
    assert seen_over_socket == {**feature.shows, **feature.shows_live}, "over the socket"
    assert calls(ran_over_socket, feature) == calls(ran, feature)
    for name, by in ran_over_socket.items():
        assert set(by) == {"http" if name in feature.over_http else "socket"}, name
