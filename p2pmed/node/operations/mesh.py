"""Meshes: founding by the operator's word, following, seeing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from p2pmed.errors import ConfigError
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.seats import describe_seats

__all__ = ["OPERATIONS"]

ENGINES: Final = ("bft", "raft")


async def found(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Found a ledger with the named devices; alone if none is named."""
    engine = arguments.text("engine", "bft", limit=8)
    if engine not in ENGINES:
        raise ConfigError(f"engine: one of {', '.join(ENGINES)} is needed")
    members = [_device(node, text) for text in arguments.texts("members", count_max=20)]
    ledger = await node.found_mesh(
        members,
        engine=cast('Literal["bft", "raft"]', engine),
        name=arguments.text("name", "mesh", limit=64),
        patience_s=arguments.number("patience_s", 10, low=1, high=3_600),
        successor=_succeeds(node, arguments.text("successor_of", "", limit=64)),
    )
    return {"ledger": ledger.hex(), "members": len(members) + 1, "engine": engine}


def _succeeds(node: Node, wanted: str) -> bool:
    """Whether a successor is asked for; the operator names the ledger that is given up."""
    if not wanted:
        return False
    if node.ledger is None or len(wanted) < 4 or not node.ledger.hex().startswith(wanted.lower()):
        raise ConfigError(
            f"{wanted!r} is not the ledger in which this node lives",
            hint="give at least four digits of the id that `p2pmed status` shows",
        )
    return True


def _device(node: Node, text: str) -> bytes:
    """A connected device by its key in hex, or by the first digits of it."""
    found = [peer for peer in node.replica.links if peer.hex().startswith(text.lower())]
    if len(found) != 1 or len(text) < 4:
        raise ConfigError(
            f"{text!r} names {len(found)} connected devices",
            hint="give at least four digits of a key that `p2pmed peers` shows",
        )
    return found[0]


async def follow(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take a known ledger as the home ledger, without a seat."""
    wanted = arguments.text("ledger", limit=64).lower()
    known = [name for name, _ in node.replica.chains.heads() if name.hex().startswith(wanted)]
    if len(known) != 1:
        raise ConfigError(
            f"{wanted!r} names {len(known)} known ledgers", hint="see `p2pmed status`"
        )
    await node.follow(known[0])
    return {"ledger": known[0].hex()}


async def resume(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Let a restored home vote again."""
    was_muted = node.replica.identity.muted
    await node.resume_voting()
    return {"was_muted": was_muted, "muted": node.replica.identity.muted}


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The home ledger: epoch, seats, learners, height, engine."""
    home = node.replica.home
    if home is None:
        return {"ledger": None}
    return {
        "ledger": home.ledger.hex(),
        "name": home.founding.genesis.name,
        "engine": home.founding.genesis.engine,
        "liars": home.epoch.liars,
        "quorum": home.epoch.quorum,
        "height": home.chain.height,
        "time_ms": home.chain.time_ms,
        "muted": node.replica.identity.muted,
        "abstains": 0 if home.engine is None else home.engine.status().get("abstains", 0),
        **describe_seats(node, home),
    }


async def offers(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Foundings that others offered and nobody here has answered."""
    rows = [
        {
            "proposer": proposer.hex(),
            "name": genesis.name,
            "engine": genesis.engine,
            "members": len(genesis.validators),
        }
        for proposer, genesis in node.mesh_offers()
    ]
    return {"offers": rows}


async def accept(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Sign the founding that a device offered; answered when the ledger exists."""
    ledger = await node.accept_mesh(_device(node, arguments.text("proposer", limit=64)))
    return {"ledger": ledger.hex()}


async def villages(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The ledgers that this node carries, and how far a county has executed each."""
    return {"villages": node.replica.village_progress()}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "mesh.found": found,
    "mesh.offers": offers,
    "mesh.accept": accept,
    "mesh.follow": follow,
    "mesh.resume": resume,
    "mesh.show": show,
    "mesh.villages": villages,
}
