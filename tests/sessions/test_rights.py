"""Groups: who is in which, who is asked for it and when, and what ends when they change."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
from dash import Input, Output, html
from hypothesis import given
from hypothesis import strategies as st

from dash_quart_ws import CloseCode, ConfigurationError, GroupsUnknown, list_groups, protected_callback, public_callback
from dash_quart_ws.sessions import access
from dash_quart_ws.sessions import rights as module
from dash_quart_ws.sessions.rights import Groups, Requirement, note

from ..asgi import Closed
from .site import Site, is_open, until

if TYPE_CHECKING:
    from ..asgi import InProcessSocket
    from ..server import Reply

GO = Input("go", "n_clicks")
RIGHTS_CHANGED = (CloseCode.RIGHTS_CHANGED, "the user's rights have changed")


class Directory:
    """Where the groups of the users are: a `list_groups` that counts, and that the test can hold up or break."""

    def __init__(self, **groups: Any) -> None:
        self.groups: dict[str, Any] = groups
        self.asked: list[str] = []
        self.fails = False
        self.answers = asyncio.Event()
        """Lets the answers out. What they say is what was so when it was asked."""
        self.answers.set()

    async def __call__(self, user: str) -> Any:
        self.asked.append(user)
        fails, found = self.fails, self.groups.get(user, [])
        await self.answers.wait()
        if fails:
            raise RuntimeError("the directory is away")
        return found


class Roles(Site):
    """A site with a directory, and callbacks that demand something of their user."""

    def __init__(self, directory: Any = None, **options: Any) -> None:
        super().__init__(**({} if directory is None else {"list_groups": directory}), **options)
        self.ran: list[str] = []
        self.cleaned: list[str] = []
        self.released = threading.Event()
        """Lets the synchronous callbacks go on that wait in a thread."""

    async def __aexit__(self, *args: object) -> None:
        self.released.set()
        await super().__aexit__(*args)

    def protected(self, name: str, **demands: Any) -> Self:
        """A callback for those who may, and who may not is told so."""

        @protected_callback(Output(name, "children"), GO, app=self.app, missing_permissions_output="missing", **demands)
        async def answer(value: Any) -> str:
            self.ran.append(name)
            return f"{name} {value}"

        return self

    def running(self, name: str, *, first: Any = lambda: None, **demands: Any) -> Self:
        """A callback without an end, for those who may."""

        @protected_callback(Output(name, "children"), GO, app=self.app, **demands)
        async def run(value: Any) -> None:
            first()
            self.ran.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)  # whoever is cancelled may clean up
                self.cleaned.append(name)

        return self

    def blocking(self, name: str, **demands: Any) -> Self:
        """A callback in a thread that goes on until it is released, for those who may."""

        @protected_callback(Output(name, "children"), GO, app=self.app, **demands)
        def block(value: Any) -> str:
            self.ran.append(name)
            assert self.released.wait(10)
            self.cleaned.append(name)
            return "the result of the thread"

        return self

    def seeing(self, name: str = "seen") -> Self:
        """A callback that gives the whole list."""

        @public_callback(Output(name, "children"), GO, app=self.app)
        async def see(value: Any) -> str:
            return json.dumps(list_groups())

        return self

    async def post(self, cookie: str, name: str, value: Any = 1) -> Reply:
        return await self.request("POST", "/_dash-update-component", cookie, json=body(name, value))


def body(name: str, value: Any = 1) -> dict[str, Any]:
    """What the renderer sends for a callback that sets the children of a component when the button is clicked."""
    return {
        "output": f"{name}.children",
        "outputs": {"id": name, "property": "children"},
        "inputs": [{"id": "go", "property": "n_clicks", "value": value}],
        "changedPropIds": ["go.n_clicks"],
        "state": [],
    }


def given_by(reply: Reply, name: str) -> Any:
    """What a callback over HTTP has set; None where nothing changes."""
    assert reply.status in (200, 204), reply
    return reply.json["response"].get(name, {}).get("children") if reply.status == 200 else None


async def ask(socket: InProcessSocket, name: str, value: Any = 1, id: str = "1") -> None:
    """Send a callback request, and do not wait for its answer."""
    await socket.send_json(
        {"type": "callback_request", "requestId": id, "rendererId": "tab", "payload": body(name, value)}
    )


async def answers(socket: InProcessSocket, *ids: str) -> dict[str, dict[str, Any]]:
    """The payloads of the answers to these requests; what else comes is dropped."""
    got: dict[str, dict[str, Any]] = {}
    while not got.keys() >= set(ids):
        found = await socket.receive_json()
        for message in found if isinstance(found, list) else [found]:
            if message["type"] == "callback_response":
                got[message["requestId"]] = message["payload"]
    return got


async def answer(socket: InProcessSocket, id: str = "1") -> dict[str, Any]:
    """The payload of the answer to a request."""
    return (await answers(socket, id))[id]


async def call(socket: InProcessSocket, name: str, value: Any = 1, id: str = "1") -> Any:
    """What a callback over the websocket has set; None where nothing changes."""
    await ask(socket, name, value, id)
    payload = await answer(socket, id)
    if payload["status"] == "prevent_update":
        return None
    assert payload["status"] == "ok", payload
    return payload["data"]["response"].get(name, {}).get("children")


async def how_it_ended(socket: InProcessSocket) -> tuple[int, str]:
    try:
        while True:
            await socket.receive()
    except Closed as closed:
        return closed.code, closed.reason


# ----------------------------------------------------------------------------------------- who sees which groups


async def test_callbacks_see_the_groups_of_their_user_sorted_and_nobody_sees_none() -> None:
    site = Roles(Directory(alice=["traders", "staff"])).seeing()

    @public_callback(Output("sync", "children"), GO, app=site.app)
    def in_a_thread(value: Any) -> str:
        return json.dumps(list_groups())

    async with site:
        cookie = await site.login("alice")
        for name in ("seen", "sync"):
            assert json.loads(given_by(await site.post(cookie, name), name)) == ["staff", "traders"]
            assert json.loads(given_by(await site.post("", name), name)) is None
            assert json.loads(given_by(await site.post(await site.login("dave"), name), name)) == []
        async with site.websocket(cookie) as hers, site.websocket() as nobodys:
            for name in ("seen", "sync"):
                assert json.loads(await call(hers, name)) == ["staff", "traders"]
                assert json.loads(await call(nobodys, name)) is None


async def test_layouts_see_the_groups_of_whom_they_are_made_for() -> None:
    site = Roles(Directory(alice=["traders"], bob=[]))
    site.app.layout = lambda: html.Div(f"groups: {list_groups()}")
    async with site:
        assert "groups: ['traders']" in (await site.get("/_dash-layout", await site.login("alice"))).body
        assert "groups: []" in (await site.get("/_dash-layout", await site.login("bob"))).body


async def test_without_a_login_required_nobody_is_in_no_list_and_a_user_still_is() -> None:
    site = Roles(Directory(alice=["traders"]), login_required=False)
    site.app.layout = lambda: html.Div(f"groups: {list_groups()}")
    async with site:
        assert "groups: None" in (await site.get("/_dash-layout")).body
        assert "groups: ['traders']" in (await site.get("/_dash-layout", await site.login("alice"))).body


async def test_outside_of_everything_there_is_nobody() -> None:
    assert list_groups() is None


async def test_without_a_source_asking_for_the_list_says_what_is_missing() -> None:
    site = Roles()
    errors: list[Exception] = []

    @site.app.callback(Output("seen", "children"), GO)
    async def see(value: Any) -> str:
        try:
            return str(list_groups())
        except ConfigurationError as error:
            errors.append(error)
            return "refused"

    async with site:
        assert given_by(await site.post(await site.login("alice"), "seen"), "seen") == "refused"
        assert "list_groups=" in str(errors[0])


async def test_a_view_of_the_apps_own_is_not_told_that_its_user_is_nobody() -> None:
    site = Roles(Directory(alice=["traders"]))

    @site.server.get("/own")
    async def own() -> Any:
        try:
            return {"groups": list_groups()}
        except GroupsUnknown:
            return {"groups": "unknown"}

    async with site:
        groups = (await site.get("/own", await site.login("alice"))).json["groups"]
        assert groups in (["traders"], "unknown")
        assert (await site.get("/own")).json["groups"] is None


# ------------------------------------------------------------------------------------------------- the source


class Callable:
    """Sources in every form that Python has for something to be called."""

    async def coroutine(self, user: str) -> list[str]:
        await asyncio.sleep(0)
        return ["traders"]

    def plain(self, user: str) -> list[str]:
        return ["traders"]

    def set(self, user: str) -> set[str]:
        return {"traders"}

    def tuple(self, user: str) -> tuple[str, ...]:
        return ("traders",)

    async def __call__(self, user: str) -> list[str]:
        return ["traders"]


@pytest.mark.parametrize(
    "source",
    [
        Callable().coroutine,
        Callable().plain,
        Callable().set,
        Callable().tuple,
        Callable(),
        functools.partial(Callable().coroutine),
        functools.partial(Callable().plain),
        lambda _user: Callable().coroutine("alice"),
    ],
)
async def test_a_source_may_be_async_or_not_a_method_or_an_object(source: Any) -> None:
    async with Roles(source).protected("trade", groups=["traders"]) as site:
        cookie = await site.login("alice")
        assert given_by(await site.post(cookie, "trade"), "trade") == "trade 1"
        async with site.websocket(cookie) as socket:
            assert await call(socket, "trade") == "trade 1"


async def test_a_source_that_blocks_does_not_hold_up_the_server() -> None:
    began, goes_on = threading.Event(), threading.Event()
    threads = []

    def source(user: str) -> list[str]:
        threads.append(threading.current_thread())
        began.set()
        assert goes_on.wait(10)
        return ["traders"]

    async with Roles(source).protected("trade", groups=["traders"]) as site:
        cookie = await site.login("alice")
        waiting = asyncio.create_task(site.post(cookie, "trade"))
        await until(began.is_set)
        assert (await site.me(cookie))[0] == "alice"
        assert not waiting.done()
        goes_on.set()
        assert given_by(await waiting, "trade") == "trade 1"
        assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    "given",
    ["traders", b"traders", None, False, 0, 7, {"groups": "traders"}, object()],
    ids=lambda value: repr(value)[:12],
)
async def test_what_is_no_list_of_groups_is_no_answer_and_opens_nothing(
    given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site = Roles(Directory(alice=given)).protected("trade", groups=["traders"])
    site.protected("outside", groups=["managers"], check_type="none_of").protected("anybody")
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            for name, expected in (("trade", "missing"), ("outside", "missing"), ("anybody", "anybody 1")):
                assert given_by(await site.post(cookie, name), name) == expected
                assert await call(socket, name) == expected
    assert site.ran == ["anybody"] * 2
    assert any("list_groups failed" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("check_type", "expected"), [("one_of", "trade 1"), ("all_of", "trade 1"), ("none_of", "missing")]
)
async def test_a_group_is_the_same_as_a_number_and_as_its_text(check_type: str, expected: str) -> None:
    site = Roles(Directory(alice=[7], bob=["7"]))
    site.protected("trade", groups=[7], check_type=check_type).protected("text", groups=["7"], check_type=check_type)
    async with site:
        for user in ("alice", "bob"):
            cookie = await site.login(user)
            assert given_by(await site.post(cookie, "trade"), "trade") == expected
            assert given_by(await site.post(cookie, "text"), "text") == expected.replace("trade", "text")


async def test_the_source_is_asked_once_for_a_connection_and_once_for_an_http_request() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"]).seeing()
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket, site.websocket(cookie) as other:
            for name in ("trade", "seen", "trade"):
                assert await call(socket, name) is not None
            assert directory.asked == ["alice"]
            await asyncio.gather(*(ask(other, "trade", id=str(number)) for number in range(5)))
            await answers(other, *map(str, range(5)))
            assert directory.asked == ["alice"] * 2
        directory.asked.clear()
        for _ in range(3):
            await site.post(cookie, "trade")
        assert directory.asked == ["alice"] * 3


async def test_the_source_is_never_asked_about_nobody() -> None:
    directory = Directory()
    site = Roles(directory).protected("trade", groups=["traders"]).seeing()
    async with site:
        for path in ("/", "/_dash-layout", "/_dash-dependencies", "/me", "/login"):
            await site.get(path)
        await site.post("", "seen")
        await site.post("", "trade")
        async with site.websocket() as socket:
            assert await call(socket, "seen") == "null"
    assert directory.asked == []


# ------------------------------------------------------------------------------ a source that fails, or hangs


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is no reason to wait before the app is asked again."""
    monkeypatch.setattr(module, "RETRY_AFTER", -1.0)


