"""``p2pmed bundle``, ``verify``, ``backup``, ``restore`` and ``doctor``, as a person types them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import build_parser, main
from p2pmed.node.config import Config, write_config
from p2pmed.node.setup import answer_request, create_network, enrol, init_home, request_text

PASSPHRASE = "for tests only"
RECALL = '{"gtin": "09506000134352", "lot": "L1", "reason": "contamination"}'


class Answer:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


Type = Callable[..., Answer]


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Runs one command in this process, with the passphrase in the environment."""
    monkeypatch.setenv("P2PMED_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("P2PMED_HOME", raising=False)

    def run(*words: object) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in words])
        told = capsys.readouterr()
        return Answer(status, told.out, told.err)

    return run


def make_home(folder: Path, name: str, *, days: int = 100, port: int = 0) -> Path:
    """An enrolled home of the network in ``folder``."""
    if not (folder / "authority").exists():
        create_network(folder / "authority", "a county", PASSPHRASE, cheap=True)
    config = Config(host="127.0.0.1", port=port, loopback=True, discovery=False)
    init_home(
        folder / name,
        name=f"the {name}",
        roles=["county"],
        place="shan",
        passphrase=PASSPHRASE,
        config=config,
        cheap=True,
    )
    text = answer_request(folder / "authority", request_text(folder / name), PASSPHRASE, days=days)
    enrol(folder / name, text, PASSPHRASE)
    return folder / name


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A county's home with a ledger and two recalls, and a newcomer's; nobody changes them."""
    folder = tmp_path_factory.mktemp("homes")
    county = make_home(folder, "county")
    make_home(folder, "newcomer")
    (folder / "elsewhere").mkdir()
    make_home(folder / "elsewhere", "other")
    os.environ["P2PMED_PASSPHRASE"] = PASSPHRASE
    try:
        assert main(["status", "--home", str(county), "--json"]) == 0  # opens its log
        assert main(["mesh", "found", "--home", str(county), "--json"]) == 0
        for _ in range(2):
            command = ["submit", "--home", str(county), "drug.recall", RECALL, "--wait", "10"]
            assert main([*command, "--json"]) == 0
    finally:
        del os.environ["P2PMED_PASSPHRASE"]
    return folder


@pytest.fixture
def homes(masters: Path, tmp_path: Path) -> Path:
    """Copies to be worked with: each takes itself for restored, and does not vote."""
    path = tmp_path / "homes"
    shutil.copytree(masters, path)
    return path


@contextmanager
def running(home: Path) -> Iterator[subprocess.Popen[str]]:
    """``p2pmed run`` in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "p2pmed", "run", "--home", str(home), "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "P2PMED_PASSPHRASE": PASSPHRASE},
        text=True,
    )
    assert child.stdout is not None
    try:
        assert json.loads(child.stdout.readline())["ready"]
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        child.stdout.close()


# --- bundle ---------------------------------------------------------------------------------


def test_carry(type_in: Type, homes: Path) -> None:
    """Export, inspect without a home, import; a second import brings nothing."""
    stick = homes / "stick.bundle"
    wrote = type_in("bundle", "export", "--home", homes / "county", stick)
    assert wrote.status == 0
    assert "blocks of 1 ledgers" in wrote.out
    seen = type_in("bundle", "inspect", stick)
    assert seen.status == 0
    assert "complete" in seen.out
    assert "ledger " in seen.out
    took = type_in("bundle", "import", "--home", homes / "newcomer", stick, "--json")
    assert took.status == 0
    assert took.json["entries_new"] == took.json["entries"] >= 3
    assert took.json["blocks_new"] >= 2
    again = type_in("bundle", "import", "--home", homes / "newcomer", stick)
    assert again.status == 0
    assert "took in 0 new entries" in again.out


