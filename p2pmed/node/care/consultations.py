"""Asking a specialist far away, and teaching with what was learned. ``node.consultations``.

Rule of this file: the specialist is given copies under a key of this case, never a key of the
patient's. A copy for teaching is made only while the patient's own leave stands, and by
``medical/care/deidentify.py`` alone. Implements medical notes, section 1 row 16, and
``docs/protocols/care.md``, sections 5 and 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.identity.sealing import box_id
from p2pmed.ledger.transaction import Entry
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.care.case_keys import CaseKeys, new_case_key, wrap_case
from p2pmed.medical.care.consultations import (
    CONSULT_PURPOSE,
    CONSULTS,
    QUESTION_TYPE,
    REPLIES,
    REPLY_TYPE,
    Attachment,
    ConsultClose,
    ConsultReply,
    ConsultRequest,
    ConsultRow,
    ConsultTeach,
    Question,
    Reply,
    consult_row,
    teaching_leave,
)
from p2pmed.medical.care.deidentify import SHIFT_DAYS_MAX, deidentified
from p2pmed.medical.fields import check_body
from p2pmed.medical.privacy.proofs import said
from p2pmed.node.care.hands import Hand
from p2pmed.node.care.islands import Islands, refuse_closed, sealed_drafts
from p2pmed.node.events import Draft
from p2pmed.wire import codec

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Answered", "Consultation", "Consultations"]

FHIR_TYPE: Final = "application/fhir+json"
OLDEST_YEARS: Final = 89


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Consultation:
    """One consultation, as the ledger shows it to everybody."""

    id: bytes
    patient: bytes
    row: ConsultRow
    replies: tuple[bytes, ...]
    mine: bool
    """Whether this device or its facility is asked."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answered:
    """A reply, opened."""

    id: bytes
    author: bytes
    reply: Reply


