"""``refer``, ``consult``, ``surgery`` and ``case`` as typed: what is printed, and the status."""

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
PROCEDURE = {
    "resourceType": "Procedure",
    "status": "preparation",
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "80146002"}]},
    "subject": {"reference": "Patient/x"},
}


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Type a command about an enrolled hospital's home; what it prints."""
    create_network(tmp_path / "authority", "Shan", PASSPHRASE, cheap=True)
    home = tmp_path / "hospital"
    init_home(
        home, name="County", roles=["hospital"], place="shan", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(tmp_path / "authority", PASSPHRASE, home, PASSPHRASE)
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("P2PMED_HOME", str(home))
    monkeypatch.setenv("P2PMED_PIN", "a passphrase of one's own")
    capsys.readouterr()

    def run(line: str, *more: Any, status: int = 0) -> str:
        assert main([*line.split(), *map(str, more)]) == status
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return out if status == 0 or out else err

    return run


def told(text: str) -> Any:
    return json.loads(text)


def test_an_operation_from_the_plan_to_the_expert(typed: Typed, tmp_path: Path) -> None:
    """Planned, checked, cut, closed, exported; the expert's laptop has no home."""
    patient = typed("patient register --family Wang --given Mei").split()[1]
    plan, keys = tmp_path / "plan.json", tmp_path / "a.keys"
    plan.write_text(json.dumps(PROCEDURE))
    for name in ("a", "n", "s"):
        typed(f"card person {tmp_path / name}.keys")
    surgery = told(typed(f"surgery plan {patient} {plan} --json"))["surgery"]
    signed = f"--sign anaesthetist={keys} --sign nurse={tmp_path / 'n.keys'}"
    typed(f"surgery checklist {surgery} sign-in --no site-marked {signed}")
    typed(f"surgery event {surgery} incision")
    assert "step" in typed(f"surgery event {surgery} lunch", status=1)
    typed(f"surgery note {surgery}", "appendix inflamed")
    typed(f"surgery close {surgery} --sign surgeon={tmp_path / 's.keys'}")
    assert "closed" in typed("surgery list")
    seen = typed(f"surgery show {surgery}")
    assert "missing: no time-out was signed" in seen
    assert "answered no: sign-in: site-marked" in seen

    reviewer = told(typed(f"case key {tmp_path / 'expert.keys'} --json"))["reviewer"]
    case = told(
        typed(f"case open --surgery {surgery} --reviewer {reviewer} --reason complaint --json")
    )["case"]
    file = tmp_path / "surgery.case"
    network = typed(f"case export {case} {file} --open").split()[-1]
    plain = tmp_path / "plain.case"
    checked = typed(
        f"case verify {file} --key {tmp_path / 'expert.keys'} --network {network} --save {plain}"
    )
    assert "nothing that belongs to it was changed or left out" in checked
    assert "no time-out was signed" in checked
    again = told(typed(f"case verify {plain} --json"))
    assert [row["number"] for row in again["entries"] if row["number"]] == [2, 3, 4, 5]
    raw = bytearray(plain.read_bytes())
    raw[len(raw) // 2] ^= 1
    plain.write_bytes(raw)
    typed(f"case verify {plain}", status=1)


def test_a_referral_and_a_consultation_as_staff_type_them(typed: Typed, tmp_path: Path) -> None:
    """To a place without devices it is refused with a hint; to one's own place it goes through."""
    patient = typed("patient register --family Wang --given Mei").split()[1]
    assert "place" in typed(f"refer send {patient} nowhere --reason E11", status=1)
    sent = told(typed(f"refer send {patient} shan --reason E11 --order 4548-4 --json"))
    assert sent["warnings"] == []
    referral = sent["referral"]
    assert "open" in typed("refer list")
    typed(f"refer accept {referral}")
    assert told(typed(f"refer show {referral} --json"))["orders"] == ["4548-4"]
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
        "subject": {"reference": "Patient/x"},
        "effectiveDateTime": "2026-11-20",
    }
    file = tmp_path / "result.json"
    file.write_text(json.dumps(observation))
    typed(f"refer result {referral} {file}")
    assert "exam.duplicate" in typed(f"refer check {patient} --order 4548-4 --within 36500")
    typed(f"refer close {referral}")
    assert "closed" in typed("refer list")

    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"\xff\xd8")
    asked = told(typed(f"consult ask {patient} County what? --attach {picture} --json"))
    typed(f"consult reply {asked['consultation']} nothing")
    shown = told(typed(f"consult show {asked['consultation']} --into {tmp_path} --json"))
    assert shown["answers"][0]["words"] == "nothing"
    assert (tmp_path / "01-a.jpg").read_bytes() == b"\xff\xd8"
    assert "leave" in typed(f"consult copy {asked['consultation']} {tmp_path / 'x'}", status=1)
    typed(f"consult close {asked['consultation']}")
    assert "closed" in typed("consult list")
