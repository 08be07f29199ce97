"""The village: five devices form a mesh by themselves, write, suffer, and end equal.

A seed's story:

1. five devices see each other and found a ledger without being told;
2. they write all the time, while faults of the kinds that this seed drew strike; in half of
   the seeds an observer without a seat joins late and follows;
3. it goes on until there were ``FAULTS_MIN`` faults, ``COMMITS_MIN`` blocks and ``VIRTUAL_MS_MIN``
   of time: a seed with less proves little;
4. faults cease. Within ``SETTLE_MS_MAX`` every device must have the same logs, all of it final,
   the same state root and the same verdicts;
5. something new is written at every device, and must become final as fast;
6. with BFT every honest seat votes on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Final, Literal, cast

from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.clock import seeded
from p2pmed.testing.faults import Mischief
from p2pmed.testing.misdeeds import BFT_KINDS, LIES, RAFT_KINDS
from p2pmed.testing.planted import plant
from p2pmed.testing.planting import Plant, sown
from p2pmed.testing.scenario import (
    COMMITS_MIN,
    FAULTS_MIN,
    SETTLE_MS_MAX,
    VIRTUAL_MS_MIN,
    SeedOptions,
    SeedReport,
    Step,
    report_of,
    state_of,
)
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.workload import Workload

__all__ = ["Village", "play", "play_bft", "play_raft", "run_village"]

SEATS: Final = (
    ("clinic-a", ("clinic",)),
    ("clinic-b", ("clinic",)),
    ("clinic-c", ("clinic",)),
    ("pharmacy", ("pharmacy",)),
    ("health-post", ("clinic", "manufacturer")),
)
FORM_MS_MAX: Final = 30_000
"""Quiet time, an offer and everybody's consent take four seconds."""
VIRTUAL_MS_MAX: Final = 180_000
"""If by then there were not enough blocks, faults cease and the rest is written in peace."""
PEACE_MS: Final = 2_000
"""Between what is written in peace: enough for a block each."""
HONEST_SHARE: Final = 0.35
"""Of the seeds, those in which no device lies."""
VOICE_WRITES_MAX: Final = 20
"""Writes in peace until every seat has voted: one is enough, unless others were faster."""
STRIKE_SHARE: Final = 0.12
"""Of the moments at which something is written, those at which a fault strikes."""


