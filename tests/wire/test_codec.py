"""Text to messages and back: what a client may send, and what the browser can rely on getting."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dash_quart_ws.wire import codec, messages
from dash_quart_ws.wire.codec import Queued
from dash_quart_ws.wire.messages import Attach, CallbackRequest, Detach, GetPropsResponse, Heartbeat, Invalid

from ..fakes import delivered_by_dash_worker
from .strategies import ANY_JSON, ANY_TEXT, BAD, GOOD, NEARLY, as_text

INBOUND: list[dict[str, Any]] = json.loads((Path(__file__).parent / "inbound.json").read_text("utf-8"))
BRIDGE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "bridge.json").read_text("utf-8"))
"""Frames as our own browser code writes them: its tests read this file as well."""
OUTBOUND: list[dict[str, Any]] = json.loads((Path(__file__).parent / "outbound.json").read_text("utf-8"))


def describe(message: messages.Inbound) -> dict[str, Any]:
    """A message as the golden frames write it."""
    match message:
        case CallbackRequest(request_id, renderer_id, payload):
            kind = {"kind": "callback_request", "requestId": request_id, "rendererId": renderer_id}
            return {**kind, "output": message.output, "payload": payload}
        case GetPropsResponse(request_id, renderer_id, props, error):
            kind = {"kind": "get_props_response", "requestId": request_id, "rendererId": renderer_id}
            return {**kind, "props": props, **({} if error is None else {"error": error})}
        case Attach(renderer_id, page):
            return {"kind": "attach", "rendererId": renderer_id, "page": page}
        case Detach(renderer_id):
            return {"kind": "detach", "rendererId": renderer_id}
        case Heartbeat():
            return {"kind": "heartbeat"}
        case Invalid(reason, request_id, renderer_id, is_request):
            ids = {"requestId": request_id, "rendererId": renderer_id}
            return {"kind": "invalid", **ids, "isRequest": is_request, "reason": reason}


@pytest.mark.parametrize("frame", INBOUND, ids=[frame["name"] for frame in INBOUND])
def test_each_golden_frame_from_a_browser_decodes_as_it_is_written_down(frame: dict[str, Any]) -> None:
    text = frame["text"] * frame.get("times", 1)
    assert [describe(decoded.message) for decoded in codec.decode(text)] == frame["decoded"]


@pytest.mark.parametrize("frame", BRIDGE, ids=[frame["name"] for frame in BRIDGE])
def test_each_golden_frame_of_our_browser_code_is_what_json_stringify_makes_of_it_and_decodes(
    frame: dict[str, Any],
) -> None:
    assert json.dumps(frame["message"], separators=(",", ":"), ensure_ascii=False) == frame["text"]
    assert [describe(decoded.message) for decoded in codec.decode(frame["text"])] == frame["decoded"]


@pytest.mark.parametrize("frame", OUTBOUND, ids=[frame["name"] for frame in OUTBOUND])
def test_each_golden_message_to_a_browser_is_written_to_the_byte(frame: dict[str, Any]) -> None:
    assert codec.encode(message_of(frame["message"])) == frame["text"]


def message_of(written: dict[str, Any]) -> Any:
    """A message as the golden frames write it, as what it is."""
    as_it_was = {list: tuple, dict: message_of}
    fields = {name: as_it_was.get(type(value), lambda one: one)(value) for name, value in written.items()}
    return getattr(messages, fields.pop("class"))(**fields)


# ------------------------------------------------------------------------------------------------- inbound


@given(st.text(st.characters(exclude_categories=())))
@example("")
@example("[]")
@example("null")
@example('"\\ud800"')
@example("\ud800")
@example("NaN")
@example("1e999")
@example("9" * 5000)
@example("[" * 100_000)
@example('{"type":' * 100_000)
@example("[" * 1500 + "]" * 1500)
def test_any_text_at_all_decodes_to_at_least_one_message(text: str) -> None:
    decoded = codec.decode(text)
    assert decoded
    for message, source in decoded:
        assert isinstance(message, Attach | Detach | CallbackRequest | GetPropsResponse | Heartbeat | Invalid)
        assert source is None or isinstance(source, dict)


@given(ANY_JSON | NEARLY | st.lists(NEARLY, max_size=4))
@settings(max_examples=300)
def test_nearly_right_json_is_a_good_message_or_an_invalid_one_that_can_be_answered(value: Any) -> None:
    decoded = codec.decode(as_text(value))
    assert len(decoded) == (max(1, len(value)) if isinstance(value, list) else 1)
    for message, _ in decoded:
        # Whatever came in, an answer about it can be sent: the ids are strings that fit a frame.
        match message:
            case CallbackRequest(request_id, renderer_id, payload):
                assert isinstance(payload["output"], str)
                hash((renderer_id, request_id, message.output))
            case GetPropsResponse(request_id, renderer_id, props):
                assert isinstance(props, dict)
                hash((request_id, renderer_id))
            case Attach(renderer_id, page):
                assert isinstance(page, str)
                assert renderer_id
                codec.encode(messages.Attached(renderer_id, None))
            case Detach(renderer_id):
                assert renderer_id
                hash(renderer_id)
            case Invalid(reason, request_id, renderer_id, _):
                answer = json.loads(codec.encode(messages.Error(reason, request_id, renderer_id)))
                assert answer.get("requestId") == request_id
                assert len(reason) < 200


@given(st.lists(GOOD | BAD, min_size=1, max_size=6))
@settings(max_examples=200)
def test_every_good_message_of_an_array_survives_its_bad_neighbours(items: list[Any]) -> None:
    together = codec.decode(as_text(items))
    assert len(together) == len(items)
    for item, (message, source) in zip(items, together, strict=True):
        ((alone, source_alone),) = codec.decode(as_text(item) if isinstance(item, dict) else as_text([item]))
        assert type(message) is type(alone)
        assert same(as_numbers(source), as_numbers(source_alone))


def as_numbers(value: Any) -> Any:
    """JSON as JavaScript reads it: beyond 64 bits an integer is a float here or stays one, and means the same there."""
    if isinstance(value, dict):
        return {key: as_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_numbers(inner) for inner in value]
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


def test_an_array_is_as_long_as_a_thousand_messages_and_a_longer_one_is_a_single_bad_message() -> None:
    item = '{"type":"heartbeat"}'
    assert [one.message for one in codec.decode(f"[{','.join([item] * 1000)}]")] == [Heartbeat()] * 1000
    ((message, source),) = codec.decode(f"[{','.join([item] * 1001)}]")
    assert message == Invalid("an array of more than 1000 messages")
    assert source is None


@given(GOOD)
def test_a_good_message_is_never_called_invalid(item: dict[str, Any]) -> None:
    ((message, source),) = codec.decode(as_text(item))
    assert not isinstance(message, Invalid)
    assert source is not None
    assert source["type"] == item["type"]
    if isinstance(message, CallbackRequest):
        assert (message.request_id, message.renderer_id) == (item["requestId"], item["rendererId"])
        assert message.output == item["payload"]["output"]


@pytest.mark.parametrize("digits", [20, 40, 400, 4300, 4301, 100_000])
def test_a_huge_integer_hurts_at_most_the_message_that_it_is_in(digits: int) -> None:
    text = '[{"type":"heartbeat"},{"type":"strange","n":' + "7" * digits + '},{"type":"heartbeat"}]'
    first, strange, last = codec.decode(text)
    assert first.message == last.message == Heartbeat()
    assert isinstance(strange.message, Invalid)


def test_a_frame_nested_beyond_what_the_parser_takes_is_one_invalid_message_that_says_so() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 5000 + "]" * 5000):
        ((message, source),) = codec.decode(text)
        assert isinstance(message, Invalid)
        assert source is None


def test_a_request_that_is_nested_too_deeply_names_who_waits_for_it() -> None:
    head = '{"type":"callback_request","rendererId":"tab","requestId":"r1","payload":'
    ((message, _),) = codec.decode(f"{head}{'[' * 100_000}{']' * 100_000}}}")
    assert message == Invalid("nested too deeply", "r1", "tab", is_request=True)


def test_a_message_of_so_many_objects_that_reading_it_would_delay_everybody_is_not_read() -> None:
    head = (
        '{"type":"callback_request","rendererId":"tab","requestId":"r1","payload":{"output":"a.b","inputs":[],"state":'
    )
    few, many = codec.MOST_OBJECTS - 4, codec.MOST_OBJECTS - 3
    ((message, _),) = codec.decode(f"{head}[{','.join(['{}'] * few)}]}}}}")
    assert message == Invalid(
        "payload.state must be a list of objects with id and property", "r1", "tab", is_request=True
    )
    ((message, source),) = codec.decode(f"{head}[{','.join(['[]'] * many)}]}}}}")
    assert message == Invalid("more than 250000 objects and arrays", "r1", "tab", is_request=True)
    assert source is None
    ((message, _),) = codec.decode(f'{{"type":"heartbeat","rest":"{"x" * 2 * codec.MOST_OBJECTS}"}}')
    assert message == Heartbeat()


def test_an_invalid_message_never_repeats_a_value_that_may_be_a_secret() -> None:
    secret = "hunter2-hunter2"
    for item in (
        secret,
        [secret],
        {"type": "callback_request", "requestId": "1", "payload": secret},
        {"type": "callback_request", "requestId": "1", "payload": {"output": ["x", secret]}},
        {"type": "callback_request", "requestId": "1", "payload": {"output": "x", "inputs": secret}},
        {"type": "get_props_response", "requestId": "1", "payload": secret},
        {"type": "attach", "rendererId": "tab", "payload": secret},
        {"type": "attach", "rendererId": "tab", "payload": {"page": [secret]}},
        {"type": "detach", "rendererId": [secret]},
    ):
        for message, _ in codec.decode(as_text([item])):
            assert isinstance(message, Invalid)
            assert secret not in message.reason


# ------------------------------------------------------------------------------------------------- outbound

JSON_TEXT = ANY_JSON.map(as_text)
OUTBOUND_MESSAGES = st.one_of(
    st.builds(messages.CallbackResult, ANY_TEXT, ANY_TEXT, JSON_TEXT, st.none() | JSON_TEXT),
    st.builds(messages.CallbackUnchanged, ANY_TEXT, ANY_TEXT, st.none() | JSON_TEXT),
    st.builds(messages.CallbackFailed, ANY_TEXT, ANY_TEXT, ANY_TEXT, st.none() | JSON_TEXT),
    st.builds(messages.CallbackEffects, st.builds(messages.CallbackResult, ANY_TEXT, ANY_TEXT, JSON_TEXT), ANY_TEXT),
    st.builds(messages.CallbackEffects, st.builds(messages.CallbackFailed, ANY_TEXT, ANY_TEXT, ANY_TEXT), ANY_TEXT),
    st.builds(messages.SetProps, st.none() | ANY_TEXT, JSON_TEXT),
    st.builds(messages.Welcome, ANY_TEXT, st.none() | ANY_TEXT, st.integers(min_value=1), st.integers(min_value=0)),
    st.builds(messages.Attached, ANY_TEXT, st.none() | ANY_TEXT),
    st.builds(messages.Stale, ANY_TEXT),
    st.builds(messages.GetPropsRequest, ANY_TEXT, ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=3).map(tuple)),
    st.just(messages.HeartbeatAck()),
    st.builds(messages.Error, ANY_TEXT, st.none() | ANY_TEXT, st.none() | ANY_TEXT),
)


def as_object(message: messages.Outbound) -> dict[str, Any]:
    """The JSON object that a message is, in Dash's shapes: an account of its own, for comparison."""
    fields = dataclasses.asdict(message)
    ids = {
        name: fields[field]
        for name, field in (("rendererId", "renderer_id"), ("requestId", "request_id"))
        if fields.get(field) is not None
    }
    devtools = {} if fields.get("devtools") is None else {"devtools": json.loads(fields["devtools"])}
    match message:
        case messages.CallbackResult():
            payload: Any = {"status": "ok", "data": json.loads(message.data), **devtools}
            return {"type": "callback_response", **ids, "payload": payload}
        case messages.CallbackUnchanged():
            return {"type": "callback_response", **ids, "payload": {"status": "prevent_update", **devtools}}
        case messages.CallbackFailed():
            payload = {"status": "error", "message": message.message, **devtools}
            return {"type": "callback_response", **ids, "payload": payload}
        case messages.CallbackEffects():
            whole = as_object(message.outcome)
            return {**whole, "payload": {**whole["payload"], "effects": message.id}}
        case messages.SetProps():
            return {"type": "set_props", **ids, "payload": json.loads(message.payload)}
        case messages.GetPropsRequest():
            payload = {"componentId": message.component_id, "properties": list(message.properties)}
            return {"type": "get_props_request", **ids, "payload": payload}
        case messages.Welcome():
            payload = {
                "connection": message.connection, "session": message.session, "maxBytes": message.max_bytes,
                "heartbeat": message.heartbeat,
            }  # fmt: skip
            return {"type": "welcome", "payload": payload}
        case messages.Attached():
            return {"type": "session", **ids, "payload": {"session": message.session}}
        case messages.Stale():
            return {"type": "stale", **ids}
        case messages.HeartbeatAck():
            return {"type": "heartbeat_ack"}
        case messages.Error():
            return {"type": "error", **ids, "payload": {"message": message.message}}


