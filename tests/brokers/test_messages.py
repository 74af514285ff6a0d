"""What is said through a broker arrives as it was said; anything else is refused when it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws.brokers.base import Target, TargetKind
from dash_quart_ws.brokers.messages import Close, Closed, Push, RightsChanged, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

paths = st.none() | st.text()


@given(st.builds(Push, st.text(), st.none() | st.lists(st.text()).map(tuple), paths))
def test_a_push_arrives_as_it_was_sent(push: Push) -> None:
    assert Push.of_text(push.text()) == push


@given(st.builds(Target, st.sampled_from(TargetKind), st.text()), st.integers(1000, 4999), st.text(), paths)
def test_a_close_arrives_as_it_was_asked_for(target: Target, code: int, reason: str, path: str | None) -> None:
    close = Close(target, code, reason, path)
    assert Close.of_json(json.loads(json.dumps(close.json()))) == close


@given(st.integers(0), st.floats(0, allow_infinity=False))
def test_what_was_closed_arrives_as_it_was_answered(connections: int, slowest_ms: float) -> None:
    closed = Closed(connections, slowest_ms)
    assert Closed.of_json(json.loads(json.dumps(closed.json()))) == closed


@given(st.builds(Subscription, st.text(), st.booleans()))
def test_a_subscription_arrives_as_it_was_sent_and_is_no_push(subscription: Subscription) -> None:
    assert Subscription.of_text(subscription.text()) == subscription
    with pytest.raises(KeyError):
        Push.of_text(subscription.text())


@given(st.text())
def test_a_change_of_rights_arrives_as_it_was_asked_for_and_is_no_close(user: str) -> None:
    question = json.loads(json.dumps(RightsChanged(user).json()))
    assert RightsChanged.of_json(question) == RightsChanged(user)
    with pytest.raises(KeyError):
        Close.of_json(question)


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (Push.of_text, "no JSON"),
        (Push.of_text, "[]"),
        (Push.of_text, '{"sets": null, "path": null}'),
        (Push.of_text, '{"payload": "{}", "sets": 1, "path": null}'),
        (Close.of_json, None),
        (Close.of_json, {"close": ["everyone", ""], "code": 4500, "reason": "", "path": None}),
        (Close.of_json, {"close": ["all"], "code": 4500, "reason": "", "path": None}),
        (Close.of_json, {"close": ["all", ""], "reason": "", "path": None}),
        (Subscription.of_text, '{"topic": "news"}'),
        (RightsChanged.of_json, {"user": "alice"}),
        (Closed.of_json, "1"),
        (Closed.of_json, {"connections": 1}),
    ],
)
def test_what_nobody_here_has_written_is_refused(read: Callable[[Any], object], what: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        read(what)
