"""A specialist reads one case and nothing else; teaching takes the patient's own word."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from p2pmed.errors import Denied
from p2pmed.medical import Demographics, Observation, PatientName, Quantity
from p2pmed.medical.care.consultations import Attachment
from p2pmed.node.node import Node

Meet = Callable[..., Awaitable[None]]
PICTURE = Attachment(name="rash.jpg", type="image/jpeg", content=b"\xff\xd8" + bytes(200_000))


@pytest.fixture
async def village(opened_at: Any) -> Node:
    node: Node = await opened_at("village", "clinic", "shan/mu")
    return node


@pytest.fixture
async def specialist(opened_at: Any) -> Node:
    node: Node = await opened_at("specialist", "hospital", "shan/county")
    return node


@pytest.fixture
async def other(opened_at: Any) -> Node:
    node: Node = await opened_at("other", "clinic", "shan/other")
    return node


def demographics(node: Node) -> Demographics:
    return Demographics(
        patient=node.patients.new_pseudonym(),
        names=(PatientName(family="Wang", given=("Xiuying",)),),
        birth_date="1990-05-17",
        phone="13800138000",
        address="Mu village 7",
    )


async def with_records(node: Node) -> tuple[bytes, list[bytes]]:
    person = demographics(node)
    await node.patients.register(person)
    found = []
    for value in ("7.1", "9.9"):
        record = Observation(
            patient=person.patient,
            code="4548-4",
            value=Quantity(value=Decimal(value), unit="%"),
            effective="2026-11-18",
            category="laboratory",
        )
        found.append((await node.patients.add(record)).id)
    return person.patient, found


async def test_the_specialist_reads_the_case_and_nothing_else(
    village: Node, specialist: Node, other: Node, meet: Meet
) -> None:
    """Question, picture and one copied record open; the record itself, and the rest, do not."""
    patient, (copied, kept) = await with_records(village)
    await meet(village, specialist, other)
    asked = await village.consultations.ask(
        patient,
        specialist.keys.box_public,
        "what is this rash?",
        attachments=[PICTURE],
        records=[copied],
        deadline_ms=2**45,
    )
    await meet(village, specialist, other)
    (case,) = specialist.consultations.all(mine=True)
    assert (case.id, case.patient, case.row.deadline) == (asked.id, patient, 2**45)
    question = await specialist.consultations.question(case.id)
    assert question.words == "what is this rash?"
    assert question.attachments[0] == PICTURE  # in parts: it is longer than one transaction
    assert b"7.1" in question.attachments[1].content
    items = {item.id: item.resource for item in await specialist.patients.timeline(patient)}
    assert (items[copied], items[kept]) == (None, None)
    assert other.consultations.all(mine=True) == []
    with pytest.raises(Denied):
        await other.consultations.question(case.id)
    reads = specialist.reads.of(patient)
    assert [event.grants for event in reads] == [(case.id,)]


async def test_the_answer_comes_back_and_closing_ends_the_leave(
    village: Node, specialist: Node, other: Node, meet: Meet
) -> None:
    """Stored and carried both ways; after the close the specialist opens it no more."""
    patient, _ = await with_records(village)
    await meet(village, specialist, other)
    asked = await village.consultations.ask(patient, specialist.keys.box_public, "may she travel?")
    await meet(village, specialist, other)
    await specialist.consultations.reply(asked.id, "not before Monday")
    with pytest.raises(Denied):
        await other.consultations.reply(asked.id, "yes")
    await meet(village, specialist, other)
    (answer,) = await village.consultations.answers(asked.id)
    assert (answer.author, answer.reply.words) == (specialist.key, "not before Monday")
    await village.consultations.close(asked.id)
    await meet(village, specialist)
    with pytest.raises(Denied, match="closed"):
        await specialist.consultations.question(asked.id)
    assert (await village.consultations.question(asked.id)).words == "may she travel?"
    assert len(await village.consultations.answers(asked.id)) == 1


async def test_teaching_takes_the_patient_s_card_and_shows_no_identifier(
    village: Node, specialist: Node, meet: Meet
) -> None:
    """Without leave there is no copy; with it, one without name, place, day or old pseudonym."""
    made = await village.cards.enrol(demographics(village))
    patient = made.patient
    register = village.patients.entries(patient)[0]
    record = await village.patients.add(
        Observation(
            patient=patient,
            code="4548-4",
            value=Quantity(value=Decimal("7.1"), unit="%"),
            effective="2026-11-18",
            category="laboratory",
        )
    )
    asked = await village.consultations.ask(
        patient,
        specialist.keys.box_public,
        "Mrs Wang Xiuying asks",
        records=[record.id, *[register.id] * isinstance(register.id, bytes)],
    )
    with pytest.raises(Denied, match="leave"):
        await village.consultations.teaching_copy(asked.id)
    hand = await village.cards.open(made.card.text)
    await village.consultations.teach(asked.id, by=hand)
    copy = await village.consultations.teaching_copy(asked.id)
    for told in (b"Wang", b"Xiuying", b"138001", b"Mu village", b"05-17", b"11-18"):
        assert told not in copy
    assert patient.hex().encode() not in copy
    bundle = json.loads(copy)
    assert {each["resource"]["resourceType"] for each in bundle["entry"]} <= {
        "Observation",
        "Patient",
    }
    assert b'"value":7.1' in copy
    again = json.loads(await village.consultations.teaching_copy(asked.id))
    assert again != bundle  # a new pseudonym each time
    await village.consultations.teach(asked.id, by=hand, until_ms=1)
    with pytest.raises(Denied, match="leave"):
        await village.consultations.teaching_copy(asked.id)
