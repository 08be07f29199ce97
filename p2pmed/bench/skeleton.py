"""A ledger without a protocol: the least work that any implementation must do, really done.

One process a seat, plain TCP on loopback. Seat 0 signs transactions and sends them in blocks;
every seat decodes, checks, hashes and stores them in one flushed commit, and says so:

* ``bft``: every seat signs a vote, sends it to all and checks a quorum of votes, twice;
* ``raft``: every seat answers the first, which waits for a majority.

No leader but the first, no view, no fault, no encryption, no gossip: nothing that a real
protocol could do without. ``python -m p2pmed.bench.skeleton`` is one seat.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import sqlite3
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cbor2
from nacl import bindings

from p2pmed.bench.load import NETWORK, envelope_of, records
from p2pmed.bench.machine import ingest_bare, open_bare, store_bare
from p2pmed.bench.village import Process, gather_all, start
from p2pmed.medical.records import RecordAdd
from p2pmed.wire import codec, cose
from p2pmed.wire.hashing import hash_bytes

__all__ = ["Skeleton", "run_skeleton"]

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
DEPTH: Final = 3
"""Blocks under way at once, unless one transaction at a time is asked for."""
VOTE_BYTES: Final = 96
"""A statement of 32 bytes and its signature."""


class Skeleton:
    """What ``run_skeleton`` measured."""

    def __init__(self, seconds: float, count: int, cpu_s: float, times: Sequence[float]) -> None:
        self.per_second = count / seconds
        """Transactions stored by all, a second."""
        self.cpu_us = cpu_s / count * 1e6
        """Processor time of all processes for each transaction."""
        self.times = times
        """Milliseconds from sending a block to knowing that it stands."""


async def run_skeleton(engine: str, seats: int, *, size: int, seconds: float) -> Skeleton:
    """Blocks of ``size`` transactions for about ``seconds``; of one, one at a time."""
    with tempfile.TemporaryDirectory(prefix="p2pmed-bench-") as folder:
        processes: list[Process] = []
        try:
            common = {"seats": seats, "folder": folder, "engine": engine}
            starting = [start(__name__, {"seat": seat, **common}) for seat in range(seats)]
            processes += await gather_all(starting)
            ports = [process.ready["port"] for process in processes]
            keys = [process.ready["key"] for process in processes]
            for process in processes:
                await process.ask("connect", ports=ports, keys=keys)
            for process in processes[1:]:
                await process.write({"do": "follow"})
            led = await processes[0].ask("lead", size=size, seconds=seconds)
            followed = [await process.read() for process in processes[1:]]
        finally:
            await asyncio.gather(*(process.end() for process in processes))
    cpu_s = led["cpu_s"] + sum(each["cpu_s"] for each in followed)
    return Skeleton(led["seconds"], led["count"], cpu_s, led["times"])


class _Seat:
    """One seat."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.seat: int = settings["seat"]
        self.seats: int = settings["seats"]
        self._bft = settings["engine"] == "bft"
        self._majority = self.seats // 2 + 1
        self._quorum = (self.seats + (self.seats - 1) // 3) // 2 + 1
        self._disk: sqlite3.Connection = open_bare(
            Path(settings["folder"]) / f"seat-{self.seat}.sqlite"
        )
        self._seed = secrets.token_bytes(32)
        self.key, self._secret = bindings.crypto_sign_seed_keypair(self._seed)
        self._keys: list[bytes] = []
        self._prefix = b""
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._blocks: asyncio.Queue[bytes] = asyncio.Queue()
        self._ballots: dict[bytes, list[tuple[int, bytes]]] = {}
        self._voted = asyncio.Event()
        self._complete = asyncio.Event()
        if self.seats == 1:
            self._complete.set()  # nobody will come
        self._over: deque[bytes] = deque(maxlen=64)
        """Votes that are settled; later ones about them are not kept."""
        self._tasks: list[asyncio.Task[None]] = []

    # --- links --------------------------------------------------------------------------------

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seat = (await reader.readexactly(1))[0]
        self._meet(seat, reader, writer)

    async def connect(self, ports: list[int], keys: list[str]) -> dict[str, Any]:
        self._keys = [bytes.fromhex(key) for key in keys]
        self._prefix = _structure_head(self._keys[0])
        for seat, port in enumerate(ports[: self.seat]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
            writer.write(bytes([self.seat]))
            self._meet(seat, reader, writer)
        return {}

    def _meet(self, seat: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[seat] = writer
        if len(self._writers) == self.seats - 1:
            self._complete.set()
        self._tasks.append(asyncio.create_task(self._read(seat, reader)))

    async def _read(self, seat: int, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                frame = await reader.readexactly(size)
                if size != VOTE_BYTES:
                    self._blocks.put_nowait(frame)
                elif frame[:32] not in self._over:
                    self._ballots.setdefault(frame[:32], []).append((seat, frame[32:]))
                    self._voted.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def _tell(self, seat: int, frame: bytes) -> None:
        self._writers[seat].write(len(frame).to_bytes(4, "big") + frame)

    def _tell_all(self, frame: bytes) -> None:
        for seat in self._writers:
            self._tell(seat, frame)

    # --- work ---------------------------------------------------------------------------------

    async def lead(self, size: int, seconds: float) -> dict[str, Any]:
        await self._complete.wait()
        bodies = [draft.body for draft in records(bytes(16), size)]
        values = [
            codec.plain(envelope_of(body, 1, bytes(32)))
            for body in bodies
            if isinstance(body, RecordAdd)
        ]
        times: list[float] = []
        head = _structure_head(self.key)
        depth = 1 if size == 1 else DEPTH
        sent: deque[tuple[bytes, float]] = deque()
        used, start = _cpu_s(), time.perf_counter()
        while sent or time.perf_counter() < start + seconds:
            began = time.perf_counter()
            if began < start + seconds:
                number = len(times) + len(sent)
                rows = [self._sign(head, value, number) for value in values]
                self._tell_all(cbor2.dumps([raw for _, raw in rows]))
                store_bare(self._disk, rows)
                sent.append((_name(rows), began))
                if len(sent) < depth:
                    await asyncio.sleep(0)  # the block leaves
                    continue
            name, began = sent.popleft()
            await self._agree(name)
            times.append((time.perf_counter() - began) * 1_000)
        spent = time.perf_counter() - start
        self._tell_all(b"end")
        return {
            "seconds": spent,
            "count": size * len(times),
            "cpu_s": _cpu_s() - used,
            "times": times,
        }

    def _sign(self, head: bytes, value: list[Any], number: int) -> tuple[bytes, bytes]:
        value[2] = number
        payload = cbor2.dumps(value)
        structure = head + b"\x59" + len(payload).to_bytes(2, "big") + payload
        signature = bindings.crypto_sign(structure, self._secret)[:64]
        message = _MESSAGE_HEAD + self.key + b"\xa0" + structure[len(head) :]
        raw = message + b"\x58\x40" + signature
        name = bindings.crypto_generichash_blake2b_salt_personal(structure, digest_size=32)
        return name, raw

    async def follow(self) -> dict[str, Any]:
        await self._complete.wait()  # a vote to who is not accepted yet would be lost
        used = _cpu_s()
        while True:
            frame = await self._blocks.get()
            if frame == b"end":
                return {"cpu_s": _cpu_s() - used}
            rows = []
            for raw in cbor2.loads(frame):
                structure = self._prefix + raw[_STRING_AT:-66]
                rows.append((ingest_bare(raw, self._keys[0], raw[-64:], structure), raw))
            store_bare(self._disk, rows)
            await self._agree(_name(rows))

    async def _agree(self, name: bytes) -> None:
        if not self._bft:
            if self.seat:
                self._tell(0, name.ljust(VOTE_BYTES, b"\0"))
            else:
                await self._votes(name, self._majority, signed=False)
            return
        for vote_round in (b"1", b"2"):
            said = hash_bytes(name + vote_round)
            if vote_round == b"2":
                store_bare(self._disk, [(said, said)])
            signature = bindings.crypto_sign(said, self._secret)[:64]
            self._tell_all(said + signature)
            await self._votes(said, self._quorum, signed=True)

    async def _votes(self, said: bytes, needed: int, *, signed: bool) -> None:
        for _ in range(needed - 1):
            while not self._ballots.get(said):
                self._voted.clear()
                await self._voted.wait()
            seat, signature = self._ballots[said].pop()
            if signed:
                bindings.crypto_sign_open(signature + said, self._keys[seat])
        self._ballots.pop(said, None)
        self._over.append(said)


_MESSAGE_HEAD: Final = cose._MESSAGE_HEAD
_STRING_AT: Final = len(_MESSAGE_HEAD) + 32 + 1


def _structure_head(key: bytes) -> bytes:
    """The Sig_structure of a transaction by ``key``, up to its payload."""
    return cose._structure(key, cose.external_data("transaction", NETWORK), b"")[:-1]


def _name(rows: list[tuple[bytes, bytes]]) -> bytes:
    return hash_bytes(b"".join(name for name, _ in rows))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    """One seat, driven over standard input."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    seat = _Seat(json.loads(await lines.readline()))
    server = await asyncio.start_server(seat.accept, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "key": seat.key.hex()}), flush=True)
    while line := await lines.readline():
        question = json.loads(line)
        answer = await getattr(seat, question.pop("do"))(**question)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    from p2pmed.aio.loop import run

    run(main())