def same(one: Any, other: Any) -> bool:
    return as_text(one) == as_text(other)  # NaN is not equal to itself


@given(OUTBOUND_MESSAGES)
@settings(max_examples=300)
def test_every_message_reads_back_as_what_was_said(message: messages.Outbound) -> None:
    text = codec.encode(message)
    assert same(json.loads(text), as_object(message))


@given(OUTBOUND_MESSAGES)
def test_every_message_fits_a_text_frame_also_with_lone_surrogates_in_it(message: messages.Outbound) -> None:
    text = codec.encode(message)
    assert text.encode("utf-8").decode("utf-8") == text


@given(st.text(st.characters(exclude_categories=())))
def test_every_string_comes_back_from_its_quotes(text: str) -> None:
    assert json.loads(codec.quote(text)) == text
    codec.quote(text).encode("utf-8")


# ------------------------------------------------------------------------------------------ frames of several


@st.composite
def queues(draw: st.DrawFn) -> list[Queued]:
    """Messages that are numbered in the order in which they were put."""
    queue = []
    for number, (is_update, padding) in enumerate(draw(st.lists(st.tuples(st.booleans(), st.integers(0, 90))))):
        kind = "set_props" if is_update else draw(st.sampled_from(["callback_response", "error", "heartbeat_ack"]))
        message = {"type": kind, "rendererId": "tab", "payload": {"n": number, "pad": "x" * padding}}
        queue.append(Queued(as_text(message), is_update))
    return queue