def guarded_site(directory: Directory, **options: Any) -> Roles:
    """Callbacks that need a group, the lack of one, a login, and nothing."""
    site = Roles(directory, **options).protected("trade", groups=["traders"]).protected("anybody")
    return site.protected("outside", groups=["managers"], check_type="none_of")


@pytest.mark.usefixtures("retries")
async def test_while_the_source_fails_what_needs_a_group_is_refused_and_all_else_works() -> None:
    directory = Directory(alice=["traders"])
    site = guarded_site(directory)
    async with site:
        cookie = await site.login("alice")
        directory.fails = True
        async with site.websocket(cookie) as socket:
            for name, expected in (("trade", "missing"), ("outside", "missing"), ("anybody", "anybody 1")):
                assert given_by(await site.post(cookie, name), name) == expected
                assert await call(socket, name) == expected
            assert (await site.get("/", cookie)).status == 200
            assert site.ran == ["anybody"] * 2
            directory.fails = False
            for name in ("trade", "outside"):
                assert given_by(await site.post(cookie, name), name) == f"{name} 1"
                assert await call(socket, name) == f"{name} 1"


async def test_while_the_source_fails_the_list_is_unknown_and_not_empty() -> None:
    directory = Directory(alice=["traders"])
    directory.fails = True
    site = Roles(directory)
    errors: list[str] = []

    @site.app.callback(Output("seen", "children"), GO)
    async def see(value: Any) -> str:
        try:
            return str(list_groups())
        except GroupsUnknown as error:
            errors.append(str(error))
            return "unknown"

    async with site:
        cookie = await site.login("alice")
        assert given_by(await site.post(cookie, "seen"), "seen") == "unknown"
        async with site.websocket(cookie) as socket:
            assert await call(socket, "seen") == "unknown"
    assert all("'alice'" in error for error in errors)


