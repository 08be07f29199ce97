"""A disk that loses what a real one may lose: for the seeded simulator.

The file is an append-only log of batches. ``begin`` seals what is staged, encodes it and
appends the bytes un-synced; ``finish`` is the flush that makes them last. Between the two
the simulator lets time pass, and may ``crash``: then a random prefix of the un-synced bytes
remains, cut anywhere, and recovery keeps the whole batches in it and drops the torn one.
So what was finished is always kept, and what was not may be kept: its fate is unknown, as
on a real disk after a power cut.

Rule: all dice are handed in; same seed, same fate.

One record: length of the body (4, big-endian), CRC-32 of the body (4), body. The body is a
run of rows: space (1), length of the key (2), key, length of the value + 1 or 0 for a
delete (4), value. Only the simulator reads it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, Literal

from p2pmed.engine import Rng
from p2pmed.errors import DiskFull, StorageError
from p2pmed.storage.memory import Batch, MemoryBase, Row, StagedMap
from p2pmed.world import Space

__all__ = ["SimDisk", "decode_log", "encode_batch"]

_HEAD: Final = 8
SECTOR_BYTES: Final = 512
"""What a disk writes at once."""


def encode_batch(batch: Batch) -> bytes:
    """One record of the log."""
    body = bytearray()
    for space, key, value in batch.ordered():
        body += bytes([space]) + len(key).to_bytes(2, "big") + key
        body += (0 if value is None else len(value) + 1).to_bytes(4, "big") + (value or b"")
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + bytes(body)


def decode_log(log: bytes) -> tuple[list[Batch], int]:
    """The whole batches at the start of ``log``, and how many bytes they take."""
    batches: list[Batch] = []
    at = 0
    while at + _HEAD <= len(log):
        end = at + _HEAD + int.from_bytes(log[at : at + 4], "big")
        body = log[at + _HEAD : end]
        if end > len(log) or zlib.crc32(body) != int.from_bytes(log[at + 4 : at + 8], "big"):
            break
        batches.append(_decode_body(body, len(batches) + 1))
        at = end
    return batches, at


def _decode_body(body: bytes, number: int) -> Batch:
    rows: dict[Space, dict[bytes, bytes | None]] = {}
    at = 0
    while at < len(body):
        space = Space(body[at])
        key_at = at + 3
        size_at = key_at + int.from_bytes(body[at + 1 : key_at], "big")
        value_at = size_at + 4
        size = int.from_bytes(body[size_at:value_at], "big")
        at = value_at + max(size - 1, 0)
        rows.setdefault(space, {})[body[key_at:size_at]] = body[value_at:at] if size else None
    return Batch(number, rows, len(body))


class _Checked:
    """Committed rows, of which some may be rotten: reading one of those fails."""

    def __init__(self, on_rotten: Callable[[], None]) -> None:
        self.rows = MemoryBase()
        self.rotten: set[tuple[Space, bytes]] = set()
        self._on_rotten = on_rotten

    def get(self, space: Space, key: bytes) -> bytes | None:
        if (space, key) in self.rotten:
            self._on_rotten()
            raise StorageError(f"a row of {space.name} is rotten: its checksum does not match")
        return self.rows.get(space, key)

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        rows = self.rows.scan(space, start, end, limit=limit, reverse=reverse)
        if self.rotten:
            for key, _ in rows:
                self.get(space, key)
        return rows

    def apply(self, batch: Batch) -> None:
        self.rows.apply(batch)
        if self.rotten:
            self.rotten -= {(space, key) for space, keys in batch.rows.items() for key in keys}


class SimDisk:
    """``world.Disk`` with power cuts, rotten rows, failing flushes and an end of room."""

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        """Room for the rows and the log that is not flushed; ``None`` is endless."""
        self.fail_next_sync = False
        """The next ``finish`` raises ``StorageError``, as a failed flush does."""
        self.fate: Literal["", "kept", "lost", "torn", "reordered"] = ""
        """What the last ``crash`` did to writes that were not flushed; empty: there were none."""
        self.read_failed = False
        """Whether a rotten row was read since the last ``crash`` or ``mend``."""
        self._base = _Checked(self._on_rotten)
        self._staged = StagedMap(self._base)
        self._unsynced: deque[tuple[Batch, bytes]] = deque()
        self._broken: StorageError | None = None

    @property
    def dirty(self) -> bool:
        """Whether anything was staged since the last ``begin``."""
        return self._staged.dirty

    @property
    def staged_bytes(self) -> int:
        """Keys and values not yet durable."""
        return self._staged.staged_bytes

    @property
    def broken(self) -> StorageError | None:
        """Why nothing is written any more until ``crash``, or ``None``."""
        return self._broken

    def get(self, space: Space, key: bytes) -> bytes | None:
        """As ``world.Disk.get``."""
        return self._staged.get(space, key)

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``."""
        return self._staged.scan(space, start, end, limit=limit, reverse=reverse)

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """As ``world.Disk.stage``; raises ``StorageError`` on a broken disk."""
        self._refuse_if_broken()
        self._staged.stage(space, key, value)

    def begin(self) -> Batch:
        """Append what is staged to the log, not flushed yet.

        Raises ``DiskFull`` if it does not fit, which breaks the disk.
        """
        self._refuse_if_broken()
        batch = self._staged.seal()
        record = encode_batch(batch)
        if self.capacity_bytes is not None:
            used = self._base.rows.size_bytes() + sum(len(raw) for _, raw in self._unsynced)
            if used + len(record) > self.capacity_bytes:
                raise self._break(DiskFull("the disk is full while committing"))
        self._unsynced.append((batch, record))
        return batch

    def finish(self, batch: Batch) -> int:
        """Flush: ``batch``, the oldest begun, lasts from here on. Returns its rows.

        Raises ``StorageError`` if the flush fails, which breaks the disk.
        """
        self._refuse_if_broken()
        assert self._unsynced[0][0] is batch, "flushes end in the order of beginning"
        if self.fail_next_sync:
            self.fail_next_sync = False
            raise self._break(StorageError("the disk reported an error while flushing"))
        self._unsynced.popleft()
        self._base.apply(batch)
        self._staged.done(batch)
        return len(batch)

    def commit(self) -> int:
        """``begin`` and ``finish`` in one instant, after any batch already begun."""
        self._refuse_if_broken()
        if self._staged.dirty:
            self.begin()
        rows = 0
        while self._unsynced:
            rows = self.finish(self._unsynced[0][0])
        return rows

    def crash(self, rng: Rng) -> int:
        """Cut the power and open again; returns how many un-flushed batches survived.

        What was staged is gone; of the log's un-flushed bytes all remain, or none, or a
        random prefix, sometimes with a wrong byte in its last sector; or sectors reached the
        platter in another order than they were written, so that any of them may be missing.
        ``fate`` says which.
        """
        written = b"".join(record for _, record in self._unsynced)
        tail = bytearray(written)
        choice = rng.randint(0, 3)
        if choice == 3:
            for at in range(0, len(tail), SECTOR_BYTES):
                if rng.randint(0, 2) == 0:
                    size = len(tail[at : at + SECTOR_BYTES])
                    tail[at : at + size] = b"\xff" * size  # what the sector held before
        else:
            del tail[(0, len(tail), rng.randint(0, len(tail)))[choice] :]
            if tail and rng.randint(0, 3) == 0:
                tail[rng.randint(max(0, len(tail) - SECTOR_BYTES), len(tail) - 1)] ^= 0xFF
        self.fate = self._fate_of(written, bytes(tail), choice)
        survivors, _ = decode_log(bytes(tail))
        self._unsynced.clear()
        self._staged.forget()
        self._broken = None
        self.fail_next_sync = self.read_failed = False
        for batch in survivors:
            self._base.apply(batch)
        return len(survivors)

    def _fate_of(
        self, written: bytes, tail: bytes, choice: int
    ) -> Literal["", "kept", "lost", "torn", "reordered"]:
        if not written:
            return ""
        if tail == written:
            return "kept"
        if not tail:
            return "lost"
        return "reordered" if choice == 3 else "torn"

    def recover(self) -> None:
        """A healthy disk with room again; what was lost stays lost."""
        self.capacity_bytes, self.fail_next_sync = None, False
        self.mend()

    def fill(self, *, room_bytes: int) -> None:
        """Leave room for ``room_bytes`` more, and no more."""
        unsynced = sum(len(raw) for _, raw in self._unsynced)
        self.capacity_bytes = self._base.rows.size_bytes() + unsynced + room_bytes

    def image(self) -> SimDisk:
        """A copy of what is durable: a backup, or a stolen disk."""
        copy = SimDisk()
        for space in Space:
            for key, value in self._base.rows.scan(space, b"", b"\xff" * 128, limit=1 << 40):
                copy.stage(space, key, value)
        copy.commit()
        return copy

    def durable(self, space: Space, key: bytes) -> bytes | None:
        """What a power cut now would leave under ``key``, if it kept nothing un-flushed."""
        return self._base.rows.get(space, key)

    def durable_rows(self, space: Space) -> int:
        """How many rows of ``space`` are flushed."""
        return len(self._base.rows.scan(space, b"", b"\xff" * 128, limit=1 << 40))

    def rot(self, space: Space, key: bytes) -> None:
        """Let a bit of a durable row flip: reading it fails until it is written again."""
        self._base.rotten.add((space, key))

    def rot_any(self, dice: Random) -> bool:
        """Let a bit of some durable row flip; whether there was one."""
        space = dice.choice((Space.CONSENSUS, Space.STATE, Space.BLOCK, Space.LANE, Space.META))
        rows = self._base.rows.scan(space, b"", b"\xff" * 128, limit=1 << 40)
        if rows:
            self.rot(space, dice.choice(rows)[0])
        return bool(rows)

    def mend(self) -> None:
        """Every row can be read again: it was the cable."""
        self._base.rotten.clear()
        self.read_failed = False

    def _on_rotten(self) -> None:
        self.read_failed = True

    def _break(self, error: StorageError) -> StorageError:
        self._broken = error
        self._staged.forget()
        return error

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))
