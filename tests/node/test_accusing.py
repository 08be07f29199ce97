"""Evidence on whole nodes: found, kept, reported, acted on, and decided about by people."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.consensus.bft.messages import Vote, encode_message
from p2pmed.consensus.interface import Decide, Header, header_digest
from p2pmed.ledger.chain import StoredBlock
from p2pmed.ledger.evidence import LEDGER_FORK, LOG_FORK, check_evidence, decode_evidence
from p2pmed.ledger.transaction import sign_entry
from p2pmed.medical.drugs import Recall
from p2pmed.medical.evidence import EvidenceReport, cases, is_suspended
from p2pmed.medical.seats import standing
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.node.messages import ConsensusFrame
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import (
    Certificate,
    VoteKind,
    check_certificate,
    make_certificate,
    vote_bytes,
)
from p2pmed.quorum.evidence import EQUIVOCATION
from p2pmed.sync import chains as chain_events
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes
from p2pmed.world import Space

SIZE = 4
GTIN = "09506000134352"


def village(engine: Any = "bft", size: int = SIZE) -> tuple[Simulation, list[SimNode]]:
    """Clinics in a ledger, quiet."""
    simulation = Simulation(7)
    policy = MeshPolicy(auto=True, size=size, engine=engine)
    nodes = [simulation.add_node(f"clinic-{n}", policy=policy) for n in range(size)]
    assert simulation.run_until(lambda: all(node.home for node in nodes), 30_000)
    simulation.run_for(3_000)
    return simulation, nodes


def kept(node: SimNode) -> list[Any]:
    assert node.replica is not None
    return [check_evidence(evidence) for _, evidence in node.replica.ledgers.accusing.kept()]


def reports(node: SimNode) -> list[EvidenceReport]:
    """Reports in all author logs of a node."""
    assert node.replica is not None
    logs, found = node.replica.logs, []
    for lane in logs:
        for entry in logs.entries(lane.key, 0, lane.next_seq):
            body = node.replica.registry.body(entry)
            if isinstance(body, EvidenceReport):
                found.append(body)
    return found


def seat_of(node: SimNode) -> int:
    assert node.home is not None
    assert node.home.seat is not None
    return node.home.seat


def equivocate(simulation: Simulation, liar: SimNode, victim: SimNode) -> None:
    """The liar's own key notarizes two blocks of one view, and tells it to one validator."""
    home = victim.home
    assert home is not None
    assert liar.replica is not None
    view = int(home.engine.status()["view"])  # type: ignore[union-attr]
    signer = liar.replica.identity.keys.vote_signer(home.epoch.number)
    for name in (b"one", b"two"):
        digest = hash_bytes(name)
        message = vote_bytes(home.ledger, home.epoch.number, VoteKind.NOTARIZE, view, digest)
        vote = Vote(kind=1, view=view, digest=digest, signature=signer.sign(message))
        frame = ConsensusFrame(
            ledger=home.ledger, epoch=home.epoch.number, message=encode_message(vote)
        )
        simulation._step(victim, events.Frame(liar.key, codec.encode(frame)))


def test_an_equivocating_seat_is_reported_and_votes_no_more() -> None:
    """One validator sees two votes; all learn, the seat is taken, and people may give it back."""
    simulation, nodes = village()
    liar, victim = nodes[0], nodes[1]
    equivocate(simulation, liar, victim)
    (case,) = kept(victim)
    assert (case.kind, case.guilty) == (EQUIVOCATION, (liar.key,))
    assert simulation.run_until(
        lambda: all(n.home and is_suspended(n.home.chain.state, liar.key) for n in nodes[1:]),
        20_000,
    )
    assert simulation.run_until(
        lambda: all(n.home and n.home.epoch.number == 1 for n in nodes[1:]), 20_000
    )
    for node in nodes[1:]:
        assert node.home is not None
        assert node.home.epoch.index_of(liar.key) is None
        assert len(node.home.epoch.validators) == SIZE - 1
        assert standing(node.home.chain.state, liar.key) == "quarantined"
    equivocate_again = len(reports(victim))
    simulation.run_for(5_000)
    assert len(reports(victim)) == equivocate_again == 1, "told once by whoever saw it"


@pytest.mark.parametrize("engine", ["bft", "raft"])
def test_a_forked_log_becomes_evidence(engine: Any) -> None:
    """Two entries of one place: each node that sees them can prove it to a stranger."""
    simulation, nodes = village(engine)
    liar, victim = nodes[0], nodes[1]
    assert liar.replica is not None
    key = liar.replica.own.key
    logs = liar.replica.logs
    last = logs.entry(key, logs.next_seq(key) - 1)
    assert last is not None
    other = msgspec.structs.replace(last.envelope, wall=last.envelope.wall + 1)
    keys = liar.replica.identity.keys
    twin = sign_entry(
        other, seed=keys.signing_seed, author=liar.key, network=liar.replica.identity.network
    )
    simulation._step(victim, events.ImportEntries(1, (twin.raw,)))
    assert simulation.run_until(
        lambda: all(
            n.home and any(d == liar.key for d, _, _ in cases(n.home.chain.state)) for n in nodes
        ),
        30_000,
    )
    (case,) = kept(victim)
    assert (case.kind, case.guilty) == (LOG_FORK, (liar.key,))
    for raw in {report.proof for report in reports(victim)}:
        assert check_evidence(decode_evidence(raw)).guilty == (liar.key,)


