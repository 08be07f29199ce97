"""The rules R0 to R11 one by one (docs/protocols/bft.md, clause 4), seen from one seat."""

from __future__ import annotations

from itertools import pairwise

import pytest
from bench_seat import Bench, F, N, X, of, said, votes
from simulation import Counters, ideal_verify, make_epoch

from p2pmed.consensus.bft.ballots import AHEAD_MAX
from p2pmed.consensus.bft.live import KEPT_VIEWS
from p2pmed.consensus.bft.messages import (
    CONTENT_BYTES_MAX,
    Ask,
    Body,
    Certificates,
    Decided,
    Proposal,
    Vote,
    Votes,
)
from p2pmed.consensus.bft.pacemaker import DELTA_MS
from p2pmed.consensus.interface import (
    Behind,
    Broadcast,
    Certified,
    Content,
    Decide,
    Evidence,
    Receive,
    SendTo,
    Store,
    Work,
    header_digest,
)
from p2pmed.engine import Persisted
from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.quorum.certificate import Epoch, Validator, decode_certificate, vote_bytes

# --- the good case -----------------------------------------------------------------------


def test_one_validator_decides_alone() -> None:
    """With n = 1 one flush notarizes, the next finalizes, and the block is decided."""
    bench = Bench(seats=1)
    effects = bench.work(7)
    assert [type(e).__name__ for e in effects if not isinstance(e, Broadcast)] == [
        "Store",
        "Store",
        "Decide",
    ]
    assert of(effects, Decide)[0].certificate is not None
    assert bench.pass_time(60_000) == [], "nothing is left to do"
    assert bench.engine.deadline is None


def test_a_block_is_decided_after_two_rounds_of_votes() -> None:
    """R4, R5, R8: proposal, q notarize votes, q finalize votes, decision with certificate."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    assert votes(bench.propose(block)) == [(N, 1)]
    assert votes(bench.vote(1, N, block)) == []
    assert votes(bench.vote(2, N, block)) == [(F, 1)]
    bench.vote(1, F, block)
    (decide,) = of(bench.vote(2, F, block), Decide)
    assert decide.block == block
    assert decide.certificate.signers == 0b111
    assert bench.engine.status()["floor"] == bench.engine.status()["height"] == 1


def test_the_next_leader_proposes_in_advance() -> None:
    """R2: the leader of v + 1 sends its block with its vote for the block of v.

    When that is notarized, one flush carries the finalize vote of v and the vote of v + 1, and
    one message both.
    """
    bench = Bench(seat=2)
    bench.application.known.update({5: None, 6: None})
    block = bench.block(1, 5)
    (proposal,) = said(bench.propose(block), Proposal)
    assert proposal.block.header.parent == header_digest(block.header)
    assert proposal.justification == ()
    bench.vote(0, N, block)
    effects = bench.vote(3, N, block)
    assert said(effects, Proposal) == []
    assert len(of(effects, Store)) == 1
    assert len(said(effects, Votes)) == 1
    assert votes(effects) == [(F, 1), (N, 2)]


def test_a_block_in_advance_is_voted_for_when_its_view_comes() -> None:
    """R2, R3: it waits for its parent's certificate, and for nothing else."""
    bench = Bench(seat=0)
    bench.application.known.update({5: None, 6: None})
    first = bench.block(1, 5)
    second = bench.block(2, 6, parent=first)
    bench.hear_all()
    bench.propose(first)
    assert bench.propose(second) == []
    bench.vote(1, N, first)
    assert votes(bench.vote(2, N, first)) == [(F, 1), (N, 2)]


