"""What a key of a patient is about, and how it is used: in the open, or through its keeper.

Rule of this file: whoever uses a key asks the key (``derive``, ``mac``), never for its bytes; so
a node can work with keys that it does not hold. Implements ``docs/protocols/records.md``,
clauses 10 and 12.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Protocol

import msgspec

from p2pmed.identity import sealing
from p2pmed.medical.privacy.locks import LOCKED_BYTES, Lock, join_locked, part_locked
from p2pmed.wire.codec import Bytes16, Count, Wire

__all__ = [
    "EVERY_CATEGORY",
    "HANDLE_BYTES",
    "Category",
    "CategoryKey",
    "Keeper",
    "KeptRow",
    "for_keeper",
    "of_keeper",
    "open_lock",
]


class Category(StrEnum):
    """What a patient can share apart; the value is part of the protocol."""

    DEMOGRAPHICS = "demographics"
    GENERAL = "general"
    MEDICATION = "medication"
    LABORATORY = "laboratory"
    IMAGING = "imaging"
    SURGERY = "surgery"
    IMMUNIZATION = "immunization"
    REPRODUCTIVE = "reproductive"
    MENTAL_HEALTH = "mental_health"
    HIV_STI = "hiv_sti"
    SUBSTANCE_USE = "substance_use"
    INSURANCE = "insurance"
    CONSENT = "consent"
    """Who may read what: not a part of the record, but what grants and requests are told under."""


EVERY_CATEGORY: Final = tuple(each for each in Category if each is not Category.CONSENT)
"""What a record can be about."""

HANDLE_BYTES: Final = 16
"""What stands for a key that a keeper keeps."""


class Keeper(Protocol):
    """Who keeps keys so that a ring need not: it uses them, and does not hand them out.

    Rows are category, epoch, key id, and a handle (``HANDLE_BYTES``) or a locked key
    (``LOCKED_BYTES``); ``privacy/vault.py`` is the one there is.
    """

    def open_keys(
        self, box: bytes, wrapped: bytes, network: bytes, patient: bytes, purpose: str
    ) -> list[KeptRow]:
        """The keys wrapped to the ``box_id`` ``box``. Raises ``Denied`` or ``DecodeError``."""

    def make_keys(
        self, patient: bytes, categories: Sequence[Category], epoch: int, locks: Sequence[bytes]
    ) -> list[KeptRow]:
        """New random keys; ``locks`` are as long as ``categories``, empty for none."""

    def take_key(self, key: bytes) -> bytes:
        """The handle of a ``key`` (32 bytes) that came from elsewhere; it is kept from now on."""

    def open_locked(self, patient: bytes, key_id: bytes, locked: bytes, secret: bytes) -> bytes:
        """The handle of a locked key, opened with the lock's secret. Raises ``Denied``."""

    def wrap_keys(
        self, rows: Sequence[KeptRow], key: bytes, network: bytes, patient: bytes, purpose: str
    ) -> bytes:
        """``rows`` as one ciphertext for the holder of the X25519 ``key``."""

    def derive(self, handle: bytes, salt: bytes, info: bytes) -> bytes:
        """``sealing.derive`` from the key."""

    def mac(self, handle: bytes, message: bytes) -> bytes:
        """HMAC-SHA256 of ``message`` under the key."""


class KeptRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key as a ``Keeper`` tells of it, or is told."""

    category: Category
    epoch: Count
    key_id: Bytes16
    handle: Annotated[bytes, msgspec.Meta(max_length=HANDLE_BYTES)]
    """Empty while it is locked."""
    locked: Annotated[bytes, msgspec.Meta(max_length=LOCKED_BYTES)]
    """Empty, or ``LOCKED_BYTES``: the lock and the key sealed under it."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CategoryKey:
    """One key: what it is for, its random name, and the 32 bytes themselves, or their handle."""

    category: Category
    epoch: int
    key_id: bytes
    key: bytes
    """32 bytes, or the handle that ``keeper`` gave; empty while it is locked."""
    lock: Lock | None = None
    """The patient's own passphrase, without which it is not handed on."""
    sealed: bytes = b""
    """The key sealed under ``lock``."""
    keeper: Keeper | None = None
    """Who holds the key itself."""

    def derive(self, *, salt: bytes, info: bytes) -> bytes:
        """64 bytes by ``sealing.derive`` from this key."""
        if self.keeper is not None:
            return self.keeper.derive(self.key, salt, info)
        return sealing.derive(self.key, salt=salt, info=info)

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 (32 bytes) of ``message`` under this key."""
        if self.keeper is not None:
            return self.keeper.mac(self.key, message)
        return hmac.digest(self.key, message, "sha256")

    @property
    def locked(self) -> bytes:
        """The lock and the key under it, ``LOCKED_BYTES``; empty if it has no lock."""
        return b"" if self.lock is None else join_locked(self.lock, self.sealed)

    @property
    def spelled(self) -> bytes:
        """The key as it is wrapped: never in the open if it has a lock."""
        return self.locked or self.key

    @property
    def order(self) -> tuple[str, int, bytes]:
        """Where it stands in a ring."""
        return (self.category.value, self.epoch, self.key_id)


def of_keeper(row: KeptRow, keeper: Keeper) -> CategoryKey:
    """The key of which ``keeper`` told ``row``."""
    lock, sealed = part_locked(row.locked) if row.locked else (None, b"")
    return CategoryKey(
        category=row.category,
        epoch=row.epoch,
        key_id=row.key_id,
        key=row.handle,
        lock=lock,
        sealed=sealed,
        keeper=keeper,
    )


def for_keeper(key: CategoryKey, keeper: Keeper) -> KeptRow:
    """The row by which ``keeper`` is told of ``key``; one in the open is handed in."""
    handle = b"" if key.lock else key.key
    if handle and key.keeper is None:
        handle = keeper.take_key(handle)
    return KeptRow(key.category, key.epoch, key.key_id, handle, key.locked)


def open_lock(key: CategoryKey, lock: Lock, secret: bytes, patient: bytes) -> bytes:
    """The key under ``lock``, or its handle. Raises ``Denied`` or ``DecodeError``."""
    if key.keeper is not None:
        return key.keeper.open_locked(patient, key.key_id, key.locked, secret)
    return lock.open(key.sealed, secret, patient, key.key_id)
