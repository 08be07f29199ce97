"""Duplicates on real nodes: proposed by match, linked by people, read together, taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.medical import Demographics, Encounter, PatientName
from p2pmed.medical.consent import Purpose
from p2pmed.medical.privacy.blind_index import IndexUse
from p2pmed.medical.privacy.matching import MatchEntry
from p2pmed.node.node import Node
from p2pmed.testing.homes import local_network, until


async def register(node: Node, family: str, given: str, birth: str) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(),
        names=(PatientName(family=family, given=(given,)),),
        birth_date=birth,
        gender="female",
    )
    return (await node.patients.register(who))[0]


async def arrived(source: Node, target: Node) -> None:
    """All that ``source`` wrote is at ``target``."""
    lane = source.replica.own.key
    await until(
        lambda: target.replica.logs.next_seq(lane) >= source.replica.logs.next_seq(lane),
        "one log at the other node",
    )
    await until(
        lambda: all(one.durable_next == one.next_seq for one in target.replica.logs), "flushed"
    )


@asynccontextmanager
async def two_villages() -> AsyncIterator[tuple[Node, Node]]:
    """Two facilities in sight of one another; both hold the linkage key."""
    async with local_network("clinic", "clinic") as network:
        one, other = network.nodes
        await network.in_sight()
        await arrived(other, one)
        await one.catch_up()
        await one.search.keys.begin(IndexUse.LINKAGE, readers=[other.keys.box_public])
        await arrived(one, other)
        yield one, other


async def test_a_patient_of_two_villages_is_a_candidate_at_either_and_nobody_is_named() -> None:
    """Neither village can open the other's patient; both see the pair, the score and why."""
    async with two_villages() as (one, other):
        here = await register(one, "Wang", "Xiaoming", "1985-03-12")
        there = await register(other, "王", "小明", "1985-12-03")
        await register(other, "Li", "Hua", "1970-05-05")
        assert await one.linking.encode() == 1
        assert await other.linking.encode() == 2
        await arrived(one, other)
        await arrived(other, one)
        for node in (one, other):
            (match,) = await node.linking.candidates()
            assert {match.one, match.other} == {here, there}
            assert "day-and-month-swapped" in match.reasons
            assert node.linking.person(here) == (here,)  # nothing links by itself
        assert one.patients.open(one.find(_registration(one, there))) is None  # type: ignore[arg-type]
        assert await one.linking.encode() == 0


def _registration(node: Node, patient: bytes) -> bytes:
    from p2pmed.medical.patients import patient_row

    row = patient_row(node.state(), patient)
    assert row is not None
    return row.entry


async def test_linked_patients_are_read_together_and_can_be_taken_apart() -> None:
    """One timeline of both pseudonyms, in the order of writing; after unlinking, two again."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        first = await register(node, "Wang", "Mei", "1985-03-12")
        second = await register(node, "Wang", "Mei", "1985-03-12")
        await node.search.keys.begin(IndexUse.LINKAGE)
        await node.linking.encode()
        for patient in (first, second, first):
            await node.submit(Encounter(patient=patient, period_start="2026-05-01T08:00:00Z"))
        (match,) = await node.linking.candidates()
        receipt = await node.linking.link(
            first, second, reason="asked-the-patient", score=match.score
        )
        assert node.linking.person(second) == tuple(sorted((first, second)))
        items = await node.linking.timeline(second)
        assert [name for name, item in items if item.kind == "Encounter"] == [first, second, first]
        assert await node.linking.candidates() == []
        with pytest.raises(LocalProtocolError):
            await node.linking.link(second, first, reason="again-please")

        await node.linking.unlink(receipt.id, reason="two-sisters")
        assert node.linking.person(first) == (first,)
        assert {name for name, _ in await node.linking.timeline(second)} == {second}
        (link,) = node.linking.links(first)
        assert not link.in_force
        assert link.row.score == match.score
        with pytest.raises(LocalProtocolError):
            await node.linking.unlink(receipt.id, reason="twice-over")
        assert len(await node.linking.candidates()) == 1


async def test_without_the_linkage_key_there_is_nothing_to_see() -> None:
    """A node that carries the encodings and holds no key gets no candidate and no filter."""
    async with local_network("clinic", "clinic") as network:
        one, other = network.nodes
        await network.in_sight()
        await one.search.keys.begin(IndexUse.LINKAGE, readers=[])
        await register(one, "Wang", "Mei", "1985-03-12")
        await register(one, "Wang", "Mei", "1985-03-12")
        await one.linking.encode()
        await arrived(one, other)
        with pytest.raises(Denied):
            await other.linking.candidates()
        sizes = set()
        for lane in other.replica.logs:
            for entry in other.replica.logs.entries(lane.key, 0, lane.next_seq):
                body = other.body(entry)
                if isinstance(body, MatchEntry):
                    sizes.add(len(body.sealed))
        assert len(sizes) == 1


async def test_who_may_be_linked() -> None:
    """Two different patients who are registered; anything else is refused at once."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await register(node, "Wang", "Mei", "1985-03-12")
        for other in (patient, b"?" * 16):
            with pytest.raises(LocalProtocolError):
                await node.linking.link(patient, other, reason="same-card")


async def test_an_insurer_s_pseudonym_is_not_the_record_s() -> None:
    """Who holds the patient's keys makes it; who does not is refused."""
    async with two_villages() as (one, other):
        patient = await register(one, "Wang", "Mei", "1985-03-12")
        known = one.linking.pseudonym(patient, Purpose.PAYMENT, "insurer")
        assert known not in (patient, one.linking.pseudonym(patient, Purpose.PAYMENT, "other"))
        await arrived(one, other)
        await other.catch_up()
        with pytest.raises(Denied):
            other.linking.pseudonym(patient, Purpose.PAYMENT, "insurer")
