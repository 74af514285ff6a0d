"""Login, logout, expiry, revoke: what a session is, and how it ends.

How a request meets this module, in order:

1. `arrive`, before anything else of the request runs: each `QuartAuth` extension resolves its user, and the token it
   read, if any, is noted on `g`. An ended session's token makes nobody.
2. `depart`, before quart-auth writes its cookie: a logout, a login over a live session, or a renewal is noticed by
   looking at which user object the extension now has, and acted on.
3. `leave`, when the request context goes, before the response is sent: the same for what happened after 2.

`revoke` is the one way in which a session ends. It acts when it is called: replica first, then the hub, with no await
between them, so that whoever looks at the replica after being taken into the hub can miss nothing. What another worker
has revoked goes the same way, in `revoked`.

With a broker that several workers share, what the others have revoked is known only while the broker is there to tell:
`is_cut_off` says when it has not for too long. It is a comparison with the clock, made where something is about to be
done, because a process that was suspended wakes up with its timers late.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import datetime as dt
import logging
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from quart import abort, g, has_app_context, has_request_context, has_websocket_context, request
from quart_auth import Action

from ..brokers.base import Answers, Appended, Broker, Ending, Revocation, Scope, SessionRecord
from ..brokers.messages import Closed
from ..connections.receipt import Pending, PendingReceipt, Receipt
from ..connections.session import KnownSession, Session
from ..exceptions import BrokerError
from ..wire.close import CloseCode
from . import logins
from .known import SAVE_EVERY, SessionRegistry, can_be_signed, sender
from .revocations import Replica
from .token import Token, new_sid, serializer_class
from .visitors import remote_here, visitor_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

    from quart import Quart
    from quart_auth import AuthUser, QuartAuth

    from ..config import Config
    from ..connections.connection import Connection
    from ..connections.hub import Hub
    from ..exceptions import CallbackTimeout
    from .rights import Rights

logger = logging.getLogger("dash_quart_ws.sessions")
security = logging.getLogger("dash_quart_ws.security")

T = TypeVar("T")

VISITS = "_dash_quart_ws_visits"
LONGEST_TIMER = 3600.0
"""Seconds after which a session's end is computed anew: timers do not notice when the clock was set, or the host slept."""

TICK = 0.01
"""Seconds beyond a session's end after which that is looked at: timers may be a little early."""

NOTED_EVERY = 1.0
"""Seconds: how often a connection's callbacks are noted as a sign of its session's life."""
LOOP_CHECK = 1.0
"""Seconds after which a thread that waits for the event loop looks whether that is still running."""

IDLE_MARGIN = 0.1
"""With several workers, the part of `idle_timeout` in which one of them may not have heard what a user does elsewhere."""

CUT_OFF = CloseCode.BROKER_LOST, "the server cannot tell whether the session has ended"
AWAY = CloseCode.RESTART, "the server was away"

CLOSE_CODES = {
    Ending.LOGGED_OUT: CloseCode.LOGGED_OUT,
    Ending.EXPIRED: CloseCode.SESSION_CHANGED,  # the handshake decides: another worker may have renewed it
    Ending.REVOKED: CloseCode.REVOKED,
    Ending.SWITCHED: CloseCode.SESSION_CHANGED,
}


@dataclass(slots=True)
class Visit:
    """What one request or websocket brought for one extension."""

    position: int
    """The position when it arrived: a login that a ban overtakes is minted with this one, and so does not outlive it."""
    token: Token | None = None
    user: AuthUser | None = None
    session: Session | None = None
    is_cut_off: bool = False
    """Whether nobody could tell when the token was read."""
    unproven: Session | None = None
    """In the place of `session`, where nobody can tell whether that has ended: good for nothing but its own end."""
    ending: Ending | None = None
    """Why a token that was brought is no good, where that is known."""
    over: str | None = None
    """The public id of the session of such a token."""
    next_sid: bytes | None = None
    """What a login of this request is to be named, where that has to be known before its token is written."""
    login_position: int | None = None
    settled: AuthUser | None = None
    held: Session | None = None
    """Until the request is over, a renewal by another one counts for this one, too."""
    cleared: dict[str, int] = field(default_factory=dict)
    """Users whose sessions this request has ended before it logged in, and the position of that: its login comes after."""


_arriving: contextvars.ContextVar[Visit | None] = contextvars.ContextVar("dash_quart_ws_arriving", default=None)
"""The visit whose token is being read; unset for tokens that the app reads on its own account."""


