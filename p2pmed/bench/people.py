"""People who do not exist, as many as a county has: for benches and for attacks in tests.

Rule: seeded, and as uneven as real people are. Family names have the shares of the hundred
commonest in China (Ministry of Public Security, report of 2020, rounded), the rest a long tail;
given names have one or two syllables; birth dates follow an old village's ages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from typing import Final

import msgspec

__all__ = ["Villager", "villagers"]


def _shares(text: str) -> dict[str, int]:
    """Names with their shares in a hundred thousand."""
    return {name: int(share) for name, _, share in (p.partition(":") for p in text.split())}


FAMILIES: Final = _shares(
    "王:7250 李:7190 张:6830 刘:5380 陈:4530 杨:3080 黄:2230 赵:2140 吴:2050 周:2020 徐:1450 "
    "孙:1380 马:1290 朱:1260 胡:1310 郭:1150 何:1170 高:1010 林:1070 罗:860 郑:930 梁:840 "
    "谢:720 宋:700 唐:650 许:660 韩:610 邓:620 冯:640 曹:570 彭:490 曾:580 肖:520 田:500 "
    "董:510 潘:470 袁:500 蔡:460 蒋:470 余:480 于:480 杜:470 叶:420 程:450 魏:460 苏:470 "
    "吕:450 丁:430 任:420 沈:410 姚:400 卢:400 姜:380 崔:380 钟:390 谭:380 陆:360 汪:360 "
    "范:360 金:350 石:340 廖:340 贾:330 夏:310 韦:300 傅:300 方:300 白:290 邹:280 孟:280 "
    "熊:270 秦:270 邱:260 江:260 尹:250 薛:250 闫:240 段:230 雷:230 侯:220 龙:220 史:210 "
    "陶:210 黎:200 贺:200 顾:190 毛:190 郝:190 龚:180 邵:180 万:180 钱:170 严:170 覃:170 "
    "武:160 戴:160 莫:150 孔:150 向:140 汤:140 欧阳:80 司马:6 上官:8 诸葛:5 慕容:3 令狐:4 "
    "尉迟:2"
)
GIVEN: Final = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建国文斌辉力玲梅海波宁建志飞"
    "鹏晓小春燕晨宇轩子涵梓浩然欣怡雨泽思佳琪雪梦瑶俊峰凯旋云龙金凤银花德福永贵庆祥"
)
OLDEST: Final = 95


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Villager:
    """One person."""

    family: str
    given: str
    birth: str
    gender: str
    number: str
    """Of a health card."""
    phone: str

    def to_fhir(self) -> bytes:
        """A FHIR Patient."""
        return msgspec.json.encode(
            {
                "resourceType": "Patient",
                "identifier": [{"system": "urn:p2pmed:health-card", "value": self.number}],
                "name": [{"family": self.family, "given": [self.given]}],
                "telecom": [{"system": "phone", "value": self.phone}],
                "gender": self.gender,
                "birthDate": self.birth,
            }
        )


def villagers(count: int, *, seed: int = 1) -> list[Villager]:
    """``count`` people, the same for one ``seed``."""
    dice = random.Random(seed)
    names, weights = list(FAMILIES), list(accumulate(FAMILIES.values()))
    today = date(2026, 1, 1)
    found = []
    for number in range(count):
        age_days = int(min(dice.betavariate(1.6, 1.5), 0.999) * OLDEST * 365)
        # Given names are uneven too: the first signs of the list are drawn oftener.
        signs = [GIVEN[int(len(GIVEN) * dice.random() ** 1.6)] for _ in range(2)]
        found.append(
            Villager(
                family=dice.choices(names, cum_weights=weights)[0],
                given="".join(signs[: 1 if dice.random() < 0.18 else 2]),
                birth=(today - timedelta(days=age_days)).isoformat(),
                gender=dice.choice(("female", "male")),
                number=f"{5_300_000_000 + number * 7 + seed}",
                phone=f"13{dice.randrange(10**9):09d}",
            )
        )
    return found
