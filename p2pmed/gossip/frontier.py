"""How far each author log reaches: here (``LaneTable``) and at a peer (``Mirror``).

The digest is two levels of BLAKE2b, so that a change costs one bucket and not the table, and
so that two tables that differ find out where. Bucket ``b`` holds the lanes whose author key
begins with byte ``b``; its digest covers ``author | incarnation | next_seq (8, big-endian)``
in the order of lanes; the frontier's digest covers the 256 bucket digests.

Rule: a mirror holds only what the peer itself said, so it may know too little, never too much.
A peer may invent lanes; it gets room for ``FOREIGN_LANES_MAX`` that we do not hold.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Final

from p2pmed.gossip.messages import BUCKET_PREFIX_BYTES, BUCKETS
from p2pmed.ledger.transaction import LaneKey
from p2pmed.wire.hashing import digest

__all__ = ["FOREIGN_LANES_MAX", "LaneTable", "Mirror", "digest_of"]

FOREIGN_LANES_MAX: Final = 1_024
"""Lanes that a peer names and we do not hold, per peer: one page. The rest waits its turn."""


class _Digests:
    """Bucket digests, remembered until their bucket changes."""

    def __init__(self) -> None:
        self._known: list[bytes | None] = [None] * BUCKETS
        self._whole: bytes | None = None

    def bucket(self, number: int) -> list[tuple[LaneKey, int]]:
        """The marks of one bucket in the order of lanes, zeros left out."""
        raise NotImplementedError

    def digest(self) -> bytes:
        """The frontier's digest (32 bytes)."""
        if self._whole is None:
            self._whole = digest("p2pmed frontier", b"".join(self.bucket_digests()))
        return self._whole

    def bucket_digests(self) -> list[bytes]:
        """The 256 bucket digests."""
        known = self._known
        if None in known:
            return [self._bucket_digest(number) for number in range(BUCKETS)]
        return [each for each in known if each is not None]

    def prefixes(self) -> bytes:
        """What ``AskFrontier.known`` carries."""
        return b"".join(each[:BUCKET_PREFIX_BYTES] for each in self.bucket_digests())

    def _bucket_digest(self, number: int) -> bytes:
        known = self._known[number]
        if known is None:
            marks = self.bucket(number)
            data = b"".join(
                b"".join((lane.author, lane.incarnation, next_seq.to_bytes(8, "big")))
                for lane, next_seq in marks
            )
            known = digest("p2pmed lanes", data) if data else _EMPTY_BUCKET
            self._known[number] = known
        return known

    def _touch(self, number: int) -> None:
        self._known[number] = None
        self._whole = None


_EMPTY_BUCKET = digest("p2pmed lanes", b"")


