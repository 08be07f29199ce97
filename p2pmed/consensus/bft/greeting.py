"""Before the first vote of a life: did we forget one? (R11, R12)

Rules:

* R11, every start: nothing is signed before ``q - 1`` others said where they stand. They name
  our own newest vote that they hold; one that we do not know means that this disk lost rows
  although it said that they were safe, and R12 follows. It is a net, not a proof.
* R12, a home that knows that it forgot (restored, cloned, wiped), or learnt it by R11: ``q``
  *others* must answer; then it abstains up to a bound, made durable, and votes above it.
* Where nobody could know enough (n = q), and where people gave their word for this home
  (``resumed``), a forgotten vote that is shown is adopted instead, and the life goes on.
* Whoever runs R12 answers nobody: it does not know. All others answer always.

Why the bound is enough. Let K be ``SKIP_MAX``. Suppose that an earlier life voted in view w.

1. A vote to notarize or to finalize in w needs ``cur >= w``, so a certificate of w - 1, or a
   decision there. Its q signers and our q repliers share at least 2q - n >= f + 1 seats, none
   of them ours, so an honest one: it had signed in w - 1 before that life voted, and what it
   signed is durable, so its answer says ``voted >= w - 1``. Hence w <= V + 1 for the V
   below, which is at least what every honest replier says it voted.
2. A vote to nullify may lie up to K views above ``cur``, by the same argument w <= V + 1 + K.
3. V is the highest of the proven current views and of what repliers say that they voted, the
   latter cut at K above the highest proven current view, where no honest vote can be beyond.
   So a liar lifts V by at most K, and never lowers it.

Hence we say nothing up to V + 1, and up to V + 1 + K nothing but what may stand beside a vote
to nullify, which is all except a vote to finalize. Answers carry the round of the question,
so that one given to an earlier life, when V was lower, does not count. It needs n > q, and
at most n - q others down or in R12 at once; else people decide (``mesh resume``).

Seats that recover one after another within one view hold back in it together. With more than
n - q of them the view cannot end, and no rule could end it soundly: each may have voted to
finalize in it, nobody is left who would know, and with a liar among the others both a block
and its nullification could be proved. So they stay silent, say so in ``status``
(``abstains``), and people who know that no old copy of these homes runs give the word for as
many of them as a quorum lacks (``mesh resume``, ``Resumed``). A seat that holds back answers
that it voted up to its bound, so that the next one's V is not too low for what it forgot.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.journal import Journal
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.messages import Hello, Standing, Vote
from p2pmed.consensus.bft.news import ASK_MS, Limit
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.restraint import SKIP_MAX
from p2pmed.consensus.interface import Recovered
from p2pmed.engine import Instant, Rng
from p2pmed.quorum.certificate import Epoch

__all__ = ["ROUND_MAX", "Greeting", "Phase"]

ROUND_MAX: Final = 2**53
"""Rounds are drawn from 1 up to here."""


class Phase(Enum):
    """What a life may do."""

    GREETING = "greeting"
    """It trusts its rows, and asks whether others know better (R11)."""
    RECOVERING = "recovering"
    """It knows that it forgot (R12)."""
    VOTING = "voting"


class Greeting:
    """Hellos asked and answered at the start of a life, for one seat."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        live: Live,
        ballots: Ballots,
        journal: Journal,
        outbox: Outbox,
        rng: Rng,
        amnesic: bool,
        resumed: bool,
    ) -> None:
        self._seats, self._quorum, self._seat = len(epoch.validators), epoch.quorum, seat
        self._live, self._ballots, self._journal = live, ballots, journal
        self._outbox, self._rng = outbox, rng
        self._answers: dict[int, tuple[int, int]] = {}
        """Seat to its proven current view, and the highest view in which it says it voted."""
        self._limit = Limit(ASK_MS)
        self._adopts = resumed or self._seats == self._quorum
        self._round = 0
        self.phase = Phase.VOTING
        if amnesic or epoch.quorum > 1:
            self._ask(Phase.RECOVERING if amnesic else Phase.GREETING)

    @property
    def needed(self) -> int:
        """Answers of others that let this life vote."""
        return self._quorum if self.phase is Phase.RECOVERING else self._quorum - 1

    @property
    def lacking(self) -> int:
        """Answers that are still to come; for people."""
        return 0 if self.phase is Phase.VOTING else max(0, self.needed - len(self._answers))

    def begin(self) -> None:
        """The first step of a life: ask everybody."""
        if self.phase is not Phase.VOTING and self._seats > 1:
            self._outbox.broadcast(Hello(round=self._round))

    def heard(self, seat: int, now: Instant) -> None:
        """``seat`` is there: ask it if it has not answered. No timer is needed for that."""
        if self.phase is Phase.VOTING or seat in self._answers:
            return
        if self._limit.allows(seat, now):
            self._outbox.send(seat, Hello(round=self._round))

    def take(self, seat: int, answer: Standing) -> bool:
        """An answer whose certificate was admitted; whether it was to our question."""
        if self.phase is Phase.VOTING or answer.round != self._round:
            return False
        forgotten = [vote for vote in answer.yours if self._forgot(vote)]
        if self.phase is Phase.GREETING and forgotten:
            if not self._adopts:
                self._ask(Phase.RECOVERING)
                self.begin()
                return True
            for vote in forgotten:
                self._ballots.adopt(vote)
        proven = max((certificate.view + 1 for certificate in answer.admits), default=1)
        self._answers[seat] = (proven, answer.voted)
        if len(self._answers) >= self.needed:
            self._finish()
        return True

    def _forgot(self, vote: Vote) -> bool:
        """Whether we signed ``vote``, in a view that is not over, and do not know of it."""
        return not self._ballots.knows(vote) and self._ballots.is_own(vote)

    def _ask(self, phase: Phase) -> None:
        self.phase = phase
        self._ballots.muted = True
        self._answers.clear()
        self._round = self._rng.randint(1, ROUND_MAX)

    def _finish(self) -> None:
        if self.phase is Phase.RECOVERING:
            current = max(self._ballots.view, *(proven for proven, _ in self._answers.values()))
            voted = max(voted for _, voted in self._answers.values())
            bound = max(current, min(voted, current + SKIP_MAX)) + 1 + SKIP_MAX
            self._journal.abstain(bound)
            self._ballots.abstain(bound)
            self._outbox.put(Recovered())
        self.phase = Phase.VOTING
        self._ballots.muted = False
        self._live.changed = True
