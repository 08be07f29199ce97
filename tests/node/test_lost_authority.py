"""Lost and stolen keys above a device: a county's, and a root's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import check_chain
from p2pmed.identity.manifest import open_manifest
from p2pmed.node.setup import (
    answer_request,
    create_network,
    enrol,
    init_home,
    read_chain,
    request_text,
    self_enrol,
)
from p2pmed.storage.home import HomeFile, read_home

PASSPHRASE = "for these tests only"


def new_home(folder: Path, *, role: str = "clinic", place: str = "shan/mu") -> Path:
    init_home(
        folder, name=folder.name, roles=[role], place=place, passphrase=PASSPHRASE, cheap=True
    )
    return folder


def holds(home: Path) -> bool:
    """Whether any member of the network believes this home's credentials."""
    manifest, network = open_manifest(read_home(home, HomeFile.MANIFEST))
    check_chain(read_chain(home), manifest=manifest, network_id=network, at_ms=None)
    return True


def test_a_lost_root_key_is_replaced_by_a_spare(tmp_path: Path) -> None:
    """The spare issues in the same network: who joined before and after believe each other."""
    root = tmp_path / "authority"
    network = create_network(root, "Shan", PASSPHRASE, cheap=True, spares=2)
    before = new_home(tmp_path / "before")
    self_enrol(root, PASSPHRASE, before, PASSPHRASE)
    shutil.rmtree(root)
    after = new_home(tmp_path / "after")
    spare = tmp_path / "authority-spare-2"
    self_enrol(spare, PASSPHRASE, after, PASSPHRASE)
    assert read_home(before, HomeFile.MANIFEST) == read_home(after, HomeFile.MANIFEST)
    assert open_manifest(read_home(after, HomeFile.MANIFEST))[1] == network
    assert holds(before)
    assert holds(after)


def test_a_spare_holds_one_key_only(tmp_path: Path) -> None:
    """Who robs one drawer has one root key, not all three."""
    from p2pmed.node.setup import load_issuer

    create_network(tmp_path / "a", "Shan", PASSPHRASE, cheap=True, spares=1)
    desks = [load_issuer(tmp_path / name, PASSPHRASE) for name in ("a", "a-spare-1")]
    assert [len(desk.seeds) for desk in desks] == [1, 1]
    assert desks[0].key != desks[1].key
    assert {desk.key for desk in desks} == set(desks[0].manifest.root_keys)


def test_a_lost_county_key_is_replaced_by_the_authority(tmp_path: Path) -> None:
    """The county is enrolled anew and issues again; clinics that it had enrolled stay members."""
    root = tmp_path / "authority"
    create_network(root, "Shan", PASSPHRASE, cheap=True)
    old = new_home(tmp_path / "county", role="county", place="shan")
    self_enrol(root, PASSPHRASE, old, PASSPHRASE, delegate=["clinic"])
    first = new_home(tmp_path / "first")
    enrol(first, answer_request(old, request_text(first), PASSPHRASE), PASSPHRASE)
    shutil.rmtree(old)
    new = new_home(tmp_path / "county-again", role="county", place="shan")
    self_enrol(root, PASSPHRASE, new, PASSPHRASE, delegate=["clinic"])
    second = new_home(tmp_path / "second")
    enrol(second, answer_request(new, request_text(second), PASSPHRASE), PASSPHRASE)
    assert holds(first)
    assert holds(second)
    assert read_chain(first)[0] != read_chain(second)[0]


def test_a_county_s_new_key_does_not_come_from_the_county(tmp_path: Path) -> None:
    """Without the authority nobody makes a new county: the old one cannot issue its like."""
    root = tmp_path / "authority"
    create_network(root, "Shan", PASSPHRASE, cheap=True)
    old = new_home(tmp_path / "county", role="county", place="shan")
    self_enrol(root, PASSPHRASE, old, PASSPHRASE, delegate=["clinic"])
    new = new_home(tmp_path / "county-again", role="county", place="shan")
    with pytest.raises(CredentialError):
        answer_request(old, request_text(new), PASSPHRASE)
