"""What a callback over the websocket does to its browser: cookies, headers, quart's `session`, login and logout.

Only the response to an HTTP request sets a cookie. So a callback that has done something of the kind is not answered
plainly: what it did is kept by the broker for half a minute, under a random name that its tab is told together with the
outcome. The bridge posts that name to `_dash-quart-ws/effects`, where everything is done again, by quart and quart-auth
themselves, in a request of the same browser; and shows the outcome when that is answered.

Whoever reads what was kept has taken it: nobody applies it twice. It is for one page (its token), of one session, and of
nobody else; and when that session has ended meanwhile it counts no more, unless it was the callback that has ended it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
import logging
import re
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quart import Response, g, jsonify, request, session
from quart.sessions import session_json_serializer
from quart_auth import Action
from werkzeug.http import parse_cookie, parse_date
from werkzeug.local import LocalProxy

from .._dash import Carrier, callback_here
from .._quart import replace_session
from ..connections.shares import is_nobody
from ..exceptions import BrokerError, EffectsUnavailable
from ..sessions import pages
from ..sessions.handshake import check_origin
from ..sessions.logins import Act, Logins, caller_here
from ..sessions.token import new_sid, public_id
from ..sessions.visitors import name_visitor, remote_here, visitor_of
from ..wire.messages import CallbackEffects, CallbackFailed, CallbackResult, CallbackUnchanged

if TYPE_CHECKING:
    from dash import Dash
    from quart.sessions import SessionMixin
    from quart_auth import QuartAuth

    from ..brokers.base import Broker
    from ..connections.renderer import Renderer
    from ..sessions.guard import Guard
    from ..sessions.handshake import Origin
    from ..sessions.sessions import Sessions, Visit

security = logging.getLogger("dash_quart_ws.security")

SECONDS = 30.0
"""How long a browser may take to fetch what a callback did."""

CHARACTERS = 32 * 1024
"""The most that one callback may do, as JSON: browsers and proxies take less than that in the headers of a response."""

PENDING, PENDING_CHARACTERS = 1000, 1024 * 1024
"""What may be kept for one user, or for nobody one address, within `SECONDS`: how many callbacks' effects, and how much."""

NOBODYS_PENDING = 5000
"""How many of them may be those of all who are nobody."""

BODY_BYTES = 1024
"""Of a request for effects: it holds one id."""

NOT_COPIED = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding", "connection"})
"""Headers that say something about a body, which is another one there, or are the server's business."""

SESSION = "_dash_quart_ws_session"
"""Where `g` of a websocket holds quart's `session`, as its callbacks find it."""

_ID = re.compile("[0-9a-f]{32}")


class Effects:
    """What one callback does to its browser."""

    __slots__ = ("_before", "logins", "response", "session")

    def __init__(self, position: int) -> None:
        self.logins = Logins(position)
        self.response: Response | None = None
        """What `ctx.response` writes to, once somebody has used it."""
        self.session: SessionMixin | None = None
        """The callback's own copy of quart's `session`, once somebody has used it."""
        self._before: dict[str, Any] = {}

    def own_session(self, shared: SessionMixin) -> SessionMixin:
        """Quart's `session` for this callback: what is written there is nobody else's before it is applied."""
        if self.session is None:
            self._before = copy.deepcopy(dict(shared))
            self.session = copy.deepcopy(shared)
            self.session.modified = self.session.accessed = False
        return self.session

    def kept(self, renderer: Renderer, *, has_failed: bool) -> Kept | None:
        """All of it, for the browser of this tab; None if there is nothing.

        A callback that has failed has no response; its login, and quart's `session`, count all the same: as over HTTP.
        """
        connection = renderer.connection
        headers: tuple[tuple[str, str], ...] = ()
        if self.response is not None and not has_failed:
            found = self.response.headers.items()
            headers = tuple((name, value) for name, value in found if name.lower() not in NOT_COPIED)
        acts = self.logins.acts()
        changes = None if self.session is None or not self.session.modified else self._changes(self.session)
        if not (headers or acts or changes):
            return None
        return Kept(
            page=digest(renderer.page or ""),
            session=None if connection.session is None else connection.session.id,
            visitor=connection.visitor,
            has_logged_out=self.logins.has_logged_out,
            position=self.logins.position,
            cleared=self.logins.cleared,
            acts=acts,
            changes=changes,
            headers=headers,
        )

    def _changes(self, session: SessionMixin) -> Changes:
        now, before = dict(session), self._before
        written = {name: value for name, value in now.items() if name not in before or before[name] != value}
        try:
            return Changes(session_json_serializer.dumps(written), tuple(before.keys() - now.keys()))
        except (TypeError, ValueError) as error:
            raise EffectsUnavailable(
                "a callback over the websocket has put into quart's session what is no JSON: it cannot be carried to the "
                "request that writes the cookie"
            ) from error