def test_a_leader_that_foresaw_wrongly_proposes_again() -> None:
    """R2: if the view before was nullified, the leader offers another block, and all take it."""
    leader = Bench(seat=2)
    leader.hear_all()
    leader.application.known.update({5: None, 6: None})
    first = leader.block(1, 5)
    (early,) = said(leader.propose(first), Proposal)
    proof = Certificates(certificates=(leader.certificate(X, 1),))
    effects = leader.receive(3, proof)
    (again,) = said(effects, Proposal)
    assert again.block.header.parent_view == 0
    assert votes(effects) == [(N, 2)]
    voter = Bench(seat=0)
    voter.application.known.update({5: None, 6: None})
    for proposal in (early, again):
        effects = voter.receive(2, proposal)
    assert votes(effects) == [(N, 2)]
    (vote,) = said(effects, Vote)
    assert vote.digest == header_digest(again.block.header)


def test_a_notarized_next_leader_without_work_waits() -> None:
    """R2: nothing in advance if there is nothing more to order; later work is proposed then."""
    bench = Bench(seat=2)
    bench.application.known[5] = None
    block = bench.block(1, 5)
    assert said(bench.propose(block), Proposal) == []
    bench.vote(0, N, block)
    assert votes(bench.vote(3, N, block)) == [(F, 1)]
    assert len(said(bench.work(6), Proposal)) == 1


def test_a_leader_without_work_stays_silent() -> None:
    """R2: no empty blocks; the same leader proposes as soon as there is work."""
    bench = Bench(seat=1)
    bench.hear_all()
    assert bench.step(Work()) == []
    assert bench.engine.deadline is None
    assert len(said(bench.work(9), Proposal)) == 1


# --- durability --------------------------------------------------------------------------


def test_a_vote_waits_for_its_flush() -> None:
    """R4: block and vote are in one ``Store``; the vote leaves, and counts, only after it."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    effects = bench.propose(block, sync=False)
    (store,) = effects
    assert isinstance(store, Store)
    assert sorted(record.key[:1] for record in store.records) == [b"b", b"v"]
    bench.hear_all()
    assert bench.vote(1, N, block, sync=False) == []
    assert bench.vote(2, N, block, sync=False) == [], "our own vote counted before its flush"
    effects = bench.step(Persisted(store.token), sync=False)
    assert votes(effects) == [(N, 1)]
    assert len(of(effects, Store)) == 1, "now there is a certificate, and a finalize vote"


def test_the_proposal_may_leave_before_the_flush_but_not_the_leaders_vote() -> None:
    """R2: the body goes first, so that the leader's flush overlaps with everybody's."""
    bench = Bench(seat=1)
    bench.application.known[5] = None
    effects = bench.step(Work(), sync=False)
    assert [type(e).__name__ for e in effects] == ["Broadcast", "Store"]
    assert said(effects, Vote) == []


def test_a_flush_is_honoured_once() -> None:
    """A token that was answered, or never given, releases nothing."""
    bench = Bench()
    bench.application.known[5] = None
    (store,) = bench.propose(bench.block(1, 5), sync=False)
    assert len(bench.step(Persisted(store.token))) > 0
    assert bench.step(Persisted(store.token)) == []
    assert bench.step(Persisted(99)) == []


def test_a_restart_never_contradicts_a_durable_vote() -> None:
    """R11: after a crash the same view gets no second block, and the old vote is said again."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    bench.propose(bench.block(1, 5))
    bench.application = Counters()
    bench.application.known.update({5: None, 6: None})
    bench.boot()
    assert votes(bench.propose(bench.block(1, 6))) == []
    bench.hear_all()
    assert (N, 1) in votes(bench.effects[-20:])


def test_the_view_after_a_restart_follows_from_all_rows() -> None:
    """R11: the highest of votes and certificates counts, whatever was written last."""
    bench = Bench()
    bench.hear_all()
    bench.receive(1, Certificates(certificates=tuple(bench.certificate(X, v) for v in (1, 2, 3))))
    bench.application.known[5] = None
    bench.hear_all()
    bench.step(Work())  # seat 0 leads view 4: its vote makes the certificates durable
    assert bench.engine.status()["view"] == 4
    bench.boot()
    assert bench.engine.status()["view"] == 4
    assert sorted(bench.engine._live.nullified) == [1, 2, 3]


