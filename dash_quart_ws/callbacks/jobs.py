"""Background callbacks' jobs belong to a session: they end with it, and their results are nobody else's.

Dash names a job's result by the callback and its arguments alone: two users who click the same button at the same time are
handed one another's. And nothing ends a job whose user is gone. So each callback's manager is stood in for by one that
knows on whose behalf it is asked.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from dash import DiskcacheManager
from quart import abort, current_app, g, has_request_context, session
from quart.sessions import SecureCookieSession

from .._dash import cancels_jobs
from .._quart import replace_session
from ..exceptions import TooManyCallbacks
from ..sessions.access import access_of, is_allowed
from ..sessions.logins import NO_RESPONSE, unchangeable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..connections.session import Session
    from ..sessions.access import Access
    from ..sessions.sessions import Sessions

logger = logging.getLogger("dash_quart_ws.jobs")

ALLOWED, REFUSED = "y", "n"

LOOK_EVERY = 5.0
"""Seconds between two looks whether a job still runs, so that nobody waits for the end of its session any more."""

START_TAKES = 60.0
"""Seconds, at most, from when a job's process was started until its handle is made: it may be a busy machine."""

_asked: contextvars.ContextVar[str | None] = contextvars.ContextVar("dash_quart_ws_asked", default=None)
"""The job whose result the request at hand has asked for, by its key."""


class Jobs:
    """The jobs of one app's sessions."""

    def __init__(
        self, sessions: Sessions, spawn: Callable[[Coroutine[Any, Any, None], str], object], *, most: int
    ) -> None:
        self._sessions = sessions
        self._spawn = spawn
        self._most = most
        self._lock = threading.Lock()
        self._running: dict[str, list[Callable[[], bool]]] = {}
        """Whose jobs run, as far as is known, and what tells whether one still does."""

    def adopt(self, callback_map: dict[str, Any], default: Any) -> None:
        """Stand in for the manager of each background callback, and of what cancels it; `default` is the app's own."""
        for spec in callback_map.values():
            background = spec.get("background") or {}
            manager = background.get("manager") or spec.get("manager") or default
            if (background or cancels_jobs(spec)) and not isinstance(manager, SessionManager | None):
                # Dash asks the first one; what cancels a job, and MCP's tasks, the other.
                background["manager"] = spec["manager"] = SessionManager(manager, self, access_of(spec["callback"]))

    def owner(self, *, by_user: bool) -> str:
        """Whom a result belongs to: the session at hand, or its user where results are kept to be used again."""
        session = self._sessions.current()
        if session is None:
            return "nobody"
        return f"user {session.user}" if by_user else f"session {session.id}"

    def session(self) -> Session | None:
        """The session at hand; for one that has just ended nothing is started."""
        if self._sessions.has_left():
            abort(401, "the session has ended")
        return self._sessions.current()

    def payer(self) -> str:
        """Whom a job counts against."""
        return self._sessions.payer()

    def make_room(self, payer: str) -> None:
        """Before a job is started. From any thread.

        Raises:
            TooManyCallbacks: this user, or for nobody this address, has as many running as they may.
        """
        found = list(self._running.get(payer, ()))
        if len(found) >= self._most:
            for is_running in found:
                if not is_running():
                    self._end(payer, is_running)
            if len(self._running.get(payer, ())) >= self._most:
                logger.warning("too many background jobs of one user: %d", self._most)
                raise TooManyCallbacks

    def started(self, session: Session | None, payer: str, manager: Any, job: Any) -> None:
        """A job has been started on behalf of this session. From any thread."""
        is_running = _watch(manager, job)
        with self._lock:
            self._running.setdefault(payer, []).append(is_running)

        async def mind() -> None:
            try:
                await self._mind(session, manager, job, is_running)
            finally:
                self._end(payer, is_running)

        self._sessions.in_loop(lambda: self._spawn(mind(), f"job {job}"))

    def _end(self, payer: str, is_running: Callable[[], bool]) -> None:
        with self._lock:
            running = self._running.get(payer, [])
            if is_running in running:
                running.remove(is_running)
            if not running:
                self._running.pop(payer, None)

    async def _mind(self, session: Session | None, manager: Any, job: Any, is_running: Callable[[], bool]) -> None:
        while session is None:  # nobody's ends by itself
            await asyncio.sleep(LOOK_EVERY)
            if not await asyncio.to_thread(is_running):
                return
        self._sessions.hold(session)
        try:
            while not await self._sessions.is_over_within(LOOK_EVERY, session):
                if not await asyncio.to_thread(is_running):
                    return
        finally:
            self._sessions.let_go(session)
        try:
            if await asyncio.to_thread(is_running):
                await asyncio.to_thread(manager.terminate_job, job)
                logger.info("a background job ended with its session=%s", session.id)
        except Exception:  # the manager's own, of another process or host: it may raise anything
            logger.exception("a background job goes on after its session has ended session=%s", session.id)


