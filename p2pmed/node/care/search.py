"""Search over sealed records: ``node.search``.

Rule of this file: tokens propose, an opened record decides. What a token names by chance, or
by somebody's lie, falls away when the record is opened; what this device may not open is
counted and not named. Implements ``docs/protocols/search.md``, clauses 18 to 20.

Whatever this device can open and finds without tokens it indexes by the way, a bounded number
at each search, so that an index fills and moves to a new epoch without a night's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from p2pmed.errors import ConfigError, Denied
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.consent import Purpose
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.patients import patient_row
from p2pmed.medical.privacy.asking import PersonQuery
from p2pmed.medical.privacy.blind_index import (
    PERSON_TOKENS,
    RECORD_TOKENS,
    RECORDS_MAX,
    Field,
    IndexEntry,
    IndexUse,
    drawn_tokens,
    query_tokens,
    scope_id,
    scope_row,
)
from p2pmed.medical.privacy.names import NAME_CHARS_MAX
from p2pmed.medical.privacy.terms import Term, code_term, person_terms, record_terms
from p2pmed.node.care.index_keys import IndexKeys
from p2pmed.node.care.index_table import IndexTable
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["FoundPatient", "FoundPatients", "FoundRecord", "Search"]

OPENED_MAX: Final = 160
"""Candidates opened for one search: a third of a millisecond each."""
WEAK_OPENED_MAX: Final = 48
"""Of these, candidates that share a single word of a name and nothing else."""
FOUND_MAX: Final = 100
ENOUGH: Final = 5
"""Candidates by what says much, beyond which single words of a name are not asked for."""
INDEX_BY_THE_WAY: Final = 128
"""Records indexed at a search, if any wait: some tens of milliseconds."""
SUBMIT_AT_ONCE: Final = 128
LOOKED_AT_ONCE: Final = 512
EPOCHS_ASKED: Final = 4
"""Newest epochs that a search asks for; what is older has been indexed again, or will be."""
SLICE: Final = 16
WEIGHT: Final = {
    Field.IDENTIFIER: 12,
    Field.LETTERS: 8,
    Field.SOUNDS: 6,
    Field.PHONE: 6,
    Field.BIRTH: 4,
    Field.WORD: 2,
    Field.CODE: 1,
    Field.DRUG: 1,
}
"""How much a token says before anything is opened: the order in which candidates are."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FoundPatient:
    """A patient whom this device may open and who fits what was asked."""

    patient: bytes
    """Pseudonym, 16 bytes."""
    score: int
    """0 to 100; the surest first."""
    demographics: bytes
    """The FHIR Patient as it came in."""
    reasons: tuple[str, ...]
    """What fits, as codes."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FoundPatients:
    """The answer to a search for people."""

    patients: tuple[FoundPatient, ...]
    closed: int
    """People whom the index names and this device may not open: ask them for a grant."""
    more: bool
    """Whether candidates were left unopened: ask for more than a common name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecord:
    """A record with the code that was asked for."""

    patient: bytes
    record: bytes
    """Transaction id."""


