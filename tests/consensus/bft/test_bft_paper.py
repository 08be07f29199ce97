"""The arguments of Simplex (Chan and Pass, ePrint 2023/463) as tests, and known bugs of others.

The paper's safety rests on quorum intersection: no view is both notarized and nullified-and-
finalized, and a finalized block is an ancestor of all that is notarized later (its section 3.2,
our clause 8). Its liveness argument (section 3.3): once messages arrive in time, everybody
enters each view within one message of another, an honest leader's block is finalized, and a
faulty leader costs one time-out. Each pitfall names the project and issue where it bit.
"""

from __future__ import annotations

from itertools import combinations

import pytest
from bench_seat import Bench, F, N, X, of, said, votes
from byzantine import Disrupter, Monitor
from simulation import Counters, Mesh, Weather, make_epoch

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import (
    Body,
    Certificates,
    Decided,
    Vote,
)
from p2pmed.consensus.bft.pacemaker import DELTA_MS, LIVE_VIEWS_MAX, PATIENCE_MAX, Pacemaker
from p2pmed.consensus.interface import (
    Behind,
    Broadcast,
    Certified,
    Check,
    Decide,
    SendTo,
    header_digest,
)
from p2pmed.engine import Instant
from p2pmed.quorum.certificate import quorum_size

# --- the lemmas --------------------------------------------------------------------------


