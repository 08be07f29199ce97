"""Insurance by operation: published, approved, insured, claimed, settled."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import ConfigError, InvalidTransaction
from p2pmed.node.operations.claims import claim_line

TERMS = {
    "product": "basic",
    "version": 1,
    "hospital": "County hospital",
    "conditions": [{"reason": "not_covered", "rule": ["in", ["var", "item"], "consult", "xray"]}],
    "allowed": ["//", ["*", ["var", "amount"], 8], 10],
    "ceiling": 10_000,
    "currency": "CNY",
    "waiting_days": 0,
}
VISIT = '{"resourceType":"Encounter","status":"finished","class":{"code":"AMB"}}'


async def test_a_claim_is_settled_by_the_rule_both_published(
    opened: Any, ask: Any, carry: Any
) -> None:
    """Four fifths of what is covered; the ceiling goes down, and the other party sees it too."""
    insurer = await opened("Good Insurance", "insurer")
    hospital = await opened("County hospital", "hospital")
    both = (insurer, hospital)
    await carry(*both)
    product = (await ask(insurer, "claim.product", terms=TERMS))["product"]
    await carry(*both)
    patient = (await ask(hospital, "patient.register", family="Wang"))["patient"]
    visit = (await ask(hospital, "patient.add", patient=patient, fhir=VISIT))["id"]
    assert (await ask(hospital, "claim.approve", product=product[:8]))["verdict"] == "applied"
    await carry(*both)
    term = {"start": "2020-01-01", "end": "2099-12-31"}
    policy = await ask(insurer, "claim.policy", product=product, members=[patient], **term)
    assert policy["verdict"] == "applied"
    await carry(*both)
    lines = ["consult:1:1000", "crown:1:5000"]
    values = {"patient": patient, "policy": policy["policy"], "encounters": [visit[:9]]}
    claim = await ask(hospital, "claim.submit", **values, lines=lines)
    assert (claim["verdict"], claim["total"]) == ("applied", 6_000)
    shown = await ask(hospital, "claim.show", claim=claim["claim"])
    assert (shown["adjudicated"], [line["allowed"] for line in shown["lines"]]) == (False, [800, 0])
    await carry(*both)
    settled = await ask(insurer, "claim.adjudicate", claim=claim["claim"])
    assert (settled["verdict"], settled["allowed"], settled["currency"]) == ("applied", 800, "CNY")
    assert [line["reason"] for line in settled["lines"]] == ["reduced", "not_covered"]
    await carry(*both)
    for node in both:
        everything = await ask(node, "claim.show")
        assert [row["remaining"] for row in everything["policies"]] == [9_200]
        assert [(row["adjudicated"], row["allowed"]) for row in everything["claims"]] == [
            (True, 800)
        ]
        assert everything["products"][0]["approved"]
    again = await ask(hospital, "claim.submit", **values, lines=lines)
    assert (again["verdict"], again["contradicts"]) == ("claim_exists", claim["claim"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "no field 'colour'"),
    ({"allowed": ["magic"]}, "rule at"),
    ({"conditions": [{"rule": True}]}, "conditions"),
    ({"conditions": "none"}, "conditions"),
    ({"currency": "yuan"}, "currency"),
    ({"ceiling": -1}, "ceiling"),
    ({"hospital": "nobody"}, "no member is called"),
]


async def test_wrong_terms_are_named_and_not_published(opened: Any, ask: Any) -> None:
    """The field is named; nothing is written."""
    insurer = await opened("County hospital", "insurer")
    for change, sentence in WRONG:
        with pytest.raises((ConfigError, InvalidTransaction), match=sentence):
            await ask(insurer, "claim.product", terms={**TERMS, **change})
    assert not (await ask(insurer, "claim.show"))["products"]


@pytest.mark.parametrize("line", ["consult", "consult:1", "consult:x:1", ":1:1", "consult:1:-5"])
def test_a_line_that_is_none_is_shown_how(line: str) -> None:
    """``ITEM:QUANTITY:AMOUNT`` or a sentence that says so."""
    with pytest.raises(ConfigError, match="no line of a claim"):
        claim_line(line)
