"""From committed to decided: certificates, checks, catching up, and meshes of every size."""

from __future__ import annotations

import pytest
from raft_cores import Core, beat, carry, rows_of, take_over
from raft_simulation import LEDGER, Book, World, ideal_verify, keeping

from p2pmed.consensus.interface import Certified, Store
from p2pmed.consensus.raft.messages import (
    Append,
    Appended,
    AskVote,
    CertificateKnown,
    Floor,
    Vote,
)
from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.quorum.certificate import Epoch, check_certificate


def mesh(members: int) -> list[Core]:
    """Cores in agreement, seat 0 leading."""
    cores = [Core(members, seat) for seat in range(members)]
    cores[0].wait(1_000)
    carry(cores)
    assert cores[0].status["role"] == "leader"
    return cores


def everybody_hears(cores: list[Core], *numbers: int) -> None:
    for core in cores:
        core.book.heard.update(dict.fromkeys(numbers))
    for core in cores:
        core.hear(*numbers)


def test_one_member_elects_itself_without_waiting() -> None:
    """n=1: a vote for itself is a quorum; no timeout passes."""
    core = Core(1)
    core.wait(0)
    core.flush(1)
    assert core.status["role"] == "leader"


def test_one_member_decides_each_block_after_one_flush() -> None:
    """n=1: one ``Persisted`` makes a block final, certified by its own signature."""
    core = Core(1)
    core.wait(0)
    core.flush()
    for number in range(1, 6):
        core.hear(number)
        assert len(core.stores) == 1
        core.flush(1)
        assert len(core.decided) == number
    assert core.engine.deadline is None, "alone and idle there is nothing to wake for"


@pytest.mark.parametrize("members", [2, 3, 5])
def test_all_decide_the_same_certified_blocks(members: int) -> None:
    """Every member decides every block in order, with a certificate a stranger can check."""
    cores = mesh(members)
    for number in range(1, 8):
        everybody_hears(cores, number)
        carry(cores)
    chains = [[d.block.header for d in core.decided] for core in cores]
    assert [h.height for h in chains[0]] == list(range(1, 8))
    assert all(chain == chains[0] for chain in chains)
    for core in cores:
        for decide in core.decided:
            assert decide.certificate is not None
            check_certificate(decide.certificate, core.epoch, verify=ideal_verify)


def test_a_leader_decides_after_one_round_trip() -> None:
    """A follower's answer carries its signature: flush here, flush there, decided."""
    cores = mesh(3)
    everybody_hears(cores, 1)
    leader, follower = cores[0], cores[1]
    (append,) = {a for a in leader.take(Append) if a.entries}
    follower.tell(0, append)
    follower.flush()
    (answer,) = follower.take(Appended)
    assert len(answer.attests) == 1
    leader.flush()
    assert leader.decided == []
    leader.tell(1, answer)
    assert len(leader.decided) == 1
    (known,) = leader.take(CertificateKnown)
    follower.tell(0, known)
    assert len(follower.decided) == 1


def test_a_leader_checks_each_signature_once_and_its_own_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """n=3: one check a block at the leader, one at each follower."""
    cores = mesh(3)
    calls = {core.seat: 0 for core in cores}
    for core in cores:

        def verify(key: bytes, signature: bytes, message: bytes, seat: int = core.seat) -> bool:
            calls[seat] += 1
            return ideal_verify(key, signature, message)

        monkeypatch.setattr(core.engine._finality, "_verify", verify)
    everybody_hears(cores, 1)
    carry(cores)
    assert all(len(core.decided) == 1 for core in cores)
    assert calls[0] == 1
    assert sum(calls.values()) <= 4


def test_a_forged_signature_is_nobodys() -> None:
    """An attestation that does not verify makes no certificate; the honest one does, later."""
    cores = mesh(3)
    everybody_hears(cores, 1)
    leader, follower = cores[0], cores[1]
    follower.tell(0, next(a for a in leader.take(Append) if a.entries))
    follower.flush()
    leader.flush()
    (answer,) = follower.take(Appended)
    leader.tell(2, answer)  # seat 2 says it with seat 1's signature
    assert leader.decided == []
    leader.tell(1, answer)
    assert len(leader.decided) == 1


