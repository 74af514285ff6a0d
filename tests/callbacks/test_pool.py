"""Threads for synchronous callbacks: nobody holds all of them, and nobody waits behind everything of somebody else."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.callbacks.pool import Pool
from dash_quart_ws.exceptions import TooManyCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Work:
    """Functions that run until they are told to end, and say when they have begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, threading.Event] = {}

    def __call__(self, name: str) -> Callable[[], str]:
        end = self._ends.setdefault(name, threading.Event())

        def work() -> str:
            self.begun.append(name)
            assert end.wait(20)
            return f"{name} done"

        return work

    def end(self, *names: str) -> None:
        for name in names or list(self._ends):
            self._ends[name].set()


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.end()


@pytest.fixture
def executor(work: Work) -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(8)
    yield executor
    work.end()
    executor.shutdown()


async def until(condition: Callable[[], bool]) -> None:
    """Let threads and the loop run until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def pool_of(
    executor: ThreadPoolExecutor, *, threads: int, share: int | None, queued: int = 100, each: int = 50
) -> Pool:
    return Pool(executor, threads=threads, share=share, most_queued=queued, share_queued=each)


def start(pool: Pool, user: str, function: Callable[[], str]) -> asyncio.Task[str]:
    return asyncio.get_running_loop().create_task(pool.run(user, function))


async def test_a_function_runs_in_a_thread_and_gives_its_result(executor: ThreadPoolExecutor) -> None:
    pool = pool_of(executor, threads=2, share=None)
    thread = await pool.run("alice", threading.current_thread)
    assert thread is not threading.current_thread()
    assert (pool.busy, pool.queued) == (0, 0)


async def test_what_a_function_raises_is_raised_to_its_caller_and_frees_its_thread(
    executor: ThreadPoolExecutor,
) -> None:
    pool = pool_of(executor, threads=1, share=None)

    def fail() -> None:
        raise LookupError("mine")

    for _ in range(3):
        with pytest.raises(LookupError, match="mine"):
            await pool.run("alice", fail)
    assert await pool.run("alice", lambda: "fine") == "fine"


async def test_a_stopiteration_is_an_error_like_any_other(executor: ThreadPoolExecutor) -> None:
    pool = pool_of(executor, threads=1, share=None)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.run("alice", lambda: next(iter(())))
    assert pool.busy == 0


async def test_a_function_sees_its_callers_context_and_changes_nobody_elses(executor: ThreadPoolExecutor) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    pool = pool_of(executor, threads=1, share=None)

    def look() -> str:
        seen = name.get()
        name.set("changed in the thread")
        return seen

    async def as_user(user: str) -> tuple[str, str]:
        name.set(user)
        return await pool.run(user, look), name.get()

    users = ["alice", "bob", "carol"]
    assert await asyncio.gather(*map(as_user, users)) == [(user, user) for user in users]


async def test_one_user_holds_at_most_their_share_and_another_gets_a_thread_at_once(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=4, share=None)
    assert pool.share == 2
    mallory = [start(pool, "mallory", work(f"m{n}")) for n in range(10)]
    await until(lambda: len(work.begun) == 2)
    alice = start(pool, "alice", work("alice"))
    await until(lambda: "alice" in work.begun)
    assert (pool.busy, pool.queued, work.begun) == (3, 8, ["m0", "m1", "alice"])
    work.end()
    assert await alice == "alice done"
    assert await asyncio.gather(*mallory) == [f"m{n} done" for n in range(10)]


@pytest.mark.parametrize(
    ("threads", "share", "expected"), [(1, None, 1), (4, None, 2), (5, None, 3), (4, 4, 4), (2, 9, 2)]
)
def test_a_share_is_half_of_the_threads_rounded_up_unless_it_is_given(
    executor: ThreadPoolExecutor, threads: int, share: int | None, expected: int
) -> None:
    assert pool_of(executor, threads=threads, share=share).share == expected


async def test_when_threads_are_scarce_users_take_turns_and_each_ones_functions_keep_their_order(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=1, share=1)
    tasks = [start(pool, "blocker", work("blocker"))]
    await until(lambda: work.begun == ["blocker"])
    tasks += [start(pool, user, work(f"{user}{n}")) for user in ("alice", "bob", "carol") for n in (1, 2, 3)]
    await until(lambda: pool.queued == 9)
    work.end()
    await asyncio.gather(*tasks)
    turns = [begun[:-1] for begun in work.begun[1:]]
    assert [sorted(turns[n : n + 3]) for n in (0, 3, 6)] == [["alice", "bob", "carol"]] * 3
    for user in ("alice", "bob", "carol"):
        assert [begun for begun in work.begun if begun.startswith(user)] == [f"{user}{n}" for n in (1, 2, 3)]


async def test_no_thread_is_idle_while_a_function_that_may_run_waits(executor: ThreadPoolExecutor, work: Work) -> None:
    pool = pool_of(executor, threads=3, share=2)
    tasks = [start(pool, user, work(f"{user}{n}")) for user in ("alice", "bob", "carol") for n in range(4)]
    while not all(task.done() for task in tasks):
        await until(lambda: pool.busy == min(3, pool.busy + pool.queued) or pool.queued == 0)
        running = [name for name in work.begun if not work._ends[name].is_set()]
        await until(lambda: any(not work._ends[name].is_set() for name in work.begun) or all(t.done() for t in tasks))
        for name in running[:1]:
            work.end(name)
        await asyncio.sleep(0)
    assert (pool.busy, pool.queued) == (0, 0)


async def test_a_cancelled_caller_who_waits_leaves_the_queue_and_the_function_never_runs(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=1, share=1)
    first = start(pool, "alice", work("first"))
    await until(lambda: work.begun == ["first"])
    waits = start(pool, "alice", work("waits"))
    last = start(pool, "alice", work("last"))
    await until(lambda: pool.queued == 2)
    waits.cancel()
    await asyncio.wait({waits})
    work.end()
    assert (await first, await last) == ("first done", "last done")
    assert work.begun == ["first", "last"]


async def test_a_cancelled_callers_running_function_counts_until_it_returns(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=4, share=1)
    first = start(pool, "mallory", work("first"))
    await until(lambda: work.begun == ["first"])
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    second = start(pool, "mallory", work("second"))  # as after a new login: the thread is still the user's
    await until(lambda: pool.queued == 1)
    assert await pool.run("alice", lambda: "passes") == "passes"
    assert (work.begun, pool.busy) == (["first"], 1)
    work.end("first")
    await until(lambda: work.begun == ["first", "second"])
    work.end("second")
    assert await second == "second done"


async def test_a_pool_that_is_full_says_so_in_the_log_once_in_a_while(
    executor: ThreadPoolExecutor, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of(executor, threads=1, share=1)
    tasks = [start(pool, "alice", work(f"{n}")) for n in range(5)]
    await until(lambda: pool.queued == 4)
    work.end()
    await asyncio.gather(*tasks)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "1 of 1 busy, 1 queued" in record.getMessage()


# ------------------------------------------------------------------------------------------------- how many may wait


async def test_one_user_fills_their_part_of_the_queue_and_others_still_find_room(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=2, share=1, queued=6, each=3)
    mallorys = [start(pool, "user mallory", work(f"mallory {number}")) for number in range(4)]
    await until(lambda: (pool.busy, pool.queued) == (1, 3))
    with pytest.raises(TooManyCallbacks):
        await pool.run("user mallory", work("one too many"))
    alices = start(pool, "user alice", work("alice"))
    await until(lambda: "alice" in work.begun)
    work.end()
    assert await alices == "alice done"
    assert [await one for one in mallorys] == [f"mallory {number} done" for number in range(4)]
    assert "one too many" not in work.begun
    assert (pool.busy, pool.queued) == (0, 0)


async def test_all_together_have_no_more_in_the_queue_than_it_holds(executor: ThreadPoolExecutor, work: Work) -> None:
    pool = pool_of(executor, threads=1, share=1, queued=6, each=3)
    waiting = [start(pool, f"user {user}", work(f"{user}")) for user in range(7)]
    await until(lambda: (pool.busy, pool.queued) == (1, 6))
    with pytest.raises(TooManyCallbacks):
        await pool.run("user alice", work("alice"))
    work.end("0")
    await until(lambda: pool.queued == 5)
    alices = start(pool, "user alice", work("alice"))
    await until(lambda: pool.queued == 6)
    work.end()
    assert await alices == "alice done"
    await asyncio.gather(*waiting)


async def test_however_many_addresses_ask_without_a_login_users_have_their_half_of_the_queue(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=1, share=1, queued=6, each=3)
    first = start(pool, "address 10.0.0.0", work("first"))
    waiting = [start(pool, f"address 10.0.0.{number}", work(f"nobody {number}")) for number in range(1, 4)]
    await until(lambda: (pool.busy, pool.queued) == (1, 3))
    with pytest.raises(TooManyCallbacks):
        await pool.run("address 10.0.0.4", work("one too many"))
    alices = start(pool, "user alice", work("alice"))
    await until(lambda: pool.queued == 4)
    work.end()
    assert await alices == "alice done"
    await asyncio.gather(first, *waiting)


async def test_what_nobody_waits_for_any_more_leaves_the_queue_at_once(
    executor: ThreadPoolExecutor, work: Work
) -> None:
    pool = pool_of(executor, threads=1, share=1, queued=6, each=3)
    running = start(pool, "user alice", work("running"))
    await until(lambda: work.begun == ["running"])
    for _ in range(5):
        waiting = [start(pool, "user alice", work("never")) for _ in range(3)]
        await until(lambda: pool.queued == 3)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert pool.queued == 0
    work.end()
    assert await running == "running done"
    assert work.begun == ["running"]


async def test_a_moment_without_new_threads_costs_the_callbacks_of_that_moment_only(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(executor, threads=2, share=None)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as Python does at the system's limit

    with monkeypatch.context() as system:
        system.setattr("threading.Thread.start", start)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                await pool.run("alice", lambda: "too early")
    assert pool.queued == 0
    async with asyncio.timeout(10):
        assert await pool.run("alice", lambda: "done") == "done"
