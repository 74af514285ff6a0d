"""How fast one client may send: a token bucket without a timer."""

from __future__ import annotations

import math


class TokenBucket:
    """So many per second, in the long run, and `burst` at once after a while of less. Arithmetic on the caller's clock.

    Time that the process has slept, or was busy, fills the bucket as all time does: what has gathered meanwhile in the
    server's buffers was not sent any faster for it.
    """

    __slots__ = ("_depth", "_each", "_spent_until")

    def __init__(self, *, per_second: int, burst: int) -> None:
        self._each = 1 / per_second
        self._depth = burst / per_second
        self._spent_until = -math.inf
        """The clock's time at which all that was taken will have been earned."""

    def take(self, tokens: int, now: float) -> float:
        """Take tokens, whether they are there or not; the seconds until nothing is owed any more. Not above 0: nothing is."""
        spent_until = self._spent_until
        full_since = now - self._depth
        if spent_until < full_since:
            spent_until = full_since
        self._spent_until = spent_until = spent_until + tokens * self._each
        return spent_until - now
