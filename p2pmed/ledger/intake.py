"""What becomes of entries that arrive: the gate before the author logs.

Cheapest checks first, the signature last (threats row 11):

1. spelling and size (``open_entry``);
2. known already: dropped; another entry at a known place: a fork, to be proven;
3. connected: ``seq`` and ``prev`` follow what is stored or already being checked, else a gap;
4. a log's first entry carries a credential chain of this network for its author, who has not
   opened more logs than a device ever needs;
5. signatures, many at once, off the loop: ``offer`` gives the batch, ``checked`` takes the
   answers and stages the good prefix of each log.

Nothing is staged before its signature was found good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from p2pmed.errors import DecodeError
from p2pmed.ledger.logs import Lane, Logs
from p2pmed.ledger.transaction import Entry, LaneKey, open_entry

__all__ = ["Admitted", "Gap", "Intake", "Offered", "SignatureCheck"]

SignatureCheck = tuple[bytes, bytes, bytes]
"""Public key, signature, message: what ``cose.verify`` takes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """An entry came whose predecessors are not here."""

    lane: LaneKey
    next_seq: int
    got_seq: int


@dataclass(slots=True)
class Offered:
    """What ``offer`` made of some bytes."""

    token: int = 0
    checks: list[SignatureCheck] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    fault: str = ""
    """Why the sender broke the protocol; empty if it did not."""


@dataclass(slots=True)
class Admitted:
    """What ``checked`` staged."""

    source: bytes | None
    entries: list[Entry] = field(default_factory=list)
    forks: list[Entry] = field(default_factory=list)
    fault: str = ""


@dataclass(slots=True)
class _Batch:
    source: bytes | None
    entries: list[Entry]
    suspects: list[Entry]


class Intake:
    """The gate of one node. ``valid_opening(entry)`` judges a log's first entry."""

    def __init__(self, logs: Logs, network: bytes, valid_opening: Callable[[Entry], bool]) -> None:
        self._logs = logs
        self._network = network
        self._valid_opening = valid_opening
        self._last_token = 0
        self._batches: dict[int, _Batch] = {}
        self._ahead: dict[LaneKey, tuple[int, bytes]] = {}
        """Logs with entries being checked: the seq and head they will have."""

    def offer(self, source: bytes | None, raws: Sequence[bytes]) -> Offered:
        """Take in entries from a peer (``source``) or a file (``None``)."""
        offered = Offered()
        batch = _Batch(source, [], [])
        gapped: set[LaneKey] = set()
        for raw in raws:
            try:
                entry = open_entry(raw, network=self._network)
            except DecodeError as error:
                offered.fault = str(error)
                break
            if fault := self._sort(entry, batch, offered, gapped):
                offered.fault = fault
                break
        everything = batch.entries + batch.suspects
        if everything:
            self._last_token += 1
            offered.token = self._last_token
            self._batches[offered.token] = batch
            offered.checks = [(e.author, e.signature, e.to_be_signed) for e in everything]
        return offered

    def reaches(self, lane: LaneKey) -> int:
        """The seq below which entries are stored, staged or being checked; 0 if none are."""
        ahead = self._ahead.get(lane)
        if ahead is not None:
            return ahead[0]
        log = self._logs.lane(lane)
        return log.next_seq if log else 0

    def _sort(self, entry: Entry, batch: _Batch, offered: Offered, gapped: set[LaneKey]) -> str:
        """Put one entry where it belongs; the fault if the sender should be dropped."""
        lane = self._logs.lane(entry.lane)
        next_seq, head = self._ahead.get(
            entry.lane, (lane.next_seq, lane.head) if lane else (0, bytes(32))
        )
        if lane is not None and lane.frozen:
            return ""
        if entry.seq > next_seq:
            if entry.lane not in gapped:
                gapped.add(entry.lane)
                offered.gaps.append(Gap(entry.lane, next_seq, entry.seq))
            return ""
        if entry.seq < next_seq or entry.envelope.prev != head:
            if lane is not None and self._contradicts(entry, lane):
                batch.suspects.append(entry)
            return ""
        if entry.seq == 0:
            if not self._logs.room_for(entry.lane):
                return ""
            if not self._valid_opening(entry):
                return "an author log that does not open with a credential of this network"
        self._ahead[entry.lane] = (entry.seq + 1, entry.id)
        batch.entries.append(entry)
        return ""

    def _contradicts(self, entry: Entry, lane: Lane) -> bool:
        """Whether another entry is stored at the same place, or as the predecessor."""
        if entry.seq < lane.next_seq:
            known = self._logs.entry(entry.lane, entry.seq)
            return known is not None and known.id != entry.id
        return entry.seq == lane.next_seq and entry.envelope.prev != lane.head

    def checked(self, token: int, good: Sequence[bool]) -> Admitted:
        """Stage what proved genuine. ``good`` answers ``Offered.checks`` in order."""
        batch = self._batches.pop(token)
        admitted = Admitted(batch.source)
        broken: set[LaneKey] = set()
        for entry, is_good in zip(batch.entries, good, strict=False):
            lane = self._logs.lane(entry.lane)
            if not is_good:
                admitted.fault = "a signature that does not hold"
                broken.add(entry.lane)
            expected = (lane.next_seq, lane.head) if lane else (0, bytes(32))
            connects = expected == (entry.seq, entry.envelope.prev)
            connects = connects and (lane is not None or self._logs.room_for(entry.lane))
            if entry.lane in broken or not connects or (lane is not None and lane.frozen):
                self._ahead.pop(entry.lane, None)
                continue
            self._logs.append(entry, last=False)
            admitted.entries.append(entry)
            if self._ahead.get(entry.lane) == (entry.seq + 1, entry.id):
                del self._ahead[entry.lane]
        self._logs.stage_rows(dict.fromkeys(entry.lane for entry in admitted.entries))
        for entry, is_good in zip(batch.suspects, good[len(batch.entries) :], strict=True):
            lane = self._logs.lane(entry.lane)
            if is_good and lane is not None and not lane.frozen:
                self._logs.freeze(entry)
                admitted.forks.append(entry)
        return admitted
