"""A story is made short without losing what breaks, and kept in a file that people can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import ConfigError
from p2pmed.testing.scenario import SeedOptions
from p2pmed.testing.shrinking import Story, ddmin, read_story, shrink, write_story
from p2pmed.testing.village import play

STORY = Story(
    scenario="village",
    seed=3,
    engine="bft",
    planted="",
    promise="one truth",
    steps=({"n": 1, "at_ms": 5, "do": "write"}, {"n": 2, "at_ms": 9, "do": "power cut"}),
)


def test_only_what_is_needed_is_left() -> None:
    """Of a hundred steps the three that break it together, in their order."""
    steps = [{"n": n} for n in range(100)]
    needed = [{"n": 7}, {"n": 50}, {"n": 93}]
    asked = []

    def breaks(kept: Any) -> bool:
        asked.append(len(kept))
        return all(step in kept for step in needed)

    assert ddmin(steps, breaks) == needed
    assert len(asked) < 120


def test_tries_have_an_end() -> None:
    """What is left then still breaks."""
    steps = [{"n": n} for n in range(64)]
    kept = ddmin(steps, lambda some: {"n": 9} in some, tries_max=3)
    assert {"n": 9} in kept
    assert len(kept) < 64


def test_a_story_comes_back_from_its_file(tmp_path: Path) -> None:
    """A step a line."""
    path = tmp_path / "story.json"
    write_story(path, STORY)
    assert read_story(path) == STORY
    assert '    {"n": 2, "at_ms": 9, "do": "power cut"}\n' in path.read_text()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"scenario": 1, "seed": 1, "engine": "", "planted": "", "promise": "", '
     '"steps": []}', '{"scenario": "village", "seed": 1, "engine": "", "planted": "", '
     '"promise": "", "steps": [1]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """It is told what is wrong, and nothing is played."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_story(path)


@pytest.mark.timeout(300)
def test_a_failing_seed_becomes_a_short_story() -> None:
    """Dozens of steps become few, and the same promise breaks when they are played."""
    options = SeedOptions(planted="final before durable")
    report = play(0, options)
    assert report.violations
    story = shrink(play, report, options, tries_max=20)
    assert len(story.steps) <= len(report.story)
    assert story.promise in play(story.seed, story.options).promises
