"""PySyncObj, a Raft in Python, on the same machine and in as many processes: the peer beside us.

Measured only where it is installed (``pip install 'p2pmed[bench]'``). It does less: nothing is
signed, no liar is withstood, links are not encrypted. *Default* is as it comes, where a power cut
loses what was acknowledged; *synced* flushes each append to the journal and sends it at once.

``python -m p2pmed.bench.peer`` is one node, driven over standard input.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any, Final

from p2pmed.bench.load import ENTRY_BYTES
from p2pmed.bench.machine import Machine
from p2pmed.bench.results import Result, load_average, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.village import Process, gather_all, start
from p2pmed.errors import P2pmedError

__all__ = ["peer_bench"]

NODES: Final = 3
IN_FLIGHT: Final = 256
READY_S: Final = 20.0
TICK_S: Final = 0.001
ANSWER_S: Final = 30.0


async def peer_bench(machine: Machine, size: Size) -> list[Result]:
    """Throughput and latency of three nodes, by default and synced."""
    results = []
    for synced in (False, True):
        with tempfile.TemporaryDirectory(prefix="peer-", dir=machine.folder) as folder:
            results += await _measured(Path(folder), size.load_s / 2, synced=synced)
    return results


async def _measured(folder: Path, seconds: float, *, synced: bool) -> list[Result]:
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(NODES)]
    processes: list[Process] = []
    load = load_average()
    try:
        common = {"addresses": addresses, "folder": str(folder), "synced": synced}
        processes += await gather_all(
            start("p2pmed.bench.peer", {"seat": seat, **common}) for seat in range(NODES)
        )
        leads = [process.ready["leads"] for process in processes]
        leader = processes[leads.index(True)] if True in leads else processes[0]
        alone = await leader.ask("one", seconds=seconds)
        before = sum([(await process.ask("cpu"))["cpu_s"] for process in processes])
        many = await leader.ask("many", seconds=seconds)
        used = sum([(await process.ask("cpu"))["cpu_s"] for process in processes]) - before
    finally:
        await asyncio.gather(*(process.end() for process in processes))
    what = f"peer PySyncObj {NODES}, {'synced' if synced else 'default'}"
    return [
        Result(
            name=f"{what}: {IN_FLIGHT} in flight",
            value=many["count"] / many["seconds"],
            unit="tx/s",
            details={"cpu_us": round(used / max(1, many["count"]) * 1e6), "load_before": load},
        ),
        *(
            Result(
                name=f"{what}: one in flight, p{share}",
                value=percentile(alone["times"], share),
                unit="ms",
                details={"samples": len(alone["times"])},
            )
            for share in (50, 99)
        ),
    ]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody used a moment ago."""
    sockets = [socket(AF_INET, SOCK_STREAM) for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _sync_appends() -> None:
    """Let the peer's journal flush whatever it appends."""
    from pysyncobj.journal import FileJournal

    append = FileJournal.add

    def add(self: Any, command: Any, idx: int, term: int) -> None:
        append(self, command, idx, term)
        self._FileJournal__journalFile.flush()

    FileJournal.add = add


class _Seat:
    """One node of the peer: a list that commands append to."""

    def __init__(self, seat: int, addresses: list[str], folder: str, synced: bool) -> None:
        from pysyncobj import SyncObj, SyncObjConf, replicated

        class Log(SyncObj):  # type: ignore[misc]
            def __init__(self, own: str, others: list[str], conf: Any) -> None:
                self.count = 0
                super().__init__(own, others, conf)

            @replicated  # type: ignore[untyped-decorator]
            def append(self, value: bytes) -> None:
                self.count += 1

        if synced:
            _sync_appends()
        conf = SyncObjConf(
            journalFile=str(Path(folder) / f"journal-{seat}"),
            appendEntriesUseBatch=not synced,
            autoTick=not synced,
            connectionRetryTime=0.2,
        )
        others = addresses[:seat] + addresses[seat + 1 :]
        self.log = Log(addresses[seat], others, conf)
        if synced:
            threading.Thread(target=self._tick, daemon=True).start()
        end = time.monotonic() + READY_S
        while not self.log.isReady():
            if time.monotonic() > end:
                raise P2pmedError("the peer's nodes do not come together")
            time.sleep(0.01)

    def _tick(self) -> None:
        while True:
            self.log.doTick(TICK_S)

    def one(self, seconds: float) -> dict[str, Any]:
        """One append after the other."""
        times, done = [], threading.Event()
        start = time.monotonic()
        while (began := time.monotonic()) < start + seconds:
            done.clear()
            self.log.append(secrets.token_bytes(ENTRY_BYTES), callback=lambda *_: done.set())
            done.wait(ANSWER_S)
            times.append((time.monotonic() - began) * 1_000)
        return {"times": times}

    def many(self, seconds: float) -> dict[str, Any]:
        """A window of appends in flight."""
        free, count = threading.Semaphore(IN_FLIGHT), 0

        def answered(result: Any, error: int) -> None:
            nonlocal count
            count += error == 0
            free.release()

        start = time.monotonic()
        while time.monotonic() < start + seconds:
            free.acquire(timeout=ANSWER_S)
            self.log.append(secrets.token_bytes(ENTRY_BYTES), callback=answered)
        return {"count": count, "seconds": time.monotonic() - start}

    def cpu(self) -> dict[str, Any]:
        """Processor time used so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"cpu_s": used.ru_utime + used.ru_stime}


def main() -> None:
    """One node, until standard input ends."""
    seat = _Seat(**json.loads(sys.stdin.readline()))
    leader = seat.log._getLeader()
    print(json.dumps({"leads": leader == seat.log.selfNode}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(seat, question.pop("do"))(**question)), flush=True)


if __name__ == "__main__":
    main()
