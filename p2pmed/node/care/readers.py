"""Who can read what now, and under which grant: the patient's first question.

Rule of this file: the ledger says who was given keys; which categories they open is told under
the patient's consent key only (``medical/privacy/scopes.py``). A device that does not hold it
answers with names, and says that it cannot say more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from p2pmed.errors import DecodeError, Denied
from p2pmed.identity.sealing import box_id
from p2pmed.medical.consent import AccessGrant, Grant, readers
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.privacy.delegation import AccessDelegate
from p2pmed.medical.privacy.facilities import facility_of
from p2pmed.medical.privacy.scopes import key_of_told, open_told

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Reader", "Readers"]

ALL: Final = tuple(Category)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reader:
    """Somebody who may read now, and under which grant."""

    grant: bytes
    grantee: bytes
    """``box_id`` of the reader's key."""
    key: bytes
    """X25519 public key; empty if only who manages the consent could say."""
    facility: str
    """The place whose key it is, or empty: one device, person or card."""
    purpose: str
    since_ms: int
    until_ms: int
    """0: open."""
    categories: tuple[Category, ...] | None
    """``None`` if this device does not manage the patient's consent."""
    under: bytes
    """The delegation by which it was given, or empty."""
    proven: bool
    """Given with the patient's card, or a delegate's."""
    author: bytes
    """The device that wrote it."""


class Readers:
    """Answers for ``node.consent``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def at(self, patient: bytes, category: Category | None, at_ms: int | None) -> list[Reader]:
        """Who can read now (or at ``at_ms``), and under which grant.

        With ``category``, only those who can read it, and those of whom this device cannot say.
        """
        state = self._node.state()
        found = readers(state, patient, self._node.opener.now_ms() if at_ms is None else at_ms)
        scopes = self.scopes(patient, found)
        rows = [self._reader(grant, scopes.get(grant.id)) for grant in found]
        if category is None:
            return rows
        return [row for row in rows if row.categories is None or category in row.categories]

    def _reader(self, grant: Grant, scope: tuple[bytes, tuple[Category, ...]] | None) -> Reader:
        row = grant.row
        key = scope[0] if scope else row.grantee_key
        return Reader(
            grant=grant.id,
            grantee=row.grantee,
            key=key,
            facility=facility_of(self._node.state(), row.grantee) or "",
            purpose=row.purpose,
            since_ms=row.since,
            until_ms=row.until,
            categories=scope[1] if scope else None,
            under=row.under,
            proven=row.proven,
            author=row.author,
        )

    def scopes(
        self, patient: bytes, found: Iterable[Grant]
    ) -> dict[bytes, tuple[bytes, tuple[Category, ...]]]:
        """Reader's key and categories of each grant that this device can tell of."""
        try:
            ring = self._node.opener.ring(patient)
        except Denied:
            return {}
        told: dict[bytes, Mapping[bytes, tuple[str, ...]]] = {}
        scopes = {}
        for grant in found:
            entry = grant.row.entry
            if entry not in told:
                told[entry] = self._told(entry, ring)
            for key, names in told[entry].items():
                if box_id(key) == grant.row.grantee:
                    scopes[grant.id] = (key, tuple(each for each in ALL if each.value in names))
        return scopes

    def _told(self, name: bytes, ring: KeyRing) -> Mapping[bytes, tuple[str, ...]]:
        entry = self._node.find(name)
        body: Any = self._node.body(entry) if entry else None
        if not isinstance(body, PatientRegister | AccessGrant | AccessDelegate):
            return {}
        key_id = key_of_told(body.told)
        try:
            key = ring.find(key_id) if key_id else None
            if key is None or key.category is not Category.CONSENT:
                return {}
            return open_told(body.told, key=key, network=self._node.network, patient=ring.patient)
        except (Denied, DecodeError):
            return {}
