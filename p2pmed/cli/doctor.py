"""``p2pmed doctor``: what stands between a node and its work, in plain words.

Each line is ``ok``, ``warn`` or ``fail`` and says what to do. It looks, and changes nothing; what
it could not look at it says. Exit status 1 if anything fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.bundle import date_text, size_text
from p2pmed.cli.session import (
    PASSPHRASE_VARIABLE,
    add_home,
    ask_node,
    command,
    home_of,
    passphrase_of,
    run_async,
    show,
)
from p2pmed.errors import P2pmedError

__all__ = ["add"]

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"

ROOM_FAIL_BYTES: Final = 64 * 1024 * 1024
ROOM_WARN_BYTES: Final = 512 * 1024 * 1024
EXPIRES_SOON_MS: Final = 30 * 86_400_000
CLOCK_BEHIND_MS: Final = 5 * 60_000
"""A wall clock this far before the ledger's time is wrong."""
LISTEN_S: Final = 3.0
"""A node answers a browser's first questions within a second or two."""
SQLITE_FIXED: Final = (3, 51, 3)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at."""

    check: str
    level: str
    says: str
    do: str = ""


@dataclass(slots=True)
class Patient:
    """What is known of the node when a check is asked."""

    parsed: argparse.Namespace
    home: Path
    running: bool = False
    status: Mapping[str, Any] | None = None
    config: Any = None
    network: bytes = b""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "doctor",
        help="look for what keeps a node from working, and say what to do",
        example="p2pmed doctor --home clinic-a",
    )
    add_home(parser)
    parser.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    patient = Patient(parsed, home_of(parsed))
    lines: list[Line] = []
    for check in CHECKS:
        try:
            lines += check(patient)
        except P2pmedError as error:
            lines.append(Line(check.__name__.strip("_"), FAIL, str(error), error.hint))
        if patient.config is None and lines[-1].level == FAIL:
            break  # no home, or none that can be read: nothing else to look at
    failed = any(line.level == FAIL for line in lines)
    answer = {
        "home": str(patient.home),
        "ok": not failed,
        "checks": [
            {"check": line.check, "level": line.level, "says": line.says, "do": line.do}
            for line in lines
        ],
    }
    show(parsed, answer, lines=_text)
    return 1 if failed else 0


def _text(answer: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in answer["checks"]:
        lines.append(f"{row['level']:<4}  {row['check']:<10}  {row['says']}")
        if row["do"]:
            lines.append(f"{'':<18}{row['do']}")
    return lines


# --- the home -------------------------------------------------------------------------------


def _home(patient: Patient) -> Iterator[Line]:
    from p2pmed.node.backup import is_running
    from p2pmed.node.config import read_config
    from p2pmed.storage.home import HomeFile, read_home

    patient.running = is_running(patient.home)
    patient.config = read_config(
        read_home(patient.home, HomeFile.CONFIG).decode("utf-8", "replace")
    )
    mode = patient.home.stat().st_mode & 0o077
    if mode:
        yield Line("home", WARN, "others on this machine may look into it", "chmod 700 its folder")
    elif not os.access(patient.home, os.W_OK):
        yield Line("home", FAIL, "it cannot be written", "check its owner, and how it is mounted")
    else:
        state = "its node is running" if patient.running else "its node is not running"
        yield Line("home", OK, f"{patient.home} can be read; {state}")
    if patient.running:
        yield from _node(patient)


def _node(patient: Patient) -> Iterator[Line]:
    """What the running node says of itself."""
    try:
        patient.status = ask_node(patient.parsed, "general.status")
    except P2pmedError as error:
        yield Line("node", FAIL, str(error), error.hint or "look at its log, or restart it")
        return
    status = patient.status
    if status["halted"]:
        yield Line("node", FAIL, f"its ledger is halted: {status['halted']}", "call for help")
    elif status.get("muted"):
        do = "read: p2pmed mesh resume --help"
        yield Line("node", WARN, "it was restored from a backup and does not vote", do)
    else:
        yield Line(
            "node", OK, f"it answers; {status['entries']} entries, {status['pending']} pending"
        )
    if status["discrepancies"]:
        what = f"{status['discrepancies']} contradictions wait for a person's decision"
        yield Line("node", WARN, what, "p2pmed discrepancies")


def _keystore(patient: Patient) -> Iterator[Line]:
    from p2pmed.node.setup import load_keys

    given = patient.parsed.passphrase_file or os.environ.get(PASSPHRASE_VARIABLE)
    if not given:
        yield Line(
            "keystore",
            WARN,
            "not checked: no passphrase was given",
            f"give --passphrase-file FILE, or set {PASSPHRASE_VARIABLE}",
        )
        return
    load_keys(patient.home, passphrase_of(patient.parsed))
    yield Line("keystore", OK, "the passphrase opens it")


def _credential(patient: Patient) -> Iterator[Line]:
    from p2pmed.identity.credentials import check_chain
    from p2pmed.identity.manifest import open_manifest
    from p2pmed.node.setup import read_chain
    from p2pmed.storage.files import read_file
    from p2pmed.storage.home import HomeFile

    raw = read_file(patient.home / HomeFile.MANIFEST)
    if raw is None:
        do = "carry request.txt to the authority, then: p2pmed enrol"
        yield Line("credential", FAIL, "this home is not enrolled in a network", do)
        return
    manifest, patient.network = open_manifest(raw)
    now = _now_ms()
    if now < manifest.created_ms:
        what = f"the clock says {date_text(now)}, before the network was made"
        yield Line("clock", FAIL, what, "set the machine's date and time")
    leaf = check_chain(
        read_chain(patient.home), manifest=manifest, network_id=patient.network, at_ms=now
    )
    roles = ", ".join(role.value for role in leaf.roles)
    until = date_text(leaf.not_after)
    if leaf.not_after - now < EXPIRES_SOON_MS:
        do = "ask the authority for a new one, with the request.txt of this home"
        yield Line("credential", WARN, f"{leaf.name} ({roles}) only until {until}", do)
    else:
        yield Line("credential", OK, f"{leaf.name} ({roles}) in {manifest.name!r} until {until}")


def _clock(patient: Patient) -> Iterator[Line]:
    newest = _ledger_time(patient)
    now = _now_ms()
    if newest is None:
        yield Line("clock", OK, f"{date_text(now)}; there is no ledger to compare it with")
    elif now + CLOCK_BEHIND_MS < newest:
        what = f"it says {date_text(now)}, the ledger was at {date_text(newest)} already"
        yield Line("clock", FAIL, what, "set the machine's date and time")
    else:
        yield Line("clock", OK, f"{date_text(now)}, after the ledger's {date_text(newest)}")


def _ledger_time(patient: Patient) -> int | None:
    """Block time of the newest block of the home ledger."""
    if patient.running:
        if patient.status is None:
            return None
        found = ask_node(patient.parsed, "mesh.show").get("time_ms")
        return int(found) if found is not None else None
    from p2pmed.node.audit.home import newest_block_time

    return newest_block_time(patient.home)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the machine ----------------------------------------------------------------------------


def _disk(patient: Patient) -> Iterator[Line]:
    free = shutil.disk_usage(patient.home).free
    text = f"{size_text(free)} free"
    do = "free some room; a node without room refuses new records"
    if free < ROOM_FAIL_BYTES:
        yield Line("disk", FAIL, text, do)
    else:
        yield Line(
            "disk",
            WARN if free < ROOM_WARN_BYTES else OK,
            text,
            do if free < ROOM_WARN_BYTES else "",
        )
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < SQLITE_FIXED:
        fixed = ".".join(map(str, SQLITE_FIXED))
        says = (
            f"SQLite {version}: safe as used here; before {fixed} a second writer can damage a file"
        )
        yield Line("sqlite", OK, says, "never open node.db with another program while a node runs")
    else:
        yield Line("sqlite", OK, f"SQLite {version}")


def _addresses(patient: Patient) -> Iterator[Line]:
    from p2pmed.aio.mdns import machine_addresses

    found = machine_addresses()
    if patient.config.loopback:
        yield Line("addresses", OK, "this machine only (loopback = true in p2pmed.toml)")
    elif found:
        yield Line("addresses", OK, ", ".join(found))
    else:
        do = "connect the cable or the Wi-Fi; the node works alone meanwhile"
        yield Line("addresses", WARN, "this machine has no network address", do)


def _port(patient: Patient) -> Iterator[Line]:
    from p2pmed.aio.probe import port_taken

    port = patient.config.port
    if patient.running:
        used = patient.status["port"] if patient.status else port
        yield Line("port", OK, f"{used}, in use by this home's node")
    elif port == 0:
        yield Line("port", OK, "any free one (port = 0 in p2pmed.toml)")
    elif why := port_taken(patient.config.host, port):
        do = "stop that program, or set another port in p2pmed.toml"
        yield Line("port", FAIL, f"{port} on {patient.config.host}: {why}", do)
    else:
        yield Line("port", OK, f"{port} is free")


# --- the others -----------------------------------------------------------------------------


def _multicast(patient: Patient) -> Iterator[Line]:
    from p2pmed.aio.mdns import LOOPBACK, machine_addresses
    from p2pmed.aio.probe import hears_own_multicast

    if not patient.config.discovery:
        do = "peers must be typed in p2pmed.toml, or with: p2pmed dial"
        yield Line("multicast", OK, "not used (discovery = false in p2pmed.toml)", do)
        return
    for address in LOOPBACK if patient.config.loopback else machine_addresses():
        if why := hears_own_multicast(address):
            do = "discovery will not work here; type the peers' addresses in p2pmed.toml"
            yield Line("multicast", WARN, f"{address}: {why}", do)
        else:
            says = f"{address} hears itself; whether the router passes it on, only another can tell"
            yield Line("multicast", OK, says)


def _peers(patient: Patient) -> Iterator[Line]:
    connected = 0
    if patient.status is not None:
        rows = ask_node(patient.parsed, "general.peers")["peers"]
        connected = len(rows)
        if rows:
            names = ", ".join(row["name"] or row["short"] for row in rows[:8])
            yield Line("peers", OK, f"{connected} connected: {names}")
            return
    heard = _listen(patient) if patient.config.discovery and patient.network else []
    yield from _judge_peers(patient, heard)


def _listen(patient: Patient) -> list[Any]:
    from p2pmed.aio.mdns import LOOPBACK, machine_addresses
    from p2pmed.aio.probe import listen_for_nodes

    addresses = LOOPBACK if patient.config.loopback else machine_addresses()
    if not addresses:
        return []
    heard = run_async(listen_for_nodes(addresses, seconds=LISTEN_S))
    own = patient.status["port"] if patient.status else None
    return [n for n in heard if not (n.port == own and set(n.addresses) & set(addresses))]


def _judge_peers(patient: Patient, heard: list[Any]) -> Iterator[Line]:
    """Nobody is connected: why that may be, as far as it can be told."""
    from p2pmed.discovery.records import network_tag

    port = patient.status["port"] if patient.status else patient.config.port
    tag = network_tag(patient.network) if patient.network else ""
    ours = [node for node in heard if node.tag == tag]
    others = [node for node in heard if node.tag != tag]
    level = WARN if patient.running else OK
    if ours:
        where = ", ".join(f"{address}:{n.port}" for n in ours[:4] for address in n.addresses[:2])
        says = f"{len(ours)} of our network announce themselves ({where})"
        if patient.running:
            do = f"none is connected: let firewalls pass TCP {port or 'of the node'} on both"
            yield Line("peers", WARN, says, do)
        else:
            yield Line("peers", OK, f"{says}; start the node to meet them")
    if others:
        do = "both sides must be enrolled in one network to meet"
        yield Line("peers", level, f"{len(others)} nodes of another network are on this LAN", do)
    if not heard:
        says = f"nobody announced itself in {LISTEN_S:.0f} s"
        if not patient.config.discovery:
            says = "discovery is off, so nobody was listened for"
        do = (
            "are the others running, on the same Wi-Fi? let firewalls pass UDP 5353 and TCP "
            f"{port or 'of the node'}; some routers isolate clients: then use typed addresses"
        )
        yield Line("peers", level, says, do if patient.running else "")


CHECKS: Final[tuple[Callable[[Patient], Iterator[Line]], ...]] = (
    _home,
    _keystore,
    _credential,
    _clock,
    _disk,
    _addresses,
    _port,
    _multicast,
    _peers,
)
"""In this order; each knows what those before it found."""
