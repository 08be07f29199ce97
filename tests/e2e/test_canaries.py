"""A thousand canaries: what a patient said is on no disk in the clear, and in no locked process.

Three processes are searched, byte by byte, by root's right to read another's memory: (a) a node
that holds the same records, may read them, and was never unlocked; (b) the node that wrote them,
started again and left locked; (c) the very process that wrote them, after it was locked. Nothing
may be found in (a) and (b). In (c) Python cannot overwrite what it has freed; the figure is
recorded, and what must not be there even while it is unlocked are the keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import LocalProtocolError
from p2pmed.identity.staff import open_staff
from p2pmed.node.config import Config
from p2pmed.node.setup import create_network, init_home, load_keys, self_enrol
from p2pmed.node.staff_files import every_staff, pepper_of
from p2pmed.web.control import ask

PASSPHRASE = "a row of canaries"
COUNT = 1_000
MARK = f"zq{secrets.token_hex(6)}"
"""What every canary of this run begins with."""
CANARIES = [f"{MARK}x{number:04d}y" for number in range(COUNT)]


@dataclass
class Running:
    """A node's process."""

    home: Path
    process: subprocess.Popen[str]
    port: int
    log: Path

    def ask(self, operation: str, **values: Any) -> dict[str, Any]:
        return asyncio.run(ask(self.home, operation, values, lambda progress: None))


@contextlib.contextmanager
def running(home: Path, *options: str, peer: int = 0) -> Iterator[Running]:
    """``p2pmed run``, in a process of its own, with its words in a file."""
    log = home.with_name(f"{home.name}.{secrets.token_hex(2)}.log")
    temporary = home.with_name(f"{home.name}.tmp")
    temporary.mkdir(exist_ok=True)
    with log.open("w") as words:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "p2pmed",
                "run",
                "--home",
                home,
                "--json",
                "--verbose",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env={**os.environ, "P2PMED_PASSPHRASE": PASSPHRASE, "TMPDIR": str(temporary)},
        )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        node = Running(home, process, ready["port"], log)
        if peer:
            node.ask("general.dial", address=f"127.0.0.1:{peer}")
        yield node
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("canaries")
    create_network(folder / "authority", "test", PASSPHRASE, cheap=True)
    made = {}
    for name in ("writer", "reader"):
        home = folder / "homes" / name
        home.parent.mkdir(exist_ok=True)
        init_home(
            home,
            name=name,
            roles=["clinic"],
            place="a/b",
            passphrase=PASSPHRASE,
            cheap=True,
            config=Config(host="127.0.0.1", port=0, discovery=False),
        )
        self_enrol(folder / "authority", PASSPHRASE, home, PASSPHRASE)
        made[name] = home
    return made


def memory(pid: int) -> Iterator[bytes]:
    """All that a process can write to, piece by piece. Skips the test where that is forbidden."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        image = open(f"/proc/{pid}/mem", "rb", buffering=0)  # noqa: SIM115 (closed below)
    except (FileNotFoundError, PermissionError) as error:
        pytest.skip(f"this machine does not let us read a process's memory: {error}")
    with image:
        for line in maps:
            place, rights = line.split()[:2]
            if "rw" not in rights or "[vvar" in line:
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            with contextlib.suppress(OSError, ValueError, OverflowError):
                image.seek(start)
                piece = image.read(end - start)
                yield piece or b""


def spellings(text: str) -> list[bytes]:
    """How Python may hold a text: as UTF-8 or Latin-1, or in two or four bytes a character."""
    return [text.encode(), text.encode("utf-16-le"), text.encode("utf-32-le")]


def canaries_in(pieces: Iterable[bytes]) -> int:
    """How many different canaries are found in one spelling or another."""
    patterns = [
        re.compile(b"(?:%s)" % re.escape(spelled) + b".{0,24}", re.DOTALL)
        for spelled in spellings(MARK)
    ]
    found = set()
    for piece in pieces:
        for pattern in patterns:
            for hit in pattern.findall(piece):
                digits = re.search(rb"x(\d{4})y", hit.replace(b"\x00", b""))
                found.add(digits.group(1) if digits else b"part")
    return len(found)


def holds(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """Which of the ``wanted`` secrets lie in a process's memory."""
    found = set()
    for piece in memory(pid):
        found.update(name for name, secret in wanted.items() if secret in piece)
    return found


