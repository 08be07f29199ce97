"""The bytes of ``docs/protocols/genesis.md``, frozen: made again alike, and refused alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nacl import bindings

from p2pmed.errors import DecodeError
from p2pmed.ledger.genesis import Founding, Genesis, check_founding, ledger_id, sign_genesis
from p2pmed.wire import codec

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "genesis.json").read_text("utf-8"))
named = pytest.mark.parametrize("frozen", FROZEN["valid"], ids=lambda frozen: frozen["name"])


def thawed(value: Any) -> Any:
    """JSON back to what CBOR carries: ``{"$bytes": hex}`` are bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["$bytes"])
    return [thawed(item) for item in value] if isinstance(value, list) else value


@named
def test_a_genesis_has_its_frozen_bytes_and_name(frozen: Any) -> None:
    """Written from its fields and read from its bytes; the ledger's id is that of the page."""
    genesis = codec.convert(thawed(frozen["fields"]), Genesis)
    assert codec.encode(genesis).hex() == frozen["raw"]
    assert codec.decode(bytes.fromhex(frozen["raw"]), Genesis) == genesis
    assert ledger_id(genesis).hex() == frozen["ledger"]


@named
def test_founders_sign_as_they_did(frozen: Any) -> None:
    """The COSE_Sign1 of each founder is made again byte for byte."""
    genesis = codec.decode(bytes.fromhex(frozen["raw"]), Genesis)
    for seed_hex, signature in zip(frozen["seeds"], frozen["signatures"], strict=True):
        seed = bytes.fromhex(seed_hex)
        public = bindings.crypto_sign_seed_keypair(seed)[0]
        assert sign_genesis(genesis, seed=seed, node=public).hex() == signature


@named
def test_a_frozen_founding_holds(frozen: Any) -> None:
    """All signatures stand in the order of the seats; it is written as it was."""
    founding = codec.decode(bytes.fromhex(frozen["founding"]), Founding)
    seats = iter(founding.genesis.validators)
    check_founding(
        founding, network=founding.genesis.network, open_chain=lambda chain: next(seats).node
    )
    assert codec.encode(founding).hex() == frozen["founding"]


@pytest.mark.parametrize("frozen", FROZEN["invalid"], ids=lambda frozen: frozen["name"])
def test_a_hostile_genesis_is_refused(frozen: Any) -> None:
    """One value has one spelling, and what is out of bounds does not decode."""
    with pytest.raises(DecodeError):
        codec.decode(bytes.fromhex(frozen["raw"]), Genesis)
