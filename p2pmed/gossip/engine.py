"""The conductor: carries events between membership, broadcast and anti-entropy.

Those three never meet. Implements design sections 4 and 8 and the networking notes 4.3 to 4.5
for a cell of at most ``PEERS_MAX`` peers; above it and over the WAN comes another overlay.

What the driver owes: messages decoded and bounded; ``Grew`` after the flush only; ``Ingest``
checked (spelling, link, signature) before it is stored; the wait after a ``DropPeer`` for a
false signature. What it gets: ``Holds`` for receipts and proposals, never early.

============  ==========================================================================
event         what follows
============  ==========================================================================
PeerUp        a ping at once; its digest starts the comparison
PeerDown      everything about the peer is forgotten; what it was asked goes to others
Received      by the table of messages below, if the peer's budget admits it
Grew          pushes (own entries), ``Have`` to all, ``Holds`` of those who had it before
Gap           a want for the missing range
SendRefused   pushes to the peer pause; its digest will show what it lacks
Bad           ``DropPeer``
============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from p2pmed.engine import DeadlineReached, Instant, Rng, earliest
from p2pmed.gossip.admission import Budget
from p2pmed.gossip.antientropy import AntiEntropy
from p2pmed.gossip.broadcast import Broadcast
from p2pmed.gossip.events import (
    Bad,
    DropPeer,
    Gap,
    GossipEffect,
    GossipEvent,
    Grew,
    Ingest,
    LogStore,
    PeerDown,
    PeerStatus,
    PeerUp,
    PeerView,
    Received,
    SendMessage,
    SendRefused,
)
from p2pmed.gossip.membership import Membership
from p2pmed.gossip.messages import (
    HEADS_MAX,
    AskFrontier,
    Entries,
    Frontier,
    Have,
    Head,
    Ping,
    Pong,
    Push,
    Want,
)
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import PEERS_MAX

__all__ = ["GossipEngine"]

Effects = list[GossipEffect]


class GossipEngine:
    """One node's part in its cell. ``me`` is its device key (32 bytes).

    ``arriving(lane)`` is the seq below which entries of a log are here or being checked or
    flushed: while it is above what is durable, nothing of the log is asked for again.
    """

    def __init__(
        self,
        *,
        me: bytes,
        store: LogStore,
        rng: Rng,
        now: Instant,
        arriving: Callable[[LaneKey], int] = lambda lane: 0,
    ) -> None:
        self._me = me
        self._members = Membership(rng)
        self._broadcast = Broadcast(me)
        self._repair = AntiEntropy(store, arriving)
        self._budgets: dict[bytes, Budget] = {}
        self._now = now
        self._hlc = 0
        self._wall = 0
        self._heads: tuple[Head, ...] = ()

    # --- for the driver --------------------------------------------------------------------

    @property
    def deadline(self) -> Instant | None:
        """When to come back even if nothing happens; ``None`` without a peer."""
        if not len(self._members):
            return None
        return earliest(
            self._members.deadline(), self._broadcast.deadline(), self._repair.deadline()
        )

    def step(self, event: GossipEvent, now: Instant) -> Sequence[GossipEffect]:
        """Take one event; return effects, to be carried out in this order."""
        if isinstance(event, DeadlineReached):
            late = now - (self.deadline or now)
            self._members.stalled(late)
        self._now = now
        effects = _EVENTS[type(event)](self, event, now)
        return effects + self._turn(now)

    def set_status(self, hlc: int, wall: int, heads: Sequence[tuple[bytes, int]]) -> None:
        """What the next pings tell: hybrid clock, wall clock (ms), ledger heights."""
        self._hlc, self._wall = hlc, wall
        self._heads = tuple(Head(ledger, height) for ledger, height in heads[:HEADS_MAX])

    # --- questions -------------------------------------------------------------------------

    def holders(self, lane: LaneKey, seq: int) -> int:
        """How many connected peers said that entry ``seq`` is on their disk."""
        return sum(mirror.get(lane) > seq for mirror in self._repair.mirrors.values())

    def peer_next_seq(self, peer: bytes, lane: LaneKey) -> int:
        """How far ``peer`` said that it holds ``lane``; 0 if it is not connected."""
        return self._repair.holds(peer, lane)

    def peers(self) -> list[PeerView]:
        """The connected peers, for people."""
        views = []
        for peer in self._members.peers():
            live = self._members.get(peer)
            assert live is not None  # it was just listed
            views.append(
                PeerView(
                    peer=peer,
                    rtt_ms=live.rtt_ms,
                    heard_ms_ago=self._now - live.heard_at,
                    health=live.health,
                    suspect=live.suspect,
                    behind=self._broadcast.behind(peer),
                    in_step=self._repair.in_step(peer),
                )
            )
        return views

    def frontier_digest(self) -> bytes:
        """Of all that is durable here (32 bytes)."""
        return self._repair.table.digest()

    @property
    def lacking(self) -> int:
        """Lanes of which somebody connected claims to hold more than we do."""
        return len(self._repair.wants)

    # --- events ----------------------------------------------------------------------------

    def _peer_up(self, event: PeerUp, now: Instant) -> Effects:
        if event.peer in self._members:
            self._forget(event.peer, now)
        if event.peer == self._me or len(self._members) >= PEERS_MAX:
            return [DropPeer(event.peer, "myself" if event.peer == self._me else "no seat left")]
        self._members.up(event.peer, now)
        self._broadcast.up(event.peer)
        self._repair.up(event.peer)
        self._budgets[event.peer] = Budget(now)
        return []

    def _peer_down(self, event: PeerDown, now: Instant) -> Effects:
        self._forget(event.peer, now)
        return []

    def _received(self, event: Received, now: Instant) -> Effects:
        if event.peer not in self._members:
            return []
        self._members.heard(event.peer, now)
        if not self._budgets[event.peer].admits(event.message, now):
            return []
        effects = _MESSAGES[type(event.message)](self, event.peer, event.message, now)
        for effect in effects:
            if isinstance(effect, DropPeer):
                self._forget(effect.peer, now)
        return effects

    def _grew(self, event: Grew, now: Instant) -> Effects:
        effects = self._repair.grew(event.lanes, event.source, now)
        effects += self._broadcast.pushes(event.entries, self._repair.holds)
        self._broadcast.grew(event.lanes)
        return effects

    def _gap(self, event: Gap, now: Instant) -> Effects:
        if event.peer not in self._members:
            return []
        return self._repair.gap(event.peer, event.lane, event.have_next, event.got_seq, now)

    def _refused(self, event: SendRefused, _: Instant) -> Effects:
        self._broadcast.refused(event.peer)
        return []

    def _bad(self, event: Bad, now: Instant) -> Effects:
        if event.peer not in self._members:
            return []
        self._forget(event.peer, now)
        return [DropPeer(event.peer, event.reason)]

    def _deadline_reached(self, _: DeadlineReached, __: Instant) -> Effects:
        return []

    # --- messages --------------------------------------------------------------------------

    def _ping(self, peer: bytes, message: Ping, now: Instant) -> Effects:
        live = self._members.get(peer)
        assert live is not None  # _received checked it
        live.health = message.health
        self._broadcast.spoke(peer)
        return [
            SendMessage(peer, Pong(message.seq), control=True),
            PeerStatus(peer, message),
            *self._repair.pinged(peer, message.frontier, now),
        ]

    def _pong(self, peer: bytes, message: Pong, now: Instant) -> Effects:
        self._members.pong(peer, message.seq, now)
        return []

    def _push(self, peer: bytes, message: Push, _: Instant) -> Effects:
        return [Ingest(peer, message.entries)] if message.entries else []

    def _have(self, peer: bytes, message: Have, now: Instant) -> Effects:
        return self._repair.claims(peer, message.lanes, now)

    def _ask_frontier(self, peer: bytes, message: AskFrontier, _: Instant) -> Effects:
        return self._repair.tell(peer, message)

    def _frontier(self, peer: bytes, message: Frontier, now: Instant) -> Effects:
        return self._repair.page(peer, message, now)

    def _want(self, peer: bytes, message: Want, _: Instant) -> Effects:
        return self._repair.serve(peer, message)

    def _entries(self, peer: bytes, message: Entries, now: Instant) -> Effects:
        return self._repair.wants.answer(peer, message, now)

    # --- time ------------------------------------------------------------------------------

    def _turn(self, now: Instant) -> Effects:
        """What is due: words of growth, then pings that cover them, then questions."""
        effects: Effects = []
        pings, silent = self._members.turn(now)
        for peer in silent:
            self._forget(peer, now)
            effects.append(DropPeer(peer, "silent"))
        if pings or self._broadcast.due(now):
            effects += self._broadcast.haves(self._repair.table.get, now)
        for peer, seq in pings:
            ping = Ping(
                seq=seq,
                frontier=self._repair.table.digest(),
                hlc=self._hlc,
                wall=self._wall,
                health=self._members.health,
                heads=self._heads,
            )
            effects.append(SendMessage(peer, ping, control=True))
        return effects + self._repair.turn(now)

    def _forget(self, peer: bytes, now: Instant) -> None:
        self._members.down(peer)
        self._broadcast.down(peer)
        self._repair.down(peer, now)
        self._budgets.pop(peer, None)


_EVENTS: Final[dict[type[Any], Callable[[GossipEngine, Any, Instant], Effects]]] = {
    PeerUp: GossipEngine._peer_up,
    PeerDown: GossipEngine._peer_down,
    Received: GossipEngine._received,
    Grew: GossipEngine._grew,
    Gap: GossipEngine._gap,
    SendRefused: GossipEngine._refused,
    Bad: GossipEngine._bad,
    DeadlineReached: GossipEngine._deadline_reached,
}

_MESSAGES: Final[dict[type[Any], Callable[[GossipEngine, bytes, Any, Instant], Effects]]] = {
    Ping: GossipEngine._ping,
    Pong: GossipEngine._pong,
    Push: GossipEngine._push,
    Have: GossipEngine._have,
    AskFrontier: GossipEngine._ask_frontier,
    Frontier: GossipEngine._frontier,
    Want: GossipEngine._want,
    Entries: GossipEngine._entries,
}
