"""What a person or a record can be found by: search terms, and what a match compares.

Rule of this file: pure and total. It reads an opened FHIR resource as it came; what is not
there, or not as FHIR has it, gives no term and no error. Implements
``docs/protocols/search.md``, clauses 5 to 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from p2pmed.medical.privacy.blind_index import Field
from p2pmed.medical.privacy.matching import Person
from p2pmed.medical.privacy.names import (
    Name,
    birth_variants,
    identifier,
    letters,
    name_words,
    sounds,
    whole_sounds,
)

__all__ = [
    "Term",
    "code_term",
    "name_terms",
    "person_of_resource",
    "person_terms",
    "phone_term",
    "record_terms",
]

NAMES_MAX: Final = 3
CODES_MAX: Final = 8
TERM_CHARS_MAX: Final = 64
PHONE_DIGITS: Final = 8
"""Of a telephone number its last ones: country codes and zeros come and go."""
ICD: Final = re.compile(r"[A-Z]\d[0-9A-Z]")
DRUG_MEMBERS: Final = ("medicationCodeableConcept", "vaccineCode")
CODE_MEMBERS: Final = ("code", "reasonCode")

Term = tuple[Field, str]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Parts:
    names: tuple[Name, ...]
    birth: str
    gender: str
    identifiers: tuple[str, ...]
    phones: tuple[str, ...]


def person_terms(raw: bytes) -> list[Term]:
    """Terms of a FHIR Patient, the most telling first."""
    parts = _parts(raw)
    terms = [(Field.IDENTIFIER, number) for number in parts.identifiers[:2]]
    terms += [(Field.BIRTH, birth) for birth in birth_variants(parts.birth)[:1]]
    terms += [(Field.PHONE, number) for number in parts.phones[:1]]
    for name in parts.names:
        terms += [term for term in name_terms(name) if term[0] is not Field.WORD]
    for name in parts.names:
        terms += [term for term in name_terms(name) if term[0] is Field.WORD]
    return terms


def name_terms(name: Name) -> list[Term]:
    """Terms of one name: whole by letters, whole by sound, and each word by sound."""
    whole = [(Field.LETTERS, letters(name))]
    whole += [(Field.SOUNDS, code) for code in whole_sounds(name)]
    return whole + [(Field.WORD, sounds(word)[-1]) for word in name]


def phone_term(text: str) -> str:
    """A telephone number as it is compared: its last digits."""
    return "".join(char for char in text if char.isdecimal())[-PHONE_DIGITS:]


def person_of_resource(raw: bytes) -> Person:
    """What a match compares of a FHIR Patient."""
    parts = _parts(raw)
    return Person(
        names=parts.names,
        birth=parts.birth,
        gender=parts.gender,
        identifiers=(*parts.identifiers[:2], *(f"T{phone}" for phone in parts.phones[:2])),
    )


def _parts(raw: bytes) -> _Parts:
    patient = _read(raw)
    names = [name for item in _list(patient.get("name")) if (name := _name(item))]
    numbers = [identifier(_text(item, "value")) for item in _list(patient.get("identifier"))]
    phones = [
        phone_term(_text(item, "value"))
        for item in _list(patient.get("telecom"))
        if _text(item, "system") == "phone"
    ]
    return _Parts(
        names=tuple(dict.fromkeys(names[:NAMES_MAX])),
        birth=_text(patient, "birthDate")[:10],
        gender=_text(patient, "gender")[:16],
        identifiers=tuple(number[:TERM_CHARS_MAX] for number in numbers if number),
        phones=tuple(number for number in phones if number),
    )


def _name(item: Any) -> Name:
    if not isinstance(item, dict):
        return ()
    given = [part for part in _list(item.get("given")) if isinstance(part, str)]
    family = _text(item, "family")
    return name_words(family, given) if family or given else name_words(_text(item, "text"))


def record_terms(raw: bytes) -> list[Term]:
    """Terms of a record: its diagnosis and procedure codes, and its drugs.

    An ICD-10 code is found by its category of three signs too.
    """
    resource = _read(raw)
    terms: list[Term] = []
    for members, field in ((CODE_MEMBERS, Field.CODE), (DRUG_MEMBERS, Field.DRUG)):
        for member in members:
            for code in _codes(resource.get(member)):
                terms.append((field, code))
                if field is Field.CODE and ICD.match(code) and len(code) > 3:
                    terms.append((field, code[:3]))
    return list(dict.fromkeys(terms))[:CODES_MAX]


def code_term(code: str) -> str:
    """A code as it is compared: capitals, without spaces around."""
    return code.strip().upper()[:TERM_CHARS_MAX]


def _codes(concepts: Any) -> Iterator[str]:
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        if not isinstance(concept, dict):
            continue
        for coding in _list(concept.get("coding")):
            if code := code_term(_text(coding, "code")):
                yield code


def _read(raw: bytes) -> dict[str, Any]:
    try:
        resource = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    return resource if isinstance(resource, dict) else {}


def _list(value: Any) -> list[Any]:
    """A list's objects and texts; nothing of what is no list."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict | str)]


def _text(value: Any, member: str) -> str:
    found = value.get(member) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
