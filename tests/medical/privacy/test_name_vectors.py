"""The spellings that search tokens are made of do not change: a change here changes every token."""

from __future__ import annotations

import pytest

from p2pmed.medical.privacy.names import letters, name_words, sounds, whole_sounds

FROZEN = (
    ("王小明", ("wang", "xiaoming"), "aaggiimnnowx", ("cwngxmng", "paaiimnnowx")),
    ("欧阳娜娜", ("ouyang", "nana"), "aaagnnnouy", ("cangnn", "paaallnouy")),
    ("Мария Иванова", ("mariya", "ivanova"), "aaaaiimnorvvy", ("cafnfmr",)),
    ("محمد علي", ("mhmd", "aly"), "adhlmmy", ("calmmt",)),
    ("Seán O’Brien", ("sean", "obrien"), "abeeinnors", ("cabrnsn",)),
    ("Zhang Wei", ("zhang", "wei"), "aeghinwz", ("cwxng", "paeinwz")),
)


@pytest.mark.parametrize(("text", "words", "plain", "whole"), FROZEN)
def test_spellings_are_frozen(
    text: str, words: tuple[str, ...], plain: str, whole: tuple[str, ...]
) -> None:
    """Words, letters and sound codes are those of the protocol page's table."""
    assert name_words(text) == words
    assert letters(words) == plain
    assert whole_sounds(words) == whole


def test_sounds_of_a_word_are_frozen() -> None:
    """A skeleton of consonants, and for what may be Chinese its blurred pinyin."""
    assert sounds("xiaoming") == ("cxmng", "pxiaomin")
    assert sounds("philips") == ("cflps",)
    assert sounds("") == ("c",)
