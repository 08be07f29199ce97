"""Asking for leave to read, and giving somebody the right to give it.

Rule of this file: a *delegate* (the guardian of a child, the daughter of an old man) reads and
may grant, in a bounded chain: each link reaches no longer and less deep than the one before, and
is signed by the key of the link before, the first by the patient's own. So a clinic that holds
the keys cannot make itself a guardian. A *request* gives nothing; a grant that names it among its
``refs`` answers it. All are mergeable. Implements medical notes, section 1 row 3, and
``docs/protocols/records.md``, clauses 26.1 to 26.4.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.identity.sealing import WRAP_BYTES, box_id
from p2pmed.ledger.state import Readable, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.keyring import WRAPPED_BYTES_MAX, Wrapped
from p2pmed.medical.patients import GRANTS, GrantRow, about_patient, patient_keys, wraps_fault
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.privacy.scopes import Told
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Count, OptionalId, Text, TimeMs, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "DELEGATIONS",
    "DELEGATION_DEPTH_MAX",
    "DELEGATION_PURPOSE",
    "KINDS",
    "REQUESTS",
    "REQUEST_PURPOSE",
    "AccessDelegate",
    "AccessRequest",
    "DelegationRow",
    "RequestRow",
    "answer_requests",
    "delegation_fault",
    "delegation_holds",
    "delegation_row",
]

DELEGATION_DEPTH_MAX: Final = 2
"""Links below the patient's own: the guardian, and who stands in for the guardian."""
DELEGATION_PURPOSE: Final = "FAMRQT"
"""HL7's code for what a family asks; the wrapped keys are bound to it."""
REQUEST_PURPOSE: Final = "request"
TOLD_READERS_MAX: Final = 4


class AccessDelegate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``access.delegate``: somebody may read, and grant in the patient's name."""

    grantee_key: Bytes32
    """X25519 public key of the delegate."""
    sign_key: Bytes32
    """Ed25519 public key of the delegate."""
    epoch: Count
    since: TimeMs
    until: TimeMs
    """0: open."""
    depth: Annotated[int, msgspec.Meta(ge=0, lt=DELEGATION_DEPTH_MAX)]
    """Further links that may hang on this one."""
    under: OptionalId
    """The delegation that this one hangs on, or empty: the patient's own word."""
    wrapped: Annotated[bytes, msgspec.Meta(min_length=WRAP_BYTES, max_length=WRAPPED_BYTES_MAX)]
    told: Told
    proof: Proof

    @property
    def words(self) -> list[Any]:
        """What is signed: all but the signature."""
        return [
            self.grantee_key,
            self.sign_key,
            self.epoch,
            self.since,
            self.until,
            self.depth,
            self.under,
            hash_bytes(self.wrapped),
            hash_bytes(self.told),
        ]


class AccessRequest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``access.request``: somebody asks to read."""

    requester_key: Bytes32
    """X25519 public key to which a grant shall be wrapped."""
    purpose: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{2,16}\Z")]
    until: TimeMs
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(max_length=TOLD_READERS_MAX)]
    """Which categories, and a line of words: to the patient and to who can answer."""


class DelegationRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a delegation; that it may read is the grant of the same id."""

    sign_key: Bytes32
    depth: Count
    since: TimeMs
    until: TimeMs
    under: OptionalId


class RequestRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a request."""

    author: Bytes32
    requester_key: Bytes32
    purpose: Text
    until: TimeMs
    answer: OptionalId
    """The smallest id of the grants that answer it, or empty."""


DELEGATIONS: Final = Table("delegation", DelegationRow)
REQUESTS: Final = Table("access_request", RequestRow)


def delegation_row(view: Readable, patient: bytes, delegation: bytes) -> DelegationRow | None:
    """The delegation of ``patient`` with this id, ended or not, or ``None``."""
    return DELEGATIONS.get(view, patient, delegation)


def delegation_holds(view: Readable, patient: bytes, under: bytes, at_ms: int | None) -> bool:
    """Whether what was given ``under`` a delegation still stands; always, if under none."""
    for _ in range(DELEGATION_DEPTH_MAX + 1):
        if not under:
            return True
        row = delegation_row(view, patient, under)
        grant = GRANTS.get(view, patient, under)
        if row is None or grant is None or grant.revoked:
            return False
        if at_ms is not None and not (row.since <= at_ms and (not row.until or at_ms < row.until)):
            return False
        under = row.under
    return False


def delegation_fault(
    entry: Entry, row: DelegationRow | None, since: int, until: int
) -> Rejection | None:
    """Why what ``entry`` gives under ``row`` goes too far, if it does."""
    if row is None:
        return Rejection.DELEGATION_UNKNOWN
    longer = bool(row.until) and (not until or until > row.until)
    return Rejection.DELEGATION_EXCEEDED if longer or since < row.since else None


def answer_requests(view: View, entry: Entry) -> None:
    """Note which requests a grant answers: those among its ``refs``."""
    patient = entry.envelope.subject
    for ref in entry.envelope.refs:
        row = REQUESTS.get(view, patient, ref)
        if row is not None:
            answer = min(row.answer or entry.id, entry.id)
            REQUESTS.put(view, msgspec.structs.replace(row, answer=answer), patient, ref)


def _check_delegate(act: Act[AccessDelegate], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    if body.until and body.until <= body.since:
        return Rejection.MALFORMED
    message = said("delegate", act.context.network, patient, body.words)
    if not body.under:
        current = patient_keys(view, patient)[-1]
        proven = is_proven(current.sign_key, body.proof, message)
        return None if proven else Rejection.PROOF_INVALID
    row = delegation_row(view, patient, body.under)
    if row is None:
        return Rejection.DELEGATION_UNKNOWN
    if body.under not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if not is_proven(row.sign_key, body.proof, message):
        return Rejection.PROOF_INVALID
    if body.depth >= row.depth:
        return Rejection.DELEGATION_EXCEEDED
    return delegation_fault(act.entry, row, body.since, body.until)


def _apply_delegate(act: Act[AccessDelegate], view: View) -> None:
    body, entry = act.body, act.entry
    patient = entry.envelope.subject
    row = DelegationRow(
        sign_key=body.sign_key,
        depth=body.depth,
        since=body.since,
        until=body.until,
        under=body.under,
    )
    DELEGATIONS.put(view, row, patient, entry.id)
    grant = GrantRow(
        grantee=box_id(body.grantee_key),
        grantee_key=body.grantee_key,
        purpose=DELEGATION_PURPOSE,
        epoch=body.epoch,
        since=body.since,
        until=body.until,
        author=entry.author,
        entry=entry.id,
        under=body.under,
        proven=True,
    )
    GRANTS.put(view, grant, patient, entry.id)


def _check_request(act: Act[AccessRequest], view: View) -> Rejection | None:
    return about_patient(act, view) or wraps_fault(act.body.wraps)


def _apply_request(act: Act[AccessRequest], view: View) -> None:
    body, entry = act.body, act.entry
    row = RequestRow(
        author=entry.author,
        requester_key=body.requester_key,
        purpose=body.purpose,
        until=body.until,
        answer=b"",
    )
    REQUESTS.put(view, row, entry.envelope.subject, entry.id)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="access.delegate",
        body=AccessDelegate,
        check=_check_delegate,
        apply=_apply_delegate,
        ordered=False,
        rules="Refused unless the patient, or the delegation it hangs on, signed it and reaches "
        "at least as long and one link deeper.",
    ),
    Kind(
        name="access.request",
        body=AccessRequest,
        check=_check_request,
        apply=_apply_request,
        ordered=False,
        rules="Refused unless the patient is registered.",
    ),
)
