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


def test_counts_of_scenarios_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bound for one scenario says nothing of another: one file, a count for each."""
    path = tmp_path / "counts.json"
    resume = ["--seeds", "1", "--resume", str(path), "--json"]
    for scenario in ("raft", "bft", "raft"):
        assert main(["sim", "--scenario", scenario, *resume]) == 0
    capsys.readouterr()
    counts = json.loads(path.read_text())
    assert {name: total["played"] for name, total in counts.items()} == {"raft": 2, "bft": 1}


@pytest.mark.parametrize("text", ["", "[]", '{"raft": {"seeds": 3}}'])
def test_a_file_of_something_else_is_no_count(tmp_path: Path, text: str) -> None:
    """It is refused, and left as it was."""
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main(["sim", "--scenario", "raft", "--seeds", "1", "--resume", str(path)]) == 1
    assert path.read_text() == text


def test_a_planted_defect_that_is_found_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """The status is about the checkers: 0 when they find it."""
    arguments = ["sim", "--planted", "final before durable", "--seeds", "1", "--json"]
    assert main(arguments) == 0
    assert _told(capsys)["found"] == 1


def test_an_unknown_defect_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert main(["sim", "--planted", "nothing of the kind"]) == 1
    assert "vote before sync" in capsys.readouterr().err
