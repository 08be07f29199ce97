"""A case opened for review: who may look, at what, and how much of it there was at that time.

Rule of this file: opening a case is itself a signed fact that the patient sees. It names the
reviewers' keys and, for each device that wrote about the operation, how many entries there were,
and the qualifications of the people in it: what is later handed over can lack none of those.
Implements medical notes, section 1 row 10, and ``docs/protocols/case.md``, section 1.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.care.surgery import DEVICES_MAX, Number, surgery_row
from p2pmed.medical.patients import about_patient
from p2pmed.medical.records import record_row
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import OVERSEERS, Role, roles
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, Wire

__all__ = ["CASES", "KINDS", "REVIEWERS_MAX", "CaseOpen", "CaseRow", "case_row"]

REVIEWERS_MAX: Final = 16
CASE_RECORDS_MAX: Final = 48
QUALIFICATIONS_MAX: Final = 512

ReasonCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]


class CaseOpen(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``case.open``: an operation, or records, of the subject are to be reviewed."""

    reviewers: Annotated[tuple[Bytes32, ...], msgspec.Meta(min_length=1, max_length=REVIEWERS_MAX)]
    """X25519 keys to which the case's file is sealed."""
    reason: ReasonCode
    surgery: OptionalId
    """The operation, or empty."""
    records: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=CASE_RECORDS_MAX)]
    """Records that belong to it."""
    counts: Annotated[tuple[tuple[Bytes32, Number], ...], msgspec.Meta(max_length=DEVICES_MAX)]
    """Each device's last number in the operation, as known where the case is opened."""
    qualifications: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=QUALIFICATIONS_MAX)]
    """Every ``qual.*`` transaction known there about who signed or acted, in ascending order."""


class CaseRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a case: its id."""

    patient: Bytes16
    author: Bytes32
    surgery: OptionalId


CASES: Final = Table("case", CaseRow)


def case_row(view: Readable, case: bytes) -> CaseRow | None:
    """The case with this id, or ``None``."""
    return CASES.get(view, case)


def _check_open(act: Act[CaseOpen], view: View) -> Rejection | None:
    body, entry = act.body, act.entry
    if fault := about_patient(act, view):
        return fault
    if not body.surgery and not body.records:
        return Rejection.MALFORMED  # nothing to review
    if len(set(body.reviewers)) < len(body.reviewers):
        return Rejection.MALFORMED
    devices = [device for device, _ in body.counts]
    if any(devices[i] >= devices[i + 1] for i in range(len(devices) - 1)):
        return Rejection.MALFORMED
    named = body.qualifications
    if any(named[i] >= named[i + 1] for i in range(len(named) - 1)):
        return Rejection.MALFORMED
    if body.surgery:
        row = surgery_row(view, body.surgery)
        if row is None:
            return Rejection.SURGERY_UNKNOWN
        if row.author != entry.author and row.entry not in entry.envelope.refs:
            return Rejection.REFERENCE_MISSING
        if row.patient != entry.envelope.subject:
            return Rejection.REFERENCE_MISMATCH
    for record in body.records:
        known = record_row(view, record)
        if known is None:
            return Rejection.RECORD_UNKNOWN
        if known.author != entry.author and record not in entry.envelope.refs:
            return Rejection.REFERENCE_MISSING
        if known.subject != entry.envelope.subject:
            return Rejection.REFERENCE_MISMATCH
    return None


def _apply_open(act: Act[CaseOpen], view: View) -> None:
    row = CaseRow(
        patient=act.entry.envelope.subject, author=act.entry.author, surgery=act.body.surgery
    )
    CASES.put(view, row, act.entry.id)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="case.open",
        body=CaseOpen,
        check=_check_open,
        apply=_apply_open,
        ordered=False,
        roles=OVERSEERS | roles(Role.HOSPITAL, Role.CLINIC),
        rules="Refused `surgery_unknown`, `record_unknown`, `reference_missing` or "
        "`reference_mismatch` unless all that it names is of the patient.",
    ),
)
