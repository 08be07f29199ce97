"""What seldom happens to a Raft member, and what must come of it."""

from __future__ import annotations

from typing import Any

import pytest
from raft_cores import Core, beat, carry, empty, rows_of
from raft_simulation import LEDGER, World, keeping

from p2pmed.consensus.interface import Block, Content, Header, Heard, Leave, header_digest
from p2pmed.consensus.raft import following, leadership
from p2pmed.consensus.raft.bounds import CHECKS_PER_STEP_MAX, ELECTION_BEATS_MIN, HEARTBEAT_MS
from p2pmed.consensus.raft.log import FloorRow, Log, make_slot
from p2pmed.consensus.raft.messages import Append, Appended, CertificateKnown, Floor
from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.quorum.certificate import Certificate, VoteKind
from p2pmed.wire.hashing import hash_bytes


def block(
    height: int, number: int, *, term: int = 1, parent: bytes = LEDGER, epoch: int = 0
) -> Block:
    content = b"%d" % number
    header = Header(
        version=1,
        ledger=LEDGER,
        epoch=epoch,
        view=term,
        height=height,
        parent=parent,
        parent_view=0,
        proposer=1,
        content=hash_bytes(content),
    )
    return Block(header=header, content=content)


def raw(content: Block, term: int = 1) -> bytes:
    return make_slot(1, term, content).raw


def mesh(members: int) -> list[Core]:
    cores = [Core(members, seat) for seat in range(members)]
    cores[0].wait(1_000)
    carry(cores)
    return cores


def test_a_seat_that_the_epoch_lacks_is_refused() -> None:
    """The caller is told at once."""
    cores = mesh(3)
    with pytest.raises(LocalProtocolError, match="no seat 7"):
        type(cores[0].engine)(
            epoch=cores[0].epoch,
            seat=7,
            signer=None,  # type: ignore[arg-type]
            application=cores[0].book,
            rng=None,  # type: ignore[arg-type]
            records={},
            tip=None,
            tip_certificate=None,
            now=cores[0].now,
        )


def test_rows_ahead_of_their_term_stop_the_start() -> None:
    """A log whose entry has a term above the ballot's was not written by us like that."""
    with pytest.raises(StorageError, match="ahead of its term"):
        Core(3, rows=rows_of(2, None, 1, 3))


def test_a_follower_that_leaves_says_nothing() -> None:
    """Only who leads has something to hand over."""
    follower = mesh(3)[1]
    before = len(follower.effects)
    follower.event(Leave())
    assert len(follower.effects) == before


def test_a_follower_notes_no_contacts() -> None:
    """``Heard`` matters to who leads only, and of another seat only."""
    cores = mesh(3)
    follower, leader = cores[1], cores[0]
    before = (follower.status, leader.status)
    follower.event(Heard(2))
    leader.event(Heard(0))
    assert (follower.status, leader.status) == before


def test_a_leader_alone_has_nobody_to_hand_over_to() -> None:
    """n=1, and a leader that heard nobody lately: it goes on leading, and proposing."""
    core = Core(1)
    core.wait(0)
    core.flush()
    core.event(Leave())
    core.hear(1)
    core.flush()
    assert len(core.decided) == 1
    leader = mesh(3)[0]
    leader.now = leader.now + ELECTION_BEATS_MIN * HEARTBEAT_MS + 1  # type: ignore[assignment]
    leader.event(Leave())
    assert leader.status["hands_to"] == -1
    assert leader.engine.hand_over(leader.now, 9) == []


def test_a_leader_whose_application_gives_nothing_hands_over_ever_more_rarely() -> None:
    """Members that cannot build while something waits do not elect each other for ever."""
    world = World(5, 3)
    world.elect()
    for member in world.members:
        member.book.build = lambda parent, view: None  # type: ignore[method-assign]
    world.submit(1)
    world.run(world.now + 60_000)
    first = len(world.leaders)
    assert 3 <= first <= 16, "some tried"
    world.run(world.now + 600_000)
    assert len(world.leaders) - first <= 16, "and the pauses double"


