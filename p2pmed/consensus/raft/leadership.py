"""What a leader does: begin with an empty entry, replicate, count, propose, step down.

Rules:

* the first entry of a leader carries no block; entries are committed by counting only if
  they are of the leader's own term (Raft, 5.4.2 and 8);
* the leader's own copy counts from its own flush, while followers write in parallel;
* a block is built upon the last block of the log once the application called that one
  ``VALID``, at most ``BLOCKS_IN_FLIGHT_MAX`` ahead of the last decided: at once when idle,
  and by itself in larger batches the longer deciding takes;
* a leader that did not hear a quorum for an election timeout is no leader (CheckQuorum);
* a leader that cannot go on hands over (``handover.py``).
"""

from __future__ import annotations

from p2pmed.consensus.interface import Block, Check, Header
from p2pmed.consensus.raft.bounds import (
    BLOCKS_AT_ONCE_MAX,
    BLOCKS_IN_FLIGHT_MAX,
    ELECTION_BEATS_MIN,
    ENTRY_RAW_BYTES_MAX,
    HEARTBEAT_MS,
    IDLE_AFTER_MS,
    IDLE_HEARTBEAT_MS,
    UNDECIDED_BYTES_MAX,
)
from p2pmed.consensus.raft.handover import HandOver
from p2pmed.consensus.raft.log import Slot, make_slot
from p2pmed.consensus.raft.messages import Appended, CertificateKnown, Mismatch
from p2pmed.consensus.raft.progress import Pace, Progress
from p2pmed.consensus.raft.replica import Replica, Role
from p2pmed.consensus.raft.sending import Sending
from p2pmed.engine import Instant, earliest

__all__ = ["Leadership", "certificate_message"]


