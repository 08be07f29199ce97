"""Proof files: writing one for a record, and telling in words what one proves.

``file`` is an absolute path: a running node has a working folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.identity.keys import short_id
from p2pmed.medical.proof import PROOF_BYTES_MAX, Checked, Standing, check_proof
from p2pmed.medical.rejections import MEANINGS, Rejection
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.proving import prove

__all__ = ["OPERATIONS", "check_file", "describe_checked"]

CLOCKS: Final = ("unknown", "plausible against peers", "set from the county")


async def make(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write the proof of transaction ``id`` to the new file ``file``; ``open``: with content."""
    path = Path(arguments.text("file"))
    if not path.is_absolute():
        raise ConfigError("file: an absolute path is needed")
    entry = node.find(arguments.key("id"))
    if entry is None:
        raise LocalProtocolError("no such transaction is here", hint="give its whole id, in hex")
    raw = await prove(node, entry, reveal=arguments.flag("open"))
    check_proof(raw, network=node.network)  # what is handed out holds
    await asyncio.to_thread(_write, path, raw, arguments.flag("force"))
    return {"file": str(path), "bytes": len(raw), "network": node.network.hex()}


def _write(path: Path, raw: bytes, force: bool) -> None:
    with NewFile(path, force=force) as file:
        file.write(raw)
        file.keep()


def check_file(path: Path, *, network: bytes | None = None) -> dict[str, Any]:
    """What the proof in ``path`` proves, as plain values; no home and no key is needed.

    Blocking. Raises ``DecodeError`` or ``CredentialError`` if it does not hold, ``ConfigError``
    if it is longer than any proof.
    """
    with path.open("rb") as file:
        raw = file.read(PROOF_BYTES_MAX + 1)
    if len(raw) > PROOF_BYTES_MAX:
        raise ConfigError(f"{path} is longer than any proof", hint="name the .proof file")
    return {"bytes": len(raw), **describe_checked(check_proof(raw, network=network))}


def describe_checked(checked: Checked) -> dict[str, Any]:
    """A checked proof as plain values, ready for people."""
    resource = checked.resource
    return {
        "network": checked.network.hex(),
        "network_name": checked.network_name,
        "network_compared": checked.pinned,
        "record": _standing(checked.record),
        "county": None if checked.anchored is None else _standing(checked.anchored),
        "county_executed_height": checked.anchor_height,
        "county_refused": checked.refused_by_county,
        "commitment": checked.committed.hex() if checked.committed else None,
        "content": None if resource is None else resource.decode("utf-8", "replace"),
        "not_proven": list(checked.limits),
    }


def _standing(standing: Standing) -> dict[str, Any]:
    author, envelope = standing.author, standing.entry.envelope
    known = standing.verdict in [reason.value for reason in Rejection]
    return {
        "id": standing.entry.id.hex(),
        "kind": standing.entry.kind,
        "author": standing.entry.author.hex(),
        "author_short": short_id(standing.entry.author),
        "author_name": author.name,
        "author_roles": [role.value for role in author.roles],
        "author_place": author.place,
        "credential_until": _time(author.not_after),
        "credential_valid_then": standing.valid_then,
        "actor": envelope.actor.hex() or None,
        "patient": envelope.subject.hex() or None,
        "written_at": _time(envelope.wall),
        "writer_clock": CLOCKS[envelope.clock],
        "ledger": standing.ledger.hex(),
        "ledger_name": standing.name,
        "engine": standing.engine,
        "height": standing.height,
        "ordered_at": _time(standing.time_ms),
        "epoch": standing.epoch,
        "seats": standing.seats,
        "quorum": standing.quorum,
        "liars": standing.liars,
        "certified_by": [{"seat": s, "device": device.hex()} for s, device in standing.signers],
        "verdict": standing.verdict,
        "meaning": MEANINGS[Rejection(standing.verdict)] if known else "",
        "contradicts": standing.contradicts.hex() or None,
    }


def _time(at_ms: int) -> str:
    """Milliseconds since 1970 for people, UTC; any number that a file may hold."""
    try:
        return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "at no time that a calendar knows"


OPERATIONS: Final[Mapping[str, Operation]] = {"proofs.make": make}
