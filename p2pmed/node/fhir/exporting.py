"""FHIR files out of the ledger: every document as it came in, and whatever came in otherwise.

Rule: what is written is what this device's keys open, and what they do not open is said. Each
file record leads to a skeleton, and that to the resources, which are put back between its pieces:
the very bytes of the import. A document of which anything is missing or closed is left out and
named; what can be read of it goes, with records that came from no file, into one collection
bundle per patient, named by the pseudonym.

A retracted record, and one that a later version took the place of, stays in the document it came
with (the file is a copy, not an opinion), is counted, and is in no collection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2pmed.errors import (
    DecodeError,
    Denied,
    InvalidTransaction,
    LocalProtocolError,
    StorageError,
)
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.fhir import SKELETON_TYPE, join_bundle, read_skeleton
from p2pmed.medical.records import OpenedBody, record_row
from p2pmed.node.fhir.documents import FILE_TYPE, FileName, read_file_record
from p2pmed.node.fhir.files import open_folder, safe_name, write_contents
from p2pmed.node.fhir.plan import DIRECTORY

if TYPE_CHECKING:
    from p2pmed.ledger.state import Readable
    from p2pmed.node.node import Node

__all__ = ["Exporter"]

RECORDS_A_SLICE: Final = 32
"""Opened before other tasks get their turn: some milliseconds."""
REPORT_S: Final = 0.1

Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True, repr=False)
class _Life:
    """What this device reads of one patient."""

    resources: dict[bytes, bytes] = field(default_factory=dict)
    """Resources by their transaction, in causal order."""
    skeletons: dict[bytes, bytes] = field(default_factory=dict)
    files: list[tuple[bytes, FileName]] = field(default_factory=list)
    changed: set[bytes] = field(default_factory=set)
    """Retracted, or superseded by a later version."""


class Exporter:
    """Writes one node's readable records into a folder. Not for concurrent use."""

    def __init__(self, node: Node, folder: Path, report: Report) -> None:
        self.files = 0
        self.resources = 0
        self.patients = 0
        self.bytes_out = 0
        self.changed_since = 0
        self.unreadable = {"patients": 0, "records": 0}
        self.left_out: list[dict[str, str]] = []
        self._node = node
        self._folder = folder
        self._report = report
        self._names: set[str] = set()
        self._loose: dict[bytes, list[bytes]] = {}
        """By patient: records in no document of the same patient."""
        self._lent: set[bytes] = set()
        """Records in a document that is kept with another patient, or in the directory."""
        self._started = time.monotonic()
        self._reported = 0.0
        self._opened = 0

    @property
    def seconds(self) -> float:
        """Since the exporter was made."""
        return time.monotonic() - self._started

    async def run(self) -> None:
        """Export everything that can be read.

        Raises ``ConfigError`` if the folder is not new, empty and writable, ``StorageError`` if
        the disk fails. Cancelled: the files written so far are whole.
        """
        await asyncio.to_thread(open_folder, self._folder)
        await self._node.catch_up()
        subjects = self._node.patients.known()
        for done, subject in enumerate(subjects):
            await self._export(subject)
            self._tell(done, len(subjects))
        # Only now is it known what is in no document, also not in one of several patients.
        for subject, records in self._loose.items():
            await self._collect(subject, [record for record in records if record not in self._lent])
        self._tell(len(subjects), len(subjects), last=True)

    def _tell(self, done: int, of: int, *, last: bool = False) -> None:
        if not last and self.seconds - self._reported < REPORT_S:
            return
        self._reported = self.seconds
        self._report(
            {
                "done": done,
                "of": of,
                "what": "patients",
                "resources": self.resources,
                "seconds": round(self.seconds, 1),
                "resources_per_s": round(self.resources / max(self.seconds, 0.001)),
            }
        )

    # --- reading ------------------------------------------------------------------------------

    async def _export(self, subject: bytes) -> None:
        life = await self._read(subject)
        if life is None:
            return
        self.patients += DIRECTORY.raw not in life.resources.values()
        placed: set[bytes] = set()
        for record, file in life.files:
            placed |= await self._rebuild(life, record, file)
        self._lent |= placed - life.resources.keys()
        self._loose[subject] = [
            record
            for record, resource in life.resources.items()
            if record not in placed | life.changed and resource != DIRECTORY.raw
        ]

    async def _collect(self, subject: bytes, records: list[bytes]) -> None:
        """Write a patient's records that are in no document."""
        found = []
        for record in records:
            await self._give_way()
            resource = await self._open(record)
            if resource is not None:
                found.append(resource)
        if found:
            await self._write(f"{subject.hex()}.json", _collection(found), packed=False)
            self.resources += len(found)

    async def _read(self, subject: bytes) -> _Life | None:
        """Open everything about one patient; ``None`` if this device holds no key."""
        life = _Life()
        try:
            self._node.patients.ring(subject)
        except Denied:
            self.unreadable["patients"] += 1
            return None
        entries = self._node.patients.entries(subject)
        async with self._node.reads.announced(entries):
            await self._open_life(life, entries)
        return life

    async def _open_life(self, life: _Life, entries: Sequence[Entry]) -> None:
        state = self._node.state()
        for entry in entries:
            await self._give_way()
            try:
                opened = self._node.patients.read(entry)
                file = _file_of(opened)
            except (Denied, DecodeError, LocalProtocolError):
                self.unreadable["records"] += 1
                continue
            if opened is None:
                continue
            if file is not None:
                life.files.append((entry.id, file))
            elif opened.type == SKELETON_TYPE:
                life.skeletons[entry.id] = opened.resource
            elif "/" not in opened.type:
                life.resources[entry.id] = opened.resource
                if _is_changed(state, entry.id):
                    life.changed.add(entry.id)

    async def _give_way(self) -> None:
        self._opened += 1
        if self._opened % RECORDS_A_SLICE == 0:
            await asyncio.sleep(0)

    # --- writing ------------------------------------------------------------------------------

    async def _rebuild(self, life: _Life, record: bytes, file: FileName) -> set[bytes]:
        """Write one document as it came in; the records in it, none if it cannot be."""
        name = safe_name(file.name, packed=file.packed, instead=record.hex()[:16])
        skeleton = life.skeletons.get(file.skeleton)
        if skeleton is None:
            self._leave_out(name, "its skeleton cannot be opened with this device's keys")
            return set()
        try:
            ids = read_skeleton(skeleton).record_ids
        except InvalidTransaction:
            self._leave_out(name, "its skeleton is not one that this version reads")
            return set()
        resources = [await self._resource(life, found) for found in ids]
        closed = sum(resource is None for resource in resources)
        if closed:
            many = f"{closed} of its {len(ids)} records"
            self._leave_out(name, f"{many} cannot be opened with this device's keys")
            return set()
        contents = join_bundle(skeleton, [resource or b"" for resource in resources])
        await self._write(name, contents, packed=file.packed)
        self.resources += len(ids)
        self.changed_since += len(life.changed.intersection(ids))
        return set(ids)

    async def _resource(self, life: _Life, record: bytes) -> bytes | None:
        """A resource by its transaction, this patient's or another's."""
        return life.resources.get(record) or await self._open(record)

    async def _open(self, record: bytes) -> bytes | None:
        opened = await self._node.patients.opened(self._node.find(record))
        return opened[1] if opened else None

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out.append({"file": name, "why": why})

    async def _write(self, name: str, contents: bytes, *, packed: bool) -> None:
        name = self._free(name)
        write = asyncio.to_thread(write_contents, self._folder, name, contents, packed=packed)
        self.bytes_out += await write
        self.files += 1

    def _free(self, name: str) -> str:
        """``name``, or with a number where two documents had the same."""
        head, dot, ending = name.rpartition("/")[2].partition(".")
        above = name[: len(name) - len(head + dot + ending)]
        for candidate in _numbered(above + head, dot + ending):
            if candidate.casefold() not in self._names:
                self._names.add(candidate.casefold())
                return candidate
        raise StorageError("no name is free")


def _numbered(head: str, ending: str) -> Iterator[str]:
    yield head + ending
    for number in range(2, 1_000_000):
        yield f"{head} ({number}){ending}"


def _file_of(opened: OpenedBody | None) -> FileName | None:
    """What a file record says; ``None`` for any other. ``InvalidTransaction`` if it is rubbish."""
    if opened is None or opened.type != FILE_TYPE:
        return None
    return read_file_record(opened.resource)


def _is_changed(state: Readable, record: bytes) -> bool:
    row = record_row(state, record)
    return row is not None and (row.retracted or bool(row.superseded_by))


def _collection(resources: list[bytes]) -> bytes:
    """A FHIR bundle of resources that came from no file."""
    entries = b",".join(b'{"resource":' + resource + b"}" for resource in resources)
    return b'{"resourceType":"Bundle","type":"collection","entry":[' + entries + b"]}"
