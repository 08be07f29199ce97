"""Engines under every fault and liar of the core-level simulator: seeds, and proof of sight."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from p2pmed.testing.core.planted import BFT_DEFECTS, DEFECTS, RAFT_DEFECTS
from p2pmed.testing.core.scenario import play_bft, play_raft
from p2pmed.testing.core.story import Cast, Run, draw_story
from p2pmed.testing.core.strategies import STRATEGIES
from p2pmed.testing.scenario import SeedOptions, SeedReport

NOTHING = SeedOptions()
BATCH = 50
PLAYS = {"raft": play_raft, "bft": play_bft}


@pytest.mark.parametrize("first", range(0, 150, BATCH))
@pytest.mark.parametrize("engine", PLAYS)
def test_no_seed_breaks_a_promise(engine: str, first: int) -> None:
    """Every promise holds in every seed, and nearly all seeds are long and bad enough to count."""
    reports = [PLAYS[engine](seed, NOTHING) for seed in range(first, first + BATCH)]
    assert [r.violations for r in reports if r.violations] == []
    counted = sum(report.counts for report in reports)
    commits = sum(report.commits for report in reports)
    print(f"{engine}: {counted} of {len(reports)} seeds count, {commits} blocks")
    assert counted >= 0.8 * len(reports)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_lies_and_is_withstood(strategy: str) -> None:
    """With f liars of one kind nothing forks, and progress returns; and they did lie."""
    told: Counter[str] = Counter()
    for seed in range(4):
        cast = Cast(engine="bft", seats=4, liars=1, lying={seed: strategy})
        report = Run(cast, seed, draw_story("bft", seed, 4)).play()
        assert report.violations == ()
        told.update(report.faults)
    assert told[strategy] > 0


FOUND_AT_ONCE = (
    "bft: quorum one too small",
    "bft: finalize after nullify",
    "raft: vote sent before fsync",
    "bft: vote sent before fsync",
    "bft: parent not notarized",
    "bft: certificates unverified",
    "bft: repetition is evidence",
    "bft: flags dropped with the view",
    "raft: commit index backwards",
    "raft: attested before fsync",
    "raft: acknowledged before fsync",
    "raft: vote not persisted",
    "raft: election timer not reset",
)


@pytest.mark.parametrize("name", FOUND_AT_ONCE)
def test_a_planted_defect_is_found(name: str) -> None:
    """Its breach is seen within a few seeds by judges that know nothing of it."""
    play = PLAYS[DEFECTS[name].engine]
    reports = (play(seed, SeedOptions(planted=name)) for seed in range(25))
    assert any(report.violations for report in reports)


def test_every_defect_can_be_planted_and_taken_out() -> None:
    """None is stale: each replaces what is there; afterwards the seed passes again."""
    for name, defect in DEFECTS.items():
        PLAYS[defect.engine](0, SeedOptions(planted=name))
    for play in PLAYS.values():
        assert play(0, NOTHING).violations == ()
    assert len(RAFT_DEFECTS) + len(BFT_DEFECTS) == len(DEFECTS) >= 50


def _digest(engine: str, seed: int, hash_seed: str) -> str:
    code = (
        f"from p2pmed.testing.core.scenario import play_{engine} as play\n"
        "from p2pmed.testing.scenario import SeedOptions\n"
        f"print(play({seed}, SeedOptions()).digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("engine", "seed"), [("raft", 5), ("bft", 12)])
def test_a_seed_is_a_run_under_any_hash_seed(engine: str, seed: int) -> None:
    """Same seed, same events, byte for byte, whatever order sets would have."""
    assert len({_digest(engine, seed, hash_seed) for hash_seed in ("0", "1")}) == 1


def test_real_signatures_change_nothing() -> None:
    """One seed in a hundred runs with Ed25519 instead of tokens."""
    cast = Cast(engine="bft", seats=4, liars=1, lying={0: "disrupter"}, real_keys=True)
    assert Run(cast, 1, draw_story("bft", 1, 4)).play().violations == ()


def test_a_story_can_be_played_in_part() -> None:
    """A step left out leaves the others as they are: what shrinking lives on."""
    whole = play_raft(3, NOTHING)
    part = tuple(step for step in whole.story if step["do"] != "crash")
    report: SeedReport = play_raft(3, SeedOptions(steps=part))
    assert report.story == part
    assert report.violations == ()


def test_a_follower_learns_of_a_floor_below_the_first_block() -> None:
    """A log that dropped only an empty entry has a floor without a block, and says so."""
    cast = Cast(engine="raft", seats=7, liars=0, lying={}, keep=1)
    for seed in (18, 110):
        assert Run(cast, seed, draw_story("raft", seed, 7)).play().violations == ()
