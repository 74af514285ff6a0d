"""One connection's outbound queue: in order, bounded, and silent once it is stopped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_quart_ws.connections import writer as writer_module
from dash_quart_ws.connections.writer import Writer

from ..fakes import SlowReader


class Overflow:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def writer_to(
    reader: SlowReader,
    *,
    max_bytes: int = 10**6,
    max_messages: int = 1000,
    keeps_order: bool = True,
    overflow: Overflow | None = None,
) -> Writer:
    return Writer(
        reader,
        max_bytes=max_bytes,
        max_messages=max_messages,
        keeps_order=keeps_order,
        on_overflow=overflow or Overflow(),
    )


def unpacked(frames: list[str]) -> list[Any]:
    values = [json.loads(frame) for frame in frames]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


async def test_the_first_message_goes_out_by_itself_and_what_arrives_meanwhile_together_in_order() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put("1")
    await reader.received(1)
    for text in ("2", "3", "4"):
        writer.put(text)
    assert reader.frames == ["1"]
    reader.release()
    assert await reader.received(2) == ["1", "[2,3,4]"]
    await writer.stopped()
    assert writer.waiting_bytes == 0


async def test_an_idle_writer_has_no_task_and_starts_again_when_there_is_something() -> None:
    reader = SlowReader()
    writer = writer_to(reader)
    before = asyncio.all_tasks()
    for number in range(3):
        writer.put(str(number))
        await reader.received(number + 1)
        await writer.stopped()
        assert asyncio.all_tasks() == before
    assert reader.frames == ["0", "1", "2"]


async def test_a_frame_is_no_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FRAME_BYTES", 5)
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put("0")
    await reader.received(1)
    for text in ("11", "22", "33", "4444444444"):
        writer.put(text)
    reader.release()
    assert await reader.received(4) == ["0", "[11,22]", "33", "4444444444"]


async def test_a_reader_that_takes_nothing_overflows_once_and_gets_nothing_more() -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_messages=3, overflow=overflow)
    writer.put("0")
    await reader.received(1)
    for number in range(1, 10):
        writer.put(str(number))
    assert overflow.times == 1
    assert writer.waiting_bytes == 0
    reader.release()
    await writer.stopped()
    assert reader.frames == ["0"]


@pytest.mark.parametrize("text", ["x" * 4000, "é" * 2000, "\U0001f512" * 1000])
async def test_memory_for_what_waits_stays_within_its_bound(text: str) -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_bytes=100_000, overflow=overflow)
    writer.put("0")
    await reader.received(1)
    for _ in range(1000):
        writer.put(text)
        assert writer.waiting_bytes <= 100_000
    assert overflow.times == 1
    await writer.stopped()


async def test_one_message_may_be_larger_than_the_bound_when_nothing_else_waits() -> None:
    reader, overflow = SlowReader(), Overflow()
    writer = writer_to(reader, max_bytes=1000, overflow=overflow)
    figure = json.dumps("x" * 100_000)
    writer.put(figure)
    assert await reader.received(1) == [figure]
    assert overflow.times == 0


async def test_what_was_put_before_the_end_of_a_frame_counts_again_as_room_after_it() -> None:
    reader, overflow = SlowReader(), Overflow()
    writer = writer_to(reader, max_messages=2, overflow=overflow)
    for number in range(50):
        writer.put(str(number))
        await reader.received(number + 1)
    assert overflow.times == 0
    assert unpacked(reader.frames) == list(range(50))


async def test_stopping_drops_what_waits_and_takes_nothing_more() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put("0")
    await reader.received(1)
    writer.put("1")
    writer.stop()
    writer.put("2")
    reader.release()
    await writer.stopped()
    assert (reader.frames, writer.waiting_bytes) == (["0"], 0)


async def test_stopping_before_the_first_frame_sends_nothing_at_all() -> None:
    reader = SlowReader()
    writer = writer_to(reader)
    writer.put("0")
    writer.stop()
    await writer.stopped()
    assert reader.frames == []


async def test_a_client_that_hangs_up_ends_the_writing_and_no_task_fails() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put("0")
    await reader.received(1)
    writer.put("1")
    reader.hang_up()
    await writer.stopped()
    writer.put("2")
    await writer.stopped()
    assert (reader.frames, writer.waiting_bytes) == (["0"], 0)


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=8), st.booleans())
@settings(max_examples=50, deadline=None)
def test_however_messages_and_sends_interleave_everything_arrives_once_and_in_order(
    bursts: list[list[bool]], keeps_order: bool
) -> None:
    async def run() -> None:
        reader = SlowReader()
        writer = writer_to(reader, keeps_order=keeps_order)
        number = 0
        for burst in bursts:
            for is_update in burst:
                writer.put(str(number), is_update=is_update)
                number += 1
            await asyncio.sleep(0)
        while writer._flushing is not None:
            await writer.stopped()
        assert unpacked(reader.frames) == list(range(number))
        assert writer.waiting_bytes == 0

    asyncio.run(run())
