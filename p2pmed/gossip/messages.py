"""What travels between the members of a cell: heartbeats, entries, and who holds what.

Tags 1 to 19 of the peers' protocol belong to this module; the node makes one union of all
modules' messages. A message is the array ``[tag, field, ...]`` in deterministic CBOR.

Rule: every field is bounded here, by shape; what a bounded message may *cost* is bounded in
``admission.py``. Byte-exact: ``docs/protocols/gossip.md``.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, ENTRY_BYTES_MAX, FRAME_BYTES_MAX
from p2pmed.wire.codec import Bytes16, Bytes32, Count, TimeMs, Wire

__all__ = [
    "BUCKETS",
    "BUCKET_PREFIX_BYTES",
    "HAVE_LANES_MAX",
    "HEADS_MAX",
    "HEALTH_MAX",
    "PAGE_LANES_MAX",
    "WANT_RANGES_MAX",
    "AskFrontier",
    "Entries",
    "Frontier",
    "GossipMessage",
    "Have",
    "Head",
    "LaneRange",
    "Mark",
    "Ping",
    "Pong",
    "Push",
    "Want",
    "mark",
]

HEADS_MAX: Final = 16
"""Ledgers whose height one ping tells; a node follows its mesh, its county and a few more."""

HEALTH_MAX: Final = 7
"""Steps of a node's own doubt (memberlist, Lifeguard); each lengthens its patience once more."""

HAVE_LANES_MAX: Final = 512
"""Lanes in one ``Have``: 31 kB, an eighth of the control queue."""

PAGE_LANES_MAX: Final = 1_024
"""Lanes in one page of a frontier: 63 kB."""

WANT_RANGES_MAX: Final = 64
"""Lanes asked for at once: many logs that lack one entry each must not cost a trip each."""

BUCKETS: Final = 256
"""A frontier is hashed by the first byte of the author's key."""

BUCKET_PREFIX_BYTES: Final = 16
"""Of each bucket's digest in ``AskFrontier``: 2^64 work for a collision."""

_MARK_BYTES_MAX = 1 + 34 + 17 + 9
assert PAGE_LANES_MAX * _MARK_BYTES_MAX < FRAME_BYTES_MAX
assert BUCKETS * BUCKET_PREFIX_BYTES + 64 < FRAME_BYTES_MAX

RawEntry = Annotated[bytes, msgspec.Meta(min_length=1, max_length=ENTRY_BYTES_MAX)]
RawEntries = Annotated[tuple[RawEntry, ...], msgspec.Meta(max_length=BATCH_ENTRIES_MAX)]


class Head(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last final height of one ledger, as its teller knows it."""

    ledger: Bytes32
    height: Count


class Mark(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far one author log is durable at the teller: all below ``next_seq``."""

    author: Bytes32
    incarnation: Bytes16
    next_seq: Annotated[int, msgspec.Meta(ge=1, le=2**53)]

    @property
    def lane(self) -> LaneKey:
        """Which author log."""
        return LaneKey(self.author, self.incarnation)


def mark(lane: LaneKey, next_seq: int) -> Mark:
    """The ``Mark`` of ``lane``."""
    return Mark(lane.author, lane.incarnation, next_seq)


class LaneRange(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Entries ``start <= seq < end`` of one author log."""

    author: Bytes32
    incarnation: Bytes16
    start: Count
    end: Count

    @property
    def lane(self) -> LaneKey:
        """Which author log."""
        return LaneKey(self.author, self.incarnation)


class Ping(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """I live; this is the digest of all that I hold. Answered by ``Pong``."""

    seq: Count
    frontier: Bytes32
    hlc: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    wall: TimeMs
    health: Annotated[int, msgspec.Meta(ge=0, le=HEALTH_MAX)]
    heads: Annotated[tuple[Head, ...], msgspec.Meta(max_length=HEADS_MAX)]


class Pong(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """I heard your ping."""

    seq: Count


class Push(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Fresh entries of the sender's own log, oldest first."""

    entries: RawEntries


class Have(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """These lanes grew on my disk. Sent after the flush, before the next ``Ping``."""

    lanes: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=HAVE_LANES_MAX)]


class AskFrontier(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Tell me what you hold, above lane ``after``, where it differs from ``known``."""

    request: Count
    known: Annotated[bytes, msgspec.Meta(max_length=BUCKETS * BUCKET_PREFIX_BYTES)]
    """Prefixes of the bucket digests that the asker expects, or empty: tell all."""
    after: Annotated[bytes, msgspec.Meta(max_length=48)]


class Frontier(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """One page of what I hold, in the order of lanes."""

    request: Count
    lanes: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=PAGE_LANES_MAX)]
    more: bool
    """Whether lanes above the last one remain."""
    same: Annotated[bytes, msgspec.Meta(min_length=BUCKETS // 8, max_length=BUCKETS // 8)]
    """Bit ``b % 8`` of byte ``b // 8``: bucket ``b`` is as the asker expected; left out here."""


class Want(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """Send me these, oldest first, about ``bytes_max`` bytes at most."""

    request: Count
    bytes_max: Annotated[int, msgspec.Meta(ge=1, le=BATCH_BYTES_MAX)]
    ranges: Annotated[tuple[LaneRange, ...], msgspec.Meta(min_length=1, max_length=WANT_RANGES_MAX)]


class Entries(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """The answer to ``Want``: for each range considered, how many of ``entries`` are its."""

    request: Count
    counts: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, le=BATCH_ENTRIES_MAX)], ...],
        msgspec.Meta(max_length=WANT_RANGES_MAX),
    ]
    """Zero: the sender holds nothing of that range. Ranges beyond these were not reached."""
    entries: RawEntries


GossipMessage: TypeAlias = Ping | Pong | Push | Have | AskFrontier | Frontier | Want | Entries
