"""Executing a block: entries on the state of its parent, and the content that says what came.

Rule: the same parent, tips, entries and clock give the same content on every node, bit for bit.
The epoch is an argument: whoever calls knows which epoch a block on that parent belongs to.

What the ledger itself keeps in the state begins with a zero byte: ``00 74 lane`` (the next seq
that is not ordered yet, and the last id), ``00 63 node`` (a validator's newest clock reading),
and who decides (``epochs.py``). Byte-exact: ``docs/protocols/block.md``, sections 4 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.consensus.interface import Header
from p2pmed.ledger import lthash
from p2pmed.ledger.block import (
    Body,
    Summary,
    Tip,
    content_hash,
    order_entries,
    tips_root,
    verdict_leaf,
)
from p2pmed.ledger.epochs import begin, next_epoch_of, note_block
from p2pmed.ledger.genesis import Genesis, ledger_id
from p2pmed.ledger.merkle import merkle_root
from p2pmed.ledger.state import BlockContext, Layer, Readable, StateMachine, Verdict
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey
from p2pmed.limits import HLC_AHEAD_MS_MAX
from p2pmed.quorum.certificate import Epoch, epoch_digest

__all__ = ["TIP_ROWS", "Below", "Executed", "Executor", "tip_in"]

TIP_ROWS: Final = b"\x00t"
_CLOCK: Final = b"\x00c"
REFERENCE_MISSING: Final = "reference_missing"


@dataclass(frozen=True, slots=True)
class Below:
    """What a block stands on: its parent, executed."""

    parent: bytes
    state: Readable
    height: int
    time_ms: int
    total: lthash.StateHash


@dataclass(slots=True)
class Executed:
    """A block that was executed and is not decided yet."""

    header: Header
    body: Body
    entries: list[Entry]
    verdicts: list[Verdict]
    layer: Layer
    total: lthash.StateHash


class Executor:
    """Executes blocks of one ledger; ``is_ordered(id, state)`` says what references may name."""

    def __init__(
        self,
        genesis: Genesis,
        machine: StateMachine,
        is_ordered: Callable[[bytes, Readable], bool],
    ) -> None:
        self._genesis = genesis
        self._ledger = ledger_id(genesis)
        self._machine = machine
        self._is_ordered = is_ordered

    def run(
        self,
        below: Below,
        epoch: Epoch,
        *,
        view: int,
        seat: int,
        clock: int,
        tips: tuple[Tip, ...] = (),
        entries: Sequence[Entry] = (),
        tail: bool = False,
    ) -> Executed:
        """Execute ``entries``; the header names no parent view, which the engine knows.

        A ``tail`` only proves the seal below it, and leaves the state as it is but for time.
        """
        layer = Layer(below.state)
        if not tail:
            begin(layer, epoch, self._genesis.engine)
            note_block(layer, below.height, below.parent)
        for tip in tips:
            layer.put(TIP_ROWS + tip.lane.to_bytes(), (tip.seq + 1).to_bytes(8, "big") + tip.id)
        ordered = order_entries(entries)
        self._read_clocks(layer, epoch, ordered)
        time_ms = self._block_time(layer, epoch, seat, clock, below.time_ms)
        context = BlockContext(
            network=self._genesis.network,
            ledger=self._ledger,
            height=below.height + 1,
            time_ms=time_ms,
            provisional=False,
        )
        verdicts = [self._apply(entry, layer, context) for entry in ordered]
        changes = [(key, below.state.get(key), new) for key, new in layer.writes.items()]
        total = lthash.changed(below.total, changes)
        body = _content(layer, total, tips, ordered, verdicts, clock, time_ms)
        header = Header(
            version=1,
            ledger=self._ledger,
            epoch=epoch.number,
            view=view,
            height=below.height + 1,
            parent=below.parent,
            parent_view=0,
            proposer=seat,
            content=content_hash(body.summary),
        )
        return Executed(header, body, ordered, verdicts, layer, total)

    def _apply(self, entry: Entry, layer: Layer, context: BlockContext) -> Verdict:
        for ref in entry.envelope.refs:
            if not self._is_ordered(ref, layer):
                return Verdict(code=REFERENCE_MISSING, other=b"")
        return self._machine.apply(entry, layer, context)

    # --- time -----------------------------------------------------------------------------

    def _block_time(self, layer: Layer, epoch: Epoch, seat: int, clock: int, parent_ms: int) -> int:
        """Median of the seats' newest readings, above the parent's time (design, section 12).

        A seat that has not proposed yet reads as the genesis: among few readings one liar would
        be the median. In Raft nobody lies and only the leader proposes: its reading counts, not
        the stale ones of leaders before it. But a clock may be wrong and time never goes back,
        so it runs ahead of the newest reading of any other seat by a day at most.
        """
        proposer = epoch.validators[seat].node
        layer.put(_CLOCK + proposer, clock.to_bytes(8, "big", signed=True))
        nodes = [validator.node for validator in epoch.validators]
        if self._genesis.engine == "raft":
            others = [self._reading(layer, node) for node in nodes if node != proposer]
            latest = max(others) + HLC_AHEAD_MS_MAX if others else clock
            return max(parent_ms + 1, min(clock, latest))
        readings = sorted(self._reading(layer, node) for node in nodes)
        return max(parent_ms + 1, readings[(len(readings) - 1) // 2])

    def _reading(self, state: Readable, node: bytes) -> int:
        """The validator's newest clock reading; the genesis' time if it has given none."""
        raw = state.get(_CLOCK + node)
        return self._genesis.created if raw is None else int.from_bytes(raw, "big", signed=True)

    def _read_clocks(self, layer: Layer, epoch: Epoch, ordered: Sequence[Entry]) -> None:
        """In Raft, members that do not lead tell their clock by what they write."""
        if self._genesis.engine != "raft":
            return
        walls = {entry.author: entry.envelope.wall for entry in ordered}
        for validator in epoch.validators:
            wall = walls.get(validator.node)
            if wall is not None:
                layer.put(_CLOCK + validator.node, wall.to_bytes(8, "big", signed=True))


def tip_in(state: Readable, lane: LaneKey) -> tuple[int, bytes]:
    """The first seq of ``lane`` that ``state`` does not order, and the id of the one before."""
    raw = state.get(TIP_ROWS + lane.to_bytes())
    return (int.from_bytes(raw[:8], "big"), raw[8:]) if raw else (0, GENESIS_PREV)


def _content(
    layer: Layer,
    total: lthash.StateHash,
    tips: tuple[Tip, ...],
    ordered: Sequence[Entry],
    verdicts: Sequence[Verdict],
    clock: int,
    time_ms: int,
) -> Body:
    """What a block says of its own execution."""
    leaves = [verdict_leaf(e.id, v) for e, v in zip(ordered, verdicts, strict=True)]
    following = next_epoch_of(layer)
    summary = Summary(
        version=1,
        clock=clock,
        time=time_ms,
        tips=tips_root(tips),
        entries=merkle_root([entry.id for entry in ordered]),
        count=len(ordered),
        verdicts=merkle_root(leaves),
        state=lthash.state_root(total),
        next_epoch=b"" if following is None else epoch_digest(following),
    )
    return Body(summary=summary, tips=tips, next_epoch=following)
