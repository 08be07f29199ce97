"""Faults put into system calls of a real run: each write and flush fails or kills in its turn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import commit_script
import power_cut
import pytest
from commit_script import COUNT_KEY, Rows

from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space

SEED = 33
COMMITS = 12
SAMPLES = int(os.environ.get("P2PMED_INJECT", "4"))
"""How many calls of each kind are made to fail, evenly spread; the release run takes all."""

pytestmark = pytest.mark.skipif(
    not power_cut.available(), reason="strace is not installed, or may not trace here"
)


def run_with(fault: str, path: Path) -> tuple[int, list[bytes]]:
    """Run the program with a fault injected; the last acknowledged number, and its last words."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={fault}", sys.executable]
    numbers = ["1", str(COMMITS), "10", str(SEED)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [*command, commit_script.__file__, str(path), *numbers],
        capture_output=True,
        env=environment,
        check=False,
        timeout=30,
    )
    acks = [line for line in done.stdout.splitlines() if line.startswith(b"ack ")]
    return (int(acks[-1].split()[1]) if acks else 0), done.stderr.strip().splitlines()[-1:]


def calls_of(call: str, folder: Path) -> int:
    """How often a run without faults makes ``call`` in its database folder."""
    log = folder / "log"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", sys.executable]
    numbers = ["1", str(COMMITS), "10", str(SEED)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    path = folder / "node.db"
    subprocess.run(
        [*command, commit_script.__file__, str(path), *numbers],
        stdout=subprocess.DEVNULL,
        env=environment,
        check=True,
    )
    return sum(f"{call}(" in line for line in log.read_text().splitlines())


async def assert_sound(path: Path, acknowledged: int, where: str) -> None:
    """The database opens and is exactly the state after some batch not before the last told."""
    async with open_disk(path, create=True) as disk:
        found = int.from_bytes(disk.get(Space.META, COUNT_KEY) or b"", "big")
        assert acknowledged <= found <= acknowledged + 1, where
        state: Rows = {}
        for number in range(1, found + 1):
            commit_script.apply(state, SEED, number)
        for space in Space:
            rows = disk.scan(space, b"", b"\xff" * 40, limit=1_000_000)
            expected = sorted((k, v) for (s, k), v in state.items() if s == space)
            assert [row for row in rows if row[0] != b"storage.schema"] == expected, where


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("fdatasync", "error=EIO"),
        ("pwrite64", "error=ENOSPC"),
        ("pwrite64", "error=EIO"),
        ("pwrite64", "signal=SIGKILL"),
        ("fdatasync", "signal=SIGKILL"),
    ],
)
async def test_each_call_may_fail(tmp_path: Path, call: str, fault: str) -> None:
    """A failing flush, a full disk, a write error or a kill at any call: the program stops or
    goes on, tells the truth about what it acknowledged, and its database is sound.
    """
    calls = calls_of(call, tmp_path)
    assert calls >= COMMITS
    stopped = 0
    for number in range(1, calls + 1, max(1, calls // SAMPLES)):
        path = tmp_path / f"{number}.db"
        where = f"{call}:{fault}:when={number}"
        acknowledged, words = run_with(where, path)
        if acknowledged < COMMITS:
            stopped += 1
            killed = "SIGKILL" in fault
            assert killed or b"p2pmed.errors." in words[0], (where, words)
        await assert_sound(path, acknowledged, where)
    assert stopped > 0 or fault == "error=ENOSPC"  # one full write is what the ballast is for
