"""How a leader lets somebody else lead (Raft thesis, 3.10), and when it does so by itself.

The leader stops proposing; once the target has its whole log, the target is told to campaign
at once, and its followers need not be loyal. If nothing came of it, the leader goes on.

A leader that cannot go on hands over by itself: its application lacks the bodies of a block
that it inherited, or says that something waits and gives nothing to order. A follower that
does have them leads on; this member catches up as a follower. ``Replica.patience_ms`` doubles
each time and falls back with the next decided block, so that members none of whom can build do
not elect each other for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from p2pmed.consensus.raft.bounds import (
    ELECTION_BEATS_MIN,
    HEARTBEAT_MS,
    PATIENCE_MS_MAX,
)
from p2pmed.consensus.raft.messages import TimeoutNow
from p2pmed.consensus.raft.progress import Progress
from p2pmed.consensus.raft.replica import Replica
from p2pmed.engine import Instant, earliest

__all__ = ["HandOver"]


class HandOver:
    """One leader's leaving."""

    def __init__(self, replica: Replica, progress: Mapping[int, Progress]) -> None:
        self._replica = replica
        self._progress = progress
        self.target: int | None = None
        """Seat that shall lead next; nothing is proposed meanwhile."""
        self._until: Instant | None = None
        self._told = False
        self._stuck_at: Instant | None = None

    @property
    def deadline(self) -> Instant | None:
        """When the target had its time, or our own patience ends."""
        stuck = self._stuck_at
        patience = None if stuck is None else Instant(stuck + self._replica.patience_ms)
        return earliest(self._until, patience)

    def begin(self, seat: int | None, among: Callable[[int], bool] = lambda seat: True) -> None:
        """Let ``seat`` lead, or the nearest that was heard lately and is ``among`` those."""
        r = self._replica
        heard = r.now - ELECTION_BEATS_MIN * r.beat_ms
        if seat is None:
            near = [
                (progress.match, -other)
                for other, progress in self._progress.items()
                if progress.heard_at >= heard and among(other)
            ]
            seat = -max(near)[1] if near else None
        if seat is None or seat not in self._progress:
            return
        self.target, self._told = seat, False
        self._until = Instant(r.now + ELECTION_BEATS_MIN * HEARTBEAT_MS)

    def settle(self) -> None:
        """Tell the target once it has everything."""
        r = self._replica
        if self.target is None or self._told:
            return
        if self._progress[self.target].match == r.log.last_index:
            self._told = True
            r.send(self.target, TimeoutNow(mesh=r.mesh, term=r.term))

    def give_up(self) -> bool:
        """Whether the target had its time, and this leader goes on."""
        if self._until is None or self._replica.now < self._until:
            return False
        self.target = self._until = None
        return True

    def notice(self, stuck: bool) -> None:
        """This leader can or cannot go on; beyond its patience it looks for one that can."""
        r = self._replica
        if not stuck or self.target is not None or not self._progress:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = r.now
        elif r.now >= self._stuck_at + r.patience_ms:
            self._stuck_at = r.now
            height = r.finality.checked + 1
            signed = r.finality.signers(height)
            inherited = r.log.at_height(height) is not None
            self.begin(
                None,
                lambda seat: (
                    not inherited or seat in signed or self._progress[seat].decided >= height
                ),
            )
            if self.target is not None:
                self._stuck_at = None
                r.patience_ms = min(2 * r.patience_ms, PATIENCE_MS_MAX)
