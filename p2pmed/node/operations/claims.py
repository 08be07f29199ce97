"""Insurance: products and their rules, policies, claims and what they come to.

Money is in the currency's minor unit throughout, as in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import hexdigits
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.ledger.state import Readable
from p2pmed.medical.adjudication import (
    CLAIMS,
    POLICIES,
    PRODUCTS,
    RULE_INPUTS,
    ClaimAdjudicate,
    ClaimCondition,
    ClaimLine,
    ClaimRow,
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
from p2pmed.medical.fields import DAY_MS
from p2pmed.medical.records import RECORDS
from p2pmed.medical.rules import check_rule
from p2pmed.medical.tables import Table
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.lookup import (
    built,
    calendar_day,
    day_text,
    describe_device,
    find_device,
    find_one,
    find_patient,
    submitted,
)

__all__ = ["OPERATIONS", "claim_line"]

HINT: Final = "see `p2pmed claim show`"
PRODUCT_FIELDS: Final = (
    "product",
    "version",
    "hospital",
    "conditions",
    "allowed",
    "ceiling",
    "currency",
    "waiting_days",
)


async def product(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Publish an insurance product: ``terms`` as a JSON object, this device the insurer."""
    terms = arguments.object("terms")
    unknown = sorted(set(terms) - set(PRODUCT_FIELDS))
    if unknown:
        raise ConfigError(f"no field {unknown[0]!r}; there are {', '.join(PRODUCT_FIELDS)}")
    fields = Arguments(terms)
    conditions = tuple(_condition(item) for item in _conditions(terms))
    check_rule(terms.get("allowed"), RULE_INPUTS)
    hospital = find_device(node, fields.text("hospital"))
    body = built(
        lambda: ProductPublish(
            product=fields.text("product"),
            version=fields.number("version", 1),
            insurer=node.key,
            hospital=hospital,
            conditions=conditions,
            allowed=terms.get("allowed"),
            ceiling=fields.number("ceiling"),
            currency=fields.text("currency"),
            waiting_days=fields.number("waiting_days", 0),
        )
    )
    answer = await submitted(node, arguments, body)
    return {"product": answer["id"], **answer}


def _conditions(terms: Mapping[str, Any]) -> list[Any]:
    found = terms.get("conditions", [])
    if not isinstance(found, list):
        raise ConfigError("conditions: a list is needed")
    return found


def _condition(item: Any) -> ClaimCondition:
    if not isinstance(item, dict) or set(item) != {"reason", "rule"}:
        raise ConfigError('conditions: each is an object with "reason" and "rule"')
    check_rule(item["rule"], RULE_INPUTS)
    return ClaimCondition(reason=Arguments(item).text("reason"), rule=item["rule"])


