"""Contradictions are kept, shown, told to others, and resolved once by a person."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.discrepancies import (
    DiscrepancyReport,
    DiscrepancyResolve,
    Ruling,
    discrepancy_id,
    find_discrepancy,
    open_discrepancies,
)

ONE, TWO = bytes([1] * 32), bytes([2] * 32)


@pytest.fixture
def h(hamlet: Any) -> Any:
    hamlet.join("county", "county", place="county")
    hamlet.join("clinic", "clinic")
    return hamlet


def report(h: Any, first: bytes, second: bytes) -> str:
    body = DiscrepancyReport(first=first, second=second, reason="unit_dispensed")
    return h.write("county", body).code


def resolve(h: Any, who: str, name: bytes) -> Any:
    body = DiscrepancyResolve(discrepancy=name, ruling=Ruling.FIRST_STANDS, reason="inspected")
    return h.write(who, body)


def test_a_discrepancy_has_one_name_whichever_came_first(h: Any) -> None:
    """Reported in either order, twice, it is one row."""
    assert report(h, ONE, TWO) == "applied"
    assert report(h, TWO, ONE) == "applied"
    (only,) = open_discrepancies(h.view)
    assert only.id == discrepancy_id(TWO, ONE) == discrepancy_id(ONE, TWO)
    assert (only.first, only.second) == (ONE, TWO)


def test_a_decision_closes_it_once(h: Any) -> None:
    """The ruling and its transaction are kept; a second decision is refused."""
    report(h, ONE, TWO)
    name = discrepancy_id(ONE, TWO)
    done = resolve(h, "county", name)
    assert done.code == "applied"
    assert open_discrepancies(h.view) == ()
    row = find_discrepancy(h.view, name)
    assert row is not None
    assert (row.resolved_by, row.ruling) == (done.id, "first_stands")
    assert resolve(h, "county", name).code == "discrepancy_resolved"
    assert report(h, ONE, TWO) == "applied"
    assert open_discrepancies(h.view) == ()


def test_refusals(h: Any) -> None:
    """An unknown one cannot be resolved, and a clinic resolves none."""
    assert resolve(h, "county", bytes(32)).code == "discrepancy_unknown"
    assert resolve(h, "clinic", bytes(32)).code == "role_missing"


def test_a_transaction_cannot_contradict_itself() -> None:
    """The field is named when the body is made."""
    with pytest.raises(InvalidTransaction, match="second"):
        DiscrepancyReport(first=ONE, second=ONE, reason="x")
