"""What shares a commit shares the turn after it: one word for all, and nothing before its flush."""

from __future__ import annotations

from p2pmed.bench.load import records, registration
from p2pmed.engine import Persist, Persisted
from p2pmed.gossip.messages import Push
from p2pmed.node import events
from p2pmed.node.messages import decode_message
from p2pmed.node.replica import Replica
from p2pmed.testing.simulation import Simulation

PATIENT = bytes(16)


def two_nodes() -> tuple[Simulation, Replica, bytes]:
    """A simulation of two connected nodes, the first one's replica, the other's key."""
    simulation = Simulation(1)
    first, second = (simulation.add_node(name) for name in ("a", "b"))
    simulation.submit(first, registration(PATIENT))
    assert simulation.run_until(simulation.settled, 20_000)
    simulation.run_for(3_000)  # and each has told the other what it holds
    assert first.replica is not None
    assert second.key in first.replica.links
    return simulation, first.replica, second.key


def submit(simulation: Simulation, replica: Replica, request: int) -> int:
    """The token of the flush that a submission waits for."""
    event = events.Submit(request, tuple(records(PATIENT, 1)))
    effects = replica.step(event, simulation.agenda.now)
    assert not any(isinstance(effect, events.Reply | events.SendFrame) for effect in effects)
    return next(effect.token for effect in effects if isinstance(effect, Persist))


def replies(effects: list[events.NodeEffect]) -> list[int]:
    return [effect.request for effect in effects if isinstance(effect, events.Reply)]


def pushes(effects: list[events.NodeEffect]) -> list[Push]:
    sent = [decode_message(e.message) for e in effects if isinstance(e, events.SendFrame)]
    return [message for message in sent if isinstance(message, Push)]


def test_the_last_token_of_a_commit_answers_all_in_order() -> None:
    """Ten submissions that share a flush are answered by its last token, in their order."""
    simulation, replica, _ = two_nodes()
    tokens = [submit(simulation, replica, 1_000 + n) for n in range(10)]
    effects = replica.step(Persisted(tokens[-1]), simulation.agenda.now)
    assert replies(effects) == [1_000 + n for n in range(10)]
    assert replies(replica.step(Persisted(tokens[0]), simulation.agenda.now)) == []


def test_a_flush_answers_nothing_that_came_after_it() -> None:
    """A submission whose own flush is not done is neither answered nor pushed."""
    simulation, replica, _ = two_nodes()
    tokens = [submit(simulation, replica, 1_000 + n) for n in range(4)]
    effects = replica.step(Persisted(tokens[1]), simulation.agenda.now)
    assert replies(effects) == [1_000, 1_001]
    assert [len(push.entries) for push in pushes(effects)] == [2]
    effects = replica.step(Persisted(tokens[3]), simulation.agenda.now)
    assert replies(effects) == [1_002, 1_003]


def test_what_shares_a_flush_travels_in_one_push() -> None:
    """Ten entries of ten submissions cost one message to the peer, in the order of the log."""
    simulation, replica, _ = two_nodes()
    start = replica.logs.next_seq(replica.own.key)
    tokens = [submit(simulation, replica, 1_000 + n) for n in range(10)]
    effects = replica.step(Persisted(tokens[-1]), simulation.agenda.now)
    (push,) = pushes(effects)
    expected = replica.logs.read(replica.own.key, start, start + 10, bytes_max=1 << 20)
    assert list(push.entries) == expected
    answered = [n for n, effect in enumerate(effects) if isinstance(effect, events.Reply)]
    sent = [n for n, effect in enumerate(effects) if isinstance(effect, events.SendFrame)]
    assert max(answered) < min(sent)
