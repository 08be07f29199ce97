"""The tutorials and how-to pages are true: what they tell people to run is run, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of one language, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in ``folder`` as a reader would; what was left running is stopped at the end."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "P2PMED_CHEAP_KEYSTORE": "1",
        "TMPDIR": str(folder),
    }
    trap = "trap 'for job in $(jobs -p); do kill $job 2>/dev/null || true; done; wait' EXIT\n"
    return subprocess.run(
        ["bash", "-euc", trap + script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_first_village_comes_about_as_written(tmp_path: Path) -> None:
    """Two clinics, a mesh, a patient, a record, a grant, a power cut: every command works."""
    done = run_shell("".join(blocks("tutorial/first-village.md", "sh")), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert "Mu and Tam (bft, 2 seats, quorum 2" in out
    assert out.count("Encounter") == 3, "at A, at B after the grant, and at A after the power cut"
    assert "final" in out


PROGRAMS = sorted(
    str(path.relative_to(DOCS))
    for folder in ("tutorial", "howto", "reference", "explanation")
    for path in (DOCS / folder).glob("*.md")
    if "```python" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_programs_of_a_page_run(page: str, tmp_path: Path) -> None:
    """All Python of a page, put together in order, is one program that runs without a warning."""
    (tmp_path / "program.py").write_text("".join(blocks(page, "python")), encoding="utf-8")
    done = run_shell("python -W error program.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for shown in blocks(page, "text"):
        for line in shown.splitlines():
            assert line in done.stdout, f"{line!r} is not printed:\n{done.stdout}"
