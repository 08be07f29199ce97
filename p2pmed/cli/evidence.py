"""``p2pmed evidence list | show | verify | export | settle``: who broke which rule, proven."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_home, add_json, ask_node, command, show

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("evidence", help="proofs that somebody broke the protocol")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    told = command(
        verbs,
        "list",
        help="every case: who, what, where, and what was decided",
        example="p2pmed evidence list --home clinic-a",
    )
    add_home(told)
    told.set_defaults(run=_list)
    one = command(
        verbs,
        "show",
        help="one case and its proof",
        example="p2pmed evidence show --home clinic-a 3f2a9c01",
    )
    add_home(one)
    one.add_argument("case", help="the first digits of the case's number")
    one.set_defaults(run=_show)
    check = command(
        verbs,
        "verify",
        help="what a file of evidence proves; needs no home and no key",
        example="p2pmed evidence verify fork.evidence",
    )
    check.add_argument("file", type=Path)
    add_json(check)
    check.set_defaults(run=_verify)
    out = command(
        verbs,
        "export",
        help="write the proof of a case to a new file",
        example="p2pmed evidence export --home clinic-a 3f2a9c01 fork.evidence",
    )
    add_home(out)
    out.add_argument("case", help="the first digits of the case's number")
    out.add_argument("file", type=Path)
    out.add_argument("--force", action="store_true", help="replace the file if it is there")
    out.set_defaults(run=_export)
    _add_settle(verbs)


def _add_settle(verbs: Any) -> None:
    settle = command(
        verbs,
        "settle",
        help="decide about a case: a supervisor's word",
        example="p2pmed evidence settle --home county 3f2a9c01 restored --reason power_cut",
    )
    add_home(settle)
    settle.add_argument("case", help="the first digits of the case's number")
    settle.add_argument("judgement", choices=("restored", "confirmed"))
    settle.add_argument("--device", default="", help="whose, if the case names several")
    settle.add_argument("--reason", default="decided", help="a code; names no patient")
    settle.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    settle.set_defaults(run=_settle)


def _list(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "evidence.list"), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    lines = [
        f"case {row['case'][:16]}  {row['kind']}  {row['name'] or row['device'][:16]}  "
        f"{row['judgement']}" + ("; takes no seat" if row["suspended"] else "")
        for row in answer["cases"]
    ]
    known = {row["case"] for row in answer["cases"]}
    lines += [
        f"case {proof['case'][:16]}  {proof['kind']}  kept here, ordered by no ledger of ours yet"
        for proof in answer["proofs"]
        if proof["case"] not in known
    ]
    return lines or ["no evidence against anybody"]


def _show(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "evidence.show", {"case": parsed.case}))


def _verify(parsed: argparse.Namespace) -> int:
    from p2pmed.node.operations.evidence import verify_file

    answer = {"file": str(parsed.file), "ok": True, **verify_file(parsed.file)}
    return show(parsed, answer, lines=_proof_lines)


def _proof_lines(answer: Mapping[str, Any]) -> list[str]:
    where = f" of ledger {answer['ledger']}, epoch {answer['epoch']}" if answer["ledger"] else ""
    guilty = answer["guilty"] or ["nobody by name: the certificates between are missing"]
    return [
        f"the evidence holds: {answer['kind']}{where}, network {answer['network']}",
        *(
            f"  signed by device {device}" if answer["guilty"] else f"  {device}"
            for device in guilty
        ),
        "it proves who signed, not why: a power cut or a restored backup can look like malice",
    ]


def _export(parsed: argparse.Namespace) -> int:
    values = {"case": parsed.case, "file": str(parsed.file.absolute()), "force": parsed.force}
    answer = ask_node(parsed, "evidence.export", values)
    return show(
        parsed, answer, lines=lambda told: [f"wrote {told['file']} ({told['bytes']} bytes)"]
    )


def _settle(parsed: argparse.Namespace) -> int:
    values = {
        "case": parsed.case,
        "judgement": parsed.judgement,
        "device": parsed.device,
        "reason": parsed.reason,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "evidence.settle", values))
