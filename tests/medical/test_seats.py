"""Who votes next: what each change asks, refuses and leaves, on a toy state without a node."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from p2pmed.identity.keys import VoteSigner
from p2pmed.ledger.epochs import begin, epoch_of, next_epoch_of, note_block
from p2pmed.ledger.state import BlockContext, Layer
from p2pmed.ledger.transaction import Entry, Envelope, LaneKey
from p2pmed.medical import elections, seat_changes
from p2pmed.medical.elections import MeshBallot, MeshElect, tally
from p2pmed.medical.fields import FieldFault
from p2pmed.medical.membership import _INCARNATIONS, MEMBERS, Incarnation
from p2pmed.medical.registry import Act, Member
from p2pmed.medical.seat_changes import MeshChange, MeshJoin, MeshKeys, MeshLeave
from p2pmed.medical.seats import exclude, keys_ahead, learners, restore, standing
from p2pmed.node.empty import EmptyState
from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.quorum.possession import ProvenKey, prove
from p2pmed.wire.hashing import hash_bytes

LEDGER = hash_bytes(b"a ledger")
DIGEST = hash_bytes(b"block 40")
RULES = {kind.body: kind for kind in (*seat_changes.KINDS, *elections.KINDS)}


def device(number: int) -> bytes:
    return bytes([number]) * 32


def signer(number: int, epoch: int) -> VoteSigner:
    return VoteSigner(bytes([number, epoch]) * 16)


@cache
def key(number: int, epoch: int) -> bytes:
    return signer(number, epoch).public


def proven(number: int, epoch: int, *, of: int = 0, ledger: bytes = LEDGER) -> ProvenKey:
    """A key of device ``number`` as it publishes it, or shown for device ``of``."""
    return prove(
        signer(number, epoch), network=bytes(32), ledger=ledger, device=device(of or number)
    )


def credential(*roles: str, revoked: bool = False) -> Member:
    return Member(
        name="n",
        roles=roles or ("clinic",),
        place="p",
        box_key=bytes(32),
        issuer=bytes(32),
        serial=bytes(16),
        not_after=0,
        revoked=revoked,
    )


class Mesh:
    """A state in epoch 0 with ``seats`` seats; devices up to 30 are members of the network."""

    def __init__(self, seats: int, *, engine: str = "bft", liars: int = 0) -> None:
        self.view = Layer(EmptyState())
        self.engine = engine
        validators = tuple(
            Validator(node=device(n), vote_key=key(n, 0)) for n in range(1, seats + 1)
        )
        self.begin(Epoch(ledger=LEDGER, number=0, liars=liars, validators=validators))
        for n in range(1, 31):
            MEMBERS.put(self.view, credential(), device(n))
            opened = Incarnation(
                opened_by=bytes(32),
                previous=b"",
                previous_seq=0,
                previous_head=b"",
                vote_keys=tuple(key(n, epoch) for epoch in range(3)),
                boot=1,
                time=0,
            )
            _INCARNATIONS.put(self.view, opened, device(n), bytes(16))
        note_block(self.view, 40, DIGEST)

    def begin(self, epoch: Epoch) -> None:
        begin(self.view, epoch, self.engine)

    def turn(self) -> Epoch:
        """The seal is decided: the next epoch begins."""
        following = next_epoch_of(self.view)
        assert following is not None
        self.begin(following)
        return following

    def say(self, author: int, body: Any, *roles: str, ledger: bytes = LEDGER) -> str:
        """The verdict on one transaction, which is applied if nothing speaks against it."""
        envelope = Envelope(
            version=1,
            incarnation=bytes(16),
            seq=1,
            prev=bytes(32),
            ledger=LEDGER,
            hlc=1,
            wall=1,
            clock=1,
            kind="k",
            kind_version=1,
            actor=b"",
            subject=b"",
            refs=(),
            body=[],
        )
        entry = Entry(
            id=bytes(32),
            lane=LaneKey(device(author), bytes(16)),
            envelope=envelope,
            raw=b"",
            signature=b"",
            to_be_signed=b"",
        )
        context = BlockContext(
            network=bytes(32), ledger=ledger, height=41, time_ms=1, provisional=False
        )
        act = Act(body=body, entry=entry, member=credential(*roles), context=context)
        kind = RULES[type(body)]
        refused = kind.check(act, self.view)
        if refused is not None:
            return str(getattr(refused, "value", refused))
        kind.apply(act, self.view)
        return "applied"

    def join(self, *numbers: int) -> None:
        for number in numbers:
            assert self.say(number, MeshJoin(height=40, digest=DIGEST)) == "applied"


def change(
    number: int = 0, add: tuple[int, ...] = (), remove: tuple[int, ...] = (), liars: int = 0
) -> MeshChange:
    return MeshChange(
        epoch=number,
        add=tuple(device(n) for n in add),
        remove=tuple(device(n) for n in remove),
        liars=liars,
    )


def nodes(epoch: Epoch | None) -> list[int]:
    assert epoch is not None
    return [validator.node[0] for validator in epoch.validators]


# --- joining --------------------------------------------------------------------------------


def test_who_joins_names_a_recent_block_of_this_ledger() -> None:
    """A digest that the state does not know, or of another height, is no proof of catching up."""
    mesh = Mesh(3)
    assert mesh.say(9, MeshJoin(height=40, digest=bytes(32))) == "sync_stale"
    assert mesh.say(9, MeshJoin(height=41, digest=DIGEST)) == "sync_stale"
    assert mesh.say(9, MeshJoin(height=40 - 1024, digest=DIGEST)) == "sync_stale"
    assert mesh.say(9, MeshJoin(height=40, digest=DIGEST)) == "applied"
    assert standing(mesh.view, device(9)) == "willing"
    assert learners(mesh.view) == [(device(9), "willing")]


def test_nobody_is_seated_without_consent() -> None:
    """A device that did not join, took its word back, or is no member, gets no seat."""
    mesh = Mesh(3)
    assert mesh.say(1, change(add=(9,))) == "consent_missing"
    mesh.join(9)
    assert mesh.say(9, MeshLeave(epoch=0)) == "applied"
    assert mesh.say(1, change(add=(9,))) == "consent_missing"
    assert mesh.say(1, change(add=(77,))) == "member_unknown"
    mesh.join(9)
    MEMBERS.put(mesh.view, credential(revoked=True), device(9))
    assert mesh.say(1, change(add=(9,))) == "author_revoked"
    assert next_epoch_of(mesh.view) is None


def test_another_ledgers_change_is_only_carried() -> None:
    """A county that executes a village never changes its own seats by it."""
    mesh = Mesh(3)
    other = hash_bytes(b"another ledger")
    for body in (change(remove=(2,)), MeshLeave(epoch=0), MeshElect(epoch=0, seats=1, liars=0)):
        assert mesh.say(1, body, ledger=other) == "carried"
    assert all(kind.local and kind.ordered for kind in (*seat_changes.KINDS, *elections.KINDS))


# --- changing -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bft", "raft"])
def test_a_change_seals_the_epoch_with_fresh_keys(engine: str) -> None:
    """The next epoch has the seats in the order of devices, each with a key never used."""
    mesh = Mesh(3, engine=engine)
    mesh.join(9)
    assert mesh.say(1, change(add=(9,))) == "applied"
    following = mesh.turn()
    assert nodes(following) == [1, 2, 3, 9]
    assert following.number == 1
    assert [v.vote_key for v in following.validators] == [key(n, 1) for n in (1, 2, 3)] + [
        key(9, 0)
    ]
    assert keys_ahead(mesh.view, device(1)) == (key(1, 2),)
    assert next_epoch_of(mesh.view) is None


def test_one_change_an_epoch() -> None:
    """The second is pending in the same block, and out of date in the next epoch."""
    mesh = Mesh(4)
    assert mesh.say(1, change(remove=(4,))) == "applied"
    assert mesh.say(2, change(remove=(3,))) == "change_pending"
    assert mesh.say(3, MeshLeave(epoch=0)) == "change_pending"
    mesh.turn()
    assert mesh.say(2, change(remove=(3,))) == "epoch_stale"
    assert mesh.say(2, change(1, remove=(3,))) == "applied"


def test_raft_changes_one_seat_at_a_time_and_withstands_no_liars() -> None:
    """Two devices, or a liar, are refused; BFT takes any set."""
    raft, bft = Mesh(4, engine="raft"), Mesh(4)
    for mesh in (raft, bft):
        mesh.join(8, 9)
    assert raft.say(1, change(add=(8, 9))) == "seats_one_at_a_time"
    assert raft.say(1, change(add=(8,), remove=(4,))) == "seats_one_at_a_time"
    assert raft.say(1, change(add=(8,), liars=1)) == "seats_one_at_a_time"
    assert bft.say(1, change(add=(8, 9), remove=(2, 3), liars=1)) == "applied"
    assert nodes(next_epoch_of(bft.view)) == [1, 4, 8, 9]


def test_seats_that_cannot_be_are_refused() -> None:
    """More liars than the seats withstand, none at all, twice, unknown, or no change."""
    mesh = Mesh(4)
    mesh.join(9)
    assert mesh.say(1, change(remove=(4,), liars=1)) == "seats_impossible"
    assert mesh.say(1, change(remove=(1, 2, 3, 4))) == "seats_impossible"
    assert mesh.say(1, change()) == "seats_impossible"
    assert mesh.say(1, change(add=(4,))) == "seat_taken"
    assert mesh.say(1, change(remove=(9,))) == "seat_unknown"
    assert next_epoch_of(mesh.view) is None
    assert mesh.say(1, change(liars=1)) == "applied", "so many liars, the same seats"


def test_who_may_speak_for_others() -> None:
    """A seat, or a supervisor of the network; a learner only for itself."""
    mesh = Mesh(3)
    mesh.join(9)
    assert mesh.say(9, change(add=(9,))) == "role_missing"
    assert mesh.say(9, MeshElect(epoch=0, seats=3, liars=0)) == "role_missing"
    assert mesh.say(20, change(add=(9,)), "county") == "applied"


def test_the_last_seat_stays() -> None:
    """Who alone decides cannot leave; a stranger has nothing to leave."""
    mesh = Mesh(1)
    assert mesh.say(1, MeshLeave(epoch=0)) == "seats_impossible"
    assert mesh.say(9, MeshLeave(epoch=0)) == "seat_unknown"


def test_leaving_lowers_the_liars_to_what_is_left() -> None:
    """Four that withstand one become three that withstand none."""
    mesh = Mesh(4, liars=1)
    assert mesh.say(4, MeshLeave(epoch=0)) == "applied"
    following = mesh.turn()
    assert (nodes(following), following.liars) == ([1, 2, 3], 0)
    assert standing(mesh.view, device(4)) == "learner"


# --- keys -----------------------------------------------------------------------------------


def test_absence_is_borne_through_two_changes_and_then_told() -> None:
    """Three keys came with the log: the third change of an absent seat is refused by name."""
    mesh = Mesh(3)
    mesh.join(7, 8, 9)
    for number, new in enumerate((7, 8)):
        assert mesh.say(1, change(number, add=(new,))) == "applied"
        mesh.turn()
    assert mesh.say(1, change(2, add=(9,))) == "vote_key_missing"
    for n in (1, 2):
        assert mesh.say(n, MeshKeys(keys=(proven(n, 9),))) == "applied"
    assert mesh.say(1, change(2, add=(9,))) == "vote_key_missing", "of the absent third"
    assert mesh.say(1, change(2, remove=(3,))) == "applied", "who has none can be removed"


def test_a_key_is_published_once_and_used_once() -> None:
    """Again, after use, or too many: refused; a key never comes back."""
    mesh = Mesh(3)
    assert mesh.say(1, MeshKeys(keys=(proven(1, 50),))) == "applied"
    assert mesh.say(1, MeshKeys(keys=(proven(1, 50),))) == "vote_key_used"
    more = [tuple(proven(1, 60 + 8 * n + i) for i in range(8)) for n in range(2)]
    assert mesh.say(1, MeshKeys(keys=more[0])) == "applied"
    assert mesh.say(1, MeshKeys(keys=more[1])) == "vote_keys_full"
    used: set[bytes] = {key(1, 0)}
    mesh.join(9)
    for number in range(4):
        assert used.isdisjoint(keys_ahead(mesh.view, device(1)))
        for n in (2, 3, 9):
            assert mesh.say(n, MeshKeys(keys=(proven(n, 100 + number),))) == "applied"
        seated = number % 2 == 1
        word = change(number, remove=(9,)) if seated else change(number, add=(9,))
        assert mesh.say(1, word) == "applied"
        used |= {validator.vote_key for validator in mesh.turn().validators}
        if seated:
            mesh.join(9)
    assert len(used & {key(1, e) for e in range(256)}) == 5
    with pytest.raises(FieldFault):
        MeshKeys(keys=(proven(1, 1), proven(1, 1)))


def test_nobody_publishes_a_key_that_it_cannot_sign_with() -> None:
    """Another's key, a proof for another device or ledger, a key that verifies anything."""
    mesh = Mesh(3)
    theirs = proven(2, 50)
    unsound = ProvenKey(key=b"\x01" + bytes(31), proof=b"\x01" + bytes(63))
    for stolen in (
        theirs,
        ProvenKey(key=theirs.key, proof=proven(1, 50).proof),
        proven(1, 50, of=2),
        proven(1, 50, ledger=b""),
        proven(1, 50, ledger=hash_bytes(b"another")),
        unsound,
    ):
        assert mesh.say(1, MeshKeys(keys=(stolen,))) == "vote_key_unproven"
    assert mesh.say(2, MeshKeys(keys=(theirs,))) == "applied"
    assert mesh.say(1, change(liars=0, remove=(3,))) == "applied", "changes are not blocked"


