"""What is stored but not yet final, applied on top: provisional, for screens and prechecks.

Entries are taken log by log in the order of the logs' keys, each as soon as what it refers to
has been taken; what waits for something that never came is applied last, and is refused by its
own rule. Worked out afresh, the result depends on the set of entries only. What arrives later
is applied on top of what was shown before: until the next block two screens may differ on which
of two contradicting entries came first, and only the order decides.

It is worked out when asked for, and from where it stood: an import that nobody looks at
costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pmed.ledger.logs import Logs
from p2pmed.ledger.state import BlockContext, Layer, Readable, StateMachine, Verdict
from p2pmed.ledger.transaction import Entry, LaneKey

__all__ = ["Overlay"]

REFUSALS_KEPT_MAX: Final = 65_536
_UNCONNECTED: Final = Verdict(code="reference_missing")


class Overlay:
    """Provisional state over ``base``. ``ordered_next(lane)`` is the first seq not final."""

    def __init__(
        self,
        *,
        base: Readable,
        logs: Logs,
        machine: StateMachine,
        ordered_next: Callable[[LaneKey], int],
        context: Callable[[], BlockContext],
    ) -> None:
        self._base = base
        self._logs = logs
        self._machine = machine
        self._ordered_next = ordered_next
        self._context = context
        self._layer = Layer(base)
        self._cursors: dict[LaneKey, int] = {}
        self._refused: dict[bytes, Verdict] = {}
        self._hurried = 0
        """Entries there were when some were taken without what they refer to; 0: none was."""

    def restart(self) -> None:
        """A block was decided: what lies below has changed."""
        self._layer = Layer(self._base)
        self._cursors = {}
        self._refused = {}
        self._hurried = 0

    def state(self) -> Layer:
        """The provisional state, up to date."""
        if self._hurried and sum(lane.next_seq for lane in self._logs) != self._hurried:
            self.restart()
        context = self._context()
        while self._advance(context, patient=True):
            pass
        if self._advance(context, patient=False):
            self._hurried = sum(lane.next_seq for lane in self._logs)
        return self._layer

    def approach(self, entries_max: int) -> bool:
        """Take at most ``entries_max`` entries towards ``state``; whether there may be more.

        For who must not be held up by a long import: call it until ``False``, then ``state``.
        """
        if self._hurried:
            return False  # ``state`` decides what of it to do again
        return self._advance(self._context(), patient=True, room=entries_max) >= entries_max

    def verdict_of(self, entry: Entry) -> Verdict:
        """What the entry's verdict would be if it were ordered now."""
        self.state()
        if entry.seq >= self._cursors.get(entry.lane, 0):
            return _UNCONNECTED
        return self._refused.get(entry.id, Verdict(code="applied"))

    def refused(self) -> dict[bytes, Verdict]:
        """Provisional refusals by id."""
        self.state()
        return dict(self._refused)

    def _advance(self, context: BlockContext, *, patient: bool, room: int = 2**63) -> int:
        """One round over all logs, ``room`` entries long at most; how many were applied."""
        moved = 0
        for lane in self._logs:
            cursor = max(self._cursors.get(lane.key, 0), self._ordered_next(lane.key))
            for entry in self._logs.entries(lane.key, cursor, lane.next_seq):
                taken = self._taken(entry)
                if moved >= room or (patient and not taken):
                    break
                verdict = (
                    self._machine.apply(entry, self._layer, context) if taken else _UNCONNECTED
                )
                if not verdict.applied and len(self._refused) < REFUSALS_KEPT_MAX:
                    self._refused[entry.id] = verdict
                cursor = entry.seq + 1
                moved += 1
            self._cursors[lane.key] = cursor
        return moved

    def _taken(self, entry: Entry) -> bool:
        """Whether all that ``entry`` refers to is final or already in this overlay."""
        for ref in entry.envelope.refs:
            place = self._logs.place(ref)
            if place is None:
                return False
            lane, seq = place
            if seq >= max(self._cursors.get(lane, 0), self._ordered_next(lane)):
                return False
        return True
