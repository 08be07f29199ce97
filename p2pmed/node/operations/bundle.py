"""Bundles: writing one, taking one in, and saying what is here.

``file`` and ``since`` are absolute paths: a running node has a working folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.stick import NOTHING, describe_known, export_bundle, read_known
from p2pmed.node.stick_import import import_bundle

__all__ = ["OPERATIONS"]


def _path(arguments: Arguments, name: str) -> Path:
    path = Path(arguments.text(name))
    if not path.is_absolute():
        raise ConfigError(f"{name}: an absolute path is needed")
    return path


async def export(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write all that is here, or what ``since`` lacks, to the new file ``file``."""
    known = NOTHING
    if arguments.text("since", None) is not None:
        known = await asyncio.to_thread(read_known, _path(arguments, "since"), node.network)
    path, force = _path(arguments, "file"), arguments.flag("force")
    return await export_bundle(node, path, known=known, force=force, report=report)


async def take_in(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take in the bundle ``file``."""
    return await import_bundle(node, _path(arguments, "file"), report=report)


async def have(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What is here, for ``since`` of somebody else's export."""
    return describe_known(node)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "bundle.export": export,
    "bundle.import": take_in,
    "bundle.have": have,
}
