"""Allergies, statements, reports, documents and plans: right FHIR, refusals that name the field."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical import typed_documents
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import Category
from p2pmed.medical.typed import SNOMED_CT, Coding
from p2pmed.medical.typed_documents import (
    AllergyIntolerance,
    CarePlan,
    DiagnosticReport,
    DocumentReference,
    MedicationStatement,
)

WANG = bytes(range(16))
WHEN = "2024-05-01T08:00:00Z"


def _allergy(**fields: Any) -> Any:
    usual = {"patient": WANG, "substance": Coding("91936005", SNOMED_CT), "recorded": WHEN}
    return AllergyIntolerance(**(usual | fields))


def _statement(**fields: Any) -> Any:
    return MedicationStatement(
        **({"patient": WANG, "medication": "C07AB02", "effective": WHEN} | fields)
    )


def _report(**fields: Any) -> Any:
    return DiagnosticReport(**({"patient": WANG, "code": "58410-2", "effective": WHEN} | fields))


def _document(**fields: Any) -> Any:
    usual = {
        "patient": WANG,
        "kind": "34133-9",
        "content": b"%PDF-",
        "media_type": "application/pdf",
        "made": WHEN,
    }
    return DocumentReference(**(usual | fields))


def _plan(**fields: Any) -> Any:
    usual = {
        "patient": WANG,
        "title": "Diabetes",
        "activities": ("walk", "weigh"),
        "period_start": WHEN,
    }
    return CarePlan(**(usual | fields))


MAKERS: list[tuple[Callable[..., Any], Category]] = [
    (_allergy, Category.GENERAL),
    (_statement, Category.MEDICATION),
    (_report, Category.LABORATORY),
    (_document, Category.GENERAL),
    (_plan, Category.GENERAL),
]


@pytest.mark.parametrize(("make", "category"), MAKERS)
def test_what_is_made_passes_the_reader(make: Callable[..., Any], category: Category) -> None:
    """Each constructor's bytes are read back with their type, patient, time and category."""
    made = make()
    resource = read_resource(made.to_fhir())
    assert (resource.type, resource.category) == (type(made).__name__, category)
    assert resource.patient == f"Patient/{WANG.hex()}"
    assert resource.occurred_ms == 1_714_550_400_000
    assert WANG.hex() not in repr(made)


def test_every_constructor_is_tried() -> None:
    """A new class needs an example here."""
    assert {type(make()).__name__ for make, _ in MAKERS} == set(typed_documents.__all__)


def test_members_are_those_of_fhir() -> None:
    """An allergy, a report, a document and a plan, member by member."""
    allergy = json.loads(_allergy(reaction="39579001", criticality="high").to_fhir())
    assert allergy["reaction"][0]["manifestation"][0]["coding"][0]["code"] == "39579001"
    assert (allergy["criticality"], allergy["patient"]["reference"][:8]) == ("high", "Patient/")
    report = json.loads(_report(service="RAD", diagnoses=("65363002",)).to_fhir())
    assert report["category"][0]["coding"][0]["code"] == "RAD"
    assert report["conclusionCode"][0]["coding"][0]["system"] == SNOMED_CT
    attachment = json.loads(_document(title="x").to_fhir())["content"][0]["attachment"]
    assert (b64decode(attachment["data"]), attachment["title"]) == (b"%PDF-", "x")
    plan = json.loads(_plan(period_end="2025", category="735321000").to_fhir())
    assert [each["detail"]["description"] for each in plan["activity"]] == ["walk", "weigh"]
    assert plan["period"] == {"start": WHEN, "end": "2025"}
    assert "dosage" not in json.loads(_statement().to_fhir())


BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (_allergy, {"patient": b"x"}, "AllergyIntolerance.patient"),
    (_allergy, {"substance": None}, "AllergyIntolerance.substance"),
    (_allergy, {"criticality": "canary"}, "AllergyIntolerance.criticality"),
    (_allergy, {"recorded": "canary"}, "AllergyIntolerance.recorded"),
    (_allergy, {"reaction": ""}, "AllergyIntolerance.reaction"),
    (_statement, {"status": "canary"}, "MedicationStatement.status"),
    (_statement, {"dosage": 5}, "MedicationStatement.dosage"),
    (_report, {"code": ""}, "DiagnosticReport.code"),
    (_report, {"service": "canary"}, "DiagnosticReport.service"),
    (_report, {"diagnoses": ("1", "")}, "DiagnosticReport.diagnoses[1]"),
    (_document, {"content": b""}, "DocumentReference.content"),
    (_document, {"content": "canary"}, "DocumentReference.content"),
    (_document, {"media_type": ""}, "DocumentReference.media_type"),
    (_plan, {"title": ""}, "CarePlan.title"),
    (_plan, {"activities": "canary"}, "CarePlan.activities"),
    (_plan, {"activities": ("a", " ")}, "CarePlan.activities[1]"),
    (_plan, {"period_end": "canary"}, "CarePlan.period_end"),
    (_plan, {"status": "canary"}, "CarePlan.status"),
]


@pytest.mark.parametrize(("make", "fields", "field"), BAD)
def test_a_refusal_names_its_field(
    make: Callable[..., Any], fields: dict[str, Any], field: str
) -> None:
    """By name and without its contents, when the value is made."""
    with pytest.raises(InvalidTransaction) as caught:
        make(**fields)
    assert str(caught.value).startswith(field + ":")
    assert "canary" not in str(caught.value)
