"""`QuartBackend`: Dash's backend interface, and the wiring of everything below it.

The story of one callback over the websocket:

1. The browser opens `<prefix>_dash-ws-callback`. Quart routes it to `QuartBackend._websocket`, which asks
   `sessions.handshake` whether to accept: origin, hooks, session.
2. `connections.connection` welcomes the client, and reads text frames; `wire.codec` makes messages of them.
3. Each tab attaches with the token of its page: a page that was made for another session is `stale`, and none of its
   requests runs. (Dash's own worker attaches no tabs: its requests carry their page's token, and step 5 looks at it.)
4. `wire.protocol` says what each message means in the connection's state: a callback request of an attached tab is to be
   run. It is the task of a `connections.renderer`, and ends with the tab.
5. `callbacks.run` refuses what is not this visitor's to call (`sessions.guard`); else it prepares the callback as Dash
   does, and calls the user's function: on the event loop, or in the pool. A `protected_callback` looks at its user's
   groups first (`sessions.access`, `sessions.rights`).
6. What it did to its browser (cookies, login, logout) waits for a request that can do so: `callbacks.effects`.
7. Its outcome is a message; `connections.writer` queues it, `wire.codec` makes a frame of all that waits, and
   `connections.asgi` hands it to the server.

Over HTTP the same function is reached through `_dash-update-component`: `sessions.guard`, then step 5.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

from dash.exceptions import DependencyException
from quart import Quart, Response, abort, g, jsonify, redirect, request, websocket
from werkzeug.exceptions import HTTPException

from . import _servers
from ._dash import (
    PAGE_PATH,
    BundleFile,
    CallbackResponse,
    FirstContact,
    QuartDashServer,
    RequestAdapter,
    app_context,
    assets_endpoint,
    background_manager,
    callback_list,
    callback_url,
    get_hooks,
    has_hot_reload,
    is_own_first_request,
    is_silent,
    stop_running,
    traceback_page,
    websocket_options,
)
from .brokers.base import Target, TargetKind
from .brokers.messages import Close
from .browser import bundles, pages
from .callbacks.effects import EffectsDesk, divide_session
from .callbacks.jobs import Jobs
from .callbacks.options import route
from .callbacks.pool import Pool
from .callbacks.run import Runner, contained
from .callbacks.websocket import props_message
from .config import Config
from .connections.asgi import SCOPE_KEY, Socket
from .connections.body import size_here
from .connections.connection import Connection
from .connections.receipt import Pending, PendingReceipt, Receipt
from .connections.session import KnownSession, Session
from .exceptions import ConfigurationError
from .extension import Extension
from .reload import Watch, start_anew
from .sessions import handshake
from .sessions.access import PublicRoutes, access_of
from .sessions.guard import OPEN_RULES, Guard
from .sessions.pages import mint as page_token
from .sessions.rights import RIGHTS, noting_here, rights_here
from .sessions.sessions import receipt_of
from .sessions.visitors import printable, remote_here, visitor_of, websocket_here
from .wire import codec
from .wire.close import SUBPROTOCOL, CloseCode, cut_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dash import Dash
    from quart import Websocket

    from .connections.presence import KnownConnection

logger = logging.getLogger("dash_quart_ws")
security = logging.getLogger("dash_quart_ws.security")

Hook = TypeVar("Hook", bound="Callable[..., Any]")


class _Backend(QuartDashServer):
    """Holds `__init__`: `QuartBackend.__new__` gives back other things than instances, and type checkers believe the
    nearer of the two.
    """

    options: ClassVar[Config] = Config()
    _given_server: ClassVar[Quart | None] = None

    def __init__(self, server: Quart) -> None:
        super().__init__(server)
        self.request_adapter = RequestAdapter
        self.response_adapter = CallbackResponse
        self.session_end_hooks: list[Callable[..., Any]] = []
        self._connect_hooks: list[Callable[..., Any]] = []
        self.disconnect_hooks: list[Callable[..., Any]] = []
        self._first_requests: list[Callable[..., Any]] = []
        self.public_routes = PublicRoutes()


class QuartBackend(_Backend):
    """A Dash backend on Quart whose websocket belongs to a quart-auth session.

    `Dash(backend=QuartBackend())`, with options or without, or `Dash(backend=QuartBackend)`. Called with options it
    gives a configured class, which is what `dash.Dash` takes; called with a Quart app, as Dash does, an instance.

    Args:
        server: an existing Quart app to serve on.
        **options: the fields of `dash_quart_ws.Config`.

    Raises:
        ConfigurationError: an option is unknown or cannot work; the message says what to do.
    """

    @overload
    def __new__(cls, server: Quart, /) -> QuartBackend: ...

    @overload
    def __new__(cls, *, server: Quart | None = None, **options: Any) -> type[QuartBackend]: ...  # type: ignore[misc]

    def __new__(cls, *args: Any, server: Quart | None = None, **options: Any) -> Any:
        if args:
            if options or server is not None or len(args) > 1 or not isinstance(args[0], Quart):
                raise ConfigurationError("QuartBackend takes keyword options; an existing Quart app is server=app")
            return super().__new__(cls)
        if server is not None and not isinstance(server, Quart):
            raise ConfigurationError(f"server= takes a Quart app, not {type(server).__name__}")
        fields = {"options": Config.of(**options), "_given_server": server}
        return type(cls.__name__, (cls,), {**fields, "__module__": cls.__module__, "__doc__": cls.__doc__})

    @staticmethod
    def of(app: Dash) -> QuartBackend:
        """`app.backend`, with its own type.

        Raises:
            TypeError: the app has another backend.
        """
        backend = app.backend
        if not isinstance(backend, QuartBackend):
            raise TypeError(f"this Dash app's backend is {type(backend).__name__}: give it backend=QuartBackend()")
        return backend

    # ------------------------------------------------------------------------- Dash's interface: an app is set up

    @classmethod
    def create_app(cls, name: str = "__main__", config: dict[str, Any] | None = None) -> Quart:
        """The server that Dash serves on: the one given as `server=`, else a new one."""
        if cls._given_server is not None:
            return cls._given_server
        server: Quart = super().create_app(name, config)
        return server

    def before_request(self, func: Callable[[], Any]) -> None:
        """Dash's own functions for the first request are kept for the first contact; others run before each request."""
        if is_own_first_request(func):
            self._first_requests.append(func)
        else:
            super().before_request(func)

    @property
    def socket_path(self) -> str:
        """The path of the app's websocket."""
        return self._socket_path

    @property
    def pages_need_login(self) -> bool | None:
        """Whether the app's `register_page`s are behind a login; None for an app without any."""
        return self._guard.active if self._app.use_pages else None

    def setup_backend(self, dash_app: Dash) -> None:
        """Dash has decided about the server and the prefix: everything that belongs to them is made here."""
        self._app = dash_app
        self._prefix: str = dash_app.config.routes_pathname_prefix
        self._socket_path = f"{self._prefix}_dash-ws-callback"
        dash_options = websocket_options(dash_app)
        self._allowed_origins = handshake.parse_allowed(dash_options.allowed_origins)
        self._heartbeat = dash_options.heartbeat_interval
        self._extension = Extension.attach(self.server, self)
        self._sessions = self._extension.sessions
        self._guard = Guard(
            dash_app,
            self.server,
            self._sessions,
            self._extension.groups,
            self.options,
            self.public_routes,
            self._extension.page_guards,
            self._extension.uploads,
        )
        self._threads = self.options.callback_threads or dash_options.max_workers
        self._pool: Pool | None = None
        self._jobs = Jobs(
            self._sessions, lambda job, name: self._extension.spawn(job, name=name), most=self.options.jobs_per_user
        )
        self._effects = EffectsDesk(
            dash_app,
            self._extension.broker,
            self._sessions,
            self._guard,
            self._allowed_origins,
            self.options.broker_timeout,
        )
        self._runner = Runner(
            dash_app,
            self.pool,
            self._sessions,
            self._guard,
            self._extension.shares,
            self._effects,
            config=self.options,
        )
        if self.options.protect_assets:
            endpoint = assets_endpoint(dash_app)
            self.server.view_functions[endpoint] = self._guard.file(self.server.view_functions[endpoint])
        RequestAdapter.websocket_paths[self._socket_path] = callback_url(dash_app)
        self._extension.add_callback_path(callback_url(dash_app))

    async def first_contact(self) -> None:
        """Run what Dash wants to run before its first request, as nobody. Called once; again if it raised."""
        before = FirstContact(self._app)
        app_context.set(self._app)
        try:
            async with self.server.test_request_context(self._prefix):
                for function in self._first_requests:
                    await self.server.ensure_async(function)()
            self._guard.route = route(self._app, when_needed=self.options.connect == "when_needed")
            self._guard.survey(callback_list(self._app))
            self._jobs.adopt(self._app.callback_map, background_manager(self._app))
        except BaseException:
            before.undo()
            raise

    def shutdown_executor(self, wait: bool = True) -> None:
        """Let the threads go; the pool makes new ones when it is needed again."""
        super().shutdown_executor(wait)
        self._pool = None

    def pool(self) -> Pool:
        """The threads for this app's synchronous callbacks."""
        if self._pool is None:
            self._pool = Pool(
                self.get_callback_executor(self._threads),
                threads=self._threads,
                share=self.options.callback_threads_per_user,
                most_queued=self.options.queued_callbacks,
                share_queued=self.options.queued_callbacks_per_user,
            )
        return self._pool

    def add_url_rule(
        self,
        rule: str,
        view_func: Callable[..., Any],
        endpoint: str | None = None,
        methods: list[str] | None = None,
    ) -> None:
        """Register one of Dash's rules: behind the login, unless it is on the short list of those that are open."""
        name = rule.removeprefix(self._prefix)
        if name in ("", "<path:path>"):
            view_func = self._guard.page(endpoint or rule, self._written(view_func))
        elif name == "_dash-update-component":
            view_func = self._guard.callbacks(view_func)
        elif name == "_dash-layout":
            view_func = self._guard.layout(view_func)
        elif name == "_dash-dependencies":
            view_func = self._guard.dependencies(view_func)
        elif name == self._app.config.health_endpoint:
            self._extension.health_paths.add(rule)
        elif view_func.__module__ == "dash.mcp._server":
            view_func = self._guard.tools(self._in_thread(view_func))
        elif name.startswith("_dash-component-suites/"):
            view_func = self._bundle(view_func)
        elif name == "_favicon.ico":
            view_func = self._icon(view_func)
        elif name == "_reload-hash":
            view_func = self._while_developing(view_func)
        elif name not in OPEN_RULES:
            view_func = self._guard.data(view_func)
        super().add_url_rule(rule, view_func, endpoint, methods)

    def _in_thread(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """A view of Dash's that calls synchronous callbacks where it is: on an event loop of its own, in a thread of the
        pool, where it delays nobody else's.
        """

        @functools.wraps(view)
        async def threaded() -> Any:
            await request.get_json(silent=True)  # kept by the request: there is nothing to wait for in the thread
            if not inspect.iscoroutinefunction(view):
                return await self._run_in_thread(view)
            return await self._run_in_thread(lambda: asyncio.run(view()))

        return threaded

    async def _run_in_thread(self, work: Callable[[], Any]) -> Any:
        """Run something for who sends this request, when a thread is free: until then their session may have ended."""
        is_somebody = rights_here() is not None

        def run() -> Any:
            if is_somebody:
                self._sessions.require_proof()
            return work()

        return await self.pool().run(self._sessions.payer(), run)

    def _bundle(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Component bundles, as Dash serves them, but compressed, with an ETag, and without a file read on the event loop."""

        @functools.wraps(view)
        async def bundle(package_name: str, fingerprinted_path: str) -> Response:
            try:
                file = BundleFile.find(self._app, package_name, fingerprinted_path)
                read = functools.partial(self.serve_component_suites, self._app, package_name, fingerprinted_path)
                found = await self._extension.bundles.get(file, file.version(), read)
            except (DependencyException, FileNotFoundError):
                # Quart would log either with the path as the client wrote it.
                return Response("no such bundle", 404, content_type="text/plain")
            return found.answer()

        return bundle

    def _while_developing(self, view: Callable[[], Any]) -> Callable[..., Any]:
        """What pages ask while they are developed; without hot reload there is nothing of it."""

        @functools.wraps(view)
        async def asked() -> Any:
            return view() if has_hot_reload(self._app) else Response("no hot reload", 404, content_type="text/plain")

        return asked

    def _icon(self, view: Callable[[], Response]) -> Callable[..., Any]:
        """Dash's icon, for apps without one of their own."""

        @functools.wraps(view)
        async def icon() -> Response:
            return (await self._extension.bundles.get("_favicon.ico", None, view)).answer()

        return icon

    def add_redirect_rule(self, app: Dash, fullname: str, path: str) -> None:
        """A page's `redirect_from`: open to nobody where the page itself is."""
        below = path.removeprefix(app.config.requests_pathname_prefix)
        view = self._guard.page(fullname, lambda: redirect(path, 301), leads_to=f"{self._prefix}{below}")
        self.server.add_url_rule(fullname, fullname, view)

    def _serve_own_routes(self) -> None:
        """The browser's part of this package, and where a page asks whether it is still current."""

        async def script(file: str) -> Response:
            return await bundles.serve(file, devtools=self._has_devtools)

        for rule, view in (("<file>", script), ("session", self._guard.is_current)):
            path = f"{self._prefix}_dash-quart-ws/{rule}"
            self.server.add_url_rule(path, endpoint=path, view_func=view)
        path = f"{self._prefix}_dash-quart-ws/effects"
        self._extension.add_callback_path(path)  # whose body is not read before it is wanted
        self.server.add_url_rule(path, endpoint=path, view_func=self._effects.answer, methods=["POST"])

    def _written(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Dash's page, with what it has to know about the session that it is rendered for."""

        @functools.wraps(view)
        async def written(*args: Any, **kwargs: Any) -> Response:
            setattr(g, PAGE_PATH, f"/{request.path.removeprefix(self._prefix)}")
            try:
                response: Response = await view(*args, **kwargs)
            finally:
                delattr(g, PAGE_PATH)
            session = await self._guard.visitor()
            token = page_token(self._app, session)
            settings = {
                "prefix": self._app.config.requests_pathname_prefix,
                "login": self._guard.login_path() if self._guard.active else None,
                "page": token,
                "session": None if session is None else session.id,
                "bridge": self.options.bridge,
                "status": self.options.connection_status,
            }

            def config(dash: dict[str, Any]) -> dict[str, Any]:
                return self._guard.config_for(session, {**dash, "end_id": token})

            html = await response.get_data(as_text=True)
            response.set_data(pages.write(html, settings=settings, config=config, devtools=self._has_devtools))
            return response

        return written

    def register_callback_api_routes(self, callback_api_paths: dict[str, Callable[..., Any]]) -> None:
        """Dash's `api_endpoint` callbacks: POST, behind the login, synchronous ones in a thread."""
        for path, handler in callback_api_paths.items():
            rule = path if path.startswith("/") else f"/{path}"
            self._extension.add_callback_path(rule)
            self.server.add_url_rule(
                rule,
                endpoint=f"dash_callback_api_{self._prefix}{path}",
                view_func=self._guard.data(self._api_view(rule, handler), public=access_of(handler).public),
                methods=["POST"],
            )

    def _api_view(self, rule: str, handler: Callable[..., Any]) -> Callable[[], Any]:
        async def api() -> Response:
            if (
                not request.is_json
            ):  # another site's form, which asks nobody first, can send anything but JSON (ASVS 3.5.2)
                abort(415)
            app_context.set(self._app)
            with self._runner.in_flight() as grow:
                arguments = await self._guard.json_body()
                grow(size_here())
                is_broken = arguments is None and (await request.get_data()).strip() != b"null"
                if is_broken or not isinstance(arguments, dict | None):
                    abort(400, "the arguments of a callback are a JSON object")
                call = functools.partial(handler, **(arguments or {}))

                async def answer() -> Any:
                    with noting_here():
                        if inspect.iscoroutinefunction(handler):
                            return await contained(call())
                        return await self._run_in_thread(call)

                limit = self._runner.endpoint_limit(rule, handler)
                return jsonify(await self._sessions.while_valid(answer(), rights_here(), limit=limit))

        return api

    def serve_callback(self, dash_app: Dash) -> Callable[[], Any]:
        """The view behind `_dash-update-component`."""
        del dash_app

        async def dispatch() -> Response:
            return await self._runner.over_http()

        # The name under which CSRF protection of a Quart app exempts Dash's callbacks.
        dispatch.__module__, dispatch.__qualname__ = "dash.dash", "dispatch"
        return dispatch

    def register_prune_error_handler(self, secret: str, prune_errors: bool) -> None:
        """In debug mode, show Dash's traceback page for exceptions of this app's own routes; leave all else alone, also to
        what handled every exception before.
        """
        self.error_handling_mode = "prune" if prune_errors else "raise"
        before = self.server.error_handler_spec[None][None].get(Exception)

        @self.server.errorhandler(Exception)
        async def debug_page(error: Exception) -> Any:
            is_answer = isinstance(error, HTTPException)
            if is_answer or not request or not request.path.startswith(self._prefix):
                if before is not None:
                    return await self.server.ensure_async(before)(error)
                if is_answer:
                    return error
                raise error
            logger.error("exception on %s", request.path, exc_info=error)
            return Response(traceback_page(self, secret, error), status=500, content_type="text/html")

    def register_timing_hooks(self, _first_run: bool) -> None:
        """In debug mode, with Dash's dev tools in the page: they are told over the websocket what they are over HTTP."""
        if not self._extension.measures_requests:  # of all apps: a second time, and what is measured is nonsense
            super().register_timing_hooks(_first_run)
            self._extension.measures_requests = True
        self._runner.traceback_page = functools.partial(traceback_page, self, "")

    @property
    def _has_devtools(self) -> bool:
        return self._runner.traceback_page is not None

    def run(self, dash_app: Dash, host: str, port: int, debug: bool, **kwargs: Any) -> None:
        """What `app.run()` does: serve with hypercorn. With hot reload the process starts anew when its code changes."""
        if is_silent(dash_app):
            logging.getLogger("quart.app").setLevel(logging.ERROR)
        reloads = kwargs.get("use_reloader", True) and has_hot_reload(dash_app)
        if not reloads or threading.current_thread() is not threading.main_thread():
            super().run(dash_app, host, port, debug, **kwargs)
            return
        watch, changed = Watch(kwargs.get("extra_files", ())), []

        async def stop_when_changed() -> None:
            await watch.wait()
            changed.append(True)
            stop_running(self)

        @self.server.before_serving
        async def begin_to_watch() -> None:
            self._extension.spawn(stop_when_changed(), name="hot reload")

        super().run(dash_app, host, port, debug, **kwargs)
        if changed:
            start_anew()

    # ------------------------------------------------------------------------------------------ one websocket

    def serve_websocket_callback(self, dash_app: Dash) -> None:
        """Register Dash's websocket path."""
        del dash_app
        self._extension.add_socket_path(self._socket_path)
        self.server.add_websocket(self._socket_path, endpoint=self._socket_path, view_func=self._websocket)
        self._serve_own_routes()

    async def _websocket(self) -> Response | None:
        """One websocket, from the handshake until nothing of it is left."""
        opening = websocket_here()
        socket = cast("Any", opening.scope).get(SCOPE_KEY)
        if socket is None:  # another spelling of the path, which Quart's routing takes and the class above does not
            return Response("no such websocket", 404, content_type="text/plain")
        self._extension.watch_shutdown(socket)
        _servers.spare_other_streams(socket.server_send)
        try:
            async with asyncio.timeout(None) as deadline:
                # A timer keeps its context, with all of the handshake, also when it has been cancelled: until it is due.
                due = asyncio.get_running_loop().time() + self.options.handshake_timeout
                contextvars.Context().run(deadline.reschedule, due)
                verdict = await handshake.admit(
                    opening,
                    config=self.options,
                    sessions=self._sessions,
                    guard=self._guard,
                    allowed=self._allowed_origins,
                    hooks=get_hooks("websocket_connect"),
                )
        except TimeoutError:
            logger.warning("a handshake took longer than %g s", self.options.handshake_timeout)
            return Response("the handshake took too long", 503, content_type="text/plain")
        if isinstance(verdict, handshake.Forbidden):
            return Response(verdict.reason, 403, content_type="text/plain")
        if isinstance(verdict, handshake.Admitted):
            verdict = self._extension.crowding(verdict, opening) or verdict
        socket.bridge = SUBPROTOCOL in opening.requested_subprotocols
        if not self.options.compression and not _servers.decline_compression(socket.server_send):
            self._extension.warn_once("this server cannot be kept from negotiating permessage-deflate; see the docs")
        await opening.accept(subprotocol=SUBPROTOCOL if socket.bridge else None)
        if _servers.has_refused(socket.server_send):
            return None
        if isinstance(verdict, handshake.Refused):
            _note(verdict)
            await socket.dismiss(verdict.code, verdict.reason, timeout=self.options.close_timeout)
            return None
        connection = self._open(socket, opening, verdict)
        hooks = get_hooks("websocket_message")
        await connection.serve(self._runner, _screen_with(hooks) if hooks else None)
        return None

    def _open(self, socket: Socket, opening: Websocket, admitted: handshake.Admitted) -> Connection:
        """Right after accept, and without an await: a connection that is in the hub, or has ended again."""
        session = admitted.session
        connection = Connection(
            socket,
            self.options,
            user=None if session is None else session.user,
            session=session,
            bound_to=admitted.sessions,
            remote=opening.remote_addr,
            path=self._socket_path,
            share=self._extension.shares.of(self._sessions.payer()),
            visitor=visitor_of(opening),
            cut_off=self._sessions.verdict if admitted.sessions and self._extension.broker.is_shared else None,
        )
        divide_session()
        if connection.user is not None and admitted.authenticated:
            self._keep_rights(connection, connection.user)
        else:
            setattr(g, RIGHTS, None)
        # From the hub's `add` on a revocation finds this connection; one that came before it is found by looking again.
        self._extension.hub.add(connection)
        too_late = handshake.look_again(self._sessions, admitted)
        if too_late is None:  # many may have come at once, and have been waiting for their accept together
            too_late = self._extension.crowding(admitted, opening, newcomer=connection)
        if too_late is not None:
            _note(too_late)
            connection.end(too_late.code, too_late.reason)
        else:
            connection.welcome(self._heartbeat or 0)
            self._opened(connection, admitted)
            if connection.bridge and self._heartbeat is not None:
                self._extension.watch_heartbeat(connection, self._heartbeat / 1000)
        here = weakref.ref(connection)  # the server's objects outlive the connection for a while
        _servers.limit_inbound(
            socket.server_send,
            self.options.inbound_bytes,
            lambda: (open_one := here()) and open_one.end(CloseCode.TOO_BIG, "message too big"),
        )
        return connection

    def _keep_rights(self, connection: Connection, user: str) -> None:
        """The connection's callbacks find its user's groups on `g`; when they rely on what has changed, it ends."""
        rights = self._extension.groups.of(user)
        rights.lost = functools.partial(connection.end, CloseCode.RIGHTS_CHANGED, "the user's rights have changed")
        # With an authorizer, exactly the topics go that the user may not have any more.
        topics = self._extension.topics
        rights.depends = lambda: topics.authorize is None and self._extension.hub.has_topics(connection)
        setattr(g, RIGHTS, rights)

    def _opened(self, connection: Connection, admitted: handshake.Admitted) -> None:
        security.info(
            "connect user=%.64r session=%s connection=%s remote=%s",
            connection.user, getattr(connection.session, "id", None), connection.id, printable(connection.remote),
        )  # fmt: skip
        connection.gone.append(self._closed)
        self._extension.cluster.entered(connection)
        self._sessions.watch(connection, admitted.sessions)
        for hook in self._connect_hooks:
            self._extension.call_hook(hook, connection)

    def _closed(self, connection: Connection) -> None:
        if connection.close_code == CloseCode.ABUSE:
            security.warning(
                "abuse user=%.64r session=%s connection=%s reason=%.64r remote=%s",
                connection.user, getattr(connection.session, "id", None), connection.id,
                connection.close_reason, printable(connection.remote),
            )  # fmt: skip
        security.info(
            "close user=%.64r session=%s connection=%s code=%s reason=%.64r",
            connection.user, getattr(connection.session, "id", None), connection.id,
            connection.close_code, connection.close_reason,
        )  # fmt: skip
        self._extension.cluster.when_counted(functools.partial(self._call_disconnect_hooks, connection))

    def _call_disconnect_hooks(self, connection: Connection) -> None:
        for hook in self.disconnect_hooks:
            self._extension.call_hook(hook, connection, connection.close_reason)

    # ----------------------------------------------------------------------------------- what the app may do

    def connections(
        self, *, user: str | None = None, session: Session | str | None = None, topic: str | None = None
    ) -> tuple[Connection, ...]:
        """The open connections of this app in this process, the oldest first; all, or a user's, session's or topic's."""
        if user is session is topic is None:
            target = Target(TargetKind.ALL)
        else:
            target = _target(user=user, session=session, topic=topic)
        return self._own(target)

    async def all_connections(
        self, *, user: str | None = None, session: Session | str | None = None
    ) -> tuple[KnownConnection, ...]:
        """The open connections of this app on every worker and host, the oldest first; all, or a user's or session's.

        Each has the worker and the host that hold it. A connection of this process is in it from when it was accepted; one
        elsewhere a moment later.

        Raises:
            BrokerError: the broker does not answer.
        """
        id = session.id if isinstance(session, Session) else session
        return tuple(
            one
            for one in await self._extension.cluster.connections()
            if one.path == self._socket_path
            and (user is None or one.user == str(user))
            and (id is None or (one.session is not None and one.session.id == id))
        )

    def sessions(self, *, user: str | None = None, all: bool = False) -> tuple[KnownSession, ...]:
        """The valid sessions of a user, or of all, that this server knows; the one that was seen last comes first.

        For an account page (ASVS 7.5.2): where a user is signed in, since when, from where and with which browser. Known
        is what was seen since it began, or in an earlier life of the server, with or without a connection: at most 1,000
        sessions of one user and 100,000 in all. Safe on the event loop and in a thread.

        Args:
            user: whose.
            all: everybody's.

        Raises:
            TypeError: not exactly one of the two was given; nobody's `auth_id`, None, does not stand for everybody.
        """
        if (user is not None) + all != 1:
            raise TypeError("sessions() takes exactly one of user=, all=True")
        return self._sessions.known(user)

    def revoke(
        self,
        *,
        session: Session | str | None = None,
        user: str | None = None,
        all: bool = False,
        keep: Session | str | Iterable[Session | str] | None = None,
        reason: str = "",
    ) -> PendingReceipt:
        """End sessions, now: their tokens are nobody from here on, and their connections are closed (ASVS 7.4.1-7.4.5).

        The work is done when this returns; await it, or ask for `.result()` in a thread, for the receipt. It may be
        called on the event loop, in a thread, and by a callback of the very session, which is cancelled last.

        Args:
            session: one session, or its id.
            user: every session that this user has begun before now. A later login is not affected.
            all: everybody's.
            keep: sessions to spare: `keep=current_session()` is "sign out everywhere else".
            reason: why, in at most 123 bytes: the client, the hooks and the log get it.

        Raises:
            TypeError: not exactly one of `session`, `user` and `all` was given.
        """
        return self._sessions.revoke(session=session, user=user, all=all, keep=keep, reason=reason)

    def rights_changed(self, user: str) -> Pending[Receipt]:
        """This user's groups are others now: make that true for what is open and running (ASVS 8.3.2).

        From the moment when this is called no callback of theirs starts before `list_groups` has been asked again. Then
        every connection ends (4101: the client comes back by itself) on which something goes on that was decided by the
        old groups and would not be any more: a `protected_callback` whose groups are lost, a callback that has called
        `list_groups()`, a topic. With `authorize_topic` that is asked again, and takes them off the topics that they may not
        have any more. HTTP requests that run such a callback are answered with 403. All else goes on.

        Without the option `list_groups` nothing is known of what was decided: all of the user's connections end so.

        Args:
            user: the `auth_id`.

        Returns:
            To be awaited, or asked for its `.result()` in a thread: a receipt of the connections that were closed.
        """
        return self._extension.rights_changed(str(user))

    def close(
        self,
        *,
        connection: Connection | KnownConnection | str | None = None,
        session: Session | str | None = None,
        user: str | None = None,
        topic: str | None = None,
        all: bool = False,
        reason: str = "",
        reconnect: bool = False,
    ) -> PendingReceipt:
        """Close connections of this app, and leave their sessions as they are.

        The work is done when this returns, as with `revoke`.

        Args:
            connection: one connection, or its id.
            session: those of one session, or of its id.
            user: those of one user.
            topic: those that are subscribed to a topic.
            all: all of them.
            reason: why, in at most 123 bytes: the client and the log get it.
            reconnect: whether the clients should come back by themselves (4100), or not (4500).

        Raises:
            TypeError: not exactly one of the targets was given.
        """
        code = CloseCode.CLOSED_BY_APP_RETRY if reconnect else CloseCode.CLOSED_BY_APP
        target = _target(connection=connection, session=session, user=user, topic=topic, all=all)
        why = cut_reason(reason or "closed")

        def act() -> PendingReceipt:
            own = self._own(target)
            endings = [one.end(code, why) for one in own if not one.ended]
            is_found = target.kind is TargetKind.CONNECTION and bool(own)
            question = Close(target, int(code), why, self._socket_path)
            answers = None if is_found else self._extension.cluster.ask(question)
            return receipt_of(endings, worker=self._extension.broker.worker.id, answers=answers)

        return self._sessions.in_loop(act)

    def set_props(
        self,
        id: str | Mapping[str, Any],
        props: Mapping[str, Any],
        *,
        user: str | None = None,
        session: Session | str | None = None,
        connection: Connection | KnownConnection | str | None = None,
        topic: str | None = None,
        all: bool = False,
    ) -> Pending[int]:
        """Push: set properties of a component in every tab of these connections, now, from anywhere.

        The message is encoded once. It is queued when this returns; awaiting it gives the number of connections.

        Args:
            id: the component's id, also a dict.
            props: property name -> value, as a callback would return them; also `Patch`.
            user: whose connections.
            session: the connections of one session, or of its id.
            connection: one connection, or its id.
            topic: the connections that are subscribed to a topic.
            all: every connection of this app.

        Raises:
            TypeError: not exactly one of the targets was given, or a value cannot be made JSON.
        """
        message = props_message(None, id, props)
        to_all = codec.queued(message)
        target = _target(connection=connection, session=session, user=user, topic=topic, all=all)

        def act() -> int:
            own = self._own(target)
            for one in own:
                one.push(message, to_all)
            self._extension.cluster.push(target, message, self._socket_path)
            return len(own)

        pending: Pending[int] = Pending()
        pending.resolve(self._sessions.in_loop(act))
        return pending

    def subscribe(self, target: Connection | Session, topic: str) -> Pending[bool]:
        """Subscribe a connection to a topic until it ends, or a session, on every worker, while it has a connection there.

        Without the option `authorize_topic` it is done in this process when this returns; with it, when that has said yes.
        On other workers a session's connections are subscribed a moment later.

        Returns:
            To be awaited, or asked for its `.result()` in a thread: whether they may be.
        """
        pending: Pending[bool] = Pending()
        topics = self._extension.topics

        async def ask() -> None:
            allowed = False
            try:
                allowed = await topics.may(target.user, topic)
                if allowed:
                    self._join(target, topic)
            finally:
                pending.resolve(allowed)

        def act() -> None:
            if topics.authorize is None:
                self._join(target, topic)
                pending.resolve(True)  # noqa: FBT003 - the answer itself
            else:
                self._extension.spawn(ask(), name="subscription")

        self._sessions.in_loop(act)
        return pending

    def _join(self, target: Connection | Session, topic: str) -> None:
        if isinstance(target, Session):
            self._extension.hub.subscribe_session(target.id, topic)
            self._extension.cluster.subscribe(target.id, topic, joins=True)
        else:
            self._extension.hub.subscribe([target], topic)

    def unsubscribe(self, target: Connection | Session, topic: str) -> None:
        """Take a connection, or a session, off a topic."""
        self._sessions.in_loop(lambda: self._part(target, topic))

    def _part(self, target: Connection | Session, topic: str) -> None:
        if isinstance(target, Session):
            self._extension.hub.unsubscribe_session(target.id, topic)
            self._extension.cluster.subscribe(target.id, topic, joins=False)
        else:
            self._extension.hub.unsubscribe([target], topic)

    def on_connect(self, hook: Hook) -> Hook:
        """Decorator: call `hook(connection)` when a connection of this app has opened; async, or in a thread."""
        self._connect_hooks.append(hook)
        return hook

    def on_disconnect(self, hook: Hook) -> Hook:
        """Decorator: call `hook(connection, reason)` once when a connection of this app has ended."""
        self.disconnect_hooks.append(hook)
        return hook

    def on_session_end(self, hook: Hook) -> Hook:
        """Decorator: call `hook(session, reason)` once when a session that is known here has ended."""
        self.session_end_hooks.append(hook)
        return hook

    def _own(self, target: Target) -> tuple[Connection, ...]:
        """A target's connections of this app in this process."""
        return tuple(one for one in self._extension.hub.of(target) if one.path == self._socket_path)


def _target(
    *,
    connection: Connection | KnownConnection | str | None = None,
    session: Session | str | None = None,
    user: str | None = None,
    topic: str | None = None,
    all: bool = False,
) -> Target:
    """Whom the arguments of `close` and `set_props` mean.

    Raises:
        TypeError: not exactly one of them was given.
    """
    given = [target for target in (connection, session, user, topic) if target is not None]
    if len(given) + all != 1:
        raise TypeError("give exactly one of connection=, session=, user=, topic=, all=True")
    if connection is not None:
        return Target(TargetKind.CONNECTION, connection if isinstance(connection, str) else connection.id)
    if session is not None:
        return Target(TargetKind.SESSION, session if isinstance(session, str) else session.id)
    if user is not None:
        return Target(TargetKind.USER, str(user))
    return Target(TargetKind.ALL) if topic is None else Target(TargetKind.TOPIC, topic)


def _note(refused: handshake.Refused) -> None:
    security.info("refuse code=%d reason=%.64r remote=%s", refused.code, refused.reason, remote_here())


def _screen_with(hooks: list[Callable[..., Any]]) -> Callable[[dict[str, Any]], Any]:
    async def screen(message: dict[str, Any]) -> tuple[int, str] | None:
        return await handshake.screen(hooks, websocket, message, refusal="Message rejected")

    return screen