# --- proven lies ----------------------------------------------------------------------------


def test_a_proven_liar_loses_its_seat_while_three_are_left() -> None:
    """Its seat goes, liars are clipped; it neither joins nor is added until people decide."""
    mesh = Mesh(4, liars=1)
    assert exclude(mesh.view, device(2))
    following = mesh.turn()
    assert (nodes(following), following.liars) == ([1, 3, 4], 0)
    assert standing(mesh.view, device(2)) == "quarantined"
    assert mesh.say(2, MeshJoin(height=40, digest=DIGEST)) == "seat_quarantined"
    assert mesh.say(1, change(1, add=(2,))) == "seat_quarantined"
    assert not exclude(mesh.view, device(3)), "two would be left: an alarm only"
    assert standing(mesh.view, device(3)) == "quarantined"
    restore(mesh.view, device(2))
    mesh.join(2)
    assert mesh.say(1, change(1, add=(2,))) == "applied"
    assert nodes(next_epoch_of(mesh.view)) == [1, 2, 4], "the other liar goes with it"


def test_a_lie_proved_while_a_change_is_pending_amends_it() -> None:
    """The epoch that comes has no seat for it either."""
    mesh = Mesh(5, liars=1)
    mesh.join(9)
    assert mesh.say(1, change(add=(9,), liars=1)) == "applied"
    assert exclude(mesh.view, device(9))
    assert nodes(next_epoch_of(mesh.view)) == [1, 2, 3, 4, 5]
    assert exclude(mesh.view, device(5))
    assert nodes(mesh.turn()) == [1, 2, 3, 4]
    assert not exclude(mesh.view, device(20)), "it has no seat to lose"
    assert mesh.say(20, MeshJoin(height=40, digest=DIGEST)) == "seat_quarantined"


