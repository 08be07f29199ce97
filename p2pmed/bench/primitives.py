"""Single steps: signing, checking, hashing, spelling, and the disk's commits."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Final

from p2pmed.aio.verifier import Verifier
from p2pmed.bench.load import NETWORK, envelope_of, records
from p2pmed.bench.machine import Machine
from p2pmed.bench.results import CPU, Result, median_of, rate
from p2pmed.bench.size import Size
from p2pmed.ledger.transaction import GENESIS_PREV, open_entry, sign_entry
from p2pmed.medical.records import RecordAdd
from p2pmed.storage.sqlite import SqliteDisk, open_disk
from p2pmed.wire import codec, cose
from p2pmed.wire.hashing import hash_bytes
from p2pmed.world import Space

__all__ = ["codec_bench", "crypto_bench", "disk_bench"]

CHECKS: Final = 2_048


async def crypto_bench(machine: Machine, size: Size) -> list[Result]:
    """Ed25519 and BLAKE2b as we call them, beside the bare bindings."""
    entry = machine.entries[0]
    external = cose.external_data("transaction", NETWORK)
    payload = entry.raw[45:-66]

    def sign() -> None:
        cose.sign(payload, seed=bytes(32), signer=entry.author, external=external)

    def verify() -> None:
        cose.verify(entry.author, entry.signature, entry.to_be_signed)

    seconds = machine.seconds
    return [
        Result(
            name="sign",
            value=rate(sign, seconds=seconds, clock=CPU),
            unit="/s",
            limit=machine.sign,
            limit_name="bare crypto_sign",
        ),
        Result(
            name="verify, one core",
            value=rate(verify, seconds=seconds, clock=CPU),
            unit="/s",
            limit=machine.verify,
            limit_name="bare crypto_sign_open",
        ),
        Result(
            name="verify, threads",
            value=await _verify_threads(machine),
            unit="/s",
            limit=machine.verify_threads,
            limit_name="bare, one thread a core",
        ),
        Result(
            name="hash",
            value=rate(lambda: hash_bytes(entry.raw), seconds=seconds, clock=CPU),
            unit="/s",
            limit=machine.hash,
            limit_name="bare blake2b",
        ),
    ]


async def _verify_threads(machine: Machine) -> float:
    """Checks a second through the node's own ``Verifier``, the loop being free."""
    loop = asyncio.get_running_loop()
    verifier = Verifier()
    entries = machine.entries
    checks = [
        (e.author, e.signature, e.to_be_signed)
        for e in (entries * (CHECKS // len(entries) + 1))[:CHECKS]
    ]
    found: list[float] = []
    end = time.perf_counter() + machine.seconds
    while not found or time.perf_counter() < end:
        done: asyncio.Future[tuple[bool, ...]] = loop.create_future()
        start = time.perf_counter()
        verifier.check(checks, done.set_result)
        assert all(await done)
        found.append(CHECKS / (time.perf_counter() - start))
    await verifier.close()
    return median_of(found)


async def codec_bench(machine: Machine, size: Size) -> list[Result]:
    """One transaction of about 500 bytes: spelled, signed, taken apart."""
    entry = machine.entries[0]
    author, seed = entry.author, bytes(32)
    body = records(bytes(16), 1)[0].body
    assert isinstance(body, RecordAdd)
    envelope = envelope_of(body, 0, GENESIS_PREV)
    seconds = machine.seconds
    bound_sign = 1 / (1 / machine.dumps + 1 / machine.sign + 1 / machine.hash)
    bound_open = 1 / (1 / machine.loads + 1 / machine.hash)
    return [
        Result(
            name="encode an envelope",
            value=rate(lambda: codec.encode(envelope), seconds=seconds, clock=CPU),
            unit="/s",
            limit=machine.dumps,
            limit_name="cbor2.dumps of its values",
            details={"entry_bytes": len(entry.raw)},
        ),
        Result(
            name="sign an entry",
            value=rate(
                lambda: sign_entry(envelope, seed=seed, author=author, network=NETWORK),
                seconds=seconds,
                clock=CPU,
            ),
            unit="/s",
            limit=bound_sign,
            limit_name="dumps + sign + hash",
        ),
        Result(
            name="open an entry",
            value=rate(lambda: open_entry(entry.raw, network=NETWORK), seconds=seconds, clock=CPU),
            unit="/s",
            limit=bound_open,
            limit_name="loads + hash",
        ),
    ]


async def disk_bench(machine: Machine, size: Size) -> list[Result]:
    """Our disk's group commits beside a bare table, and one row beside a bare flush."""
    seconds = machine.seconds
    async with open_disk(machine.folder / "disk.sqlite", create=True) as disk:
        stored = [
            Result(
                name=f"store {rows} rows a commit",
                value=await _commits(disk, rows, seconds) * rows,
                unit="rows/s",
                limit=machine.rows(rows),
                limit_name="bare table, same rows",
            )
            for rows in (1_000, 100)
        ]
        one = Result(
            name="one-row commit",
            value=await _commits(disk, 1, seconds),
            unit="/s",
            limit=machine.flush,
            limit_name="flushes",
        )
    flush = Result(name="flush (fdatasync of 500 bytes)", value=machine.flush, unit="/s")
    return [flush, *stored, one]


async def _commits(disk: SqliteDisk, rows: int, seconds: float) -> float:
    """Commits of ``rows`` rows of 500 bytes a second."""
    found: list[float] = []
    number = secrets.randbits(48)
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(8):
            for _ in range(rows):
                number += 1
                disk.stage(Space.ENTRY, number.to_bytes(12, "big"), bytes(500))
            await disk.commit()
        found.append(8 / (time.perf_counter() - start))
    return median_of(found)
