"""Files that survive: replaced whole, private, locked, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError, DiskFull, StorageError
from p2pmed.storage.files import (
    Ballast,
    disk_error,
    exclusive,
    make_folder,
    read_file,
    replace_file,
)


def test_replaced_whole_and_private(tmp_path: Path) -> None:
    """New bytes, mode 0600 whatever the old mode, and nothing left beside the file."""
    path = tmp_path / "manifest"
    assert read_file(path) is None
    replace_file(path, b"one")
    path.chmod(0o644)
    replace_file(path, b"two" * 100_000)
    assert read_file(path) == b"two" * 100_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["manifest"]


def test_a_failed_replacement_keeps_the_old_bytes(tmp_path: Path) -> None:
    """A write that ends early leaves the old file and no half new one."""
    path = tmp_path / "chain"
    replace_file(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(StorageError, match="the disk failed"):
            replace_file(path, b"new" * 1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_file(path) == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["chain"]


def test_flushed_before_renamed_and_the_folder_after(tmp_path: Path) -> None:
    """The order that makes it safe: write, flush, rename, flush the folder."""
    strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "log"), "-e"]
    calls = "trace=write,fsync,rename,renameat,renameat2"
    script = "import sys, pathlib; from p2pmed.storage.files import replace_file;"
    script += "replace_file(pathlib.Path(sys.argv[1]), b'x')"
    command = [*strace, calls, sys.executable, "-c", script, str(tmp_path / "boot")]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if done.returncode:
        pytest.skip("strace may not trace here")
    lines = (tmp_path / "log").read_text().splitlines()
    names = [line.split()[1].partition("(")[0].rstrip("at2") for line in lines]
    assert names[-4:] == ["write", "fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, ConfigError),
        (errno.EROFS, ConfigError),
        (errno.EIO, StorageError),
    ],
)
def test_errors_by_fault(number: int, kind: type[Exception]) -> None:
    """No room is the disk's, no permission the operator's, all else a failing disk."""
    assert type(disk_error(OSError(number, "text"), Path("/home/x"))) is kind


def test_a_folder_is_made_once_and_private(tmp_path: Path) -> None:
    """Mode 0700; what is there already is refused; a missing parent is named."""
    make_folder(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigError, match="there already"):
        make_folder(tmp_path / "home")
    with pytest.raises(ConfigError, match="no folder"):
        make_folder(tmp_path / "a" / "b")


def test_a_lock_names_its_owner_and_is_freed(tmp_path: Path) -> None:
    """Held: a second holder is refused with the owner's number. Left or killed: free again."""
    path = tmp_path / "lock"
    refused = pytest.raises(ConfigError, match=f"home in use by process {os.getpid()}")
    with exclusive(path, "home"), refused, exclusive(path, "home"):
        pass
    script = "import sys, pathlib, time; from p2pmed.storage.files import exclusive\n"
    script += "with exclusive(pathlib.Path(sys.argv[1]), 'home'): print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        refused = pytest.raises(ConfigError, match=f"in use by process {child.pid}")
        with refused, exclusive(path, "home"):
            pass
        child.kill()
    with exclusive(path, "home"):
        pass


def test_a_file_too_long_is_refused(tmp_path: Path) -> None:
    """A file that cannot be ours is not read into memory."""
    path = tmp_path / "keystore"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(StorageError, match="longer than"):
        read_file(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link planted where we write is not written through."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / ".boot.new").symlink_to(target)
    with pytest.raises(StorageError):
        replace_file(tmp_path / "boot", b"x")
    assert target.read_bytes() == b"precious"
    replace_file(tmp_path / "boot", b"x")  # the link was removed with the failure
    assert read_file(tmp_path / "boot") == b"x"


def test_ballast_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    """Held: its blocks are really allocated. Released: once. No room: nothing left behind."""
    ballast = Ballast(tmp_path / "ballast", 1 << 20)
    assert not ballast.release()
    assert ballast.hold()
    assert ballast.hold()
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 1 << 20
    assert ballast.release()
    assert not ballast.release()
    assert not Ballast(tmp_path / "huge", 1 << 60).hold()
    assert list(tmp_path.iterdir()) == []
