"""Registration: who a patient is to a ledger, and who got the first keys."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.identity.sealing import box_id, box_public
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import (
    GRANTS,
    REGISTRATION_PURPOSE,
    WRAPS_MAX,
    PatientRegister,
    patient_row,
    registration_grant,
)
from p2pmed.medical.privacy.holding import NOBODY
from p2pmed.medical.sealed import Place, Sealed, open_body, seal_body

PATIENT = b"\x01" * 16
CARD = b"card".ljust(32, b".")


@pytest.fixture
def device(ward: Any) -> Any:
    return ward.device("clinic", "Kijabe")


@pytest.fixture
def ring(entropy: Any) -> KeyRing:
    return KeyRing.generate(PATIENT, entropy)


def _register(ward: Any, device: Any, ring: KeyRing, entropy: Any, *readers: bytes) -> Any:
    place = Place(network=ward.network, patient=PATIENT, author=device.author)
    key = ring.current(Category.DEMOGRAPHICS)
    sealed = seal_body(
        b'{"resourceType":"Patient"}', kind="Patient", key=key, place=place, entropy=entropy
    ).named()
    wraps = tuple(
        ring.wrap(reader, network=ward.network, purpose=REGISTRATION_PURPOSE) for reader in readers
    )
    return PatientRegister(
        catchment="V-12",
        patient_key=box_public(CARD),
        wraps=wraps,
        sealed=sealed,
        told=b"",
        holding=NOBODY,
    )


def test_the_card_opens_the_demographics(
    ward: Any, device: Any, ring: KeyRing, entropy: Any
) -> None:
    """From the ledger's bytes and the card's secret alone, the patient reads who they are."""
    body = _register(ward, device, ring, entropy, box_public(CARD), device.member.box_key)
    entry, code = ward.write(device, body, PATIENT)
    assert code == "applied"
    read = ward.registry.body(entry)
    mine = next(w for w in read.wraps if w.grantee == box_id(read.patient_key))
    held = KeyRing.open(
        mine.wrapped, CARD, patient=PATIENT, network=ward.network, purpose=REGISTRATION_PURPOSE
    )
    place = Place(network=ward.network, patient=PATIENT, author=entry.author)
    opened = open_body(read.sealed, key=held.find(read.sealed.key_id), place=place)
    assert opened.resource == b'{"resourceType":"Patient"}'


def test_the_patient_is_no_grantee(ward: Any, device: Any, ring: KeyRing, entropy: Any) -> None:
    """The first readers can be revoked by id; the patient's own keys cannot."""
    body = _register(ward, device, ring, entropy, box_public(CARD), device.member.box_key)
    entry, _ = ward.write(device, body, PATIENT)
    assert [grant for grant, _ in GRANTS.scan(ward.view, PATIENT)] == [
        registration_grant(entry.id, box_id(device.member.box_key))
    ]
    row = patient_row(ward.view, PATIENT)
    assert row is not None
    assert (row.author, row.entry, row.catchment) == (device.author, entry.id, "V-12")


def test_what_is_no_registration_is_refused(
    ward: Any, device: Any, ring: KeyRing, entropy: Any
) -> None:
    """Nobody registered, a reader twice, too many readers, no demographics: nothing is written."""
    nurse = device.member.box_key
    good = _register(ward, device, ring, entropy, nurse)
    twice = _register(ward, device, ring, entropy, nurse, nurse)
    crowd = _register(
        ward, device, ring, entropy, *(box_public(bytes([n]) * 32) for n in range(WRAPS_MAX + 1))
    )
    bare = PatientRegister(
        catchment="",
        patient_key=good.patient_key,
        wraps=(),
        sealed=Sealed(
            suite=1, key_id=bytes(16), nonce=bytes(16), commitment=bytes(32), data=b"", parts=()
        ),
        told=b"",
        holding=NOBODY,
    )
    assert ward.write(device, good, b"")[1] == "malformed"
    for body in (twice, crowd, bare):
        assert ward.write(device, body, PATIENT)[1] == "malformed"
    assert patient_row(ward.view, PATIENT) is None
    assert ward.write(device, good, PATIENT)[1] == "applied"
    assert ward.write(device, good, PATIENT)[1] == "patient_exists"
