"""Scripts of Raft conversations print what is written in them (``raft_script.py`` says how).

``P2PMED_WRITE_SCRIPTS=1`` writes what they print now, to be read before it is believed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import raft_script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    """What the cores do is what the script says they do."""
    played = raft_script.replay(path)
    if os.environ.get("P2PMED_WRITE_SCRIPTS"):
        path.write_text(played, encoding="utf-8")
    assert played == path.read_text(encoding="utf-8")


def test_there_are_scripts() -> None:
    """The folder was found."""
    assert len(SCRIPTS) >= 25
