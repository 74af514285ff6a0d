"""What every broker guarantees, and the two things that it carries: revocations, and records of known sessions.

The guarantees, which one test suite holds every broker to:

- What `append` has confirmed is in what `load` returns, also after a restart of the process, until it has expired.
- Positions grow. No two calls of `next_position` return the same number, and none returns less than an earlier one did,
  also after a restart and after the store was lost.
- `append` never raises and never waits: a failure is in the future that it returns, and in the log.
- Of the records of one session the last that was given to `record` stands. What `record` has confirmed is in what
  `records` returns, also after a restart, until it expires or another takes its place; a record that has expired takes
  the session's place away.
- `record` and `records` never raise, and many records do not hold up a revocation. Records are for people to look at:
  nothing that may or may not be done depends on them, so they may be lost with the store.
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


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it was last seen. Times are Unix times.

    It is written when a session is new, and then at most once a minute: when the process dies, at most what came in the
    minute before the session was last seen is lost. A server that is stopped loses nothing.
    """

    id: str
    """The session's public id, never a sid."""
    user: str | None
    since: float
    expires: float
    last_seen: float
    remote: str | None
    user_agent: str
    users: tuple[str, ...] = ()
    seen: int = 0
    """With `users`, what a revocation of a user or of all is compared with: it may be the later one of the two."""

    @classmethod
    def over(cls, id: str) -> SessionRecord:
        """The record of a session that has ended: it takes the place of what was stored, and has expired itself."""
        return cls(id, None, 0.0, 0.0, 0.0, None, "")


class Broker(ABC):
    """Carries revocations, and remembers sessions. The module's docstring says what an implementation guarantees."""

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
    def record(self, record: SessionRecord) -> Future[None]:
        """Remember a session as it is now, or forget it when the record has expired. The future fails with `BrokerError`."""

    @abstractmethod
    def records(self) -> list[SessionRecord]:
        """The last record of every session, but for those that have expired. Called after `load`; may block."""

    @abstractmethod
    def close(self) -> None:
        """Store what is on its way, then let go of files and connections. A closed broker can be loaded again."""
