"""``p2pmed sim``: what it counts, what it says of a zero, and its status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pmed.cli import main


def _told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    answer: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return answer


def test_counts_accumulate_and_the_bound_on_a_zero_shrinks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed run goes on with the next seed; beside a zero stands three over the seeds."""
    arguments = ["sim", "--scenario", "raft", "--seeds", "1", "--json"]
    resume = ["--resume", str(tmp_path / "counts.json")]
    assert main([*arguments, *resume]) == 0
    first = _told(capsys)
    assert (first["seeds"], first["violations"], first["undetected_at_most"]) == (1, [], 3.0)
    assert main([*arguments, *resume]) == 0
    second = _told(capsys)
    assert (second["seeds"], second["undetected_at_most"]) == (2, 1.5)
    assert main(["sim", "--scenario", "raft", "--seeds", "1", "--first", "1", "--json"]) == 0
    assert second["events"] - first["events"] == _told(capsys)["events"]  # type: ignore[operator]


def test_counts_of_another_scenario_are_not_mixed_in(tmp_path: Path) -> None:
    """A bound for one scenario says nothing of another."""
    resume = ["--seeds", "1", "--resume", str(tmp_path / "counts.json"), "--json"]
    assert main(["sim", "--scenario", "raft", *resume]) == 0
    assert main(["sim", "--scenario", "bft", *resume]) == 1


def test_a_planted_defect_that_is_found_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """The status is about the checkers: 0 when they find it."""
    arguments = ["sim", "--planted", "final before durable", "--seeds", "1", "--json"]
    assert main(arguments) == 0
    assert _told(capsys)["found"] == {"final before durable": 0}


def test_an_unknown_defect_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert main(["sim", "--planted", "nothing of the kind"]) == 1
    assert "vote before sync" in capsys.readouterr().err