async def approve(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The hospital signs a product's rules too."""
    wanted = _one(node.state(), PRODUCTS, arguments.text("product"), "product")
    return await submitted(node, arguments, ProductApprove(product=wanted), refs=[wanted])


async def policy(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Insure people, from the day ``start`` up to and with the day ``end``."""
    state = node.state()
    wanted = _one(state, PRODUCTS, arguments.text("product"), "product")
    members = tuple(find_patient(node, text) for text in arguments.texts("members", count_max=64))
    start = calendar_day(arguments.text("start"), "start") * DAY_MS
    end = (calendar_day(arguments.text("end"), "end") + 1) * DAY_MS
    body = built(lambda: PolicyIssue(product=wanted, members=members, start=start, end=end))
    row = product_row(state, wanted)
    refs = [wanted, row.approved if row else b""]
    answer = await submitted(node, arguments, body, refs=refs)
    return {"policy": answer["id"], **answer}


async def submit(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Claim ``lines`` (item, quantity, amount) given to a patient in ``encounters``."""
    state = node.state()
    patient = find_patient(node, arguments.text("patient"))
    wanted = _one(state, POLICIES, arguments.text("policy"), "policy")
    texts = arguments.texts("encounters", count_max=16)
    encounters = tuple(_one(state, RECORDS, text, "record") for text in texts)
    lines = tuple(map(claim_line, arguments.texts("lines", count_max=100)))
    body = built(lambda: ClaimSubmit(policy=wanted, encounters=encounters, lines=lines))
    refs = [*node.patients.refs(patient), wanted, *encounters]
    answer = await submitted(node, arguments, body, patient=patient, refs=refs)
    return {"claim": answer["id"], **answer, "total": sum(line.amount for line in lines)}


def claim_line(text: str) -> ClaimLine:
    """``item:quantity:amount``."""
    item, _, rest = text.rpartition(":")
    item, _, quantity = item.rpartition(":")
    if not item or not quantity.isdecimal() or not rest.isdecimal():
        raise ConfigError(
            f"{text[:80]!r} is no line of a claim",
            hint="write ITEM:QUANTITY:AMOUNT, the amount in minor units",
        )
    return ClaimLine(item=item, quantity=int(quantity), amount=int(rest))


async def settle(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Sign what the published rule gives for a claim."""
    state = node.state()
    wanted = _one(state, CLAIMS, arguments.text("claim"), "claim")
    right = adjudicate(state, wanted)
    if right is None:
        raise ConfigError("the claim's policy or product is not known here")
    body = ClaimAdjudicate(claim=wanted, lines=right.lines)
    answer = await submitted(node, arguments, body, refs=[wanted])
    row = claim_row(state, wanted)
    lines = _results(row, right.lines) if row else []
    return {**answer, "allowed": right.total, "currency": right.currency, "lines": lines}


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One claim with its lines; or, without one, all products, policies and claims."""
    state = node.state()
    text = arguments.text("claim", None)
    if text is None:
        return {
            "products": [_product(state, key) for key, _ in PRODUCTS.scan(state)],
            "policies": [_policy(state, key) for key, _ in POLICIES.scan(state)],
            "claims": [_claim(node, state, key, row) for key, row in CLAIMS.scan(state)],
        }
    wanted = _one(state, CLAIMS, text, "claim")
    row = claim_row(state, wanted)
    assert row is not None  # it was found in the table
    calculated = adjudicate(state, wanted)
    results = row.results if row.adjudicated else calculated.lines if calculated else ()
    return {**_claim(node, state, wanted, row), "lines": _results(row, results)}


def _results(row: ClaimRow, results: tuple[LineResult, ...]) -> list[dict[str, Any]]:
    return [
        {
            "item": line.item,
            "quantity": line.quantity,
            "amount": line.amount,
            "allowed": result.allowed,
            "reason": result.reason or None,
        }
        for line, result in zip(row.body.lines, results, strict=False)
    ]


def _product(state: Readable, key: bytes) -> dict[str, Any]:
    row = product_row(state, key)
    assert row is not None  # it comes from the table
    terms = row.terms
    return {
        "product": key.hex(),
        "name": terms.product,
        "version": terms.version,
        "insurer": describe_device(state, terms.insurer),
        "hospital": describe_device(state, terms.hospital),
        "approved": bool(row.approved),
        "ceiling": terms.ceiling,
        "currency": terms.currency,
    }


def _policy(state: Readable, key: bytes) -> dict[str, Any]:
    row = policy_row(state, key)
    assert row is not None  # it comes from the table
    return {
        "policy": key.hex(),
        "product": row.product.hex(),
        "members": [member.hex() for member in row.members],
        "start": day_text(max(row.start, 0) // DAY_MS),
        "end": day_text(max(row.end - 1, 0) // DAY_MS),
        "remaining": row.remaining,
    }


def _claim(node: Node, state: Readable, key: bytes, row: ClaimRow) -> dict[str, Any]:
    return {
        "claim": key.hex(),
        "patient": row.subject.hex(),
        "by": describe_device(state, row.author),
        "policy": row.body.policy.hex(),
        "encounters": [encounter.hex() for encounter in row.body.encounters],
        "total": sum(line.amount for line in row.body.lines),
        "adjudicated": bool(row.adjudicated),
        "allowed": row.allowed if row.adjudicated else None,
        "level": node.receipt(key).level if node.find(key) else None,
    }


def _one(state: Readable, table: Table[Any], text: str, what: str) -> bytes:
    """The row of ``table`` whose id begins with ``text``."""
    hint = "see `p2pmed patient timeline`" if what == "record" else HINT
    digits = text.strip()[: len(text.strip()) & ~1]
    start = bytes.fromhex(digits) if set(digits) <= set(hexdigits) else b""
    return find_one((start + key for key, _ in table.scan(state, start)), text, what, hint)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "claim.product": product,
    "claim.approve": approve,
    "claim.policy": policy,
    "claim.submit": submit,
    "claim.adjudicate": settle,
    "claim.show": show,
}
