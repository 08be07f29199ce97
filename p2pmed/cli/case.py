"""``p2pmed case key | open | export | verify``: an operation before an expert."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_home, add_json, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("case", help="hand a case to reviewers as one sealed file")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    key = command(
        verbs,
        "key",
        help="make a reviewer's keys; needs no home",
        example="p2pmed case key expert.keys",
    )
    key.add_argument("file", type=Path)
    add_json(key)
    key.set_defaults(run=_key)
    _add_open(verbs)
    export = command(
        verbs,
        "export",
        help="write the case's file, sealed to its reviewers",
        example="p2pmed case export --home hospital 77c0 surgery.case",
    )
    add_home(export)
    export.add_argument("case", help="the first digits of its number")
    export.add_argument("file", type=Path)
    export.add_argument("--open", action="store_true", help="with the contents this device opens")
    export.add_argument("--force", action="store_true", help="replace the file if it is there")
    export.set_defaults(run=_export)
    verify = command(
        verbs,
        "verify",
        help="what a case file proves; needs no home",
        example="p2pmed case verify surgery.case --key expert.keys",
    )
    verify.add_argument("file", type=Path)
    verify.add_argument("--key", type=Path, help="the reviewer's keys; without, an opened file")
    verify.add_argument("--network", help="the network's id, known from elsewhere, in hex")
    verify.add_argument("--save", type=Path, metavar="FILE", help="keep the opened file")
    add_json(verify)
    verify.set_defaults(run=_verify)


def _add_open(verbs: Any) -> None:
    opened = command(
        verbs,
        "open",
        help="open a case about an operation, or about records",
        example="p2pmed case open --home hospital --surgery 77c0 --reviewer 5d1e... "
        "--reason complication",
    )
    add_home(opened)
    opened.add_argument("--surgery", default="", help="the first digits of the operation's number")
    opened.add_argument("--patient", help="whose records, by the first digits")
    opened.add_argument("--record", action="append", default=[], help="a record; may be repeated")
    opened.add_argument(
        "--reviewer", action="append", default=[], help="a key that `case key` told, in hex"
    )
    opened.add_argument("--reason", required=True, help="a code; names no patient")
    opened.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    opened.set_defaults(run=_open)


def _key(parsed: argparse.Namespace) -> int:
    from p2pmed.aio.clock import SystemEntropy
    from p2pmed.cli.card import ask_pin
    from p2pmed.identity.keystore import seal_keystore
    from p2pmed.identity.persons import PersonKeys
    from p2pmed.node.new_file import NewFile

    keys = PersonKeys.generate(SystemEntropy())
    passphrase = ask_pin("a passphrase for these keys: ")
    sealed = seal_keystore(keys.to_secret_bytes(), passphrase, entropy=SystemEntropy())
    with NewFile(parsed.file) as file:
        file.write(sealed)
        file.keep()
    answer = {"file": str(parsed.file), "reviewer": keys.box_public.hex()}
    return show(parsed, answer)


def _open(parsed: argparse.Namespace) -> int:
    values = {
        "surgery": parsed.surgery,
        "patient": parsed.patient,
        "records": parsed.record,
        "reviewers": parsed.reviewer,
        "reason": parsed.reason,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "case.open", values))


def _export(parsed: argparse.Namespace) -> int:
    values = {
        "case": parsed.case,
        "file": str(parsed.file.absolute()),
        "open": parsed.open,
        "force": parsed.force,
    }
    return show(parsed, ask_node(parsed, "case.export", values), lines=_export_lines)


def _export_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"wrote {answer['file']} ({answer['bytes']} bytes)",
        f"tell the reviewer the network's id by another way: {answer['network']}",
    ]


def _verify(parsed: argparse.Namespace) -> int:
    from p2pmed.cli.card import ask_pin
    from p2pmed.node.operations.case import check_file
    from p2pmed.node.operations.surgery import open_person

    reviewer = None
    if parsed.key is not None:
        reviewer = open_person(parsed.key, ask_pin("the passphrase of the keys: "))
    answer = check_file(
        parsed.file, reviewer=reviewer, network=_network(parsed.network), save=parsed.save
    )
    return show(parsed, {"file": str(parsed.file), "ok": True, **answer}, lines=_verify_lines)


def _network(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        network = bytes.fromhex(text)
    except ValueError:
        network = b""
    if len(network) != 32:
        raise ConfigError("--network: 64 digits in hex are needed")
    return network


def _verify_lines(answer: Mapping[str, Any]) -> list[str]:
    known = "as you named it" if answer["network_compared"] else "compare this id yourself"
    lines = [
        "the case holds: nothing that belongs to it was changed or left out.",
        f"network   {answer['network_name']}, id {answer['network']} ({known})",
        f"case      {answer['case']}, opened for: {answer['reason']}",
        f"operation {answer['surgery'] or '-'}; {answer['skipped']} entries between are about "
        "something else",
    ]
    for each in answer["entries"]:
        lines += _entry_lines(each)
    for title, rows in (
        ("missing", answer["missing"]),
        ("late", [f"{each['id'][:16]} {each['why']}" for each in answer["late"]]),
        ("answered no", answer["answered_no"]),
    ):
        lines += ["", f"{title}: {'nothing' if not rows else ''}", *(f"  {row}" for row in rows)]
    return [*lines, "", "NOT proven:", *(f"  {each}" for each in answer["not_proven"])]


def _entry_lines(each: Mapping[str, Any]) -> list[str]:
    number = f" no. {each['number']}" if each["number"] else ""
    lines = ["", f"{each['kind']}{number} {each['step']}  {each['id'][:16]}"]
    if each["occurred"]:
        lines.append(f"  happened  {each['occurred']}, says who recorded it")
    lines.append(
        f"  written   {each['written_at']} ({each['writer_clock']}; hybrid {each['hybrid_clock']}) "
        f"by {each['author_name']} ({each['author_place'] or 'everywhere'}), {each['author_short']}"
    )
    if each["ledger"]:
        then = "valid" if each["credential_valid_then"] else "NOT VALID"
        lines.append(
            f"  ordered   {each['ordered_at']} at height {each['height']} of {each['ledger']}: "
            f"{each['verdict']}; credential {then} then"
        )
    else:
        lines.append("  ordered   by no ledger yet")
    for person in each["people"]:
        how = "signed" if person["signed"] else "named by the device"
        fit = person["unfit"] or "qualified then, or no register"
        lines.append(f"  person    {person['person'][:16]} {person['role']} ({how}; {fit})")
    return lines
