"""What one callback says about how it is run: for how long, over what, and whether the next request takes its place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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


def route(callback_map: Mapping[str, dict[str, Any]], callback_list: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Have Dash's renderer send over the websocket what says `transport="websocket"`.

    Args:
        callback_map: Dash's, after set-up.
        callback_list: what the browser is told of each.

    Returns:
        The callbacks that stay on HTTP.

    Raises:
        ConfigurationError: a callback says one thing to Dash, and another one here.
    """
    listed = {spec["output"]: spec for spec in callback_list}
    on_http = set()
    for name, spec in callback_map.items():
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
    return frozenset(on_http)
