"""Whole nodes of a five-node village, by seed: nothing diverges, nothing acknowledged is lost.

Forty seeds in the ordinary run, the engines in turn; a thousand in ``tox -e simulation``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

import pytest

from p2pmed.testing.faults import WEATHER
from p2pmed.testing.village import run_village

SEEDS = 40
ENGINES = ("bft", "raft")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_village_keeps_its_promises(seed: int) -> None:
    """Under the faults of this seed every promise holds, and progress returns after them."""
    outcome = run_village(seed, engine="bft" if seed % 2 == 0 else "raft")
    assert outcome.violations == ()
    assert outcome.virtual_ms >= 60_000
    struck = [count for kind, count in outcome.faults.items() if kind not in WEATHER]
    assert sum(struck) >= 10
    assert outcome.commits >= 20
    assert outcome.acknowledged > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_seed_gives_the_same_trace_under_any_hash_seed(
    engine: Literal["bft", "raft"],
) -> None:
    """Twice here, and in processes with other hash seeds: the same events, the same bytes."""
    program = (
        "from p2pmed.testing.village import run_village;"
        f"print(run_village(3, engine={engine!r}).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        ).stdout
        for hash_seed in ("1", "77")
    }
    here = {run_village(3, engine=engine).digest for _ in range(2)}
    assert {digest.strip() for digest in digests} == here
