"""The replica: whoever it has called ended stays ended, whatever comes after, and it forgets only what nobody can meet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws.brokers.base import Ending, Revocation, Scope
from dash_quart_ws.sessions import revocations
from dash_quart_ws.sessions.revocations import Replica

if TYPE_CHECKING:
    import pytest

FOREVER = time.time() + 10**6


def single(id: str, position: int = 1, user: str | None = "alice", **options: Any) -> Revocation:
    return Revocation(Scope.SESSION, id, position, options.pop("expires", FOREVER), Ending.LOGGED_OUT, user=user)


def cutoff(position: int, user: str | None = "alice", *keep: str, expires: float = FOREVER) -> Revocation:
    scope = Scope.ALL if user is None else Scope.USER
    return Revocation(scope, user or "", position, expires, Ending.REVOKED, keep)


def ending_of(replica: Replica, id: str = "s", *, user: str = "alice", seen: int = 0) -> Ending | None:
    return replica.ending_of(id, {user}, seen)


def test_a_session_ends_for_the_reason_that_came_first() -> None:
    replica = Replica()
    assert ending_of(replica) is None
    assert replica.add(single("s"))
    assert not replica.add(Revocation(Scope.SESSION, "s", 2, FOREVER, Ending.EXPIRED))
    assert ending_of(replica) is Ending.LOGGED_OUT
    assert ending_of(replica, "another") is None


def test_a_users_sessions_end_by_position_and_not_by_the_clock() -> None:
    replica = Replica()
    replica.add(cutoff(10))
    assert [ending_of(replica, seen=seen) for seen in (0, 9, 10, 11)] == [Ending.REVOKED, Ending.REVOKED, None, None]
    assert ending_of(replica, user="bob") is None


def test_a_user_is_found_under_any_id_that_is_known() -> None:
    replica = Replica()
    replica.add(cutoff(10))
    assert replica.ending_of("s", {"Alice", "alice"}, 0) is Ending.REVOKED
    assert replica.ending_of("s", (), 0) is None


def test_no_user_is_called_like_everybody() -> None:
    replica = Replica()
    replica.add(cutoff(10, "all"))
    assert ending_of(replica, user="bob") is None
    replica.add(cutoff(10, None))
    assert ending_of(replica, user="bob") is Ending.REVOKED


def test_what_is_kept_is_kept_and_nothing_else() -> None:
    replica = Replica()
    replica.add(cutoff(10, "alice", "mine"))
    assert ending_of(replica, "mine") is None
    assert ending_of(replica, "other") is Ending.REVOKED


SESSIONS = ["a", "b", "c"]


@st.composite
def histories(draw: st.DrawFn) -> list[Revocation]:
    """What happens to one user's sessions, in order of position."""
    history = []
    for position in range(1, draw(st.integers(1, 25))):
        if draw(st.booleans()):
            history.append(single(draw(st.sampled_from(SESSIONS)) + str(position % 4), position))
        else:
            keep = draw(st.sets(st.sampled_from([f"{name}{n}" for name in SESSIONS for n in range(4)]), max_size=3))
            history.append(cutoff(position, "alice" if draw(st.booleans()) else None, *sorted(keep)))
    return history


@given(histories(), st.lists(st.tuples(st.sampled_from(SESSIONS), st.integers(0, 3), st.integers(0, 25)), min_size=1))
def test_nothing_that_has_ended_ever_comes_back(
    history: list[Revocation], sessions: list[tuple[str, int, int]]
) -> None:
    replica = Replica()
    over: set[tuple[str, int]] = set()
    for revocation in history:
        replica.add(revocation)
        known = revocation.position
        for name, number, seen in sessions:
            if seen >= known and f"{name}{number}" == revocation.subject:
                continue
            if ending_of(replica, f"{name}{number}", seen=seen) is not None:
                over.add((f"{name}{number}", seen))
        for id, seen in over:
            single_of_a_later_token = any(
                one.scope is Scope.SESSION and one.subject == id and one.position <= seen for one in history
            )
            # A token is minted before its session is revoked: one that has seen that revocation cannot exist.
            assert single_of_a_later_token or ending_of(replica, id, seen=seen) is not None


def test_single_sessions_that_were_ended_stay_so_when_they_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 10)
    replica = Replica()
    for position in range(1, 200):
        replica.add(single(f"s{position}", position))
        together = replica.compaction("alice")
        if together is not None:
            replica.add(together)
        for ended in range(1, position + 1):
            assert ending_of(replica, f"s{ended}", seen=ended - 1) is not None
        assert ending_of(replica, "now", seen=position) is None
    assert len(replica) <= 12


def test_putting_together_takes_nothing_back_that_a_later_cut_off_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 4)
    replica = Replica()
    for position in (1, 2, 3):
        replica.add(single(f"s{position}", position))
    replica.add(cutoff(4, "alice", "kept"))
    assert ending_of(replica, "other", seen=3) is Ending.REVOKED
    replica.add(single("s5", 5))
    together = replica.compaction("alice")
    assert together is not None
    replica.add(together)
    assert ending_of(replica, "other", seen=3) is Ending.REVOKED


