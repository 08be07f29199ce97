"""What one member knows, shared by the modules that act on it.

Rules: ``term`` never falls; ``commit`` never falls; ``durable`` falls only with a cut of
entries that were not committed; whoever changes ``term`` or ``voted_for`` stages them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from p2pmed.consensus.interface import (
    Application,
    Behind,
    Broadcast,
    SendTo,
    Signer,
)
from p2pmed.consensus.raft import messages
from p2pmed.consensus.raft.bounds import (
    BEHIND_MS,
    ELECTION_BEATS_MAX,
    ELECTION_BEATS_MIN,
    HEARTBEAT_MS,
    IDLE_HEARTBEAT_MS,
    LOG_KEEP_BYTES,
    LOG_KEEP_ENTRIES,
    PATIENCE_MS,
)
from p2pmed.consensus.raft.desk import Desk
from p2pmed.consensus.raft.finality import Finality
from p2pmed.consensus.raft.log import FloorRow, Log, Slot
from p2pmed.consensus.raft.messages import Message
from p2pmed.consensus.raft.rows import (
    BallotRow,
    Memory,
    ballot_key,
    entry_key,
    floor_key,
    lost_key,
)
from p2pmed.engine import Instant, Rng, earliest
from p2pmed.quorum.certificate import Certificate, Epoch
from p2pmed.wire import codec

__all__ = ["Handler", "Replica", "Role"]

Handler: TypeAlias = Callable[[Any, int], None]
"""Takes a message of one kind, and the seat it came from."""


class Role(Enum):
    """Raft, figure 4, with the pre-vote before it."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Replica:
    """One member's term, vote, log and finality, and its voice."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: Signer,
        application: Application,
        rng: Rng,
        memory: Memory,
        finality: Finality,
        now: Instant,
    ) -> None:
        self.epoch = epoch
        self.seat = seat
        self.peers = tuple(s for s in range(len(epoch.validators)) if s != seat)
        self.mesh = messages.mesh_tag(epoch)
        self.signer = signer
        self.application = application
        self.rng = rng
        self.finality = finality
        self.desk = Desk()
        self.now = now
        self.term = memory.ballot.term
        self.voted_for = memory.ballot.voted_for
        self.role = Role.FOLLOWER
        self.leader: int | None = None
        self.log = self._restore(memory)
        self.durable = self.log.last_index
        """Index up to which our own entries are on the disk."""
        self.commit = self.log.floor.index
        self.beat_ms = HEARTBEAT_MS
        """The leader's present heartbeat."""
        self.loyal_until = now
        """Until then nobody else gets our vote."""
        self.election_at: Instant | None = None
        self.decided_at_leader = 0
        self.patience_ms = PATIENCE_MS
        """How long a leader that cannot go on waits before it hands over."""
        self.lost = memory.lost
        """This member has forgotten promises: it has no voice any more in this epoch."""
        self.refused = 0
        self._behind: tuple[int, int] | None = None
        self._note_decided()
        if finality.tip is not None and finality.tip_certificate is not None:
            self.suspect(finality.tip.height, finality.tip_digest, finality.tip_certificate)
        for key in memory.stale:
            self.desk.stage(key, None)

    def _restore(self, memory: Memory) -> Log:
        tip = self.finality.tip
        height = 0 if tip is None or tip.epoch == self.epoch.number else tip.height
        base = FloorRow(version=1, index=0, term=0, height=height, digest=b"")
        log = Log(memory.floor or base)
        for slot in memory.slots:
            log.append(slot)
        return log

    # --- voice --------------------------------------------------------------------------

    def send(self, seat: int, message: Message) -> None:
        """Say what promises nothing."""
        self.desk.send(seat, messages.encode(message))

    def broadcast(self, message: Message) -> None:
        """Say to all others what promises nothing."""
        if self.peers:
            self.desk.broadcast(messages.encode(message))

    def promise(self, seat: int, message: Message) -> None:
        """Say it once all that was staged is durable."""
        self.desk.promise(SendTo(seat=seat, message=messages.encode(message)))

    def promise_all(self, message: Message) -> None:
        """Say it to all others once all that was staged is durable."""
        if self.peers:
            self.desk.promise(Broadcast(message=messages.encode(message)))

    # --- term, vote, role ---------------------------------------------------------------

    def adopt(self, term: int, voted_for: int | None) -> None:
        """Take a term and a vote, and stage them (Raft, 5.2: on stable storage)."""
        assert term > self.term or (term == self.term and self.voted_for in (None, voted_for))
        self.term, self.voted_for = term, voted_for
        row = BallotRow(version=1, term=term, voted_for=voted_for)
        self.desk.stage_ballot(ballot_key(self.epoch.number), codec.encode(row))

    def follow(self, term: int, leader: int | None) -> None:
        """Be a follower in ``term``, which is not below ours (Raft, 5.1)."""
        if term > self.term:
            self.adopt(term, None)
        if self.role is not Role.FOLLOWER or self.election_at is None:
            self.role = Role.FOLLOWER
            self.arm_election()
        if leader != self.leader:
            self.leader = leader
            self.decided_at_leader = 0

    def hear_leader(self, *, idle: bool) -> None:
        """The leader spoke: be loyal for as long as no election may begin."""
        self.beat_ms = IDLE_HEARTBEAT_MS if idle else HEARTBEAT_MS
        self.loyal_until = Instant(self.now + ELECTION_BEATS_MIN * self.beat_ms)
        self.arm_election()

    def arm_election(self) -> None:
        """Draw a new election timeout (Raft, 5.2)."""
        beats_ms = self.rng.randint(
            ELECTION_BEATS_MIN * self.beat_ms, ELECTION_BEATS_MAX * self.beat_ms
        )
        self.election_at = Instant(self.now + beats_ms)

    def wake(self) -> None:
        """There is work: an idle leader's long silence is no longer acceptable."""
        if self.beat_ms == HEARTBEAT_MS or self.role is Role.LEADER:
            return
        self.beat_ms = HEARTBEAT_MS
        loyal = Instant(self.now + ELECTION_BEATS_MIN * HEARTBEAT_MS)
        self.loyal_until = min(self.loyal_until, loyal)
        before = self.election_at
        self.arm_election()
        self.election_at = earliest(before, self.election_at)

    # --- log ----------------------------------------------------------------------------

    def append(self, slot: Slot) -> None:
        """Put an entry at the end of the log, and stage it."""
        self.log.append(slot)
        key = entry_key(self.epoch.number, slot.index)
        self.desk.stage_entry(key, slot.raw, slot.index, slot.term)
        self.finality.retry()

    def cut(self, index: int) -> None:
        """Drop uncommitted entries from ``index`` up, on disk too."""
        assert index > self.commit
        heights = [
            slot.block.header.height
            for i in range(index, self.log.last_index + 1)
            if (slot := self.log.slot(i)) is not None and slot.block is not None
        ]
        for i in range(index, self.log.last_index + 1):
            self.desk.stage(entry_key(self.epoch.number, i), None)
        self.log.cut(index)
        self.durable = min(self.durable, index - 1)
        if heights:
            self.finality.cut(heights[0])

    def commit_to(self, index: int) -> None:
        """Entries up to ``index`` are committed."""
        self.commit = max(self.commit, min(index, self.log.last_index))

    @property
    def undecided_bytes(self) -> int:
        """Size of the entries above the last decided block."""
        height, size = self.finality.height + 1, 0
        while (slot := self.log.at_height(height)) is not None:
            height, size = height + 1, size + len(slot.raw)
        return size

    @property
    def committed_height(self) -> int:
        """Height of the last block that is known committed."""
        for index in range(self.commit, self.log.floor.index, -1):
            slot = self.log.slot(index)
            if slot is not None and slot.block is not None:
                return max(slot.block.header.height, self.finality.height)
        return max(self.log.floor.height, self.finality.height)

    def stand_on(self, floor: FloorRow) -> None:
        """Drop the whole log for a floor that the leader named and we have decided."""
        for i in range(self.log.floor.index + 1, self.log.last_index + 1):
            self.desk.stage(entry_key(self.epoch.number, i), None)
        self.log.reset(floor)
        self.finality.cut(self.finality.height + 1)
        # The row must be durable before anything is said of it; nothing else is in the log.
        key = floor_key(self.epoch.number)
        self.desk.stage_entry(key, codec.encode(floor), floor.index, floor.term)
        self.durable = 0  # until that flush
        self.commit = max(self.commit, floor.index)

    def compact(self) -> None:
        """Drop old decided entries, with the next flush that happens anyway."""
        log = self.log
        excess = len(log) - LOG_KEEP_ENTRIES
        if not self.desk.dirty or (excess < LOG_KEEP_ENTRIES and log.bytes < 2 * LOG_KEEP_BYTES):
            return
        target = log.floor.index
        kept = log.bytes
        for index in range(log.floor.index + 1, min(self.commit, self.durable) + 1):
            slot = log.slot(index)
            assert slot is not None
            late = slot.block is not None and slot.block.header.height > self.finality.height
            if late or (log.last_index - index < LOG_KEEP_ENTRIES and kept <= LOG_KEEP_BYTES):
                break
            kept -= len(slot.raw)
            target = index
        if target == log.floor.index:
            return
        for index in range(log.floor.index + 1, target + 1):
            self.desk.stage(entry_key(self.epoch.number, index), None)
        log.raise_floor(target)
        self.desk.stage(floor_key(self.epoch.number), codec.encode(log.floor))

    def flushed(self, index: int, term: int) -> None:
        """Entries up to ``index`` are on the disk, if the log still has that entry."""
        if index > self.durable and self.log.term_at(index) == term:
            self.durable = index

    # --- decided elsewhere --------------------------------------------------------------

    def behind(self, height: int, seat: int | None) -> None:
        """Ask for blocks; the same question not more often than ``BEHIND_MS``."""
        if self._behind is not None:
            asked, at = self._behind
            if asked >= height and self.now < at + BEHIND_MS:
                return
        self._behind = (height, self.now)
        self.desk.behind(Behind(height=height, seat=seat))

    def moved(self) -> None:
        """The tip moved by ``Certified``: what the log holds of it is committed."""
        self._note_decided()

    def suspect(self, height: int, digest: bytes, certificate: Certificate) -> None:
        """Look for our own signature on a block that our log should hold and does not.

        We sign a block while our durable term is at least its own. If that term is ours
        still, nobody but its only leader has touched our log since, and it takes nothing back;
        if our term is lower, the disk has forgotten it. Either way a vote may be forgotten as
        well. From now on none is given; and nothing is answered or signed, since a leader that
        our forgotten vote replaced would count it.
        """
        ours = certificate.epoch == self.epoch.number and certificate.signers >> self.seat & 1
        if not ours or certificate.view < self.term or height <= self.log.floor.height:
            return
        slot = self.log.at_height(height)
        if slot is not None and slot.digest == digest:
            return
        if not self.lost:
            self.lost = True
            self.desk.stage(lost_key(self.epoch.number), b"\x01")
            if self.role is not Role.FOLLOWER:
                self.follow(self.term, None)

    def _note_decided(self) -> None:
        slot = self.log.at_height(self.finality.height)
        if slot is not None and slot.digest == self.finality.tip_digest:
            self.commit_to(slot.index)
