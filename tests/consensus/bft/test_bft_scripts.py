"""Scripted conversations with recorded outcomes: ``scripts/*.txt``, spelled as ``script`` says.

To record an outcome anew, run this module as a program with the script's name, and read it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from script import Script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))
RULE = "----\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_ends_as_recorded(path: Path) -> None:
    """The engines do, in this order, what a reader of the rules would expect of them."""
    commands, outcome = path.read_text(encoding="utf-8").split(RULE)
    assert Script().run(commands) == outcome


def test_there_are_scripts() -> None:
    """The folder was found."""
    assert len(SCRIPTS) >= 20


if __name__ == "__main__":
    for name in sys.argv[1:]:
        script = Path(name)
        head = script.read_text(encoding="utf-8").split(RULE)[0]
        script.write_text(head + RULE + Script().run(head), encoding="utf-8")
