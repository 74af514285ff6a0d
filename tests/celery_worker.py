"""A real Celery worker on a real redis-server, for the background jobs of an app."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from .brokers.redis_server import RedisServer
from .server import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

JOBS_AT_A_TIME = "2"
START_TIMEOUT = 60.0
"""Seconds: it imports the whole app."""
STOP_TIMEOUT = 20.0
"""Seconds until it is killed, and again until it is gone."""


@contextlib.contextmanager
def celery_worker(folder: Path, app: str, env: Mapping[str, str]) -> Iterator[str]:
    """A worker for a Celery app until the end of the block, and the URL of its Redis, which it finds in `REDIS`."""
    redis = RedisServer(folder)
    redis.start()
    log = folder / "worker.log"
    options = ["--concurrency", JOBS_AT_A_TIME, "--loglevel", "INFO"]
    command = [sys.executable, "-m", "celery", "--app", app, "worker", *options]
    try:
        with log.open("wb") as file:
            worker = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **env, "REDIS": redis.url},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            is_ready = " ready."
            wait_for(
                lambda: is_ready in log.read_text("utf-8") or worker.poll() is not None, START_TIMEOUT, "the worker"
            )
            assert worker.poll() is None, log.read_text("utf-8")
            yield redis.url
        finally:
            worker.terminate()
            try:
                worker.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:  # it waits for its jobs; after a test that has failed one may go on
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait(STOP_TIMEOUT)
    finally:
        redis.stop()
