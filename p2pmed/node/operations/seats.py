"""Who votes in the home ledger: joining, leaving, changing, electing.

Each writes one transaction and answers with its verdict: a change that is refused stands in the
log like any other, and the refusal says why. What a change brings is seen by ``mesh status``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.medical.elections import SEATS_DEFAULT, MeshBallot, MeshElect
from p2pmed.medical.membership import member
from p2pmed.medical.seat_changes import MeshChange, MeshJoin, MeshLeave
from p2pmed.medical.seats import keys_ahead, learners
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.lookup import find_device, submitted

__all__ = ["OPERATIONS", "describe_seats"]

CATCH_UP_POLL_S: Final = 0.2
CATCH_UP_S_MAX: Final = 3_600


def _home(node: Node) -> HomeLedger:
    home = node.replica.home
    if home is None:
        raise LocalProtocolError(
            "this node lives in no ledger yet", hint="`p2pmed mesh join LEDGER` follows it first"
        )
    return home


async def join(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Follow a ledger, catch up, and consent to a seat in it."""
    wanted = arguments.text("ledger", "", limit=64).lower()
    if node.replica.home is None:
        known = [name for name, _ in node.replica.chains.heads() if name.hex().startswith(wanted)]
        if len(known) != 1:
            raise ConfigError(
                f"{wanted!r} names {len(known)} known ledgers",
                hint="wait until a member is in sight, and see `p2pmed mesh villages`",
            )
        await node.follow(known[0])
    home = _home(node)
    if not home.ledger.hex().startswith(wanted):
        raise LocalProtocolError("this node lives in another ledger already")
    patience_s = arguments.number("patience_s", 60, low=1, high=CATCH_UP_S_MAX)
    try:
        async with asyncio.timeout(patience_s):
            while not _has_caught_up(node, home):  # noqa: ASYNC110 - no one event tells it
                await asyncio.sleep(CATCH_UP_POLL_S)
    except TimeoutError:
        raise LocalProtocolError(
            "this node has not caught up with the ledger, or the ledger not ordered its log yet",
            hint="leave it running near a member, and join again",
        ) from None
    body = MeshJoin(height=home.chain.height, digest=home.chain.head_digest)
    return {**await submitted(node, arguments, body), "ledger": home.ledger.hex()}


def _has_caught_up(node: Node, home: HomeLedger) -> bool:
    """Whether it executed all that it verified, its own credential among it."""
    verified = node.replica.chains.height(home.ledger)
    known = member(home.chain.state, node.key) is not None
    return known and home.chain.height >= verified


async def leave(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Give the own seat, or the willingness to have one, back."""
    home = _home(node)
    return await submitted(node, arguments, MeshLeave(epoch=home.epoch.number))


async def change(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Give and take seats from the next epoch on."""
    home = _home(node)
    add = [find_device(node, text) for text in arguments.texts("add", count_max=VALIDATORS_MAX)]
    gone = [find_device(node, text) for text in arguments.texts("remove", count_max=VALIDATORS_MAX)]
    seats = len(home.epoch.validators) + len(set(add)) - len(set(gone))
    most = 0 if home.founding.genesis.engine == "raft" else max(0, (seats - 1) // 3)
    body = MeshChange(
        epoch=home.epoch.number,
        add=tuple(sorted(set(add))),
        remove=tuple(sorted(set(gone))),
        liars=arguments.number("liars", min(home.epoch.liars, most), high=6),
    )
    return await submitted(node, arguments, body)


async def ballot(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Say whom this device would have vote."""
    home = _home(node)
    named = arguments.texts("approve", count_max=VALIDATORS_MAX)
    approve = tuple(sorted({find_device(node, text) for text in named}))
    return await submitted(node, arguments, MeshBallot(epoch=home.epoch.number, approve=approve))


async def elect(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Count the ballots of this epoch and seat who won."""
    home = _home(node)
    seats = arguments.number("seats", SEATS_DEFAULT, low=1, high=VALIDATORS_MAX)
    body = MeshElect(
        epoch=home.epoch.number,
        seats=seats,
        liars=arguments.number("liars", min(home.epoch.liars, (seats - 1) // 3), high=6),
    )
    return await submitted(node, arguments, body)


def describe_seats(node: Node, home: HomeLedger) -> dict[str, Any]:
    """Seats, learners and the change that is under way, for people."""
    state = home.chain.state
    seats = []
    for seat, validator in enumerate(home.epoch.validators):
        known = member(state, validator.node)
        seats.append(
            {
                "seat": seat,
                "device": validator.node.hex(),
                "name": known.name if known else None,
                "here": validator.node == node.key or validator.node in node.replica.links,
                "keys_ahead": len(keys_ahead(state, validator.node)),
            }
        )
    following = []
    for device, word in learners(state):
        known = member(state, device)
        name = known.name if known else None
        following.append({"device": device.hex(), "name": name, "standing": word})
    return {
        "epoch": home.epoch.number,
        "seat": home.seat,
        "votes": home.engine is not None,
        "vote_key_lost": node.replica.ledgers.seating.is_keyless(),
        "seats": seats,
        "learners": following,
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    "mesh.join": join,
    "mesh.leave": leave,
    "mesh.change": change,
    "mesh.ballot": ballot,
    "mesh.elect": elect,
}
