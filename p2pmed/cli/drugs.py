"""``p2pmed drugs ...`` and ``p2pmed trace``: packs from the maker to the patient."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from p2pmed.cli.columns import columns, verdict_lines, when, who
from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]

GTIN = "09506000134352"


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("drugs", help="packs: commission, ship, receive, dispense, recall")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_commission(verbs)
    ship = _verb(verbs, "ship", "packs leave for another member", f'"Mu clinic" {GTIN} A0001')
    ship.add_argument("to", help="a device's name, or first digits of its key")
    ship.add_argument("gtin")
    ship.add_argument("serials", nargs="+", metavar="serial")
    receive = _verb(verbs, "receive", "a shipment has come", "77c0")
    receive.add_argument("shipment", help="first digits of its number")
    dispense = _verb(verbs, "dispense", "hand a pack to a patient", f"{GTIN} A0001 3f2a")
    dispense.add_argument("gtin")
    dispense.add_argument("serial")
    dispense.add_argument("patient", help="first digits of the pseudonym")
    dispense.add_argument("--prescription", help="transaction in hex")
    recall = _verb(verbs, "recall", "stop a lot", f"{GTIN} L1 contamination")
    recall.add_argument("gtin")
    recall.add_argument("lot")
    recall.add_argument("reason", help="a code, without spaces")
    verify = _verb(verbs, "verify", "is this pack genuine?", f"{GTIN} A0001 L1 2027-03-31")
    for name in ("gtin", "serial", "lot", "expiry"):
        verify.add_argument(name)
    verify.set_defaults(run=_verify)
    stock = _verb(verbs, "stock", "what is on the shelf, and what is coming", "")
    stock.add_argument("--holder", help="another device's")
    stock.set_defaults(run=_stock)
    example = f"p2pmed trace --home clinic-a {GTIN} A0001"
    trace = command(commands, "trace", help="where a pack came from and went", example=example)
    add_home(trace)
    trace.add_argument("gtin")
    trace.add_argument("serial", nargs="?")
    trace.add_argument("--lot", help="instead: who has or had the packs of a lot")
    trace.add_argument("--backwards", action="store_true", help="the newest step first")
    trace.set_defaults(run=_trace)


def _add_commission(verbs: Any) -> None:
    example = f"{GTIN} L1 2027-03-31 --count 50 --prefix A"
    parser = _verb(verbs, "commission", "take packs into the ledger", example)
    parser.add_argument("gtin")
    parser.add_argument("lot")
    parser.add_argument("expiry", help="the last day of use, such as 2027-03-31")
    parser.add_argument("serials", nargs="*", metavar="serial")
    parser.add_argument("--count", type=int, default=0, help="number so many packs")
    parser.add_argument("--prefix", default="", help="before each number")
    parser.add_argument("--maker", help="the manufacturer's device (default: this one)")


def _verb(verbs: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    parser = command(
        verbs, name, help=text, example=f"p2pmed drugs {name} --home clinic-a {example}".rstrip()
    )
    add_home(parser)
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    parser.set_defaults(run=_write, operation=f"drugs.{name}")
    return parser


_ARGUMENTS = (
    "gtin",
    "lot",
    "expiry",
    "serials",
    "serial",
    "count",
    "prefix",
    "maker",
    "to",
    "shipment",
    "patient",
    "prescription",
    "reason",
)


def _write(parsed: argparse.Namespace) -> int:
    """Any verb that writes one transaction; 1 if it was refused."""
    values = {name: getattr(parsed, name) for name in _ARGUMENTS if hasattr(parsed, name)}
    answer = ask_node(parsed, parsed.operation, {**values, "wait_s": parsed.wait})
    show(parsed, answer, lines=_written_lines)
    return 0 if answer["verdict"] == "applied" else 1


def _written_lines(answer: Mapping[str, Any]) -> list[str]:
    head = [f"{answer['packs']} packs"] if "packs" in answer else []
    return [*head, *verdict_lines(answer), *(_reach_lines(answer) if "reach" in answer else [])]


def _verify(parsed: argparse.Namespace) -> int:
    values = {name: getattr(parsed, name) for name in ("gtin", "serial", "lot", "expiry")}
    answer = ask_node(parsed, "drugs.verify", values)
    show(parsed, answer, lines=_verify_lines)
    return 0 if answer["verified"] else 1


def _verify_lines(answer: Mapping[str, Any]) -> list[str]:
    if answer["status"] == "unknown_here":
        return [f"unknown here ({answer['reason']}): it may be on its way, or false"]
    word = "genuine" if answer["verified"] else f"NOT to be used: {answer['reason']}"
    return [f"{word}; {answer['status']}; last at {who(answer['holder'])}"]


def _stock(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "drugs.stock", {"holder": parsed.holder})
    return show(parsed, answer, lines=_stock_lines)


def _stock_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["gtin"],
            row["lot"],
            f"{row['packs']} packs",
            row["expiry"],
            "RECALLED" if row["recalled"] else "",
        )
        for row in answer["lots"]
    ]
    coming = [
        f"coming: {row['packs']} packs from {who(row['from'])}, shipment {row['shipment'][:12]}"
        for row in answer["coming"]
    ]
    return [*columns(rows, empty="nothing on the shelf"), *coming]


def _trace(parsed: argparse.Namespace) -> int:
    values = {
        "gtin": parsed.gtin,
        "serial": parsed.serial,
        "lot": parsed.lot,
        "backwards": parsed.backwards,
    }
    return show(parsed, ask_node(parsed, "drugs.trace", values), lines=_trace_lines)


def _trace_lines(answer: Mapping[str, Any]) -> list[str]:
    recalled = ["RECALLED"] if answer["recalled"] else []
    if "reach" in answer:
        return [*recalled, *_reach_lines(answer)]
    rows = [
        (when(row["wall"]), row["what"], f"by {who(row['by'])}", _towards(row), row["level"])
        for row in answer["steps"]
    ]
    return [*recalled, *columns(rows, empty="this pack is unknown here")]


def _towards(row: Mapping[str, Any]) -> str:
    if "to" in row:
        return f"to {who(row['to'])}"
    if "maker" in row:
        return f"made by {who(row['maker'])}"
    return f"to patient {row['patient'][:12]}" if "patient" in row else ""


def _reach_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            who(row["holder"]),
            f"{len(row['held'])} held",
            f"{len(row['in_transit'])} on the way",
            f"{len(row['dispensed'])} dispensed",
        )
        for row in answer["reach"]
    ]
    return columns(rows, empty="no pack of this lot is known here")
