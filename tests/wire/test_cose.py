"""COSE_Sign1: one spelling, one domain per signature, strict keys; the frozen transactions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.errors import DecodeError
from p2pmed.ledger.transaction import Envelope, open_entry, sign_entry
from p2pmed.limits import ENTRY_BYTES_MAX
from p2pmed.wire import codec, cose
from p2pmed.wire.hashing import hash_bytes

SEED = bytes(range(32))
PUBLIC = bindings.crypto_sign_seed_keypair(SEED)[0]
EXTERNAL = cose.external_data("transaction", bytes(32))
FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "transaction.json").read_text("utf-8"))


def signed(payload: bytes, external: bytes = EXTERNAL) -> bytes:
    return cose.sign(payload, seed=SEED, signer=PUBLIC, external=external)


def accepted(raw: bytes, external: bytes) -> bool:
    """Whether the whole path, spelling and signature, accepts ``raw``."""
    try:
        opened = cose.open_signed(raw, external=external)
    except DecodeError:
        return False
    return cose.verify(opened.signer, opened.signature, opened.to_be_signed)


def from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if "$bytes" in value:
            return bytes.fromhex(value["$bytes"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


@given(st.binary(max_size=600))
def test_a_message_is_the_structure_of_rfc_9052(payload: bytes) -> None:
    """A general CBOR decoder sees the four elements, and the signature covers section 4.4."""
    raw = signed(payload)
    protected, unprotected, body, signature = cbor2.loads(raw)
    assert cbor2.loads(protected) == {1: -8, 4: PUBLIC}
    assert unprotected == {}
    assert body == payload
    structure = cbor2.dumps(["Signature1", protected, EXTERNAL, payload])
    opened = cose.open_signed(raw, external=EXTERNAL)
    assert opened.to_be_signed == structure
    assert opened.id == hash_bytes(structure)
    assert (opened.signer, opened.payload, opened.signature) == (PUBLIC, payload, signature)
    assert cose.verify(PUBLIC, signature, structure)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_payload_lengths_are_minimal(size: int) -> None:
    """Around each change of the length prefix a message opens again, and is spelled minimally."""
    raw = signed(bytes(size))
    assert cose.open_signed(raw, external=EXTERNAL).payload == bytes(size)
    assert cbor2.dumps(cbor2.loads(raw), canonical=True) == raw


@given(st.binary(max_size=40), st.data())
@settings(max_examples=200)
def test_no_byte_of_a_message_can_change(payload: bytes, data: st.DataObject) -> None:
    """Any one byte changed, dropped or added: refused."""
    raw = signed(payload)
    at = data.draw(st.integers(0, len(raw) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]
    assert accepted(raw, EXTERNAL)
    assert not accepted(changed, EXTERNAL)
    assert not accepted(raw[:at] + raw[at + 1 :], EXTERNAL)
    assert not accepted(raw[:at] + bytes([flip]) + raw[at:], EXTERNAL)


def test_every_single_bit_of_a_message_is_covered() -> None:
    """Exhaustively: each bit of a message flipped is refused."""
    raw = signed(b"payload")
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert not accepted(bytes(changed), EXTERNAL)


@pytest.mark.parametrize(
    "other",
    [
        cose.external_data("transaction", bytes(31) + b"\x01"),
        cose.external_data("transaction", b""),
        cose.external_data("vote", bytes(32)),
        b"",
    ],
    ids=["network", "no network", "purpose", "nothing"],
)
def test_a_signature_holds_in_its_domain_only(other: bytes) -> None:
    """Network and purpose are part of what is signed."""
    assert accepted(signed(b"x"), EXTERNAL)
    assert not accepted(signed(b"x"), other)


def test_domains_do_not_run_together() -> None:
    """Purpose and network are framed: no two pairs give the same external data."""
    pairs = [("a", b"bc"), ("ab", b"c"), ("abc", b""), ("", b"abc")]
    assert len({cose.external_data(*pair) for pair in pairs}) == len(pairs)


def test_a_message_over_the_limit_is_refused() -> None:
    """A longer message is refused before anything is looked at."""
    assert len(signed(bytes(ENTRY_BYTES_MAX - 200))) <= ENTRY_BYTES_MAX
    with pytest.raises(DecodeError, match="bytes where"):
        cose.open_signed(signed(bytes(ENTRY_BYTES_MAX)), external=EXTERNAL)


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xff" * 32,
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("0100000000000000000000000000000000000000000000000000000000000080"),
    ],
    ids=["zero", "identity", "ones", "minus one", "order eight", "second identity"],
)
def test_weak_keys_verify_nothing(key: bytes) -> None:
    """A key of small order, or spelled twice, fits every message and is refused."""
    for signature in (key + bytes(32), bytes(64), b"\x01" + bytes(63)):
        assert not cose.verify(key, signature, b"anything")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_or_signature_of_another_length_verifies_nothing(size: int) -> None:
    """Wrong lengths answer no; they do not raise."""
    signature = bindings.crypto_sign(b"m", SEED + PUBLIC)[:64]
    assert cose.verify(PUBLIC, signature, b"m")
    assert not cose.verify(bytes(size), signature, b"m")
    assert not cose.verify(PUBLIC, signature[:size] if size < 64 else signature + b"m", b"m")


def test_a_signed_message_prints_nothing_of_its_payload() -> None:
    """``repr`` of an opened message shows no contents."""
    opened = cose.open_signed(signed(b"diagnosis"), external=EXTERNAL)
    assert "diagnosis" not in repr(opened)


@pytest.mark.parametrize("vector", FROZEN["valid"], ids=lambda vector: vector["name"])
def test_frozen_transactions_are_signed_and_opened_as_frozen(vector: dict[str, Any]) -> None:
    """The same envelope under the same key gives the same bytes and id, for ever."""
    fields = from_json(vector["envelope"])
    envelope = Envelope(**{**fields, "refs": tuple(fields["refs"])})
    seed, network = bytes.fromhex(vector["seed"]), bytes.fromhex(vector["network"])
    author = bindings.crypto_sign_seed_keypair(seed)[0]
    assert codec.encode(envelope).hex() == vector["payload"]
    entry = sign_entry(envelope, seed=seed, author=author, network=network)
    assert (entry.raw.hex(), entry.id.hex()) == (vector["raw"], vector["id"])
    opened = open_entry(bytes.fromhex(vector["raw"]), network=network)
    assert opened.envelope == envelope
    assert cose.verify(author, opened.signature, opened.to_be_signed)


@pytest.mark.parametrize("vector", FROZEN["hostile"], ids=lambda vector: vector["why"])
def test_hostile_transactions_are_refused_where_frozen(vector: dict[str, Any]) -> None:
    """What must be refused is refused, by its spelling or by its signature as listed."""
    network = bytes.fromhex(vector["network"])
    try:
        entry = open_entry(bytes.fromhex(vector["raw"]), network=network)
    except DecodeError:
        assert vector["fails"] == "spelling"
        return
    assert vector["fails"] == "signature"
    assert not cose.verify(entry.author, entry.signature, entry.to_be_signed)
