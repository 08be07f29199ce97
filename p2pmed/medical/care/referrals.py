"""A patient sent to another facility, with just what it needs to know, and results that return.

Rule of this file: a referral is its wraps. Its letter (why, what is asked, which records) is
sealed under a key of its own (``case_keys.py``), wrapped to the receiver, to the sender's facility
and to the patient; single records come along as their own keys, whole categories as an
``access.grant`` beside it. Results return under the same key, so the village reads them and
nobody on the way does. All kinds are mergeable: they travel by link, van and stick alike, and
two acceptances made apart are one. Implements medical notes, section 1 row 13, and
``docs/protocols/care.md``, section 3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec

from p2pmed.identity.credentials import covers
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.care.case_keys import PARTIES_MAX, RECORDS_MAX
from p2pmed.medical.keyring import Category, Wrapped
from p2pmed.medical.patients import about_patient, wraps_fault
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS
from p2pmed.medical.sealed import Sealed
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, Text, TimeMs, Wire

__all__ = [
    "KINDS",
    "LETTER_TYPE",
    "REFERRALS",
    "REFERRAL_PURPOSE",
    "RESULTS",
    "Letter",
    "ReferralAccept",
    "ReferralClose",
    "ReferralRow",
    "ReferralSend",
    "ResultReturn",
    "Urgency",
    "referral_row",
]

REFERRAL_PURPOSE: Final = "referral"
"""What a referral's wraps are bound to."""
LETTER_TYPE: Final = "p2pmed/referral"
ORDERS_MAX: Final = 64

ReasonCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]
FacilityPlace = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Urgency(IntEnum):
    """How soon; the receiver's list is sorted by it."""

    ROUTINE = 0
    URGENT = 1
    EMERGENCY = 2


class Letter(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sealed: why, and what comes along."""

    reason: Text
    """A code: ICD-10, or a list of the network's own."""
    text: Annotated[str, msgspec.Meta(max_length=64 * 1024)]
    records: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=RECORDS_MAX)]
    """Single records whose keys are in the wraps."""
    categories: Annotated[tuple[Category, ...], msgspec.Meta(max_length=len(Category))]
    """Categories for which a grant was written beside it."""
    orders: Annotated[tuple[Text, ...], msgspec.Meta(max_length=ORDERS_MAX)]
    """Examinations asked for, as LOINC codes."""


class ReferralSend(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``referral.send``: the subject is sent to another facility."""

    to: FacilityPlace
    """The receiving facility's place."""
    urgency: Urgency
    until: TimeMs
    """When the leave to read ends; 0: when the referral is closed."""
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(min_length=1, max_length=PARTIES_MAX)]
    """The case's key and the single records' keys, to each party."""
    sealed: Sealed
    """A ``Letter``."""


class ReferralAccept(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``referral.accept``: the receiving facility takes the patient."""

    referral: Bytes32


class ReferralClose(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``referral.close``: nothing is read by it any more."""

    referral: Bytes32
    reason: ReasonCode


class ResultReturn(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``result.return``: a FHIR resource of the receiving facility, under the case's key."""

    referral: Bytes32
    sealed: Sealed


class ReferralRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a referral: the row of the pseudonym and its id."""

    author: Bytes32
    place: Text
    """The sender's."""
    to: Text
    urgency: Urgency
    until: TimeMs
    accepted: OptionalId
    """The smallest id of what accepts it, or empty."""
    closed: OptionalId


class ResultRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a result belongs to a referral."""

    patient: Bytes16


REFERRALS: Final = Table("referral", ReferralRow)
RESULTS: Final = Table("result", ResultRow)


def referral_row(view: Readable, patient: bytes, referral: bytes) -> ReferralRow | None:
    """The referral of ``patient`` with this id, closed or not, or ``None``."""
    return REFERRALS.get(view, patient, referral)


def _check_send(act: Act[ReferralSend], view: View) -> Rejection | None:
    if fault := about_patient(act, view) or wraps_fault(act.body.wraps):
        return fault
    return None if act.body.sealed.whole else Rejection.MALFORMED


def _apply_send(act: Act[ReferralSend], view: View) -> None:
    row = ReferralRow(
        author=act.entry.author,
        place=act.member.place,
        to=act.body.to,
        urgency=act.body.urgency,
        until=act.body.until,
        accepted=b"",
        closed=b"",
    )
    REFERRALS.put(view, row, act.entry.envelope.subject, act.entry.id)


def _found(act: Act[Any], view: View) -> ReferralRow | Rejection:
    """The referral that ``act`` is about, which every order puts before it."""
    if fault := about_patient(act, view):
        return fault
    row = referral_row(view, act.entry.envelope.subject, act.body.referral)
    if row is None:
        return Rejection.REFERRAL_UNKNOWN
    first = row.author == act.entry.author or act.body.referral in act.entry.envelope.refs
    return row if first else Rejection.REFERENCE_MISSING


def _at(place: str, act: Act[Any]) -> bool:
    return bool(place) and covers(place, act.member.place)


def _check_receiver(act: Act[Any], view: View) -> Rejection | None:
    row = _found(act, view)
    if isinstance(row, Rejection):
        return row
    return None if _at(row.to, act) else Rejection.NOT_THE_PARTY


def _apply_accept(act: Act[ReferralAccept], view: View) -> None:
    _note(act, view, "accepted")


def _check_close(act: Act[ReferralClose], view: View) -> Rejection | None:
    row = _found(act, view)
    if isinstance(row, Rejection):
        return row
    ours = row.author == act.entry.author or _at(row.place, act) or _at(row.to, act)
    return None if ours else Rejection.NOT_THE_PARTY


def _apply_close(act: Act[ReferralClose], view: View) -> None:
    _note(act, view, "closed")


def _note(act: Act[Any], view: View, field: str) -> None:
    """The smallest id counts, alike in every order."""
    patient = act.entry.envelope.subject
    row = referral_row(view, patient, act.body.referral)
    assert row is not None  # checked
    first = min(getattr(row, field) or act.entry.id, act.entry.id)
    changed = msgspec.structs.replace(row, **{field: first})
    REFERRALS.put(view, changed, patient, act.body.referral)


def _check_result(act: Act[ResultReturn], view: View) -> Rejection | None:
    if fault := _check_receiver(act, view):
        return fault
    return None if act.body.sealed.whole else Rejection.MALFORMED


def _apply_result(act: Act[ResultReturn], view: View) -> None:
    row = ResultRow(patient=act.entry.envelope.subject)
    RESULTS.put(view, row, act.body.referral, act.entry.id)


_PARTY: Final = (
    "Refused `referral_unknown`, `reference_missing`, `not_the_party` unless written at "
)

KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="referral.send",
        body=ReferralSend,
        check=_check_send,
        apply=_apply_send,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the patient is registered and each party is named once.",
    ),
    Kind(
        name="referral.accept",
        body=ReferralAccept,
        check=_check_receiver,
        apply=_apply_accept,
        ordered=False,
        roles=CARERS,
        rules=_PARTY + "the receiving facility.",
    ),
    Kind(
        name="referral.close",
        body=ReferralClose,
        check=_check_close,
        apply=_apply_close,
        ordered=False,
        roles=CARERS,
        rules=_PARTY + "the sending or the receiving facility.",
    ),
    Kind(
        name="result.return",
        body=ResultReturn,
        check=_check_result,
        apply=_apply_result,
        ordered=False,
        roles=CARERS,
        rules=_PARTY + "the receiving facility. A closed referral still takes results.",
    ),
)
