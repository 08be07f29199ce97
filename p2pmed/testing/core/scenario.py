"""The scenarios ``raft`` and ``bft`` of ``p2pmed sim``: engines alone, one seed each.

A planted defect is switched on around the run by ``patching.patched``; nothing else differs.
"""

from __future__ import annotations

from contextlib import nullcontext

from p2pmed.testing.core.patching import patched
from p2pmed.testing.core.planted import DEFECTS
from p2pmed.testing.core.story import Run, draw_cast, draw_story
from p2pmed.testing.scenario import SeedOptions, SeedReport

__all__ = ["play_bft", "play_raft"]


def play_bft(seed: int, options: SeedOptions) -> SeedReport:
    """One seed of a BFT mesh. Raises ``KeyError`` for an unknown defect."""
    return _play("bft", seed, options)


def play_raft(seed: int, options: SeedOptions) -> SeedReport:
    """One seed of a Raft mesh. Raises ``KeyError`` for an unknown defect."""
    return _play("raft", seed, options)


def _play(engine: str, seed: int, options: SeedOptions) -> SeedReport:
    cast = draw_cast(engine, seed)
    drawn = draw_story(engine, seed, cast.seats)
    story = drawn if options.steps is None else options.steps
    planted = patched(DEFECTS[options.planted].plant) if options.planted else nullcontext()
    with planted:
        return Run(cast, seed, story).play()
