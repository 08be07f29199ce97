"""``p2pmed card issue | list | revoke | scan | fallback | emergency``, and making it again.

A card's text is read from a file or, with ``-``, from standard input, where a scanner types it:
never from the command line, which every user of the machine can see. It is written as a QR code
by the name of the file: ``.svg``, ``.png``, ``.txt`` (the bare text), or ``-``: on the terminal.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.columns import columns, verdict_lines, who
from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add", "add_card", "ask_pin", "card_values", "check_output", "read_card", "write_code"]

PIN_VARIABLE: Final = "P2PMED_PIN"
TEXT_CHARS_MAX: Final = 2_000
ENDINGS: Final = (".svg", ".png", ".txt")
MODULE_PIXELS: Final = 8
"""A printed module of about half a millimetre: cheap cameras read it."""


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("card", help="patients' cards")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    issue = _verb(verbs, "issue", "make a card", " 3f2a --out card.svg", _issue)
    issue.add_argument("patient", nargs="?", default="", help="or --card: one more of that")
    _add_new(issue)
    add_card(issue)
    _patient(_verb(verbs, "list", "a patient's cards", " 3f2a", _list))
    revoke = _verb(verbs, "revoke", "report a card lost", " 3f2a 77c0", _revoke)
    _patient(revoke)
    revoke.add_argument("id", help="first digits of the card's id: `card list`")
    revoke.add_argument("--reason", default="lost", help="a code, such as lost or worn")
    scan = _verb(verbs, "scan", "check a card offline", " card.txt", _scan)
    scan.add_argument("file", type=Path, help="the scanned text, or - for standard input")
    number = _verb(verbs, "fallback", "whose card, by its number", " 0421337", _fallback)
    number.add_argument("number", help="the seven digits under the code")
    example = " --blood 0+ --allergy penicillin --drug insulin --out emergency.svg"
    emergency = _verb(verbs, "emergency", "print what saves a life", example, _emergency)
    emergency.add_argument("--blood", default="", help="blood group")
    emergency.add_argument("--allergy", action="append", default=[])
    emergency.add_argument("--drug", action="append", default=[], help="taken for long")
    emergency.add_argument("--out", type=Path, required=True, metavar="FILE")
    _add_reissue(verbs)


def _add_reissue(verbs: Any) -> None:
    request = _verb(verbs, "request", "a card is lost: ask its custodians", " 3f2a", _request)
    _patient(request)
    request.add_argument("--reason", default="lost", help="a code, such as lost or stolen")
    _verb(verbs, "requests", "shares that others ask this device for", "", _requests)
    person = _verb(verbs, "person", "make a staff member's own keys", " nurse.keys", _person)
    person.add_argument("file", type=Path)
    example = " 77c0 --person nurse.keys"
    release = _verb(verbs, "release", "give a custodian's share", example, _release)
    release.add_argument("request", help="first digits of the request")
    release.add_argument("--person", type=Path, required=True, help="who saw the patient")
    add_card(release)
    example = " 77c0 --out card.svg"
    again = _verb(verbs, "reissue", "make the new card, after two releases", example, _reissue)
    again.add_argument("request", help="first digits of the request")
    _add_new(again)


def _verb(verbs: Any, name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
    example = f"p2pmed card {name} --home clinic-a{example}"
    parser = command(verbs, name, help=text, example=example)
    add_home(parser)
    parser.set_defaults(run=run)
    return parser


def _patient(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patient", help="first digits of the pseudonym")


def _add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".svg, .png, .txt, or -"
    )
    parser.add_argument("--pin", action="store_true", help="ask for a PIN of the new card")


def add_card(parser: argparse.ArgumentParser) -> None:
    """``--card`` and ``--card-pin``: the patient's card on the table."""
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="the card's scanned text, or - to scan it now"
    )
    parser.add_argument("--card-pin", action="store_true", help="ask for the card's PIN")


def card_values(parsed: argparse.Namespace) -> dict[str, Any]:
    """The card that was given, for an operation; nothing if none was."""
    if parsed.card is None:
        return {}
    pin = ask_pin("the card's PIN: ") if parsed.card_pin else ""
    return {"card": read_card(parsed.card), "card_pin": pin}


def read_card(path: Path) -> str:
    """A scanned text from a file, or from standard input. Raises ``ConfigError``."""
    if str(path) == "-":
        text = sys.stdin.readline(TEXT_CHARS_MAX + 1)
    else:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(TEXT_CHARS_MAX + 1)
    if len(text) > TEXT_CHARS_MAX:
        raise ConfigError("that is longer than a card's text", hint="scan the code again")
    return text.strip("\r\n\t ")