def frames_of(queue: list[Queued], frame_bytes: int, *, keeps_order: bool) -> list[list[Queued]]:
    rest, frames = deque(queue), []
    while rest:
        frames.append(codec.take(rest, frame_bytes=frame_bytes, keeps_order=keeps_order))
    return frames


@given(queues(), st.integers(1, 600), st.booleans())
def test_nothing_is_lost_doubled_or_reordered_on_its_way_into_frames(
    queue: list[Queued], frame_bytes: int, keeps_order: bool
) -> None:
    sent: list[Any] = []
    for frame in frames_of(queue, frame_bytes, keeps_order=keeps_order):
        value = json.loads(codec.join(frame))
        sent.extend(value if isinstance(value, list) else [value])
    assert sent == [json.loads(queued.text) for queued in queue]


@given(queues(), st.integers(1, 600), st.booleans())
def test_a_frame_of_several_messages_stays_within_its_bound(
    queue: list[Queued], frame_bytes: int, keeps_order: bool
) -> None:
    for frame in frames_of(queue, frame_bytes, keeps_order=keeps_order):
        if len(frame) > 1:
            assert len(codec.join(frame)) - len("[]") <= frame_bytes


@given(queues(), st.integers(1, 600))
def test_for_a_client_that_keeps_order_no_frame_ends_before_it_is_full(queue: list[Queued], frame_bytes: int) -> None:
    frames = frames_of(queue, frame_bytes, keeps_order=True)
    for frame, following in itertools.pairwise(frames):
        assert len(",".join(queued.text for queued in (*frame, following[0]))) > frame_bytes


