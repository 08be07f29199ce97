"""Command groups that several families add to: ``import`` and ``export``."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["verbs"]


def verbs(commands: Any, name: str, *, help: str) -> Any:
    """The subcommands of group ``name``, which whoever comes first declares."""
    group: argparse.ArgumentParser | None = commands.choices.get(name)
    if group is None:
        group = commands.add_parser(name, help=help)
        found = group.add_subparsers(title="kinds", metavar="KIND", required=True)
        group.set_defaults(verbs=found)
    return group.get_default("verbs")
