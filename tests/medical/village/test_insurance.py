"""Insurance: two signatures make a product, a calculation settles a claim, a ceiling is spent
once; and every refusal shown.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.adjudication import (
    ClaimAdjudicate,
    ClaimCondition,
    ClaimLine,
    ClaimSubmit,
    LineResult,
    PolicyIssue,
    ProductApprove,
    ProductPublish,
    adjudicate,
    claim_row,
    policy_row,
    product_row,
)
from p2pmed.medical.discrepancies import open_discrepancies
from p2pmed.medical.records import RecordRow
from p2pmed.medical.tables import Table

WANG, LI = bytes([1] * 16), bytes([2] * 16)
COVERED = ["in", ["var", "item"], "consult", "xray"]
FOUR_FIFTHS = ["//", ["*", ["var", "amount"], 80], 100]


@pytest.fixture
def h(hamlet: Any) -> Any:
    return settle(hamlet)


def settle(h: Any) -> Any:
    """An insurer, its hospital, and two clinics."""
    h.join("insurer", "insurer")
    h.join("rival", "insurer")
    h.join("hospital", "hospital")
    h.join("clinic", "clinic", place="county/west")
    h.join("other", "clinic", place="county/east")
    return h


def publish(h: Any, who: str = "insurer", **fields: Any) -> Any:
    body = ProductPublish(
        product="basic",
        version=1,
        insurer=h.key("insurer"),
        hospital=h.key("hospital"),
        conditions=(ClaimCondition(reason="not_covered", rule=COVERED),),
        allowed=FOUR_FIFTHS,
        ceiling=10_000,
        currency="CNY",
        waiting_days=0,
    )
    return h.write(who, msgspec.structs.replace(body, **fields))


def approved(h: Any, **fields: Any) -> bytes:
    product = publish(h, **fields)
    assert product.code == "applied"
    assert h.write("hospital", ProductApprove(product=product.id)).code == "applied"
    return product.id


def issue(h: Any, product: bytes, who: str = "insurer", **fields: Any) -> Any:
    body = PolicyIssue(
        product=product,
        members=(WANG,),
        start=h.time_ms - 10 * h.DAY_MS,
        end=h.time_ms + 10 * h.DAY_MS,
    )
    return h.write(who, msgspec.structs.replace(body, **fields))


def submit(h: Any, policy: bytes, *lines: tuple[str, int], who: str = "clinic", **o: Any) -> Any:
    encounters = o.pop("encounters", None) or (h.encounter(who, WANG),)
    body = ClaimSubmit(
        policy=policy,
        encounters=encounters,
        lines=tuple(ClaimLine(item=i, quantity=1, amount=a) for i, a in lines or (("xray", 100),)),
    )
    return h.write(who, body, **{"subject": WANG, **o})


def settled(h: Any, claim: bytes, who: str = "insurer") -> tuple[str, tuple[LineResult, ...]]:
    right = adjudicate(h.view, claim)
    assert right is not None
    body = ClaimAdjudicate(claim=claim, lines=right.lines)
    return h.write(who, body).code, right.lines


def plain(lines: tuple[LineResult, ...]) -> list[tuple[bool, str, int]]:
    return [(line.passed, line.reason, line.allowed) for line in lines]


def test_a_claim_is_settled_by_the_published_rule(h: Any) -> None:
    """Covered lines get four fifths, others their reason, and the ceiling goes down by the sum."""
    policy = issue(h, approved(h)).id
    claim = submit(h, policy, ("consult", 1_000), ("crown", 5_000), ("xray", 0))
    assert claim.code == "applied"
    code, lines = settled(h, claim.id)
    assert code == "applied"
    assert plain(lines) == [
        (True, "reduced", 800),
        (False, "not_covered", 0),
        (True, "", 0),
    ]
    left, done = policy_row(h.view, policy), claim_row(h.view, claim.id)
    assert left is not None
    assert done is not None
    assert (left.remaining, done.allowed) == (9_200, 800)
    assert h.replay()[0][-1].code != "applied"  # the replay has no encounters: it must notice


def test_either_party_may_sign_the_result_and_nobody_else(h: Any) -> None:
    """The rule is both parties'; a third insurer or the clinic cannot settle."""
    policy = issue(h, approved(h)).id
    claim = submit(h, policy)
    assert settled(h, claim.id, "rival")[0] == "not_the_party"
    assert settled(h, claim.id, "clinic")[0] == "not_the_party"
    assert settled(h, claim.id, "hospital")[0] == "applied"
    assert settled(h, claim.id)[0] == "claim_adjudicated"


