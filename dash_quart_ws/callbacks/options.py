"""What one callback says about how it is run: for how long, over what, and whether the next request takes its place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from dash.exceptions import PreventUpdate

from .._dash import callback_list, needs_http, opens_lazily, websocket_options
from ..exceptions import ConfigurationError
from ..sessions.guard import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash import Dash

Function = TypeVar("Function", bound="Callable[..., Any]")
Superseded = Literal["finish", "cancel"]
Transport = Literal["any", "http", "websocket"]

OPTIONS = "__dash_quart_ws_options__"


@dataclasses.dataclass(frozen=True, slots=True)
class CallbackOptions:
    """The arguments of `callback_options`."""

    timeout: float | Literal["default"] | None = "default"
    superseded: Superseded = "finish"
    transport: Transport = "any"


PLAIN = CallbackOptions()


def callback_options(
    *,
    timeout: float | Literal["default"] | None = "default",
    superseded: Superseded = "finish",
    transport: Transport = "any",
) -> Callable[[Function], Function]:
    """Decorator for a callback's function, right below `@callback` (or `@protected_callback`, `@public_callback`).

    Args:
        timeout: seconds that the callback may take, the wait for a thread included. Then its request is answered with an
            error, over HTTP with status 504; an async callback is cancelled, what a synchronous one still returns is
            dropped. "default": the option `callback_timeout`; None: as long as it likes. For a background callback it is
            of no effect: its job is not this request.
        superseded: what becomes of it when the same tab asks for the same callback, with the same outputs, once more.
            Dash's renderer drops the older result in any case. "finish": it runs to its end, as with Dash, for the sake
            of what else it does. "cancel": it is cut short, like one that is out of time, but without an error; for a
            callback that only reads. Over HTTP it finishes: there is no telling the tabs of a browser apart.
        transport: "http": never over the websocket; for what only an HTTP response can do. "websocket": never over HTTP,
            also when there is no connection. "any": what Dash's `websocket_callbacks=` and `websocket=` say, and over
            HTTP when the websocket cannot be used.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if timeout not in ("default", None):
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout={timeout!r}: give a number of seconds, 'default' or None")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout={timeout!r}: give a number of seconds above 0")
    for name, value, known in (("superseded", superseded, Superseded), ("transport", transport, Transport)):
        if value not in get_args(known):
            raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, get_args(known)))}")
    given = CallbackOptions(timeout, superseded, transport)

    def decorate(function: Function) -> Function:
        setattr(function, OPTIONS, given)
        return function

    return decorate


def options_of(function: Callable[..., Any]) -> CallbackOptions:
    """Of a callback's function, as Dash's `callback_map` has it: the outermost of the functions in it that has any.

    Dash's wrapper has what the function had when it was registered; one that was decorated above `@callback` has it itself.
    """
    found: Any = function
    while found is not None:
        if OPTIONS in getattr(found, "__dict__", ()):
            options: CallbackOptions = found.__dict__[OPTIONS]
            return options
        found = getattr(found, "__wrapped__", None)
    return PLAIN


def route(app: Dash, *, when_needed: bool) -> Route:
    """Have Dash's renderer send each callback the way that it has to go, and open the websocket when it should.

    Args:
        app: after set-up.
        when_needed: whether its pages open no websocket that no callback of theirs goes over.

    Raises:
        ConfigurationError: a callback says one thing to Dash, and another one here.
    """
    listed = {spec["output"]: spec for spec in callback_list(app)}
    on_http = set()
    for name, spec in app.callback_map.items():
        transport = options_of(spec["callback"]).transport if "callback" in spec else "any"
        told = listed.get(name, {})
        if transport == "websocket":
            if spec.get("background"):
                raise ConfigurationError(
                    f"the callback for {name!r} says transport='websocket', and is a background callback, which Dash asks "
                    "for over HTTP: leave one out"
                )
            spec["websocket"] = told["websocket"] = True
        elif transport == "http":
            if told.get("websocket") or told.get("persistent"):
                given = "websocket" if told.get("websocket") else "persistent"
                raise ConfigurationError(
                    f"the callback for {name!r} says transport='http' and {given}=True: leave one out"
                )
            on_http.add(name)
        elif needs_http(spec) and not spec.get("background"):  # what runs in the background the renderer posts anyway
            told["websocket"] = False
            on_http.add(name)
    everything = websocket_options(app).everything
    if when_needed and not any(_goes_over(spec, everything, on_http) for spec in listed.values()):
        return Route(needs_socket=False)
    one_by_one = everything and bool(on_http or (when_needed and opens_lazily()))
    if opens_lazily() and not when_needed and (one_by_one or not everything):
        _open_at_once(app)
    return Route(one_by_one=one_by_one, on_http=frozenset(on_http) if one_by_one else frozenset())


def _goes_over(spec: dict[str, Any], everything: bool, on_http: set[str]) -> bool:
    """Whether a callback of Dash's list goes over the websocket."""
    if spec.get("clientside_function") or spec.get("background") or spec["output"] in on_http:
        return False
    return everything or bool(spec.get("websocket"))


def _open_at_once(app: Dash) -> None:
    """Have a renderer that waits for the first callback over the websocket find one on each page: pushes need the socket."""

    @app.callback(persistent=True, websocket=True, hidden=True, mcp_enabled=False)
    async def open_websocket() -> None:
        """Nothing to do: the page has opened its websocket to ask for this."""
        raise PreventUpdate
