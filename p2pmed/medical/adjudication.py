"""Insurance: its bodies, its rows, and the calculation that every node repeats.

Rule: ``adjudicate`` reads the state and calculates; the same state and claim give the same
result everywhere.

A line meets, in this order: is the encounter still good, is the policy in force and its waiting
period over, is anything left of the ceiling, does each condition of the product hold (the first
that does not names the reason), and what does the product allow. The amount allowed is never
more than was claimed or than is left. A rule that fails to calculate pays nothing and says why.

Time is the block time of the claim, so that insurer and hospital, who adjudicate later and at
different moments, calculate the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import Readable
from p2pmed.medical.fields import DAY_MS, Amount, Code, Currency, FieldFault, Pseudonym
from p2pmed.medical.records import record_row
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.rules import RuleFault, Tree, evaluate
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, OptionalId, TimeMs, Wire

__all__ = [
    "CLAIMED",
    "CLAIMS",
    "COVERS",
    "POLICIES",
    "PRODUCTS",
    "PRODUCT_NAMES",
    "RULE_INPUTS",
    "Adjudication",
    "ClaimAdjudicate",
    "ClaimCondition",
    "ClaimLine",
    "ClaimRow",
    "ClaimSubmit",
    "CoverRow",
    "LineResult",
    "NamedRow",
    "PolicyIssue",
    "PolicyRow",
    "ProductApprove",
    "ProductPublish",
    "ProductRow",
    "adjudicate",
    "claim_row",
    "policy_row",
    "product_row",
]

CONDITIONS_MAX: Final = 16
MEMBERS_MAX: Final = 64
LINES_MAX: Final = 100
ENCOUNTERS_MAX: Final = 16
RULE_STEPS_MAX: Final = 1_000
"""For one rule and line: a sum over 100 lines fits; 100 lines of 17 such
rules take about a second."""

RULE_INPUTS: Final = frozenset(
    {"amount", "ceiling", "day", "item", "line", "lines", "quantity", "remaining", "total"}
)
"""What a rule may look at: the line's item, quantity, amount and number; all lines as
``[item, quantity, amount]`` and their total; the policy's ceiling and what remains of it before
this line; whole days since the policy began."""


class ClaimCondition(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A line passes only if ``rule`` gives true; else it is refused for ``reason``."""

    reason: Code
    rule: Tree


