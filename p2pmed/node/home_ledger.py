"""The ledger a node lives in: its chain, and its engine if it has a seat in this epoch.

Blocks are decided by the own engine or come verified from ``sync/chains.py``; both ways end
in ``_apply``: checked (executed), staged, and announced as final when durable. A decided block
whose bodies are not here yet waits; a certified block that is invalid, or a fork, halts the
ledger with an alarm and is never applied.

A block that ends the epoch ends its engine: what that has stored is deleted in the same commit,
and once the seal is durable the engine of the next epoch starts, if this node has a seat in it.

Order of promises: the engine's records and the decided block are staged in the turn in which
the engine asked for them, so one commit holds both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from p2pmed.consensus.interface import (
    Behind,
    Block,
    Broadcast,
    Certified,
    Check,
    ConsensusEffect,
    ConsensusEngine,
    ConsensusEvent,
    Decide,
    Evidence,
    Header,
    Leave,
    Read,
    ReadAt,
    ReadFailed,
    Recovered,
    SendTo,
    Store,
    Work,
)
from p2pmed.engine import Instant, Persisted
from p2pmed.errors import InvariantError, LocalProtocolError
from p2pmed.identity.keys import DeviceKeys
from p2pmed.ledger.chain import Chain, Decided
from p2pmed.ledger.genesis import Founding, ledger_id
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.state import StateMachine
from p2pmed.ledger.stored import StoredBlock, carried_height, with_tail
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.node import events
from p2pmed.node.barriers import Barriers
from p2pmed.node.messages import ConsensusFrame
from p2pmed.node.turn import Turn
from p2pmed.node.vote_keys import VoteKeys
from p2pmed.node.voting import ENGINES, Engines, forget_rows, row_key, rows_of
from p2pmed.quorum.certificate import Certificate, Epoch, Verify
from p2pmed.wire import cose
from p2pmed.world import Space, World

__all__ = ["HomeLedger"]

FORKED: Final = b"ledger fork"
"""Row of ``Space.LOCAL``, before a ledger's id: a certified block against the one kept here."""
LEDGER_FORKED: Final = "two certified blocks at one height"
SUCCEEDED: Final = "this node lives in the ledger's successor"
OTHER_RULES: Final = "this program has other rules than the ledger's founders: update it"

WAITING_BLOCKS_MAX: Final = 512
"""Decided blocks kept while their bodies arrive; the rest is asked for again."""


