"""Cases: opened for reviewers, exported as a sealed file, verified without a home.

``file`` is an absolute path: a running node has a working folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.identity.keys import short_id
from p2pmed.identity.persons import PersonKeys
from p2pmed.medical.care.case_check import CheckedCase, Line, check_case
from p2pmed.medical.care.case_file import CASE_BYTES_MAX, open_sealed_case
from p2pmed.medical.care.cases import CASES
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import find_one, find_patient, outcome
from p2pmed.node.operations.patients import moment_text as when
from p2pmed.node.operations.proofs import CLOCKS

__all__ = ["OPERATIONS", "check_file"]

RECORDS_MAX: Final = 48
REVIEWERS_MAX: Final = 16


async def open_case(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Open a case about ``surgery``, or about ``records`` of ``patient``, for ``reviewers``."""
    await node.catch_up()
    text, records = arguments.text("surgery", ""), []
    hint = "see `p2pmed surgery list`"
    surgery = find_one(node.surgery.all(), text, "operation", hint) if text else b""
    given = arguments.texts("records", count_max=RECORDS_MAX)
    if given:
        patient = find_patient(node, arguments.text("patient"))
        here = {entry.id for entry in node.patients.entries(patient)}
        records = [
            find_one(here, each, "record", "see `p2pmed patient timeline`") for each in given
        ]
    receipt = await node.cases.open(
        reviewers=arguments.keys("reviewers", count_max=REVIEWERS_MAX),
        reason=arguments.text("reason", limit=32),
        surgery=surgery,
        records=records,
    )
    await wait_final(receipt, arguments)
    return {"case": receipt.id.hex(), **outcome(receipt)}


async def export(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write the case's file to ``file``; ``open``: with what this device can open."""
    await node.catch_up()
    path = Path(arguments.text("file"))
    if not path.is_absolute():
        raise ConfigError("file: an absolute path is needed")
    known = [name for name, _ in CASES.scan(node.state())]
    case = find_one(known, arguments.text("case"), "case", "give the number that `case open` told")
    raw = await node.cases.export(case, reveal=arguments.flag("open"))
    await asyncio.to_thread(_write, path, raw, arguments.flag("force"))
    return {"file": str(path), "bytes": len(raw), "network": node.network.hex()}


def _write(path: Path, raw: bytes, force: bool = False) -> None:
    with NewFile(path, force=force) as file:
        file.write(raw)
        file.keep()


def check_file(
    path: Path,
    *,
    reviewer: PersonKeys | None = None,
    network: bytes | None = None,
    save: Path | None = None,
) -> dict[str, Any]:
    """What the case in ``path`` proves, as plain values; no home is needed.

    A sealed file needs the ``reviewer``'s keys; ``save`` keeps what was opened, for a court.
    Blocking. Raises ``DecodeError``, ``CredentialError`` or ``Denied``.
    """
    with path.open("rb") as file:
        raw = file.read(CASE_BYTES_MAX + 1)
    if len(raw) > CASE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than any case")
    if reviewer is not None:
        raw = open_sealed_case(raw, reviewer.box_secret)
    checked = check_case(raw, network=network)
    if save is not None:
        _write(save, raw)
    return {"bytes": len(raw), **_described(checked)}


def _described(checked: CheckedCase) -> dict[str, Any]:
    told = checked.told
    return {
        "network": checked.network.hex(),
        "network_name": checked.network_name,
        "network_compared": checked.pinned,
        "case": checked.case.entry.id.hex(),
        "reason": checked.reason,
        "surgery": checked.surgery.hex() or None,
        "entries": [_line(line) for line in checked.lines],
        "skipped": checked.skipped,
        "missing": list(told.missing) if told else [],
        "late": [{"id": name.hex(), "why": why} for name, why in told.late] if told else [],
        "answered_no": list(told.unmet) if told else [],
        "not_proven": list(checked.limits),
    }


def _line(line: Line) -> dict[str, Any]:
    envelope, body = line.entry.envelope, line.body
    phase = getattr(body, "phase", None)
    occurred = getattr(body, "occurred", None)
    return {
        "id": line.entry.id.hex(),
        "kind": line.entry.kind,
        "number": getattr(body, "number", None),
        "step": getattr(body, "step", "") or (phase.name.lower() if phase is not None else ""),
        "occurred": when(occurred) if occurred is not None else None,
        "written_at": when(envelope.wall),
        "writer_clock": CLOCKS[envelope.clock],
        "hybrid_clock": when(envelope.hlc >> 16),
        "author_name": line.author.name,
        "author_short": short_id(line.entry.author),
        "author_place": line.author.place,
        "ledger": line.ledger_name or None,
        "height": line.height or None,
        "ordered_at": when(line.time_ms) if line.ledger else None,
        "verdict": line.verdict or None,
        "credential_valid_then": line.valid_then,
        "people": [
            {
                "person": signer.person.hex(),
                "role": signer.role,
                "signed": signer.proven,
                "unfit": signer.unfit,
            }
            for signer in line.signers
        ],
    }


OPERATIONS: Final[Mapping[str, Operation]] = {"case.open": open_case, "case.export": export}
