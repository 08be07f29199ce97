"""Patients and records by the rules, signed and applied as a ledger does."""

from __future__ import annotations

import itertools
import timeit
from typing import Any

import pytest

from p2pmed.ledger.state import Layer
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.patients import PatientRegister, patient_row
from p2pmed.medical.privacy.holding import NOBODY
from p2pmed.medical.records import (
    Part,
    Place,
    RecordAdd,
    RecordAmend,
    RecordDraft,
    RecordRetract,
    amendments,
    open_record,
    record_row,
    seal_record,
)
from p2pmed.medical.sealed import seal_body

PATIENT, OTHER = b"\x01" * 16, b"\x02" * 16
NAME, DIAGNOSIS = "Wanjiru-Canary", "B20-canary"
RESOURCE = (
    f'{{"resourceType":"Condition","subject":{{"display":"{NAME}"}},'
    f'"code":{{"text":"{DIAGNOSIS}"}},"recordedDate":"2024-05-01"}}'
).encode()


class Clinic:
    """A device with the patient's keys, in a ward."""

    def __init__(self, ward: Any, entropy: Any, name: str, place: str = "") -> None:
        self.ward, self.entropy = ward, entropy
        self.device = ward.device(name, place)

    def place(self, patient: bytes = PATIENT) -> Place:
        return Place(network=self.ward.network, patient=patient, author=self.device.author)

    def draft(self, ring: KeyRing, raw: bytes = RESOURCE) -> RecordDraft:
        return seal_record(read_resource(raw), ring=ring, place=self.place(), entropy=self.entropy)

    def register(self, ring: KeyRing) -> PatientRegister:
        key = next(iter(ring))
        sealed = seal_body(
            RESOURCE, kind="Patient", key=key, place=self.place(), entropy=self.entropy
        ).named()
        wraps = (
            ring.wrap(self.device.member.box_key, network=self.ward.network, purpose="register"),
        )
        return PatientRegister(
            catchment="V-12",
            patient_key=b"k" * 32,
            wraps=wraps,
            sealed=sealed,
            told=b"",
            holding=NOBODY,
        )

    def write(self, body: Any, refs: Any = (), patient: bytes = PATIENT) -> tuple[bytes, str]:
        entry, code = self.ward.write(self.device, body, patient, refs)
        return entry.id, code


@pytest.fixture
def ring(entropy: Any) -> KeyRing:
    return KeyRing.generate(PATIENT, entropy)


@pytest.fixture
def clinic(ward: Any, entropy: Any) -> Clinic:
    return Clinic(ward, entropy, "clinic-a", "Kijabe")


@pytest.fixture
def registered(clinic: Clinic, ring: KeyRing) -> bytes:
    entry, code = clinic.write(clinic.register(ring))
    assert code == "applied"
    return entry


def test_a_record_goes_in_and_comes_out(clinic: Clinic, ring: KeyRing, registered: bytes) -> None:
    """What was signed, carried and applied opens to the bytes that came in."""
    entry, code = clinic.write(clinic.draft(ring).added())
    assert code == "applied"
    signed = clinic.device.log[-1]
    body = clinic.ward.registry.body(signed)
    opened = open_record(body.sealed, ring=ring, place=clinic.place())
    assert opened.resource == RESOURCE
    assert opened.type == "Condition"
    assert opened.occurred_ms == 1_714_521_600_000
    row = record_row(clinic.ward.view, entry)
    assert row is not None
    assert (row.subject, row.author) == (PATIENT, clinic.device.author)
    assert (row.retracted, row.superseded_by) == (False, b"")


def test_nothing_in_clear(clinic: Clinic, ring: KeyRing, registered: bytes) -> None:
    """A name, a diagnosis, a type or a category is in no signed byte, row or repr."""
    clinic.write(clinic.draft(ring).added())
    draft = clinic.draft(ring)
    clinic.write(draft.amended(clinic.device.log[-1].id, "correction"))
    shown = repr([draft, draft.sealed, draft.added(), clinic.device.log, ring]).encode()
    stored = b"".join(
        [entry.raw for entry in clinic.device.log]
        + [key + value for key, value in clinic.ward.view.scan(b"")]
    )
    for secret in (NAME, DIAGNOSIS, "Condition", "Patient", "general", "2024-05-01"):
        assert secret.encode() not in stored
        assert secret.encode() not in shown
    for key in ring:
        assert key.key not in stored


