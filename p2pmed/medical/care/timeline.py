"""A record in the order in which things followed from each other, and what is odd about each.

Rule of this file: causes stand before what follows from them. An entry comes after the one
before it in its author's log and after all it refers to; what nothing orders goes by its hybrid
clock, and then by its id, so that every node tells one story of the same entries, whatever any
clock said. Nothing is left out for being odd: it is marked. Pure. Implements medical notes,
section 1 rows 1 and 4, and ``docs/protocols/records.md``, clauses 20.1 and 20.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import Final

from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.records import amendments, record_row

__all__ = ["LATE_MS", "Mark", "causal_order", "is_late", "rivals_of"]

LATE_MS: Final = 2 * 86_400_000
"""A date without a time counts from its beginning: two days are at least one whole day late."""


class Mark(StrEnum):
    """What a reader must know of an entry before trusting it."""

    PROVISIONAL = "provisional"
    """Not final in the home ledger yet."""
    LATE = "late"
    """Recorded more than ``LATE_MS`` after it happened."""
    RETRACTED = "retracted"
    SUPERSEDED = "superseded"
    """A later version took its place."""
    CONFLICT = "conflict"
    """One of several amendments of one record, made apart: a person must choose."""
    DISPUTED = "disputed"
    """The patient contests it, and nobody has answered."""
    CONTESTED = "contested"
    """Signed by a key that was revoked before this was ordered."""
    REFUSED = "refused"
    """A rule says no to it; the reason is told."""
    UNQUALIFIED = "unqualified"
    """Whoever did it was not qualified for it when it was ordered."""
    FORKED = "forked"
    """In a log whose author signed two stories, and in the one that no block orders."""


def causal_order(entries: Sequence[Entry]) -> list[Entry]:
    """``entries`` with causes first; ties by hybrid clock, then id.

    Entries of one log that share a ``seq`` are of two branches.
    """
    ordered = sorted(entries, key=_rank)
    position = {entry.id: number for number, entry in enumerate(ordered)}
    causes = _causes(ordered, position)
    if all(cause < number for number, before in enumerate(causes) for cause in before):
        return ordered  # honest clocks: nearly always
    waiting = [len(before) for before in causes]
    after: list[list[int]] = [[] for _ in ordered]
    for number, before in enumerate(causes):
        for cause in before:
            after[cause].append(number)
    ready = [number for number, count in enumerate(waiting) if not count]
    heapify(ready)
    found = []
    while ready:
        number = heappop(ready)
        found.append(ordered[number])
        for next_one in after[number]:
            waiting[next_one] -= 1
            if not waiting[next_one]:
                heappush(ready, next_one)
    # Two branches of one liar's log, one named by the other: by clock, but never left out.
    return found + [each for each, count in zip(ordered, waiting, strict=True) if count]


def _rank(entry: Entry) -> tuple[int, bytes]:
    return entry.envelope.hlc, entry.id


def _causes(ordered: Sequence[Entry], position: dict[bytes, int]) -> list[list[int]]:
    """By entry: the places of those that it follows from, each once."""
    logs: dict[tuple[bytes, bytes], list[int]] = {}
    for number, entry in enumerate(ordered):
        logs.setdefault(entry.lane, []).append(number)
    before = [0] * len(ordered)
    for numbers in logs.values():
        numbers.sort(key=lambda number: ordered[number].seq)
        last, upto = -1, -1
        for number in numbers:
            # Two branches may hold one place: neither of the two follows from the other.
            before[number] = last if ordered[number].seq > upto else before[last]
            last, upto = number, ordered[number].seq
    found = []
    for number, entry in enumerate(ordered):
        causes = {position[ref]: None for ref in entry.envelope.refs if ref in position}
        if before[number] >= 0:
            causes[before[number]] = None
        found.append(list(causes))
    return found


def is_late(occurred_ms: int | None, recorded_ms: int) -> bool:
    """Whether it was recorded much after it happened, as far as it says when."""
    return occurred_ms is not None and recorded_ms - occurred_ms > LATE_MS


def rivals_of(view: Readable, record: bytes) -> tuple[bytes, ...]:
    """Amendments of ``record`` that nobody retracted: one took its place, two are a conflict."""
    found = []
    for name in amendments(view, record):
        row = record_row(view, name)
        if row is not None and not row.retracted:
            found.append(name)
    return tuple(found)
