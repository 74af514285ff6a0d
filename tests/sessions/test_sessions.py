"""Login, logout, expiry, revoke: what a cookie is worth, and from when on it is worth nothing."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from quart import Quart
from quart_auth import AuthUser, QuartAuth, current_user

from dash_quart_ws import current_session
from dash_quart_ws.sessions import revocations

from ..fakes import Clock
from .site import SECRET, Site, database, ending, is_open, plain_token, second_auth, spellings, until

if TYPE_CHECKING:
    from pathlib import Path


# --------------------------------------------------------------------------------------- login, renewal, logout


async def test_two_logins_in_the_same_second_are_two_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(time.time()).install(monkeypatch)
    async with Site() as site:
        laptop, phone = await site.login("alice"), await site.login("alice")
        assert (await site.me(laptop))[1] != (await site.me(phone))[1]
        await site.get("/logout", laptop)
        assert await site.is_nobody(laptop)
        assert not await site.is_nobody(phone)


async def test_a_renewal_keeps_the_session_and_its_login_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            (before,) = site.backend.connections()
        clock.advance(60)
        renewed = (await site.get("/renew", cookie)).cookie
        assert renewed
        assert renewed != cookie
        assert await site.me(renewed) == await site.me(cookie)
        async with site.websocket(renewed) as socket:
            assert await is_open(socket)
            (after,) = site.backend.connections()
        assert after.session.since == before.session.since
        assert after.session.expires > before.session.expires
        await site.get("/logout", renewed)
        assert await site.is_nobody(cookie)
        assert await site.is_nobody(renewed)


@pytest.mark.parametrize("how", ["session", "user", "all"])
async def test_a_renewal_in_flight_that_a_revocation_overtakes_writes_no_cookie(how: str) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        _, session = await site.me(cookie)
        renewal = asyncio.create_task(site.get("/slow-renew", cookie))
        await site.entered.wait()
        target: dict[str, Any] = {"session": {"session": session}, "user": {"user": "alice"}, "all": {"all": True}}
        await site.backend.revoke(**target[how])
        site.go_on.set()
        reply = await renewal
        assert (reply.status, reply.cookie) == (200, "")
        assert await site.is_nobody(cookie)


async def test_a_login_over_a_live_session_ends_that_one() -> None:
    async with Site() as site:
        alice = await site.login("alice")
        async with site.websocket(alice) as socket:
            assert await is_open(socket)
            bob = await site.login("bob", alice)
            assert await ending(socket) == 4102
        assert await site.is_nobody(alice)
        assert (await site.me(bob))[0] == "bob"


async def test_a_login_of_the_same_user_over_a_live_session_is_a_new_session_too() -> None:
    async with Site() as site:
        first = await site.login("alice")
        second = await site.login("alice", first)
        assert await site.is_nobody(first)
        assert not await site.is_nobody(second)


async def test_a_logout_is_done_before_its_response_is_there() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            reply = await site.get("/logout", cookie)
            assert reply.json == {"session": None}
            assert site.backend.connections() == ()
            assert await ending(socket) == 4501
        assert await site.is_nobody(cookie)


async def test_a_logout_in_a_view_that_then_fails_is_a_logout_all_the_same() -> None:
    site = Site()

    @site.server.get("/logout-and-fail")
    async def logout_and_fail() -> str:
        site.auth.logout_user()
        raise LookupError("after the logout")

    async with site:
        cookie = await site.login("alice")
        site.server.config["PROPAGATE_EXCEPTIONS"] = False
        assert (await site.get("/logout-and-fail", cookie)).status == 500
        assert await site.is_nobody(cookie)


async def test_after_a_logout_every_copy_and_spelling_of_the_cookie_is_nobody() -> None:
    async with Site() as site:
        name, _, token = (await site.login("alice")).partition("=")
        copies = [f"{name}={spelling}" for spelling in spellings(token)]
        assert len(set(copies)) == 16
        assert len({await site.me(copy) for copy in copies}) == 1
        await site.get("/logout", copies[0])
        for copy in copies:
            assert await site.is_nobody(copy)


async def test_a_session_that_was_never_logged_out_survives_the_logout_of_another(tmp_path: Path) -> None:
    async with Site() as site:
        alice, bob = await site.login("alice"), await site.login("bob")
        await site.get("/logout", alice)
        assert await site.is_nobody(alice)
        assert not await site.is_nobody(bob)


@pytest.mark.parametrize(
    "cookie", ["", "x", "a.b.c", ".", "....", "é", "\x7f", "A" * 5000, '"', "QUART_AUTH=QUART_AUTH"]
)
async def test_a_cookie_that_is_no_token_is_nobody(cookie: str) -> None:
    async with Site() as site:
        assert await site.is_nobody(f"QUART_AUTH={cookie}")


async def test_a_token_of_another_secret_is_nobody() -> None:
    async with Site(secret="another secret altogether") as stranger:
        cookie = await stranger.login("alice")
    async with Site() as site:
        assert await site.is_nobody(cookie)
        assert await site.is_nobody("QUART_AUTH=" + plain_token("alice", "another secret altogether"))


# ------------------------------------------------------------------------- tokens from elsewhere, and for elsewhere


async def test_a_cookie_from_before_the_package_is_a_session_of_its_own() -> None:
    async with Site() as site:
        old = plain_token("alice")
        cookies = [f"QUART_AUTH={spelling}" for spelling in spellings(old)]
        assert len({await site.me(cookie) for cookie in cookies}) == 1
        user, session = await site.me(cookies[0])
        assert user == "alice"
        renewed = (await site.get("/renew", cookies[0])).cookie
        assert await site.me(renewed) == (user, session)
        await site.get("/logout", cookies[0])
        for cookie in (*cookies, renewed):
            assert await site.is_nobody(cookie)
        assert not await site.is_nobody(await site.login("alice"))


async def test_a_cookie_from_before_the_package_ends_with_its_user() -> None:
    async with Site() as site:
        cookie = "QUART_AUTH=" + plain_token("alice")
        assert not await site.is_nobody(cookie)
        await site.backend.revoke(user="alice")
        assert await site.is_nobody(cookie)


async def test_a_worker_without_the_package_sees_nobody_and_no_strange_user() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
    stock = Quart("stock")
    stock.secret_key = SECRET
    QuartAuth(stock)

    @stock.get("/me")
    async def me() -> Any:
        return {"user": current_user.auth_id}

    client = stock.test_client(use_cookies=False)
    assert await (await client.get("/me", headers={"Cookie": cookie})).get_json() == {"user": None}
    own = {"Cookie": "QUART_AUTH=" + plain_token("alice")}
    assert await (await client.get("/me", headers=own)).get_json() == {"user": "alice"}


async def test_a_session_survives_the_rotation_of_the_secret_and_ends_under_the_new_one() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        before = await site.me(cookie)
        site.server.secret_key = "the next secret, as long as the first"
        assert await site.is_nobody(cookie)
        site.server.config["SECRET_KEY_FALLBACKS"] = [SECRET]
        assert await site.me(cookie) == before
        renewed = (await site.get("/renew", cookie)).cookie
        assert await site.me(renewed) == before
        site.server.config["SECRET_KEY_FALLBACKS"] = []
        assert await site.me(renewed) == before
        await site.get("/logout", renewed)
        site.server.config["SECRET_KEY_FALLBACKS"] = [SECRET]
        assert await site.is_nobody(cookie)
        assert await site.is_nobody(renewed)


async def test_a_logout_in_bearer_mode_revokes_the_token() -> None:
    async with Site(config={"QUART_AUTH_MODE": "bearer"}) as site:
        tokens = [(await site.get("/token/alice")).json["token"] for _ in range(2)]
        first, second = ({"Authorization": f"Bearer {token}"} for token in tokens)
        assert (await site.me(headers=first))[0] == "alice"
        async with site.websocket(headers=first) as socket:
            assert await is_open(socket)
            assert (await site.get("/logout", headers=first)).cookie == ""
            assert await ending(socket) == 4501
        for spelling in spellings(tokens[0]):
            assert await site.me(headers={"Authorization": f"Bearer {spelling}"}) == (None, None)
        assert (await site.get("/secret", headers=first)).status == 401
        assert (await site.me(headers=second))[0] == "alice"


async def test_a_token_made_for_somebody_else_is_a_new_session() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        _, own = await site.me(cookie)
        made = [(await site.get("/token/bob", cookie)).json["token"] for _ in range(2)]
        sessions = [await site.me(f"QUART_AUTH={token}") for token in made]
        assert {user for user, _ in sessions} == {"bob"}
        assert len({own, *(session for _, session in sessions)}) == 3
        await site.get("/logout", cookie)
        assert not await site.is_nobody(f"QUART_AUTH={made[0]}")


@pytest.mark.parametrize("first", ["QuartAuth", "Dash"])
async def test_quartauth_may_be_created_before_or_after_the_dash_app(first: str) -> None:
    server = Quart("whole")
    before = {"auth": None} if first == "QuartAuth" else {}
    if before:
        server.config["QUART_AUTH_COOKIE_SECURE"] = False
        QuartAuth(server)
    async with Site(server=server, **before) as site:
        assert site.server is server
        cookie = await site.login("alice")
        assert not await site.is_nobody(cookie)
        await site.get("/logout", cookie)
        assert await site.is_nobody(cookie)


# ------------------------------------------------------------------------------------------------- revocation


async def test_a_revoked_user_is_nobody_everywhere_and_may_log_in_again_at_once() -> None:
    async with Site() as site:
        laptop, phone, bob = await site.login("alice"), await site.login("alice"), await site.login("bob")
        async with site.websocket(laptop) as one, site.websocket(phone, bridge=False) as other:
            assert await is_open(one)
            assert await is_open(other)
            receipt = await site.backend.revoke(user="alice", reason="banned")
            assert (receipt.closed, receipt.confirmed, receipt.missing) == (2, 1, ())
            assert await ending(one) == 4503
            assert await ending(other) == 4001
        again = await site.login("alice")
        assert await site.is_nobody(laptop)
        assert await site.is_nobody(phone)
        assert not await site.is_nobody(again)
        assert not await site.is_nobody(bob)


async def test_a_revocation_holds_without_anybody_awaiting_it() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            site.backend.revoke(user="alice")
            assert site.backend.connections() == ()
            assert await ending(socket) == 4503
        assert await site.is_nobody(cookie)


async def test_a_revocation_from_a_thread_is_done_when_it_returns() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            receipt = await asyncio.to_thread(lambda: site.backend.revoke(user="alice").result(10))
            assert receipt.closed == 1
            assert await ending(socket) == 4503
        assert await site.is_nobody(cookie)


async def test_one_session_can_be_revoked_by_its_public_id() -> None:
    async with Site() as site:
        laptop, phone = await site.login("alice"), await site.login("alice")
        _, session = await site.me(laptop)
        await site.backend.revoke(session=session)
        assert await site.is_nobody(laptop)
        assert not await site.is_nobody(phone)


async def test_everybody_can_be_revoked_at_once() -> None:
    async with Site() as site:
        cookies = [await site.login(name) for name in ("alice", "bob")] + ["QUART_AUTH=" + plain_token("carol")]
        await site.backend.revoke(all=True)
        for cookie in cookies:
            assert await site.is_nobody(cookie)
        assert not await site.is_nobody(await site.login("alice"))


async def test_sign_out_everywhere_else_spares_the_session_that_asks() -> None:
    site = Site()

    @site.server.get("/only-here")
    async def only_here() -> Any:
        receipt = await site.backend.revoke(user=current_user.auth_id, keep=current_session())
        return {"closed": receipt.closed}

    async with site:
        here, there = await site.login("alice"), await site.login("alice")
        async with site.websocket(here) as kept, site.websocket(there) as ended:
            assert await is_open(kept)
            assert await is_open(ended)
            assert (await site.get("/only-here", here)).json == {"closed": 1}
            assert await ending(ended) == 4503
            assert await is_open(kept)
        assert await site.is_nobody(there)
        assert not await site.is_nobody(here)
        renewed = (await site.get("/renew", here)).cookie
        assert not await site.is_nobody(renewed)


async def test_each_target_of_a_revocation_excludes_the_others() -> None:
    async with Site() as site:
        for targets in ({}, {"user": "alice", "all": True}, {"session": "x", "user": "alice"}):
            with pytest.raises(TypeError):
                site.backend.revoke(**targets)


@pytest.mark.parametrize("name", ["alice", "Alice"])
async def test_a_login_in_flight_that_a_ban_overtakes_does_not_outlive_it(name: str) -> None:
    class LowerUser(AuthUser):
        @property
        def auth_id(self) -> str | None:
            return self._auth_id and self._auth_id.lower()

    async with Site(auth=lambda server: QuartAuth(server, user_class=LowerUser)) as site:
        login = asyncio.create_task(site.get(f"/slow-login/{name}"))
        await site.entered.wait()
        await site.backend.revoke(user="alice")
        site.go_on.set()
        cookie = (await login).cookie
        assert not cookie or await site.is_nobody(cookie)
        assert not await site.is_nobody(await site.login(name))


async def test_a_login_in_flight_that_a_ban_of_somebody_else_passes_by_stands() -> None:
    async with Site() as site:
        login = asyncio.create_task(site.get("/slow-login/alice"))
        await site.entered.wait()
        await site.backend.revoke(user="bob")
        site.go_on.set()
        assert not await site.is_nobody((await login).cookie)


class LowerUser(AuthUser):
    @property
    def auth_id(self) -> str | None:
        return self._auth_id and self._auth_id.lower()


class TenantUser(AuthUser):
    @property
    def auth_id(self) -> str | None:
        return self._auth_id and f"tenant/{self._auth_id}"


@pytest.mark.parametrize(("user_class", "name"), [(LowerUser, "Alice"), (TenantUser, "alice")])
@pytest.mark.parametrize("by", ["what the app sees", "what was signed"])
async def test_a_user_whose_class_changes_the_id_is_found_by_either(
    user_class: type[AuthUser], name: str, by: str
) -> None:
    async with Site(auth=lambda server: QuartAuth(server, user_class=user_class)) as site:
        cookie = await site.login(name)
        seen, session = await site.me(cookie)
        assert seen == user_class(name).auth_id != name
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            await site.backend.revoke(user=seen if by == "what the app sees" else name)
            assert await ending(socket) == 4503
        assert await site.is_nobody(cookie)
        again = await site.login(name)
        assert (await site.me(again))[1] not in (None, session)


@pytest.mark.parametrize("user", [7, "7"])
async def test_a_user_whose_id_is_a_number_is_found_as_the_app_sees_it(user: Any) -> None:
    async with Site() as site:
        cookie = await site.login("7")
        assert (await site.me(cookie))[0] == 7
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            receipt = await site.backend.revoke(user=user)
            assert receipt.closed == 1
            assert await ending(socket) == 4503
        assert await site.is_nobody(cookie)


async def test_a_user_who_logs_out_very_often_can_go_on_doing_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 3)
    async with Site() as site:
        ended = [await site.login("alice") for _ in range(5)]
        for cookie in ended:
            await site.get("/logout", cookie)
        # Beyond the bound all of the user's sessions ended at once: from there on it is one by one again.
        laptop, phone = await site.login("alice"), await site.login("alice")
        await site.get("/logout", laptop)
        assert await site.is_nobody(laptop)
        assert not await site.is_nobody(phone)
        for cookie in ended:
            assert await site.is_nobody(cookie)


async def test_a_login_over_the_last_of_very_many_sessions_still_lets_its_user_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 3)
    async with Site() as site:
        cookie = await site.login("alice")
        for _ in range(6):
            cookie = await site.login("alice", cookie)
            assert not await site.is_nobody(cookie)


async def test_nothing_that_was_ended_comes_back_when_very_many_logouts_are_put_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 4)
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        ended = []
        for _ in range(3):
            ended.append(await site.login("alice"))
            await site.get("/logout", ended[-1])
        here, there = await site.login("alice"), await site.login("alice")
        ended.append(there)
        await site.backend.revoke(user="alice", keep=(await site.me(here))[1])
        assert await site.is_nobody(there)
        for _ in range(6):
            ended.append(await site.login("alice"))
            await site.get("/logout", ended[-1])
            for cookie in ended:
                assert await site.is_nobody(cookie)
    async with Site(broker=broker) as site:
        for cookie in ended:
            assert await site.is_nobody(cookie)


async def test_sign_out_everywhere_else_spares_the_session_that_asks_however_often_it_asks() -> None:
    async with Site() as site:
        first = await site.login("alice")
        await site.backend.revoke(user="alice", keep=(await site.me(first))[1])
        here = await site.login("alice", first)
        for _ in range(revocations.CUTOFFS_PER_USER + 2):
            there = await site.login("alice")
            await site.backend.revoke(user="alice", keep=(await site.me(here))[1])
            assert await site.is_nobody(there)
            assert not await site.is_nobody(here)


# ------------------------------------------------------------------------------------------ several extensions


def both(server: Quart) -> QuartAuth:
    singleton = QuartAuth(server)
    second_auth(server)
    return singleton


async def test_a_connection_ends_with_the_session_of_another_extension_and_may_come_back() -> None:
    async with Site(auth=both) as site:
        alice = await site.login("alice")
        admin = (await site.get("/admin/login/root")).cookie
        cookies = f"{alice}; {admin}"
        async with site.websocket(cookies) as socket:
            assert await is_open(socket)
            assert (await site.get("/admin/logout", cookies)).status == 200
            assert await ending(socket) == 4102
        assert (await site.get("/admin/me", cookies)).json["user"] is None
        assert not await site.is_nobody(cookies)


async def test_a_ban_follows_the_users_of_the_singleton_only() -> None:
    async with Site(auth=both) as site:
        admin = (await site.get("/admin/login/alice")).cookie
        bob, alice = await site.login("bob"), await site.login("alice")
        async with site.websocket(f"{bob}; {admin}") as namesake, site.websocket(f"{alice}; {admin}") as banned:
            assert await is_open(namesake)
            assert await is_open(banned)
            receipt = await site.backend.revoke(user="alice")
            assert receipt.closed == 1
            assert await ending(banned) == 4503
            assert await is_open(namesake)
        assert (await site.get("/admin/me", admin)).json["user"] == "alice"


async def test_very_many_logouts_of_another_extension_end_its_sessions_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "SINGLES_PER_USER", 3)
    async with Site(auth=both) as site:
        alice = await site.login("alice")
        for _ in range(6):
            admin = (await site.get("/admin/login/alice")).cookie
            assert (await site.get("/admin/me", admin)).json["user"] == "alice"
            await site.get("/admin/logout", admin)
            assert (await site.get("/admin/me", admin)).json["user"] is None
        assert not await site.is_nobody(alice)


async def test_a_ban_brings_no_ended_session_of_a_namesake_in_another_extension_back() -> None:
    async with Site(auth=both) as site:
        admin = (await site.get("/admin/login/alice")).cookie
        await site.get("/admin/logout", admin)
        await site.backend.revoke(user="alice")
        assert (await site.get("/admin/me", admin)).json["user"] is None


async def test_everybody_means_every_extension() -> None:
    async with Site(auth=both) as site:
        admin = (await site.get("/admin/login/root")).cookie
        await site.backend.revoke(all=True)
        assert (await site.get("/admin/me", admin)).json["user"] is None


# ------------------------------------------------------------------------------------------------ the broker


@pytest.mark.parametrize("how", ["logout", "revoke user", "revoke session", "revoke all", "switch"])
async def test_what_has_ended_stays_ended_when_the_server_starts_anew(tmp_path: Path, how: str) -> None:
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        cookie, old = await site.login("alice"), "QUART_AUTH=" + plain_token("alice")
        _, session = await site.me(cookie)
        match how:
            case "logout":
                await site.get("/logout", cookie)
            case "revoke user":
                await site.backend.revoke(user="alice")
            case "revoke session":
                await site.backend.revoke(session=session)
            case "revoke all":
                await site.backend.revoke(all=True)
            case "switch":
                await site.login("bob", cookie)
    async with Site(broker=broker) as site:
        assert await site.is_nobody(cookie)
        assert await site.is_nobody(old) == (how in ("revoke user", "revoke all"))
        assert not await site.is_nobody(await site.login("alice"))


async def test_what_a_logouts_response_confirms_is_stored_when_the_process_dies_right_after(tmp_path: Path) -> None:
    broker = database(tmp_path / "store.sqlite3")
    async with Site(broker=broker) as site:
        cookie = await site.login("alice")
        await site.get("/logout", cookie)
        async with Site(broker=broker) as after_the_crash:  # nothing of the first has been closed
            assert await after_the_crash.is_nobody(cookie)


async def test_a_server_that_starts_again_in_the_same_process_still_stores_what_ends(tmp_path: Path) -> None:
    broker = database(tmp_path / "store.sqlite3")
    site = Site(broker=broker)
    async with site:
        assert not await site.is_nobody(await site.login("alice"))
    async with site:
        cookie = await site.login("alice")
        receipt = await site.backend.revoke(user="alice")
        assert receipt.missing == ()
    async with Site(broker=broker) as later:
        assert await later.is_nobody(cookie)


async def test_a_store_that_was_lost_does_not_make_a_later_ban_miss_older_tokens(tmp_path: Path) -> None:
    async with Site(broker=database(tmp_path / "lost.sqlite3")) as site:
        for _ in range(20):
            site.backend.revoke(user="somebody")
        cookie = await site.login("alice")
    async with Site(broker=database(tmp_path / "fresh.sqlite3")) as site:
        assert not await site.is_nobody(cookie)
        await site.backend.revoke(user="alice")
        assert await site.is_nobody(cookie)
        assert not await site.is_nobody(await site.login("alice"))


async def test_a_folder_that_cannot_be_written_is_said_once_and_everything_else_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with Site(broker=database(tmp_path / "file" / "store.sqlite3")) as site:
        cookie = await site.login("alice")
        assert not await site.is_nobody(cookie)
        await site.get("/logout", cookie)
        assert await site.is_nobody(cookie)
        other = await site.login("alice")
        await site.backend.revoke(user="alice")
        assert await site.is_nobody(other)
    said = [record for record in caplog.records if record.name == "dash_quart_ws.broker"]
    assert len(said) == 1
    assert "store.sqlite3" in said[0].getMessage()


async def test_a_revocation_that_could_not_be_stored_holds_and_its_receipt_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie = await site.login("alice")
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE revocation")
        other.close()
        receipt = await site.backend.revoke(user="alice")
        assert receipt.confirmed == 0
        assert len(receipt.missing) == 1
        assert await site.is_nobody(cookie)


async def test_a_logout_does_not_wait_for_a_slow_store_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path), broker_timeout=0.1) as site:
        cookie = await site.login("alice")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            async with asyncio.timeout(3):  # SQLite itself would wait for five seconds
                assert (await site.get("/logout", cookie)).status == 200
            assert await site.is_nobody(cookie)
        finally:
            other.execute("ROLLBACK")
            other.close()
    async with Site(broker=database(path)) as later:
        assert await later.is_nobody(cookie)


async def test_a_store_that_cannot_be_read_lets_nobody_in_on_the_second_try_either(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Site(broker=database(path)) as site:
        cookie = await site.login("alice")
        await site.get("/logout", cookie)
    with sqlite3.connect(path) as other:  # as a later version of the package might write it
        other.execute("UPDATE revocation SET ending = 'in a way of its own'")
    other.close()
    site = Site(broker=database(path))
    site.server.config["PROPAGATE_EXCEPTIONS"] = False
    async with site:
        for _ in range(3):
            reply = await site.get("/secret", cookie)
            assert reply.status in (401, 500)


# -------------------------------------------------------------------------------------------------- expiry


async def test_an_expired_cookie_is_nobody_and_its_handshake_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        clock.advance(99)
        renewed = (await site.get("/renew", cookie)).cookie
        clock.advance(2)
        assert await site.refused_with(cookie) == 4502
        assert await site.is_nobody(cookie)
        assert not await site.is_nobody(renewed)
        clock.advance(100)
        assert await site.is_nobody(renewed)


async def test_a_cookie_from_before_the_package_expires_as_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = "QUART_AUTH=" + plain_token("alice")
        assert not await site.is_nobody(cookie)
        clock.advance(102)
        assert await site.refused_with(cookie) == 4502
        assert await site.is_nobody(cookie)


async def test_a_socket_closes_when_its_session_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        clock.advance(99.5)  # from here on the timer looks every half a second
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            clock.advance(1.6)  # a token's age is counted in whole seconds
            assert await ending(socket) == 4102
        assert await site.is_nobody(cookie)


async def test_a_renewal_keeps_the_socket_open_beyond_the_first_cookies_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            clock.advance(90)
            renewed = (await site.get("/renew", cookie)).cookie
            clock.advance(50)
            (connection,) = site.backend.connections()
            assert await is_open(socket)
            await socket.send_json(
                {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": echo_payload()}
            )
            assert (await socket.receive_json())["payload"]["status"] == "ok"
            assert not connection.ended
        assert not await site.is_nobody(renewed)


async def test_no_callback_starts_once_the_session_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            clock.advance(102)  # the timer is a hundred seconds away: the start itself has to look
            await socket.send_json(
                {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": echo_payload()}
            )
            assert await ending(socket, unless="callback_response") == 4102


async def test_a_session_ends_at_its_absolute_timeout_however_often_it_is_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(absolute_timeout=300.0) as site:
        cookie = await site.login("alice")
        for _ in range(5):
            clock.advance(55)
            cookie = (await site.get("/renew", cookie)).cookie
            assert not await site.is_nobody(cookie)
        clock.advance(30)
        assert await site.refused_with(cookie) == 4502
        assert await site.is_nobody(cookie)
        assert (await site.get("/renew", cookie)).cookie == ""


async def test_a_session_ends_when_it_has_been_idle_and_not_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(idle_timeout=60.0) as site:
        cookie = await site.login("alice")
        for _ in range(5):
            clock.advance(50)
            assert not await site.is_nobody(cookie)
        clock.advance(61)
        assert await site.refused_with(cookie) == 4502
        assert await site.is_nobody(cookie)


async def test_what_has_been_idle_too_long_stays_ended_after_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(idle_timeout=60.0) as site:
        cookie = await site.login("alice")
        assert not await site.is_nobody(cookie)
        clock.advance(61)
        sessions = site.server.extensions["dash_quart_ws"].sessions
        sessions.sweep()
        assert await site.is_nobody(cookie)
        position = site.server.extensions["dash_quart_ws"].broker.last_position
        sessions.sweep()
        assert site.server.extensions["dash_quart_ws"].broker.last_position == position  # nothing was left to sweep


# ----------------------------------------------------------------------------------- the session as the app sees it


async def test_the_current_session_is_who_this_request_is() -> None:
    site = Site()
    seen: list[Any] = []

    @site.server.get("/look")
    async def look() -> str:
        seen.append(current_session())
        return "looked"

    async with site:
        cookie = await site.login("alice")
        await site.get("/look", cookie)
        await site.get("/look")
        (session, nobody) = seen
        assert nobody is None
        assert session.user == "alice"
        assert session.id == (await site.me(cookie))[1]
        assert session.since < session.expires
        assert cookie.partition("=")[2] not in repr(session)


async def test_the_current_session_is_nobodys_in_the_view_that_has_logged_in_or_out() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        assert (await site.get("/login/bob", cookie)).json == {"session": None}
        cookie = await site.login("alice")
        assert (await site.get("/logout", cookie)).json == {"session": None}


def test_the_current_session_outside_a_request_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        current_session()


async def test_the_current_session_needs_a_server_with_our_backend() -> None:
    async with Quart("stock").test_request_context("/"):
        with pytest.raises(RuntimeError, match="QuartBackend"):
            current_session()


@pytest.mark.parametrize("how", ["logout", "revoke user", "switch", "twice", "both"])
async def test_the_end_of_a_session_is_told_once(how: str) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        _, session = await site.me(cookie)
        async with site.websocket(cookie) as socket, site.websocket(cookie) as other:
            assert await is_open(socket)
            assert await is_open(other)
            match how:
                case "logout":
                    await site.get("/logout", cookie)
                case "revoke user":
                    await site.backend.revoke(user="alice")
                case "switch":
                    await site.login("bob", cookie)
                case "twice":
                    await site.backend.revoke(session=session)
                    await site.backend.revoke(session=session)
                    await site.backend.revoke(user="alice")
                case "both":  # a logout that is under way when the ban comes
                    logout = asyncio.create_task(site.get("/slow-logout", cookie))
                    await site.entered.wait()
                    await site.backend.revoke(user="alice")
                    site.go_on.set()
                    await logout
            await ending(socket)
            await ending(other)
        await until(lambda: site.ended)
        # Hooks run in tasks of their own: the one of a session that ends now is the last.
        last = await site.login("zoe")
        async with site.websocket(last) as socket:
            assert await is_open(socket)
            await site.get("/logout", last)
            await ending(socket)
        await until(lambda: len(site.ended) >= 2)
        assert [id for id, _ in site.ended].count(session) == 1
        assert len(site.ended) == 2


async def test_the_end_of_a_session_that_expires_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    async with Site(config={"QUART_AUTH_DURATION": 100}) as site:
        cookie = await site.login("alice")
        clock.advance(99.5)
        _, session = await site.me(cookie)
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            clock.advance(1.6)
            assert await ending(socket) == 4102
        last = await site.login("zoe")
        await site.get("/logout", last)
        await until(lambda: site.ended)
        assert session in [id for id, _ in site.ended]


async def test_the_log_has_who_and_why_and_never_a_cookie(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Site() as site:
        cookie = await site.login("alice")
        _, session = await site.me(cookie)
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            await site.backend.revoke(user="alice", reason="banned\nas a forged line")
            await ending(socket)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("dash_quart_ws")]
    assert any("alice" in line and session is not None and session in line for line in lines)
    assert not any(cookie.partition("=")[2] in line or "\n" in line for line in lines)


def echo_payload() -> dict[str, Any]:
    return {
        "output": "echo.children",
        "outputs": {"id": "echo", "property": "children"},
        "inputs": [{"id": "go", "property": "n_clicks", "value": 1}],
        "changedPropIds": ["go.n_clicks"],
        "state": [],
    }
