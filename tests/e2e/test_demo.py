"""The demonstration, as a user runs it: real processes, counted from their stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("P2PMED_DATA") or Path(__file__).parents[3] / "shared" / "data")
SECONDS = 280


def demo(*arguments: str, folder: Path) -> tuple[int, dict[str, Any]]:
    """Run ``p2pmed demo --json``; its exit status and its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "p2pmed", "demo", "--json", "--folder", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1])


def check(status: int, report: dict[str, Any]) -> None:
    """Everything written is anchored, nothing is lost, nobody disagrees."""
    assert report["ok"], report
    assert status == 0
    assert report["lost"] == report["diverged"] == 0
    assert report["records_submitted"] > 0
    for level in ("records_stored", "records_final", "records_anchored"):
        assert report[level] == report["records_submitted"], level
    assert report["processes"] == 6
    assert report["kills"] == 1
    assert report["discrepancies"] >= 1
    assert report["mesh_height"] > 0
    assert report["county_height"] > 0


@pytest.mark.timeout(SECONDS + 10)
def test_a_made_up_village_day_reaches_the_county(tmp_path: Path) -> None:
    """Through a kill, a cut and a file on a stick, every record is anchored."""
    check(*demo("--patients", "9", folder=tmp_path / "demo"))


@pytest.mark.timeout(SECONDS + 10)
def test_real_patients_reach_the_county(tmp_path: Path) -> None:
    """Six Synthea patients, FHIR R4 as downloaded, are anchored to the last resource."""
    records = DATA / "synthea-r4"
    if not records.is_dir():
        pytest.skip(f"no Synthea records in {records}")
    status, report = demo("--records", str(records), "--patients", "6", folder=tmp_path / "demo")
    check(status, report)
    assert report["patients"] == 6


def test_a_folder_without_records_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """No process is started for a mistyped folder; the status is not 0."""
    done = subprocess.run(
        [sys.executable, "-m", "p2pmed", "demo", "--records", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no folder" in done.stderr
    assert "Traceback" not in done.stderr
