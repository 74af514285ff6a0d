"""What threads give to the event loop arrives there, in order, and a thread that gives too much has to wait."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.connections import handover
from dash_quart_ws.connections.handover import LOOK_EVERY, Handover

if TYPE_CHECKING:
    from collections.abc import Callable

both = pytest.mark.parametrize("look_every", [LOOK_EVERY, None])


class Loop:
    """Counts how often threads have woken the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.woken = 0

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.woken += 1
        self._loop.call_soon_threadsafe(callback)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@both
async def test_all_that_several_threads_put_arrives_once_and_in_each_threads_order(look_every: float | None) -> None:
    taken: list[tuple[int, int]] = []
    items = Handover(asyncio.get_running_loop(), taken.append, look_every=look_every)

    def put(thread: int) -> None:
        for number in range(5000):
            items.put((thread, number))

    await asyncio.gather(*(asyncio.to_thread(put, thread) for thread in range(3)))
    await until(lambda: len(taken) == 15_000)
    for thread in range(3):
        assert [number for one, number in taken if one == thread] == list(range(5000))
    assert len(items) == 0


@both
async def test_items_that_come_one_by_one_are_all_taken(look_every: float | None) -> None:
    taken: list[int] = []
    items = Handover(asyncio.get_running_loop(), taken.append, look_every=look_every)
    for number in range(50):
        await asyncio.to_thread(items.put, number)
        await until(lambda: len(taken) == number + 1)  # noqa: B023 - awaited within the same round


@both
async def test_the_loop_is_woken_once_for_what_comes_together(look_every: float | None) -> None:
    taken: list[int] = []
    loop = Loop()
    items = Handover(loop, taken.append, look_every=look_every)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: [items.put(number) for number in range(100)])
    thread.start()
    thread.join()  # the loop can take nothing meanwhile
    await until(lambda: len(taken) == 100)
    assert loop.woken == 1


async def test_a_thread_that_is_faster_than_the_loop_waits_for_it() -> None:
    taken: list[int] = []
    items = Handover(asyncio.get_running_loop(), taken.append)
    thread = threading.Thread(target=lambda: [items.put(number) for number in range(10 * handover.MOST_WAITING)])
    thread.start()
    thread.join(0.2)  # time enough for all, if it did not wait
    assert thread.is_alive()
    assert len(items) == handover.MOST_WAITING + 1
    await until(lambda: not thread.is_alive())
    await until(lambda: len(taken) == 10 * handover.MOST_WAITING)


async def test_a_thread_waits_until_its_large_item_has_been_taken() -> None:
    taken: list[int] = []
    items = Handover(asyncio.get_running_loop(), taken.append)
    thread = threading.Thread(target=lambda: items.put(1, is_large=True))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    await until(lambda: not thread.is_alive())
    assert taken == [1]


async def test_a_thread_gives_way_to_the_loop_for_the_first_of_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "GIVES_WAY", 20.0)
    taken: list[int] = []
    items = Handover(asyncio.get_running_loop(), taken.append)
    taken_by_then: list[list[int]] = []
    thread = threading.Thread(target=lambda: (items.put(1), taken_by_then.append(taken.copy())))
    thread.start()
    thread.join(0.05)  # the loop can take nothing meanwhile
    assert thread.is_alive()
    await until(lambda: not thread.is_alive())
    assert taken_by_then == [[1]]


async def test_a_thread_does_not_wait_long_for_a_loop_that_is_busy() -> None:
    items: Handover[int] = Handover(asyncio.get_running_loop(), lambda _: None)
    thread = threading.Thread(target=items.put, args=(1,))
    thread.start()
    thread.join(20)  # the loop can take nothing meanwhile
    assert not thread.is_alive()
    await until(lambda: not len(items))


async def test_what_waits_can_be_taken_before_something_that_must_not_overtake_it() -> None:
    taken: list[int] = []
    items = Handover(asyncio.get_running_loop(), taken.append)
    thread = threading.Thread(target=lambda: [items.put(number) for number in range(3)])
    thread.start()
    thread.join()
    items.take()
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_thread_that_waits_for_a_loop_that_has_stopped_goes_on(
    is_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.01)
    loop = asyncio.new_event_loop()
    items: Handover[int] = Handover(loop, lambda _: None)
    thread = threading.Thread(target=lambda: [items.put(number) for number in range(10 * handover.MOST_WAITING)])

    async def busy() -> None:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()

    loop.run_until_complete(busy())
    if is_closed:
        loop.close()
    thread.join(20)
    assert not thread.is_alive()
    loop.close()


async def test_an_item_that_cannot_be_taken_keeps_nobody_elses_back() -> None:
    loop = asyncio.get_running_loop()
    troubles: list[BaseException | None] = []
    loop.set_exception_handler(lambda _, what: troubles.append(what.get("exception")))
    taken: list[str] = []

    def take(item: str) -> None:
        if item == "bad":
            raise LookupError(item)
        taken.append(item)

    handover = Handover(loop, take)

    def put_all() -> None:
        for item in ("first", "bad", "last"):
            handover.put(item)

    await asyncio.to_thread(put_all)
    async with asyncio.timeout(10):
        while "last" not in taken:
            await asyncio.sleep(0)
    assert taken == ["first", "last"]
    assert [type(trouble) for trouble in troubles] == [LookupError]
