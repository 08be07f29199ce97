"""A file that appears whole or not at all: on a stick that may be pulled, or a disk that is full.

Rule: written under a temporary name beside its place, flushed, read back from the medium,
renamed, the folder flushed. ``O_SYNC`` is not enough on exFAT, and a cheap stick may not keep
what it was given: what is read back is compared by hash before the name is given.
Whatever goes wrong, the temporary file is removed and what stood there before stands there still.

Blocking: whoever has an event loop runs each call in a thread. Networking notes, section 4.6.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Final

from p2pmed.errors import ConfigError, DiskFull, P2pmedError, StorageError
from p2pmed.storage.files import disk_error

__all__ = ["NewFile", "keep_file", "refuse_existing", "temporary_name"]

MODE: Final = 0o600
READ_BYTES: Final = 1024 * 1024


def temporary_name(path: Path) -> Path:
    """Where a file is written before it has its name."""
    return path.with_name(f".{path.name}.new")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises ``ConfigError`` if ``path`` cannot become a new file: it is there, or a folder."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", hint="name a file in it")
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already", hint="name another file, or give --force")
    if not path.parent.is_dir():
        raise ConfigError(f"no folder {path.parent}")


class NewFile:
    """One file being written; leaving the block without ``keep`` removes what was written.

    Raises ``ConfigError`` (it is there already, not allowed), ``DiskFull`` or ``StorageError``.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self.size = 0
        """Bytes written."""
        self._force = force
        self._temporary = temporary_name(path)
        self._hash = blake2b(digest_size=32)
        self._handle = -1

    def __enter__(self) -> NewFile:
        refuse_existing(self.path, force=self._force)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._handle = os.open(self._temporary, flags, MODE)
        except OSError as error:
            raise _failure(error, self.path) from error
        return self

    def write(self, piece: bytes) -> None:
        """Append."""
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            raise _failure(error, self.path) from error
        self._hash.update(piece)
        self.size += len(piece)

    def keep(self) -> None:
        """Flush, read back, give the name; durable on return."""
        try:
            os.fsync(self._handle)
            if self._read_back() != self._hash.digest():
                raise StorageError(
                    f"the medium did not keep what was written to {self.path}",
                    hint="use another stick",
                )
        except OSError as error:
            raise _failure(error, self.path) from error
        keep_file(self.path, force=self._force)

    def _read_back(self) -> bytes:
        """The hash of what the medium holds, past the cache as far as the kernel lets us."""
        found = blake2b(digest_size=32)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(self._handle, 0, os.SEEK_SET)
        while piece := os.read(self._handle, READ_BYTES):
            found.update(piece)
        return found.digest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._handle)
        with suppress(OSError):  # it has its name, or is gone with the stick
            self._temporary.unlink()


def keep_file(path: Path, *, force: bool) -> None:
    """Give the flushed temporary file of ``path`` its name, and flush the folder."""
    refuse_existing(path, force=force)
    try:
        temporary_name(path).replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _failure(error, path) from error


def _failure(error: OSError, path: Path) -> P2pmedError:
    if error.errno == errno.EFBIG:
        return DiskFull(
            f"{path} would be larger than its file system allows",
            hint="FAT holds files of up to 4 GiB; format the stick as exFAT, or write less",
        )
    return disk_error(error, path)
