"""Acts are asked for a qualification: ordered ones refused, care that was given flagged."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.medical import kinds
from p2pmed.medical.care.competence import SCOPES, flag_of, flags
from p2pmed.medical.qualifications import (
    QualificationIssue,
    QualificationRevoke,
    QualificationSuspend,
)
from p2pmed.medical.records import RecordRetract
from p2pmed.medical.registry import Registry

DOCTOR = bytes([5] * 32)
WANG = bytes([1] * 16)


@pytest.fixture
def h(hamlet: Any) -> Any:
    hamlet.join("county", "county", place="county")
    hamlet.join("clinic", "clinic", place="county/west")
    return hamlet


def issue(h: Any, **fields: Any) -> Any:
    values: dict[str, Any] = {
        "holder": DOCTOR,
        "role": "doctor",
        "scope": ("record",),
        "facility": "county/west",
        "valid_from": 0,
        "valid_until": 2**50,
    }
    return h.write("county", QualificationIssue(**{**values, **fields}))


def retract(h: Any, **fields: Any) -> Any:
    """A mergeable act about a record that is there: applied unless a rule says otherwise."""
    subject = fields.pop("subject", WANG)
    record = h.encounter("clinic", subject)
    h.register(subject)
    body = RecordRetract(record=record, reason="slip")
    return h.write("clinic", body, subject=subject, refs=(record,), **fields)


@pytest.fixture(autouse=True)
def _registered(h: Any) -> None:
    from p2pmed.medical.patients import PATIENTS, PatientRow

    def register(subject: bytes) -> None:
        row = PatientRow(
            author=h.key("clinic"), entry=bytes(32), patient_key=bytes(32), catchment=""
        )
        PATIENTS.put(h.view, row, subject)

    h.register = register


def reason(h: Any, done: Any) -> str | None:
    assert done.code == "applied"  # care that was given is recorded, whoever gave it
    flag = flag_of(h.view, done.id)
    return None if flag is None else flag.reason


def test_without_a_register_nothing_is_flagged(h: Any) -> None:
    """A network that issued no qualification at all goes on working."""
    assert reason(h, retract(h)) is None
    assert reason(h, retract(h, actor=DOCTOR)) is None
    assert list(flags(h.view)) == []


def test_care_by_who_was_not_qualified_is_recorded_and_flagged_by_name(h: Any) -> None:
    """Missing, out of scope, elsewhere, expired, suspended, revoked: each has its name."""
    given = issue(h)
    assert reason(h, retract(h, actor=DOCTOR)) is None
    assert reason(h, retract(h, actor=bytes([6] * 32))) == "qualification_missing"
    for number, fields, told in (
        (11, {"scope": ("dispense",)}, "qualification_out_of_scope"),
        (12, {"facility": "county/east"}, "qualification_elsewhere"),
        (13, {"valid_until": h.time_ms}, "qualification_expired"),
    ):
        other = bytes([number] * 32)
        issue(h, holder=other, **fields)
        assert reason(h, retract(h, actor=other)) == told
    suspend = QualificationSuspend(qualification=given.id, until=2**50, reason="inquiry")
    assert h.write("county", suspend).code == "applied"
    assert reason(h, retract(h, actor=DOCTOR)) == "qualification_suspended"
    revoke = QualificationRevoke(qualification=given.id, reason="fraud")
    assert h.write("county", revoke).code == "applied"
    assert reason(h, retract(h, actor=DOCTOR)) == "qualification_missing"


def test_a_flag_stays_and_is_alike_on_every_node(h: Any) -> None:
    """A later qualification lifts no flag, a later suspension makes none."""
    issue(h, holder=bytes([9] * 32))
    early = retract(h, actor=DOCTOR)
    given = issue(h)
    good = retract(h, actor=DOCTOR)
    h.write("county", QualificationSuspend(qualification=given.id, until=2**50, reason="x"))
    assert reason(h, early) == "qualification_missing"
    assert reason(h, good) is None
    assert [name for name, _ in flags(h.view)] == [early.id]


def test_a_device_answers_where_no_person_is_named(h: Any) -> None:
    """Without an actor the device itself is asked as a holder."""
    issue(h, holder=h.key("clinic"))
    assert reason(h, retract(h)) is None
    assert reason(h, retract(h, actor=DOCTOR)) == "qualification_missing"


def test_the_table_names_kinds_that_exist() -> None:
    """A scope for a kind that nobody registers would protect nothing."""
    names = {kind.name for kind in Registry(kinds())}
    assert set(SCOPES) <= names
