"""The county: two villages that never met, a clinic beyond the last road, and a hospital.

A seed's story:

1. two villages of three devices each form a mesh of their own, days of travel apart; a seventh
   device follows the first village's ledger and then goes beyond the last road: the hermit;
2. both villages commission and dispense *the same pack*, each correctly as far as it can know,
   while faults strike within the villages, and the hermit writes its last records;
3. a hospital appears; the operator founds the county's ledger, of one seat;
4. a van: the hospital is linked to one village, then to the other. The hermit's records come on
   a stick: its author logs and its copy of the village's chain, as ``ImportEntries`` and
   ``ImportChain``;
5. the hospital recalls a lot of which both villages still have packs;
6. faults cease and all roads open. Within ``SETTLE_MS_MAX`` everything is final in its ledger
   and *anchored* at every device, both villages know of the pack that was dispensed twice, and
   a dispense of the recalled lot, written now, is refused in both;
7. then nothing is written any more: no ledger may grow, and no disk be flushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from p2pmed.ledger.transaction import Entry
from p2pmed.medical.county import ANCHOR
from p2pmed.medical.drugs import Commission, Dispense, Recall
from p2pmed.medical.rejections import Rejection
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.clock import seeded
from p2pmed.testing.faults import Mischief
from p2pmed.testing.scenario import SETTLE_MS_MAX, SeedOptions, SeedReport, report_of, state_of
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.workload import EXPIRY_DAY, GTIN, Workload
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire

__all__ = ["County", "carry", "play", "run_county"]

FORM_MS_MAX: Final = 30_000
ALONE_MS: Final = 40_000
"""How long the villages are by themselves, under faults."""
VISIT_MS: Final = (5_000, 12_000)
"""How long the van stays at a village."""
IDLE_MS: Final = 60_000
STRIKE_SHARE: Final = 0.12
TWICE: Final = "TWICE-1"
"""The serial that both villages dispense."""
LOT: Final = "RECALLED"


def carry(simulation: Simulation, source: SimNode, target: SimNode) -> None:
    """Everything that ``source`` holds goes to ``target`` as a stick would bring it.

    Both must have power. What is not durable at ``source`` does not come along.
    """
    held = source.replica
    assert held is not None
    entries = tuple(
        raw
        for lane, next_seq in held.logs.frontier()
        for raw in held.logs.read(lane, 0, next_seq, bytes_max=1 << 40)
    )
    simulation.command(target, lambda request: events.ImportEntries(request, entries))
    for ledger, height in held.chains.heads():
        founding = held.chains.founding(ledger)
        assert founding is not None
        stored = [held.chains.block_at(ledger, at) for at in range(1, height + 1)]
        blocks = tuple(codec.encode(block) for block in stored if block is not None)
        named = codec.encode(founding)
        simulation.command(
            target,
            lambda request, ledger=ledger, named=named, blocks=blocks: events.ImportChain(  # type: ignore[misc]
                request, ledger, named, blocks
            ),
        )


class County:
    """One seed of the story; the parts may be played one by one."""

    def __init__(self, seed: int, *, planted: str = "") -> None:
        self.simulation = Simulation(seed, planted=planted)
        self._dice = seeded(seed, "county")
        self.village_a = self._village("a")
        self.village_b = self._village("b")
        self.hermit = self.simulation.add_node(
            "hermit", roles=("clinic",), policy=MeshPolicy(), place="county/a"
        )
        self.nodes = [*self.village_a, *self.village_b]
        self.hospital: SimNode | None = None
        self.simulation.separate([*self.village_a, self.hermit], self.village_b)
        self.mischief = Mischief(
            self.simulation, self.nodes, seeded(seed, "faults"), days_alone_max=0
        )
        self._workloads = [
            Workload(self.simulation, village, seeded(seed, f"workload {name}"))
            for name, village in (("a", self.village_a), ("b", self.village_b))
        ]
        self.settle_ms = 0
        self._twice: list[int] = []

    def _village(self, name: str) -> list[SimNode]:
        engine: Literal["bft", "raft"] = "bft" if self._dice.random() < 0.5 else "raft"
        policy = MeshPolicy(auto=True, size=3, engine=engine)
        roles = (("clinic",), ("pharmacy",), ("clinic", "manufacturer"))
        return [
            self.simulation.add_node(f"{name}-{i}", roles=roles[i], policy=policy, place=name)
            for i in range(3)
        ]

    def _violated(self, detail: str) -> None:
        self.simulation.oracle.report(self.simulation.now, "progress", detail)

    @property
    def broken(self) -> bool:
        """Whether a promise broke: what comes after proves nothing."""
        return bool(self.simulation.oracle.violations)

    def _write(self, node: SimNode, body: Wire, subject: bytes = b"") -> int:
        return self.simulation.submit(node, Draft(body=body, subject=subject))

    # --- the story --------------------------------------------------------------------------

    def form(self) -> bool:
        """Both villages found their ledgers, the hermit follows one; whether they did."""
        formed = self.simulation.run_until(
            lambda: all(node.home is not None for node in self.simulation.nodes), FORM_MS_MAX
        )
        if not formed:
            self._violated("no mesh formed")
        return formed

    def live_apart(self) -> None:
        """The same pack twice, faults, and the hermit's last records."""
        for village in (self.village_a, self.village_b):
            self._dispense_twice_sold(village[0])
        self.simulation.run_for(2_000)
        self.simulation.separate(self.village_a, self.village_b, [self.hermit])
        last_records = Workload(
            self.simulation, [self.hermit], seeded(self.simulation.seed, "hermit")
        )
        for _ in range(5):
            last_records.write_at(self.hermit)
        self.mischief.begin()
        self._suffer(ALONE_MS)

    def _dispense_twice_sold(self, node: SimNode) -> None:
        for lot, serials in (("TWICE", (TWICE,)), (LOT, _packs_of(node))):
            body = Commission(
                gtin=GTIN, lot=lot, expiry=EXPIRY_DAY, serials=serials, maker=bytes(32)
            )
            self._write(node, body)
        patient = node.entropy.token(16)
        self._twice.append(self._write(node, Dispense(gtin=GTIN, serial=TWICE), patient))

    def _suffer(self, ms: int) -> None:
        """Write and strike for a while."""
        end = self.simulation.now + ms
        while self.simulation.now < end and not self.broken:
            self.simulation.run_for(self._dice.randint(50, 600))
            self._dice.choice(self._workloads).write()
            if self._dice.random() < STRIKE_SHARE:
                away = self.mischief.away_ms
                kind = self._dice.choice(self.mischief.kinds)
                self.mischief.strike(kind, self._dice)
                end += self.mischief.away_ms - away

    def appear(self) -> bool:
        """The hospital is switched on and founds the county's ledger; whether it could."""
        policy = MeshPolicy(follow=False)
        self.hospital = hospital = self.simulation.add_node(
            "hospital", roles=("county", "hospital"), policy=policy, place="county"
        )
        self.simulation.separate(self.village_a, self.village_b, [self.hermit], [hospital])
        self.simulation.run_for(2_000)
        request = self.simulation.found(hospital, [], engine="raft", name="county")
        founded = self.simulation.run_until(lambda: hospital.home is not None, 5_000)
        if not founded:
            self._violated(f"no county: {self.simulation.replies.get(request)}")
        return founded

    def travel(self) -> None:
        """The van at one village, then at the other; a stick from the hermit; a recall."""
        hospital = self.hospital
        assert hospital is not None
        for here, there in (
            (self.village_a, self.village_b),
            (self.village_b, self.village_a),
        ):
            self.simulation.separate([*here, hospital], there, [self.hermit])
            self._suffer(self._dice.randint(*VISIT_MS))
        carry(self.simulation, self.hermit, hospital)
        self._suffer(2_000)
        self._write(hospital, Recall(gtin=GTIN, lot=LOT, reason="contaminated"))
        for here, there in (
            (self.village_a, self.village_b),
            (self.village_b, self.village_a),
        ):
            self.simulation.separate([*here, hospital], there, [self.hermit])
            self._suffer(self._dice.randint(*VISIT_MS))

    def recover(self) -> None:
        """No more faults, all roads open: everything final, anchored, and known everywhere."""
        simulation = self.simulation
        self.mischief.cease()
        simulation.separate()
        ceased = simulation.now
        while not (simulation.settled() and self._anchored()):
            if simulation.now - ceased > SETTLE_MS_MAX:
                missing = self._unanchored()
                self._violated(f"not anchored: {missing[:3]}; {state_of(simulation)}")
                return
            simulation.run_for(500)
        self.settle_ms = simulation.now - ceased
        simulation.check_everywhere()
        self._check_discrepancy()
        self._check_recall()
        self._check_idle()

    # --- what must hold ---------------------------------------------------------------------

    def _entries(self) -> Sequence[Entry]:
        """Everything that was written, anchors left out."""
        hospital = self.hospital
        assert hospital is not None
        assert hospital.replica is not None
        logs = hospital.replica.logs
        return [
            entry
            for lane, next_seq in logs.frontier()
            for entry in logs.entries(lane, 0, next_seq)
            if entry.kind != ANCHOR
        ]

    def _anchored(self) -> bool:
        return not self._unanchored(first=True)

    def _unanchored(self, *, first: bool = False) -> list[str]:
        missing: list[str] = []
        entries = self._entries()
        for node in self.simulation.nodes:
            if node.replica is None:
                return [f"{node.name} is off"]
            for entry in entries:
                if not node.replica.is_anchored(entry):
                    missing.append(f"{node.name}: {entry.kind} {entry.id.hex()[:12]}")
                    if first:
                        return missing
        return missing

    def _check_discrepancy(self) -> None:
        """Every device of both villages was told of the pack that was dispensed twice."""
        ids = {self.simulation.replies[request].entries[0].id for request in self._twice}
        for node in [*self.nodes, self.hermit]:
            assert node.replica is not None
            told = node.replica.county_alarms()
            if not any(ids.intersection(pair[:2]) for pair in told):
                self._violated(f"{node.name} does not know of the pack dispensed twice")

    def _check_recall(self) -> None:
        """What is dispensed of the recalled lot from now on is refused in both villages."""
        late = [
            (
                village[0],
                self._write(
                    village[0],
                    Dispense(gtin=GTIN, serial=_packs_of(village[0])[0]),
                    village[0].entropy.token(16),
                ),
            )
            for village in (self.village_a, self.village_b)
        ]
        if not self.simulation.run_until_settled(SETTLE_MS_MAX):
            self._violated(f"nothing new becomes final: {state_of(self.simulation)}")
            return
        for node, request in late:
            entry = self.simulation.replies[request].entries[0]
            assert node.home is not None
            verdict = node.home.chain.verdict_of(entry)
            if verdict is None or verdict.code != Rejection.LOT_RECALLED:
                self._violated(f"{node.name} dispensed of a recalled lot: {verdict}")

    def _check_idle(self) -> None:
        """Nothing is written: no ledger grows for it, no disk is flushed."""
        self.simulation.run_for(10_000)  # the last anchors, and their blocks
        before = [(node.height, node.flushes) for node in self.simulation.nodes]
        self.simulation.run_for(IDLE_MS)
        after = [(node.height, node.flushes) for node in self.simulation.nodes]
        if after != before:
            self._violated(f"idle, and yet heights and flushes went from {before} to {after}")

    def report(self) -> SeedReport:
        """What happened so far."""
        return report_of(
            self.simulation,
            "county",
            away_ms=self.mischief.away_ms,
            settle_ms=self.settle_ms,
        )


def _packs_of(node: SimNode) -> tuple[str, str]:
    """Serials of the recalled lot that ``node`` has."""
    return (f"{node.name}-1", f"{node.name}-2")


def run_county(seed: int, *, planted: str = "") -> SeedReport:
    """The whole story of one seed."""
    county = County(seed, planted=planted)
    if county.form():
        county.live_apart()
        if not county.broken and county.appear():
            county.travel()
        if not county.broken:
            county.recover()
    return county.report()


def play(seed: int, options: SeedOptions) -> SeedReport:
    """The scenario ``county``."""
    return run_county(seed, planted=options.planted)
