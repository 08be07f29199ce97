"""``p2pmed demo``: the main job, end to end, on real processes, sockets, disks and records."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_json, command, run_async

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare ``demo``."""
    parser = command(
        commands,
        "demo",
        help="three clinics, a pharmacy, an insurer and a county hospital on this machine",
        example="p2pmed demo --records DIR --patients 20",
    )
    parser.add_argument(
        "--records", type=Path, help="folder of FHIR R4 bundles (else a village day is made up)"
    )
    parser.add_argument("--patients", type=int, default=24, help="how many of them (default 24)")
    parser.add_argument("--folder", type=Path, help="where the homes go (default: a new folder)")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from p2pmed.cli.demo.script import play

    report = run_async(
        play(
            records=parsed.records,
            patients=parsed.patients,
            folder=parsed.folder,
            quiet=parsed.json,
        )
    )
    if parsed.json:
        print(json.dumps(report, ensure_ascii=False))
    return 0 if report["ok"] else 1
