"""Two writings of one name, date or number are equal, in any script; two people's are not."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.medical.privacy.names import (
    birth_variants,
    folded,
    identifier,
    letters,
    likeness,
    name_words,
    resident_id,
    resident_id_fault,
    sounds,
    whole_sounds,
)
from p2pmed.medical.privacy.romanise import pinyin

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data"
)

ONE_NAME = (
    (
        "Wang Xiaoming",
        "王小明",
        "WANG, XIAO MING",
        "Xiaoming Wang",
        "wang xiao-ming",
        "Ｗａｎｇ Xiaoming",
    ),
    ("欧阳娜娜", "歐陽娜娜", "Ouyang Nana", "OUYANG, NA NA"),
    ("单雄信", "Shan Xiongxin"),
    ("曾国藩", "曾國藩", "Zeng Guofan"),
    ("吕布", "呂布", "Lü Bu", "LYU BU", "lv bu"),
    ("张伟", "張偉", "Zhang Wei", "Wei ZHANG"),
    ("Seán O’Brien", "Sean O'Brien", "OBRIEN, SEAN"),
    ("José García", "Jose Garcia", "GARCÍA José"),
    ("Jürgen Strauß", "Jurgen Strauss"),
    ("Øystein Bjørk", "Oystein Bjork"),
)
"""Each row is one person by letters."""
ONE_SOUND = (
    ("Мария Иванова", "Maria Ivanova", "Mariya Ivanova"),
    ("محمد علي", "Mohammed Ali", "Muhammad Aly", "Mohamed Ali"),
    ("Catherine Philips", "Katherine Phillips", "Kathryn Filips"),
    ("张伟", "Zang Wei"),
    ("林红", "Lin Hong", "Ling Hong", "Nin Hong"),
    ("Щербаков", "Shcherbakov"),
)
"""Each row is one person by sound."""


@pytest.mark.parametrize("row", ONE_NAME, ids=lambda row: row[0])
def test_one_name_has_one_spelling_by_letters(row: tuple[str, ...]) -> None:
    """Script, order, case, width, accents and spacing make no difference."""
    assert len({letters(name_words(name)) for name in row}) == 1
    assert all(likeness(name_words(row[0]), name_words(name)) == 100 for name in row)


@pytest.mark.parametrize("row", ONE_SOUND, ids=lambda row: row[0])
def test_one_name_has_one_sound(row: tuple[str, ...]) -> None:
    """Spellings of a sound, and transliterations, share a code with the first."""
    first = frozenset(whole_sounds(name_words(row[0])))
    for name in row[1:]:
        assert first & frozenset(whole_sounds(name_words(name))), name
        assert likeness(name_words(row[0]), name_words(name)) >= 85


@pytest.mark.parametrize(
    ("one", "other"),
    [("王小明", "李大伟"), ("Maria Ivanova", "Peter Smith"), ("张伟", "王芳"), ("Ali", "Obrien")],
)
def test_two_names_are_two(one: str, other: str) -> None:
    """Neither letters nor sounds of different names are equal."""
    left, right = name_words(one), name_words(other)
    assert letters(left) != letters(right)
    assert not frozenset(whole_sounds(left)) & frozenset(whole_sounds(right))
    assert likeness(left, right) < 55


def test_a_family_name_in_one_piece_is_divided_from_the_given_one() -> None:
    """So that who searches for the family name alone finds it; two signs may be the family."""
    assert name_words("王小明") == name_words("王", ["小明"]) == ("wang", "xiaoming")
    assert name_words("欧阳娜娜") == name_words("欧阳", ["娜娜"]) == ("ouyang", "nana")
    assert name_words("解珍")[0] == "xie"
    assert sounds("wang")[-1] == sounds(name_words("王")[0])[-1]


def test_every_common_character_has_a_reading() -> None:
    """The dictionary of the pypinyin package is where it is looked for, and is whole."""
    block = [chr(code) for code in range(0x4E00, 0x9FA6)]
    unread = [char for char in block if pinyin(char).startswith("u")]
    assert len(unread) < 20  # of 20,902: some signs are for units and have no sound


@given(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=4))
def test_no_text_is_too_strange(text: str, given_names: list[str]) -> None:
    """Any text gives words, letters and sounds, of bounded length, the same twice."""
    words = name_words(text, given_names)
    assert words == name_words(text, given_names)
    assert len(words) <= 8
    assert all(0 < len(word) <= 48 for word in words)
    assert len(letters(words)) == sum(map(len, words))
    assert 0 <= likeness(words, words) <= 100
    whole_sounds(words)


@given(st.permutations(["Xiaoming", "Wang", "De", "Fu"]))
def test_the_order_of_words_does_not_matter(words: list[str]) -> None:
    """Any order of a name's words has the same letters and the same sound."""
    name, first = name_words(" ".join(words)), name_words("Wang Xiaoming De Fu")
    assert letters(name) == letters(first)
    assert whole_sounds(name) == whole_sounds(first)