def test_a_wrong_result_is_refused(h: Any) -> None:
    """One cent more, a line less, or another reason: not what the rule gives."""
    policy = issue(h, approved(h)).id
    claim = submit(h, policy, ("xray", 100), ("crown", 5))
    right = adjudicate(h.view, claim.id)
    assert right is not None
    more = (msgspec.structs.replace(right.lines[0], allowed=81), right.lines[1])
    other = (right.lines[0], msgspec.structs.replace(right.lines[1], reason="x"))
    for lines in (more, other, right.lines[:1]):
        body = ClaimAdjudicate(claim=claim.id, lines=lines)
        assert h.write("insurer", body).code == "adjudication_wrong"
    unknown = ClaimAdjudicate(claim=bytes(32), lines=right.lines)
    assert h.write("insurer", unknown).code == "claim_unknown"


def test_a_ceiling_is_spent_once_in_order(h: Any) -> None:
    """Two results calculated on the same remainder: the second no longer holds."""
    policy = issue(h, approved(h, ceiling=100)).id
    first, second = submit(h, policy, ("xray", 100)), submit(h, policy, ("xray", 100))
    both = [adjudicate(h.view, claim.id) for claim in (first, second)]
    bodies = [ClaimAdjudicate(claim=c.id, lines=a.lines) for c, a in zip((first, second), both)]
    assert [h.write("insurer", body).code for body in bodies] == ["applied", "adjudication_wrong"]
    code, lines = settled(h, second.id)
    assert (code, plain(lines)) == ("applied", [(True, "ceiling", 20)])
    third = submit(h, policy, ("xray", 1))
    assert plain(settled(h, third.id)[1]) == [(False, "ceiling", 0)]


def test_publishing_refusals(h: Any) -> None:
    """Only the insurer named publishes, a version once, with rules of the language."""
    assert publish(h, who="clinic").code == "role_missing"
    assert publish(h, who="rival").code == "not_the_party"
    assert publish(h).code == "applied"
    assert publish(h, ceiling=1).code == "product_exists"
    for number, bad in enumerate((["rm"], ["var", "diagnosis"], None, ["+", 1])):
        code = publish(h, version=2 + number, allowed=bad).code
        assert code == ("applied" if bad == ["+", 1] else "rule_invalid")
    bad_condition = (ClaimCondition(reason="x", rule=["not"]),)
    assert publish(h, version=9, conditions=bad_condition).code == "rule_invalid"


def test_a_product_counts_when_the_hospital_has_signed(h: Any) -> None:
    """Before that no policy; another's signature does not do; a second changes nothing."""
    product = publish(h).id
    approve = ProductApprove(product=product)
    assert issue(h, product).code == "product_not_cosigned"
    assert h.write("other", approve).code == "not_the_party"
    assert h.write("hospital", ProductApprove(product=bytes(32))).code == "product_unknown"
    assert h.write("hospital", approve).code == "applied"
    assert h.write("hospital", approve).code == "product_approved"
    assert issue(h, product).code == "applied"
    row = product_row(h.view, product)
    assert row is not None
    assert row.approved


