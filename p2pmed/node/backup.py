"""A backup of a home: one file, made while the node runs or not; and a home made from it.

The file is the home's database, copied by SQLite's own backup in one step (a consistent
snapshot, whatever is written meanwhile), with one more table for the small files of the home:

::

    home_file(name TEXT PRIMARY KEY, content BLOB)   p2pmed.toml, keystore, manifest, chain,
                                                     and ``staff``: the whole folder

Rules:

* The file ``boot`` is left out. A home without it is a *restored* home (``storage/home.py``): it
  goes on as a new incarnation of its log, and does not vote until the operator says
  so (``p2pmed mesh resume``). A backup that could be told from the original by nothing would be
  a clone.
* What is secret stays sealed: the keystore and staff's keys under their passphrases, patients'
  records under their keys. The pepper of the device is in it, so a backup is exactly as hard to
  guess at as the home. Envelopes (who wrote when, about which pseudonym) are as readable as in
  the home.
* A backup is its owner's own file. It is still opened as if a stranger had made it: our
  application id, our tables and nothing else, SQLite's whole check, bounded small files.
* Whole or not there: temporary name, flush, rename.

Blocking; whoever has an event loop runs it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError, DiskFull, StorageError
from p2pmed.node.new_file import keep_file, refuse_existing, temporary_name
from p2pmed.node.staff_files import pack_staff, unpack_staff
from p2pmed.storage.files import (
    FILE_BYTES_MAX,
    disk_error,
    make_folder,
    read_file,
    replace_file,
)
from p2pmed.storage.home import DATABASE, HomeFile, lock_home
from p2pmed.storage.schema import APPLICATION_ID, SCHEMA_VERSION, storage_error

__all__ = [
    "SUFFIX",
    "back_up_stopped",
    "copy_home",
    "is_running",
    "place_of",
    "restore_home",
]

SUFFIX: Final = ".p2pmed-backup"
ROOM_SPARE_BYTES: Final = 16 * 1024 * 1024

STAFF: Final = "staff"
_TABLE: Final = "CREATE TABLE home_file (name TEXT PRIMARY KEY, content BLOB NOT NULL)"
_TABLES: Final = frozenset({("table", "kv"), ("table", "bulk"), ("table", "home_file")})


def place_of(home: Path, destination: Path, now_ms: int) -> Path:
    """The backup's file: ``destination``, or if it is a folder, a dated name in it."""
    if not destination.is_dir():
        return destination
    day = datetime.fromtimestamp(now_ms / 1_000, UTC).strftime("%Y-%m-%d-%H%M%S")
    return destination / f"{home.resolve().name}-{day}{SUFFIX}"


