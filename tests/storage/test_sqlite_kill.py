"""``kill -9`` in the middle of commits: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import commit_script
from commit_script import COUNT_KEY, Rows

from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space

KILLS = 15
SEED = 4


def run_and_kill(path: Path, first: int, rng: Random) -> int:
    """Run the program from batch ``first`` on, kill it; the last number it acknowledged."""
    lines: list[bytes] = []
    command = [sys.executable, commit_script.__file__, str(path), str(first), "1000000", "40"]
    environment = {**os.environ, "PYTHONPATH": str(Path(commit_script.__file__).parent)}
    with subprocess.Popen([*command, str(SEED)], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        lines += [child.stdout.readline() for _ in range(rng.randint(0, 12))]
        time.sleep(rng.random() * 0.002)
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return int(whole[-1].split()[1]) if whole else first - 1


async def test_kill_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Fifteen kills at random moments of one database's life: each reopening finds a whole
    number of batches, none acknowledged missing, every row of each as written.
    """
    rng = Random(9)
    path = tmp_path / "node.db"
    state: Rows = {}
    found = 0
    for _ in range(KILLS):
        acknowledged = run_and_kill(path, found + 1, rng)
        async with open_disk(path, create=False) as disk:
            before = found
            found = int.from_bytes(disk.get(Space.META, COUNT_KEY) or b"", "big")
            assert acknowledged <= found <= acknowledged + 1
            for number in range(before + 1, found + 1):
                commit_script.apply(state, SEED, number)
            await disk.check()
            for space in Space:
                rows = disk.scan(space, b"", b"\xff" * 40, limit=1_000_000)
                expected = sorted((k, v) for (s, k), v in state.items() if s == space)
                assert [row for row in rows if row[0] != b"storage.schema"] == expected
    assert found > 3 * KILLS
