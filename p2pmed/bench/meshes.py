"""Several nodes: finality, delivery, and what an idle mesh costs.

Rule: real processes on loopback, homes on this disk, everything signed, checked and flushed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from p2pmed.bench.machine import Machine
from p2pmed.bench.results import Result, median_of, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.skeleton import Skeleton, run_skeleton
from p2pmed.bench.village import Village, village

__all__ = ["consensus_bench", "gossip_bench", "idle_bench"]

SKELETON_BLOCK: Final = 256


async def consensus_bench(machine: Machine, size: Size) -> list[Result]:
    """Throughput and finality of each engine, beside a skeleton with as many processes."""
    results = []
    for engine, nodes in size.meshes:
        results += await _consensus(machine, size, engine, nodes)
    return results


async def _consensus(machine: Machine, size: Size, engine: str, nodes: int) -> list[Result]:
    half = size.load_s / 2
    one = await run_skeleton(engine, nodes, size=1, seconds=half)
    many = await run_skeleton(engine, nodes, size=SKELETON_BLOCK, seconds=half)
    async with village(machine.folder / f"{engine}-{nodes}", nodes, engine=engine) as mesh:
        # The first transaction waits for the first leader: not what is measured here.
        await mesh.nodes[0].ask("finality", seconds=0.001, clients=1, batch=1)
        alone = await mesh.nodes[0].ask("finality", seconds=half, clients=1, batch=1)
        before, start = await mesh.cpu_s(), await _heights(mesh)
        loaded = await mesh.ask_all(
            "finality", seconds=size.load_s, clients=size.clients, batch=size.batch
        )
        cpu_s = await mesh.cpu_s() - before
        blocks = max(await _heights(mesh)) - min(start)
    what = f"{engine} {nodes}"
    submitted = sum(len(each["times"]) for each in loaded) * size.batch
    cpu_us = cpu_s / max(1, submitted) * 1e6
    goal = "0.65" if nodes > 4 else "0.70"
    details = {
        "in_flight": nodes * size.clients * size.batch,
        "blocks": blocks,
        "cpu_us_per_node": round(cpu_us / nodes),
        "skeleton_cpu_us": round(many.cpu_us),
        "cpu_bound": round(machine.cpus * 1e6 / many.cpu_us),
    }
    first = Result(
        name=f"{what}: many in flight",
        value=sum(each["done"] for each in loaded) / size.load_s,
        unit="tx/s",
        limit=many.per_second,
        limit_name="skeleton",
        goal=f">= {goal} of the skeleton",
        details=details,
    )
    cpu = Result(
        name=f"{what}: processor time a transaction, all nodes",
        value=cpu_us,
        unit="us",
        limit=many.cpu_us,
        limit_name="skeleton",
    )
    times = [time for each in loaded for time in each["times"]]
    return [
        first,
        cpu,
        *_latency(f"{what}: finality, many in flight", times, many),
        *_latency(f"{what}: finality, one in flight", alone["times"], one, engine),
    ]


def _latency(
    name: str, times: Sequence[float], skeleton: Skeleton, engine: str = ""
) -> list[Result]:
    goals = {"bft": ("<= 5 ms", "<= 20 ms"), "raft": ("<= 2 ms", "")}.get(engine, ("", ""))
    return [
        Result(
            name=f"{name}, p{share}",
            value=percentile(times, share),
            unit="ms",
            limit=percentile(skeleton.times, share),
            limit_name="skeleton",
            goal=goal,
            details={"samples": len(times)},
        )
        for share, goal in zip((50, 99), goals, strict=True)
    ]


async def _heights(mesh: Village) -> list[int]:
    return [status["height"] for status in await mesh.ask_all("status")]


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
