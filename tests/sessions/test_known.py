"""Who is signed in where: what `sessions()` lists, for how long, and what an attacker can make of it."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart_auth import AuthUser, QuartAuth, login_user

from dash_quart_ws import KnownSession, Session, current_session
from dash_quart_ws.brokers.base import SessionRecord
from dash_quart_ws.brokers.embedded import EmbeddedBroker
from dash_quart_ws.sessions import known
from dash_quart_ws.sessions.known import REMOTE_LENGTH, SAVE_EVERY, USER_AGENT_LENGTH, SessionRegistry, plain_text
from tests.asgi import InProcessSocket
from tests.server import ROOT

from ..fakes import Clock
from .site import ECHO, Site, database, ending, is_open, plain_token, second_auth, until

if TYPE_CHECKING:
    from pathlib import Path

    from quart import Quart

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/139.0.0.0 Safari/537.36"
EVERY_WAY = ("logout", "session", "id", "user", "all", "switch")


def ids(sessions: tuple[KnownSession, ...]) -> list[str]:
    return [session.id for session in sessions]


async def visit(site: Site, cookie: str, browser: str = FIREFOX) -> str:
    """One request with a cookie; the session's id."""
    _, session = await site.me(cookie, headers={"User-Agent": browser})
    assert session is not None
    return session


def both(server: Quart) -> QuartAuth:
    singleton = QuartAuth(server)
    second_auth(server)
    return singleton


def rows(path: Path) -> list[str]:
    """The ids of the sessions that a store holds."""
    with closing(sqlite3.connect(path)) as reader:
        return [id for (id,) in reader.execute("SELECT id FROM session ORDER BY id")]


async def end(site: Site, cookie: str, how: str) -> None:
    """One of the ways in which alice's session can end."""
    (one,) = site.backend.sessions(user="alice")
    match how:
        case "logout":
            await site.get("/logout", cookie)
        case "session":
            await site.backend.revoke(session=one)
        case "id":
            await site.backend.revoke(session=one.id)
        case "user":
            await site.backend.revoke(user="alice")
        case "all":
            await site.backend.revoke(all=True)
        case "switch":
            await site.login("zoe", cookie)


# ------------------------------------------------------------------------------------------------- what is listed


async def test_a_session_is_listed_from_its_login_on_with_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site() as site:
        assert site.backend.sessions(all=True) == ()
        began = clock.now
        cookie = (await site.get("/login/alice", headers={"User-Agent": FIREFOX})).cookie
        (at_login,) = site.backend.sessions(all=True)
        assert (at_login.user, at_login.user_agent, at_login.remote) == ("alice", FIREFOX, "<local>")
        clock.advance(5)
        session = await visit(site, cookie, CHROME)
        (now,) = site.backend.sessions(all=True)
        assert now.id == at_login.id == session
        assert (now.since.timestamp(), now.last_seen.timestamp()) == (began, began + 5)
        assert now.since.tzinfo == now.last_seen.tzinfo == dt.UTC
        assert now.expires > now.last_seen
        assert now.user_agent == CHROME
        assert at_login.user_agent == FIREFOX  # what was given out does not change


async def test_one_users_sessions_are_listed_without_anybody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site() as site:
        laptop, phone, bob = await site.login("alice"), await site.login("alice"), await site.login("bob")
        expected = []
        for cookie in (bob, laptop, phone):
            clock.advance(1)
            expected.insert(0, await visit(site, cookie))
        assert ids(site.backend.sessions(all=True)) == expected
        assert ids(site.backend.sessions(user="alice")) == expected[:2]
        clock.advance(1)
        await visit(site, laptop)
        assert ids(site.backend.sessions(user="alice")) == [expected[1], expected[0]]
        assert site.backend.sessions(user="nobody") == ()


