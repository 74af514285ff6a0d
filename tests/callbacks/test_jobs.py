"""Background callbacks' jobs, in real processes: they are one session's, they end with it, and so do their results."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
from dash import DiskcacheManager, Input, Output
from dash import _callback_signing as signing
from diskcache import Cache

from dash_quart_ws import public_callback
from dash_quart_ws.callbacks import jobs as jobs_module

from ..celery_worker import celery_worker
from ..server import Server, await_for, serving, wait_for
from ..sessions.site import ECHO, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Visitor:
    """A page of the app, in the browser of somebody who is logged in."""

    def __init__(self, server: Server, name: str, folder: Path) -> None:
        self.server = server
        self.cookie = server.login(name)
        self.page = server.page_token(self.cookie)
        self.name = self.cookie[-16:]
        self._pid = folder / f"pid-{self.name}"

    def ask(self, component: str, **handles: str) -> Any:
        """What the renderer posts: to start a job, or with its handles to ask for the result."""
        body = {
            "output": f"{component}.children",
            "outputs": {"id": component, "property": "children"},
            "inputs": [{"id": "go", "property": "n_clicks", "value": 1}],
            "changedPropIds": ["go.n_clicks"],
            "state": [],
        }
        path = f"/_dash-update-component?{urlencode({'endId': self.page, **handles})}"
        return self.server.request("POST", path, cookie=self.cookie, body=body)

    def cancel(self, job: str, **arguments: str) -> Any:
        """What the renderer posts when its user clicks on what `cancel=` names."""
        body = {
            "output": "stop.id",
            "outputs": {"id": "stop", "property": "id"},
            "inputs": [{"id": "stop", "property": "n_clicks", "value": 1}],
            "changedPropIds": ["stop.n_clicks"],
            "state": [],
        }
        arguments = {"endId": self.page, "cancelJob": job, **arguments}
        path = f"/_dash-update-component?{urlencode(arguments)}"
        return self.server.request("POST", path, cookie=self.cookie, body=body)

    def start(self, component: str) -> dict[str, str]:
        started = self.ask(component).json
        return {"cacheKey": started["cacheKey"], "job": started["job"]}

    def result(self, component: str, handles: dict[str, str]) -> str | None:
        reply = self.ask(component, **handles)
        found = reply.json.get("response") if reply.status == 200 else None
        return None if found is None else found[component]["children"]

    def tool(self, method: str, **params: Any) -> Any:
        """What an MCP client of this user's sends."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.server.request("POST", "/_mcp", cookie=self.cookie, body=body).json

    def task(self, clicks: int) -> str:
        """The id of the task that calling the tool `slow` begins."""
        begun = self.tool("tools/call", name="slow", arguments={"clicks": clicks}, task={})
        return str(begun["result"]["task"]["taskId"])

    def process(self) -> psutil.Process:
        """The process in which this visitor's job runs."""
        return psutil.Process(int(wait_for(lambda: self._pid.exists() and self._pid.read_text(), what="the job")))


