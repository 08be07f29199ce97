"""Nodes without a seat follow a Raft mesh by certified blocks, and cost its leader nothing."""

from __future__ import annotations

import pytest

from p2pmed.medical import Recall
from p2pmed.node import events
from p2pmed.testing.simulation import CONSENSUS_HEAD, SimNode, Simulation
from p2pmed.testing.village import Village

RECALL = Recall(gtin="06901234567892", lot="RB1", reason="stability")


def test_who_has_no_seat_follows_and_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the same height; no message of consensus ever goes to it."""
    village = Village(1, engine="raft")
    assert village.form()
    simulation = village.simulation
    late = simulation.add_node("late", roles=("insurer",))
    told: list[bytes] = []
    real = Simulation._send

    def send(self: Simulation, node: SimNode, peer: bytes, message: bytes, control: bool) -> None:
        if message.startswith(CONSENSUS_HEAD):
            told.append(peer)
        real(self, node, peer, message, control)

    monkeypatch.setattr(Simulation, "_send", send)
    for _ in range(12):
        simulation.submit(village.nodes[0], events.Draft(body=RECALL))
        simulation.run_for(700)
    assert simulation.run_until_settled(30_000)
    assert late.home is not None
    assert late.home.seat is None
    assert late.height == village.nodes[0].height >= 5
    assert told
    assert late.key not in told
    request = simulation.command(late, events.ReadBarrier)
    assert simulation.replies[request].error is not None, "nor has it a voice to confirm reads"
