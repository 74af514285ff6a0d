"""Origin, hooks, session: what has to be right before a websocket is accepted, and again right after.

A foreign origin is refused with HTTP 403 before accept. A missing or ended session is accepted and closed: a browser
cannot read the status of a refused handshake, sees 1006, and tries again and again.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quart_auth import current_user

from ..brokers.base import Ending
from ..exceptions import ConfigurationError
from ..wire import close
from ..wire.close import CloseCode
from .sessions import CUT_OFF
from .visitors import remote_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quart import Websocket
    from quart.wrappers.base import BaseRequestWebsocket

    from ..config import Config
    from ..connections.session import Session
    from .guard import Guard
    from .sessions import Sessions

logger = logging.getLogger("dash_quart_ws.handshake")
security = logging.getLogger("dash_quart_ws.security")

REFUSALS = {
    None: (CloseCode.LOGGED_OUT, "not logged in"),
    Ending.LOGGED_OUT: (CloseCode.LOGGED_OUT, "logged out"),
    Ending.SWITCHED: (CloseCode.LOGGED_OUT, "another login took its place"),
    Ending.EXPIRED: (CloseCode.EXPIRED, "the session has expired"),
    Ending.REVOKED: (CloseCode.REVOKED, "the session was revoked"),
}

DEFAULT_PORTS = {"http": 80, "https": 443}
WEB_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s/\\?#@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Answer HTTP 403 before accept."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Accept, then close with this code: the browser can read it."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Accept. `sessions` are those of every `QuartAuth` extension, `session` the singleton's; none for nobody."""

    session: Session | None
    sessions: tuple[Session, ...]
    authenticated: bool = True
    """What the user class says of the user: without it, they may do what anybody may."""


Origin = tuple[str, str, int]
"""Scheme (http or https), host in lower case, port."""


