"""What transactions mean: types, rules and rejections, one module per family.

Rule: importing this package loads nothing but this file; a name loads its family when first
asked for. ``kinds()`` is the set that every node registers, and what the entry point group
``p2pmed.transactions`` names; an embedding application adds its own kinds beside it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from p2pmed.medical.adjudication import (
        ClaimAdjudicate,
        ClaimCondition,
        ClaimLine,
        ClaimSubmit,
        LineResult,
        PolicyIssue,
        ProductApprove,
        ProductPublish,
    )
    from p2pmed.medical.care.disputes import DisputeAnswer, RecordDispute
    from p2pmed.medical.consent import AccessGrant, AccessRevoke, AccessRotate
    from p2pmed.medical.discrepancies import DiscrepancyReport, DiscrepancyResolve, Ruling
    from p2pmed.medical.drug_queries import (
        LotReach,
        UnitAnswer,
        UnitStatus,
        VerifyReason,
        holders_of_lot,
        pedigree,
        stock,
        verify_unit,
    )
    from p2pmed.medical.drug_rows import Pack
    from p2pmed.medical.drugs import Commission, Dispense, Recall, Receive, Ship
    from p2pmed.medical.machine import MedicalMachine
    from p2pmed.medical.membership import CredentialOpener, LogOpen, Revocation
    from p2pmed.medical.patients import PatientRegister
    from p2pmed.medical.qualifications import (
        QualificationIssue,
        QualificationRevoke,
        QualificationSuspend,
    )
    from p2pmed.medical.records import RecordAdd, RecordAmend, RecordRetract
    from p2pmed.medical.registry import Act, Kind, Member, Refusal, Registry
    from p2pmed.medical.rejections import Rejection
    from p2pmed.medical.tables import Table
    from p2pmed.medical.typed import (
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
    from p2pmed.medical.typed_documents import (
        AllergyIntolerance,
        CarePlan,
        DiagnosticReport,
        DocumentReference,
        MedicationStatement,
    )

__all__ = [
    "AccessGrant",
    "AccessRevoke",
    "AccessRotate",
    "Act",
    "AllergyIntolerance",
    "CarePlan",
    "ClaimAdjudicate",
    "ClaimCondition",
    "ClaimLine",
    "ClaimSubmit",
    "Coding",
    "Commission",
    "Condition",
    "CredentialOpener",
    "Demographics",
    "DiagnosticReport",
    "DiscrepancyReport",
    "DiscrepancyResolve",
    "Dispense",
    "DisputeAnswer",
    "DocumentReference",
    "Encounter",
    "Immunization",
    "Kind",
    "LineResult",
    "LogOpen",
    "LotReach",
    "MedicalMachine",
    "MedicationRequest",
    "MedicationStatement",
    "Member",
    "Observation",
    "Pack",
    "PatientName",
    "PatientRegister",
    "PolicyIssue",
    "Procedure",
    "ProductApprove",
    "ProductPublish",
    "QualificationIssue",
    "QualificationRevoke",
    "QualificationSuspend",
    "Quantity",
    "Recall",
    "Receive",
    "RecordAdd",
    "RecordAmend",
    "RecordDispute",
    "RecordRetract",
    "Refusal",
    "Registry",
    "Rejection",
    "Revocation",
    "Ruling",
    "Ship",
    "Table",
    "UnitAnswer",
    "UnitStatus",
    "VerifyReason",
    "holders_of_lot",
    "kinds",
    "pedigree",
    "stock",
    "verify_unit",
]

_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "adjudication": (
        "ClaimAdjudicate",
        "ClaimCondition",
        "ClaimLine",
        "ClaimSubmit",
        "LineResult",
        "PolicyIssue",
        "ProductApprove",
        "ProductPublish",
    ),
    "care.disputes": ("DisputeAnswer", "RecordDispute"),
    "consent": ("AccessGrant", "AccessRevoke", "AccessRotate"),
    "discrepancies": ("DiscrepancyReport", "DiscrepancyResolve", "Ruling"),
    "drug_queries": (
        "LotReach",
        "UnitAnswer",
        "UnitStatus",
        "VerifyReason",
        "holders_of_lot",
        "pedigree",
        "stock",
        "verify_unit",
    ),
    "drug_rows": ("Pack",),
    "drugs": ("Commission", "Dispense", "Recall", "Receive", "Ship"),
    "machine": ("MedicalMachine",),
    "membership": ("CredentialOpener", "LogOpen", "Revocation"),
    "patients": ("PatientRegister",),
    "qualifications": ("QualificationIssue", "QualificationRevoke", "QualificationSuspend"),
    "records": ("RecordAdd", "RecordAmend", "RecordRetract"),
    "registry": ("Act", "Kind", "Member", "Refusal", "Registry"),
    "rejections": ("Rejection",),
    "tables": ("Table",),
    "typed": (
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
    ),
    "typed_documents": (
        "AllergyIntolerance",
        "CarePlan",
        "DiagnosticReport",
        "DocumentReference",
        "MedicationStatement",
    ),
}
_HOME: Final = {name: family for family, names in _FAMILIES.items() for name in names}


def __getattr__(name: str) -> Any:
    family = _HOME.get(name)
    if family is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{family}"), name)
    globals()[name] = value
    return value


def kinds() -> tuple[Kind[Any], ...]:
    """Every medical kind, family by family."""
    from p2pmed.medical import (
        consent,
        county,
        discrepancies,
        drugs,
        elections,
        evidence,
        insurance,
        membership,
        qualifications,
        records,
        seat_changes,
    )
    from p2pmed.medical.care import cases, consultations, disputes, referrals, surgery
    from p2pmed.medical.privacy import (
        blind_index,
        cards,
        custody,
        delegation,
        emergency,
        facilities,
        links,
        matching,
        reads,
    )

    return (
        *membership.KINDS,
        *records.KINDS,
        *disputes.KINDS,
        *consent.KINDS,
        *delegation.KINDS,
        *custody.KINDS,
        *cards.KINDS,
        *facilities.KINDS,
        *emergency.KINDS,
        *reads.KINDS,
        *blind_index.KINDS,
        *links.KINDS,
        *matching.KINDS,
        *qualifications.KINDS,
        *referrals.KINDS,
        *consultations.KINDS,
        *surgery.KINDS,
        *cases.KINDS,
        *drugs.KINDS,
        *insurance.KINDS,
        *discrepancies.KINDS,
        *county.KINDS,
        *evidence.KINDS,
        *seat_changes.KINDS,
        *elections.KINDS,
    )
