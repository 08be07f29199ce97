"""A node's home: one folder with all that a node is, and nobody else in it.

::

    p2pmed.toml     settings, for people
    keystore        sealed keys
    manifest        the network's signed manifest
    chain           this node's credential chain
    boot            how often the node has run, and the incarnation of its log
    node.db         the database (storage/sqlite.py), with -wal, -shm, .lock, .ballast
    lock            held by the process that runs the node

Rules: what the files contain is opaque here, except ``boot``; a file is replaced whole; one
process at a time. A home that went back in time must be noticed *before* anything is
signed, because a vote or a log entry that is forgotten is cast twice: ``boot`` and a row of
the database count together, and a count that does not agree means that one of the two came
out of a backup. So does a database that is not the same file any more (its inode): that is
a folder copied back or cloned. What no file can tell, an image of the whole disk put back,
the peers tell by the log they hold (threats, row 22).

``docs/protocols/storage.md``, section 4.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

from p2pmed.errors import ConfigError, DecodeError, DiskFull, P2pmedError, StorageError
from p2pmed.storage.files import exclusive, make_folder, read_file, replace_file
from p2pmed.storage.sqlite import SqliteDisk, open_disk
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes16, Count, Wire
from p2pmed.world import Space

__all__ = [
    "DATABASE",
    "Home",
    "HomeFile",
    "create_home",
    "lock_home",
    "open_home",
    "read_home",
    "write_home",
]

BOOT_KEY: Final = b"storage.boot"
"""META row: the ``boot`` file's count and incarnation, as the database saw them last."""


class HomeFile(StrEnum):
    """The files of a home whose contents are others' business."""

    CONFIG = "p2pmed.toml"
    KEYSTORE = "keystore"
    MANIFEST = "manifest"
    CHAIN = "chain"


class _Phase(IntEnum):
    """Where a run stands when the count was written."""

    STEADY = 0
    """File and database agree."""
    STEPPING = 1
    """The file is one ahead, until the database has followed."""
    RESTORED = 2
    """A step back in time was seen and no new incarnation chosen yet."""


