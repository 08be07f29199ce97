"""What a node asks of a vault, and what a vault answers.

Rule of this file: no answer holds a secret of the device, of a person, of a facility or of a
patient's category; what leaves is public halves, handles, wraps to others, and keys of single
records. Every field has a bound, for the two halves may run in two processes.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.identity.staff import STAFF_BYTES_MAX
from p2pmed.identity.stretching import CHARS_MAX, Cost
from p2pmed.medical.category_keys import HANDLE_BYTES, Category, KeptRow
from p2pmed.medical.privacy.locks import LOCKED_BYTES
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Text, TimeMs, Wire

__all__ = [
    "FRAME_BYTES_MAX",
    "AddStaff",
    "Answer",
    "Ask",
    "Begin",
    "Begun",
    "Data",
    "Derive",
    "Failed",
    "Lend",
    "Mac",
    "MakeFacility",
    "MakeKeys",
    "Many",
    "NewPin",
    "NewWords",
    "OpenFacility",
    "OpenKeys",
    "OpenLocked",
    "Rewrap",
    "Rows",
    "Sign",
    "TakeBack",
    "TakeKey",
    "Unwrap",
    "WrapKeys",
]

FRAME_BYTES_MAX: Final = 1024 * 1024
MANY_MAX: Final = 256

Handle = Annotated[bytes, msgspec.Meta(min_length=HANDLE_BYTES, max_length=HANDLE_BYTES)]
Words = Annotated[str, msgspec.Meta(max_length=CHARS_MAX)]
File = Annotated[bytes, msgspec.Meta(max_length=STAFF_BYTES_MAX)]
Long = Annotated[bytes, msgspec.Meta(max_length=64 * 1024)]
KeyRows = Annotated[tuple[KeptRow, ...], msgspec.Meta(max_length=MANY_MAX)]
Keys = Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=MANY_MAX)]
Names = Annotated[tuple[Bytes16, ...], msgspec.Meta(max_length=MANY_MAX)]


class Begin(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Open a staff member's file: the first thing asked, and all that is asked while closed."""

    file: File
    words: Words
    device: Bytes32
    pepper: Bytes32
    by_pin: bool


class OpenKeys(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """A patient's keys, wrapped to the box named ``box``."""

    box: Bytes16
    wrapped: Long
    network: Bytes32
    patient: Bytes16
    purpose: Text


class MakeKeys(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """New keys; ``locks`` are empty or as many as ``categories``."""

    patient: Bytes16
    categories: Annotated[tuple[Category, ...], msgspec.Meta(max_length=len(Category))]
    epoch: Count
    locks: Annotated[tuple[Long, ...], msgspec.Meta(max_length=len(Category))]


class OpenLocked(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """A key under the patient's passphrase, by the lock's secret."""

    patient: Bytes16
    key_id: Bytes16
    locked: Annotated[bytes, msgspec.Meta(min_length=LOCKED_BYTES, max_length=LOCKED_BYTES)]
    secret: Bytes32


class WrapKeys(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Keys as one ciphertext for the holder of ``key``."""

    rows: KeyRows
    key: Bytes32
    network: Bytes32
    patient: Bytes16
    purpose: Text


class Derive(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """64 bytes for one use of one key: those of a single record, say."""

    handle: Handle
    salt: Long
    info: Long


class Mac(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """HMAC-SHA256 under a key."""

    handle: Handle
    message: Long


class Unwrap(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """What is wrapped to a box and is no key of the kinds that stay in the vault."""

    box: Bytes16
    wrapped: Long
    domain: Text
    context: Long
    """CBOR of the list that the wrap is bound to."""


class OpenFacility(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """A facility's box secrets, wrapped to the device; they stay here."""

    box: Bytes16
    wrapped: Long
    network: Bytes32
    place: Text
    epoch: Count


class MakeFacility(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """A new secret of a facility, wrapped with those named ``older`` to each of ``devices``."""

    older: Names
    devices: Keys
    network: Bytes32
    place: Text
    epoch: Count


class Lend(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """Box secrets of a card that lies on the table."""

    secrets: Keys


class TakeBack(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=12):
    """The card is gone."""

    boxes: Names


class Sign(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=13):
    """The person's countersignature."""

    network: Bytes32
    purpose: Text
    digest: Bytes32


class AddStaff(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=14):
    """A new person's file on this device."""

    name: Text
    words: Words
    pepper: Bytes32
    created_ms: TimeMs
    cost: Cost


class NewWords(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=15):
    """The open person's file under another passphrase."""

    words: Words
    pepper: Bytes32
    cost: Cost


class NewPin(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """The open person's file with another PIN."""

    pin: Words
    cost: Cost


class Rewrap(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=17):
    """Somebody's file with this device's box secrets wrapped anew."""

    file: File


class TakeKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=18):
    """A patient's key that came from elsewhere."""

    key: Bytes32


class Begun(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=32):
    """Whose session it is."""

    person: Bytes32
    name: Text
    anonymous: bool
    boxes: Keys
    """Public halves of the device's box secrets."""
    pin_pepper: Annotated[bytes, msgspec.Meta(max_length=32)]
    """Empty unless it was opened by passphrase."""


class Rows(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=33):
    """Keys, as handles."""

    rows: KeyRows


class Data(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=34):
    """Bytes."""

    data: bytes


class Many(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=35):
    """Several byte strings."""

    items: tuple[bytes, ...]


class Failed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=36):
    """Why not: the name of an error, and its sentence."""

    error: Text
    text: Text
    hint: Text


Ask: TypeAlias = (
    Begin
    | OpenKeys
    | MakeKeys
    | OpenLocked
    | WrapKeys
    | Derive
    | Mac
    | Unwrap
    | OpenFacility
    | MakeFacility
    | Lend
    | TakeBack
    | Sign
    | AddStaff
    | NewWords
    | NewPin
    | Rewrap
    | TakeKey
)
Answer: TypeAlias = Begun | Rows | Data | Many | Failed
