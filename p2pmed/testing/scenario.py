"""What a scenario gives back, and the names of those there are.

A scenario is a function of a seed. It runs one story, with faults from the seed's swarm, and
returns what happened; it raises nothing for what the nodes do wrong. Same seed, same outcome,
byte for byte: ``Outcome.digest`` is the hash of all that happened, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pmed.testing.simulation import Simulation

__all__ = ["Outcome", "outcome_of", "state_of"]

SETTLE_MS_MAX = 60_000
"""Bound on progress: so long after the last fault all is final and equal everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One seed of one scenario."""

    scenario: str
    seed: int
    virtual_ms: int
    """Simulated time, without the days in which nobody or one device alone was on."""
    away_ms: int
    """Those days."""
    steps: int
    """Events that nodes took."""
    faults: Mapping[str, int]
    """By kind, as they struck."""
    commits: int
    """Blocks that became final, counted once for all nodes."""
    acknowledged: int
    """Transactions that a caller was told are stored."""
    settle_ms: int
    """From the last fault until all was final and equal everywhere."""
    violations: tuple[str, ...]
    digest: str
    notes: Mapping[str, int] = field(default_factory=dict)
    """What the scenario counts besides."""

    @property
    def passed(self) -> bool:
        """Whether every promise held."""
        return not self.violations


def outcome_of(
    simulation: Simulation,
    scenario: str,
    *,
    away_ms: int = 0,
    settle_ms: int = 0,
    notes: Mapping[str, int] | None = None,
) -> Outcome:
    """The outcome of a simulation that has ended."""
    oracle = simulation.oracle
    return Outcome(
        scenario=scenario,
        seed=simulation.seed,
        virtual_ms=simulation.now - away_ms,
        away_ms=away_ms,
        steps=simulation.steps,
        faults=dict(sorted(simulation.injected.items())),
        commits=oracle.commits,
        acknowledged=sum(len(ids) for ids in oracle.acknowledged.values()),
        settle_ms=settle_ms,
        violations=tuple(map(str, oracle.violations)),
        digest=simulation.trace_digest,
        notes=dict(notes or {}),
    )


def state_of(simulation: Simulation) -> str:
    """Where every node stands, in one line: for a violation of progress."""
    rows = []
    for node in simulation.nodes:
        if node.replica is None:
            rows.append(f"{node.name} off")
            continue
        entries = sum(next_seq for _, next_seq in node.replica.logs.frontier())
        home = node.replica.home
        engine = dict(home.engine.status()) if home and home.engine else {}
        links = len(node.replica.links)
        rows.append(f"{node.name} height {node.height} entries {entries} links {links} {engine}")
    return "; ".join(rows)
