"""``p2pmed patient register | list | timeline | add | grant | revoke | readers``, and consent."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.card import add_card, ask_pin, card_values, check_output, write_code
from p2pmed.cli.columns import columns, verdict_lines, who
from p2pmed.cli.consent import add_consent
from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.cli.summary import add_summary
from p2pmed.errors import ConfigError

__all__ = ["add"]

FILE_BYTES_MAX: Final = 512 * 1024
"""One resource on the command line; longer ones are imported."""


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("patient", help="register, read, share")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_register(verbs)
    listed = _verb(verbs, "list", "patients known here", "", _list)
    listed.set_defaults(run=_list)
    timeline = _verb(verbs, "timeline", "a patient's records by date", " 3f2a", _timeline)
    timeline.add_argument("patient", help="first digits of the pseudonym")
    timeline.add_argument("--as-of", metavar="DATE", help="as it was recorded up to then")
    timeline.add_argument("--type", help="only this FHIR type, such as Observation")
    timeline.add_argument("--limit", type=int, help="only so many of the newest")
    added = _verb(verbs, "add", "add one FHIR resource", " 3f2a visit.json", _add)
    added.add_argument("patient", help="first digits of the pseudonym")
    added.add_argument("file", type=Path, help="a FHIR resource as JSON")
    _add_wait(added)
    _add_sharing(verbs)


def _verb(verbs: Any, name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
    example = f"p2pmed patient {name} --home clinic-a{example}"
    parser = command(verbs, name, help=text, example=example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")


def _add_register(verbs: Any) -> None:
    example = " --family Wang --given Mei --birth-date 1985-03-12 --gender female"
    parser = _verb(verbs, "register", "register a patient", example, _register)
    parser.add_argument("file", nargs="?", type=Path, help="a FHIR Patient as JSON, or:")
    parser.add_argument("--family", default="")
    parser.add_argument("--given", action="append", default=[])
    parser.add_argument("--birth-date", default="", metavar="YYYY-MM-DD")
    parser.add_argument("--gender", default="unknown", help="male, female, other or unknown")
    parser.add_argument("--catchment", default="", help="whose patient, such as county/village")
    parser.add_argument("--reader", action="append", default=[], help="a device that may read")
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="make a card: FILE.svg, .png, .txt, or -"
    )
    parser.add_argument(
        "--family-card", type=Path, metavar="FILE", help="where the family's card is printed"
    )
    parser.add_argument("--pin", action="store_true", help="ask for a PIN of the card")
    _add_wait(parser)


def _add_sharing(verbs: Any) -> None:
    example = ' 3f2a "County hospital" --category laboratory'
    grant = _verb(verbs, "grant", "let another device or facility read", example, _grant)
    grant.add_argument("patient", help="first digits of the pseudonym")
    grant.add_argument(
        "reader", nargs="?", default="", help="a device, or place:PLACE; none with --request"
    )
    grant.add_argument("--category", action="append", default=[], help="instead of everything")
    grant.add_argument("--purpose", default="TREAT", help="why, as a code (default TREAT)")
    grant.add_argument("--until", metavar="DATE", help="the last day")
    grant.add_argument("--request", default="", help="the request that it answers")
    add_card(grant)
    _add_wait(grant)
    revoke = _verb(verbs, "revoke", "end a grant, with new keys", " 3f2a 77c0", _revoke)
    revoke.add_argument("patient", help="first digits of the pseudonym")
    revoke.add_argument("grant", help="first digits of the grant")
    add_card(revoke)
    _add_wait(revoke)
    readers = _verb(verbs, "readers", "who may read, and who asks to", " 3f2a", _readers)
    readers.add_argument("patient", help="first digits of the pseudonym")
    readers.add_argument("--category", default="", help="only who can read this one")
    add_card(readers)
    add_consent(verbs, _verb)
    add_summary(verbs, _verb)


def _resource(path: Path) -> str:
    """One resource from a file, as text."""
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {FILE_BYTES_MAX} bytes", hint="use import fhir")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not JSON in UTF-8") from None


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any], *head: str) -> int:
    """Show what became of a transaction; 1 if it was refused."""
    show(parsed, answer, lines=lambda answer: [*head, *verdict_lines(answer)])
    return 0 if answer["verdict"] == "applied" else 1


def _register(parsed: argparse.Namespace) -> int:
    values: dict[str, Any] = {
        "catchment": parsed.catchment,
        "readers": parsed.reader,
        "wait_s": parsed.wait,
    }
    if parsed.file is not None:
        values["fhir"] = _resource(parsed.file)
    else:
        values |= {
            "family": parsed.family,
            "given": parsed.given,
            "birth_date": parsed.birth_date,
            "gender": parsed.gender,
        }
    if parsed.card is None:
        answer = ask_node(parsed, "patient.register", values)
        return _finish(parsed, answer, f"patient {answer['patient']}")
    check_output(parsed.card, parsed.family_card)
    values["pin"] = ask_pin("PIN of the new card: ") if parsed.pin else ""
    answer = ask_node(parsed, "card.enrol", values)
    printed, family = answer.pop("printed"), answer.pop("family")
    answer["number"] = printed["number"]
    write_code(parsed.card, printed["text"])
    if parsed.family_card is not None:
        write_code(parsed.family_card, family["text"])
    head = [f"patient {answer['patient']}", f"card number {printed['number']}"]
    return _finish(parsed, answer, *head)


def _list(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "patient.list"), lines=_list_lines)


def _list_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["patient"],
            row["name"] if row["readable"] else "(closed)",
            row["birth_date"],
            row["gender"],
            row["catchment"],
        )
        for row in answer["patients"]
    ]
    return columns(rows, empty="no patient is known here")


def _timeline(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "as_of": parsed.as_of,
        "type": parsed.type,
        "limit": parsed.limit,
    }
    return show(parsed, ask_node(parsed, "patient.timeline", values), lines=_timeline_lines)


def _timeline_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (row["date"][:10], row["type"], row["level"], row["id"][:12], _marked(row))
        for row in answer["records"]
    ]
    closed = [f"{answer['closed']} records are closed to this device"] if answer["closed"] else []
    return [*columns(rows, empty="no records"), *closed]


def _marked(row: Mapping[str, Any]) -> str:
    told = [mark for mark in row["marks"] if mark != "provisional"]  # the level says that
    return f"{row['text']} [{', '.join(told)}]" if told else str(row["text"])


def _add(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "fhir": _resource(parsed.file),
        "wait_s": parsed.wait,
    }
    return _finish(parsed, ask_node(parsed, "patient.add", values))


def _grant(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "reader": parsed.reader,
        "categories": parsed.category,
        "purpose": parsed.purpose,
        "until": parsed.until,
        "request": parsed.request,
        **card_values(parsed),
        "wait_s": parsed.wait,
    }
    return _finish(parsed, ask_node(parsed, "patient.grant", values))


def _revoke(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "grant": parsed.grant,
        **card_values(parsed),
        "wait_s": parsed.wait,
    }
    return _finish(parsed, ask_node(parsed, "patient.revoke", values))


def _readers(parsed: argparse.Namespace) -> int:
    values = {"patient": parsed.patient, "category": parsed.category, **card_values(parsed)}
    return show(parsed, ask_node(parsed, "patient.readers", values), lines=_reader_lines)


def _reader_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["grant"][:12],
            who(row) if row["device"] else row["name"] or "?",
            row["purpose"],
            row["until"] or "open",
            "sealed" if row["categories"] is None else ", ".join(row["categories"]),
            f"by the {row['by']}",
        )
        for row in answer["readers"]
    ]
    asked = [
        f"asks: {row['request'][:12]}  {who(row)}  {row['purpose']}  "
        f"{', '.join(row['categories'] or ['sealed'])}  {row['words']}".rstrip()
        for row in answer["requests"]
    ]
    return [*columns(rows, empty="nobody may read"), *asked]
