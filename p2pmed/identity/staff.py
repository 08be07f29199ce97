"""A staff member's file on one device: the person's keys, and the device's box secret for them.

Rule of this file: nothing in it opens by what is in it. The person's keys are sealed under a
passphrase *and* a random pepper that lies elsewhere on the device, so that a copied file cannot
be guessed at anywhere else; the device's box secrets are wrapped to the person's box key, so that
the device's own keystore never opens a patient's record. Implements
``docs/protocols/identity.md``, section 9.

A PIN is short, so its pepper is nowhere on the disk in the open: it lies under the passphrase, and
whoever has opened the file by passphrase may keep it in memory for as long as the machine is on.
A disk that was stolen then gives nobody a PIN to guess at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, DecodeError, Denied, Locked
from p2pmed.identity import sealing
from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.stretching import CHARS_MAX, USUAL, Cost, stretch
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, TimeMs, Wire

__all__ = [
    "PIN_CHARS_MIN",
    "STAFF_BYTES_MAX",
    "WORDS_CHARS_MIN",
    "OpenedStaff",
    "StaffFile",
    "make_staff",
    "open_staff",
    "read_staff",
    "with_boxes",
    "with_pin",
    "with_words",
    "without_pin",
]

STAFF_BYTES_MAX: Final = 8 * 1024
NAME_CHARS_MAX: Final = 64
WORDS_CHARS_MIN: Final = 8
PIN_CHARS_MIN: Final = 4
BOXES_MAX: Final = 8
"""Box secrets of one device: its own, and those of its lives before (``enrol`` again)."""
PEPPER_BYTES: Final = 32

DOMAIN: Final = "device box"
_SEALED = Annotated[bytes, msgspec.Meta(min_length=40, max_length=1_024)]


class _Way(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The person's keys under some words: argon2id, then the pepper."""

    cost: Cost
    salt: Bytes16
    sealed: _SEALED


