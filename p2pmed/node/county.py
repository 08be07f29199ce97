"""The two ends of an anchor: what the county imports, and what a village learns from it.

``VillageBlocks`` reads certified village blocks with their bodies for the county's machine.
``AnchorWatch`` follows county ledgers that this node carries, and remembers how far each
author log is ordered there and how far each village ledger was executed there.

A transaction is *anchored* when a certified county block orders it and, if it was written to be
spent in a village's ledger, an anchor of the county covers the village block that decided it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from p2pmed.consensus.interface import header_digest
from p2pmed.ledger.block import Body, decode_body, order_entries
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.medical.county import ANCHOR, Anchor
from p2pmed.medical.registry import Registry
from p2pmed.sync.chains import Chains
from p2pmed.wire import cbor
from p2pmed.world import Disk, Space

__all__ = ["AnchorWatch", "VillageBlocks", "is_county"]

COUNTY_ROLES: Final = frozenset({"county", "hospital"})


def is_county(founding: Founding, roles_of: Callable[[tuple[bytes, ...]], tuple[str, ...]]) -> bool:
    """Whether every founder speaks with a county's or hospital's credential."""
    return all(COUNTY_ROLES.intersection(roles_of(chain)) for chain in founding.chains)


@dataclass(frozen=True, slots=True)
class _Block:
    height: int
    time_ms: int
    digest: bytes
    entries: list[Entry]
    tips: list[tuple[LaneKey, int]]


class VillageBlocks:
    """Blocks of carried ledgers, as far as their bodies are here (``medical.county.Villages``)."""

    def __init__(self, disk: Disk, logs: Logs, chains: Chains) -> None:
        self._disk = disk
        self._logs = logs
        self._chains = chains

    def blocks(self, ledger: bytes, start: int, height: int) -> Iterator[_Block]:
        """Blocks ``start < h <= height`` in order; stops where a body is not here."""
        for at in range(start + 1, height + 1):
            block = self._block(ledger, at)
            if block is None:
                return
            yield block

    def _block(self, ledger: bytes, height: int) -> _Block | None:
        stored = self._chains.block_at(ledger, height)
        if stored is None:
            return None
        body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
        entries = self._entries(ledger, height, body)
        if entries is None:
            return None
        return _Block(
            height=height,
            time_ms=body.summary.time,
            digest=header_digest(stored.block.header),
            entries=entries,
            tips=[(tip.lane, tip.seq) for tip in body.tips],
        )

    def _entries(self, ledger: bytes, height: int, body: Body) -> list[Entry] | None:
        found: list[Entry] = []
        for tip in body.tips:
            lane = self._logs.lane(tip.lane)
            if lane is None or lane.durable_next <= tip.seq:
                return None
            start = self._ordered_before(ledger, tip.lane, height)
            found.extend(self._logs.entries(tip.lane, start, tip.seq + 1))
        return order_entries(found)

    def _ordered_before(self, ledger: bytes, lane: LaneKey, height: int) -> int:
        """The first seq of ``lane`` that blocks of ``ledger`` below ``height`` do not order."""
        start = ledger + lane.to_bytes()
        rows = self._disk.scan(Space.TIP, start, start + b"\xff" * 9, limit=4_096, reverse=True)
        for key, at in rows:
            if int.from_bytes(at, "big") < height:
                return int.from_bytes(key[-8:], "big") + 1
        return 0

    def index(self, ledger: bytes, height: int) -> None:
        """Stage where the tips of a carried block end, for the questions above."""
        stored = self._chains.block_at(ledger, height)
        if stored is None:
            return
        body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
        for tip in body.tips:
            key = ledger + tip.lane.to_bytes() + tip.seq.to_bytes(8, "big")
            self._disk.stage(Space.TIP, key, height.to_bytes(8, "big"))


class AnchorWatch:
    """What this node knows of one county ledger that it carries."""

    def __init__(
        self, *, ledger: bytes, disk: Disk, logs: Logs, chains: Chains, registry: Registry
    ) -> None:
        self.ledger = ledger
        self._disk = disk
        self._logs = logs
        self._chains = chains
        self._registry = registry
        self.height = 0
        """County blocks taken in."""
        self._ordered: dict[LaneKey, int] = {}
        self._villages: dict[bytes, int] = {}
        self._load()

    def _key(self) -> bytes:
        return b"watch" + self.ledger

    def _load(self) -> None:
        raw = self._disk.get(Space.LOCAL, self._key())
        if raw is not None:
            self.height, ordered, villages = cbor.decode(raw)
            self._ordered = {LaneKey.from_bytes(lane): seq for lane, seq in ordered}
            self._villages = dict(villages)

    def _save(self) -> None:
        ordered = [[lane.to_bytes(), self._ordered[lane]] for lane in sorted(self._ordered)]
        villages = [[name, self._villages[name]] for name in sorted(self._villages)]
        raw = cbor.encode([self.height, ordered, villages])
        self._disk.stage(Space.LOCAL, self._key(), raw)

    def advance(self) -> list[Anchor]:
        """Take in further county blocks, as far as the county's own entries are here."""
        anchors: list[Anchor] = []
        moved = False
        while (stored := self._chains.block_at(self.ledger, self.height + 1)) is not None:
            body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
            news: list[Entry] = []
            for tip in body.tips:
                start = self._ordered.get(tip.lane, 0)
                lane = self._logs.lane(tip.lane)
                if lane is None or lane.durable_next <= tip.seq:
                    if moved:
                        self._save()
                    return anchors
                news += self._anchors_in(tip.lane, start, tip.seq + 1)
            for tip in body.tips:
                self._ordered[tip.lane] = tip.seq + 1
            for entry in news:
                anchor = self._registry.body(entry)
                if isinstance(anchor, Anchor):
                    self._note(anchor)
                    anchors.append(anchor)
            self.height += 1
            moved = True
        if moved:
            self._save()
        return anchors

    def _anchors_in(self, lane: LaneKey, start: int, end: int) -> list[Entry]:
        """Anchors among a county member's entries; other authors' cannot hold any."""
        return [e for e in self._logs.entries(lane, start, end) if e.kind == ANCHOR]

    def _note(self, anchor: Anchor) -> None:
        if self._villages.get(anchor.ledger, 0) == anchor.start:
            self._villages[anchor.ledger] = anchor.height

    def ordered_next(self, lane: LaneKey) -> int:
        """The first seq of ``lane`` that the county has not ordered."""
        return self._ordered.get(lane, 0)

    def village_height(self, ledger: bytes) -> int:
        """Height up to which the county has executed a village's ledger."""
        return self._villages.get(ledger, 0)
