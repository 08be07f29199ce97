"""The loop that drives a core: deadlines before floods, and no more questions than needed."""

from __future__ import annotations

import asyncio

from p2pmed.aio.driver import Driver
from p2pmed.engine import DeadlineReached, Instant


class Clock:
    """Moves by hand."""

    def __init__(self) -> None:
        self.ms = 0

    def now(self) -> Instant:
        return Instant(self.ms)

    def wall_ms(self) -> int:
        return self.ms


class Counting:
    """An engine that takes ``event_ms`` for an event and is due at ``due``."""

    def __init__(self, clock: Clock, event_ms: float, due: int | None) -> None:
        self.clock = clock
        self.event_ms = event_ms
        self.due = due
        self.asked = 0
        self.seen: list[str] = []
        self.spent = 0.0

    @property
    def deadline(self) -> Instant | None:
        self.asked += 1
        return None if self.due is None else Instant(self.due)

    def step(self, event: object, now: Instant) -> list[str]:
        if isinstance(event, DeadlineReached):
            self.due = None
            self.seen.append("deadline")
        else:
            self.spent += self.event_ms
            self.clock.ms = int(self.spent)
            self.seen.append("event")
        return []


async def drive(engine: Counting, clock: Clock, events: int) -> None:
    driver: Driver[str, str] = Driver(engine, clock=clock, perform=lambda effect: None)
    for number in range(events):
        driver.put(str(number))
    running = asyncio.create_task(driver.run())
    while engine.seen.count("event") < events:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_flood_does_not_starve_a_deadline() -> None:
    """The deadline is taken in the millisecond in which it comes, whatever is queued."""
    clock = Clock()
    engine = Counting(clock, event_ms=0.25, due=5)
    await drive(engine, clock, 400)
    assert engine.seen.index("deadline") == 20  # 5 ms of events before it, 380 events behind it


async def test_a_deadline_that_is_due_comes_before_the_queue() -> None:
    """What is due already is not put behind events that wait."""
    clock = Clock()
    engine = Counting(clock, event_ms=0.25, due=0)
    await drive(engine, clock, 10)
    assert engine.seen[0] == "deadline"


async def test_the_engine_is_asked_for_its_deadline_once_a_millisecond() -> None:
    """A hundred short events within one millisecond do not cost a hundred questions."""
    clock = Clock()
    engine = Counting(clock, event_ms=0.01, due=None)
    await drive(engine, clock, 1_000)
    assert engine.asked <= 15
