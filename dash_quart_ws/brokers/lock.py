"""Whether this is the only process that works with a file: a lock tells, which the system gives to one process at a time."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    fcntl = importlib.import_module("fcntl")

PATIENCE = 35.0
"""Seconds that two processes may have a file in common before it is said. A graceful reload has the old one beside the new
one for as long as the old one's connections take to end: gunicorn gives them 30, hypercorn 3, unless told otherwise."""

TRY_EVERY = 1.0
"""Seconds between two attempts of a process that does not have the lock."""


class ProcessLock:
    """The lock of a process, or its attempts to get it until it is closed. Nobody waits for it, and nothing depends on it.

    It is POSIX's and not `flock`, so the process's own: a child that is forked meanwhile, for a background job, does not have
    it, nor keeps it when this process has ended; and two apps of one process are no two processes (the first of them that
    closes gives it back for both).

    Args:
        path: a file for this alone; it is made, and stays.
        complain: called once, in a thread, with the number of the process that has it, or "?", when this one has not got it
            in `PATIENCE`. It goes on trying.

    Raises:
        OSError: there is no such file to be had.
    """

    def __init__(self, path: Path, complain: Callable[[str], object]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._complain = complain
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if not self._is_had():
            self._thread = threading.Thread(target=self._try, name="dash-quart-ws-lock", daemon=True)
            self._thread.start()

    def _is_had(self) -> bool:
        """Whether this process has it now. True also where there are none, as on Windows and on some network file systems."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        with contextlib.suppress(OSError):  # the disk is full: it is not known who has it, and that is all
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d" % os.getpid(), 0)
        return True

    def _try(self) -> None:
        told_at = time.monotonic() + PATIENCE
        while not self._closing.wait(TRY_EVERY) and not self._is_had():
            if time.monotonic() >= told_at:
                told_at = float("inf")
                self._complain(os.pread(self._file, 20, 0).decode("ascii", "replace") or "?")

    def close(self) -> None:
        """Give it back, or try no more."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._file)
