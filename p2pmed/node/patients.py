"""Patients and their records, as a program sees them: plain in, sealed on the disk.

Keys and bodies are opened by ``care/opening.py``, the one gateway; who may read is changed by
``care/consent.py``. Nothing here is written in the clear; what is read is given to the caller and
not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import Grant, Purpose, readers
from p2pmed.medical.fhir import Resource, read_resource
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import (
    REGISTRATION_PURPOSE,
    PatientRegister,
    patient_row,
)
from p2pmed.medical.privacy.scopes import seal_told
from p2pmed.medical.records import (
    OpenedBody,
    Place,
    RecordAmend,
    RecordDraft,
    RecordRetract,
    record_row,
    seal_record,
)
from p2pmed.node.care.hands import Custody
from p2pmed.node.care.timeline import TimelineItem
from p2pmed.node.events import Draft
from p2pmed.node.record_drafts import part_drafts, record_drafts

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Patients", "TimelineItem"]


class Patients:
    """``node.patients``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- writing ----------------------------------------------------------------------------

    async def register(
        self,
        demographics: Any,
        *,
        catchment: str = "",
        readers: Iterable[bytes] = (),
    ) -> tuple[bytes, Receipt]:
        """Register a patient; the pseudonym (16 bytes) and the receipt.

        ``demographics`` is a typed ``Demographics`` (its ``patient`` is the new pseudonym, 16
        random bytes: ``new_pseudonym``) or the bytes of a FHIR Patient. ``readers`` are X25519
        keys of others who shall read from the start.
        """
        resource = _resource(demographics)
        if resource.type != "Patient":
            raise InvalidTransaction(f"a patient is registered by a Patient, not a {resource.type}")
        pseudonym = getattr(demographics, "patient", None) or self.new_pseudonym()
        drafts = self.registration(resource, pseudonym, catchment=catchment, readers=readers)
        receipts = await self._node.submit_drafts(drafts)
        return pseudonym, receipts[-1]

    def new_pseudonym(self) -> bytes:
        """16 random bytes for a patient to be registered."""
        return self._node.world.entropy.token(16)

    def new_ring(self, pseudonym: bytes) -> KeyRing:
        """New keys of a patient to be registered. Raises ``Locked``."""
        vault = self._node.sessions.vault
        return KeyRing.generate(pseudonym, self._node.world.entropy, keeper=vault)

    def registration(
        self,
        resource: Resource,
        pseudonym: bytes,
        *,
        catchment: str = "",
        readers: Iterable[bytes] = (),
        ring: KeyRing | None = None,
        custody: Custody | None = None,
        before: int = 0,
    ) -> list[Draft]:
        """The drafts that register a patient under a new pseudonym; the registration comes last.

        ``ring`` are the patient's new keys, if the caller needs them at once; ``custody`` the
        patient's own key (without it, this device alone holds it until a card is made);
        ``before`` says how many drafts come first in the same submission.
        """
        entropy, network = self._node.world.entropy, self._node.network
        consent = self._node.consent
        ring = ring or self.new_ring(pseudonym)
        if custody is None:
            # The device, not its facility: staff that leave must not hold patients' own keys.
            own = self._node.keys.box_public
            custody = Custody.alone(pseudonym, own, network, entropy)
        scopes = consent.first_scopes(readers)
        wraps = tuple(
            ring.only(scopes.get(key, tuple(Category))).wrap(
                key, network=network, purpose=REGISTRATION_PURPOSE
            )
            for key in (custody.secrets.patient_key, *scopes)
        )
        told = seal_told(
            scopes,
            key=ring.current(Category.CONSENT),
            network=network,
            patient=pseudonym,
            entropy=entropy,
        )
        sealed = seal_record(resource, ring=ring, place=self.place(pseudonym), entropy=entropy)
        drafts = part_drafts(sealed, pseudonym, ())
        patient_key, holding = custody.secrets.patient_key, custody.holding

        def body(ids: Sequence[bytes]) -> PatientRegister:
            return PatientRegister(
                catchment=catchment,
                patient_key=patient_key,
                wraps=wraps,
                sealed=sealed.added(ids[before : before + len(sealed.parts)]).sealed,
                told=told,
                holding=holding,
            )

        return [*drafts, Draft(body=body, subject=pseudonym)]

    async def add(self, record: Any, *, patient: bytes | None = None) -> Receipt:
        """Add a record: a typed one (which names its patient), or FHIR bytes with ``patient``.

        Raises ``InvalidTransaction`` (the field is named) or ``Denied``.
        """
        subject = patient if patient is not None else record.patient
        drafts = self.addition(_resource(record), subject)
        return (await self._node.submit_drafts(drafts))[-1]

    def addition(self, resource: Resource, patient: bytes) -> list[Draft]:
        """The drafts that add one resource to a patient's record."""
        return record_drafts(self._seal(resource, patient), patient, self.refs(patient))

    async def amend(
        self, target: bytes, record: Any, *, reason: str, answers: bytes = b""
    ) -> Receipt:
        """Put a new version in the place of record ``target`` (its transaction id).

        ``answers`` is the dispute that it settles.
        """
        patient = self._subject_of(target)
        sealed = self._seal(_resource(record), patient)
        refs = self._node.consent.refs(patient, target, answers)
        parts = part_drafts(sealed, patient, refs)

        def body(ids: Sequence[bytes]) -> RecordAmend:
            return sealed.amended(target, reason, ids[: len(sealed.parts)])

        drafts = [*parts, Draft(body=body, subject=patient, refs=refs)]
        return (await self._node.submit_drafts(drafts))[-1]

    async def retract(self, target: bytes, *, reason: str, answers: bytes = b"") -> Receipt:
        """Say that record ``target`` should not have been written; it stays, marked.

        ``answers`` is the dispute that it settles.
        """
        patient = self._subject_of(target)
        refs = self._node.consent.refs(patient, target, answers)
        body = RecordRetract(record=target, reason=reason)
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    async def grant(self, patient: bytes, reader: bytes, **terms: Any) -> Receipt:
        """Let the holder of the X25519 key ``reader`` read: ``node.consent.grant``."""
        return await self._node.consent.grant(patient, reader, **terms)

    async def revoke(self, patient: bytes, grant: bytes) -> Receipt:
        """End a grant, with new keys for all other readers: ``node.consent.revoke``."""
        return await self._node.consent.revoke(patient, grant)

    def _seal(self, resource: Resource, patient: bytes) -> RecordDraft:
        return seal_record(
            resource,
            ring=self.ring(patient),
            place=self.place(patient),
            entropy=self._node.world.entropy,
        )

    def place(self, patient: bytes, author: bytes | None = None) -> Place:
        """What a body about ``patient`` is bound to, written by this device or by ``author``."""
        return self._node.opener.place(patient, author)

    def refs(self, patient: bytes) -> tuple[bytes, ...]:
        """What whatever is written about a patient refers to: the registration, where another
        device made it.
        """
        row = patient_row(self._node.state(), patient)
        if row is None or row.author == self._node.key:
            return ()
        return (row.entry,)

    def _subject_of(self, record: bytes) -> bytes:
        row = record_row(self._node.state(), record)
        if row is None:
            raise LocalProtocolError("no such record is known here")
        return row.subject

    # --- reading ----------------------------------------------------------------------------

    def known(self) -> list[bytes]:
        """Pseudonyms of all patients registered, final or provisional."""
        from p2pmed.medical.patients import PATIENTS

        return [pseudonym for pseudonym, _ in PATIENTS.scan(self._node.state())]

    def is_known(self, patient: bytes) -> bool:
        """Whether this pseudonym is registered, final or provisional."""
        return patient_row(self._node.state(), patient) is not None

    def readers(self, patient: bytes) -> list[Grant]:
        """Grants in force."""
        return readers(self._node.state(), patient)

    def ring(self, patient: bytes) -> KeyRing:
        """The patient's keys that this device may use now. Raises ``Denied`` if there is none."""
        return self._node.opener.ring(patient)

    def entries(self, patient: bytes) -> list[Entry]:
        """Everything written about a patient that is here, by hybrid logical clock."""
        found = self._node.replica.logs.about(patient)
        return sorted(found, key=lambda entry: (entry.envelope.hlc, entry.id))

    async def timeline(self, patient: bytes, *, as_of_ms: int | None = None) -> list[TimelineItem]:
        """The patient's records in causal order, opened where this device may, and marked.

        What an import notes beside the records (types with a slash) is left out; those of
        linked pseudonyms too, as ``node.timelines.of`` can add.
        """
        return await self._node.timelines.of(patient, as_of_ms=as_of_ms)

    async def opened(
        self, entry: Entry | None, *, purpose: Purpose = Purpose.TREATMENT
    ) -> tuple[str, bytes, int | None] | None:
        """Tell of the reading, then read: as ``open``; ``None`` for ``None``."""
        if entry is None:
            return None
        async with self._node.reads.announced([entry], purpose=purpose):
            return self.open(entry)

    def open(self, entry: Entry) -> tuple[str, bytes, int | None] | None:
        """Type, bytes and time of a sealed record; ``None`` if this device cannot read it.

        Within ``node.reads.announced`` only; ``opened`` does both.
        """
        try:
            return self._open(entry, self.ring(entry.envelope.subject))
        except Denied:
            return None

    def _open(self, entry: Entry, ring: KeyRing) -> tuple[str, bytes, int | None] | None:
        try:
            opened = self._node.opener.read(entry, ring=ring)
        except (Denied, DecodeError, LocalProtocolError):
            return None
        return (opened.type, opened.resource, opened.occurred_ms) if opened else None

    def read(self, entry: Entry) -> OpenedBody | None:
        """What a record says; ``None`` if the transaction is no record: ``Opener.read``."""
        return self._node.opener.read(entry, ring=self.ring(entry.envelope.subject))

    def forget_keys(self) -> None:
        """Drop every open key: the session is over."""
        self._node.opener.forget()


def _resource(record: Any) -> Resource:
    raw = record if isinstance(record, bytes) else record.to_fhir()
    return read_resource(raw)
