"""Fields of typed FHIR resources: values that check themselves, and their FHIR spelling.

Rule of this file: a check raises ``InvalidTransaction`` that names the field it was given and
never its contents; a number keeps its digits; what is empty is left out. The resources
themselves are in ``typed.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from p2pmed.errors import InvalidTransaction
from p2pmed.limits import TEXT_CHARS_MAX
from p2pmed.medical.fhir import occurred_ms

__all__ = [
    "ATC",
    "CODE_CHARS_MAX",
    "CVX",
    "ICD_10",
    "LOINC",
    "NAMES_MAX",
    "SNOMED_CT",
    "TERMINOLOGY",
    "UCUM",
    "Code",
    "Coding",
    "PatientName",
    "Quantity",
    "When",
    "check_birth_date",
    "check_code",
    "check_number",
    "check_one_of",
    "check_patient",
    "check_several",
    "check_text",
    "coded",
    "concept",
    "fhir_json",
    "fhir_time",
    "filled",
    "measured",
    "reference",
    "refuse",
    "value_member",
]

ICD_10: Final = "http://hl7.org/fhir/sid/icd-10"
LOINC: Final = "http://loinc.org"
ATC: Final = "http://www.whocc.no/atc"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
SNOMED_CT: Final = "http://snomed.info/sct"
UCUM: Final = "http://unitsofmeasure.org"
TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"

NAMES_MAX: Final = 16
"""Names of one person, or parts of one name."""
CODE_CHARS_MAX: Final = 64
"""The longest code of the systems above has 18 characters."""

_CODE: Final = re.compile(r"[^\s\x00-\x1f]+( [^\s\x00-\x1f]+)*")
_BIRTH_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

When: TypeAlias = str | datetime
"""A FHIR dateTime as text, or an aware ``datetime``."""


@dataclass(frozen=True, slots=True, repr=False)
class Coding:
    """A code of a code system, with a text for people."""

    code: str
    system: str
    display: str = ""

    def __post_init__(self) -> None:
        check_code(self.code, "Coding.code")
        check_text(self.system, "Coding.system")
        check_text(self.display, "Coding.display", empty=True)


Code: TypeAlias = str | Coding
"""A bare code belongs to the field's usual system; for another, give a ``Coding``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Quantity:
    """A measured number: exact, with its UCUM unit."""

    value: int | Decimal
    unit: str

    def __post_init__(self) -> None:
        check_number(self.value, "Quantity.value")
        check_code(self.unit, "Quantity.unit")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PatientName:
    """A person's name; a name without parts goes into ``text``."""

    family: str = ""
    given: tuple[str, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        check_text(self.family, "PatientName.family", empty=True)
        check_text(self.text, "PatientName.text", empty=True)
        check_several(self.given, "PatientName.given")
        for index, given in enumerate(self.given):
            check_text(given, f"PatientName.given[{index}]")
        if not (self.family or self.given or self.text):
            refuse("PatientName", "empty")


def refuse(field: str, why: str) -> NoReturn:
    """Raise ``InvalidTransaction`` about ``field``."""
    raise InvalidTransaction(f"{field}: {why}")


def check_patient(value: bytes, field: str) -> None:
    """A pseudonym is 16 bytes."""
    if not isinstance(value, bytes) or len(value) != 16:
        refuse(field, "expected a pseudonym of 16 bytes")


def check_several(value: Sequence[Any], field: str) -> None:
    """At most ``NAMES_MAX`` values in a tuple."""
    if not isinstance(value, tuple) or len(value) > NAMES_MAX:
        refuse(field, f"expected a tuple of at most {NAMES_MAX}")


def check_text(value: str, field: str, *, empty: bool = False) -> None:
    """Text within its limit; not blank unless ``empty`` is allowed."""
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
        refuse(field, f"expected text of at most {TEXT_CHARS_MAX} characters")
    if not empty and not value.strip():
        refuse(field, "empty")
    if any(char in "\x00" or "\ud800" <= char <= "\udfff" for char in value):
        refuse(field, "a character that no text holds")


def check_code(value: str, field: str) -> None:
    """A FHIR code: no space at its ends, none doubled."""
    if not isinstance(value, str) or len(value) > CODE_CHARS_MAX or not _CODE.fullmatch(value):
        refuse(field, f"expected a code of at most {CODE_CHARS_MAX} characters")


def check_one_of(value: str, allowed: Sequence[str], field: str) -> None:
    """One of a closed set."""
    if value not in allowed:
        refuse(field, f"expected one of {', '.join(allowed)}")


def check_number(value: int | Decimal, field: str) -> None:
    """An exact, finite number; an integer of 64 bits."""
    whole = type(value) is int and abs(value) < 2**63
    if not whole and not (isinstance(value, Decimal) and value.is_finite()):
        refuse(field, "expected an integer or a finite Decimal")


def check_birth_date(value: str, field: str) -> None:
    """A FHIR date: year, year and month, or full."""
    if not isinstance(value, str) or not _BIRTH_DATE.fullmatch(value):
        refuse(field, "not a FHIR date")
    occurred_ms(value, field)


def fhir_time(value: When, field: str) -> str:
    """A time as FHIR text."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            refuse(field, "a datetime without its time zone")
        value = value.isoformat(timespec="milliseconds")
    if not isinstance(value, str):
        refuse(field, "expected a FHIR dateTime or a datetime")
    occurred_ms(value, field)
    return value


def concept(coding: Coding) -> dict[str, Any]:
    """A FHIR CodeableConcept."""
    return {"coding": [filled(system=coding.system, code=coding.code, display=coding.display)]}


def coded(code: Code, system: str, field: str) -> dict[str, Any]:
    """A FHIR CodeableConcept; a bare code belongs to ``system``."""
    if not isinstance(code, Coding):
        check_code(code, field)
        code = Coding(code, system)
    return concept(code)


def measured(quantity: Quantity) -> dict[str, Any]:
    """A FHIR Quantity in UCUM."""
    unit = quantity.unit
    return {"value": quantity.value, "unit": unit, "system": UCUM, "code": unit}


def value_member(value: Quantity | Coding | str) -> dict[str, Any]:
    """The ``value[x]`` member of an Observation."""
    if isinstance(value, Quantity):
        return {"valueQuantity": measured(value)}
    if isinstance(value, Coding):
        return {"valueCodeableConcept": concept(value)}
    return {"valueString": value}


def reference(patient: bytes) -> dict[str, str]:
    """A FHIR Reference to a pseudonym."""
    return {"reference": f"Patient/{patient.hex()}"}


def filled(**members: Any) -> dict[str, Any]:
    """Without what is empty: FHIR knows no empty value."""
    return {key: value for key, value in members.items() if value not in (None, "", [], ())}


def fhir_json(**members: Any) -> bytes:
    """One resource as JSON, numbers as they were given."""
    return _ENCODER.encode(filled(**members))
