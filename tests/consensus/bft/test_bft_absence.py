"""Speed in virtual time: any n, absent clinics, latency, and time-outs that do not matter.

A ratio of virtual times is the same on every machine, so it is asserted, not only printed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from simulation import Mesh, Weather

from p2pmed.consensus.bft import pacemaker
from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.quorum.certificate import quorum_size

LAN = {"sync": (8, 30), "latency": (1, 5), "body_delay": (1, 2)}
"""The weather of the consensus notes, section 3.2."""


EVEN = {"sync": (10, 10), "latency": (2, 2), "body_delay": (1, 1), "item_every": 2}
"""Each flush 10 ms, each link 2 ms, and always something to order."""


SLOW = pytest.mark.slow


def meshed(seats: int, absent: Sequence[int] = (), *, seed: int = 5, **weather) -> Mesh:
    """A mesh under load, without the absent."""
    mesh = Mesh(BftEngine, seats=seats, seed=seed, weather=Weather(**{"item_every": 10, **weather}))
    for node in [node for node in mesh.nodes if node.seat in absent]:
        mesh.nodes.remove(node)
        mesh.processes.remove(node)
    mesh.begin()
    return mesh


def interval(mesh: Mesh, *, warm: int = 2_500, span: int = 3_000) -> float:
    """Virtual milliseconds per block, after ``warm``."""
    mesh.run(mesh.now + warm)
    before = len(mesh.nodes[0].chain)
    mesh.run(mesh.now + span)
    return span / (len(mesh.nodes[0].chain) - before)


def most_absent(seats: int) -> int:
    return seats - quorum_size(seats, (seats - 1) // 3)


# --- any number of validators ------------------------------------------------------------


@pytest.mark.parametrize("seats", range(1, 21))
def test_any_number_of_validators_agrees_with_any_number_of_liars_allowed(seats: int) -> None:
    """n = 1..20, every f <= (n - 1) // 3: with n - q seats away, work is decided by all."""
    for liars in range((seats - 1) // 3 + 1):
        away = range(seats - quorum_size(seats, liars))
        mesh = Mesh(BftEngine, seats=seats, seed=seats, liars=liars, weather=Weather())
        for node in [node for node in mesh.nodes if node.seat in away]:
            mesh.nodes.remove(node)
            mesh.processes.remove(node)
        mesh.begin()
        mesh.run(2_000)
        mesh.heal()
        mesh.run(mesh.now + 8_000, done=mesh.all_decided)
        assert mesh.all_decided(), f"f = {liars}"
        assert len(mesh.decisions) > 3


# --- absent clinics ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "seats", [3, 4, *(pytest.param(n, marks=SLOW) for n in (6, 7, 10, 13, 20))]
)
def test_absent_clinics_cost_at_most_half(seats: int) -> None:
    """With all n - q away, side by side or spread, blocks come at >= 2/3 of the usual pace."""
    absent = most_absent(seats)
    full = interval(meshed(seats, **LAN))
    for away in (range(absent), [i * seats // absent for i in range(absent)]):
        assert interval(meshed(seats, away, **LAN)) <= 1.5 * full


@pytest.mark.parametrize("seats", [3, 4, pytest.param(7, marks=SLOW), pytest.param(10, marks=SLOW)])
def test_on_an_even_network_absent_clinics_cost_nothing(seats: int) -> None:
    """Where every flush and link takes the same time only skipping is measured: it is free.

    A block takes one flush and one message, 12 ms, with all present and with n - q away.
    """
    full = interval(meshed(seats, **EVEN), span=1_200)
    assert full == 12
    assert interval(meshed(seats, range(most_absent(seats)), **EVEN), span=1_200) == full


@pytest.mark.parametrize("gone", [0, *(pytest.param(n, marks=SLOW) for n in (1, 2, 3))])
def test_four_with_one_absent_settle_at_the_speed_of_three_within_ten_blocks(gone: int) -> None:
    """One of four leaves for good: after ten blocks the mesh is as fast as a mesh of three.

    On an even network, since four with one away need all three, and three need only two: what
    the third disk costs by being slow now and then is not what absence costs.
    """
    three = interval(meshed(3, **EVEN))
    mesh = meshed(4, **EVEN)
    mesh.run(3_000)
    node = next(node for node in mesh.nodes if node.seat == gone)
    node.crash()
    mesh.nodes.remove(node)
    mesh.processes.remove(node)
    start, since = len(mesh.nodes[0].chain), mesh.now
    mesh.run(mesh.now + 10_000, done=lambda: len(mesh.nodes[0].chain) >= start + 10)
    assert mesh.now - since <= 1_000, "one time-out, and ten blocks"
    assert interval(mesh, warm=0) <= 1.05 * three


@pytest.mark.parametrize(
    ("seats", "bound"), [(4, 1.15), *(pytest.param(n, 1.15, marks=SLOW) for n in (7, 10))]
)
def test_no_order_of_leaders_would_be_much_better(
    seats: int, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation with skips against an oracle that lets only present validators lead.

    No reputation read from the chain (Carousel, arXiv 2110.00960) knows more than the oracle.
    """
    away = [i * seats // most_absent(seats) for i in range(most_absent(seats))]
    rotation = interval(meshed(seats, away, **LAN), span=6_000)
    present = [seat for seat in range(seats) if seat not in away]
    monkeypatch.setattr(Ballots, "leader", lambda self, view: present[view % len(present)])
    assert rotation <= bound * interval(meshed(seats, away, **LAN), span=6_000)


@pytest.mark.slow
def test_a_flapping_clinic_costs_little() -> None:
    """A clinic that is away 3 s of every 6 s: seven validators keep 70 % of their pace."""
    full = interval(meshed(7, **LAN))
    mesh = meshed(7, **LAN)
    mesh.run(2_500)
    before, flapping = len(mesh.nodes[0].chain), mesh.nodes[3]
    flapping.crash()
    mesh.run(mesh.now + 3_000)
    flapping.start()
    mesh.run(mesh.now + 3_000)
    assert 6_000 / (len(mesh.nodes[0].chain) - before) <= 1.4 * full


# --- responsiveness ----------------------------------------------------------------------


def test_time_outs_do_not_slow_a_mesh_that_is_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimistic responsiveness: with delta a hundred times longer nothing changes at all."""
    usual = meshed(4, **LAN)
    usual.run(4_000)
    monkeypatch.setattr(pacemaker, "DELTA_MS", 100 * pacemaker.DELTA_MS)
    patient = meshed(4, **LAN)
    patient.run(4_000)
    assert patient.decisions == usual.decisions


def finality(mesh: Mesh, items: int) -> list[int]:
    """Virtual milliseconds from the submission of lone work to its decision at the first node."""
    times = []
    for _ in range(items):
        mesh.run(mesh.now + 400)
        start, height = mesh.now, max(mesh.decisions, default=0)
        mesh.submit()
        mesh.run(mesh.now + 5_000, done=lambda m=mesh, h=height: max(m.decisions, default=0) > h)
        times.append(mesh.now - start)
    return times


@pytest.mark.parametrize("seats", [3, 4, 7])
def test_a_lone_block_is_final_after_two_flushes_and_three_messages(seats: int) -> None:
    """Flush 10 ms, link 2 ms: body 1 + proposal 2 + (10 + 2) twice = 27 ms, and no more."""
    mesh = meshed(seats, **{**EVEN, "item_every": 0})
    assert max(finality(mesh, 12)) <= 28


def test_under_load_one_flush_carries_a_block() -> None:
    """The vote for a block and the finalize vote of the one before share a flush."""
    mesh = meshed(4, **EVEN)
    mesh.run(2_000)
    node = mesh.nodes[0]
    stores, blocks = node.stores, len(node.chain)
    mesh.run(mesh.now + 2_000)
    assert node.stores - stores <= 1.05 * (len(node.chain) - blocks)
