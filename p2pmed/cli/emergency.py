"""``p2pmed emergency key | open | close | review | list``, and ``p2pmed audit reads``.

An emergency opens in the running node, for as long as its session lasts: without a running node
there is nothing that would keep it open.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.card import ask_pin
from p2pmed.cli.columns import columns, verdict_lines
from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add", "read_lines"]


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("emergency", help="open a record by two people's word")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    people = " --person nurse.keys --person doctor.keys"
    key = _verb(verbs, "emergency key", "make this place's emergency key", people, _key)
    _add_people(key, "who holds a share; at least two")
    opened = _verb(
        verbs, "emergency open", "break the glass", f" 3f2a --reason unconscious{people}", _open
    )
    opened.add_argument("patient", help="first digits of the pseudonym")
    opened.add_argument(
        "--reason",
        required=True,
        choices=("unconscious", "life-threat", "cannot-consent", "danger-to-others"),
    )
    opened.add_argument("--category", action="append", default=[], help="instead of everything")
    opened.add_argument("--minutes", type=int, default=60, help="at most 240 (default 60)")
    _add_people(opened, "the two who open it")
    close = _verb(verbs, "emergency close", "end it before its time", " 77c0", _close)
    close.add_argument("opening", help="first digits of the emergency")
    example = " 77c0 --finding justified --person chief.keys"
    review = _verb(verbs, "emergency review", "by somebody who was not involved", example, _review)
    review.add_argument("opening", help="first digits of the emergency")
    review.add_argument("--finding", required=True, choices=("justified", "unjustified", "unclear"))
    _add_people(review, "the reviewer")
    listed = _verb(verbs, "emergency list", "emergencies, the newest first", "", _list)
    listed.add_argument("patient", nargs="?", default="", help="of one patient")
    listed.add_argument("--overdue", action="store_true", help="not reviewed within 72 hours")
    audit = commands.add_parser("audit", help="who has read what")
    asked = audit.add_subparsers(title="verbs", metavar="VERB", required=True)
    reads = _verb(asked, "audit reads", "what a device has read", " 'Ward 1'", _audit)
    reads.add_argument("device", help="name or first digits of the device")


def _verb(verbs: Any, name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
    example = f"p2pmed {name} --home clinic-a{example}"
    parser = command(verbs, name.split()[1], help=text, example=example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _add_people(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--person", type=Path, action="append", default=[], metavar="FILE", help=text
    )


def _people(parsed: argparse.Namespace) -> dict[str, Any]:
    files = [str(path.resolve()) for path in parsed.person]
    return {
        "person_files": files,
        "person_passphrases": [ask_pin(f"passphrase of {Path(file).name}: ") for file in files],
    }


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    show(parsed, answer, lines=verdict_lines)
    return 0 if answer["verdict"] == "applied" else 1


def _key(parsed: argparse.Namespace) -> int:
    return _finish(parsed, ask_node(parsed, "emergency.key", _people(parsed)))


def _open(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "reason": parsed.reason,
        "categories": parsed.category,
        "minutes": parsed.minutes,
        **_people(parsed),
    }
    answer = ask_node(parsed, "emergency.open", values)
    return show(parsed, answer, lines=lambda answer: [f"open until {answer['until']}"])


def _close(parsed: argparse.Namespace) -> int:
    return _finish(parsed, ask_node(parsed, "emergency.close", {"opening": parsed.opening}))


def _review(parsed: argparse.Namespace) -> int:
    values = {"opening": parsed.opening, "finding": parsed.finding, **_people(parsed)}
    return _finish(parsed, ask_node(parsed, "emergency.review", values))


def _list(parsed: argparse.Namespace) -> int:
    values = {"patient": parsed.patient, "overdue": parsed.overdue}
    return show(parsed, ask_node(parsed, "emergency.list", values), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            each["opening"][:12],
            each["patient"][:12],
            each["opened"],
            each["reason"],
            each["device"],
            "open" if each["open"] else each["finding"] or "not reviewed",
        )
        for each in answer["emergencies"]
    ]
    return columns(rows, empty="no emergency")


def _audit(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "audit.reads", {"device": parsed.device})
    return show(parsed, answer, lines=read_lines)


def read_lines(answer: Mapping[str, Any]) -> list[str]:
    """Readings as a table."""
    rows = [
        (
            each["time"],
            each["device"],
            each["person"][:12] or "-",
            each["purpose"],
            str(each["records"]),
            ", ".join(each["categories"]) if each["categories"] else "sealed to the patient",
        )
        for each in answer["reads"]
    ]
    return columns(rows, empty="nobody")