class Search:
    """``node.search``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.table = IndexTable(
            disk=node.world.disk,
            logs=node.replica.logs,
            body=node.body,
            flush=node.shell.flush,
        )
        self.keys = IndexKeys(node, self.table)
        self._looked_until = b""
        self._places: dict[str, str | None] = {}
        """During one indexing: whose index takes patients of a catchment."""
        self._moved: dict[bytes, int] = {}
        """By index: the epoch to which all is known to have moved."""

    # --- asking -------------------------------------------------------------------------------

    async def patients(
        self,
        *,
        name: str = "",
        birth: str = "",
        identifier: str = "",
        phone: str = "",
        limit: int = 20,
    ) -> FoundPatients:
        """People who fit, ranked; those only whom this device may open.

        ``name`` in any script and order, ``birth`` as ``YYYY-MM-DD``, where day and month may
        be changed over. Raises ``ConfigError`` if nothing is asked for or a text is too long,
        ``Denied`` if this device holds no index key. Cancelling changes nothing.
        """
        asked = PersonQuery.of(name=name, birth=birth, number=identifier, phone=phone)
        if not 1 <= limit <= FOUND_MAX:
            raise ConfigError(f"limit {limit} where 1 to {FOUND_MAX} can be")
        await self._prepare()
        votes = await self._votes(asked)
        ranked = sorted(votes, key=lambda patient: (-votes[patient], patient))
        strong = sum(vote > WEIGHT[Field.WORD] for vote in votes.values())
        room = min(OPENED_MAX, strong + WEAK_OPENED_MAX)
        found, closed = [], 0
        async with self._node.reads.announced(self._node.reads.registrations(ranked[:room])):
            for number, patient in enumerate(ranked[:room]):
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                raw = self._demographics(patient)
                if raw is None:
                    closed += 1
                    continue
                score, reasons = asked.score(raw)
                if score:
                    found.append(
                        FoundPatient(
                            patient=patient, score=score, demographics=raw, reasons=reasons
                        )
                    )
        found.sort(key=lambda one: (-one.score, one.patient))
        more = len(ranked) > room or len(found) > limit
        return FoundPatients(patients=tuple(found[:limit]), closed=closed, more=more)

    async def records(
        self,
        *,
        code: str = "",
        drug: str = "",
        category: Category | None = None,
        limit: int = FOUND_MAX,
    ) -> list[FoundRecord]:
        """Records with a diagnosis or procedure ``code``, or a ``drug``'s, that open here.

        ``category`` narrows it to one. Raises ``ConfigError`` or ``Denied`` as ``patients``.
        """
        terms = [(Field.CODE, code_term(code))] if code.strip() else []
        terms += [(Field.DRUG, code_term(drug))] if drug.strip() else []
        if not terms or max(len(code), len(drug)) > NAME_CHARS_MAX:
            raise ConfigError("a code is needed", hint="such as E11.9, or a drug's A10BA02")
        await self._prepare()
        named: dict[tuple[bytes, bytes], None] = {}
        for key_category in [category] if category else list(Category):
            for found in self._named(terms, key_category):
                named[found] = None
            await asyncio.sleep(0)
        records: list[FoundRecord] = []
        wanted = [pair for pair in named if pair[1]]
        for at in range(0, len(wanted), SUBMIT_AT_ONCE):
            if len(records) >= limit:
                break
            some = wanted[at : at + SUBMIT_AT_ONCE]
            entries = [entry for _, record in some if (entry := self._node.find(record))]
            async with self._node.reads.announced(entries):
                for patient, record in some:
                    if len(records) < limit and self._says(record, terms):
                        records.append(FoundRecord(patient=patient, record=record))
        return records

    async def _prepare(self) -> None:
        self._node.sessions.must_be_open()
        await self._node.catch_up()
        await self.table.refresh()
        if not self.keys.held(IndexUse.SEARCH):
            raise Denied(
                "this device holds no key of a search index",
                hint="`p2pmed find begin` makes one for its place, or a colleague admits it",
            )
        await self.index(INDEX_BY_THE_WAY)

    async def _votes(self, asked: PersonQuery) -> dict[bytes, int]:
        """Candidates by how much their tokens say; the words of a name only if it needs them."""
        votes: dict[bytes, int] = {}
        for terms in (asked.whole, asked.words):
            if len(votes) >= ENOUGH:
                break
            for term in terms:
                for patient, record in dict.fromkeys(self._named([term], Category.DEMOGRAPHICS)):
                    if not record:
                        votes[patient] = votes.get(patient, 0) + WEIGHT[term[0]]
                await asyncio.sleep(0)
        return votes

    def _named(self, terms: Iterable[Term], category: Category) -> Iterator[tuple[bytes, bytes]]:
        """What tokens of ``terms`` name, under every index key of ``category`` held here."""
        wanted = list(terms)
        for _, ring in self.keys.held(IndexUse.SEARCH):
            for key in ring:
                if key.category is category and key.epoch > ring.epoch - EPOCHS_ASKED:
                    for field, term in wanted:
                        for token in query_tokens(key, field, term):
                            yield from self.table.named_by(token)

    def _demographics(self, patient: bytes) -> bytes | None:
        row = patient_row(self._node.state(), patient)
        entry = self._node.find(row.entry) if row else None
        opened = self._node.patients.open(entry) if entry else None
        return opened[1] if opened else None

    def _says(self, record: bytes, terms: Sequence[Term]) -> bool:
        entry = self._node.find(record)
        opened = self._node.patients.open(entry) if entry else None
        said = record_terms(opened[1]) if opened else []
        return any(term in said for term in terms)

    # --- indexing -----------------------------------------------------------------------------

    async def index(self, count_max: int = 2**31) -> int:
        """Index what this device can open and no index names, or an old epoch's; how many.

        Needs the newest keys of the place; what cannot be opened is left to others.
        """
        await self.table.refresh()
        groups: dict[tuple[str, bytes], list[Entry]] = {}
        self._places.clear()
        count = 0
        for entry in self._waiting(count_max > INDEX_BY_THE_WAY):
            if count >= count_max:
                break
            place = self._place_of(entry)
            if place is not None:
                groups.setdefault((place, entry.envelope.subject), []).append(entry)
                count += 1
        drafts: list[Draft] = []
        for number, ((place, patient), entries) in enumerate(groups.items()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            async with self._node.reads.announced(entries, purpose=Purpose.UPKEEP):
                drafts += self._drafts(place, patient, entries)
        for at in range(0, len(drafts), SUBMIT_AT_ONCE):
            await self._node.submit_drafts(drafts[at : at + SUBMIT_AT_ONCE])
        if drafts:
            await self.table.refresh()
        return count

    def _unsettled(self, whole: bool) -> Iterator[bytes]:
        """Ids that wait: all, or some, going round, so that closed ones do not block the others."""
        at = b"" if whole else self._looked_until
        some = self.table.unindexed(at, LOOKED_AT_ONCE)
        if at and len(some) < LOOKED_AT_ONCE:
            some += self.table.unindexed(b"", LOOKED_AT_ONCE - len(some))
        yield from some
        self._looked_until = some[-1] if len(some) == LOOKED_AT_ONCE else b""
        while whole and len(some) == LOOKED_AT_ONCE:
            some = self.table.unindexed(some[-1], LOOKED_AT_ONCE)
            yield from some

    def _waiting(self, whole: bool) -> Iterator[Entry]:
        """Sealed entries without tokens of the newest epoch, new ones first."""
        for entry_id in self._unsettled(whole):
            entry = self._node.find(entry_id)
            if entry is None or self._is_indexed(entry):
                self.table.settle(entry_id)
            else:
                yield entry
        state = self._node.state()
        for place, ring in self.keys.held(IndexUse.SEARCH):
            scope = scope_id(IndexUse.SEARCH, place)
            row = scope_row(state, scope)
            if row is None or ring.epoch < row.epoch or self._moved.get(scope) == row.epoch:
                continue
            outdated = list(self.table.outdated(scope, row.epoch))
            if not outdated:
                self._moved[scope] = row.epoch
            for target in outdated:
                patient = patient_row(state, target) if len(target) == 16 else None
                entry = self._node.find(patient.entry if patient else target)
                if entry is not None:
                    yield entry

    def _place_of(self, entry: Entry) -> str | None:
        """Whose index takes an entry: the nearest at or above the patient's catchment."""
        row = patient_row(self._node.state(), entry.envelope.subject)
        if row is None:
            return None
        if row.catchment not in self._places:
            place = row.catchment or self.keys.own_place()
            found = self.keys.for_place(IndexUse.SEARCH, place)
            self._places[row.catchment] = found[0] if found else None
        return self._places[row.catchment]

    def _is_indexed(self, entry: Entry) -> bool:
        place = self._place_of(entry)
        target = entry.envelope.subject if entry.kind == "patient.register" else entry.id
        if place is None:
            return False
        row = scope_row(self._node.state(), scope_id(IndexUse.SEARCH, place))
        held = self.table.indexed(scope_id(IndexUse.SEARCH, place), target)
        return row is not None and held is not None and held >= row.epoch

    def _drafts(self, place: str, patient: bytes, entries: Sequence[Entry]) -> Iterator[Draft]:
        ring = self.keys.ring(IndexUse.SEARCH, place)
        assert ring is not None  # it was found for this place
        person = b""
        records: list[tuple[bytes, bytes]] = []
        for entry in entries:
            opened = self._node.patients.open(entry)
            if opened is None:
                continue
            if entry.kind == "patient.register":
                person = self._tokens(
                    ring, Category.DEMOGRAPHICS, person_terms(opened[1]), person=True
                )
            elif "/" not in opened[0]:
                category = read_resource(opened[1]).category
                tokens = self._tokens(ring, category, record_terms(opened[1]), person=False)
                records.append((entry.id, tokens))
        for at in range(0, max(len(records), 1), RECORDS_MAX):
            some = records[at : at + RECORDS_MAX]
            first = person if at == 0 else b""
            if first or some:
                yield self._draft(place, ring.epoch, patient, first, some)

    def _tokens(
        self, ring: KeyRing, category: Category, terms: Sequence[Term], *, person: bool
    ) -> bytes:
        return drawn_tokens(
            ring.current(category),
            terms,
            count=PERSON_TOKENS if person else RECORD_TOKENS,
            entropy=self._node.world.entropy,
        )

    def _draft(
        self,
        place: str,
        epoch: int,
        patient: bytes,
        person: bytes,
        records: Sequence[tuple[bytes, bytes]],
    ) -> Draft:
        body = IndexEntry(
            scope=scope_id(IndexUse.SEARCH, place),
            epoch=epoch,
            person=bool(person),
            records=tuple(record for record, _ in records),
            tokens=person + b"".join(tokens for _, tokens in records),
        )
        return Draft(body=body, subject=patient, refs=self._node.patients.refs(patient))

    def forget_keys(self) -> None:
        """Drop every open key: the session is over."""
        self.keys.forget()
