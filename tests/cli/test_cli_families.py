"""``patient``, ``drugs``, ``trace`` and ``claim`` as typed: what is printed, and the status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import build_parser, main, progress
from p2pmed.cli.columns import columns, when, who
from p2pmed.node.setup import create_network, init_home, self_enrol

PASSPHRASE = "for these tests only"
GTIN = "09506000134352"
Typed = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An enrolled clinic."""
    create_network(tmp_path / "authority", "Shan", PASSPHRASE, cheap=True)
    folder = tmp_path / "clinic"
    init_home(
        folder, name="Mu clinic", roles=["clinic"], place="shan", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(tmp_path / "authority", PASSPHRASE, folder, PASSPHRASE)
    return folder


@pytest.fixture
def typed(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command about the home; what it prints."""
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("P2PMED_HOME", str(home))

    def run(line: str, *more: Any, status: int = 0) -> str:
        assert main([*line.split(), *map(str, more)]) == status
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return out if status == 0 or out else err

    return run


def test_a_patients_day_at_the_counter(typed: Typed, tmp_path: Path) -> None:
    """Registered, seen, read back; the same as JSON; a slip is a sentence."""
    out = typed("patient register --family Wang --given Mei --birth-date 1985-03-12")
    patient = out.split()[1]
    visit = tmp_path / "visit.json"
    visit.write_text('{"resourceType":"Encounter","type":[{"text":"Fever"}]}')
    assert typed(f"patient add {patient[:8]}", visit).startswith("stored")
    assert "Mei Wang" in typed("patient list")
    assert "Fever" in typed(f"patient timeline {patient[:8]}")
    assert "Fever" not in typed(f"patient timeline {patient[:8]} --as-of 2001-01-01")
    assert "Mu clinic (shan)" in typed(f"patient readers {patient[:8]}")
    assert len(json.loads(typed(f"patient timeline {patient} --json"))["records"]) == 2
    assert "names 0 patients" in typed("patient timeline 0000", status=1)
    wang = tmp_path / "wang.json"
    wang.write_text('{"resourceType":"Patient","name":[{"text":"Old Wang"}]}')
    typed("patient register", wang)
    assert "Old Wang" in typed("patient list")
    wang.write_bytes(b"\xff")
    assert "not JSON in UTF-8" in typed("patient register", wang, status=1)
    assert "No such file" in typed("patient register", tmp_path / "gone", status=1)


def test_packs_on_the_shelf_and_over_the_counter(typed: Typed) -> None:
    """What was refused prints its reason and ends with status 1, but is kept."""
    patient = typed("patient register --family Wang").split()[1]
    assert "3 packs" in typed(f"drugs commission {GTIN} L1 2090-03-31 --count 3 --prefix A")
    assert "3 packs" in typed("drugs stock")
    assert "genuine; held; last at Mu clinic" in typed(f"drugs verify {GTIN} A0001 L1 2090-03-31")
    assert "No_match_GTIN_Serial_Lot" in typed(f"drugs verify {GTIN} A0001 L2 2090-03-31", status=1)
    assert "unknown here" in typed(f"drugs verify {GTIN} X L1 2090-03-31", status=1)
    typed(f"drugs dispense {GTIN} A0001 {patient}")
    refused = typed(f"drugs dispense {GTIN} A0001 {patient}", status=1)
    assert "refused: unit_dispensed. This pack was handed out before." in refused
    assert "it contradicts" in refused
    traced = typed(f"trace {GTIN} A0001").splitlines()
    assert ["commissioned" in traced[0], "dispensed" in traced[1]] == [True, True]
    assert "dispensed" in typed(f"trace {GTIN} A0001 --backwards").splitlines()[0]
    assert "2 held" in typed(f"trace {GTIN} --lot L1")
    assert "this pack is unknown here" in typed(f"trace {GTIN} Z")
    assert "refused: role_missing" in typed(f"drugs recall {GTIN} L1 mould", status=1)
    assert "which pack?" in typed(f"trace {GTIN}", status=1)


def test_claims_are_named_when_they_cannot_be(typed: Typed, tmp_path: Path) -> None:
    """No product yet; terms that are none; a clinic that is no insurer."""
    assert "no product, policy or claim" in typed("claim show")
    terms = tmp_path / "terms.json"
    terms.write_text("[")
    assert "not a JSON object" in typed("claim product", terms, status=1)
    terms.write_text(
        json.dumps(
            {
                "product": "basic",
                "hospital": "Mu clinic",
                "allowed": ["var", "amount"],
                "ceiling": 100,
                "currency": "CNY",
            }
        )
    )
    assert "refused: role_missing" in typed("claim product", terms, status=1)
    assert "names 0 products" in typed("claim approve 0000", status=1)


def test_every_command_of_these_families_has_a_help_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the example begins with the command itself."""
    verbs = {
        "patient": "register list timeline add grant revoke readers",
        "drugs": "commission ship receive dispense recall verify stock",
        "claim": "product approve policy submit adjudicate show",
    }
    lines = [f"{group} {verb}" for group, names in verbs.items() for verb in names.split()]
    for line in [*lines, "trace"]:
        with pytest.raises(SystemExit):
            build_parser().parse_args([*line.split(), "--help"])
        assert f"  p2pmed {line} --home " in capsys.readouterr().out


def test_columns_are_as_wide_as_their_widest() -> None:
    """Nothing is a dash; no row, the sentence."""
    assert columns([("a", None), ("long", 5)], empty="-") == ["a     -", "long  5"]
    assert columns([], empty="nothing") == ["nothing"]
    assert who(None) == "?"
    assert who({"device": "ab" * 32, "name": None, "place": None}) == "ab" * 6
    assert (when(0), when(None), when(10**18)) == ("1970-01-01 00:00", "?", "?")


def test_progress_goes_to_standard_error_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing with ``--json``, a line now and then in a pipe, a bar on a terminal."""
    step = {"done": 1, "of": 2, "what": "files", "resources_per_s": 900}
    monkeypatch.setattr(progress, "LINE_S", 0)
    printed = []
    for quiet, terminal in ((True, True), (False, False), (False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with progress.progress_bar(quiet=quiet) as report:
            report(step)
        out, err = capsys.readouterr()
        assert out == ""
        printed.append(err)
    assert printed[0] == ""
    assert printed[1] == "1 of 2 files  900 resources/s\n"
    assert printed[2] != printed[1]
