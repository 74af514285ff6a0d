"""Who may subscribe to what: the app's own `authorize_topic(user, topic)`, asked at each subscription.

It is asked again when a user's rights have changed, for every topic that the user's connections have here. Whoever may not
any more is taken off; so is everybody for whom there is no answer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quart import Quart

    from ..connections.connection import Connection
    from ..connections.hub import Hub

logger = logging.getLogger("dash_quart_ws.topics")
security = logging.getLogger("dash_quart_ws.security")


class Topics:
    """The app's decisions about topics. Belongs to the event loop."""

    def __init__(self, server: Quart, hub: Hub, authorize: Callable[..., Any] | None, timeout: float) -> None:
        self._server = server
        self._hub = hub
        self._timeout = timeout
        self.authorize = authorize
        """None: nobody is asked, and the app subscribes whomever it likes."""
        self._changes = 0
        """How often anybody's rights have changed: an answer from before a change counts for nothing."""

    async def may(self, user: str | None, topic: str) -> bool:
        """Whether a user, or nobody, may be subscribed to a topic. Never raises: without an answer they may not."""
        while True:
            changes = self._changes
            allowed = self.authorize is None or await self._ask(user, topic)
            if changes == self._changes:
                break
        if not allowed:
            security.warning("deny user=%.64r topic=%.64r reason='not authorized'", user, topic)
        return allowed

    async def _ask(self, user: str | None, topic: str) -> bool:
        try:
            async with asyncio.timeout(self._timeout), self._server.app_context():
                answer = await self._server.ensure_async(self.authorize)(user, topic)  # type: ignore[arg-type]
                if inspect.isawaitable(answer):  # of an object with an async __call__
                    answer = await answer
        except Exception:  # the app's function may raise anything
            logger.exception("authorize_topic failed for user=%.64r topic=%.64r: it is refused", user, topic)
            return False
        return answer is True

    def rights_changed(self) -> None:
        """Answers that are on their way are of before."""
        self._changes += 1

    async def judge(self, connections: Iterable[Connection]) -> None:
        """Take these connections, and their sessions, off the topics that their users may not have any more."""
        if self.authorize is None:
            return
        pairs = [(one, topic) for one in connections for topic in self._hub.topics_of(one)]
        questions = dict.fromkeys((one.user, topic) for one, topic in pairs)
        answers = await asyncio.gather(*(self.may(user, topic) for user, topic in questions))
        allowed = dict(zip(questions, answers, strict=True))
        for one, topic in pairs:
            if not allowed[one.user, topic]:
                self._hub.unsubscribe([one], topic)
                if one.session is not None:
                    self._hub.unsubscribe_session(one.session.id, topic)
