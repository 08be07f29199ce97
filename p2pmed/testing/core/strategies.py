"""How validators lie: one class per strategy, in one table.

Sources: Twins (Bano et al., arXiv 2004.10617) for two copies of one identity; the Byzantine
lists of the consensus notes, section 4; ava-labs/Simplex and commonware issues for lies that
hurt real systems. Twins run honest code, so that they never test a validity check: the other
strategies do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import cbor2

from p2pmed.consensus.bft.messages import (
    Ask,
    Body,
    Certificates,
    Decided,
    Message,
    Proposal,
    Vote,
    encode_message,
)
from p2pmed.consensus.interface import header_digest
from p2pmed.quorum.certificate import VoteKind
from p2pmed.testing.core.liars import Liar
from p2pmed.testing.core.member import Member
from p2pmed.wire.hashing import hash_bytes

__all__ = ["STRATEGIES", "TWINS", "Twin"]

Twisted = Iterable[tuple[int | None, bytes]] | None

TWINS: Final = "twins"
"""The strategy that takes two members on one seat instead of one liar."""


class Twin(Member):
    """One of two honest programs with one seat and one key, each with a disk of its own."""

    honest = False


class Equivocate(Liar):
    """As leader sends one block to half of the mesh and another to the rest, and votes both."""

    def twist(self, message: Message) -> Twisted:
        """Two blocks for one view."""
        if not isinstance(message, Proposal):
            return None
        header = message.block.header
        lies = {"parent": header.parent, "parent_view": header.parent_view}
        rival = self.block_on(None, header.view, [], height=header.height, **lies)
        first, second = self.halves()
        other = Proposal(block=rival, justification=message.justification)
        vote = self.vote(VoteKind.NOTARIZE, header.view, header_digest(rival.header))
        said = [(seat, encode_message(message)) for seat in first]
        said += [(seat, encode_message(other)) for seat in second]
        return said + [(seat, encode_message(vote)) for seat in second]


class DoubleNotarize(Liar):
    """Votes for the leader's block, and in the same view for another that it made up."""

    def twist(self, message: Message) -> Twisted:
        """One half hears the vote, the other half another one."""
        if not isinstance(message, Vote) or message.kind != VoteKind.NOTARIZE:
            return None
        known = [d for d, b in self.blocks.items() if b.header.view == message.view]
        others = [digest for digest in known if digest != message.digest]
        strange = others[0] if others else hash_bytes(b"another block")
        other = encode_message(self.vote(VoteKind.NOTARIZE, message.view, strange))
        first, second = self.halves()
        raw = encode_message(message)
        return [(seat, raw) for seat in first] + [(seat, other) for seat in second]


class NullifyAndFinalize(Liar):
    """Says of every view that it is over, and that its block is final."""

    def hear(self, sender: int, message: Message) -> None:
        """Nullify and finalize whatever somebody notarizes."""
        if isinstance(message, Vote) and message.kind == VoteKind.NOTARIZE:
            first, second = self.halves()
            self.tell(first, self.vote(VoteKind.FINALIZE, message.view, message.digest))
            self.tell(second, self.vote(VoteKind.NULLIFY, message.view))
            if self.world.dice.random() < 0.3:
                self.tell(first, self.vote(VoteKind.NULLIFY, message.view))


class WithholdCertificates(Liar):
    """Votes honestly, and never shows a certificate or answers a question."""

    def twist(self, message: Message) -> Twisted:
        """Certificates stay here; proposals come without justification."""
        match message:
            case Certificates() | Decided() | Body() | Ask():
                return ()
            case Proposal():
                bare = Proposal(block=message.block, justification=())
                return [(None, encode_message(bare))]
        return None


class SilentLeader(Liar):
    """Votes like everybody, and never proposes."""

    def twist(self, message: Message) -> Twisted:
        """No proposal leaves."""
        return () if isinstance(message, Proposal) else None


class WithholdProposals(Liar):
    """Shows its block to as few as can still be a quorum with it, or to one fewer."""

    def twist(self, message: Message) -> Twisted:
        """Some never see the block."""
        if not isinstance(message, Proposal):
            return None
        peers = self.peers
        self.world.dice.shuffle(peers)
        count = self.world.epoch.quorum - 1 - self.world.dice.randint(0, 1)
        return [(seat, encode_message(message)) for seat in peers[: max(0, count)]]


class SplitVotes(Liar):
    """Each of its votes reaches another half of the mesh."""

    def twist(self, message: Message) -> Twisted:
        """Votes go to some."""
        if not isinstance(message, Vote):
            return None
        return [(seat, encode_message(message)) for seat in self.some(0.5)]


