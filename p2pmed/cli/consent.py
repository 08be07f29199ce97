"""``p2pmed patient delegate | reads | request | policy | facility | passphrase``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.card import add_card, ask_pin, card_values, read_card
from p2pmed.cli.columns import columns, verdict_lines
from p2pmed.cli.emergency import read_lines
from p2pmed.cli.session import ask_node, show
from p2pmed.errors import ConfigError

__all__ = ["add_consent"]


def add_consent(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands; ``verb`` makes one."""
    example = " --card child.txt --guardian-card mother.txt"
    parser = verb(verbs, "delegate", "make a guardian, with both cards", example, _delegate)
    add_card(parser)
    parser.add_argument("--guardian-card", type=Path, required=True, metavar="FILE")
    parser.add_argument("--guardian-pin", action="store_true", help="ask for the guardian's PIN")
    parser.add_argument("--until", metavar="DATE", help="the last day")
    parser.add_argument("--may-hand-on", action="store_true", help="the guardian may name another")
    reads = verb(verbs, "reads", "who has read what", " 3f2a", _reads)
    reads.add_argument("patient", help="first digits of the pseudonym")
    example = " 3f2a --category laboratory --words 'for the operation'"
    parser = verb(verbs, "request", "ask for leave to read", example, _request)
    parser.add_argument("patient", help="first digits of the pseudonym")
    parser.add_argument("--category", action="append", default=[], help="instead of everything")
    parser.add_argument("--purpose", default="TREAT", help="why, as a code (default TREAT)")
    parser.add_argument("--until", metavar="DATE", help="the last day")
    parser.add_argument("--words", default="", help="a line to the patient, sealed")
    example = " --category surgery --to device --to facility"
    parser = verb(verbs, "policy", "what a registration hands out", example, _policy)
    parser.add_argument("--category", default="", help="change this one")
    parser.add_argument(
        "--to", action="append", default=[], help="device, facility or readers; with --category"
    )
    example = " --device 'Ward 1' --device 'Ward 2'"
    text = "renew the key that this facility's devices share"
    parser = verb(verbs, "facility", text, example, _facility)
    parser.add_argument("--device", action="append", default=[], help="instead of all staff's")
    example = " 3f2a --category mental_health"
    text = "close a category with the patient's own passphrase, or --open it"
    parser = verb(verbs, "passphrase", text, example, _passphrase)
    parser.add_argument("patient", help="first digits of the pseudonym")
    parser.add_argument("--category", required=True)
    parser.add_argument("--open", action="store_true", help="until the session ends")
    parser.add_argument("--remove", action="store_true", help="from now on without")


def _delegate(parsed: argparse.Namespace) -> int:
    values = {
        **card_values(parsed),
        "guardian_card": read_card(parsed.guardian_card),
        "guardian_pin": ask_pin("the guardian's PIN: ") if parsed.guardian_pin else "",
        "until": parsed.until,
        "depth": int(parsed.may_hand_on),
    }
    return _finish(parsed, ask_node(parsed, "patient.delegate", values))


def _reads(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "patient.reads", {"patient": parsed.patient})
    return show(parsed, answer, lines=read_lines)


def _request(parsed: argparse.Namespace) -> int:
    values = {
        "patient": parsed.patient,
        "categories": parsed.category,
        "purpose": parsed.purpose,
        "until": parsed.until,
        "words": parsed.words,
    }
    return _finish(parsed, ask_node(parsed, "patient.request", values))


def _policy(parsed: argparse.Namespace) -> int:
    if parsed.to and not parsed.category:
        raise ConfigError("which category?", hint="give --category with --to")
    values = {"category": parsed.category, "audiences": parsed.to}
    return show(parsed, ask_node(parsed, "patient.policy", values), lines=_policy_lines)


def _policy_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [(name, ", ".join(to)) for name, to in answer["policy"].items()]
    return columns(rows, empty="nothing")


def _facility(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "patient.facility", {"devices": parsed.device})
    return _finish(parsed, answer, f"{answer['patients']} patients have new keys")


def _passphrase(parsed: argparse.Namespace) -> int:
    values: dict[str, Any] = {
        "patient": parsed.patient,
        "category": parsed.category,
        "words": "" if parsed.remove else ask_pin("the patient's passphrase: "),
        "open": parsed.open,
    }
    answer = ask_node(parsed, "patient.passphrase", values)
    if parsed.open:
        return show(parsed, answer)
    return _finish(parsed, answer)


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any], *head: str) -> int:
    show(parsed, answer, lines=lambda answer: [*head, *verdict_lines(answer)])
    return 0 if answer["verdict"] == "applied" else 1
