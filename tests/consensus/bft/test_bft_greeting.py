"""R11 and R12: hello before the first vote, and recovery from forgotten votes."""

from __future__ import annotations

import pytest
from bench_seat import Bench, F, N, X, of, said, votes
from byzantine import Monitor
from simulation import Mesh, Node, Weather, make_epoch

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import Certificates, Hello, Standing
from p2pmed.consensus.bft.restraint import SKIP_MAX
from p2pmed.consensus.interface import Recovered, Resumed, Store, Work, header_digest
from p2pmed.engine import Persisted


def silent_bench(**boot: bool) -> Bench:
    """A life that nobody has answered yet."""
    bench = Bench()
    bench.boot(greeted=False, **boot)
    bench.hear_all()
    return bench


def answer(bench: Bench, seat: int, **said_there):
    given = {"voted": 0, "admits": (), "head": (), "yours": (), **said_there}
    given.setdefault("round", bench.engine._greeting._round)
    return bench.receive(seat, Standing(**given))


# --- R11 ---------------------------------------------------------------------------------


def test_nothing_is_signed_before_a_quorum_was_greeted() -> None:
    """R11: q - 1 others must answer; what was proposed meanwhile is voted for then."""
    bench = silent_bench()
    bench.application.known[5] = None
    assert votes(bench.propose(bench.block(1, 5))) == []
    assert bench.engine.status()["lacking"] == 2
    assert votes(answer(bench, 1)) == []
    assert votes(answer(bench, 1)) == [], "one seat counts once"
    assert votes(answer(bench, 2)) == [(N, 1)]
    assert bench.engine.status()["phase"] == "voting"


def test_hellos_follow_who_is_heard_and_need_no_timer() -> None:
    """R11: everybody is asked at the start, then whoever speaks and has not answered."""
    bench = Bench()
    bench.boot(greeted=False)
    assert [type(m) for m in said(bench.step(Work()))] == [Hello]
    assert bench.engine.deadline is None
    bench.now += 1_000
    bench.hear_all()
    assert len(said(bench.effects[-3:], Hello)) == 3
    answer(bench, 1)
    bench.now += 1_000
    before = len(bench.effects)
    bench.hear_all()
    assert len(said(bench.effects[before:], Hello)) == 2


def test_an_answer_to_another_life_does_not_count() -> None:
    """R11: the round of the question must come back."""
    bench = silent_bench()
    answer(bench, 1, round=77)
    answer(bench, 2, round=77)
    assert bench.engine.status()["phase"] == "greeting"
    assert bench.engine.status()["refused"] == 2


def test_an_answer_with_a_false_proof_does_not_count() -> None:
    """R11: certificates in an answer are checked like any other."""
    bench = silent_bench()
    small = bench.certificate(X, 3, 1, 2)
    answer(bench, 1, admits=(small,))
    answer(bench, 2, admits=(small,))
    assert bench.engine.status()["phase"] == "greeting"


def test_who_shows_us_a_vote_that_we_forgot_sends_us_into_recovery() -> None:
    """R11: our own signature on a vote that is not on this disk means that the disk lied."""
    bench = silent_bench()
    forgotten = bench.signed(0, N, 1, header_digest(bench.block(1, 5).header))
    answer(bench, 1, yours=(forgotten,))
    assert bench.engine.status()["phase"] == "recovering"
    assert bench.engine.status()["lacking"] == 3


def test_nobody_sends_us_into_recovery_with_a_forged_vote() -> None:
    """R11: only our own signature proves that we voted."""
    bench = silent_bench()
    forged = bench.signed(1, N, 1, header_digest(bench.block(1, 5).header))
    answer(bench, 1, yours=(forged,))
    assert bench.engine.status()["phase"] == "greeting"


