"""What commands share: options, passphrases, asking a node, showing the answer.

A command that concerns a home asks the running node over its control socket; if none runs, it
opens the home itself, without network, for the one question.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from p2pmed.errors import ConfigError

__all__ = [
    "add_home",
    "add_json",
    "add_passphrase",
    "ask_node",
    "command",
    "passphrase_of",
    "run_async",
    "show",
]

HOME_VARIABLE: Final = "P2PMED_HOME"
PASSPHRASE_VARIABLE: Final = "P2PMED_PASSPHRASE"  # noqa: S105 (a name)
PASSPHRASE_BYTES_MAX: Final = 4_096

T = TypeVar("T")


def command(commands: Any, name: str, *, help: str, example: str) -> argparse.ArgumentParser:
    """Declare a command with a help text that ends in an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_home(parser: argparse.ArgumentParser) -> None:
    """``--home``: which node."""
    default = os.environ.get(HOME_VARIABLE)
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(default) if default else None,
        help=f"the node's folder (or {HOME_VARIABLE})",
    )
    add_passphrase(parser)
    add_json(parser)


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """``--passphrase-file``."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        help=f"file with the passphrase (or {PASSPHRASE_VARIABLE}); asked for otherwise",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def home_of(parsed: argparse.Namespace) -> Path:
    """The home that was named. Raises ``ConfigError`` if none was."""
    if parsed.home is None:
        raise ConfigError("which node?", hint=f"give --home FOLDER, or set {HOME_VARIABLE}")
    return Path(parsed.home)


def passphrase_of(parsed: argparse.Namespace, *, confirm: bool = False) -> str:
    """From the file, the environment, or the terminal, in this order."""
    if getattr(parsed, "passphrase_file", None):
        raw = Path(parsed.passphrase_file).read_bytes()[: PASSPHRASE_BYTES_MAX + 1]
        if len(raw) > PASSPHRASE_BYTES_MAX:
            raise ConfigError("the passphrase file is too long to be one")
        return raw.decode("utf-8", "replace").rstrip("\r\n")
    from_environment = os.environ.get(PASSPHRASE_VARIABLE)
    if from_environment is not None:
        return from_environment
    if not sys.stdin.isatty():
        raise ConfigError(
            "a passphrase is needed",
            hint=f"give --passphrase-file FILE, or set {PASSPHRASE_VARIABLE}",
        )
    given = getpass.getpass("passphrase: ")
    if confirm and getpass.getpass("again: ") != given:
        raise ConfigError("the two passphrases differ")
    return given


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work on the event loop of ``aio/loop.py``."""
    from p2pmed.aio.loop import run

    return run(work)


def ask_node(
    parsed: argparse.Namespace,
    operation: str,
    values: Mapping[str, Any] | None = None,
    *,
    report: Callable[[dict[str, Any]], None] = lambda progress: None,
) -> dict[str, Any]:
    """The answer of the node in ``--home``, running or not. Raises ``P2pmedError``."""
    return run_async(_ask(parsed, operation, dict(values or {}), report))


async def _ask(
    parsed: argparse.Namespace,
    operation: str,
    values: dict[str, Any],
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    from p2pmed.node.node import open_node
    from p2pmed.node.operations import Arguments, operations
    from p2pmed.web.control import ask, is_served

    home = home_of(parsed)
    if await is_served(home):
        return await ask(home, operation, values, report)
    async with open_node(home, passphrase=passphrase_of(parsed), network=False) as node:
        return await operations()[operation](node, Arguments(values), report)


def show(
    parsed: argparse.Namespace,
    answer: Mapping[str, Any],
    *,
    lines: Callable[[Mapping[str, Any]], list[str]] | None = None,
) -> int:
    """Print an answer: as JSON if asked, else by ``lines``, else field by field; status 0."""
    if parsed.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif lines is not None:
        print("\n".join(lines(answer)))
    else:
        width = max((len(name) for name in answer), default=0)
        for name, value in answer.items():
            print(f"{name:<{width}}  {_plain(value)}")
    return 0


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
