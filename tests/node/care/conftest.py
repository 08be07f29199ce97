"""Real homes without a network, sticks to carry entries between them, and a thief's copies."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pmed.node.node import Node, open_node
from p2pmed.node.setup import create_network, init_home, self_enrol

sys.path.append(str(Path(__file__).parent))  # raw_copy.py, which other tests extend

PASSPHRASE = "for these tests only"


@pytest.fixture(scope="session")
def care_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network for all tests: making its keys costs the most."""
    folder = tmp_path_factory.mktemp("care") / "authority"
    create_network(folder, "Shan", PASSPHRASE, cheap=True)
    return folder


@pytest.fixture
async def opened_at(care_authority: Path, tmp_path: Path) -> AsyncIterator[Any]:
    """Open a new home of ``name``, role and place; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(name: str, role: str = "clinic", place: str = "shan/mu") -> Node:
            home = tmp_path / name
            init_home(home, name=name, roles=[role], place=place, passphrase=PASSPHRASE, cheap=True)
            self_enrol(care_authority, PASSPHRASE, home, PASSPHRASE)
            return await stack.enter_async_context(
                open_node(home, passphrase=PASSPHRASE, network=False)
            )

        yield make


@pytest.fixture
def meet() -> Callable[..., Awaitable[None]]:
    """Take everything that some nodes have to all of them, as sticks would."""

    async def exchange(*nodes: Node) -> None:
        for source in nodes:
            for lane, next_seq in source.replica.logs.frontier():
                for target in nodes:
                    have = target.replica.logs.next_seq(lane)
                    raws = source.replica.logs.read(lane, have, next_seq, bytes_max=2**30)
                    if target is not source and raws:
                        await target.import_entries(raws)
        for node in nodes:
            await node.catch_up()

    return exchange
