"""The replicated log above its floor: entries with (index, term), blocks with a height.

Rules:

* indexes are consecutive; terms never fall; heights of the blocks are consecutive, each
  block naming the one before it as parent; entries without a block have no height;
* ``floor`` stands for everything at and below its index, all of it decided;
* entries at or below a committed index are never cut (the caller sees to it).

An index and a height are two numbers, on purpose: the first entry of a new leader carries no
block (Raft, section 8), so it must have a place in the log and none in the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from p2pmed.consensus.interface import Block, header_digest
from p2pmed.wire import codec
from p2pmed.wire.codec import Count, OptionalId, Wire

__all__ = ["Entry", "FloorRow", "Log", "Slot", "make_slot", "open_slot"]

_VERSION = Annotated[int, msgspec.Meta(ge=1, le=1)]


class Entry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A log entry as it travels and lasts."""

    version: _VERSION
    term: Count
    block: Block | None
    """``None``: the first entry of a leader, which changes nothing."""


class FloorRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the log stands on."""

    version: _VERSION
    index: Count
    term: Count
    height: Count
    """Of the last block at or below ``index``."""
    digest: OptionalId
    """Of that block's header; empty before the first compaction."""


@dataclass(frozen=True, slots=True, repr=False)
class Slot:
    """An entry in its place."""

    index: int
    term: int
    raw: bytes
    """The encoded ``Entry``."""
    block: Block | None
    digest: bytes
    """Of the block's header; empty without a block."""


def make_slot(index: int, term: int, block: Block | None) -> Slot:
    """A new entry of our own."""
    raw = codec.encode(Entry(version=1, term=term, block=block))
    return Slot(index, term, raw, block, header_digest(block.header) if block else b"")


def open_slot(index: int, raw: bytes) -> Slot:
    """An entry that came over the wire or from the disk. Raises ``DecodeError``."""
    entry = codec.decode(raw, Entry)
    digest = header_digest(entry.block.header) if entry.block else b""
    return Slot(index, entry.term, raw, entry.block, digest)


class Log:
    """Entries above a floor, in memory; rows are the caller's business."""

    def __init__(self, floor: FloorRow) -> None:
        self.floor = floor
        self.bytes = 0
        """Sum of the encoded entries."""
        self._slots: list[Slot] = []
        self._index_of_height: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the floor."""
        return self.floor.index + len(self._slots)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the floor."""
        return self._slots[-1].term if self._slots else self.floor.term

    @property
    def last_block(self) -> Slot | None:
        """The last entry with a block, if there is one above the floor."""
        for slot in reversed(self._slots):
            if slot.block is not None:
                return slot
        return None

    def slot(self, index: int) -> Slot | None:
        """The entry at ``index``, unless it is at or below the floor or beyond the end."""
        place = index - self.floor.index - 1
        return self._slots[place] if 0 <= place < len(self._slots) else None

    def at_height(self, height: int) -> Slot | None:
        """The entry whose block has ``height``."""
        index = self._index_of_height.get(height)
        return None if index is None else self.slot(index)

    def term_at(self, index: int) -> int | None:
        """Term of the entry at ``index``; ``None`` where that is not known."""
        if index == self.floor.index:
            return self.floor.term
        slot = self.slot(index)
        return None if slot is None else slot.term

    def is_behind(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as ours (Raft, 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def at_or_below(self, index: int, term: int) -> tuple[int, int]:
        """The highest known (index, term) at or below ``index`` with at most ``term``.

        Entries between cannot match a log whose entry at ``index`` has ``term``.
        """
        index = min(index, self.last_index)
        while index > self.floor.index:
            known = self.term_at(index)
            if known is not None and known <= term:
                return index, known
            index -= 1
        return self.floor.index, self.floor.term

    def append(self, slot: Slot) -> None:
        """Put ``slot`` at the end."""
        assert slot.index == self.last_index + 1
        assert slot.term >= self.last_term
        self._slots.append(slot)
        self.bytes += len(slot.raw)
        if slot.block is not None:
            self._index_of_height[slot.block.header.height] = slot.index

    def cut(self, index: int) -> None:
        """Drop ``index`` and everything above."""
        place = index - self.floor.index - 1
        assert place >= 0
        for slot in self._slots[place:]:
            self._unlist(slot)
        del self._slots[place:]

    def raise_floor(self, index: int) -> None:
        """Drop everything up to ``index``, which stands for it from now on."""
        place = index - self.floor.index
        assert 0 < place <= len(self._slots)
        height, digest = self.floor.height, self.floor.digest
        for slot in self._slots[:place]:
            self._unlist(slot)
            if slot.block is not None:
                height, digest = slot.block.header.height, slot.digest
        term = self._slots[place - 1].term
        del self._slots[:place]
        self.floor = FloorRow(version=1, index=index, term=term, height=height, digest=digest)

    def reset(self, floor: FloorRow) -> None:
        """Drop all entries and stand on ``floor``."""
        self.floor = floor
        self.bytes = 0
        self._slots.clear()
        self._index_of_height.clear()

    def entries(self, start: int, limit: int, bytes_max: int) -> list[Slot]:
        """Entries from ``start`` on: at most ``limit`` and ``bytes_max``, but at least one."""
        place = start - self.floor.index - 1
        assert place >= 0
        found: list[Slot] = []
        size = 0
        for slot in self._slots[place : place + limit]:
            size += len(slot.raw)
            if found and size > bytes_max:
                break
            found.append(slot)
        return found

    def _unlist(self, slot: Slot) -> None:
        self.bytes -= len(slot.raw)
        if slot.block is not None:
            del self._index_of_height[slot.block.header.height]
