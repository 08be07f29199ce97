"""Duplicate patients found across villages, without showing anybody a name.

Rule of this file: what is compared is an encoding under the network's linkage key, which
facilities alone hold, and it travels sealed: a raw copy shows ciphertext of one length. A
holder of the key sees keyed Bloom filters, not names; it could still encode a name that it
guesses, which is why the key is for facilities and not for devices of staff. Implements
``docs/protocols/search.md``, clauses 27 to 34.

The encoding follows R. Schnell, T. Bachteler and J. Reiher, "Privacy-preserving record linkage
using Bloom filters" (2009): pairs of letters hashed into a filter by keyed hashes, compared by
Dice's coefficient. Known attacks on bare filters (Christen and others, 2017) read the
frequencies of many filters; sealing keeps the filters from whoever lacks the key.

A match is a number and its reasons for a person to weigh. Nothing links by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError
from p2pmed.identity import sealing
from p2pmed.ledger.state import View
from p2pmed.medical.keyring import CategoryKey
from p2pmed.medical.patients import about_patient
from p2pmed.medical.privacy.names import Name, birth_variants, letters, sounds, whole_sounds
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Count, Wire

__all__ = [
    "CANDIDATE_SCORE_MIN",
    "KINDS",
    "Encoding",
    "Match",
    "MatchEntry",
    "Person",
    "candidates",
    "compare",
    "encode_person",
    "open_encoding",
    "seal_encoding",
]

FILTER_BITS: Final = 512
FILTER_BYTES: Final = FILTER_BITS // 8
HASHES: Final = 12
"""Bits a pair sets: with 15 pairs about a third of the filter, the best for Dice (Schnell)."""
BLOCKS: Final = 11
BLOCK_BYTES: Final = 5
BLOCK_MAX: Final = 256
"""People of one block that are compared: a block of more is of a name too common to say much."""
PAD_BYTES: Final = 320
SEALED_BYTES: Final = 24 + PAD_BYTES + sealing.TAG_BYTES
CANDIDATE_SCORE_MIN: Final = 67
"""Above an equal name with another birth date: those are different people more often than not."""
NAMES: Final = 2
"""Names encoded: as registered, and a former one."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Person:
    """What is known of somebody who may be registered twice."""

    names: tuple[Name, ...]
    birth: str = ""
    gender: str = ""
    identifiers: tuple[str, ...] = ()
    """Normalised, phone numbers too."""


