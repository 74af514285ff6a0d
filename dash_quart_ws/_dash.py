"""Dash's private names, all of them. A new Dash release that renames one is mended here, and nowhere else."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import inspect
import logging
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

import dash
from dash import Dash, Output, _callback, _callback_signing, _pages, _validate, hooks
from dash._callback_context import context_value
from dash._callback_context import set_props as _set_props
from dash._get_app import app_context
from dash._grouping import grouping_len, map_grouping
from dash._no_update import NoUpdate
from dash._utils import AttributeDict, split_callback_id, stringify_id
from dash._utils import clean_property_name as _clean_property_name
from dash._utils import to_json as _to_json
from dash.backends._quart import QuartDashServer, QuartRequestAdapter, QuartResponseAdapter
from dash.backends.ws import DashWebsocketCallback
from dash.development.base_component import Component, ComponentRegistry
from dash.exceptions import UnsupportedRelativePath
from dash.fingerprint import check_fingerprint
from quart import Response, g, has_request_context, websocket
from werkzeug.datastructures import Headers, MultiDict
from werkzeug.local import LocalProxy

from ._plotly import names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from quart import Quart

__all__ = [
    "BundleFile",
    "CallbackResponse",
    "Callbacks",
    "Carrier",
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
    "callback_here",
    "callback_list",
    "callback_url",
    "cancels_jobs",
    "component_json",
    "dash_apps",
    "get_hooks",
    "given_to_set_props",
    "has_dev_tools",
    "has_hot_reload",
    "is_component",
    "is_own_first_request",
    "is_router",
    "is_silent",
    "needs_http",
    "opens_lazily",
    "page_found_for",
    "response_here",
    "sign_page",
    "signed_page",
    "stop_running",
    "stringify_id",
    "to_json",
    "to_json_is_known",
    "traceback_page",
    "websocket_options",
]


def to_json(value: Any) -> str:
    """JSON text as Dash makes it, by Dash itself: `callbacks.serialise` has the same in less time."""
    text: str = _to_json(value)  # type: ignore[no-untyped-call]
    return text


_component_json: Final[Any] = Component.to_plotly_json

_components_are_known: Final = names_of(_component_json) == {
    "__dict__", "_namespace", "_prop_names", "_type", "_valid_wildcard_attributes", "any", "getattr", "hasattr",
    "startswith", "update",
}  # fmt: skip


def to_json_is_known() -> bool:
    """Whether Dash's `to_json` is plotly's, as it is."""
    return names_of(_to_json) == {"plotly.io.json", "to_json_plotly"}


def is_component(kind: Any) -> bool:
    """Whether a class is of Dash's components, and its `to_plotly_json` the one that is known here."""
    return _components_are_known and kind.to_plotly_json is _component_json


def component_json(component: Any) -> dict[str, Any]:
    """`to_plotly_json` of a component: it asks for every property that there may be, and most are not set."""
    kind: Any = type(component)
    shared = _shared_names(kind)
    names = component._prop_names
    if shared is None or not shared.isdisjoint(names):
        found: dict[str, Any] = component.to_plotly_json()
        return found
    attributes = vars(component)
    wildcards = tuple(component._valid_wildcard_attributes)
    props = {name: attributes[name] for name in names if name in attributes}
    props.update({name: value for name, value in attributes.items() if name.startswith(wildcards)})
    return {"props": props, "type": component._type, "namespace": component._namespace}


@functools.lru_cache(maxsize=1024)
def _shared_names(kind: Any) -> frozenset[str] | None:
    """The names that every component of a class has, set or not; None where that cannot be known."""
    computes = kind.__getattribute__ is not object.__getattribute__ or hasattr(kind, "__getattr__")
    return None if computes else frozenset(dir(kind))


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


def opens_lazily() -> bool:
    """Whether Dash's renderer opens its websocket for the first callback that goes over it, unless
    `websocket_callbacks=True`. Up to 4.4 each page opens one.
    """
    return tuple(map(int, dash.__version__.split(".")[:2])) >= (4, 5)


def callback_url(app: Dash) -> str:
    """Where the browser posts callbacks over HTTP."""
    return f"{app.config.routes_pathname_prefix}_dash-update-component"


