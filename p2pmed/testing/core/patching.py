"""Attributes replaced for the length of a run, and put back whatever happens.

Defects are planted and limits lowered this way, in the simulator only: production code has no
switch. A name that is not there is an error, so that no defect goes stale unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from p2pmed.errors import InvariantError

__all__ = ["Patch", "Plant", "patched"]

Patch: TypeAlias = Callable[[Any, str, Any], None]
"""``patch(owner, name, value)``."""
Plant: TypeAlias = Callable[[Patch], None]
"""Makes its changes through the ``patch`` that it is given."""


@contextmanager
def patched(plant: Plant) -> Iterator[None]:
    """The changes of ``plant`` hold inside; raises ``InvariantError`` for an unknown name."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        if name not in vars(owner):
            raise InvariantError(f"{owner!r} has no {name} to be replaced")
        undo.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    try:
        plant(patch)
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)
