"""The command line, as operators run it: a process of its own, its output and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from dash_quart_ws.__main__ import table
from dash_quart_ws.brokers.base import SessionRecord, Target, TargetKind
from dash_quart_ws.brokers.messages import Closed, Push
from dash_quart_ws.check import Finding

from .brokers.crew import Crew, Member, outcome
from .brokers.redis_server import RedisServer
from .server import ROOT, await_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SECRET = "0f4e1d8c3b7a69587f6e5d4c3b2a19080f1e2d3c4b5a69788796a5b4c3d2e1f0"
CHECKED = "tests.apps.checked"


def run(*arguments: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dash_quart_ws", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DEMO_SECRET_KEY": SECRET, "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verdicts(output: str) -> dict[str, str]:
    """Name and verdict of each row of the table."""
    head, rule, *rows = output.partition("\n\n")[0].splitlines()
    start, end = head.index("safe"), head.index("ASVS")
    assert set(rule) == {"-", " "}
    return {row[:start].strip(): row[start:end].strip() for row in rows if row[:start].strip()}


def test_the_demo_on_plain_http_is_told_what_is_unsafe() -> None:
    done = run("check", "quart_app:server")
    assert done.returncode == 1, done.stderr
    found = verdicts(done.stdout)
    assert found["Secure cookie"] == "NO"
    assert found["Login"] == found["HttpOnly cookie"] == found["Debug mode"] == found["Secret key"] == "yes"
    assert found["TLS"] == "your job"
    assert SECRET[:6] not in done.stdout + done.stderr


def test_the_demo_behind_tls_has_a_good_cookie() -> None:
    done = run("check", "quart_app:app", "--json", DEMO_HTTPS="1")
    found = {one["name"]: one["ok"] for one in json.loads(done.stdout)}
    assert found["Secure cookie"] is found["Cookie name"] is True


def test_a_server_that_is_ready_for_production_ends_with_0() -> None:
    done = run("check", f"{CHECKED}:server")
    assert done.returncode == 0, done.stderr
    assert "NO" not in verdicts(done.stdout).values()
    assert "0 unsafe in production" in done.stdout


def test_json_says_the_same_as_the_table_and_nothing_beside() -> None:
    done = run("check", "--json", f"{CHECKED}:without_login")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    words = {True: "yes", False: "NO", None: "your job"}
    printed = run("check", f"{CHECKED}:without_login").stdout
    assert verdicts(printed) == {one["name"]: words[one["ok"]] for one in found}
    for one in found:
        assert set(one) == {"name", "ok", "asvs", "text"}
        assert ", ".join(one["asvs"]) in printed
    assert "said while it is imported" not in printed
    assert "said while it is imported" in done.stderr


@pytest.mark.parametrize(
    "target",
    [
        f"{CHECKED}:app",
        f"{CHECKED}:wrapped",
        f"{CHECKED}:create()",
        f"{CHECKED}:sites.inner.server",
        "tests/apps/checked.py:server",
        "tests/apps/checked:app.server",
    ],
)
def test_whatever_hypercorn_serves_can_be_checked(target: str) -> None:
    done = run("check", target)
    assert done.returncode == 0, done.stderr
    assert verdicts(done.stdout)["Login"] == "yes"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere_at_all:server", "there is no module 'nowhere_at_all'"),
        ("tests.nowhere:server", "there is no module 'tests.nowhere'"),
        (CHECKED, "give MODULE:SERVER"),
        (f"{CHECKED}:", "give MODULE:SERVER"),
        (":server", "give MODULE:SERVER"),
        (f"{CHECKED}:servre", "tests.apps.checked has no 'servre'"),
        (f"{CHECKED}:sites.outer.server", "SimpleNamespace has no 'outer'"),
        (f"{CHECKED}:text", "leads to a builtins.str, which is no Quart app"),
        (f"{CHECKED}:create", f"{CHECKED}:create() would call it"),
        (f"{CHECKED}:on_flask", "leads to a flask.app.Flask, which is no Quart app"),
        (f"{CHECKED}:unfinished", "init_app(...) makes it one"),
        (f"{CHECKED}:plain", "has no Dash app with backend=QuartBackend()"),
    ],
)
def test_each_wrong_target_gets_one_line_that_says_what_is_wrong_with_it(target: str, says: str) -> None:
    done = run("check", target)
    assert (done.returncode, done.stdout) == (2, "")
    message = done.stderr.removeprefix("said while it is imported\n")
    assert says in message
    assert len(message.splitlines()) == 1, message


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("1 / 0", "broken:server", "importing broken raised ZeroDivisionError"),
        ("server = (", "broken:server", "importing broken raised SyntaxError"),
        ("import sys; sys.exit('not today')", "broken:server", "importing broken raised SystemExit"),
        ("import nowhere_at_all", "broken:server", "broken imports 'nowhere_at_all', which is not installed here"),
        ("def make(): raise LookupError", "broken:make()", "make() raised LookupError"),
    ],
)
def test_a_module_that_fails_shows_its_own_traceback_first(source: str, target: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    done = run("check", target, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr.splitlines()[-1]
    assert "broken.py" in done.stderr


def test_checking_serves_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from dash import Dash, html\nfrom quart_auth import QuartAuth\nfrom dash_quart_ws import QuartBackend\n"
        "app = Dash(__name__, backend=QuartBackend())\napp.server.secret_key = 'dev'\nQuartAuth(app.server)\n"
        "set_up = False\n"
        "def layout():\n    assert not set_up\n    return html.Div()\n"  # Dash asks for it once when it is given
        "app.layout = layout\nset_up = True\n"
        "@app.server.before_serving\ndef started():\n    raise RuntimeError('somebody serves')\n"
    )
    done = run("check", "shop:app", folder=tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stderr) == (1, "")
    assert verdicts(done.stdout)["Secret key"] == "NO"
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


def test_without_a_command_it_says_how_it_is_used() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m dash_quart_ws" in done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(columns: int) -> None:
    printed = run("check", "quart_app:server", COLUMNS=str(columns)).stdout
    assert verdicts(printed)["Secure cookie"] == "NO"
    assert max(map(len, printed.splitlines())) <= columns


def test_the_table_keeps_every_word_of_a_text_that_it_wraps() -> None:
    text = " ".join(f"word-{number}" for number in range(40))
    found = [
        Finding("A check", ok=False, asvs=("1.2.3", "4.5.6"), text=text),
        Finding("B", ok=None, asvs=("7.8.9",), text="b"),
    ]
    printed = table(found, 90)
    column = printed.splitlines()[0].index("why")
    wrapped = [line[column:] for line in printed.splitlines()[2:-3]]
    assert " ".join(wrapped) == text
    assert "1 unsafe in production, 1 for you to decide" in printed


# -------------------------------------------------------------------------------------------- the running workers


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--requirepass", "secret")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(shared: RedisServer) -> str:
    with shared.look(password="secret") as client:
        client.flushall()
    return shared.url.replace("redis://", "redis://:secret@")


@pytest.fixture
async def crew(broker: str) -> AsyncIterator[Crew]:
    crew = Crew(broker)
    yield crew
    await crew.end()


async def operate(broker: str, *arguments: str, code: int = 0, **env: str) -> str:
    """What a command prints. The password is never in it."""
    done = await asyncio.to_thread(run, *arguments, DASH_QUART_WS_BROKER=broker, **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert (done.stderr == "") == (code < 2)
    return done.stderr if code == 2 else done.stdout


def cells(output: str) -> list[dict[str, str]]:
    """The rows of a table, by the names in its head."""
    head, rule, *rows = output.partition("\n\n")[0].splitlines()
    starts = [0, *(index + 2 for index, mark in enumerate(rule) if rule[index : index + 2] == "  ")]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    return [{head[a:b].strip(): row[a:b].strip() for a, b in spans} for row in rows]


def facts(user: str | None, session: str | None, since: float) -> dict[str, Any]:
    told: dict[str, Any] = {"user": user, "session": session, "remote": "192.0.2.1", "since": since, "path": "/ws"}
    return told | {"login": since, "expires": since + 60, "users": [user], "seen": 1}


def of_alice(id: str, last_seen: float, browser: str = "Firefox") -> SessionRecord:
    return SessionRecord(id, "alice", 0.0, time.time() + 60, last_seen, "192.0.2.1", browser, ("alice",))


async def test_every_connection_is_listed_with_the_worker_and_host_that_has_it(crew: Crew, broker: str) -> None:
    a, b = crew.join(), crew.join()
    a.broker.enter("c1", facts("alice", "s1", 0.0))
    b.broker.enter("c2", facts("\x1b[31mmallory\n", None, 60.0))
    for member in (a, b):
        await member.broker.position()
    printed = await operate(broker, "connections")
    assert printed.endswith("\n\n2 connections.\n")
    first, second = cells(printed)
    assert first == {
        "user": "alice", "session": "s1", "connection": "c1", "from": "192.0.2.1", "since, UTC": "1970-01-01 00:00:00",
        "worker": a.broker.worker.id, "host": a.broker.worker.host,
    }  # fmt: skip
    assert (second["user"], second["session"], second["worker"]) == ("[31mmallory", "-", b.broker.worker.id)
    one, two = json.loads(await operate(broker, "connections", "--json"))
    assert (one["id"], one["user"], one["session"], one["since"]) == ("c1", "alice", "s1", "1970-01-01T00:00:00+00:00")
    assert (two["worker"], two["pid"]) == (b.broker.worker.id, os.getpid())


async def test_the_sessions_of_a_user_or_of_everybody_are_listed(crew: Crew, broker: str) -> None:
    a = crew.join()
    for one in (of_alice("s1", 60.0), of_alice("s2", 120.0), SessionRecord.over("s3")):
        await outcome(a.broker.record(one))
    for whose in (("alice",), ("--all",)):
        printed = await operate(broker, "sessions", *whose)
        assert [(row["session"], row["last seen"]) for row in cells(printed)] == [
            ("s2", "1970-01-01 00:02:00"), ("s1", "1970-01-01 00:01:00"),
        ]  # fmt: skip
    assert "0 sessions." in await operate(broker, "sessions", "bob")
    first, _ = json.loads(await operate(broker, "sessions", "alice", "--json"))
    assert (first["id"], first["user"], first["remote"], first["user_agent"]) == ("s2", "alice", "192.0.2.1", "Firefox")


async def test_revoking_says_what_was_closed_and_who_has_confirmed(crew: Crew, broker: str) -> None:
    a, b = crew.join(), crew.join()
    for member in (a, b):
        member.ears.answer = Closed(2, 3.25).json()
    printed = await operate(broker, "revoke", "--user", "mallory", "--keep", "s1", "--keep", "s2", "--reason", "banned")
    assert printed == "Connections closed: 4, the slowest in 3.2 ms. Workers that have confirmed: 2.\n"
    assert a.ears.revocations["mallory"].keep == ("s1", "s2")
    receipt = json.loads(await operate(broker, "--broker", broker, "revoke", "--session", "s3", "--json"))
    assert receipt == {"closed": 4, "confirmed": 2, "missing": [], "slowest_ms": 3.25}
    await b.knows("s3")


async def test_a_worker_that_has_not_confirmed_is_named_and_the_exit_code_is_1(crew: Crew, broker: str) -> None:
    a = crew.join()  # its answer is none that can be read
    for command in (("revoke", "--all"), ("close", "--user", "alice")):
        printed = await operate(broker, *command, code=1)
        assert printed == f"NOT confirmed, so that it may not hold there yet: {a.broker.worker.id}\n"
        receipt = json.loads(await operate(broker, *command, "--json", code=1))
        assert receipt["missing"] == [a.broker.worker.id]


async def test_without_a_worker_a_revocation_is_stored_for_those_that_begin(crew: Crew, broker: str) -> None:
    assert "it holds for those that begin" in await operate(broker, "revoke", "--user", "mallory")
    assert "mallory" in crew.join().ears.revocations


async def test_connections_are_closed_wherever_they_are(crew: Crew, broker: str) -> None:
    a = crew.join()
    asked: list[Any] = []
    a.ears.requested = lambda question: asked.append(question) or Closed(1, 0.5).json()  # type: ignore[method-assign]
    printed = await operate(broker, "close", "--topic", "prices", "--reason", "maintenance", "--reconnect")
    assert "Connections closed: 1" in printed
    assert asked == [{"close": ["topic", "prices"], "code": 4100, "reason": "maintenance", "path": None}]


async def test_what_is_pushed_reaches_the_workers(crew: Crew, broker: str) -> None:
    a = await hearing(crew.join())
    await operate(broker, "push", "alerts", '{"children": "Back in five minutes"}', "--user", "alice")
    printed = await operate(broker, "push", '{"type": "x", "index": 1}', '{"n": 1}', "--user", "alice", "--json")
    assert json.loads(printed) == {"pushed": ["n"]}
    await await_for(lambda: len(a.ears.pushes) == 2)
    first, second = (json.loads(Push.of_text(text).payload) for _, text in a.ears.pushes)
    assert first == {"componentId": "alerts", "props": {"children": "Back in five minutes"}}
    assert second["componentId"] == '{"index":1,"type":"x"}'


async def hearing(member: Member) -> Member:
    await outcome(member.broker.subscribe(Target(TargetKind.USER, "alice")))
    return member


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("push", "alerts", "{", "--all"), "PROPS_JSON is no JSON"),
        (("push", "alerts", "[]", "--all"), "PROPS_JSON is no JSON object"),
        (("push", "{alerts", "{}", "--all"), "ID is no JSON"),
        (("--broker", "sqlite:////tmp/x", "connections"), "serves one process"),
        (("--broker", "redis://:secret@127.0.0.1:port", "connections"), "broker="),
        (("--broker", "redis://:se/secret@127.0.0.1", "connections"), "broker="),
        (("--broker", "redis://:secret@127.0.0.1:1", "connections"), "redis://127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line_without_the_password(
    broker: str, arguments: tuple[str, ...], says: str
) -> None:
    message = await operate(broker, *arguments, code=2)
    assert says in message
    assert len(message.splitlines()) == 1, message


async def test_without_a_broker_it_says_where_one_is_named() -> None:
    assert "set DASH_QUART_WS_BROKER" in await operate("", "connections", code=2)


async def test_the_workers_key_is_in_the_environment(crew: Crew, broker: str) -> None:
    await crew.join(key="theirs").stored("s")
    assert "broker_key" in await operate(broker, "revoke", "--user", "mallory", code=2)
    await operate(broker, "revoke", "--user", "mallory", code=1, DASH_QUART_WS_BROKER_KEY="theirs")


@pytest.mark.parametrize(
    "arguments",
    [("revoke",), ("revoke", "--user", "a", "--all"), ("push", "a", "{}"), ("sessions",), ("sessions", "a", "--all")],
)
def test_not_exactly_one_target_is_a_wrong_use(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr
