"""Every example is a program that runs by itself, shows what it says, and leaves nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES_MAX = 60
PUBLIC = {"p2pmed", "p2pmed.medical", "p2pmed.testing"}

SHOWN = {
    "village_clinic.py": [
        "the visit is stored",
        "the visit is replicated(2)",
        "the visit is final at height",
        "Tam sees: Patient, Encounter",
        "Keng sees: sealed, sealed",
    ],
    "pharmacy.py": [
        "the pack is genuine, held",
        "dispensed: applied",
        "the pack is do not use, dispensed",
        "a clone of it elsewhere: unit_dispensed; 1 discrepancy",
    ],
    "county_hospital.py": [
        "in the village: final at height",
        "at the clinic: anchored",
        "can read 0",
    ],
    "embed_in_aiohttp.py": ["201 {", "'level': 'stored'", "the neighbour has it: "],
    "custom_transaction.py": [
        "reading 1: applied",
        "reading 2: applied",
        "reading 7: reference_mismatch",
    ],
}
"""What each prints, in this order."""

found = sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_every_example_is_run_here() -> None:
    """An example that no test runs does not exist."""
    assert found == sorted(SHOWN)


@pytest.mark.parametrize("name", found)
def test_an_example_runs_and_shows_what_it_promises(name: str, tmp_path: Path) -> None:
    """It exits with 0 within a minute, warns of nothing, prints its lines in order, and leaves
    no file behind.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    at = 0
    for line in SHOWN[name]:
        at = done.stdout.find(line, at)
        assert at >= 0, f"{line!r} is missing or out of order in:\n{done.stdout}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", found)
def test_an_example_is_short_and_uses_public_names_only(name: str) -> None:
    """Whoever reads it learns one idea, and nothing they may not rely on."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LINES_MAX
    tree = ast.parse(source)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("p2pmed"):
            assert node.module in PUBLIC
            assert not any(alias.name.startswith("_") for alias in node.names)
