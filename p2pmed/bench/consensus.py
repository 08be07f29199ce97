"""Throughput, processor time, latency and the loss of a leader, for each engine and size.

Rule: real processes on loopback, homes on this disk; every transaction signed, checked by every
node, flushed and final before it counts. A mesh may have more processes than the machine has
cores; then only the processor time of a transaction says something of the software, and the
details say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Final

from p2pmed.bench.machine import Machine
from p2pmed.bench.results import Result, load_average, median_of, percentile
from p2pmed.bench.size import Size
from p2pmed.bench.skeleton import Skeleton, run_skeleton
from p2pmed.bench.village import Village, village

__all__ = ["consensus_bench", "longest_silence"]

SKELETON_BLOCK: Final = 256
PEER: Final = "pysyncobj"
PEER_NODES: Final = 3
RECOVERY_NODES_MIN: Final = 3
KILLS_MAX: Final = 3
BEFORE_S: Final = 0.5


async def consensus_bench(machine: Machine, size: Size) -> list[Result]:
    """Each engine and size of ``size.meshes``, beside a skeleton with as many processes."""
    results = []
    for engine, nodes in size.meshes:
        results += await _measured(machine, size, engine, nodes)
        if (engine, nodes) == ("raft", PEER_NODES) and find_spec(PEER) is not None:
            from p2pmed.bench.peer import peer_bench

            results += await peer_bench(machine, size)
    return results


async def _measured(machine: Machine, size: Size, engine: str, nodes: int) -> list[Result]:
    half = size.load_s / 2
    load = load_average()
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
        silences = await _recovery(mesh, size.watch_s) if nodes >= RECOVERY_NODES_MIN else []
    what = f"{engine} {nodes}"
    details = {
        "in_flight": nodes * size.clients * size.batch,
        "blocks": blocks,
        "processes_a_core": round(nodes / machine.cpus, 1),
        "load_before": load,
        "cpu_bound": round(machine.cpus * 1e6 / many.cpu_us),
    }
    times = [time for each in loaded for time in each["times"]]
    submitted = len(times) * size.batch
    return [
        Result(
            name=f"{what}: many in flight",
            value=submitted / max(each["seconds"] for each in loaded),
            unit="tx/s",
            limit=many.per_second,
            limit_name="skeleton",
            goal=f">= {'0.65' if nodes > 4 else '0.70'} of the skeleton",
            details=details,
        ),
        _processor(what, cpu_s / max(1, submitted) * 1e6, nodes, many),
        *_latency(f"{what}: finality, many in flight", times, many),
        *_latency(f"{what}: finality, one in flight", alone["times"], one, engine),
        *_lost(what, silences),
    ]


def _processor(what: str, cpu_us: float, nodes: int, skeleton: Skeleton) -> Result:
    return Result(
        name=f"{what}: processor time a transaction, all nodes",
        value=cpu_us,
        unit="us",
        limit=skeleton.cpu_us,
        limit_name="skeleton",
        details={"a_node": round(cpu_us / nodes)},
    )


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


def _lost(what: str, silences: Sequence[float]) -> list[Result]:
    """Results about killed leaders; none where no leader can be lost."""
    if not silences:
        return []
    return [
        Result(
            name=f"{what}: longest wait after the leader was killed",
            value=median_of(silences) * 1_000,
            unit="ms",
            details={"kills": len(silences), "worst": round(max(silences) * 1_000)},
        )
    ]


async def _recovery(mesh: Village, seconds: float) -> list[float]:
    """Kill leaders one after the other, as many as may be lost; seconds without finality each.

    The killed stay away, so each further mesh is a worse one.
    """
    found = []
    for _ in range(min(KILLS_MAX, (len(mesh.nodes) - 1) // 3 or 1)):
        told = await mesh.ask_all("status")
        leader = next((i for i, status in enumerate(told) if status["leads"]), 1)
        killed = mesh.nodes[leader]
        watcher = mesh.nodes[0 if leader else 1]
        watching = asyncio.create_task(watcher.ask("watch", seconds=BEFORE_S + seconds))
        await asyncio.sleep(BEFORE_S)
        at = time.monotonic()
        await mesh.kill(killed)
        found.append(longest_silence((await watching)["ended"], at))
    return found


def longest_silence(ended: Sequence[float], since: float) -> float:
    """The longest time from ``since`` on in which nothing became final; all in seconds.

    A client that waits for one thing at a time ends with something final, so ``ended`` is not
    empty. 0 if it ended before ``since``.
    """
    after = [since, *(instant for instant in ended if instant > since)]
    return max((b - a for a, b in pairwise(after)), default=0.0)


async def _heights(mesh: Village) -> list[int]:
    return [status["height"] for status in await mesh.ask_all("status")]
