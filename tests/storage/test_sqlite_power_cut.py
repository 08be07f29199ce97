"""Power cuts: every disk that may remain opens, is sound and holds what was acknowledged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import commit_script
import power_cut
import pytest
from commit_script import COUNT_KEY, Rows

from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space

IMAGES = int(os.environ.get("P2PMED_IMAGES", "160"))
"""Disks tried; the release run sets thousands."""
COMMITS = 60
CHECKPOINT_PAGES = 60
SEED = 21


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[power_cut.Op]:
    """The requests of a real run that commits and checkpoints many times, twice opened."""
    if not power_cut.available():
        pytest.skip("strace is not installed, or may not trace here")
    folder = tmp_path_factory.mktemp("home")
    log = tmp_path_factory.mktemp("trace") / "log"
    ops: list[power_cut.Op] = []
    half = COMMITS // 2
    for first in (1, half + 1):
        command = [sys.executable, commit_script.__file__, str(folder / "node.db"), str(first)]
        numbers = [str(half), str(CHECKPOINT_PAGES), str(SEED)]
        ops += power_cut.record([*command, *numbers], folder, log)
    return ops


def states() -> list[Rows]:
    """What must be there after each number of batches."""
    after: list[Rows] = [{}]
    for number in range(1, COMMITS + 1):
        state = dict(after[-1])
        commit_script.apply(state, SEED, number)
        after.append(state)
    return after


async def check_images(ops: list[power_cut.Op], folder: Path, images: int, seed: int) -> set[int]:
    """Build and open ``images`` disks; how far beyond the last acknowledged batch each was."""
    expected = states()
    beyond: set[int] = set()
    for number in range(images):
        rng = Random(f"{seed}/{number}")
        acknowledged = power_cut.image(
            ops, rng, folder, ignore=("node.db.lock", "node.db.ballast", "node.db-shm")
        )
        where = f"image {seed}/{number}, acknowledged {acknowledged}"
        async with open_disk(folder / "node.db", create=True) as disk:
            await disk.check()
            found = int.from_bytes(disk.get(Space.META, COUNT_KEY) or b"", "big")
            assert acknowledged <= found <= acknowledged + 1, f"{where}, found {found}"
            rows = {
                (space, key): value
                for space in Space
                for key, value in disk.scan(space, b"", b"\xff" * 40, limit=1_000_000)
                if key != b"storage.schema"
            }
            assert rows == expected[found], where
        beyond.add(found - acknowledged)
    return beyond


def test_the_recorded_run_is_what_it_should_be(run: list[power_cut.Op]) -> None:
    """The trace has every acknowledgement, flushes before each, and checkpoints into the file."""
    acks = [op.offset for op in run if op.kind == "ack"]
    assert acks == list(range(1, COMMITS + 1))
    flushed = True
    for op in run:
        if op.kind == "write" and op.file == "node.db-wal":
            flushed = False
        elif op.kind == "sync" and op.file == "node.db-wal":
            flushed = True
        elif op.kind == "ack":
            assert flushed, f"batch {op.offset} was acknowledged before its flush"
    writes = [op for op in run if op.kind == "write" and op.file == "node.db"]
    checkpoints = [op for op in run if op.kind == "sync" and op.file == "node.db"]
    assert len(writes) > 50
    assert len(checkpoints) > 5


@pytest.mark.timeout(0 if IMAGES > 1_000 else 120)
async def test_every_power_cut_keeps_what_was_acknowledged(
    run: list[power_cut.Op], tmp_path: Path
) -> None:
    """Un-flushed writes lost, kept in any order and torn: no acknowledged batch is missing,
    no batch is there in part; both fates of the batch under way occur.
    """
    assert await check_images(run, tmp_path, IMAGES, seed=1) == {0, 1}


async def test_a_disk_that_ignores_flushes_is_found_out(
    run: list[power_cut.Op], tmp_path: Path
) -> None:
    """The method can fail: with the log's flushes taken out, acknowledged batches go missing."""
    lying = [op for op in run if not (op.kind == "sync" and op.file == "node.db-wal")]
    with pytest.raises(Exception, match=r"acknowledged \d+, found|damaged|SQLITE"):
        await check_images(lying, tmp_path, 100, seed=2)
