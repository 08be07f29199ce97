"""One enrolled device that lies: what it may cost the others, and what it may not.

The liar has a credential and nothing else: no seat, no role of a county. Its words reach the
village through honest neighbours, as anybody's do.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest

from p2pmed.errors import CredentialError
from p2pmed.gossip.messages import HEADS_MAX, Push
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical.discrepancies import DiscrepancyReport
from p2pmed.medical.drugs import Recall
from p2pmed.medical.membership import LogOpen
from p2pmed.node import events
from p2pmed.node.branches import BranchAsk, BranchEntries
from p2pmed.node.events import Draft
from p2pmed.node.trust import SHUN_MS
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.wire import codec

SIZE = 4
Engine = Literal["bft", "raft"]


class Liar:
    """Signs whatever it likes with a genuine device key; its own device is switched off."""

    def __init__(self, simulation: Simulation, *, roles: tuple[str, ...] = ("clinic",)) -> None:
        self.simulation = simulation
        policy = MeshPolicy(follow=False)
        self.node = simulation.add_node("liar", roles=roles, policy=policy)
        simulation.crash(self.node)
        simulation.suspects.add(self.node.key)
        self.keys = self.node.identity.keys

    def sign(self, kind: str, body: Any, seq: int, prev: bytes, **fields: Any) -> Entry:
        """An entry of this device."""
        wall = self.node.clock.wall_ms()
        values: dict[str, Any] = {
            "version": 1,
            "incarnation": b"l" * 16,
            "seq": seq,
            "prev": prev,
            "ledger": b"",
            "hlc": wall << 16,
            "wall": wall,
            "clock": 0,
            "kind": kind,
            "kind_version": 1,
            "actor": b"",
            "subject": b"",
            "refs": (),
            "body": codec.plain(body),
        }
        return sign_entry(
            Envelope(**{**values, **fields}),
            seed=self.keys.signing_seed,
            author=self.keys.node_id,
            network=self.simulation.network_id,
        )

    def open(self, **fields: Any) -> Entry:
        """The first entry of a log."""
        body = LogOpen(
            chain=self.node.identity.chain,
            previous=b"",
            previous_seq=0,
            previous_head=b"",
            box_key=self.keys.box_public,
            vote_keys=(),
            boot=1,
        )
        return self.sign("log.open", body, 0, GENESIS_PREV, **fields)

    def reports(self, after: Entry, mark: int, count: int) -> list[Entry]:
        """``count`` entries that no other call with another ``mark`` gives."""
        made = [after]
        for number in range(count):
            body = report(mark, number)
            made.append(self.sign("discrepancy.report", body, made[-1].seq + 1, made[-1].id))
        return made[1:]

    def tell(self, victim: SimNode, through: SimNode, *entries: Entry) -> None:
        """An honest neighbour passes the entries on to ``victim`` alone."""
        push = Push(tuple(entry.raw for entry in entries))
        self.simulation._step(victim, events.Frame(through.key, codec.encode(push)))


def report(mark: int, number: int) -> DiscrepancyReport:
    return DiscrepancyReport(
        first=bytes([mark]) * 30 + number.to_bytes(2, "big"),
        second=bytes([mark + 1]) * 32,
        reason="x",
    )


def village(engine: Engine, seed: int = 1) -> tuple[Simulation, list[SimNode]]:
    """Four clinics in a ledger, quiet."""
    simulation = Simulation(seed)
    policy = MeshPolicy(auto=True, size=SIZE, engine=engine)
    nodes = [simulation.add_node(f"clinic-{n}", policy=policy) for n in range(SIZE)]
    assert simulation.run_until(lambda: all(node.home for node in nodes), 30_000)
    simulation.run_for(3_000)
    return simulation, nodes


def write(simulation: Simulation, node: SimNode, mark: int) -> None:
    simulation.submit(node, Draft(body=report(200, mark)))


def heads(nodes: list[SimNode]) -> set[tuple[int, bytes, str]]:
    """Where each node's ledger stands, and whether it halted."""
    homes = [node.home for node in nodes]
    return {(h.chain.height, h.chain.state_root, h.halted) for h in homes if h is not None}


def alarms(node: SimNode, kind: str) -> int:
    found = [n for n in node.notices if isinstance(n, events.Alarm)]
    return sum(alarm.kind == kind for alarm in found)


@pytest.mark.parametrize("engine", ["bft", "raft"])
@pytest.mark.parametrize("left", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 300])
def test_a_forked_log_stops_no_validator(engine: Engine, left: int, length: int) -> None:
    """Each validator is given one of two branches; all stay equal, and all learn of the lie."""
    simulation, nodes = village(engine)
    liar = Liar(simulation)
    simulation.run_for(20_000)
    opening = liar.open()
    branches = [liar.reports(opening, mark, length) for mark in (1, 50)]
    for number, node in enumerate(nodes):
        through = nodes[(number + 1) % SIZE]
        branch = branches[0 if number < left else 1]
        for start in range(0, length, 100):
            liar.tell(node, through, *([opening] if start == 0 else []), *branch[start:][:100])
            simulation.run_for(50)
    for mark in range(12):
        write(simulation, nodes[mark % SIZE], mark)
        simulation.run_for(1_000)
    assert len(heads(nodes)) == 1
    assert not any(node.home.halted for node in nodes if node.home)
    own = [simulation.replies[request].entries[0] for request in simulation.replies][-12:]
    chains = [node.home.chain for node in nodes if node.home]
    assert all(chain.verdict_of(entry) for chain in chains for entry in own if entry)
    assert all(alarms(node, "fork") == 1 for node in nodes), "told once each"
    assert not any(chain.pending() for chain in chains), "and then there is peace"
    broken = {violation.promise for violation in simulation.oracle.violations}
    assert broken <= {"honest logs do not fork", "final means durable"}, broken


