"""Field types: GS1 identifiers, and bodies checked before they are signed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.drugs import Commission, Dispense
from p2pmed.medical.fields import FieldFault, check_body, check_gtin, gtin_check_digit


@pytest.mark.parametrize(
    "gtin", ["09506000134352", "10614141543219", "00614141999996", "00012345600012"]
)
def test_published_numbers_are_right(gtin: str) -> None:
    """Numbers that GS1 and its members print as examples pass."""
    check_gtin(gtin)


@given(first=st.text("0123456789", min_size=13, max_size=13), data=st.data())
def test_one_wrong_digit_is_always_found(first: str, data: st.DataObject) -> None:
    """The check digit finds every single mistake."""
    right = first + gtin_check_digit(first)
    check_gtin(right)
    place = data.draw(st.integers(0, 13))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != right[place]]))
    with pytest.raises(FieldFault, match="gtin"):
        check_gtin(right[:place] + digit + right[place + 1 :])


@pytest.mark.parametrize("gtin", ["", "1", "0950600013435²", "٠٩٥٠٦٠٠٠١٣٤٣٥٢", "09506000134352\n"])
def test_only_fourteen_ascii_digits(gtin: str) -> None:
    """Digits of other scripts and other lengths are refused."""
    with pytest.raises(FieldFault):
        check_gtin(gtin)


def test_a_body_is_checked_as_a_stranger_would_read_it() -> None:
    """A field of the wrong type or pattern is named, its contents are not told."""
    right = Dispense(gtin="09506000134352", serial="A")
    check_body(right)
    with pytest.raises(InvalidTransaction, match="serial") as refused:
        check_body(Dispense(gtin="09506000134352", serial="secret name"))
    assert "secret" not in str(refused.value)
    wrong = Commission(gtin="09506000134352", lot="L", expiry=-1, serials=("A",), maker=bytes(32))
    with pytest.raises(InvalidTransaction, match="expiry"):
        check_body(wrong)
    nested = Commission(
        gtin="09506000134352", lot="L", expiry=1, serials=("A", ""), maker=bytes(32)
    )
    with pytest.raises(InvalidTransaction, match="serials"):
        check_body(nested)
