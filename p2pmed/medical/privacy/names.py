"""Names, dates and numbers of people, spelled so that two writings of one of them are equal.

Rule of this file: pure, total and the same everywhere, because search tokens are made of what
it returns; it never refuses a name. A name becomes *words* (Latin letters), and these become

* ``letters``: all letters in the order of the alphabet, so that neither the order of the
  words nor where they are divided matters: 'Wang Xiaoming', 'WANG, XIAO MING' and '王小明';
* ``sounds`` of a word: its skeleton of consonants (Maria, Mariya, Мария), and, where it may be
  a Chinese name, its pinyin without what speakers of the south confuse (zh z, n ng, l n r).

A sound code of our own, and not a package's: a package that mends its code changes every token
of every patient. Implements ``docs/protocols/search.md``, clauses 1 to 8.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from typing import Final

from p2pmed.medical.privacy.romanise import han_words, is_han, is_syllabic, latin, pinyin

__all__ = [
    "NAME_CHARS_MAX",
    "Name",
    "birth_variants",
    "folded",
    "identifier",
    "letters",
    "likeness",
    "name_words",
    "resident_id",
    "resident_id_fault",
    "sounds",
    "whole_sounds",
]

NAME_CHARS_MAX: Final = 256
WORDS_MAX: Final = 8
WORD_CHARS_MAX: Final = 48

SKELETON: Final = tuple(
    (re.compile(pattern), with_)
    for pattern, with_ in (
        (r"(.)\1+", r"\1"),
        (r"tsch|tch|ch|zh|sh|sch|shch|cz|sz|dj|lj", "x"),
        (r"ph|v", "f"),
        (r"kh|gh|ck|q|c(?=[aouklrt]|$)", "k"),
        (r"th|dh", "t"),
        (r"c(?=[eiy])|z|ts", "s"),
        (r"x", "x"),
        (r"j", "g"),
        (r"c", "k"),
        (r"(?<!^)h", ""),
        (r"(?<!^)[aeiouyw]", ""),
        (r"^[aeiouy]", "a"),
        (r"(?<!^)d", "t"),
    )
)
"""Applied in this order to a word of Latin letters: what is left are its consonants."""
CONFUSED: Final = tuple(
    (re.compile(pattern), with_)
    for pattern, with_ in (("([zcs])h", r"\1"), ("ng", "n"), ("[nr](?=[aeiouv])", "l"), ("v", "u"))
)
"""Pairs of pinyin that southern speakers say alike."""
SPELLED: Final = {"lyu": "lu", "lv": "lu", "nyu": "nu", "nv": "nu"}
"""How passports and keyboards write the letter u with two dots."""
STANDING: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"}
)
"""Letters that decomposition leaves whole."""

Name = tuple[str, ...]
"""Words of Latin letters, in the order of writing."""


def folded(text: str) -> str:
    """``text`` in one width and case, without accents, vowel points and stretching."""
    whole = unicodedata.normalize("NFKC", text[:NAME_CHARS_MAX]).casefold().translate(STANDING)
    parts = unicodedata.normalize("NFKD", whole)
    bare = "".join(char for char in parts if not unicodedata.combining(char))
    return unicodedata.normalize("NFKC", bare)


def name_words(text: str, given: Iterable[str] = ()) -> Name:
    """The words of a name: ``text`` alone, or a family name with ``given`` ones.

    A Chinese name in one piece is divided after its family name.
    """
    structured = [text, *given]
    whole = len([part for part in structured if part.strip()]) < 2
    found: list[str] = []
    for part in structured[: WORDS_MAX + 1]:
        plain = re.sub(r"['’`ʼ\-‐‑·・•]", "", folded(part))
        for piece in re.findall(r"[^\W_]+", plain):
            found += _piece(piece, whole=whole)
    return tuple(word[:WORD_CHARS_MAX] for word in found if word)[:WORDS_MAX]


def _piece(piece: str, *, whole: bool) -> list[str]:
    """One run of letters: Chinese characters read, others in Latin letters."""
    found: list[str] = []
    for run in re.findall(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+|[^\W_]", piece):
        if is_han(run[0]):
            found += list(han_words(run)) if whole else [_read(run, found)]
    rest = "".join(char for char in piece if not is_han(char))
    if rest:
        word = latin(rest)
        found.append(SPELLED.get(word, word))
    return found


def _read(run: str, before: list[str]) -> str:
    """Part of a name whose parts are given apart: short and first, it is a family name."""
    words = han_words(run) if len(run) <= 2 and not before else ()
    return words[0] if len(words) == 1 else pinyin(run)


def letters(words: Name) -> str:
    """All letters of a name in the order of the alphabet."""
    return "".join(sorted("".join(words)))


def sounds(word: str) -> tuple[str, ...]:
    """One or two codes of how a word sounds; two words that share one may be one name."""
    codes = [f"c{_skeleton(word)}"]
    if is_syllabic(word):
        codes.append(f"p{_blurred(word)}")
    return tuple(codes)


def whole_sounds(words: Name) -> tuple[str, ...]:
    """Codes of a whole name, whatever the order and division of its words."""
    if not words:
        return ()
    codes = [f"c{''.join(sorted(_skeleton(word) for word in words))}"]
    if all(is_syllabic(word) for word in words):
        codes.append(f"p{''.join(sorted(''.join(_blurred(word) for word in words)))}")
    return tuple(codes)


def _skeleton(word: str) -> str:
    for pattern, with_ in SKELETON:
        word = pattern.sub(with_, word)
    return word


def _blurred(word: str) -> str:
    for pattern, with_ in CONFUSED:
        word = pattern.sub(with_, word)
    return word


def likeness(one: Name, other: Name) -> int:
    """How alike two names are, 0 to 100: equal letters, equal sounds, or shared pairs."""
    if not one or not other:
        return 0
    if letters(one) == letters(other):
        return 100
    heard = frozenset(whole_sounds(one)).isdisjoint(whole_sounds(other))
    words = [frozenset(code for word in name for code in sounds(word)) for name in (one, other)]
    shared = len(words[0] & words[1])
    part = 60 * shared // max(1, min(len(words[0]), len(words[1])))
    pairs = _dice(_pairs(one), _pairs(other))
    return max(pairs, part, 0 if heard else 85)


def _pairs(words: Name) -> list[str]:
    return [f" {word} "[at : at + 2] for word in words for at in range(len(word) + 1)]


def _dice(one: list[str], other: list[str]) -> int:
    left = list(other)
    shared = 0
    for pair in one:
        if pair in left:
            left.remove(pair)
            shared += 1
    return 200 * shared // (len(one) + len(other)) if one or other else 0


# --- dates and numbers ----------------------------------------------------------------------


def birth_variants(text: str) -> tuple[str, ...]:
    """A birth date and, if that is a date too, the one with day and month changed over.

    ``text`` is ``YYYY``, ``YYYY-MM`` or ``YYYY-MM-DD``; anything else gives nothing.
    """
    if re.fullmatch(r"\d{4}(-\d{2})?", text):
        return (text,)
    try:
        born = date.fromisoformat(text)
    except ValueError:
        return ()
    if born.month == born.day or born.day > 12:
        return (born.isoformat(),)
    return (born.isoformat(), born.replace(month=born.day, day=born.month).isoformat())


WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK_DIGITS: Final = "10X98765432"
"""GB 11643: ISO 7064, MOD 11-2."""


def identifier(text: str) -> str:
    """A number or code of a person: letters and digits only, a resident's id in its long form."""
    plain = "".join(char for char in folded(text) if char.isalnum()).upper()
    return resident_id(plain) or plain


def resident_id(text: str) -> str:
    """A Chinese resident's identity number (GB 11643) with 18 signs; empty if it is none.

    The form of 15 digits, of before 1999, is written out: its century and check digit added.
    """
    if re.fullmatch(r"\d{15}", text):
        long = f"{text[:6]}19{text[6:]}"
        long += _check_digit(long)
    else:
        long = text
    return long if not resident_id_fault(long) else ""


def resident_id_fault(text: str) -> str:
    """What is wrong with a resident's identity number of 18 signs; empty if nothing is."""
    if not re.fullmatch(r"[1-9]\d{16}[\dX]", text):
        return "17 digits and a digit or X are needed"
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return "digits 7 to 14 are no date"
    if _check_digit(text) != text[17]:
        return "the check digit is wrong: a digit is mistyped"
    return ""


def _check_digit(digits: str) -> str:
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, digits[:17], strict=True))
    return CHECK_DIGITS[total % 11]
