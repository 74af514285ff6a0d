"""The main path on every documented server: log in, call, stream, push, log out."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from .server import BRIDGE, call, closed, next_message, request_message, result, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["hypercorn", "uvicorn", "uvicorn:wsproto", "granian"])
async def test_a_socket_serves_its_session_and_ends_with_it(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, server=name) as server:
        assert server.get("/_dash-layout").status == 401
        cookie, other = server.login("alice"), server.login("bob")
        assert server.get("/_dash-layout", cookie).status == 200
        async with server.bridge(cookie) as hers, server.connect(other) as his:
            assert result(await call(hers, "echo.children", 7)) == "alice 7"
            assert result(await call(hers, "sync.children", 7, "2")) == "alice 7 False"
            await hers.send(request_message("prop.children", 1, "3"))
            assert (await next_message(hers))["type"] == "get_props_request"
            assert (await server.aget("/push/alice/hello")).json == {"connections": 1}
            assert (await next_message(hers))["payload"]["props"] == {"title": "hello"}
            await server.aget("/logout", cookie)
            assert await closed(hers) == (4501, "logged out")
            assert result(await call(his, "echo.children", 1)) == "bob 1"
            assert server.get("/_dash-layout", cookie).status == 401
            async with server.connect(cookie, **BRIDGE) as again:
                assert await closed(again) == (4501, "logged out")
            async with server.connect(cookie) as again_with_dashs_own_worker:
                assert (await closed(again_with_dashs_own_worker))[0] == 4001
            assert (await server.aget("/revoke/bob")).json["closed"] == 1
            assert await closed(his) == (4001, "banned")
    assert "Traceback" not in server.log


async def test_a_socket_ends_within_a_second_of_its_sessions_expiry_and_a_renewal_keeps_it(tmp_path: Path) -> None:
    with serving(tmp_path, env={"DURATION": "3"}) as server:
        began = time.time()
        cookie, renewed = server.login("alice"), server.login("bob")
        async with server.bridge(cookie) as hers, server.bridge(renewed) as his:
            await call(his, "echo.children")
            assert await closed(hers) == (4102, "the session has expired")
            assert 1.9 < time.time() - began < 5, "a signature's time has whole seconds"
            async with server.connect(cookie, **BRIDGE) as again:
                assert await closed(again) == (4502, "the session has expired")
            assert (await closed(his))[0] == 4102
        cookie = server.login("carol")
        async with server.bridge(cookie) as socket:
            until = time.time() + 5
            number = 0
            while time.time() < until:
                cookie = (await server.aget("/renew", cookie)).cookie
                number += 1
                assert result(await call(socket, "echo.children", number, str(number))) == f"carol {number}"
            await server.aget("/logout", cookie)
            assert await closed(socket) == (4501, "logged out")


async def test_a_callback_over_http_ends_when_its_session_expires(tmp_path: Path) -> None:
    with serving(tmp_path, env={"DURATION": "2"}) as server:
        cookie = server.login("alice")
        body = json.loads(request_message("slow.children"))["payload"]
        reply = await asyncio.to_thread(server.request, "POST", "/_dash-update-component", cookie=cookie, body=body)
        assert reply.status == 401
        assert server.get("/state").json["finished"] == ["slow"]


async def test_an_ended_session_stays_ended_after_a_restart_of_the_server(tmp_path: Path) -> None:
    env = {"BROKER": f"sqlite:///{tmp_path}/revocations.sqlite3"}
    with serving(tmp_path, env=env) as server:
        ended, alive = server.login("alice"), server.login("alice")
        server.get("/logout", ended)
        banned = server.login("mallory")
        server.get("/revoke/mallory")
        back = server.login("mallory")
    with serving(tmp_path, env=env) as server:
        for cookie in (ended, banned):
            assert server.get("/_dash-layout", cookie).status == 401
            async with server.connect(cookie, **BRIDGE) as socket:
                assert (await closed(socket))[0] in (4501, 4503)
        for cookie in (alive, back):
            assert server.get("/_dash-layout", cookie).status == 200
