"""Votes and certificates: ours, kept before they count; others', verified before they count.

Rules:

* R0: votes of views in ``low + 1 .. view + AHEAD_MAX``; one slot per signer, view and kind.
* Each signature is verified at most once: votes of a statement that is already certified are
  not verified at all, and signatures in a certificate that were counted as votes are known.
* What may still be signed says ``restraint``. R7: our own vote is sent, and counts, only
  once it is durable.

Two statements of one seat that no honest node makes become ``Evidence``; neither counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from p2pmed.consensus.bft.journal import Journal
from p2pmed.consensus.bft.live import Live, drop_views
from p2pmed.consensus.bft.messages import VOTES_MAX, Certificates, Vote, Votes
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.restraint import SKIP_MAX, Restraint
from p2pmed.consensus.bft.tally import Ballot, Tally
from p2pmed.consensus.interface import Block, Evidence, Signer, Store
from p2pmed.engine import Held
from p2pmed.errors import CredentialError, InvariantError
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Verify,
    VoteKind,
    check_certificate,
    make_certificate,
    vote_bytes,
)
from p2pmed.wire import codec

__all__ = ["AHEAD_MAX", "Ballots", "Outcome"]

AHEAD_MAX: Final = SKIP_MAX + 2
"""Votes and proposals are kept for this many views beyond the current one."""

REPEAT_FINALIZE_MAX: Final = 8
"""Finalize votes said again while stuck: those of the highest undecided views."""


class Outcome(Enum):
    """What became of a peer's vote."""

    TAKEN = "taken"
    REFUSED = "refused"
    REPEATED = "repeated"
    """Known, and said again: its sender may be stuck."""


