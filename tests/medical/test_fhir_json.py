"""Strict JSON, its canonical form, and gzip that cannot hurt."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.fhir_json import canonical_json, gunzip_bounded, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=60)
@given(JSON, st.sampled_from([None, 2]))
def test_canonical_form_keeps_the_value_and_drops_the_spelling(
    value: Any, indent: int | None
) -> None:
    """Spaces, escapes and the order of keys vanish; the value stays; once is enough."""
    one = canonical_json(json.dumps(value, indent=indent).encode())
    two = canonical_json(json.dumps(value, ensure_ascii=False, sort_keys=True).encode())
    assert one == two == canonical_json(one)
    assert json.loads(one) == value


@pytest.mark.parametrize(
    ("left", "right"), [("6.50", "6.5"), ("1.0", "1"), ("1e2", "100"), ("-0", "0"), ("1E2", "1e2")]
)
def test_numbers_keep_their_text(left: str, right: str) -> None:
    """6.50 is a measurement of two decimals and not 6.5."""
    assert canonical_json(left.encode()) != canonical_json(right.encode())
    assert canonical_json(left.encode()) == left.encode()


def test_text_and_number_are_not_confused() -> None:
    """A number is kept as text inside, and still is no text outside."""
    assert canonical_json(b'{"b":"6.50","a":6.50}') == b'{"a":6.50,"b":"6.50"}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"{'a':1}",
        b'{"a":1,}',
        b"[01]",
        b'"\xff"',
        b'\xef\xbb\xbf{"a":1}',
        b'"\\ud800"',
        b'"\x01"',
        b"1 2",
        b"[" * 100_000,
        b"9" * 10 + b"x",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    """NaN, comments, wrong UTF-8, a byte order mark, half a surrogate, a tower of brackets."""
    with pytest.raises(InvalidTransaction, match="document"):
        canonical_json(raw)


def test_a_key_twice_is_refused_wherever_it_stands() -> None:
    """Two readers could read two values; the contents are not told."""
    for raw in (b'{"a":1,"a":1}', b'[{"b":{"secret-canary":1,"secret-canary":2}}]'):
        with pytest.raises(InvalidTransaction, match="twice") as caught:
            parse(raw, "here")
        assert "canary" not in str(caught.value)
        assert str(caught.value).startswith("here")
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@given(st.binary(max_size=500))
def test_gunzip_round_trip(data: bytes) -> None:
    """What was packed comes out, in one member or in two."""
    assert gunzip_bounded(gzip.compress(data), 500) == data
    assert gunzip_bounded(gzip.compress(data) + gzip.compress(data), 1000) == data * 2


def test_gunzip_refusals() -> None:
    """Cut short, damaged, foreign, empty, too long: each told apart where people can act."""
    packed = gzip.compress(b"a patient's record" * 10)
    for cut in range(1, len(packed)):
        with pytest.raises(InvalidTransaction, match="cut short"):
            gunzip_bounded(packed[:cut], 1000)
    with pytest.raises(InvalidTransaction, match="damaged"):
        gunzip_bounded(packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:], 1000)
    with pytest.raises(InvalidTransaction, match="not a gzip"):
        gunzip_bounded(b"PK\x03\x04 no gzip", 1000)
    with pytest.raises(InvalidTransaction, match="empty"):
        gunzip_bounded(b"", 1000)
    with pytest.raises(InvalidTransaction, match="more than 179"):
        gunzip_bounded(packed, 179)
    assert len(gunzip_bounded(packed, 180)) == 180
    with pytest.raises(InvalidTransaction, match="more than 200"):
        gunzip_bounded(packed + packed, 200)


def test_a_bomb_stops_at_the_limit() -> None:
    """A small file that unpacks to a huge one costs no more than the limit."""
    with pytest.raises(InvalidTransaction, match="more than"):
        gunzip_bounded(gzip.compress(bytes(50_000_000)), 1_000)
