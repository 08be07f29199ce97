"""Meshes that form on the spot: all named sign or nothing exists, and nobody is bound for ever."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import NETWORK, Device, ToyMachine, devices, open_chain

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.genesis import (
    Founding,
    Genesis,
    check_founding,
    ledger_id,
    sign_genesis,
)
from p2pmed.sync.founding import (
    OFFER_MS,
    SIGNED_MS,
    Accept,
    Complete,
    Formation,
    FormationMessage,
    FromFounder,
    GenesisConsent,
    GenesisDone,
    GenesisOffer,
    GenesisWithdraw,
    MeshPolicy,
    Neighbour,
    Neighbours,
    Propose,
    Release,
    SendFormation,
    Sign,
    Signed,
)

SEATS = devices(4)
ACCEPTS = MeshPolicy(auto=True, size=20)
AUTO = MeshPolicy(auto=True, size=4, quiet_ms=2_000)
START = Instant(0)


class Tokens:
    """Entropy that counts."""

    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


@dataclass(eq=False)
class Founder:
    """One node's founding core, with the disk's one row and what became of it."""

    device: Device
    policy: MeshPolicy = ACCEPTS
    tokens: Tokens = field(default_factory=Tokens)
    open_row: Genesis | None = None
    founded: list[Founding] = field(default_factory=list)
    signed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.boot(START)

    def boot(self, now: Instant) -> None:
        self.core = Formation(
            me=self.device.key,
            network=NETWORK,
            rules=ToyMachine.rules_hash,
            chain=(self.device.key,),
            policy=self.policy,
            entropy=self.tokens,
            open_genesis=(self.open_row, now) if self.open_row else None,
        )


class Meadow:
    """Founders in sight of each other; messages travel in an order that dice choose."""

    def __init__(self, count: int = 4, policy: MeshPolicy = ACCEPTS, seed: int = 0) -> None:
        self.founders = {d.key: Founder(d, policy) for d in devices(count)}
        self.now = START
        self.wire: deque[tuple[bytes, bytes, FormationMessage]] = deque()
        self.dice = Random(seed)
        self.cut: set[bytes] = set()
        self.look()

    def __getitem__(self, seat: int) -> Founder:
        return self.founders[devices(len(self.founders))[seat].key]

    def keys(self, *seats: int) -> tuple[bytes, ...]:
        return tuple(self[seat].device.key for seat in seats)

    def look(self, free: bool = True) -> None:
        nodes = tuple(
            Neighbour(node=f.device.key, vote_key=f.device.vote_key, roles=("clinic",), free=free)
            for f in self.founders.values()
        )
        for founder in self.founders.values():
            self.step(founder, Neighbours(nodes))

    def step(self, founder: Founder, event: Any) -> None:
        for effect in founder.core.step(event, self.now):
            match effect:
                case SendFormation(peer, message):
                    if founder.device.key not in self.cut:
                        self.wire.append((founder.device.key, peer, message))
                case Sign(genesis):
                    founder.open_row = genesis
                    founder.signed.append(ledger_id(genesis))
                    signature = sign_genesis(
                        genesis, seed=founder.device.seed, node=founder.device.key
                    )
                    self.step(founder, Signed(ledger_id(genesis), signature))
                case Release():
                    founder.open_row = None
                case Complete(founding):
                    check_founding(founding, network=NETWORK, open_chain=open_chain)
                    founder.founded.append(founding)
                    founder.core.founded = True
                    founder.open_row = None

    def deliver(self) -> None:
        """Carry messages until there is none left."""
        while self.wire:
            self.wire.rotate(self.dice.randrange(len(self.wire)))
            sender, to, message = self.wire.popleft()
            if to not in self.cut:
                self.step(self.founders[to], FromFounder(sender, message))

    def wait(self, milliseconds: int) -> None:
        """Let time pass, deadline by deadline."""
        end = Instant(self.now + milliseconds)
        while True:
            due = [
                (f.core.deadline, number, f)
                for number, f in enumerate(self.founders.values())
                if f.core.deadline is not None and f.core.deadline <= end
            ]
            if not due:
                break
            at, _, founder = min(due)
            self.now = Instant(max(self.now, at))
            self.step(founder, DeadlineReached())
            self.deliver()
        self.now = end

    def propose(self, seat: int, *members: int, **fields: Any) -> None:
        values: dict[str, Any] = {"engine": "bft", "liars": None, "name": "meadow", **fields}
        self.step(self[seat], Propose(members=self.keys(*members), **values))

    def ledgers(self) -> list[list[bytes]]:
        return [
            [ledger_id(founding.genesis) for founding in founder.founded]
            for founder in self.founders.values()
        ]


# --- by the operator's word -----------------------------------------------------------------


@pytest.mark.parametrize(("count", "liars"), [(1, 0), (2, 0), (3, 0), (4, 1), (7, 2)])
def test_a_mesh_exists_when_all_named_have_signed(count: int, liars: int) -> None:
    """Everybody ends in one ledger, whose seats stand in the order of keys."""
    meadow = Meadow(count)
    meadow.propose(0, *range(count))
    meadow.deliver()
    (ledgers,) = {tuple(found) for found in meadow.ledgers()}
    assert len(ledgers) == 1
    genesis = meadow[0].founded[0].genesis
    assert [v.node for v in genesis.validators] == [d.key for d in devices(count)]
    assert genesis.liars == liars
    assert genesis.engine == "bft"


def test_raft_is_founded_without_liars() -> None:
    """By default with none; asked for one, it is refused before anything is signed."""
    meadow = Meadow(4)
    meadow.propose(0, 0, 1, 2, 3, engine="raft")
    meadow.deliver()
    assert meadow[0].founded[0].genesis.liars == 0
    other = Meadow(4)
    with pytest.raises(LocalProtocolError):
        other.propose(0, 0, 1, 2, 3, engine="raft", liars=1)
    assert other[0].signed == []


def test_nobody_out_of_sight_can_be_named() -> None:
    """The vote keys of founders are taken from what is in sight, not from hearsay."""
    meadow = Meadow(3)
    word = Propose(members=(bytes(32),), engine="bft", liars=None, name="x")
    with pytest.raises(LocalProtocolError):
        meadow.step(meadow[0], word)
    assert meadow[0].signed == []


def test_one_founding_at_a_time() -> None:
    """A second proposal waits for the first to end, and a founded node founds nothing."""
    meadow = Meadow(3)
    meadow.propose(0, 0, 1, 2)
    with pytest.raises(LocalProtocolError):
        meadow.propose(0, 0, 1)
    meadow.deliver()
    with pytest.raises(LocalProtocolError):
        meadow.propose(0, 0, 1)
    assert meadow[0].core.deadline is None


def test_one_that_does_not_accept_lets_the_offer_run_out() -> None:
    """No ledger, the proposer withdraws, and all who had signed are free again."""
    meadow = Meadow(3)
    meadow[2].policy = MeshPolicy(auto=False)
    meadow[2].boot(START)
    meadow.look()
    meadow.propose(0, 0, 1, 2)
    meadow.deliver()
    assert meadow.ledgers() == [[], [], []]
    assert meadow[1].open_row is not None
    meadow.wait(OFFER_MS)
    assert [founder.open_row for founder in meadow.founders.values()] == [None] * 3
    meadow.propose(1, 0, 1)
    meadow.deliver()
    assert [len(found) for found in meadow.ledgers()] == [1, 1, 0]


def test_people_accept_an_offer_where_no_policy_does() -> None:
    """Without ``auto`` an offer waits for the operator's word, which completes the ledger."""
    meadow = Meadow(3, MeshPolicy(auto=False))
    meadow.propose(0, 0, 1, 2, patience_ms=600_000)
    meadow.deliver()
    proposer = meadow[0].device.key
    assert [offer[0] for offer in meadow[1].core.offers()] == [proposer]
    assert meadow[1].open_row is None
    meadow.wait(60_000)
    for seat in (1, 2):
        meadow.step(meadow[seat], Accept(proposer))
        meadow.deliver()
    assert [len(found) for found in meadow.ledgers()] == [1, 1, 1]
    with pytest.raises(LocalProtocolError, match="in a mesh already"):
        meadow.step(meadow[1], Accept(proposer))