def test_missing_bodies_hold_a_signature_back_and_not_an_answer() -> None:
    """``MISSING``: the entry is confirmed at once; the signature follows when bodies come."""
    cores = mesh(3)
    leader, follower = cores[0], cores[1]
    leader.hear(1)
    carry(cores[:2])
    assert leader.status["commit"] == 2
    assert leader.decided == []
    follower.hear(1)
    carry(cores[:2])
    assert len(leader.decided) == len(follower.decided) == 1


def test_an_invalid_block_is_held_and_reported() -> None:
    """``INVALID``: never signed, never decided; status says so and ``Behind`` asks."""
    cores = mesh(3)
    bad = cores[1]
    bad.book.refuses = b"1"
    everybody_hears(cores, 1)
    carry(cores)
    assert len(cores[0].decided) == len(cores[2].decided) == 1
    assert bad.decided == []
    assert bad.status["trouble"] == "refused a block"
    assert len(bad.behind) == 1


def test_blocks_in_flight_are_bounded_and_pipelined() -> None:
    """A second block is built on the first before that is decided; a third is not."""
    cores = mesh(3)
    leader = cores[0]
    for number in range(1, 6):
        leader.hear(number)
    log = leader.engine._replica.log
    assert [h for h in range(1, 9) if log.at_height(h)] == [1, 2]
    first, second = log.at_height(1), log.at_height(2)
    assert first is not None
    assert second is not None
    assert second.block is not None
    assert second.block.header.parent == first.digest
    assert first.block is not None
    assert first.block.header.parent == LEDGER


def test_a_certificate_lost_on_the_way_is_said_again() -> None:
    """When all is idle, a heartbeat finds out who has not decided, and mends it."""
    cores = mesh(3)
    everybody_hears(cores, 1)
    carry(cores, drop=lambda a, b, m: isinstance(m, CertificateKnown))
    assert [len(c.decided) for c in cores] == [1, 0, 0]
    for _ in range(2):
        cores[0].wait(100)
        carry(cores)
    assert [len(c.decided) for c in cores] == [1, 1, 1]


def test_a_follower_that_knows_more_tells_the_leader() -> None:
    """The old leader told one follower and died: the new leader learns the certificate."""
    cores = mesh(3)
    everybody_hears(cores, 1)
    carry(cores, drop=lambda a, b, m: isinstance(m, CertificateKnown) and b == 1)
    assert [len(c.decided) for c in cores] == [1, 0, 1]
    rest = cores[1:]
    take_over(rest[0], rest[1:])
    assert [len(c.decided) for c in rest] == [1, 1]


def test_an_ancestor_is_proved_by_its_descendant() -> None:
    """Who only hears the last certificate decides all below it, without one of their own."""
    cores = mesh(3)
    for number in (1, 2):
        everybody_hears(cores, number)
        carry(
            cores,
            drop=lambda a, b, m: b == 2 and isinstance(m, CertificateKnown) and m.height == 1,
        )
    late = cores[2].decided
    assert [d.certificate is None for d in late] == [True, False]


