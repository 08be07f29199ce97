"""Every bench runs, on tiny sizes, and says what it measured. No test asserts a time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from p2pmed.bench.load import ENTRY_BYTES, NETWORK, signed_entries
from p2pmed.bench.results import Result, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.skeleton import run_skeleton
from p2pmed.bench.suite import BENCHES, SUITES, run_benches
from p2pmed.cli import main
from p2pmed.errors import ConfigError
from p2pmed.ledger.transaction import open_entry
from p2pmed.wire import cose

TINY = Size(
    seconds=0.01,
    load_s=0.3,
    entries=64,
    stored=100,
    gossip=64,
    imports=1,
    clients=1,
    batch=16,
    meshes=(("bft", 2),),
    nodes=2,
    idle_s=0.1,
    patients=20,
)


def test_the_load_is_real_signed_transactions_of_about_500_bytes() -> None:
    """What is measured opens, verifies and links like any author log."""
    entries = signed_entries(3)
    for before, entry in pairwise(entries):
        opened = open_entry(entry.raw, network=NETWORK)
        assert cose.verify(opened.author, opened.signature, opened.to_be_signed)
        assert opened.envelope.prev == before.id
        assert abs(len(entry.raw) - ENTRY_BYTES) < 25


def test_a_ratio_is_the_share_of_the_limit_for_rates_and_for_times() -> None:
    """Half the rate and twice the time are both one half of what is possible."""
    assert Result(name="r", value=50, unit="tx/s", limit=100).ratio == 0.5
    assert Result(name="t", value=2.0, unit="ms", limit=1.0).ratio == 0.5
    assert Result(name="n", value=2.0, unit="ms").ratio is None


def test_percentiles_are_values_that_occurred() -> None:
    """The 99th of a hundred values is the largest but one or the largest, never between."""
    values = [float(n) for n in range(100)]
    assert percentile(values, 50) == 50.0
    assert percentile(values, 99) == 99.0
    assert percentile([], 50) == 0.0


async def test_the_skeleton_of_raft_stores_and_agrees() -> None:
    """Its seats store blocks one after the other, and it ends by itself."""
    measured = await run_skeleton("raft", 3, size=8, seconds=0.1)
    assert measured.per_second > 0
    assert measured.cpu_us > 0
    assert len(measured.times) > 0


@pytest.mark.parametrize("name", sorted(BENCHES))
async def test_a_bench_gives_figures_with_names_and_units(name: str, tmp_path: Path) -> None:
    """Each bench runs on real nodes and leaves nothing behind in the folder."""
    report = await run_benches([name], TINY, folder=tmp_path)
    results = report.results[name]
    assert results
    assert len({result.name for result in results}) == len(results)
    assert all(result.unit for result in results)
    assert all(result.value > 0 for result in results if result.limit is not None)
    assert all(result.details.get("lost", 0) == 0 for result in results)
    json.dumps(report.to_json())
    assert not list(tmp_path.iterdir())


async def test_an_unknown_bench_is_refused_before_anything_is_measured() -> None:
    """The error names what there is."""
    with pytest.raises(ConfigError, match="no bench") as caught:
        await run_benches(["cryto"], SUITES["quick"])
    assert "crypto" in caught.value.hint


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` is for machines: conditions and every figure of the benches asked for."""
    assert main(["bench", "codec", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["conditions"]["cpus"] >= 1
    assert {figure["unit"] for figure in printed["benches"]["codec"]} == {"/s"}


def test_the_command_refuses_impossible_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong number is named with what can be."""
    assert main(["bench", "idle", "--nodes", "99"]) == 1
    assert "--nodes 99 where 1 to 20 can be" in capsys.readouterr().err


def test_the_load_differs_each_time() -> None:
    """Two runs never store the same bytes, so that no cache is measured."""
    assert signed_entries(1)[0].id != signed_entries(1)[0].id
