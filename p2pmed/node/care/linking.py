"""Duplicate patients on a node: ``node.linking``.

Rule of this file: it proposes, people decide, and every decision can be taken back. Encodings
are sealed to holders of the linkage key; candidates are worked out on this machine and stay
on it. Implements ``docs/protocols/search.md``, clauses 21 to 39.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, CategoryKey
from p2pmed.medical.patients import PATIENTS, patient_row
from p2pmed.medical.privacy.blind_index import IndexUse, scope_id
from p2pmed.medical.privacy.links import (
    LINKS,
    Link,
    PatientLink,
    PatientUnlink,
    links_of,
    person_of,
)
from p2pmed.medical.privacy.matching import (
    CANDIDATE_SCORE_MIN,
    Encoding,
    Match,
    MatchEntry,
    candidates,
    encode_person,
    open_encoding,
    seal_encoding,
)
from p2pmed.medical.privacy.pseudonyms import purpose_pseudonym
from p2pmed.medical.privacy.terms import person_of_resource
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.patients import TimelineItem
    from p2pmed.node.receipts import Receipt

__all__ = ["Linking"]

SLICE = 16
SUBMIT_AT_ONCE = 128


class Linking:
    """``node.linking``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- deciding -----------------------------------------------------------------------------

    async def link(self, one: bytes, other: bytes, *, reason: str, score: int = 0) -> Receipt:
        """Say that two pseudonyms are one person; ``reason`` is a code such as ``same-card``.

        Raises ``LocalProtocolError`` if one is unknown here, or they are one already.
        """
        await self._node.catch_up()
        state = self._node.state()
        rows = [patient_row(state, patient) for patient in (one, other)]
        if None in rows or one == other:
            raise LocalProtocolError("two patients that are registered are needed")
        if other in person_of(state, one):
            raise LocalProtocolError("these are linked already", hint="see `p2pmed link show`")
        refs = tuple(dict.fromkeys((*self._refs(one), *self._refs(other))))
        body = PatientLink(other=other, reason=reason, score=score)
        return (await self._node.submit_drafts([Draft(body=body, subject=one, refs=refs)]))[-1]

    async def unlink(self, link: bytes, *, reason: str) -> Receipt:
        """Take a link back. Raises ``LocalProtocolError`` if it is unknown or taken back."""
        await self._node.catch_up()
        row = LINKS.get(self._node.state(), link)
        if row is None or row.undone_by:
            raise LocalProtocolError("no such link in force", hint="see `p2pmed link show`")
        refs = tuple(dict.fromkeys((*self._refs(row.one), link)))
        draft = Draft(body=PatientUnlink(link=link, reason=reason), subject=row.one, refs=refs)
        return (await self._node.submit_drafts([draft]))[-1]

    def links(self, patient: bytes) -> list[Link]:
        """Every link of a patient, those taken back too."""
        return links_of(self._node.state(), patient)

    def person(self, patient: bytes) -> tuple[bytes, ...]:
        """All pseudonyms that are this person by links in force, itself included."""
        return person_of(self._node.state(), patient)

    async def timeline(self, patient: bytes) -> list[tuple[bytes, TimelineItem]]:
        """The records of all pseudonyms of a person together, by when they were written.

        Each comes with its pseudonym. What this device may not open is marked, as in
        ``node.patients.timeline``.
        """
        await self._node.catch_up()
        items: list[tuple[bytes, TimelineItem]] = []
        for pseudonym in self.person(patient):
            items += [(pseudonym, item) for item in await self._node.patients.timeline(pseudonym)]
        return sorted(items, key=lambda pair: (pair[1].recorded_ms, pair[1].id))

    # --- proposing ----------------------------------------------------------------------------

    async def encode(self, count_max: int = 2**31) -> int:
        """Write the encodings of patients whom this device may open and nobody encoded; how many.

        Raises ``Denied`` if this device holds no linkage key.
        """
        place, key = await self._key()
        scope = scope_id(IndexUse.LINKAGE, place)
        drafts: list[Draft] = []
        reads, waiting = self._node.reads, list(self._unencoded(key))
        for at, patient in enumerate(waiting):
            if len(drafts) >= count_max:
                break
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            async with reads.announced(reads.registrations([patient]), purpose=Purpose.UPKEEP):
                raw = self._demographics(patient)
            if raw is None:
                continue
            encoding = encode_person(key, person_of_resource(raw))
            sealed = seal_encoding(key, encoding, patient, self._node.world.entropy)
            body = MatchEntry(scope=scope, epoch=key.epoch, sealed=sealed)
            drafts.append(Draft(body=body, subject=patient, refs=self._refs(patient)))
        for at in range(0, len(drafts), SUBMIT_AT_ONCE):
            await self._node.submit_drafts(drafts[at : at + SUBMIT_AT_ONCE])
        await self._node.search.table.refresh()
        return len(drafts)

    async def candidates(self, *, score_min: int = CANDIDATE_SCORE_MIN) -> list[Match]:
        """Pairs that may be one person and are not linked, the surest first, with reasons.

        Only pseudonyms: whom this device may open it can show. Raises ``Denied`` without the
        linkage key. Works in a thread; cancelling leaves it to its end.
        """
        _, key = await self._key()
        encodings: dict[bytes, Encoding] = {}
        for number, (patient, entry_id) in enumerate(list(self._node.search.table.matches())):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            entry = self._node.find(entry_id)
            body = self._node.body(entry) if entry else None
            if isinstance(body, MatchEntry):
                with contextlib.suppress(DecodeError):  # another epoch's, or nobody's
                    encodings[patient] = open_encoding(key, body.sealed, patient)
        found = await asyncio.to_thread(candidates, encodings, score_min=score_min)
        state = self._node.state()
        return [match for match in found if match.other not in person_of(state, match.one)]

    async def _key(self) -> tuple[str, CategoryKey]:
        """The linkage key that this device holds, and its place."""
        await self._node.catch_up()
        await self._node.search.table.refresh()
        keys = self._node.search.keys
        found = keys.for_place(IndexUse.LINKAGE, keys.own_place())
        if found is None:
            raise Denied(
                "this device holds no linkage key",
                hint="`p2pmed find begin --linkage` makes one, or who has it admits this device",
            )
        return found[0], found[1].current(Category.DEMOGRAPHICS)

    def _unencoded(self, key: CategoryKey) -> Iterator[bytes]:
        """Patients without an encoding of the newest epoch."""
        for patient, _ in list(PATIENTS.scan(self._node.state())):
            entry_id = self._node.search.table.match_of(patient)
            entry = self._node.find(entry_id) if entry_id else None
            body = self._node.body(entry) if entry else None
            if not isinstance(body, MatchEntry) or body.epoch < key.epoch:
                yield patient

    # --- pseudonyms ---------------------------------------------------------------------------

    def pseudonym(self, patient: bytes, purpose: Purpose, audience: str) -> bytes:
        """Under which ``audience`` (an insurer, a study) knows a patient; 16 bytes.

        Raises ``Denied`` if this device lacks the key that makes it.
        """
        return purpose_pseudonym(self._node.patients.ring(patient), purpose, audience)

    # --- parts --------------------------------------------------------------------------------

    def _refs(self, patient: bytes) -> tuple[bytes, ...]:
        return self._node.patients.refs(patient)

    def _demographics(self, patient: bytes) -> bytes | None:
        row = patient_row(self._node.state(), patient)
        entry = self._node.find(row.entry) if row else None
        opened = self._node.patients.open(entry) if entry else None
        return opened[1] if opened else None
