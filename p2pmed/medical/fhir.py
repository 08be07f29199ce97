"""FHIR R4 in and out: resources as the bytes that came in, bundles taken apart and put back.

Rule of this file: a resource is never rewritten. What is read from it (type, category, time,
patient) serves to seal and find it; what is kept is a slice of the input. A bundle's skeleton
is the text between its resources, so that ``join_bundle`` gives back the very bytes.
Implements medical notes, section 1 row 1, and ``docs/protocols/records.md``, clauses 27 to 30.

Refused, with the field's path: what is not strict JSON, a type that R4 does not know, a field
this file relies on with a wrong type, a date that is none, anything beyond its limit. What is
not done here: the rest of FHIR's schema, which comes with an extra.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from p2pmed.errors import InvalidTransaction
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.fhir_json import canonical_json, gunzip_bounded, parse, typed
from p2pmed.medical.fhir_types import (
    CATEGORY_CODES,
    CATEGORY_OF,
    OCCURRED_FIELDS,
    PATIENT_FIELDS,
    RESOURCE_TYPES,
    SENSITIVE_CODES,
)
from p2pmed.medical.keyring import Category

__all__ = [
    "BUNDLE_BYTES_MAX",
    "ENTRIES_MAX",
    "SKELETON_TYPE",
    "Bundle",
    "BundleEntry",
    "Resource",
    "Skeleton",
    "canonical_json",
    "gunzip_bounded",
    "join_bundle",
    "occurred_ms",
    "read_resource",
    "read_skeleton",
    "split_bundle",
]

BUNDLE_BYTES_MAX: Final = 128 * 1024 * 1024
"""One document: twice the longest resource; a patient's whole life is under 40 MiB."""
ENTRIES_MAX: Final = 65_536
"""Resources of one bundle."""
SKELETON_TYPE: Final = "p2pmed/bundle"
"""Type of the record that keeps a bundle's skeleton; a slash is in no FHIR type."""
SKELETON_VERSION: Final = 1

