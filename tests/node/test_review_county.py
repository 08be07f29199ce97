"""What *anchored* may rest on, and what nobody can make a county's carriers believe."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.consensus.interface import header_digest
from p2pmed.gossip.messages import Push
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, LaneKey, sign_entry
from p2pmed.medical.county import ANCHOR, BLOCKS_PER_ANCHOR_MAX, Anchor, Refused, anchored_height
from p2pmed.medical.drugs import Dispense
from p2pmed.medical.membership import LogOpen
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.wire import codec

FORGED = b"l" * 16
ALONE = MeshPolicy(follow=False)


class County:
    """A clinic and a hospital, each alone in a ledger of its own, in reach of each other."""

    def __init__(self) -> None:
        self.simulation = Simulation(5)
        roles = {
            "clinic": ("clinic", "manufacturer"),
            "hospital": ("hospital",),
            "liar": ("clinic",),
        }
        self.clinic, self.hospital, self.liar = (
            self.simulation.add_node(name, roles=each, policy=ALONE) for name, each in roles.items()
        )
        self.simulation.run_for(3_000)
        self.simulation.crash(self.liar)
        for node in (self.clinic, self.hospital):
            self.simulation.found(node, [])
        self.simulation.run_for(10_000)

    @property
    def village(self) -> bytes:
        assert self.clinic.home is not None
        return self.clinic.home.ledger

    def write(self, node: SimNode, body: Any) -> Entry:
        request = self.simulation.submit(node, Draft(body=body))
        assert self.simulation.run_until(lambda: request in self.simulation.replies, 5_000)
        reply = self.simulation.replies[request]
        assert reply.error is None, reply.error
        return reply.entries[0]

    def sign(self, kind: str, body: Any, seq: int, prev: bytes) -> Entry:
        keys, wall = self.liar.identity.keys, self.liar.clock.wall_ms()
        envelope = Envelope(
            version=1,
            incarnation=FORGED,
            seq=seq,
            prev=prev,
            ledger=b"",
            hlc=wall << 16,
            wall=wall,
            clock=0,
            kind=kind,
            kind_version=1,
            actor=b"",
            subject=b"",
            refs=(),
            body=codec.plain(body),
        )
        return sign_entry(
            envelope,
            seed=keys.signing_seed,
            author=keys.node_id,
            network=self.simulation.network_id,
        )

    def forge(self, anchor: Anchor) -> None:
        """The liar, a clinic, writes an anchor; the clinic passes it on."""
        keys = self.liar.identity.keys
        self.simulation.suspects.add(self.liar.key)
        opening = LogOpen(
            chain=self.liar.identity.chain,
            previous=b"",
            previous_seq=0,
            previous_head=b"",
            box_key=keys.box_public,
            vote_keys=(),
            boot=1,
        )
        first = self.sign("log.open", opening, 0, GENESIS_PREV)
        second = self.sign(ANCHOR, anchor, 1, first.id)
        push = codec.encode(Push((first.raw, second.raw)))
        self.simulation._step(self.clinic, events.Frame(self.hospital.key, push))
        self.simulation.run_for(10_000)


def spend() -> Dispense:
    """Something that counts by a village's order only; that it is refused does not matter."""
    return Dispense(gtin="09506000134352", serial="1")


def watched(county: County) -> int:
    """Height of the village up to which the clinic believes it anchored."""
    assert county.clinic.replica is not None
    (watch,) = county.clinic.replica.watches.values()
    return watch.village_height(county.village)


def test_no_clinic_writes_an_anchor_that_others_believe() -> None:
    """Ordered by the county and refused there, it moves nothing, alarms nobody, stops nobody."""
    county = County()
    assert county.clinic.home is not None
    true = watched(county)
    told = Refused(id=b"i" * 32, code="é", other=b"o" * 32)
    head = county.clinic.home.chain.head
    assert head is not None
    digest = header_digest(head)
    county.forge(
        Anchor(ledger=county.village, start=true, height=head.height, head=digest, refused=(told,))
    )
    county.write(county.clinic, spend())
    county.simulation.run_for(20_000)
    assert county.simulation.oracle.violations == []
    assert county.clinic.replica is not None
    assert county.clinic.replica.county_alarms() == []
    assert county.hospital.home is not None
    assert watched(county) == anchored_height(county.hospital.home.chain.state, county.village)


@pytest.mark.parametrize(("start", "height"), [(0, 2**53), (5, 2), (0, BLOCKS_PER_ANCHOR_MAX + 1)])
def test_an_impossible_anchor_holds_up_no_log_and_costs_no_reading(start: int, height: int) -> None:
    """It is refused without a look at the village, whoever wrote it."""
    county = County()
    asked: list[int] = []
    assert county.hospital.replica is not None
    villages: Any = county.hospital.replica.villages
    blocks = villages.blocks

    def counted(ledger: bytes, low: int, high: int) -> Any:
        asked.append(high - low)
        return blocks(ledger, low, high)

    villages.blocks = counted
    county.forge(
        Anchor(ledger=county.village, start=start, height=height, head=b"h" * 32, refused=())
    )
    assert county.hospital.home is not None
    chain = county.hospital.home.chain
    lane = LaneKey(county.liar.key, FORGED)
    assert chain.ordered_next(lane) == 2, "ordered, and refused"
    assert all(0 < each <= BLOCKS_PER_ANCHOR_MAX for each in asked)


def test_anchored_is_said_alike_at_the_village_and_at_the_county() -> None:
    """What is spent in a village is anchored with the anchor of its block, not when it arrives."""
    county = County()
    early: list[str] = []
    spent = county.write(county.clinic, spend())

    def anchored() -> bool:
        assert county.hospital.home is not None
        assert county.clinic.home is not None
        decided = county.clinic.home.chain.height_of(spent)
        covered = anchored_height(county.hospital.home.chain.state, county.village)
        for node in (county.clinic, county.hospital):
            assert node.replica is not None
            if node.replica.is_anchored(spent) and (decided is None or covered < decided):
                early.append(node.name)
        return all(
            node.replica.is_anchored(spent)
            for node in (county.clinic, county.hospital)
            if node.replica is not None
        )

    assert county.simulation.run_until(anchored, 60_000)
    assert early == []
