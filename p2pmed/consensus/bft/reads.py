"""Linearizable reads: the height below which nothing that was final before can be missing (R13).

Rules:

* A read asks everybody where they stand, and waits for ``q - 1`` others. Its height is the
  highest among what they and we decided or *voted to finalize*, each shown with a certificate.
* Reads that come while a round is out share the next one.

Why it is linearizable. Suppose that anybody called height h final before the read came. Then q
validators had voted to finalize the block at h, or one above it. They share f + 1 seats, hence
an honest one, with the q that the round heard (ourselves among them); its vote was durable
before it answered, so its answer names height h at least. Decided heights alone would not do:
the only one that had put the certificate together may be gone. A liar cannot lift the height
beyond a block that a quorum notarized, and such a block keeps the mesh at work until its height
is decided, by it or by another. No clock is involved but for giving up.

A read that names the last block of an epoch says nothing of the next epoch: its caller asks
that epoch's engine again once the block is applied.
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.greeting import ROUND_MAX
from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.messages import Decided, Hello, Standing
from p2pmed.consensus.bft.news import ASK_MS
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import DELTA_MS
from p2pmed.consensus.interface import ReadAt, ReadFailed
from p2pmed.engine import Instant, Rng
from p2pmed.quorum.certificate import Epoch

__all__ = ["READS_MAX", "READ_MS", "Reads", "head_of"]

READ_MS: Final = 10 * DELTA_MS
"""A round that takes longer has no quorum."""

READS_MAX: Final = 256
"""Reads that wait at once; more are refused."""


def head_of(live: Live, ballots: Ballots) -> tuple[Decided, ...]:
    """The highest block that we decided or voted to finalize, with its proof; or nothing."""
    found: list[tuple[int, Decided]] = []
    if live.tip is not None and live.tip_certificate is not None:
        found.append((live.height, Decided(live.tip, live.tip_certificate)))
    for view in ballots.finalized_by_us():
        certificate = live.certified(view)
        block = None if certificate is None else live.blocks.get(certificate.digest)
        if certificate is not None and block is not None:
            found.append((block.header.height, Decided(block.header, certificate)))
    return (max(found, key=lambda each: each[0])[1],) if found else ()


class Reads:
    """Reads of one node that wait for their height."""

    def __init__(
        self, *, epoch: Epoch, live: Live, ballots: Ballots, outbox: Outbox, rng: Rng
    ) -> None:
        self._needed = epoch.quorum - 1
        self._live, self._ballots, self._outbox, self._rng = live, ballots, outbox, rng
        self._tokens: list[int] = []
        """Those of the round that is out."""
        self._next: list[int] = []
        self._round = 0
        self._heights: dict[int, int] = {}
        self._fails_at = Instant(0)
        self.deadline: Instant | None = None
        """When to look at the round that is out: to ask again, or to give up."""

    def read(self, token: int, now: Instant, *, sure: bool) -> None:
        """A read; ``sure`` unless our own rows may lack votes (R12)."""
        if not sure or len(self._tokens) + len(self._next) >= READS_MAX:
            self._outbox.put(ReadFailed(token))
            return
        self._next.append(token)
        if not self._tokens:
            self._start(now)

    def take(self, seat: int, answer: Standing, now: Instant) -> bool:
        """An answer; whether it was to our question."""
        if not self._tokens or answer.round != self._round:
            return False
        floor = self._live.floor
        heights = (head.header.height for head in answer.head if head.header.view > floor)
        self._heights[seat] = max(heights, default=0)
        if len(self._heights) >= self._needed:
            self._finish(now)
        return True

    def tick(self, now: Instant) -> None:
        """Ask again who has not answered; give up a round that nobody completes."""
        if self.deadline is None or now < self.deadline:
            return
        if now >= self._fails_at:
            for token in self._tokens:
                self._outbox.put(ReadFailed(token))
            self._start(now)
        else:
            self.deadline = Instant(now + ASK_MS)
            self._outbox.broadcast(Hello(round=self._round))

    def _start(self, now: Instant) -> None:
        self._tokens, self._next = self._next, []
        self._heights.clear()
        self.deadline = None
        if self._tokens and self._needed:
            self._round = self._rng.randint(1, ROUND_MAX)
            self._fails_at, self.deadline = Instant(now + READ_MS), Instant(now + ASK_MS)
            self._outbox.broadcast(Hello(round=self._round))
        elif self._tokens:
            self._finish(now)

    def _finish(self, now: Instant) -> None:
        ours = [head.header.height for head in head_of(self._live, self._ballots)]
        height = max([self._live.height, *ours, *self._heights.values()])
        for token in self._tokens:
            self._outbox.put(ReadAt(token, height))
        self._start(now)
