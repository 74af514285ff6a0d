"""The default broker: a SQLite file for one worker process. It remembers; it is not a bus."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import logging
import math
import os
import platform
import sqlite3
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..exceptions import BrokerError
from .base import Answers, Appended, Broker, Ending, Presence, Revocation, Scope, SessionRecord, Worker
from .lock import ProcessLock

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .base import Json, Listener, Target

logger = logging.getLogger("dash_quart_ws.broker")

T = TypeVar("T")

BUSY_TIMEOUT = 5.0
"""Seconds that a write waits for another process's lock on the file."""

PAGE = 1000
"""Records of sessions that are written in one transaction; a revocation waits for two at most."""

REMEMBER_CLAIM = 24 * 3600
"""Seconds for which it is known who was the first to claim something."""

KEPT, KEPT_CHARACTERS = 10_000, 32 * 1024 * 1024
"""Texts that are kept for a moment, and characters of all of them together; what comes on top is refused."""

SHARED = (
    "process %s works with %s as well: a logout or a ban in one process does not reach the sockets of the other. Give all of "
    "them QuartBackend(broker='redis://host:6379/0'), or the environment variable DASH_QUART_WS_BROKER; or, where that is "
    "another app, each a file of its own: broker='sqlite:///absolute/path'"
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS revocation (
    id INTEGER PRIMARY KEY, scope TEXT NOT NULL, subject TEXT NOT NULL, position INTEGER NOT NULL,
    expires REAL NOT NULL, ending TEXT NOT NULL, keep TEXT NOT NULL, user TEXT
);
CREATE INDEX IF NOT EXISTS revocation_expires ON revocation (expires);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, expires REAL NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS session_expires ON session (expires);
"""


@dataclasses.dataclass(slots=True)
class _Page:
    """Records that are written together, the last one of each session."""

    records: dict[str, SessionRecord] = dataclasses.field(default_factory=dict)
    written: concurrent.futures.Future[None] = dataclasses.field(default_factory=concurrent.futures.Future)

    def __post_init__(self) -> None:
        self.written.set_running_or_notify_cancel()  # it is several callers': none of them may cancel it


class EmbeddedBroker(Broker):
    """Revocations and known sessions in a SQLite file (write-ahead log, fsync on each write), or in memory only.

    Writes happen on one thread of its own, in order, so that a slow disk never holds up the event loop. Where the file
    cannot be opened the broker says so once, and goes on in memory: revocations then last as long as the process. Where
    another process works with the file for more than a moment, an error in the log says so.
    """

    is_shared = False

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        # An empty store begins at the clock's milliseconds, so that positions do not go back when a store was lost.
        self._position = int(time.time() * 1000)
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None
        self._let_go: Callable[[], object] = lambda: None
        """Gives back the lock that tells whether another process has the file."""
        self._pages: deque[_Page] = deque()
        self._says_failures = True
        self._here: dict[str, Json] = {}
        self._claimed: dict[str, float] = {}
        self._kept: dict[str, tuple[float, str]] = {}
        """Name -> until when, by `time.monotonic`, and the text: in memory only, so that a restart leaves none."""
        self._kept_characters = 0

    @classmethod
    def from_url(cls, url: str | None, folder: Path) -> EmbeddedBroker:
        """A broker for the `broker` option; without one, a file in `folder`."""
        if url is None:
            return cls(folder / "dash-quart-ws.sqlite3")
        return cls(None) if url.startswith("memory:") else cls(Path("/" + url.removeprefix("sqlite:///").lstrip("/")))

    def load(self) -> list[Revocation]:
        if self._path is not None and self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="dash-quart-ws-broker")
            try:
                return self._thread.submit(self._open, self._path).result()
            except (OSError, sqlite3.Error) as error:
                logger.warning(
                    "cannot keep revocations in %s (%s): they last only as long as this process. Make the folder "
                    "writable, or give broker='sqlite:///absolute/path'",
                    self._path, error,
                )  # fmt: skip
                self._thread.shutdown()
                self._thread, self._path = None, None
            except BaseException:  # what is in the store cannot be read: nobody may be served without it
                self._thread.shutdown()
                self._thread = None
                raise
        return []

    def _open(self, path: Path) -> list[Revocation]:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        # Used on this thread only, but for the end: a broker that nobody closes is let go of wherever it is collected.
        database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        weakref.finalize(self, database.close)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.executescript(SCHEMA)
            with database:
                database.execute("DELETE FROM revocation WHERE expires < ?", (time.time(),))
                database.execute("DELETE FROM session WHERE expires < ?", (time.time(),))
            rows = database.execute(
                "SELECT scope, subject, position, expires, ending, keep, user FROM revocation ORDER BY id"
            ).fetchall()
            stored = database.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()
        except BaseException:
            database.close()
            raise
        self._database = database
        self._lock_file(path)
        if stored is not None:
            self.observe(stored[0])
        return [
            Revocation(Scope(scope), subject, position, expires, Ending(ending), tuple(json.loads(keep)), user)
            for scope, subject, position, expires, ending, keep, user in rows
        ]

    def _lock_file(self, path: Path) -> None:
        def complain(process: str) -> None:
            logger.error(SHARED, process, path)

        try:
            lock = ProcessLock(path.with_name(f"{path.name}.lock"), complain)
        except OSError as error:
            logger.debug("whether another process works with %s as well is not known: %s", path, error)
        else:
            self._let_go = weakref.finalize(self, lock.close)

    def next_position(self) -> int:
        with self._lock:
            self._position += 1
            return self._position

    @property
    def last_position(self) -> int:
        return self._position

    async def position(self) -> int:
        return self._position

    def observe(self, position: int) -> None:
        with self._lock:
            self._position = max(self._position, position)

    def append(self, revocation: Revocation) -> Appended:
        stored = self._submit(lambda: self._write(revocation)) or self._without_file(revocation)
        return Appended(stored, _done(Answers({})))

    def _submit(self, job: Callable[[], T]) -> concurrent.futures.Future[T] | None:
        """Do something on the broker's thread; None when there is none, or none any more."""
        thread = self._thread
        if thread is None:
            return None
        try:
            return thread.submit(job)
        except RuntimeError:  # another thread has closed the broker in between
            return None

    def _without_file(self, value: T) -> concurrent.futures.Future[T]:
        """What comes of a write when nothing is written: all is well in memory, else the broker is closed."""
        if self._path is None:
            return _done(value)
        stored: concurrent.futures.Future[T] = concurrent.futures.Future()
        stored.set_exception(BrokerError("the broker is closed"))
        return stored

    def _write(self, revocation: Revocation) -> Revocation:
        if self._database is None:  # pragma: no cover - the thread outlives neither
            raise BrokerError("the broker is closed")
        try:
            with self._database as transaction:
                transaction.execute(
                    "INSERT INTO revocation (scope, subject, position, expires, ending, keep, user)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        revocation.scope, revocation.subject, revocation.position, revocation.expires,
                        revocation.ending, json.dumps(revocation.keep), revocation.user,
                    ),
                )  # fmt: skip
                transaction.execute(
                    "INSERT INTO meta VALUES ('position', ?)"
                    " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                    (revocation.position,),
                )
        except (sqlite3.Error, ValueError) as error:  # ValueError: text that UTF-8 cannot carry
            logger.exception("a revocation (%s) is not stored: it holds until this process ends", revocation.scope)
            raise BrokerError(f"the revocation could not be stored: {error}") from error
        return revocation

    def record(self, record: SessionRecord) -> concurrent.futures.Future[None]:
        with self._lock:
            if not self._pages or len(self._pages[-1].records) >= PAGE:
                self._pages.append(_Page())
                # One job at a time, which asks for the next: a revocation that comes meanwhile stands between them.
                if len(self._pages) == 1 and self._submit(self._write_page) is None:
                    self._pages.clear()
                    return self._without_file(None)
            page = self._pages[-1]
            page.records[record.id] = record
            return page.written

    def _write_page(self) -> None:
        with self._lock:
            if not self._pages:  # closing was quicker
                return
            page = self._pages.popleft()
            if self._pages:
                self._submit(self._write_page)
        self._write_records(page)

    def _write_records(self, page: _Page) -> None:
        if self._database is None:
            page.written.set_exception(BrokerError("the broker is closed"))
            return
        try:
            # As JSON, which is ASCII here: a user's id need not be Unicode.
            rows = [(one.id, one.expires, one.text()) for one in page.records.values()]
            with self._database as transaction:
                transaction.executemany("INSERT OR REPLACE INTO session VALUES (?, ?, ?)", rows)
                transaction.execute("DELETE FROM session WHERE expires < ?", (time.time(),))
        except (sqlite3.Error, ValueError, TypeError) as error:
            if self._says_failures:
                logger.warning("cannot keep what is known of sessions (%s): a restart forgets it", error)
            self._says_failures = False
            page.written.set_exception(BrokerError(f"the records could not be stored: {error}"))
        else:
            self._says_failures = True
            page.written.set_result(None)

    def records(self) -> list[SessionRecord]:
        reading = self._submit(self._read_records)
        found: list[SessionRecord] = []
        try:
            rows = [] if reading is None else reading.result()
            unreadable = 0
            for text in rows:
                try:
                    found.append(SessionRecord.of_text(text))
                except (ValueError, TypeError, KeyError):  # written by another version
                    unreadable += 1
            if unreadable:
                logger.warning("%d known sessions cannot be read: they are known again when they are seen", unreadable)
        except (sqlite3.Error, RuntimeError) as error:
            logger.warning("cannot read what was known of sessions (%s): it is known again when they are seen", error)
        return found

    def _read_records(self) -> list[str]:
        while self._pages:
            self._write_page()
        if self._database is None:
            return []
        rows = self._database.execute("SELECT record FROM session WHERE expires >= ?", (time.time(),))
        return [text for (text,) in rows]

    # ---------------------------------------------------------------------------------------- one worker, and alone

    def listen(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        """There is nobody who could tell anything."""
        del listener, loop

    @property
    def worker(self) -> Worker:
        host, pid = platform.node(), os.getpid()
        return Worker(f"{host}:{pid}", host, pid)

    def clock(self) -> float:
        return time.monotonic()

    @property
    def lease_until(self) -> float:
        return math.inf

    def publish(self, target: Target, message: str) -> concurrent.futures.Future[None]:
        del target, message
        return _done(None)

    def subscribe(self, target: Target) -> concurrent.futures.Future[None]:
        del target
        return _done(None)

    def unsubscribe(self, target: Target) -> None:
        del target

    def enter(self, connection: str, facts: Json) -> None:
        self._here[connection] = facts

    def leave(self, connection: str) -> None:
        self._here.pop(connection, None)

    async def connections(self) -> list[Presence]:
        worker = self.worker
        return [Presence(connection, worker, facts) for connection, facts in list(self._here.items())]

    def request(self, question: Json) -> concurrent.futures.Future[Answers]:
        del question
        return _done(Answers({}))

    def claim(self, name: str) -> concurrent.futures.Future[bool]:
        now = self.clock()
        with self._lock:
            is_first = name not in self._claimed
            self._claimed.setdefault(name, now)
            while self._claimed and next(iter(self._claimed.values())) < now - REMEMBER_CLAIM:
                del self._claimed[next(iter(self._claimed))]
        return _done(is_first)

    def keep(self, name: str, text: str, seconds: float) -> concurrent.futures.Future[None]:
        with self._lock:
            self._forget_kept(time.monotonic())
            if len(self._kept) >= KEPT or self._kept_characters + len(text) > KEPT_CHARACTERS:
                full: concurrent.futures.Future[None] = concurrent.futures.Future()
                full.set_exception(BrokerError("too much is kept for a moment"))
                return full
            self._take(name)
            self._kept[name] = time.monotonic() + seconds, text
            self._kept_characters += len(text)
        return _done(None)

    async def take(self, name: str) -> str | None:
        with self._lock:
            self._forget_kept(time.monotonic())
            return self._take(name)

    def _take(self, name: str) -> str | None:
        _, text = self._kept.pop(name, (0.0, None))
        self._kept_characters -= len(text or "")
        return text

    def _forget_kept(self, now: float) -> None:
        for name in [name for name, (until, _) in self._kept.items() if until <= now]:
            self._take(name)

    # ----------------------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
            self._kept_characters = 0
        if self._thread is not None:
            self._thread.submit(self._close).result()
            self._thread.shutdown()
            self._thread = None

    def _close(self) -> None:
        while self._pages:
            self._write_page()
        if self._database is not None:
            self._database.close()
            self._database = None
        self._let_go()


def _done(value: T) -> concurrent.futures.Future[T]:
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_result(value)
    return future