def test_unregistered_patient(clinic: Clinic, ring: KeyRing) -> None:
    """A record about nobody known is refused by that name, and may be resubmitted."""
    assert clinic.write(clinic.draft(ring).added())[1] == "patient_unknown"
    assert clinic.write(clinic.draft(ring).added(), patient=b"")[1] == "malformed"
    clinic.write(clinic.register(ring))
    assert clinic.write(clinic.draft(ring).added())[1] == "applied"


def test_pseudonym_is_registered_once(clinic: Clinic, ring: KeyRing, registered: bytes) -> None:
    """A second registration is refused and changes nothing."""
    before = patient_row(clinic.ward.view, PATIENT)
    assert clinic.write(clinic.register(ring))[1] == "patient_exists"
    assert patient_row(clinic.ward.view, PATIENT) == before
    assert before is not None
    assert before.entry == registered
    assert before.catchment == "V-12"


def test_registration_with_a_reader_twice(clinic: Clinic, ring: KeyRing) -> None:
    """One reader, two wraps: which counts? Refused."""
    body = clinic.register(ring)
    twice = PatientRegister(
        catchment="",
        patient_key=body.patient_key,
        wraps=body.wraps * 2,
        sealed=body.sealed,
        told=b"",
        holding=NOBODY,
    )
    assert clinic.write(twice)[1] == "malformed"


def test_another_device_names_the_registration(
    clinic: Clinic, ring: KeyRing, registered: bytes, ward: Any, entropy: Any
) -> None:
    """So that every order puts the registration first, another author must refer to it."""
    other = Clinic(ward, entropy, "clinic-b")
    assert other.write(other.draft(ring).added())[1] == "reference_missing"
    assert other.write(other.draft(ring).added(), refs=[registered])[1] == "applied"


def test_who_may_amend_and_retract(
    clinic: Clinic, ring: KeyRing, registered: bytes, ward: Any, entropy: Any
) -> None:
    """The device itself and its facility may; another facility, or one without a name, not."""
    colleague = Clinic(ward, entropy, "clinic-a2", "Kijabe")
    stranger = Clinic(ward, entropy, "clinic-b", "Limuru")
    nowhere = Clinic(ward, entropy, "clinic-c", "")
    record, _ = clinic.write(clinic.draft(ring).added())
    refs = [registered, record]
    for who, expected in (
        (clinic, "applied"),
        (colleague, "applied"),
        (stranger, "not_the_author"),
        (nowhere, "not_the_author"),
    ):
        amend = who.draft(ring).amended(record, "correction")
        assert who.write(amend, refs)[1] == expected
        assert who.write(RecordRetract(record=record, reason="wrong-patient"), refs)[1] == expected


def test_two_places_without_a_name_are_not_one(
    ring: KeyRing, clinic: Clinic, registered: bytes, ward: Any, entropy: Any
) -> None:
    """An empty facility is nobody's."""
    one, two = (Clinic(ward, entropy, name, "") for name in ("van-1", "van-2"))
    record, code = one.write(one.draft(ring).added(), [registered])
    assert code == "applied"
    retract = RecordRetract(record=record, reason="entered-in-error")
    assert two.write(retract, [registered, record])[1] == "not_the_author"


@pytest.mark.parametrize("make", ["amend", "retract"])
def test_what_is_referred_to_must_fit(
    clinic: Clinic, ring: KeyRing, registered: bytes, make: str, entropy: Any
) -> None:
    """An unknown record, one not among the refs, another patient's record: each by its name."""

    def body(target: bytes) -> Any:
        if make == "amend":
            return clinic.draft(ring).amended(target, "correction")
        return RecordRetract(record=target, reason="correction")

    record, _ = clinic.write(clinic.draft(ring).added())
    clinic.write(clinic.register(ring), patient=OTHER)
    assert clinic.write(body(bytes(32)), [bytes(32)])[1] == "record_unknown"
    assert clinic.write(body(record))[1] == "reference_missing"
    assert clinic.write(body(record), [record], patient=OTHER)[1] == "reference_mismatch"
    assert clinic.write(body(record), [record], patient=b"\x09" * 16)[1] == "patient_unknown"
    assert clinic.write(body(record), [record])[1] == "applied"