def parse_origin(text: str) -> Origin | None:
    """An `Origin` header (RFC 6454, section 7) as scheme, host and port; None for `null` and for what is no origin."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    return _origin(scheme, rest) if separator and scheme in DEFAULT_PORTS else None


def own_origin(scheme: str, host: str | None) -> Origin | None:
    """The origin of the page that this websocket belongs to, from its own scheme and `Host` header."""
    web = WEB_SCHEMES.get(scheme.lower())
    return None if web is None or host is None else _origin(web, host)


def _origin(scheme: str, host: str) -> Origin | None:
    match = _HOST.fullmatch(host.lower())
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    return (scheme, match["name"], port) if 0 < port < 65536 else None


def parse_allowed(origins: Iterable[str]) -> frozenset[Origin]:
    """Dash's `websocket_allowed_origins`.

    Raises:
        ConfigurationError: an entry is no origin.
    """
    allowed = set()
    for text in origins:
        origin = parse_origin(text) if isinstance(text, str) else None
        if origin is None:
            raise ConfigurationError(
                f"websocket_allowed_origins: {text!r} is no origin; give scheme, host and port, as 'https://example.org'"
            )
        allowed.add(origin)
    return frozenset(allowed)


def check_origin(websocket: BaseRequestWebsocket, allowed: frozenset[Origin]) -> str | None:
    """Why this origin may not open a websocket here, or post what only a page may; None if it may.

    This is the defence against cross-site hijacking.

    Scheme, host and port have to be the page's own (ASVS 4.4.2). `X-Forwarded-*` headers count for nothing: the scheme
    and the host are what the server says, and it is for its ProxyFixMiddleware to change them.
    """
    headers = websocket.headers.getlist("Origin")
    if len(headers) != 1:
        return "no Origin header" if not headers else "more than one Origin header"
    origin = parse_origin(headers[0])
    if origin is None:
        return "a malformed Origin"
    hosts = websocket.headers.getlist("Host")
    own = own_origin(websocket.scheme, hosts[0]) if len(hosts) == 1 else None
    return None if origin == own or origin in allowed else "a foreign Origin"


async def admit(
    websocket: Websocket,
    *,
    config: Config,
    sessions: Sessions,
    guard: Guard,
    allowed: frozenset[Origin],
    hooks: Iterable[Callable[..., Any]],
) -> Admitted | Refused | Forbidden:
    """Decide about a handshake, before accept. Whoever accepts calls `look_again` right after, without an await between."""
    wrong = check_origin(websocket, allowed)
    if wrong is not None:
        security.warning(
            "refuse code=403 reason=%r origin=%.64r remote=%s",
            wrong,
            websocket.headers.get("Origin"),
            remote_here(),
        )
        return Forbidden(wrong)
    if config.require_bridge and close.SUBPROTOCOL not in websocket.requested_subprotocols:
        security.info("refuse code=403 reason='no bridge' remote=%s", remote_here())
        return Forbidden("this server takes its own browser code only")
    verdict = await screen(hooks, websocket, refusal="Connection rejected")
    if verdict is not None:
        security.warning("refuse code=%d reason=%.64r by=hook remote=%s", *verdict, remote_here())
        return Refused(*verdict)
    known = check_sessions(sessions, guard)
    is_known = isinstance(known, Admitted) and known.session is not None
    authenticated = not is_known or await current_user.is_authenticated
    if guard.active and not authenticated:
        return Refused(*REFUSALS[None])
    admitted = check_sessions(sessions, guard)  # after the last await
    return dataclasses.replace(admitted, authenticated=authenticated) if isinstance(admitted, Admitted) else admitted


def check_sessions(sessions: Sessions, guard: Guard) -> Admitted | Refused:
    """Who this is, and whether they may come in.

    Nobody may where there is something for nobody; but who brings the token of a session that has ended is not nobody: it
    is somebody who has to learn of that.
    """
    own: Session | None = None
    bound: list[Session] = []
    if not sessions.is_loaded or any(visit.unproven is not None for visit in sessions.visits().values()):
        return Refused(*CUT_OFF)
    why: Ending | None = None
    for extension, visit in sessions.visits().items():
        ending = visit.ending if visit.session is None else sessions.ending_of(visit.session)
        if visit.session is not None and ending is None:
            bound.append(visit.session)
        if extension.singleton:
            own, why = (visit.session, None) if ending is None else (None, ending)
    if own is None and guard.active and (why is not None or not guard.has_something_for_nobody):
        return Refused(*(CUT_OFF if sessions.is_cut_off else REFUSALS[why]))
    return Admitted(own, tuple(bound))


def look_again(sessions: Sessions, admitted: Admitted) -> Refused | None:
    """Right after the connection is in the hub: did one of its sessions end while something was awaited?"""
    if admitted.sessions and sessions.is_cut_off:
        return Refused(*CUT_OFF)
    for session in admitted.sessions:
        ending = sessions.ending_of(session)
        if ending is not None:
            if session is not admitted.session:
                return Refused(CloseCode.SESSION_CHANGED, "a session has ended")
            return Refused(*REFUSALS[ending])
    return None


async def screen(hooks: Iterable[Callable[..., Any]], *arguments: Any, refusal: str) -> tuple[int, str] | None:
    """Run Dash's `websocket_connect` or `websocket_message` hooks: the first that refuses gives a close code and a reason.

    A hook that raises refuses, and the log has its traceback.
    """
    for hook in hooks:
        try:
            result = hook(*arguments)
            if inspect.isawaitable(result):
                result = await result
        except Exception:  # the hook is the app's: whatever it raises means no
            logger.exception("a websocket hook failed, which refuses")
            return close.STOP_DASH_WORKER, "Authentication error"
        if result is False:
            return close.STOP_DASH_WORKER, refusal
        if isinstance(result, tuple) and len(result) == 2:
            code, reason = result
            if close.is_sendable(code):
                return code, str(reason)
            logger.error("a websocket hook gave %r, which is no close code that may be sent: 4001 goes out", code)
            return close.STOP_DASH_WORKER, str(reason)
    return None
