"""A FHIR document as an import sees it: its resources, and whom each is about.

Rule: pure; refuses what it cannot place rather than guess. A resource is about

1. itself, if it is a Patient;
2. the patient it refers to (``PATIENT_FIELDS``): one of the document, by ``fullUrl`` or
   ``Patient/id``, or one that the node knows from before;
3. else the document's only patient; where there is none or several, nobody: it belongs to the
   node's directory, which no grant opens.

A document without a reference that leads anywhere is therefore never mistaken for a patient's.
Two Patients are one person when ``id`` and all ``identifier`` are the same, or, without them,
when their bytes are: anything less would merge two people called ``Patient/1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from p2pmed.errors import InvalidTransaction
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.fhir import (
    Bundle,
    BundleEntry,
    Resource,
    read_resource,
    split_bundle,
)
from p2pmed.medical.fhir_json import typed
from p2pmed.medical.keyring import Category

__all__ = [
    "FILE_TYPE",
    "Document",
    "FileName",
    "Person",
    "UnknownPatient",
    "file_record",
    "read_document",
    "read_file_record",
]

FILE_TYPE: Final = "p2pmed/file"
"""Type of the record that makes an imported document complete; a slash is in no FHIR type."""
FILE_VERSION: Final = 1
NAME_CHARS_MAX: Final = 1_024

_POINTER: Final = re.compile(
    r"(?P<base>.*/)?(?P<type>[A-Z][A-Za-z]*)/(?P<id>[A-Za-z0-9.\-]{1,64})(?:/_history/.*)?",
    re.ASCII,
)


class UnknownPatient(InvalidTransaction):
    """A resource is about a patient who is neither in its document nor known here."""


class _Head(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)


class _Identifier(msgspec.Struct):
    system: str = ""
    value: str = ""


class _PatientJson(msgspec.Struct):
    id: str = ""
    identifier: list[_Identifier] = []


class _FileJson(msgspec.Struct, forbid_unknown_fields=True):
    p2pmed: int
    name: str
    packed: bool
    skeleton: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Person:
    """A Patient of the document."""

    index: int
    """Place among the document's resources."""
    identity: tuple[bytes, ...]
    """Alike for the same person only."""
    references: tuple[str, ...]
    """How others may refer to this person."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Document:
    """One file's contents taken apart."""

    bundle: Bundle
    """A single resource is a bundle of one, with nothing around it."""
    persons: tuple[Person, ...]

    @property
    def resources(self) -> list[Resource]:
        """All resources, in order."""
        return [entry.resource for entry in self.bundle.entries]

    @property
    def order(self) -> list[int]:
        """Places of the resources in the order of writing: whoever is written about first."""
        first = dict.fromkeys(person.index for person in self.persons)
        return [*first, *(i for i in range(len(self.bundle.entries)) if i not in first)]

    def subjects(
        self, pseudonyms: Mapping[int, bytes], known: Mapping[str, bytes]
    ) -> list[bytes | None]:
        """Whom each resource is about; ``None``: the directory.

        ``pseudonyms`` are those of the document's patients, by their place; ``known`` leads from
        each of ``foreign`` to a pseudonym.
        """
        found = [
            known[meant] if isinstance(meant, str) else pseudonyms.get(meant)
            for meant in self._meant()
        ]
        people = {subject for subject in found if subject is not None} | set(pseudonyms.values())
        only = people.pop() if len(people) == 1 else None
        return [subject or only for subject in found]

    def foreign(self) -> list[str]:
        """References to patients who are not in the document."""
        return list(dict.fromkeys(meant for meant in self._meant() if isinstance(meant, str)))

    def _meant(self) -> list[int | str]:
        """For each resource: its patient's place, -1 for none, or a reference that leads out."""
        places = _Places(self.bundle.entries, self.persons)
        return [
            index if index in places.patients else places.leads(entry.resource.patient)
            for index, entry in enumerate(self.bundle.entries)
        ]


