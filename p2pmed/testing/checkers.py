"""What must hold at every step of a simulation, said by an oracle that only watches.

The promises, by the name under which a broken one is reported:

======================================  ====================================================
one truth                               no two nodes finalise different blocks at one height
one verdict                             an entry has one height and verdict in a ledger, for ever
monotone height                         a node never says a height final twice, nor goes back
final means durable                     block, state and bodies are flushed before ``Final``
final means certified                   a quorum's certificate, for it or a descendant, is stored
nothing acknowledged is lost            what a caller was told is stored is there after any cut
nothing final is lost                   nor does a restart lose what was said final
one vote                                no honest node signs two things that exclude each other
honest logs do not fork                 a device never signs two entries for one place
bounded                                 no table of a node passes its cap (``bounds.py``)
never halted                            no honest ledger stops
no crash of its own                     no step raises but for the disk's sake
final is true                           header, content, entries, verdicts and state (``truths.py``)
nobody writes in another's name         an entry is signed, and was its author's first
what is written is taken                a device that is up refuses no sound transaction
======================================  ====================================================

and, once faults cease, *progress*: every node ends with equal logs, height, state and verdicts.

Rule: nothing here is used by a node; an oracle shares no state with what it watches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry

__all__ = ["Oracle", "Violation"]

VIOLATIONS_MAX = 64
"""Kept of one run: the first ones tell the story."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that broke."""

    at_ms: int
    promise: str
    detail: str

    def __str__(self) -> str:
        return f"at {self.at_ms} ms: {self.promise}: {self.detail}"


@dataclass(slots=True)
class Oracle:
    """Collects what nodes say, and compares."""

    violations: list[Violation] = field(default_factory=list)
    acknowledged: dict[str, list[bytes]] = field(default_factory=dict)
    """Ids that a node told its caller were stored, by node."""
    blocks: dict[tuple[bytes, int], tuple[str, bytes]] = field(default_factory=dict)
    """First digest seen final at a height, and who said so."""
    verdicts: dict[tuple[bytes, bytes], tuple[int, Verdict]] = field(default_factory=dict)
    """Ledger and entry -> height and verdict, as first said final."""
    heights: dict[str, int] = field(default_factory=dict)
    commits: int = 0

    def stored(self, node: str, ids: Sequence[bytes]) -> None:
        """``node`` acknowledged these."""
        self.acknowledged.setdefault(node, []).extend(ids)

    def final(self, at_ms: int, node: str, ledger: bytes, height: int, digest: bytes) -> None:
        """``node`` said that a block is final."""
        known = self.blocks.get((ledger, height))
        if known is None:
            self.blocks[ledger, height] = (node, digest)
            self.commits += 1
        elif known[1] != digest:
            self.report(at_ms, "one truth", f"height {height}: {node} differs from {known[0]}")
        if height != self.heights.get(node, 0) + 1:
            before = self.heights.get(node, 0)
            self.report(at_ms, "monotone height", f"{node} said {height} after {before}")
        self.heights[node] = height

    def decided(
        self,
        at_ms: int,
        node: str,
        place: tuple[bytes, int],
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
    ) -> None:
        """``node`` said what became of ``entries`` at ``place``, a ledger and a height."""
        ledger, height = place
        for entry, verdict in zip(entries, verdicts, strict=True):
            said = (height, verdict)
            if self.verdicts.setdefault((ledger, entry.id), said) != said:
                detail = f"{node} differs about {entry.id.hex()[:12]} ({entry.kind})"
                self.report(at_ms, "one verdict", detail)

    def report(self, at_ms: int, promise: str, detail: str) -> None:
        """A promise broke."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(at_ms, promise, detail))