class StaleCertificates(Liar):
    """Tells again and again what is long over."""

    def act(self) -> None:
        """Old certificates, and old questions."""
        dice = self.world.dice
        if self.certificates:
            count = dice.randint(1, min(6, len(self.certificates)))
            chosen = dice.sample(self.certificates, count)
            self.tell(self.some(), Certificates(certificates=tuple(chosen)))
        self.tell(self.some(0.3), Ask(floor=0, start=0, blocks=()))


class FutureVotes(Liar):
    """Votes in views that nobody has reached: the next ones, and huge ones."""

    def act(self) -> None:
        """Votes far ahead, of every kind."""
        dice = self.world.dice
        ahead = dice.choice((1, 2, 3, 1_000, 2**40, 2**53 - self.view))
        kind = dice.choice(list(VoteKind))
        digest = next(reversed(self.blocks), hash_bytes(b"nothing"))
        self.tell(self.some(), self.vote(kind, self.view + ahead, digest))


class InvalidBlock(Liar):
    """As leader sends blocks that are well-formed and wrong in one thing: the disrupter."""

    def twist(self, message: Message) -> Twisted:
        """One lie in a header or a content, another each time."""
        if not isinstance(message, Proposal):
            return None
        dice, header = self.world.dice, message.block.header
        lies: dict[str, Any] = dict(
            dice.choice(
                (
                    {"height": header.height + 1},
                    {"height": max(1, header.height - 1)},
                    {"parent": hash_bytes(b"no such block")},
                    {"parent_view": max(0, header.parent_view - 1)},
                    {"content": hash_bytes(b"another content")},
                    {"epoch": header.epoch + 1},
                    {"ledger": hash_bytes(b"another ledger")},
                    {"proposer": self.peers[0]},
                    {"view": header.view + 1},
                    {},
                )
            )
        )
        repeated = list(self.application.decided)[-1:] or [1]
        items = repeated if not lies else []
        base = {n: getattr(header, n) for n in ("height", "parent", "parent_view")}
        block = self.block_on(None, header.view, items, **{**base, **lies})
        said = encode_message(Proposal(block=block, justification=message.justification))
        vote = self.vote(VoteKind.NOTARIZE, header.view, header_digest(block.header))
        return [(None, said), (None, encode_message(vote))]


class SkippedViews(Liar):
    """As leader builds below what was certified last: over views that nobody nullified."""

    def twist(self, message: Message) -> Twisted:
        """The grandparent becomes the parent, and its certificate goes along."""
        if not isinstance(message, Proposal):
            return None
        header = message.block.header
        older = [h for h in self.recent(6, below=header.view) if h.view < header.parent_view]
        if not older:
            return None
        block = self.block_on(self.world.choose(older), header.view, self.some_items())
        self.propose(block, self.peers)
        return ()


class ParentNotNotarized(Liar):
    """Builds on a block that it proposed to few, so that nobody notarized it.

    The parent is offered again by itself, as an answer to a question that nobody asked, and as
    a proposal of its view: whoever takes a block for a parent because it *holds* it falls for
    it.
    """

    def twist(self, message: Message) -> Twisted:
        """Two rivals in one view; in its next view it builds on the one that failed."""
        if not isinstance(message, Proposal):
            return None
        header = message.block.header
        orphans = [
            h
            for h in self.recent(8, below=header.view)
            if h.view > header.parent_view or header_digest(h) not in self._certified
        ]
        if orphans and self.world.dice.random() < 0.7:
            parent = orphans[0]
            self.tell(self.peers, Body(block=self.blocks[header_digest(parent)]))
            self.propose(self.block_on(parent, header.view, []), self.peers)
            return ()
        return [(seat, encode_message(message)) for seat in self.some(0.4)]

    @property
    def _certified(self) -> set[bytes]:
        return {c.digest for c in self.certificates}


class ReplayVotes(Liar):
    """Says what others said, as if it were its own."""

    def hear(self, sender: int, message: Message) -> None:
        """The very bytes, to others."""
        if self.world.dice.random() < 0.3:
            self.tell(self.some(0.5), self.world.choose(self.heard_raw))


class ForgedCertificates(Liar):
    """Certificates that nobody signed, signed twice, or with too few signers."""

    def act(self) -> None:
        """One forgery of each kind, in a view near or far."""
        dice, epoch = self.world.dice, self.world.epoch
        kind, view = dice.choice(list(VoteKind)), self.view + dice.choice((0, 0, 1, 400))
        digest = next(reversed(self.blocks), hash_bytes(b"nothing"))
        seats = dice.sample(range(len(epoch.validators)), epoch.quorum)
        forged = self.certificate(kind, view, digest, seats)
        few = self.certificate(kind, view, digest, [self.seat])
        own = few.signatures[0]
        named = forged.digest
        doubled = [
            epoch.ledger,
            epoch.number,
            int(kind),
            view,
            named,
            1 << self.seat,
            [own] * epoch.quorum,
        ]
        self.tell(self.some(), Certificates(certificates=(forged,)))
        self.tell(self.some(), Certificates(certificates=(few,)))
        self.tell(self.some(), cbor2.dumps([3, [doubled]], canonical=True))


