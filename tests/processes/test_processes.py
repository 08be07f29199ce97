"""Real processes in network namespaces, killed, stopped and cut, judged by what they said.

``P2PMED_ORDEAL_S`` makes the runs longer, ``P2PMED_ORDEAL_SEED`` chooses their faults.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from p2pmed.testing.namespaces import lan, why_not
from p2pmed.testing.ordeal import FAULTS, Ordeal, Report, Stress
from p2pmed.testing.processes import real_mesh

APPLICATION = Path(__file__).with_name("application")
SECONDS = float(os.environ.get("P2PMED_ORDEAL_S", "18"))
SEED = int(os.environ.get("P2PMED_ORDEAL_SEED", "1"))
NODES = {"raft": 3, "bft": 4}

reason = cache(why_not)


async def ordeal(folder: Path, engine: str, seed: int) -> Report:
    """One run; its history stays in ``folder``."""
    with lan(NODES[engine]) as wires:
        environment = {"PYTHONPATH": str(APPLICATION)}
        async with real_mesh(folder, wires, engine, environment=environment) as mesh:
            report = await Ordeal(mesh, Stress(seconds=SECONDS, seed=seed)).run()
    report.history.write(folder / "history.jsonl")
    print(json.dumps({"engine": engine, "seconds": SECONDS, **report.to_json()}))
    return report


@pytest.mark.netns
@pytest.mark.timeout(SECONDS * 2 + 300)
@pytest.mark.parametrize("engine", sorted(NODES))
async def test_real_processes_are_linearizable_under_faults(engine: str, tmp_path: Path) -> None:
    """Through kill -9, SIGSTOP and cuts: linearizable, prefixes of one ledger, nothing lost."""
    if reason():
        pytest.skip(reason())
    report = await ordeal(tmp_path, engine, SEED)
    assert report.violations == []
    assert report.given_up == []
    assert report.history.counts()["ok"] > 20
    assert sum(report.faults.values()) >= 2
    assert set(report.faults) <= set(FAULTS)
    assert not [path for path in Path("/run/netns").iterdir() if f"-{os.getpid()}-" in path.name]
