"""Bugs planted on purpose turn the simulator or a scenario red: the judges can see.

Each names a seed that shows it, and the hunt begins there: a change of the core moves seeds,
and then the hunt is longer, not lost. Mistakes that chaos meets too rarely have a scenario
aimed at them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import raft_mutants
import test_raft_finality
import test_raft_paper
import test_raft_reading
import test_raft_scripts
from raft_simulation import chaos

from p2pmed.errors import P2pmedError

BY_CHAOS = {
    "answer_before_disk": 82,
    "any_log_may_lead": 2,
    "commit_beyond_match": 18,
    "prev_not_compared": 18,
    "cut_not_stored": 2,
    "quorum_of_half": 1,
    "empty_entry_left_out_of_the_floor": 5,
    "attestations_not_said_again": 6,
    "no_empty_entry": 2,
    "pre_vote_adopts_term": 0,
    "decided_without_check": 0,
}

SCRIPTS = Path(test_raft_scripts.__file__).parent / "scripts"

HUNT_SEEDS_MAX = 80

BY_SCENARIO: dict[str, Callable[..., Any]] = {
    "vote_forgotten": test_raft_paper.test_5_2_one_vote_a_term_and_it_survives_a_crash,
    "vote_before_disk": test_raft_paper.test_5_2_a_vote_leaves_only_after_its_flush,
    "answer_before_disk": test_raft_paper.test_a_leader_counts_itself_after_its_own_flush,
    "old_terms_counted": test_raft_paper.test_5_4_2_old_entries_are_not_committed_by_counting,
    "floor_without_blocks": test_raft_finality.test_a_truncated_log_leads_to_behind_and_back,
    "lost_member_answers": lambda: test_raft_scripts.test_script(
        SCRIPTS / "lost_memory_and_a_stale_leader.txt"
    ),
    "read_without_round": test_raft_reading.test_reads_are_linearizable_in_chaos,
    "read_before_own_entry": test_raft_reading.test_reads_are_linearizable_in_chaos,
    "certificates_not_said_again": (
        test_raft_finality.test_a_certificate_lost_on_the_way_is_said_again
    ),
}


@pytest.mark.parametrize(("name", "seed"), BY_CHAOS.items(), ids=BY_CHAOS)
def test_chaos_finds(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this bug planted a seed fails."""
    raft_mutants.PLANTS[name](monkeypatch)
    with pytest.raises((AssertionError, P2pmedError)):
        _hunt(seed)


def _hunt(seed: int) -> None:
    for hunted in range(seed, seed + HUNT_SEEDS_MAX):
        chaos(hunted)


@pytest.mark.parametrize(("name", "scenario"), BY_SCENARIO.items(), ids=BY_SCENARIO)
def test_a_scenario_finds(
    name: str, scenario: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this bug planted the scenario fails."""
    raft_mutants.PLANTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        scenario()


def test_every_planted_bug_is_looked_for() -> None:
    """Nothing is planted in vain (figure 8 has a module of its own)."""
    looked_for = {*BY_CHAOS, *BY_SCENARIO, "inherited_attested"}
    assert looked_for == set(raft_mutants.PLANTS)
