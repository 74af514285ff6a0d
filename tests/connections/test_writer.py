"""One connection's outbound queue: in order, bounded, without what is overtaken, and silent once it is stopped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from dash import Patch
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_quart_ws.callbacks.websocket import props_message
from dash_quart_ws.connections import writer as writer_module
from dash_quart_ws.connections.writer import Writer
from dash_quart_ws.wire import codec
from dash_quart_ws.wire.codec import Queued
from dash_quart_ws.wire.messages import CallbackResult, GetPropsRequest, HeartbeatAck, Outbound

from ..fakes import SlowReader, delivered_by_dash_worker


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
    by_hand: bool = True,
) -> Writer:
    return Writer(
        reader,
        max_bytes=max_bytes,
        max_messages=max_messages,
        keeps_order=keeps_order,
        on_overflow=overflow or Overflow(),
        on_not_taken=Overflow(),
        by_hand=by_hand,
    )


def unpacked(frames: list[str]) -> list[Any]:
    values = [json.loads(frame) for frame in frames]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


async def settled(writer: Writer) -> None:
    """Wait until the writer has nothing left to do."""
    while writer.busy:
        await asyncio.sleep(0)
    await writer.stopped()


async def test_the_first_message_goes_out_by_itself_and_what_arrives_meanwhile_together_in_order() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put(Queued("1"))
    await reader.received(1)
    for text in ("2", "3", "4"):
        writer.put(Queued(text))
    assert reader.frames == ["1"]
    reader.release()
    assert await reader.received(2) == ["1", "[2,3,4]"]
    await settled(writer)
    assert writer.waiting_bytes == 0


async def test_an_idle_writer_has_no_task_and_starts_again_when_there_is_something() -> None:
    reader = SlowReader()
    writer = writer_to(reader)
    before = asyncio.all_tasks()
    for number in range(3):
        writer.put(Queued(str(number)))
        await reader.received(number + 1)
        await settled(writer)
        assert asyncio.all_tasks() == before
    assert reader.frames == ["0", "1", "2"]


async def test_a_frame_is_no_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FRAME_BYTES", 5)
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put(Queued("0"))
    await reader.received(1)
    for text in ("11", "22", "33", "4444444444"):
        writer.put(Queued(text))
    reader.release()
    assert await reader.received(4) == ["0", "[11,22]", "33", "4444444444"]


async def test_a_reader_that_takes_nothing_overflows_once_and_gets_nothing_more() -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_messages=3, overflow=overflow)
    writer.put(Queued("0"))
    await reader.received(1)
    for number in range(1, 10):
        writer.put(Queued(str(number)))
    assert overflow.times == 1
    assert writer.waiting_bytes == 0
    reader.release()
    await settled(writer)
    assert reader.frames == ["0"]


@pytest.mark.parametrize("text", ["x" * 4000, "é" * 2000, "\U0001f512" * 1000])
async def test_memory_for_what_waits_stays_within_its_bound(text: str) -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_bytes=100_000, overflow=overflow)
    writer.put(Queued("0"))
    await reader.received(1)
    for _ in range(1000):
        writer.put(Queued(text))
        assert writer.waiting_bytes <= 100_000
    assert overflow.times == 1
    await settled(writer)


async def test_one_message_may_be_larger_than_the_bound_when_nothing_else_waits() -> None:
    reader, overflow = SlowReader(), Overflow()
    writer = writer_to(reader, max_bytes=1000, overflow=overflow)
    figure = json.dumps("x" * 100_000)
    writer.put(Queued(figure))
    assert await reader.received(1) == [figure]
    assert overflow.times == 0


async def test_what_was_put_before_the_end_of_a_frame_counts_again_as_room_after_it() -> None:
    reader, overflow = SlowReader(), Overflow()
    writer = writer_to(reader, max_messages=2, overflow=overflow)
    for number in range(50):
        writer.put(Queued(str(number)))
        await reader.received(number + 1)
    assert overflow.times == 0
    assert unpacked(reader.frames) == list(range(50))


async def test_stopping_drops_what_waits_and_takes_nothing_more() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put(Queued("0"))
    await reader.received(1)
    writer.put(Queued("1"))
    writer.stop()
    writer.put(Queued("2"))
    reader.release()
    await settled(writer)
    assert (reader.frames, writer.waiting_bytes) == (["0"], 0)


async def test_stopping_sends_nothing_that_still_waits() -> None:
    reader = SlowReader()
    writer = writer_to(reader)
    writer.put(Queued("0"))
    writer.put(Queued("1"))
    writer.stop()
    await settled(writer)
    writer.put(Queued("2"))
    await settled(writer)
    assert reader.frames == ["0"]


async def test_the_first_message_is_with_the_server_when_put_returns() -> None:
    reader = SlowReader()
    writer = writer_to(reader)
    writer.put(Queued("0"))
    assert reader.frames == ["0"]
    writer.put(Queued("1"))
    writer.put(Queued("2"))
    assert reader.frames == ["0"]  # these wait for the loop's next turn, to go out together
    await settled(writer)
    assert reader.frames == ["0", "[1,2]"]


async def test_a_client_that_hangs_up_ends_the_writing_and_no_task_fails() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    writer.put(Queued("0"))
    await reader.received(1)
    writer.put(Queued("1"))
    reader.hang_up()
    await settled(writer)
    writer.put(Queued("2"))
    await settled(writer)
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
                writer.put(Queued(str(number), is_update))
                number += 1
            await asyncio.sleep(0)
        await settled(writer)
        assert unpacked(reader.frames) == list(range(number))
        assert writer.waiting_bytes == 0

    asyncio.run(run())


# ------------------------------------------------------------------------------------------------ slow readers


def update(component: str, tab: str | None = "tab", /, **props: Any) -> Queued:
    return codec.queued(props_message(tab, component, props))


def appended(value: int) -> Patch:
    patch = Patch()
    patch.append(value)
    return patch


async def test_a_slow_reader_goes_on_with_the_latest_values_and_what_they_overtake_takes_no_room() -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_bytes=1_000_000, max_messages=5000, overflow=overflow)
    writer.put(update("bar", value=0))
    await reader.received(1)
    highest = 0
    for number in range(1, 20_001):
        writer.put(update("bar", value=number))
        writer.put(update("out", title="x" * 1000, n=number))
        highest = max(highest, writer.waiting_bytes)
    assert highest < 2 * writer_module.FRAME_BYTES
    reader.release()
    await settled(writer)
    assert overflow.times == 0
    assert writer.waiting_bytes == 0
    bars = [one["payload"]["props"]["value"] for one in unpacked(reader.frames) if "value" in one["payload"]["props"]]
    assert bars == sorted(bars)
    assert bars[-1] == 20_000
    assert unpacked(reader.frames)[-1]["payload"]["props"]["n"] == 20_000


async def test_a_reader_that_is_less_than_a_frame_behind_gets_every_update() -> None:
    reader = SlowReader(blocked=True)
    writer = writer_to(reader)
    for number in range(500):
        writer.put(update("bar", value=number))
    reader.release()
    await settled(writer)
    assert [one["payload"]["props"]["value"] for one in unpacked(reader.frames)] == list(range(500))


async def test_a_figure_that_waits_gives_its_room_to_the_next_one() -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_bytes=1_000_000, overflow=overflow)
    writer.put(Queued("0"))
    await reader.received(1)
    writer.put(Queued("1"))
    for number in range(5):
        writer.put(update("graph", figure=str(number) * 900_000))
        assert 900_000 < writer.waiting_bytes < 1_000_000
    assert overflow.times == 0
    reader.release()
    await settled(writer)
    assert unpacked(reader.frames)[-1]["payload"]["props"]["figure"] == "4" * 900_000


@pytest.mark.parametrize(
    "put",
    [
        lambda number: update("log", children=appended(number)),
        lambda number: update(f"row {number}", children="x"),
        lambda number: codec.queued(CallbackResult(str(number), "tab", "{}")),
        lambda number: codec.queued(GetPropsRequest(str(number), "tab", "out", ("title",))),
    ],
    ids=["patches", "as many components", "responses", "questions"],
)
@pytest.mark.parametrize("bounds", [{"max_bytes": 400_000, "max_messages": 10**6}, {"max_messages": 1000}])
async def test_what_must_not_be_left_out_overflows_as_soon_as_it_fills_the_bound(put: Any, bounds: Any) -> None:
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, overflow=overflow, **bounds)
    writer.put(Queued("0"))
    await reader.received(1)
    number, held, size = 0, 0, 0
    while not overflow.times:
        held, number = writer.waiting_bytes, number + 1
        message = put(number)
        size = message.text.__sizeof__()
        writer.put(message)
    assert writer.waiting_bytes == 0
    if "max_bytes" in bounds:
        assert held + size > bounds["max_bytes"]
    else:
        assert number == bounds["max_messages"] + 1
    await settled(writer)


async def test_a_queue_full_of_what_must_stay_overflows_also_if_one_of_a_thousand_may_go() -> None:
    """Otherwise each further message would have all others looked at."""
    reader, overflow = SlowReader(blocked=True), Overflow()
    writer = writer_to(reader, max_messages=1000, overflow=overflow)
    writer.put(Queued("0"))
    await reader.received(1)
    for number in range(999):
        writer.put(Queued(str(number)))
    writer.put(update("bar", value=1))
    assert overflow.times == 0
    writer.put(update("bar", value=2))
    assert overflow.times == 1
    await settled(writer)


class CannotPatchError(Exception):
    """What Dash's renderer throws at a `Patch` of a value that is not there."""


