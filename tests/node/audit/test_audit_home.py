"""``p2pmed.node.audit``: a home that was damaged anywhere is found out, and the place is named."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError
from p2pmed.ledger import lthash
from p2pmed.ledger.stored import StoredBlock
from p2pmed.medical import Recall
from p2pmed.node.audit import Findings, audit_home
from p2pmed.storage.home import lock_home
from p2pmed.storage.schema import table_of
from p2pmed.testing.homes import PASSPHRASE, LocalNetwork, until
from p2pmed.wire import cbor, codec
from p2pmed.world import Space

RECALL = Recall(gtin="09506000134352", lot="L1", reason="contamination")
Rows = Callable[[Space], list[tuple[bytes, bytes]]]
Tamper = Callable[[Space, bytes, bytes | None], None]


def flip(raw: bytes, at: int) -> bytes:
    """``raw`` with one bit changed."""
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def told(findings: Findings) -> str:
    """All that was found, one line each."""
    return "\n".join(f"{f.where}: {f.what}" for f in findings.found)


def test_a_sound_home_passes(lived_in: Path) -> None:
    """Everything is counted, the fork is noted, and nothing is wrong."""
    findings = audit_home(lived_in)
    assert told(findings) == ""
    counts = findings.counts
    assert counts["entries"] == counts["executed"] > 9
    assert counts["blocks"] == counts["certificates"] == counts["executed_blocks"] > 2
    assert counts["logs"] == 2
    assert counts["forks"] == 1
    assert counts["state_rows"] > 30
    assert counts["verdict_rows"] == 1
    assert counts["signatures"] > counts["entries"]
    assert any("forked" in note for note in findings.notes)
    assert findings.describe()["ok"]


def test_an_audit_changes_nothing(home: Path) -> None:
    """No byte of the home is another one after an audit."""

    def files() -> dict[Path, bytes]:
        found = (path for path in home.rglob("*") if path.is_file() and path.name != "lock")
        return {path: path.read_bytes() for path in found}

    before = files()
    audit_home(home)
    assert files() == before


def test_a_home_in_use_is_refused(home: Path) -> None:
    """While a process holds the home, the audit says so and how to go about it."""
    with lock_home(home), pytest.raises(ConfigError, match="in use") as caught:
        audit_home(home)
    assert "backup" in caught.value.hint


def test_no_home(tmp_path: Path) -> None:
    """A folder that is none is one clear sentence."""
    with pytest.raises(ConfigError, match="no home at"):
        audit_home(tmp_path / "nowhere")


# --- rows that a careful liar changed: the checksum fits ------------------------------------


@pytest.mark.parametrize("part", ["head", "payload", "signature"])
def test_a_changed_entry(home: Path, rows: Rows, tamper: Tamper, part: str) -> None:
    """A flipped bit anywhere in an entry is found at that entry of that log."""
    key, raw = rows(Space.ENTRY)[-3]
    at = {"head": 3, "payload": len(raw) // 2, "signature": len(raw) - 10}[part]
    tamper(Space.ENTRY, key, flip(raw, at))
    seq = int.from_bytes(key[4:], "big")
    assert f"entry {seq}" in told(audit_home(home)).splitlines()[0]


def test_a_missing_entry(home: Path, rows: Rows, tamper: Tamper) -> None:
    """A deleted entry leaves a gap that is named."""
    key, _ = rows(Space.ENTRY)[4]
    tamper(Space.ENTRY, key, None)
    seq = int.from_bytes(key[4:], "big")
    assert f"entries {seq} to {seq} " in told(audit_home(home))


def test_the_last_entry_missing(home: Path, rows: Rows, tamper: Tamper) -> None:
    """The newest entry gone is told by the log's own row."""
    key, _ = rows(Space.ENTRY)[-1]
    tamper(Space.ENTRY, key, None)
    seq = int.from_bytes(key[4:], "big")
    assert f"entries {seq} to {seq} are missing" in told(audit_home(home))


