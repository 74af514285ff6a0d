"""One tab on one connection: what runs for it, and the end of that when it goes.

A tab that detaches and attaches again, as one does that comes back from the browser's back-forward cache, is another
`Renderer`: what still runs for the one before reaches nobody.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from ..exceptions import NotConnected
from ..wire.messages import GetPropsRequest

if TYPE_CHECKING:
    import asyncio

    from ..wire.messages import Outbound
    from .connection import Connection


class Renderer:
    """One tab, from its attach to its detach; where tabs do not attach, for as long as its connection.

    All methods but `send` belong to the event loop.
    """

    __slots__ = ("_gone", "_questions", "connection", "id", "page", "tasks")

    def __init__(self, connection: Connection, id: str) -> None:
        self.connection = connection
        self.id = id
        self.page: str | None = None
        """The token of its page, with which it has attached; None where tabs do not attach."""
        self._gone = False
        # Dicts, because an empty set takes up three times as much, and most tabs run nothing most of the time.
        self.tasks: dict[asyncio.Task[None], None] = {}
        """Its callbacks, which end with it; the connection puts them in and takes them out."""
        self._questions: dict[asyncio.Future[dict[str, Any]], None] = {}

    @property
    def gone(self) -> bool:
        """Whether what is sent here reaches nobody any more. From the event loop or from a thread."""
        return self._gone or self.connection.ended

    def send(self, message: Outbound) -> None:
        """Queue one message for this tab. From the event loop or from a thread; nothing happens once it has gone."""
        if not self.gone:
            self.connection.send(message)

    async def ask(self, component_id: str, properties: tuple[str, ...]) -> dict[str, Any]:
        """Ask this tab for properties of a component.

        Raises:
            NotConnected: the tab or the connection goes before the answer is there.
        """
        if self.gone:
            raise NotConnected("the tab has gone")
        question = GetPropsRequest(secrets.token_hex(16), self.id, component_id, properties)
        answer = self.connection.expect(question)
        self._questions[answer] = None
        try:
            return await answer
        finally:
            del self._questions[answer]
            self.connection.forget(question)

    def drop(self) -> None:
        """The tab has gone: its async callbacks are cancelled, and what threads still return is dropped."""
        self._gone = True
        for answer in self._questions:
            if not answer.done():
                answer.set_exception(NotConnected("the tab has gone"))
        for task in self.tasks:
            task.cancel()
