"""Custodians of a patient's key: who they are, and how two of three give it back.

Rule of this file: a share leaves its custodian only for a request that is in the ledger, wrapped
to who asked, on the signed word of a person. Implements ``docs/protocols/card.md``, clauses 10 to
14. ``node.cards.custodians``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.identity import sealing
from p2pmed.identity.credentials import Role, covers
from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.shamir import SecretShare
from p2pmed.medical.membership import MEMBERS, member
from p2pmed.medical.patients import PatientRegister, patient_keys
from p2pmed.medical.privacy.cards import CardRow, wrap_master
from p2pmed.medical.privacy.custody import (
    CARDS_RENEWED_MAX,
    RELEASE_PURPOSE,
    RELEASES_MIN,
    CardRelease,
    CardRequest,
    MasterWrap,
    PatientRekey,
    card_request_row,
    card_requests,
    release_digest,
    releases,
)
from p2pmed.medical.privacy.facilities import current_facility_key
from p2pmed.medical.privacy.holding import (
    Holding,
    join_master,
    open_share,
    open_vault,
)
from p2pmed.medical.privacy.proofs import said
from p2pmed.node.care.hands import Custody, Hand
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Custodians"]

COUNTY: tuple[str, ...] = (Role.COUNTY.value, Role.HOSPITAL.value)
"""Whose devices keep a county's share."""
RELEASE_DOMAIN = "release"