class Village:
    """One seed of the story; the parts may be played one by one."""

    def __init__(
        self,
        seed: int,
        *,
        engine: Literal["bft", "raft"] = "bft",
        planted: str = "",
        steps: Sequence[Step] | None = None,
    ) -> None:
        self.engine = engine
        self._given = steps
        self.story: list[Step] = []
        """The steps that were played."""
        self.simulation = Simulation(seed, planted=planted)
        self._dice = seeded(seed, "village")
        policy = MeshPolicy(auto=True, size=len(SEATS), engine=engine)
        self.nodes = [
            self.simulation.add_node(name, roles=roles, policy=policy) for name, roles in SEATS
        ]
        self.workload = Workload(self.simulation, self.nodes, seeded(seed, "workload"))
        # A lonely Raft member asks for votes every two seconds, for days.
        self.mischief = Mischief(
            self.simulation,
            self.nodes,
            seeded(seed, "faults"),
            days_alone_max=30 if engine == "bft" else 0,
            kinds=BFT_KINDS if engine == "bft" else RAFT_KINDS,
            lies=LIES,
            liar=self._liar(),
        )
        self.settle_ms = 0

    def _liar(self) -> SimNode | None:
        """In most seeds one device may lie, or be copied, restored, or robbed."""
        dice = seeded(self.simulation.seed, "liar")
        if dice.random() < HONEST_SHARE:
            return None
        liar = dice.choice(self.nodes)
        self.simulation.suspects.add(liar.key)
        return liar

    def form(self) -> bool:
        """Wait for the mesh that forms by itself; whether it did."""
        formed = self.simulation.run_until(
            lambda: all(node.home is not None for node in self.nodes), FORM_MS_MAX
        )
        if not formed:
            self._violated("no mesh formed")
        return formed

    def suffer(self) -> None:
        """Write and strike until the seed counts; or play the steps that were given."""
        self.mischief.begin()
        for step in self._drawn() if self._given is None else self._given:
            self._play(step)
            if self.broken:
                return

    def _drawn(self) -> Iterator[Step]:
        """The steps of this seed, until there were enough faults, blocks and seconds."""
        dice = self._dice
        observer_at = VIRTUAL_MS_MIN // 2 if dice.random() < 0.5 else None
        at_ms = self._suffered_ms
        for number in count():
            if self._counts() or self._suffered_ms >= VIRTUAL_MS_MAX:
                return
            at_ms = max(at_ms, self._suffered_ms) + dice.randint(50, 600)
            place = {"n": number, "at_ms": at_ms}
            yield {**place, "do": "write"}
            if observer_at is not None and at_ms >= observer_at:
                observer_at = None
                yield {**place, "do": "observer"}
            if dice.random() < STRIKE_SHARE:
                yield {**place, "do": self.mischief.pick(dice)}

    def _play(self, step: Step) -> None:
        """Wait until it is time for a step, and do it, with dice of its own."""
        self.story.append(step)
        number, do = int(step["n"]), str(step["do"])
        wait_ms = int(step["at_ms"]) - self._suffered_ms
        if wait_ms > 0:
            self.simulation.run_for(wait_ms)
        dice = seeded(self.simulation.seed, f"{do} {number}")
        if do == "write":
            self.workload.write(dice)
        elif do == "observer":
            self._observe()
        else:
            self.mischief.strike(do, dice)

    def _observe(self) -> SimNode:
        observer = self.simulation.add_node("observer", roles=("insurer",))
        self.mischief.join(observer)
        return observer

    @property
    def _suffered_ms(self) -> int:
        return self.simulation.now - self.mischief.away_ms

    @property
    def broken(self) -> bool:
        """Whether a promise broke: what comes after proves nothing."""
        return bool(self.simulation.oracle.violations)

    def _counts(self) -> bool:
        return (
            self._suffered_ms >= VIRTUAL_MS_MIN
            and self.mischief.count >= FAULTS_MIN
            and self.simulation.oracle.commits >= COMMITS_MIN
        )

    def recover(self) -> None:
        """No more faults: progress must return, for the old and for the new."""
        simulation = self.simulation
        self.mischief.cease()
        ceased = simulation.now
        together = simulation.run_until_settled(SETTLE_MS_MAX)
        if not together or not all(node.up for node in self.nodes):
            self._violated(state_of(simulation))
            return
        self.settle_ms = simulation.now - ceased
        for node in self.nodes:
            self.workload.write_at(node)
        for number in range(COMMITS_MIN if self._given is None else 0):
            if simulation.oracle.commits >= COMMITS_MIN or self.broken:
                break
            self.workload.write(seeded(simulation.seed, f"peace {number}"))
            simulation.run_for(PEACE_MS)
        if not simulation.run_until_settled(SETTLE_MS_MAX):
            self._violated(f"nothing new becomes final: {state_of(simulation)}")
        simulation.check_everywhere()
        if self.engine == "bft" and not self.broken:
            self._check_voices()

    def _check_voices(self) -> None:
        """Every honest seat votes on what is new: who only follows is one fault less withstood."""
        simulation, suspects = self.simulation, self.simulation.suspects
        silent = [
            node
            for node in self.nodes
            if node.home and node.home.seat is not None and node.key not in suspects
        ]
        before = dict(simulation.votes.cast)
        for number in range(VOICE_WRITES_MAX):
            silent = [n for n in silent if simulation.votes.cast.get(n.name) == before.get(n.name)]
            if not silent:
                return
            self.workload.write(seeded(simulation.seed, f"voice {number}"))
            simulation.run_for(PEACE_MS)
        self._violated(
            f"no vote of {', '.join(node.name for node in silent)}: {state_of(simulation)}"
        )

    def _violated(self, detail: str) -> None:
        self.simulation.oracle.report(self.simulation.now, "progress", detail)

    def report(self) -> SeedReport:
        """What happened so far."""
        return report_of(
            self.simulation,
            "village",
            away_ms=self.mischief.away_ms,
            settle_ms=self.settle_ms,
            story=tuple(self.story),
        )


def run_village(
    seed: int,
    *,
    engine: Literal["bft", "raft"] = "bft",
    planted: str = "",
    steps: Sequence[Step] | None = None,
) -> SeedReport:
    """The whole story of one seed, or the steps that are given."""
    with sown(plant(planted) if planted else Plant()):
        village = Village(seed, engine=engine, planted=planted, steps=steps)
        if village.form():
            village.suffer()
            if not village.broken:
                village.recover()
        return village.report()


def play(seed: int, options: SeedOptions) -> SeedReport:
    """The scenario ``village``: the engine is the option's, the defect's, or the seed's."""
    engine = options.engine or (plant(options.planted).engine if options.planted else "")
    chosen = cast('Literal["bft", "raft"]', engine or ("bft", "raft")[seed % 2])
    return run_village(seed, engine=chosen, planted=options.planted, steps=options.steps)


def play_bft(seed: int, options: SeedOptions) -> SeedReport:
    """The scenario ``village``, always with BFT."""
    return play(seed, replace(options, engine="bft"))


def play_raft(seed: int, options: SeedOptions) -> SeedReport:
    """The scenario ``village``, always with Raft."""
    return play(seed, replace(options, engine="raft"))
