"""The consensus bench: one node alone, and a mesh whose leader is killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from p2pmed.bench.consensus import longest_silence
from p2pmed.bench.size import Size
from p2pmed.bench.suite import SUITES, run_benches

TINY = Size(
    seconds=0.01,
    load_s=0.3,
    entries=16,
    stored=16,
    gossip=16,
    clients=1,
    batch=16,
    watch_s=2.5,
)


def test_the_longest_silence_begins_at_the_kill_or_after() -> None:
    """What became final before the kill does not count, a late stall does."""
    assert longest_silence([1.0, 2.0, 9.0], 3.0) == 6.0
    assert longest_silence([3.1, 3.2, 7.2, 7.3], 3.0) == 4.0
    assert longest_silence([1.0, 2.0], 3.0) == 0.0


def test_the_full_suite_measures_every_size() -> None:
    """Both engines, from one node to thirteen."""
    sizes = {(engine, n) for engine in ("bft", "raft") for n in (1, 3, 4, 7, 10, 13)}
    assert set(SUITES["full"].meshes) == sizes


@pytest.mark.parametrize("engine", ["bft", "raft"])
async def test_one_node_has_a_skeleton_too(engine: str, tmp_path: Path) -> None:
    """A mesh of one is measured beside a skeleton of one, and loses no leader."""
    report = await run_benches(["consensus"], replace(TINY, meshes=((engine, 1),)), folder=tmp_path)
    results = report.results["consensus"]
    assert all(result.value > 0 for result in results)
    assert not [result for result in results if "killed" in result.name]


async def test_a_killed_leader_is_survived_and_the_wait_is_told(tmp_path: Path) -> None:
    """Finality returns after the kill, and how long that took is a figure."""
    report = await run_benches(["consensus"], replace(TINY, meshes=(("raft", 3),)), folder=tmp_path)
    waits = [result for result in report.results["consensus"] if "killed" in result.name]
    assert len(waits) == 1
    assert waits[0].value > 0
    assert waits[0].details["kills"] == 1
