"""Contradictions: two facts, each fine alone, that cannot both be right.

Rule: a contradiction is kept, shown, and resolved by a person's signed decision; never dropped.
Its id is a hash of the two transactions' ids in byte order, so the county and both villages
name it alike, whichever each saw first (design, sections 3 and 12).

Two ways in:

* a check answers ``Refusal``: the machine opens the discrepancy beside the refused verdict. Where
  two ledgers spent one thing, that happens at the county, which executes both (``county.py``);
* the county tells a village of one by ``discrepancy.report``.

One way out: ``discrepancy.resolve``. The verdicts stay as they are; settlement is a new fact.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.fields import Code, FieldFault
from p2pmed.medical.registry import Act, Checked, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import OVERSEERS, Role, roles
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, OptionalId, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "KINDS",
    "Discrepancy",
    "DiscrepancyReport",
    "DiscrepancyResolve",
    "Ruling",
    "discrepancy_id",
    "find_discrepancy",
    "open_discrepancies",
    "record_discrepancy",
]


class Ruling(StrEnum):
    """What a person decided."""

    FIRST_STANDS = "first_stands"
    SECOND_STANDS = "second_stands"
    BOTH_STAND = "both_stand"
    NEITHER_STANDS = "neither_stands"


class Discrepancy(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Two transactions that cannot both be right; ``first`` is the one this ledger saw first."""

    reason: Code
    """The rejection's name."""
    first: Bytes32
    second: Bytes32
    time: TimeMs
    """Block time when it was seen here."""
    resolved_by: OptionalId = b""
    """The ``discrepancy.resolve`` transaction, or empty while open."""
    ruling: str = ""

    @property
    def id(self) -> bytes:
        """The same in every ledger."""
        return discrepancy_id(self.first, self.second)


class DiscrepancyReport(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``discrepancy.report``: an overseer tells a ledger of a contradiction it could not see."""

    first: Bytes32
    second: Bytes32
    reason: Code

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise FieldFault("second: a transaction cannot contradict itself")


class DiscrepancyResolve(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``discrepancy.resolve``: a person's decision about a contradiction."""

    discrepancy: Bytes32
    ruling: Ruling
    reason: Code


_DISCREPANCIES: Final = Table("discrepancy", Discrepancy)


def discrepancy_id(first: bytes, second: bytes) -> bytes:
    """The name of the contradiction between two transactions, in either order."""
    return digest("discrepancy", min(first, second) + max(first, second))


def find_discrepancy(view: Readable, discrepancy: bytes) -> Discrepancy | None:
    """The discrepancy with this id."""
    return _DISCREPANCIES.get(view, discrepancy)


def open_discrepancies(view: Readable) -> tuple[Discrepancy, ...]:
    """Those that nobody has resolved, in order of their ids."""
    return tuple(row for _, row in _DISCREPANCIES.scan(view) if not row.resolved_by)


def record_discrepancy(view: View, reason: str, first: bytes, second: bytes, time_ms: int) -> bytes:
    """Open the discrepancy, unless it is known (open or resolved); return its id."""
    name = discrepancy_id(first, second)
    if _DISCREPANCIES.get(view, name) is None:
        row = Discrepancy(reason=str(reason), first=first, second=second, time=time_ms)
        _DISCREPANCIES.put(view, row, name)
    return name


def _check_report(act: Act[DiscrepancyReport], view: View) -> Checked:
    return None


def _apply_report(act: Act[DiscrepancyReport], view: View) -> None:
    body = act.body
    record_discrepancy(view, body.reason, body.first, body.second, act.context.time_ms)


def _check_resolve(act: Act[DiscrepancyResolve], view: View) -> Checked:
    row = find_discrepancy(view, act.body.discrepancy)
    if row is None:
        return Rejection.DISCREPANCY_UNKNOWN
    return Rejection.DISCREPANCY_RESOLVED if row.resolved_by else None


def _apply_resolve(act: Act[DiscrepancyResolve], view: View) -> None:
    row = find_discrepancy(view, act.body.discrepancy)
    assert row is not None  # the check has read it
    resolved = msgspec.structs.replace(row, resolved_by=act.entry.id, ruling=act.body.ruling.value)
    _DISCREPANCIES.put(view, resolved, act.body.discrepancy)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="discrepancy.report",
        body=DiscrepancyReport,
        check=_check_report,
        apply=_apply_report,
        everywhere=True,
        roles=OVERSEERS,
        rules="Opens the discrepancy wherever it is ordered; told twice it changes nothing.",
    ),
    Kind(
        name="discrepancy.resolve",
        body=DiscrepancyResolve,
        check=_check_resolve,
        apply=_apply_resolve,
        everywhere=True,
        roles=OVERSEERS | roles(Role.HOSPITAL),
        rules="Refused `discrepancy_unknown`, or `discrepancy_resolved` when a decision stands; "
        "no verdict changes.",
    ),
)
