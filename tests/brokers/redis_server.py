"""A real redis-server, to be stopped, killed, frozen, emptied and restarted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = os.environ.get("DASH_QUART_WS_TEST_REDIS", "redis-server")
"""What the tests start: `valkey-server` will do as well."""


class RedisServer:
    """One server on a free port of this host, with its data in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        found = shutil.which(PROGRAM)
        assert found, f"{PROGRAM} is not installed: .ci/debian-packages redis-server"
        self._program = found
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2, **options)

    @contextlib.contextmanager
    def look(self, **options: Any) -> Iterator[redis.Redis]:
        client = self.client(**options)
        try:
            yield client
        finally:
            client.close()

    def start(self, *options: str) -> None:
        arguments = [
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
            "--save",
            "",
            "--appendonly",
            "no",
            "--loglevel",
            "warning",
        ]
        self._process = subprocess.Popen(
            [self._program, "--port", str(self.port), *arguments, *self._options, *options], stdout=subprocess.DEVNULL
        )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        assert self._process is not None
        until = time.monotonic() + 30
        while True:
            with self.look() as client, contextlib.suppress(redis.ConnectionError):
                with contextlib.suppress(redis.AuthenticationError):  # it answers, which is all that is asked
                    client.ping()
                return
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        """As an operator does: it keeps what it is configured to keep."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait(30)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.look() as client:
            client.flushall()
