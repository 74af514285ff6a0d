"""What may be called by whom: public routes, public callbacks, protected callbacks.

The names and their meaning are dash-auth's, so that an app can move over. Everything that is not named here needs a
login. What a callback demands of its user is checked by the function itself, whoever calls it: the page, an API
endpoint, an MCP tool, a background job.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import logging
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import dash
from dash.exceptions import PreventUpdate
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from ..exceptions import ConfigurationError, GroupsUnknown
from .rights import CheckType, Requirement, group_name, groups_here, is_somebody, note, rights_here
from .visitors import remote_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from dash import Dash

security = logging.getLogger("dash_quart_ws.security")

Function = TypeVar("Function", bound="Callable[..., Any]")

ACCESS = "__dash_quart_ws_access__"
FOREIGN_OPTIONS = ("groups_key", "groups_str_split")


@dataclass(frozen=True, slots=True)
class Access:
    """What a callback's registration says about who may call it."""

    public: bool = False
    requirement: Requirement | None = None


def access_of(function: Callable[..., Any]) -> Access:
    """Of a callback's function, as Dash's `callback_map` has it: Dash's wrapper keeps the function's attributes."""
    found: Access = getattr(function, ACCESS, Access())
    return found


def is_allowed(access: Access) -> bool:
    """Whether the user at hand meets what a callback demands."""
    return access.requirement is None or _judge(access.requirement)[0] is Verdict.ALLOWED


class Verdict(enum.Enum):
    """What a protected callback does."""

    ALLOWED = enum.auto()
    NOBODY = enum.auto()
    MISSING = enum.auto()
    """Somebody, but without the groups."""


class PublicRoutes:
    """Paths that need no login, in the syntax of Flask's and Quart's routes."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._map = Map(strict_slashes=False, merge_slashes=False)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Any:
        return iter(self._rules)

    def add(self, routes: Iterable[str]) -> None:
        """Raises ConfigurationError: one of them is no route."""
        if isinstance(routes, str):
            raise ConfigurationError(f"public routes are a list: [{routes!r}]")
        for route in routes:
            if not isinstance(route, str) or not route.startswith("/"):
                raise ConfigurationError(f"{route!r} is no route: it has to begin with '/', as '/user/<name>/public'")
            if route not in self._rules:
                rule = Rule(route, endpoint=route)
                try:
                    self._map.add(rule)
                except (ValueError, LookupError, TypeError, SyntaxError) as error:
                    raise ConfigurationError(f"{route!r} is no route: {error}") from error
                self._rules[route] = rule

    def match(self, path: str) -> bool:
        """Whether one of the routes is this path's."""
        try:
            self._map.bind("localhost").match(path)
        except (HTTPException, RequestRedirect):
            return False
        return True

    def covers(self, path: str, template: str | None) -> bool:
        """Whether a page, by its own path or by its template, is one of the routes': whatever its variables are."""
        shape = None if template is None else _shape(template)
        return self.match(path) or (shape is not None and shape in map(_shape, self._rules))


def nameless(route: str) -> str:
    """A route without the names of its variables: what it matches."""
    return re.sub(r"<((?:[^<>]*:)?)[^<>:]*>", r"<\1>", route).rstrip("/")


def _shape(route: str) -> str:
    return re.sub("<.*?>", "<>", route).strip("/")


def add_public_routes(app: Dash, routes: Iterable[str]) -> None:
    """Let everybody see these pages of a Dash app: its index, its layout, and those of its `register_page`s.

    Callbacks stay behind the login, but for `public_callback`s. A page is public when both the path that was asked for
    and the page that Dash finds for it are.

    Args:
        app: whose backend is a `QuartBackend`.
        routes: paths as Flask writes them, `"/login"`, `"/user/<name>/public"`, with the app's prefix if it has one.

    Raises:
        ConfigurationError: one of them is no route.
        TypeError: the app has another backend.
    """
    routes_of = getattr(app.backend, "public_routes", None)
    if not isinstance(routes_of, PublicRoutes):
        raise TypeError(f"this Dash app's backend is {type(app.backend).__name__}: give it backend=QuartBackend()")
    routes_of.add(routes)


def public_callback(*args: Any, app: Dash | None = None, **kwargs: Any) -> Callable[[Function], Function]:
    """`dash.callback` for a callback that needs no login.

    A page that was rendered for nobody makes its callbacks over HTTP. Those that stream say so: `websocket=True`, or
    `persistent=True`; the page then opens a websocket for them.

    Args:
        *args: as for `dash.callback`.
        app: register with this app (`app.callback`), rather than with whichever is set up first.
        **kwargs: as for `dash.callback`.
    """
    register = dash.callback if app is None else app.callback
    if kwargs.get("persistent"):  # a page without a login sends what does not ask for the websocket over HTTP
        kwargs.setdefault("websocket", True)

    def decorate(function: Function) -> Function:
        registered = _wrapper(function)
        setattr(registered, ACCESS, Access(public=True, requirement=access_of(function).requirement))
        register(*args, **kwargs)(registered)
        return function

    return decorate


