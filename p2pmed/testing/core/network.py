"""The wires of a simulated mesh: late, lost, twice, out of order, one way only, clogged.

Rule: wires join *places*, not seats. Two places may hold the same seat (a twin), and a cut
may separate them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Net", "Weather"]


@dataclass(slots=True, kw_only=True)
class Weather:
    """How bad the wires and disks are; milliseconds, and chances from 0 to 1."""

    latency: tuple[int, int] = (1, 5)
    loss: float = 0.0
    duplication: float = 0.0
    in_order: bool = True
    """Whether a wire delivers in the order of sending, as a channel does."""
    stray: float = 0.0
    """How many messages come seconds late, while others pass them: terms end meanwhile."""
    flush: tuple[int, int] = (1, 5)


STRAY_MS: Final = (200, 4_000)
"""By how much more a stray message is late: up to a few elections."""

CALM = Weather()
"""What remains when faults have ceased."""

Deliver = Callable[[int, int, bytes], None]
After = Callable[..., None]


class Net:
    """Carries messages between places; ``deliver(sender, receiver, message)`` at the end."""

    def __init__(self, dice: random.Random, after: After, deliver: Deliver) -> None:
        self.weather = CALM
        self.counts = dict.fromkeys(("loss", "duplicate", "reorder", "stray"), 0)
        """How often each fault of a single message happened."""
        self._dice, self._after, self._deliver = dice, after, deliver
        self._cuts: dict[tuple[int, int], None] = {}
        self._clogs: dict[tuple[int, int], int] = {}
        self._holds: dict[tuple[int, int], tuple[int, int]] = {}
        self._last: dict[tuple[int, int], int] = {}

    def is_cut(self, sender: int, receiver: int) -> bool:
        """Whether nothing passes from ``sender`` to ``receiver``."""
        return (sender, receiver) in self._cuts

    def cut(self, sender: int, receiver: int) -> None:
        """Nothing passes from now on, not even what is on its way."""
        self._cuts[sender, receiver] = None

    def join(self, sender: int, receiver: int) -> None:
        """Undo ``cut``."""
        self._cuts.pop((sender, receiver), None)

    def clog(self, sender: int, receiver: int, until: int) -> None:
        """What is sent from now on arrives after ``until``."""
        self._clogs[sender, receiver] = until

    def hold(self, sender: int, receiver: int, until: int, wait: int) -> None:
        """What is sent before ``until`` arrives ``wait`` later, after what is sent since."""
        self._holds[sender, receiver] = (until, wait)

    def heal(self) -> None:
        """No cut, no clog, and nothing new is held."""
        self._cuts.clear()
        self._clogs.clear()
        self._holds.clear()

    def send(self, now: int, sender: int, receiver: int, message: bytes) -> None:
        """Put ``message`` on the wire, with whatever the weather does to it."""
        wire = (sender, receiver)
        if wire in self._cuts:
            return
        weather, dice = self.weather, self._dice
        if weather.loss and dice.random() < weather.loss:
            self.counts["loss"] += 1
            return
        self._put(wire, now, message)
        if weather.duplication and dice.random() < weather.duplication:
            self.counts["duplicate"] += 1
            self._put(wire, now, message)

    def _put(self, wire: tuple[int, int], now: int, message: bytes) -> None:
        low, high = self.weather.latency
        at = max(now, self._clogs.get(wire, 0)) + low + int(self._dice.random() * (high - low + 1))
        until, wait = self._holds.get(wire, (0, 0))
        if now < until:
            self._after(at - now + wait, self._arrive, wire, message)
            return
        stray = 0.0 if self.weather.in_order else self.weather.stray
        if stray and self._dice.random() < stray:
            self.counts["stray"] += 1
            self._after(at - now + self._dice.randint(*STRAY_MS), self._arrive, wire, message)
            return
        last = self._last.get(wire, 0)
        if at < last:
            if self.weather.in_order:
                at = last
            else:
                self.counts["reorder"] += 1
        self._last[wire] = max(at, last)
        self._after(at - now, self._arrive, wire, message)

    def _arrive(self, wire: tuple[int, int], message: bytes) -> None:
        if wire not in self._cuts:
            self._deliver(wire[0], wire[1], message)
