"""A question to a specialist far away: stored, carried, answered, closed.

Rule of this file: a consultation is an island. Question, attachments and copies of the records
that the specialist needs are *one* sealed body under a key of this case only
(``case_keys.py``); the specialist gets that key and no other, so there is nothing else to read.
The answer is sealed under the same key. Bodies of any length go in parts, and everything is
mergeable: it waits for whoever carries it. Implements medical notes, section 1 row 16, and
``docs/protocols/care.md``, section 5.

``consult.teach`` is the patient's leave to teach with the case: it carries the patient's own
signature (the card in hand), or it is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.care.case_keys import PARTIES_MAX
from p2pmed.medical.keyring import Wrapped
from p2pmed.medical.patients import about_patient, patient_keys, wraps_fault
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS, Role, roles
from p2pmed.medical.sealed import Sealed
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, Text, TimeMs, Wire

__all__ = [
    "CONSULTS",
    "CONSULT_PURPOSE",
    "KINDS",
    "QUESTION_TYPE",
    "REPLIES",
    "REPLY_TYPE",
    "Attachment",
    "ConsultClose",
    "ConsultReply",
    "ConsultRequest",
    "ConsultRow",
    "ConsultTeach",
    "Question",
    "Reply",
    "consult_row",
    "teaching_leave",
]

CONSULT_PURPOSE: Final = "consult"
"""What a consultation's wraps are bound to."""
QUESTION_TYPE: Final = "p2pmed/question"
REPLY_TYPE: Final = "p2pmed/reply"
ATTACHMENTS_MAX: Final = 64
WORDS_MAX: Final = 64 * 1024

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=WORDS_MAX)]


class Attachment(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A picture, a tracing, a copy of a record."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """MIME type; ``application/fhir+json`` for a record's copy."""
    content: bytes


class Question(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sealed in a request."""

    words: Words
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=ATTACHMENTS_MAX)]


class Reply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sealed in a reply."""

    words: Words
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=ATTACHMENTS_MAX)]


class ConsultRequest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``consult.request``: a sealed question about the subject."""

    to: Bytes16
    """``box_id`` of the key that is asked: a specialist's device, or a facility's."""
    deadline: TimeMs
    """By when an answer is of use; 0: at any time."""
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(min_length=1, max_length=PARTIES_MAX)]
    sealed: Sealed
    """A ``Question``."""


class ConsultReply(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``consult.reply``: a sealed answer."""

    consult: Bytes32
    sealed: Sealed
    """A ``Reply``."""


