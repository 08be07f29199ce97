"""Records written under an old key by who had not heard of a revocation: sealed again.

Rule of this file: history is not rewritten. A record counts as late if its author wrote it
*after* the new epoch began (by hybrid clock) and under an older key. It is sealed again under
the newest key, with the same salt, so with the same commitment: what was signed still proves the
content. The old ciphertext stays where it is, and who kept the old key can read that one record;
what this gives is that those with the new keys only can, and that no honest node shows it by the
old. Implements ``docs/protocols/records.md``, clause 20.1. ``node.consent.resealing``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from p2pmed.errors import DecodeError, Denied, LocalProtocolError, P2pmedError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import EPOCH_KEYS, Purpose
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.records import RecordAdd, RecordAmend, RecordReseal, reseals
from p2pmed.medical.sealed import seal_body
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Resealing"]

PAUSE_S: Final = 2.0
"""After news, before looking: what comes in one breath is looked at once."""


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
                async with self._node.reads.announced([entry], purpose=Purpose.UPKEEP):
                    drafts = self._drafts(entry, self._node.opener.ring(patient))
            except (Denied, DecodeError, LocalProtocolError):
                continue  # a lock is closed, or a part has not come yet: another time
            receipts.append((await self._node.submit_drafts(drafts))[-1])
        return receipts

    async def keep(self, *, pause_s: float = PAUSE_S) -> None:
        """On contact: whenever news came, seal again what is late of patients whose newest epoch
        this device began; runs until the node closes. May be cancelled at any time.
        """
        seen: dict[bytes, int] = {}
        while True:
            heard = self._node.heard
            for patient in self._begun_here():
                count = len(self._node.patients.entries(patient))
                if seen.get(patient) != count:
                    # A full disk, say: the next news is another chance.
                    with contextlib.suppress(P2pmedError):
                        seen[patient] = count + len(await self.run(patient))
                await asyncio.sleep(0)
            if not await self._node.news(heard):
                return
            await asyncio.sleep(pause_s)  # a stick or a link brings many at once

    def _begun_here(self) -> list[bytes]:
        """Patients whose newest epoch this device began: it surely holds both keys."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        for name, row in EPOCH_KEYS.scan(self._node.state()):
            patient, begun = name[:16], name[16:]
            newest[patient] = max(newest.get(patient, (0, b"")), (row.epoch, begun))
        found = []
        for patient, (_, name) in newest.items():
            entry = self._node.find(name)
            if entry is not None and entry.author == self._node.key:
                found.append(patient)
        return found

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
        refs = self._node.consent.refs(patient, entry.id, *self._node.consent.standing(patient))
        parts = [Draft(body=part, subject=patient, refs=refs) for part in sealed.parts]

        def whole(ids: Sequence[bytes]) -> RecordReseal:
            return RecordReseal(record=entry.id, sealed=sealed.named(ids[: len(sealed.parts)]))

        return [*parts, Draft(body=whole, subject=patient, refs=refs)]
