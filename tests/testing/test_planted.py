"""Every planted defect is found by the general checkers, within the seeds that it states."""

from __future__ import annotations

import pytest

from p2pmed.testing.planted import PLANTED, plant
from p2pmed.testing.planting import sown
from p2pmed.testing.village import Village, run_village

SOME = (
    "forgotten votes",
    "majority one too small",
    "final before durable",
    "flush said too early",
    "verdicts not kept",
    "proof not kept",
    "tips forgotten at a start",
    "a lie halts the ledger",
)
"""Found in the first seeds; all of them: ``p2pmed sim --planted``, and the test marked slow."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SOME)
def test_a_planted_defect_is_found_by_checkers_that_do_not_know_it(name: str) -> None:
    """Some promise breaks in one of the first seeds."""
    defect = plant(name)
    for seed in range(defect.found_within):
        if run_village(seed, engine=defect.engine, planted=name).violations:
            return
    pytest.fail("no promise broke")


def test_every_defect_names_its_rule_and_where_it_stands() -> None:
    """Forty and more, each with a promise that a checker makes."""
    assert len(PLANTED) >= 40
    for defect in PLANTED.values():
        assert defect.rule
        assert defect.source
        assert defect.promise
    assert all(name in PLANTED for name in SOME)


def test_a_patch_goes_when_its_seed_is_over() -> None:
    """Real code is as it was."""
    from p2pmed.ledger.chain import Chain

    before = Chain._load
    with sown(plant("tips forgotten at a start")):
        assert Chain._load is not before
    assert Chain._load is before


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_reported_as_the_promise_that_it_breaks(name: str) -> None:
    """One of the first ``found_within`` seeds names the broken promise."""
    defect = plant(name)
    said: set[str] = set()
    for seed in range(defect.found_within):
        outcome = run_village(seed, engine=defect.engine, planted=name)
        said |= {violation.split(": ")[1] for violation in outcome.violations}
        if defect.promise in said:
            return
    pytest.fail(f"reported: {sorted(said)}")


def test_an_unknown_defect_is_a_mistake_of_the_caller() -> None:
    """Nothing is switched on by a misspelt name."""
    with pytest.raises(KeyError):
        plant("no such defect")


def test_validators_who_agree_on_no_block_do_not_spin() -> None:
    """Refused blocks end views by the timer: a minute costs tens of views, not thousands."""
    village = Village(0, planted="rules read the clock")
    assert village.form()
    village.workload.write_at(village.nodes[0])
    simulation = village.simulation
    simulation.run_for(60_000)
    assert village.nodes[0].height == 0
    views = []
    for node in village.nodes:
        assert node.home is not None
        assert node.home.engine is not None
        views.append(node.home.engine.status()["view"])
    assert max(int(view) for view in views) < 60
    assert max(node.flushes for node in village.nodes) < 600
