"""The rules of the Raft paper, one test each, by section; and those of Ongaro's thesis."""

from __future__ import annotations

from typing import Any

import pytest
from raft_cores import Core, beat, carry, empty, rows_of

from p2pmed.consensus.interface import Heard, Receive, Store
from p2pmed.consensus.raft.log import FloorRow
from p2pmed.consensus.raft.messages import (
    Append,
    Appended,
    AskPreVote,
    AskVote,
    HigherTerm,
    Mismatch,
    PreVote,
    TimeoutNow,
    Vote,
    encode,
)


def ask(core: Core, term: int, *, last: tuple[int, int] = (0, 0), forced: bool = False) -> AskVote:
    return AskVote(mesh=core.mesh, term=term, last_index=last[0], last_term=last[1], forced=forced)


def test_5_1_a_higher_term_makes_a_leader_follow() -> None:
    """5.1: whoever sees a higher term adopts it and follows."""
    core = Core(3)
    core.lead()
    core.tell(1, HigherTerm(mesh=core.mesh, term=9))
    assert (core.status["role"], core.status["term"]) == ("follower", 9)


def test_5_1_a_stale_leader_is_told_the_newer_term() -> None:
    """5.1: a request with a stale term is refused, and the refusal names the newer one."""
    core = Core(3, rows=rows_of(5, None))
    core.tell(1, beat(core, 4, entries=(empty(4),)))
    assert core.status["log_last"] == 0
    assert [m.term for m in core.take(HigherTerm)] == [5]


def test_5_2_one_vote_a_term_and_it_survives_a_crash() -> None:
    """5.2: at most one candidate gets our vote in a term, whether or not we restart between."""
    core = Core(3)
    core.tell(1, ask(core, 1))
    core.flush()
    assert [v.granted for v in core.take(Vote)] == [True]
    again = Core(3, rows=core.rows)
    again.tell(2, ask(again, 1))
    again.flush()
    assert [v.granted for v in again.take(Vote)] == [False]
    again.tell(1, ask(again, 1))
    again.flush()
    assert [v.granted for v in again.take(Vote)] == [True]


def test_5_2_a_vote_leaves_only_after_its_flush() -> None:
    """Figure 2: term and vote are on stable storage before the answer leaves."""
    core = Core(3)
    core.tell(1, ask(core, 1))
    assert core.take(Vote) == []
    assert isinstance(core.effects[-1], Store)
    core.flush()
    assert len(core.take(Vote)) == 1


def test_5_2_an_own_candidacy_is_durable_before_it_is_announced() -> None:
    """Figure 2: a candidate's vote for itself is a vote; it counts after its flush."""
    core = Core(3)
    core.wait(1_000)
    core.tell(1, PreVote(mesh=core.mesh, term=1, granted=True))
    assert core.status["role"] == "candidate"
    assert core.take(AskVote) == []
    core.tell(1, Vote(mesh=core.mesh, term=1, granted=True))
    assert core.status["role"] == "candidate", "one foreign vote and an unflushed own: no quorum"
    core.flush(1)
    assert core.status["role"] == "leader"


def test_5_2_timeouts_are_drawn_anew() -> None:
    """5.2: election timeouts are random in 10 to 20 heartbeats."""
    import random

    core = Core(3)
    core.engine._replica.rng = random.Random(4)
    seen = set()
    for _ in range(20):
        core.tell(1, beat(core, 1))
        core.flush()
        assert core.engine.deadline is not None
        seen.add(core.engine.deadline - core.now)
    assert len(seen) > 10
    assert all(1_000 <= wait <= 2_000 for wait in seen)


@pytest.mark.parametrize(
    ("last", "granted"),
    [
        ((3, 2), True),
        ((4, 2), True),
        ((1, 3), True),
        ((2, 2), False),
        ((9, 1), False),
    ],
)
def test_5_4_1_a_vote_needs_a_log_as_up_to_date(last: tuple[int, int], granted: bool) -> None:
    """5.4.1: first the last term decides, then the length; ours ends at (3, term 2)."""
    core = Core(3, rows=rows_of(2, None, 1, 1, 2))
    core.tell(1, ask(core, 4, last=last))
    core.flush()
    assert [v.granted for v in core.take(Vote)] == [granted]


def test_5_3_an_answer_leaves_only_after_the_flush() -> None:
    """5.3, figure 2: entries are on stable storage before they are confirmed."""
    core = Core(3)
    core.tell(1, beat(core, 1, entries=(empty(1),)))
    assert core.take(Appended) == []
    core.flush()
    assert [a.match for a in core.take(Appended)] == [1]


