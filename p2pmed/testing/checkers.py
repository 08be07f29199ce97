"""What must hold at every step of a simulation, said by an oracle that only watches.

Safety: no two nodes finalise different blocks at one height of one ledger; nothing that was
acknowledged is missing from the disk that acknowledged it, nor anything said final; heights
never go back. Progress, once faults cease: every node ends with the same logs, height and state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Oracle", "Violation"]


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
    heights: dict[str, int] = field(default_factory=dict)
    commits: int = 0

    def stored(self, node: str, ids: list[bytes]) -> None:
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
        if height <= self.heights.get(node, 0):
            self.report(at_ms, "monotone height", f"{node} said {height} again")
        self.heights[node] = height

    def report(self, at_ms: int, promise: str, detail: str) -> None:
        """A promise broke."""
        self.violations.append(Violation(at_ms, promise, detail))
