"""Questions to a node: ``status``, ``peers``, ``show``, ``submit``, ``discrepancies``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    for name, text, run in (
        ("status", "what the node is doing", _status),
        ("peers", "who is connected, and how well", _peers),
        ("discrepancies", "contradictions that people must resolve", _discrepancies),
    ):
        parser = command(commands, name, help=text, example=f"p2pmed {name} --home clinic-a")
        add_home(parser)
        parser.set_defaults(run=run)
    parser = command(
        commands,
        "show",
        help="one transaction: how far it has come, and its verdict",
        example="p2pmed show --home clinic-a 3f2a...",
    )
    add_home(parser)
    parser.add_argument("id", help="the transaction's id in hex")
    parser.set_defaults(run=_show)
    parser = command(
        commands,
        "online",
        help="take a running node off the network, or back",
        example="p2pmed online --home clinic-a off",
    )
    add_home(parser)
    parser.add_argument("switch", choices=("on", "off"))
    parser.set_defaults(run=_online)
    parser = command(
        commands,
        "revoke",
        help="withdraw a device's credential: stolen, copied, replaced, or no longer a member",
        example="p2pmed revoke --home county 'Mu clinic' --reason key_compromised",
    )
    add_home(parser)
    parser.add_argument("device", help="its name, short number, or first digits of its key")
    parser.add_argument("--reason", default="key_compromised")
    parser.add_argument("--text", default="", help="for people; names no patient")
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    parser.set_defaults(run=_revoke)
    parser = command(
        commands,
        "submit",
        help="write any registered transaction",
        example='p2pmed submit --home county drug.recall \'{"gtin": "09506000134352", '
        '"lot": "L1", "reason": "contamination"}\'',
    )
    add_home(parser)
    parser.add_argument("kind", help="its type's name, such as drug.recall")
    parser.add_argument("fields", help='its fields as JSON; bytes are written "hex:..."')
    parser.add_argument("--patient", help="the patient's pseudonym in hex")
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    parser.set_defaults(run=_submit)


def _status(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "general.status"))


def _peers(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "general.peers"), lines=_peer_lines)


def _peer_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        f"{row['short']}  {row['name'] or '?'}  {'/'.join(row['roles'])}  "
        f"rtt {row['rtt_ms']} ms  {'in step' if row['in_step'] else 'catching up'}"
        for row in answer["peers"]
    ]
    return [*(rows or ["nobody is connected"]), f"discovery: {answer['discovery']}"]


def _discrepancies(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "general.discrepancies"), lines=_discrepancy_lines)


def _discrepancy_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        f"{row['reason']}: {row['first'][:16]} and {row['second'][:16]} (told by {row['told_by']})"
        for row in answer["discrepancies"]
    ]
    return rows or ["no contradictions"]


def _show(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "general.show", {"id": parsed.id}))


def _online(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "general.online", {"on": parsed.switch == "on"}))


def _revoke(parsed: argparse.Namespace) -> int:
    values = {
        "device": parsed.device,
        "reason": parsed.reason,
        "text": parsed.text,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "general.revoke", values))


def _submit(parsed: argparse.Namespace) -> int:
    try:
        fields = json.loads(parsed.fields)
    except ValueError as error:
        raise ConfigError(f"the fields are not JSON: {error}") from None
    values = {
        "kind": parsed.kind,
        "fields": fields,
        "patient": parsed.patient,
        "wait_s": parsed.wait,
    }
    return show(parsed, ask_node(parsed, "general.submit", values))
