"""Whose is what in one document: pseudonyms, keys, and what an earlier import has written of it.

Rule: nothing of a document is written before all of it has its place. A patient whom the journal
knows keeps the pseudonym; a new one gets a random one, and keys that the import can seal with at
once, before anything is on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import KeyRing
from p2pmed.node.fhir.documents import Document, Person, UnknownPatient
from p2pmed.node.fhir.journal import Journal

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["DIRECTORY", "Plan", "Planner"]

DIRECTORY: Final = read_resource(
    b'{"resourceType":"Patient","meta":{"tag":[{"system":"urn:p2pmed:subject","code":"directory"'
    b'}]},"active":false,"name":[{"text":"directory: about no patient"}]}'
)
"""What the node's own directory is registered with."""


@dataclass(slots=True, kw_only=True, repr=False)
class Plan:
    """Whose is what in one document."""

    key: bytes
    """The document in the journal."""
    document: Document
    subjects: list[bytes]
    rings: dict[bytes, KeyRing]
    refs: dict[bytes, tuple[bytes, ...]]
    new: dict[int, Person]
    """Patients to be registered, by their place."""
    home: bytes
    """Whose the skeleton is: the document's only subject, or the directory."""
    ids: dict[int, bytes] = field(default_factory=dict)
    """Records by the place of their resource, as far as they are durable."""
    parts: int = 0
    """Submissions noted so far."""


class Planner:
    """Makes plans for one node. ``count`` is told what had to be written for one."""

    def __init__(
        self, node: Node, journal: Journal, count: Callable[[Sequence[Receipt]], None]
    ) -> None:
        self._node = node
        self._journal = journal
        self._count = count
        self._entropy = node.world.entropy

    async def plan(self, key: bytes, document: Document) -> Plan:
        """The plan of ``document``, which the journal knows by ``key``.

        Registers the node's directory if it is the first time that it is needed. Raises
        ``UnknownPatient``, or ``Denied`` where a known patient's keys are not this device's.
        """
        known = {name: self._known(name) for name in document.foreign()}
        pseudonyms: dict[int, bytes] = {}
        new: dict[int, Person] = {}
        people: dict[bytes, bytes] = {}
        for person in document.persons:
            named = self._journal.person(person.identity)
            pseudonym = people.get(named) or self._journal.pseudonym(named)
            if pseudonym is None:
                pseudonym = self._node.patients.new_pseudonym()
                new[person.index] = person
            pseudonyms[person.index] = people[named] = pseudonym
        found = document.subjects(pseudonyms, known)
        several = dict.fromkeys(found)
        one = next(iter(several)) if len(several) == 1 else None
        rings: dict[bytes, KeyRing] = {
            pseudonyms[index]: self._node.patients.new_ring(pseudonyms[index]) for index in new
        }
        directory = b""
        if one is None:
            directory = self._journal.directory() or await self._open_directory(rings)
        subjects = [subject or directory for subject in found]
        refs: dict[bytes, tuple[bytes, ...]] = dict.fromkeys(rings, ())
        home = one or directory
        for subject in dict.fromkeys([*subjects, home]):
            if subject not in rings:
                await self._node.catch_up()
                rings[subject] = self._node.patients.ring(subject)
                refs[subject] = self._node.patients.refs(subject)
        plan = Plan(
            key=key,
            document=document,
            subjects=subjects,
            rings=rings,
            refs=refs,
            new=new,
            home=home,
        )
        self._resume(plan)
        return plan

    def _known(self, reference: str) -> bytes:
        """Whom a reference to somebody outside the document means. ``UnknownPatient``."""
        pseudonym = self._journal.referred(reference)
        if pseudonym:
            return pseudonym
        if pseudonym is None:
            pseudonym = _own_name(reference)
            if pseudonym is not None and self._node.patients.is_known(pseudonym):
                return pseudonym
        why = "is not known here" if pseudonym != b"" else "is the name of several patients here"
        # The reference may be a name or a number of a person: it is not repeated.
        raise UnknownPatient(
            f"it is about a patient who is not in the file and {why}",
            hint="import the file with the Patient first, or together with it",
        )

    async def _open_directory(self, rings: dict[bytes, KeyRing]) -> bytes:
        """Register the node's own directory, once."""
        pseudonym = self._node.patients.new_pseudonym()
        ring = rings[pseudonym] = self._node.patients.new_ring(pseudonym)
        drafts = self._node.patients.registration(DIRECTORY, pseudonym, ring=ring)
        row = self._journal.opened_directory(pseudonym)
        receipts = await self._node.submit_drafts(drafts, local=lambda ids: [row])
        self._count(receipts)
        return pseudonym

    def _resume(self, plan: Plan) -> None:
        """Take up what an import that was cut short has written of this document."""
        written = self._journal.written(plan.key)
        plan.parts = len(written)
        done = [record for part in written for record in part]
        plan.ids = dict(zip(plan.document.order, done, strict=False))


def _own_name(reference: str) -> bytes | None:
    """The pseudonym in a reference that this library wrote (``Patient/`` and 32 hex digits)."""
    try:
        found = bytes.fromhex(reference.removeprefix("Patient/"))
    except ValueError:
        return None
    return found if len(found) == 16 else None
