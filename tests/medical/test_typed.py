"""Typed constructors: right FHIR, exact numbers, and refusals that name the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical import typed
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import Category
from p2pmed.medical.typed import (
    SNOMED_CT,
    Coding,
    Condition,
    Demographics,
    Encounter,
    Immunization,
    MedicationRequest,
    Observation,
    PatientName,
    Procedure,
    Quantity,
)

WANG = bytes(range(16))
WHEN = "2024-05-01T08:00:00Z"
NAME = PatientName(family="Canary", given=("Wang", "Li"))

GOOD: list[tuple[Any, Category, str]] = [
    (
        Demographics(
            patient=WANG,
            names=(NAME, PatientName(text="Old Wang")),
            gender="female",
            birth_date="1961-05",
            phone="+254 7",
            address="behind the mill",
        ),
        Category.DEMOGRAPHICS,
        "Patient",
    ),
    (Encounter(patient=WANG, reason="R50.9", period_start=WHEN), Category.GENERAL, "Encounter"),
    (
        Observation(
            patient=WANG,
            code="718-7",
            value=Quantity(value=Decimal("6.50"), unit="g/dL"),
            effective=WHEN,
            category="laboratory",
        ),
        Category.LABORATORY,
        "Observation",
    ),
    (
        Observation(patient=WANG, code="8716-3", value="pale", effective=WHEN),
        Category.GENERAL,
        "Observation",
    ),
    (Condition(patient=WANG, code="B54", onset=WHEN), Category.GENERAL, "Condition"),
    (
        MedicationRequest(
            patient=WANG,
            medication="P01BF01",
            authored=WHEN,
            dosage="twice a day",
            quantity=Quantity(value=24, unit="{tbl}"),
        ),
        Category.MEDICATION,
        "MedicationRequest",
    ),
    (
        Immunization(patient=WANG, vaccine="03", occurred=WHEN, lot="A1", dose=2),
        Category.IMMUNIZATION,
        "Immunization",
    ),
    (
        Procedure(
            patient=WANG,
            code=Coding("80146002", SNOMED_CT, "Appendectomy"),
            performed=WHEN,
            reason="K35",
        ),
        Category.SURGERY,
        "Procedure",
    ),
]


@pytest.mark.parametrize(("made", "category", "kind"), GOOD)
def test_what_is_made_is_read(made: Any, category: Category, kind: str) -> None:
    """Each constructor's bytes pass our own reader, with patient, time and category."""
    resource = read_resource(made.to_fhir())
    assert (resource.type, resource.category) == (kind, category)
    if kind == "Patient":
        assert resource.id == WANG.hex()
    else:
        assert resource.patient == f"Patient/{WANG.hex()}"
        assert resource.occurred_ms == 1_714_550_400_000
    assert made.to_fhir() == made.to_fhir()


@pytest.mark.parametrize(("made", "category", "kind"), GOOD)
def test_no_repr_shows_a_patient(made: Any, category: Category, kind: str) -> None:
    """Printing a value tells its type and nothing else."""
    shown = repr([made, NAME, Coding("x", "y")])
    for secret in ("Canary", "Wang", "R50.9", "6.50", WANG.hex(), repr(WANG)):
        assert secret not in shown


def test_every_constructor_is_tried_above() -> None:
    """A new class needs an example here."""
    tried = {type(made).__name__ for made, _, _ in GOOD}
    made = {name for name in typed.__all__ if hasattr(getattr(typed, name), "to_fhir")}
    assert made - {"Clinical"} == tried


def test_an_encounter_in_full() -> None:
    """The members are FHIR's, with the usual code systems, and nothing empty."""
    made = Encounter(
        patient=WANG,
        reason="R50.9",
        period_start=datetime(2024, 5, 1, 8, tzinfo=UTC),
        period_end="2024-05-01T09:00:00Z",
    )
    assert json.loads(made.to_fhir()) == {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": {"reference": f"Patient/{WANG.hex()}"},
        "period": {"start": "2024-05-01T08:00:00.000+00:00", "end": "2024-05-01T09:00:00Z"},
        "reasonCode": [{"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R50.9"}]}],
    }


@pytest.mark.parametrize("number", ["6.50", "0", "-1", "1E-7", "12345678901234567890.10"])
def test_numbers_keep_their_digits(number: str) -> None:
    """A quantity is written as it was measured."""
    made = Observation(
        patient=WANG,
        code="718-7",
        value=Quantity(value=Decimal(number), unit="1"),
        effective=WHEN,
    )
    assert f'"value":{number},'.encode() in made.to_fhir()


