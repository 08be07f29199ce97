"""The two connections of the node's disk: who writes, who reads, and the statements.

Rule: the writer's work runs on aiosqlite's thread, a whole piece at a time; the reader's
on the caller's thread, a statement at a time, each closed before it returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiosqlite

from p2pmed.errors import StorageError
from p2pmed.storage.memory import Batch, Row
from p2pmed.storage.schema import checksum, harden, storage_error, table_of
from p2pmed.world import Space

__all__ = ["Reader", "Writer", "on_thread", "open_reader", "open_writer", "write_batch"]

_UPSERT: Final = {
    table: f"INSERT INTO {table} (space, key, value, sum) VALUES (?, ?, ?, ?)"  # noqa: S608
    " ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, sum = excluded.sum"
    for table in ("kv", "bulk")
}
_DELETE: Final = {
    table: f"DELETE FROM {table} WHERE space = ? AND key = ?"  # noqa: S608 (our constants)
    for table in ("kv", "bulk")
}
_GET: Final = {
    space: f"SELECT value, sum FROM {table_of(space)}"  # noqa: S608
    f" WHERE space = {int(space)} AND key = ?"
    for space in Space
}
_SCAN: Final = {
    (space, reverse): f"SELECT key, value, sum FROM {table_of(space)}"  # noqa: S608
    f" WHERE space = {int(space)} AND key >= ? AND key < ?"
    f" ORDER BY key {'DESC' if reverse else 'ASC'} LIMIT ?"
    for space in Space
    for reverse in (False, True)
}


class Writer(sqlite3.Connection):
    """A connection whose ``commit`` does a whole piece of work: one call on its thread."""

    work: Callable[[Writer], None] | None = None
    """Handed over by the loop's thread before ``commit``, taken by this one."""

    def commit(self) -> None:
        """Do ``work``."""
        work, self.work = self.work, None
        if work is not None:
            work(self)


def write_batch(batch: Batch, connection: sqlite3.Connection) -> None:
    """Write ``batch`` as one flushed transaction, or leave nothing of it behind."""
    upserts: dict[str, list[tuple[int, bytes, bytes, int]]] = {"kv": [], "bulk": []}
    deletes: dict[str, list[tuple[int, bytes]]] = {"kv": [], "bulk": []}
    for space, key, value in batch.ordered():
        if value is None:
            deletes[table_of(space)].append((int(space), key))
        else:
            row = (int(space), key, value, checksum(space, key, value))
            upserts[table_of(space)].append(row)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table, rows in upserts.items():
            if rows:
                connection.executemany(_UPSERT[table], rows)
        for table, keys in deletes.items():
            if keys:
                connection.executemany(_DELETE[table], keys)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the first error is the one that matters
                connection.execute("ROLLBACK")
        raise


class Reader:
    """Committed rows over the read-only connection; every row's checksum is checked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The value, or ``None``. Raises ``StorageError``."""
        try:
            row = self._connection.execute(_GET[space], (key,)).fetchone()
        except sqlite3.Error as error:
            raise storage_error(error, "reading") from error
        if row is None:
            return None
        value: bytes = row[0]
        if checksum(space, key, value) != row[1]:
            raise _rotten(space)
        return value

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """At most ``limit`` rows in key order. Raises ``StorageError``."""
        try:
            rows = self._connection.execute(_SCAN[space, reverse], (start, end, limit)).fetchall()
        except sqlite3.Error as error:
            raise storage_error(error, "reading") from error
        for key, value, expected in rows:
            if checksum(space, key, value) != expected:
                raise _rotten(space)
        return [(key, value) for key, value, _ in rows]


async def open_writer(path: Path) -> tuple[aiosqlite.Connection, Writer]:
    """aiosqlite leaves its thread to itself when connecting fails, which may outlive the
    loop; so connecting never fails there, and what went wrong is raised here.
    """
    made: list[Writer] = []
    faults: list[sqlite3.Error] = []

    def factory(*args: Any, **kwargs: Any) -> Writer:
        try:
            made.append(Writer(*args, **kwargs))
        except sqlite3.Error as error:
            faults.append(error)
            made.append(Writer(":memory:"))
        return made[0]

    writer = await aiosqlite.connect(path, isolation_level=None, factory=factory)
    if faults:
        await writer.close()
        raise faults[0]
    return writer, made[0]


async def on_thread(
    writer: aiosqlite.Connection, raw: Writer, work: Callable[[Writer], None]
) -> None:
    """Do ``work`` on the writer's thread. One caller at a time."""
    raw.work = work
    await writer.commit()


def open_reader(path: Path) -> sqlite3.Connection:
    """A hardened read-only connection of its own. Raises ``sqlite3.Error``."""
    reader = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        harden(reader, writer=False, checkpoint_pages=0)
    except BaseException:
        reader.close()
        raise
    return reader


def _rotten(space: Space) -> StorageError:
    return StorageError(
        f"a row of {space.name} is rotten: its checksum does not match",
        hint="fetch it from a peer, or restore a backup",
    )
