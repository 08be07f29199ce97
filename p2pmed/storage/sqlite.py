"""The node's disk: one SQLite file, one writer, one reader.

Rules:

* **One writer.** One aiosqlite connection writes and checkpoints; its thread takes a whole
  group commit in one call (``BEGIN IMMEDIATE``, upserts, deletes, ``COMMIT``), so that a
  commit costs one hop and one flush however many rows it has.
* **Reads wait for nobody.** They run on the caller's thread over one read-only connection:
  a point read costs some microseconds, a hop to a thread about fifty. In WAL mode a
  reader never waits for the writer. The overlay (``memory.py``) holds what is not committed.
* **Nothing half done.** A cancelled caller leaves its commit running to its end. A commit
  that fails is rolled back and poisons the disk: its rows may or may not be found at the
  next open, they were reported to nobody, and nothing more is written until then.

WAL-reset race: SQLite before 3.51.3 can corrupt a WAL when two connections write or
checkpoint at the same moment. Here one connection does both, the other is read-only with
checkpoints off, and a lock beside the file keeps every other process of ours out.

Implements ``world.Disk``; ``docs/protocols/storage.md``, section 3.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiosqlite

from p2pmed.errors import ConfigError, StorageError
from p2pmed.storage.connections import (
    Reader,
    Writer,
    on_thread,
    open_reader,
    open_writer,
    write_batch,
)
from p2pmed.storage.files import FILE_MODE, Ballast, disk_error, exclusive
from p2pmed.storage.memory import Batch, Row, StagedMap
from p2pmed.storage.schema import (
    NO_ROOM,
    prepare,
    refuse_damage,
    storage_error,
)
from p2pmed.world import Space

__all__ = ["BALLAST_BYTES", "SqliteDisk", "open_disk"]

CHECKPOINT_PAGES: Final = 1_000
"""Pages of WAL after which the writer checkpoints: 8 MiB, SQLite's own default count."""

BALLAST_BYTES: Final = 8 * 1024 * 1024
"""Kept back for the last commits on a full disk: one full block and its WAL frames."""