def test_rows_of_decided_views_are_deleted_with_a_later_store() -> None:
    """R8: nothing of a view at or below the floor stays, and no flush is spent on that."""
    bench = Bench()
    first = bench.decide(1, 5)
    assert bench.rows
    bench.decide(2, 6, parent=first)
    assert {int.from_bytes(key[1:9], "big") for key in bench.rows} == {2}


def test_an_unreadable_row_stops_the_node() -> None:
    """A vote that cannot be read back might be contradicted: no engine, but ``StorageError``."""
    bench = Bench()
    bench.application.known[5] = None
    bench.propose(bench.block(1, 5))
    for key in list(bench.rows):
        rows = bench.rows | {key: bench.rows[key][:-1]}
        with pytest.raises(StorageError):
            Bench(rows=rows)
    with pytest.raises(StorageError):
        Bench(rows={b"?": b""})


# --- what is refused ---------------------------------------------------------------------


def test_the_first_proposal_of_a_view_wins() -> None:
    """R3: a second block for the view is not even looked at."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    bench.propose(bench.block(1, 5))
    assert bench.propose(bench.block(1, 6)) == []


def test_only_the_leader_proposes() -> None:
    """R3: a block from any other seat is refused, even if it names the leader."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    assert bench.receive(2, Proposal(block=block, justification=())) == []
    assert bench.engine.status()["refused"] == 1


def test_a_skipped_view_needs_proof() -> None:
    """R3: no vote for a block over a view that was not proved nullified; the proof is asked."""
    bench = Bench()
    bench.hear_all()
    bench.application.known[5] = None
    bench.receive(1, Certificates(certificates=(bench.certificate(X, 2),)))
    block = bench.block(3, 5, parent_view=0)
    effects = bench.propose(block)
    assert votes(effects) == []
    assert [ask.start for ask in said(effects, Ask)] == [1]
    assert votes(bench.receive(3, Certificates(certificates=(bench.certificate(X, 1),)))) == [
        (N, 3)
    ]


def test_justification_brings_a_validator_up_to_the_proposal() -> None:
    """R3: with the certificates that the leader attached nothing needs to be asked."""
    bench = Bench()
    bench.application.known[5] = None
    proofs = [bench.certificate(X, view) for view in (1, 2)]
    assert votes(bench.propose(bench.block(3, 5), *proofs)) == [(N, 3)]


def test_an_uncertified_parent_is_waited_for() -> None:
    """R3: holding the parent's block is not enough; it needs a certificate."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    first = bench.block(1, 5)
    bench.propose(first)
    bench.receive(3, Certificates(certificates=(bench.certificate(X, 1),)))
    second = bench.block(2, 6, parent=first)
    assert votes(bench.propose(second)) == []
    assert (N, 2) in votes(
        bench.receive(3, Certificates(certificates=(bench.certificate(N, first),)))
    )


@pytest.mark.parametrize("fault", ["height", "parent_view", "content"])
def test_a_wrong_block_ends_the_view(fault: str) -> None:
    """R3, R6: a block that can never be right is voted down at once."""
    bench = Bench()
    bench.application.known[5] = None
    if fault == "height":
        block = bench.block(1, 5, height=2)
    elif fault == "parent_view":
        block = bench.block(1, 5, parent_view=1)
    else:
        good = bench.block(1, 5)
        block = type(good)(header=good.header, content=b"\x80")
    assert votes(bench.propose(block)) == [(X, 1)]


def test_missing_bodies_are_waited_for() -> None:
    """R3: while bodies are missing there is no vote; after ``Work`` there is."""
    bench = Bench()
    assert votes(bench.propose(bench.block(1, 5))) == []
    assert votes(bench.work(5)) == [(N, 1)]


def test_nullify_excludes_finalize() -> None:
    """R5, R6: who gave the view up never finalizes it, even with a certificate in hand."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.hear_all()
    bench.propose(block)
    assert (X, 1) in votes(bench.pass_time(4 * DELTA_MS))
    bench.vote(1, N, block)
    effects = bench.vote(2, N, block)
    assert bench.engine.status()["view"] == 2
    assert (F, 1) not in votes(effects)