def test_5_3_a_heartbeat_does_not_confirm_what_is_not_flushed() -> None:
    """A heartbeat that overtakes the flush is answered with what is durable."""
    core = Core(3)
    core.tell(1, beat(core, 1))
    core.flush()
    core.take()
    core.tell(1, beat(core, 1, entries=(empty(1),)))
    core.tell(1, beat(core, 1, prev_index=1, prev_term=1))
    assert [a.match for a in core.take(Appended)] == [0]


def test_5_3_entries_need_their_predecessor() -> None:
    """5.3: an append whose predecessor is missing is refused with a hint, and changes nothing."""
    core = Core(3, rows=rows_of(1, None, 1))
    core.tell(1, beat(core, 2, prev_index=5, prev_term=2, entries=(empty(2),)))
    core.flush()
    (refusal,) = core.take(Mismatch)
    assert (refusal.prev_index, refusal.hint_index, refusal.hint_term) == (5, 1, 1)
    assert core.status["log_last"] == 1


def test_5_3_conflicting_entries_are_cut_on_disk_too() -> None:
    """5.3: an entry that conflicts goes, and all that follow it, also after a restart."""
    core = Core(3, rows=rows_of(2, None, 1, 2, 2))
    core.tell(1, beat(core, 3, prev_index=1, prev_term=1, entries=(empty(3),)))
    core.flush()
    again = Core(3, rows=core.rows)
    assert again.status["log_last"] == 2
    assert again.engine._replica.log.last_term == 3


def test_5_3_a_late_duplicate_does_not_shorten_the_log() -> None:
    """5.3: entries that are already there are no reason to cut those behind them."""
    core = Core(3)
    core.tell(1, beat(core, 1, entries=(empty(1), empty(1), empty(1))))
    core.flush()
    core.tell(1, beat(core, 1, entries=(empty(1),)))
    core.flush()
    assert core.status["log_last"] == 3


def test_5_3_commit_reaches_only_what_was_compared() -> None:
    """Figure 2: commit is the smaller of the leader's and the last entry known to match."""
    core = Core(3, rows=rows_of(1, None, 1, 1, 1))
    core.tell(1, beat(core, 2, prev_index=1, prev_term=1, commit=3))
    assert core.status["commit"] == 1


def test_committed_entries_are_never_cut() -> None:
    """A message that would undo what is committed is refused, and nothing asserts on it."""
    core = Core(3)
    core.tell(1, beat(core, 1, entries=(empty(1),), commit=1))
    core.flush()
    core.tell(1, beat(core, 2, entries=(empty(2),)))
    assert core.status["refused"] == 1
    assert core.engine._replica.log.last_term == 1


def test_8_a_leader_begins_with_an_entry_of_its_own() -> None:
    """Section 8: an empty entry of its own term tells a leader what is committed."""
    core = Core(3, rows=rows_of(1, None, 1))
    core.lead()
    appends = core.take(Append)
    assert core.status["log_last"] == 2
    assert core.engine._replica.log.last_term == 2
    assert any(a.entries for a in appends)


def test_5_4_2_old_entries_are_not_committed_by_counting() -> None:
    """5.4.2: a majority has an old entry; it is committed only with one of this term."""
    core = Core(3, rows=rows_of(1, None, 1, 1))
    core.lead()
    core.tell(
        1,
        Appended(mesh=core.mesh, term=2, match=2, heartbeat=False, decided=0, attests=()),
    )
    assert core.status["commit"] == 0
    core.tell(
        1,
        Appended(mesh=core.mesh, term=2, match=3, heartbeat=False, decided=0, attests=()),
    )
    assert core.status["commit"] == 3


def test_a_leader_counts_itself_after_its_own_flush() -> None:
    """A leader's entries go out before its flush; its own copy counts after it."""
    core = Core(3)
    core.lead()
    core.hear(7)
    assert any(a.entries for a in core.take(Append)), "sent at once, flushed meanwhile"
    before = core.status["commit"]
    core.tell(1, Appended(mesh=core.mesh, term=1, match=2, heartbeat=False, decided=0, attests=()))
    assert core.status["commit"] == 1 >= before
    core.flush()
    assert core.status["commit"] == 2


def test_6_a_disrupter_does_not_unseat_a_leader_that_is_heard() -> None:
    """Section 6 and thesis 4.2.3: while the leader is heard, a vote request is not even read."""
    core = Core(3)
    core.tell(1, beat(core, 1))
    core.flush()
    core.take()
    core.tell(2, ask(core, 9))
    core.flush()
    assert core.take() == []
    assert core.status["term"] == 1


def test_pre_vote_changes_nothing() -> None:
    """Thesis 9.6: who answers a pre-vote keeps its term, its vote and its timer."""
    core = Core(3)
    deadline, status = core.engine.deadline, core.status
    core.tell(2, AskPreVote(mesh=core.mesh, term=7, last_index=0, last_term=0))
    assert [(v.term, v.granted) for v in core.take(PreVote)] == [(7, True)]
    assert (core.engine.deadline, core.status) == (deadline, status)
    assert core.stores == []


