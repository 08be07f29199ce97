"""Breaking the glass: a facility's emergency key, and each opening with it, under two names.

Rule of this file: nobody holds the emergency key. Its shares are wrapped to qualified people of one
place, any two of whom open what was wrapped for one patient (``identity/joint.py``); the ledger
learns of it first. ``emergency.open`` carries two people's signatures over patient, reason,
categories and end, at most four hours away. It asks no quorum: who lies unconscious cannot wait
for one. Everything is mergeable. Implements medical notes, section 3, and
``docs/protocols/emergency.md``.

Reasons are codes; as FHIR it is an AuditEvent of DICOM's 110113 (Security Alert), 110127
(Emergency Override Started), purpose ETREAT of HL7's PurposeOfUse.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import CredentialError
from p2pmed.identity.joint import HOLDERS_MAX
from p2pmed.identity.persons import Countersignature, check_countersignature
from p2pmed.identity.sealing import WRAP_BYTES, box_id
from p2pmed.ledger.state import Readable, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.category_keys import EVERY_CATEGORY, Category
from p2pmed.medical.patients import about_patient
from p2pmed.medical.privacy.standing import may_close
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.registry import Act, Kind, Refusal
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS, OVERSEERS
from p2pmed.medical.tables import Table
from p2pmed.wire import cbor
from p2pmed.wire.codec import Bytes16, Bytes32, Count, OptionalId, Text, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "EMERGENCIES",
    "EMERGENCY_MS_MAX",
    "EMERGENCY_SCOPE",
    "KINDS",
    "REVIEW_MS",
    "EmergencyClose",
    "EmergencyKey",
    "EmergencyOpen",
    "EmergencyReview",
    "EmergencyRow",
    "Finding",
    "Holder",
    "Reason",
    "current_emergency_key",
    "emergency_keys",
    "emergency_of",
    "emergency_row",
    "open_digest",
    "review_digest",
]

EMERGENCY_MS_MAX: Final = 4 * 3_600_000
REVIEW_MS: Final = 72 * 3_600_000
"""Within which somebody who was not involved looks at it."""
EMERGENCY_SCOPE: Final = "emergency"
"""What both signers are qualified for, where the network keeps a register."""
THRESHOLD: Final = 2
SHARE_BYTES: Final = WRAP_BYTES + 32
EPOCHS_MAX: Final = 10_000


class Reason(StrEnum):
    """Why the glass was broken."""

    UNCONSCIOUS = "unconscious"
    LIFE_THREAT = "life-threat"
    CANNOT_CONSENT = "cannot-consent"
    DANGER_TO_OTHERS = "danger-to-others"


class Finding(StrEnum):
    """What the reviewer found."""

    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"
    UNCLEAR = "unclear"


class Holder(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One share of the emergency key."""

    point: Annotated[int, msgspec.Meta(ge=1, le=HOLDERS_MAX)]
    person: Bytes32
    grantee: Bytes16
    """``box_id`` of the person's X25519 key."""
    wrapped: Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]


class EmergencyKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``emergency.key``: a new epoch of the emergency key of the author's place."""

    epoch: Annotated[int, msgspec.Meta(ge=0, lt=EPOCHS_MAX)]
    public: Bytes32
    threshold: Annotated[int, msgspec.Meta(ge=THRESHOLD, le=HOLDERS_MAX)]
    holders: Annotated[
        tuple[Holder, ...], msgspec.Meta(min_length=THRESHOLD, max_length=HOLDERS_MAX)
    ]


