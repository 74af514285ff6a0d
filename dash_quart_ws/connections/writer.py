"""One connection's outbound queue: bounded, in order, and without a timer.

The first message goes out at once, by the caller's own hand: no task is made for it. What arrives before the event loop
has had its next turn, or while the server makes us wait, goes out together in the next frame. An idle connection has no
task here and wakes for nothing.

A reader is slow when more waits for it than one frame takes. Then updates that later ones have overtaken are left out
(`codec.conflate` has the rule), so that it skips to what is new, and holds little of the server's memory. Looked for is
not at each message: the first time at `FRAME_BYTES`, then each time when what remained has doubled, and at last when the
bound is reached. So each message pays for a few looks at others, however many wait.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections import deque
from typing import TYPE_CHECKING, Any

from ..wire.codec import conflate, join, take
from .asgi import Disconnected, NotTaken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from ..wire.codec import Queued

FRAME_BYTES = 256 * 1024
"""Messages go together up to this size: enough to save frames, small enough for a client's own limit (1 MiB is usual)."""

WORTHWHILE = 16
"""At the bound, conflation has to free one part of so many, in messages or in bytes: else each message would start it."""


NOTHING: deque[Queued] = deque()
"""What all idle writers have for a queue; never appended to. An empty deque of one's own takes 0.75 kB."""


class Writer:
    """Sends messages in the order of `put`; belongs to the event loop.

    Args:
        send: hands one frame over.
        max_bytes: bound on the memory of what waits.
        max_messages: bound on their number.
        keeps_order: whether the client keeps the order within an array.
        on_overflow: called when a bound is exceeded.
        on_not_taken: called when a frame was not taken, and the reader will not hear of it.
        by_hand: whether the first step of `send` may be taken in whatever task there is, or in none.
    """

    def __init__(
        self,
        send: Callable[[str], Coroutine[Any, Any, None]],
        *,
        max_bytes: int,
        max_messages: int,
        keeps_order: bool,
        on_overflow: Callable[[], None],
        on_not_taken: Callable[[], None],
        by_hand: bool = True,
    ) -> None:
        self._send = send
        self._by_hand = by_hand
        self._loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._keeps_order = keeps_order
        self._on_overflow = on_overflow
        self._on_not_taken = on_not_taken
        self._queue = NOTHING
        self._bytes = 0
        self._enough_bytes = min(FRAME_BYTES, max_bytes)
        """Beyond this, or beyond the bound on messages, updates are conflated."""
        self.busy = False
        """Whether a frame is on its way, or has gone in this turn of the event loop: what is put now waits."""
        self._sending: asyncio.Task[None] | None = None
        """Waits for a server that does not take a frame at once."""
        self._stopped = False

    @property
    def waiting_bytes(self) -> int:
        """Memory that waiting messages hold."""
        return self._bytes

    def put(self, message: Queued) -> None:
        """Send this after all that was put before. Beyond the bounds, `on_overflow` is called and nothing more is taken.

        One message may be larger than the whole bound, if nothing else waits: a figure is as large as it is.
        """
        if self._stopped:
            return
        if not self.busy:
            self._hand_over(message.text)
            return
        if self._queue is NOTHING:
            self._queue = deque()
        self._queue.append(message)
        self._bytes += message.text.__sizeof__()
        if (self._bytes > self._enough_bytes or len(self._queue) > self._max_messages) and not self._make_room():
            self.stop()
            self._on_overflow()

    def _hand_over(self, frame: str) -> None:
        """Give the server a frame. Usually it takes it in the first step of its coroutine; else a task sees to the rest."""
        self.busy = True
        if not self._by_hand:
            self._sending = self._loop.create_task(self._wait(functools.partial(self._send, frame)), name="writer")
            return
        sending = self._send(frame)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            self._loop.call_soon(self._go_on)
        except Disconnected as error:
            self._lost(error)
        else:
            self._sending = self._loop.create_task(
                self._wait(functools.partial(_rest_of, sending, waits_for)), name="writer"
            )

    async def _wait(self, send: Callable[[], Awaitable[None]]) -> None:
        try:
            await send()
        except Disconnected as error:
            self._lost(error)
        finally:
            self._sending = None
        self._go_on()

    def _lost(self, error: Disconnected) -> None:
        self.stop()  # mostly the reader hears of it too, and ends the connection
        if isinstance(error, NotTaken):
            self._on_not_taken()

    def _go_on(self) -> None:
        """The server has taken a frame: send together what has come meanwhile."""
        if self._queue:
            taken = take(self._queue, frame_bytes=FRAME_BYTES, keeps_order=self._keeps_order)
            self._bytes -= sum(one.text.__sizeof__() for one in taken)
            self._hand_over(join(taken))
        else:
            self._queue = NOTHING
            self._enough_bytes = min(FRAME_BYTES, self._max_bytes)
            self.busy = False

    def _make_room(self) -> bool:
        """Leave out what is overtaken. Whether what remains is within the bounds, and leaves room for more."""
        waiting, held = len(self._queue), self._bytes
        is_full = held > self._max_bytes or waiting > self._max_messages
        self._queue = conflate(self._queue)
        self._bytes = sum(one.text.__sizeof__() for one in self._queue)
        self._enough_bytes = min(self._max_bytes, max(FRAME_BYTES, 2 * self._bytes))
        if not is_full or len(self._queue) == 1:
            return True
        dropped, freed = waiting - len(self._queue), held - self._bytes
        return (
            self._bytes <= self._max_bytes
            and len(self._queue) <= self._max_messages
            and (dropped * WORTHWHILE >= waiting or freed * WORTHWHILE >= held)
        )

    def stop(self) -> None:
        """Send nothing more, not even what waits. A frame that the server is about to take is beyond us."""
        self._stopped = True
        self._queue = NOTHING
        self._bytes = 0
        self.busy = False
        if self._sending is None or self._sending is asyncio.current_task():
            return
        if self._by_hand:
            # After the task's first step: cancelled before that it would never run the rest of the frame's coroutine, which
            # would keep the server's lock from the close frame.
            self._loop.call_soon(self._sending.cancel)
        else:
            self._sending.cancel()  # before its first step, in which the frame would be handed over

    async def stopped(self) -> None:
        """Wait until the task that sends, if there is one, has ended."""
        if self._sending is not None:
            await asyncio.wait({self._sending})


@types.coroutine
def _rest_of(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Await a coroutine whose first step was taken by hand, and which waits for this future since."""
    while True:
        try:
            result = yield waits_for
        except BaseException as error:  # noqa: BLE001 - a cancellation, as a rule: it is the coroutine's
            step = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, result)
        try:
            waits_for = step()
        except StopIteration:
            return
