"""FHIR files on the disk: found, read within limits, and written where nothing is overwritten.

Rule: whatever the operating system says no to becomes one sentence. Files in clear are private
to their owner (0600, folders 0700), and a name from a record never leaves the export folder.
"""

from __future__ import annotations

import gzip
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pmed.errors import ConfigError, InvalidTransaction
from p2pmed.medical.fhir import BUNDLE_BYTES_MAX, gunzip_bounded
from p2pmed.storage.files import disk_error

__all__ = ["FoundFile", "find_files", "open_folder", "read_contents", "safe_name", "write_contents"]

PLAIN: Final = ".json"
PACKED: Final = ".json.gz"
FILES_MAX: Final = 1_000_000
NAME_BYTES_MAX: Final = 200
"""A file's name with what is added to it stays below the 255 that file systems allow."""
GZIP_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to import."""

    path: Path
    name: str
    """Below the folder that was named, parts joined by ``/``."""

    @property
    def packed(self) -> bool:
        """Whether its name says gzip."""
        return self.name.lower().endswith(PACKED)


def find_files(paths: list[Path]) -> list[FoundFile]:
    """Every ``.json`` and ``.json.gz`` under ``paths``, in the order of their names.

    Raises ``ConfigError`` if a path is not there, not allowed, or has none.
    """
    found: list[FoundFile] = []
    for path in paths:
        if path.is_dir():
            below = _walk(path)
            if not below:
                raise ConfigError(
                    f"no {PLAIN} or {PACKED} file in {path}", hint="is this the right folder?"
                )
            found += below
        elif not path.exists():
            raise ConfigError(f"no such file or folder: {path}")
        elif path.is_file():
            found.append(FoundFile(path, _text(path.name)))
        else:
            raise ConfigError(f"{path} is neither a file nor a folder")
        if len(found) > FILES_MAX:
            raise ConfigError(f"more than {FILES_MAX} files", hint="import folder by folder")
    return found


def _walk(folder: Path) -> list[FoundFile]:
    def refuse(error: OSError) -> None:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for at, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path = Path(at, name)
            if name.lower().endswith((PLAIN, PACKED)) and path.is_file():
                found.append(FoundFile(path, _text(path.relative_to(folder).as_posix())))
    return sorted(found, key=lambda file: file.name)


def _text(name: str) -> str:
    """A file's name as text: what is not UTF-8 in it is replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_contents(file: FoundFile) -> bytes:
    """The JSON in a file, unpacked.

    Raises ``InvalidTransaction`` or ``ConfigError`` with the reason why not.
    """
    try:
        with file.path.open("rb") as opened:
            raw = opened.read(BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}") from None
    if not raw:
        raise InvalidTransaction("the file is empty", hint="copy it again")
    if len(raw) > BUNDLE_BYTES_MAX:
        raise InvalidTransaction(
            f"longer than {BUNDLE_BYTES_MAX} bytes", hint="split it into smaller bundles"
        )
    return gunzip_bounded(raw, BUNDLE_BYTES_MAX) if file.packed else raw


def open_folder(folder: Path) -> None:
    """Make the folder for an export, or take one that is there and empty.

    Raises ``ConfigError`` if it has files, is no folder, or forbids writing.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", hint="name a new folder")
        probe = folder / ".p2pmed"
        probe.touch(mode=0o600)
        probe.unlink()
    except FileExistsError:
        raise ConfigError(f"{folder} is a file", hint="name a new folder") from None
    except FileNotFoundError:
        raise ConfigError(f"no folder {folder.parent}") from None
    except OSError as error:
        raise disk_error(error, folder) from error


def safe_name(name: str, *, packed: bool, instead: str) -> str:
    """``name`` if it can only mean a file below the folder it is put in, else ``instead``.

    Names come from records, and records may come from others.
    """
    ending = PACKED if packed else PLAIN
    parts = name.split("/")
    fine = all(map(_is_safe, parts)) and name.lower().endswith((PLAIN, PACKED))
    return name if fine and len(parts) <= 32 else instead + ending


def _is_safe(part: str) -> bool:
    printable = not any(unicodedata.category(char)[0] == "C" for char in part)
    inside = part not in ("", ".", "..")
    return printable and inside and len(part.encode()) <= NAME_BYTES_MAX


def write_contents(folder: Path, name: str, contents: bytes, *, packed: bool) -> int:
    """Write a new private file, packed if asked; bytes on the disk.

    Raises ``ConfigError``, ``DiskFull`` or ``StorageError``; a file that is there is kept.
    """
    path = folder / name
    raw = gzip.compress(contents, GZIP_LEVEL, mtime=0) if packed else contents
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as opened:
            opened.write(raw)
    except OSError as error:
        raise disk_error(error, path) from error
    return len(raw)
