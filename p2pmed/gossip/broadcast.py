"""Fresh entries out: the author pushes to every peer once, everybody tells what grew.

A cell is a full mesh, so one hop reaches all and no payload travels twice. A relay is not a
push: a receiver says ``Have``, and whoever is not connected to the author asks one of those
who have it, at once (``antientropy.py``). So a payload is sent again only on request.

Rule: a push must connect to what the peer holds or has in flight; otherwise it would be thrown
away over there. A peer whose queue overflowed gets no push until it speaks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from p2pmed.engine import Instant
from p2pmed.gossip.events import SendMessage
from p2pmed.gossip.messages import HAVE_LANES_MAX, Have, Push, mark
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX

__all__ = ["HAVE_MS_PER_PEER", "Broadcast"]

HAVE_MS_PER_PEER: Final = 1
"""Between two ``Have`` to all, times peers: 3 ms in a mesh of four, 63 ms in a full cell.

The first after a pause leaves at once. Each costs a message per peer, hence the factor.
"""

Run = tuple[LaneKey, int, list[bytes]]


class Broadcast:
    """What is in flight to whom, and which lanes to tell of."""

    def __init__(self, me: bytes) -> None:
        self._me = me
        self._pushed: dict[bytes, dict[LaneKey, int]] = {}
        """Per peer: where our own lanes end with what is in flight."""
        self._behind: dict[bytes, None] = {}
        self._grown: dict[LaneKey, None] = {}
        self._told_at: Instant | None = None

    def up(self, peer: bytes) -> None:
        """A channel opened, with nothing in flight."""
        self._pushed[peer] = {}
        self._behind.pop(peer, None)

    def down(self, peer: bytes) -> None:
        """The channel is gone, and what was in flight with it."""
        self._pushed.pop(peer, None)
        self._behind.pop(peer, None)

    def refused(self, peer: bytes) -> None:
        """The peer's queue was full: what is in flight there is unknown."""
        if peer in self._pushed:
            self._pushed[peer].clear()
            self._behind[peer] = None

    def spoke(self, peer: bytes) -> None:
        """The peer's ping came: it is alive and has told what it holds."""
        self._behind.pop(peer, None)

    def behind(self, peer: bytes) -> bool:
        """Whether pushes to ``peer`` pause."""
        return peer in self._behind

    def grew(self, lanes: Sequence[tuple[LaneKey, int]]) -> None:
        """These lanes are to be told of."""
        for lane, _ in lanes:
            self._grown[lane] = None

    def pushes(
        self,
        entries: Sequence[tuple[LaneKey, int, bytes]],
        holds: Callable[[bytes, LaneKey], int],
    ) -> list[SendMessage]:
        """Push our own among ``entries`` to every peer whose log they connect to."""
        effects: list[SendMessage] = []
        own = [each for each in entries if each[0].author == self._me]
        for lane, group in groupby(own, key=lambda each: each[0]):
            run = list(group)
            start, raws = run[0][1], [raw for _, _, raw in run]
            batches = _batches(raws)
            for peer, pushed in self._pushed.items():
                expected = max(holds(peer, lane), pushed.get(lane, 0))
                if peer in self._behind or not start <= expected <= start + len(raws):
                    continue
                pushed[lane] = start + len(raws)
                todo = batches if expected == start else _batches(raws[expected - start :])
                effects += [SendMessage(peer, push, control=False) for push in todo]
        return effects

    def haves(self, next_seq: Callable[[LaneKey], int], now: Instant) -> list[SendMessage]:
        """Tell all peers of all that grew. Always before a ping, so that its digest fits."""
        lanes = list(self._grown)
        self._grown.clear()
        self._told_at = now
        told = [mark(lane, next_seq(lane)) for lane in lanes]
        pages = [
            Have(tuple(told[at : at + HAVE_LANES_MAX]))
            for at in range(0, len(told), HAVE_LANES_MAX)
        ]
        return [SendMessage(peer, page, control=True) for peer in self._pushed for page in pages]

    def due(self, now: Instant) -> bool:
        """Whether it is time for ``haves``."""
        deadline = self.deadline()
        return deadline is not None and deadline <= now

    def deadline(self) -> Instant | None:
        """When to tell what grew; ``None`` if nothing did."""
        if not self._grown:
            return None
        pause = HAVE_MS_PER_PEER * len(self._pushed)
        return Instant(0 if self._told_at is None else self._told_at + pause)


def _batches(raws: Sequence[bytes]) -> list[Push]:
    batches: list[Push] = []
    batch: list[bytes] = []
    size = 0
    for raw in raws:
        if batch and (len(batch) >= BATCH_ENTRIES_MAX or size + len(raw) > BATCH_BYTES_MAX):
            batches.append(Push(tuple(batch)))
            batch, size = [], 0
        batch.append(raw)
        size += len(raw)
    if batch:
        batches.append(Push(tuple(batch)))
    return batches