def test_only_an_offer_that_stands_is_accepted() -> None:
    """Never offered, or withdrawn since: the operator is told, and nothing is signed."""
    meadow = Meadow(3, MeshPolicy(auto=False))
    proposer = meadow[0].device.key
    with pytest.raises(LocalProtocolError, match="no such offer"):
        meadow.step(meadow[1], Accept(proposer))
    meadow.propose(0, 0, 1, 2)
    meadow.deliver()
    meadow.wait(OFFER_MS)
    with pytest.raises(LocalProtocolError, match="no such offer"):
        meadow.step(meadow[1], Accept(proposer))
    assert meadow[1].signed == []


def test_an_offer_that_comes_before_its_founders_are_seen_is_signed_when_they_are() -> None:
    """A policy's consent waits for sight, not for another offer."""
    meadow = Meadow(3)
    for founder in meadow.founders.values():
        if founder is not meadow[0]:
            founder.boot(START)
    meadow.propose(0, 0, 1, 2)
    meadow.deliver()
    assert meadow[1].signed == []
    meadow.look()
    meadow.deliver()
    assert [len(found) for found in meadow.ledgers()] == [1, 1, 1]


def test_a_signer_whose_proposer_died_is_free_after_a_minute() -> None:
    """Its signature binds it for ``SIGNED_MS`` and no longer, also across a restart."""
    for restart in (False, True):
        meadow = Meadow(3)
        meadow.propose(0, 0, 1, 2)
        meadow.cut.update(meadow.keys(0, 2))
        meadow.deliver()
        assert meadow[1].open_row is not None
        if restart:
            meadow[1].boot(meadow.now)
            meadow.look()
        with pytest.raises(LocalProtocolError):
            meadow.propose(1, 1)
        meadow.wait(SIGNED_MS - 1)
        assert meadow[1].open_row is not None
        meadow.wait(1)
        assert meadow[1].open_row is None


