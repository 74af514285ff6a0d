"""The session id inside quart-auth's signed token.

quart-auth signs `auth_id` and a timestamp. Here a token also carries `sid` (16 random bytes, ASVS 7.2.3), the time of
the login and the position of the last revocation that was known then. That goes through quart-auth's own extension
point, `serializer_class`: whatever class an extension has is subclassed, so `SECRET_KEY_FALLBACKS`, `duration` and a
serializer of the app's own keep working. The salt is derived from the extension's: a worker without this package takes
such a token for a bad one and sees nobody, rather than a user with a strange id.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from itsdangerous import BadSignature, SignatureExpired
from quart import current_app, has_app_context

if TYPE_CHECKING:
    from quart_auth import QuartAuth

SID_BYTES = 16
SALT_SUFFIX = " dash-quart-ws.v1"

CLOCK_AHEAD = 300.0
"""Seconds that the clock of the host which has signed a token may be ahead of this one's."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid signature vouches for. `sid` is a secret; `id` is not."""

    auth_id: Any
    sid: bytes
    login_at: float
    """Unix time of the login, in seconds; a renewal does not change it."""
    seen: int
    issued: float
    """Unix time of this token's signature; a renewal does."""

    @property
    def id(self) -> str:
        """The session's public id: a one-way hash of the sid, fit for logs, brokers and admin pages."""
        return public_id(self.sid)


class Keeper(Protocol):
    """Who knows what a token of an extension should say, and whether it still counts."""

    def stamp(self, extension: QuartAuth, auth_id: Any) -> Token:
        """The token to sign for this user: the request's own for a renewal, else a new session's."""
        ...

    def admit(self, extension: QuartAuth, token: Token) -> bool:
        """Whether the session of a well-signed token is still valid."""
        ...

    def expired(self, extension: QuartAuth) -> None:
        """A token was well signed once, and is too old."""
        ...


def serializer_class(extension: QuartAuth, keeper: Keeper) -> type[Any]:
    """A subclass of the extension's own serializer that signs and reads sessions."""
    base: type[Any] = extension.serializer_class

    def keeper_here() -> Keeper:
        # An extension may serve several Quart servers (`auth = QuartAuth()`, and `auth.init_app` in a factory).
        mine = current_app.extensions.get("dash_quart_ws") if has_app_context() else None
        return keeper if mine is None else mine.sessions

    class SessionSerializer(base):  # type: ignore[misc]
        signs_sessions = True

        def __init__(self, secret: Any, salt: Any) -> None:
            suffix = SALT_SUFFIX.encode() if isinstance(salt, bytes) else SALT_SUFFIX
            super().__init__(secret, salt + suffix)
            self._given = secret, salt

        def dumps(self, auth_id: Any, salt: Any = None) -> Any:
            token = keeper_here().stamp(extension, auth_id)
            return super().dumps([auth_id, token.sid.hex(), token.login_at, token.seen], salt)

        def loads(self, text: Any, max_age: int | None = None, **options: Any) -> Any:
            try:
                token = self._read(text, max_age, options)
            except SignatureExpired:
                keeper_here().expired(extension)
                raise
            if not keeper_here().admit(extension, token):
                raise BadSignature("the session has ended")
            return token.auth_id

        def _read(self, text: Any, max_age: int | None, options: dict[str, Any]) -> Token:
            options["return_timestamp"] = True
            try:
                try:
                    payload, signed_at = super().loads(text, max_age=max_age, **options)
                except SignatureExpired as error:
                    if not _is_a_little_ahead(error):
                        raise
                    payload, signed_at = super().loads(text, max_age=None, **options)
            except SignatureExpired:
                raise
            except BadSignature:
                # A cookie from before this package: a session of its own, until it is renewed.
                auth_id, signed_at = base(*self._given).loads(text, max_age=max_age, **options)
                return _plain_token(auth_id, signed_at.timestamp())
            auth_id, sid, login_at, seen = payload
            return Token(auth_id, bytes.fromhex(sid), login_at, seen, signed_at.timestamp())

    return SessionSerializer


def _is_a_little_ahead(error: SignatureExpired) -> bool:
    """Whether a token is "too old" because it was signed a moment from now, on a host whose clock is ahead."""
    signed_at = error.date_signed
    return signed_at is not None and 0 < signed_at.timestamp() - time.time() <= CLOCK_AHEAD


def _plain_token(auth_id: Any, signed_at: float) -> Token:
    """The session of a token that carries none: named by what was signed and when, not by how the cookie is spelled."""
    signed = json.dumps([auth_id, int(signed_at)], sort_keys=True).encode()
    sid = hashlib.sha256(b"dash-quart-ws plain token\0" + signed).digest()[:SID_BYTES]
    return Token(auth_id, sid, signed_at, 0, signed_at)


def public_id(sid: bytes) -> str:
    """The public id of a session: nobody finds the sid by it."""
    return hashlib.sha256(b"dash-quart-ws session\0" + sid).hexdigest()[:32]


def new_sid() -> bytes:
    """A session id that nobody can guess (ASVS 7.2.3: at least 128 bits)."""
    return secrets.token_bytes(SID_BYTES)