def test_an_own_block_that_its_check_refuses_reaches_no_log() -> None:
    """A block that no other member could call VALID is not proposed."""
    core = Core(3)
    core.lead()
    core.book.refuses = b"5"
    core.hear(5)
    assert core.status["log_last"] == 1
    assert not [a for a in core.take(Append) if a.entries and a.prev_index]


def test_an_own_block_that_fits_no_frame_reaches_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be sent is not appended."""
    monkeypatch.setattr(leadership, "ENTRY_RAW_BYTES_MAX", 100)
    core = Core(3)
    core.lead()
    core.hear(5)
    assert core.status["log_last"] == 1


def test_a_confirmation_beyond_the_log_is_refused() -> None:
    """A follower cannot hold what was never sent."""
    core = Core(3)
    core.lead()
    core.tell(1, Appended(mesh=core.mesh, term=1, match=9, heartbeat=False, decided=0, attests=()))
    assert (core.status["refused"], core.status["commit"]) == (1, 0)


def test_two_leaders_of_one_term_are_counted_and_ignored() -> None:
    """Not crash-only: whoever speaks second as leader of the term changes nothing."""
    core = Core(3)
    core.tell(1, beat(core, 1, entries=(empty(1),)))
    core.flush()
    core.tell(2, beat(core, 1, entries=(empty(1), empty(1))))
    floor = Floor(
        mesh=core.mesh, term=1, index=9, index_term=1, height=4, digest=b"x" * 32, decided=4
    )
    core.tell(2, floor)
    assert (core.status["refused"], core.status["log_last"], core.behind) == (2, 1, [])


@pytest.mark.parametrize(
    "wrong",
    [
        block(0, 1),
        block(1, 1, epoch=4),
        block(1, 1, term=2),
        block(3, 2, parent=header_digest(block(1, 1).header)),
        block(2, 2, parent=b"p" * 32),
    ],
    ids=["height 0", "epoch", "view is not the term", "height skipped", "parent"],
)
def test_a_block_that_does_not_follow_refuses_the_message(wrong: Block) -> None:
    """A header that cannot stand there is refused with all its message, and nothing asserts."""
    core = Core(3)
    first = [raw(block(1, 1))] if wrong.header.height > 1 else []
    core.tell(1, beat(core, 1, entries=(empty(1), *first, raw(wrong))))
    assert (core.status["refused"], core.status["log_last"]) == (1, 0)


def test_a_block_must_follow_the_floor() -> None:
    """The first block above a floor names the floor's block as its parent."""
    floor = FloorRow(version=1, index=4, term=1, height=3, digest=b"d" * 32)
    core = Core(3, rows=rows_of(1, None, floor=floor))
    core.tell(1, beat(core, 1, prev_index=4, prev_term=1, entries=(raw(block(4, 9)),)))
    assert core.status["refused"] == 1
    good = raw(block(4, 9, parent=b"d" * 32))
    core.tell(1, beat(core, 1, prev_index=4, prev_term=1, entries=(good,)))
    assert (core.status["refused"], core.status["log_last"]) == (1, 5)


