"""What can go wrong, as types.

::

    DashQuartWsError
    ├── ConfigurationError (ValueError)   an option, a combination or the server's set-up is wrong; says what to do
    ├── BrokerError                       the broker could not store or deliver; the local part has been done
    ├── GroupsUnknown                     the app's `list_groups` gave no answer: nobody is let through
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


class NotConnected(DashQuartWsError, LookupError):  # noqa: N818 - a state, named as one
    """The connection that was named is not open in this process (any more)."""
