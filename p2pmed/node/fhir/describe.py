"""A FHIR resource in a few words, for a line on a screen.

Rule: pure; takes what is there and never fails on what is not. The words are a patient's: they
go to who asked, never into a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

__all__ = ["describe_person", "describe_resource", "is_directory"]

CHARS_MAX: Final = 120
CONCEPTS: Final = (
    "code",
    "vaccineCode",
    "medicationCodeableConcept",
    "type",
    "reasonCode",
    "category",
    "description",
    "title",
)
"""Members that say what a resource is, the most telling first."""

NAMED: Final = frozenset(
    {"Location", "Organization", "Patient", "Person", "Practitioner", "RelatedPerson"}
)
"""Resource types that a name says more of than a code."""


def describe_resource(raw: bytes) -> str:
    """What a resource says, at most ``CHARS_MAX`` characters: its code's text and its value."""
    try:
        resource = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return ""
    if not isinstance(resource, dict):
        return ""
    if _plain(resource.get("resourceType")) in NAMED:
        named = resource.get("name")
        return _short(_plain(named) or next(filter(None, map(_name, _list(named))), ""))
    found = next(filter(None, (_text(resource.get(name)) for name in CONCEPTS)), "")
    value = " ".join(filter(None, _values(resource)))
    reason = _text(resource.get("reasonCode"))
    extra = value or (reason if reason != found else "")
    return _short(f"{found}: {extra}" if found and extra else found or extra)


def describe_person(raw: bytes) -> dict[str, str]:
    """Name, birth date and gender of a FHIR Patient; empty where it does not say."""
    try:
        patient = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        patient = None
    if not isinstance(patient, dict):
        return {"name": "", "birth_date": "", "gender": ""}
    return {
        "name": _short(next(filter(None, map(_name, _list(patient.get("name")))), "")),
        "birth_date": _plain(patient.get("birthDate")),
        "gender": _plain(patient.get("gender")),
    }


def is_directory(raw: bytes) -> bool:
    """Whether a Patient is a node's directory, which is about no patient."""
    return b'"urn:p2pmed:subject"' in raw


def _values(resource: dict[str, Any]) -> Iterator[str]:
    yield _quantity(resource.get("valueQuantity"))
    yield _text(resource.get("valueCodeableConcept"))
    yield _plain(resource.get("valueString"))
    for part in _list(resource.get("component")):
        if isinstance(part, dict):
            yield f"{_text(part.get('code'))} {_quantity(part.get('valueQuantity'))}".strip()


def _quantity(value: Any) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("value"), int | float):
        return ""
    number = value["value"]
    shown = str(number) if isinstance(number, int) else f"{number:.6g}"
    return f"{shown} {_plain(value.get('unit'))}".strip()


def _text(value: Any) -> str:
    """The words of a concept, a coding, a list of these, or a text."""
    if isinstance(value, list):
        return next(filter(None, map(_text, value)), "")
    if not isinstance(value, dict):
        return _plain(value)
    for name in ("text", "display", "coding", "code"):
        if words := _text(value.get(name)):
            return words
    return ""


def _name(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    text, family = _plain(value.get("text")), _plain(value.get("family"))
    given = [*filter(None, map(_plain, _list(value.get("given"))))]
    if any(_is_han(char) for char in family):
        return text or "".join((family, *given))  # the family's name comes first, nothing between
    return " ".join(filter(None, (*given, family))) or text


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    line = "".join(char for char in line if char.isprintable())
    return line if len(line) <= CHARS_MAX else line[: CHARS_MAX - 1] + "…"
