"""Typed constructors of common FHIR R4 resources, for those who have no FHIR of their own.

Rule of this file: each class is a value that checks itself when made and names the field it
refuses, never its contents; ``to_fhir`` gives the bytes that are sealed and kept. A patient is
a pseudonym; a number is an integer or a ``Decimal`` and keeps its digits; a time is a FHIR
dateTime or an aware ``datetime``. No ``repr`` shows contents. Implements medical notes,
section 1 row 1, for seven resource types (HL7 FHIR R4 4.0.1, each type's own page).

What it does not do: every field of FHIR. Whoever needs more hands in FHIR itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from p2pmed.medical.fhir import occurred_ms
from p2pmed.medical.typed_fields import (
    ATC,
    CVX,
    ICD_10,
    LOINC,
    SNOMED_CT,
    TERMINOLOGY,
    UCUM,
    Code,
    Coding,
    PatientName,
    Quantity,
    When,
    check_birth_date,
    check_one_of,
    check_patient,
    check_several,
    check_text,
    coded,
    concept,
    fhir_json,
    fhir_time,
    filled,
    measured,
    reference,
    refuse,
    value_member,
)

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


class Clinical(Protocol):
    """Anything that can be submitted as a record about a patient."""

    @property
    def patient(self) -> bytes:
        """The pseudonym, 16 bytes."""

    def to_fhir(self) -> bytes:
        """One FHIR R4 resource as JSON."""


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
        check_patient(self.patient, "Demographics.patient")
        check_several(self.names, "Demographics.names")
        if not self.names:
            refuse("Demographics.names", "empty")
        check_one_of(self.gender, self.GENDERS, "Demographics.gender")
        if self.birth_date:
            check_birth_date(self.birth_date, "Demographics.birth_date")
        check_text(self.phone, "Demographics.phone", empty=True)
        check_text(self.address, "Demographics.address", empty=True)

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        names = [
            filled(family=name.family, given=list(name.given), text=name.text)
            for name in self.names
        ]
        return fhir_json(
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
        check_patient(self.patient, "Encounter.patient")
        start = fhir_time(self.period_start, "Encounter.period_start")
        if self.period_end is not None:
            end = fhir_time(self.period_end, "Encounter.period_end")
            if occurred_ms(end, "end") < occurred_ms(start, "start"):
                refuse("Encounter.period_end", "before period_start")
        if self.reason is not None:
            coded(self.reason, ICD_10, "Encounter.reason")
        check_one_of(self.status, self.STATUSES, "Encounter.status")
        check_one_of(self.kind, self.CLASSES, "Encounter.kind")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        reason = self.reason
        end = self.period_end
        return fhir_json(
            resourceType="Encounter",
            status=self.status,
            **{"class": {"system": TERMINOLOGY + "v3-ActCode", "code": self.kind}},
            subject=reference(self.patient),
            period=filled(
                start=fhir_time(self.period_start, "Encounter.period_start"),
                end=fhir_time(end, "Encounter.period_end") if end is not None else None,
            ),
            reasonCode=[coded(reason, ICD_10, "reason")] if reason is not None else None,
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
        check_patient(self.patient, "Observation.patient")
        coded(self.code, LOINC, "Observation.code")
        if not isinstance(self.value, Quantity | Coding):
            check_text(self.value, "Observation.value")
        fhir_time(self.effective, "Observation.effective")
        check_one_of(self.category, self.CATEGORIES, "Observation.category")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        category = Coding(self.category, TERMINOLOGY + "observation-category")
        return fhir_json(
            resourceType="Observation",
            status="final",
            category=[concept(category)],
            code=coded(self.code, LOINC, "Observation.code"),
            subject=reference(self.patient),
            effectiveDateTime=fhir_time(self.effective, "Observation.effective"),
            **value_member(self.value),
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
        check_patient(self.patient, "Condition.patient")
        coded(self.code, ICD_10, "Condition.code")
        if self.onset is not None:
            fhir_time(self.onset, "Condition.onset")
        check_one_of(self.clinical_status, self.CLINICAL, "Condition.clinical_status")
        check_one_of(self.certainty, self.CERTAINTY, "Condition.certainty")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        clinical = Coding(self.clinical_status, TERMINOLOGY + "condition-clinical")
        certainty = Coding(self.certainty, TERMINOLOGY + "condition-ver-status")
        return fhir_json(
            resourceType="Condition",
            clinicalStatus=concept(clinical),
            verificationStatus=concept(certainty),
            code=coded(self.code, ICD_10, "Condition.code"),
            subject=reference(self.patient),
            onsetDateTime=fhir_time(self.onset, "Condition.onset") if self.onset else None,
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
        check_patient(self.patient, "MedicationRequest.patient")
        coded(self.medication, ATC, "MedicationRequest.medication")
        fhir_time(self.authored, "MedicationRequest.authored")
        check_text(self.dosage, "MedicationRequest.dosage", empty=True)
        if self.quantity is not None and not isinstance(self.quantity, Quantity):
            refuse("MedicationRequest.quantity", "expected a Quantity")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        amount = measured(self.quantity) if self.quantity is not None else None
        return fhir_json(
            resourceType="MedicationRequest",
            status="active",
            intent="order",
            medicationCodeableConcept=coded(self.medication, ATC, "MedicationRequest.medication"),
            subject=reference(self.patient),
            authoredOn=fhir_time(self.authored, "MedicationRequest.authored"),
            dosageInstruction=[{"text": self.dosage}] if self.dosage else None,
            dispenseRequest={"quantity": amount} if amount else None,
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
        check_patient(self.patient, "Immunization.patient")
        coded(self.vaccine, CVX, "Immunization.vaccine")
        fhir_time(self.occurred, "Immunization.occurred")
        check_text(self.lot, "Immunization.lot", empty=True)
        if self.dose is not None and (type(self.dose) is not int or not 1 <= self.dose <= 99):
            refuse("Immunization.dose", "expected an integer from 1 to 99")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        return fhir_json(
            resourceType="Immunization",
            status="completed",
            vaccineCode=coded(self.vaccine, CVX, "Immunization.vaccine"),
            patient=reference(self.patient),
            occurrenceDateTime=fhir_time(self.occurred, "Immunization.occurred"),
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
        check_patient(self.patient, "Procedure.patient")
        coded(self.code, SNOMED_CT, "Procedure.code")
        fhir_time(self.performed, "Procedure.performed")
        if self.reason is not None:
            coded(self.reason, ICD_10, "Procedure.reason")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        reason = self.reason
        return fhir_json(
            resourceType="Procedure",
            status="completed",
            code=coded(self.code, SNOMED_CT, "Procedure.code"),
            subject=reference(self.patient),
            performedDateTime=fhir_time(self.performed, "Procedure.performed"),
            reasonCode=[coded(reason, ICD_10, "reason")] if reason is not None else None,
        )
