"""Taking a bundle in: a file of unknown origin, a batch at a time, each batch durable.

Rules:

* Nothing of a frame is used before its checksum fits (``sync/bundle.py``), and nothing inside is
  believed before the node itself has checked it: entries go through ``Node.import_entries``,
  foundings and blocks through ``Node.import_chain``, as if a peer had sent them. What is new
  goes on to the peers from there.
* Idempotent and resumable: what is here already is passed over; after a break, begin again.
* Any order: what does not connect yet (a log whose beginning comes later in the file, a block
  before the bodies it orders) is tried again by reading the file again, while that brings
  anything new, ``PASSES_MAX`` times at most.
* A torn or damaged file gives all frames before the fault; another network's gives nothing.

Failure table: a bad entry costs the rest of its log in this file, a bad block the rest of its
ledger, a bad founding that ledger; all else is taken, and what was refused is told.

Memory: one frame, one batch, and at most ``TOLD_MAX`` refusals.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from p2pmed.consensus.interface import Block
from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.ledger.genesis import Founding, ledger_id
from p2pmed.ledger.stored import STORED_BYTES_MAX, Proof, StoredBlock
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX
from p2pmed.node.node import Node
from p2pmed.node.stick import READ_BYTES, describe_fault, in_thread
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleFault,
    BundleFrame,
    BundleReader,
    BundleStatus,
    LaneFrame,
    LedgerFrame,
)
from p2pmed.wire import codec

__all__ = ["import_bundle"]

PASSES_MAX: Final = 8
"""Readings of one file; each must have brought something new to be followed by another."""
TOLD_MAX: Final = 100
"""Refusals and gaps named one by one; beyond it they are counted."""
UNPROVEN_MAX: Final = 1_024
UNPROVEN_BYTES_MAX: Final = 16 * 1024 * 1024
"""Blocks waiting for the one whose certificate proves them."""
RUNS_ASIDE_MAX: Final = 16
RUN_ASIDE_MAX: Final = 8
"""Runs, and blocks in one, kept from one place of a file to another."""


@dataclass(slots=True)
class _Pass:
    """What one reading of the file came to."""

    entries: int = 0
    blocks: int = 0
    waiting: int = 0
    """Entries and blocks that did not connect."""
    gaps: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    refusals: int = 0
    forked: int = 0
    stopped: dict[bytes, None] = field(default_factory=dict)
    """Ledgers with a refused block or founding."""


async def import_bundle(
    node: Node, path: Path, *, report: Callable[[dict[str, Any]], None] = lambda progress: None
) -> dict[str, Any]:
    """Take in the bundle at ``path``; what came of it, durable on return.

    ``status`` of the answer is ``complete``, ``torn``, ``damaged`` or ``refused``; ``fault`` says
    where reading stopped. Raises ``ConfigError`` (no such file), ``StorageError`` (our own
    disk). Cancelled: every batch until then is kept.
    """
    importer = _Importer(node, report)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number in range(PASSES_MAX):
                if number:
                    file.seek(0)
                before = importer.new_entries + importer.new_blocks
                reader = await importer.read(file, size)
                moved = importer.new_entries + importer.new_blocks > before
                if not importer.seen.waiting or not moved:
                    break
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return importer.describe(path, reader)


class _Importer:
    """Feeds the frames of one file to one node."""

    def __init__(self, node: Node, report: Callable[[dict[str, Any]], None]) -> None:
        self._node = node
        self._report = report
        self.seen = _Pass()
        self.new_entries = 0
        self.new_blocks = 0
        self._frames: list[LaneFrame] = []
        self._count = self._size = 0
        self._ledger = b""
        self._next_height = 0
        self._aside: dict[tuple[bytes, int], list[StoredBlock]] = {}
        """Runs without a certificate, by the ledger and height that may prove them."""
        self._blocks: list[StoredBlock] = []
        self._blocks_size = 0

    async def read(self, file: BinaryIO, size: int) -> BundleReader:
        """One pass over the file."""
        self.seen = _Pass()
        self._ledger, self._blocks = b"", []
        reader = BundleReader(self._node.network)
        while reader.fault is None:
            try:
                chunk = await in_thread(file.read, READ_BYTES)
            except OSError as error:  # a stick pulled while we read: a good prefix, as any
                reader.finish()
                reason = f"the medium cannot be read further ({error.strerror})"
                reader.fault = BundleFault(reader.frames, reader.offset, reason)
                break
            if not chunk:
                break
            for frame in reader.feed(chunk):
                await self._take(frame)
            self._report({"what": "bytes read", "done": reader.offset, "of": size})
        await self._flush_entries()
        await self._flush_blocks()
        self._set_aside()
        reader.finish()
        return reader

    async def _take(self, frame: BundleFrame) -> None:
        if isinstance(frame, LaneFrame):
            await self._flush_blocks()
            await self._add(frame)
        elif isinstance(frame, LedgerFrame):
            await self._flush_entries()
            await self._flush_blocks()
            await self._found(frame.genesis)
        elif isinstance(frame, BlockFrame):
            await self._flush_entries()
            await self._add_block(frame)

    # --- entries ----------------------------------------------------------------------------

    async def _add(self, frame: LaneFrame) -> None:
        size = sum(map(len, frame.entries))
        full = self._count + len(frame.entries) > BATCH_ENTRIES_MAX
        if self._frames and (full or self._size + size > BATCH_BYTES_MAX):
            await self._flush_entries()
        self._frames.append(frame)
        self._count += len(frame.entries)
        self._size += size
        self.seen.entries += len(frame.entries)

    async def _flush_entries(self) -> None:
        frames, self._frames = self._frames, []
        self._count = self._size = 0
        if not frames:
            return
        before = {frame.lane: self._next_seq(frame.lane) for frame in frames}
        try:
            self.new_entries += await self._offer(frames)
        except DecodeError:
            # One bad entry ends a batch: what stands in other frames is not its fault.
            reasons = [await self._offer_alone(frame) for frame in frames]
            self.new_entries += sum(self._next_seq(lane) - seq for lane, seq in before.items())
        else:
            reasons = [""] * len(frames)
        for frame, reason in zip(frames, reasons, strict=True):
            self._judge(frame, reason)

    async def _offer(self, frames: list[LaneFrame]) -> int:
        entries = [raw for frame in frames for raw in frame.entries]
        return await self._node.import_entries(entries)

    async def _offer_alone(self, frame: LaneFrame) -> str:
        """Why not all of a frame was taken; empty if it was."""
        try:
            await self._offer([frame])
        except DecodeError as error:
            return str(error)
        return ""

    def _next_seq(self, lane: LaneKey) -> int:
        return self._node.replica.logs.next_seq(lane)

    def _judge(self, frame: LaneFrame, reason: str) -> None:
        """What became of a frame, told by where its log ends now."""
        lane = self._node.replica.logs.lane(frame.lane)
        next_seq = lane.durable_next if lane else 0
        end = frame.start + len(frame.entries)
        if lane is not None and lane.frozen:
            self.seen.forked += 1
        elif next_seq >= end and not reason:
            return
        elif next_seq < frame.start:
            self._wait_for(
                frame.author.hex(), f"entries from {next_seq} on", end - frame.start, next_seq
            )
        else:
            self._refuse(
                {
                    "log": frame.author.hex(),
                    "incarnation": frame.incarnation.hex(),
                    "seq": min(next_seq, end - 1),
                    "reason": reason or "a signature or link that does not hold",
                }
            )

    def _wait_for(self, name: str, what: str, count: int, next_seq: int | None = None) -> None:
        self.seen.waiting += count
        if len(self.seen.gaps) < TOLD_MAX:
            self.seen.gaps.setdefault(name, {"of": name, "lacks": what, "from": next_seq})

    def _refuse(self, refusal: dict[str, Any]) -> None:
        self.seen.refusals += 1
        if len(self.seen.refused) < TOLD_MAX:
            self.seen.refused.append(refusal)

    # --- ledgers ----------------------------------------------------------------------------

    async def _found(self, raw: bytes) -> None:
        try:
            ledger = ledger_id(codec.decode(raw, Founding).genesis)
            await self._node.import_chain(ledger, raw, ())
        except (DecodeError, CredentialError) as error:
            self._refuse({"ledger": None, "reason": f"a founding: {error}"})

    async def _add_block(self, frame: BlockFrame) -> None:
        follows = frame.ledger == self._ledger and frame.height == self._next_height
        if not follows or self._is_full():
            await self._flush_blocks()
        if not follows:
            self._set_aside()
            self._ledger = frame.ledger
            self._blocks = self._aside.pop((frame.ledger, frame.height), [])
            self._blocks_size = 0
        self._next_height = frame.height + 1
        self.seen.blocks += 1
        if frame.ledger in self.seen.stopped:
            return
        try:
            block = codec.decode(frame.block, Block)
            raw = frame.certificate
            proof = codec.decode(raw, Proof) if raw else None
            if (block.header.ledger, block.header.height) != (frame.ledger, frame.height):
                raise DecodeError("a block that is not the one its frame names")
        except DecodeError as error:
            self._stop(frame.ledger, frame.height, str(error))
            return
        stored = StoredBlock(block=block)
        if proof is not None:
            stored = StoredBlock(block=block, tail=proof.tail, certificate=proof.certificate)
        self._blocks.append(stored)
        self._blocks_size += len(frame.block) + len(raw)

    def _set_aside(self) -> None:
        """Blocks that are left over, because the one that proves them did not follow."""
        known = self._node.replica.chains.height(self._ledger)
        left = [stored for stored in self._blocks if stored.block.header.height > known]
        self._blocks = []
        if left:
            self._wait_for(self._ledger.hex(), "the certificate of its last blocks", len(left))
            if len(self._aside) < RUNS_ASIDE_MAX and len(left) <= RUN_ASIDE_MAX:
                self._aside[self._ledger, self._next_height] = left

    def _is_full(self) -> bool:
        return len(self._blocks) >= BATCH_ENTRIES_MAX or self._blocks_size >= STORED_BYTES_MAX

    def _stop(self, ledger: bytes, height: int, reason: str) -> None:
        self._refuse({"ledger": ledger.hex(), "height": height, "reason": reason})
        if len(self.seen.stopped) < TOLD_MAX:
            self.seen.stopped[ledger] = None
        self._blocks = []

    async def _flush_blocks(self) -> None:
        """Hand over the blocks up to the last one with a certificate; keep the rest."""
        proven = [i for i, stored in enumerate(self._blocks, 1) if stored.certificate]
        if not proven:
            if len(self._blocks) > UNPROVEN_MAX or self._blocks_size > UNPROVEN_BYTES_MAX:
                height = self._blocks[0].block.header.height
                self._stop(self._ledger, height, "blocks without a certificate")
            return
        blocks, self._blocks = self._blocks[: proven[-1]], self._blocks[proven[-1] :]
        self._blocks_size = 0
        ledger, chains = self._ledger, self._node.replica.chains
        raws = [codec.encode(stored) for stored in blocks]
        try:
            self.new_blocks += await self._node.import_chain(ledger, b"", raws)
        except (DecodeError, CredentialError) as error:
            self._stop(ledger, chains.height(ledger) + 1, str(error))
            return
        height, top = chains.height(ledger), blocks[-1].block.header.height
        if height < top:
            self._wait_for(ledger.hex(), f"what block {height + 1} needs", top - height)

    # --- the answer -------------------------------------------------------------------------

    def describe(self, path: Path, reader: BundleReader) -> dict[str, Any]:
        """What came of it, as plain values."""
        seen, header, home = self.seen, reader.header, self._node.replica.home
        return {
            "file": str(path),
            "status": reader.status.value,
            "complete": reader.status is BundleStatus.COMPLETE,
            "fault": describe_fault(reader.fault),
            "author": header.author.hex() if header else None,
            "created_ms": header.created if header else None,
            "frames": reader.frames,
            "bytes": reader.offset,
            "entries": seen.entries,
            "entries_new": self.new_entries,
            "blocks": seen.blocks,
            "blocks_new": self.new_blocks,
            "waiting": seen.waiting,
            "gaps": list(seen.gaps.values()),
            "refused": seen.refused,
            "refusals": seen.refusals,
            "forked_logs": seen.forked,
            "halted": home.halted if home else "",
        }
