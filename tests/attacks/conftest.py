"""One server and one browser for all attacks; the log is looked at when all of them are over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .target import Target, attacked

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = [item for item in items if item.path == Path(__file__).with_name("test_log.py")]
    items[:] = [item for item in items if item not in last] + last


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacks")


@pytest.fixture(scope="package")
def site(folder: Path) -> Iterator[Target]:
    """The app that most attacks are about."""
    with attacked(folder) as target:
        yield target


@pytest.fixture
def alice(site: Target) -> str:
    return site.login("alice")


@pytest.fixture
def bob(site: Target) -> str:
    return site.login("bob")