@dataclass(frozen=True, slots=True)
class Changes:
    """What a callback has changed in quart's `session`."""

    written: str
    """Names and values, as quart itself writes them into its cookie."""
    removed: tuple[str, ...]

    def apply(self, session: SessionMixin) -> None:
        """Make the same changes there."""
        for name in self.removed:
            session.pop(name, None)
        session.update(session_json_serializer.loads(self.written))
        session.modified = True


@dataclass(frozen=True, slots=True)
class Kept:
    """What a callback did, on its way to a request of its browser."""

    page: str
    """A hash of the page's token."""
    session: str | None
    """The public id of the session that the callback belongs to; None for nobody."""
    visitor: str | None
    has_logged_out: bool
    position: int
    cleared: dict[str, int]
    acts: dict[str, Act]
    changes: Changes | None
    headers: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """As JSON.

        Raises:
            EffectsUnavailable: it is too much.
        """
        changes = None if self.changes is None else [self.changes.written, self.changes.removed]
        text = json.dumps(
            [
                self.page, self.session, self.visitor, self.has_logged_out, self.position, self.cleared, self.acts,
                changes, self.headers,
            ]
        )  # fmt: skip
        if len(text) > CHARACTERS:
            raise EffectsUnavailable(
                f"the cookies, headers and session of one callback over the websocket have {len(text)} characters: no more "
                f"than {CHARACTERS} go into a response"
            )
        return text

    @classmethod
    def of_text(cls, text: str) -> Kept:
        """What `text` wrote.

        Raises:
            ValueError, TypeError: another version did.
        """
        page, session, visitor, has_logged_out, position, cleared, acts, changes, headers = json.loads(text)
        return cls(
            page, session, visitor, has_logged_out, position, cleared,
            {name: Act(*act) for name, act in acts.items()},
            None if changes is None else Changes(changes[0], tuple(changes[1])),
            tuple((name, value) for name, value in headers),
        )  # fmt: skip


class Recent:
    """What was kept within the last `SECONDS`, and for whom: who goes and comes back does not begin again at nothing."""

    def __init__(self) -> None:
        self.by_payer: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._nobodys: deque[float] = deque()

    def take(self, payer: str, size: int) -> bool:
        """Take room for so many characters; False, and nothing is taken, when there is none."""
        now = time.monotonic()
        own = self.by_payer.setdefault(payer, deque())
        self._forget(now - SECONDS, own)
        if len(own) >= PENDING or sum(one for _, one in own) + size > PENDING_CHARACTERS:
            return False
        if is_nobody(payer):
            if len(self._nobodys) >= NOBODYS_PENDING:
                return False
            self._nobodys.append(now)
        own.append((now, size))
        self.by_payer.move_to_end(payer)
        return True

    def _forget(self, until: float, own: deque[tuple[float, int]]) -> None:
        while own and own[0][0] <= until:
            own.popleft()
        while self._nobodys and self._nobodys[0] <= until:
            self._nobodys.popleft()
        while (first := next(iter(self.by_payer.values()))) is not own and (not first or first[-1][0] <= until):
            self.by_payer.popitem(last=False)