class Custodians:
    """``node.cards.custodians``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def choose(self, third: bytes) -> list[bytes]:
        """Keys of the custodians: this facility, a county facility if one is known, the third."""
        own = self._node.consent.own_key()
        found = [own, self._county_key(own), third]
        return list(dict.fromkeys(key for key in found if key))

    def _county_key(self, own: bytes) -> bytes:
        """The key of a county facility: one above this place if there is one, else any."""
        state = self._node.state()
        me = member(state, self._node.key)
        known = [
            (not (me and row.place and covers(row.place, me.place)), device, row)
            for device, row in MEMBERS.scan(state)
            if not row.revoked and device != self._node.key and set(COUNTY) & set(row.roles)
        ]
        for _, _, row in sorted(known, key=lambda found: found[:2]):
            key = current_facility_key(state, row.place) or row.box_key
            if key != own:
                return key
        return b""

    def rekey(
        self, hand: Hand, custody: Custody, *, request: bytes, kept: Mapping[bytes, CardRow]
    ) -> PatientRekey:
        """The transaction that changes the patient's key, signed with the key before it."""
        patient, network = hand.patient, self._node.network
        cards = tuple(
            MasterWrap(
                card=name,
                wrapped=wrap_master(custody.master, row.card_key, patient=patient, network=network),
            )
            for name, row in sorted(kept.items())[:CARDS_RENEWED_MAX]
        )
        body = PatientRekey(
            patient_key=custody.secrets.patient_key,
            holding=custody.holding,
            before=hand.custody,
            request=request,
            cards=cards,
            proof=b"",
        )
        message = said("rekey", network, patient, body.words)
        return msgspec.structs.replace(body, proof=hand.secrets.sign(message))

    def alone(self, patient: bytes) -> Hand:
        """The patient's keys, where this device alone keeps them. Raises ``Denied``."""
        entry, holding = self._current(patient)
        if holding.threshold > 1:
            raise Denied(
                "this patient's key is in several hands",
                hint="use the patient's card, or `p2pmed card reissue`",
            )
        return self._opened(patient, entry, holding, self._own_shares(patient, holding))

    def _own_shares(self, patient: bytes, holding: Holding) -> list[SecretShare]:
        found = []
        for secret in self._node.opener.secrets().values():
            with contextlib.suppress(Denied, DecodeError):
                found.append(
                    open_share(holding, secret, patient=patient, network=self._node.network)
                )
        return found

    def _opened(
        self, patient: bytes, entry: bytes, holding: Holding, shares: Sequence[SecretShare]
    ) -> Hand:
        master = join_master(holding, shares)
        secrets = open_vault(holding, master, patient=patient, network=self._node.network)
        return Hand(patient=patient, secrets=secrets, master=master, custody=entry)

    def _current(self, patient: bytes) -> tuple[bytes, Holding]:
        """The transaction that made the patient's current key, and what it says."""
        keys = patient_keys(self._node.state(), patient)
        holding = self._holding(keys[-1].entry) if keys else None
        if holding is None:
            raise LocalProtocolError("no such patient's key is known here")
        return keys[-1].entry, holding

    def _holding(self, entry: bytes) -> Holding | None:
        found = self._node.find(entry)
        body = self._node.body(found) if found else None
        return body.holding if isinstance(body, PatientRegister | PatientRekey) else None

    # --- the flow -----------------------------------------------------------------------------

    async def request(self, patient: bytes, *, reason: str = "lost") -> Receipt:
        """Ask the patient's custodians for their shares; its receipt's id is the request."""
        entry, _ = self._current(patient)
        body = CardRequest(custody=entry, requester_key=self._node.keys.box_public, reason=reason)
        refs = self._node.consent.refs(patient, entry)
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    def asked(self) -> list[tuple[bytes, bytes]]:
        """Patient and request, of those that this facility keeps a share for and has not given."""
        state, found = self._node.state(), []
        for patient, request in card_requests(state):
            row = card_request_row(state, patient, request)
            holding = self._holding(row.custody) if row else None
            if holding is None:
                continue
            points = {share.point for share in self._own_shares(patient, holding)}
            if points - set(releases(state, request)):
                found.append((patient, request))
        return found

    async def release(
        self,
        patient: bytes,
        request: bytes,
        person: PersonKeys,
        *,
        secrets: Iterable[bytes] = (),
    ) -> Receipt:
        """Give this custodian's share to who asked, on the word of ``person``.

        ``secrets`` are X25519 secrets of another custodian who is here (a family card, a
        guardian's); without them it is this facility's share. Raises ``LocalProtocolError`` if
        there is no such request, ``Denied`` if no share of it is here.
        """
        row = card_request_row(self._node.state(), patient, request)
        holding = self._holding(row.custody) if row else None
        if row is None or holding is None:
            raise LocalProtocolError("no such request is known here")
        network = self._node.network
        given = list(secrets)
        if given:
            share = open_share(holding, given[0], patient=patient, network=network)
        else:
            shares = self._own_shares(patient, holding)
            if not shares:
                raise Denied("this facility keeps no share of that patient's key")
            share = shares[0]
        wrapped = sealing.wrap(
            row.requester_key,
            share.data,
            domain=RELEASE_DOMAIN,
            context=(network, patient, request, bytes([share.point])),
        )
        said_digest = release_digest(patient, request, share.point, wrapped)
        body = CardRelease(
            request=request,
            point=share.point,
            wrapped=wrapped,
            word=person.countersign(network, RELEASE_PURPOSE, said_digest),
        )
        refs = self._node.consent.refs(patient, request)
        draft = Draft(body=body, subject=patient, refs=refs, actor=person.person)
        return (await self._node.submit_drafts([draft]))[-1]

    def joined(self, patient: bytes, request: bytes) -> tuple[Hand, list[bytes]]:
        """The patient's keys from what was released to this device, and by which transactions.

        Raises ``LocalProtocolError`` if there is no such request, ``Denied`` if too few released.
        """
        state, network = self._node.state(), self._node.network
        row = card_request_row(state, patient, request)
        holding = self._holding(row.custody) if row else None
        if row is None or holding is None:
            raise LocalProtocolError("no such request is known here")
        own = self._node.opener.secrets().get(sealing.box_id(row.requester_key))
        if own is None:
            raise Denied("that request was made by another device")
        shares, entries = [], []
        people: set[bytes] = set()
        for point, release in sorted(releases(state, request).items()):
            found = self._node.find(release.entry)
            body = self._node.body(found) if found else None
            if not isinstance(body, CardRelease):
                continue
            # A custodian's rubbish takes nothing away from the others' shares.
            with contextlib.suppress(Denied, DecodeError):
                data = sealing.unwrap(
                    own,
                    body.wrapped,
                    domain=RELEASE_DOMAIN,
                    context=(network, patient, request, bytes([point])),
                )
                shares.append(SecretShare(point, data))
                entries.append(release.entry)
                people.add(release.person)
        if len(shares) > 1 and len(people) < RELEASES_MIN:
            raise Denied(
                "one person released all shares, and two different people must answer for it",
                hint="ask again, and let another person release",
            )
        return self._opened(patient, row.custody, holding, shares), entries