@pytest.mark.parametrize("seats", range(1, 21))
def test_two_quorums_share_an_honest_validator(seats: int) -> None:
    """Quorum intersection: any two certificates of n have f + 1 signers in common."""
    for liars in range((seats - 1) // 3 + 1):
        quorum = quorum_size(seats, liars)
        assert 2 * quorum - seats >= liars + 1
        assert quorum <= seats - liars, "and the honest alone are a quorum"


def test_quorums_intersect_by_enumeration() -> None:
    """The same for n = 7, f = 2, over all pairs of quorums."""
    quorums = [frozenset(q) for q in combinations(range(7), quorum_size(7, 2))]
    assert min(len(a & b) for a in quorums for b in quorums) == 3


def test_one_seat_never_helps_two_blocks_or_both_ways() -> None:
    """Lemma (consistency): whatever order certificates and proposals come in, one N, never X+F."""
    for order in range(6):
        bench = Bench()
        bench.application.known.update({5: None, 6: None})
        one, other = bench.block(1, 5), bench.block(1, 6)
        bench.hear_all()
        happenings = [
            lambda b=bench, o=one: b.propose(o),
            lambda b=bench, o=other: b.propose(o),
            lambda b=bench, o=other: b.receive(3, Certificates((b.certificate(N, o),))),
            lambda b=bench: b.vote(1, X, 1),
            lambda b=bench: b.pass_time(3 * DELTA_MS),
            lambda b=bench, o=other: b.receive(2, Body(block=o)),
        ]
        for happening in happenings[order:] + happenings[:order]:
            happening()
        given = [vote for vote in votes(bench.effects) if vote[1] == 1]
        digests = {
            vote.digest for vote in said(bench.effects, Vote) if (vote.kind, vote.view) == (N, 1)
        }
        assert len(digests) <= 1
        assert not ({(X, 1), (F, 1)} <= set(given))


def test_a_finalized_block_is_an_ancestor_of_all_later_ones() -> None:
    """Theorem (consistency): no vote for a block that leaves a finalized one out."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    first = bench.block(1, 5)
    bench.propose(first)
    bench.receive(3, Certificates((bench.certificate(F, first),)))
    beside = bench.block(2, 6, parent_view=0)
    assert (N, 2) not in votes(bench.propose(beside))


def test_everybody_enters_a_view_within_one_message() -> None:
    """Lemma (synchronous views): who made a certificate lets the others have it."""
    mesh = Mesh(BftEngine, seats=4, seed=3, weather=Weather(latency=(2, 2), sync=(10, 10)))
    mesh.begin()
    for _ in range(300):
        mesh.run(mesh.now + 7)
        views = [int(node.engine.status()["view"]) for node in mesh.nodes]
        assert max(views) - min(views) <= 1


@pytest.mark.parametrize("seats", [4, 7])
def test_a_faulty_leader_costs_a_time_out_and_no_more(seats: int) -> None:
    """Theorem (liveness): with f liars as noisy as they can be, work is final in bounded time."""
    liars = tuple(range(seats - (seats - 1) // 3, seats))
    epoch = make_epoch(seats)
    for seed in range(4):
        monitor = Monitor(epoch, liars)
        weather = Weather(item_every=0)
        mesh = Mesh(
            BftEngine,
            seats=seats,
            seed=seed,
            byzantine=liars,
            observers=(monitor,),
            weather=weather,
        )
        for seat in liars:
            Disrupter(mesh, seat)
        mesh.begin()
        mesh.run(1_000)
        mesh.heal()
        for _ in range(4):
            start = mesh.now
            mesh.submit()
            mesh.run(mesh.now + 60_000, done=mesh.all_decided)
            assert mesh.all_decided()
            assert mesh.now - start <= (len(liars) + 2) * 8 * DELTA_MS


# --- other people's bugs -----------------------------------------------------------------


def test_a_vote_said_again_is_the_vote_that_was_given() -> None:
    """ava-labs/Simplex#280: who gave a view up never finalizes it, not even by saying it again."""
    bench = Bench()
    bench.application.known[5] = None
    bench.hear_all()
    block = bench.block(1, 5)
    bench.propose(block)
    bench.pass_time(4 * DELTA_MS)
    bench.receive(3, Certificates((bench.certificate(N, block),)))
    bench.boot()
    bench.pass_time(60_000)
    assert (X, 1) in votes(bench.effects)
    assert (F, 1) not in votes(bench.effects)


def test_a_restart_reads_all_rows_and_not_the_last() -> None:
    """ava-labs/Simplex PR#328: an old vote read last must not bring an old view back."""
    bench = Bench()
    bench.hear_all()
    bench.application.known[5] = None
    bench.receive(1, Certificates(tuple(bench.certificate(X, view) for view in range(1, 6))))
    bench.propose(bench.block(6, 5))
    rows = bench.rows
    for order in (sorted(rows), sorted(rows, reverse=True)):
        assert Bench(rows={key: rows[key] for key in order}).engine.status()["view"] == 6


def test_a_view_is_given_up_once() -> None:
    """ava-labs/Simplex#486: time-outs, the leader's own vote and a bad block make one vote."""
    bench = Bench()
    bench.hear_all()
    bench.work(5)
    bench.pass_time(3 * DELTA_MS)
    bench.vote(1, X, 1)
    bench.propose(bench.block(1, 5, height=7))
    stored = [key for key in bench.rows if key[:1] == b"v"]
    assert len(stored) == 1


def test_a_claimed_number_never_shadows_a_block() -> None:
    """ava-labs/Simplex#544: blocks are known by their digest, whatever height a liar names."""
    bench = Bench()
    bench.application.known[5] = None
    block, forged = bench.block(1, 5), bench.block(1, 6, height=1)
    bench.receive(1, Certificates((bench.certificate(F, block),)))
    assert of(bench.receive(3, Body(block=forged)), Decide) == []
    assert len(of(bench.receive(2, Body(block=block)), Decide)) == 1


def test_nobody_is_shut_out_by_accusations() -> None:
    """ava-labs/Simplex#557: a skipped leader leads again once it votes; nobody must pardon it."""
    mesh = Mesh(BftEngine, seats=4, seed=2, weather=Weather(item_every=20))
    mesh.begin()
    mesh.run(2_000)
    mesh.nodes[1].crash()
    mesh.run(4_000)
    mesh.nodes[1].start()
    mesh.run(9_000)
    tail = mesh.nodes[0].chain[-40:]
    led = [block.header.proposer for block, _ in tail]
    assert led.count(1) >= 8


def test_notarized_here_and_nullified_there_goes_on() -> None:
    """commonware#2695: CN(v) and CX(v) may both be; either side accepts the other's next block."""
    bench = Bench()
    bench.application.known.update({5: None, 6: None})
    first = bench.block(1, 5)
    bench.receive(3, Certificates((bench.certificate(N, first),)))
    bench.receive(2, Certificates((bench.certificate(X, 1),)))
    over = bench.block(2, 6, parent_view=0)
    assert (N, 2) in votes(bench.propose(over))
    other = Bench()
    other.application.known.update({5: None, 6: None})
    other.receive(2, Certificates((other.certificate(X, 1),)))
    upon = other.block(2, 6, parent=first)
    other.propose(upon)
    other.receive(1, Certificates((other.certificate(N, first),)))
    assert (N, 2) in votes(other.receive(1, Body(block=first)))


def test_a_header_is_bound_to_its_view() -> None:
    """SeismicSystems/summit#173: a certificate of one view proves no header of another."""
    bench = Bench()
    block, same = bench.block(9, 5), bench.block(10, 5)
    moved = bench.certificate(F, same)
    assert header_digest(block.header) != header_digest(same.header)
    bench.receive(2, Decided(block.header, moved))
    assert bench.engine.status()["refused"] == 1
    assert of(bench.effects, Behind) == []


def test_one_block_behind_is_not_stuck() -> None:
    """dbft#17: who lacks just the last finalize votes is shown the floor by who has it."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather(item_every=0))
    mesh.begin()
    mesh.run(1_000)
    mesh.submit()
    late = mesh.nodes[3]
    mesh.run(mesh.now + 2_000, done=lambda: bool(mesh.decisions))
    for node in mesh.nodes[:3]:
        mesh._blocked[id(node), id(late)] = None
    mesh.run(mesh.now + 500)
    mesh._blocked.clear()
    mesh.run(mesh.now + 10_000, done=mesh.all_decided)
    assert mesh.all_decided()


def test_some_finalize_and_some_nullify_is_no_deadlock() -> None:
    """SmartBFT#622: half voted to finalize, half to nullify; a descendant decides."""
    mesh = Mesh(BftEngine, seats=4, seed=4, weather=Weather(item_every=0, latency=(150, 420)))
    mesh.begin()
    for _ in range(6):
        mesh.submit()
        mesh.run(mesh.now + 1_500)
    mesh.heal()
    mesh.run(mesh.now + 60_000, done=mesh.all_decided)
    assert mesh.all_decided()


def test_an_outage_does_not_stretch_the_time_outs() -> None:
    """tendermint#1464: an hour without a quorum; delta is what it was, and so is the view."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather())
    mesh.begin()
    mesh.run(2_000)
    gone = mesh.nodes[2:]
    for node in gone:
        node.crash()
    mesh.run(10_000)
    views = [node.engine.status()["view"] for node in mesh.nodes[:2]]
    mesh.run(10_000 + 3_600_000 // 20)
    assert [node.engine.status()["view"] for node in mesh.nodes[:2]] == views
    assert all(node.engine.status()["delta_ms"] <= 2 * DELTA_MS for node in mesh.nodes[:2])
    for node in gone:
        node.start()
    height = max(mesh.decisions)
    mesh.run(mesh.now + 3_000, done=lambda: max(mesh.decisions) > height)
    assert max(mesh.decisions) > height


def test_a_peer_that_takes_its_height_back_stalls_nobody() -> None:
    """CVE-2025-24371: a lower floor after a higher one changes nothing of what was proved."""
    bench = Bench()
    far, near = bench.block(50, 5, height=40), bench.block(20, 6, height=10)
    bench.receive(2, Decided(far.header, bench.certificate(F, far)))
    bench.now += DELTA_MS
    effects = bench.receive(2, Decided(near.header, bench.certificate(F, near)))
    assert [behind.height for behind in of(effects, Behind)] == [40]


# --- what never ends ---------------------------------------------------------------------


class _NeverReady(Counters):
    """An application whose bodies never come."""

    def check(self, block) -> Check:
        return Check.MISSING

    def pending(self) -> bool:
        return True


def test_views_that_nothing_decides_are_bounded() -> None:
    """Beyond ``LIVE_VIEWS_MAX`` a view waits twice as long as the one before: memory, rows and
    messages grow with the logarithm of time. One decision ends it."""
    bench = Bench()
    bench.application = _NeverReady()
    bench.boot()
    for view in range(1, LIVE_VIEWS_MAX + 40):
        bench.hear_all()
        for seat in (1, 2, 3):
            bench.vote(seat, X, view)
    bench.hear_all()
    wait = bench.engine.status()["delta_ms"] * 2
    assert bench.engine._give_up_at() - bench.now >= wait << PATIENCE_MAX
    bench.application = Counters()
    bench.engine._application = bench.application
    block = bench.block(LIVE_VIEWS_MAX + 45, 5)
    bench.application.apply(block)
    bench.step(Certified(block.header, bench.certificate(F, block)))
    assert len(bench.engine._live.nullified) == 0
    assert bench.engine.status()["delta_ms"] == DELTA_MS


def test_a_year_adds_few_views() -> None:
    """The sum of the waits: thirty views above the limit take more than a year."""
    pace = Pacemaker(seats=4, seat=0, quorum=3, rng=None, now=Instant(0))
    pace._slow = 99
    total = 0
    for beyond in range(30):
        pace._armed_at = Instant(0)
        total += pace.give_up_at(proposal_seen=False, undecided=LIVE_VIEWS_MAX + beyond)
    assert total > 365 * 24 * 3_600_000


# --- away for weeks ----------------------------------------------------------------------


def test_back_after_thirty_days_and_ten_thousand_blocks() -> None:
    """The one that returns asks, takes certified blocks in, forces no view on anybody, votes."""
    bench = Bench()
    chain, parent = [], None
    for height in range(1, 10_001):
        parent = bench.block(height + height // 7, height, parent=parent)
        chain.append(parent)
    tip = bench.certificate(F, chain[-1])
    bench.now = 30 * 24 * 3_600_000
    bench.boot()
    before = len(bench.effects)
    bench.receive(2, Decided(chain[-1].header, tip))
    assert [b.height for b in of(bench.effects[before:], Behind)] == [10_000]
    proof = bench.certificate(F, chain[0])
    for block in chain:
        bench.application.tip = header_digest(block.header)
        bench.step(Certified(block.header, tip if block is chain[-1] else proof))
    sent = [e for e in bench.effects[before:] if isinstance(e, Broadcast | SendTo)]
    assert len(sent) <= 20
    assert votes(bench.effects[before:]) == []
    assert bench.engine.status()["height"] == 10_000
    assert len(bench.engine._live.blocks) == 0
    view = chain[-1].header.view + 1
    assert bench.engine.status()["view"] == view
    bench.decide(view, 10_001, parent=chain[-1])


def test_who_returns_costs_the_others_no_view() -> None:
    """A mesh of four goes on at its pace while the fourth comes back and catches up."""
    mesh = Mesh(BftEngine, seats=4, seed=6, weather=Weather(item_every=20))
    mesh.begin()
    mesh.run(2_000)
    away = mesh.nodes[3]
    away.crash()
    mesh.run(12_000)
    views, height = mesh.nodes[0].engine.status()["view"], max(mesh.decisions)
    mesh.run(14_000)
    pace = (max(mesh.decisions) - height, mesh.nodes[0].engine.status()["view"] - views)
    away.start()
    views, height = mesh.nodes[0].engine.status()["view"], max(mesh.decisions)
    mesh.run(16_000)
    assert max(mesh.decisions) - height >= 0.8 * pace[0]
    assert mesh.nodes[0].engine.status()["view"] - views <= 1.2 * pace[1]
    mesh.run(mesh.now + 8_000)
    assert len(away.chain) >= max(mesh.decisions) - 3
    assert [block.header.proposer for block, _ in away.chain[-40:]].count(3) >= 8, "it leads too"
