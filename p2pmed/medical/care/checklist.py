"""The WHO Surgical Safety Checklist: three phases, their items as codes, and who signs each.

Rule of this file: tables. The items are those of the WHO Surgical Safety Checklist (World Health
Organization, revised 1/2009): before induction of anaesthesia (sign in), before skin incision
(time out), before the patient leaves the operating room (sign out). WHO asks for the nurse and the
anaesthetist at sign in, and for nurse, anaesthetist and surgeon at the two others; each phase is
answered whole, and each role is another person.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

__all__ = ["ITEMS", "ROLES", "SCOPE_OF_ROLE", "STEPS", "Answer", "Phase", "TeamRole"]


class Phase(IntEnum):
    """In the order in which they are done."""

    SIGN_IN = 1
    TIME_OUT = 2
    SIGN_OUT = 3


class Answer(IntEnum):
    """To one item. *No* is recorded as well: a checklist that can only be ticked proves nothing."""

    NO = 0
    YES = 1
    NOT_APPLICABLE = 2


class TeamRole(IntEnum):
    """For what somebody signs."""

    SURGEON = 1
    ANAESTHETIST = 2
    NURSE = 3


ITEMS: Final[Mapping[Phase, tuple[str, ...]]] = {
    Phase.SIGN_IN: (
        "identity-site-procedure-consent-confirmed",
        "site-marked",
        "anaesthesia-machine-and-medication-checked",
        "pulse-oximeter-on-and-functioning",
        "known-allergy-reviewed",
        "difficult-airway-or-aspiration-risk-reviewed",
        "blood-loss-over-500ml-risk-reviewed",
    ),
    Phase.TIME_OUT: (
        "team-introduced-by-name-and-role",
        "patient-procedure-incision-site-confirmed",
        "antibiotic-prophylaxis-within-60-minutes",
        "surgeon-critical-steps-reviewed",
        "surgeon-duration-reviewed",
        "surgeon-anticipated-blood-loss-reviewed",
        "anaesthetist-patient-specific-concerns-reviewed",
        "nursing-sterility-confirmed",
        "nursing-equipment-issues-reviewed",
        "essential-imaging-displayed",
    ),
    Phase.SIGN_OUT: (
        "procedure-name-confirmed",
        "instrument-sponge-needle-counts-complete",
        "specimens-labelled-with-patient-name",
        "equipment-problems-addressed",
        "recovery-concerns-reviewed",
    ),
}
"""What each phase asks, in its order."""

ROLES: Final[Mapping[Phase, tuple[TeamRole, ...]]] = {
    Phase.SIGN_IN: (TeamRole.ANAESTHETIST, TeamRole.NURSE),
    Phase.TIME_OUT: (TeamRole.SURGEON, TeamRole.ANAESTHETIST, TeamRole.NURSE),
    Phase.SIGN_OUT: (TeamRole.SURGEON, TeamRole.ANAESTHETIST, TeamRole.NURSE),
}
"""Who must have signed each phase; more may."""

SCOPE_OF_ROLE: Final[Mapping[TeamRole, str]] = {
    TeamRole.SURGEON: "surgery",
    TeamRole.ANAESTHETIST: "anaesthesia",
    TeamRole.NURSE: "theatre",
}
"""The qualification that a signer needs."""

STEPS: Final = (
    "patient-in-room",
    "anaesthesia-start",
    "incision",
    "specimen",
    "implant",
    "blood-given",
    "count",
    "complication",
    "closure",
    "anaesthesia-end",
    "patient-out-of-room",
    "other",
)
"""Steps of an operation in clear: alike in every operation, they tell nothing of this one."""
