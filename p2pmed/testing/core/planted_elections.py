"""Raft with one mistake in its elections each, made in the real classes for the length of a run.

Each is a known mistake of real implementations; sections are those of the Raft paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from p2pmed.consensus.interface import ReadAt
from p2pmed.consensus.raft import engine as engine_module
from p2pmed.consensus.raft import replica as replica_module
from p2pmed.consensus.raft.desk import Desk
from p2pmed.consensus.raft.election import Election
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.consensus.raft.following import Following
from p2pmed.consensus.raft.leadership import Leadership
from p2pmed.consensus.raft.log import Log
from p2pmed.consensus.raft.reading import Reading
from p2pmed.consensus.raft.replica import Replica
from p2pmed.consensus.raft.rows import BallotRow
from p2pmed.quorum.certificate import Epoch
from p2pmed.testing.core.defect import CoreDefect, defect, set_to
from p2pmed.testing.core.patching import Patch

__all__ = ["ELECTION_DEFECTS"]


def _half(patch: Patch) -> None:
    patch(Epoch, "quorum", property(lambda self: max(1, len(self.validators) // 2)))


def _vote_not_kept(patch: Patch) -> None:
    def row(*, version: int, term: int, voted_for: int | None) -> BallotRow:
        return BallotRow(version=version, term=term, voted_for=None)

    patch(replica_module, "BallotRow", row)


def _term_not_kept(patch: Patch) -> None:
    def adopt(self: Replica, term: int, voted_for: int | None) -> None:
        self.term, self.voted_for = term, voted_for

    patch(Replica, "adopt", adopt)


def _two_votes(patch: Patch) -> None:
    """A vote is given to whoever asks, in one term."""
    real = Election.on_ask_vote

    def on_ask_vote(self: Election, ask: Any, seat: int) -> None:
        r = self._replica
        if ask.term == r.term and r.voted_for not in (None, r.seat):
            r.voted_for = None
        real(self, ask, seat)

    patch(Election, "on_ask_vote", on_ask_vote)


def _pre_vote_moves(patch: Patch) -> None:
    real = Election.on_ask_pre_vote

    def on_ask(self: Election, ask: Any, seat: int) -> None:
        if ask.term > self._replica.term:
            self._replica.follow(ask.term, None)
        real(self, ask, seat)

    patch(Election, "on_ask_pre_vote", on_ask)


def _no_step_down(patch: Patch) -> None:
    """A leader goes on whoever leads a later term."""
    real = RaftEngine._is_timely

    def is_timely(self: RaftEngine, message: Any, seat: int) -> bool:
        if self._leadership is not None and getattr(message, "term", 0) > self._replica.term:
            return False
        return real(self, message, seat)

    patch(RaftEngine, "_is_timely", is_timely)
    patch(Leadership, "check_quorum", lambda self: self._arm_quorum() is None)


def _terms_unchecked(patch: Patch) -> None:
    """Messages of past terms are read like new ones."""
    real = RaftEngine._is_timely

    def is_timely(self: RaftEngine, message: Any, seat: int) -> bool:
        real(self, message, seat)
        return True

    patch(RaftEngine, "_is_timely", is_timely)


def _stale_leader_heard(patch: Patch) -> None:
    """Entries of a past leader are taken."""
    from p2pmed.consensus.raft.messages import Append

    real = RaftEngine._is_timely

    def is_timely(self: RaftEngine, message: Any, seat: int) -> bool:
        stale = isinstance(message, Append) and message.term < self._replica.term
        return stale or real(self, message, seat)

    def accept(self: Following, message: Any, seat: int, *, idle: bool) -> bool:
        r = self._replica
        r.follow(max(r.term, message.term), r.leader if message.term < r.term else seat)
        r.hear_leader(idle=idle)
        return True

    patch(RaftEngine, "_is_timely", is_timely)
    patch(Following, "_accept_leader", accept)


def _timer_not_reset(patch: Patch) -> None:
    def hear_leader(self: Replica, *, idle: bool) -> None:
        """The leader's word changes nothing."""

    patch(Replica, "hear_leader", hear_leader)


def _silent_empty(patch: Patch) -> None:
    """A new leader appends nothing of its own term."""

    class _Mute(Leadership):
        def __init__(self, replica: Replica) -> None:
            append = replica.append
            replica.append = lambda slot: None  # type: ignore[method-assign]
            super().__init__(replica)
            replica.append = append  # type: ignore[method-assign]

    patch(engine_module, "Leadership", _Mute)


def _read_at_once(patch: Patch) -> None:
    """A leader answers a read without asking whether it still leads."""

    def ask(self: Reading, token: int) -> None:
        self._replica.desk.answer(ReadAt(token, self._replica.finality.height))

    patch(Reading, "ask", ask)


ELECTION_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType(
    {
        "raft: no election restriction": defect(
            "raft",
            "a vote goes to a log as complete as ours (5.4.1)",
            "etcd: raft_paper_test",
            "leader completeness",
            set_to(Log, "is_behind", lambda self, last_index, last_term: True),
        ),
        "raft: vote sent before fsync": defect(
            "raft",
            "a vote is durable before it is sent",
            "PySyncObj#84",
            "disk before wire",
            set_to(Desk, "promise", lambda self, effect: self._sends.append(effect)),
        ),
        "raft: majority of half": defect(
            "raft", "a majority is more than half", "5.2", "certificates", _half
        ),
        "raft: vote not persisted": defect(
            "raft", "votedFor is durable (figure 2)", "PySyncObj#201", "one vote", _vote_not_kept
        ),
        "raft: term not persisted": defect(
            "raft", "currentTerm is durable (figure 2)", "PySyncObj#84", "one vote", _term_not_kept
        ),
        "raft: two votes in a term": defect(
            "raft", "one vote a term (5.2)", "figure 2", "one vote", _two_votes
        ),
        "raft: pre-vote moves the term": defect(
            "raft",
            "a pre-vote changes nothing (thesis, 9.6)",
            "tikv#3270",
            "progress",
            _pre_vote_moves,
        ),
        "raft: no step down": defect(
            "raft",
            "a leader of a past term follows (5.1)",
            "hashicorp/raft#605",
            "progress",
            _no_step_down,
        ),
        "raft: terms unchecked": defect(
            "raft",
            "messages of past terms are refused (5.1)",
            "figure 2",
            "election safety",
            _terms_unchecked,
        ),
        "raft: stale leader heard": defect(
            "raft",
            "entries of a past term are refused (5.1)",
            "canonical/raft#279",
            "state machine safety",
            _stale_leader_heard,
        ),
        "raft: election timer not reset": defect(
            "raft",
            "a heartbeat holds elections off (5.2)",
            "figure 2",
            "progress",
            _timer_not_reset,
        ),
        "raft: no empty entry": defect(
            "raft",
            "a leader begins with an entry of its own (8)",
            "nats-server#7955",
            "progress",
            _silent_empty,
        ),
        "raft: read without a quorum": defect(
            "raft", "a read asks a quorum first (thesis, 6.4)", "etcd#741", "reads", _read_at_once
        ),
    }
)
"""By name."""