@given(queues(), st.integers(1, 2000))
def test_dashs_own_worker_delivers_everything_in_the_order_in_which_it_was_sent(
    queue: list[Queued], frame_bytes: int
) -> None:
    delivered: list[Any] = []
    for frame in frames_of(queue, frame_bytes, keeps_order=False):
        delivered.extend(delivered_by_dash_worker(codec.join(frame)))
    assert [message["payload"]["n"] for message in delivered] == list(range(len(queue)))


def test_updates_that_come_first_share_a_frame_with_the_response_behind_them() -> None:
    update, response = Queued('{"type":"set_props"}', True), Queued('{"type":"callback_response"}', False)
    frames = frames_of([update, update, response, update], 1000, keeps_order=False)
    assert frames == [[update, update, response], [update]]


# ------------------------------------------------------------------------------------------- what is overtaken

BAR, LABEL = ("bar", "value"), ("bar", "label")


def of(tab: str | None, sets: tuple[str, ...] | None) -> Queued:
    return codec.queued(messages.SetProps(tab, "{}", sets))


def answer(tab: str) -> Queued:
    return codec.queued(messages.CallbackUnchanged("1", tab))


def question(tab: str) -> Queued:
    return codec.queued(messages.GetPropsRequest("1", tab, "bar", ("value",)))


