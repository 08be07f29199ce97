"""The frozen bytes of a printed summary, and summaries of made-up records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.identity.keys import public_key
from p2pmed.medical.care.ips_profile import FAULTS_MAX, profile_faults
from p2pmed.medical.care.narrative import LINE_CHARS_MAX, narrative
from p2pmed.medical.care.summary import assemble
from p2pmed.medical.care.summary_code import (
    CODE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    code_of,
    document_digest,
    parse_code,
    print_code,
)
from p2pmed.medical.care.summary_parts import Kept, Maker
from p2pmed.medical.fhir_json import parse, spelled
from p2pmed.wire import codec

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "summary.json").read_text(encoding="utf-8")
)
SEED, NETWORK = bytes.fromhex(VECTORS["seed"]), bytes.fromhex(VECTORS["network"])
PATIENT = bytes.fromhex(VECTORS["patient"])
MAKER = Maker(device=public_key(SEED), name="clinic A", place="shan/mu")
PERSON = {"name": "王小明", "birth_date": "1985-03-12", "gender": "male"}


def kept(number: int, resource: Any, *, words: str = "", occurred: int | None = None) -> Kept:
    return Kept(
        record=number.to_bytes(32, "big"),
        members=parse(json.dumps(resource), "test"),
        words=words,
        occurred_ms=occurred,
        recorded_ms=1_780_000_000_000 + number,
    )


def person() -> Kept:
    return kept(0, {"resourceType": "Patient", "id": "p", "name": [{"text": "王小明"}]})


def facts() -> list[Kept]:
    return [person(), *(kept(1 + n, r, words=w) for n, (r, w) in enumerate(VECTORS["facts"]))]


def test_the_frozen_summary() -> None:
    """The same records, maker and key give these bytes: document, payload and text."""
    summary = assemble(PATIENT, facts(), maker=MAKER)
    assert summary.document.decode() == VECTORS["document"]
    code = code_of(summary, network=NETWORK, person=PERSON)
    assert codec.encode(code).hex() == VECTORS["payload"]
    assert print_code(code, seed=SEED, signer=MAKER.device) == VECTORS["text"]
    assert parse_code(VECTORS["text"]).code == code
    assert document_digest(summary.document) == code.document
    assert profile_faults(summary.document) == []


def test_another_network_s_signature_does_not_hold() -> None:
    """The network in the payload is bound by the signature."""
    summary = assemble(PATIENT, facts(), maker=MAKER)
    code = code_of(summary, network=bytes(32), person=PERSON)
    stolen = print_code(code, seed=bytes(32), signer=MAKER.device)
    with pytest.raises(DecodeError):
        parse_code(stolen)


def test_references_of_any_spelling_lead_to_entries_and_bills_do_not_come_in() -> None:
    """``fullUrl``, ``Type/id`` and ``urn:uuid:id`` are rewritten; a claim stays outside."""
    condition = {
        "resourceType": "Condition",
        "code": {"text": "x"},
        "encounter": {"reference": "Encounter/e"},
        "recorder": {"reference": "http://other/Practitioner/9"},
        "evidence": [{"detail": [{"reference": "urn:uuid:o"}, {"reference": "Claim/c"}]}],
        "contained": [{"resourceType": "Claim", "id": "c", "x": {"reference": "#c"}}],
    }
    parts = [
        person(),
        kept(1, condition),
        kept(2, {"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/p"}}),
        kept(3, {"resourceType": "Observation", "id": "o", "code": {"text": "y"}}),
        kept(4, {"resourceType": "Claim", "id": "c"}),
        kept(5, {"resourceType": "Encounter", "id": "not led to"}),
    ]
    document = json.loads(assemble(PATIENT, parts, maker=MAKER).document)
    entries = {entry["fullUrl"]: entry["resource"] for entry in document["entry"]}
    (made,) = [r for r in entries.values() if r["resourceType"] == "Condition"]
    assert entries[made["encounter"]["reference"]]["id"] == "e"
    assert entries[made["evidence"][0]["detail"][0]["reference"]]["id"] == "o"
    assert made["evidence"][0]["detail"][1] == {"reference": "Claim/c"}
    assert made["recorder"] == {"reference": "http://other/Practitioner/9"}
    assert made["contained"][0]["x"] == {"reference": "#c"}
    assert entries[made["subject"]["reference"]]["resourceType"] == "Patient"
    kinds = [resource["resourceType"] for resource in entries.values()]
    assert kinds.count("Encounter") == 1
    assert "Claim" not in kinds


def test_a_summary_needs_a_patient() -> None:
    """Without demographics there is nobody to summarise."""
    with pytest.raises(InvalidTransaction):
        assemble(PATIENT, facts()[1:], maker=MAKER)


@given(st.lists(st.text(max_size=400), max_size=5))
def test_a_narrative_is_words_and_nothing_else(lines: list[str]) -> None:
    """Whatever stood in a record, the text is well-formed XML with those tags alone."""
    from xml.etree import ElementTree

    div = ElementTree.fromstring(narrative(lines, empty="nothing")["div"])
    tags = {element.tag.rpartition("}")[2] for element in div.iter()}
    assert tags <= {"div", "ul", "li", "p"}
    assert all(not element.attrib for element in div.iter())
    assert all(len(element.text or "") <= LINE_CHARS_MAX for element in div.iter())


@given(st.lists(st.tuples(st.sampled_from("CAMI"), st.text(max_size=90)), max_size=60))
def test_a_code_always_fits(drawn: list[tuple[str, str]]) -> None:
    """However many and long the lines, it is one code; what has no room is counted."""
    kinds = {
        "C": "Condition",
        "A": "AllergyIntolerance",
        "M": "MedicationStatement",
        "I": "Immunization",
    }
    parts = [
        kept(1 + number, {"resourceType": kinds[kind]}, words=text)
        for number, (kind, text) in enumerate(drawn)
    ]
    summary = assemble(PATIENT, [person(), *parts], maker=MAKER)
    code = code_of(summary, network=NETWORK, person=PERSON)
    assert len(codec.encode(code)) <= PAYLOAD_BYTES_MAX
    shown = (code.allergies, code.medications, code.problems, code.immunizations)
    assert sum(map(len, shown)) + code.left_out == len(drawn)
    text = print_code(code, seed=SEED, signer=MAKER.device)
    assert len(text) <= CODE_CHARS_MAX
    assert parse_code(text).code == code


BREAKS: tuple[tuple[str, Any, str], ...] = (
    ("type", "collection", "type: not document"),
    ("timestamp", None, "timestamp: missing"),
    ("identifier", {}, "identifier.system: missing"),
    ("entry.0.resource.type", {}, "Composition.type: missing"),
    ("entry.0.resource.subject", {"reference": "urn:uuid:x"}, "no Patient of this document"),
    ("entry.0.resource.section.0.entry", [], "neither entries nor emptyReason"),
    ("entry.0.resource.section.0.code", None, "none for problems"),
    ("entry.0.resource.section.0.text", None, "section[0].text: missing"),
    ("entry.0.resource.section.0.entry.0", {"reference": "urn:uuid:x"}, "leads nowhere"),
    ("entry.1.fullUrl", None, "without fullUrl"),
    ("entry.1.resource.name", None, "Patient.name: missing"),
    ("entry.2.resource.code", None, "entry[2].resource.code: missing"),
)


@pytest.mark.parametrize(("path", "value", "fault"), BREAKS, ids=[path for path, _, _ in BREAKS])
def test_what_ips_demands_is_missed(path: str, value: Any, fault: str) -> None:
    """Each element taken out of a good summary is named by its place."""
    document = json.loads(assemble(PATIENT, facts(), maker=MAKER).document)
    *way, last = path.split(".")
    target: Any = document
    for name in way:
        target = target[int(name) if name.isdigit() else name]
    if value is None:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    faults = profile_faults(json.dumps(document).encode())
    assert any(fault in found for found in faults), faults


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"resourceType":"Bundle","entry":[1,{}]}'])
def test_what_is_no_bundle_is_told_so(raw: bytes) -> None:
    """Rubbish has faults, and never more than the limit."""
    assert 0 < len(profile_faults(raw)) <= FAULTS_MAX
    flood = spelled({"resourceType": "Bundle", "entry": [{}] * 500})
    assert len(profile_faults(flood)) == FAULTS_MAX
