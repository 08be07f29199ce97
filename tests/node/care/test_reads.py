"""Who has read what: told before it is read, once for each call, to the patient in full."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.medical import Demographics, PatientName
from p2pmed.medical.keyring import Category
from p2pmed.medical.privacy.reads import AuditRead, Gate
from p2pmed.node.node import Node

NOTE = b'{"resourceType":"Encounter","status":"finished"}'


async def registered(node: Node, **other: Any) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("Mei",)),)
    )
    return (await node.patients.register(who, **other))[0]


@pytest.fixture
async def shared(opened_at: Any, meet: Any) -> Any:
    """A clinic, a county with a grant, and a patient with 40 notes."""
    clinic, county = await opened_at("clinic"), await opened_at("county", "county", "shan")
    await meet(clinic, county)
    patient = await registered(clinic)
    grant = await clinic.consent.grant(patient, county.keys.box_public)
    for _ in range(40):
        await clinic.patients.add(NOTE, patient=patient)
    await meet(clinic, county)
    return clinic, county, patient, grant


async def test_a_call_that_reads_forty_records_writes_one_entry(shared: Any, meet: Any) -> None:
    """It names device, grant, purpose and number; the patient's side also learns what was read,
    and the auditor's does not.
    """
    clinic, county, patient, grant = shared
    items = await county.patients.timeline(patient)
    assert sum(item.resource is not None for item in items) == 41
    await meet(clinic, county)
    [event] = clinic.reads.of(patient)
    assert (event.author, event.purpose, event.grants, event.count) == (
        county.key,
        "TREAT",
        (grant.id,),
        41,
    )
    assert event.records is not None
    told = {name for category, name in event.records if category is Category.GENERAL}
    assert told == {item.id[:8] for item in items if item.kind == "Encounter"}
    [audited] = county.reads.by(county.key)
    assert (audited.patient, audited.records) == (patient, None)
    with pytest.raises(Denied):
        clinic.reads.by(county.key)
    # The clinic wrote all of it since it was opened: reading it again tells nobody anything.
    await clinic.patients.timeline(patient)
    assert clinic.reads.by(clinic.key) == []


async def test_nothing_opens_outside_an_announcement(shared: Any) -> None:
    """Leave and keys are not enough; and what one batch announced does not open after it."""
    _, county, patient, _ = shared
    entry = county.patients.entries(patient)[-1]
    with pytest.raises(Denied, match="tells of this reading"):
        county.opener.read(entry)
    async with county.reads.announced([entry]):
        stored = county.find(county.patients.entries(patient)[-1].id)
        assert isinstance(county.body(stored), AuditRead)
        assert county.opener.read(entry) is not None
    with pytest.raises(Denied, match="tells of this reading"):
        county.opener.read(entry)


async def test_what_cannot_be_written_opens_nothing(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the announcement is not stored, the batch does not begin."""
    _, county, patient, _ = shared
    entry = next(e for e in county.patients.entries(patient) if e.kind == "record.add")

    async def fail(drafts: Any) -> None:
        raise LocalProtocolError("the disk is full")

    monkeypatch.setattr(county, "submit_drafts", fail)
    with pytest.raises(LocalProtocolError, match="disk is full"):
        await county.patients.timeline(patient)
    with pytest.raises(Denied):
        county.opener.read(entry)


async def test_a_revocation_between_announcement_and_reading_counts(shared: Any, meet: Any) -> None:
    """Announced and then revoked: closed."""
    clinic, county, patient, grant = shared
    entry = next(e for e in county.patients.entries(patient) if e.kind == "record.add")
    ring = county.opener.ring(patient)
    async with county.reads.announced([entry]):
        assert county.opener.read(entry, ring=ring) is not None
        await clinic.consent.revoke(patient, grant.id)
        await meet(clinic, county)
        with pytest.raises(Denied):
            county.opener.read(entry, ring=ring)


def test_the_gate_opens_what_is_stored_and_nothing_else() -> None:
    """Announced is not stored; stored is open; done is closed; one batch does not close another."""
    gate = Gate()
    one, other = gate.announce([b"a", b"b"]), gate.announce([b"b"])
    assert not gate.may(b"a")
    gate.stored(one)
    gate.stored(other)
    assert gate.may(b"a")
    assert not gate.may(b"c")
    gate.done(one)
    assert not gate.may(b"a")
    assert gate.may(b"b")
    gate.close()
    assert not gate.may(b"b")