STAGED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Not yet durable. A driver slows down far below; beyond, memory would grow without limit."""

CHECK_BYTES_MAX: Final = 64 * 1024 * 1024
"""A file up to this size is checked at every open; a longer one when ``check`` is called."""


class SqliteDisk:
    """``world.Disk`` over SQLite; made by ``open_disk``.

    ``get``, ``scan`` and ``stage`` belong to the thread of the event loop.
    """

    def __init__(
        self, writer: aiosqlite.Connection, raw: Writer, reader: sqlite3.Connection, path: Path
    ) -> None:
        self.path = path
        self.low = False
        """The ballast is spent or could not be had: refuse new records, keep voting."""
        self._writer = writer
        self._raw = raw
        self._reader = reader
        self._staged = StagedMap(Reader(reader))
        self._turn = asyncio.Lock()
        self._writing: set[asyncio.Task[int]] = set()
        self._broken: StorageError | None = None
        self._ballast = _ballast(path)

    @property
    def broken(self) -> StorageError | None:
        """Why nothing is written any more, or ``None``."""
        return self._broken

    @property
    def staged_bytes(self) -> int:
        """Keys and values not yet durable: what a driver slows down by."""
        return self._staged.staged_bytes

    def get(self, space: Space, key: bytes) -> bytes | None:
        """As ``world.Disk.get``. Works on a broken disk: committed rows only."""
        return self._staged.get(space, key)

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``. Works on a broken disk: committed rows only."""
        return self._staged.scan(space, start, end, limit=limit, reverse=reverse)

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """As ``world.Disk.stage``.

        Raises ``StorageError`` if the disk is broken, or if more than ``STAGED_BYTES_MAX``
        waits for it, which breaks it: what was staged is then not a whole step.
        """
        self._refuse_if_broken()
        if self._staged.staged_bytes > STAGED_BYTES_MAX:
            raise self._break(StorageError(f"{STAGED_BYTES_MAX} bytes wait for a slow disk"))
        self._staged.stage(space, key, value)

    async def commit(self) -> int:
        """Make everything staged before the call durable; return the rows this call wrote.

        Commits take turns; what is staged while one runs goes with the next. Cancelling
        abandons the wait, never the commit: whether it succeeded is then unknown to the
        caller and known to the disk. Raises ``StorageError`` or ``DiskFull``; nothing of
        the failed commit is durable as far as anybody was told, and the disk is broken.
        """
        self._refuse_if_broken()
        task = asyncio.get_running_loop().create_task(self._commit_staged())
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    async def check(self) -> None:
        """Walk the whole file on the writer's thread; raises ``StorageError`` if damaged.

        Half a millisecond a megabyte from memory, fifty from a slow card; commits wait meanwhile.
        """
        async with self._turn:
            try:
                rows = await self._writer.execute_fetchall("PRAGMA quick_check(1)")
            except sqlite3.Error as error:
                raise storage_error(error, "checking the database") from error
        refuse_damage(rows)

    async def _commit_staged(self) -> int:
        async with self._turn:
            self._refuse_if_broken()
            if not self._staged.dirty:
                return 0
            batch = self._staged.seal()
            try:
                await self._write(batch)
            except sqlite3.Error as error:
                raise self._break(storage_error(error, "committing")) from error
            except asyncio.CancelledError:  # the loop itself is ending
                self._break(StorageError("the loop ended in the middle of a commit"))
                raise
            self._refuse_if_broken()  # given up meanwhile: written, and told to nobody
            self._staged.done(batch)
            return len(batch)

    async def _write(self, batch: Batch) -> None:
        """Write ``batch``; on a full disk let go of the ballast and write it once more.

        Only a write that found no room is repeated. A failed flush never is: the kernel
        forgets what it could not write, so the second flush would lie.
        """
        work = partial(write_batch, batch)
        try:
            await on_thread(self._writer, self._raw, work)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in NO_ROOM or not self.spend_ballast():
                raise
            await on_thread(self._writer, self._raw, work)

    def spend_ballast(self) -> bool:
        """Give back the room kept for a full disk; ``False`` if there is none left."""
        self.low = True
        return self._ballast.release()

    def abandon(self, reason: str) -> None:
        """Write nothing any more: what is staged may be half a step of a driver that failed."""
        if self._broken is None:
            self._break(StorageError(reason))

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken), hint=self._broken.hint)

    def _break(self, error: StorageError) -> StorageError:
        """Nothing is written from here on; reads show what is committed."""
        self._broken = error
        self._staged.forget()
        return error

    def _written(self, task: asyncio.Task[int]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have been cancelled; the disk remembers it

    async def _open(self, *, keep_ballast: bool) -> None:
        """Move what the last run left in the WAL into the file, and take the ballast.

        The second try of a full disk leaves in the (flushed) WAL what finds no room, so
        that what was committed can be read.
        """
        try:
            await _checkpoint(self._writer)
        except sqlite3.OperationalError as error:
            if keep_ballast or error.sqlite_errorname not in NO_ROOM:
                raise
        self.low = not (keep_ballast and self._ballast.hold())

    async def _close(self) -> None:
        """End the running commit, fold the WAL away, close both connections."""
        try:
            while self._writing:
                await asyncio.wait(self._writing)
            if self._broken is None:
                self._break(StorageError("the disk is closed"))
                self._reader.close()
                with suppress(sqlite3.Error, StorageError):  # the next open does it again
                    await _checkpoint(self._writer)
        finally:
            # On a broken disk the reader closes last: it cannot checkpoint, so that the
            # file stays as the failure left it until the next open verifies it.
            try:
                await self._writer.close()
            finally:
                self._reader.close()


@asynccontextmanager
async def open_disk(
    path: Path, *, create: bool, checkpoint_pages: int = CHECKPOINT_PAGES
) -> AsyncIterator[SqliteDisk]:
    """Open the database at ``path``; ``create`` makes it if it is not there.

    On open: exclusive lock, settings read back, ``quick_check`` (up to ``CHECK_BYTES_MAX``),
    migration, checkpoint. On close: the running commit ends, checkpoint, both connections
    closed, even on errors. What was staged and not committed is gone.

    Raises ``ConfigError`` (no such file, in use, not allowed), ``DiskFull`` or
    ``StorageError`` (damaged, foreign or newer database). Cancelling closes it.
    """
    opened: list[SqliteDisk] = []
    with exclusive(path.with_name(path.name + ".lock"), "database"):
        _ensure_file(path, create=create)
        try:
            await _to_the_end(_connect(path, checkpoint_pages, opened))
            yield opened[-1]
        finally:
            for disk in opened:
                await _to_the_end(disk._close())


def _ensure_file(path: Path, *, create: bool) -> None:
    """SQLite gives its WAL the permissions of the file, so the file is made private first."""
    if path.exists():
        return
    if not create:
        raise ConfigError(f"no database at {path}", hint="is this the right folder?")
    try:
        path.touch(mode=FILE_MODE, exist_ok=False)
    except OSError as error:
        raise disk_error(error, path) from error


async def _connect(path: Path, checkpoint_pages: int, opened: list[SqliteDisk]) -> None:
    """Open both connections; the disk is in ``opened`` if and only if it must be closed."""

    def set_up(connection: Writer) -> None:
        small = path.stat().st_size <= CHECK_BYTES_MAX
        prepare(connection, checkpoint_pages=checkpoint_pages, check=small)

    async def attempt(*, keep_ballast: bool) -> None:
        writer, raw = await open_writer(path)
        try:
            await on_thread(writer, raw, set_up)
            disk = SqliteDisk(writer, raw, open_reader(path), path)
        except BaseException:
            await writer.close()
            raise
        try:
            await disk._open(keep_ballast=keep_ballast)
        except BaseException:
            await disk._close()
            raise
        opened.append(disk)

    try:
        try:
            await attempt(keep_ballast=True)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in NO_ROOM:
                raise
            _ballast(path).release()
            await attempt(keep_ballast=False)
    except sqlite3.Error as error:
        raise storage_error(error, "opening the database") from error


def _ballast(path: Path) -> Ballast:
    return Ballast(path.with_name(path.name + ".ballast"), BALLAST_BYTES)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` whatever happens to us; a cancellation is passed on afterwards."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def _checkpoint(writer: aiosqlite.Connection) -> None:
    """Fold the whole WAL into the file, flushed, and cut it to nothing."""
    rows = list(await writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)"))
    if rows[0][0] != 0:
        raise StorageError("another program reads the database and holds its log open")
