"""``p2pmed refer send | list | show | accept | close | result | check``: patients sent on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]

HOME: Final = "p2pmed refer {} --home clinic-a"


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("refer", help="send patients to another facility, and back")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_send(verbs)
    listed = _verb(verbs, "list", "referrals known here, urgent ones first", "", _list)
    listed.add_argument("--place", help="only those to this place, such as shan/county")
    shown = _verb(verbs, "show", "the letter, the records that came along, results", " 77c0", _show)
    accept = _verb(verbs, "accept", "take the patient", " 77c0", _accept)
    close = _verb(verbs, "close", "nothing is read by it any more", " 77c0", _close)
    close.add_argument("--reason", default="done", help="a code; names no patient")
    result = _verb(
        verbs, "result", "send a result back to who referred", " 77c0 report.json", _result
    )
    for parser in (shown, accept, close, result):
        parser.add_argument("referral", help="the first digits of its number")
    result.add_argument("file", type=Path, help="one FHIR resource")
    for parser in (accept, close, result):
        parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    check = _verb(
        verbs, "check", "does an examination exist already?", " 3f2a --order 4548-4", _check
    )
    check.add_argument("patient", help="the first digits of the pseudonym")
    check.add_argument("--order", action="append", default=[], help="a LOINC code; may be repeated")
    check.add_argument("--within", type=int, metavar="DAYS", help="instead of the table's windows")


def _add_send(verbs: Any) -> None:
    example = " 3f2a shan/county --reason E11 --record 77c0 --order 4548-4"
    send = _verb(verbs, "send", "refer a patient to another facility", example, _send)
    send.add_argument("patient", help="the first digits of the pseudonym")
    send.add_argument("to", help="the place of the facility, such as shan/county")
    send.add_argument("--reason", required=True, help="a code; it is sealed")
    send.add_argument("--text", default="", help="words to the receiver; sealed")
    send.add_argument("--record", action="append", default=[], help="a record that goes along")
    send.add_argument("--category", action="append", default=[], help="a category, whole")
    send.add_argument("--order", action="append", default=[], help="an examination, by LOINC code")
    send.add_argument("--urgency", choices=("routine", "urgent", "emergency"), default="routine")
    send.add_argument("--until", metavar="DATE", help="when the leave to read ends")
    send.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")


def _verb(verbs: Any, name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = command(verbs, name, help=help, example=HOME.format(name) + example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _send(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "to": parsed.to,
        "reason": parsed.reason,
        "text": parsed.text,
        "records": parsed.record,
        "categories": parsed.category,
        "orders": parsed.order,
        "urgency": parsed.urgency,
        "until": parsed.until,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "refer.send", values), lines=_sent_lines)


def _sent_lines(answer: Mapping[str, Any]) -> list[str]:
    return [f"referred: {answer['referral']}", *_warned(answer)]


def _warned(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['warning']}: {each['code']} was done {each['days']} days ago "
        f"(within {each['within']}), record {each['record'][:16]}"
        for each in answer["warnings"]
    ]


def _list(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "refer.list", {"place": parsed.place}), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['referral'][:16]}  {each['urgency']}  patient {each['patient'][:8]}  "
        f"{each['from']['name']} -> {each['to']}  "
        + ("closed" if each["closed"] else "accepted" if each["accepted"] else "open")
        + f", {each['results']} results"
        for each in answer["referrals"]
    ] or ["no referral is known here"]


def _show(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "refer.show", {"referral": parsed.referral}))


def _accept(parsed: argparse.Namespace) -> int:
    values = {"referral": parsed.referral, "wait_s": parsed.wait}
    return show(parsed, ask_node(parsed, "refer.accept", values))


def _close(parsed: argparse.Namespace) -> int:
    values = {"referral": parsed.referral, "reason": parsed.reason, "wait_s": parsed.wait}
    return show(parsed, ask_node(parsed, "refer.close", values))


def _result(parsed: argparse.Namespace) -> int:
    text = parsed.file.read_text(encoding="utf-8")
    values = {"referral": parsed.referral, "fhir": text, "wait_s": parsed.wait}
    return show(parsed, ask_node(parsed, "refer.result", values))


def _check(parsed: argparse.Namespace) -> int:
    values = {"patient": parsed.patient, "orders": parsed.order, "within": parsed.within}
    answer = ask_node(parsed, "refer.check", values)
    return show(parsed, answer, lines=lambda told: _warned(told) or ["none exists: order it"])
