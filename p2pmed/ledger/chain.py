"""One ledger on one node: builds, checks, executes and decides blocks.

The consensus engines' ``Application``. Blocks carry tips of author logs; bodies are already
here by gossip, and a block whose bodies are not is ``MISSING``, never voted for. Executing a
block gives the verdict root and the state root *after* it, which the header carries and every
voter compares. Executed blocks that are not decided yet stand as layers on the durable state.

``decide`` stages the block, its certificate, the state and the verdicts together, so that one
commit makes all of them durable or none.

What the ledger itself keeps in the state begins with a zero byte: ``00 74 lane`` (the next seq
that is not ordered yet, and the last id) and ``00 63 seat`` (the seat's newest clock reading).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.consensus.interface import Block, Check, Content, Header, header_digest
from p2pmed.errors import DecodeError, InvariantError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import (
    Body,
    Summary,
    Tip,
    content_hash,
    decode_body,
    order_entries,
    tips_root,
    verdict_leaf,
)
from p2pmed.ledger.genesis import Genesis, ledger_id
from p2pmed.ledger.logs import Lane, Logs
from p2pmed.ledger.merkle import merkle_root
from p2pmed.ledger.state import BlockContext, Layer, Readable, StateMachine, Verdict
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey
from p2pmed.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_CONTENT_BYTES_MAX,
    BLOCK_ENTRIES_MAX,
    BLOCK_TIPS_MAX,
    ENTRY_BYTES_MAX,
    HLC_AHEAD_MS_MAX,
    INCARNATIONS_MAX,
)
from p2pmed.quorum.certificate import Certificate
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Wire
from p2pmed.world import Disk, Space

__all__ = ["Chain", "Decided", "DurableState", "StoredBlock"]

_HEIGHT_BYTES: Final = 8
_TIP: Final = b"\x00t"
_CLOCK: Final = b"\x00c"
REFERENCE_MISSING: Final = "reference_missing"
ROWS_CACHED_MAX: Final = 65_536
"""State rows kept decoded from the disk: members, lots and policies recur in every block."""
STORED_BYTES_MAX: Final = BLOCK_CONTENT_BYTES_MAX + 8 * 1024
"""With header and certificate."""
assert BLOCK_BYTES_MAX >= ENTRY_BYTES_MAX


class StoredBlock(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A decided block as the disk keeps it."""

    block: Block
    certificate: Certificate | None
    """``None``: proven by the certificate of a descendant and the hash chain."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decided block brought."""

    header: Header
    summary: Summary
    entries: list[Entry]
    verdicts: list[Verdict]


@dataclass(slots=True)
class _Executed:
    header: Header
    body: Body
    entries: list[Entry]
    verdicts: list[Verdict]
    layer: Layer
    total: lthash.StateHash


