"""Seeded chaos: safety at every step, progress once faults cease."""

from __future__ import annotations

import pytest
from raft_simulation import chaos

BATCHES = [range(start, start + 10) for start in range(0, 60, 10)]


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda r: f"{r.start}-{r.stop - 1}")
def test_chaos_then_progress(seeds: range) -> None:
    """Loss, duplicates, partitions, crashes and slow disks break no promise of Raft."""
    decided = 0
    for seed in seeds:
        decided += len(chaos(seed).agreed)
    assert decided > 50


@pytest.mark.parametrize("seed", [3, 212])
def test_same_seed_same_trace(seed: int) -> None:
    """A seed is a run: every message byte for byte."""
    first, second = chaos(seed), chaos(seed)
    assert first.trace.digest() == second.trace.digest()
    assert (first.steps, first.flushes) == (second.steps, second.flushes)