class BundleFile(NamedTuple):
    """A file of a component package, as Dash serves it."""

    package: str
    path: str
    is_fingerprinted: bool
    """Whether the request named a version, whichever: that decides what Dash says about caching."""

    @classmethod
    def find(cls, app: Dash, package: str, path: str) -> BundleFile:
        """What is asked for by this path.

        Raises:
            DependencyException: no component or resource of the app has registered it.
        """
        name, is_fingerprinted = check_fingerprint(path)  # type: ignore[no-untyped-call]
        _validate.validate_js_path(app.registered_paths, package, name)  # type: ignore[no-untyped-call]
        return cls(package, name, is_fingerprinted)

    def version(self) -> tuple[int, int, int] | None:
        """Another one when the file has changed; None if it is not a file of its own, but in a zip archive."""
        try:
            found = Path(sys.modules[self.package].__file__ or "").parent.joinpath(self.path).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


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

CARRIER = "_dash_quart_ws_carrier"
"""Where `g` of a websocket holds its `Carrier`."""

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
        """Where Dash keeps what a callback measures: `g` of a connection is that of all its callbacks."""
        return (callback_context() or g) if self._is_websocket else super().context

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


class CallbackResponse(QuartResponseAdapter):
    """`ctx.response`: Dash's own, with the rest of what one does to a response's cookies and headers."""

    def delete_cookie(self, key: str, **options: Any) -> None:
        """As Quart's `Response.delete_cookie`."""
        self.callback_response.delete_cookie(key, **options)

    @property
    def headers(self) -> Headers:
        """The headers of the response that brings the callback's result."""
        return self.callback_response.headers


class SocketResponse(CallbackResponse):
    """`ctx.response` over the websocket. Dash's own makes a whole response for each callback; mostly nobody asks for it.

    Args:
        callback: what `ctx.websocket` is: it is told when somebody does.
    """

    def __init__(self, callback: Any) -> None:
        self._callback = callback

    @functools.cached_property
    def _quart_response(self) -> Response:  # type: ignore[override]  # which Dash's own sets
        response = Response(content_type="application/json")
        self._callback.responds(response)
        return response


@dataclasses.dataclass(frozen=True, slots=True)
class Carrier:
    """What Dash's `ctx` shows of the request or handshake that carries a callback.

    Reading it takes longer than all the rest of a small callback. A handshake's does not change, so that one is read once.
    """

    cookies: dict[str, str]
    headers: dict[str, str]
    args: Any
    path: str
    remote: Any
    origin: Any

    @classmethod
    def here(cls) -> Carrier:
        """That of the current request or websocket."""
        adapter = RequestAdapter()
        return cls(
            dict(adapter.cookies),
            dict(adapter.headers),
            adapter.args,
            adapter.full_path,
            adapter.remote_addr,
            adapter.origin,
        )

    @classmethod
    def of_websocket(cls) -> Carrier:
        """That of the current websocket, which is the same for all its callbacks."""
        here = cast(
            "Any", g
        )._get_current_object()  # once: each look through the proxy takes as long as a small function
        carrier: Carrier | None = getattr(here, CARRIER, None)
        if carrier is None:
            carrier = cls.here()
            setattr(here, CARRIER, carrier)
        return carrier


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A callback with its arguments and its context; calling it runs the user's function, and gives JSON text.

    `call` of an async callback returns a coroutine.
    """

    call: Callable[[], str | Coroutine[Any, Any, str]]
    context: Any
    is_async: bool


class Plan:
    """What is the same each time a callback is called, worked out once.

    Dash works it out for every call, which takes several times as long as a small callback itself. `Callbacks.prepare`
    gives a function exactly what Dash's own preparation would: `tests/test_dash.py` compares the two.
    """

    def __init__(self, spec: dict[str, Any], to_json: Callable[[Any], str]) -> None:
        self.spec = spec
        self.original = spec["callback"]
        self.function = with_shortcuts(self.original, to_json)
        self.is_async = inspect.iscoroutinefunction(self.function)
        self.background = spec.get("background", False)
        self.has_output = not spec.get("no_output")
        self.arguments = Grouping(spec["inputs_state_indices"])
        self.outputs = Grouping(spec.get("outputs_indices", []))

    def holds_for(self, spec: dict[str, Any]) -> bool:
        """Whether it was made from this entry of `callback_map`, with this function."""
        return spec is self.spec and spec["callback"] is self.original


class Grouping:
    """How the flat list of a callback's inputs and states, or of its outputs, becomes what the app has asked for."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices
        self.length: int = grouping_len(indices)  # type: ignore[no-untyped-call]
        self.is_plain = isinstance(indices, list) and indices == list(range(self.length))
        self.is_used = not isinstance(indices, int) and indices != list(range(self.length))

    def of(self, flat: Any) -> tuple[Any, bool]:
        """The grouping, and whether it is one."""
        if not isinstance(flat, list):
            flat = [flat]
        if not flat:
            return [], False
        if isinstance(self.indices, int):
            return flat[self.indices], False
        if self.is_plain and len(flat) >= self.length:
            return flat[: self.length], self.is_used
        grouping = map_grouping(lambda index: flat[index], self.indices)  # type: ignore[no-untyped-call]
        return grouping, self.is_used


