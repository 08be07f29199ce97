"""Leave to read: granted by wrapping keys, ended by a new epoch.

Rule of this file: a grant *is* its wrapped keys; the row in the state only says who was given
them. Which categories they open is not in clear. Grants and their revocation are mergeable
(design, section 12): concurrent revocations all take effect. Implements medical notes, section
1 row 3 and section 3, and ``docs/protocols/records.md``, clauses 21 to 26.

The epoch rule: after a revocation, new records use keys of its epoch. Where two revocations
were made apart, each may have handed its new keys to the other's ex-reader;
``rotation_due`` says so until a revocation of a newer epoch settles it.

Who may author these says ``privacy/standing.py``: a key from a stranger would be a stranger's key.
All stay visible for ever under their author's signature. What is *proven* carries the patient's
own signature besides (card in hand), and a grant that or a delegate's (``delegation.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from p2pmed.identity.sealing import WRAP_BYTES, box_id
from p2pmed.ledger.state import Readable, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.keyring import WRAPPED_BYTES_MAX, Wrapped
from p2pmed.medical.patients import (
    GRANTS,
    WRAPS_MAX,
    GrantRow,
    about_patient,
    patient_keys,
    wraps_fault,
)
from p2pmed.medical.privacy.delegation import (
    answer_requests,
    delegation_fault,
    delegation_holds,
    delegation_row,
)
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.privacy.scopes import Told
from p2pmed.medical.privacy.standing import is_grantee, is_manager, is_reader
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, Count, OptionalId, TimeMs, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "EPOCHS",
    "EPOCH_KEYS",
    "EPOCH_PURPOSE",
    "KINDS",
    "AccessGrant",
    "AccessRevoke",
    "AccessRotate",
    "Grant",
    "Purpose",
    "current_epoch",
    "grant_in_force",
    "grant_row",
    "grants",
    "readers",
    "rotation_due",
]

EPOCH_PURPOSE: Final = "epoch"
"""What a revocation's wraps to the survivors are bound to."""
GRANT_EPOCH_MAX: Final = 2**30
"""Half of what a revocation can name: no reader can hand on a leave that nobody can end."""


class Purpose(StrEnum):
    """Why somebody reads: codes of HL7's PurposeOfUse."""

    TREATMENT = "TREAT"
    EMERGENCY = "ETREAT"
    PAYMENT = "HPAYMT"
    RESEARCH = "HRESCH"
    PUBLIC_HEALTH = "PUBHLTH"
    FAMILY = "FAMRQT"
    PATIENT = "PATRQT"
    UPKEEP = "HSYSADMIN"
    """Nobody looks: an index is made, a late record is sealed again."""


ReasonCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]
PurposeCode = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{2,16}\Z")]


