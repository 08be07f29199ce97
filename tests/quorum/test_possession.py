"""A published vote key is its publisher's: byte for byte, and against every theft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pmed.identity.keys import VoteSigner
from p2pmed.quorum.certificate import VoteKind, vote_bytes
from p2pmed.quorum.possession import ProvenKey, is_proven, possession_bytes, prove

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "certificate.json").read_text())
FROZEN = VECTORS["published"]
PLACE = {"network": b"n" * 32, "ledger": b"l" * 32, "device": b"d" * 32}
SIGNER = VoteSigner(b"s" * 32)


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: frozen["name"])
def test_a_proof_is_made_again_byte_for_byte(frozen: Any) -> None:
    """``docs/protocols/certificate.md``, section 5."""
    place = {name: bytes.fromhex(frozen[name]) for name in ("network", "ledger", "device")}
    assert possession_bytes(**place).hex() == frozen["message"]
    published = prove(VoteSigner(bytes.fromhex(frozen["seed"])), **place)
    assert (published.key.hex(), published.proof.hex()) == (frozen["key"], frozen["proof"])
    assert is_proven(published, **place)


@pytest.mark.parametrize("name", list(PLACE))
def test_a_proof_holds_in_one_place_for_one_device(name: str) -> None:
    """Shown in another network, ledger, or by another device, it proves nothing."""
    published = prove(SIGNER, **PLACE)
    assert is_proven(published, **PLACE)
    assert not is_proven(published, **{**PLACE, name: b"x" * 32})


def test_neither_a_vote_nor_any_small_order_key_is_a_proof() -> None:
    """A vote by the key says nothing of who published it; the neutral point verifies anything."""
    vote = SIGNER.sign(vote_bytes(PLACE["ledger"], 0, VoteKind.NOTARIZE, 1, PLACE["device"]))
    assert not is_proven(ProvenKey(key=SIGNER.public, proof=vote), **PLACE)
    neutral = ProvenKey(key=b"\x01" + bytes(31), proof=b"\x01" + bytes(63))
    assert not is_proven(neutral, **PLACE)
    published = prove(SIGNER, **PLACE)
    flipped = published.proof[:-1] + bytes([published.proof[-1] ^ 1])
    assert not is_proven(msgspec.structs.replace(published, proof=flipped), **PLACE)
