"""Whose word counts about a patient's keys, tried by a member who was never asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical import Demographics, PatientName
from p2pmed.medical.consent import (
    EPOCH_PURPOSE,
    AccessGrant,
    AccessRevoke,
    AccessRotate,
    current_epoch,
    grant_row,
)
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import registration_grant
from p2pmed.medical.privacy.cards import CardRevoke
from p2pmed.medical.privacy.emergency import EmergencyClose, Reason
from p2pmed.medical.records import RecordAdd, RecordReseal
from p2pmed.node.events import Draft
from p2pmed.node.node import Node

LAB = {"resourceType": "Observation", "category": [{"coding": [{"code": "laboratory"}]}]}


def person(node: Node, family: str) -> Demographics:
    return Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family=family, given=("A",)),)
    )


@pytest.fixture
async def three(opened_at: Any, meet: Any) -> tuple[Node, Node, Node]:
    clinic = await opened_at("clinic")
    county = await opened_at("county", "hospital", "shan")
    stranger = await opened_at("stranger", "clinic", "shan/li")
    await meet(clinic, county, stranger)
    return clinic, county, stranger


async def write(node: Node, patient: bytes, body: Any, *refs: bytes) -> str:
    """The verdict's code."""
    draft = Draft(body=body, subject=patient, refs=node.consent.refs(patient, *refs))
    receipt = (await node.submit_drafts([draft]))[-1]
    assert receipt.verdict is not None
    return receipt.verdict.code


def planted(stranger: Node, clinic: Node, patient: bytes, purpose: str, epoch: int) -> Any:
    """Keys of the stranger's own making, wrapped to the clinic; and the ring that it keeps."""
    ring = KeyRing.generate(patient, stranger.world.entropy, epoch=epoch)
    wrap = ring.wrap(clinic.keys.box_public, network=stranger.network, purpose=purpose)
    return ring, wrap


def granted(reader: bytes, wrapped: bytes, epoch: int) -> AccessGrant:
    return AccessGrant(
        grantee_key=reader,
        purpose="TREAT",
        epoch=epoch,
        since=0,
        until=0,
        wrapped=wrapped,
        told=b"",
        under=b"",
        proof=b"",
    )


@pytest.mark.parametrize("way", ["rotate", "revoke", "grant"])
async def test_a_stranger_cannot_make_a_clinic_seal_under_keys_that_the_stranger_knows(
    three: tuple[Node, Node, Node], meet: Any, way: str
) -> None:
    """A member without leave hands the clinic newer keys of its own; the ledger refuses, and the
    next record is sealed under the patient's.
    """
    clinic, _, stranger = three
    patient, receipt = await clinic.patients.register(person(clinic, "Wang"))
    await meet(*three)
    purpose = "TREAT" if way == "grant" else EPOCH_PURPOSE
    ring, wrap = planted(stranger, clinic, patient, purpose, 7)
    refs: tuple[bytes, ...] = ()
    body: Any
    if way == "rotate":
        body = AccessRotate(reason="rotation", epoch=7, wraps=(wrap,), proof=b"")
    elif way == "revoke":
        own = granted(stranger.keys.box_public, wrap.wrapped, 0)
        grant = registration_grant(receipt.id, wrap.grantee)
        refs = (receipt.id,)
        body = AccessRevoke(grant=grant, epoch=7, wraps=(wrap,), proof=b"")
        assert await write(stranger, patient, own) == "not_the_party"
    else:
        body = granted(clinic.keys.box_public, wrap.wrapped, 7)
    assert await write(stranger, patient, body, *refs) == "not_the_party"
    await meet(*three)
    assert current_epoch(clinic.state(), patient) == 0
    known = {key.key_id for key in ring}
    assert clinic.opener.ring(patient).current(Category.LABORATORY).key_id not in known
    await clinic.patients.add(json.dumps(LAB).encode(), patient=patient)
    assert [item.resource is not None for item in await clinic.patients.timeline(patient)] == [
        True,
        True,
    ]


