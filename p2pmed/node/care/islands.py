"""Texts under a key of one case: written in parts, told of before they are read.

Rule of this file: what is read under a case's key is a reading like any other. An ``audit.read``
that names the case where a grant would stand is durable on this disk before any plaintext is
handed out; what this device itself wrote since it was opened is not told again. Shared by
``referrals.py`` and ``consultations.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.case_keys import CaseKeys, open_case
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, CategoryKey, Wrapped
from p2pmed.medical.membership import MEMBERS
from p2pmed.medical.patients import patient_keys
from p2pmed.medical.privacy.facilities import current_facility_key
from p2pmed.medical.privacy.reads import READS_MAX, make_read
from p2pmed.medical.roles import CARERS
from p2pmed.medical.sealed import OpenedBody, Sealed, SealedDraft, open_body, seal_body
from p2pmed.node.events import Draft
from p2pmed.wire.codec import Wire

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Islands", "facility_parties", "sealed_drafts"]

PARTIES_AT_A_PLACE_MAX = 4


def sealed_drafts(
    sealed: SealedDraft,
    make: Callable[[Sealed], Wire],
    *,
    patient: bytes,
    refs: tuple[bytes, ...],
    before: int = 0,
    actor: bytes = b"",
) -> list[Draft]:
    """The drafts of one sealed body, with ``before`` others before them in the submission."""
    parts = [Draft(body=part, subject=patient, refs=refs, actor=actor) for part in sealed.parts]

    def body(ids: Sequence[bytes]) -> Wire:
        return make(sealed.named(ids[before : before + len(parts)]))

    return [*parts, Draft(body=body, subject=patient, refs=refs, actor=actor)]


def facility_parties(node: Node, place: str) -> list[bytes]:
    """X25519 keys of a facility: its shared key, or those of its carers' devices.

    Raises ``LocalProtocolError`` if nobody of that place is known here.
    """
    state = node.state()
    shared = current_facility_key(state, place)
    if shared is not None:
        return [shared]
    found = [
        row.box_key
        for _, row in MEMBERS.scan(state)
        if row.place == place and not row.revoked and not CARERS.isdisjoint(row.roles)
    ]
    if not found:
        raise LocalProtocolError(
            "no device of that place is known here",
            hint="its log must have been here once: by link, van or stick",
        )
    return found[:PARTIES_AT_A_PLACE_MAX]


class Islands:
    """Opens and seals for one kind of case."""

    def __init__(self, node: Node, purpose: str) -> None:
        self._node = node
        self.purpose = purpose
        """What the wraps are bound to."""

    def keys(self, patient: bytes, wraps: Sequence[Wrapped]) -> CaseKeys:
        """What this device, its facility or a card that is here holds of a case.

        Raises ``Denied``.
        """
        return open_case(
            wraps,
            self._node.opener.secrets(patient),
            network=self._node.network,
            patient=patient,
            purpose=self.purpose,
        )

    def own_parties(self, patient: bytes) -> list[bytes]:
        """Keys that every case is wrapped to: this facility's (or device's), and the patient's."""
        patients = patient_keys(self._node.state(), patient)
        if not patients:
            raise LocalProtocolError("no such patient is known here")
        return [self._node.consent.own_key(), patients[-1].patient_key]

    def seal(self, content: bytes, *, kind: str, key: CategoryKey, patient: bytes) -> SealedDraft:
        """``content`` under the case's key, for a transaction of this device."""
        return seal_body(
            content,
            kind=kind,
            key=key,
            place=self._node.opener.place(patient),
            entropy=self._node.world.entropy,
        )

    def open(self, entry: Entry, sealed: Sealed, key: CategoryKey) -> OpenedBody:
        """A text of the case. Raises ``Denied``, ``DecodeError`` or ``LocalProtocolError``."""
        place = self._node.opener.place(entry.envelope.subject, entry.author)
        return open_body(sealed, key=key, place=place, parts=self._node.opener.parts(sealed.parts))

    async def announce(
        self,
        patient: bytes,
        entries: Sequence[Entry],
        *,
        under: tuple[bytes, ...],
        actor: bytes = b"",
    ) -> None:
        """Tell, durably, that ``entries`` are about to be read ``under`` a case, or grants.

        Cancelled: what was announced stays announced. Raises what a submission raises.
        """
        rows = [
            (Category.GENERAL, entry.id) for entry in entries if not self._node.reads.is_own(entry)
        ]
        if not rows:
            return
        state = self._node.state()
        drafts = [
            Draft(
                body=make_read(
                    rows[at : at + READS_MAX],
                    purpose=Purpose.TREATMENT.value,
                    grants=under,
                    patient=patient,
                    patient_key=patient_keys(state, patient)[-1].patient_key,
                    network=self._node.network,
                    entropy=self._node.world.entropy,
                ),
                subject=patient,
                refs=self._node.patients.refs(patient),
                actor=actor,
            )
            for at in range(0, len(rows), READS_MAX)
        ]
        await self._node.submit_drafts(drafts)

    def entry(self, name: bytes, kind: type[Wire]) -> tuple[Entry, Wire]:
        """A transaction of ``kind`` by its id. Raises ``LocalProtocolError`` if it is not here."""
        entry = self._node.find(name)
        body = self._node.body(entry) if entry else None
        if entry is None or not isinstance(body, kind):
            raise LocalProtocolError("no such case is here")
        return entry, body


def refuse_closed(closed: bytes, until_ms: int, now_ms: int) -> None:
    """Raises ``Denied`` if leave by a case's key has ended."""
    if closed:
        raise Denied("the case is closed: nothing is read by it any more")
    if until_ms and now_ms >= until_ms:
        raise Denied("the leave that came with the case has ended", hint="ask for a new one")
