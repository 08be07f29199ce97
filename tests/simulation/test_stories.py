"""Stories that once broke a promise: with their defect they still do, and without it none does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from p2pmed.testing.scenarios import play_of
from p2pmed.testing.shrinking import read_story

STORIES = sorted((Path(__file__).parent / "scenarios").glob("*.json"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_breaks_its_promise_with_its_defect_alone(path: Path) -> None:
    """A regression test that cannot fail is none: the defect shows that it can."""
    story = read_story(path)
    play = play_of(story.scenario)
    if story.planted:
        assert story.promise in play(story.seed, story.options).promises
    mended = replace(story.options, planted="", engine=story.engine)
    assert play(story.seed, mended).violations == ()


def test_there_are_stories() -> None:
    """The folder is found."""
    assert STORIES
