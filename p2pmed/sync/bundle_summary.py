"""What a bundle holds, for people: a table of contents, made in one pass and bounded memory.

Rule: it counts what the frames claim. Only the seal has been checked; entries, blocks and
credentials prove themselves when they are taken in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import LANES_MAX
from p2pmed.quorum.certificate import Verify
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleFault,
    BundleFrame,
    BundleReader,
    BundleStatus,
    CredentialFrame,
    HeaderFrame,
    LaneFrame,
    LedgerFrame,
)
from p2pmed.wire import cose

__all__ = ["BundleSummary", "LaneSpan", "LedgerSpan", "inspect_bundle"]

LEDGERS_SHOWN_MAX: Final = 1_024
"""Ledgers that a summary lists; lanes up to ``LANES_MAX``. Totals count the rest too."""


@dataclass(slots=True)
class LaneSpan:
    """What a bundle holds of one author log: the lowest and the next seq, and how many."""

    start: int
    end: int
    entries: int


@dataclass(slots=True)
class LedgerSpan:
    """What a bundle holds of one ledger: heights and how many blocks."""

    lowest: int
    highest: int
    blocks: int


@dataclass(slots=True)
class BundleSummary:
    """What is in a bundle, for people; nothing inside has been verified but the seal."""

    status: BundleStatus = BundleStatus.READING
    fault: BundleFault | None = None
    header: HeaderFrame | None = None
    frames: int = 0
    size: int = 0
    entries: int = 0
    credentials: int = 0
    foundings: int = 0
    lanes: dict[LaneKey, LaneSpan] = field(default_factory=dict)
    ledgers: dict[bytes, LedgerSpan] = field(default_factory=dict)


def inspect_bundle(
    chunks: Iterable[bytes], *, network: bytes | None = None, verify: Verify = cose.verify
) -> BundleSummary:
    """Read a whole bundle for its table of contents; ``network=None`` accepts any."""
    reader = BundleReader(network, verify=verify)
    summary = BundleSummary()
    for chunk in chunks:
        for frame in reader.feed(chunk):
            _count(summary, frame)
        if reader.fault:
            break
    summary.status = reader.finish()
    summary.fault, summary.header = reader.fault, reader.header
    summary.frames, summary.size = reader.frames, reader.offset
    return summary


def _count(summary: BundleSummary, frame: BundleFrame) -> None:
    if isinstance(frame, CredentialFrame):
        summary.credentials += 1
    elif isinstance(frame, LedgerFrame):
        summary.foundings += 1
    elif isinstance(frame, LaneFrame):
        summary.entries += len(frame.entries)
        end = frame.start + len(frame.entries)
        span = summary.lanes.get(frame.lane)
        if span:
            span.start, span.end = min(span.start, frame.start), max(span.end, end)
            span.entries += len(frame.entries)
        elif len(summary.lanes) < LANES_MAX:
            summary.lanes[frame.lane] = LaneSpan(frame.start, end, len(frame.entries))
    elif isinstance(frame, BlockFrame):
        seen = summary.ledgers.get(frame.ledger)
        if seen:
            seen.lowest = min(seen.lowest, frame.height)
            seen.highest = max(seen.highest, frame.height)
            seen.blocks += 1
        elif len(summary.ledgers) < LEDGERS_SHOWN_MAX:
            summary.ledgers[frame.ledger] = LedgerSpan(frame.height, frame.height, 1)
