"""The servers' app behind an ASGI middleware with something around each `send`, as instrumentation and timeouts have."""

from __future__ import annotations

import asyncio
import contextvars

from .servers import server

span = contextvars.ContextVar("span", default=None)


class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def wrapped(event):
            token = span.set("sending")
            try:
                async with asyncio.timeout(5):
                    if "unsendable" in (event.get("text") or ""):
                        raise LookupError("a middleware's own fault")
                    await send(event)
            finally:
                span.reset(token)

        await self.app(scope, receive, wrapped if scope["type"] == "websocket" else send)


server.asgi_app = Middleware(server.asgi_app)
