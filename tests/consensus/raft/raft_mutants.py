"""Bugs planted on purpose, each a known mistake of real Raft implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from p2pmed.consensus.raft import election, engine, following
from p2pmed.consensus.raft.desk import Desk
from p2pmed.consensus.raft.finality import Finality
from p2pmed.consensus.raft.leadership import Leadership
from p2pmed.consensus.raft.log import Log
from p2pmed.consensus.raft.reading import Reading
from p2pmed.consensus.raft.replica import Replica
from p2pmed.consensus.raft.rows import BallotRow
from p2pmed.quorum.certificate import Epoch

Plant = Callable[[pytest.MonkeyPatch], None]


def vote_before_disk(patch: pytest.MonkeyPatch) -> None:
    """A vote leaves before it is durable (PySyncObj#84, #201)."""
    patch.setattr(Desk, "promise", lambda self, effect: self._sends.append(effect))


def vote_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The term is stored, and the vote is not."""
    real = BallotRow

    def row(*, version: int, term: int, voted_for: int | None) -> BallotRow:
        return real(version=version, term=term, voted_for=None)

    patch.setattr("p2pmed.consensus.raft.replica.BallotRow", row)


def answer_before_disk(patch: pytest.MonkeyPatch) -> None:
    """A follower confirms, and a leader counts, what is not yet flushed."""
    real = Replica.append

    def append(self: Replica, slot: Any) -> None:
        real(self, slot)
        self.durable = self.log.last_index

    patch.setattr(Replica, "append", append)


def old_terms_counted(patch: pytest.MonkeyPatch) -> None:
    """Entries of older terms are committed by counting replicas (PySyncObj#169)."""

    def count(self: Leadership) -> None:
        r = self._replica
        matches = sorted([r.durable, *(p.match for p in self.progress.values())], reverse=True)
        r.commit_to(matches[r.epoch.quorum - 1])

    patch.setattr(Leadership, "count", count)


def inherited_attested(patch: pytest.MonkeyPatch) -> None:
    """A block of an old term is signed because an entry of this term stands above it."""
    real = Finality.sign

    def sign(self: Finality, log: Log, *, above: int, durable: int, commit: int, term: int) -> Any:
        covered = durable if log.term_at(durable) == term else commit
        return real(self, log, above=above, durable=durable, commit=covered, term=term)

    patch.setattr(Finality, "sign", sign)


def any_log_may_lead(patch: pytest.MonkeyPatch) -> None:
    """The election restriction (Raft, 5.4.1) is left out."""
    patch.setattr(Log, "is_behind", lambda self, last_index, last_term: True)


def commit_beyond_match(patch: pytest.MonkeyPatch) -> None:
    """A follower takes the leader's commit index for entries it has not compared."""
    real = following.Following.on_append

    def on_append(self: Any, message: Any, seat: int) -> None:
        real(self, message, seat)
        if self._replica.leader == seat:
            self._replica.commit_to(message.commit)

    patch.setattr(following.Following, "on_append", on_append)


def prev_not_compared(patch: pytest.MonkeyPatch) -> None:
    """Entries are taken whatever stands before them."""
    real = following.Following.on_append

    def on_append(self: Any, message: Any, seat: int) -> None:
        term = self._replica.log.term_at(message.prev_index)
        if term is not None:
            message = msgspec.structs.replace(message, prev_term=term)
        real(self, message, seat)

    patch.setattr(following.Following, "on_append", on_append)


def cut_not_stored(patch: pytest.MonkeyPatch) -> None:
    """Cut entries come back after a crash."""
    real = Desk.stage

    def stage(self: Desk, key: bytes, value: bytes | None) -> None:
        if value is not None or key[13:14] != b"\x03":
            real(self, key, value)

    patch.setattr(Desk, "stage", stage)


def quorum_of_half(patch: pytest.MonkeyPatch) -> None:
    """Half of the seats count as a quorum for commitment and votes."""
    patch.setattr(Epoch, "quorum", property(lambda self: max(1, len(self.validators) // 2)))


def floor_without_blocks(patch: pytest.MonkeyPatch) -> None:
    """A follower stands on the leader's floor before it has decided the blocks below."""
    real = following.Following.settle_floor

    def settle_floor(self: Any) -> None:
        height, offer = self._replica.finality.height, self._floor
        if offer is not None and height < offer.height and self._replica.log.floor.index == 0:
            self._replica.stand_on(
                following.FloorRow(
                    version=1,
                    index=offer.index,
                    term=offer.index_term,
                    height=offer.height,
                    digest=offer.digest,
                )
            )
            self._floor = None
            return
        real(self)

    patch.setattr(following.Following, "settle_floor", settle_floor)


def empty_entry_left_out_of_the_floor(patch: pytest.MonkeyPatch) -> None:
    """The floor's term is forgotten when the log is compacted."""
    real = Log.raise_floor

    def raise_floor(self: Log, index: int) -> None:
        real(self, index)
        floor = self.floor
        self.floor = type(floor)(
            version=1, index=floor.index, term=0, height=floor.height, digest=floor.digest
        )

    patch.setattr(Log, "raise_floor", raise_floor)


def pre_vote_adopts_term(patch: pytest.MonkeyPatch) -> None:
    """A pre-vote that is asked for raises the term of who is asked."""
    real = election.Election.on_ask_pre_vote

    def on_ask(self: Any, ask: Any, seat: int) -> None:
        if ask.term > self._replica.term:
            self._replica.follow(ask.term, None)
        real(self, ask, seat)

    patch.setattr(election.Election, "on_ask_pre_vote", on_ask)


def certificates_not_said_again(patch: pytest.MonkeyPatch) -> None:
    """A certificate that was lost on the way is never repeated."""
    patch.setattr(Leadership, "tell_certificate", lambda self, seat: None)
    patch.setattr(engine.RaftEngine, "_tell_certificate", lambda self, seat: None)


def attestations_not_said_again(patch: pytest.MonkeyPatch) -> None:
    """A signature that was lost on the way is never repeated."""
    patch.setattr(Finality, "mine", lambda self, above: ())


def no_empty_entry(patch: pytest.MonkeyPatch) -> None:
    """A new leader does not begin with an entry of its own: old ones wait for new work."""

    class _Mute(Leadership):
        def __init__(self, replica: Replica) -> None:
            append = replica.append
            replica.append = lambda slot: None  # type: ignore[method-assign]
            super().__init__(replica)
            replica.append = append  # type: ignore[method-assign]

    patch.setattr(engine, "Leadership", _Mute)


def decided_without_check(patch: pytest.MonkeyPatch) -> None:
    """What the application has not called VALID is decided."""
    patch.setattr(
        Finality,
        "check",
        lambda self, log, durable: setattr(
            self,
            "checked",
            max([self.checked, *(h for h, i in log._index_of_height.items() if i <= durable)]),
        ),
    )


def read_without_round(patch: pytest.MonkeyPatch) -> None:
    """A leader answers readers from what it knows, as if it could not have been replaced."""
    real = Reading._begin

    def begin(self: Any) -> Any:
        found = real(self)
        if found is not None:
            found.seats.update(range(self._replica.epoch.quorum))
        return found

    patch.setattr(Reading, "_begin", begin)


def read_before_own_entry(patch: pytest.MonkeyPatch) -> None:
    """A new leader answers readers before an entry of its own term is committed."""
    real = Reading._begin

    def begin(self: Any) -> Any:
        term_at = self._replica.log.term_at
        self._replica.log.term_at = lambda index: self._replica.term
        found = real(self)
        self._replica.log.term_at = term_at
        return found

    patch.setattr(Reading, "_begin", begin)


def lost_member_answers(patch: pytest.MonkeyPatch) -> None:
    """A member that lost its memory does not vote, and confirms appends as if it had not."""
    real = following.Following.on_append
    attest = engine.RaftEngine._attest

    def remembering(self: Any, work: Callable[[], None]) -> None:
        lost, self._replica.lost = self._replica.lost, False
        work()
        self._replica.lost = lost

    patch.setattr(
        following.Following,
        "on_append",
        lambda self, message, seat: remembering(self, lambda: real(self, message, seat)),
    )
    patch.setattr(
        engine.RaftEngine, "_attest", lambda self: remembering(self, lambda: attest(self))
    )


PLANTS: dict[str, Plant] = {
    f.__name__: f
    for f in (
        vote_before_disk,
        vote_forgotten,
        answer_before_disk,
        old_terms_counted,
        inherited_attested,
        any_log_may_lead,
        commit_beyond_match,
        prev_not_compared,
        cut_not_stored,
        quorum_of_half,
        empty_entry_left_out_of_the_floor,
        floor_without_blocks,
        certificates_not_said_again,
        attestations_not_said_again,
        no_empty_entry,
        pre_vote_adopts_term,
        decided_without_check,
        lost_member_answers,
        read_without_round,
        read_before_own_entry,
    )
}
