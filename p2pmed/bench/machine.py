"""What this machine can do at best: the limits that stand beside our own figures.

Rule: the least that any implementation must do for the same bytes, with the same primitives,
and nothing of ours around it. Each limit is measured once in a run, when first asked for.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Final

import cbor2
from nacl import bindings

from p2pmed.bench.load import signed_entries
from p2pmed.bench.results import CPU, conditions, median_of, rate
from p2pmed.ledger.transaction import Entry

__all__ = ["CHUNK", "Machine"]

CHUNK: Final = 64
"""Signatures that one thread checks in one go."""
ROUNDS: Final = 3


class Machine:
    """The limits of this machine; files go to ``folder``, each figure takes about ``seconds``."""

    def __init__(self, folder: Path, *, seconds: float, entries: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.conditions = conditions(folder)
        self.entries: list[Entry] = signed_entries(entries)
        """A log of signed transactions, for whoever needs some."""

    @property
    def cpus(self) -> int:
        """Cores that this process may use."""
        return self.conditions.cpus

    def _computing(self, work: Callable[[], object]) -> float:
        return rate(work, seconds=self.seconds, clock=CPU)

    # --- crypto ---------------------------------------------------------------------------

    @cached_property
    def sign(self) -> float:
        """Signatures a second on one core."""
        message = self.entries[0].to_be_signed
        _, secret = bindings.crypto_sign_seed_keypair(bytes(32))
        return self._computing(lambda: bindings.crypto_sign(message, secret))

    @cached_property
    def verify(self) -> float:
        """Signature checks a second on one core."""
        entry = self.entries[0]
        signed = entry.signature + entry.to_be_signed
        return self._computing(lambda: bindings.crypto_sign_open(signed, entry.author))

    @cached_property
    def verify_threads(self) -> float:
        """Signature checks a second on one thread a core, in chunks of ``CHUNK``."""
        entry = self.entries[0]
        signed, author = entry.signature + entry.to_be_signed, entry.author

        def chunk(_: int) -> None:
            for _ in range(CHUNK):
                bindings.crypto_sign_open(signed, author)

        chunks = 8 * self.cpus
        with ThreadPoolExecutor(self.cpus) as pool:
            per_second = rate(lambda: list(pool.map(chunk, range(chunks))), seconds=self.seconds)
        return per_second * chunks * CHUNK

    @cached_property
    def hash(self) -> float:
        """BLAKE2b-256 of one transaction, a second on one core."""
        raw = self.entries[0].raw
        return self._computing(lambda: blake2b(raw, digest_size=32).digest())

    # --- codec ----------------------------------------------------------------------------

    @cached_property
    def dumps(self) -> float:
        """cbor2 encodings of one envelope a second, in the order given."""
        value = cbor2.loads(_payload(self.entries[0].raw))
        return self._computing(lambda: cbor2.dumps(value))

    @cached_property
    def loads(self) -> float:
        """cbor2 decodings of one envelope a second, unchecked."""
        payload = _payload(self.entries[0].raw)
        return self._computing(lambda: cbor2.loads(payload))

    # --- disk -----------------------------------------------------------------------------

    @cached_property
    def flush(self) -> float:
        """Flushes (``fdatasync`` after 500 bytes) a second."""
        path = self.folder / "flush"
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        descriptor = os.open(path, flags, 0o600)
        flush = getattr(os, "fdatasync", os.fsync)

        def once() -> None:
            os.write(descriptor, bytes(500))
            flush(descriptor)

        try:
            return rate(once, seconds=self.seconds)
        finally:
            os.close(descriptor)
            path.unlink()

    def rows(self, per_commit: int) -> float:
        """Bare SQLite (WAL, ``synchronous=FULL``): rows a second, key to 500 bytes."""
        path = self.folder / f"rows-{per_commit}.sqlite"
        connection = open_bare(path)
        number = 0

        def once() -> None:
            nonlocal number
            rows = [((number + i).to_bytes(12, "big"), bytes(500)) for i in range(per_commit)]
            number += per_commit
            store_bare(connection, rows)

        try:
            return rate(once, seconds=self.seconds) * per_commit
        finally:
            connection.close()

    # --- whole steps ----------------------------------------------------------------------

    @cached_property
    def write_us(self) -> float:
        """The least to write one transaction: encode, sign, hash, store in batches of 256."""
        store = self._store_us
        return 1e6 / self.dumps + 1e6 / self.sign + 1e6 / self.hash + store

    @cached_property
    def ingest_us(self) -> float:
        """The least to take one in: decode, check, hash, store in batches of 256 (microseconds).

        Measured as one loop on one core, so that caches are as cold as they are in truth.
        """
        found = []
        for number in range(ROUNDS):
            connection = open_bare(self.folder / f"ingest-{number}.sqlite")
            start = time.process_time()
            for at in range(0, len(self.entries), 256):
                batch = self.entries[at : at + 256]
                rows = [
                    (ingest_bare(e.raw, e.author, e.signature, e.to_be_signed), e.raw)
                    for e in batch
                ]
                store_bare(connection, rows)
            found.append((time.process_time() - start) / len(self.entries) * 1e6)
            connection.close()
        return median_of(found)

    @cached_property
    def _store_us(self) -> float:
        return 1e6 / self.rows(256)


def open_bare(path: Path) -> sqlite3.Connection:
    """A bare database: one table from key to value, WAL, every commit flushed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
    return connection


def store_bare(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
    """Store ``rows`` as one flushed commit."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", rows)
    connection.execute("COMMIT")


def ingest_bare(raw: bytes, author: bytes, signature: bytes, to_be_signed: bytes) -> bytes:
    """Decode, check and hash one transaction, in the least number of steps; its id."""
    cbor2.loads(_payload(raw))
    bindings.crypto_sign_open(signature + to_be_signed, author)
    return blake2b(to_be_signed, digest_size=32).digest()


def _payload(raw: bytes) -> bytes:
    """The payload of a COSE_Sign1 message of ours of 256 to 65,535 bytes."""
    return raw[_HEAD:-66]


_HEAD: Final = 2 + 39 + 1 + 3
"""Array and string heads, the protected header, the empty map, and the payload's own head."""