def test_a_vote_that_we_know_is_no_surprise() -> None:
    """R11: an ordinary restart: others hold our votes, and so do we."""
    bench = Bench()
    bench.application.known[5] = None
    bench.hear_all()
    block = bench.block(1, 5)
    bench.propose(block)
    bench.vote(1, N, block)
    bench.vote(2, N, block)
    bench.step(Work())
    bench.boot(greeted=False)
    digest = header_digest(block.header)
    answer(bench, 1, yours=(bench.signed(0, N, 1, digest),))
    answer(bench, 2, yours=(bench.signed(0, F, 1, digest),))
    assert bench.engine.status()["phase"] == "voting"


def test_an_answer_says_what_is_held_of_the_asker() -> None:
    """R11: the newest vote of the asker, the highest certificate, the highest own vote."""
    bench = Bench()
    block = bench.block(1, 5)
    bench.vote(2, N, block)
    bench.receive(3, Certificates(certificates=(bench.certificate(X, 1),)))
    (standing,) = said(bench.receive(2, Hello(round=9)), Standing)
    assert standing.round == 9
    assert [(v.kind, v.view) for v in standing.yours] == [(N, 1)]
    assert [(c.kind, c.view) for c in standing.admits] == [(X, 1)]
    assert said(bench.receive(2, Hello(round=9)), Standing) == [], "not twice at once"


# --- R12 ---------------------------------------------------------------------------------


def test_an_amnesiac_needs_a_quorum_of_others() -> None:
    """R12: q answers of others, where an ordinary restart needs q - 1; and it answers nobody."""
    bench = silent_bench(amnesic=True)
    answer(bench, 1)
    answer(bench, 2)
    assert bench.engine.status()["lacking"] == 1
    assert said(bench.receive(1, Hello(round=3)), Standing) == []
    effects = answer(bench, 3)
    assert of(effects, Recovered) == [Recovered()]
    assert bench.engine.status()["phase"] == "voting"


def test_the_bound_is_durable_with_the_news_of_recovery() -> None:
    """R12: one step gives ``Recovered`` and the ``Store`` of the bound; a restart keeps it."""
    bench = silent_bench(amnesic=True)
    for seat in (1, 2):
        answer(bench, seat)
    effects = answer(bench, 3)
    (store,) = of(effects, Store)
    assert [(r.key[:1], int.from_bytes(r.key[1:9], "big")) for r in store.records] == [
        (b"a", 1 + 1 + SKIP_MAX)
    ]
    bench.application.known[5] = None
    bench.boot()
    assert votes(bench.propose(bench.block(1, 5))) == [], "abstains after the restart too"


def test_where_it_may_vote_again() -> None:
    """R12: nothing up to V + 1; above, all but finalize up to V + 1 + SKIP_MAX; then all."""
    bench = silent_bench(amnesic=True)
    proof = (bench.certificate(X, 4),)
    answer(bench, 1, admits=proof)
    answer(bench, 2, voted=5)
    answer(bench, 3, voted=5)
    may = bench.engine._ballots
    last = 5 + 1 + SKIP_MAX  # V is 5: the view after the certificate
    assert [v for v in range(1, 30) if may.may_notarize(v)] == list(range(7, 30))
    assert [v for v in range(1, 30) if may.may_nullify(v)] == list(range(7, 30))
    assert [v for v in range(1, 30) if may.may_finalize(v)] == list(range(last + 1, 30))


def test_a_liar_cannot_silence_an_amnesiac_for_ever() -> None:
    """R12: what a replier says that it voted counts only as far as an honest vote can lie."""
    bench = silent_bench(amnesic=True)
    answer(bench, 1)
    answer(bench, 2)
    answer(bench, 3, voted=2**53)
    assert bench.engine._ballots.may_notarize(1 + SKIP_MAX + 2)
    assert not bench.engine._ballots.may_notarize(1 + SKIP_MAX + 1)


