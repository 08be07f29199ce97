"""What leaves a leader for one follower: entries, heartbeats, or the floor.

One encoding serves every follower that stands at the same place: appends of one step are
kept by place until the step ends.
"""

from __future__ import annotations

from p2pmed.consensus.raft import messages
from p2pmed.consensus.raft.messages import Append, Floor
from p2pmed.consensus.raft.progress import Pace, Progress
from p2pmed.consensus.raft.replica import Replica
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX

__all__ = ["Sending"]


class Sending:
    """A leader's voice to its followers."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._encoded: dict[tuple[int, bool, bool], tuple[bytes, int, int]] = {}

    def clear(self) -> None:
        """The step ends: commit and decided height may differ in the next."""
        self._encoded.clear()

    def appends(self, seat: int, progress: Progress) -> None:
        """Send what the follower lacks, as far as its pace allows."""
        r = self._replica
        while progress.next <= r.log.last_index and progress.may_send:
            if progress.next <= r.log.floor.index:
                self.floor(seat, progress)
                return
            raw, last_index, size = self._append(progress.next, full=True, idle=False)
            r.desk.send(seat, raw)
            progress.sent(last_index, size)

    def heartbeat(self, seat: int, progress: Progress, *, idle: bool) -> None:
        """Say that the leader lives, and find out where the follower stands."""
        r = self._replica
        if progress.pace is Pace.FLOOR or progress.next <= r.log.floor.index:
            self.floor(seat, progress)
            return
        raw, _, _ = self._append(progress.next, full=False, idle=idle)
        r.desk.send(seat, raw)

    def floor(self, seat: int, progress: Progress) -> None:
        """Say where our log begins."""
        r = self._replica
        progress.needs_floor()
        floor = r.log.floor
        r.send(
            seat,
            Floor(
                mesh=r.mesh,
                term=r.term,
                index=floor.index,
                index_term=floor.term,
                height=floor.height,
                digest=floor.digest,
                decided=r.finality.height,
            ),
        )

    def _append(self, start: int, *, full: bool, idle: bool) -> tuple[bytes, int, int]:
        key = (start, full, idle)
        known = self._encoded.get(key)
        if known is not None:
            return known
        r = self._replica
        slots = r.log.entries(start, BATCH_ENTRIES_MAX, BATCH_BYTES_MAX) if full else []
        prev_term = r.log.term_at(start - 1)
        assert prev_term is not None
        raw = messages.encode(
            Append(
                mesh=r.mesh,
                term=r.term,
                prev_index=start - 1,
                prev_term=prev_term,
                commit=r.commit,
                decided=r.finality.height,
                idle=idle,
                entries=tuple(slot.raw for slot in slots),
            )
        )
        self._encoded[key] = (raw, start - 1 + len(slots), len(raw))
        return self._encoded[key]
