"""Votes of one view, counted: one slot per seat and kind (R0).

Rules:

* A seat that fills one slot twice, differently, or both votes to nullify and to finalize,
  is caught: the pair is handed back as a rival, the slots are barred, and neither counts.
* What is put here was verified, or is our own and durable. Nothing here asserts on a vote.

Size: three ballots per seat, whatever peers send.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from p2pmed.quorum.certificate import VoteKind

__all__ = ["Ballot", "Tally"]

_OPPOSITE: Final = {VoteKind.NULLIFY: VoteKind.FINALIZE, VoteKind.FINALIZE: VoteKind.NULLIFY}
"""Kinds that exclude each other within one view: the second rule of safety (section 3.5)."""


class Ballot(NamedTuple):
    """A verified vote of a known seat in a known view."""

    kind: VoteKind
    digest: bytes
    signature: bytes


class Tally:
    """Who voted what in one view."""

    __slots__ = ("_barred", "_counts", "_late", "_slots")

    def __init__(self) -> None:
        self._slots: dict[tuple[int, VoteKind], Ballot] = {}
        self._counts: dict[tuple[VoteKind, bytes], dict[int, bytes]] = {}
        self._barred: set[tuple[int, VoteKind]] = set()
        self._late: set[tuple[int, VoteKind]] = set()

    def __len__(self) -> int:
        return len(self._slots)

    def has(self, seat: int, kind: VoteKind, digest: bytes) -> bool:
        """Whether this very vote was counted, or the slot is barred for good."""
        if (seat, kind) in self._barred:
            return True
        ballot = self._slots.get((seat, kind))
        return ballot is not None and ballot.digest == digest

    def of(self, seat: int, kind: VoteKind) -> Ballot | None:
        """What the seat said of this kind, counted or not."""
        return self._slots.get((seat, kind))

    def rival(self, seat: int, kind: VoteKind, digest: bytes) -> Ballot | None:
        """What the seat said before that no honest node says beside this vote."""
        if (seat, kind) in self._barred:
            return None
        same = self._slots.get((seat, kind))
        if same is not None and same.digest != digest:
            return same
        opposite = _OPPOSITE.get(kind)
        return None if opposite is None else self._slots.get((seat, opposite))

    def put(self, seat: int, ballot: Ballot) -> int:
        """Count a vote without rival; return how many now say the same."""
        self._slots[seat, ballot.kind] = ballot
        votes = self._counts.setdefault((ballot.kind, ballot.digest), {})
        votes[seat] = ballot.signature
        return len(votes)

    def bar(self, seat: int, *kinds: VoteKind) -> None:
        """Count nothing of these kinds from ``seat``: what it said before neither."""
        for kind in kinds:
            ballot = self._slots.get((seat, kind))
            if ballot is not None:
                self._counts[kind, ballot.digest].pop(seat, None)
            self._barred.add((seat, kind))

    def votes(self, kind: VoteKind, digest: bytes) -> dict[int, bytes]:
        """Seat to signature of all who said so."""
        return self._counts.get((kind, digest), {})

    def again(self, seat: int, kind: VoteKind) -> bool:
        """Whether a vote that came too late to matter came before: its sender is stuck."""
        if (seat, kind) in self._late:
            return True
        self._late.add((seat, kind))
        return False
