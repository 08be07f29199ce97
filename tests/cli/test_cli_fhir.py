"""``import fhir`` and ``export fhir`` as processes: statuses, sentences, a node killed half-way."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main

PASSPHRASE = "for these tests only"
ENVIRONMENT = {**os.environ, "P2PMED_PASSPHRASE": PASSPHRASE, "P2PMED_CHEAP_KEYSTORE": "1"}
COMMAND = [sys.executable, "-m", "p2pmed"]
ROOT = os.geteuid() == 0


def _start(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _run(*arguments: Any, status: int = 0) -> tuple[str, str]:
    with _start(*arguments) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out, err


def _json(*arguments: Any, status: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(_run(*arguments, "--json", status=status)[0])
    return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network for this file."""
    folder = tmp_path_factory.mktemp("network") / "authority"
    _run("network", "create", folder, "--name", "Shan")
    return folder


@pytest.fixture
def home(authority: Path, tmp_path: Path) -> Path:
    """An enrolled home that will not look for neighbours."""
    folder = tmp_path / "clinic"
    _run("init", folder, "--name", "Mu", "--role", "clinic", "--port", "0", "--host", "127.0.0.1")
    _run("network", "answer", authority, folder / "request.txt", "--out", tmp_path / "answer.txt")
    _run("enrol", folder, tmp_path / "answer.txt")
    settings = folder / "p2pmed.toml"
    settings.write_text(settings.read_text().replace("discovery = true", "discovery = false"))
    return folder


