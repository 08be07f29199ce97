"""What a node tells its peers and hears from them: gossip, carried out.

Rule: a ping tells the own clock and the heads of ledgers. It tells few, so the home's comes
first, then counties', and the others in turn: who founds many ledgers crowds nobody out.

Failure table: a queue that was full is repaired by gossip; a peer's fault drops its link; a
clock far ahead is not followed, and told once while that peer is connected.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.gossip import events as gossip
from p2pmed.gossip.engine import GossipEngine
from p2pmed.gossip.messages import HEADS_MAX, Ping
from p2pmed.ledger.hlc import HybridClock
from p2pmed.ledger.transaction import LaneKey
from p2pmed.node import events
from p2pmed.node.admission import Admission
from p2pmed.node.anchoring import Anchoring
from p2pmed.node.ledgers import Ledgers
from p2pmed.node.turn import Turn
from p2pmed.sync import chains as chain_events
from p2pmed.world import Clock

__all__ = ["Spreading"]


class Spreading:
    """Drives the gossip engine."""

    def __init__(
        self,
        *,
        gossip: GossipEngine,
        wall: Clock,
        clock: HybridClock,
        admission: Admission,
        anchoring: Anchoring,
        ledgers: Ledgers,
    ) -> None:
        self._gossip = gossip
        self._wall = wall
        self._clock = clock
        self._admission = admission
        self._anchoring = anchoring
        self._ledgers = ledgers
        self._clocks_ahead: set[bytes] = set()
        """Connected peers whose clock was told to be far ahead."""
        self._walls: dict[bytes, int] = {}
        """Wall clocks of connected peers, as their last ping told."""
        self._told = 0
        """Place in the carried ledgers from which the next ping tells."""

    @property
    def deadline(self) -> Instant | None:
        """The gossip engine's."""
        return self._gossip.deadline

    # --- telling ----------------------------------------------------------------------------

    def renew(self) -> None:
        """Set what the next pings say."""
        self._gossip.set_status(self._clock.last, self._wall.wall_ms(), self.heads())

    def heads(self) -> list[tuple[bytes, int]]:
        """Ledgers for the next ping: the own one first, counties, and the others in turn.

        A ping tells few; a member that founds many ledgers must not crowd out the village's.
        """
        heads = dict(self._ledgers.chains.heads())
        home = () if self._ledgers.home is None else (self._ledgers.home.ledger,)
        counties = sorted(self._anchoring.watches)[: HEADS_MAX // 2]
        first = list(dict.fromkeys((*home, *counties)))
        others = [ledger for ledger in heads if ledger not in first]
        if others:
            self._told = (self._told + HEADS_MAX - len(first)) % len(others)
        turned = others[self._told :] + others[: self._told]
        return [(ledger, heads[ledger]) for ledger in (*first, *turned)]

    def tell_grown(self, turn: Turn) -> None:
        """Hand on what has become durable, one event for what one source gave."""
        for grew in _merged(turn.grown):
            self.spread(turn, grew)

    # --- what happens -----------------------------------------------------------------------

    def peer_up(self, turn: Turn, peer: bytes) -> None:
        """A channel to ``peer`` opened."""
        self.renew()
        self.spread(turn, gossip.PeerUp(peer))

    def peer_down(self, turn: Turn, peer: bytes) -> None:
        """It is gone."""
        self._clocks_ahead.discard(peer)
        self._walls.pop(peer, None)
        self.spread(turn, gossip.PeerDown(peer))

    def on_deadline(self, turn: Turn) -> None:
        """Gossip, if it is time to."""
        if turn.due(self.deadline):
            self.renew()
            self.spread(turn, DeadlineReached())

    def spread(self, turn: Turn, event: gossip.GossipEvent) -> None:
        """Step the gossip engine, and carry out what it asks, in order."""
        for effect in self._gossip.step(event, turn.now):
            match effect:
                case gossip.SendMessage(peer, message, control):
                    turn.send(peer, message, control=control)
                case gossip.Ingest(peer, entries):
                    self._admission.offer(turn, peer, entries, None)
                case gossip.DropPeer(peer, reason):
                    turn.drop(peer, reason)
                case gossip.Holds(peer, lane, next_seq):
                    turn.work = turn.work or peer in self._ledgers.seating.seats
                    turn.notify(events.PeerHolds(peer, lane, next_seq))
                case gossip.PeerStatus(peer, ping):
                    self._on_ping(turn, peer, ping)

    def _on_ping(self, turn: Turn, peer: bytes, ping: Ping) -> None:
        self._walls[peer] = ping.wall
        follows = self._clock.observe(ping.hlc, self._wall.wall_ms())
        if not follows and peer not in self._clocks_ahead:
            self._clocks_ahead.add(peer)  # told once, or it hides other alarms
            turn.notify(events.Alarm("clock", (peer,), "a peer's clock is far ahead"))
        heads = tuple((head.ledger, head.height) for head in ping.heads)
        self._ledgers.hear(turn, chain_events.HeadsSeen(peer, heads))

    def common_wall(self) -> int:
        """The median of the own wall clock and those that peers told: one may be years off."""
        walls = sorted([self._wall.wall_ms(), *self._walls.values()])
        return walls[(len(walls) - 1) // 2]


def _merged(grown: Sequence[gossip.Grew]) -> list[gossip.Grew]:
    """What grew thanks to one source, as one: in the order of storing."""
    if len(grown) < 2:
        return list(grown)
    sources: dict[bytes | None, tuple[dict[LaneKey, int], list[tuple[LaneKey, int, bytes]]]] = {}
    for grew in grown:
        tips, entries = sources.setdefault(grew.source, ({}, []))
        tips.update(grew.lanes)
        entries.extend(grew.entries)
    return [
        gossip.Grew(tuple(tips.items()), tuple(entries), source)
        for source, (tips, entries) in sources.items()
    ]
