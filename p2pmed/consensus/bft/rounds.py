"""The rules R1 to R8, applied until nothing changes.

Every event changes what is known; ``settle`` then decides what is decided, enters the view
that follows, votes to finalize, proposes or judges, and gives silent leaders up in advance,
in this order, and once more as long as any of it was news.
"""

from __future__ import annotations

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.execution import Execution
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.news import News
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import Pacemaker
from p2pmed.consensus.bft.proposals import Proposals
from p2pmed.consensus.bft.restraint import SKIP_MAX
from p2pmed.consensus.interface import Application, Decide, Header
from p2pmed.engine import Instant
from p2pmed.quorum.certificate import Certificate, VoteKind

__all__ = ["Rounds"]


class Rounds:
    """The course of views, for one seat."""

    def __init__(
        self,
        *,
        live: Live,
        ballots: Ballots,
        proposals: Proposals,
        execution: Execution,
        news: News,
        pacemaker: Pacemaker,
        application: Application,
        outbox: Outbox,
    ) -> None:
        self._live, self._ballots, self._proposals = live, ballots, proposals
        self._execution, self._news, self._pacemaker = execution, news, pacemaker
        self._application, self._outbox = application, outbox
        self.decided_at: Instant | None = None
        """When the floor moved last."""
        self.entered = False
        """Whether a view began since the timers were last looked at."""

    def settle(self, now: Instant) -> None:
        """Apply the rules until nothing changes."""
        live = self._live
        while live.changed:
            live.changed = False
            self._news.lacks = None
            self._decide(now)
            following = live.onward(self._ballots.view)
            if following > self._ballots.view:
                self._enter(following, now)
            if live.top >= self._ballots.view:
                self._news.lacks = self._ballots.view  # somebody is beyond us
            self._finalize()
            self._vote_for_block(now)
            self.skip_ahead(now)

    def has_work(self) -> bool:
        """Whether anything is unfinished: only then do timers run (R1)."""
        live, view = self._live, self._ballots.view
        return (
            bool(live.notarized or live.finalized)
            or live.top >= view
            or view in live.proposals
            or view in live.early
            or self._ballots.seen(view)
            or self._application.pending()
        )

    def skip_ahead(self, now: Instant) -> None:
        """R6, in advance: with our vote in this view we give up those of silent leaders above.

        One flush then carries both votes, and an absent clinic costs no time at all. Then the
        next leader that is there may go on at once.
        """
        ballots, view = self._ballots, self._ballots.view
        if not ballots.has_voted(view):
            return
        if self._pacemaker.quorum_heard(now):
            for following in range(view + 1, view + SKIP_MAX + 1):
                if not self._pacemaker.silent(ballots.leader(following), now):
                    break
                ballots.nullify(following)
        self._proposals.lead_ahead(view)

    def _enter(self, view: int, now: Instant) -> None:
        """R1: what went before is over; only ever upward."""
        ended = view - 1
        lost = ended > self._live.floor and self._live.certified(ended) is None
        leader = self._ballots.leader(ended)
        self._ballots.view = view
        self._pacemaker.entered(lost=lost, leader=leader, now=now)
        self.entered = True
        self._live.changed = True

    def _vote_for_block(self, now: Instant) -> None:
        """R2 to R4, and R6 when the leader itself gave up."""
        ballots, view = self._ballots, self._ballots.view
        if ballots.gave_up(view):
            ballots.nullify(view)
        lacks = self._proposals.lead(view)
        if lacks is None:
            lacks = self._proposals.judge(view, patient=self._pacemaker.patient)
        if lacks is not None:
            self._news.lacks = lacks.view
            self._news.ask(ballots.leader(view), view, now)

    def _finalize(self) -> None:
        """R5: a notarized block that we hold and did not nullify, in whatever view we are."""
        if self._ballots.muted:
            return
        for view in list(self._ballots.to_finalize):
            if not self._ballots.may_finalize(view):
                del self._ballots.to_finalize[view]
                continue
            digest = self._live.notarized[view].digest
            if self._execution.is_valid(digest):
                del self._ballots.to_finalize[view]
                self._ballots.cast(VoteKind.FINALIZE, view, digest, self._live.blocks[digest])

    def _decide(self, now: Instant) -> None:
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
                passed = live.passed_over(block.header)
                self._outbox.put(
                    Decide(block=block, certificate=own if fits else None, passed=passed)
                )
                self._news.remember(digest, block)
            for digest, block in path[-1:]:
                self.move_floor(block.header, digest, certificate, now)

    def move_floor(
        self, header: Header, digest: bytes, certificate: Certificate | None, now: Instant
    ) -> None:
        """``header`` is decided, here or elsewhere."""
        self._live.advance(header, digest, certificate)
        self._ballots.forget()
        self._pacemaker.decided()
        self._execution.look_again()
        self.decided_at = now