_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d))?)?)?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNSET: Final = msgspec.UNSET


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Resource:
    """One resource: the bytes that came in, and what sealing and finding need of them."""

    raw: bytes
    type: str
    id: str | None
    category: Category
    occurred_ms: int | None
    """Milliseconds since 1970 by the resource's own date, or ``None``."""
    patient: str | None
    """The reference to its patient as written, or ``None``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BundleEntry:
    """A resource in its bundle."""

    index: int
    """Place among all entries, those without a resource counted."""
    full_url: str | None
    resource: Resource


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Bundle:
    """A bundle taken apart."""

    type: str | None
    entries: tuple[BundleEntry, ...]
    """Those with a resource, in order."""
    pieces: tuple[str, ...]
    """The text before, between and after the resources: one more than ``entries``."""

    def skeleton(self, record_ids: Sequence[bytes] = ()) -> Resource:
        """All but the resources, as a resource of our own type that is sealed like any other.

        ``record_ids`` are the transactions that hold the resources, in order; an export finds
        them by it. Raises ``InvalidTransaction`` if there are some, and not one for each.
        """
        if record_ids and len(record_ids) != len(self.entries):
            raise InvalidTransaction(f"{len(record_ids)} ids for {len(self.entries)} resources")
        raw = msgspec.json.encode(
            {
                "p2pmed": SKELETON_VERSION,
                "pieces": self.pieces,
                "records": [record_id.hex() for record_id in record_ids],
            }
        )
        return Resource(
            raw=raw,
            type=SKELETON_TYPE,
            id=None,
            category=Category.GENERAL,
            occurred_ms=None,
            patient=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Skeleton:
    """A bundle without its resources."""

    pieces: tuple[str, ...]
    record_ids: tuple[bytes, ...]


class _SkeletonJson(msgspec.Struct, forbid_unknown_fields=True):
    p2pmed: int
    pieces: list[str]
    records: list[str]


class _EntryJson(msgspec.Struct):
    resource: msgspec.Raw | msgspec.UnsetType = _UNSET
    fullUrl: str | msgspec.UnsetType = _UNSET  # noqa: N815 (FHIR's own name)


class _BundleJson(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)
    type: str | msgspec.UnsetType = _UNSET
    entry: list[_EntryJson] = []


class _HeadJson(msgspec.Struct):
    resourceType: str  # noqa: N815 (FHIR's own name)
    id: str | msgspec.UnsetType = _UNSET


def read_resource(raw: bytes, path: str = "") -> Resource:
    """Check one resource and read what is needed of it; its bytes stay as they are.

    ``path`` names where it stands in a larger document. Raises ``InvalidTransaction``.
    """
    if len(raw) > RECORD_BYTES_MAX:
        raise InvalidTransaction(
            f"{path or 'document'}: {len(raw)} bytes where {RECORD_BYTES_MAX} are allowed",
            hint="store large binaries as attachments",
        )
    head = typed(raw, _HeadJson, path)
    dot = path + "." if path else ""
    if head.resourceType not in RESOURCE_TYPES:
        raise InvalidTransaction(f"{dot}resourceType: not a resource type of FHIR R4")
    members = parse(raw, path or "document")
    return Resource(
        raw=raw,
        type=head.resourceType,
        id=None if head.id is _UNSET else head.id,
        category=_category(head.resourceType, members, dot),
        occurred_ms=_occurred(members, dot),
        patient=_patient(members, dot),
    )


def split_bundle(raw: bytes) -> Bundle:
    """Take a FHIR Bundle apart into resources, as slices of ``raw``, and the text between.

    Raises ``InvalidTransaction`` that names the offending field.
    """
    if len(raw) > BUNDLE_BYTES_MAX:
        raise InvalidTransaction(
            f"document: {len(raw)} bytes where {BUNDLE_BYTES_MAX} are allowed",
            hint="split it into smaller bundles",
        )
    document = typed(raw, _BundleJson, "")
    if document.resourceType != "Bundle":
        raise InvalidTransaction("resourceType: not a Bundle")
    if len(document.entry) > ENTRIES_MAX:
        raise InvalidTransaction(f"entry: more than {ENTRIES_MAX}")
    entries: list[BundleEntry] = []
    pieces: list[str] = []
    end = 0
    for index, entry in enumerate(document.entry):
        if entry.resource is _UNSET:
            continue
        slice_ = bytes(entry.resource)
        # An equal slice further left may be found; put back, it gives the same bytes.
        start = raw.index(slice_, end)
        pieces.append(_utf8(raw[end:start]))
        end = start + len(slice_)
        resource = read_resource(slice_, f"entry[{index}].resource")
        url = None if entry.fullUrl is _UNSET else entry.fullUrl
        entries.append(BundleEntry(index=index, full_url=url, resource=resource))
    pieces.append(_utf8(raw[end:]))
    parse("null".join(pieces), "document")
    return Bundle(
        type=None if document.type is _UNSET else document.type,
        entries=tuple(entries),
        pieces=tuple(pieces),
    )


def read_skeleton(raw: bytes) -> Skeleton:
    """Inverse of ``Bundle.skeleton``. Raises ``InvalidTransaction``."""
    skeleton = typed(raw, _SkeletonJson, "skeleton")
    if skeleton.p2pmed != SKELETON_VERSION:
        raise InvalidTransaction(f"skeleton.p2pmed: only version {SKELETON_VERSION} is known")
    try:
        record_ids = tuple(bytes.fromhex(text) for text in skeleton.records)
    except ValueError:
        raise InvalidTransaction("skeleton.records: not hexadecimal") from None
    if not skeleton.pieces or len(record_ids) not in (0, len(skeleton.pieces) - 1):
        raise InvalidTransaction("skeleton.pieces: not one more than the records")
    return Skeleton(pieces=tuple(skeleton.pieces), record_ids=record_ids)


def join_bundle(skeleton: bytes, resources: Sequence[bytes]) -> bytes:
    """The bundle that ``split_bundle`` took apart, byte for byte.

    Raises ``InvalidTransaction`` unless there is one resource for each gap.
    """
    pieces = read_skeleton(skeleton).pieces
    if len(resources) != len(pieces) - 1:
        raise InvalidTransaction(f"{len(resources)} resources for {len(pieces) - 1} gaps")
    joined = [pieces[0].encode()]
    for resource, piece in zip(resources, pieces[1:], strict=True):
        joined += (resource, piece.encode())
    return b"".join(joined)


def occurred_ms(text: str, path: str) -> int:
    """A FHIR date, dateTime or instant in milliseconds since 1970 (UTC).

    A part that is left out counts from its beginning. Raises ``InvalidTransaction``.
    """
    match = _DATE.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        try:
            moment = datetime(
                int(year),
                int(month or 1),
                int(day or 1),
                int(hour or 0),
                int(minute or 0),
                min(int(second or 0), 59),  # a leap second shares its predecessor's
                tzinfo=UTC,
            )
        except ValueError:
            moment = None
        if moment is not None and int(second or 0) <= 60:
            millis = int(((fraction or "") + "000")[:3])
            since = (moment - _EPOCH) // timedelta(milliseconds=1)
            return since + millis - _offset_ms(zone)
    raise InvalidTransaction(f"{path}: not a FHIR date")


def _offset_ms(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return (-minutes if zone[0] == "-" else minutes) * 60_000


def _occurred(members: dict[str, Any], dot: str) -> int | None:
    for field in OCCURRED_FIELDS:
        head, _, rest = field.partition(".")
        value = members.get(head)
        while value is not None and rest:
            head, _, rest = rest.partition(".")
            if not isinstance(value, dict):
                raise InvalidTransaction(f"{dot}{field}: expected an object above it")
            value = value.get(head)
        if value is not None:
            return occurred_ms(_text(value, dot + field), dot + field)
    return None


def _category(name: str, members: dict[str, Any], dot: str) -> Category:
    """By sensitivity label, else by ``category``, else by type."""
    meta = members.get("meta", {})
    if not isinstance(meta, dict):
        raise InvalidTransaction(f"{dot}meta: expected an object")
    labels = _codes(meta.get("security", []), f"{dot}meta.security")
    for code, category in SENSITIVE_CODES.items():
        if code in labels:
            return category
    if name in {"Observation", "DiagnosticReport"}:
        concepts = members.get("category", [])
        for index, concept in enumerate(_objects(concepts, f"{dot}category")):
            where = f"{dot}category[{index}].coding"
            for code in _codes(concept.get("coding", []), where):
                if code in CATEGORY_CODES:
                    return CATEGORY_CODES[code]
    return CATEGORY_OF.get(name, Category.GENERAL)


def _patient(members: dict[str, Any], dot: str) -> str | None:
    for field in PATIENT_FIELDS:
        value = members.get(field)
        if isinstance(value, dict) and "reference" in value:
            return _text(value["reference"], f"{dot}{field}.reference")
    return None


def _codes(value: Any, path: str) -> list[str]:
    return [
        _text(coding["code"], f"{path}[{index}].code")
        for index, coding in enumerate(_objects(value, path))
        if "code" in coding
    ]


def _objects(value: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InvalidTransaction(f"{path}: expected an array")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidTransaction(f"{path}[{index}]: expected an object")
    return value


def _text(value: Any, path: str) -> str:
    # A Number is a str too, and no text.
    if type(value) is not str:
        raise InvalidTransaction(f"{path}: expected str")
    return value


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidTransaction("document: not JSON in UTF-8") from None
