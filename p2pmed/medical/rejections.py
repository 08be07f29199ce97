"""Why a rule says no: named, and ranked by which reason is told when several hold.

Earlier names outrank later ones: who may speak at all, then what the words refer to, then
what the words want. A check returns the first that applies in this order.
The names are part of the protocol: one is added, never changed or reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["MEANINGS", "Rejection"]


class Rejection(StrEnum):
    """A refusal; the value is what verdicts, exports and screens carry."""

    # who may speak
    UNKNOWN_TYPE = "unknown_type"
    MALFORMED = "malformed"
    CARRIED = "carried"
    """Not a refusal of the fact: it was written for another ledger, which executes it."""
    AUTHOR_UNKNOWN = "author_unknown"
    AUTHOR_REVOKED = "author_revoked"
    AUTHOR_EXPIRED = "author_expired"
    ROLE_MISSING = "role_missing"
    NOT_THE_PARTY = "not_the_party"
    QUALIFICATION_MISSING = "qualification_missing"
    QUALIFICATION_OUT_OF_SCOPE = "qualification_out_of_scope"
    QUALIFICATION_ELSEWHERE = "qualification_elsewhere"
    QUALIFICATION_SUSPENDED = "qualification_suspended"
    QUALIFICATION_EXPIRED = "qualification_expired"
    QUALIFICATION_UNKNOWN = "qualification_unknown"
    QUALIFICATION_REVOKED = "qualification_revoked"
    QUALIFICATION_FULL = "qualification_full"
    # what the words refer to
    REFERENCE_MISSING = "reference_missing"
    REFERENCE_MISMATCH = "reference_mismatch"
    PATIENT_UNKNOWN = "patient_unknown"
    PATIENT_EXISTS = "patient_exists"
    RECORD_UNKNOWN = "record_unknown"
    RECORD_RETRACTED = "record_retracted"
    NOT_THE_AUTHOR = "not_the_author"
    DISPUTE_UNKNOWN = "dispute_unknown"
    GRANT_UNKNOWN = "grant_unknown"
    DELEGATION_UNKNOWN = "delegation_unknown"
    DELEGATION_EXCEEDED = "delegation_exceeded"
    PROOF_INVALID = "proof_invalid"
    CARD_UNKNOWN = "card_unknown"
    CARD_EXISTS = "card_exists"
    CUSTODY_UNKNOWN = "custody_unknown"
    EMERGENCY_UNKNOWN = "emergency_unknown"
    REFERRAL_UNKNOWN = "referral_unknown"
    CONSULT_UNKNOWN = "consult_unknown"
    SURGERY_UNKNOWN = "surgery_unknown"
    SURGERY_NUMBER_USED = "surgery_number_used"
    SIGNER_MISSING = "signer_missing"
    SIGNER_REPEATED = "signer_repeated"
    SIGNATURE_WRONG = "signature_wrong"
    SIGNATURE_USED = "signature_used"
    MEMBER_UNKNOWN = "member_unknown"
    ISSUER_NOT_ABOVE = "issuer_not_above"
    # drugs
    UNIT_UNKNOWN = "unit_unknown"
    UNIT_EXISTS = "unit_exists"
    UNIT_DISPENSED = "unit_dispensed"
    UNIT_NOT_HELD = "unit_not_held"
    UNIT_IN_TRANSIT = "unit_in_transit"
    SHIPMENT_UNKNOWN = "shipment_unknown"
    SHIPMENT_NOT_FOR_US = "shipment_not_for_us"
    SHIPMENT_RECEIVED = "shipment_received"
    LOT_UNKNOWN = "lot_unknown"
    LOT_EXPIRED = "lot_expired"
    LOT_RECALLED = "lot_recalled"
    LOT_ALREADY_RECALLED = "lot_already_recalled"
    # insurance
    PRODUCT_UNKNOWN = "product_unknown"
    PRODUCT_EXISTS = "product_exists"
    PRODUCT_APPROVED = "product_approved"
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
    # evidence
    EVIDENCE_WRONG = "evidence_wrong"
    EVIDENCE_UNKNOWN = "evidence_unknown"
    EVIDENCE_SETTLED = "evidence_settled"
    # seats
    EPOCH_STALE = "epoch_stale"
    CHANGE_PENDING = "change_pending"
    SEATS_ONE_AT_A_TIME = "seats_one_at_a_time"
    SEATS_IMPOSSIBLE = "seats_impossible"
    SEAT_UNKNOWN = "seat_unknown"
    SEAT_TAKEN = "seat_taken"
    SEAT_QUARANTINED = "seat_quarantined"
    CONSENT_MISSING = "consent_missing"
    SYNC_STALE = "sync_stale"
    VOTE_KEY_MISSING = "vote_key_missing"
    VOTE_KEY_UNKNOWN = "vote_key_unknown"
    VOTE_KEY_UNPROVEN = "vote_key_unproven"
    VOTE_KEY_USED = "vote_key_used"
    VOTE_KEYS_FULL = "vote_keys_full"
    MESH_FULL = "mesh_full"
    BALLOTS_TOO_FEW = "ballots_too_few"
    # ledgers
    ANCHOR_STALE = "anchor_stale"
    ANCHOR_MISMATCH = "anchor_mismatch"


R = Rejection

MEANINGS: Final[Mapping[Rejection, str]] = {
    R.UNKNOWN_TYPE: "This ledger does not know this type of transaction, or its version.",
    R.MALFORMED: "The fields do not fit their type.",
    R.CARRIED: "It was written for another ledger, which executes it; here it is only carried.",
    R.AUTHOR_UNKNOWN: "The author has shown no valid credential.",
    R.AUTHOR_REVOKED: "The author's key was revoked before this was ordered.",
    R.AUTHOR_EXPIRED: "The author's credential had expired when this was ordered.",
    R.ROLE_MISSING: "The author's credential gives none of the roles this type asks for.",
    R.NOT_THE_PARTY: "The author is not the party whose word this is.",
    R.QUALIFICATION_MISSING: "The acting person holds no qualification.",
    R.QUALIFICATION_OUT_OF_SCOPE: "The acting person's qualifications are for other acts.",
    R.QUALIFICATION_ELSEWHERE: "The acting person's qualification is for another facility.",
    R.QUALIFICATION_SUSPENDED: "The acting person's qualification is suspended.",
    R.QUALIFICATION_EXPIRED: "The acting person's qualification is not valid at this time.",
    R.QUALIFICATION_UNKNOWN: "The named qualification is not in this ledger.",
    R.QUALIFICATION_REVOKED: "The qualification was revoked, and a revocation is for good.",
    R.QUALIFICATION_FULL: "This person already holds as many live qualifications as are kept.",
    R.REFERENCE_MISSING: "Something that this refers to is not in this ledger.",
    R.REFERENCE_MISMATCH: "What this refers to does not fit it.",
    R.PATIENT_UNKNOWN: "The patient is not named, or not registered.",
    R.PATIENT_EXISTS: "This patient is registered already.",
    R.RECORD_UNKNOWN: "The record is not in this ledger.",
    R.RECORD_RETRACTED: "The record was retracted.",
    R.NOT_THE_AUTHOR: "Only the author of the record may do this.",
    R.DISPUTE_UNKNOWN: "The dispute is not in this ledger.",
    R.GRANT_UNKNOWN: "The grant is not in this ledger.",
    R.DELEGATION_UNKNOWN: "The delegation is not in this ledger.",
    R.DELEGATION_EXCEEDED: "The delegation does not reach so far, so deep or so long.",
    R.PROOF_INVALID: "The patient's own signature is missing, or does not hold.",
    R.CARD_UNKNOWN: "The card is not in this ledger.",
    R.CARD_EXISTS: "A card of this number is in the ledger already.",
    R.CUSTODY_UNKNOWN: "What is referred to is no custody of this patient's key.",
    R.EMERGENCY_UNKNOWN: "What is referred to is no emergency of this patient.",
    R.REFERRAL_UNKNOWN: "The referral is not in this ledger.",
    R.CONSULT_UNKNOWN: "The consultation is not in this ledger.",
    R.SURGERY_UNKNOWN: "The operation is not in this ledger.",
    R.SURGERY_NUMBER_USED: "This device has written that number of the operation before.",
    R.SIGNER_MISSING: "Somebody whose word is needed has not signed.",
    R.SIGNER_REPEATED: "One person signed twice, where several are needed.",
    R.SIGNATURE_WRONG: "A person's signature does not hold for what is said.",
    R.SIGNATURE_USED: "These signatures have opened this already.",
    R.MEMBER_UNKNOWN: "The member is not known to this ledger.",
    R.ISSUER_NOT_ABOVE: "The author neither issued this nor stands above who did.",
    R.UNIT_UNKNOWN: "No such pack was ever taken into this ledger.",
    R.UNIT_EXISTS: "A pack with this number is in the ledger already.",
    R.UNIT_DISPENSED: "This pack was handed out before.",
    R.UNIT_NOT_HELD: "The ledger says somebody else has this pack.",
    R.UNIT_IN_TRANSIT: "The pack is on its way and not yet received.",
    R.SHIPMENT_UNKNOWN: "The shipment is not in this ledger.",
    R.SHIPMENT_NOT_FOR_US: "The shipment is addressed to somebody else.",
    R.SHIPMENT_RECEIVED: "The shipment was received before.",
    R.LOT_UNKNOWN: "The lot is not in this ledger.",
    R.LOT_EXPIRED: "The pack's expiry date has passed.",
    R.LOT_RECALLED: "The lot was recalled.",
    R.LOT_ALREADY_RECALLED: "The lot was recalled before.",
    R.PRODUCT_UNKNOWN: "The insurance product is not in this ledger.",
    R.PRODUCT_EXISTS: "This version of the product was published before.",
    R.PRODUCT_APPROVED: "The hospital approved this product before.",
    R.PRODUCT_NOT_COSIGNED: "The hospital has not approved the product.",
    R.RULE_INVALID: "The product's rule is not an expression of the rule language.",
    R.POLICY_UNKNOWN: "The policy is not in this ledger.",
    R.POLICY_EXISTS: "A policy of this product covers one of these people at that time already.",
    R.POLICY_NOT_IN_FORCE: "The policy is not in force at this time.",
    R.NOT_INSURED: "The policy does not cover this patient.",
    R.CLAIM_UNKNOWN: "The claim is not in this ledger.",
    R.CLAIM_EXISTS: "The encounter was claimed before.",
    R.CLAIM_ADJUDICATED: "The claim was adjudicated before.",
    R.ADJUDICATION_WRONG: "The published rule gives another result.",
    R.DISCREPANCY_UNKNOWN: "The discrepancy is not in this ledger.",
    R.DISCREPANCY_RESOLVED: "The discrepancy was resolved before.",
    R.EVIDENCE_WRONG: "The evidence proves nothing against anybody.",
    R.EVIDENCE_UNKNOWN: "Nobody has reported such evidence.",
    R.EVIDENCE_SETTLED: "This was decided before.",
    R.EPOCH_STALE: "It was said of another epoch than the one in force.",
    R.CHANGE_PENDING: "Another change ends this epoch already; write it again in the next one.",
    R.SEATS_ONE_AT_A_TIME: "A Raft mesh changes one seat at a time, and withstands no liars.",
    R.SEATS_IMPOSSIBLE: "These seats cannot be an epoch, or are those there are.",
    R.SEAT_UNKNOWN: "The device has no seat in this mesh, and has not joined it.",
    R.SEAT_TAKEN: "The device has a seat already.",
    R.SEAT_QUARANTINED: "The device was proved to have lied; people must settle that first.",
    R.CONSENT_MISSING: "The device has not joined: nobody is given a seat against its will.",
    R.SYNC_STALE: "The device has not caught up: it names no recent block of this ledger.",
    R.VOTE_KEY_MISSING: "A seat has no unused vote key published for the next epoch.",
    R.VOTE_KEY_UNKNOWN: "Not a vote key that the device published and that may still be used.",
    R.VOTE_KEY_UNPROVEN: "A published vote key whose secret half the device did not prove to have.",
    R.VOTE_KEY_USED: "A vote key that was published or used before.",
    R.VOTE_KEYS_FULL: "The device has published as many unused vote keys as are kept.",
    R.MESH_FULL: "The mesh has as many devices as are kept.",
    R.BALLOTS_TOO_FEW: "Not more than half of the members have written a ballot in this epoch.",
    R.ANCHOR_STALE: "A later anchor of that ledger is known.",
    R.ANCHOR_MISMATCH: "The anchor does not fit what is known of that ledger.",
}
"""One sentence each, for screens and the reference."""
