"""Threads for synchronous callbacks, shared fairly.

A thread that is busy cannot be taken back: a user whose callbacks block must not be able to hold all of them. So each
user has a share of the threads, and when threads are scarce users take turns, not callbacks. A thread counts against
its user until the function in it returns, whatever became of the connection or the session that asked for it.

Starting a thread's work, and waking the event loop for its result, costs more than a small function. So a thread that has
finished takes the next function itself, and the event loop is woken once for all results that are there.

How many may wait is bounded, for each user and for all together.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from ..connections.handover import Handover
from ..connections.shares import NOBODY_SHARES, is_nobody
from ..exceptions import TooManyCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

logger = logging.getLogger("dash_quart_ws.pool")

T = TypeVar("T")

FULL_WARNING_EVERY = 60.0
"""Seconds between two log lines about a pool that is full."""


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """A function that waits for a thread, runs in one, or has run."""

    user: str
    function: Callable[[], Any]
    context: contextvars.Context
    outcome: asyncio.Future[Any]
    done: Handover[Job]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        """In the thread."""
        try:
            self.result = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited
            self.error = error

    def settle(self) -> None:
        """On the event loop: tell who waits."""
        if self.outcome.done():
            return
        error = self.error
        if error is None:
            self.outcome.set_result(self.result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            self.outcome.set_exception(error)
        else:  # a future takes no StopIteration; SystemExit would end the server, CancelledError leave no answer
            wrapped = RuntimeError(f"the callback raised {type(error).__name__}")
            wrapped.__cause__ = error
            self.outcome.set_exception(wrapped)


class Pool:
    """Runs functions in at most `threads` threads, at most `share` of them for one user.

    At most `most_queued` wait for one: `share_queued` of them one user's, and half of them those of all who are nobody.
    """

    def __init__(
        self, executor: Executor, *, threads: int, share: int | None, most_queued: int, share_queued: int
    ) -> None:
        self.threads = threads
        self.share = min(threads, share or -(-threads // 2))
        self._executor = executor
        self._most_queued = most_queued
        self._share_queued = share_queued
        self._lock = threading.Lock()
        """Guards what follows, which the event loop and the threads share."""
        self._active = 0
        """Threads that run a function, or are about to take one."""
        self._busy: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[Job, None]] = OrderedDict()
        self._queued = 0
        self._queued_nobodys = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warned_at = float("-inf")

    @property
    def busy(self) -> int:
        """Threads that run a function."""
        with self._lock:
            return self._busy.total()

    @property
    def queued(self) -> int:
        """Functions that wait for a thread."""
        return self._queued

    async def run(self, user: str, function: Callable[[], T]) -> T:
        """The function's result, from a thread that sees the caller's context variables.

        Cancelling takes a function that still waits out of the queue; one that runs goes on, and its result is dropped.

        Raises:
            RuntimeError: the threads have been let go, or none can be started.
            TooManyCallbacks: too many wait already, of this user or of all.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._done = loop, Handover(loop, Job.settle, look_every=None)
        outcome: asyncio.Future[T] = loop.create_future()
        job = Job(user, function, contextvars.copy_context(), outcome, self._done)
        with self._lock:
            if self._is_full(user):
                raise TooManyCallbacks
            self._waiting.setdefault(user, OrderedDict())[job] = None
            self._count(user, 1)
            one_more = self._active < self.threads and self._busy[user] < self.share
            self._active += one_more
        if one_more:
            self._begin(job)
        elif loop.time() > self._warned_at + FULL_WARNING_EVERY:
            self._warned_at = loop.time()
            logger.warning(
                "synchronous callbacks wait for a thread: %d of %d busy, %d queued. Write slow callbacks with async def, "
                "or raise callback_threads",
                self.busy, self.threads, self.queued,
            )  # fmt: skip
        try:
            return await outcome
        except asyncio.CancelledError:
            with self._lock:
                self._take_out(job)
            raise

    def _begin(self, job: Job) -> None:
        """Have one more thread take what waits."""
        try:
            self._executor.submit(self._work)
        except RuntimeError:  # they have been let go, or the system gives the process no more of them at the moment
            with self._lock:
                self._active -= 1
                self._take_out(job)
            raise

    def _is_full(self, user: str) -> bool:
        return (
            self._queued >= self._most_queued
            or len(self._waiting.get(user, ())) >= self._share_queued
            or (is_nobody(user) and self._queued_nobodys >= -(-self._most_queued // NOBODY_SHARES))
        )

    def _count(self, user: str, change: int) -> None:
        self._queued += change
        if is_nobody(user):
            self._queued_nobodys += change

    def _take_out(self, job: Job) -> None:
        """Nobody waits for this function any more: if it has not begun it never will."""
        jobs = self._waiting.get(job.user)
        if jobs is not None and job in jobs:
            del jobs[job]
            self._count(job.user, -1)
            if not jobs:
                del self._waiting[job.user]

    def _work(self) -> None:
        """In a thread: run what waits, until there is nothing that may be started."""
        job = self._next(None)
        while job is not None:
            job.run()
            following = self._next(job.user)
            job.done.put(job)
            job = following

    def _next(self, finished: str | None) -> Job | None:
        """The next function for a thread, in the users' turn; None sends the thread home.

        `finished`: the user whose function this thread has just run.
        """
        with self._lock:
            if finished is not None:
                self._busy[finished] -= 1
                if not self._busy[finished]:
                    del self._busy[finished]
            job, nothing_left = None, []
            for user, jobs in self._waiting.items():
                if self._busy[user] < self.share:
                    job = self._first_wanted(jobs)
                    if not jobs:
                        nothing_left.append(user)
                    if job is not None:
                        break
            for user in nothing_left:
                del self._waiting[user]
            if job is None:
                self._active -= 1
                return None
            self._busy[job.user] += 1
            if job.user in self._waiting:
                self._waiting.move_to_end(job.user)  # the next turn is somebody else's
            return job

    def _first_wanted(self, jobs: OrderedDict[Job, None]) -> Job | None:
        """Take the first function off whose caller was not cancelled while it waited."""
        while jobs:
            job, _ = jobs.popitem(last=False)
            self._count(job.user, -1)
            if not job.outcome.done():
                return job
        return None
