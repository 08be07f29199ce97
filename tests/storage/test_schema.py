"""The database's version: made, migrated, refused; and SQLite's errors in plain words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2pmed.errors import DiskFull, StorageError
from p2pmed.storage.schema import (
    SCHEMA_VERSION,
    checksum,
    harden,
    migrate,
    prepare,
    storage_error,
    table_of,
)
from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space

META = int(Space.META)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "node.db", isolation_level=None)) as connection:
        yield connection


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def make_version_zero(connection: sqlite3.Connection) -> None:
    """An invented older format: ours without checksums."""
    connection.execute("PRAGMA application_id = 0x70326D64")
    connection.execute("CREATE TABLE kv (space, key, value, PRIMARY KEY (space, key))")
    connection.execute("INSERT INTO kv VALUES (?, ?, ?)", (META, b"name", b"old value"))


def add_checksums(connection: sqlite3.Connection) -> None:
    """The invented migration from 0 to 1."""
    connection.execute("ALTER TABLE kv ADD COLUMN sum INTEGER NOT NULL DEFAULT 0")
    rows = connection.execute("SELECT space, key, value FROM kv").fetchall()
    sums = [(checksum(Space(s), k, v), s, k) for s, k, v in rows]
    connection.executemany("UPDATE kv SET sum = ? WHERE space = ? AND key = ?", sums)


def test_a_new_database_is_stamped(connection: sqlite3.Connection) -> None:
    """Header and META row both carry the version; a second run finds nothing to do."""
    assert migrate(connection) == -1
    assert version(connection) == SCHEMA_VERSION
    query = "SELECT value FROM kv WHERE space = ? AND key = ?"
    stored = connection.execute(query, (META, b"storage.schema")).fetchone()[0]
    assert stored == SCHEMA_VERSION.to_bytes(4, "big")
    assert migrate(connection) == SCHEMA_VERSION


def test_migrates_from_an_older_version(connection: sqlite3.Connection) -> None:
    """Each step from the version found to the target runs once, in order, rows kept."""
    make_version_zero(connection)
    steps: list[int] = []

    def first(connection: sqlite3.Connection) -> None:
        steps.append(0)
        add_checksums(connection)

    migrations = {0: first, 1: lambda _: steps.append(1)}
    assert migrate(connection, target=2, migrations=migrations) == 0
    assert steps == [0, 1]
    assert version(connection) == 2
    rows = connection.execute("SELECT value, sum FROM kv WHERE key = ?", (b"name",)).fetchall()
    assert rows == [(b"old value", checksum(Space.META, b"name", b"old value"))]
    assert migrate(connection, target=2, migrations=migrations) == 2
    assert steps == [0, 1]


def test_a_migration_that_fails_changes_nothing(connection: sqlite3.Connection) -> None:
    """All steps are one transaction: a fault in the last undoes the first."""
    make_version_zero(connection)

    def fails(_: sqlite3.Connection) -> None:
        raise StorageError("stopped")

    with pytest.raises(StorageError, match="stopped"):
        migrate(connection, target=2, migrations={0: add_checksums, 1: fails})
    assert version(connection) == 0
    columns = [row[1] for row in connection.execute("PRAGMA table_info(kv)")]
    assert columns == ["space", "key", "value"]


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A file from a newer program is named as such, with what to do, and left as it was."""
    path = tmp_path / "node.db"
    async with open_disk(path, create=True):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="has schema 2, this program knows 1") as caught:
        async with open_disk(path, create=False):
            pass
    assert "newer program" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE theirs (a)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"],
)
def test_another_programs_database_is_refused(tmp_path: Path, statement: str) -> None:
    """Tables, a version or a mark that is not ours: refused before a setting is changed."""
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    before = path.read_bytes()
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        pytest.raises(StorageError, match="another program"),
    ):
        prepare(connection, checkpoint_pages=1_000, check=True)
    assert path.read_bytes() == before


def test_a_setting_that_does_not_hold_is_an_error() -> None:
    """In memory there is no WAL: the read-back says so instead of going on."""
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as connection,
        pytest.raises(StorageError, match="journal_mode"),
    ):
        harden(connection, writer=True, checkpoint_pages=1_000)


def test_checksums_tell_rows_apart() -> None:
    """The checksum depends on space, key and value."""
    sums = {
        checksum(space, key, value)
        for space in (Space.META, Space.STATE)
        for key in (b"a", b"b")
        for value in (b"", b"a", b"b")
    }
    assert len(sums) == 12
    assert checksum(Space.META, b"lane", b"value") == 0xF81D400


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("SQLITE_FULL", DiskFull, "the disk is full"),
        ("SQLITE_IOERR_SHMSIZE", DiskFull, "the disk is full"),
        ("SQLITE_IOERR_FSYNC", StorageError, "read or write error"),
        ("SQLITE_READONLY_DBMOVED", StorageError, "cannot be written"),
        ("SQLITE_CORRUPT", StorageError, "damaged"),
        ("SQLITE_MISUSE", StorageError, "SQLite failed"),
    ],
)
def test_errors_in_plain_words(name: str, kind: type[StorageError], words: str) -> None:
    """Each error of SQLite is one sentence, its own text (which may quote data) left out."""
    error = sqlite3.OperationalError("near 'patient Wang'")
    error.sqlite_errorname = name
    ours = storage_error(error, "committing")
    assert type(ours) is kind
    assert words in str(ours)
    assert "Wang" not in str(ours)


def test_every_space_has_a_table() -> None:
    """Long values apart from short ones."""
    assert {table_of(space) for space in Space} == {"kv", "bulk"}
    assert table_of(Space.ENTRY) == "bulk"