def test_two_entries_swapped(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Each of two swapped entries is found to be of another place."""
    (one, first), (two, second) = rows(Space.ENTRY)[-2:]
    tamper(Space.ENTRY, one, second)
    tamper(Space.ENTRY, two, first)
    assert told(audit_home(home)).count("the entry of another place stands here") == 2


def test_a_missing_log_row(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Entries without their log's row are orphans."""
    key, _ = rows(Space.LANE)[0]
    tamper(Space.LANE, key, None)
    assert "no log has this number" in told(audit_home(home))


def test_a_log_row_that_forgets(home: Path, rows: Rows, tamper: Tamper) -> None:
    """A log whose row ends early would write a second entry at one place."""
    for key, raw in rows(Space.LANE):
        number, next_seq, head, frozen = cbor.decode(raw)
        if not frozen:
            tamper(Space.LANE, key, cbor.encode([number, next_seq - 1, head, frozen]))
    assert "its row ends at" in told(audit_home(home))


def test_a_log_row_that_thaws(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Evidence of a fork and a log that is not frozen do not go together."""
    for key, raw in rows(Space.LANE):
        number, next_seq, head, _ = cbor.decode(raw)
        tamper(Space.LANE, key, cbor.encode([number, next_seq, head, False]))
    assert "its log is not frozen" in told(audit_home(home))


def test_evidence_of_a_fork(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Changed or missing evidence is named."""
    [(key, raw)] = rows(Space.FORK)
    tamper(Space.FORK, key, flip(raw, len(raw) - 5))
    assert "FORK" in told(audit_home(home))
    tamper(Space.FORK, key, None)
    assert "nothing here proves that it forked" in told(audit_home(home))


@pytest.mark.parametrize("space", [Space.ENTRY_ID, Space.SUBJECT])
def test_indexes(home: Path, rows: Rows, tamper: Tamper, space: Space) -> None:
    """A missing index row and one that leads nowhere are both found."""
    key, value = rows(space)[0]
    tamper(space, key, None)
    assert "does not lead to it" in told(audit_home(home))
    tamper(space, key, value)
    tamper(space, flip(key, 3), value)
    assert "it leads to no such entry" in told(audit_home(home))


def test_a_changed_founding(home: Path, rows: Rows, tamper: Tamper) -> None:
    """A founding that is not the one its id names is no founding."""
    [(key, raw)] = rows(Space.LEDGER)
    tamper(Space.LEDGER, key, flip(raw, len(raw) - 20))
    found = told(audit_home(home))
    assert f"ledger {key.hex()[:12]}: its founding" in found


@pytest.mark.parametrize("part", ["header", "content", "certificate"])
def test_a_changed_block(home: Path, rows: Rows, tamper: Tamper, part: str) -> None:
    """A flipped bit in any part of a block is found at that height."""
    key, raw = rows(Space.BLOCK)[1]
    stored = codec.decode(raw, StoredBlock)
    assert stored.certificate is not None
    piece = {
        "header": stored.block.header.content,
        "content": stored.block.content[40:72],
        "certificate": stored.certificate.signatures[0],
    }[part]
    tamper(Space.BLOCK, key, flip(raw, raw.index(piece) + 5))
    assert f"block 2 of ledger {key.hex()[:12]}" in told(audit_home(home)).splitlines()[0]


def test_a_certificate_taken_away(home: Path, rows: Rows, tamper: Tamper) -> None:
    """The newest block without its certificate is proven by nobody."""
    key, raw = rows(Space.BLOCK)[-1]
    stored = codec.decode(raw, StoredBlock)
    tamper(Space.BLOCK, key, codec.encode(StoredBlock(block=stored.block, certificate=None)))
    assert "no certificate proves its blocks from" in told(audit_home(home))


def test_a_missing_block(home: Path, rows: Rows, tamper: Tamper) -> None:
    """A gap in the chain is named."""
    key, _ = rows(Space.BLOCK)[1]
    tamper(Space.BLOCK, key, None)
    assert "blocks 2 to 2 before it are missing" in told(audit_home(home))


def test_two_blocks_swapped(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Each of two swapped blocks is found to be of another height."""
    (one, first), (two, second) = rows(Space.BLOCK)[:2]
    tamper(Space.BLOCK, one, second)
    tamper(Space.BLOCK, two, first)
    assert told(audit_home(home)).count("the block of another height stands here") == 2


@pytest.mark.parametrize("space", [Space.STATE, Space.VERDICT, Space.TIP])
def test_what_the_blocks_gave(home: Path, rows: Rows, tamper: Tamper, space: Space) -> None:
    """A changed, missing or additional row of what execution wrote is named by its key."""
    key, value = rows(space)[-1]
    tamper(space, key, flip(value, len(value) - 1))
    assert f"{space.name}:" in told(audit_home(home)) or space is Space.TIP
    assert not audit_home(home).describe()["ok"]
    tamper(space, key, None)
    assert not audit_home(home).describe()["ok"]
    tamper(space, key, value)
    assert audit_home(home).describe()["ok"]
    tamper(space, key + b"\x01", value)
    found = told(audit_home(home))
    assert "not in the state that the blocks give" in found or "no block orders" in found


def test_a_state_changed_with_its_sum(home: Path, rows: Rows, tamper: Tamper) -> None:
    """Whoever changes a state row and the stored sum with it is still found out."""
    key, _ = rows(Space.STATE)[-1]
    total = lthash.EMPTY
    for at, row in rows(Space.STATE):
        total = lthash.add(total, lthash.row_hash(at[32:], row if at != key else b"forged"))
    tamper(Space.STATE, key, b"forged")
    [(at, row)] = [row for row in rows(Space.META) if row[0].startswith(b"state")]
    tamper(Space.META, at, lthash.to_bytes(total) + row[-8:])
    found = told(audit_home(home))
    assert "certifies" in found
    assert f"row {key[32:].hex()[:64]}" in found


def test_the_stored_sum(home: Path, rows: Rows, tamper: Tamper) -> None:
    """The sum that the next block builds on is checked too."""
    [(key, raw)] = [row for row in rows(Space.META) if row[0].startswith(b"state")]
    tamper(Space.META, key, flip(raw, 100))
    assert "it is not the sum of the stored state" in told(audit_home(home))


# --- rot and truncation ---------------------------------------------------------------------


@pytest.mark.parametrize("space", list(Space))
def test_rot_in_any_space(home: Path, rows: Rows, space: Space) -> None:
    """A bit that flips in a value, the checksum as it was, is found in every space."""
    found = [row for row in rows(space) if row[1]]
    if not found:
        pytest.skip(f"no row of {space.name} has a value here")
    key, value = found[0]
    with closing(sqlite3.connect(home / "node.db")) as connection:
        connection.execute(
            f"UPDATE {table_of(space)} SET value = ? WHERE space = ? AND key = ?",
            (flip(value, len(value) // 2), int(space), key),
        )
        connection.commit()
    report = told(audit_home(home))
    assert f"{space.name}:" in report
    assert "rotten" in report


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_database(home: Path, share: float) -> None:
    """A file that ends early is damaged, wherever it ends."""
    size = (home / "node.db").stat().st_size
    os.truncate(home / "node.db", int(size * share))
    assert "node.db" in told(audit_home(home))


@pytest.mark.parametrize("part", range(8))
def test_bytes_overwritten_in_the_file(home: Path, part: int) -> None:
    """Sixty-four bytes of noise anywhere in the used part of the file are noticed."""
    path = home / "node.db"
    database = sqlite3.connect(path)
    database.execute("VACUUM")  # or the noise may fall on what a deleted row left behind
    database.close()
    raw = bytearray(path.read_bytes())
    at = next(i for i in range(len(raw) * part // 8 + 200, len(raw)) if raw[i])
    raw[at : at + 64] = bytes((b ^ 0x5A) for b in raw[at : at + 64])
    path.write_bytes(bytes(raw))
    assert not audit_home(home).describe()["ok"]


@pytest.mark.parametrize("name", ["manifest", "chain", "keystore", "boot", "p2pmed.toml"])
def test_small_files(home: Path, name: str) -> None:
    """Each small file that does not hold is named."""
    raw = (home / name).read_bytes()
    (home / name).write_bytes(b"\x00" * 7 + raw[7:])
    assert name in told(audit_home(home))


def test_a_home_that_never_ran(home: Path) -> None:
    """Without a database there is nothing to check, and that is said."""
    for path in home.glob("node.db*"):
        path.unlink()
    findings = audit_home(home)
    assert any("never run" in note for note in findings.notes)


def test_a_write_protected_copy(home: Path) -> None:
    """A copy that nobody may write is checked without a lock."""
    for path in home.iterdir():
        path.chmod(0o400)
    home.chmod(0o500)
    try:
        assert told(audit_home(home)) == ""
    finally:
        home.chmod(0o700)


KILLED = """
import asyncio, sys, os
from pathlib import Path
from p2pmed.node.node import open_node
from p2pmed.node.config import Config
from p2pmed.medical import Recall
async def main():
    config = Config(host="127.0.0.1", port=0, discovery=False)
    async with open_node(sys.argv[1], passphrase=sys.argv[2], config=config, network=False) as node:
        for n in range(10_000):
            await node.submit(Recall(gtin="09506000134352", lot=f"L{n}", reason="x"))
            print(n, flush=True)
asyncio.run(main())
"""


def test_a_killed_home_passes(home: Path, tmp_path: Path) -> None:
    """A node killed in the middle of writing leaves a home in which all holds."""
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(home), PASSPHRASE], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        for _ in range(15):
            last = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert (home / "node.db-wal").stat().st_size > 0
        findings = audit_home(home)
        assert told(findings) == ""
        assert findings.counts["entries"] > int(last)
    shutil.rmtree(tmp_path, ignore_errors=True)


async def test_a_raft_home(tmp_path: Path) -> None:
    """Every home of a Raft mesh verifies: leader, followers, and one that was away."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(tmp_path, stack)
        homes = [network.home("clinic") for _ in range(3)]
        nodes = [await network.open(home) for home in homes]
        await network.found_mesh(engine="raft")
        for number in range(6):
            nodes[2].shell.set_online(number != 3)
            receipt = await nodes[number % 2].submit(RECALL)
            await receipt.final(timeout=15)
        nodes[2].shell.set_online(True)
        height = nodes[0].status()["height"]
        await until(lambda: nodes[2].status()["height"] >= height, "the one away is back")
    for home in homes:
        findings = audit_home(home)
        assert told(findings) == ""
        assert findings.counts["executed_blocks"] >= height


async def test_a_county_home(tmp_path: Path) -> None:
    """A county's home verifies with its villages' blocks executed again through its anchors."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(tmp_path, stack)
        village, county = network.home("clinic", place="shan/mu"), network.home("hospital")
        clinic = await network.open(village)
        await clinic.found_mesh(name="Mu village")
        receipt = await clinic.submit(RECALL)
        await receipt.final(timeout=10)
        hospital = await network.open(county)
        await hospital.found_mesh(name="Shan county")
        await receipt.anchored(timeout=20)  # a recall counts as soon as the county orders it
        progress = hospital.replica.village_progress
        await until(
            lambda: any(row["executed"] for row in progress()), "the village's blocks are executed"
        )
    findings = audit_home(county)
    assert told(findings) == ""
    assert findings.counts["ledgers"] == 2
    assert told(audit_home(village)) == ""
    # Without the village's blocks the anchor cannot be executed again, and that is found.
    with closing(sqlite3.connect(county / "node.db")) as connection:
        [home] = connection.execute("SELECT value FROM kv WHERE key = ?", (b"home",)).fetchone()
        connection.execute(
            "DELETE FROM bulk WHERE space = ? AND substr(key, 1, 32) <> ?",
            (int(Space.BLOCK), home),
        )
        connection.commit()
    assert "executing it again gives otherwise: the verdicts" in told(audit_home(county))
