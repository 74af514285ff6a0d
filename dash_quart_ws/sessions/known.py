"""Which sessions there are, as far as this server has seen them: what `QuartBackend.sessions` lists.

Nothing here does I/O. The registry says which records the broker should have, and when; `sessions.sessions` hands them
over. Records are written far less often than sessions are seen, at most once a minute for each, and one change of
address, browser or expiry ahead of that: whoever floods writes no more.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quart import has_request_context, has_websocket_context, request, websocket

from ..brokers.base import SessionRecord
from ..connections.session import KnownSession, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quart.wrappers.base import BaseRequestWebsocket

SESSIONS_KNOWN = 100_000
"""Sessions that are remembered; beyond that the one that was seen longest ago is forgotten first."""

SESSIONS_PER_USER = 1000
"""The same for one user, so that nobody's many logins push out other people's."""

SAVE_EVERY = 60.0
"""Seconds between two records of one session."""

RENEWALS_EVERY = 1.0
"""Seconds of a longer life that are worth a record when others know of a shorter one."""

USER_AGENT_LENGTH = 256
REMOTE_LENGTH = 64
"""Characters of what the client, or a proxy, says: both may be anything."""

PRUNE_EVERY = 1000
"""New sessions between two looks for what has expired; more of them when more are known, so that looking stays cheap."""

Sender = tuple[str | None, str]
"""Where a request comes from, and its User-Agent."""

Records = list[SessionRecord]


@dataclass(slots=True)
class _Entry:
    session: Session
    visit: tuple[float, str | None, str]
    """When it was last seen, from where, with which browser: replaced as a whole, for readers in other threads."""
    active: float
    """When its user last did something; 0 if that is not known."""
    saved_at: float = 0.0
    saved_until: float = 0.0
    """The expiry that the broker knows."""
    paid_until: float = 0.0
    """Each record costs `SAVE_EVERY` seconds; one of them may be owed."""
    changed: bool = True
    """Whether more than the time is new since the last record."""
    expires: float = 0.0

    def __post_init__(self) -> None:
        self.take(self.session)

    def take(self, session: Session) -> None:
        self.session = session
        self.expires = session.expires.timestamp()


class SessionRegistry:
    """The sessions that were seen and have not been told to be over. Safe from any thread.

    Args:
        save_every: seconds between two records of one session.
        is_shared: whether other workers rely on the records: then a renewal is told before the expiry that they know.
    """

    def __init__(self, *, save_every: float = SAVE_EVERY, is_shared: bool = False) -> None:
        self._save_every = save_every
        self._is_shared = is_shared
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._by_user: dict[str, dict[str, _Entry]] = {}
        self._additions = 0
        """Since the last look for what has expired."""

    def __len__(self) -> int:
        return len(self._entries)

    def see(self, session: Session, now: float, sender: Sender | None, *, active: bool = False) -> Records:
        """A session has been seen. Without a `sender` only the time is new.

        Args:
            session: as it is now.
            now: Unix time.
            sender: where it was seen.
            active: whether its user did something.

        Returns:
            What the broker should get for it: mostly nothing.
        """
        with self._lock:
            entry = self._entries.get(session.id)
            if entry is None:
                remote, browser = sender or (None, "")
                visit = now, _short(remote), plain_text(browser, USER_AGENT_LENGTH)
                entry = _Entry(session, visit, now if active else 0.0)
                dropped = self._add(entry, now)
                return [*dropped, self._record(entry, now)]
            self._update(entry, session)
            self._move_to_end(entry)
            _, remote, browser = entry.visit
            if sender is not None:
                was = remote, browser
                remote, browser = _short(sender[0]), plain_text(sender[1], USER_AGENT_LENGTH)
                entry.changed = entry.changed or (remote, browser) != was
            entry.visit = now, remote, browser
            if active:
                entry.active = now
            is_due = not 0 <= now - entry.saved_at < self._save_every  # below 0: the clock was set back
            may_be_early = entry.changed and entry.paid_until <= now + self._save_every
            return [self._record(entry, now)] if is_due or may_be_early or self._is_urgent(entry, now) else []

    def _move_to_end(self, entry: _Entry) -> None:
        id = entry.session.id
        self._entries.move_to_end(id)
        for name in entry.session.users:
            of_user = self._by_user[name]
            of_user[id] = of_user.pop(id)

    def _is_urgent(self, entry: _Entry, now: float) -> bool:
        """Whether others are about to take the session for expired, though it was renewed."""
        return (
            self._is_shared
            and entry.expires >= entry.saved_until + RENEWALS_EVERY
            and entry.saved_until < now + self._save_every
        )

    def _update(self, entry: _Entry, session: Session) -> None:
        """Take over what is new about a session: a renewal, or other names of its user."""
        old = entry.session
        if session.users != old.users or session.user != old.user:
            self._unlist(entry)
            entry.take(dataclasses.replace(session, expires=max(session.expires, old.expires)))
            self._list(entry)
            entry.changed = True
        elif session.expires > old.expires:  # an older copy of the token does not take a renewal back
            entry.take(session)
            if entry.expires > entry.saved_until + self._save_every:
                entry.changed = True

    def _add(self, entry: _Entry, now: float) -> Records:
        """Returns the records of the sessions that had to make room."""
        self._additions += 1
        if self._additions >= max(PRUNE_EVERY, len(self._entries) // 2):
            self._additions = 0
            self._prune(now)
        self._entries[entry.session.id] = entry
        self._list(entry)
        longest_ago = [
            next(iter(of_user))
            for name in entry.session.users
            if len(of_user := self._by_user[name]) > SESSIONS_PER_USER
        ]
        if len(self._entries) > SESSIONS_KNOWN:
            longest_ago.append(next(iter(self._entries)))
        return [record for id in longest_ago for record in self._forget(id)]

    def _list(self, entry: _Entry) -> None:
        for name in entry.session.users:
            self._by_user.setdefault(name, {})[entry.session.id] = entry

    def _unlist(self, entry: _Entry) -> None:
        for name in entry.session.users:
            of_user = self._by_user[name]
            del of_user[entry.session.id]
            if not of_user:
                del self._by_user[name]

    def _record(self, entry: _Entry, now: float) -> SessionRecord:
        session, (last_seen, remote, browser) = entry.session, entry.visit
        entry.saved_at, entry.saved_until, entry.changed = now, entry.expires, False
        entry.paid_until = min(max(entry.paid_until, now), now + self._save_every) + self._save_every
        return SessionRecord(
            session.id, session.user, session.since.timestamp(), entry.expires, last_seen,
            remote, browser, tuple(sorted(session.users)), session.seen, entry.active,
        )  # fmt: skip

    def unsaved(self) -> Records:
        """What the broker does not know yet: for when the server goes down."""
        with self._lock:
            entries = [one for one in self._entries.values() if one.changed or one.visit[0] != one.saved_at]
            return [self._record(entry, entry.visit[0]) for entry in entries]

    def restore(self, records: Iterable[SessionRecord], is_over: Callable[[Session], bool]) -> Records:
        """Take in what an earlier life of the server knew.

        Returns:
            What the broker should know of those that are over, or too many.
        """
        over: Records = []
        with self._lock:
            for record in sorted(records, key=lambda record: record.last_seen):
                session = _session_of(record)
                if is_over(session):
                    over.append(SessionRecord.over(record.id))
                elif record.id not in self._entries:
                    over += self._add(_entry_of(session, record), record.last_seen)
        return over

    def learn(self, record: SessionRecord) -> tuple[Session, bool]:
        """Take in a session as another worker has seen it.

        Returns:
            The session as it is known now, and whether its user has done something that was not known.
        """
        session = _session_of(record)
        with self._lock:
            entry = self._entries.get(record.id)
            if entry is None:
                self._add(_entry_of(session, record), record.last_seen)  # who had to make room is others' to know of
                return session, record.active > 0
            changed = entry.changed
            self._update(entry, session)
            entry.changed = changed
            if record.last_seen >= entry.visit[0]:
                entry.visit = record.last_seen, record.remote, record.user_agent
            entry.saved_at = max(entry.saved_at, record.last_seen)
            entry.saved_until = max(entry.saved_until, record.expires)
            was_active, entry.active = entry.active, max(entry.active, record.active)
            self._move_to_end(entry)
            return entry.session, record.active > was_active

    def known(self, user: str | None) -> list[KnownSession]:
        """Every session that is remembered, or one user's; the one that was seen last is the first."""
        with self._lock:
            entries = [*(self._entries if user is None else self._by_user.get(user, {})).values()]
        found = [(entry.session, entry.visit) for entry in reversed(entries)]
        found.sort(key=lambda one: one[1][0], reverse=True)  # the clock may have been set back
        return [
            KnownSession(
                session.id, session.user, session.since, session.expires, session.users, session.seen,
                last_seen=_utc(last_seen), remote=remote, user_agent=browser,
            )
            for session, (last_seen, remote, browser) in found
        ]  # fmt: skip

    def get(self, id: str) -> Session | None:
        """The session with this public id, if it is remembered."""
        entry = self._entries.get(id)
        return None if entry is None else entry.session

    def forget(self, id: str) -> Records:
        """A session is over.

        Returns:
            What the broker should know of it; nothing when it was not remembered.
        """
        with self._lock:
            return self._forget(id)

    def forget_all(self, is_over: Callable[[Session], bool], user: str | None) -> Records:
        """The same for every session, or every one of a user, that is over."""
        with self._lock:
            entries = [*(self._entries if user is None else self._by_user.get(user, {})).values()]
            return [record for one in entries if is_over(one.session) for record in self._forget(one.session.id)]

    def _forget(self, id: str) -> Records:
        entry = self._entries.pop(id, None)
        if entry is None:
            return []
        self._unlist(entry)
        return [SessionRecord.over(id)]

    def _prune(self, now: float) -> None:
        """Forget what has expired: the broker finds out by itself."""
        for id in [id for id, entry in self._entries.items() if entry.expires < now]:
            self._forget(id)


