"""Renewals and activity on one host count on the other, and clocks need not agree."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING

import pytest

from ..server import call, closed, result, wait_for
from .workers import is_nobody, worker, workers

if TYPE_CHECKING:
    from pathlib import Path

    from ..brokers.redis_server import RedisServer
    from ..server import Server


async def test_a_session_that_is_renewed_on_one_host_does_not_expire_on_the_other(
    redis: RedisServer, tmp_path: Path
) -> None:
    duration = 4
    with workers(tmp_path, 2, f"{redis.url}?prefix=renewed", env={"DURATION": str(duration)}) as (a, b):
        cookie, other = a.login("alice"), a.login("bob")
        began = time.monotonic()
        async with b.bridge(cookie) as socket, b.bridge(other) as left_alone:
            while time.monotonic() < began + duration + 2:
                cookie = (await a.aget("/renew", cookie)).cookie
                assert cookie
                await asyncio.sleep(0.5)  # as somebody who is there
            assert result(await call(socket, "a.children")) == "alice 1"
            assert await closed(left_alone) == (4102, "the session has expired")
            assert (await closed(socket))[0] == 4102  # nobody renews it any more


async def test_what_a_user_does_on_one_host_keeps_the_session_awake_on_the_other(
    redis: RedisServer, tmp_path: Path
) -> None:
    idle = 3.0
    with workers(tmp_path, 2, f"{redis.url}?prefix=idle", idle_timeout=idle) as (a, b):
        cookie, other = a.login("alice"), a.login("bob")
        for one in (cookie, other):
            assert not is_nobody(a, one)
            assert not is_nobody(b, one)  # both count from here on
        async with b.bridge(cookie) as socket, b.bridge(other) as idles:
            began = time.monotonic()
            while time.monotonic() < began + 2.5 * idle:
                assert (await a.aget("/me", cookie)).json["user"] == "alice"
                await asyncio.sleep(0.3)  # as somebody who is there
            assert result(await call(socket, "a.children")) == "alice 1"
            assert (await closed(idles))[0] == 4102
            assert is_nobody(a, other)
            assert is_nobody(b, other)


@pytest.mark.parametrize("skew", [60, -60], ids=["ahead", "behind"])
async def test_clocks_that_differ_by_a_minute_let_nobody_in_and_lock_nobody_out(
    redis: RedisServer, tmp_path: Path, skew: int
) -> None:
    broker = f"{redis.url}?prefix=skew{skew}"
    with worker(tmp_path, broker) as right, worker(tmp_path, broker, env={"CLOCK_SKEW": str(skew)}) as wrong:
        for one, other in ((right, wrong), (wrong, right)):
            before = one.login("alice")
            assert not is_nobody(other, before)  # a new login counts at once, on both
            async with other.bridge(before) as socket:
                receipt = (await one.aget("/revoke?user=alice")).json
                assert (receipt["closed"], receipt["confirmed"]) == (1, 2)
                assert (await closed(socket))[0] == 4503
            for host in (one, other):
                assert is_nobody(host, before)
                after = host.login("alice")
                assert not is_nobody(one, after)
                assert not is_nobody(other, after)
                async with one.bridge(after) as socket:
                    assert result(await call(socket, "a.children")) == "alice 1"
                host.get("/logout", after)
                wait_for(functools.partial(_are_nobody, one, other, after), what="the logout to arrive")


def _are_nobody(one: Server, other: Server, cookie: str) -> bool:
    return is_nobody(one, cookie) and is_nobody(other, cookie)
