"""Opening a case for review, and handing it over as one sealed file. ``node.cases``.

Rule of this file: what is handed out was checked as its reader will check it. The file is made from
what this node keeps; a piece that is not here is named, never left out in silence. Implements
``docs/protocols/case.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.light import Handover, LightBlock
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical.care.case_check import check_case
from p2pmed.medical.care.case_file import (
    CaseEntry,
    CaseFile,
    CaseLedger,
    CaseLog,
    CaseOpened,
    CasePlace,
    seal_case,
)
from p2pmed.medical.care.cases import CaseOpen
from p2pmed.medical.care.surgery import SurgeryChecklist, SurgeryClose
from p2pmed.medical.care.theatre import SURGERY_BODIES, number_of
from p2pmed.medical.membership import LogOpen
from p2pmed.medical.proof import Ordered
from p2pmed.medical.qualifications import (
    QualificationIssue,
    QualificationRevoke,
    QualificationSuspend,
)
from p2pmed.medical.records import record_row
from p2pmed.medical.sealed import OpenedBody, Sealed
from p2pmed.node.events import Draft
from p2pmed.node.proving import Prover
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Cases"]

QUALIFYING: Final = ("qual.issue", "qual.suspend", "qual.revoke")
ENTRIES_A_SLICE: Final = 256


class Cases:
    """``node.cases``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- opening ------------------------------------------------------------------------------

    async def open(
        self,
        *,
        reviewers: Iterable[bytes],
        reason: str,
        surgery: bytes = b"",
        records: Iterable[bytes] = (),
        actor: bytes = b"",
    ) -> Receipt:
        """Open a case about an operation, or about ``records``, for ``reviewers`` (X25519 keys).

        The receipt's id is the case. Raises ``LocalProtocolError`` if it is about nothing, or
        about what is not known here.
        """
        await self._node.catch_up()
        named = tuple(dict.fromkeys(records))
        patient = self._patient(surgery, named)
        entries = self._node.surgery.entries(surgery) if surgery else []
        counts: dict[bytes, int] = {}
        for entry, body in entries:
            counts[entry.author] = max(counts.get(entry.author, 0), number_of(body))
        people = _people(entries, [self._entry(name) for name in named])
        body = CaseOpen(
            reviewers=tuple(dict.fromkeys(reviewers)),
            reason=reason,
            surgery=surgery,
            records=named,
            counts=tuple(sorted(counts.items())),
            qualifications=tuple(sorted(each.id for each in await self._qualifying(people))),
        )
        refs = self._node.consent.refs(patient, surgery, *named)
        draft = Draft(body=body, subject=patient, refs=refs, actor=actor)
        return (await self._node.submit_drafts([draft]))[-1]

    def _patient(self, surgery: bytes, records: Sequence[bytes]) -> bytes:
        if surgery:
            entry = self._entry(surgery)
            return entry.envelope.subject
        row = record_row(self._node.state(), records[0]) if records else None
        if row is None:
            raise LocalProtocolError("a case is about an operation, or about records known here")
        return row.subject

    def _entry(self, name: bytes) -> Entry:
        entry = self._node.find(name)
        if entry is None:
            raise LocalProtocolError("something that the case is about is not here")
        return entry

    async def _qualifying(self, people: frozenset[bytes]) -> list[Entry]:
        """Every transaction here that gives or takes the qualifications of ``people``."""
        logs = self._node.replica.logs
        issued, changes = [], []
        for lane, next_seq in logs.frontier():
            for number, entry in enumerate(logs.entries(lane, 0, next_seq)):
                if number % ENTRIES_A_SLICE == 0:
                    await asyncio.sleep(0)
                if entry.kind not in QUALIFYING:
                    continue
                body = self._node.body(entry)
                if isinstance(body, QualificationIssue) and body.holder in people:
                    issued.append(entry)
                elif isinstance(body, QualificationSuspend | QualificationRevoke):
                    changes.append((entry, body.qualification))
        named = {entry.id for entry in issued}
        return [*issued, *(entry for entry, of in changes if of in named)]

    # --- handing over -------------------------------------------------------------------------

    async def export(self, case: bytes, *, reveal: bool = False) -> bytes:
        """The case's file, sealed to its reviewers.

        ``reveal`` adds the contents that this device may open, announced as any reading. Raises
        ``LocalProtocolError`` if a piece is not here, or the case is none; ``CredentialError`` if
        what is here does not hold together.
        """
        entry = self._entry(case)
        body = self._node.body(entry)
        if not isinstance(body, CaseOpen):
            raise LocalProtocolError("that transaction opens no case")
        raw = await self._file(entry, body, reveal)
        await asyncio.to_thread(check_case, raw, network=self._node.network)
        return seal_case(
            raw,
            network=self._node.network,
            case=case,
            reviewers=body.reviewers,
            entropy=self._node.world.entropy,
        )

    async def _file(self, case: Entry, body: CaseOpen, reveal: bool) -> bytes:
        about = self._node.surgery.entries(body.surgery) if body.surgery else []
        found = {entry.id: entry for entry, _ in about}
        found[case.id] = case
        for name in (*body.records, *body.qualifications):
            found[name] = self._entry(name)
        for name in [part for entry in found.values() for part in self._parts(entry)]:
            found[name] = self._entry(name)
        entries = sorted(found.values(), key=lambda each: (each.envelope.hlc, each.id))
        packing = _Packing(self._node)
        packed = packing.pack(entries)
        opened = await self._opened(entries) if reveal else ()
        return codec.encode(
            CaseFile(
                format="p2pmed/1 case",
                manifest=self._node.replica.identity.manifest_raw,
                case=entries.index(case),
                ledgers=packing.ledgers(),
                chains=packing.chains,
                entries=packed,
                logs=self._logs([entry for entry, _ in about], found),
                opened=opened,
            )
        )

    def _parts(self, entry: Entry) -> tuple[bytes, ...]:
        sealed = getattr(self._node.body(entry), "sealed", None)
        return sealed.parts if isinstance(sealed, Sealed) else ()

    def _logs(self, about: Sequence[Entry], shown: dict[bytes, Entry]) -> tuple[CaseLog, ...]:
        """Between each device's first and last entry of the operation: ids of what is not shown."""
        bounds: dict[LaneKey, list[int]] = {}
        for entry in about:
            bounds.setdefault(entry.lane, []).append(entry.seq)
        logs = self._node.replica.logs
        return tuple(
            CaseLog(
                author=lane.author,
                incarnation=lane.incarnation,
                skipped=tuple(
                    (entry.seq, entry.id)
                    for entry in logs.entries(lane, min(bounds[lane]), max(bounds[lane]) + 1)
                    if entry.id not in shown
                ),
            )
            for lane in sorted(bounds)
        )

    async def _opened(self, entries: Sequence[Entry]) -> tuple[CaseOpened, ...]:
        found = []
        for index, entry in enumerate(entries):
            try:
                opened = await self._read(entry)
            except (Denied, DecodeError, InvalidTransaction, LocalProtocolError):
                continue  # what cannot be opened here stays sealed, and the file says so
            if opened is not None:
                found.append(CaseOpened(entry=index, salt=opened.salt, resource=opened.resource))
        return tuple(found)

    async def _read(self, entry: Entry) -> OpenedBody | None:
        if isinstance(self._node.body(entry), SURGERY_BODIES):
            return await self._node.surgery.read(entry)
        async with self._node.reads.announced([entry]):
            return self._node.opener.read(entry)


