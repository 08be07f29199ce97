"""Repair: compare digests, learn where a peer stands, fetch what it has more of.

Theory of operation. Every flush is told to all peers by ``Have`` in the control lane, and
every ping leaves after the ``Have`` that its digest covers. So the mirror of a peer usually
hashes to just what its ping says, also under load, and nothing else need be exchanged. When it
does not (first meeting, a lost message), the digest tells:

=====================================  ====================================================
the ping's digest equals               then
=====================================  ====================================================
that of the peer's mirror              nothing to do
our own                                the peer holds what we hold: 32 bytes settled it
neither                                ``AskFrontier``, paced; its pages correct the mirror
=====================================  ====================================================

A mirror ahead of our table makes wants (``wants.py``). News of a connected author's log gets a
moment to arrive by push first; of an absent author's, and what a page shows, is asked for at
once.

Rule: nothing a peer claims costs more than ``FOREIGN_LANES_MAX`` lanes, one ask per pause and
one request in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.engine import Instant, earliest
from p2pmed.gossip.events import DropPeer, GossipEffect, Holds, LogStore, SendMessage
from p2pmed.gossip.frontier import LaneTable, Mirror
from p2pmed.gossip.messages import (
    BUCKET_PREFIX_BYTES,
    BUCKETS,
    PAGE_LANES_MAX,
    AskFrontier,
    Entries,
    Frontier,
    LaneRange,
    Mark,
    Want,
    mark,
)
from p2pmed.gossip.wants import Wants
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, PING_MS

__all__ = ["ASK_MS", "ASK_PAUSE_MS_MAX", "GRACE_MS", "AntiEntropy"]

GRACE_MS: Final = 200
"""For the author's own push to arrive before we ask: longer than any LAN (wild guess)."""

ASK_MS: Final = 4_000
"""Patience with one page of a frontier."""

ASK_PAUSE_MS_MAX: Final = 8 * PING_MS
"""Between exchanges that did not make the digests fit; starts at a ping and doubles."""

WHOLE_LANES_MAX: Final = 64
"""Up to here the whole frontier is shorter than the 4 kB of bucket digests that narrow it."""


_LONG_AGO: Final = Instant(0)


@dataclass(slots=True)
class _Ask:
    """A frontier exchange under way."""

    number: int
    known: bytes
    snapshot: Sequence[int] | None
    """Our own table when asked, if ``known`` was made from it."""
    due: Instant


@dataclass(slots=True)
class _Talk:
    """What is under way with one peer."""

    ask: _Ask | None = None
    pause_ms: int = PING_MS
    pause_until: Instant = _LONG_AGO
    in_step: bool = False


