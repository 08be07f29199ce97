"""FHIR in and out: not a byte lost, and every refusal names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical import fhir
from p2pmed.medical.fhir import (
    SKELETON_TYPE,
    join_bundle,
    occurred_ms,
    read_resource,
    read_skeleton,
    split_bundle,
)
from p2pmed.medical.keyring import Category

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _bundle(*resources: Any, **members: Any) -> bytes:
    entries = [{"fullUrl": f"urn:{n}", "resource": r} for n, r in enumerate(resources)]
    return json.dumps(
        {"resourceType": "Bundle", "type": "batch", "entry": entries} | members
    ).encode()


def _condition(**members: Any) -> dict[str, Any]:
    return {"resourceType": "Condition"} | members


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"note": TEXT, "a": st.floats(allow_nan=False, allow_infinity=False)}
        ),
        max_size=6,
    ),
    TEXT,
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_a_bundle_comes_back_byte_for_byte(
    extras: list[dict[str, Any]], title: str, indent: int | None, ascii_: bool
) -> None:
    """Spaces, escapes, order of keys, equal resources: all as it came in."""
    document = {
        "entry": [
            *({"resource": _condition(**extra)} for extra in extras),
            {"fullUrl": '{"resourceType":"Condition"}', "request": {"method": "DELETE"}},
            *({"resource": _condition(**extra), "x": title} for extra in extras),
        ],
        "resourceType": "Bundle",
        "title": title,
    }
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii_).encode()
    bundle = split_bundle(raw)
    assert len(bundle.entries) == 2 * len(extras)
    for entry in bundle.entries:
        assert json.loads(entry.resource.raw) == document["entry"][entry.index]["resource"]
        assert entry.resource.raw in raw
    skeleton = bundle.skeleton()
    assert skeleton.type == SKELETON_TYPE
    assert join_bundle(skeleton.raw, [entry.resource.raw for entry in bundle.entries]) == raw


def test_the_skeleton_holds_no_resource() -> None:
    """What is sealed as general text holds nothing of the resources' own categories."""
    raw = _bundle(_condition(code={"text": "canary-1"}), _condition(code={"text": "canary-2"}))
    bundle = split_bundle(raw)
    assert b"canary" not in bundle.skeleton().raw
    ids = [bytes([n]) * 32 for n in range(2)]
    skeleton = read_skeleton(bundle.skeleton(ids).raw)
    assert skeleton.record_ids == tuple(ids)
    assert len(skeleton.pieces) == 3
    with pytest.raises(InvalidTransaction):
        bundle.skeleton(ids[:1])
    with pytest.raises(InvalidTransaction):
        join_bundle(bundle.skeleton().raw, [b"{}"])


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"p2pmed":2,"pieces":[""],"records":[]}',
        b'{"p2pmed":1,"pieces":[],"records":[]}',
        b'{"p2pmed":1,"pieces":["",""],"records":["zz"]}',
        b'{"p2pmed":1,"pieces":["",""],"records":["00","00"]}',
        b'{"p2pmed":1,"pieces":[""],"records":[],"more":1}',
    ],
)
def test_a_foreign_skeleton_is_refused(raw: bytes) -> None:
    """Another version, another shape, another number of gaps."""
    with pytest.raises(InvalidTransaction, match="skeleton"):
        read_skeleton(raw)


REFUSED = [
    (_bundle({"resourceType": "Person"}, {"id": "x"}), "entry[1].resource.resourceType: missing"),
    (_bundle({"resourceType": 5}), "entry[0].resource.resourceType: expected str, got int"),
    (
        _bundle({"resourceType": "Canary"}),
        "entry[0].resource.resourceType: not a resource type of FHIR R4",
    ),
    (_bundle(None), "entry[0].resource: expected object, got null"),
    (_bundle([1]), "entry[0].resource: expected object, got array"),
    (_bundle(entry=5), "entry: expected array, got int"),
    (_bundle(entry=[{}, "canary"]), "entry[1]: expected object, got str"),
    (_bundle(entry=[{"fullUrl": 7}]), "entry[0].fullUrl: expected str, got int"),
    (_bundle(type=[]), "type: expected str, got array"),
    (b"[]", "document: expected object, got array"),
    (b'{"type":"batch"}', "resourceType: missing"),
    (b'{"resourceType":"Patient"}', "resourceType: not a Bundle"),
    (b'{"resourceType":"Bundle"', "document: not JSON in UTF-8"),
    (b'\xef\xbb\xbf{"resourceType":"Bundle"}', "document: not JSON in UTF-8"),
    (b'{"resourceType":"Bundle","x":"\xff"}', "document: not JSON in UTF-8"),
    (b'{"resourceType":"Bundle","x":NaN}', "document: not JSON in UTF-8"),
    (
        b'{"resourceType":"Bundle","type":"a","type":"b"}',
        "document: a key stands twice in one object",
    ),
    (
        b'{"resourceType":"Bundle","entry":[],"entry":[]}',
        "document: a key stands twice in one object",
    ),
    (
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Basic","a":{"b":1,"b":1}}}]}',
        "entry[0].resource: a key stands twice in one object",
    ),
    (
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Basic","a":"\xff"}}]}',
        "entry[0].resource: not JSON in UTF-8",
    ),
    (_bundle(_condition(meta=[])), "entry[0].resource.meta: expected an object"),
    (
        _bundle(_condition(meta={"security": {"code": "HIV"}})),
        "entry[0].resource.meta.security: expected an array",
    ),
    (
        _bundle(_condition(meta={"security": [{"code": 5}]})),
        "entry[0].resource.meta.security[0].code: expected str",
    ),
    (
        _bundle({"resourceType": "Observation", "category": [{"coding": ["canary"]}]}),
        "entry[0].resource.category[0].coding[0]: expected an object",
    ),
    (
        _bundle(_condition(onsetDateTime="canary")),
        "entry[0].resource.onsetDateTime: not a FHIR date",
    ),
    (_bundle(_condition(recordedDate=2020)), "entry[0].resource.recordedDate: expected str"),
    (
        _bundle({"resourceType": "Encounter", "period": "2020"}),
        "entry[0].resource.period.start: expected an object above it",
    ),
    (
        _bundle(_condition(subject={"reference": 5})),
        "entry[0].resource.subject.reference: expected str",
    ),
]


