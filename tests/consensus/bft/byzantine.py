"""Liars for the simulated mesh, and the monitor that watches the honest.

``Monitor`` sees every message on the wire and keeps its own books; it shares no rule with the
engine. It checks what section 3.5 of the safety argument needs of every honest seat, over all
its lives: one notarize vote per view, never nullify and finalize, a certified parent, and
every skipped view nullified by a quorum. And what follows from it: no two certificates that
exclude each other, evidence against liars only, a floor that never falls.
"""

from __future__ import annotations

from collections import defaultdict

from simulation import (
    LEDGER,
    IdealSigner,
    Mesh,
    Node,
    Observer,
    Process,
    Violation,
    ideal_verify,
)

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import (
    Ask,
    Body,
    Certificates,
    Decided,
    Hello,
    Message,
    Proposal,
    Standing,
    Vote,
    Votes,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import Block, Evidence, Header, header_digest
from p2pmed.errors import DecodeError
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    VoteKind,
    check_certificate,
    make_certificate,
    vote_bytes,
)
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

GENESIS = LEDGER


class Monitor(Observer):
    """Independent books of who said what, in all lives of every node."""

    def __init__(self, epoch: Epoch, liars: tuple[int, ...] = ()) -> None:
        self._epoch, self._liars = epoch, liars
        self._seen: dict[tuple[int, bytes], None] = {}
        self._said: dict[tuple[int, int, int], dict[bytes, None]] = defaultdict(dict)
        self._who: dict[tuple[int, int, bytes], dict[int, None]] = defaultdict(dict)
        self._headers: dict[bytes, Header] = {}
        self._floors: dict[int, tuple[object, int]] = {}
        self._proved: dict[tuple[int, int], bytes] = {}
        self.evidence: list[Evidence] = []
        self.votes = 0

    def on_send(self, sender: Process, message: bytes) -> None:
        if (sender.seat, message) in self._seen:
            return
        self._seen[sender.seat, message] = None
        try:
            said = decode_message(message)
        except DecodeError:
            return
        match said:
            case Vote():
                self._vote(sender, said)
            case Votes():
                for vote in said.votes:
                    self._vote(sender, vote)
            case Proposal() | Body():
                self._headers[header_digest(said.block.header)] = said.block.header
                if sender.honest and isinstance(said, Proposal):
                    self._certificates(said.justification)
            case Certificates() if sender.honest:
                self._certificates(said.certificates)
            case Decided() if sender.honest:
                self._certificates((said.certificate,))

    def on_evidence(self, node: Node, evidence: Evidence) -> None:
        if evidence.seat not in self._liars:
            raise Violation(f"evidence against honest seat {evidence.seat}")
        self.evidence.append(evidence)

    def on_step(self, node: Node) -> None:
        if not node.honest or node.engine is None:
            return
        floor = int(node.engine.status()["floor"])
        life, before = self._floors.get(node.seat, (None, 0))
        if life is node.engine and floor < before:
            raise Violation("a floor fell")
        self._floors[node.seat] = (node.engine, floor)

    def _vote(self, sender: Process, vote: Vote) -> None:
        self._signed(sender.seat, vote.view, vote.kind, vote.digest)
        if sender.honest:
            self.votes += 1
            if vote.kind == VoteKind.NOTARIZE:
                self._admitted(self._headers[vote.digest])

    def _signed(self, seat: int, view: int, kind: int, digest: bytes) -> None:
        """The first two rules; a vote may show in a certificate before it is sent by itself."""
        said = self._said[seat, view, kind]
        said[digest] = None
        self._who[view, kind, digest][seat] = None
        if seat in self._liars:
            return
        if len(said) > 1:
            raise Violation(f"seat {seat} said two things in view {view}")
        nullified = self._said[seat, view, VoteKind.NULLIFY]
        if nullified and self._said[seat, view, VoteKind.FINALIZE]:
            raise Violation(f"seat {seat} nullified and finalized view {view}")

    def _admitted(self, header: Header) -> None:
        """The third rule: a certified parent, and proof for every view between."""
        if header.parent_view == 0:
            certified = header.parent == GENESIS
        else:
            kinds = (VoteKind.NOTARIZE, VoteKind.FINALIZE)
            certified = any(self._quorum(header.parent_view, k, header.parent) for k in kinds)
            parent = self._headers[header.parent]
            certified = certified and parent.height + 1 == header.height
        if not certified:
            raise Violation(f"voted in view {header.view} on a parent that nobody certified")
        for view in range(header.parent_view + 1, header.view):
            if not self._quorum(view, VoteKind.NULLIFY, b""):
                raise Violation(f"voted in view {header.view} over undecided view {view}")

    def _quorum(self, view: int, kind: VoteKind, digest: bytes) -> bool:
        return len(self._who[view, kind, digest]) >= self._epoch.quorum

    def _certificates(self, certificates: tuple[Certificate, ...]) -> None:
        for certificate in certificates:
            check_certificate(certificate, self._epoch, verify=ideal_verify)
            view, kind = certificate.view, certificate.kind
            for seat in range(len(self._epoch.validators)):
                if certificate.signers >> seat & 1:
                    self._signed(seat, view, kind, certificate.digest)
            if self._proved.setdefault((view, kind), certificate.digest) != certificate.digest:
                raise Violation(f"two certificates of one kind in view {view}")
            kinds = {k for k in VoteKind if (view, k) in self._proved}
            if {VoteKind.NULLIFY, VoteKind.FINALIZE} <= kinds:
                raise Violation(f"view {view} is both nullified and finalized")


