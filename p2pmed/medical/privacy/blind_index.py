"""A blind index: search over sealed records by keyed tokens, without opening them.

Rule of this file: a token is ``TOKEN_BYTES`` of HMAC-SHA256 under an index key of a place, a
category and an epoch; whoever has no such key can neither make nor check one. Every person has
``PERSON_TOKENS`` tokens and every record ``RECORD_TOKENS``, random ones filling up, in the
order of their bytes, so that neither their number nor their place tells a field. Implements
medical notes, section 1 row 25, and ``docs/protocols/search.md``, clauses 9 to 20.

A term that many people share (a family name, a common diagnosis) is spread: one of ``SPREAD``
tokens is drawn for each person, and who searches asks for all of them. What equal tokens still
tell is measured by an attack in ``tests/medical/privacy/test_leakage.py``.

Index keys are a key ring (``keyring.py``) whose owner is the place instead of a patient; a new
epoch, wrapped to the others, is how a reader is put out. Tokens of an old epoch stay readable
to whoever kept its keys; nodes replace them when they next can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.keyring import Category, CategoryKey, Keeper, KeyRing, Wrapped
from p2pmed.medical.patients import WRAPS_MAX, about_patient, wraps_fault
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire import cbor
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Text, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "INDEX_PURPOSE",
    "KINDS",
    "PERSON_TOKENS",
    "RECORD_TOKENS",
    "SCOPES",
    "SPREAD",
    "TOKEN_BYTES",
    "Field",
    "IndexEntry",
    "IndexKey",
    "IndexUse",
    "ScopeRow",
    "drawn_tokens",
    "index_ring",
    "may_begin",
    "of_epoch",
    "query_tokens",
    "scope_id",
    "scope_row",
    "split_tokens",
]

TOKEN_BYTES: Final = 5
"""At 50,000 people and 16 tokens each, one foreign token in 1.4 million lookups (clause 12)."""
PERSON_TOKENS: Final = 16
RECORD_TOKENS: Final = 4
RECORDS_MAX: Final = 60
"""Records that one transaction indexes; its ``refs`` have room for them."""
INDEX_PURPOSE: Final = "index"
"""What wrapped index keys are bound to."""
EPOCH_MAX: Final = 2**31


class Field(StrEnum):
    """What is searched for; the value is part of the protocol."""

    LETTERS = "letters"
    SOUNDS = "sounds"
    WORD = "word"
    BIRTH = "birth"
    IDENTIFIER = "identifier"
    PHONE = "phone"
    CODE = "code"
    DRUG = "drug"


SPREAD: Final = {
    Field.LETTERS: 16,
    Field.SOUNDS: 16,
    Field.WORD: 1_024,
    Field.BIRTH: 4,
    Field.IDENTIFIER: 1,
    Field.PHONE: 4,
    Field.CODE: 256,
    Field.DRUG: 256,
}
"""Tokens that one term may have: so many that no token is common."""


class IndexUse(StrEnum):
    """What a place's keys are for."""

    SEARCH = "search"
    LINKAGE = "linkage"


class IndexKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``index.key``: index keys of a place and epoch, wrapped to those who may search there."""

    use: IndexUse
    place: Text
    """Whose patients are found with it: a catchment; empty is the whole network."""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)]
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(min_length=1, max_length=WRAPS_MAX)]


class IndexEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``index.entry``: tokens by which the subject, and some records, can be found."""

    scope: Bytes16
    epoch: Count
    person: bool
    """Whether the first ``PERSON_TOKENS`` tokens are of the person."""
    records: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=RECORDS_MAX)]
    tokens: Annotated[
        bytes,
        msgspec.Meta(
            min_length=RECORD_TOKENS * TOKEN_BYTES,
            max_length=(PERSON_TOKENS + RECORDS_MAX * RECORD_TOKENS) * TOKEN_BYTES,
        ),
    ]

    @property
    def whole(self) -> bool:
        """Whether there are as many tokens as there must be."""
        count = PERSON_TOKENS * self.person + RECORD_TOKENS * len(self.records)
        return len(self.tokens) == count * TOKEN_BYTES


class ScopeRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a place's index: the scope's row."""

    use: IndexUse
    place: Text
    epoch: Count
    """The newest."""


SCOPES: Final = Table("scope", ScopeRow)


def scope_id(use: IndexUse, place: str) -> bytes:
    """What names the index of a place (16 bytes)."""
    return digest("index scope", cbor.encode([use.value, place]))[:16]


def scope_row(view: Readable, scope: bytes) -> ScopeRow | None:
    """The index whose id is ``scope``, or ``None``."""
    return SCOPES.get(view, scope)


# --- tokens ---------------------------------------------------------------------------------


def _token(key: CategoryKey, field: Field, term: str, part: int) -> bytes:
    message = cbor.encode(["p2pmed/1 index", field.value, term, part])
    return key.mac(message)[:TOKEN_BYTES]


def query_tokens(key: CategoryKey, field: Field, term: str) -> list[bytes]:
    """Every token that ``term`` may have: what a search asks for."""
    return [_token(key, field, term, part) for part in range(SPREAD[field])]


def drawn_tokens(
    key: CategoryKey, terms: Iterable[tuple[Field, str]], *, count: int, entropy: Entropy
) -> bytes:
    """``count`` tokens of ``terms``, the first ones if there are more, filled up at random."""
    distinct = [term for term in dict.fromkeys(terms) if term[1]]
    found: dict[bytes, None] = {}
    for field, term in distinct[:count]:
        part = int.from_bytes(entropy.token(2), "big") % SPREAD[field]
        found[_token(key, field, term, part)] = None
    while len(found) < count:
        found[entropy.token(TOKEN_BYTES)] = None
    return b"".join(sorted(found))


def split_tokens(entry: IndexEntry) -> list[tuple[bytes, list[bytes]]]:
    """Record ids, empty for the person, each with its tokens. ``entry`` is ``whole``."""
    sizes = [(b"", PERSON_TOKENS)] * entry.person + [(r, RECORD_TOKENS) for r in entry.records]
    found, at = [], 0
    for target, count in sizes:
        end = at + count * TOKEN_BYTES
        tokens = [entry.tokens[i : i + TOKEN_BYTES] for i in range(at, end, TOKEN_BYTES)]
        found.append((target, tokens))
        at = end
    return found


def index_ring(
    use: IndexUse, place: str, entropy: Entropy, *, epoch: int, keeper: Keeper | None = None
) -> KeyRing:
    """New index keys of a place, one for each category; kept by ``keeper``, if there is one."""
    return KeyRing.generate(scope_id(use, place), entropy, epoch=epoch, keeper=keeper)


def of_epoch(ring: KeyRing, category: Category, epoch: int) -> Sequence[CategoryKey]:
    """The keys of one category and epoch; two if two places began it apart."""
    return [key for key in ring if key.category is category and key.epoch == epoch]


# --- kinds ----------------------------------------------------------------------------------


def may_begin(member_place: str, place: str) -> bool:
    """Whether a member of ``member_place`` may publish index keys of ``place``."""
    return not member_place or member_place == place or place.startswith(f"{member_place}/")


def _check_key(act: Act[IndexKey], view: View) -> Rejection | None:
    if fault := wraps_fault(act.body.wraps):
        return fault
    return None if may_begin(act.member.place, act.body.place) else Rejection.NOT_THE_PARTY


def _apply_key(act: Act[IndexKey], view: View) -> None:
    body = act.body
    scope = scope_id(body.use, body.place)
    row = scope_row(view, scope)
    if row is None or body.epoch > row.epoch:
        SCOPES.put(view, ScopeRow(use=body.use, place=body.place, epoch=body.epoch), scope)


def _check_entry(act: Act[IndexEntry], view: View) -> Rejection | None:
    if not act.body.whole:
        return Rejection.MALFORMED
    return about_patient(act, view)


def _apply_entry(act: Act[IndexEntry], view: View) -> None:
    """Tokens are kept by each node in a table of its own; the state need not know them."""


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="index.key",
        body=IndexKey,
        check=_check_key,
        apply=_apply_key,
        ordered=False,
        rules="Refused unless the author's credential is of that place or of one above it.",
    ),
    Kind(
        name="index.entry",
        body=IndexEntry,
        check=_check_entry,
        apply=_apply_entry,
        ordered=False,
        rules="Refused unless the patient is registered and the number of tokens fits.",
    ),
)
