"""One ledger on one node: builds, checks, executes and decides blocks.

The consensus engines' ``Application``. Blocks carry tips of author logs; bodies are already
here by gossip, and a block whose bodies are not is ``MISSING``, never voted for. Executing a
block gives the verdict root and the state root *after* it, which the header carries and every
voter compares. Executed blocks that are not decided yet stand as layers on the durable state.

``decide`` stages the block, its certificate, the state and the verdicts together, so that one
commit makes all of them durable or none.

A block that leaves a next epoch in the state is a *seal* (``epochs.py``). On a seal that is not
decided yet, nothing of the old epoch is ordered: BFT may put empty tails above it, which prove
it and are never decided themselves. On a decided seal stands the first block of the next epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pmed.consensus.interface import Block, Check, Content, Header, header_digest
from p2pmed.errors import DecodeError, InvariantError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import Body, Summary, content_hash, decode_body, tips_root
from p2pmed.ledger.epochs import Epochs, epoch_of, next_epoch_of
from p2pmed.ledger.executing import TIP_ROWS, Below, Executed, Executor, tip_in
from p2pmed.ledger.genesis import Genesis, ledger_id
from p2pmed.ledger.logs import Lane, Logs
from p2pmed.ledger.picking import Picker
from p2pmed.ledger.state import Readable, StateMachine, Verdict
from p2pmed.ledger.stored import STORED_BYTES_MAX, TAIL_MAX, DurableState, StoredBlock
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.quorum.certificate import Certificate, Epoch
from p2pmed.wire import cbor, codec
from p2pmed.world import Disk, Space

__all__ = ["Chain", "Decided"]

_HEIGHT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decided block brought."""

    header: Header
    summary: Summary
    entries: list[Entry]
    verdicts: list[Verdict]
    next_epoch: Epoch | None = None
    """Who decides from the next height on, if this block is a seal."""


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
        self._wall = wall
        self._available = available
        self.seat = seat
        """The own one in ``epoch``, for who builds."""
        self.epoch = genesis.epoch()
        """Who decides the next block: after a decided seal, the next epoch."""
        self.epochs = Epochs(disk, self.epoch)
        self._picker = Picker(logs, self._orderable, ready)
        self._executor = Executor(genesis, machine, self._is_ordered)
        self.state = DurableState(disk, self.ledger)
        self._executed: dict[bytes, Executed] = {}
        self._built: Executed | None = None
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
        self._total = lthash.from_bytes(raw[:-_HEIGHT_BYTES])
        height = int.from_bytes(raw[-_HEIGHT_BYTES:], "big")
        if height:  # else a successor that begins with its predecessor's state
            stored = self.block_at(height)
            if stored is None:
                raise InvariantError("a ledger whose last executed block is missing")
            self.head, self.head_certificate = stored.block.header, stored.certificate
            body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
            self.time_ms = body.summary.time
            self.epoch = next_epoch_of(self.state) or epoch_of(self.state) or self.epoch
        for key, value in self.state.scan(TIP_ROWS):
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

    def ordered_tip(self, lane: LaneKey) -> tuple[int, bytes] | None:
        """Seq and id of the last entry of ``lane`` that a decided block orders."""
        raw = self.state.get(TIP_ROWS + lane.to_bytes())
        return (int.from_bytes(raw[:8], "big") - 1, raw[8:]) if raw is not None else None

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
        grounds = self._grounds(parent)
        if grounds is None:
            return None
        below, epoch, sealed = grounds
        undecided = self._executed.get(parent) if parent != self.head_digest else None
        entries, tips = ([], []) if sealed else self._picker.choose(below.state)
        if not entries:
            if undecided is None or not self._may_be_empty(view, undecided.header.view):
                return None
            if sealed and self._tail_length(parent) >= TAIL_MAX:
                return None
        self._built = self._executor.run(
            below,
            epoch,
            view=view,
            seat=self.seat,
            clock=self._wall(),
            tips=tuple(tips),
            entries=entries,
            tail=sealed,
        )
        body = self._built.body
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
        grounds = self._grounds(header.parent, header.epoch)
        if grounds is None:
            return Check.MISSING
        below, epoch, sealed = grounds
        if header.height != below.height + 1 or not self._is_of(header, epoch):
            return Check.INVALID
        if sealed and (body.tips or self._tail_length(header.parent) >= TAIL_MAX):
            return Check.INVALID
        built = self._built
        if built is not None and (built.header.parent, built.header.content) == (
            header.parent,
            header.content,
        ):
            built.header = header
            self._executed[digest] = built
            return Check.VALID
        executed = self._execute(block, body, below, epoch, sealed)
        if isinstance(executed, Check):
            return executed
        if executed.body != body:
            return Check.INVALID
        executed.header = header
        self._executed[digest] = executed
        return Check.VALID

    def execute_again(self, block: Block, body: Body) -> Summary | None:
        """What executing ``block`` gives, whatever it says itself; ``None`` if it cannot be."""
        grounds = self._grounds(block.header.parent, block.header.epoch)
        if grounds is None or block.header.proposer >= len(grounds[1].validators):
            return None
        executed = self._execute(block, body, *grounds)
        return None if isinstance(executed, Check) else executed.body.summary

    def _execute(
        self, block: Block, body: Body, below: Below, epoch: Epoch, sealed: bool
    ) -> Executed | Check:
        entries = self._picker.gather(below.state, body)
        if isinstance(entries, Check):
            return entries
        return self._executor.run(
            below,
            epoch,
            view=block.header.view,
            seat=block.header.proposer,
            clock=body.summary.clock,
            tips=body.tips,
            entries=entries,
            tail=sealed,
        )

    def _is_of(self, header: Header, epoch: Epoch) -> bool:
        """Whether the header names this ledger, ``epoch`` and a seat in it."""
        named = (header.ledger, header.epoch) == (self.ledger, epoch.number)
        return named and header.proposer < len(epoch.validators)

    def _tail_length(self, parent: bytes) -> int:
        """How many empty blocks stand on the undecided seal, up to and with ``parent``."""
        count = 0
        while (each := self._executed.get(parent)) is not None and not each.entries:
            parent, count = each.header.parent, count + 1
        return count

    def _may_be_empty(self, view: int, parent_view: int) -> bool:
        """Whether a block that orders nothing has a reason: views between it and its parent.

        Raft begins a term with an empty entry of its log and needs no empty block.
        """
        return self.genesis.engine == "bft" and view > parent_view + 1

    # --- deciding -------------------------------------------------------------------------

    def decide(
        self, block: Block, certificate: Certificate | None, tail: tuple[Header, ...] = ()
    ) -> Decided:
        """Stage ``block`` as the next decided one, with all that follows from it.

        A seal needs a certificate: its own, or that of the last of ``tail``. The caller has
        seen ``check`` answer ``VALID`` and holds the proof.
        Raises ``InvariantError`` if it does not extend the head: a fork is never applied.
        """
        digest = header_digest(block.header)
        if block.header.parent != self.head_digest or block.header.height != self.height + 1:
            raise InvariantError(f"block {block.header.height} does not extend the decided chain")
        executed = self._executed.get(digest)
        if executed is None:
            raise InvariantError(f"block {block.header.height} was decided without a check")
        following = executed.body.next_epoch
        if following is not None and certificate is None:
            raise InvariantError(f"seal {block.header.height} was decided without its proof")
        self._stage(block, certificate, tail, executed)
        self.head, self.head_certificate = block.header, certificate
        self.time_ms = executed.body.summary.time
        self._total = executed.total
        for tip in executed.body.tips:
            self._tips[tip.lane] = tip.seq + 1
        executed.layer.below = self.state
        executed.layer.writes = {}
        self._forget_orphans(digest)
        if following is not None:
            self.epoch = following
            self.epochs.stage(following, block.header.height + 1)
            self._executed = {digest: executed}  # tails have said what they had to say
        return Decided(
            block.header,
            executed.body.summary,
            executed.entries,
            executed.verdicts,
            following,
        )

    def _stage(
        self,
        block: Block,
        certificate: Certificate | None,
        tail: tuple[Header, ...],
        done: Executed,
    ) -> None:
        height = block.header.height.to_bytes(8, "big")
        row = StoredBlock(block=block, tail=tail, certificate=certificate)
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
        kept: dict[bytes, Executed] = {decided: self._executed[decided]}
        for digest, executed in sorted(
            self._executed.items(), key=lambda item: item[1].header.height
        ):
            if executed.header.parent in kept:
                kept[digest] = executed
        self._executed = kept

    # --- executing ------------------------------------------------------------------------

    def _grounds(
        self, parent: bytes, number: int | None = None
    ) -> tuple[Below, Epoch, bool] | None:
        """``parent`` executed, the epoch of a block on it, and whether that can only be a tail.

        On a seal that is not decided stands a tail, or, where ``number`` says so (blocks that
        are taken in together), the first block of the next epoch. ``None``: it is not here.
        """
        if parent == self.head_digest:
            below = Below(parent, self.state, self.height, self.time_ms, self._total)
            return below, self.epoch, False
        done = self._executed.get(parent)
        if done is None or done.header.height <= self.height:
            return None
        time_ms = done.body.summary.time
        below = Below(parent, done.layer, done.header.height, time_ms, done.total)
        following = next_epoch_of(done.layer)
        if following is not None and following.number == number:
            return below, following, False
        return below, epoch_of(done.layer) or self.epoch, following is not None

    def _is_ordered(self, entry_id: bytes, state: Readable) -> bool:
        """Whether ``state`` orders this very entry, not only one in its place."""
        place = self._logs.place(entry_id)
        if place is None:
            return False
        lane, seq = place
        next_seq, last = tip_in(state, lane)
        if seq >= next_seq:
            return False
        log = self._logs.lane(lane)
        if log is None or not log.frozen:
            return True
        branch = self._logs.branch(lane, seq, next_seq - 1, last)
        return branch is not None and branch[0].id == entry_id
