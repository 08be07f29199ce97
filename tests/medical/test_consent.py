"""Leave to read: given, ended, and ended twice on both sides of a cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from p2pmed.errors import Denied
from p2pmed.identity.sealing import box_id, box_public
from p2pmed.ledger.state import Layer
from p2pmed.medical.consent import (
    EPOCH_PURPOSE,
    AccessGrant,
    AccessRevoke,
    Purpose,
    current_epoch,
    grant_in_force,
    grant_row,
    readers,
    rotation_due,
)
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import (
    REGISTRATION_PURPOSE,
    PatientRegister,
    registration_grant,
)
from p2pmed.medical.privacy.holding import NOBODY
from p2pmed.medical.sealed import Place, open_body, seal_body

PATIENT, OTHER = b"\x01" * 16, b"\x02" * 16
SECRETS = {name: name.encode().ljust(32, b".") for name in ("card", "nurse", "lab", "insurer")}
PUBLIC = {name: box_public(secret) for name, secret in SECRETS.items()}


class Desk:
    """One device that registers a patient and hands out keys."""

    def __init__(self, ward: Any, entropy: Any) -> None:
        self.ward, self.entropy = ward, entropy
        self.device = ward.device("clinic", "Kijabe")
        self.ring = KeyRing.generate(PATIENT, entropy)
        self.registration = self.write(self.register())

    def register(self) -> PatientRegister:
        place = Place(network=self.ward.network, patient=PATIENT, author=self.device.author)
        sealed = seal_body(
            b"{}",
            kind="Patient",
            key=self.ring.current(Category.DEMOGRAPHICS),
            place=place,
            entropy=self.entropy,
        ).named()
        wraps = tuple(self.wrap(self.ring, who, REGISTRATION_PURPOSE) for who in ("card", "nurse"))
        return PatientRegister(
            catchment="",
            patient_key=PUBLIC["card"],
            wraps=wraps,
            sealed=sealed,
            told=b"",
            holding=NOBODY,
        )

    def wrap(self, ring: KeyRing, who: str, purpose: str) -> Any:
        return ring.wrap(PUBLIC[who], network=self.ward.network, purpose=purpose)

    def write(self, body: Any, refs: Any = (), patient: bytes = PATIENT) -> bytes:
        entry, code = self.ward.write(self.device, body, patient, refs)
        assert code == "applied", code
        return entry.id

    def refused(self, body: Any, refs: Any = (), patient: bytes = PATIENT) -> str:
        return self.ward.write(self.device, body, patient, refs)[1]

    def grant(self, who: str, *categories: Category, **other: Any) -> AccessGrant:
        ring = self.ring.only(categories or tuple(Category))
        fields: dict[str, Any] = {"since": 0, "until": 0, "epoch": ring.epoch}
        fields |= other
        return AccessGrant(
            grantee_key=PUBLIC[who],
            purpose=Purpose.TREATMENT,
            wrapped=self.wrap(ring, who, Purpose.TREATMENT).wrapped,
            told=b"",
            under=b"",
            proof=b"",
            **fields,
        )

    def revoke(self, grant: bytes, epoch: int, *survivors: str) -> AccessRevoke:
        newer = KeyRing.generate(PATIENT, self.entropy, epoch=epoch)
        wraps = tuple(self.wrap(newer, who, EPOCH_PURPOSE) for who in survivors)
        return AccessRevoke(grant=grant, epoch=epoch, wraps=wraps, proof=b"")


@pytest.fixture
def desk(ward: Any, entropy: Any) -> Desk:
    return Desk(ward, entropy)


def test_a_grant_opens_its_categories_only(desk: Desk) -> None:
    """From the ledger's bytes alone the grantee opens what was granted, and nothing else."""
    desk.write(desk.grant("lab", Category.LABORATORY))
    body = desk.ward.registry.body(desk.device.log[-1])
    place = Place(network=desk.ward.network, patient=PATIENT, author=desk.device.author)
    held = KeyRing.open(
        body.wrapped,
        SECRETS["lab"],
        patient=PATIENT,
        network=desk.ward.network,
        purpose=body.purpose,
    )
    for category in Category:
        key = desk.ring.current(category)
        sealed = seal_body(b"{}", kind="Basic", key=key, place=place, entropy=desk.entropy).named()
        if category is Category.LABORATORY:
            assert open_body(sealed, key=held.find(sealed.key_id), place=place).resource == b"{}"
        else:
            with pytest.raises(Denied):
                held.find(sealed.key_id)
    for who in ("card", "nurse", "insurer"):
        with pytest.raises(Denied):
            KeyRing.open(
                body.wrapped,
                SECRETS[who],
                patient=PATIENT,
                network=desk.ward.network,
                purpose=body.purpose,
            )


def test_registration_names_the_first_readers(desk: Desk) -> None:
    """Who was given keys at registration is a reader like any other, but for the patient."""
    (nurse,) = readers(desk.ward.view, PATIENT)
    assert nurse.id == registration_grant(desk.registration, box_id(PUBLIC["nurse"]))
    assert nurse.row.purpose == REGISTRATION_PURPOSE
    assert nurse.row.grantee == box_id(PUBLIC["nurse"])
    desk.write(desk.revoke(nurse.id, 1, "card"), [desk.registration])
    assert readers(desk.ward.view, PATIENT) == []


