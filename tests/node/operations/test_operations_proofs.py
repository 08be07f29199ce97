"""``p2pmed proof`` and ``p2pmed verify --proof``: made by a node, checked without one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main
from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.medical.proof import check_proof
from p2pmed.node.node import Node

Open = Callable[..., Awaitable[Node]]
Ask = Callable[..., Awaitable[dict[str, Any]]]
SECRET = "U07.1"


async def observed(node: Node) -> bytes:
    """The id of a sealed record that is final in the node's own ledger."""
    patient, registered = await node.patients.register(
        b'{"resourceType":"Patient","name":[{"family":"Wang"}]}'
    )
    receipt = await node.patients.add(
        json.dumps(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": SECRET},
                "subject": {"reference": f"Patient/{patient.hex()}"},
            }
        ).encode(),
        patient=patient,
    )
    await registered.final(timeout=10)
    await receipt.final(timeout=10)
    return receipt.id


async def test_a_proof_is_made_and_checked_with_public_keys_only(
    opened: Open, ask: Ask, tmp_path: Path
) -> None:
    """Sealed or opened; the command line tells it in words, without a home."""
    node = await opened()
    await ask(node, "mesh.found", members=[], name="Mu")
    record = await observed(node)
    sealed, clear = tmp_path / "sealed.proof", tmp_path / "clear.proof"
    made = await ask(node, "proofs.make", id=record.hex(), file=str(sealed))
    await ask(node, "proofs.make", id=record.hex(), file=str(clear), open=True)
    assert made["network"] == node.network.hex()
    assert SECRET.encode() not in sealed.read_bytes()
    found = check_proof(clear.read_bytes(), network=node.network)
    assert found.record.entry.id == record
    assert SECRET.encode() in (found.resource or b"")
    with pytest.raises(ConfigError, match="there already"):
        await ask(node, "proofs.make", id=record.hex(), file=str(sealed))


async def test_what_cannot_be_proven_is_refused_with_a_reason(
    opened: Open, ask: Ask, tmp_path: Path
) -> None:
    """Unknown, not final, or nothing sealed in it."""
    node = await opened()
    target = str(tmp_path / "a.proof")
    with pytest.raises(LocalProtocolError, match="no such transaction"):
        await ask(node, "proofs.make", id="00" * 32, file=target)
    first = next(iter(node.replica.logs.entries(next(iter(node.replica.logs)).key, 0, 1)))
    with pytest.raises(LocalProtocolError, match="not final"):
        await ask(node, "proofs.make", id=first.id.hex(), file=target)
    await ask(node, "mesh.found", members=[], name="Mu")
    await node.receipt(first.id).final(timeout=10)
    await ask(node, "proofs.make", id=first.id.hex(), file=target)
    with pytest.raises(LocalProtocolError, match="no key of that patient"):
        await ask(node, "proofs.make", id=first.id.hex(), file=target, open=True)
    with pytest.raises(ConfigError, match="absolute"):
        await ask(node, "proofs.make", id=first.id.hex(), file="a.proof")


def _verify(*arguments: str) -> int:
    return main(["verify", *arguments])


async def test_the_command_line_tells_what_is_proven_and_what_is_not(
    opened: Open, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words for a court; status 1 and one sentence for a forged file."""
    node = await opened()
    await ask(node, "mesh.found", members=[], name="Mu")
    record = await observed(node)
    path = tmp_path / "visit.proof"
    await ask(node, "proofs.make", id=record.hex(), file=str(path))
    assert _verify("--proof", str(path), "--manifest-id", node.network.hex()) == 0
    told = capsys.readouterr().out
    for words in ("the proof holds", "Mu clinic", "1 of 1", "applied", "NOT proven", "as you"):
        assert words in told, words
    assert _verify("--proof", str(path), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["record"]["id"] == record.hex()
    assert not answer["network_compared"]
    assert _verify("--proof", str(path), "--manifest-id", "00" * 32) == 1
    assert "another network" in capsys.readouterr().err
    assert _verify("--proof", str(path), "--manifest-id", "abc") == 1
    assert "64 hex digits" in capsys.readouterr().err
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert _verify("--proof", str(path)) == 1
    assert "p2pmed:" in capsys.readouterr().err
