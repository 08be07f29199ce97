"""A full raw copy of a home that was searched: no term in clear, and nothing checkable."""

from __future__ import annotations

import hashlib

from p2pmed.medical import Demographics, PatientName
from p2pmed.medical.keyring import Category, CategoryKey
from p2pmed.medical.privacy.blind_index import IndexEntry, IndexUse, query_tokens
from p2pmed.medical.privacy.terms import person_terms
from p2pmed.node.node import Node
from p2pmed.testing.homes import local_network
from p2pmed.world import Space

CANARIES = ("Quetzalwang", "Xylophoning", "13955500123", "1961-02-03")


def every_row(node: Node) -> list[bytes]:
    """Keys and values of all spaces, as they lie on the disk."""
    rows = []
    for space in Space:
        for key, value in node.world.disk.scan(space, b"", b"\xff" * 120, limit=100_000):
            rows += [key, value]
    return rows


async def test_no_row_holds_a_term_or_what_can_be_checked_against_a_guess() -> None:
    """Neither the words, nor their folded forms, nor plain hashes of them; and tokens made with
    any key but the index key are not there.
    """
    async with local_network("clinic") as network:
        (node,) = network.nodes
        family, given, phone, birth = CANARIES
        who = Demographics(
            patient=node.patients.new_pseudonym(),
            names=(PatientName(family=family, given=(given,)),),
            birth_date=birth,
            phone=phone,
        )
        pseudonym, _ = await node.patients.register(who)
        await node.search.keys.begin(IndexUse.SEARCH)
        await node.search.keys.begin(IndexUse.LINKAGE)
        found = await node.search.patients(name=f"{given} {family}", birth=birth, phone=phone)
        assert [one.patient for one in found.patients] == [pseudonym]
        assert await node.linking.encode() == 1

        terms = person_terms(who.to_fhir())
        words = {term for _, term in terms if len(term) > 5} | {*CANARIES, family.lower()}
        hashes = {
            hashlib.new(name, word.encode()).digest()[:5]
            for word in words
            for name in ("sha256", "sha1", "md5", "blake2b")
        }
        rows = every_row(node)
        whole = b"\x00".join(rows)
        assert not [word for word in words if word.encode() in whole]

        tokens = set()
        for lane in node.replica.logs:
            for entry in node.replica.logs.entries(lane.key, 0, lane.next_seq):
                body = node.body(entry)
                if isinstance(body, IndexEntry):
                    row = body.tokens
                    tokens |= {row[i : i + 5] for i in range(0, len(row), 5)}
        assert len(tokens) == 16
        assert tokens.isdisjoint(hashes)
        for guess in (bytes(32), node.network, node.key, pseudonym * 2):
            key = CategoryKey(category=Category.DEMOGRAPHICS, epoch=0, key_id=bytes(16), key=guess)
            for field, term in terms:
                assert tokens.isdisjoint(query_tokens(key, field, term))
        ring = node.search.keys.ring(IndexUse.SEARCH, "county/village")
        assert ring is not None
        held = ring.current(Category.DEMOGRAPHICS)
        assert any(tokens & set(query_tokens(held, field, term)) for field, term in terms)
        for key in ring:
            assert key.key not in whole
