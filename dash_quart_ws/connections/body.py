"""The body of a callback over HTTP: it is read when somebody wants it, and by then it is known how large it may be.

Quart reads a request's body beside the view, and has decided about its size before anybody knows whose request it is.
Here nothing is taken from the server until the body is wanted. Until then TCP pushes back, and the guard may raise the
limit for a visitor whom it has recognised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from quart import current_app, request
from quart.wrappers.request import Body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Set


class CallbackBody(Body):
    """A request's body that says when it is wanted."""

    def __init__(self, expected: int | None, limit: int | None, wanted: asyncio.Event | None = None) -> None:
        super().__init__(expected, limit)
        self.wanted = wanted or asyncio.Event()

    async def __anext__(self) -> bytes:
        self.wanted.set()
        return await super().__anext__()

    def __await__(self) -> Generator[Any, None, Any]:
        self.wanted.set()
        return super().__await__()


def http_class(previous: type[Any], paths: Set[str]) -> type[Any]:
    """A class for `Quart.asgi_http_class`: the one that was there, with such a body for these paths."""

    class DashHTTPConnection(previous):  # type: ignore[misc]
        """Quart's ASGI request; the body of a callback waits until it is wanted."""

        async def handle_messages(self, request: Any, receive: Callable[[], Awaitable[Any]]) -> None:
            # Before the view's first step: Quart starts this task first. An app's own class of bodies is left alone.
            if request.path in paths and type(request.body) is Body:
                body = CallbackBody(request.content_length, self.app.config["MAX_CONTENT_LENGTH"])
                request.body = body
                await body.wanted.wait()
            await super().handle_messages(request, receive)

    return DashHTTPConnection


def allow(limit: int) -> None:
    """Let the current request's body be this large, in bytes, where the server's `MAX_CONTENT_LENGTH` allows less.

    Nothing happens when it is read already: an app's own `before_request` may have wanted it.
    """
    own: int | None = current_app.config["MAX_CONTENT_LENGTH"]
    body = request.body
    if own is not None and own < limit and isinstance(body, CallbackBody) and not body.wanted.is_set():
        request.max_content_length = limit
        request.body = CallbackBody(request.content_length, limit, body.wanted)
