"""A new generation of a patient's key, and how custodians give it back when a card is lost.

The flow, over transactions, between two nodes that need not meet: ``card.request`` names the
custody and a key to send shares to; each custodian answers with ``card.release``, its share
wrapped to that key, on the word of a *person* (a countersignature); who asked joins the shares,
opens the vault, and writes ``patient.rekey``, which the *old* key signs: nobody but who really
had enough shares, or a card, can write it. Implements ``docs/protocols/card.md``, clauses 10
to 14.

Rule of this file: all is mergeable. Two re-issues on both sides of a cut make two keys of one
generation; which is current is decided by rank and name, alike everywhere
(``patients.patient_keys``), and what custodians released outranks what a card made, so that who
found a card cannot keep its owner out.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import CredentialError
from p2pmed.identity.persons import Countersignature, check_countersignature
from p2pmed.identity.sealing import WRAP_BYTES
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.patients import (
    PATIENT_KEYS,
    PatientKeyRow,
    about_patient,
    key_fault,
)
from p2pmed.medical.privacy.holding import CUSTODIANS_MAX, SHARE_BYTES, Holding
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "CARDS_RENEWED_MAX",
    "KINDS",
    "RELEASE_PURPOSE",
    "CardRelease",
    "CardRequest",
    "CardRequestRow",
    "MasterWrap",
    "PatientRekey",
    "ReleaseRow",
    "card_request_row",
    "card_requests",
    "release_digest",
    "releases",
]

CARDS_RENEWED_MAX: Final = 16
RELEASES_MIN: Final = 2
"""Shares, and people who answer for them."""
RELEASE_PURPOSE: Final = "card.release"
MASTER_WRAP_BYTES: Final = WRAP_BYTES + 32


class MasterWrap(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A new master for a card that stays good."""

    card: Bytes16
    wrapped: Annotated[
        bytes, msgspec.Meta(min_length=MASTER_WRAP_BYTES, max_length=MASTER_WRAP_BYTES)
    ]


class PatientRekey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``patient.rekey``: a new generation of the patient's key."""

    patient_key: Bytes32
    holding: Holding
    before: Bytes32
    """The transaction that made the generation before: a registration or a rekey."""
    request: OptionalId
    """The ``card.request`` that custodians answered, or empty: made with a card."""
    cards: Annotated[tuple[MasterWrap, ...], msgspec.Meta(max_length=CARDS_RENEWED_MAX)]
    proof: Proof
    """By the signing key of the generation before."""

    @property
    def words(self) -> list[Any]:
        """What is signed: all but the signature."""
        return [
            self.patient_key,
            digest("holding", codec.encode(self.holding)),
            self.before,
            self.request,
        ]


class CardRequest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``card.request``: a card is lost; custodians are asked for their shares."""

    custody: Bytes32
    """The transaction whose holding the shares are of."""
    requester_key: Bytes32
    """X25519 public key that shares shall be wrapped to."""
    reason: Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]


class CardRelease(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``card.release``: one custodian's share, wrapped to who asked, on a person's word."""

    request: Bytes32
    point: Annotated[int, msgspec.Meta(ge=1, le=CUSTODIANS_MAX)]
    wrapped: Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
    word: Countersignature
    """Of the person who saw the patient, over ``release_digest``."""


class CardRequestRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a request."""

    author: Bytes32
    custody: Bytes32
    requester_key: Bytes32


class ReleaseRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one released share: of two of one point, the smaller id."""

    author: Bytes32
    entry: Bytes32
    person: Bytes32


CARD_REQUESTS: Final = Table("card_request", CardRequestRow)
RELEASES: Final = Table("card_release", ReleaseRow)


def release_digest(patient: bytes, request: bytes, point: int, wrapped: bytes) -> bytes:
    """What the releasing person signs (32 bytes)."""
    return digest("card.release", cbor.encode([patient, request, point, wrapped]))


def card_request_row(view: Readable, patient: bytes, request: bytes) -> CardRequestRow | None:
    """The request of ``patient`` with this id, or ``None``."""
    return CARD_REQUESTS.get(view, patient, request)


