"""``p2pmed evidence``: listed, shown, exported, verified by strangers, decided by a supervisor."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pmed.cli import main
from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.ledger.transaction import sign_entry
from p2pmed.node.node import Node
from p2pmed.node.operations.evidence import verify_file

Open = Callable[..., Awaitable[Node]]
Ask = Callable[..., Awaitable[dict[str, Any]]]


async def accused(county: Node, liar: Node, carry: Callable[..., Awaitable[None]]) -> None:
    """The county holds two first entries that the liar's device signed."""
    await carry(county, liar)
    own = liar.replica.own.key
    first = liar.replica.logs.entry(own, 0)
    assert first is not None
    other = msgspec.structs.replace(first.envelope, wall=first.envelope.wall + 1)
    seed = liar.keys.signing_seed
    twin = sign_entry(other, seed=seed, author=liar.key, network=liar.network)
    await county.import_entries([twin.raw])
    mine = county.replica.own.key
    last = county.replica.logs.entry(mine, county.replica.logs.next_seq(mine) - 1)
    assert last is not None
    await county.receipt(last.id).final(timeout=10)


async def test_evidence_is_shown_carried_and_decided(
    opened: Open,
    ask: Ask,
    carry: Callable[..., Awaitable[None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the fork of a log to a supervisor's word, with a file that needs no home."""
    county, liar = await opened("County", "county"), await opened("Mu clinic")
    await ask(county, "mesh.found", members=[], name="County")
    assert (await ask(county, "evidence.list"))["cases"] == []
    await accused(county, liar, carry)
    told = await ask(county, "evidence.list")
    (row,), (proof,) = told["cases"], told["proofs"]
    assert (row["device"], row["kind"], row["judgement"]) == (liar.key.hex(), "log_fork", "open")
    assert row["suspended"]
    assert proof["guilty"] == [liar.key.hex()]
    assert (await ask(county, "general.status"))["evidence"] == 1
    shown = await ask(county, "evidence.show", case=row["case"][:8])
    assert shown["decided"] == [{"device": liar.key.hex(), "judgement": "open"}]
    path = tmp_path / "fork.evidence"
    await ask(county, "evidence.export", case=row["case"][:8], file=str(path))
    assert verify_file(path)["guilty"] == [liar.key.hex()]
    settled = await ask(
        county, "evidence.settle", case=row["case"][:8], judgement="restored", wait_s=10
    )
    assert settled["verdict"] == "applied"
    (row,) = (await ask(county, "evidence.list"))["cases"]
    assert (row["judgement"], row["suspended"]) == ("restored", False)
    assert main(["evidence", "verify", str(path)]) == 0
    words = capsys.readouterr().out
    assert liar.key.hex() in words
    assert "not why" in words
    assert main(["evidence", "verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "log_fork"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert main(["evidence", "verify", str(path)]) == 1
    assert "p2pmed:" in capsys.readouterr().err
    with pytest.raises((CredentialError, DecodeError)):
        verify_file(path)
    with pytest.raises(ConfigError, match="names 0 cases"):
        await ask(county, "evidence.show", case="00000000")
    with pytest.raises(ConfigError, match="no such decision"):
        await ask(county, "evidence.settle", case=row["case"], judgement="hanged")
