"""``p2pmed bundle export | import | inspect | have``: carrying by stick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_home, add_json, ask_node, command, show

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("bundle", help="carry records and ledgers by stick")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_export(verbs)
    take = command(
        verbs,
        "import",
        help="take in a bundle; what is new goes on to the peers",
        example="p2pmed bundle import --home county /media/stick/mu-2024-05.bundle",
    )
    add_home(take)
    take.add_argument("file", type=Path)
    take.set_defaults(run=_import)
    inspect = command(
        verbs,
        "inspect",
        help="what a bundle holds; needs no home and no key",
        example="p2pmed bundle inspect /media/stick/mu-2024-05.bundle",
    )
    inspect.add_argument("file", type=Path)
    add_json(inspect)
    inspect.set_defaults(run=_inspect)
    have = command(
        verbs,
        "have",
        help="list what is here, for --since of somebody else's export",
        example="p2pmed bundle have --home county --json > county-has.json",
    )
    add_home(have)
    have.set_defaults(run=_have)


def _add_export(verbs: Any) -> None:
    export = command(
        verbs,
        "export",
        help="write all logs and ledgers, or what a receiver lacks, to a new file",
        example="p2pmed bundle export --home clinic-a /media/stick/mu-2024-05.bundle\n"
        "  p2pmed bundle export --home clinic-a new.bundle --since /media/stick/old.bundle",
    )
    add_home(export)
    export.add_argument("file", type=Path)
    choice = export.add_mutually_exclusive_group()
    choice.add_argument(
        "--since",
        type=Path,
        metavar="FILE",
        help="leave out what this earlier bundle, or a list by `bundle have --json`, has",
    )
    choice.add_argument("--all", action="store_true", help="everything (the default)")
    export.add_argument("--force", action="store_true", help="replace the file if it is there")
    export.set_defaults(run=_export)


def _export(parsed: argparse.Namespace) -> int:
    values = {
        "file": str(parsed.file.absolute()),
        "since": str(parsed.since.absolute()) if parsed.since else None,
        "force": parsed.force,
    }
    answer = ask_node(parsed, "bundle.export", values, report=_progress(parsed))
    return show(parsed, answer, lines=_export_lines)


def _export_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"wrote {answer['entries']} entries of {answer['logs']} logs and {answer['blocks']} "
        f"blocks of {answer['ledgers']} ledgers to {answer['file']} "
        f"({size_text(answer['bytes'])})"
    ]


def _import(parsed: argparse.Namespace) -> int:
    values = {"file": str(parsed.file.absolute())}
    answer = ask_node(parsed, "bundle.import", values, report=_progress(parsed))
    show(parsed, answer, lines=_import_lines)
    whole = answer["complete"] and not answer["refusals"] and not answer["waiting"]
    return 0 if whole and not answer["halted"] else 1


def _import_lines(answer: Mapping[str, Any]) -> list[str]:
    if answer["status"] == "refused":
        return fault_lines(answer)
    lines = [
        f"took in {answer['entries_new']} new entries of {answer['entries']} read, and "
        f"{answer['blocks_new']} new blocks of {answer['blocks']} read"
    ]
    if not answer["complete"]:
        lines += fault_lines(answer)
        lines.append("everything before that place was taken; copy the file again for the rest")
    for refusal in answer["refused"]:
        lines.append(f"refused: {_refusal_text(refusal)}")
    if answer["refusals"] > len(answer["refused"]):
        lines.append(f"and {answer['refusals'] - len(answer['refused'])} more were refused")
    for gap in answer["gaps"]:
        lines.append(f"waiting: {gap['of'][:16]} lacks {gap['lacks']}; carry an earlier bundle too")
    if answer["forked_logs"]:
        lines.append(f"{answer['forked_logs']} frames are of logs that forked; see `p2pmed status`")
    if answer["halted"]:
        lines.append(f"the ledger is halted: {answer['halted']}")
    return lines


def _refusal_text(refusal: Mapping[str, Any]) -> str:
    if refusal.get("log"):
        return f"log {refusal['log'][:16]}, entry {refusal['seq']}: {refusal['reason']}"
    if refusal.get("ledger"):
        return f"ledger {refusal['ledger'][:16]}, block {refusal['height']}: {refusal['reason']}"
    return str(refusal["reason"])


def _inspect(parsed: argparse.Namespace) -> int:
    from p2pmed.node.stick import describe_summary, inspect_file

    answer = {"file": str(parsed.file), **describe_summary(inspect_file(parsed.file))}
    show(parsed, answer, lines=inspect_lines)
    return 0 if answer["status"] == "complete" else 1


def inspect_lines(answer: Mapping[str, Any]) -> list[str]:
    """A table of contents for people."""
    if answer["network"] is None:
        return fault_lines(answer)
    lines = [
        f"network  {answer['network']}",
        f"author   {answer['author']}",
        f"written  {date_text(answer['created_ms'])} by its author's clock",
        f"holds    {answer['entries']} entries of {len(answer['logs'])} logs, "
        f"{len(answer['ledgers'])} ledgers, in {answer['frames']} frames "
        f"({size_text(answer['bytes'])})",
    ]
    lines += [
        f"  log     {row['author'][:16]} {row['incarnation'][:8]}  "
        f"entries {row['start']} to {row['end'] - 1}"
        for row in answer["logs"]
    ]
    lines += [
        f"  ledger  {row['ledger'][:16]}  blocks {row['lowest']} to {row['highest']}"
        for row in answer["ledgers"]
    ]
    if answer["status"] == "complete":
        return [*lines, "complete: sealed by its author; entries and blocks are not checked here"]
    return lines + fault_lines(answer)


def fault_lines(answer: Mapping[str, Any]) -> list[str]:
    """Where and why a file cannot be read further."""
    fault = answer["fault"]
    if fault is None:
        return []
    if answer["status"] == "refused":
        return [f"refused: {fault['reason']}"]
    where = f"frame {fault['frame']}, byte {fault['offset']}"
    return [f"{answer['status']} at {where}: {fault['reason']}"]


def _have(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "bundle.have"), lines=_have_lines)


def _have_lines(answer: Mapping[str, Any]) -> list[str]:
    logs = [f"log     {row['author'][:16]}  {row['end']} entries" for row in answer["logs"]]
    ledgers = [
        f"ledger  {row['ledger'][:16]}  {row['highest']} blocks" for row in answer["ledgers"]
    ]
    return [*(logs + ledgers), "give the output of --json to who exports (--since)"]


def size_text(size: int) -> str:
    """Bytes for people."""
    if size < 1024 * 1024:
        return f"{max(1, size // 1024)} KiB"
    if size < 1024**3:
        return f"{size / 1024**2:.1f} MiB"
    return f"{size / 1024**3:.1f} GiB"


def date_text(created_ms: int) -> str:
    """Milliseconds since 1970 for people, UTC; any number that a file may hold."""
    try:
        return datetime.fromtimestamp(created_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "at no time that a calendar knows"


def _progress(parsed: argparse.Namespace) -> Callable[[dict[str, Any]], None]:
    """A line that follows along, on a terminal only."""
    quiet = parsed.json or not sys.stderr.isatty()

    def report(progress: dict[str, Any]) -> None:
        if not quiet:
            of = f" of {size_text(progress['of'])}" if "of" in progress else ""
            text = f"{progress['what']}: {size_text(progress['done'])}{of}"
            print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)

    return report
