"""Servers that share a broker: two of them stand for two hosts."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from ..server import Server, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..brokers.redis_server import RedisServer

APP = "tests.cluster.app:server"


@contextlib.contextmanager
def worker(
    folder: Path, broker: str, *, server: str = "hypercorn", env: Any = None, **options: Any
) -> Iterator[Server]:
    """One server of the app, with these options."""
    env = {"DASH_QUART_WS_BROKER": broker, "OPTIONS": json.dumps(options), **(env or {})}
    with serving(folder, server=server, app=APP, env=env) as running:
        yield running


@contextlib.contextmanager
def workers(folder: Path, count: int, broker: str, **options: Any) -> Iterator[list[Server]]:
    """So many servers of the app."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(worker(folder, broker, **options)) for _ in range(count)]


def events(server: Server, kind: str | None = None) -> list[list[Any]]:
    """What the hooks of a worker were told."""
    return [one for one in server.get("/state").json["events"] if kind in (None, one[0])]


def listens(store: RedisServer, target: str, workers: int = 1) -> None:
    """Wait until so many workers hear what is pushed to a target, such as `user:alice`."""
    with store.look() as client:

        def is_heard() -> bool:
            channels = client.pubsub_channels(f"*:to:{target}")
            return sum(count for _, count in client.pubsub_numsub(*channels)) >= workers

        wait_for(is_heard, what=f"{workers} to listen to {target}")


def is_nobody(server: Server, cookie: str) -> bool:
    return server.get("/me", cookie).json["user"] is None


def knows(server: Server, user: str) -> Any:
    """Wait until a worker has heard of a user's session."""
    return wait_for(
        lambda: [one for one in server.get("/state").json["sessions"] if one["user"] == user],
        what=f"{user}'s session to be known",
    )
