"""Staged writes over any disk, and a disk that is nothing but memory.

Rule: no I/O here. What is staged is seen by every read at once; what is durable is the
base's business. A commit goes through three steps, of which only the middle one waits:

1. ``seal()`` takes everything staged since the last seal as one ``Batch``;
2. the disk writes and flushes the batch, while new writes are staged freely;
3. ``done(batch)`` drops from the overlay what that batch wrote and nobody wrote since.

Between 1 and 3 a row is in the overlay and perhaps already in the base, with one value in
both: a read never sees a commit half done. Batches are sealed and done first in, first out.

Implements ``world.Disk``; ``docs/protocols/storage.md``, section 2.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import gt, lt
from typing import Final, Generic, Protocol, TypeVar

from p2pmed.world import Space

__all__ = ["Base", "Batch", "MemoryDisk", "Row", "SortedMap", "StagedMap"]

Row = tuple[bytes, bytes]
"""Key and value."""

V = TypeVar("V")

FEW: Final = 16
"""Up to here single insertions into a sorted list beat sorting it again (measured)."""


class Base(Protocol):
    """What lies under the overlay: committed rows, read only."""

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The committed value, or ``None``."""

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """At most ``limit`` committed rows with ``start <= key < end`` in key order."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one commit writes; ``None`` deletes. ``repr`` shows sizes only."""

    number: int
    """1, 2, 3 in the order of sealing."""
    rows: Mapping[Space, Mapping[bytes, bytes | None]]
    size_bytes: int
    """Keys and values together."""

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def __repr__(self) -> str:
        return f"<Batch {self.number}: {len(self)} rows, {self.size_bytes} bytes>"

    def ordered(self) -> Iterator[tuple[Space, bytes, bytes | None]]:
        """Every row by space, then key: neighbours in the file are written together."""
        for space in sorted(self.rows):
            rows = self.rows[space]
            for key in sorted(rows):
                yield space, key, rows[key]


