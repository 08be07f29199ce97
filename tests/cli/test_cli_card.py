"""``import card`` as a process: shown, kept, compared, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
CARDS = DATA / "smart-health-cards"
ENVIRONMENT = {
    **os.environ,
    "P2PMED_PASSPHRASE": "for these tests only",
    "P2PMED_CHEAP_KEYSTORE": "1",
}

pytestmark = pytest.mark.skipif(not CARDS.is_dir(), reason="no sample cards; set P2PMED_DATA")


def run(*arguments: Any, status: int = 0) -> tuple[Any, str]:
    done = subprocess.run(
        [sys.executable, "-m", "p2pmed", *map(str, arguments), "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return (json.loads(done.stdout) if status == 0 else None), done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An enrolled home that looks for nobody."""
    authority, folder = tmp_path / "authority", tmp_path / "clinic"
    run("network", "create", authority, "--name", "Shan")
    run("init", folder, "--name", "Clinic A", "--role", "clinic", "--place", "shan/a")
    run("network", "answer", authority, folder / "request.txt", "--out", tmp_path / "answer.txt")
    run("enrol", folder, tmp_path / "answer.txt")
    return folder


def test_a_card_is_shown_then_kept_with_its_proof(home):
    """Without a patient nothing is kept; with one, the doses and the card itself are; a patient
    with another birth date needs a person's word; an unknown issuer is refused.
    """
    card = ("import", "card", "--home", home, CARDS / "example-00-f-qr-code-numeric-value-0.txt")
    issuer = ("--issuer", CARDS / "issuer" / "jwks.json")
    shown, _ = run(*card, *issuer)
    assert shown["holder"]["birth_date"] == "1951-01-20"
    assert shown["kept"] == []

    born = ("--birth-date", "1951-01-20")
    same, _ = run("patient", "register", "--home", home, "--family", "Anyperson", *born)
    kept, _ = run(*card, *issuer, "--patient", same["patient"])
    timeline, _ = run("patient", "timeline", "--home", home, same["patient"])
    types = [row["type"] for row in timeline["records"]]
    assert len(kept["kept"]) == 4
    assert types.count("Immunization") == 3
    assert types.count("DocumentReference") == 1

    other, _ = run(
        "patient", "register", "--home", home, "--family", "Other", *born[:1], "1990-01-01"
    )
    _, why = run(*card, *issuer, "--patient", other["patient"], status=1)
    assert "--same-person" in why
    stranger = home.parent / "stranger.json"
    stranger.write_text('{"keys": []}')
    _, why = run(*card, "--issuer", stranger, status=1)
    assert "nobody who is believed" in why
    _, why = run("import", "card", "--home", home, "shc:/12x", *issuer, status=1)
    assert "card refused" in why
