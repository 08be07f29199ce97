"""Figure 8 of the Raft paper: why old entries are not committed, nor signed, by counting."""

from __future__ import annotations

import pytest
import raft_mutants
from raft_cores import Core, beat, carry, empty, rows_of, take_over

from p2pmed.consensus.raft.messages import Append, Appended, AskVote, Attest, PreVote, Vote


def test_figure_8_d_and_e() -> None:
    """(d) an old entry on a majority can still be overwritten; (e) not once a new one is there."""
    s1 = Core(5, 0, rows=rows_of(3, None, 1, 2))
    s1.lead()
    assert s1.status["term"] == 4
    for seat in (1, 2):
        s1.tell(
            seat,
            Appended(mesh=s1.mesh, term=4, match=2, heartbeat=False, decided=0, attests=()),
        )
    assert s1.status["commit"] == 0, "three of five have (2, term 2), and it is not committed"

    s3 = Core(5, 2, rows=rows_of(4, None, 1))
    s3.tell(0, beat(s3, 4, prev_index=1, prev_term=1, entries=(empty(2),)))
    s3.flush()
    s3.wait(1_000)
    s3.take()
    claim = AskVote(mesh=s3.mesh, term=5, last_index=2, last_term=3, forced=False)
    s3.tell(4, claim)
    s3.flush()
    assert [v.granted for v in s3.take(Vote)] == [True], "(d): s5 may win and overwrite"

    s3 = Core(5, 2, rows=rows_of(4, None, 1))
    s3.tell(0, beat(s3, 4, prev_index=1, prev_term=1, entries=(empty(2), empty(4))))
    s3.flush()
    s3.wait(1_000)
    s3.take()
    s3.tell(4, claim)
    s3.flush()
    assert [v.granted for v in s3.take(Vote)] == [False], "(e): s5 cannot win"


def signed_too_early() -> bool:
    """Figure 8 with a signature for each answer; whether a loseable block was decided.

    a leads term 1 and signs its block, alone. c leads term 2, alone. a leads term 3: b has
    the block and a's empty entry on its disk, a has only the block. If b signs now, two of
    three have signed; but a can crash, forget its empty entry and elect c.
    """
    a, b = Core(3, 0), Core(3, 1)
    a.lead()
    a.hear(7)
    a.flush()
    b.hear(7)
    a.take()
    a.tell(2, Append(**{f: getattr(beat(a, 2), f) for f in Append.__struct_fields__}))
    a.flush()
    a.wait(2_000)
    for seat in (1, 2):
        a.tell(seat, PreVote(mesh=a.mesh, term=3, granted=True))
    a.flush(1)
    a.tell(1, Vote(mesh=a.mesh, term=3, granted=True))
    assert a.status["role"] == "leader"
    assert a.stores, "its empty entry is not flushed yet"

    raw = [slot.raw for slot in a.engine._replica.log.entries(1, 9, 1 << 20)]
    assert len(raw) == 3
    b.tell(0, beat(b, 3, entries=tuple(raw)))
    b.flush()
    assert b.status["checked"] == 1
    for message in b.take():
        if isinstance(message, Appended | Attest):
            a.tell(1, message)
    early = bool(a.decided)
    a.flush()
    assert a.status["commit"] == 3
    return early


def test_an_old_block_is_not_signed_before_it_is_known_committed() -> None:
    """The tempting third rule of ``finality.py`` is not followed."""
    assert not signed_too_early()


def test_the_third_rule_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With that rule planted, the scenario decides a block that a crash can undo."""
    raft_mutants.inherited_attested(monkeypatch)
    assert signed_too_early()


def test_an_old_block_is_decided_once_the_new_term_has_a_majority() -> None:
    """After the empty entry commits, members sign the inherited block, and it is final."""
    cores = [Core(3, seat) for seat in range(3)]
    cores[0].wait(1_000)
    carry(cores)
    for core in cores:
        core.hear(5)
    # The entry reaches seat 1's disk; its answers, and everything to seat 2, are lost.
    carry(cores, drop=lambda a, b, m: a == 1 or b == 2)
    assert not any(core.decided for core in cores)
    rest = cores[1:]
    take_over(rest[0], rest[1:])
    assert [c.decided[0].block.header.view for c in rest] == [1, 1]
    assert rest[0].status["term"] == 2
