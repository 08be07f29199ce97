"""FHIR files into the ledger: sealed off the loop, signed in batches, resumable.

Order of writing, for each document: its patients' registrations, its other resources, and when
all of these are durable, its skeleton and its file record in one commit with the note that it is
complete. Each commit also notes what it wrote (``journal.py``), so that an import that was killed
goes on where it was.

Work that takes the CPU and no state (reading, splitting, deflating, sealing) runs in a thread
while the submission before it is written; at most ``IN_FLIGHT`` submissions wait for the disk,
and one document is read ahead. Memory is that of a few documents, however many there are.

What a power cut may leave twice: pieces of one resource of more than ``PARTS_INLINE_MAX`` parts
(4 MiB), which nothing refers to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from p2pmed.engine import Entropy
from p2pmed.errors import P2pmedError, StorageError
from p2pmed.medical.fhir import Resource
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.records import Place, RecordDraft, seal_record
from p2pmed.node.events import Draft, LocalRows
from p2pmed.node.fhir.documents import (
    Document,
    FileName,
    UnknownPatient,
    file_record,
    read_document,
)
from p2pmed.node.fhir.files import FoundFile, read_contents
from p2pmed.node.fhir.journal import Journal, Row, journal_key
from p2pmed.node.fhir.plan import Plan, Planner
from p2pmed.node.record_drafts import record_drafts

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Counts", "Importer", "Refused"]

BATCH_MAX: Final = 240
"""Transactions of one submission; ``Node.submit_drafts`` takes a few more."""
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Resources sealed in one go."""
PARTS_INLINE_MAX: Final = 64
"""A record of more parts is written part by part, before its submission."""
IN_FLIGHT: Final = 2
REPORT_S: Final = 0.1

Report = Callable[[dict[str, Any]], None]
Sealing = tuple[Resource, KeyRing, Place]


