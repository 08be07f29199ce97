"""One value, one spelling: the strict CBOR decoder against vectors, an independent encoder,
and hostile bytes."""

from __future__ import annotations

import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.limits import CBOR_DEPTH_MAX, CBOR_KEYS_MAX
from p2pmed.wire import cbor

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "cbor.json").read_text("utf-8"))


def from_json(value: Any) -> Any:
    """A vector's value; bytes stand as ``{"$bytes": hex}``."""
    if isinstance(value, dict):
        if "$bytes" in value:
            return bytes.fromhex(value["$bytes"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


def spell(value: Any) -> bytes:
    """An encoder written from RFC 8949 section 4.2.1 alone: keys in bytewise order."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            raw = value.encode()
            return _head(3, len(raw)) + raw
        case list():
            return _head(4, len(value)) + b"".join(map(spell, value))
        case dict():
            rows = sorted((spell(key), spell(item)) for key, item in value.items())
            return _head(5, len(rows)) + b"".join(key + item for key, item in rows)
    raise AssertionError(value)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 256**size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise AssertionError(number)


texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf"]) | st.sampled_from("\n\t\u200d"),
    max_size=40,
).map(lambda text: unicodedata.normalize("NFC", text))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=300) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["hex"][:24])
def test_the_frozen_values_have_their_frozen_spelling(case: dict[str, Any]) -> None:
    """Each listed value is written and read as listed."""
    raw, value = bytes.fromhex(case["hex"]), from_json(case["value"])
    assert cbor.encode(value) == raw
    assert cbor.decode(raw) == value


def test_every_hostile_spelling_is_refused() -> None:
    """Each listed byte string raises ``DecodeError`` and nothing else."""
    accepted = []
    for case in VECTORS["hostile"]:
        try:
            cbor.decode(bytes.fromhex(case["hex"]))
        except DecodeError:
            continue
        accepted.append(case)
    assert accepted == []


@given(values)
def test_our_encoder_agrees_with_the_standard(value: Any) -> None:
    """What we write is what RFC 8949 section 4.2.1 prescribes, keys of any length included."""
    assert cbor.encode(value) == spell(value)
    assert cbor.decode(spell(value)) == value


@given(st.binary(max_size=60))
def test_accepted_bytes_are_the_only_spelling(raw: bytes) -> None:
    """Whatever is accepted is spelled again alike; whatever is not raises ``DecodeError``."""
    try:
        value = cbor.decode(raw)
    except DecodeError:
        return
    assert cbor.encode(value) == raw == spell(value)


@given(values, st.data())
@settings(max_examples=200)
def test_a_changed_spelling_never_gives_the_same_value(value: Any, data: st.DataObject) -> None:
    """One byte changed: another value, or refused."""
    raw = bytearray(cbor.encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = cbor.decode(bytes(raw))
    except DecodeError:
        return
    # spell() tells True from 1, which Python's == does not.
    assert spell(changed) != spell(value)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        float("nan"),
        2**63,
        -(2**63) - 1,
        {1: 2},
        {b"a": 1},
        {1, 2},
        object(),
        bytearray(b"a"),
        "e\u0301",
        "\u202e",
        "\ud800",
        "\x00",
        {"e\u0301": 1},
        {str(number): number for number in range(CBOR_KEYS_MAX + 1)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_outside_the_set_are_not_written(value: object) -> None:
    """The writer is as strict as the reader."""
    with pytest.raises(InvalidTransaction):
        cbor.encode([value])


def test_depth_is_bounded_on_both_sides() -> None:
    """The deepest allowed value goes both ways; one deeper goes neither."""
    value: Any = 1
    for _ in range(CBOR_DEPTH_MAX):
        value = [value]
    assert cbor.decode(cbor.encode(value)) == value
    with pytest.raises(InvalidTransaction):
        cbor.encode([value])
    with pytest.raises(DecodeError):
        cbor.decode(b"\x81" + cbor.encode(value))


def test_the_limit_is_checked_before_decoding() -> None:
    """One byte over the limit is refused by its length alone."""
    raw = cbor.encode(bytes(98))
    assert len(raw) == 100
    assert cbor.decode(raw, limit=100) == bytes(98)
    with pytest.raises(DecodeError, match="100 bytes of CBOR where 99 are allowed"):
        cbor.decode(raw, limit=99)


def test_errors_do_not_quote_what_was_sent() -> None:
    """A refusal says what was wrong and never repeats the contents."""
    for hostile in (
        spell({"diagnosis": "secret"})[:-1] + b"\xff",
        spell(["secret"]) + b"\x00",
        b"\xa1\x66secret\xfb" + bytes(8),
        b"\x82\x66secret\x63\xe2\x80\xae",
    ):
        with pytest.raises(DecodeError) as caught:
            cbor.decode(hostile)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "raw",
    [
        b"\xb9\x1f\x40" + b"".join(b"\x19" + n.to_bytes(2, "big") + b"\x00" for n in range(8000)),
        b"\xb9\x1f\x40"
        + b"".join(b"\xc2\x4a\x01" + n.to_bytes(9, "big") + b"\x00" for n in range(8000)),
        b"\xb9\x1f\x40" + b"".join(b"\x44%04x\x00" % n for n in range(8000)),
        b"\x81" * 200_000,
        b"\xd8\x1c\x8a" * 50_000,
        b"\x5f" + b"\x41a" * 100_000 + b"\xff",
    ],
    ids=["integer keys", "bignum keys", "bytes keys", "arrays", "shared arrays", "chunks"],
)
def test_expensive_bytes_are_refused_cheaply(raw: bytes) -> None:
    """A frame built to cost much is refused in milliseconds (threats rows 2 to 4)."""
    start = time.process_time()
    with pytest.raises(DecodeError):
        cbor.decode(raw)
    assert time.process_time() - start < 0.1
