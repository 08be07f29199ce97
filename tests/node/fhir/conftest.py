"""A clinic's node opened without network, and small FHIR files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pmed.node.node import Node, open_node
from p2pmed.node.operations import Arguments, operations
from p2pmed.node.setup import create_network, init_home, self_enrol

PASSPHRASE = "for these tests only"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An enrolled home."""
    create_network(tmp_path / "authority", "Shan", PASSPHRASE, cheap=True)
    folder = tmp_path / "clinic"
    init_home(
        folder, name="Mu clinic", roles=["clinic"], place="shan", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(tmp_path / "authority", PASSPHRASE, folder, PASSPHRASE)
    return folder


@pytest.fixture
async def node(home: Path) -> AsyncIterator[Node]:
    """Its node."""
    async with open_node(home, passphrase=PASSPHRASE, network=False) as opened:
        yield opened


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Carry out an operation, as the command line does."""

    async def call(node: Node, operation: str, **values: Any) -> dict[str, Any]:
        report = values.pop("report", lambda progress: None)
        return await operations()[operation](node, Arguments(values), report)

    return call


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder for files to import."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def life() -> Callable[..., dict[str, Any]]:
    """A bundle of one patient with some observations."""

    def make(name: str, observations: int = 3, *, padding: str = "") -> dict[str, Any]:
        patient = {
            "resourceType": "Patient",
            "id": name,
            "identifier": [{"system": "urn:test", "value": name}],
            "name": [{"family": name}],
        }
        observed = [
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": f"number {number}"},
                "subject": {"reference": f"Patient/{name}"},
                "note": [{"text": padding}],
            }
            for number in range(observations)
        ]
        entry = [{"resource": resource} for resource in (patient, *observed)]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entry}

    return make


@pytest.fixture
def put(inbox: Path) -> Callable[[str, Any], Path]:
    """Write a value as a file of the inbox."""

    def write(name: str, value: Any) -> Path:
        path = inbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=1), encoding="utf-8")
        return path

    return write
