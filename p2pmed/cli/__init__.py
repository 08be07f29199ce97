"""The command line: ``p2pmed``, or ``python -m p2pmed``.

A module per command family; each has ``add(commands)`` that declares its parsers and a function
per command that returns an exit status. ``main`` turns every error into one clear sentence on
standard error, a hint where there is one, and a status that is not 0: no traceback reaches a
user unless ``P2PMED_DEBUG`` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from p2pmed.errors import DiskFull, P2pmedError, StorageError

__all__ = ["main"]

FAMILIES: Final = (
    "network",
    "run",
    "staff",
    "ask",
    "mesh",
    "sim",
    "demo",
    "bundle",
    "backup",
    "verify",
    "proof",
    "evidence",
    "doctor",
    "fhir",
    "foreign",
    "patient",
    "card",
    "emergency",
    "find",
    "refer",
    "consult",
    "surgery",
    "case",
    "drugs",
    "claims",
    "bench",
)
"""Modules of this package, in the order of the help text."""

STATUS_FAILED: Final = 1
STATUS_USAGE: Final = 2
STATUS_INTERRUPTED: Final = 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="p2pmed",
        description="Village clinics form mesh ledgers on a LAN without internet.",
        epilog="Start with: p2pmed demo",
    )
    from p2pmed import __version__

    parser.add_argument("--version", action="version", version=f"p2pmed {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in FAMILIES:
        import_module(f"p2pmed.cli.{family}").add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except P2pmedError as error:
        return _fail(str(error), error.hint, as_json=getattr(parsed, "json", False))
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_FAILED
    except OSError as error:
        failure = _from_system(error)
        return _fail(str(failure), failure.hint, as_json=getattr(parsed, "json", False))
    except Exception as error:
        if os.environ.get("P2PMED_DEBUG"):
            raise
        hint = "please report it; P2PMED_DEBUG=1 shows where"
        text = f"p2pmed failed by its own fault ({type(error).__name__})"
        return _fail(text, hint, as_json=getattr(parsed, "json", False))


def _from_system(error: OSError) -> P2pmedError:
    """The operating system's refusal, as one sentence."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno == 28:  # ENOSPC
        return DiskFull(f"the disk is full{where}", hint="free some room; nothing was lost")
    return StorageError(f"{error.strerror or type(error).__name__}{where}")


def _fail(text: str, hint: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text, "hint": hint}, ensure_ascii=False))
    print(f"p2pmed: {text}", file=sys.stderr)
    if hint:
        print(f"        {hint}", file=sys.stderr)
    return STATUS_FAILED