@given(st.text(max_size=60))
def test_folding_twice_is_folding_once(text: str) -> None:
    """A folded text is in its one spelling."""
    assert folded(folded(text)) == folded(text)


def test_real_names_keep_apart() -> None:
    """Of all Synthea patients, two with equal letters have equal names."""
    names = _synthea_names()
    by_letters: dict[str, str] = {}
    for family, given_names in names:
        words = name_words(family, given_names)
        assert words
        plain = " ".join(sorted(words))
        assert by_letters.setdefault(letters(words), plain) == plain


def _synthea_names() -> list[tuple[str, list[str]]]:
    folder = DATA / "synthea-r4" / "patients"
    if not folder.is_dir():
        pytest.skip("no synthea-r4 sample data; set P2PMED_DATA")
    manifest = json.loads((DATA / "synthea-r4" / "manifest.json").read_text())
    assert manifest
    found = []
    for path in sorted(folder.glob("*.json.gz"))[:40]:
        bundle = json.loads(gzip.decompress(path.read_bytes()))
        patient = bundle["entry"][0]["resource"]
        found.append((patient["name"][0]["family"], patient["name"][0]["given"]))
    return found


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("1985-03-12", ("1985-03-12", "1985-12-03")),
        ("1985-03-31", ("1985-03-31",)),
        ("1985-05-05", ("1985-05-05",)),
        ("1985", ("1985",)),
        ("1985-03", ("1985-03",)),
        ("1985-02-30", ()),
        ("12.3.1985", ()),
        ("", ()),
    ],
)
def test_day_and_month_may_be_changed_over(text: str, variants: tuple[str, ...]) -> None:
    """Where both are dates; what is no date gives nothing."""
    assert birth_variants(text) == variants


@given(st.dates())
def test_a_changed_date_changes_back(born: object) -> None:
    """Two people with each other's variant have the same set of them."""
    variants = birth_variants(str(born))
    assert variants
    assert sorted(birth_variants(variants[-1])) == sorted(variants)


def test_a_resident_s_number_is_checked() -> None:
    """GB 11643's own example passes; a mistyped digit, a false date and a wrong length do not."""
    good = "11010519491231002X"
    assert resident_id(good) == good
    assert resident_id("110105491231002") == good  # the form of before 1999
    assert identifier(" 110105-19491231-002x ") == good
    for at in range(17):
        wrong = good[:at] + str((int(good[at]) + 1) % 10) + good[at + 1 :]
        assert resident_id(wrong) == "", at
    assert "check digit" in resident_id_fault("110105194912310021")
    assert "date" in resident_id_fault("11010519491331002X")
    assert resident_id_fault("12")


def test_other_numbers_lose_what_only_separates() -> None:
    """Spaces, dots and hyphens; small letters and wide digits."""
    assert identifier("ab-12 3.4") == identifier("AB１２34") == "AB1234"
