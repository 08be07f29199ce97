"""Tokens: keyed, spread, filled up; and who may publish index keys."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.engine import Entropy
from p2pmed.errors import Denied
from p2pmed.ledger.state import BlockContext, Layer
from p2pmed.medical.keyring import Category, CategoryKey, KeyRing, Wrapped
from p2pmed.medical.privacy import blind_index
from p2pmed.medical.privacy.blind_index import (
    INDEX_PURPOSE,
    PERSON_TOKENS,
    RECORD_TOKENS,
    SPREAD,
    TOKEN_BYTES,
    Field,
    IndexEntry,
    IndexKey,
    IndexUse,
    drawn_tokens,
    index_ring,
    may_begin,
    query_tokens,
    scope_id,
    scope_row,
    split_tokens,
)
from p2pmed.medical.registry import Act, Member
from p2pmed.medical.rejections import Rejection
from p2pmed.testing.clock import SimEntropy

NETWORK = bytes(32)


def key(name: bytes = b"k", category: Category = Category.DEMOGRAPHICS) -> CategoryKey:
    return CategoryKey(category=category, epoch=0, key_id=bytes(16), key=name.ljust(32, b"."))


def entropy(seed: bytes = b"dice") -> Entropy:
    return SimEntropy(seed)


def pieces(tokens: bytes) -> list[bytes]:
    return [tokens[i : i + TOKEN_BYTES] for i in range(0, len(tokens), TOKEN_BYTES)]


@pytest.mark.parametrize("field", list(Field))
def test_whoever_asks_with_the_key_meets_the_token_that_was_drawn(field: Field) -> None:
    """Every drawn token of a term is among those that a search asks for, whatever the dice."""
    for seed in range(20):
        drawn = pieces(
            drawn_tokens(key(), [(field, "a term")], count=4, entropy=entropy(bytes([seed])))
        )
        assert len(set(drawn) & set(query_tokens(key(), field, "a term"))) == 1


def test_another_key_field_or_term_makes_other_tokens() -> None:
    """Tokens of a category, a place or an epoch say nothing about those of another."""
    own = set(query_tokens(key(), Field.WORD, "wang"))
    for others in (
        query_tokens(key(b"another"), Field.WORD, "wang"),
        query_tokens(key(), Field.CODE, "wang"),
        query_tokens(key(), Field.WORD, "wan"),
    ):
        assert own.isdisjoint(others)


def test_number_and_order_of_tokens_tell_nothing_of_the_fields() -> None:
    """No term, one or too many: always as many tokens, in the order of their bytes."""
    for count in (0, 1, 5, 40):
        terms = [(Field.CODE, f"code {number}") for number in range(count)]
        drawn = pieces(drawn_tokens(key(), terms, count=PERSON_TOKENS, entropy=entropy()))
        assert len(drawn) == PERSON_TOKENS == len(set(drawn))
        assert drawn == sorted(drawn)


def test_a_common_term_is_spread() -> None:
    """Of 8,000 people of one family name no token is borne by more than a few."""
    dice = entropy()
    counted: dict[bytes, int] = {}
    for _ in range(8_000):
        term = [(Field.WORD, "pwan")]
        for token in pieces(drawn_tokens(key(), term, count=1, entropy=dice)):
            counted[token] = counted.get(token, 0) + 1
    assert max(counted.values()) < 4 * 8_000 / SPREAD[Field.WORD]


def test_an_entry_splits_into_its_targets() -> None:
    """The person first, then each record, with as many tokens as were put in."""
    person = drawn_tokens(key(), [], count=PERSON_TOKENS, entropy=entropy(b"1"))
    one = drawn_tokens(key(), [], count=RECORD_TOKENS, entropy=entropy(b"2"))
    two = drawn_tokens(key(), [], count=RECORD_TOKENS, entropy=entropy(b"3"))
    ids = (b"r" * 32, b"s" * 32)
    entry = IndexEntry(
        scope=bytes(16), epoch=0, person=True, records=ids, tokens=person + one + two
    )
    assert entry.whole
    assert [(target, b"".join(tokens)) for target, tokens in split_tokens(entry)] == [
        (b"", person),
        (ids[0], one),
        (ids[1], two),
    ]
    short = IndexEntry(scope=bytes(16), epoch=0, person=True, records=ids, tokens=person + one)
    assert not short.whole


def test_only_who_it_was_wrapped_to_has_the_index_keys() -> None:
    """A ring of a place opens for its reader, and for no other reader or place."""
    from p2pmed.identity.sealing import box_public

    mine, other = b"m" * 32, b"o" * 32
    ring = index_ring(IndexUse.SEARCH, "county/village", entropy(), epoch=0)
    wrapped = ring.wrap(box_public(mine), network=NETWORK, purpose=INDEX_PURPOSE)

    def opened(secret: bytes, place: str) -> KeyRing:
        return KeyRing.open(
            wrapped.wrapped,
            secret,
            patient=scope_id(IndexUse.SEARCH, place),
            network=NETWORK,
            purpose=INDEX_PURPOSE,
        )

    found = opened(mine, "county/village")
    assert [k.key for k in found] == [k.key for k in ring]
    for secret, place in ((other, "county/village"), (mine, "county")):
        with pytest.raises(Denied):
            opened(secret, place)


# --- who may publish ------------------------------------------------------------------------


class Nothing:
    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Any:
        return iter(())


class _Envelope:
    subject, refs = b"", ()


class _Entry:
    envelope, author, id = _Envelope(), b"a" * 32, b"i" * 32


def act(body: Any, place: str) -> Act[Any]:
    member = Member(
        name="x",
        roles=("clinic",),
        place=place,
        box_key=bytes(32),
        issuer=bytes(32),
        serial=bytes(16),
        not_after=2**50,
    )
    context = BlockContext(network=NETWORK, ledger=b"", height=1, time_ms=1, provisional=False)
    return Act(body=body, entry=_Entry(), member=member, context=context)  # type: ignore[arg-type]


def published(place: str, *, by: str, epoch: int = 0, view: Layer | None = None) -> Any:
    wrap = Wrapped(grantee=bytes(16), wrapped=bytes(64))
    body = IndexKey(use=IndexUse.SEARCH, place=place, epoch=epoch, wraps=(wrap,))
    kind = next(kind for kind in blind_index.KINDS if kind.name == "index.key")
    layer = view or Layer(Nothing())
    no = kind.check(act(body, by), layer)
    if no is None:
        kind.apply(act(body, by), layer)
    return no, layer


@pytest.mark.parametrize(
    ("place", "by", "allowed"),
    [
        ("county/village", "county/village", True),
        ("county/village", "county", True),
        ("county/village", "", True),
        ("county", "county/village", False),
        ("county/village", "county/other", False),
        ("county/village2", "county/village", False),
    ],
)
def test_keys_of_a_place_come_from_that_place_or_from_above(
    place: str, by: str, allowed: bool
) -> None:
    """Else a neighbour would hand out keys that it can read with."""
    assert may_begin(by, place) is allowed
    no, layer = published(place, by=by)
    assert no is (None if allowed else Rejection.NOT_THE_PARTY)
    row = scope_row(layer, scope_id(IndexUse.SEARCH, place))
    assert (row is not None) is allowed


def test_the_newest_epoch_stays_in_whatever_order_it_came() -> None:
    """Mergeable: an older key that comes late does not turn the epoch back."""
    for epochs in ((0, 2, 1), (2, 1, 0), (1, 0, 2)):
        layer: Layer | None = None
        for epoch in epochs:
            _, layer = published("v", by="v", epoch=epoch, view=layer)
        assert layer is not None
        row = scope_row(layer, scope_id(IndexUse.SEARCH, "v"))
        assert row is not None
        assert row.epoch == 2


def test_one_reader_named_twice_is_refused() -> None:
    """Which of the two wraps would count?"""
    wrap = Wrapped(grantee=bytes(16), wrapped=bytes(64))
    body = IndexKey(use=IndexUse.SEARCH, place="v", epoch=0, wraps=(wrap, wrap))
    kind = next(kind for kind in blind_index.KINDS if kind.name == "index.key")
    assert kind.check(act(body, "v"), Layer(Nothing())) is Rejection.MALFORMED


def test_an_index_entry_needs_a_patient_and_all_its_tokens() -> None:
    """Refused: a wrong number of tokens, and a patient whom nobody registered."""
    kind = next(kind for kind in blind_index.KINDS if kind.name == "index.entry")
    tokens = bytes(PERSON_TOKENS * TOKEN_BYTES)
    whole = IndexEntry(scope=bytes(16), epoch=0, person=True, records=(), tokens=tokens)
    short = IndexEntry(scope=bytes(16), epoch=0, person=True, records=(), tokens=tokens[:-5])
    assert kind.check(act(short, ""), Layer(Nothing())) is Rejection.MALFORMED
    unnamed = kind.check(act(whole, ""), Layer(Nothing()))
    assert unnamed is Rejection.MALFORMED  # no subject