class Consultations:
    """``node.consultations``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._island = Islands(node, CONSULT_PURPOSE)

    # --- asking -------------------------------------------------------------------------------

    async def ask(
        self,
        patient: bytes,
        specialist: bytes,
        question: str,
        *,
        attachments: Iterable[Attachment] = (),
        records: Iterable[bytes] = (),
        deadline_ms: int = 0,
        actor: bytes = b"",
    ) -> Receipt:
        """Ask the holder of the X25519 key ``specialist``; the receipt's id is the consultation.

        ``records`` (transaction ids) are copied into the question: their keys stay here.
        Raises ``InvalidTransaction`` (a field, or more than 64 MiB), ``Denied``,
        ``LocalProtocolError``.
        """
        node = self._node
        copies = [await self._copy(patient, record) for record in records]
        asked = Question(words=question, attachments=(*attachments, *copies))
        check_body(asked)
        case = CaseKeys(key=new_case_key(node.world.entropy), records=())
        wraps = wrap_case(
            case,
            [specialist, *self._island.own_parties(patient)],
            network=node.network,
            patient=patient,
            purpose=CONSULT_PURPOSE,
        )
        drafts = sealed_drafts(
            self._island.seal(
                codec.encode(asked), kind=QUESTION_TYPE, key=case.key, patient=patient
            ),
            lambda sealed: ConsultRequest(
                to=box_id(specialist), deadline=deadline_ms, wraps=wraps, sealed=sealed
            ),
            patient=patient,
            refs=node.patients.refs(patient),
            actor=actor,
        )
        return (await node.submit_drafts(drafts))[-1]

    async def _copy(self, patient: bytes, record: bytes) -> Attachment:
        entry = self._node.find(record)
        if entry is None or entry.envelope.subject != patient:
            raise LocalProtocolError("no such record of this patient is here")
        async with self._node.reads.announced([entry]):
            opened = self._node.opener.read(entry)
        if opened is None:
            raise LocalProtocolError("no such record of this patient is here")
        return Attachment(name=opened.type, type=FHIR_TYPE, content=opened.resource)

    async def close(self, consult: bytes, *, actor: bytes = b"") -> Receipt:
        """Nothing is read by the case's key any more, but by who asked and the patient."""
        return await self._about(consult, ConsultClose(consult=consult), actor)

    async def teach(self, consult: bytes, *, by: Hand, until_ms: int = 0) -> Receipt:
        """The patient (``by``: the card in hand) lets the case be taught with.

        A moment in the past takes the leave back. Raises ``Denied`` if the hand is another's.
        """
        patient = self._asked(consult)[0].envelope.subject
        if by.patient != patient or not by.owner:
            raise Denied("only the patient's own card gives this leave")
        body = ConsultTeach(consult=consult, until=until_ms, proof=b"")
        message = said("teach", self._node.network, patient, body.words)
        body = msgspec.structs.replace(body, proof=by.secrets.sign(message))
        refs = self._node.consent.refs(patient, consult, by.custody)
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    # --- answering ----------------------------------------------------------------------------

    async def reply(
        self,
        consult: bytes,
        words: str,
        *,
        attachments: Iterable[Attachment] = (),
        actor: bytes = b"",
    ) -> Receipt:
        """Answer. Raises ``Denied`` if this device was not asked, or the case is closed."""
        entry, body = self._asked(consult)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        self._refuse_stranger(patient, consult)
        answer = Reply(words=words, attachments=tuple(attachments))
        check_body(answer)
        drafts = sealed_drafts(
            self._island.seal(codec.encode(answer), kind=REPLY_TYPE, key=case.key, patient=patient),
            lambda sealed: ConsultReply(consult=consult, sealed=sealed),
            patient=patient,
            refs=self._node.consent.refs(patient, consult),
            actor=actor,
        )
        return (await self._node.submit_drafts(drafts))[-1]

    async def _about(self, consult: bytes, body: Any, actor: bytes) -> Receipt:
        patient = self._asked(consult)[0].envelope.subject
        refs = self._node.consent.refs(patient, consult)
        draft = Draft(body=body, subject=patient, refs=refs, actor=actor)
        return (await self._node.submit_drafts([draft]))[-1]

    # --- reading ------------------------------------------------------------------------------

    def all(self, *, patient: bytes = b"", mine: bool = False) -> list[Consultation]:
        """Consultations known here; ``mine``: those that this device is asked."""
        own = self._node.opener.secrets()
        found = []
        for key, row in CONSULTS.scan(self._node.state(), patient):
            whole = patient + key
            asked = row.to in own
            if asked or not mine:
                replies = [name for name, _ in REPLIES.scan(self._node.state(), whole[16:])]
                found.append(
                    Consultation(
                        id=whole[16:],
                        patient=whole[:16],
                        row=row,
                        replies=tuple(replies),
                        mine=asked,
                    )
                )
        return sorted(
            found, key=lambda each: (bool(each.row.closed), each.row.deadline or 2**53, each.id)
        )

    async def question(self, consult: bytes) -> Question:
        """What is asked, with its attachments. Raises ``Denied`` if this device is no party."""
        entry, body = self._asked(consult)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        await self._island.announce(patient, [entry], under=(consult,))
        self._refuse_stranger(patient, consult)
        opened = self._island.open(entry, body.sealed, case.key)
        return codec.decode(opened.resource, Question, limit=RECORD_BYTES_MAX)

    async def answers(self, consult: bytes) -> list[Answered]:
        """The replies; one that does not open under the case's key is left out."""
        entry, body = self._asked(consult)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        names = [name for name, _ in REPLIES.scan(self._node.state(), consult)]
        here = [at for name in names if (at := self._node.find(name)) is not None]
        await self._island.announce(patient, here, under=(consult,))
        self._refuse_stranger(patient, consult)
        return [opened for at in here if (opened := self._opened(at, case)) is not None]

    def _opened(self, entry: Entry, case: CaseKeys) -> Answered | None:
        body = self._node.body(entry)
        if not isinstance(body, ConsultReply):
            return None
        try:
            opened = self._island.open(entry, body.sealed, case.key)
            reply = codec.decode(opened.resource, Reply, limit=RECORD_BYTES_MAX)
        except (Denied, DecodeError, LocalProtocolError):
            return None
        return Answered(id=entry.id, author=entry.author, reply=reply)

    def _refuse_stranger(self, patient: bytes, consult: bytes) -> None:
        """Raises ``Denied`` if the case is closed and this device is not where it was asked."""
        row = consult_row(self._node.state(), patient, consult)
        if row is None:
            raise Denied("no such consultation counts here")
        own = self._node.opener.secrets(patient)
        if row.to in own and row.author != self._node.key:
            refuse_closed(row.closed, 0, self._node.opener.now_ms())

    # --- teaching -----------------------------------------------------------------------------

    async def teaching_copy(self, consult: bytes) -> bytes:
        """The case without identifiers, as a FHIR Bundle in JSON: words and pictures stay behind.

        The pseudonym is new at each call, and so is the shift of all dates. Raises ``Denied``
        unless the patient's leave stands now.
        """
        entry, _ = self._asked(consult)
        patient = entry.envelope.subject
        row = consult_row(self._node.state(), patient, consult)
        if row is None or not teaching_leave(row, self._node.opener.now_ms()):
            raise Denied(
                "the patient has not given leave to teach with this case",
                hint="`p2pmed consult teach` with the patient's card",
            )
        question = await self.question(consult)
        entropy = self._node.world.entropy
        pseudonym = entropy.token(16)
        drawn = int.from_bytes(entropy.token(8), "big")
        shift = 1 + drawn % SHIFT_DAYS_MAX
        copies = [
            copy
            for attachment in question.attachments
            if attachment.type == FHIR_TYPE
            and (
                copy := deidentified(
                    attachment.content,
                    pseudonym=pseudonym,
                    shift_days=-shift,
                    oldest_year=self._oldest_year(),
                )
            )
            is not None
        ]
        return _bundle(copies)

    def _oldest_year(self) -> int:
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            milliseconds=min(max(self._node.opener.now_ms(), 0), 2**47)
        )
        return now.year - OLDEST_YEARS

    def _asked(self, consult: bytes) -> tuple[Entry, ConsultRequest]:
        entry, body = self._island.entry(consult, ConsultRequest)
        return entry, cast(ConsultRequest, body)


def _bundle(resources: Sequence[bytes]) -> bytes:
    entries = [{"resource": msgspec.Raw(resource)} for resource in resources]
    return msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": entries})
