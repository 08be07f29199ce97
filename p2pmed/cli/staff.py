"""Who is at the device: ``unlock``, ``lock``, ``staff``.

A running node answers peers without anybody at it; patients' records open only while a staff
member has unlocked it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.columns import columns
from p2pmed.cli.session import (
    add_home,
    ask_node,
    command,
    home_of,
    passphrase_of,
    show,
)
from p2pmed.errors import ConfigError

__all__ = ["add"]

WORDS_BYTES_MAX: Final = 1_024


def add(commands: Any) -> None:
    """Declare the commands."""
    unlock = command(
        commands,
        "unlock",
        help="open patients' records on a running node, as a staff member",
        example='p2pmed unlock --home clinic-a --as "Ma Aye"',
    )
    add_home(unlock)
    unlock.add_argument("--as", dest="name", default="", help="who, if there are several")
    unlock.add_argument("--pin", action="store_true", help="by PIN instead of the passphrase")
    unlock.add_argument("--pin-file", type=Path, help="file with the PIN")
    unlock.set_defaults(run=_unlock)
    lock = command(
        commands,
        "lock",
        help="close patients' records on a running node",
        example="p2pmed lock --home clinic-a",
    )
    add_home(lock)
    lock.set_defaults(run=_lock)
    group = commands.add_parser("staff", help="who may unlock a device")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, text, named, words in (
        ("list", "who may unlock this device", False, False),
        ("add", "let another person unlock this device", True, True),
        ("reset", "new keys for a person who forgot the passphrase", True, True),
        ("remove", "let a person unlock this device no more", True, False),
        ("passwd", "change the passphrase of who is unlocked", False, True),
    ):
        parser = command(verbs, name, help=text, example=f"p2pmed staff {name} {'Aye' * named}")
        add_home(parser)
        if named:
            parser.add_argument("name", help="the person's name")
        if words:
            parser.add_argument(
                "--new-passphrase-file", type=Path, help="file with the person's passphrase"
            )
        parser.set_defaults(run=_ask, verb=name, named=named, words=words)
    pin = command(
        verbs,
        "pin",
        help="set the PIN of who is unlocked, or take it away",
        example="p2pmed staff pin",
    )
    add_home(pin)
    pin.add_argument("--pin-file", type=Path, help="file with the PIN")
    pin.add_argument("--off", action="store_true", help="no PIN any more")
    pin.set_defaults(run=_pin)


def _unlock(parsed: argparse.Namespace) -> int:
    _must_run(parsed)
    by_pin = parsed.pin or parsed.pin_file is not None
    words = _words(parsed.pin_file, "PIN: ") if by_pin else passphrase_of(parsed)
    values = {"name": parsed.name, "words": words, "by_pin": by_pin}
    return show(parsed, ask_node(parsed, "session.unlock", values), lines=_session)


def _lock(parsed: argparse.Namespace) -> int:
    _must_run(parsed)
    return show(parsed, ask_node(parsed, "session.lock"), lines=_session)


def _must_run(parsed: argparse.Namespace) -> None:
    from p2pmed.node.backup import is_running

    if not is_running(home_of(parsed)):
        raise ConfigError("no node runs in that home", hint="start one with `p2pmed run`")


def _ask(parsed: argparse.Namespace) -> int:
    values = {}
    if parsed.named:
        values["name"] = parsed.name
    if parsed.words:
        values["words"] = _words(parsed.new_passphrase_file, "the person's passphrase: ")
    answer = ask_node(parsed, f"staff.{parsed.verb}", values)
    return show(parsed, answer, lines=_people if parsed.verb == "list" else None)


def _pin(parsed: argparse.Namespace) -> int:
    words = "" if parsed.off else _words(parsed.pin_file, "new PIN: ")
    return show(parsed, ask_node(parsed, "staff.pin", {"words": words}), lines=_session)


def _words(file: Path | None, prompt: str) -> str:
    """A secret from a file, or typed twice on a terminal."""
    if file is not None:
        with file.open("rb") as source:
            raw = source.read(WORDS_BYTES_MAX + 1)
        if len(raw) > WORDS_BYTES_MAX:
            raise ConfigError("that file is too long to hold a PIN or a passphrase")
        return raw.decode("utf-8", "replace").rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("a PIN or passphrase is needed", hint="give it in a file")
    return getpass.getpass(prompt)


def _session(answer: Mapping[str, Any]) -> list[str]:
    if answer["locked"]:
        return [f"locked: {answer['why']}"]
    until = "" if answer["locks_in_s"] is None else f", until {answer['locks_in_s']} s unused"
    return [f"unlocked by {answer['staff']}{until}"]


def _people(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            row["name"],
            row["person"][:12],
            "PIN" if row["pin"] else "",
            "unlocked" if row["unlocked"] else "",
        ]
        for row in answer["staff"]
    ]
    return columns(rows, empty="nobody may unlock this device")
