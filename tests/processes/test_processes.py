"""Real processes in network namespaces, killed, stopped and cut, judged by what they said.

``P2PMED_ORDEAL_S`` makes the runs longer, ``P2PMED_ORDEAL_SEED`` chooses their faults.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from p2pmed.testing.histories import History, unlinearizable
from p2pmed.testing.namespaces import lan, why_not
from p2pmed.testing.ordeal import FAULTS, Ordeal, Report, Stress
from p2pmed.testing.processes import NotKnown, RealNode, Refused, real_mesh

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


async def write(history: History, node: RealNode, value: str) -> None:
    """Write register ``r`` and wait until it is final."""
    begun = history.invoke(history.client(), "r", ("write", value))
    fields = {"key": "r", "old": "", "new": value}
    told = await node.ask("general.submit", 30, kind="register.set", fields=fields, wait_s=25)
    assert told["level"] == "final"
    history.end(begun, "ok")


async def read(history: History, node: RealNode, wait_s: int) -> None:
    """Read register ``r``, with a barrier if ``wait_s`` is not 0."""
    begun = history.invoke(history.client(), "r", ("read",))
    try:
        told = await node.ask("rows.read", 10, key="x/register/r", wait_s=wait_s)
    except (NotKnown, Refused) as error:
        history.end(begun, "fail", str(error))
    else:
        history.end(begun, "ok", bytes.fromhex(told["value"] or "").decode())


@pytest.mark.netns
@pytest.mark.timeout(240)
async def test_a_stale_read_behind_a_cut_is_refused_and_would_be_found(tmp_path: Path) -> None:
    """Cut off, a node answers no read with a barrier; one without is stale, and is found.

    So what the runs below find is what they could have found.
    """
    if reason():
        pytest.skip(reason())
    history = History()
    with lan(3) as wires:
        environment = {"PYTHONPATH": str(APPLICATION)}
        async with real_mesh(tmp_path, wires, "raft", environment=environment) as mesh:
            alone, other, _ = mesh.nodes
            await write(history, other, "1")
            await read(history, alone, wait_s=10)
            wires.split([0], [1, 2])
            await write(history, other, "2")
            await read(history, alone, wait_s=2)
            assert history.counts() == {"ok": 3, "fail": 1, "info": 0, "open": 0}
            assert unlinearizable(history) == ([], [])
            await read(history, alone, wait_s=0)
    assert unlinearizable(history) == (["r"], [])


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
    assert report.history.counts()["ok"] >= 50
    assert report.faults.total() >= 4
    assert set(report.faults) <= set(FAULTS)
    assert report.settled_s < 60
