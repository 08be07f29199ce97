"""Insurance settled by a rule that insurer and hospital published together.

Rule: a product counts when its insurer published it and its hospital approved it. A claim
refers to encounters in the ledger, and its adjudication is a calculation (``adjudication.py``):
a ``claim.adjudicate`` that says otherwise is refused. A ceiling is spent once, in the order of
the ledger. Medical notes, section 1, row 8.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from p2pmed.errors import InvalidTransaction
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.adjudication import (
    CLAIMED,
    CLAIMS,
    COVERS,
    POLICIES,
    PRODUCT_NAMES,
    PRODUCTS,
    RULE_INPUTS,
    ClaimAdjudicate,
    ClaimRow,
    ClaimSubmit,
    CoverRow,
    NamedRow,
    PolicyIssue,
    PolicyRow,
    ProductApprove,
    ProductPublish,
    ProductRow,
    adjudicate,
    claim_row,
    policy_row,
    product_row,
)
from p2pmed.medical.membership import member
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.records import record_row
from p2pmed.medical.registry import Act, Checked, Kind, Refusal
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS, Role, roles
from p2pmed.medical.rules import check_rule

__all__ = ["KINDS"]

COVERS_MAX: Final = 16
"""Policies of one product that one person may have at present and to come."""
CLAIM_SCOPE: Final = "claim"


# --- products and policies -----------------------------------------------------------------


def _product_name(body: ProductPublish) -> tuple[bytes, ...]:
    return body.insurer, body.version.to_bytes(4, "big"), body.product.encode("ascii")


def _check_publish(act: Act[ProductPublish], view: View) -> Checked:
    body = act.body
    if body.insurer != act.entry.author:
        return Rejection.NOT_THE_PARTY
    if PRODUCT_NAMES.get(view, *_product_name(body)) is not None:
        return Rejection.PRODUCT_EXISTS
    try:
        for condition in body.conditions:
            check_rule(condition.rule, RULE_INPUTS)
        check_rule(body.allowed, RULE_INPUTS)
    except InvalidTransaction:
        return Rejection.RULE_INVALID
    return None


def _apply_publish(act: Act[ProductPublish], view: View) -> None:
    PRODUCT_NAMES.put(view, NamedRow(id=act.entry.id), *_product_name(act.body))
    PRODUCTS.put(view, ProductRow(terms=act.body, approved=b""), act.entry.id)


def _check_approve(act: Act[ProductApprove], view: View) -> Checked:
    row = product_row(view, act.body.product)
    if row is None:
        return Rejection.PRODUCT_UNKNOWN
    if row.terms.hospital != act.entry.author:
        return Rejection.NOT_THE_PARTY
    return Rejection.PRODUCT_APPROVED if row.approved else None


def _apply_approve(act: Act[ProductApprove], view: View) -> None:
    row = product_row(view, act.body.product)
    assert row is not None  # the check has read it
    approved = msgspec.structs.replace(row, approved=act.entry.id)
    PRODUCTS.put(view, approved, act.body.product)


def _check_policy(act: Act[PolicyIssue], view: View) -> Checked:
    body = act.body
    product = product_row(view, body.product)
    if product is None:
        return Rejection.PRODUCT_UNKNOWN
    if product.terms.insurer != act.entry.author:
        return Rejection.NOT_THE_PARTY
    if not product.approved:
        return Rejection.PRODUCT_NOT_COSIGNED
    for patient in body.members:
        periods = _periods(view, body.product, patient, act.context.time_ms)
        overlap = any(body.start < end and start < body.end for start, end in periods)
        if overlap or len(periods) >= COVERS_MAX:
            return Rejection.POLICY_EXISTS
    return None


def _periods(
    view: Readable, product: bytes, patient: bytes, time_ms: int
) -> tuple[tuple[int, int], ...]:
    """A person's terms of a product that have not ended."""
    row = COVERS.get(view, product, patient)
    return tuple(term for term in row.periods if term[1] > time_ms) if row else ()


def _apply_policy(act: Act[PolicyIssue], view: View) -> None:
    body = act.body
    product = product_row(view, body.product)
    assert product is not None  # the check has read it
    for patient in body.members:
        periods = _periods(view, body.product, patient, act.context.time_ms)
        cover = CoverRow(periods=(*periods, (body.start, body.end)))
        COVERS.put(view, cover, body.product, patient)
    row = PolicyRow(
        product=body.product,
        members=body.members,
        start=body.start,
        end=body.end,
        remaining=product.terms.ceiling,
    )
    POLICIES.put(view, row, act.entry.id)


# --- claims --------------------------------------------------------------------------------


def _check_submit(act: Act[ClaimSubmit], view: View) -> Checked:
    envelope, now = act.entry.envelope, act.context.time_ms
    if envelope.actor:
        unfit = qualified(view, envelope.actor, CLAIM_SCOPE, now)
        if unfit is not None:
            return unfit
    policy = policy_row(view, act.body.policy)
    if policy is None:
        return Rejection.POLICY_UNKNOWN
    if envelope.subject not in policy.members:
        return Rejection.NOT_INSURED
    if not policy.start <= now < policy.end:
        return Rejection.POLICY_NOT_IN_FORCE
    for encounter in act.body.encounters:
        no = _encounter_fault(act, view, encounter)
        if no is not None:
            return no
    return None


