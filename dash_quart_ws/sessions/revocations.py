"""The replica: what is no longer valid, in memory, so that checking it costs no round trip."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from ..brokers.base import Ending, Revocation, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable

SINGLES_PER_USER = 1000
"""Single sessions of one user that are remembered one by one; then the older half becomes one cut-off for that user."""

CUTOFFS_PER_USER = 8
"""Cut-offs with exceptions that are remembered one by one; older ones are merged, to the stricter side."""

PRUNE_EVERY = 1000
"""Additions between two looks for what has expired, at least; where there is more to look at, half as many as that: so a
million of them take as long as they are many, and not its square."""


class Replica:
    """Every revocation that a token could still meet. Reading it is safe from any thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, Revocation] = {}
        self._singles: dict[str, set[str]] = defaultdict(set)
        self._cutoffs: dict[str, tuple[Revocation, ...]] = {}
        self._unsettled: dict[str, tuple[Revocation, ...]] = {}
        """Cut-offs whose true position is not known yet: whatever a token has seen, it may have been before them."""
        self._unsettled_singles: set[str] = set()
        self._additions = 0
        """Since it was last looked for what has expired."""

    def __len__(self) -> int:
        cutoffs = [*self._cutoffs.values(), *self._unsettled.values()]
        return len(self._sessions) + sum(map(len, cutoffs))

    def known(self) -> list[Revocation]:
        """Every one of them, for a store that has lost some."""
        cutoffs = (cutoff for cutoffs in self._cutoffs.values() for cutoff in cutoffs)
        singles = (one for id, one in self._sessions.items() if id not in self._unsettled_singles)
        return [*singles, *cutoffs]

    def add_unsettled(self, revocation: Revocation) -> bool:
        """Take in a revocation that a shared broker has yet to give its true position; `add` that one when it is known.

        Until then a user's cut-off ends every session of theirs that it does not keep, and nothing covers a session's.
        """
        if revocation.scope is Scope.SESSION:
            is_new = self._take(revocation)
            if is_new:
                self._unsettled_singles.add(revocation.subject)
            return is_new
        key = _key(revocation)
        self._unsettled[key] = (*self._unsettled.get(key, ()), revocation)
        return True

    def _settle(self, revocation: Revocation) -> None:
        if revocation.scope is Scope.SESSION:
            if revocation.subject in self._unsettled_singles:
                self._unsettled_singles.discard(revocation.subject)
                self._sessions[revocation.subject] = revocation
            return
        key = _key(revocation)
        waiting = self._unsettled.get(key, ())
        same = next(
            (one for one in waiting if dataclasses.replace(one, position=revocation.position) == revocation), None
        )
        rest = tuple(one for one in waiting if one is not same)
        if rest:
            self._unsettled[key] = rest
        else:
            self._unsettled.pop(key, None)

    def add(self, revocation: Revocation) -> bool:
        """Take a revocation in. False for a session that had ended already: the first ending stands."""
        self._settle(revocation)
        return self._take(revocation)

    def _take(self, revocation: Revocation) -> bool:
        self._additions += 1
        if self._additions >= max(PRUNE_EVERY, (len(self._sessions) + len(self._cutoffs)) // 2):
            self._additions = 0
            self.prune(time.time())
        if revocation.scope is not Scope.SESSION:
            self._add_cutoff(revocation)
            return True
        if revocation.subject in self._sessions:
            return False
        self._sessions[revocation.subject] = revocation
        if revocation.user is not None:
            self._singles[revocation.user].add(revocation.subject)
        return True

    def _add_cutoff(self, cutoff: Revocation) -> None:
        if cutoff.scope is Scope.USER and not cutoff.keep:
            self._drop_singles(cutoff.subject, cutoff.position)
        key = _key(cutoff)
        # An older cut-off that spares no more than this one is covered by it; a later one is not.
        cutoffs = tuple(
            one
            for one in self._cutoffs.get(key, ())
            if one.position > cutoff.position or not set(cutoff.keep) <= set(one.keep)
        )
        cutoffs = (*cutoffs, cutoff)
        if len(cutoffs) > CUTOFFS_PER_USER:
            first, second, *rest = cutoffs
            merged = Revocation(
                cutoff.scope,
                cutoff.subject,
                max(first.position, second.position),
                max(first.expires, second.expires),
                second.ending,
                tuple(set(first.keep) & set(second.keep)),
            )
            cutoffs = (merged, *rest)
        self._cutoffs[key] = cutoffs

    def _drop_singles(self, user: str, position: int) -> None:
        """Forget single sessions of a user that a cut-off covers: their tokens were minted before they were revoked."""
        singles = self._singles.get(user, set()) - self._unsettled_singles
        covered = [id for id in singles if self._sessions[id].position <= position]
        for id in covered:
            self._forget(id)

    def _forget(self, session: str) -> None:
        user = self._sessions.pop(session).user
        self._unsettled_singles.discard(session)
        if user is not None:
            self._singles[user].discard(session)
            if not self._singles[user]:
                del self._singles[user]

    def compaction(self, user: str) -> Revocation | None:
        """A cut-off that stands for the older half of a user's single sessions, when there are too many of them.

        It also ends what the user has left open since before those: nobody keeps a thousand logins, and one session.
        """
        singles = self._singles.get(user, set()) - self._unsettled_singles
        if len(singles) < SINGLES_PER_USER:
            return None
        older = sorted((self._sessions[id] for id in singles), key=lambda single: single.position)[: len(singles) // 2]
        longest = max(single.expires for single in older)
        return Revocation(Scope.USER, user, older[-1].position, longest, Ending.REVOKED)

    def ending_of(self, session: str, users: Iterable[str], seen: int) -> Ending | None:
        """Why a token's session is over: None while it is not.

        Args:
            session: the session's public id.
            users: every id under which its user is known.
            seen: the position that was known when the token was minted.
        """
        single = self._sessions.get(session)
        if single is not None:
            return single.ending
        for key in ("all", *(f"user:{user}" for user in users)):
            for cutoff in self._unsettled.get(key, ()):
                if session not in cutoff.keep:
                    return cutoff.ending
            for cutoff in self._cutoffs.get(key, ()):
                if seen < cutoff.position and session not in cutoff.keep:
                    return cutoff.ending
        return None

    def prune(self, now: float) -> None:
        """Forget what no token can meet any more."""
        for session in [session for session, single in self._sessions.items() if single.expires < now]:
            self._forget(session)
        for table in (self._cutoffs, self._unsettled):
            for key, cutoffs in list(table.items()):
                alive = tuple(cutoff for cutoff in cutoffs if cutoff.expires >= now)
                if alive:
                    table[key] = alive
                else:
                    del table[key]


def _key(cutoff: Revocation) -> str:
    return "all" if cutoff.scope is Scope.ALL else f"user:{cutoff.subject}"
