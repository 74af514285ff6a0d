"""The SQLite file: where it lies, who may read it, and what happens when it cannot be used."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.brokers.embedded import EmbeddedBroker
from dash_quart_ws.exceptions import BrokerError

from .contract import revocation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "store.sqlite3"


@pytest.fixture
def broker(path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(path)
    broker.load()
    yield broker
    broker.close()


def test_only_the_owner_may_read_the_file_and_its_folder(broker: EmbeddedBroker, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_survives_a_process_that_is_killed(broker: EmbeddedBroker, path: Path) -> None:
    broker.append(revocation("confirmed")).result(10)
    # Another process's view, while the first has closed nothing.
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT subject FROM revocation").fetchall() == [("confirmed",)]
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


def test_a_write_that_fails_fails_its_future_and_the_next_one_is_tried(broker: EmbeddedBroker, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE revocation RENAME TO elsewhere")
    with pytest.raises(BrokerError):
        broker.append(revocation("lost")).result(10)
    with other:
        other.execute("ALTER TABLE elsewhere RENAME TO revocation")
    other.close()
    assert broker.append(revocation("kept")).result(10) is None


@pytest.mark.parametrize("what", ["a file is in the way", "not a database", "a folder"])
def test_a_file_that_cannot_be_used_is_said_once_and_memory_takes_its_place(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.sqlite3"
    match what:
        case "a file is in the way":
            path.write_text("in the way")
            path /= "store.sqlite3"
        case "not a database":
            path.write_text("this is no SQLite database at all, but long enough to look like one" * 20)
        case "a folder":
            path.mkdir()
    broker = EmbeddedBroker(path)
    assert broker.load() == []
    assert broker.append(revocation("only here")).result(10) is None
    assert broker.next_position() > 0
    broker.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


def test_a_url_names_an_absolute_file_or_memory_and_the_default_is_in_the_instance_folder(tmp_path: Path) -> None:
    for url, file in (
        (None, tmp_path / "dash-quart-ws.sqlite3"),
        (f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"),
        ("sqlite:///var/lib/a.db", Path("/var/lib/a.db")),
        ("memory:", None),
    ):
        assert EmbeddedBroker.from_url(url, tmp_path)._path == file
