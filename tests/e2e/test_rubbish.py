"""Rubbish in: one clear sentence, a status that is not 0, and nothing accepted before lost."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SECRET = "a passphrase for tests"
ENVIRONMENT = {**os.environ, "P2PMED_PASSPHRASE": SECRET, "P2PMED_CHEAP_KEYSTORE": "1"}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command of a user, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "p2pmed", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**ENVIRONMENT, **environment},
        check=False,
    )


def good(*arguments: str | Path) -> dict[str, object]:
    """A command that must succeed; its JSON answer."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It said what was wrong in a sentence that holds ``words``, and nothing else went wrong."""
    assert done.returncode not in (0, -9), done.stdout
    said = done.stderr
    assert "Traceback" not in said
    assert "own fault" not in said, said
    assert all(word in said for word in words), said
    assert len(said.strip().splitlines()) <= 4, said


def enrolled(folder: Path, network: Path, name: str = "clinic", port: int = 0) -> Path:
    """A home enrolled in the network whose authority lives in ``network``."""
    home = folder / name
    good("init", home, "--name", name, "--role", "clinic", "--place", "a/b", "--port", str(port))
    good("network", "answer", network, home / "request.txt", "--out", home / "answer.txt")
    good("enrol", home, home / "answer.txt")
    return home


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority's folder."""
    folder = tmp_path_factory.mktemp("authority") / "authority"
    good("network", "create", folder, "--name", "test county")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, network: Path) -> Path:
    """An enrolled home with one patient in it."""
    folder = tmp_path_factory.mktemp("homes")
    home = enrolled(folder, network)
    good("patient", "register", "--home", home, "--family", "Wang", "--given", "Li")
    return home


def entries(home: Path) -> object:
    """How much the home holds."""
    return good("status", "--home", home)["entries"]


@pytest.fixture(autouse=True)
def nothing_is_lost(home: Path) -> Iterator[None]:
    """What was accepted before a refusal is there after it."""
    before = entries(home)
    yield
    after = entries(home)
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert after >= before


def test_a_wrong_passphrase_is_said(home: Path) -> None:
    """It opens nothing and says that it was the passphrase."""
    refused(run("status", "--home", home, P2PMED_PASSPHRASE="another passphrase"), "passphrase")


def test_a_credential_of_another_network_is_refused(tmp_path: Path, home: Path) -> None:
    """An answer by another authority enrols nobody."""
    other = tmp_path / "other"
    good("network", "create", other, "--name", "another county")
    answer = tmp_path / "answer.txt"
    good("network", "answer", other, home / "request.txt", "--out", answer)
    refused(run("enrol", home, answer), "another network")


def test_an_answer_for_another_device_is_refused(tmp_path: Path, network: Path, home: Path) -> None:
    """Two answers mixed up on a table are told apart."""
    second = tmp_path / "second"
    good("init", second, "--name", "second", "--role", "clinic", "--place", "a/b")
    refused(run("enrol", second, home / "answer.txt"), "another device")


def test_an_edited_request_is_refused(tmp_path: Path, network: Path, home: Path) -> None:
    """One letter changed by hand is noticed."""
    text = (home / "request.txt").read_text()
    at = len(text) // 2
    edited = tmp_path / "request.txt"
    edited.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    refused(run("network", "answer", network, edited))


def test_a_port_in_use_is_said(tmp_path: Path, network: Path) -> None:
    """Another program has the port: the node does not start, and says which port."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        home = enrolled(tmp_path, network, "second", port)
        refused(run("run", "--home", home), str(port))


def test_a_home_in_use_by_another_process_is_said(home: Path) -> None:
    """A second process does not open the same home."""
    import fcntl

    with (home / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(run("status", "--home", home), "in use")


def test_a_truncated_gzip_is_refused(tmp_path: Path, home: Path) -> None:
    """Half a download is not half a patient."""
    whole = gzip.compress(json.dumps({"resourceType": "Bundle", "type": "collection"}).encode())
    path = tmp_path / "half.json.gz"
    path.write_bytes(whole[: len(whole) // 2])
    refused(run("import", "fhir", path, "--home", home))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", ""),
        (b"\xff\xfe not json", ""),
        (b'{"resourceType": "Bundle", "type": "collection", "entry": 7}', "entry"),
        (
            b'{"resourceType": "Bundle", "type": "collection",'
            b' "entry": [{"resource": {"resourceType": 3}}]}',
            "entry[0].resource",
        ),
        (b'{"resourceType": "Spaceship"}', "resourceType"),
    ],
)
def test_a_wrong_bundle_is_refused_by_its_field(
    tmp_path: Path, home: Path, content: bytes, word: str
) -> None:
    """Not FHIR: the field that is wrong is named."""
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    done = run("import", "fhir", path, "--home", home)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert word in done.stderr + done.stdout


def test_a_flipped_bit_in_a_stick_file_is_found(tmp_path: Path, home: Path) -> None:
    """The frame is named, and what stood before it is kept."""
    stick = tmp_path / "stick.p2pmed"
    good("bundle", "export", stick, "--home", home)
    raw = bytearray(stick.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    stick.write_bytes(raw)
    done = run("bundle", "import", stick, "--home", home)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "frame" in done.stdout + done.stderr


def test_a_missing_home_and_a_wrong_setting_are_said(tmp_path: Path, network: Path) -> None:
    """A mistyped folder and a mistyped setting are each named."""
    refused(run("status", "--home", tmp_path / "nowhere"), "nowhere")
    home = enrolled(tmp_path, network, "third")
    (home / "p2pmed.toml").write_text('port = "seven"\n')
    refused(run("status", "--home", home), "port")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of our own; skips where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, network: Path) -> None:
    """A read-only disk refuses a new home, an answer and an export, each in one sentence."""
    folder = tmp_path / "read-only"
    with mounted(folder, "ro,size=1m"):
        refused(run("init", folder / "home", "--name", "x", "--role", "clinic"), "read-only")
        refused(run("network", "create", folder / "authority", "--name", "x"), "read-only")


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, network: Path) -> None:
    """Records are taken until the disk is full; then one sentence, and all taken are there."""
    folder = tmp_path / "small"
    with mounted(folder, "size=14m"):
        home = enrolled(folder, network, "clinic")
        patient = {"resourceType": "Patient", "name": [{"text": os.urandom(400_000).hex()}]}
        path = tmp_path / "big.json"
        taken = 0
        for number in range(40):
            path.write_text(json.dumps({**patient, "id": str(number)}))
            done = run("import", "fhir", path, "--home", home)
            if done.returncode:
                break
            taken += 1
        assert taken, done.stderr
        refused(done, "disk")
        larger = ["mount", "-o", "remount,size=40m", str(folder)]
        subprocess.run(larger, check=True)
        rows = good("patient", "list", "--home", home)["patients"]
        assert isinstance(rows, list)
        assert len(rows) >= taken