def test_old_answers_do_not_count_for_a_second_loss() -> None:
    """R12: an answer that was given before the votes of a later life proves nothing of them."""
    bench = silent_bench(amnesic=True)
    first = bench.engine._greeting._round
    bench.rows.clear()
    bench.boot(greeted=False, amnesic=True)
    bench.engine._greeting._round = first + 1
    for seat in (1, 2, 3):
        answer(bench, seat, round=first)
    assert bench.engine.status()["phase"] == "recovering"


@pytest.mark.parametrize(("seats", "possible"), [(1, False), (2, False), (3, True), (4, True)])
def test_recovery_needs_more_seats_than_a_quorum(seats: int, possible: bool) -> None:
    """R12: with n = q there is nobody who could know; people decide then."""
    bench = Bench(seats=seats)
    bench.boot(greeted=False, amnesic=True)
    for seat in range(1, seats):
        answer(bench, seat)
    assert (bench.engine.status()["phase"] == "voting") is possible


def test_a_bound_that_was_passed_is_deleted() -> None:
    """R12: the row goes when the floor has passed the bound."""
    bench = silent_bench(amnesic=True)
    for seat in (1, 2, 3):
        answer(bench, seat)
    proof = [bench.certificate(X, view) for view in range(1, 9)]
    bench.application.known[5] = None
    block = bench.block(9, 5)
    bench.propose(block, *proof)
    for kind in (N, F):
        bench.vote(1, kind, block)
        bench.vote(2, kind, block)
    bench.application.known[6] = None
    bench.propose(bench.block(10, 6, parent=block))
    assert not [key for key in bench.rows if key[:1] == b"a"]


def test_a_flush_must_come_before_the_first_vote_after_recovery() -> None:
    """R12: the bound and a vote above it are in one commit, and the vote waits for it."""
    bench = silent_bench(amnesic=True)
    bench.application.known[5] = None
    proof = [bench.certificate(X, view) for view in range(1, 9)]
    for seat in (1, 2):
        answer(bench, seat)
    bench.propose(bench.block(9, 5), *proof)
    standing = Standing(bench.engine._greeting._round, 0, (), (), ())
    effects = bench.receive(3, standing, sync=False)
    (store,) = of(effects, Store)
    assert votes(effects) == []
    bench.step(Persisted(store.token))


@pytest.mark.parametrize(("seats", "resumed"), [(2, False), (4, True)])
def test_a_shown_vote_is_adopted_where_nobody_knows_more(seats: int, resumed: bool) -> None:
    """R11: with n = q, or on people's word, the vote is kept like one just given, and said."""
    bench = Bench(seats=seats)
    bench.boot(greeted=False, resumed=resumed)
    forgotten = bench.signed(0, X, 1, b"")
    bench.application.known[5] = None
    effects = answer(bench, 1, yours=(forgotten,))
    assert votes(effects)[0] == (X, 1)
    assert len([key for key in bench.rows if key[:1] == b"v"]) == 1
    answer(bench, seats - 1)
    assert bench.engine.status()["phase"] == "voting"
    assert (F, 1) not in votes(bench.propose(bench.block(1, 5)))


def test_who_holds_back_says_that_it_may_have_voted() -> None:
    """R12, one after the other: what one forgot must not look like nothing to the next."""
    bench = silent_bench(amnesic=True)
    answer(bench, 1, admits=(bench.certificate(X, 4),))
    answer(bench, 2, voted=5)
    answer(bench, 3, voted=5)
    bench.now += 1_000
    (standing,) = said(bench.receive(2, Hello(round=9)), Standing)
    assert standing.voted == 5 + 1


def test_the_word_of_people_ends_abstention_for_good() -> None:
    """``Resumed``: it votes at once, and a restart brings no bound back."""
    bench = silent_bench(amnesic=True)
    bench.application.known[5] = None
    for seat in (1, 2, 3):
        answer(bench, seat, voted=1)
    assert bench.engine.status()["abstains"] == 2
    assert votes(bench.propose(bench.block(1, 5))) == []
    bench.step(Resumed())
    assert bench.engine.status()["abstains"] == 0
    assert (N, 1) in votes(bench.effects)
    assert [key for key in bench.rows if key[:1] == b"a"] == []
    bench.boot()
    assert bench.engine.status()["abstains"] == 0