class Encoding(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A person as others compare one: keyed, and without a way back."""

    names: Annotated[
        tuple[
            Annotated[bytes, msgspec.Meta(min_length=FILTER_BYTES, max_length=FILTER_BYTES)], ...
        ],
        msgspec.Meta(min_length=NAMES, max_length=NAMES),
    ]
    """A filter for each name; empty ones fill up."""
    births: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=5)]
    """The date; day and month changed over; without day, without month, without year."""
    gender: Annotated[bytes, msgspec.Meta(max_length=BLOCK_BYTES)]
    identifiers: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=4)]
    blocks: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BLOCKS)]
    """Two people are compared if they share one."""


class MatchEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``match.entry``: the subject's encoding, sealed to holders of the linkage key."""

    scope: Bytes16
    epoch: Count
    sealed: Annotated[bytes, msgspec.Meta(min_length=SEALED_BYTES, max_length=2 * SEALED_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Two pseudonyms that may be one person."""

    one: bytes
    other: bytes
    score: int
    """0 to 100."""
    reasons: tuple[str, ...]
    """Codes, such as ``names-equal`` and ``day-and-month-swapped``."""


def _keyed(key: CategoryKey, label: str, text: str) -> bytes:
    return key.mac(cbor.encode(["p2pmed/1 match", label, text]))


def _short(key: CategoryKey, label: str, text: str) -> bytes:
    return _keyed(key, label, text)[:BLOCK_BYTES] if text else b""


def _filter(key: CategoryKey, name: Name) -> bytes:
    bits = 0
    pairs = dict.fromkeys(f" {word} "[i : i + 2] for word in name for i in range(len(word) + 1))
    for pair in pairs:
        hashed = _keyed(key, "pair", pair)
        for at in range(HASHES):
            bits |= 1 << (int.from_bytes(hashed[2 * at : 2 * at + 2], "big") % FILTER_BITS)
    return bits.to_bytes(FILTER_BYTES, "big")


def encode_person(key: CategoryKey, person: Person) -> Encoding:
    """The encoding of ``person`` under the linkage ``key``: the same at every facility."""
    births = birth_variants(person.birth)
    day = births[0] if births and len(births[0]) == 10 else ""
    swapped = births[1] if len(births) == 2 else ""
    near = [f"ym{day[:7]}", f"yd{day[:4]}{day[8:]}", f"md{day[5:]}"] if day else []
    blocks: dict[bytes, None] = {}
    for text in _blocking(person, births):
        blocks[_short(key, "block", text)] = None
    return Encoding(
        names=tuple(_filter(key, name) for name in (*person.names, (), ())[:NAMES]),
        births=tuple(
            _short(key, "birth", text) for text in (births[0] if births else "", swapped, *near)
        ),
        gender=_short(key, "gender", person.gender),
        identifiers=tuple(_short(key, "number", text) for text in person.identifiers[:4]),
        blocks=tuple(blocks)[:BLOCKS],
    )


def _blocking(person: Person, births: tuple[str, ...]) -> Iterator[str]:
    """What two writings of one person probably share, the most telling first."""
    yield from (f"n{number}" for number in person.identifiers[:2])
    for name in person.names[:1]:
        yield f"l{letters(name)}"
        yield from (f"s{code}" for code in whole_sounds(name)[:2])
        if births:
            yield f"b{min(births)}"
        codes = [sounds(word)[-1] for word in name]
        for code in sorted(codes)[:2]:
            yield f"y{code}{births[0][:4] if births else ''}"
            yield f"d{code}{births[0][5:] if births else ''}"


def seal_encoding(key: CategoryKey, encoding: Encoding, patient: bytes, entropy: Entropy) -> bytes:
    """``encoding`` for holders of the linkage key, bound to the pseudonym."""
    nonce = entropy.token(24)
    padded = sealing.pad(codec.encode(encoding), PAD_BYTES)
    return nonce + sealing.seal(_sealing_key(key), nonce, padded, patient)


def open_encoding(key: CategoryKey, sealed: bytes, patient: bytes) -> Encoding:
    """Inverse of ``seal_encoding``. Raises ``DecodeError`` for another key or patient."""
    if len(sealed) < SEALED_BYTES:
        raise DecodeError(f"a sealed encoding of {len(sealed)} bytes")
    padded = sealing.open_sealed(_sealing_key(key), sealed[:24], sealed[24:], patient)
    return codec.decode(sealing.unpad(padded), Encoding)


def _sealing_key(key: CategoryKey) -> bytes:
    return key.mac(b"p2pmed/1 match seal")


# --- comparing ------------------------------------------------------------------------------

BIRTH_REASONS: Final = (
    "birth-date-equal",
    "day-and-month-swapped",
    "birth-day-differs",
    "birth-month-differs",
    "birth-year-differs",
)
BIRTH_POINTS: Final = (34, 28, 22, 20, 18)


def compare(one: Encoding, other: Encoding) -> tuple[int, tuple[str, ...]]:
    """How surely two encodings are of one person, 0 to 100, and why.

    Points: names up to 60, birth date up to 34, sex 6, a shared number 30 more.
    """
    alike = max(_dice(left, right) for left in one.names for right in other.names)
    names = max(0, alike - 40)
    reasons = ["names-equal" if alike == 100 else "names-alike"] if alike >= 70 else []
    birth, why = _births(one.births, other.births)
    reasons += [why] if why else []
    sex = 6 if one.gender == other.gender and one.gender else 0
    reasons += ["sex-differs"] if one.gender and other.gender and not sex else []
    shared = bool({n for n in one.identifiers if n} & {n for n in other.identifiers if n})
    reasons += ["number-shared"] if shared else []
    return min(100, names + birth + sex + 30 * shared), tuple(reasons)


def _births(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> tuple[int, str]:
    if not (one and other and one[0] and other[0]):
        return 12, ""  # unknown is no evidence against
    if one[0] == other[0]:
        return BIRTH_POINTS[0], BIRTH_REASONS[0]
    if one[1:2] == (other[0],) or other[1:2] == (one[0],):
        return BIRTH_POINTS[1], BIRTH_REASONS[1]
    for at in (2, 3, 4):
        if one[at : at + 1] and one[at : at + 1] == other[at : at + 1]:
            return BIRTH_POINTS[at], BIRTH_REASONS[at]
    return 0, "birth-date-differs"


def _dice(one: bytes, other: bytes) -> int:
    left, right = int.from_bytes(one, "big"), int.from_bytes(other, "big")
    total = left.bit_count() + right.bit_count()
    return 200 * (left & right).bit_count() // total if total else 0


def candidates(
    encodings: Mapping[bytes, Encoding], *, score_min: int = CANDIDATE_SCORE_MIN
) -> list[Match]:
    """Pairs of pseudonyms that may be one person, the surest first.

    Only people of one block are compared, and of a block of more than ``BLOCK_MAX`` its first.
    """
    blocks: dict[bytes, list[bytes]] = {}
    for patient in sorted(encodings):
        for block in encodings[patient].blocks:
            members = blocks.setdefault(block, [])
            if len(members) < BLOCK_MAX:
                members.append(patient)
    found: dict[tuple[bytes, bytes], Match] = {}
    seen: set[tuple[bytes, bytes]] = set()
    for members in blocks.values():
        for at, one in enumerate(members):
            for other in members[at + 1 :]:
                if (one, other) in seen:
                    continue
                seen.add((one, other))
                score, reasons = compare(encodings[one], encodings[other])
                if score >= score_min:
                    match = Match(one=one, other=other, score=score, reasons=reasons)
                    found[one, other] = match
    return sorted(found.values(), key=lambda match: (-match.score, match.one, match.other))


# --- the kind -------------------------------------------------------------------------------


def _check_match(act: Act[MatchEntry], view: View) -> Rejection | None:
    return about_patient(act, view)


def _apply_match(act: Act[MatchEntry], view: View) -> None:
    """Encodings are read from the logs by who holds the key; the state need not know them."""


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="match.entry",
        body=MatchEntry,
        check=_check_match,
        apply=_apply_match,
        ordered=False,
        rules="Refused unless the patient is registered.",
    ),
)