class Callbacks:
    """The callbacks of one app, ready to be prepared for a call.

    Args:
        app: whose.
        to_json: makes text of what they return: the same text that Dash would make.
    """

    def __init__(self, app: Dash, to_json: Callable[[Any], str]) -> None:
        self._app = app
        self._to_json = to_json
        self._plans: dict[str, Plan] = {}

    def prepare(self, body: dict[str, Any], websocket_callback: DashWebsocketCallback | None = None) -> Prepared:
        """A callback with its arguments and context, in the current request or websocket context.

        Args:
            body: the renderer's request: `output`, `outputs`, `inputs`, `state`, `changedPropIds`.
            websocket_callback: what `ctx.websocket` is; None over HTTP.

        Raises:
            KeyError: there is no such callback.
        """
        app = self._app
        app_context.set(app)
        plan = self._plan(body["output"])
        inputs, states, outputs = body.get("inputs", []), body.get("state", []), body.get("outputs", [])
        changed = body.get("changedPropIds", [])
        if plan.has_output and not outputs:
            split_callback_id(body["output"])  # type: ignore[no-untyped-call]  # as Dash does: it raises for a wrong one
        carrier = Carrier.here() if websocket_callback is None else Carrier.of_websocket()
        values, arguments = _values_and_arguments(inputs, changed)
        state_values, state_arguments = _values_and_arguments(states, changed)
        args_grouping, using_args_grouping = plan.arguments.of(arguments + state_arguments)
        outputs = outputs if plan.has_output else []
        outputs_grouping, using_outputs_grouping = plan.outputs.of(outputs)
        context = AttributeDict(
            {
                "inputs_list": inputs,
                "states_list": states,
                "outputs_list": outputs,
                "input_values": values,
                "state_values": state_values,
                "triggered_inputs": [{"prop_id": prop_id, "value": values.get(prop_id)} for prop_id in changed],
                "dash_response": SocketResponse(websocket_callback)
                if websocket_callback
                else app.backend.response_adapter(),
                "cookies": carrier.cookies.copy(),
                "headers": carrier.headers.copy(),
                "args": carrier.args,
                "path": carrier.path,
                "remote": carrier.remote,
                "origin": carrier.origin,
                "updated_props": {},
            }
        )
        if websocket_callback is not None:
            dict.__setitem__(context, "dash_websocket", websocket_callback)
        dict.update(
            context,
            background_callback_manager=plan.spec.get("manager") or app._background_manager,
            ignore_register_page=plan.background,
            args_grouping=args_grouping,
            using_args_grouping=using_args_grouping,
            outputs_grouping=outputs_grouping,
            using_outputs_grouping=using_outputs_grouping,
        )
        custom_data = AttributeDict()
        dict.__setitem__(context, "custom_data", custom_data)
        for hook in cast("list[Any]", get_hooks("custom_data")):
            custom_data[hook.data["namespace"]] = hook(context)
        call = functools.partial(
            plan.function,
            *[_value(entry) for entry in inputs],
            *[_value(entry) for entry in states],
            outputs_list=outputs,
            background_callback_manager=context["background_callback_manager"],
            callback_context=context,
            app=app,
            app_on_error=app._on_error,
            app_use_async=app._use_async,
        )
        if plan.background and plan.is_async:  # the coroutine is Dash's: it asks the manager, which blocks
            return Prepared(lambda: asyncio.run(call()), context, is_async=False)
        return Prepared(call, context, plan.is_async)

    def _plan(self, output: str) -> Plan:
        spec = self._app.callback_map.get(output)
        if spec is None or "callback" not in spec:
            raise KeyError(f"Callback function not found for output '{output}'.")
        plan = self._plans.get(output)
        if plan is None or not plan.holds_for(spec):
            plan = self._plans[output] = Plan(spec, self._to_json)
        return plan


def _values_and_arguments(entries: list[Any], changed: list[str]) -> tuple[AttributeDict, list[Any]]:
    """What `ctx.inputs` or `ctx.states` holds of one of the request's lists, and what `ctx.args_grouping` is made of."""
    values: dict[str, Any] = {}
    arguments: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            arguments.append(_argument(entry, values, changed))
        else:
            arguments.append([_argument(one, values, changed) for one in entry])
    return AttributeDict(values), arguments