def test_many_sign_outs_everywhere_else_stay_within_a_bound_and_let_nobody_back_in() -> None:
    replica = Replica()
    for position in range(1, 100):
        replica.add(cutoff(position, "alice", f"kept{position}"))
        assert ending_of(replica, "other", seen=position - 1) is Ending.REVOKED
        assert ending_of(replica, f"kept{position}", seen=position - 1) is None
    assert len(replica) <= revocations.CUTOFFS_PER_USER


def test_the_same_exception_many_times_over_is_still_an_exception() -> None:
    replica = Replica()
    replica.add(cutoff(1, "alice", "first"))
    for position in range(2, 50):
        replica.add(cutoff(position, "alice", "second"))
        assert ending_of(replica, "second", seen=1) is None
        assert ending_of(replica, "other", seen=position - 1) is Ending.REVOKED


def test_what_no_token_can_meet_any_more_is_forgotten_and_the_rest_is_not() -> None:
    replica = Replica()
    replica.add(single("old", 1, expires=100.0))
    replica.add(single("new", 2, expires=300.0))
    replica.add(cutoff(3, "bob", expires=100.0))
    replica.add(cutoff(4, "carol", expires=300.0))
    replica.prune(200.0)
    assert len(replica) == 2
    assert ending_of(replica, "old", user="nobody") is None
    assert ending_of(replica, "new", user="nobody") is Ending.LOGGED_OUT
    assert ending_of(replica, user="bob") is None
    assert ending_of(replica, user="carol") is Ending.REVOKED


def test_memory_is_given_back_without_anybody_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "PRUNE_EVERY", 10)
    replica = Replica()
    for position in range(1000):
        replica.add(single(f"s{position}", position, user=f"user{position}", expires=1.0))
    assert len(replica) <= 10


def test_ten_times_as_many_take_ten_times_as_long_to_take_in(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    class Counted(Replica):
        def prune(self, now: float) -> None:
            nonlocal looked_at
            looked_at += len(self)
            super().prune(now)

    monkeypatch.setattr(revocations, "PRUNE_EVERY", 10)
    replica = Counted()
    for number in range(5000):
        replica.add(single(f"s{number}"))
        replica.add(cutoff(number, f"user{number}"))
    assert len(replica) == 10_000
    assert 0 < looked_at < 4 * len(replica)


# ------------------------------------------------------------------- until a shared broker has given the true position


def test_until_its_position_is_known_a_cut_off_ends_what_it_does_not_keep_and_then_what_came_before_it() -> None:
    replica = Replica()
    assert replica.add_unsettled(cutoff(5, "alice", "kept"))
    assert ending_of(replica, seen=100) is Ending.REVOKED  # minted elsewhere, and perhaps before
    assert ending_of(replica, "kept", seen=0) is None
    assert ending_of(replica, user="bob", seen=0) is None
    assert replica.known() == []
    replica.add(cutoff(50, "alice", "kept"))
    assert ending_of(replica, seen=49) is Ending.REVOKED
    assert ending_of(replica, seen=50) is None
    assert replica.known() == [cutoff(50, "alice", "kept")]
    assert len(replica) == 1


def test_each_of_several_cut_offs_is_settled_by_its_own_position() -> None:
    replica = Replica()
    replica.add_unsettled(cutoff(5, "alice"))
    replica.add_unsettled(cutoff(6, "alice", "kept"))
    replica.add(cutoff(40, "alice", "another worker's"))
    replica.add(cutoff(50, "alice"))
    assert ending_of(replica, seen=100) is Ending.REVOKED
    assert ending_of(replica, "kept", seen=100) is None
    replica.add(cutoff(51, "alice", "kept"))
    assert ending_of(replica, seen=100) is None
    assert ending_of(replica, seen=50) is Ending.REVOKED


def test_a_session_stays_over_when_a_cut_off_comes_before_its_true_position_is_known() -> None:
    replica = Replica()
    assert replica.add_unsettled(single("s", 5))
    assert not replica.add_unsettled(single("s", 6))
    replica.add(cutoff(10))
    assert ending_of(replica, seen=20) is Ending.LOGGED_OUT  # minted after the cut-off, revoked after that
    assert not replica.add(single("s", 21))
    assert replica.known() == [single("s", 21), cutoff(10)]
    replica.add(cutoff(30))
    assert len(replica) == 1  # and now that covers it
    assert ending_of(replica, seen=20) is Ending.REVOKED


def test_many_sessions_become_no_cut_off_while_their_positions_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 4)
    replica = Replica()
    for number in range(6):
        replica.add_unsettled(single(f"s{number}", number))
    assert replica.compaction("alice") is None
    for number in range(4):
        replica.add(single(f"s{number}", 10 + number))
    compaction = replica.compaction("alice")
    assert compaction is not None
    assert compaction.position == 11


def test_what_was_never_settled_is_forgotten_when_no_token_can_meet_it() -> None:
    replica = Replica()
    replica.add_unsettled(cutoff(5, expires=10.0))
    replica.add_unsettled(single("s", expires=10.0))
    replica.prune(20.0)
    assert len(replica) == 0
    replica.add(single("s", 1))
    assert replica.known() == [single("s", 1)]
