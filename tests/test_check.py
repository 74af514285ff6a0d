"""The check of a deployment: what it calls unsafe, what it leaves alone, and what it never says."""

from __future__ import annotations

import logging
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from dash import Dash, html
from quart import Quart
from quart_auth import QuartAuth

from dash_quart_ws import QuartBackend, check
from dash_quart_ws.check import Finding, PlainHttpWatch, findings, plain_http, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "5d41402abc4b2a76b9719d911017c592ae2f7b1c9d0e4f6a8b3c5d7e9f1a2b4c"
DAY = 24 * 3600
SAFE: dict[str, Any] = {"cookie_name": "__Host-session", "duration": 7 * DAY}


def make(
    auth: Mapping[str, Any] | None = SAFE, *, server: Quart | None = None, prefix: str = "/", **options: Any
) -> Dash:
    """A real app with a login, ready for production but for what the test changes."""
    options = {"idle_timeout": 1800, "absolute_timeout": DAY, "allowed_hosts": ["example.org"], **options}
    app = Dash(
        f"checked {prefix}",
        backend=QuartBackend(server=server, **options),
        assets_folder="no-assets",
        url_base_pathname=prefix,
    )
    app.layout = html.Div()
    app.server.secret_key = KEY
    if auth is not None:
        QuartAuth(app.server, **auth)
    return app


def look(app: Dash) -> dict[str, Finding]:
    found = findings(app.server, QuartBackend.of(app).options)
    for one in found:
        assert "\n" not in one.text
        assert one.asvs
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", id) for id in one.asvs)
    by_name = {one.name: one for one in found}
    assert len(by_name) == len(found)
    return by_name


def unsafe(app: Dash) -> set[str]:
    return {name for name, finding in look(app).items() if finding.ok is False}


def test_an_app_with_everything_set_has_nothing_unsafe_and_nothing_left_but_what_cannot_be_seen() -> None:
    found = look(make())
    assert {name: one.ok for name, one in found.items() if one.ok is not True} == {"TLS": None}
    assert len(found) >= 14


@pytest.mark.parametrize(
    ("changed", "name", "asvs", "says"),
    [
        ({"cookie_secure": False, "cookie_name": "session"}, "Secure cookie", "3.3.1", "cookie_secure=True"),
        ({"cookie_http_only": False}, "HttpOnly cookie", "3.3.4", "QUART_AUTH_COOKIE_HTTP_ONLY"),
        ({"cookie_samesite": "None"}, "SameSite cookie", "3.3.2", "cookie_samesite='Lax'"),
        ({"cookie_name": "session"}, "Cookie name", "3.3.3", "cookie_name='__Host-session'"),
        ({"cookie_name": "QUART_AUTH"}, "Cookie name", "3.3.3", "QUART_AUTH_COOKIE_NAME"),
    ],
)
def test_each_unsafe_setting_of_the_cookie_is_named_with_what_to_set(
    changed: dict[str, Any], name: str, asvs: str, says: str
) -> None:
    app = make({**SAFE, **changed})
    assert unsafe(app) == {name}
    assert asvs in look(app)[name].asvs
    assert says in look(app)[name].text


def test_the_servers_config_counts_as_the_argument_does() -> None:
    app = make(None)
    app.server.config.update(
        QUART_AUTH_COOKIE_SAMESITE=None, QUART_AUTH_COOKIE_NAME="__Host-session", QUART_AUTH_DURATION=DAY
    )
    QuartAuth(app.server)
    assert unsafe(app) == {"SameSite cookie"}
    # quart-auth reads its config once, when the QuartAuth is made: what is set later has no effect.
    app.server.config["QUART_AUTH_COOKIE_SAMESITE"] = "Lax"
    assert unsafe(app) == {"SameSite cookie"}


def test_strict_is_as_good_as_lax() -> None:
    assert unsafe(make({**SAFE, "cookie_samesite": "Strict"})) == set()


