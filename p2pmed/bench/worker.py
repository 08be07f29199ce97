"""One real node in a process of its own: ``python -m p2pmed.bench.worker``.

The first line on standard input says which home to open; each further line is one question,
``{"do": name, ...}``, answered by one line on standard output. Everything is measured here, where
it happens; instants are of the system's monotonic clock, which all processes share.

Rule: only what an embedding application can call is used to make the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import socket
import stat
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from p2pmed.bench.load import records, registration
from p2pmed.medical.records import RecordAdd
from p2pmed.node.config import Config
from p2pmed.node.node import Node, open_node
from p2pmed.node.receipts import Receipt
from p2pmed.sync.founding import MeshPolicy

__all__ = ["ACCEPTS", "PASSPHRASE", "main"]

PASSPHRASE: Final = "for measurements only"  # noqa: S105 (opens nothing that lasts)
ACCEPTS: Final = MeshPolicy(auto=True, size=20, roles=(), follow=False)
"""Signs a founding that names it; proposes none."""
LOOK_S: Final = 0.002
FOUND_S: Final = 60

_TCP_INFO: Final = 11
_BYTES_ACKED: Final = 120
"""Offset in Linux's ``tcp_info`` of two 64-bit counters: bytes acknowledged, bytes received."""


class Worker:
    """Answers the questions of the process that started it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._patient = b""
        self._arrivals: list[tuple[str, int, float]] = []
        self._listening: asyncio.Task[None] | None = None

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the question's ``do`` asks for."""
        arguments = {name: value for name, value in question.items() if name != "do"}
        return await _QUESTIONS[question["do"]](self, **arguments)

    # --- about the node -----------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Counters of the node and of its process."""
        node, used = self._node, resource.getrusage(resource.RUSAGE_SELF)
        home = node.replica.home
        return {
            "key": node.key.hex(),
            "port": node.port,
            "peers": len(node.replica.links),
            "in_sight": [key.hex() for key in node.replica.formation.in_sight],
            "ledger": node.ledger.hex() if node.ledger else None,
            "height": home.chain.height if home else 0,
            "leads": _leads(node),
            "entries": _entries(node),
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss_mb": _rss_mb(),
            "tcp_bytes": _tcp_bytes(),
            "written_bytes": _written_bytes(),
        }

    async def dial(self, address: str) -> dict[str, Any]:
        """Connect to a peer."""
        self._node.dial(address)
        return {}

    async def found(self, members: list[str], engine: str) -> dict[str, Any]:
        """Found a ledger with these devices."""
        keys = [bytes.fromhex(key) for key in members]
        ledger = await self._node.found_mesh(
            keys,
            engine=engine,  # type: ignore[arg-type]
            patience_s=FOUND_S,
        )
        return {"ledger": ledger.hex()}

    # --- load ---------------------------------------------------------------------------------

    async def register(self) -> dict[str, Any]:
        """Register the patient that this node's records are about."""
        self._patient = secrets.token_bytes(16)
        await self._node.submit_drafts([registration(self._patient)])
        return {}

    async def submit(self, seconds: float, clients: int) -> dict[str, Any]:
        """``clients`` that write one record after the other until durable: times in ms."""
        drafts = records(self._patient, 1)
        body = drafts[0].body
        assert isinstance(body, RecordAdd)
        times: list[float] = []
        start = time.monotonic()

        async def client() -> None:
            while (began := time.monotonic()) < start + seconds:
                await self._node.submit(body, patient=self._patient)
                times.append((time.monotonic() - began) * 1_000)

        await asyncio.gather(*(client() for _ in range(clients)))
        return {"times": times, "seconds": time.monotonic() - start}

    async def fill(self, total: int, batch: int, clients: int) -> dict[str, Any]:
        """Write ``total`` records in submissions of ``batch``, ``clients`` of them in flight."""
        start = time.monotonic()
        left = total

        async def client() -> None:
            nonlocal left
            while left > 0:
                size = min(batch, left)
                left -= size
                await self._node.submit_drafts(records(self._patient, size))

        await asyncio.gather(*(client() for _ in range(clients)))
        return {"start": start, "end": time.monotonic()}

    async def finality(self, seconds: float, clients: int, batch: int) -> dict[str, Any]:
        """``clients`` that submit ``batch`` records and wait until all are final, again and again.

        Answers the time to finality of each submission, and when all that was submitted was final:
        at least ``seconds`` after the start, and longer where a submission takes long.
        """
        times: list[float] = []
        start = time.monotonic()

        async def client() -> None:
            while (began := time.monotonic()) < start + seconds:
                receipts = await self._node.submit_drafts(records(self._patient, batch))
                await _final(receipts)
                times.append((time.monotonic() - began) * 1_000)

        await asyncio.gather(*(client() for _ in range(clients)))
        return {"times": times, "seconds": time.monotonic() - start}

    async def watch(self, seconds: float) -> dict[str, Any]:
        """One client that submits one record after the other: when each became final."""
        ended: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await _final(await self._node.submit_drafts(records(self._patient, 1)))
            ended.append(time.monotonic())
        return {"ended": ended}

    async def drip(self, total: int, pause_s: float) -> dict[str, Any]:
        """Write ``total`` records one by one, far apart; when each was begun."""
        begun = []
        for _ in range(total):
            start = time.monotonic()
            receipt = await self._node.submit_drafts(records(self._patient, 1))
            begun.append((receipt[0].entry.author.hex(), receipt[0].entry.seq, start))
            await asyncio.sleep(pause_s)
        return {"begun": begun}

    # --- waiting ------------------------------------------------------------------------------

    async def stored(self, entries: int, seconds: float) -> dict[str, Any]:
        """Wait until so many entries are durable here; when, and how far it was meanwhile."""
        end = time.monotonic() + seconds
        steps: list[tuple[float, int]] = []
        rss = 0.0
        for number in count():
            now, have = time.monotonic(), _entries(self._node)
            if have >= entries or now > end:
                return {"at": now, "entries": have, "steps": steps, "rss_mb": max(rss, _rss_mb())}
            if number % 16 == 0:
                steps.append((now, have))
                rss = max(rss, _rss_mb())
            await asyncio.sleep(LOOK_S)
        raise AssertionError

    async def listen(self) -> dict[str, Any]:
        """Note from now on when each entry becomes known to an application here."""

        async def note() -> None:
            async for happening in self._node.events():
                if happening.what == "stored" and happening.entry is not None:
                    entry = happening.entry
                    self._arrivals.append((entry.author.hex(), entry.seq, time.monotonic()))

        self._listening = asyncio.create_task(note())
        return {}

    async def heard(self) -> dict[str, Any]:
        """What ``listen`` noted."""
        if self._listening is not None:
            self._listening.cancel()
        return {"arrivals": self._arrivals}

    # --- by hand ------------------------------------------------------------------------------

    async def export(self, path: str) -> dict[str, Any]:
        """Write everything to a bundle."""
        from p2pmed.node.stick import export_bundle

        start = time.monotonic()
        written = await export_bundle(self._node, Path(path))
        return {"seconds": time.monotonic() - start, "bytes": written["bytes"]}

    async def take_in(self, path: str) -> dict[str, Any]:
        """Take in a bundle."""
        from p2pmed.node.stick_import import import_bundle

        start = time.monotonic()
        await import_bundle(self._node, Path(path))
        return {"seconds": time.monotonic() - start, "entries": _entries(self._node)}


