"""Evidence: what is known of broken rules, its proofs as files, and what people decide.

``file`` is an absolute path: a running node has a working folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError, DecodeError
from p2pmed.ledger.evidence import EVIDENCE_BYTES_MAX, Case, check_evidence, decode_evidence
from p2pmed.medical.evidence import (
    CaseRow,
    EvidenceReport,
    EvidenceSettle,
    Judgement,
    cases,
)
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.lookup import describe_device, find_one, submitted

__all__ = ["OPERATIONS", "verify_file"]

HINT: Final = "see `p2pmed evidence list`"


def _known(node: Node) -> Iterator[tuple[bytes, bytes, CaseRow]]:
    return cases(node.state())


def _proofs(node: Node) -> Iterator[tuple[bytes, Case]]:
    """Proofs by their bytes: kept here, then those in reports that are here."""
    seen: dict[bytes, None] = {}
    for raw, evidence in node.replica.ledgers.accusing.kept():
        seen[raw] = None
        yield raw, check_evidence(evidence)
    for _, _, row in _known(node):
        entry = node.find(row.reported_by)
        body = None if entry is None else node.body(entry)
        if isinstance(body, EvidenceReport) and body.proof not in seen:
            seen[body.proof] = None
            yield body.proof, check_evidence(decode_evidence(body.proof))


async def show_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Every case of this ledger, and every proof that is kept here."""
    state = node.state()
    rows = [
        {
            **describe_device(state, device),
            "case": place.hex(),
            "kind": row.kind,
            "ledger": row.ledger.hex() or None,
            "epoch": row.epoch,
            "reported_by": row.reported_by.hex(),
            "judgement": row.judgement or "open",
            "suspended": row.suspends,
        }
        for device, place, row in _known(node)
    ]
    proofs = [_describe(raw, case) for raw, case in _proofs(node)]
    return {"cases": rows, "proofs": proofs}


def _describe(raw: bytes, case: Case) -> dict[str, Any]:
    return {
        "case": case.place.hex(),
        "kind": case.kind,
        "ledger": case.ledger.hex() or None,
        "epoch": None if case.epoch is None else case.epoch.number,
        "height": case.height,
        "guilty": [device.hex() for device in case.guilty],
        "bytes": len(raw),
    }


def _find(node: Node, text: str) -> tuple[bytes, Case]:
    """The proof of the case whose number begins with ``text``. Raises ``ConfigError``."""
    found = {case.place: (raw, case) for raw, case in _proofs(node)}
    return found[find_one(found, text, "case", HINT)]


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One proof: what it shows, against whom, and what people decided."""
    raw, case = _find(node, arguments.text("case", limit=64))
    state = node.state()
    decided = [
        {"device": device.hex(), "judgement": row.judgement or "open"}
        for device, place, row in cases(state)
        if place == case.place
    ]
    named = [describe_device(state, device) for device in case.guilty]
    return {**_describe(raw, case), "devices": named, "decided": decided}


async def export(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write the proof of one case to the new file ``file``."""
    raw, case = _find(node, arguments.text("case", limit=64))
    path = Path(arguments.text("file"))
    if not path.is_absolute():
        raise ConfigError("file: an absolute path is needed")
    await asyncio.to_thread(_write, path, raw, arguments.flag("force"))
    return {"file": str(path), **_describe(raw, case)}


def _write(path: Path, raw: bytes, force: bool) -> None:
    with NewFile(path, force=force) as file:
        file.write(raw)
        file.keep()


async def settle(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A supervisor's decision about a case of one device."""
    wanted = arguments.text("case", limit=64)
    place = find_one({place: None for _, place, _ in _known(node)}, wanted, "case", HINT)
    about = [device for device, other, _ in _known(node) if other == place]
    device = _chosen(about, arguments.text("device", "", limit=64))
    try:
        judgement = Judgement(arguments.text("judgement", limit=16))
    except ValueError:
        known = ", ".join(each.value for each in Judgement)
        raise ConfigError("judgement: no such decision", hint=f"one of {known}") from None
    body = EvidenceSettle(
        device=device,
        place=place,
        judgement=judgement,
        reason=arguments.text("reason", "decided", limit=64),
    )
    return await submitted(node, arguments, body)


def _chosen(about: Iterable[bytes], text: str) -> bytes:
    devices = list(about)
    if not text and len(devices) == 1:
        return devices[0]
    return find_one(devices, text, "device", "give --device: the case names several")


def verify_file(path: Path) -> dict[str, Any]:
    """What the evidence in ``path`` proves; no home and no key is needed.

    Blocking. Raises ``DecodeError`` or ``CredentialError`` if it proves nothing.
    """
    with path.open("rb") as file:
        raw = file.read(EVIDENCE_BYTES_MAX + 1)
    if len(raw) > EVIDENCE_BYTES_MAX:
        raise DecodeError(f"{path} is longer than any evidence")
    evidence = decode_evidence(raw)
    case = check_evidence(evidence)
    return {"network": evidence.network.hex(), **_describe(raw, case)}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "evidence.list": show_all,
    "evidence.show": show,
    "evidence.export": export,
    "evidence.settle": settle,
}
