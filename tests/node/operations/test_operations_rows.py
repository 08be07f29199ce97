"""Reading an application's own rows over the control socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from p2pmed import View, Wire
from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.medical import Act, Kind
from p2pmed.node.operations import Arguments, operations
from p2pmed.testing.homes import local_network

Ask = Callable[..., Awaitable[dict[str, Any]]]


class Note(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A word under a name."""

    name: str
    word: str


NOTE = Kind(
    name="rows.note",
    body=Note,
    check=lambda act, view: None,
    apply=lambda act, view: _apply(act, view),
)


def _apply(act: Act[Note], view: View) -> None:
    view.put(b"x/rows.note/" + act.body.name.encode(), act.body.word.encode())


async def test_a_linearizable_read_at_another_node_shows_what_is_final(ask: Ask) -> None:
    """What one node called final, the next read with a barrier at any node shows."""
    async with local_network("clinic", "clinic", kinds=[NOTE]) as network:
        await network.found_mesh(engine="raft")
        one, other = network.nodes
        for word in ("first", "second", "third"):
            await (await one.submit(Note(name="n", word=word))).final(timeout=10)
            told = await ask(other, "rows.read", key="x/rows.note/n", wait_s=10)
            assert bytes.fromhex(told["value"]).decode() == word
        assert (await ask(one, "rows.read", key="x/rows.note/none"))["value"] is None


async def test_other_rows_and_reads_without_a_ledger_are_refused(
    opened: Callable[..., Awaitable[Any]],
) -> None:
    """Members, patients and rules are no rows to be read; a barrier needs a seat."""
    node = await opened()
    read = operations()["rows.read"]
    with pytest.raises(ConfigError, match="x/"):
        await read(node, Arguments({"key": "m/anything"}), lambda progress: None)
    with pytest.raises(LocalProtocolError):
        await read(node, Arguments({"key": "x/a", "wait_s": 1}), lambda progress: None)
