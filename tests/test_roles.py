"""Roles on a real server: over HTTP, over the websocket, and in the processes of background jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from .server import await_for, call, closed, next_message, request_message, result, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .server import Reply, Server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("guarded"), app="tests.apps.guarded:server") as server:
        yield server


@pytest.fixture(scope="module")
def feed(guarded: Server) -> str:
    """What the renderer sends to start the stream for traders, which has no output: Dash gives it a name of its own."""
    callbacks = guarded.get("/_dash-dependencies", guarded.login("alice")).json
    (output,) = [one["output"] for one in callbacks if [given["id"] for given in one["inputs"]] == ["start"]]
    message = json.loads(request_message("feed.children"))
    message["payload"] |= {
        "output": output,
        "outputs": [],
        "changedPropIds": ["start.n_clicks"],
        "inputs": [{"id": "start", "property": "n_clicks", "value": 1}],
    }
    return json.dumps(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def jobs(folder: Path) -> Iterator[Server]:
    with serving(folder, app="tests.apps.roles:server", env={"JOBS": str(folder)}) as server:
        yield server


def body(output: str, value: Any = 1) -> Any:
    return json.loads(request_message(output, value))["payload"]


class Page:
    """One user's page, and the callbacks that it makes over HTTP."""

    def __init__(self, server: Server, user: str) -> None:
        self.server = server
        self.cookie = server.login(user)
        self.token = server.page_token(self.cookie)

    def post(self, output: str, value: Any = 1, **handles: str) -> Reply:
        query = urlencode({"endId": self.token, **handles})
        path = f"/_dash-update-component?{query}"
        headers = {"Origin": self.server.origin}
        return self.server.request("POST", path, cookie=self.cookie, body=body(output, value), headers=headers)

    def start(self, output: str, value: Any = 1) -> dict[str, str]:
        """Begin a background job: the handles that the page polls with."""
        reply = self.post(output, value)
        assert reply.status == 200, reply
        return {name: reply.json[name] for name in ("cacheKey", "job")}

    def poll(self, output: str, handles: dict[str, str], value: Any = 1) -> Any:
        """What the job has set, as soon as it has set something; the status where it is refused."""
        seen: list[dict[str, Any]] = []

        def settled() -> Any:
            reply = self.post(output, value, **handles)
            if reply.status != 200:
                return {"refused": reply.status}
            seen.append(reply.json)
            return reply.json if "response" in reply.json else None

        found = wait_for(settled, what=f"the result of {output}")
        id, _, name = output.partition(".")
        return found["response"].get(id, {}).get(name) if "response" in found else found["refused"]

    def job(self, output: str, value: Any = 1) -> Any:
        return self.poll(output, self.start(output, value), value)


# ------------------------------------------------------------------------------------ over HTTP and the websocket


async def test_groups_decide_over_http_and_over_the_websocket_alike(guarded: Server) -> None:
    for user, trades, manages in (("alice", "traded by alice 1", "managed by alice 1"), ("bob", "not for you", None)):
        page = Page(guarded, user)
        assert page.post("traders.children").json["response"]["traders"]["children"] == trades
        reply = page.post("managers.children")
        assert (reply.json["response"]["managers"]["children"] if reply.status == 200 else None) == manages
        async with guarded.bridge(page.cookie) as socket:
            assert result(await call(socket, "traders.children", 1, "1")) == trades
            payload = await call(socket, "managers.children", 1, "2")
            assert (result(payload) if payload["status"] == "ok" else None) == manages
            groups = {"alice": ["staff", "traders"], "bob": ["staff"]}[user]
            assert result(await call(socket, "groups.children", 1, "3")) == groups
    assert guarded.request("POST", "/api/trade", body={}).status == 401
    assert guarded.request("POST", "/api/trade", cookie=guarded.login("bob"), body={}).json == "not for you"


async def test_lost_groups_end_a_running_stream_at_once_and_gained_ones_end_nothing(guarded: Server, feed: str) -> None:
    cookie = guarded.login("erin")
    await guarded.aget("/groups/erin/traders")
    async with guarded.bridge(cookie) as streaming, guarded.bridge(cookie) as quiet:
        await streaming.send(feed)
        assert (await next_message(streaming, "set_props"))["payload"]["componentId"] == "feed"
        assert result(await call(quiet, "who.children")) == "erin 1"
        assert (await guarded.aget("/groups/erin/traders,staff")).json == {"closed": 0}
        await next_message(streaming, "set_props")
        before = guarded.get("/state").json["ended"].count("feed")
        assert (await guarded.aget("/groups/erin/staff")).json == {"closed": 1}
        assert await closed(streaming) == (4101, "the user's rights have changed")
        await await_for(lambda: guarded.get("/state").json["ended"].count("feed") == before + 1)
        assert result(await call(quiet, "who.children", 2, "2")) == "erin 2"
        assert result(await call(quiet, "traders.children", 2, "3")) == "not for you"


async def test_with_dashs_own_worker_lost_groups_end_the_stream_too(guarded: Server, feed: str) -> None:
    cookie = guarded.login("finn")
    await guarded.aget("/groups/finn/traders")
    async with guarded.connect(cookie) as socket:
        await socket.send(feed)
        await next_message(socket, "set_props")
        assert (await guarded.aget("/groups/finn/-")).json == {"closed": 1}
        assert (await closed(socket))[0] == 4101
    async with guarded.connect(cookie) as again:
        assert result(await call(again, "traders.children")) == "not for you"