def files_of(home: Path) -> Iterator[bytes]:
    """Everything on the disk beside and below a home: database, WAL, temporary files, logs."""
    for path in sorted(home.parent.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def fhir(canaries: Iterable[str], **more: Any) -> str:
    notes = [{"text": text} for text in canaries]
    return json.dumps({"resourceType": "Observation", "code": {"text": "x"}, "note": notes, **more})


def person(canary: str) -> str:
    return json.dumps({"resourceType": "Patient", "name": [{"family": canary, "given": ["a"]}]})


def write_all(node: Running, inbox: Path) -> None:
    """Each canary through one way in: people, records, corrections, words, searches, files."""
    left = iter(CANARIES)

    def take(count: int) -> list[str]:
        return [next(left) for _ in range(count)]

    first = node.ask("patient.register", fhir=person(*take(1)), readers=["reader"])["patient"]
    for canary in take(40):
        node.ask("patient.register", fhir=person(canary))
    card = node.ask("card.enrol", fhir=person(*take(1)), readers=["reader"])
    own = node.ask("patient.add", patient=card["patient"], fhir=fhir(take(1)))["id"]
    node.ask("dispute.raise", record=own, words=take(1)[0], card=card["printed"]["text"])
    record = ""
    for _ in range(40):
        record = node.ask("patient.add", patient=first, fhir=fhir(take(15)))["id"]
    node.ask(
        "patient.amend", patient=first, record=record, fhir=fhir(take(50)), reason="wrong-content"
    )
    for canary in take(8):
        node.ask("patient.request", patient=first, words=canary, categories=["general"])
    node.ask("patient.passphrase", patient=first, category="hiv_sti", words=take(1)[0])
    for canary in take(10):
        with contextlib.suppress(LocalProtocolError):
            node.ask("find.patient", name=canary)
    rest = list(left)
    entries = [{"resource": json.loads(person(rest[0])), "fullUrl": "urn:x"}]
    entries += [
        {"resource": json.loads(fhir([canary], subject={"reference": "urn:x"}))}
        for canary in rest[1:]
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (inbox / "canaries.json").write_text(json.dumps(bundle))
    counts = node.ask("fhir.import", paths=[str(inbox / "canaries.json")])
    assert not counts["refused"]


def secrets_of(home: Path) -> dict[str, bytes]:
    """What opens records on a device, as its first staff member could find it out."""
    raw = next(raw for file, raw in every_staff(home) if file.anonymous)
    device = load_keys(home, PASSPHRASE).node_id
    held = open_staff(raw, PASSPHRASE, device=device, pepper=pepper_of(home))
    return {
        "box": held.boxes[0],
        "person's seed": held.keys.signing_seed,
        "person's box": held.keys.box_secret,
    }


def wait_for(question: Any, what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.mark.slow
def test_no_canary_is_on_a_disk_or_in_a_locked_process(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    """1,000 canaries through every way in: 0 on the disks, 0 in (a) and (b); (c) is told."""
    keys = {name: secrets_of(home) for name, home in homes.items()}
    with running(homes["writer"]) as writer, running(homes["reader"], "--locked") as reader:
        reader.ask("general.dial", address=f"127.0.0.1:{writer.port}")
        wait_for(lambda: writer.ask("general.peers")["peers"], "a link")
        wait_for(lambda: writer.ask("general.peers")["peers"][0]["name"] == "reader", "a name")
        write_all(writer, tmp_path)
        assert canaries_in(memory(writer.process.pid)) > 0  # or the search itself finds nothing
        assert not holds(writer.process.pid, keys["writer"])  # not even while it is unlocked
        written = writer.ask("general.status")["entries"]
        wait_for(lambda: reader.ask("general.status")["entries"] >= written, "all has arrived")
        with pytest.raises(LocalProtocolError, match="locked"):
            reader.ask("patient.list")
        assert canaries_in(memory(reader.process.pid)) == 0  # (a)
        assert not holds(reader.process.pid, keys["reader"])
        assert writer.ask("session.lock")["locked"]
        left = canaries_in(memory(writer.process.pid))
        print(f"(c) {left} of {COUNT} canaries are left in the process that wrote them")
        with pytest.raises(LocalProtocolError, match="locked"):
            writer.ask("patient.list")
        assert canaries_in(files_of(homes["writer"])) == 0
    assert canaries_in(files_of(homes["writer"])) == 0
    with running(homes["writer"], "--locked") as again:
        with pytest.raises(LocalProtocolError, match="locked"):
            again.ask("patient.list")
        assert canaries_in(memory(again.process.pid)) == 0  # (b)
        assert not holds(again.process.pid, keys["writer"])


@pytest.mark.slow
def test_what_a_locked_node_refuses_it_does_not_keep(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    """Every way in is refused by a locked node, with a hint, and leaves nothing on the disk."""
    source = tmp_path / "one.json"
    source.write_text(person(CANARIES[3]))
    patient = "0" * 32
    ways: list[tuple[str, dict[str, Any]]] = [
        ("patient.register", {"fhir": person(CANARIES[0])}),
        ("card.enrol", {"fhir": person(CANARIES[1])}),
        ("find.patient", {"name": CANARIES[2]}),
        ("fhir.import", {"paths": [str(source)]}),
    ]
    with running(homes["reader"], "--locked") as node:
        for operation, values in ways:
            with pytest.raises(LocalProtocolError, match="locked") as caught:
                node.ask(operation, **values)
            assert "unlock" in caught.value.hint, operation
            assert MARK not in f"{caught.value} {caught.value.hint}"
        with pytest.raises(LocalProtocolError):
            node.ask("patient.add", patient=patient, fhir=fhir([CANARIES[4]]))
        assert canaries_in(files_of(homes["reader"])) == 0
    assert canaries_in(files_of(homes["reader"])) == 0
