"""What an audit found: each finding says what is wrong, where, and what to do.

Rule: one finding a place. The first check that stumbles over a row speaks; what the later ones
would say of the same row follows from it. Bounded: beyond ``FINDINGS_MAX`` they are counted.
No contents: ids, numbers and places only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from p2pmed.ledger.transaction import LaneKey
from p2pmed.world import Space

__all__ = ["DO_HOME", "DO_ROW", "Finding", "Findings", "log_name", "place_name"]

FINDINGS_MAX: Final = 1_000

DO_ROW: Final = (
    "do not run this home; restore the last backup that verifies, or enrol a new device: "
    "the peers, or a bundle of theirs, still have what was shared"
)
DO_HOME: Final = "restore the file from a backup of this home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    where: str
    what: str
    do: str

    def describe(self) -> dict[str, str]:
        """As plain values."""
        return {"where": self.where, "what": self.what, "do": self.do}


class Findings:
    """Collects what is wrong, what was counted, and what could not be checked."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.total = 0
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        """What was not checked, and why; what is worth knowing and no fault."""
        self._places: set[tuple[int, bytes]] = set()

    def add(
        self,
        where: str,
        what: str,
        *,
        do: str = DO_ROW,
        at: tuple[Space, bytes] | None = None,
    ) -> None:
        """Something is wrong ``where``; ``at`` is the row, which is then spoken of once."""
        if at is not None:
            place = (int(at[0]), at[1])
            if place in self._places:
                return
            if len(self._places) < FINDINGS_MAX:
                self._places.add(place)
        self.total += 1
        if len(self.found) < FINDINGS_MAX:
            self.found.append(Finding(where=where, what=what, do=do))

    def is_at(self, space: Space, key: bytes) -> bool:
        """Whether this row was found wrong."""
        return (int(space), key) in self._places

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "ok": self.total == 0,
            "findings": [finding.describe() for finding in self.found],
            "findings_total": self.total,
            "counts": dict(sorted(self.counts.items())),
            "notes": list(self.notes),
        }


def log_name(lane: LaneKey) -> str:
    """An author log, for people."""
    return f"log {lane.author.hex()[:12]}/{lane.incarnation.hex()[:8]}"


def place_name(space: Space, key: bytes) -> str:
    """A row, for people: its space, and what its key says."""
    match space:
        case Space.ENTRY if len(key) == 12:
            number, seq = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            return f"ENTRY: entry {seq} of log number {number}"
        case Space.BLOCK if len(key) == 40:
            return f"BLOCK: block {int.from_bytes(key[32:], 'big')} of ledger {key[:6].hex()}"
        case Space.LANE if len(key) == 48:
            return f"LANE: {log_name(LaneKey.from_bytes(key))}"
        case Space.STATE | Space.CONSENSUS | Space.VERDICT if len(key) > 32:
            return f"{space.name}: row {key[32:].hex()[:64]} of ledger {key[:6].hex()}"
        case Space.TIP if len(key) == 88:
            lane, seq = LaneKey.from_bytes(key[32:80]), int.from_bytes(key[80:], "big")
            return f"TIP: {log_name(lane)} up to {seq} in ledger {key[:6].hex()}"
        case Space.META | Space.LOCAL:
            return f"{space.name}: row {key[:32]!r}"
    return f"{space.name}: row {key.hex()[:64]}"
