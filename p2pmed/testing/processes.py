"""Homes run by real processes (``p2pmed run``), each on a host of its own in a ``Lan``.

They are asked over their control sockets, as the command line asks; killed, stopped and started
again as a clinic's power does it. Rule: a process that ends without having been told to is a fault
of ours, and is told; and nothing outlives ``real_mesh``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from p2pmed.errors import P2pmedError
from p2pmed.node.config import DEFAULT_PORT, Config
from p2pmed.node.setup import create_network, init_home, self_enrol
from p2pmed.testing.homes import ACCEPTS, PASSPHRASE
from p2pmed.testing.namespaces import Lan

__all__ = ["NotAsked", "NotKnown", "RealMesh", "RealNode", "Refused", "real_mesh", "until"]

READY_S: Final = 60.0
FORM_S: Final = 60.0
END_S: Final = 15.0
LOOK_S: Final = 0.1
SOCKET: Final = "control"


class NotAsked(P2pmedError):
    """The question never reached the node: nothing happened."""


class Refused(P2pmedError):
    """The node answered with an error; ``kind`` is its type."""

    def __init__(self, text: str, *, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class NotKnown(P2pmedError):
    """The question may have been carried out; no answer came."""


class RealNode:
    """One home, and its process while it runs."""

    def __init__(self, host: int, home: Path, command: list[str], more: Mapping[str, str]) -> None:
        self.host = host
        self.home = home
        self.device = ""
        self.is_paused = False
        self._command = command
        self._socket = os.path.relpath(home / SOCKET)
        """A socket's path is short by the kernel's rule."""
        self._environment = {**os.environ, "P2PMED_PASSPHRASE": PASSPHRASE, **more}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """Of its home's folder."""
        return self.home.name

    @property
    def runs(self) -> bool:
        """Whether a process is there, paused or not."""
        return self._process is not None

    async def start(self) -> None:
        """Start the process; returns when it is ready. Raises ``P2pmedError``."""
        assert self._process is None
        with (self.home / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                *(sys.executable, "-m", "p2pmed", "run", "--home", str(self.home), "--json"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                ready = json.loads(await self._process.stdout.readline())
        except (TimeoutError, ValueError):
            await self.kill()
            raise P2pmedError(f"{self.name} did not start: {self.last_words()}") from None
        self.device = ready["device"]

    def has_died(self) -> bool:
        """Whether it ended although nobody told it to."""
        return self._process is not None and self._process.returncode is not None

    def last_words(self) -> str:
        """The end of its log."""
        return (self.home / "node.log").read_text(encoding="utf-8", errors="replace")[-400:]

    async def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        self.resume()
        await self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it does nothing, and its sockets stay open."""
        self._signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.is_paused:
            self._signal(signal.SIGCONT)
        self.is_paused = False

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self.is_paused = False
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def ask(self, operation: str, seconds: float, **values: Any) -> dict[str, Any]:
        """One operation, over the control socket.

        Raises ``NotAsked`` (nothing happened), ``NotKnown`` (it may have) or ``Refused``.
        """
        connector = aiohttp.UnixConnector(path=self._socket)
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(f"http://node/v1/{operation}", json=values) as response,
            ):
                async for raw in response.content:
                    line = json.loads(raw)
                    if "result" in line:
                        return dict(line["result"])
                    if "error" in line:
                        raise Refused(line["error"], kind=line["type"])
        except aiohttp.ClientConnectorError as error:
            raise NotAsked(f"{self.name} does not listen") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NotKnown(f"{self.name} did not answer ({type(error).__name__})") from error
        raise NotKnown(f"{self.name} closed before it answered")


class RealMesh:
    """The nodes of one ledger; made by ``real_mesh``."""

    def __init__(self, folder: Path, lan: Lan, more: Mapping[str, str]) -> None:
        self.lan = lan
        self.ledger = b""
        authority = folder / "authority"
        self.network = create_network(authority, "a network for tests", PASSPHRASE, cheap=True)
        self.nodes = [self._node(folder, authority, host, more) for host in range(lan.count)]

    def _node(self, folder: Path, authority: Path, host: int, more: Mapping[str, str]) -> RealNode:
        home = folder / f"clinic-{host + 1}"
        others = (self.lan.address(other) for other in range(self.lan.count) if other != host)
        config = Config(
            host=self.lan.address(host),
            discovery=False,
            peers=tuple(f"{address}:{DEFAULT_PORT}" for address in others),
            mesh=ACCEPTS,
        )
        init_home(
            home,
            name=home.name,
            roles=["clinic"],
            place="county/village",
            passphrase=PASSPHRASE,
            config=config,
            cheap=True,
        )
        self_enrol(authority, PASSPHRASE, home, PASSPHRASE)
        return RealNode(host, home, self.lan.command(host), more)

    async def found(self, engine: str) -> None:
        """Start everybody and found a ledger of all."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        first, others = self.nodes[0], [node.device for node in self.nodes[1:]]

        async def try_it() -> bool:
            with suppress(P2pmedError):
                answer = await first.ask("mesh.found", 15, members=others, engine=engine)
                self.ledger = bytes.fromhex(answer["ledger"])
            return bool(self.ledger)

        await until(try_it, "a mesh founded")

        async def all_in() -> bool:
            told = [await self.status(node) for node in self.nodes]
            return all(status.get("ledger") == self.ledger.hex() for status in told)

        await until(all_in, "everybody in the mesh")

    async def status(self, node: RealNode) -> dict[str, Any]:
        """What a node says of itself; empty if it does not answer."""
        with suppress(P2pmedError):
            return await node.ask("general.status", 10)
        return {}

    async def settle(self, seconds: float = FORM_S) -> None:
        """Heal all, start whoever is down, and wait until everybody has ordered everything.

        Raises ``TimeoutError`` if that does not happen.
        """
        self.lan.heal()
        for node in self.nodes:
            node.resume()
        down = [node for node in self.nodes if not node.runs]
        await asyncio.gather(*(node.start() for node in down))

        async def is_settled() -> bool:
            told = [await self.status(node) for node in self.nodes]
            if not all(told) or any(status["pending"] for status in told):
                return False
            same = ("entries", "height", "state_root")
            return len({tuple(status[name] for name in same) for status in told}) == 1

        await until(is_settled, "everything ordered everywhere", seconds)

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(*(node.stop() for node in self.nodes))


async def until(question: Any, what: str, seconds: float = FORM_S) -> None:
    """Ask ``question`` until it is answered yes. ``TimeoutError`` names ``what`` was awaited."""
    end = time.monotonic() + seconds
    while not await question():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def real_mesh(
    folder: Path, lan: Lan, engine: str, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[RealMesh]:
    """A ledger of as many nodes as ``lan`` has hosts, with their homes in ``folder``.

    ``environment`` is added to the processes' own, such as ``PYTHONPATH`` for an application that
    registers types of its own. Raises ``P2pmedError`` or ``TimeoutError`` if they do not start.
    """
    mesh = RealMesh(folder, lan, environment or {})
    try:
        await mesh.found(engine)
        yield mesh
    finally:
        await mesh.close()
