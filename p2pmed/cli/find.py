"""``p2pmed find ...`` and ``p2pmed link ...``: people and records by what they say; duplicates."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from p2pmed.cli.columns import columns, verdict_lines
from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("find", help="search sealed records")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    people = _verb(verbs, "find patient", "people, in any script", "--name 王小明", _patient)
    people.add_argument("--name", default="", help="in any script and order")
    people.add_argument("--birth", default="", metavar="YYYY-MM-DD")
    people.add_argument("--identifier", default="", help="a card's or identity number")
    people.add_argument("--phone", default="")
    people.add_argument("--limit", type=int, default=20, help="so many of the surest")
    records = _verb(verbs, "find record", "records by a code", "--code E11.9", _record)
    records.add_argument("--code", default="", help="of a diagnosis or procedure")
    records.add_argument("--drug", default="", help="of a drug")
    _verb(verbs, "find index", "index what is not indexed yet", "", _index)
    _add_keys(verbs)
    _add_links(commands)


def _add_keys(verbs: Any) -> None:
    for name, text, example in (
        ("begin", "make the index keys of a place, for its devices", ""),
        ("admit", "let another device search there", "'Mu clinic'"),
        ("expel", "new index keys, for all but one device", "'Mu clinic'"),
    ):
        parser = _verb(verbs, f"find {name}", text, example, _keys)
        if name != "begin":
            parser.add_argument("device", help="its name, or first digits of its key")
        parser.add_argument("--place", help="such as county/village (default: this device's)")
        parser.add_argument("--linkage", action="store_true", help="for finding duplicates")
        parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
        parser.set_defaults(operation=f"find.{name}")


def _add_links(commands: Any) -> None:
    group = commands.add_parser("link", help="patients who are registered twice")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    found = _verb(verbs, "link candidates", "pairs that may be one person", "", _candidates)
    found.add_argument("--score", type=int, help="the least, of 100")
    join = _verb(verbs, "link join", "two are one person", "3f2a 77c0 --reason same-card", _decide)
    join.add_argument("one", help="first digits of a pseudonym")
    join.add_argument("other", help="first digits of the other")
    join.add_argument("--reason", required=True, help="a code, such as same-card")
    join.add_argument("--score", type=int, default=0, help="what the match said")
    undo = _verb(verbs, "link undo", "take a link back", "3f2a 90ab --reason mistake", _decide)
    undo.add_argument("patient", help="first digits of the pseudonym")
    undo.add_argument("link", help="first digits of the link")
    undo.add_argument("--reason", required=True, help="a code, such as mistake")
    for parser, operation in ((join, "link.join"), (undo, "link.undo")):
        parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
        parser.set_defaults(operation=operation)
    shown = _verb(verbs, "link show", "links of a patient", "3f2a", _show)
    shown.add_argument("patient", help="first digits of the pseudonym")


def _verb(verbs: Any, name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
    example = f"p2pmed {name} --home clinic-a {example}".rstrip()
    parser = command(verbs, name.rpartition(" ")[2], help=text, example=example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _patient(parsed: argparse.Namespace) -> int:
    values = {
        name: getattr(parsed, name) for name in ("name", "birth", "identifier", "phone", "limit")
    }
    return show(parsed, ask_node(parsed, "find.patient", values), lines=_patient_lines)


def _patient_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["patient"],
            row["score"],
            row["name"],
            row["birth_date"],
            row["gender"],
            ", ".join(row["why"]),
        )
        for row in answer["patients"]
    ]
    more = ["there are more: add a birth date or a number"] if answer["more"] else []
    closed = [f"{answer['closed']} who may fit are closed to this device"] * bool(answer["closed"])
    note = [answer["note"]] if answer["note"] else []
    return [*columns(rows, empty="nobody who fits may be opened here"), *more, *closed, *note]


def _record(parsed: argparse.Namespace) -> int:
    values = {"code": parsed.code, "drug": parsed.drug}
    return show(parsed, ask_node(parsed, "find.record", values), lines=_record_lines)


def _record_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [(row["patient"], row["record"][:12]) for row in answer["records"]]
    return columns(rows, empty="no record with that code may be opened here")


def _index(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "find.index"))


def _keys(parsed: argparse.Namespace) -> int:
    values = {"place": parsed.place, "linkage": parsed.linkage, "wait_s": parsed.wait}
    if hasattr(parsed, "device"):
        values["device"] = parsed.device
    return _finish(parsed, ask_node(parsed, parsed.operation, values))


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    """Show what became of a transaction; 1 if it was refused."""
    show(parsed, answer, lines=verdict_lines)
    return 0 if answer["verdict"] == "applied" else 1


def _candidates(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "link.candidates", {"score": parsed.score})
    return show(parsed, answer, lines=_candidate_lines)


def _candidate_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (row["one"], row["other"], row["score"], ", ".join(row["why"]))
        for row in answer["candidates"]
    ]
    return columns(rows, empty="nobody seems to be registered twice")


def _decide(parsed: argparse.Namespace) -> int:
    names = ("one", "other", "score", "patient", "link", "reason")
    values = {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}
    return _finish(parsed, ask_node(parsed, parsed.operation, {**values, "wait_s": parsed.wait}))


def _show(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "link.show", {"patient": parsed.patient}), lines=_lines)


def _lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["link"][:12],
            row["other"],
            row["reason"],
            row["score"],
            row["by"] or "?",
            "in force" if row["in_force"] else "taken back",
        )
        for row in answer["links"]
    ]
    return columns(rows, empty="no links")