def protected_callback(
    *args: Any,
    groups: Iterable[str] | None = None,
    check_type: CheckType = "one_of",
    unauthenticated_output: Any = None,
    missing_permissions_output: Any = None,
    app: Dash | None = None,
    **kwargs: Any,
) -> Callable[[Function], Function]:
    """`dash.callback` for a callback that demands something of its user.

    It is the function itself that is protected: nothing reaches it past the check, be it the page, its `api_endpoint`,
    an MCP tool or a background job.

    Args:
        *args: as for `dash.callback`.
        groups: the user must be in one of them, in all or in none, by `check_type`; None: a login is enough.
        check_type: "one_of", "all_of" or "none_of".
        unauthenticated_output: what nobody gets instead: a value, or a function (also an async one) without arguments.
            None: nothing changes in the page (`PreventUpdate`).
        missing_permissions_output: what a user gets who may not; the same, and `unauthenticated_output` when it is None.
        app: register with this app (`app.callback`), rather than with whichever is set up first.
        **kwargs: as for `dash.callback`.

    Raises:
        TypeError: an argument of dash-auth's that has no meaning here, or an unknown `check_type`.
    """
    for option in FOREIGN_OPTIONS:
        if option in kwargs:
            raise TypeError(
                f"{option}= is about dash-auth's own session: here QuartBackend(list_groups=…) gives the groups"
            )
    if check_type not in get_args(CheckType):
        raise TypeError(f"check_type={check_type!r}: give one of {', '.join(map(repr, get_args(CheckType)))}")
    if isinstance(groups, (str, bytes)):
        raise TypeError(f"groups= takes a list: [{groups!r}]")
    requirement = Requirement(None if groups is None else frozenset(map(group_name, groups)), check_type)
    if missing_permissions_output is None:
        missing_permissions_output = unauthenticated_output
    instead = {Verdict.NOBODY: unauthenticated_output, Verdict.MISSING: missing_permissions_output}
    register = dash.callback if app is None else app.callback

    def decorate(function: Function) -> Function:
        check = functools.partial(_check, requirement, function)
        protected = _wrapper(function, check, instead)
        setattr(protected, ACCESS, Access(requirement=requirement))
        register(*args, **kwargs)(protected)
        return protected

    return decorate


def _wrapper(
    function: Function,
    check: Callable[[], Verdict] = lambda: Verdict.ALLOWED,
    instead: Mapping[Verdict, Any] = MappingProxyType({}),
) -> Function:
    """The function behind a check, as a function of its own kind; `instead` has what is given when it may not run."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def behind_async(*args: Any, **kwargs: Any) -> Any:
            verdict = check()
            if verdict is Verdict.ALLOWED:
                return await function(*args, **kwargs)
            output = _output(instead[verdict])
            return await output if inspect.isawaitable(output) else output

        return behind_async  # type: ignore[return-value]

    @functools.wraps(function)
    def behind(*args: Any, **kwargs: Any) -> Any:
        verdict = check()
        if verdict is Verdict.ALLOWED:
            return function(*args, **kwargs)
        output = _output(instead[verdict])
        return asyncio.run(_awaited(output)) if inspect.isawaitable(output) else output  # in a thread: no loop runs

    return behind  # type: ignore[return-value]


async def _awaited(output: Awaitable[Any]) -> Any:
    return await output


def _output(output: Any) -> Any:
    if output is None:
        raise PreventUpdate
    return output() if callable(output) else output


def _check(requirement: Requirement, function: Callable[..., Any]) -> Verdict:
    """Whether the user at hand may call the function; the log says why not."""
    note(requirement)  # before the look: what is allowed after this by the old groups ends when they change
    verdict, why = _judge(requirement)
    if verdict is not Verdict.ALLOWED:
        security.warning(
            "deny user=%.64r callback=%.64r reason=%.128r remote=%s",
            getattr(rights_here(), "user", None), getattr(function, "__qualname__", function), why, remote_here(),
        )  # fmt: skip
    return verdict


def _judge(requirement: Requirement) -> tuple[Verdict, str]:
    if requirement.groups is None:
        return (Verdict.ALLOWED, "") if is_somebody() else (Verdict.NOBODY, "not logged in")
    try:
        groups = groups_here()
    except GroupsUnknown:
        return Verdict.MISSING, "groups unknown"
    if groups is None:
        return Verdict.NOBODY, "not logged in"
    if requirement.met_by(groups):
        return Verdict.ALLOWED, ""
    return Verdict.MISSING, f"needs {requirement.check_type} {sorted(requirement.groups)}"
