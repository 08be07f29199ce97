"""A proof file holds as it is, and in no other way: by ours and by a second verifier."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
import second_verifier
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import CryptoError
from proof_story import (
    RESOURCE,
    SALT,
    Device,
    Land,
    Story,
    full_proof,
    hash_bytes,
    ordered,
    record_body,
    village_of,
)
from toy_ledger import certify, devices

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.identity.manifest import make_manifest
from p2pmed.medical.proof import Anchored, Opened, RecordProof, check_proof
from p2pmed.testing.clock import SimEntropy
from p2pmed.wire import codec

replace = msgspec.structs.replace
LAND, PROOF = full_proof()
RAW = codec.encode(PROOF)
REFUSED = (CredentialError, DecodeError)
DOUBTS: dict[Any, tuple[type[Exception], ...]] = {
    check_proof: REFUSED,
    second_verifier.verify: (
        *(AssertionError, ValueError, TypeError, LookupError, OverflowError, AttributeError),
        *(CryptoError, cbor2.CBORDecodeError, cbor2.CBOREncodeError),
    ),
}
"""How each verifier says no; ours has two ways, and any other error of it is a fault."""


def believed(verify: Callable[[bytes], Any], raw: bytes) -> bool:
    """Whether a verifier takes the file."""
    try:
        verify(raw)
    except DOUBTS[verify]:
        return False
    return True


def test_the_proof_tells_who_what_where_and_by_whom() -> None:
    """From public keys alone."""
    found = check_proof(RAW, network=LAND.network)
    record = found.record
    assert (found.network_name, found.pinned) == ("Shan", True)
    assert (record.epoch, record.height, record.verdict) == (2, 4, "applied")
    assert (len(record.signers), record.seats, record.quorum) == (5, 7, 5)
    assert record.author.subject == record.entry.author
    assert record.valid_then
    assert found.anchored is not None
    assert (found.anchor_height, found.refused_by_county) == (6, "")
    assert found.resource == RESOURCE


def test_a_second_verifier_finds_the_same() -> None:
    """Written from the page, with cbor2, hashlib and libsodium: no line of ours in it."""
    ours, theirs = check_proof(RAW), second_verifier.verify(RAW)
    assert theirs["id"] == ours.record.entry.id
    assert theirs["network"] == LAND.network == ours.network
    assert (theirs["epoch"], theirs["header"][4]) == (ours.record.epoch, ours.record.height)
    assert (theirs["time"], theirs["anchored"]) == (ours.record.time_ms, ours.anchor_height)
    assert theirs["resource"] == RESOURCE
    assert theirs["author"][4] == ours.record.author.name


def test_the_second_verifier_imports_nothing_of_ours() -> None:
    """Else both could be wrong alike."""
    tree = ast.parse(Path(second_verifier.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.startswith("p2pmed") for name in names)


def test_optional_parts_may_be_absent_and_that_is_said() -> None:
    """Without anchor and content the rest still holds, and the answer names what is missing."""
    bare = replace(PROOF, anchored=None, opened=None)
    found = check_proof(codec.encode(bare))
    assert (found.anchored, found.resource, found.pinned) == (None, None, False)
    told = " ".join(found.limits)
    for words in ("compare its id", "holds no anchor", "was not opened"):
        assert words in told
    assert second_verifier.verify(codec.encode(bare))["id"] == found.record.entry.id


def test_another_network_than_the_one_named_is_refused() -> None:
    """Whoever knows the id cannot be shown an invented network."""
    with pytest.raises(CredentialError, match="another network"):
        check_proof(RAW, network=bytes(32))


# --- forged: every field, one at a time ---------------------------------------------------------


def leaves(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every place in the file, arrays too."""
    yield path, value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