def test_a_log_that_is_full_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound a follower confirms what it took, and the rest is sent again later."""
    monkeypatch.setattr(following, "LOG_ENTRIES_MAX", 2)
    core = Core(3)
    core.tell(1, beat(core, 1, entries=(empty(1),) * 5))
    core.flush()
    assert [a.match for a in core.take(Appended)] == [2]


def test_a_floor_with_another_block_at_our_height_is_refused() -> None:
    """Two decided blocks at one height: not crash-only; nothing is dropped for it."""
    cores = mesh(3)
    for core in cores:
        core.hear(1)
    carry(cores)
    core = cores[1]
    other = Floor(
        mesh=core.mesh, term=1, index=9, index_term=1, height=1, digest=b"x" * 32, decided=1
    )
    core.tell(0, other)
    assert (core.status["refused"], core.status["log_last"]) == (1, 2)


def test_a_certificate_that_does_not_hold_is_nobodys() -> None:
    """A certificate for our block with other signatures decides nothing."""
    cores = mesh(3)
    for core in cores:
        core.hear(1)
    leader, follower = cores[0], cores[1]
    carry([leader, follower], drop=lambda a, b, m: isinstance(m, CertificateKnown))
    good = leader.decided[0].certificate
    assert good is not None
    forged = Certificate(
        **{f: getattr(good, f) for f in Certificate.__struct_fields__ if f != "signatures"},
        signatures=tuple(bytes(64) for _ in good.signatures),
    )
    for certificate in (forged, good):
        known = CertificateKnown(mesh=follower.mesh, height=1, certificate=certificate)
        before = len(follower.decided)
        follower.tell(0, known)
        assert len(follower.decided) - before == (certificate is good)
    nullify = Certificate(
        **{
            **{f: getattr(good, f) for f in Certificate.__struct_fields__},
            "kind": VoteKind.NULLIFY,
        }
    )
    follower.tell(0, CertificateKnown(mesh=follower.mesh, height=1, certificate=nullify))
    assert len(follower.decided) == 1


def test_leftovers_of_a_dead_leader_wait_to_be_replaced() -> None:
    """Blocks of the log above another decided block are not put to the application."""
    follower = Core(3, 1)
    first = block(1, 1)
    second = block(2, 2, parent=header_digest(first.header))
    follower.tell(0, beat(follower, 1, entries=(empty(1), raw(first), raw(second))))
    follower.flush()
    assert follower.status["checked"] == 0, "bodies are missing"
    asked: list[Any] = []
    follower.book.check = lambda block: asked.append(block)  # type: ignore[method-assign,assignment,return-value]
    decided = block(1, 7, term=2)
    certificate = Certificate(
        ledger=LEDGER,
        epoch=0,
        kind=VoteKind.FINALIZE,
        view=2,
        digest=header_digest(decided.header),
        signers=0b101,
        signatures=(b"s" * 64, b"t" * 64),
    )
    follower.certified(decided.header, certificate)
    follower.certified(decided.header, certificate)
    assert follower.status["floor"] == 1
    assert asked == []


def test_an_epoch_begins_on_the_seal_of_the_one_before() -> None:
    """The first block stands on the last one's digest; old certificates are not said here."""
    seal = block(6, 3)
    tip = {
        "tip": seal.header,
        "certificate": Certificate(
            ledger=LEDGER,
            epoch=0,
            kind=VoteKind.FINALIZE,
            view=1,
            digest=header_digest(seal.header),
            signers=0b11,
            signatures=(b"s" * 64, b"t" * 64),
        ),
    }
    cores: list[Core] = []
    for seat in range(3):
        core = Core(3, seat, number=1, **tip)  # type: ignore[arg-type]
        core.book.decide(seal)
        cores.append(core)
    cores[0].wait(1_000)
    carry(cores)
    cores[1].tell(0, beat(cores[1], 1, prev_index=1, prev_term=1))
    assert cores[1].take(CertificateKnown) == []
    for core in cores:
        core.hear(8)
    carry(cores)
    headers = [c.decided[0].block.header for c in cores]
    assert {(h.height, h.parent, h.epoch) for h in headers} == {(7, header_digest(seal.header), 1)}


def test_a_member_is_lost_once() -> None:
    """Further certificates with its signature write nothing more."""
    cores = mesh(3)
    for number in (1, 2):
        for core in cores:
            core.hear(number)
        carry(cores)
    wiped = Core(3, 0)
    for decide in cores[0].decided:
        assert decide.certificate is not None
        wiped.book.decide(decide.block)
        wiped.certified(decide.block.header, decide.certificate)
    assert wiped.status["trouble"] == "lost its memory"
    assert len(wiped.stores) == 1


def _signed_by(seats: int, content: Block) -> Certificate:
    return Certificate(
        ledger=LEDGER,
        epoch=0,
        kind=VoteKind.FINALIZE,
        view=content.header.view,
        digest=header_digest(content.header),
        signers=seats,
        signatures=(b"s" * 64, b"t" * 64),
    )