# --- elections ------------------------------------------------------------------------------


def ballot(*numbers: int) -> MeshBallot:
    return MeshBallot(epoch=0, approve=tuple(device(n) for n in numbers))


def test_an_election_needs_more_than_half_of_the_members() -> None:
    """Of five members two are too few; the newest ballot of each counts once."""
    mesh = Mesh(3)
    mesh.join(8, 9)
    elect = MeshElect(epoch=0, seats=3, liars=0)
    assert mesh.say(1, ballot(1, 8, 9)) == "applied"
    assert mesh.say(1, ballot(1, 2, 3)) == "applied"
    assert mesh.say(8, ballot(1, 8, 9)) == "applied"
    assert mesh.say(1, elect) == "ballots_too_few"
    assert mesh.say(20, ballot(1)) == "seat_unknown", "not of this mesh"
    assert mesh.say(9, ballot(1, 8, 9)) == "applied"
    assert mesh.say(1, elect) == "applied"
    assert nodes(mesh.turn()) == [1, 8, 9]


def test_a_tie_goes_by_device_key_and_strangers_win_nothing() -> None:
    """The outcome is the same on every node, whoever was approved besides."""
    mesh = Mesh(3)
    mesh.join(8, 9)
    for author in (1, 2, 3, 8, 9):
        assert mesh.say(author, ballot(8, 9, 20)) == "applied"
    epoch = epoch_of(mesh.view)
    assert epoch is not None
    assert tally(mesh.view, epoch, 4) == [device(n) for n in (8, 9, 1, 2)]


