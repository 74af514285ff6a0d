"""What a revocation, a close or a push did. Acting and learning about it are two things: the act needs no `await`."""

from __future__ import annotations

import asyncio
import concurrent.futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What `revoke` or `close` did, and where.

    `closed` connections were ended; the close frame was handed over, or the transport reset, within `slowest_ms`
    milliseconds for each. `confirmed` worker processes hold the revocation, this one included once it is stored;
    `missing` names those that have not confirmed: there it may not hold yet.
    """

    closed: int
    confirmed: int
    missing: tuple[str, ...]
    slowest_ms: float


class Pending(Generic[T]):
    """The outcome of something that has already been done: await it, on any event loop, or ask for it in a thread."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._on_delivered: list[Callable[[], object]] = []

    def __await__(self) -> Generator[object, None, T]:
        # Shielded: who stops waiting must not cancel the outcome for everybody else.
        value = yield from asyncio.shield(asyncio.wrap_future(self._future)).__await__()
        self.delivered()
        return value

    def result(self, timeout: float | None = None) -> T:
        """The outcome, for code that runs in a thread. Never call it on the event loop: it blocks.

        Raises:
            TimeoutError: it is not known after `timeout` seconds.
            Exception: what kept it from being done, as `await` raises it.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._future.done()

    def add_done_callback(self, callback: Callable[[concurrent.futures.Future[T]], None]) -> None:
        """Call this with the underlying future when the outcome is known, in the thread that knows it."""
        self._future.add_done_callback(callback)

    def when_delivered(self, callback: Callable[[], object]) -> None:
        """Call this when somebody who awaited the outcome has been given it."""
        self._on_delivered.append(callback)

    def delivered(self) -> None:
        """Somebody who awaited the outcome is about to get it."""
        for callback in self._on_delivered:
            callback()

    def resolve(self, value: T) -> None:
        """The outcome is known."""
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """It could not be done: whoever asks is told."""
        if not self._future.done():
            self._future.set_exception(error)


class PendingReceipt(Pending[Receipt]):
    """The receipt of a revocation or a close; `stored` is the broker's part of it, which no client can hold up."""

    def __init__(self, stored: concurrent.futures.Future[Any]) -> None:
        super().__init__()
        self.stored = stored
