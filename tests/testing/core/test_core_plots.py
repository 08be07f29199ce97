"""Plots: each strikes, a correct engine withstands it, and defects that dice miss are found."""

from __future__ import annotations

import pytest

from p2pmed.testing.core.aimed import AIMED
from p2pmed.testing.core.planted import DEFECTS
from p2pmed.testing.core.scenario import play_bft, play_raft
from p2pmed.testing.core.story import Cast, Run
from p2pmed.testing.scenario import SeedOptions, Step

PLAYS = {"raft": play_raft, "bft": play_bft}


def plotted(engine: str, kind: str, seed: int) -> list[Step]:
    """A storm in good weather with one kind of plot and little else, and the calm after it."""
    steps: list[Step] = [{"round": 0, "at": 0, "do": "storm", "dice": 4}]
    steps += [
        {"round": 0, "at": at, "do": kind, "dice": 1_000 * seed + at}
        for at in range(2_500, 20_000, 500)
    ]
    steps.append({"round": 0, "at": 500, "do": "work", "dice": seed})
    steps.append({"round": 0, "at": 20_000, "do": "heal", "idle": 1_000})
    return sorted(steps, key=lambda step: step["at"])


@pytest.mark.parametrize("kind", AIMED)
def test_a_plot_strikes_and_is_withstood(kind: str) -> None:
    """Every plot gets somewhere within three seeds, and a correct engine breaks nothing."""
    engine = "bft" if "amnesia" in kind else "raft"
    struck = 0
    for seed in range(3):
        seats = 4 if engine == "bft" else 3
        cast = Cast(engine=engine, seats=seats, liars=seats // 4, lying={}, keep=4, batch=1)
        report = Run(cast, seed, plotted(engine, kind, seed)).play()
        assert report.violations == ()
        struck += report.faults.get(kind, 0)
        if "next leader" in kind or "laggard" in kind:
            struck += report.faults.get("wiped disk", 0)
    assert struck > 0


FOUND_BY_PLOTS = {
    "bft: R12 with one reply": 215,
    "bft: R12 with V instead of V + 1": 279,
    "raft: floor without blocks": 7,
    "raft: terms unchecked": 863,
    "raft: old terms counted": 3407,
    "raft: certificate said once": 39,
}
"""The first seeds that find them, of 7, 15, 23 ... which have nothing but plots."""


@pytest.mark.parametrize("name", FOUND_BY_PLOTS)
def test_a_plot_finds_what_dice_miss(name: str) -> None:
    """The seed breaks a promise with the defect, and none without."""
    play, seed = PLAYS[DEFECTS[name].engine], FOUND_BY_PLOTS[name]
    assert play(seed, SeedOptions(planted=name)).violations
    assert play(seed, SeedOptions()).violations == ()