def test_a_raft_election_moves_one_seat_at_a_time() -> None:
    """Election after election the mesh reaches who was elected, never jumping."""
    mesh = Mesh(3, engine="raft")
    mesh.join(8, 9)
    wanted = tuple(device(n) for n in (1, 8, 9))
    seen = []
    for number in range(6):
        for author in (1, 2, 3, 8, 9):
            standing_of = standing(mesh.view, device(author))
            if standing_of in ("validator", "willing"):
                mesh.say(author, MeshBallot(epoch=number, approve=wanted))
            mesh.say(author, MeshKeys(keys=(proven(author, 100 + number),)))
        before = nodes(epoch_of(mesh.view))
        if mesh.say(before[0], MeshElect(epoch=number, seats=3, liars=0)) != "applied":
            break
        after = nodes(mesh.turn())
        assert len(set(before) ^ set(after)) == 1
        seen.append(after)
    assert nodes(epoch_of(mesh.view)) == [1, 8, 9]
    assert len(seen) == 4


def test_devices_are_named_once_and_in_order() -> None:
    """One change has one spelling."""
    one, two = device(1), device(2)
    for bad in ((two, one), (one, one)):
        with pytest.raises(FieldFault):
            MeshChange(epoch=0, add=bad, remove=(), liars=0)
        with pytest.raises(FieldFault):
            MeshBallot(epoch=0, approve=bad)
    with pytest.raises(FieldFault):
        MeshChange(epoch=0, add=(one,), remove=(one,), liars=0)


