"""The frozen case file: what was handed over once is read for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.medical.care.case_check import check_case
from p2pmed.medical.care.case_file import open_sealed_case

VECTOR = json.loads(
    (Path(__file__).parents[2] / "vectors" / "case.json").read_text(encoding="utf-8")
)
NETWORK = bytes.fromhex(VECTOR["network"])


@pytest.fixture(scope="module")
def opened() -> bytes:
    sealed = bytes.fromhex(VECTOR["sealed"])
    return open_sealed_case(sealed, bytes.fromhex(VECTOR["reviewer_secret"]))


def test_the_frozen_case_proves_what_it_proved(opened: bytes) -> None:
    """Its entries, what was skipped, what is missing and late, by public keys alone."""
    checked = check_case(opened, network=NETWORK)
    assert len(opened) == VECTOR["opened_bytes"]
    assert checked.case.entry.id.hex() == VECTOR["case"]
    assert checked.surgery.hex() == VECTOR["surgery"]
    assert checked.skipped == VECTOR["skipped"]
    assert [line.entry.kind for line in checked.lines] == VECTOR["kinds"]
    assert checked.told is not None
    assert list(checked.told.missing) == VECTOR["missing"]
    assert [name.hex() for name, _ in checked.told.late] == VECTOR["late"]


def test_a_byte_changed_anywhere_in_it_is_refused(opened: bytes) -> None:
    """A hundred places of the frozen file, each with its lowest bit flipped."""
    for at in VECTOR["refused_at"]:
        changed = bytearray(opened)
        changed[at] ^= 1
        with pytest.raises((CredentialError, DecodeError)):
            check_case(bytes(changed), network=NETWORK)


def test_another_network_is_not_this_one(opened: bytes) -> None:
    """The id that the expert was told by another way is compared."""
    with pytest.raises(CredentialError, match="network"):
        check_case(opened, network=bytes(32))
