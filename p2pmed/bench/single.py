"""One node, or one and a newcomer: submitting, opening, catching up, carrying by hand."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from p2pmed.bench.machine import Machine
from p2pmed.bench.results import Result, median_of, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.village import Process, Village, village

__all__ = ["bundle_bench", "catch_up_bench", "import_bench", "open_bench", "submit_bench"]

FILL_BATCH: Final = 256


async def import_bench(machine: Machine, size: Size) -> list[Result]:
    """``import p2pmed``, and all that an open node needs, in fresh processes."""
    return [
        Result(
            name="import p2pmed",
            value=await _import_ms("p2pmed", size.imports),
            unit="ms",
            goal="<= 150 ms",
        ),
        Result(
            name="import all of a node",
            value=await _import_ms("p2pmed.node.node", size.imports),
            unit="ms",
        ),
    ]


async def _import_ms(module: str, runs: int) -> float:
    """Milliseconds that importing ``module`` takes a fresh interpreter: the median of some."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter()-t)"
    found = []
    for _ in range(runs):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        found.append(float(said) * 1_000)
    return median_of(found)


async def submit_bench(machine: Machine, size: Size) -> list[Result]:
    """``submit()`` on one node: durable on return."""
    results = []
    async with village(machine.folder / "submit", 1) as mesh:
        node = mesh.nodes[0]
        for clients in (1, 64):
            before = (await node.ask("status"))["cpu_s"]
            answer = await node.ask("submit", seconds=size.load_s / 2, clients=clients)
            cpu_s = (await node.ask("status"))["cpu_s"] - before
            results += _submitted(machine, clients, answer, cpu_s)
    return results


def _submitted(
    machine: Machine, clients: int, answer: dict[str, Any], cpu_s: float
) -> list[Result]:
    times = answer["times"]
    flushes = machine.flush * clients
    bound = min(1e6 / machine.write_us, flushes)
    rate = Result(
        name=f"submit, {clients} in flight",
        value=len(times) / answer["seconds"],
        unit="tx/s",
        limit=bound,
        limit_name="flush" if bound == flushes else "sign + encode + store",
        goal=">= 0.6 of the limit" if clients > 1 else "",
        details={"cpu_us": round(cpu_s / max(1, len(times)) * 1e6)},
    )
    shares = [
        Result(
            name=f"submit, {clients} in flight, p{share}",
            value=percentile(times, share),
            unit="ms",
            limit=1_000 / machine.flush,
            limit_name="one flush",
            goal="<= 2 flushes" if clients == 1 and share == 50 else "",
        )
        for share in (50, 99)
    ]
    return [rate, *shares]


async def _fill(node: Process, total: int) -> None:
    await node.ask("fill", total=total, batch=min(FILL_BATCH, total), clients=2)


async def open_bench(machine: Machine, size: Size) -> list[Result]:
    """Opening a home with many transactions."""
    async with village(machine.folder / "open", 1) as mesh:
        await _fill(mesh.nodes[0], size.stored)
        home = machine.folder / "open" / "clinic-1"
        await mesh.close()
        node = await mesh.open(home)
        status = await node.ask("status")
        return [
            Result(
                name=f"open a home of {status['entries']:,} transactions",
                value=node.ready["ready_s"] * 1_000,
                unit="ms",
                goal="<= 1 s of 100,000",
                details={"process_ms": round((node.ready["at"] - node.started) * 1_000)},
            ),
            Result(name="memory when opened", value=status["rss_mb"], unit="MB"),
        ]


async def catch_up_bench(machine: Machine, size: Size) -> list[Result]:
    """A newcomer fetches everything from one peer."""
    async with village(machine.folder / "catch-up", 1) as mesh:
        await _fill(mesh.nodes[0], size.stored)
        old = await mesh.nodes[0].ask("status")
        fresh = await mesh.open(mesh.home())
        rss = (await fresh.ask("status"))["rss_mb"]
        before = await mesh.cpu_s()
        start = time.monotonic()
        await fresh.ask("dial", address=f"127.0.0.1:{old['port']}")
        stored = await fresh.ask("stored", entries=old["entries"] + 1, seconds=600.0)
        cpu_s = await mesh.cpu_s() - before
    seconds = stored["at"] - start
    steps = [(at - start, have) for at, have in stored["steps"]]
    return [
        Result(
            name=f"catch-up of {size.stored:,} transactions",
            value=size.stored / seconds,
            unit="tx/s",
            limit=1e6 / machine.ingest_us,
            limit_name="check + store on one core",
            goal=">= 0.75 of the limit",
            details={
                "seconds": round(seconds, 2),
                "cpu_us_both_nodes": round(cpu_s / size.stored * 1e6),
                "memory_grew_mb": round(stored["rss_mb"] - rss, 1),
                "last_to_first_tenth": _evenness(steps, size.stored, seconds),
            },
        )
    ]


def _evenness(steps: list[tuple[float, int]], total: int, seconds: float) -> float | None:
    """Speed of the last tenth over that of the first; 1 is even. ``None``: too few samples."""
    first = next((at for at, have in steps if have >= total / 10), None)
    last = next((at for at, have in steps if have >= total * 9 / 10), None)
    if not first or last is None or seconds <= last:
        return None
    return round(first / (seconds - last), 2)


async def bundle_bench(machine: Machine, size: Size) -> list[Result]:
    """The same by stick: written by one node, taken in by another."""
    async with village(machine.folder / "bundle", 1) as mesh:
        return await _carried(machine, size, mesh)


async def _carried(machine: Machine, size: Size, mesh: Village) -> list[Result]:
    path = str(machine.folder / "bundle" / "stick.p2pmed")
    await _fill(mesh.nodes[0], size.stored)
    entries = (await mesh.nodes[0].ask("status"))["entries"]
    written = await mesh.nodes[0].ask("export", path=path)
    fresh = await mesh.open(mesh.home())
    taken = await fresh.ask("take_in", path=path)
    return [
        Result(
            name=f"bundle export of {entries:,} transactions",
            value=entries / written["seconds"],
            unit="tx/s",
            details={"bytes": written["bytes"]},
        ),
        Result(
            name="bundle import",
            value=entries / taken["seconds"],
            unit="tx/s",
            limit=1e6 / machine.ingest_us,
            limit_name="check + store on one core",
            details={"entries": taken["entries"]},
        ),
    ]