@pytest.fixture(params=["diskcache", "celery"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    env = {"JOBS": str(tmp_path)}
    with contextlib.ExitStack() as stack:
        if request.param == "celery":
            env["REDIS"] = stack.enter_context(celery_worker(tmp_path, "tests.apps.jobs:celery", env))
        yield stack.enter_context(serving(tmp_path, app="tests.apps.jobs:server", env=env))


class Held(DiskcacheManager):
    """Starts a real process for each job, when it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Cache(str(folder / "held")))
        self.entered, self.gate = threading.Event(), threading.Event()
        self.jobs: list[psutil.Popen] = []

    def call_job_fn(self, key: str, job_fn: Any, args: Any, context: Any) -> int:
        self.entered.set()
        assert self.gate.wait(10)
        self.jobs.append(psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return int(self.jobs[-1].pid)


async def test_a_job_that_is_being_started_when_its_session_ends_ends_too(tmp_path: Path) -> None:
    manager = Held(tmp_path)
    site = Site(dash={"background_callback_manager": manager})

    @site.app.callback(Output("job", "children"), Input("go", "n_clicks"), background=True)
    def job(_clicks: int) -> str:
        return "never"

    body = {**ECHO, "output": "job.children", "outputs": {"id": "job", "property": "children"}}
    async with site:
        cookie = await site.login("alice")
        asked = asyncio.create_task(site.request("POST", "/_dash-update-component", cookie, json=body))
        try:
            await await_for(manager.entered.is_set, what="the start")
            await site.get("/logout", cookie)
            assert (await asked).status == 401
            manager.gate.set()
            await await_for(lambda: manager.jobs, what="the process")
            await await_for(lambda: is_over(manager.jobs[0]), what="its end")
        finally:
            manager.gate.set()
            for process in manager.jobs:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                process.wait()


class Numbered(DiskcacheManager):
    """Starts nothing, and says that its jobs have this process id: one that has been given to somebody else by now."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Cache(str(folder / "numbered")))
        self.number = 0

    def call_job_fn(self, key: str, job_fn: Any, args: Any, context: Any) -> int:
        return self.number


async def test_the_handle_of_a_job_that_is_over_ends_no_other_process_that_has_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "START_TAKES", 1.0)
    manager = Numbered(tmp_path)
    site = Site(dash={"background_callback_manager": manager})

    @site.app.callback(
        Output("job", "children"), Input("go", "n_clicks"), background=True, cancel=Input("stop", "n_clicks")
    )
    def job(_clicks: int) -> str:
        return "never"

    def ask(name: str, property: str) -> dict[str, Any]:
        return {**ECHO, "output": f"{name}.{property}", "outputs": {"id": name, "property": property}}

    with psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        try:
            await await_for(lambda: time.time() > stranger.create_time() + 3, what="a while")
            manager.number = stranger.pid
            async with site:
                cookie = await site.login("alice")
                started = await site.request("POST", "/_dash-update-component", cookie, json=ask("job", "children"))
                scope = signing.job_scope(f"{await site.session_id(cookie)}.none")
                plain = signing.sign(site.app._get_signing_secret(), scope, str(stranger.pid))  # Dash's own
                for handle in (started.json["job"], plain):
                    path = f"/_dash-update-component?{urlencode({'cancelJob': handle})}"
                    assert (await site.request("POST", path, cookie, json=ask("stop", "id"))).status == 200
                    assert not is_over(stranger)
        finally:
            stranger.kill()


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_two_users_who_click_the_same_are_each_given_their_own_result(jobs: Server, tmp_path: Path) -> None:
    visitors = [Visitor(jobs, name, tmp_path) for name in ("alice", "bob")]
    handles = [visitor.start("slow") for visitor in visitors]
    for visitor in visitors:
        visitor.process()
    (tmp_path / "go-on").touch()
    results = [
        wait_for(lambda visitor=visitor, given=given: visitor.result("slow", given), what="a result")
        for visitor, given in zip(visitors, handles, strict=True)
    ]
    assert results == [f"made for {visitor.name} 1" for visitor in visitors]


@pytest.mark.parametrize("jobs", ["diskcache"], indirect=True)
def test_a_job_that_ends_while_its_result_is_asked_for_is_asked_once_more(jobs: Server, tmp_path: Path) -> None:
    alice = Visitor(jobs, "alice", tmp_path)
    handles = alice.start("late")
    reply = alice.ask("late", **handles)
    assert reply.status == 200, "no answer would mean that the job was cancelled, and the page would ask no more"
    assert "response" not in reply.json
    assert alice.result("late", handles) == "just now"


def test_a_result_that_is_kept_is_kept_for_its_user_only(jobs: Server, tmp_path: Path) -> None:
    alice, bob = Visitor(jobs, "alice", tmp_path), Visitor(jobs, "bob", tmp_path)
    handles = alice.start("kept")
    assert wait_for(lambda: alice.result("kept", handles)) == f"made for {alice.name} 1"
    (tmp_path / "hold").touch()
    his = bob.start("kept")
    assert bob.ask("kept", **his).json.get("response") is None
    assert alice.result("kept", alice.start("kept")) == f"made for {alice.name} 1"
    (tmp_path / "hold").unlink()
    assert wait_for(lambda: bob.result("kept", his)) == f"made for {bob.name} 1"


def test_a_job_ends_with_its_session_and_nobody_elses_does(jobs: Server, tmp_path: Path) -> None:
    alice, bob = Visitor(jobs, "alice", tmp_path), Visitor(jobs, "bob", tmp_path)
    alice.start("slow")
    handles = bob.start("slow")
    hers, his = alice.process(), bob.process()
    jobs.get("/logout", alice.cookie)
    wait_for(lambda: is_over(hers), what="the job to end")
    assert not is_over(his)
    (tmp_path / "go-on").touch()
    assert wait_for(lambda: bob.result("slow", handles)) == f"made for {bob.name} 1"


def test_nobody_else_polls_a_job(jobs: Server, tmp_path: Path) -> None:
    alice, bob = Visitor(jobs, "alice", tmp_path), Visitor(jobs, "bob", tmp_path)
    handles = alice.start("slow")
    process = alice.process()
    assert bob.ask("slow", **handles).status == 204  # nothing to see
    assert bob.ask("slow", **handles, endId=alice.page).status == 409
    assert bob.ask("slow", oldJob=handles["job"]).status == 200  # "end this job, I have clicked again"
    assert not is_over(process)
    (tmp_path / "go-on").touch()
    assert wait_for(lambda: alice.result("slow", handles)) == f"made for {alice.name} 1"


def test_a_job_is_cancelled_by_its_own_page_and_by_nobody_else(jobs: Server, tmp_path: Path) -> None:
    alice, bob = Visitor(jobs, "alice", tmp_path), Visitor(jobs, "bob", tmp_path)
    handles = alice.start("slow")
    process = alice.process()
    assert bob.cancel(handles["job"]).status == 200, "nothing to cancel"
    assert bob.cancel(handles["job"], endId=alice.page).status == 409
    assert not is_over(process)
    assert alice.cancel(handles["job"]).status == 200
    wait_for(lambda: is_over(process), what="the end of the job")


@pytest.mark.parametrize("jobs", ["diskcache"], indirect=True)
def test_nobody_else_ends_an_mcp_task(jobs: Server, tmp_path: Path) -> None:
    alice, bob = Visitor(jobs, "alice", tmp_path), Visitor(jobs, "bob", tmp_path)
    (tmp_path / "go-on").touch()
    his = bob.task(1)
    wait_for(lambda: bob.tool("tasks/get", taskId=his)["result"]["status"] == "completed", what="a result")
    (tmp_path / "go-on").unlink()
    hers = alice.task(1)
    process = alice.process()
    mixed = ":".join([*hers.split(":")[:2], *his.split(":")[2:]])  # her job, and the result that is his
    assert "error" in bob.tool("tasks/result", taskId=hers)
    bob.tool("tasks/cancel", taskId=hers)
    bob.tool("tasks/result", taskId=mixed)
    assert bob.tool("tasks/get", taskId=mixed)["result"]["status"] != "working", "it is nothing to him"
    assert not is_over(process)
    assert alice.tool("tasks/get", taskId=hers)["result"]["status"] == "working"
    alice.tool("tasks/cancel", taskId=hers)
    wait_for(lambda: is_over(process), what="the end of the job")


async def test_one_user_has_so_many_jobs_at_a_time_and_others_have_their_own(tmp_path: Path) -> None:
    manager = Held(tmp_path)
    manager.gate.set()
    site = Site(dash={"background_callback_manager": manager}, jobs_per_user=2)

    @site.app.callback(Output("job", "children"), Input("go", "n_clicks"), background=True)
    def job(_clicks: int) -> str:
        return "never"

    body = {**ECHO, "output": "job.children", "outputs": {"id": "job", "property": "children"}}

    async def start(cookie: str) -> int:
        return (await site.request("POST", "/_dash-update-component", cookie, json=body)).status

    async with site:
        alice, bob = await site.login("alice"), await site.login("bob")
        try:
            assert [await start(alice) for _ in range(3)] == [200, 200, 503]
            assert await start(bob) == 200
            assert await start(await site.login("alice")) == 503, "another session of the same user"
            manager.jobs[0].kill()
            await await_for(lambda: is_over(manager.jobs[0]), what="the end of one")
            assert [await start(alice) for _ in range(2)] == [200, 503]
        finally:
            for process in manager.jobs:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                process.wait()
    assert len(manager.jobs) == 4


async def test_nobodys_jobs_are_counted_by_address_and_forgotten_when_they_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "LOOK_EVERY", 0.05)
    manager = Held(tmp_path)
    manager.gate.set()
    site = Site(dash={"background_callback_manager": manager}, jobs_per_user=1)

    def job(_clicks: int) -> str:
        return "never"

    public_callback(Output("job", "children"), Input("go", "n_clicks"), background=True, app=site.app)(job)
    body = {**ECHO, "output": "job.children", "outputs": {"id": "job", "property": "children"}}
    async with site:
        try:
            found = [(await site.request("POST", "/_dash-update-component", json=body)).status for _ in range(2)]
            assert found == [200, 503]
            assert len(site.backend._jobs._running) == 1
        finally:
            for process in manager.jobs:
                process.kill()
                process.wait()
        await await_for(lambda: not site.backend._jobs._running, what="the job to be forgotten")