@pytest.fixture
def running(home: Path) -> Iterator[Path]:
    """The same, with its node running."""
    process = _start("run", "--home", home, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ready"]
    yield home
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def _life(name: str, observations: int) -> bytes:
    patient = {"resourceType": "Patient", "id": name, "identifier": [{"value": name}]}
    observed = [
        {
            "resourceType": "Observation",
            "code": {"text": f"number {number}"},
            "subject": {"reference": f"Patient/{name}"},
        }
        for number in range(observations)
    ]
    entry = [{"resource": resource} for resource in (patient, *observed)]
    return json.dumps({"resourceType": "Bundle", "entry": entry}, indent=1).encode()


RUBBISH: dict[str, tuple[bytes, str]] = {
    "cut.json.gz": (gzip.compress(_life("cut", 50))[:-20], "the gzip file is cut short"),
    "plain.json.gz": (_life("plain", 1), "not a gzip file"),
    "empty.json": (b"", "the file is empty"),
    "nothing.json": (b"\xff\xfe\x00", "not JSON in UTF-8"),
    "half.json": (_life("half", 9)[:-30], "not JSON in UTF-8"),
    "list.json": (b"[]", "expected object"),
    "other.json": (b'{"name": "no FHIR"}', "resourceType: missing"),
    "wrong.json": (
        _life("wrong", 3).replace(b'"number 1"', b"5").replace(b'"Patient/wrong"', b"[]"),
        "entry[1].resource.subject.reference: expected str",
    ),
    "type.json": (
        _life("type", 3).replace(b'"Observation"', b'"Horoscope"'),
        "entry[1].resource.resourceType: not a resource type of FHIR R4",
    ),
    "date.json": (
        _life("date", 1).replace(b'"Observation"', b'"Observation","effectiveDateTime":"today"'),
        "entry[1].resource.effectiveDateTime: not a FHIR date",
    ),
}


def test_rubbish_is_refused_by_name_and_the_rest_is_kept(home: Path, tmp_path: Path) -> None:
    """Status 1, a sentence per file with the field's path; the good file between them is in."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name, (contents, _) in RUBBISH.items():
        (inbox / name).write_bytes(contents)
    (inbox / "good.json").write_bytes(_life("good", 5))
    answer = _json("import", "fhir", "--home", home, inbox, status=1)
    assert (answer["files"], answer["resources"]) == (1, 6)
    refused = {row["file"]: row["why"] for row in answer["refused"]}
    assert sorted(refused) == sorted(RUBBISH)
    for name, (_, sentence) in RUBBISH.items():
        assert sentence in refused[name], name
    out, _ = _run("import", "fhir", "--home", home, inbox, status=1)
    assert "1 files were in already" in out
    assert out.count("refused  ") == len(RUBBISH)
    _run("export", "fhir", "--home", home, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.json"]


def test_what_cannot_be_begun_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such place, nothing in it, not empty, a file where a folder is needed: status 1."""
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "x.txt").touch()
    cases: list[tuple[list[Any], str]] = [
        (["import", "fhir", "--home", home, tmp_path / "gone"], "no such file or folder"),
        (["import", "fhir", "--home", home, empty], "no .json or .json.gz file in"),
        (["import", "fhir", empty], "which node?"),
        (["export", "fhir", "--home", home, full], "is not empty"),
        (["export", "fhir", "--home", home, full / "x.txt"], "is a file"),
        (["export", "fhir", "--home", home, tmp_path / "no" / "out"], "no folder"),
    ]
    if not ROOT:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o000)
        cases.append((["import", "fhir", "--home", home, closed], "cannot be read"))
        cases.append((["export", "fhir", "--home", home, closed], "not allowed"))
    for arguments, sentence in cases:
        assert main([*map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert sentence in err
        assert out == ""
    answer = _json("import", "fhir", "--home", home, empty, status=1)
    assert (answer["ok"], "no .json" in answer["error"]) == (False, True)


def test_help_ends_in_an_example() -> None:
    """Both commands, and the groups that name them."""
    for group in ("import", "export"):
        assert f"p2pmed {group} fhir --home clinic-a" in _run(group, "fhir", "--help")[0]
        assert "fhir" in _run(group, "--help")[0]


def test_a_running_node_takes_files_over_its_control_socket(running: Path, tmp_path: Path) -> None:
    """The same answers, with paths relative to where the command stands, not the node."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.json").write_bytes(_life("a", 300))
    (inbox / "b.json.gz").write_bytes(gzip.compress(_life("b", 2)))
    relative = os.path.relpath(inbox)
    answer = _json("import", "fhir", "--home", running, relative)
    assert (answer["files"], answer["patients"], answer["resources"]) == (2, 2, 304)
    assert _json("import", "fhir", "--home", running, relative)["skipped"] == 2
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"{")
    assert _json("import", "fhir", "--home", running, bad, status=1)["refused"]
    out = _json("export", "fhir", "--home", running, os.path.relpath(tmp_path / "out"))
    assert (out["files"], out["patients"]) == (2, 2)
    assert (tmp_path / "out" / "a.json").read_bytes() == (inbox / "a.json").read_bytes()
    packed = (tmp_path / "out" / "b.json.gz").read_bytes()
    assert gzip.decompress(packed) == _life("b", 2)
    listed = _json("patient", "list", "--home", running)["patients"]
    shown, _ = _run("patient", "timeline", "--home", running, listed[0]["patient"][:8])
    assert "number 0" in shown


def _until(question: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not question() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_import_killed_half_way_is_completed_without_doubles(home: Path, tmp_path: Path) -> None:
    """SIGKILL at three places; the next run goes on, and every resource is there once."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(5):
        (inbox / f"{number}.json").write_bytes(_life(f"p{number}", 999))
    killed = 0
    for grown in (300_000, 600_000, 900_000):
        start = _size(home)
        process = _start("import", "fhir", "--home", home, inbox)
        _until(lambda start=start, grown=grown: _size(home) > start + grown, process)  # type: ignore[misc]
        process.kill()
        process.communicate(timeout=30)
        killed += process.returncode == -signal.SIGKILL
    assert killed == 3
    answer = _json("import", "fhir", "--home", home, inbox)
    assert answer["files"] + answer["skipped"] == 5
    assert 0 < answer["resources"] < 5_000
    assert not answer["refused"]
    last = _json("import", "fhir", "--home", home, inbox)
    assert (last["skipped"], last["records"]) == (5, 0)
    out = _json("export", "fhir", "--home", home, tmp_path / "out")
    assert (out["files"], out["resources"], out["left_out"]) == (5, 5_000, [])
    for path in inbox.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def _size(home: Path) -> int:
    """Bytes of the database and its log."""
    total = 0
    for name in ("node.db", "node.db-wal"):
        path = home / name
        total += path.stat().st_size if path.exists() else 0
    return total
