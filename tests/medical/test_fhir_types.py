"""FHIR as tables: complete, and pointing where they should."""

from __future__ import annotations

from p2pmed.medical.fhir_types import (
    CATEGORY_CODES,
    CATEGORY_OF,
    OCCURRED_FIELDS,
    RESOURCE_TYPES,
    SENSITIVE_CODES,
)
from p2pmed.medical.keyring import EVERY_CATEGORY, Category


def test_all_types_of_r4() -> None:
    """R4 defines 148 types, of which Resource and DomainResource are abstract."""
    assert len(RESOURCE_TYPES) == 146
    assert not {"Resource", "DomainResource"} & RESOURCE_TYPES


def test_every_category_but_the_sensitive_has_types() -> None:
    """A sensitive category is reached by label only; every other one by type, or is the rest."""
    by_type = set(CATEGORY_OF.values()) | {Category.GENERAL}
    by_label = set(SENSITIVE_CODES.values())
    assert by_type | by_label == set(EVERY_CATEGORY)
    assert not by_type & by_label
    assert set(CATEGORY_CODES.values()) <= by_type


def test_no_date_is_asked_for_twice() -> None:
    """The order of the fields is a decision; a field stands in it once."""
    assert len(set(OCCURRED_FIELDS)) == len(OCCURRED_FIELDS)
