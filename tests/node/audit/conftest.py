"""One real home with a mesh's ledger, patients, refusals and a kept fork; copied for each test."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import msgspec
import pytest

from p2pmed.ledger.transaction import sign_entry
from p2pmed.medical import Commission, Demographics, Encounter, PatientName, Recall
from p2pmed.node.node import Node
from p2pmed.node.stick import export_bundle
from p2pmed.storage.schema import checksum, table_of
from p2pmed.testing.homes import LocalNetwork, until
from p2pmed.world import Space

GTIN = "09506000134352"
VISITS = 6


async def _live(folder: Path) -> Path:
    """Two nodes found a mesh and work; the clinic's home, closed in good order."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(folder, stack)
        homes = [network.home("pharmacy"), network.home("clinic")]
        pharmacy, clinic = [await network.open(home) for home in homes]
        await network.found_mesh()
        await pharmacy.submit(Recall(gtin=GTIN, lot="L1", reason="contamination"))  # no role
        packs = tuple(f"S{i}" for i in range(30))
        await clinic.submit(
            Commission(gtin=GTIN, lot="L2", expiry=30_000, serials=packs, maker=pharmacy.key)
        )
        someone = Demographics(
            patient=clinic.patients.new_pseudonym(), names=(PatientName(text="Wang"),)
        )
        who, receipt = await clinic.patients.register(someone)
        await receipt.final(timeout=10)
        for day in range(1, VISITS + 1):
            visit = Encounter(patient=who, period_start=f"2027-03-0{day}T09:30:00+08:00")
            receipt = await clinic.submit(visit)
            await receipt.final(timeout=10)
        await until(lambda: clinic.status()["pending"] == 0, "all is final")
        await export_bundle(clinic, folder / "clinic.bundle")
        await _fork(clinic, pharmacy)
        await export_bundle(clinic, folder / "forked.bundle")
    return homes[1]


async def _fork(clinic: Node, pharmacy: Node) -> None:
    """The pharmacy's device signs another entry at a place it has signed already."""
    log = pharmacy.replica.own.key
    last = clinic.replica.logs.entry(log, clinic.replica.logs.next_seq(log) - 1)
    assert last is not None
    other = msgspec.structs.replace(last.envelope, wall=last.envelope.wall + 1)
    seed = pharmacy.keys.signing_seed
    twin = sign_entry(other, seed=seed, author=pharmacy.key, network=pharmacy.network)
    await clinic.import_entries([twin.raw])
    await until(lambda: bool(clinic.replica.logs.forks(log)), "the fork is kept")
    await until(lambda: clinic.status()["pending"] == 0, "the report of it is final")


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that nobody may change."""
    return asyncio.run(_live(tmp_path_factory.mktemp("audited")))


@pytest.fixture
def home(lived_in: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    path = tmp_path / "clinic"
    shutil.copytree(lived_in, path)
    return path


Tamper = Callable[[Space, bytes, bytes | None], None]


@pytest.fixture
def rows(home: Path) -> Callable[[Space], list[tuple[bytes, bytes]]]:
    """The rows of a space, in key order."""

    def read(space: Space) -> list[tuple[bytes, bytes]]:
        with closing(sqlite3.connect(home / "node.db")) as connection:
            statement = f"SELECT key, value FROM {table_of(space)} WHERE space = ? ORDER BY key"
            return connection.execute(statement, (int(space),)).fetchall()

    return read


@pytest.fixture
def tamper(home: Path) -> Tamper:
    """Sets or (``None``) deletes a row, with a checksum that fits: as a careful liar would."""

    def write(space: Space, key: bytes, value: bytes | None) -> None:
        with closing(sqlite3.connect(home / "node.db")) as connection:
            table = table_of(space)
            connection.execute(
                f"DELETE FROM {table} WHERE space = ? AND key = ?", (int(space), key)
            )
            if value is not None:
                connection.execute(
                    f"INSERT INTO {table} (space, key, value, sum) VALUES (?, ?, ?, ?)",
                    (int(space), key, value, checksum(space, key, value)),
                )
            connection.commit()

    return write
