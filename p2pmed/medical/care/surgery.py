"""An operation, recorded so that nobody can tell another story afterwards.

Rule of this file: every entry about an operation carries its ``number``: how many entries of this
operation its device wrote up to it, counted from 1 without a gap. So who holds the last one knows
how many there were, and one that is left out is missed. ``surgery.close`` states the numbers of
all devices it knows of.

A phase of the checklist is signed by the people themselves (``Countersignature``), each for a role,
each another person, each qualified for it at block time; else it is refused. A phase in the
wrong order, or after an incision, is *not* refused: what was done is recorded, and what is missing
or late is shown (``theatre.py``). Times are those of the device that recorded, and stand beside the
hybrid clock and the block's. Implements medical notes, section 1 row 10, and
``docs/protocols/care.md``, sections 7 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import CredentialError
from p2pmed.identity.persons import Countersignature, check_countersignature
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.care.checklist import ITEMS, ROLES, SCOPE_OF_ROLE, Answer, Phase, TeamRole
from p2pmed.medical.patients import about_patient
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS
from p2pmed.medical.sealed import Sealed
from p2pmed.medical.tables import Table
from p2pmed.wire import cbor
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "CHECKLIST_PURPOSE",
    "CLOSE_PURPOSE",
    "COUNTS",
    "KINDS",
    "NUMBER_MAX",
    "SURGERIES",
    "Signed",
    "SurgeryChecklist",
    "SurgeryClose",
    "SurgeryEvent",
    "SurgeryNote",
    "SurgeryPlan",
    "SurgeryRow",
    "checklist_digest",
    "close_digest",
    "counts_of",
    "signers_fault",
    "surgery_row",
]

CHECKLIST_PURPOSE: Final = "surgery.checklist"
CLOSE_PURPOSE: Final = "surgery.close"
"""What people's words are bound to."""
NUMBER_MAX: Final = 100_000
SIGNERS_MAX: Final = 12
MEDIA_MAX: Final = 64
DEVICES_MAX: Final = 32
"""Devices that record one operation."""

Number = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
StepCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]


class Signed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One person's word, given for a role."""

    role: TeamRole
    word: Countersignature


Signers = Annotated[tuple[Signed, ...], msgspec.Meta(min_length=1, max_length=SIGNERS_MAX)]