class EffectsDesk:
    """Keeps what one app's callbacks have done, and does it in requests of their browsers.

    Args:
        app: whose.
        broker: keeps it, so that a request may come to any worker.
        sessions: of the server.
        guard: of the app.
        allowed: origins other than the app's own that its pages may have.
        timeout: seconds that the broker may take.
    """

    def __init__(
        self,
        app: Dash,
        broker: Broker,
        sessions: Sessions,
        guard: Guard,
        allowed: frozenset[Origin],
        timeout: float,
    ) -> None:
        self._app = app
        self._broker = broker
        self._sessions = sessions
        self._guard = guard
        self._allowed = allowed
        self._timeout = timeout
        self._recent = Recent()

    # ---------------------------------------------------------------------------------- of a callback, in a worker

    async def keep(
        self, renderer: Renderer, effects: Effects, outcome: CallbackResult | CallbackUnchanged | CallbackFailed
    ) -> CallbackResult | CallbackUnchanged | CallbackFailed | CallbackEffects:
        """The outcome of a callback that may have done something, with the name of what it did. In its websocket's context.

        Raises:
            EffectsUnavailable: that could not be kept.
        """
        kept = effects.kept(renderer, has_failed=isinstance(outcome, CallbackFailed))
        if kept is None:
            return outcome
        connection = renderer.connection
        if renderer.page is None:
            if effects.logins.has_logged_out:  # that was done at once; the cookie that is left is nobody's
                return outcome
            raise EffectsUnavailable(
                "renew_login() and quart's session need the bridge in a callback over the websocket: leave out bridge=False, "
                "or let the callback come over HTTP"
            )
        try:
            async with asyncio.timeout(self._timeout):
                if kept.cleared:
                    await self._broker.position()  # answered after the revocation, whose true position is known then
                text, id = kept.text(), secrets.token_hex(16)
                if not self._recent.take(connection.payer, len(text)):
                    raise EffectsUnavailable(
                        "too many callbacks of one user set cookies within half a minute: no more are kept for the moment"
                    )
                await asyncio.wrap_future(self._broker.keep(digest(id), text, SECONDS))
        except (BrokerError, TimeoutError) as error:
            raise EffectsUnavailable("the broker does not keep what a callback does to its browser") from error
        self._show(kept)
        return CallbackEffects(outcome, id)

    @staticmethod
    def _show(kept: Kept) -> None:
        """The connection's later callbacks see the new cookies and session, as those of the next request would."""
        if kept.changes is not None:
            shared = getattr(g, SESSION)
            kept.changes.apply(shared)
            shared.modified = False
        carrier = Carrier.of_websocket()
        for name, value in kept.headers:
            if name.lower() == "set-cookie":
                _take_cookie(carrier.cookies, carrier.path, value)

    # ------------------------------------------------------------------------------- of its browser, in any worker

    async def answer(self) -> Response:
        """The view behind `_dash-quart-ws/effects`.

        204 when all is done; 200 when the page goes on in another session, with its new token. After a logout a page that
        needs a login gets none: its socket has told it that it is over. An error when nothing was done.
        """
        wrong = self._wrong_request()
        if wrong is not None:
            return _refused(*wrong)
        body = await request.get_json(silent=True)
        id = body.get("id") if isinstance(body, dict) else None
        if not isinstance(id, str) or not _ID.fullmatch(id):
            return _refused(400, "no id")
        try:
            async with asyncio.timeout(self._timeout):
                text = await self._broker.take(digest(id))
            kept = None if text is None else Kept.of_text(text)
        except (BrokerError, TimeoutError, ValueError, TypeError):
            return _refused(503, "the broker does not answer")
        if kept is None:
            return _refused(404, "no such effects")
        if digest(request.args.get("endId", "")) != kept.page:
            return _refused(403, "another page's effects")
        visit = self._visit()
        brought = None if visit is None else visit.over or (visit.session and visit.session.id)
        if brought != kept.session or (brought is None and visitor_of(request) != kept.visitor):
            return _refused(403, "another session's effects")
        if not kept.has_logged_out and self._is_over(visit):
            return _refused(401, "the session has ended")
        return await self._apply(kept)

    def _wrong_request(self) -> tuple[int, str] | None:
        """Why a request is not even read; None if it may be what it seems."""
        wrong = check_origin(request, self._allowed)
        if wrong is not None:
            return 403, wrong
        if request.mimetype != "application/json":
            # Another site's form asks nobody first, and can send anything but JSON (ASVS 3.5.2).
            return 415, "no JSON"
        if not 0 < (request.content_length or 0) <= BODY_BYTES:
            return 413, "too large"
        return None

    def _visit(self) -> Visit | None:
        return next((visit for extension, visit in self._sessions.visits().items() if extension.singleton), None)

    def _is_over(self, visit: Visit | None) -> bool:
        return visit is not None and (visit.over is not None or self._sessions.has_left())

    async def _apply(self, kept: Kept) -> Response:
        for extension, visit in self._sessions.visits().items():
            act = kept.acts.get(str(extension.attribute_name))
            if act is not None:
                _act(extension, visit, act, kept)
        if kept.changes is not None:
            kept.changes.apply(session)
        response = await self._page_after(kept)
        for name, value in kept.headers:
            response.headers.add(name, value)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _page_after(self, kept: Kept) -> Response:
        """What the page is told: whose it is from here on, if that has changed."""
        visits = self._sessions.visits()
        singleton = next((extension for extension in visits if extension.singleton), None)
        act = None if singleton is None else kept.acts.get(str(singleton.attribute_name))
        if singleton is None or act is None or not (act.is_login or act.action == Action.DELETE.name):
            return Response(status=204)
        sid = visits[singleton].next_sid
        is_somebody = sid is not None and (not self._guard.active or await singleton.load_user().is_authenticated)
        if not is_somebody and self._guard.active:
            return Response(status=204)
        id = public_id(sid) if is_somebody and sid is not None else None
        response: Response = jsonify(page=pages.mint_for(self._app, id), session=id)
        if id is None:
            name_visitor(request, response)
        return response


