"""Real nodes in a temporary folder, on loopback: for examples and for an embedder's own tests.

Rule: nothing outlives the block. Keys are new, homes are real (SQLite, sealed keystores), links
are real sockets between typed addresses on 127.0.0.1; mDNS is off, so that two test runs on one
machine never meet. For virtual time, partitions and power cuts use ``Simulation`` instead.

>>> async def test_my_application():
...     async with local_network("clinic", "clinic", "pharmacy") as network:
...         await network.found_mesh()
...         receipt = await network.nodes[0].submit(...)
...         await receipt.final(timeout=5)

Failure table: a wait that does not end raises ``TimeoutError`` that says for what; cancelling,
or an error in the block, closes every node and removes the folder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from p2pmed.aio.loop import run
from p2pmed.errors import LocalProtocolError
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.medical.registry import Kind
from p2pmed.node.config import Config
from p2pmed.node.node import Node, open_node
from p2pmed.node.setup import create_network, init_home, self_enrol
from p2pmed.sync.founding import MeshPolicy

__all__ = ["PASSPHRASE", "LocalNetwork", "local_network", "run", "until"]

PASSPHRASE: Final = "for tests and examples only"  # noqa: S105 (opens nothing that lasts)
"""Opens every home of a local network."""
WAIT_S: Final = 15.0
"""How long ``in_sight``, ``found_mesh`` and ``until`` wait; loopback needs a hundredth of it."""
LOOK_S: Final = 0.02

ACCEPTS: Final = MeshPolicy(auto=True, size=VALIDATORS_MAX, roles=(), follow=False)
"""Signs a founding that names it; never proposes one, never follows a ledger by itself."""


async def until(question: Callable[[], bool], what: str, *, seconds: float = WAIT_S) -> None:
    """Ask ``question`` until it is answered yes. ``TimeoutError`` names ``what`` was awaited."""
    end = time.monotonic() + seconds
    while not question():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        await asyncio.sleep(LOOK_S)


class LocalNetwork:
    """One authority, its homes, and the nodes that run in them; made by ``local_network``."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        """Temporary; holds the authority's folder and every home."""
        self.nodes: list[Node] = []
        """Running nodes, in the order of opening."""
        self._stack = stack
        self._homes = 0
        self._authority = folder / "authority"
        create_network(self._authority, "a network for tests", PASSPHRASE, cheap=True)

    def home(
        self,
        role: str,
        *,
        name: str = "",
        place: str = "county/village",
        delegate: Iterable[str] = (),
    ) -> Path:
        """A new enrolled home, ready for ``open`` or ``p2pmed.open_node(home, PASSPHRASE)``.

        ``delegate`` names roles that it may issue credentials for. Raises ``ConfigError``.
        """
        self._homes += 1
        folder = self.folder / f"{self._homes:02d}-{role}"
        called = name or f"{role} {self._homes}"
        init_home(folder, name=called, roles=[role], place=place, passphrase=PASSPHRASE, cheap=True)
        self_enrol(self._authority, PASSPHRASE, folder, PASSPHRASE, delegate=tuple(delegate))
        return folder

    async def open(
        self,
        home: Path,
        *,
        kinds: Iterable[Kind[Any]] = (),
        app: Any = None,
        mesh: MeshPolicy = ACCEPTS,
        connect: bool = True,
    ) -> Node:
        """Open a node on a free port; it dials every node opened before, unless told not to.

        With ``app`` the port is your application's: dial the node once the application runs.
        """
        peers = tuple(f"127.0.0.1:{node.port}" for node in self.nodes if node.port)
        config = Config(
            host="127.0.0.1", port=0, discovery=False, mesh=mesh, peers=peers if connect else ()
        )
        node = await self._stack.enter_async_context(
            open_node(home, passphrase=PASSPHRASE, kinds=kinds, config=config, app=app)
        )
        self.nodes.append(node)
        return node

    async def in_sight(self, *nodes: Node) -> None:
        """Wait until all ``nodes`` (or every node) are connected, and each knows who is who."""
        named = nodes or tuple(self.nodes)
        await until(lambda: all(_knows(node, named) for node in named), "everybody in sight")

    async def found_mesh(
        self,
        *nodes: Node,
        engine: Literal["bft", "raft"] = "bft",
        liars: int | None = None,
        name: str = "mesh",
    ) -> bytes:
        """Found a ledger of ``nodes`` (or of every node) and wait until all live in it; its id."""
        named = nodes or tuple(self.nodes)
        if not named:
            raise LocalProtocolError("no node to found a mesh with")
        await self.in_sight(*named)
        members = [node.key for node in named]
        ledger = await named[0].found_mesh(members, engine=engine, liars=liars, name=name)
        await until(lambda: all(node.ledger == ledger for node in named), "everybody in the mesh")
        return ledger


def _knows(node: Node, others: tuple[Node, ...]) -> bool:
    """Whether ``node`` has a link to each of ``others`` and has read the opening of its log."""
    if node.ledger is not None:  # it has stopped looking for founders
        return all(other is node or other.key in node.replica.links for other in others)
    in_sight = node.replica.formation.in_sight
    return all(other.key in in_sight for other in others)


@asynccontextmanager
async def local_network(
    *roles: str, place: str = "county/village", kinds: Iterable[Kind[Any]] = ()
) -> AsyncIterator[LocalNetwork]:
    """A network in a temporary folder with one running node per role, all dialling each other.

    Roles are the credential's: ``clinic``, ``pharmacy``, ``hospital``, ``county``, ``insurer``...
    ``kinds`` are transaction types of your own, registered in every node. Without roles nothing
    runs yet: use ``home`` and ``open``. Leaving closes all and removes the folder.
    """
    own = tuple(kinds)
    with TemporaryDirectory(prefix="p2pmed-") as folder:
        async with AsyncExitStack() as stack:
            network = LocalNetwork(Path(folder), stack)
            for role in roles:
                await network.open(network.home(role, place=place), kinds=own)
            yield network
