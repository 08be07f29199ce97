"""Typed values cross a border whole, or are refused with the path of what is wrong."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Text, TimeMs, Wire


class Route(StrEnum):
    """A closed set of words."""

    ORAL = "oral"
    TOPICAL = "topical"


class Dose(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part."""

    units: Count
    route: Route


class Order(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A whole, of every kind of field."""

    patient: Bytes16
    lot: Bytes32
    note: Text
    when: TimeMs
    doses: tuple[Dose, ...]
    urgent: bool = False


GOOD = Order(
    patient=bytes(16), lot=bytes(32), note="with water", when=-1, doses=(Dose(2, Route.ORAL),)
)
PLAIN = [bytes(16), bytes(32), "with water", -1, [[2, "oral"]], False]

orders = st.builds(
    Order,
    patient=st.binary(min_size=16, max_size=16),
    lot=st.binary(min_size=32, max_size=32),
    note=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=50),
    when=st.integers(-(2**53), 2**53),
    doses=st.lists(st.builds(Dose, st.integers(0, 2**53), st.sampled_from(Route)), max_size=4).map(
        tuple
    ),
    urgent=st.booleans(),
)


class Crate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Structs with a default within others."""

    orders: tuple[Order, ...]
    shelves: tuple[tuple[Order, ...], ...]


@given(orders)
def test_a_struct_comes_back_as_it_went(order: Order) -> None:
    """Encoding and decoding is the identity, and there is one encoding."""
    raw = codec.encode(order)
    assert codec.decode(raw, Order) == order
    assert codec.encode(codec.decode(raw, Order)) == raw


def test_a_struct_is_an_array() -> None:
    """Field names do not travel; a default does."""
    assert cbor.decode(codec.encode(GOOD)) == PLAIN


@pytest.mark.parametrize(
    ("at", "value", "path"),
    [
        (0, bytes(15), r"\$\[0\]"),
        (0, "text", r"\$\[0\]"),
        (1, bytes(33), r"\$\[1\]"),
        (2, "x" * 1025, r"\$\[2\]"),
        (2, b"bytes", r"\$\[2\]"),
        (3, 2**53 + 1, r"\$\[3\]"),
        (3, True, r"\$\[3\]"),
        (3, "1", r"\$\[3\]"),
        (4, [[-1, "oral"]], r"\$\[4\]\[0\]\[0\]"),
        (4, [[1, "by ear"]], r"\$\[4\]\[0\]\[1\]"),
        (4, [[1]], r"\$\[4\]\[0\]"),
        (4, [{"units": 1, "route": "oral"}], r"\$\[4\]\[0\]"),
        (4, None, r"\$\[4\]"),
        (5, 0, r"\$\[5\]"),
        (5, None, r"\$\[5\]"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(at: int, value: object, path: str) -> None:
    """No coercion: a wrong length, range or type is refused, and the error says where."""
    plain = list(PLAIN)
    plain[at] = value
    with pytest.raises(DecodeError, match=path) as caught:
        codec.decode(cbor.encode(plain), Order)
    assert "by ear" not in str(caught.value)


@pytest.mark.parametrize(
    "plain",
    [[], PLAIN[:4], [*PLAIN, 0], {"patient": bytes(16)}, None, "x", 5],
    ids=["empty", "short", "long", "map", "null", "text", "number"],
)
def test_another_shape_is_refused(plain: object) -> None:
    """Missing and surplus fields and other shapes are refused."""
    with pytest.raises(DecodeError, match="Order"):
        codec.decode(cbor.encode(plain), Order)


def test_an_omitted_default_is_refused() -> None:
    """A default is for programs: an array that leaves the field out is no second spelling."""
    with pytest.raises(DecodeError, match="leaves fields out"):
        codec.decode(cbor.encode(PLAIN[:5]), Order)
    assert codec.decode(cbor.encode(PLAIN), Order) == GOOD


def test_a_default_left_out_inside_is_refused() -> None:
    """So is one in a Struct within: in a list, and in a list of a list."""
    with pytest.raises(DecodeError, match="leaves fields out"):
        codec.decode(cbor.encode([[PLAIN[:5]], []]), Crate)
    with pytest.raises(DecodeError, match="leaves fields out"):
        codec.decode(cbor.encode([[], [[PLAIN[:5]]]]), Crate)
    assert codec.decode(cbor.encode([[PLAIN], [[PLAIN]]]), Crate).orders == (GOOD,)


def test_the_limit_holds() -> None:
    """A message over its limit is refused."""
    raw = codec.encode(GOOD)
    assert codec.decode(raw, Order, limit=len(raw)) == GOOD
    with pytest.raises(DecodeError):
        codec.decode(raw, Order, limit=len(raw) - 1)


def test_repr_shows_no_contents() -> None:
    """What is printed by accident names the type only."""
    assert repr(GOOD) == "<Order>"
    assert repr([GOOD]) == "[<Order>]"
    assert str(GOOD) == "<Order>"


def test_a_field_that_cannot_be_spelled_is_the_callers_fault() -> None:
    """Text with a direction override is refused on the way out."""
    with pytest.raises(InvalidTransaction):
        codec.encode(msgspec.structs.replace(GOOD, note="a\u202eb"))


def test_the_error_of_an_unknown_word_does_not_quote_it() -> None:
    """An enum or literal that does not match is refused without its value."""
    kind = Annotated[Route, msgspec.Meta(description="a route")]
    with pytest.raises(DecodeError) as caught:
        codec.convert("HIV clinic", kind)
    assert "HIV" not in str(caught.value)
    assert caught.value.__cause__ is None


class Knock(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A tagged Struct."""

    number: Count


class Enter(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Another."""

    name: Text


@pytest.mark.parametrize("message", [Knock(number=7), Enter(name="Wang")])
def test_a_tagged_union_decodes_to_the_struct_of_its_tag(message: Wire) -> None:
    """The tag chooses, whatever the order of the union."""
    assert codec.Tagged(Knock | Enter).decode(codec.encode(message)) == message


@pytest.mark.parametrize(
    "value", [[3, 7], [True, 7], [b"\x01", 7], [], 1, [1, "seven"], [1, 7, 8], [2, 7]]
)
def test_a_tagged_union_refuses_what_the_plain_union_refuses(value: object) -> None:
    """Another tag, ``true`` in place of 1, no tag, a wrong field: refused alike."""
    raw = cbor.encode(value)
    with pytest.raises(DecodeError):
        codec.decode(raw, Knock | Enter)  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        codec.Tagged(Knock | Enter).decode(raw)


def test_a_union_without_integer_tags_cannot_be_told_apart() -> None:
    """A mistake of ours shows at import, not when a message comes."""
    with pytest.raises(TypeError):
        codec.Tagged(Knock | Wire)
