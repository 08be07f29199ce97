"""What is known above the floor: certificates, blocks, and how they hang together.

Rules (consensus notes, section 3.3):

* R2: a parent is the highest certified view below, over views proved nullified.
* R3: a block may follow its parent only if **every** view between is proved nullified.
* R8: a block is decided with all its ancestors down to the floor, or not yet.

A certificate says that a quorum agreed, not that we hold the block: ``bodiless`` names those
we must ask for. Everything at or below the floor is gone; what is above exists because a
quorum certified it, or because the leader of a view in the window proposed it, once.
A node that cannot connect to a finalized view keeps ``KEPT_VIEWS`` below it and no more:
nothing lower can ever be built on, and ``sync`` brings the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from p2pmed.consensus.interface import Block, Header, header_digest
from p2pmed.quorum.certificate import Certificate, Epoch, VoteKind

__all__ = ["KEPT_VIEWS", "Lacks", "Live", "Parent", "Standing", "drop_views"]

T = TypeVar("T")

KEPT_VIEWS: Final = 64
"""Views kept below a finalized one that cannot be connected yet."""
PASSED_MAX: Final = 64
"""Nullified views below one block that are handed out with it, the highest."""


class Standing(Enum):
    """What certificates say of a proposed header."""

    READY = "ready"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Lacks:
    """A certificate (or certified block) of this view is needed first."""

    view: int


@dataclass(frozen=True, slots=True)
class Parent:
    """What a new block may stand on."""

    digest: bytes
    view: int
    height: int


class Live:
    """The undecided part of the chain."""

    def __init__(self, epoch: Epoch, tip: Header | None, certificate: Certificate | None) -> None:
        self.tip = tip
        self.tip_digest = epoch.ledger if tip is None else header_digest(tip)
        self.tip_certificate = certificate
        self.floor = tip.view if tip is not None and tip.epoch == epoch.number else 0
        self.height = 0 if tip is None else tip.height
        self.low = self.floor
        """Nothing is kept, counted or signed at or below this view; never under the floor."""
        self.top = self.floor
        """The highest view with any certificate."""
        self.highest = certificate
        """The certificate of the highest view ever seen; it outlives the floor."""
        self.changed = True
        """Whether the rules should look again."""
        self.notarized: dict[int, Certificate] = {}
        self.nullified: dict[int, Certificate] = {}
        self.finalized: dict[int, Certificate] = {}
        self.blocks: dict[bytes, Block] = {}
        self.proposals: dict[int, bytes] = {}
        """The first block that the leader of a view proposed; kept even if refused."""
        self.early: dict[int, bytes] = {}
        """The first block that came for a view before that view did (R2, in advance)."""
        self.bodiless: dict[bytes, int] = {}
        self.valid: dict[bytes, None] = {}
        """Blocks that the application executed."""

    def holds(self, view: int, kind: int, digest: bytes) -> bool:
        """Whether this certificate is known."""
        known = self._of(kind).get(view)
        return known is not None and known.digest == digest

    def certified(self, view: int) -> Certificate | None:
        """What allows the block of ``view`` to be a parent."""
        return self.finalized.get(view) or self.notarized.get(view)

    def onward(self, view: int) -> int:
        """R1: the view that follows from ``view`` and all certificates.

        A certified block ends all views up to its own, since a quorum was there. A nullified
        view ends only itself: it may have been given up in advance, by validators that had
        not come so far. What is above it waits until the views before are over.
        """
        for table in (self.notarized, self.finalized):
            view = max(view, max(table, default=0) + 1)
        view = max(view, self.floor + 1)
        while view in self.nullified:
            view += 1
        return view

    def proves(self, certificate: Certificate) -> None:
        """A checked certificate that nothing else is kept of."""
        if self.highest is None or certificate.view > self.highest.view:
            self.highest = certificate

    def admit(self, certificate: Certificate) -> bool:
        """Take a checked certificate; whether it told us something."""
        kind = self._of(certificate.kind)
        if certificate.view <= self.low or certificate.view in kind:
            return False
        kind[certificate.view] = certificate
        self.proves(certificate)
        self.changed = True
        self.top = max(self.top, certificate.view)
        if certificate.kind != VoteKind.NULLIFY:
            self._want(certificate.digest, certificate.view)
        if certificate.kind == VoteKind.FINALIZE:
            self._forget(max(self.low, certificate.view - KEPT_VIEWS))
        return True

    def add_block(self, digest: bytes, block: Block) -> None:
        """Keep a block; the caller knows that it was proposed or certified."""
        self.blocks[digest] = block
        certified = self.certified(block.header.view)
        wanted = self.bodiless.pop(digest, None) is not None
        if wanted or (certified is not None and certified.digest == digest):
            self._want(digest, block.header.view)
        self.changed = True

    def drop_block(self, digest: bytes) -> None:
        """The application refused these bytes; the true ones may still be asked for."""
        block = self.blocks.pop(digest, None)
        if block is None:
            return
        certificate = self.certified(block.header.view)
        if certificate is not None and certificate.digest == digest:
            self.bodiless[digest] = block.header.view

    def parent_for(self, view: int, usable: Callable[[bytes], bool]) -> Parent | Lacks:
        """R2: walk down from ``view`` to the first usable certified block."""
        below = view - 1
        while below > self.floor:
            certificate = self.certified(below)
            if certificate is not None and usable(certificate.digest):
                header = self.blocks[certificate.digest].header
                return Parent(certificate.digest, below, header.height)
            if below not in self.nullified:
                return Lacks(below)
            below -= 1
        return Parent(self.tip_digest, self.floor, self.height)

    def standing(self, header: Header) -> Standing | Lacks:
        """R3: whether certificates allow ``header`` to follow its parent."""
        if not self.floor <= header.parent_view < header.view:
            return Standing.BROKEN
        if header.parent_view == self.floor:
            digest, height = self.tip_digest, self.height
        else:
            certificate = self.certified(header.parent_view)
            if certificate is None:
                return Lacks(header.parent_view)
            parent = self.blocks.get(certificate.digest)
            if parent is None:
                return Lacks(header.parent_view)
            digest, height = certificate.digest, parent.header.height
        if header.parent != digest or header.height != height + 1:
            return Standing.BROKEN
        return self.skipped(header)

    def skipped(self, header: Header) -> Standing | Lacks:
        """Every view between parent and block must be proved nullified (section 3.5)."""
        for view in range(header.parent_view + 1, header.view):
            if view not in self.nullified:
                return Lacks(view)
        return Standing.READY

    def passed_over(self, header: Header) -> tuple[Certificate, ...]:
        """That the views between ``header`` and its parent were nullified, as far as held."""
        low = max(header.parent_view, header.view - PASSED_MAX)
        views = range(low + 1, header.view)
        return tuple(self.nullified[view] for view in views if view in self.nullified)

    def path(self, digest: bytes) -> list[tuple[bytes, Block]] | None:
        """Blocks from above the tip up to ``digest``; ``None`` while one is missing."""
        chain: list[tuple[bytes, Block]] = []
        while digest != self.tip_digest:
            block = self.blocks.get(digest)
            if block is None:
                return None
            chain.append((digest, block))
            digest = block.header.parent
        chain.reverse()
        return chain

    def advance(self, header: Header, digest: bytes, certificate: Certificate | None) -> None:
        """``header`` is decided: everything up to its view is settled and forgotten."""
        self.tip, self.tip_digest, self.tip_certificate = header, digest, certificate
        self.floor, self.height = header.view, header.height
        self.top = max(self.top, self.floor)
        self.changed = True
        self._forget(max(self.low, self.floor))

    def _want(self, digest: bytes, view: int) -> None:
        """The nearest missing body of a certified block and its ancestors, which are certified too.

        A block that was certified while its parent was still on the way would else never be
        executed: no certificate that we hold names that parent.
        """
        while digest != self.tip_digest and view > self.floor:
            block = self.blocks.get(digest)
            if block is None:
                self.bodiless[digest] = view
                return
            digest, view = block.header.parent, block.header.parent_view

    def _forget(self, low: int) -> None:
        """Keep nothing at or below ``low``."""
        self.low = low
        for table in (self.notarized, self.nullified, self.finalized):
            drop_views(table, low)
        drop_views(self.proposals, low)
        drop_views(self.early, low)
        for name in [n for n, b in self.blocks.items() if b.header.view <= low]:
            del self.blocks[name]
        for name in [n for n, view in self.bodiless.items() if view <= low]:
            del self.bodiless[name]
        for name in [n for n in self.valid if n not in self.blocks]:
            del self.valid[name]

    def _of(self, kind: int) -> dict[int, Certificate]:
        if kind == VoteKind.NOTARIZE:
            return self.notarized
        return self.nullified if kind == VoteKind.NULLIFY else self.finalized


def drop_views(table: dict[int, T], low: int) -> None:
    """Forget what ``table`` says of views up to ``low``."""
    for view in [view for view in table if view <= low]:
        del table[view]
