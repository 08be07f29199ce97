"""Recording an operation while it happens. ``node.surgery``.

Rule of this file: numbers without gaps. Entries of one operation are written one after another,
each with the next number of this device; nothing waits for a quorum, and what a rule refuses
later keeps its number in the log. What people sign is made by ``words`` and ``closing``, so that
each can sign on a device of his own. Implements ``docs/protocols/care.md``, sections 7 to 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from p2pmed.errors import InvalidTransaction, LocalProtocolError
from p2pmed.identity.persons import PersonKeys
from p2pmed.ledger.state import APPLIED
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.checklist import ITEMS, STEPS, Answer, Phase, TeamRole
from p2pmed.medical.care.surgery import (
    CHECKLIST_PURPOSE,
    CLOSE_PURPOSE,
    SURGERIES,
    Signed,
    SurgeryChecklist,
    SurgeryClose,
    SurgeryEvent,
    SurgeryNote,
    SurgeryPlan,
    checklist_digest,
    close_digest,
    counts_of,
    surgery_row,
)
from p2pmed.medical.care.theatre import SURGERY_BODIES, Told, Written, assess, number_of
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import Category
from p2pmed.medical.sealed import OpenedBody, Sealed, commitment, open_body, seal_body
from p2pmed.node.care.islands import Islands, sealed_drafts
from p2pmed.node.events import Draft
from p2pmed.wire.codec import Wire

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Closing", "Operation", "Surgery"]

NOTE_TYPE: Final = "p2pmed/surgery-note"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Operation:
    """An operation as it stands here."""

    id: bytes
    patient: bytes
    written: tuple[Written, ...]
    """By hybrid clock; ``applied`` is the verdict, provisional where not final."""
    told: Told
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Closing:
    """What is signed at the end: it must be the same for everybody who signs."""

    surgery: bytes
    occurred_ms: int
    outcome: str
    counts: tuple[tuple[bytes, int], ...]


class Surgery:
    """``node.surgery``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._island = Islands(node, "surgery")
        self._writing = asyncio.Lock()

    # --- writing ------------------------------------------------------------------------------

    async def plan(
        self,
        patient: bytes,
        procedure: Any,
        *,
        planned_ms: int,
        team: Iterable[tuple[TeamRole, bytes]] = (),
        actor: bytes = b"",
    ) -> Receipt:
        """Plan an operation; the receipt's id names it. ``procedure`` is typed, or FHIR bytes.

        Raises ``InvalidTransaction`` or ``Denied`` (no key of the category *surgery*).
        """
        raw = procedure if isinstance(procedure, bytes) else procedure.to_fhir()
        people = tuple(team)
        return await self._write_sealed(
            patient,
            raw,
            read_resource(raw).type,
            lambda sealed: SurgeryPlan(planned=planned_ms, team=people, sealed=sealed),
            self._node.patients.refs(patient),
            actor,
        )

    def sign(
        self,
        person: PersonKeys,
        role: TeamRole,
        surgery: bytes,
        phase: Phase,
        answers: Sequence[Answer],
        occurred_ms: int,
    ) -> Signed:
        """One person's word under a phase, for ``role``: to be given to ``checklist``."""
        said = checklist_digest(surgery, phase, answers, occurred_ms, role)
        word = person.countersign(self._node.network, CHECKLIST_PURPOSE, said)
        return Signed(role=role, word=word)

    async def checklist(
        self,
        surgery: bytes,
        phase: Phase,
        answers: Sequence[Answer],
        signers: Iterable[Signed],
        *,
        occurred_ms: int,
        actor: bytes = b"",
    ) -> Receipt:
        """One phase of the WHO checklist, answered whole and signed by those who did it.

        Whether all who must have signed, and are qualified, is the ledger's verdict.
        Raises ``InvalidTransaction`` for too few answers or the wrong role.
        """
        if len(answers) != len(ITEMS[phase]):
            raise InvalidTransaction(
                f"{len(answers)} answers where the phase asks {len(ITEMS[phase])} questions"
            )
        signed = tuple(signers)
        return await self._write(
            surgery,
            lambda number: SurgeryChecklist(
                surgery=surgery,
                number=number,
                phase=phase,
                answers=tuple(answers),
                occurred=occurred_ms,
                signers=signed,
            ),
            actor,
        )

    async def event(
        self, surgery: bytes, step: str, *, occurred_ms: int | None = None, actor: bytes = b""
    ) -> Receipt:
        """A step, one of ``checklist.STEPS``, done now or at ``occurred_ms``.

        Raises ``InvalidTransaction`` for a word that is no step: words stand in clear.
        """
        if step not in STEPS:
            raise InvalidTransaction(
                "not a step of an operation", hint=f"one of {', '.join(STEPS)}"
            )
        at = self._node.world.clock.wall_ms() if occurred_ms is None else occurred_ms
        return await self._write(
            surgery,
            lambda number: SurgeryEvent(surgery=surgery, number=number, step=step, occurred=at),
            actor,
        )

    async def note(
        self,
        surgery: bytes,
        text: str,
        *,
        media: Sequence[bytes] = (),
        occurred_ms: int | None = None,
        actor: bytes = b"",
    ) -> Receipt:
        """Words, sealed; of ``media`` (whole files) salted commitments, their salts sealed too."""
        salts = [self._node.world.entropy.token(32) for _ in media]
        committed = tuple(commitment(salt, each) for salt, each in zip(salts, media, strict=True))
        content = msgspec.json.encode({"text": text, "salts": [salt.hex() for salt in salts]})
        at = self._node.world.clock.wall_ms() if occurred_ms is None else occurred_ms
        patient = self._patient(surgery)

        async with self._writing:
            number = await self._next_number(surgery)
            return await self._write_sealed(
                patient,
                content,
                NOTE_TYPE,
                lambda sealed: SurgeryNote(
                    surgery=surgery, number=number, occurred=at, media=committed, sealed=sealed
                ),
                self._node.consent.refs(patient, surgery),
                actor,
            )

    async def closing(
        self, surgery: bytes, outcome: str, *, occurred_ms: int | None = None
    ) -> Closing:
        """What shall be signed now, with the number of entries that each device wrote."""
        await self._node.catch_up()
        counts = self._counts(surgery)
        at = self._node.world.clock.wall_ms() if occurred_ms is None else occurred_ms
        return Closing(surgery=surgery, occurred_ms=at, outcome=outcome, counts=counts)

    def sign_close(self, person: PersonKeys, role: TeamRole, closing: Closing) -> Signed:
        """One person's word under the close."""
        said = close_digest(
            closing.surgery, closing.occurred_ms, closing.outcome, closing.counts, role
        )
        word = person.countersign(self._node.network, CLOSE_PURPOSE, said)
        return Signed(role=role, word=word)

    async def close(
        self, closing: Closing, signers: Iterable[Signed], *, actor: bytes = b""
    ) -> Receipt:
        """The record is complete, say its signers, of whom one is a surgeon."""
        signed = tuple(signers)
        return await self._write(
            closing.surgery,
            lambda number: SurgeryClose(
                surgery=closing.surgery,
                number=number,
                occurred=closing.occurred_ms,
                outcome=closing.outcome,
                counts=closing.counts,
                signers=signed,
            ),
            actor,
        )

    async def _write(self, surgery: bytes, make: Callable[[int], Wire], actor: bytes) -> Receipt:
        patient = self._patient(surgery)
        refs = self._node.consent.refs(patient, surgery)
        async with self._writing:  # two at once would take one number
            body = make(await self._next_number(surgery))
            draft = Draft(body=body, subject=patient, refs=refs, actor=actor)
            return (await self._node.submit_drafts([draft]))[-1]

    async def _write_sealed(
        self,
        patient: bytes,
        content: bytes,
        kind: str,
        make: Callable[[Sealed], Wire],
        refs: tuple[bytes, ...],
        actor: bytes,
    ) -> Receipt:
        node = self._node
        sealed = seal_body(
            content,
            kind=kind,
            key=node.opener.ring(patient).current(Category.SURGERY),
            place=node.opener.place(patient),
            entropy=node.world.entropy,
        )
        drafts = sealed_drafts(sealed, make, patient=patient, refs=refs, actor=actor)
        return (await node.submit_drafts(drafts))[-1]

    def _patient(self, surgery: bytes) -> bytes:
        row = surgery_row(self._node.state(), surgery)
        if row is None:
            raise LocalProtocolError("no such operation is known here")
        return row.patient

    async def _next_number(self, surgery: bytes) -> int:
        """Above all that this device ever wrote of it, refused entries too."""
        await self._node.catch_up()
        return dict(self._counts(surgery)).get(self._node.key, 0) + 1

    def _counts(self, surgery: bytes) -> tuple[tuple[bytes, int], ...]:
        """By what is in the logs here: a refused entry has its number as well."""
        counts = dict(counts_of(self._node.state(), surgery))
        for entry, body in self.entries(surgery):
            counts[entry.author] = max(counts.get(entry.author, 0), number_of(body))
        return tuple(sorted(counts.items()))

    # --- reading ------------------------------------------------------------------------------

    def all(self, patient: bytes | None = None) -> list[bytes]:
        """Operations known here, of one patient or of all, by id."""
        found = SURGERIES.scan(self._node.state())
        return [name for name, row in found if patient in (None, row.patient)]

    def entries(self, surgery: bytes) -> list[tuple[Entry, Wire]]:
        """Everything written about an operation that is here, by hybrid clock."""
        found: list[tuple[Entry, Wire]] = []
        for entry in self._node.patients.entries(self._patient(surgery)):
            body = self._node.body(entry)
            about = entry.id if isinstance(body, SurgeryPlan) else getattr(body, "surgery", b"")
            if body is not None and isinstance(body, SURGERY_BODIES) and about == surgery:
                found.append((entry, body))
        return found

    async def view(self, surgery: bytes) -> Operation:
        """The operation: its entries, what is missing, what came late."""
        await self._node.catch_up()
        written = []
        for entry, body in self.entries(surgery):
            place = self._node.final_place(entry)
            verdict = place.verdict if place else self._node.replica.overlay.verdict_of(entry)
            written.append(Written(entry=entry, body=body, applied=verdict.code == APPLIED))
        closes = (each for each in written if isinstance(each.body, SurgeryClose))
        return Operation(
            id=surgery,
            patient=self._patient(surgery),
            written=tuple(written),
            told=assess(written),
            closed=any(each.applied for each in closes),
        )

    async def read(self, entry: Entry) -> OpenedBody | None:
        """A plan or a note, opened; ``None`` of an entry that seals nothing.

        Announced as any reading. Raises ``Denied`` or ``DecodeError``.
        """
        body = self._node.body(entry)
        sealed = getattr(body, "sealed", None)
        if not isinstance(body, SurgeryPlan | SurgeryNote) or not isinstance(sealed, Sealed):
            return None
        patient, opener = entry.envelope.subject, self._node.opener
        opener.ring(patient).find(sealed.key_id)  # what cannot be opened is not announced
        await self._island.announce(patient, [entry], under=opener.leave(patient)[0])
        return open_body(
            sealed,
            key=opener.ring(patient).find(sealed.key_id),
            place=opener.place(patient, entry.author),
            parts=opener.parts(sealed.parts),
        )
