"""What a validator that missed something may ask of another, and how often (R9, R10).

Rules:

* One question per seat and ``ASK_MS``, one answer per seat and ``ANSWER_MS``: two lagging
  nodes must not talk each other into a storm, and a small question buys a bounded answer.
* Certificates are answered upward from where the asker stands, so that a gap longer than
  one answer closes step by step.
* Decided blocks are the business of ``sync/chains.py``; only the last few are kept here, for
  a peer that lost one message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.bft.messages import (
    ASK_BLOCKS_MAX,
    CERTIFICATES_MAX,
    Ask,
    Body,
    Certificates,
    Decided,
    Message,
)
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.bft.pacemaker import DELTA_MS
from p2pmed.consensus.interface import Behind, Block
from p2pmed.engine import Instant
from p2pmed.quorum.certificate import Certificate

__all__ = ["ANSWER_MS", "ASK_MS", "Claim", "Limit", "News"]

ASK_MS: Final = DELTA_MS // 2
ANSWER_MS: Final = DELTA_MS // 8
GREET_MS: Final = 5
"""Between answers to hellos of one seat: a read is one round on a fast network."""
assert GREET_MS < ANSWER_MS < ASK_MS

RECENT_BLOCKS_MAX: Final = 8
"""Decided blocks kept in memory."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A decision that ``seat`` proved, and that we may not be able to connect."""

    view: int
    height: int
    seat: int


class Limit:
    """At most one per key and ``gap_ms``; one instant per key, and keys are seats."""

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._next: dict[int, Instant] = {}

    def allows(self, key: int, now: Instant) -> bool:
        """Whether it may happen now; if so, it counts as happened."""
        if now < self._next.get(key, now):
            return False
        self._next[key] = Instant(now + self._gap_ms)
        return True


class News:
    """Questions and answers about the live part of the chain."""

    def __init__(self, live: Live, outbox: Outbox, seat: int) -> None:
        self._live, self._outbox, self._seat = live, outbox, seat
        self._recent: dict[bytes, Block] = {}
        self._questions = Limit(ASK_MS)
        self._answers = Limit(ANSWER_MS)
        self._corrections = Limit(ASK_MS)
        self._greetings = Limit(GREET_MS)
        self._complaints = Limit(DELTA_MS)
        self.claim: Claim | None = None
        """The highest decision that somebody proved to us."""
        self.lacks: int | None = None
        """View whose certificate stopped us last."""

    @property
    def wanted(self) -> bool:
        """Whether something is known to be missing."""
        return self.lacks is not None or bool(self._live.bodiless)

    def behind(self, now: Instant, *, insist: bool) -> Behind | None:
        """What to tell the driver about a decision beyond us, at most once a delta.

        ``insist`` also tells of a finalized block that nobody claimed and we cannot connect;
        several of them are not on their way, and are told of in any case.
        """
        live = self._live
        if self.claim is not None and self.claim.view <= live.floor:
            self.claim = None
        if self.claim is None and len(live.finalized) < (1 if insist else 2):
            return None
        if not self._complaints.allows(0, now):
            return None
        if self.claim is None:
            return Behind(height=live.height + 1, seat=None)
        return Behind(height=self.claim.height, seat=self.claim.seat)

    def heard_of(self, claim: Claim) -> None:
        """A proved decision; a lower one takes nothing back (CVE-2025-24371)."""
        if self.claim is None or claim.view >= self.claim.view:
            self.claim = claim

    def remember(self, digest: bytes, block: Block) -> None:
        """A block was decided."""
        self._recent[digest] = block
        if len(self._recent) > RECENT_BLOCKS_MAX:
            del self._recent[next(iter(self._recent))]

    def ask(self, seat: int, view: int, now: Instant) -> None:
        """Ask ``seat``, unless it is ours, for news while in ``view``, if not just asked."""
        if seat == self._seat or not self._questions.allows(seat, now):
            return
        start = view if self.lacks is None else min(self.lacks, view)
        wanted = tuple(self._live.bodiless)[:ASK_BLOCKS_MAX]
        self._outbox.send(seat, Ask(floor=self._live.floor, start=start, blocks=wanted))

    def may_greet(self, seat: int, now: Instant) -> bool:
        """Whether a hello of ``seat`` may be answered now."""
        return self._greetings.allows(seat, now)

    def answer(self, ask: Ask, seat: int, now: Instant) -> list[Message]:
        """What we know of it; empty if ``seat`` was answered just now."""
        if not self._answers.allows(seat, now):
            return []
        messages: list[Message] = []
        if ask.floor < self._live.floor:
            messages += self.floor()
        messages += self.certificates(ask.start)
        for digest in ask.blocks:
            block = self._live.blocks.get(digest) or self._recent.get(digest)
            if block is not None:
                messages.append(Body(block=block))
        return messages

    def correction(self, seat: int, view: int, now: Instant) -> list[Message]:
        """For ``seat``, which still votes in ``view`` that is over: the proof of that."""
        if not self._corrections.allows(seat, now):
            return []
        return self.floor() if view <= self._live.floor else self.certificates(view)

    def floor(self) -> list[Message]:
        """The proof of the last decision, if there is one."""
        tip, certificate = self._live.tip, self._live.tip_certificate
        if tip is None or certificate is None:
            return []
        return [Decided(header=tip, certificate=certificate)]

    def certificates(self, start: int) -> list[Message]:
        """Certificates of undecided views from ``start`` upward, as many as one answer holds."""
        live = self._live
        found: list[Certificate] = []
        for view in range(max(start, live.low + 1), live.top + 1):
            tables = (live.notarized, live.nullified, live.finalized)
            found += [table[view] for table in tables if view in table]
            if len(found) > CERTIFICATES_MAX - 3:
                break
        return [Certificates(certificates=tuple(found))] if found else []
