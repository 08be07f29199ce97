"""What the state holds of a patient's objection to a record, and when it counts as answered.

Rule of this file: a dispute is open until something that names it among its ``refs`` answers it:
an amendment or a retraction of the record, or an answer in words. Of several answers the one
with the smallest id is kept, whatever the order. Read by ``records.py`` and ``disputes.py``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, OptionalId, Wire

__all__ = ["DISPUTES", "DisputeRow", "answer_disputes", "dispute_row", "disputes_of"]


class DisputeRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a dispute: the patient's and its transaction id's row."""

    record: Bytes32
    author: Bytes32
    """The device at which the patient spoke."""
    under: OptionalId
    """The delegation of who spoke for the patient, or empty."""
    answer: OptionalId
    """What answered it (the smallest id), or empty."""


DISPUTES: Final = Table("dispute", DisputeRow)


def dispute_row(view: Readable, patient: bytes, dispute: bytes) -> DisputeRow | None:
    """The dispute of ``patient`` with this id, answered or not, or ``None``."""
    return DISPUTES.get(view, patient, dispute)


def disputes_of(view: Readable, patient: bytes) -> dict[bytes, DisputeRow]:
    """Every dispute of ``patient`` by its id, ascending."""
    return dict(DISPUTES.scan(view, patient))


def answer_disputes(view: View, entry: Entry, record: bytes) -> None:
    """Note which disputes of ``record`` an entry answers: those among its ``refs``."""
    patient = entry.envelope.subject
    for ref in entry.envelope.refs:
        row = dispute_row(view, patient, ref)
        if row is not None and row.record == record:
            answer = min(row.answer or entry.id, entry.id)
            DISPUTES.put(view, msgspec.structs.replace(row, answer=answer), patient, ref)