class ModelTab:
    """One tab, as far as `set_props` matters: `box.children` may hold the component `inner`, anew each time."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {"box": {}, "out": {}}

    def set_props(self, payload: dict[str, Any]) -> None:
        props = self.components.get(payload["componentId"])
        if props is None:
            return
        new: dict[str, Any] = {}
        for name, value in payload["props"].items():
            new[name] = value
            if isinstance(value, dict):
                if name not in props:
                    raise CannotPatchError
                new[name] = [props[name], value["operations"]]
        props |= new
        if payload["componentId"] == "box" and "children" in new:
            self.components.pop("inner", None)
            if new["children"] == "inner":
                self.components["inner"] = {}


class ModelBrowser:
    """Tabs, and a note of all that shows in which order things came."""

    def __init__(self) -> None:
        self.tabs = {"one": ModelTab(), "two": ModelTab()}
        self.seen: list[Any] = []

    def take(self, message: dict[str, Any]) -> None:
        kind, tab = message["type"], message.get("rendererId")
        if kind == "set_props":
            is_patch = "__dash_patch_update" in json.dumps(message)
            for name in [tab] if tab else self.tabs:
                try:
                    self.tabs[name].set_props(message["payload"])
                except CannotPatchError:
                    self.seen.append(("cannot patch", message))
                if is_patch:
                    self.seen.append((message, json.dumps(self.tabs[name].components, sort_keys=True)))
        elif tab:
            self.seen.append((message, json.dumps(self.tabs[tab].components, sort_keys=True)))
        else:
            self.seen.append(message)

    @property
    def state(self) -> Any:
        return {name: tab.components for name, tab in self.tabs.items()}


READ = "read"
TABS = st.sampled_from(["one", "two"])
WHOLE = st.sampled_from(["inner", "1", "2"])
PATCHES = st.integers(0, 9).map(appended)


def updates(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Outbound]:
    props = st.sampled_from([["children"], ["children", "title"]]).flatmap(
        lambda names: st.fixed_dictionaries(dict.fromkeys(names, values))
    )
    return st.builds(props_message, st.sampled_from([None, "one"]), st.sampled_from(["box", "inner"]), props)


NOT_UPDATES = st.one_of(
    st.builds(CallbackResult, st.uuids().map(str), TABS, st.just("{}")),
    st.builds(GetPropsRequest, st.uuids().map(str), TABS, st.just("out"), st.just(("title",))),
    st.just(HeartbeatAck()),
)


@given(
    st.lists(
        st.one_of(updates(WHOLE), updates(WHOLE), updates(WHOLE | PATCHES), NOT_UPDATES, st.just(READ)),
        min_size=4,
        max_size=40,
    ),
    st.sampled_from([1, 100, 1500]),
    st.sampled_from([3000, 10**6]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_slow_reader_ends_with_what_a_fast_one_has_and_sees_the_same_on_the_way(
    steps: list[Outbound | str], frame_bytes: int, max_bytes: int, keeps_order: bool
) -> None:
    async def run() -> None:
        reader, overflow = SlowReader(blocked=True), Overflow()
        writer = writer_to(reader, max_bytes=max_bytes, keeps_order=keeps_order, overflow=overflow)
        fast, slow = ModelBrowser(), ModelBrowser()
        for step in steps:
            if isinstance(step, str):
                reader.release()
                await asyncio.sleep(0)
                reader.hold()
                await asyncio.sleep(0)
            else:
                queued = codec.queued(step)
                fast.take(json.loads(queued.text))
                writer.put(queued)
                assert writer.waiting_bytes <= max_bytes
        reader.release()
        await settled(writer)
        if overflow.times:
            return
        for frame in reader.frames:
            for message in unpacked([frame]) if keeps_order else delivered_by_dash_worker(frame):
                slow.take(message)
        assert slow.seen == fast.seen
        assert slow.state == fast.state
        assert writer.waiting_bytes == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "FRAME_BYTES", frame_bytes)
        asyncio.run(run())


@pytest.mark.parametrize(
    ("props", "is_whole"),
    [
        ({"children": "text"}, True),
        ({"children": None, "title": ["a", {"b": 1}]}, True),
        ({"figure": appended(1)}, False),
        ({"title": "text", "figure": Patch()}, False),
        ({"figure": Patch().to_plotly_json()}, False),
    ],
)
def test_an_update_overtakes_others_only_with_whole_values(props: dict[str, Any], is_whole: bool) -> None:
    message = props_message("tab", {"type": "row", "index": 1}, props)
    assert message.sets == (('{"index":1,"type":"row"}', *props) if is_whole else None)


async def test_a_frame_that_waits_lets_go_of_the_server_when_the_writer_is_stopped_at_once() -> None:
    lock, handed_over = asyncio.Lock(), []

    async def send(text: str) -> None:
        async with lock:  # as servers have one around their writing and draining
            handed_over.append(text)
            await asyncio.Event().wait()

    writer = Writer(
        send, max_bytes=1000, max_messages=10, keeps_order=True, on_overflow=Overflow(), on_not_taken=Overflow()
    )
    writer.put(Queued("one"))
    writer.stop()  # before the event loop has had a turn
    await writer.stopped()
    assert handed_over == ["one"]
    assert not lock.locked()


@pytest.mark.parametrize("by_hand", [True, False])
async def test_nothing_is_handed_over_once_the_writer_has_been_stopped(by_hand: bool) -> None:
    reader = SlowReader()
    writer = writer_to(reader, by_hand=by_hand)
    writer.put(Queued("one"))
    writer.put(Queued("two"))
    handed_over = list(reader.frames)
    writer.stop()
    await settled(writer)
    assert reader.frames == handed_over


async def test_what_is_around_a_send_begins_and_ends_in_one_task_where_that_is_asked_for() -> None:
    tasks: list[tuple[Any, Any]] = []

    async def send(_: str) -> None:
        begun_in = asyncio.current_task()
        await asyncio.sleep(0)
        tasks.append((begun_in, asyncio.current_task()))

    writer = Writer(
        send, max_bytes=1000, max_messages=10, keeps_order=True, on_overflow=Overflow(), on_not_taken=Overflow(),
        by_hand=False,
    )  # fmt: skip
    for text in ("one", "two", "three"):
        writer.put(Queued(text))
    await settled(writer)
    assert len(tasks) == 2
    assert all(begun is not None and begun is ended for begun, ended in tasks)
