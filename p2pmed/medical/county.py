"""What a county makes of its villages: import in the village's own order, verdicts, anchors.

A county's ledger orders the same author logs as its villages do. Mergeable facts and control
facts (recalls, revocations) count there as soon as the county orders them. What can be spent
once was written for a village's ledger, and the county does not reorder it: it is *carried*
until a ``county.anchor`` brings that ledger's certified blocks, which are then executed in the
village's order on the county's state. Two villages that each dispensed the same pack meet here:
the later one is refused with the id of the earlier, a discrepancy that people resolve.

An anchor names what it covers and what was refused. Every county validator executes it again
and refuses it if the result differs, so its certificate certifies the verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Protocol

import msgspec

from p2pmed.ledger.state import BlockContext, Layer, Readable, StateMachine, Verdict, View
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical.registry import Act, Kind, Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Count, OptionalId, Text, Wire

__all__ = ["ANCHOR", "KINDS", "Anchor", "CountyMachine", "Refused", "VillageBlock", "Villages"]

ANCHOR: Final = "county.anchor"
REFUSED_PER_ANCHOR_MAX: Final = 512
BLOCKS_PER_ANCHOR_MAX: Final = 256
ENTRIES_PER_ANCHOR_MAX: Final = 4_096
"""Executed at one go, while everything else on the node waits: as many as one block orders."""
_TABLE: Final = b"an"


class Refused(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One village transaction that the county refuses."""

    id: Bytes32
    code: Text
    other: OptionalId
    """The transaction it contradicts; empty if none."""


