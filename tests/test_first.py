"""The first promise: a socket ends with its session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .server import call, closed, result

if TYPE_CHECKING:
    from .server import Server


async def test_a_logout_closes_the_socket_of_the_session_that_it_ends(hypercorn: Server) -> None:
    cookie = hypercorn.login("alice")
    async with hypercorn.connect(cookie) as socket:
        assert result(await call(socket, "echo.children", 7)) == "alice 7"
        reply = await hypercorn.aget("/logout", cookie)
        assert reply.status == 200
        assert await closed(socket) == (4001, "logged out")
    assert hypercorn.get("/_dash-layout", cookie).status == 401
