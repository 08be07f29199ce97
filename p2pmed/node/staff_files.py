"""The folder ``staff`` of a home: who may open patients' records on this device.

::

    staff/pepper            32 random bytes of this device, without which no passphrase opens
    staff/<person>.staff    one file for each person (identity/staff.py)
    staff/<person>.tries    wrong PINs since the right one, counted before each try

Rule of this file: a try is counted, and the count is on the disk, before the PIN is looked at;
so pulling the plug buys nobody another try. Who puts back an older copy of the folder does get
his tries again, and still needs what lies in the node's memory only (``identity/staff.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, DecodeError, Locked
from p2pmed.identity.staff import STAFF_BYTES_MAX, StaffFile, make_staff, read_staff
from p2pmed.identity.stretching import USUAL, Cost
from p2pmed.storage.files import make_folder, read_file, replace_file
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Wire

__all__ = [
    "DEFAULT_NAME",
    "PIN_TRIES_MAX",
    "STAFF_MAX",
    "create_staff",
    "every_staff",
    "file_of",
    "forget_tries",
    "keep_staff",
    "next_try",
    "pack_staff",
    "pepper_of",
    "remove_staff",
    "unpack_staff",
]

FOLDER: Final = "staff"
PEPPER: Final = "pepper"
SUFFIX: Final = ".staff"
TRIES_SUFFIX: Final = ".tries"
DEFAULT_NAME: Final = "keeper"
"""Who is made with the home, and opened by its passphrase."""
STAFF_MAX: Final = 64
PIN_TRIES_MAX: Final = 10
PACKED_BYTES_MAX: Final = 1024 * 1024


def create_staff(
    home: Path,
    passphrase: str,
    *,
    box_secret: bytes,
    device: bytes,
    created_ms: int,
    entropy: Entropy,
    cost: Cost = USUAL,
) -> None:
    """The folder of a new home, or of one that was enrolled anew, with its first person.

    Raises ``ConfigError`` (the passphrase, or not allowed), ``DiskFull`` or ``StorageError``.
    """
    folder, pepper = home / FOLDER, entropy.token(32)
    if not folder.exists():
        make_folder(folder)
    replace_file(folder / PEPPER, pepper)
    raw = make_staff(
        DEFAULT_NAME,
        passphrase,
        boxes=[box_secret],
        device=device,
        pepper=pepper,
        created_ms=created_ms,
        entropy=entropy,
        cost=cost,
        anonymous=True,
    )
    keep_staff(home, raw)


def pepper_of(home: Path) -> bytes:
    """The device's pepper (32 bytes). Raises ``ConfigError`` if it is gone."""
    raw = read_file(home / FOLDER / PEPPER)
    if raw is None or len(raw) != 32:
        raise ConfigError(
            f"no pepper in {home / FOLDER}",
            hint="without it no passphrase opens: see the guide to lost keys",
        )
    return raw


def every_staff(home: Path) -> Iterator[tuple[StaffFile, bytes]]:
    """Each person who may unlock, by name; files that are damaged are passed over."""
    folder = home / FOLDER
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}"))[:STAFF_MAX] if folder.is_dir() else []:
        raw = read_file(path)
        try:
            if raw is not None:
                found.append((read_staff(raw), raw))
        except ConfigError:
            continue
    yield from sorted(found, key=lambda pair: (pair[0].name, pair[0].person))


def file_of(home: Path, name: str) -> tuple[StaffFile, bytes]:
    """The file of the person called ``name`` (or whose key begins so, in hex).

    Empty: the only person there is. Raises ``ConfigError`` if there is none, or several.
    """
    known = list(every_staff(home))
    fits = [pair for pair in known if name in ("", pair[0].name)]
    if not fits and len(name) >= 8:
        fits = [pair for pair in known if pair[0].person.hex().startswith(name.lower())]
    if len(fits) == 1:
        return fits[0]
    if not known:
        raise ConfigError("nobody may unlock this home", hint="see the guide to lost keys")
    names = ", ".join(file.name for file, _ in known)
    if not fits:
        raise ConfigError("no such staff member on this device", hint=f"there are: {names}")
    raise ConfigError("which staff member?", hint=f"say --as with one of: {names}")


def keep_staff(home: Path, raw: bytes) -> StaffFile:
    """Write a person's file, in the place of an older one. Raises ``ConfigError``."""
    file = read_staff(raw)
    others = [each for each, _ in every_staff(home) if each.person != file.person]
    if len(others) >= STAFF_MAX:
        raise ConfigError(f"{STAFF_MAX} staff members on one device are the most")
    if any(each.name == file.name for each in others):
        raise ConfigError("a staff member of that name is there already")
    replace_file(_path(home, file.person, SUFFIX), raw)
    return file


def remove_staff(home: Path, person: bytes) -> None:
    """Take a person's file away. Raises ``ConfigError`` if it is the last one."""
    known = [file.person for file, _ in every_staff(home)]
    if known == [person]:
        raise ConfigError("the last staff member cannot be removed", hint="add another one first")
    _path(home, person, SUFFIX).unlink(missing_ok=True)
    _path(home, person, TRIES_SUFFIX).unlink(missing_ok=True)


def next_try(home: Path, person: bytes) -> int:
    """Count one more PIN, durably; how many are left after it. Raises ``Locked`` beyond ten."""
    path = _path(home, person, TRIES_SUFFIX)
    raw = read_file(path)
    used = raw[0] if raw else 0
    if used >= PIN_TRIES_MAX:
        raise Locked(
            f"{PIN_TRIES_MAX} wrong PINs: this PIN opens nothing any more",
            hint="unlock by passphrase",
        )
    replace_file(path, bytes([used + 1]))
    return PIN_TRIES_MAX - used - 1


def forget_tries(home: Path, person: bytes) -> None:
    """The right PIN or the passphrase was given."""
    if read_file(_path(home, person, TRIES_SUFFIX)) is not None:
        replace_file(_path(home, person, TRIES_SUFFIX), b"\x00")


class _Packed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    pepper: Bytes32
    people: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=STAFF_BYTES_MAX)], ...],
        msgspec.Meta(max_length=STAFF_MAX),
    ]


def pack_staff(home: Path) -> bytes:
    """The folder as one value, for a backup. Raises ``ConfigError`` if it is not whole."""
    return codec.encode(_Packed(pepper_of(home), tuple(raw for _, raw in every_staff(home))))


def unpack_staff(home: Path, raw: bytes) -> None:
    """The folder of a home that is restored. Raises ``ConfigError`` or as ``replace_file``."""
    try:
        packed = codec.decode(raw, _Packed, limit=PACKED_BYTES_MAX)
    except DecodeError:
        raise ConfigError("the backup's staff files are damaged") from None
    make_folder(home / FOLDER)
    replace_file(home / FOLDER / PEPPER, packed.pepper)
    for each in packed.people:
        keep_staff(home, each)


def _path(home: Path, person: bytes, suffix: str) -> Path:
    return home / FOLDER / f"{person.hex()[:32]}{suffix}"
