"""Entries that came but are not flushed yet are not asked for a second time."""

from __future__ import annotations

import random

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.gossip.engine import GossipEngine
from p2pmed.gossip.events import Grew, PeerUp, Received, SendMessage
from p2pmed.gossip.messages import Have, Want, mark
from p2pmed.gossip.wants import HOLD_MS, HOLDS_MAX
from p2pmed.ledger.transaction import LaneKey

ME, AUTHOR = bytes(32), bytes([1]) * 32
LANE = LaneKey(AUTHOR, bytes(16))


class EmptyStore:
    """Nothing is durable here."""

    def frontier(self) -> list[tuple[LaneKey, int]]:
        return []

    def next_seq(self, lane: LaneKey) -> int:
        return 0

    def read(self, lane: LaneKey, start: int, end: int, *, bytes_max: int) -> list[bytes]:
        return []


class SlowNode:
    """A node whose flush takes long; the peer's word of its lane has come at 0 ms."""

    def __init__(self, arrived: int) -> None:
        self.arrived = arrived
        self.engine = GossipEngine(
            me=ME,
            store=EmptyStore(),
            rng=random.Random(1),
            now=Instant(0),
            arriving=lambda lane: self.arrived if lane == LANE else 0,
        )
        self.wants: list[tuple[int, int]] = []
        self.step(PeerUp(AUTHOR), 0)
        self.step(Received(AUTHOR, Have((mark(LANE, 5),))), 0)

    def step(self, event, now: int) -> None:
        for effect in self.engine.step(event, Instant(now)):
            if isinstance(effect, SendMessage) and isinstance(effect.message, Want):
                self.wants.append((now, effect.message.ranges[0].start))

    def run(self, start: int, until: int) -> None:
        for now in range(start, until):
            deadline = self.engine.deadline
            if deadline is not None and deadline <= now:
                self.step(DeadlineReached(), now)


def test_what_did_not_come_is_asked_for_after_the_grace() -> None:
    """Without entries on their way, the want goes out as before."""
    node = SlowNode(arrived=0)
    node.run(1, 1_000)
    assert node.wants[0][0] <= 250


def test_what_came_is_not_asked_for_while_it_is_checked_and_flushed() -> None:
    """Two seconds of flushing bring no second copy; once durable there is nothing to ask."""
    node = SlowNode(arrived=5)
    node.run(1, 2_000)
    assert node.wants == []
    node.step(Grew(((LANE, 5),), (), AUTHOR), 2_000)
    node.run(2_001, 8_000)
    assert node.wants == []


def test_what_is_lacking_behind_the_flush_is_asked_for_once_it_ends() -> None:
    """A flush that ends below the claim frees the want, from where the log then stands."""
    node = SlowNode(arrived=3)
    node.run(1, 2_000)
    node.step(Grew(((LANE, 3),), (), AUTHOR), 2_000)
    node.run(2_001, 4_000)
    assert [start for _, start in node.wants[:1]] == [3]


def test_a_check_that_never_ends_does_not_silence_the_want_for_ever() -> None:
    """After ``HOLDS_MAX`` delays it is asked all the same: nothing waits without a limit."""
    node = SlowNode(arrived=5)
    node.run(1, 2 * HOLD_MS * HOLDS_MAX)
    assert node.wants
    assert HOLD_MS * HOLDS_MAX <= node.wants[0][0] <= HOLD_MS * (HOLDS_MAX + 3)
