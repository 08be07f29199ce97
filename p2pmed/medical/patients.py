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
from p2pmed.medical.privacy.holding import Holding
from p2pmed.medical.privacy.scopes import Told
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
    "PATIENT_KEYS",
    "REGISTRATION_PURPOSE",
    "WRAPS_MAX",
    "GrantRow",
    "PatientKeyRow",
    "PatientRegister",
    "PatientRow",
    "about_patient",
    "key_fault",
    "key_made_by",
    "patient_keys",
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
    told: Told
    """Which categories went to whom, sealed under the first consent key; or empty."""
    holding: Holding
    """The private half of the patient's key: its vault and its custodians."""


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
    under: OptionalId = b""
    """The delegation by which its author gave it, or empty."""
    proven: bool = False
    """Signed with the patient's card, or by a delegate; else on the author's word alone."""


class PatientKeyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one generation of a patient's key: pseudonym, generation and entry."""

    patient_key: Bytes32
    sign_key: Bytes32
    author: Bytes32
    entry: Bytes32
    released: bool
    """Made by custodians, of whom enough agreed; it outranks one made with a card."""


PATIENTS: Final = Table("patient", PatientRow)
GRANTS: Final = Table("grant", GrantRow)
PATIENT_KEYS: Final = Table("patient_key", PatientKeyRow)


def patient_row(view: Readable, patient: bytes) -> PatientRow | None:
    """The registered patient, or ``None``."""
    return PATIENTS.get(view, patient)


def patient_keys(view: Readable, patient: bytes) -> list[PatientKeyRow]:
    """Every generation of a patient's key, the current one last.

    Of two of one generation, what custodians released outranks what a card made, then the
    smaller id: alike in every order.
    """
    rows = [(name[0], row) for name, row in PATIENT_KEYS.scan(view, patient)]
    # Descending ids first: the sort below is stable.
    rows.sort(key=lambda found: found[1].entry, reverse=True)
    rows.sort(key=lambda found: (found[0], found[1].released))
    return [row for _, row in rows]


def key_made_by(view: Readable, patient: bytes, entry: bytes) -> tuple[int, PatientKeyRow] | None:
    """The generation of the patient's key that the transaction ``entry`` made, or ``None``."""
    for name, row in PATIENT_KEYS.scan(view, patient):
        if row.entry == entry:
            return name[0], row
    return None


def key_fault(
    act: Act[Any], view: Readable, custody: bytes
) -> tuple[int, PatientKeyRow] | Rejection:
    """The generation of the key that ``custody`` made, which every order puts before ``act``."""
    entry = act.entry
    found = key_made_by(view, entry.envelope.subject, custody)
    if found is None:
        return Rejection.CUSTODY_UNKNOWN
    comes_first = found[1].author == entry.author or custody in entry.envelope.refs
    return found if comes_first else Rejection.REFERENCE_MISSING


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
    if act.body.holding.generation or not act.body.holding.sound:
        return Rejection.MALFORMED
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
    key = PatientKeyRow(
        patient_key=body.patient_key,
        sign_key=body.holding.sign_key,
        author=entry.author,
        entry=entry.id,
        released=False,
    )
    PATIENT_KEYS.put(view, key, patient, bytes([0]), entry.id)
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
