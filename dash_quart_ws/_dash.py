"""Dash's private names, all of them. A new Dash release that renames one is mended here, and nowhere else."""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import logging
import traceback
from typing import TYPE_CHECKING, Any, ClassVar, cast

from dash import Dash, _callback, _callback_signing, _pages, hooks
from dash._callback_context import context_value
from dash._get_app import app_context
from dash._utils import stringify_id
from dash._utils import to_json as _to_json
from dash.backends._quart import QuartDashServer, QuartRequestAdapter
from dash.backends.ws import DashWebsocketCallback
from dash.exceptions import UnsupportedRelativePath
from quart import g, has_request_context, websocket
from werkzeug.datastructures import MultiDict
from werkzeug.local import LocalProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dash.types import CallbackExecutionBody
    from quart import Quart

__all__ = [
    "DashWebsocketCallback",
    "FirstContact",
    "Prepared",
    "QuartDashServer",
    "RequestAdapter",
    "WebsocketOptions",
    "app_context",
    "assets_endpoint",
    "background_manager",
    "callback_context",
    "callback_list",
    "callback_traceback",
    "callback_url",
    "dash_apps",
    "get_hooks",
    "has_dev_tools",
    "is_own_first_request",
    "is_router",
    "page_found_for",
    "prepare",
    "sign_page",
    "signed_page",
    "stringify_id",
    "to_json",
    "websocket_options",
]


def to_json(value: Any) -> str:
    """JSON text as Dash makes it: components, figures, numpy and pandas included."""
    text: str = _to_json(value)  # type: ignore[no-untyped-call]
    return text


def get_hooks(name: str) -> list[Callable[..., Any]]:
    """Dash's hooks of one kind, in their order."""
    return list(hooks.get_hooks(name))


@dataclasses.dataclass(frozen=True, slots=True)
class WebsocketOptions:
    """The `websocket_*` arguments of `dash.Dash`."""

    everything: bool
    """`websocket_callbacks`: every callback may come over the socket, not only those with `websocket=True`."""
    allowed_origins: tuple[str, ...]
    max_workers: int
    heartbeat_interval: float | None
    """Milliseconds between two signs of life of the browser; None: it gives none."""


def websocket_options(app: Dash) -> WebsocketOptions:
    """What this app was given."""
    return WebsocketOptions(
        bool(app._websocket_callbacks),
        tuple(app._websocket_allowed_origins),
        app._websocket_max_workers or 4,
        app._websocket_heartbeat_interval or None,
    )


def callback_url(app: Dash) -> str:
    """Where the browser posts callbacks over HTTP."""
    return f"{app.config.routes_pathname_prefix}_dash-update-component"


def dash_apps(server: Quart) -> tuple[Dash, ...]:
    """The Dash apps of a server, in order of registration: each has views that are methods of its own."""
    owners = (getattr(inspect.unwrap(view), "__self__", None) for view in server.view_functions.values())
    return tuple(dict.fromkeys(owner for owner in owners if isinstance(owner, Dash)))


def has_dev_tools(app: Dash) -> bool:
    """Whether the browser gets anything of what `debug=True` switches on."""
    return any(bool(app._dev_tools.get(name)) for name in ("ui", "hot_reload", "serve_dev_bundles"))


# ------------------------------------------------------------------------------------------------ one callback


OWN_PAGE = "_dash_quart_ws_own_page"
"""Where `g` holds the token of a request without a page."""

PAGE_PATH = "_dash_quart_ws_page_path"
"""Where `g` holds a page's path without the app's prefix, while Dash looks for its title and description: it takes the
path as it is, and below a prefix would find another page's."""


