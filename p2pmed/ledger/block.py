"""What a block carries: the tips of author logs, and roots over what they newly order.

``Block.content`` is ``[Summary, tips, next epoch]``; the header's ``content`` is the hash of the
encoded ``Summary``, which holds a Merkle root over the tips. So a header with its summary is a
light proof, and the tips may be fetched apart. A block that ends its epoch (a *seal*) carries
the next one, whose hash is in its summary: who follows epochs needs header, summary, epoch and
certificate, never bodies. Byte-exact: ``docs/protocols/block.md``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from p2pmed.errors import DecodeError
from p2pmed.ledger.merkle import merkle_root
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.limits import BLOCK_ENTRIES_MAX, BLOCK_TIPS_MAX
from p2pmed.quorum.certificate import Epoch, epoch_digest
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes16, Bytes32, Count, TimeMs, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = ["Body", "Summary", "Tip", "order_entries", "verdict_leaf"]


class Tip(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last entry of one author log that the block orders."""

    author: Bytes32
    incarnation: Bytes16
    seq: Count
    id: Bytes32

    @property
    def lane(self) -> LaneKey:
        """Which log."""
        return LaneKey(self.author, self.incarnation)


class Summary(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the header commits to."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    clock: TimeMs
    """The proposer's wall clock."""
    time: TimeMs
    """Block time: above the parent's, else the median of the validators' newest readings."""
    tips: Bytes32
    """Merkle root over the encoded tips."""
    entries: Bytes32
    """Merkle root over the ids newly ordered, in their order."""
    count: Annotated[int, msgspec.Meta(ge=0, le=BLOCK_ENTRIES_MAX)]
    verdicts: Bytes32
    """Merkle root over ``verdict_leaf`` of each entry, in the same order."""
    state: Bytes32
    """Commitment to the whole state after this block."""
    next_epoch: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    """``epoch_digest`` of the next epoch if this block is the seal that ends its own (or an empty
    tail above the seal); empty otherwise."""


class Body(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content of a block."""

    summary: Summary
    tips: Annotated[tuple[Tip, ...], msgspec.Meta(max_length=BLOCK_TIPS_MAX)]
    next_epoch: Epoch | None = None
    """What ``summary.next_epoch`` is the hash of."""


def content_hash(summary: Summary) -> bytes:
    """What a header's ``content`` must be."""
    return hash_bytes(codec.encode(summary))


def tips_root(tips: Sequence[Tip]) -> bytes:
    """Merkle root over the tips."""
    return merkle_root([codec.encode(tip) for tip in tips])


def verdict_leaf(entry_id: bytes, verdict: Verdict) -> bytes:
    """One entry's verdict as a Merkle leaf."""
    return entry_id + verdict.other.ljust(32, b"\x00") + verdict.code.encode("ascii")


def decode_body(raw: bytes, *, limit: int) -> Body:
    """The content of a block; tips must stand in the order of their logs.

    Raises ``DecodeError``.
    """
    body = codec.decode(raw, Body, limit=limit)
    named = b"" if body.next_epoch is None else epoch_digest(body.next_epoch)
    if named != body.summary.next_epoch:
        raise DecodeError("Body: the next epoch is not the one whose hash the summary names")
    lanes = [tip.lane for tip in body.tips]
    if any(lanes[i] >= lanes[i + 1] for i in range(len(lanes) - 1)):
        raise DecodeError("Body: tips that are not in the order of their logs")
    return body


def order_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Topological by ``prev`` and ``refs``, ties by id: the order inside a block.

    A cycle cannot be made (ids are hashes), and references outside ``entries`` do not count.
    """
    by_id = {entry.id: entry for entry in entries}
    waiting: dict[bytes, int] = {}
    followers: dict[bytes, list[bytes]] = {}
    for entry in by_id.values():
        before = dict.fromkeys((entry.envelope.prev, *entry.envelope.refs))
        needed = [name for name in before if name in by_id]
        waiting[entry.id] = len(needed)
        for name in needed:
            followers.setdefault(name, []).append(entry.id)
    ready = [name for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(by_id[name])
        for follower in followers.get(name, ()):
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    return ordered
