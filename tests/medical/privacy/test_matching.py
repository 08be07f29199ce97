"""Duplicates found by encodings: how many, how surely, and what who lacks the key sees."""

from __future__ import annotations

import gzip
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2pmed.bench.people import villagers
from p2pmed.errors import DecodeError
from p2pmed.medical.keyring import Category, CategoryKey
from p2pmed.medical.privacy.matching import (
    CANDIDATE_SCORE_MIN,
    Match,
    Person,
    candidates,
    compare,
    encode_person,
    open_encoding,
    seal_encoding,
)
from p2pmed.medical.privacy.names import name_words
from p2pmed.medical.privacy.terms import person_of_resource
from p2pmed.testing.clock import SimEntropy

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data"
)


def key(name: bytes = b"linkage") -> CategoryKey:
    return CategoryKey(
        category=Category.DEMOGRAPHICS, epoch=0, key_id=bytes(16), key=name.ljust(32, b".")
    )


def person(text: str, birth: str = "1985-03-12", **more: Any) -> Person:
    return Person(names=(name_words(text),), birth=birth, gender="female", **more)


def score(one: Person, other: Person) -> tuple[int, tuple[str, ...]]:
    return compare(encode_person(key(), one), encode_person(key(), other))


@pytest.mark.parametrize(
    ("one", "other", "reasons"),
    [
        (person("Wang Xiaoming"), person("王小明"), ("names-equal", "birth-date-equal")),
        (
            person("Wang Xiaoming"),
            person("Xiaoming Wang", "1985-12-03"),
            ("names-equal", "day-and-month-swapped"),
        ),
        (
            person("Maria Ivanova"),
            person("Мария Иванова", "1985-03-13"),
            ("names-alike", "birth-day-differs"),
        ),
        (
            person("Abe Smith", identifiers=("12345",)),
            person("Abe Smyth", "1986-03-12", identifiers=("12345",)),
            ("names-alike", "birth-year-differs", "number-shared"),
        ),
    ],
)
def test_one_person_s_two_registrations_are_candidates(
    one: Person, other: Person, reasons: tuple[str, ...]
) -> None:
    """With the reasons that a person decides by; and the other way round alike."""
    points, why = score(one, other)
    assert points >= CANDIDATE_SCORE_MIN
    assert set(reasons) <= set(why)
    assert score(other, one) == (points, why)


def test_two_people_are_none() -> None:
    """Neither one birthday nor one name makes a candidate."""
    assert score(person("王小明"), person("李大伟"))[0] < CANDIDATE_SCORE_MIN
    assert score(person("王小明"), person("王小明", "1999-10-20"))[0] < CANDIDATE_SCORE_MIN


def test_an_encoding_opens_for_its_key_and_patient_only() -> None:
    """A raw copy shows ciphertext of one length; another key or pseudonym opens nothing."""
    encoding = encode_person(key(), person("王小明", identifiers=("1", "2")))
    sealed = seal_encoding(key(), encoding, b"p" * 16, SimEntropy(b"dice"))
    assert open_encoding(key(), sealed, b"p" * 16) == encoding
    for other, patient in ((key(b"other"), b"p" * 16), (key(), b"q" * 16)):
        with pytest.raises(DecodeError):
            open_encoding(other, sealed, patient)
    bare = seal_encoding(key(), encode_person(key(), Person(names=())), b"p" * 16, SimEntropy(b"d"))
    long = person("Maximiliana Wolfeschlegelsteinhausenbergerdorff", identifiers=("1", "2", "3"))
    full = seal_encoding(key(), encode_person(key(), long), b"p" * 16, SimEntropy(b"d"))
    assert len(bare) == len(sealed) == len(full)


def test_another_network_s_encodings_compare_with_nothing() -> None:
    """The filter is keyed: without the key a guessed name is not recognised."""
    one = encode_person(key(), person("王小明"))
    guess = encode_person(key(b"guessed"), person("王小明"))
    assert compare(one, guess)[0] < CANDIDATE_SCORE_MIN


# --- measured -------------------------------------------------------------------------------


def typo(word: str, dice: random.Random) -> str:
    at = dice.randrange(len(word))
    match dice.randrange(3):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + word[at] + word[at:]
        case _:
            return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


def spoiled(one: Person, dice: random.Random) -> Person:
    """The same person, registered in a hurry: one or two mistakes."""
    for _ in range(dice.choice((1, 1, 2))):
        name = list(one.names[0])
        match dice.randrange(5):
            case 0:
                name.reverse()
            case 1 | 2:
                at = dice.randrange(len(name))
                name[at] = typo(name[at], dice) or name[at]
            case 3:
                year, month, day = one.birth.split("-")
                swapped = f"{year}-{day}-{month}" if int(day) <= 12 else f"{year}-{month}-01"
                one = replace(one, birth=swapped)
            case 4:
                year, month, day = one.birth.split("-")
                one = replace(
                    one, birth=f"{int(year) + dice.choice((-1, 1))}-{month}-{min(int(day), 28):02d}"
                )
        one = replace(one, names=(tuple(name),), identifiers=())
    return one


def measured(people: list[Person], seed: int) -> tuple[float, float]:
    """Precision and recall where half of ``people`` are registered twice, the second time badly."""
    dice = random.Random(seed)
    twice = set(dice.sample(range(len(people)), len(people) // 2))
    registered = {b"a" + n.to_bytes(15, "big"): one for n, one in enumerate(people)}
    registered |= {b"b" + n.to_bytes(15, "big"): spoiled(people[n], dice) for n in sorted(twice)}
    found = candidates({name: encode_person(key(), one) for name, one in registered.items()})
    right = sum(true_pair(match) for match in found)
    return right / max(1, len(found)), right / len(twice)


def true_pair(match: Match) -> bool:
    return match.one[1:] == match.other[1:]


def synthea() -> list[Person]:
    folder = DATA / "synthea-r4" / "patients"
    if not folder.is_dir():
        pytest.skip("no synthea-r4 sample data; set P2PMED_DATA")
    found = []
    for path in sorted(folder.glob("*.json.gz")):
        raw = gzip.decompress(path.read_bytes())
        at = raw.index(b'"resource"')
        decoder = json.JSONDecoder()
        resource, _ = decoder.raw_decode(raw[at : at + 40_000].decode().partition(":")[2].lstrip())
        assert resource["resourceType"] == "Patient"
        found.append(person_of_resource(json.dumps(resource).encode()))
    return found


def test_duplicates_among_real_names_are_found() -> None:
    """All Synthea patients, half of them twice: precision at least 97, recall at least 88 %."""
    people = synthea()
    assert len(people) >= 186
    found = [measured(people, seed) for seed in (1, 2, 3)]
    assert min(precision for precision, _ in found) >= 0.97, found
    assert sum(recall for _, recall in found) / 3 >= 0.88, found


def test_duplicates_among_chinese_names_are_found() -> None:
    """Where a few family names are most: 1,500 people, half of them twice."""
    people = [person_of_resource(one.to_fhir()) for one in villagers(1_500, seed=3)]
    precision, recall = measured(people, 2)
    assert precision >= 0.97, precision
    assert recall >= 0.88, recall
