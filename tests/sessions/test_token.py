"""The session id inside quart-auth's token: who is given one, and what of it may be seen."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from quart import Quart
from quart_auth import QuartAuth

from dash_quart_ws.sessions.token import SID_BYTES, Token, new_sid, serializer_class

from ..fakes import Clock
from .site import SECRET, plain_token, spellings


class Records:
    """Who keeps the sessions, as far as a serializer asks: stamps new ones, and remembers what it was shown."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.read: list[Token] = []
        self.too_old = 0

    def stamp(self, _extension: QuartAuth, auth_id: Any) -> Token:
        now = time.time()
        return Token(auth_id, new_sid(), now, 5, now)

    def admit(self, _extension: QuartAuth, token: Token) -> bool:
        self.read.append(token)
        return token.id not in self.ended

    def expired(self, _extension: QuartAuth) -> None:
        self.too_old += 1


def serializer(records: Records, secret: Any = SECRET, salt: Any = "quart auth salt", **options: Any) -> Any:
    extension = QuartAuth(Quart("token"), **options)
    return serializer_class(extension, records)(secret, salt)


JSON_IDS = st.text(max_size=30) | st.integers(-(2**53), 2**53)


@given(JSON_IDS)
def test_a_token_says_who_it_was_made_for_and_names_its_session(auth_id: Any) -> None:
    records = Records()
    signs = serializer(records)
    token = signs.dumps(auth_id)
    assert signs.loads(token, max_age=100) == auth_id
    (read,) = records.read
    assert (read.auth_id, read.seen, len(read.sid)) == (auth_id, 5, SID_BYTES)


@given(st.text(max_size=200))
def test_text_that_nobody_signed_is_a_bad_signature_and_nothing_worse(text: str) -> None:
    with pytest.raises(BadSignature):
        serializer(Records()).loads(text, max_age=100)


@given(st.integers(0, 400), st.integers(0, 5))
def test_a_token_with_one_character_changed_is_either_bad_or_the_same_session(place: int, letter: int) -> None:
    records = Records()
    signs = serializer(records)
    token = signs.dumps("alice")
    place %= len(token)
    changed = token[:place] + "aZ0-_."[letter] + token[place + 1 :]
    try:
        signs.loads(changed, max_age=100)
    except BadSignature:
        return
    signs.loads(token, max_age=100)
    one, other = records.read
    assert one == other
    assert changed in spellings(token)


def test_the_public_id_of_a_session_gives_its_secret_away_to_nobody() -> None:
    token = Records().stamp(QuartAuth(), "alice")
    assert token.sid.hex() not in token.id
    assert len(token.id) == 32
    assert int(token.id, 16) >= 0


def test_no_two_sessions_have_the_same_id() -> None:
    assert len({new_sid() for _ in range(1000)}) == 1000


def test_an_ended_session_makes_its_token_a_bad_one() -> None:
    records = Records()
    signs = serializer(records)
    token = signs.dumps("alice")
    assert signs.loads(token) == "alice"
    records.ended.add(records.read[0].id)
    with pytest.raises(BadSignature):
        signs.loads(token)


@pytest.mark.parametrize("salt", ["quart auth salt", b"quart auth salt"])
def test_nobody_reads_our_tokens_without_our_salt(salt: Any) -> None:
    token = serializer(Records(), salt=salt).dumps("alice")
    with pytest.raises(BadSignature):
        QuartAuth.serializer_class(SECRET, "quart auth salt").loads(token)


def test_a_plain_token_is_the_same_session_in_all_its_spellings_and_another_ones_at_another_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(1_800_000_000.0).install(monkeypatch)
    records = Records()
    signs = serializer(records)
    first = plain_token("alice")
    clock.advance(1)
    for token in (*spellings(first), plain_token("alice"), plain_token("bob")):
        signs.loads(token, max_age=100)
    ids = [token.id for token in records.read]
    assert len(set(ids[:16])) == 1
    assert len(set(ids)) == 3
    assert records.read[0].login_at == 1_800_000_000.0
    assert records.read[0].seen == 0


@pytest.mark.parametrize("make", ["ours", "plain"])
def test_a_token_that_is_too_old_is_reported_as_that(monkeypatch: pytest.MonkeyPatch, make: str) -> None:
    clock = Clock(1_800_000_000.0).install(monkeypatch)
    records = Records()
    signs = serializer(records)
    token = signs.dumps("alice") if make == "ours" else plain_token("alice")
    clock.advance(101)
    with pytest.raises(SignatureExpired):
        signs.loads(token, max_age=100)
    assert records.too_old == 1


def test_a_serializer_of_the_apps_own_goes_on_doing_what_it_did() -> None:
    class Own(URLSafeTimedSerializer):
        def __init__(self, secret: Any, salt: Any) -> None:
            super().__init__(secret, salt)

        def dumps(self, obj: Any, salt: Any = None) -> str:
            return "own." + super().dumps(obj, salt)

        def loads(self, s: Any, **options: Any) -> Any:  # type: ignore[override]
            if not s.startswith("own."):
                raise BadSignature("not ours")
            return super().loads(s[4:], **options)

    signs = serializer(Records(), serializer_class=Own)
    token = signs.dumps("alice")
    assert token.startswith("own.")
    assert signs.loads(token) == "alice"
    with pytest.raises(BadSignature):
        signs.loads(token[4:])


def test_a_list_of_secrets_signs_with_the_last_and_reads_with_any() -> None:
    records = Records()
    token = serializer(records, "the old secret").dumps("alice")
    assert serializer(records, ["the old secret", "the new secret"]).loads(token) == "alice"
    with pytest.raises(BadSignature):
        serializer(records, ["the new secret"]).loads(token)


@pytest.mark.parametrize(("ahead", "counts"), [(1, True), (60, True), (300, True), (302, False)])
def test_a_token_of_a_host_whose_clock_is_a_little_ahead_counts(
    monkeypatch: pytest.MonkeyPatch, ahead: int, counts: bool
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    records = Records()
    signs = serializer(records)
    clock.advance(ahead)
    token = signs.dumps("alice")
    clock.advance(-ahead)
    if counts:
        assert signs.loads(token, max_age=100) == "alice"
    else:
        with pytest.raises(SignatureExpired):
            signs.loads(token, max_age=100)
    assert records.too_old == (not counts)
    clock.advance(ahead + 101)
    with pytest.raises(SignatureExpired):
        signs.loads(token, max_age=100)