async def test_a_source_that_hangs_is_a_source_that_fails() -> None:
    directory = Directory(alice=["traders"])
    directory.answers.clear()
    async with guarded_site(directory, groups_timeout=0.05) as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await call(socket, "trade") == "missing"
            assert await call(socket, "outside") == "missing"
            assert await call(socket, "anybody") == "anybody 1"
        assert given_by(await site.post(cookie, "trade"), "trade") == "missing"
        assert given_by(await site.post(cookie, "anybody"), "anybody") == "anybody 1"


async def test_a_source_that_hangs_holds_up_a_connections_callbacks_once_and_not_one_after_another() -> None:
    directory = Directory(alice=["traders"])
    directory.answers.clear()
    async with guarded_site(directory, groups_timeout=0.2) as site, site.websocket(await site.login("alice")) as socket:
        for number in range(20):
            await ask(socket, "anybody", id=str(number))
        found = await answers(socket, *map(str, range(20)))
        assert {payload["status"] for payload in found.values()} == {"ok"}
        assert await call(socket, "trade") == "missing"
        assert directory.asked == ["alice"]


async def test_a_source_that_hangs_holds_up_requests_over_http_once_and_not_one_after_another() -> None:
    directory = Directory(alice=["traders"])
    directory.answers.clear()
    async with guarded_site(directory, groups_timeout=0.2) as site:
        cookie = await site.login("alice")
        for _ in range(5):
            assert given_by(await site.post(cookie, "anybody"), "anybody") == "anybody 1"
        assert len(directory.asked) < 5


