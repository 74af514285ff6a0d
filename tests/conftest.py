"""Fixtures for every wing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .server import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def hypercorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`tests.apps.basic` on hypercorn, one for the module."""
    with serving(tmp_path_factory.mktemp("hypercorn")) as server:
        yield server