class _Places:
    """Where references within a document lead."""

    def __init__(self, entries: Iterable[BundleEntry], persons: Iterable[Person]) -> None:
        self._by_url = {entry.full_url: i for i, entry in enumerate(entries) if entry.full_url}
        self.patients = frozenset(person.index for person in persons)
        self._by_name = {name: person.index for person in persons for name in person.references}

    def leads(self, reference: str | None) -> int | str:
        """A patient's place, -1 for no patient, or the reference itself if it leads out."""
        if reference is None or reference.startswith("#"):
            return -1
        if reference in self._by_url:
            place = self._by_url[reference]
            return place if place in self.patients else -1
        pointer = _POINTER.fullmatch(reference)
        if pointer is None:
            return reference
        if pointer["type"] != "Patient":
            return -1
        name = f"Patient/{pointer['id']}"
        if name in self._by_name:
            return self._by_name[name]
        return f"{pointer['base'] or ''}{name}"


def read_document(raw: bytes) -> Document:
    """Take a FHIR bundle, or a single resource, apart.

    Raises ``InvalidTransaction`` that names the offending field.
    """
    if not raw.strip():
        raise InvalidTransaction("the file is empty", hint="copy it again")
    if typed(raw, _Head, "").resourceType == "Bundle":
        bundle = split_bundle(raw)
    else:
        entry = BundleEntry(index=0, full_url=None, resource=read_resource(raw))
        bundle = Bundle(type=None, entries=(entry,), pieces=("", ""))
    if 2 * sum(map(len, bundle.pieces)) + 70 * len(bundle.entries) > RECORD_BYTES_MAX:
        raise InvalidTransaction(
            "the text between the bundle's resources is too long to be kept",
            hint="split it into smaller bundles",
        )
    persons = tuple(
        _person(index, entry)
        for index, entry in enumerate(bundle.entries)
        if entry.resource.type == "Patient"
    )
    names = [name for person in persons for name in person.references]
    if len(set(names)) < len(names):
        raise InvalidTransaction(
            "two patients of the bundle have the same id", hint="split it into one per patient"
        )
    return Document(bundle=bundle, persons=persons)


def _person(index: int, entry: BundleEntry) -> Person:
    resource = entry.resource
    read = typed(resource.raw, _PatientJson, f"entry[{entry.index}].resource")
    names = sorted(f"{one.system}|{one.value}".encode() for one in read.identifier if one.value)
    identity = (b"named", read.id.encode(), *names) if read.id and names else (b"raw", resource.raw)
    references = dict.fromkeys((f"Patient/{read.id}" if read.id else "", entry.full_url or ""))
    return Person(
        index=index,
        identity=identity,
        references=tuple(reference for reference in references if reference),
    )


# --- the record that completes a document ---------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FileName:
    """What a file record says: how the file was called, and which record is its skeleton."""

    name: str
    """Below the folder that was imported, parts joined by ``/``."""
    packed: bool
    """It came as gzip."""
    skeleton: bytes
    """Transaction id (32 bytes)."""


def file_record(file: FileName) -> Resource:
    """The file record as a resource of our own type, sealed like any other."""
    raw = msgspec.json.encode(
        _FileJson(
            p2pmed=FILE_VERSION,
            name=file.name[:NAME_CHARS_MAX],
            packed=file.packed,
            skeleton=file.skeleton.hex(),
        )
    )
    return Resource(
        raw=raw,
        type=FILE_TYPE,
        id=None,
        category=Category.GENERAL,
        occurred_ms=None,
        patient=None,
    )


def read_file_record(raw: bytes) -> FileName:
    """Inverse of ``file_record``. Raises ``InvalidTransaction``."""
    read = typed(raw, _FileJson, "file record")
    if read.p2pmed != FILE_VERSION:
        raise InvalidTransaction(f"file record.p2pmed: only version {FILE_VERSION} is known")
    try:
        skeleton = bytes.fromhex(read.skeleton)
    except ValueError:
        skeleton = b""
    if len(skeleton) != 32 or not 0 < len(read.name) <= NAME_CHARS_MAX:
        raise InvalidTransaction("file record.skeleton: not an id, or no name")
    return FileName(name=read.name, packed=read.packed, skeleton=skeleton)