async def test_what_cancels_a_public_job_is_public_too_and_nothing_else_is(tmp_path: Path) -> None:
    site = Site(dash={"background_callback_manager": DiskcacheManager(Cache(str(tmp_path)))})

    def public(_clicks: int) -> str:
        return "for everybody"

    outputs = (Output("open", "children"), Input("go", "n_clicks"))
    public_callback(*outputs, background=True, cancel=Input("stop", "value"), app=site.app)(public)

    @site.app.callback(
        Output("job", "children"), Input("go", "n_clicks"), background=True, cancel=Input("end", "value")
    )
    def job(_clicks: int) -> str:
        return "for one"

    def ask(name: str) -> dict[str, Any]:
        return {**ECHO, "output": f"{name}.id", "outputs": {"id": name, "property": "id"}}

    async with site:
        statuses = [
            (await site.request("POST", "/_dash-update-component", json=ask(name))).status for name in ("stop", "end")
        ]
    assert statuses == [200, 401]


async def test_a_manager_that_takes_its_time_holds_up_nothing_but_its_own_callback(tmp_path: Path) -> None:
    manager = Held(tmp_path)
    site = Site(dash={"background_callback_manager": manager})

    @site.app.callback(Output("job", "children"), Input("go", "n_clicks"), background=True)
    async def job(_clicks: int) -> str:
        return "never"

    body = {**ECHO, "output": "job.children", "outputs": {"id": "job", "property": "children"}}
    async with site:
        cookie = await site.login("alice")
        asked = asyncio.create_task(site.request("POST", "/_dash-update-component", cookie, json=body))
        try:
            await await_for(manager.entered.is_set, what="the start")
            assert (await site.request("POST", "/_dash-update-component", cookie, json=ECHO)).status == 200
            manager.gate.set()
            assert (await asked).json["job"]
        finally:
            manager.gate.set()
            await asyncio.gather(asked, return_exceptions=True)
            for process in manager.jobs:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                process.wait()


@pytest.mark.parametrize("jobs", ["diskcache"], indirect=True)
def test_a_job_that_sets_cookies_or_logs_in_is_told_that_it_cannot(jobs: Server, tmp_path: Path) -> None:
    """Its process may be forked off within a request. A Celery worker knows of none: Dash has no `ctx.response` there."""
    alice = Visitor(jobs, "alice", tmp_path)
    handles = alice.start("paints")
    *told, seen = wait_for(lambda: alice.result("paints", handles))
    assert seen == "alice None", "who has started it is known"
    assert len(told) == 8
    for one in told:
        assert one.startswith("EffectsUnavailable: ")
        assert "do it in a callback that has the job's result as an input" in one
