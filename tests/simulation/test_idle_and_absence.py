"""What costs nothing must cost nothing: idle days, days alone, and a ledger met late."""

from __future__ import annotations

from typing import Literal

import pytest

from p2pmed.medical.county import ANCHOR
from p2pmed.node import events
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.clock import seeded
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.village import Village
from p2pmed.testing.workload import Workload

QUARTER_MS = 15 * 60_000
DAY_MS = 86_400_000


def _village(engine: Literal["bft", "raft"]) -> Village:
    village = Village(1, engine=engine)
    assert village.form()
    for _ in range(20):
        village.workload.write()
        village.simulation.run_for(200)
    assert village.simulation.run_until_settled(30_000)
    return village


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["bft", "raft"])
def test_an_idle_village_writes_nothing(engine: Literal["bft", "raft"]) -> None:
    """A quarter of an hour without a write: no block, no flush, no table grows."""
    village = _village(engine)
    simulation = village.simulation
    simulation.run_for(10_000)
    before = [(node.height, node.flushes) for node in village.nodes]
    simulation.run_for(QUARTER_MS)
    assert [(node.height, node.flushes) for node in village.nodes] == before
    for node in village.nodes:
        simulation.check_bounds(node)
    assert not simulation.oracle.violations


def test_thirty_days_alone_cost_nothing_and_are_caught_up() -> None:
    """A device that is alone does not stir; what it wrote is final everywhere on its return."""
    village = _village("bft")
    simulation, alone = village.simulation, village.nodes[0]
    simulation.separate([alone])
    simulation.run_for(60_000)
    village.workload.write_at(alone)
    simulation.run_for(1_000)
    for node in village.nodes[1:]:
        simulation.crash(node)
    steps, flushes = simulation.steps, alone.flushes
    simulation.run_for(30 * DAY_MS)
    assert simulation.steps - steps < 100
    assert alone.flushes - flushes < 10
    for _ in range(50):
        village.workload.write_at(alone)
    for node in village.nodes[1:]:
        simulation.start(node)
    simulation.separate()
    assert simulation.run_until_settled(60_000)
    simulation.check_everywhere()
    assert not simulation.oracle.violations


@pytest.mark.parametrize("engine", ["bft", "raft"])
@pytest.mark.parametrize("falls", [False, True])
def test_who_meets_a_ledger_late_executes_all_of_it(
    engine: Literal["bft", "raft"], falls: bool
) -> None:
    """It was carried before it was lived in; a power cut in the middle of that changes nothing."""
    village = _village(engine)
    simulation = village.simulation
    late = simulation.add_node("late", roles=("insurer",))
    if falls:
        assert simulation.run_until(lambda: late.home is not None, 30_000)
        for wait_ms in (1, 3, 10):
            simulation.run_for(wait_ms)
            simulation.crash(late)
            simulation.start(late)
    assert simulation.run_until_settled(60_000)
    assert late.height == village.nodes[0].height > 0
    simulation.check_everywhere()
    assert not simulation.oracle.violations


def test_a_carried_ledger_can_be_followed_by_the_operators_word() -> None:
    """Its blocks are on the disk and were never executed: they are, from the first on."""
    village = _village("bft")
    simulation = village.simulation
    late = simulation.add_node("late", roles=("insurer",), policy=MeshPolicy(follow=False))
    assert village.nodes[0].home is not None
    ledger = village.nodes[0].home.ledger
    simulation.run_for(20_000)
    assert late.home is None
    simulation.command(late, lambda request: events.FollowLedger(request, ledger))
    assert simulation.run_until_settled(60_000)
    assert late.height == village.nodes[0].height > 0
    assert not simulation.oracle.violations


def test_one_clinic_that_signs_nothing_keeps_no_village_from_founding() -> None:
    """Whoever does not answer an offer is left out of the next, whatever its key."""
    for seed in range(6):
        simulation = Simulation(seed)
        auto = MeshPolicy(auto=True, size=3)
        simulation.add_node("told-not-to", policy=MeshPolicy(auto=False, follow=False))
        clinics = [simulation.add_node(f"clinic-{i}", policy=auto) for i in range(3)]
        founded = simulation.run_until(lambda: all(c.home for c in clinics), 60_000)
        assert founded, seed


def _anchors(node: SimNode) -> int:
    assert node.replica is not None
    logs = node.replica.logs
    return sum(
        entry.kind == ANCHOR
        for lane, next_seq in logs.frontier()
        for entry in logs.entries(lane, 0, next_seq)
    )


def test_an_idle_county_and_its_village_come_to_rest() -> None:
    """A village orders the county's anchors; that must not call for the next anchor."""
    simulation = Simulation(1)
    policy = MeshPolicy(auto=True, size=3)
    village = [simulation.add_node(f"clinic-{i}", policy=policy) for i in range(3)]
    simulation.run_for(8_000)
    workload = Workload(simulation, village, seeded(1, "workload"))
    county = simulation.add_node(
        "county", roles=("county",), policy=MeshPolicy(follow=False), place="county"
    )
    simulation.run_for(3_000)
    simulation.found(county, [], engine="raft", name="county")
    for _ in range(20):
        workload.write()
        simulation.run_for(200)
    simulation.run_for(20_000)
    before = [(node.height, node.flushes) for node in simulation.nodes]
    assert 0 < _anchors(county) < 20
    simulation.run_for(5 * 60_000)
    assert [(node.height, node.flushes) for node in simulation.nodes] == before
    assert not simulation.oracle.violations