@pytest.mark.parametrize(
    ("cookie_name", "changed", "ok"),
    [
        ("__Host-session", {}, True),
        ("__Host-session", {"cookie_secure": False}, False),
        ("__Host-session", {"cookie_domain": "example.org"}, False),
        ("__Host-session", {"cookie_path": "/app"}, False),
        ("session", {}, False),
        ("session", {"cookie_secure": False}, None),
        ("session", {"cookie_domain": "example.org"}, False),
        ("session", {"cookie_path": "/app"}, False),
        ("__Secure-session", {}, False),
        ("__Secure-session", {"cookie_domain": "example.org"}, None),
        ("__Secure-session", {"cookie_path": "/app"}, None),
    ],
)
def test_a_cookies_name_has_the_strictest_prefix_that_browsers_take_with_its_attributes(
    cookie_name: str, changed: dict[str, Any], ok: bool | None
) -> None:
    assert look(make({**SAFE, "cookie_name": cookie_name, **changed}))["Cookie name"].ok is ok


@pytest.mark.parametrize(
    ("duration", "absolute_timeout", "ok"),
    [
        (30 * DAY, None, True),
        (30 * DAY + 1, None, False),
        (365 * DAY, None, False),
        (365 * DAY, 30 * DAY, True),
        (365 * DAY, 31 * DAY, False),
        (DAY, 365 * DAY, True),
    ],
)
def test_a_login_may_last_thirty_days_by_its_duration_or_by_the_absolute_timeout(
    duration: int, absolute_timeout: float | None, ok: bool
) -> None:
    app = make({**SAFE, "duration": duration}, absolute_timeout=absolute_timeout)
    assert look(app)["Length of a login"].ok is ok


def test_quart_auths_own_defaults_are_unsafe_in_their_duration_and_the_cookies_name() -> None:
    app = make({}, absolute_timeout=None)
    assert unsafe(app) == {"Length of a login", "Cookie name"}
    assert "365 days" in look(app)["Length of a login"].text


def test_a_duration_of_none_never_ends() -> None:
    app = make(None, absolute_timeout=None)
    app.server.config.update(QUART_AUTH_DURATION=None, QUART_AUTH_COOKIE_NAME="__Host-session")
    QuartAuth(app.server)
    assert unsafe(app) == {"Length of a login"}
    assert "never ends" in look(app)["Length of a login"].text


def test_hosts_that_are_not_listed_may_be_the_proxys_business() -> None:
    found = look(make(allowed_hosts=None))
    assert (found["Host names"].ok, found["Host names"].asvs) == (None, ("4.4.2",))


def test_timeouts_that_are_not_set_are_a_decision_and_no_warning() -> None:
    found = look(make(idle_timeout=None, absolute_timeout=None))
    assert (found["Idle timeout"].ok, found["Idle timeout"].asvs) == (None, ("7.3.1",))
    assert (found["Absolute timeout"].ok, found["Absolute timeout"].asvs) == (None, ("7.3.2",))
    found = look(make(idle_timeout=90, absolute_timeout=2 * 3600))
    assert "90 seconds" in found["Idle timeout"].text
    assert "2 hours" in found["Absolute timeout"].text


# --------------------------------------------------------------------------------------------------- the keys


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "secret",
        "dev",
        KEY[:31],
        b"x" * 31,
        "a" * 64,
        b"\0" * 64,
        "secret" * 10,
        "change me, change me, change me, 0123456789",
        "CHANGE_ME_before_you_go_to_production_2024",
        "my-super-secret-0123456789-qwertyuiop",
        b"this is the development key of the app 42",
        "django-insecure-x7k2m9q4w8e1r5t3y6u0i2o4p",
    ],
)
def test_a_key_that_is_missing_short_or_known_to_everybody_is_unsafe(key: str | bytes | None) -> None:
    app = make()
    app.server.secret_key = key
    assert unsafe(app) == {"Secret key"}
    assert look(app)["Secret key"].asvs == ("11.2.3",)
    assert "secrets.token_hex(32)" in look(app)["Secret key"].text


def test_no_random_key_is_ever_called_a_bad_one() -> None:
    app = make()
    draw = random.Random(20240607)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(500):
        for key in (
            draw.randbytes(32),
            draw.randbytes(32).hex(),
            draw.randbytes(16).hex(),
            "".join(draw.choices(alphabet, k=43)),
        ):
            app.server.secret_key = key
            assert next(check._keys(app.server, needed=True)).ok is True, key


@pytest.mark.parametrize(
    ("fallbacks", "ok"),
    [
        ([KEY[::-1]], True),
        ((KEY[::-1], KEY.upper().encode()), True),
        ([KEY[::-1], "old"], False),
        ([b"changeme" * 8], False),
        (KEY[::-1], False),  # quart-auth takes each character of a string for a key
    ],
)
def test_old_keys_are_held_to_the_same_because_they_still_sign_logins(fallbacks: Any, ok: bool) -> None:
    app = make()
    assert "Old secret keys" not in look(app)
    app.server.config["SECRET_KEY_FALLBACKS"] = fallbacks
    assert look(app)["Old secret keys"].ok is ok
    assert unsafe(app) == (set() if ok else {"Old secret keys"})