class ConsultClose(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``consult.close``: who asked has what was needed; nothing is read by the case's key more."""

    consult: Bytes32


class ConsultTeach(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``consult.teach``: the patient lets a copy without identifiers be used for teaching."""

    consult: Bytes32
    until: TimeMs
    """0: open; a moment in the past takes the leave back."""
    proof: Proof
    """The patient's signature over ``words``."""

    @property
    def words(self) -> list[Any]:
        """What is signed."""
        return [self.consult, self.until]


class ConsultRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a consultation: the row of the pseudonym and its id."""

    author: Bytes32
    place: Text
    to: Bytes16
    deadline: TimeMs
    closed: OptionalId
    teach: TimeMs
    """Until when it may be taught with; -1: no leave, 0: open."""
    teach_hlc: Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class ReplyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a reply belongs to a consultation."""

    author: Bytes32


CONSULTS: Final = Table("consult", ConsultRow)
REPLIES: Final = Table("consult_reply", ReplyRow)
NO_LEAVE: Final = -1


def consult_row(view: Readable, patient: bytes, consult: bytes) -> ConsultRow | None:
    """The consultation about ``patient`` with this id, closed or not, or ``None``."""
    return CONSULTS.get(view, patient, consult)


def teaching_leave(row: ConsultRow, at_ms: int) -> bool:
    """Whether the patient lets the case be taught with at ``at_ms`` (milliseconds since 1970)."""
    return row.teach == 0 or (row.teach != NO_LEAVE and at_ms < row.teach)


def _check_request(act: Act[ConsultRequest], view: View) -> Rejection | None:
    if fault := about_patient(act, view) or wraps_fault(act.body.wraps):
        return fault
    asked = any(wrapped.grantee == act.body.to for wrapped in act.body.wraps)
    return None if asked and act.body.sealed.whole else Rejection.MALFORMED


def _apply_request(act: Act[ConsultRequest], view: View) -> None:
    row = ConsultRow(
        author=act.entry.author,
        place=act.member.place,
        to=act.body.to,
        deadline=act.body.deadline,
        closed=b"",
        teach=NO_LEAVE,
        teach_hlc=0,
    )
    CONSULTS.put(view, row, act.entry.envelope.subject, act.entry.id)


def _found(act: Act[Any], view: View) -> ConsultRow | Rejection:
    if fault := about_patient(act, view):
        return fault
    row = consult_row(view, act.entry.envelope.subject, act.body.consult)
    if row is None:
        return Rejection.CONSULT_UNKNOWN
    first = row.author == act.entry.author or act.body.consult in act.entry.envelope.refs
    return row if first else Rejection.REFERENCE_MISSING


def _check_reply(act: Act[ConsultReply], view: View) -> Rejection | None:
    """Who could open the question seals an answer that opens; another's opens nowhere."""
    row = _found(act, view)
    if isinstance(row, Rejection):
        return row
    return None if act.body.sealed.whole else Rejection.MALFORMED


def _apply_reply(act: Act[ConsultReply], view: View) -> None:
    REPLIES.put(view, ReplyRow(author=act.entry.author), act.body.consult, act.entry.id)


def _check_close(act: Act[ConsultClose], view: View) -> Rejection | None:
    row = _found(act, view)
    if isinstance(row, Rejection):
        return row
    ours = row.author == act.entry.author or (row.place and row.place == act.member.place)
    return None if ours else Rejection.NOT_THE_PARTY


def _apply_close(act: Act[ConsultClose], view: View) -> None:
    patient, consult = act.entry.envelope.subject, act.body.consult
    row = consult_row(view, patient, consult)
    assert row is not None  # checked
    first = min(row.closed or act.entry.id, act.entry.id)
    CONSULTS.put(view, msgspec.structs.replace(row, closed=first), patient, consult)


def _check_teach(act: Act[ConsultTeach], view: View) -> Rejection | None:
    row = _found(act, view)
    if isinstance(row, Rejection):
        return row
    patient = act.entry.envelope.subject
    message = said("teach", act.context.network, patient, act.body.words)
    # The current key only: who found a lost card must not give leave with it.
    current = patient_keys(view, patient)[-1]
    proven = is_proven(current.sign_key, act.body.proof, message)
    return None if proven else Rejection.PROOF_INVALID


def _apply_teach(act: Act[ConsultTeach], view: View) -> None:
    """The newest word by hybrid clock counts; of two at once the one that ends sooner."""
    patient, consult, hlc = act.entry.envelope.subject, act.body.consult, act.entry.envelope.hlc
    row = consult_row(view, patient, consult)
    assert row is not None  # checked
    until = act.body.until if act.body.until >= 0 else 1
    if hlc < row.teach_hlc:
        return
    if hlc == row.teach_hlc and row.teach != NO_LEAVE:
        until = min(until or 2**53, row.teach or 2**53)
    CONSULTS.put(view, msgspec.structs.replace(row, teach=until, teach_hlc=hlc), patient, consult)


_ABOUT: Final = "Refused `consult_unknown` or `reference_missing`"
_SPECIALISTS: Final = CARERS | roles(Role.PRACTITIONER, Role.COUNTY)

KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="consult.request",
        body=ConsultRequest,
        check=_check_request,
        apply=_apply_request,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the patient is registered, each party is named once, and who is "
        "asked is among them.",
    ),
    Kind(
        name="consult.reply",
        body=ConsultReply,
        check=_check_reply,
        apply=_apply_reply,
        ordered=False,
        roles=_SPECIALISTS,
        rules=_ABOUT + ". An answer that is not sealed under the case's key opens nowhere.",
    ),
    Kind(
        name="consult.close",
        body=ConsultClose,
        check=_check_close,
        apply=_apply_close,
        ordered=False,
        roles=CARERS,
        rules=_ABOUT + ", `not_the_party` unless written where it was asked.",
    ),
    Kind(
        name="consult.teach",
        body=ConsultTeach,
        check=_check_teach,
        apply=_apply_teach,
        ordered=False,
        rules=_ABOUT + ", `proof_invalid` without the patient's own signature.",
    ),
)
