"""The reference of transaction types is complete and true."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pmed.medical import kinds
from p2pmed.medical.reference import transactions_page
from p2pmed.medical.registry import Registry
from p2pmed.medical.rejections import MEANINGS, Rejection

PAGE = Path(__file__).parents[2] / "docs/reference/transactions.md"
REGISTRY = Registry(kinds())


def sections() -> dict[str, str]:
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.splitlines()[0].strip("`"): part for part in parts}


@pytest.mark.parametrize("kind", list(REGISTRY), ids=lambda kind: kind.name)
def test_every_kind_is_documented(kind: object) -> None:
    """Its fields, roles, flags and rules stand on the page as they are in the code. If not:
    write ``transactions_page(Registry(kinds()))`` to ``docs/reference/transactions.md``.
    """
    fresh = transactions_page(Registry([kind]))  # type: ignore[list-item]
    expected = fresh.split("\n## ")[1]
    name = expected.splitlines()[0].strip("`")
    assert sections()[name].strip() == expected.strip()


def test_no_kind_is_documented_that_does_not_exist() -> None:
    """The page and the registry name the same kinds."""
    assert set(sections()) == {kind.name for kind in REGISTRY} | {"Verdicts"}


def test_every_rejection_is_documented_in_its_rank() -> None:
    """The table of verdicts holds every name once, in the order of rank, with a sentence."""
    assert set(MEANINGS) == set(Rejection)
    rows = [line for line in sections()["Verdicts"].splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [reason.value for reason in Rejection]


def test_every_rejection_named_by_a_rule_exists() -> None:
    """A kind's sentence names no refusal that the protocol does not know."""
    words = {reason.value for reason in Rejection} | {"dispense", "claim"}
    for kind in REGISTRY:
        assert set(kind.rules.split("`")[1::2]) <= words, kind.name


def test_every_kind_says_what_it_refuses() -> None:
    """No kind without its rule."""
    assert all(kind.rules for kind in REGISTRY)
