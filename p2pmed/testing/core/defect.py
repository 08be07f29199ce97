"""A defect planted in an engine, and the helpers that its authors share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from p2pmed.testing.core.patching import Patch, Plant

__all__ = ["CoreDefect", "defect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreDefect:
    """A mistake of one rule; see ``testing/scenarios.py`` for who reads it."""

    engine: str
    rule: str
    """The rule that it breaks."""
    source: str
    """Where the rule stands, or which system broke it."""
    promise: str
    """Under which name it is reported, among others perhaps."""
    found_within: int
    """Seeds, counted from 0, of which at least one must find it."""
    plant: Plant


def defect(
    engine: str, rule: str, source: str, promise: str, plant: Any, *, within: int = 100
) -> CoreDefect:
    """A row of a table of defects."""
    return CoreDefect(
        engine=engine,
        rule=rule,
        source=source,
        promise=promise,
        found_within=within,
        plant=plant,
    )


def set_to(owner: Any, name: str, value: Any) -> Plant:
    """The defect that is one replaced attribute."""

    def plant(patch: Patch) -> None:
        patch(owner, name, value)

    return plant
