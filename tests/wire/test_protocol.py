"""One connection's state machine: what a message means, and that nothing means anything after the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws.wire.messages import (
    CallbackFailed,
    CallbackRequest,
    Error,
    GetPropsRequest,
    GetPropsResponse,
    Heartbeat,
    HeartbeatAck,
    Inbound,
    Invalid,
)
from dash_quart_ws.wire.protocol import Protocol, Resolve, Run, Send, State

NAMES = st.sampled_from(["1", "2", "3"])
TABS = st.sampled_from(["", "left", "right"])
REQUESTS = st.builds(CallbackRequest, NAMES, TABS, st.just({"output": "out.children"}))
RESPONSES = st.builds(GetPropsResponse, NAMES, TABS, st.just({"value": 1}))
INVALID = st.builds(Invalid, st.just("no good"), st.none() | NAMES, st.none() | TABS, st.booleans())
INBOUND = st.one_of(REQUESTS, RESPONSES, INVALID, st.just(Heartbeat()))


def request(request_id: str = "1", renderer_id: str = "tab") -> CallbackRequest:
    return CallbackRequest(request_id, renderer_id, {"output": "out.children"})


def question(request_id: str = "q", renderer_id: str = "tab") -> GetPropsRequest:
    return GetPropsRequest(request_id, renderer_id, "text", ("value",))


def answer(request_id: str = "q", renderer_id: str = "tab") -> GetPropsResponse:
    return GetPropsResponse(request_id, renderer_id, {"value": 1})


@given(st.lists(INBOUND, max_size=8), st.lists(INBOUND, min_size=1, max_size=8), st.integers(1000, 4999))
def test_whatever_is_received_after_the_end_yields_nothing_at_all(
    before: list[Inbound], after: list[Inbound], code: int
) -> None:
    protocol = Protocol()
    protocol.ask(question("1", "left"))
    for message in before:
        protocol.receive(message)
    assert protocol.end(code, "over")
    for message in after:
        assert protocol.receive(message) is None
    protocol.ask(question("2", "left"))
    assert protocol.receive(answer("2", "left")) is None
    assert protocol.state is State.ENDED


def test_the_first_end_stands() -> None:
    protocol = Protocol()
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (State.OPEN, None, "")
    assert protocol.end(4501, "logged out")
    assert not protocol.end(4103, "too slow a reader")
    assert (protocol.close_code, protocol.close_reason) == (4501, "logged out")


def test_a_request_that_finishes_after_the_end_brings_nothing_back() -> None:
    protocol = Protocol()
    assert protocol.receive(request()) == Run(request())
    protocol.end(4501, "logged out")
    protocol.finished(request())
    assert protocol.receive(request()) is None


@given(st.lists(st.tuples(st.booleans(), REQUESTS), max_size=20))
def test_a_request_runs_exactly_when_none_of_its_name_is_running_in_its_tab(
    steps: list[tuple[bool, CallbackRequest]],
) -> None:
    protocol = Protocol()
    running: set[tuple[str, str]] = set()
    for finishes, one in steps:
        key = (one.renderer_id, one.request_id)
        if finishes:
            protocol.finished(one)
            running.discard(key)
            continue
        action = protocol.receive(one)
        if key in running:
            # An `error`, which settles nothing in the browser: the request that runs gets its own response.
            assert isinstance(action, Send)
            assert isinstance(action.message, Error)
            assert (action.message.request_id, action.message.renderer_id) == (one.request_id, one.renderer_id)
        else:
            assert action == Run(one)
            running.add(key)


def test_an_invalid_request_under_a_running_name_does_not_settle_the_one_that_runs() -> None:
    protocol = Protocol()
    protocol.receive(request("1", "tab"))
    action = protocol.receive(Invalid("no payload", "1", "tab", is_request=True))
    assert isinstance(action, Send)
    assert isinstance(action.message, Error)


def test_an_invalid_request_is_answered_so_that_the_browser_stops_waiting() -> None:
    action = Protocol().receive(Invalid("no payload", "1", "tab", is_request=True))
    assert action == Send(CallbackFailed("1", "tab", "Bad request: no payload"), "no payload")


def test_an_invalid_message_that_asked_for_nothing_gets_an_error_and_a_line_in_the_log() -> None:
    action = Protocol().receive(Invalid("not JSON"))
    assert action == Send(Error("Bad message: not JSON"), "not JSON")


def test_a_heartbeat_is_answered_and_not_complained_about() -> None:
    assert Protocol().receive(Heartbeat()) == Send(HeartbeatAck())


def test_the_tab_that_was_asked_may_answer_once() -> None:
    protocol = Protocol()
    protocol.ask(question())
    assert protocol.receive(answer()) == Resolve("q", {"value": 1})
    assert_unwanted(protocol.receive(answer()))


@pytest.mark.parametrize(("request_id", "renderer_id"), [("q", "other tab"), ("q", ""), ("guessed", "tab")])
def test_nobody_answers_for_the_tab_that_was_asked(request_id: str, renderer_id: str) -> None:
    protocol = Protocol()
    protocol.ask(question())
    assert_unwanted(protocol.receive(answer(request_id, renderer_id)))
    assert protocol.receive(answer()) == Resolve("q", {"value": 1})


def test_an_answer_that_nobody_waits_for_any_more_is_refused() -> None:
    protocol = Protocol()
    protocol.ask(question())
    protocol.forget("q")
    assert_unwanted(protocol.receive(answer()))


def test_two_connections_share_no_names() -> None:
    one, other = Protocol(), Protocol()
    one.ask(question())
    one.receive(request())
    assert_unwanted(other.receive(answer()))
    assert other.receive(request()) == Run(request())


def assert_refused(action: Any) -> None:
    assert isinstance(action, Send)
    assert isinstance(action.message, Error)
    assert action.complaint


def assert_unwanted(action: Any) -> None:
    """Answered, and no reason to complain: after a reconnect, answers to the connection before come in."""
    assert isinstance(action, Send)
    assert isinstance(action.message, Error)
    assert action.complaint is None
