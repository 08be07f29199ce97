"""A patient's records as they follow from each other, each with what is odd about it.

Rule of this file: what is here is shown, opened where this device may, closed where it may not,
and marked where a reader must know something first. Of a log whose author signed two stories the
one that a block orders is shown as the others are, the other one marked. Implements medical
notes, section 1 rows 1 and 4, and ``docs/protocols/records.md``, clauses 20.1 and 20.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical.care.competence import flag_of
from p2pmed.medical.care.dispute_rows import disputes_of
from p2pmed.medical.care.timeline import Mark, causal_order, is_late, rivals_of
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.privacy.links import person_of
from p2pmed.medical.records import RecordAmend, record_row
from p2pmed.medical.rejections import Rejection

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["TimelineItem", "Timelines"]

ENTRIES_A_SLICE: Final = 64
"""Records opened before other tasks get their turn: some milliseconds."""
APPLIED: Final = "applied"
RECORDS: Final = frozenset({"patient.register", "record.add", "record.amend"})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TimelineItem:
    """One record of a patient, opened."""

    id: bytes
    patient: bytes
    """The pseudonym it was written under: of linked ones, which."""
    kind: str
    """FHIR resource type; empty if this device may not read it."""
    resource: bytes | None
    """The FHIR JSON as it came in; ``None`` if this device may not read it."""
    occurred_ms: int | None
    recorded_ms: int
    author: bytes
    final: bool
    retracted: bool
    superseded: bool
    supersedes: bytes = b""
    """The record whose place it takes, or empty."""
    marks: tuple[Mark, ...] = ()
    """What a reader must know before trusting it, in a fixed order."""
    rivals: tuple[bytes, ...] = ()
    """Other amendments of the same record, made apart."""
    disputes: tuple[bytes, ...] = ()
    """Every objection of the patient, answered ones too: ``node.disputes`` opens them."""
    refusal: str = ""
    """Name of the ``Rejection``, or of what was lacking in who did it; usually empty."""


class Timelines:
    """``node.timelines``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def of(
        self,
        patient: bytes,
        *,
        as_of_ms: int | None = None,
        person: bool = False,
        bundles: bool = False,
    ) -> list[TimelineItem]:
        """The patient's records, causes first; ``as_of_ms``: those that were recorded up to then.

        With ``person``, those of all pseudonyms that links in force join to this one. What an
        import notes beside the records (types with a slash) comes only with ``bundles``. May be
        cancelled at any time.
        """
        await self._node.catch_up()
        names = person_of(self._node.state(), patient) if person else (patient,)
        story = _Story()
        for name in names:
            self._gather(name, story)
        entries = [
            entry
            for entry in causal_order(story.entries)
            if as_of_ms is None or entry.envelope.hlc >> 16 <= as_of_ms
        ]
        async with self._node.reads.announced(entries):
            items = await self._items(entries, names, story)
        return [item for item in items if bundles or "/" not in item.kind]

    async def _items(
        self, entries: Sequence[Entry], names: Sequence[bytes], story: _Story
    ) -> list[TimelineItem]:
        state = self._node.state()
        readers = {name: _Reader(self._node, state, name) for name in names}
        items = []
        for number, entry in enumerate(entries):
            if number % ENTRIES_A_SLICE == ENTRIES_A_SLICE - 1:
                await asyncio.sleep(0)  # a long life must not hold the loop
                for reader in readers.values():
                    reader.renew()
            forked = entry.id in story.lost
            items.append(readers[entry.envelope.subject].item(entry, forked=forked))
        return items

    def _gather(self, patient: bytes, story: _Story) -> None:
        """Add a patient's records; of a forked log, what a block orders and what none does."""
        logs = self._node.replica.logs
        forked = {
            lane.key: self._ordered(lane.key, lane.forked_at or 0) for lane in logs if lane.frozen
        }
        known = set()
        for entry in logs.about(patient):
            if entry.kind not in RECORDS:
                continue
            known.add(entry.id)
            story.entries.append(entry)
            lane = logs.lane(entry.lane) if entry.lane in forked else None
            if lane is not None and entry.seq >= (lane.forked_at or 0):
                story.lost.update({entry.id} - forked[entry.lane].keys())
        for branch in forked.values():
            story.entries += [
                entry
                for entry in branch.values()
                if entry.envelope.subject == patient
                and entry.id not in known
                and entry.kind in RECORDS
            ]

    def _ordered(self, lane: LaneKey, start: int) -> dict[bytes, Entry]:
        """Entries of a forked log from ``start`` on that the home ledger orders, by id."""
        home = self._node.replica.home
        tip = home.chain.ordered_tip(lane) if home is not None else None
        if tip is None:
            return {}
        found = self._node.replica.logs.branch(lane, start, *tip)
        return {entry.id: entry for entry in found or ()}