class _Boot(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What ``boot`` holds."""

    version: Count
    count: Count
    incarnation: Bytes16
    phase: Count
    inode: Count
    """Of ``node.db``; 0 before there is one."""


class _Row(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the META row holds."""

    count: Count
    incarnation: Bytes16


BOOT_VERSION: Final = 1
_BOOT_FILE: Final = "boot"
DATABASE: Final = "node.db"
_INODE_MASK: Final = 2**53 - 1
_HINT: Final = "make a home with: p2pmed init"


class Home:
    """An open home; made by ``open_home``, valid inside its ``async with``."""

    def __init__(self, path: Path, disk: SqliteDisk, boot: _Boot) -> None:
        self.path = path
        self.disk = disk
        self._boot = boot

    def __repr__(self) -> str:
        return f"<Home {self.path}, run {self._boot.count}>"

    @property
    def restored(self) -> bool:
        """The home went back in time: sign nothing before ``adopt``. Stays across runs."""
        return self._boot.phase == _Phase.RESTORED

    @property
    def count(self) -> int:
        """Rises with every opening and closing."""
        return self._boot.count

    @property
    def incarnation(self) -> bytes:
        """16 bytes: the incarnation of this node's own log."""
        return self._boot.incarnation

    def read(self, file: HomeFile) -> bytes:
        """As ``read_home``."""
        return read_home(self.path, file)

    def write(self, file: HomeFile, content: bytes) -> None:
        """Replace a file whole. Raises ``DiskFull``, ``ConfigError`` or ``StorageError``."""
        replace_file(self.path / file, content)

    async def adopt(self, incarnation: bytes) -> None:
        """Go on as ``incarnation`` (16 fresh random bytes): the answer to ``restored``.

        Durable on return, together with everything staged before. Cancelled or failed, the
        home is still ``restored`` at the next opening.
        """
        assert len(incarnation) == 16
        await self._step(incarnation, _Phase.RESTORED)

    async def _step(self, incarnation: bytes, meanwhile: _Phase) -> None:
        """Count one up: file, database, file. A power cut between is told from a restore."""
        count = self._boot.count + 1
        inode = _inode(self.path / DATABASE)
        self._write_boot(_Boot(BOOT_VERSION, count, incarnation, meanwhile, inode))
        self.disk.stage(Space.META, BOOT_KEY, codec.encode(_Row(count, incarnation)))
        await self.disk.commit()
        self._write_boot(_Boot(BOOT_VERSION, count, incarnation, _Phase.STEADY, inode))

    def _write_boot(self, boot: _Boot) -> None:
        try:
            _store_boot(self.path, boot)
        except DiskFull:
            if not self.disk.spend_ballast():
                raise
            _store_boot(self.path, boot)
        self._boot = boot


def create_home(path: Path, files: Mapping[HomeFile, bytes], *, incarnation: bytes) -> None:
    """Make the folder ``path`` with ``files`` in it; ``incarnation`` is 16 random bytes.

    ``boot`` is written last: a home without it was not finished. Raises ``ConfigError`` (it
    is there already, or not allowed), ``DiskFull`` or ``StorageError``.
    """
    make_folder(path)
    for file, content in files.items():
        replace_file(path / file, content)
    _store_boot(path, _Boot(BOOT_VERSION, 0, incarnation, _Phase.STEADY, 0))


def read_home(path: Path, file: HomeFile) -> bytes:
    """The bytes of a file, locked or not. Raises ``ConfigError`` if there is none."""
    content = read_file(path / file)
    if content is None:
        raise ConfigError(f"no {file} in {path}", hint=_HINT)
    return content


def write_home(path: Path, file: HomeFile, content: bytes) -> None:
    """Replace a file of a home that no process runs. Raises as ``lock_home``, ``DiskFull``."""
    with lock_home(path):
        replace_file(path / file, content)


@contextmanager
def lock_home(path: Path) -> Iterator[None]:
    """Keep every other process out. Raises ``ConfigError`` naming the process inside."""
    if not path.is_dir():
        raise ConfigError(f"no home at {path}", hint=_HINT)
    with exclusive(path / "lock", "home"):
        yield


@asynccontextmanager
async def open_home(path: Path) -> AsyncIterator[Home]:
    """Lock the home, open its database, count the run, and say whether it was restored.

    Raises ``ConfigError`` (no home, in use, not writable), ``DiskFull`` or
    ``StorageError``. On leaving, the count steps once more, so that a copy of the database
    taken during this run is recognised; a broken disk is left as it is.
    """
    with lock_home(path):
        before = _load_boot(path)
        database = path / DATABASE
        was_there = _inode(database)
        async with open_disk(database, create=True) as disk:
            row = _load_row(disk)
            home = Home(path, disk, before or _Boot(BOOT_VERSION, 0, bytes(16), _Phase.STEADY, 0))
            if before is None or _went_back(before, row, was_there):
                # A count above both, so that neither of them is met again.
                count = max(home.count, row.count if row else 0) + 1
                home._write_boot(
                    _Boot(BOOT_VERSION, count, home.incarnation, _Phase.RESTORED, was_there)
                )
            else:
                await home._step(home.incarnation, _Phase.STEPPING)
            try:
                yield home
            finally:
                if disk.broken is None and not home.restored:
                    with suppress(P2pmedError):  # half a step is as good as none
                        await home._step(home.incarnation, _Phase.STEPPING)


def _went_back(boot: _Boot, row: _Row | None, inode: int) -> bool:
    """Whether the file and the database cannot both be the newest of this home."""
    if boot.phase == _Phase.RESTORED:
        return True
    if row is None:
        # Before the first run has counted there is nothing to lose.
        return boot.count > (1 if boot.phase == _Phase.STEPPING else 0)
    if row.incarnation != boot.incarnation or (boot.inode and boot.inode != inode):
        return True
    behind = boot.count - row.count
    return behind not in ((0, 1) if boot.phase == _Phase.STEPPING else (0,))


def _load_boot(path: Path) -> _Boot | None:
    """The boot record; ``None`` if it is missing or unreadable: the newest is not known."""
    raw = read_file(path / _BOOT_FILE)
    if raw is None:
        return None
    try:
        boot = codec.decode(raw, _Boot)
    except DecodeError:
        return None
    if boot.version > BOOT_VERSION:
        raise StorageError(
            f"the home has boot record {boot.version}, this program knows {BOOT_VERSION}",
            hint="use the newer program again",
        )
    return boot


def _store_boot(path: Path, boot: _Boot) -> None:
    replace_file(path / _BOOT_FILE, codec.encode(boot))


def _load_row(disk: SqliteDisk) -> _Row | None:
    raw = disk.get(Space.META, BOOT_KEY)
    if raw is None:
        return None
    try:
        return codec.decode(raw, _Row)
    except DecodeError as error:
        raise StorageError("the database's boot row is not one") from error


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino & _INODE_MASK
    except FileNotFoundError:
        return 0
