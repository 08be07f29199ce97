"""One real engine on a bench: its disk answers at once, its peers are the test."""

from __future__ import annotations

import random

from simulation import LEDGER, Counters, IdealSigner, ideal_verify, make_epoch

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.greeting import Phase
from p2pmed.consensus.bft.messages import (
    Message,
    Proposal,
    Standing,
    Vote,
    Votes,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import (
    Block,
    Broadcast,
    ConsensusEffect,
    ConsensusEvent,
    Decide,
    Header,
    Heard,
    Receive,
    SendTo,
    Store,
    Work,
    header_digest,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import Certificate, VoteKind, make_certificate, vote_bytes
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

N, X, F = VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE


class Bench:
    """Seat 0 of four (one liar allowed) unless told otherwise."""

    def __init__(self, *, seats: int = 4, seat: int = 0, rows: dict[bytes, bytes] | None = None):
        self.epoch, self.seat = make_epoch(seats), seat
        self.application = Counters()
        self.rows = {} if rows is None else rows
        self.now = 0
        self.verified = 0
        self.effects: list[ConsensusEffect] = []
        self.tip: Header | None = None
        self.tip_certificate: Certificate | None = None
        self.boot()

    def boot(self, *, greeted: bool = True, amnesic: bool = False, resumed: bool = False) -> None:
        self.engine = BftEngine(
            epoch=self.epoch,
            seat=self.seat,
            signer=IdealSigner(self.seat),
            application=self.application,
            rng=random.Random(1),
            records=dict(self.rows),
            tip=self.tip,
            tip_certificate=self.tip_certificate,
            now=Instant(self.now),
            verify=self._verify,
            amnesic=amnesic,
            resumed=resumed,
        )
        if greeted:
            self.greet()

    def greet(self, *seats: int, voted: int = 0) -> list[ConsensusEffect]:
        """The first others say that they know nothing (R11), and count as unheard after it."""
        greeting, effects = self.engine._greeting, []
        others = [s for s in range(len(self.epoch.validators)) if s != self.seat]
        for seat in seats or others[: greeting.needed]:
            answer = Standing(round=greeting._round, voted=voted, admits=(), head=(), yours=())
            if greeting.phase is not Phase.VOTING:
                effects += self.receive(seat, answer)
        pacemaker = self.engine._pacemaker
        pacemaker._heard = [None] * len(pacemaker._heard)
        pacemaker.rest()
        return effects

    def _verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        self.verified += 1
        return ideal_verify(key, signature, message)

    # what happens to the engine

    def step(self, event: ConsensusEvent, *, sync: bool = True) -> list[ConsensusEffect]:
        """The effects of ``event`` and, with ``sync``, of all flushes that follow."""
        mine: list[ConsensusEffect] = []
        queue: list[ConsensusEvent] = [event]
        while queue:
            for effect in self.engine.step(queue.pop(0), Instant(self.now)):
                mine.append(effect)
                if isinstance(effect, Store):
                    for record in effect.records:
                        if record.value is None:
                            self.rows.pop(record.key, None)
                        else:
                            self.rows[record.key] = record.value
                    if sync:
                        queue.append(Persisted(effect.token))
                elif isinstance(effect, Decide):
                    self.application.apply(effect.block)
                    self.tip, self.tip_certificate = effect.block.header, effect.certificate
        self.effects += mine
        return mine

    def hear_all(self) -> None:
        for seat in range(len(self.epoch.validators)):
            if seat != self.seat:
                self.step(Heard(seat))

    def work(self, *items: int) -> list[ConsensusEffect]:
        self.application.known.update(dict.fromkeys(items))
        return self.step(Work())

    def receive(self, sender: int, message: Message, *, sync: bool = True) -> list[ConsensusEffect]:
        return self.step(Receive(sender, encode_message(message)), sync=sync)

    def pass_time(self, ms: int, *, hear: bool = True) -> list[ConsensusEffect]:
        """Let deadlines come; the others go on breathing unless ``hear`` is false."""
        effects: list[ConsensusEffect] = []
        end = self.now + ms
        while self.now < end:
            deadline = self.engine.deadline
            self.now = min(end, self.now + 100, *([] if deadline is None else [deadline]))
            if hear:
                self.hear_all()
            if (deadline := self.engine.deadline) is not None and deadline <= self.now:
                effects += self.step(DeadlineReached())
        return effects

    # what peers say

    def block(
        self,
        view: int,
        *items: int,
        parent: Block | None = None,
        height: int | None = None,
        parent_view: int | None = None,
    ) -> Block:
        content = cbor.encode(sorted(items))
        above = 0 if parent is None else parent.header.height
        parent_of = 0 if parent is None else parent.header.view
        header = Header(
            version=1,
            ledger=LEDGER,
            epoch=0,
            view=view,
            height=above + 1 if height is None else height,
            parent=LEDGER if parent is None else header_digest(parent.header),
            parent_view=parent_of if parent_view is None else parent_view,
            proposer=view % len(self.epoch.validators),
            content=hash_bytes(content),
        )
        return Block(header=header, content=content)

    def propose(self, block: Block, *proofs: Certificate, sync: bool = True):
        proposal = Proposal(block=block, justification=proofs)
        return self.receive(block.header.proposer, proposal, sync=sync)

    def signed(self, seat: int, kind: VoteKind, view: int, digest: bytes) -> Vote:
        statement = vote_bytes(LEDGER, 0, kind, view, digest)
        signature = IdealSigner(seat).sign(statement)
        return Vote(kind=int(kind), view=view, digest=digest, signature=signature)

    def vote(self, seat: int, kind: VoteKind, what: Block | int, *, sync: bool = True):
        """``what``: a block, or the view to nullify."""
        view = what if isinstance(what, int) else what.header.view
        digest = b"" if isinstance(what, int) else header_digest(what.header)
        return self.receive(seat, self.signed(seat, kind, view, digest), sync=sync)

    def certificate(self, kind: VoteKind, what: Block | int, *seats: int) -> Certificate:
        view = what if isinstance(what, int) else what.header.view
        digest = b"" if isinstance(what, int) else header_digest(what.header)
        votes = [(s, self.signed(s, kind, view, digest).signature) for s in seats or (1, 2, 3)]
        return make_certificate(self.epoch, kind, view, digest, votes)

    def decide(self, view: int, *items: int, parent: Block | None = None) -> Block:
        """A block that goes all the way with the votes of seats 1 and 2."""
        self.application.known.update(dict.fromkeys(items))
        block = self.block(view, *items, parent=parent)
        self.propose(block)
        for kind in (N, F):
            self.vote(1, kind, block)
            self.vote(2, kind, block)
        assert self.engine.status()["floor"] == view
        return block


def said(effects: list[ConsensusEffect], kind: type | None = None) -> list:
    """Messages among ``effects``, decoded; only of ``kind`` if given."""
    messages = [
        decode_message(effect.message)
        for effect in effects
        if isinstance(effect, Broadcast | SendTo)
    ]
    return [m for m in messages if kind is None or isinstance(m, kind)]


def votes(effects: list[ConsensusEffect]) -> list[tuple[VoteKind, int]]:
    """Kind and view of each vote among ``effects``."""
    found = []
    for message in said(effects):
        if isinstance(message, Vote | Votes):
            found += message.votes if isinstance(message, Votes) else [message]
    return [(VoteKind(vote.kind), vote.view) for vote in found]


def of(effects: list[ConsensusEffect], kind: type) -> list:
    return [effect for effect in effects if isinstance(effect, kind)]
