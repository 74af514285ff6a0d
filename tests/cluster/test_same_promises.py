"""What holds for sessions with the embedded broker holds for a worker with a shared one: the same tests, with Redis."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ..sessions import site
from ..sessions.test_sessions import *  # noqa: F403 - every test that is there, and comes
from ..sessions.test_visitors import *  # noqa: F403

if TYPE_CHECKING:
    from ..brokers.redis_server import RedisServer

# An idle session lasts a little longer where activity elsewhere is known a little later: test_time has that.
del test_a_session_ends_when_it_has_been_idle_and_not_while_it_is_used  # noqa: F821
del test_what_has_been_idle_too_long_stays_ended_after_the_sweep  # noqa: F821

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _shared_broker(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "broker_for_each", lambda: f"{redis.url}?prefix=site{next(_numbers)}")
