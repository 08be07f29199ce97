"""What a Raft member must not forget, as rows in the engine's own namespace.

Key: one byte of kind after the epoch's number, so that an engine sees at once which rows are
its own; a log row adds its index (8 bytes, big-endian). Rows of other epochs are ignored, and
deleted with the first flush. Byte-exact: ``docs/protocols/raft.md``, part 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.consensus.raft.log import FloorRow, Slot, open_slot
from p2pmed.errors import DecodeError, StorageError
from p2pmed.wire import codec
from p2pmed.wire.codec import Count, Wire

__all__ = ["BallotRow", "Memory", "ballot_key", "entry_key", "floor_key", "load", "lost_key"]

_PREFIX: Final = b"raft/"
_BALLOT, _FLOOR, _ENTRY, _LOST = b"\x01", b"\x02", b"\x03", b"\x04"
_HEAD_BYTES: Final = len(_PREFIX) + 9


class BallotRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Term and vote, in one row: neither is worth anything without the other."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    term: Count
    voted_for: Annotated[int, msgspec.Meta(ge=0, le=255)] | None


@dataclass(frozen=True, slots=True, repr=False)
class Memory:
    """What was durable at start."""

    ballot: BallotRow
    floor: FloorRow | None
    slots: tuple[Slot, ...]
    lost: bool
    stale: tuple[bytes, ...]
    """Keys of other epochs' rows."""


def _key(epoch: int, kind: bytes) -> bytes:
    return _PREFIX + epoch.to_bytes(8, "big") + kind


def ballot_key(epoch: int) -> bytes:
    """Where term and vote are kept."""
    return _key(epoch, _BALLOT)


def floor_key(epoch: int) -> bytes:
    """Where the log's floor is kept."""
    return _key(epoch, _FLOOR)


def entry_key(epoch: int, index: int) -> bytes:
    """Where the log entry at ``index`` is kept."""
    return _key(epoch, _ENTRY) + index.to_bytes(8, "big")


def lost_key(epoch: int) -> bytes:
    """Present if this member once forgot what it had promised in this epoch."""
    return _key(epoch, _LOST)


def load(records: Mapping[bytes, bytes], epoch: int) -> Memory:
    """Read what was durable.

    Raises ``StorageError`` if a row is rotten or an entry is missing: a member that has
    forgotten must not vote as if it had not.
    """
    own = [key for key in sorted(records) if key.startswith(_key(epoch, b""))]
    try:
        raw_ballot = records.get(ballot_key(epoch))
        ballot = (
            codec.decode(raw_ballot, BallotRow)
            if raw_ballot is not None
            else BallotRow(version=1, term=0, voted_for=None)
        )
        raw_floor = records.get(floor_key(epoch))
        floor = codec.decode(raw_floor, FloorRow) if raw_floor is not None else None
        slots = tuple(
            open_slot(int.from_bytes(key[_HEAD_BYTES:], "big"), records[key])
            for key in own
            if key[:_HEAD_BYTES] == _key(epoch, _ENTRY)
        )
    except DecodeError as error:
        raise StorageError(f"a consensus row is rotten: {error}") from None
    first = (floor.index if floor else 0) + 1
    if [slot.index for slot in slots] != list(range(first, first + len(slots))):
        raise StorageError("the consensus log has a hole")
    if any(slot.term > ballot.term for slot in slots):
        raise StorageError("the consensus log is ahead of its term")
    return Memory(
        ballot=ballot,
        floor=floor,
        slots=slots,
        lost=lost_key(epoch) in records,
        stale=tuple(
            key
            for key in sorted(records)
            if key.startswith(_PREFIX) and not key.startswith(_key(epoch, b""))
        ),
    )
