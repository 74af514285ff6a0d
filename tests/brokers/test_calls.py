"""Calls from any thread into an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.brokers.calls import AT_ONCE, Calls, settle

from ..server import await_for

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_calls_are_made_on_the_loop_in_the_order_in_which_each_thread_gave_them() -> None:
    calls, made = Calls(), list[tuple[int, int, int]]()
    calls.attach(asyncio.get_running_loop())

    def give(thread: int) -> None:
        for number in range(1000):
            calls.put(lambda number=number: made.append((thread, number, threading.get_ident())))

    await asyncio.gather(*(asyncio.to_thread(give, thread) for thread in range(3)))
    await await_for(lambda: len(made) == 3000)
    for thread in range(3):
        assert [number for one, number, _ in made if one == thread] == list(range(1000))
    assert {ident for *_, ident in made} == {threading.get_ident()}


async def test_what_is_put_before_there_is_a_loop_waits_for_it() -> None:
    calls, made = Calls(), list[str]()
    calls.put(made.append, "early")
    assert not calls.has_loop
    calls.attach(asyncio.get_running_loop())
    calls.put(made.append, "late")
    assert made == []
    await await_for(lambda: made == ["early", "late"])


async def test_a_call_that_fails_is_logged_and_the_next_one_is_made(caplog: pytest.LogCaptureFixture) -> None:
    calls, made = Calls(), list[str]()
    calls.attach(asyncio.get_running_loop())
    calls.put(made.remove, "nothing")
    calls.put(made.append, "next")
    await await_for(lambda: made)
    assert len(caplog.records) == 1


async def test_the_loop_gets_a_turn_while_many_calls_are_made() -> None:
    calls, turns = Calls(), list[int]()
    loop = asyncio.get_running_loop()
    left = 3 * AT_ONCE
    seen: list[int] = []

    def count() -> None:
        nonlocal left
        left -= 1

    def turn() -> None:
        seen.append(left)
        if left:
            loop.call_soon(turn)

    for _ in range(left):
        calls.put(count)
    calls.attach(loop)
    turns.append(left)
    loop.call_soon(turn)
    await await_for(lambda: left == 0)
    assert len({0 < one < 3 * AT_ONCE for one in seen}) == 2, "some turns came in between"


async def test_what_is_asked_is_answered_or_fails_with_what_was_raised() -> None:
    calls = Calls()
    calls.attach(asyncio.get_running_loop())
    assert await asyncio.wrap_future(calls.ask(lambda: 5)) == 5
    with pytest.raises(LookupError):
        await asyncio.wrap_future(calls.ask(_fails))


def _fails() -> int:
    raise LookupError


def test_a_loop_that_is_closed_is_told_nothing_and_nobody_is_hurt() -> None:
    calls, made = Calls(), list[str]()

    async def main() -> None:
        calls.attach(asyncio.get_running_loop())

    asyncio.run(main())
    calls.put(made.append, "nobody hears this")
    assert not calls.has_loop
    assert len(calls) == 0
    assert made == []


async def test_a_loop_that_is_let_go_of_is_told_nothing_more() -> None:
    calls, made = Calls(), list[str]()
    calls.attach(asyncio.get_running_loop())
    calls.put(made.append, "too late")
    calls.detach()
    other: Callable[[], object] = lambda: made.append("in time")  # noqa: E731
    calls.attach(asyncio.get_running_loop())
    calls.put(other)
    await await_for(lambda: made)
    assert made == ["in time"]


def test_a_future_that_has_its_outcome_keeps_it() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    settle(future, 1)
    settle(future, 2)
    settle(future, error=LookupError())
    assert future.result(0) == 1
    cancelled: concurrent.futures.Future[int] = concurrent.futures.Future()
    cancelled.cancel()
    settle(cancelled, 1)
    assert cancelled.cancelled()
