"""``p2pmed import fhir`` and ``p2pmed export fhir``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.groups import verbs
from p2pmed.cli.progress import progress_bar
from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]

STATUS_REFUSED = 1


def add(commands: Any) -> None:
    """Declare the commands."""
    incoming = command(
        verbs(commands, "import", help="take in files"),
        "fhir",
        help="take in FHIR R4: folders or files of JSON, gzip or not; again adds nothing",
        example="p2pmed import fhir --home clinic-a patients/",
    )
    add_home(incoming)
    incoming.add_argument("path", nargs="+", type=Path, help="folder, or .json / .json.gz file")
    incoming.set_defaults(run=_import)
    outgoing = command(
        verbs(commands, "export", help="write files"),
        "fhir",
        help="write all that this device reads into a new folder, in clear, as it came in",
        example="p2pmed export fhir --home clinic-a out/",
    )
    add_home(outgoing)
    outgoing.add_argument("folder", type=Path, help="a folder that is new or empty")
    outgoing.set_defaults(run=_export)


def _import(parsed: argparse.Namespace) -> int:
    values = {"paths": [str(path.absolute()) for path in parsed.path]}
    with progress_bar(quiet=parsed.json) as report:
        answer = ask_node(parsed, "fhir.import", values, report=report)
    show(parsed, answer, lines=_import_lines)
    return STATUS_REFUSED if answer["refused"] else 0


def _import_lines(answer: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{answer['files']} files, {answer['patients']} new patients, "
        f"{answer['resources']} resources in {answer['seconds']} s "
        f"({answer['resources_per_s']} resources/s, "
        f"{answer['bytes_per_resource']} bytes stored each)"
    ]
    if answer["skipped"]:
        lines.append(f"{answer['skipped']} files were in already")
    if answer["resumed"]:
        lines.append(f"{answer['resumed']} files went on where an earlier import had ended")
    return [*lines, *(f"refused  {row['file']}: {row['why']}" for row in answer["refused"])]


def _export(parsed: argparse.Namespace) -> int:
    values = {"folder": str(parsed.folder.absolute())}
    with progress_bar(quiet=parsed.json) as report:
        answer = ask_node(parsed, "fhir.export", values, report=report)
    return show(parsed, answer, lines=_export_lines)


def _export_lines(answer: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{answer['files']} files of {answer['patients']} patients, {answer['resources']} "
        f"resources, {answer['bytes_out']} bytes in {answer['seconds']} s: {answer['folder']}"
    ]
    closed = answer["unreadable"]
    if closed["patients"] or closed["records"]:
        lines.append(
            f"this device holds no key of {closed['patients']} patients and of "
            f"{closed['records']} records of others: they are not in the folder"
        )
    if answer["changed_since"]:
        lines.append(f"{answer['changed_since']} records in the files were amended or retracted")
    return [*lines, *(f"left out  {row['file']}: {row['why']}" for row in answer["left_out"])]
