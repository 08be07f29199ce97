"""A patient's records: added, amended, retracted; never changed and never erased here.

Rule of this file: every kind is mergeable. It counts as soon as it is stored, and the state
after a set of records does not depend on their order beyond what ``refs`` demand: amending a
record that somebody retracted meanwhile stands, retracting twice is retracting once, and of
two amendments of one record both are kept. Implements medical notes, section 1 row 1, and
``docs/protocols/records.md``, clauses 16 to 20.

The kind ``patient.register`` is in ``patients.py``; sealed bodies are in ``sealed.py``. Both
families' kinds are in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.ledger.state import Readable, View
from p2pmed.medical import patients
from p2pmed.medical.care.dispute_rows import answer_disputes
from p2pmed.medical.fhir import Resource
from p2pmed.medical.keyring import CategoryKey, KeyRing
from p2pmed.medical.patients import about_patient
from p2pmed.medical.privacy.standing import is_reader
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.sealed import (
    OpenedBody,
    Part,
    Place,
    Sealed,
    SealedDraft,
    open_body,
    seal_body,
)
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, OptionalId, Text, Wire

__all__ = [
    "KINDS",
    "RECORDS",
    "OpenedBody",
    "Part",
    "Place",
    "RecordAdd",
    "RecordAmend",
    "RecordDraft",
    "RecordReseal",
    "RecordRetract",
    "RecordRow",
    "Sealed",
    "amendments",
    "open_record",
    "record_row",
    "reseals",
    "seal_record",
]

ReasonCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]
"""Why, as a code: words about a patient belong in the sealed body."""


class RecordAdd(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.add``: one sealed FHIR resource about the subject."""

    sealed: Sealed