def test_a_string_of_fallbacks_is_unsafe_because_one_of_its_characters_forges_a_login() -> None:
    app = make()
    auth = app.server.extensions["QUART_AUTH"][0]
    forged = auth.serializer_class(KEY[0], auth.salt).dumps("mallory")
    app.server.config["SECRET_KEY_FALLBACKS"] = [KEY[::-1]]
    assert (auth.load_token(forged, app.server), unsafe(app)) == (None, set())
    app.server.config["SECRET_KEY_FALLBACKS"] = KEY[::-1]
    assert (auth.load_token(forged, app.server), unsafe(app)) == ("mallory", {"Old secret keys"})
    assert "make it a list" in look(app)["Old secret keys"].text


@pytest.mark.parametrize(
    "key", ["Zq9vKx7wQp2mRt5uY", "changeme-Zq9vKx7wQp2mRt5uYb8nLd4c", "Zq9vKx7wQp2mRt5uYb8nLd4cHf6jGs3a"]
)
def test_no_finding_and_no_line_holds_anything_of_a_key(key: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    app.server.secret_key = key
    app.server.config["SECRET_KEY_FALLBACKS"] = [key[::-1]]
    warn(app.server, QuartBackend.of(app).options)
    said = caplog.text + "".join(f"{one!r}" for one in look(app).values())
    for secret in (key, key[::-1]):
        assert not [secret[i : i + 4] for i in range(len(secret) - 3) if secret[i : i + 4] in said]
    assert str(len(key)) not in said.replace("32 bytes", "").replace("token_hex(32)", "")


def test_the_password_of_a_brokers_url_is_not_repeated() -> None:
    app = make(broker="memory:user:hunter2@host")
    assert "hunter2" not in repr(look(app))


# ------------------------------------------------------------------------------------------------- the server


def test_debug_mode_is_unsafe() -> None:
    app = make()
    app.server.debug = True
    assert unsafe(app) == {"Debug mode"}
    assert look(app)["Debug mode"].asvs == ("13.4.2", "16.5.1")


@pytest.mark.parametrize(
    "tools", [{"debug": True}, {"debug": False, "dev_tools_ui": True}, {"dev_tools_hot_reload": True}]
)
def test_dashs_dev_tools_are_debug_mode(tools: dict[str, Any]) -> None:
    app = make()
    app.enable_dev_tools(**{"debug": False, **tools})
    assert unsafe(app) == {"Debug mode"}
    app.enable_dev_tools(debug=False)
    assert unsafe(app) == set()


@pytest.mark.parametrize("setting", ["TESTING", "PROPAGATE_EXCEPTIONS"])
def test_settings_for_tests_are_unsafe(setting: str) -> None:
    app = make()
    app.server.config[setting] = True
    assert unsafe(app) == {"Test settings"}
    assert setting in look(app)["Test settings"].text


def test_a_server_without_a_login_is_unsafe_and_has_nothing_else_about_logins() -> None:
    app = make(None)
    assert unsafe(app) == {"Login"}
    assert {"Secure cookie", "Length of a login", "Idle timeout", "Ended stays ended"}.isdisjoint(look(app))
    app.server.secret_key = None
    assert unsafe(app) == {"Login"}


def test_login_required_false_is_unsafe() -> None:
    app = make(login_required=False)
    assert unsafe(app) == {"Login"}
    assert "login_required=False" in look(app)["Login"].text


def test_compression_is_unsafe() -> None:
    assert unsafe(make(compression=True)) == {"No compression"}


def test_revocations_in_memory_are_unsafe() -> None:
    assert unsafe(make(broker="memory:")) == {"Ended stays ended"}


def test_every_app_of_a_server_is_looked_at() -> None:
    server = Quart("two apps")
    one = make(server=server, prefix="/one/")
    make(None, server=server, prefix="/two/", login_required=False, compression=True)
    assert unsafe(one) == {"Login", "No compression"}
    assert "/two/" in look(one)["Login"].text
    assert "/one/" not in look(one)["Login"].text


def test_the_dev_tools_of_every_app_are_looked_at() -> None:
    server = Quart("two apps")
    one = make(server=server, prefix="/one/")
    make(None, server=server, prefix="/two/").enable_dev_tools(debug=True)
    assert unsafe(one) == {"Debug mode"}


def test_every_login_of_a_server_is_looked_at_and_named() -> None:
    app = make()
    QuartAuth(
        app.server, singleton=False, attribute_name="_api", cookie_name="API", salt="the salt of the API", duration=DAY
    )
    found = findings(app.server, QuartBackend.of(app).options)
    names = [one for one in found if one.name == "Cookie name"]
    assert [one.ok for one in names] == [True, False]
    assert names[0].text.startswith("cookie '__Host-session': ")
    assert names[1].text.startswith("cookie 'API': ")


def test_bearer_tokens_have_a_length_of_life_and_no_cookie() -> None:
    app = make({"mode": "bearer", "duration": 365 * DAY}, absolute_timeout=None)
    assert unsafe(app) == {"Length of a login"}
    assert not [name for name in look(app) if "ookie" in name]


def test_a_login_that_is_made_late_is_seen() -> None:
    app = make(None)
    assert unsafe(app) == {"Login"}
    QuartAuth(app.server, **SAFE)
    assert unsafe(app) == set()


def test_looking_does_not_set_the_app_up() -> None:
    app = make()
    asked: list[str] = []

    def layout() -> html.Div:
        asked.append("for the layout")
        return html.Div()

    app.layout = layout
    before = list(asked)  # Dash itself asks once when it is given
    assert unsafe(app) == set()
    assert asked == before
    assert not any(app._got_first_request.values())


# ----------------------------------------------------------------------------------------------------- at start


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(one.name, one.levelno) for one in caplog.records} <= {("dash_quart_ws", logging.WARNING)}
    return [one.getMessage() for one in caplog.records]