class _Packing:
    """Entries with shared credentials, blocks and handovers: each once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._prover = Prover(node)
        self._founding: Founding | None = None
        self._handovers: tuple[Handover, ...] = ()
        self._blocks: dict[int, LightBlock] = {}
        self.chains: tuple[tuple[bytes, ...], ...] = ()

    def pack(self, entries: Sequence[Entry]) -> tuple[CaseEntry, ...]:
        """Each entry, with the numbers of its credentials and of its block."""
        ordered = {entry.id: self._ordered(entry) for entry in entries}
        credentials = {entry.id: self._chain(entry, ordered[entry.id]) for entry in entries}
        self.chains = tuple(sorted(set(credentials.values())))
        heights = sorted(self._blocks)
        return tuple(
            CaseEntry(
                raw=entry.raw,
                chain=self.chains.index(credentials[entry.id]),
                place=None
                if (found := ordered[entry.id]) is None
                else CasePlace(
                    ledger=0,
                    block=heights.index(found.block.header.height),
                    placed=found.placed,
                ),
            )
            for entry in entries
        )

    def ledgers(self) -> tuple[CaseLedger, ...]:
        """The home ledger, if it ordered any of the entries."""
        if self._founding is None:
            return ()
        blocks = tuple(self._blocks[height] for height in sorted(self._blocks))
        ledger = CaseLedger(founding=self._founding, handovers=self._handovers, blocks=blocks)
        return (ledger,)

    def _ordered(self, entry: Entry) -> Ordered | None:
        place = self._node.final_place(entry)
        if place is None:
            return None
        found = self._prover.ordered(place.ledger, place.height, entry)
        self._founding = found.founding
        self._blocks[place.height] = found.block
        if len(found.handovers) > len(self._handovers):
            self._handovers = found.handovers
        return found

    def _chain(self, entry: Entry, ordered: Ordered | None) -> tuple[bytes, ...]:
        if ordered is not None:
            return ordered.chain
        opening = self._node.replica.logs.entry(entry.lane, 0)
        body = None if opening is None else self._node.body(opening)
        if not isinstance(body, LogOpen):
            raise LocalProtocolError("an author's credentials are not here")
        return body.chain


def _people(entries: Sequence[tuple[Entry, Wire]], records: Sequence[Entry]) -> frozenset[bytes]:
    """Who signed or acted, people and devices."""
    found = set()
    for entry, body in entries:
        found |= {entry.author, entry.envelope.actor}
        if isinstance(body, SurgeryChecklist | SurgeryClose):
            found |= {signed.word.signer for signed in body.signers}
    for entry in records:
        found |= {entry.author, entry.envelope.actor}
    return frozenset(found - {b""})