async def test_a_cookie_that_was_there_before_is_listed_when_it_comes() -> None:
    async with Site() as site:
        session = await visit(site, "QUART_AUTH=" + plain_token("alice"))
        assert ids(site.backend.sessions(user="alice")) == [session]


async def test_nobody_and_forgers_are_not_listed() -> None:
    async with Site() as site:
        await site.get("/me")
        await site.get("/me", "QUART_AUTH=" + plain_token("alice", "another secret altogether"))
        await site.get("/me", "QUART_AUTH=x.y.z")
        assert site.backend.sessions(all=True) == ()


async def test_only_sessions_of_the_extension_that_dash_follows_are_listed() -> None:
    async with Site(auth=both) as site:
        admin = (await site.get("/admin/login/alice")).cookie
        alice = await site.login("alice")
        async with site.websocket(f"{alice}; {admin}") as socket:
            assert await is_open(socket)
            await socket.send_json(click())
            await socket.receive()
        assert (await site.get("/admin/me", admin)).json["user"] == "alice"
        assert ids(site.backend.sessions(all=True)) == [(await site.me(alice))[1]]


async def test_a_bearer_token_is_listed_from_when_it_is_made_until_it_is_revoked() -> None:
    async with Site(config={"QUART_AUTH_MODE": "bearer"}) as site:
        token = (await site.get("/token/alice")).json["token"]
        (made,) = site.backend.sessions(user="alice")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "a script/1.0"}
        assert await site.me(headers=headers) == ("alice", made.id)
        assert [one.user_agent for one in site.backend.sessions(all=True)] == ["a script/1.0"]
        await site.get("/logout", headers=headers)
        assert site.backend.sessions(all=True) == ()


