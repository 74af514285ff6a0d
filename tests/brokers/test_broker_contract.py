"""Every broker, held to the same guarantees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.brokers.embedded import EmbeddedBroker
from dash_quart_ws.brokers.redis import RedisBroker

from .contract import BrokerContract, LastingBrokerContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dash_quart_ws.brokers.base import Broker

    from .redis_server import RedisServer


class TestSQLite(LastingBrokerContract):
    @pytest.fixture
    def broker(self, tmp_path: Path) -> Iterator[Broker]:
        broker = EmbeddedBroker(tmp_path / "folder" / "store.sqlite3")
        broker.load()
        yield broker
        broker.close()

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "folder" / "store.sqlite3"

    def again(self, broker: Broker) -> Broker:
        return EmbeddedBroker(self.path)


class TestMemory(BrokerContract):
    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        broker = EmbeddedBroker(None)
        broker.load()
        yield broker
        broker.close()


class TestRedis(LastingBrokerContract):
    @pytest.fixture
    def broker(self, redis_server: RedisServer) -> Iterator[Broker]:
        broker = RedisBroker(redis_server.url)
        broker.load()
        yield broker
        broker.close()

    @pytest.fixture(autouse=True)
    def _url(self, redis_server: RedisServer) -> None:
        redis_server.flush()
        self.url = redis_server.url

    def again(self, broker: Broker) -> Broker:
        return RedisBroker(self.url)
