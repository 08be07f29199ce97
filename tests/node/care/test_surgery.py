"""An operation: phases signed by distinct, qualified people; what is missing or late shows."""

from __future__ import annotations

from typing import Any

import pytest
from theatre_story import ANAESTHETIST, NURSE, SURGEON, Theatre

from p2pmed.errors import InvalidTransaction
from p2pmed.identity.persons import PersonKeys
from p2pmed.medical import QualificationSuspend
from p2pmed.medical.care.checklist import ITEMS, Answer, Phase, TeamRole
from p2pmed.medical.care.theatre import number_of
from p2pmed.testing.clock import SimEntropy


@pytest.fixture
async def theatre(opened_at: Any) -> Theatre:
    made = Theatre(await opened_at("hospital", "hospital", "shan/county"))
    await made.prepare()
    return made


async def verdict(theatre: Theatre, receipt: Any) -> str:
    place = await receipt.final(timeout=10)
    return str(place.verdict.code)


async def test_a_good_operation_has_nothing_odd_about_it(theatre: Theatre) -> None:
    """Three phases, numbered entries, a close: no step is missing, none is late."""
    await theatre.operate()
    seen = await theatre.node.surgery.view(theatre.surgery)
    assert seen.closed
    assert all(each.applied for each in seen.written)
    assert (seen.told.missing, seen.told.late, seen.told.unmet) == ((), (), ())
    assert [number_of(each.body) for each in seen.written] == list(range(1, 10))


async def test_each_phase_needs_its_own_qualified_people(theatre: Theatre) -> None:
    """Who is missing, signs twice, is no such specialist, is suspended or unknown is named."""
    await theatre.plan()
    nobody = PersonKeys.generate(SimEntropy(b"nobody"))
    cases: list[tuple[dict[TeamRole, PersonKeys], str]] = [
        ({TeamRole.NURSE: NURSE}, "signer_missing"),
        ({TeamRole.NURSE: NURSE, TeamRole.ANAESTHETIST: NURSE}, "signer_repeated"),
        ({TeamRole.NURSE: NURSE, TeamRole.ANAESTHETIST: SURGEON}, "qualification_out_of_scope"),
        ({TeamRole.NURSE: nobody, TeamRole.ANAESTHETIST: ANAESTHETIST}, "qualification_missing"),
    ]
    for people, reason in cases:
        receipt = await theatre.phase(Phase.SIGN_IN, people=people)
        assert await verdict(theatre, receipt) == reason
    suspend = QualificationSuspend(
        qualification=theatre.issued[TeamRole.NURSE].id, until=2**50, reason="inquiry"
    )
    await (await theatre.node.submit(suspend)).final(timeout=10)
    receipt = await theatre.phase(Phase.SIGN_IN)
    assert await verdict(theatre, receipt) == "qualification_suspended"
    seen = await theatre.node.surgery.view(theatre.surgery)
    assert [number_of(each.body) for each in seen.written] == [1, 2, 3, 4, 5, 6]


async def test_a_word_given_for_one_thing_counts_for_no_other(theatre: Theatre) -> None:
    """Signatures for other answers, another phase or another time are refused."""
    await theatre.plan()
    surgery, at = theatre.node.surgery, theatre.now
    answers = [Answer.YES] * len(ITEMS[Phase.SIGN_IN])
    signed = [
        surgery.sign(person, role, theatre.surgery, Phase.SIGN_IN, answers, at)
        for role, person in ((TeamRole.NURSE, NURSE), (TeamRole.ANAESTHETIST, ANAESTHETIST))
    ]
    other = [Answer.NO, *answers[1:]]
    wrong = await surgery.checklist(
        theatre.surgery, Phase.SIGN_IN, other, signed, occurred_ms=at, actor=NURSE.person
    )
    assert await verdict(theatre, wrong) == "signature_wrong"
    later = await surgery.checklist(
        theatre.surgery, Phase.SIGN_IN, answers, signed, occurred_ms=at + 1, actor=NURSE.person
    )
    assert await verdict(theatre, later) == "signature_wrong"
    right = await surgery.checklist(
        theatre.surgery, Phase.SIGN_IN, answers, signed, occurred_ms=at, actor=NURSE.person
    )
    assert await verdict(theatre, right) == "applied"


async def test_missing_and_late_steps_show_and_are_recorded(theatre: Theatre) -> None:
    """No time-out, a *no*, a step entered half an hour later, one after the close: all told."""
    await theatre.plan()
    answers = [Answer.NO, *[Answer.YES] * (len(ITEMS[Phase.SIGN_IN]) - 1)]
    await theatre.node.surgery.event(theatre.surgery, "incision", actor=NURSE.person)
    await theatre.phase(Phase.SIGN_IN, answers=answers)
    late = await theatre.node.surgery.event(
        theatre.surgery, "closure", occurred_ms=theatre.now - 30 * 60_000, actor=NURSE.person
    )
    await theatre.phase(Phase.SIGN_OUT)
    await theatre.close()
    after = await theatre.node.surgery.event(theatre.surgery, "count", actor=NURSE.person)
    told = (await theatre.node.surgery.view(theatre.surgery)).told
    assert "no time-out was signed" in told.missing
    assert "the sign-in came after the incision" in told.missing
    assert told.unmet == (f"sign-in: {ITEMS[Phase.SIGN_IN][0]}",)
    assert [(name, "closed" in why) for name, why in told.late] == [
        (late.id, False),
        (after.id, True),
    ]


async def test_entries_written_at_once_have_a_number_each(theatre: Theatre) -> None:
    """Two hands on one device do not take one number."""
    import asyncio

    await theatre.plan()
    await asyncio.gather(
        *(theatre.node.surgery.event(theatre.surgery, "count", actor=NURSE.person) for _ in "1234")
    )
    seen = await theatre.node.surgery.view(theatre.surgery)
    assert [number_of(each.body) for each in seen.written] == [1, 2, 3, 4, 5]
    assert all(each.applied for each in seen.written)


async def test_a_note_is_sealed_and_commits_to_its_media(theatre: Theatre) -> None:
    """The words open with the category *surgery*; the film is named by a salted hash."""
    import json

    from p2pmed.medical.sealed import commitment

    await theatre.plan()
    receipt = await theatre.node.surgery.note(
        theatre.surgery, "appendix inflamed", media=[b"a film"], actor=NURSE.person
    )
    entry = theatre.node.find(receipt.id)
    assert entry is not None
    assert b"inflamed" not in entry.raw
    opened = await theatre.node.surgery.read(entry)
    assert opened is not None
    content = json.loads(opened.resource)
    assert content["text"] == "appendix inflamed"
    body: Any = theatre.node.body(entry)
    assert body.media == (commitment(bytes.fromhex(content["salts"][0]), b"a film"),)
    with pytest.raises(InvalidTransaction, match="step"):
        await theatre.node.surgery.event(theatre.surgery, "appendix-inflamed")
