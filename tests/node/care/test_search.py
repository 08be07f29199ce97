"""Search on real nodes: who finds whom, who does not, and what a reader who was put out keeps."""

from __future__ import annotations

import pytest

from p2pmed.errors import ConfigError, Denied
from p2pmed.medical import Coding, Demographics, Encounter, PatientName
from p2pmed.medical.keyring import Category
from p2pmed.medical.privacy.blind_index import (
    IndexEntry,
    IndexKey,
    IndexUse,
    query_tokens,
    scope_id,
)
from p2pmed.medical.privacy.names import name_words
from p2pmed.medical.privacy.terms import name_terms
from p2pmed.node.node import Node
from p2pmed.testing.homes import local_network, until

PLACE = "county/village"


async def register(
    node: Node, family: str, given: str, birth: str, *readers: bytes, phone: str = ""
) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(),
        names=(PatientName(family=family, given=(given,) if given else ()),),
        birth_date=birth,
        phone=phone,
        gender="female",
    )
    pseudonym, _ = await node.patients.register(who, readers=readers)
    return pseudonym


async def found(node: Node, **asked: str) -> list[bytes]:
    return [one.patient for one in (await node.search.patients(**asked)).patients]  # type: ignore[arg-type]


async def test_a_patient_is_found_in_any_script_by_date_and_by_number() -> None:
    """Ranked: who fits better comes first, and everybody found says why."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        wang = await register(node, "Wang", "Xiaoming", "1985-03-12", phone="+86 139 1234 5678")
        twin = await register(node, "王", "小明", "1985-12-03")
        maria = await register(node, "Ivanova", "Maria", "1990-01-31")
        await node.search.keys.begin(IndexUse.SEARCH)
        assert set(await found(node, name="王小明")) == {wang, twin}
        assert await found(node, name="WANG, XIAO MING", birth="1985-12-03") == [twin, wang]
        assert await found(node, name="Мария Иванова") == [maria]
        assert await found(node, phone="13912345678") == [wang]
        assert await found(node, birth="1985-03-12") == [wang, twin]
        assert set(await found(node, name="Wang")) == {wang, twin}
        assert await found(node, name="Smith") == []
        answer = await node.search.patients(name="王小明", birth="1985-12-03")
        assert answer.patients[0].reasons == ("name", "birth-date")
        assert answer.patients[1].reasons == ("name", "day-and-month-swapped")


async def test_records_are_found_by_their_code_and_category() -> None:
    """A diagnosis is found by its code and by its ICD category; another code's is not."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await register(node, "Wang", "Mei", "1985-03-12")
        await node.search.keys.begin(IndexUse.SEARCH)
        visits = []
        for code in ("E11.9", "J06.9"):
            reason = Coding(system="http://hl7.org/fhir/sid/icd-10", code=code, display="x")
            visit = Encounter(patient=patient, period_start="2026-05-01T08:00:00Z", reason=reason)
            visits.append((await node.submit(visit)).id)
        for code in ("E11.9", "e11.9 ", "E11"):
            records = await node.search.records(code=code)
            assert [(one.patient, one.record) for one in records] == [(patient, visits[0])]
        assert await node.search.records(code="A00") == []
        assert await node.search.records(code="E11.9", category=Category.HIV_STI) == []


async def test_who_may_not_open_a_patient_hears_only_that_there_is_one() -> None:
    """The index names the patient to a colleague; the name stays closed, and is counted."""
    async with local_network("clinic", "clinic") as network:
        one, other = network.nodes
        await network.in_sight()
        shown = await register(one, "Wang", "Mei", "1985-03-12", other.keys.box_public)
        await register(one, "Wang", "Mei", "1991-07-30")
        await one.search.keys.begin(IndexUse.SEARCH)
        await one.search.index()
        await arrived(one, other)
        answer = await other.search.patients(name="王梅")
        assert [patient.patient for patient in answer.patients] == [shown]
        assert answer.closed == 1


