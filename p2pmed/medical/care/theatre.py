"""What an operation's entries say together: steps in order, what is missing, what came late.

Rule of this file: pure and the same for who runs a node and for an expert with a case file. It
judges by what is signed: ``occurred`` (when somebody says it happened), the hybrid clock (when
it was recorded, above everything its device knew then), and which entry is the close.
Implements ``docs/protocols/care.md``, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.checklist import ITEMS, Answer, Phase
from p2pmed.medical.care.surgery import (
    SurgeryChecklist,
    SurgeryClose,
    SurgeryEvent,
    SurgeryNote,
    SurgeryPlan,
)
from p2pmed.wire.codec import Wire

__all__ = ["AHEAD_MS", "LATE_MS", "SURGERY_BODIES", "Told", "Written", "assess", "number_of"]

LATE_MS: Final = 15 * 60_000
"""Recorded so long after it happened, an entry of an operation is late."""
AHEAD_MS: Final = 5 * 60_000
"""So far before it is said to have happened, a clock is wrong or somebody signed in advance."""
SURGERY_BODIES: Final = (SurgeryPlan, SurgeryChecklist, SurgeryEvent, SurgeryNote, SurgeryClose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One entry of an operation, and what the ledger made of it."""

    entry: Entry
    body: Wire
    applied: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is odd about an operation, in codes and sentences."""

    missing: tuple[str, ...]
    """Steps that nobody recorded, or that came in the wrong order."""
    late: tuple[tuple[bytes, str], ...]
    """Entries that came late, and why, in the order given."""
    unmet: tuple[str, ...]
    """Items of the checklist that were answered with *no*."""


def number_of(body: Wire) -> int:
    """The number of an entry of an operation; a plan is number 1."""
    return getattr(body, "number", 1)


def assess(written: Sequence[Written]) -> Told:
    """Judge the entries of one operation, given in the order of their hybrid clocks."""
    taken = [each for each in written if each.applied]
    phases = {
        each.body.phase: each for each in reversed(taken) if isinstance(each.body, SurgeryChecklist)
    }
    return Told(
        missing=tuple(_missing(taken, phases)),
        late=tuple(_late(taken)),
        unmet=tuple(_unmet(phases)),
    )


def _missing(taken: Sequence[Written], phases: dict[Phase, Written]) -> list[str]:
    found = [f"no {_name(phase)} was signed" for phase in Phase if phase not in phases]
    done = [phase for phase in Phase if phase in phases]
    for before, after in pairwise(done):
        if _occurred(phases[before]) > _occurred(phases[after]):
            found.append(f"the {_name(after)} is said to have come before the {_name(before)}")
    incision = min(
        (
            each.body.occurred
            for each in taken
            if isinstance(each.body, SurgeryEvent) and each.body.step == "incision"
        ),
        default=None,
    )
    if incision is not None:
        found += [
            f"the {_name(phase)} came after the incision"
            for phase in (Phase.SIGN_IN, Phase.TIME_OUT)
            if phase in phases and _occurred(phases[phase]) > incision
        ]
    if not any(isinstance(each.body, SurgeryPlan) for each in taken):
        found.append("no plan")
    if not any(isinstance(each.body, SurgeryClose) for each in taken):
        found.append("never closed")
    return found


def _late(taken: Sequence[Written]) -> list[tuple[bytes, str]]:
    closed = next((each.entry for each in taken if isinstance(each.body, SurgeryClose)), None)
    found = []
    for each in taken:
        occurred = getattr(each.body, "occurred", None)
        recorded = each.entry.envelope.hlc >> 16
        if closed is not None and each.entry.envelope.hlc > closed.envelope.hlc:
            found.append((each.entry.id, "recorded after the operation was closed"))
        if occurred is not None and recorded - occurred > LATE_MS:
            minutes = (recorded - occurred) // 60_000
            found.append((each.entry.id, f"recorded {minutes} minutes after it happened"))
        if occurred is not None and occurred - recorded > AHEAD_MS:
            minutes = (occurred - recorded) // 60_000
            found.append((each.entry.id, f"recorded {minutes} minutes before it happened"))
    return found


def _unmet(phases: dict[Phase, Written]) -> list[str]:
    found = []
    for phase in Phase:
        each = phases.get(phase)
        if each is not None and isinstance(each.body, SurgeryChecklist):
            found += [
                f"{_name(phase)}: {item}"
                for item, answer in zip(ITEMS[phase], each.body.answers, strict=False)
                if answer is Answer.NO
            ]
    return found


def _occurred(each: Written) -> int:
    occurred: int = getattr(each.body, "occurred", 0)
    return occurred


def _name(phase: Phase) -> str:
    return phase.name.lower().replace("_", "-")
