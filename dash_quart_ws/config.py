"""Every option of `QuartBackend`, its unit and its default. Nothing else in the package holds a number of its own."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONGEST = 1_000_000_000.0
"""Seconds: thirty years."""

_HOST_NAME = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")

_PLACE = re.compile(r"(?P<login>[^@/?#]*@)?(?P<place>[^@/?#]*(/[^@?#]*)?)(\?[^@]*)?")
"""What follows the scheme of a URL, where nothing in it is to be mistaken for something else."""

BRIDGE_BYTES = 4 * 1024 * 1024
"""The largest message that our browser code ever sends: its answer to `get_prop`."""

BROKER_VARIABLE = "DASH_QUART_WS_BROKER"
"""Environment variable with the broker's URL, for when the `broker` option is not given."""

SHARED_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "redis+unix", "unix")
"""What the URL of a broker that several workers share begins with."""

SHORTEST_LEASE = 0.5
"""Seconds. A lease has to outlast a few round trips, and a pause of the process."""

SESSION_OPTIONS = (
    "broker",
    "broker_key",
    "lease",
    "on_broker_loss",
    "idle_timeout",
    "absolute_timeout",
    "list_groups",
    "groups_timeout",
    "authorize_topic",
    "allowed_hosts",
    "anonymous_connections",
    "connections",
    "connections_per_session",
    "connections_per_user",
    "callbacks",
    "callback_bytes",
    "uploads",
)
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

    list_groups: Callable[[str], Any] | None = None
    """`list_groups(user)` gives the groups that a user is in, for `protected_callback` and `list_groups`; async if it has to
    wait. None: no callback can demand a group."""

    groups_timeout: float = 5.0
    """How long `list_groups` may take, after which nothing that needs a group is allowed; and `authorize_topic`."""

    authorize_topic: Callable[[str | None, str], Any] | None = None
    """`authorize_topic(user, topic)` says whether a user, or nobody (None), may be subscribed to a topic: True or False;
    async if it has to wait. Asked by `subscribe`, and again after `rights_changed`. None: `subscribe` asks nobody."""

    protect_assets: bool = False
    """Put the app's assets folder behind the login as well."""

    allowed_hosts: Sequence[str] | None = None
    """Names that the `Host` header may have, `.example.org` for all below it; others get 421, on every route but the
    health endpoint: this is what stops DNS rebinding. None: any."""

    anonymous_connections: int = 32
    """Websockets that one address may have open without a session. Beyond it they close with 4105."""

    idle_timeout: float | None = None
    """End a session after this long without an HTTP request or a callback of its own (ASVS 7.3.1). None: never."""

    absolute_timeout: float | None = None
    """End a session this long after its login, however often it was renewed (ASVS 7.3.2). None: never."""

    broker: str | None = dataclasses.field(default=None, repr=False)  # it may hold a password
    """Where revocations, and who is signed in where, are kept. For one worker process: `sqlite:///absolute/path` or
    `memory:`. For several, on one host or many: `redis://[[user]:password@]host[:port][/database][?prefix=…]`, with
    `rediss://` over TLS; `valkey://` and `valkeys://` mean the same. None: `DASH_QUART_WS_BROKER`, else a SQLite file in
    the server's instance folder."""

    broker_key: str | bytes | None = dataclasses.field(default=None, repr=False)
    """Signs what goes through a shared broker, for when others can write there, too. All workers need the same."""

    broker_timeout: float = 2.0
    """How long a logout's response, or a login's, waits for the broker, and how long each step of talking to it may take."""

    lease: float = 10.0
    """How long a worker may go on without proof that a shared broker still speaks to it."""

    on_broker_loss: Literal["refuse", "continue"] = "refuse"
    """What a worker does beyond that. `"refuse"`: connections of sessions end with 4104, protected routes answer 503.
    `"continue"`: it goes on, and does not know what others have revoked since."""

    bridge: bool = True
    """Give the browser our own worker for the websocket. False: Dash's own, which knows nothing of sessions."""

    connect: Literal["always", "when_needed"] = "always"
    """When a page opens its websocket. `"when_needed"`: not in an app without a callback that goes over it, where it would be
    for pushes only; from Dash 4.5 on, not before the page's first such callback."""

    connection_status: bool = True
    """Show on the page, when there is no connection for longer than a second, that there is none."""

    require_bridge: bool = False
    """Refuse websocket clients that do not offer the subprotocol of our own browser code."""

    compression: bool = False
    """Let clients negotiate permessage-deflate. A small frame can then inflate to gigabytes: only for trusted clients."""

    callback_threads: int | None = None
    """Threads for synchronous callbacks, over HTTP and websocket together. None: Dash's `websocket_max_workers`."""

    callback_threads_per_user: int | None = None
    """Threads that one user's callbacks may hold at a time. None: half of them, rounded up."""

    callback_timeout: float | None = None
    """How long a callback may take, unless `callback_options(timeout=…)` says otherwise: then its request is answered with an
    error, and it is cancelled. Not for background and persistent callbacks. None: as long as it likes."""

    handshake_timeout: float = 10.0
    """How long the connect hooks and the session check of one handshake may take."""

    close_timeout: float = 2.0
    """How long a closing connection may stay: then its transport is reset, whatever the client does."""

    cancel_timeout: float = 5.0
    """How long a cancelled callback may go on cleaning up before the log names it."""

    message_bytes: int = 256 * 1024
    """The largest message that our browser code sends over the websocket; callbacks that are larger go over HTTP."""

    inbound_bytes: int = 8 * 1024 * 1024
    """The largest message that is taken from a websocket. A larger one closes the connection with 1009."""

    messages_per_second: int = 500
    """Messages that one connection may send, in the long run. Beyond it its client is not read for a while. A message counts
    once more for each 16 KiB of it, and each of an array by itself."""

    messages_burst: int = 2000
    """Messages that one connection may send at once, after it has been silent for long enough."""

    callbacks_per_connection: int = 1024
    """Callbacks that one connection may have in flight. Further ones are answered with an error."""

    callback_bytes_per_connection: int = 32 * 1024 * 1024
    """The messages that they came in. While they are this large together, further ones are answered with an error."""

    callbacks: int = 16_384
    """Callbacks that may be in flight in this process, over HTTP and websocket together. One user, or for nobody one address,
    has a quarter of it. Further ones are answered with an error, over HTTP with 503."""

    callback_bytes: int = 512 * 1024 * 1024
    """The same bound for what they came in, their messages and bodies: while it is reached, no further one runs."""

    queued_callbacks: int = 8192
    """Synchronous callbacks that may wait for a thread. Further ones are answered with an error, over HTTP with 503."""

    queued_callbacks_per_user: int = 1024
    """How many of them may be one user's, or for nobody one address's."""

    jobs_per_user: int = 32
    """Background callbacks' jobs of one user, or for nobody one address, that this process has started and that still run.
    Further ones are not started: 503."""

    connections: int = 20_000
    """Websockets that this process has open at a time. Further ones close with 1013."""

    connections_per_session: int = 64
    """How many of them may be of one session. Beyond it one that is silent makes room, else the new one closes with 4105."""

    connections_per_user: int = 256
    """How many of them may be of one user. Beyond it the same happens."""

    uploads: int = 8
    """Callbacks over HTTP of more than 1 MiB that are read at a time, two of one user, and half of them of all who are not
    signed in. Others wait their turn, unread."""

    upload_bytes: int = 128 * 1024 * 1024
    """The largest callback over HTTP of a user who is signed in. Quart's `MAX_CONTENT_LENGTH` holds for all others, and
    counts here too where it is larger."""

    outbound_bytes: int = 8 * 1024 * 1024
    """Memory for messages that one connection's client has not taken yet. Beyond it the connection closes with 4103."""

    outbound_messages: int = 32_768
    """The same bound as a number of messages."""

    bad_messages_per_minute: int = 600
    """Messages that cannot be used, or callbacks that cannot be called, after which a connection closes with 4505."""

    renderers_per_connection: int = 64
    """Tabs that one connection may have; the callbacks of further ones go over HTTP. Of the tabs of Dash's own worker
    the ones that were heard of last get pushes."""

    def __post_init__(self) -> None:
        if not (isinstance(self.login_required, bool) or self.login_required == "auto"):
            raise ConfigurationError(f"login_required={self.login_required!r}: give True, False or 'auto'")
        if self.connect not in ("always", "when_needed"):
            raise ConfigurationError(f"connect={self.connect!r}: give 'always' or 'when_needed'")
        if (
            not isinstance(self.login_url, str)
            or not self.login_url.startswith("/")
            or self.login_url[1:2] in ("/", "\\")
        ):
            raise ConfigurationError(f"login_url={self.login_url!r}: give a path of this server, such as '/login'")
        self._broker()
        for name in ("idle_timeout", "absolute_timeout", "callback_timeout"):
            self._positive(name, optional=True)
        for name in (
            "groups_timeout",
            "broker_timeout",
            "lease",
            "handshake_timeout",
            "close_timeout",
            "cancel_timeout",
        ):
            self._positive(name)
        for name in ("callback_threads", "callback_threads_per_user"):
            self._positive(name, whole=True, optional=True)
        for name in (
            "anonymous_connections",
            "message_bytes",
            "inbound_bytes",
            "messages_per_second",
            "messages_burst",
            "callbacks_per_connection",
            "callback_bytes_per_connection",
            "callbacks",
            "callback_bytes",
            "queued_callbacks",
            "queued_callbacks_per_user",
            "jobs_per_user",
            "connections",
            "connections_per_session",
            "connections_per_user",
            "uploads",
            "upload_bytes",
            "outbound_bytes",
            "outbound_messages",
            "bad_messages_per_minute",
            "renderers_per_connection",
        ):
            self._positive(name, whole=True)
        for name in ("bridge", "connection_status", "require_bridge", "compression", "protect_assets"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.list_groups is not None and not callable(self.list_groups):
            raise ConfigurationError(f"list_groups={self.list_groups!r}: give a function (user) -> groups, or None")
        if self.authorize_topic is not None and not callable(self.authorize_topic):
            raise ConfigurationError(
                f"authorize_topic={self.authorize_topic!r}: give a function (user, topic) -> True or False, or None"
            )
        self._hosts()
        self._combinations()

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

    @property
    def is_shared(self) -> bool:
        """Whether the broker is one for several workers."""
        return self.broker is not None and self.broker.startswith(tuple(f"{one}:" for one in SHARED_SCHEMES))

    def _broker(self) -> None:
        broker = self.broker
        if broker is not None:
            if not isinstance(broker, str) or not (self.is_shared or broker.startswith(("sqlite:///", "memory:"))):
                raise ConfigurationError(
                    f"broker={_without_password(str(broker))!r}: give 'redis://host:6379/0' (or rediss://, valkey://, "
                    "valkeys://) for any number of workers; 'sqlite:///absolute/path' or 'memory:' for one"
                )
            if self.is_shared and importlib.util.find_spec("redis") is None:
                raise ConfigurationError(
                    f"broker={_without_password(broker)!r} needs redis-py: pip install 'dash-quart-ws[redis]'"
                )
        if self.broker_key is not None and (not isinstance(self.broker_key, str | bytes) or not self.broker_key):
            raise ConfigurationError("broker_key=…: give a secret text that all workers share, or None")
        if self.on_broker_loss not in ("refuse", "continue"):
            raise ConfigurationError(f"on_broker_loss={self.on_broker_loss!r}: give 'refuse' or 'continue'")

    def _combinations(self) -> None:
        if self.lease < SHORTEST_LEASE:
            raise ConfigurationError(
                f"lease={self.lease!r}: give at least {SHORTEST_LEASE} seconds, or every pause of the process ends it"
            )
        if self.require_bridge and not self.bridge:
            raise ConfigurationError(
                "require_bridge=True refuses Dash's own worker, which is what bridge=False gives the browser: leave one out"
            )
        least = max(self.message_bytes, BRIDGE_BYTES)
        if self.bridge and self.inbound_bytes < least:
            raise ConfigurationError(
                f"inbound_bytes={self.inbound_bytes} is less than the browser sends: give at least {least}, the larger "
                f"one of message_bytes={self.message_bytes} and {BRIDGE_BYTES} for the answers to get_prop"
            )
        threads, share = self.callback_threads, self.callback_threads_per_user
        if threads is not None and share is not None and share > threads:
            raise ConfigurationError(
                f"callback_threads_per_user={share} is more than callback_threads={threads}: lower it"
            )

    def _hosts(self) -> None:
        hosts = self.allowed_hosts
        if hosts is None:
            return
        if isinstance(hosts, str) or not hosts:
            raise ConfigurationError(f"allowed_hosts={hosts!r}: give a list of host names, or None for any")
        for host in hosts:
            if not isinstance(host, str) or not _HOST_NAME.fullmatch(host):
                raise ConfigurationError(
                    f"allowed_hosts: {host!r} is no host name; give it without scheme and port, as 'dash.example.org'"
                )
        object.__setattr__(self, "allowed_hosts", tuple(hosts))

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
    parts = _PLACE.fullmatch(rest)
    if parts is None:  # no telling where a password begins and ends
        return f"{scheme}{separator}…" if separator else scheme[:64]
    return f"{scheme}{separator}{'***@' if parts['login'] else ''}{parts['place']}"
