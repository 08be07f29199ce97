"""What every liar of a simulated BFT mesh can do: listen, remember, sign as itself, and twist.

A liar runs an honest engine beside its lies, so that it is up to date and its lies come in
time. Its strategy changes what the engine says (``twist``), acts on what it hears (``hear``),
and now and then speaks by itself (``act``). It signs with its own key only: tokens cannot be
forged. Liars may use the code of the core, since nobody trusts them; the oracle may not.

The strategies themselves stand in ``strategies.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from p2pmed.consensus.bft.messages import (
    Body,
    Certificates,
    Decided,
    Message,
    Proposal,
    Vote,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import Block, Header, header_digest
from p2pmed.errors import DecodeError
from p2pmed.quorum.certificate import Certificate, VoteKind, make_certificate, vote_bytes
from p2pmed.testing.core.member import Member
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

if TYPE_CHECKING:
    from p2pmed.testing.core.world import CoreWorld

__all__ = ["Liar"]

KEPT: Final = 40
"""Blocks, certificates and messages that a liar remembers."""
ACT_MS: Final = (20, 160)


class Liar(Member):
    """A validator that has given up honesty; by itself it changes nothing."""

    honest = False

    def __init__(self, world: CoreWorld, place: int, seat: int) -> None:
        super().__init__(world, place, seat)
        self.view = 1
        """The highest view that it heard of."""
        self.blocks: dict[bytes, Block] = {}
        self.certificates: list[Certificate] = []
        self.heard_raw: list[bytes] = []
        self.lies = 0
        """How often it did what no honest member does."""
        self._acting = False

    # --- what strategies change -----------------------------------------------------------

    def twist(self, message: Message) -> Iterable[tuple[int | None, bytes]] | None:
        """What to say instead of ``message`` (to whom, bytes); ``None``: just that."""

    def hear(self, sender: int, message: Message) -> None:
        """Something to think about came."""

    def act(self) -> None:
        """Say something unasked; called now and then while the mesh is busy."""

    # --- listening ------------------------------------------------------------------------

    def receive(self, sender: int, message: bytes) -> None:
        """Remember it, think about it, and let the honest half have it."""
        self.heard_raw = [*self.heard_raw[-KEPT:], message]
        try:
            said = decode_message(message)
        except DecodeError:  # another liar's
            return
        self._remember(said)
        if isinstance(said, Vote | Proposal) and not self._acting:
            self._acting = True
            self.world.after(self.world.dice.randint(*ACT_MS), self._act)
        if self.up:
            self.hear(sender, said)
            super().receive(sender, message)

    def _act(self) -> None:
        self._acting = False
        if self.up:
            self.act()

    def _remember(self, said: Message) -> None:
        match said:
            case Vote():
                if said.view < self.view + 1_000:
                    self.view = max(self.view, said.view)
            case Proposal():
                self._keep(said.block)
                self.certificates = [*self.certificates, *said.justification][-KEPT:]
            case Body():
                self._keep(said.block)
            case Certificates():
                self.certificates = [*self.certificates, *said.certificates][-KEPT:]
            case Decided():
                self.certificates = [*self.certificates, said.certificate][-KEPT:]

    def _keep(self, block: Block) -> None:
        self.blocks[header_digest(block.header)] = block
        if len(self.blocks) > KEPT:
            del self.blocks[next(iter(self.blocks))]

    # --- speaking -------------------------------------------------------------------------

    def say(self, seat: int | None, message: bytes) -> None:
        """What the honest half wants to say, twisted."""
        said = decode_message(message)
        if isinstance(said, Proposal):
            self._keep(said.block)
        instead = self.twist(said)
        if instead is None:
            super().say(seat, message)
            return
        self.lies += 1
        for to, raw in instead:
            super().say(seat if to is None else to, raw)

    def tell(self, seats: Sequence[int], message: Message | bytes) -> None:
        """Lie to ``seats``."""
        self.lies += 1
        raw = message if isinstance(message, bytes) else encode_message(message)
        for seat in seats:
            super().say(seat, raw)

    # --- tools ----------------------------------------------------------------------------

    @property
    def peers(self) -> list[int]:
        """All other seats."""
        return [s for s in range(len(self.world.epoch.validators)) if s != self.seat]

    def some(self, chance: float = 0.6) -> list[int]:
        """Some of the other seats."""
        return [seat for seat in self.peers if self.world.dice.random() < chance]

    def halves(self) -> tuple[list[int], list[int]]:
        """The other seats in two parts."""
        peers = self.peers
        self.world.dice.shuffle(peers)
        middle = len(peers) // 2
        return peers[:middle], peers[middle:]

    def vote(self, kind: VoteKind, view: int, digest: bytes = b"") -> Vote:
        """A vote, signed by itself."""
        epoch = self.world.epoch
        named = b"" if kind is VoteKind.NULLIFY else digest
        statement = vote_bytes(epoch.ledger, epoch.number, kind, view, named)
        signature = self.world.book.sign(self.seat, statement)
        return Vote(kind=int(kind), view=view, digest=named, signature=signature)

    def certificate(self, kind: VoteKind, view: int, digest: bytes, seats: Sequence[int]) -> Any:
        """A certificate that names ``seats``, all with its own signature."""
        own = self.vote(kind, view, digest).signature
        named = b"" if kind is VoteKind.NULLIFY else digest
        return make_certificate(self.world.epoch, kind, view, named, [(s, own) for s in seats])

    @property
    def leads(self) -> bool:
        """Whether it may propose in the view in which its honest half is."""
        return self.up and self.engine is not None and self.engine.status()["leader"] == self.seat

    def block_on(self, on: Header | None, at: int, items: Sequence[int], **lies: Any) -> Block:
        """A block that is well-formed whatever it claims; ``lies`` replace header fields."""
        content = cbor.encode(list(items))
        fields: dict[str, Any] = {
            "version": 1,
            "ledger": self.world.epoch.ledger,
            "epoch": self.world.epoch.number,
            "view": at,
            "height": 1 if on is None else on.height + 1,
            "parent": self.world.epoch.ledger if on is None else header_digest(on),
            "parent_view": 0 if on is None else on.view,
            "proposer": self.seat,
            "content": hash_bytes(content),
        }
        block = Block(header=Header(**{**fields, **lies}), content=content)
        self._keep(block)
        return block

    def recent(self, count: int = 4, *, below: int) -> list[Header]:
        """Headers of the highest views under ``below``, highest first."""
        headers = [b.header for b in self.blocks.values() if b.header.view < below]
        return sorted(headers, key=lambda header: header.view, reverse=True)[:count]

    def some_items(self) -> list[int]:
        """Nothing, or a counter that exists, ordered or not."""
        dice = self.world.dice
        return [] if dice.random() < 0.6 else [dice.randint(1, self.world.items + 1)]

    def propose(self, block: Block, seats: Sequence[int], *, vote: bool = True) -> None:
        """Send ``block`` as a leader does, with whatever certificates are at hand."""
        proofs = tuple(self.certificates[-17:])
        self.tell(seats, Proposal(block=block, justification=proofs))
        if vote:
            digest = header_digest(block.header)
            self.tell(seats, self.vote(VoteKind.NOTARIZE, block.header.view, digest))