def add_twins(mesh: Mesh, seat: int, factory: type[BftEngine] = BftEngine) -> None:
    """Two honest programs with one seat and one key, each with a disk of its own."""
    for _ in range(2):
        twin = Node(mesh, seat, factory, honest=False)
        mesh.nodes.append(twin)
        mesh.processes.append(twin)


class Disrupter:
    """Says whatever is well-formed and signed with its own key, and some that is not."""

    honest = False

    def __init__(self, mesh: Mesh, seat: int) -> None:
        self.mesh, self.seat = mesh, seat
        self._signer = IdealSigner(seat)
        self._dice = mesh.dice
        self._blocks: dict[bytes, Block] = {}
        self._certificates: list[Certificate] = []
        self._heard: list[bytes] = []
        self._view = 1
        self._last_led = 0
        mesh.processes.append(self)
        mesh.after(1, self._act)

    def heard(self, sender: int) -> None:
        """Alive, as far as anybody can tell."""

    def receive(self, sender: int, message: bytes) -> None:
        self._heard = [*self._heard[-20:], message]
        try:
            said = decode_message(message)
        except DecodeError:  # another liar's garbage
            return
        match said:
            case Vote():
                self._echo(said)
            case Votes():
                for vote in said.votes:
                    self._echo(vote)
            case Hello():
                self._lie_about(said)
            case Proposal():
                self._learn(said.block, said.justification)
            case Body():
                self._learn(said.block, ())
            case Certificates():
                self._certificates = [*self._certificates, *said.certificates][-40:]
                self._view = max(self._view, said.certificates[-1].view + 1)
            case Decided():
                self._certificates = [*self._certificates, said.certificate][-40:]
        self._maybe_lead()

    def _echo(self, vote: Vote) -> None:
        if vote.kind != VoteKind.NULLIFY:
            self._view = max(self._view, vote.view)
        if vote.kind == VoteKind.NOTARIZE and self._dice.random() < 0.3:
            self._to_some(self._vote(self._any_kind(), vote.view, vote.digest))

    def _lie_about(self, hello: Hello) -> None:
        known = tuple(self._certificates)
        self._to_some(
            Standing(
                round=hello.round,
                voted=self._dice.choice([0, self._view, 2**53]),
                admits=known[: self._dice.randint(0, min(1, len(known)))],
                head=(),
                yours=(self._vote(self._any_kind(), self._view + 1, self._any_digest()),),
            )
        )

    def _learn(self, block: Block, justification: tuple[Certificate, ...]) -> None:
        self._blocks[header_digest(block.header)] = block
        if len(self._blocks) > 40:
            del self._blocks[next(iter(self._blocks))]
        self._certificates = [*self._certificates, *justification][-40:]

    def _act(self) -> None:
        for action in self._dice.sample(
            [
                self._random_vote,
                self._random_ask,
                self._replay,
                self._garbage,
                self._old_news,
                self._forged_certificate,
                self._maybe_lead,
            ],
            2,
        ):
            action()
        self.mesh.after(self._dice.randint(5, 80), self._act)

    def _to_some(self, message: Message | bytes) -> None:
        raw = message if isinstance(message, bytes) else encode_message(message)
        for seat in range(len(self.mesh.epoch.validators)):
            if seat != self.seat and self._dice.random() < 0.7:
                self.mesh.send(self, seat, raw)

    def _vote(self, kind: VoteKind, view: int, digest: bytes) -> Vote:
        named = b"" if kind is VoteKind.NULLIFY else digest
        epoch = self.mesh.epoch
        statement = vote_bytes(epoch.ledger, epoch.number, kind, view, named)
        return Vote(kind=int(kind), view=view, digest=named, signature=self._signer.sign(statement))

    def _any_kind(self) -> VoteKind:
        return self._dice.choice(list(VoteKind))

    def _any_digest(self) -> bytes:
        strange = [hash_bytes(b"strange %d" % self._dice.randint(0, 3))]
        return self._dice.choice([*self._blocks, *strange])

    def _random_vote(self) -> None:
        view = self._dice.choice(
            [self._view + self._dice.randint(-3, 3), 0, 2**53, self._view + 1000]
        )
        self._to_some(self._vote(self._any_kind(), max(0, view), self._any_digest()))

    def _random_ask(self) -> None:
        wanted = tuple(self._any_digest() for _ in range(self._dice.randint(0, 4)))
        floor = self._dice.choice([0, self._view, 2**53])
        self._to_some(Ask(floor=floor, start=self._dice.choice([0, 2**53]), blocks=wanted))

    def _replay(self) -> None:
        if self._heard:
            self._to_some(self._dice.choice(self._heard))

    def _garbage(self) -> None:
        raw = bytearray(self._dice.choice(self._heard) if self._heard else b"\x80")
        raw[self._dice.randrange(len(raw))] ^= 1 << self._dice.randrange(8)
        self._to_some(bytes(raw[: self._dice.randint(1, len(raw))]))

    def _old_news(self) -> None:
        if self._certificates:
            count = self._dice.randint(1, min(5, len(self._certificates)))
            chosen = self._dice.sample(self._certificates, count)
            self._to_some(Certificates(certificates=tuple(chosen)))

    def _forged_certificate(self) -> None:
        view, kind = self._view + self._dice.randint(0, 500), self._any_kind()
        vote = self._vote(kind, view, self._any_digest())
        seats = self._dice.sample(range(len(self.mesh.epoch.validators)), self.mesh.epoch.quorum)
        votes = [(seat, vote.signature) for seat in seats]
        forged = make_certificate(self.mesh.epoch, kind, view, vote.digest, votes)
        self._to_some(Certificates(certificates=(forged,)))

    def _maybe_lead(self) -> None:
        """As leader: several blocks, some on parents that nobody may build on."""
        view = self._view + self._dice.randint(0, 1)
        count = len(self.mesh.epoch.validators)
        if view % count != self.seat or view == self._last_led:
            return
        self._last_led = view
        blocks = [b for b in (self._invent(view) for _ in range(self._dice.randint(1, 2))) if b]
        for seat in range(count):
            if seat != self.seat and blocks:
                block = self._dice.choice(blocks)
                proofs = tuple(self._certificates[-17:])
                self._tell(seat, Proposal(block=block, justification=proofs))
                self._tell(seat, self._vote(VoteKind.NOTARIZE, view, header_digest(block.header)))

    def _tell(self, seat: int, message: Message) -> None:
        self.mesh.send(self, seat, encode_message(message))

    def _invent(self, view: int) -> Block | None:
        below = [b for b in self._blocks.values() if b.header.view < view]
        recent = sorted(below, key=lambda b: b.header.view)[-4:]
        if not recent:
            return None
        parent = self._dice.choice(recent)
        lie = self._dice.random() < 0.2
        items = [] if self._dice.random() < 0.6 else [self._dice.randint(1, self.mesh.items + 1)]
        content = cbor.encode(items)
        header = Header(
            version=1,
            ledger=self.mesh.epoch.ledger,
            epoch=self.mesh.epoch.number,
            view=view,
            height=parent.header.height + 1,
            parent=header_digest(parent.header),
            parent_view=view - 1 if lie else parent.header.view,
            proposer=self.seat,
            content=hash_bytes(content) if self._dice.random() < 0.9 else hash_bytes(b"else"),
        )
        block = Block(header=header, content=content)
        self._blocks[header_digest(header)] = block
        return block