def test_finalize_excludes_nullify_and_may_come_late() -> None:
    """R5: with cur > v the finalize vote is still given, if v was not given up."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.receive(3, Certificates(certificates=(bench.certificate(N, block),)))
    assert bench.engine.status()["view"] == 2
    assert votes(bench.receive(1, Body(block=block))) == [(F, 1)]


def test_the_leaders_own_nullify_ends_the_wait() -> None:
    """R6: when the leader gives its view up, so does everybody."""
    bench = Bench()
    assert votes(bench.vote(1, X, 1)) == [(X, 1)]
    assert votes(Bench().vote(2, X, 1)) == []


# --- votes and evidence ------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [(N, N), (F, F)])
def test_equivocation_is_evidence_and_neither_vote_counts(kinds: tuple) -> None:
    """R0: two statements in one slot are handed out, checkable by strangers, and ignored."""
    bench = Bench()
    one, other = bench.block(1, 5), bench.block(1, 6)
    bench.vote(2, kinds[0], one)
    (evidence,) = of(bench.vote(2, kinds[1], other), Evidence)
    assert (evidence.seat, evidence.kind) == (2, "equivocation")
    for raw in (evidence.first, evidence.second):
        proof = decode_certificate(raw)
        statement = vote_bytes(proof.ledger, proof.epoch, proof.kind, proof.view, proof.digest)
        key = bench.epoch.validators[2].vote_key
        assert proof.signers == 1 << 2
        assert ideal_verify(key, proof.signatures[0], statement)
    assert of(bench.vote(2, kinds[0], one), Evidence) == []
    bench.vote(1, kinds[0], one)
    bench.vote(3, kinds[0], one)
    assert bench.engine.status()["view"] == 1, "the liar's vote made a certificate"


def test_nullify_and_finalize_together_are_evidence() -> None:
    """R0: no honest validator says both of one view."""
    bench = Bench()
    bench.vote(2, X, 1)
    (evidence,) = of(bench.vote(2, F, bench.block(1, 5)), Evidence)
    assert evidence.kind == "nullify_and_finalize"


def test_a_forged_vote_is_no_evidence() -> None:
    """R0: nothing is held against a seat whose signature does not verify."""
    bench = Bench()
    bench.vote(2, N, bench.block(1, 5))
    forged = bench.signed(3, N, 1, header_digest(bench.block(1, 6).header))
    assert bench.receive(2, forged) == []
    assert bench.engine.status()["refused"] == 1


def test_nothing_a_peer_sends_raises() -> None:
    """R0: bytes that are no message, seats that do not exist, our own seat: all ignored."""
    bench = Bench()
    for sender in (-1, 0, 1, 4, 255):
        for raw in (b"", b"\xff", b"\x80", b"\x81\x07", bytes(300)):
            assert bench.step(Receive(sender, raw)) == []
    assert bench.receive(1, Vote(kind=2, view=1, digest=bytes(32), signature=bytes(64))) == []
    assert bench.receive(1, Vote(kind=1, view=1, digest=b"", signature=bytes(64))) == []
    assert bench.receive(1, Ask(floor=2**53, start=2**53, blocks=())) == []


def test_memory_does_not_follow_a_talkative_liar() -> None:
    """R0: votes outside the window are dropped; inside, one slot per seat, view and kind."""
    bench = Bench()
    for view in range(60):
        for salt in range(5):
            bench.vote(3, N, bench.block(view, salt))
    tallies = bench.engine._ballots._tallies
    assert sorted(tallies) == list(range(1, 2 + AHEAD_MAX))
    assert all(len(tally) <= 3 for tally in tallies.values())
    assert len(bench.engine._live.blocks) == 0


def test_a_node_far_behind_keeps_a_bounded_window() -> None:
    """A node that cannot connect keeps no more than the newest views, and still recovers."""
    bench = Bench()
    parent, chain = None, []
    for view in range(1, 201):
        parent = bench.block(view, view, parent=parent)
        chain.append(parent)
        bench.receive(2, Certificates(certificates=(bench.certificate(F, parent),)))
    live = bench.engine._live
    assert len(live.finalized) <= KEPT_VIEWS
    assert len(live.bodiless) <= KEPT_VIEWS
    for block in chain:
        bench.application.apply(block)
        bench.step(Certified(block.header, bench.certificate(F, block)))
    assert bench.engine.status()["height"] == 200
    bench.decide(201, 500, parent=parent)


def test_each_signature_is_verified_once() -> None:
    """A vote of a certified statement, or a signature that was counted, costs nothing."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.propose(block)
    bench.vote(1, N, block)
    bench.vote(2, N, block)
    assert bench.verified == 2
    bench.vote(3, N, block)
    bench.vote(1, N, block)
    bench.receive(2, Certificates(certificates=(bench.certificate(N, block),)))
    assert bench.verified == 2
    bench.vote(1, F, block)
    bench.receive(2, Certificates(certificates=(bench.certificate(F, block, 1, 2, 3),)))
    assert bench.verified == 5, "seat 1 was known; seats 2 and 3 were not"


