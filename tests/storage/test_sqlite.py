"""SQLite as the node's disk: settings, cancellation, failures, full disks, clean closing."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from p2pmed.errors import ConfigError, DiskFull, StorageError
from p2pmed.storage.sqlite import SqliteDisk, open_disk
from p2pmed.world import Space


def row(number: int) -> bytes:
    return number.to_bytes(8, "big")


def fill(disk: SqliteDisk, number: int, size: int = 1_000) -> None:
    disk.stage(Space.ENTRY, row(number), row(number) * (size // 8))
    disk.stage(Space.META, b"count", row(number))


def count(disk: SqliteDisk) -> int:
    return int.from_bytes(disk.get(Space.META, b"count") or b"", "big")


async def threads_end(expected: int) -> bool:
    """Whether at most ``expected`` threads remain; the last one may be just leaving."""
    for _ in range(200):
        if threading.active_count() <= expected:
            return True
        await asyncio.sleep(0.005)
    return False


async def fill_until_refused(disk: SqliteDisk) -> tuple[int, int]:
    """The last number committed, and the first committed out of the ballast."""
    acknowledged = spent_at = 0
    for number in range(1, 1_000):
        try:
            fill(disk, number, 64_000)
            await disk.commit()
        except DiskFull:
            break
        acknowledged = number
        spent_at = spent_at or (number if disk.low else 0)
    return acknowledged, spent_at


def stage_megabytes(disk: SqliteDisk, megabytes: int) -> None:
    for number in range(megabytes):
        disk.stage(Space.BLOCK, row(number), bytes(1024 * 1024))


def fill_the_rest(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4_096):
            pass


async def test_committed_rows_are_there_after_reopening(tmp_path: Path) -> None:
    """What ``commit`` returned for is found by the next run; what was only staged is not."""
    path = tmp_path / "node.db"
    async with open_disk(path, create=True) as disk:
        fill(disk, 1)
        assert disk.staged_bytes > 1_000
        await disk.commit()
        assert disk.staged_bytes == 0
        fill(disk, 2)
    async with open_disk(path, create=False) as disk:
        assert count(disk) == 1
        assert disk.get(Space.ENTRY, row(2)) is None


async def test_settings_are_read_back_from_both_connections(tmp_path: Path) -> None:
    """Flushes are full, the log is a WAL, only the writer checkpoints, the reader cannot write."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:

        async def writer(name: str) -> object:
            rows = list(await disk._writer.execute_fetchall(f"PRAGMA {name}"))
            return rows[0][0]

        def reader(name: str) -> object:
            return disk._reader.execute(f"PRAGMA {name}").fetchone()[0]

        assert await writer("journal_mode") == reader("journal_mode") == "wal"
        assert await writer("synchronous") == 2
        for name, value in (("foreign_keys", 1), ("trusted_schema", 0), ("cell_size_check", 1)):
            assert await writer(name) == reader(name) == value
        assert await writer("wal_autocheckpoint") == 1_000
        assert reader("wal_autocheckpoint") == 0
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            disk._reader.execute("DELETE FROM kv")


async def test_the_file_is_private(tmp_path: Path) -> None:
    """The database and its log are readable by their owner only."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        fill(disk, 1)
        await disk.commit()
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert {"node.db", "node.db-wal", "node.db-shm"} <= set(modes)
        assert set(modes.values()) == {0o600}


async def test_closing_folds_the_log_away_and_ends_the_thread(tmp_path: Path) -> None:
    """After closing there is no WAL, no lock holder and no thread that would hang exit."""
    before = threading.active_count()
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        fill(disk, 1)
        await disk.commit()
    assert not (tmp_path / "node.db-wal").exists()
    assert await threads_end(before)
    with pytest.raises(StorageError, match="closed"):
        disk.stage(Space.META, b"a", b"")


async def test_an_error_inside_still_closes(tmp_path: Path) -> None:
    """An exception of the user's passes through and leaves nothing open."""
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        async with open_disk(tmp_path / "node.db", create=True):
            raise ZeroDivisionError
    assert await threads_end(before)
    async with open_disk(tmp_path / "node.db", create=False):
        pass


async def test_one_process_and_one_opener(tmp_path: Path) -> None:
    """A second opener is refused by name, in this process too."""
    path = tmp_path / "node.db"
    async with open_disk(path, create=True):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            async with open_disk(path, create=False):
                pass
    async with open_disk(path, create=False):
        pass