class HomeLedger:
    """One ledger executed on this node."""

    def __init__(
        self,
        *,
        world: World,
        logs: Logs,
        keys: DeviceKeys,
        founding: Founding,
        machine: StateMachine,
        holds: Callable[[bytes, LaneKey], int],
        ready: Callable[[Entry], bool],
        on_decided: Callable[[Turn, Decided], None],
        on_behind: Callable[[Turn, bytes | None, int], None],
        on_epoch: Callable[[Turn, Epoch, bool], None],
        on_recovered: Callable[[Turn], None],
        vote_keys: VoteKeys,
        on_evidence: Callable[[Turn, Epoch, Evidence | Decide], None],
        engines: Engines | None = None,
        muted: bool = False,
        resumed: bool = False,
        verify: Verify = cose.verify,
    ) -> None:
        self.founding = founding
        genesis = founding.genesis
        self.ledger = ledger_id(genesis)
        self._world = world
        self._logs = logs
        self._me = keys.node_id
        self._holds = holds
        self._on_decided = on_decided
        self._on_behind = on_behind
        self._on_epoch = on_epoch
        self._on_recovered = on_recovered
        self._on_evidence = on_evidence
        self._vote_keys = vote_keys
        self._engines = engines or ENGINES
        self._verify = verify
        self._resumed = resumed
        self.muted = muted
        """Whether it has forgotten votes, as a restored home has: a vote that is forgotten is
        cast twice. A BFT engine recovers from that by itself (consensus R12)."""
        self.halted = ""
        """Why nothing is ordered or executed any more; empty if all is well."""
        if world.disk.get(Space.LOCAL, FORKED + self.ledger) is not None:
            self.halted = LEDGER_FORKED
        elif genesis.rules != machine.rules_hash:
            self.halted = OTHER_RULES
        self._events: deque[ConsensusEvent] = deque()
        self._stepping = False
        self._ended = False
        """The seal was applied, and the epoch's engine is to be given up."""
        self._deciding: list[StoredBlock] = []
        """What the engine decided, up to the one with the certificate."""
        self._waiting: deque[StoredBlock] = deque()
        self._carried = carried_height(world.disk, self.ledger)
        """Height up to which blocks were on the disk before this became the home ledger."""
        self._unproven: list[Header] = []
        """Applied headers whose certificate is a descendant's, until that one is applied."""
        self.chain = Chain(
            disk=world.disk,
            logs=logs,
            genesis=genesis,
            machine=machine,
            wall=world.clock.wall_ms,
            available=self.available,
            ready=ready,
        )
        self.durable_height = self.chain.height
        """Height up to which blocks are flushed: what may be called *final*."""
        self.barriers = Barriers(self.chain.epochs.begun_at)
        self.epoch = self.chain.epoch
        self.seat = self.epoch.index_of(self._me)
        self.chain.seat = self.seat or 0
        self.engine: ConsensusEngine | None = None
        self._start_engine(world.clock.now())

    def _start_engine(self, now: Instant) -> None:
        """Vote in this epoch, if this node has a seat in it and the seat's key."""
        if self.seat is None or self.halted == OTHER_RULES:
            return
        memory = {"amnesic": self.muted, "resumed": self._resumed}
        if self.founding.genesis.engine != "bft":
            memory = {}
            if self.muted:
                return
        if (signer := self._vote_keys.signer(self.epoch.validators[self.seat].vote_key)) is None:
            return
        head = self.chain.head
        own = head is not None and head.epoch == self.epoch.number
        self.engine = self._engines[self.founding.genesis.engine](
            epoch=self.epoch,
            seat=self.seat,
            signer=signer,
            application=self.chain,
            rng=self._world.rng,
            records=rows_of(self._world.disk, self.epoch),
            tip=head,
            tip_certificate=self.chain.head_certificate if own else None,
            now=now,
            verify=self._verify,
            **memory,
        )

    def available(self, lane: LaneKey) -> int:
        """The seq below which a quorum of the validators, as far as known, holds ``lane``."""
        held = sorted(
            (
                self._logs.next_seq(lane)
                if validator.node == self._me
                else self._holds(validator.node, lane)
                for validator in self.chain.epoch.validators
            ),
            reverse=True,
        )
        return held[self.chain.epoch.quorum - 1]

    @property
    def deadline(self) -> Instant | None:
        """The engine's."""
        return self.engine.deadline if self.engine and not self.halted else None

    # --- driving the engine -----------------------------------------------------------------

    def run(self, turn: Turn, event: ConsensusEvent) -> None:
        """Step the engine, and carry out what it asks, in order.

        What that makes happen to the engine itself (a decided block is applied) comes after
        all that the step asked for: rows must be staged in the order in which they were made.
        """
        if self.engine is None or self.halted:
            return
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events and not self.halted:
                for effect in self.engine.step(self._events.popleft(), turn.now):
                    self._perform(turn, effect)
                if self._ended:
                    self._hand_over(turn)
                    break
        finally:
            self._events.clear()
            self._stepping = False

    def _perform(self, turn: Turn, effect: ConsensusEffect) -> None:
        match effect:
            case Store(token, records):
                if self._ended:
                    return  # nothing of an epoch that is over is kept
                stage = self._world.disk.stage
                for record in records:
                    stage(Space.CONSENSUS, row_key(self.epoch, record.key), record.value)
                engine = self.engine

                def flushed(later: Turn) -> None:
                    if self.engine is engine:
                        self.run(later, Persisted(token))

                turn.when_durable(flushed)
            case SendTo(seat, message):
                turn.send(self.epoch.validators[seat].node, self._frame(message), control=True)
            case Broadcast(message):
                frame = self._frame(message)
                for validator in self.epoch.validators:
                    if validator.node != self._me:
                        turn.send(validator.node, frame, control=True)
            case Decide(block, certificate):
                self._on_evidence(turn, self.epoch, effect)
                self._decide(turn, block, certificate)
            case Behind(height, behind_seat):
                node = None if behind_seat is None else self.epoch.validators[behind_seat].node
                self._on_behind(turn, node, height)
            case Recovered():
                self.muted = False
                self._on_recovered(turn)
            case ReadAt() | ReadFailed():
                self.barriers.settle(turn, effect, self.durable_height)
            case Evidence():
                self._on_evidence(turn, self.epoch, effect)

    def _frame(self, message: bytes) -> ConsensusFrame:
        return ConsensusFrame(self.ledger, self.epoch.number, message)

    def read_barrier(self, turn: Turn, request: int) -> None:
        """Answer when what is read here is linearizable. Raises ``LocalProtocolError``."""
        if self.engine is None or self.halted:
            raise LocalProtocolError(
                "this node has no voice in its ledger, so no quorum answers it",
                hint="ask a node that has a seat, or read what is final here",
            )
        self.run(turn, Read(self.barriers.begin(request, self.epoch.number)))

    def leave(self, turn: Turn) -> None:
        """The node stops soon: if it leads, somebody else shall."""
        self.run(turn, Leave())

    @property
    def is_leaving(self) -> bool:
        """Whether it still hands over what it leads."""
        return self.engine is not None and self.engine.status().get("hands_to", -1) != -1

    # --- decided blocks ---------------------------------------------------------------------

    def _decide(self, turn: Turn, block: Block, certificate: Certificate | None) -> None:
        """Apply what the engine decided, in this very commit.

        The engine has moved on and will delete its votes up to there: a block that were not
        kept now would be voted on again after a restart. Raises ``InvariantError``.
        """
        self._deciding.append(StoredBlock(block=block, certificate=certificate))
        if certificate is None:
            return  # proven by the next one
        run, self._deciding = self._deciding, []
        for place, stored in enumerate(run):
            if self._ended:
                return  # tails, which the seal has with it
            height = stored.block.header.height
            if height <= self.chain.height:
                continue
            if self.chain.check(stored.block) is not Check.VALID:
                raise InvariantError(f"block {height} is decided and does not apply")
            self._apply(turn, with_tail(stored, run[place + 1 :]))

    def take(self, turn: Turn, stored: StoredBlock) -> None:
        """A block that is proven final: apply it now, or when its bodies are here."""
        if len(self._waiting) < WAITING_BLOCKS_MAX:
            self._waiting.append(stored)
        self.advance(turn)

    def advance(self, turn: Turn) -> None:
        """Apply waiting blocks as far as their bodies are here."""
        while run := self._proven_run(turn):
            for stored in run:
                self._apply(turn, stored)

    def _proven_run(self, turn: Turn) -> list[StoredBlock]:
        """The next waiting blocks, checked, up to one with a certificate; empty if none are.

        They become final together: an ancestor applied alone would be final on a disk that
        does not hold its proof.
        """
        waiting, height = self._waiting, self.chain.height
        while waiting and waiting[0].block.header.height <= height:
            waiting.popleft()
        run: list[StoredBlock] = []
        for stored in self._next_blocks():
            header = stored.block.header
            if header.height <= height:
                continue  # said twice
            if header.height > height + 1:
                waiting.clear()  # a gap: sync asks again from the height reached
                return []
            verdict = self.chain.check(stored.block)
            if verdict is Check.INVALID:
                self.halt(turn, f"certified block {header.height} is invalid")
            if verdict is not Check.VALID:
                return []
            height, run = height + 1, [*run, stored]
            if stored.certificate is not None:
                return run
        return []

    def _next_blocks(self) -> Iterator[StoredBlock]:
        """What may be applied next: what was carried before, then what has come since."""
        if self.halted:
            return
        for height in range(self.chain.height + 1, self._carried + 1):
            if (stored := self.chain.block_at(height)) is not None:  # they have no holes
                yield stored
        yield from self._waiting

    def _apply(self, turn: Turn, stored: StoredBlock) -> None:
        certificate = stored.certificate
        decided = self.chain.decide(stored.block, certificate, stored.tail)
        turn.staged = True
        turn.work = True
        self._ended = decided.next_epoch is not None
        self._on_decided(turn, decided)
        if self._ended:
            if not self._stepping:
                self._hand_over(turn)
            return
        self._unproven.append(stored.block.header)
        if certificate is not None:
            headers, self._unproven = self._unproven, []
            for header in headers:  # an ancestor is proven by its descendant's certificate
                self.run(turn, Certified(header, certificate))

    # --- from epoch to epoch ------------------------------------------------------------------

    def _hand_over(self, turn: Turn) -> None:
        """The seal is applied: give this epoch's engine up, start the next one's when durable."""
        decided_here, old = self._stepping, self.epoch
        forget_rows(self._world.disk, old)
        if self.seat is not None:
            self._vote_keys.forget(old.validators[self.seat].vote_key)
        self.engine, self._ended, self._deciding, self._unproven = None, False, [], []
        self._events.clear()
        self.barriers.give_up(turn)
        self.epoch = epoch = self.chain.epoch
        self.seat = epoch.index_of(self._me)
        self.chain.seat = self.seat or 0

        def then(later: Turn) -> None:
            if self.epoch is epoch and self.engine is None and not self.halted:
                self._start_engine(later.now)
                later.work = True
            self._on_epoch(later, old, decided_here)

        turn.when_durable(then)

    def retire(self) -> None:
        """This node moved to the ledger's successor."""
        self.halted, self.engine = SUCCEEDED, None

    def halt(self, turn: Turn, reason: str) -> None:
        """Stop this ledger for good: what follows needs people."""
        self.halted = reason
        turn.notify(events.Halted(self.ledger, reason))

    def work(self, turn: Turn) -> None:
        """Logs grew, or others hold more: there may be something to order."""
        self.advance(turn)
        self.run(turn, Work())
