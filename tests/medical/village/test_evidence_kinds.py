"""Evidence in a ledger: judged by its proof, acted on once, decided about by people."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.ledger import epochs
from p2pmed.ledger.epochs import next_epoch_of
from p2pmed.ledger.evidence import Evidence, check_evidence, log_fork
from p2pmed.medical.evidence import (
    EvidenceReport,
    EvidenceSettle,
    Judgement,
    cases,
    is_known,
    is_suspended,
)
from p2pmed.medical.seats import standing
from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes

CLINICS = ("Mu", "Nan", "Hpa", "Kyi")


def forked(hamlet: Any, who: str) -> bytes:
    """Two entries that ``who`` signed for one place."""
    before = dict(hamlet.lanes)
    raws = []
    for word in ("one", "two"):
        hamlet.lanes[who] = before[who]
        raws.append(hamlet.sign(who, [word], "x.word").raw)
    hamlet.lanes.update(before)
    network = hamlet.context().network
    return codec.encode(log_fork(network, *raws))


@pytest.fixture
def mesh(hamlet: Any) -> Any:
    """Four clinics with seats, and a county that supervises them."""
    for name in CLINICS:
        hamlet.join(name, "clinic", place=f"county/{name}")
    hamlet.join("office", "county", place="county")
    seats = sorted(
        (Validator(node=hamlet.key(n), vote_key=hash_bytes(n.encode())) for n in CLINICS),
        key=lambda seat: seat.node,
    )
    epoch = Epoch(ledger=hamlet.LEDGER, number=0, liars=1, validators=tuple(seats))
    epochs.begin(hamlet.view, epoch, "bft")
    return hamlet


def place_of(hamlet: Any, who: str) -> bytes:
    ((_, place, _),) = cases(hamlet.view, hamlet.key(who))
    return place


def test_a_proof_takes_the_liar_s_seat_once(mesh: Any) -> None:
    """Any member may bring it; told again it changes nothing."""
    proof = forked(mesh, "Mu")
    assert mesh.write("Nan", EvidenceReport(proof=proof)).code == "applied"
    liar = mesh.key("Mu")
    assert is_suspended(mesh.view, liar)
    assert standing(mesh.view, liar) == "quarantined"
    following = next_epoch_of(mesh.view)
    assert following is not None
    assert following.index_of(liar) is None
    assert following.liars == 0
    before = {key: raw for key, raw in mesh.rows().items() if not key.startswith(b"\x00")}
    assert mesh.write("Hpa", EvidenceReport(proof=proof)).code == "applied"
    after = {key: raw for key, raw in mesh.rows().items() if not key.startswith(b"\x00")}
    assert after == before
    assert is_known(mesh.view, check_evidence(codec.decode(proof, Evidence)))


def test_what_proves_nothing_is_refused(mesh: Any) -> None:
    """Rubbish, an altered proof, one of another network: and nobody is harmed."""
    proof = forked(mesh, "Mu")
    elsewhere = msgspec.structs.replace(codec.decode(proof, Evidence), network=bytes(32))
    altered = proof[:-1] + bytes([proof[-1] ^ 1])
    for wrong in (b"\x80", altered, codec.encode(elsewhere), proof[:-1]):
        assert mesh.write("Nan", EvidenceReport(proof=wrong)).code == "evidence_wrong"
    assert not is_suspended(mesh.view, mesh.key("Mu"))
    assert list(cases(mesh.view)) == []


def test_people_restore_or_confirm(mesh: Any) -> None:
    """A supervisor of the place decides; the same story does not undo it; a later word may."""
    proof = forked(mesh, "Mu")
    mesh.write("Nan", EvidenceReport(proof=proof))
    liar, place = mesh.key("Mu"), place_of(mesh, "Mu")

    def settle(who: str, judgement: Judgement, **fields: Any) -> str:
        body = EvidenceSettle(device=liar, place=place, judgement=judgement, reason="power_cut")
        code: str = mesh.write(who, msgspec.structs.replace(body, **fields)).code
        return code

    assert settle("Nan", Judgement.RESTORED) == "role_missing"
    assert settle("office", Judgement.RESTORED, place=bytes(32)) == "evidence_unknown"
    mesh.join("far office", "county", place="elsewhere")
    assert settle("far office", Judgement.RESTORED) == "issuer_not_above"
    assert settle("office", Judgement.RESTORED) == "applied"
    assert not is_suspended(mesh.view, liar)
    assert standing(mesh.view, liar) != "quarantined"
    assert settle("office", Judgement.RESTORED) == "evidence_settled"
    mesh.write("Hpa", EvidenceReport(proof=proof))
    assert not is_suspended(mesh.view, liar)
    assert settle("office", Judgement.CONFIRMED) == "applied"
    assert is_suspended(mesh.view, liar)
    assert standing(mesh.view, liar) == "quarantined"


def test_nobody_decides_in_their_own_case(mesh: Any) -> None:
    """Not even a county."""
    mesh.write("Nan", EvidenceReport(proof=forked(mesh, "office")))
    body = EvidenceSettle(
        device=mesh.key("office"),
        place=place_of(mesh, "office"),
        judgement=Judgement.RESTORED,
        reason="power_cut",
    )
    assert mesh.write("office", body).code == "not_the_party"


def test_below_three_seats_there_is_an_alarm_and_no_change(hamlet: Any) -> None:
    """Three seats, one liar: two cannot stand without it, so people decide first."""
    for name in CLINICS[:3]:
        hamlet.join(name, "clinic")
    seats = tuple(
        Validator(node=hamlet.key(n), vote_key=hash_bytes(n.encode())) for n in CLINICS[:3]
    )
    epoch = Epoch(ledger=hamlet.LEDGER, number=0, liars=0, validators=seats)
    epochs.begin(hamlet.view, epoch, "bft")
    assert hamlet.write("Nan", EvidenceReport(proof=forked(hamlet, "Mu"))).code == "applied"
    assert is_suspended(hamlet.view, hamlet.key("Mu"))
    assert next_epoch_of(hamlet.view) is None


def test_every_node_judges_alike(mesh: Any) -> None:
    """A second machine gives the same verdicts."""
    mesh.write("Nan", EvidenceReport(proof=forked(mesh, "Mu")))
    verdicts, _ = mesh.replay()
    assert verdicts[-1].code == "applied"
