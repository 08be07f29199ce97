"""``p2pmed verify``: is all of it what it says it is?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2pmed.cli.columns import who
from p2pmed.cli.session import add_home, ask_node, command, home_of, show
from p2pmed.errors import ConfigError

if TYPE_CHECKING:
    from p2pmed.node.audit import Findings

__all__ = ["add"]

COUNTS: Final = (
    ("entries", "entries"),
    ("logs", "author logs"),
    ("forks", "proofs of a fork"),
    ("ledgers", "ledgers"),
    ("blocks", "blocks"),
    ("certificates", "certificates"),
    ("signatures", "signatures"),
    ("executed", "entries executed again"),
    ("state_rows", "state rows"),
    ("frames", "frames"),
)
"""Counts that people are told, in order."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "verify",
        help="check a stopped home, a bundle or a proof from its bytes; no passphrase is needed",
        example="p2pmed verify --home clinic-a\n"
        "  p2pmed verify --bundle /media/stick/mu.bundle --home clinic-a\n"
        "  p2pmed verify --proof visit.proof\n"
        "  p2pmed verify --qr 'P2PS1:...' --home clinic-a",
    )
    add_home(parser)
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="check this bundle instead")
    parser.add_argument(
        "--proof",
        type=Path,
        metavar="FILE",
        help="check this proof of one transaction instead; neither home nor key is needed",
    )
    parser.add_argument(
        "--qr",
        metavar="TEXT",
        help="check this printed summary code (its text, or a file with it); with --home also "
        "whether its signer is a member",
    )
    parser.add_argument(
        "--manifest-id",
        metavar="HEX",
        help="the network's id, known from elsewhere, for --proof and --qr",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="the network's manifest, for --bundle (or that of --home)",
    )
    parser.set_defaults(run=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    if parsed.proof is not None:
        return _verify_proof(parsed)
    if parsed.qr is not None:
        return _verify_code(parsed)
    from p2pmed.node.audit import audit_bundle, audit_home

    report = _stages(parsed)
    if parsed.bundle is not None:
        findings = audit_bundle(parsed.bundle, manifest=_manifest(parsed), report=report)
        subject = parsed.bundle
    else:
        subject = home_of(parsed)
        findings = audit_home(subject, report=report)
    return _tell(parsed, subject, findings)


def _verify_proof(parsed: argparse.Namespace) -> int:
    from p2pmed.cli.proof import proof_lines
    from p2pmed.node.operations.proofs import check_file

    network: bytes | None = None
    if parsed.manifest_id is not None:
        network = _hex_id(parsed.manifest_id)
    answer = {"checked": str(parsed.proof), "ok": True, **check_file(parsed.proof, network=network)}
    return show(parsed, answer, lines=proof_lines)


def _verify_code(parsed: argparse.Namespace) -> int:
    from p2pmed.cli.card import read_card
    from p2pmed.cli.summary import code_lines
    from p2pmed.medical.care.summary_code import CODE_PREFIX, described, parse_code

    text = parsed.qr if parsed.qr.startswith(CODE_PREFIX) else read_card(Path(parsed.qr))
    if parsed.home is not None:
        answer = ask_node(parsed, "summary.check", {"code": text})
        signer = who(answer["signer"])
    else:
        found = parse_code(text)
        answer = {**described(found.code), "network": found.code.network.hex()}
        answer |= {"signer": {"device": found.signer.hex()}, "trusted": None}
        signer = f"the device {found.signer.hex()}; --home says whether it is a member"
    wanted = _hex_id(parsed.manifest_id).hex() if parsed.manifest_id else answer["network"]
    ok = answer["trusted"] is not False and answer["network"] == wanted
    answer = {"ok": ok, **answer}
    verdict = "the signature holds" if ok else "WRONG: signed by no member of this network"
    show(parsed, answer, lines=lambda answer: [*code_lines(answer), f"{verdict}: {signer}"])
    return 0 if ok else 1


def _hex_id(text: str) -> bytes:
    try:
        found = bytes.fromhex(text.strip())
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ConfigError("--manifest-id: 64 hex digits are needed", hint="as `p2pmed proof` says")
    return found


def _manifest(parsed: argparse.Namespace) -> bytes | None:
    if parsed.manifest is not None:
        return Path(parsed.manifest).read_bytes()
    if parsed.home is not None:
        from p2pmed.storage.home import HomeFile, read_home

        return read_home(parsed.home, HomeFile.MANIFEST)
    return None


def _tell(parsed: argparse.Namespace, subject: Path, findings: Findings) -> int:
    answer = {"checked": str(subject), **findings.describe()}
    show(parsed, answer, lines=_lines)
    return 0 if answer["ok"] else 1


def _lines(answer: Mapping[str, Any]) -> list[str]:
    counts = answer["counts"]
    told = [f"{counts[name]} {text}" for name, text in COUNTS if counts.get(name)]
    seconds = counts.get("milliseconds", 0) / 1_000
    lines = [f"checked {answer['checked']} in {seconds:.1f} s: {', '.join(told) or 'nothing'}"]
    lines += [f"note: {note}" for note in answer["notes"]]
    if answer["ok"]:
        return [*lines, "all of it holds"]
    for finding in answer["findings"]:
        lines += [f"WRONG  {finding['where']}", f"       {finding['what']}"]
    lines.append(f"{answer['findings_total']} findings; what to do:")
    advice = dict.fromkeys(finding["do"] for finding in answer["findings"])
    return [*lines, *(f"  {text}" for text in advice)]


def _stages(parsed: argparse.Namespace) -> Callable[[str], None]:
    quiet = parsed.json or not sys.stderr.isatty()

    def report(stage: str) -> None:
        if not quiet:
            print(f"\rchecking {stage} ...{'':<20}\r", end="", file=sys.stderr, flush=True)

    return report
