"""Breaking the glass on a node: opened by two at the desk, over in hours, looked at afterwards.

Rule of this file: the order is the promise. The opening is on this disk before any share of the
emergency key is used, and each reading is announced like any other (``reads.py``), under the
opening and the purpose ETREAT. What was opened is kept nowhere: it ends with its time, with
``close``, with the session. Afterwards the patient's keys turn, by whoever manages them.
Implements ``docs/protocols/emergency.md``. ``node.emergency``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from p2pmed.errors import Denied, InvalidTransaction, LocalProtocolError, P2pmedError
from p2pmed.identity import sealing
from p2pmed.identity.joint import JointSecret, deal
from p2pmed.identity.joint import partial as give_partial
from p2pmed.identity.persons import PersonKeys
from p2pmed.medical.consent import EPOCH_KEYS, Purpose, readers
from p2pmed.medical.keyring import EVERY_CATEGORY, Category
from p2pmed.medical.patients import PATIENTS
from p2pmed.medical.privacy.emergency import (
    EMERGENCIES,
    EMERGENCY_MS_MAX,
    REVIEW_MS,
    THRESHOLD,
    EmergencyClose,
    EmergencyKey,
    EmergencyOpen,
    EmergencyReview,
    EmergencyRow,
    Finding,
    Holder,
    Reason,
    current_emergency_key,
    emergency_keys,
    emergency_of,
    emergency_row,
    open_digest,
    review_digest,
)
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Emergency", "EmergencyEvent"]

DOMAIN: Final = "emergency"
DEFAULT_MS: Final = 3_600_000
UNKNOWN_PATIENT: Final = {"resourceType": "Patient", "active": True}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EmergencyEvent:
    """One opening, as the ledger knows it."""

    opening: bytes
    patient: bytes
    row: EmergencyRow

    def is_overdue(self, now_ms: int) -> bool:
        """Whether nobody has reviewed it in time: for the supervisor."""
        return not self.row.review and now_ms >= self.row.opened + REVIEW_MS

    def to_fhir(self) -> bytes:
        """An AuditEvent: DICOM's 110113 and 110127, and the purpose ETREAT of HL7."""
        dicom = "http://dicom.nema.org/resources/ontology/DCM"
        acts = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
        moment = datetime.fromtimestamp(self.row.opened / 1_000, UTC).isoformat()
        people = [self.row.first, self.row.second]
        event = {
            "resourceType": "AuditEvent",
            "type": {"system": dicom, "code": "110113", "display": "Security Alert"},
            "subtype": [
                {"system": dicom, "code": "110127", "display": "Emergency Override Started"}
            ],
            "action": "R",
            "recorded": moment,
            "purposeOfEvent": [
                {
                    "coding": [{"system": acts, "code": "ETREAT"}],
                    "text": self.row.reason.value,
                }
            ],
            "agent": [
                {"who": {"identifier": {"value": person.hex()}}, "requestor": number == 0}
                for number, person in enumerate(people)
            ],
            "source": {"observer": {"identifier": {"value": self.row.author.hex()}}},
            "entity": [{"what": {"identifier": {"value": self.patient.hex()}}}],
        }
        return json.dumps(event, separators=(",", ":")).encode()


