"""Transaction types that installed applications register (entry points ``p2pmed.transactions``)."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Final

from p2pmed.medical.registry import Kind

__all__ = ["GROUP", "discovered_kinds"]

GROUP: Final = "p2pmed.transactions"


def discovered_kinds() -> list[Kind[Any]]:
    """Kinds of every installed application but our own; each entry point gives a callable."""
    found: list[Kind[Any]] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.value.partition(":")[0] != "p2pmed.medical":
            found.extend(point.load()())
    return found
