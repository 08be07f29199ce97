"""Every kind of fault acts: it is counted, and what happens afterwards is not what did before."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest

from p2pmed.testing.clock import seeded
from p2pmed.testing.faults import KINDS, Mischief
from p2pmed.testing.misdeeds import BFT_KINDS, LIES, RAFT_KINDS
from p2pmed.testing.network import LinkFaults
from p2pmed.testing.village import Village

Engine = Literal["bft", "raft"]
WEATHER = {
    "loss": LinkFaults(loss=30),
    "duplicate": LinkFaults(duplicates=50),
    "reorder": LinkFaults(reorder=True, delay_ms=(1, 80)),
    "delay": LinkFaults(delay_ms=(50, 300)),
}


def _story(kind: str, engine: Engine) -> Village:
    """Twelve seconds of a village with a liar, in which one fault strikes."""
    village = Village(3, engine=engine)
    assert village.form()
    liar = village.nodes[0]
    mischief = Mischief(
        village.simulation,
        village.nodes,
        seeded(1, "swarm"),
        days_alone_max=1,
        kinds=BFT_KINDS if engine == "bft" else RAFT_KINDS,
        lies=LIES,
        liar=liar,
    )
    for number in range(16):
        village.workload.write(seeded(number, "write"))
        if number == 2 and kind in BFT_KINDS:
            mischief.strike(kind, seeded(2, kind))
        village.simulation.run_for(750)
    return village


@cache
def _calm(engine: Engine) -> str:
    return _story("", engine).simulation.trace_digest


@pytest.mark.parametrize("kind", BFT_KINDS)
def test_a_fault_is_counted_and_changes_what_happens(kind: str) -> None:
    """A kind that did nothing would prove nothing, however often it is counted."""
    village = _story(kind, "bft")
    counted = {"clock jump", "power cut", "partition"} | {kind}
    assert counted & set(village.simulation.injected)
    assert village.simulation.trace_digest != _calm("bft")


@pytest.mark.parametrize("kind", WEATHER)
def test_weather_is_counted_by_message(kind: str) -> None:
    """Loss, duplicates, overtaking and delay have their own names."""
    village = Village(3)
    assert village.form()
    village.simulation.faults = WEATHER[kind]
    village.workload.write(seeded(1, "write"))
    village.simulation.run_for(3_000)
    assert village.simulation.injected[kind] > 5


def test_there_are_more_kinds_than_two_dozen() -> None:
    """Of the weather, of power, cables, disks, clocks and members, and of liars."""
    assert len(set(BFT_KINDS) | set(WEATHER)) >= 40
    assert set(KINDS) < set(RAFT_KINDS) < set(BFT_KINDS)
    assert len(LIES) >= 12


def test_a_fault_left_out_changes_no_other_dice() -> None:
    """Steps have dice of their own: the stories that are left are the same."""
    whole = Village(8)
    assert whole.form()
    whole.suffer()
    fewer = Village(8, steps=whole.story[:5] + whole.story[6:10])
    assert fewer.form()
    fewer.suffer()
    assert fewer.story == whole.story[:5] + whole.story[6:10]