class Leadership:
    """One term of one leader."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        r = replica
        r.role = Role.LEADER
        r.leader = r.seat
        r.beat_ms = HEARTBEAT_MS
        r.election_at = None
        self.progress = {
            seat: Progress(next=r.log.last_index + 1, heard_at=r.now) for seat in r.peers
        }
        self.hand_over = HandOver(replica, self.progress)
        self._sending = Sending(replica)
        self.eager = True
        """Whether asking the application for a block may be worth it."""
        self._barren = False
        """Asked with nothing on the way, the application gave nothing though something waits."""
        self._busy_at = r.now
        self.beat_at: Instant | None = Instant(r.now + HEARTBEAT_MS) if r.peers else None
        self.quorum_at: Instant | None = None
        self._checked_at = r.now
        self._arm_quorum()
        r.append(make_slot(r.log.last_index + 1, r.term, None))

    @property
    def deadline(self) -> Instant | None:
        """When a leader has something to do by itself."""
        return earliest(self.beat_at, self.quorum_at, self.hand_over.deadline)

    # --- time -----------------------------------------------------------------------------

    def heard(self, seat: int) -> None:
        """The member in ``seat`` is there."""
        self.progress[seat].heard_at = self._replica.now

    def beat(self) -> None:
        """Send heartbeats; go to the slow beat when nothing happens."""
        r = self._replica
        if self._is_busy():
            self._busy_at = r.now
        idle = r.now >= self._busy_at + IDLE_AFTER_MS
        if idle and r.beat_ms != IDLE_HEARTBEAT_MS:
            r.beat_ms = IDLE_HEARTBEAT_MS
            self._arm_quorum()  # counted in beats, which are longer from now on
        elif not idle:
            r.beat_ms = HEARTBEAT_MS
        self.beat_at = Instant(r.now + r.beat_ms)
        self.eager = True
        for seat, progress in self.progress.items():
            self._sending.heartbeat(seat, progress, idle=idle)

    def wake(self) -> None:
        """There is work: beat fast again."""
        r = self._replica
        self.eager = True
        self._busy_at = r.now
        if r.beat_ms != HEARTBEAT_MS and self.beat_at is not None:
            r.beat_ms = HEARTBEAT_MS
            self.beat_at = r.now
            self._arm_quorum()

    def _is_busy(self) -> bool:
        r = self._replica
        last = r.log.last_block
        if last is not None and last.block and last.block.header.height > r.finality.height:
            return True
        # The same window at either beat: one that grew with the slow beat would find a lost
        # follower again that the fast one had just given up, and the leader would go to and fro.
        heard = r.now - IDLE_AFTER_MS
        return any(
            p.heard_at >= heard and (p.match < r.log.last_index or p.decided < r.finality.height)
            for p in self.progress.values()
        )

    def _arm_quorum(self) -> None:
        r = self._replica
        if r.peers:
            self.quorum_at = Instant(r.now + ELECTION_BEATS_MIN * r.beat_ms)

    def check_quorum(self) -> bool:
        """Whether a quorum was heard since the last check; else this is no leader."""
        r = self._replica
        heard = 1 + sum(p.heard_at >= self._checked_at for p in self.progress.values())
        self._checked_at = r.now
        self._arm_quorum()
        return heard >= r.epoch.quorum

    # --- answers --------------------------------------------------------------------------

    def on_appended(self, message: Appended, seat: int) -> None:
        """A follower has entries on its disk."""
        r = self._replica
        if message.match > r.log.last_index:
            r.refused += 1
            return
        progress = self.progress[seat]
        progress.decided = max(progress.decided, message.decided)
        # Below our floor there is nothing to stream from: the floor is told at heartbeats,
        # or two cores answer each other without a pause while one of them flushes.
        if progress.pace is not Pace.FLOOR or message.match >= r.log.floor.index:
            progress.confirmed(message.match)
        r.finality.count(r.log, seat, message.attests)

    def tell_certificate(self, seat: int) -> None:
        """Say the tip's certificate again to a follower that has the block and not it."""
        r = self._replica
        slot, known = r.log.at_height(r.finality.height), certificate_message(r)
        if known is not None and slot is not None and self.progress[seat].match >= slot.index:
            r.send(seat, known)

    def on_mismatch(self, message: Mismatch, seat: int) -> None:
        """A follower's log differs: go back to where both may agree (Raft, 5.3)."""
        r = self._replica
        index, _ = r.log.at_or_below(message.hint_index, message.hint_term)
        if message.hint_index < r.log.floor.index:
            index = message.hint_index
        self.progress[seat].mismatched(message.prev_index, index + 1)

    # --- every step -----------------------------------------------------------------------

    def settle(self) -> None:
        """Propose, send, hand over."""
        if self.hand_over.give_up():
            self.eager = True
        self.propose()
        self.hand_over.notice(self._is_stuck())
        self.hand_over.settle()
        for seat, progress in self.progress.items():
            self._sending.appends(seat, progress)
        self._sending.clear()

    def count(self) -> None:
        """Commit what a quorum has on disk, if it is of this term (Raft, 5.4.2)."""
        r = self._replica
        matches = sorted([r.durable, *(p.match for p in self.progress.values())], reverse=True)
        index = matches[r.epoch.quorum - 1]
        if index <= r.commit or r.log.term_at(index) != r.term:
            return
        before = r.commit
        r.commit_to(index)
        inherited = r.log.slot(before + 1)
        if inherited is not None and inherited.term != r.term:
            # Members attest blocks of older terms only when they know them committed.
            self.beat_at = r.now if r.peers else None

    def propose(self) -> None:
        """Build the next blocks, if there is anything to order and room for them."""
        r = self._replica
        while self.eager and self.hand_over.target is None:
            last = r.log.last_block
            height = last.block.header.height if last and last.block else r.finality.height
            if not self._has_room(last, height) or not r.application.pending():
                self._barren = False
                return
            block = self._build(r.finality.tip_digest if last is None else last.digest)
            if block is None or not self._put(block):
                self.eager = False
                self._barren = height == r.finality.height
                return
            self._barren = False
            self.wake()

    def _has_room(self, last: Slot | None, height: int) -> bool:
        """Whether another block may be put upon the last one of the log."""
        r = self._replica
        ahead = height - r.finality.height
        if ahead < 0 or r.finality.checked < height or ahead >= BLOCKS_IN_FLIGHT_MAX:
            return False  # our log is behind what is decided, or not understood, or far ahead
        if last is None:
            return r.log.floor.height == height
        if ahead < BLOCKS_AT_ONCE_MAX:
            return True
        return r.durable == r.log.last_index and r.undecided_bytes < UNDECIDED_BYTES_MAX

    def _is_stuck(self) -> bool:
        """Whether our own application keeps this leader from going on."""
        r = self._replica
        return self._barren or (
            r.finality.is_stalled and r.log.at_height(r.finality.checked + 1) is not None
        )

    def _put(self, block: Block) -> bool:
        """Whether ``block`` may be sent: an own block that fails its check reaches no log."""
        r = self._replica
        slot = make_slot(r.log.last_index + 1, r.term, block)
        if len(slot.raw) > ENTRY_RAW_BYTES_MAX or r.application.check(block) is not Check.VALID:
            return False
        r.append(slot)
        r.finality.note(block, slot.digest, Check.VALID)
        return True

    def _build(self, parent: bytes) -> Block | None:
        r = self._replica
        content = r.application.build(parent, r.term)
        if content is None:
            return None
        last = r.log.last_block
        before = r.finality.tip if last is None or last.block is None else last.block.header
        header = Header(
            version=1,
            ledger=r.epoch.ledger,
            epoch=r.epoch.number,
            view=r.term,
            height=1 if before is None else before.height + 1,
            parent=parent,
            parent_view=0 if before is None else before.view,
            proposer=r.seat,
            content=content.hash,
        )
        return Block(header=header, content=content.data)


def certificate_message(r: Replica) -> CertificateKnown | None:
    """What proves the tip, if it was decided in this epoch."""
    tip, certificate = r.finality.tip, r.finality.tip_certificate
    if tip is None or certificate is None or tip.epoch != r.epoch.number:
        return None
    return CertificateKnown(mesh=r.mesh, height=tip.height, certificate=certificate)