def test_a_truncated_log_leads_to_behind_and_back() -> None:
    """A follower below the leader's floor fetches certified blocks, then joins the log again."""
    with keeping(2):
        cores = mesh(3)
        present, absent = cores[:2], cores[2]
        for number in range(1, 20):
            everybody_hears(present, number)
            carry(present)
        leader = cores[0]
        assert leader.status["log_first"] > 10
        for _ in range(4):
            leader.wait(100)
            carry(cores)
        assert absent.status["floor"] == 0
        assert absent.status["log_first"] == 1, "no floor without the blocks below it"
        assert absent.behind[-1].height == 19
        assert absent.behind[-1].seat == 0
        for decide in leader.decided:
            assert decide.certificate is not None
            absent.book.decide(decide.block)
            absent.certified(decide.block.header, decide.certificate)
        carry(cores)
        assert absent.status["log_last"] == leader.status["log_last"]
        assert absent.decided == []
        everybody_hears(cores, 20)
        carry(cores)
        assert [d.block.header.height for d in absent.decided] == [20]
        again = Core(
            3,
            2,
            rows=absent.rows,
            book=absent.book,
            tip=absent.engine._finality.tip,
            certificate=absent.engine._finality.tip_certificate,
        )
        assert again.status["log_last"] == leader.status["log_last"]
        assert again.status["commit"] == leader.status["log_last"]


def test_a_floor_is_not_told_again_while_the_follower_flushes() -> None:
    """A follower that stands on a new floor and still flushes it is left alone (seed 344)."""
    with keeping(1):
        cores = mesh(3)
        present, absent = cores[:2], cores[2]
        for number in range(1, 10):
            everybody_hears(present, number)
            carry(present)
        leader = cores[0]
        for decide in leader.decided:
            assert decide.certificate is not None
            absent.book.decide(decide.block)
            absent.certified(decide.block.header, decide.certificate)
        said = 0
        for turn in range(20):
            if turn in (0, 5):
                leader.wait(100)
            for to, message in leader.out:
                if to == 2:
                    absent.tell(0, message)
                    said += 1
            leader.out.clear()
            for message in absent.take():
                leader.tell(2, message)
        assert absent.stores, "the new floor is not flushed in this scenario"
        assert said <= 4
        carry(cores)
        assert absent.status["log_last"] == leader.status["log_last"]


def test_certified_moves_the_decided_height_and_not_the_log() -> None:
    """Blocks learned elsewhere give no standing in elections: the log is what it was."""
    cores = mesh(3)
    for number in range(1, 4):
        everybody_hears(cores[:2], number)
        carry(cores[:2])
    behind = cores[2]
    before = behind.status["log_last"]
    for decide in cores[0].decided:
        assert decide.certificate is not None
        behind.certified(decide.block.header, decide.certificate)
    assert (behind.status["floor"], behind.status["log_last"]) == (3, before)
    carry(cores)
    cores[0].wait(100)
    carry(cores)
    assert behind.status["log_last"] == cores[0].status["log_last"]
    assert behind.decided == [], "what is decided is not decided again"


def test_certified_out_of_order_only_asks() -> None:
    """A block with a gap below it moves nothing."""
    cores = mesh(3)
    for number in (1, 2):
        everybody_hears(cores[:2], number)
        carry(cores[:2])
    second = cores[0].decided[1]
    assert second.certificate is not None
    cores[2].event(Certified(header=second.block.header, certificate=second.certificate))
    assert cores[2].status["floor"] == 0
    assert cores[2].behind[-1].height == 2


def test_who_lost_its_rows_votes_no_more() -> None:
    """A member whose signature is on a block that its log lacks neither votes nor campaigns."""
    cores = mesh(3)
    everybody_hears(cores, 1)
    carry(cores)
    signed = cores[0].decided[0]
    assert signed.certificate is not None
    wiped = Core(
        3, 0, rows={}, book=Book(), tip=signed.block.header, certificate=signed.certificate
    )
    assert wiped.status["trouble"] == "lost its memory"
    wiped.tell(1, AskVote(mesh=wiped.mesh, term=9, last_index=99, last_term=8, forced=False))
    wiped.flush()
    assert [v.granted for v in wiped.take(Vote)] == [False]
    wiped.wait(10_000)
    assert wiped.take() == []
    again = Core(3, 0, rows=wiped.rows, book=Book())
    assert again.status["trouble"] == "lost its memory", "nor after the next restart"