@pytest.mark.parametrize("over", ["websocket", "http"])
async def test_a_source_that_fails_is_in_the_log_once_a_second_at_most(
    over: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory()
    directory.fails = True
    async with guarded_site(directory) as site:
        cookie = await site.login("alice")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with site.websocket(cookie) as socket:
            for _ in range(10):
                if over == "websocket":
                    assert await call(socket, "trade") == "missing"
                else:
                    assert given_by(await site.post(cookie, "trade"), "trade") == "missing"
        lines = [record for record in caplog.records if "list_groups failed" in record.getMessage()]
        assert 1 <= len(lines) <= 1 + (loop.time() - began)
        assert lines[0].exc_info is not None
        assert "the directory is away" in str(lines[0].exc_info[1])


async def test_a_connection_with_a_topic_stays_while_the_source_fails() -> None:
    directory = Directory(alice=["traders"])
    directory.fails = True
    async with guarded_site(directory) as site, site.websocket(await site.login("alice")) as socket:
        assert await is_open(socket)
        site.backend.subscribe(site.backend.connections()[0], "prices")
        assert await call(socket, "anybody") == "anybody 1"
        assert await is_open(socket)


async def test_a_source_whose_own_task_was_cancelled_has_failed_and_the_callback_gets_its_answer() -> None:
    async def source(user: str) -> list[str]:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled
        raise AssertionError

    async with Roles(source).protected("trade", groups=["traders"]).protected("anybody") as site:
        cookie = await site.login("alice")
        assert given_by(await site.post(cookie, "trade"), "trade") == "missing"
        async with site.websocket(cookie) as socket:
            assert await call(socket, "trade") == "missing"
            assert await call(socket, "anybody") == "anybody 1"


# --------------------------------------------------------------------------------------------- rights_changed


async def test_gained_groups_close_nothing_and_are_there_for_the_next_callback() -> None:
    directory = Directory(alice=["staff"])
    site = Roles(directory).protected("trade", groups=["traders"]).running("work", groups=["staff"]).seeing()
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work", id="work")
        assert await call(socket, "trade") == "missing"
        directory.groups["alice"] = ["staff", "traders"]
        receipt = await site.backend.rights_changed("alice")
        assert receipt.closed == 0
        assert await call(socket, "trade") == "trade 1"
        assert json.loads(await call(socket, "seen")) == ["staff", "traders"]
        assert (site.ran, site.cleaned) == (["work", "trade"], [])


async def test_lost_groups_that_nothing_relies_on_close_nothing_and_are_gone_for_the_next_callback() -> None:
    directory = Directory(alice=["staff", "traders"])
    site = Roles(directory).protected("trade", groups=["traders"]).running("work", groups=["staff"]).seeing()
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work", id="work")
        assert await call(socket, "trade") == "trade 1"
        assert json.loads(await call(socket, "seen")) == ["staff", "traders"]
        directory.groups["alice"] = ["staff"]
        assert (await site.backend.rights_changed("alice")).closed == 0
        assert await call(socket, "trade") == "missing"
        assert json.loads(await call(socket, "seen")) == ["staff"]


@pytest.mark.parametrize(
    ("check_type", "groups", "before", "now", "ends"),
    [
        ("one_of", ["traders"], ["traders"], [], True),
        ("one_of", ["traders", "staff"], ["traders"], ["staff"], False),
        ("all_of", ["traders", "staff"], ["traders", "staff"], ["staff"], True),
        ("all_of", ["traders"], ["traders", "staff"], ["traders"], False),
        ("none_of", ["suspended"], ["traders"], ["traders", "suspended"], True),
        ("none_of", ["suspended"], ["traders"], [], False),
    ],
)
async def test_a_running_callback_ends_exactly_when_what_it_demands_is_no_longer_met(
    check_type: str, groups: list[str], before: list[str], now: list[str], ends: bool
) -> None:
    directory = Directory(alice=before)
    site = Roles(directory).running("work", groups=groups, check_type=check_type, persistent=True)
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        directory.groups["alice"] = now
        assert (await site.backend.rights_changed("alice")).closed == ends
        if ends:
            assert await how_it_ended(socket) == RIGHTS_CHANGED
            await until(lambda: site.cleaned)
        else:
            assert await is_open(socket)
            assert site.cleaned == []


async def test_lost_groups_end_the_connections_that_rely_on_them_and_no_others() -> None:
    directory = Directory(alice=["traders"], bob=["traders"])
    site = Roles(directory).running("work", groups=["traders"]).protected("trade", groups=["traders"])
    async with site:
        cookie, bobs = await site.login("alice"), await site.login("bob")
        async with site.websocket(cookie) as busy, site.websocket(cookie) as idle, site.websocket(bobs) as his:
            await ask(busy, "work")
            await ask(his, "work")
            assert await call(idle, "trade") == "trade 1"
            await until(lambda: site.ran.count("work") == 2)
            directory.groups.update(alice=[], bob=[])
            receipt = await site.backend.rights_changed("alice")
            assert (receipt.closed, receipt.confirmed, receipt.missing) == (1, 1, ())
            assert await how_it_ended(busy) == RIGHTS_CHANGED
            await until(lambda: site.cleaned == ["work"])
            assert await call(idle, "trade") == "missing"
            assert await call(his, "trade", id="2") == "trade 1", "nobody has said that bob's have changed"
            assert [one.user for one in site.backend.connections()] == ["alice", "bob"]
        async with site.websocket(cookie) as again:
            assert await call(again, "trade") == "missing"


async def test_a_callback_that_has_seen_the_list_ends_when_it_is_another_one() -> None:
    directory = Directory(alice=["staff"])
    site = Roles(directory).running("work", first=list_groups)
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        assert (await site.backend.rights_changed("alice")).closed == 0, "it is the same list"
        directory.groups["alice"] = ["staff", "traders"]
        assert (await site.backend.rights_changed("alice")).closed == 1
        assert await how_it_ended(socket) == RIGHTS_CHANGED


async def test_a_callback_that_has_ended_is_nothing_that_relies_on_groups() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"]).seeing()
    async with site, site.websocket(await site.login("alice")) as socket:
        assert await call(socket, "trade") == "trade 1"
        assert await call(socket, "seen") is not None
        directory.groups["alice"] = []
        assert (await site.backend.rights_changed("alice")).closed == 0
        assert await is_open(socket)


async def test_the_result_of_a_thread_that_has_lost_its_groups_reaches_nobody() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).blocking("block", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "block")
        await until(lambda: site.ran)
        directory.groups["alice"] = []
        assert (await site.backend.rights_changed("alice")).closed == 1
        site.released.set()
        await until(lambda: site.cleaned)
        with pytest.raises(Closed) as closed:
            await socket.receive()
        assert (closed.value.code, closed.value.reason) == RIGHTS_CHANGED


