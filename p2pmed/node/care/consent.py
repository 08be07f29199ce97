"""Who may read, as a program sees it: granted, asked for, handed on, ended, and answered for.

Rule of this file: each reader's keys follow each reader's scope. A new epoch is wrapped to
survivors category by category, as their grants say; the scopes are told under the patient's
consent key, so whoever ends a grant must hold that (the patient, the clinic that registered, a
delegate). Implements medical notes, section 1 row 3 and section 3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.identity.sealing import box_id
from p2pmed.medical.consent import (
    EPOCH_PURPOSE,
    AccessGrant,
    AccessRevoke,
    AccessRotate,
    Grant,
    Purpose,
    current_epoch,
    grants,
    readers,
)
from p2pmed.medical.keyring import EVERY_CATEGORY, Category, KeyRing, Wrapped
from p2pmed.medical.membership import member
from p2pmed.medical.patients import patient_keys, patient_row
from p2pmed.medical.privacy.delegation import (
    DELEGATION_DEPTH_MAX,
    DELEGATION_PURPOSE,
    AccessDelegate,
    delegation_row,
)
from p2pmed.medical.privacy.emergency import current_emergency_key, emergency_of
from p2pmed.medical.privacy.facilities import (
    current_facility_key,
    facility_keys,
    facility_of,
    policy_of,
)
from p2pmed.medical.privacy.locks import Lock
from p2pmed.medical.privacy.policy import Audience
from p2pmed.medical.privacy.proofs import said
from p2pmed.medical.privacy.scopes import seal_told
from p2pmed.medical.privacy.standing import MANAGING, own_grants
from p2pmed.node.care.facility import Facility
from p2pmed.node.care.hands import Hand
from p2pmed.node.care.passphrases import Passphrases
from p2pmed.node.care.readers import Reader, Readers
from p2pmed.node.care.requests import Requests
from p2pmed.node.care.resealing import Resealing
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.medical.privacy.holding import PatientSecrets
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Consent", "Reader"]

ALL: Final = tuple(Category)


class Consent:
    """``node.consent``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._readers = Readers(node)
        self.facility = Facility(node)
        """This facility's shared key and its policy."""
        self.requests = Requests(node)
        """Leave that was asked for."""
        self.resealing = Resealing(node)
        """Late records, sealed again."""
        self.passphrases = Passphrases(node)
        """The patient's own, on any category."""

    # --- asking -----------------------------------------------------------------------------

    def readers(
        self, patient: bytes, category: Category | None = None, *, at_ms: int | None = None
    ) -> list[Reader]:
        """Who can read now (or at ``at_ms``), and under which grant.

        With ``category``, only those who can read it, and those of whom this device cannot say.
        """
        return self._readers.at(patient, category, at_ms)

    # --- what a registration hands out ------------------------------------------------------

    def own_key(self) -> bytes:
        """The X25519 key of this facility, or of this device where it has none."""
        state = self._node.state()
        me = member(state, self._node.key)
        found = current_facility_key(state, me.place) if me and not me.revoked else None
        # A facility key whose secret is not here would lock this device out.
        here = found is not None and box_id(found) in self._node.opener.secrets()
        return found if found is not None and here else self._node.keys.box_public

    def first_scopes(self, named: Iterable[bytes]) -> dict[bytes, tuple[Category, ...]]:
        """By reader's key: the categories that a registration here wraps to whom."""
        state = self._node.state()
        me = member(state, self._node.key)
        policy = policy_of(state, me.place if me else "")
        device, facility = self._node.keys.box_public, self.own_key()
        audiences = {device: Audience.DEVICE, **dict.fromkeys(named, Audience.READERS)}
        audiences.setdefault(facility, Audience.FACILITY)
        emergency = current_emergency_key(state, me.place if me else "")
        if emergency is not None:
            audiences.setdefault(emergency, Audience.EMERGENCY)
        scopes = {
            key: tuple(each for each in ALL if audience in policy[each])
            for key, audience in audiences.items()
        }
        return {key: scope for key, scope in scopes.items() if scope}

    # --- giving -----------------------------------------------------------------------------

    async def grant(
        self,
        patient: bytes,
        reader: bytes,
        *,
        categories: Iterable[Category] = EVERY_CATEGORY,
        purpose: Purpose = Purpose.TREATMENT,
        since_ms: int = 0,
        until_ms: int = 0,
        since_epoch: int = 0,
        by: Hand | None = None,
        answers: bytes = b"",
    ) -> Receipt:
        """Let the holder of the X25519 key ``reader`` read ``categories``.

        ``by`` is the patient's hand, or a delegate's, whose signature the grant then carries;
        without it, it is this device's word. ``since_epoch`` leaves older records closed.
        ``answers`` is the request that it answers. Raises ``Denied`` if no such key is here.
        """
        draft = self.grant_draft(
            patient,
            reader,
            categories=categories,
            purpose=purpose,
            period=(since_ms, until_ms),
            since_epoch=since_epoch,
            by=by,
            answers=answers,
        )
        return (await self._node.submit_drafts([draft]))[-1]

    def grant_draft(
        self,
        patient: bytes,
        reader: bytes,
        *,
        categories: Iterable[Category],
        purpose: Purpose = Purpose.TREATMENT,
        period: tuple[int, int] = (0, 0),
        since_epoch: int = 0,
        by: Hand | None = None,
        answers: bytes = b"",
    ) -> Draft:
        """The draft of a grant, to be submitted with others."""
        whole = self._node.opener.ring(patient)
        ring = whole.only(categories, since_epoch=since_epoch)
        wrapped = ring.wrap(reader, network=self._node.network, purpose=purpose.value)
        body = AccessGrant(
            grantee_key=reader,
            purpose=purpose.value,
            epoch=ring.epoch,
            since=period[0],
            until=period[1],
            wrapped=wrapped.wrapped,
            told=self._tell(whole, reader, ring),
            under=by.under if by else b"",
            proof=b"",
        )
        if by is not None:
            body = _signed(body, "grant", by, self._node.network)
        standing = [by.custody] if by else self.standing(patient)
        refs = self.refs(patient, body.under, answers, *standing)
        return Draft(body=body, subject=patient, refs=refs)

    async def delegate(
        self,
        patient: bytes,
        delegate_key: bytes,
        sign_key: bytes,
        *,
        by: Hand,
        categories: Iterable[Category] = ALL,
        since_ms: int = 0,
        until_ms: int = 0,
        depth: int = 0,
    ) -> Receipt:
        """Let somebody read, and grant in the patient's name: the guardian of a child.

        ``delegate_key`` (X25519) and ``sign_key`` (Ed25519) are the guardian's, as on the
        guardian's own card. ``by`` is the patient's hand, or that of a delegate who may hand on.
        """
        whole = self._node.opener.ring(patient)
        ring = whole.only(categories)
        wrapped = ring.wrap(delegate_key, network=self._node.network, purpose=DELEGATION_PURPOSE)
        body = AccessDelegate(
            grantee_key=delegate_key,
            sign_key=sign_key,
            epoch=ring.epoch,
            since=since_ms,
            until=until_ms,
            depth=depth,
            under=by.under,
            wrapped=wrapped.wrapped,
            told=self._tell(whole, delegate_key, ring),
            proof=b"",
        )
        body = _signed(body, "delegate", by, self._node.network)
        refs = self.refs(patient, by.under, by.custody)
        draft = Draft(body=body, subject=patient, refs=refs)
        return (await self._node.submit_drafts([draft]))[-1]

    def _tell(self, whole: KeyRing, reader: bytes, given: KeyRing) -> bytes:
        """Which categories were given, for who manages the consent; empty if we do not."""
        try:
            key = whole.current(Category.CONSENT)
        except Denied:
            return b""
        return seal_told(
            {reader: dict.fromkeys(key.category.value for key in given)},
            key=key,
            network=self._node.network,
            patient=whole.patient,
            entropy=self._node.world.entropy,
        )

    # --- ending -----------------------------------------------------------------------------

    async def revoke(self, patient: bytes, grant: bytes) -> Receipt:
        """End a grant: a new epoch of keys, wrapped to all other readers and the patient.

        Raises ``LocalProtocolError`` if no such grant stands, ``Denied`` if this device does not
        manage the patient's consent.
        """
        state = self._node.state()
        found = next((g for g in grants(state, patient) if g.id == grant), None)
        if found is None or found.row.revoked or patient_row(state, patient) is None:
            raise LocalProtocolError("no such grant in force", hint="see `patient readers`")
        epoch, wraps = self.new_epoch(patient, ended=frozenset({grant}), above=found.row.epoch)
        body = AccessRevoke(grant=grant, epoch=epoch, wraps=wraps, proof=b"")
        body = self._by_patient(body, "revoke", patient)
        refs = self.refs(patient, found.row.entry, *self.standing(patient))
        return (await self._node.submit_drafts([Draft(body=body, subject=patient, refs=refs)]))[-1]

    async def rotate(self, patient: bytes, *, reason: str = "rotation") -> Receipt:
        """A new epoch of keys for everybody who may read: after staff left, or an emergency."""
        return (await self._node.submit_drafts([self.rotation(patient, reason=reason)]))[-1]

    def rotation(
        self,
        patient: bytes,
        *,
        reason: str,
        locks: Mapping[Category, Lock] | None = None,
        renewed: PatientSecrets | None = None,
    ) -> Draft:
        """The draft of a new epoch, to be submitted with others.

        ``locks`` are put in the place of those there are; ``renewed`` are the patient's new
        secrets, if their rekey is submitted just before.
        """
        patient_key = renewed.patient_key if renewed else b""
        epoch, wraps = self.new_epoch(patient, locks=locks, patient_key=patient_key)
        body = AccessRotate(reason=reason, epoch=epoch, wraps=wraps, proof=b"")
        body = self._by_patient(body, "rotate", patient, renewed)
        return Draft(body=body, subject=patient, refs=self.refs(patient, *self.standing(patient)))

    def new_epoch(
        self,
        patient: bytes,
        *,
        ended: frozenset[bytes] = frozenset(),
        locks: Mapping[Category, Lock] | None = None,
        patient_key: bytes = b"",
        above: int = 0,
    ) -> tuple[int, tuple[Wrapped, ...]]:
        """New keys of every category, wrapped to each reader whose grant is not ``ended``.

        The epoch is newer than all that are known here, and than ``above``.
        """
        state = self._node.state()
        ring = self._node.opener.ring(patient)
        self._must_manage(ring)
        epoch = max(current_epoch(state, patient), ring.epoch, above) + 1
        fresh = KeyRing.generate(
            patient,
            self._node.world.entropy,
            epoch=epoch,
            locks=ring.locks if locks is None else locks,
            keeper=self._node.sessions.vault,
        )
        now = self._node.opener.now_ms()
        standing = [
            each for each in readers(state, patient) if not self._is_over(patient, each, ended, now)
        ]
        wanted: dict[bytes, set[Category]] = {}
        for key, scope in self._readers.scopes(patient, standing).values():
            wanted.setdefault(self._newest_key(key), set()).update(scope)
        wanted[patient_key or patient_keys(state, patient)[-1].patient_key] = set(ALL)
        wraps = tuple(
            fresh.only(wanted[key]).wrap(key, network=self._node.network, purpose=EPOCH_PURPOSE)
            for key in sorted(wanted)
        )
        return epoch, wraps

    def _is_over(self, patient: bytes, grant: Grant, ended: frozenset[bytes], now_ms: int) -> bool:
        """Whether a grant is among ``ended``, hangs on one that is, or has expired."""
        state, under = self._node.state(), grant.row.under
        if grant.id in ended or (grant.row.until and now_ms >= grant.row.until):
            return True
        for _ in range(DELEGATION_DEPTH_MAX):
            row = delegation_row(state, patient, under) if under else None
            if row is None:
                return bool(under)
            if under in ended or (row.until and now_ms >= row.until):
                return True
            under = row.under
        return bool(under)

    def _newest_key(self, key: bytes) -> bytes:
        """A facility's newest key in the place of an older one: who left gets no new epoch."""
        state = self._node.state()
        if place := facility_of(state, box_id(key)):
            return current_facility_key(state, place) or key
        place = emergency_of(state, box_id(key))
        return (current_emergency_key(state, place) or key) if place else key

    def _must_manage(self, ring: KeyRing) -> None:
        with contextlib.suppress(Denied):
            ring.current(Category.CONSENT)
            return
        raise Denied(
            "this device does not manage the patient's consent, and cannot re-wrap for others",
            hint="ask the clinic that registered, or use the patient's card",
        )

    def _by_patient(
        self, body: Any, purpose: str, patient: bytes, renewed: PatientSecrets | None = None
    ) -> Any:
        """``body`` under the patient's signature, if the card is here and its key the current."""
        secrets = renewed or self._node.opener.hand(patient)
        keys = patient_keys(self._node.state(), patient)
        if secrets is None or (renewed is None and secrets.sign_key != keys[-1].sign_key):
            return body
        message = said(purpose, self._node.network, patient, body.words)
        return msgspec.structs.replace(body, proof=secrets.sign(message))

    def standing(self, patient: bytes) -> tuple[bytes, ...]:
        """What gives this device's word its weight, so that every order puts that first."""
        state = self._node.state()
        me = member(state, self._node.key)
        if me is None:
            return ()
        rows = [row for row in own_grants(state, patient, me) if not row.revoked]
        rows.sort(key=lambda row: (row.purpose not in MANAGING, row.entry))
        places = facility_keys(state, me.place) if me.place else []
        shared = [each.entry for each in places if rows and box_id(each.public) == rows[0].grantee]
        return (*(row.entry for row in rows[:1]), *shared)

    # --- what is shared ---------------------------------------------------------------------

    def refs(self, patient: bytes, *others: bytes) -> tuple[bytes, ...]:
        """What a transaction about a patient refers to, in order, each once."""
        found = (*self._node.patients.refs(patient), *others)
        return tuple(dict.fromkeys(ref for ref in found if ref))


def _signed(body: Any, purpose: str, by: Hand, network: bytes) -> Any:
    """``body`` with the signature of the hand ``by``."""
    message = said(purpose, network, by.patient, body.words)
    return msgspec.structs.replace(body, proof=by.secrets.sign(message))