async def test_a_topic_ends_with_the_groups(guarded: Server) -> None:
    cookie = guarded.login("gina")
    await guarded.aget("/groups/gina/traders")
    async with guarded.bridge(cookie) as socket:
        assert result(await call(socket, "who.children")) == "gina 1"
        assert (await guarded.aget("/subscribe/gina/prices")).json == {"subscribed": 1}
        assert (await guarded.aget("/groups/gina/-")).json == {"closed": 1}
        assert (await closed(socket))[0] == 4101


async def test_while_the_groups_cannot_be_asked_for_what_needs_none_goes_on(guarded: Server, feed: str) -> None:
    await guarded.aget("/groups/hugo/traders")
    page = Page(guarded, "hugo")
    async with guarded.bridge(page.cookie) as socket:
        await socket.send(feed)
        await next_message(socket, "set_props")
        await guarded.aget("/fail/hugo")
        assert (await guarded.aget("/groups/hugo/traders")).json == {"closed": 1}
        assert (await closed(socket))[0] == 4101
    async with guarded.bridge(page.cookie) as socket:
        assert result(await call(socket, "traders.children", 1, "1")) == "not for you"
        assert result(await call(socket, "who.children", 1, "2")) == "hugo 1"
    assert page.post("traders.children").json["response"]["traders"]["children"] == "not for you"
    assert page.post("who.children").json["response"]["who"]["children"] == "hugo 1"
    assert "the directory is away" in guarded.log


# ------------------------------------------------------------------------------------------------ background jobs


def test_a_background_job_knows_the_groups_of_its_user(jobs: Server) -> None:
    alice, bob = Page(jobs, "alice"), Page(jobs, "bob")
    expected = {
        "first": ("first 1", "no first"),
        "second": ("second 1", "second 1"),
        "later": ("later 1", "no later"),
        "outside": ("outside 1", "outside 1"),
        "seen": ("['staff', 'traders'] 1", "['staff'] 1"),
    }
    for name, (hers, his) in expected.items():
        assert alice.job(f"{name}.children") == hers
        assert bob.job(f"{name}.children") == his


def test_a_background_job_whose_users_groups_are_unknown_is_refused_also_where_a_lack_of_groups_is_asked_for(
    jobs: Server,
) -> None:
    jobs.get("/fail/alice")
    alice = Page(jobs, "alice")
    assert alice.job("first.children") == "no first"
    assert alice.job("outside.children") == "not outside"


def test_a_background_job_tells_of_its_progress(jobs: Server, folder: Path) -> None:
    alice = Page(jobs, "alice")
    handles = alice.start("wait.children", 3)
    reply = wait_for(lambda: alice.post("wait.children", 3, **handles).json.get("progress"))
    assert reply == {"step.children": "step of 3"}
    (folder / "go").touch()
    assert alice.poll("wait.children", handles, 3) == "the traders' own number 3"


def test_two_background_jobs_with_the_same_arguments_are_two(jobs: Server) -> None:
    alice = Page(jobs, "alice")
    handles = {name: alice.start(f"{name}.children", 5) for name in ("first", "second", "later")}
    assert len({one["cacheKey"] for one in handles.values()}) == 3
    for name, one in handles.items():
        assert alice.poll(f"{name}.children", one, 5) == f"{name} 5"


def test_the_same_background_job_of_two_users_is_two_jobs(jobs: Server, folder: Path) -> None:
    """Dash files a result under the function and its arguments: who asks for the same gets the same, whoever asks."""
    alice, bob = Page(jobs, "alice"), Page(jobs, "bob")
    hers = alice.start("wait.children", 7)
    wait_for((folder / "began-7").exists)
    his = bob.start("wait.children", 7)
    assert bob.poll("wait.children", his, 7) == "not for you"
    (folder / "go").touch()
    assert alice.poll("wait.children", hers, 7) == "the traders' own number 7"


def test_a_background_jobs_result_goes_to_nobody_who_was_refused_it(jobs: Server, folder: Path) -> None:
    alice, bob = Page(jobs, "alice"), Page(jobs, "bob")
    hers = alice.start("wait.children", 8)
    wait_for((folder / "began-8").exists)
    his = bob.start("wait.children", 8)
    (folder / "go").touch()
    got = [bob.poll("wait.children", his, 8)]
    for _ in range(20):
        reply = bob.post("wait.children", 8, **his)
        got.append(reply.body.decode())
    assert "the traders' own number" not in str(got)
    assert alice.poll("wait.children", hers, 8) == "the traders' own number 8"


def test_a_background_jobs_result_does_not_go_to_who_has_lost_the_groups_meanwhile(jobs: Server, folder: Path) -> None:
    alice = Page(jobs, "alice")
    handles = alice.start("wait.children", 9)
    wait_for((folder / "began-9").exists)
    jobs.get("/groups/alice/staff")
    (folder / "go").touch()
    assert alice.poll("wait.children", handles, 9) != "the traders' own number 9"
