"""``p2pmed proof``: one record's proof in a file, for who has nothing but public keys."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add", "proof_lines"]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "proof",
        help="write the proof of one transaction, for `p2pmed verify --proof`",
        example="p2pmed proof --home clinic-a 3f2a... -o visit.proof\n"
        "  p2pmed proof --home clinic-a 3f2a... -o visit.proof --open",
    )
    add_home(parser)
    parser.add_argument("id", help="the transaction's id in hex")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--open",
        action="store_true",
        help="put the content in clear into the file; only who holds the patient's keys can",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.set_defaults(run=_proof)


def _proof(parsed: argparse.Namespace) -> int:
    values = {
        "id": parsed.id.strip().lower(),
        "file": str(parsed.output.absolute()),
        "open": parsed.open,
        "force": parsed.force,
    }
    return show(parsed, ask_node(parsed, "proofs.make", values), lines=_made_lines)


def _made_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"wrote {answer['file']} ({answer['bytes']} bytes)",
        f"tell who checks it the network's id by another way: {answer['network']}",
    ]


def proof_lines(answer: Mapping[str, Any]) -> list[str]:
    """What a proof proves, in words."""
    record, county = answer["record"], answer["county"]
    known = "as you named it" if answer["network_compared"] else "compare this id yourself"
    lines = [
        "the proof holds.",
        f"network     {answer['network_name']}, id {answer['network']} ({known})",
        *_standing_lines(record),
    ]
    if county is not None:
        lines += [
            "",
            f"a county's ledger vouches for it up to height {answer['county_executed_height']}:",
            *_standing_lines(county),
        ]
        if answer["county_refused"]:
            lines.append(f"but the county refused this transaction: {answer['county_refused']}")
    if answer["commitment"]:
        lines += ["", f"commitment  {answer['commitment']}"]
    if answer["content"] is not None:
        lines += ["the content below is what the transaction commits to:", answer["content"]]
    return [*lines, "", "NOT proven:", *(f"  {each}" for each in answer["not_proven"])]


def _standing_lines(row: Mapping[str, Any]) -> list[str]:
    roles = ", ".join(row["author_roles"])
    then = "valid" if row["credential_valid_then"] else "NOT VALID"
    seats = ", ".join(f"{each['seat']} ({each['device'][:12]})" for each in row["certified_by"])
    contradicts = f", contradicts {row['contradicts'][:16]}" if row["contradicts"] else ""
    return [
        f"transaction {row['id']}",
        f"  kind      {row['kind']}" + (f", patient {row['patient']}" if row["patient"] else ""),
        f"  signed by {row['author_name']} ({roles}; {row['author_place'] or 'everywhere'}), "
        f"device {row['author_short']}",
        f"  credential {then} when it was ordered, until {row['credential_until']}",
        f"  written   {row['written_at']} by its author's clock ({row['writer_clock']})",
        f"  ordered   {row['ordered_at']} at height {row['height']} of ledger "
        f"{row['ledger_name']} ({row['ledger'][:16]})",
        f"  certified by seats {seats}: {len(row['certified_by'])} of {row['seats']}, "
        f"{row['quorum']} needed ({row['engine']})",
        f"  epoch     {row['epoch']}: the members changed {row['epoch']} times before it",
        f"  verdict   {row['verdict']}{contradicts}"
        + (f": {row['meaning']}" if row["meaning"] else ""),
    ]
