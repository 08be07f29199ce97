"""The bytes of ``docs/protocols/block.md``, frozen: made again alike, and refused alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.errors import DecodeError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import Body, content_hash, decode_body, tips_root, verdict_leaf
from p2pmed.ledger.merkle import merkle_proof, merkle_root, verify_merkle_proof
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.stored import StoredBlock
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.quorum.certificate import epoch_digest
from p2pmed.wire import codec

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "block.json").read_text("utf-8"))


def thawed(value: Any) -> Any:
    """JSON back to what CBOR carries: ``{"$bytes": hex}`` are bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["$bytes"])
    return [thawed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("frozen", FROZEN["headers"], ids=lambda frozen: frozen["name"])
def test_a_header_has_its_frozen_bytes_and_digest(frozen: Any) -> None:
    """Written from its fields and read from its bytes."""
    header = codec.convert(thawed(frozen["fields"]), Header)
    assert codec.encode(header).hex() == frozen["raw"]
    assert codec.decode(bytes.fromhex(frozen["raw"]), Header) == header
    assert header_digest(header).hex() == frozen["digest"]


def test_a_content_has_its_frozen_bytes_and_hashes() -> None:
    """The header commits to the summary, the summary to the tips."""
    frozen = FROZEN["content"]
    body = codec.convert(thawed(frozen["fields"]), Body)
    assert codec.encode(body).hex() == frozen["raw"]
    assert decode_body(bytes.fromhex(frozen["raw"]), limit=BLOCK_CONTENT_BYTES_MAX) == body
    assert codec.encode(body.summary).hex() == frozen["summary"]
    assert content_hash(body.summary).hex() == frozen["hash"]
    assert tips_root(body.tips).hex() == frozen["tips"] == body.summary.tips.hex()
    assert FROZEN["headers"][0]["fields"][8]["$bytes"] == frozen["hash"]


def test_roots_over_entries_and_verdicts_are_the_frozen_ones() -> None:
    """Five entries, their verdicts, and the proof of the third."""
    entries, verdicts = FROZEN["entries"], FROZEN["verdicts"]
    ids = [bytes.fromhex(entry) for entry in entries["ids"]]
    assert merkle_root(ids).hex() == entries["root"]
    assert merkle_root([]).hex() == entries["empty_root"]
    proof = [bytes.fromhex(node) for node in entries["proof_of_2"]]
    assert merkle_proof(ids, 2) == proof
    assert verify_merkle_proof(ids[2], 2, 5, proof, bytes.fromhex(entries["root"]))
    leaves = [
        verdict_leaf(bytes.fromhex(entry), Verdict(code=code, other=bytes.fromhex(other)))
        for entry, code, other in verdicts["verdicts"]
    ]
    assert [leaf.hex() for leaf in leaves] == verdicts["leaves"]
    assert merkle_root(leaves).hex() == verdicts["root"]


def test_the_state_root_of_three_rows_is_the_frozen_one() -> None:
    """In any order of the rows; and that of no rows."""
    rows = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in FROZEN["state"]["rows"]]
    for order in (rows, rows[::-1]):
        total = lthash.changed(lthash.EMPTY, [(key, None, value) for key, value in order])
        assert lthash.state_root(total).hex() == FROZEN["state"]["root"]
    assert lthash.state_root(lthash.EMPTY).hex() == FROZEN["state"]["empty_root"]


def test_a_seal_commits_to_the_next_epoch() -> None:
    """Its summary holds the hash of the epoch that its content carries."""
    frozen = FROZEN["seal"]
    body = codec.convert(thawed(frozen["fields"]), Body)
    assert codec.encode(body).hex() == frozen["raw"]
    assert content_hash(body.summary).hex() == frozen["hash"]
    assert body.next_epoch is not None
    assert codec.encode(body.next_epoch).hex() == frozen["next_epoch"]
    assert epoch_digest(body.next_epoch).hex() == frozen["next_epoch_digest"]
    assert body.summary.next_epoch.hex() == frozen["next_epoch_digest"]


def test_a_seal_that_a_tail_proves_is_read_and_written_as_it_was() -> None:
    """The certificate is that of the last header of the tail, which hangs on the seal."""
    raw = bytes.fromhex(FROZEN["stored"]["with_tail"])
    stored = codec.decode(raw, StoredBlock)
    assert codec.encode(stored) == raw
    assert stored.tail[0].parent == header_digest(stored.block.header)
    assert stored.certificate is not None
    assert stored.certificate.digest == header_digest(stored.tail[-1])


@pytest.mark.parametrize("name", ["with_certificate", "without"])
def test_a_stored_block_is_read_and_written_as_it_was(name: str) -> None:
    """With its own certificate, or proven by a descendant's."""
    raw = bytes.fromhex(FROZEN["stored"][name])
    stored = codec.decode(raw, StoredBlock)
    assert codec.encode(stored) == raw
    assert (stored.certificate is None) == (name == "without")
    assert stored.block.content.hex() == FROZEN["content"]["raw"]


@pytest.mark.parametrize("frozen", FROZEN["invalid"], ids=lambda frozen: frozen["name"])
def test_a_hostile_content_is_refused(frozen: Any) -> None:
    """Order, bounds and spelling are checked before anything is executed."""
    with pytest.raises(DecodeError):
        decode_body(bytes.fromhex(frozen["raw"]), limit=BLOCK_CONTENT_BYTES_MAX)