async def test_a_reader_ends_its_own_leave_and_what_it_gave_and_nothing_else(
    three: tuple[Node, Node, Node], meet: Any
) -> None:
    """The county, with a grant, cannot end the clinic's nor turn keys; it can give leave on, end
    that, and end its own, each time without handing out keys.
    """
    clinic, county, stranger = three
    patient, receipt = await clinic.patients.register(person(clinic, "Wang"))
    given = await clinic.consent.grant(patient, county.keys.box_public)
    await meet(*three)
    _, wrap = planted(county, clinic, patient, EPOCH_PURPOSE, 1)
    clinics = registration_grant(receipt.id, wrap.grantee)
    assert grant_row(county.state(), patient, clinics) is not None
    end = AccessRevoke(grant=clinics, epoch=1, wraps=(), proof=b"")
    assert await write(county, patient, end, receipt.id) == "not_the_party"
    turn = AccessRotate(reason="rotation", epoch=1, wraps=(wrap,), proof=b"")
    assert await write(county, patient, turn) == "not_the_party"
    on = await county.consent.grant(patient, stranger.keys.box_public)
    await meet(*three)
    assert len(await stranger.patients.timeline(patient)) == 1
    assert (await stranger.patients.timeline(patient))[0].resource is not None
    mine = AccessRevoke(grant=on.id, epoch=1, wraps=(), proof=b"")
    with_keys = msgspec.structs.replace(mine, wraps=(wrap,))
    assert await write(county, patient, with_keys, on.id) == "not_the_party"
    assert await write(county, patient, mine, on.id) == "applied"
    own = AccessRevoke(grant=given.id, epoch=1, wraps=(), proof=b"")
    assert await write(county, patient, own, given.id) == "applied"
    await meet(*three)
    for node in (county, stranger):
        assert [item.resource for item in await node.patients.timeline(patient)] == [None]


async def test_a_leave_that_claims_the_last_epoch_can_be_ended(
    three: tuple[Node, Node, Node], meet: Any
) -> None:
    """Who hands leave on with the greatest epoch there is does not keep the clinic from ending
    it, nor from ending others afterwards.
    """
    clinic, county, stranger = three
    patient, _ = await clinic.patients.register(person(clinic, "Wang"))
    given = await clinic.consent.grant(patient, county.keys.box_public)
    await meet(*three)
    _, wrap = planted(county, stranger, patient, "TREAT", 1)
    body = granted(stranger.keys.box_public, wrap.wrapped, 2**30)
    draft = Draft(body=body, subject=patient, refs=county.consent.refs(patient, given.id))
    on = (await county.submit_drafts([draft]))[-1]
    await meet(*three)
    for grant in (on.id, given.id):
        ended = await clinic.consent.revoke(patient, grant)
        assert ended.verdict is not None
        assert ended.verdict.code == "applied"
    await clinic.patients.add(json.dumps(LAB).encode(), patient=patient)


async def test_the_card_ends_leave_at_a_clinic_that_has_none(
    three: tuple[Node, Node, Node], meet: Any
) -> None:
    """With the patient's card on its table even a clinic without leave turns keys, by the
    patient's signature; without the card the same bytes are refused.
    """
    clinic, county, stranger = three
    enrolled = await clinic.cards.enrol(person(clinic, "Li"), cost=CHEAP)
    patient = enrolled.patient
    given = await clinic.consent.grant(patient, county.keys.box_public)
    await meet(*three)
    async with stranger.cards.present(enrolled.card.text):
        ended = await stranger.consent.revoke(patient, given.id)
        body = stranger.body(stranger.find(ended.id))  # type: ignore[arg-type]
    assert ended.verdict is not None
    assert ended.verdict.code == "applied"
    assert isinstance(body, AccessRevoke)
    assert body.proof
    unsigned = msgspec.structs.replace(body, proof=b"", epoch=body.epoch + 1)
    forged = msgspec.structs.replace(body, epoch=body.epoch + 1)
    assert await write(stranger, patient, unsigned, given.id) == "not_the_party"
    assert await write(stranger, patient, forged, given.id) == "proof_invalid"
    await meet(*three)
    assert current_epoch(clinic.state(), patient) == 1
    await clinic.patients.add(json.dumps(LAB).encode(), patient=patient)