class Emergency:
    """``node.emergency``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- the facility's key -----------------------------------------------------------------

    async def publish(self, staff: Mapping[bytes, bytes], *, threshold: int = THRESHOLD) -> Receipt:
        """A new emergency key of this place, whose shares ``staff`` hold.

        ``staff`` are people's keys (32 bytes) and their X25519 keys (``PersonKeys.box_public``).
        Patients registered from now on are wrapped to it; for others see ``admit``. Raises
        ``InvalidTransaction`` for fewer people than ``threshold``, ``LocalProtocolError`` if this
        device belongs to no place.
        """
        place = self._node.consent.facility.place
        rows = emergency_keys(self._node.state(), place)
        epoch = rows[-1].epoch + 1 if rows else 0
        public, shares = deal(
            threshold=threshold, count=len(staff), entropy=self._node.world.entropy
        )
        holders = tuple(
            Holder(
                point=point,
                person=person,
                grantee=sealing.box_id(staff[person]),
                wrapped=sealing.wrap(
                    staff[person], share, domain=DOMAIN, context=self._context(public, point)
                ),
            )
            for point, (person, share) in enumerate(zip(sorted(staff), shares, strict=True), 1)
        )
        body = EmergencyKey(epoch=epoch, public=public, threshold=threshold, holders=holders)
        return (await self._node.submit_drafts([Draft(body=body)]))[-1]

    def _context(self, public: bytes, point: int) -> list[bytes | str]:
        return [self._node.network, public, bytes([point])]

    async def admit(self, patient: bytes, *, excluded: Iterable[Category] = ()) -> Receipt:
        """Wrap a patient's keys to this place's current emergency key, but for ``excluded``.

        For who was registered before there was one, and for a patient who wishes to exclude
        categories, or others: what stood before is ended. Raises ``LocalProtocolError`` if the
        place has no emergency key, ``Denied`` if this device holds no keys to wrap.
        """
        state = self._node.state()
        key = current_emergency_key(state, self._node.consent.facility.place)
        if key is None:
            raise LocalProtocolError(
                "this place has no emergency key", hint="`p2pmed emergency key` makes one"
            )
        for grant in readers(state, patient):
            if emergency_of(state, grant.row.grantee) == self._node.consent.facility.place:
                await self._node.consent.revoke(patient, grant.id)
        kept = [each for each in EVERY_CATEGORY if each not in frozenset(excluded)]
        if not kept:
            raise InvalidTransaction("nothing would be left to open in an emergency")
        return await self._node.consent.grant(
            patient, key, categories=kept, purpose=Purpose.EMERGENCY
        )

    async def register_unknown(self, *, gender: str = "unknown") -> tuple[bytes, Receipt]:
        """Register somebody whose name nobody knows; ``node.linking.link`` joins the records
        when somebody does.
        """
        resource = json.dumps({**UNKNOWN_PATIENT, "gender": gender}).encode()
        return await self._node.patients.register(resource)

    # --- opening ------------------------------------------------------------------------------

    async def open(
        self,
        patient: bytes,
        staff: Sequence[PersonKeys],
        *,
        reason: Reason,
        categories: Iterable[Category] = EVERY_CATEGORY,
        for_ms: int = DEFAULT_MS,
    ) -> EmergencyEvent:
        """Open a patient's record for at most four hours, on two people's word.

        On return the opening is on this disk and the record opens here (``node.patients``), each
        reading announced. Raises ``InvalidTransaction`` for another number of people or a longer
        time, ``Denied`` if a rule says no (the same person twice, not qualified) or they hold no
        shares that open this patient's keys.
        """
        if len(staff) != THRESHOLD or not 0 < for_ms <= EMERGENCY_MS_MAX:
            raise InvalidTransaction("two people, and at most four hours")
        await self._node.catch_up()
        keys = self._joint(staff)
        wanted = tuple(each for each in Category if each in frozenset(categories))
        until = self._node.opener.now_ms() + for_ms
        message = open_digest(patient, self._node.key, reason, wanted, until)
        words = [
            person.countersign(self._node.network, "emergency.open", message) for person in staff
        ]
        body = EmergencyOpen(
            reason=reason, categories=wanted, until=until, first=words[0], second=words[1]
        )
        refs = self._node.consent.refs(patient)
        draft = Draft(body=body, subject=patient, refs=refs, actor=staff[0].person)
        receipt = (await self._node.submit_drafts([draft]))[-1]  # durable before any share is used
        verdict = receipt.verdict
        row = emergency_row(self._node.state(), patient, receipt.id)
        if not verdict.applied or row is None:
            raise Denied(f"the emergency is refused: {verdict.code}", hint="it stays on record")
        self._node.opener.glass.smash(patient, receipt.id, keys)
        self._node.opener.ring(patient)  # or it says why nothing opens
        return EmergencyEvent(opening=receipt.id, patient=patient, row=row)

    def _joint(self, staff: Sequence[PersonKeys]) -> dict[bytes, JointSecret]:
        """This place's emergency keys, every epoch's that ``staff`` hold shares of together."""
        own = {sealing.box_id(person.box_public): person for person in staff}
        found: dict[bytes, JointSecret] = {}
        for key in emergency_keys(self._node.state(), self._node.consent.facility.place):
            entry = self._node.find(key.entry)
            body = self._node.body(entry) if entry else None
            if not isinstance(body, EmergencyKey):
                continue
            held = [holder for holder in body.holders if holder.grantee in own]
            if len(held) < body.threshold:
                continue
            shares = {holder.point: self._share(body, holder, own) for holder in held}
            holders = {point: partial(give_partial, share) for point, share in shares.items()}
            found[sealing.box_id(key.public)] = JointSecret(key.public, holders)
        if not found:
            raise Denied(
                "these people hold no two shares of this place's emergency key",
                hint="see `p2pmed emergency list`; the key's holders are named when it is made",
            )
        return found

    def _share(self, body: EmergencyKey, holder: Holder, own: Mapping[bytes, PersonKeys]) -> bytes:
        return sealing.unwrap(
            own[holder.grantee].box_secret,
            holder.wrapped,
            domain=DOMAIN,
            context=self._context(body.public, holder.point),
        )

    # --- afterwards ---------------------------------------------------------------------------

    async def close(self, opening: bytes) -> Receipt:
        """End an emergency before its time; the patient's keys turn at once if this device
        manages them. Raises ``LocalProtocolError`` if no such opening is here.
        """
        event = self.find(opening)
        self._node.opener.glass.mend(event.patient, opening)
        refs = self._node.consent.refs(event.patient, opening)
        draft = Draft(body=EmergencyClose(opening=opening), subject=event.patient, refs=refs)
        receipt = (await self._node.submit_drafts([draft]))[-1]
        await self.turn_keys(event.patient)
        return receipt

    async def review(self, opening: bytes, finding: Finding, reviewer: PersonKeys) -> Receipt:
        """What somebody found who was not involved; refused if that person opened it.

        Raises ``LocalProtocolError`` if no such opening is here.
        """
        event = self.find(opening)
        message = review_digest(event.patient, opening, finding)
        word = reviewer.countersign(self._node.network, "emergency.review", message)
        body = EmergencyReview(opening=opening, finding=finding, word=word)
        refs = self._node.consent.refs(event.patient, opening)
        draft = Draft(body=body, subject=event.patient, refs=refs, actor=reviewer.person)
        return (await self._node.submit_drafts([draft]))[-1]

    def find(self, opening: bytes) -> EmergencyEvent:
        """The opening with this id. Raises ``LocalProtocolError`` if it is not here."""
        for event in self.known():
            if event.opening == opening:
                return event
        raise LocalProtocolError("no such emergency is known here", hint="see `emergency list`")

    def known(self, patient: bytes = b"") -> list[EmergencyEvent]:
        """Every opening, or one patient's, the newest first: shown with the patient's card."""
        rows = EMERGENCIES.scan(self._node.state(), patient)
        named = [((patient + rest)[:16], (patient + rest)[16:], row) for rest, row in rows]
        found = [EmergencyEvent(opening=name, patient=who, row=row) for who, name, row in named]
        return sorted(found, key=lambda event: (-event.row.opened, event.opening))

    def overdue(self) -> list[EmergencyEvent]:
        """Openings that nobody reviewed within 72 hours: the supervisor's list."""
        now = self._node.opener.now_ms()
        return [event for event in self.known() if event.is_overdue(now)]

    def due(self) -> list[bytes]:
        """Patients whose record was opened, is closed again, and whose keys have not turned."""
        state, now, found = self._node.state(), self._node.opener.now_ms(), {}
        for event in self.known():
            if not event.row.is_open(now) and not self._turned_since(event):
                found[event.patient] = PATIENTS.get(state, event.patient) is not None
        return [patient for patient, known in found.items() if known]

    def _turned_since(self, event: EmergencyEvent) -> bool:
        for name, row in EPOCH_KEYS.scan(self._node.state(), event.patient):
            entry = self._node.find(name)
            if row.epoch and entry is not None and entry.envelope.hlc >> 16 >= event.row.opened:
                return True
        return False

    async def turn_keys(self, patient: bytes) -> Receipt | None:
        """A new epoch for a patient whose record was opened; ``None`` if it is not due, or this
        device does not manage the patient's consent: who does will do it on contact.
        """
        if patient not in self.due():
            return None
        try:
            return await self._node.consent.rotate(patient, reason="emergency")
        except Denied:
            return None

    async def keep(self) -> None:
        """Whenever news came, turn what is due and this device manages; runs until the node
        closes. May be cancelled at any time.
        """
        while True:
            heard = self._node.heard
            for patient in self.due():
                # A full disk, a locked session: the next news is another chance.
                with contextlib.suppress(P2pmedError):
                    await self.turn_keys(patient)
            if not await self._node.news(heard):
                return
