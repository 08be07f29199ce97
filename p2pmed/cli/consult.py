"""``p2pmed consult ask | list | show | reply | close | teach | copy``: a specialist far away."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]

HOME: Final = "p2pmed consult {} --home clinic-a"


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("consult", help="ask a specialist, store and forward")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    ask = _verb(
        verbs, "ask", "ask about a patient", ' 3f2a hospital "what is this?" --attach a.jpg', _ask
    )
    ask.add_argument("patient", help="the first digits of the pseudonym")
    ask.add_argument("specialist", help="a device by name, or place:shan/county")
    ask.add_argument("question", help="sealed to who is asked")
    ask.add_argument("--attach", type=Path, action="append", default=[], metavar="FILE")
    ask.add_argument("--record", action="append", default=[], help="a record to be copied into it")
    ask.add_argument("--deadline", metavar="DATE", help="by when an answer is of use")
    listed = _verb(verbs, "list", "consultations known here", "", _list)
    listed.add_argument("--mine", action="store_true", help="only those that are asked of us")
    shown = _verb(verbs, "show", "question and answers", " 77c0 --into folder", _show)
    shown.add_argument("--into", type=Path, metavar="FOLDER", help="write the attachments there")
    reply = _verb(verbs, "reply", "answer", ' 77c0 "not before Monday"', _reply)
    close = _verb(verbs, "close", "the specialist reads it no more", " 77c0", _close)
    teach = _verb(
        verbs, "teach", "the patient's leave to teach with it", " 77c0 --card card.txt", _teach
    )
    teach.add_argument("--card", type=Path, required=True, help="file with the card's text")
    teach.add_argument("--until", metavar="DATE", help="a date in the past takes it back")
    copy = _verb(verbs, "copy", "a copy without identifiers", " 77c0 lesson.json", _copy)
    for parser in (shown, reply, close, teach, copy):
        parser.add_argument("consultation", help="the first digits of its number")
    reply.add_argument("words", help="sealed under the case's key")
    reply.add_argument("--attach", type=Path, action="append", default=[], metavar="FILE")
    copy.add_argument("file", type=Path)
    for parser in (ask, reply, close, teach):
        parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")


def _verb(verbs: Any, name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = command(verbs, name, help=help, example=HOME.format(name) + example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _ask(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "specialist": parsed.specialist,
        "question": parsed.question,
        "attachments": [str(path.absolute()) for path in parsed.attach],
        "records": parsed.record,
        "deadline": parsed.deadline,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "consult.ask", values))


def _list(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "consult.list", {"mine": parsed.mine}), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['consultation'][:16]}  patient {each['patient'][:8]}  from "
        f"{each['from']['name']}  {each['replies']} replies"
        + ("  asked of us" if each["mine"] else "")
        + ("  closed" if each["closed"] else "")
        for each in answer["consultations"]
    ] or ["no consultation is known here"]


def _show(parsed: argparse.Namespace) -> int:
    folder = str(parsed.into.absolute()) if parsed.into else ""
    values = {"consultation": parsed.consultation, "folder": folder}
    return show(parsed, ask_node(parsed, "consult.show", values))


def _reply(parsed: argparse.Namespace) -> int:
    values = {
        "consultation": parsed.consultation,
        "words": parsed.words,
        "attachments": [str(path.absolute()) for path in parsed.attach],
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "consult.reply", values))


def _close(parsed: argparse.Namespace) -> int:
    values = {"consultation": parsed.consultation, "wait_s": parsed.wait}
    return show(parsed, ask_node(parsed, "consult.close", values))


def _teach(parsed: argparse.Namespace) -> int:
    from p2pmed.cli.card import ask_pin

    values = {
        "consultation": parsed.consultation,
        "card": parsed.card.read_text(encoding="utf-8").strip(),
        "card_pin": ask_pin("the card's PIN, empty if it has none: "),
        "until": parsed.until,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "consult.teach", values))


def _copy(parsed: argparse.Namespace) -> int:
    values = {"consultation": parsed.consultation, "file": str(parsed.file.absolute())}
    return show(parsed, ask_node(parsed, "consult.copy", values))
