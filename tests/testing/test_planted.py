"""Every planted defect is found by the general checkers, within the seeds that it states."""

from __future__ import annotations

import pytest

from p2pmed.testing.planted import PLANTED, plant
from p2pmed.testing.village import Village, run_village


@pytest.mark.timeout(300)
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
