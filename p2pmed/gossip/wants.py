"""Fetching what we lack: which range, of whom, when again.

Rules: one request in flight per peer, and a lane in at most one of them; oldest entries first;
the next request for a lane waits for the flush of what the last one brought. A want lives as
long as its channel and is never stored, so that a cut costs at most the batch in flight.

A peer that claims what it cannot give wastes its own slot only: its failures push it behind
every other holder of the lane, and it rests for longer and longer.

Batches fit the line: they halve when an answer takes over four seconds and double when it
takes less than one, so that 30 kbit/s with cuts still moves forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final

from p2pmed.engine import Instant
from p2pmed.gossip.events import DropPeer, GossipEffect, Ingest, SendMessage
from p2pmed.gossip.frontier import LaneTable, Mirror
from p2pmed.gossip.messages import WANT_RANGES_MAX, Entries, LaneRange, Want
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, LANES_MAX

__all__ = ["WANT_MS", "WANT_MS_MAX", "WANT_MS_MIN", "Wants"]

WANT_MS: Final = 4_000
WANT_MS_MIN: Final = 1_000
WANT_MS_MAX: Final = 15_000
"""Patience with one answer: at first; at least, or four times the usual answer; and how far
disappointment may double it. A line that has shown itself slower still gets its time."""

WANT_BYTES_START: Final = 32 * 1024
WANT_BYTES_MIN: Final = 4 * 1024
ANSWER_MS_SHORT: Final = 1_000
ANSWER_MS_LONG: Final = 4_000
ANSWER_MS_MAX: Final = 60_000
"""Twice the largest entry at 30 kbit/s."""

SETTLE_MS: Final = 1_000
SETTLE_MS_MAX: Final = 60_000
"""Between an answer and asking again for its lane, if it did not grow (a fork, junk)."""

REST_MS: Final = 250
REST_MS_MAX: Final = 30_000
"""A peer that disappointed rests so long, doubled for each time in a row."""

HOLD_MS: Final = 200
HOLDS_MAX: Final = 20
"""Entries that came are checked and flushed before more of their lane is asked for; a slow
machine may take seconds for it, and would be made slower by getting them twice."""

LATE_REQUESTS_MAX: Final = 4
"""Requests given up whose answer is still welcome: a slow line is not a lie."""

SCAN_LANES_MAX: Final = 512
"""Lanes looked at in one step; the others keep their turn."""


_LONG_AGO: Final = Instant(0)


@dataclass(slots=True)
class _Request:
    number: int
    ranges: tuple[LaneRange, ...]
    bytes_max: int
    sent_at: Instant
    due: Instant


@dataclass(slots=True)
class _Source:
    """One peer as a source of entries."""

    request: _Request | None = None
    late: deque[_Request] = field(default_factory=lambda: deque(maxlen=LATE_REQUESTS_MAX))
    bytes_max: int = WANT_BYTES_START
    answer_ms: int = ANSWER_MS_SHORT
    """How long an answer usually takes."""
    failures: int = 0
    """Disappointments since it last gave us something that lasted."""
    rest_until: Instant = _LONG_AGO


@dataclass(slots=True)
class _Lack:
    """A lane that somebody says goes further than ours."""

    due: Instant
    fails: int = 0
    """Answers in a row after which it had not grown."""
    asked: bool = False
    """In a request in flight."""
    answered_by: bytes | None = None
    """Who answered last, until the lane grows."""
    held: int = 0
    """How often asking was put off because entries of the lane were on their way."""


class Wants:
    """The lanes we lack, and the requests for them."""

    def __init__(
        self,
        table: LaneTable,
        mirrors: Mapping[bytes, Mirror],
        arriving: Callable[[LaneKey], int] = lambda lane: 0,
    ) -> None:
        self._table = table
        self._arriving = arriving
        self._mirrors = mirrors
        self._sources: dict[bytes, _Source] = {}
        self._lacks: dict[LaneKey, _Lack] = {}
        self._timers: list[tuple[Instant, LaneKey]] = []
        self._ready: dict[LaneKey, None] = {}
        self._last = 0
        self._turned_at = _LONG_AGO

    def __len__(self) -> int:
        return len(self._lacks)

    def up(self, peer: bytes) -> None:
        """A channel opened; nothing of an earlier one is remembered."""
        self._sources[peer] = _Source()

    def down(self, peer: bytes, foreign: Sequence[LaneKey], now: Instant) -> None:
        """The channel is gone; what it was asked for is free for others at once.

        ``foreign`` lanes that it alone named were perhaps invented: they go with it.
        """
        source = self._sources.pop(peer, None)
        if source and source.request:
            self._give_back(source.request.ranges, now)
        for lane in foreign:
            if not any(mirror.get(lane) for mirror in self._mirrors.values()):
                self._lacks.pop(lane, None)
                self._ready.pop(lane, None)
        if not self._sources:
            self._lacks.clear()
            self._timers.clear()
            self._ready.clear()

    def lack(self, lane: LaneKey, due: Instant) -> None:
        """Somebody holds more of ``lane``; ask from ``due`` on, or sooner if so settled."""
        lack = self._lacks.get(lane)
        if lack is None:
            self._lacks[lane] = _Lack(due=due)
        elif lack.asked or lane in self._ready or due >= lack.due or lack.answered_by:
            return
        self._wake_at(lane, due)

    def grew(self, lane: LaneKey, goal: int, source: bytes | None, due: Instant) -> None:
        """``lane`` grew here, thanks to ``source``; others claim up to ``goal``.

        If it grew by our own request, the next batch is due now; if by a push, more pushes
        may be on their way, and ``due`` is when to stop hoping.
        """
        if source in self._sources:
            self._sources[source].failures = 0
        if goal <= self._table.get(lane):
            self._lacks.pop(lane, None)
            self._ready.pop(lane, None)
            return
        lack = self._lacks.get(lane)
        if lack is None:
            self.lack(lane, due)
        elif not lack.asked:
            lack.fails = lack.held = 0
            now_due = lack.answered_by is not None
            lack.answered_by = None
            self._wake_at(lane, Instant(0) if now_due else due)

    def answer(self, peer: bytes, message: Entries, now: Instant) -> list[GossipEffect]:
        """An answer came: hand it on, note what was not there, free the slot."""
        source = self._sources[peer]
        waiting = [source.request] if source.request else []
        request = next((r for r in (*waiting, *source.late) if r.number == message.request), None)
        if request is None:
            return []
        if len(message.counts) > len(request.ranges) or sum(message.counts) != len(message.entries):
            return [DropPeer(peer, "an answer that is not one to its question")]
        if request is source.request:
            source.request = None
            self._fit(source, request, message, now)
            if not any(message.counts):
                self._disappointed(source, now)
            self._settle(peer, request, message, now)
        else:
            self._fit(source, request, message, now)
            source.late.remove(request)  # its lanes are with somebody else by now
        return [Ingest(peer, message.entries)] if message.entries else []

    def turn(self, now: Instant) -> list[GossipEffect]:
        """Give up what took too long, and ask whoever is free for what is due."""
        for source in self._sources.values():
            request = source.request
            if request and request.due <= now:
                source.request = None
                source.late.append(request)
                if source.answer_ms >= ANSWER_MS_SHORT:
                    # A line known to be fast lost it; any other may be too slow for its size.
                    source.bytes_max = max(WANT_BYTES_MIN, source.bytes_max // 2)
                self._disappointed(source, now)
                self._give_back(request.ranges, now)
        self._turned_at = now
        self._wake(now)
        return self._ask(now) if self._ready else []

    def deadline(self) -> Instant | None:
        """When a request is given up, a lane comes due, or a resting peer may be asked."""
        instants = [s.request.due for s in self._sources.values() if s.request]
        if self._ready:
            instants += [
                s.rest_until for s in self._sources.values() if s.rest_until > self._turned_at
            ]
        if self._timers:
            instants.append(self._timers[0][0])
        return min(instants, default=None)

    # --- asking ----------------------------------------------------------------------------

    def _ask(self, now: Instant) -> list[GossipEffect]:
        free: dict[bytes, list[LaneRange]] = {
            peer: []
            for peer, source in self._sources.items()
            if source.request is None and source.rest_until <= now
        }
        for lane in list(islice(self._ready, SCAN_LANES_MAX)) if free else ():
            del self._ready[lane]
            start = self._table.get(lane)
            holders = [p for p in self._sources if self._mirrors[p].get(lane) > start]
            if not holders or (start == 0 and len(self._table) >= LANES_MAX):
                del self._lacks[lane]
                continue
            able = [p for p in holders if p in free and len(free[p]) < WANT_RANGES_MAX]
            if not able:
                self._ready[lane] = None
                continue
            # Whoever failed least, then whoever has least to do: several sources share a backlog.
            peer = min(able, key=lambda p: (self._sources[p].failures, len(free[p])))
            end = min(self._mirrors[peer].get(lane), start + BATCH_ENTRIES_MAX)
            free[peer].append(LaneRange(lane.author, lane.incarnation, start, end))
            self._lacks[lane].asked = True
            self._lacks[lane].answered_by = None
        return [self._send(peer, ranges, now) for peer, ranges in free.items() if ranges]

    def _send(self, peer: bytes, ranges: list[LaneRange], now: Instant) -> GossipEffect:
        source = self._sources[peer]
        self._last += 1
        usual = max(WANT_MS_MIN, min(4 * source.answer_ms, ANSWER_MS_MAX))
        patience = max(usual, min(usual << min(source.failures, 8), WANT_MS_MAX))
        source.request = _Request(
            number=self._last,
            ranges=tuple(ranges),
            bytes_max=source.bytes_max,
            sent_at=now,
            due=Instant(now + patience),
        )
        message = Want(self._last, source.bytes_max, source.request.ranges)
        return SendMessage(peer, message, control=False)

    # --- answers ---------------------------------------------------------------------------

    def _settle(self, peer: bytes, request: _Request, message: Entries, now: Instant) -> None:
        """Lanes considered wait for their flush; lanes not reached are due at once."""
        considered = len(message.counts)
        for number, each in enumerate(request.ranges):
            lack = self._lacks.get(each.lane)
            if number < considered and message.counts[number] == 0:
                mirror = self._mirrors[peer]
                if mirror.get(each.lane) > each.start:
                    mirror.put(each.lane, each.start)
            if lack is None:
                continue
            lack.asked = False
            if number < considered and message.counts[number]:
                lack.answered_by = peer
                wait = min(SETTLE_MS << min(lack.fails, 8), SETTLE_MS_MAX)
                lack.fails += 1
                self._wake_at(each.lane, Instant(now + wait))
            else:
                self._wake_at(each.lane, now)

    def _fit(self, source: _Source, request: _Request, message: Entries, now: Instant) -> None:
        """Let the batch follow the line's speed."""
        took = now - request.sent_at
        source.answer_ms = (3 * source.answer_ms + took) // 4
        size = sum(map(len, message.entries))
        if took > ANSWER_MS_LONG:
            source.bytes_max = max(WANT_BYTES_MIN, source.bytes_max // 2)
        elif took < ANSWER_MS_SHORT and 2 * size > request.bytes_max:
            source.bytes_max = min(BATCH_BYTES_MAX, source.bytes_max * 2)

    def _disappointed(self, source: _Source, now: Instant) -> None:
        source.failures += 1
        rest = min(REST_MS << min(source.failures - 1, 8), REST_MS_MAX)
        source.rest_until = Instant(now + rest)

    def _give_back(self, ranges: tuple[LaneRange, ...], now: Instant) -> None:
        for each in ranges:
            lack = self._lacks.get(each.lane)
            if lack:
                lack.asked = False
                self._wake_at(each.lane, now)

    # --- timers ----------------------------------------------------------------------------

    def _wake_at(self, lane: LaneKey, due: Instant) -> None:
        lack = self._lacks[lane]
        lack.due = due
        self._ready.pop(lane, None)
        heappush(self._timers, (due, lane))
        if len(self._timers) > 4 * len(self._lacks) + 64:
            self._timers = [(each.due, key) for key, each in self._lacks.items() if not each.asked]
            heapify(self._timers)

    def _wake(self, now: Instant) -> None:
        while self._timers and self._timers[0][0] <= now:
            due, lane = heappop(self._timers)
            lack = self._lacks.get(lane)
            if lack is None or lack.asked or lack.due != due:
                continue
            if lack.held < HOLDS_MAX and self._arriving(lane) > self._table.get(lane):
                lack.held += 1
                lack.due = Instant(now + HOLD_MS)
                heappush(self._timers, (lack.due, lane))
                continue
            if lack.answered_by in self._sources:
                # It answered, and nothing came of it: a fork, or junk.
                self._sources[lack.answered_by].failures += 1
            self._ready[lane] = None
