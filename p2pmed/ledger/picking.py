"""Which entries a block orders: those it may take, and those its tips name.

Rule: a block orders each log from where its ancestors left it, without a gap, within the limits
of a block; every log gets a fair share. What cannot be told yet (a body that is not here) is
``MISSING``, never a reason to refuse. Byte-exact: ``docs/protocols/block.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pmed.consensus.interface import Check
from p2pmed.ledger.block import Body, Tip
from p2pmed.ledger.executing import TIP_ROWS, tip_in
from p2pmed.ledger.logs import Lane, Logs
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_ENTRIES_MAX,
    BLOCK_TIPS_MAX,
    ENTRY_BYTES_MAX,
    INCARNATIONS_MAX,
)

__all__ = ["Picker"]

assert BLOCK_BYTES_MAX >= ENTRY_BYTES_MAX


class Picker:
    """``orderable(lane)`` is the seq below which a log may be ordered; ``ready(entry)`` whether
    what its execution reads outside the state is here."""

    def __init__(
        self,
        logs: Logs,
        orderable: Callable[[Lane], int],
        ready: Callable[[Entry], bool],
    ) -> None:
        self._logs = logs
        self._orderable = orderable
        self._ready = ready

    def choose(self, below: Readable) -> tuple[list[Entry], list[Tip]]:
        """Entries to order next: a fair share for each log, within the block's limits."""
        spans = []
        opened: dict[bytes, int] = {}
        for lane in self._logs:
            start, before = tip_in(below, lane.key)
            end = min(self._orderable(lane), lane.durable_next)
            if end > start and self._continues(below, lane.key, start, before, opened):
                spans.append((lane.key, start, end))
        entries: list[Entry] = []
        tips = []
        room, space = BLOCK_ENTRIES_MAX, BLOCK_BYTES_MAX
        spans.sort(key=lambda span: span[2] - span[1])
        spans = spans[:BLOCK_TIPS_MAX]
        for index, (key, start, end) in enumerate(spans):
            share = max(1, room // (len(spans) - index))
            last = None
            for entry in self._logs.entries(key, start, min(end, start + share)):
                if room == 0 or len(entry.raw) > space or not self._ready(entry):
                    break
                room, space, last = room - 1, space - len(entry.raw), entry
                entries.append(entry)
            if last is not None:
                tips.append(
                    Tip(author=key.author, incarnation=key.incarnation, seq=last.seq, id=last.id)
                )
        tips.sort(key=lambda tip: tip.lane)
        return entries, tips

    def _continues(
        self, below: Readable, key: LaneKey, start: int, before: bytes, opened: dict[bytes, int]
    ) -> bool:
        """Whether the log that is here goes on from what is ordered, or may be opened."""
        if start == 0:
            return _opens(below, key.author, opened)
        last = self._logs.entry(key, start - 1)
        return last is not None and last.id == before

    def gather(self, below: Readable, body: Body) -> list[Entry] | Check:
        """The bodies that ``body`` orders, or what is wrong with it."""
        entries: list[Entry] = []
        size = 0
        missing = False
        opened: dict[bytes, int] = {}
        for tip in body.tips:
            start, before = tip_in(below, tip.lane)
            if tip.seq < start or len(entries) + tip.seq + 1 - start > BLOCK_ENTRIES_MAX:
                return Check.INVALID
            if start == 0 and not _opens(below, tip.author, opened):
                return Check.INVALID
            found = self._logs.branch(tip.lane, start, tip.seq, tip.id)
            if found is None:
                if self._logs.place(tip.id) not in (None, (tip.lane, tip.seq)):
                    return Check.INVALID
                missing = (
                    True  # here stands another branch, perhaps: its author lied, not the leader
                )
                continue
            entries += found
            size += sum(len(entry.raw) for entry in found)
            if found[0].envelope.prev != before or size > BLOCK_BYTES_MAX:
                return Check.INVALID
        if missing or not all(self._ready(entry) for entry in entries):
            return Check.MISSING
        return entries if len(entries) == body.summary.count else Check.INVALID


def _opens(below: Readable, author: bytes, opened: dict[bytes, int]) -> bool:
    """Whether a block on ``below`` may open one more log of ``author``; counts it."""
    if author not in opened:
        opened[author] = sum(1 for _ in below.scan(TIP_ROWS + author))
    opened[author] += 1
    return opened[author] <= INCARNATIONS_MAX
