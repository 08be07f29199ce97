"""The database file: its tables, its version, how a connection is set up, what errors mean.

Rule: a connection is not used before ``harden`` has read back every setting that safety
rests on; a file that is not ours, or is newer than we are, is refused and left untouched.

Why two tables. Rows of about 1 KB, 256 a commit: a rowid table with a unique index took
115,000 rows/s, a ``WITHOUT ROWID`` table 41,000 (its rows fill the inner pages of the tree,
and spill at a quarter of a page); small rows are the other way round, one tree instead of
two. Pages of 8 KiB took more than 4 KiB in both. Figures: ``docs/protocols/storage.md``.

Each row carries a CRC-32 over space, key and value, because SQLite does not notice a bit
that flips inside a value.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from p2pmed.errors import DiskFull, StorageError
from p2pmed.world import BULKY_SPACES, Space

__all__ = [
    "NO_ROOM",
    "SCHEMA_VERSION",
    "checksum",
    "harden",
    "migrate",
    "prepare",
    "refuse_damage",
    "storage_error",
    "table_of",
]

SCHEMA_VERSION: Final = 1
SCHEMA_KEY: Final = b"storage.schema"
"""META row, 4 bytes big-endian: the version again, where a copy of the rows keeps it."""

APPLICATION_ID: Final = 0x70326D64
"""``p2md``, in the file's header: another program's database is refused."""

PAGE_BYTES: Final = 8192
CACHE_KIB: Final = 8192
"""Page cache of each of the two connections."""
BUSY_MS: Final = 5_000
"""Only a backup tool reading the file can make us wait at all."""

Migration = Callable[[sqlite3.Connection], None]
"""Brings a database from its version to the next; runs inside the one transaction."""

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""By the version they start from. Version 1 is the first that was released."""

_TABLES: Final = (
    "CREATE TABLE kv (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,"
    " sum INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID",
    "CREATE TABLE bulk (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,"
    " sum INTEGER NOT NULL, UNIQUE (space, key))",
)

_SETTINGS: Final = (
    # name, value to set, value to read back
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "1", 1),
    ("trusted_schema", "0", 0),
    ("cell_size_check", "1", 1),
    ("temp_store", "MEMORY", 2),
    ("cache_size", f"-{CACHE_KIB}", -CACHE_KIB),
)

NO_ROOM: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})
"""SQLite's names for a write (of the WAL's index, the second) that found no room."""

_SENTENCES: Final = (
    # the start of SQLite's name of an error, and what it means to a person
    ("SQLITE_FULL", "the disk is full"),
    ("SQLITE_IOERR_SHMSIZE", "the disk is full"),
    ("SQLITE_IOERR", "the disk reported a read or write error"),
    ("SQLITE_READONLY", "the database cannot be written"),
    ("SQLITE_CORRUPT", "the database file is damaged"),
    ("SQLITE_NOTADB", "the file is not a database"),
    ("SQLITE_BUSY", "another program holds the database"),
    ("SQLITE_LOCKED", "another program holds the database"),
    ("SQLITE_CANTOPEN", "the database cannot be opened"),
)


def storage_error(error: sqlite3.Error, doing: str) -> StorageError:
    """What SQLite said while ``doing``, in one sentence without any content."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    meaning = next((text for start, text in _SENTENCES if name.startswith(start)), "SQLite failed")
    sentence = f"{meaning} ({name}) while {doing}"
    if name in NO_ROOM:
        return DiskFull(sentence, hint="free some space, then start again")
    return StorageError(sentence, hint="stop, check the disk, then start again")


def table_of(space: Space) -> str:
    """Where the rows of ``space`` are."""
    return "bulk" if space in BULKY_SPACES else "kv"


def checksum(space: Space, key: bytes, value: bytes) -> int:
    """CRC-32 of the value, continued from that of the key, which starts at the space."""
    return zlib.crc32(value, zlib.crc32(key, space))


def harden(connection: sqlite3.Connection, *, writer: bool, checkpoint_pages: int) -> None:
    """Set a connection up and read back what was set.

    Raises ``StorageError`` if SQLite did not accept a setting.
    """
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages if writer else 0}")
    if writer:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file only
    else:
        connection.execute("PRAGMA query_only = 1")
    for name, value, expected in _SETTINGS:
        if writer or name != "journal_mode":
            connection.execute(f"PRAGMA {name} = {value}")
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise StorageError(f"SQLite keeps {name} at {found!r}, not {expected!r}")


def prepare(connection: sqlite3.Connection, *, checkpoint_pages: int, check: bool) -> None:
    """Make a fresh connection the writer of our database.

    Raises ``StorageError`` (foreign, newer or damaged: left as it was) or ``sqlite3.Error``.
    """
    _refuse_newer(_version(connection), SCHEMA_VERSION)
    harden(connection, writer=True, checkpoint_pages=checkpoint_pages)
    if check:
        refuse_damage(connection.execute("PRAGMA quick_check(1)"))
    migrate(connection)


def refuse_damage(rows: Iterable[Any]) -> None:
    """Raise ``StorageError`` unless ``rows``, what a check returned, say ok."""
    if [row[0] for row in rows] != ["ok"]:
        raise StorageError("the database file is damaged", hint="restore a backup")


def migrate(
    connection: sqlite3.Connection,
    *,
    target: int = SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> int:
    """Make a new database, or bring an old one to ``target``, in one transaction.

    Returns the version found: ``target`` when nothing was to do, -1 when it was empty.
    Raises ``StorageError`` for a foreign or newer database, which is left as it was.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection)
        _refuse_newer(found, target)
        if found == -1:
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            for version in range(found, target):
                migrations[version](connection)
        if found != target:
            _stamp(connection, target)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def _refuse_newer(found: int, known: int) -> None:
    if found > known:
        raise StorageError(
            f"the database has schema {found}, this program knows {known}",
            hint="use the newer program again, or restore a backup made by this one",
        )


def _version(connection: sqlite3.Connection) -> int:
    """The schema's version, -1 for an empty database."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        return version
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application or version or tables:
        raise StorageError("the database belongs to another program", hint="name another file")
    return -1


def _stamp(connection: sqlite3.Connection, version: int) -> None:
    """Write the version in the header and in META."""
    connection.execute(f"PRAGMA user_version = {version}")
    value = version.to_bytes(4, "big")
    connection.execute(
        "INSERT OR REPLACE INTO kv (space, key, value, sum) VALUES (?, ?, ?, ?)",
        (int(Space.META), SCHEMA_KEY, value, checksum(Space.META, SCHEMA_KEY, value)),
    )
