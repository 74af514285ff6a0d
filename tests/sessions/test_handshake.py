"""Who gets a websocket: the origin, the hooks, the session."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from dash import hooks
from hypothesis import given, settings
from hypothesis import strategies as st
from quart_auth import QuartAuth
from werkzeug.datastructures import Headers

from dash_quart_ws import ConfigurationError
from dash_quart_ws.sessions import handshake
from dash_quart_ws.sessions.handshake import check_origin, parse_allowed

from .site import SOCKET_PATH, Site, ending, is_open, second_auth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# ---------------------------------------------------------------------------------------------------- origin


def asks(*origins: str, scheme: str = "ws", host: str | None = "example.org", **headers: str) -> Any:
    """A websocket as far as `check_origin` looks at one."""
    sent = Headers([("Origin", origin) for origin in origins])
    if host is not None:
        sent["Host"] = host
    for name, value in headers.items():
        sent[name.replace("_", "-")] = value
    return SimpleNamespace(headers=sent, scheme=scheme)


NONE_ALLOWED = parse_allowed([])


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("http://example.org", "ws", "example.org"),
        ("http://example.org:80", "ws", "example.org"),
        ("http://example.org", "ws", "example.org:80"),
        ("https://example.org", "wss", "example.org"),
        ("https://example.org:443", "wss", "example.org"),
        ("https://example.org", "wss", "example.org:443"),
        ("https://example.org", "https", "example.org"),  # as a ProxyFixMiddleware writes it
        ("http://example.org", "http", "example.org"),
        ("http://example.org:8050", "ws", "example.org:8050"),
        ("HTTP://EXAMPLE.ORG", "ws", "example.org"),
        ("http://example.org", "ws", "Example.ORG"),
        ("http://[::1]:8050", "ws", "[::1]:8050"),
        ("http://[2001:DB8::1]", "ws", "[2001:db8::1]"),
        ("http://127.0.0.1:8050", "ws", "127.0.0.1:8050"),
        ("http://xn--bcher-kva.example", "ws", "xn--bcher-kva.example"),
        ("http://example.org.", "ws", "example.org."),
    ],
)
def test_the_pages_own_origin_gets_in(origin: str, scheme: str, host: str) -> None:
    assert check_origin(asks(origin, scheme=scheme, host=host), NONE_ALLOWED) is None


FOREIGN = [
    "https://example.org",
    "http://example.org:8080",
    "http://example.org:443",
    "http://www.example.org",
    "http://org",
    "http://example.or",
    "http://xexample.org",
    "http://example.org.evil.test",
    "http://example.orgevil.test",
    "http://evil.test",
    "http://example.org.",
    "http://127.0.0.1",
    "http://[::1]",
    "http://exаmple.org",  # noqa: RUF001 - a Cyrillic letter
    "http://example.org@evil.test",
]
MALFORMED = [
    "null",
    "",
    " ",
    "*",
    "example.org",
    "//example.org",
    "http:example.org",
    "http:/example.org",
    "http://",
    "http:///example.org",
    "http://example.org/",
    "http://example.org/path",
    "http://example.org?query",
    "http://example.org#fragment",
    "http://user@example.org",
    "http://user:secret@example.org",
    "http://evil.test@example.org",
    "http://example.org\\@evil.test",
    "http://example.org:",
    "http://example.org:0",
    "http://example.org:65536",
    "http://example.org:99999999999999999999",
    "http://example.org:-80",
    "http://example.org:+80",
    "http://example.org:80:80",
    "http://example.org:８０",  # noqa: RUF001 - digits, but not ASCII's
    "http://example.org :80",
    " http://example.org",
    "http://example.org ",
    "http://example.org\t",
    "http://example.org, http://example.org",
    "http://example.org http://evil.test",
    "http://[::1",
    "http://::1",
    "http://[::1]x",
    "http://[]",
    "ws://example.org",
    "wss://example.org",
    "file://example.org",
    "chrome-extension://example.org",
    "javascript://example.org",
    "http://exam\x00ple.org/",
    "http://" + "a" * 100_000 + "/",
]


@pytest.mark.parametrize("origin", FOREIGN + MALFORMED, ids=lambda origin: repr(origin)[:40])
def test_any_other_origin_stays_out(origin: str) -> None:
    assert check_origin(asks(origin), NONE_ALLOWED) is not None
    assert check_origin(asks(origin), parse_allowed(["https://other.test"])) is not None


def test_a_very_long_origin_stays_out() -> None:
    assert check_origin(asks("http://" + "a" * 1_000_000), NONE_ALLOWED) == "a foreign Origin"


def test_no_origin_and_two_origins_stay_out() -> None:
    assert check_origin(asks(), NONE_ALLOWED) is not None
    assert check_origin(asks("http://example.org", "http://example.org"), NONE_ALLOWED) is not None
    assert check_origin(asks("http://evil.test", "http://example.org"), NONE_ALLOWED) is not None


@pytest.mark.parametrize("host", [None, "", "exa mple.org", "example.org/x", "a@example.org", "[::1", ":80"])
def test_a_request_without_a_sound_host_has_no_origin_of_its_own(host: str | None) -> None:
    for origin in ("null", "http://example.org", f"http://{host}"):
        assert check_origin(asks(origin, host=host), NONE_ALLOWED) is not None


def test_two_hosts_stay_out() -> None:
    websocket = asks("http://example.org")
    websocket.headers.add("Host", "example.org")
    assert check_origin(websocket, NONE_ALLOWED) is not None


def test_what_a_client_says_of_a_proxy_counts_for_nothing() -> None:
    lies = {"X_Forwarded_Host": "evil.test", "X_Forwarded_Proto": "https", "Forwarded": "host=evil.test;proto=https"}
    assert check_origin(asks("http://evil.test", **lies), NONE_ALLOWED) is not None
    assert check_origin(asks("https://evil.test", **lies), NONE_ALLOWED) is not None
    assert check_origin(asks("http://example.org", **lies), NONE_ALLOWED) is None


def test_an_origin_that_is_allowed_gets_in_with_its_scheme_and_port_and_no_other() -> None:
    allowed = parse_allowed(["https://app.test", "http://dev.test:3000"])
    assert check_origin(asks("https://app.test:443"), allowed) is None
    assert check_origin(asks("http://dev.test:3000"), allowed) is None
    assert check_origin(asks("http://app.test"), allowed) is not None
    assert check_origin(asks("http://dev.test"), allowed) is not None
    assert check_origin(asks("https://app.test.evil.test"), allowed) is not None


@pytest.mark.parametrize(
    "entry", ["*", "app.test", "https://*.app.test/x", "https://app.test/path", "null", "", None, 1]
)
def test_an_allowed_origin_that_is_none_is_an_error_at_construction(entry: Any) -> None:
    with pytest.raises(ConfigurationError, match="websocket_allowed_origins"):
        Site(dash={"websocket_allowed_origins": [entry]})


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
HOSTS = st.sampled_from(["example.org", "EXAMPLE.org", "evil.test", "example.org.evil.test", "[::1]", "127.0.0.1"])
PORTS = st.sampled_from(["", ":80", ":443", ":8050", ":0", ":99999", ":x"])
ORIGINS = st.builds("{}://{}{}{}".format, st.sampled_from(["http", "https", "HTTP", "ws"]), HOSTS, PORTS, st.just(""))


@given(ANY_TEXT | ORIGINS, ANY_TEXT | st.sampled_from(["ws", "wss", "http", "https"]), ANY_TEXT | HOSTS)
@settings(max_examples=400)
def test_only_an_equal_scheme_host_and_port_pass_and_nothing_is_ever_raised(
    origin: str, scheme: str, host: str
) -> None:
    websocket = SimpleNamespace(headers=HeaderList(origin, host), scheme=scheme)
    if check_origin(websocket, NONE_ALLOWED) is None:  # type: ignore[arg-type]
        ports = {"http": 80, "https": 443}
        web = {"ws": "http", "wss": "https"}.get(scheme.lower(), scheme.lower())
        one, other = urlsplit(origin), urlsplit(f"{web}://{host}")
        assert one.scheme == web
        assert one.hostname == other.hostname
        assert (one.port or ports[web]) == (other.port or ports[web])
        assert one.username is None


class HeaderList:
    """Headers that hold anything at all, also what no parser would let through."""

    def __init__(self, origin: str, host: str) -> None:
        self._values = {"Origin": [origin], "Host": [host]}

    def getlist(self, name: str) -> list[str]:
        return self._values[name]


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.test", "https://localhost", "http://localhost:81", "\xff"]
)
async def test_a_foreign_origin_is_http_403_before_accept(origin: str | None, caplog: pytest.LogCaptureFixture) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie, origin=origin) as socket:
            assert await ending(socket) == 403
            assert not socket.accepted
    assert any(record.name == "dash_quart_ws.security" for record in caplog.records)
    assert not any(record.exc_info for record in caplog.records)


async def test_an_allowed_origin_of_the_dash_app_gets_in() -> None:
    async with Site(dash={"websocket_allowed_origins": ["https://portal.test"]}) as site:
        cookie = await site.login("alice")
        assert await site.refused_with(cookie, origin="https://portal.test") is None
        assert await site.refused_with(cookie, origin="http://portal.test") == 403


# --------------------------------------------------------------------------------------------------- session


async def test_without_a_session_a_bridge_is_told_4501_and_dashs_own_worker_4001() -> None:
    async with Site() as site:
        assert await site.refused_with() == 4501
        assert await site.refused_with(bridge=False) == 4001


@pytest.mark.parametrize(("how", "code"), [("logout", 4501), ("revoke", 4503), ("switch", 4501)])
async def test_an_ended_session_is_told_why_it_stays_out(how: str, code: int) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        match how:
            case "logout":
                await site.get("/logout", cookie)
            case "revoke":
                await site.backend.revoke(user="alice")
            case "switch":
                await site.login("bob", cookie)
        assert await site.refused_with(cookie) == code
        assert await site.refused_with(cookie, bridge=False) == 4001


async def test_a_refused_client_runs_nothing_and_is_nowhere_to_be_seen() -> None:
    async with Site() as site, site.websocket() as socket:
        await socket.send('{"type":"heartbeat"}')
        assert await ending(socket, unless="heartbeat_ack") == 4501
        assert site.backend.connections() == ()


async def test_only_our_own_browser_code_gets_in_where_that_is_required() -> None:
    async with Site(require_bridge=True) as site:
        cookie = await site.login("alice")
        assert await site.refused_with(cookie, bridge=False) == 403
        assert await site.refused_with(cookie) is None


async def test_nobody_gets_in_where_no_login_is_required() -> None:
    async with Site(login_required=False) as site:
        assert await site.refused_with() is None
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            assert await is_open(socket)
            await site.get("/logout", cookie)
            assert await ending(socket) == 4102


async def test_nobody_gets_in_where_there_is_nothing_to_log_in_to() -> None:
    async with Site(auth=None) as site:
        assert await site.refused_with() is None


async def test_a_session_of_another_extension_is_no_login() -> None:
    def both(server: Any) -> QuartAuth:
        singleton = QuartAuth(server)
        second_auth(server)
        return singleton

    async with Site(auth=both) as site:
        admin = (await site.get("/admin/login/root")).cookie
        assert await site.refused_with(admin) == 4501


# ----------------------------------------------------------------------------------------------------- hooks


@pytest.fixture
def connect_hook() -> Iterator[Callable[[Any], None]]:
    """Register a `websocket_connect` hook of Dash's, for one test."""
    before = {name: list(registered) for name, registered in hooks._ns.items()}
    yield lambda function: hooks.websocket_connect()(function)
    hooks._ns.clear()
    hooks._ns.update(before)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(None, None), (True, None), (False, 4001), ((4123, "later"), 4123), ((1000, "no"), 1000), ((4503, "out"), 4503)],
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_connect_hook_decides(
    connect_hook: Callable[[Any], None], answer: Any, code: int | None, kind: str
) -> None:
    def decide(websocket: Any) -> Any:
        assert websocket.path == SOCKET_PATH
        return answer

    async def decide_later(websocket: Any) -> Any:
        await asyncio.sleep(0)
        return decide(websocket)

    connect_hook(decide if kind == "sync" else decide_later)
    async with Site() as site:
        assert await site.refused_with(await site.login("alice")) == code