class SortedMap(Generic[V]):
    """A dict whose keys can be walked in order; sorting waits until somebody walks."""

    __slots__ = ("_fresh", "_keys", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, V] = {}
        """Read it freely; write through ``put`` and ``drop``."""
        self._keys: list[bytes] = []
        self._fresh: list[bytes] = []

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, key: bytes, value: V) -> None:
        """Set ``key``."""
        if key not in self.rows:
            self._fresh.append(key)
        self.rows[key] = value

    def drop(self, keys: Iterable[bytes]) -> None:
        """Remove ``keys``; those that are not there are ignored."""
        gone = [key for key in keys if self.rows.pop(key, None) is not None]
        if not self.rows:
            self._keys.clear()
            self._fresh.clear()
        elif len(gone) <= FEW:
            self._settle()
            for key in gone:
                del self._keys[bisect_left(self._keys, key)]
        else:
            self._settle()
            self._keys = [key for key in self._keys if key in self.rows]

    def walk(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """Keys with ``start <= key < end``; the map must not change meanwhile."""
        self._settle()
        low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
        order = range(high - 1, low - 1, -1) if reverse else range(low, high)
        return map(self._keys.__getitem__, order)

    def _settle(self) -> None:
        if len(self._fresh) > FEW:
            self._keys += self._fresh
            self._keys.sort()
        else:
            for key in self._fresh:
                insort(self._keys, key)
        self._fresh.clear()


_Staged = tuple[int, bytes | None]
"""Number of the batch that will write the row, and what."""


class StagedMap:
    """The overlay that every disk shares: staged rows over a ``Base``.

    Not thread-safe: it belongs to the thread that runs the cores.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._overlay: dict[Space, SortedMap[_Staged]] = {space: SortedMap() for space in Space}
        self._open: dict[Space, dict[bytes, bytes | None]] = {}
        self._open_bytes = 0
        self._number = 1
        self._flight: list[Batch] = []
        self._flight_bytes = 0

    @property
    def staged_bytes(self) -> int:
        """Keys and values not yet durable, those of batches in flight included."""
        return self._open_bytes + self._flight_bytes

    @property
    def dirty(self) -> bool:
        """Whether anything was staged since the last seal."""
        return bool(self._open)

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The staged value, else the base's."""
        staged = self._overlay[space].rows.get(key)
        return self._base.get(space, key) if staged is None else staged[1]

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """Set, or with ``None`` delete, a row."""
        rows = self._open.get(space)
        if rows is None:
            rows = self._open[space] = {}
        elif key in rows:
            self._open_bytes -= len(key) + len(rows[key] or b"")
        rows[key] = value
        self._open_bytes += len(key) + len(value or b"")
        self._overlay[space].put(key, (self._number, value))

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``; staged rows hide the base's rows of the same key."""
        if limit < 1 or start >= end:
            return []
        overlay = self._overlay[space]
        if not overlay:
            return self._base.scan(space, start, end, limit=limit, reverse=reverse)
        before = gt if reverse else lt
        staged = overlay.walk(start, end, reverse=reverse)
        stored = self._pages(space, start, end, limit, reverse)
        out: list[Row] = []
        key, row = next(staged, None), next(stored, None)
        while len(out) < limit:
            if key is not None and (row is None or not before(row[0], key)):
                if row is not None and row[0] == key:
                    row = next(stored, None)
                value = overlay.rows[key][1]
                if value is not None:
                    out.append((key, value))
                key = next(staged, None)
            elif row is not None:
                out.append(row)
                row = next(stored, None)
            else:
                break
        return out

    def seal(self) -> Batch:
        """Take what was staged since the last seal; it stays visible until ``done``."""
        batch = Batch(self._number, self._open, self._open_bytes)
        self._flight.append(batch)
        self._flight_bytes += batch.size_bytes
        self._number += 1
        self._open, self._open_bytes = {}, 0
        return batch

    def done(self, batch: Batch) -> None:
        """``batch``, the oldest in flight, is in the base: the overlay lets go of it."""
        assert self._flight, "no batch is in flight"
        assert self._flight[0] is batch, "batches are done in the order of sealing"
        del self._flight[0]
        self._flight_bytes -= batch.size_bytes
        for space, rows in batch.rows.items():
            overlay = self._overlay[space]
            overlay.drop([key for key in rows if overlay.rows[key][0] == batch.number])

    def forget(self) -> None:
        """Drop all that is staged or in flight: reads show what the base holds."""
        for overlay in self._overlay.values():
            overlay.drop(list(overlay.rows))
        self._open, self._open_bytes = {}, 0
        self._flight.clear()
        self._flight_bytes = 0

    def _pages(
        self, space: Space, start: bytes, end: bytes, limit: int, reverse: bool
    ) -> Iterator[Row]:
        """The base's rows, a page at a time: staged deletes may hide any number of them."""
        while True:
            page = self._base.scan(space, start, end, limit=limit, reverse=reverse)
            yield from page
            if len(page) < limit:
                return
            if reverse:
                end = page[-1][0]
            else:
                start = page[-1][0] + b"\0"


class MemoryBase:
    """Committed rows in memory."""

    def __init__(self) -> None:
        self._spaces: dict[Space, SortedMap[bytes]] = {space: SortedMap() for space in Space}

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The value, or ``None``."""
        return self._spaces[space].rows.get(key)

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """At most ``limit`` rows in key order."""
        rows = self._spaces[space]
        walk = rows.walk(start, end, reverse=reverse)
        return [(key, rows.rows[key]) for key, _ in zip(walk, range(limit), strict=False)]

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        for space, rows in batch.rows.items():
            table = self._spaces[space]
            table.drop([key for key, value in rows.items() if value is None])
            for key, value in rows.items():
                if value is not None:
                    table.put(key, value)

    def size_bytes(self) -> int:
        """Keys and values together; walks every row."""
        tables = self._spaces.values()
        return sum(len(key) + len(value) for table in tables for key, value in table.rows.items())


class MemoryDisk:
    """``world.Disk`` in memory: for tests, and for a node that need not remember."""

    def __init__(self) -> None:
        self._base = MemoryBase()
        self._staged = StagedMap(self._base)

    def get(self, space: Space, key: bytes) -> bytes | None:
        """As ``world.Disk.get``; never fails."""
        return self._staged.get(space, key)

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``; never fails."""
        return self._staged.scan(space, start, end, limit=limit, reverse=reverse)

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """As ``world.Disk.stage``."""
        self._staged.stage(space, key, value)

    def commit(self) -> int:
        """Make all that is staged the base; return the number of rows."""
        batch = self._staged.seal()
        self._base.apply(batch)
        self._staged.done(batch)
        return len(batch)
