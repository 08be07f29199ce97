"""What a scenario is given, what it gives back, and what is said of it.

A scenario is a callable ``(seed, SeedOptions) -> SeedReport``. It plays one story, with faults
from the seed's swarm, and reports what happened; it raises nothing for what the nodes do wrong.
Same seed and options, same report, byte for byte: ``SeedReport.digest`` is the hash of all that
happened, in order. The scenarios that there are stand in ``scenarios.py``.

A story is a list of *steps*, plain JSON values. A scenario draws them from the seed and reports
them; given ``SeedOptions.steps`` it plays exactly those. Dice of a step are its own, so that a
step left out changes nothing in the others: this is what ``shrinking.py`` lives on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from p2pmed.testing.faults import WEATHER
from p2pmed.testing.simulation import Simulation

__all__ = [
    "COMMITS_MIN",
    "FAULTS_MIN",
    "SETTLE_MS_MAX",
    "VIRTUAL_MS_MIN",
    "Play",
    "SeedOptions",
    "SeedReport",
    "Step",
    "report_of",
    "state_of",
]

SETTLE_MS_MAX = 60_000
"""Bound on progress: so long after the last fault all is final and equal everywhere."""
VIRTUAL_MS_MIN: Final = 60_000
FAULTS_MIN: Final = 10
COMMITS_MIN: Final = 20
"""A seed with less of the three proves little, and does not count."""

Step: TypeAlias = Mapping[str, Any]
"""One step of a story: JSON values by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedOptions:
    """How a seed is to be played."""

    planted: str = ""
    """A defect of the scenario's table, or none."""
    engine: str = ""
    """``bft`` or ``raft`` where a scenario has a choice; empty: as the seed says."""
    steps: tuple[Step, ...] | None = None
    """What to play instead of what the seed draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """One seed of one scenario."""

    scenario: str
    seed: int
    virtual_ms: int
    """Simulated time, without the days in which nobody or one device alone was on."""
    away_ms: int = 0
    """Those days."""
    steps: int
    """Events that nodes (or engines) took."""
    faults: Mapping[str, int]
    """By kind, as they struck."""
    commits: int
    """Blocks that became final, counted once for all nodes."""
    acknowledged: int = 0
    """Transactions that a caller was told are stored."""
    settle_ms: int = 0
    """From the last fault until all was final and equal everywhere."""
    violations: tuple[str, ...]
    """Each ``at MS ms: PROMISE: DETAIL``."""
    digest: str
    notes: Mapping[str, int] = field(default_factory=dict)
    """What the scenario counts besides."""
    story: tuple[Step, ...] = ()
    """The steps that were played."""

    @property
    def passed(self) -> bool:
        """Whether every promise held."""
        return not self.violations

    @property
    def struck(self) -> int:
        """Faults, the weather left out."""
        return sum(number for kind, number in self.faults.items() if kind not in WEATHER)

    @property
    def counts(self) -> bool:
        """Whether there was enough time, faults and blocks for the seed to prove something."""
        return (
            self.virtual_ms >= VIRTUAL_MS_MIN
            and self.struck >= FAULTS_MIN
            and self.commits >= COMMITS_MIN
        )

    @property
    def promises(self) -> frozenset[str]:
        """Names of the promises that broke."""
        return frozenset(text.split(": ")[1] for text in self.violations)


class Play(Protocol):
    """A scenario."""

    def __call__(self, seed: int, options: SeedOptions) -> SeedReport:
        """Play one seed."""


def report_of(
    simulation: Simulation,
    scenario: str,
    *,
    away_ms: int = 0,
    settle_ms: int = 0,
    notes: Mapping[str, int] | None = None,
    story: tuple[Step, ...] = (),
) -> SeedReport:
    """The report on a simulation that has ended."""
    oracle = simulation.oracle
    return SeedReport(
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
        story=story,
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