def ask_pin(question: str) -> str:
    """A PIN or passphrase from the environment or the terminal."""
    from_environment = os.environ.get(PIN_VARIABLE)
    if from_environment is not None:
        return from_environment
    if not sys.stdin.isatty():
        raise ConfigError("a PIN is needed", hint=f"set {PIN_VARIABLE}, or use a terminal")
    return getpass.getpass(question)


def check_output(*paths: Path | None) -> None:
    """Raises ``ConfigError`` unless a code can be written there: asked before one is made."""
    for path in paths:
        if path is None or str(path) == "-":
            continue
        if path.suffix not in ENDINGS:
            raise ConfigError(f"{path}: a name in .svg, .png or .txt is needed, or -")
        if path.exists():
            raise ConfigError(f"{path} is there already", hint="name another file")
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is no folder")


def write_code(path: Path, text: str) -> None:
    """``text`` as a QR code, readable by this user only."""
    import segno

    code = segno.make_qr(text, error="m")
    if str(path) == "-":
        code.terminal(compact=True)
        return
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if path.suffix == ".txt":
            file.write(text.encode() + b"\n")
        else:
            code.save(file, kind=path.suffix[1:], scale=MODULE_PIXELS)


def _made(parsed: argparse.Namespace, answer: dict[str, Any]) -> int:
    write_code(parsed.out, answer.pop("text"))
    return show(parsed, answer)


def _issue(parsed: argparse.Namespace) -> int:
    check_output(parsed.out)
    values = {"patient": parsed.patient, **card_values(parsed)}
    values["pin"] = ask_pin("PIN of the new card: ") if parsed.pin else ""
    return _made(parsed, ask_node(parsed, "card.issue", values))


def _list(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "card.list", {"patient": parsed.patient})
    return show(parsed, answer, lines=_card_lines)


def _card_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["card"][:12],
            row.get("number") or row.get("patient", "")[:12],
            "family" if row.get("family") else "",
            "revoked" if row["revoked"] else "good",
        )
        for row in answer["cards"]
    ]
    return columns(rows, empty="no card is known here")


def _revoke(parsed: argparse.Namespace) -> int:
    values = {"patient": parsed.patient, "id": parsed.id, "reason": parsed.reason}
    return _finish(parsed, ask_node(parsed, "card.revoke", values))


def _scan(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "card.scan", {"card": read_card(parsed.file)})
    answer["issuer"] = answer["issuer"] if parsed.json else who(answer["issuer"])
    show(parsed, answer)
    return 0 if answer.get("good", True) else 1


def _fallback(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "card.fallback", {"number": parsed.number})
    return show(parsed, answer, lines=_card_lines)


def _emergency(parsed: argparse.Namespace) -> int:
    check_output(parsed.out)
    values = {"blood": parsed.blood, "allergies": parsed.allergy, "drugs": parsed.drug}
    return _made(parsed, ask_node(parsed, "card.emergency", values))


def _request(parsed: argparse.Namespace) -> int:
    values = {"patient": parsed.patient, "reason": parsed.reason}
    return _finish(parsed, ask_node(parsed, "card.request", values))


def _requests(parsed: argparse.Namespace) -> int:
    def lines(answer: Mapping[str, Any]) -> list[str]:
        rows = [(row["request"][:12], row["patient"][:12]) for row in answer["requests"]]
        return columns(rows, empty="nobody asks for a share")

    return show(parsed, ask_node(parsed, "card.requests"), lines=lines)


def _person(parsed: argparse.Namespace) -> int:
    values = {
        "file": str(parsed.file.resolve()),
        "person_passphrase": ask_pin("the person's own passphrase: "),
    }
    return show(parsed, ask_node(parsed, "card.person", values))


def _release(parsed: argparse.Namespace) -> int:
    values = {
        "request": parsed.request,
        "person_file": str(parsed.person.resolve()),
        "person_passphrase": ask_pin("the person's own passphrase: "),
        **card_values(parsed),
    }
    return _finish(parsed, ask_node(parsed, "card.release", values))


def _reissue(parsed: argparse.Namespace) -> int:
    check_output(parsed.out)
    pin = ask_pin("PIN of the new card: ") if parsed.pin else ""
    return _made(parsed, ask_node(parsed, "card.reissue", {"request": parsed.request, "pin": pin}))


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    show(parsed, answer, lines=verdict_lines)
    return 0 if answer["verdict"] == "applied" else 1