def test_a_signer_signs_no_second_genesis_meanwhile() -> None:
    """Whoever proposes another one to it is not answered while the first is open."""
    meadow = Meadow(4)
    meadow.propose(2, 1, 2, 3)
    meadow.cut.update(meadow.keys(3))
    meadow.deliver()
    meadow.propose(0, 0, 1)
    meadow.deliver()
    assert len(meadow[1].signed) == 1
    assert meadow[0].founded == []


# --- what an offer must be ------------------------------------------------------------------


def offered() -> tuple[Meadow, Genesis]:
    """A genesis by seat 1 of seats 0 and 1, and a meadow where seat 0 has not seen it."""
    maker = Meadow(2)
    maker.propose(1, 0, 1)
    genesis = maker[1].open_row
    assert genesis is not None
    return Meadow(2), genesis


def with_other_vote_keys(genesis: Genesis) -> Genesis:
    validators = tuple(
        msgspec.structs.replace(validator, vote_key=bytes([seat]) * 32)
        for seat, validator in enumerate(genesis.validators)
    )
    return msgspec.structs.replace(genesis, validators=validators)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda genesis: msgspec.structs.replace(genesis, network=bytes(32)),
        lambda genesis: msgspec.structs.replace(genesis, rules=bytes(32)),
        lambda genesis: msgspec.structs.replace(genesis, liars=1),
        lambda genesis: msgspec.structs.replace(genesis, engine="raft", liars=1),
        with_other_vote_keys,
        lambda genesis: msgspec.structs.replace(genesis, validators=genesis.validators[1:]),
    ],
    ids=["network", "rules", "liars", "raft with liars", "vote keys", "not named"],
)
def test_an_offer_that_does_not_fit_is_not_signed(spoil: Any) -> None:
    """Another network or other rules, an impossible mesh, a seat or vote key that is not ours."""
    meadow, genesis = offered()
    sender = meadow[1].device.key
    meadow.step(meadow[0], FromFounder(sender, GenesisOffer(genesis=spoil(genesis))))
    assert meadow[0].signed == []
    meadow.step(meadow[0], FromFounder(sender, GenesisOffer(genesis=genesis)))
    assert meadow[0].signed == [ledger_id(genesis)]


def test_an_offer_from_somebody_it_does_not_name_is_not_signed() -> None:
    """A bystander cannot bind others."""
    meadow, genesis = offered()
    meadow.step(meadow[0], FromFounder(Device("bystander").key, GenesisOffer(genesis=genesis)))
    assert meadow[0].signed == []


def test_a_consent_counts_for_who_signed_it() -> None:
    """A signature for another genesis, of another device, or spoiled, completes nothing."""
    meadow = Meadow(2)
    meadow.propose(0, 0, 1)
    genesis = meadow[0].open_row
    assert genesis is not None
    ledger, signer, stranger = ledger_id(genesis), meadow[1].device, Device("stranger")
    good = sign_genesis(genesis, seed=signer.seed, node=signer.key)
    other = msgspec.structs.replace(genesis, nonce=b"\xff" * 16)
    for signature in (
        sign_genesis(genesis, seed=stranger.seed, node=stranger.key),
        sign_genesis(other, seed=signer.seed, node=signer.key),
        good[:-1] + bytes([good[-1] ^ 1]),
        b"",
    ):
        wrong = GenesisConsent(ledger=ledger, signature=signature, chain=(signer.key,))
        meadow.step(meadow[0], FromFounder(signer.key, wrong))
        assert meadow[0].founded == []
    right = GenesisConsent(ledger=ledger, signature=good, chain=(signer.key,))
    meadow.step(meadow[0], FromFounder(signer.key, right))
    assert len(meadow[0].founded) == 1