class SessionManager:
    """A background callback manager, as the session at hand may use it. All but what is here is the manager's own."""

    def __init__(self, manager: Any, jobs: Jobs, access: Access) -> None:
        self._manager = manager
        self._access = access
        self._jobs = jobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def build_cache_key(self, *args: Any, **kwargs: Any) -> str:
        """The name of a job's result: another one for another session, or user where results are cached."""
        key = self._manager.build_cache_key(*args, **kwargs)
        mark = ALLOWED if is_allowed(self._access) else REFUSED
        return f"{mark}{self._owner()}{_digest(key)}"

    def _owner(self) -> str:
        return _digest(self._jobs.owner(by_user=self._manager.cache_by is not None))

    def get_progress(self, key: str) -> Any:
        self._check(key)
        return self._manager.get_progress(key)

    def get_result(self, key: str, handle: Any) -> Any:
        """The result, for who may still have it: groups may have been lost since the job was started."""
        self._check(key)
        _asked.set(key)
        return self._manager.get_result(key, self._own(handle))  # which ends the job, too

    def result_ready(self, key: str) -> bool:
        self._check(key)
        return bool(self._manager.result_ready(key))

    def job_running(self, handle: Any) -> bool:
        job = self._own(handle)
        if job is not None and self._manager.job_running(job):
            return True
        # Dash has asked for the result before, and takes a job that is over without one for cancelled. It may have come to
        # its end in between: then its result is there now, and worth another question.
        key = _asked.get()
        try:
            return key is not None and bool(self._manager.result_ready(key))
        except NotImplementedError:  # only MCP needs it: a manager of the app's own may go without
            return False

    def terminate_job(self, handle: Any) -> None:
        job = self._own(handle)
        if job is not None:
            self._manager.terminate_job(job)

    def terminate_unhealthy_job(self, handle: Any) -> bool:
        job = self._own(handle)
        return job is not None and bool(self._manager.terminate_unhealthy_job(job))

    def _handle(self, job: Any) -> str:
        """What Dash signs, and the browser keeps: the job, whose it is, and when it was started."""
        return f"{job}.{_digest(self._jobs.owner(by_user=False))}.{int(time.time())}"

    def _own(self, handle: Any) -> str | None:
        """The job of a handle, if it is the session's at hand, and is still there."""
        job, owner, begun = ("", "", *str(handle).rsplit(".", 2))[-3:]  # Dash's own, of before, names nobody
        if owner != _digest(self._jobs.owner(by_user=False)):
            return None
        return job if not isinstance(self._manager, DiskcacheManager) or _began(int(job), int(begun)) else None

    def _check(self, key: str) -> None:
        if key[1:65] != self._owner():
            abort(403, "another session's job")
        if key.startswith(ALLOWED) and not is_allowed(self._access):
            abort(403, "the user's rights have changed")

    def call_job_fn(self, key: str, job_fn: Any, args: Any, context: Any) -> Any:
        """Start a job, and see to it that it does not outlive its session."""
        session, payer = self._jobs.session(), self._jobs.payer()  # before the start, which takes its time
        self._jobs.make_room(payer)
        if isinstance(self._manager, DiskcacheManager):  # others may carry no objects, and know of no request
            context["dash_response"] = NO_RESPONSE
            job_fn = functools.partial(_run_apart, job_fn)
        job = self._manager.call_job_fn(key, job_fn, args, context)
        self._jobs.started(session, payer, self._manager, job)
        return self._handle(job)


class _JobSession(SecureCookieSession):
    """Quart's `session` in a job: as it was when the job was started, and there it stays."""

    @property
    def modified(self) -> bool:
        return False

    @modified.setter
    def modified(self, _modified: bool) -> None:
        NO_RESPONSE.refuse()


def _run_apart(job_fn: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A job, in its own process. That may have been forked off in the middle of a request: what the job did to the user or to
    quart's `session` there would be lost without a word.
    """
    if has_request_context():
        replace_session(_JobSession(dict(session)))
        for extension in current_app.extensions.get("QUART_AUTH", ()):
            setattr(g, extension.attribute_name, unchangeable(extension.load_user()))
    return job_fn(*arguments, **options)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _began(process: int, moment: int) -> bool:
    """Whether a process was started at about this Unix time: its id may be another process's by now."""
    import psutil  # type: ignore[import-untyped]  # what DiskcacheManager itself needs

    try:
        return abs(float(psutil.Process(process).create_time()) - moment) <= START_TAKES
    except psutil.NoSuchProcess:
        return False


def _watch(manager: Any, job: Any) -> Callable[[], bool]:
    """Whether a job still runs, by something that outlasts it: a process id may be another process's by then."""
    if not isinstance(manager, DiskcacheManager):
        return lambda: bool(manager.job_running(job))
    import psutil

    try:
        process = psutil.Process(int(job))
    except psutil.NoSuchProcess:
        return lambda: False

    def is_running() -> bool:
        try:
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return is_running
