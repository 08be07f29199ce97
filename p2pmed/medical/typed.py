"""Typed constructors of common FHIR R4 resources, for those who have no FHIR of their own.

Rule of this file: each class is a value that checks itself when made and names the field it
refuses, never its contents; ``to_fhir`` gives the bytes that are sealed and kept. A patient is
a pseudonym; a number is an integer or a ``Decimal`` and keeps its digits; a time is a FHIR
dateTime or an aware ``datetime``. No ``repr`` shows contents. Implements medical notes,
section 1 row 1, for seven resource types (HL7 FHIR R4 4.0.1, each type's own page).

What it does not do: every field of FHIR. Whoever needs more hands in FHIR itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import msgspec

from p2pmed.errors import InvalidTransaction
from p2pmed.limits import TEXT_CHARS_MAX
from p2pmed.medical.fhir import occurred_ms

__all__ = [
    "ATC",
    "CVX",
    "ICD_10",
    "LOINC",
    "SNOMED_CT",
    "UCUM",
    "Clinical",
    "Coding",
    "Condition",
    "Demographics",
    "Encounter",
    "Immunization",
    "MedicationRequest",
    "Observation",
    "PatientName",
    "Procedure",
    "Quantity",
]

ICD_10: Final = "http://hl7.org/fhir/sid/icd-10"
LOINC: Final = "http://loinc.org"
ATC: Final = "http://www.whocc.no/atc"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
SNOMED_CT: Final = "http://snomed.info/sct"
UCUM: Final = "http://unitsofmeasure.org"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"

NAMES_MAX: Final = 16
CODE_CHARS_MAX: Final = 64

_CODE: Final = re.compile(r"[^\s\x00-\x1f]+( [^\s\x00-\x1f]+)*")
_BIRTH_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

When: TypeAlias = str | datetime
"""A FHIR dateTime as text, or an aware ``datetime``."""


class Clinical(Protocol):
    """Anything that can be submitted as a record about a patient."""

    @property
    def patient(self) -> bytes:
        """The pseudonym, 16 bytes."""

    def to_fhir(self) -> bytes:
        """One FHIR R4 resource as JSON."""


@dataclass(frozen=True, slots=True, repr=False)
class Coding:
    """A code of a code system, with a text for people."""

    code: str
    system: str
    display: str = ""

    def __post_init__(self) -> None:
        _code(self.code, "Coding.code")
        _text(self.system, "Coding.system")
        _text(self.display, "Coding.display", empty=True)


Code: TypeAlias = str | Coding
"""A bare code belongs to the field's usual system; for another, give a ``Coding``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Quantity:
    """A measured number: exact, with its UCUM unit."""

    value: int | Decimal
    unit: str

    def __post_init__(self) -> None:
        _number(self.value, "Quantity.value")
        _code(self.unit, "Quantity.unit")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PatientName:
    """A person's name; a name without parts goes into ``text``."""

    family: str = ""
    given: tuple[str, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        _text(self.family, "PatientName.family", empty=True)
        _text(self.text, "PatientName.text", empty=True)
        _several(self.given, "PatientName.given")
        for index, given in enumerate(self.given):
            _text(given, f"PatientName.given[{index}]")
        if not (self.family or self.given or self.text):
            _refuse("PatientName", "empty")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Demographics:
    """A FHIR Patient: what a registration seals."""

    GENDERS: ClassVar = ("male", "female", "other", "unknown")

    patient: bytes
    names: tuple[PatientName, ...]
    gender: str = "unknown"
    birth_date: str = ""
    """Year, year and month, or full date; empty if unknown."""
    phone: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        _patient(self.patient, "Demographics.patient")
        _several(self.names, "Demographics.names")
        if not self.names:
            _refuse("Demographics.names", "empty")
        _one_of(self.gender, self.GENDERS, "Demographics.gender")
        if self.birth_date:
            _birth_date(self.birth_date, "Demographics.birth_date")
        _text(self.phone, "Demographics.phone", empty=True)
        _text(self.address, "Demographics.address", empty=True)

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        names = [
            _filled(family=name.family, given=list(name.given), text=name.text)
            for name in self.names
        ]
        return _json(
            resourceType="Patient",
            id=self.patient.hex(),
            name=names,
            telecom=[{"system": "phone", "value": self.phone}] if self.phone else None,
            gender=self.gender,
            birthDate=self.birth_date,
            address=[{"text": self.address}] if self.address else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Encounter:
    """A visit, and why (ICD-10)."""

    STATUSES: ClassVar = ("planned", "arrived", "triaged", "in-progress", "finished", "cancelled")
    CLASSES: ClassVar = ("AMB", "EMER", "HH", "IMP", "VR")

    patient: bytes
    period_start: When
    period_end: When | None = None
    reason: Code | None = None
    status: str = "finished"
    kind: str = "AMB"
    """Code of HL7's ActCode: ambulatory, emergency, home, inpatient, virtual."""

    def __post_init__(self) -> None:
        _patient(self.patient, "Encounter.patient")
        start = _when(self.period_start, "Encounter.period_start")
        if self.period_end is not None:
            end = _when(self.period_end, "Encounter.period_end")
            if _ms(end) < _ms(start):
                _refuse("Encounter.period_end", "before period_start")
        _coded(self.reason, ICD_10, "Encounter.reason")
        _one_of(self.status, self.STATUSES, "Encounter.status")
        _one_of(self.kind, self.CLASSES, "Encounter.kind")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        reason = _coded(self.reason, ICD_10, "Encounter.reason")
        end = self.period_end
        return _json(
            resourceType="Encounter",
            status=self.status,
            **{"class": {"system": _TERMINOLOGY + "v3-ActCode", "code": self.kind}},
            subject=_reference(self.patient),
            period=_filled(
                start=_when(self.period_start, "Encounter.period_start"),
                end=_when(end, "Encounter.period_end") if end is not None else None,
            ),
            reasonCode=[reason] if reason else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Observation:
    """Something measured or seen (LOINC): a quantity, a code or a text."""

    CATEGORIES: ClassVar = (
        "vital-signs",
        "laboratory",
        "imaging",
        "exam",
        "survey",
        "social-history",
        "procedure",
        "therapy",
        "activity",
    )

    patient: bytes
    code: Code
    value: Quantity | Coding | str
    effective: When
    category: str = "vital-signs"

    def __post_init__(self) -> None:
        _patient(self.patient, "Observation.patient")
        _coded(self.code, LOINC, "Observation.code")
        if not isinstance(self.value, Quantity | Coding):
            _text(self.value, "Observation.value")
        _when(self.effective, "Observation.effective")
        _one_of(self.category, self.CATEGORIES, "Observation.category")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        category = Coding(self.category, _TERMINOLOGY + "observation-category")
        return _json(
            resourceType="Observation",
            status="final",
            category=[_concept(category)],
            code=_coded(self.code, LOINC, "Observation.code"),
            subject=_reference(self.patient),
            effectiveDateTime=_when(self.effective, "Observation.effective"),
            **_value(self.value),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Condition:
    """A diagnosis (ICD-10)."""

    CLINICAL: ClassVar = ("active", "recurrence", "relapse", "inactive", "remission", "resolved")
    CERTAINTY: ClassVar = ("unconfirmed", "provisional", "differential", "confirmed", "refuted")

    patient: bytes
    code: Code
    onset: When | None = None
    clinical_status: str = "active"
    certainty: str = "confirmed"

    def __post_init__(self) -> None:
        _patient(self.patient, "Condition.patient")
        _coded(self.code, ICD_10, "Condition.code")
        if self.onset is not None:
            _when(self.onset, "Condition.onset")
        _one_of(self.clinical_status, self.CLINICAL, "Condition.clinical_status")
        _one_of(self.certainty, self.CERTAINTY, "Condition.certainty")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        clinical = Coding(self.clinical_status, _TERMINOLOGY + "condition-clinical")
        certainty = Coding(self.certainty, _TERMINOLOGY + "condition-ver-status")
        return _json(
            resourceType="Condition",
            clinicalStatus=_concept(clinical),
            verificationStatus=_concept(certainty),
            code=_coded(self.code, ICD_10, "Condition.code"),
            subject=_reference(self.patient),
            onsetDateTime=_when(self.onset, "Condition.onset") if self.onset else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MedicationRequest:
    """A medication ordered (ATC), with instructions in words."""

    patient: bytes
    medication: Code
    authored: When
    dosage: str = ""
    quantity: Quantity | None = None

    def __post_init__(self) -> None:
        _patient(self.patient, "MedicationRequest.patient")
        _coded(self.medication, ATC, "MedicationRequest.medication")
        _when(self.authored, "MedicationRequest.authored")
        _text(self.dosage, "MedicationRequest.dosage", empty=True)
        if self.quantity is not None and not isinstance(self.quantity, Quantity):
            _refuse("MedicationRequest.quantity", "expected a Quantity")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        quantity = _quantity(self.quantity) if self.quantity is not None else None
        return _json(
            resourceType="MedicationRequest",
            status="active",
            intent="order",
            medicationCodeableConcept=_coded(self.medication, ATC, "MedicationRequest.medication"),
            subject=_reference(self.patient),
            authoredOn=_when(self.authored, "MedicationRequest.authored"),
            dosageInstruction=[{"text": self.dosage}] if self.dosage else None,
            dispenseRequest={"quantity": quantity} if quantity else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Immunization:
    """A vaccine given (CVX)."""

    patient: bytes
    vaccine: Code
    occurred: When
    lot: str = ""
    dose: int | None = None
    """Number of the dose in its series, from 1."""

    def __post_init__(self) -> None:
        _patient(self.patient, "Immunization.patient")
        _coded(self.vaccine, CVX, "Immunization.vaccine")
        _when(self.occurred, "Immunization.occurred")
        _text(self.lot, "Immunization.lot", empty=True)
        if self.dose is not None and (type(self.dose) is not int or not 1 <= self.dose <= 99):
            _refuse("Immunization.dose", "expected an integer from 1 to 99")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        return _json(
            resourceType="Immunization",
            status="completed",
            vaccineCode=_coded(self.vaccine, CVX, "Immunization.vaccine"),
            patient=_reference(self.patient),
            occurrenceDateTime=_when(self.occurred, "Immunization.occurred"),
            lotNumber=self.lot,
            protocolApplied=[{"doseNumberPositiveInt": self.dose}] if self.dose else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Procedure:
    """Something done to a patient (SNOMED CT)."""

    patient: bytes
    code: Code
    performed: When
    reason: Code | None = None

    def __post_init__(self) -> None:
        _patient(self.patient, "Procedure.patient")
        _coded(self.code, SNOMED_CT, "Procedure.code")
        _when(self.performed, "Procedure.performed")
        _coded(self.reason, ICD_10, "Procedure.reason")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        reason = _coded(self.reason, ICD_10, "Procedure.reason")
        return _json(
            resourceType="Procedure",
            status="completed",
            code=_coded(self.code, SNOMED_CT, "Procedure.code"),
            subject=_reference(self.patient),
            performedDateTime=_when(self.performed, "Procedure.performed"),
            reasonCode=[reason] if reason else None,
        )


def _refuse(field: str, why: str) -> None:
    raise InvalidTransaction(f"{field}: {why}")


def _patient(value: bytes, field: str) -> None:
    if not isinstance(value, bytes) or len(value) != 16:
        _refuse(field, "expected a pseudonym of 16 bytes")


def _several(value: Sequence[Any], field: str) -> None:
    if not isinstance(value, tuple) or len(value) > NAMES_MAX:
        _refuse(field, f"expected a tuple of at most {NAMES_MAX}")


def _text(value: str, field: str, *, empty: bool = False) -> None:
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
        _refuse(field, f"expected text of at most {TEXT_CHARS_MAX} characters")
    if not empty and not value.strip():
        _refuse(field, "empty")


def _code(value: str, field: str) -> None:
    if not isinstance(value, str) or len(value) > CODE_CHARS_MAX or not _CODE.fullmatch(value):
        _refuse(field, f"expected a code of at most {CODE_CHARS_MAX} characters")


def _one_of(value: str, allowed: Sequence[str], field: str) -> None:
    if value not in allowed:
        _refuse(field, f"expected one of {', '.join(allowed)}")


def _number(value: int | Decimal, field: str) -> None:
    whole = type(value) is int
    if not whole and not (isinstance(value, Decimal) and value.is_finite()):
        _refuse(field, "expected an integer or a finite Decimal")


def _birth_date(value: str, field: str) -> None:
    if not isinstance(value, str) or not _BIRTH_DATE.fullmatch(value):
        _refuse(field, "not a FHIR date")
    occurred_ms(value, field)


def _when(value: When, field: str) -> str:
    """A time as FHIR text."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            _refuse(field, "a datetime without its time zone")
        value = value.isoformat(timespec="milliseconds")
    if not isinstance(value, str):
        _refuse(field, "expected a FHIR dateTime or a datetime")
    occurred_ms(value, field)
    return value


def _ms(text: str) -> int:
    return occurred_ms(text, "period")


def _concept(coding: Coding) -> dict[str, Any]:
    filled = _filled(system=coding.system, code=coding.code, display=coding.display)
    return {"coding": [filled]}


def _coded(code: Code | None, system: str, field: str) -> dict[str, Any] | None:
    if code is None:
        return None
    if not isinstance(code, Coding):
        _code(code, field)
        code = Coding(code, system)
    return _concept(code)


def _quantity(quantity: Quantity) -> dict[str, Any]:
    unit = quantity.unit
    return {"value": quantity.value, "unit": unit, "system": UCUM, "code": unit}


def _value(value: Quantity | Coding | str) -> dict[str, Any]:
    if isinstance(value, Quantity):
        return {"valueQuantity": _quantity(value)}
    if isinstance(value, Coding):
        return {"valueCodeableConcept": _concept(value)}
    return {"valueString": value}


def _reference(patient: bytes) -> dict[str, str]:
    return {"reference": f"Patient/{patient.hex()}"}


def _filled(**members: Any) -> dict[str, Any]:
    """Without what is empty: FHIR knows no empty value."""
    return {key: value for key, value in members.items() if value not in (None, "", [], ())}


def _json(**members: Any) -> bytes:
    return _ENCODER.encode(_filled(**members))