def test_a_leader_that_finds_itself_lost_stands_down() -> None:
    """Its own signature on a block of its term that it does not hold: it has forgotten."""
    core = Core(3)
    core.lead()
    signed = block(1, 7)
    core.book.decide(signed)
    core.certified(signed.header, _signed_by(0b011, signed))
    assert (core.status["role"], core.status["trouble"]) == ("follower", "lost its memory")
    core.wait(20_000)
    assert core.status["role"] == "follower"


def test_a_lost_member_takes_no_floor() -> None:
    """It asks for blocks, and keeps no log for anybody to count on."""
    core = Core(3)
    signed = block(1, 7)
    core.book.decide(signed)
    core.certified(signed.header, _signed_by(0b011, signed))
    digest = header_digest(signed.header)
    core.tell(
        1,
        Floor(mesh=core.mesh, term=1, index=5, index_term=1, height=1, digest=digest, decided=4),
    )
    core.flush()
    assert core.status["log_last"] == 0
    assert [b.height for b in core.behind] == [4]
    assert core.take(Appended) == []


def test_many_blocks_are_checked_over_several_steps() -> None:
    """Heartbeats are not starved by a long log: the rest comes with the next deadline."""
    cores = mesh(3)
    follower = cores[1]
    entries = []
    parent = LEDGER
    for height in range(1, CHECKS_PER_STEP_MAX + 5):
        each = block(height, height, parent=parent)
        parent = header_digest(each.header)
        entries.append(raw(each))
        follower.book.heard[height] = None
    follower.tell(0, beat(follower, 1, prev_index=1, prev_term=1, entries=tuple(entries)))
    follower.flush()
    assert follower.status["checked"] == CHECKS_PER_STEP_MAX
    assert follower.engine.deadline == follower.now
    follower.wait(0)
    assert follower.status["checked"] == CHECKS_PER_STEP_MAX + 4


def test_one_message_carries_what_fits_and_at_least_one() -> None:
    """Entries are cut by bytes, but never to none."""
    log = Log(FloorRow(version=1, index=0, term=0, height=0, digest=b""))
    for index in range(1, 5):
        log.append(make_slot(index, 1, None))
    size = len(empty(1))
    assert [s.index for s in log.entries(1, 9, 2 * size)] == [1, 2]
    assert [s.index for s in log.entries(3, 9, 1)] == [3]


def test_undecided_bytes_hold_a_leader_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the cap only the first two blocks are on the way, whatever is flushed."""
    monkeypatch.setattr(leadership, "UNDECIDED_BYTES_MAX", 1)
    leader = mesh(3)[0]
    for number in range(5):
        leader.hear(number)
        leader.flush()
    assert leader.status["log_last"] == 3


def test_a_log_on_disk_is_bounded_however_long_it_runs() -> None:
    """10 000 decided blocks later there are at most twice the kept entries in rows."""
    with keeping(16):
        core = Core(1)
        core.wait(0)
        core.flush()
        most = 0
        for number in range(10_000):
            core.hear(number)
            core.book.heard.clear()
            core.book.decided.clear()
            core.book.parents = {core.engine._finality.tip_digest: (LEDGER, ())}
            core.flush()
            core.book.parents[core.engine._finality.tip_digest] = (LEDGER, ())
            most = max(most, len(core.rows))
        assert core.status["floor"] == 10_000
        assert most <= 2 * 16 + 3


def test_content_is_opaque() -> None:
    """The engine orders what it cannot read: any bytes make a block."""
    core = Core(1)
    core.book.build = lambda parent, view: Content(hash=bytes(32), data=b"\xff\x00")  # type: ignore[method-assign]
    core.book.check = lambda block: leadership.Check.VALID  # type: ignore[method-assign]
    core.book.pending = lambda: not core.decided  # type: ignore[method-assign]
    core.book.decide = lambda block: None  # type: ignore[method-assign]
    core.wait(0)
    core.flush()
    assert core.decided[0].block.content == b"\xff\x00"
