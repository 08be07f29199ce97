"""Patients and their records, as a program sees them: plain in, sealed on the disk.

Keys: a patient's key ring is opened from whatever was wrapped to this device (a registration, a
grant, a new epoch) with its X25519 key, and kept in a bounded cache. Nothing here is written in
the clear; what is read is given to the caller and not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError
from p2pmed.identity.sealing import box_id
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import (
    EPOCH_PURPOSE,
    AccessGrant,
    AccessRevoke,
    Grant,
    Purpose,
    current_epoch,
    readers,
)
from p2pmed.medical.fhir import Resource, read_resource
from p2pmed.medical.keyring import EVERY_CATEGORY, Category, KeyCache, KeyRing
from p2pmed.medical.patients import (
    REGISTRATION_PURPOSE,
    PatientRegister,
    patient_row,
)
from p2pmed.medical.records import (
    OpenedBody,
    Part,
    Place,
    RecordAdd,
    RecordAmend,
    RecordDraft,
    RecordRetract,
    open_record,
    record_row,
    seal_record,
)
from p2pmed.node.events import Draft
from p2pmed.node.record_drafts import part_drafts, record_drafts, wraps_for

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Patients", "TimelineItem"]

LOOKED_MAX: Final = 4_096
ENTRIES_A_SLICE: Final = 64
"""Records opened before other tasks get their turn: some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TimelineItem:
    """One record of a patient, opened."""

    id: bytes
    kind: str
    """FHIR resource type; empty if this device may not read it."""
    resource: bytes | None
    """The FHIR JSON as it came in; ``None`` if this device may not read it."""
    occurred_ms: int | None
    recorded_ms: int
    author: bytes
    final: bool
    retracted: bool
    superseded: bool