class Ballots(Restraint):
    """All voting above the floor, for one seat."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: Signer,
        verify: Verify,
        live: Live,
        journal: Journal,
        outbox: Outbox,
    ) -> None:
        super().__init__(live)
        self._epoch, self._seat, self._signer, self._verify = epoch, seat, signer, verify
        self._journal, self._outbox = journal, outbox
        self._tallies: dict[int, Tally] = {}
        self._held: Held[Vote] = Held()
        self._cast: list[Vote] = []
        self.durable: dict[tuple[int, VoteKind], Vote] = {}
        """Own votes that may be sent again."""
        self.to_finalize: dict[int, None] = {}
        """Notarized views on which we have not made up our mind."""

    def leader(self, view: int) -> int:
        """The seat that may propose in ``view``: plain rotation."""
        return view % len(self._epoch.validators)

    # --- ours ----------------------------------------------------------------------------

    def cast(self, kind: VoteKind, view: int, digest: bytes, block: Block | None = None) -> None:
        """Sign, and hold until durable; the caller asked whether it may."""
        if view <= self._live.floor:
            raise InvariantError("a vote in a decided view")
        vote = Vote(
            kind=int(kind),
            view=view,
            digest=digest,
            signature=self._signer.sign(self._statement(kind, view, digest)),
        )
        if block is not None:
            self._journal.block(digest, block)
        self.adopt(vote)

    def adopt(self, vote: Vote) -> None:
        """A vote of ours, just signed or shown to us by who remembers it: keep it, then say it."""
        self._note(vote)
        self._journal.vote(vote)
        self._cast.append(vote)

    def nullify(self, view: int) -> None:
        """R6: give ``view`` up, unless we helped to finalize it."""
        if self.may_nullify(view):
            self.cast(VoteKind.NULLIFY, view, b"")
            self._mine[view].in_advance = view > self.view

    def store(self) -> None:
        """One ``Store`` for all votes of this step, after everything else."""
        if self._journal.urgent:
            token = self._held.hold(self._cast)
            self._cast = []
            self._outbox.put(Store(token=token, records=self._journal.take()))

    def persisted(self, token: int) -> None:
        """Our votes are on the disk: they leave, and count."""
        votes = self._held.release(token)
        self.say(votes)
        for vote in votes:
            if vote.view > self._live.low:
                self._release(vote)

    def say(self, votes: Sequence[Vote]) -> None:
        """Durable votes to everybody, in as few messages as hold them."""
        for start in range(0, len(votes), VOTES_MAX):
            some = tuple(votes[start : start + VOTES_MAX])
            self._outbox.broadcast(some[0] if len(some) == 1 else Votes(votes=some))

    def recovered(self, vote: Vote) -> None:
        """A durable vote from before a restart."""
        self._note(vote)
        self._release(vote)

    def repeatable(self) -> list[Vote]:
        """R6: own durable votes that may still matter to somebody."""
        undecided = sorted(v for v, kind in self.durable if kind is VoteKind.FINALIZE)
        keys = [(v, VoteKind.FINALIZE) for v in undecided[-REPEAT_FINALIZE_MAX:]]
        keys.append((self.view, VoteKind.NOTARIZE))
        keys += [(self.view + ahead, VoteKind.NULLIFY) for ahead in range(SKIP_MAX + 1)]
        return [self.durable[key] for key in keys if key in self.durable]

    def _release(self, vote: Vote) -> None:
        kind = VoteKind(vote.kind)
        self.durable[vote.view, kind] = vote
        self._count(self._seat, vote.view, Ballot(kind, vote.digest, vote.signature))

    # --- theirs --------------------------------------------------------------------------

    def receive(self, seat: int, vote: Vote) -> Outcome:
        """A peer's vote from inside the window."""
        kind = VoteKind(vote.kind)
        tally = self._tally(vote.view)
        known = tally.has(seat, kind, vote.digest)
        if tally.rival(seat, kind, vote.digest) is None and (
            known or self._live.holds(vote.view, kind, vote.digest)
        ):
            return Outcome.REPEATED if tally.again(seat, kind) else Outcome.TAKEN
        key = self._epoch.validators[seat].vote_key
        if not self._verify(key, vote.signature, self._statement(kind, vote.view, vote.digest)):
            return Outcome.REFUSED
        self._count(seat, vote.view, Ballot(kind, vote.digest, vote.signature))
        return Outcome.TAKEN

    def own_vote_of(self, seat: int) -> Vote | None:
        """The highest vote of ``seat`` that we hold: it may have forgotten it (R11)."""
        for view in sorted(self._tallies, reverse=True):
            for kind in VoteKind:
                ballot = self._tallies[view].of(seat, kind)
                if ballot is not None:
                    return Vote(int(kind), view, ballot.digest, ballot.signature)
        return None

    def is_own(self, vote: Vote) -> bool:
        """Whether our own key signed ``vote``."""
        key = self._epoch.validators[self._seat].vote_key
        statement = self._statement(VoteKind(vote.kind), vote.view, vote.digest)
        return vote.well_formed and self._verify(key, vote.signature, statement)

    def seen(self, view: int) -> bool:
        """Whether anybody voted in ``view`` or just above."""
        return any(self._tallies.get(view + ahead) for ahead in range(AHEAD_MAX + 1))

    def gave_up(self, view: int) -> bool:
        """R6: whether the leader itself voted to nullify ``view``."""
        tally = self._tallies.get(view)
        return tally is not None and tally.has(self.leader(view), VoteKind.NULLIFY, b"")

    def admit(self, certificates: Sequence[Certificate]) -> bool:
        """Check and take what is new; stop at the first that is false and say so."""
        for certificate in certificates:
            if certificate.view <= self._live.low or self._live.holds(
                certificate.view, certificate.kind, certificate.digest
            ):
                continue
            if not self.proven(certificate):
                return False
            self.take(certificate)
            self._fill_slots(certificate)
        return True

    def proven(self, certificate: Certificate) -> bool:
        """Whether a quorum of this epoch signed ``certificate``."""
        if self._live.holds(certificate.view, certificate.kind, certificate.digest):
            return True
        try:
            check_certificate(certificate, self._epoch, verify=self._sparing(certificate))
        except CredentialError:
            return False
        return True

    def take(self, certificate: Certificate) -> bool:
        """A certificate that we made, checked, or kept; whether it is news."""
        if not self._live.admit(certificate):
            return False
        if certificate.kind == VoteKind.NOTARIZE:
            self.to_finalize[certificate.view] = None
        self._journal.certificate(certificate)
        if certificate.kind == VoteKind.FINALIZE:
            self.forget()  # it may have put old views out of reach
        return True

    def forget(self) -> None:
        """Views up to the floor are decided, and those up to ``Live.low`` out of reach."""
        self._journal.forget(self._live.floor)
        low = self._live.low
        drop_views(self._tallies, low)
        self.drop(low)
        drop_views(self.to_finalize, low)
        for key in [key for key in self.durable if key[0] <= low]:
            del self.durable[key]

    def _count(self, seat: int, view: int, ballot: Ballot) -> None:
        """A verified vote: count it, or show that its signer lied; a quorum is a certificate."""
        tally = self._tally(view)
        rival = tally.rival(seat, ballot.kind, ballot.digest)
        if rival is not None:
            tally.bar(seat, rival.kind, ballot.kind)
            self._accuse(seat, view, rival, ballot)
            return
        if tally.has(seat, ballot.kind, ballot.digest):
            return
        votes = tally.put(seat, ballot)
        if ballot.kind is VoteKind.NULLIFY and seat == self.leader(view):
            self._live.changed = True
        if votes < self._epoch.quorum or self._live.holds(view, ballot.kind, ballot.digest):
            return
        signatures = list(tally.votes(ballot.kind, ballot.digest).items())
        certificate = make_certificate(self._epoch, ballot.kind, view, ballot.digest, signatures)
        if self.take(certificate):
            self._share(certificate)

    def _share(self, certificate: Certificate) -> None:
        """R7: tell it once.

        Votes go to everybody, so that only a view that was waited for in vain, which is rare
        and stops everybody, is told by everybody; else the next leader alone tells the others.
        """
        waited = certificate.kind == VoteKind.NULLIFY and certificate.view <= self.view
        if waited or self.leader(certificate.view + 1) == self._seat:
            self._outbox.broadcast(Certificates(certificates=(certificate,)))

    def _accuse(self, seat: int, view: int, first: Ballot, second: Ballot) -> None:
        kind = "equivocation" if first.kind is second.kind else "nullify_and_finalize"
        proofs = [
            codec.encode(
                make_certificate(
                    self._epoch, said.kind, view, said.digest, [(seat, said.signature)]
                )
            )
            for said in (first, second)
        ]
        self._outbox.put(Evidence(seat=seat, kind=kind, first=proofs[0], second=proofs[1]))

    def _sparing(self, certificate: Certificate) -> Verify:
        """A verify that knows the signatures of this very statement that were counted."""
        tally = self._tallies.get(certificate.view)
        votes = {} if tally is None else tally.votes(VoteKind(certificate.kind), certificate.digest)
        known = {self._epoch.validators[seat].vote_key: votes[seat] for seat in votes}

        def verify(key: bytes, signature: bytes, message: bytes) -> bool:
            return known.get(key) == signature or self._verify(key, signature, message)

        return verify

    def _fill_slots(self, certificate: Certificate) -> None:
        """Its signatures are verified votes: they expose whoever signed otherwise to us."""
        if not self._live.low < certificate.view <= self.view + AHEAD_MAX:
            return
        kind = VoteKind(certificate.kind)
        signatures = iter(certificate.signatures)
        for seat in range(len(self._epoch.validators)):
            if certificate.signers >> seat & 1:
                ballot = Ballot(kind, certificate.digest, next(signatures))
                if seat != self._seat:
                    self._count(seat, certificate.view, ballot)

    def _tally(self, view: int) -> Tally:
        tally = self._tallies.get(view)
        if tally is None:
            tally = self._tallies[view] = Tally()
        return tally

    def _statement(self, kind: VoteKind, view: int, digest: bytes) -> bytes:
        return vote_bytes(self._epoch.ledger, self._epoch.number, kind, view, digest)
