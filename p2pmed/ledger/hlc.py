"""Hybrid logical clock (Kulkarni et al. 2014): order that survives wrong wall clocks.

A reading is ``milliseconds << 16 | counter``. It never runs backwards, follows what is heard
from others, and follows nobody further than ``HLC_AHEAD_MS_MAX`` beyond the own wall clock or,
where that clock was lost (a dead battery), beyond the reading it started with: one laptop set
to 2090 must not drag the mesh along, neither in one leap nor in many steps.
"""

from __future__ import annotations

from p2pmed.limits import HLC_AHEAD_MS_MAX

__all__ = ["HybridClock", "hlc_ms"]

_COUNTER_BITS = 16


def hlc_ms(reading: int) -> int:
    """The milliseconds of a reading."""
    return reading >> _COUNTER_BITS


class HybridClock:
    """One node's clock; ``last`` is kept across restarts by its owner."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self._start_ms = hlc_ms(last)

    def tick(self, wall_ms: int) -> int:
        """A reading above every reading before."""
        self.last = max(self.last + 1, max(wall_ms, 0) << _COUNTER_BITS)
        return self.last

    def observe(self, reading: int, wall_ms: int) -> bool:
        """Follow a reading heard from another node; ``False`` if it is too far ahead."""
        if hlc_ms(reading) > max(wall_ms, self._start_ms) + HLC_AHEAD_MS_MAX:
            return False
        self.last = max(self.last, reading)
        return True