class AccessGrant(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``access.grant``: the subject's keys of some categories, wrapped to one reader."""

    grantee_key: Bytes32
    """X25519 public key of the reader, whose ``box_id`` is the grantee."""
    purpose: PurposeCode
    epoch: Annotated[int, msgspec.Meta(ge=0, le=GRANT_EPOCH_MAX)]
    """The newest epoch among the wrapped keys."""
    since: TimeMs
    until: TimeMs
    """0: open."""
    wrapped: Annotated[bytes, msgspec.Meta(min_length=WRAP_BYTES, max_length=WRAPPED_BYTES_MAX)]
    told: Told
    """Which categories: for who manages the patient's consent."""
    under: OptionalId
    """The delegation by which the author acts, or empty."""
    proof: Proof
    """The patient's signature over ``words``, or the delegate's; or empty."""

    @property
    def words(self) -> list[Any]:
        """What is signed: all but the signature."""
        return [
            self.grantee_key,
            self.purpose,
            self.epoch,
            self.since,
            self.until,
            hash_bytes(self.wrapped),
            hash_bytes(self.told),
            self.under,
        ]


class AccessRevoke(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``access.revoke``: a grant ends, and a new epoch begins for the survivors."""

    grant: Bytes32
    """Transaction id of the grant, or ``patients.registration_grant``."""
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(max_length=WRAPS_MAX)]
    proof: Proof
    """The patient's, or empty."""

    @property
    def words(self) -> list[Any]:
        """What is signed: all but the signature."""
        return [self.grant, self.epoch, _hash_wraps(self.wraps)]


class AccessRotate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``access.rotate``: a new epoch with no grant ended: a card lost, staff gone, keys opened in
    an emergency. With the current epoch it hands more keys of it to those who read already.
    """

    reason: ReasonCode
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(max_length=WRAPS_MAX)]
    proof: Proof
    """The patient's, or empty."""

    @property
    def words(self) -> list[Any]:
        """What is signed: all but the signature."""
        return [self.reason, self.epoch, _hash_wraps(self.wraps)]


def _hash_wraps(wraps: tuple[Wrapped, ...]) -> bytes:
    return hash_bytes(cbor.encode([codec.plain(wrapped) for wrapped in wraps]))


class KeyedRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a transaction hands out keys of an epoch: found without walking a life."""

    epoch: Count


class EpochRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a patient's newest epoch: the pseudonym's row."""

    epoch: Count
    recipients: tuple[Bytes16, ...]
    """All who were given keys of it by a revocation, in ascending order."""


EPOCHS: Final = Table("epoch", EpochRow)
EPOCH_KEYS: Final = Table("epoch_keys", KeyedRow)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Grant:
    """One grant of a patient, as the state has it."""

    id: bytes
    row: GrantRow


def grant_row(view: Readable, patient: bytes, grant: bytes) -> GrantRow | None:
    """The grant of ``patient`` with this id, revoked or not, or ``None``."""
    return GRANTS.get(view, patient, grant)


def grants(view: Readable, patient: bytes) -> list[Grant]:
    """All grants of ``patient`` by id, revoked ones too."""
    return [Grant(id=grant, row=row) for grant, row in GRANTS.scan(view, patient)]


def grant_in_force(row: GrantRow, at_ms: int) -> bool:
    """Whether a grant holds at ``at_ms`` (milliseconds since 1970)."""
    started = row.since <= at_ms
    return started and not row.revoked and (row.until == 0 or at_ms < row.until)


def readers(view: Readable, patient: bytes, at_ms: int | None = None) -> list[Grant]:
    """Who was given keys and has not lost them; with ``at_ms``, only grants in force then.

    A grant ends with the delegation under which it was given.
    """
    return [
        grant
        for grant in grants(view, patient)
        if (not grant.row.revoked if at_ms is None else grant_in_force(grant.row, at_ms))
        and delegation_holds(view, patient, grant.row.under, at_ms)
    ]


def current_epoch(view: Readable, patient: bytes) -> int:
    """The epoch whose keys new records use; 0 until the first revocation."""
    row = _epoch_row(view, patient)
    return 0 if row is None else row.epoch


def rotation_due(view: Readable, patient: bytes) -> bool:
    """Whether somebody whose grant was revoked holds keys of the current epoch.

    It is settled by another ``access.revoke`` (of any grant revoked before) of a newer epoch.
    """
    every = grants(view, patient)
    kept = {grant.row.grantee for grant in every if not grant.row.revoked}
    lost = [grant.row for grant in every if grant.row.revoked and grant.row.grantee not in kept]
    newest = _epoch_row(view, patient)
    if newest is None:
        return False
    given = frozenset(newest.recipients)
    return any(row.grantee in given or row.epoch >= newest.epoch for row in lost)


def _epoch_row(view: Readable, patient: bytes) -> EpochRow | None:
    return EPOCHS.get(view, patient)


def _check_grant(act: Act[AccessGrant], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    if body.until and body.until <= body.since:
        return Rejection.MALFORMED
    message = said("grant", act.context.network, patient, body.words)
    if body.under:
        row = delegation_row(view, patient, body.under)
        if row is not None and not is_proven(row.sign_key, body.proof, message):
            return Rejection.PROOF_INVALID
        return delegation_fault(act.entry, row, body.since, body.until)
    if body.proof:
        return None if _is_patients(act, view, "grant") else Rejection.PROOF_INVALID
    return None if is_reader(act, view) else Rejection.NOT_THE_PARTY


def _is_patients(act: Act[Any], view: View, purpose: str) -> bool:
    """Whether the patient signed. The current key only: who found a lost card must not give or
    end leave with it.
    """
    patient = act.entry.envelope.subject
    message = said(purpose, act.context.network, patient, act.body.words)
    return is_proven(patient_keys(view, patient)[-1].sign_key, act.body.proof, message)


def _may_turn(act: Act[Any], view: View, purpose: str) -> Rejection | None:
    """Why the author may not hand out keys of a new epoch, if so."""
    if act.body.proof:
        return None if _is_patients(act, view, purpose) else Rejection.PROOF_INVALID
    return None if is_manager(act, view) else Rejection.NOT_THE_PARTY


def _apply_grant(act: Act[AccessGrant], view: View) -> None:
    body, entry = act.body, act.entry
    row = GrantRow(
        grantee=box_id(body.grantee_key),
        grantee_key=body.grantee_key,
        purpose=body.purpose,
        epoch=body.epoch,
        since=body.since,
        until=body.until,
        author=entry.author,
        entry=entry.id,
        under=body.under,
        proven=bool(body.proof),
    )
    GRANTS.put(view, row, entry.envelope.subject, entry.id)
    answer_requests(view, entry)


def _check_revoke(act: Act[AccessRevoke], view: View) -> Rejection | None:
    if fault := about_patient(act, view) or wraps_fault(act.body.wraps):
        return fault
    row = grant_row(view, act.entry.envelope.subject, act.body.grant)
    if row is None:
        return Rejection.GRANT_UNKNOWN
    if row.entry not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if act.body.epoch <= row.epoch:
        return Rejection.MALFORMED
    concerned = row.author == act.entry.author or is_grantee(view, act.member, row)
    if concerned and not act.body.wraps and not act.body.proof:
        return None  # one's own word, or one's own leave; it hands out no key
    return _may_turn(act, view, "revoke")


def _apply_revoke(act: Act[AccessRevoke], view: View) -> None:
    patient, body = act.entry.envelope.subject, act.body
    row = grant_row(view, patient, body.grant)
    assert row is not None  # checked
    GRANTS.put(view, msgspec.structs.replace(row, revoked=True), patient, body.grant)
    _begin_epoch(view, act.entry, body.epoch, body.wraps)


def _check_rotate(act: Act[AccessRotate], view: View) -> Rejection | None:
    fault = about_patient(act, view) or wraps_fault(act.body.wraps)
    return fault or _may_turn(act, view, "rotate")


def _apply_rotate(act: Act[AccessRotate], view: View) -> None:
    _begin_epoch(view, act.entry, act.body.epoch, act.body.wraps)


def _begin_epoch(view: View, entry: Entry, epoch: int, wraps: tuple[Wrapped, ...]) -> None:
    patient = entry.envelope.subject
    EPOCH_KEYS.put(view, KeyedRow(epoch=epoch), patient, entry.id)
    recipients = {wrapped.grantee for wrapped in wraps}
    newest = _epoch_row(view, patient)
    if newest is not None and newest.epoch > epoch:
        return
    if newest is not None and newest.epoch == epoch:
        recipients.update(newest.recipients)
    EPOCHS.put(view, EpochRow(epoch=epoch, recipients=tuple(sorted(recipients))), patient)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="access.grant",
        body=AccessGrant,
        check=_check_grant,
        apply=_apply_grant,
        ordered=False,
        rules="Refused unless the patient is registered, the grant ends after it begins, and the "
        "patient or a delegate signed it or its author has leave.",
    ),
    Kind(
        name="access.revoke",
        body=AccessRevoke,
        check=_check_revoke,
        apply=_apply_revoke,
        ordered=False,
        rules="Refused unless it names a grant of the patient and an epoch newer than its keys, "
        "and the patient signed it or its author manages the patient's consent; without new keys "
        "who gave the grant, or was given it, may end it too.",
    ),
    Kind(
        name="access.rotate",
        body=AccessRotate,
        check=_check_rotate,
        apply=_apply_rotate,
        ordered=False,
        rules="Refused unless the patient signed it or its author manages the patient's consent.",
    ),
)
