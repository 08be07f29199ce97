"""The writer's transaction and the reader's statements, without the disk around them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2pmed.errors import StorageError
from p2pmed.storage.connections import (
    Reader,
    Writer,
    on_thread,
    open_reader,
    open_writer,
    write_batch,
)
from p2pmed.storage.memory import Batch
from p2pmed.storage.schema import migrate
from p2pmed.world import Space


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


def test_a_batch_is_written_whole_or_not_at_all(connection: sqlite3.Connection) -> None:
    """A row that SQLite refuses takes the rows before it along, and no transaction stays open."""
    write_batch(Batch(1, {Space.META: {b"a": b"1"}}, 2), connection)
    refused = {Space.META: {b"a": b"2", b"b": b"2"}, Space.ENTRY: {b"c": b"x" * 100}}
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 60)
    with pytest.raises(sqlite3.Error):
        write_batch(Batch(2, refused, 105), connection)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10**9)
    assert not connection.in_transaction
    reader = Reader(connection)
    assert reader.scan(Space.META, b"", b"c", limit=9) == [(b"a", b"1")]
    assert reader.get(Space.ENTRY, b"c") is None


def test_deletes_and_upserts_of_both_tables(connection: sqlite3.Connection) -> None:
    """One batch may set, replace and delete in both tables; what is not there is no fault."""
    for space in (Space.ENTRY, Space.STATE):
        write_batch(Batch(1, {space: {b"a": b"1", b"b": b"1"}}, 0), connection)
        rows = {b"a": None, b"b": b"2", b"c": b"3", b"nothing": None}
        write_batch(Batch(2, {space: rows}, 0), connection)
        assert Reader(connection).scan(space, b"", b"z", limit=9) == [(b"b", b"2"), (b"c", b"3")]


def test_a_row_moved_to_another_key_is_rotten(connection: sqlite3.Connection) -> None:
    """The checksum covers key and space: a value under the wrong key is not believed."""
    write_batch(Batch(1, {Space.PEER: {b"a": b"1"}}, 2), connection)
    connection.execute("UPDATE kv SET key = ? WHERE key = ?", (b"b", b"a"))
    with pytest.raises(StorageError, match="a row of PEER is rotten"):
        Reader(connection).get(Space.PEER, b"b")


def test_a_failing_read_is_a_storage_error(connection: sqlite3.Connection) -> None:
    """SQLite's own error becomes ours, for a point read and a scan."""
    connection.execute("DROP TABLE kv")
    with pytest.raises(StorageError, match="while reading"):
        Reader(connection).get(Space.META, b"a")
    with pytest.raises(StorageError, match="while reading"):
        Reader(connection).scan(Space.META, b"", b"z", limit=1)


async def test_work_runs_on_the_writers_thread(tmp_path: Path) -> None:
    """What is handed over runs once, elsewhere; its error comes back; then nothing is left."""
    writer, raw = await open_writer(tmp_path / "node.db")
    try:
        seen: list[int] = []
        await on_thread(writer, raw, lambda _: seen.append(threading.get_ident()))
        assert len(seen) == 1
        assert seen != [threading.get_ident()]

        def fails(_: Writer) -> None:
            raise sqlite3.OperationalError("no")

        with pytest.raises(sqlite3.OperationalError):
            await on_thread(writer, raw, fails)
        await writer.commit()
        assert len(seen) == 1
    finally:
        await writer.close()


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """A folder in the file's place fails at once, for either connection, leaving no thread."""
    with pytest.raises(sqlite3.OperationalError):
        await open_writer(tmp_path)
    with pytest.raises(sqlite3.OperationalError):
        open_reader(tmp_path)
