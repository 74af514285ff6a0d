"""Dash's private names, all of them. A new Dash release that renames one is mended here, and nowhere else."""

from __future__ import annotations

import dataclasses
import inspect
import traceback
from typing import TYPE_CHECKING, Any, ClassVar, cast

from dash import _callback, hooks
from dash._get_app import app_context
from dash._utils import stringify_id
from dash._utils import to_json as _to_json
from dash.backends._quart import QuartDashServer, QuartRequestAdapter
from dash.backends.ws import DashWebsocketCallback
from quart import g, has_request_context, websocket

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dash import Dash
    from dash.types import CallbackExecutionBody

__all__ = [
    "DashWebsocketCallback",
    "FirstContact",
    "Prepared",
    "QuartDashServer",
    "RequestAdapter",
    "WebsocketOptions",
    "app_context",
    "callback_traceback",
    "callback_url",
    "get_hooks",
    "is_own_first_request",
    "prepare",
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


def websocket_options(app: Dash) -> WebsocketOptions:
    """What this app was given."""
    return WebsocketOptions(
        bool(app._websocket_callbacks), tuple(app._websocket_allowed_origins), app._websocket_max_workers or 4
    )


def callback_url(app: Dash) -> str:
    """Where the browser posts callbacks over HTTP."""
    return f"{app.config.routes_pathname_prefix}_dash-update-component"


# ------------------------------------------------------------------------------------------------ one callback


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
        path: str = super().path
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
