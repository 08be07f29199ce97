"""More typed constructors: what warns, what is taken, what was found, kept and planned.

The rules of ``typed.py`` hold. An attachment's bytes are part of the resource and sealed with
it; a body longer than a record may be is refused when it is sealed.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import ClassVar, Final

from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.typed_fields import (
    ATC,
    LOINC,
    SNOMED_CT,
    TERMINOLOGY,
    Code,
    Coding,
    When,
    check_code,
    check_one_of,
    check_patient,
    check_several,
    check_text,
    coded,
    concept,
    fhir_json,
    fhir_time,
    reference,
    refuse,
)

__all__ = [
    "AllergyIntolerance",
    "CarePlan",
    "DiagnosticReport",
    "DocumentReference",
    "MedicationStatement",
]

ATTACHMENT_BYTES_MAX: Final = RECORD_BYTES_MAX * 3 // 4 - 64 * 1024
"""In base64, and with the rest of the resource, still one record."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AllergyIntolerance:
    """What must not be given, and how the patient reacted (SNOMED CT)."""

    CRITICALITY: ClassVar = ("low", "high", "unable-to-assess")
    CLINICAL: ClassVar = ("active", "inactive", "resolved")

    patient: bytes
    substance: Code
    reaction: Code | None = None
    criticality: str = "unable-to-assess"
    clinical_status: str = "active"
    recorded: When | None = None

    def __post_init__(self) -> None:
        check_patient(self.patient, "AllergyIntolerance.patient")
        coded(self.substance, SNOMED_CT, "AllergyIntolerance.substance")
        if self.reaction is not None:
            coded(self.reaction, SNOMED_CT, "AllergyIntolerance.reaction")
        check_one_of(self.criticality, self.CRITICALITY, "AllergyIntolerance.criticality")
        check_one_of(self.clinical_status, self.CLINICAL, "AllergyIntolerance.clinical_status")
        if self.recorded is not None:
            fhir_time(self.recorded, "AllergyIntolerance.recorded")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        status = Coding(self.clinical_status, TERMINOLOGY + "allergyintolerance-clinical")
        seen = self.reaction
        reaction = [{"manifestation": [coded(seen, SNOMED_CT, "reaction")]}] if seen else None
        recorded = self.recorded
        return fhir_json(
            resourceType="AllergyIntolerance",
            clinicalStatus=concept(status),
            criticality=self.criticality,
            code=coded(self.substance, SNOMED_CT, "AllergyIntolerance.substance"),
            patient=reference(self.patient),
            recordedDate=fhir_time(recorded, "recorded") if recorded is not None else None,
            reaction=reaction,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MedicationStatement:
    """What the patient takes, by his own word or another's (ATC)."""

    STATUS: ClassVar = ("active", "completed", "stopped", "on-hold", "not-taken", "unknown")

    patient: bytes
    medication: Code
    status: str = "active"
    effective: When | None = None
    dosage: str = ""

    def __post_init__(self) -> None:
        check_patient(self.patient, "MedicationStatement.patient")
        coded(self.medication, ATC, "MedicationStatement.medication")
        check_one_of(self.status, self.STATUS, "MedicationStatement.status")
        if self.effective is not None:
            fhir_time(self.effective, "MedicationStatement.effective")
        check_text(self.dosage, "MedicationStatement.dosage", empty=True)

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        since = self.effective
        return fhir_json(
            resourceType="MedicationStatement",
            status=self.status,
            medicationCodeableConcept=coded(self.medication, ATC, "medication"),
            subject=reference(self.patient),
            effectiveDateTime=fhir_time(since, "effective") if since is not None else None,
            dosage=[{"text": self.dosage}] if self.dosage else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DiagnosticReport:
    """What an examination found (LOINC): a conclusion in words, codes, or a document."""

    STATUS: ClassVar = ("registered", "partial", "preliminary", "final", "amended", "corrected")
    SERVICES: ClassVar = ("LAB", "RAD", "PAT", "CUS", "EC", "OTH")
    """Sections of HL7 table 0074; ``RAD`` and ``CUS`` (ultrasound) are imaging."""

    patient: bytes
    code: Code
    effective: When
    conclusion: str = ""
    diagnoses: tuple[Code, ...] = ()
    service: str = "LAB"
    status: str = "final"

    def __post_init__(self) -> None:
        check_patient(self.patient, "DiagnosticReport.patient")
        coded(self.code, LOINC, "DiagnosticReport.code")
        fhir_time(self.effective, "DiagnosticReport.effective")
        check_text(self.conclusion, "DiagnosticReport.conclusion", empty=True)
        check_several(self.diagnoses, "DiagnosticReport.diagnoses")
        for index, diagnosis in enumerate(self.diagnoses):
            coded(diagnosis, SNOMED_CT, f"DiagnosticReport.diagnoses[{index}]")
        check_one_of(self.service, self.SERVICES, "DiagnosticReport.service")
        check_one_of(self.status, self.STATUS, "DiagnosticReport.status")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        return fhir_json(
            resourceType="DiagnosticReport",
            status=self.status,
            category=[concept(Coding(self.service, TERMINOLOGY + "v2-0074"))],
            code=coded(self.code, LOINC, "DiagnosticReport.code"),
            subject=reference(self.patient),
            effectiveDateTime=fhir_time(self.effective, "DiagnosticReport.effective"),
            conclusion=self.conclusion,
            conclusionCode=[coded(code, SNOMED_CT, "diagnoses") for code in self.diagnoses],
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DocumentReference:
    """A letter, picture or scan, kept with the record (LOINC names its kind)."""

    patient: bytes
    kind: Code
    content: bytes
    media_type: str
    """Such as ``application/pdf`` or ``image/jpeg``."""
    title: str = ""
    made: When | None = None

    def __post_init__(self) -> None:
        check_patient(self.patient, "DocumentReference.patient")
        coded(self.kind, LOINC, "DocumentReference.kind")
        if not isinstance(self.content, bytes) or not 0 < len(self.content) <= ATTACHMENT_BYTES_MAX:
            refuse("DocumentReference.content", f"expected 1 to {ATTACHMENT_BYTES_MAX} bytes")
        check_code(self.media_type, "DocumentReference.media_type")
        check_text(self.title, "DocumentReference.title", empty=True)
        if self.made is not None:
            fhir_time(self.made, "DocumentReference.made")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        attachment = {
            "contentType": self.media_type,
            "data": b64encode(self.content).decode("ascii"),
            **({"title": self.title} if self.title else {}),
        }
        return fhir_json(
            resourceType="DocumentReference",
            status="current",
            type=coded(self.kind, LOINC, "DocumentReference.kind"),
            subject=reference(self.patient),
            date=fhir_time(self.made, "DocumentReference.made") if self.made is not None else None,
            content=[{"attachment": attachment}],
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CarePlan:
    """What shall be done for a patient: a title, and activities in words (SNOMED CT)."""

    STATUS: ClassVar = ("draft", "active", "on-hold", "revoked", "completed")

    patient: bytes
    title: str
    activities: tuple[str, ...]
    period_start: When
    period_end: When | None = None
    category: Code | None = None
    status: str = "active"

    def __post_init__(self) -> None:
        check_patient(self.patient, "CarePlan.patient")
        check_text(self.title, "CarePlan.title")
        check_several(self.activities, "CarePlan.activities")
        for index, activity in enumerate(self.activities):
            check_text(activity, f"CarePlan.activities[{index}]")
        fhir_time(self.period_start, "CarePlan.period_start")
        if self.period_end is not None:
            fhir_time(self.period_end, "CarePlan.period_end")
        if self.category is not None:
            coded(self.category, SNOMED_CT, "CarePlan.category")
        check_one_of(self.status, self.STATUS, "CarePlan.status")

    def to_fhir(self) -> bytes:
        """See ``Clinical.to_fhir``."""
        period = {"start": fhir_time(self.period_start, "CarePlan.period_start")}
        if self.period_end is not None:
            period["end"] = fhir_time(self.period_end, "CarePlan.period_end")
        kind = self.category
        return fhir_json(
            resourceType="CarePlan",
            status=self.status,
            intent="plan",
            category=[coded(kind, SNOMED_CT, "category")] if kind is not None else None,
            title=self.title,
            subject=reference(self.patient),
            period=period,
            activity=[
                {"detail": {"status": "scheduled", "description": activity}}
                for activity in self.activities
            ],
        )
