"""A village whose seats changed three times, on real disks; the last seal is final by a tail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from p2pmed.consensus.bft.messages import Vote, Votes, decode_message, encode_message
from p2pmed.consensus.interface import ConsensusEvent, Receive
from p2pmed.ledger.epochs import next_epoch_of
from p2pmed.medical.drugs import Commission, Dispense
from p2pmed.medical.seat_changes import MeshChange, MeshJoin
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.node import Node
from p2pmed.node.proving import prove
from p2pmed.node.stick import export_bundle, read_known
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import VoteKind
from p2pmed.testing.homes import LocalNetwork, until

GTIN = "09506000134352"
EXPIRY_DAY = 40_000


def _kept(home: HomeLedger, event: ConsensusEvent) -> ConsensusEvent | None:
    """The event without votes that would finalise an undecided seal directly."""
    if not isinstance(event, Receive):
        return event
    message = decode_message(event.message)
    if not isinstance(message, Vote | Votes):
        return event
    votes = [message] if isinstance(message, Vote) else list(message.votes)
    seals = {
        digest
        for digest, done in home.chain._executed.items()
        if done.entries and next_epoch_of(done.layer) is not None
    }
    left = [v for v in votes if v.kind != VoteKind.FINALIZE or v.digest not in seals]
    if len(left) == len(votes):
        return event
    if len(left) > 1:
        return Receive(event.seat, encode_message(msgspec.structs.replace(message, votes=left)))
    return Receive(event.seat, encode_message(left[0])) if left else None


@contextmanager
def seals_need_tails() -> Iterator[None]:
    """Votes that finalise a seal are lost: it becomes final by an empty block above it."""
    run: Callable[[HomeLedger, Turn, ConsensusEvent], None] = HomeLedger.run

    def lossy(home: HomeLedger, turn: Turn, event: ConsensusEvent) -> None:
        kept = _kept(home, event)
        if kept is not None:
            run(home, turn, kept)

    HomeLedger.run = lossy  # type: ignore[method-assign]
    try:
        yield
    finally:
        HomeLedger.run = run  # type: ignore[method-assign]


async def change(by: Node, *, add: tuple[Node, ...] = (), remove: tuple[Node, ...] = ()) -> None:
    """One change of seats, until the node that wrote it lives in the next epoch."""
    home = by.replica.home
    assert home is not None
    number = home.epoch.number
    seats = len(home.epoch.validators) + len(add) - len(remove)
    body = MeshChange(
        epoch=number,
        add=tuple(sorted(node.key for node in add)),
        remove=tuple(sorted(node.key for node in remove)),
        liars=0 if home.founding.genesis.engine == "raft" else (seats - 1) // 3,
    )
    place = await (await by.submit(body)).final(timeout=30)
    assert place.verdict.code == "applied"
    await until(lambda: home.epoch.number == number + 1, "the next epoch", seconds=30)


async def join(node: Node, ledger: bytes, height: Callable[[], int]) -> None:
    """Follow, catch up, consent."""
    await until(lambda: node.replica.chains.founding(ledger) is not None, "heard of it")
    await node.follow(ledger)
    await until(lambda: node.status()["height"] >= height(), "caught up")
    home = node.replica.home
    assert home is not None
    body = MeshJoin(height=home.chain.height, digest=home.chain.head_digest)
    assert (await (await node.submit(body)).final(timeout=20)).verdict.code == "applied"


async def write(node: Node, serial: str) -> bytes:
    """Two packs into stock, one of them spent; the id of the spending."""
    made = Commission(
        gtin=GTIN, lot="L", expiry=EXPIRY_DAY, serials=(serial, f"{serial}-2"), maker=bytes(32)
    )
    assert (await (await node.submit(made)).final(timeout=20)).verdict.code == "applied"
    spent = await node.submit(Dispense(gtin=GTIN, serial=serial), patient=b"p" * 16)
    assert (await spent.final(timeout=20)).verdict.code == "applied"
    return spent.id


async def make_village(folder: Path, engine: Any) -> None:
    """Homes, bundles, proofs and facts, in ``folder``."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork(folder, stack)
        homes = [network.home("pharmacy", place="shan/mu") for _ in range(5)]
        for home in homes:
            await network.open(home)
        spendings = await _live(network, folder, engine)
    async with AsyncExitStack() as stack:
        network._stack, network.nodes = stack, []
        for home in homes:  # every device was off; all come back in the last epoch
            await network.open(home)
        first, *_, learner = nodes = network.nodes
        spendings.append(await write(learner, "S5"))
        await until(lambda: same(nodes), "all equal")
        await export_bundle(first, folder / "whole.bundle")
        known = read_known(folder / "half.bundle", first.network)
        await export_bundle(first, folder / "rest.bundle", known=known)
        for number, spending in enumerate(spendings):
            entry = first.find(spending)
            assert entry is not None
            (folder / f"{number}.proof").write_bytes(await prove(first, entry))
        living = first.replica.home
        assert living is not None
        begun = [living.chain.epochs.begun_at(number) for number in range(4)]
        seals = [living.chain.block_at(at - 1) for at in begun[1:] if at]
        facts = {
            "engine": engine,
            "ledger": living.ledger.hex(),
            "network": first.network.hex(),
            "height": first.status()["height"],
            "root": first.status()["state_root"],
            "begun": begun,
            "tails": [len(seal.tail) for seal in seals if seal],
            "spendings": [spending.hex() for spending in spendings],
            "seats": [validator.node.hex() for validator in living.epoch.validators],
            "homes": [home.name for home in homes],
        }
        (folder / "facts.json").write_text(json.dumps(facts))


async def _live(network: LocalNetwork, folder: Path, engine: Any) -> list[bytes]:
    """Found, add one, remove one, remove another; the ids of what was spent."""
    seated, learner = network.nodes[:4], network.nodes[4]
    ledger = await network.found_mesh(*seated, engine=engine)
    first = seated[0]
    spendings = [await write(first, "S0")]
    await join(learner, ledger, lambda: first.status()["height"])
    await change(first, add=(learner,))
    spendings.append(await write(learner, "S1"))
    await export_bundle(first, folder / "half.bundle")
    await change(first, remove=(seated[1],))
    spendings.append(await write(seated[2], "S2"))
    with seals_need_tails() if engine == "bft" else nullcontext():
        await change(first, remove=(seated[2],))
    spendings.append(await write(learner, "S3"))
    spendings.append(await write(seated[1], "S4"))  # it has no seat any more
    await until(lambda: same(network.nodes), "all equal")
    return spendings


def same(nodes: list[Node]) -> bool:
    return len({(node.status()["height"], node.status()["state_root"]) for node in nodes}) == 1


@dataclass(frozen=True)
class Village:
    """What is left of a village: a folder with homes, bundles and proofs."""

    folder: Path
    facts: dict[str, Any]

    @property
    def ledger(self) -> bytes:
        return bytes.fromhex(self.facts["ledger"])

    @property
    def engine(self) -> str:
        return str(self.facts["engine"])

    @property
    def homes(self) -> list[Path]:
        return [self.folder / name for name in self.facts["homes"]]
