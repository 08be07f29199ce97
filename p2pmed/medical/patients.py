"""Patients as a ledger knows them: a pseudonym, who registered it, and who holds keys.

Rule of this file: a patient is a random pseudonym, the transaction's subject; names live in
sealed demographics only. Implements medical notes, section 1 row 1 and section 3, and
``docs/protocols/records.md``, clauses 13 to 15.

``patient.register`` is mergeable: it counts as soon as it is stored. Whoever writes about a
patient whom another device registered names the registration among its ``refs``, so that every
order that holds both puts it first.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.identity.sealing import box_id
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.keyring import Wrapped
from p2pmed.medical.registry import Act, Kind, Refusal
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.sealed import Sealed
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes16, Bytes32, Count, OptionalId, Text, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "GRANTS",
    "KINDS",
    "PATIENTS",
    "REGISTRATION_PURPOSE",
    "WRAPS_MAX",
    "GrantRow",
    "PatientRegister",
    "PatientRow",
    "about_patient",
    "patient_row",
    "registration_grant",
    "wraps_fault",
]

WRAPS_MAX: Final = 32
"""Readers named by one transaction; a village clinic has fewer staff."""
REGISTRATION_PURPOSE: Final = "register"
"""What the first wraps are bound to; a grant is bound to its own purpose."""


class PatientRegister(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``patient.register``: a new pseudonym (the subject), its keys and sealed demographics."""

    catchment: Text
    """Code of the place whose patient this is; empty if none."""
    patient_key: Bytes32
    """X25519 public key of the patient's card."""
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(max_length=WRAPS_MAX)]
    """The first epoch's keys, to the patient and to those present."""
    sealed: Sealed
    """Demographics: a FHIR Patient."""


class PatientRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a patient: the pseudonym's row."""

    author: Bytes32
    entry: Bytes32
    """The registration."""
    patient_key: Bytes32
    catchment: Text


class GrantRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one grant: the row of the pseudonym and the grant's id."""

    grantee: Bytes16
    grantee_key: OptionalId
    """X25519 public key; empty for a reader named in the registration only."""
    purpose: Text
    epoch: Count
    """The newest epoch whose keys were handed over."""
    since: TimeMs
    until: TimeMs
    """0: open."""
    author: Bytes32
    entry: Bytes32
    """The transaction that made the grant."""
    revoked: bool = False


PATIENTS: Final = Table("patient", PatientRow)
GRANTS: Final = Table("grant", GrantRow)


def patient_row(view: Readable, patient: bytes) -> PatientRow | None:
    """The registered patient, or ``None``."""
    return PATIENTS.get(view, patient)


def registration_grant(registration: bytes, grantee: bytes) -> bytes:
    """The id (32 bytes) of the grant that a registration's wrap to ``grantee`` is."""
    return digest("p2pmed reader", registration + grantee)


def about_patient(act: Act[Any], view: Readable) -> Rejection | None:
    """The rule of everything written about a patient: a registered one, whose registration
    comes first in every order.
    """
    patient = act.entry.envelope.subject
    if not patient:
        return Rejection.MALFORMED
    row = patient_row(view, patient)
    if row is None:
        return Rejection.PATIENT_UNKNOWN
    if row.author != act.entry.author and row.entry not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    return None


def wraps_fault(wraps: tuple[Wrapped, ...]) -> Rejection | None:
    """A reader named twice is a mistake: which of the two would count?"""
    distinct = {wrapped.grantee for wrapped in wraps}
    return None if len(distinct) == len(wraps) else Rejection.MALFORMED


def _check_register(act: Act[PatientRegister], view: View) -> Rejection | Refusal | None:
    patient = act.entry.envelope.subject
    if not patient or not act.body.sealed.whole:
        return Rejection.MALFORMED
    if fault := wraps_fault(act.body.wraps):
        return fault
    row = patient_row(view, patient)
    if row is not None:
        return Refusal(reason=Rejection.PATIENT_EXISTS, other=row.entry)
    return None


def _apply_register(act: Act[PatientRegister], view: View) -> None:
    patient, entry, body = act.entry.envelope.subject, act.entry, act.body
    row = PatientRow(
        author=entry.author,
        entry=entry.id,
        patient_key=body.patient_key,
        catchment=body.catchment,
    )
    PATIENTS.put(view, row, patient)
    own = box_id(body.patient_key)
    for wrapped in body.wraps:
        if wrapped.grantee == own:
            continue  # the patient's own keys are nobody's to revoke
        grant = GrantRow(
            grantee=wrapped.grantee,
            grantee_key=b"",
            purpose=REGISTRATION_PURPOSE,
            epoch=0,
            since=0,
            until=0,
            author=entry.author,
            entry=entry.id,
        )
        GRANTS.put(view, grant, patient, registration_grant(entry.id, wrapped.grantee))


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="patient.register",
        body=PatientRegister,
        check=_check_register,
        apply=_apply_register,
        ordered=False,
        rules="Refused if the pseudonym is registered already.",
    ),
)