def _value(entry: Any) -> Any:
    """What a callback's function gets for one input or state."""
    return [one.get("value") for one in entry] if isinstance(entry, list) else entry.get("value")


def _argument(entry: dict[str, Any], values: dict[str, Any], changed: list[str]) -> AttributeDict:
    id, value = entry["id"], entry.get("value")
    name = stringify_id(id)
    prop_id = f"{name}.{entry['property']}"
    values[prop_id] = value
    return AttributeDict(
        {
            **entry,
            "value": value,
            "str_id": name,
            "triggered": prop_id in changed,
            "id": AttributeDict(id) if isinstance(id, dict) else id,
        }
    )


def with_shortcuts(wrapper: Callable[..., Any], to_json: Callable[[Any], str]) -> Callable[..., Any]:
    """Dash's wrapper around a user's function, as it is, but with shorter ways through what it does before and after the
    call, and another `to_json`.

    What another library has put in the wrapper's place is left alone; what it puts into Dash's module later is not seen.
    """
    if not isinstance(wrapper, types.FunctionType) or wrapper.__globals__ is not vars(_callback):
        return wrapper
    shortcuts = {name: own for name, own in _SHORTCUTS.items() if is_known_helper(name)}
    globals_ = {**wrapper.__globals__, **shortcuts, "to_json": to_json}
    copy = types.FunctionType(wrapper.__code__, globals_, wrapper.__name__, wrapper.__defaults__, wrapper.__closure__)
    copy.__kwdefaults__ = wrapper.__kwdefaults__
    return functools.update_wrapper(copy, wrapper)


_HELPERS: Final = {
    "_initialize_context": {
        "AttributeDict", "ComponentRegistry", "Output", "_validate", "context_value", "pop", "registry", "set",
        "validate_and_group_input_args", "validate_output_spec",
    },
    "_prepare_response": {
        "ComponentRegistry", "ImportedInsideCallbackError", "InvalidCallbackReturnValue", "NoUpdate", "PreventUpdate",
        "_set_side_update", "_validate", "clean_property_name", "collections", "defaultdict", "dict", "difference",
        "flatten_grouping", "get_dist", "is_no_update", "isinstance", "len", "list", "registry", "set", "stringify_id",
        "tuple", "update", "validate_multi_return", "zip",
    },
}  # fmt: skip


def is_known_helper(name: str) -> bool:
    """Whether one of the functions that Dash's wrapper calls is the one that is known here; else it is left to Dash."""
    return names_of(getattr(_callback, name, None)) == _HELPERS[name]


def _initialize_context(
    args: tuple[Any, ...], kwargs: dict[str, Any], indices: Any, has_output: bool, outputs: Any
) -> tuple[Any, ...]:
    """Before the call: a request that names the outputs to the letter needs none of Dash's longer comparisons."""
    spec = kwargs["outputs_list"]
    if has_output and not _are_those_of(spec, outputs):
        found: tuple[Any, ...] = _BY_DASH["_initialize_context"](args, kwargs, indices, has_output, outputs)
        return found
    app, spec, context = kwargs.pop("app"), kwargs.pop("outputs_list"), kwargs.pop("callback_context")
    context_value.set(context)
    packages = set(ComponentRegistry.registry)
    if indices == (0 if len(args) == 1 else [*range(len(args))]):
        return spec, context, args, {}, app, packages, False
    positional, named = _group_arguments(args, indices)
    return spec, context, positional, named, app, packages, False


def _are_those_of(spec: Any, outputs: Any) -> bool:
    """Whether a request names the outputs of a callback, none of which has a dict for an id."""
    if not isinstance(outputs, list):
        outputs, spec = [outputs], [spec]
    if type(spec) is not list or len(spec) != len(outputs):
        return False
    for output, named in zip(outputs, spec, strict=True):
        if type(named) is not dict or type(output.component_id) is not str or named.get("id") != output.component_id:
            return False
        name = named.get("property")
        if type(name) is not str or _clean_property_name(name) != output.component_property:
            return False
    return True


def _prepare_response(
    value: Any,
    spec: Any,
    multi: bool,
    response: dict[str, Any],
    context: dict[str, Any],
    app: Any,
    packages: set[str],
    background: Any,
    has_update: bool,
    has_output: bool,
    outputs: Any,
    *others: Any,
) -> None:
    """After the call: what a callback gives for outputs without wildcards or groups. Dash sees to all else."""
    is_plain = has_output and background is None and not context["updated_props"]
    if is_plain and len(ComponentRegistry.registry) == len(packages):
        found = _by_component(value, spec, outputs) if multi else _by_component((value,), [spec], (outputs,))
        if found is not None:
            response["response"] = found
            return
    _BY_DASH["_prepare_response"](
        value, spec, multi, response, context, app, packages, background, has_update, has_output, outputs, *others
    )  # fmt: skip


