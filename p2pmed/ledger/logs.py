"""Author logs on the disk: the only writer of lanes and entries.

Rules:

* A log is gapless: an entry is appended only at ``next_seq`` and only onto ``head``.
* ``durable_next`` follows ``next_seq`` when the flush that covers an append is done; what
  others are told of (frontiers, ``Have``) is the durable part only.
* A forked log is frozen: the branch stored first goes on being read, and nothing is appended
  any more. Of other branches the evidence is kept, and what a block orders of them: validators
  may hold different branches, and whoever holds the other one must be able to follow.

Layout (``Space``): ``LANE`` author + incarnation -> ``LaneRow``; ``ENTRY`` number + seq ->
signed bytes; ``ENTRY_ID`` id -> number + seq; ``SUBJECT`` patient + number + seq -> nothing;
``FORK`` lane + seq + id -> signed bytes; ``LOCAL`` "branch" + id -> number + seq.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey, open_entry
from p2pmed.limits import BLOCK_BYTES_MAX, INCARNATIONS_MAX, LANES_MAX
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Count, Wire
from p2pmed.world import Disk, Space

__all__ = ["Lane", "Logs"]

BRANCHES_WANTED_MAX: Final = 64
"""Branches that blocks order and that are not here, asked for at once."""

_BRANCH: Final = b"branch"

ENTRIES_CACHED_MAX: Final = 8_192
"""Decoded entries kept: two full blocks, so that what was just stored is executed undecoded."""

BYTES_CACHED_MAX: Final = 4 * BLOCK_BYTES_MAX
"""Signed bytes of these, of which a decoded entry holds three copies: long entries are fewer."""


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
        self._order: list[Lane] = []
        """In the order of the keys; logs come seldom and are looked through all the time."""
        self._numbers: dict[int, Lane] = {}
        self._cache: OrderedDict[bytes, Entry] = OrderedDict()
        self._cached_at: dict[bytes, bytes] = {}
        """Place to id, of the entries in the cache."""
        self._cached_bytes = 0
        self._logs_of: dict[bytes, int] = {}
        """How many logs an author has here."""
        self.wanted: dict[tuple[LaneKey, int, bytes], None] = {}
        """Log, seq and id of entries that a block orders and that another branch hides."""
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
            self._add(lane)
            if lane.frozen:
                self._dispute(lane)

    def _add(self, lane: Lane) -> None:
        self._lanes[lane.key] = self._numbers[lane.number] = lane
        insort(self._order, lane, key=lambda each: each.key)
        self._logs_of[lane.key.author] = self._logs_of.get(lane.key.author, 0) + 1

    # --- reading ------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Lane]:
        return iter(tuple(self._order))

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
            place = self._disk.get(Space.LOCAL, _BRANCH + entry_id)
        if place is None:
            return None
        lane = self._numbers[int.from_bytes(place[:4], "big")]
        return lane.key, int.from_bytes(place[4:], "big")

    def find(self, entry_id: bytes) -> Entry | None:
        """The entry with this id, or ``None`` if it is not here."""
        if entry_id in self._cache:
            return self._cache[entry_id]
        place = self.place(entry_id)
        entry = self.entry(*place) if place else None
        return entry if entry is not None and entry.id == entry_id else None

    def branch(self, key: LaneKey, start: int, seq: int, entry_id: bytes) -> list[Entry] | None:
        """Entries ``start <= seq`` of the branch in which ``entry_id`` stands at ``seq``.

        ``None`` if one of them is not here, or not durable; if another branch is in its place,
        the one that lacks is noted in ``wanted``.
        """
        lane = self._lanes.get(key)
        if lane is None or seq < start:
            return None
        found, lacks = self._walk(lane, start, seq, entry_id)
        if lacks is None:
            return found
        if (lane.frozen or lacks[0] < lane.durable_next) and len(self.wanted) < BRANCHES_WANTED_MAX:
            self.wanted[key, lacks[0], lacks[1]] = None
        return None

    def upper_branch(self, key: LaneKey, start: int, seq: int, entry_id: bytes) -> list[Entry]:
        """As ``branch``, but as much of its upper end as is here."""
        lane = self._lanes.get(key)
        return [] if lane is None else self._walk(lane, start, seq, entry_id)[0]

    def stands(self, key: LaneKey, seq: int, entry_id: bytes) -> bool:
        """Whether the entry with this id is here at ``seq``, in whatever branch."""
        lane = self._lanes.get(key)
        if lane is not None and self._is_main(lane, seq, entry_id):
            return True
        return self._disk.get(Space.FORK, _fork_key(key, seq, entry_id)) is not None

    def _walk(
        self, lane: Lane, start: int, seq: int, entry_id: bytes
    ) -> tuple[list[Entry], tuple[int, bytes] | None]:
        """Entries from the one named down to ``start``, oldest first, and the first that lacks."""
        other: list[Entry] = []
        while seq >= start and not self._is_main(lane, seq, entry_id):
            raw = self._disk.get(Space.FORK, _fork_key(lane.key, seq, entry_id))
            if raw is None:
                return other[::-1], (seq, entry_id)
            other.append(open_entry(raw, network=self._network))
            seq, entry_id = seq - 1, other[-1].envelope.prev
        return [*self.entries(lane.key, start, seq + 1), *reversed(other)], None

    def _is_main(self, lane: Lane, seq: int, entry_id: bytes) -> bool:
        return 0 <= seq < lane.durable_next and self._decoded(lane, seq).id == entry_id

    def _want(self, key: LaneKey, seq: int, entry_id: bytes) -> None:
        if len(self.wanted) < BRANCHES_WANTED_MAX:
            self.wanted[key, seq, entry_id] = None

    def room_for(self, key: LaneKey) -> bool:
        """Whether a log of others may be opened here; the own device's always fits."""
        return (
            len(self._lanes) < LANES_MAX - INCARNATIONS_MAX
            and self._logs_of.get(key.author, 0) < INCARNATIONS_MAX
        )

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

    def append(self, entry: Entry, *, last: bool = True) -> None:
        """Stage ``entry`` as the next of its log. Its signature was checked by the caller.

        Unless it is the ``last`` of this step, ``stage_rows`` must follow in the same step.
        Raises ``LocalProtocolError`` if it does not connect.
        """
        lane = self._append(entry)
        if last:
            self._stage_lane(lane)

    def stage_rows(self, keys: Iterable[LaneKey]) -> None:
        """Stage the rows of logs that grew by ``append(entry, last=False)``."""
        for key in keys:
            self._stage_lane(self._lanes[key])

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
            self._add(lane)
        if lane.frozen or entry.seq != lane.next_seq or entry.envelope.prev != lane.head:
            raise LocalProtocolError("an entry that does not connect to its log")
        place = _place(lane.number, entry.seq)
        self._disk.stage(Space.ENTRY, place, entry.raw)
        self._disk.stage(Space.ENTRY_ID, entry.id, place)
        if entry.envelope.subject:
            self._disk.stage(Space.SUBJECT, entry.envelope.subject + place, b"")
        lane.next_seq += 1
        lane.head = entry.id
        self._remember(entry, place)
        return lane

    def freeze(self, entry: Entry) -> None:
        """Keep ``entry``, which contradicts its log, as evidence; append nothing any more."""
        lane = self._lanes[entry.lane]
        lane.frozen = True
        self.keep_branch(entry)
        self._stage_lane(lane)

    def keep_branch(self, entry: Entry) -> None:
        """Keep ``entry`` beside its log, where another stands in its place or none may."""
        lane = self._lanes[entry.lane]
        place = _place(lane.number, entry.seq)
        self._disk.stage(Space.FORK, _fork_key(entry.lane, entry.seq, entry.id), entry.raw)
        self._disk.stage(Space.LOCAL, _BRANCH + entry.id, place)
        if lane.frozen:
            self._dispute(lane)

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
        place = _place(lane.number, seq)
        cached = self._cached_at.get(place)
        if cached is not None:
            return self._cache[cached]
        return self._remember(open_entry(self._raw(lane, seq), network=self._network), place)

    def _remember(self, entry: Entry, place: bytes) -> Entry:
        """Keep ``entry``, which stands at ``place``, decoded; the oldest make room."""
        self._cache[entry.id] = entry
        self._cached_at[place] = entry.id
        self._cached_bytes += len(entry.raw)
        while len(self._cache) > ENTRIES_CACHED_MAX or self._cached_bytes > BYTES_CACHED_MAX:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest.raw)
            del self._cached_at[_place(self._lanes[oldest.lane].number, oldest.seq)]
        return entry


def _fork_key(key: LaneKey, seq: int, entry_id: bytes) -> bytes:
    return key.to_bytes() + seq.to_bytes(8, "big") + entry_id


def _place(number: int, seq: int) -> bytes:
    return number.to_bytes(4, "big") + seq.to_bytes(8, "big")
