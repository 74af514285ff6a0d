"""One connection's state machine: what a message means, and that nothing means anything after the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_quart_ws.wire.messages import (
    Attach,
    CallbackFailed,
    CallbackRequest,
    Detach,
    Error,
    GetPropsRequest,
    GetPropsResponse,
    Heartbeat,
    HeartbeatAck,
    Inbound,
    Invalid,
)
from dash_quart_ws.wire.protocol import NOT_ATTACHED, CheckPage, Drop, Protocol, Resolve, Run, Send, State

NAMES = st.sampled_from(["1", "2", "3"])
TABS = st.sampled_from(["", "left", "right"])
REQUESTS = st.builds(CallbackRequest, NAMES, TABS, st.just({"output": "out.children"}))
RESPONSES = st.builds(GetPropsResponse, NAMES, TABS, st.just({"value": 1}))
INVALID = st.builds(Invalid, st.just("no good"), st.none() | NAMES, st.none() | TABS, st.booleans())
ATTACHES = st.builds(Attach, TABS, st.just("page"))
DETACHES = st.builds(Detach, TABS)
INBOUND = st.one_of(REQUESTS, RESPONSES, INVALID, ATTACHES, DETACHES, st.just(Heartbeat()))


def request(request_id: str = "1", renderer_id: str = "tab") -> CallbackRequest:
    return CallbackRequest(request_id, renderer_id, {"output": "out.children"})


def question(request_id: str = "q", renderer_id: str = "tab") -> GetPropsRequest:
    return GetPropsRequest(request_id, renderer_id, "text", ("value",))


def answer(request_id: str = "q", renderer_id: str = "tab") -> GetPropsResponse:
    return GetPropsResponse(request_id, renderer_id, {"value": 1})


@given(
    st.lists(INBOUND, max_size=8),
    st.lists(INBOUND, min_size=1, max_size=8),
    st.integers(1000, 4999),
    st.sampled_from([None, 1, 64]),
)
def test_whatever_is_received_after_the_end_yields_nothing_at_all(
    before: list[Inbound], after: list[Inbound], code: int, max_renderers: int | None
) -> None:
    protocol = Protocol(max_renderers)
    protocol.ask(question("1", "left"))
    for message in before:
        action = protocol.receive(message)
        if isinstance(action, CheckPage):
            protocol.attached(action.renderer_id)
    assert protocol.end(code, "over")
    protocol.attached("left")  # the page was looked at when the end came
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


# ---------------------------------------------------------------------------------------------- tabs that attach


@given(
    st.lists(
        st.one_of(
            st.tuples(ATTACHES, st.sampled_from(["current", "stale", "ended meanwhile"])),
            st.tuples(REQUESTS | DETACHES | INVALID | RESPONSES, st.just("")),
            st.tuples(st.just("end"), st.just("")),
            st.tuples(st.just("finish all"), st.just("")),
        ),
        max_size=30,
    ),
    st.integers(1, 3),
)
@settings(max_examples=300)
def test_no_request_runs_for_a_tab_that_is_not_attached_whatever_comes_in_whichever_order(
    steps: list[tuple[Any, str]], max_renderers: int
) -> None:
    protocol = Protocol(max_renderers)
    attached: set[str] = set()
    running: list[CallbackRequest] = []
    ended = False
    for step, page in steps:
        if step == "end":
            protocol.end(4501, "logged out")
            attached, ended = set(), True
            continue
        if step == "finish all":
            for one in running:
                protocol.finished(one)
            running.clear()
            continue
        is_free = step not in running
        action = protocol.receive(step)
        match action:
            case Run(request):
                assert request.renderer_id in attached
                running.append(request)
            case CheckPage(renderer_id, _) if page == "current":
                protocol.attached(renderer_id)
                attached.add(renderer_id)
            case CheckPage(renderer_id, _) if page == "stale":
                assert protocol.detached(renderer_id) == (renderer_id in attached)
                attached.discard(renderer_id)
            case CheckPage(renderer_id, _):
                protocol.end(4102, "somebody has logged in")
                protocol.attached(renderer_id)
                attached, ended = set(), True
            case Drop(renderer_id):
                assert isinstance(step, Detach)
                attached.remove(renderer_id)
        if isinstance(step, CallbackRequest) and not ended:
            # And the other way round: a tab that is attached is refused nothing but a name that it uses already.
            assert isinstance(action, Run) == (step.renderer_id in attached and is_free)
            assert isinstance(action, Run | Send)
        assert len(attached) <= max_renderers
        assert not (ended and attached)


def attach(protocol: Protocol, renderer_id: str = "tab") -> None:
    assert protocol.receive(Attach(renderer_id, "page")) == CheckPage(renderer_id, "page")
    protocol.attached(renderer_id)


def test_a_request_of_a_tab_that_is_not_attached_is_answered_so_that_the_browser_stops_waiting() -> None:
    protocol = Protocol(2)
    attach(protocol, "other")
    refused = Send(CallbackFailed("1", "tab", NOT_ATTACHED), NOT_ATTACHED)
    assert protocol.receive(request()) == refused
    protocol.receive(Attach("tab", "page"))
    assert protocol.receive(request()) == refused, "the page is still to be looked at"
    protocol.attached("tab")
    assert protocol.receive(request()) == Run(request())


def test_a_tab_that_has_gone_is_dropped_once_and_asks_for_nothing_more() -> None:
    protocol = Protocol(2)
    attach(protocol)
    assert protocol.receive(Detach("tab")) == Drop("tab")
    assert protocol.receive(Detach("tab")) is None
    assert protocol.receive(request()) == Send(CallbackFailed("1", "tab", NOT_ATTACHED), NOT_ATTACHED)
    attach(protocol)
    assert protocol.receive(request()) == Run(request())


def test_attaching_twice_is_answered_twice() -> None:
    protocol = Protocol(1)
    attach(protocol)
    attach(protocol)
    assert protocol.receive(request()) == Run(request())


def test_one_tab_too_many_is_told_so_and_the_others_stay() -> None:
    protocol = Protocol(2)
    attach(protocol, "left")
    attach(protocol, "right")
    refused = protocol.receive(Attach("third", "page"))
    assert isinstance(refused, Send)
    assert refused.message == Error("Bad message: too many tabs on this connection", None, "third")
    for tab in ("left", "right"):
        assert protocol.receive(request("1", tab)) == Run(request("1", tab))
    protocol.receive(Detach("left"))
    attach(protocol, "third")


def test_a_tab_that_has_gone_answers_no_more_what_it_was_asked_before() -> None:
    protocol = Protocol(2)
    attach(protocol)
    protocol.ask(question())
    protocol.receive(Detach("tab"))
    assert_unwanted(protocol.receive(answer()))
    attach(protocol)
    assert_unwanted(protocol.receive(answer()))


@pytest.mark.parametrize("message", [Attach("tab", "page"), Detach("tab")])
def test_without_the_subprotocol_tabs_do_not_attach_and_need_not(message: Inbound) -> None:
    protocol = Protocol()
    assert_refused(protocol.receive(message))
    assert protocol.receive(request()) == Run(request())


def assert_refused(action: Any) -> None:
    assert isinstance(action, Send)
    assert isinstance(action.message, Error)
    assert action.complaint


def assert_unwanted(action: Any) -> None:
    """Answered, and no reason to complain: after a reconnect, answers to the connection before come in."""
    assert isinstance(action, Send)
    assert isinstance(action.message, Error)
    assert action.complaint is None
