"""What peers say, admitted or refused, and those who lag put right (R0, R3, R9, R10).

Nothing a peer sends raises. A message that is refused is counted and changes nothing.
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.bft.ballots import AHEAD_MAX, Ballots, Outcome
from p2pmed.consensus.bft.greeting import Greeting, Phase
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.messages import (
    CONTENT_BYTES_MAX,
    Ask,
    Body,
    Certificates,
    Decided,
    Hello,
    Proposal,
    Standing,
    Vote,
    Votes,
    decode_message,
)
from p2pmed.consensus.bft.news import Claim, News
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import DELTA_MS, Pacemaker
from p2pmed.consensus.bft.proposals import Proposals
from p2pmed.consensus.bft.reads import Reads, head_of
from p2pmed.consensus.bft.rounds import Rounds
from p2pmed.consensus.interface import Block, header_digest
from p2pmed.engine import Instant
from p2pmed.errors import DecodeError
from p2pmed.quorum.certificate import Certificate, VoteKind

__all__ = ["Intake"]

RACE_VIEWS: Final = 3
"""A vote this little below a floor that just moved was on its way: no answer needed."""


class Intake:
    """Messages in, for one seat."""

    def __init__(
        self,
        *,
        live: Live,
        ballots: Ballots,
        proposals: Proposals,
        rounds: Rounds,
        news: News,
        pacemaker: Pacemaker,
        greeting: Greeting,
        reads: Reads,
        outbox: Outbox,
    ) -> None:
        self._live, self._ballots, self._proposals = live, ballots, proposals
        self._rounds, self._news, self._outbox = rounds, news, outbox
        self._pacemaker, self._greeting, self._reads = pacemaker, greeting, reads
        self._now = Instant(0)
        self.refused = 0
        """Messages that were no use to anybody; for people."""

    def receive(self, sender: int, raw: bytes, now: Instant) -> None:
        """A message from a seat that is not ours, as its channel proved."""
        self._now = now
        try:
            message = decode_message(raw)
        except DecodeError:
            self.refused += 1
            return
        match message:
            case Vote():
                self._on_vote(sender, message)
            case Votes():
                for vote in message.votes:
                    self._on_vote(sender, vote)
            case Proposal():
                self._on_proposal(sender, message)
            case Certificates():
                self._admit(*message.certificates)
            case Decided():
                self._on_decided(sender, message)
            case Ask():
                self._outbox.send(sender, *self._news.answer(message, sender, now))
            case Body():
                self._on_body(message.block)
            case Hello():
                self._on_hello(sender, message)
            case Standing():
                self._on_standing(sender, message)

    def _on_vote(self, sender: int, vote: Vote) -> None:
        """R0: inside the window it is counted; below, its sender is told (R9); above, asked."""
        view = self._ballots.view
        if not vote.well_formed:
            self.refused += 1
        elif vote.view <= self._live.low:
            self._correct(sender, vote.view)
        elif vote.view > view + AHEAD_MAX:
            self._news.ask(sender, view, self._now)
        else:
            outcome = self._ballots.receive(sender, vote)
            if outcome is Outcome.TAKEN and vote.kind != VoteKind.NULLIFY:
                self._pacemaker.took_part(sender)
            if outcome is Outcome.REFUSED:
                self.refused += 1
            elif outcome is Outcome.REPEATED and vote.view < view:
                self._correct(sender, vote.view)

    def _on_proposal(self, sender: int, proposal: Proposal) -> None:
        """R3: from the leader of its view only, and the first one wins."""
        header = proposal.block.header
        if not self._proposals.believable(sender, proposal):
            self.refused += 1
            return
        if header.view <= self._live.low:
            self._correct(sender, header.view)
            return
        self._admit(*proposal.justification)
        self._rounds.settle(self._now)  # its certificates may bring us up to its view
        if header.view > self._ballots.view + AHEAD_MAX:
            self._news.ask(sender, self._ballots.view, self._now)
        elif header.view > self._live.low:
            self._proposals.keep(proposal.block)
            if header.parent_view < self._ballots.view < header.view:
                # not sent in advance: its leader knows that the view we are in is over
                self._news.ask(sender, self._ballots.view, self._now)

    def _on_decided(self, sender: int, decided: Decided) -> None:
        """R9: the sender's floor, proved; if it cannot be connected, we are behind."""
        header, certificate = decided.header, decided.certificate
        if header.view <= self._live.floor:
            return
        if certificate.kind != VoteKind.FINALIZE or not _about(decided):
            self.refused += 1
        elif self._admit(certificate):
            self._news.heard_of(Claim(header.view, header.height, sender))

    def _on_body(self, block: Block) -> None:
        digest = header_digest(block.header)
        if digest in self._live.bodiless and len(block.content) <= CONTENT_BYTES_MAX:
            self._live.add_block(digest, block)

    def _on_hello(self, sender: int, hello: Hello) -> None:
        """R11 to R13: where we stand, unless we do not know it ourselves."""
        live, ballots = self._live, self._ballots
        if self._greeting.phase is Phase.RECOVERING or not self._news.may_greet(sender, self._now):
            return
        own = ballots.own_vote_of(sender)
        self._outbox.send(
            sender,
            Standing(
                round=hello.round,
                voted=ballots.voted(),
                admits=() if live.highest is None else (live.highest,),
                head=head_of(live, ballots),
                yours=() if own is None else (own,),
            ),
        )

    def _on_standing(self, sender: int, answer: Standing) -> None:
        """R11 to R13: an answer counts only with all that it shows proved."""
        proofs = (*answer.admits, *(head.certificate for head in answer.head))
        if not all(map(_about, answer.head)) or not all(map(self._proven, proofs)):
            self.refused += 1
            return
        self._ballots.admit(proofs)
        for head in answer.head:
            if head.certificate.kind == VoteKind.FINALIZE:
                self._on_decided(sender, head)
        taken = self._greeting.take(sender, answer)
        if not self._reads.take(sender, answer, self._now) and not taken:
            self.refused += 1

    def _proven(self, certificate: Certificate) -> bool:
        return certificate.view <= self._live.floor or self._ballots.proven(certificate)

    def _admit(self, *certificates: Certificate) -> bool:
        if self._ballots.admit(certificates):
            return True
        self.refused += 1
        return False

    def _correct(self, seat: int, view: int) -> None:
        """R9: ``seat`` speaks of a view that is over; prove it, unless it was just a race."""
        at, floor = self._rounds.decided_at, self._live.floor
        raced = at is not None and self._now - at < DELTA_MS and floor - view < RACE_VIEWS
        if not raced:
            self._outbox.send(seat, *self._news.correction(seat, view, self._now))


def _about(decided: Decided) -> bool:
    """Whether the certificate is one of this header, notarized or finalized."""
    header, certificate = decided.header, decided.certificate
    return (certificate.view, certificate.digest) == (header.view, header_digest(header))
