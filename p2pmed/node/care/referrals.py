"""Sending a patient to another facility, and having the results back. ``node.referrals``.

Rule of this file: the receiver reads what was referred, and nothing else: single records by their
own keys, categories by a grant that ends with the referral. Results come back under the
referral's key, which the village holds too. Implements medical notes, section 1 row 13, and
``docs/protocols/care.md``, sections 3 and 4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.case_keys import (
    CaseKeys,
    RecordKey,
    new_case_key,
    open_lent,
    record_key,
    wrap_case,
)
from p2pmed.medical.care.exams import DEFAULT_DAYS, WINDOW_DAYS, Examined, Warned, warnings
from p2pmed.medical.care.referrals import (
    LETTER_TYPE,
    REFERRAL_PURPOSE,
    REFERRALS,
    RESULTS,
    Letter,
    ReferralAccept,
    ReferralClose,
    ReferralRow,
    ReferralSend,
    ResultReturn,
    Urgency,
    referral_row,
)
from p2pmed.medical.consent import grants
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.fields import check_body
from p2pmed.medical.keyring import Category
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.records import RecordAdd, RecordAmend
from p2pmed.node.care.islands import Islands, facility_parties, refuse_closed, sealed_drafts
from p2pmed.node.events import Draft
from p2pmed.wire import codec

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Referral", "Referrals", "Result", "Sent"]

LETTER_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sent:
    """A referral that was written, and what its sender should know."""

    receipt: Receipt
    warnings: tuple[Warned, ...]
    """Examinations asked for whose result exists: ``exam.duplicate``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Referral:
    """One referral, as the ledger shows it to everybody."""

    id: bytes
    patient: bytes
    row: ReferralRow
    results: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Result:
    """A FHIR resource: one that was referred, or one that came back."""

    id: bytes
    author: bytes
    resource: bytes
    kind: str
    occurred_ms: int | None


