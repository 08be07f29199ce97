"""Commands are answered once, whatever is wrong with them; and what the engine decided is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from p2pmed.consensus.interface import (
    Block,
    ConsensusEffect,
    ConsensusEvent,
    Decide,
    Header,
    Receive,
    Record,
    Store,
    Work,
)
from p2pmed.engine import Instant
from p2pmed.errors import LocalProtocolError
from p2pmed.gossip.messages import Ping
from p2pmed.medical.discrepancies import DiscrepancyReport
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.node.home_ledger import LEDGER_FORKED
from p2pmed.node.turn import Turn
from p2pmed.node.voting import row_key
from p2pmed.sync.founding import GenesisDone, MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.wire import codec
from p2pmed.world import Space

BODY = DiscrepancyReport(first=b"1" * 32, second=b"2" * 32, reason="x")


def two(seed: int = 3) -> tuple[Simulation, SimNode, SimNode]:
    """Two clinics in sight of each other, the second of which signs nothing."""
    simulation = Simulation(seed)
    policies = (MeshPolicy(auto=True, size=9, follow=False), MeshPolicy(follow=False))
    one, other = (
        simulation.add_node(f"clinic-{n}", policy=policy) for n, policy in enumerate(policies)
    )
    simulation.run_for(3_000)
    return simulation, one, other


def stored(node: SimNode) -> int:
    assert node.replica is not None
    return node.replica.logs.next_seq(node.replica.own.key)


@pytest.mark.parametrize("broken", [KeyError("x"), TypeError("x"), LocalProtocolError("x")])
@pytest.mark.parametrize("where", ["body", "local"])
def test_a_callers_fault_is_the_callers(broken: Exception, where: str) -> None:
    """What a draft's own function raises goes to who submitted; nothing is written."""
    simulation, node, _ = two()

    def fails(ids: Sequence[bytes]) -> Any:
        raise broken

    before = stored(node)
    drafts = (Draft(body=BODY), Draft(body=fails if where == "body" else BODY))
    local = fails if where == "local" else None
    request = simulation.command(node, lambda number: events.Submit(number, drafts, local))
    assert simulation.replies[request].error is broken
    simulation.run_for(1_000)
    assert stored(node) == before
    assert simulation.oracle.violations == []
    request = simulation.submit(node, Draft(body=BODY))
    simulation.run_for(1_000)
    assert simulation.replies[request].error is None, "and the log goes on"


def test_a_body_that_cannot_be_spelled_is_the_callers_fault() -> None:
    """A body of wrong values is refused, and stops no node."""
    simulation, node, _ = two()
    wrong: Any = DiscrepancyReport(first=object(), second=1.5, reason={1: 2})  # type: ignore[arg-type]
    request = simulation.submit(node, Draft(body=wrong))
    assert simulation.replies[request].error is not None
    assert simulation.oracle.violations == []


def test_a_second_founding_does_not_orphan_the_first() -> None:
    """Both are answered: the second at once, the first when it is decided."""
    simulation, one, other = two()
    first = simulation.found(one, [other])
    second = simulation.found(one, [other])
    assert isinstance(simulation.replies[second].error, LocalProtocolError)
    simulation.run_for(30_000)
    assert isinstance(simulation.replies[first].error, LocalProtocolError)


def test_following_is_answered_when_it_is_durable() -> None:
    """The home ledger is on the disk before anybody is told that it is the home ledger."""
    simulation, one, other = two()
    simulation.found(one, [])
    simulation.run_for(5_000)
    assert one.home is not None
    ledger = one.home.ledger
    request = simulation.command(other, lambda number: events.FollowLedger(number, ledger))
    assert request not in simulation.replies
    simulation.run_until(lambda: request in simulation.replies, 5_000)
    assert other.disk.durable(Space.META, b"home") == ledger


