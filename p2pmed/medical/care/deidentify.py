"""A copy without identifiers, for teaching: by a table of what may stay, not of what must go.

Rule of this file: what the tables do not name does not stay. An element of a resource stays if
its name is in ``KEEP`` of its type (or in ``KEEP_ANY``); inside it, nothing that names somebody
or somewhere (``STRIP``) and no free text stays. References become the new pseudonym or nothing,
dates move by one number of days that is the same for the whole case, so that intervals stay
true, and ages above 89 are not told. Follows the eighteen identifiers of HIPAA's safe harbor
(45 CFR 164.514(b)(2)). Implements medical notes, section 1 row 16, and ``docs/protocols/care.md``,
section 6.

What it cannot promise: that a rare disease in a small village is not recognised. The patient's
consent is asked for that reason too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from p2pmed.errors import InvalidTransaction

__all__ = ["KEEP", "KEEP_ANY", "SHIFT_DAYS_MAX", "STRIP", "deidentified"]

SHIFT_DAYS_MAX: Final = 365
KEEP_ANY: Final = frozenset({"resourceType", "status", "code", "category", "subject", "patient"})
KEEP: Final[Mapping[str, frozenset[str]]] = {
    "Patient": frozenset({"gender", "birthDate"}),
    "Observation": frozenset(
        {
            *("effectiveDateTime", "effectivePeriod", "valueQuantity", "valueCodeableConcept"),
            *("valueInteger", "valueBoolean", "interpretation", "referenceRange", "component"),
            *("bodySite", "method"),
        }
    ),
    "Condition": frozenset(
        {
            *("clinicalStatus", "verificationStatus", "severity", "bodySite", "stage"),
            *("onsetDateTime", "abatementDateTime", "recordedDate"),
        }
    ),
    "Procedure": frozenset(
        {"performedDateTime", "performedPeriod", "bodySite", "outcome", "reasonCode"}
    ),
    "MedicationRequest": frozenset(
        {"intent", "medicationCodeableConcept", "authoredOn", "dispenseRequest"}
    ),
    "MedicationStatement": frozenset({"medicationCodeableConcept", "effectiveDateTime"}),
    "Immunization": frozenset({"vaccineCode", "occurrenceDateTime", "protocolApplied"}),
    "AllergyIntolerance": frozenset(
        {"clinicalStatus", "verificationStatus", "criticality", "onsetDateTime", "reaction"}
    ),
    "DiagnosticReport": frozenset({"effectiveDateTime", "conclusionCode"}),
    "Encounter": frozenset({"class", "type", "reasonCode", "period"}),
}
"""By type of resource: the elements that stay. A type that is not here does not stay at all."""
STRIP: Final = frozenset(
    {
        *("id", "meta", "text", "contained", "extension", "modifierExtension", "identifier"),
        *("name", "telecom", "address", "photo", "contact", "note", "display", "reference"),
        *("actor", "performer", "recorder", "asserter", "author", "encounter", "location"),
        *("serviceProvider", "device", "lotNumber", "url", "data", "attachment", "comment"),
    }
)
"""Elements that go wherever they stand."""
CODED: Final = frozenset(
    {
        *("resourceType", "status", "system", "code", "version", "unit", "intent", "criticality"),
        *("gender", "comparator", "type", "category", "severity", "doseNumberString"),
    }
)
"""The elements whose texts are codes; any other text stays only if it is a date."""

_DATE: Final = re.compile(r"\A(\d{4})-(\d\d)-(\d\d)(T.*)?\Z")
_PARTIAL: Final = re.compile(r"\A\d{4}(-\d\d)?\Z")


def deidentified(
    resource: bytes, *, pseudonym: bytes, shift_days: int, oldest_year: int
) -> bytes | None:
    """The copy of one FHIR resource; ``None`` if nothing of its type may stay.

    ``pseudonym`` (16 bytes) is new, and ``shift_days`` the same for all of a case; whoever was
    born before ``oldest_year`` (89 years ago) has no year of birth in it.
    Raises ``InvalidTransaction`` for what is no JSON object.
    """
    try:
        found = msgspec.json.decode(resource)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise InvalidTransaction("not a FHIR resource")
    keep = KEEP.get(str(found.get("resourceType")))
    if keep is None:
        return None
    copy = {
        name: _cleaned(name, value, pseudonym, shift_days)
        for name, value in found.items()
        if name in keep or name in KEEP_ANY
    }
    born = found.get("birthDate")
    if "birthDate" in copy:
        year = born[:4] if isinstance(born, str) and _DATE.match(born) else ""
        copy["birthDate"] = year if year and int(year) >= oldest_year else None
    return msgspec.json.encode({name: value for name, value in copy.items() if value is not None})


def _cleaned(name: str, value: Any, pseudonym: bytes, shift: int) -> Any:
    if name in ("subject", "patient"):
        return {"reference": f"Patient/{pseudonym.hex()}"}
    match value:
        case dict():
            inner = {
                each: _cleaned(each, below, pseudonym, shift)
                for each, below in value.items()
                if each not in STRIP
            }
            return {each: below for each, below in inner.items() if below is not None} or None
        case list():
            items = [_cleaned(name, item, pseudonym, shift) for item in value]
            return [item for item in items if item is not None] or None
        case str():
            return value if name in CODED else _moved(value, shift)
    return value


def _moved(text: str, shift: int) -> str | None:
    """A date, moved by whole days and without its time of day; ``None`` of any other text."""
    match = _DATE.match(text)
    if match is None:
        return text[:4] if _PARTIAL.match(text) else None
    try:
        day = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(days=shift)
    except (ValueError, OverflowError):
        return None
    return day.isoformat()
