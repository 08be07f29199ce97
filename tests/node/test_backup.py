"""``p2pmed.node.backup``, and the silence of a home that was restored."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError, DiskFull, LocalProtocolError, StorageError
from p2pmed.medical import LogOpen, Recall
from p2pmed.node.audit import audit_home
from p2pmed.node.backup import back_up_stopped, copy_home, is_running, place_of, restore_home
from p2pmed.node.config import Config
from p2pmed.node.node import Node, open_node
from p2pmed.storage.home import lock_home
from p2pmed.testing.homes import ACCEPTS, PASSPHRASE, LocalNetwork, until

RECALL = Recall(gtin="09506000134352", lot="L1", reason="contamination")


@asynccontextmanager
async def running(home: Path, *peers: Node) -> AsyncIterator[Node]:
    """A node that may be closed before the others."""
    config = Config(
        host="127.0.0.1",
        port=0,
        discovery=False,
        mesh=ACCEPTS,
        peers=tuple(f"127.0.0.1:{peer.port}" for peer in peers),
    )
    async with open_node(home, passphrase=PASSPHRASE, config=config) as node:
        yield node


async def _lived(folder: Path) -> Path:
    async with AsyncExitStack() as stack:
        network = LocalNetwork(folder, stack)
        home = network.home("clinic")
        async with running(home) as node:
            await node.found_mesh(name="alone")
            for _ in range(3):
                await (await node.submit(RECALL)).final(timeout=10)
    return home


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(_lived(tmp_path_factory.mktemp("backed-up")))


@pytest.fixture
def backup(lived_in: Path, tmp_path: Path) -> Path:
    back_up_stopped(lived_in, tmp_path / "backup")
    return tmp_path / "backup"


# --- the file -------------------------------------------------------------------------------


async def test_there_and_back(lived_in: Path, backup: Path, tmp_path: Path) -> None:
    """A restored home holds all there was, verifies, and is a new incarnation."""
    restore_home(backup, tmp_path / "again")
    assert audit_home(tmp_path / "again").total == 0
    assert {p.name for p in (tmp_path / "again").iterdir()} - {"lock"} == {
        "p2pmed.toml",
        "keystore",
        "manifest",
        "chain",
        "staff",
        "node.db",
    }
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "again").rglob("*")} == {0o600, 0o700}
    async with running(tmp_path / "again") as node:
        assert node.status()["muted"]
        assert node.status()["height"] == 4
        [old, new] = sorted(node.replica.logs, key=lambda lane: lane.number)
        await until(lambda: new.durable_next == 1, "the new log is open")
        first = node.replica.logs.entry(new.key, 0)
        assert first is not None
        opening = node.body(first)
        assert isinstance(opening, LogOpen)
        assert opening.previous == old.key.incarnation
        assert (opening.previous_seq, opening.previous_head) == (old.next_seq - 1, old.head)


async def test_while_the_node_runs(lived_in: Path, tmp_path: Path) -> None:
    """A copy taken in the middle of writing is one consistent moment."""
    home = tmp_path / "clinic"
    shutil.copytree(lived_in, home)
    async with running(home) as node:
        await node.resume_voting()
        writing = asyncio.create_task(_write(node, 60))
        await asyncio.sleep(0.1)
        for number in range(3):
            await asyncio.to_thread(copy_home, home, tmp_path / f"copy-{number}")
        await writing
    sizes = []
    for number in range(3):
        restore_home(tmp_path / f"copy-{number}", tmp_path / f"home-{number}")
        findings = audit_home(tmp_path / f"home-{number}")
        assert findings.total == 0, findings.found
        sizes.append(findings.counts["entries"])
    assert sizes == sorted(sizes)


async def _write(node: Node, count: int) -> None:
    for _ in range(count):
        await node.submit(RECALL)


def test_is_running(lived_in: Path, tmp_path: Path) -> None:
    """A home is running while some process holds its lock, whatever files lie there."""
    assert not is_running(lived_in)
    with lock_home(lived_in):
        assert is_running(lived_in)
        with pytest.raises(ConfigError, match="in use"):
            back_up_stopped(lived_in, tmp_path / "file")
    with pytest.raises(ConfigError, match="no home at"):
        is_running(tmp_path / "nowhere")


def test_a_folder_gets_a_dated_file(lived_in: Path, tmp_path: Path) -> None:
    """A backup into a folder is named after the home and the day."""
    path = place_of(lived_in, tmp_path, 1_790_000_000_000)
    assert path == tmp_path / f"{lived_in.name}-2026-09-21-141320.p2pmed-backup"
    assert place_of(lived_in, tmp_path / "file", 0) == tmp_path / "file"


def test_never_over_a_file(lived_in: Path, tmp_path: Path) -> None:
    """An existing file is replaced only if that is asked for; nothing else is left."""
    (tmp_path / "there").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="there already"):
        back_up_stopped(lived_in, tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"precious"
    back_up_stopped(lived_in, tmp_path / "there", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_no_room(lived_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room nothing is begun; where it runs out nothing is left."""
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1024))
        with pytest.raises(DiskFull, match="MiB of room"):
            back_up_stopped(lived_in, tmp_path / "out")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            back_up_stopped(lived_in, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_not_ready(tmp_path: Path) -> None:
    """A folder without keys, or one that never ran, is refused in one sentence."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no p2pmed\.toml") as caught:
        back_up_stopped(tmp_path / "empty", tmp_path / "out")
    assert "enrolled" in caught.value.hint


# --- what is no backup ----------------------------------------------------------------------


def test_restore_refuses(lived_in: Path, backup: Path, tmp_path: Path) -> None:
    """No file, another file, another database, or a home that is there already."""
    with pytest.raises(ConfigError, match="no backup at"):
        restore_home(tmp_path / "nothing", tmp_path / "home")
    (tmp_path / "text").write_text("hello" * 1_000)
    with pytest.raises(ConfigError, match="not a backup"):
        restore_home(tmp_path / "text", tmp_path / "home")
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE home_file (name, content)")
        other.commit()
    with pytest.raises(ConfigError, match="not a backup"):
        restore_home(tmp_path / "other", tmp_path / "home")
    with pytest.raises(ConfigError, match="not a backup"):
        restore_home(lived_in / "node.db", tmp_path / "home")
    with pytest.raises(ConfigError, match="there already"):
        restore_home(backup, lived_in)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER DELETE ON kv BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT * FROM kv",
        "CREATE TABLE another (x)",
    ],
)
def test_a_hostile_schema(backup: Path, tmp_path: Path, statement: str) -> None:
    """A backup with anything in it that SQLite would run, or that is not ours, is refused."""
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(ConfigError, match="not a backup"):
        restore_home(backup, tmp_path / "home")


def test_a_file_name_is_never_a_path(backup: Path, tmp_path: Path) -> None:
    """Only the known small files are taken; a name with a path in it is not one of them."""
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute("UPDATE home_file SET name = '../escaped' WHERE name = 'chain'")
        connection.commit()
    with pytest.raises(ConfigError, match="lacks files"):
        restore_home(backup, tmp_path / "home")
    assert not (tmp_path / "escaped").exists()


def test_a_damaged_backup(backup: Path, tmp_path: Path) -> None:
    """A backup that SQLite finds damaged is refused, and no half home is left."""
    raw = bytearray(backup.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 4096] = b"\x5a" * 4096
    backup.write_bytes(bytes(raw))
    with pytest.raises(StorageError, match="damaged"):
        restore_home(backup, tmp_path / "home")
    assert not (tmp_path / "home").exists()


# --- silence --------------------------------------------------------------------------------


def signers(node: Node, height: int) -> set[int]:
    """The seats whose votes certify a block."""
    assert node.replica.home is not None
    stored = node.replica.home.chain.block_at(height)
    assert stored is not None
    if stored.certificate is None:
        return set()
    return {seat for seat in range(20) if stored.certificate.signers >> seat & 1}


async def test_a_restored_validator_recovers_alone(tmp_path: Path) -> None:
    """While it asks it is silent and says so; with a quorum of others it votes without a word."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(tmp_path, stack)
        homes = [network.home("clinic") for _ in range(3)]
        one = await network.open(homes[0])
        async with running(homes[1], one) as two:
            async with running(homes[2], one, two) as three:
                network.nodes = [one, two, three]
                await network.found_mesh(one, two, three, engine="bft", liars=0)
                await (await three.submit(RECALL)).final(timeout=10)
                copy_home(homes[2], tmp_path / "backup")
                await (await three.submit(RECALL)).final(timeout=10)
                key, seat = three.key, three.status()["seat"]
            restore_home(tmp_path / "backup", tmp_path / "again")
            async with running(tmp_path / "again") as again:
                assert again.key == key
                assert (again.status()["muted"], again.status()["seat"]) == (True, seat)
                assert again.status()["consensus"]["phase"] == "recovering"
                assert again.status()["consensus"]["lacking"] == 2
                with pytest.raises(LocalProtocolError, match="restored from a backup"):
                    await again.found_mesh(name="another")
                for peer in (one, two):
                    again.dial(f"127.0.0.1:{peer.port}")
                await until(lambda: not again.status()["muted"], "it recovered")
                for _ in range(12):  # beyond the views in which it holds its tongue
                    await (await again.submit(RECALL)).final(timeout=10)
            # It is kept: it votes from the start now, and its vote is needed.
            async with running(tmp_path / "again", one, two) as again:
                assert not again.status()["muted"]
                await until(lambda: again.status()["consensus"]["phase"] == "voting", "greeted")
                two.shell.set_online(False)
                before = one.status()["height"]
                receipt = await one.submit(RECALL)
                place = await receipt.final(timeout=30)
                proven = [signers(one, h) for h in range(before + 1, place.height + 1)]
                assert any(seat in seats for seats in proven)


async def test_a_restored_validator_without_enough_others_waits_for_people(tmp_path: Path) -> None:
    """No quorum of others is there: no certificate bears its vote until the operator says so."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(tmp_path, stack)
        homes = [network.home("clinic") for _ in range(2)]
        one = await network.open(homes[0])
        async with running(homes[1], one) as two:
            network.nodes = [one, two]
            await network.found_mesh(one, two, engine="bft", liars=0)
            await (await two.submit(RECALL)).final(timeout=10)
            copy_home(homes[1], tmp_path / "backup")
        restore_home(tmp_path / "backup", tmp_path / "again")
        async with running(tmp_path / "again", one) as again:
            await until(lambda: one.key in again.replica.links, "they met")
            receipt = await again.submit(RECALL)
            with pytest.raises(TimeoutError):
                await receipt.final(timeout=2)
            assert again.status()["consensus"]["lacking"] == 1
            await again.resume_voting()
            assert not again.status()["muted"]
            await receipt.final(timeout=15)
