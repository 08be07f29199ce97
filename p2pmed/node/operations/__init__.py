"""What people and other programs ask of a node: JSON in, JSON out, one table.

The command line and the local HTTP face both call these, so that a command does the same whether
the node is running (asked over its control socket) or not (opened for the one question).

An operation takes the node, its arguments (plain JSON values; ids and keys in hex) and ``report``
(progress, plain JSON values), and returns a plain JSON object. It raises ``P2pmedError`` with one
clear sentence. One module per family; each has an ``OPERATIONS`` table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final

from p2pmed.node.operations.arguments import Arguments, Operation, Report

__all__ = ["FAMILIES", "Arguments", "Operation", "Report", "operations"]

FAMILIES: Final = (
    "general",
    "sessions",
    "mesh",
    "seats",
    "bundle",
    "backup",
    "fhir",
    "foreign",
    "patients",
    "consent",
    "cards",
    "emergency",
    "summary",
    "find",
    "drugs",
    "claims",
    "refer",
    "consult",
    "surgery",
    "case",
    "proofs",
    "evidence",
    "rows",
)
"""Modules of this package that have operations."""


@cache
def operations() -> Mapping[str, Operation]:
    """Every operation by its name, ``family.verb``."""
    found: dict[str, Operation] = {}
    for family in FAMILIES:
        module = import_module(f"{__name__}.{family}")
        found.update(module.OPERATIONS)
    return found