async def test_two_words_open_once_and_only_who_is_concerned_closes(
    three: tuple[Node, Node, Node], meet: Any
) -> None:
    """A stranger cannot shut what was opened in an emergency; who opened it can, and the same two
    signatures do not open it a second time.
    """
    clinic, _, stranger = three
    staff = [PersonKeys.generate(clinic.world.entropy) for _ in range(2)]
    await clinic.emergency.publish({each.person: each.box_public for each in staff})
    patient, _ = await clinic.patients.register(person(clinic, "Wang"))
    event = await clinic.emergency.open(patient, staff, reason=Reason.UNCONSCIOUS)
    await meet(*three)
    close = EmergencyClose(opening=event.opening)
    assert await write(stranger, patient, close, event.opening) == "not_the_party"
    assert clinic.emergency.find(event.opening).row.is_open(clinic.opener.now_ms())
    await clinic.emergency.close(event.opening)
    again = clinic.body(clinic.find(event.opening))  # type: ignore[arg-type]
    assert await write(clinic, patient, again) == "signature_used"
    swapped = msgspec.structs.replace(again, first=again.second, second=again.first)
    assert await write(clinic, patient, swapped) == "signature_used"


async def test_a_reader_cannot_hand_the_clinic_keys_to_write_under(
    three: tuple[Node, Node, Node], meet: Any
) -> None:
    """The county, which may read the laboratory, grants the clinic newer keys of its own making
    for every category; the clinic goes on writing under the patient's.
    """
    clinic, county, _ = three
    patient, _ = await clinic.patients.register(person(clinic, "Wang"))
    given = await clinic.consent.grant(
        patient, county.keys.box_public, categories=[Category.LABORATORY]
    )
    await meet(*three)
    before = {each: clinic.opener.ring(patient).current(each).key_id for each in Category}
    _, wrap = planted(county, clinic, patient, "TREAT", 9)
    body = granted(clinic.keys.box_public, wrap.wrapped, 9)
    assert await write(county, patient, body, given.id) == "applied"
    await meet(*three)
    assert {each: clinic.opener.ring(patient).current(each).key_id for each in Category} == before
    hidden = b'{"resourceType":"Condition","meta":{"security":[{"code":"HIV"}]}}'
    await clinic.patients.add(hidden, patient=patient)
    await meet(*three)
    assert [item.resource for item in await county.patients.timeline(patient)] == [None, None]


async def test_a_stranger_seals_nothing_again_and_an_insurer_reports_no_card(
    three: tuple[Node, Node, Node], opened_at: Any, meet: Any
) -> None:
    """A reseal counts from who was given keys; a card is reported lost by who gives care or
    oversees it.
    """
    clinic, _, stranger = three
    insurer = await opened_at("insurer", "insurer", "shan")
    enrolled = await clinic.cards.enrol(person(clinic, "Li"), cost=CHEAP)
    patient = enrolled.patient
    written = await clinic.patients.add(json.dumps(LAB).encode(), patient=patient)
    await meet(*three, insurer)
    body = stranger.body(stranger.find(written.id))  # type: ignore[arg-type]
    assert isinstance(body, RecordAdd)
    again = RecordReseal(record=written.id, sealed=body.sealed)
    assert await write(stranger, patient, again, written.id) == "not_the_party"
    assert await write(clinic, patient, again, written.id) == "applied"
    card, row = next(iter(insurer.cards.known(patient).items()))
    lost = CardRevoke(card=card, reason="lost")
    assert await write(insurer, patient, lost, row.entry) == "role_missing"
