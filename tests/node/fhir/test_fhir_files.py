"""Files found, read and written: whatever is wrong is one sentence, and nothing is overwritten."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError, InvalidTransaction, P2pmedError
from p2pmed.medical import fhir
from p2pmed.node.fhir import files
from p2pmed.node.fhir.files import (
    find_files,
    open_folder,
    read_contents,
    safe_name,
    write_contents,
)


def test_json_and_gzip_are_found_below_a_folder_in_order(tmp_path: Path) -> None:
    """Names are relative to the folder; other files, folders and pipes are left aside."""
    for name in ("b/2.json", "a.json.gz", "b/1.JSON", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    found = find_files([tmp_path, tmp_path / "b" / "2.json"])
    assert [file.name for file in found] == ["a.json.gz", "b/1.JSON", "b/2.json", "2.json"]
    assert [file.packed for file in found] == [True, False, False, False]


def test_what_cannot_be_searched_is_said(tmp_path: Path) -> None:
    """Nothing there, nothing in it, neither file nor folder."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, sentence in (
        ("nowhere", "no such file or folder"),
        ("pipe", "neither a file nor a folder"),
        ("empty", "no .json or .json.gz file"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            find_files([tmp_path / name])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_forbids_reading_is_named(tmp_path: Path) -> None:
    """The folder, and what the system says."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(ConfigError, match="closed cannot be read: Permission denied"):
        find_files([tmp_path])


def test_contents_are_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain or unpacked; empty, cut short, too long, or gone: said."""
    monkeypatch.setattr(files, "BUNDLE_BYTES_MAX", 1_000)
    packed = gzip.compress(b"x" * 500)
    cases = {
        "a.json": (b"{}", b"{}"),
        "a.json.gz": (packed, b"x" * 500),
        "empty.json": (b"", "the file is empty"),
        "cut.json.gz": (packed[:-9], "cut short"),
        "plain.json.gz": (b"{}", "not a gzip file"),
        "long.json": (b"x" * 1_001, "longer than 1000 bytes"),
        "bomb.json.gz": (gzip.compress(bytes(10**5)), "unpacks to more than 1000"),
    }
    for name, (written, expected) in cases.items():
        path = tmp_path / name
        path.write_bytes(written)
        found = find_files([path])[0]
        if isinstance(expected, bytes):
            assert read_contents(found) == expected
            continue
        with pytest.raises(InvalidTransaction, match=expected):
            read_contents(found)
        path.unlink()
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            read_contents(found)
    assert fhir.BUNDLE_BYTES_MAX > 10**8


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd.json",
        "../up.json",
        "a/../../up.json",
        "a//b.json",
        "./a.json",
        "no ending",
        "a\x00.json",
        "a\n.json",
        "\u202egpj.json",
        "x" * 300 + ".json",
        "a/" * 40 + "b.json",
        "",
    ],
)
def test_a_name_from_a_record_never_leaves_the_folder(name: str) -> None:
    """Whatever could mean another place gets a name of ours."""
    assert safe_name(name, packed=False, instead="0123") == "0123.json"
    assert safe_name(name, packed=True, instead="0123") == "0123.json.gz"


@pytest.mark.parametrize("name", ["a.json", "north/Müller (2).json.gz", "甲.json", "a..b.json"])
def test_an_ordinary_name_stays(name: str) -> None:
    """Spaces, other scripts and folders are ordinary."""
    assert safe_name(name, packed=False, instead="0123") == name


def test_an_export_folder_is_new_or_empty(tmp_path: Path) -> None:
    """It is made private; with anything in it, or no folder above it, it is refused."""
    fresh = tmp_path / "out"
    open_folder(fresh)
    open_folder(fresh)
    assert fresh.stat().st_mode & 0o777 == 0o700
    assert not list(fresh.iterdir())
    (fresh / "x").touch()
    for folder, sentence in (
        (fresh, "not empty"),
        (fresh / "x", "is a file"),
        (tmp_path / "no" / "out", "no folder"),
    ):
        with pytest.raises(P2pmedError, match=sentence):
            open_folder(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_export_folder_that_forbids_writing_is_said(tmp_path: Path) -> None:
    """Before anything is opened."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="not allowed to write"):
        open_folder(closed)


def test_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    """In clear, so for the owner only; what is there stays."""
    assert write_contents(tmp_path, "a/b.json", b"{}", packed=False) == 2
    write_contents(tmp_path, "c.json.gz", b"{}", packed=True)
    assert gzip.decompress((tmp_path / "c.json.gz").read_bytes()) == b"{}"
    assert (tmp_path / "a/b.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    with pytest.raises(P2pmedError):
        write_contents(tmp_path, "a/b.json", b"[]", packed=False)
    assert (tmp_path / "a/b.json").read_bytes() == b"{}"