def other_branch(nodes: list[SimNode], height: int, *, view: int = 0) -> StoredBlock:
    """What a quorum of liars would certify beside the block at ``height``."""
    home = nodes[0].home
    assert home is not None
    stored = home.chain.block_at(height)
    assert stored is not None
    header: Header = msgspec.structs.replace(
        stored.block.header, view=view or stored.block.header.view, parent=hash_bytes(b"elsewhere")
    )
    digest = header_digest(header)
    message = vote_bytes(home.ledger, header.epoch, VoteKind.FINALIZE, header.view, digest)
    votes = []
    for node in nodes[: home.epoch.quorum]:
        assert node.replica is not None
        signer = node.replica.identity.keys.vote_signer(header.epoch)
        votes.append((seat_of(node), signer.sign(message)))
    certificate = make_certificate(home.epoch, VoteKind.FINALIZE, header.view, digest, votes)
    block = msgspec.structs.replace(stored.block, header=header)
    return StoredBlock(block=block, certificate=certificate)


def test_a_fork_beyond_the_liars_halts_and_leaves_its_proof() -> None:
    """Both certificates are durable, name f + 1, survive a restart and reach the peers."""
    simulation, nodes = village()
    home = nodes[0].home
    assert home is not None
    top = home.chain.height
    stored = home.chain.block_at(top)
    assert stored is not None
    forked = other_branch(nodes, top)
    victim = nodes[3]
    answer = chain_events.ChainBlocks(
        ledger=home.ledger, founding=b"", blocks=(codec.encode(forked),)
    )
    simulation._step(victim, events.Frame(nodes[0].key, codec.encode(answer)))
    assert victim.home is not None
    assert victim.home.halted
    (case,) = kept(victim)
    assert case.kind == LEDGER_FORK
    assert case.height is not None
    assert len(case.guilty) >= home.epoch.liars + 1
    assert simulation.run_until(lambda: len(reports(nodes[0])) == 1, 20_000), "peers are told"
    (told,) = {report.proof for report in reports(nodes[0])}
    assert check_evidence(decode_evidence(told)) == case
    simulation.crash(victim)
    simulation.start(victim)
    simulation.run_for(1_000)
    assert victim.home is not None
    assert victim.home.halted
    assert kept(victim) == [case]


def nullified(nodes: list[SimNode], view: int) -> Certificate:
    """A quorum of the first epoch gave ``view`` up."""
    home = nodes[0].home
    assert home is not None
    message = vote_bytes(home.ledger, 0, VoteKind.NULLIFY, view, b"")
    votes = []
    for node in nodes:
        assert node.replica is not None
        votes.append((seat_of(node), node.replica.identity.keys.vote_signer(0).sign(message)))
    return make_certificate(home.epoch, VoteKind.NULLIFY, view, b"", votes)


def test_a_fork_across_views_is_named_by_what_passed_over_the_lower_one() -> None:
    """Final elsewhere in a view that was nullified here: the certificate was kept for that."""
    simulation, nodes = village()
    home = nodes[0].home
    assert home is not None
    top = home.chain.block_at(home.chain.height)
    assert top is not None
    forked = other_branch(nodes, top.block.header.height, view=top.block.header.view + 9)
    victim = nodes[3]
    assert victim.replica is not None
    passed = nullified(nodes[1:], top.block.header.view + 9)
    decide = Decide(block=top.block, certificate=top.certificate, passed=(passed,))
    victim.replica.ledgers.accusing.hear(Turn(simulation.now), home.epoch, decide)
    answer = chain_events.ChainBlocks(
        ledger=home.ledger, founding=b"", blocks=(codec.encode(forked),)
    )
    simulation._step(victim, events.Frame(nodes[0].key, codec.encode(answer)))
    (case,) = kept(victim)
    assert case.kind == LEDGER_FORK
    assert set(case.guilty) == {nodes[1].key, nodes[2].key}
    assert len(case.guilty) >= home.epoch.liars + 1


def test_views_that_were_passed_over_are_remembered() -> None:
    """With a clinic away its views are nullified, and the blocks above say by whom."""
    simulation, nodes = village()
    simulation.crash(nodes[0])
    for mark in range(8):
        simulation.submit(
            nodes[1 + mark % 3], Draft(body=Recall(gtin=GTIN, lot=f"L{mark}", reason="x"))
        )
        simulation.run_for(2_000)
    home, disk = nodes[1].home, nodes[1].disk
    assert home is not None
    rows = disk.scan(Space.LOCAL, b"passed", b"passee", limit=100)
    assert rows
    for _, raw in rows:
        certificate = codec.decode(raw, Certificate)
        assert certificate.kind == VoteKind.NULLIFY
        check_certificate(certificate, home.epoch)