class ProductPublish(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``product.publish``: the insurer offers this, to be treated at this hospital."""

    product: Code
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    insurer: Bytes32
    hospital: Bytes32
    conditions: Annotated[tuple[ClaimCondition, ...], msgspec.Meta(max_length=CONDITIONS_MAX)]
    allowed: Tree
    """What is paid for a line that passes, in minor units."""
    ceiling: Amount
    """Of one policy, in its whole term."""
    currency: Currency
    waiting_days: Annotated[int, msgspec.Meta(ge=0, le=3_660)]


class ProductApprove(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``product.approve``: the hospital signs the same rules."""

    product: Bytes32


class PolicyIssue(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``policy.issue``: these people are insured, from ``start`` until before ``end``."""

    product: Bytes32
    members: Annotated[tuple[Pseudonym, ...], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    start: TimeMs
    end: TimeMs

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise FieldFault("end: not after start")
        if len(set(self.members)) < len(self.members):
            raise FieldFault("members: one stands twice")


class ClaimLine(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One item or service; ``amount`` is for the whole line, in minor units."""

    item: Code
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    amount: Amount


class ClaimSubmit(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``claim.submit``: pay for these lines, given in these encounters, under this policy."""

    policy: Bytes32
    encounters: Annotated[
        tuple[Bytes32, ...], msgspec.Meta(min_length=1, max_length=ENCOUNTERS_MAX)
    ]
    lines: Annotated[tuple[ClaimLine, ...], msgspec.Meta(min_length=1, max_length=LINES_MAX)]

    def __post_init__(self) -> None:
        if len(set(self.encounters)) < len(self.encounters):
            raise FieldFault("encounters: one stands twice")


class LineResult(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of a line; ``reason`` is empty where it was paid in full."""

    passed: bool
    reason: Annotated[str, msgspec.Meta(max_length=64)]
    allowed: Amount


class ClaimAdjudicate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``claim.adjudicate``: the calculated result, signed by a party of the product."""

    claim: Bytes32
    lines: Annotated[tuple[LineResult, ...], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class ProductRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A product; usable when ``approved`` is not empty."""

    terms: ProductPublish
    approved: OptionalId


class PolicyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A policy and what is left of its ceiling."""

    product: Bytes32
    members: tuple[Pseudonym, ...]
    start: TimeMs
    end: TimeMs
    remaining: Amount


class ClaimRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A claim as it stands."""

    body: ClaimSubmit
    subject: Pseudonym
    author: Bytes32
    time: TimeMs
    """Block time when it was submitted."""
    adjudicated: OptionalId
    results: tuple[LineResult, ...]

    @property
    def allowed(self) -> int:
        """What was allowed in all, in minor units."""
        return sum(line.allowed for line in self.results)


class NamedRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An index row: the transaction that its key leads to."""

    id: Bytes32


class CoverRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Start and end of the policies that a person has of a product."""

    periods: tuple[tuple[TimeMs, TimeMs], ...]


class Adjudication(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What ``adjudicate`` calculates."""

    lines: tuple[LineResult, ...]
    total: Amount
    currency: Currency


PRODUCTS: Final = Table("product", ProductRow)
PRODUCT_NAMES: Final = Table("product_name", NamedRow)
POLICIES: Final = Table("policy", PolicyRow)
COVERS: Final = Table("cover", CoverRow)
CLAIMS: Final = Table("claim", ClaimRow)
CLAIMED: Final = Table("claimed", NamedRow)


def product_row(view: Readable, product: bytes) -> ProductRow | None:
    """The product that this ``product.publish`` transaction published."""
    return PRODUCTS.get(view, product)


def policy_row(view: Readable, policy: bytes) -> PolicyRow | None:
    """The policy that this ``policy.issue`` transaction issued."""
    return POLICIES.get(view, policy)


def claim_row(view: Readable, claim: bytes) -> ClaimRow | None:
    """The claim that this ``claim.submit`` transaction made."""
    return CLAIMS.get(view, claim)


# --- adjudication --------------------------------------------------------------------------


def adjudicate(view: Readable, claim: bytes, time_ms: int | None = None) -> Adjudication | None:
    """What the published rule gives for a claim, on the state as it is; ``None`` if unknown.

    ``time_ms`` is the moment at which it is judged; left out, the block time of the claim, which
    is what the ledger compares with.
    """
    row = CLAIMS.get(view, claim)
    policy = POLICIES.get(view, row.body.policy) if row else None
    product = PRODUCTS.get(view, policy.product) if policy else None
    if row is None or policy is None or product is None:
        return None
    terms = product.terms
    moment = row.time if time_ms is None else time_ms
    refused = _claim_fault(view, row, policy, terms, moment)
    results: list[LineResult] = []
    remaining = policy.remaining
    inputs = _claim_inputs(row, policy, terms, moment)
    for number, line in enumerate(row.body.lines):
        if refused:
            result = LineResult(passed=False, reason=refused, allowed=0)
        else:
            result = _line(line, {**inputs, "line": number, "remaining": remaining}, terms)
        remaining -= result.allowed
        results.append(result)
    total = policy.remaining - remaining
    return Adjudication(lines=tuple(results), total=total, currency=terms.currency)


def _claim_fault(
    view: Readable, row: ClaimRow, policy: PolicyRow, terms: ProductPublish, moment: int
) -> str:
    """Why no line can pass; empty if some may."""
    for encounter in row.body.encounters:
        record = record_row(view, encounter)
        if record is None:
            return Rejection.RECORD_UNKNOWN.value
        if record.subject != row.subject:
            return Rejection.REFERENCE_MISMATCH.value
        if record.retracted:
            return Rejection.RECORD_RETRACTED.value
    if not policy.start <= moment < policy.end:
        return Rejection.POLICY_NOT_IN_FORCE.value
    return "waiting_period" if moment < policy.start + terms.waiting_days * DAY_MS else ""


def _claim_inputs(
    row: ClaimRow, policy: PolicyRow, terms: ProductPublish, moment: int
) -> dict[str, Any]:
    lines = row.body.lines
    return {
        "ceiling": terms.ceiling,
        "day": (moment - policy.start) // DAY_MS,
        "lines": tuple((line.item, line.quantity, line.amount) for line in lines),
        "total": sum(line.amount for line in lines),
    }


def _line(line: ClaimLine, inputs: dict[str, Any], terms: ProductPublish) -> LineResult:
    """One line against the rule."""
    remaining: int = inputs["remaining"]
    if remaining == 0:
        return LineResult(passed=False, reason="ceiling", allowed=0)
    scope = {**inputs, "item": line.item, "quantity": line.quantity, "amount": line.amount}
    for condition in terms.conditions:
        holds = evaluate(condition.rule, scope, RULE_STEPS_MAX)
        if holds is False:
            return LineResult(passed=False, reason=condition.reason, allowed=0)
        if holds is not True:
            return _faulty(holds)
    allowed = evaluate(terms.allowed, scope, RULE_STEPS_MAX)
    if type(allowed) is not int:
        return _faulty(allowed)
    fair = max(0, min(allowed, line.amount))
    paid = min(fair, remaining)
    reason = "ceiling" if paid < fair else "reduced" if paid < line.amount else ""
    return LineResult(passed=True, reason=reason, allowed=paid)


def _faulty(value: object) -> LineResult:
    fault = value if isinstance(value, RuleFault) else RuleFault.TYPE
    return LineResult(passed=False, reason=f"rule_{fault.value}", allowed=0)
