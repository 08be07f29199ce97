"""What Raft must keep besides, read off the wire and the disks (Raft, figure 3).

* *one vote*: one candidate per seat and term, in all lives; durable when it is said;
* *election safety* (5.2): one leader per term;
* *log matching* (5.3): one entry, and one entry before it, for each (index, term);
* *leader completeness* (5.4): who leads a new term holds all that was committed;
* *state machine safety* (5.4.3): one committed entry per index, among all members, for ever;
* *disk before wire*: what is acknowledged is on the disk;
* *quorum of disks*: a block is decided first when a majority has it on the disk.

The oracle keeps its own copy of each member's log, from the rows that were stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cbor2

from p2pmed.consensus.interface import Block, Record
from p2pmed.testing.core.oracle import Oracle, name_of, read_message
from p2pmed.testing.core.world import Violation

if TYPE_CHECKING:
    from p2pmed.testing.core.member import Member

__all__ = ["RaftOracle"]

_HEAD = 14
"""Of a key: ``raft/``, the epoch (8), the kind (1); an entry's index follows (8)."""
BALLOT, FLOOR, ENTRY = 1, 2, 3
"""Kinds of row (``docs/protocols/raft.md``, part 3)."""


class Kept(NamedTuple):
    """An entry as it is stored."""

    term: int
    raw: bytes
    block: bytes
    """Digest of its block's header; empty without a block."""


