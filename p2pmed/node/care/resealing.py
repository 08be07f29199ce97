"""Records written under an old key by who had not heard of a revocation: sealed again.

Rule of this file: history is not rewritten. A record counts as late if its author wrote it
*after* the new epoch began (by hybrid clock) and under an older key. It is sealed again under
the newest key, with the same salt, so with the same commitment: what was signed still proves the
content. The old ciphertext stays where it is, and who kept the old key can read that one record;
what this gives is that those with the new keys only can, and that no honest node shows it by the
old. Implements ``docs/protocols/records.md``, clause 20.1. ``node.consent.resealing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import EPOCH_KEYS
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.records import RecordAdd, RecordAmend, RecordReseal, reseals
from p2pmed.medical.sealed import seal_body
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Resealing"]


class Resealing:
    """``node.consent.resealing``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def due(self, patient: bytes) -> list[Entry]:
        """Late records of ``patient`` that this device can open, and nobody has sealed again."""
        state, found = self._node.state(), []
        begun = self._begun(patient)
        if not begun:
            return []
        try:
            ring = self._node.opener.ring(patient)
        except Denied:
            return []
        epochs = {key.key_id: key.epoch for key in ring}
        for entry in self._node.patients.entries(patient):
            body = self._node.body(entry)
            if not isinstance(body, RecordAdd | RecordAmend):
                continue
            under = epochs.get(body.sealed.key_id)
            newest = max((e for e, hlc in begun.items() if hlc < entry.envelope.hlc), default=0)
            if under is not None and under < newest and not reseals(state, entry.id):
                found.append(entry)
        return found

    def _begun(self, patient: bytes) -> dict[int, int]:
        """When each epoch began here or elsewhere: epoch to the earliest hybrid clock."""
        begun: dict[int, int] = {}
        for name, row in EPOCH_KEYS.scan(self._node.state(), patient):
            entry = self._node.find(name)
            if entry is not None and row.epoch:
                hlc = entry.envelope.hlc
                begun[row.epoch] = min(begun.get(row.epoch, hlc), hlc)
        return begun

    async def run(self, patient: bytes) -> list[Receipt]:
        """Seal the late records of ``patient`` again. May be cancelled between records."""
        receipts = []
        for entry in self.due(patient):
            try:
                drafts = self._drafts(entry, self._node.opener.ring(patient))
            except (Denied, DecodeError, LocalProtocolError):
                continue  # a lock is closed, or a part has not come yet: another time
            receipts.append((await self._node.submit_drafts(drafts))[-1])
        return receipts

    async def run_all(self) -> int:
        """The same for every patient whose keys have turned; how many records."""
        done = 0
        for patient in self._node.patients.known():
            done += len(await self.run(patient))
        return done

    def _drafts(self, entry: Entry, ring: KeyRing) -> list[Draft]:
        patient = entry.envelope.subject
        body = self._node.body(entry)
        opened = self._node.opener.read(entry, ring=ring)
        assert opened is not None  # ``due`` names records only
        assert isinstance(body, RecordAdd | RecordAmend)
        category = ring.find(body.sealed.key_id).category
        sealed = seal_body(
            opened.resource,
            kind=opened.type,
            key=ring.current(category),
            place=self._node.opener.place(patient),
            entropy=self._node.world.entropy,
            occurred_ms=opened.occurred_ms,
            salt=opened.salt,
        )
        refs = self._node.consent.refs(patient, entry.id)
        parts = [Draft(body=part, subject=patient, refs=refs) for part in sealed.parts]

        def whole(ids: Sequence[bytes]) -> RecordReseal:
            return RecordReseal(record=entry.id, sealed=sealed.named(ids[: len(sealed.parts)]))

        return [*parts, Draft(body=whole, subject=patient, refs=refs)]
