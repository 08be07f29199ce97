"""Linearizable reads and leaving, through whole nodes in virtual time and through the facade."""

from __future__ import annotations

import pytest

from p2pmed.consensus.interface import ReadAt, ReadFailed
from p2pmed.engine import Instant
from p2pmed.errors import LocalProtocolError
from p2pmed.medical import Recall
from p2pmed.node import events
from p2pmed.node.barriers import READERS_MAX, Barriers, Unconfirmed
from p2pmed.node.turn import Turn
from p2pmed.testing.homes import local_network
from p2pmed.testing.simulation import SimNode
from p2pmed.testing.village import Village

RECALL = Recall(gtin="06901234567892", lot="RB1", reason="stability")


def _village() -> Village:
    village = Village(1, engine="raft")
    assert village.form()
    _write(village)
    assert village.simulation.run_until_settled(30_000)
    return village


def _write(village: Village) -> None:
    village.simulation.submit(village.nodes[0], events.Draft(body=RECALL))


def _seated(village: Village) -> list[SimNode]:
    return [node for node in village.nodes if node.home is not None and node.home.engine]


def _role(node: SimNode) -> object:
    assert node.home is not None
    assert node.home.engine is not None
    return node.home.engine.status()["role"]


def test_a_barrier_waits_for_what_is_final_elsewhere() -> None:
    """Any seat's barrier is answered with at least the height final anywhere when it asked."""
    village = _village()
    simulation = village.simulation
    for node in _seated(village):
        _write(village)
        simulation.run_for(37)
        final = max(other.height for other in village.nodes)
        request = simulation.command(node, events.ReadBarrier)
        assert simulation.run_until(lambda r=request: r in simulation.replies, 5_000)
        reply = simulation.replies[request]
        assert reply.error is None
        assert reply.count >= final
        assert node.home is not None
        assert node.home.durable_height >= reply.count


def test_a_barrier_without_a_quorum_is_refused_in_time() -> None:
    """A seat that is alone is told so; nothing hangs."""
    village = _village()
    simulation, alone = village.simulation, _seated(village)[0]
    simulation.separate([alone])
    simulation.run_for(1_000)
    request = simulation.command(alone, events.ReadBarrier)
    assert simulation.run_until(lambda: request in simulation.replies, 5_000)
    assert isinstance(simulation.replies[request].error, Unconfirmed)


def test_a_leader_that_stops_is_replaced_at_once() -> None:
    """``Leave``: another seat leads within 100 virtual ms, where a crash costs a timeout."""
    village = _village()
    simulation = village.simulation
    seated = _seated(village)
    leader = next(node for node in seated if _role(node) == "leader")
    assert leader.replica is not None
    simulation._step(leader, events.Leave())
    others = [node for node in seated if node is not leader]
    start = simulation.now
    assert simulation.run_until(lambda: any(_role(n) == "leader" for n in others), 1_000)
    assert simulation.now - start < 100


def test_readers_are_bounded_and_answered_once() -> None:
    """Too many are refused; a failure is an error; who waits for blocks is answered by them."""
    barriers = Barriers(lambda number: None)
    turn = Turn(Instant(0))
    tokens = [barriers.begin(request, 0) for request in range(READERS_MAX)]
    with pytest.raises(LocalProtocolError, match="wait already"):
        barriers.begin(READERS_MAX, 0)
    barriers.settle(turn, ReadAt(tokens[0], 5), 4)
    assert turn.effects == []
    barriers.settle(turn, ReadFailed(tokens[1]), 4)
    barriers.settle(turn, ReadFailed(tokens[1]), 4)
    barriers.reached(turn, 5)
    barriers.reached(turn, 6)
    requests = [e.request for e in turn.effects if isinstance(e, events.Reply)]
    assert requests == [1, 0]


def test_an_answer_that_names_the_seal_is_asked_again_in_the_next_epoch() -> None:
    """At or above the seal the next epoch's validators may know more; below it, it stands."""
    begun: dict[int, int] = {}
    barriers, turn = Barriers(begun.get), Turn(Instant(0))
    below, seal, tail = (barriers.begin(request, 0) for request in range(3))
    barriers.settle(turn, ReadAt(below, 6), 5)
    barriers.settle(turn, ReadAt(seal, 7), 5)
    barriers.settle(turn, ReadAt(tail, 9), 5)
    assert turn.effects == []
    begun[1] = 8
    barriers.reached(turn, 7)
    replies = {e.request: e for e in turn.effects if isinstance(e, events.Reply)}
    assert replies[0].error is None
    assert isinstance(replies[1].error, Unconfirmed)
    assert isinstance(replies[2].error, Unconfirmed)
    again = barriers.begin(1, 1)
    barriers.settle(turn, ReadAt(again, 7), 7)
    assert turn.effects[-1] == events.Reply(1, count=7), "nothing is above the seal yet"


async def test_the_facade_reads_what_others_made_final() -> None:
    """Refused without a ledger; else state shows what another node called final before."""
    async with local_network("clinic", "clinic", "clinic") as network:
        with pytest.raises(LocalProtocolError, match="no ledger"):
            await network.nodes[0].read_barrier()
        await network.found_mesh(engine="raft")
        receipt = await network.nodes[0].submit(RECALL)
        place = await receipt.final(timeout=10)
        for node in network.nodes:
            assert await node.read_barrier(timeout=10) >= place.height
            entry = node.find(receipt.id)
            assert entry is not None
            assert node.final_place(entry) is not None


async def test_the_facade_gives_up_without_a_quorum() -> None:
    """With two of three off the network the barrier times out, and says so in Python's way."""
    async with local_network("clinic", "clinic", "clinic") as network:
        await network.found_mesh(engine="raft")
        for node in network.nodes[1:]:
            node.shell.set_online(False)
        with pytest.raises(TimeoutError):
            await network.nodes[0].read_barrier(timeout=0.5)
