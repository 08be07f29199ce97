"""Two cut-off villages and a county, by seed: contradictions are told, everything is anchored."""

from __future__ import annotations

import pytest

from p2pmed.testing.county import run_county
from p2pmed.testing.faults import WEATHER

SEEDS = 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_two_villages_did_apart_is_anchored_and_contradictions_are_told(seed: int) -> None:
    """The same pack dispensed in both becomes a discrepancy known to all; a recall reaches all."""
    outcome = run_county(seed)
    assert outcome.violations == ()
    assert outcome.commits >= 20
    struck = [count for kind, count in outcome.faults.items() if kind not in WEATHER]
    assert sum(struck) >= 10
