"""What is in the stores of stopped nodes, counted from their bytes by nobody who wrote them.

Reads homes' databases after their processes have ended. Author logs are walked entry by entry, with
their links; ledgers block by block, with parents and certificates. Nothing a node says of
itself is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pmed.consensus.interface import header_digest
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.quorum.certificate import check_certificate
from p2pmed.storage.sqlite import open_disk
from p2pmed.wire import codec
from p2pmed.world import Disk, Space

__all__ = ["RECORD_KINDS", "Census", "HomeCount", "count_home", "take_census"]

RECORD_KINDS: Final = frozenset(
    {"patient.register", "record.add", "record.amend", "record.retract"}
)


@dataclass(slots=True)
class HomeCount:
    """One home."""

    logs: dict[LaneKey, int] = field(default_factory=dict)
    """Author log -> next seq."""
    records: dict[bytes, tuple[LaneKey, int]] = field(default_factory=dict)
    """Ids of records, and where they stand."""
    patients: int = 0
    blocks: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    """Ledger and height -> digest, each proven by its own or a descendant's certificate."""
    ordered: dict[bytes, dict[LaneKey, int]] = field(default_factory=dict)
    """Ledger -> author log -> next seq that it does not order."""
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Census:
    """All homes together."""

    homes: dict[str, HomeCount]

    @property
    def diverged(self) -> int:
        """Heights at which two homes hold different certified blocks."""
        seen: dict[tuple[bytes, int], bytes] = {}
        conflicts = set()
        for home in self.homes.values():
            for place, digest in home.blocks.items():
                if seen.setdefault(place, digest) != digest:
                    conflicts.add(place)
        return len(conflicts)

    def height(self, ledger: bytes) -> int:
        """Highest certified block of ``ledger`` in any home."""
        heights = [
            height for home in self.homes.values() for name, height in home.blocks if name == ledger
        ]
        return max(heights, default=0)

    def records(self) -> dict[bytes, tuple[LaneKey, int]]:
        """Every record in any home."""
        found: dict[bytes, tuple[LaneKey, int]] = {}
        for home in self.homes.values():
            found.update(home.records)
        return found

    def ordered_by(self, ledger: bytes) -> int:
        """Records that certified blocks of ``ledger`` order, in whichever home has most of it."""
        best: Mapping[LaneKey, int] = {}
        for home in self.homes.values():
            tips = home.ordered.get(ledger, {})
            if sum(tips.values()) > sum(best.values()):
                best = tips
        return sum(seq < best.get(lane, 0) for lane, seq in self.records().values())


async def take_census(homes: Mapping[str, Path], network: bytes) -> Census:
    """Count the homes, by name. Their nodes must have ended. ``StorageError`` for a bad disk."""
    return Census({name: await count_home(path, network) for name, path in homes.items()})


async def count_home(path: Path, network: bytes) -> HomeCount:
    """Count one home."""
    async with open_disk(path / "node.db", create=False) as disk:
        count = HomeCount()
        _count_logs(disk, network, count)
        for ledger, raw in disk.scan(Space.LEDGER, b"", b"\xff" * 33, limit=1_024):
            _count_ledger(disk, ledger, codec.decode(raw, Founding), count)
        return count


def _count_logs(disk: Disk, network: bytes, count: HomeCount) -> None:
    logs = Logs(disk, network)
    for lane in logs:
        prev = bytes(32)
        for entry in logs.entries(lane.key, 0, lane.next_seq):
            if entry.envelope.prev != prev or entry.lane != lane.key:
                count.faults.append(f"entry {entry.seq} does not link to the one before")
            prev = entry.id
            if entry.kind in RECORD_KINDS:
                count.records[entry.id] = (entry.lane, entry.seq)
                count.patients += entry.kind == "patient.register"
        count.logs[lane.key] = lane.next_seq


def _count_ledger(disk: Disk, ledger: bytes, founding: Founding, count: HomeCount) -> None:
    """Walk the chain; what no certificate covers does not count."""
    epoch = founding.genesis.epoch()
    parent, unproven, height = ledger, [], 0
    tips = count.ordered.setdefault(ledger, {})
    while True:
        height += 1
        raw = disk.get(Space.BLOCK, ledger + height.to_bytes(8, "big"))
        if raw is None:
            return
        stored = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)
        header = stored.block.header
        if header.parent != parent or header.height != height:
            count.faults.append(f"block {height} does not name its parent")
            return
        parent = header_digest(header)
        unproven.append((height, parent, stored))
        if stored.certificate is None:
            continue
        check_certificate(stored.certificate, epoch)
        if stored.certificate.digest != header_digest((header, *stored.tail)[-1]):
            count.faults.append(f"block {height} carries another block's certificate")
            return
        for proven_height, digest, block in unproven:
            count.blocks[ledger, proven_height] = digest
            body = decode_body(block.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
            tips.update({tip.lane: tip.seq + 1 for tip in body.tips})
            epoch = body.next_epoch or epoch
        unproven = []