def _act(extension: QuartAuth, visit: Visit, act: Act, kept: Kept) -> None:
    """Log in, log out or renew, as in any view: quart-auth writes the cookie, and `sessions` ends what that ends."""
    if act.action == Action.DELETE.name:
        extension.logout_user()
    elif act.is_login:
        user = extension.user_class(act.auth_id)
        user.action = Action[act.action]
        visit.position = min(visit.position, kept.position)
        visit.cleared.update(kept.cleared)
        visit.next_sid = new_sid()
        extension.login_user(user)
    else:
        extension.load_user().action = Action[act.action]


def _refused(status: int, why: str) -> Response:
    security.warning("effects-refused code=%d reason=%r remote=%s", status, why, remote_here())
    response: Response = jsonify(error=why)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def digest(text: str) -> str:
    """What is kept in the place of a name that nobody should read where it is kept."""
    return hashlib.sha256(b"dash-quart-ws effects\0" + text.encode("utf-8", "surrogatepass")).hexdigest()


def _take_cookie(cookies: dict[str, str], path: str, header: str) -> None:
    """Do what a browser does with a `Set-Cookie` header to the cookies that it sends to this path (RFC 6265, 5.2 to 5.4)."""
    pair, *attributes = header.split(";")
    given = {name.strip().lower(): value.strip() for name, _, value in (one.partition("=") for one in attributes)}
    if not path.startswith(given.get("path", "/")):
        return
    expires = parse_date(given.get("expires"))
    is_gone = expires is not None and expires.timestamp() <= time.time()
    with contextlib.suppress(ValueError):
        is_gone = int(given["max-age"]) <= 0 if "max-age" in given else is_gone
    for name, value in parse_cookie(pair).items():
        if is_gone:
            cookies.pop(name, None)
        else:
            cookies[name] = value


# ------------------------------------------------------------------------------------------------ quart's session


def _session_here() -> SessionMixin:
    shared: SessionMixin = getattr(g, SESSION)
    callback = callback_here() if caller_here() is not None else None
    own: SessionMixin = shared if callback is None else callback.gather().own_session(shared)
    return own


_own_session: Any = LocalProxy(_session_here)


def divide_session() -> None:
    """A websocket has been accepted: from here on each of its callbacks has quart's `session` to itself."""
    setattr(g, SESSION, replace_session(_own_session))
