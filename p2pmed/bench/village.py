"""Several real nodes on this machine: one process each, loopback links, homes in one folder.

Rule: nothing outlives the block: every process is told to end and, if it does not, is killed by
the handle it was started with.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from p2pmed.bench.worker import PASSPHRASE
from p2pmed.errors import P2pmedError
from p2pmed.node.setup import create_network, init_home, self_enrol

__all__ = ["Process", "Village", "gather_all", "start", "village"]

WORKER: Final = "p2pmed.bench.worker"
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
WAIT_S: Final = 30.0
NODE_S: Final = 5.0
"""Waited longer for each node: a machine may have many more processes than cores."""
LOOK_S: Final = 0.05
END_S: Final = 10.0


class Process:
    """A worker at the other end of two pipes."""

    def __init__(self, process: asyncio.subprocess.Process, started: float) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.started = started
        self.ready: dict[str, Any] = {}
        """What it said when it was ready."""

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one question. Raises ``P2pmedError`` if the worker failed."""
        async with self._turn:
            await self.write({"do": do, **arguments})
            return await self.read()

    async def write(self, value: dict[str, Any]) -> None:
        """One line to the worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()

    async def read(self) -> dict[str, Any]:
        """One line from the worker."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise P2pmedError("a process that was measured ended early")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise P2pmedError(f"a process that was measured failed: {answer['error']}")
        return answer

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """Close its input and wait; kill it if it takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(module: str, settings: dict[str, Any]) -> Process:
    """Run ``module`` in a process of its own; wait until it says that it is ready."""
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=ANSWER_BYTES_MAX,
    )
    worker = Process(process, started)
    try:
        await worker.write(settings)
        worker.ready = await worker.read()
    except BaseException:
        await worker.end()
        raise
    return worker


async def gather_all(starting: Iterable[Coroutine[Any, Any, Process]]) -> list[Process]:
    """The processes in their order; if one does not start, the others are ended."""
    tasks = [asyncio.ensure_future(each) for each in starting]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Process):
                await outcome.end()
        raise


class Village:
    """Nodes of one network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._homes = 0
        self.nodes: list[Process] = []
        folder.mkdir()
        create_network(folder / "authority", "bench", PASSPHRASE, cheap=True)

    def home(self) -> Path:
        """A new enrolled home."""
        self._homes += 1
        folder = self._folder / f"clinic-{self._homes}"
        init_home(
            folder,
            name=folder.name,
            roles=["clinic"],
            place="county/village",
            passphrase=PASSPHRASE,
            cheap=True,
        )
        self_enrol(self._folder / "authority", PASSPHRASE, folder, PASSPHRASE)
        return folder

    async def open(self, home: Path) -> Process:
        """A running node in ``home``."""
        node = await start(WORKER, {"home": str(home)})
        self.nodes.append(node)
        return node

    async def grow(self, count: int) -> None:
        """Start ``count`` nodes with a patient each; all connected."""
        homes = [str(self.home()) for _ in range(count)]
        self.nodes += await gather_all(start(WORKER, {"home": home}) for home in homes)
        await self.connect()
        await self.ask_all("register")

    async def connect(self) -> None:
        """Let every node dial those before it; wait until all see each other."""
        ports = [status["port"] for status in await self.ask_all("status")]
        for index, node in enumerate(self.nodes):
            for port in ports[:index]:
                await node.ask("dial", address=f"127.0.0.1:{port}")
        others = len(self.nodes) - 1
        await self.until(lambda status: status["peers"] >= others)

    async def found(self, engine: str) -> None:
        """Found one ledger of all."""
        keys = [status["key"] for status in await self.ask_all("status")]
        await self.until(lambda status: len(set(keys) - {status["key"], *status["in_sight"]}) == 0)
        await self.nodes[0].ask("found", members=keys, engine=engine)
        await self.until(lambda status: status["ledger"] is not None)

    async def until(self, question: Any) -> None:
        """Wait until every node's status answers ``question`` with yes."""
        end = time.monotonic() + WAIT_S + NODE_S * len(self.nodes)
        while not all(question(status) for status in await self.ask_all("status")):
            if time.monotonic() > end:
                raise P2pmedError("the nodes that were to be measured do not come together")
            await asyncio.sleep(LOOK_S)

    async def ask_all(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Everybody's answer, in the order of the nodes."""
        return list(await asyncio.gather(*(node.ask(do, **arguments) for node in self.nodes)))

    async def cpu_s(self) -> float:
        """Processor time that all nodes have used so far."""
        return float(sum(status["cpu_s"] for status in await self.ask_all("status")))

    async def kill(self, node: Process) -> None:
        """Kill one node, which stays away."""
        self.nodes.remove(node)
        await node.kill()

    async def close(self, nodes: Sequence[Process] | None = None) -> None:
        """End some nodes, or all."""
        ending = list(self.nodes if nodes is None else nodes)
        self.nodes = [node for node in self.nodes if node not in ending]
        await asyncio.gather(*(node.end() for node in ending))


@asynccontextmanager
async def village(folder: Path, count: int, *, engine: str = "") -> AsyncIterator[Village]:
    """``count`` connected nodes, in one ledger if ``engine`` names one."""
    made = Village(folder)
    try:
        await made.grow(count)
        if engine:
            await made.found(engine)
        yield made
    finally:
        await made.close()