@pytest.mark.parametrize(
    "between",
    [
        [],
        [of("a", LABEL)],
        [of("a", ("box", "children"))],
        [of("a", ("bar", "value", "label"))],
        [of("b", BAR)],
        [of(None, BAR)],
        [of("b", None)],
        [answer("b"), question("b")],
        [codec.queued(messages.HeartbeatAck())],
    ],
)
def test_a_later_update_overtakes_an_earlier_one_and_keeps_its_own_place(between: list[Queued]) -> None:
    first, last = of("a", BAR), of("a", BAR)
    kept = codec.conflate([first, *between, last])
    assert list(kept) == [*between, last]
    assert kept[-1] is last


@pytest.mark.parametrize(
    "between",
    [
        [of("a", None)],
        [of(None, None)],
        [answer("a")],
        [question("a")],
        [codec.queued(messages.Attached("a", None))],
        [codec.queued(messages.Error("bad", None, "a"))],
    ],
)
@pytest.mark.parametrize("tab", ["a", None])
def test_nothing_is_overtaken_across_what_shows_the_order_to_its_tab(tab: str | None, between: list[Queued]) -> None:
    queue = [of(tab, BAR), *between, of(tab, BAR)]
    assert list(codec.conflate(queue)) == queue


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (of("a", BAR), of("a", LABEL)),
        (of("a", BAR), of("b", BAR)),
        (of("a", BAR), of(None, BAR)),
        (of(None, BAR), of("a", BAR)),
        (of("a", BAR), of("a", ("bar", "value", "label"))),
        (of("a", ("bar", "value", "label")), of("a", BAR)),
        (of("a", BAR), of("a", ("other", "value"))),
        (of("a", None), of("a", BAR)),
        (of("a", None), of("a", None)),
        (answer("a"), answer("a")),
    ],
)
def test_only_an_update_of_exactly_the_same_overtakes(earlier: Queued, later: Queued) -> None:
    assert list(codec.conflate([earlier, later])) == [earlier, later]
