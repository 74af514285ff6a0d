"""Which groups a user is in, and what has to go when that changes.

The groups come from the app's own `list_groups(user)`. An HTTP request asks for them once; a connection keeps what it
was told, until `rights_changed`. While a callback runs, what it was allowed because of them is noted: when they change,
exactly that work ends that would no longer be allowed, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from quart import current_app, g, has_app_context

from .._dash import callback_context
from ..exceptions import ConfigurationError, GroupsUnknown

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("dash_quart_ws.rights")

CheckType = Literal["one_of", "all_of", "none_of"]

RETRY_AFTER = 1.0
"""Seconds after a failure before the app is asked again."""

THREADS = 4
"""For a `list_groups` that is not async."""

NO_LISTS = (str, bytes, Mapping)

RIGHTS = "_dash_quart_ws_rights"
"""Where `g` holds the `Rights` of a request or a websocket, and a background job's context the names of its groups."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a user's groups must be like."""

    groups: frozenset[str] | None
    """None: a login is enough."""
    check_type: CheckType = "one_of"

    def met_by(self, groups: frozenset[str]) -> bool:
        """Whether somebody with these groups may."""
        if self.groups is None:
            return True
        match self.check_type:
            case "one_of":
                return bool(groups & self.groups)
            case "all_of":
                return groups >= self.groups
            case "none_of":
                return not groups & self.groups


def group_name(group: Any) -> str:
    """A group as text, also a number or a member of an enumeration."""
    return str.__str__(group) if isinstance(group, str) else str(group)


Decisions = list[Requirement | None]
"""What one callback was told about its user: requirements that were checked, None where it saw all the groups."""

_decisions: contextvars.ContextVar[Decisions | None] = contextvars.ContextVar("dash_quart_ws_decisions", default=None)


class Groups:
    """The app's `list_groups(user)`, and everybody who has asked it and still relies on the answer."""

    def __init__(self, source: Callable[[str], Any] | None, timeout: float) -> None:
        self.source = source
        self.timeout = timeout
        self._live: weakref.WeakSet[Rights] = weakref.WeakSet()
        self._failures: dict[str, float] = {}
        self._logged_at = float("-inf")
        self._threads: ThreadPoolExecutor | None = None

    def failed(self, user: str, error: BaseException) -> None:
        """There was no answer: this user is not asked for again for a while, and the log has why."""
        now = asyncio.get_running_loop().time()
        self._failures = {name: at for name, at in self._failures.items() if now < at + RETRY_AFTER}
        self._failures[user] = now
        if now >= self._logged_at + RETRY_AFTER:
            self._logged_at = now
            logger.error(
                "list_groups failed for user=%.64r: callbacks that need a group are refused", user, exc_info=error
            )

    def has_just_failed(self, user: str) -> bool:
        """Whether it is too early to ask again."""
        return asyncio.get_running_loop().time() < self._failures.get(user, float("-inf")) + RETRY_AFTER

    def of(self, user: str) -> Rights:
        """The rights of a user, for a new request or connection; not asked for yet."""
        rights = Rights(self, user)
        self._live.add(rights)
        return rights

    async def ask(self, user: str) -> frozenset[str]:
        """What the app says now.

        Raises:
            Exception: whatever the app's function raises; TimeoutError when it takes too long.
        """
        if self.source is None:
            return frozenset()
        async with asyncio.timeout(self.timeout):
            found = await self._call(user)
            if inspect.isawaitable(found):  # of a function that gives a coroutine without being one
                found = await found
        if isinstance(found, NO_LISTS) or not isinstance(found, Iterable):
            # Its type only: what it gave by mistake, such as the user's whole record, is nothing for a log.
            kind = type(found).__name__
            raise TypeError(f"list_groups gave a value of type {kind}: it has to give a list of groups, empty for none")
        return frozenset(map(group_name, found))

    def _call(self, user: str) -> Any:
        source = cast("Callable[[str], Any]", self.source)
        # An object with an async __call__, too: what a thread has made of it would be lost when nobody waits for it any more.
        if inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(type(source).__call__):
            return source(user)
        # In threads of its own: one that hangs holds up nothing but groups.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="list_groups")
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._threads, context.run, source, user)

    def stop(self) -> None:
        """The server has gone down."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def changed(self, user: str) -> list[Rights]:
        """Whatever was known of this user is not to be relied on any more; who has to read it again."""
        self._failures.pop(user, None)
        concerned = [rights for rights in self._live if rights.user == user]
        for rights in concerned:
            rights.forget()
        return concerned


class Rights:
    """One user's groups, as one request or connection knows them. Belongs to the event loop, but for reading `known`."""

    def __init__(self, groups: Groups, user: str) -> None:
        self.user = user
        self.lost: Callable[[], object] = lambda: None
        """Called when something goes on that the user is no longer allowed: it has to end all that."""
        self.depends: Callable[[], bool] = lambda: False
        """Whether something else than a running callback was decided by the groups: a topic's subscription."""
        self._groups = groups
        self._lock = asyncio.Lock()
        self._known: frozenset[str] | None = None
        self._wanted = 1
        self._read = 0
        self._judged = 1
        self._running: dict[int, Decisions] = {}

    @property
    def known(self) -> frozenset[str]:
        """The groups.

        Raises:
            ConfigurationError: the app has not said where they come from.
            GroupsUnknown: its function failed, or took too long.
        """
        if self._groups.source is None:
            raise ConfigurationError(
                "groups come from the app: give QuartBackend(list_groups=…), async list_groups(user)"
            )
        if self._known is None:
            raise GroupsUnknown(f"the groups of {self.user!r} are not known: list_groups failed, see the log")
        return self._known

    def carried(self) -> list[str] | None:
        """The groups for a job in another process; None where they are not known."""
        return None if self._known is None else sorted(self._known)

    def forget(self) -> None:
        """The groups have changed: the next `read` asks again."""
        self._wanted += 1

    @property
    def is_current(self) -> bool:
        """Whether they are as of the last change."""
        return self._read == self._wanted

    async def read(self) -> None:
        """Have the groups, and have them as of the last change. Never raises: without them, nobody is in any group."""
        if self.is_current:
            return
        async with self._lock:
            while not self.is_current:
                if self._groups.has_just_failed(self.user):  # whoever waited behind that has the same answer
                    self._settle(None, self._wanted)
                    return
                wanted, found = self._wanted, None
                try:
                    found = await self._groups.ask(self.user)
                except asyncio.CancelledError as error:
                    if cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                        raise
                    self._missed(wanted, error)  # something of the app's own was cancelled
                except Exception as error:  # noqa: BLE001 - the app's function may raise anything: logged
                    self._missed(wanted, error)
                self._settle(found, wanted)
                if found is None and wanted == self._wanted:
                    return

    def read_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """The same, for a thread that may wait for the event loop.

        Raises:
            TimeoutError: the loop has no time, or has stopped.
        """
        asyncio.run_coroutine_threadsafe(self.read(), loop).result(2 * self._groups.timeout)

    def _missed(self, wanted: int, error: BaseException) -> None:
        if wanted == self._wanted:  # else the next answer is the one that counts
            self._groups.failed(self.user, error)

    def _settle(self, found: frozenset[str] | None, wanted: int) -> None:
        """What is known from here on; what goes on that was decided otherwise ends, once for each change."""
        before, self._known = self._known, found
        is_first = before is None and wanted == self._judged  # nothing can have been decided yet
        self._judged = wanted
        if found is not None:
            self._read = wanted
        if is_first:
            return
        if found is None:
            self.end_what(lambda decision: decision is None or decision.groups is not None)
        elif before is None:
            self.end_what(lambda _decision: False)
        else:
            self._judge(before, found)

    def _judge(self, before: frozenset[str], now: frozenset[str]) -> None:
        def is_wrong(decision: Requirement | None) -> bool:
            if decision is None:
                return before != now
            return decision.met_by(before) and not decision.met_by(now)

        if before != now:
            self.end_what(is_wrong)

    def end_what(self, is_wrong: Callable[[Requirement | None], bool]) -> None:
        """End everything if any of what was decided is wrong now."""
        if self.depends() or any(is_wrong(decision) for decisions in self._running.values() for decision in decisions):
            self.lost()

    def noting(self) -> contextlib.AbstractContextManager[None]:
        """While a callback runs, note what it is told of these rights."""
        return _Noting(self._running)


