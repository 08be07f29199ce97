"""The bytes of ``docs/protocols/proof.md``, frozen: they hold as they are, for both verifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import second_verifier

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.medical.proof import check_proof, decode_proof
from p2pmed.wire import codec

VECTORS = Path(__file__).parents[2] / "vectors" / "proof.json"
FROZEN = json.loads(VECTORS.read_text(encoding="utf-8"))
RAW = bytes.fromhex(FROZEN["raw"])


def test_the_frozen_proof_holds_and_says_what_it_said() -> None:
    """Spelled again byte for byte; every answer as frozen."""
    assert codec.encode(decode_proof(RAW)) == RAW
    found = check_proof(RAW, network=bytes.fromhex(FROZEN["network"]))
    record = found.record
    assert found.anchored is not None
    assert found.committed is not None
    assert found.resource is not None
    said = {
        "id": record.entry.id.hex(),
        "author": record.entry.author.hex(),
        "ledger": record.ledger.hex(),
        "height": record.height,
        "time_ms": record.time_ms,
        "epoch": record.epoch,
        "verdict": record.verdict,
        "signers": [seat for seat, _ in record.signers],
        "anchor_height": found.anchor_height,
        "commitment": found.committed.hex(),
        "resource": found.resource.hex(),
    }
    assert said == {name: FROZEN[name] for name in said}
    assert second_verifier.verify(RAW)["id"].hex() == FROZEN["id"]


@pytest.mark.parametrize("change", FROZEN["refused"], ids=lambda change: f"byte {change['byte']}")
def test_a_frozen_change_is_refused(change: Any) -> None:
    """One bit anywhere."""
    at, flip = change["byte"], change["flip"]
    forged = RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :]
    with pytest.raises((CredentialError, DecodeError)):
        check_proof(forged)