# --- lost keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bft", "raft"])
def test_a_lost_key_is_replaced_by_an_epoch_with_the_same_seats(engine: str) -> None:
    """Who says so names its own keys only; then nothing else need change for a new epoch."""
    mesh = Mesh(3, engine=engine)
    assert mesh.say(1, change()) == "seats_impossible"
    for key_of_another in (key(2, 0), key(2, 1), key(1, 99)):
        assert mesh.say(1, MeshKeys(keys=(), lost=(key_of_another,))) == "vote_key_unknown"
    lost = tuple(sorted(key(1, e) for e in range(3)))
    assert mesh.say(1, MeshKeys(keys=(proven(1, 40),), lost=lost)) == "applied"
    assert keys_ahead(mesh.view, device(1)) == (key(1, 40),)
    assert mesh.say(1, MeshKeys(keys=(proven(1, 1),))) == "vote_key_used", "it never comes back"
    assert mesh.say(1, change()) == "applied"
    following = mesh.turn()
    assert nodes(following) == [1, 2, 3]
    assert following.validators[0].vote_key == key(1, 40)
    assert mesh.say(1, change(1)) == "seats_impossible", "once is enough"


def test_a_key_of_the_epoch_that_is_about_to_begin_may_be_lost() -> None:
    """Told between the seal and the first block of the next epoch, it counts in that epoch."""
    mesh = Mesh(3)
    assert mesh.say(1, change(remove=(3,))) == "applied"
    assert mesh.say(2, MeshKeys(keys=(proven(2, 40),), lost=(key(2, 1),))) == "applied"
    mesh.turn()
    assert mesh.say(1, change(1)) == "applied"
    assert mesh.turn().validators[1].vote_key == key(2, 2)
