"""Real homes, opened without network: two that know each other, and a way to carry entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pmed.node.node import Node, open_node
from p2pmed.node.operations import Arguments, operations
from p2pmed.node.setup import create_network, init_home, self_enrol

PASSPHRASE = "for these tests only"
Open = Callable[..., Awaitable[Node]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network for all tests: making its keys costs the most."""
    folder = tmp_path_factory.mktemp("network") / "authority"
    create_network(folder, "Shan", PASSPHRASE, cheap=True)
    return folder


@pytest.fixture
def make_home(authority: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make an enrolled home."""

    def make(name: str = "Mu clinic", role: str = "clinic") -> Path:
        home = tmp_path / name.replace(" ", "-")
        init_home(home, name=name, roles=[role], place="shan/mu", passphrase=PASSPHRASE, cheap=True)
        self_enrol(authority, PASSPHRASE, home, PASSPHRASE)
        return home

    return make


@pytest.fixture
async def opened(make_home: Callable[..., Path]) -> AsyncIterator[Open]:
    """Open a new home's node; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(name: str = "Mu clinic", role: str = "clinic") -> Node:
            home = make_home(name, role)
            return await stack.enter_async_context(
                open_node(home, passphrase=PASSPHRASE, network=False)
            )

        yield make


@pytest.fixture
def ask() -> Callable[..., Awaitable[dict[str, Any]]]:
    """Carry out an operation, as the command line does."""

    async def call(node: Node, operation: str, **values: Any) -> dict[str, Any]:
        return await operations()[operation](node, Arguments(values), lambda progress: None)

    return call


@pytest.fixture
def carry() -> Callable[..., Awaitable[None]]:
    """Take everything that some nodes have to all of them, as sticks would."""

    async def exchange(*nodes: Node) -> None:
        for source in nodes:
            for lane, next_seq in source.replica.logs.frontier():
                for target in nodes:
                    have = target.replica.logs.next_seq(lane)
                    raws = source.replica.logs.read(lane, have, next_seq, bytes_max=2**30)
                    if target is not source and raws:
                        await target.import_entries(raws)

    return exchange