def test_no_peer_can_give_another_branch_than_the_block_means() -> None:
    """An answer is taken for its ids: anything else is not kept, and others are asked."""
    simulation, nodes = village("bft")
    liar = Liar(simulation)
    opening = liar.open()
    (left,), (right,) = liar.reports(opening, 1, 1), liar.reports(opening, 50, 1)
    victim, neighbour = nodes[0], nodes[1]
    liar.tell(victim, neighbour, opening, left)
    simulation.run_for(1_000)
    assert victim.replica is not None
    logs = victim.replica.logs
    wish = (left.lane, 1, right.id)
    logs.wanted[wish] = None
    simulation.run_for(1_100)  # it asks somebody
    (third,) = liar.reports(opening, 90, 1)
    for node in nodes[1:]:
        answer = codec.encode(BranchEntries((third.raw,)))
        simulation._step(victim, events.Frame(node.key, answer))
    assert not logs.stands(left.lane, 1, third.id)
    simulation.run_for(30_000)
    assert wish not in logs.wanted, "what nobody has is not looked for for ever"
    assert alarms(victim, "fork") == 0


def test_a_branch_is_told_to_whoever_asks_and_not_too_often() -> None:
    """One answer per peer and moment: an ask is small, an answer may be a batch."""
    simulation, nodes = village("bft")
    node, peer = nodes[0], nodes[1]
    assert node.replica is not None
    lane = node.replica.own.key
    (first,) = node.replica.logs.read(lane, 0, 1, bytes_max=1)
    entry = node.replica.logs.entry(lane, 0)
    assert entry is not None
    ask = BranchAsk(author=lane.author, incarnation=lane.incarnation, seq=0, id=entry.id)
    now = simulation.agenda.now
    effects = [node.replica.step(events.Frame(peer.key, codec.encode(ask)), now) for _ in range(3)]
    sent = [e for made in effects for e in made if isinstance(e, events.SendFrame)]
    assert [e.message for e in sent] == [codec.encode(BranchEntries((first,)))]


def test_a_flood_of_ledgers_does_not_hide_the_village_s_own() -> None:
    """A ping tells few heads: the own ledger's is always among them, the others take turns."""
    _, nodes = village("bft")
    replica = nodes[0].replica
    assert replica is not None
    assert nodes[0].home is not None
    home = nodes[0].home.ledger
    many = tuple((bytes([n]) + bytes(31), n) for n in range(100))
    replica.chains.heads = lambda: (*many, (home, 7))  # type: ignore[method-assign]
    told = [replica.spreading.heads()[:HEADS_MAX] for _ in range(8)]
    assert all(heads[0] == (home, 7) for heads in told)
    assert len({ledger for heads in told for ledger, _ in heads}) == 101


def test_a_recall_by_somebody_who_may_not_recall_alarms_nobody() -> None:
    """The screen shows recalls of makers and authorities, not of whoever writes one."""
    simulation, nodes = village("bft")
    liar = Liar(simulation)
    maker = simulation.add_node("maker", roles=("manufacturer",))
    simulation.run_for(3_000)
    body = Recall(gtin="09506000134352", lot="L", reason="x")
    opening = liar.open()
    false = liar.sign("drug.recall", body, 1, opening.id)
    liar.tell(nodes[0], nodes[1], opening, false)
    simulation.run_for(3_000)
    assert alarms(nodes[0], "recall") == 0
    simulation.submit(maker, Draft(body=body))
    simulation.run_for(3_000)
    assert all(alarms(node, "recall") == 1 for node in nodes)


def test_who_gave_a_false_signature_gets_no_channel_for_a_while() -> None:
    """A new channel would cost it less than it costs us."""
    simulation, nodes = village("bft")
    liar = Liar(simulation)
    opening = liar.open()
    (entry,) = liar.reports(opening, 1, 1)
    push = Push((opening.raw, entry.raw[:-1] + bytes([entry.raw[-1] ^ 1])))
    victim, peer = nodes[0].replica, nodes[1]
    assert victim is not None
    victim.authenticate(peer.key, peer.identity.chain)
    simulation._step(nodes[0], events.Frame(peer.key, codec.encode(push)))
    simulation.run_for(10)
    with pytest.raises(CredentialError, match="broke the protocol"):
        victim.authenticate(peer.key, peer.identity.chain)
    simulation.run_for(SHUN_MS)
    victim.authenticate(peer.key, peer.identity.chain)


def test_one_clock_in_another_century_founds_nothing_there() -> None:
    """A ledger's time never goes back: it begins at the time that most clocks tell."""
    simulation = Simulation(2)
    policy = MeshPolicy(auto=True, size=SIZE)
    century_ms = 100 * 365 * 86_400_000
    nodes = [
        simulation.add_node(f"clinic-{n}", policy=policy, clock_offset_ms=century_ms * (n == 0))
        for n in range(SIZE)
    ]
    assert simulation.run_until(lambda: all(node.home for node in nodes), 60_000)
    (genesis,) = {node.home.founding.genesis.created for node in nodes if node.home}
    assert abs(genesis - nodes[1].clock.wall_ms()) < 60_000
