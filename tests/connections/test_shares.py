"""What may be in flight: nobody has all of it, and what is given back is there again."""

from __future__ import annotations

import gc

from dash_quart_ws.connections.shares import Share, Shares


def taken(share: Share, size: int = 0, at_most: int = 1000) -> int:
    """How often something could be taken."""
    return next((number for number in range(at_most) if not share.take(size)), at_most)


def test_one_user_has_a_quarter_and_leaves_the_rest_to_others() -> None:
    shares = Shares(callbacks=40, callback_bytes=1000)
    assert taken(shares.of("user mallory")) == 10
    assert taken(shares.of("user alice")) == 10


def test_several_users_together_have_no_more_than_there_is() -> None:
    shares = Shares(callbacks=40, callback_bytes=1000)
    users = [shares.of(f"user {number}") for number in range(6)]
    assert [taken(user) for user in users] == [10, 10, 10, 10, 0, 0]
    users[0].give_back()
    assert taken(users[5]) == 1


def test_however_many_addresses_come_without_a_login_users_have_their_half() -> None:
    shares = Shares(callbacks=40, callback_bytes=1000)
    addresses = [shares.of(f"address 10.0.0.{number}") for number in range(9)]
    assert [taken(address) for address in addresses] == [10, 10, *[0] * 7]
    assert taken(shares.of("user alice")) == 10
    addresses[0].give_back()
    assert taken(addresses[8]) == 1


def test_large_ones_count_by_their_size() -> None:
    shares = Shares(callbacks=1000, callback_bytes=4000)
    mallory = shares.of("user mallory")
    assert taken(mallory, 600) == 2, "the second begins below the bound, and may go beyond it"
    assert taken(mallory, 1) == 0
    assert taken(shares.of("user alice"), 600) == 2
    mallory.give_back(600)
    assert taken(mallory, 100) == 4


def test_one_callback_may_be_as_large_as_it_is() -> None:
    shares = Shares(callbacks=1000, callback_bytes=4000)
    alice = shares.of("user alice")
    assert alice.take(100_000)
    assert not alice.take(0)
    alice.give_back(100_000)
    assert alice.take(0)


def test_what_turns_out_to_be_larger_counts_from_then_on() -> None:
    shares = Shares(callbacks=1000, callback_bytes=4000)
    alice = shares.of("user alice")
    assert alice.take()
    alice.grow(2000)
    assert not alice.take()
    alice.give_back(2000)
    assert (alice.count, shares.everybody.count, shares.everybody.bytes) == (0, 0, 0)


def test_who_comes_back_finds_what_they_have_left_behind() -> None:
    shares = Shares(callbacks=40, callback_bytes=1000)
    before = shares.of("user mallory")
    assert taken(before) == 10
    assert taken(shares.of("user mallory")) == 0


def test_nothing_is_kept_of_who_has_gone() -> None:
    shares = Shares(callbacks=40, callback_bytes=1000)
    for number in range(100):
        shares.of(f"user {number}").take()
    gc.collect()
    assert len(shares._by_payer) == 0