class RequestAdapter(QuartRequestAdapter):
    """What Dash reads of the request that carries a callback: the same over HTTP and over the websocket.

    Over the websocket cookies, headers and addresses are the handshake's. The path is the one that the callback would
    have been posted to, which is what code that looks at `ctx.path` expects.
    """

    websocket_paths: ClassVar[dict[str, str]] = {}
    """Websocket path -> the path that callbacks of the same app are posted to."""

    def __init__(self) -> None:
        super().__init__()
        self._is_websocket = not has_request_context()
        if self._is_websocket:
            self._request = cast("Any", websocket)

    @property
    def context(self) -> Any:
        return g if self._is_websocket else super().context

    @property
    def path(self) -> str:
        path: str = getattr(g, PAGE_PATH, None) or super().path
        return self.websocket_paths.get(path, path) if self._is_websocket else path

    @property
    def full_path(self) -> str:
        if not self._is_websocket:
            path: str = super().full_path
            return path
        return f"{self.path}?{self.request.query_string.decode('latin1')}"

    @property
    def url(self) -> str:
        return f"{self.request.host_url.rstrip('/')}{self.full_path}" if self._is_websocket else str(super().url)

    @property
    def args(self) -> Any:
        own = getattr(g, OWN_PAGE, None)
        return super().args if own is None else MultiDict([*super().args.items(multi=True), ("endId", own)])

    @property
    def is_json(self) -> bool:
        return self._is_websocket or bool(super().is_json)


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A callback with its arguments and its context; calling it runs the user's function, and gives JSON text.

    `call` of an async callback returns a coroutine.
    """

    call: Callable[[], str | Coroutine[Any, Any, str]]
    context: Any
    is_async: bool


def prepare(app: Dash, body: dict[str, Any], websocket_callback: DashWebsocketCallback | None = None) -> Prepared:
    """Dash's own preparation of a callback, in the current request or websocket context.

    Raises:
        KeyError: there is no such callback.
    """
    app_context.set(app)
    context = app._initialize_context(cast("CallbackExecutionBody", body))
    if websocket_callback is not None:
        context.dash_websocket = websocket_callback
    untyped: Any = app
    function = untyped._prepare_callback(context, body)
    arguments = untyped._inputs_to_vals(context.inputs_list + context.states_list)
    call = untyped._execute_callback(function, arguments, context.outputs_list, context)
    return Prepared(call, context, inspect.iscoroutinefunction(function))


def callback_traceback(app: Dash, error: BaseException) -> str | None:
    """What Dash's dev tools may show of an exception; None outside debug. Pruned as the app asks for."""
    if not app._dev_tools.ui:
        return None
    frames: list[traceback.FrameSummary] = list(traceback.extract_tb(error.__traceback__))
    if app._dev_tools.prune_errors:
        invoked = [i for i, frame in enumerate(frames) if frame.name in ("_invoke_callback", "_async_invoke_callback")]
        frames = frames[max(invoked, default=-1) + 1 :] or frames
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)])


def callback_list(app: Dash) -> list[dict[str, Any]]:
    """What the browser is told of each callback, after set-up."""
    return list(app._callback_list)


_tools: contextvars.ContextVar[Any] = contextvars.ContextVar("dash_quart_ws_tools")


def own_tools(app: Dash) -> None:
    """Have MCP's tools worked out for the request at hand: Dash keeps what they gave to whoever asked first, for all."""
    from dash.mcp.primitives.tools.callback_adapter_collection import CallbackAdapterCollection

    untyped: Any = CallbackAdapterCollection
    _tools.set(untyped(app))
    app.mcp_callback_map = LocalProxy(_tools)


def _on_one_line(record: logging.LogRecord) -> bool:
    """Dash's MCP server logs what its client has sent as it is, line breaks included."""
    record.msg, record.args = repr(record.getMessage()[:500])[1:-1], ()
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        frames = "".join(traceback.format_tb(error.__traceback__))
        record.exc_text = f"{frames}{type(error).__name__}: {str(error)[:500]!r}"
        record.exc_info = None
    return True


logging.getLogger("dash.mcp._server").addFilter(_on_one_line)


def assets_endpoint(app: Dash) -> str:
    """The endpoint of Dash's assets folder: of a blueprint that it registers before it sets the backend up."""
    prefix = app.config.routes_pathname_prefix.replace("/", "_").replace(".", "_")
    return f"{prefix}dash_assets.static"


