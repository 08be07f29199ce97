"""A ledger told by headers alone: epochs with other seats, seals, tails, blocks, certificates.

Nothing is executed: a light client sees no bodies either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from toy_ledger import NETWORK, Device, certify, founding_of, genesis_of

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.ledger.block import Summary, content_hash, verdict_leaf
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.light import Handover, LightBlock, Placed
from p2pmed.ledger.merkle import merkle_proof, merkle_root
from p2pmed.ledger.state import Verdict
from p2pmed.quorum.certificate import Certificate, Epoch, Validator, epoch_digest
from p2pmed.wire.hashing import hash_bytes

TIME_MS = 1_800_000_100_000


def place(ids: Sequence[bytes], verdicts: Sequence[Verdict], index: int) -> Placed:
    """Where the entry at ``index`` of a block stands."""
    leaves = [verdict_leaf(name, verdict) for name, verdict in zip(ids, verdicts, strict=True)]
    return Placed(
        index=index,
        path=tuple(merkle_proof(ids, index)),
        code=verdicts[index].code,
        other=verdicts[index].other,
        verdict_path=tuple(merkle_proof(leaves, index)),
    )


@dataclass
class Story:
    """Grows upward; ``seats`` are those of the present epoch, in the order of their places."""

    seats: list[Device]
    engine: str = "bft"
    liars: int | None = None
    network: bytes = NETWORK
    chain_of: Callable[[Device], tuple[bytes, ...]] = lambda device: (device.key,)
    """Credentials; a device's key, for toys."""
    handovers: list[Handover] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.genesis = genesis_of(
            self.seats, engine=self.engine, liars=self.liars, network=self.network
        )
        self.founding: Founding = msgspec.structs.replace(
            founding_of(self.seats, self.genesis),
            chains=tuple(self.chain_of(device) for device in self.seats),
        )
        self.epoch: Epoch = self.genesis.epoch()
        self.height, self.view, self.digest = 0, 0, self.epoch.ledger

    def header(self, summary: Summary, *, skip: int = 0, **fields: object) -> Header:
        """The next header, which is not taken by it."""
        header = Header(
            version=1,
            ledger=self.epoch.ledger,
            epoch=self.epoch.number,
            view=self.view + 1 + skip,
            height=self.height + 1,
            parent=self.digest,
            parent_view=self.view,
            proposer=0,
            content=content_hash(summary),
        )
        return msgspec.structs.replace(header, **fields)

    def summary(
        self,
        ids: Sequence[bytes] = (),
        verdicts: Sequence[Verdict] | None = None,
        following: Epoch | None = None,
        **fields: object,
    ) -> Summary:
        """A content that orders ``ids``."""
        told = [Verdict(code="applied")] * len(ids) if verdicts is None else verdicts
        leaves = [verdict_leaf(name, verdict) for name, verdict in zip(ids, told, strict=True)]
        summary = Summary(
            version=1,
            clock=TIME_MS,
            time=TIME_MS + self.height,
            tips=hash_bytes(b"tips"),
            entries=merkle_root(ids),
            count=len(ids),
            verdicts=merkle_root(leaves),
            state=hash_bytes(b"state"),
            next_epoch=b"" if following is None else epoch_digest(following),
        )
        return msgspec.structs.replace(summary, **fields)

    def certified(self, header: Header, signers: Iterable[int] | None = None) -> Certificate:
        """By a quorum of the present epoch."""
        return certify(self.epoch, self.seats, header, signers=signers)

    def take(self, header: Header) -> None:
        """``header`` is the last block now."""
        self.height, self.view, self.digest = header.height, header.view, header_digest(header)

    def block(
        self, ids: Sequence[bytes] = (), verdicts: Sequence[Verdict] | None = None
    ) -> LightBlock:
        """The next block, final by its own certificate."""
        summary = self.summary(ids, verdicts)
        header = self.header(summary)
        certificate = self.certified(header)
        self.take(header)
        return LightBlock(header=header, summary=summary, above=(), certificate=certificate)

    def headers(self, count: int) -> tuple[list[Header], Certificate]:
        """``count`` blocks, and the certificate of the last."""
        found = []
        for _ in range(count):
            header = self.header(self.summary([hash_bytes(b"x")]))
            found.append(header)
            self.take(header)
        return found, self.certified(found[-1])

    def next_epoch(self, seats: Sequence[Device], liars: int | None = None) -> Epoch:
        """Who decides after a seal."""
        most = (len(seats) - 1) // 3 if self.engine == "bft" else 0
        return Epoch(
            ledger=self.epoch.ledger,
            number=self.epoch.number + 1,
            liars=most if liars is None else liars,
            validators=tuple(Validator(node=d.key, vote_key=d.vote_key) for d in seats),
        )

    def seal(self, seats: Sequence[Device], *, tails: int = 0) -> Handover:
        """End the epoch; ``seats`` decide from now on. Final through ``tails`` empty blocks."""
        following = self.next_epoch(seats)
        summary = self.summary([hash_bytes(b"change")], following=following)
        header = last = self.header(summary)
        self.take(header)
        above = []
        for _ in range(tails):
            last = self.header(self.summary(following=following), skip=1)
            above.append(last)
            self.take(last)
        handover = Handover(
            seal=LightBlock(
                header=header,
                summary=summary,
                above=tuple(above),
                certificate=self.certified(last),
            ),
            following=following,
        )
        self.handovers.append(handover)
        self.epoch, self.seats = following, list(seats)
        self.height, self.view, self.digest = header.height, 0, header_digest(header)
        return handover
