"""What a follower does with a leader's entries (Raft, 5.3), and with its floor.

Rules:

* a message of the leader is judged whole: entries that do not fit (a term that falls, a
  header of another term, a block that does not name the one before it) refuse it, and
  count in ``Replica.refused``; nothing asserts on them;
* an answer names only what is durable;
* a follower that the leader's log no longer reaches says ``Behind`` and takes the leader's
  floor as its own once its decided height is at least the floor's (Raft, 7, with blocks
  fetched and checked elsewhere in place of a snapshot).
"""

from __future__ import annotations

from p2pmed.consensus.interface import Header
from p2pmed.consensus.raft.bounds import BEHIND_MS, LOG_BYTES_MAX, LOG_ENTRIES_MAX
from p2pmed.consensus.raft.log import FloorRow, Slot, open_slot
from p2pmed.consensus.raft.messages import Append, Floor, Mismatch
from p2pmed.consensus.raft.replica import Replica, Role
from p2pmed.engine import Instant
from p2pmed.errors import DecodeError

__all__ = ["Following"]


class Following:
    """The follower's half of replication."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._floor: Floor | None = None
        """What the leader offered and our decided height does not reach yet."""
        self._lagging_since: tuple[int, Instant] | None = None
        """Decided height, and since when it stands below the leader's."""
        self.answer: int | None = None
        """Index to confirm to the leader at the end of this step."""
        self.answers_heartbeat = False
        """Whether the answer should repeat what may have been lost."""

    def on_append(self, message: Append, seat: int) -> None:
        """Take entries after a place where both logs agree."""
        r = self._replica
        if not self._accept_leader(message, seat, idle=message.idle):
            return
        r.decided_at_leader = max(r.decided_at_leader, message.decided)
        if r.lost:  # it may have voted in a later term: an answer in this one could be a lie
            self._notice_lag(message.decided, seat)
            return
        self._floor = None
        start = message.prev_index + 1
        entries = message.entries
        if message.prev_index < r.log.floor.index:
            # What our floor stands for is committed, so it is in the leader's log as well.
            entries = entries[r.log.floor.index - message.prev_index :]
            start = r.log.floor.index + 1
        elif r.log.term_at(message.prev_index) != message.prev_term:
            hint, hint_term = r.log.at_or_below(message.prev_index - 1, message.prev_term)
            r.send(
                seat,
                Mismatch(
                    mesh=r.mesh,
                    term=r.term,
                    prev_index=message.prev_index,
                    hint_index=hint,
                    hint_term=hint_term,
                ),
            )
            return
        slots = self._open(start, entries)
        if slots is None:
            r.refused += 1
            return
        matched = self._take(slots, start - 1 + len(entries))
        r.commit_to(min(message.commit, matched))
        if r.desk.dirty and r.log.last_index > r.durable:
            r.desk.answer_when_durable(matched, r.term)
        else:
            self.answer = matched
            self.answers_heartbeat = not message.entries
        self._notice_lag(message.decided, seat)

    def _notice_lag(self, decided: int, seat: int) -> None:
        """Ask for blocks when the log does not lead to them: no bodies, or no certificate."""
        r = self._replica
        if r.finality.height >= decided:
            self._lagging_since = None
        elif self._lagging_since is None or self._lagging_since[0] != r.finality.height:
            self._lagging_since = (r.finality.height, r.now)  # it moves, as far as we know
        elif r.now >= self._lagging_since[1] + BEHIND_MS:
            r.behind(decided, seat)

    def _accept_leader(self, message: Append | Floor, seat: int, *, idle: bool) -> bool:
        r = self._replica
        other = r.leader is not None and r.leader != seat
        if r.role is Role.LEADER or other:
            r.refused += 1  # two leaders in one term: not in a crash-only mesh
            return False
        r.follow(message.term, seat)
        r.hear_leader(idle=idle)
        return True

    def _open(self, start: int, entries: tuple[bytes, ...]) -> list[Slot] | None:
        """The entries that we lack, each fitting the one before; ``None`` if one does not."""
        r = self._replica
        slots: list[Slot] = []
        term = r.log.term_at(start - 1)
        before: Header | None = None
        digest = b""
        for offset, raw in enumerate(entries):
            index = start + offset
            known = r.log.slot(index) if not slots else None
            try:
                slot = known if known and known.raw == raw else open_slot(index, raw)
            except DecodeError:
                return None
            if term is None or not term <= slot.term <= r.term:
                return None
            if slot is not known:
                if not slots:
                    before, digest = self._block_before(index)
                if not self._fits(slot, before, digest):
                    return None
                if index <= r.commit:
                    return None  # it would undo what is committed
                slots.append(slot)
            if slot.block is not None:
                before, digest = slot.block.header, slot.digest
            term = slot.term
        return slots

    def _block_before(self, index: int) -> tuple[Header | None, bytes]:
        log = self._replica.log
        for i in range(index - 1, log.floor.index, -1):
            slot = log.slot(i)
            if slot is not None and slot.block is not None:
                return slot.block.header, slot.digest
        return None, b""

    def _fits(self, slot: Slot, before: Header | None, digest: bytes) -> bool:
        r = self._replica
        if slot.block is None:
            return True
        header = slot.block.header
        if (
            header.ledger != r.epoch.ledger
            or header.epoch != r.epoch.number
            or header.view != slot.term
            or header.proposer >= len(r.epoch.validators)
            or header.height == 0
        ):
            return False
        if before is None:
            floor = r.log.floor
            if not floor.digest:
                return True  # a newcomer does not know what its log stands on
            return header.height == floor.height + 1 and header.parent == floor.digest
        return header.height == before.height + 1 and header.parent == digest

    def _take(self, slots: list[Slot], matched: int) -> int:
        """Append ``slots``, cutting what contradicts them; the last index that matches."""
        r = self._replica
        if not slots:
            return matched
        if slots[0].index <= r.log.last_index:
            r.cut(slots[0].index)
        for slot in slots:
            if len(r.log) >= LOG_ENTRIES_MAX or r.log.bytes + len(slot.raw) > LOG_BYTES_MAX:
                break
            r.append(slot)
        return r.log.last_index

    def on_floor(self, message: Floor, seat: int) -> None:
        """The leader's log does not reach down to ours."""
        r = self._replica
        if not self._accept_leader(message, seat, idle=False):
            return
        r.decided_at_leader = max(r.decided_at_leader, message.decided)
        if not r.lost:
            self._floor = message
            self.settle_floor()
            if self._floor is None:
                return
        r.behind(max(message.decided, message.height), seat)

    def settle_floor(self) -> None:
        """Stand on the leader's floor if our decided height reaches it by now."""
        r = self._replica
        offer = self._floor
        if offer is None or offer.term != r.term or r.finality.height < offer.height:
            return
        same_height = offer.digest and r.finality.height == offer.height
        if same_height and r.finality.tip_digest != offer.digest:
            r.refused += 1
            self._floor = None
            return
        self._floor = None
        if r.log.floor.index >= offer.index:
            if r.durable >= r.log.floor.index:  # else the flush will answer
                self.answer = r.log.floor.index
        elif r.log.term_at(offer.index) == offer.index_term:
            r.commit_to(offer.index)
            self.answer = offer.index
        else:
            r.stand_on(
                FloorRow(
                    version=1,
                    index=offer.index,
                    term=offer.index_term,
                    height=offer.height,
                    digest=offer.digest,
                )
            )
            r.desk.answer_when_durable(offer.index, r.term)
