"""Summaries, amendments and disputes from the command line, on a home that no node runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main
from p2pmed.medical.care.ips_profile import profile_faults
from p2pmed.node.setup import create_network, init_home, self_enrol

PASSPHRASE = "for these tests only"
DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
CARDS = DATA / "smart-health-cards"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Any:
    """Run a command on the home; its JSON answer."""
    home = tmp_path / "clinic"
    create_network(tmp_path / "authority", "Shan", PASSPHRASE, cheap=True)
    init_home(
        home, name="clinic", roles=["clinic"], place="shan/mu", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(tmp_path / "authority", PASSPHRASE, home, PASSPHRASE)
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("P2PMED_HOME", str(home))
    capsys.readouterr()

    def command(*arguments: Any, status: int = 0) -> Any:
        assert main([*map(str, arguments), "--json"]) == status
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return json.loads(told.out)

    return command


@pytest.fixture
def wang(run: Any, tmp_path: Path) -> str:
    """A patient with a card in ``card.txt``; the pseudonym."""
    names = ("--family", "王", "--given", "小明", "--birth-date", "1985-03-12")
    told: str = run("patient", "register", *names, "--card", tmp_path / "card.txt")["patient"]
    return told


def visit(tmp_path: Path, text: str) -> Path:
    path = tmp_path / f"{text}.json"
    path.write_text(
        json.dumps(
            {
                "resourceType": "Condition",
                "code": {"text": text},
                "subject": {"display": "the patient"},
                "recordedDate": "2026-05-01T09:00:00+08:00",
            }
        )
    )
    return path


def test_a_summary_is_written_printed_and_checked(run: Any, wang: str, tmp_path: Path) -> None:
    """The files are there, the code says the same, a changed one is refused, files stay."""
    run("patient", "add", wang, visit(tmp_path, "asthma"))
    ips, pdf, code = (tmp_path / name for name in ("wang.json", "wang.pdf", "wang.txt"))
    told = run("patient", "summary", wang, "--ips", ips, "--pdf", pdf, "--qr", code)
    assert told["person"]["name"] == "王小明"
    assert told["faults"] == profile_faults(ips.read_bytes()) == []
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_mode & 0o077 == 0
    checked = run("verify", "--qr", code)
    assert (checked["ok"], checked["trusted"]) == (True, True)
    assert checked["problems"] == ["2026-05-01 asthma"]
    assert checked["signer"]["name"] == "clinic"
    text = code.read_text().strip()
    other = text[:90] + ("0" if text[90] != "0" else "1") + text[91:]
    run("verify", "--qr", other, status=1)
    assert "exists already" in run("patient", "summary", wang, "--ips", ips, status=1)["error"]


def test_without_a_home_a_code_says_which_device_signed(
    run: Any, wang: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The signature needs nothing but the text; another network's id is told apart."""
    text = run("patient", "summary", wang)["code"]
    monkeypatch.delenv("P2PMED_HOME")
    found = run("verify", "--qr", text)
    assert (found["ok"], found["trusted"]) == (True, None)
    assert len(found["signer"]["device"]) == 64
    assert run("verify", "--qr", text, "--manifest-id", found["network"])["ok"]
    assert not run("verify", "--qr", text, "--manifest-id", "00" * 32, status=1)["ok"]


def test_a_dispute_is_raised_listed_and_settled_by_an_amendment(
    run: Any, wang: str, tmp_path: Path
) -> None:
    """With the card; marked in the timeline and the summary until the amendment names it."""
    record = run("patient", "add", wang, visit(tmp_path, "asthma"))["id"]
    card = ("--card", tmp_path / "card.txt")
    assert run("patient", "dispute", record[:12], "--words", "no", status=1)["hint"]
    raised = run("patient", "dispute", *card, record[:12], "--words", "never had it")
    assert raised["verdict"] == "applied"
    (waiting,) = run("patient", "disputes")["disputes"]
    assert (waiting["words"], waiting["days"], waiting["by"]) == ("never had it", 0, "patient")
    (row,) = [r for r in run("patient", "timeline", wang)["records"] if r["id"] == record]
    assert "disputed" in row["marks"]
    (problems,) = [h for h in run("patient", "summary", wang)["headings"] if h["code"] == "11450-4"]
    assert "[disputed]" in problems["lines"][0]

    cough = visit(tmp_path, "cough")
    settled = ("--reason", "disputed", "--dispute", raised["id"][:12])
    assert run("patient", "amend", wang, record[:12], cough, *settled)["verdict"] == "applied"
    assert run("patient", "disputes")["disputes"] == []
    (told,) = run("patient", "disputes", wang)["disputes"]
    assert told["open"] is False
    (problems,) = [h for h in run("patient", "summary", wang)["headings"] if h["code"] == "11450-4"]
    assert problems["lines"] == ["2026-05-01 cough"]


def test_retracting_and_answering(run: Any, wang: str, tmp_path: Path) -> None:
    """A record is retracted for a reason; a dispute is answered in words."""
    record = run("patient", "add", wang, visit(tmp_path, "asthma"))["id"]
    raised = run(
        "patient", "dispute", "--card", tmp_path / "card.txt", record[:12], "--words", "no"
    )["id"]
    answered = run("patient", "answer", raised[:12], "--words", "the test says so")
    assert answered["verdict"] == "applied"
    (told,) = run("patient", "disputes", wang)["disputes"]
    assert told["answer_words"] == "the test says so"
    gone = run("patient", "retract", wang, record[:12], "--reason", "wrong-patient")
    assert gone["verdict"] == "applied"
    (row,) = [r for r in run("patient", "timeline", wang)["records"] if r["id"] == record]
    assert row["retracted"]


@pytest.mark.skipif(not CARDS.is_dir(), reason="no sample cards; set P2PMED_DATA")
def test_doses_of_a_foreign_card_are_in_timeline_and_summary(run: Any, tmp_path: Path) -> None:
    """A SMART Health Card that was imported reads like what was written here."""
    born = ("--birth-date", "1951-01-20")
    patient = run("patient", "register", "--family", "Anyperson", *born)["patient"]
    card = CARDS / "example-00-f-qr-code-numeric-value-0.txt"
    issuer = ("--issuer", CARDS / "issuer" / "jwks.json")
    run("import", "card", card, *issuer, "--patient", patient)
    rows = run("patient", "timeline", patient)["records"]
    doses = [row for row in rows if row["type"] == "Immunization"]
    assert len(doses) == 3
    assert all("late" in row["marks"] for row in doses)
    told = run("patient", "summary", patient)
    (heading,) = [each for each in told["headings"] if each["code"] == "11369-6"]
    assert len(heading["lines"]) == 3
    assert told["faults"] == []