class SurgeryPlan(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``surgery.plan``: an operation on the subject is planned; its id names the operation.

    It is number 1 of the device that planned it.
    """

    planned: TimeMs
    team: Annotated[tuple[tuple[TeamRole, Bytes32], ...], msgspec.Meta(max_length=SIGNERS_MAX)]
    """Who is meant to do what: people's keys."""
    sealed: Sealed
    """What is planned: a FHIR resource."""


class SurgeryChecklist(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``surgery.checklist``: one phase, answered and signed by those who did it."""

    surgery: Bytes32
    number: Number
    phase: Phase
    answers: Annotated[tuple[Answer, ...], msgspec.Meta(min_length=1, max_length=16)]
    """To ``ITEMS`` of the phase, in their order."""
    occurred: TimeMs
    signers: Signers


class SurgeryEvent(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``surgery.event``: a step was done."""

    surgery: Bytes32
    number: Number
    step: StepCode
    occurred: TimeMs
    """By the device's clock, when it happened; the envelope says when it was recorded."""


class SurgeryNote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``surgery.note``: words, and what was filmed or photographed, as commitments."""

    surgery: Bytes32
    number: Number
    occurred: TimeMs
    media: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=MEDIA_MAX)]
    """BLAKE2b-256 commitments of media kept elsewhere; their salts are in the sealed body."""
    sealed: Sealed


class SurgeryClose(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``surgery.close``: the record of the operation is complete, says who signs."""

    surgery: Bytes32
    number: Number
    occurred: TimeMs
    outcome: StepCode
    counts: Annotated[
        tuple[tuple[Bytes32, Number], ...], msgspec.Meta(min_length=1, max_length=DEVICES_MAX)
    ]
    """Each device's last number before this entry, in the order of the keys."""
    signers: Signers


class SurgeryRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of an operation: its plan's id."""

    patient: Bytes16
    author: Bytes32
    entry: Bytes32
    closed: OptionalId


class CountRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of what one device wrote of an operation."""

    last: Number


SURGERIES: Final = Table("surgery", SurgeryRow)
COUNTS: Final = Table("surgery_count", CountRow)


def surgery_row(view: Readable, surgery: bytes) -> SurgeryRow | None:
    """The operation whose plan is ``surgery``, closed or not, or ``None``."""
    return SURGERIES.get(view, surgery)


def counts_of(view: Readable, surgery: bytes) -> tuple[tuple[bytes, int], ...]:
    """Each device's last number, in the order of the keys."""
    return tuple((device, row.last) for device, row in COUNTS.scan(view, surgery))


def checklist_digest(
    surgery: bytes, phase: int, answers: Sequence[int], occurred: int, role: int
) -> bytes:
    """What a signer of a phase signs (32 bytes), for ``CHECKLIST_PURPOSE``."""
    words = [
        CHECKLIST_PURPOSE,
        surgery,
        int(phase),
        [int(answer) for answer in answers],
        occurred,
        int(role),
    ]
    return digest("surgery", cbor.encode(words))


def close_digest(
    surgery: bytes,
    occurred: int,
    outcome: str,
    counts: Sequence[tuple[bytes, int]],
    role: int,
) -> bytes:
    """What a signer of the close signs (32 bytes), for ``CLOSE_PURPOSE``."""
    rows = [[device, number] for device, number in counts]
    words = [CLOSE_PURPOSE, surgery, occurred, outcome, rows, int(role)]
    return digest("surgery", cbor.encode(words))


def signers_fault(body: SurgeryChecklist | SurgeryClose, network: bytes) -> Rejection | None:
    """Why the words under a phase or a close are not those of distinct people, if they are not."""
    people = {signed.word.signer for signed in body.signers}
    if len(people) < len(body.signers):
        return Rejection.SIGNER_REPEATED
    for signed in body.signers:
        try:
            check_countersignature(signed.word, network, _purpose(body), _digest(body, signed.role))
        except CredentialError:
            return Rejection.SIGNATURE_WRONG
    return None


def _purpose(body: SurgeryChecklist | SurgeryClose) -> str:
    return CHECKLIST_PURPOSE if isinstance(body, SurgeryChecklist) else CLOSE_PURPOSE


def _digest(body: SurgeryChecklist | SurgeryClose, role: int) -> bytes:
    if isinstance(body, SurgeryChecklist):
        return checklist_digest(body.surgery, body.phase, body.answers, body.occurred, role)
    return close_digest(body.surgery, body.occurred, body.outcome, body.counts, role)


# --- rules ---------------------------------------------------------------------------------


def _check_plan(act: Act[SurgeryPlan], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    return None if act.body.sealed.whole else Rejection.MALFORMED


def _apply_plan(act: Act[SurgeryPlan], view: View) -> None:
    entry = act.entry
    row = SurgeryRow(
        patient=entry.envelope.subject, author=entry.author, entry=entry.id, closed=b""
    )
    SURGERIES.put(view, row, entry.id)
    COUNTS.put(view, CountRow(last=1), entry.id, entry.author)


def _entry_fault(act: Act[Any], view: View) -> Rejection | None:
    """What every entry about an operation must keep."""
    if fault := about_patient(act, view):
        return fault
    row = surgery_row(view, act.body.surgery)
    if row is None:
        return Rejection.SURGERY_UNKNOWN
    if row.author != act.entry.author and row.entry not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if row.patient != act.entry.envelope.subject:
        return Rejection.REFERENCE_MISMATCH
    last = COUNTS.get(view, act.body.surgery, act.entry.author)
    repeated = last is not None and act.body.number <= last.last
    return Rejection.SURGERY_NUMBER_USED if repeated else None


def _count(act: Act[Any], view: View) -> None:
    COUNTS.put(view, CountRow(last=act.body.number), act.body.surgery, act.entry.author)


def _unqualified(act: Act[Any], view: View) -> Rejection | None:
    for signed in act.body.signers:
        unfit = qualified(
            view,
            signed.word.signer,
            SCOPE_OF_ROLE[signed.role],
            act.context.time_ms,
            place=act.member.place,
        )
        if unfit is not None:
            return unfit
    return None


def _check_checklist(act: Act[SurgeryChecklist], view: View) -> Rejection | None:
    body = act.body
    if fault := _entry_fault(act, view):
        return fault
    if len(body.answers) != len(ITEMS[body.phase]):
        return Rejection.MALFORMED
    present = [signed.role for signed in body.signers]
    if any(role not in present for role in ROLES[body.phase]):
        return Rejection.SIGNER_MISSING
    return signers_fault(body, act.context.network) or _unqualified(act, view)


def _check_event(act: Act[SurgeryEvent], view: View) -> Rejection | None:
    return _entry_fault(act, view)


def _check_note(act: Act[SurgeryNote], view: View) -> Rejection | None:
    fault = _entry_fault(act, view)
    return fault or (None if act.body.sealed.whole else Rejection.MALFORMED)


def _check_close(act: Act[SurgeryClose], view: View) -> Rejection | None:
    body = act.body
    if fault := _entry_fault(act, view):
        return fault
    devices = [device for device, _ in body.counts]
    if any(devices[i] >= devices[i + 1] for i in range(len(devices) - 1)):
        return Rejection.MALFORMED
    if all(signed.role is not TeamRole.SURGEON for signed in body.signers):
        return Rejection.SIGNER_MISSING
    return signers_fault(body, act.context.network) or _unqualified(act, view)


def _apply_close(act: Act[SurgeryClose], view: View) -> None:
    _count(act, view)
    row = surgery_row(view, act.body.surgery)
    assert row is not None  # checked
    if not row.closed:
        changed = msgspec.structs.replace(row, closed=act.entry.id)
        SURGERIES.put(view, changed, act.body.surgery)


_ENTRY: Final = (
    "Refused `surgery_unknown`, `reference_missing`, `reference_mismatch`, `surgery_number_used` "
    "unless its number is above its device's last."
)
_SIGNED: Final = (
    " Refused `signer_missing`, `signer_repeated`, `signature_wrong`, or the reason why a signer "
    "is not qualified for the role at block time."
)

KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="surgery.plan",
        body=SurgeryPlan,
        check=_check_plan,
        apply=_apply_plan,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the patient is registered.",
    ),
    Kind(
        name="surgery.checklist",
        body=SurgeryChecklist,
        check=_check_checklist,
        apply=_count,
        roles=CARERS,
        rules=_ENTRY
        + _SIGNED
        + " The order of the phases is not asked for: what is missing shows.",
    ),
    Kind(
        name="surgery.event",
        body=SurgeryEvent,
        check=_check_event,
        apply=_count,
        ordered=False,
        roles=CARERS,
        rules=_ENTRY,
    ),
    Kind(
        name="surgery.note",
        body=SurgeryNote,
        check=_check_note,
        apply=_count,
        ordered=False,
        roles=CARERS,
        rules=_ENTRY,
    ),
    Kind(
        name="surgery.close",
        body=SurgeryClose,
        check=_check_close,
        apply=_apply_close,
        roles=CARERS,
        rules=_ENTRY + _SIGNED + " A surgeon signs. Later entries are recorded, and show as late.",
    ),
)
