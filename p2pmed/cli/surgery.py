"""``p2pmed surgery plan | checklist | event | note | close | list | show``: an operation."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add"]

HOME: Final = "p2pmed surgery {} --home hospital"


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("surgery", help="record an operation while it happens")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    plan = _verb(verbs, "plan", "plan an operation", " 3f2a procedure.json", _plan)
    plan.add_argument("patient", help="the first digits of the pseudonym")
    plan.add_argument("file", type=Path, help="what is planned: one FHIR resource")
    check = _verb(
        verbs,
        "checklist",
        "one phase of the WHO checklist, signed by who did it",
        " 77c0 sign-in --sign anaesthetist=a.keys --sign nurse=n.keys",
        _checklist,
    )
    event = _verb(verbs, "event", "a step was done", " 77c0 incision", _event)
    note = _verb(verbs, "note", "words, sealed", ' 77c0 "appendix inflamed"', _note)
    close = _verb(verbs, "close", "the record is complete", " 77c0 --sign surgeon=s.keys", _close)
    shown = _verb(verbs, "show", "every entry, and what is odd", " 77c0", _show)
    _verb(verbs, "list", "operations known here", "", _list)
    for parser in (check, event, note, close, shown):
        parser.add_argument("surgery", help="the first digits of its number")
    check.add_argument("phase", choices=("sign-in", "time-out", "sign-out"))
    check.add_argument("--no", action="append", default=[], metavar="ITEM", help="answered no")
    check.add_argument("--skip", action="append", default=[], metavar="ITEM", help="not applicable")
    event.add_argument("step", help="such as incision, closure, count")
    note.add_argument("text")
    note.add_argument("--media", type=Path, action="append", default=[], help="committed to")
    close.add_argument("--outcome", default="done", help="a code; names no patient")
    for parser in (check, close):
        parser.add_argument(
            "--sign", action="append", default=[], metavar="ROLE=FILE", help="a person's keys"
        )
    for parser in (plan, check, event, note, close):
        parser.add_argument("--at", metavar="TIME", help="when it happened; else now")
        parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")


def _verb(verbs: Any, name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = command(verbs, name, help=help, example=HOME.format(name) + example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _timed(parsed: argparse.Namespace, **values: Any) -> dict[str, Any]:
    return {**values, "at": parsed.at, "wait_s": parsed.wait}


def _signers(parsed: argparse.Namespace) -> dict[str, list[str]]:
    from p2pmed.cli.card import ask_pin

    found: dict[str, list[str]] = {
        "person_files": [],
        "person_roles": [],
        "person_passphrases": [],
    }
    for text in parsed.sign:
        role, equals, file = text.partition("=")
        if not equals:
            raise ConfigError("--sign: ROLE=FILE is needed", hint="such as nurse=nurse.keys")
        found["person_files"].append(str(Path(file).absolute()))
        found["person_roles"].append(role)
        found["person_passphrases"].append(ask_pin(f"passphrase of the {role[:32]}: "))
    return found


def _plan(parsed: argparse.Namespace) -> int:
    text = parsed.file.read_text(encoding="utf-8")
    values = _timed(parsed, patient=parsed.patient, fhir=text)
    return show(parsed, ask_node(parsed, "surgery.plan", values))


def _checklist(parsed: argparse.Namespace) -> int:
    values = _timed(
        parsed,
        surgery=parsed.surgery,
        phase=parsed.phase,
        no=parsed.no,
        skip=parsed.skip,
        **_signers(parsed),
    )
    return show(parsed, ask_node(parsed, "surgery.checklist", values))


def _event(parsed: argparse.Namespace) -> int:
    values = _timed(parsed, surgery=parsed.surgery, step=parsed.step)
    return show(parsed, ask_node(parsed, "surgery.event", values))


def _note(parsed: argparse.Namespace) -> int:
    media = [str(path.absolute()) for path in parsed.media]
    values = _timed(parsed, surgery=parsed.surgery, text=parsed.text, media=media)
    return show(parsed, ask_node(parsed, "surgery.note", values))


def _close(parsed: argparse.Namespace) -> int:
    values = _timed(parsed, surgery=parsed.surgery, outcome=parsed.outcome, **_signers(parsed))
    return show(parsed, ask_node(parsed, "surgery.close", values))


def _list(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "surgery.list"), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['surgery'][:16]}  patient {each['patient'][:8]}  {each['entries']} entries  "
        f"{'closed' if each['closed'] else 'open'}  {each['odd']} odd"
        for each in answer["operations"]
    ] or ["no operation is known here"]


def _show(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "surgery.show", {"surgery": parsed.surgery})
    return show(parsed, answer, lines=_show_lines)


def _show_lines(answer: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{each['number']:>4}  {each['occurred']}  {each['kind']} {each['step']}"
        + ("" if each["applied"] else "  REFUSED")
        for each in answer["entries"]
    ]
    lines += [f"missing: {each}" for each in answer["missing"]]
    lines += [f"late: {each['id'][:16]} {each['why']}" for each in answer["late"]]
    return lines + [f"answered no: {each}" for each in answer["answered_no"]]