@pytest.mark.parametrize("reason", ["", "Wrong patient: Wanjiru", "x" * 33, "-x"])
def test_reasons_are_codes(clinic: Clinic, registered: bytes, reason: str) -> None:
    """A reason in words would be about a patient and in clear."""
    assert clinic.write(RecordRetract(record=bytes(32), reason=reason))[1] == "malformed"


def test_state_does_not_depend_on_the_order(
    clinic: Clinic, ring: KeyRing, registered: bytes, ward: Any
) -> None:
    """Two amendments and a retraction of one record commute: same verdicts, same state."""
    record, _ = clinic.write(clinic.draft(ring).added())
    below = ward.view
    entries = [
        ward.sign(clinic.device, body, PATIENT, [record])
        for body in (
            clinic.draft(ring).amended(record, "correction"),
            clinic.draft(ring).amended(record, "addition"),
            RecordRetract(record=record, reason="entered-in-error"),
        )
    ]
    states = []
    for order in itertools.permutations(entries):
        ward.view = Layer(below)
        assert [ward.apply(clinic.device, entry) for entry in order] == ["applied"] * 3
        states.append(list(ward.view.scan(b"")))
        row = record_row(ward.view, record)
        assert row is not None
        assert row.retracted
        assert row.superseded_by == min(entries[0].id, entries[1].id)
        assert amendments(ward.view, record) == sorted([entries[0].id, entries[1].id])
    assert all(state == states[0] for state in states)


def test_long_record_travels_in_parts(
    clinic: Clinic, ring: KeyRing, registered: bytes, entropy: Any
) -> None:
    """A resource that does not fit one transaction is signed in parts and opens from them."""
    noise = entropy.token(150_000).hex()
    raw = f'{{"resourceType":"Binary","data":"{noise}"}}'.encode()
    draft = clinic.draft(ring, raw)
    assert len(draft.parts) >= 2
    ids = []
    for part in draft.parts:
        entry, code = clinic.write(part)
        assert code == "applied"
        ids.append(entry)
    assert clinic.write(draft.added(ids))[1] == "applied"
    *parts, record = [clinic.ward.registry.body(e) for e in clinic.device.log[1:]]
    assert list(record.sealed.parts) == ids
    opened = open_record(record.sealed, ring=ring, place=clinic.place(), parts=parts)
    assert opened.resource == raw


def test_part_outside_its_whole(clinic: Clinic, registered: bytes) -> None:
    """The third of two is refused."""
    assert clinic.write(Part(index=2, total=2, data=b"x"))[1] == "malformed"
    assert clinic.write(Part(index=0, total=1, data=b"x"))[1] == "malformed"
    assert clinic.write(Part(index=0, total=2, data=bytes(64 * 1024 + 1)))[1] == "malformed"
    assert clinic.write(Part(index=1, total=2, data=b"x"))[1] == "applied"
    assert clinic.write(Part(index=1, total=2, data=b"x"), patient=b"")[1] == "malformed"


def test_parts_may_come_before_the_registration(clinic: Clinic) -> None:
    """Demographics with a photograph are cut as well, and their parts are signed first."""
    assert clinic.write(Part(index=0, total=2, data=b"x"))[1] == "applied"


def test_body_neither_inline_nor_in_parts(clinic: Clinic, ring: KeyRing, registered: bytes) -> None:
    """A record without a body is none."""
    added = clinic.draft(ring).added()
    fields = {
        name: getattr(added.sealed, name) for name in ("suite", "key_id", "nonce", "commitment")
    }
    empty = type(added.sealed)(**fields, data=b"", parts=())
    assert clinic.write(RecordAdd(sealed=empty))[1] == "malformed"
    amend = RecordAmend(supersedes=bytes(32), reason="correction", sealed=empty)
    assert clinic.write(amend)[1] == "malformed"


def test_checks_are_cheap(clinic: Clinic, ring: KeyRing, registered: bytes) -> None:
    """A check costs far less than the signature before it (68 us); ten times that is a bug."""
    from p2pmed.medical.registry import Act

    entry = clinic.ward.sign(clinic.device, clinic.draft(ring).added(), PATIENT)
    kind = clinic.ward.registry.find("record.add", 1)
    act: Any = Act(
        body=clinic.ward.registry.body(entry),
        entry=entry,
        member=clinic.device.member,
        context=clinic.ward.context,
    )
    best = min(timeit.repeat(lambda: kind.check(act, clinic.ward.view), number=200, repeat=5))
    assert best / 200 < 700e-6
