"""R13: linearizable reads, from one seat and in whole meshes."""

from __future__ import annotations

import pytest
from bench_seat import Bench, F, N, of, said
from simulation import Mesh, Weather

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import Decided, Hello, Standing
from p2pmed.consensus.bft.reads import READ_MS, READS_MAX
from p2pmed.consensus.interface import Leave, Read, ReadAt, ReadFailed


def stand(bench: Bench, seat: int, *heads: Decided, voted: int = 0):
    return bench.receive(seat, Standing(bench.engine._reads._round, voted, (), heads, ()))


def test_a_mesh_of_one_reads_at_once() -> None:
    """R13: with q = 1 the own height is the answer."""
    bench = Bench(seats=1)
    bench.work(5)
    assert of(bench.step(Read(7)), ReadAt) == [ReadAt(7, 1)]


def test_a_read_waits_for_a_quorum() -> None:
    """R13: q - 1 others must say where they stand after the read came."""
    bench = Bench()
    assert len(said(bench.step(Read(7)), Hello)) == 1
    assert of(stand(bench, 1), ReadAt) == []
    assert of(stand(bench, 1), ReadAt) == []
    assert of(stand(bench, 2), ReadAt) == [ReadAt(7, 0)]
    assert bench.engine.deadline is None


def test_a_block_that_a_peer_voted_to_finalize_counts() -> None:
    """R13: whoever put the certificate together may be gone; its voters know the block."""
    bench = Bench()
    block = bench.block(1, 5)
    bench.step(Read(7))
    stand(bench, 1, Decided(block.header, bench.certificate(N, block)))
    assert of(stand(bench, 2), ReadAt) == [ReadAt(7, 1)]


def test_our_own_vote_to_finalize_counts() -> None:
    """R13: we are one of the quorum."""
    bench = Bench()
    bench.application.known[5] = None
    block = bench.block(1, 5)
    bench.propose(block)
    bench.vote(1, N, block)
    bench.vote(2, N, block)
    bench.step(Read(7))
    stand(bench, 1)
    assert of(stand(bench, 2), ReadAt) == [ReadAt(7, 1)]
    (standing,) = said(bench.receive(3, Hello(round=4)), Standing)
    assert [h.header.height for h in standing.head] == [1]


def test_a_height_needs_its_proof() -> None:
    """R13: a liar cannot send a reader after a height that nobody notarized."""
    bench = Bench()
    far, other = bench.block(9, 5, height=900), bench.block(9, 6, height=900)
    bench.step(Read(7))
    for proof in (bench.certificate(N, other), bench.certificate(N, far, 1, 2)):
        assert stand(bench, 1, Decided(far.header, proof)) == []
    stand(bench, 1)
    assert of(stand(bench, 2), ReadAt) == [ReadAt(7, 0)]


def test_without_a_quorum_a_read_fails() -> None:
    """R13: within ``READ_MS``, after asking again meanwhile; later answers change nothing."""
    bench = Bench()
    bench.step(Read(7))
    effects = bench.pass_time(READ_MS + 200)
    assert of(effects, ReadFailed) == [ReadFailed(7)]
    assert len(said(effects, Hello)) > 3
    assert bench.engine.deadline is None
    assert of(stand(bench, 1) + stand(bench, 2), ReadAt) == []


def test_reads_share_the_next_round() -> None:
    """R13: a read never joins a round that was out before it came."""
    bench = Bench()
    bench.step(Read(1))
    bench.step(Read(2))
    bench.step(Read(3))
    stand(bench, 1)
    effects = stand(bench, 2)
    assert of(effects, ReadAt) == [ReadAt(1, 0)]
    stand(bench, 1)
    assert of(stand(bench, 2), ReadAt) == [ReadAt(2, 0), ReadAt(3, 0)]


def test_reads_have_a_limit() -> None:
    """R13: beyond ``READS_MAX`` a read is refused at once."""
    bench = Bench()
    for token in range(READS_MAX):
        assert of(bench.step(Read(token)), ReadFailed) == []
    assert of(bench.step(Read(READS_MAX)), ReadFailed) == [ReadFailed(READS_MAX)]


def test_an_amnesiac_reads_nothing() -> None:
    """R12, R13: its own vote may be the one that matters, and it forgot it."""
    bench = Bench()
    bench.boot(greeted=False, amnesic=True)
    assert of(bench.step(Read(7)), ReadFailed) == [ReadFailed(7)]


@pytest.mark.parametrize("seats", [1, 3, 4, 7])
def test_reads_in_a_mesh_never_miss_what_was_final(seats: int) -> None:
    """R13: in bad weather, each answer is at or above all that was final when it was asked."""
    answers = failures = 0
    for seed in range(6):
        mesh = Mesh(BftEngine, seats=seats, seed=seed)
        mesh.begin()
        asked: dict[tuple[int, int], int] = {}
        for token in range(40):
            mesh.run(mesh.now + 150)
            node = mesh.nodes[token % seats]
            if node.engine is None:
                continue
            asked[node.seat, token] = max(mesh.decisions, default=0)
            node.step(Read(token))
            mesh.run(mesh.now + 20)
        mesh.run(mesh.now + 3_000)
        for node in mesh.nodes:
            for effect in node.reads:
                if isinstance(effect, ReadAt):
                    answers += 1
                    assert effect.height >= asked[node.seat, effect.token]
                else:
                    failures += 1
    assert answers > 60, f"{answers} answers, {failures} failures"


def test_a_leader_that_leaves_is_not_waited_for() -> None:
    """R6: on ``Leave`` the leader gives up its view, so that the next one leads when work comes."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather(item_every=0))
    mesh.begin()
    mesh.run(2_000)
    leader = mesh.nodes[mesh.nodes[0].engine.status()["leader"]]
    leader.step(Leave())
    mesh.run(mesh.now + 1_000)
    leader.crash()
    mesh.run(mesh.now + 100)
    start = mesh.now
    others = [node for node in mesh.nodes if node is not leader]
    for node in others:
        node.learn(1)
    mesh.run(mesh.now + 5_000, done=lambda: bool(mesh.decisions))
    assert mesh.now - start < 200


def test_a_follower_that_leaves_changes_nothing() -> None:
    """R6: only the leader is waited for."""
    bench = Bench()
    assert bench.step(Leave()) == []
    leader = Bench(seat=1)
    assert [m.view for m in said(leader.step(Leave()))] == [1]
    assert F not in [m.kind for m in said(leader.effects) if hasattr(m, "kind")]
