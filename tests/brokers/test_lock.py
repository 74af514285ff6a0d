"""The lock on a file: one process has it, another one waits for it and says so when that takes too long."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.brokers import lock
from dash_quart_ws.brokers.lock import ProcessLock

from ..server import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import os, pathlib, sys
from dash_quart_ws.brokers.lock import ProcessLock
held = ProcessLock(pathlib.Path(sys.argv[1]), print)
"""
FORK = """
if os.fork():
    sys.stdin.read()
    os._exit(0)
"""
WAIT = """
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.lock"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[str]:
    """Which process has the file, when this one complains, which it does after a moment."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    monkeypatch.setattr(lock, "TRY_EVERY", 0.02)
    return queue.Queue()


def process(program: str, path: Path) -> subprocess.Popen[str]:
    """Another process, that has said that it is ready, until its input ends."""
    command = [sys.executable, "-c", program, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the lock."""
    running = process(HOLD + WAIT, path)
    try:
        assert running.stdout is not None
        assert int(running.stdout.readline()) == running.pid
        yield running
    finally:
        running.communicate(timeout=30)


def is_free(path: Path) -> bool:
    """Whether another process than this could have it."""
    program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", program, path], stderr=subprocess.DEVNULL, check=False).returncode == 0


def is_waiting() -> bool:
    return any(thread.name == "dash-quart-ws-lock" for thread in threading.enumerate())


def test_who_does_not_get_it_says_once_which_process_has_it_and_gets_it_when_that_is_killed(
    path: Path, told: queue.Queue[str]
) -> None:
    with holding(path) as other:
        waiting = ProcessLock(path, told.put)
        assert told.get(timeout=30) == str(other.pid)
        with pytest.raises(queue.Empty):
            told.get(timeout=0.5)
        assert is_waiting()
        other.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_waiting(), 30, "it to have the lock")
    assert not is_free(path)
    assert path.read_text() == str(os.getpid())
    waiting.close()
    assert is_free(path)
    assert told.empty()


def test_nobody_complains_of_a_process_that_ends_in_time_as_in_a_graceful_reload(
    path: Path, told: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    with holding(path):
        successor = ProcessLock(path, told.put)
        assert is_waiting()
    wait_for(lambda: not is_waiting(), 30, "it to have the lock")
    successor.close()
    assert told.empty()


def test_a_child_that_is_forked_does_not_keep_it_when_its_parent_is_gone(path: Path, told: queue.Queue[str]) -> None:
    parent = process(HOLD + FORK + WAIT, path)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_free(path)
        parent.kill()
        parent.wait(30)
        assert is_free(path)
        os.kill(child, 0)  # it is there all the same
    finally:
        parent.communicate(timeout=30)  # and ends with its input


def test_two_apps_of_one_process_are_no_two_processes(path: Path, told: queue.Queue[str]) -> None:
    both = [ProcessLock(path, told.put) for _ in range(2)]
    assert not is_waiting()
    for one in both:
        one.close()


def test_who_gives_up_waits_no_more_and_says_nothing(
    path: Path, told: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "TRY_EVERY", 60.0)
    with holding(path):
        waiting = ProcessLock(path, told.put)
        assert is_waiting()
        waiting.close()
        assert not is_waiting()
    assert told.empty()


def test_where_there_are_no_locks_nobody_waits_and_nothing_is_said(
    path: Path, told: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")  # some network file systems

    with holding(path):
        monkeypatch.setattr(fcntl, "lockf", refuse)
        over_the_network = ProcessLock(path, told.put)
        monkeypatch.setattr(lock, "fcntl", None)  # Windows
        on_windows = ProcessLock(path, told.put)
        assert not is_waiting()
        for one in (over_the_network, on_windows):
            one.close()
    assert told.empty()


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    ProcessLock(path, print).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