def test_a_founding_that_does_not_hold_costs_its_sender_the_channel() -> None:
    """To check it costs dozens of signatures; alarms of it would hide others."""
    simulation, one, other = two()
    simulation.found(one, [])
    simulation.run_for(3_000)
    assert one.home is not None
    assert other.replica is not None
    founding = one.home.founding
    genesis = type(founding.genesis)(
        **{
            **{f: getattr(founding.genesis, f) for f in founding.genesis.__struct_fields__},
            "name": "x",
        }
    )
    done = GenesisDone(
        founding=type(founding)(
            genesis=genesis, signatures=founding.signatures, chains=founding.chains
        )
    )
    frame = events.Frame(one.key, codec.encode(done))
    effects = other.replica.step(frame, simulation.agenda.now)
    assert [type(effect) for effect in effects] == [events.DropLink]


def test_a_clock_far_ahead_is_told_once() -> None:
    """A peer pings every second; an alarm at each would push out all others."""
    simulation, one, other = two()
    assert one.replica is not None
    told = 0
    for number in range(5):
        ping = Ping(seq=number, frontier=bytes(32), hlc=2**61, wall=0, health=0, heads=())
        frame = events.Frame(other.key, codec.encode(ping))
        for effect in one.replica.step(frame, simulation.agenda.now):
            told += isinstance(effect, events.Notify) and isinstance(effect.notice, events.Alarm)
    assert told == 1


# --- the engine and its driver ----------------------------------------------------------------


class Scripted:
    """An engine that answers ``Work`` with what it was told; it notes what it is given."""

    deadline = None

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.script: list[ConsensusEffect] = []
        self.seen: list[str] = []

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        self.seen.append(type(event).__name__)
        if type(event).__name__ == "Certified":
            return [Store(token=2, records=(Record(key=b"row", value=b"newer"),))]
        script, self.script = self.script, []
        return script if isinstance(event, Work | Receive) else []

    def status(self) -> dict[str, int | str]:
        return {}


def test_rows_are_staged_in_the_order_in_which_they_were_made() -> None:
    """A decided block moves the engine on; what it then stores must not be overwritten by
    what it stored before."""
    simulation, one, _ = two()
    simulation.found(one, [])
    simulation.submit(one, Draft(body=BODY))
    simulation.run_for(5_000)
    assert one.home is not None
    assert one.replica is not None
    home = one.home
    height = home.chain.height
    request = simulation.submit(one, Draft(body=BODY))
    made = Scripted()
    home.engine = made
    simulation.run_until(lambda: request in simulation.replies, 1_000)
    content = home.chain.build(home.chain.head_digest, 99)
    assert content is not None
    header = Header(
        version=1,
        ledger=home.ledger,
        epoch=0,
        view=99,
        height=height + 1,
        parent=home.chain.head_digest,
        parent_view=home.chain.head.view if home.chain.head else 0,
        proposer=0,
        content=content.hash,
    )
    block = Block(header=header, content=content.data)
    assert home.chain.head_certificate is not None
    made.script = [
        Decide(block=block, certificate=home.chain.head_certificate),
        Store(token=1, records=(Record(key=b"row", value=b"older"),)),
    ]
    made.seen.clear()
    home.run(Turn(simulation.agenda.now), Work())
    assert made.seen == ["Work", "Certified"]
    assert one.disk.get(Space.CONSENSUS, row_key(home.epoch, b"row")) == b"newer"
    assert home.chain.height == height + 1


def test_a_fork_halts_a_ledger_beyond_a_restart() -> None:
    """The proof is kept, it is told once, and no vote is given after a restart."""
    simulation, one, _ = two()
    simulation.found(one, [])
    simulation.submit(one, Draft(body=BODY))
    simulation.run_for(5_000)
    assert one.home is not None
    assert one.replica is not None
    stored_block = one.home.chain.block_at(1)
    assert stored_block is not None
    turn = Turn(simulation.agenda.now)
    one.replica.ledgers._on_forked(turn, one.home.ledger, stored_block, stored_block)
    one.replica.ledgers._on_forked(turn, one.home.ledger, stored_block, stored_block)
    assert sum(isinstance(effect, events.Notify) for effect in turn.effects) == 2
    one.disk.commit()
    simulation.crash(one)
    simulation.start(one)
    assert one.home is not None
    assert one.home.halted == LEDGER_FORKED
    assert one.home.deadline is None
