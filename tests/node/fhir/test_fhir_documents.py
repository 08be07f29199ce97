"""Whom a resource is about, and when an import refuses rather than guess."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.node.fhir.documents import (
    Document,
    FileName,
    file_record,
    read_document,
    read_file_record,
)

A, B, KNOWN = b"a" * 16, b"b" * 16, b"k" * 16


def _patient(name: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, **more}


def _about(reference: str | None, kind: str = "Observation") -> dict[str, Any]:
    subject = {} if reference is None else {"subject": {"reference": reference}}
    return {"resourceType": kind, **subject}


def _bundle(*resources: dict[str, Any], urls: tuple[str | None, ...] = ()) -> Document:
    entries = [
        {"resource": resource, **({"fullUrl": url} if url else {})}
        for resource, url in zip(resources, urls or [None] * len(resources), strict=True)
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    return read_document(json.dumps(bundle).encode())


@pytest.mark.parametrize(
    ("reference", "whose"),
    [
        ("Patient/p", A),
        ("http://elsewhere/fhir/Patient/p", A),
        ("Patient/p/_history/3", A),
        ("urn:uuid:1", A),
        (None, A),
        ("#contained", A),
        ("Group/g", A),
        ("urn:uuid:2", A),
    ],
)
def test_what_refers_to_nobody_else_is_the_only_patients(
    reference: str | None, whose: bytes
) -> None:
    """By name, by URL, or because the document has one patient."""
    document = _bundle(
        _patient("p"),
        _about(reference),
        {"resourceType": "Device"},
        urls=("urn:uuid:1", None, "urn:uuid:2"),
    )
    assert not document.foreign()
    assert document.subjects({0: A}, {}) == [A, whose, A]


def test_with_two_patients_each_reference_decides_and_the_rest_is_nobodys() -> None:
    """What refers to no patient is in the directory, not at the first patient's."""
    document = _bundle(
        _about("Patient/q"), _patient("p"), _patient("q"), _about(None, "Practitioner")
    )
    assert document.subjects({1: A, 2: B}, {}) == [B, A, B, None]
    assert document.order == [1, 2, 0, 3]


def test_a_patient_outside_the_document_must_be_known() -> None:
    """The reference is handed out to be looked up, once; then it counts as the only patient's."""
    document = _bundle(_about("Patient/k"), _about("Patient/k"), _about(None, "Device"))
    assert document.foreign() == ["Patient/k"]
    assert document.subjects({}, {"Patient/k": KNOWN}) == [KNOWN, KNOWN, KNOWN]
    unknown = _bundle(_patient("p"), _about("urn:uuid:not-here"), _about("http://h/Patient/x"))
    assert unknown.foreign() == ["urn:uuid:not-here", "http://h/Patient/x"]


def test_without_any_patient_all_is_the_directorys() -> None:
    """Hospitals and practitioners."""
    document = _bundle(_about(None, "Organization"), _about(None, "Practitioner"))
    assert document.subjects({}, {}) == [None, None]


def test_one_person_is_one_id_with_the_same_identifiers() -> None:
    """An id alone merges nobody: two clinics both have a Patient/1."""
    number = [{"system": "urn:card", "value": "7"}]
    first, moved, other, bare, same_bare = (
        _bundle(patient).persons[0].identity
        for patient in (
            _patient("1", identifier=number, gender="male"),
            _patient("1", identifier=number, gender="female"),
            _patient("1", identifier=[{"system": "urn:card", "value": "8"}]),
            _patient("1"),
            _patient("1"),
        )
    )
    assert first == moved
    assert bare == same_bare
    assert len({first, other, bare}) == 3


def test_a_single_resource_is_a_bundle_of_one() -> None:
    """Its bytes are the whole document, spaces around it included."""
    raw = b' {"resourceType": "Patient", "id": "p"}\n'
    document = read_document(raw)
    assert [resource.raw for resource in document.resources] == [raw]
    assert document.bundle.pieces == ("", "")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"not json", "not JSON"),
        (b"[]", "expected object"),
        (b"{}", "resourceType: missing"),
        (b'{"resourceType": 5}', "resourceType: expected str"),
        (b'{"resourceType": "Spell"}', "resourceType: not a resource type"),
        (b'{"resourceType": "Bundle", "entry": {}}', "entry: expected array"),
        (b'{"resourceType": "Bundle", "entry": [{"fullUrl": 5}]}', r"entry\[0\].fullUrl"),
        (
            b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":5}}]}',
            r"entry\[0\].resource.id",
        ),
        (
            b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient",'
            b'"identifier":"x"}}]}',
            r"entry\[0\].resource.identifier",
        ),
        (b'{"resourceType": "Patient", "birthDate": "x", "birthDate": "y"}', "twice"),
    ],
)
def test_rubbish_is_refused_with_the_field(raw: bytes, complaint: str) -> None:
    """The path of what is wrong, never its contents."""
    with pytest.raises(InvalidTransaction, match=complaint):
        read_document(raw)


def test_two_patients_of_one_id_are_refused() -> None:
    """Nobody could say which of them a reference means."""
    with pytest.raises(InvalidTransaction, match="same id"):
        _bundle(_patient("p", gender="male"), _patient("p", gender="female"))


def test_a_file_record_says_name_packing_and_skeleton() -> None:
    """There and back, and rubbish in it is refused."""
    file = FileName(name="north/p.json.gz", packed=True, skeleton=b"s" * 32)
    record = file_record(file)
    frozen = b'{"p2pmed":1,"name":"north/p.json.gz","packed":true,"skeleton":"' + b"73" * 32 + b'"}'
    assert (record.raw, record.type) == (frozen, "p2pmed/file")
    assert read_file_record(frozen) == file
    for raw in (
        b"{}",
        b'{"p2pmed":2,"name":"x","packed":false,"skeleton":"' + b"00" * 32 + b'"}',
        b'{"p2pmed":1,"name":"x","packed":false,"skeleton":"00"}',
        b'{"p2pmed":1,"name":"","packed":false,"skeleton":"' + b"00" * 32 + b'"}',
        b'{"p2pmed":1,"name":"x","packed":false,"skeleton":"zz"}',
    ):
        with pytest.raises(InvalidTransaction, match="file record"):
            read_file_record(raw)