class LaneTable(_Digests):
    """What is durable here. Lanes are numbered as they come and never leave."""

    def __init__(self, marks: Iterable[tuple[LaneKey, int]]) -> None:
        super().__init__()
        self._number: dict[LaneKey, int] = {}
        self._next = array("Q")
        self._buckets: list[list[LaneKey]] = [[] for _ in range(BUCKETS)]
        for lane, next_seq in marks:
            self.grow(lane, next_seq)

    def __len__(self) -> int:
        return len(self._next)

    def get(self, lane: LaneKey) -> int:
        """The next durable seq; 0 if the lane is unknown."""
        number = self._number.get(lane)
        return 0 if number is None else self._next[number]

    def grow(self, lane: LaneKey, next_seq: int) -> int:
        """Raise ``lane`` to ``next_seq``; return where it stood (0: it is new)."""
        number = self._number.get(lane)
        if number is None:
            if next_seq > 0:
                self._number[lane] = len(self._next)
                self._next.append(next_seq)
                insort(self._buckets[lane.author[0]], lane)
                self._touch(lane.author[0])
            return 0
        before = self._next[number]
        if next_seq > before:
            self._next[number] = next_seq
            self._touch(lane.author[0])
        return before

    def number(self, lane: LaneKey) -> int | None:
        """The lane's number, or ``None`` if we hold nothing of it."""
        return self._number.get(lane)

    def lanes_of(self, number: int) -> Sequence[LaneKey]:
        """The lanes of one bucket, in order."""
        return self._buckets[number]

    def bucket(self, number: int) -> list[tuple[LaneKey, int]]:
        """The marks of one bucket in the order of lanes."""
        return [(lane, self._next[self._number[lane]]) for lane in self._buckets[number]]

    def snapshot(self) -> array[int]:
        """Every lane's next seq, by number, as it is now."""
        return self._next[:]

    def page(
        self, known: bytes, after: bytes, count: int
    ) -> tuple[list[tuple[LaneKey, int]], bool, bytes]:
        """At most ``count`` marks above lane ``after`` from buckets unlike ``known``.

        Returns the marks, whether more remain, and the bitmap of the buckets left out.
        """
        same = bytearray(BUCKETS // 8)
        marks: list[tuple[LaneKey, int]] = []
        for number, mine in enumerate(self.bucket_digests()):
            offset = number * BUCKET_PREFIX_BYTES
            expected = known[offset : offset + BUCKET_PREFIX_BYTES]
            if expected and mine.startswith(expected):
                same[number // 8] |= 1 << number % 8
            elif len(marks) <= count and number >= (after[0] if after else 0):
                marks += [m for m in self.bucket(number) if m[0].to_bytes() > after]
        return marks[:count], len(marks) > count, bytes(same)


class Mirror(_Digests):
    """What one peer said it holds, since its channel opened."""

    def __init__(self, table: LaneTable) -> None:
        super().__init__()
        self._table = table
        self._next = array("Q", bytes(8 * len(table)))
        self._foreign: dict[int, dict[LaneKey, int]] = {}
        self._foreign_count = 0
        self.empty = True
        """Whether the peer has said nothing yet."""

    @property
    def full(self) -> bool:
        """Whether no further lane that we do not hold fits."""
        return self._foreign_count >= FOREIGN_LANES_MAX

    def get(self, lane: LaneKey) -> int:
        """The next seq that the peer said; 0 if it said nothing of ``lane``."""
        number = self._table.number(lane)
        if number is not None:
            return self._next[number]
        return self._foreign.get(lane.author[0], {}).get(lane, 0)

    def put(self, lane: LaneKey, next_seq: int) -> bool:
        """Set ``lane``; ``False`` if there is no room for another lane that we do not hold."""
        bucket = lane.author[0]
        number = self._table.number(lane)
        if number is not None:
            self._next[number] = next_seq
        else:
            foreign = self._foreign.setdefault(bucket, {})
            if next_seq == 0:
                self._foreign_count -= foreign.pop(lane, None) is not None
            elif lane in foreign or not self.full:
                self._foreign_count += lane not in foreign
                foreign[lane] = next_seq
            else:
                return False
        self.empty = False
        self._touch(bucket)
        return True

    def settle(self, lane: LaneKey) -> None:
        """``lane`` has just become ours: give it its number. Called once, in order of lanes."""
        self._next.append(0)
        foreign = self._foreign.get(lane.author[0], {})
        if lane in foreign:
            self._next[-1] = foreign.pop(lane)
            self._foreign_count -= 1

    def adopt(self, snapshot: Sequence[int], same: bytes | None) -> list[tuple[LaneKey, int]]:
        """The peer holds what we held at ``snapshot`` (where bitmap ``same`` says so).

        Returns the lanes that this raised.
        """
        raised = []
        for bucket in range(BUCKETS):
            if same is not None and not same[bucket // 8] >> bucket % 8 & 1:
                continue
            for lane in self._table.lanes_of(bucket):
                number = self._table.number(lane)
                assert number is not None  # it is in the table's own bucket
                if number < len(snapshot) and snapshot[number] > self._next[number]:
                    self.put(lane, snapshot[number])
                    raised.append((lane, snapshot[number]))
        self.empty = False
        return raised

    def bucket(self, number: int) -> list[tuple[LaneKey, int]]:
        """The marks of one bucket in the order of lanes, zeros left out."""
        marks = [(lane, self.get(lane)) for lane in self._table.lanes_of(number)]
        marks = [each for each in marks if each[1]]
        foreign = self._foreign.get(number)
        return sorted([*marks, *foreign.items()]) if foreign else marks

    def foreign(self) -> list[LaneKey]:
        """The lanes that the peer names and we do not hold, in order."""
        return sorted(lane for lanes in self._foreign.values() for lane in lanes)


def digest_of(marks: Iterable[tuple[LaneKey, int]]) -> bytes:
    """The frontier digest of ``marks``, in any order."""
    return LaneTable(marks).digest()
