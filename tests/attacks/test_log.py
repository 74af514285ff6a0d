"""What the attack run has left in the logs: a line for each event, and no secret. It is looked at last."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from ..raw import TEXT, RawSocket
from ..server import wait_for
from .target import MARK, Target, attacked, frame, payload, registry, signing_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = r"[\w.:-]+"
QUOTED = r"""(?:'(?:[^'\\]|\\.)*(?:'|\\?(?= ))|"(?:[^"\\]|\\.)*(?:"|\\?(?= )))"""
"""As `%r` writes it; what is longer than its 64 characters has lost its last quote."""

ID = "[0-9a-f]{32}"
SESSION = rf"session=(?:{ID}|None)"
EVENTS = {
    "login": rf"login user={QUOTED} session={ID} remote={PLAIN}",
    "connect": rf"connect user=(?:{QUOTED}|None) {SESSION} connection=[0-9a-f]{{16}} remote={PLAIN}",
    "close": rf"close user=(?:{QUOTED}|None) {SESSION} connection=[0-9a-f]{{16}} code=\d+ reason={QUOTED}",
    "refuse": rf"refuse code=\d+ reason={QUOTED}(?: origin=(?:{QUOTED}|None))?(?: by=hook)? remote={PLAIN}",
    "end": rf"end (?:session|user|all)={QUOTED} ending={PLAIN} reason={QUOTED} by={QUOTED} remote={PLAIN} connections=\d+",
    "expired": rf"expired user={QUOTED} session={ID}",
    "deny": rf"deny user=(?:{QUOTED}|None) callback={QUOTED} reason={QUOTED} remote={PLAIN}",
    "rights-changed": rf"rights-changed user={QUOTED} by={QUOTED} remote={PLAIN}",
    "stale-page": rf"stale-page user=(?:{QUOTED}|None) session=(?:{ID}|nobody) page=(?:{ID}|nobody|None) remote={PLAIN}",
    "unsafe-next": rf"unsafe-next target={QUOTED} remote={PLAIN}",
    "foreign-host": rf"foreign-host host={QUOTED} remote={PLAIN}",
    "effects-refused": rf"effects-refused code=\d+ reason={QUOTED} remote={PLAIN}",
    "abuse": rf"abuse user=(?:{QUOTED}|None) {SESSION} connection=[0-9a-f]{{16}} reason={QUOTED} remote={PLAIN}",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(folder: Path) -> Iterator[Target]:
    """A server to which everything has happened, each in the way that an attack has it happen."""
    with attacked(folder, DURATION="4", ALLOWED_HOSTS="127.0.0.1") as target:
        alice, bob = target.login("alice"), target.login("bob")
        token = target.page_token(alice)
        everything_happens(target, alice, bob, token)
        yield target


def everything_happens(target: Target, alice: str, bob: str, token: str) -> None:
    with RawSocket(target, alice) as connection:
        assert connection.call("who.children", MARK)["status"] == "ok"
        wait_for(lambda: "security:expired " in target.log, 15, "the session to expire")
    RawSocket(target, alice).socket.close()  # refused: it has expired
    carol, bob = target.login("carol"), target.login("bob")
    RawSocket(target, carol, headers=[("Origin", "http://evil.test")]).socket.close()  # refused: two origins
    with RawSocket(target, bob) as connection:
        connection.call("traders.children", MARK)  # denied
        connection.send(TEXT, frame({**payload("who.children", MARK), "endId": token}).encode())  # stale
        with suppress(ConnectionError):
            connection.flood(b"\x81\x81\0\0\0\0{" * 100, at_most=70_000)  # abuse
        connection.close_frame()
    target.post(payload("who.children", MARK))  # denied: nobody
    target.get("/groups/bob/staff")
    target.get("/login/carol?next=//evil.test/")
    target.request("POST", "/_dash-quart-ws/effects", body={"id": MARK})
    target.request("GET", f"/me?x={MARK}", headers={"Host": "evil.test"})
    target.post(signing_in("mallory", f"wr0ng {MARK}", f"?next=/{MARK}"))
    target.get("/revoke/carol")
    wait_for(lambda: all(f"security:{event} " in target.log for event in EVENTS), 10, "every kind of event")


@pytest.mark.parametrize("event", EVENTS)
def test_each_kind_of_event_has_a_line_that_a_machine_can_read(told: Target, event: str) -> None:
    lines = [line for line in told.events() if line.startswith(f"{event} ")]
    assert lines
    assert [line for line in lines if not re.fullmatch(EVENTS[event], line)] == []


def test_no_line_of_the_security_log_is_of_an_unknown_kind_in_the_whole_run(told: Target) -> None:
    prefix = "dash_quart_ws.security:"
    lines = [
        line.partition(prefix)[2]
        for path in registry.logs
        for line in path.read_text("utf-8", "replace").splitlines()
        if line.split(":", 1)[-1].startswith(prefix)
    ]
    assert len(lines) >= len(EVENTS)
    assert [line for line in lines if line.partition(" ")[0] not in (*EVENTS, "not-stored")] == []


def test_a_wrong_password_is_no_login_in_the_log(told: Target) -> None:
    assert not [line for line in told.events() if line.startswith("login user='mallory'")]


def test_a_refused_next_is_logged_without_its_query(told: Target) -> None:
    """It may be a link with a token in it, of this or of another site."""
    before = len(told.log)
    for target in ("//evil.test/?token=s3cret-in-a-link", "https://evil.test/#token=s3cret-in-a-link"):
        told.get(f"/login/carol?next={quote(target)}")
    wait_for(lambda: len(told.events(before)) >= 4, what="the events")
    assert "evil.test" in told.log[before:]
    assert "s3cret-in-a-link" not in told.log[before:]


def test_no_log_of_the_whole_run_holds_a_secret(told: Target) -> None:
    assert told.log_path in registry.logs
    assert {"a cookie", "a cookie's signature", "a sid", "a page token", "the secret key"} <= set(
        registry.secrets.values()
    )
    found = [
        (path.name, what, line[:200])
        for path in registry.logs
        for line in path.read_text("utf-8", "replace").splitlines()
        for secret, what in registry.secrets.items()
        if secret in line
    ]
    assert found == []
