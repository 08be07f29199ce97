"""The patient questions a record with the card; only who wrote it can answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.errors import Denied, InvalidTransaction, LocalProtocolError
from p2pmed.medical import Demographics, Encounter, PatientName
from p2pmed.medical.care.disputes import WORDS_BYTES_MAX, RecordDispute
from p2pmed.medical.care.timeline import Mark
from p2pmed.node.node import Node

WORDS = "我没有吃过这个药 (I never took this)"


async def enrolled(node: Node) -> tuple[bytes, str]:
    """A patient with a card; the card's text."""
    who = Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("Mei",)),)
    )
    made = await node.cards.enrol(who)
    return made.patient, made.card.text


def visit(patient: bytes) -> Encounter:
    return Encounter(patient=patient, period_start="2026-05-01T08:00:00Z")


async def test_a_dispute_stands_beside_the_record_until_it_is_answered(opened_at: Any) -> None:
    """Open with its age and words; answered by words, the mark goes and all of it stays."""
    node = await opened_at("clinic")
    patient, card = await enrolled(node)
    record = await node.patients.add(visit(patient))
    async with node.cards.present(card) as hand:
        raised = await node.disputes.dispute(record.id, WORDS, by=hand)
    assert raised.verdict.applied
    (dispute,) = await node.disputes.waiting()
    assert (dispute.words, dispute.record, dispute.is_open) == (WORDS, record.id, True)
    assert dispute.age_ms(dispute.raised_ms + 5_000) == 5_000
    (item,) = [i for i in await node.timelines.of(patient) if i.id == record.id]
    assert Mark.DISPUTED in item.marks
    assert item.disputes == (raised.id,)
    answer = await node.disputes.answer(raised.id, "the pharmacy confirms it")
    assert answer.verdict.applied
    assert await node.disputes.waiting() == []
    (told,) = await node.disputes.of(patient)
    assert (told.answer, told.answer_words) == (answer.id, "the pharmacy confirms it")
    (item,) = [i for i in await node.timelines.of(patient) if i.id == record.id]
    assert Mark.DISPUTED not in item.marks
    assert item.disputes == (raised.id,)


@pytest.mark.parametrize("how", ["amend", "retract"])
async def test_amending_or_retracting_with_the_dispute_named_answers_it(
    opened_at: Any, how: str
) -> None:
    """The record is mended, and the dispute is settled by that; without naming it, it is not."""
    node = await opened_at("clinic")
    patient, card = await enrolled(node)
    record = await node.patients.add(visit(patient))
    async with node.cards.present(card) as hand:
        raised = await node.disputes.dispute(record.id, WORDS, by=hand)
    if how == "amend":
        await node.patients.amend(record.id, visit(patient), reason="typing-error")
        assert len(await node.disputes.waiting()) == 1
        settled = await node.patients.amend(
            record.id, visit(patient), reason="disputed", answers=raised.id
        )
    else:
        settled = await node.patients.retract(record.id, reason="disputed", answers=raised.id)
    assert settled.verdict.applied
    (told,) = await node.disputes.of(patient)
    assert (told.is_open, told.answer) == (False, settled.id)


async def test_nobody_but_the_patient_disputes_and_nobody_but_the_author_answers(
    opened_at: Any, meet: Any
) -> None:
    """A clinic that reads cannot sign for the patient; another facility cannot answer."""
    one, other = await opened_at("one"), await opened_at("other", place="shan/bei")
    await meet(one, other)
    patient, card = await enrolled(one)
    _, strangers = await enrolled(one)
    record = await one.patients.add(visit(patient))
    async with one.cards.present(strangers) as hand:
        with pytest.raises(LocalProtocolError):
            await one.disputes.dispute(record.id, WORDS, by=hand)
    async with one.cards.present(card) as hand:
        for words in ("  ", "x" * (WORDS_BYTES_MAX + 1)):
            with pytest.raises(InvalidTransaction):
                await one.disputes.dispute(record.id, words, by=hand)
        raised = await one.disputes.dispute(record.id, WORDS, by=hand)
    body = one.body(raised.entry)
    assert isinstance(body, RecordDispute)
    forged = msgspec.structs.replace(body, proof=b"?" * 64)
    refs = one.consent.refs(patient, record.id)
    receipt = await one.submit(forged, patient=patient, refs=refs)
    assert receipt.verdict.code == "proof_invalid"
    receipt = await one.submit(body, patient=patient, refs=one.consent.refs(patient))
    assert receipt.verdict.code == "reference_missing"

    await one.patients.grant(patient, other.keys.box_public)
    await meet(one, other)
    (seen,) = await other.disputes.waiting()
    assert seen.words == WORDS
    refused = await other.disputes.answer(raised.id, "no")
    assert refused.verdict.code == "not_the_author"
    assert len(await other.disputes.waiting()) == 1


async def test_the_words_are_read_by_the_records_readers_only(opened_at: Any, meet: Any) -> None:
    """A node without a grant sees an open dispute, its age and its record, and no word."""
    one, other = await opened_at("one"), await opened_at("other", place="shan/bei")
    await meet(one, other)
    patient, card = await enrolled(one)
    record = await one.patients.add(visit(patient))
    async with one.cards.present(card) as hand:
        await one.disputes.dispute(record.id, WORDS, by=hand)
    await meet(one, other)
    (seen,) = await other.disputes.of(patient)
    assert (seen.words, seen.is_open) == (None, True)
    with pytest.raises(Denied):
        await other.disputes.answer(seen.id, "no")
    with pytest.raises(LocalProtocolError):
        await other.disputes.answer(record.id, "no such dispute")


async def test_a_guardian_speaks_for_a_child_while_the_delegation_stands(opened_at: Any) -> None:
    """Signed with the guardian's own card under the delegation; after its end, refused."""
    node = await opened_at("clinic")
    child, childs_card = await enrolled(node)
    _, mothers_card = await enrolled(node)
    record = await node.patients.add(visit(child))
    mother = await node.cards.open(mothers_card)
    async with node.cards.present(childs_card) as hand:
        delegation = await node.consent.delegate(
            child, mother.secrets.patient_key, mother.secrets.sign_key, by=hand
        )
    acting = mother.standing_in(child, delegation.id)
    raised = await node.disputes.dispute(record.id, WORDS, by=acting)
    assert raised.verdict.applied
    (dispute,) = await node.disputes.waiting()
    assert dispute.by_guardian
    await node.consent.revoke(child, delegation.id)
    late = await node.disputes.dispute(record.id, WORDS, by=acting)
    assert late.verdict.code == "delegation_unknown"