@pytest.mark.parametrize("has_called", [True, False])
async def test_a_topic_ends_with_the_groups_also_before_the_first_callback(has_called: bool) -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"])
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as subscribed, site.websocket(cookie) as other:
            assert await is_open(subscribed)
            assert await is_open(other)
            if has_called:
                assert await call(subscribed, "trade") == "trade 1"
            site.backend.subscribe(site.backend.connections()[0], "prices")
            directory.groups["alice"] = []
            assert (await site.backend.rights_changed("alice")).closed == 1
            assert await how_it_ended(subscribed) == RIGHTS_CHANGED
            assert await is_open(other)


@pytest.mark.parametrize("kind", ["running", "blocking"])
async def test_a_request_over_http_that_has_lost_its_groups_is_answered_with_403(kind: str) -> None:
    directory = Directory(alice=["traders"], bob=["traders"])
    site = Roles(directory)
    getattr(site, kind)("work", groups=["traders"])
    async with site:
        hers = asyncio.create_task(site.post(await site.login("alice"), "work"))
        his = asyncio.create_task(site.post(await site.login("bob"), "work"))
        await until(lambda: len(site.ran) == 2)
        directory.groups.update(alice=[])
        assert (await site.backend.rights_changed("alice")).closed == 0
        reply = await hers
        assert reply.status == 403
        assert "the result of the thread" not in reply.body
        assert not his.done()
        if kind == "running":
            assert site.cleaned == ["work"]
        else:
            site.released.set()
            assert given_by(await his, "work") == "the result of the thread"
        his.cancel()
        await asyncio.wait([his])


