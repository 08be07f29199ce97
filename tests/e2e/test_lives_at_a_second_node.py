"""Whole lives cross a network: imported at one node, replicated, granted, equal at another.

The data is found through ``P2PMED_DATA`` or in ``shared/data`` beside the checkout.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import Denied
from p2pmed.medical.fhir import BUNDLE_BYTES_MAX, canonical_json, gunzip_bounded
from p2pmed.node.node import Node
from p2pmed.node.operations import Arguments, operations
from p2pmed.testing.homes import local_network, until

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
LIVES = DATA / "synthea-r4" / "patients"

pytestmark = pytest.mark.skipif(
    not LIVES.is_dir(), reason="no lives among the sample documents; set P2PMED_DATA"
)


async def ask(node: Node, operation: str, **values: Any) -> dict[str, Any]:
    return await operations()[operation](node, Arguments(values), lambda told: None)


async def cross(inbox: Path, outbox: Path, *, patience_s: float) -> dict[str, float]:
    """Import at one node, replicate, grant and export at another; seconds of each."""
    seconds = {}
    async with local_network("clinic", "clinic") as network:
        here, there = network.nodes
        await network.in_sight()
        start = time.monotonic()
        told = await ask(here, "fhir.import", paths=[str(inbox)])
        assert told["refused"] == []
        seconds["import"] = time.monotonic() - start
        patients = here.patients.known()
        assert len(patients) == len(list(inbox.iterdir()))

        await arrived(here, there, patience_s)
        seconds["replicated"] = time.monotonic() - start
        await there.catch_up()
        for patient in patients:
            with pytest.raises(Denied):
                there.patients.ring(patient)
        assert (await ask(there, "fhir.export", folder=str(outbox / "before")))["files"] == 0

        start = time.monotonic()
        for patient in patients:
            await here.patients.grant(patient, there.keys.box_public)
        await arrived(here, there, patience_s)
        seconds["granted"] = time.monotonic() - start
        start = time.monotonic()
        told = await ask(there, "fhir.export", folder=str(outbox / "after"))
        seconds["export"] = time.monotonic() - start
        assert told["left_out"] == []
        assert told["resources"] == sum(1 for _ in _resources(inbox))
    return seconds


async def arrived(source: Node, target: Node, patience_s: float) -> None:
    lane = source.replica.own.key

    def all_there() -> bool:
        logs = target.replica.logs
        found = logs.lane(lane)
        return found is not None and found.durable_next >= source.replica.logs.next_seq(lane)

    await until(all_there, "everything is at the second node", seconds=patience_s)


def _resources(folder: Path) -> Any:
    import json

    for path in folder.iterdir():
        yield from json.loads(gunzip_bounded(path.read_bytes(), BUNDLE_BYTES_MAX))["entry"]


def equal(inbox: Path, outbox: Path) -> int:
    """Every document of the inbox is in the outbox, byte for byte; how many."""
    names = sorted(path.name for path in inbox.iterdir())
    assert sorted(path.name for path in outbox.iterdir()) == names
    for name in names:
        came, went = (
            gunzip_bounded((folder / name).read_bytes(), BUNDLE_BYTES_MAX)
            for folder in (inbox, outbox)
        )
        assert went == came
        assert canonical_json(went) == canonical_json(came)
    return len(names)


def chosen(tmp_path: Path, count: int) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    files = sorted(LIVES.glob("*.json.gz"), key=lambda path: path.stat().st_size)
    step = max(1, len(files) // count)
    for path in files[::step][:count]:
        shutil.copy(path, inbox)
    return inbox


@pytest.mark.timeout(300)
async def test_eight_lives_are_equal_at_a_second_node(tmp_path: Path) -> None:
    """From the shortest to one of the longest; closed before the grant, equal after it."""
    inbox, outbox = chosen(tmp_path, 8), tmp_path / "out"
    outbox.mkdir()
    await cross(inbox, outbox, patience_s=120)
    assert equal(inbox, outbox / "after") == 8


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_all_lives_are_equal_at_a_second_node(tmp_path: Path) -> None:
    """All 186: some 61,000 resources in, sealed, replicated, granted, and out equal."""
    inbox, outbox = chosen(tmp_path, 10_000), tmp_path / "out"
    outbox.mkdir()
    seconds = await cross(inbox, outbox, patience_s=900)
    assert equal(inbox, outbox / "after") >= 186
    print({name: round(value, 1) for name, value in seconds.items()})
