"""The one loop that drives a core: asks the clock before the queue, carries effects out in order.

A flood of events must not starve a deadline, so the deadline is looked at before an event, once
in each millisecond (no clock here is finer, and asking costs as much as a short step); and must
not starve the rest of the program, so the loop is given back after ``SLICE_MS``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from p2pmed.engine import DeadlineReached, Engine
from p2pmed.world import Clock

__all__ = ["Driver"]

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")

SLICE_MS: Final = 10
"""Longest run before other tasks get their turn."""


class Driver(Generic[EventT, EffectT]):
    """Feeds one engine; ``perform`` carries an effect out and never waits.

    ``eased`` is called when the loop is given back and when nothing is left to do: whoever holds
    back events while ``waiting`` is large may look again.
    """

    def __init__(
        self,
        engine: Engine[EventT | DeadlineReached, EffectT],
        *,
        clock: Clock,
        perform: Callable[[EffectT], None],
        eased: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._perform = perform
        self._eased = eased
        self._inbox: deque[EventT] = deque()
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Events that the engine has not taken yet."""
        return len(self._inbox)

    def put(self, event: EventT) -> None:
        """Queue an event; from the loop's own thread."""
        self._inbox.append(event)
        self._wake.set()

    def carry_out(self, effects: Sequence[EffectT]) -> None:
        """Perform effects that did not come from an event (a start)."""
        for effect in effects:
            self._perform(effect)

    async def run(self) -> None:
        """Drive until cancelled. An error of the engine ends it: the node must stop."""
        clock, engine = self._clock, self._engine
        slice_end = clock.now() + SLICE_MS
        asked_at = None
        while True:
            now = clock.now()
            if self._inbox and now == asked_at:  # nothing is due before the clock moves
                self.carry_out(engine.step(self._inbox.popleft(), now))
                continue
            deadline = engine.deadline
            if deadline is not None and deadline <= now:
                self.carry_out(engine.step(DeadlineReached(), now))
            elif self._inbox:
                asked_at = now
                self.carry_out(engine.step(self._inbox.popleft(), now))
            else:
                self._eased()
                await self._wait(None if deadline is None else (deadline - now) / 1_000)
                slice_end = clock.now() + SLICE_MS
                continue
            if clock.now() >= slice_end:
                self._eased()
                await asyncio.sleep(0)
                slice_end = clock.now() + SLICE_MS

    async def _wait(self, seconds: float | None) -> None:
        self._wake.clear()
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