@dataclass(slots=True, repr=False)
class _Story:
    """Entries to be told, and which of them are in a branch that no block orders."""

    entries: list[Entry] = field(default_factory=list)
    lost: set[bytes] = field(default_factory=set)


class _Reader:
    """One patient's entries made into items: keys, rows and disputes looked up once."""

    def __init__(self, node: Node, state: Readable, patient: bytes) -> None:
        self._node = node
        self._state = state
        self._patient = patient
        self.renew()
        self._disputes: dict[bytes, list[bytes]] = {}
        self._open: set[bytes] = set()
        for name, row in disputes_of(state, patient).items():
            self._disputes.setdefault(row.record, []).append(name)
            if not row.answer:
                self._open.add(row.record)

    def renew(self) -> None:
        """Ask again for the keys: leave may have ended while others had their turn."""
        try:
            self._ring = self._node.patients.ring(self._patient)
        except Denied:
            self._ring = KeyRing(self._patient)

    def item(self, entry: Entry, *, forked: bool) -> TimelineItem:
        """What a record is in a timeline."""
        body = self._node.body(entry)
        kind, resource, occurred = self._opened(entry)
        recorded = entry.envelope.hlc >> 16
        row = None if forked else record_row(self._state, entry.id)
        target = body.supersedes if isinstance(body, RecordAmend) else b""
        final, refusal = self._standing(entry, forked)
        rivals = () if not row or not target else rivals_of(self._state, target)
        superseded = bool(row and row.superseded_by and rivals_of(self._state, entry.id))
        flag = flag_of(self._state, entry.id)
        marks = {
            Mark.PROVISIONAL: not final and not forked,
            Mark.LATE: is_late(occurred, recorded) and kind != "Patient",
            Mark.RETRACTED: row is not None and row.retracted,
            Mark.SUPERSEDED: superseded,
            Mark.CONFLICT: entry.id in rivals and len(rivals) > 1,
            Mark.DISPUTED: entry.id in self._open,
            Mark.CONTESTED: refusal == Rejection.AUTHOR_REVOKED,
            Mark.REFUSED: bool(refusal) and refusal != Rejection.AUTHOR_REVOKED,
            Mark.UNQUALIFIED: flag is not None,
            Mark.FORKED: forked,
        }
        return TimelineItem(
            id=entry.id,
            patient=self._patient,
            kind=kind,
            resource=resource,
            occurred_ms=occurred,
            recorded_ms=recorded,
            author=entry.author,
            final=final,
            retracted=marks[Mark.RETRACTED],
            superseded=superseded,
            supersedes=target,
            marks=_set(marks.items()),
            rivals=tuple(name for name in rivals if name != entry.id) if len(rivals) > 1 else (),
            disputes=tuple(self._disputes.get(entry.id, ())),
            refusal=refusal or (flag.reason if flag is not None else ""),
        )

    def _standing(self, entry: Entry, forked: bool) -> tuple[bool, str]:
        """Whether it is final, and why a rule says no to it, if one does."""
        place = self._node.final_place(entry)
        if place is not None:
            return True, "" if place.verdict.applied else place.verdict.code
        if forked:
            return False, ""
        code = self._node.replica.overlay.verdict_of(entry).code
        return False, "" if code == APPLIED else code

    def _opened(self, entry: Entry) -> tuple[str, bytes | None, int | None]:
        try:
            opened = self._node.opener.read(entry, ring=self._ring)
        except (Denied, DecodeError, LocalProtocolError):
            opened = None
        if opened is None:
            return "", None, None
        return opened.type, opened.resource, opened.occurred_ms


def _set(marks: Iterable[tuple[Mark, bool]]) -> tuple[Mark, ...]:
    return tuple(mark for mark, is_set in marks if is_set)