class DurableState:
    """The state after the last decided block: a ``Readable`` over the disk."""

    def __init__(self, disk: Disk, ledger: bytes) -> None:
        self._disk = disk
        self._ledger = ledger
        self._cache: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The row's value."""
        try:
            return self._cache[key]
        except KeyError:
            value = self._disk.get(Space.STATE, self._ledger + key)
            self._keep(key, value)
            return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows under ``prefix``, in key order, a page at a time."""
        skip = len(self._ledger)
        start = self._ledger + prefix
        end = start + b"\xff" * 64
        while True:
            rows = self._disk.scan(Space.STATE, start, end, limit=512)
            for key, value in rows:
                yield key[skip:], value
            if len(rows) < 512:
                return
            start = rows[-1][0] + b"\x00"

    def write(self, key: bytes, value: bytes | None) -> None:
        """Stage one change."""
        self._disk.stage(Space.STATE, self._ledger + key, value)
        self._keep(key, value)

    def _keep(self, key: bytes, value: bytes | None) -> None:
        if len(self._cache) >= ROWS_CACHED_MAX:
            self._cache.clear()
        self._cache[key] = value


class Chain:
    """One ledger.

    ``available(lane)`` is the seq below which enough nodes hold that log; ``ready(entry)`` says
    whether what the entry's execution reads outside the state is here; ``seat`` is the own one
    (it matters to who builds only).
    """

    def __init__(
        self,
        *,
        disk: Disk,
        logs: Logs,
        genesis: Genesis,
        machine: StateMachine,
        wall: Callable[[], int],
        available: Callable[[LaneKey], int],
        ready: Callable[[Entry], bool] = lambda entry: True,
        seat: int = 0,
    ) -> None:
        self.genesis = genesis
        self.ledger = ledger_id(genesis)
        self._disk = disk
        self._logs = logs
        self._machine = machine
        self._wall = wall
        self._available = available
        self._ready = ready
        self._seat = seat
        self.state = DurableState(disk, self.ledger)
        self._executed: dict[bytes, _Executed] = {}
        self._built: _Executed | None = None
        """The block last built here: not executed again when it comes back as a proposal."""
        self.head: Header | None = None
        self.head_certificate: Certificate | None = None
        self.time_ms = genesis.created
        self._total = lthash.EMPTY
        self._tips: dict[LaneKey, int] = {}
        self._load()

    def _load(self) -> None:
        """Stand where execution stood; blocks that were only carried lie above it."""
        raw = self._disk.get(Space.META, b"state" + self.ledger)
        if raw is None:
            return
        stored = self.block_at(int.from_bytes(raw[-_HEIGHT_BYTES:], "big"))
        if stored is None:
            raise InvariantError("a ledger whose last executed block is missing")
        self.head, self.head_certificate = stored.block.header, stored.certificate
        self.time_ms = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX).summary.time
        self._total = lthash.from_bytes(raw[:-_HEIGHT_BYTES])
        for key, value in self.state.scan(_TIP):
            self._tips[LaneKey.from_bytes(key[2:])] = int.from_bytes(value[:8], "big")

    # --- questions ------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Of the last decided block; 0 at genesis."""
        return self.head.height if self.head else 0

    @property
    def head_digest(self) -> bytes:
        """Digest of the last decided header; the ledger id at genesis."""
        return header_digest(self.head) if self.head else self.ledger

    @property
    def state_root(self) -> bytes:
        """Commitment to the durable state."""
        return lthash.state_root(self._total)

    def ordered_next(self, lane: LaneKey) -> int:
        """The first seq of ``lane`` that no decided block orders."""
        return self._tips.get(lane, 0)

    def _holds(self, entry: Entry) -> bool:
        """Whether a decided block orders ``entry`` itself."""
        if entry.seq >= self.ordered_next(entry.lane):
            return False
        log = self._logs.lane(entry.lane)
        return log is None or not log.frozen or self._is_ordered(entry.id, self.state)

    def height_of(self, entry: Entry) -> int | None:
        """The height that ordered ``entry``, or ``None`` while it is not final here."""
        if not self._holds(entry):
            return None
        start = self.ledger + entry.lane.to_bytes() + entry.seq.to_bytes(8, "big")
        end = self.ledger + entry.lane.to_bytes() + b"\xff" * 9
        rows = self._disk.scan(Space.TIP, start, end, limit=1)
        return int.from_bytes(rows[0][1], "big")

    def verdict_of(self, entry: Entry) -> Verdict | None:
        """The verdict of a final entry; ``None`` while it is not final here."""
        if not self._holds(entry):
            return None
        raw = self._disk.get(Space.VERDICT, self.ledger + entry.id)
        if raw is None:
            return Verdict(code="applied")
        code, other = cbor.decode(raw)
        return Verdict(code=code, other=other)

    def block_at(self, height: int) -> StoredBlock | None:
        """A decided block, or ``None``."""
        raw = self._disk.get(Space.BLOCK, self.ledger + height.to_bytes(8, "big"))
        if raw is None:
            return None
        return codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)

    # --- the engines' Application ---------------------------------------------------------

    def pending(self) -> bool:
        """Whether a log has grown, where enough nodes hold it, beyond what is decided."""
        return any(self._orderable(lane) > self.ordered_next(lane.key) for lane in self._logs)

    def _orderable(self, lane: Lane) -> int:
        """The seq below which ``lane`` may be ordered: enough hold it, and nobody disputes it.

        A forked log is ordered up to its fork: nodes read different branches of it, and a block
        that ordered one would be refused by half of them, again and again.
        """
        available = self._available(lane.key)
        return available if lane.forked_at is None else min(available, lane.forked_at)

    def build(self, parent: bytes, view: int) -> Content | None:
        """Content of a block on ``parent`` with all that fits; ``None`` if there is nothing.

        Empty content only where an undecided parent of an older view needs a descendant to
        become final: its own view ended without a quorum to finalise it.
        """
        below = self._below(parent)
        if below is None:
            return None
        entries, tips = self._choose(below[0])
        if not entries:
            undecided = self._executed.get(parent) if parent != self.head_digest else None
            if undecided is None or not self._may_be_empty(view, undecided.header.view):
                return None
        clock = self._wall()
        body, self._built = self._execute(parent, view, below, tuple(tips), entries, clock)
        return Content(hash=content_hash(body.summary), data=codec.encode(body))

    def check(self, block: Block) -> Check:
        """Whether ``block`` may follow its parent."""
        digest = header_digest(block.header)
        if digest in self._executed:
            return Check.VALID
        header = block.header
        try:
            body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
        except DecodeError:
            return Check.INVALID
        summary = body.summary
        if content_hash(summary) != header.content or tips_root(body.tips) != summary.tips:
            return Check.INVALID
        if not body.tips and not self._may_be_empty(header.view, header.parent_view):
            return Check.INVALID
        below = self._below(header.parent)
        if below is None:
            return Check.MISSING
        if header.height != below[1] + 1 or header.ledger != self.ledger:
            return Check.INVALID
        built = self._built
        if built is not None and (built.header.parent, built.header.content) == (
            header.parent,
            header.content,
        ):
            built.header = header
            self._executed[digest] = built
            return Check.VALID
        entries = self._gather(below[0], body)
        if isinstance(entries, Check):
            return entries
        seat, clock = header.proposer, body.summary.clock
        again, executed = self._execute(
            header.parent, header.view, below, body.tips, entries, clock, seat
        )
        if again.summary != summary:
            return Check.INVALID
        executed.header = header
        self._executed[digest] = executed
        return Check.VALID

    def _may_be_empty(self, view: int, parent_view: int) -> bool:
        """Whether a block that orders nothing has a reason: views between it and its parent.

        Raft begins a term with an empty entry of its log and needs no empty block.
        """
        return self.genesis.engine == "bft" and view > parent_view + 1

    # --- deciding -------------------------------------------------------------------------

    def decide(self, block: Block, certificate: Certificate | None) -> Decided:
        """Stage ``block`` as the next decided one, with all that follows from it.

        The caller has seen ``check`` answer ``VALID`` and holds the proof.
        Raises ``InvariantError`` if it does not extend the head: a fork is never applied.
        """
        digest = header_digest(block.header)
        if block.header.parent != self.head_digest or block.header.height != self.height + 1:
            raise InvariantError(f"block {block.header.height} does not extend the decided chain")
        executed = self._executed.get(digest)
        if executed is None:
            raise InvariantError(f"block {block.header.height} was decided without a check")
        self._stage(block, certificate, executed)
        self.head, self.head_certificate = block.header, certificate
        self.time_ms = executed.body.summary.time
        self._total = executed.total
        for tip in executed.body.tips:
            self._tips[tip.lane] = tip.seq + 1
        executed.layer.below = self.state
        executed.layer.writes = {}
        self._forget_orphans(digest)
        return Decided(block.header, executed.body.summary, executed.entries, executed.verdicts)

    def _stage(self, block: Block, certificate: Certificate | None, done: _Executed) -> None:
        height = block.header.height.to_bytes(8, "big")
        row = StoredBlock(block=block, certificate=certificate)
        self._disk.stage(Space.BLOCK, self.ledger + height, codec.encode(row))
        for tip in done.body.tips:
            key = self.ledger + tip.lane.to_bytes() + tip.seq.to_bytes(8, "big")
            self._disk.stage(Space.TIP, key, height)
        for entry, verdict in zip(done.entries, done.verdicts, strict=True):
            if not verdict.applied:
                raw = cbor.encode([verdict.code, verdict.other])
                self._disk.stage(Space.VERDICT, self.ledger + entry.id, raw)
        for key, value in done.layer.writes.items():
            self.state.write(key, value)
        self._disk.stage(Space.META, b"state" + self.ledger, lthash.to_bytes(done.total) + height)

    def _forget_orphans(self, decided: bytes) -> None:
        """Keep of the executed blocks only what descends from the decided one."""
        kept: dict[bytes, _Executed] = {decided: self._executed[decided]}
        for digest, executed in sorted(
            self._executed.items(), key=lambda item: item[1].header.height
        ):
            if executed.header.parent in kept:
                kept[digest] = executed
        self._executed = kept

    # --- executing ------------------------------------------------------------------------

    def _below(self, parent: bytes) -> tuple[Readable, int, int, lthash.StateHash] | None:
        """State, height, time and commitment of ``parent``; ``None`` if it is not here."""
        if parent == self.head_digest:
            return self.state, self.height, self.time_ms, self._total
        executed = self._executed.get(parent)
        if executed is None or executed.header.height <= self.height:
            return None
        time_ms = executed.body.summary.time
        return executed.layer, executed.header.height, time_ms, executed.total

    def _choose(self, below: Readable) -> tuple[list[Entry], list[Tip]]:
        """Entries to order next: a fair share for each log, within the block's limits."""
        spans = []
        opened: dict[bytes, int] = {}
        for lane in self._logs:
            start, before = _tip_in(below, lane.key)
            end = min(self._orderable(lane), lane.durable_next)
            if end > start and self._continues(below, lane.key, start, before, opened):
                spans.append((lane.key, start, end))
        entries: list[Entry] = []
        tips = []
        room, space = BLOCK_ENTRIES_MAX, BLOCK_BYTES_MAX
        spans.sort(key=lambda span: span[2] - span[1])
        spans = spans[:BLOCK_TIPS_MAX]
        for index, (key, start, end) in enumerate(spans):
            share = max(1, room // (len(spans) - index))
            last = None
            for entry in self._logs.entries(key, start, min(end, start + share)):
                if room == 0 or len(entry.raw) > space or not self._ready(entry):
                    break
                room, space, last = room - 1, space - len(entry.raw), entry
                entries.append(entry)
            if last is not None:
                tips.append(
                    Tip(author=key.author, incarnation=key.incarnation, seq=last.seq, id=last.id)
                )
        tips.sort(key=lambda tip: tip.lane)
        return entries, tips

    def _continues(
        self, below: Readable, key: LaneKey, start: int, before: bytes, opened: dict[bytes, int]
    ) -> bool:
        """Whether the log that is here goes on from what is ordered, or may be opened."""
        if start == 0:
            return _opens(below, key.author, opened)
        last = self._logs.entry(key, start - 1)
        return last is not None and last.id == before

    def _gather(self, below: Readable, body: Body) -> list[Entry] | Check:
        """The bodies that ``body`` orders, or what is wrong with it."""
        entries: list[Entry] = []
        size = 0
        missing = False
        opened: dict[bytes, int] = {}
        for tip in body.tips:
            start, before = _tip_in(below, tip.lane)
            if tip.seq < start or len(entries) + tip.seq + 1 - start > BLOCK_ENTRIES_MAX:
                return Check.INVALID
            if start == 0 and not _opens(below, tip.author, opened):
                return Check.INVALID
            found = self._logs.branch(tip.lane, start, tip.seq, tip.id)
            if found is None:
                if self._logs.place(tip.id) not in (None, (tip.lane, tip.seq)):
                    return Check.INVALID
                missing = (
                    True  # here stands another branch, perhaps: its author lied, not the leader
                )
                continue
            entries += found
            size += sum(len(entry.raw) for entry in found)
            if found[0].envelope.prev != before or size > BLOCK_BYTES_MAX:
                return Check.INVALID
        if missing or not all(self._ready(entry) for entry in entries):
            return Check.MISSING
        return entries if len(entries) == body.summary.count else Check.INVALID

    def _execute(
        self,
        parent: bytes,
        view: int,
        below: tuple[Readable, int, int, lthash.StateHash],
        tips: tuple[Tip, ...],
        entries: list[Entry],
        clock: int,
        seat: int | None = None,
    ) -> tuple[Body, _Executed]:
        """Run ``entries`` on the state of ``parent``; the content that says so."""
        state, height, time_ms, total = below
        layer = Layer(state)
        for tip in tips:
            layer.put(_TIP + tip.lane.to_bytes(), (tip.seq + 1).to_bytes(8, "big") + tip.id)
        ordered = order_entries(entries)
        self._read_clocks(layer, ordered)
        proposer = self._seat if seat is None else seat
        time_ms = self._block_time(layer, proposer, clock, time_ms)
        context = BlockContext(
            network=self.genesis.network,
            ledger=self.ledger,
            height=height + 1,
            time_ms=time_ms,
            provisional=False,
        )
        verdicts = [self._apply(entry, layer, context) for entry in ordered]
        leaves = [verdict_leaf(e.id, v) for e, v in zip(ordered, verdicts, strict=True)]
        changes = [(key, state.get(key), new) for key, new in layer.writes.items()]
        total = lthash.changed(total, changes)
        summary = Summary(
            version=1,
            clock=clock,
            time=time_ms,
            tips=tips_root(tips),
            entries=merkle_root([entry.id for entry in ordered]),
            count=len(ordered),
            verdicts=merkle_root(leaves),
            state=lthash.state_root(total),
        )
        body = Body(summary=summary, tips=tips)
        header = Header(
            version=1,
            ledger=self.ledger,
            epoch=0,
            view=view,
            height=height + 1,
            parent=parent,
            parent_view=0,
            proposer=proposer,
            content=content_hash(summary),
        )
        return body, _Executed(header, body, ordered, verdicts, layer, total)

    def _apply(self, entry: Entry, layer: Layer, context: BlockContext) -> Verdict:
        for ref in entry.envelope.refs:
            if not self._is_ordered(ref, layer):
                return Verdict(code=REFERENCE_MISSING, other=b"")
        return self._machine.apply(entry, layer, context)

    def _is_ordered(self, entry_id: bytes, state: Readable) -> bool:
        """Whether ``state`` orders this very entry, not only one in its place."""
        place = self._logs.place(entry_id)
        if place is None:
            return False
        lane, seq = place
        next_seq, last = _tip_in(state, lane)
        if seq >= next_seq:
            return False
        log = self._logs.lane(lane)
        if log is None or not log.frozen:
            return True
        branch = self._logs.branch(lane, seq, next_seq - 1, last)
        return branch is not None and branch[0].id == entry_id

    def _block_time(self, layer: Layer, seat: int, clock: int, parent_ms: int) -> int:
        """Median of the seats' newest readings, above the parent's time (design, section 12).

        A seat that has not proposed yet reads as the genesis: among few readings one liar would
        be the median. In Raft nobody lies and only the leader proposes: its reading counts, not
        the stale ones of leaders before it. But a clock may be wrong and time never goes back,
        so it runs ahead of the newest reading of any other seat by a day at most.
        """
        layer.put(_CLOCK + bytes([seat]), clock.to_bytes(8, "big", signed=True))
        seats = range(len(self.genesis.validators))
        if self.genesis.engine == "raft":
            others = [self._reading(layer, other) for other in seats if other != seat]
            latest = max(others) + HLC_AHEAD_MS_MAX if others else clock
            return max(parent_ms + 1, min(clock, latest))
        readings = sorted(self._reading(layer, each) for each in seats)
        return max(parent_ms + 1, readings[(len(readings) - 1) // 2])

    def _reading(self, state: Readable, seat: int) -> int:
        """The seat's newest clock reading; the genesis' time if it has given none."""
        raw = state.get(_CLOCK + bytes([seat]))
        return self.genesis.created if raw is None else int.from_bytes(raw, "big", signed=True)

    def _read_clocks(self, layer: Layer, ordered: Sequence[Entry]) -> None:
        """In Raft, members that do not lead tell their clock by what they write."""
        if self.genesis.engine != "raft":
            return
        walls = {entry.author: entry.envelope.wall for entry in ordered}
        for seat, validator in enumerate(self.genesis.validators):
            wall = walls.get(validator.node)
            if wall is not None:
                layer.put(_CLOCK + bytes([seat]), wall.to_bytes(8, "big", signed=True))


def _tip_in(state: Readable, lane: LaneKey) -> tuple[int, bytes]:
    """The first seq of ``lane`` that ``state`` does not order, and the id of the one before."""
    raw = state.get(_TIP + lane.to_bytes())
    return (int.from_bytes(raw[:8], "big"), raw[8:]) if raw else (0, GENESIS_PREV)


def _opens(below: Readable, author: bytes, opened: dict[bytes, int]) -> bool:
    """Whether a block on ``below`` may open one more log of ``author``; counts it."""
    if author not in opened:
        opened[author] = sum(1 for _ in below.scan(_TIP + author))
    opened[author] += 1
    return opened[author] <= INCARNATIONS_MAX
