"""Reading is told of first: announcements of what is about to be opened, and who has read what.

Rule of this file: ``announced`` is the only way to plaintext. It writes one ``audit.read`` for
each patient of the batch, waits until all are on this disk, and lets the gateway open those
records while the block runs. A call that reads 500 records of a patient writes one entry.

One thing is not told again: what this device itself wrote since the node was opened. Its author
holds the text anyway, and the entry that carries it names its author. Implements
``docs/protocols/reads.md``. ``node.reads``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.identity.sealing import BoxSecret
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.membership import member
from p2pmed.medical.patients import patient_keys, patient_row
from p2pmed.medical.privacy.reads import READS_MAX, AuditRead, make_read, open_details
from p2pmed.medical.roles import OVERSEERS
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["ReadEvent", "Reads"]

AT_ONCE: Final = 256
"""Announcements in one submission: one flush."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReadEvent:
    """One announcement: somebody opened ``count`` records of a patient."""

    entry: bytes
    patient: bytes
    author: bytes
    """The device."""
    actor: bytes
    """The person, or empty."""
    time_ms: int
    purpose: str
    grants: tuple[bytes, ...]
    count: int
    records: tuple[tuple[Category, bytes], ...] | None
    """Category and id of each; ``None`` unless the patient's own key is here."""


class Reads:
    """``node.reads``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._own_since = node.replica.logs.next_seq(node.replica.own.key)

    # --- before reading ---------------------------------------------------------------------

    def is_own(self, entry: Entry) -> bool:
        """Whether this device wrote it since the node was opened: it is not told of again."""
        own = self._node.replica.own.key
        return entry.lane == own and entry.seq >= self._own_since

    @contextlib.asynccontextmanager
    async def announced(
        self, entries: Iterable[Entry], *, purpose: Purpose = Purpose.TREATMENT, actor: bytes = b""
    ) -> AsyncIterator[None]:
        """While the block runs, ``entries`` (records, of any patients) may be opened here.

        Those that this device has no key or no leave for are passed over. Raises what a
        submission raises, and nothing is open then. Cancelling closes the batch; what was
        announced stays announced.
        """
        batch = self._batch(entries)
        gate = self._node.opener.gate
        token = gate.announce(name for rows in batch.values() for _, name in rows)
        try:
            drafts = list(self._drafts(batch, purpose, actor))
            for at in range(0, len(drafts), AT_ONCE):
                await self._node.submit_drafts(drafts[at : at + AT_ONCE])
            gate.stored(token)  # durable: a submission returns when it is
            yield
        finally:
            gate.done(token)

    def _batch(self, entries: Iterable[Entry]) -> dict[bytes, list[tuple[Category, bytes]]]:
        """Category and id of what this device can open, by patient."""
        batch: dict[bytes, list[tuple[Category, bytes]]] = {}
        rings: dict[bytes, KeyRing | None] = {}
        for entry in entries:
            if self.is_own(entry):
                continue
            patient = entry.envelope.subject
            if patient not in rings:
                try:
                    rings[patient] = self._node.opener.ring(patient)
                except Denied:
                    rings[patient] = None
            ring = rings[patient]
            category = self._node.opener.category_of(entry, ring) if ring is not None else None
            if category is not None:
                batch.setdefault(patient, []).append((category, entry.id))
        return batch

    def _drafts(
        self, batch: dict[bytes, list[tuple[Category, bytes]]], purpose: Purpose, actor: bytes
    ) -> Iterator[Draft]:
        state, opener = self._node.state(), self._node.opener
        for patient, rows in batch.items():
            grants, why = opener.leave(patient)
            for at in range(0, len(rows), READS_MAX):
                body = make_read(
                    rows[at : at + READS_MAX],
                    purpose=(why or purpose).value,
                    grants=grants,
                    patient=patient,
                    patient_key=patient_keys(state, patient)[-1].patient_key,
                    network=self._node.network,
                    entropy=self._node.world.entropy,
                )
                refs = self._node.patients.refs(patient)
                yield Draft(body=body, subject=patient, refs=refs, actor=actor)

    def registrations(self, patients: Iterable[bytes]) -> list[Entry]:
        """The registrations of ``patients`` that are here: their demographics."""
        state = self._node.state()
        rows = [patient_row(state, patient) for patient in patients]
        found = [self._node.find(row.entry) for row in rows if row is not None]
        return [entry for entry in found if entry is not None]

    # --- afterwards ---------------------------------------------------------------------------

    def of(self, patient: bytes) -> list[ReadEvent]:
        """Who has read what of ``patient``, in causal order: the patient's second question.

        Which records is told where the patient's own key is here: a card, or the device that
        keeps the key of a patient without one.
        """
        secrets = self._patients_own(patient)
        found = []
        for entry in self._node.patients.entries(patient):
            body = self._node.body(entry)
            if isinstance(body, AuditRead):
                found.append(self._event(entry, body, secrets))
        return found

    def by(self, reader: bytes) -> list[ReadEvent]:
        """What a device, or a person (32-byte keys), has read: for an auditor, without contents.

        Raises ``Denied`` unless this device is an authority's, a county's, a regulator's, or
        asks for itself.
        """
        state = self._node.state()
        me = member(state, self._node.key)
        if reader != self._node.key and (me is None or OVERSEERS.isdisjoint(me.roles)):
            raise Denied(
                "only who supervises may ask what another reads",
                hint="a patient asks with `p2pmed patient reads`",
            )
        found = []
        logs = self._node.replica.logs
        for lane, next_seq in logs.frontier():
            for entry in logs.entries(lane, 0, next_seq):
                if entry.kind == "audit.read" and reader in (entry.author, entry.envelope.actor):
                    body = self._node.body(entry)
                    if isinstance(body, AuditRead):
                        found.append(self._event(entry, body, {}))
        found.sort(key=lambda event: (event.time_ms, event.entry))
        return found

    def _patients_own(self, patient: bytes) -> dict[bytes, bytes | BoxSecret]:
        held: dict[bytes, bytes | BoxSecret] = dict(self._node.opener.secrets(patient))
        with contextlib.suppress(Denied, LocalProtocolError):
            hand = self._node.cards.custodians.alone(patient)
            return {**held, **hand.secrets.box_secrets()}
        return held

    def _event(
        self, entry: Entry, body: AuditRead, secrets: Mapping[bytes, bytes | BoxSecret]
    ) -> ReadEvent:
        patient, records = entry.envelope.subject, None
        with contextlib.suppress(Denied, DecodeError):
            details = open_details(body, secrets, patient=patient, network=self._node.network)
            records = tuple(details.records)
        return ReadEvent(
            entry=entry.id,
            patient=patient,
            author=entry.author,
            actor=entry.envelope.actor,
            time_ms=entry.envelope.hlc >> 16,
            purpose=body.purpose,
            grants=body.grants,
            count=body.count,
            records=records,
        )