@pytest.mark.parametrize(("raw", "message"), REFUSED)
def test_every_refusal_names_its_field(raw: bytes, message: str) -> None:
    """The place is told, the contents are not."""
    with pytest.raises(InvalidTransaction) as caught:
        split_bundle(raw)
    assert str(caught.value) == message
    assert "canary" not in message


def test_towers_are_refused() -> None:
    """Depth cannot exhaust the stack, inside a resource or beside it."""
    tower = b"[" * 100_000 + b"]" * 100_000
    inside = b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Basic","x":'
    for raw in (b'{"resourceType":"Bundle","x":' + tower + b"}", inside + tower + b"}}]}"):
        with pytest.raises(InvalidTransaction, match="nested too deep"):
            split_bundle(raw)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents, entries and resources beyond their bound are refused before they cost."""
    raw = _bundle(_condition(), _condition())
    for name, value, place in (
        ("BUNDLE_BYTES_MAX", len(raw) - 1, "document"),
        ("ENTRIES_MAX", 1, "entry"),
        ("RECORD_BYTES_MAX", 10, "entry[0].resource"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(fhir, name, value)
            with pytest.raises(InvalidTransaction) as caught:
                split_bundle(raw)
            assert str(caught.value).startswith(place + ":")
    assert len(split_bundle(raw).entries) == 2


@pytest.mark.parametrize(
    ("resource", "category"),
    [
        ({"resourceType": "Patient"}, Category.DEMOGRAPHICS),
        ({"resourceType": "Condition"}, Category.GENERAL),
        ({"resourceType": "MedicationRequest"}, Category.MEDICATION),
        ({"resourceType": "Claim"}, Category.INSURANCE),
        ({"resourceType": "Observation"}, Category.GENERAL),
        (
            {
                "resourceType": "Observation",
                "category": [{}, {"coding": [{}, {"code": "laboratory"}]}],
            },
            Category.LABORATORY,
        ),
        (
            {"resourceType": "DiagnosticReport", "category": [{"coding": [{"code": "RAD"}]}]},
            Category.IMAGING,
        ),
        (_condition(meta={"security": [{"code": "R"}, {"code": "PSY"}]}), Category.MENTAL_HEALTH),
        (_condition(meta={"security": [{"code": "PSY"}, {"code": "HIV"}]}), Category.HIV_STI),
        (
            {"resourceType": "Patient", "meta": {"security": [{"code": "ETH"}]}},
            Category.SUBSTANCE_USE,
        ),
        (_condition(meta={"security": [{"code": "SEX"}]}), Category.REPRODUCTIVE),
        (_condition(meta={"security": []}), Category.GENERAL),
    ],
)
def test_category(resource: dict[str, Any], category: Category) -> None:
    """A sensitivity label outranks the resource's own category, and that its type."""
    assert read_resource(json.dumps(resource).encode()).category is category


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970", 0),
        ("1970-01", 0),
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.1239Z", 123),
        ("1970-01-01T05:30:00+05:30", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1972-06-30T23:59:60Z", 78_796_799_000),
        ("2015-02-07T13:28:17.239+02:00", 1_423_308_497_239),
    ],
)
def test_dates(text: str, expected: int) -> None:
    """A FHIR date is the first millisecond of what it names, in UTC."""
    assert occurred_ms(text, "x") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "70",
        "1970-13",
        "1970-02-30",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:00Z",
        "0000",
        "1970-01-01T00:00:61Z",
        "1970-01-01 00:00:00Z",
        "١٩٧٠",
        "1970-01-01T00:00:00Z ",
    ],
)
def test_no_dates(text: str) -> None:
    """What only looks like a date is refused by its field, unquoted."""
    with pytest.raises(InvalidTransaction, match=r"^field: not a FHIR date$"):
        occurred_ms(text, "field")


def test_what_a_timeline_needs() -> None:
    """Type, id, time and patient are read; the bytes stay."""
    raw = (
        b'{ "resourceType":"Encounter","id":"e1","subject":{"reference":"urn:uuid:1"},'
        b'"period":{"end":"2020","start":"1970-01-01T00:00:01Z"} }'
    )
    resource = read_resource(raw)
    assert resource.raw == raw
    assert (resource.type, resource.id) == ("Encounter", "e1")
    assert (resource.occurred_ms, resource.patient) == (1000, "urn:uuid:1")
    bare = read_resource(b'{"resourceType":"Goal","period":{}}')
    assert (bare.id, bare.occurred_ms, bare.patient) == (None, None, None)


def test_no_repr_shows_contents() -> None:
    """Printing what was read tells nothing of it."""
    bundle = split_bundle(_bundle(_condition(id="canary", code={"text": "canary"}), type="canary"))
    assert "canary" not in repr([bundle, *bundle.entries, bundle.entries[0].resource])
