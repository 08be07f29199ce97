"""``p2pmed claim product | approve | policy | submit | adjudicate | show``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.columns import columns, verdict_lines, who
from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add"]

TERMS_BYTES_MAX: Final = 256 * 1024


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("claim", help="insurance: products, policies, claims")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    product = _verb(verbs, "product", "publish a product and its rules", "basic.json")
    product.add_argument("file", type=Path, help="its terms as JSON")
    approve = _verb(verbs, "approve", "the hospital signs a product too", "91ab")
    approve.add_argument("product", help="first digits of the product")
    policy = _verb(
        verbs, "policy", "insure people", "91ab --member 3f2a --start 2026-01-01 --end 2026-12-31"
    )
    policy.add_argument("product", help="first digits of the product")
    policy.add_argument("--member", dest="members", action="append", required=True)
    policy.add_argument("--start", required=True, metavar="DATE", help="the first day")
    policy.add_argument("--end", required=True, metavar="DATE", help="the last day")
    submit = _verb(
        verbs, "submit", "claim what was done", "3f2a 5d01 --encounter 88e2 --line consult:1:1500"
    )
    submit.add_argument("patient", help="first digits of the pseudonym")
    submit.add_argument("policy", help="first digits of the policy")
    submit.add_argument("--encounter", dest="encounters", action="append", required=True)
    submit.add_argument(
        "--line",
        dest="lines",
        action="append",
        required=True,
        metavar="ITEM:QUANTITY:AMOUNT",
        help="the amount for the whole line, in minor units",
    )
    settle = _verb(verbs, "adjudicate", "sign what the rule gives", "c4c4")
    settle.add_argument("claim", help="first digits of the claim")
    shown = _verb(verbs, "show", "one claim, or all there is", "c4c4")
    shown.add_argument("claim", nargs="?", help="first digits of the claim")
    shown.set_defaults(run=_show)


def _verb(verbs: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    example = f"p2pmed claim {name} --home insurer {example}"
    parser = command(verbs, name, help=text, example=example)
    add_home(parser)
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    parser.set_defaults(run=_write, operation=f"claim.{name}")
    return parser


_ARGUMENTS: Final = (
    "product",
    "members",
    "start",
    "end",
    "patient",
    "policy",
    "encounters",
    "lines",
    "claim",
)


def _write(parsed: argparse.Namespace) -> int:
    """Any verb that writes one transaction; 1 if it was refused."""
    values = {name: getattr(parsed, name) for name in _ARGUMENTS if hasattr(parsed, name)}
    if hasattr(parsed, "file"):
        values["terms"] = _terms(parsed.file)
    answer = ask_node(parsed, parsed.operation, {**values, "wait_s": parsed.wait})
    show(parsed, answer, lines=_written_lines)
    return 0 if answer["verdict"] == "applied" else 1


def _terms(path: Path) -> Any:
    with path.open("rb") as file:
        raw = file.read(TERMS_BYTES_MAX + 1)
    try:
        if len(raw) <= TERMS_BYTES_MAX:
            return json.loads(raw)
    except (ValueError, RecursionError):
        pass
    raise ConfigError(f"{path} is not a JSON object of at most {TERMS_BYTES_MAX} bytes")


def _written_lines(answer: Mapping[str, Any]) -> list[str]:
    lines = verdict_lines(answer)
    if "allowed" in answer:
        lines.append(f"allowed {answer['allowed']} {answer['currency']} (minor units)")
    return [*lines, *(_line_lines(answer) if "currency" in answer else [])]


def _line_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (row["item"], row["quantity"], row["amount"], f"allowed {row['allowed']}", row["reason"])
        for row in answer["lines"]
    ]
    return columns(rows, empty="no lines")


def _show(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "claim.show", {"claim": parsed.claim})
    return show(parsed, answer, lines=_all_lines if parsed.claim is None else _claim_lines)


def _claim_lines(answer: Mapping[str, Any]) -> list[str]:
    state = "adjudicated" if answer["adjudicated"] else "open; the rule would give:"
    head = f"claim {answer['claim'][:12]} by {who(answer['by'])}, {answer['total']} in all: {state}"
    return [head, *_line_lines(answer)]


def _all_lines(answer: Mapping[str, Any]) -> list[str]:
    products = [
        (
            "product",
            row["product"][:12],
            f"{row['name']} v{row['version']}",
            "approved" if row["approved"] else "not approved",
            f"ceiling {row['ceiling']} {row['currency']}",
        )
        for row in answer["products"]
    ]
    policies = [
        (
            "policy",
            row["policy"][:12],
            f"{len(row['members'])} people",
            f"{row['start']} to {row['end']}",
            f"{row['remaining']} left",
        )
        for row in answer["policies"]
    ]
    claims = [
        (
            "claim",
            row["claim"][:12],
            who(row["by"]),
            f"allowed {row['allowed']}" if row["adjudicated"] else "open",
            f"{row['total']} claimed",
        )
        for row in answer["claims"]
    ]
    return columns([*products, *policies, *claims], empty="no product, policy or claim")
