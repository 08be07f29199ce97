"""Scripts made comparable: Han read as pinyin, Cyrillic and Arabic letter by letter as Latin.

Rule of this file: a reading is part of the protocol, because search tokens are made of it; the
vectors of ``tests/medical/privacy`` hold it still. One reading for each character: the first
that the dictionary gives, but for family names that are read otherwise (``SURNAMES``).
Implements ``docs/protocols/search.md``, clauses 3 and 4.

Traditional and simplified characters of one name have one reading, so no table folds them.
The dictionary is the ``pypinyin`` package's, read without the package: its phrases, which
names do not need, would take fifty megabytes.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.util import find_spec
from typing import Final

import msgspec

from p2pmed.errors import ConfigError

__all__ = ["han_words", "is_han", "is_syllabic", "latin", "pinyin"]


def _table(text: str) -> dict[str, str]:
    """From ``ж:zh ь:``: each left of the colon as it is read."""
    return {left: right for left, _, right in (pair.partition(":") for pair in text.split())}


CYRILLIC: Final = str.maketrans(
    _table(
        "а:a б:b в:v г:g д:d е:e ё:e ж:zh з:z и:i й:i к:k л:l м:m н:n о:o п:p р:r с:s т:t у:u "
        "ф:f х:kh ц:c ч:ch ш:sh щ:shch ъ: ы:y ь: э:e ю:yu я:ya і:i ї:i є:e ґ:g ў:u ђ:dj ј:j "
        "љ:lj њ:nj ћ:c џ:dz қ:k ғ:g ө:o"
    )
)
ARABIC: Final = str.maketrans(
    _table(
        "ا:a أ:a إ:a آ:a ء:a ئ:y ؤ:w ب:b پ:p ت:t ث:th ج:j چ:ch ح:h خ:kh د:d ذ:dh ر:r ز:z ژ:zh "
        "س:s ش:sh ص:s ض:d ط:t ظ:z ع:a غ:gh ف:f ق:q ك:k ک:k گ:g ل:l م:m ن:n ه:h ة:a و:w ي:y ی:y "
        "ى:a \u0640:"
    )
)
SURNAMES: Final = _table(
    "单:shan 單:shan 解:xie 仇:qiu 曾:zeng 查:zha 区:ou 區:ou 任:ren 盖:ge 蓋:ge 朴:piao 种:chong "
    "乐:yue 樂:yue 缪:miao 繆:miao 翟:zhai 尹:yin 覃:qin 谌:chen 召:shao 员:yun 折:she 黑:he "
    "秘:bi 万:wan 萬:wan 宿:su 冼:xian 洗:xian 逄:pang 幺:yao"
)
"""Family names whose reading differs from the character's commonest."""
COMPOUND: Final = _table(
    "欧阳:ouyang 歐陽:ouyang 司马:sima 司馬:sima 上官:shangguan 诸葛:zhuge 諸葛:zhuge 司徒:situ "
    "尉迟:yuchi 尉遲:yuchi 皇甫:huangfu 东方:dongfang 東方:dongfang 慕容:murong 令狐:linghu "
    "公孙:gongsun 公孫:gongsun 夏侯:xiahou 端木:duanmu 长孙:zhangsun 長孫:zhangsun 宇文:yuwen "
    "独孤:dugu 獨孤:dugu 南宫:nangong 南宮:nangong 澹台:tantai 万俟:moqi 萬俟:moqi 赫连:helian "
    "赫連:helian 轩辕:xuanyuan 軒轅:xuanyuan"
)
"""Family names of two characters."""
SYLLABLE_CHARS_MAX: Final = 6


def is_han(char: str) -> bool:
    """Whether ``char`` is a Chinese character."""
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


@cache
def _readings() -> dict[str, str]:
    """Each character's first reading, without tone. Raises ``ConfigError`` without the package."""
    spec = find_spec("pypinyin")
    if spec is None or spec.loader is None or not spec.submodule_search_locations:
        raise ConfigError("the package pypinyin is missing", hint="install p2pmed again")
    path = f"{spec.submodule_search_locations[0]}/pinyin_dict.json"
    raw: bytes = spec.loader.get_data(path)  # type: ignore[attr-defined]
    marked = msgspec.json.decode(raw, type=dict[str, str])
    plain: dict[str, str] = {}
    for reading in {reading.partition(",")[0]: None for reading in marked.values()}:
        bare = "".join(c for c in unicodedata.normalize("NFD", reading) if c.isascii())
        plain[reading] = bare.lower()
    return {chr(int(code)): plain[text.partition(",")[0]] for code, text in marked.items()}


def pinyin(text: str) -> str:
    """The readings of Chinese characters, joined, without tones; others are left out."""
    known = _readings()
    return "".join(known.get(char, f"u{ord(char):x}") for char in text if is_han(char))


def han_words(text: str) -> tuple[str, ...]:
    """A Chinese name, family name first, as two words of pinyin; one if it is one character."""
    if len(text) > 2 and text[:2] in COMPOUND:
        return (COMPOUND[text[:2]], pinyin(text[2:]))
    family = SURNAMES.get(text[0], pinyin(text[0]))
    return (family, pinyin(text[1:])) if len(text) > 1 else (family,)


def latin(word: str) -> str:
    """A folded word of Cyrillic or Arabic letters in Latin ones; any other as it is."""
    return word.translate(CYRILLIC).translate(ARABIC)


@cache
def _syllables() -> frozenset[str]:
    return frozenset(
        reading for reading in _readings().values() if 0 < len(reading) <= SYLLABLE_CHARS_MAX
    )


def is_syllabic(word: str) -> bool:
    """Whether ``word`` is made of syllables of pinyin, so that it may be a Chinese name."""
    known = _syllables()
    reach = [True, *[False] * len(word)]
    for end in range(1, len(word) + 1):
        starts = range(max(0, end - SYLLABLE_CHARS_MAX), end)
        reach[end] = any(reach[start] and word[start:end] in known for start in starts)
    return bool(word) and reach[-1]
