"""Nobody's browser: which of the anonymous connections are those of somebody who logs in now.

A page that was rendered for nobody, and may open a websocket, brings a cookie with a random name for the browser. It
gives access to nothing. At a login the connections that were opened under that name end, so that the browser comes back
as the user.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Any, cast

from quart import has_request_context, has_websocket_context, request, websocket

if TYPE_CHECKING:
    from quart import Response, Websocket
    from quart.wrappers.base import BaseRequestWebsocket

NAME = "dash-quart-ws-visitor"
_ADDRESS = re.compile(r"[A-Za-z0-9_.:%\[\]-]{1,64}")
_VALUE = re.compile(r"[A-Za-z0-9_-]{22}")


def visitor_of(request: BaseRequestWebsocket) -> str | None:
    """The public name of the browser that a request or a handshake comes from; None if it has none yet."""
    if not any(NAME in cookies for cookies in request.headers.getlist("Cookie")):  # it takes longer to read them all
        return None
    value = request.cookies.get(_cookie(request), "")
    if not _VALUE.fullmatch(value):
        return None
    return hashlib.sha256(b"dash-quart-ws visitor\0" + value.encode()).hexdigest()[:32]


def name_visitor(request: BaseRequestWebsocket, response: Response) -> None:
    """Give the browser a name, if it has none."""
    if visitor_of(request) is None:
        response.set_cookie(
            _cookie(request),
            secrets.token_urlsafe(16),
            secure=_is_secure(request),
            httponly=True,
            samesite="Lax",
            path="/",
        )


def websocket_here() -> Websocket:
    """The websocket at hand itself: each look through Quart's proxy for it takes as long as a small function."""
    here: Websocket = cast("Any", websocket)._get_current_object()  # noqa: SLF001 - it is Werkzeug's documented way
    return here


def remote_here() -> str:
    """Where the request or websocket at hand comes from, for the log."""
    if has_request_context():
        return printable(request.remote_addr)
    return printable(websocket.remote_addr) if has_websocket_context() else "-"


def printable(remote: str | None) -> str:
    """An address for the log. Behind a proxy it is what that has passed on, which may be anything."""
    text = str(remote)
    return text if _ADDRESS.fullmatch(text) else repr(text[:64])


def _is_secure(request: BaseRequestWebsocket) -> bool:
    return request.scheme in ("https", "wss")


def _cookie(request: BaseRequestWebsocket) -> str:
    # Under this prefix no other host, and nobody on plain http, can set it (RFC 6265bis, section 4.1.3).
    return f"__Host-{NAME}" if _is_secure(request) else NAME