async def _final(receipts: list[Receipt]) -> None:
    """One log, gapless: once the last is final, all are."""
    await receipts[-1].final(timeout=120)


def _leads(node: Node) -> bool:
    """Whether it leads its ledger now; a leader of BFT does for a view."""
    home = node.replica.home
    if home is None or home.engine is None:
        return False
    return home.engine.status()["leader"] == home.seat


def _entries(node: Node) -> int:
    return sum(next_seq for _, next_seq in node.replica.logs.frontier())


def _rss_mb() -> float:
    """Resident memory now; the peak where the system does not say."""
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGESIZE") / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def _written_bytes() -> int:
    """Bytes that this process caused to be written to the disk; 0 where nobody counts them."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def _tcp_bytes() -> int:
    """Bytes sent and received over the TCP connections that are open now (Linux)."""
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for name in os.listdir("/proc/self/fd"):
        if not _is_socket(int(name)):
            continue
        with socket.socket(fileno=os.dup(int(name))) as opened:
            if opened.family in (socket.AF_INET, socket.AF_INET6):
                raw = opened.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_ACKED + 16)
                if len(raw) >= _BYTES_ACKED + 16:
                    total += sum(struct.unpack_from("=QQ", raw, _BYTES_ACKED))
    return total


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # the directory's own, closed meanwhile


_QUESTIONS: Final[dict[str, Callable[..., Awaitable[dict[str, Any]]]]] = {
    name: getattr(Worker, name)
    for name in (
        "status",
        "dial",
        "found",
        "register",
        "submit",
        "fill",
        "finality",
        "watch",
        "drip",
        "stored",
        "listen",
        "heard",
        "export",
        "take_in",
    )
}


async def main() -> None:
    """Open the node that the first line names; answer until standard input ends."""
    began = time.monotonic()
    lines = asyncio.StreamReader(limit=1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = json.loads(await lines.readline())
    config = Config(host="127.0.0.1", port=0, discovery=False, mesh=ACCEPTS)
    async with open_node(settings["home"], passphrase=PASSPHRASE, config=config) as node:
        worker = Worker(node)
        _say({"ready_s": time.monotonic() - began, "rss_mb": _rss_mb(), "at": time.monotonic()})
        while line := await lines.readline():
            try:
                _say(await worker.answer(json.loads(line)))
            except Exception as error:
                _say({"error": f"{type(error).__name__}: {error}"})


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    from p2pmed.aio.loop import run

    run(main())
