"""How fast a client may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws.connections.rate import TokenBucket


def test_a_burst_costs_nothing_and_the_message_after_it_waits_for_its_own_token_only() -> None:
    bucket = TokenBucket(per_second=10, burst=5)
    assert all(bucket.take(1, 100.0) <= 0 for _ in range(5))
    assert 0.099 < bucket.take(1, 100.0) < 0.101


def test_who_stays_within_the_rate_never_waits() -> None:
    bucket = TokenBucket(per_second=10, burst=1)
    assert all(bucket.take(1, 100 + number / 10) <= 1e-9 for number in range(1000))


def test_what_is_owed_is_paid_off_by_waiting_that_long() -> None:
    bucket = TokenBucket(per_second=10, burst=5)
    owed = bucket.take(1000, 100.0)
    assert 99.49 < owed < 99.51
    assert bucket.take(1, 100.0 + owed) > 0, "the bucket is empty now"
    assert bucket.take(1, 100.0 + owed + 0.2) <= 1e-9


def test_time_that_the_process_has_slept_does_not_count_against_the_client() -> None:
    bucket = TokenBucket(per_second=10, burst=20)
    assert bucket.take(20, 100.0) <= 0
    assert all(bucket.take(1, 3700.0) <= 0 for _ in range(20)), "all that has gathered in an hour comes at once"


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 10)), min_size=1, max_size=200),
)
def test_nobody_who_waits_as_told_sends_more_than_the_rate_and_one_burst(
    rate: int, burst: int, steps: list[tuple[int, float]]
) -> None:
    bucket, began, now, sent = TokenBucket(per_second=rate, burst=burst), 5.0, 5.0, 0
    for tokens, pause in steps:
        sent += tokens
        now += max(0.0, bucket.take(tokens, now))
        assert sent <= (now - began) * rate + burst + 1e-3
        now += pause