def test_a_restarted_leader_need_not_wait_for_its_own_shadow() -> None:
    """A follower loyal to seat 1 grants seat 1 a pre-vote: it is no leader if it asks (#605)."""
    core = Core(3)
    core.tell(1, beat(core, 1))
    core.flush()
    core.take()
    core.tell(1, AskPreVote(mesh=core.mesh, term=2, last_index=0, last_term=0))
    core.tell(2, AskPreVote(mesh=core.mesh, term=2, last_index=0, last_term=0))
    assert [v.granted for v in core.take(PreVote)] == [True, False]


def test_a_leader_without_a_quorum_stands_down() -> None:
    """CheckQuorum: a leader that hears nobody for an election timeout is none any more."""
    core = Core(3)
    core.lead()
    core.wait(1_000)
    assert core.status["role"] == "leader", "the votes were contacts in the first window"
    core.wait(1_000)
    assert core.status["role"] != "leader"


def test_gossip_counts_as_contact() -> None:
    """``Heard`` from a quorum keeps a leader in office."""
    core = Core(3)
    core.lead()
    for _ in range(40):
        core.event(Heard(1))
        core.wait(100)
    assert core.status["role"] == "leader"


def test_a_leader_hands_over_to_who_has_everything() -> None:
    """Thesis 3.10: proposals stop, the target catches up, and only then is told to campaign."""
    cores = [Core(3, seat) for seat in range(3)]
    cores[0].wait(1_000)
    carry(cores)
    assert cores[0].status["role"] == "leader"
    cores[0].perform(cores[0].engine.hand_over(cores[0].now, 2))
    carry(cores)
    assert [c.status["role"] for c in cores] == ["follower", "follower", "leader"]


def test_timeout_now_counts_only_from_the_leader() -> None:
    """A member that is not the leader cannot start an election elsewhere."""
    core = Core(3)
    core.tell(1, beat(core, 1))
    core.flush()
    core.tell(2, TimeoutNow(mesh=core.mesh, term=1))
    assert core.status["role"] == "follower"
    core.tell(1, TimeoutNow(mesh=core.mesh, term=1))
    assert core.status["role"] == "candidate"


@pytest.mark.parametrize("number", [1, 7])
def test_another_epoch_is_refused(number: int) -> None:
    """A message whose ledger or epoch differs changes nothing but a counter."""
    core, other = Core(3), Core(3, 1, number=number)
    core.event(Receive(sender=1, message=encode(beat(other, 9))))
    assert core.status["refused"] == 1
    assert core.status["term"] == 0


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x80", b"\xff" * 40, b"\x82\x05\x40", bytes(range(64))],
    ids=lambda r: r.hex()[:8],
)
def test_garbage_is_counted_and_ignored(raw: bytes) -> None:
    """No bytes of a peer raise or assert."""
    core = Core(3)
    core.event(Receive(sender=1, message=raw))
    assert core.status["refused"] == 1


@pytest.mark.parametrize("sender", [0, 3, 99, -1])
def test_only_other_seats_are_heard(sender: int) -> None:
    """A message from our own seat or from none is refused."""
    core = Core(3)
    core.event(Receive(sender=sender, message=encode(beat(core, 9))))
    assert core.status["refused"] == 1


def test_terms_of_entries_neither_fall_nor_exceed_the_leader() -> None:
    """Entries that break the order of terms refuse the whole message."""
    core = Core(3)
    broken: list[tuple[Any, ...]] = [(empty(2), empty(1)), (empty(1), empty(9)), (b"\x00",)]
    for entries in broken:
        core.tell(1, beat(core, 3, entries=entries))
    core.flush()
    assert core.status["refused"] == len(broken)
    assert core.status["log_last"] == 0


def test_a_follower_that_is_idle_does_not_flush() -> None:
    """Heartbeats without news cost no flush and one small message."""
    core = Core(3)
    core.tell(1, beat(core, 1))
    core.flush()
    before = len(core.effects)
    for _ in range(50):
        core.now += 100  # type: ignore[assignment]
        core.tell(1, beat(core, 1))
    assert not any(isinstance(e, Store) for e in core.effects[before:])
    assert max(len(encode(m)) for m in core.take()) < 32


def test_the_floor_keeps_index_and_term_for_elections() -> None:
    """A log that was compacted to nothing is still as up to date as its floor says."""
    floor = FloorRow(version=1, index=10, term=4, height=6, digest=b"d" * 32)
    core = Core(3, rows=rows_of(4, None, floor=floor))
    core.tell(1, ask(core, 5, last=(9, 4)))
    core.tell(2, ask(core, 5, last=(10, 4)))
    core.flush()
    assert [v.granted for v in core.take(Vote)] == [False, True]
