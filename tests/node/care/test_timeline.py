"""Timelines on real nodes: causes first, and every record marked with what is odd about it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from p2pmed.ledger.transaction import sign_entry
from p2pmed.medical import Demographics, Encounter, Observation, PatientName, Quantity
from p2pmed.medical.care.timeline import Mark
from p2pmed.node.care.timeline import Timelines
from p2pmed.node.node import Node
from p2pmed.testing.homes import local_network


async def registered(node: Node) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family="Wang", given=("Mei",)),)
    )
    return (await node.patients.register(who))[0]


def visit(patient: bytes, day: str = "2026-05-01") -> Encounter:
    return Encounter(patient=patient, period_start=f"{day}T08:00:00Z")


def pulse(patient: bytes, beats: int) -> Observation:
    return Observation(
        patient=patient,
        code="8867-4",
        value=Quantity(value=beats, unit="/min"),
        effective="2026-05-01T08:00:00Z",
    )


async def test_what_is_amended_retracted_or_recorded_late_says_so() -> None:
    """Every item says what became of it; nothing disappears, and finality takes a mark away."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await registered(node)
        first = await node.patients.add(pulse(patient, 80))
        wrong = await node.patients.add(visit(patient))
        second = await node.patients.amend(first.id, pulse(patient, 88), reason="typing-error")
        await node.patients.retract(wrong.id, reason="wrong-patient")
        items = {item.id: item for item in await node.timelines.of(patient)}
        assert items[first.id].marks == (Mark.PROVISIONAL, Mark.LATE, Mark.SUPERSEDED)
        assert items[wrong.id].marks == (Mark.PROVISIONAL, Mark.LATE, Mark.RETRACTED)
        assert items[second.id].supersedes == first.id
        assert Mark.CONFLICT not in items[second.id].marks
        assert next(iter(items.values())).kind == "Patient"

        await node.found_mesh()
        await (await node.patients.add(visit(patient, "2020-01-01"))).final(timeout=10)
        final = await node.timelines.of(patient)
        assert not any(Mark.PROVISIONAL in item.marks for item in final)
        await node.patients.retract(second.id, reason="typing-error")
        again = {item.id: item for item in await node.timelines.of(patient)}
        assert not again[first.id].superseded, "what took its place was taken back"


async def test_two_amendments_made_apart_are_both_shown_as_a_conflict(
    opened_at: Any, meet: Any
) -> None:
    """Neither wins by its clock; each names the other; retracting one settles it."""
    one, other = await opened_at("one"), await opened_at("other")
    await meet(one, other)
    patient = await registered(one)
    record = await one.patients.add(pulse(patient, 80))
    await one.patients.grant(patient, other.keys.box_public)
    await meet(one, other)
    here = await one.patients.amend(record.id, pulse(patient, 81), reason="typing-error")
    there = await other.patients.amend(record.id, pulse(patient, 82), reason="typing-error")
    await meet(one, other)
    for node in (one, other):
        items = {item.id: item for item in await node.timelines.of(patient)}
        assert Mark.CONFLICT in items[here.id].marks
        assert items[here.id].rivals == (there.id,)
        assert items[there.id].rivals == (here.id,)
        assert [item.id for item in await node.timelines.of(patient)] == list(items)
    assert [item.id for item in await one.timelines.of(patient)] == [
        item.id for item in await other.timelines.of(patient)
    ], "both tell one story"
    await other.patients.retract(there.id, reason="typing-error")
    await meet(one, other)
    items = {item.id: item for item in await one.timelines.of(patient)}
    assert Mark.CONFLICT not in items[here.id].marks
    assert items[here.id].rivals == ()


async def test_linked_pseudonyms_are_told_as_one_life() -> None:
    """With ``person``, both; each item says under which pseudonym it was written."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        one, other = await registered(node), await registered(node)
        for patient in (one, other, one):
            await node.patients.add(visit(patient))
        await node.linking.link(one, other, reason="asked-the-patient")
        items = await node.timelines.of(other, person=True)
        assert [i.patient for i in items if i.kind == "Encounter"] == [one, other, one]
        assert {i.patient for i in await node.timelines.of(other)} == {other}


async def test_what_this_device_may_not_open_is_shown_closed(opened_at: Any, meet: Any) -> None:
    """A node without a grant sees that there is a record, and nothing of it."""
    one, other = await opened_at("one"), await opened_at("other", place="shan/bei")
    await meet(one, other)
    patient = await registered(one)
    await one.patients.add(visit(patient))
    await meet(one, other)
    items = await other.timelines.of(patient)
    assert [(item.kind, item.resource) for item in items] == [("", None), ("", None)]


async def test_of_a_log_with_two_stories_the_ordered_one_is_told(
    opened_at: Any, monkeypatch: Any
) -> None:
    """A device signs twice at one place: nothing ordered, it is marked; the branch that a block
    orders is told plainly, also where the other one was stored first, which is marked then.
    """
    liar, reader = await opened_at("liar"), await opened_at("reader", place="shan/bei")
    patient = await registered(liar)
    await liar.patients.grant(patient, reader.keys.box_public)
    one = (await liar.patients.add(visit(patient))).entry
    other = sign_entry(
        msgspec.structs.replace(one.envelope, hlc=one.envelope.hlc + 1),
        seed=liar.keys.signing_seed,
        author=liar.key,
        network=liar.network,
    )
    story = liar.replica.logs.read(one.lane, 0, one.seq + 1, bytes_max=2**30)
    await reader.import_entries(story)
    await reader.import_entries([other.raw])
    (lane,) = [lane for lane in reader.replica.logs if lane.frozen]

    async def told() -> dict[bytes, Any]:
        return {item.id: item for item in await reader.timelines.of(patient)}

    items = await told()
    assert Mark.FORKED in items[one.id].marks
    assert other.id not in items
    assert sum(Mark.FORKED in item.marks for item in items.values()) == 1

    def ordering(chosen: bytes) -> None:
        """As if a block had ordered the branch that ends with ``chosen``."""
        chain = SimpleNamespace(ordered_tip=lambda key: (one.seq, chosen))
        replica = SimpleNamespace(home=SimpleNamespace(chain=chain), logs=reader.replica.logs)
        elsewhere: Any = SimpleNamespace(replica=replica)
        monkeypatch.setattr(reader.timelines, "_ordered", Timelines(elsewhere)._ordered)

    ordering(one.id)
    assert Mark.FORKED not in (await told())[one.id].marks
    ordering(other.id)
    items = await told()
    assert Mark.FORKED in items[one.id].marks
    assert Mark.FORKED not in items[other.id].marks
    assert items[other.id].kind == "Encounter"
    assert lane.forked_at == one.seq
