"""Linearizable reads without a clock in the argument (Raft, section 8; thesis, 6.4: ReadIndex).

A leader answers with the height it knows committed, and only if

* an entry of its own term is committed, so that it knows everything older leaders committed; and
* a quorum, itself included, said after the question came that it knows no higher term.

Why that suffices: whatever anybody called final before the question was committed before it.
A leader of a higher term needs a quorum of votes, and a voter remembers its term across crashes;
so had such a leader been elected before the round began, one member of the round's quorum would
have refused. Hence nobody but this leader or those before it had committed anything, and all of
that is at or below its commit index. Leases would save the round and trust a clock.

A round carries all questions that came before it began. A follower asks the leader, one question
out at a time for all its readers. What gets no answer for ``READ_MS`` fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from p2pmed.consensus.interface import ReadAt, ReadFailed
from p2pmed.consensus.raft.bounds import HEARTBEAT_MS, READ_MS, READS_MAX
from p2pmed.consensus.raft.messages import AskRead, Confirm, Confirmed, ReadIndex
from p2pmed.consensus.raft.replica import Handler, Replica, Role
from p2pmed.engine import Instant, earliest

__all__ = ["Reading"]

_NUMBER_MAX: Final = 2**48
"""First numbers are dice, so that an answer to a former life of this member is nobody's."""


@dataclass(slots=True)
class _Round:
    """A leader asks whether it still is one."""

    number: int
    height: int
    """What is committed as it begins."""
    tokens: tuple[int, ...]
    guests: tuple[tuple[int, int], ...]
    """(seat, its number) of followers that asked."""
    seats: set[int]
    """Who confirmed; only ever counted."""


class Reading:
    """The questions of this member's readers, and, while it leads, of the others'."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._until: dict[int, Instant] = {}
        """Token -> when it fails; all that are not answered, oldest first."""
        self._fresh: list[int] = []
        """Tokens that are neither asked of a leader nor in a round."""
        self._asked: tuple[int, tuple[int, ...]] | None = None
        """A follower's question that is out: number, tokens."""
        self._guests: dict[int, int] = {}
        """Seat -> number of what it asked, waiting for a round."""
        self._round: _Round | None = None
        self._office = (replica.term, replica.leader)
        self._again_at: Instant | None = None
        self._rounds = 0
        self._number = 0

    @property
    def handlers(self) -> dict[type[Any], Handler]:
        """Who answers which message."""
        return {
            AskRead: self.on_ask,
            Confirm: self.on_confirm,
            Confirmed: self.on_confirmed,
            ReadIndex: self.on_index,
        }

    @property
    def deadline(self) -> Instant | None:
        """When a question is repeated, or fails."""
        return earliest(self._again_at, next(iter(self._until.values()), None))

    def ask(self, token: int) -> None:
        """A reader of this node asks."""
        if len(self._until) >= READS_MAX:
            self._replica.desk.answer(ReadFailed(token))
            return
        self._until[token] = Instant(self._replica.now + READ_MS)
        self._fresh.append(token)

    # --- messages -------------------------------------------------------------------------

    def on_ask(self, message: AskRead, seat: int) -> None:
        """A follower asks for its readers."""
        running = self._round
        if self._replica.role is Role.LEADER and not (
            running is not None and (seat, message.number) in running.guests
        ):
            self._guests[seat] = message.number

    def on_confirm(self, message: Confirm, seat: int) -> None:
        """The leader of our term asks whether it is; who forgot its term cannot say."""
        r = self._replica
        if not r.lost:
            r.send(seat, Confirmed(mesh=r.mesh, term=r.term, round=message.round))

    def on_confirmed(self, message: Confirmed, seat: int) -> None:
        """A member of our term knows no higher one."""
        if self._round is not None and self._round.number == message.round:
            self._round.seats.add(seat)

    def on_index(self, message: ReadIndex, seat: int) -> None:
        """The leader answers."""
        if self._asked is not None and self._asked[0] == message.number:
            self._answer(self._asked[1], message.height)
            self._asked = self._again_at = None

    # --- every step -----------------------------------------------------------------------

    def settle(self) -> None:
        """Fail what took too long, begin what may begin, answer what is confirmed."""
        r = self._replica
        while self._until and (first := next(iter(self._until.items())))[1] <= r.now:
            del self._until[first[0]]
            r.desk.answer(ReadFailed(first[0]))
        office = (r.term, r.leader)
        if office != self._office:
            self._office = office
            self._asked = self._round = self._again_at = None
            self._guests.clear()
            self._fresh = list(self._until)
        if r.role is Role.LEADER:
            self._lead()
        elif r.leader is not None:
            self._follow(r.leader)

    def _lead(self) -> None:
        r = self._replica
        while True:
            running = self._round
            if running is None:
                running = self._begin()
                if running is None:
                    return
            elif self._again_at is not None and r.now >= self._again_at:
                self._confirm(running)
            if len(running.seats) < r.epoch.quorum:
                return
            self._round = self._again_at = None
            self._answer(running.tokens, running.height)
            for seat, number in running.guests:
                answer = ReadIndex(mesh=r.mesh, term=r.term, number=number, height=running.height)
                r.send(seat, answer)

    def _begin(self) -> _Round | None:
        """A round for all that wait, once an entry of our own term is committed."""
        r = self._replica
        tokens = tuple(token for token in self._fresh if token in self._until)
        if not (tokens or self._guests) or r.log.term_at(r.commit) != r.term:
            return None
        self._rounds += 1
        self._round = _Round(
            number=self._rounds,
            height=r.committed_height,
            tokens=tokens,
            guests=tuple(self._guests.items()),
            seats={r.seat},
        )
        self._fresh.clear()
        self._guests.clear()
        self._confirm(self._round)
        return self._round

    def _confirm(self, running: _Round) -> None:
        r = self._replica
        r.broadcast(Confirm(mesh=r.mesh, term=r.term, round=running.number))
        self._again_at = Instant(r.now + HEARTBEAT_MS)

    def _follow(self, leader: int) -> None:
        r = self._replica
        if self._asked is None:
            tokens = tuple(token for token in self._fresh if token in self._until)
            self._fresh.clear()
            if not tokens:
                return
            self._number = self._number + 1 if self._number else r.rng.randint(1, _NUMBER_MAX)
            self._asked = (self._number, tokens)
        elif self._again_at is None or r.now < self._again_at:
            return
        elif not any(token in self._until for token in self._asked[1]):
            self._asked = self._again_at = None  # its readers gave up
            return
        else:
            r.wake()  # an idle mesh is slow to notice that its leader is gone
        r.send(leader, AskRead(mesh=r.mesh, term=r.term, number=self._asked[0]))
        self._again_at = Instant(r.now + HEARTBEAT_MS)

    def _answer(self, tokens: tuple[int, ...], height: int) -> None:
        for token in tokens:
            if self._until.pop(token, None) is not None:
                self._replica.desk.answer(ReadAt(token, height))