def _encounter(**fields: Any) -> Any:
    return Encounter(**({"patient": WANG, "period_start": WHEN} | fields))


def _observation(**fields: Any) -> Any:
    usual = {"patient": WANG, "code": "718-7", "value": "x", "effective": WHEN}
    return Observation(**(usual | fields))


BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (_encounter, {"patient": b"short"}, "Encounter.patient"),
    (_encounter, {"patient": "canary"}, "Encounter.patient"),
    (_encounter, {"reason": ""}, "Encounter.reason"),
    (_encounter, {"reason": " canary"}, "Encounter.reason"),
    (_encounter, {"reason": 5}, "Encounter.reason"),
    (_encounter, {"reason": "x" * 65}, "Encounter.reason"),
    (_encounter, {"period_start": "canary"}, "Encounter.period_start"),
    (_encounter, {"period_start": datetime(2024, 5, 1)}, "Encounter.period_start"),
    (_encounter, {"period_start": 5}, "Encounter.period_start"),
    (_encounter, {"period_end": "2024-04-30"}, "Encounter.period_end"),
    (_encounter, {"status": "canary"}, "Encounter.status"),
    (_encounter, {"kind": "canary"}, "Encounter.kind"),
    (_observation, {"value": 6.5}, "Observation.value"),
    (_observation, {"value": ""}, "Observation.value"),
    (_observation, {"code": None}, "Observation.code"),
    (_observation, {"category": "canary"}, "Observation.category"),
    (Quantity, {"value": 6.5, "unit": "g"}, "Quantity.value"),
    (Quantity, {"value": True, "unit": "g"}, "Quantity.value"),
    (Quantity, {"value": Decimal("NaN"), "unit": "g"}, "Quantity.value"),
    (Quantity, {"value": 1, "unit": ""}, "Quantity.unit"),
    (Coding, {"code": "a  b", "system": "s"}, "Coding.code"),
    (Coding, {"code": "a", "system": ""}, "Coding.system"),
    (Condition, {"patient": WANG, "code": None}, "Condition.code"),
    (Condition, {"patient": WANG, "code": "A", "onset": "x"}, "Condition.onset"),
    (
        Condition,
        {"patient": WANG, "code": "A", "clinical_status": "canary"},
        "Condition.clinical_status",
    ),
    (Condition, {"patient": WANG, "code": "A", "certainty": "canary"}, "Condition.certainty"),
    (Procedure, {"patient": WANG, "code": None, "performed": WHEN}, "Procedure.code"),
    (
        Immunization,
        {"patient": WANG, "vaccine": None, "occurred": WHEN},
        "Immunization.vaccine",
    ),
    (
        Immunization,
        {"patient": WANG, "vaccine": "03", "occurred": WHEN, "dose": 0},
        "Immunization.dose",
    ),
    (
        MedicationRequest,
        {"patient": WANG, "medication": None, "authored": WHEN},
        "MedicationRequest.medication",
    ),
    (
        MedicationRequest,
        {"patient": WANG, "medication": "P01", "authored": WHEN, "quantity": 5},
        "MedicationRequest.quantity",
    ),
    (PatientName, {}, "PatientName"),
    (PatientName, {"given": "canary"}, "PatientName.given"),
    (PatientName, {"given": ("a", "")}, "PatientName.given[1]"),
    (PatientName, {"family": "x" * 2000}, "PatientName.family"),
    (Demographics, {"patient": WANG, "names": ()}, "Demographics.names"),
    (Demographics, {"patient": WANG, "names": (NAME,), "gender": "x"}, "Demographics.gender"),
    (
        Demographics,
        {"patient": WANG, "names": (NAME,), "birth_date": "canary"},
        "Demographics.birth_date",
    ),
    (
        Demographics,
        {"patient": WANG, "names": (NAME,), "birth_date": "2024-02-30"},
        "Demographics.birth_date",
    ),
]


@pytest.mark.parametrize(("make", "fields", "field"), BAD)
def test_refusals_name_the_field(
    make: Callable[..., Any], fields: dict[str, Any], field: str
) -> None:
    """A wrong field is refused when the value is made, by name and without its contents."""
    with pytest.raises(InvalidTransaction) as caught:
        make(**fields)
    assert str(caught.value).startswith(field + ":")
    assert "canary" not in str(caught.value)
