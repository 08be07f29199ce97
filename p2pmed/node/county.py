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
from p2pmed.world import Disk, Space

__all__ = ["COUNTY_ROLES", "AnchorWatch", "VillageBlocks", "is_county"]

_HEIGHT: Final = b"watch height"
_LANE: Final = b"watch lane"
_VILLAGE: Final = b"watch village"
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
            start = self._ordered_before(ledger, tip.lane, height)
            entries = self._logs.branch(tip.lane, start, tip.seq, tip.id)
            if entries is None:
                return None
            found += entries
        return order_entries(found)

    def height_of(self, ledger: bytes, entry: Entry) -> int | None:
        """The height at which a carried ledger orders ``entry`` itself, as far as known here."""
        start = ledger + entry.lane.to_bytes() + entry.seq.to_bytes(8, "big")
        end = ledger + entry.lane.to_bytes() + b"\xff" * 9
        rows = self._disk.scan(Space.TIP, start, end, limit=1)
        if not rows:
            return None
        height = int.from_bytes(rows[0][1], "big")
        log = self._logs.lane(entry.lane)
        if log is None or not log.frozen:
            return height
        block = self._block(ledger, height)  # another branch may stand there
        return height if block and any(each.id == entry.id for each in block.entries) else None

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


@dataclass(frozen=True, slots=True)
class _Reached:
    """The last believed anchor of one village."""

    height: int
    start: int
    author: bytes

    def continues(self, start: int, author: bytes) -> bool:
        """Whether an anchor of ``author`` that begins at ``start`` comes after this one."""
        if author == self.author:
            return start >= self.start
        return start >= self.height


class AnchorWatch:
    """What this node knows of one county ledger that it carries.

    The ledger is not executed here, so verdicts are not known: an anchor is believed if a
    county's or hospital's device wrote it, it goes on where the one before ended, and the
    village's block that it names is the one that is here. A writer waits for the verdict on its
    anchor before it writes the next: one that begins again where its last began says that
    the last was refused, and one that begins beyond what is known here says that another was not.

    Rows of ``Space.LOCAL``: ``watch height`` + ledger -> height; ``watch lane`` + ledger + log ->
    next seq (8), last id; ``watch village`` + ledger + village -> height (8),
    where that anchor began (8), its author (32).
    """

    def __init__(
        self,
        *,
        ledger: bytes,
        disk: Disk,
        logs: Logs,
        chains: Chains,
        registry: Registry,
        speaks: Callable[[LaneKey], bool],
    ) -> None:
        self.ledger = ledger
        self._disk = disk
        self._logs = logs
        self._chains = chains
        self._registry = registry
        self._speaks = speaks
        self.height = 0
        """County blocks taken in."""
        self._ordered: dict[LaneKey, tuple[int, bytes]] = {}
        self._villages: dict[bytes, _Reached] = {}
        self._load()

    def _load(self) -> None:
        raw = self._disk.get(Space.LOCAL, _HEIGHT + self.ledger)
        self.height = int.from_bytes(raw or b"", "big")
        for key, value in self._rows(_LANE + self.ledger):
            self._ordered[LaneKey.from_bytes(key)] = (int.from_bytes(value[:8], "big"), value[8:])
        for key, value in self._rows(_VILLAGE + self.ledger):
            height, start = value[:8], value[8:16]
            self._villages[key] = _Reached(
                int.from_bytes(height, "big"), int.from_bytes(start, "big"), value[16:]
            )

    def _rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = prefix
        while True:
            rows = self._disk.scan(Space.LOCAL, start, prefix + b"\xff" * 49, limit=512)
            for key, value in rows:
                yield key[len(prefix) :], value
            if len(rows) < 512:
                return
            start = rows[-1][0] + b"\x00"

    def advance(self) -> list[Anchor]:
        """Take in further county blocks, as far as the county's own entries are here."""
        anchors: list[Anchor] = []
        while (stored := self._chains.block_at(self.ledger, self.height + 1)) is not None:
            body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
            news: list[Entry] = []
            for tip in body.tips:
                start, _ = self._ordered.get(tip.lane, (0, b""))
                entries = self._logs.branch(tip.lane, start, tip.seq, tip.id)
                if entries is None:
                    return anchors
                news += [entry for entry in entries if entry.kind == ANCHOR]
            for tip in body.tips:
                self._ordered[tip.lane] = (tip.seq + 1, tip.id)
                row = (tip.seq + 1).to_bytes(8, "big") + tip.id
                self._disk.stage(Space.LOCAL, _LANE + self.ledger + tip.lane.to_bytes(), row)
            anchors += [anchor for entry in news if (anchor := self._believed(entry)) is not None]
            self.height += 1
            height = self.height.to_bytes(8, "big")
            self._disk.stage(Space.LOCAL, _HEIGHT + self.ledger, height)
        return anchors

    def _believed(self, entry: Entry) -> Anchor | None:
        """The anchor in ``entry``, noted; ``None`` if it is none that the county can have meant."""
        anchor = self._registry.body(entry)
        if not isinstance(anchor, Anchor) or not self._speaks(entry.lane):
            return None
        known = self._villages.get(anchor.ledger, _Reached(0, 0, b""))
        if anchor.height <= anchor.start or not known.continues(anchor.start, entry.author):
            return None
        stored = self._chains.block_at(anchor.ledger, anchor.height)
        if stored is not None and header_digest(stored.block.header) != anchor.head:
            return None
        self._villages[anchor.ledger] = _Reached(anchor.height, anchor.start, entry.author)
        row = anchor.height.to_bytes(8, "big") + anchor.start.to_bytes(8, "big") + entry.author
        self._disk.stage(Space.LOCAL, _VILLAGE + self.ledger + anchor.ledger, row)
        return anchor

    def orders(self, entry: Entry) -> bool:
        """Whether the county has ordered ``entry`` itself."""
        next_seq, last = self._ordered.get(entry.lane, (0, b""))
        if entry.seq >= next_seq:
            return False
        log = self._logs.lane(entry.lane)
        if log is None or not log.frozen:
            return True
        branch = self._logs.branch(entry.lane, entry.seq, next_seq - 1, last)
        return branch is not None and branch[0].id == entry.id

    def village_height(self, ledger: bytes) -> int:
        """Height up to which the county has executed a village's ledger."""
        known = self._villages.get(ledger)
        return known.height if known else 0
