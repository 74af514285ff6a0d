"""The servers of the table, each started when the first of its rows is looked at, and one browser for all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..brokers.redis_server import RedisServer
from ..server import ROOT, Server, serving, wait_for
from .page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def celery_worker(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A real worker, with two processes for jobs."""
    options = ["--concurrency", "2", "--loglevel", "INFO"]
    command = [sys.executable, "-m", "celery", "--app", "tests.parity.site:celery", "worker", *options]
    log = folder / "worker.log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(lambda: " ready." in log.read_text("utf-8") or worker.poll() is not None, 60, "the worker")
        assert worker.poll() is None, log.read_text("utf-8")
        yield
    finally:
        worker.terminate()
        worker.wait(30)


@pytest.fixture(scope="package")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    running: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def site(name: str) -> Server:
            if name not in running:
                folder = tmp_path_factory.mktemp(name)
                env = {"SITE": name, "JOBS": str(folder)}
                if name == "celery":
                    env["REDIS"] = stack.enter_context(redis_server(folder)).url
                    stack.enter_context(celery_worker(folder, env))
                running[name] = stack.enter_context(serving(folder, app="tests.parity.site:server", env=env))
            return running[name]

        yield site


@pytest.fixture(scope="package")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    running = Page(tmp_path_factory.mktemp("profile"))
    yield running
    running.quit()