class Sessions:
    """The sessions of one Quart server. All of its Dash apps share it."""

    def __init__(self, server: Quart, hub: Hub, broker: Broker, config: Config) -> None:
        self._server = server
        self._hub = hub
        self._broker = broker
        self._config = config
        self._replica = Replica()
        self._margin = 0.0
        """Seconds that `idle_timeout` is longer than it is said to be: activity elsewhere is known so much later."""
        if broker.is_shared and config.idle_timeout is not None:
            self._margin = min(SAVE_EVERY, IDLE_MARGIN * config.idle_timeout)
        self._registry = SessionRegistry(save_every=self._margin or SAVE_EVERY, is_shared=broker.is_shared)
        self._early: list[Revocation] = []
        """What was revoked before a shared broker could be loaded."""
        self._started = False
        self._starting = threading.Lock()
        self._extensions: list[QuartAuth] = []
        self._active: dict[str, tuple[float, Session]] = {}
        self._deadlines: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        """Sessions on whose behalf something runs: a renewal has to reach it."""
        self._work: dict[asyncio.Task[Any], tuple[tuple[Session, ...], asyncio.Future[None]]] = {}
        """Callbacks over HTTP, on whose behalf they run, and what is resolved when that is over."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_end: Callable[[Session, str], None] = lambda _session, _reason: None
        """Called once for each session that ends and is known here, with why."""

    # ------------------------------------------------------------------------------------------------- set-up

    @property
    def extensions(self) -> tuple[QuartAuth, ...]:
        """Every `QuartAuth` of the server, the singleton first."""
        return tuple(sorted(self._extensions, key=lambda extension: not extension.singleton))

    @property
    def uses_cookies(self) -> bool:
        """Whether users are known by a cookie, which a browser may change under a page."""
        return any(extension.singleton and extension.mode == "cookie" for extension in self._extensions)

    @property
    def active(self) -> bool:
        """Whether there is anything to log in to."""
        return bool(self._server.extensions.get("QUART_AUTH"))

    def start(self) -> None:
        """Load the revocations of an earlier life, and of others. Before that, no token may be read.

        Blocks, with a shared broker for seconds: there the event loop uses `load`.

        Raises:
            BrokerError: a shared broker does not answer. Whoever has a token is cut off until it does.
            ConfigurationError: its store belongs to another app, or does not let this one in.
        """
        if self._started:
            return
        # `revoke` in a thread may meet the first request here: neither goes on before all is loaded.
        with self._starting:
            if not self._started:
                # The event loop may go on meanwhile, and revoke: it has the old one until all is there.
                replica = Replica() if self._broker.is_shared else self._replica
                for revocation in self._broker.load():
                    replica.add(revocation)
                over = self._recall(replica)
                if self._broker.is_shared:
                    self.in_loop(lambda: self._begin(replica, over))
                else:
                    self._begin(replica, over)

    def _begin(self, replica: Replica, over: list[SessionRecord]) -> None:
        self._replica, self._started = replica, True
        self._record(over)
        early, self._early = self._early, []
        for revocation in early:
            replica.add_unsettled(revocation)
            self._store(revocation)

    async def load(self) -> None:
        """`start`, without holding up the event loop."""
        if self._broker.is_shared:
            await asyncio.to_thread(self.start)
        else:
            self.start()

    def _start_here(self) -> bool:
        """Whether all is loaded; it is loaded now where that may take its time."""
        if not self._started and (not self._broker.is_shared or _running_loop() is None):
            try:
                self.start()
            except BrokerError:
                if not self._broker.is_shared:
                    raise
                logger.warning("the broker cannot be loaded: a revocation holds in this process until it can")
        return self._started

    @property
    def is_loaded(self) -> bool:
        """Whether it is known what was revoked before."""
        return self._started

    @property
    def is_cut_off(self) -> bool:
        """Whether nobody here can tell what others have revoked: then nothing is done on behalf of a session."""
        if not self._broker.is_shared:
            return False
        return not self._started or (self._config.on_broker_loss == "refuse" and not self.is_proven)

    @property
    def is_proven(self) -> bool:
        """Whether what is known here of the other workers is all that there is."""
        return self._broker.clock() < self._broker.lease_until

    @property
    def cut_off(self) -> tuple[CloseCode, str]:
        """How connections end that are cut off.

        Who was away for so long may have been taken for dead: then its clients are to be told of a restart.
        """
        overdue = self._broker.clock() - self._broker.lease_until
        return AWAY if self._started and overdue > self._config.lease / 2 else CUT_OFF

    def require_proof(self) -> None:
        """Abort what is about to begin for a session, in whatever thread, if nobody can tell whether that has ended."""
        if self.is_cut_off:
            abort(503, "nobody can tell whether the session has ended")

    def verdict(self) -> tuple[CloseCode, str] | None:
        """How a session's connection has to end now; None when it may go on."""
        return self.cut_off if self.is_cut_off else None

    def stop(self) -> None:
        """The server has gone down: what is on its way to the broker is stored, and its files are closed."""
        if self._started:
            self._record(self._registry.unsaved())
        self._broker.close()
        self._started = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop that serves; `revoke` from a thread hands over to it."""
        self._loop = loop

    def adopt(self) -> None:
        """Give our serializer to every `QuartAuth` that does not have it yet, however late it was made."""
        extensions = self._server.extensions.get("QUART_AUTH", ())
        if len(extensions) != len(self._extensions):
            for extension in extensions:
                if extension not in self._extensions:
                    if not getattr(extension.serializer_class, "signs_sessions", False):
                        extension.serializer_class = serializer_class(extension, self)
                        logins.bind(extension)
                    self._extensions.append(extension)

    # ---------------------------------------------------------------------------------- a request, or a websocket

    def arrive(self) -> None:
        """Resolve who this is, before anything else of the request runs. In a request or websocket context."""
        self._start_here()
        self.adopt()
        visits: dict[QuartAuth, Visit] = {}
        setattr(g, VISITS, visits)
        for extension in self._extensions:
            visits[extension] = self._visit(extension)

    def _visit(self, extension: QuartAuth) -> Visit:
        visit = Visit(self._broker.last_position)
        name = str(extension.attribute_name)
        early = g.pop(name, None)  # somebody has asked for the user before us: the token has to be read all the same
        arriving = _arriving.set(visit)
        try:
            visit.user = extension.load_user()
        finally:
            _arriving.reset(arriving)
            if early is not None and early.action is not Action.PASS:  # a login or logout already
                setattr(g, name, early)
        token = visit.token
        if token is None:
            return visit
        if visit.is_cut_off:
            users = frozenset({str(token.auth_id)} if extension.singleton else ())
            visit.token, visit.unproven = None, self._session(extension, token, token.auth_id, users)
            return visit
        auth_id = visit.user.auth_id
        # Users are the singleton's: what another extension calls its own is a name in another house.
        names = (token.auth_id, auth_id) if extension.singleton else ()
        users = frozenset(str(name) for name in names if name is not None)
        visit.session = self._session(extension, token, auth_id, users)
        # Again with the id as the user object gives it: a ban names the user as the app knows them.
        visit.ending = self.ending_of(visit.session)
        if visit.ending is not None:
            visit.user = extension.user_class(None)
            setattr(g, str(extension.attribute_name), visit.user)
            visit.over = visit.session.id
            visit.token = visit.session = None
        elif has_request_context():
            visit.held = visit.session
            self.hold(visit.session)
            self.touch(visit.session)
        else:
            self._see(visit.session)
        return visit

    def _session(self, extension: QuartAuth, token: Token, auth_id: Any, users: frozenset[str]) -> Session:
        expires = self._until(extension, token.login_at, token.issued)
        if token.id in self._deadlines:
            self._deadlines[token.id] = max(self._deadlines[token.id], expires)
        user = None if auth_id is None else str(auth_id)
        return Session(token.id, user, _utc(token.login_at), _utc(expires), users, token.seen)

    def visits(self) -> dict[QuartAuth, Visit]:
        """What this request or websocket brought, by extension; resolved on first use where `arrive` was not called."""
        if not (has_request_context() or has_websocket_context()):
            return {}
        if not hasattr(g, VISITS):
            self.arrive()
        found: dict[QuartAuth, Visit] = getattr(g, VISITS)
        return found

    def current(self) -> Session | None:
        """The session of this view or callback, for the singleton extension; None for nobody, or once it has ended."""
        for extension, visit in self.visits().items():
            if extension.singleton:
                replaced = getattr(g, str(extension.attribute_name), visit.user) is not visit.user
                replaced = replaced or logins.has_replaced(extension)
                if visit.session is None or replaced or self._is_gone(visit.session):
                    return None
                return visit.session
        return None

    def payer(self) -> str:
        """Whose share of the threads the work of this request counts against: a user's, or an address's."""
        session = self.current()
        return f"address {remote_here()}" if session is None else f"user {session.user}"

    def has_left(self) -> bool:
        """Whether this request came with a session that has ended since, or may have: nothing more may be done for it."""
        return any(visit.session is not None and self._is_gone(visit.session) for visit in self.visits().values())

    def _is_gone(self, session: Session) -> bool:
        return self.ending_of(session) is not None or self.is_cut_off

    def hold(self, session: Session) -> None:
        """Until `let_go`, a renewal of this session is noticed, also where it has no connection."""
        self._held[session.id] += 1
        self._mind(session)

    def _mind(self, session: Session) -> None:
        """From here on its deadline is kept up with renewals; another worker may have seen one already."""
        if session.id not in self._deadlines:
            known = self._registry.get(session.id) if self._broker.is_shared else None
            latest = session.expires if known is None else max(session.expires, known.expires)
            self._deadlines[session.id] = latest.timestamp()

    def let_go(self, session: Session) -> None:
        """What was done on behalf of this session is done."""
        self._held[session.id] -= 1
        if not self._held[session.id]:
            del self._held[session.id]
        self.forget(session)

    def goes_on(self, id: str) -> bool:
        """Whether a session with this public id is known, and not over."""
        session = self._registry.get(id)
        return session is not None and self.ending_of(session) is None

    async def while_valid(
        self, work: Coroutine[Any, Any, T], rights: Rights | None = None, *, limit: CallbackTimeout | None = None
    ) -> T:
        """What `work` gives, done on behalf of this request's session: cancelled, and answered with 401, when that ends.

        It is answered with 403 when `rights` that it has made use of are lost. A work whose own task ends the session is
        not cancelled for it; the answer is 401 all the same. When it takes longer than `limit` says it is cancelled, and
        `limit` raised once it has cleaned up.
        """
        brought = tuple(visit.session for visit in self.visits().values() if visit.session is not None)
        loop = asyncio.get_running_loop()
        due = math.inf if limit is None else loop.time() + limit.seconds
        task, ended = loop.create_task(work, name="callback over HTTP"), loop.create_future()
        self._work[task] = (brought, ended)
        if rights is not None:
            rights.lost = lambda: None if ended.done() else ended.set_result(None)
        try:
            while not (task.done() or ended.done() or self.has_left() or loop.time() >= due):
                ends_in = min((self.deadline(session) for session in brought), default=math.inf) - time.time()
                timeout = min(max(ends_in, 0.0) + TICK, max(due - loop.time(), 0.0), LONGEST_TIMER)
                await _first_of(task, ended, timeout=timeout)
            is_late = not task.done()
        finally:  # the session has ended, the client has gone, or there is no more time
            del self._work[task]
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=self._config.cancel_timeout)
            if not task.done():
                logger.warning("a callback over HTTP goes on %g s after its end", self._config.cancel_timeout)
        if self.has_left():
            if task.done() and not task.cancelled() and task.exception() is not None:
                logger.error("a callback failed after its session had ended", exc_info=task.exception())
            abort(401, "the session has ended")
        if ended.done():
            abort(403, "the user's rights have changed")
        if is_late and limit is not None:
            raise limit
        if task.cancelled():  # by itself; raised here it would be taken for the end of the request
            raise RuntimeError("the callback raised CancelledError")
        return task.result()

    async def is_over_within(self, seconds: float, session: Session) -> bool:
        """Wait for a session's end, for so long at most: whether it is over."""
        task, ended = cast("asyncio.Task[Any]", asyncio.current_task()), asyncio.get_running_loop().create_future()
        self._work[task] = ((session,), ended)
        try:
            if self.ending_of(session) is None:
                ends_in = max(self.deadline(session) - time.time(), 0.0) + TICK
                await asyncio.wait({ended}, timeout=min(ends_in, seconds))
        finally:
            del self._work[task]
        return self.ending_of(session) is not None

    async def while_on(self, body: Any, session: Session) -> AsyncIterator[Any]:
        """A response's body, as far as it comes before the session's end."""
        self.hold(session)
        try:
            async with body as chunks:
                async for chunk in chunks:
                    if self._is_gone(session):
                        return
                    yield chunk
        finally:
            self.let_go(session)

    async def depart(self) -> None:
        """Act on what the view did: log out, log in, renew. Before quart-auth writes its cookie; in a request context."""
        for extension, visit in self.visits().items():
            user: Any = getattr(g, str(extension.attribute_name), visit.user)
            if user is not visit.user and user.action in (Action.WRITE, Action.WRITE_PERMANENT):
                visit.login_position = await self._login_position(visit, str(user.auth_id))
            receipt = self._settle(extension, visit)
            if receipt is not None:
                # What the broker holds survives a restart: the browser is told of its logout after that, not before.
                # It does not wait for the sockets: their clients may not read.
                stored = asyncio.wrap_future(receipt.stored)
                await asyncio.wait({stored}, timeout=self._config.broker_timeout)
                if not stored.done() or stored.exception() is not None:
                    why = "other workers do not know of" if self._broker.is_shared else "a restart would forget"
                    security.error("not-stored reason='%s this end' remote=%s", why, remote_here())

    def leave(self) -> None:
        """The same for what was done after `depart`, or instead of it (an error on the way): nothing escapes."""
        for extension, visit in getattr(g, VISITS, {}).items():
            self._settle(extension, visit)
            if visit.held is not None:
                self.let_go(visit.held)
                visit.held = None

    def _settle(self, extension: QuartAuth, visit: Visit) -> PendingReceipt | None:
        user: Any = getattr(g, str(extension.attribute_name), visit.user)
        if user is None or (user is visit.settled and user is not visit.user):
            return None
        visit.settled = user
        if user.action is Action.DELETE:
            if extension.mode == "bearer":
                user.action = Action.PASS  # there is no cookie to delete, and quart-auth would warn of that
            return self._end_visit(visit, Ending.LOGGED_OUT, "logged out")
        if user.action is Action.PASS or extension.mode == "bearer":
            return None
        overtaken = visit.session is not None and self.ending_of(visit.session) is not None
        if user.auth_id is None or (user is visit.user and overtaken):
            user.action = Action.PASS  # nobody's renewal, or one that its session's end has overtaken: no cookie
            return None
        if user is visit.user:
            return None
        for connection in self._hub.of_visitor(visitor_of(request)) if has_request_context() else ():
            connection.end(CloseCode.SESSION_CHANGED, "somebody has logged in")
        return self._end_visit(visit, Ending.SWITCHED, "another login took its place")

    def _end_visit(self, visit: Visit, ending: Ending, reason: str) -> PendingReceipt | None:
        session = visit.session or visit.unproven
        if session is None:
            return None
        visit.session = visit.unproven = None
        return self.revoke(session=session, ending=ending, reason=reason)

    def log_out(self, extension: QuartAuth, caller: logins.Caller) -> None:
        """`logout_user()` in a callback over the websocket: it ends the session now. From any thread."""
        visit = self.visits().get(extension)
        session = None if visit is None else visit.session
        if session is None:
            return

        def act() -> None:
            caller.let_out()
            self.revoke(session=session, ending=Ending.LOGGED_OUT, reason="logged out")

        caller.logins.has_logged_out = caller.logins.has_logged_out or extension.singleton
        self.in_loop(act)

    @property
    def position(self) -> int:
        """Of the last revocation that is known here: what begins now has seen it."""
        return self._broker.last_position

    async def _login_position(self, visit: Visit, user: str) -> int:
        try:
            return await asyncio.wait_for(self._broker.position(), self._config.broker_timeout)
        except (TimeoutError, BrokerError):
            logger.warning("a login could not ask the broker for its position: it counts from when its request arrived")
            return visit.cleared.get(user, visit.position)

    # ------------------------------------------------------------------------------------------ `token.Keeper`

    def stamp(self, extension: QuartAuth, auth_id: Any) -> Token:
        """The token to sign: the request's own for a renewal, a new session's for everything else (ASVS 7.2.4)."""
        now = time.time()
        visit: Visit | None = getattr(g, VISITS, {}).get(extension) if has_app_context() else None
        if visit is not None and visit.token is not None and visit.user is not None:
            writes_own_user = getattr(g, str(extension.attribute_name), None) is visit.user
            if writes_own_user and auth_id in (visit.user.auth_id, visit.token.auth_id):
                if visit.token.id in self._deadlines:
                    self._deadlines[visit.token.id] = self._until(extension, visit.token.login_at, now)
                if visit.session is not None:
                    until = _utc(self._until(extension, visit.token.login_at, now))
                    self._see(dataclasses.replace(visit.session, expires=until))
                return visit.token
        seen = self._broker.last_position
        if visit is not None:
            # A ban names the user as the app will see them, which the user class decides.
            names = (auth_id, extension.user_class(auth_id).auth_id) if extension.singleton else ()
            users = {str(name) for name in names}
            overtaken = any(
                self._replica.ending_of("", (user,), visit.cleared.get(user, visit.position)) for user in users
            )
            seen = visit.position if overtaken else visit.login_position or seen
        sid = new_sid() if visit is None or visit.next_sid is None else visit.next_sid
        token = Token(auth_id, sid, now, seen, now)
        self._see_login(extension, token, visit)
        security.info("login user=%.64r session=%s remote=%s", auth_id, token.id, remote_here())
        return token

    def admit(self, extension: QuartAuth, token: Token) -> bool:
        """Whether a well-signed token still counts; remembers it for the request that is arriving."""
        if self._start_here():
            self._broker.observe(token.seen)
        is_cut_off = self.is_cut_off
        users = (str(token.auth_id),) if extension.singleton else ()
        ending = self._replica.ending_of(token.id, users, token.seen)
        too_old = time.time() > self._until(extension, token.login_at, token.issued)
        if ending is None and (too_old or self._is_idle(token.id)):
            ending = Ending.EXPIRED
        visit = _arriving.get()
        if visit is not None:
            visit.ending = ending
            visit.over = None if ending is None else token.id
            visit.token = token if ending is None else None
            visit.is_cut_off = is_cut_off
        return ending is None and not is_cut_off

    def expired(self, extension: QuartAuth) -> None:
        """A token was well signed, and is too old."""
        del extension
        visit = _arriving.get()
        if visit is not None:
            visit.ending = Ending.EXPIRED

    def _until(self, extension: QuartAuth, login_at: float, issued: float) -> float:
        until = issued + float(extension.duration or 0)
        absolute = self._config.absolute_timeout
        return until if absolute is None else min(until, login_at + absolute)

    # ----------------------------------------------------------------------------------------- what has ended

    def ending_of(self, session: Session) -> Ending | None:
        """Why a session is over; None while it is not."""
        ending = self._replica.ending_of(session.id, session.users, session.seen)
        return Ending.EXPIRED if ending is None and time.time() > self.deadline(session) else ending

    def _is_idle(self, id: str) -> bool:
        last, timeout = self._active.get(id), self._config.idle_timeout
        if timeout is None or last is None or time.time() <= last[0] + timeout + self._margin:
            return False
        return self._hears_of_activity

    @property
    def _hears_of_activity(self) -> bool:
        """Whether what a user does on another worker is known here: else nobody is idle."""
        return not self._broker.is_shared or self.is_proven

    def touch(self, session: Session) -> None:
        """The session's user did something: an HTTP request, or a callback. Not a heartbeat, a stream or a push."""
        self._stay_awake(session)
        self._see(session, active=True)

    def _stay_awake(self, session: Session) -> None:
        if self._config.idle_timeout is not None:
            self._active[session.id] = (time.time(), session)

    def touch_for_callback(self, connection: Connection) -> None:
        """The same for a connection's callback, of which there are many: when the session was last seen, and by whom, is
        noted once a second.
        """
        session = connection.session
        if session is None:
            return
        now = time.time()
        self._stay_awake(session)
        if not 0 <= now - connection.seen_at < NOTED_EVERY:  # below 0: the clock was set back
            connection.seen_at = now
            self._see(session, active=True)

    def sweep(self) -> None:
        """End what has been idle for too long, so that forgetting about it does not bring it back."""
        for session in [session for _, session in self._active.values() if self._is_idle(session.id)]:
            self.revoke(session=session, ending=Ending.EXPIRED, reason="idle")
            self._active.pop(session.id, None)  # also where it had ended already: the replica knows

    # --------------------------------------------------------------------------------- a connection's sessions

    def watch(self, connection: Connection, sessions: Iterable[Session]) -> None:
        """End a connection when one of its sessions expires: within a second, and not before a renewal is over."""
        loop = asyncio.get_running_loop()
        for session in sessions:
            self._mind(session)
            if session.id not in self._active:
                self._stay_awake(session)  # it was seen when the websocket arrived
            _ExpiryTimer(self, loop, connection, session).arm()

    def deadline(self, session: Session) -> float:
        """Unix time at which a session ends if nothing happens."""
        deadline = self._deadlines.get(session.id, session.expires.timestamp())
        timeout, last = self._config.idle_timeout, self._active.get(session.id)
        if timeout is None or last is None or not self._hears_of_activity:
            return deadline
        return min(deadline, last[0] + timeout + self._margin)

    def expire(self, session: Session) -> None:
        """A session's time is up: its connections close, and the handshake decides about those that come back."""
        if self._is_idle(session.id):  # nothing but this process knows of that: it has to be remembered
            self.revoke(session=session, ending=Ending.EXPIRED, reason="idle")
            return
        security.info("expired user=%.64r session=%s", session.user, session.id)
        for connection in self._hub.of_session(session.id):
            connection.end(CloseCode.SESSION_CHANGED, "the session has expired")
        self.on_end(session, "expired")

    def forget(self, session: Session) -> None:
        """A connection of this session has gone."""
        if not self._held[session.id] and not self._hub.of_session(session.id):
            self._deadlines.pop(session.id, None)

    def may_run(self, connection: Connection) -> bool:
        """Whether a callback may start; if not, the connection is over.

        Compared at each start, not left to a timer that a suspended process fires late.
        """
        if connection.ended:
            return False
        if connection.bound_to and self.is_cut_off:
            connection.end(*self.cut_off)
        now = time.time()
        for session in connection.bound_to:
            if now > self.deadline(session):
                connection.end(CloseCode.SESSION_CHANGED, "the session has expired")
        return not connection.ended

    # ------------------------------------------------------------------------------------------ known sessions

    def known(self, user: str | None = None) -> tuple[KnownSession, ...]:
        """What `QuartBackend.sessions` says."""
        self._start_here()
        # Not handed to the event loop: the registry and the replica are safe to read here, and there may be many.
        found = self._registry.known(None if user is None else str(user))
        return tuple(session for session in found if self.ending_of(session) is None)

    def _see(self, session: Session, *, active: bool = False) -> None:
        """A session of the singleton extension's was seen, here and now."""
        if self._started and session.users and session.user is not None and self.ending_of(session) is None:
            self._record(self._registry.see(session, time.time(), sender(), active=active))

    def _see_login(self, extension: QuartAuth, token: Token, visit: Visit | None) -> None:
        if extension.singleton and can_be_signed(token.auth_id):
            # Outside a request nobody promises that a user can be made.
            auth_id = token.auth_id if visit is None else extension.user_class(token.auth_id).auth_id
            users = frozenset(str(name) for name in (token.auth_id, auth_id) if name is not None)
            self._see(self._session(extension, token, auth_id, users))

    def _record(self, records: Iterable[SessionRecord]) -> None:
        for record in records:
            self._broker.record(record)

    def _recall(self, replica: Replica) -> list[SessionRecord]:
        """What an earlier life, or another worker, knew of sessions; gives the records of those that are over."""
        records = self._broker.records()
        longest = self._config.absolute_timeout
        if longest is not None:  # it may have been a longer one then
            records = [dataclasses.replace(one, expires=min(one.expires, one.since + longest)) for one in records]

        def is_over(session: Session) -> bool:
            ended = replica.ending_of(session.id, session.users, session.seen) is not None
            return ended or time.time() > session.expires.timestamp()

        return self._registry.restore(records, is_over)

    def _forget_known(self, revocation: Revocation) -> list[SessionRecord]:
        match revocation.scope:
            case Scope.SESSION:
                # The store is told also of one that nobody has told this worker of: it would keep that until a restart.
                return self._registry.forget(revocation.subject) or [SessionRecord.over(revocation.subject)]
            case Scope.USER:
                return self._registry.forget_all(self.is_over, revocation.subject)
            case Scope.ALL:
                return self._registry.forget_all(self.is_over, None)

    # ------------------------------------------------------------------------------------------------- revoke

    def revoke(
        self,
        *,
        session: Session | str | None = None,
        user: str | None = None,
        all: bool = False,
        keep: Session | str | Iterable[Session | str] | None = None,
        ending: Ending = Ending.REVOKED,
        reason: str = "",
    ) -> PendingReceipt:
        """End sessions, now: what `QuartBackend.revoke` says, plus the kind of ending. From any thread."""
        if (session is not None) + (user is not None) + all != 1:
            raise TypeError("revoke() takes exactly one of session=, user=, all=True")
        self._start_here()
        kept = tuple(_id_of(one) for one in _as_iterable(keep))
        user = None if user is None else str(user)  # quart-auth takes any JSON value for an auth_id
        return self.in_loop(lambda: self._revoke(session, user, kept, ending, reason))

    def _revoke(
        self, session: Session | str | None, user: str | None, keep: tuple[str, ...], ending: Ending, reason: str
    ) -> PendingReceipt:
        revocation = self._revocation(session, user, keep, ending, reason)
        cleared = self._clear_way(user, revocation.position) if user is not None else []
        receipt = self._apply(revocation, session if isinstance(session, Session) else None)

        def settle(stored: concurrent.futures.Future[Revocation]) -> None:
            if stored.exception() is None:
                for positions in cleared:
                    positions[revocation.subject] = stored.result().position

        if cleared:  # before the login's own question is answered, which comes after this
            receipt.stored.add_done_callback(settle)
        self._compact(revocation)
        return receipt

    def _compact(self, revocation: Revocation) -> None:
        compaction = self._replica.compaction(revocation.user) if revocation.user is not None else None
        if compaction is None:
            return
        if self._broker.is_shared:  # every worker does it for itself: it has a position of the past
            self._end(compaction, self._replica.add)
        else:
            self._apply(compaction)

    def _apply(self, revocation: Revocation, known: Session | None = None) -> PendingReceipt:
        """Make a revocation true: in this process now, everywhere else soon."""
        # A shared broker gives it a later position than was known here: until that is known, nothing is spared.
        add = self._replica.add_unsettled if self._broker.is_shared else self._replica.add
        endings, is_new = self._end(revocation, add, known, by=caller_here())
        if not is_new:
            return receipt_of(endings, worker=self._broker.worker.id)
        appended = self._store(revocation)
        self._record(self._forget_known(revocation))
        return receipt_of(endings, worker=self._broker.worker.id, appended=appended)

    def _store(self, revocation: Revocation) -> Appended:
        if not self._started:
            self._early.append(revocation)
            away = Appended(concurrent.futures.Future(), concurrent.futures.Future())
            away.stored.set_exception(BrokerError("the broker has not been there yet"))
            away.answers.set_result(Answers({}))
            return away
        appended = self._broker.append(revocation)
        if self._broker.is_shared:
            appended.stored.add_done_callback(self._stored)
        return appended

    def _stored(self, stored: concurrent.futures.Future[Revocation]) -> None:
        """In a thread of the broker's: before anybody hears of a later position, this one is known here."""
        if stored.exception() is None:
            self._soon(lambda: self._replica.add(stored.result()))

    def revoked(self, revocation: Revocation, *, own: bool) -> concurrent.futures.Future[Any] | None:
        """What `brokers.base.Listener` says."""
        if own:
            self._replica.add(revocation)
            return None
        endings, is_new = self._end(revocation, self._replica.add)
        if is_new:
            self._forget_known(revocation)  # the store is told by who has revoked
            self._compact(revocation)
        return closed_by(endings)

    def _end(
        self, revocation: Revocation, add: Callable[[Revocation], bool], known: Session | None = None, by: str = "-"
    ) -> tuple[list[Pending[float]], bool]:
        """First the replica, then the hub, and no await between them. Gives whether anything is new about it, too."""
        reason = revocation.reason or revocation.ending.value
        was_over = known is not None and self.is_over(known)
        is_new = add(revocation)
        connections = self._matching(revocation)
        ended = {} if known is None or was_over else {known.id: known}
        for connection in connections:
            ended.update((bound.id, bound) for bound in connection.bound_to if self.is_over(bound))
        endings = [connection.end(self._close_code(connection, revocation), reason) for connection in connections]
        calling = asyncio.current_task() if _running_loop() is not None else None
        for task, (sessions, work_ended) in self._work.items():
            if task is not calling and not work_ended.done() and any(map(self.is_over, sessions)):
                work_ended.set_result(None)
        # ---------------------------------- whoever had a connection has none now; what follows is for the others
        if is_new:
            security.log(
                logging.WARNING if revocation.ending is Ending.REVOKED else logging.INFO,
                "end %s=%.64r ending=%s reason=%.64r by=%.64r remote=%s connections=%d",
                revocation.scope, revocation.subject, revocation.ending, reason, by, remote_here(), len(connections),
            )  # fmt: skip
            for session in ended.values():
                self._active.pop(session.id, None)
                self.on_end(session, reason)
        return endings, is_new

    def _clear_way(self, user: str, position: int) -> list[dict[str, int]]:
        """A view or callback that ends a user's sessions and then logs that user in: the login is not one of those."""
        caller, cleared = logins.caller_here(), []

        def clear(positions: dict[str, int], arrived: int) -> None:
            if self._replica.ending_of("", (user,), positions.get(user, arrived)) is None:  # somebody else's ban stands
                positions[user] = position
                cleared.append(positions)

        if caller is not None:
            clear(caller.logins.cleared, caller.logins.position)
        for extension, visit in (getattr(g, VISITS, {}) if has_app_context() else {}).items():
            if getattr(g, str(extension.attribute_name), visit.user) is visit.user:  # nobody has logged in yet
                clear(visit.cleared, visit.position)
        return cleared

    def _revocation(
        self, session: Session | str | None, user: str | None, keep: tuple[str, ...], ending: Ending, reason: str
    ) -> Revocation:
        self.adopt()
        position = self._broker.next_position()
        longest = max((float(extension.duration or 0) for extension in self._extensions), default=0.0)
        if self._config.absolute_timeout is not None:
            longest = min(longest, self._config.absolute_timeout)
        # Without any extension, as before the first request of an app that makes it late: quart-auth's own default.
        expires = time.time() + (longest or 365 * 24 * 3600.0)
        if session is None:
            scope = Scope.ALL if user is None else Scope.USER
            return Revocation(scope, user or "", position, expires, ending, keep, reason=reason)
        # Only users of the singleton have cut-offs: another extension's session goes by its id alone.
        owner = session.user if isinstance(session, Session) and session.users else None
        return Revocation(Scope.SESSION, _id_of(session), position, expires, ending, user=owner, reason=reason)

    def _matching(self, revocation: Revocation) -> list[Connection]:
        match revocation.scope:
            case Scope.SESSION:
                found = self._hub.of_session(revocation.subject)
            case Scope.USER:
                found = self._hub.of_user(revocation.subject)
            case Scope.ALL:
                found = tuple(connection for connection in self._hub.all() if connection.bound_to)
        return [
            connection
            for connection in found
            if not connection.ended and any(self.is_over(bound) for bound in connection.bound_to)
        ]

    def is_over(self, session: Session) -> bool:
        """Whether a session was revoked."""
        return self._replica.ending_of(session.id, session.users, session.seen) is not None

    def _close_code(self, connection: Connection, revocation: Revocation) -> CloseCode:
        own = connection.session
        if own is None or not self.is_over(own):
            return CloseCode.SESSION_CHANGED  # another extension's session: the page's own login still stands
        if revocation.ending is Ending.LOGGED_OUT and connection.login_required is False:
            return CloseCode.SESSION_CHANGED  # nobody may come back, as nobody
        return CLOSE_CODES[revocation.ending]

    def known_revocations(self) -> list[Revocation]:
        """What `brokers.base.Listener.known` says."""
        return self._replica.known()

    def recorded(self, records: Iterable[SessionRecord]) -> None:
        """What `brokers.base.Listener` says: renewals and activity count here, too."""
        now = time.time()
        for record in records:
            if record.expires < now:
                self._registry.forget(record.id)
                continue
            session, is_active = self._registry.learn(record)
            if self.is_over(session):
                self._registry.forget(record.id)
                continue
            if record.id in self._deadlines:
                self._deadlines[record.id] = max(self._deadlines[record.id], record.expires)
            if is_active and record.id in self._active:
                self._active[record.id] = now, session  # by our own clock: theirs may be another one

    def cut_work(self) -> None:
        """Nobody can tell any more which sessions have ended: what runs for one over HTTP is over."""
        for sessions, work_ended in self._work.values():
            if sessions and not work_ended.done():
                work_ended.set_result(None)

    def begin_anew(self) -> None:
        """The broker is back. What users have done meanwhile elsewhere is not known: nobody has been idle."""
        now = time.time()
        self._active = {id: (now, session) for id, (_, session) in self._active.items()}

    def _soon(self, action: Callable[[], object]) -> None:
        """Do something on the event loop, or here if there is none."""
        loop = self._loop
        if loop is not None and loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has closed
                loop.call_soon_threadsafe(action)
        else:
            action()

    def in_loop(self, action: Callable[[], T]) -> T:
        """Run something short on the event loop and wait for it; in place when there is no loop, or when this is it."""
        loop = self._loop
        if loop is None or not loop.is_running() or _running_loop() is loop:
            return action()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def act() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(action())
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who gets it
                done.set_exception(error)

        loop.call_soon_threadsafe(act)
        while True:
            try:
                return done.result(LOOP_CHECK)
            except concurrent.futures.TimeoutError:
                if done.done():
                    raise
                if not loop.is_running() and done.cancel():  # it stopped before it got to this
                    return action()


