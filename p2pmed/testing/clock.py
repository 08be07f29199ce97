"""Virtual time, seeded dice and seeded secrets: a world without the world.

Rule: everything derives from the seed and the order of events; nothing reads the machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from hashlib import blake2b
from random import Random

from p2pmed.engine import Instant

__all__ = ["Agenda", "SimClock", "SimEntropy", "SimTime", "seeded"]

EPOCH_MS = 1_800_000_000_000
"""Where virtual wall clocks begin: some morning in 2027."""


class SimTime:
    """The one virtual instant that all nodes of a simulation share."""

    def __init__(self) -> None:
        self.now = Instant(0)


class Agenda(SimTime):
    """What is to happen, in the order of time, then of asking: the only order there is."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something ``delay_ms`` from now (0 or more)."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_ms, self._count, action))

    def run_until(self, done: Callable[[], bool], limit_ms: int) -> bool:
        """Act until ``done`` or until ``limit_ms`` have passed; whether it was done."""
        end = Instant(self.now + limit_ms)
        heap, pop = self._heap, heapq.heappop
        while not done():
            if not heap or heap[0][0] > end:
                self.now = end
                return done()
            at, _, action = pop(heap)
            self.now = Instant(at)
            action()
        return True


class SimClock:
    """One node's clocks: monotonic as the simulation runs, wall with an error of its own."""

    def __init__(self, time: SimTime, offset_ms: int = 0) -> None:
        self._time = time
        self.offset_ms = offset_ms
        """How wrong the wall clock is; a clock jump changes it."""
        self._drift_ppm = 0
        self._drift_since = 0

    def drift(self, ppm: int) -> None:
        """From now on run wrong by ``ppm`` millionths; what went wrong before remains."""
        self.offset_ms += self._drifted()
        self._drift_ppm, self._drift_since = ppm, self._time.now

    def _drifted(self) -> int:
        return (self._time.now - self._drift_since) * self._drift_ppm // 1_000_000

    def now(self) -> Instant:
        """Virtual milliseconds since the simulation began."""
        return self._time.now

    def wall_ms(self) -> int:
        """What the node believes the time to be."""
        return EPOCH_MS + self._time.now + self.offset_ms + self._drifted()


class SimEntropy:
    """Secrets that repeat with the seed: for simulations and nothing else."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def token(self, size: int) -> bytes:
        """``size`` bytes that nobody outside the simulation should trust."""
        found = b""
        while len(found) < size:
            self._count += 1
            found += blake2b(self._seed + self._count.to_bytes(8, "big")).digest()
        return found[:size]


def seeded(seed: int, purpose: str) -> Random:
    """Dice for one purpose, so that one part's rolls do not shift another's."""
    material = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return Random(int.from_bytes(material, "big"))
