"""One connection to Redis or Valkey: its URL, its commands, and its errors as ours.

redis-py gives the connection (TLS, login, parser). Reconnecting and retrying are not left to it: only the broker knows
what may be sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from ..exceptions import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMES = {
    "redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "redis+unix": "unix", "unix": "unix"
}  # fmt: skip
"""What a broker's URL begins with, and what redis-py calls it."""

PREFIX = "dash-quart-ws"

QUOTED = "In a user and a password, write @ : / ? # % as %40 %3A %2F %3F %23 %25"

Command = tuple["str | bytes | int | float", ...]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the store is, and which part of it is ours."""

    url: str
    """For redis-py. It may hold a password: never log it."""
    prefix: str
    name: str
    """The same for people, without user and password."""
    database: int

    @classmethod
    def of(cls, url: str) -> Address:
        """The parts of `redis[s]://[[user]:password@]host[:port][/database][?prefix=…]`; `valkey[s]://` means the same.

        Other query options are redis-py's own, such as `ssl_ca_certs`.

        Raises:
            ConfigurationError: it cannot be used. The message does not hold the password.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ConfigurationError(f"broker=…: give a URL of a host and the number of its port. {QUOTED}") from None
        scheme = SCHEMES.get(parts.scheme)
        if scheme is None:
            raise ConfigurationError(f"broker={parts.scheme!r}://…: give redis://, rediss://, valkey:// or valkeys://")
        if "@" in parts.path + parts.query + parts.fragment:  # it would be shown in what is said of the path
            raise ConfigurationError(f"broker=…: {QUOTED}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        prefix = options.pop("prefix", PREFIX)
        if not prefix or not prefix.isascii() or not prefix.isprintable() or set(prefix) & set(" *?[]\\"):
            raise ConfigurationError(f"broker=…?prefix={prefix!r}: give letters, digits, ':', '-', '_' or '.'")
        path = parts.path.strip("/")
        database = options.get("db", "0") if scheme == "unix" else (path or options.get("db", "0"))
        if not database.isdecimal():
            raise ConfigurationError(f"broker=…/{database[:64]!r}: the path is the number of a database, as in /0")
        place = parts.netloc.rpartition("@")[2]
        name = f"{parts.scheme}://{place}{parts.path}"
        plain = f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(options)}" if options else "")
        try:
            pool(plain, 1.0)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"broker={name!r}: {error}") from None  # the cause may hold the URL
        return cls(plain, prefix, name, int(database))


def pool(url: str, timeout: float) -> ConnectionPool:
    """What makes connections to a URL. It holds none of them.

    Raises:
        ValueError, TypeError: the URL has something that redis-py does not know.
    """
    made: ConnectionPool = ConnectionPool.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        socket_timeout=None,  # every wait here has its own limit
        socket_connect_timeout=timeout,
    )
    _connection_of(made)
    return made


def _connection_of(made: ConnectionPool) -> Any:
    return made.make_connection()  # type: ignore[no-untyped-call]


class Link:
    """One connection. Who calls it sees to it that no two tasks read, and no two write.

    After any exception but a `ResponseError` given as a value it is of no use any more: close it.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._connection = _connection_of(pool(address.url, timeout))
        self._timeout = timeout

    async def open(self) -> None:
        """Connect and log in.

        Raises:
            BrokerError: nobody answers.
            ConfigurationError: the user, the password or the database is refused.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.connect()
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise ConfigurationError(f"the broker refuses the URL's user or password: {error}") from error
        except ResponseError as error:
            raise ConfigurationError(f"the broker refuses the URL's database: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerError(f"no connection: {_said(error)}") from error

    async def send(self, *commands: Command) -> None:
        """Send commands in one go.

        Raises:
            BrokerError: the connection is gone, or nobody takes what is sent.
        """
        packed = self._connection.pack_commands(commands)
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerError(f"the connection was lost: {_said(error)}") from error

    async def read(self, timeout: float | None = None) -> Any:
        """The next answer; an error of Redis' own is a `ResponseError` as a value.

        Raises:
            BrokerError: the connection is gone, there is no answer in time, or the server has become another's replica.
        """
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                return await self._connection.read_response(disconnect_on_error=False)
        except (NoScriptError, ReadOnlyError) as error:
            raise BrokerError(f"the server is not what it was: {error}") from error
        except ResponseError as error:
            return error
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerError(f"the connection was lost: {_said(error)}") from error

    async def call(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and read an answer to each."""
        await self.send(*commands)
        return [await self.read() for _ in commands]

    async def ask(self, *command: str | bytes | float) -> Any:
        """The answer to one command.

        Raises:
            BrokerError: as `read`, and when the answer is an error.
        """
        (answer,) = await self.call(command)
        return valid(answer)

    async def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):  # TLS says good-bye
                await self._connection.disconnect()


def valid(answer: Any) -> Any:
    """An answer that is no error.

    Raises:
        BrokerError, ConfigurationError: it is one; the latter when the broker's user lacks a permission.
    """
    if isinstance(answer, NoPermissionError):
        raise ConfigurationError(f"the broker's user may not do what is needed: {answer}") from answer
    if isinstance(answer, ResponseError):
        raise BrokerError(str(answer)) from answer
    return answer


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def words(answer: Any) -> list[str]:
    """A list of names, from the bytes that Redis gives."""
    return [name.decode() for name in answer]


def pairs(answer: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """A hash, which comes as a list."""
    return list(zip(answer[::2], answer[1::2], strict=True))