async def test_a_request_over_http_that_relies_on_nothing_lost_goes_on() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).blocking("anybody").protected("trade", groups=["traders"])
    async with site:
        cookie = await site.login("alice")
        waiting = asyncio.create_task(site.post(cookie, "anybody"))
        await until(lambda: site.ran)
        directory.groups["alice"] = []
        await site.backend.rights_changed("alice")
        site.released.set()
        assert given_by(await waiting, "anybody") == "the result of the thread"
        assert given_by(await site.post(cookie, "trade"), "trade") == "missing"


async def test_a_callback_that_comes_in_while_the_source_is_asked_again_waits_and_sees_the_new_groups() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"])
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await call(socket, "trade") == "trade 1"
            directory.groups["alice"] = []
            directory.answers.clear()
            pending = site.backend.rights_changed("alice")
            await ask(socket, "trade", id="2")
            over_http = asyncio.create_task(site.post(cookie, "trade"))
            await until(lambda: len(directory.asked) == 3)
            await is_open(socket)
            assert site.ran == ["trade"]
            assert not pending.done()
            directory.answers.set()
            assert (await answer(socket, "2"))["data"]["response"]["trade"]["children"] == "missing"
            assert given_by(await over_http, "trade") == "missing"
            assert (await pending).closed == 0
        assert site.ran == ["trade"]


async def test_a_callback_that_waits_for_a_thread_when_the_groups_change_does_not_start_with_the_old_ones() -> None:
    directory = Directory(alice=["traders"], bob=["staff"])
    site = Roles(directory, callback_threads=1).blocking("block", groups=["staff"])

    @protected_callback(Output("trade", "children"), GO, groups=["traders"], app=site.app)
    def trade(value: Any) -> str:
        site.ran.append("trade")
        return "traded"

    async with site:
        async with site.websocket(await site.login("bob")) as his, site.websocket(await site.login("alice")) as hers:
            await ask(his, "block")
            await until(lambda: site.ran == ["block"])
            await ask(hers, "trade")
            await until(lambda: site.backend.pool().queued == 1)
            directory.groups["alice"] = []
            directory.answers.clear()
            pending = site.backend.rights_changed("alice")
            await until(lambda: directory.asked.count("alice") == 2)
            site.released.set()
            assert (await answer(his))["status"] == "ok"
            await until(lambda: site.backend.pool().busy == 0 or "trade" in site.ran)
            directory.answers.set()
            await pending
        assert "trade" not in site.ran


@pytest.mark.parametrize(("name", "where"), [("trade", access), ("seen", module)])
async def test_a_thread_that_is_held_up_in_the_middle_of_its_look_does_not_go_on_with_the_old_groups(
    name: str, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up, goes_on = threading.Event(), threading.Event()

    def note_late(decision: Any) -> None:
        held_up.set()
        assert goes_on.wait(10)
        note(decision)

    monkeypatch.setattr(where, "note", note_late)
    directory = Directory(alice=["traders"])
    site = Roles(directory)
    results = []

    @protected_callback(Output("trade", "children"), GO, groups=["traders"], app=site.app)
    def trade(value: Any) -> str:
        return "traded"

    @site.app.callback(Output("seen", "children"), GO)
    def see(value: Any) -> str:
        return f"seen {list_groups()}"

    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, name)
        await until(held_up.is_set)
        directory.groups["alice"] = []
        await site.backend.rights_changed("alice")
        goes_on.set()
        try:
            results.append(json.dumps(await answer(socket)))
        except Closed as closed:
            results.append(str(closed.code))
    assert "traded" not in results[0]
    assert "traders" not in results[0]


async def test_an_answer_that_is_on_its_way_when_the_groups_change_counts_for_nothing() -> None:
    directory = Directory(alice=["traders"])
    directory.answers.clear()
    site = Roles(directory).protected("trade", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "trade")
        await until(lambda: directory.asked)
        directory.groups["alice"] = []
        pending = site.backend.rights_changed("alice")
        directory.answers.set()
        assert (await answer(socket))["data"]["response"]["trade"]["children"] == "missing"
        assert (await pending).closed == 0
        assert site.ran == []


async def test_a_failure_that_is_on_its_way_when_the_groups_change_counts_for_nothing() -> None:
    directory = Directory(alice=[])
    directory.fails = True
    directory.answers.clear()
    site = Roles(directory).protected("trade", groups=["traders"]).protected("anybody")
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "anybody")
        await until(lambda: directory.asked)
        directory.groups["alice"], directory.fails = ["traders"], False
        pending = site.backend.rights_changed("alice")
        directory.answers.set()
        assert (await answer(socket))["status"] == "ok"
        await pending
        assert await call(socket, "trade") == "trade 1"


