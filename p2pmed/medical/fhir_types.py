"""FHIR R4 as tables: its resource types, which category each is kept under, and which field
says when it happened.

Rule of this file: data only. Sources: HL7 FHIR R4 (4.0.1), resource list; HL7 v3 ActCode,
information sensitivity policies; HL7 observation-category and v2 table 0074.
"""

from __future__ import annotations

from typing import Final

from p2pmed.medical.keyring import Category

__all__ = [
    "CATEGORY_CODES",
    "CATEGORY_OF",
    "OCCURRED_FIELDS",
    "PATIENT_FIELDS",
    "RESOURCE_TYPES",
    "SENSITIVE_CODES",
]

_R4 = """
Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse
AuditEvent Basic Binary BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement
CarePlan CareTeam CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse
ClinicalImpression CodeSystem Communication CommunicationRequest CompartmentDefinition
Composition ConceptMap Condition Consent Contract Coverage CoverageEligibilityRequest
CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest
DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis
Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence
EvidenceVariable ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal
GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization
ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice
Library Linkage List Location Measure MeasureReport Media Medication MedicationAdministration
MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement MedicinalProduct
MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect
MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation
ObservationDefinition OperationDefinition OperationOutcome Organization OrganizationAffiliation
Parameters Patient PaymentNotice PaymentReconciliation Person PlanDefinition Practitioner
PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse RelatedPerson
RequestGroup ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject
RiskAssessment RiskEvidenceSynthesis Schedule SearchParameter ServiceRequest Slot Specimen
SpecimenDefinition StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid
SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
SubstanceSpecification SupplyDelivery SupplyRequest Task TerminologyCapabilities TestReport
TestScript ValueSet VerificationResult VisionPrescription
"""

RESOURCE_TYPES: Final = frozenset(_R4.split())
"""All 146 that can be instantiated."""

_TYPES_OF: Final = {
    Category.DEMOGRAPHICS: "Patient Person RelatedPerson",
    Category.MEDICATION: (
        "Medication MedicationAdministration MedicationDispense MedicationKnowledge "
        "MedicationRequest MedicationStatement"
    ),
    Category.LABORATORY: "DiagnosticReport MolecularSequence Specimen",
    Category.IMAGING: "ImagingStudy Media",
    Category.SURGERY: "Procedure",
    Category.IMMUNIZATION: "Immunization ImmunizationEvaluation ImmunizationRecommendation",
    Category.INSURANCE: (
        "Account ChargeItem Claim ClaimResponse Coverage CoverageEligibilityRequest "
        "CoverageEligibilityResponse EnrollmentRequest EnrollmentResponse ExplanationOfBenefit "
        "InsurancePlan Invoice PaymentNotice PaymentReconciliation"
    ),
}

CATEGORY_OF: Final = {
    name: category for category, names in _TYPES_OF.items() for name in names.split()
}
"""Resource types that are not ``Category.GENERAL``."""

assert CATEGORY_OF.keys() <= RESOURCE_TYPES

CATEGORY_CODES: Final = {
    "laboratory": Category.LABORATORY,
    "LAB": Category.LABORATORY,
    "imaging": Category.IMAGING,
    "RAD": Category.IMAGING,
    "procedure": Category.SURGERY,
}
"""Codes in ``category`` of an Observation or DiagnosticReport that say more than its type."""

SENSITIVE_CODES: Final = {
    "HIV": Category.HIV_STI,
    "STD": Category.HIV_STI,
    "PSY": Category.MENTAL_HEALTH,
    "PSYTHPN": Category.MENTAL_HEALTH,
    "MH": Category.MENTAL_HEALTH,
    "BH": Category.MENTAL_HEALTH,
    "ETH": Category.SUBSTANCE_USE,
    "ETHUD": Category.SUBSTANCE_USE,
    "OPIOIDUD": Category.SUBSTANCE_USE,
    "SUD": Category.SUBSTANCE_USE,
    "SEX": Category.REPRODUCTIVE,
    "SDV": Category.REPRODUCTIVE,
}
"""Labels in ``meta.security`` that outrank the type; among several the first here counts."""

OCCURRED_FIELDS: Final = (
    "effectiveDateTime",
    "effectiveInstant",
    "effectivePeriod.start",
    "performedDateTime",
    "performedPeriod.start",
    "occurrenceDateTime",
    "occurrencePeriod.start",
    "onsetDateTime",
    "onsetPeriod.start",
    "collection.collectedDateTime",
    "collection.collectedPeriod.start",
    "billablePeriod.start",
    "servicedDate",
    "servicedPeriod.start",
    "whenHandedOver",
    "whenPrepared",
    "started",
    "start",
    "startDate",
    "period.start",
    "servicePeriod.start",
    "identifiedDateTime",
    "createdDateTime",
    "authoredOn",
    "authored",
    "dateWritten",
    "dateTime",
    "date",
    "recordedDate",
    "recorded",
    "sent",
    "issued",
    "timestamp",
    "created",
)
"""Where a resource says when it happened; the first that is there counts."""

PATIENT_FIELDS: Final = ("subject", "patient", "beneficiary", "for", "individual")
"""Where a resource refers to its patient; the first reference counts."""