def test_policy_refusals(h: Any) -> None:
    """Of a known product, by its insurer, one at a time for each person."""
    product = approved(h)
    assert issue(h, bytes(32)).code == "product_unknown"
    assert issue(h, product, who="rival").code == "not_the_party"
    now, day = h.time_ms, h.DAY_MS
    assert issue(h, product).code == "applied"
    assert issue(h, product, members=(LI, WANG)).code == "policy_exists"
    later = {"start": now + 10 * day, "end": now + 20 * day}
    assert issue(h, product, **later).code == "applied"
    assert issue(h, product, **later).code == "policy_exists"


def test_claim_refusals(h: Any) -> None:
    """Each condition of a claim alone refuses it by its own name."""
    policy = issue(h, approved(h)).id
    assert submit(h, policy, who="insurer").code == "role_missing"
    assert submit(h, bytes(32), actor=bytes(32)).code == "policy_unknown"  # no register
    assert submit(h, bytes(32)).code == "policy_unknown"
    assert submit(h, policy, subject=LI).code == "not_insured"
    assert submit(h, policy, encounters=(bytes(32),)).code == "record_unknown"
    lis = h.encounter("clinic", LI)
    assert submit(h, policy, encounters=(lis,)).code == "reference_mismatch"
    gone = h.encounter("clinic", WANG, retracted=True)
    assert submit(h, policy, encounters=(gone,)).code == "record_retracted"
    others = h.encounter("other", WANG)
    assert submit(h, policy, encounters=(others,)).code == "not_the_author"
    h.time_ms += 10 * h.DAY_MS
    assert submit(h, policy).code == "policy_not_in_force"


def test_an_encounter_is_claimed_once(h: Any) -> None:
    """Again, even by another device of the house, is a discrepancy with the first claim."""
    h.join("tablet", "clinic", place="county/west")
    policy = issue(h, approved(h)).id
    encounter = h.encounter("clinic", WANG)
    first = submit(h, policy, encounters=(encounter,))
    again = submit(h, policy, encounters=(encounter,), who="tablet")
    assert (first.code, again.code, again.other) == ("applied", "claim_exists", first.id)
    assert len(open_discrepancies(h.view)) == 1


def test_a_claim_of_which_nothing_was_paid_may_be_corrected(h: Any) -> None:
    """After a result of nought the encounter is free; after a payment it is not."""
    policy = issue(h, approved(h)).id
    encounter = h.encounter("clinic", WANG)
    first = submit(h, policy, ("crown", 100), encounters=(encounter,))
    settled(h, first.id)
    second = submit(h, policy, ("xray", 100), encounters=(encounter,))
    assert second.code == "applied"
    settled(h, second.id)
    assert submit(h, policy, encounters=(encounter,)).code == "claim_exists"


def test_a_record_retracted_after_the_claim_is_not_paid(h: Any) -> None:
    """Adjudication looks at the encounter again."""
    policy = issue(h, approved(h)).id
    encounter = h.encounter("clinic", WANG)
    claim = submit(h, policy, encounters=(encounter,))
    table = Table("record", RecordRow)
    row = table.get(h.view, encounter)
    assert row is not None
    for change, reason in (
        ({"retracted": True}, "record_retracted"),
        ({"subject": LI}, "reference_mismatch"),
    ):
        table.put(h.view, msgspec.structs.replace(row, **change), encounter)
        right = adjudicate(h.view, claim.id)
        assert right is not None
        assert plain(right.lines) == [(False, reason, 0)]
    table.delete(h.view, encounter)
    right = adjudicate(h.view, claim.id)
    assert right is not None
    assert plain(right.lines) == [(False, "record_unknown", 0)]


def test_the_waiting_period_and_the_term(h: Any) -> None:
    """A claim on the last waiting day gets nothing, the next moment it does; asked for another
    moment the calculation answers for that.
    """
    policy = issue(h, approved(h, waiting_days=10), start=h.time_ms - 10 * h.DAY_MS + 1).id
    early = submit(h, policy)
    h.time_ms += 1
    ripe = submit(h, policy)
    results = [adjudicate(h.view, claim.id) for claim in (early, ripe)]
    assert [r.lines[0].reason for r in results if r] == ["waiting_period", "reduced"]
    late = adjudicate(h.view, ripe.id, h.time_ms + 100 * h.DAY_MS)
    assert late is not None
    assert late.lines[0].reason == "policy_not_in_force"
    assert adjudicate(h.view, bytes(32)) is None


