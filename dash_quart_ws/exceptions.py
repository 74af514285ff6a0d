"""What can go wrong, as types.

::

    DashQuartWsError
    ├── ConfigurationError (ValueError)   an option, a combination or the server's set-up is wrong; says what to do
    ├── BrokerError                       the broker could not store or deliver; the local part has been done
    ├── GroupsUnknown                     the app's `list_groups` gave no answer: nobody is let through
    ├── WebsocketNeeded                   a callback that uses `ctx.websocket` came over HTTP, where there is none
    ├── TooManyCallbacks                  a limit on callbacks in flight, or on those that wait for a thread, is reached
    ├── EffectsUnavailable                a callback over the websocket cannot set cookies or headers, and says why
    ├── CallbackTimeout                   a callback has taken longer than it may
    ├── PropertyUnavailable               the browser does not give `get_prop` what it was asked for
    └── NotConnected                      there is no connection for what was asked

"This request failed" is never one of these: a bad message from a browser is a value (`wire.messages.Invalid`), and an
exception in a user's callback belongs to the user.
"""

from __future__ import annotations


class DashQuartWsError(Exception):
    """Everything that this package raises on its own account."""


class ConfigurationError(DashQuartWsError, ValueError):
    """An option or a combination of options cannot work. The message says what to change."""


class BrokerError(DashQuartWsError):
    """The broker did not take what it was given: a revocation holds in this process, and perhaps only here."""


class GroupsUnknown(DashQuartWsError):  # noqa: N818 - a state, named as one
    """The app's `list_groups(user)` has failed or taken too long: what needs a group is refused."""


class WebsocketNeeded(DashQuartWsError):  # noqa: N818 - a state, named as one
    """A callback that uses `ctx.websocket` came over HTTP, where Dash gives None: it is answered with HTTP status 500.

    A callback that can do without looks first: `if ctx.websocket is not None`.
    """

    def __init__(self, callback: str) -> None:
        super().__init__(
            f"the callback for {callback[:64]!r} uses ctx.websocket, and came over HTTP, where there is none"
        )
        self.callback = callback
        """The callback's id in Dash's `callback_map`: its outputs."""


class TooManyCallbacks(DashQuartWsError):  # noqa: N818 - a state, named as one
    """A limit on callbacks in flight, or on those that wait for a thread or to be read, is reached: this one is not run.

    Over HTTP it is answered with status 503 and `Retry-After`, over the websocket with an error.
    """

    def __init__(self) -> None:
        super().__init__("Too many callbacks at once: try again when some of them have been answered")


class EffectsUnavailable(DashQuartWsError, RuntimeError):  # noqa: N818 - a state, named as one
    """What a callback over the websocket does to its browser's cookies or headers cannot be done. The message says why.

    Raised by `login_user()` and `ctx.response`; by the end of the callback for what shows only then (`renew_login()`,
    quart's `session`), and for what could not be kept.
    """


class CallbackTimeout(DashQuartWsError):  # noqa: N818 - a state, named as one
    """A callback has taken longer than its `timeout`, or than `callback_timeout`: it was cut short.

    Over HTTP it is answered with status 504, over the websocket with an error.
    """

    def __init__(self, callback: str, seconds: float) -> None:
        super().__init__(f"The callback took longer than {seconds:g} s")
        self.callback = callback
        """The callback's id in Dash's `callback_map`: its outputs."""
        self.seconds = seconds
        """What it was given."""


class PropertyUnavailable(DashQuartWsError):  # noqa: N818 - a state, named as one
    """A tab was asked for a property with `get_prop`, and has said why it does not send it: it is too large."""


class NotConnected(DashQuartWsError, LookupError):  # noqa: N818 - a state, named as one
    """The connection that was named is not open in this process (any more)."""