class _ExpiryTimer:
    """Ends one connection when one of its sessions does."""

    __slots__ = ("_handle", "_loop", "_session", "_sessions")

    def __init__(
        self, sessions: Sessions, loop: asyncio.AbstractEventLoop, connection: Connection, session: Session
    ) -> None:
        self._sessions = sessions
        self._loop = loop
        self._session = session
        self._handle: asyncio.TimerHandle | None = None
        connection.gone.append(self._cancel)

    def arm(self) -> None:
        delay = self._sessions.deadline(self._session) - time.time()
        self._handle = _timer(self._loop, max(0.0, min(delay, LONGEST_TIMER)), self._check)

    def _check(self) -> None:
        if time.time() < self._sessions.deadline(self._session):
            self.arm()
        else:
            self._sessions.expire(self._session)

    def _cancel(self, _connection: Connection) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._sessions.forget(self._session)


def _timer(loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    """A timer in a context of its own.

    The event loop keeps a cancelled timer until it would have been due, an hour or so, and with it the timer's context:
    there the connection or the request is, with all that was sent to it.
    """
    return loop.call_later(seconds, call, context=contextvars.Context())


async def _first_of(*futures: asyncio.Future[Any], timeout: float) -> None:
    """Wait for the first of these, for so many seconds at most."""
    loop = asyncio.get_running_loop()
    late = loop.create_future()
    timer = _timer(loop, timeout, lambda: None if late.done() else late.set_result(None))
    try:
        await asyncio.wait({*futures, late}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()


@dataclass
class _Countdown:
    """Calls `finish` when so many things are done, in whatever thread the last of them is."""

    left: int
    finish: Callable[[], object]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _future: concurrent.futures.Future[Any]) -> None:
        with self.lock:
            self.left -= 1
            if self.left:
                return
        self.finish()


def receipt_of(
    endings: list[Pending[float]],
    *,
    worker: str,
    appended: Appended | None = None,
    answers: concurrent.futures.Future[Answers] | None = None,
) -> PendingReceipt:
    """A receipt that is complete when every close frame is out, and everybody who was asked has answered.

    Args:
        endings: of this process's connections.
        worker: this worker's id.
        appended: what became of the revocation, if it was one.
        answers: what other workers answer; those to the revocation, if it was one.
    """
    if appended is None:
        appended = Appended(concurrent.futures.Future(), concurrent.futures.Future())
        appended.stored.set_result(cast("Any", None))
        appended.answers.set_result(Answers({}))
    stored, answers = appended.stored, answers or appended.answers
    receipt = PendingReceipt(stored)

    def finish() -> None:
        failed = stored.exception() is not None
        confirmed, missing = 0 if failed else 1, [worker] if failed else []
        closed, slowest = len(endings), max((ending.result(0) for ending in endings), default=0.0)
        missing += answers.result().missing
        for other, answer in answers.result().given.items():
            try:
                theirs = Closed.of_json(answer)
            except (ValueError, TypeError, KeyError):  # another version's, or a worker that could not do it
                missing.append(other)
            else:
                closed, confirmed = closed + theirs.connections, confirmed + 1
                slowest = max(slowest, theirs.slowest_ms)
        receipt.resolve(Receipt(closed, confirmed, tuple(missing), slowest))

    one_done = _Countdown(len(endings) + 2, finish)
    for ending in endings:
        receipt.when_delivered(ending.delivered)
        ending.add_done_callback(one_done)
    stored.add_done_callback(one_done)
    answers.add_done_callback(one_done)
    return receipt


def closed_by(endings: list[Pending[float]]) -> concurrent.futures.Future[Any]:
    """What this worker answers to another that has ended some of its connections: known when the close frames are out."""
    answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def finish() -> None:
        slowest = max((ending.result(0) for ending in endings), default=0.0)
        answer.set_result(Closed(len(endings), slowest).json())

    if endings:
        one_done = _Countdown(len(endings), finish)
        for ending in endings:
            ending.add_done_callback(one_done)
    else:
        finish()
    return answer


def _id_of(session: Session | str) -> str:
    return session.id if isinstance(session, Session) else session


def _as_iterable(keep: Session | str | Iterable[Session | str] | None) -> Iterable[Session | str]:
    if keep is None:
        return ()
    return (keep,) if isinstance(keep, Session | str) else keep


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def caller_here() -> str:
    """Who asked for a revocation, where a request or a websocket tells: for the log only."""
    for extension, visit in (getattr(g, VISITS, {}) if has_app_context() else {}).items():
        if extension.singleton and visit.user is not None and visit.user.auth_id is not None:
            return str(visit.user.auth_id)
    return "-"
