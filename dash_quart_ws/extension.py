"""What all Dash apps on one Quart server share: the hub, the sessions, the broker, and the first contact.

It is an extension in Quart's sense, in `server.extensions["dash_quart_ws"]`. It hangs on to the server in the documented
ways only: signals, `before_serving` and `after_serving`, `teardown_request`, `asgi_websocket_class`, `asgi_http_class`,
error handlers for exceptions of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import ipaddress
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from quart import Response, abort, after_this_request, current_app, request
from quart.signals import request_started, websocket_started

from . import _servers
from .brokers.embedded import EmbeddedBroker
from .brokers.messages import RightsChanged
from .browser.bundles import Bundles
from .callbacks.run import answer_timeout, answer_too_many, answer_websocket_needed
from .check import PlainHttpWatch, warn
from .cluster import Cluster
from .config import SESSION_OPTIONS
from .connections.asgi import socket_class
from .connections.body import Uploads, http_class
from .connections.hub import Hub
from .connections.receipt import Pending, Receipt
from .connections.shares import NOBODY_SHARES, Shares
from .exceptions import BrokerError, CallbackTimeout, ConfigurationError, TooManyCallbacks, WebsocketNeeded
from .sessions.handshake import Refused, own_origin
from .sessions.rights import Groups
from .sessions.sessions import Sessions, caller_here, receipt_of
from .sessions.topics import Topics
from .sessions.visitors import remote_here, websocket_here
from .wire.close import CloseCode

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Sequence

    from quart import Quart, Websocket
    from quart.wrappers.base import BaseRequestWebsocket

    from .brokers.base import Answers, Broker
    from .config import Config
    from .connections.asgi import Socket
    from .connections.connection import Connection
    from .connections.presence import KnownConnection
    from .connections.session import Session
    from .sessions.guard import Guard
    from .sessions.handshake import Admitted
    from .sessions.rights import Rights

logger = logging.getLogger("dash_quart_ws")

security = logging.getLogger("dash_quart_ws.security")

NAME = "dash_quart_ws"
NOTHING_CLOSED = Receipt(0, 1, (), 0.0)

LOAD_EVERY = 1.0
"""Seconds between two tries to load a shared broker that does not answer."""

ANSWERED_WITHIN = 1.0
"""Seconds that other workers have to answer, beyond what closing connections and talking to the broker may take."""

ONE_WORKER = (
    "{} worker processes without a shared broker: a logout or a ban on one of them would not reach the sockets on the "
    "others. Give QuartBackend(broker='redis://host:6379/0'), or the environment variable DASH_QUART_WS_BROKER, or serve "
    "with one worker"
)

FULL = Refused(CloseCode.OVERLOADED, "too many connections")
TOO_MANY_OF_SESSION = Refused(CloseCode.TOO_MANY, "too many connections of this session")
TOO_MANY_OF_USER = Refused(CloseCode.TOO_MANY, "too many connections of this user")
TOO_MANY_FROM_ADDRESS = Refused(CloseCode.TOO_MANY, "too many connections without a login from this address")

SILENT_AFTER, SWEEP_EVERY, LATE_BY = 1.5, 0.5, 0.25
"""In heartbeat intervals: how long a client may be silent, how often that is looked at, and after which delay not."""


class DashApp(Protocol):
    """One Dash app of the server, as its backend stands for it."""

    options: ClassVar[Config]
    session_end_hooks: list[Callable[..., Any]]
    disconnect_hooks: list[Callable[..., Any]]

    @property
    def socket_path(self) -> str:
        """The path of its websocket."""

    @property
    def pages_need_login(self) -> bool | None:
        """Whether its `register_page`s are behind a login; None if it has none."""

    async def first_contact(self) -> None:
        """Set the app up."""

    def shutdown_executor(self, wait: bool = True) -> None:
        """Let its threads go."""


class Extension:
    """One for each Quart server, however many Dash apps it serves."""

    def __init__(self, server: Quart, config: Config) -> None:
        self.server = server
        self.config = config
        self.hub = Hub()
        self.shares = Shares(callbacks=config.callbacks, callback_bytes=config.callback_bytes)
        self.uploads = Uploads(config.uploads)
        self.broker = _broker_for(server, config)
        self.sessions = Sessions(server, self.hub, self.broker, config)
        self.cluster = Cluster(self, self.broker, self.hub, self.sessions, config)
        self.sessions.on_end = self.cluster.session_ended
        self.groups = Groups(config.list_groups, config.groups_timeout)
        self.topics = Topics(server, self.hub, config.authorize_topic, config.groups_timeout)
        self.bundles = Bundles()
        self.page_guards: dict[str, Guard] = {}
        self.health_paths: set[str] = set()
        self.measures_requests = False
        """Whether responses say how long they took, which Dash's dev tools show."""
        self._plain_http = PlainHttpWatch()
        self._backends: list[DashApp] = []
        self._ready: set[DashApp] = set()
        self._setting_up: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hears_on: asyncio.AbstractEventLoop | None = None
        """The event loop that the broker tells what other workers do."""
        self._loading: asyncio.Task[None] | None = None
        """Tries to load a broker that did not answer."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watched: set[object] = set()
        self._socket_paths: set[str] = set()
        self._callback_paths: set[str] = set()
        self._warned: set[str] = set()
        self._beating: dict[float, set[Connection]] = {}
        """Heartbeat interval -> the connections whose clients give a sign of life that often."""
        server.asgi_websocket_class = socket_class(server.asgi_websocket_class, self._socket_paths)
        server.asgi_http_class = http_class(server.asgi_http_class, self._callback_paths)
        request_started.connect(self._request_started, server)
        websocket_started.connect(self._websocket_started, server)
        server.teardown_request(self._request_ends)
        server.register_error_handler(WebsocketNeeded, answer_websocket_needed)
        server.register_error_handler(TooManyCallbacks, answer_too_many)
        server.register_error_handler(CallbackTimeout, answer_timeout)
        server.before_serving(self._before_serving)
        server.after_serving(self._after_serving)

    @classmethod
    def attach(cls, server: Quart, backend: DashApp) -> Extension:
        """The server's extension, with one more app.

        Raises:
            ConfigurationError: the app's options contradict those of another app on this server.
        """
        extension: Extension | None = server.extensions.get(NAME)
        if extension is None:
            extension = server.extensions[NAME] = cls(server, backend.options)
        for name in SESSION_OPTIONS:
            if getattr(extension.config, name) != getattr(backend.options, name):
                raise ConfigurationError(
                    f"{name}= differs between two Dash apps on one Quart server, which share their sessions: "
                    "give both the same"
                )
        extension._backends.append(backend)
        return extension

    def add_socket_path(self, path: str) -> None:
        """Serve websockets on this path ourselves, below Quart's per-message layers."""
        self._socket_paths.add(path)

    def add_callback_path(self, path: str) -> None:
        """Read the bodies of requests to this path when they are wanted, and not before."""
        self._callback_paths.add(path)

    # ------------------------------------------------------------------------------------------- first contact

    async def contact(self) -> None:
        """Somebody is here, over HTTP or a websocket: make sure that everything is set up, once.

        Concurrent first contacts share one attempt, which goes on when the one that began it is cancelled. An attempt
        that fails fails for those who waited for it; the next contact tries again.
        """
        loop = asyncio.get_running_loop()
        # Connections belong to the loop that serves: a request on another one meanwhile does not take its place.
        if self._loop is None or not self._loop.is_running():
            self._bind(loop)
        if len(self._ready) == len(self._backends):
            return
        if self._setting_up is None:
            # In a context of its own: nothing that is set up may see whose request happened to be the first.
            self._setting_up = self.spawn(self._set_up(), name="first contact", context=contextvars.Context())
        await asyncio.shield(self._setting_up)

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._setting_up = None
        self._beating.clear()
        self.sessions.bind(loop)
        if self.config.idle_timeout is not None:
            sweep = self._sweep_every(self.config.idle_timeout)
            self.spawn(sweep, name="idle sweep", context=contextvars.Context())

    async def _load(self) -> None:
        """Know what was revoked before, and hear from other workers from then on.

        Where a shared broker does not answer, that is tried again, and until then nobody with a login is served.
        """
        if self._loading is not None:
            return
        try:
            await self.sessions.load()
        except BrokerError as error:
            if not self.broker.is_shared:
                raise
            security.error("broker-lost reason=%.256r action='refuse: nothing has been loaded yet'", str(error))
            self._loading = self.spawn(self._load_later(), name="broker", context=contextvars.Context())
        else:
            self._hear()

    async def _load_later(self) -> None:
        while not self.sessions.is_loaded:
            await asyncio.sleep(LOAD_EVERY)
            try:
                await self.sessions.load()
            except BrokerError:
                continue  # it has been said
            except ConfigurationError as error:  # the server has started: it waits until somebody has put that right
                self.warn_once(f"the broker cannot be used: {error}")
        security.warning("broker-back worker=%.128r", self.broker.worker.id)
        self._hear()
        self._loading = None

    def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        if self._hears_on is not loop:
            self._hears_on = loop
            self.cluster.begin(loop)

    async def _sweep_every(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self.sessions.sweep()

    async def _set_up(self) -> None:
        try:
            self.check()
            await self._load()
            for backend in self._backends:
                if backend not in self._ready:
                    await backend.first_contact()
                    self._ready.add(backend)
        finally:
            self._setting_up = None

    def check(self) -> None:
        """What has to be right before anybody is served.

        Raises:
            ConfigurationError: it is not; the message says what to do.
        """
        if {backend.pages_need_login for backend in self._backends} >= {True, False}:
            raise ConfigurationError(
                "two Dash apps with use_pages=True on one Quart server share Dash's registry of pages, so that the open one "
                "gives away those of the other: give both the same login_required"
            )
        if self.sessions.active:
            singletons = sum(extension.singleton for extension in self.server.extensions["QUART_AUTH"])
            if singletons > 1:  # quart-auth itself lets two of them pass
                raise ConfigurationError(
                    "two QuartAuth of the server are singletons, so it is open whose login counts: give singleton=False to "
                    "all but the one that Dash's login follows"
                )
            if not singletons:
                raise ConfigurationError(
                    "every QuartAuth of the server has singleton=False: one must be the singleton that Dash's login follows"
                )
            if isinstance(self.server.config.get("SECRET_KEY_FALLBACKS"), str | bytes):
                raise ConfigurationError(
                    "SECRET_KEY_FALLBACKS is one string, so that each of its characters signs logins: make it a list of keys"
                )
            if not self.server.secret_key:
                raise ConfigurationError(
                    "sessions are signed with the server's secret_key, and there is none: set app.server.secret_key to a "
                    "random value that all workers share"
                )
            return
        if any(backend.options.login_required is True for backend in self._backends):
            raise ConfigurationError(
                "login_required=True, but the server has no QuartAuth: add QuartAuth(app.server), or leave the option out"
            )

    async def _before_serving(self) -> None:
        self.check()
        warn(self.server, self.config)
        workers = _servers.worker_count()
        if workers is not None and workers > 1 and not self.broker.is_shared:
            raise ConfigurationError(ONE_WORKER.format(workers))
        if self.broker.is_shared:  # a round trip or two, for which no visitor has to wait
            self._bind(asyncio.get_running_loop())
            await self._load()

    async def _after_serving(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for backend in self._backends:
            backend.shutdown_executor(wait=False)
        self.groups.stop()
        self._hears_on = self._loading = None
        if self.broker.is_shared:
            await asyncio.to_thread(self.sessions.stop)
        else:
            self.sessions.stop()

    # --------------------------------------------------------------------------------------- around each request

    async def _request_started(self, _server: Quart, **_: Any) -> None:
        await self.contact()
        self.sessions.arrive()
        self._plain_http.see(request.scheme, request.host)
        if not self._is_own_host(request) and request.path not in self.health_paths:
            abort(Response("this server does not go by that name", 421, content_type="text/plain"))
        after_this_request(self._before_response)  # ahead of quart-auth, which writes its cookie after all of these

    async def _websocket_started(self, _server: Quart, **_: Any) -> None:
        await self.contact()
        self.sessions.arrive()
        opening = websocket_here()
        self._plain_http.see(opening.scheme, opening.host)
        if not self._is_own_host(opening):
            abort(Response("this server does not go by that name", 421, content_type="text/plain"))

    def _is_own_host(self, request: BaseRequestWebsocket) -> bool:
        """Whether the `Host` header names this server: under a name of their own, another site's scripts may read it."""
        hosts = self.config.allowed_hosts
        if hosts is None:
            return True
        given = request.headers.getlist("Host")
        if len(given) == 1 and _is_one_of(given[0], hosts):
            return True
        security.warning("foreign-host host=%.64r remote=%s", ", ".join(given), remote_here())
        return False

    async def _before_response(self, response: Any) -> Any:
        await self.sessions.depart()
        return response

    async def _request_ends(self, _error: BaseException | None) -> None:
        self.sessions.leave()

    # --------------------------------------------------------------------------------------------- what is open

    def crowding(
        self, admitted: Admitted, websocket: Websocket, *, newcomer: Connection | None = None
    ) -> Refused | None:
        """Why there is no room for one more connection; None if there is.

        A session, or a user, that has as many as it may has room when one of them is silent. Asked before accept, nothing
        comes of it; asked again with the `newcomer`, which is in the hub already, the one that is silent for longest ends.
        """
        counted = newcomer is not None
        if len(self.hub) - counted >= self.config.connections:
            return FULL
        if not admitted.sessions:
            return self._crowding_of_nobody(websocket, counted)
        for session in admitted.sessions:
            if not self._has_room(self.hub.of_session(session.id), self.config.connections_per_session, newcomer):
                return TOO_MANY_OF_SESSION
        user = None if admitted.session is None else admitted.session.user
        if user is not None and not self._has_room(self.hub.of_user(user), self.config.connections_per_user, newcomer):
            return TOO_MANY_OF_USER
        return None

    @staticmethod
    def _has_room(found: tuple[Connection, ...], most: int, newcomer: Connection | None) -> bool:
        if len(found) - (newcomer is not None) < most:
            return True
        now = asyncio.get_running_loop().time()
        silent = [one for one in found if one is not newcomer and now - one.heard_at > one.heartbeat > 0]
        if silent and newcomer is not None:
            min(silent, key=lambda one: one.heard_at).end(CloseCode.SILENT, "silent, and room was needed")
        return bool(silent)

    def _crowding_of_nobody(self, websocket: Websocket, counted: bool) -> Refused | None:
        """Why an address, or all of them, have as many connections without a session as they may have.

        Behind a proxy that nobody has told us about everybody has the same address: then there is no telling them apart.
        """
        if not self.sessions.active:
            return None
        if self.hub.anonymous - counted >= -(-self.config.connections // NOBODY_SHARES):
            return FULL
        if self.hub.anonymous_from(websocket.remote_addr) - counted < self.config.anonymous_connections:
            return None
        behind_proxy = "X-Forwarded-For" in websocket.headers or "Forwarded" in websocket.headers
        if behind_proxy and is_local(websocket.remote_addr) and self.hub.has_one_address_only():
            self.warn_once(
                "every client has the same address, and says that it came through a proxy: nobody is limited. Serve with "
                "hypercorn's ProxyFixMiddleware"
            )
            return None
        return TOO_MANY_FROM_ADDRESS

    def rights_changed(self, user: str) -> Pending[Receipt]:
        """What `QuartBackend.rights_changed` says."""
        return self.sessions.in_loop(lambda: self.change_rights(user, self.cluster.ask(RightsChanged(user))))

    def change_rights(self, user: str, answers: concurrent.futures.Future[Answers] | None = None) -> Pending[Receipt]:
        """The same in this process; the receipt also counts what other workers answer, who have been asked."""
        pending: Pending[Receipt] = Pending()
        security.info("rights-changed user=%.64r by=%.64r remote=%s", user, caller_here(), remote_here())
        concerned = self.groups.changed(user)  # from here on nothing starts with the old ones
        self.topics.rights_changed()
        if self._loop is not None and self._loop.is_running():
            reading = self._read_again(self.hub.of_user(user), concerned, pending, answers)
            self.spawn(reading, name="rights changed")
        else:
            pending.resolve(NOTHING_CLOSED)
        return pending

    async def _read_again(
        self,
        connections: tuple[Connection, ...],
        concerned: list[Rights],
        pending: Pending[Receipt],
        answers: concurrent.futures.Future[Answers] | None,
    ) -> None:
        try:
            async with self.server.app_context():
                if self.groups.source is None:
                    for rights in concerned:
                        rights.lost()
                else:
                    await asyncio.gather(*(rights.read() for rights in concerned))
                    await self.topics.judge(one for one in connections if not one.ended)
            closed = [one.closed for one in connections if one.close_code == CloseCode.RIGHTS_CHANGED]
            pending.resolve(await receipt_of(closed, worker=self.broker.worker.id, answers=answers))
        finally:  # where the server has gone down meanwhile: it has not been done here
            pending.resolve(Receipt(0, 0, (self.broker.worker.id,), 0.0))

    def watch_heartbeat(self, connection: Connection, interval: float) -> None:
        """End this connection once its client, which gives a sign of life every `interval` seconds, is silent for longer.

        One task looks after all of them, and goes when the last one has gone.
        """
        beating = self._beating.get(interval)
        if beating is None:
            beating = self._beating[interval] = set()
            # In a context of its own: it outlives the connection that happened to be the first.
            self.spawn(self._end_silent(interval, beating), name="heartbeat sweep", context=contextvars.Context())
        beating.add(connection)
        connection.gone.append(beating.discard)

    async def _end_silent(self, interval: float, beating: set[Connection]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due, loop.time()) + SWEEP_EVERY * interval
            await asyncio.sleep(due - loop.time())
            if not beating:
                del self._beating[interval]
                return
            now = loop.time()
            if now > due + LATE_BY * interval:
                continue  # the process was suspended, or busy: what clients have sent meanwhile has not been read
            for connection in [one for one in beating if now - one.heard_at > SILENT_AFTER * interval]:
                connection.end(CloseCode.SILENT, "no heartbeat")

    # ------------------------------------------------------------------------------------------------- shutdown

    def watch_shutdown(self, socket: Socket) -> None:
        """Learn from a connection's server when it is going down; its first connection is enough."""
        wait = _servers.shutdown_of(socket.server_send)
        event = getattr(wait, "__self__", None)
        if wait is None or event in self._watched:
            return
        self._watched.add(event)
        _servers.chain_sigterm(socket.server_send, self.drain)
        # In a context of its own: it would keep all that belongs to the first connection for as long as the process runs.
        self.spawn(self._drain_after(wait), name="shutdown watch", context=contextvars.Context())

    async def _drain_after(self, wait: Callable[[], Any]) -> None:
        await wait()
        self.drain()

    def drain(self) -> None:
        """The server is going down: ask every client to come back later, or elsewhere."""
        for connection in self.hub.all():
            connection.end(CloseCode.RESTART, "the server restarts")

    # ---------------------------------------------------------------------------------------------------- hooks

    def connection_gone(self, connection: KnownConnection, reason: str) -> None:
        """A connection of a worker that has died: nobody else calls the hooks of its app."""
        for backend in self._backends:
            for hook in backend.disconnect_hooks if backend.socket_path == connection.path else ():
                self.call_hook(hook, connection, reason)

    def session_gone(self, session: Session, reason: str) -> None:
        """A session has ended, and it is for this worker to call the hooks."""
        for backend in self._backends:
            for hook in backend.session_end_hooks:
                self.call_hook(hook, session, reason)

    def call_hook(self, hook: Callable[..., Any], *arguments: Any) -> None:
        """Call one of the app's functions, soon, in a task of its own; what it raises is logged."""
        if self._loop is not None and self._loop.is_running():
            # In a context of its own: a hook is nobody's, whoever it was that connected, left or revoked.
            name = f"hook {getattr(hook, '__name__', hook)}"
            self.spawn(self._call(hook, *arguments), name=name, context=contextvars.Context())

    async def _call(self, hook: Callable[..., Any], *arguments: Any) -> None:
        try:
            async with self.server.app_context():
                result = await self.server.ensure_async(hook)(*arguments)
                if inspect.isawaitable(result):  # of an object with an async __call__
                    await result
        except Exception:  # the hook is the app's, and nobody waits for it: the log has its traceback
            logger.exception("the hook %s failed", getattr(hook, "__qualname__", hook))

    def warn_once(self, text: str) -> None:
        """A line in the log that would say the same for every connection."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        """A task that the extension owns: cancelled and awaited when the server goes down."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=context)
        return task


def _broker_for(server: Quart, config: Config) -> Broker:
    """What the `broker` option names."""
    if config.broker is None or not config.is_shared:
        return EmbeddedBroker.from_url(config.broker, Path(server.instance_path))
    from .brokers.redis import RedisBroker  # redis-py is an extra

    return RedisBroker(
        config.broker,
        secrets=lambda: _secrets_of(server),
        key=config.broker_key,
        lease=config.lease,
        timeout=config.broker_timeout,
        answer_timeout=config.close_timeout + config.broker_timeout + ANSWERED_WITHIN,
    )


def _secrets_of(server: Quart) -> list[str | bytes]:
    """The app's secrets, the current one first."""
    current, before = server.secret_key, server.config.get("SECRET_KEY_FALLBACKS") or ()
    return [secret for secret in (current, *before) if secret]


def _is_one_of(host: str, allowed: Sequence[str]) -> bool:
    """Whether a `Host` header has one of these names: whatever its port and its letters' case (RFC 9110, 4.2.3)."""
    origin = own_origin("http", host)
    if origin is None:
        return False
    name = origin[1].removesuffix(".")
    names = [one.lower().removesuffix(".") for one in allowed]
    return any(name == one.removeprefix(".") or (one.startswith(".") and name.endswith(one)) for one in names)


def is_local(remote: str | None) -> bool:
    """Whether an address is of this host or of a private network, as a proxy's is."""
    try:
        return ipaddress.ip_address(remote or "").is_private
    except ValueError:
        return True  # a socket file


def current_session() -> Session | None:
    """The session of the view or callback that is running; None for nobody.

    `await backend.revoke(user=…, keep=current_session())` is "sign out everywhere else".

    Raises:
        RuntimeError: outside a request or websocket of a server with a `QuartBackend`.
    """
    extension: Extension | None = current_app.extensions.get(NAME)
    if extension is None:
        raise RuntimeError("current_session() needs a Quart server with a QuartBackend")
    return extension.sessions.current()
