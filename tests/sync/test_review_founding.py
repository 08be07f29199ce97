"""Whom a node lets into a mesh that it founds with others, and whom it follows unasked."""

from __future__ import annotations

from typing import Any

import pytest
from toy_ledger import NETWORK, Device, ToyMachine, devices, genesis_of

from p2pmed.engine import Instant
from p2pmed.ledger.genesis import ledger_id
from p2pmed.sync.founding import (
    WITHDREW_MS,
    Formation,
    FromFounder,
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
from p2pmed.testing.simulation import Simulation

SEATS = devices(4)
NOW = Instant(0)


class Entropy:
    def token(self, size: int) -> bytes:
        return bytes(size)


def neighbours(**fields: Any) -> tuple[Neighbour, ...]:
    """All four in sight; ``fields`` are the last one's."""
    known = [
        Neighbour(node=d.key, vote_key=d.vote_key, roles=("clinic",), free=True) for d in SEATS
    ]
    last = known[-1]
    values: dict[str, Any] = {name: getattr(last, name) for name in ("node", "vote_key", "roles")}
    return (*known[:-1], Neighbour(**{**values, "free": True, **fields}))


def founder(seen: tuple[Neighbour, ...], me: Device = SEATS[1]) -> Formation:
    core = Formation(
        me=me.key,
        network=NETWORK,
        rules=ToyMachine.rules_hash,
        chain=(me.key,),
        policy=MeshPolicy(auto=True, size=20),
        entropy=Entropy(),
    )
    core.step(Neighbours(seen), NOW)
    return core


OFFER = GenesisOffer(genesis=genesis_of(SEATS))


def test_an_offer_of_those_in_sight_is_signed() -> None:
    """The rule below refuses what it should refuse, and not everything."""
    effects = founder(neighbours()).step(FromFounder(SEATS[0].key, OFFER), NOW)
    assert effects == [Sign(OFFER.genesis)]


@pytest.mark.parametrize(
    "seen",
    [
        neighbours()[:-1],
        neighbours(vote_key=b"k" * 32),
        neighbours(free=False),
    ],
    ids=["never met", "another vote key", "sits elsewhere"],
)
def test_no_stranger_is_signed_into_a_mesh(seen: tuple[Neighbour, ...]) -> None:
    """A proposer cannot fill seats with devices, or keys, that nobody here has met."""
    assert founder(seen).step(FromFounder(SEATS[0].key, OFFER), NOW) == []


def test_who_yields_frees_those_who_signed() -> None:
    """A proposer that gives way to a smaller key withdraws, so that nobody waits a minute."""
    core = founder(neighbours())
    others = tuple(device.key for device in SEATS)
    (sign,) = core.step(Propose(members=others, engine="bft", liars=None, name="m"), NOW)
    assert isinstance(sign, Sign)
    core.step(Signed(ledger_id(sign.genesis), b"s"), NOW)
    effects = core.step(FromFounder(SEATS[0].key, OFFER), NOW)
    withdraw = GenesisWithdraw(ledger=ledger_id(sign.genesis))
    assert effects[:-1] == [
        SendFormation(device.key, withdraw) for device in SEATS if device is not SEATS[1]
    ]
    assert effects[-1] == Sign(OFFER.genesis)


def test_a_ledger_of_one_captures_nobody_who_would_found_a_mesh() -> None:
    """Anybody may found one; those who form a mesh by themselves form it all the same."""
    simulation = Simulation(11)
    loner = simulation.add_node("loner", policy=MeshPolicy(follow=False), roles=("pharmacy",))
    simulation.run_for(1_000)
    simulation.found(loner, [])
    simulation.run_for(3_000)
    assert loner.home is not None
    policy = MeshPolicy(auto=True, size=3, roles=("clinic",))
    clinics = [simulation.add_node(f"clinic-{n}", policy=policy) for n in range(3)]
    follower = simulation.add_node("insurer", roles=("insurer",))
    assert simulation.run_until(lambda: all(node.home for node in clinics), 30_000)
    ledgers = {node.home.ledger for node in clinics if node.home}
    assert len(ledgers) == 1
    assert loner.home.ledger not in ledgers
    assert follower.home is not None, "who founds nothing follows what there is"


def test_a_repeated_offer_costs_no_second_flush() -> None:
    """It was answered; and who takes an offer back is not answered again at once."""
    core = founder(neighbours())
    proposer = SEATS[0].key
    assert core.step(FromFounder(proposer, OFFER), NOW) == [Sign(OFFER.genesis)]
    assert core.step(FromFounder(proposer, OFFER), NOW) == []
    withdraw = GenesisWithdraw(ledger=ledger_id(OFFER.genesis))
    assert core.step(FromFounder(proposer, withdraw), NOW) == [Release(withdraw.ledger)]
    assert core.step(FromFounder(proposer, OFFER), NOW) == []
    later = Instant(NOW + WITHDREW_MS)
    assert core.step(FromFounder(proposer, OFFER), later) == [Sign(OFFER.genesis)]
