"""The patient's objections on a node: raised with a card, listed by age, answered.

Rule of this file: whoever speaks for the patient has the card on the table; the words are sealed
under the category of the record they are about. Implements medical notes, section 1 row 2, and
``docs/protocols/records.md``, clauses 20.3 to 20.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.dispute_rows import DISPUTES, DisputeRow, dispute_row, disputes_of
from p2pmed.medical.care.disputes import (
    WORDS_TYPE,
    DisputeAnswer,
    RecordDispute,
    check_words,
    read_words,
)
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.privacy.proofs import said
from p2pmed.medical.records import RecordAdd, RecordAmend, record_row
from p2pmed.medical.sealed import Sealed, seal_body
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.care.hands import Hand
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Dispute", "Disputes"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Dispute:
    """One objection, opened where this device may."""

    id: bytes
    patient: bytes
    record: bytes
    words: str | None
    """``None`` if this device may not read it."""
    raised_ms: int
    by_guardian: bool
    answer: bytes
    """The amendment, retraction or answer; empty while it is open."""
    answer_words: str | None
    """Of an answer in words that this device may read."""
    answered_ms: int | None

    @property
    def is_open(self) -> bool:
        """Whether nobody has answered it."""
        return not self.answer

    def age_ms(self, now_ms: int) -> int:
        """How long it was, or has been, open."""
        return max(0, (now_ms if self.answered_ms is None else self.answered_ms) - self.raised_ms)


class Disputes:
    """``node.disputes``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def dispute(self, record: bytes, words: str, *, by: Hand) -> Receipt:
        """The patient says that ``record`` (its transaction id) is wrong, and why.

        ``by`` is the patient's hand, or a guardian's: ``node.cards.present``. Raises
        ``LocalProtocolError`` if no such record of that patient is here, ``Denied`` if it cannot
        be read here, ``InvalidTransaction`` for no words, or more than ``WORDS_BYTES_MAX``.
        """
        await self._node.catch_up()
        row = record_row(self._node.state(), record)
        if row is None or row.subject != by.patient:
            raise LocalProtocolError(
                "no such record of this patient is known here", hint="see `patient timeline`"
            )
        sealed = self._sealed(by.patient, record, words)
        body = RecordDispute(record=record, sealed=sealed, under=by.under, proof=b"")
        message = said("dispute", self._node.network, by.patient, body.words)
        body = msgspec.structs.replace(body, proof=by.secrets.sign(message))
        refs = self._node.consent.refs(by.patient, record, by.under, by.custody)
        draft = Draft(body=body, subject=by.patient, refs=refs)
        return (await self._node.submit_drafts([draft]))[-1]

    async def answer(self, dispute: bytes, words: str) -> Receipt:
        """Answer an objection in words; ``node.patients.amend(..., answers=dispute)`` mends it.

        Raises ``LocalProtocolError`` if no such dispute is here, ``Denied`` if the record cannot
        be read here.
        """
        await self._node.catch_up()
        patient, row = self.find(dispute)
        sealed = self._sealed(patient, row.record, words)
        body = DisputeAnswer(dispute=dispute, sealed=sealed)
        refs = self._node.consent.refs(patient, row.record, dispute)
        draft = Draft(body=body, subject=patient, refs=refs)
        return (await self._node.submit_drafts([draft]))[-1]

    def find(self, dispute: bytes) -> tuple[bytes, DisputeRow]:
        """Patient and row of a dispute. Raises ``LocalProtocolError`` if it is not here."""
        entry = self._node.find(dispute)
        patient = entry.envelope.subject if entry else b""
        row = dispute_row(self._node.state(), patient, dispute) if entry else None
        if row is None:
            raise LocalProtocolError("no such dispute is known here", hint="see `patient disputes`")
        return patient, row

    async def of(self, patient: bytes) -> list[Dispute]:
        """Every objection of a patient, the oldest first."""
        await self._node.catch_up()
        rows = disputes_of(self._node.state(), patient)
        return await self._oldest_first([(patient, name, row) for name, row in rows.items()])

    async def waiting(self) -> list[Dispute]:
        """Objections that nobody has answered, of all patients, the oldest first."""
        await self._node.catch_up()
        rows = [(name[:16], name[16:], row) for name, row in DISPUTES.scan(self._node.state())]
        return await self._oldest_first([each for each in rows if not each[2].answer])

    async def _oldest_first(self, rows: list[tuple[bytes, bytes, DisputeRow]]) -> list[Dispute]:
        names = [name for _, dispute, row in rows for name in (dispute, row.answer) if name]
        entries = [entry for name in names if (entry := self._node.find(name)) is not None]
        async with self._node.reads.announced(entries):
            found = [item for each in rows if (item := self._item(*each)) is not None]
        return sorted(found, key=lambda item: (item.raised_ms, item.id))

    def _item(self, patient: bytes, name: bytes, row: DisputeRow) -> Dispute | None:
        entry = self._node.find(name)
        if entry is None:
            return None  # ordered in a branch that is not here
        answer = self._node.find(row.answer) if row.answer else None
        return Dispute(
            id=name,
            patient=patient,
            record=row.record,
            words=self._words(entry),
            raised_ms=entry.envelope.hlc >> 16,
            by_guardian=bool(row.under),
            answer=row.answer,
            answer_words=self._words(answer) if answer else None,
            answered_ms=answer.envelope.hlc >> 16 if answer else None,
        )

    # --- sealing and opening ----------------------------------------------------------------

    def _sealed(self, patient: bytes, record: bytes, words: str) -> Sealed:
        """Words under the current key of the category that the record is in."""
        ring = self._node.opener.ring(patient)
        entry = self._node.find(record)
        body: Any = self._node.body(entry) if entry else None
        if not isinstance(body, PatientRegister | RecordAdd | RecordAmend):
            raise LocalProtocolError("that record has not reached this node yet")
        category = ring.find(body.sealed.key_id).category
        draft = seal_body(
            check_words(words),
            kind=WORDS_TYPE,
            key=ring.current(category),
            place=self._node.opener.place(patient),
            entropy=self._node.world.entropy,
        )
        return draft.named()

    def _words(self, entry: Entry) -> str | None:
        try:
            opened = self._node.opener.read(entry)
        except (Denied, DecodeError, LocalProtocolError):
            return None
        said_so = opened is not None and opened.type == WORDS_TYPE
        return read_words(opened.resource) if opened is not None and said_so else None