def _session_of(record: SessionRecord) -> Session:
    since, expires = _utc(record.since), _utc(record.expires)
    return Session(record.id, record.user, since, expires, frozenset(record.users), record.seen)


def _entry_of(session: Session, record: SessionRecord) -> _Entry:
    visit = record.last_seen, record.remote, record.user_agent
    return _Entry(session, visit, record.active, record.last_seen, record.expires, changed=False)


def sender() -> Sender | None:
    """Who sends the request, or opened the websocket, that is being served here; None where there is neither."""
    if has_request_context():
        return _sender_of(request)
    return _sender_of(websocket) if has_websocket_context() else None


def _sender_of(source: BaseRequestWebsocket) -> Sender:
    return source.remote_addr, source.headers.get("User-Agent", "")


def can_be_signed(auth_id: Any) -> bool:
    """Whether quart-auth's serializer will take a user's id. Where another one takes more, its first request tells."""
    try:
        json.dumps(auth_id, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return True


def plain_text(text: str, limit: int) -> str:
    """Text of a stranger's, fit for one line of a page or a terminal: no more than so many characters, all printable.

    Control characters go, and with them line breaks, marks that turn the direction of writing, and lone surrogates.
    """
    if len(text) <= limit and text.isprintable():
        return text
    return "".join(character for character in text[: 4 * limit] if character.isprintable())[:limit]


def _short(remote: str | None) -> str | None:
    return None if remote is None else plain_text(remote, REMOTE_LENGTH)


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