async def test_a_reader_who_was_put_out_finds_nothing_new_and_loses_the_old() -> None:
    """After the new epoch her tokens name nobody: not the new patient, and, once the others
    have indexed again, not the old one either. In a copy that she kept, the old ones still do:
    that is stated, and shown here.
    """
    async with local_network("clinic", "clinic") as network:
        one, other = network.nodes
        await network.in_sight()
        old = await register(one, "Wang", "Mei", "1985-03-12", other.keys.box_public)
        await one.search.keys.begin(IndexUse.SEARCH)
        await one.search.index()
        await arrived(one, other)
        assert await found(other, name="Wang Mei") == [old]
        ring = other.search.keys.ring(IndexUse.SEARCH, PLACE)
        assert ring is not None
        kept = ring.current(Category.DEMOGRAPHICS)

        await one.search.keys.expel(IndexUse.SEARCH, PLACE, other.keys.box_public)
        new = await register(one, "Li", "Hua", "1970-01-20", other.keys.box_public)
        assert await found(one, name="Li Hua") == [new]  # indexes by the way
        await one.search.index()
        await arrived(one, other)
        assert await found(other, name="Li Hua") == []
        assert await found(other, name="Wang Mei") == []
        assert await found(one, name="Wang Mei") == [old]
        assert other.search.keys.current(IndexUse.SEARCH, PLACE) is None

        tokens = {
            token
            for name in ("Wang Mei", "Li Hua")
            for field, term in name_terms(name_words(name))
            for token in query_tokens(kept, field, term)
        }
        named = set()
        for lane in other.replica.logs:
            for entry in other.replica.logs.entries(lane.key, 0, lane.next_seq):
                body = other.body(entry)
                if isinstance(body, IndexEntry):
                    row = body.tokens
                    if any(row[i : i + 5] in tokens for i in range(0, len(row), 5)):
                        named.add(entry.envelope.subject)
        assert named == {old}


async def test_a_neighbour_s_index_key_is_not_used() -> None:
    """A key that somebody of another place wraps to this device would let him read its tokens."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        home = network.home("clinic", name="stranger", place="county/other")
        stranger = await network.open(home)
        ring_of = stranger.search.keys
        with pytest.raises(Denied):
            await ring_of.begin(IndexUse.SEARCH, PLACE)
        from p2pmed.medical.privacy.blind_index import INDEX_PURPOSE, index_ring

        bad = index_ring(IndexUse.SEARCH, PLACE, stranger.world.entropy, epoch=5)
        wrap = bad.wrap(node.keys.box_public, network=node.network, purpose=INDEX_PURPOSE)
        await stranger.submit(IndexKey(use=IndexUse.SEARCH, place=PLACE, epoch=5, wraps=(wrap,)))
        await arrived(stranger, node)
        await node.search.table.refresh()
        assert node.search.table.key_entries(scope_id(IndexUse.SEARCH, PLACE))
        assert node.search.keys.ring(IndexUse.SEARCH, PLACE) is None


async def test_what_cannot_be_asked_is_refused_with_a_hint() -> None:
    """Nothing, too much, no date; and no key."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        with pytest.raises(Denied) as denied:
            await node.search.patients(name="Wang")
        assert denied.value.hint
        await node.search.keys.begin(IndexUse.SEARCH)
        for asked in ({}, {"name": "x" * 300}, {"birth": "yesterday"}, {"name": "..."}):
            with pytest.raises(ConfigError):
                await node.search.patients(**asked)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            await node.search.patients(name="Wang", limit=0)
        with pytest.raises(ConfigError):
            await node.search.records()


async def test_the_table_comes_back_from_the_logs() -> None:
    """A node that opens again knows what it knew, and reads nothing twice."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await register(node, "Wang", "Mei", "1985-03-12")
        await node.search.keys.begin(IndexUse.SEARCH)
        assert await found(node, name="Wang Mei") == [patient]
        assert await node.search.table.refresh() == 0
        assert await node.search.index() == 0


async def arrived(source: Node, target: Node) -> None:
    """All that ``source`` wrote is at ``target``."""
    if not target.replica.links:
        target.dial(f"127.0.0.1:{source.port}")
    lane = source.replica.own.key
    await until(
        lambda: target.replica.logs.next_seq(lane) >= source.replica.logs.next_seq(lane),
        "one log at the other node",
    )
    await until(
        lambda: all(one.durable_next == one.next_seq for one in target.replica.logs), "flushed"
    )