class _Noting:
    """`Rights.noting`: on the way of each callback, where a generator would take three times as long."""

    __slots__ = ("_decisions", "_running", "_token")

    def __init__(self, running: dict[int, Decisions]) -> None:
        self._running = running
        self._decisions: Decisions = []

    def __enter__(self) -> None:
        self._running[id(self._decisions)] = self._decisions
        self._token = _decisions.set(self._decisions)

    def __exit__(self, *_: object) -> None:
        _decisions.reset(self._token)
        del self._running[id(self._decisions)]


def note(decision: Requirement | None) -> None:
    """The callback that is running, if one is, was told this."""
    decisions = _decisions.get()
    if decisions is not None:
        decisions.append(decision)


def rights_here() -> Rights | None:
    """The rights of the request or websocket at hand; None for nobody, and outside of both."""
    try:
        here = cast("Any", g)._get_current_object()  # noqa: SLF001 - Werkzeug's documented way, and four times as fast
    except RuntimeError:  # no request, no websocket
        return None
    return getattr(here, RIGHTS, None)


def noting_here() -> contextlib.AbstractContextManager[None]:
    """`Rights.noting` for the request at hand; nothing for nobody."""
    rights = rights_here()
    return contextlib.nullcontext() if rights is None else rights.noting()


def groups_here() -> frozenset[str] | None:
    """The groups of the user at hand, also in a background job; None for nobody.

    Raises:
        ConfigurationError, GroupsUnknown: as `Rights.known`, and in a view of the app's own.
    """
    rights = rights_here()
    if rights is not None:
        return rights.known
    if not has_app_context():
        carried = callback_context().get(RIGHTS)
        return None if carried is None else frozenset(carried)
    extension = current_app.extensions.get("dash_quart_ws")
    if not hasattr(g, RIGHTS) and extension is not None and extension.sessions.current() is not None:
        raise GroupsUnknown(
            "groups are at hand in layouts and callbacks: a view of your own asks your list_groups(user)"
        )
    return None


def is_somebody() -> bool:
    """Whether a user is at hand, also in a background job."""
    return rights_here() is not None or (not has_app_context() and RIGHTS in callback_context())


def list_groups() -> list[str] | None:
    """The groups of the user whose layout or callback is running, sorted; None for nobody.

    They are what the option `list_groups` gave: asked once for an HTTP request, and kept for a connection until
    `QuartBackend.rights_changed`. A callback that has seen them ends when they change (4101, or 403 over HTTP).

    Raises:
        ConfigurationError: `QuartBackend` was given no `list_groups`.
        GroupsUnknown: that function has failed, or taken longer than `groups_timeout`; or this is a view of the app's own,
            for which nobody has asked.
    """
    note(None)  # before the look: who is told the old list after this ends when it changes
    groups = groups_here()
    return None if groups is None else sorted(groups)
