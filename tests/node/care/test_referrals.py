"""A patient goes from village to county; what was referred is read there, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.medical import Demographics, Observation, PatientName, Quantity
from p2pmed.medical.care.exams import DUPLICATE
from p2pmed.medical.care.referrals import Urgency
from p2pmed.medical.keyring import Category
from p2pmed.node.node import Node

Meet = Callable[..., Awaitable[None]]
HBA1C = "4548-4"


async def registered(node: Node) -> bytes:
    pseudonym = node.patients.new_pseudonym()
    demographics = Demographics(
        patient=pseudonym, names=(PatientName(family="Wang", given=("Xiu",)),)
    )
    await node.patients.register(demographics)
    return pseudonym


def lab(patient: bytes, code: str, value: str = "7.1", when: str = "2026-11-18") -> Observation:
    return Observation(
        patient=patient,
        code=code,
        value=Quantity(value=Decimal(value), unit="%"),
        effective=when,
        category="laboratory",
    )


@pytest.fixture
async def village(opened_at: Any) -> Node:
    node: Node = await opened_at("village", "clinic", "shan/mu")
    return node


@pytest.fixture
async def county(opened_at: Any) -> Node:
    node: Node = await opened_at("county", "hospital", "shan/county")
    return node


@pytest.fixture
async def other(opened_at: Any) -> Node:
    node: Node = await opened_at("other", "clinic", "shan/other")
    return node


async def test_the_county_reads_what_was_referred_and_nothing_else(
    village: Node, county: Node, other: Node, meet: Meet
) -> None:
    """One record goes along by its own key: that one opens, no other does, for nobody else."""
    patient = await registered(village)
    sent = await village.patients.add(lab(patient, HBA1C))
    kept = await village.patients.add(lab(patient, "718-7", "13"))
    await meet(village, county, other)
    told = await village.referrals.send(
        patient,
        "shan/county",
        reason="E11",
        text="please see her feet",
        records=[sent.id],
        urgency=Urgency.URGENT,
    )
    await meet(village, county, other)
    (found,) = county.referrals.all(place="shan/county")
    assert (found.id, found.patient, found.row.urgency) == (told.receipt.id, patient, 1)
    letter = await county.referrals.letter(found.id)
    assert (letter.reason, letter.text) == ("E11", "please see her feet")
    (record,) = await county.referrals.records(found.id)
    assert record.id == sent.id
    assert b"4548-4" in record.resource
    items = {item.id: item.resource for item in await county.patients.timeline(patient)}
    assert items[kept.id] is None
    with pytest.raises(Denied):
        await other.referrals.letter(found.id)
    with pytest.raises(Denied):
        await other.referrals.records(found.id)


async def test_reading_a_referral_is_told_to_the_patient(
    village: Node, county: Node, meet: Meet
) -> None:
    """Before the letter and the records open, entries that name the referral are on the disk."""
    patient = await registered(village)
    sent = await village.patients.add(lab(patient, HBA1C))
    await meet(village, county)
    told = await village.referrals.send(patient, "shan/county", reason="E11", records=[sent.id])
    await meet(village, county)
    await county.referrals.records(told.receipt.id)
    reads = [event for event in county.reads.of(patient) if event.author == county.key]
    assert [event.grants for event in reads] == [(told.receipt.id,)]


async def test_a_category_is_lent_until_the_referral_is_closed(
    village: Node, county: Node, meet: Meet
) -> None:
    """A grant comes along; closing ends it, and new records stay closed to the county."""
    patient = await registered(village)
    first = await village.patients.add(lab(patient, HBA1C))
    await meet(village, county)
    told = await village.referrals.send(
        patient, "shan/county", reason="E11", categories=[Category.LABORATORY]
    )
    await meet(village, county)
    opened = {item.id: item.resource for item in await county.patients.timeline(patient)}
    assert opened[first.id] is not None
    assert (await county.referrals.letter(told.receipt.id)).categories == (Category.LABORATORY,)
    await village.referrals.close(told.receipt.id)
    await meet(village, county)
    closed = {item.id: item.resource for item in await county.patients.timeline(patient)}
    assert closed[first.id] is None
    with pytest.raises(Denied, match="closed"):
        await county.referrals.letter(told.receipt.id)


async def test_results_come_back_to_the_village_and_to_nobody_else(
    village: Node, county: Node, other: Node, meet: Meet
) -> None:
    """The county accepts, and returns a result under the referral's key: the village reads it."""
    patient = await registered(village)
    await meet(village, county, other)
    told = await village.referrals.send(patient, "shan/county", reason="E11", orders=[HBA1C])
    assert told.warnings == ()
    await meet(village, county, other)
    referral = told.receipt.id
    await county.referrals.accept(referral)
    await county.referrals.return_result(referral, lab(patient, HBA1C, "8.2"))
    await meet(village, county, other)
    (result,) = await village.referrals.results(patient)
    assert b"8.2" in result.resource
    assert result.author == county.key
    assert village.referrals.all(patient=patient)[0].row.accepted
    assert await other.referrals.results(patient) == []
    await county.referrals.close(referral)
    await meet(village, county)
    assert len(await village.referrals.results(patient)) == 1
    assert await county.referrals.results(patient) == []


async def test_an_examination_that_exists_is_told_before_it_is_ordered_again(
    village: Node, county: Node, meet: Meet
) -> None:
    """``exam.duplicate`` speaks of records and of returned results that this device may open."""
    patient = await registered(village)
    done = await village.patients.add(lab(patient, HBA1C, when="2026-11-01"))
    old = await village.patients.add(lab(patient, "57698-3", when="2020-01-01"))
    village.world.clock.wall_ms = lambda: 1_794_700_800_000  # type: ignore[method-assign]
    found = await village.referrals.duplicates(patient, [HBA1C, "57698-3", "2160-0"])
    assert [(each.name, each.code, each.record) for each in found] == [(DUPLICATE, HBA1C, done.id)]
    assert found[0].within == 90
    await meet(village, county)
    assert await county.referrals.duplicates(patient, [HBA1C]) == []
    village.referrals.windows = {HBA1C: 1, "57698-3": 36_500}
    again = await village.referrals.duplicates(patient, [HBA1C, "57698-3"])
    assert [each.record for each in again] == [old.id]


async def test_who_is_not_the_receiver_returns_nothing(
    village: Node, county: Node, other: Node, meet: Meet
) -> None:
    """Acceptance and results are the receiving facility's word; others are refused by name."""
    patient = await registered(village)
    await meet(village, county, other)
    told = await village.referrals.send(patient, "shan/county", reason="E11")
    await meet(village, county, other)
    receipt = await other.referrals.accept(told.receipt.id)
    entry = other.find(receipt.id)
    assert entry is not None
    assert other.replica.overlay.verdict_of(entry).code == "not_the_party"
    with pytest.raises(Denied):
        await other.referrals.return_result(told.receipt.id, lab(patient, HBA1C))
    with pytest.raises(LocalProtocolError, match="place"):
        await village.referrals.send(patient, "nowhere", reason="E11")