def background_manager(app: Dash) -> Any:
    """The app's `background_callback_manager`; None if it has none."""
    return app._background_manager


def callback_context() -> dict[str, Any]:
    """What Dash's `ctx` reads from, in a callback or a background job; empty elsewhere."""
    found: dict[str, Any] = context_value.get({})
    return found


# --------------------------------------------------------------------------------------------------------- pages


def sign_page(app: Dash, value: str) -> str:
    """The `end_id` of a page: Dash's renderer sends it back with every callback over HTTP."""
    return _callback_signing.sign(app._get_signing_secret(), _callback_signing.END_SCOPE, value)


def signed_page(app: Dash, token: Any) -> str | None:
    """What `sign_page` was given for this token; None if nobody here has signed it."""
    if not isinstance(token, str):  # over a websocket it may be any JSON
        return None
    try:
        return _callback_signing.unsign(app._get_signing_secret(), _callback_signing.END_SCOPE, token)
    except (TypeError, UnicodeError):  # what cannot be compared is no signature
        return None


def is_router(app: Dash, spec: Mapping[str, Any]) -> bool:
    """Whether a callback of `callback_map` is the one that gives a page's content for a path."""
    inputs = spec["inputs"]
    return bool(app.use_pages and inputs and inputs[0] == {"id": "_pages_location", "property": "pathname"}) and any(
        getattr(output, "component_id", None) == "_pages_content" for output in _as_list(spec["output"])
    )


def page_found_for(app: Dash, pathname: str) -> tuple[str, str | None] | None:
    """Path, below the app, and path template of the page that Dash shows for a path; None where there is none.

    `pathname` is as the browser shows it: with `requests_pathname_prefix`.
    """
    if not app.use_pages:
        return None
    try:
        untyped: Any = _pages
        page, _variables = untyped._path_to_page(app.strip_relative_path(pathname) or "")
    except UnsupportedRelativePath:
        return None
    return (page["path"], page["path_template"]) if page else None


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


# ----------------------------------------------------------------------------------------------- first contact


def is_own_first_request(function: Callable[..., Any]) -> bool:
    """Whether Dash itself, and not the app, asks for this function to run before a request: it sets Dash up, once."""
    return getattr(function, "__module__", None) == "dash.dash"


class FirstContact:
    """Dash's set-up of one app, which can be tried again.

    Dash marks its set-up as done before it has succeeded, and takes the global `@callback`s over on the way: after a
    layout that failed once they would be lost. This puts everything back as it was.
    """

    def __init__(self, app: Dash) -> None:
        self._app = app
        self._flags = dict(app._got_first_request)
        self._callbacks = dict(app.callback_map)
        self._callback_list = list(app._callback_list)
        self._inline_scripts = list(app._inline_scripts)
        self._assets = list(app._assets_files)
        self._scripts = list(app.scripts._resources._resources)
        self._styles = list(app.css._resources._resources)
        self._global_callbacks = dict(_callback.GLOBAL_CALLBACK_MAP)
        self._global_list = list(_callback.GLOBAL_CALLBACK_LIST)
        self._global_scripts = list(_callback.GLOBAL_INLINE_SCRIPTS)

    def undo(self) -> None:
        """The set-up has failed: forget that it was tried."""
        self._app._got_first_request.update(self._flags)
        self._app.callback_map.clear()
        self._app.callback_map.update(self._callbacks)
        self._app._callback_list = self._callback_list
        self._app._inline_scripts = self._inline_scripts
        self._app._assets_files = self._assets
        self._app.scripts._resources._resources = self._scripts
        self._app.css._resources._resources = self._styles
        _callback.GLOBAL_CALLBACK_MAP.clear()
        _callback.GLOBAL_CALLBACK_MAP.update(self._global_callbacks)
        _callback.GLOBAL_CALLBACK_LIST[:] = self._global_list
        _callback.GLOBAL_INLINE_SCRIPTS[:] = self._global_scripts
