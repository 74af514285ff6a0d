"""Close codes, and what each asks of the client.

4000-4499 ask for a reconnect, 4500-4999 are terminal: a client that meets a code it does not know still does the right
thing. The numbers lie in the range that RFC 6455, section 7.4.2, leaves to applications.
"""

from __future__ import annotations

from enum import IntEnum

SUBPROTOCOL = "dash-quart-ws.v1"
"""What our own browser code offers in `Sec-WebSocket-Protocol`; a client that does not is Dash's own worker, or alike."""

REASON_BYTES = 123
"""A close frame's payload is at most 125 bytes, two of them the code (RFC 6455, section 5.5)."""


class CloseCode(IntEnum):
    """Why a connection was closed."""

    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    OVERLOADED = 1013
    CLOSED_BY_APP_RETRY = 4100
    RIGHTS_CHANGED = 4101
    SESSION_CHANGED = 4102
    TOO_SLOW = 4103
    BROKER_LOST = 4104
    TOO_MANY = 4105
    SILENT = 4106
    CLOSED_BY_APP = 4500
    LOGGED_OUT = 4501
    EXPIRED = 4502
    REVOKED = 4503
    ABUSE = 4505


STOP_DASH_WORKER = 4001
"""Dash's own worker stops on this code and on 1000; after any other it reconnects, up to ten times."""


def is_terminal(code: int) -> bool:
    """Whether a client must not come back by itself."""
    return 4500 <= code <= 4999


def for_client(code: int, *, bridge: bool) -> int:
    """The code as the client at hand understands it: Dash's own worker knows one terminal code only."""
    return STOP_DASH_WORKER if is_terminal(code) and not bridge else int(code)


def is_sendable(code: object) -> bool:
    """Whether an application may send this code (RFC 6455, section 7.4.1): 1000, 1001, 1003, 1007-1014, 3000-4999."""
    return isinstance(code, int) and (code in (1000, 1001, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999)


def cut_reason(reason: str) -> str:
    """The reason, cut at a character so that it fits a close frame."""
    return reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")