class StaffFile(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file spells."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    person: Bytes32
    """Ed25519: the name in ``Envelope.actor``."""
    box_key: Bytes32
    created_ms: TimeMs
    anonymous: bool
    """Made with the home, for whoever holds its passphrase: acts name no person."""
    words: _Way
    pin: _Way | None
    boxes: Annotated[bytes, msgspec.Meta(max_length=sealing.WRAP_BYTES + BOXES_MAX * 32)]
    """The device's box secrets, wrapped to ``box_key``."""


class _Content(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    keys: Annotated[bytes, msgspec.Meta(max_length=512)]
    pin_pepper: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpenedStaff:
    """A staff member's file, opened: all of it is secret."""

    keys: PersonKeys
    boxes: tuple[bytes, ...]
    """X25519 secrets of the device; the first is the present one."""
    pin_pepper: bytes


def read_staff(raw: bytes) -> StaffFile:
    """What a file says in clear. Raises ``ConfigError`` if it is no staff member's."""
    try:
        file = codec.decode(raw, StaffFile, limit=STAFF_BYTES_MAX)
    except DecodeError:
        raise ConfigError(
            "a staff file that is damaged, or none",
            hint="let another staff member add the person again",
        ) from None
    if not file.name.isprintable():
        raise ConfigError("a staff member's name that is not one line of text")
    return file


def make_staff(
    name: str,
    words: str,
    *,
    boxes: Sequence[bytes],
    device: bytes,
    pepper: bytes,
    created_ms: int,
    entropy: Entropy,
    cost: Cost = USUAL,
    anonymous: bool = False,
) -> bytes:
    """A new person with new keys, on the ``device`` (32 bytes) whose ``boxes`` these are.

    Takes 0.1 s. Raises ``ConfigError`` for a name or a passphrase that cannot be.
    """
    keys = PersonKeys.generate(entropy)
    pin_pepper = entropy.token(PEPPER_BYTES)
    file = StaffFile(
        version=1,
        name=name,
        person=keys.person,
        box_key=keys.box_public,
        created_ms=created_ms,
        anonymous=anonymous,
        words=_under_words(words, keys, pin_pepper, pepper, entropy, cost),
        pin=None,
        boxes=_wrap_boxes(boxes, keys.box_public, keys.person, device),
    )
    raw = codec.encode(file)
    read_staff(raw)
    return raw


def open_staff(
    raw: bytes, words: str, *, device: bytes, pepper: bytes, by_pin: bool = False
) -> OpenedStaff:
    """What is in a file; ``pepper`` is the device's, or for a PIN the one kept in memory.

    Takes 0.1 s. Raises ``Locked`` for other words or another device's pepper, ``ConfigError``
    for a damaged file or one without a PIN.
    """
    file = read_staff(raw)
    way = file.pin if by_pin else file.words
    if way is None:
        raise ConfigError("no PIN is set", hint="unlock by passphrase, then `p2pmed staff pin`")
    key = _key(words, way, pepper, _label(by_pin, file.person))
    try:
        plain = sealing.open_sealed(key, way.sealed[:24], way.sealed[24:], file.person)
        content = codec.decode(plain, _Content)
        keys = PersonKeys.from_secret_bytes(content.keys)
    except DecodeError:
        raise Locked(f"the {'PIN' if by_pin else 'passphrase'} does not open that") from None
    if (keys.person, keys.box_public) != (file.person, file.box_key):
        raise ConfigError("a staff file whose keys are not those it names")
    return OpenedStaff(
        keys=keys, boxes=_open_boxes(file, keys, device), pin_pepper=content.pin_pepper
    )


def with_words(
    raw: bytes, words: str, opened: OpenedStaff, *, pepper: bytes, entropy: Entropy, cost: Cost
) -> bytes:
    """The file under another passphrase; the PIN stays. Raises ``ConfigError``."""
    file = read_staff(raw)
    way = _under_words(words, opened.keys, opened.pin_pepper, pepper, entropy, cost)
    return codec.encode(msgspec.structs.replace(file, words=way))


def with_pin(raw: bytes, pin: str, opened: OpenedStaff, *, entropy: Entropy, cost: Cost) -> bytes:
    """The file with a PIN beside the passphrase. Raises ``ConfigError`` for too short a one."""
    if not PIN_CHARS_MIN <= len(pin) <= CHARS_MAX:
        raise ConfigError(f"a PIN of fewer than {PIN_CHARS_MIN} characters, or far too many")
    file, salt = read_staff(raw), entropy.token(16)
    way = _way(pin, opened.keys, opened.pin_pepper, salt, opened.pin_pepper, True, entropy, cost)
    return codec.encode(msgspec.structs.replace(file, pin=way))


def without_pin(raw: bytes) -> bytes:
    """The file with its passphrase only."""
    return codec.encode(msgspec.structs.replace(read_staff(raw), pin=None))


def with_boxes(raw: bytes, boxes: Sequence[bytes], device: bytes) -> bytes:
    """The file with the device's box secrets wrapped anew: only the person's key is needed."""
    file = read_staff(raw)
    wrapped = _wrap_boxes(boxes, file.box_key, file.person, device)
    return codec.encode(msgspec.structs.replace(file, boxes=wrapped))


def _under_words(
    words: str,
    keys: PersonKeys,
    pin_pepper: bytes,
    pepper: bytes,
    entropy: Entropy,
    cost: Cost,
) -> _Way:
    if len(words) < WORDS_CHARS_MIN:
        raise ConfigError(
            f"a passphrase of fewer than {WORDS_CHARS_MIN} characters",
            hint="six random words are easy to remember and hard to guess",
        )
    return _way(words, keys, pin_pepper, entropy.token(16), pepper, False, entropy, cost)


def _way(
    words: str,
    keys: PersonKeys,
    pin_pepper: bytes,
    salt: bytes,
    pepper: bytes,
    by_pin: bool,
    entropy: Entropy,
    cost: Cost,
) -> _Way:
    way = _Way(cost=cost, salt=salt, sealed=bytes(40))
    key = _key(words, way, pepper, _label(by_pin, keys.person))
    nonce = entropy.token(24)
    content = codec.encode(_Content(keys.to_secret_bytes(), pin_pepper))
    sealed = nonce + sealing.seal(key, nonce, content, keys.person)
    return msgspec.structs.replace(way, sealed=sealed)


def _label(by_pin: bool, person: bytes) -> bytes:
    return cbor.encode([sealing.PROTOCOL, "staff", "pin" if by_pin else "words", person])


def _key(words: str, way: _Way, pepper: bytes, label: bytes) -> bytes:
    stretched = stretch(words, salt=way.salt, cost=way.cost)
    return sealing.derive(stretched, salt=pepper, info=label)[:32]


def _wrap_boxes(boxes: Sequence[bytes], box_key: bytes, person: bytes, device: bytes) -> bytes:
    if not 1 <= len(boxes) <= BOXES_MAX:
        raise ConfigError(f"{len(boxes)} box secrets where 1 to {BOXES_MAX} can be")
    context = (device, person)
    return sealing.wrap(box_key, b"".join(boxes), domain=DOMAIN, context=context)


def _open_boxes(file: StaffFile, keys: PersonKeys, device: bytes) -> tuple[bytes, ...]:
    try:
        context = (device, file.person)
        joined = sealing.unwrap(keys.box_secret, file.boxes, domain=DOMAIN, context=context)
    except (Denied, DecodeError):
        raise ConfigError(
            "that person's file is of another device",
            hint="let a staff member of this device add the person",
        ) from None
    boxes = tuple(joined[at : at + 32] for at in range(0, len(joined), 32))
    if not boxes or any(len(box) != 32 for box in boxes):
        raise ConfigError("a staff file that holds no box secrets")
    return boxes
