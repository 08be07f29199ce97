"""Author logs on the disk: the only writer of lanes and entries.

Rules:

* A log is gapless: an entry is appended only at ``next_seq`` and only onto ``head``.
* ``durable_next`` follows ``next_seq`` when the flush that covers an append is done; what
  others are told of (frontiers, ``Have``) is the durable part only.
* A forked log keeps at most two branches: the one stored first goes on being read, the other
  is kept as evidence, and the log is frozen: nothing is appended any more.

Layout (``Space``): ``LANE`` author + incarnation -> ``LaneRow``; ``ENTRY`` number + seq ->
signed bytes; ``ENTRY_ID`` id -> number + seq; ``SUBJECT`` patient + number + seq -> nothing;
``FORK`` lane + seq + id -> signed bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey, open_entry
from p2pmed.limits import LANES_MAX
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Count, Wire
from p2pmed.world import Disk, Space

__all__ = ["Lane", "Logs"]

ENTRIES_CACHED_MAX: Final = 8_192
"""Decoded entries kept: two full blocks, so that what was just stored is executed undecoded."""


class LaneRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A log as the disk knows it."""

    number: Count
    next_seq: Count
    head: Bytes32
    frozen: bool


@dataclass(slots=True)
class Lane:
    """One author log."""

    key: LaneKey
    number: int
    next_seq: int = 0
    durable_next: int = 0
    head: bytes = GENESIS_PREV
    frozen: bool = False
    forked_at: int | None = None
    """The first seq at which the author is known to have signed two entries."""


