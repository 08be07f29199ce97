"""Evidence of another ledger, and of an epoch that is over: whose seat it takes, and whose not."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.identity.keys import VoteSigner
from p2pmed.ledger import epochs
from p2pmed.ledger.evidence import EQUIVOCATION, Evidence
from p2pmed.ledger.genesis import Genesis, ledger_id, sign_genesis
from p2pmed.medical.evidence import (
    EvidenceReport,
    EvidenceSettle,
    Judgement,
    cases,
    is_suspended,
)
from p2pmed.medical.seats import standing
from p2pmed.quorum.certificate import Epoch, Validator, VoteKind, make_certificate, vote_bytes
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes

CLINICS = ("Mu", "Nan", "Hpa", "Ta")


class Ledger:
    """A ledger that the four clinics founded."""

    def __init__(self, hamlet: Any, name: bytes) -> None:
        self.network = hamlet.context().network
        self.signers = {
            hamlet.key(each): VoteSigner(hash_bytes(name + each.encode())) for each in CLINICS
        }
        self.genesis = Genesis(
            version=1,
            network=self.network,
            name="m",
            engine="bft",
            liars=1,
            validators=tuple(
                Validator(node=node, vote_key=self.signers[node].public)
                for node in sorted(self.signers)
            ),
            rules=bytes(32),
            created=0,
            nonce=hash_bytes(name)[:16],
        )
        self.id = ledger_id(self.genesis)
        self.founders = tuple(
            sign_genesis(self.genesis, seed=hamlet.keys[each][0], node=hamlet.key(each))
            for each in sorted(CLINICS, key=hamlet.key)
        )

    def double_vote(self, node: bytes) -> bytes:
        """Two votes of ``node`` in one view of the first epoch."""
        epoch = self.genesis.epoch()
        seat = epoch.index_of(node)
        assert seat is not None
        said = []
        for block in (b"one", b"two"):
            digest = hash_bytes(block)
            message = vote_bytes(self.id, 0, VoteKind.NOTARIZE, 7, digest)
            vote = (seat, self.signers[node].sign(message))
            said.append(codec.encode(make_certificate(epoch, VoteKind.NOTARIZE, 7, digest, [vote])))
        return codec.encode(
            Evidence(
                version=1,
                kind=EQUIVOCATION,
                network=self.network,
                genesis=self.genesis,
                founders=self.founders,
                handovers=(),
                first=said[0],
                second=said[1],
            )
        )


@pytest.fixture
def village(hamlet: Any) -> Ledger:
    for name in CLINICS:
        hamlet.join(name, "clinic", place=f"county/{name}")
    hamlet.join("office", "county", place="county")
    return Ledger(hamlet, b"the village")


def live_in(hamlet: Any, epoch: Epoch) -> None:
    """The state is that of the ledger of ``epoch``."""
    epochs.begin(hamlet.view, epoch, "bft")


def write(hamlet: Any, ledger: bytes, who: str, body: Any) -> str:
    """The verdict of ``ledger``, which orders it."""
    entry = hamlet.sign(who, body, ledger=ledger)
    return str(hamlet.machine.apply(entry, hamlet.view, hamlet.context(ledger)).code)


def test_a_county_hears_of_a_village_s_liar_and_keeps_its_own_seats(
    hamlet: Any, village: Ledger
) -> None:
    """A case is opened for people; a seat of the same device in the county's ledger stays."""
    county = Ledger(hamlet, b"the county")
    live_in(hamlet, county.genesis.epoch())
    liar = hamlet.key("Mu")
    report = EvidenceReport(proof=village.double_vote(liar))
    assert write(hamlet, county.id, "office", report) == "applied"
    assert is_suspended(hamlet.view, liar)
    assert standing(hamlet.view, liar) == "validator"
    assert epochs.next_epoch_of(hamlet.view) is None


def test_what_people_decide_of_one_ledger_s_case_does_not_touch_another_s(
    hamlet: Any, village: Ledger
) -> None:
    """In the county: a case of its own is settled while the village's stands open."""
    county = Ledger(hamlet, b"the county")
    live_in(hamlet, county.genesis.epoch())
    liar = hamlet.key("Mu")
    for ledger in (village, county):
        report = EvidenceReport(proof=ledger.double_vote(liar))
        assert write(hamlet, county.id, "office", report) == "applied"
    assert standing(hamlet.view, liar) == "quarantined"
    places = {row.ledger: place for _, place, row in cases(hamlet.view, liar)}
    settled = EvidenceSettle(
        device=liar, place=places[county.id], judgement=Judgement.RESTORED, reason="power_cut"
    )
    assert write(hamlet, county.id, "office", settled) == "applied"
    assert is_suspended(hamlet.view, liar), "the village's case stands"
    assert standing(hamlet.view, liar) != "quarantined"
    confirmed = EvidenceSettle(
        device=liar, place=places[village.id], judgement=Judgement.CONFIRMED, reason="seen"
    )
    assert write(hamlet, county.id, "office", confirmed) == "applied"
    assert standing(hamlet.view, liar) != "quarantined"


def test_evidence_of_an_epoch_that_is_over_takes_the_seat_of_the_one_in_force(
    hamlet: Any, village: Ledger
) -> None:
    """It is checked by the seats of then; who lied then has no voice now."""
    seats = tuple(
        Validator(node=hamlet.key(each), vote_key=hash_bytes(b"later" + each.encode()))
        for each in sorted(CLINICS, key=hamlet.key)
    )
    later = Epoch(ledger=village.id, number=2, liars=1, validators=seats)
    live_in(hamlet, later)
    liar = hamlet.key("Mu")
    report = EvidenceReport(proof=village.double_vote(liar))
    assert write(hamlet, village.id, "Nan", report) == "applied"
    assert standing(hamlet.view, liar) == "quarantined"
    following = epochs.next_epoch_of(hamlet.view)
    assert following is not None
    assert (following.number, following.index_of(liar)) == (3, None)


def test_who_lied_in_an_old_epoch_and_left_is_kept_from_coming_back(
    hamlet: Any, village: Ledger
) -> None:
    """Without a seat there is none to take; the mark stands against the next one."""
    seats = tuple(
        Validator(node=hamlet.key(each), vote_key=hash_bytes(b"later" + each.encode()))
        for each in sorted(CLINICS[1:], key=hamlet.key)
    )
    live_in(hamlet, Epoch(ledger=village.id, number=1, liars=0, validators=seats))
    liar = hamlet.key("Mu")
    report = EvidenceReport(proof=village.double_vote(liar))
    assert write(hamlet, village.id, "Nan", report) == "applied"
    assert epochs.next_epoch_of(hamlet.view) is None
    assert standing(hamlet.view, liar) == "quarantined"


def test_evidence_of_the_epoch_in_force_must_name_its_very_seats(
    hamlet: Any, village: Ledger
) -> None:
    """The ledger's own word on who decides goes before that of a proof."""
    genuine = village.genesis.epoch()
    live_in(hamlet, Epoch(village.id, 0, 0, genuine.validators[:3]))
    report = EvidenceReport(proof=village.double_vote(genuine.validators[0].node))
    assert write(hamlet, village.id, "Nan", report) == "evidence_wrong"
