"""An examination that exists already: told before it is ordered again.

Rule of this file: a warning, never a refusal; it speaks of records that who asks can open anyway,
so it tells nobody of an examination that was kept from him. Two are the same if they share a
LOINC code. How long a result makes another one superfluous is a table, by code, and a network's
own table goes before it. Implements medical notes, section 1 row 13 (``exam.duplicate``), and
``docs/protocols/care.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.fhir_json import parse
from p2pmed.medical.fields import DAY_MS
from p2pmed.medical.typed_fields import LOINC

__all__ = ["DEFAULT_DAYS", "DUPLICATE", "WINDOW_DAYS", "Examined", "Warned", "codes_of", "warnings"]

DUPLICATE: Final = "exam.duplicate"
"""The warning's name."""
DEFAULT_DAYS: Final = 30
WINDOW_DAYS: Final[Mapping[str, int]] = {
    "8310-5": 0,  # body temperature: measured each time
    "8867-4": 0,  # heart rate
    "9279-1": 0,  # respiratory rate
    "85354-9": 0,  # blood pressure panel
    "8480-6": 0,  # systolic
    "8462-4": 0,  # diastolic
    "2339-0": 1,  # glucose in blood
    "2345-7": 1,  # glucose in serum
    "718-7": 7,  # haemoglobin
    "58410-2": 7,  # complete blood count
    "57021-8": 7,  # complete blood count with differential
    "24323-8": 14,  # comprehensive metabolic panel
    "4548-4": 90,  # HbA1c: it shows three months
    "24331-1": 180,  # lipid panel
    "57698-3": 180,  # lipid panel with direct LDL
    "36643-5": 30,  # chest radiograph, two views
    "30746-2": 30,  # chest radiograph
    "882-1": 36_500,  # blood group: for life
    "883-9": 36_500,  # ABO group
    "10331-7": 36_500,  # Rh type
}
"""Days in which a result makes another of the same code superfluous; 0: never. The figures are a
starting point that a network's doctors set."""

TYPES: Final = ("Observation", "DiagnosticReport")
DONE: Final = ("final", "amended", "corrected", "preliminary")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Examined:
    """A result that somebody may open."""

    record: bytes
    resource: bytes
    occurred_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Warned:
    """``exam.duplicate``: what is ordered has a result."""

    code: str
    record: bytes
    """The transaction that holds it."""
    occurred_ms: int
    days: int
    """Whole days ago."""
    within: int
    """The window that it fell into."""
    name: str = DUPLICATE


def codes_of(resource: bytes) -> tuple[str, ...]:
    """LOINC codes of a finished Observation or DiagnosticReport; none of anything else."""
    try:
        found = parse(resource, "result")
    except InvalidTransaction:
        return ()
    if not isinstance(found, dict) or found.get("resourceType") not in TYPES:
        return ()
    if found.get("status", DONE[0]) not in DONE:
        return ()
    return tuple(dict.fromkeys(_loinc(found.get("code"))))


def _loinc(concept: Any) -> Iterable[str]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    for coding in codings if isinstance(codings, list) else ():
        if isinstance(coding, dict) and coding.get("system") == LOINC:
            code = coding.get("code")
            if isinstance(code, str):
                yield code


def warnings(
    orders: Iterable[str],
    results: Iterable[Examined],
    *,
    now_ms: int,
    windows: Mapping[str, int] = WINDOW_DAYS,
    default_days: int = DEFAULT_DAYS,
) -> list[Warned]:
    """For each ordered LOINC code, the newest result inside its window, if there is one.

    A result of which nobody knows when it was made warns of nothing; one from the future (a
    wrong clock) counts as new.
    """
    wanted = {code: windows.get(code, default_days) for code in dict.fromkeys(orders)}
    newest: dict[str, tuple[int, bytes]] = {}
    for result in results:
        if result.occurred_ms is None:
            continue
        for code in codes_of(result.resource):
            if code in wanted:
                newest[code] = max(
                    newest.get(code, (result.occurred_ms, result.record)),
                    (result.occurred_ms, result.record),
                )
    found = []
    for code, within in wanted.items():
        if code not in newest:
            continue
        occurred_ms, record = newest[code]
        days = max(0, (now_ms - occurred_ms) // DAY_MS)
        if days < within:
            found.append(
                Warned(code=code, record=record, occurred_ms=occurred_ms, days=days, within=within)
            )
    return found