class Logs:
    """All author logs of one node."""

    def __init__(self, disk: Disk, network: bytes) -> None:
        self._disk = disk
        self._network = network
        self._lanes: dict[LaneKey, Lane] = {}
        self._numbers: dict[int, Lane] = {}
        self._cache: OrderedDict[bytes, Entry] = OrderedDict()
        self._load()

    def _load(self) -> None:
        rows = self._disk.scan(Space.LANE, b"", b"\xff" * 49, limit=LANES_MAX)
        for raw_key, raw in rows:
            row = codec.decode(raw, LaneRow)
            lane = Lane(
                LaneKey.from_bytes(raw_key),
                row.number,
                row.next_seq,
                row.next_seq,
                row.head,
                row.frozen,
            )
            self._lanes[lane.key] = self._numbers[lane.number] = lane
            if lane.frozen:
                self._dispute(lane)

    # --- reading ------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Lane]:
        return (self._lanes[key] for key in sorted(self._lanes))

    def __len__(self) -> int:
        return len(self._lanes)

    def lane(self, key: LaneKey) -> Lane | None:
        """The log, or ``None`` if nothing of it is here."""
        return self._lanes.get(key)

    def frontier(self) -> Sequence[tuple[LaneKey, int]]:
        """Every log with the seq after its last durable entry, in the order of the keys."""
        return [(lane.key, lane.durable_next) for lane in self]

    def next_seq(self, key: LaneKey) -> int:
        """The seq after the last durable entry; 0 for an unknown log."""
        lane = self._lanes.get(key)
        return lane.durable_next if lane else 0

    def read(self, key: LaneKey, start: int, end: int, *, bytes_max: int) -> list[bytes]:
        """Signed bytes of entries ``start <= seq < end``, durable ones, up to ``bytes_max``.

        At least one is given if there is one.
        """
        lane = self._lanes.get(key)
        if lane is None:
            return []
        found: list[bytes] = []
        total = 0
        for seq in range(start, min(end, lane.durable_next)):
            raw = self._raw(lane, seq)
            if found and total + len(raw) > bytes_max:
                break
            found.append(raw)
            total += len(raw)
        return found

    def entry(self, key: LaneKey, seq: int) -> Entry | None:
        """The entry at ``seq``, or ``None`` if it is not here."""
        lane = self._lanes.get(key)
        if lane is None or not 0 <= seq < lane.next_seq:
            return None
        return self._decoded(lane, seq)

    def entries(self, key: LaneKey, start: int, end: int) -> Iterator[Entry]:
        """Entries ``start <= seq < end`` that are here."""
        lane = self._lanes.get(key)
        if lane is not None:
            for seq in range(start, min(end, lane.next_seq)):
                yield self._decoded(lane, seq)

    def place(self, entry_id: bytes) -> tuple[LaneKey, int] | None:
        """Where the entry with this id stands, or ``None`` if it is not here."""
        place = self._disk.get(Space.ENTRY_ID, entry_id)
        if place is None:
            return None
        return self._numbers[int.from_bytes(place[:4], "big")].key, int.from_bytes(place[4:], "big")

    def find(self, entry_id: bytes) -> Entry | None:
        """The entry with this id, or ``None`` if it is not here."""
        if entry_id in self._cache:
            return self._cache[entry_id]
        place = self.place(entry_id)
        return self.entry(*place) if place else None

    def about(self, subject: bytes) -> Iterator[Entry]:
        """Entries about one patient, log by log."""
        start, end = subject + b"\x00" * 12, subject + b"\xff" * 13
        while True:
            rows = self._disk.scan(Space.SUBJECT, start, end, limit=512)
            for key, _ in rows:
                lane = self._numbers[int.from_bytes(key[16:20], "big")]
                yield self._decoded(lane, int.from_bytes(key[20:], "big"))
            if len(rows) < 512:
                return
            start = rows[-1][0] + b"\x00"

    def forks(self, key: LaneKey) -> list[bytes]:
        """Signed bytes of entries that contradict this log."""
        start = key.to_bytes()
        rows = self._disk.scan(Space.FORK, start, start + b"\xff" * 41, limit=8)
        return [raw for _, raw in rows]

    # --- writing ------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Stage ``entry`` as the next of its log. Its signature was checked by the caller.

        Raises ``LocalProtocolError`` if it does not connect.
        """
        self._stage_lane(self._append(entry))

    def extend(self, entries: Sequence[Entry]) -> None:
        """``append`` each; all are of one log, whose row is written once."""
        lane: Lane | None = None
        for entry in entries:
            lane = self._append(entry)
        if lane is not None:
            self._stage_lane(lane)

    def _append(self, entry: Entry) -> Lane:
        lane = self._lanes.get(entry.lane)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                raise LocalProtocolError(f"more than {LANES_MAX} author logs")
            lane = Lane(entry.lane, len(self._lanes))
            self._lanes[lane.key] = self._numbers[lane.number] = lane
        if lane.frozen or entry.seq != lane.next_seq or entry.envelope.prev != lane.head:
            raise LocalProtocolError("an entry that does not connect to its log")
        place = _place(lane.number, entry.seq)
        self._disk.stage(Space.ENTRY, place, entry.raw)
        self._disk.stage(Space.ENTRY_ID, entry.id, place)
        if entry.envelope.subject:
            self._disk.stage(Space.SUBJECT, entry.envelope.subject + place, b"")
        lane.next_seq += 1
        lane.head = entry.id
        self._remember(entry)
        return lane

    def freeze(self, entry: Entry) -> None:
        """Keep ``entry``, which contradicts its log, as evidence; append nothing any more."""
        lane = self._lanes[entry.lane]
        key = entry.lane.to_bytes() + entry.seq.to_bytes(8, "big") + entry.id
        self._disk.stage(Space.FORK, key, entry.raw)
        lane.frozen = True
        self._dispute(lane)
        self._stage_lane(lane)

    def _dispute(self, lane: Lane) -> None:
        """Find where a frozen log forked. Evidence above its end disputes its last entry."""
        start = lane.key.to_bytes()
        rows = self._disk.scan(Space.FORK, start, start + b"\xff" * 41, limit=1)
        for key, _ in rows:
            seq = int.from_bytes(key[48:56], "big")
            lane.forked_at = seq if seq < lane.next_seq else lane.next_seq - 1

    def settle(self, key: LaneKey, next_seq: int) -> None:
        """The flush that covered entries below ``next_seq`` is done."""
        lane = self._lanes[key]
        lane.durable_next = max(lane.durable_next, next_seq)

    def _stage_lane(self, lane: Lane) -> None:
        row = LaneRow(
            number=lane.number, next_seq=lane.next_seq, head=lane.head, frozen=lane.frozen
        )
        self._disk.stage(Space.LANE, lane.key.to_bytes(), codec.encode(row))

    def _raw(self, lane: Lane, seq: int) -> bytes:
        raw = self._disk.get(Space.ENTRY, _place(lane.number, seq))
        if raw is None:
            raise StorageError(
                f"entry {seq} of log {lane.key.author.hex()[:12]} is missing from the disk",
                hint="run `p2pmed verify`; peers still have it",
            )
        return raw

    def _decoded(self, lane: Lane, seq: int) -> Entry:
        if seq == lane.next_seq - 1 and lane.head in self._cache:
            return self._cache[lane.head]
        return self._remember(open_entry(self._raw(lane, seq), network=self._network))

    def _remember(self, entry: Entry) -> Entry:
        self._cache[entry.id] = entry
        if len(self._cache) > ENTRIES_CACHED_MAX:
            self._cache.popitem(last=False)
        return entry


def _place(number: int, seq: int) -> bytes:
    return number.to_bytes(4, "big") + seq.to_bytes(8, "big")
