"""Files that must survive a power cut: replaced whole, locked, or held in reserve.

Rule: POSIX only. A file is replaced by writing a new one beside it, flushing it, renaming
it over the old one and flushing the folder; a reader sees the old bytes or the new ones.
Folders are 0700 and files 0600: what is not encrypted is at least not shared.

``docs/protocols/storage.md``, section 4.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from p2pmed.errors import ConfigError, DiskFull, P2pmedError, StorageError

__all__ = ["Ballast", "disk_error", "exclusive", "make_folder", "read_file", "replace_file"]

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest file of a home that is read whole; the manifest and keystore are far smaller."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def disk_error(error: OSError, path: Path) -> P2pmedError:
    """What the operating system said about ``path``, as one of our errors."""
    if error.errno in _FULL:
        return DiskFull(f"no room on the disk to write {path}", hint="free some space")
    if error.errno in _FORBIDDEN:
        return ConfigError(f"not allowed to write {path}", hint="check its owner and mount")
    return StorageError(f"the disk failed at {path}: {error.strerror}")


def make_folder(path: Path) -> None:
    """Make a private folder that is not there yet, and flush its parent.

    Raises ``ConfigError`` if something is there already, the parent is missing or forbids
    it, or the file system keeps no permissions (FAT); ``DiskFull``; ``StorageError``.
    """
    try:
        path.mkdir(mode=FOLDER_MODE)
        path.chmod(FOLDER_MODE)
        kept = path.stat().st_mode & 0o777
        _sync_folder(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="choose another folder") from None
    except FileNotFoundError:
        raise ConfigError(f"no folder {path.parent}") from None
    except OSError as error:
        raise disk_error(error, path) from error
    if kept != FOLDER_MODE:
        path.rmdir()
        raise ConfigError(
            f"the file system under {path} keeps no permissions",
            hint="a home cannot live on FAT or a network share",
        )


def read_file(path: Path) -> bytes | None:
    """All bytes of a small file, or ``None`` if there is none. Raises ``StorageError``."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise ConfigError(f"not allowed to read {path}", hint="check its owner") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise StorageError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, all or nothing, durable on return.

    Raises ``DiskFull``, ``ConfigError`` (not allowed) or ``StorageError``; the old content
    is then still there.
    """
    fresh = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(fresh, flags, FILE_MODE)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise disk_error(error, path) from error


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold ``path`` as a lock of this process; the kernel frees it however we end.

    ``flock`` and not ``lockf``: it also keeps a second opener in this process out, and is
    not lost when some other handle of the file closes. The file holds the owner's process
    number, for people. Raises ``ConfigError`` (``what`` is in use, not allowed),
    ``DiskFull`` or ``StorageError``.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    except FileNotFoundError:
        raise ConfigError(f"no folder {path.parent}") from None
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 32).strip().decode("ascii", "replace") or "unknown"
            raise ConfigError(
                f"{what} in use by process {owner}", hint="stop that process first"
            ) from None
        except OSError as error:
            raise disk_error(error, path) from error
        with suppress(OSError):  # a full disk must not keep the owner out
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(handle)


class Ballast:
    """Room kept back: let go of when the disk is full, so that the last commit fits."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def hold(self) -> bool:
        """Take the room if it is not held yet; ``False`` if the disk has none."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(self._path, flags, FILE_MODE)
            try:
                os.posix_fallocate(handle, 0, self._size_bytes)
            finally:
                os.close(handle)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room back; ``False`` if none was held."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
