"""Defects on purpose: each breaks one rule of the node, and the checkers must find each.

A simulator that finds nothing has proved nothing. Every defect here is one that was made, in
this code or in another's, and each is found by the general checkers of ``checkers.py`` within
``found_within`` seeds of the village scenario; ``p2pmed sim --planted all`` shows it.

Rule: production code has no switch. A defect is a subclass or an injected engine, reachable
through ``Simulation(planted=...)`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from p2pmed.node.replica import Replica

__all__ = ["PLANTED", "Plant", "plant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """One defect; the default is none."""

    rule: str = ""
    """The rule that it breaks."""
    promise: str = ""
    """What must be reported for it, at least once (``checkers.py``)."""
    engine: str = "bft"
    """Engine of the village in which it is looked for."""
    found_within: int = 1
    """Seeds, counted from 1, of which one at least must find it."""
    early_flush: bool = False
    """The disk says *durable* before the flush."""
    replica: Callable[..., Replica] = Replica
    engines: dict[str, Any] | None = None


PLANTED: dict[str, Plant] = {}


def plant(name: str) -> Plant:
    """The defect called ``name``. Raises ``KeyError``."""
    return PLANTED[name]
