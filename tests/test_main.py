"""The command line, as operators run it: a process of its own, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.__main__ import table
from dash_quart_ws.check import Finding

from .server import ROOT

if TYPE_CHECKING:
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