# --- deciding with ancestors -------------------------------------------------------------


def test_ancestors_are_decided_first_and_in_order() -> None:
    """R8: a certificate decides all ancestors; those without one of their own get ``None``."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    first = bench.block(1, 5)
    second = bench.block(2, 6, parent=first)
    bench.propose(first)
    bench.propose(second, bench.certificate(N, first))
    effects = bench.receive(1, Certificates(certificates=(bench.certificate(F, second),)))
    decided = of(effects, Decide)
    assert [(d.block.header.height, d.certificate is None) for d in decided] == [
        (1, True),
        (2, False),
    ]


def test_a_certified_block_without_its_bytes_is_asked_for() -> None:
    """R8: a finalized block that is missing is fetched by digest and then decided."""
    bench = Bench()
    bench.hear_all()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.receive(1, Certificates(certificates=(bench.certificate(F, block),)))
    asks = said(bench.pass_time(DELTA_MS), Ask)
    assert asks[0].blocks == (header_digest(block.header),)
    assert len(of(bench.receive(3, Body(block=block)), Decide)) == 1


def test_false_bytes_under_a_certified_header_are_not_kept() -> None:
    """A peer that answers with other content is refused, and the true bytes still fit."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.receive(1, Certificates(certificates=(bench.certificate(F, block),)))
    false = type(block)(header=block.header, content=b"\x80")
    assert of(bench.receive(3, Body(block=false)), Decide) == []
    assert len(of(bench.receive(2, Body(block=block)), Decide)) == 1


def test_certified_moves_the_floor_over_views() -> None:
    """A block decided elsewhere: the engine goes on above it and signs nothing below."""
    bench = Bench()
    block = bench.block(6, 5)
    bench.application.apply(block)
    bench.step(Certified(block.header, bench.certificate(F, block)))
    assert bench.engine.status() | {"view": 7, "floor": 6, "height": 1} == bench.engine.status()
    assert votes(bench.propose(bench.block(5, 6))) == []
    assert bench.decide(7, 6, parent=block)


def test_behind_names_who_proved_it() -> None:
    """A proved floor beyond us is reported with height and seat, once a delta."""
    bench = Bench()
    far = bench.block(50, 5, height=40, parent_view=49)
    message = Decided(header=far.header, certificate=bench.certificate(F, far))
    assert of(bench.receive(2, message), Behind) == [Behind(height=40, seat=2)]
    assert of(bench.receive(2, message), Behind) == []
    bench.now += DELTA_MS
    assert of(bench.receive(2, message), Behind) == [Behind(height=40, seat=2)]


