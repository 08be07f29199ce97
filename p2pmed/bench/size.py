"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FULL", "QUICK", "Size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a suite; ``engines`` and ``nodes`` may be chosen by hand."""

    seconds: float
    """Of each single step."""
    load_s: float
    """Of each load on a node or a mesh."""
    entries: int
    """Signed at the start, for the steps that need some."""
    stored: int
    """Transactions of the homes that are opened, fetched, carried."""
    gossip: int
    """Transactions that each node writes in the gossip bench."""
    imports: int = 5
    """Fresh interpreters whose imports are timed."""
    clients: int = 4
    """Submissions in flight at each node, where many are."""
    batch: int = 64
    """Transactions in each of them."""
    meshes: tuple[tuple[str, int], ...] = (("bft", 4), ("raft", 3))
    """Engine and number of nodes."""
    nodes: int = 4
    """Of the gossip bench and the idle mesh."""
    watch_s: float = 6.0
    """For how long finality is watched after a leader was killed."""
    idle_s: float = 3.0
    patients: int = 1_000
    """Registered in the home of the records bench."""


QUICK: Final = Size(seconds=0.15, load_s=2.0, entries=1_024, stored=4_000, gossip=1_000)
"""At most a minute."""

FULL: Final = Size(
    seconds=1.0,
    load_s=10.0,
    entries=8_192,
    stored=100_000,
    gossip=10_000,
    meshes=tuple((engine, nodes) for engine in ("bft", "raft") for nodes in (1, 3, 4, 7, 10, 13)),
    idle_s=30.0,
    patients=50_000,
)
"""Some minutes; what the goals speak of."""
