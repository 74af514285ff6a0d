"""The SQLite file: where it lies, who may read it, and what happens when it cannot be used."""

from __future__ import annotations

import gc
import logging
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws.brokers import embedded, lock
from dash_quart_ws.brokers.embedded import EmbeddedBroker
from dash_quart_ws.exceptions import BrokerError

from ..server import wait_for
from .contract import record, revocation
from .test_lock import holding, is_free

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


def test_a_lock_beside_the_file_is_had_from_its_loading_to_its_closing_and_again(
    broker: EmbeddedBroker, path: Path
) -> None:
    lock = path.with_name("store.sqlite3.lock")
    assert not is_free(lock)
    broker.close()
    assert is_free(lock)
    broker.load()
    assert not is_free(lock)


def test_a_broker_that_nobody_closes_gives_the_lock_back_when_it_is_collected(path: Path) -> None:
    broker = EmbeddedBroker(path)
    broker.load()
    del broker
    gc.collect()
    wait_for(lambda: is_free(path.with_name("store.sqlite3.lock")), 30, "it to be given back")


def test_another_process_with_the_same_file_is_an_error_in_the_log_that_says_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    monkeypatch.setattr(lock, "TRY_EVERY", 0.05)
    path.parent.mkdir()
    with holding(path.with_name("store.sqlite3.lock")) as other:
        broker = EmbeddedBroker(path)
        broker.load()
        wait_for(lambda: caplog.records, 30, "the error")
        broker.append(revocation("all the same")).stored.result(10)
        broker.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    for part in (f"process {other.pid} ", str(path), "QuartBackend(broker='redis://", "broker='sqlite:///"):
        assert part in caplog.text


def test_where_no_lock_can_be_had_the_file_is_used_all_the_same(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.with_name("store.sqlite3.lock").mkdir(parents=True)
    broker = EmbeddedBroker(path)
    broker.load()
    broker.append(revocation("stored")).stored.result(10)
    broker.close()
    assert [one.subject for one in broker.load()] == ["stored"]
    broker.close()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_the_file_survives_a_process_that_is_killed(broker: EmbeddedBroker, path: Path) -> None:
    broker.append(revocation("confirmed")).stored.result(10)
    # Another process's view, while the first has closed nothing.
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT subject FROM revocation").fetchall() == [("confirmed",)]
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


def test_a_write_that_fails_fails_its_future_and_the_next_one_is_tried(broker: EmbeddedBroker, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE revocation RENAME TO elsewhere")
    with pytest.raises(BrokerError):
        broker.append(revocation("lost")).stored.result(10)
    with other:
        other.execute("ALTER TABLE elsewhere RENAME TO revocation")
    other.close()
    assert broker.append(revocation("kept")).stored.result(10) == revocation("kept")


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
    assert broker.append(revocation("only here")).stored.result(10) == revocation("only here")
    assert broker.next_position() > 0
    broker.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


def test_a_file_of_an_older_version_is_upgraded_by_opening_it(path: Path) -> None:
    older = EmbeddedBroker(path)
    older.load()
    older.append(revocation("before")).stored.result(10)
    older.close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DROP TABLE session")
    upgraded = EmbeddedBroker(path)
    try:
        assert [one.subject for one in upgraded.load()] == ["before"]
        assert upgraded.records() == []
        assert upgraded.record(record("new")).result(10) is None
        assert upgraded.records() == [record("new")]
    finally:
        upgraded.close()


def test_expired_rows_leave_the_file_when_it_is_opened_and_when_something_is_written(path: Path) -> None:
    def rows() -> list[str]:
        with closing(sqlite3.connect(path)) as reader:
            return [id for (id,) in reader.execute("SELECT id FROM session ORDER BY id")]

    def put_an_expired_one() -> None:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO session VALUES ('expired', 1.0, '{}')")

    broker = EmbeddedBroker(path)
    broker.load()
    put_an_expired_one()
    broker.record(record("valid")).result(10)
    assert rows() == ["valid"]
    broker.close()
    put_an_expired_one()
    broker.load()
    assert rows() == ["valid"]
    broker.close()


def test_records_that_cannot_be_read_are_passed_over_and_said_once(
    broker: EmbeddedBroker, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.record(record("good")).result(10)
    with closing(sqlite3.connect(path)) as other, other:
        for number, text in enumerate(("no JSON", "{}", "[]", "null", '{"id": "x", "users": 5, "since": "soon"}')):
            other.execute("INSERT INTO session VALUES (?, 1e12, ?)", (f"bad {number}", text))
    assert broker.records() == [record("good")]
    assert len(caplog.records) == 1


def test_records_that_cannot_be_stored_are_said_once_for_each_time_that_the_store_fails(
    broker: EmbeddedBroker, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for outage in (1, 2):
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("ALTER TABLE session RENAME TO elsewhere")
        for _ in range(5):
            with pytest.raises(BrokerError):
                broker.record(record("lost")).result(10)
        assert broker.append(revocation("not affected")).stored.result(10) == revocation("not affected")
        assert len(caplog.records) == outage
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("ALTER TABLE elsewhere RENAME TO session")
        assert broker.record(record("kept")).result(10) is None


def test_a_revocation_does_not_wait_for_all_the_records_that_came_before_it(broker: EmbeddedBroker, path: Path) -> None:
    done: list[str] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nothing can be written until all of it waits
        pages = []
        for number in range(20 * embedded.PAGE):
            page = broker.record(record(f"s{number}"))
            if page not in pages:
                pages.append(page)
                page.add_done_callback(lambda _: done.append("page"))
        stored = broker.append(revocation("banned")).stored
        stored.add_done_callback(lambda _: done.append("revocation"))
        other.execute("ROLLBACK")
    assert stored.result(30) == revocation("banned")
    assert [page.result(30) for page in pages] == [None] * len(pages)
    broker.records()
    assert len(pages) >= 20
    assert done.index("revocation") <= 2


def test_a_url_names_an_absolute_file_or_memory_and_the_default_is_in_the_instance_folder(tmp_path: Path) -> None:
    for url, file in (
        (None, tmp_path / "dash-quart-ws.sqlite3"),
        (f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"),
        ("sqlite:///var/lib/a.db", Path("/var/lib/a.db")),
        ("memory:", None),
    ):
        assert EmbeddedBroker.from_url(url, tmp_path)._path == file


async def test_what_is_kept_for_a_moment_is_bounded_and_room_is_made_by_what_is_taken_or_expires(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "KEPT", 3)
    monkeypatch.setattr(embedded, "KEPT_CHARACTERS", 20)
    for name in ("a", "b", "c"):
        broker.keep(name, "text", 30).result(10)
    with pytest.raises(BrokerError, match="too much"):
        broker.keep("d", "text", 30).result(10)
    assert await broker.take("a") == "text"
    with pytest.raises(BrokerError, match="too much"):
        broker.keep("d", "a text of more characters", 30).result(10)
    broker.keep("d", "text", 0).result(10)
    broker.keep("e", "text", 30).result(10)  # the one before is over
    assert [await broker.take(name) for name in "bcde"] == ["text", "text", None, "text"]


async def test_what_is_kept_for_a_moment_does_not_survive_a_restart(broker: EmbeddedBroker) -> None:
    broker.keep("name", "text", 30).result(10)
    broker.close()
    broker.load()
    assert await broker.take("name") is None
