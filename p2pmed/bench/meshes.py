"""Several nodes: delivery, and what an idle mesh costs.

Rule: real processes on loopback, homes on this disk, everything signed, checked and flushed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from p2pmed.bench.machine import Machine
from p2pmed.bench.results import Result, median_of, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.village import village

__all__ = ["gossip_bench", "idle_bench"]


async def gossip_bench(machine: Machine, size: Size) -> list[Result]:
    """Every node writes; everybody checks and stores what all others wrote."""
    nodes = size.nodes
    async with village(machine.folder / "gossip", nodes) as mesh:
        await mesh.ask_all("listen")
        dripped = await mesh.nodes[0].ask("drip", total=40, pause_s=size.load_s / 80)
        await asyncio.sleep(0.2)
        begun = {(author, seq): at for author, seq, at in dripped["begun"]}
        delays = [
            (at - begun[author, seq]) * 1_000
            for heard in (await mesh.ask_all("heard"))[1:]
            for author, seq, at in heard["arrivals"]
            if (author, seq) in begun
        ]
        entries = (await mesh.nodes[0].ask("status"))["entries"] + nodes * size.gossip
        before = await mesh.cpu_s()
        filling = mesh.ask_all("fill", total=size.gossip, batch=size.batch, clients=size.clients)
        filled = await filling
        stored = await mesh.ask_all("stored", entries=entries, seconds=120.0)
        cpu_s = await mesh.cpu_s() - before
    deliveries = nodes * (nodes - 1) * size.gossip
    seconds = max(each["at"] for each in stored) - min(each["start"] for each in filled)
    written = machine.write_us / (nodes - 1)
    return [
        Result(
            name=f"gossip {nodes}: deliveries, checked and durable",
            value=deliveries / seconds,
            unit="/s",
            limit=machine.cpus * 1e6 / (machine.ingest_us + written),
            limit_name="check + store on all cores",
            goal=">= 15,000/s",
            details={
                "lost": nodes * entries - sum(each["entries"] for each in stored),
                "cpu_us": round(cpu_s / deliveries * 1e6),
            },
        ),
        *(
            Result(
                name=f"gossip {nodes}: delivery, one in flight, p{share}",
                value=percentile(delays, share),
                unit="ms",
                limit=2_000 / machine.flush + (machine.ingest_us + machine.write_us) / 1_000,
                limit_name="two flushes, write and check",
                details={"samples": len(delays)},
            )
            for share in (50, 99)
        ),
    ]


async def idle_bench(machine: Machine, size: Size) -> list[Result]:
    """A mesh with nothing to do: memory, bytes, processor and disk of each node."""
    nodes = size.nodes
    async with village(machine.folder / "idle", nodes, engine="bft") as mesh:
        await asyncio.sleep(1.0)
        before = await mesh.ask_all("status")
        await asyncio.sleep(size.idle_s)
        after = await mesh.ask_all("status")
    seconds = size.idle_s

    def each(name: str) -> list[float]:
        return [(b[name] - a[name]) / seconds for a, b in zip(before, after, strict=True)]

    def result(name: str, values: list[Any], unit: str, goal: str) -> Result:
        value = median_of(values)
        return Result(name=f"idle {nodes}: {name}", value=value, unit=unit, goal=goal)

    return [
        result("memory", [status["rss_mb"] for status in after], "MB", "<= 80 MB"),
        result("sent and received", each("tcp_bytes"), "B/s", "<= 600 B/s"),
        result("processor", [100 * used for used in each("cpu_s")], "%", "<= 0.5 %"),
        result("blocks", each("height"), "blocks a second", "0"),
        result("written to disk", each("written_bytes"), "B/s", "0 flushes"),
    ]
