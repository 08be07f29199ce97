"""``p2pmed import card``: SMART Health Cards and EU certificates, checked offline."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.groups import verbs
from p2pmed.cli.session import add_home, ask_node, command, show
from p2pmed.errors import ConfigError

__all__ = ["add"]

FILE_BYTES_MAX: Final = 256 * 1024


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        verbs(commands, "import", help="take in files"),
        "card",
        help="read a SMART Health Card or an EU certificate, and keep it for a patient",
        example="p2pmed import card --home clinic-a --issuer jwks.json card.txt --patient 3f2a",
    )
    add_home(parser)
    parser.add_argument(
        "card", nargs="+", help="a QR code's text, or a file with one QR code's text a line"
    )
    parser.add_argument(
        "--issuer",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        required=True,
        help="public keys that are believed: a JWKS, or a certificate (PEM or DER)",
    )
    parser.add_argument("--revoked", type=Path, metavar="FILE", help="the issuer's revocation list")
    parser.add_argument("--patient", help="whose card it is; without, the card is only shown")
    parser.add_argument(
        "--same-person", action="store_true", help="compared, though the birth dates differ"
    )
    parser.set_defaults(run=_take)


def _take(parsed: argparse.Namespace) -> int:
    values = {
        "chunks": [line for given in parsed.card for line in _lines(given)],
        "issuers": [base64.b64encode(_read(path)).decode() for path in parsed.issuer],
        "revoked": _revoked(parsed.revoked),
        "patient": parsed.patient,
        "same_person": parsed.same_person,
    }
    return show(parsed, ask_node(parsed, "card.take", values), lines=_shown)


def _lines(given: str) -> list[str]:
    if given.startswith(("shc:/", "HC1:")):
        return [given]
    try:
        text = _read(Path(given)).decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{given}: not the text of a QR code") from None
    return [line for line in text.splitlines() if line.strip()]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {FILE_BYTES_MAX} bytes, too long for a card or a key")
    return raw


def _revoked(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [str(line) for line in json.loads(_read(path))["rids"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            f"{path}: not a revocation list", hint='expected {"rids": [...]}'
        ) from None


def _shown(answer: Mapping[str, Any]) -> list[str]:
    holder = answer["holder"]
    lines = [
        f"{answer['format']} signed by {answer['issuer']} ({answer['signer']})",
        f"holder   {holder.get('name') or '?'}  born {holder.get('birth_date') or '?'}",
        *(f"says     {text}" for text in answer["records"]),
    ]
    if answer["expired"]:
        lines.append("expired  what it says stays true; it is no valid pass any more")
    if answer["kept"]:
        lines.append(f"kept     {len(answer['kept'])} records of patient {answer['patient'][:8]}")
    else:
        lines.append("nothing was kept: compare with the holder, then add --patient")
    return lines