class Patients:
    """``node.patients``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._cache = KeyCache()
        self._looked: dict[bytes, int] = {}
        """How much was stored when a patient's wrapped keys were last looked for."""

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

    def registration(
        self,
        resource: Resource,
        pseudonym: bytes,
        *,
        catchment: str = "",
        readers: Iterable[bytes] = (),
        ring: KeyRing | None = None,
        before: int = 0,
    ) -> list[Draft]:
        """The drafts that register a patient under a new pseudonym.

        ``ring`` are the patient's new keys, if the caller needs them at once; ``before`` says
        how many drafts come first in the same submission.
        """
        entropy = self._node.world.entropy
        ring = ring or KeyRing.generate(pseudonym, entropy)
        secret = entropy.token(32)
        patient_key = self._node.box_public_of(secret)
        own = self._node.keys.box_public
        grantees = dict.fromkeys((own, patient_key, *readers))
        wraps = tuple(
            ring.wrap(key, network=self._node.network, purpose=REGISTRATION_PURPOSE)
            for key in grantees
        )
        sealed = seal_record(resource, ring=ring, place=self.place(pseudonym), entropy=entropy)
        self._cache.add(ring)
        drafts = part_drafts(sealed, pseudonym, ())

        def body(ids: Sequence[bytes]) -> PatientRegister:
            return PatientRegister(
                catchment=catchment,
                patient_key=patient_key,
                wraps=wraps,
                sealed=sealed.added(ids[before : before + len(sealed.parts)]).sealed,
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

    async def amend(self, target: bytes, record: Any, *, reason: str) -> Receipt:
        """Put a new version in the place of record ``target`` (its transaction id)."""
        patient = self._subject_of(target)
        sealed = self._seal(_resource(record), patient)
        refs = tuple(dict.fromkeys((*self.refs(patient), target)))
        parts = part_drafts(sealed, patient, refs)

        def body(ids: Sequence[bytes]) -> RecordAmend:
            return sealed.amended(target, reason, ids[: len(sealed.parts)])

        drafts = [*parts, Draft(body=body, subject=patient, refs=refs)]
        return (await self._node.submit_drafts(drafts))[-1]

    async def retract(self, target: bytes, *, reason: str) -> Receipt:
        """Say that record ``target`` should not have been written; it stays, marked."""
        patient = self._subject_of(target)
        refs = tuple(dict.fromkeys((*self.refs(patient), target)))
        body = RecordRetract(record=target, reason=reason)
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    async def grant(
        self,
        patient: bytes,
        reader: bytes,
        *,
        categories: Iterable[Category] = EVERY_CATEGORY,
        purpose: Purpose = Purpose.TREATMENT,
        since_ms: int = 0,
        until_ms: int = 0,
    ) -> Receipt:
        """Let the holder of the X25519 key ``reader`` read ``categories``."""
        ring = self.ring(patient).only(categories)
        wrapped = ring.wrap(reader, network=self._node.network, purpose=purpose.value)
        body = AccessGrant(
            grantee_key=reader,
            purpose=purpose.value,
            epoch=ring.epoch,
            since=since_ms,
            until=until_ms,
            wrapped=wrapped.wrapped,
        )
        draft = Draft(body=body, subject=patient, refs=self.refs(patient))
        return (await self._node.submit_drafts([draft]))[-1]

    async def revoke(self, patient: bytes, grant: bytes) -> Receipt:
        """End a grant: a new epoch of keys, wrapped to all other readers and the patient."""
        state = self._node.state()
        ring = self.ring(patient)
        row = patient_row(state, patient)
        found = next((g for g in readers(state, patient) if g.id == grant), None)
        if row is None or found is None:
            raise LocalProtocolError("no such grant in force", hint="see `patient readers`")
        epoch = max(current_epoch(state, patient), ring.epoch) + 1
        fresh = KeyRing.generate(patient, self._node.world.entropy, epoch=epoch)
        keys = {box_id(self._node.keys.box_public): self._node.keys.box_public}
        for other in readers(state, patient):
            if other.id != grant and other.row.grantee_key:
                keys[other.row.grantee] = other.row.grantee_key
        keys.pop(found.row.grantee, None)
        keys[box_id(row.patient_key)] = row.patient_key
        wraps = tuple(
            fresh.wrap(keys[name], network=self._node.network, purpose=EPOCH_PURPOSE)
            for name in sorted(keys)
        )
        refs = tuple(dict.fromkeys((*self.refs(patient), found.row.entry)))
        body = AccessRevoke(grant=grant, epoch=epoch, wraps=wraps)
        self._cache.add(fresh)
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    def _seal(self, resource: Resource, patient: bytes) -> RecordDraft:
        return seal_record(
            resource,
            ring=self.ring(patient),
            place=self.place(patient),
            entropy=self._node.world.entropy,
        )

    def place(self, patient: bytes, author: bytes | None = None) -> Place:
        """What a body about ``patient`` is bound to, written by this device or by ``author``."""
        return Place(network=self._node.network, patient=patient, author=author or self._node.key)

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
        """The patient's keys that this device holds. Raises ``Denied`` if it holds none."""
        ring = self._cache.get(patient) or self._registered_ring(patient)
        wanted = current_epoch(self._node.state(), patient)
        if ring is None or ring.epoch < wanted:
            ring = self._look_again(patient) or ring
        if ring is None or not len(ring):
            raise Denied(
                "this device holds no key of that patient",
                hint="ask the patient for a grant",
            )
        return ring

    def _look_again(self, patient: bytes) -> KeyRing | None:
        """Open what was wrapped to this device, unless nothing came since it was last done."""
        stored = sum(lane.next_seq for lane in self._node.replica.logs)
        if self._looked.get(patient) == stored:
            return None
        if len(self._looked) >= LOOKED_MAX:
            self._looked.clear()
        self._looked[patient] = stored
        return self._open_ring(patient)

    def _registered_ring(self, patient: bytes) -> KeyRing | None:
        """The keys of the registration alone: where a long life need not be walked for them."""
        row = patient_row(self._node.state(), patient)
        entry = self._node.find(row.entry) if row else None
        return self._unwrap(patient, [entry] if entry else [])

    def _open_ring(self, patient: bytes) -> KeyRing | None:
        return self._unwrap(patient, self.entries(patient))

    def _unwrap(self, patient: bytes, entries: Iterable[Entry]) -> KeyRing | None:
        """All keys in ``entries`` that are wrapped to this device."""
        own = box_id(self._node.keys.box_public)
        ring: KeyRing | None = None
        for entry in entries:
            for wrapped, purpose in wraps_for(self._node.body(entry), own):
                # Anybody may write a grant: one that does not open takes nothing away.
                with contextlib.suppress(Denied, DecodeError, InvalidTransaction):
                    opened = KeyRing.open(
                        wrapped,
                        self._node.keys.box_secret,
                        patient=patient,
                        network=self._node.network,
                        purpose=purpose,
                    )
                    ring = self._cache.add(opened)
        return ring

    def entries(self, patient: bytes) -> list[Entry]:
        """Everything written about a patient that is here, by hybrid logical clock."""
        found = self._node.replica.logs.about(patient)
        return sorted(found, key=lambda entry: (entry.envelope.hlc, entry.id))

    async def timeline(self, patient: bytes, *, as_of_ms: int | None = None) -> list[TimelineItem]:
        """The patient's records in causal order, opened where this device may.

        What an import notes beside the records (types with a slash) is left out.
        """
        await self._node.catch_up()
        state = self._node.state()
        items = []
        for number, entry in enumerate(self.entries(patient)):
            if number % ENTRIES_A_SLICE == 0:
                await asyncio.sleep(0)  # a long life must not hold the loop
            body = self._node.body(entry)
            if not isinstance(body, PatientRegister | RecordAdd | RecordAmend):
                continue
            recorded = entry.envelope.hlc >> 16
            if as_of_ms is not None and recorded > as_of_ms:
                continue
            row = record_row(state, entry.id)
            kind, resource, occurred = self.open(entry) or ("", None, None)
            if "/" in kind:
                continue
            items.append(
                TimelineItem(
                    id=entry.id,
                    kind=kind,
                    resource=resource,
                    occurred_ms=occurred,
                    recorded_ms=recorded,
                    author=entry.author,
                    final=self._node.final_place(entry) is not None,
                    retracted=bool(row and row.retracted),
                    superseded=bool(row and row.superseded_by),
                )
            )
        return items

    def open(self, entry: Entry) -> tuple[str, bytes, int | None] | None:
        """Type, bytes and time of a sealed record; ``None`` if this device cannot read it."""
        try:
            opened = self.read(entry)
        except (Denied, DecodeError, LocalProtocolError):
            return None
        return (opened.type, opened.resource, opened.occurred_ms) if opened else None

    def read(self, entry: Entry) -> OpenedBody | None:
        """What a record says; ``None`` if the transaction is no record.

        Raises ``Denied`` (no key), ``LocalProtocolError`` (a part is not here yet) or
        ``DecodeError`` (its author wrote what does not open).
        """
        body = self._node.body(entry)
        if not isinstance(body, PatientRegister | RecordAdd | RecordAmend):
            return None
        patient = entry.envelope.subject
        place = self.place(patient, entry.author)
        parts = self._parts(body.sealed.parts)
        try:
            return open_record(body.sealed, ring=self.ring(patient), place=place, parts=parts)
        except Denied:
            ring = self._look_again(patient)  # a grant may have come since
            if ring is None:
                raise
            return open_record(body.sealed, ring=ring, place=place, parts=parts)

    def _parts(self, ids: Sequence[bytes]) -> list[Part]:
        parts = []
        for part_id in ids:
            entry = self._node.replica.logs.find(part_id)
            body = self._node.body(entry) if entry else None
            if not isinstance(body, Part):
                raise LocalProtocolError("a part of this record is not here yet")
            parts.append(body)
        return parts

    def forget_keys(self) -> None:
        """Drop every open key: the session is over."""
        self._cache.lock()
        self._looked.clear()


def _resource(record: Any) -> Resource:
    raw = record if isinstance(record, bytes) else record.to_fhir()
    return read_resource(raw)