def is_running(home: Path) -> bool:
    """Whether some process holds the home's lock. Raises ``ConfigError`` if there is no home."""
    if not home.is_dir():
        raise ConfigError(f"no home at {home}", hint="make a home with: p2pmed init")
    try:
        handle = os.open(home / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def back_up_stopped(home: Path, path: Path, *, force: bool = False) -> dict[str, Any]:
    """Back up a home that no process runs. Raises as ``copy_home``; ``ConfigError`` if in use."""
    with lock_home(home):
        return copy_home(home, path, force=force)


def copy_home(home: Path, path: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the home at ``home`` to the new file ``path``; the caller holds the home's lock.

    The process that runs the node may call it from a thread: it reads through a connection of
    its own and writers do not wait. Raises ``ConfigError`` (not enrolled, there already),
    ``DiskFull`` or ``StorageError``; nothing of the file is then left.
    """
    refuse_existing(path, force=force)
    files = _small_files(home)
    database = home / DATABASE
    if not database.exists():
        raise ConfigError(f"{home} has never run: there is nothing to back up")
    _refuse_if_short(path.parent, _size(database))
    temporary = temporary_name(path)
    try:
        _make_private(temporary)
        with _sqlite("copying the database"):
            _copy(database, temporary, files)
        _flush(temporary)
        keep_file(path, force=force)
        size = path.stat().st_size
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return {"file": str(path), "bytes": size, "home": str(home)}


def _small_files(home: Path) -> dict[str, bytes]:
    found = {}
    for name in HomeFile:
        content = read_file(home / name)
        if content is None:
            raise ConfigError(f"no {name} in {home}", hint="is this an enrolled home?")
        found[str(name)] = content
    found[STAFF] = pack_staff(home)
    return found


def _size(database: Path) -> int:
    wal = database.with_name(database.name + "-wal")
    return database.stat().st_size + (wal.stat().st_size if wal.exists() else 0)


def _refuse_if_short(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + ROOM_SPARE_BYTES:
        raise DiskFull(
            f"{folder} has {free // 1024**2} MiB of room and the backup needs "
            f"{(size + ROOM_SPARE_BYTES) // 1024**2}",
            hint="free some room, or name another place",
        )


def _make_private(path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(path, flags, 0o600))


def _copy(database: Path, path: Path, files: dict[str, bytes]) -> None:
    source_uri = f"{database.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(source_uri, uri=True)) as source,
        closing(sqlite3.connect(path, isolation_level=None)) as target,
    ):
        source.execute("PRAGMA query_only = 1")
        source.backup(target, pages=-1)  # one step: a snapshot that no writer can restart
        # A stick's file stands alone: no log beside it, and readable where nothing can be written.
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("PRAGMA synchronous = FULL")
        target.execute("BEGIN")
        target.execute(_TABLE)
        target.executemany("INSERT INTO home_file VALUES (?, ?)", sorted(files.items()))
        target.execute("COMMIT")
        _refuse_damaged(target)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _sqlite(doing: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise storage_error(error, doing) from error


def _refuse_damaged(connection: sqlite3.Connection) -> None:
    rows = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if [row[0] for row in rows] != ["ok"]:
        raise StorageError(
            "the database is damaged", hint="run `p2pmed verify`; an older backup may be whole"
        )


# --- restoring ------------------------------------------------------------------------------


def restore_home(source: Path, home: Path) -> dict[str, Any]:
    """Make the new folder ``home`` from the backup at ``source``.

    The home is a restored one: its node starts a new incarnation of its log, and votes when the
    operator says so. Raises ``ConfigError`` (no backup, ``home`` is there already), ``DiskFull``
    or ``StorageError`` (damaged, newer); nothing of ``home`` is then left.
    """
    if not source.is_file():
        raise ConfigError(f"no backup at {source}")
    with _sqlite("reading the backup"):
        files = _check_backup(source)
    _refuse_if_short(home.absolute().parent, source.stat().st_size)
    make_folder(home)
    try:
        for name, content in files.items():
            if name != STAFF:
                replace_file(home / name, content)
        unpack_staff(home, files[STAFF])
        database = home / DATABASE
        _make_private(database)
        with _sqlite("restoring the database"):
            _put_back(source, database)
        _flush(database)
        _flush(home)
    except BaseException as error:
        shutil.rmtree(home, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(error, home) from error
        raise
    return {"home": str(home), "file": str(source), "bytes": database.stat().st_size}


def _open_backup(source: Path) -> sqlite3.Connection:
    # Immutable: a stick may be write-protected, and nobody writes a backup.
    uri = f"{source.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA trusted_schema = 0")
    connection.execute("PRAGMA cell_size_check = 1")
    return connection


def _check_backup(source: Path) -> dict[str, bytes]:
    """The small files of a backup that is whole. Raises ``ConfigError`` or ``StorageError``."""
    try:
        with closing(_open_backup(source)) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise ConfigError(f"{source} is not a backup of a p2pmed home")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StorageError("the backup is of a newer program", hint="use that program")
            _refuse_damaged(connection)
            _check_tables(connection, source)
            return _read_files(connection, source)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise ConfigError(f"{source} is not a backup of a p2pmed home") from None
        raise


def _check_tables(connection: sqlite3.Connection, source: Path) -> None:
    """No view, trigger or table that we did not make: a hostile schema runs when it is used."""
    rows = connection.execute("SELECT type, name FROM sqlite_schema WHERE type <> 'index'")
    if frozenset(rows.fetchall()) != _TABLES:
        raise ConfigError(f"{source} is not a backup of a p2pmed home")


def _read_files(connection: sqlite3.Connection, source: Path) -> dict[str, bytes]:
    names = [*(str(name) for name in HomeFile), STAFF]
    rows = connection.execute(
        "SELECT name, content FROM home_file WHERE length(content) <= ? LIMIT ?",
        (FILE_BYTES_MAX, len(names) + 1),
    ).fetchall()
    found = {name: content for name, content in rows if isinstance(content, bytes)}
    if sorted(found) != sorted(names):
        raise ConfigError(f"{source} lacks files of the home")
    return found


def _put_back(source: Path, database: Path) -> None:
    with (
        closing(_open_backup(source)) as backup,
        closing(sqlite3.connect(database, isolation_level=None)) as target,
    ):
        backup.backup(target, pages=-1)
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("PRAGMA synchronous = FULL")
        target.execute("DROP TABLE home_file")
        _refuse_damaged(target)
