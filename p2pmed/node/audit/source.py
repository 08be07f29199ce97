"""A home's database as it lies there: read only, row by row, whatever state it is in.

Rules:

* Nothing here raises on account of what the file holds: damage is a finding, and reading goes on
  after it where that is possible.
* One read transaction for the whole audit, so that all checks see one moment.
* Values are given out even if their checksum does not fit: deeper checks may say more.

``docs/protocols/storage.md``, sections 1 to 3.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from p2pmed.node.audit.findings import DO_ROW, Findings, place_name
from p2pmed.storage.schema import APPLICATION_ID, SCHEMA_VERSION, checksum, table_of
from p2pmed.world import BULKY_SPACES, Space

__all__ = ["Row", "Source", "open_source"]

PAGE_ROWS: Final = 512
DAMAGE_MAX: Final = 20
"""Complaints of SQLite's own check that are passed on."""
END: Final = b"\xff" * 129
"""Above every key; the longest of ours is a fork's, 88 bytes."""

Row = tuple[bytes, bytes]


class Source:
    """Rows of one database; ``findings`` is told of what cannot be read."""

    def __init__(self, connection: sqlite3.Connection, findings: Findings) -> None:
        self._connection = connection
        self._findings = findings
        self._unreadable: set[str] = set()

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The row's value, or ``None`` if it is not there or cannot be read."""
        statement = f"SELECT value FROM {table_of(space)} WHERE space = ? AND key = ?"  # noqa: S608
        try:
            row = self._connection.execute(statement, (int(space), key)).fetchone()
        except sqlite3.Error as error:
            self._damage(space.name, error)
            return None
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``, without what cannot be read."""
        order = "DESC" if reverse else "ASC"
        statement = (
            f"SELECT key, value FROM {table_of(space)} WHERE space = ? AND key >= ? AND key < ?"  # noqa: S608
            f" ORDER BY key {order} LIMIT ?"
        )
        try:
            rows = self._connection.execute(statement, (int(space), start, end, limit)).fetchall()
        except sqlite3.Error as error:
            self._damage(space.name, error)
            return []
        return [
            (key, value)
            for key, value in rows
            if isinstance(key, bytes) and isinstance(value, bytes)
        ]

    def rows(self, space: Space, prefix: bytes = b"") -> Iterator[Row]:
        """All rows under ``prefix`` in key order, a page at a time."""
        start, end = prefix, prefix + END
        while True:
            page = self.scan(space, start, end, limit=PAGE_ROWS)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            start = page[-1][0] + b"\x00"

    def count(self, space: Space, prefix: bytes = b"") -> int:
        """How many rows there are."""
        statement = (
            f"SELECT count(*) FROM {table_of(space)} WHERE space = ? AND key >= ? AND key < ?"  # noqa: S608
        )
        try:
            row = self._connection.execute(statement, (int(space), prefix, prefix + END)).fetchone()
        except sqlite3.Error as error:
            self._damage(space.name, error)
            return -1
        found: int = row[0]
        return found

    def check_file(self) -> None:
        """SQLite's own walk over every page and index, and the version in the header."""
        try:
            application = self._connection.execute("PRAGMA application_id").fetchone()[0]
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                self._findings.add(
                    "node.db",
                    f"its header says schema {version} of application {application:#x}",
                    do="verify it with the program that wrote it",
                )
            for row in self._connection.execute(f"PRAGMA integrity_check({DAMAGE_MAX})"):
                if row[0] != "ok":
                    self._findings.add("node.db", f"the file is damaged: {_plain(row[0])}")
        except sqlite3.Error as error:
            self._damage("node.db", error)

    def sweep(self) -> None:
        """Every row's checksum, and that it stands where rows of its space stand."""
        for table in ("kv", "bulk"):
            statement = f"SELECT space, key, value, sum FROM {table} ORDER BY space, key"  # noqa: S608
            try:
                for space, key, value, expected in self._connection.execute(statement):
                    self._findings.counts["rows"] += 1
                    self._check_row(table, space, key, value, expected)
            except sqlite3.Error as error:
                self._damage(f"table {table}", error)

    def _check_row(self, table: str, space: Any, key: Any, value: Any, expected: Any) -> None:
        if space not in Space.__members__.values() or not isinstance(key, bytes):
            self._findings.add(f"table {table}", f"a row of no known space ({space})")
        elif not isinstance(value, bytes):
            self._findings.add(
                place_name(Space(space), key), "a value that is not bytes", at=(Space(space), key)
            )
        elif (table == "bulk") != (Space(space) in BULKY_SPACES):
            self._findings.add(place_name(Space(space), key), f"a row in the wrong table ({table})")
        elif checksum(Space(space), key, value) != expected:
            self._findings.add(
                place_name(Space(space), key),
                "the row is rotten: its checksum does not fit",
                at=(Space(space), key),
            )

    def _damage(self, what: str, error: sqlite3.Error) -> None:
        """A part of the file that SQLite cannot read: said once a part."""
        if what in self._unreadable:
            return
        self._unreadable.add(what)
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        self._findings.add("node.db", f"{what} cannot be read to its end ({name})", do=DO_ROW)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def open_source(database: Path, findings: Findings, *, alone: bool) -> Source | None:
    """The database at ``database``; ``None`` with a finding if it cannot be opened at all.

    ``alone``: no log beside it is to be read, and nobody writes it meanwhile.
    """
    mode = "mode=ro&immutable=1" if alone else "mode=ro"
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            f"{database.absolute().as_uri()}?{mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        for setting in ("query_only = 1", "trusted_schema = 0", "cell_size_check = 1"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if alone:
            _check_length(connection, database, findings)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        findings.add("node.db", f"the database cannot be opened ({name})")
        return None
    return Source(connection, findings)


def _check_length(connection: sqlite3.Connection, database: Path, findings: Findings) -> None:
    """A file cut in the middle of unused pages breaks nothing yet, and was cut all the same."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    size = pages * connection.execute("PRAGMA page_size").fetchone()[0]
    found = database.stat().st_size
    if found < size:
        findings.add("node.db", f"the file ends at byte {found} of {size}")


def _plain(text: Any) -> str:
    """SQLite's complaint, one line; it names pages and rows, never values."""
    return " ".join(str(text).split())[:200]
