"""`login_user`, `logout_user`, `renew_login` and `current_user` in a callback over the websocket.

quart-auth wants a request for them, whose response sets the cookie, and keeps the user on `g`, which all callbacks of a
connection share. Here each callback has a user object of its own, and what it does to it is noted for that callback:
`callbacks.effects` has it done again in a request of the same browser. A logout does not wait for that.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from quart import current_app, has_request_context
from quart_auth import Action

from .._dash import callback_here, response_here
from ..exceptions import EffectsUnavailable
from .known import can_be_signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart_auth import AuthUser, QuartAuth


class Caller(Protocol):
    """The callback over the websocket that is running."""

    @property
    def logins(self) -> Logins:
        """Who its user is."""
        ...

    def check_effects(self) -> None:
        """Raises EffectsUnavailable: what it does to its browser's cookies could not be done."""
        ...

    def let_out(self) -> None:
        """It is about to end its own session: its outcome goes out all the same."""
        ...


class Act(NamedTuple):
    """What a callback has done about its user, to be done in a request."""

    action: str
    """The name of quart-auth's `Action`: `WRITE`, `WRITE_PERMANENT` or `DELETE`."""
    auth_id: Any
    is_login: bool
    """Whether it is another user, or another session of the same; else it is a renewal, or a logout."""


class Logins:
    """Who the user of one callback over the websocket is, for each extension."""

    __slots__ = ("cleared", "has_logged_out", "position", "replaced", "users")

    def __init__(self, position: int) -> None:
        self.position = position
        """Of the last revocation that was known when the callback began: a login that a ban overtakes is as old."""
        self.cleared: dict[str, int] = {}
        """Users whose sessions it has ended itself, and the position of that: a login of theirs comes after."""
        self.users: dict[QuartAuth, AuthUser] = {}
        self.replaced: set[QuartAuth] = set()
        """Extensions whose user has been logged in or out by this callback."""
        self.has_logged_out = False
        """Whether that has ended the session that the callback belongs to."""

    def acts(self) -> dict[str, Act]:
        """What is to be done in a request, by the extension's attribute name."""
        return {
            str(extension.attribute_name): Act(user.action.name, user.auth_id, extension in self.replaced)
            for extension, user in self.users.items()
            if extension.mode == "cookie"
            and user.action is not Action.PASS
            and (user.auth_id is not None or user.action is Action.DELETE)
        }


class NoResponse:
    """What `ctx.response` is in a background job, where Dash leaves it out."""

    def refuse(self, *_args: Any, **_options: Any) -> Any:
        """Raises EffectsUnavailable."""
        raise EffectsUnavailable(
            "a background job belongs to no request, so it sets no cookies and headers, writes nothing into quart's session, "
            "and logs nobody in or out: do it in a callback that has the job's result as an input"
        )

    set_cookie = delete_cookie = set_header = append_header = refuse
    headers = callback_response = property(refuse)


NO_RESPONSE = NoResponse()


def unchangeable(user: AuthUser) -> AuthUser:
    """The same user for a background job, in which `renew_login()` raises EffectsUnavailable."""
    kind = type(user)
    action = property(lambda _self: Action.PASS, NO_RESPONSE.refuse)
    user = copy.copy(user)
    user.__class__ = type(kind.__name__, (kind,), {"__slots__": (), "action": action})
    return user


def _check_job() -> None:
    """A job's process may have been forked off in the middle of a request: quart-auth would take it for one."""
    response = response_here()
    if isinstance(response, NoResponse):
        response.refuse()


def caller_here() -> Caller | None:
    """The callback over the websocket that is running; None elsewhere, also in a request that it makes itself."""
    caller: Caller | None = None if has_request_context() else callback_here()
    return caller


def has_replaced(extension: QuartAuth) -> bool:
    """Whether the callback over the websocket that is running has logged somebody in or out."""
    caller = caller_here()
    return caller is not None and extension in caller.logins.replaced


def bind(extension: QuartAuth) -> None:
    """Make quart-auth's functions work in callbacks over the websocket; everywhere else they are what they were."""
    # On the object: the class is quart-auth's, or the app's.
    set_method: Callable[[str, Any], None] = functools.partial(setattr, extension)
    set_method("load_user", functools.partial(_load_user, extension, extension.load_user))
    set_method("login_user", functools.partial(_login_user, extension, extension.login_user))
    set_method("logout_user", functools.partial(_logout_user, extension, extension.logout_user))


def _load_user(extension: QuartAuth, load_user: Callable[[], AuthUser]) -> AuthUser:
    caller = caller_here()
    if caller is None:
        return load_user()
    users = caller.logins.users
    user = users.get(extension)
    if user is None:
        user = users[extension] = copy.copy(load_user())
    return user


def _login_user(extension: QuartAuth, login_user: Callable[[AuthUser], None], user: AuthUser) -> None:
    _check_job()
    caller = caller_here()
    if caller is None:
        login_user(user)
        return
    if extension.mode == "cookie":
        caller.check_effects()
        if not can_be_signed(user.auth_id):
            raise EffectsUnavailable("login_user() in a callback over the websocket takes a user whose auth_id is JSON")
    caller.logins.users[extension] = user
    caller.logins.replaced.add(extension)


def _logout_user(extension: QuartAuth, logout_user: Callable[[], None]) -> None:
    _check_job()
    caller = caller_here()
    if caller is None:
        logout_user()
        return
    user = extension.user_class(None)
    user.action = Action.DELETE
    caller.logins.users[extension] = user
    caller.logins.replaced.add(extension)
    current_app.extensions["dash_quart_ws"].sessions.log_out(extension, caller)