def altered(value: Any) -> list[Any]:
    """What a forger might write instead."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [value + 1, value - 1, 0 if value else 2]
    if isinstance(value, str):
        return [value + "x", value[1:]]
    if isinstance(value, bytes):
        middle = len(value) // 2
        flipped = (
            value[:middle] + bytes([value[middle] ^ 0x40]) + value[middle + 1 :] if value else b"x"
        )
        return [flipped, bytes(len(value)) if any(value) else b"\x01" * 32, value[:-1]]
    if len(value) < 2:
        return [[*value, *value]] if value else []
    return [value[1:], value[:-1], [value[1], value[0], *value[2:]], [*value, value[-1]]]


def planted(tree: Any, path: tuple[int, ...], value: Any) -> bytes:
    forged = copy.deepcopy(tree)
    at = forged
    for index in path[:-1]:
        at = at[index]
    at[path[-1]] = value
    return cbor2.dumps(forged, canonical=True)


def forgeries() -> list[tuple[tuple[int, ...], bytes]]:
    tree = cbor2.loads(RAW)
    return [
        (path, planted(tree, path, value))
        for path, old in leaves(tree)
        if path
        for value in altered(old)
        if value != old
    ]


FORGED = forgeries()


def test_there_are_enough_forgeries() -> None:
    """A goal of the project: at least 200, none believed."""
    assert len(FORGED) >= 200


@pytest.mark.parametrize("part", range(8))
def test_every_forged_field_is_refused(part: int) -> None:
    """Each item of the file changed, cut, swapped or doubled, and spelled well again."""
    for path, raw in FORGED[part::8]:
        assert not believed(check_proof, raw), path


def test_the_second_verifier_refuses_them_too() -> None:
    """Every third of them: the page alone says enough to catch a forger."""
    for path, raw in FORGED[::3]:
        assert not believed(second_verifier.verify, raw), path


# --- forged: by who holds keys ------------------------------------------------------------------


def _with(**fields: Any) -> RecordProof:
    return replace(PROOF, record=replace(PROOF.record, **fields))


def _resigned() -> Iterator[tuple[str, RecordProof]]:
    """Parts that are true elsewhere, or signed by other keys."""
    village = village_of(LAND)
    author = village.seats[1]
    other = LAND.sign(author, "record.add", record_body(), subject=bytes([8] * 16))
    stranger = Device("stranger")
    as_stranger = LAND.sign(stranger, "record.add", record_body(), subject=bytes([7] * 16))
    elsewhere = ordered(LAND, village, other, LAND.clinic(author))
    record, block = PROOF.record, PROOF.record.block
    outsiders = certify(village.epoch, devices(30)[20:27], block.header)
    old_seats = certify(record.handovers[0].following, devices(9)[2:7], block.header)
    yield "another transaction of the author", _with(entry=other.raw)
    yield "a stranger's transaction", _with(entry=as_stranger.raw)
    yield (
        "a stranger's transaction and name",
        _with(entry=as_stranger.raw, chain=LAND.clinic(stranger)),
    )
    yield "another block", _with(block=elsewhere.block)
    yield "another place", _with(block=elsewhere.block, placed=elsewhere.placed)
    yield "another author's name", _with(chain=LAND.clinic(village.seats[2]))
    yield "outsiders' votes", _with(block=replace(block, certificate=outsiders))
    yield "votes of the epoch before", _with(block=replace(block, certificate=old_seats))
    yield (
        "the certificate of another view",
        _with(block=replace(block, certificate=elsewhere.block.certificate)),
    )
    yield "no handovers", _with(handovers=())
    yield "a handover too few", _with(handovers=record.handovers[:1])
    yield "handovers swapped", _with(handovers=record.handovers[::-1])
    yield "a handover of another ledger", _with(handovers=Story(devices(4)).handovers)
    paths = replace(record.placed, path=record.placed.verdict_path, verdict_path=record.placed.path)
    yield "paths swapped", _with(placed=paths)
    yield "a better verdict", _with(placed=replace(record.placed, code="refused"))
    yield "zeros for nobody", _with(placed=replace(record.placed, other=bytes(32)))
    yield (
        "founders of another ledger",
        _with(founding=Story(devices(4), network=LAND.network, chain_of=LAND.clinic).founding),
    )
    seed = hash_bytes(b"another authority")
    theirs = make_manifest("Shan", [seed], created_ms=0, entropy=SimEntropy(b"x"))
    yield "another authority", replace(PROOF, manifest=theirs)
    yield "other content", replace(PROOF, opened=Opened(salt=SALT, resource=b"{}"))
    yield "another salt", replace(PROOF, opened=Opened(salt=bytes(32), resource=RESOURCE))
    moved = Opened(salt=SALT[:31] + b"x", resource=RESOURCE)
    yield "salt and content shifted", replace(PROOF, opened=moved)
    yield from _misanchored()


def _misanchored() -> Iterator[tuple[str, RecordProof]]:
    anchored = PROOF.anchored
    assert anchored is not None

    def told(**fields: Any) -> RecordProof:
        return replace(PROOF, anchored=replace(anchored, **fields))

    yield "no headers", told(headers=())
    yield "a header too few", told(headers=anchored.headers[:1])
    yield "headers swapped", told(headers=anchored.headers[::-1])
    yield "the record as its own anchor", told(anchor=PROOF.record)
    clinics = sorted((Device(f"clinic {n}") for n in range(3)), key=lambda d: d.key)
    false_county = Story(clinics, engine="raft", network=LAND.network, chain_of=LAND.clinic)
    inner = second_verifier.dec(PROOF.anchored.anchor.entry)[2] if PROOF.anchored else b""
    body = second_verifier.dec(inner)[13]
    for name, signer, words in (
        ("clinics as a county", clinics[0], LAND.clinic(clinics[0])),
        ("a hospital's anchor in clinics' ledger", Device("hospital 0"), None),
    ):
        entry = LAND.sign(signer, "county.anchor", codec.convert(body, type(_anchor_body())))
        chain = words or LAND.hospital(signer)
        yield name, told(anchor=ordered(LAND, false_county, entry, chain))


def _anchor_body() -> Any:
    from p2pmed.medical.county import Anchor

    return Anchor(ledger=bytes(32), start=0, height=1, head=bytes(32), refused=())


RESIGNED = dict(_resigned())


@pytest.mark.parametrize("proof", RESIGNED.values(), ids=RESIGNED.keys())
def test_what_is_true_elsewhere_proves_nothing_here(proof: RecordProof) -> None:
    """Right signatures in the wrong place: of other keys, epochs, blocks, ledgers, authorities."""
    raw = codec.encode(proof)
    assert not believed(check_proof, raw)
    assert not believed(second_verifier.verify, raw)


# --- bytes --------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(RAW) - 1), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    """Every byte is covered by a signature, a hash or the one spelling."""
    forged = RAW[:at] + bytes([RAW[at] ^ change]) + RAW[at + 1 :]
    with pytest.raises(REFUSED):
        check_proof(forged)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, len(RAW) - 1), more=st.binary(min_size=1, max_size=4))
def test_a_cut_or_lengthened_file_is_refused(cut: int, more: bytes) -> None:
    """Half a copy, or bytes behind it."""
    for raw in (RAW[:cut], RAW + more, more + RAW):
        with pytest.raises(REFUSED):
            check_proof(raw)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_rubbish_is_refused(raw: bytes) -> None:
    """With one sentence, never with an error of ours."""
    with pytest.raises(REFUSED):
        check_proof(raw)


def test_ten_epochs_of_twenty_seats_fit_64_kilobytes() -> None:
    """A goal of the project: a proof without headers, at the largest mesh, after nine changes."""
    everybody = devices(20)
    story = Story(everybody, network=LAND.network, chain_of=LAND.clinic)
    for _ in range(9):
        story.seal(everybody)
    author = story.seats[0]
    entry = LAND.sign(author, "record.add", record_body(), subject=bytes([7] * 16))
    record = ordered(LAND, story, entry, LAND.clinic(author))
    raw = codec.encode(replace(PROOF, record=record, anchored=None, opened=None))
    found = check_proof(raw)
    assert (found.record.epoch, found.record.seats, found.record.quorum) == (9, 20, 14)
    assert len(raw) <= 64 * 1024


def test_an_expired_credential_is_told_and_not_hidden() -> None:
    """Validity is compared with block time; people weigh it."""
    land = Land()
    _, proof = full_proof(land)
    late = replace(proof.record.block.summary, time=2**50)
    story = village_of(land)
    entry = land.sign(story.seats[1], "record.add", record_body(), subject=bytes([7] * 16))
    record = ordered(land, story, entry, land.clinic(story.seats[1]))
    again = village_of(land)
    header = again.header(replace(record.block.summary, time=late.time))
    block = replace(
        record.block,
        header=header,
        summary=replace(record.block.summary, time=late.time),
        certificate=again.certified(header),
    )
    found = check_proof(
        codec.encode(
            replace(proof, record=replace(record, block=block), anchored=None, opened=None)
        )
    )
    assert not found.record.valid_then
    assert isinstance(proof.anchored, Anchored)