async def test_two_changes_in_quick_succession_leave_the_last_one() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"]).running("work", groups=["staff", "traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work", id="work")
        assert await call(socket, "trade") == "trade 1"
        directory.answers.clear()
        directory.groups["alice"] = []
        first = site.backend.rights_changed("alice")
        await until(lambda: len(directory.asked) == 2)
        directory.groups["alice"] = ["staff"]
        second = site.backend.rights_changed("alice")
        directory.answers.set()
        closed = [(await pending).closed for pending in (first, second)]
        assert closed == [1, 1], "the connection ended, whoever asks: alice was in no group for a moment"
        assert await how_it_ended(socket) == RIGHTS_CHANGED


async def test_a_change_and_its_undoing_before_anybody_was_asked_end_nothing() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).running("work", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        directory.groups["alice"] = []
        first = site.backend.rights_changed("alice")
        directory.groups["alice"] = ["traders"]
        second = site.backend.rights_changed("alice")
        assert [(await first).closed, (await second).closed] == [0, 0]
        assert await is_open(socket)


async def test_rights_may_change_from_a_thread() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).running("work", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        directory.groups["alice"] = []
        receipt = await asyncio.to_thread(lambda: site.backend.rights_changed("alice").result(10))
        assert receipt.closed == 1
        assert await how_it_ended(socket) == RIGHTS_CHANGED


async def test_rights_may_change_before_the_first_request_and_for_somebody_who_is_not_here() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"])
    assert site.backend.rights_changed("alice").result(0).closed == 0
    async with site:
        assert (await asyncio.to_thread(lambda: site.backend.rights_changed("alice").result(10))).closed == 0
        cookie = await site.login("alice")
        assert (await site.backend.rights_changed("zoe")).closed == 0
        assert given_by(await site.post(cookie, "trade"), "trade") == "trade 1"
        assert "zoe" not in directory.asked


async def test_a_user_whose_id_is_a_number_is_the_one_that_is_named() -> None:
    directory = Directory(**{"7": ["traders"]})
    site = Roles(directory).running("work", groups=["traders"])
    async with site, site.websocket(await site.login("7")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        directory.groups["7"] = []
        assert (await site.backend.rights_changed(7)).closed == 1  # type: ignore[arg-type]
        assert await how_it_ended(socket) == RIGHTS_CHANGED


async def test_an_object_with_an_async_call_is_asked_without_a_thread_whose_answer_could_be_lost() -> None:
    def threads() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("list_groups")}

    before = threads()
    site = Roles(Directory(alice=["traders"])).seeing()
    async with site:
        assert given_by(await site.post(await site.login("alice"), "seen"), "seen") == '["traders"]'
        assert threads() == before


@pytest.mark.parametrize("over", ["websocket", "http"])
async def test_a_callback_may_say_that_its_own_users_rights_have_changed(over: str) -> None:
    directory = Directory(alice=["traders", "staff"])
    site = Roles(directory)
    cleaned = []

    @protected_callback(Output("leave", "children"), GO, groups=["traders"], app=site.app)
    async def leave(value: Any) -> str:
        directory.groups["alice"] = ["staff"]
        try:
            await site.backend.rights_changed("alice")
        finally:
            cleaned.append("leave")
        return "left"

    @protected_callback(Output("stay", "children"), GO, groups=["staff"], app=site.app)
    async def stay(value: Any) -> int:
        directory.groups["alice"] = ["staff", "managers"]
        return (await site.backend.rights_changed("alice")).closed

    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            if over == "http":
                assert given_by(await site.post(cookie, "stay"), "stay") == 0
                directory.groups["alice"] = ["traders", "staff"]
                assert (await site.post(cookie, "leave")).status == 403
                assert await is_open(socket)
            else:
                assert await call(socket, "stay") == 0
                directory.groups["alice"] = ["traders", "staff"]
                await site.backend.rights_changed("alice")
                await ask(socket, "leave", id="2")
                assert await how_it_ended(socket) == RIGHTS_CHANGED
            await until(lambda: cleaned)


async def test_a_source_that_fails_when_it_is_asked_again_ends_what_relied_on_groups_and_nothing_else() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).running("work", groups=["traders"]).running("login")
    site.running("seen", first=list_groups).running("outside", groups=["managers"], check_type="none_of")
    async with site:
        cookie = await site.login("alice")
        async with (
            site.websocket(cookie) as working,
            site.websocket(cookie) as seeing,
            site.websocket(cookie) as outside,
            site.websocket(cookie) as logged_in,
            site.websocket(cookie) as idle,
        ):
            sockets = {"work": working, "seen": seeing, "outside": outside, "login": logged_in}
            for name, socket in sockets.items():
                await ask(socket, name)
            await until(lambda: len(site.ran) == 4)
            directory.fails = True
            receipt = await site.backend.rights_changed("alice")
            for socket in (working, seeing, outside):
                assert await how_it_ended(socket) == RIGHTS_CHANGED
            assert await is_open(idle)
            assert await is_open(logged_in), "a login is no group"
            assert receipt.closed == 3


