"""A resource in a few words, whatever it looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.node.fhir.describe import CHARS_MAX, describe_person, describe_resource, is_directory
from p2pmed.node.fhir.plan import DIRECTORY

NAMES = st.sampled_from(
    [
        "resourceType",
        "code",
        "text",
        "coding",
        "display",
        "valueQuantity",
        "value",
        "name",
        "unit",
        "component",
        "given",
        "family",
        "birthDate",
        "Patient",
        "type",
        "reasonCode",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
)


@given(ANYTHING)
def test_no_resource_is_too_odd_to_describe(value: Any) -> None:
    """One short line comes of any JSON, and an empty one of what is none."""
    raw = json.dumps(value).encode()
    words = describe_resource(raw)
    assert len(words) <= CHARS_MAX
    assert words == "" or words.isprintable()
    assert set(describe_person(raw)) == {"name", "birth_date", "gender"}
    assert describe_resource(raw[:-1] + b"\xff") == ""


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ({"code": {"text": "Weight"}, "valueQuantity": {"value": 70.25, "unit": "kg"}},
         "Weight: 70.25 kg"),
        ({"code": {"coding": [{"code": "R50.9", "display": "Fever"}]}}, "Fever"),
        ({"code": {"coding": [{"code": "R50.9"}]}}, "R50.9"),
        ({"type": [{"text": "Visit"}], "reasonCode": [{"text": "Cough"}]}, "Visit: Cough"),
        ({"resourceType": "Organization", "name": "Mu clinic"}, "Mu clinic"),
        ({"resourceType": "Patient", "name": [{"family": "Wang", "given": ["Mei"]}]}, "Mei Wang"),
        ({"code": {"text": "a\u202eb\n\tc"}}, "ab c"),
    ],
)  # fmt: skip
def test_the_telling_words_are_chosen(resource: dict[str, Any], words: str) -> None:
    """The code's text and the value; a name for who has one; nothing that turns a terminal."""
    assert describe_resource(json.dumps(resource).encode()) == words


def test_a_directory_is_told_from_a_patient() -> None:
    """By the tag that its registration carries."""
    assert is_directory(DIRECTORY.raw)
    assert not is_directory(b'{"resourceType":"Patient"}')