def test_a_false_floor_is_refused() -> None:
    """``Decided`` whose certificate is of another header, or too small, moves nothing."""
    bench = Bench()
    far, other = bench.block(50, 5, height=40), bench.block(50, 6, height=40)
    for proof in (bench.certificate(F, other), bench.certificate(F, far, 1, 2)):
        assert bench.receive(2, Decided(header=far.header, certificate=proof)) == []
    assert bench.engine.status()["refused"] == 2


# --- talking to those who lag ------------------------------------------------------------


def test_a_stale_vote_is_answered_with_the_floor() -> None:
    """R9: who still votes in a decided view gets header and certificate, but not in a race."""
    bench = Bench()
    block = bench.decide(1, 5)
    assert bench.vote(3, F, block) == [], "this vote was just late"
    bench.now += DELTA_MS
    (answer,) = said(bench.vote(3, F, block), Decided)
    assert answer.header == block.header
    assert bench.vote(3, X, 1) == [], "not twice at once"


def test_a_vote_from_the_future_is_asked_about() -> None:
    """R0, R10: nothing beyond the window is kept; the sender is asked, twice a delta at most."""
    bench = Bench()
    effects = bench.vote(3, X, 2 + AHEAD_MAX)
    assert [type(m) for m in said(effects)] == [Ask]
    assert bench.vote(3, X, 50) == []
    bench.now += DELTA_MS // 2
    assert len(said(bench.vote(3, X, 50), Ask)) == 1


def test_an_ask_is_answered_upward_from_where_it_stands() -> None:
    """R10: floor, certificates from ``start`` up, asked blocks; then nothing for a while."""
    bench = Bench()
    first = bench.decide(1, 5)
    bench.receive(2, Certificates(certificates=tuple(bench.certificate(X, v) for v in (2, 3, 4))))
    ask = Ask(floor=0, start=3, blocks=(header_digest(first.header), bytes(32)))
    answer = said(bench.receive(3, ask))
    assert [type(m) for m in answer] == [Decided, Certificates, Body]
    assert [c.view for c in answer[1].certificates] == [3, 4]
    assert answer[2].block == first
    assert bench.receive(3, ask) == []


# --- time --------------------------------------------------------------------------------


def test_no_timer_without_work() -> None:
    """R1: an idle validator has no deadline, whoever is heard."""
    bench = Bench()
    bench.hear_all()
    assert bench.engine.deadline is None


def test_no_timer_without_a_quorum() -> None:
    """R1: with work but too few heard no timer runs; it starts when enough are."""
    bench = Bench()
    bench.work(5)
    bench.now = 60_000
    bench.vote(1, N, bench.block(1, 5))
    assert bench.engine.deadline is None
    bench.vote(2, N, bench.block(1, 5))
    assert bench.engine.deadline is not None


def test_a_cut_off_validator_stops_counting_time() -> None:
    """R1: when the others fall silent the timers rest, and no view runs away."""
    bench = Bench()
    bench.hear_all()
    bench.work(5)
    bench.pass_time(60_000, hear=False)
    assert bench.engine.deadline is None
    assert bench.engine.status()["view"] == 1


def test_a_leader_that_is_late_is_given_up_after_two_deltas() -> None:
    """R6: no proposal within 2 deltas; with one, 3 deltas for the certificate."""
    for proposed, deltas in ((False, 2), (True, 3)):
        bench = Bench()
        bench.hear_all()
        bench.application.known[5] = None
        bench.step(Work())
        if proposed:
            bench.propose(bench.block(1, 5))
        assert (X, 1) not in votes(bench.pass_time(deltas * DELTA_MS - 1))
        assert (X, 1) in votes(bench.pass_time(1))


def test_a_silent_leader_is_skipped_at_once() -> None:
    """R1: with q - 1 others heard and the leader silent for 6 deltas there is no wait."""
    bench = Bench()
    bench.now = 6 * DELTA_MS
    for seat in (2, 3):
        bench.vote(seat, X, 2)
    assert votes(bench.effects) == [(X, 1)]