def test_the_word_of_people_changes_nothing_where_nothing_is_held_back() -> None:
    """``Resumed`` for a seat that holds nothing back changes nothing."""
    bench = Bench()
    bench.step(Resumed())
    assert bench.engine.status()["abstains"] == 0
    assert bench.rows == {}


# --- whole meshes ------------------------------------------------------------------------


class _Amnesic(BftEngine):
    """The engine of a home that was restored."""

    def __init__(self, **given) -> None:
        super().__init__(amnesic=True, **given)


@pytest.mark.parametrize("seats", [3, 4, 7])
def test_a_wiped_validator_comes_back_alone(seats: int) -> None:
    """R12: a disk is lost amid traffic; the seat recovers, votes, and contradicts nothing."""
    for seed in range(6):
        epoch = make_epoch(seats)
        monitor = Monitor(epoch)
        weather = Weather(item_every=15)
        mesh = Mesh(BftEngine, seats=seats, seed=seed, weather=weather, observers=(monitor,))
        mesh.begin()
        mesh.run(1_000 + 37 * seed)
        victim: Node = mesh.nodes[seed % seats]
        victim.crash()
        for key in [key for key in victim.disk.durable if key[:1] == b"E"]:
            del victim.disk.durable[key]
        victim._factory = _Amnesic
        mesh.run(mesh.now + 300)
        victim.start()
        mesh.run(mesh.now + 3_000)
        assert victim.engine.status()["phase"] == "voting"
        before = victim.stores
        mesh.run(mesh.now + 2_000)
        assert victim.stores > before, "it votes again"
        others = [node for node in mesh.nodes if node is not victim]
        for node in others[: seats - epoch.quorum]:
            node.crash()
        height = max(mesh.decisions)
        mesh.run(mesh.now + 5_000)
        assert max(mesh.decisions) > height + 10, "and the mesh can count on it"


def test_two_amnesiacs_of_four_wait_for_people() -> None:
    """R12: more than n - q at once cannot recover alone; they stay silent, and say so."""
    mesh = Mesh(BftEngine, seats=4, seed=1, weather=Weather(item_every=50))
    mesh.begin()
    mesh.run(1_000)
    for node in mesh.nodes[:2]:
        node.crash()
        node.disk.durable.clear()
        node._factory = _Amnesic
        node.start()
    mesh.run(20_000)
    for node in mesh.nodes[:2]:
        assert node.engine.status()["phase"] == "recovering"
        assert node.engine.status()["lacking"] == 1


def test_two_of_four_that_recover_in_one_view_go_on_by_the_word_of_people() -> None:
    """R12: one after the other in one view they hold back together; one word is enough."""
    mesh = Mesh(BftEngine, seats=4, seed=3, weather=Weather(item_every=0))
    mesh.begin()
    for _ in range(3):
        mesh.submit()
    mesh.run(2_000)
    for node in mesh.nodes[:2]:
        node.crash()
        for key in [key for key in node.disk.durable if key[:1] == b"E"]:
            del node.disk.durable[key]
        node._factory = _Amnesic
        node.start()
        mesh.run(mesh.now + 3_000)
        assert node.engine.status()["phase"] == "voting"
    assert all(node.engine.status()["abstains"] for node in mesh.nodes[:2])
    height = max(mesh.decisions)
    mesh.submit()
    mesh.run(mesh.now + 60_000)
    assert max(mesh.decisions) == height, "nobody may say what the two have signed"
    mesh.nodes[0].step(Resumed())
    mesh.run(mesh.now + 20_000)
    assert max(mesh.decisions) > height