class Garbage(Liar):
    """Bytes that are no message: flipped, cut, and spelt in a second way."""

    def act(self) -> None:
        """Broken copies of what it heard."""
        dice = self.world.dice
        raw = bytearray(self.world.choose(self.heard_raw) or b"\x00")
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        self.tell(self.some(), bytes(raw[: dice.randint(1, len(raw))]))
        second = b"\x9f" + bytes(self.world.choose(self.heard_raw))[1:] + b"\xff"
        self.tell(self.some(), dice.choice((second, b"", b"\x80", b"\x81\x02", b"\xff" * 40)))


class SlowDrip(Liar):
    """Says everything, each thing just before the others give up."""

    def say(self, seat: int | None, message: bytes) -> None:
        """Later."""
        if self.engine is None:
            return
        self.lies += 1
        delta = int(self.engine.status()["delta_ms"])
        wait = 2 * delta - self.world.dice.randint(5, 40)
        self.world.after(max(1, wait), self._late, seat, message)

    def _late(self, seat: int | None, message: bytes) -> None:
        Member.say(self, seat, message)


class LieInNews(Liar):
    """Answers questions with what was not asked, and claims floors that nobody reached."""

    def hear(self, sender: int, message: Message) -> None:
        """A wrong body, a wrong floor, an old certificate."""
        if not isinstance(message, Ask):
            return
        dice = self.world.dice
        header = next(iter(self.recent(1, below=self.view + 1)), None)
        if header is None:
            return
        false = self.block_on(header, self.view + dice.choice((1, 50)), [], height=10_000)
        proofs = [c for c in self.certificates if c.kind == VoteKind.FINALIZE]
        forged = self.certificate(
            VoteKind.FINALIZE,
            false.header.view,
            header_digest(false.header),
            list(range(self.world.epoch.quorum)),
        )
        self.tell([sender], Decided(header=false.header, certificate=forged))
        for proof in proofs[-1:]:
            self.tell([sender], Decided(header=false.header, certificate=proof))
        self.tell([sender], Body(block=false))
        for digest in message.blocks:
            block = self.blocks.get(digest)
            if block is not None:  # the true header over another content
                bad = type(block)(header=block.header, content=cbor2.dumps([9]))
                self.tell([sender], Body(block=bad))

    def twist(self, message: Message) -> Twisted:
        """No true answer leaves."""
        return () if isinstance(message, Body | Decided) else None


class Disrupter(Liar):
    """Something else each time: votes for what others proposed, rival blocks, old news."""

    def hear(self, sender: int, message: Message) -> None:
        """Vote anything for what somebody votes for."""
        dice = self.world.dice
        if isinstance(message, Vote) and message.kind == VoteKind.NOTARIZE and dice.random() < 0.3:
            kind = dice.choice(list(VoteKind))
            self.tell(self.some(), self.vote(kind, message.view, message.digest))

    def act(self) -> None:
        """Lead whenever possible, on any block at all."""
        dice = self.world.dice
        if not self.leads:
            return
        view = self.current
        parents = self.recent(4, below=view)
        for _ in range(dice.randint(1, 2)):
            parent = dice.choice(parents) if parents else None
            lie = {"parent_view": view - 1} if dice.random() < 0.2 else {}
            block = self.block_on(parent, view, self.some_items(), **lie)
            self.propose(block, self.some(0.7))

    def twist(self, message: Message) -> Twisted:
        """Its honest half proposes half of the time."""
        if isinstance(message, Proposal) and self.world.dice.random() < 0.5:
            return ()
        return None


STRATEGIES: Final[Mapping[str, Callable[..., Member]]] = MappingProxyType(
    {
        "equivocating proposer": Equivocate,
        "double notarize": DoubleNotarize,
        "nullify and finalize": NullifyAndFinalize,
        "withheld certificates": WithholdCertificates,
        "silent leader": SilentLeader,
        "withheld proposals": WithholdProposals,
        "split votes": SplitVotes,
        TWINS: Twin,
        "stale certificates": StaleCertificates,
        "votes from the future": FutureVotes,
        "invalid block": InvalidBlock,
        "skipped views": SkippedViews,
        "parent not notarized": ParentNotNotarized,
        "replayed votes": ReplayVotes,
        "forged certificates": ForgedCertificates,
        "garbage": Garbage,
        "slow drip": SlowDrip,
        "lies in catch-up": LieInNews,
        "disrupter": Disrupter,
    }
)
"""By the name that reports use."""
