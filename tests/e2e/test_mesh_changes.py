"""Members change, as operators do it: real processes, the command line, a kill around the seal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main
from p2pmed.node.setup import create_network, init_home, self_enrol
from p2pmed.web.control import is_served

SECRET = "a passphrase for tests"
ENVIRONMENT = {**os.environ, "P2PMED_PASSPHRASE": SECRET, "P2PMED_CHEAP_KEYSTORE": "1"}
NAMES = ("anna", "bo", "chen", "dao")
SETTINGS = 'port = {port}\nhost = "127.0.0.1"\ndiscovery = false\npeers = [{peers}]\n'


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "p2pmed", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def end(process: subprocess.Popen[str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Clinics:
    """Homes of one network and the processes that run them."""

    def __init__(self, folder: Path) -> None:
        authority = folder / "authority"
        create_network(authority, "a county", SECRET, cheap=True)
        ports = free_ports(len(NAMES))
        peers = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        self.homes: dict[str, Path] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name, port in zip(NAMES, ports, strict=True):
            home = self.homes[name] = folder / name
            init_home(
                home, name=name, roles=["pharmacy"], place="a/b", passphrase=SECRET, cheap=True
            )
            self_enrol(authority, SECRET, home, SECRET)
            (home / "p2pmed.toml").write_text(SETTINGS.format(port=port, peers=peers))

    def up(self, name: str) -> None:
        with (self.homes[name] / "output.txt").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "p2pmed", "run", "--home", str(self.homes[name])],
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
            )
        # Before that, a command would open the home itself.
        self.until(f"{name} runs", lambda: asyncio.run(is_served(self.homes[name])))

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def say(self, name: str, *words: str) -> dict[str, Any]:
        """A command at one device, without a process of its own; its JSON answer."""
        told = io.StringIO()
        with redirect_stdout(told):
            status = main([*words, "--json", "--home", str(self.homes[name])])
        assert status == 0, words
        return dict(json.loads(told.getvalue()))

    def until(self, what: str, done: Callable[[], bool], seconds: float = 40) -> None:
        limit = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < limit, f"not within {seconds} s: {what}"
            time.sleep(0.1)

    def mesh(self, name: str) -> dict[str, Any]:
        """What ``mesh status`` says, without what differs from place to place."""
        told = self.say(name, "mesh", "status")
        if told["ledger"] is None:
            return told
        seats = [{k: v for k, v in row.items() if k != "here"} for row in told["seats"]]
        common = ("ledger", "engine", "liars", "quorum", "epoch", "learners", "height")
        return {**{key: told[key] for key in common}, "seats": seats}

    def agree(self, epoch: int, seats: tuple[str, ...]) -> None:
        """All devices say the same of the mesh: this epoch, these seats."""
        told: list[dict[str, Any]] = []

        def same() -> bool:
            told[:] = [self.mesh(name) for name in NAMES]
            return told[0].get("epoch") == epoch and all(each == told[0] for each in told)

        self.until(f"all agree on epoch {epoch}: {told}", same)
        assert {row["name"] for row in told[0]["seats"]} == set(seats)

    def record(self, name: str) -> str:
        """Stock that ``name`` takes in, final on return; the transaction's id."""
        serial = f"{name}-{time.monotonic_ns()}"[:20]
        fields = {
            "gtin": "09506000134352",
            "lot": "L1",
            "expiry": 40_000,
            "serials": [serial],
            "maker": "hex:" + "00" * 32,
        }
        words = ("submit", "drug.commission", json.dumps(fields), "--wait", "30")
        told = self.say(name, *words)
        assert (told["level"], told["verdict"]) == ("final", "applied"), told
        return str(told["id"])


@pytest.fixture(scope="module")
def clinics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinics]:
    made = Clinics(tmp_path_factory.mktemp("clinics"))
    patch = pytest.MonkeyPatch()
    patch.setenv("P2PMED_PASSPHRASE", SECRET)
    try:
        for name in NAMES:
            made.up(name)
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)
        patch.undo()