async def test_missing_file_and_folder(tmp_path: Path) -> None:
    """What is not there is said, not made."""
    with pytest.raises(ConfigError, match="no database"):
        async with open_disk(tmp_path / "node.db", create=False):
            pass
    assert not (tmp_path / "node.db").exists()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StorageError, match="cannot be opened"):
        async with open_disk(tmp_path / "folder.db", create=True):
            pass
    with pytest.raises(ConfigError, match="no folder"):
        async with open_disk(tmp_path / "away" / "node.db", create=True):
            pass


async def test_concurrent_commits_take_turns(tmp_path: Path) -> None:
    """Fifty commits at once: each returns after its rows are durable, none twice."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        written = []

        async def one(number: int) -> None:
            disk.stage(Space.LOCAL, row(number), b"x")
            written.append(await disk.commit())
            found = disk._reader.execute("SELECT 1 FROM kv WHERE key = ?", (row(number),))
            assert found.fetchone() == (1,)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(number))
        assert sum(written) == 50
        assert max(written) > 1


async def test_reads_agree_while_a_commit_runs(tmp_path: Path) -> None:
    """At every turn of the loop, before, during and after commits, reads show the newest value."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        for number in range(1, 40):
            for key in range(20):
                disk.stage(Space.STATE, row(key), row(number))
            task = asyncio.create_task(disk.commit())
            while not task.done():
                rows = disk.scan(Space.STATE, b"", b"\xff", limit=99)
                assert [value for _, value in rows] == [row(number)] * 20
                await asyncio.sleep(0)
            await task


async def test_random_cancellation_never_halves_a_commit(tmp_path: Path) -> None:
    """Cancelled at random moments, each commit is there whole or not yet, and order is kept."""
    rng = Random(11)
    path = tmp_path / "node.db"
    cancelled = acknowledged = 0
    async with open_disk(path, create=True) as disk:
        for number in range(1, 151):
            for part in range(8):
                disk.stage(Space.STATE, bytes([part]), row(number))
            fill(disk, number)
            task = asyncio.create_task(disk.commit())
            await asyncio.sleep(rng.choice((0, 0, 0.0001, 0.0002, 0.0005)))
            task.cancel()
            try:
                await task
                acknowledged = number
            except asyncio.CancelledError:
                cancelled += 1
            committed = disk._reader.execute("SELECT value FROM kv WHERE space = 6").fetchall()
            assert len(set(committed)) <= 1
            assert len(committed) in (0, 8)
            assert not committed or int.from_bytes(committed[0][0], "big") >= acknowledged
        assert cancelled > 20
    async with open_disk(path, create=False) as disk:
        assert count(disk) == 150  # the last commit ran to its end, its caller gone
        for number in range(1, 151):
            assert disk.get(Space.ENTRY, row(number)) is not None


async def test_cancelled_while_opening_or_closing(tmp_path: Path) -> None:
    """Cancelled at any moment of its life, a disk leaves no thread, no lock and no damage."""
    path = tmp_path / "node.db"
    before = threading.active_count()

    async def live() -> None:
        async with open_disk(path, create=True) as disk:
            fill(disk, 1)
            await disk.commit()

    for delay in [0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012]:
        task = asyncio.create_task(live())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await threads_end(before)
    async with open_disk(path, create=True):
        pass


def test_ending_the_loop_ends_the_process(tmp_path: Path) -> None:
    """A program interrupted with the disk open exits; the writer's thread does not hold it."""
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
async def main():
    async with open_disk(Path(sys.argv[1]), create=True) as disk:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
        while True:
            disk.stage(Space.META, b"k", b"v")
            await disk.commit()