class Anchor(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The county has executed ``ledger`` from above ``start`` up to ``height``."""

    ledger: Bytes32
    start: Count
    height: Count
    head: Bytes32
    """Digest of the village's header at ``height``."""
    refused: Annotated[tuple[Refused, ...], msgspec.Meta(max_length=REFUSED_PER_ANCHOR_MAX)]


class _Row(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    height: Count
    head: Bytes32


class VillageBlock(Protocol):
    """One certified block of a village, its entries in the decided order."""

    @property
    def height(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def entries(self) -> list[Entry]: ...
    @property
    def tips(self) -> list[tuple[LaneKey, int]]:
        """The last seq of each log that the block orders."""
        ...


class Villages(Protocol):
    """Certified village blocks that this node holds with their bodies."""

    def blocks(self, ledger: bytes, start: int, height: int) -> Iterator[VillageBlock]:
        """Blocks ``start < h <= height`` in order; stops early where one is not here."""


def anchored_height(view: Readable, ledger: bytes) -> int:
    """Height up to which the county has executed ``ledger``."""
    raw = view.get(_TABLE + ledger)
    return codec.decode(raw, _Row).height if raw else 0


def _check(act: Act[Anchor], view: View) -> Rejection | None:
    if anchored_height(view, act.body.ledger) != act.body.start:
        return Rejection.ANCHOR_STALE
    blocks = act.body.height - act.body.start
    return None if 0 < blocks <= BLOCKS_PER_ANCHOR_MAX else Rejection.ANCHOR_STALE


def _apply(act: Act[Anchor], view: View) -> None:
    row = _Row(height=act.body.height, head=act.body.head)
    view.put(_TABLE + act.body.ledger, codec.encode(row))


KINDS: Final[tuple[Kind[Anchor], ...]] = (
    Kind(
        name=ANCHOR,
        body=Anchor,
        check=_check,
        apply=_apply,
        roles=frozenset({"county", "hospital"}),
        rules="Refused if it does not start where the last one of that ledger ended, if it covers "
        "more than 256 blocks, or if executing the blocks gives other verdicts than it states.",
    ),
)


class CountyMachine:
    """The state machine of a county: the medical one, and anchors executed."""

    def __init__(self, inner: StateMachine, registry: Registry, villages: Villages) -> None:
        self._inner = inner
        self._registry = registry
        self._villages = villages

    @property
    def rules_hash(self) -> bytes:
        """As the medical machine's."""
        return self._inner.rules_hash

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        """Apply one entry; an anchor applies its village's blocks first."""
        if entry.kind != ANCHOR or context.provisional:
            return self._inner.apply(entry, view, context)
        body = self._registry.body(entry)
        if not isinstance(body, Anchor):
            return Verdict(code=Rejection.MALFORMED.value)
        layer = Layer(view)
        verdict = self._inner.apply(entry, layer, context)
        if not verdict.applied:
            return verdict
        again = self.execute(layer, context.network, body.ledger, body.start, body.height)
        if again is None or again != body:
            return Verdict(code=Rejection.ANCHOR_MISMATCH.value)
        for key, value in layer.writes.items():
            if value is None:
                view.delete(key)
            else:
                view.put(key, value)
        return verdict

    def plan(self, state: Readable, network: bytes, ledger: bytes, height: int) -> Anchor | None:
        """The next anchor of ``ledger`` on ``state``, up to ``height``; ``None`` if nothing.

        Blocks that order nothing but anchors wait for one that does, or until they fill an
        anchor: a village orders the county's anchors, too, and each would call for the next.
        """
        start = anchored_height(state, ledger)
        end = min(height, start + BLOCKS_PER_ANCHOR_MAX)
        news = (e for block in self._villages.blocks(ledger, start, end) for e in block.entries)
        if end - start < BLOCKS_PER_ANCHOR_MAX and all(entry.kind == ANCHOR for entry in news):
            return None
        return self.execute(Layer(state), network, ledger, start, end)

    def is_due(self, state: Readable, ledger: bytes, height: int) -> bool:
        """Whether blocks of ``ledger`` up to ``height`` hold what a county should anchor."""
        start = anchored_height(state, ledger)
        held = start
        for block in self._villages.blocks(ledger, start, height):
            if any(entry.kind != ANCHOR for entry in block.entries):
                return True
            held = block.height
        return held < height

    def execute(
        self, layer: Layer, network: bytes, ledger: bytes, start: int, height: int
    ) -> Anchor | None:
        """Run blocks ``start < h <= height`` on ``layer``, as far as the county is ready.

        It stops before a block whose entries the county's own ledger has not ordered yet.
        """
        refused: list[Refused] = []
        done, head, executed = start, b"", 0
        for block in self._villages.blocks(ledger, start, height):
            executed += len(block.entries)
            large = len(refused) + len(block.entries) > REFUSED_PER_ANCHOR_MAX
            if done > start and (large or executed > ENTRIES_PER_ANCHOR_MAX):
                break
            if not all(_ordered_here(layer, lane, seq) for lane, seq in block.tips):
                break
            context = BlockContext(
                network=network,
                ledger=ledger,
                height=block.height,
                time_ms=block.time_ms,
                provisional=False,
            )
            for entry in block.entries:
                if not self._spends_in(entry, ledger):
                    continue
                verdict = self._inner.apply(entry, layer, context)
                if not verdict.applied:
                    refused.append(Refused(id=entry.id, code=verdict.code, other=verdict.other))
            done, head = block.height, block.digest
        if done == start:
            return None
        kept = tuple(refused[:REFUSED_PER_ANCHOR_MAX])
        return Anchor(ledger=ledger, start=start, height=done, head=head, refused=kept)

    def _spends_in(self, entry: Entry, ledger: bytes) -> bool:
        """Whether it was written for that ledger and counts only by its order."""
        kind = self._registry.find(entry.envelope.kind, entry.envelope.kind_version)
        if kind is None or not kind.ordered or kind.everywhere or kind.local:
            return False
        return entry.envelope.ledger == ledger


def _ordered_here(view: Readable, lane: LaneKey, seq: int) -> bool:
    """Whether the county's own ledger has ordered the log up to ``seq`` (ledger/chain.py)."""
    raw = view.get(b"\x00t" + lane.to_bytes())
    return raw is not None and int.from_bytes(raw[:8], "big") > seq