@dataclass(slots=True)
class Counts:
    """What an import did."""

    files: int = 0
    patients: int = 0
    resources: int = 0
    records: int = 0
    bytes_in: int = 0
    bytes_stored: int = 0
    skipped: int = 0
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not taken in, and why."""

    file: str
    why: str


@dataclass(slots=True, kw_only=True, repr=False)
class _ReadAhead:
    """A document read ahead."""

    file: FoundFile
    size: int
    key: bytes
    document: Document | None
    """``None`` if the journal says that it is complete."""


class Importer:
    """Takes files into one node. Not for concurrent use."""

    def __init__(self, node: Node, report: Report) -> None:
        self.counts = Counts()
        self.refused: list[Refused] = []
        self._node = node
        self._report = report
        self._entropy: Entropy = node.world.entropy
        self._journal = Journal(node.world.disk, journal_key(node.keys.signing_seed))
        self._planner = Planner(node, self._journal, self._count)
        self._flight: deque[asyncio.Task[list[Receipt]]] = deque()
        self._started = time.monotonic()
        self._reported = 0.0
        self._of = 0
        self._done = 0

    @property
    def seconds(self) -> float:
        """Since the importer was made."""
        return time.monotonic() - self._started

    async def run(self, files: Sequence[FoundFile]) -> None:
        """Take in ``files``; those that cannot be are in ``refused``, the others are kept.

        A file whose patient is unknown is tried again once others are in. Raises
        ``StorageError`` if the disk fails. Cancelled: what is durable stays, and running again
        goes on from there.
        """
        self._of = len(files)
        waiting = await self._pass(files)
        known = 0
        while waiting and known != self.counts.patients:
            known = self.counts.patients
            waiting = await self._pass([file for file, _ in waiting])
        for file, error in waiting:
            self._refuse(file, error)
        self._tell(last=True)

    async def _pass(self, files: Sequence[FoundFile]) -> list[tuple[FoundFile, UnknownPatient]]:
        """One walk; the files whose patients are not known yet."""
        waiting: list[tuple[FoundFile, UnknownPatient]] = []
        ahead: asyncio.Task[_ReadAhead] | None = None
        try:
            for file, following in zip(files, [*files[1:], None], strict=True):
                reading = ahead or asyncio.create_task(self._read(file))
                ahead = None
                try:
                    read = await reading
                    if following is not None:
                        ahead = asyncio.create_task(self._read(following))
                    await self._take(read)
                except UnknownPatient as error:
                    waiting.append((file, error))
                    continue
                except StorageError:
                    raise
                except P2pmedError as error:
                    self._refuse(file, error)
                self._done += 1
                self._tell()
        finally:
            await self._abandon(ahead)
        return waiting

    async def _abandon(self, ahead: asyncio.Task[_ReadAhead] | None) -> None:
        """Leave no task behind, whatever ended the walk."""
        tasks: list[asyncio.Task[Any]] = [*self._flight, *([ahead] if ahead else [])]
        self._flight.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse(self, file: FoundFile, error: P2pmedError) -> None:
        why = f"{error}; {error.hint}" if error.hint else str(error)
        self.refused.append(Refused(file.name, why))

    def _tell(self, *, last: bool = False) -> None:
        if not last and self.seconds - self._reported < REPORT_S:
            return
        self._reported = self.seconds
        counts = self.counts
        self._report(
            {
                "done": self._done,
                "of": self._of,
                "what": "files",
                "resources": counts.resources,
                "bytes_per_resource": counts.bytes_stored // max(counts.resources, 1),
                "seconds": round(self.seconds, 1),
                "resources_per_s": round(counts.resources / max(self.seconds, 0.001)),
            }
        )

    # --- reading ----------------------------------------------------------------------------

    async def _read(self, file: FoundFile) -> _ReadAhead:
        raw = await asyncio.to_thread(read_contents, file)
        key = await asyncio.to_thread(self._journal.document, raw)
        known = self._journal.is_complete(key)
        document = None if known else await asyncio.to_thread(read_document, raw)
        return _ReadAhead(file=file, size=len(raw), key=key, document=document)

    async def _take(self, read: _ReadAhead) -> None:
        if read.document is None or self._journal.is_complete(read.key):
            self.counts.skipped += 1
            return
        plan = await self._planner.plan(read.key, read.document)
        self.counts.resumed += bool(plan.ids)
        try:
            await self._write(plan, read.file)
        finally:
            await asyncio.gather(*self._flight, return_exceptions=True)
            self._flight.clear()
        self.counts.files += 1
        self.counts.bytes_in += read.size

    # --- writing ------------------------------------------------------------------------------

    async def _write(self, plan: Plan, file: FoundFile) -> None:
        resources = plan.document.resources
        rest = plan.document.order[len(plan.ids) :]
        for places in _batches(rest, resources):
            seal = [i for i in places if i not in plan.new]
            jobs = [self._job(plan, resources[i], plan.subjects[i]) for i in seal]
            sealed = await asyncio.to_thread(_seal_all, jobs, self._entropy)
            await self._submit_resources(plan, places, dict(zip(seal, sealed, strict=True)))
        await self._settle()
        await self._finish(plan, file)

    def _job(self, plan: Plan, resource: Resource, subject: bytes) -> Sealing:
        return resource, plan.rings[subject], self._node.patients.place(subject)

    async def _submit_resources(
        self, plan: Plan, places: Sequence[int], sealed: dict[int, RecordDraft]
    ) -> None:
        drafts: list[Draft] = []
        ends: dict[int, int] = {}
        for index in places:
            subject, refs = plan.subjects[index], plan.refs[plan.subjects[index]]
            if index in plan.new:
                resource, ring = plan.document.resources[index], plan.rings[subject]
                drafts += self._node.patients.registration(
                    resource, subject, ring=ring, before=len(drafts)
                )
            else:
                drafts += await self._record(sealed[index], subject, refs, before=len(drafts))
            ends[index] = len(drafts) - 1
        number, plan.parts = plan.parts, plan.parts + 1
        people = [plan.new[index] for index in places if index in plan.new]

        def local(ids: Sequence[bytes]) -> list[Row]:
            done = {index: ids[end] for index, end in ends.items()}
            plan.ids.update(done)
            rows = [self._journal.part(plan.key, number, list(done.values()))]
            for person in people:
                key, pseudonym = self._journal.person(person.identity), plan.subjects[person.index]
                rows += self._journal.registered(key, pseudonym, person.references)
            return rows

        await self._submit(drafts, local)
        self.counts.patients += len(people)
        self.counts.resources += len(places)

    async def _record(
        self, sealed: RecordDraft, subject: bytes, refs: tuple[bytes, ...], *, before: int
    ) -> list[Draft]:
        """Drafts of one record; the many parts of a very long one are written at once."""
        if len(sealed.parts) <= PARTS_INLINE_MAX:
            return record_drafts(sealed, subject, refs, before=before)
        part_ids: list[bytes] = []
        for start in range(0, len(sealed.parts), PARTS_INLINE_MAX):
            parts = sealed.parts[start : start + PARTS_INLINE_MAX]
            drafts = [Draft(body=part, subject=subject, refs=refs) for part in parts]
            receipts = await self._node.submit_drafts(drafts)
            self._count(receipts)
            part_ids += [receipt.id for receipt in receipts]
        return [Draft(body=sealed.added(part_ids), subject=subject, refs=refs)]

    async def _finish(self, plan: Plan, file: FoundFile) -> None:
        """The skeleton, the file record, and the note that the document is complete."""
        home, refs = plan.home, plan.refs[plan.home]
        ids = [plan.ids[index] for index in range(len(plan.ids))]
        build = partial(plan.document.bundle.skeleton, ids)
        jobs = [self._job(plan, await asyncio.to_thread(build), home)]
        skeleton = (await asyncio.to_thread(_seal_all, jobs, self._entropy))[0]
        drafts = await self._record(skeleton, home, refs, before=0)
        names = len(drafts)

        def name(made: Sequence[bytes]) -> Any:
            named = FileName(name=file.name, packed=file.packed, skeleton=made[names - 1])
            resource, ring, place = self._job(plan, file_record(named), home)
            record = seal_record(resource, ring=ring, place=place, entropy=self._entropy)
            return record.added()

        def local(made: Sequence[bytes]) -> list[Row]:
            return self._journal.complete(plan.key, plan.parts, made[-1])

        await self._submit([*drafts, Draft(body=name, subject=home, refs=refs)], local)
        await self._settle()

    async def _submit(self, drafts: list[Draft], local: LocalRows) -> None:
        """Hand a submission to the node; waits only while too many are on their way."""
        while len(self._flight) >= IN_FLIGHT:
            await self._land()
        task = asyncio.create_task(self._node.submit_drafts(drafts, local=local))
        self._flight.append(task)

    async def _settle(self) -> None:
        """Wait until all that was submitted is durable."""
        while self._flight:
            await self._land()

    async def _land(self) -> None:
        self._count(await self._flight.popleft())

    def _count(self, receipts: Sequence[Receipt]) -> None:
        self.counts.records += len(receipts)
        self.counts.bytes_stored += sum(len(receipt.entry.raw) for receipt in receipts)


def _batches(places: Sequence[int], resources: Sequence[Resource]) -> Iterator[list[int]]:
    """Places of resources that are sealed and submitted together."""
    batch: list[int] = []
    drafts = size = 0
    for place in places:
        length = len(resources[place].raw)
        # Sealed, it is hardly ever longer; what 64 KiB parts it could take is counted.
        needs = 2 + length // (56 * 1024)
        if batch and (drafts + needs > BATCH_MAX or size + length > BATCH_BYTES_MAX):
            yield batch
            batch, drafts, size = [], 0, 0
        batch.append(place)
        drafts += needs if needs > 2 else 1
        size += length
    if batch:
        yield batch


def _seal_all(jobs: Sequence[Sealing], entropy: Entropy) -> list[RecordDraft]:
    """Runs in a thread: touches nothing but its arguments."""
    return [
        seal_record(resource, ring=ring, place=place, entropy=entropy)
        for resource, ring, place in jobs
    ]
