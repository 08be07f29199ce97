"""A commitment to a whole state that changes with it: LtHash16 (Lewi et al. 2019, ePrint 2019/227).

Each row hashes to 1,024 numbers of 16 bits; the commitment of a set of rows is their sum,
lane by lane. Adding and removing a row costs one hash, whatever the size of the state, and the
order of changes does not matter: a snapshot is checked by summing its rows.

All lanes stand in one Python integer. Carries are kept inside their lane by adding the low
15 bits and the top bit of each lane apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import shake_128
from typing import Final

from p2pmed.wire.hashing import hash_bytes

__all__ = ["EMPTY", "StateHash", "row_hash", "state_root"]

_LANES: Final = 1_024
_BYTES: Final = 2 * _LANES
_TOP: Final = int.from_bytes(b"\x80\x00" * _LANES, "big")
_LOW: Final = int.from_bytes(b"\x7f\xff" * _LANES, "big")

StateHash = int
"""A sum of row hashes; ``EMPTY`` is that of no rows."""

EMPTY: Final[StateHash] = 0


def row_hash(key: bytes, value: bytes) -> int:
    """The lanes of one row; the key's length is hashed, so rows cannot be cut differently."""
    data = len(key).to_bytes(4, "big") + key + value
    return int.from_bytes(shake_128(data).digest(_BYTES), "big")


def add(total: StateHash, row: int) -> StateHash:
    """``total`` with ``row`` in it."""
    return ((total & _LOW) + (row & _LOW)) ^ ((total ^ row) & _TOP)


def subtract(total: StateHash, row: int) -> StateHash:
    """``total`` without ``row``."""
    return ((total | _TOP) - (row & _LOW)) ^ ((total ^ row ^ _TOP) & _TOP)


def changed(
    total: StateHash, changes: Iterable[tuple[bytes, bytes | None, bytes | None]]
) -> StateHash:
    """``total`` after ``(key, old value, new value)`` changes; ``None`` is no row."""
    for key, old, new in changes:
        if old == new:
            continue
        if old is not None:
            total = subtract(total, row_hash(key, old))
        if new is not None:
            total = add(total, row_hash(key, new))
    return total


def to_bytes(total: StateHash) -> bytes:
    """2,048 bytes."""
    return total.to_bytes(_BYTES, "big")


def from_bytes(raw: bytes) -> StateHash:
    """Inverse of ``to_bytes``."""
    return int.from_bytes(raw, "big")


def state_root(total: StateHash) -> bytes:
    """The 32 bytes that a block carries."""
    return hash_bytes(to_bytes(total))