async def test_without_a_source_every_connection_of_the_user_ends() -> None:
    async with Roles() as site:
        cookie = await site.login("alice")
        bobs = await site.login("bob")
        async with site.websocket(cookie) as one, site.websocket(cookie) as two, site.websocket(bobs) as his:
            for socket in (one, two, his):
                assert await is_open(socket)
            assert (await site.backend.rights_changed("alice")).closed == 2
            assert await how_it_ended(one) == RIGHTS_CHANGED
            assert await how_it_ended(two) == RIGHTS_CHANGED
            assert await is_open(his)
        assert await site.refused_with(cookie) is None, "the session is as it was"


async def test_the_receipt_tells_of_a_connection_that_a_callbacks_own_look_has_ended() -> None:
    class Quick(Directory):
        async def __call__(self, user: str) -> Any:
            self.asked.append(user)
            found = self.groups[user]
            if len(self.asked) == 2:
                await self.answers.wait()
            return found

    directory = Quick(alice=["traders"])
    site = Roles(directory.__call__).running("work", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        await ask(socket, "work")
        await until(lambda: site.ran)
        directory.answers.clear()
        first = site.backend.rights_changed("alice")
        await until(lambda: len(directory.asked) == 2)
        directory.groups["alice"] = []
        directory.answers.set()
        second = site.backend.rights_changed("alice")
        assert [(await first).closed, (await second).closed] == [1, 1]
        assert await how_it_ended(socket) == RIGHTS_CHANGED


async def test_rights_that_change_while_the_server_stops_hold_nobody_up() -> None:
    directory = Directory(alice=["traders"])
    site = Roles(directory).protected("trade", groups=["traders"])
    async with site, site.websocket(await site.login("alice")) as socket:
        assert await call(socket, "trade") == "trade 1"
        directory.answers.clear()
        pending = site.backend.rights_changed("alice")
        await until(lambda: len(directory.asked) == 2)
    receipt = await asyncio.wait_for(pending, 5)
    assert (receipt.closed, receipt.confirmed, len(receipt.missing)) == (0, 0, 1)


async def test_a_change_of_rights_is_in_the_security_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dash_quart_ws.security")
    site = Roles(Directory(alice=[])).protected("trade", groups=["traders"])
    async with site:
        await site.post(await site.login("alice"), "trade")
        await site.backend.rights_changed("alice\nadmin")
    lines = [record.getMessage() for record in caplog.records if record.name == "dash_quart_ws.security"]
    (deny,) = [line for line in lines if line.startswith("deny")]
    assert "user='alice'" in deny
    assert "traders" in deny
    (changed,) = [line for line in lines if line.startswith("rights-changed")]
    assert r"user='alice\nadmin'" in changed


# -------------------------------------------------------------------------------------------- what is judged

GROUP_SETS = st.frozensets(st.sampled_from("abcd"))
REQUIREMENTS = st.builds(Requirement, GROUP_SETS, st.sampled_from(["one_of", "all_of", "none_of"]))


@given(before=GROUP_SETS, now=GROUP_SETS, decisions=st.lists(st.none() | REQUIREMENTS, max_size=3))
async def test_what_ends_is_what_was_met_and_is_met_no_more_or_has_seen_another_list(
    before: frozenset[str], now: frozenset[str], decisions: list[Requirement | None]
) -> None:
    answers = iter([before, now])

    async def source(user: str) -> frozenset[str]:
        return next(answers)

    async with Site().server.app_context():
        groups = Groups(source, 5.0)
        rights = groups.of("alice")
        ended: list[bool] = []
        rights.lost = lambda: ended.append(True)
        await rights.read()
        with rights.noting():
            for decision in decisions:
                note(decision)
            groups.changed("alice")
            await rights.read()
    should_end = any(
        before != now if decision is None else decision.met_by(before) and not decision.met_by(now)
        for decision in decisions
    )
    assert bool(ended) == should_end


@given(groups=GROUP_SETS, demanded=GROUP_SETS)
def test_a_requirement_is_met_as_in_dash_auth(groups: frozenset[str], demanded: frozenset[str]) -> None:
    assert Requirement(demanded, "one_of").met_by(groups) == any(group in groups for group in demanded)
    assert Requirement(demanded, "all_of").met_by(groups) == all(group in groups for group in demanded)
    assert Requirement(demanded, "none_of").met_by(groups) == (not any(group in groups for group in demanded))
    assert Requirement(None).met_by(groups)


async def test_what_a_source_gives_by_mistake_is_in_no_message() -> None:
    groups = Groups(lambda user: {"name": user, "password": "hunter2"}, 5.0)
    with pytest.raises(TypeError, match="a value of type dict") as caught:
        await groups.ask("alice")
    groups.stop()
    assert "hunter2" not in str(caught.value)
