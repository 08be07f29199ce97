"""The bytes of ``docs/protocols/evidence.md``, frozen: one of each kind, and what it proves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pmed.ledger.evidence import check_evidence, decode_evidence
from p2pmed.wire import codec

VECTORS = Path(__file__).parents[1] / "vectors" / "evidence.json"
FROZEN = json.loads(VECTORS.read_text(encoding="utf-8"))["evidence"]


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: frozen["kind"])
def test_frozen_evidence_proves_what_it_proved(frozen: Any) -> None:
    """Spelled again byte for byte, against the same devices, in the same case."""
    raw = bytes.fromhex(frozen["raw"])
    evidence = decode_evidence(raw)
    assert codec.encode(evidence) == raw
    case = check_evidence(evidence)
    assert case.kind == frozen["kind"]
    assert [device.hex() for device in case.guilty] == frozen["guilty"]
    assert (case.place.hex(), case.ledger.hex()) == (frozen["place"], frozen["ledger"])
    assert (case.epoch and case.epoch.number) == frozen["epoch"]
    assert case.height == frozen["height"]
