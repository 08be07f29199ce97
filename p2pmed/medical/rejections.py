"""Why a rule says no: named, and ranked by which reason is told when several hold.

Earlier names outrank later ones: who may speak at all, then what the words refer to, then
what the words want. A check returns the first that applies in this order.
The names are part of the protocol: one is added, never changed or reused.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Rejection"]


class Rejection(StrEnum):
    """A refusal; the value is what verdicts, exports and screens carry."""

    # who may speak
    UNKNOWN_TYPE = "unknown_type"
    MALFORMED = "malformed"
    CARRIED = "carried"
    """Not a refusal of the fact: it was written for another ledger, which executes it."""
    AUTHOR_UNKNOWN = "author_unknown"
    AUTHOR_REVOKED = "author_revoked"
    ROLE_MISSING = "role_missing"
    QUALIFICATION_MISSING = "qualification_missing"
    QUALIFICATION_SUSPENDED = "qualification_suspended"
    QUALIFICATION_EXPIRED = "qualification_expired"
    # what the words refer to
    REFERENCE_MISSING = "reference_missing"
    REFERENCE_MISMATCH = "reference_mismatch"
    PATIENT_UNKNOWN = "patient_unknown"
    PATIENT_EXISTS = "patient_exists"
    RECORD_UNKNOWN = "record_unknown"
    RECORD_RETRACTED = "record_retracted"
    NOT_THE_AUTHOR = "not_the_author"
    GRANT_UNKNOWN = "grant_unknown"
    MEMBER_UNKNOWN = "member_unknown"
    ISSUER_NOT_ABOVE = "issuer_not_above"
    # drugs
    UNIT_UNKNOWN = "unit_unknown"
    UNIT_EXISTS = "unit_exists"
    UNIT_NOT_HELD = "unit_not_held"
    UNIT_IN_TRANSIT = "unit_in_transit"
    SHIPMENT_UNKNOWN = "shipment_unknown"
    SHIPMENT_RECEIVED = "shipment_received"
    SHIPMENT_NOT_FOR_US = "shipment_not_for_us"
    UNIT_DISPENSED = "unit_dispensed"
    LOT_UNKNOWN = "lot_unknown"
    LOT_EXPIRED = "lot_expired"
    LOT_RECALLED = "lot_recalled"
    LOT_ALREADY_RECALLED = "lot_already_recalled"
    # insurance
    PRODUCT_UNKNOWN = "product_unknown"
    PRODUCT_EXISTS = "product_exists"
    PRODUCT_NOT_COSIGNED = "product_not_cosigned"
    RULE_INVALID = "rule_invalid"
    POLICY_UNKNOWN = "policy_unknown"
    POLICY_EXISTS = "policy_exists"
    POLICY_NOT_IN_FORCE = "policy_not_in_force"
    NOT_INSURED = "not_insured"
    CLAIM_UNKNOWN = "claim_unknown"
    CLAIM_EXISTS = "claim_exists"
    CLAIM_ADJUDICATED = "claim_adjudicated"
    ADJUDICATION_WRONG = "adjudication_wrong"
    # people's decisions
    DISCREPANCY_UNKNOWN = "discrepancy_unknown"
    DISCREPANCY_RESOLVED = "discrepancy_resolved"
    # ledgers
    ANCHOR_STALE = "anchor_stale"
    ANCHOR_MISMATCH = "anchor_mismatch"
