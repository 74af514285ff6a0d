"""An outcome of something that is already done: for as many as ask, wherever they are."""

from __future__ import annotations

import asyncio

import pytest

from dash_quart_ws.connections.receipt import Pending


async def test_everybody_who_awaits_an_outcome_gets_it_before_and_after_it_is_known() -> None:
    pending: Pending[int] = Pending()

    async def ask() -> int:
        return await pending

    early = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not pending.done()
    pending.resolve(7)
    assert await asyncio.gather(*early) == [7, 7, 7]
    assert await pending == 7
    assert pending.result(0) == 7


async def test_an_outcome_may_be_awaited_on_another_event_loop() -> None:
    pending: Pending[int] = Pending()

    async def ask() -> int:
        return await pending

    elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, ask()))
    await asyncio.sleep(0)
    pending.resolve(7)
    assert await elsewhere == 7


async def test_the_first_outcome_stands() -> None:
    pending: Pending[int] = Pending()
    pending.resolve(1)
    pending.resolve(2)
    assert await pending == 1


async def test_somebody_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    pending: Pending[int] = Pending()

    async def ask() -> int:
        return await pending

    patient, hasty = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.wait({hasty})
    assert not pending.done()
    pending.resolve(7)
    assert await patient == 7
    assert pending.result(0) == 7


async def test_an_outcome_can_be_asked_for_again_after_a_timeout() -> None:
    pending: Pending[int] = Pending()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await pending
    pending.resolve(7)
    assert await pending == 7


def test_in_a_thread_a_timeout_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        Pending[int]().result(0)


async def test_delivery_is_told_when_somebody_gets_the_outcome_and_not_when_it_is_known() -> None:
    pending: Pending[int] = Pending()
    told: list[str] = []
    pending.when_delivered(lambda: told.append("delivered"))
    pending.add_done_callback(lambda future: told.append(f"known {future.result()}"))
    pending.resolve(7)
    assert told == ["known 7"]
    assert await pending == 7
    assert told == ["known 7", "delivered"]


async def test_what_could_not_be_done_is_raised_wherever_somebody_asks() -> None:
    pending: Pending[int] = Pending()
    early = asyncio.create_task(_outcome_of(pending))
    await asyncio.sleep(0)
    pending.fail(LookupError("gone"))
    pending.fail(ValueError("too late"))
    pending.resolve(7)
    with pytest.raises(LookupError, match="gone"):
        await early
    with pytest.raises(LookupError, match="gone"):
        pending.result(0)


async def _outcome_of(pending: Pending[int]) -> int:
    return await pending
