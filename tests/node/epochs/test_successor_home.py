"""A home that lives in a successor: it verifies from its bytes, and a rotten estate is found."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

from epoch_village import GTIN, write

from p2pmed.medical.drugs import Dispense
from p2pmed.node.audit import audit_home
from p2pmed.testing.homes import LocalNetwork, until
from p2pmed.world import Space


async def test_the_home_of_a_survivor_verifies(tmp_path: Path) -> None:
    """Stock of the old ledger is spent in the new one; executed again from what it began with."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(tmp_path, stack)
        async with AsyncExitStack() as lost:
            survivor = await network.open(network.home("pharmacy"))
            network._stack = lost
            for _ in range(2):
                await network.open(network.home("pharmacy"))
            old = await network.found_mesh(engine="raft")
            spent = await write(survivor, "P")
        await until(lambda: not survivor.replica.links, "alone")
        new = await survivor.found_mesh([], engine="raft", successor=True)
        assert survivor.ledger == new != old
        kept = await survivor.submit(Dispense(gtin=GTIN, serial="P-2"), patient=b"p" * 16)
        home = survivor.replica.home
        assert home is not None
        await until(lambda: home.chain.height_of(kept.entry) is not None, "ordered")
        assert kept.verdict.code == "applied"
        assert kept.final_place is None, "no county has seen the successor"
        place = survivor.receipt(spent).final_place
        assert place is not None
        assert (place.height, place.verdict.code) == (0, "applied")
    folder = next(tmp_path.glob("01-*"))
    findings = audit_home(folder)
    assert [(f.where, f.what) for f in findings.found] == []
    rotten = tmp_path / "rotten"
    shutil.copytree(folder, rotten, ignore=shutil.ignore_patterns("control*"))
    with closing(sqlite3.connect(rotten / "node.db", isolation_level=None)) as database:
        of_elder = "substr(key, 1, 32) = ? AND space = ?"
        gone = database.execute(
            f"DELETE FROM kv WHERE key = (SELECT max(key) FROM kv WHERE {of_elder})",
            (old, int(Space.STATE)),
        )
        assert gone.rowcount == 1
    told = " ".join(finding.what for finding in audit_home(rotten).found)
    assert "is not the stored one" in told
