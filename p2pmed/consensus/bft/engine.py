"""Simplex with a leader per view: the engine of a mesh that may hold up to ``f`` liars.

Views 1, 2, 3, … each have one leader, by rotation. A validator says three things of a view,
each at most once: *notarize* the leader's block, *nullify* the view, or *finalize* the block
after a quorum notarized it. A quorum of equal votes is a certificate; a certificate ends
the view. There is no lock and no view change, because three local rules suffice:

1. at most one notarize vote per view (R4);
2. never both nullify and finalize in one view (R5, R6);
3. notarize only on a certified parent, with proof that every view between was nullified (R3).

All three speak of what was *signed*, so a vote is durable before it is sent or counted.
With quorums that share an honest node, a finalized block is an ancestor of every block
certified later (proof: ``docs/protocols/bft.md``, clause 8).

How to read it: ``intake`` takes messages in; ``rounds`` applies the rules R1 to R8 until
nothing changes; here time passes (R1, R6), and a life begins (R11, R12: ``greeting``). A vote
that makes no certificate never gets further than its tally.

Not here: fetching decided blocks (``Behind`` asks for it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.execution import Execution
from p2pmed.consensus.bft.greeting import Greeting, Phase
from p2pmed.consensus.bft.intake import Intake
from p2pmed.consensus.bft.journal import Journal
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.news import ASK_MS, News
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import Pacemaker
from p2pmed.consensus.bft.proposals import Proposals
from p2pmed.consensus.bft.reads import Reads
from p2pmed.consensus.bft.restraint import SKIP_MAX
from p2pmed.consensus.bft.rounds import Rounds
from p2pmed.consensus.interface import (
    Application,
    Certified,
    ConsensusEffect,
    ConsensusEvent,
    Header,
    Heard,
    Leave,
    Read,
    Receive,
    Resumed,
    Signer,
    Work,
    header_digest,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted, Rng, earliest
from p2pmed.quorum.certificate import Certificate, Epoch, Verify, VoteKind
from p2pmed.wire import cose

__all__ = ["BftEngine"]


class BftEngine:
    """One validator of one epoch; satisfies ``ConsensusEngine``.

    ``amnesic``: the rows may lack votes that were sent (restored, cloned or wiped home); it
    then votes only after ``Recovered``. ``resumed``: people gave their word that it may vote
    all the same. Nothing a peer sends raises. Raises ``StorageError``
    at the start if a row cannot be read, ``LocalProtocolError`` if the application builds a
    block beyond ``CONTENT_BYTES_MAX``.
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
        amnesic: bool = False,
        resumed: bool = False,
    ) -> None:
        epoch.check()
        self._epoch, self._seat, self._rng, self._now = epoch, seat, rng, now
        live = self._live = Live(epoch, tip, tip_certificate)
        outbox = self._outbox = Outbox()
        self._news = News(live, outbox, seat)
        self._execution = Execution(live, application)
        self._journal = Journal()
        ballots = self._ballots = Ballots(
            epoch=epoch,
            seat=seat,
            signer=signer,
            verify=verify,
            live=live,
            journal=self._journal,
            outbox=outbox,
        )
        self._proposals = Proposals(
            epoch=epoch,
            seat=seat,
            application=application,
            live=live,
            ballots=ballots,
            execution=self._execution,
            outbox=outbox,
        )
        self._pacemaker = Pacemaker(
            seats=len(epoch.validators), seat=seat, quorum=epoch.quorum, rng=rng, now=now
        )
        self._rounds = Rounds(
            live=live,
            ballots=ballots,
            proposals=self._proposals,
            execution=self._execution,
            news=self._news,
            pacemaker=self._pacemaker,
            application=application,
            outbox=outbox,
        )
        self._reads = Reads(epoch=epoch, live=live, ballots=ballots, outbox=outbox, rng=rng)
        self._ask_at: Instant | None = None
        self._unheard = False
        """Peers may have missed what we said: say it again as soon as timers run."""
        self._recover(records)
        self._greeting = Greeting(
            epoch=epoch,
            seat=seat,
            live=live,
            ballots=ballots,
            journal=self._journal,
            outbox=outbox,
            rng=rng,
            amnesic=amnesic,
            resumed=resumed,
        )
        self._intake = Intake(
            live=live,
            ballots=ballots,
            proposals=self._proposals,
            rounds=self._rounds,
            news=self._news,
            pacemaker=self._pacemaker,
            greeting=self._greeting,
            reads=self._reads,
            outbox=outbox,
        )
        self._greeting.begin()
        self._pace()

    # --- the shape of every core ---------------------------------------------------------

    @property
    def deadline(self) -> Instant | None:
        """When to step with ``DeadlineReached``; ``None`` while idle or without a quorum."""
        if not self._pacemaker.armed:
            return self._reads.deadline
        return earliest(
            self._give_up_at(), self._pacemaker.repeat_at, self._ask_at, self._reads.deadline
        )

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        """Take one event; return effects, to be carried out in this order."""
        self._now, muted = now, self._ballots.muted
        match event:
            case Receive():
                if 0 <= event.sender < len(self._epoch.validators) and event.sender != self._seat:
                    self._heard(event.sender)
                    self._intake.receive(event.sender, event.message, now)
            case Heard():
                self._heard(event.sender)
            case Work():
                self._execution.look_again()
            case Certified():
                self._on_certified(event)
            case Read():
                sure = self._greeting.phase is not Phase.RECOVERING
                self._reads.read(event.token, now, sure=sure)
            case Leave():
                self._leave()
            case Resumed():
                self._journal.vote_again()
                self._ballots.vote_again()
                self._live.changed = True
            case Persisted():
                self._ballots.persisted(event.token)
            case DeadlineReached():
                self._on_deadline()
        if muted and not self._ballots.muted:
            self._rest()  # what time would have made us say was not said
        self._rounds.settle(now)
        self._pace()
        self._complain(insist=False)
        self._ballots.store()
        return self._outbox.take()

    def status(self) -> Mapping[str, int | str]:
        """For people: view, floor (a view), height, leader's seat, delta in milliseconds.

        ``phase`` is ``voting``, or what is waited for before, from so many more seats.
        ``abstains``: views, with the present one, in which nothing is said (R12).
        """
        return {
            "view": self._ballots.view,
            "floor": self._live.floor,
            "height": self._live.height,
            "leader": self._ballots.leader(self._ballots.view),
            "delta_ms": self._pacemaker.delta,
            "refused": self._intake.refused,
            "phase": self._greeting.phase.value,
            "abstains": self._ballots.abstains_for,
            "lacking": self._greeting.lacking,
        }

    # --- events --------------------------------------------------------------------------

    def _heard(self, seat: int) -> None:
        self._pacemaker.heard(seat, self._now)
        self._greeting.heard(seat, self._now)

    def _on_certified(self, event: Certified) -> None:
        """Decided elsewhere, stored and applied by the driver: move on, possibly over views."""
        header = event.header
        self._live.proves(event.certificate)
        if header.height <= self._live.height or header.view <= self._live.floor:
            return
        digest = header_digest(header)
        own = event.certificate.view == header.view and event.certificate.digest == digest
        self._rounds.move_floor(header, digest, event.certificate if own else None, self._now)

    def _leave(self) -> None:
        """A leader that stops gives its view up, so that nobody waits for it (R6)."""
        view = self._ballots.view
        if self._ballots.leader(view) == self._seat and self._ballots.may_notarize(view):
            self._ballots.nullify(view)

    def _on_deadline(self) -> None:
        self._reads.tick(self._now)
        if not self._pacemaker.armed or not self._rounds.has_work():
            return  # decided blocks are applied after the step that decided them
        if not self._pacemaker.quorum_heard(self._now):
            self._rest()
            self._unheard = True
            return
        give_up_at = self._give_up_at()
        if give_up_at is not None and self._now >= give_up_at:
            self._pacemaker.missed(self._ballots.leader(self._ballots.view))
            self._give_up()
        if self._ask_at is not None and self._now >= self._ask_at:
            self._ask_at = None
            self._news.ask(self._some_seat(), self._ballots.view, self._now)
        repeat_at = self._pacemaker.repeat_at
        if repeat_at is not None and self._now >= repeat_at:
            self._repeat()

    # --- time ------------------------------------------------------------------------------

    def _give_up_at(self) -> Instant | None:
        view = self._ballots.view
        if not self._ballots.may_nullify(view):
            return None
        return self._pacemaker.give_up_at(
            proposal_seen=view in self._live.proposals, undecided=view - self._live.floor
        )

    def _give_up(self) -> None:
        """R6: vote against this view, and those of silent leaders after it."""
        self._ballots.nullify(self._ballots.view)
        self._rounds.skip_ahead(self._now)

    def _rest(self) -> None:
        self._pacemaker.rest()
        self._ask_at = None

    def _pace(self) -> None:
        """R1: arm the timers when there is work and a quorum to do it with."""
        pacemaker, now = self._pacemaker, self._now
        if self._rounds.entered:
            self._rounds.entered, self._ask_at = False, None
        if not self._rounds.has_work():
            self._rest()
            return
        if not pacemaker.armed:
            if not pacemaker.quorum_heard(now):
                self._unheard = True
                return
            pacemaker.arm(now)
            if pacemaker.silent(self._ballots.leader(self._ballots.view), now):
                self._give_up()
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
        view, live, ballots = self._ballots.view, self._live, self._ballots
        if view - 1 == live.floor:
            self._outbox.broadcast(*self._news.floor())
        else:
            self._outbox.broadcast(*self._news.certificates(view - 1))
        digest = ballots.notarized_by_us(view)
        if digest in live.blocks and ballots.leader(view) == self._seat:
            self._outbox.broadcast(self._proposals.message(live.blocks[digest]))
        ballots.say(ballots.repeatable())
        self._news.ask(self._some_seat(), view, self._now)
        self._complain(insist=True)

    def _some_seat(self) -> int:
        seats = self._pacemaker.speakers(self._now)
        return seats[self._rng.randint(0, len(seats) - 1)] if seats else self._seat

    def _complain(self, *, insist: bool) -> None:
        behind = self._news.behind(self._now, insist=insist)
        if behind is not None:
            self._outbox.put(behind)

    # --- restart -----------------------------------------------------------------------------

    def _recover(self, records: Mapping[bytes, bytes]) -> None:
        """R11: rebuild from all rows; the view follows from the highest of them.

        A vote to nullify may have been given up to ``SKIP_MAX`` views before its view came.
        """
        recovered = self._journal.recover(records, self._live.floor)
        for digest, block in recovered.blocks:
            self._live.add_block(digest, block)
        for certificate in recovered.certificates:
            self._ballots.take(certificate)
        for vote in recovered.votes:
            advance = SKIP_MAX if vote.kind == VoteKind.NULLIFY else 0
            self._ballots.view = max(self._ballots.view, vote.view - advance)
        self._ballots.view = self._live.onward(self._ballots.view)
        for vote in recovered.votes:
            if vote.kind == VoteKind.NOTARIZE:
                self._live.proposals[vote.view] = vote.digest
            self._ballots.recovered(vote)
        self._ballots.abstain(recovered.abstain_until)
        self._unheard = bool(recovered.votes)
