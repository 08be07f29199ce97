"""Who leads: pre-vote, vote, loyalty (Raft, 5.2 and 5.4.1; thesis, 9.6 and 4.2.3).

Rules:

* one vote a term, durable before it is sent; an own candidacy is such a vote;
* a vote goes only to a log at least as up to date as ours;
* a pre-vote changes nothing at the one who answers: no term, no vote, no timer;
* while the leader is heard, its followers refuse everybody but the leader itself: a leader
  that restarted asks for votes like anybody and must not wait for its own shadow;
* who has forgotten promises (``Replica.lost``) neither votes nor campaigns, nor answers
  appends: every quorum is of members that remember, so that two share one that does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pmed.consensus.raft.bounds import HEARTBEAT_MS
from p2pmed.consensus.raft.messages import AskPreVote, AskVote, PreVote, TimeoutNow, Vote
from p2pmed.consensus.raft.replica import Handler, Replica, Role

__all__ = ["Election"]


class Election:
    """Asks for votes, and answers who asks."""

    def __init__(self, replica: Replica, elected: Callable[[], None]) -> None:
        self._replica = replica
        self._elected = elected
        self._votes: set[int] = set()
        """Seats that granted; only ever counted."""

    @property
    def handlers(self) -> dict[type[Any], Handler]:
        """Who answers which message."""
        return {
            AskPreVote: self.on_ask_pre_vote,
            PreVote: self.on_pre_vote,
            AskVote: self.on_ask_vote,
            Vote: self.on_vote,
            TimeoutNow: self.on_timeout_now,
        }

    def timeout(self) -> None:
        """No leader was heard for an election timeout."""
        r = self._replica
        r.leader = None
        r.beat_ms = HEARTBEAT_MS
        r.arm_election()
        if r.lost:
            return
        r.role = Role.PRE_CANDIDATE
        self._votes = {r.seat}
        last_index, last_term = r.log.last_index, r.log.last_term
        r.broadcast(
            AskPreVote(mesh=r.mesh, term=r.term + 1, last_index=last_index, last_term=last_term)
        )
        self._tally()

    def _campaign(self, *, forced: bool) -> None:
        r = self._replica
        r.role = Role.CANDIDATE
        r.leader = None
        r.adopt(r.term + 1, r.seat)
        r.arm_election()
        self._votes = set()
        r.promise_all(
            AskVote(
                mesh=r.mesh,
                term=r.term,
                last_index=r.log.last_index,
                last_term=r.log.last_term,
                forced=forced,
            )
        )

    def flushed(self) -> None:
        """A flush came back: our own vote counts from when it is durable."""
        r = self._replica
        if r.role is Role.CANDIDATE and not r.desk.ballot_waits:
            self._votes.add(r.seat)
            self._tally()

    def _tally(self) -> None:
        r = self._replica
        if len(self._votes) < r.epoch.quorum:
            return
        if r.role is Role.PRE_CANDIDATE:
            self._campaign(forced=False)
        else:
            self._elected()

    # --- what others ask ------------------------------------------------------------------

    def _is_loyal(self, asker: int) -> bool:
        r = self._replica
        if r.role is Role.LEADER:
            return True
        return r.leader is not None and r.leader != asker and r.now < r.loyal_until

    def on_ask_pre_vote(self, ask: AskPreVote, seat: int) -> None:
        """Say whether we would vote; change nothing."""
        r = self._replica
        granted = (
            ask.term > r.term
            and not r.lost
            and not self._is_loyal(seat)
            and r.log.is_behind(ask.last_index, ask.last_term)
        )
        term = ask.term if granted else r.term
        r.send(seat, PreVote(mesh=r.mesh, term=term, granted=granted))

    def on_ask_vote(self, ask: AskVote, seat: int) -> None:
        """Grant at most one vote a term (Raft, 5.2 and 5.4.1)."""
        r = self._replica
        if ask.term > r.term:
            if self._is_loyal(seat) and not ask.forced:
                return  # not even its term: it must not unseat a leader that is heard
            r.follow(ask.term, None)
        free = r.voted_for in (None, seat)  # a candidate voted for itself
        granted = (
            ask.term == r.term
            and free
            and not r.lost
            and r.leader is None
            and r.log.is_behind(ask.last_index, ask.last_term)
        )
        if not granted:
            r.send(seat, Vote(mesh=r.mesh, term=r.term, granted=False))
            return
        if r.voted_for is None:
            r.adopt(r.term, seat)
        r.role = Role.FOLLOWER  # it may have asked for pre-votes itself
        r.arm_election()
        # A vote that can be forgotten can be cast twice: disk, then wire.
        r.promise(seat, Vote(mesh=r.mesh, term=r.term, granted=True))

    # --- what others answer ---------------------------------------------------------------

    def on_pre_vote(self, vote: PreVote, seat: int) -> None:
        """Count a pre-vote; a refusal may teach a term, and nothing else."""
        r = self._replica
        if not vote.granted:
            if vote.term > r.term:
                r.follow(vote.term, None)
        elif r.role is Role.PRE_CANDIDATE and vote.term == r.term + 1:
            self._votes.add(seat)
            self._tally()

    def on_vote(self, vote: Vote, seat: int) -> None:
        """Count a vote of this term."""
        r = self._replica
        if vote.granted and r.role is Role.CANDIDATE:
            self._votes.add(seat)
            self._tally()

    def on_timeout_now(self, message: TimeoutNow, seat: int) -> None:
        """The leader hands over: campaign without asking first."""
        r = self._replica
        if r.role is Role.FOLLOWER and r.leader == seat and not r.lost:
            self._campaign(forced=True)
