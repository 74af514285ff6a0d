"""Options: what is wrong is said when it is given, with what to do about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dash_quart_ws import Config, ConfigurationError, QuartBackend
from dash_quart_ws.config import BROKER_VARIABLE

LIMITS = (
    "inbound_bytes", "messages_per_second", "messages_burst", "callbacks_per_connection",
    "callback_bytes_per_connection", "callbacks", "callback_bytes", "queued_callbacks", "queued_callbacks_per_user",
    "jobs_per_user", "connections", "connections_per_session", "connections_per_user", "uploads",
)  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("login_required", "yes"),
        ("login_required", None),
        ("login_required", 1),
        ("login_required", 0),
        ("login_url", "login"),
        ("login_url", ""),
        ("login_url", "//evil.test"),
        ("login_url", "/\\evil.test"),
        ("login_url", "https://evil.test"),
        ("login_url", None),
        ("broker", "amqp://localhost"),
        ("broker", "redis"),
        ("broker_key", ""),
        ("broker_key", 7),
        ("lease", 0),
        ("lease", 0.4),
        ("on_broker_loss", "ignore"),
        ("on_broker_loss", None),
        ("broker", ""),
        ("broker", "/var/lib/store"),
        ("broker", 7),
        ("idle_timeout", 0),
        ("idle_timeout", -1),
        ("idle_timeout", "60"),
        ("idle_timeout", True),
        ("absolute_timeout", 0),
        ("broker_timeout", None),
        ("handshake_timeout", 0),
        ("handshake_timeout", float("nan")),
        ("close_timeout", 0),
        ("close_timeout", float("inf")),
        ("cancel_timeout", -0.1),
        ("callback_threads", 0),
        ("callback_threads", 1.5),
        ("callback_threads", True),
        ("callback_threads_per_user", 0),
        ("outbound_bytes", 0),
        ("outbound_bytes", "8 MB"),
        ("outbound_messages", 0),
        ("renderers_per_connection", 0),
        ("message_bytes", 0),
        ("message_bytes", None),
        *((name, value) for name in LIMITS for value in (0, -1, 1.5, True, None, "many")),
        ("upload_bytes", -1),
        ("upload_bytes", 1e9),
        ("bridge", None),
        ("bridge", "yes"),
        ("connection_status", 0),
        ("require_bridge", 1),
        ("compression", "no"),
    ],
)
def test_a_value_that_cannot_work_is_an_error_that_names_its_option(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        QuartBackend(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("login_required", "auto"),
        ("login_required", True),
        ("login_required", False),
        ("login_url", "/sign/in?x=y"),
        ("broker", "memory:"),
        ("broker", "sqlite:////var/lib/store.db"),
        ("idle_timeout", 0.5),
        ("absolute_timeout", 3600),
        ("callback_threads", 1),
        ("compression", True),
        ("bridge", False),
        ("connection_status", False),
        ("message_bytes", 1),
        ("inbound_bytes", 4 * 1024 * 1024),
        *((name, 1) for name in LIMITS if name != "inbound_bytes"),
        ("upload_bytes", 1024**4),
    ],
)
def test_a_value_that_works_is_taken(option: str, value: Any) -> None:
    assert getattr(QuartBackend(**{option: value}).options, option) == value


def test_an_unknown_option_suggests_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match="'login_url'"):
        QuartBackend(login_uri="/login")
    with pytest.raises(ConfigurationError, match=r"known options: .*idle_timeout"):
        QuartBackend(zzz=1)


def test_one_user_cannot_have_more_threads_than_there_are() -> None:
    with pytest.raises(ConfigurationError, match="callback_threads_per_user"):
        QuartBackend(callback_threads=2, callback_threads_per_user=3)


@pytest.mark.parametrize(
    "options",
    [{"inbound_bytes": 4 * 1024 * 1024 - 1}, {"message_bytes": 9_000_000}],
    ids=["answers to get_prop", "callbacks"],
)
def test_what_the_browser_may_send_is_not_too_large_for_the_server(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"inbound_bytes=.* is less than the browser sends"):
        QuartBackend(**options)
    assert QuartBackend(bridge=False, **options)


def test_whoever_is_refused_cannot_be_who_the_browser_is_given() -> None:
    with pytest.raises(ConfigurationError, match="require_bridge"):
        QuartBackend(bridge=False, require_bridge=True)


def test_a_password_in_a_brokers_url_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as raised:
        QuartBackend(broker="amqp://user:hunter2@host:6379/0")
    assert "hunter2" not in str(raised.value)
    assert "host:6379" in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["amqp://:hunt?er2@host", "amqp://:hunt/er2@host/0", "amqp://host?password=hunt@er2", "amqp://:hunt@er2@host"],
)
def test_of_a_brokers_url_that_cannot_be_read_nothing_is_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        QuartBackend(broker=url)
    assert "hunt" not in str(raised.value)
    assert "er2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://user:hunter2@host:6379/3?prefix=mine&ssl_ca_certs=/etc/ca.pem",
        "valkey://host",
        "valkeys://host",
        "redis+unix:///run/redis.sock?db=1",
    ],
)
def test_a_shared_broker_is_an_option_and_what_is_secret_is_not_shown(url: str) -> None:
    config = Config.of(broker=url, broker_key="a key", lease=2, on_broker_loss="continue")
    assert config.is_shared
    assert not any(secret in repr(config) for secret in ("hunter2", "a key"))


def test_a_shared_broker_without_redis_py_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not Config.of(broker="memory:").is_shared
    with pytest.raises(ConfigurationError, match=r"pip install 'dash-quart-ws\[redis\]'") as raised:
        Config.of(broker="redis://user:hunter2@host")
    assert "hunter2" not in str(raised.value)


def test_the_environment_names_the_broker_when_the_option_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKER_VARIABLE, "memory:")
    assert Config.of().broker == "memory:"
    assert Config.of(broker=None).broker == "memory:"
    assert Config.of(broker="sqlite:////tmp/x").broker == "sqlite:////tmp/x"
    monkeypatch.setenv(BROKER_VARIABLE, "")
    assert Config.of().broker is None
    monkeypatch.setenv(BROKER_VARIABLE, "amqp://x")
    with pytest.raises(ConfigurationError, match="broker"):
        Config.of()


def test_options_do_not_change_once_they_are_given() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().login_url = "/elsewhere"  # type: ignore[misc]


def test_the_defaults_are_options_that_could_be_given() -> None:
    defaults = dataclasses.asdict(Config())
    assert Config(**defaults) == Config()
