"""``p2pmed backup`` and ``p2pmed restore``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmed.cli.bundle import size_text
from p2pmed.cli.session import add_home, add_json, ask_node, command, home_of, show

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    backup = command(
        commands,
        "backup",
        help="copy a home to one file, while its node runs or not",
        example="p2pmed backup --home clinic-a /media/stick",
    )
    add_home(backup)
    backup.add_argument("file", type=Path, help="a new file, or a folder to put it in")
    backup.add_argument("--force", action="store_true", help="replace the file if it is there")
    backup.set_defaults(run=_backup)
    restore = command(
        commands,
        "restore",
        help="make a home from a backup; it does not vote until `mesh resume`",
        example="p2pmed restore /media/stick/clinic-a-2024-05-02-101500.p2pmed-backup clinic-a",
    )
    restore.add_argument("file", type=Path, help="the backup")
    restore.add_argument("folder", type=Path, help="the new home")
    add_json(restore)
    restore.set_defaults(run=_restore)


def _backup(parsed: argparse.Namespace) -> int:
    from p2pmed.node.backup import back_up_stopped, is_running, place_of

    home = home_of(parsed)
    if is_running(home):
        values = {"file": str(parsed.file.absolute()), "force": parsed.force}
        answer = ask_node(parsed, "backup.make", values)
    else:
        path = place_of(home, parsed.file, time.time_ns() // 1_000_000)
        answer = back_up_stopped(home, path, force=parsed.force)
    return show(parsed, answer, lines=_backup_lines)


def _backup_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"backed up to {answer['file']} ({size_text(answer['bytes'])})",
        "keep the passphrase elsewhere: the backup cannot be opened without it",
    ]


def _restore(parsed: argparse.Namespace) -> int:
    from p2pmed.node.backup import restore_home

    answer = restore_home(parsed.file, parsed.folder)
    return show(parsed, answer, lines=_restore_lines)


def _restore_lines(answer: Mapping[str, Any]) -> list[str]:
    return [
        f"restored to {answer['home']}",
        "it starts a new author log and does not vote; when you are sure that no other copy of "
        "it runs: p2pmed mesh resume --help",
    ]
