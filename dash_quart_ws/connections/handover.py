"""What threads give to the event loop: in order, bounded, and without waking it for each item.

Waking an event loop costs more than a small message does. It is woken for the first item, and takes all that are there by
then. Where many come one after another (`LOOK_EVERY`), it then looks for more once in a while, and a look that finds
nothing is the last.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")

LOOK_EVERY = 0.001
"""Seconds between two looks while items keep coming: as much later one may be taken than it could be. None: no looks."""

GIVES_WAY = 0.002
"""Seconds for which a thread gives way at most: a loop that is busy with something else takes the item when it can."""

MOST_WAITING = 1024
"""Items that may wait; a thread that has more has to wait itself."""

PATIENCE = 1.0
"""Seconds after which a thread that waits looks whether the event loop is still there."""


class Handover(Generic[T]):
    """Calls `take(item)` on the event loop for each item that any thread has put."""

    __slots__ = ("_awake", "_items", "_look_every", "_looked", "_loop", "_take_one")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, take: Callable[[T], object], *, look_every: float | None = LOOK_EVERY
    ) -> None:
        self._loop = loop
        self._look_every = look_every
        self._take_one = take
        self._items: deque[T] = deque()
        self._awake = False
        self._looked = threading.Event()
        """Set when the loop has taken what it was woken for."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, *, is_large: bool = False) -> None:
        """From any thread but the loop's own: waits while too many items do, and until a large one has been taken.

        Nothing happens once the loop has closed.
        """
        self._items.append(item)
        if not self._awake:
            self._awake = True
            self._looked.clear()
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._look)
                if self._look_every is not None:
                    self._looked.wait(GIVES_WAY)
        if is_large or len(self._items) > MOST_WAITING:
            self._wait_for_the_loop()

    def take(self) -> None:
        """On the loop, for what must not overtake the items that wait: take them now."""
        for _ in range(len(self._items)):
            self._take_one(self._items.popleft())

    def _look(self) -> None:
        if self._look_every is not None and self._items:
            self._loop.call_later(self._look_every, self._look)  # first: an item that raises is not the end of it
            try:
                self.take()
            finally:
                self._looked.set()
            return
        self._awake = False  # first, so that a thread that puts something now wakes us again
        self.take()

    def _wait_for_the_loop(self) -> None:
        taken: concurrent.futures.Future[None] = concurrent.futures.Future()

        def take() -> None:
            try:
                self.take()
            finally:
                taken.set_result(None)

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(take)
            while self._loop.is_running() and not taken.done():
                concurrent.futures.wait((taken,), PATIENCE)
