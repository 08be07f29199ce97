"""How a defect gets into real code, for one seed, and out again.

Rule: production code has no switch. A defect is a subclass, an injected engine, or a *patch* of
real code, which is reachable through the simulator alone: ``sown`` puts patches in place while a
seed is played, in this process, and takes them out whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from p2pmed.consensus.interface import ConsensusEngine
from p2pmed.node.replica import Replica

__all__ = ["Patch", "Plant", "sown"]


@dataclass(frozen=True, slots=True)
class Patch:
    """One attribute of real code, replaced."""

    owner: str
    """``module``, or ``module:Class``."""
    name: str
    make: Callable[[Any], Any]
    """Given what stands there, what shall stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """One defect; the default is none."""

    rule: str = ""
    """The rule that it breaks."""
    source: str = ""
    """Where the rule stands, or which system broke it."""
    promise: str = ""
    """Under which name it is reported (``checkers.py``), among others perhaps."""
    engine: Literal["bft", "raft"] = "bft"
    """Engine of the village in which it is looked for."""
    found_within: int = 1
    """Seeds, counted from 0, of which at least one must find it."""
    early_flush: bool = False
    """The disk says *durable* before the flush."""
    replica: Callable[..., Replica] = Replica
    engines: Mapping[str, Callable[..., ConsensusEngine]] | None = None
    patches: tuple[Patch, ...] = ()


@contextmanager
def sown(plant: Plant) -> Iterator[None]:
    """The patches of a defect are in place meanwhile."""
    with ExitStack() as undo:
        for patch in plant.patches:
            module, _, name = patch.owner.partition(":")
            owner: Any = import_module(module)
            owner = getattr(owner, name) if name else owner
            original = getattr(owner, patch.name)
            undo.callback(setattr, owner, patch.name, original)
            setattr(owner, patch.name, patch.make(original))
        yield
