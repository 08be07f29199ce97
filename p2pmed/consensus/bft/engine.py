"""Simplex with a leader per view: the engine of a mesh that may hold up to ``f`` liars.

Views 1, 2, 3, … each have one leader, by rotation. A validator says three things of a view,
each at most once: *notarize* the leader's block, *nullify* the view, or *finalize* the block
after a quorum notarized it. A quorum of equal votes is a certificate; any certificate ends
the view. There is no lock and no view change, because three local rules suffice:

1. at most one notarize vote per view (R4);
2. never both nullify and finalize in one view (R5, R6);
3. notarize only on a certified parent, with proof that every view between was nullified (R3).

All three speak of what was *signed*, so a vote is durable before it is sent or counted.
With quorums that share an honest node, a finalized block is an ancestor of every block
certified later (proof: ``docs/protocols/bft.md``, clause 8).

How to read it: every event changes what is known (``_on_…``); ``_settle`` then applies the
rules R2 to R8 until nothing changes; ``_pace`` sets the timers. A vote that makes no
certificate never gets further than its tally.

Not here: fetching decided blocks (``Behind`` asks for it), the hello check of R11 and the
amnesia protocol of R12 (a node that cannot trust its rows is not given an engine).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from p2pmed.consensus.bft.ballots import AHEAD_MAX, Ballots, Outcome
from p2pmed.consensus.bft.execution import Execution
from p2pmed.consensus.bft.journal import Journal
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.messages import (
    CONTENT_BYTES_MAX,
    Ask,
    Body,
    Certificates,
    Decided,
    Proposal,
    Vote,
    decode_message,
)
from p2pmed.consensus.bft.news import ASK_MS, Claim, News
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import DELTA_MS, Pacemaker
from p2pmed.consensus.bft.proposals import Proposals
from p2pmed.consensus.interface import (
    Application,
    Block,
    Certified,
    ConsensusEffect,
    ConsensusEvent,
    Decide,
    Header,
    Heard,
    Receive,
    Signer,
    Work,
    header_digest,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted, Rng, earliest
from p2pmed.errors import DecodeError
from p2pmed.quorum.certificate import Certificate, Epoch, Verify, VoteKind
from p2pmed.wire import cose

__all__ = ["BftEngine"]

RACE_VIEWS: Final = 3
"""A vote this little below a floor that just moved was on its way: no answer needed."""


class BftEngine:
    """One validator of one epoch; satisfies ``ConsensusEngine``.

    Nothing a peer sends raises. Raises ``StorageError`` at the start if a row cannot be read,
    ``LocalProtocolError`` if the application builds a block beyond ``CONTENT_BYTES_MAX``.
    """

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: Signer,
        application: Application,
        rng: Rng,
        records: Mapping[bytes, bytes],
        tip: Header | None,
        tip_certificate: Certificate | None,
        now: Instant,
        verify: Verify = cose.verify,
    ) -> None:
        epoch.check()
        self._epoch, self._seat = epoch, seat
        self._application, self._rng, self._now = application, rng, now
        self._live = Live(epoch, tip, tip_certificate)
        self._outbox = Outbox()
        self._news = News(self._live)
        self._execution = Execution(self._live, application)
        self._journal = Journal()
        self._ballots = Ballots(
            epoch=epoch,
            seat=seat,
            signer=signer,
            verify=verify,
            live=self._live,
            journal=self._journal,
            outbox=self._outbox,
        )
        self._proposals = Proposals(
            epoch=epoch,
            seat=seat,
            application=application,
            live=self._live,
            ballots=self._ballots,
            execution=self._execution,
            outbox=self._outbox,
        )
        self._pacemaker = Pacemaker(
            seats=len(epoch.validators), seat=seat, quorum=epoch.quorum, rng=rng, now=now
        )
        self._view = self._live.floor + 1
        self._decided_at: Instant | None = None
        self._ask_at: Instant | None = None
        self._unheard = False
        """Peers may have missed what we said: say it again as soon as timers run."""
        self._refused = 0
        self._recover(records)

    # --- the shape of every core ---------------------------------------------------------

    @property
    def deadline(self) -> Instant | None:
        """When to step with ``DeadlineReached``; ``None`` while idle or without a quorum."""
        if not self._pacemaker.armed:
            return None
        return earliest(self._give_up_at(), self._pacemaker.repeat_at, self._ask_at)

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        """Take one event; return effects, to be carried out in this order."""
        self._now = now
        match event:
            case Receive():
                self._on_receive(event)
            case Heard():
                self._pacemaker.heard(event.sender, now)
            case Work():
                self._execution.look_again()
            case Certified():
                self._on_certified(event)
            case Persisted():
                self._ballots.persisted(event.token)
            case DeadlineReached():
                self._on_deadline()
        self._settle()
        self._pace()
        self._complain(insist=False)
        self._ballots.store()
        return self._outbox.take()

    def status(self) -> Mapping[str, int | str]:
        """For people: view, floor (a view), height, leader's seat, delta in milliseconds."""
        return {
            "view": self._view,
            "floor": self._live.floor,
            "height": self._live.height,
            "leader": self._ballots.leader(self._view),
            "delta_ms": self._pacemaker.delta,
            "refused": self._refused,
        }

    # --- events --------------------------------------------------------------------------

    def _on_receive(self, event: Receive) -> None:
        sender = event.sender
        if not 0 <= sender < len(self._epoch.validators) or sender == self._seat:
            return
        self._pacemaker.heard(sender, self._now)
        try:
            message = decode_message(event.message)
        except DecodeError:
            self._refused += 1
            return
        match message:
            case Vote():
                self._on_vote(sender, message)
            case Proposal():
                self._on_proposal(sender, message)
            case Certificates():
                self._admit(*message.certificates)
            case Decided():
                self._on_decided(sender, message)
            case Ask():
                self._outbox.send(sender, *self._news.answer(message, sender, self._now))
            case Body():
                self._on_body(message.block)

    def _on_vote(self, sender: int, vote: Vote) -> None:
        """R0: inside the window it is counted; below, its sender is told (R9); above, asked."""
        if not vote.well_formed:
            self._refused += 1
        elif vote.view <= self._live.low:
            self._correct(sender, vote.view)
        elif vote.view > self._view + AHEAD_MAX:
            self._ask(sender)
        else:
            outcome = self._ballots.receive(sender, vote)
            if outcome is Outcome.REFUSED:
                self._refused += 1
            elif outcome is Outcome.REPEATED and vote.view < self._view:
                self._correct(sender, vote.view)

    def _on_proposal(self, sender: int, proposal: Proposal) -> None:
        """R3: from the leader of its view only, and the first one wins."""
        header = proposal.block.header
        if not self._proposals.believable(sender, proposal):
            self._refused += 1
            return
        if header.view <= self._live.low:
            self._correct(sender, header.view)
            return
        self._admit(*proposal.justification)
        self._settle()  # its certificates may bring us up to its view
        if header.view > self._view + AHEAD_MAX:
            self._ask(sender)
            return
        if header.view > self._live.low:
            self._proposals.keep(proposal.block)

    def _on_decided(self, sender: int, decided: Decided) -> None:
        """R9: the sender's floor, proved; if it cannot be connected, we are behind."""
        header, certificate = decided.header, decided.certificate
        if header.view <= self._live.floor:
            return
        if (
            certificate.kind != VoteKind.FINALIZE
            or certificate.view != header.view
            or certificate.digest != header_digest(header)
        ):
            self._refused += 1
        elif self._admit(certificate):
            self._news.claim = Claim(header.view, header.height, sender)

    def _on_body(self, block: Block) -> None:
        digest = header_digest(block.header)
        if digest in self._live.bodiless and len(block.content) <= CONTENT_BYTES_MAX:
            self._live.add_block(digest, block)

    def _on_certified(self, event: Certified) -> None:
        """Decided elsewhere, stored and applied by the driver: move on, possibly over views."""
        header = event.header
        if header.height <= self._live.height or header.view <= self._live.floor:
            return
        digest = header_digest(header)
        own = event.certificate.view == header.view and event.certificate.digest == digest
        self._move_floor(header, digest, event.certificate if own else None)

    def _on_deadline(self) -> None:
        if not self._pacemaker.armed or not self._has_work():
            return  # decided blocks are applied after the step that decided them
        if not self._pacemaker.quorum_heard(self._now):
            self._pacemaker.rest()
            self._unheard = True
            return
        give_up_at = self._give_up_at()
        if give_up_at is not None and self._now >= give_up_at:
            self._ballots.nullify(self._view)
        if self._ask_at is not None and self._now >= self._ask_at:
            self._ask_at = None
            self._ask(self._some_seat())
        repeat_at = self._pacemaker.repeat_at
        if repeat_at is not None and self._now >= repeat_at:
            self._repeat()

    # --- the rules, until nothing changes --------------------------------------------------

    def _settle(self) -> None:
        while self._live.changed:
            self._live.changed = False
            self._news.lacks = None
            self._decide()
            if self._live.top >= self._view:
                self._enter(self._live.top + 1)
            self._finalize()
            self._vote_for_block()

    def _enter(self, view: int) -> None:
        """R1: a certificate ended the view before; only ever upward."""
        ended = view - 1
        lost = ended > self._live.floor and self._live.certified(ended) is None
        self._view = self._ballots.view = view
        self._pacemaker.entered(lost=lost, leader=self._ballots.leader(ended), now=self._now)
        self._ask_at = None
        self._live.changed = True

    def _vote_for_block(self) -> None:
        """R2 to R4, and R6 when the leader itself gave up."""
        view = self._view
        if self._ballots.gave_up(view):
            self._ballots.nullify(view)
        patient = self._pacemaker.patient
        lacks = self._proposals.lead(view) or self._proposals.judge(view, patient=patient)
        if lacks is not None:
            self._news.lacks = lacks.view
            self._ask(self._ballots.leader(view))

    def _finalize(self) -> None:
        """R5: a notarized block that we hold and did not nullify, in whatever view we are."""
        for view in list(self._ballots.to_finalize):
            if not self._ballots.may_finalize(view):
                del self._ballots.to_finalize[view]
                continue
            digest = self._live.notarized[view].digest
            if self._execution.is_valid(digest):
                del self._ballots.to_finalize[view]
                self._ballots.cast(VoteKind.FINALIZE, view, digest, self._live.blocks[digest])

    def _decide(self) -> None:
        """R8: with all ancestors down to the floor in hand, the block and they are final."""
        live = self._live
        for view in sorted(live.finalized):
            certificate = live.finalized.get(view)
            if certificate is None or not self._execution.is_valid(certificate.digest):
                continue
            path = live.path(certificate.digest) or []
            heights = [block.header.height for _, block in path]
            if heights != list(range(live.height + 1, live.height + 1 + len(path))):
                continue  # more liars than agreed on: never hand out what does not fit
            for digest, block in path:
                own = live.finalized.get(block.header.view)
                fits = own is not None and own.digest == digest
                self._outbox.put(Decide(block=block, certificate=own if fits else None))
                self._news.remember(digest, block)
            for digest, block in path[-1:]:
                self._move_floor(block.header, digest, certificate)

    def _move_floor(self, header: Header, digest: bytes, certificate: Certificate | None) -> None:
        self._live.advance(header, digest, certificate)
        self._ballots.forget()
        self._pacemaker.decided()
        self._execution.look_again()
        self._decided_at = self._now
        if self._view <= header.view:
            self._enter(header.view + 1)

    # --- time ------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        """Whether anything is unfinished: only then do timers run (R1)."""
        live = self._live
        return (
            bool(live.notarized or live.finalized)
            or self._view in live.proposals
            or self._ballots.seen(self._view)
            or self._application.pending()
        )

    def _give_up_at(self) -> Instant | None:
        if not self._ballots.may_nullify(self._view):
            return None
        return self._pacemaker.give_up_at(proposal_seen=self._view in self._live.proposals)

    def _pace(self) -> None:
        """R1: arm the timers when there is work and a quorum to do it with."""
        pacemaker, now = self._pacemaker, self._now
        if not self._has_work():
            pacemaker.rest()
            self._ask_at = None
            return
        if not pacemaker.armed:
            if not pacemaker.quorum_heard(now):
                self._unheard = True
                return
            pacemaker.arm(now)
            if pacemaker.silent(self._ballots.leader(self._view), now):
                self._ballots.nullify(self._view)
            if self._unheard:
                self._unheard = False
                self._repeat()
        if not self._news.wanted:
            self._ask_at = None
        elif self._ask_at is None:
            self._ask_at = Instant(now + ASK_MS)

    def _repeat(self) -> None:
        """R6: say again what stands, and ask somebody for news."""
        self._pacemaker.repeated(self._now)
        view, live, ballots = self._view, self._live, self._ballots
        if view - 1 == live.floor:
            self._outbox.broadcast(*self._news.floor())
        else:
            self._outbox.broadcast(*self._news.certificates(view - 1))
        digest = ballots.notarized_by_us(view)
        if digest in live.blocks and ballots.leader(view) == self._seat:
            self._outbox.broadcast(self._proposals.message(live.blocks[digest]))
        self._outbox.broadcast(*ballots.repeatable())
        self._ask(self._some_seat())
        self._complain(insist=True)

    # --- talking about it --------------------------------------------------------------------

    def _admit(self, *certificates: Certificate) -> bool:
        if self._ballots.admit(certificates):
            return True
        self._refused += 1
        return False

    def _correct(self, seat: int, view: int) -> None:
        """R9: ``seat`` speaks of a view that is over; prove it, unless it was just a race."""
        at, floor = self._decided_at, self._live.floor
        raced = at is not None and self._now - at < DELTA_MS and floor - view < RACE_VIEWS
        if not raced:
            self._outbox.send(seat, *self._news.correction(seat, view, self._now))

    def _ask(self, seat: int) -> None:
        if seat != self._seat:
            question = self._news.question(seat, self._view, self._now)
            if question is not None:
                self._outbox.send(seat, question)

    def _some_seat(self) -> int:
        seats = self._pacemaker.speakers(self._now)
        return seats[self._rng.randint(0, len(seats) - 1)] if seats else self._seat

    def _complain(self, *, insist: bool) -> None:
        behind = self._news.behind(self._now, insist=insist)
        if behind is not None:
            self._outbox.put(behind)

    # --- restart -----------------------------------------------------------------------------

    def _recover(self, records: Mapping[bytes, bytes]) -> None:
        """R11: rebuild from all rows; the view follows from the highest of them."""
        recovered = self._journal.recover(records, self._live.floor)
        for digest, block in recovered.blocks:
            self._live.add_block(digest, block)
        for certificate in recovered.certificates:
            self._ballots.take(certificate)
        highest = max((vote.view for vote in recovered.votes), default=0)
        self._view = self._ballots.view = max(highest, self._live.top + 1, self._view)
        for vote in recovered.votes:
            if vote.kind == VoteKind.NOTARIZE:
                self._live.proposals[vote.view] = vote.digest
            self._ballots.recovered(vote)
        self._unheard = bool(recovered.votes)
        self._pace()
