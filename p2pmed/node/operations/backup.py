"""A backup of the home that a node runs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.node.backup import copy_home, place_of
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.stick import in_thread
from p2pmed.storage.sqlite import SqliteDisk

__all__ = ["OPERATIONS"]


async def make(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Copy the home to the absolute path ``file``, a new file or a folder, while the node runs."""
    disk = node.world.disk
    path = Path(arguments.text("file"))
    if not path.is_absolute():
        raise ConfigError("file: an absolute path is needed")
    if not isinstance(disk, SqliteDisk):
        raise ConfigError("this node keeps its rows elsewhere than in a home")
    home = disk.path.parent
    path = await in_thread(place_of, home, path, node.world.clock.wall_ms())
    force = arguments.flag("force")
    return await in_thread(lambda: copy_home(home, path, force=force))


OPERATIONS: Final[Mapping[str, Operation]] = {"backup.make": make}