def _encounter_fault(act: Act[ClaimSubmit], view: View, encounter: bytes) -> Checked:
    """Why this encounter cannot be claimed by this author, or not again."""
    record = record_row(view, encounter)
    if record is None:
        return Rejection.RECORD_UNKNOWN
    if record.subject != act.entry.envelope.subject:
        return Rejection.REFERENCE_MISMATCH
    if record.retracted:
        return Rejection.RECORD_RETRACTED
    if not _same_facility(act, view, record.author):
        return Rejection.NOT_THE_AUTHOR
    earlier = CLAIMED.get(view, encounter, act.body.policy)
    if earlier is not None:
        claim = claim_row(view, earlier.id)
        spent = claim is None or not claim.adjudicated or claim.allowed > 0
        if spent:  # a claim of which nothing was paid may be made again, corrected
            return Refusal(reason=Rejection.CLAIM_EXISTS, other=earlier.id)
    return None


def _same_facility(act: Act[ClaimSubmit], view: View, device: bytes) -> bool:
    """Whether the claim comes from the device that wrote the record, or from its house."""
    if device == act.entry.author:
        return True
    known = member(view, device)
    return known is not None and bool(known.place) and known.place == act.member.place


def _apply_submit(act: Act[ClaimSubmit], view: View) -> None:
    row = ClaimRow(
        body=act.body,
        subject=act.entry.envelope.subject,
        author=act.entry.author,
        time=act.context.time_ms,
        adjudicated=b"",
        results=(),
    )
    CLAIMS.put(view, row, act.entry.id)
    for encounter in act.body.encounters:
        CLAIMED.put(view, NamedRow(id=act.entry.id), encounter, act.body.policy)


def _check_adjudicate(act: Act[ClaimAdjudicate], view: View) -> Checked:
    row = claim_row(view, act.body.claim)
    if row is None:
        return Rejection.CLAIM_UNKNOWN
    if act.entry.author not in _parties(view, row):
        return Rejection.NOT_THE_PARTY
    if row.adjudicated:
        return Rejection.CLAIM_ADJUDICATED
    right = adjudicate(view, act.body.claim)
    if right is None or right.lines != act.body.lines:
        return Rejection.ADJUDICATION_WRONG
    return None


def _parties(view: Readable, row: ClaimRow) -> tuple[bytes, ...]:
    """Who may sign an adjudication: the two that published the rule."""
    policy = policy_row(view, row.body.policy)
    product = product_row(view, policy.product) if policy else None
    return (product.terms.insurer, product.terms.hospital) if product else ()


def _apply_adjudicate(act: Act[ClaimAdjudicate], view: View) -> None:
    body = act.body
    row = claim_row(view, body.claim)
    assert row is not None  # the check has read it
    policy = policy_row(view, row.body.policy)
    assert policy is not None
    done = msgspec.structs.replace(row, adjudicated=act.entry.id, results=body.lines)
    CLAIMS.put(view, done, body.claim)
    # Compared with the calculation, which never allows more than remains.
    left = msgspec.structs.replace(policy, remaining=policy.remaining - done.allowed)
    POLICIES.put(view, left, row.body.policy)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="product.publish",
        body=ProductPublish,
        check=_check_publish,
        apply=_apply_publish,
        roles=roles(Role.INSURER),
        rules="Refused `not_the_party` unless the author is the insurer named, `product_exists` "
        "for a version published before, `rule_invalid`. Of no effect until approved.",
    ),
    Kind(
        name="product.approve",
        body=ProductApprove,
        check=_check_approve,
        apply=_apply_approve,
        roles=CARERS | roles(Role.COUNTY),
        rules="Refused `product_unknown`, `not_the_party` unless the author is the hospital named, "
        "`product_approved`.",
    ),
    Kind(
        name="policy.issue",
        body=PolicyIssue,
        check=_check_policy,
        apply=_apply_policy,
        roles=roles(Role.INSURER),
        rules="Refused `product_unknown`, `not_the_party`, `product_not_cosigned`, "
        "`policy_exists` if a member has an overlapping policy of this product.",
    ),
    Kind(
        name="claim.submit",
        body=ClaimSubmit,
        check=_check_submit,
        apply=_apply_submit,
        roles=CARERS | roles(Role.COUNTY),
        rules="Refused for the acting person's qualification (scope `claim`), `policy_unknown`, "
        "`not_insured`, `policy_not_in_force` by block time, and for an encounter "
        "`record_unknown`, `reference_mismatch` (another patient's), `record_retracted`, "
        "`not_the_author` (another facility's), `claim_exists` (a discrepancy).",
    ),
    Kind(
        name="claim.adjudicate",
        body=ClaimAdjudicate,
        check=_check_adjudicate,
        apply=_apply_adjudicate,
        roles=CARERS | roles(Role.INSURER, Role.COUNTY),
        rules="Refused `claim_unknown`, `not_the_party` unless the author published or approved "
        "the product, `claim_adjudicated`, `adjudication_wrong` if the rule gives another "
        "result on the state at this place in the order.",
    ),
)
