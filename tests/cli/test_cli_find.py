"""``find`` and ``link`` as typed: what is printed, and the status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main
from p2pmed.node.setup import create_network, init_home, self_enrol

PASSPHRASE = "for these tests only"
Typed = Callable[..., str]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Type a command about an enrolled clinic's home; what it prints."""
    create_network(tmp_path / "authority", "Shan", PASSPHRASE, cheap=True)
    home = tmp_path / "clinic"
    init_home(
        home, name="Mu clinic", roles=["clinic"], place="shan", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(tmp_path / "authority", PASSPHRASE, home, PASSPHRASE)
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("P2PMED_HOME", str(home))
    capsys.readouterr()

    def run(line: str, *more: Any, status: int = 0) -> str:
        assert main([*line.split(), *map(str, more)]) == status
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return out if status == 0 or out else err

    return run


def test_a_duplicate_found_linked_and_taken_apart(typed: Typed) -> None:
    """From the first search to the last word, as staff would type it."""
    assert "find begin" in typed("find patient --name Wang", status=1)
    one = typed("patient register --family Wang --given Mei --birth-date 1985-03-12").split()[1]
    other = typed("patient register --family 王 --given 梅 --birth-date 1985-12-03").split()[1]
    assert typed("find begin").startswith("stored")
    out = typed("find patient --name 王梅")
    assert one in out
    assert other in out
    found = json.loads(typed("find patient --name 王梅 --birth 1985-03-12 --json"))
    assert [row["patient"] for row in found["patients"]] == [one, other]
    assert "check digit" in typed("find patient --identifier 110105194912310021")
    assert typed("find patient --name Smith").startswith("nobody")

    assert typed("find begin --linkage").startswith("stored")
    assert "day-and-month-swapped" in typed("link candidates")
    link = json.loads(typed(f"link join {one} {other} --reason same-card --score 94 --json"))
    assert "same-card" in typed(f"link show {one}")
    assert typed("link candidates").startswith("nobody")
    assert typed(f"link undo {one} {link['link'][:8]} --reason two-sisters").startswith("stored")
    assert "taken back" in typed(f"link show {other}")


def test_a_record_by_its_code(typed: Typed, tmp_path: Path) -> None:
    """Found by the code, and by nothing else; ``index`` has nothing left to do."""
    patient = typed("patient register --family Wang --given Mei").split()[1]
    visit = tmp_path / "visit.json"
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "E11.9"}]}
    visit.write_text(json.dumps({"resourceType": "Condition", "code": code}))
    typed(f"patient add {patient[:8]}", visit)
    typed("find begin")
    assert patient in typed("find record --code E11")
    assert typed("find record --code A00").startswith("no record")
    assert "0" in typed("find index")
    assert "a code is needed" in typed("find record", status=1)
