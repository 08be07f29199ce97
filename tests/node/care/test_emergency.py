"""Breaking the glass: two people, hours, a trace that comes first, and keys that turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from raw_copy import RawCopy

from p2pmed.errors import Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical import Demographics, PatientName, QualificationIssue
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import EVERY_CATEGORY, Category
from p2pmed.medical.privacy.emergency import (
    EMERGENCY_MS_MAX,
    EmergencyKey,
    EmergencyOpen,
    Finding,
    Reason,
    open_digest,
)
from p2pmed.node.events import Draft
from p2pmed.node.node import Node

NOTE = b'{"resourceType":"Encounter","status":"finished"}'
HIDDEN = b'{"resourceType":"Condition","meta":{"security":[{"code":"HIV"}]}}'


def people(node: Node, count: int) -> list[PersonKeys]:
    return [PersonKeys.generate(node.world.entropy) for _ in range(count)]


def holders(staff: list[PersonKeys]) -> dict[bytes, bytes]:
    return {person.person: person.box_public for person in staff}


async def registered(node: Node, **other: Any) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("Mei",)),)
    )
    return (await node.patients.register(who, **other))[0]


@pytest.fixture
async def ward(opened_at: Any, meet: Any) -> Any:
    """A clinic that registers, a second device of the same place without leave, three staff."""
    desk, night = await opened_at("desk"), await opened_at("night")
    await meet(desk, night)
    staff = people(desk, 3)
    await desk.emergency.publish(holders(staff))
    patient = await registered(desk)
    note = await desk.patients.add(NOTE, patient=patient)
    hidden = await desk.patients.add(HIDDEN, patient=patient)
    await meet(desk, night)
    return desk, night, staff, patient, note.id, hidden.id


async def test_two_open_what_one_cannot_and_it_is_told_before(ward: Any, meet: Any) -> None:
    """Without leave nothing opens; two of the staff open it all, sensitive categories too; the
    opening is stored before the announcement, and that before the reading; the patient sees both.
    """
    desk, night, staff, patient, note, hidden = ward
    with pytest.raises(Denied):
        night.opener.ring(patient)
    with pytest.raises(InvalidTransaction):
        await night.emergency.open(patient, staff[:1], reason=Reason.UNCONSCIOUS)
    event = await night.emergency.open(patient, staff[1:], reason=Reason.UNCONSCIOUS)
    items = {item.id: item.resource for item in await night.patients.timeline(patient)}
    assert (items[note], items[hidden]) == (NOTE, HIDDEN)
    about = [entry.kind for entry in night.patients.entries(patient)]
    assert about[-2:] == ["emergency.open", "audit.read"]
    await meet(desk, night)
    [read] = [each for each in desk.reads.of(patient) if each.author == night.key]
    assert (read.purpose, read.grants, read.count) == ("ETREAT", (event.opening,), 3)
    assert read.records is not None
    assert {category for category, _ in read.records} == {
        Category.DEMOGRAPHICS,
        Category.GENERAL,
        Category.HIV_STI,
    }
    [shown] = desk.emergency.known(patient)
    assert {shown.row.first, shown.row.second} == {each.person for each in staff[1:]}
    fhir = json.loads(shown.to_fhir())
    assert fhir["subtype"][0]["code"] == "110127"


async def test_it_ends_with_its_time_and_with_close(ward: Any, meet: Any) -> None:
    """After its end, or after ``close``, nothing opens on the device that had it open."""
    _, night, staff, patient, note, _ = ward
    await night.emergency.open(patient, staff[:2], reason=Reason.LIFE_THREAT, for_ms=60_000)
    night.opener.ring(patient)
    wall = night.opener.now_ms
    night.opener.now_ms = lambda: wall() + 60_001
    with pytest.raises(Denied):
        night.opener.ring(patient)
    night.opener.now_ms = wall
    night.opener.ring(patient)  # a clock that is right again: the time is not over
    [event] = night.emergency.known(patient)
    await night.emergency.close(event.opening)
    with pytest.raises(Denied):
        night.opener.ring(patient)
    entry = night.find(note)
    assert await night.patients.opened(entry) is None
    night.opener.forget()
    with pytest.raises(Denied):
        night.opener.ring(patient)


async def test_keys_turn_after_it_and_old_ones_open_nothing_new(
    ward: Any, meet: Any, tmp_path: Any
) -> None:
    """Who manages the consent turns the keys when it hears that the emergency is over; what was
    opened then opens nothing written afterwards, and the next two can open that too.
    """
    desk, night, staff, patient, *_ = ward
    await night.emergency.open(patient, staff[:2], reason=Reason.UNCONSCIOUS)
    kept = night.opener.ring(patient)  # a thief of the open keys
    [event] = night.emergency.known(patient)
    await night.emergency.close(event.opening)
    await meet(desk, night)
    assert desk.emergency.due() == [patient]
    assert await desk.emergency.turn_keys(patient) is not None
    assert desk.emergency.due() == []
    later = await desk.patients.add(NOTE, patient=patient)
    await meet(desk, night)
    with pytest.raises(Denied):
        kept.find(desk.body(desk.find(later.id)).sealed.key_id)
    await night.emergency.open(patient, [staff[0], staff[2]], reason=Reason.UNCONSCIOUS)
    items = {item.id: item.resource for item in await night.patients.timeline(patient)}
    assert items[later.id] == NOTE


async def test_what_the_patient_excluded_stays_closed(ward: Any, meet: Any) -> None:
    """A category that the patient excluded is not wrapped to the emergency key any more."""
    desk, night, staff, patient, *_ = ward
    await desk.emergency.admit(patient, excluded=[Category.HIV_STI])
    note = await desk.patients.add(NOTE, patient=patient)
    hidden = await desk.patients.add(HIDDEN, patient=patient)
    await meet(desk, night)
    await night.emergency.open(patient, staff[:2], reason=Reason.UNCONSCIOUS)
    items = {item.id: item.resource for item in await night.patients.timeline(patient)}
    assert (items[note.id], items[hidden.id]) == (NOTE, None)


async def test_only_what_was_named_opens(ward: Any) -> None:
    """An emergency for allergies is not one for everything."""
    _, night, staff, patient, note, hidden = ward
    await night.emergency.open(
        patient, staff[:2], reason=Reason.UNCONSCIOUS, categories=[Category.GENERAL]
    )
    items = {item.id: item.resource for item in await night.patients.timeline(patient)}
    assert (items[note], items[hidden]) == (NOTE, None)


async def test_rules_refuse_by_name(ward: Any) -> None:
    """The same person twice, a forged word, a fifth hour, and somebody without a share."""
    _, night, staff, patient, *_ = ward
    with pytest.raises(Denied, match="hold no two shares"):
        await night.emergency.open(patient, [staff[0], staff[0]], reason=Reason.UNCONSCIOUS)
    with pytest.raises(Denied, match="hold no two shares"):
        await night.emergency.open(
            patient, [staff[0], *people(night, 1)], reason=Reason.UNCONSCIOUS
        )
    one, other = staff[:2]
    now = night.opener.now_ms()

    async def verdict(first: PersonKeys, second: PersonKeys, until: int, said: int) -> str:
        message = open_digest(patient, night.key, Reason.UNCONSCIOUS, EVERY_CATEGORY, said)
        words = [
            each.countersign(night.network, "emergency.open", message) for each in (first, second)
        ]
        body = EmergencyOpen(
            reason=Reason.UNCONSCIOUS,
            categories=EVERY_CATEGORY,
            until=until,
            first=words[0],
            second=words[1],
        )
        draft = Draft(body=body, subject=patient, refs=night.consent.refs(patient))
        return str((await night.submit_drafts([draft]))[-1].verdict.code)

    hour = now + 3_600_000
    assert await verdict(one, one, hour, hour) == "signer_repeated"
    assert await verdict(one, other, hour, hour + 1) == "signature_wrong"
    late = now + EMERGENCY_MS_MAX + 60_000
    assert await verdict(one, other, late, late) == "malformed"
    assert await verdict(one, other, now - 1, now - 1) == "malformed"
    assert await verdict(one, other, hour, hour) == "applied"


async def test_both_must_be_qualified_where_there_is_a_register(opened_at: Any, meet: Any) -> None:
    """From the first ``qual.issue`` on, an unqualified signer opens nothing."""
    desk, county = await opened_at("desk"), await opened_at("county", "county", "shan")
    staff = people(desk, 2)
    await desk.emergency.publish(holders(staff))
    patient = await registered(desk)
    now = desk.opener.now_ms()
    issue = {"role": "nurse", "scope": ("emergency",), "facility": "shan", "valid_from": now - 1}
    await county.submit(
        QualificationIssue(holder=staff[0].person, valid_until=now + 10**9, **issue)
    )
    await meet(desk, county)
    with pytest.raises(Denied, match="qualification_missing"):
        await desk.emergency.open(patient, staff, reason=Reason.UNCONSCIOUS)
    await county.submit(
        QualificationIssue(holder=staff[1].person, valid_until=now + 10**9, **issue)
    )
    await meet(desk, county)
    await desk.emergency.open(patient, staff, reason=Reason.UNCONSCIOUS)


async def test_review_is_by_somebody_else_and_late_ones_are_listed(ward: Any, meet: Any) -> None:
    """Who opened it cannot review it; after 72 hours without a review it is on the list."""
    desk, night, staff, patient, *_ = ward
    event = await night.emergency.open(patient, staff[:2], reason=Reason.UNCONSCIOUS)
    await meet(desk, night)
    wall = desk.opener.now_ms
    desk.opener.now_ms = lambda: wall() + 72 * 3_600_000 + 1
    assert [each.opening for each in desk.emergency.overdue()] == [event.opening]
    refused = await desk.emergency.review(event.opening, Finding.JUSTIFIED, staff[0])
    assert refused.verdict.code == "signer_repeated"
    assert desk.emergency.overdue()
    done = await desk.emergency.review(event.opening, Finding.JUSTIFIED, staff[2])
    assert done.verdict.applied
    assert desk.emergency.overdue() == []
    assert desk.emergency.known(patient)[0].row.finding == "justified"


async def test_from_the_bytes_alone_one_holder_opens_nothing(
    ward: Any, opened_at: Any, tmp_path: Any
) -> None:
    """A thief with a whole home and one staff member's keys opens nothing; the partials that two
    gave for one patient open no other patient's wrap.
    """
    _, night, staff, _, note, _ = ward
    copy = RawCopy.of(tmp_path / "night", night.network)
    assert not copy.plunder([staff[0].box_secret]).records
    two = [staff[0].box_secret, staff[1].box_secret]
    assert copy.plunder(two).opens(note)
    [key] = [body for body in copy.bodies.values() if isinstance(body, EmergencyKey)]
    share = sealing.unwrap(
        staff[0].box_secret,
        next(h for h in key.holders if h.person == staff[0].person).wrapped,
        domain="emergency",
        context=[
            night.network,
            key.public,
            bytes([next(h for h in key.holders if h.person == staff[0].person).point]),
        ],
    )
    assert not copy.plunder([share]).records


async def test_somebody_unknown_is_registered_and_linked_later(ward: Any) -> None:
    """No name, no card: a record all the same, which joins the other one when there is a name."""
    desk, _, _, patient, *_ = ward
    stranger, receipt = await desk.emergency.register_unknown(gender="male")
    assert receipt.verdict.applied
    await desk.linking.link(patient, stranger, reason="recognised")
    assert set(desk.linking.person(patient)) == {patient, stranger}


async def test_the_card_shows_it(opened_at: Any, meet: Any) -> None:
    """Openings of a patient who has a card are found by its pseudonym at the next scan."""
    desk = await opened_at("desk")
    staff = people(desk, 2)
    await desk.emergency.publish(holders(staff))
    who = Demographics(
        patient=desk.patients.new_pseudonym(), names=(PatientName(family="Li", given=("A",)),)
    )
    enrolled = await desk.cards.enrol(who, cost=CHEAP)
    await desk.emergency.open(enrolled.patient, staff, reason=Reason.CANNOT_CONSENT)
    scanned = desk.cards.scan(enrolled.card.text)
    [event] = desk.emergency.known(scanned.card.patient)
    assert event.row.reason is Reason.CANNOT_CONSENT
    assert Purpose.EMERGENCY == "ETREAT"
