# ruff: noqa: E501  (prose keeps one sentence per line)
"""Writes ``docs/reference/command-line.md`` from the parsers themselves.

Run ``python docs/_ext/command_line.py`` after a command changed; a test compares. It reads the
parsers and not their help text, which differs between versions of Python and terminals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[1] / "reference" / "command-line.md"

HEAD = """\
# Command line

Written by `docs/_ext/command_line.py` from the parsers; a test keeps it true.

`p2pmed COMMAND --help` says the same in a terminal; `python -m p2pmed` is the same program.

A command that concerns a home asks the running node over its control socket; if none runs, it opens the home itself, without network, for the one question.
`--json` prints one JSON object.
The exit status is 0, or 1 with one sentence on standard error and a hint, or 2 for a wrong command line.

| variable | meaning |
|---|---|
| `P2PMED_HOME` | the home, where `--home` is not given |
| `P2PMED_PASSPHRASE` | the passphrase; otherwise `--passphrase-file`, or it is asked for |
| `P2PMED_DEBUG` | show a traceback where p2pmed fails by its own fault |
| `P2PMED_CHEAP_KEYSTORE` | seal new keystores at the least cost that is still sound: for tests and demonstrations |
"""

EVERYWHERE = {"--home", "--passphrase-file", "--json"}
"""Options that are explained once."""


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every parser that runs something, depth first, in the order of the help text."""
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for action in nested:
        for child in action.choices.values():
            yield from commands(child)


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        name = str(action.metavar or action.dest)
        return f"`{name}`" if action.nargs not in ("*", "+") else f"`{name} ...`"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _about(action: argparse.Action) -> str:
    said = [action.help or ""]
    if action.choices and not isinstance(action, argparse._SubParsersAction):
        said.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    if isinstance(action, argparse._AppendAction):
        said.append("may be repeated")
    if action.required and action.option_strings:
        said.append("required")
    shown = action.default not in (None, False, "", argparse.SUPPRESS, []) and action.option_strings
    if shown and "default" not in said[0] and not isinstance(action.default, Path):
        said.append(f"default `{action.default}`")
    return "; ".join(part for part in said if part).replace("|", "\\|")


def _section(parser: argparse.ArgumentParser) -> str:
    rows = [
        (_name(action), _about(action))
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
        and not EVERYWHERE.intersection(action.option_strings)
    ]
    shared = sorted(
        option for a in parser._actions for option in a.option_strings if option in EVERYWHERE
    )
    lines = [f"## `{parser.prog}`", "", f"{parser.description or ''}".strip().capitalize() + "."]
    if rows:
        lines += ["", "| argument | meaning |", "|---|---|"]
        lines += [f"| {name} | {about} |" for name, about in rows]
    if shared:
        lines += ["", "Also " + ", ".join(f"`{option}`" for option in shared) + "."]
    example = (parser.epilog or "").removeprefix("example:").strip("\n")
    if example:
        lines += ["", "```console"]
        lines += [f"$ {line.strip()}" for line in example.splitlines() if line.strip()]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    from p2pmed.cli import build_parser

    sections = [_section(parser) for parser in commands(build_parser())]
    return HEAD + "\n" + "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