@pytest.mark.parametrize("idle_timeout", [None, 600.0])
async def test_a_websocket_and_each_callback_over_it_is_activity(
    idle_timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(idle_timeout=idle_timeout) as site:
        cookie = await site.login("alice")
        await visit(site, cookie)
        clock.advance(10)
        async with site.websocket(cookie, headers={"User-Agent": CHROME}) as socket:
            assert await is_open(socket)
            (seen,) = site.backend.sessions(all=True)
            assert (seen.last_seen.timestamp(), seen.user_agent) == (clock.now, CHROME)
            opened = clock.now
            clock.advance(10)
            assert await is_open(socket)  # a heartbeat is no activity
            assert site.backend.sessions(all=True)[0].last_seen.timestamp() == opened
            await socket.send_json(click())
            await socket.receive()
            (seen,) = site.backend.sessions(all=True)
            assert (seen.last_seen.timestamp(), seen.user_agent) == (clock.now, CHROME)


async def test_a_renewal_keeps_the_session_and_gives_it_its_new_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        (before,) = site.backend.sessions(all=True)
        clock.advance(60)
        renewed = (await site.get("/renew", cookie)).cookie
        (after,) = site.backend.sessions(all=True)
        assert after == before
        assert (after.since, after.expires) == (before.since, before.expires + dt.timedelta(seconds=60))
        await visit(site, cookie)  # the copy from before the renewal, in another tab
        assert site.backend.sessions(all=True)[0].expires == after.expires
        clock.advance(50)  # beyond the first cookie's end
        assert ids(site.backend.sessions(all=True)) == [before.id]
        assert not await site.is_nobody(renewed)


@pytest.mark.parametrize("user", [7, True, 1.5, ["a", 1], {"id": 7}, "' or 1=1 --", ""])
async def test_a_user_id_of_any_kind_is_listed_and_found(user: Any, tmp_path: Path) -> None:
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        cookie = "QUART_AUTH=" + plain_token(user)
        session = await visit(site, cookie)
        assert [one.user for one in site.backend.sessions(user=user)] == [str(user)]
    async with Site(broker=broker) as site:
        assert [(one.id, one.user) for one in site.backend.sessions(user=user)] == [(session, str(user))]
        await site.backend.revoke(session=site.backend.sessions(all=True)[0])
        assert site.backend.sessions(all=True) == ()
        assert await site.is_nobody(cookie)


@pytest.mark.parametrize("by", ["Alice", "alice"])
async def test_a_user_whose_class_changes_the_id_is_listed_under_either_as_revoke_takes_either(by: str) -> None:
    class LowerUser(AuthUser):
        @property
        def auth_id(self) -> str | None:
            return self._auth_id and self._auth_id.lower()

    async with Site(auth=lambda server: QuartAuth(server, user_class=LowerUser)) as site:
        cookie = await site.login("Alice")
        assert [one.user for one in site.backend.sessions(user=by)] == ["alice"]
        await visit(site, cookie)
        assert [one.user for one in site.backend.sessions(user=by)] == ["alice"]
        await site.backend.revoke(user=by)
        assert site.backend.sessions(all=True) == ()


async def test_sessions_may_be_asked_for_in_a_thread_and_before_anybody_has_come(tmp_path: Path) -> None:
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        session = await visit(site, await site.login("alice"))
    async with Site(broker=broker) as site:
        assert ids(await asyncio.to_thread(site.backend.sessions, user="alice")) == [session]
        assert ids(site.backend.sessions(all=True)) == [session]


# ---------------------------------------------------------------------------------------- what is not, or no longer


@pytest.mark.parametrize("how", EVERY_WAY)
async def test_a_session_that_has_ended_is_not_listed_nor_stored_from_that_moment_on(how: str, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie = await site.login("alice")
        session = await visit(site, cookie)
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            await end(site, cookie, how)
            assert site.backend.sessions(user="alice") == ()
            await ending(socket)
        await site.get("/me", cookie)
        assert site.backend.sessions(user="alice") == ()
        assert session not in registry(site)._entries
    assert session not in rows(path)


@pytest.mark.parametrize("how", EVERY_WAY)
async def test_a_session_that_has_ended_is_not_listed_after_a_restart_though_its_record_is_still_there(
    how: str, tmp_path: Path
) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie, bob = await site.login("alice"), await site.login("bob")
        session = await visit(site, cookie)
        await until(lambda: session in rows(path))
        with closing(sqlite3.connect(path)) as other:
            kept = other.execute("SELECT * FROM session WHERE id = ?", (session,)).fetchone()
        await end(site, cookie, how)
    with closing(sqlite3.connect(path)) as other, other:  # as if the process had died before the record went
        other.execute("INSERT INTO session VALUES (?, ?, ?)", kept)
    async with Site(broker=database(path)) as site:
        assert site.backend.sessions(user="alice") == ()
        assert [one.user for one in site.backend.sessions(user="bob")] == ([] if how == "all" else ["bob"])
        assert await site.is_nobody(bob) == (how == "all")
    assert session not in rows(path)


async def test_sign_out_everywhere_else_leaves_the_one_that_is_kept() -> None:
    async with Site() as site:
        here, there = await site.login("alice"), await site.login("alice")
        kept = await visit(site, here)
        await visit(site, there)
        own = next(one for one in site.backend.sessions(all=True) if one.id == kept)
        await site.backend.revoke(user="alice", keep=own)
        assert site.backend.sessions(all=True) == (own,)
        assert await site.is_nobody(there)
        assert not await site.is_nobody(here)


async def test_a_session_that_expires_is_not_listed_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        await site.login("alice")
        clock.advance(99)
        assert len(site.backend.sessions(all=True)) == 1
        clock.advance(2)
        assert site.backend.sessions(all=True) == ()


async def test_a_session_that_is_idle_for_too_long_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(idle_timeout=60.0) as site:
        await visit(site, await site.login("alice"))
        clock.advance(59)
        assert len(site.backend.sessions(all=True)) == 1
        clock.advance(2)
        assert site.backend.sessions(all=True) == ()


async def test_a_shorter_absolute_timeout_holds_for_what_an_earlier_life_knew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        cookie = await site.login("alice")
    clock.advance(200)
    async with Site(broker=broker, absolute_timeout=300.0) as site:
        assert len(site.backend.sessions(all=True)) == 1
        clock.advance(101)
        assert site.backend.sessions(all=True) == ()
        assert await site.is_nobody(cookie)


async def test_a_login_that_a_ban_overtakes_is_not_listed() -> None:
    async with Site() as site:
        login = asyncio.create_task(site.get("/slow-login/alice"))
        await site.entered.wait()
        await site.backend.revoke(user="alice")
        site.go_on.set()
        await login
        assert site.backend.sessions(all=True) == ()
        assert len(registry(site)) == 0


@pytest.mark.parametrize("user", ["\ud800", object(), {1, 2}])
async def test_a_login_that_cannot_be_signed_is_not_listed(user: Any) -> None:
    site = Site()

    @site.server.get("/odd-login")
    async def odd_login() -> str:
        login_user(AuthUser(user))
        return "logged in"

    async with site:
        site.server.config["PROPAGATE_EXCEPTIONS"] = False
        assert (await site.get("/odd-login")).status == 500
        assert site.backend.sessions(all=True) == ()


async def test_a_renewal_that_a_revocation_overtakes_does_not_list_its_session_again() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        renewal = asyncio.create_task(site.get("/slow-renew", cookie))
        await site.entered.wait()
        await site.backend.revoke(session=site.backend.sessions(all=True)[0])
        site.go_on.set()
        await renewal
        assert site.backend.sessions(all=True) == ()
        assert len(registry(site)) == 0


# ---------------------------------------------------------------------------------------------------- a restart


async def test_a_stopped_server_forgets_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        cookie = await site.login("alice")
        for browser in (FIREFOX, CHROME, "yet another/1.0"):
            clock.advance(1)
            await visit(site, cookie, browser)
        before = site.backend.sessions(all=True)
    async with Site(broker=broker) as site:
        assert fields(site.backend.sessions(all=True)) == fields(before)
        assert before[0].user_agent == "yet another/1.0"
        clock.advance(1)
        assert await visit(site, cookie) == before[0].id
        assert fields(site.backend.sessions(all=True)) != fields(before)


async def test_a_process_that_dies_forgets_a_minute_at_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie = await site.login("alice")
        for _ in range(40):
            clock.advance(7)
            await visit(site, cookie)
        (before,) = site.backend.sessions(all=True)
        (after,) = after_a_crash(site, path)
        assert 0 <= before.last_seen.timestamp() - after.last_seen < SAVE_EVERY


async def test_a_renewal_is_stored_at_once_and_a_change_of_browser_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie, other = await site.login("alice"), await site.login("alice")
        await visit(site, cookie, CHROME)
        stored = {one.user_agent for one in after_a_crash(site, path)}
        assert CHROME in stored
        clock.advance(3000)
        await visit(site, other)
        renewed = (await site.get("/renew", other, headers={"User-Agent": FIREFOX})).cookie
        session = await visit(site, renewed)
        (after,) = [one for one in after_a_crash(site, path) if one.id == session]
        (before,) = [one for one in site.backend.sessions(all=True) if one.id == session]
        assert before.expires.timestamp() - after.expires < SAVE_EVERY


async def test_a_store_that_fails_hurts_no_request_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        await site.get("/me")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DROP TABLE session")
        cookies = [await site.login(f"user{number}") for number in range(5)]
        for cookie in cookies:
            assert not await site.is_nobody(cookie)
        assert len(site.backend.sessions(all=True)) == 5
        receipt = await site.backend.revoke(user="user0")
        assert receipt.confirmed == 1
    said = [record for record in caplog.records if record.name == "dash_quart_ws.broker"]
    assert len(said) == 1
    assert "sessions" in said[0].getMessage()


# ------------------------------------------------------------------------------------- what a stranger's words become


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("A" * 1_000_000, "A" * USER_AGENT_LENGTH),
        ("one\r\ntwo\x00\x1b[31m\x7f\x85", "onetwo[31m"),
        ("\ud800lone\udfff", "lone"),
        ("right\u202eto left\u2066\u200b", "rightto left"),
        ("\x00" * 5000 + "late", ""),
        ("", ""),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_what_a_browser_says_of_itself_is_one_line_that_fits(said: str, shown: str) -> None:
    registry = SessionRegistry()
    registry.see(session("a"), 0.0, (said, said))
    (one,) = registry.known(None)
    assert one.user_agent == shown
    assert one.remote == shown[:REMOTE_LENGTH]
    registry.see(session("a"), 1.0, (said, said))
    assert registry.known(None) == [one]


@given(st.text(), st.integers(1, 50))
def test_plain_text_is_short_and_has_nothing_to_steer_with(text: str, limit: int) -> None:
    made = plain_text(text, limit)
    assert len(made) <= limit
    assert made.isprintable()
    assert plain_text(made, limit) == made
    if text.isprintable():
        assert made == text[:limit]


async def test_a_client_that_says_nothing_of_itself_is_listed_as_such() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        headers = {"Cookie": cookie, "Host": "localhost", "Origin": "http://localhost"}
        async with InProcessSocket(site.server, "/_dash-ws-callback", headers=headers) as socket:
            assert await is_open(socket)
            (one,) = site.backend.sessions(all=True)
            assert one.user_agent == ""
            assert one.remote == "127.0.0.1"
    registry = SessionRegistry()
    registry.see(session("a"), 0.0, (None, ""))
    registry.see(session("b"), 0.0, None)
    assert [(one.remote, one.user_agent) for one in registry.known(None)] == [(None, ""), (None, "")]


# ---------------------------------------------------------------------------------------------- a session compared


def test_a_known_session_is_the_same_session_wherever_it_was_found() -> None:
    registry = SessionRegistry()
    one, other = session("a"), session("b")
    registry.see(one, 0.0, ("1.2.3.4", FIREFOX))
    (early,) = registry.known(None)
    registry.see(one, 50.0, ("1.2.3.4", CHROME))
    (late,) = registry.known(None)
    assert isinstance(late, Session)
    assert early == late == one
    assert one == early
    assert other != late
    assert len({one, early, late, other}) == 2
    assert late != late.id
    with pytest.raises(dataclasses.FrozenInstanceError):
        late.remote = "4.3.2.1"  # type: ignore[misc]


async def test_the_current_session_is_found_among_those_that_are_listed() -> None:
    site = Site()

    @site.server.get("/others")
    async def others() -> Any:
        own = current_session()
        return {"others": [one.id for one in site.backend.sessions(all=True) if one != own]}

    async with site:
        here, there = await site.login("alice"), await site.login("alice")
        assert (await site.get("/others", here)).json == {"others": [await visit(site, there)]}


# ------------------------------------------------------------------------------------------- the guide's account page


async def test_the_guides_account_page_shows_and_ends_a_users_own_sessions_and_nobody_elses() -> None:
    site = Site()
    guide = (ROOT / "docs" / "sessions.md").read_text("utf-8").partition("## Who is signed in where")[2]
    code = guide.partition("```python\n")[2].partition("```")[0]
    # The app's own callbacks: global ones would go to whichever app is set up first.
    exec(code.replace("@callback", "@app.callback"), {"backend": site.backend, "app": site.app})

    def click_on(session: str, clicks: int | None = 1) -> dict[str, Any]:
        id = {"session": session, "type": "end"}
        return {
            "output": "ended.data",
            "outputs": {"id": "ended", "property": "data"},
            "inputs": [[{"id": id, "property": "n_clicks", "value": clicks}]],
            "changedPropIds": [json.dumps(id, separators=(",", ":")) + ".n_clicks"],
            "state": [],
        }

    async with site:
        here, there, bob = await site.login("alice"), await site.login("alice"), await site.login("bob")
        for cookie, browser in ((here, FIREFOX), (there, CHROME), (bob, "bob's browser")):
            await visit(site, cookie, browser)
        show = {
            "output": "signed-in.children",
            "outputs": {"id": "signed-in", "property": "children"},
            "inputs": [{"id": "ended", "property": "data", "value": None}],
            "changedPropIds": [],
            "state": [],
        }
        page = await site.request("POST", "/_dash-update-component", here, json=show)
        assert page.status == 200
        others, theirs = (await site.me(there))[1], (await site.me(bob))[1]
        assert others is not None
        assert theirs is not None
        assert others in page.body
        assert "(this one)" in page.body
        assert theirs not in page.body
        assert "bob's" not in page.body

        async def click_as_alice(body: dict[str, Any]) -> int:
            return (await site.request("POST", "/_dash-update-component", here, json=body)).status

        assert await click_as_alice(click_on(others, clicks=None)) == 204
        assert not await site.is_nobody(there)
        assert await click_as_alice(click_on(theirs)) == 200
        assert not await site.is_nobody(bob)
        assert await click_as_alice(click_on(others)) == 200
        assert await site.is_nobody(there)
        assert not await site.is_nobody(here)


# ------------------------------------------------------------------------------------------ the registry, by itself


def session(id: str, *users: str, expires: float = 10**6, seen: int = 0) -> Session:
    def moment(seconds: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)

    users = users or ("alice",)
    return Session(id, users[0], moment(0), moment(expires), frozenset(users), seen)


def registry(site: Site) -> SessionRegistry:
    found: SessionRegistry = site.server.extensions["dash_quart_ws"].sessions._registry
    return found


def fields(sessions: tuple[KnownSession, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in sessions]


def after_a_crash(site: Site, path: Path) -> list[SessionRecord]:
    """What another process finds, while the first has stored what it had to store and closed nothing."""
    site.server.extensions["dash_quart_ws"].broker.records()  # behind what is on its way
    later = EmbeddedBroker(path)
    try:
        later.load()
        return later.records()
    finally:
        later.close()


def click() -> dict[str, Any]:
    return {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": ECHO}


@pytest.mark.parametrize("attack", ["the same", "browsers", "addresses", "renewals", "names", "a clock that goes back"])
def test_a_flood_of_requests_of_one_session_writes_one_record_a_minute_and_one_ahead(attack: str) -> None:
    registry, minutes, each = SessionRegistry(), 10, 500
    written: list[float] = []
    for minute in range(minutes):
        for number in range(each):
            now = minute * 60 + number * 60 / each
            address, browser, one = "1.2.3.4", FIREFOX, session("a")
            match attack:
                case "browsers":
                    browser = f"browser {number}"
                case "addresses":
                    address = f"1.2.3.{number}"
                case "renewals":
                    one = session("a", expires=1000 * (minute * each + number + 1))
                case "names":
                    one = session("a", f"alice {number}")
                case "a clock that goes back" if minute == minutes // 2:
                    now -= 60
            written += [now for _ in registry.see(one, now, (address, browser))]
    extra = 2 if attack == "a clock that goes back" else 1
    assert minutes - 1 <= len(written) <= minutes + extra


def test_what_is_new_about_a_session_is_recorded_at_once_and_its_time_after_a_minute() -> None:
    registry = SessionRegistry()
    one = session("a")
    assert len(registry.see(one, 0.0, ("1.2.3.4", FIREFOX))) == 1
    assert registry.see(one, 30.0, ("1.2.3.4", FIREFOX)) == []
    assert registry.see(one, 31.0, None) == []
    (moved,) = registry.see(one, 32.0, ("4.3.2.1", FIREFOX))
    assert (moved.remote, moved.last_seen) == ("4.3.2.1", 32.0)
    assert registry.see(one, 32.0 + SAVE_EVERY - 1, ("4.3.2.1", FIREFOX)) == []
    (later,) = registry.see(one, 32.0 + SAVE_EVERY, None)
    assert (later.remote, later.last_seen) == ("4.3.2.1", 32.0 + SAVE_EVERY)


def test_what_a_flood_left_unsaved_is_saved_when_the_server_goes_down() -> None:
    registry = SessionRegistry()
    for number in range(5):
        registry.see(session("a"), 0.0, ("1.2.3.4", f"browser {number}"))
    registry.see(session("b"), 0.0, ("1.2.3.4", FIREFOX))
    assert [(one.id, one.user_agent) for one in registry.unsaved()] == [("a", "browser 4")]
    assert registry.unsaved() == []


def test_beyond_the_limit_of_a_user_the_session_seen_longest_ago_is_forgotten_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "SESSIONS_PER_USER", 3)
    registry = SessionRegistry()
    registry.see(session("bob's", "bob"), 0.0, None)
    for number in range(3):
        registry.see(session(f"s{number}"), number, None)
    registry.see(session("s0"), 10.0, None)
    gone, new = registry.see(session("s3"), 11.0, None)
    assert (gone, new.id) == (SessionRecord.over("s1"), "s3")
    assert [one.id for one in registry.known("alice")] == ["s3", "s0", "s2"]
    assert [one.id for one in registry.known("bob")] == ["bob's"]
    assert [one.id for one in registry.known(None)] == ["s3", "s0", "s2", "bob's"]


def test_beyond_the_limit_of_all_the_session_seen_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SESSIONS_KNOWN", 3)
    registry = SessionRegistry()
    for number in range(3):
        registry.see(session(f"s{number}", f"user {number}"), number, None)
    registry.see(session("s0", "user 0"), 10.0, None)
    registry.see(session("s3", "user 3"), 11.0, None)
    assert [one.id for one in registry.known(None)] == ["s3", "s0", "s2"]
    assert registry.known("user 1") == []
    assert len(registry) == 3


def test_what_was_forgotten_for_want_of_room_is_known_again_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SESSIONS_PER_USER", 1)
    registry = SessionRegistry()
    registry.see(session("thief"), 0.0, ("6.6.6.6", "a script"))
    registry.see(session("own"), 1.0, ("1.2.3.4", FIREFOX))
    assert [one.id for one in registry.known("alice")] == ["own"]
    registry.see(session("thief"), 2.0, ("6.6.6.6", "a script"))
    assert [one.id for one in registry.known("alice")] == ["thief"]


def test_what_has_expired_does_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "PRUNE_EVERY", 10)
    registry = SessionRegistry()
    for number in range(1000):
        registry.see(session(f"s{number}", expires=number + 50), float(number), None)
    assert len(registry) < 150
    assert len(registry.known("alice")) == len(registry)


def test_what_is_restored_is_bounded_too_and_the_latest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SESSIONS_PER_USER", 2)
    records = [SessionRecord(f"s{n}", "alice", 0, 10**6, n, None, "", ("alice",)) for n in (3, 1, 4, 2)]
    registry = SessionRegistry()
    over = registry.restore(records, lambda one: one.id == "s4")
    assert [one.id for one in registry.known("alice")] == ["s3", "s2"]
    assert sorted(one.id for one in over) == ["s1", "s4"]
    assert all(one.expires == 0 for one in over)


def test_a_session_is_filed_under_the_names_that_it_has_now() -> None:
    registry = SessionRegistry()
    registry.see(session("a", "alice", "Alice"), 0.0, None)
    registry.see(session("a", "alice@example.org", "Alice"), 1.0, None)
    assert registry.known("alice") == []
    assert [one.user for one in registry.known("Alice")] == ["alice@example.org"]
    registry.forget("a")
    assert registry._by_user == {}


def test_many_threads_may_see_forget_and_list_at_a_time() -> None:
    registry, errors = SessionRegistry(), []

    def work(thread: int) -> None:
        try:
            for number in range(300):
                registry.see(session(f"s{number % 7}", f"user {number % 3}"), float(number), (str(thread), ""))
                registry.known(None)
                registry.known("user 1")
                registry.forget(f"s{number % 5}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {one.id for one in registry.known(None)} == set(registry._entries)


# -------------------------------------------------------------------------------------------------- other workers


def heard(
    id: str = "a", last_seen: float = 50.0, expires: float = 1000.0, active: float = 0.0, **of: Any
) -> SessionRecord:
    """What another worker has recorded."""
    user = of.get("user", "alice")
    return SessionRecord(id, user, 0.0, expires, last_seen, "9.9.9.9", "elsewhere", (user,), 0, active)


def test_a_session_that_was_seen_elsewhere_is_known_here_and_is_not_recorded_again() -> None:
    registry = SessionRegistry(is_shared=True)
    session_there, is_active = registry.learn(heard(active=50.0))
    assert (session_there.id, is_active) == ("a", True)
    (one,) = registry.known("alice")
    assert (one.remote, one.user_agent, one.last_seen.timestamp()) == ("9.9.9.9", "elsewhere", 50.0)
    assert registry.unsaved() == []
    assert registry.see(session("a", expires=1000), 60.0, None) == []


def test_of_what_two_workers_say_of_a_session_the_later_stands() -> None:
    registry = SessionRegistry(is_shared=True)
    registry.see(session("a", expires=1000), 100.0, ("1.2.3.4", FIREFOX), active=True)
    known_here, is_active = registry.learn(heard(last_seen=50.0, expires=2000.0, active=40.0))
    assert not is_active
    assert known_here.expires.timestamp() == 2000.0
    (one,) = registry.known("alice")
    assert (one.remote, one.last_seen.timestamp()) == ("1.2.3.4", 100.0)
    assert registry.learn(heard(last_seen=150.0, active=150.0))[1]
    (one,) = registry.known("alice")
    assert (one.remote, one.last_seen.timestamp(), one.expires.timestamp()) == ("9.9.9.9", 150.0, 2000.0)


def test_a_renewal_is_told_before_others_take_the_session_for_expired_and_no_more_often_than_that() -> None:
    registry = SessionRegistry(is_shared=True)
    assert len(registry.see(session("a", expires=200), 0.0, None)) == 1
    told = []
    for now in range(1, 150):  # renewed with each request
        told += [(now, one.expires) for one in registry.see(session("a", expires=200 + now), float(now), None)]
    assert [expires for _, expires in told if expires - 200 > SAVE_EVERY]
    known_elsewhere = 200.0
    for now, expires in told:
        assert now < known_elsewhere - 1
        known_elsewhere = expires
    assert len(told) <= 4  # a minute apart: the expiry that others know is far away
    short = SessionRegistry(is_shared=True)
    short.see(session("b", expires=10), 0.0, None)
    assert [one.expires for one in short.see(session("b", expires=15), 5.0, None)] == [15.0]
    assert [one.expires for one in short.see(session("b", expires=18), 8.0, None)] == [18.0]
    assert short.see(session("b", expires=18.5), 8.5, None) == []


def test_activity_is_recorded_as_such_and_an_arriving_websocket_is_not() -> None:
    registry = SessionRegistry(save_every=2.0, is_shared=True)
    (first,) = registry.see(session("a"), 10.0, None, active=True)
    (second,) = registry.see(session("a"), 13.0, None)
    (third,) = registry.see(session("a"), 16.0, None, active=True)
    assert [one.active for one in (first, second, third)] == [10.0, 10.0, 16.0]
    assert [one.last_seen for one in (first, second, third)] == [10.0, 13.0, 16.0]