@pytest.mark.parametrize("code", [1005, 1006, 1015, 0, 999, 5000, -1, "4001", None, True])
async def test_a_hook_that_gives_a_code_which_may_not_be_sent_refuses_all_the_same(
    connect_hook: Callable[[Any], None], code: Any
) -> None:
    connect_hook(lambda _websocket: (code, "no"))
    async with Site() as site:
        assert await site.refused_with(await site.login("alice")) == 4001


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_hook_that_raises_refuses_and_its_traceback_is_in_the_log(
    connect_hook: Callable[[Any], None], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_websocket: Any) -> None:
        raise LookupError("the hook's own trouble")

    async def broken_later(websocket: Any) -> None:
        broken(websocket)

    connect_hook(broken if kind == "sync" else broken_later)
    async with Site() as site:
        assert await site.refused_with(await site.login("alice")) == 4001
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert logged.levelno == logging.ERROR
    assert logged.exc_text is None or "the hook's own trouble" in logged.exc_text


async def test_a_hook_that_never_answers_lets_nobody_in(connect_hook: Callable[[Any], None]) -> None:
    async def stuck(_websocket: Any) -> None:
        await asyncio.Event().wait()

    connect_hook(stuck)
    async with Site(handshake_timeout=0.05) as site:
        assert await site.refused_with(await site.login("alice")) == 503