class AntiEntropy:
    """Our table, the peers' mirrors, and the two kinds of question."""

    def __init__(
        self, store: LogStore, arriving: Callable[[LaneKey], int] = lambda lane: 0
    ) -> None:
        self._store = store
        self.table = LaneTable(store.frontier())
        self.mirrors: dict[bytes, Mirror] = {}
        self._talks: dict[bytes, _Talk] = {}
        self.wants = Wants(self.table, self.mirrors, arriving)
        self._last = 0

    def up(self, peer: bytes) -> None:
        """A channel opened. What the peer said on an earlier one may be lost: forget it."""
        self.mirrors[peer] = Mirror(self.table)
        self._talks[peer] = _Talk()
        self.wants.up(peer)

    def down(self, peer: bytes, now: Instant) -> None:
        """The channel is gone."""
        mirror = self.mirrors.pop(peer, None)
        self._talks.pop(peer, None)
        self.wants.down(peer, mirror.foreign() if mirror else [], now)

    def holds(self, peer: bytes, lane: LaneKey) -> int:
        """How far ``peer`` said that it holds ``lane``; 0 if it is not connected."""
        mirror = self.mirrors.get(peer)
        return mirror.get(lane) if mirror else 0

    def in_step(self, peer: bytes) -> bool:
        """Whether the peer's last ping settled that it holds exactly what we hold."""
        return peer in self._talks and self._talks[peer].in_step

    # --- what grew -------------------------------------------------------------------------

    def grew(
        self, lanes: Sequence[tuple[LaneKey, int]], source: bytes | None, now: Instant
    ) -> list[GossipEffect]:
        """These lanes became longer here."""
        effects: list[GossipEffect] = []
        for lane, next_seq in lanes:
            known = self.table.number(lane) is not None
            before = self.table.grow(lane, next_seq)
            goal = 0
            for peer, mirror in self.mirrors.items():
                if not known:
                    mirror.settle(lane)
                claimed = mirror.get(lane)
                goal = max(goal, claimed)
                if claimed > before:
                    effects.append(Holds(peer, lane, min(claimed, next_seq)))
            self.wants.grew(lane, goal, source, Instant(now + GRACE_MS))
        return effects

    # --- what a peer says ------------------------------------------------------------------

    def pinged(self, peer: bytes, digest: bytes, now: Instant) -> list[GossipEffect]:
        """The peer's whole frontier has this digest."""
        talk, mirror = self._talks[peer], self.mirrors[peer]
        talk.in_step = digest == self.table.digest()
        if digest == mirror.digest():
            talk.pause_ms = PING_MS
            return []
        if talk.in_step:
            return self._raised(peer, mirror.adopt(self.table.snapshot(), None))
        if talk.ask is None and talk.pause_until <= now:
            return [self._ask(peer, now)]
        return []

    def claims(
        self, peer: bytes, marks: Sequence[Mark], now: Instant, *, grace_ms: int = GRACE_MS
    ) -> list[GossipEffect]:
        """The peer's disk holds these lanes so far."""
        mirror = self.mirrors[peer]
        raised = []
        for each in marks:
            lane = each.lane
            if each.next_seq > mirror.get(lane) and mirror.put(lane, each.next_seq):
                raised.append((lane, each.next_seq))
                if each.next_seq > self.table.get(lane):
                    # The author's push is probably behind this word; a stranger's is not.
                    grace = grace_ms if lane.author in self.mirrors else 0
                    self.wants.lack(lane, Instant(now + grace))
        return self._raised(peer, raised)

    def gap(
        self, peer: bytes, lane: LaneKey, have_next: int, got_seq: int, now: Instant
    ) -> list[GossipEffect]:
        """The peer sent an entry ahead of our log, so it holds all before it."""
        mirror = self.mirrors[peer]
        if got_seq <= self._store.next_seq(lane):
            return []  # what was missing came meanwhile; its Grew is on the way
        raised = []
        if got_seq + 1 > mirror.get(lane) and mirror.put(lane, got_seq + 1):
            raised.append((lane, got_seq + 1))
        if mirror.get(lane) > self.table.get(lane):
            # With entries still on their way to the disk, their flush decides where to go on.
            flushing = have_next > self._store.next_seq(lane)
            self.wants.lack(lane, Instant(now + GRACE_MS * flushing))
        return self._raised(peer, raised)

    def page(self, peer: bytes, message: Frontier, now: Instant) -> list[GossipEffect]:
        """A page of the peer's frontier; unasked ones are forgotten."""
        talk, mirror = self._talks[peer], self.mirrors[peer]
        ask = talk.ask
        if ask is None or ask.number != message.request:
            return []
        talk.ask = None
        effects = self.claims(peer, message.lanes, now, grace_ms=0)
        if ask.snapshot is not None:
            effects += self._raised(peer, mirror.adopt(ask.snapshot, message.same))
        if message.more and message.lanes and not mirror.full:
            after = message.lanes[-1].lane.to_bytes()
            return [*effects, self._send(peer, ask.known, ask.snapshot, after, now)]
        talk.pause_until = Instant(now + talk.pause_ms)
        talk.pause_ms = min(2 * talk.pause_ms, ASK_PAUSE_MS_MAX)
        return effects

    # --- what a peer asks ------------------------------------------------------------------

    def tell(self, peer: bytes, message: AskFrontier) -> list[GossipEffect]:
        """One page of our frontier."""
        if len(message.known) not in (0, BUCKETS * BUCKET_PREFIX_BYTES) or len(
            message.after
        ) not in (0, 48):
            return [DropPeer(peer, "a question about the frontier of an impossible length")]
        marks, more, same = self.table.page(message.known, message.after, PAGE_LANES_MAX)
        page = Frontier(message.request, tuple(mark(*each) for each in marks), more, same)
        return [SendMessage(peer, page, control=False)]

    def serve(self, peer: bytes, message: Want) -> list[GossipEffect]:
        """Entries from the disk, oldest first, until the batch is full."""
        counts: list[int] = []
        entries: list[bytes] = []
        room = min(message.bytes_max, BATCH_BYTES_MAX)
        for each in message.ranges:
            places = BATCH_ENTRIES_MAX - len(entries)
            if places == 0 or room <= 0:
                break
            found = self._read(each, places, room)
            counts.append(len(found))
            entries += found
            room -= sum(map(len, found))
        answer = Entries(message.request, tuple(counts), tuple(entries))
        return [SendMessage(peer, answer, control=False)]

    def _read(self, each: LaneRange, places: int, room: int) -> list[bytes]:
        end = min(each.end, each.start + places, self.table.get(each.lane))
        if each.start >= end:
            return []
        return self._store.read(each.lane, each.start, end, bytes_max=room)

    # --- time ------------------------------------------------------------------------------

    def turn(self, now: Instant) -> list[GossipEffect]:
        """Give up late pages, ask for entries."""
        for talk in self._talks.values():
            if talk.ask and talk.ask.due <= now:
                talk.ask = None
        return self.wants.turn(now)

    def deadline(self) -> Instant | None:
        """When to come back."""
        asks = [talk.ask.due for talk in self._talks.values() if talk.ask]
        return earliest(min(asks, default=None), self.wants.deadline())

    # --- asking ----------------------------------------------------------------------------

    def _ask(self, peer: bytes, now: Instant) -> GossipEffect:
        """Ask where the peer differs from its mirror, or from us if it has said nothing yet."""
        mirror = self.mirrors[peer]
        if len(self.table) <= WHOLE_LANES_MAX:
            return self._send(peer, b"", None, b"", now)
        if mirror.empty:
            return self._send(peer, self.table.prefixes(), self.table.snapshot(), b"", now)
        return self._send(peer, mirror.prefixes(), None, b"", now)

    def _send(
        self, peer: bytes, known: bytes, snapshot: Sequence[int] | None, after: bytes, now: Instant
    ) -> GossipEffect:
        self._last += 1
        self._talks[peer].ask = _Ask(self._last, known, snapshot, Instant(now + ASK_MS))
        return SendMessage(peer, AskFrontier(self._last, known, after), control=False)

    def _raised(self, peer: bytes, lanes: Sequence[tuple[LaneKey, int]]) -> list[GossipEffect]:
        """Only what we hold ourselves is worth a word: the rest may be a boast."""
        effects: list[GossipEffect] = []
        for lane, next_seq in lanes:
            own = self.table.get(lane)
            if own:
                effects.append(Holds(peer, lane, min(own, next_seq)))
        return effects