class RecordAmend(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.amend``: a sealed resource that takes the place of an earlier record."""

    supersedes: Bytes32
    reason: ReasonCode
    sealed: Sealed


class RecordRetract(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.retract``: an earlier record should not have been written."""

    record: Bytes32
    reason: ReasonCode


class RecordReseal(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.reseal``: the same content under a newer key, for a record that was written under
    an old one by who had not heard of a revocation. The first ciphertext stays in its log.
    """

    record: Bytes32
    sealed: Sealed


class RecordRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a record: its transaction id's row."""

    subject: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    author: Bytes32
    retracted: bool
    superseded_by: OptionalId
    """The amendment with the smallest id, or empty; ``amendments`` gives all."""
    place: Text
    """Facility of the author when it was written."""


class AmendmentRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That one record amends another: the key says it all."""


class ResealRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a record was sealed again: the key says it all."""


RESEALS: Final = Table("reseal", ResealRow)
RECORDS: Final = Table("record", RecordRow)
AMENDMENTS: Final = Table("amendment", AmendmentRow)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RecordDraft:
    """A sealed record before signing.

    Sign ``parts`` first (usually none), in order and about the same subject; then ``added`` or
    ``amended`` with their transaction ids is the body to sign.
    """

    sealed: SealedDraft

    @property
    def parts(self) -> tuple[Part, ...]:
        """Bodies of ``record.part`` transactions that come first."""
        return self.sealed.parts

    def added(self, part_ids: Sequence[bytes] = ()) -> RecordAdd:
        """The body of a ``record.add``. Raises ``InvalidTransaction`` for too few ids."""
        return RecordAdd(sealed=self.sealed.named(part_ids))

    def amended(
        self, supersedes: bytes, reason: str, part_ids: Sequence[bytes] = ()
    ) -> RecordAmend:
        """The body of a ``record.amend``; ``supersedes`` also goes among the ``refs``."""
        return RecordAmend(supersedes=supersedes, reason=reason, sealed=self.sealed.named(part_ids))


def seal_record(
    resource: Resource, *, ring: KeyRing, place: Place, entropy: Entropy
) -> RecordDraft:
    """Seal ``resource`` under the current key of its category.

    Raises ``Denied`` if the ring has no key of it, ``InvalidTransaction`` if it is too long.
    """
    draft = seal_body(
        resource.raw,
        kind=resource.type,
        key=ring.current(resource.category),
        place=place,
        entropy=entropy,
        occurred_ms=resource.occurred_ms,
    )
    return RecordDraft(sealed=draft)


def open_record(
    sealed: Sealed, *, ring: KeyRing, place: Place, parts: Sequence[Part] = ()
) -> OpenedBody:
    """Open a record's body by whichever key of ``ring`` it names.

    Raises ``Denied`` if the ring does not hold it, ``DecodeError`` if it was altered.
    """
    key: CategoryKey = ring.find(sealed.key_id)
    return open_body(sealed, key=key, place=place, parts=parts)


def record_row(view: Readable, record_id: bytes) -> RecordRow | None:
    """The record whose transaction is ``record_id``, or ``None``."""
    return RECORDS.get(view, record_id)


def amendments(view: Readable, record_id: bytes) -> list[bytes]:
    """Transaction ids of all amendments of a record, smallest first; two are a conflict."""
    return [amendment for amendment, _ in AMENDMENTS.scan(view, record_id)]


def reseals(view: Readable, record_id: bytes) -> list[bytes]:
    """Transaction ids of what sealed a record again, smallest first."""
    return [reseal for reseal, _ in RESEALS.scan(view, record_id)]


def _check_reseal(act: Act[RecordReseal], view: View) -> Rejection | None:
    """Anybody who could open it: what it holds is checked against the first commitment."""
    if fault := about_patient(act, view) or _sealed_fault(act.body.sealed):
        return fault
    row = record_row(view, act.body.record)
    if row is None:
        return Rejection.RECORD_UNKNOWN
    if act.body.record not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if row.subject != act.entry.envelope.subject:
        return Rejection.REFERENCE_MISMATCH
    # Another's would stand in the way of the one that readers wait for.
    return None if is_reader(act, view) else Rejection.NOT_THE_PARTY


def _apply_reseal(act: Act[RecordReseal], view: View) -> None:
    RESEALS.put(view, ResealRow(), act.body.record, act.entry.id)


def _check_add(act: Act[RecordAdd], view: View) -> Rejection | None:
    return about_patient(act, view) or _sealed_fault(act.body.sealed)


def _check_part(act: Act[Part], view: View) -> Rejection | None:
    """A part comes before what names it, which may be the registration: no patient is asked for."""
    whole = bool(act.entry.envelope.subject) and act.body.index < act.body.total
    return None if whole else Rejection.MALFORMED


def _check_amend(act: Act[RecordAmend], view: View) -> Rejection | None:
    return (
        about_patient(act, view)
        or _sealed_fault(act.body.sealed)
        or _target_fault(act, act.body.supersedes, view)
    )


def _check_retract(act: Act[RecordRetract], view: View) -> Rejection | None:
    return about_patient(act, view) or _target_fault(act, act.body.record, view)


def _sealed_fault(sealed: Sealed) -> Rejection | None:
    return None if sealed.whole else Rejection.MALFORMED


def _target_fault(act: Act[Any], target: bytes, view: View) -> Rejection | None:
    """Who may touch a record: the device that wrote it, or its facility."""
    row = record_row(view, target)
    if row is None:
        return Rejection.RECORD_UNKNOWN
    if target not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if row.subject != act.entry.envelope.subject:
        return Rejection.REFERENCE_MISMATCH
    at_home = bool(row.place) and row.place == act.member.place
    return None if at_home or row.author == act.entry.author else Rejection.NOT_THE_AUTHOR


def _apply_add(act: Act[Any], view: View) -> None:
    row = RecordRow(
        subject=act.entry.envelope.subject,
        author=act.entry.author,
        retracted=False,
        superseded_by=b"",
        place=act.member.place,
    )
    RECORDS.put(view, row, act.entry.id)


def _apply_amend(act: Act[RecordAmend], view: View) -> None:
    _apply_add(act, view)
    target = act.body.supersedes
    AMENDMENTS.put(view, AmendmentRow(), target, act.entry.id)
    row = record_row(view, target)
    assert row is not None  # checked
    first = min(row.superseded_by or act.entry.id, act.entry.id)
    RECORDS.put(view, msgspec.structs.replace(row, superseded_by=first), target)
    answer_disputes(view, act.entry, target)


def _apply_retract(act: Act[RecordRetract], view: View) -> None:
    row = record_row(view, act.body.record)
    assert row is not None  # checked
    RECORDS.put(view, msgspec.structs.replace(row, retracted=True), act.body.record)
    answer_disputes(view, act.entry, act.body.record)


def _apply_part(act: Act[Part], view: View) -> None:
    """A part is read through the record that names it; the state need not know it."""


KINDS: Final[tuple[Kind[Any], ...]] = (
    *patients.KINDS,
    Kind(
        name="record.add",
        body=RecordAdd,
        check=_check_add,
        apply=_apply_add,
        ordered=False,
        rules="Refused unless the patient is registered, before it in every order.",
    ),
    Kind(
        name="record.part",
        body=Part,
        check=_check_part,
        apply=_apply_part,
        ordered=False,
        rules="Refused unless it names a patient and its index is below the total.",
    ),
    Kind(
        name="record.amend",
        body=RecordAmend,
        check=_check_amend,
        apply=_apply_amend,
        ordered=False,
        rules="Refused unless it names a record of the same patient, of its device or facility.",
    ),
    Kind(
        name="record.retract",
        body=RecordRetract,
        check=_check_retract,
        apply=_apply_retract,
        ordered=False,
        rules="Refused unless it names a record of the same patient, of its device or facility.",
    ),
    Kind(
        name="record.reseal",
        body=RecordReseal,
        check=_check_reseal,
        apply=_apply_reseal,
        ordered=False,
        rules="Refused unless it names a record of the same patient, and its author has leave.",
    ),
)
