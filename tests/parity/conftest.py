"""The servers of the table, each started when the first of its rows is looked at, and one browser for all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from ..celery_worker import celery_worker
from ..server import Server, serving
from .page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="package")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    running: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def site(name: str) -> Server:
            if name not in running:
                folder = tmp_path_factory.mktemp(name)
                env = {"SITE": name, "JOBS": str(folder)}
                if name == "celery":
                    env["REDIS"] = stack.enter_context(celery_worker(folder, "tests.parity.site:celery", env))
                running[name] = stack.enter_context(serving(folder, app="tests.parity.site:server", env=env))
            return running[name]

        yield site


@pytest.fixture(scope="package")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    running = Page(tmp_path_factory.mktemp("profile"))
    yield running
    running.quit()
