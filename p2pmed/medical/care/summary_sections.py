"""Which resource goes under which heading of a patient summary, and how many of the many.

Rule of this file: tables and pure choices; codes and headings are those of the International
Patient Summary (HL7 IPS 2.0, Composition). What a heading does not take is in no heading; what
was entered in error, or never done, is in none. Implements ``docs/protocols/summary.md``,
clauses 5 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

__all__ = ["RESULTS_A_CODE", "RESULTS_MAX", "SECTIONS", "Section", "codes_of", "newest_of_each"]

RESULTS_MAX: Final = 100
"""Results or vital signs that are all shown; of more, the newest of each kind."""
RESULTS_A_CODE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One heading."""

    name: str
    title: str
    loinc: str
    required: bool = False
    """It stands in every summary, empty or not (IPS 2.0)."""


SECTIONS: Final = (
    Section(name="problems", title="Problem List", loinc="11450-4", required=True),
    Section(name="allergies", title="Allergies and Intolerances", loinc="48765-2", required=True),
    Section(name="medications", title="Medication Summary", loinc="10160-0", required=True),
    Section(name="immunizations", title="Immunizations", loinc="11369-6"),
    Section(name="procedures", title="History of Procedures", loinc="47519-4"),
    Section(name="devices", title="Medical Devices", loinc="46264-8"),
    Section(name="results", title="Diagnostic Results", loinc="30954-2"),
    Section(name="vital_signs", title="Vital Signs", loinc="8716-3"),
    Section(name="past_problems", title="History of Past Problems", loinc="11348-0"),
    Section(name="pregnancy", title="History of Pregnancy", loinc="10162-6"),
    Section(name="social_history", title="Social History", loinc="29762-2"),
    Section(name="functional_status", title="Functional Status", loinc="47420-5"),
    Section(name="plan", title="Plan of Care", loinc="18776-5"),
    Section(name="directives", title="Advance Directives", loinc="42348-3"),
    Section(name="alerts", title="Alerts", loinc="104605-1"),
)

BY_TYPE: Final = {
    "AllergyIntolerance": "allergies",
    "MedicationStatement": "medications",
    "MedicationRequest": "medications",
    "MedicationAdministration": "medications",
    "MedicationDispense": "medications",
    "Immunization": "immunizations",
    "Procedure": "procedures",
    "DeviceUseStatement": "devices",
    "DiagnosticReport": "results",
    "DocumentReference": "results",
    "ClinicalImpression": "functional_status",
    "CarePlan": "plan",
    "ImmunizationRecommendation": "plan",
    "Consent": "directives",
    "Flag": "alerts",
}
PAST: Final = frozenset({"inactive", "remission", "resolved"})
NOT_SO: Final = frozenset({"entered-in-error", "not-done", "refuted"})
NOT_TAKEN: Final = frozenset({"cancelled", "draft", "stopped"})
"""Of a prescription: the patient does not take it."""
PREGNANCY: Final = frozenset(
    {
        # LOINC: status, expected date (three ways), and outcomes, as IPS lists them
        *("82810-3", "11778-8", "11779-6", "11780-4", "11636-8", "11637-6", "11638-4"),
        *("11639-2", "11640-0", "11612-9", "11613-7", "11614-5", "33065-4"),
    }
)


class Placed(Protocol):
    """What choosing needs of a resource."""

    @property
    def members(self) -> dict[str, Any]:
        """The resource's members."""

    @property
    def moment_ms(self) -> int:
        """When it happened, or was written down."""


PlacedT = TypeVar("PlacedT", bound=Placed)


def section_of(members: dict[str, Any]) -> str:
    """The name of the heading that takes a resource; empty if none does."""
    kind = members.get("resourceType")
    if kind == "Observation":
        return "" if _status(members) in NOT_SO else _of_observation(members)
    if kind == "Condition":
        if _has(members.get("verificationStatus"), NOT_SO):
            return ""
        return "past_problems" if _has(members.get("clinicalStatus"), PAST) else "problems"
    found = BY_TYPE.get(str(kind), "")
    not_so = _status(members) in NOT_SO or _has(members.get("verificationStatus"), NOT_SO)
    not_taken = kind == "MedicationRequest" and _status(members) in NOT_TAKEN
    return "" if not_so or not_taken else found


def _of_observation(members: dict[str, Any]) -> str:
    if PREGNANCY.intersection(codes_of(members.get("code"))):
        return "pregnancy"
    categories = members.get("category")
    found = [code for each in _list(categories) for code in codes_of(each)]
    if "social-history" in found:
        return "social_history"
    return "vital_signs" if "vital-signs" in found else "results"


def codes_of(concept: Any) -> list[str]:
    """The codes of a CodeableConcept, in order; none of what is not one."""
    codings = concept.get("coding") if isinstance(concept, dict) else None
    found = (coding.get("code") for coding in _list(codings) if isinstance(coding, dict))
    return [code for code in found if isinstance(code, str)]


def newest_of_each(placed: Sequence[PlacedT]) -> tuple[list[PlacedT], int]:
    """All, if they are few; else the newest of each code, in their order. And how many are not."""
    if len(placed) <= RESULTS_MAX:
        return list(placed), 0
    kept: dict[str, int] = {}
    chosen = []
    for each in sorted(placed, key=lambda each: each.moment_ms, reverse=True):
        code = next(iter(codes_of(each.members.get("code"))), "")
        kept[code] = kept.get(code, 0) + 1
        if kept[code] <= RESULTS_A_CODE:
            chosen.append(id(each))
    wanted = frozenset(chosen)
    found = [each for each in placed if id(each) in wanted]
    return found, len(placed) - len(found)


def _status(members: dict[str, Any]) -> Any:
    return members.get("status")


def _has(concept: Any, codes: frozenset[str]) -> bool:
    return any(code in codes for code in codes_of(concept))


def _list(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, list) else ())