def test_a_row_that_is_rotten_or_missing_stops_the_start() -> None:
    """What a member has forgotten it must not vote upon."""
    rows = rows_of(2, None, 1, 1, 2)
    keys = sorted(rows)
    with pytest.raises(StorageError, match="hole"):
        Core(3, rows={k: v for k, v in rows.items() if k != keys[2]})
    with pytest.raises(StorageError, match="rotten"):
        Core(3, rows={**rows, keys[0]: b"\x00"})


def test_rows_of_an_older_epoch_are_dropped() -> None:
    """A new epoch starts with an empty log and deletes the old rows with its first flush."""
    core = Core(1, rows=rows_of(7, 0, 1, 1), number=3)
    assert core.status["term"] == 0
    core.wait(0)
    core.flush()
    assert core.status["term"] == 1
    assert all(key[5:13] == (3).to_bytes(8, "big") for key in core.rows)


def test_an_epoch_with_liars_is_refused() -> None:
    """Raft says at once that it withstands no liar."""
    cores = Core(4)
    liars = Epoch(ledger=LEDGER, number=0, liars=1, validators=cores.epoch.validators)
    with pytest.raises(LocalProtocolError, match="liars"):
        type(cores.engine)(
            epoch=liars,
            seat=0,
            signer=None,  # type: ignore[arg-type]
            application=Book(),
            rng=None,  # type: ignore[arg-type]
            records={},
            tip=None,
            tip_certificate=None,
            now=cores.now,
        )


def test_a_return_after_a_long_absence_costs_no_election() -> None:
    """Pre-vote: an hour alone raises no term, and the return unseats nobody."""
    world = World(1, 3)
    leader = world.elect()
    world.run(world.now + 1_000)
    absent = (leader.seat + 1) % 3
    world.partition((absent,), tuple(s for s in range(3) if s != absent))
    world.run(world.now + 3_600_000)
    assert leader.engine is not None
    term = leader.engine.status()["term"]
    world.heal()
    world.submit(1)
    world.run(world.now + 20_000)
    assert world.leader() is leader
    assert leader.engine.status()["term"] == term
    assert [len(m.chain) for m in world.members] == [1, 1, 1]


def test_idle_members_flush_nothing_and_say_little() -> None:
    """Ten idle minutes: no flush, under 600 bytes a second and member; then work is quick."""
    world = World(2, 4)
    world.elect()
    world.submit(1)
    world.run(world.now + 10_000)
    flushes, sent = world.flushes, world.sent_bytes
    world.run(world.now + 600_000)
    assert world.flushes == flushes
    assert (world.sent_bytes - sent) / 600 / 4 < 600
    start = world.now
    world.submit(2)
    world.run(start + 1_000, stop=lambda: all(len(m.chain) == 2 for m in world.members))
    assert world.now - start < 150


def test_a_dead_leader_of_an_idle_mesh_is_replaced_when_there_is_work() -> None:
    """Idle timeouts are long; work brings the short ones back."""
    world = World(3, 3)
    leader = world.elect()
    world.run(world.now + 60_000)
    world.crash(leader.seat)
    world.submit(1)
    start = world.now
    rest = [m for m in world.members if m is not leader]
    world.run(start + 20_000, stop=lambda: all(len(m.chain) == 1 for m in rest))
    assert world.now - start < 6_000


def test_a_floor_is_only_told_to_who_needs_it() -> None:
    """Followers within what the log keeps are served from the log."""
    with keeping(2):
        cores = mesh(3)
        told: list[Floor] = []
        for number in range(1, 20):
            everybody_hears(cores, number)
            carry(cores, drop=lambda a, b, m: isinstance(m, Floor) and told.append(m))
        assert told == []


def test_a_heartbeat_of_the_leader_is_answered_under_its_term_only() -> None:
    """An answer that names a term leaves after that term is durable."""
    core = Core(3)
    core.tell(1, beat(core, 4))
    assert core.take(Appended) == []
    assert any(isinstance(e, Store) for e in core.effects)
    core.flush()
    assert [a.term for a in core.take(Appended)] == [4]
