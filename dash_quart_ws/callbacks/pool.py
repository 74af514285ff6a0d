"""Threads for synchronous callbacks, shared fairly.

A thread that is busy cannot be taken back: a user whose callbacks block must not be able to hold all of them. So each
user has a share of the threads, and when threads are scarce users take turns, not callbacks. A thread counts against
its user until the function in it returns, whatever became of the connection or the session that asked for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

logger = logging.getLogger("dash_quart_ws.pool")

T = TypeVar("T")

FULL_WARNING_EVERY = 60.0
"""Seconds between two log lines about a pool that is full."""


class Pool:
    """Runs functions in at most `threads` threads, at most `share` of them for one user. Belongs to the event loop."""

    def __init__(self, executor: Executor, *, threads: int, share: int | None) -> None:
        self.threads = threads
        self.share = min(threads, share or -(-threads // 2))
        self._executor = executor
        self._busy: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[asyncio.Future[Any], Callable[[], Any]]]] = OrderedDict()
        self._warned_at = float("-inf")

    @property
    def busy(self) -> int:
        """Threads that run a function."""
        return self._busy.total()

    @property
    def queued(self) -> int:
        """Functions that wait for a thread."""
        return sum(map(len, self._waiting.values()))

    async def run(self, user: str, function: Callable[[], T]) -> T:
        """The function's result, from a thread that sees the caller's context variables.

        Cancelling takes a function that still waits out of the queue; one that runs goes on, and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        outcome: asyncio.Future[T] = loop.create_future()
        self._waiting.setdefault(user, deque()).append((outcome, lambda: context.run(function)))
        self._start_what_fits(loop)
        if self.queued and loop.time() > self._warned_at + FULL_WARNING_EVERY:
            self._warned_at = loop.time()
            logger.warning(
                "synchronous callbacks wait for a thread: %d of %d busy, %d queued. Write slow callbacks with async def, "
                "or raise callback_threads",
                self.busy, self.threads, self.queued,
            )  # fmt: skip
        return await outcome

    def _start_what_fits(self, loop: asyncio.AbstractEventLoop) -> None:
        for user in list(self._waiting):
            if self.busy >= self.threads:
                return
            self._start_one(user, loop)

    def _start_one(self, user: str, loop: asyncio.AbstractEventLoop) -> None:
        queue = self._waiting[user]
        while queue and self._busy[user] < self.share:
            outcome, function = queue.popleft()
            if not outcome.done():  # it is, when its caller was cancelled while it waited
                self._busy[user] += 1
                hand_back = functools.partial(self._hand_back, loop, user, outcome)
                self._executor.submit(function).add_done_callback(hand_back)
                break
        if queue:
            self._waiting.move_to_end(user)  # the next turn is somebody else's
        else:
            del self._waiting[user]

    def _hand_back(self, loop: asyncio.AbstractEventLoop, user: str, outcome: asyncio.Future[Any], done: Any) -> None:
        """In the thread: give the result to the loop."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finished, loop, user, outcome, done)

    def _finished(self, loop: asyncio.AbstractEventLoop, user: str, outcome: asyncio.Future[Any], done: Any) -> None:
        self._busy[user] -= 1
        if not self._busy[user]:
            del self._busy[user]
        if not outcome.done():
            error = done.exception()
            if error is None:
                outcome.set_result(done.result())
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                outcome.set_exception(error)
            else:  # a future takes no StopIteration; SystemExit would end the server, CancelledError leave no answer
                wrapped = RuntimeError(f"the callback raised {type(error).__name__}")
                wrapped.__cause__ = error
                outcome.set_exception(wrapped)
        self._start_what_fits(loop)
