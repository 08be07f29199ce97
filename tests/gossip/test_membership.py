"""Pings, silence and a node's doubt in itself."""

from __future__ import annotations

import random

import pytest

from p2pmed.engine import Instant
from p2pmed.gossip.membership import STALL_MS, Membership
from p2pmed.gossip.messages import HEALTH_MAX
from p2pmed.limits import PEER_SILENT_MS, PING_MS

PEERS = [bytes([n]) * 32 for n in range(64)]


def members(count: int) -> Membership:
    made = Membership(random.Random(1))
    for peer in PEERS[:count]:
        made.up(peer, Instant(0))
    return made


@pytest.mark.parametrize(("count", "interval"), [(1, 1), (4, 1), (5, 2), (20, 5), (64, 5)])
def test_the_interval_grows_with_the_cell_and_ends_below_silence(count: int, interval: int) -> None:
    """About four digests a second are heard whatever the size, and two pings may be lost."""
    cell = members(count)
    assert cell.interval_ms == interval * PING_MS
    pings, silent = cell.turn(Instant(0))
    assert [peer for peer, _ in pings] == PEERS[:count]
    assert silent == []
    dues = [cell.get(peer).ping_due for peer in PEERS[:count]]  # type: ignore[union-attr]
    assert all(3 * cell.interval_ms <= 4 * due <= 5 * cell.interval_ms for due in dues)
    assert 2 * max(dues) < PEER_SILENT_MS
    assert cell.deadline() == min(dues)


def test_only_the_answer_to_the_newest_ping_counts() -> None:
    """An old, unasked or repeated Pong measures nothing."""
    cell = members(1)
    cell.turn(Instant(0))
    cell.turn(cell.get(PEERS[0]).ping_due)  # type: ignore[union-attr]
    live = cell.get(PEERS[0])
    assert live is not None
    cell.pong(PEERS[0], 1, Instant(9_000))
    assert (live.missed, live.rtt_ms) == (2, None)
    cell.pong(PEERS[0], 2, Instant(live.ping_at + 40))
    assert (live.missed, live.rtt_ms) == (0, 40)
    cell.pong(PEERS[0], 2, Instant(9_999))
    assert live.rtt_ms == 40


def test_a_stalled_node_doubts_itself_and_waits_longer() -> None:
    """Timers served late lengthen our patience, up to a named limit; answers bring it back."""
    cell = members(2)
    cell.stalled(STALL_MS)
    assert cell.health == 0
    for _ in range(20):
        cell.stalled(STALL_MS + 1)
    assert cell.health == HEALTH_MAX
    cell.turn(Instant(0))
    assert cell.health < HEALTH_MAX
    cell.health = 1
    cell.get(PEERS[0]).ping_due = Instant(PEER_SILENT_MS)  # type: ignore[union-attr]
    assert cell.turn(Instant(PEER_SILENT_MS))[1] == []
    cell.health = 0
    late = Instant(2 * PEER_SILENT_MS)
    assert cell.turn(late)[1] == PEERS[:2]


def test_if_most_peers_owe_an_answer_the_fault_is_ours() -> None:
    """Losing everybody at once raises our doubt; losing one of many does not."""
    cell = members(4)
    now = 0
    for _ in range(4):
        cell.turn(Instant(now))
        for peer in PEERS[1:4]:
            live = cell.get(peer)
            assert live is not None
            cell.pong(peer, live.ping_seq, Instant(now))
        now += 2 * PING_MS
    assert cell.health == 0
    for _ in range(4):
        cell.turn(Instant(now))
        now += 2 * PING_MS
    assert cell.health > 0
