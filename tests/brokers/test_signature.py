"""Signatures on what goes through a shared store."""

from __future__ import annotations

import pytest

from dash_quart_ws.brokers import signature
from dash_quart_ws.brokers.signature import Signer, claim


def test_what_was_signed_is_good_with_the_same_key_whether_text_or_bytes() -> None:
    signed = Signer("key").sign(b"purpose", b"one", b"two")
    assert Signer(b"key").is_good(signed, b"purpose", b"one", b"two")
    assert not Signer("other").is_good(signed, b"purpose", b"one", b"two")
    assert b" " not in signed


@pytest.mark.parametrize(
    "parts", [(b"other", b"one", b"two"), (b"purpose", b"on", b"etwo"), (b"purpose", b"onetwo"), (b"purpose",)]
)
def test_a_signature_is_for_one_purpose_and_one_division_of_the_text(parts: tuple[bytes, ...]) -> None:
    signer = Signer("key")
    assert not signer.is_good(signer.sign(b"purpose", b"one", b"two"), *parts)


def test_without_a_key_nothing_is_signed_and_anything_is_good() -> None:
    signer = Signer(None)
    assert signer.sign(b"purpose", b"text") == b"-"
    assert signer.is_good(b"whatever", b"purpose", b"text")
    assert signer.is_next(b"a", 5)
    assert signer.is_next(b"a", 5)
    assert not Signer("key").is_good(b"-", b"purpose", b"text")


def test_a_senders_numbers_only_grow_and_others_have_theirs() -> None:
    signer = Signer("key")
    assert [signer.is_next(b"a", number) for number in (1, 2, 2, 1, 7)] == [True, True, False, False, True]
    assert signer.is_next(b"b", 1)


def test_only_so_many_senders_are_remembered_and_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "SENDERS_KNOWN", 2)
    signer = Signer("key")
    for sender in (b"a", b"b", b"a", b"c"):
        signer.is_next(sender, 1 if sender != b"a" else len(signer._last) + 1)
    assert set(signer._last) == {b"a", b"c"}


def test_a_claim_is_the_same_for_the_same_secret_and_prefix_only_and_gives_neither_away() -> None:
    assert claim("secret", "app") == claim(b"secret", "app")
    assert len({claim("secret", "app"), claim("secret", "other"), claim("another", "app")}) == 3
    assert b"secret" not in claim("secret", "app")