def card_requests(view: Readable, patient: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Pseudonym and id of every request, or of one patient's."""
    if patient:
        return [(patient, name) for name, _ in CARD_REQUESTS.scan(view, patient)]
    return [(name[:16], name[16:]) for name, _ in CARD_REQUESTS.scan(view)]


def releases(view: Readable, request: bytes) -> dict[int, ReleaseRow]:
    """The released shares of a request by their point."""
    return {name[0]: row for name, row in RELEASES.scan(view, request)}


def _check_rekey(act: Act[PatientRekey], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    before = key_fault(act, view, body.before)
    if isinstance(before, Rejection):
        return before
    generation, old = before
    holding = body.holding
    if holding.generation != generation + 1 or not holding.sound or not holding.shares:
        return Rejection.MALFORMED
    message = said("rekey", act.context.network, patient, body.words)
    if not is_proven(old.sign_key, body.proof, message):
        return Rejection.PROOF_INVALID
    return _release_fault(act, view) if body.request else None


def _release_fault(act: Act[PatientRekey], view: View) -> Rejection | None:
    """That it was released is claimed; two custodians' words must be among the ``refs``."""
    body, refs = act.body, act.entry.envelope.refs
    row = card_request_row(view, act.entry.envelope.subject, body.request)
    if row is None or row.custody != body.before:
        return Rejection.CUSTODY_UNKNOWN
    given = [found for found in releases(view, body.request).values() if found.entry in refs]
    people = {found.person for found in given}
    enough = body.request in refs and len(people) >= RELEASES_MIN
    return None if enough else Rejection.REFERENCE_MISSING


def _apply_rekey(act: Act[PatientRekey], view: View) -> None:
    body, entry = act.body, act.entry
    row = PatientKeyRow(
        patient_key=body.patient_key,
        sign_key=body.holding.sign_key,
        author=entry.author,
        entry=entry.id,
        released=bool(body.request),
    )
    generation = bytes([body.holding.generation])
    PATIENT_KEYS.put(view, row, entry.envelope.subject, generation, entry.id)


def _check_request(act: Act[CardRequest], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    found = key_fault(act, view, act.body.custody)
    return found if isinstance(found, Rejection) else None


def _apply_request(act: Act[CardRequest], view: View) -> None:
    row = CardRequestRow(
        author=act.entry.author,
        custody=act.body.custody,
        requester_key=act.body.requester_key,
    )
    CARD_REQUESTS.put(view, row, act.entry.envelope.subject, act.entry.id)


def _check_release(act: Act[CardRelease], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    if card_request_row(view, patient, body.request) is None:
        return Rejection.CUSTODY_UNKNOWN
    if body.request not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    message = release_digest(patient, body.request, body.point, body.wrapped)
    try:
        check_countersignature(body.word, act.context.network, RELEASE_PURPOSE, message)
    except CredentialError:
        return Rejection.PROOF_INVALID
    return None


def _apply_release(act: Act[CardRelease], view: View) -> None:
    body, entry = act.body, act.entry
    held = releases(view, body.request).get(body.point)
    if held is not None and held.entry < entry.id:
        return
    row = ReleaseRow(author=entry.author, entry=entry.id, person=body.word.signer)
    RELEASES.put(view, row, body.request, bytes([body.point]))


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="patient.rekey",
        body=PatientRekey,
        check=_check_rekey,
        apply=_apply_rekey,
        ordered=False,
        rules="Refused unless the key of the generation before signed it; where it claims that "
        "custodians released it, two of them, on two people's word, are among what it refers to.",
    ),
    Kind(
        name="card.request",
        body=CardRequest,
        check=_check_request,
        apply=_apply_request,
        ordered=False,
        rules="Refused unless it names a custody of the patient's key.",
    ),
    Kind(
        name="card.release",
        body=CardRelease,
        check=_check_release,
        apply=_apply_release,
        ordered=False,
        rules="Refused unless it answers a request of the patient and a person signed it.",
    ),
)