@pytest.mark.timeout(180)
def test_a_mesh_changes_its_members_while_one_is_killed(clinics: Clinics) -> None:
    """Three found, a fourth joins, one falls around the seal, one is removed; all agree."""
    anna, bo, chen, _ = (clinics.homes[name] for name in NAMES)
    clinics.until("all in sight", lambda: len(clinics.say("anna", "peers").get("peers", [])) == 3)
    keys = {row["name"]: row["device"] for row in clinics.say("anna", "peers")["peers"]}
    me = clinics.say("anna", "status")["device"]
    founding = start(
        "mesh", "found", keys["bo"], keys["chen"], "--name", "Mu", "--json", "--home", anna
    )
    for name in ("bo", "chen"):
        clinics.until(
            "an offer", lambda name=name: bool(clinics.say(name, "mesh", "offers")["offers"])
        )  # type: ignore[misc]
    accepting = [start("mesh", "accept", me[:12], "--home", home) for home in (bo, chen)]
    ledger = answer(end(founding))["ledger"]
    for process in accepting:
        assert end(process).returncode == 0
    records = [clinics.record("anna")]

    joined = clinics.say("dao", "mesh", "join", ledger[:8], "--wait", "30")
    assert (joined["level"], joined["verdict"]) == ("final", "applied")
    assert {row["standing"] for row in clinics.mesh("anna")["learners"]} == {"willing"}
    adding = start("mesh", "add", "dao", "--liars", "1", "--wait", "30", "--json", "--home", anna)
    clinics.kill("chen")
    added = answer(end(adding))
    assert (added["level"], added["verdict"]) == ("final", "applied")
    clinics.up("chen")
    clinics.agree(1, NAMES)
    records.append(clinics.record("dao"))

    removed = clinics.say("chen", "mesh", "remove", "bo", "--wait", "30")
    assert (removed["level"], removed["verdict"]) == ("final", "applied")
    clinics.agree(2, ("anna", "chen", "dao"))
    records += [clinics.record("bo"), clinics.record("chen")]
    clinics.kill("bo")  # it has no seat: nobody needs it
    records.append(clinics.record("anna"))
    clinics.up("bo")
    clinics.agree(2, ("anna", "chen", "dao"))
    for name in NAMES:
        for record in records:
            told = clinics.say(name, "show", record)
            assert (told["level"], told["verdict"]) == ("final", "applied"), (name, told)


RUBBISH = (
    (("join", "zzzz"), 1, "another ledger"),
    (("leave", "--wait", "never"), 2, "--wait"),
    (("add",), 2, "DEVICE"),
    (("add", "nobody"), 1, "nobody"),
    (("add", "00"), 1, "00"),
    (("add", "ffffffffffff"), 1, "names 0"),
    (("add", "bo", "--liars", "-1"), 1, "liars"),
    (("add", "bo", "--liars", "99"), 1, "liars"),
    (("remove", "\x00\x1b[2J"), 1, "no member"),
    (("remove", "x" * 100_000), 1, "p2pmed"),
    (("change", "--add", "bo", "--remove", "nobody"), 1, "nobody"),
    (("ballot", *["bo"] * 500), 1, "list of at most"),
    (("elect", "--seats", "0"), 1, "seats"),
    (("elect", "--seats", "21"), 1, "seats"),
    (("elect", "--seats", "many"), 2, "--seats"),
    (("follow", "no-such-ledger"), 1, "ledger"),
)


@pytest.mark.timeout(180)
def test_rubbish_changes_nothing_and_is_said_in_a_sentence(
    clinics: Clinics, capfd: pytest.CaptureFixture[str]
) -> None:
    """No traceback, a status that is not 0, the word that was wrong; the mesh is as before."""
    before = clinics.mesh("anna")
    for words, status, said in RUBBISH:
        try:
            done = main(["mesh", *words, "--home", str(clinics.homes["anna"])])
        except SystemExit as exit:
            done = int(exit.code or 0)
        told = capfd.readouterr()
        assert done == status, (words[:3], told)
        assert said in told.err, (words[:3], told.err[:500])
        assert "Traceback" not in told.err
        assert "\x1b" not in told.err
        assert len(told.err) < 5_000, words[:3]
    assert clinics.mesh("anna") == before


REFUSED = (
    (("add", "anna"), "seat_taken"),
    (("add", "bo"), "consent_missing"),
    (("remove", "bo"), "seat_unknown"),
    (("remove", "chen", "dao", "anna"), "seats_impossible"),
    (("change",), "seats_impossible"),
    (("elect", "--seats", "3"), "ballots_too_few"),
)


@pytest.mark.timeout(180)
def test_what_the_rules_refuse_is_refused_by_name(
    clinics: Clinics, capfd: pytest.CaptureFixture[str]
) -> None:
    """Well spelled and not allowed: ordered, refused, and no epoch ends of it."""
    before = clinics.mesh("anna")
    for words, verdict in REFUSED:
        home = str(clinics.homes["anna"])
        main(["mesh", *words, "--json", "--wait", "30", "--home", home])
        told = json.loads(capfd.readouterr().out)
        assert (told["level"], told["verdict"]) == ("final", verdict), words
    after = clinics.mesh("anna")
    assert (after["epoch"], after["seats"]) == (before["epoch"], before["seats"])
