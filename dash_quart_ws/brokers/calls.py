"""From one thread into the event loop of another, in order: one wake-up for whatever has come together meanwhile."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

logger = logging.getLogger("dash_quart_ws.broker")

T = TypeVar("T")

AT_ONCE = 500
"""Calls that are made before the loop may do something else."""


class Calls:
    """Calls for an event loop, made there in the order in which they were given. Safe from any thread.

    Before there is a loop they wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_called = False

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def has_loop(self) -> bool:
        """Whether anything is called at all."""
        return self._loop is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the calls on this loop from now on, those that have waited among them."""
        with self._lock:
            self._loop = loop
            self._is_called = False
            if self._calls:
                self._wake(loop)

    def detach(self) -> None:
        """There is no loop any more; what it has not been given by now is forgotten."""
        with self._lock:
            self._loop, self._is_called = None, False
            self._calls.clear()

    def take(self) -> list[tuple[Callable[..., object], tuple[Any, ...]]]:
        """What has not been called yet, and will not be."""
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
            return calls

    def put(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call this, after everything that was put before."""
        with self._lock:
            self._calls.append((function, arguments))
            if self._loop is not None and not self._is_called:
                self._wake(self._loop)

    def ask(self, function: Callable[[], T]) -> concurrent.futures.Future[T]:
        """The same, for what it gives."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                settle(answer, function())
            except Exception as error:  # noqa: BLE001 - it belongs to who asks
                settle(answer, error=error)

        self.put(call)
        return answer

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._make, loop)
        except RuntimeError:  # it is closed: nobody is there to be told
            self._loop = None
            self._calls.clear()
        else:
            self._is_called = True

    def _make(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(AT_ONCE):
            with self._lock:
                if loop is not self._loop:
                    return
                if not self._calls:
                    self._is_called = False
                    return
                function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except Exception:  # one call's failure must not keep the others from being made
                logger.exception("%s failed", getattr(function, "__qualname__", function))
        loop.call_soon(self._make, loop)


def settle(future: concurrent.futures.Future[T], value: T | None = None, *, error: BaseException | None = None) -> None:
    """Give a future its outcome, unless it has one, or nobody wants it any more."""
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]
