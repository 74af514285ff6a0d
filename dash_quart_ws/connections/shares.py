"""How much may be in flight at a time: in this process, and of that for each user.

A callback is in flight from its request to its last step, also of cleaning up after it was cancelled: who asks, goes and
comes back does not begin again at nothing.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

USER_SHARES = 4
"""One user, or for nobody one address, has a quarter: to use up everything takes four of them."""

NOBODY_SHARES = 2
"""Whoever is not signed in has half, together with all others: addresses are easier to come by than accounts."""


def is_nobody(payer: str) -> bool:
    """Whether work counts against an address, because nobody is signed in, and not against a user."""
    return payer.startswith("address ")


class Level:
    """How much there is, and how much there may be, at one of the places where it is counted."""

    __slots__ = ("bytes", "count", "most", "most_bytes")

    def __init__(self, most: int, most_bytes: int, *, shares: int = 1) -> None:
        self.most, self.most_bytes = -(-most // shares), -(-most_bytes // shares)
        self.count = 0
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no place for anything more."""
        return self.count >= self.most or self.bytes >= self.most_bytes

    def add(self, count: int, size: int) -> None:
        self.count += count
        self.bytes += size


class Shares:
    """What all callbacks together hold. Belongs to the event loop."""

    def __init__(self, *, callbacks: int, callback_bytes: int) -> None:
        self._limits = callbacks, callback_bytes
        self.everybody = Level(*self._limits)
        self._nobody = Level(*self._limits, shares=NOBODY_SHARES)
        self._by_payer: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def of(self, payer: str) -> Share:
        """One user's share, or one address's. It is the same one for as long as somebody holds on to it."""
        share = self._by_payer.get(payer)
        if share is None:
            nobody = self._nobody if is_nobody(payer) else None
            share = self._by_payer[payer] = Share(*self._limits, self.everybody, nobody)
        return share


class Share(Level):
    """What the callbacks of one user hold."""

    __slots__ = ("__weakref__", "_everybody", "_nobody")

    def __init__(self, most: int, most_bytes: int, everybody: Level, nobody: Level | None) -> None:
        super().__init__(most, most_bytes, shares=USER_SHARES)
        self._everybody = everybody
        self._nobody = nobody

    def take(self, size: int = 0) -> bool:
        """Take a place for one callback that came in so many bytes; False, and nothing is taken, when there is none.

        Bytes are compared before they are added: what comes first may be as large as it is.
        """
        everybody = self._everybody
        if (  # `is_full` of both, without a call: this is on the way of each callback
            self.count >= self.most
            or self.bytes >= self.most_bytes
            or everybody.count >= everybody.most
            or everybody.bytes >= everybody.most_bytes
            or (self._nobody is not None and self._nobody.is_full)
        ):
            return False
        self.count += 1
        self.bytes += size
        everybody.count += 1
        everybody.bytes += size
        if self._nobody is not None:
            self._nobody.add(1, size)
        return True

    def grow(self, size: int) -> None:
        """A callback in flight has turned out to be so much larger."""
        self._change(0, size)

    def give_back(self, size: int = 0) -> None:
        """The last step of a callback of so many bytes is done."""
        self._change(-1, -size)

    def _change(self, count: int, size: int) -> None:
        self.count += count
        self.bytes += size
        self._everybody.count += count
        self._everybody.bytes += size
        if self._nobody is not None:
            self._nobody.add(count, size)
