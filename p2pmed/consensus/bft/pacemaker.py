"""How long to wait for a leader, and for whom not to wait at all (R1, R6).

Rules:

* Time only ever makes a node vote to nullify or repeat itself: nothing here touches safety.
* No timer runs while there is nothing to order, nor while fewer than a quorum are heard;
  an idle or cut-off mesh writes nothing and its views stand still.
* The wait doubles with each consecutive view that was lost, at most ``DOUBLINGS_MAX`` times,
  and falls back at once when something is decided (tendermint#1464: it must not grow for
  hours). A silent leader's view says nothing about the network and is not counted, unless a
  whole rotation was lost: then our idea of silence is too short.

Views that nothing decides cost memory and rows. Beyond ``LIVE_VIEWS_MAX`` above the floor each
one waits twice as long as the one before, so that their number grows with the logarithm of
time: after a year fewer than thirty more. It stays live: a leader that is there and honest
needs no time-out, and any liar's turn ends. One decision and all is as at the start.

A leader that was silent for ``SILENT_DELTAS`` of the first delta, or for the present delta if
that is longer, while a quorum of others spoke, is not waited for. That is each node's own
judgement; nobody needs to agree on who is absent. Silence is measured in pings, which come
every second whatever the delta: if it grew sixfold with the delta, clinics that vanish
together would always be waited for a little longer than they have been gone.

A leader that was waited for in vain is not waited for again until it votes for a block, which
shows that it is not only there but also up to date: a clinic that leaves costs one time-out,
and one that returns, and has days of blocks to fetch, one more. If a whole rotation is lost,
that too was not one leader's fault, and everybody is waited for again.
"""

from __future__ import annotations

from typing import Final

from p2pmed.engine import Instant, Rng
from p2pmed.limits import PING_MS

__all__ = ["DELTA_MS", "DOUBLINGS_MAX", "LIVE_VIEWS_MAX", "Pacemaker"]

DELTA_MS: Final = 200
"""One message and one flush on a poor machine, with room (consensus notes, section 3.3)."""
DOUBLINGS_MAX: Final = 5
"""Never above 32 deltas of the start."""
LIVE_VIEWS_MAX: Final = 256
"""Undecided views that are left in the usual time: an hour of bad luck at the slowest pace."""
PATIENCE_MAX: Final = 20
"""Doublings beyond that; then a view lasts months."""
LEADER_DELTAS: Final = 2
"""Until a proposal must have come."""
ADVANCE_DELTAS: Final = 3
"""Until the view must be certified."""
SILENT_DELTAS: Final = 6
"""More than one ping, which any living peer sends in time."""
REPEAT_DELTAS: Final = 4
REPEAT_MS_MAX: Final = 30_000

assert SILENT_DELTAS * DELTA_MS >= PING_MS + DELTA_MS
assert LEADER_DELTAS < ADVANCE_DELTAS < REPEAT_DELTAS < SILENT_DELTAS


class Pacemaker:
    """Timers of the current view and who was heard when; instants in, instants out."""

    def __init__(self, *, seats: int, seat: int, quorum: int, rng: Rng, now: Instant) -> None:
        self._seat = seat
        self._others_needed = quorum - 1
        self._rng = rng
        self._started = now
        self._heard: list[Instant | None] = [None] * seats
        self._missed: dict[int, None] = {}
        """Seats that were waited for in vain and voted for nothing since."""
        self._lost = 0
        self._slow = 0
        self._repeats = 0
        self._armed_at: Instant | None = None
        self.repeat_at: Instant | None = None
        """When to say again what we said."""

    @property
    def delta(self) -> int:
        """The present estimate of one message and one flush, in milliseconds."""
        return DELTA_MS << min(self._slow, DOUBLINGS_MAX)

    @property
    def armed(self) -> bool:
        """Whether the timers of this view run."""
        return self._armed_at is not None

    def heard(self, seat: int, now: Instant) -> None:
        """Any authenticated frame came from ``seat``."""
        if 0 <= seat < len(self._heard):
            self._heard[seat] = now

    def took_part(self, seat: int) -> None:
        """``seat`` voted for a block of these days."""
        self._missed.pop(seat, None)

    def missed(self, leader: int) -> None:
        """The time of ``leader``'s view is up."""
        self._missed[leader] = None

    @property
    def patient(self) -> bool:
        """Whether a whole rotation of views was lost: what is wrong is not one leader.

        Then a refused block waits for its timer like an absent one. Otherwise validators that
        cannot agree on any block would spend views, and flushes, as fast as the network is.
        """
        return self._lost > len(self._heard)

    def quorum_heard(self, now: Instant) -> bool:
        """Whether enough others spoke lately for a certificate to be possible."""
        since = now - SILENT_DELTAS * self.delta
        others = sum(
            1
            for seat, at in enumerate(self._heard)
            if seat != self._seat and at is not None and at >= since
        )
        return others >= self._others_needed

    def silent(self, leader: int, now: Instant) -> bool:
        """Whether to wait for ``leader`` is a waste."""
        if leader == self._seat:
            return False
        if leader in self._missed and not self.patient:
            return True
        at = self._heard[leader]
        since = self._started if at is None else at
        return now - since >= max(SILENT_DELTAS * DELTA_MS, self.delta)

    def speakers(self, now: Instant) -> list[int]:
        """Other seats heard lately, or all others if none were."""
        since = now - SILENT_DELTAS * self.delta
        others = [seat for seat in range(len(self._heard)) if seat != self._seat]
        lately = [s for s in others if (at := self._heard[s]) is not None and at >= since]
        return lately or others

    def arm(self, now: Instant) -> None:
        """Start to wait in this view."""
        self._armed_at = now
        self.repeat_at = self._next_repeat(now)

    def rest(self) -> None:
        """Stop all timers; the view stays."""
        self._armed_at = None
        self.repeat_at = None

    def entered(self, *, lost: bool, leader: int, now: Instant) -> None:
        """A new view began; ``lost``: the one before, of ``leader``, ended without a block."""
        if lost:
            self._lost += 1
            if self._lost > len(self._heard) or not self.silent(leader, now):
                self._slow += 1
        self._repeats = 0
        self.rest()

    def decided(self) -> None:
        """A block is final: the network is well, wait short again."""
        self._lost = self._slow = 0

    def give_up_at(self, *, proposal_seen: bool, undecided: int) -> Instant | None:
        """When to vote to nullify this view, which is ``undecided`` views above the floor."""
        if self._armed_at is None:
            return None
        deltas = ADVANCE_DELTAS if proposal_seen else LEADER_DELTAS
        patience = min(max(0, undecided - LIVE_VIEWS_MAX), PATIENCE_MAX)
        return Instant(self._armed_at + (deltas * self.delta << patience))

    def repeated(self, now: Instant) -> None:
        """We said it again; the next time a little later."""
        self._repeats += 1
        self.repeat_at = self._next_repeat(now)

    def _next_repeat(self, now: Instant) -> Instant:
        wait = min(REPEAT_DELTAS * self.delta << min(self._repeats, 16), REPEAT_MS_MAX)
        return Instant(now + wait + self._rng.randint(0, self.delta))
