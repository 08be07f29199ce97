"""What a leader knows of one follower, and how fast it may send (etcd's ``tracker``).

``PROBE``: where the logs agree is not known; one append at a time, the next after an answer
or a heartbeat. ``STREAM``: it is known; appends are sent ahead of their answers, within the
caps. ``FLOOR``: the follower needs what our log no longer has; the floor is told at each
heartbeat until it answers.

Invariants: ``match < next``; ``match`` never falls within a term.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from p2pmed.consensus.raft.bounds import INFLIGHT_BYTES_MAX, INFLIGHT_MESSAGES_MAX
from p2pmed.engine import Instant

__all__ = ["Pace", "Progress"]


class Pace(Enum):
    """How a follower is being served."""

    PROBE = "probe"
    STREAM = "stream"
    FLOOR = "floor"


@dataclass(slots=True)
class Progress:
    """One follower, as its leader sees it."""

    next: int
    """Index of the next entry to send."""
    heard_at: Instant
    """When anything last came from it."""
    match: int = 0
    """Index up to which its durable log equals ours."""
    pace: Pace = Pace.PROBE
    waiting: bool = False
    """A probe is out."""
    decided: int = 0
    """Height of its last decided block, as it said."""
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    """(last index, bytes) of each append not answered."""
    inflight_bytes: int = 0

    @property
    def may_send(self) -> bool:
        """Whether another append may leave now."""
        if self.pace is Pace.STREAM:
            return (
                len(self.inflight) < INFLIGHT_MESSAGES_MAX
                and self.inflight_bytes < INFLIGHT_BYTES_MAX
            )
        return self.pace is Pace.PROBE and not self.waiting

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to ``last_index`` are on their way."""
        if self.pace is Pace.STREAM:
            self.next = last_index + 1
            self.inflight.append((last_index, size))
            self.inflight_bytes += size
        else:
            self.waiting = True

    def confirmed(self, match: int) -> None:
        """The follower's log equals ours up to ``match``."""
        self.match = max(self.match, match)
        while self.inflight and self.inflight[0][0] <= match:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if self.pace is not Pace.STREAM:
            self.pace = Pace.STREAM
            self.waiting = False
            self.next = self.match + 1
        self.next = max(self.next, self.match + 1)

    def mismatched(self, prev_index: int, next_index: int) -> bool:
        """The append after ``prev_index`` was refused; whether that is news."""
        stale = (
            prev_index <= self.match and prev_index != self.next - 1
            if self.pace is Pace.STREAM
            else prev_index != self.next - 1
        )
        if stale:
            return False
        self.pace = Pace.PROBE
        self.waiting = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.next = max(1, min(next_index, self.next - 1))
        return True

    def needs_floor(self) -> None:
        """Our log begins above what it needs."""
        self.pace = Pace.FLOOR
        self.waiting = False
        self.inflight.clear()
        self.inflight_bytes = 0
