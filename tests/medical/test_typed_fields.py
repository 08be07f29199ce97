"""Fields of typed resources: exact numbers, times with a zone, nothing empty."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.fhir import occurred_ms
from p2pmed.medical.fhir_json import parse
from p2pmed.medical.typed_fields import (
    LOINC,
    SNOMED_CT,
    Coding,
    Quantity,
    coded,
    fhir_json,
    fhir_time,
    filled,
    measured,
)


@given(st.decimals(allow_nan=False, allow_infinity=False) | st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_number_is_written_as_it_was_measured(number: int | Decimal) -> None:
    """Every digit stays: what is read back is the same text."""
    raw = fhir_json(**measured(Quantity(value=number, unit="1")))
    assert parse(raw, "x")["value"] == str(number)


@pytest.mark.parametrize("number", [2**63, 6.5, True, "6.5", Decimal("Infinity"), None])
def test_what_is_no_exact_number_is_refused(number: Any) -> None:
    """A float has lost its digits before we see it."""
    with pytest.raises(InvalidTransaction, match=r"^Quantity\.value"):
        Quantity(value=number, unit="1")


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_time_keeps_its_instant(moment: datetime) -> None:
    """An aware time becomes a FHIR dateTime of the same millisecond, in any zone."""
    aware = moment.replace(tzinfo=UTC)
    there = aware.astimezone(timezone(timedelta(hours=5, minutes=45)))
    since = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert occurred_ms(fhir_time(there, "x"), "x") == since


def test_a_bare_code_belongs_to_its_field() -> None:
    """A text is a code of the field's system; a ``Coding`` brings its own."""
    assert coded("718-7", LOINC, "x") == {"coding": [{"system": LOINC, "code": "718-7"}]}
    given_ = Coding("1", SNOMED_CT, "One")
    assert coded(given_, LOINC, "x") == {
        "coding": [{"system": SNOMED_CT, "code": "1", "display": "One"}]
    }


def test_nothing_empty_is_written() -> None:
    """FHIR knows no empty value, but zero and false are values."""
    assert filled(a=None, b="", c=[], d=0, e=False) == {"d": 0, "e": False}


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_no_json_or_database_holds_is_refused_by_its_field(text: str) -> None:
    """Half of a surrogate pair, or NUL, is named at the field, not found when it is written."""
    with pytest.raises(InvalidTransaction, match=r"Coding\.display"):
        Coding("E11", "urn:x", text)