async def test_a_foreign_origin_meets_no_hook(connect_hook: Callable[[Any], None]) -> None:
    met: list[Any] = []
    connect_hook(met.append)
    async with Site() as site:
        cookie = await site.login("alice")
        assert await site.refused_with(cookie, origin="http://evil.test") == 403
        assert met == []
        assert await site.refused_with(cookie) is None
        assert len(met) == 1


@pytest.mark.parametrize("how", ["logout", "revoke user", "revoke all"])
async def test_a_revocation_while_a_hook_is_awaited_is_not_missed(
    connect_hook: Callable[[Any], None], how: str
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_websocket: Any) -> None:
        reached.set()
        await go_on.wait()

    connect_hook(slow)
    async with Site() as site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            await reached.wait()
            match how:
                case "logout":
                    await site.get("/logout", cookie)
                case "revoke user":
                    await site.backend.revoke(user="alice")
                case "revoke all":
                    await site.backend.revoke(all=True)
            go_on.set()
            await socket.send('{"type":"heartbeat"}')
            assert await ending(socket, unless="heartbeat_ack") == (4501 if how == "logout" else 4503)
        assert site.backend.connections() == ()


async def test_a_revocation_between_the_check_and_the_accept_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        check = handshake.check_sessions

        def check_and_then(*arguments: Any) -> Any:
            verdict = check(*arguments)
            site.backend.revoke(user="alice")  # the hub does not know of this connection yet
            return verdict

        monkeypatch.setattr(handshake, "check_sessions", check_and_then)
        assert await site.refused_with(cookie) == 4503
