"""Every option of `QuartBackend`, its unit and its default. Nothing else in the package holds a number of its own."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from typing import Any, Literal

from .exceptions import ConfigurationError

LONGEST = 1_000_000_000.0
"""Seconds: thirty years."""

BROKER_VARIABLE = "DASH_QUART_WS_BROKER"
"""Environment variable with the broker's URL, for when the `broker` option is not given."""

SESSION_OPTIONS = ("broker", "idle_timeout", "absolute_timeout")
"""Options that belong to the Quart server: two Dash apps on one server share its sessions and must agree on them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of `QuartBackend`, validated when they are given.

    Times are in seconds, sizes in bytes.

    Raises:
        ConfigurationError: a value cannot work; the message names the option and says what it takes.
    """

    login_required: bool | Literal["auto"] = "auto"
    """Protect Dash's routes with a login. `"auto"`: when the server has a `QuartAuth`; `True`: a missing one is an error."""

    login_url: str = "/login"
    """Path of the login page, within the server. Pages redirect there with `?next=`; without such a route they answer 401."""

    idle_timeout: float | None = None
    """End a session after this long without an HTTP request or a callback of its own (ASVS 7.3.1). None: never."""

    absolute_timeout: float | None = None
    """End a session this long after its login, however often it was renewed (ASVS 7.3.2). None: never."""

    broker: str | None = None
    """Where revocations live: `sqlite:///absolute/path` or `memory:`. None: `DASH_QUART_WS_BROKER`, else a SQLite file
    in the server's instance folder."""

    broker_timeout: float = 2.0
    """How long a logout's response, or a login's, waits for the broker."""

    require_bridge: bool = False
    """Refuse websocket clients that do not offer the subprotocol of our own browser code."""

    compression: bool = False
    """Let clients negotiate permessage-deflate. A small frame can then inflate to gigabytes: only for trusted clients."""

    callback_threads: int | None = None
    """Threads for synchronous callbacks, over HTTP and websocket together. None: Dash's `websocket_max_workers`."""

    callback_threads_per_user: int | None = None
    """Threads that one user's callbacks may hold at a time. None: half of them, rounded up."""

    handshake_timeout: float = 10.0
    """How long the connect hooks and the session check of one handshake may take."""

    close_timeout: float = 2.0
    """How long a closing connection may stay: then its transport is reset, whatever the client does."""

    cancel_timeout: float = 5.0
    """How long a cancelled callback may go on cleaning up before the log names it."""

    outbound_bytes: int = 8 * 1024 * 1024
    """Memory for messages that one connection's client has not taken yet. Beyond it the connection closes with 4103."""

    outbound_messages: int = 32_768
    """The same bound as a number of messages."""

    renderers_per_connection: int = 64
    """Tabs that one connection remembers for pushes; the one that was heard of longest ago is forgotten first."""

    def __post_init__(self) -> None:
        if not (isinstance(self.login_required, bool) or self.login_required == "auto"):
            raise ConfigurationError(f"login_required={self.login_required!r}: give True, False or 'auto'")
        if (
            not isinstance(self.login_url, str)
            or not self.login_url.startswith("/")
            or self.login_url[1:2] in ("/", "\\")
        ):
            raise ConfigurationError(f"login_url={self.login_url!r}: give a path of this server, such as '/login'")
        if self.broker is not None and not str(self.broker).startswith(("sqlite:///", "memory:")):
            raise ConfigurationError(
                f"broker={_without_password(str(self.broker))!r}: this version knows 'sqlite:///absolute/path' and 'memory:'"
            )
        for name in ("idle_timeout", "absolute_timeout"):
            self._positive(name, optional=True)
        for name in ("broker_timeout", "handshake_timeout", "close_timeout", "cancel_timeout"):
            self._positive(name)
        for name in ("callback_threads", "callback_threads_per_user"):
            self._positive(name, whole=True, optional=True)
        for name in ("outbound_bytes", "outbound_messages", "renderers_per_connection"):
            self._positive(name, whole=True)
        for name in ("require_bridge", "compression"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give True or False")
        threads, share = self.callback_threads, self.callback_threads_per_user
        if threads is not None and share is not None and share > threads:
            raise ConfigurationError(
                f"callback_threads_per_user={share} is more than callback_threads={threads}: lower it"
            )

    @classmethod
    def of(cls, **options: Any) -> Config:
        """A config from keyword options; an unknown name is an error that suggests the nearest known one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join(known)}"
                raise ConfigurationError(f"QuartBackend has no option {name!r}: {hint}")
        if options.get("broker") is None and os.environ.get(BROKER_VARIABLE):
            options["broker"] = os.environ[BROKER_VARIABLE]
        return cls(**options)

    def _positive(self, name: str, *, whole: bool = False, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= (sys.maxsize if whole else LONGEST):
            kind = "a whole number above 0" if whole else "a number of seconds above 0"
            raise ConfigurationError(f"{name}={value!r}: give {kind}{' or None' if optional else ''}")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else url
