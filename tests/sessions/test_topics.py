"""Who may subscribe to what is the app's decision, and is taken again when rights change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dash_quart_ws import Session

from .site import Site, is_open


class Doorman:
    """An `authorize_topic` in the test's hands."""

    def __init__(self) -> None:
        self.allowed: dict[tuple[str | None, str], Any] = {}
        self.asked: list[tuple[str | None, str]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, user: str | None, topic: str) -> Any:
        self.asked.append((user, topic))
        answer = self.allowed.get((user, topic), False)
        await self.go_on.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("answer", [False, None, 1, "yes", LookupError("the database is away")])
async def test_whoever_is_not_allowed_in_so_many_words_is_not_subscribed(answer: Any) -> None:
    doorman = Doorman()
    doorman.allowed = {("alice", "news"): True, ("alice", "secrets"): answer}
    async with Site(authorize_topic=doorman) as site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        assert await site.backend.subscribe(connection, "news") is True
        assert await site.backend.subscribe(connection, "secrets") is False
        assert site.backend.connections(topic="news") == (connection,)
        assert site.backend.connections(topic="secrets") == ()
        assert doorman.asked == [("alice", "news"), ("alice", "secrets")]


def in_a_thread(user: str | None, topic: str) -> bool:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return (user, topic) == ("alice", "news")


async def test_an_authorizer_that_is_not_async_may_block_in_a_thread() -> None:
    async with Site(authorize_topic=in_a_thread) as site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        assert isinstance(connection.session, Session)
        assert await site.backend.subscribe(connection.session, "news")
        assert not await site.backend.subscribe(connection.session, "olds")
        assert site.backend.connections(topic="news") == (connection,)


async def test_one_that_gives_no_answer_in_time_refuses() -> None:
    doorman = Doorman()
    doorman.go_on.clear()
    async with (
        Site(authorize_topic=doorman, groups_timeout=0.05) as site,
        site.websocket(await site.login("alice")) as socket,
    ):
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        assert await site.backend.subscribe(connection, "news") is False


async def test_without_one_a_subscription_is_there_at_once() -> None:
    async with Site() as site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        pending = site.backend.subscribe(connection, "news")
        assert site.backend.connections(topic="news") == (connection,)
        assert await pending is True
        site.backend.unsubscribe(connection, "news")
        assert site.backend.connections(topic="news") == ()


async def test_rights_that_change_take_a_user_off_the_topics_that_are_not_theirs_any_more_and_off_no_others() -> None:
    doorman = Doorman()
    doorman.allowed = {("alice", "news"): True, ("alice", "secrets"): True}
    async with (
        Site(authorize_topic=doorman, list_groups=lambda _user: ["staff"]) as site,
        site.websocket(await site.login("alice")) as socket,
    ):
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        await site.backend.subscribe(connection, "news")
        assert connection.session is not None
        await site.backend.subscribe(connection.session, "secrets")
        doorman.allowed["alice", "secrets"] = False
        receipt = await site.backend.rights_changed("alice")
        assert receipt.closed == 0
        assert site.backend.connections(topic="news") == (connection,)
        assert site.backend.connections(topic="secrets") == ()
        assert await is_open(socket)


async def test_an_answer_from_before_a_change_of_rights_does_not_count() -> None:
    doorman = Doorman()
    doorman.allowed = {("alice", "news"): True}
    async with (
        Site(authorize_topic=doorman, list_groups=lambda _user: []) as site,
        site.websocket(await site.login("alice")) as socket,
    ):
        assert await is_open(socket)
        (connection,) = site.backend.connections()
        doorman.go_on.clear()
        pending = site.backend.subscribe(connection, "news")
        while not doorman.asked:
            await asyncio.sleep(0)
        doorman.allowed["alice", "news"] = False
        changed = site.backend.rights_changed("alice")
        doorman.go_on.set()
        await changed
        assert await pending is False
        assert site.backend.connections(topic="news") == ()
