"""Workers that are killed, suspended or frozen: their connections are seen to by the others, and each hook is called once."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from ..server import await_for, call, closed, messages, next_message, request_message, result, wait_for
from .workers import events, is_nobody, worker, workers

if TYPE_CHECKING:
    from pathlib import Path

    from ..brokers.redis_server import RedisServer

LEASE = 1.0


async def test_the_connections_of_a_worker_that_was_killed_leave_the_list_and_their_hooks_are_called_once_elsewhere(
    redis: RedisServer, tmp_path: Path
) -> None:
    with workers(tmp_path, 2, f"{redis.url}?prefix=killed", lease=LEASE) as (b, c):
        with worker(tmp_path, f"{redis.url}?prefix=killed", lease=LEASE) as a:
            cookie, banned = a.login("alice"), a.login("mallory")
            async with a.bridge(cookie), a.bridge(banned), b.bridge(cookie) as here:
                users = lambda: sorted(one["user"] for one in c.get("/all").json)  # noqa: E731
                await await_for(lambda: users() == ["alice", "alice", "mallory"], what="all to be listed")
                ids = {one["id"] for one in c.get("/all").json if one["pid"] == a.get("/state").json["pid"]}
                a.signal(signal.SIGKILL, group=True)
                receipt = (await b.aget("/revoke?user=mallory")).json
                assert (receipt["closed"], receipt["confirmed"], len(receipt["missing"])) == (0, 2, 1)
                gone = lambda: [one for server in (b, c) for one in events(server, "disconnect")]  # noqa: E731
                await await_for(lambda: len(gone()) == 2, 20, "the hooks to be called")
                ends = lambda: [one for server in (b, c) for one in events(server, "session end")]  # noqa: E731
                await await_for(ends, what="the hook for the end of the session")
                told, ended = gone(), ends()
                assert users() == ["alice"]
                assert result(await call(here, "a.children")) == "alice 1"
        assert sorted(one[2] for one in told) == sorted(ids)
        assert {(one[1], one[3]) for one in told} == {
            ("alice", "its worker has died"), ("mallory", "its worker has died")
        }  # fmt: skip
        assert [one[1] for one in ended] == ["mallory"]


async def test_a_process_that_was_suspended_runs_nothing_for_a_session_that_ended_meanwhile(
    redis: RedisServer, tmp_path: Path
) -> None:
    broker = f"{redis.url}?prefix=suspended"
    with workers(tmp_path, 2, broker, lease=LEASE) as (a, b):
        cookie, banned = a.login("alice"), a.login("mallory")
        async with a.bridge(cookie) as socket, a.bridge(banned) as theirs:
            await await_for(lambda: len(b.get("/all").json) == 2, what="both to be listed")
            a.signal(signal.SIGSTOP, group=True)
            try:
                for output in ("a.children", "b.children"):
                    await theirs.send(request_message(output, "never", request_id=output))
                    await socket.send(request_message(output, "late", request_id=output))
                await b.aget("/revoke?user=mallory")
                await await_for(lambda: len(events(b, "disconnect")) == 2, 20, "the worker to be declared dead")
            finally:
                a.signal(signal.SIGCONT, group=True)
            assert (await closed(socket))[0] == 1012
            assert (await closed(theirs))[0] in (1012, 4503)
        wait_for(lambda: a.get("/", cookie).status == 200, 20, "the worker to serve again")
        assert is_nobody(a, banned)
        assert a.get("/state").json["ran"] == []
        async with a.bridge(cookie) as socket:
            assert result(await call(socket, "a.children")) == "alice 1"
            await await_for(lambda: [one["pid"] for one in b.get("/all").json] == [a.get("/state").json["pid"]])
        await await_for(lambda: events(a, "disconnect"))
        # What went with it was told by the other one, and by nobody else.
        assert [one[3] for one in events(a, "disconnect")] == ["the client has gone"]
        assert [one[3] for one in events(b, "disconnect")] == ["its worker has died"] * 2
        assert len(events(a, "session end")) + len(events(b, "session end")) == 1
        assert "declared-dead" in a.log


async def test_nothing_is_sent_by_a_process_that_cannot_know_whether_the_session_goes_on(
    redis: RedisServer, tmp_path: Path
) -> None:
    """It wakes up in the middle of what it was doing, before anything tells it how long it was away."""
    broker = f"{redis.url}?prefix=waking"
    with workers(tmp_path, 2, broker, lease=LEASE) as (a, b):
        async with a.bridge(a.login("mallory")) as theirs:
            await theirs.send(request_message("e.children"))
            for _ in range(20):
                await next_message(theirs, "set_props")
            a.signal(signal.SIGSTOP, group=True)
            try:
                stopped_at = time.time()
                await b.aget("/revoke?user=mallory")
                await asyncio.sleep(1.2 * LEASE)  # it is the time that matters here, and no state
            finally:
                a.signal(signal.SIGCONT, group=True)
            sent = [message async for message in messages(theirs) if message["type"] == "set_props"]
            told_at = [message["payload"]["props"]["title"] for message in sent]
            assert max(told_at, default=0) < stopped_at + LEASE
            assert theirs.close_code in (4104, 1012, 4503)


async def test_a_receipt_names_a_worker_that_does_not_answer_in_time(redis: RedisServer, tmp_path: Path) -> None:
    broker = f"{redis.url}?prefix=frozen"
    options = {"close_timeout": 0.5, "broker_timeout": 0.5}
    with workers(tmp_path, 2, broker, **options) as (a, b):
        cookie = a.login("alice")
        async with a.bridge(cookie) as here, b.bridge(cookie) as there:
            b_id = next(one["worker"] for one in a.get("/all").json if one["pid"] == b.get("/state").json["pid"])
            b.signal(signal.SIGSTOP, group=True)
            try:
                receipt = (await a.aget("/revoke?user=alice")).json
            finally:
                b.signal(signal.SIGCONT, group=True)
            assert (receipt["closed"], receipt["confirmed"], receipt["missing"]) == (1, 1, [b_id])
            assert (await closed(here))[0] == 4503
            assert (await closed(there))[0] == 4503  # it was away for less than its lease: nothing is lost
        assert is_nobody(b, cookie)