asyncio.run(main())
"""
    path = tmp_path / "node.db"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], timeout=20, capture_output=True, check=False
    )
    assert b"KeyboardInterrupt" in done.stderr
    assert b"never retrieved" not in done.stderr
    assert not (tmp_path / "node.db-wal").exists()


async def test_a_failed_commit_breaks_the_disk(tmp_path: Path) -> None:
    """After a write error nothing is written, reads show committed rows, reopening is sound."""
    path = tmp_path / "node.db"
    async with open_disk(path, create=True) as disk:
        fill(disk, 1)
        await disk.commit()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            fill(disk, 2, 500_000)
            with pytest.raises(StorageError, match="SQLITE_IOERR_WRITE"):
                await disk.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert count(disk) == 1
        assert disk.get(Space.ENTRY, row(2)) is None
        for _ in range(2):
            with pytest.raises(StorageError, match="SQLITE_IOERR_WRITE"):
                disk.stage(Space.META, b"a", b"")
            with pytest.raises(StorageError, match="SQLITE_IOERR_WRITE"):
                await disk.commit()
    async with open_disk(path, create=False) as disk:
        assert count(disk) == 1
        fill(disk, 2)
        await disk.commit()


async def test_no_room_in_the_file_is_disk_full(tmp_path: Path) -> None:
    """SQLite's own page limit reads as ``DiskFull``, after the ballast was tried."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        await disk._writer.execute_fetchall("PRAGMA max_page_count = 20")
        assert not disk.low
        fill(disk, 1, 400_000)
        with pytest.raises(DiskFull, match="the disk is full"):
            await disk.commit()
        assert disk.low
        assert isinstance(disk.broken, DiskFull)
        assert count(disk) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB, or a skip where we may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "p2pmed-test", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("no right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_really_full_disk(small_disk: Path) -> None:
    """The ballast pays for the commit that hit the end; then full; then it opens all the same."""
    path = small_disk / "node.db"
    async with open_disk(path, create=True) as disk:
        assert not disk.low
        acknowledged, spent_at = await fill_until_refused(disk)
        assert isinstance(disk.broken, DiskFull)
        assert 0 < spent_at < acknowledged
        assert count(disk) == acknowledged
    with pytest.raises(OSError, match="No space"):
        fill_the_rest(small_disk / "filler")
    async with open_disk(path, create=False) as disk:
        assert disk.low
        assert count(disk) == acknowledged
        assert len(disk.scan(Space.ENTRY, b"", b"\xff" * 9, limit=9_999)) == acknowledged
    (small_disk / "filler").unlink()


async def test_too_much_staged_is_refused(tmp_path: Path) -> None:
    """A driver that ignores a slow disk is stopped before memory is."""
    async with open_disk(tmp_path / "node.db", create=True) as disk:
        with pytest.raises(StorageError, match="wait for a slow disk"):
            stage_megabytes(disk, 70)
        assert disk.staged_bytes == 0
        with pytest.raises(StorageError):
            await disk.commit()


async def test_a_rotten_row_is_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    """One bit flipped inside a value, which SQLite does not notice, is noticed on reading."""
    path = tmp_path / "node.db"
    for space in (Space.ENTRY, Space.STATE):
        async with open_disk(path, create=True) as disk:
            disk.stage(space, b"good", b"fine words")
            disk.stage(space, b"rots", b"CANARY-" + space.name.encode())
            await disk.commit()
        raw = bytearray(path.read_bytes())
        at = raw.index(b"CANARY-" + space.name.encode())
        raw[at] ^= 4
        path.write_bytes(raw)
        async with open_disk(path, create=False) as disk:
            assert disk.get(space, b"good") == b"fine words"
            with pytest.raises(StorageError, match=f"a row of {space.name} is rotten") as caught:
                disk.get(space, b"rots")
            assert "CANARY" not in str(caught.value)
            with pytest.raises(StorageError, match="rotten"):
                disk.scan(space, b"", b"z", limit=9)
            disk.stage(space, b"rots", b"healed")
            await disk.commit()
            assert disk.get(space, b"rots") == b"healed"


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A page of nonsense in the tree is found at opening; ``check`` passes on a sound file."""
    path = tmp_path / "node.db"
    async with open_disk(path, create=True) as disk:
        for number in range(200):
            fill(disk, number)
        await disk.commit()
        await disk.check()
    raw = bytearray(path.read_bytes())
    for page in range(2, len(raw) // 8192, 2):
        raw[page * 8192 : page * 8192 + 200] = Random(1).randbytes(200)
    path.write_bytes(raw)
    before = threading.active_count()
    with pytest.raises(StorageError, match="damaged"):
        async with open_disk(path, create=False):
            pass
    assert await threads_end(before)


@pytest.mark.parametrize("content", [b"hello" * 500, b"SQLite format 3\0" + bytes(5_000)])
async def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    """A file that is something else is refused and left as it was."""
    path = tmp_path / "node.db"
    path.write_bytes(content)
    with pytest.raises(StorageError):
        async with open_disk(path, create=True):
            pass
    assert path.read_bytes() == content