def test_at_start_each_unsafe_setting_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    app = make({**SAFE, "cookie_http_only": False}, compression=True, idle_timeout=None)
    warn(app.server, QuartBackend.of(app).options)
    found = look(app)
    assert lines(caplog) == [
        f"unsafe in production: {found['HttpOnly cookie'].text} (ASVS 3.3.4)",
        f"unsafe in production: {found['No compression'].text} (ASVS 15.2.2)",
    ]


def test_at_start_nothing_is_said_of_an_app_that_is_safe(caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    warn(app.server, QuartBackend.of(app).options)
    assert lines(caplog) == []


@pytest.mark.parametrize("how", ["server", "dash"])
def test_in_debug_mode_there_is_one_line_which_says_so(how: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make({}, compression=True)
    if how == "server":
        app.server.debug = True
    else:
        app.enable_dev_tools(debug=True)
    warn(app.server, QuartBackend.of(app).options)
    (line,) = lines(caplog)
    assert line.startswith("unsafe in production: debug mode is on")
    assert line.endswith("(ASVS 13.4.2, 16.5.1)")


# ------------------------------------------------------------------------------------------------- at a request


@pytest.mark.parametrize(
    ("scheme", "host", "plain"),
    [
        ("http", "example.org", True),
        ("ws", "example.org:8050", True),
        ("http", "10.0.0.5:8050", True),
        ("http", "[2001:db8::1]:8050", True),
        ("http", "localhost.example.org", True),
        ("http", "", True),
        ("http", None, True),
        ("http", "[broken", True),
        ("https", "example.org", False),
        ("wss", "example.org", False),
        ("http", "localhost:8050", False),
        ("http", "LOCALHOST.:8050", False),
        ("http", "app.localhost", False),
        ("http", "127.0.0.1:8050", False),
        ("http", "[::1]:8050", False),
    ],
)
def test_plain_http_is_a_name_that_is_not_loopback(scheme: str, host: str | None, plain: bool) -> None:
    assert plain_http(scheme, host) is plain


def test_tls_out_of_sight_is_said_once_at_the_first_request_that_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    watch = PlainHttpWatch()
    watch.see("https", "example.org")
    watch.see("http", "localhost:8050")
    assert lines(caplog) == []
    watch.see("http", "example.org")
    watch.see("ws", "example.org")
    (line,) = lines(caplog)
    assert line.startswith("unsafe in production: TLS ends nowhere in sight")
    assert "ProxyFixMiddleware" in line
    assert line.endswith("(ASVS 4.4.1, 12.2.1)")
