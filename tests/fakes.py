"""Stand-ins for what the package meets at its edges: clocks, clients, connections. First-class code, used by every wing.

A fake here does what the real thing does as far as a test can tell, and nothing on its own: it moves when the test says
so, which is why no test that uses one has to sleep.

How to extend them: give a fake the smallest piece of the real interface that the code under test touches, with the real
names; let the test drive it through methods of its own (`release`, `advance`, `end`); record what happened in plain
lists; and when a fake needs logic of the package to be right, use the real thing instead (a real Quart app through
`tests.sessions.site`, a real server through `tests.server`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from dash_quart_ws.connections.asgi import Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Clock:
    """The time of day, in the test's hands: `time.time` of the whole process, from `install` to the test's end."""

    def __init__(self, now: float) -> None:
        # On a whole second, as signatures are: how old a token is does not depend on when the test began.
        self.now = float(int(now))

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        monkeypatch.setattr("time.time", self)
        return self


class SlowReader:
    """A client behind a writer's `send`: each frame blocks until it is released, as a full socket buffer would."""

    def __init__(self, *, blocked: bool = False) -> None:
        self.frames: list[str] = []
        """Frames that were handed over, in order, the one that blocks included."""
        self._may_pass = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._gone = False
        if not blocked:
            self._may_pass.set()

    async def __call__(self, text: str) -> None:
        async with self._arrived:
            self.frames.append(text)
            self._arrived.notify_all()
        await self._may_pass.wait()
        if self._gone:
            raise Disconnected

    def release(self) -> None:
        """Read on: this frame and all that follow pass."""
        self._may_pass.set()

    def hold(self) -> None:
        """Stop reading: the next frame blocks."""
        self._may_pass.clear()

    def hang_up(self) -> None:
        """Go away: the frame that blocks fails, and so do all that follow."""
        self._gone = True
        self._may_pass.set()

    async def received(self, frames: int) -> list[str]:
        """Wait until so many frames have been handed over."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.frames) >= frames)
        return self.frames


def delivered_by_dash_worker(frame: str) -> list[Any]:
    """What Dash's own worker makes of one text frame: of an array, every `set_props` comes first, whatever was sent."""
    value = json.loads(frame)
    if not isinstance(value, list):
        return [value]
    updates = [message for message in value if message["type"] == "set_props"]
    return updates + [message for message in value if message["type"] != "set_props"]


@dataclasses.dataclass(frozen=True)
class FakeSession:
    """A session as far as the hub looks at one."""

    id: str
    users: frozenset[str] = frozenset()


class FakeConnection:
    """A connection as far as the hub looks at one; `end` is what tells everybody that it has gone."""

    def __init__(self, id: str, *sessions: FakeSession, remote: str | None = None, visitor: str | None = None) -> None:
        self.id = id
        self.remote = remote
        self.visitor = visitor
        self.session = sessions[0] if sessions else None
        self.bound_to = sessions
        self.gone: list[Callable[[Any], None]] = []
        self.ended = False

    def __repr__(self) -> str:
        return f"<FakeConnection {self.id}>"

    def end(self) -> None:
        self.ended = True
        for callback in self.gone:
            callback(self)