def test_inspect_needs_nothing(type_in: Type, homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home, no passphrase, no terminal."""
    type_in("bundle", "export", "--home", homes / "county", homes / "stick")
    monkeypatch.delenv("P2PMED_PASSPHRASE")
    answer = type_in("bundle", "inspect", homes / "stick", "--json")
    assert answer.status == 0
    assert answer.json["status"] == "complete"
    assert answer.json["fault"] is None
    assert {"network", "author", "created_ms", "logs", "ledgers"} <= answer.json.keys()


def test_only_what_is_new(type_in: Type, homes: Path) -> None:
    """--since takes an earlier bundle, or the list of what a receiver has."""
    home = homes / "county"
    type_in("bundle", "export", "--home", home, homes / "first")
    type_in("submit", "--home", home, "drug.recall", RECALL)
    told = type_in(
        "bundle", "export", "--home", home, homes / "second", "--since", homes / "first", "--json"
    )
    whole = type_in("bundle", "export", "--home", home, homes / "all", "--all", "--json")
    assert 0 < told.json["entries"] < whole.json["entries"]
    type_in("bundle", "import", "--home", homes / "newcomer", homes / "first")
    has = type_in("bundle", "have", "--home", homes / "newcomer", "--json")
    (homes / "has.json").write_text(has.out)
    third = type_in(
        "bundle", "export", "--home", home, homes / "3", "--since", homes / "has.json", "--json"
    )
    assert third.json["entries"] == told.json["entries"]


def test_a_torn_file(type_in: Type, homes: Path) -> None:
    """Status 1, where it ends, and what was taken."""
    type_in("bundle", "export", "--home", homes / "county", homes / "stick")
    raw = (homes / "stick").read_bytes()
    (homes / "torn").write_bytes(raw[: len(raw) * 3 // 4])
    seen = type_in("bundle", "inspect", homes / "torn")
    assert seen.status == 1
    assert "torn at frame" in seen.out
    took = type_in("bundle", "import", "--home", homes / "newcomer", homes / "torn")
    assert took.status == 1
    assert "new entries" in took.out
    assert "torn at frame" in took.out
    assert "everything before that place was taken" in took.out


def test_another_networks_file(type_in: Type, homes: Path) -> None:
    """Refused at the header, with one sentence and status 1."""
    type_in("bundle", "export", "--home", homes / "county", homes / "stick")
    took = type_in("bundle", "import", "--home", homes / "elsewhere" / "other", homes / "stick")
    assert took.status == 1
    assert took.out == "refused: a bundle of another network\n"


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"PK\x03\x04 not a bundle" * 100])
def test_no_bundle(type_in: Type, homes: Path, content: bytes) -> None:
    """An empty file, zeros, an archive: said in a sentence, status 1, no traceback."""
    (homes / "file").write_bytes(content)
    for words in (
        ("bundle", "inspect", homes / "file"),
        ("bundle", "import", "--home", homes / "newcomer", homes / "file"),
        ("verify", "--bundle", homes / "file"),
    ):
        answer = type_in(*words)
        assert answer.status == 1
        assert "own fault" not in answer.err
        assert answer.out.count("\n") < 8


def test_files_in_the_way(type_in: Type, homes: Path) -> None:
    """Never over a file unless --force; a missing one is one sentence."""
    (homes / "there").write_bytes(b"precious")
    refused = type_in("bundle", "export", "--home", homes / "county", homes / "there")
    assert refused.status == 1
    assert "is there already" in refused.err
    assert "--force" in refused.err
    forced = type_in("bundle", "export", "--home", homes / "county", homes / "there", "--force")
    assert forced.status == 0
    missing = type_in("bundle", "import", "--home", homes / "county", homes / "nothing", "--json")
    assert missing.status == 1
    assert "cannot be read" in missing.json["error"]


def test_a_running_node(type_in: Type, homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands ask the node that runs, by relative paths of the person who types."""
    monkeypatch.chdir(homes)
    with running(Path("county")):
        assert type_in("bundle", "export", "--home", "county", "out.bundle").status == 0
        assert (homes / "out.bundle").exists()
        took = type_in("bundle", "import", "--home", "county", "out.bundle", "--json")
        assert (took.status, took.json["entries_new"]) == (0, 0)
        missing = type_in("bundle", "import", "--home", "county", "nothing")
        assert "cannot be read" in missing.err
        kept = type_in("backup", "--home", "county", ".", "--json")
        assert kept.status == 0
        assert Path(kept.json["file"]).parent == homes
        refused = type_in("verify", "--home", "county")
        assert refused.status == 1
        assert "in use by process" in refused.err
        assert "backup" in refused.err
    assert type_in("restore", kept.json["file"], "copy").status == 0
    assert type_in("verify", "--home", "copy").status == 0


# --- verify ---------------------------------------------------------------------------------


def test_verify(type_in: Type, homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound home and bundle pass without a passphrase; damage is named, with status 1."""
    type_in("bundle", "export", "--home", homes / "county", homes / "stick")
    monkeypatch.delenv("P2PMED_PASSPHRASE")
    sound = type_in("verify", "--home", homes / "county")
    assert sound.status == 0
    assert sound.out.endswith("all of it holds\n")
    bundle = type_in("verify", "--bundle", homes / "stick", "--home", homes / "county", "--json")
    assert bundle.status == 0
    assert bundle.json["ok"]
    assert bundle.json["notes"] == []
    os.truncate(homes / "county" / "node.db", 30_000)
    broken = type_in("verify", "--home", homes / "county")
    assert broken.status == 1
    assert "WRONG  node.db" in broken.out
    assert "what to do:" in broken.out
    assert not type_in("verify", "--home", homes / "county", "--json").json["ok"]


# --- backup ---------------------------------------------------------------------------------


def test_backup_and_resume(type_in: Type, homes: Path) -> None:
    """A restored home is muted and says so, until `mesh resume`; a second one changes nothing."""
    assert type_in("backup", "--home", homes / "county", homes / "kept").status == 0
    assert type_in("backup", "--home", homes / "county", homes / "kept").status == 1
    assert type_in("restore", homes / "kept", homes / "again").status == 0
    assert type_in("restore", homes / "kept", homes / "again").status == 1
    state = type_in("mesh", "status", "--home", homes / "again")
    assert "does not vote" in state.out
    before = type_in("status", "--home", homes / "again", "--json").json
    assert before["muted"]
    pending = type_in("submit", "--home", homes / "again", "drug.recall", RECALL, "--json")
    assert pending.json["level"] == "stored"
    assert "votes again" in type_in("mesh", "resume", "--home", homes / "again").out
    assert "was not muted" in type_in("mesh", "resume", "--home", homes / "again").out
    final = type_in(
        "submit", "--home", homes / "again", "drug.recall", RECALL, "--wait", "10", "--json"
    )
    assert final.json["level"] in ("final", "anchored")
    assert not type_in("status", "--home", homes / "again", "--json").json["muted"]


def test_resume_warns(capsys: pytest.CaptureFixture[str]) -> None:
    """The help says what can go wrong before anybody gives the word."""
    with pytest.raises(SystemExit):
        main(["mesh", "resume", "--help"])
    text = capsys.readouterr().out
    assert "no other copy of this home runs" in text
    assert "fork the ledger" in text


# --- doctor ---------------------------------------------------------------------------------


def levels(answer: Answer) -> dict[str, str]:
    return {row["check"]: row["level"] for row in answer.json["checks"]}


def test_doctor_is_content(type_in: Type, homes: Path) -> None:
    """A sound home passes every check; each line says something."""
    answer = type_in("doctor", "--home", homes / "county", "--json")
    assert answer.status == 0
    found = levels(answer)
    assert {"home", "keystore", "credential", "clock", "disk", "sqlite", "port"} <= found.keys()
    assert set(found.values()) <= {"ok"}
    assert all(row["says"] for row in answer.json["checks"])
    text = type_in("doctor", "--home", homes / "county").out
    assert "after the ledger's" in text


def test_doctor_of_a_running_node(type_in: Type, homes: Path) -> None:
    """The running node is asked; its port is its own, and that nobody is there is a warning."""
    with running(homes / "newcomer"):
        answer = type_in("doctor", "--home", homes / "newcomer", "--json")
    found = levels(answer)
    assert answer.status == 0
    assert (found["node"], found["port"], found["peers"]) == ("ok", "ok", "warn")


def test_doctor_finds_a_wrong_passphrase(
    type_in: Type, homes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: fails. Not given: says that it was not checked."""
    monkeypatch.setenv("P2PMED_PASSPHRASE", "another one")
    wrong = type_in("doctor", "--home", homes / "newcomer", "--json")
    assert (wrong.status, levels(wrong)["keystore"]) == (1, "fail")
    monkeypatch.delenv("P2PMED_PASSPHRASE")
    silent = type_in("doctor", "--home", homes / "newcomer", "--json")
    assert (silent.status, levels(silent)["keystore"]) == (0, "warn")


def test_doctor_finds_a_taken_port(type_in: Type, homes: Path) -> None:
    """Another program on the port fails, and says which port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = Config(host="127.0.0.1", port=port, loopback=True, discovery=False)
        (homes / "newcomer" / "p2pmed.toml").write_text(write_config(config))
        answer = type_in("doctor", "--home", homes / "newcomer", "--json")
    assert levels(answer)["port"] == "fail"
    assert any(str(port) in row["says"] for row in answer.json["checks"])
    assert answer.status == 1


def test_doctor_finds_an_old_credential(
    type_in: Type, homes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon over: a warning. Over: fails. A clock before the ledger's time: fails."""
    from p2pmed.cli import doctor

    now = doctor._now_ms()
    day = 86_400_000
    for days, check, level in (
        (80, "credential", "warn"),
        (101, "credential", "fail"),
        (-1, "clock", "fail"),
    ):
        monkeypatch.setattr(doctor, "_now_ms", lambda days=days: now + days * day)
        answer = type_in("doctor", "--home", homes / "county", "--json")
        rows = [row["level"] for row in answer.json["checks"] if row["check"] == check]
        assert level in rows, (days, rows)


def test_doctor_without_a_patient(type_in: Type, tmp_path: Path) -> None:
    """No home: one line, what to do, status 1."""
    answer = type_in("doctor", "--home", tmp_path / "nowhere")
    assert answer.status == 1
    assert answer.out.startswith("fail  home")
    init_home(
        tmp_path / "fresh",
        name="n",
        roles=["clinic"],
        place="",
        passphrase=PASSPHRASE,
        cheap=True,
    )
    unenrolled = type_in("doctor", "--home", tmp_path / "fresh", "--json")
    assert levels(unenrolled)["credential"] == "fail"


# --- the pages ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["carry-by-stick", "verify-a-home", "back-up"])
def test_commands_on_the_pages(page: str) -> None:
    """Every command that a how-to page shows is one that the command line takes."""
    path = Path(__file__).parents[2] / "docs" / "howto" / f"{page}.md"
    shown = [line[2:] for line in path.read_text("utf-8").splitlines() if line.startswith("$ ")]
    assert shown
    for text in shown:
        words = shlex.split(text.partition(" > ")[0])
        assert words.pop(0) == "p2pmed"
        if "--help" in words:
            continue
        assert callable(build_parser().parse_args(words).run)
