"""Close codes: what a client may conclude from one, and what fits a close frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws.wire import close
from dash_quart_ws.wire.close import CloseCode

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize("code", CloseCode)
def test_every_code_may_be_sent_by_an_application(code: CloseCode) -> None:
    assert close.is_sendable(code)


def test_the_range_of_a_code_says_whether_a_client_comes_back() -> None:
    terminal = {code for code in CloseCode if close.is_terminal(code)}
    assert terminal == {
        CloseCode.CLOSED_BY_APP,
        CloseCode.LOGGED_OUT,
        CloseCode.EXPIRED,
        CloseCode.REVOKED,
        CloseCode.ABUSE,
    }
    assert all(4000 <= code < 4500 or code < 3000 for code in set(CloseCode) - terminal), "or is a registered one"


def test_the_codes_that_are_promised_have_their_numbers() -> None:
    promised = {
        "LOGGED_OUT": 4501,
        "EXPIRED": 4502,
        "REVOKED": 4503,
        "ABUSE": 4505,
        "RIGHTS_CHANGED": 4101,
        "SESSION_CHANGED": 4102,
        "TOO_SLOW": 4103,
        "BROKER_LOST": 4104,
        "TOO_MANY": 4105,
        "SILENT": 4106,
        "RESTART": 1012,
        "OVERLOADED": 1013,
    }
    assert {name: int(CloseCode[name]) for name in promised} == promised


@given(st.integers(0, 6000))
def test_dashs_own_worker_gets_the_one_code_on_which_it_stops_for_every_terminal_one(code: int) -> None:
    assert close.for_client(code, bridge=True) == code
    expected = 4001 if 4500 <= code <= 4999 else code
    assert close.for_client(code, bridge=False) == expected


@given(st.integers(-10, 70_000))
def test_only_codes_that_rfc_6455_leaves_to_applications_may_be_sent(code: int) -> None:
    reserved = {1004, 1005, 1006, 1015}
    allowed = (1000 <= code <= 1014 and code != 1002 and code not in reserved) or 3000 <= code <= 4999
    assert close.is_sendable(code) == allowed


@pytest.mark.parametrize("code", [None, "4001", 4001.0, True, [4001]])
def test_what_is_no_integer_is_no_code(code: object) -> None:
    assert not close.is_sendable(code)


@given(ANY_TEXT)
def test_a_reason_fits_a_close_frame_and_ends_between_two_characters(reason: str) -> None:
    cut = close.cut_reason(reason)
    assert len(cut.encode("utf-8")) <= 123
    # Python's own replacement for what UTF-8 cannot carry; all else is a prefix of what was said.
    assert reason.encode("utf-8", "replace").decode("utf-8").startswith(cut)


@given(st.text())
def test_a_reason_is_cut_no_more_than_it_has_to_be(reason: str) -> None:
    cut = close.cut_reason(reason)
    if cut != reason:
        assert len((cut + reason[len(cut)]).encode("utf-8")) > 123


def test_a_character_on_the_edge_is_left_out_whole() -> None:
    assert close.cut_reason("x" * 122 + "é") == "x" * 122
    assert close.cut_reason("x" * 121 + "é") == "x" * 121 + "é"
