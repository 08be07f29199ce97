"""The gateway: leave is asked each time, ends at once, and is heard of before anything opens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pmed.errors import Denied
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical import Demographics, PatientName
from p2pmed.medical.keyring import Category
from p2pmed.node.care.opening import Opening
from p2pmed.node.node import Node

NOTE = b'{"resourceType":"Encounter"}'


async def registered(node: Node, **other: Any) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("Mei",)),)
    )
    return (await node.patients.register(who, **other))[0]


async def test_keys_that_are_open_close_with_the_leave(opened_at: Any, meet: Any) -> None:
    """A reader who has everything open already opens nothing from the moment that the end of its
    grant is stored there, or its last moment has passed; and nobody else is touched.
    """
    clinic, county = await opened_at("clinic"), await opened_at("county", "hospital", "shan")
    await meet(clinic, county)
    patient = await registered(clinic)
    record = await clinic.patients.add(NOTE, patient=patient)
    grant = await clinic.consent.grant(patient, county.keys.box_public)
    await meet(clinic, county)
    entry = county.find(record.id)
    assert entry is not None
    assert await county.patients.opened(entry) is not None
    revoked = await clinic.consent.revoke(patient, grant.id)
    raw = clinic.find(revoked.id)
    assert raw is not None
    await county.import_entries([raw.raw])
    with pytest.raises(Denied):
        county.opener.read(entry)
    with pytest.raises(Denied):
        county.opener.ring(patient)
    soon = county.world.clock.wall_ms() + 700
    await clinic.consent.grant(patient, county.keys.box_public, until_ms=soon)
    await meet(clinic, county)
    assert await county.patients.opened(entry) is not None
    await asyncio.sleep(0.8)
    with pytest.raises(Denied):
        county.opener.read(entry)
    assert clinic.opener.read(entry) is not None


async def test_watchers_hear_first_and_may_keep_closed(opened_at: Any, meet: Any) -> None:
    """Each unwrapping and each opening is told with its grant before it happens; a watcher that
    raises keeps it closed.
    """
    clinic, county = await opened_at("clinic"), await opened_at("county", "hospital", "shan")
    await meet(clinic, county)
    patient = await registered(clinic)
    record = await clinic.patients.add(NOTE, patient=patient)
    grant = await clinic.consent.grant(
        patient, county.keys.box_public, categories=[Category.GENERAL]
    )
    await meet(clinic, county)
    heard: list[Opening] = []
    county.opener.watchers.append(heard.append)
    entry = county.find(record.id)
    assert entry is not None
    assert await county.patients.opened(entry) is not None
    keys, body = heard
    assert (keys.what, keys.entry, keys.grants) == ("keys", grant.id, (grant.id,))
    assert (body.what, body.entry, body.category) == ("body", record.id, Category.GENERAL)
    assert body.grants == (grant.id,)

    def refuse(opening: Opening) -> None:
        raise Denied("the audit is full")

    county.opener.watchers.append(refuse)
    async with county.reads.announced([entry]):
        with pytest.raises(Denied, match="audit is full"):
            county.opener.read(entry)


async def test_a_card_opens_while_it_is_on_the_table(opened_at: Any, meet: Any) -> None:
    """A node without any grant reads the record with the patient's card, and not after."""
    clinic, other = await opened_at("clinic"), await opened_at("other", "clinic", "shan/li")
    await meet(clinic, other)
    who = Demographics(
        patient=clinic.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("A",)),)
    )
    enrolled = await clinic.cards.enrol(who, pin="2468", cost=CHEAP)
    await meet(clinic, other)
    with pytest.raises(Denied):
        other.opener.ring(enrolled.patient)
    async with other.cards.present(enrolled.card.text, pin="2468"):
        items = await other.patients.timeline(enrolled.patient)
        assert [item.kind for item in items] == ["Patient"]
        readers = other.consent.readers(enrolled.patient, Category.HIV_STI)
        assert [each.key for each in readers] == [clinic.keys.box_public]
    with pytest.raises(Denied):
        other.opener.ring(enrolled.patient)


async def test_a_new_epoch_adds_no_category(opened_at: Any, meet: Any) -> None:
    """Keys that somebody wraps to us beyond our grant are not used: leave is not taken unasked."""
    clinic, county = await opened_at("clinic"), await opened_at("county", "hospital", "shan")
    await meet(clinic, county)
    patient = await registered(clinic)
    narrow = await clinic.consent.grant(
        patient, county.keys.box_public, categories=[Category.LABORATORY]
    )
    wide = await clinic.consent.grant(patient, county.keys.box_public)
    await clinic.consent.rotate(patient)
    await meet(clinic, county)
    assert len({key.category for key in county.opener.ring(patient)}) == 12
    await clinic.consent.revoke(patient, wide.id)
    await meet(clinic, county)
    assert {key.category for key in county.opener.ring(patient)} == {Category.LABORATORY}
    assert [each.id for each in county.opener.grants(patient)] == [narrow.id]
