"""The README is true: its commands and its program run as they stand, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_commands_and_the_program_run_as_they_stand(tmp_path: Path) -> None:
    """Five commands make an enrolled home, and the ten-line program records a visit in it."""
    (shell,) = blocks("sh")
    (program,) = blocks("python")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    words = re.search(r"It prints `([^`]+)`", README)
    assert words is not None
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "P2PMED_CHEAP_KEYSTORE": "1",
    }
    done = subprocess.run(
        ["bash", "-euc", f"{shell}\npython -W error program.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == words.group(1)


def test_the_program_is_short() -> None:
    """Embedding takes a dozen lines, or the README promises too much."""
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 11


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    """Whatever the README tells people to ``make`` can be made."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = set(re.findall(r"make ([a-z]+)`", README)) | set(
        re.findall(r"^\$ make ([a-z]+)$", README, re.MULTILINE)
    )
    assert {"demo", "test"} <= told <= targets


def test_every_page_it_points_to_is_there() -> None:
    """Links lead to files of this repository, and to no other host."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert not link.startswith("http")
        assert (ROOT / link).exists(), link


def test_one_sentence_stands_on_a_line() -> None:
    """Prose is kept one sentence per line, so that a change shows as one."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    for line in prose.splitlines():
        if not line.startswith(("|", "!", "#")):
            assert not re.search(r"[a-z)`][.?!] [A-Z`]", line), line
