"""Races of leave and reading: what holds in every seed, and defects that are found."""

from __future__ import annotations

import pytest

from p2pmed.testing.consent import play
from p2pmed.testing.consent_defects import CONSENT_DEFECTS
from p2pmed.testing.scenario import SeedOptions


def test_no_seed_reads_unaudited_or_without_leave() -> None:
    """Fifty seeds with crashes and cuts: something is opened and refused, nothing is broken."""
    reports = [play(seed, SeedOptions()) for seed in range(50)]
    assert [report.violations for report in reports if report.violations] == []
    assert sum(report.notes["opened"] for report in reports) > 500
    assert sum(report.notes["refused"] for report in reports) > 500
    assert sum(report.counts for report in reports) > 40


def test_a_seed_is_the_same_twice() -> None:
    """Same seed, same trace; its story played again gives it too."""
    one = play(3, SeedOptions())
    assert play(3, SeedOptions()) == one
    assert play(3, SeedOptions(steps=one.story)).digest == one.digest


@pytest.mark.parametrize("name", list(CONSENT_DEFECTS))
def test_every_planted_defect_is_found(name: str) -> None:
    """Each rule broken in real code breaks the promise it is about, within its seeds."""
    defect = CONSENT_DEFECTS[name]
    for seed in range(defect.found_within):
        report = play(seed, SeedOptions(planted=name))
        if defect.promise in report.promises:
            assert not play(seed, SeedOptions()).violations
            return
    pytest.fail(f"not found in {defect.found_within} seeds")