class RaftOracle(Oracle):
    """Books on votes, leaders, logs and commit indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.leaders: dict[int, int] = {}
        """Term -> seat, ever."""
        self.committed: dict[int, Kept] = {}
        """Index -> entry, as the first member that knew it committed held it."""
        self._committed_in: dict[int, int] = {}
        """Index -> term of the member that first knew it committed."""
        self._ballots: dict[tuple[int, int], int] = {}
        self._entries: dict[tuple[int, int], bytes] = {}
        self._before: dict[tuple[int, int], int] = {}
        self._read: dict[bytes, Kept] = {}
        self._logs: dict[int, dict[int, Kept]] = {}
        self._lives: dict[int, int] = {}
        self._marks: dict[int, tuple[int, int, int]] = {}
        """Place -> life, term and commit index."""

    # --- the wire -------------------------------------------------------------------------

    def on_send(self, member: Member, seat: int | None, message: bytes) -> None:
        """Votes, leaders and logs, as they are said."""
        said = read_message(message)
        if said is None or member.forgot:
            return
        match said[0]:
            case 3:
                self._vote(member, said[2], member.seat)
            case 4 if said[3] and seat is not None:
                self._vote(member, said[2], seat)
            case 5:
                self._leads(member, said[2])
                entries = next((part for part in said if isinstance(part, list)), [])
                self._log_matches(said[3], said[4], entries)
            case 6:
                self._is_kept(member, said[3])
            case 11:
                self._leads(member, said[2])

    def _vote(self, member: Member, term: int, candidate: int) -> None:
        if self._ballots.setdefault((member.seat, term), candidate) != candidate:
            raise Violation(f"one vote: seat {member.seat} voted twice in term {term}")
        row = next((v for k, v in member.disk.rows.items() if k[_HEAD - 1 :] == b"\x01"), None)
        kept_term, kept_vote = cbor2.loads(row)[1:3] if row is not None else (0, None)
        if kept_term < term or (kept_term == term and kept_vote != candidate):
            raise Violation(f"disk before wire: a vote of seat {member.seat} in term {term}")

    def _leads(self, member: Member, term: int) -> None:
        known = self.leaders.get(term)
        if known == member.seat:
            return
        if known is not None:
            raise Violation(f"election safety: seats {known} and {member.seat} lead term {term}")
        self.leaders[term] = member.seat
        log = self._log(member)
        first = min(log, default=0)
        for index, entry in self.committed.items():
            held = log.get(index)
            if self._committed_in[index] >= term:
                continue  # it leads late: others were elected, and committed, since
            if held is None and (index < first or not log) and index <= self._floor(member):
                continue
            if held is None or held.raw != entry.raw:
                raise Violation(f"leader completeness: term {term} lacks committed entry {index}")

    def _log_matches(self, prev_index: int, prev_term: int, entries: Sequence[bytes]) -> None:
        for offset, raw in enumerate(entries):
            index, term = prev_index + 1 + offset, self._entry(raw).term
            if self._entries.setdefault((index, term), raw) != raw:
                raise Violation(f"log matching: two entries at index {index} of term {term}")
            if self._before.setdefault((index, term), prev_term) != prev_term:
                raise Violation(f"log matching: two logs below index {index} of term {term}")
            prev_term = term

    def _is_kept(self, member: Member, match: int) -> None:
        if not match:
            return
        end = match.to_bytes(8, "big")
        if any(k[-8:] == end and k[_HEAD - 1] == ENTRY for k in member.disk.rows):
            return
        if match > self._floor(member):
            raise Violation(f"disk before wire: seat {member.seat} acknowledged index {match}")

    # --- the disk -------------------------------------------------------------------------

    def on_store(self, member: Member, records: Sequence[Record]) -> None:
        """Keep our copy of its log."""
        self._apply(self._log(member), records)

    def _apply(self, log: dict[int, Kept], records: Sequence[Record]) -> None:
        for record in records:
            if len(record.key) != _HEAD + 8 or record.key[_HEAD - 1] != ENTRY:
                continue
            index = int.from_bytes(record.key[-8:], "big")
            if record.value is None:
                log.pop(index, None)
            else:
                log[index] = self._entry(record.value)

    def _log(self, member: Member) -> dict[int, Kept]:
        if self._lives.get(member.place) != member.life:
            self._lives[member.place] = member.life
            log = self._logs[member.place] = {}
            self._apply(log, [Record(k, v) for k, v in member.disk.rows.items()])
        return self._logs[member.place]

    def _floor(self, member: Member) -> int:
        row = next((v for k, v in member.disk.rows.items() if k[_HEAD - 1 :] == b"\x02"), None)
        staged = [
            r.value
            for r in member.disk.staged
            if isinstance(r, Record) and r.key[_HEAD - 1 :] == b"\x02" and r.value is not None
        ]
        found = [*staged[-1:], *([] if row is None else [row])]
        return max((int(cbor2.loads(raw)[1]) for raw in found), default=0)

    def _entry(self, raw: bytes) -> Kept:
        known = self._read.get(raw)
        if known is None:
            fields: list[Any] = cbor2.loads(raw)
            block = b"" if fields[2] is None else name_of(fields[2][0])
            known = self._read[raw] = Kept(fields[1], raw, block)
        return known

    # --- every step -----------------------------------------------------------------------

    def on_step(self, member: Member) -> None:
        """Terms and commit indexes rise; what is committed is one entry per index."""
        if member.engine is None or not member.honest:
            return
        super().on_step(member)
        status = member.engine.status()
        term, commit = int(status["term"]), int(status["commit"])
        life, last_term, last_commit = self._marks.get(member.place, (0, 0, 0))
        if life != member.life:
            last_term = last_commit = 0
        log = self._log(member)
        if term < last_term or commit < last_commit:
            raise Violation(f"monotone: seat {member.seat} went back in term or commit")
        self._marks[member.place] = (member.life, term, commit)
        for index in range(last_commit + 1, commit + 1):
            entry = log.get(index)
            if entry is not None:
                self._committed_in.setdefault(index, term)
            if entry is not None and self.committed.setdefault(index, entry).raw != entry.raw:
                raise Violation(f"state machine safety: two entries committed at {index}")

    def first_decision(self, member: Member, block: Block, digest: bytes) -> None:
        """A majority has it on the disk, in the log or in the chain."""
        holders = sum(self._holds(m, block.header.height, digest) for m in self.world.honest)
        if holders < self.quorum:
            height = block.header.height
            raise Violation(f"quorum of disks: height {height} is on {holders} disks")

    def _holds(self, member: Member, height: int, digest: bytes) -> bool:
        chain, rows = member.disk.chain, member.disk.rows
        if len(chain) >= height:
            return True
        kept = (v for k, v in rows.items() if len(k) == _HEAD + 8 and k[_HEAD - 1] == ENTRY)
        return any(self._entry(raw).block == digest for raw in kept)
