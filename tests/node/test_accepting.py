"""Meshes by people's word: one proposes, the others accept, nobody has a policy."""

from __future__ import annotations

from p2pmed.node import events
from p2pmed.sync.founding import MeshPolicy, Propose
from p2pmed.testing.simulation import Simulation


def test_three_operators_found_a_mesh_by_their_word() -> None:
    """Nothing is signed before each said yes; then all live in one ledger."""
    simulation = Simulation(11)
    policy = MeshPolicy(auto=False, follow=False)
    nodes = [simulation.add_node(f"clinic-{i}", policy=policy) for i in range(3)]
    simulation.run_for(5_000)
    propose = Propose(
        members=tuple(node.key for node in nodes),
        engine="bft",
        liars=None,
        name="by hand",
        patience_ms=60_000,
    )
    simulation.command(nodes[0], lambda request: events.FoundMesh(request, propose))
    simulation.run_for(20_000)
    assert [node.replica.home for node in nodes if node.replica] == [None] * 3
    for node in nodes[1:]:
        assert node.replica is not None
        assert [offer[0] for offer in node.replica.formation.offers()] == [nodes[0].key]
        simulation.command(node, lambda request: events.AcceptOffer(request, nodes[0].key))
    simulation.run_for(5_000)
    ledgers = {node.replica.home.ledger for node in nodes if node.replica and node.replica.home}
    assert len(ledgers) == 1
    assert simulation.settled()
