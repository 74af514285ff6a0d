"""A broker's URL, and one connection to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from dash_quart_ws.brokers.redis_link import PREFIX, Address, Link
from dash_quart_ws.exceptions import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from .redis_server import RedisServer


@pytest.mark.parametrize(
    ("url", "plain", "prefix", "database", "name"),
    [
        ("redis://host", "redis://host", PREFIX, 0, "redis://host"),
        ("redis://host:1234/3?prefix=my-app", "redis://host:1234/3", "my-app", 3, "redis://host:1234/3"),
        (
            "rediss://u:p%40@h/1?ssl_ca_certs=/a.pem",
            "rediss://u:p%40@h/1?ssl_ca_certs=%2Fa.pem",
            PREFIX,
            1,
            "rediss://h/1",
        ),
        ("valkey://:p@host/0", "redis://:p@host/0", PREFIX, 0, "valkey://host/0"),
        ("valkeys://host?prefix=a:b.c_d-e", "rediss://host", "a:b.c_d-e", 0, "valkeys://host"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2", PREFIX, 2, "unix:///run/redis.sock"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0", PREFIX, 0, "redis://[::1]:6379/0"),
    ],
)
def test_a_url_says_where_the_store_is_and_which_part_is_ours(
    url: str, plain: str, prefix: str, database: int, name: str
) -> None:
    address = Address.of(url)
    assert (address.url, address.prefix, address.database, address.name) == (plain, prefix, database, name)


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@host", "redis://:secret@host/three", "redis://:secret@host/-1", "redis://:secret@host?prefix=",
        "redis://:secret@host?prefix=a%20b", "redis://:secret@host?prefix=a*", "redis://:secret@host?prefix=a%0ab",
        "redis://:secret@host?prefix=%C3%A9", "redis://:secret@host:port", "redis://:secret@host?no_such_option=1",
        "redis://:secret@host?socket_keepalive_options=secret&max_connections=x", "",
        "redis://user:secret", "redis://user:se/secret@host/0", "redis://user:1?secret@host", "redis://user:1#secret@host",
        "redis://user:[secret@host", "rediss:/user:secret@host",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Address.of(url)
    assert "secret" not in str(raised.value)
    assert "broker=" in str(raised.value)


async def test_an_error_of_one_command_is_a_value_and_the_others_have_their_answers(redis_server: RedisServer) -> None:
    link = Link(Address.of(redis_server.url), 2.0)
    await link.open()
    first, second, third = await link.call(("SET", "a", "1"), ("HGET", "a", "b"), ("GET", "a"))
    assert (first, third) == (b"OK", b"1")
    assert isinstance(second, ResponseError)
    with pytest.raises(BrokerError, match="wrong kind"):
        await link.ask("HGET", "a", "b")
    await link.close()


async def test_nobody_waits_longer_than_was_said(redis_server: RedisServer) -> None:
    link = Link(Address.of(redis_server.url), 0.2)
    await link.open()
    redis_server.freeze()
    try:
        async with asyncio.timeout(30):
            with pytest.raises(BrokerError, match="lost"):
                await link.ask("PING")
    finally:
        redis_server.thaw()
        await link.close()


async def test_a_database_that_there_is_not_is_a_mistake_in_the_url(redis_server: RedisServer) -> None:
    link = Link(Address.of(redis_server.url.removesuffix("/0") + "/99"), 2.0)
    with pytest.raises(ConfigurationError, match="database"):
        await link.open()
    await link.close()