def test_the_wait_doubles_and_falls_back() -> None:
    """R1: each lost view doubles delta up to 32 times; a decision resets it."""
    bench = Bench()
    bench.hear_all()
    bench.work(5)
    seen = []
    for view in range(1, 9):
        bench.hear_all()
        for seat in (1, 2, 3):
            bench.vote(seat, X, view)
        seen.append(bench.engine.status()["delta_ms"])
    assert seen == [400, 800, 1600, 3200, 6400, 6400, 6400, 6400]
    proof = [bench.certificate(X, view) for view in range(1, 9)]
    block = bench.block(9, 5)
    bench.propose(block, *proof)
    for kind in (N, F):
        bench.vote(1, kind, block)
        bench.vote(2, kind, block)
    assert bench.engine.status()["delta_ms"] == DELTA_MS


def test_while_stuck_own_votes_are_said_again_ever_more_rarely() -> None:
    """R6: after 4 deltas plus jitter, then twice that, never more than 30 s apart."""
    bench = Bench()
    bench.hear_all()
    bench.work(5)
    times = []
    end = 200_000
    while bench.now < end:
        if (X, 1) in votes(bench.pass_time(50)):
            times.append(bench.now)
    gaps = [later - earlier for earlier, later in pairwise(times[1:])]
    assert 4 * DELTA_MS <= times[1] <= 5 * DELTA_MS + 50
    assert all(gap >= 1.5 * earlier for earlier, gap in pairwise(gaps[:4]))
    assert 30_000 <= max(gaps) <= 30_000 + 2 * DELTA_MS


def test_the_leader_repeats_its_proposal_after_a_restart() -> None:
    """R6, R11: a lost proposal would cost the view; the block is durable with the vote."""
    bench = Bench(seat=1)
    bench.work(5)
    bench.application = Counters()
    bench.application.known[5] = None
    bench.boot()
    bench.step(Work())
    before = len(bench.effects)
    bench.hear_all()
    repeated = said(bench.effects[before:])
    assert [type(m).__name__ for m in repeated[:2]] == ["Proposal", "Vote"]


# --- our caller --------------------------------------------------------------------------


class _Verbose(Counters):
    def build(self, parent: bytes, view: int) -> Content:
        return Content(hash=bytes(32), data=bytes(CONTENT_BYTES_MAX + 1))


def test_a_block_that_fits_no_frame_is_our_callers_fault() -> None:
    """``LocalProtocolError`` before anything is sent or signed."""
    bench = Bench(seat=1)
    bench.application = _Verbose()
    with pytest.raises(LocalProtocolError):
        bench.boot()


class _Confused(Counters):
    def build(self, parent: bytes, view: int) -> Content:
        return Content(hash=bytes(32), data=b"not what the hash says")


def test_a_leader_does_not_send_what_it_would_refuse() -> None:
    """R2: the own block is judged like any other, in advance or not; then the view is silent."""
    bench = Bench(seat=1)
    bench.application = _Confused()
    bench.boot()
    assert said(bench.work(1), Proposal) == []
    assert bench.engine._live.blocks == {}


def test_an_impossible_epoch_is_refused() -> None:
    """Two seats for one device would make quorums mean nothing."""
    epoch = make_epoch(4)
    twice = Epoch(
        ledger=epoch.ledger,
        number=0,
        liars=1,
        validators=(*epoch.validators[:3], Validator(epoch.validators[0].node, bytes(32))),
    )
    bench = Bench()
    bench.epoch = twice
    with pytest.raises(LocalProtocolError):
        bench.boot()


def test_messages_to_one_seat_never_go_to_ourselves() -> None:
    """Nobody is asked in a mesh of one, and no seat asks itself."""
    bench = Bench(seats=1)
    bench.work(1)
    bench.work(2)
    assert of(bench.effects, SendTo) == []
