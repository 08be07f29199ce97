"""A question about people: its search terms, and how well an opened person fits it.

Rule of this file: pure. Terms find candidates, generously; the score is by what the opened
record says, and people who do not fit have none. Implements ``docs/protocols/search.md``,
clauses 18 and 19.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import ConfigError
from p2pmed.medical.privacy.blind_index import Field
from p2pmed.medical.privacy.names import (
    NAME_CHARS_MAX,
    Name,
    birth_variants,
    identifier,
    likeness,
    name_words,
)
from p2pmed.medical.privacy.terms import Term, name_terms, person_of_resource, phone_term

__all__ = ["PersonQuery"]

WHOLE: Final = frozenset({Field.LETTERS, Field.SOUNDS})
NAME_LIKENESS_MIN: Final = 55
NAME_POINTS: Final = 50
BIRTH_POINTS: Final = (30, 24)
"""For the date itself, and with day and month changed over."""
NUMBER_POINTS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PersonQuery:
    """What was asked for, as terms and as it is compared."""

    name: Name
    births: tuple[str, ...]
    number: str
    phone: str

    @classmethod
    def of(cls, *, name: str, birth: str, number: str, phone: str) -> PersonQuery:
        """Raises ``ConfigError`` if nothing is asked for, or not as it can be."""
        if max(len(name), len(birth), len(number), len(phone)) > NAME_CHARS_MAX:
            raise ConfigError(f"more than {NAME_CHARS_MAX} characters to search for")
        births = birth_variants(birth.strip())
        if birth.strip() and not births:
            raise ConfigError("birth: a date is needed", hint="as 1985-03-12")
        asked = cls(
            name=name_words(name),
            births=births,
            number=_number(number),
            phone=phone_term(phone),
        )
        if not (asked.name or births or asked.number or asked.phone):
            raise ConfigError("nothing to search for", hint="give a name, a date or a number")
        return asked

    @property
    def whole(self) -> list[Term]:
        """Terms that say much."""
        terms = [(Field.IDENTIFIER, self.number)] if self.number else []
        terms += [(Field.PHONE, self.phone)] if self.phone else []
        terms += [(Field.BIRTH, birth) for birth in self.births]
        return terms + [term for term in name_terms(self.name) if self.name and term[0] in WHOLE]

    @property
    def words(self) -> list[Term]:
        """Terms of the single words of a name."""
        return [term for term in name_terms(self.name) if self.name and term[0] is Field.WORD]

    def score(self, raw: bytes) -> tuple[int, tuple[str, ...]]:
        """How well an opened person fits, 0 if not at all, and why."""
        person = person_of_resource(raw)
        points, possible, reasons = 0, 0, []
        if self.name:
            possible += NAME_POINTS
            alike = max((likeness(self.name, name) for name in person.names), default=0)
            alike = max(alike, self._part(person.names))
            if alike >= NAME_LIKENESS_MIN:
                points += NAME_POINTS * alike // 100
                reasons.append("name" if alike == 100 else "name-alike")
        if self.births:
            possible += BIRTH_POINTS[0]
            if person.birth in self.births:
                at = self.births.index(person.birth)
                points += BIRTH_POINTS[at]
                reasons.append(("birth-date", "day-and-month-swapped")[at])
        for text, code in ((self.number, "identifier"), (self.phone and f"T{self.phone}", "phone")):
            if text:
                possible += NUMBER_POINTS
                if text in person.identifiers:
                    points += NUMBER_POINTS
                    reasons.append(code)
        score = 100 * points // possible
        return (score, tuple(reasons)) if 2 * points >= possible or "name" in reasons else (0, ())

    def _part(self, names: Iterable[Name]) -> int:
        """90 if all words asked for are words of the name: a family name alone."""
        asked = frozenset(self.words)
        for name in names:
            said = frozenset(term for term in name_terms(name) if term[0] is Field.WORD)
            if asked and asked <= said:
                return 90
        return 0


def _number(text: str) -> str:
    return identifier(text) if text.strip() else ""
