"""A failing seed becomes a short story in a file: delta debugging over its steps.

The minimising is ddmin (Zeller and Hildebrandt 2002, figure 3): parts of the story are left out,
ever smaller ones, as long as *the same promise* still breaks. A story that breaks it is played
from its file by ``p2pmed sim --replay FILE``, and kept as a regression test.

The file is JSON, a step a line: to be read, and to be shortened further by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.testing.scenario import Play, SeedOptions, SeedReport, Step

__all__ = ["Story", "ddmin", "read_story", "shrink", "write_story"]

TRIES_MAX: Final = 400
"""Plays that one shrinking may cost."""
STEPS_MAX: Final = 100_000
STORY_BYTES_MAX: Final = 16 << 20
_FIELDS: Final = {"scenario": str, "seed": int, "engine": str, "planted": str, "promise": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a file holds."""

    scenario: str
    seed: int
    engine: str
    planted: str
    """The defect that is switched on; empty for none."""
    promise: str
    """What breaks when this is played; empty if it broke once and was mended."""
    steps: tuple[Step, ...]

    @property
    def options(self) -> SeedOptions:
        """How to play it."""
        return SeedOptions(planted=self.planted, engine=self.engine, steps=self.steps)


def ddmin(
    steps: Sequence[Step], breaks: Callable[[Sequence[Step]], bool], *, tries_max: int = TRIES_MAX
) -> list[Step]:
    """A short list of ``steps``, in their order, for which ``breaks`` still says yes.

    No single step of it can be left out, unless ``tries_max`` questions were not enough.
    ``breaks(steps)`` is taken for granted.
    """
    kept, parts, tries = list(steps), 2, 0
    while kept and tries < tries_max:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            tries += 1
            if breaks(fewer):
                kept, parts = fewer, max(parts - 1, 2)
                break
            if tries >= tries_max:
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), 2 * parts)
    return kept


def shrink(
    play: Play, report: SeedReport, options: SeedOptions, *, tries_max: int = TRIES_MAX
) -> Story:
    """The short story of ``report``, which must have violations and a story."""
    promise = report.violations[0].split(": ")[1]

    def breaks(steps: Sequence[Step]) -> bool:
        again = play(report.seed, replace(options, steps=tuple(steps)))
        return promise in again.promises

    steps = report.story
    if breaks(steps):
        steps = tuple(ddmin(steps, breaks, tries_max=tries_max))
    return Story(
        scenario=report.scenario,
        seed=report.seed,
        engine=options.engine,
        planted=options.planted,
        promise=promise,
        steps=steps,
    )


def write_story(path: Path, story: Story) -> None:
    """One field a line, one step a line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(getattr(story, name))}," for name in _FIELDS]
    steps = ",\n".join("    " + json.dumps(step) for step in story.steps)
    text = "{\n" + "\n".join(lines) + '\n  "steps": [\n' + steps + "\n  ]\n}\n"
    path.write_text(text, encoding="utf-8")


def read_story(path: Path) -> Story:
    """The story in a file. Raises ``ConfigError`` if it holds none."""
    try:
        if path.stat().st_size > STORY_BYTES_MAX:
            raise ConfigError(f"{path} is longer than {STORY_BYTES_MAX >> 20} MB: no story")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a story: {error}") from None
    hint = "make one with `p2pmed sim --shrink`"
    if not isinstance(found, dict) or set(found) != {*_FIELDS, "steps"}:
        raise ConfigError(f"{path} holds no story", hint=hint)
    for name, kind in _FIELDS.items():
        if type(found[name]) is not kind:
            raise ConfigError(f"{path}: {name} is not a {kind.__name__}", hint=hint)
    steps: Any = found.pop("steps")
    if not isinstance(steps, list) or len(steps) > STEPS_MAX:
        raise ConfigError(f"{path}: steps is not a list of at most {STEPS_MAX}", hint=hint)
    if not all(isinstance(step, dict) for step in steps):
        raise ConfigError(f"{path}: a step is an object", hint=hint)
    return Story(steps=tuple(steps), **found)
