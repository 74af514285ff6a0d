"""`tests.apps.guarded`, with more for an attacker to reach for: `hypercorn tests.attacks.app:server`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from dash import Input, Output, callback, ctx
from quart_auth import current_user

from ..apps.guarded import app, protected_callback, server

if "ROOT_PROXY" in os.environ:
    from hypercorn.middleware import ProxyFixMiddleware

    server.asgi_app = ProxyFixMiddleware(server.asgi_app, mode="legacy", trusted_hops=1)

GO = Input("go", "n_clicks")
answers: list[tuple[Any, Any]] = []


@callback(Output("slow", "children"), GO)
def slow(seconds: float) -> str:
    """Blocks its thread."""
    time.sleep(min(seconds, 30))
    return f"{current_user.auth_id} slept"


@callback(Output("asking", "children"), GO)
async def asking(_clicks: int) -> str:
    """Asks the tab that called for a property."""
    assert ctx.websocket is not None
    value = await ctx.websocket.get_prop("box", "value", timeout=20)
    answers.append((current_user.auth_id, value))
    return f"the box of {current_user.auth_id} holds {value}"


@callback(Output("torrent", "children"), GO)
async def torrent(_clicks: int) -> None:
    """Sends more than a client that does not read can take."""
    while ctx.websocket is not None and not ctx.websocket.is_shutdown:
        await ctx.websocket.set_prop("torrent", "children", "x" * 200_000)
        await ctx.websocket.set_prop("torrent", "title", str(time.monotonic()))
        await asyncio.sleep(0.001)  # the rate of the torrent


@callback(Output("broken", "children"), GO)
async def broken(value: Any) -> str:
    raise RuntimeError(f"the password of the database is hunter2, and you said {value!r}")


if "JOBS" in os.environ:

    @protected_callback(Output("long", "children"), GO, groups=["traders"], background=True, prevent_initial_call=True)
    def long(seconds: float) -> str:
        time.sleep(min(seconds, 60))
        return "the traders' figures"


else:
    witnessed: list[tuple[Any, Any]] = []

    @callback(Output("job", "children"), GO)
    async def witness(clicks: int | None) -> str:
        """Who clicked for the how manieth time, as the server saw it."""
        witnessed.append((current_user.auth_id, clicks))
        return f"{current_user.auth_id} {clicks}"

    @server.get("/witnessed")
    async def get_witnessed() -> list[Any]:
        return [list(one) for one in witnessed]


@server.get("/answers")
async def get_answers() -> list[Any]:
    return [list(one) for one in answers]


__all__ = ["app", "server"]