def test_only_the_proposer_withdraws() -> None:
    """Somebody else's word frees nobody."""
    meadow = Meadow(3)
    meadow.propose(0, 0, 1, 2)
    meadow.cut.update(meadow.keys(2))
    meadow.deliver()
    genesis = meadow[1].open_row
    assert genesis is not None
    withdraw = GenesisWithdraw(ledger=ledger_id(genesis))
    meadow.step(meadow[1], FromFounder(meadow[2].device.key, withdraw))
    assert meadow[1].open_row is not None
    meadow.step(meadow[1], FromFounder(meadow[0].device.key, withdraw))
    assert meadow[1].open_row is None


def test_a_founded_node_takes_no_other_founding() -> None:
    """A second ``GenesisDone`` is not its business any more."""
    meadow, other = Meadow(2), Meadow(2, seed=1)
    meadow.propose(0, 0, 1)
    meadow.deliver()
    other[0].tokens.count = 50
    other.propose(0, 0, 1)
    other.deliver()
    done = GenesisDone(founding=other[0].founded[0])
    meadow.step(meadow[1], FromFounder(meadow[0].device.key, done))
    assert [len(found) for found in meadow.ledgers()] == [1, 1]


# --- without being told ---------------------------------------------------------------------


def test_enough_free_neighbours_found_a_mesh_by_themselves() -> None:
    """After a quiet while the one with the smallest key proposes, and the others sign."""
    meadow = Meadow(4, AUTO)
    meadow.wait(AUTO.quiet_ms - 1)
    assert meadow.ledgers() == [[], [], [], []]
    meadow.wait(1)
    assert [len(found) for found in meadow.ledgers()] == [1, 1, 1, 1]
    assert [len(founder.signed) for founder in meadow.founders.values()] == [1, 1, 1, 1]


def test_too_few_neighbours_wait() -> None:
    """Three where four are wanted found nothing, however long."""
    meadow = Meadow(3, AUTO)
    meadow.wait(120_000)
    assert meadow.ledgers() == [[], [], []]


def test_neighbours_that_change_start_the_quiet_while_again() -> None:
    """A mesh is not founded in the minute when everybody switches on."""
    meadow = Meadow(4, AUTO)
    meadow.wait(AUTO.quiet_ms - 500)
    meadow.look(free=False)
    meadow.look()
    meadow.wait(AUTO.quiet_ms - 1)
    assert meadow.ledgers() == [[], [], [], []]
    meadow.wait(1)
    assert [len(found) for found in meadow.ledgers()] == [1, 1, 1, 1]


def test_who_sits_in_a_mesh_or_has_another_role_is_not_asked() -> None:
    """Only free clinics and pharmacies count towards an automatic mesh."""
    taken = Meadow(4, AUTO)
    taken.look(free=False)
    taken.wait(60_000)
    assert taken.ledgers() == [[], [], [], []]
    policy = MeshPolicy(auto=True, size=4, roles=("hospital",))
    others = Meadow(4, policy)
    others.wait(60_000)
    assert others.ledgers() == [[], [], [], []]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    words=st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.integers(0, 3)), st.integers(0, 15_000)),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 3), max_size=4),
)
def test_however_offers_cross_nobody_ends_in_two_ledgers(
    seed: int, words: list[tuple[int, set[int], int]], cuts: list[int]
) -> None:
    """Crossing proposals, messages in any order, founders cut off: every ledger that exists is
    signed by all it names, and no node lives in more than one.
    """
    meadow = Meadow(4, MeshPolicy(auto=True, size=4, quiet_ms=9_000), seed)
    for number, (proposer, members, pause) in enumerate(words):
        try:
            meadow.propose(proposer, *sorted(members | {proposer}))
        except LocalProtocolError:
            continue
        if number < len(cuts):
            meadow.cut = set(meadow.keys(cuts[number]))
        meadow.deliver()
        meadow.wait(pause)
    meadow.cut = set()
    meadow.wait(3 * SIGNED_MS)
    for founder in meadow.founders.values():
        assert len(founder.founded) <= 1
        assert founder.open_row is None or founder.core.deadline is not None
