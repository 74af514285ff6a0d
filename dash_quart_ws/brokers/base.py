"""What every broker guarantees, and what it carries: revocations, records of known sessions, pushes, who is here, and
what is kept for a moment.

The guarantees, which one test suite holds every broker to:

Revocations
- What `append` has stored is in what `load` returns, also after a restart of the process, until it has expired.
- The position of what is stored is later than every position that any login had seen before, in whichever worker, and no
  login that asks for `position` afterwards, in whichever worker, gets an earlier one. Clocks play no part. It may be later
  than the position that was given to `append`: the stored one is the true one.
- Positions grow. No two calls of `next_position` in one process return the same number, and none returns less than an
  earlier one did, also after a restart and after the store was lost.
- `append` never raises and never waits: a failure is in the future that it returns, and in the log. What could not be
  stored for the moment is tried again until it is, or the broker is closed: the failure says that it is not so *yet*.
- Every other worker's listener gets what was stored, in the order of positions, however long that worker was cut off, and
  also when the store was lost meanwhile, as long as any worker knows of it. It may get the same one twice.

The lease
- `lease_until` is a moment, by `clock()`, up to which this worker knows every revocation that anybody has stored: it counts
  from when the question was sent whose answer proves it, and moves only after the listener has been given what came before.
  Whoever compares it needs no timer, and may have been suspended.

Pushes
- At most once. What one worker publishes arrives at another in the order in which it was published, whatever the targets.
- A worker gets what is published to the targets that it has subscribed to, but for what it has published itself. When a
  subscription's future is done, nothing that is published later is missed, while the connection to the store lasts.
- Messages are JSON text; never anything that can name code. With a key, what was not signed with it is dropped.

Workers
- `connections` lists what each living worker has entered. When a worker has died, exactly one of the others, or the next
  one that starts, is given what it had entered. A worker that was declared dead, and is not, is told so.
- A request reaches all living workers. Its answers are known within a bounded time; who has not answered is named.
- Of all that ever `claim` a name, one is told that it is theirs, as long as the store lasts and for a day.

Sessions
- Of the records of one session the last that was given to `record` stands. What `record` has confirmed is in what
  `records` returns, also after a restart, until it expires or another takes its place; a record that has expired takes
  the session's place away. Other workers' listeners get a record soon, most of the time.
- `record` and `records` never raise, and many records do not hold up a revocation. Records are for people to look at, and
  to keep what a worker knows of a session's last activity fresh: they may be lost with the store.

Kept for a moment
- What `keep` has confirmed `take` gives away once, to one caller, in whichever worker, within the seconds that were named;
  after that, and when the store was lost, to nobody. It was kept under exactly that name, by one who may sign. Both fail
  when they cannot be done at once: nothing of either is tried again later.

Threads
- Every plain method may be called from any thread and returns at once, but for `load`, `records` and `close`, which may
  block. The futures are resolved in a thread of the broker's, or at once.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future

Json: TypeAlias = Any
"""What `json.dumps` takes."""


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
    reason: str = ""
    """In words, for the clients of other workers."""


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
    active: float = 0.0
    """When its user last did something, as `idle_timeout` counts it; 0 if that is not known."""

    @classmethod
    def over(cls, id: str) -> SessionRecord:
        """The record of a session that has ended: it takes the place of what was stored, and has expired itself."""
        return cls(id, None, 0.0, 0.0, 0.0, None, "")

    def text(self) -> str:
        """As JSON, which is ASCII here: a user's id need not be Unicode."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_text(cls, text: str | bytes) -> SessionRecord:
        """What `text` wrote.

        Raises:
            ValueError, TypeError, KeyError: another version did, or somebody else.
        """
        fields: dict[str, Any] = json.loads(text)
        user, remote = (None if fields[name] is None else str(fields[name]) for name in ("user", "remote"))
        since, expires, last_seen = (float(fields[name]) for name in ("since", "expires", "last_seen"))
        users = tuple(str(name) for name in fields["users"])
        id, user_agent, seen = str(fields["id"]), str(fields["user_agent"]), int(fields["seen"])
        active = float(fields.get("active", 0.0))  # an earlier version has not said it
        return cls(id, user, since, expires, last_seen, remote, user_agent, users, seen, active)


class TargetKind(enum.StrEnum):
    """Whom a push is for."""

    USER = "user"
    SESSION = "session"
    CONNECTION = "connection"
    TOPIC = "topic"
    ALL = "all"


class Target(NamedTuple):
    """Whom a push is for: a user's id, a session's or connection's public id, a topic; or everybody."""

    kind: TargetKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Worker:
    """One life of one worker process: a process that was declared dead, and is not, begins another."""

    id: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A connection somewhere in the cluster: its public id, the worker that holds it, and what that said of it."""

    connection: str
    worker: Worker
    facts: Json


@dataclass(frozen=True, slots=True)
class Answers:
    """What the other workers have answered, by worker id, and the ids of those that have not in time."""

    given: Mapping[str, Json]
    missing: tuple[str, ...] = ()


class Appended(NamedTuple):
    """What becomes of a revocation."""

    stored: Future[Revocation]
    """The revocation as it is stored, with its true position. Fails with `BrokerError` when it is not stored in time; it is
    then tried again, and the listener learns of it."""
    answers: Future[Answers]
    """What the other workers' listeners have answered to it. Never fails: while nothing is stored, all are missing."""


