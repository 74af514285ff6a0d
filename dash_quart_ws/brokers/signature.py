"""Signatures on what goes through a shared broker, for when others can write there, too."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

UNSIGNED = b"-"

SENDERS_KNOWN = 4096
"""Workers whose last number is remembered, so that nobody can send what they have sent once more."""


class Signer:
    """Signs with HMAC-SHA256, and for one purpose: nobody can use it for another. Without a key, not at all."""

    def __init__(self, key: str | bytes | None) -> None:
        secret = key.encode() if isinstance(key, str) else key
        self._empty = None if secret is None else hmac.new(secret, digestmod=hashlib.sha256)
        """The key, and nothing signed with it yet: to copy it takes less time than to begin anew."""
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def sign(self, purpose: bytes, *parts: bytes) -> bytes:
        """The signature, in one word."""
        if self._empty is None:
            return UNSIGNED
        signature = self._empty.copy()
        # Each part with its length: no two lists of parts are signed alike.
        signature.update(b"".join([b"%d:%b" % (len(part), part) for part in (purpose, *parts)]))
        return signature.hexdigest().encode()

    def is_good(self, signature: bytes, purpose: bytes, *parts: bytes) -> bool:
        """Whether something was signed with this key for this purpose; anything is good where there is no key."""
        return self._empty is None or hmac.compare_digest(signature, self.sign(purpose, *parts))

    def is_next(self, sender: bytes, number: int) -> bool:
        """Whether a sender's number is beyond all earlier ones. Ask this of what is signed well only."""
        if self._empty is None:
            return True
        if number <= self._last.get(sender, -1):
            return False
        self._last[sender] = number
        self._last.move_to_end(sender)
        if len(self._last) > SENDERS_KNOWN:
            self._last.popitem(last=False)
        return True


def claim(secret: str | bytes, prefix: str) -> bytes:
    """What an app writes beside its prefix: it names the app's secret, and gives it away to nobody."""
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.digest(key, b"dash-quart-ws claims " + prefix.encode(), hashlib.sha256).hex().encode()