def test_who_can_read_now(desk: Desk) -> None:
    """A grant holds from its beginning until its end, and not after it was revoked."""
    desk.write(desk.grant("lab", since=1_000, until=2_000))
    open_ended = desk.write(desk.grant("insurer", since=1_500))

    def names(at_ms: int | None) -> set[bytes]:
        return {grant.row.grantee_key for grant in readers(desk.ward.view, PATIENT, at_ms)}

    assert names(999) == {b""}
    assert names(1_000) == {b"", PUBLIC["lab"]}
    assert names(1_999) == {b"", PUBLIC["lab"], PUBLIC["insurer"]}
    assert names(2_000) == {b"", PUBLIC["insurer"]}
    desk.write(desk.revoke(open_ended, 1, "card", "nurse"), [open_ended])
    assert names(2_000) == {b""}
    row = grant_row(desk.ward.view, PATIENT, open_ended)
    assert row is not None
    assert not grant_in_force(row, 1_600)
    assert readers(desk.ward.view, OTHER) == []


def test_revocation_begins_an_epoch(desk: Desk) -> None:
    """The ex-reader has no key of the new epoch; the survivors have."""
    grant = desk.write(desk.grant("lab"))
    assert current_epoch(desk.ward.view, PATIENT) == 0
    desk.write(desk.revoke(grant, 1, "card", "nurse"), [grant])
    assert current_epoch(desk.ward.view, PATIENT) == 1
    assert not rotation_due(desk.ward.view, PATIENT)
    body = desk.ward.registry.body(desk.device.log[-1])
    opened = 0
    for wrapped in body.wraps:
        for who, secret in SECRETS.items():
            try:
                ring = KeyRing.open(
                    wrapped.wrapped,
                    secret,
                    patient=PATIENT,
                    network=desk.ward.network,
                    purpose=EPOCH_PURPOSE,
                )
            except Denied:
                continue
            opened += 1
            assert who in ("card", "nurse")
            assert ring.current(Category.GENERAL).epoch == 1
    assert opened == 2


def test_revocations_apart_are_united(desk: Desk) -> None:
    """Both take effect in any order; the keys each gave the other's ex-reader are due to go."""
    lab, insurer = desk.write(desk.grant("lab")), desk.write(desk.grant("insurer"))
    below = desk.ward.view
    entries = [
        desk.ward.sign(desk.device, body, PATIENT, refs)
        for body, refs in (
            (desk.revoke(lab, 1, "card", "nurse", "insurer"), [lab]),
            (desk.revoke(insurer, 1, "card", "nurse", "lab"), [insurer]),
        )
    ]
    states = []
    for order in itertools.permutations(entries):
        desk.ward.view = Layer(below)
        assert [desk.ward.apply(desk.device, entry) for entry in order] == ["applied"] * 2
        states.append(list(desk.ward.view.scan(b"")))
        assert [grant.row.grantee_key for grant in readers(desk.ward.view, PATIENT)] == [b""]
        assert rotation_due(desk.ward.view, PATIENT)
    assert states[0] == states[1]
    desk.write(desk.revoke(lab, 2, "card", "nurse"), [lab])
    assert current_epoch(desk.ward.view, PATIENT) == 2
    assert not rotation_due(desk.ward.view, PATIENT)


def test_a_late_revocation_asks_for_another_epoch(desk: Desk) -> None:
    """A revocation of an older epoch that arrives late has not kept its man from the newest."""
    lab, insurer = desk.write(desk.grant("lab")), desk.write(desk.grant("insurer"))
    desk.write(desk.revoke(lab, 2, "card", "nurse", "insurer"), [lab])
    assert not rotation_due(desk.ward.view, PATIENT)
    desk.write(desk.revoke(insurer, 1, "card", "nurse"), [insurer])
    assert current_epoch(desk.ward.view, PATIENT) == 2
    assert rotation_due(desk.ward.view, PATIENT)


def test_granted_again_is_a_reader_again(desk: Desk) -> None:
    """Who lost one grant and holds another needs no rotation."""
    lab = desk.write(desk.grant("lab"))
    desk.write(desk.revoke(lab, 1, "card"), [lab])
    desk.ring = desk.ring.rotated(desk.entropy, epoch=1)
    desk.write(desk.grant("lab"))
    assert not rotation_due(desk.ward.view, PATIENT)
    assert PUBLIC["lab"] in {g.row.grantee_key for g in readers(desk.ward.view, PATIENT)}


def test_grant_refusals(desk: Desk) -> None:
    """A grant that ends before it begins, or is about nobody, is refused by name."""
    assert desk.refused(desk.grant("lab", since=5, until=5)) == "malformed"
    assert desk.refused(desk.grant("lab"), patient=OTHER) == "patient_unknown"
    assert desk.refused(desk.grant("lab"), patient=b"") == "malformed"


def test_revoke_refusals(desk: Desk) -> None:
    """An unknown grant, one not referred to, an epoch that is not new, a survivor twice."""
    grant = desk.write(desk.grant("lab", epoch=3))
    assert desk.refused(desk.revoke(bytes(32), 9), [grant]) == "grant_unknown"
    assert desk.refused(desk.revoke(grant, 4)) == "reference_missing"
    assert desk.refused(desk.revoke(grant, 3), [grant]) == "malformed"
    twice = desk.revoke(grant, 4, "card", "card")
    assert desk.refused(twice, [grant]) == "malformed"
    desk.write(desk.register(), patient=OTHER)
    assert desk.refused(desk.revoke(grant, 4), [grant], patient=OTHER) == "grant_unknown"
    assert desk.refused(desk.revoke(grant, 4), [grant]) == "applied"


def test_no_category_in_clear(desk: Desk) -> None:
    """Neither the signed bytes nor the state say which categories a grant opens."""
    desk.write(desk.grant("insurer", Category.INSURANCE, Category.HIV_STI))
    stored = b"".join(
        [entry.raw for entry in desk.device.log]
        + [key + value for key, value in desk.ward.view.scan(b"")]
    )
    for category in Category:
        assert category.value.encode() not in stored
    for key in desk.ring:
        assert key.key not in stored