def test_a_rule_that_fails_pays_nothing_and_says_why(h: Any) -> None:
    """Division by zero, a wrong type, an overflow, a spent budget: each has its reason."""
    rules = {
        "rule_division": ["//", 1, ["-", ["var", "amount"], ["var", "amount"]]],
        "rule_type": ["var", "item"],
        "rule_overflow": ["*", 2**62, 4],
        "rule_name": ["at", ["var", "lines"], 7],
    }
    for version, (reason, rule) in enumerate(rules.items(), 2):
        policy = issue(h, approved(h, version=version, allowed=rule)).id
        claim = submit(h, policy)
        assert plain(settled(h, claim.id)[1]) == [(False, reason, 0)]
    unsure = (ClaimCondition(reason="x", rule=1),)
    policy = issue(h, approved(h, version=9, conditions=unsure)).id
    assert plain(settled(h, submit(h, policy).id)[1]) == [(False, "rule_type", 0)]


@pytest.mark.parametrize("wish", [-5, 10**9])
def test_no_rule_pays_less_than_nothing_or_more_than_claimed(h: Any, wish: int) -> None:
    """What the product allows is cut to between nought and the line's amount."""
    policy = issue(h, approved(h, allowed=wish)).id
    ((passed, _, allowed),) = plain(settled(h, submit(h, policy, ("xray", 70)).id)[1])
    assert (passed, allowed) == (True, max(0, min(wish, 70)))


def test_a_rule_sees_the_line_and_the_claim(h: Any) -> None:
    """Quantity, number, total, day, ceiling and remainder are the claim's own."""
    rule = [
        "+",
        ["var", "line"],
        ["*", 10, ["var", "quantity"]],
        ["*", 100, ["var", "day"]],
        ["-", ["var", "ceiling"], ["var", "remaining"]],
        ["-", ["var", "total"], ["sum", ["var", "lines"], "l", ["at", ["var", "l"], 2]]],
    ]
    policy = issue(h, approved(h, allowed=rule)).id
    claim = submit(h, policy, ("xray", 5_000), ("consult", 5_000))
    lines = settled(h, claim.id)[1]
    assert [line.allowed for line in lines] == [1_010, 1_010 + 1 + 1_010]


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("end", lambda: PolicyIssue(product=bytes(32), members=(WANG,), start=1, end=1)),
        ("members", lambda: PolicyIssue(product=bytes(32), members=(WANG,) * 2, start=1, end=2)),
        (
            "encounters",
            lambda: ClaimSubmit(policy=bytes(32), encounters=(bytes(32),) * 2, lines=()),
        ),
    ],
)
def test_a_wrong_field_is_named_when_the_body_is_made(field: str, make: Any) -> None:
    """Empty terms and doubled names are refused before anything is signed."""
    with pytest.raises(InvalidTransaction, match=field):
        make()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    amounts=st.lists(
        st.lists(st.integers(0, 5_000), min_size=1, max_size=4), min_size=1, max_size=6
    ),
    ceiling=st.integers(0, 10_000),
)
def test_a_ceiling_is_never_overspent(
    new_hamlet: Any, amounts: list[list[int]], ceiling: int
) -> None:
    """Whatever is claimed: what was allowed and what remains add up to the ceiling."""
    h = settle(new_hamlet())
    policy = issue(h, approved(h, ceiling=ceiling)).id
    paid = 0
    for lines in amounts:
        claim = submit(h, policy, *(("xray", amount) for amount in lines))
        code, results = settled(h, claim.id)
        assert code == "applied"
        paid += sum(result.allowed for result in results)
    row = policy_row(h.view, policy)
    assert row is not None
    assert row.remaining == ceiling - paid >= 0
