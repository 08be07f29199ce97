"""A node's home: made whole, used by one, and honest about having gone back in time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError, StorageError
from p2pmed.storage.files import replace_file
from p2pmed.storage.home import (
    HomeFile,
    create_home,
    lock_home,
    open_home,
    read_home,
    write_home,
)
from p2pmed.wire import cbor
from p2pmed.world import Space

FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
def home_path(tmp_path: Path) -> Path:
    path = tmp_path / "clinic-a"
    files = {
        HomeFile.CONFIG: b"[mesh]\n",
        HomeFile.KEYSTORE: b"\x00sealed",
        HomeFile.MANIFEST: b"m",
    }
    create_home(path, files, incarnation=FIRST)
    return path


async def run(path: Path, value: bytes = b"") -> bool:
    """One orderly run of the node; whether it saw itself restored."""
    async with open_home(path) as home:
        home.disk.stage(Space.LOCAL, b"note", value)
        await home.disk.commit()
        return home.restored


async def run_and_crash(path: Path) -> None:
    """A run that never says goodbye: what is on the disk in the middle of it is what remains."""
    kept = path.with_name("kept")
    async with open_home(path) as home:
        home.disk.stage(Space.LOCAL, b"note", b"crash")
        await home.disk.commit()
        shutil.copytree(path, kept)
    for name in ("boot", "node.db"):
        (path / name).write_bytes((kept / name).read_bytes())  # in place: the same inode
    shutil.copy(kept / "node.db-wal", path / "node.db-wal")
    shutil.rmtree(kept)


async def test_a_home_remembers(home_path: Path) -> None:
    """Files are kept as given and private; the count rises with each run; rows stay."""
    assert read_home(home_path, HomeFile.KEYSTORE) == b"\x00sealed"
    assert {f.stat().st_mode & 0o777 for f in home_path.iterdir()} == {0o600}
    assert home_path.stat().st_mode & 0o777 == 0o700
    counts = []
    for number in range(3):
        async with open_home(home_path) as home:
            assert not home.restored
            assert home.incarnation == FIRST
            assert home.read(HomeFile.MANIFEST) == b"m"
            expected = bytes([number - 1]) if number else None
            assert home.disk.get(Space.LOCAL, b"note") == expected
            home.disk.stage(Space.LOCAL, b"note", bytes([number]))
            await home.disk.commit()
            counts.append(home.count)
    assert counts == [1, 3, 5]
    write_home(home_path, HomeFile.CHAIN, b"credential")
    assert read_home(home_path, HomeFile.CHAIN) == b"credential"


async def test_one_process_at_a_time(home_path: Path) -> None:
    """An open home refuses a second opener and a writer of its files, by process number."""
    async with open_home(home_path):
        with pytest.raises(ConfigError, match=f"home in use by process {os.getpid()}"):
            write_home(home_path, HomeFile.CHAIN, b"x")
        with pytest.raises(ConfigError, match="home in use"):
            async with open_home(home_path):
                pass
    with lock_home(home_path):
        pass


async def test_what_is_missing_is_said(tmp_path: Path, home_path: Path) -> None:
    """No folder, no file, a folder already there: each is one clear sentence."""
    with pytest.raises(ConfigError, match="no home at"):
        async with open_home(tmp_path / "nowhere"):
            pass
    with pytest.raises(ConfigError, match="no chain in"):
        read_home(home_path, HomeFile.CHAIN)
    with pytest.raises(ConfigError, match="there already"):
        create_home(home_path, {}, incarnation=SECOND)


async def test_a_crash_is_not_a_restore(home_path: Path) -> None:
    """Runs that end without a word do not make a home look restored."""
    for _ in range(3):
        await run_and_crash(home_path)
        assert not await run(home_path)
    async with open_home(home_path) as home:
        assert home.disk.get(Space.LOCAL, b"note") == b""


async def test_a_power_cut_between_file_and_database(home_path: Path) -> None:
    """The file one ahead of the database, in the state that says so, is a cut, not a restore."""
    await run(home_path)
    version, count, incarnation, phase, inode = cbor.decode((home_path / "boot").read_bytes())
    stepping = cbor.encode([version, count + 1, incarnation, 1, inode])
    replace_file(home_path / "boot", stepping)
    assert not await run(home_path)
    # The same lead in the settled state can only be an older database.
    version, count, incarnation, phase, inode = cbor.decode((home_path / "boot").read_bytes())
    assert phase == 0
    replace_file(home_path / "boot", cbor.encode([version, count + 1, incarnation, 0, inode]))
    assert await run(home_path)


def put_back(copy: Path, path: Path) -> None:
    """Restore a database in place, so that only its contents tell."""
    path.write_bytes(copy.read_bytes())


async def test_an_older_database_is_noticed(home_path: Path, tmp_path: Path) -> None:
    """A backup of the database from any earlier moment, even of this very run, is noticed."""
    await run(home_path, b"1")
    shutil.copy(home_path / "node.db", tmp_path / "after-1")
    async with open_home(home_path) as home:
        await home.disk.check()
        shutil.copytree(home_path, tmp_path / "during-2")
    shutil.copy(home_path / "node.db", tmp_path / "after-2")
    put_back(tmp_path / "during-2" / "node.db", home_path / "node.db")
    assert await run(home_path)


@pytest.mark.parametrize("runs_since", [1, 2])
async def test_a_backup_of_earlier_runs(home_path: Path, tmp_path: Path, runs_since: int) -> None:
    """One run old or two: the count does not agree, and it stays so until adopted."""
    await run(home_path)
    shutil.copy(home_path / "node.db", tmp_path / "copy")
    for _ in range(runs_since):
        await run(home_path)
    put_back(tmp_path / "copy", home_path / "node.db")
    assert await run(home_path)
    assert await run(home_path), "forgotten without a new incarnation"
    async with open_home(home_path) as home:
        assert home.restored
        assert home.incarnation == FIRST
        await home.adopt(SECOND)
        assert not home.restored
    async with open_home(home_path) as home:
        assert not home.restored
        assert home.incarnation == SECOND


async def test_an_older_boot_file_is_noticed(home_path: Path) -> None:
    """The database ahead of the file: the file is from a backup."""
    await run(home_path)
    old = (home_path / "boot").read_bytes()
    await run(home_path)
    replace_file(home_path / "boot", old)
    assert await run(home_path)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\x85\x01\x02"])
async def test_no_boot_file(home_path: Path, content: bytes | None) -> None:
    """Missing or unreadable: nobody knows what was signed last, so it counts as restored."""
    await run(home_path)
    (home_path / "boot").unlink()
    if content is not None:
        (home_path / "boot").write_bytes(content)
    assert await run(home_path)
    async with open_home(home_path) as home:
        await home.adopt(SECOND)
    assert not await run(home_path)


async def test_a_lost_database_is_noticed(home_path: Path) -> None:
    """The database gone, the file there: the node has forgotten what it voted."""
    await run(home_path)
    (home_path / "node.db").unlink()
    assert await run(home_path)


async def test_a_copied_folder_is_noticed(home_path: Path, tmp_path: Path) -> None:
    """File and database agree, but this is not the file it was: a clone or a restored folder."""
    await run(home_path)
    shutil.copytree(home_path, tmp_path / "clone")
    assert await run(tmp_path / "clone")
    assert not await run(home_path)


async def test_another_homes_database_is_noticed(home_path: Path, tmp_path: Path) -> None:
    """The counts agree by chance, the incarnations do not."""
    create_home(tmp_path / "other", {}, incarnation=SECOND)
    await run(home_path)
    await run(tmp_path / "other")
    put_back(tmp_path / "other" / "node.db", home_path / "node.db")
    assert await run(home_path)


async def test_a_newer_boot_record_is_refused(home_path: Path) -> None:
    """A home that a newer program ran is not run by an older one."""
    replace_file(home_path / "boot", cbor.encode([2, 0, FIRST, 0, 0]))
    with pytest.raises(StorageError, match="boot record 2"):
        await run(home_path)


async def test_an_error_in_the_run_still_counts(home_path: Path) -> None:
    """A run that ends by an exception is closed like any other."""
    with pytest.raises(ZeroDivisionError):
        async with open_home(home_path):
            raise ZeroDivisionError
    async with open_home(home_path) as home:
        assert not home.restored
        assert home.count == 3


async def test_a_home_does_not_show_its_files(home_path: Path) -> None:
    """``repr`` has the place and the run, no contents."""
    async with open_home(home_path) as home:
        assert repr(home) == f"<Home {home_path}, run 1>"
