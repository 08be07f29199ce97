"""Whole meshes under faults and liars, by seed; and proof that planted bugs are found.

A failing seed is reproduced by ``run(seats, seed, liars)``: seed and commit are the run.
"""

from __future__ import annotations

import pytest
from byzantine import Disrupter, Monitor, add_twins
from mutants import MUTANTS
from simulation import Mesh, Violation, Weather, make_epoch, run_and_heal

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.errors import P2pmedError

SEEDS = {1: 60, 3: 60, 4: 20, 5: 20, 7: 12}
"""Seeds per number of seats and kind of liar; larger meshes take longer."""


def run(
    seats: int, seed: int, kind: str = "honest", factory: type[BftEngine] = BftEngine
) -> tuple[Mesh, Monitor]:
    """One seed: faults, then calm; with as many liars of ``kind`` as the epoch allows."""
    epoch = make_epoch(seats)
    liars = tuple(range(seats))[seats - epoch.liars :] if kind != "honest" else ()
    monitor = Monitor(epoch, liars)
    mesh = Mesh(factory, seats=seats, seed=seed, byzantine=liars, observers=(monitor,))
    for index, seat in enumerate(liars):
        if kind == "twins" or (kind == "both" and index % 2 == 0):
            add_twins(mesh, seat)
        else:
            Disrupter(mesh, seat)
    run_and_heal(mesh)
    return mesh, monitor


CASES = [(seats, "honest") for seats in (1, 3, 4, 5, 7)]
CASES += [(seats, kind) for seats in (4, 5, 7) for kind in ("twins", "disrupter")]
CASES += [(7, "both")]


@pytest.mark.parametrize(("seats", "kind"), CASES)
def test_safe_always_and_alive_when_faults_cease(seats: int, kind: str) -> None:
    """Crashes, loss, partitions, slow disks and f liars: no rule is broken, all is decided."""
    blocks = votes = 0
    for seed in range(SEEDS[seats]):
        mesh, monitor = run(seats, seed, kind)
        blocks += len(mesh.decisions)
        votes += monitor.votes
    assert blocks > 5 * SEEDS[seats], "the runs were too quiet to prove anything"
    assert votes > 0 or seats == 1


def test_liars_are_exposed() -> None:
    """Over a few seeds twins and disrupters both leave signed evidence, against them only."""
    for kind in ("twins", "disrupter"):
        assert sum(len(run(4, seed, kind)[1].evidence) for seed in range(6)) > 0


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_bug_is_found(mutant: type[BftEngine]) -> None:
    """The simulation would notice: each known mistake is caught within forty seeds."""
    for seed in range(40):
        for kind in ("twins", "disrupter"):
            try:
                run(4, seed, kind, mutant)
            except (Violation, P2pmedError):
                return
    pytest.fail(f"{mutant.__name__} went unnoticed")


def test_a_seed_is_a_run() -> None:
    """The same seed gives the same events, byte for byte."""
    digests = {run(4, 3, "disrupter")[0].digest.hexdigest() for _ in range(2)}
    assert len(digests) == 1


def test_an_idle_mesh_writes_and_says_nothing() -> None:
    """R1: one block, then an hour without a flush, a message, a timer or a new view."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather(item_every=0))
    mesh.begin()
    mesh.submit()
    mesh.run(5_000)
    assert mesh.all_decided()
    before = [(node.stores, node.engine.status()) for node in mesh.nodes]
    mesh.send = None  # any message from here on would be an error
    mesh.run(3_600_000)
    assert [(node.stores, node.engine.status()) for node in mesh.nodes] == before
    assert all(node.engine.deadline is None for node in mesh.nodes)


def test_a_minority_stands_still() -> None:
    """R1: below a quorum nothing is decided, no view passes, hardly anything is written."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather())
    for node in mesh.nodes[:2]:
        mesh.nodes.remove(node)
        mesh.processes.remove(node)
    mesh.begin()
    mesh.run(120_000)
    assert mesh.decisions == {}
    assert all(node.engine.status()["view"] <= 1 for node in mesh.nodes)
    assert sum(node.stores for node in mesh.nodes) <= 2


@pytest.mark.parametrize(("seats", "absent"), [(3, 1), (4, 1), (7, 2), (20, 6)])
def test_absent_validators_cost_little(seats: int, absent: int) -> None:
    """The skip rule: with all that may be absent away, blocks come at least half as often."""
    intervals = []
    for gone in (0, absent):
        weather = Weather(sync=(8, 30), item_every=10, body_delay=(1, 2))
        mesh = Mesh(BftEngine, seats=seats, seed=5, weather=weather)
        for node in mesh.nodes[:gone]:
            mesh.nodes.remove(node)
            mesh.processes.remove(node)
        mesh.begin()
        mesh.run(2_500)
        before = len(mesh.nodes[0].chain)
        mesh.run(4_500)
        intervals.append(2_000 / (len(mesh.nodes[0].chain) - before))
    assert intervals[1] <= 2 * intervals[0]


def test_after_a_total_outage_the_first_block_comes_within_five_seconds() -> None:
    """All power off and on again, one validator for good: seconds, not grown time-outs."""
    mesh = Mesh(BftEngine, seats=4, seed=2, weather=Weather())
    mesh.begin()
    mesh.run(2_000)
    for node in mesh.nodes:
        node.crash()
    mesh.nodes.pop()
    mesh.processes.pop()
    mesh.run(60_000)
    for node in mesh.nodes:
        node.start()
    height = max(mesh.decisions)
    mesh.run(mesh.now + 5_000, done=lambda: max(mesh.decisions) > height)
    assert max(mesh.decisions) > height
