"""What a message may cost: one token bucket per peer, before any signature is looked at.

Rule: over budget, a message is forgotten, and nothing is lost by it: what it said is in the
next ping's digest, and anti-entropy fetches at our own pace (threats row 10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from p2pmed.engine import Instant
from p2pmed.gossip.messages import (
    AskFrontier,
    Entries,
    Frontier,
    GossipMessage,
    Have,
    Ping,
    Pong,
    Push,
    Want,
)
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX

__all__ = ["UNITS_BURST_MAX", "UNITS_PER_SECOND", "Budget", "cost"]

UNITS_PER_SECOND: Final = 16_384
"""One unit is one signature check or 1 KiB moved: about what one old core can do."""

UNITS_BURST_MAX: Final = 32_768

assert UNITS_BURST_MAX >= 4 * (BATCH_ENTRIES_MAX + BATCH_BYTES_MAX // 1024)

_COST: Final[dict[type[Any], Callable[[Any], int]]] = {
    Ping: lambda _: 16,
    Pong: lambda _: 4,
    Push: lambda m: 1 + sum(1 + (len(raw) >> 10) for raw in m.entries),
    Have: lambda m: 4 + len(m.lanes) // 4,
    # A page is sorted and sent for one ask; it costs its size.
    AskFrontier: lambda _: 128,
    Want: lambda m: 8 + (m.bytes_max >> 10),
    # Answers are bounded by what we asked; unasked ones are forgotten unread.
    Frontier: lambda _: 1,
    Entries: lambda _: 1,
}


def cost(message: GossipMessage) -> int:
    """Units that handling ``message`` is worth."""
    return _COST[type(message)](message)


class Budget:
    """One peer's bucket; it refills with time and never overflows."""

    __slots__ = ("_filled_at", "_millis", "refused")

    def __init__(self, now: Instant) -> None:
        self._millis = UNITS_BURST_MAX * 1_000
        self._filled_at = now
        self.refused = 0
        """Messages forgotten so far; for people."""

    def admits(self, message: GossipMessage, now: Instant) -> bool:
        """Take the message's cost out of the bucket; ``False`` if it is not in there."""
        self._millis = min(
            UNITS_BURST_MAX * 1_000, self._millis + (now - self._filled_at) * UNITS_PER_SECOND
        )
        self._filled_at = now
        price = cost(message) * 1_000
        if price > self._millis:
            self.refused += 1
            return False
        self._millis -= price
        return True
