"""Our signatures against an independent COSE library, both ways.

The library (``cwt`` with a cbor2 below 6) lives in an environment of its own, which
``P2PMED_COSE_PYTHON`` names: its Python, or its folder. Without that, one is made and kept in
pytest's cache; without a package index these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pmed.identity.keys import public_key
from p2pmed.ledger.transaction import open_entry
from p2pmed.wire import cose

PEER = Path(__file__).with_name("cose_peer.py")
VECTORS = Path(__file__).parents[1] / "vectors" / "transaction.json"
PACKAGES = ("cwt==3.3.0", "cbor2<6")

Peer = Callable[[list[dict[str, str]]], list[dict[str, str]]]

pytestmark = pytest.mark.timeout(400)


def _python_in(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _make_environment(home: Path) -> None:
    """Skips where there is no ``venv`` or no package index; any other fault is a failure."""
    install = ["-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "10"]
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(_python_in(home)), *install, *PACKAGES],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"no environment for the independent COSE library: {command[2]} hangs")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            pytest.skip(f"no environment for the independent COSE library: {last}")


@pytest.fixture(scope="session")
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    """Runs commands in the other environment."""
    named = os.environ.get("P2PMED_COSE_PYTHON")
    if named:
        place = Path(named)
        python = _python_in(place) if place.is_dir() else place
    else:
        cache = getattr(request.config, "cache", None)
        kept = cache.mkdir("p2pmed-cose") if cache else tmp_path_factory.mktemp("cose")
        home = kept / f"env-{sys.version_info[0]}.{sys.version_info[1]}"
        if not home.exists():
            fresh = tmp_path_factory.mktemp("cose-env") / "env"
            _make_environment(fresh)
            try:
                fresh.rename(home)
            except OSError:  # another worker was first, or another file system
                home = fresh
        python = _python_in(home)

    def run(commands: list[dict[str, str]]) -> list[dict[str, str]]:
        done = subprocess.run(
            [str(python), str(PEER)],
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: list[dict[str, str]] = json.loads(done.stdout)
        return answers

    return run


@pytest.fixture(scope="session")
def frozen() -> dict[str, Any]:
    """The frozen transactions."""
    vectors: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
    return vectors


def test_the_other_library_verifies_our_frozen_transactions(
    peer: Peer, frozen: dict[str, Any]
) -> None:
    """Whoever has a COSE library and a public key can check our transactions."""
    commands, payloads = [], []
    for vector in frozen["valid"]:
        external = cose.external_data("transaction", bytes.fromhex(vector["network"]))
        opened = cose.open_signed(bytes.fromhex(vector["raw"]), external=external)
        payloads.append({"payload": opened.payload.hex()})
        commands.append(
            {
                "do": "verify",
                "raw": vector["raw"],
                "external": external.hex(),
                "key": opened.signer.hex(),
            }
        )
    assert peer(commands) == payloads


def test_the_other_library_refuses_what_we_refuse(peer: Peer, frozen: dict[str, Any]) -> None:
    """A changed byte, another key and another network are refused on both sides."""
    vector = frozen["valid"][0]
    network = bytes.fromhex(vector["network"])
    external = cose.external_data("transaction", network)
    raw = bytes.fromhex(vector["raw"])
    entry = open_entry(raw, network=network)
    other = public_key(b"\x07" * 32)
    good = {"do": "verify", "raw": raw.hex(), "external": external.hex()}
    commands = [
        {**good, "key": entry.author.hex(), "raw": (raw[:-1] + bytes([raw[-1] ^ 1])).hex()},
        {**good, "key": other.hex()},
        {**good, "key": entry.author.hex(), "external": cose.external_data("vote", network).hex()},
        {**good, "key": entry.author.hex(), "external": ""},
    ]
    answers = peer(commands)
    assert [sorted(answer) for answer in answers] == [["error"]] * len(commands)
    assert not cose.verify(other, entry.signature, entry.to_be_signed)


def test_we_accept_what_the_other_library_signs(peer: Peer, frozen: dict[str, Any]) -> None:
    """With our protected header, its messages are ours byte for byte: Ed25519 has no dice."""
    commands = []
    for vector in frozen["valid"]:
        external = cose.external_data("transaction", bytes.fromhex(vector["network"]))
        opened = cose.open_signed(bytes.fromhex(vector["raw"]), external=external)
        commands.append(
            {
                "do": "sign",
                "payload": opened.payload.hex(),
                "external": external.hex(),
                "seed": vector["seed"],
                "key": opened.signer.hex(),
            }
        )
    for vector, answer in zip(frozen["valid"], peer(commands), strict=True):
        entry = open_entry(bytes.fromhex(answer["raw"]), network=bytes.fromhex(vector["network"]))
        assert cose.verify(entry.author, entry.signature, entry.to_be_signed)
        assert answer["raw"] == vector["raw"]


def test_sizes_of_payload_that_change_the_length_prefix(peer: Peer) -> None:
    """Payloads around 24, 256 and 65,536 bytes are spelled alike on both sides."""
    seed = b"\x09" * 32
    public = public_key(seed)
    external = cose.external_data("transaction", b"")
    sizes = [0, 1, 23, 24, 255, 256, 65_535, 65_536]
    ours = [cose.sign(bytes(size), seed=seed, signer=public, external=external) for size in sizes]
    answers = peer(
        [
            {
                "do": "sign",
                "payload": bytes(size).hex(),
                "external": external.hex(),
                "seed": seed.hex(),
                "key": public.hex(),
            }
            for size in sizes
        ]
    )
    assert [answer["raw"] for answer in answers] == [raw.hex() for raw in ours]
    for raw in ours:
        opened = cose.open_signed(raw, external=external)
        assert cose.verify(public, opened.signature, opened.to_be_signed)
