"""The bytes of ``docs/protocols/certificate.md``, frozen: made again alike, and refused alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nacl import bindings

from p2pmed.errors import P2pmedError
from p2pmed.quorum.certificate import (
    Epoch,
    VoteKind,
    check_certificate,
    decode_certificate,
    make_certificate,
    quorum_size,
    vote_bytes,
)
from p2pmed.wire import codec

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "certificate.json").read_text("utf-8"))


def thawed(value: Any) -> Any:
    """JSON back to what CBOR carries: ``{"$bytes": hex}`` are bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["$bytes"])
    return [thawed(item) for item in value] if isinstance(value, list) else value


EPOCH = codec.convert(thawed(FROZEN["epoch"]), Epoch)
SEEDS = [bytes.fromhex(seed) for seed in FROZEN["seeds"]]
named = pytest.mark.parametrize("frozen", FROZEN["valid"], ids=lambda frozen: frozen["name"])


@named
def test_a_certificate_is_made_again_byte_for_byte(frozen: Any) -> None:
    """Ed25519 is deterministic: same seeds, same view, same bytes."""
    kind, view, digest = VoteKind(frozen["kind"]), frozen["view"], bytes.fromhex(frozen["digest"])
    message = vote_bytes(EPOCH.ledger, EPOCH.number, kind, view, digest)
    assert message.hex() == frozen["message"]
    votes = []
    for seat in reversed(frozen["seats"]):
        public = EPOCH.validators[seat].vote_key
        votes.append((seat, bindings.crypto_sign(message, SEEDS[seat] + public)[:64]))
    certificate = make_certificate(EPOCH, kind, view, digest, votes)
    assert codec.encode(certificate).hex() == frozen["raw"]


@named
def test_a_frozen_certificate_holds(frozen: Any) -> None:
    """It is read, checked, and written as it was."""
    certificate = decode_certificate(bytes.fromhex(frozen["raw"]))
    check_certificate(certificate, EPOCH)
    assert codec.encode(certificate).hex() == frozen["raw"]


@pytest.mark.parametrize("frozen", FROZEN["invalid"], ids=lambda frozen: frozen["name"])
def test_a_hostile_certificate_is_refused(frozen: Any) -> None:
    """By its spelling or by what it claims; never accepted."""
    with pytest.raises(P2pmedError):
        check_certificate(decode_certificate(bytes.fromhex(frozen["raw"])), EPOCH)


def test_the_table_of_quorums_is_the_frozen_one() -> None:
    """All sizes up to 20 seats, all numbers of liars that are allowed."""
    assert [[n, f, quorum_size(n, f)] for n, f, _ in FROZEN["quorums"]] == FROZEN["quorums"]
