"""Absence and return: what days away, a lost leader and a leader that leaves cost a mesh."""

from __future__ import annotations

import statistics

import pytest
import raft_simulation
from raft_simulation import World, keeping

from p2pmed.consensus.interface import Leave
from p2pmed.consensus.raft import leadership, replica

HOUR_MS = 3_600_000


def test_thirty_days_away_cost_no_election_and_few_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clinic is back after 30 virtual days and 200 blocks: the same leader, the same term,
    caught up from certificates, its log from the leader's floor, in a bounded number of messages.
    """
    monkeypatch.setattr(raft_simulation, "STEPS_MAX", 10**9)
    with keeping(4):
        world = World(7, 3)
        leader = world.elect()
        world.run(world.now + 3_000)
        assert leader.engine is not None
        elected = leader.engine.status()["term"]
        absent = world.members[(leader.seat + 1) % 3]
        world.partition((absent.seat,), tuple(s for s in range(3) if s != absent.seat))
        for number in range(200):
            world.submit(number, tuple(s for s in range(3) if s != absent.seat))
            world.run(world.now + 60)
        world.crash(absent.seat)
        with monkeypatch.context() as slow:  # hourly heartbeats, or the idle month is all beats
            slow.setattr(leadership, "IDLE_HEARTBEAT_MS", HOUR_MS)
            slow.setattr(replica, "IDLE_HEARTBEAT_MS", HOUR_MS)
            world.run(world.now + 30 * 24 * HOUR_MS)
        world.submit(1_000, tuple(s for s in range(3) if s != absent.seat))
        world.run(world.now + 20_000)
        assert world.leader() is leader
        sent = world.sent
        assert leader.engine.status()["log_first"] > 100
        blocks = len(leader.chain)
        assert blocks > 60
        world.heal()
        world.boot(absent)
        start = world.now
        assert world.run(start + 20_000, stop=lambda: len(absent.chain) == blocks)
        assert world.leader() is leader
        assert leader.engine.status()["term"] == elected
        assert world.sent - sent < 300
        world.submit(10_000)
        assert world.run(
            world.now + 5_000, stop=lambda: all(len(m.chain) == blocks + 1 for m in world.members)
        )
        assert leader.engine.status()["term"] == elected


def _pause_ms(seed: int, members: int, *, leaves: bool) -> int:
    """From the end of a leader to the next final block everywhere else."""
    world = World(seed, members)
    world.latency = (2, 2)
    for member in world.members:
        member.flush_ms = (10, 10)
    leader = world.elect()
    world.run(world.now + 1_500)
    world.submit(1)
    world.run(world.now + 500)
    start = world.now
    if leaves:
        world.step(leader, Leave())
        world.run(world.now + 2_000, stop=lambda: world.leader() is not leader)
    world.crash(leader.seat)
    rest = [m for m in world.members if m is not leader]
    world.submit(2, tuple(m.seat for m in rest))
    assert world.run(world.now + 30_000, stop=lambda: all(len(m.chain) == 2 for m in rest))
    return world.now - start


@pytest.mark.parametrize("members", [3, 5, 7])
def test_a_lost_leader_costs_an_election_timeout(members: int) -> None:
    """Crash to the next final block: median below 1.6 virtual seconds, never above 2.5."""
    pauses = [_pause_ms(seed, members, leaves=False) for seed in range(20)]
    assert statistics.median(pauses) < 1_600
    assert max(pauses) < 2_500


@pytest.mark.parametrize("members", [3, 5, 7])
def test_a_leader_that_leaves_costs_three_round_trips(members: int) -> None:
    """Leaving to the next final block: below 100 virtual ms, flushes of 10 ms included."""
    assert max(_pause_ms(seed, members, leaves=True) for seed in range(20)) < 100


def test_a_long_way_is_filled_with_blocks() -> None:
    """40 ms one way: more than two blocks are on the way, and each costs one flush a member."""
    world = World(1, 3)
    world.latency = (40, 40)
    for member in world.members:
        member.flush_ms, member.book.batch_max = (10, 10), 1
    leader = world.elect()
    world.run(world.now + 2_000)
    flushes, blocks, start = world.flushes, len(leader.chain), world.now
    for number in range(100):
        for member in world.members:
            member.book.heard[number] = None
    for member in world.members:
        world.step(member, raft_simulation.Work())
    assert world.run(world.now + 5_000, stop=lambda: len(leader.chain) == blocks + 100)
    assert world.now - start < 1_800, "two at a time would take 100 / 2 * 90 ms"
    assert world.flushes - flushes <= 3 * 105


def test_a_lost_follower_keeps_no_leader_busy() -> None:
    """Four seconds after a follower is gone the slow beat is reached, and kept from then on."""
    world = World(11, 3)
    leader = world.elect()
    assert leader.engine is not None
    gone = world.members[(leader.seat + 1) % 3]
    world.crash(gone.seat)
    world.submit(1)
    assert world.run(world.now + 1_000, stop=lambda: len(leader.chain) == 1)
    world.run(world.now + 5_000)
    for _ in range(15):
        before = world.sent
        world.run(world.now + 1_000)
        assert world.sent - before <= 6, "a beat to each follower, and an answer"