def _by_component(values: Any, spec: Any, outputs: Any) -> dict[str, dict[str, Any]] | None:
    """The properties that are to be set, by the ids of their components; None for what is not as plain as that."""
    if (
        type(values) not in _SEQUENCES
        or type(outputs) not in _SEQUENCES
        or not len(values) == len(spec) == len(outputs)
    ):
        return None
    found: dict[str, dict[str, Any]] = {}
    for value, named, output in zip(values, spec, outputs, strict=True):
        if type(output) is not Output or type(named) is not dict or type(named["id"]) is not str:
            return None
        if not (isinstance(value, _PERHAPS_NO_UPDATE) and _is_no_update(value)):
            found.setdefault(named["id"], {})[_clean_property_name(named["property"])] = value
    return found


_group_arguments: Final[Any] = _validate.validate_and_group_input_args
_BY_DASH: Final[dict[str, Any]] = {name: getattr(_callback, name, None) for name in _HELPERS}
_is_no_update: Final[Any] = NoUpdate.is_no_update
_SHORTCUTS: Final = {"_initialize_context": _initialize_context, "_prepare_response": _prepare_response}
_SEQUENCES: Final = (list, tuple)
_PERHAPS_NO_UPDATE: Final = (NoUpdate, dict, type)
"""What Dash takes for `no_update` are its class, objects of that, and a dict that says so."""


def has_hot_reload(app: Dash) -> bool:
    """Whether its pages ask again and again whether they are of today."""
    return bool(app._dev_tools.get("hot_reload"))


def is_silent(app: Dash) -> bool:
    """Whether `app.run` is to say nothing of requests; from then on it says nothing of that to Dash.

    Dash would configure all of logging for it, which switches every logger off that there is already.
    """
    silent = bool(app._dev_tools.get("silence_routes_logging"))
    app._dev_tools["silence_routes_logging"] = False
    return silent


def stop_running(backend: QuartDashServer) -> None:
    """End `app.run()`, on its event loop, as SIGTERM does."""
    if backend._ws_shutdown_event is not None:
        backend._ws_shutdown_event.set()


def traceback_page(backend: QuartDashServer, secret: str, error: Exception) -> str:
    """Dash's page about an exception, in debug mode; pruned as the backend's `error_handling_mode` says."""
    page: str = backend._get_traceback(secret, error)
    return page


def needs_http(spec: Mapping[str, Any]) -> bool:
    """Whether a callback of `callback_map` works over HTTP only.

    That is what runs in the background, what cancels that, and what may bring a component library along: the renderer
    sends the handles of jobs, and loads libraries, over HTTP only.
    """
    return bool(spec.get("background") or spec.get("allow_dynamic_callbacks") or cancels_jobs(spec))


def cancels_jobs(spec: Mapping[str, Any]) -> bool:
    """Whether a callback of `callback_map` is one that Dash makes of the `cancel=` of background callbacks."""
    original = inspect.unwrap(spec["callback"]) if "callback" in spec else None
    return getattr(original, "__qualname__", None) == "Dash._setup_server.<locals>.cancel_call"


def given_to_set_props() -> Mapping[str, Any] | None:
    """The properties that `dash.set_props` was given, if it has called who asks: it passes them on one by one."""
    caller = sys._getframe(2)
    if caller.f_code is not _set_props.__code__:
        return None
    props: Mapping[str, Any] = caller.f_locals["props"]
    return props


def callback_list(app: Dash) -> list[dict[str, Any]]:
    """What the browser is told of each callback, after set-up."""
    return list(app._callback_list)


_tools: contextvars.ContextVar[Any] = contextvars.ContextVar("dash_quart_ws_tools")


def own_tools(app: Dash) -> None:
    """Have MCP's tools worked out for the request at hand: Dash keeps what they gave to whoever asked first, for all.

    They are those of this app: Dash takes the one that was made last where nothing says which.
    """
    from dash.mcp.primitives.tools.callback_adapter_collection import CallbackAdapterCollection

    app_context.set(app)
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


def callback_here() -> Any:
    """What `ctx.websocket` is, in a callback over the websocket; None elsewhere."""
    return context_value.get({}).get("dash_websocket")


def response_here() -> Any:
    """What `ctx.response` is, in a callback or a background job; None elsewhere."""
    return context_value.get({}).get("dash_response")


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