class Referrals:
    """``node.referrals``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._island = Islands(node, REFERRAL_PURPOSE)
        self.windows: Mapping[str, int] = WINDOW_DAYS
        """Days in which an examination (LOINC) needs no other one; put your own in its place."""
        self.default_days = DEFAULT_DAYS

    # --- sending ----------------------------------------------------------------------------

    async def send(
        self,
        patient: bytes,
        to: str,
        *,
        reason: str,
        text: str = "",
        records: Iterable[bytes] = (),
        categories: Iterable[Category] = (),
        orders: Iterable[str] = (),
        urgency: Urgency = Urgency.ROUTINE,
        until_ms: int = 0,
        actor: bytes = b"",
    ) -> Sent:
        """Refer ``patient`` to the facility at the place ``to``.

        ``records`` (transaction ids) go along one by one, ``categories`` whole, by a grant until
        ``until_ms`` (0: until the referral is closed). ``orders`` are LOINC codes asked for.
        Raises ``LocalProtocolError`` (nobody of that place, or no such record, is known here),
        ``Denied`` (this device cannot open what it would hand over), ``InvalidTransaction``.
        """
        node, chosen = self._node, tuple(dict.fromkeys(categories))
        asked = tuple(dict.fromkeys(orders))
        found = await self.duplicates(patient, asked)
        parties = facility_parties(node, to)
        lent = self._record_keys(patient, records)
        letter = Letter(
            reason=reason,
            text=text,
            records=tuple(key.record for key in lent),
            categories=chosen,
            orders=asked,
        )
        check_body(letter)
        case = CaseKeys(key=new_case_key(node.world.entropy), records=lent)
        wraps = wrap_case(
            case,
            [*parties, *self._island.own_parties(patient)],
            network=node.network,
            patient=patient,
            purpose=REFERRAL_PURPOSE,
        )
        given = [
            node.consent.grant_draft(patient, key, categories=chosen, period=(0, until_ms))
            for key in (parties if chosen else ())
        ]
        drafts = sealed_drafts(
            self._island.seal(
                codec.encode(letter), kind=LETTER_TYPE, key=case.key, patient=patient
            ),
            lambda sealed: ReferralSend(
                to=to, urgency=urgency, until=until_ms, wraps=wraps, sealed=sealed
            ),
            patient=patient,
            refs=node.patients.refs(patient),
            before=len(given),
            actor=actor,
        )
        receipt = (await node.submit_drafts([*given, *drafts]))[-1]
        return Sent(receipt=receipt, warnings=tuple(found))

    def _record_keys(self, patient: bytes, records: Iterable[bytes]) -> tuple[RecordKey, ...]:
        ring = self._node.opener.ring(patient)
        found = []
        for name in dict.fromkeys(records):
            entry = self._node.find(name)
            body = self._node.body(entry) if entry else None
            if not isinstance(body, PatientRegister | RecordAdd | RecordAmend):
                raise LocalProtocolError("no such record is here")
            if entry is None or entry.envelope.subject != patient:
                raise LocalProtocolError("a record of another patient")
            found.append(record_key(name, body.sealed, ring.find(body.sealed.key_id)))
        return tuple(found)

    async def duplicates(self, patient: bytes, orders: Iterable[str]) -> list[Warned]:
        """Of the examinations ``orders`` (LOINC), those with a result that this device may open.

        Results that came back by a referral count like records. Reading is announced as any.
        """
        wanted = list(orders)
        if not wanted:
            return []
        results = [
            Examined(record=each.id, resource=each.resource, occurred_ms=each.occurred_ms)
            for each in await self._node.patients.timeline(patient)
            if each.resource is not None and not each.retracted and not each.superseded
        ]
        results += [
            Examined(record=each.id, resource=each.resource, occurred_ms=each.occurred_ms)
            for each in await self.results(patient)
        ]
        return warnings(
            wanted,
            results,
            now_ms=self._node.opener.now_ms(),
            windows=self.windows,
            default_days=self.default_days,
        )

    # --- answering ----------------------------------------------------------------------------

    async def accept(self, referral: bytes, *, actor: bytes = b"") -> Receipt:
        """Take the patient. Raises ``LocalProtocolError`` if no such referral is here."""
        return await self._about(referral, ReferralAccept(referral=referral), actor)

    async def close(self, referral: bytes, *, reason: str = "done", actor: bytes = b"") -> Receipt:
        """Nothing is read by it any more, here and on every honest node that hears of it.

        Where this device manages the patient's consent, grants that came with it end too.
        """
        patient = self._island.entry(referral, ReferralSend)[0].envelope.subject
        receipt = await self._about(
            referral, ReferralClose(referral=referral, reason=reason), actor
        )
        for grant in self._granted(patient, referral):
            with contextlib.suppress(Denied):
                await self._node.consent.revoke(patient, grant)
        return receipt

    def _granted(self, patient: bytes, referral: bytes) -> list[bytes]:
        """Grants that were written with a referral: just before it, in its log."""
        entry, body = self._sent(referral)
        before = entry.seq - 1 - len(body.sealed.parts)
        named = {wrapped.grantee for wrapped in body.wraps}
        found = []
        for grant in grants(self._node.state(), patient):
            at = self._node.find(grant.row.entry)
            if at is None or at.lane != entry.lane or grant.row.revoked:
                continue
            if grant.row.grantee in named and before - len(named) < at.seq <= before:
                found.append(grant.id)
        return found

    async def return_result(self, referral: bytes, result: Any, *, actor: bytes = b"") -> Receipt:
        """Send back a typed record or FHIR bytes. Raises ``Denied`` if this is not the receiver."""
        entry, body = self._sent(referral)
        raw = result if isinstance(result, bytes) else result.to_fhir()
        resource = read_resource(raw)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        drafts = sealed_drafts(
            self._island.seal(raw, kind=resource.type, key=case.key, patient=patient),
            lambda sealed: ResultReturn(referral=referral, sealed=sealed),
            patient=patient,
            refs=self._refs(patient, referral),
            actor=actor,
        )
        return (await self._node.submit_drafts(drafts))[-1]

    async def _about(self, referral: bytes, body: Any, actor: bytes) -> Receipt:
        patient = self._island.entry(referral, ReferralSend)[0].envelope.subject
        draft = Draft(body=body, subject=patient, refs=self._refs(patient, referral), actor=actor)
        return (await self._node.submit_drafts([draft]))[-1]

    def _refs(self, patient: bytes, referral: bytes) -> tuple[bytes, ...]:
        return self._node.consent.refs(patient, referral)

    # --- reading ------------------------------------------------------------------------------

    def all(self, *, patient: bytes = b"", place: str | None = None) -> list[Referral]:
        """Referrals known here: of one patient, or to one ``place``; the urgent ones first."""
        found = []
        for key, row in REFERRALS.scan(self._node.state(), patient):
            whole = patient + key
            if place is None or row.to == place:
                results = [name for name, _ in RESULTS.scan(self._node.state(), whole[16:])]
                found.append(
                    Referral(id=whole[16:], patient=whole[:16], row=row, results=tuple(results))
                )
        return sorted(found, key=lambda each: (bool(each.row.closed), -each.row.urgency, each.id))

    async def letter(self, referral: bytes) -> Letter:
        """Why, and what is asked. Raises ``Denied`` if it is not addressed to this device."""
        entry, body = self._sent(referral)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        await self._announce_open(patient, referral, [entry])
        opened = self._island.open(entry, body.sealed, case.key)
        return codec.decode(opened.resource, Letter, limit=LETTER_BYTES_MAX)

    async def records(self, referral: bytes) -> list[Result]:
        """The single records that came along, opened. Those not here yet are left out."""
        entry, body = self._sent(referral)
        patient = entry.envelope.subject
        case = self._island.keys(patient, body.wraps)
        here = [
            (key, found)
            for key in case.records
            if (found := self._node.find(key.record)) is not None
            and found.envelope.subject == patient
        ]
        await self._announce_open(patient, referral, [found for _, found in here])
        return [opened for key, found in here if (opened := self._lent(key, found)) is not None]

    async def _announce_open(
        self, patient: bytes, referral: bytes, entries: Sequence[Entry]
    ) -> None:
        """Tell of it, then ask again: leave may have ended while the disk was written."""
        await self._island.announce(patient, entries, under=(referral,))
        row = referral_row(self._node.state(), patient, referral)
        if row is None:
            raise Denied("no such referral counts here")
        refuse_closed(row.closed, row.until, self._node.opener.now_ms())

    def _lent(self, key: RecordKey, entry: Entry) -> Result | None:
        body = self._node.body(entry)
        if not isinstance(body, PatientRegister | RecordAdd | RecordAmend):
            return None
        place = self._node.opener.place(entry.envelope.subject, entry.author)
        try:
            parts = self._node.opener.parts(body.sealed.parts)
            opened = open_lent(body.sealed, key=key, place=place, parts=parts)
        except (DecodeError, LocalProtocolError):
            return None
        return Result(
            id=entry.id,
            author=entry.author,
            resource=opened.resource,
            kind=opened.type,
            occurred_ms=opened.occurred_ms,
        )

    async def results(self, patient: bytes, referral: bytes = b"") -> list[Result]:
        """What came back: of one referral, or of all of the patient's, opened where this may.

        A closed referral's results stay readable to the sender and the patient, whose they are;
        the receiver reads them no more.
        """
        found = []
        for each in self.all(patient=patient):
            if (referral and each.id != referral) or not each.results:
                continue
            body = self._sent(each.id)[1]
            try:
                case = self._island.keys(patient, body.wraps)
                self._refuse_receiver(each)
            except (Denied, DecodeError):
                continue
            here = [at for name in each.results if (at := self._node.find(name)) is not None]
            await self._island.announce(patient, here, under=(each.id,))
            found += [opened for at in here if (opened := self._returned(at, case)) is not None]
        return found

    def _refuse_receiver(self, referral: Referral) -> None:
        """Raises ``Denied`` if leave has ended and this device is not of the sender's side."""
        from p2pmed.medical.membership import member

        me = member(self._node.state(), self._node.key)
        ours = referral.row.author == self._node.key or (
            me is not None and bool(me.place) and me.place == referral.row.place
        )
        if not ours:
            refuse_closed(referral.row.closed, referral.row.until, self._node.opener.now_ms())

    def _returned(self, entry: Entry, case: CaseKeys) -> Result | None:
        body = self._node.body(entry)
        if not isinstance(body, ResultReturn):
            return None
        try:
            opened = self._island.open(entry, body.sealed, case.key)
            resource = read_resource(opened.resource)
        except (Denied, DecodeError, LocalProtocolError, InvalidTransaction):
            return None
        return Result(
            id=entry.id,
            author=entry.author,
            resource=opened.resource,
            kind=resource.type,
            occurred_ms=resource.occurred_ms,
        )

    def _sent(self, referral: bytes) -> tuple[Entry, ReferralSend]:
        entry, body = self._island.entry(referral, ReferralSend)
        return entry, cast(ReferralSend, body)
