"""The patient questions a record, and whoever wrote it must answer.

Rule of this file: only the patient, or a guardian under a delegation, can open a dispute: it
carries their signature, which a clinic that holds the keys to read cannot make. What they say is
sealed under the record's own category, so that its readers see the objection and nobody else
does. Whoever may amend the record answers: by amending or retracting it with the dispute among
the ``refs``, or in words by ``dispute.answer``. Nothing is ever taken away. Mergeable.
Implements medical notes, section 1 row 2, and ``docs/protocols/records.md``, clauses 20.3 to
20.7.
"""

from __future__ import annotations

from typing import Any, Final

from p2pmed.errors import InvalidTransaction
from p2pmed.ledger.state import View
from p2pmed.medical.care.dispute_rows import (
    DISPUTES,
    DisputeRow,
    answer_disputes,
    dispute_row,
)
from p2pmed.medical.patients import about_patient, patient_keys
from p2pmed.medical.privacy.delegation import delegation_holds, delegation_row
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.records import record_row
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.sealed import Sealed
from p2pmed.wire.codec import Bytes32, OptionalId, Wire

__all__ = [
    "KINDS",
    "WORDS_BYTES_MAX",
    "WORDS_TYPE",
    "DisputeAnswer",
    "RecordDispute",
    "check_words",
    "read_words",
]

WORDS_TYPE: Final = "p2pmed/words"
"""Type of a sealed body that is plain text in UTF-8."""
WORDS_BYTES_MAX: Final = 8 * 1024
"""Two pages by hand; one transaction holds them sealed."""


class RecordDispute(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.dispute``: the patient says that a record is wrong, and why."""

    record: Bytes32
    sealed: Sealed
    under: OptionalId
    """The delegation by which somebody speaks for the patient, or empty."""
    proof: Proof
    """The patient's signature over ``words``, or the delegate's."""

    @property
    def words(self) -> list[Any]:
        """What is signed: the commitment stands for what is sealed."""
        return [self.record, self.sealed.commitment, self.under]


class DisputeAnswer(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``dispute.answer``: what whoever wrote the record says to it."""

    dispute: Bytes32
    sealed: Sealed


def check_words(text: str) -> bytes:
    """``text`` as the bytes to seal. Raises ``InvalidTransaction`` if empty or too long."""
    raw = text.strip().encode("utf-8", "replace")
    if not 0 < len(raw) <= WORDS_BYTES_MAX:
        raise InvalidTransaction(
            f"words: {len(raw)} bytes where 1 to {WORDS_BYTES_MAX} are allowed",
            hint="say it shorter, or add a document and point to it",
        )
    return raw


def read_words(raw: bytes) -> str:
    """What was said; what is no UTF-8 is shown as such."""
    return raw[:WORDS_BYTES_MAX].decode("utf-8", "replace")


def _inline(sealed: Sealed) -> bool:
    return sealed.whole and not sealed.parts


def _check_dispute(act: Act[RecordDispute], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    if not _inline(body.sealed):
        return Rejection.MALFORMED
    row = record_row(view, body.record)
    if row is None:
        return Rejection.RECORD_UNKNOWN
    if body.record not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if row.subject != patient:
        return Rejection.REFERENCE_MISMATCH
    message = said("dispute", act.context.network, patient, body.words)
    if not body.under:
        keys = [patient_keys(view, patient)[-1].sign_key]
    else:
        # Judged by what is ordered before it, not by a clock: an objection harms nobody.
        delegation = delegation_row(view, patient, body.under)
        if delegation is None or not delegation_holds(view, patient, body.under, None):
            return Rejection.DELEGATION_UNKNOWN
        keys = [delegation.sign_key]
    proven = any(is_proven(key, body.proof, message) for key in keys)
    return None if proven else Rejection.PROOF_INVALID


def _apply_dispute(act: Act[RecordDispute], view: View) -> None:
    row = DisputeRow(
        record=act.body.record, author=act.entry.author, under=act.body.under, answer=b""
    )
    DISPUTES.put(view, row, act.entry.envelope.subject, act.entry.id)


def _check_answer(act: Act[DisputeAnswer], view: View) -> Rejection | None:
    """Whoever may amend the record: the device that wrote it, or its facility."""
    if fault := about_patient(act, view):
        return fault
    body, envelope = act.body, act.entry.envelope
    if not _inline(body.sealed):
        return Rejection.MALFORMED
    row = dispute_row(view, envelope.subject, body.dispute)
    if row is None:
        return Rejection.DISPUTE_UNKNOWN
    if body.dispute not in envelope.refs:
        return Rejection.REFERENCE_MISSING
    record = record_row(view, row.record)
    assert record is not None  # a dispute names a record
    at_home = bool(record.place) and record.place == act.member.place
    return None if at_home or record.author == act.entry.author else Rejection.NOT_THE_AUTHOR


def _apply_answer(act: Act[DisputeAnswer], view: View) -> None:
    row = dispute_row(view, act.entry.envelope.subject, act.body.dispute)
    assert row is not None  # checked
    answer_disputes(view, act.entry, row.record)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="record.dispute",
        body=RecordDispute,
        check=_check_dispute,
        apply=_apply_dispute,
        ordered=False,
        rules="Refused unless the patient, or a delegate whose leave stands, signed it, and it "
        "names a record of the patient.",
    ),
    Kind(
        name="dispute.answer",
        body=DisputeAnswer,
        check=_check_answer,
        apply=_apply_answer,
        ordered=False,
        rules="Refused unless it names a dispute of the patient, of a record of its device or "
        "facility.",
    ),
)