class Listener:
    """What a worker is told by its broker. Inherit it, and override what concerns you.

    Everything is called on the event loop that was given to `listen`, in the order in which it happened; nothing may block.
    An answer is JSON, or a future of it.
    """

    def revoked(self, revocation: Revocation, *, own: bool) -> Future[Json] | Json:
        """A revocation is stored: another worker's, or, with its true position, one of this worker's own.

        It may be known already. The answer, of another worker's, is for the receipt.
        """

    def known(self) -> Iterable[Revocation]:
        """Every revocation that this worker knows of: the store has lost some, and gets back what it lacks."""
        return ()

    def pushed(self, target: Target, message: str) -> None:
        """Another worker has published something to a target that this one has subscribed to."""

    def requested(self, question: Json) -> Future[Json] | Json:
        """Another worker asks all of them."""

    def recorded(self, records: list[SessionRecord]) -> None:
        """Sessions as another worker has seen them; those that have expired are over."""

    def worker_died(self, worker: Worker, connections: list[Presence]) -> None:
        """A worker is dead, and nobody else is told: these connections went with it."""

    def declared_dead(self) -> None:
        """The others have taken this worker for dead, and its connections for gone; it is about to begin anew.

        Told between `lost` and `regained`.
        """

    def lost(self) -> None:
        """The lease has passed: what others revoke is not known here."""

    def regained(self) -> None:
        """The lease is valid again, and all that was missed has been told."""


class Broker(ABC):
    """Carries what the module's docstring says, which also says what an implementation guarantees."""

    is_shared: ClassVar[bool]
    """Whether there may be other workers, and so a listener that is told anything."""

    @abstractmethod
    def load(self) -> list[Revocation]:
        """Every revocation that has not expired. Called once, before anything else; may block.

        Raises:
            BrokerError: what is stored cannot be read: nobody may be served without it.
            ConfigurationError: the store belongs to another app, or does not let this one in.
        """

    @abstractmethod
    def listen(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        """Tell `listener` what happens from `load` on, on `loop`. A later call takes the place of the one before."""

    @abstractmethod
    def next_position(self) -> int:
        """A position for a new revocation, later than any that is known here."""

    @property
    @abstractmethod
    def last_position(self) -> int:
        """The position of the last stored revocation that is known here: what may be signed into a token."""

    @abstractmethod
    async def position(self) -> int:
        """The position of the last revocation that anybody has stored: what a new login has seen.

        It comes after all that this worker has appended before, and the listener has been given every revocation up to there:
        one that was stored while the login was on its way is known. Ask on the event loop that `listen` was given.

        Raises:
            BrokerError: the store does not answer, or this worker does not hear in time what is in it.
        """

    @abstractmethod
    def observe(self, position: int) -> None:
        """Somebody has proof (a signed token) that positions have come this far: never fall behind it."""

    @abstractmethod
    def append(self, revocation: Revocation) -> Appended:
        """Store a revocation, and tell whoever has to know."""

    @abstractmethod
    def record(self, record: SessionRecord) -> Future[None]:
        """Remember a session as it is now, or forget it when the record has expired. The future fails with `BrokerError`."""

    @abstractmethod
    def records(self) -> list[SessionRecord]:
        """The last record of every session, but for those that have expired. Called after `load`; may block."""

    @property
    @abstractmethod
    def worker(self) -> Worker:
        """Who this process is among the workers."""

    @abstractmethod
    def clock(self) -> float:
        """Seconds, by the clock of `lease_until`. It goes on while the process, or the host, is suspended."""

    @property
    @abstractmethod
    def lease_until(self) -> float:
        """Up to when what is known here is all that anybody has revoked; infinite where there is nobody else."""

    @abstractmethod
    def publish(self, target: Target, message: str) -> Future[None]:
        """Push JSON text to the other workers' connections. Fails with `BrokerError` when it was not handed over."""

    @abstractmethod
    def subscribe(self, target: Target) -> Future[None]:
        """Hear what is published to a target. Each call counts: the last `unsubscribe` of as many ends it.

        Fails with `BrokerError` when there is no connection to the store: it is made up for when there is one.
        """

    @abstractmethod
    def unsubscribe(self, target: Target) -> None:
        """Take back one `subscribe`."""

    @abstractmethod
    def enter(self, connection: str, facts: Json) -> None:
        """A connection is here, or what is said of it has changed."""

    @abstractmethod
    def leave(self, connection: str) -> None:
        """A connection has gone."""

    @abstractmethod
    async def connections(self) -> list[Presence]:
        """Every connection of every living worker.

        Raises:
            BrokerError: the store does not answer.
        """

    @abstractmethod
    def request(self, question: Json) -> Future[Answers]:
        """Ask every other worker. Never fails: who cannot be reached is missing."""

    @abstractmethod
    def claim(self, name: str) -> Future[bool]:
        """Whether this worker is the first that asks. Fails with `BrokerError` when the store does not answer: ask again."""

    @abstractmethod
    def keep(self, name: str, text: str, seconds: float) -> Future[None]:
        """Keep a text for one who knows its name, for so long. Fails with `BrokerError` when it is not kept."""

    @abstractmethod
    async def take(self, name: str) -> str | None:
        """The text that is kept under a name, which it is no more from here on; None where there is none.

        Raises:
            BrokerError: the store does not answer, or somebody else has written there.
        """

    @abstractmethod
    def close(self) -> None:
        """Store what is on its way, then let go of files and connections. A closed broker can be loaded again."""
