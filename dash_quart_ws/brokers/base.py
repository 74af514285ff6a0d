"""What every broker guarantees, and the one thing that it carries.

The guarantees, which one test suite holds every broker to:

- What `append` has confirmed is in what `load` returns, also after a restart of the process, until it has expired.
- Positions grow. No two calls of `next_position` return the same number, and none returns less than an earlier one did,
  also after a restart and after the store was lost.
- `append` never raises and never waits: a failure is in the future that it returns, and in the log.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future


class Scope(enum.StrEnum):
    """What a revocation ends."""

    SESSION = "session"
    USER = "user"
    ALL = "all"


class Ending(enum.StrEnum):
    """Why a session is over."""

    LOGGED_OUT = "logged out"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SWITCHED = "switched"
    """Another login took its place in the same browser."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Sessions that are no longer valid, though their cookies' signatures are.

    `subject` is a session's public id, a user's id, or empty; never a sid. A revocation of a user or of all ends the
    sessions whose tokens had seen fewer revocations than `position`, but for those in `keep`: clocks play no part.
    """

    scope: Scope
    subject: str
    position: int
    expires: float
    """Unix time after which no token can be valid that this revocation ends."""
    ending: Ending = Ending.REVOKED
    keep: tuple[str, ...] = ()
    user: str | None = None
    """For a session: whose it was, where that is known."""


class Broker(ABC):
    """Carries revocations. See the module's docstring for what an implementation guarantees."""

    @abstractmethod
    def load(self) -> list[Revocation]:
        """Every revocation that has not expired. Called once, before anything else; may block."""

    @abstractmethod
    def next_position(self) -> int:
        """The position for a new revocation."""

    @property
    @abstractmethod
    def last_position(self) -> int:
        """The position of the last revocation that is known here."""

    @abstractmethod
    async def position(self) -> int:
        """The position of the last revocation that anybody has made: what a new login has seen."""

    @abstractmethod
    def observe(self, position: int) -> None:
        """Somebody has proof (a signed token) that positions have come this far: never fall behind it."""

    @abstractmethod
    def append(self, revocation: Revocation) -> Future[None]:
        """Store a revocation, and tell whoever has to know. The future fails with `BrokerError`."""

    @abstractmethod
    def close(self) -> None:
        """Store what is on its way, then let go of files and connections. A closed broker can be loaded again."""
