"""This facility's shared key and its policy: published, renewed when staff leave.

Rule of this file: the key is wrapped to the devices named, and to no other; who is left out of
a renewal gets no newer epoch, and ``due`` names the patients whose own keys should turn too.
Implements ``docs/protocols/records.md``, clauses 26.5 to 26.7. ``node.consent.facility``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from p2pmed.errors import LocalProtocolError
from p2pmed.identity.sealing import box_id
from p2pmed.medical.consent import EPOCHS, readers
from p2pmed.medical.keyring import Category
from p2pmed.medical.membership import MEMBERS, member
from p2pmed.medical.privacy.facilities import (
    FacilityKey,
    FacilityPolicy,
    facility_keys,
    policy_of,
)
from p2pmed.medical.privacy.policy import Audience, Policy
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Facility"]


class Facility:
    """``node.consent.facility``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def place(self) -> str:
        """The place of this device's credential. Raises ``LocalProtocolError`` if it has none."""
        me = member(self._node.state(), self._node.key)
        if me is None or not me.place:
            raise LocalProtocolError(
                "this device belongs to no facility", hint="its credential must name a place"
            )
        return me.place

    def staff(self) -> dict[bytes, bytes]:
        """Devices of this place that are not revoked, and their X25519 keys."""
        place = self.place
        return {
            device: row.box_key
            for device, row in MEMBERS.scan(self._node.state())
            if row.place == place and not row.revoked
        }

    async def publish(self, devices: Iterable[bytes] | None = None) -> Receipt:
        """A new epoch of the facility's key for ``devices`` (device keys; ``None``: all staff).

        Raises ``LocalProtocolError`` if one of them is no member of this place.
        """
        place, staff = self.place, self.staff()
        chosen = list(staff) if devices is None else list(dict.fromkeys(devices))
        if not chosen or any(device not in staff for device in chosen):
            raise LocalProtocolError("a device that is not of this facility, or none")
        rows = facility_keys(self._node.state(), place)
        epoch = rows[-1].epoch + 1 if rows else 0
        held = self._node.opener.secrets()
        older = [box_id(row.public) for row in reversed(rows) if box_id(row.public) in held]
        public, wraps = self._node.sessions.vault.make_facility(
            older,
            [staff[device] for device in sorted(chosen)],
            network=self._node.network,
            place=place,
            epoch=epoch,
        )
        body = FacilityKey(epoch=epoch, public=public, wraps=wraps)
        return (await self._node.submit_drafts([Draft(body=body)]))[-1]

    def due(self) -> list[bytes]:
        """Patients whose newest keys were never wrapped to the facility's newest key."""
        state = self._node.state()
        rows = facility_keys(state, self.place)
        older = {box_id(row.public) for row in rows[:-1]}
        newest = box_id(rows[-1].public) if rows else b""
        found = []
        for patient in self._node.patients.known():
            grantees = {grant.row.grantee for grant in readers(state, patient)}
            epoch = EPOCHS.get(state, patient)
            if grantees & older and newest not in (epoch.recipients if epoch else ()):
                found.append(patient)
        return found

    def policy(self) -> Policy:
        """What a registration here wraps to whom, by category."""
        me = member(self._node.state(), self._node.key)
        return policy_of(self._node.state(), me.place if me else "")

    async def set_policy(self, rows: Mapping[Category, Iterable[Audience]]) -> Receipt:
        """Publish this facility's policy; categories not named keep the default."""
        spelled: Any = tuple(
            (category, tuple(dict.fromkeys(rows[category])))
            for category in Category
            if category in rows
        )
        assert self.place  # or it says why
        draft = Draft(body=FacilityPolicy(rows=spelled))
        return (await self._node.submit_drafts([draft]))[-1]
