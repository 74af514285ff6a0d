"""Workers of one app: brokers, and the listeners that keep what they are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dash_quart_ws.brokers.base import Listener, Presence, Revocation, Scope, SessionRecord, Target, Worker
from dash_quart_ws.brokers.redis import RedisBroker

from ..server import await_for
from .contract import revocation

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterable


class Ears(Listener):
    """Keeps what it is told, as a worker's replica would."""

    def __init__(self) -> None:
        self.revocations: dict[str, Revocation] = {}
        self.own: list[str] = []
        self.pushes: list[tuple[Target, str]] = []
        self.records: list[SessionRecord] = []
        self.dead: list[tuple[Worker, list[Presence]]] = []
        self.events: list[str] = []
        self.answer: Any = None

    def take(self, revocations: Iterable[Revocation]) -> None:
        for one in revocations:
            self.revocations[one.subject] = one

    def revoked(self, revocation: Revocation, *, own: bool) -> Any:
        self.events.append(f"revoked {revocation.subject}")
        self.take([revocation])
        if own:
            self.own.append(revocation.subject)
        return self.answer

    def known(self) -> list[Revocation]:
        return list(self.revocations.values())

    def pushed(self, target: Target, message: str) -> None:
        self.pushes.append((target, message))

    def requested(self, question: Any) -> Any:
        return self.answer if self.answer is not None else question

    def recorded(self, records: list[SessionRecord]) -> None:
        self.records += records

    def worker_died(self, worker: Worker, connections: list[Presence]) -> None:
        self.dead.append((worker, connections))

    def declared_dead(self) -> None:
        self.events.append("declared dead")

    def lost(self) -> None:
        self.events.append("lost")

    def regained(self) -> None:
        self.events.append("regained")


class Member:
    """One worker."""

    def __init__(self, url: str, **options: Any) -> None:
        self.broker = RedisBroker(url, **options)
        self.ears = Ears()

    def begin(self, loop: asyncio.AbstractEventLoop | None = None) -> Member:
        """Blocks."""
        self.ears.take(self.broker.load())
        self.broker.listen(self.ears, loop or asyncio.get_running_loop())
        return self

    def revoke(self, subject: str, scope: Scope = Scope.SESSION, **options: Any) -> Any:
        """As `Sessions.revoke` does: here first, then for everybody."""
        one = revocation(subject, self.broker.next_position(), scope=scope, **options)
        self.ears.take([one])
        return self.broker.append(one)

    async def stored(self, subject: str, scope: Scope = Scope.SESSION, **options: Any) -> Revocation:
        one: Revocation = await asyncio.wrap_future(self.revoke(subject, scope, **options).stored)
        return one

    async def knows(self, *subjects: str) -> None:
        await await_for(lambda: set(subjects) <= self.ears.revocations.keys(), what=f"{subjects}")

    @property
    def is_fresh(self) -> bool:
        return self.broker.lease_until > self.broker.clock()


class Crew:
    """Makes workers, and ends them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._members: list[Member] = []

    def join(self, url: str | None = None, **options: Any) -> Member:
        member = Member(url or self._url, **options)
        self._members.append(member)
        return member.begin()

    async def join_later(self) -> Member:
        """The same, while this event loop does what it does for the others."""
        member = Member(self._url)
        self._members.append(member)
        return await asyncio.to_thread(member.begin, asyncio.get_running_loop())

    async def end(self) -> None:
        for member in self._members:
            await asyncio.to_thread(member.broker.close)


async def outcome(future: concurrent.futures.Future[Any]) -> Any:
    return await asyncio.wait_for(asyncio.wrap_future(future), 30)