class EmergencyOpen(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``emergency.open``: two people open the subject's record, and say why."""

    reason: Reason
    categories: Annotated[
        tuple[Category, ...], msgspec.Meta(min_length=1, max_length=len(EVERY_CATEGORY))
    ]
    until: TimeMs
    first: Countersignature
    second: Countersignature


class EmergencyClose(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``emergency.close``: it is over before its time."""

    opening: Bytes32


class EmergencyReview(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``emergency.review``: somebody who was not involved has looked at it."""

    opening: Bytes32
    finding: Finding
    word: Countersignature


class EmergencyKeyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one epoch of an emergency key."""

    epoch: Count
    public: Bytes32
    entry: Bytes32


class EmergencyBoxRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose an emergency key is."""

    place: Text


class EmergencyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one opening: the pseudonym's and the opening's row."""

    author: Bytes32
    place: Text
    reason: Reason
    categories: tuple[Category, ...]
    opened: TimeMs
    until: TimeMs
    first: Bytes32
    second: Bytes32
    closed: OptionalId = b""
    """The transaction that closed it, or empty."""
    review: OptionalId = b""
    """The review, of several the smallest id; or empty."""
    finding: Text = ""

    def is_open(self, at_ms: int) -> bool:
        """Whether it opens anything at ``at_ms``."""
        return not self.closed and self.opened <= at_ms < self.until


KEYS: Final = Table("emergency_key", EmergencyKeyRow)
BOXES: Final = Table("emergency_box", EmergencyBoxRow)
EMERGENCIES: Final = Table("emergency", EmergencyRow)


def emergency_keys(view: Readable, place: str) -> list[EmergencyKeyRow]:
    """Every epoch of the emergency key of ``place``, the current one last.

    Of two of one epoch the smaller id counts.
    """
    rows = [row for _, row in KEYS.scan(view, _name(place))] if place else []
    rows.sort(key=lambda row: row.entry, reverse=True)
    rows.sort(key=lambda row: row.epoch)
    return rows


def current_emergency_key(view: Readable, place: str) -> bytes | None:
    """The X25519 key that registrations at ``place`` wrap to, or ``None``."""
    rows = emergency_keys(view, place)
    return rows[-1].public if rows else None


def emergency_of(view: Readable, grantee: bytes) -> str | None:
    """The place whose emergency key (of any epoch) has this ``box_id``, or ``None``."""
    row = BOXES.get(view, grantee)
    return None if row is None else row.place


def emergency_row(view: Readable, patient: bytes, opening: bytes) -> EmergencyRow | None:
    """The opening of ``patient`` with this id, or ``None``."""
    return EMERGENCIES.get(view, patient, opening)


def open_digest(
    patient: bytes, device: bytes, reason: Reason, categories: tuple[Category, ...], until: int
) -> bytes:
    """What both people sign (32 bytes)."""
    names = [category.value for category in categories]
    return digest("emergency.open", cbor.encode([patient, device, reason.value, names, until]))


def review_digest(patient: bytes, opening: bytes, finding: Finding) -> bytes:
    """What the reviewer signs (32 bytes)."""
    return digest("emergency.review", cbor.encode([patient, opening, finding.value]))


def _name(place: str) -> bytes:
    return digest("emergency", place.encode())


def _signed(act: Act[Any], word: Countersignature, purpose: str, message: bytes) -> bool:
    try:
        check_countersignature(word, act.context.network, purpose, message)
    except CredentialError:
        return False
    return True


def _check_key(act: Act[EmergencyKey], view: View) -> Rejection | None:
    body, place = act.body, act.member.place
    points = [holder.point for holder in body.holders]
    people = {holder.person for holder in body.holders}
    if act.entry.envelope.subject or points != list(range(1, len(points) + 1)):
        return Rejection.MALFORMED
    if len(people) < len(points):
        return Rejection.SIGNER_REPEATED  # two shares in one hand are one key in one hand
    if body.threshold > len(points):
        return Rejection.MALFORMED
    if not place or emergency_of(view, box_id(body.public)) not in (None, place):
        return Rejection.NOT_THE_PARTY
    return None


def _apply_key(act: Act[EmergencyKey], view: View) -> None:
    body, place = act.body, act.member.place
    row = EmergencyKeyRow(epoch=body.epoch, public=body.public, entry=act.entry.id)
    KEYS.put(view, row, _name(place), body.epoch.to_bytes(4, "big"), act.entry.id)
    BOXES.put(view, EmergencyBoxRow(place=place), box_id(body.public))


def _opened_ms(entry: Entry) -> int:
    """When the author says it happened: mergeable, so judged alike before any block."""
    return entry.envelope.hlc >> 16


def _check_open(act: Act[EmergencyOpen], view: View) -> Rejection | Refusal | None:
    if fault := about_patient(act, view):
        return fault
    body, patient, now = act.body, act.entry.envelope.subject, _opened_ms(act.entry)
    named = set(body.categories)
    if len(named) < len(body.categories) or Category.CONSENT in named:
        return Rejection.MALFORMED
    if not now < body.until <= now + EMERGENCY_MS_MAX:
        return Rejection.MALFORMED
    if body.first.signer == body.second.signer:
        return Rejection.SIGNER_REPEATED
    message = open_digest(patient, act.entry.author, body.reason, body.categories, body.until)
    for word in (body.first, body.second):
        if not _signed(act, word, "emergency.open", message):
            return Rejection.SIGNATURE_WRONG
        if unfit := qualified(view, word.signer, EMERGENCY_SCOPE, now, place=act.member.place):
            return unfit
    return _used(act, view)


def _used(act: Act[EmergencyOpen], view: View) -> Refusal | None:
    """Two people's word opens once; it names a device, whose own log says which came first."""
    body = act.body
    words = (act.entry.author, body.reason, body.categories, body.until)
    people = {body.first.signer, body.second.signer}
    for name, row in EMERGENCIES.scan(view, act.entry.envelope.subject):
        held = (row.author, row.reason, row.categories, row.until)
        if held == words and {row.first, row.second} == people:
            return Refusal(reason=Rejection.SIGNATURE_USED, other=name)
    return None


def _apply_open(act: Act[EmergencyOpen], view: View) -> None:
    body, entry = act.body, act.entry
    row = EmergencyRow(
        author=entry.author,
        place=act.member.place,
        reason=body.reason,
        categories=body.categories,
        opened=_opened_ms(entry),
        until=body.until,
        first=body.first.signer,
        second=body.second.signer,
    )
    EMERGENCIES.put(view, row, entry.envelope.subject, entry.id)


def _opening(act: Act[Any], view: View) -> EmergencyRow | Rejection:
    """The opening that ``act`` is about, which every order puts before it."""
    if fault := about_patient(act, view):
        return fault
    entry = act.entry
    row = emergency_row(view, entry.envelope.subject, act.body.opening)
    if row is None:
        return Rejection.EMERGENCY_UNKNOWN
    comes_first = row.author == entry.author or act.body.opening in entry.envelope.refs
    return row if comes_first else Rejection.REFERENCE_MISSING


def _check_close(act: Act[EmergencyClose], view: View) -> Rejection | None:
    found = _opening(act, view)
    if isinstance(found, Rejection):
        return found
    concerned = act.entry.author == found.author or may_close(act, view, found.place)
    return None if concerned else Rejection.NOT_THE_PARTY


def _apply_close(act: Act[EmergencyClose], view: View) -> None:
    patient, opening, entry = act.entry.envelope.subject, act.body.opening, act.entry
    row = emergency_row(view, patient, opening)
    assert row is not None  # checked
    first = min(row.closed or entry.id, entry.id)
    EMERGENCIES.put(view, msgspec.structs.replace(row, closed=first), patient, opening)


def _check_review(act: Act[EmergencyReview], view: View) -> Rejection | None:
    found = _opening(act, view)
    if isinstance(found, Rejection):
        return found
    body = act.body
    if body.word.signer in (found.first, found.second):
        return Rejection.SIGNER_REPEATED
    message = review_digest(act.entry.envelope.subject, body.opening, body.finding)
    if not _signed(act, body.word, "emergency.review", message):
        return Rejection.SIGNATURE_WRONG
    return None


def _apply_review(act: Act[EmergencyReview], view: View) -> None:
    patient, body, entry = act.entry.envelope.subject, act.body, act.entry
    row = emergency_row(view, patient, body.opening)
    assert row is not None  # checked
    if row.review and row.review < entry.id:
        return
    row = msgspec.structs.replace(row, review=entry.id, finding=body.finding.value)
    EMERGENCIES.put(view, row, patient, body.opening)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="emergency.key",
        body=EmergencyKey,
        check=_check_key,
        apply=_apply_key,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the author's credential names a place, whose key it is, and the "
        "shares are those of different people, at least two of whom are needed.",
    ),
    Kind(
        name="emergency.open",
        body=EmergencyOpen,
        check=_check_open,
        apply=_apply_open,
        ordered=False,
        roles=CARERS,
        rules="Refused unless two different people signed it, both qualified "
        "for emergencies then, who have not opened with these signatures before, and it ends "
        "within four hours.",
    ),
    Kind(
        name="emergency.close",
        body=EmergencyClose,
        check=_check_close,
        apply=_apply_close,
        ordered=False,
        rules="Refused unless it names an emergency of the patient, and its author opened it, is "
        "of the same place, oversees, or manages the patient's consent.",
    ),
    Kind(
        name="emergency.review",
        body=EmergencyReview,
        check=_check_review,
        apply=_apply_review,
        ordered=False,
        roles=CARERS | OVERSEERS,
        rules="Refused unless it names an emergency of the patient and somebody signed it who did "
        "not open it.",
    ),
)
